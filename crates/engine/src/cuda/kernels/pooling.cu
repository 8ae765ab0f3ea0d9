// One embedding per sequence, and row normalisation. `kind`: 0 mean, 1 first, 2 largest, 3 last, 4 generalised mean of
// power p; an empty sequence gives zeros. Embeddings and their gradients are float.

// Block (sequence, c) takes columns c blockDim.x and the following.
template <typename T>
__device__ void pool(int kind, const T *x, float *y, const u32 *offsets, u32 columns, float p, float eps) {
    const u32 column = blockIdx.y * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    const u32 start = offsets[blockIdx.x], end = offsets[blockIdx.x + 1];
    const T *from = x + (size_t)start * columns + column;
    const u32 rows = end - start;
    float value = 0.f;
    if (rows > 0) {
        if (kind == 0) {
#pragma unroll 4
            for (u32 row = 0; row < rows; row++) value += number(from[(size_t)row * columns]);
            value *= 1.f / rows;
        } else if (kind == 1) {
            value = number(from[0]);
        } else if (kind == 2) {
            value = number(from[0]);
            for (u32 row = 1; row < rows; row++) value = fmaxf(value, number(from[(size_t)row * columns]));
        } else if (kind == 3) {
            value = number(from[(size_t)(rows - 1) * columns]);
        } else {
            // Powers are taken relative to the largest value: no p over- or underflows, and infinity is its limit.
            float largest = fmaxf(eps, 1.17549435e-38f);
            for (u32 row = 0; row < rows; row++) largest = fmaxf(largest, number(from[(size_t)row * columns]));
            float sum = 0.f;
            for (u32 row = 0; row < rows; row++)
                sum += powf(fmaxf(number(from[(size_t)row * columns]), eps) / largest, p);
            value = largest * powf(sum / rows, 1.f / p);
        }
    }
    y[(size_t)blockIdx.x * columns + column] = value;
}

extern "C" __global__ void pool_f32(int kind, const float *x, float *y, const u32 *offsets, u32 columns, float p,
                                    float eps) {
    pool(kind, x, y, offsets, columns, p, eps);
}
extern "C" __global__ void pool_bf16(int kind, const bf16 *x, float *y, const u32 *offsets, u32 columns, float p,
                                     float eps) {
    pool(kind, x, y, offsets, columns, p, eps);
}

// Writes all of `dx`. A maximum that several rows share goes to the first.
template <typename T>
__device__ void pool_backward(int kind, const T *x, const float *pooled, const float *dy, T *dx, const u32 *offsets,
                              u32 columns, float p, float eps) {
    const u32 column = blockIdx.y * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    const u32 start = offsets[blockIdx.x], rows = offsets[blockIdx.x + 1] - start;
    const size_t first = (size_t)start * columns + column, own = (size_t)blockIdx.x * columns + column;
    const float upstream = dy[own];
    const bool largest = kind == 2 || (kind == 4 && isinf(p));
    bool given = false;
    for (u32 row = 0; row < rows; row++) {
        const size_t at = first + (size_t)row * columns;
        float value = 0.f;
        if (kind == 0) {
            value = upstream * (1.f / rows);
        } else if (kind == 1) {
            value = row == 0 ? upstream : 0.f;
        } else if (kind == 3) {
            value = row + 1 == rows ? upstream : 0.f;
        } else if (largest) {
            if (!given && number(x[at]) == pooled[own]) {
                value = upstream;
                given = true;
            }
        } else {
            // Below the clamp the value does not depend on x.
            const float here = number(x[at]);
            if (here > eps) value = upstream * powf(here / pooled[own], p - 1.f) / rows;
        }
        put(dx + at, value);
    }
}

extern "C" __global__ void pool_backward_f32(int kind, const float *x, const float *pooled, const float *dy, float *dx,
                                             const u32 *offsets, u32 columns, float p, float eps) {
    pool_backward(kind, x, pooled, dy, dx, offsets, columns, p, eps);
}
extern "C" __global__ void pool_backward_bf16(int kind, const bf16 *x, const float *pooled, const float *dy, bf16 *dx,
                                              const u32 *offsets, u32 columns, float p, float eps) {
    pool_backward(kind, x, pooled, dy, dx, offsets, columns, p, eps);
}

// y = x / max(norm(x), eps), one row to a warp
extern "C" __global__ void normalize(const float *x, float *y, float *norms, u32 rows, u32 columns, float eps) {
    const u32 lane = threadIdx.x % 32, row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    x += (size_t)row * columns;
    y += (size_t)row * columns;
    float squares = 0.f;
    for (u32 column = lane; column < columns; column += 32) squares += x[column] * x[column];
    const float norm = sqrtf(warp_sum(squares));
    const float factor = 1.f / fmaxf(norm, eps);
    for (u32 column = lane; column < columns; column += 32) y[column] = x[column] * factor;
    if (lane == 0) norms[row] = norm;
}

extern "C" __global__ void normalize_backward(const float *y, const float *norms, const float *dy, float *dx, u32 rows,
                                              u32 columns, float eps) {
    const u32 lane = threadIdx.x % 32, row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    y += (size_t)row * columns;
    dy += (size_t)row * columns;
    dx += (size_t)row * columns;
    float inner = 0.f;
    for (u32 column = lane; column < columns; column += 32) inner += y[column] * dy[column];
    inner = warp_sum(inner);
    // Below eps the divisor is constant, so nothing is projected away.
    if (!(norms[row] > eps)) inner = 0.f;
    const float factor = 1.f / fmaxf(norms[row], eps);
    for (u32 column = lane; column < columns; column += 32) dx[column] = factor * (dy[column] - y[column] * inner);
}
