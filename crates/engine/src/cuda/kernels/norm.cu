// Dropout, residual addition and layer norm, one row to a warp. The elements of a row lie with the lanes four by four:
// lane l holds columns 4 l + 128 i to 4 l + 128 i + 3. Rows of up to 1024 columns, a multiple of 4, stay in registers
// (kernels named `_1` to `_8` by the number of such fours); others go through memory (`_any`).

struct Norm {
    u32 rows, columns;
    float eps;
    // Dropout of `x`, or no places.
    const uint2 *places;
    u64 key;
    u32 threshold;
    float factor;
};

__device__ __forceinline__ float4 dropped(float4 x, const Norm &norm, u64 key, u32 column) {
    x.x = keep(key, column, norm.threshold) ? x.x * norm.factor : 0.f;
    x.y = keep(key, column + 1, norm.threshold) ? x.y * norm.factor : 0.f;
    x.z = keep(key, column + 2, norm.threshold) ? x.z * norm.factor : 0.f;
    x.w = keep(key, column + 3, norm.threshold) ? x.w * norm.factor : 0.f;
    return x;
}

// y = norm(dropout(x) + residual) * weight + bias
template <typename T, int FOURS>
__device__ void add_norm(const T *x, const T *residual, const float *weight, const float *bias, T *y, T *normalised,
                         float *deviations, const Norm norm) {
    const u32 lane = threadIdx.x % 32, row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= norm.rows) return;
    const size_t start = (size_t)row * norm.columns;
    const u64 key = norm.places ? row_key(norm.key, norm.places[row]) : 0;
    float4 z[FOURS];
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        const u32 column = lane * 4 + i * 128;
        z[i] = make_float4(0.f, 0.f, 0.f, 0.f);
        if (column < norm.columns) {
            z[i] = numbers(x + start + column);
            if (norm.places) z[i] = dropped(z[i], norm, key, column);
            if (residual) {
                const float4 r = numbers(residual + start + column);
                z[i] = make_float4(z[i].x + r.x, z[i].y + r.y, z[i].z + r.z, z[i].w + r.w);
            }
        }
        sum += z[i].x + z[i].y + z[i].z + z[i].w;
    }
    const float mean = warp_sum(sum) / norm.columns;
    float squares = 0.f;
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        if (lane * 4 + i * 128 < norm.columns) {
            z[i] = make_float4(z[i].x - mean, z[i].y - mean, z[i].z - mean, z[i].w - mean);
            squares += z[i].x * z[i].x + z[i].y * z[i].y + z[i].z * z[i].z + z[i].w * z[i].w;
        }
    }
    const float deviation = 1.f / sqrtf(warp_sum(squares) / norm.columns + norm.eps);
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        const u32 column = lane * 4 + i * 128;
        if (column < norm.columns) {
            const float4 n =
                make_float4(z[i].x * deviation, z[i].y * deviation, z[i].z * deviation, z[i].w * deviation);
            const float4 w = numbers(weight + column), b = numbers(bias + column);
            put_numbers(normalised + start + column, n);
            put_numbers(y + start + column,
                        make_float4(n.x * w.x + b.x, n.y * w.y + b.y, n.z * w.z + b.z, n.w * w.w + b.w));
        }
    }
    if (lane == 0) deviations[row] = deviation;
}

// The same for any number of columns; `sums [rows, columns]` is room for the rows before the norm.
template <typename T>
__device__ void add_norm_any(const T *x, const T *residual, const float *weight, const float *bias, T *y, T *normalised,
                             float *deviations, const Norm norm, float *sums) {
    const u32 lane = threadIdx.x % 32, row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= norm.rows) return;
    const size_t start = (size_t)row * norm.columns;
    const u64 key = norm.places ? row_key(norm.key, norm.places[row]) : 0;
    float sum = 0.f;
    for (u32 column = lane; column < norm.columns; column += 32) {
        float z = number(x[start + column]);
        if (norm.places) z = keep(key, column, norm.threshold) ? z * norm.factor : 0.f;
        if (residual) z += number(residual[start + column]);
        sums[start + column] = z;
        sum += z;
    }
    const float mean = warp_sum(sum) / norm.columns;
    float squares = 0.f;
    for (u32 column = lane; column < norm.columns; column += 32) {
        const float z = sums[start + column] - mean;
        squares += z * z;
    }
    const float deviation = 1.f / sqrtf(warp_sum(squares) / norm.columns + norm.eps);
    for (u32 column = lane; column < norm.columns; column += 32) {
        const float n = (sums[start + column] - mean) * deviation;
        put(normalised + start + column, n);
        put(y + start + column, n * weight[column] + bias[column]);
    }
    if (lane == 0) deviations[row] = deviation;
}

// The gradient before the norm, and with dropout that before dropout; block b adds its rows' parts of the gradients of
// weight and bias into row b of `partial [blocks, 2, columns]`.
template <typename T, int FOURS>
__device__ void add_norm_backward(const T *normalised, const float *deviations, const float *weight, const T *dy, T *dz,
                                  T *dx, float *partial, const Norm norm) {
    SHARED_MEMORY(float4, shared_fours);
    const u32 rows = norm.rows, columns = norm.columns;
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    float4 w[FOURS], dw[FOURS], db[FOURS];
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        const u32 column = lane * 4 + i * 128;
        dw[i] = db[i] = w[i] = make_float4(0.f, 0.f, 0.f, 0.f);
        if (column < columns) w[i] = numbers(weight + column);
    }
    for (u32 row = blockIdx.x * warps + warp; row < rows; row += gridDim.x * warps) {
        const size_t start = (size_t)row * columns;
        float4 d[FOURS], n[FOURS];
        float sum = 0.f, projection = 0.f;
#pragma unroll
        for (int i = 0; i < FOURS; i++) {
            const u32 column = lane * 4 + i * 128;
            d[i] = n[i] = make_float4(0.f, 0.f, 0.f, 0.f);
            if (column < columns) {
                d[i] = numbers(dy + start + column);
                n[i] = numbers(normalised + start + column);
            }
            dw[i].x += d[i].x * n[i].x;
            dw[i].y += d[i].y * n[i].y;
            dw[i].z += d[i].z * n[i].z;
            dw[i].w += d[i].w * n[i].w;
            db[i].x += d[i].x;
            db[i].y += d[i].y;
            db[i].z += d[i].z;
            db[i].w += d[i].w;
            d[i] = make_float4(d[i].x * w[i].x, d[i].y * w[i].y, d[i].z * w[i].z, d[i].w * w[i].w);
            sum += d[i].x + d[i].y + d[i].z + d[i].w;
            projection += d[i].x * n[i].x + d[i].y * n[i].y + d[i].z * n[i].z + d[i].w * n[i].w;
        }
        const float mean = warp_sum(sum) / columns, inner = warp_sum(projection) / columns;
        const float deviation = deviations[row];
        const u64 key = norm.places ? row_key(norm.key, norm.places[row]) : 0;
#pragma unroll
        for (int i = 0; i < FOURS; i++) {
            const u32 column = lane * 4 + i * 128;
            if (column >= columns) continue;
            const float4 before = make_float4(deviation * (d[i].x - mean - n[i].x * inner),
                                              deviation * (d[i].y - mean - n[i].y * inner),
                                              deviation * (d[i].z - mean - n[i].z * inner),
                                              deviation * (d[i].w - mean - n[i].w * inner));
            put_numbers(dz + start + column, before);
            if (norm.places) put_numbers(dx + start + column, dropped(before, norm, key, column));
        }
    }
    // [warps, 32 FOURS] fours, first of the weight, then of the bias.
    const int fours = 32 * FOURS;
    for (int which = 0; which < 2; which++) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < FOURS; i++) shared_fours[warp * fours + i * 32 + lane] = which ? db[i] : dw[i];
        __syncthreads();
        for (int four = threadIdx.x; four < fours; four += blockDim.x) {
            float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
            for (u32 other = 0; other < warps; other++) {
                const float4 part = shared_fours[other * fours + four];
                sum = make_float4(sum.x + part.x, sum.y + part.y, sum.z + part.z, sum.w + part.w);
            }
            const u32 column = four * 4;
            if (column < columns) put_numbers(partial + ((size_t)blockIdx.x * 2 + which) * columns + column, sum);
        }
    }
}

// The same for any number of columns, without the gradients of weight and bias and before dropout.
template <typename T>
__device__ void add_norm_backward_any(const T *normalised, const float *deviations, const float *weight, const T *dy,
                                      T *dx, u32 rows, u32 columns) {
    const u32 lane = threadIdx.x % 32, row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    const size_t start = (size_t)row * columns;
    float sum = 0.f, projection = 0.f;
    for (u32 column = lane; column < columns; column += 32) {
        const float d = number(dy[start + column]) * weight[column];
        sum += d;
        projection += d * number(normalised[start + column]);
    }
    const float mean = warp_sum(sum) / columns, inner = warp_sum(projection) / columns;
    for (u32 column = lane; column < columns; column += 32) {
        const float d = number(dy[start + column]) * weight[column];
        put(dx + start + column, deviations[row] * (d - mean - number(normalised[start + column]) * inner));
    }
}

// Those gradients: block b adds rows `rows_each` b and the following into row b of `partial [blocks, 2, columns]`.
template <typename T>
__device__ void norm_parameters_any(const T *normalised, const T *dy, float *partial, u32 rows, u32 columns,
                                    u32 rows_each) {
    const u32 start = blockIdx.x * rows_each;
    const u32 end = rows < start + rows_each ? rows : start + rows_each;
    for (u32 column = threadIdx.x; column < columns; column += blockDim.x) {
        float dw = 0.f, db = 0.f;
        for (u32 row = start; row < end; row++) {
            const float d = number(dy[(size_t)row * columns + column]);
            dw += d * number(normalised[(size_t)row * columns + column]);
            db += d;
        }
        partial[((size_t)blockIdx.x * 2) * columns + column] = dw;
        partial[((size_t)blockIdx.x * 2 + 1) * columns + column] = db;
    }
}

// y = x * weight + bias, row by row
template <typename T>
__device__ void scale_shift(const T *x, const float *weight, const float *bias, T *y, u32 rows, u32 columns) {
    const u32 lane = threadIdx.x % 32, row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    const size_t start = (size_t)row * columns;
    if (columns % 4 == 0) {
        for (u32 column = lane * 4; column < columns; column += 128) {
            const float4 n = numbers(x + start + column), w = numbers(weight + column), b = numbers(bias + column);
            put_numbers(y + start + column,
                        make_float4(n.x * w.x + b.x, n.y * w.y + b.y, n.z * w.z + b.z, n.w * w.w + b.w));
        }
    } else {
        for (u32 column = lane; column < columns; column += 32)
            put(y + start + column, number(x[start + column]) * weight[column] + bias[column]);
    }
}

#define NORM_KERNELS(T, suffix, FOURS)                                                                                 \
    extern "C" __global__ void __launch_bounds__(256) add_norm_##FOURS##_##suffix(                                     \
        const T *x, const T *residual, const float *weight, const float *bias, T *y, T *normalised, float *deviations, \
        u32 rows, u32 columns, float eps, const uint2 *places, u64 key, u32 threshold, float factor) {                 \
        add_norm<T, FOURS>(x, residual, weight, bias, y, normalised, deviations,                                       \
                           Norm{rows, columns, eps, places, key, threshold, factor});                                  \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) add_norm_backward_##FOURS##_##suffix(                            \
        const T *normalised, const float *deviations, const float *weight, const T *dy, T *dz, T *dx, float *partial,  \
        u32 rows, u32 columns, const uint2 *places, u64 key, u32 threshold, float factor) {                            \
        add_norm_backward<T, FOURS>(normalised, deviations, weight, dy, dz, dx, partial,                               \
                                    Norm{rows, columns, 0.f, places, key, threshold, factor});                         \
    }

#define NORM_KERNELS_ANY(T, suffix)                                                                                    \
    NORM_KERNELS(T, suffix, 1)                                                                                         \
    NORM_KERNELS(T, suffix, 2)                                                                                         \
    NORM_KERNELS(T, suffix, 3)                                                                                         \
    NORM_KERNELS(T, suffix, 4)                                                                                         \
    NORM_KERNELS(T, suffix, 6)                                                                                         \
    NORM_KERNELS(T, suffix, 8)                                                                                         \
    extern "C" __global__ void add_norm_any_##suffix(const T *x, const T *residual, const float *weight,               \
                                                     const float *bias, T *y, T *normalised, float *deviations,       \
                                                     u32 rows, u32 columns, float eps, const uint2 *places, u64 key,  \
                                                     u32 threshold, float factor, float *sums) {                      \
        add_norm_any(x, residual, weight, bias, y, normalised, deviations,                                             \
                     Norm{rows, columns, eps, places, key, threshold, factor}, sums);                                  \
    }                                                                                                                  \
    extern "C" __global__ void add_norm_backward_any_##suffix(const T *normalised, const float *deviations,            \
                                                              const float *weight, const T *dy, T *dx, u32 rows,      \
                                                              u32 columns) {                                          \
        add_norm_backward_any(normalised, deviations, weight, dy, dx, rows, columns);                                  \
    }                                                                                                                  \
    extern "C" __global__ void norm_parameters_any_##suffix(const T *normalised, const T *dy, float *partial,          \
                                                            u32 rows, u32 columns, u32 rows_each) {                   \
        norm_parameters_any(normalised, dy, partial, rows, columns, rows_each);                                        \
    }                                                                                                                  \
    extern "C" __global__ void scale_shift_##suffix(const T *x, const float *weight, const float *bias, T *y,          \
                                                    u32 rows, u32 columns) {                                          \
        scale_shift(x, weight, bias, y, rows, columns);                                                                \
    }

NORM_KERNELS_ANY(float, f32)
NORM_KERNELS_ANY(bf16, bf16)
