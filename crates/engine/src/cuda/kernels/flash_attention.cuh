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

// Starts to copy `ROWS` rows of a head, zeros from row `filled` on; `from` is the first number, rows are `stride` apart.
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

    __device__ __forceinline__ Pieces(u32 row, u32 chunk) : row_offset(row * (SIZE * 2)), flip(chunk_place<SIZE>(row, chunk) - row_offset) {}

    // The piece at row `row` and column `16 column` of a tile.
    __device__ __forceinline__ u32 at(u32 tile, int row, int column) const {
        return tile + row * (SIZE * 2) + row_offset + ((column * 32) ^ flip);
    }
};

// Kernels are compiled for one size of heads; tests take all.
#define OF_HEAD_SIZE(KERNELS, SIZE) KERNELS(SIZE)
#ifdef HEAD_SIZE
#define EACH_HEAD_SIZE(KERNELS) OF_HEAD_SIZE(KERNELS, HEAD_SIZE)
#else
#define EACH_HEAD_SIZE(KERNELS) KERNELS(32) KERNELS(64) KERNELS(128)
#endif
