// Attention backward over packed rows for heads of 32, 64 and 128 numbers. Probabilities are computed again from the
// log-sum-exp. Every sum has one order, so that gradients are the same in every run: one kernel takes tiles of queries
// and adds over keys, another takes tiles of keys and adds over queries. Short sequences need only one block for both.
//
// Tiles have TILE = 128 rows, 64 for heads of 128. EXTRAS as in the forward pass, but 2 always with a bias.
//
// `attention_queries_SIZE_EXTRAS`: the gradient of the queries and `inner`, the product of output and gradient row by
// row, which the second kernel needs. Grid (tiles, heads), 128 threads, dynamic shared memory 4 SIZE (TILE + 128)
// bytes. With EXTRAS = 2 the grid is (groups, heads): block x takes tiles x, x + groups, ... and writes its part of the
// bias's gradient [groups, 2 reach - 1, heads]; it needs 4 (TILE + 64) + 132 TILE bytes more.

template <int SIZE, int STRIPS, int STEP, int EXTRAS>
__device__ __forceinline__ void queries_backward(const Attention<bf16> &attention, const u32 *offsets, uint2 tile,
                                                 const bf16 *output, const bf16 *dy, const float *log_sum_exp,
                                                 float *inner, bf16 *dqkv, float *dbias) {
    constexpr int ROWS = 64 * STRIPS, KEYS = 64, THREADS = 128, DEPTH = SIZE / 16;
    constexpr bool HELD = SIZE * STRIPS <= 128;
    SHARED_MEMORY(u8, memory);
    const u32 queries = shared_address(memory), slopes = queries + ROWS * SIZE * 2, keys = slopes + ROWS * SIZE * 2,
              values = keys + 2 * KEYS * SIZE * 2;
    float *biases = (float *)(memory + (2 * ROWS + 4 * KEYS) * SIZE * 2), *dscores = biases + ROWS + KEYS;

    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.y, stride = 3 * attention.hidden;
    const u32 start = offsets[tile.x];
    const int length = offsets[tile.x + 1] - start, first = tile.y;
    const bf16 *sequence = attention.qkv + (size_t)start * stride + head * SIZE;
    const bf16 *key_rows = sequence + attention.hidden, *value_rows = key_rows + attention.hidden;
    const int from = max(0, first - attention.behind) / KEYS * KEYS;
    const int to = min(length, first + ROWS + attention.ahead);
    const int own_row = warp * 16 * STRIPS, own = first + own_row;
    const size_t own_place = ((size_t)start + first) * attention.hidden + head * SIZE;

    const auto fetch = [&](int key, int stage) {
        const size_t row = (size_t)key * stride;
        copy_tile<SIZE, KEYS, THREADS>(keys + stage * KEYS * SIZE * 2, key_rows + row, stride, length - key);
        copy_tile<SIZE, KEYS, THREADS>(values + stage * KEYS * SIZE * 2, value_rows + row, stride, length - key);
        copy_async_close();
    };
    copy_tile<SIZE, ROWS, THREADS>(queries, sequence + (size_t)first * stride, stride, length - first);
    copy_tile<SIZE, ROWS, THREADS>(slopes, dy + own_place, attention.hidden, length - first);
    fetch(from, 0);

    const bool dropping = EXTRAS > 0 && attention.places;
    const float dropout_factor = dropping ? attention.dropout_factor : 1.0f;
    const u64 head_key = dropping ? key_part(attention.key, head) : 0;
    u64 row_keys[STRIPS][2];
    // Of the scores, in powers of two.
    float base[STRIPS][2], row_inner[STRIPS][2];
#pragma unroll
    for (int i = 0; i < 2 * STRIPS; i++) {
        const int row = own + i * 8 + (int)lane / 4;
        const bool within = row < length;
        base[i / 2][i % 2] = within ? log_sum_exp[(size_t)(start + row) * attention.heads + head] * LOG2_E : 0.0f;
        if (dropping) row_keys[i / 2][i % 2] = row_key(head_key, attention.places[start + min(row, length - 1)]);
    }

    const Pieces<SIZE> by_rows = Pieces<SIZE>::rows(), by_columns = Pieces<SIZE>::columns();
    const float factor = LOG2_E * rsqrtf((float)SIZE);
    float sum[STRIPS][SIZE / 8][4] = {};

    copy_async_wait<0>();
    __syncthreads();
    u32 held_queries[HELD ? DEPTH : 1][STRIPS][4], held_slopes[HELD ? DEPTH : 1][STRIPS][4];
#pragma unroll
    for (int i = 0; i < 2 * STRIPS; i++) row_inner[i / 2][i % 2] = 0.0f;
#pragma unroll
    for (int k = 0; k < DEPTH; k++)
#pragma unroll
        for (int s = 0; s < STRIPS; s++) {
            if (HELD) load_matrices(held_queries[HELD ? k : 0][s], by_rows.at(queries, own_row + s * 16, k));
            u32(&slope)[4] = held_slopes[HELD ? k : 0][s];
            load_matrices(slope, by_rows.at(slopes, own_row + s * 16, k));
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = own_row + s * 16 + i % 2 * 8 + (int)lane / 4;
                if (first + row < length)
                    row_inner[s][i % 2] +=
                        pair_product(slope[i], *(const u32 *)(output + own_place + (size_t)row * attention.hidden +
                                                              k * 16 + i / 2 * 8 + lane % 4 * 2));
            }
        }
#pragma unroll
    for (int i = 0; i < 2 * STRIPS; i++) {
        float &total = row_inner[i / 2][i % 2];
        total += __shfl_xor_sync(0xffffffffu, total, 1);
        total += __shfl_xor_sync(0xffffffffu, total, 2);
        const int row = own + i * 8 + (int)lane / 4;
        if (lane % 4 == 0 && row < length) inner[(size_t)(start + row) * attention.heads + head] = total;
    }

    for (int key = from, stage = 0; key < to; key += KEYS, stage ^= 1) {
        if (key > from) {
            copy_async_wait<0>();
            __syncthreads();
        }
        if (key + KEYS < to) fetch(key + KEYS, stage ^ 1);
        if (EXTRAS == 2) {
            for (int i = threadIdx.x; i < ROWS + KEYS - 1; i += THREADS) {
                const int distance = key - first + i - (ROWS - 1) + attention.reach - 1;
                const bool within = distance >= 0 && distance < 2 * attention.reach - 1;
                biases[i] = within ? attention.bias[(size_t)distance * attention.heads + head] * LOG2_E : 0.0f;
            }
            __syncthreads();
        }
#pragma unroll 1
        for (int part = 0; part < KEYS; part += STEP) {
            const int here = key + part;
            if (here >= to) break;
            // With a bias all warps keep in step.
            if (EXTRAS < 2 && none_visible(attention, own, 16 * STRIPS, here, STEP, length)) continue;
            const u32 key_tile = keys + (stage * KEYS + part) * SIZE * 2;
            const u32 value_tile = values + (stage * KEYS + part) * SIZE * 2;

            float scores[STRIPS][STEP / 8][4], changes[STRIPS][STEP / 8][4];
#pragma unroll
            for (int k = 0; k < DEPTH; k++) {
                if (!HELD) {
#pragma unroll
                    for (int s = 0; s < STRIPS; s++) {
                        load_matrices(held_queries[0][s], by_rows.at(queries, own_row + s * 16, k));
                        load_matrices(held_slopes[0][s], by_rows.at(slopes, own_row + s * 16, k));
                    }
                }
#pragma unroll
                for (int n = 0; n < STEP / 16; n++) {
                    u32 b[4], c[4];
                    load_matrices(b, by_columns.at(key_tile, n * 16, k));
                    load_matrices(c, by_columns.at(value_tile, n * 16, k));
#pragma unroll
                    for (int s = 0; s < STRIPS; s++) {
                        multiply_add(k == 0, scores[s][2 * n], held_queries[HELD ? k : 0][s], b[0], b[1]);
                        multiply_add(k == 0, scores[s][2 * n + 1], held_queries[HELD ? k : 0][s], b[2], b[3]);
                        multiply_add(k == 0, changes[s][2 * n], held_slopes[HELD ? k : 0][s], c[0], c[1]);
                        multiply_add(k == 0, changes[s][2 * n + 1], held_slopes[HELD ? k : 0][s], c[2], c[3]);
                    }
                }
            }

            if (!all_visible(attention, own, 16 * STRIPS, here, STEP, length)) {
#pragma unroll
                for (int s = 0; s < STRIPS; s++)
#pragma unroll
                    for (int n = 0; n < STEP / 8; n++)
#pragma unroll
                        for (int i = 0; i < 4; i++)
                            if (!visible(attention, own + s * 16 + i / 2 * 8 + (int)lane / 4,
                                         here + n * 8 + (int)lane % 4 * 2 + i % 2, length))
                                scores[s][n][i] = -INFINITE;
            }
            if (dropping) {
#pragma unroll
                for (int s = 0; s < STRIPS; s++)
#pragma unroll
                    for (int n = 0; n < STEP / 8; n += 2)
#pragma unroll
                        for (int i = 0; i < 4; i++) {
                            const u32 drawn = draws(row_keys[s][i / 2], here + n * 8 + lane % 4 * 2 + i % 2);
                            if (!keep_first(drawn, attention.threshold)) changes[s][n][i] = 0.0f;
                            if (!keep_second(drawn, attention.threshold)) changes[s][n + 1][i] = 0.0f;
                        }
            }
            const float *near = biases + ROWS - 1 - own_row + part + lane % 4 * 2 - lane / 4;
#pragma unroll
            for (int s = 0; s < STRIPS; s++)
#pragma unroll
                for (int n = 0; n < STEP / 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const int half = i / 2, column = n * 8 + lane % 4 * 2 + i % 2;
                        float minus = -base[s][half];
                        if (EXTRAS == 2) minus += near[n * 8 + i % 2 - s * 16 - half * 8];
                        const float probability = power_of_two(fmaf(scores[s][n][i], factor, minus));
                        scores[s][n][i] =
                            probability * fmaf(changes[s][n][i], dropout_factor, -row_inner[s][half]);
                        if (EXTRAS == 2)
                            dscores[(own_row + s * 16 + half * 8 + lane / 4) * (STEP + 1) + column] =
                                scores[s][n][i];
                    }

            add_weighted<SIZE, STRIPS, STEP>(scores, key_tile, by_rows, STEP, sum);

            if (EXTRAS == 2) {
                // One thread adds along one diagonal.
                __syncthreads();
                for (int i = threadIdx.x; i < ROWS + STEP - 1; i += THREADS) {
                    const int distance = here - first + i - (ROWS - 1) + attention.reach - 1;
                    float total = 0.0f;
                    for (int row = max(0, ROWS - 1 - i); row < min(ROWS, ROWS - 1 - i + STEP); row++)
                        total += dscores[row * (STEP + 1) + i - (ROWS - 1) + row];
                    if (distance >= 0 && distance < 2 * attention.reach - 1)
                        dbias[(size_t)distance * attention.heads + head] += total;
                }
                __syncthreads();
            }
        }
    }
    store_rows<SIZE, STRIPS>(memory, own_row, sum, rsqrtf((float)SIZE),
                             dqkv + (size_t)(start + own) * stride + head * SIZE, stride, length - own);
}

template <int SIZE, int EXTRAS> __device__ __forceinline__ void
queries_backward_tiles(const Attention<bf16> &attention, const bf16 *output, const bf16 *dy, const float *log_sum_exp,
                       float *inner, bf16 *dqkv, float *dbias, const u32 *offsets, const uint2 *tiles, u32 tile_count) {
    constexpr int STRIPS = SIZE == 128 ? 1 : 2;
    if (EXTRAS < 2) {
        queries_backward<SIZE, STRIPS, 32, EXTRAS>(attention, offsets, tiles[blockIdx.x], output, dy, log_sum_exp,
                                                   inner, dqkv, nullptr);
        return;
    }
    const u32 distances = 2 * attention.reach - 1;
    float *part = dbias + (size_t)blockIdx.x * distances * attention.heads;
    for (u32 i = threadIdx.x; i < distances; i += blockDim.x) part[(size_t)i * attention.heads + blockIdx.y] = 0.0f;
    for (u32 i = blockIdx.x; i < tile_count; i += gridDim.x) {
        __syncthreads();
        queries_backward<SIZE, STRIPS, 32, EXTRAS>(attention, offsets, tiles[i], output, dy, log_sum_exp, inner, dqkv,
                                                   part);
    }
}

#define QUERIES_KERNEL(SIZE, EXTRAS)                                                                                   \
    extern "C" __global__ void __launch_bounds__(128) attention_queries_##SIZE##_##EXTRAS(BACKWARD_PARAMETERS) {       \
        queries_backward_tiles<SIZE, EXTRAS>(ATTENTION(bf16), output, dy, log_sum_exp, inner, dqkv, dbias, offsets,    \
                                             tiles, tile_count);                                                       \
    }

EACH_KIND(QUERIES_KERNEL)
