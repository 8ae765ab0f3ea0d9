// Attention backward, continued: sums over queries.
//
// `attention_keys_SIZE_EXTRAS`: the gradients of keys and values, after it. Grid (tiles, heads), 128 threads, dynamic
// shared memory 4 SIZE (TILE + 128) + 2048 bytes, with EXTRAS = 2 another 8 (TILE + 64).
//
// `attention_short_SIZE_ROWS_EXTRAS`: everything, for sequences of up to ROWS = 64 or 128 rows, without bias. Grid
// (sequences, heads), 2 ROWS threads, dynamic shared memory ROWS (8 SIZE + 2 ROWS + 16) bytes.

// What is known of the queries of a tile.
struct QueryRows {
    const float *log_sum_exp, *inner;
    const u64 *keys;
    // By key - query from the first key of the tile and the last query.
    const float *biases;
};

// Adds what `STEP` queries from `query` on, row `row` of their tile, give to the gradients of a warp's keys. Scores are
// transposed, so that they are at once the left operands of the gradients' products. With `dscores` their gradients are
// kept there as well, `[keys, queries]` of bf16.
template <int SIZE, int STRIPS, int STEP, int EXTRAS, bool HELD, int KEPT> __device__ __forceinline__ void
keys_backward_step(const Attention<bf16> &attention, int own, int own_row, int query, int row, int length, u32 keys,
                   u32 values, u32 (&held_keys)[HELD ? SIZE / 16 : 1][STRIPS][4],
                   u32 (&held_values)[HELD ? SIZE / 16 : 1][STRIPS][4], u32 queries, u32 slopes, const QueryRows &rows,
                   float (&dkeys)[STRIPS][SIZE / 8][4], float (&dvalues)[STRIPS][SIZE / 8][4], u8 *dscores) {
    constexpr int DEPTH = SIZE / 16;
    const u32 lane = threadIdx.x % 32;
    const Pieces<SIZE> by_rows = Pieces<SIZE>::rows(), by_columns = Pieces<SIZE>::columns();
    const float factor = LOG2_E * rsqrtf((float)SIZE);
    const bool dropping = EXTRAS > 0 && attention.places;
    const float dropout_factor = dropping ? attention.dropout_factor : 1.0f;
    float scores[STRIPS][STEP / 8][4], changes[STRIPS][STEP / 8][4];
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
        if (!HELD) {
#pragma unroll
            for (int s = 0; s < STRIPS; s++) {
                load_matrices(held_keys[0][s], by_rows.at(keys, own_row + s * 16, k));
                load_matrices(held_values[0][s], by_rows.at(values, own_row + s * 16, k));
            }
        }
#pragma unroll
        for (int n = 0; n < STEP / 16; n++) {
            u32 b[4], c[4];
            load_matrices(b, by_columns.at(queries, row + n * 16, k));
            load_matrices(c, by_columns.at(slopes, row + n * 16, k));
#pragma unroll
            for (int s = 0; s < STRIPS; s++) {
                multiply_add(k == 0, scores[s][2 * n], held_keys[HELD ? k : 0][s], b[0], b[1]);
                multiply_add(k == 0, scores[s][2 * n + 1], held_keys[HELD ? k : 0][s], b[2], b[3]);
                multiply_add(k == 0, changes[s][2 * n], held_values[HELD ? k : 0][s], c[0], c[1]);
                multiply_add(k == 0, changes[s][2 * n + 1], held_values[HELD ? k : 0][s], c[2], c[3]);
            }
        }
    }

    if (!all_visible(attention, query, STEP, own, 16 * STRIPS, length)) {
#pragma unroll
        for (int s = 0; s < STRIPS; s++)
#pragma unroll
            for (int n = 0; n < STEP / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (!visible(attention, query + n * 8 + (int)lane % 4 * 2 + i % 2,
                                 own + s * 16 + i / 2 * 8 + (int)lane / 4, length))
                        scores[s][n][i] = -INFINITE;
    }
#pragma unroll
    for (int n = 0; n < STEP / 8; n++) {
        const int place = row + n * 8 + lane % 4 * 2;
        const float2 base = *(const float2 *)(rows.log_sum_exp + place), inner = *(const float2 *)(rows.inner + place);
        u64 row_keys[2];
        if (dropping) row_keys[0] = rows.keys[place], row_keys[1] = rows.keys[place + 1];
#pragma unroll
        for (int s = 0; s < STRIPS; s++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float minus = (i % 2 ? base.y : base.x) * -LOG2_E;
                if (EXTRAS == 2 && rows.biases) {
                    const int key = own_row + s * 16 + i / 2 * 8 + (int)lane / 4;
                    minus += rows.biases[key - place - i % 2 + 63];
                }
                scores[s][n][i] = power_of_two(fmaf(scores[s][n][i], factor, minus));
            }
        float seen[STRIPS][4];
#pragma unroll
        for (int i = 0; i < 4 * STRIPS; i++) seen[i / 4][i % 4] = scores[i / 4][n][i % 4];
        if (dropping) {
            // Keys of a lane are eight apart.
#pragma unroll
            for (int s = 0; s < STRIPS; s++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const u32 drawn = draws(row_keys[i], own + s * 16 + lane / 4);
                    if (!keep_first(drawn, attention.threshold)) seen[s][i] = changes[s][n][i] = 0.0f;
                    if (!keep_second(drawn, attention.threshold)) seen[s][i + 2] = changes[s][n][i + 2] = 0.0f;
                }
        }
#pragma unroll
        for (int s = 0; s < STRIPS; s++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float change = fmaf(changes[s][n][i], dropout_factor, -(i % 2 ? inner.y : inner.x));
                changes[s][n][i] = scores[s][n][i] * change;
                scores[s][n][i] = seen[s][i];
            }
    }

#pragma unroll
    for (int n = 0; n < STEP / 16; n++) {
        u32 seen[STRIPS][4], change[STRIPS][4];
#pragma unroll
        for (int s = 0; s < STRIPS; s++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int column = 2 * n + i / 2, at = i % 2 * 2;
                seen[s][i] = pair(scores[s][column][at], scores[s][column][at + 1]);
                change[s][i] = pair(changes[s][column][at], changes[s][column][at + 1]);
                if (KEPT)
                    *(u32 *)(dscores + lane % 4 * 4 +
                             chunk_place<KEPT ? KEPT : 64>(own_row + s * 16 + i % 2 * 8 + lane / 4, row / 8 + column)) =
                        change[s][i];
            }
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            u32 b[4], c[4];
            load_matrices_transposed(b, by_rows.at(slopes, row + n * 16, d));
            load_matrices_transposed(c, by_rows.at(queries, row + n * 16, d));
#pragma unroll
            for (int s = 0; s < STRIPS; s++) {
                multiply_add(dvalues[s][2 * d], seen[s], b[0], b[1]);
                multiply_add(dvalues[s][2 * d + 1], seen[s], b[2], b[3]);
                multiply_add(dkeys[s][2 * d], change[s], c[0], c[1]);
                multiply_add(dkeys[s][2 * d + 1], change[s], c[2], c[3]);
            }
        }
    }
}

template <int SIZE, int STRIPS, int STEP, int EXTRAS>
__device__ __forceinline__ void keys_backward(const Attention<bf16> &attention, const u32 *offsets, uint2 tile,
                                              const bf16 *dy, const float *log_sum_exp, const float *inner,
                                              bf16 *dqkv) {
    constexpr int ROWS = 64 * STRIPS, QUERIES = 64, THREADS = 128, DEPTH = SIZE / 16;
    constexpr bool HELD = SIZE * STRIPS <= 64;
    SHARED_MEMORY(u8, memory);
    const u32 keys = shared_address(memory), values = keys + ROWS * SIZE * 2, queries = values + ROWS * SIZE * 2,
              slopes = queries + 2 * QUERIES * SIZE * 2;
    u64 *row_keys = (u64 *)(memory + (2 * ROWS + 4 * QUERIES) * SIZE * 2);
    float *bases = (float *)(row_keys + 2 * QUERIES), *inners = bases + 2 * QUERIES, *biases = inners + 2 * QUERIES;

    const u32 warp = threadIdx.x / 32, head = blockIdx.y, stride = 3 * attention.hidden;
    const u32 start = offsets[tile.x];
    const int length = offsets[tile.x + 1] - start, first = tile.y;
    const bf16 *sequence = attention.qkv + (size_t)start * stride + head * SIZE;
    const bf16 *slope_rows = dy + (size_t)start * attention.hidden + head * SIZE;
    const int from = max(0, first - attention.ahead) / QUERIES * QUERIES;
    const int to = min(length, first + ROWS + attention.behind);
    const int own_row = warp * 16 * STRIPS, own = first + own_row;
    const bool dropping = EXTRAS > 0 && attention.places;
    const u64 head_key = dropping ? key_part(attention.key, head) : 0;

    const auto fetch = [&](int query, int stage) {
        copy_tile<SIZE, QUERIES, THREADS>(queries + stage * QUERIES * SIZE * 2, sequence + (size_t)query * stride,
                                          stride, length - query);
        copy_tile<SIZE, QUERIES, THREADS>(slopes + stage * QUERIES * SIZE * 2,
                                          slope_rows + (size_t)query * attention.hidden, attention.hidden,
                                          length - query);
        const int row = query + (int)threadIdx.x % QUERIES;
        const bool within = row < length;
        const size_t place = (size_t)(start + (within ? row : 0)) * attention.heads + head;
        const bool upper = threadIdx.x >= QUERIES;
        copy_word_async(shared_address((upper ? inners : bases) + stage * QUERIES + threadIdx.x % QUERIES),
                        (upper ? inner : log_sum_exp) + place, within);
        copy_async_close();
        if (dropping && !upper)
            row_keys[stage * QUERIES + threadIdx.x] = row_key(head_key, attention.places[start + min(row, length - 1)]);
        if (EXTRAS == 2 && attention.bias) {
            for (int i = threadIdx.x; i < ROWS + QUERIES - 1; i += THREADS) {
                const int distance = first - query + i - (QUERIES - 1) + attention.reach - 1;
                const bool inside = distance >= 0 && distance < 2 * attention.reach - 1;
                biases[stage * (ROWS + QUERIES) + i] =
                    inside ? attention.bias[(size_t)distance * attention.heads + head] * LOG2_E : 0.0f;
            }
        }
    };
    copy_tile<SIZE, ROWS, THREADS>(keys, sequence + attention.hidden + (size_t)first * stride, stride, length - first);
    copy_tile<SIZE, ROWS, THREADS>(values, sequence + 2 * attention.hidden + (size_t)first * stride, stride,
                                   length - first);
    fetch(from, 0);

    const Pieces<SIZE> by_rows = Pieces<SIZE>::rows();
    float dkeys[STRIPS][SIZE / 8][4] = {}, dvalues[STRIPS][SIZE / 8][4] = {};
    u32 held_keys[HELD ? DEPTH : 1][STRIPS][4], held_values[HELD ? DEPTH : 1][STRIPS][4];
    copy_async_wait<0>();
    __syncthreads();
    if (HELD) {
#pragma unroll
        for (int k = 0; k < DEPTH; k++)
#pragma unroll
            for (int s = 0; s < STRIPS; s++) {
                load_matrices(held_keys[HELD ? k : 0][s], by_rows.at(keys, own_row + s * 16, k));
                load_matrices(held_values[HELD ? k : 0][s], by_rows.at(values, own_row + s * 16, k));
            }
    }
    for (int query = from, stage = 0; query < to; query += QUERIES, stage ^= 1) {
        if (query > from) {
            copy_async_wait<0>();
            __syncthreads();
        }
        if (query + QUERIES < to) fetch(query + QUERIES, stage ^ 1);
        const QueryRows rows{bases + stage * QUERIES, inners + stage * QUERIES, row_keys + stage * QUERIES,
                             EXTRAS == 2 && attention.bias ? biases + stage * (ROWS + QUERIES) : nullptr};
#pragma unroll 1
        for (int row = 0; row < QUERIES; row += STEP) {
            if (none_visible(attention, query + row, STEP, own, 16 * STRIPS, length)) continue;
            keys_backward_step<SIZE, STRIPS, STEP, EXTRAS, HELD, 0>(
                attention, own, own_row, query + row, row, length, keys, values, held_keys, held_values,
                queries + stage * QUERIES * SIZE * 2, slopes + stage * QUERIES * SIZE * 2, rows, dkeys, dvalues,
                nullptr);
        }
    }
    bf16 *to_keys = dqkv + (size_t)(start + own) * stride + attention.hidden + head * SIZE;
    store_rows<SIZE, STRIPS>(memory, own_row, dkeys, rsqrtf((float)SIZE), to_keys, stride, length - own);
    store_rows<SIZE, STRIPS>(memory + ROWS * SIZE * 2, own_row, dvalues, dropping ? attention.dropout_factor : 1.0f,
                             to_keys + attention.hidden, stride, length - own);
}

template <int SIZE, int ROWS, int STEP, int EXTRAS>
__device__ __forceinline__ void short_backward(const Attention<bf16> &attention, const u32 *offsets, uint2 tile,
                                               const bf16 *output, const bf16 *dy, const float *log_sum_exp,
                                               bf16 *dqkv) {
    constexpr int THREADS = 2 * ROWS, DEPTH = SIZE / 16, CHUNKS = SIZE / 8;
    constexpr bool HELD = false;
    SHARED_MEMORY(u8, memory);
    const u32 queries = shared_address(memory), keys = queries + ROWS * SIZE * 2, values = keys + ROWS * SIZE * 2,
              slopes = values + ROWS * SIZE * 2, dscores = slopes + ROWS * SIZE * 2;
    u64 *row_keys = (u64 *)(memory + ROWS * (8 * SIZE + 2 * ROWS));
    float *bases = (float *)(row_keys + ROWS), *inners = bases + ROWS;

    const u32 lane = threadIdx.x % 32, own = threadIdx.x / 32 * 16, head = blockIdx.y, stride = 3 * attention.hidden;
    const u32 start = offsets[tile.x];
    const int length = offsets[tile.x + 1] - start;
    const bf16 *sequence = attention.qkv + (size_t)start * stride + head * SIZE;
    const size_t place = (size_t)start * attention.hidden + head * SIZE;
    copy_tile<SIZE, ROWS, THREADS>(slopes, dy + place, attention.hidden, length);
    copy_async_close();
    copy_tile<SIZE, ROWS, THREADS>(queries, sequence, stride, length);
    copy_tile<SIZE, ROWS, THREADS>(keys, sequence + attention.hidden, stride, length);
    copy_tile<SIZE, ROWS, THREADS>(values, sequence + 2 * attention.hidden, stride, length);
    copy_async_close();

    const bool dropping = EXTRAS > 0 && attention.places;
    if (threadIdx.x < ROWS) {
        const bool within = (int)threadIdx.x < length;
        const u32 row = start + (within ? threadIdx.x : 0);
        bases[threadIdx.x] = within ? log_sum_exp[(size_t)row * attention.heads + head] : 0.0f;
        if (dropping) row_keys[threadIdx.x] = row_key(key_part(attention.key, head), attention.places[row]);
    }
    uint4 outputs[CHUNKS / 2];
#pragma unroll
    for (int i = 0; i < CHUNKS / 2; i++) {
        const int row = own + (i * 32 + lane) / CHUNKS;
        outputs[i] = make_uint4(0, 0, 0, 0);
        if (row < length)
            outputs[i] = *(const uint4 *)(output + place + (size_t)row * attention.hidden + lane % CHUNKS * 8);
    }
    copy_async_wait<1>();
    __syncthreads();
#pragma unroll
    for (int i = 0; i < CHUNKS / 2; i++) {
        const int row = own + (i * 32 + lane) / CHUNKS;
        const uint4 slope = *(const uint4 *)(memory + 3 * ROWS * SIZE * 2 + chunk_place<SIZE>(row, lane % CHUNKS));
        float total = pair_product(slope.x, outputs[i].x) + pair_product(slope.y, outputs[i].y) +
                      pair_product(slope.z, outputs[i].z) + pair_product(slope.w, outputs[i].w);
#pragma unroll
        for (int other = 1; other < CHUNKS; other *= 2) total += __shfl_xor_sync(0xffffffffu, total, other);
        if (lane % CHUNKS == 0) inners[row] = total;
    }
    copy_async_wait<0>();
    __syncthreads();

    const Pieces<SIZE> by_rows = Pieces<SIZE>::rows();
    bf16 *own_rows = dqkv + (size_t)(start + own) * stride + head * SIZE;
    const bool idle = (int)own >= length;
    if (!idle) {
        float dkeys[1][SIZE / 8][4] = {}, dvalues[1][SIZE / 8][4] = {};
        u32 held_keys[HELD ? DEPTH : 1][1][4], held_values[HELD ? DEPTH : 1][1][4];
        if (HELD) {
#pragma unroll
            for (int k = 0; k < DEPTH; k++) {
                load_matrices(held_keys[HELD ? k : 0][0], by_rows.at(keys, own, k));
                load_matrices(held_values[HELD ? k : 0][0], by_rows.at(values, own, k));
            }
        }
        const QueryRows rows{bases, inners, row_keys, nullptr};
#pragma unroll 1
        for (int query = 0; query < length; query += STEP)
            keys_backward_step<SIZE, 1, STEP, EXTRAS, HELD, ROWS>(attention, own, own, query, query, length, keys,
                                                                  values, held_keys, held_values, queries, slopes, rows,
                                                                  dkeys, dvalues, memory + 4 * ROWS * SIZE * 2);
        // The place of the values, of which each warp has read only its own rows; the keys are needed yet.
        u8 *through = memory + 2 * ROWS * SIZE * 2;
        store_rows<SIZE, 1>(through, own, dkeys, rsqrtf((float)SIZE), own_rows + attention.hidden, stride,
                            length - own);
        store_rows<SIZE, 1>(through, own, dvalues, dropping ? attention.dropout_factor : 1.0f,
                            own_rows + 2 * attention.hidden, stride, length - own);
    }
    __syncthreads();
    if (idle) return;
    float dqueries[1][SIZE / 8][4] = {};
    const Pieces<ROWS> crosswise = Pieces<ROWS>::columns();
    for (int key = 0; key < length; key += 16) {
        u32 a[4];
        load_matrices_transposed(a, crosswise.at(dscores, key, own / 16));
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            u32 b[4];
            load_matrices_transposed(b, by_rows.at(keys, key, d));
            multiply_add(dqueries[0][2 * d], a, b[0], b[1]);
            multiply_add(dqueries[0][2 * d + 1], a, b[2], b[3]);
        }
    }
    store_rows<SIZE, 1>(memory + 2 * ROWS * SIZE * 2, own, dqueries, rsqrtf((float)SIZE), own_rows, stride,
                        length - own);
}

#define KEYS_KERNEL(SIZE, EXTRAS)                                                                                      \
    extern "C" __global__ void __launch_bounds__(128) attention_keys_##SIZE##_##EXTRAS(BACKWARD_PARAMETERS) {          \
        keys_backward<SIZE, SIZE == 128 ? 1 : 2, 32, EXTRAS>(ATTENTION(bf16), offsets, tiles[blockIdx.x], dy,          \
                                                             log_sum_exp, inner, dqkv);                                \
    }

#define SHORT_KERNEL(SIZE, ROWS, EXTRAS)                                                                               \
    extern "C" __global__ void __launch_bounds__(2 * ROWS, SIZE == 128 ? 1 : 256 / ROWS)                               \
        attention_short_##SIZE##_##ROWS##_##EXTRAS(BACKWARD_PARAMETERS) {                                              \
        short_backward<SIZE, ROWS, SIZE == 128 ? 32 : 16, EXTRAS>(ATTENTION(bf16), offsets, tiles[blockIdx.x], output, \
                                                                  dy, log_sum_exp, dqkv);                              \
    }

// Not with a bias.
#define SHORT_KERNELS_0(SIZE) SHORT_KERNEL(SIZE, 64, 0) SHORT_KERNEL(SIZE, 128, 0)
#define SHORT_KERNELS_1(SIZE) SHORT_KERNEL(SIZE, 64, 1) SHORT_KERNEL(SIZE, 128, 1)
#define SHORT_KERNELS_2(SIZE)

#define KEYS_KERNELS(SIZE, EXTRAS)                                                                                     \
    KEYS_KERNEL(SIZE, EXTRAS)                                                                                          \
    SHORT_KERNELS_##EXTRAS(SIZE)

EACH_KIND(KEYS_KERNELS)
