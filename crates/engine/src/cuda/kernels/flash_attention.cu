// Attention forward over packed rows for heads of 32, 64 and 128 numbers (Dao 2023, FlashAttention-2): probabilities
// never leave the registers.
//
// `attention_SIZE_STRIPS_EXTRAS`: grid (tiles, heads), 128 threads. A block takes 64 STRIPS rows of one sequence, each
// of its four warps 16 STRIPS; keys and values come in tiles of 64 while those before are in use. EXTRAS: 0 neither
// dropout nor bias, 1 dropout, 2 either or both. Dynamic shared memory: 2 SIZE (64 STRIPS + 256) bytes, and with EXTRAS
// = 2 another 8 (64 STRIPS + 64).

template <int SIZE, int STRIPS, int EXTRAS>
__device__ __forceinline__ void flash_attention(const Attention<bf16> &attention, const u32 *offsets,
                                                const uint2 *tiles, bf16 *output, float *log_sum_exp) {
    constexpr int ROWS = 64 * STRIPS, KEYS = 64, THREADS = 128, DEPTH = SIZE / 16;
    // Queries stay in registers where there is room.
    constexpr bool HELD = SIZE * STRIPS <= 128;
    SHARED_MEMORY(u8, memory);
    const u32 queries = shared_address(memory), keys = queries + ROWS * SIZE * 2, values = keys + 2 * KEYS * SIZE * 2;
    float *biases = (float *)(memory + (ROWS + 4 * KEYS) * SIZE * 2);

    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.y, stride = 3 * attention.hidden;
    const uint2 tile = tiles[blockIdx.x];
    const u32 start = offsets[tile.x];
    const int length = offsets[tile.x + 1] - start, first = tile.y;
    const bf16 *sequence = attention.qkv + (size_t)start * stride + head * SIZE;
    const bf16 *key_rows = sequence + attention.hidden, *value_rows = key_rows + attention.hidden;
    const int from = max(0, first - attention.behind) / KEYS * KEYS;
    const int to = min(length, first + ROWS + attention.ahead);
    const int own = first + warp * 16 * STRIPS;

    const auto fetch = [&](int key, int stage) {
        const size_t row = (size_t)key * stride;
        copy_tile<SIZE, KEYS, THREADS>(keys + stage * KEYS * SIZE * 2, key_rows + row, stride, length - key);
        copy_tile<SIZE, KEYS, THREADS>(values + stage * KEYS * SIZE * 2, value_rows + row, stride, length - key);
        copy_async_close();
        if (EXTRAS == 2 && attention.bias) {
            // By key - query + ROWS - 1 within the tiles.
            for (int i = threadIdx.x; i < ROWS + KEYS - 1; i += THREADS) {
                const int distance = key - first + i - (ROWS - 1) + attention.reach - 1;
                const bool within = distance >= 0 && distance < 2 * attention.reach - 1;
                biases[stage * (ROWS + KEYS) + i] =
                    within ? attention.bias[(size_t)distance * attention.heads + head] * LOG2_E : 0.0f;
            }
        }
    };
    copy_tile<SIZE, ROWS, THREADS>(queries, sequence + (size_t)first * stride, stride, length - first);
    fetch(from, 0);

    // Rows lane / 4 and lane / 4 + 8 of each strip.
    u64 row_keys[STRIPS][2];
    const bool dropping = EXTRAS > 0 && attention.places;
    if (dropping) {
        const u64 head_key = key_part(attention.key, head);
#pragma unroll
        for (int i = 0; i < 2 * STRIPS; i++) {
            const int row = min(own + i * 8 + (int)lane / 4, length - 1);
            row_keys[i / 2][i % 2] = row_key(head_key, attention.places[start + row]);
        }
    }

    const Pieces<SIZE> by_rows = Pieces<SIZE>::rows(), by_columns = Pieces<SIZE>::columns();
    const float factor = LOG2_E * rsqrtf((float)SIZE);
    float out[STRIPS][SIZE / 8][4] = {};
    // What exponents are relative to, and the sum of the lane's columns.
    float base[STRIPS][2], sum[STRIPS][2];
#pragma unroll
    for (int i = 0; i < 2 * STRIPS; i++) base[i / 2][i % 2] = -INFINITE, sum[i / 2][i % 2] = 0.0f;

    copy_async_wait<0>();
    __syncthreads();
    u32 held[HELD ? DEPTH : 1][STRIPS][4];
    if (HELD) {
#pragma unroll
        for (int k = 0; k < DEPTH; k++)
#pragma unroll
            for (int s = 0; s < STRIPS; s++)
                load_matrices(held[HELD ? k : 0][s], by_rows.at(queries, warp * 16 * STRIPS + s * 16, k));
    }

    for (int key = from, stage = 0; key < to; key += KEYS, stage ^= 1) {
        if (key > from) {
            copy_async_wait<0>();
            __syncthreads();
        }
        if (key + KEYS < to) fetch(key + KEYS, stage ^ 1);
        if (none_visible(attention, own, 16 * STRIPS, key, KEYS, length)) continue;
        const u32 key_tile = keys + stage * KEYS * SIZE * 2, value_tile = values + stage * KEYS * SIZE * 2;
        // Short sequences leave the rest of a tile out.
        const int used = STRIPS == 1 ? min(KEYS, to - key) : KEYS;

        float scores[STRIPS][KEYS / 8][4];
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            if (!HELD) {
#pragma unroll
                for (int s = 0; s < STRIPS; s++)
                    load_matrices(held[0][s], by_rows.at(queries, warp * 16 * STRIPS + s * 16, k));
            }
#pragma unroll
            for (int n = 0; n < KEYS / 16; n++) {
                if (STRIPS == 1 && n * 16 >= used) {
                    if (k == 0) {
#pragma unroll
                        for (int i = 0; i < 8; i++) scores[0][2 * n + i / 4][i % 4] = 0.0f;
                    }
                    continue;
                }
                u32 b[4];
                load_matrices(b, by_columns.at(key_tile, n * 16, k));
#pragma unroll
                for (int s = 0; s < STRIPS; s++) {
                    multiply_add(k == 0, scores[s][2 * n], held[HELD ? k : 0][s], b[0], b[1]);
                    multiply_add(k == 0, scores[s][2 * n + 1], held[HELD ? k : 0][s], b[2], b[3]);
                }
            }
        }

        const bool masked = !all_visible(attention, own, 16 * STRIPS, key, KEYS, length);
        float scale = factor;
        if (EXTRAS == 2 && attention.bias) {
            scale = 1.0f;
            const float *near = biases + stage * (ROWS + KEYS) + ROWS - 1 - (own - first) + lane % 4 * 2 - lane / 4;
#pragma unroll
            for (int s = 0; s < STRIPS; s++)
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        scores[s][n][i] = scores[s][n][i] * factor + near[n * 8 + i % 2 - s * 16 - i / 2 * 8];
        }
        if (masked) {
#pragma unroll
            for (int s = 0; s < STRIPS; s++)
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        if (!visible(attention, own + s * 16 + i / 2 * 8 + lane / 4, key + n * 8 + lane % 4 * 2 + i % 2,
                                     length))
                            scores[s][n][i] = -INFINITE;
        }

        // The base moves only where a score is 2^8 above it: a sum of floats has room for that.
        float largest[STRIPS][2];
        bool moves = false;
#pragma unroll
        for (int s = 0; s < STRIPS; s++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float most = fmaxf(scores[s][0][2 * half], scores[s][0][2 * half + 1]);
#pragma unroll
                for (int n = 1; n < KEYS / 8; n++)
                    most = fmaxf(most, fmaxf(scores[s][n][2 * half], scores[s][n][2 * half + 1]));
                most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
                most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2)) * scale;
                largest[s][half] = most;
                moves |= most > base[s][half] + 8.0f;
            }
        if (__any_sync(0xffffffffu, moves)) {
#pragma unroll
            for (int s = 0; s < STRIPS; s++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const float next = fmaxf(base[s][half], largest[s][half]);
                    const float shrink = next == -INFINITE ? 1.0f : power_of_two(base[s][half] - next);
                    base[s][half] = next;
                    sum[s][half] *= shrink;
#pragma unroll
                    for (int n = 0; n < SIZE / 8; n++) out[s][n][2 * half] *= shrink, out[s][n][2 * half + 1] *= shrink;
                }
        }
#pragma unroll
        for (int s = 0; s < STRIPS; s++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const float minus = base[s][half] == -INFINITE ? 0.0f : -base[s][half];
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int i = 2 * half; i < 2 * half + 2; i++) {
                        const float probability = power_of_two(fmaf(scores[s][n][i], scale, minus));
                        sum[s][half] += probability;
                        scores[s][n][i] = probability;
                    }
                if (dropping) {
#pragma unroll
                    for (int n = 0; n < KEYS / 8; n += 2)
#pragma unroll
                        for (int i = 2 * half; i < 2 * half + 2; i++) {
                            const u32 drawn = draws(row_keys[s][half], key + n * 8 + lane % 4 * 2 + i % 2);
                            if (!keep_first(drawn, attention.threshold)) scores[s][n][i] = 0.0f;
                            if (!keep_second(drawn, attention.threshold)) scores[s][n + 1][i] = 0.0f;
                        }
                }
            }

        add_weighted<SIZE, STRIPS, KEYS>(scores, value_tile, by_rows, used, out);
    }
    if (own >= length) return;

#pragma unroll
    for (int s = 0; s < STRIPS; s++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float total = sum[s][half];
            total += __shfl_xor_sync(0xffffffffu, total, 1);
            total += __shfl_xor_sync(0xffffffffu, total, 2);
            const int row = own + s * 16 + half * 8 + (int)lane / 4;
            if (lane % 4 == 0 && row < length)
                log_sum_exp[(size_t)(start + row) * attention.heads + head] = (base[s][half] + log2f(total)) * LN_2;
            const float share = (dropping ? attention.dropout_factor : 1.0f) / total;
#pragma unroll
            for (int n = 0; n < SIZE / 8; n++) out[s][n][2 * half] *= share, out[s][n][2 * half + 1] *= share;
        }
    // The place of the queries, of which each warp has read only its own rows.
    store_rows<SIZE, STRIPS>(memory, warp * 16 * STRIPS, out, 1.0f,
                             output + (size_t)(start + own) * attention.hidden + head * SIZE, attention.hidden,
                             length - own);
}

#define ATTENTION_KERNEL(SIZE, STRIPS, EXTRAS)                                                                         \
    extern "C" __global__ void __launch_bounds__(128, STRIPS == 1 && SIZE < 128 ? 4 : 2)                               \
        attention_##SIZE##_##STRIPS##_##EXTRAS(bf16 *output, float *log_sum_exp, const u32 *offsets,                   \
                                               const uint2 *tiles, ATTENTION_PARAMETERS(bf16)) {                       \
        flash_attention<SIZE, STRIPS, EXTRAS>(ATTENTION(bf16), offsets, tiles, output, log_sum_exp);                   \
    }

#define ATTENTION_KERNELS(SIZE, EXTRAS)                                                                                \
    ATTENTION_KERNEL(SIZE, 1, EXTRAS)                                                                                  \
    ATTENTION_KERNEL(SIZE, 2, EXTRAS)

EACH_KIND(ATTENTION_KERNELS)
