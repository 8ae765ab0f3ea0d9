// Attention over packed rows in plain loops, for float and for every size of heads up to 256. Pasted after
// `attention.cuh`.
//
// A block takes 16 rows of one sequence and head, four for each of its four warps, and goes through the other side's
// rows 32 at a time, one to a lane, in shared memory. `COLUMNS` is 1, 2, 4 or 8: 32 COLUMNS is at least the size of a
// head. Grid (tiles, heads), 128 threads; a row in shared memory has pitch = ((size + 3) / 4 | 1) 4 numbers.
//
// `attention_COLUMNS_T`: 192 pitch bytes of dynamic shared memory. `attention_queries_COLUMNS_T`: the gradient of the
// queries and `inner`, the product of output and gradient row by row; with `dbias` block x takes tiles x, x + groups,
// ..., and writes its part of the bias's gradient [groups, 2 reach - 1, heads]; 256 pitch + 2112 bytes.
// `attention_keys_COLUMNS_T`: the gradients of keys and values, after it; 256 pitch bytes.

#define OWN 4
#define ROWS 16
#define OTHERS 32

// One head of one sequence, and the rows of it that the block takes.
template <typename T> struct Tile {
    u32 size, pitch, head, start, stride;
    int length, first, own;
    const T *queries, *keys, *values;

    __device__ __forceinline__ Tile(const Attention<T> &attention, const u32 *offsets, uint2 tile)
        : size(attention.size), pitch(((size + 3) / 4 | 1) * 4), head(blockIdx.y), start(offsets[tile.x]),
          stride(3 * attention.hidden), length(offsets[tile.x + 1] - start), first(tile.y),
          own(first + threadIdx.x / 32 * OWN) {
        queries = attention.qkv + (size_t)start * stride + head * size;
        keys = queries + attention.hidden;
        values = keys + attention.hidden;
    }

    // Rows of a matrix to shared memory, from row `row` of the sequence on; zeros beyond it.
    __device__ __forceinline__ void load(float *to, const T *from, u32 stride, int row, int rows) const {
        for (u32 i = threadIdx.x; i < rows * pitch; i += blockDim.x) {
            const u32 r = i / pitch, column = i % pitch;
            to[i] = column < size && row + (int)r < length ? number(from[(size_t)(row + r) * stride + column]) : 0.0f;
        }
    }

    // The products of the warp's rows with the lane's row.
    __device__ __forceinline__ void products(const float *rows, const float *others, float (&sums)[OWN]) const {
        const float *mine = rows + threadIdx.x / 32 * OWN * pitch, *other = others + threadIdx.x % 32 * pitch;
        for (int r = 0; r < OWN; r++) sums[r] = 0.0f;
        for (u32 column = 0; column < size; column += 4) {
            const float4 y = numbers(other + column);
#pragma unroll
            for (int r = 0; r < OWN; r++) {
                const float4 x = numbers(mine + r * pitch + column);
                sums[r] += x.x * y.x + x.y * y.y + x.z * y.z + x.w * y.w;
            }
        }
    }

    // Adds the other rows, each lane's with its factors; a lane has columns `lane`, `lane + 32`, ... of the sums.
    template <int COLUMNS> __device__ __forceinline__ void add_rows(const float (&factors)[OWN], const float *others,
                                                                    float (&sums)[OWN][COLUMNS]) const {
        const u32 lane = threadIdx.x % 32;
        for (int other = 0; other < OTHERS; other++) {
            float factor[OWN];
#pragma unroll
            for (int r = 0; r < OWN; r++) factor[r] = __shfl_sync(0xffffffffu, factors[r], other);
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) {
                if (lane + c * 32 >= size) break;
                const float x = others[other * pitch + lane + c * 32];
#pragma unroll
                for (int r = 0; r < OWN; r++) sums[r][c] += factor[r] * x;
            }
        }
    }

    template <int COLUMNS>
    __device__ __forceinline__ void store(const float (&sums)[OWN][COLUMNS], float factor, T *to, u32 stride) const {
        const u32 lane = threadIdx.x % 32;
#pragma unroll
        for (int r = 0; r < OWN; r++)
#pragma unroll
            for (int c = 0; c < COLUMNS; c++)
                if (own + r < length && lane + c * 32 < size)
                    put(to + (size_t)(start + own + r) * stride + head * size + lane + c * 32, sums[r][c] * factor);
    }

    // Scaled, biased; minus infinity where the query does not see the key.
    __device__ __forceinline__ float score(const Attention<T> &attention, float product, int query, int key) const {
        if (query >= length || !visible(attention, query, key, length)) return -INFINITE;
        const float score = product / sqrtf((float)size);
        return attention.bias
                   ? score + attention.bias[(size_t)(key - query + attention.reach - 1) * attention.heads + head]
                   : score;
    }

    __device__ __forceinline__ u64 dropout_key(const Attention<T> &attention, int query) const {
        if (!attention.places) return 0;
        return row_key(key_part(attention.key, head), attention.places[start + min(query, length - 1)]);
    }

    // What dropout multiplies a probability by.
    __device__ __forceinline__ float mask(const Attention<T> &attention, u64 key, int column) const {
        if (!attention.places) return 1.0f;
        return keep(key, column, attention.threshold) ? attention.dropout_factor : 0.0f;
    }
};

template <typename T, int COLUMNS> __device__ __forceinline__ void
attention_forward(const Attention<T> &attention, const Tile<T> &tile, T *output, float *log_sum_exp) {
    SHARED_MEMORY(float, queries);
    float *others = queries + ROWS * tile.pitch;
    const int lane = threadIdx.x % 32;
    float out[OWN][COLUMNS] = {}, largest[OWN], sum[OWN];
    u64 row_keys[OWN];
    for (int r = 0; r < OWN; r++) {
        largest[r] = -INFINITE, sum[r] = 0.0f;
        row_keys[r] = tile.dropout_key(attention, tile.own + r);
    }
    tile.load(queries, tile.queries, tile.stride, tile.first, ROWS);
    const int from = max(0, tile.first - attention.behind) / OTHERS * OTHERS;
    const int to = min(tile.length, tile.first + ROWS + attention.ahead);
    for (int key = from; key < to; key += OTHERS) {
        __syncthreads();
        tile.load(others, tile.keys, tile.stride, key, OTHERS);
        __syncthreads();
        float scores[OWN];
        tile.products(queries, others, scores);
#pragma unroll
        for (int r = 0; r < OWN; r++) {
            scores[r] = tile.score(attention, scores[r], tile.own + r, key + lane);
            const float most = fmaxf(largest[r], warp_max(scores[r]));
            const float shrink = most == -INFINITE ? 1.0f : expf(largest[r] - most);
            const float probability = scores[r] == -INFINITE ? 0.0f : expf(scores[r] - most);
            largest[r] = most;
            sum[r] = sum[r] * shrink + probability;
            scores[r] = probability * tile.mask(attention, row_keys[r], key + lane);
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) out[r][c] *= shrink;
        }
        __syncthreads();
        tile.load(others, tile.values, tile.stride, key, OTHERS);
        __syncthreads();
        tile.add_rows(scores, others, out);
    }
#pragma unroll
    for (int r = 0; r < OWN; r++) {
        const float total = warp_sum(sum[r]);
        if (lane == 0 && tile.own + r < tile.length)
            log_sum_exp[(size_t)(tile.start + tile.own + r) * attention.heads + tile.head] = largest[r] + logf(total);
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) out[r][c] /= total;
    }
    tile.store(out, 1.0f, output, attention.hidden);
}

template <typename T, int COLUMNS>
__device__ __forceinline__ void queries_backward(const Attention<T> &attention, const Tile<T> &tile, const T *output,
                                                 const T *dy, const float *log_sum_exp, float *inner, T *dqkv,
                                                 float *dbias) {
    SHARED_MEMORY(float, queries);
    float *slopes = queries + ROWS * tile.pitch, *others = slopes + ROWS * tile.pitch,
          *dscores = others + OTHERS * tile.pitch;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const size_t place = (size_t)tile.start * attention.hidden + tile.head * tile.size;
    tile.load(queries, tile.queries, tile.stride, tile.first, ROWS);
    tile.load(slopes, dy + place, attention.hidden, tile.first, ROWS);
    __syncthreads();
    float sum[OWN][COLUMNS] = {}, base[OWN], row_inner[OWN];
    u64 row_keys[OWN];
    for (int r = 0; r < OWN; r++) {
        const int row = tile.own + r;
        const bool within = row < tile.length;
        float total = 0.0f;
        for (u32 column = lane; within && column < tile.size; column += 32)
            total += slopes[(warp * OWN + r) * tile.pitch + column] *
                     number(output[place + (size_t)row * attention.hidden + column]);
        row_inner[r] = warp_sum(total);
        row_keys[r] = tile.dropout_key(attention, row);
        const size_t statistic = (size_t)(tile.start + row) * attention.heads + tile.head;
        base[r] = within ? log_sum_exp[statistic] : 0.0f;
        if (within && lane == 0) inner[statistic] = row_inner[r];
    }
    const int from = max(0, tile.first - attention.behind) / OTHERS * OTHERS;
    const int to = min(tile.length, tile.first + ROWS + attention.ahead);
    for (int key = from; key < to; key += OTHERS) {
        __syncthreads();
        tile.load(others, tile.values, tile.stride, key, OTHERS);
        __syncthreads();
        float changes[OWN], scores[OWN];
        tile.products(slopes, others, changes);
        __syncthreads();
        tile.load(others, tile.keys, tile.stride, key, OTHERS);
        __syncthreads();
        tile.products(queries, others, scores);
#pragma unroll
        for (int r = 0; r < OWN; r++) {
            const float probability = expf(tile.score(attention, scores[r], tile.own + r, key + lane) - base[r]);
            scores[r] = probability * (changes[r] * tile.mask(attention, row_keys[r], key + lane) - row_inner[r]);
            if (dbias) dscores[(warp * OWN + r) * (OTHERS + 1) + lane] = scores[r];
        }
        tile.add_rows(scores, others, sum);
        if (dbias) {
            // One thread adds along one diagonal.
            __syncthreads();
            const int i = threadIdx.x, distance = key - tile.first + i - (ROWS - 1) + attention.reach - 1;
            if (i < ROWS + OTHERS - 1 && distance >= 0 && distance < 2 * attention.reach - 1) {
                float total = 0.0f;
                for (int row = max(0, ROWS - 1 - i); row < min(ROWS, ROWS - 1 - i + OTHERS); row++)
                    total += dscores[row * (OTHERS + 1) + i - (ROWS - 1) + row];
                dbias[(size_t)distance * attention.heads + tile.head] += total;
            }
        }
    }
    tile.store(sum, 1.0f / sqrtf((float)tile.size), dqkv, tile.stride);
}

template <typename T, int COLUMNS>
__device__ __forceinline__ void keys_backward(const Attention<T> &attention, const Tile<T> &tile, const T *dy,
                                              const float *log_sum_exp, const float *inner, T *dqkv) {
    SHARED_MEMORY(float, keys);
    float *values = keys + ROWS * tile.pitch, *others = values + ROWS * tile.pitch;
    const int lane = threadIdx.x % 32;
    const T *slopes = dy + (size_t)tile.start * attention.hidden + tile.head * tile.size;
    float dkeys[OWN][COLUMNS] = {}, dvalues[OWN][COLUMNS] = {};
    tile.load(keys, tile.keys, tile.stride, tile.first, ROWS);
    tile.load(values, tile.values, tile.stride, tile.first, ROWS);
    const int from = max(0, tile.first - attention.ahead) / OTHERS * OTHERS;
    const int to = min(tile.length, tile.first + ROWS + attention.behind);
    for (int first = from; first < to; first += OTHERS) {
        const int query = first + lane;
        const size_t statistic = (size_t)(tile.start + min(query, tile.length - 1)) * attention.heads + tile.head;
        const float base = log_sum_exp[statistic], row_inner = inner[statistic];
        const u64 row_key = tile.dropout_key(attention, query);
        float changes[OWN], scores[OWN];
        __syncthreads();
        tile.load(others, slopes, attention.hidden, first, OTHERS);
        __syncthreads();
        tile.products(values, others, changes);
        __syncthreads();
        tile.load(others, tile.queries, tile.stride, first, OTHERS);
        __syncthreads();
        tile.products(keys, others, scores);
#pragma unroll
        for (int r = 0; r < OWN; r++) {
            const float probability = expf(tile.score(attention, scores[r], query, tile.own + r) - base);
            const float mask = tile.mask(attention, row_key, tile.own + r);
            scores[r] = probability * mask;
            changes[r] = probability * (changes[r] * mask - row_inner);
        }
        tile.add_rows(changes, others, dkeys);
        __syncthreads();
        tile.load(others, slopes, attention.hidden, first, OTHERS);
        __syncthreads();
        tile.add_rows(scores, others, dvalues);
    }
    tile.store(dkeys, 1.0f / sqrtf((float)tile.size), dqkv + attention.hidden, tile.stride);
    tile.store(dvalues, 1.0f, dqkv + 2 * attention.hidden, tile.stride);
}

template <typename T, int COLUMNS>
__device__ __forceinline__ void queries_backward_tiles(const Attention<T> &attention, const T *output, const T *dy,
                                                       const float *log_sum_exp, float *inner, T *dqkv, float *dbias,
                                                       const u32 *offsets, const uint2 *tiles, u32 tile_count) {
    const u32 distances = 2 * attention.reach - 1;
    float *part = dbias ? dbias + (size_t)blockIdx.x * distances * attention.heads : nullptr;
    for (u32 i = threadIdx.x; part && i < distances; i += blockDim.x)
        part[(size_t)i * attention.heads + blockIdx.y] = 0.0f;
    for (u32 i = blockIdx.x; i < tile_count; i += gridDim.x) {
        __syncthreads();
        queries_backward<T, COLUMNS>(attention, Tile<T>(attention, offsets, tiles[i]), output, dy, log_sum_exp, inner,
                                     dqkv, part);
    }
}

#define BACKWARD_PARAMETERS(T)                                                                                         \
    const T *output, const T *dy, const float *log_sum_exp, float *inner, T *dqkv, float *dbias, const u32 *offsets,   \
        const uint2 *tiles, u32 tile_count, ATTENTION_PARAMETERS(T)

#define ATTENTION_KERNELS(T, suffix, COLUMNS)                                                                          \
    extern "C" __global__ void __launch_bounds__(128) attention_##COLUMNS##_##suffix(                                  \
        T *output, float *log_sum_exp, const u32 *offsets, const uint2 *tiles, ATTENTION_PARAMETERS(T)) {              \
        const auto attention = ATTENTION(T);                                                                           \
        attention_forward<T, COLUMNS>(attention, Tile<T>(attention, offsets, tiles[blockIdx.x]), output, log_sum_exp); \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(128) attention_queries_##COLUMNS##_##suffix(BACKWARD_PARAMETERS(T)) { \
        queries_backward_tiles<T, COLUMNS>(ATTENTION(T), output, dy, log_sum_exp, inner, dqkv, dbias, offsets, tiles,  \
                                           tile_count);                                                                \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(128) attention_keys_##COLUMNS##_##suffix(BACKWARD_PARAMETERS(T)) {    \
        const auto attention = ATTENTION(T);                                                                           \
        keys_backward<T, COLUMNS>(attention, Tile<T>(attention, offsets, tiles[blockIdx.x]), dy, log_sum_exp, inner,   \
                                  dqkv);                                                                               \
    }

#define ATTENTION_KERNELS_OF(COLUMNS)                                                                                  \
    ATTENTION_KERNELS(float, f32, COLUMNS)                                                                             \
    ATTENTION_KERNELS(bf16, bf16, COLUMNS)

// The kernels for one size of heads are compiled by themselves; tests take all.
#ifdef HEAD_COLUMNS
ATTENTION_KERNELS_OF(HEAD_COLUMNS)
#else
ATTENTION_KERNELS_OF(1)
ATTENTION_KERNELS_OF(2)
ATTENTION_KERNELS_OF(4)
ATTENTION_KERNELS_OF(8)
#endif
