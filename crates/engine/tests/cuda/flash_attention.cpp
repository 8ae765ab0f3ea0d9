// Attention in tiles of bf16 beside plain loops.

#include "emulator.hpp"

#include "../../src/cuda/kernels/common.cuh"
#include "../../src/cuda/kernels/attention.cuh"
#include "../../src/cuda/kernels/tensor_core.cuh"

#include "../../src/cuda/kernels/flash_attention.cuh"

#include "../../src/cuda/kernels/flash_attention.cu"

#include "../../src/cuda/kernels/flash_attention_queries.cu"

#include "../../src/cuda/kernels/flash_attention_keys.cu"

#include "attention.hpp"

template <typename Kernel> void forward(const Batch<bf16> &batch, u32 strips, u32 extras, Kernel kernel) {
    const u32 size = batch.given.size, rows = 64 * strips;
    const std::vector<uint2> tiles = batch.tiles(rows);
    std::vector<bf16> output = poisoned<bf16>(batch.output.size());
    std::vector<float> log_sum_exp = poisoned<float>(batch.log_sum_exp.size());
    const u32 shared = 2 * size * (rows + 256) + (extras == 2 ? 8 * (rows + 64) : 0);
    launch(dim3(tiles.size(), batch.given.heads), 128, shared, kernel, output.data(), log_sum_exp.data(),
           batch.offsets.data(), tiles.data(), batch.qkv.data(), batch.given.size, batch.hidden, batch.given.heads,
           batch.ahead, batch.behind, batch.biases(), batch.reach, batch.dropout_places(), batch.key, batch.threshold,
           batch.dropout_factor);
    const std::string name = batch.name + ", strips " + std::to_string(strips) + ", extras " + std::to_string(extras);
    near(output, batch.output, 4e-3, name + ": output");
    near(log_sum_exp, batch.log_sum_exp, 1e-4, name + ": log-sum-exp");
}

// What the backward kernels write.
struct Gradients {
    std::vector<bf16> output, dqkv;
    std::vector<float> log_sum_exp, inner, parts;
    const Batch<bf16> &batch;

    explicit Gradients(const Batch<bf16> &batch)
        : dqkv(poisoned<bf16>(batch.dqkv.size())), inner(poisoned<float>(batch.log_sum_exp.size())), batch(batch) {
        for (double x : batch.output) output.push_back(to_bf16(x));
        for (double x : batch.log_sum_exp) log_sum_exp.push_back((float)x);
    }

    template <typename Kernel>
    void run(Kernel kernel, u32 groups, const std::vector<uint2> &tiles, u32 threads, u32 shared) {
        if (tiles.empty()) return;
        launch(dim3(groups ? groups : tiles.size(), batch.given.heads), threads, shared, kernel, output.data(),
               batch.dy.data(), log_sum_exp.data(), inner.data(), dqkv.data(), parts.data(), batch.offsets.data(),
               tiles.data(), (u32)tiles.size(), batch.qkv.data(), batch.given.size, batch.hidden, batch.given.heads,
               batch.ahead, batch.behind, batch.biases(), batch.reach, batch.dropout_places(), batch.key,
               batch.threshold, batch.dropout_factor);
    }

    void compare(const std::string &how) {
        // Gradients of queries, keys and values apart.
        for (u32 part = 0; part < 3; part++) {
            std::vector<bf16> got;
            std::vector<double> expected;
            for (size_t i = 0; i < dqkv.size(); i++)
                if (i / batch.hidden % 3 == part) got.push_back(dqkv[i]), expected.push_back(batch.dqkv[i]);
            near(got, expected, 1e-2, batch.name + ", " + how + ": gradient " + std::to_string(part));
        }
        if (parts.empty()) return;
        std::vector<float> dbias(batch.dbias.size());
        for (size_t i = 0; i < parts.size(); i++) dbias[i % dbias.size()] += parts[i];
        near(dbias, batch.dbias, 1e-2, batch.name + ": gradient of the bias");
    }
};

template <typename Kernel>
void backward(const Batch<bf16> &batch, u32 extras, u32 query_rows, Kernel queries, u32 key_rows, Kernel keys) {
    Gradients gradients(batch);
    const u32 size = batch.given.size, groups = extras == 2 ? 2 : 0;
    if (extras == 2) gradients.parts = poisoned<float>(groups * batch.bias.size());
    gradients.run(queries, groups, batch.tiles(query_rows), 128,
                  4 * size * (query_rows + 128) + (extras == 2 ? 4 * (query_rows + 64) + 4 * 33 * query_rows : 0));
    gradients.run(keys, 0, batch.tiles(key_rows), 128,
                  4 * size * (key_rows + 128) + 2048 + (extras == 2 ? 8 * (key_rows + 64) : 0));
    gradients.compare("in tiles");
}

// Sequences of up to 64 rows and up to 128 rows by themselves, longer ones in tiles.
template <typename Kernel> void short_backward(const Batch<bf16> &batch, Kernel kernel64, Kernel kernel128,
                                               u32 query_rows, Kernel queries, u32 key_rows, Kernel keys) {
    Gradients gradients(batch);
    const u32 size = batch.given.size;
    gradients.run(kernel64, 0, batch.tiles(64, 1, 64), 128, 64 * (8 * size + 2 * 64 + 16));
    gradients.run(kernel128, 0, batch.tiles(128, 65, 128), 256, 128 * (8 * size + 2 * 128 + 16));
    gradients.run(queries, 0, batch.tiles(query_rows, 129), 128, 4 * size * (query_rows + 128));
    gradients.run(keys, 0, batch.tiles(key_rows, 129), 128, 4 * size * (key_rows + 128) + 2048);
    gradients.compare("short");
}

#define BACKWARD(SIZE, EXTRAS)                                                                                         \
    backward(batch, EXTRAS, SIZE == 128 ? 64 : 128, attention_queries_##SIZE##_##EXTRAS, SIZE == 128 ? 64 : 128,       \
             attention_keys_##SIZE##_##EXTRAS)
#define SHORT(SIZE, EXTRAS)                                                                                            \
    short_backward(batch, attention_short_##SIZE##_64_##EXTRAS, attention_short_##SIZE##_128_##EXTRAS,                 \
                   SIZE == 128 ? 64 : 128, attention_queries_##SIZE##_##EXTRAS, SIZE == 128 ? 64 : 128,                \
                   attention_keys_##SIZE##_##EXTRAS)

#define FORWARD(SIZE, EXTRAS)                                                                                          \
    forward(batch, 1, EXTRAS, attention_##SIZE##_1_##EXTRAS);                                                          \
    forward(batch, 2, EXTRAS, attention_##SIZE##_2_##EXTRAS)

#define TEST(SIZE)                                                                                                     \
    for (const Case &given : cases(SIZE)) {                                                                            \
        const Batch<bf16> batch(given);                                                                                \
        if (!given.biased && !given.dropped) {                                                                         \
            FORWARD(SIZE, 0);                                                                                          \
            BACKWARD(SIZE, 0);                                                                                         \
            SHORT(SIZE, 0);                                                                                            \
        }                                                                                                              \
        if (!given.biased && given.dropped) {                                                                          \
            FORWARD(SIZE, 1);                                                                                          \
            BACKWARD(SIZE, 1);                                                                                         \
            SHORT(SIZE, 1);                                                                                            \
        }                                                                                                              \
        FORWARD(SIZE, 2);                                                                                              \
        if (given.biased) BACKWARD(SIZE, 2);                                                                           \
    }

int main() {
    TEST(32)
    TEST(64)
    TEST(128)
    return failures();
}
