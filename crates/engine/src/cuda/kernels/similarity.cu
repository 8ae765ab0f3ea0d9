// Similarities of vectors, in double: distances between near vectors are differences of almost equal numbers, and
// objectives multiply similarities by 20 and more before they exponentiate them.
//
// Rows are not normalised in memory: `inverse[i]` is `1 / max(norm, 1e-12)` of a row, or 1, and everything is multiplied
// by it afterwards.

#define TINY 1e-12
// Squared distances below this share of the squared norms are computed again from the differences.
#define CANCELLED 1e-6

// Similarities, numbered so by `cuda/similarity.rs`.
#define DOT 0
#define DISTANCE 1
#define SQUARED_DISTANCE 2

// A warp a row: its norm.
extern "C" __global__ void row_norms(const float *x, double *norms, u32 rows, u32 columns) {
    u32 row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    x += (size_t)row * columns;
    double sum = 0.0;
    for (u32 c = threadIdx.x % 32; c < columns; c += 32) sum += (double)x[c] * x[c];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) norms[row] = sqrt(sum);
}

__device__ __forceinline__ double inverse(const double *norms, u32 row, bool normalize) {
    return normalize ? 1.0 / fmax(norms[row], TINY) : 1.0;
}

#define TILE 64
#define DEPTH 16

// A tile of an operand, `[DEPTH][TILE]`: 256 threads. `across` is the axis of the product, `depth` that it sums over;
// numbers lie `across * columns + depth` where the depth runs along rows, else `depth * columns + across`.
template <typename T, bool ALONG_ROWS>
__device__ __forceinline__ void load_tile(double (*tile)[TILE + 2], const T *x, size_t columns, u32 across_first,
                                          u32 across_end, u32 depth_first, u32 depth_end) {
    for (u32 i = threadIdx.x; i < TILE * DEPTH; i += 256) {
        u32 across = ALONG_ROWS ? i / DEPTH : i % TILE, depth = ALONG_ROWS ? i % DEPTH : i / TILE;
        u32 a = across_first + across, d = depth_first + depth;
        bool inside = a < across_end && d < depth_end;
        tile[depth][across] = inside ? (double)x[ALONG_ROWS ? a * columns + d : d * columns + a] : 0.0;
    }
}

// out [m, n] (+)= sum over depth k, a tile a block, 4 x 4 numbers a thread. `a_columns` and `b_columns` are the widths of
// the matrices as they lie.
template <typename A, bool A_ALONG, typename B, bool B_ALONG>
__device__ void product(const A *a, size_t a_columns, const B *b, size_t b_columns, double *out, u32 m, u32 n, u32 k,
                        bool accumulate) {
    __shared__ double a_tile[DEPTH][TILE + 2], b_tile[DEPTH][TILE + 2];
    u32 row = blockIdx.y * TILE, column = blockIdx.x * TILE;
    u32 y = threadIdx.x / 16, x = threadIdx.x % 16;
    double sums[4][4] = {};
    for (u32 from = 0; from < k; from += DEPTH) {
        load_tile<A, A_ALONG>(a_tile, a, a_columns, row, m, from, k);
        load_tile<B, B_ALONG>(b_tile, b, b_columns, column, n, from, k);
        __syncthreads();
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            double left[4], right[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                left[i] = a_tile[d][y + 16 * i];
                right[i] = b_tile[d][x + 16 * i];
            }
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) sums[i][j] += left[i] * right[j];
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            u32 r = row + y + 16 * i, c = column + x + 16 * j;
            if (r >= m || c >= n) continue;
            double *to = out + (size_t)r * n + c;
            *to = accumulate ? *to + sums[i][j] : sums[i][j];
        }
}

// out [m, n] = a [m, k] b [n, k]^T
extern "C" __global__ void products(const float *a, const float *b, double *out, u32 m, u32 n, u32 k) {
    product<float, true, float, true>(a, k, b, k, out, m, n, k, false);
}

// out [m, k] = weights [m, n] b [n, k]
extern "C" __global__ void weighted_rows(const double *weights, const float *b, double *out, u32 m, u32 n, u32 k) {
    product<double, true, float, false>(weights, n, b, k, out, m, k, n, false);
}

// out [n, k] (+)= weights [m, n]^T a [m, k]
extern "C" __global__ void weighted_columns(const double *weights, const float *a, double *out, u32 m, u32 n, u32 k,
                                            u32 accumulate) {
    product<double, false, float, false>(weights, n, a, k, out, n, k, m, accumulate != 0);
}

// From the products of rows `first ..` of `a` with all of `b` to `scale` times their similarities, in place, and to floats
// where `y` is given.
extern "C" __global__ void similarities(int kind, u32 normalize, double scale, const float *a, const float *b,
                                        const double *a_norms, const double *b_norms, double *values, float *y,
                                        u32 rows, u32 n, u32 k) {
    size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (size_t)rows * n) return;
    u32 i = (u32)(at / n), j = (u32)(at % n);
    double by_a = inverse(a_norms, i, normalize), by_b = inverse(b_norms, j, normalize);
    double value = values[at] * by_a * by_b;
    if (kind != DOT) {
        double square_a = a_norms[i] * by_a, square_b = b_norms[j] * by_b;
        square_a *= square_a;
        square_b *= square_b;
        double square = square_a + square_b - 2.0 * value;
        if (square < CANCELLED * (square_a + square_b)) {
            square = 0.0;
            for (u32 c = 0; c < k; c++) {
                double apart = a[(size_t)i * k + c] * by_a - b[(size_t)j * k + c] * by_b;
                square += apart * apart;
            }
        }
        value = kind == SQUARED_DISTANCE ? square : sqrt(square);
    }
    values[at] = scale * value;
    if (y) y[at] = (float)(scale * value);
}

// What multiplies the other row in the gradient of a normalised row: that of the similarity, or that of a distance
// divided by it.
__device__ __forceinline__ double slope(int kind, double y, double dy) {
    switch (kind) {
    case SQUARED_DISTANCE: return 2.0 * dy;
    case DISTANCE: return y > 0.0 ? dy / y : 0.0;
    default: return dy;
    }
}

// slopes = what `slope` gives for values and gradients in float.
extern "C" __global__ void similarity_slopes(int kind, const float *y, const float *dy, double *slopes, size_t n) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) slopes[i] = slope(kind, y[i], dy[i]);
}

// Block a row: the sum of its slopes; and each slope times both inverse norms, in place.
extern "C" __global__ void slope_row_sums(const double *a_norms, const double *b_norms, u32 normalize, double *slopes,
                                          double *sums, u32 n) {
    __shared__ double parts[8];
    slopes += (size_t)blockIdx.x * n;
    double by_a = inverse(a_norms, blockIdx.x, normalize), sum = 0.0;
    for (u32 j = threadIdx.x; j < n; j += 256) {
        sum += slopes[j];
        slopes[j] *= by_a * inverse(b_norms, j, normalize);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x > 0) return;
    sum = 0.0;
    for (int warp = 0; warp < 8; warp++) sum += parts[warp];
    sums[blockIdx.x] = sum;
}

// sums[j] (+)= the sum of column j of the slopes: a lane a column, eight warps by turns.
extern "C" __global__ void slope_column_sums(const double *slopes, double *sums, u32 rows, u32 n, u32 accumulate) {
    __shared__ double parts[8][32];
    u32 column = blockIdx.x * 32 + threadIdx.x % 32;
    double sum = 0.0;
    if (column < n)
        for (u32 row = threadIdx.x / 32; row < rows; row += 8) sum += slopes[(size_t)row * n + column];
    parts[threadIdx.x / 32][threadIdx.x % 32] = sum;
    __syncthreads();
    if (threadIdx.x >= 32 || column >= n) return;
    sum = accumulate ? sums[column] : 0.0;
    for (int warp = 0; warp < 8; warp++) sum += parts[warp][threadIdx.x];
    sums[column] = sum;
}

// A warp a row: from the gradient of a normalised row, `gradient(c)`, to that of the row itself.
template <typename F>
__device__ __forceinline__ void row_gradient(const float *x, double norm, bool normalize, float *dx, u32 columns,
                                             F gradient) {
    double length = normalize ? fmax(norm, TINY) : 1.0, along = 0.0;
    if (normalize && norm > TINY) {
        for (u32 c = threadIdx.x % 32; c < columns; c += 32) along += x[c] / length * gradient(c);
        along = warp_sum(along);
    }
    for (u32 c = threadIdx.x % 32; c < columns; c += 32) {
        double part = normalize ? along * (x[c] / length) : 0.0;
        dx[c] = (float)((gradient(c) - part) / length);
    }
}

// From the weighted sums of the rows on the other side, whose weights had both inverse norms, to the gradients of rows.
// `slopes [rows]` are the sums of the slopes of distances.
extern "C" __global__ void similarity_gradient(int kind, u32 normalize, const float *x, const double *norms,
                                               const double *weighted, const double *slopes, float *dx, u32 rows,
                                               u32 columns) {
    u32 row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    x += (size_t)row * columns;
    weighted += (size_t)row * columns;
    double length = normalize ? fmax(norms[row], TINY) : 1.0, sum = slopes[row];
    row_gradient(x, norms[row], normalize != 0, dx + (size_t)row * columns, columns, [&](u32 c) {
        double other = weighted[c] * length;
        return kind == DOT ? other : sum * (x[c] / length) - other;
    });
}

// A warp a pair of rows.
extern "C" __global__ void paired_similarities(int kind, u32 normalize, const float *a, const float *b,
                                               const double *a_norms, const double *b_norms, float *y, u32 rows,
                                               u32 columns) {
    u32 row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    a += (size_t)row * columns;
    b += (size_t)row * columns;
    double to_a = normalize ? fmax(a_norms[row], TINY) : 1.0, to_b = normalize ? fmax(b_norms[row], TINY) : 1.0;
    double sum = 0.0;
    for (u32 c = threadIdx.x % 32; c < columns; c += 32) {
        double left = a[c] / to_a, right = b[c] / to_b;
        sum += kind == DOT ? left * right : (left - right) * (left - right);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) y[row] = (float)(kind == DISTANCE ? sqrt(sum) : sum);
}

extern "C" __global__ void paired_similarities_backward(int kind, u32 normalize, const float *a, const float *b,
                                                        const double *a_norms, const double *b_norms, const float *y,
                                                        const float *dy, float *da, float *db, u32 rows, u32 columns) {
    u32 row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    size_t start = (size_t)row * columns;
    a += start;
    b += start;
    double to_a = normalize ? fmax(a_norms[row], TINY) : 1.0, to_b = normalize ? fmax(b_norms[row], TINY) : 1.0;
    double weight = slope(kind, y[row], dy[row]);
    row_gradient(a, a_norms[row], normalize != 0, da + start, columns, [&](u32 c) {
        return kind == DOT ? weight * (b[c] / to_b) : weight * (a[c] / to_a - b[c] / to_b);
    });
    row_gradient(b, b_norms[row], normalize != 0, db + start, columns, [&](u32 c) {
        return kind == DOT ? weight * (a[c] / to_a) : weight * (b[c] / to_b - a[c] / to_a);
    });
}
