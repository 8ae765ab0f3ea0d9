// Table look-ups, and their gradients.

// y[r] = the sum of row ids[r] of each table; one row to a warp, tables left out are null.
template <typename T>
__device__ void embedding_sum(const float *const tables[4], const u32 *const ids[4], T *y, u32 rows, u32 columns) {
    const u32 lane = threadIdx.x % 32, row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    const float *from[4];
#pragma unroll
    for (int i = 0; i < 4; i++) from[i] = tables[i] ? tables[i] + (size_t)ids[i][row] * columns : 0;
    y += (size_t)row * columns;
    if (columns % 4 == 0) {
        for (u32 column = lane * 4; column < columns; column += 128) {
            float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if (from[i]) {
                    const float4 a = numbers(from[i] + column);
                    sum = make_float4(sum.x + a.x, sum.y + a.y, sum.z + a.z, sum.w + a.w);
                }
            }
            put_numbers(y + column, sum);
        }
    } else {
        for (u32 column = lane; column < columns; column += 32) {
            float sum = 0.f;
            for (int i = 0; i < 4; i++)
                if (from[i]) sum += from[i][column];
            put(y + column, sum);
        }
    }
}

#define EMBEDDING_SUM(T, suffix)                                                                                       \
    extern "C" __global__ void embedding_sum_##suffix(const float *t0, const u32 *i0, const float *t1, const u32 *i1,  \
                                                      const float *t2, const u32 *i2, const float *t3, const u32 *i3,  \
                                                      T *y, u32 rows, u32 columns) {                                   \
        const float *const tables[4] = {t0, t1, t2, t3};                                                               \
        const u32 *const ids[4] = {i0, i1, i2, i3};                                                                    \
        embedding_sum(tables, ids, y, rows, columns);                                                                  \
    }
EMBEDDING_SUM(float, f32)
EMBEDDING_SUM(bf16, bf16)

// Rows of equal ids stand together in `order`; part p is rows `order[parts[p]]` to `order[parts[p + 1] - 1]`, all of one
// id. Block p sums them into row p of `sums [parts, columns]`.
template <typename T>
__device__ void embedding_parts(const T *dy, const u32 *order, const u32 *parts, float *sums, u32 columns) {
    const u32 start = parts[blockIdx.x], end = parts[blockIdx.x + 1];
    for (u32 column = threadIdx.x; column < columns; column += blockDim.x) {
        float sum = 0.f;
#pragma unroll 4
        for (u32 i = start; i < end; i++) sum += number(dy[(size_t)order[i] * columns + column]);
        sums[(size_t)blockIdx.x * columns + column] = sum;
    }
}

extern "C" __global__ void embedding_parts_f32(const float *dy, const u32 *order, const u32 *parts, float *sums,
                                               u32 columns) {
    embedding_parts(dy, order, parts, sums, columns);
}
extern "C" __global__ void embedding_parts_bf16(const bf16 *dy, const u32 *order, const u32 *parts, float *sums,
                                                u32 columns) {
    embedding_parts(dy, order, parts, sums, columns);
}

// Block e adds parts `firsts[e]` to `firsts[e + 1] - 1` to row `entries[e]` of `out`.
extern "C" __global__ void embedding_entries(const float *sums, const u32 *entries, const u32 *firsts, float *out,
                                             u32 columns) {
    const u32 start = firsts[blockIdx.x], end = firsts[blockIdx.x + 1];
    out += (size_t)entries[blockIdx.x] * columns;
    for (u32 column = threadIdx.x; column < columns; column += blockDim.x) {
        float sum = 0.f;
#pragma unroll 4
        for (u32 part = start; part < end; part++) sum += sums[(size_t)part * columns + column];
        out[column] += sum;
    }
}
