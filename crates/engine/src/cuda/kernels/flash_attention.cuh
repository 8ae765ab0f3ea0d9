// What the kernels of attention in tiles share. Pasted after `attention.cuh` and `tensor_core.cuh`.
//
// Tiles of bf16 lie in shared memory row by row, their 16-byte chunks exchanged within a row so that the same chunk of
// eight consecutive rows lies in different banks.

#define LOG2_E 1.4426950408889634f
#define LN_2 0.6931471805599453f

// The offset in bytes of a chunk of a row.
template <int SIZE> __device__ __forceinline__ u32 chunk_place(u32 row, u32 chunk) {
    return row * (SIZE * 2) + ((chunk ^ (SIZE == 32 ? row / 2 % 4 : row % 8)) << 4);
}

// Starts to copy `ROWS` rows of a head, zeros from row `filled` on; `from` is the first number, rows are `stride`
// apart.
template <int SIZE, int ROWS, int THREADS>
__device__ __forceinline__ void copy_tile(u32 to, const bf16 *from, u32 stride, int filled) {
    constexpr int CHUNKS = SIZE / 8;
#pragma unroll
    for (int i = 0; i < ROWS * CHUNKS / THREADS; i++) {
        const int place = i * THREADS + (int)threadIdx.x, row = place / CHUNKS, chunk = place % CHUNKS;
        const bool within = row < filled;
        copy_async(to + chunk_place<SIZE>(row, chunk), within ? from + (size_t)row * stride + chunk * 8 : from, within);
    }
}

// The places from which a lane reads 16 x 16 pieces of a tile by `load_matrices`.
template <int SIZE> struct Pieces {
    u32 row_offset, flip;

    // With the pieces as operand A; transposed as operand B whose columns are the tile's.
    static __device__ __forceinline__ Pieces rows() {
        const u32 lane = threadIdx.x % 32;
        return Pieces(lane % 16, lane / 16);
    }

    // As operand B whose columns are the tile's rows; transposed as operand A whose rows are the tile's columns.
    static __device__ __forceinline__ Pieces columns() {
        const u32 lane = threadIdx.x % 32;
        return Pieces(lane % 8 + lane / 16 * 8, lane / 8 % 2);
    }

    __device__ __forceinline__ Pieces(u32 row, u32 chunk)
        : row_offset(row * (SIZE * 2)), flip(chunk_place<SIZE>(row, chunk) - row_offset) {}

    // The piece at row `row` and column `16 column` of a tile.
    __device__ __forceinline__ u32 at(u32 tile, int row, int column) const {
        return tile + row * (SIZE * 2) + row_offset + ((column * 32) ^ flip);
    }
};

// Adds a tile's rows, weighted by a warp's rows of numbers, of which those from column `used` on are 0.
template <int SIZE, int STRIPS, int WIDTH>
__device__ __forceinline__ void add_weighted(const float (&weights)[STRIPS][WIDTH / 8][4], u32 tile,
                                             const Pieces<SIZE> &by_rows, int used,
                                             float (&sum)[STRIPS][SIZE / 8][4]) {
#pragma unroll
    for (int n = 0; n < WIDTH / 16; n++) {
        if (STRIPS == 1 && n * 16 >= used) break;
        u32 a[STRIPS][4];
#pragma unroll
        for (int s = 0; s < STRIPS; s++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                a[s][i] = pair(weights[s][2 * n + i / 2][i % 2 * 2], weights[s][2 * n + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int d = 0; d < SIZE / 16; d++) {
            u32 b[4];
            load_matrices_transposed(b, by_rows.at(tile, n * 16, d));
#pragma unroll
            for (int s = 0; s < STRIPS; s++) {
                multiply_add(sum[s][2 * d], a[s], b[0], b[1]);
                multiply_add(sum[s][2 * d + 1], a[s], b[2], b[3]);
            }
        }
    }
}

// Stores a warp's rows of a result, times a factor, through the place of its own rows in a tile, so that whole rows are
// stored.
template <int SIZE, int STRIPS>
__device__ __forceinline__ void store_rows(u8 *tile, u32 warp_row, const float (&sum)[STRIPS][SIZE / 8][4],
                                           float factor, bf16 *to, u32 stride, int rows) {
    const u32 lane = threadIdx.x % 32;
    __syncwarp();
#pragma unroll
    for (int s = 0; s < STRIPS; s++)
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int n = 0; n < SIZE / 8; n++)
                *(u32 *)(tile + chunk_place<SIZE>(warp_row + s * 16 + half * 8 + lane / 4, n) + lane % 4 * 4) =
                    pair(sum[s][n][2 * half] * factor, sum[s][n][2 * half + 1] * factor);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < STRIPS * SIZE / 16; i++) {
        const int row = (i * 32 + lane) / (SIZE / 8), chunk = lane % (SIZE / 8);
        if (row < rows)
            *(uint4 *)(to + (size_t)row * stride + chunk * 8) =
                *(const uint4 *)(tile + chunk_place<SIZE>(warp_row + row, chunk));
    }
}

// Products of two pairs of bf16, added.
__device__ __forceinline__ float pair_product(u32 x, u32 y) {
    return __uint_as_float(x << 16) * __uint_as_float(y << 16) +
           __uint_as_float(x & 0xffff0000u) * __uint_as_float(y & 0xffff0000u);
}

// Of the kernels of the backward pass.
#define BACKWARD_PARAMETERS                                                                                            \
    const bf16 *output, const bf16 *dy, const float *log_sum_exp, float *inner, bf16 *dqkv, float *dbias,              \
        const u32 *offsets, const uint2 *tiles, u32 tile_count, ATTENTION_PARAMETERS(bf16)

// The kernels for one size of heads and one choice of extras are compiled by themselves; tests take all.
#define EACH_KIND_OF(KERNELS, SIZE, EXTRAS) KERNELS(SIZE, EXTRAS)
#ifdef HEAD_SIZE
#define EACH_KIND(KERNELS) EACH_KIND_OF(KERNELS, HEAD_SIZE, HEAD_EXTRAS)
#else
#define EACH_KIND(KERNELS)                                                                                             \
    KERNELS(32, 0)                                                                                                     \
    KERNELS(32, 1) KERNELS(32, 2) KERNELS(64, 0) KERNELS(64, 1) KERNELS(64, 2) KERNELS(128, 0) KERNELS(128, 1)         \
        KERNELS(128, 2)
#endif
