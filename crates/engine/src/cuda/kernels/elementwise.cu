// Element by element, eight to a thread, and sums over rows or over everything.

// Where this thread's elements begin and how many there are: 8, or fewer at the end.
#define EIGHT_EACH(n)                                                                                                  \
    const size_t at = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * 8;                                             \
    if (at >= (n)) return;                                                                                             \
    const int count = (n) - at < 8 ? (int)((n) - at) : 8

template <typename T> __device__ __forceinline__ Eight some(const T *from, int count) {
    if (count == 8) return eight(from);
    Eight x = {};
    for (int i = 0; i < count; i++) x.of[i] = number(from[i]);
    return x;
}

template <typename T> __device__ __forceinline__ void put_some(T *to, const Eight &x, int count) {
    if (count == 8) return put_eight(to, x);
    for (int i = 0; i < count; i++) put(to + i, x.of[i]);
}

// Each of eight numbers, and of two eights.
template <typename F> __device__ __forceinline__ Eight each(const Eight &x, F f) {
    Eight y;
#pragma unroll
    for (int i = 0; i < 8; i++) y.of[i] = f(x.of[i]);
    return y;
}

template <typename F> __device__ __forceinline__ Eight each(const Eight &a, const Eight &b, F f) {
    Eight y;
#pragma unroll
    for (int i = 0; i < 8; i++) y.of[i] = f(a.of[i], b.of[i]);
    return y;
}

extern "C" __global__ void to_bf16(const float *x, bf16 *y, size_t n) {
    EIGHT_EACH(n);
    put_some(y + at, some(x + at, count), count);
}

extern "C" __global__ void to_f32(const bf16 *x, float *y, size_t n) {
    EIGHT_EACH(n);
    put_some(y + at, some(x + at, count), count);
}

// sum += x
template <typename T> __device__ void add(T *sum, const T *x, size_t n) {
    EIGHT_EACH(n);
    const auto added = [](float a, float b) { return a + b; };
    put_some(sum + at, each(some(sum + at, count), some(x + at, count), added), count);
}

extern "C" __global__ void add_f32(float *sum, const float *x, size_t n) { add(sum, x, n); }
extern "C" __global__ void add_bf16(bf16 *sum, const bf16 *x, size_t n) { add(sum, x, n); }

// x *= factor
template <typename T> __device__ void scale(T *x, float factor, size_t n) {
    EIGHT_EACH(n);
    put_some(x + at, each(some(x + at, count), [&](float a) { return a * factor; }), count);
}

extern "C" __global__ void scale_f32(float *x, float factor, size_t n) { scale(x, factor, n); }
extern "C" __global__ void scale_bf16(bf16 *x, float factor, size_t n) { scale(x, factor, n); }

template <int KIND, typename T> __device__ __forceinline__ Eight activated(const Eight &x) {
    return each(x, [](float x) { return activate<KIND, T>(x); });
}

template <int KIND, typename T> __device__ __forceinline__ Eight gradients(const Eight &x, const Eight &dy) {
    return each(x, dy, [](float x, float dy) { return dy * activate_slope<KIND, T>(x); });
}

template <typename T> __device__ void activation(int kind, const T *x, T *y, size_t n) {
    EIGHT_EACH(n);
    const Eight a = some(x + at, count);
    EACH_ACTIVATION(kind, (put_some(y + at, activated<KIND, T>(a), count)));
}

extern "C" __global__ void activation_f32(int kind, const float *x, float *y, size_t n) { activation(kind, x, y, n); }
extern "C" __global__ void activation_bf16(int kind, const bf16 *x, bf16 *y, size_t n) { activation(kind, x, y, n); }

// dx = dy * activation'(x); both may lie in the same place.
template <typename T> __device__ void activation_backward(int kind, const T *x, const T *dy, T *dx, size_t n) {
    EIGHT_EACH(n);
    const Eight a = some(x + at, count), upstream = some(dy + at, count);
    EACH_ACTIVATION(kind, (put_some(dx + at, gradients<KIND, T>(a, upstream), count)));
}

extern "C" __global__ void activation_backward_f32(int kind, const float *x, const float *dy, float *dx, size_t n) {
    activation_backward(kind, x, dy, dx, n);
}
extern "C" __global__ void activation_backward_bf16(int kind, const bf16 *x, const bf16 *dy, bf16 *dx, size_t n) {
    activation_backward(kind, x, dy, dx, n);
}

// active = activation(middle); gradient *= activation'(middle), and the sums of its columns. Block (c, part) takes the
// rows of its part, `rows_each` of them, in columns 256 c to 256 c + 255 and writes row `part` of `sums [parts,
// columns]`; 8 warps take the rows by turns. Columns are a multiple of 8.
template <int KIND, typename T> __device__ __forceinline__ void
active_and_gradient(const T *middle, T *active, T *gradient, u32 from, u32 to, u32 columns, float (*warp_sums)[256]) {
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, first = blockIdx.x * 256 + lane * 8;
    Eight sum = {};
    if (first < columns) {
        for (u32 row = from + warp; row < to; row += 8) {
            const size_t at = (size_t)row * columns + first;
            const Eight x = eight(middle + at), slopes = gradients<KIND, T>(x, eight(gradient + at));
            put_eight(active + at, activated<KIND, T>(x));
            put_eight(gradient + at, slopes);
            sum = each(sum, slopes, [](float a, float b) { return a + b; });
        }
    }
#pragma unroll
    for (int i = 0; i < 8; i++) warp_sums[warp][lane * 8 + i] = sum.of[i];
}

template <typename T> __device__ void active_and_gradient(int kind, const T *middle, T *active, T *gradient,
                                                          float *sums, u32 rows, u32 columns, u32 rows_each) {
    __shared__ float warp_sums[8][256];
    const u32 from = blockIdx.y * rows_each, to = rows < from + rows_each ? rows : from + rows_each;
    EACH_ACTIVATION(kind, (active_and_gradient<KIND, T>(middle, active, gradient, from, to, columns, warp_sums)));
    __syncthreads();
    const u32 column = blockIdx.x * 256 + threadIdx.x;
    if (column >= columns) return;
    float total = 0.f;
    for (int i = 0; i < 8; i++) total += warp_sums[i][threadIdx.x];
    sums[(size_t)blockIdx.y * columns + column] = total;
}

extern "C" __global__ void __launch_bounds__(256)
    active_and_gradient_f32(int kind, const float *middle, float *active, float *gradient, float *sums, u32 rows,
                            u32 columns, u32 rows_each) {
    active_and_gradient(kind, middle, active, gradient, sums, rows, columns, rows_each);
}
extern "C" __global__ void __launch_bounds__(256)
    active_and_gradient_bf16(int kind, const bf16 *middle, bf16 *active, bf16 *gradient, float *sums, u32 rows,
                             u32 columns, u32 rows_each) {
    active_and_gradient(kind, middle, active, gradient, sums, rows, columns, rows_each);
}

// One row to a warp: dropped elements become 0, the others are scaled.
template <typename T>
__device__ void dropout(const T *x, T *y, const uint2 *places, u64 key, u32 threshold, float factor, u32 rows,
                        u32 columns) {
    const u32 row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    const u64 own = row_key(key, places[row]);
    x += (size_t)row * columns;
    y += (size_t)row * columns;
    if (columns % 4 == 0) {
        for (u32 column = threadIdx.x % 32 * 4; column < columns; column += 128) {
            float4 a = numbers(x + column);
            a.x = keep(own, column, threshold) ? a.x * factor : 0.f;
            a.y = keep(own, column + 1, threshold) ? a.y * factor : 0.f;
            a.z = keep(own, column + 2, threshold) ? a.z * factor : 0.f;
            a.w = keep(own, column + 3, threshold) ? a.w * factor : 0.f;
            put_numbers(y + column, a);
        }
    } else {
        for (u32 column = threadIdx.x % 32; column < columns; column += 32)
            put(y + column, keep(own, column, threshold) ? number(x[column]) * factor : 0.f);
    }
}

extern "C" __global__ void dropout_f32(const float *x, float *y, const uint2 *places, u64 key, u32 threshold,
                                       float factor, u32 rows, u32 columns) {
    dropout(x, y, places, key, threshold, factor, rows, columns);
}
extern "C" __global__ void dropout_bf16(const bf16 *x, bf16 *y, const uint2 *places, u64 key, u32 threshold,
                                        float factor, u32 rows, u32 columns) {
    dropout(x, y, places, key, threshold, factor, rows, columns);
}

// Sums of columns: block (c, part) adds the rows of its part, `rows_each` of them, in columns 128 c to 128 c + 127, and
// writes row `part` of `out [parts, columns]`; 8 warps take the rows by turns.
template <typename T>
__device__ void column_sums(const T *x, float *out, u32 rows, u32 columns, u32 rows_each, u32 accumulate) {
    __shared__ float sums[8][128];
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const u32 first = blockIdx.x * 128 + lane * 4;
    const u32 start = blockIdx.y * rows_each;
    const u32 end = rows < start + rows_each ? rows : start + rows_each;
    float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
    if (columns % 4 == 0) {
        if (first < columns) {
            for (u32 row = start + warp; row < end; row += 8) {
                const float4 a = numbers(x + (size_t)row * columns + first);
                sum.x += a.x;
                sum.y += a.y;
                sum.z += a.z;
                sum.w += a.w;
            }
        }
    } else if (first < columns) {
        const int count = columns - first < 4 ? (int)(columns - first) : 4;
        for (u32 row = start + warp; row < end; row += 8) {
            const T *from = x + (size_t)row * columns + first;
            sum.x += number(from[0]);
            if (count > 1) sum.y += number(from[1]);
            if (count > 2) sum.z += number(from[2]);
            if (count > 3) sum.w += number(from[3]);
        }
    }
    *(float4 *)&sums[warp][lane * 4] = sum;
    __syncthreads();
    const u32 column = blockIdx.x * 128 + threadIdx.x;
    if (threadIdx.x < 128 && column < columns) {
        float total = 0.f;
        for (int i = 0; i < 8; i++) total += sums[i][threadIdx.x];
        float *to = out + (size_t)blockIdx.y * columns + column;
        *to = accumulate ? *to + total : total;
    }
}

extern "C" __global__ void column_sums_f32(const float *x, float *out, u32 rows, u32 columns, u32 rows_each,
                                           u32 accumulate) {
    column_sums(x, out, rows, columns, rows_each, accumulate);
}
extern "C" __global__ void column_sums_bf16(const bf16 *x, float *out, u32 rows, u32 columns, u32 rows_each,
                                            u32 accumulate) {
    column_sums(x, out, rows, columns, rows_each, accumulate);
}

// The sum over the threads of a block of 256, in thread 0.
__device__ double block_sum(double x) {
    __shared__ double sums[8];
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
    __syncthreads();
    double total = 0.0;
    if (threadIdx.x == 0)
        for (int i = 0; i < 8; i++) total += sums[i];
    return total;
}

// The squares of each block's elements, summed: `out[block]`.
template <typename T> __device__ void squares(const T *x, double *out, size_t n) {
    double sum = 0.0;
    const size_t stride = (size_t)gridDim.x * blockDim.x * 8;
    for (size_t at = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * 8; at < n; at += stride) {
        const Eight a = some(x + at, n - at < 8 ? (int)(n - at) : 8);
#pragma unroll
        for (int i = 0; i < 8; i++) sum += (double)a.of[i] * a.of[i];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

extern "C" __global__ void squares_f32(const float *x, double *out, size_t n) { squares(x, out, n); }
extern "C" __global__ void squares_bf16(const bf16 *x, double *out, size_t n) { squares(x, out, n); }

// The sum of `n` numbers, by one block.
extern "C" __global__ void total(const double *x, double *out, size_t n) {
    double sum = 0.0;
    for (size_t i = threadIdx.x; i < n; i += blockDim.x) sum += x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *out = sum;
}
