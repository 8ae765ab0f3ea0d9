// Elementwise activations and their slopes, numbered as `device::Activation` is; what uses them pastes this after
// `common.cuh`. Kernels take the kind as a template argument, or at run time where that costs nothing.

#define IDENTITY 0
#define GELU 1
#define GELU_TANH 2
#define RELU 3
#define SILU 4
#define QUICK_GELU 5
#define TANH 6
#define SIGMOID 7
#define RELU6 8
#define HARD_SWISH 9
#define HARD_SIGMOID 10

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

__device__ __forceinline__ float clamp6(float x) { return fminf(fmaxf(x, 0.0f), 6.0f); }

// The share of a normal distribution below x, as exact as numbers of the type are. That of short numbers is by Abramowitz
// and Stegun 7.1.26 with the exponential that the slope needs, too; its error is below 4e-7, and from -4 on below 5e-4 of the
// share, an eighth of what bf16 rounds.
template <typename T> __device__ __forceinline__ float normal_share(float x) {
    if (sizeof(T) == 4) return 0.5f + 0.5f * erff(x * 0.70710678f);
    const float t = __fdividef(1.0f, fmaf(0.2316419f, fabsf(x), 1.0f));
    float tail = fmaf(1.061405429f, t, -1.453152027f);
    tail = fmaf(tail, t, 1.421413741f);
    tail = fmaf(tail, t, -0.284496736f);
    tail = fmaf(tail, t, 0.254829592f) * t * 0.5f * __expf(-0.5f * x * x);
    return x < 0.0f ? tail : 1.0f - tail;
}

template <typename T> __device__ __forceinline__ float normal_density(float x) {
    return 0.3989423f * (sizeof(T) == 4 ? expf(-0.5f * x * x) : __expf(-0.5f * x * x));
}

__device__ __forceinline__ float gelu_tangent(float x) {
    return tanhf(0.7978846f * (x + 0.044715f * x * x * x));
}

// activation(x), as exact as numbers of the type are
template <int KIND, typename T> __device__ __forceinline__ float activate(float x) {
    switch (KIND) {
    case GELU: return x * normal_share<T>(x);
    case GELU_TANH: return 0.5f * x * (1.0f + gelu_tangent(x));
    case RELU: return fmaxf(x, 0.0f);
    case SILU: return x * sigmoid(x);
    case QUICK_GELU: return x * sigmoid(1.702f * x);
    case TANH: return tanhf(x);
    case SIGMOID: return sigmoid(x);
    case RELU6: return clamp6(x);
    case HARD_SWISH: return x * clamp6(x + 3.0f) / 6.0f;
    case HARD_SIGMOID: return clamp6(x + 3.0f) / 6.0f;
    default: return x;
    }
}

// activation'(x), and where it bends what torch says.
template <int KIND, typename T> __device__ __forceinline__ float activate_slope(float x) {
    switch (KIND) {
    case GELU: return normal_share<T>(x) + x * normal_density<T>(x);
    case GELU_TANH: {
        float t = gelu_tangent(x);
        return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.7978846f * (1.0f + 3.0f * 0.044715f * x * x);
    }
    case RELU: return x > 0.0f ? 1.0f : 0.0f;
    case SILU: {
        float s = sigmoid(x);
        return s + x * s * (1.0f - s);
    }
    case QUICK_GELU: {
        float s = sigmoid(1.702f * x);
        return s + 1.702f * x * s * (1.0f - s);
    }
    case TANH: {
        float t = tanhf(x);
        return 1.0f - t * t;
    }
    case SIGMOID: {
        float s = sigmoid(x);
        return s * (1.0f - s);
    }
    case RELU6: return x > 0.0f && x < 6.0f ? 1.0f : 0.0f;
    case HARD_SWISH: return x > -3.0f ? (x < 3.0f ? x / 3.0f + 0.5f : 1.0f) : 0.0f;
    case HARD_SIGMOID: return x > -3.0f && x < 3.0f ? 1.0f / 6.0f : 0.0f;
    default: return 1.0f;
    }
}

// One case for each kind: `EACH_ACTIVATION(kind, y = activate<KIND>(x))`.
#define EACH_ACTIVATION(kind, what)                                                                                    \
    switch (kind) {                                                                                                    \
    case GELU: { constexpr int KIND = GELU; what; break; }                                                             \
    case GELU_TANH: { constexpr int KIND = GELU_TANH; what; break; }                                                   \
    case RELU: { constexpr int KIND = RELU; what; break; }                                                             \
    case SILU: { constexpr int KIND = SILU; what; break; }                                                             \
    case QUICK_GELU: { constexpr int KIND = QUICK_GELU; what; break; }                                                 \
    case TANH: { constexpr int KIND = TANH; what; break; }                                                             \
    case SIGMOID: { constexpr int KIND = SIGMOID; what; break; }                                                       \
    case RELU6: { constexpr int KIND = RELU6; what; break; }                                                           \
    case HARD_SWISH: { constexpr int KIND = HARD_SWISH; what; break; }                                                 \
    case HARD_SIGMOID: { constexpr int KIND = HARD_SIGMOID; what; break; }                                             \
    default: { constexpr int KIND = IDENTITY; what; break; }                                                           \
    }
