// Element by element, four to a thread, and sums over rows or over everything.

// Calls `each(index, count)` with where this thread's elements begin and how many there are: 4, or fewer at the end.
#define FOUR_EACH(n)                                                                                                   \
    const size_t at = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * 4;                                             \
    if (at >= (n)) return;                                                                                             \
    const int count = (n) - at < 4 ? (int)((n) - at) : 4

template <typename T> __device__ __forceinline__ float4 some(const T *from, int count) {
    if (count == 4) return numbers(from);
    float4 x = make_float4(0.f, 0.f, 0.f, 0.f);
    x.x = number(from[0]);
    if (count > 1) x.y = number(from[1]);
    if (count > 2) x.z = number(from[2]);
    return x;
}

template <typename T> __device__ __forceinline__ void put_some(T *to, float4 x, int count) {
    if (count == 4) return put_numbers(to, x);
    put(to, x.x);
    if (count > 1) put(to + 1, x.y);
    if (count > 2) put(to + 2, x.z);
}

extern "C" __global__ void to_bf16(const float *x, bf16 *y, size_t n) {
    FOUR_EACH(n);
    put_some(y + at, some(x + at, count), count);
}

extern "C" __global__ void to_f32(const bf16 *x, float *y, size_t n) {
    FOUR_EACH(n);
    put_some(y + at, some(x + at, count), count);
}

// sum += x
template <typename T> __device__ void add(T *sum, const T *x, size_t n) {
    FOUR_EACH(n);
    const float4 a = some(sum + at, count), b = some(x + at, count);
    put_some(sum + at, make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w), count);
}

extern "C" __global__ void add_f32(float *sum, const float *x, size_t n) { add(sum, x, n); }
extern "C" __global__ void add_bf16(bf16 *sum, const bf16 *x, size_t n) { add(sum, x, n); }

// x *= factor
template <typename T> __device__ void scale(T *x, float factor, size_t n) {
    FOUR_EACH(n);
    const float4 a = some(x + at, count);
    put_some(x + at, make_float4(a.x * factor, a.y * factor, a.z * factor, a.w * factor), count);
}

extern "C" __global__ void scale_f32(float *x, float factor, size_t n) { scale(x, factor, n); }
extern "C" __global__ void scale_bf16(bf16 *x, float factor, size_t n) { scale(x, factor, n); }

template <int KIND, typename T> __device__ __forceinline__ float4 activated(float4 x) {
    return make_float4(activate<KIND, T>(x.x), activate<KIND, T>(x.y), activate<KIND, T>(x.z), activate<KIND, T>(x.w));
}

template <int KIND, typename T> __device__ __forceinline__ float4 slopes(float4 x, float4 dy) {
    return make_float4(dy.x * activate_slope<KIND, T>(x.x), dy.y * activate_slope<KIND, T>(x.y),
                       dy.z * activate_slope<KIND, T>(x.z), dy.w * activate_slope<KIND, T>(x.w));
}

template <typename T> __device__ void activation(int kind, const T *x, T *y, size_t n) {
    FOUR_EACH(n);
    const float4 a = some(x + at, count);
    EACH_ACTIVATION(kind, (put_some(y + at, activated<KIND, T>(a), count)));
}

extern "C" __global__ void activation_f32(int kind, const float *x, float *y, size_t n) { activation(kind, x, y, n); }
extern "C" __global__ void activation_bf16(int kind, const bf16 *x, bf16 *y, size_t n) { activation(kind, x, y, n); }

// dx = dy * activation'(x)
template <typename T> __device__ void activation_backward(int kind, const T *x, const T *dy, T *dx, size_t n) {
    FOUR_EACH(n);
    const float4 a = some(x + at, count), upstream = some(dy + at, count);
    EACH_ACTIVATION(kind, (put_some(dx + at, slopes<KIND, T>(a, upstream), count)));
}

extern "C" __global__ void activation_backward_f32(int kind, const float *x, const float *dy, float *dx, size_t n) {
    activation_backward(kind, x, dy, dx, n);
}
extern "C" __global__ void activation_backward_bf16(int kind, const bf16 *x, const bf16 *dy, bf16 *dx, size_t n) {
    activation_backward(kind, x, dy, dx, n);
}

// active = activation(middle); gradient *= activation'(middle)
template <typename T> __device__ void active_and_gradient(int kind, const T *middle, T *active, T *gradient, size_t n) {
    FOUR_EACH(n);
    const float4 x = some(middle + at, count), upstream = some(gradient + at, count);
    EACH_ACTIVATION(kind, (put_some(active + at, activated<KIND, T>(x), count),
                           put_some(gradient + at, slopes<KIND, T>(x, upstream), count)));
}

extern "C" __global__ void active_and_gradient_f32(int kind, const float *middle, float *active, float *gradient,
                                                   size_t n) {
    active_and_gradient(kind, middle, active, gradient, n);
}
extern "C" __global__ void active_and_gradient_bf16(int kind, const bf16 *middle, bf16 *active, bf16 *gradient,
                                                    size_t n) {
    active_and_gradient(kind, middle, active, gradient, n);
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
    const size_t stride = (size_t)gridDim.x * blockDim.x * 4;
    for (size_t at = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * 4; at < n; at += stride) {
        const float4 a = some(x + at, n - at < 4 ? (int)(n - at) : 4);
        sum += (double)a.x * a.x + (double)a.y * a.y + (double)a.z * a.z + (double)a.w * a.w;
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
