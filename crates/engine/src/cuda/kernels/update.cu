// Optimiser updates, one pass over weight, gradient and moments; see `cpu/update.rs` for the formulas. Where the weight
// is also held in short form, `shadow` is written with it.


// Thread i updates weight i: `g` is its gradient, scaled and decayed, `w` its value, shrunk. `body` changes `w`.
#define UPDATE(name, ...)                                                                                               \
    extern "C" __global__ void name(float *weight, const float *gradient, bf16 *shadow, float *m0, float *m1,          \
                                    float *m2, size_t n, float gradient_scale, float shrink, float l2, float rate,    \
                                    float a, float b, float c, float d, float e) {                                    \
        const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;                                                \
        if (i >= n) return;                                                                                            \
        float w = weight[i];                                                                                           \
        const float g = gradient[i] * gradient_scale + l2 * w;                                                         \
        w *= shrink;                                                                                                   \
        __VA_ARGS__;                                                                                                    \
        weight[i] = w;                                                                                                 \
        if (shadow) put(shadow + i, w);                                                                                \
    }

// The first and the second moment of a gradient, with their decays a and b.
__device__ __forceinline__ void moments(float g, float *first, float *second, float a, float b) {
    *first += (1.f - a) * (g - *first);
    *second = b * *second + (1.f - b) * g * g;
}

// rate: step size; c: eps; d: correction of the second moment
UPDATE(adam, {
    float m = m0[i], v = m1[i];
    moments(g, &m, &v, a, b);
    m0[i] = m;
    m1[i] = v;
    w -= rate * m / (sqrtf(v) * d + c);
})

UPDATE(adam_amsgrad, {
    float m = m0[i], v = m1[i];
    moments(g, &m, &v, a, b);
    const float largest = fmaxf(m2[i], v);
    m0[i] = m;
    m1[i] = v;
    m2[i] = largest;
    w -= rate * m / (sqrtf(largest) * d + c);
})

UPDATE(sgd, { w -= rate * g; })

// a: momentum; b: 1 - dampening; c: not 0 for Nesterov's; d: not 0 in the first step
UPDATE(sgd_momentum, {
    const float velocity = d != 0.f ? g : a * m0[i] + b * g;
    m0[i] = velocity;
    w -= rate * (c != 0.f ? g + a * velocity : velocity);
})

// c: eps; d: not 0 if adapted, by e
UPDATE(radam, {
    float m = m0[i], v = m1[i];
    moments(g, &m, &v, a, b);
    m0[i] = m;
    m1[i] = v;
    w -= rate * m * (d != 0.f ? e / (sqrtf(v) + c) : 1.f);
})

// rate: of the gradient; c: eps; d: correction of the second moment; e: rate of the moment
UPDATE(nadam, {
    float m = m0[i], v = m1[i];
    moments(g, &m, &v, a, b);
    m0[i] = m;
    m1[i] = v;
    w -= (rate * g + e * m) / (sqrtf(v) * d + c);
})

UPDATE(adamax, {
    const float m = m0[i] + (1.f - a) * (g - m0[i]);
    const float largest = fmaxf(b * m1[i], fabsf(g) + c);
    m0[i] = m;
    m1[i] = largest;
    w -= rate * m / largest;
})

UPDATE(adagrad, {
    const float sum = m0[i] + g * g;
    m0[i] = sum;
    w -= rate * g / (sqrtf(sum) + c);
})

UPDATE(adadelta, {
    const float squares = a * m0[i] + (1.f - a) * g * g;
    const float change = sqrtf(m1[i] + c) / sqrtf(squares + c) * g;
    m0[i] = squares;
    m1[i] = a * m1[i] + (1.f - a) * change * change;
    w -= rate * change;
})

// a: alpha; b: momentum; c: eps; d: not 0 if centred. Moments: squares, then the mean if centred, then the velocity.
UPDATE(rms_prop, {
    const float squares = a * m0[i] + (1.f - a) * g * g;
    m0[i] = squares;
    float variance = squares;
    if (d != 0.f) {
        const float mean = m1[i] + (1.f - a) * (g - m1[i]);
        m1[i] = mean;
        variance = fmaxf(squares - mean * mean, 0.f);
    }
    const float step = g / (sqrtf(variance) + c);
    float *velocities = d != 0.f ? m2 : m1;
    if (b > 0.f) {
        const float velocity = b * velocities[i] + step;
        velocities[i] = velocity;
        w -= rate * velocity;
    } else {
        w -= rate * step;
    }
})

// a: what is kept of the weight
UPDATE(asgd, { w = w * a - rate * g; })

// a, b: factors on a change of sign and without one; c, d: the shortest and the longest step
UPDATE(rprop, {
    const float agreement = g * m0[i];
    const float factor = agreement > 0.f ? b : agreement < 0.f ? a : 1.f;
    const float size = fminf(fmaxf(m1[i] * factor, c), d);
    const float now = agreement < 0.f ? 0.f : g;
    m1[i] = size;
    m0[i] = now;
    w -= now == 0.f ? 0.f : copysignf(size, now);
})
