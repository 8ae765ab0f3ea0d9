// Attention in tiles of bf16 beside plain loops.

#include "emulator.hpp"

#include "../../src/cuda/kernels/common.cuh"
#include "../../src/cuda/kernels/tensor_core.cuh"

#include "../../src/cuda/kernels/flash_attention.cuh"

#include "../../src/cuda/kernels/flash_attention.cu"

#include "attention.hpp"

template <typename Kernel> void forward(const Batch<bf16> &batch, u32 strips, u32 extras, Kernel kernel) {
    const u32 size = batch.given.size, rows = 64 * strips;
    const std::vector<uint2> tiles = batch.tiles(rows);
    std::vector<bf16> output = poisoned<bf16>(batch.output.size());
    std::vector<float> log_sum_exp = poisoned<float>(batch.log_sum_exp.size());
    const u32 shared = 2 * size * (rows + 256) + (extras == 2 ? 8 * (rows + 64) : 0);
    launch(dim3(tiles.size(), batch.given.heads), 128, shared, kernel, output.data(), log_sum_exp.data(),
           batch.offsets.data(), tiles.data(), batch.qkv.data(), batch.hidden, batch.given.heads, batch.ahead,
           batch.behind, batch.biases(), batch.reach, batch.dropout_places(), batch.key, batch.threshold,
           batch.dropout_factor);
    const std::string name = batch.name + ", strips " + std::to_string(strips) + ", extras " + std::to_string(extras);
    near(output, batch.output, 4e-3, name + ": output");
    near(log_sum_exp, batch.log_sum_exp, 1e-4, name + ": log-sum-exp");
}

#define FORWARD(SIZE, EXTRAS)                                                                                          \
    forward(batch, 1, EXTRAS, attention_##SIZE##_1_##EXTRAS);                                                          \
    forward(batch, 2, EXTRAS, attention_##SIZE##_2_##EXTRAS)

#define TEST(SIZE)                                                                                                     \
    for (const Case &given : cases(SIZE)) {                                                                            \
        const Batch<bf16> batch(given);                                                                                \
        if (!given.biased && !given.dropped) { FORWARD(SIZE, 0); }                                                     \
        if (!given.biased && given.dropped) { FORWARD(SIZE, 1); }                                                      \
        FORWARD(SIZE, 2);                                                                                              \
    }

int main() {
    TEST(32)
    TEST(64)
    TEST(128)
    return failures();
}
