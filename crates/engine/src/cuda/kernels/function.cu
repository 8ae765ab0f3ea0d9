// The small functions of objectives. Numbers are floats; everything is computed and added up in double and rounded once.

// Unary functions, numbered as `function::Unary` is.
#define AFFINE 0
#define HINGE 1
#define EXP 2
#define LN 3
#define SQRT 4
#define SQUARE 5
#define ABS 6
#define SOFTPLUS 7
#define WITHIN 8

// Binary functions, numbered as `function::Binary` is.
#define ADD 0
#define SUBTRACT 1
#define MULTIPLY 2
#define DIVIDE 3
#define MAXIMUM 4
#define MINIMUM 5

// How the second operand of a binary function is repeated to the shape of the first.
#define WHOLE 0
#define ONE 1
#define ROW 2
#define COLUMN 3

#define MINUS_INFINITY __longlong_as_double((i64)0xfff0000000000000ull)

__device__ __forceinline__ size_t thread_index() { return (size_t)blockIdx.x * blockDim.x + threadIdx.x; }

__device__ __forceinline__ double warp_max(double x) {
    for (int lane = 16; lane > 0; lane >>= 1) x = fmax(x, __shfl_xor_sync(0xffffffffu, x, lane));
    return x;
}

// The sum, or the largest, over all threads of a block, in every thread; the same order every time.
__device__ __forceinline__ double block_sum(double x) {
    __shared__ double parts[32];
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    double total = 0.0;
    for (u32 warp = 0; warp < blockDim.x / 32; warp++) total += parts[warp];
    __syncthreads();
    return total;
}

__device__ __forceinline__ double block_max(double x) {
    __shared__ double parts[32];
    x = warp_max(x);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    double largest = parts[0];
    for (u32 warp = 1; warp < blockDim.x / 32; warp++) largest = fmax(largest, parts[warp]);
    __syncthreads();
    return largest;
}

__device__ __forceinline__ double softplus(double x) { return fmax(x, 0.0) + log1p(exp(-fabs(x))); }

__device__ __forceinline__ double logistic(double x) {
    return x >= 0.0 ? 1.0 / (1.0 + exp(-x)) : exp(x) / (1.0 + exp(x));
}

// `p` and `q` are the numbers of the function, in the order of its fields.
extern "C" __global__ void unary(int kind, double p, double q, const float *x_of, float *y_of, size_t n) {
    size_t i = thread_index();
    if (i >= n) return;
    double x = x_of[i], y = 0.0;
    switch (kind) {
    case AFFINE: y = p * x + q; break;
    case HINGE: y = fmax(x, 0.0); break;
    case EXP: y = exp(x); break;
    case LN: y = log(x); break;
    case SQRT: y = sqrt(fmax(x, 0.0)); break;
    case SQUARE: y = x * x; break;
    case ABS: y = fabs(x); break;
    case SOFTPLUS: y = softplus(p * x); break;
    case WITHIN: y = p < x && x < q ? 1.0 : 0.0; break;
    }
    y_of[i] = (float)y;
}

// A gradient of 0 stays 0 whatever the derivative.
extern "C" __global__ void unary_backward(int kind, double p, const float *x_of, const float *dy, float *dx, size_t n) {
    size_t i = thread_index();
    if (i >= n) return;
    double x = x_of[i], slope = 0.0;
    switch (kind) {
    case AFFINE: slope = p; break;
    case HINGE: slope = x > 0.0 ? 1.0 : 0.0; break;
    case EXP: slope = exp(x); break;
    case LN: slope = 1.0 / x; break;
    case SQRT: slope = x > 0.0 ? 0.5 / sqrt(x) : 0.0; break;
    case SQUARE: slope = 2.0 * x; break;
    case ABS: slope = x > 0.0 ? 1.0 : x < 0.0 ? -1.0 : x == 0.0 ? 0.0 : x; break;
    case SOFTPLUS: slope = p * logistic(p * x); break;
    }
    dx[i] = dy[i] == 0.0f ? 0.0f : (float)(dy[i] * slope);
}

__device__ __forceinline__ size_t repeated(int repeat, size_t i, u32 columns) {
    switch (repeat) {
    case ONE: return 0;
    case ROW: return i % columns;
    case COLUMN: return i / columns;
    default: return i;
    }
}

extern "C" __global__ void binary(int kind, int repeat, const float *a_of, const float *b_of, float *y_of, u32 columns,
                                  size_t n) {
    size_t i = thread_index();
    if (i >= n) return;
    double a = a_of[i], b = b_of[repeated(repeat, i, columns)], y = 0.0;
    switch (kind) {
    case ADD: y = a + b; break;
    case SUBTRACT: y = a - b; break;
    case MULTIPLY: y = a * b; break;
    case DIVIDE: y = a / b; break;
    case MAXIMUM: y = fmax(a, b); break;
    case MINIMUM: y = fmin(a, b); break;
    }
    y_of[i] = (float)y;
}

__device__ __forceinline__ double slope_of_first(int kind, double a, double b, double dy) {
    switch (kind) {
    case MULTIPLY: return dy * b;
    case DIVIDE: return dy / b;
    case MAXIMUM: return dy * (a > b ? 1.0 : a == b ? 0.5 : 0.0);
    case MINIMUM: return dy * (a < b ? 1.0 : a == b ? 0.5 : 0.0);
    default: return dy;
    }
}

__device__ __forceinline__ double slope_of_second(int kind, double a, double b, double dy) {
    switch (kind) {
    case SUBTRACT: return -dy;
    case MULTIPLY: return dy * a;
    case DIVIDE: return -dy * a / (b * b);
    case MAXIMUM: return dy * (b > a ? 1.0 : a == b ? 0.5 : 0.0);
    case MINIMUM: return dy * (b < a ? 1.0 : a == b ? 0.5 : 0.0);
    default: return dy;
    }
}

// The gradient of `a`, and that of `b` too where it is not repeated.
extern "C" __global__ void binary_backward(int kind, int repeat, const float *a_of, const float *b_of, const float *dy,
                                           float *da, float *db, u32 columns, size_t n) {
    size_t i = thread_index();
    if (i >= n) return;
    double a = a_of[i], b = b_of[repeated(repeat, i, columns)];
    da[i] = (float)slope_of_first(kind, a, b, dy[i]);
    if (repeat == WHOLE) db[i] = (float)slope_of_second(kind, a, b, dy[i]);
}

// The gradient of a repeated `b`: block y adds up its part of what b's element x was repeated to, `each` of `count`
// elements `stride` apart; one warp of the block for each element of `b`, side by side where they are.
extern "C" __global__ void binary_backward_sums(int kind, int repeat, const float *a_of, const float *b_of,
                                                const float *dy, double *sums, u32 columns, size_t count, size_t each,
                                                u32 outputs) {
    size_t first = (size_t)blockIdx.y * each, last = first + each < count ? first + each : count;
    double sum = 0.0;
    if (repeat == ROW) {
        // Eight warps take the rows by turns, a lane a column.
        __shared__ double parts[8][32];
        u32 column = blockIdx.x * 32 + threadIdx.x % 32;
        if (column < outputs) {
            double b = b_of[column];
            for (size_t row = first + threadIdx.x / 32; row < last; row += 8) {
                size_t i = row * columns + column;
                sum += slope_of_second(kind, a_of[i], b, dy[i]);
            }
        }
        parts[threadIdx.x / 32][threadIdx.x % 32] = sum;
        __syncthreads();
        if (threadIdx.x >= 32 || column >= outputs) return;
        sum = 0.0;
        for (int warp = 0; warp < 8; warp++) sum += parts[warp][threadIdx.x];
        sums[(size_t)blockIdx.y * outputs + column] = sum;
        return;
    }
    double b = b_of[blockIdx.x];
    size_t start = (size_t)blockIdx.x * count;
    for (size_t i = first + threadIdx.x; i < last; i += blockDim.x)
        sum += slope_of_second(kind, a_of[start + i], b, dy[start + i]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[(size_t)blockIdx.y * outputs + blockIdx.x] = sum;
}

// y[i] = the sum of the parts[part, i] in order
extern "C" __global__ void sum_parts(const double *parts, float *y, u32 count, size_t n) {
    size_t i = thread_index();
    if (i >= n) return;
    double sum = 0.0;
    for (u32 part = 0; part < count; part++) sum += parts[part * n + i];
    y[i] = (float)sum;
}

// Block (row, part): the sum of weights x over its part of a row; what has weight 0 is not read.
extern "C" __global__ void row_sums(const float *x, const float *weights, double *sums, size_t columns, size_t each) {
    size_t start = (size_t)blockIdx.x * columns, first = (size_t)blockIdx.y * each;
    size_t last = first + each < columns ? first + each : columns;
    double sum = 0.0;
    for (size_t c = first + threadIdx.x; c < last; c += blockDim.x) {
        double weight = weights ? weights[start + c] : 1.0;
        if (weight != 0.0) sum += weight * x[start + c];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[(size_t)blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

extern "C" __global__ void row_sums_backward(const float *weights, const float *dy, float *dx, size_t columns,
                                             size_t n) {
    size_t i = thread_index();
    if (i < n) dx[i] = weights ? weights[i] * dy[i / columns] : dy[i / columns];
}

// The largest exponent of a row and the sum of the exponentials relative to it.
__device__ __forceinline__ void exponentials(const float *x, const float *weights, u32 columns, double scale,
                                             double &largest, double &sum) {
    largest = MINUS_INFINITY;
    for (u32 c = threadIdx.x; c < columns; c += blockDim.x)
        if (!weights || weights[c] != 0.0f) largest = fmax(largest, scale * x[c]);
    largest = block_max(largest);
    sum = 0.0;
    for (u32 c = threadIdx.x; c < columns; c += blockDim.x)
        if (!weights || weights[c] != 0.0f) sum += (weights ? weights[c] : 1.0) * exp(scale * x[c] - largest);
    sum = block_sum(sum);
}

// A block a row.
extern "C" __global__ void log_sum_exp(const float *x, const float *weights, const float *targets, double scale,
                                       float *y, u32 columns) {
    size_t start = (size_t)blockIdx.x * columns;
    x += start;
    if (weights) weights += start;
    double largest, sum, target = 0.0;
    exponentials(x, weights, columns, scale, largest, sum);
    if (targets) {
        for (u32 c = threadIdx.x; c < columns; c += blockDim.x)
            if (targets[start + c] != 0.0f) target += scale * targets[start + c] * x[c];
        target = block_sum(target);
    }
    if (threadIdx.x == 0) y[blockIdx.x] = (float)(largest == MINUS_INFINITY ? largest : largest - target + log(sum));
}

extern "C" __global__ void log_sum_exp_backward(const float *x, const float *weights, const float *targets,
                                                double scale, const float *dy_of, float *dx, u32 columns) {
    size_t start = (size_t)blockIdx.x * columns;
    x += start;
    dx += start;
    if (weights) weights += start;
    if (targets) targets += start;
    double dy = dy_of[blockIdx.x], largest, sum;
    exponentials(x, weights, columns, scale, largest, sum);
    bool none = largest == MINUS_INFINITY || dy == 0.0;
    for (u32 c = threadIdx.x; c < columns; c += blockDim.x) {
        double weight = weights ? weights[c] : 1.0, target = targets ? targets[c] : 0.0;
        double share = none || weight == 0.0 ? 0.0 : weight * exp(scale * x[c] - largest) / sum;
        dx[c] = none ? 0.0f : (float)(dy * scale * (share - target));
    }
}

extern "C" __global__ void gather(const float *x, const uint2 *indices, float *y, u32 columns, u32 n) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[(size_t)indices[i].x * columns + indices[i].y];
}

// One thread for each element that was picked: `places[i]` is where in `order` its gradients begin, `order` their numbers.
// `dx` holds zeros.
extern "C" __global__ void gather_backward(const u64 *elements, const u32 *places, const u32 *order, const float *dy,
                                           float *dx, u32 n) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float sum = 0.0f;
    for (u32 at = places[i]; at < places[i + 1]; at++) sum += dy[order[at]];
    dx[elements[i]] = sum;
}

// Copies `rows x width` from one matrix into another; `from` and `to` point to the corners.
template <typename T>
__device__ void copy_block(const T *from, size_t from_columns, T *to, size_t to_columns, u32 width, size_t n) {
    size_t i = thread_index();
    if (i < n) to[i / width * to_columns + i % width] = from[i / width * from_columns + i % width];
}

extern "C" __global__ void copy_block_f32(const float *from, size_t from_columns, float *to, size_t to_columns,
                                          u32 width, size_t n) {
    copy_block(from, from_columns, to, to_columns, width, n);
}
extern "C" __global__ void copy_block_bf16(const bf16 *from, size_t from_columns, bf16 *to, size_t to_columns,
                                           u32 width, size_t n) {
    copy_block(from, from_columns, to, to_columns, width, n);
}

// out[r, c] += scale x[r, c] for the first `width` columns
template <typename T>
__device__ void add_columns(const T *x, float scale, T *out, u32 width, size_t columns, size_t n) {
    size_t i = thread_index();
    if (i >= n) return;
    T *to = out + i / width * columns + i % width;
    put(to, number(*to) + scale * number(x[i]));
}

extern "C" __global__ void add_columns_f32(const float *x, float scale, float *out, u32 width, size_t columns,
                                           size_t n) {
    add_columns(x, scale, out, width, columns, n);
}
extern "C" __global__ void add_columns_bf16(const bf16 *x, float scale, bf16 *out, u32 width, size_t columns,
                                            size_t n) {
    add_columns(x, scale, out, width, columns, n);
}

// Tiles of 32 x 32, 32 x 8 threads.
template <typename T> __device__ void transpose(const T *x, T *y, u32 rows, u32 columns) {
    __shared__ T tile[32][33];
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 column = blockIdx.x * 32 + lane;
    for (u32 i = warp; i < 32; i += 8) {
        u32 row = blockIdx.y * 32 + i;
        if (row < rows && column < columns) tile[i][lane] = x[(size_t)row * columns + column];
    }
    __syncthreads();
    u32 row = blockIdx.y * 32 + lane;
    for (u32 i = warp; i < 32; i += 8) {
        u32 column = blockIdx.x * 32 + i;
        if (row < rows && column < columns) y[(size_t)column * rows + row] = tile[lane][i];
    }
}

extern "C" __global__ void transpose_f32(const float *x, float *y, u32 rows, u32 columns) {
    transpose(x, y, rows, columns);
}
extern "C" __global__ void transpose_bf16(const bf16 *x, bf16 *y, u32 rows, u32 columns) {
    transpose(x, y, rows, columns);
}
