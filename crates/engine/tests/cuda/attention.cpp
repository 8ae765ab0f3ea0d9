// Attention in plain loops beside other plain loops.

#include "emulator.hpp"

#include "../../src/cuda/kernels/common.cuh"

#include "../../src/cuda/kernels/attention.cuh"

#include "../../src/cuda/kernels/attention.cu"

#include "attention.hpp"

template <typename T, typename Forward, typename Queries, typename Keys>
void test(const Case &given, double tolerance, Forward forward, Queries queries, Keys keys) {
    const Batch<T> batch(given);
    const u32 size = given.size, pitch = ((size + 3) / 4 | 1) * 4, groups = given.biased ? 2 : 0;
    const std::vector<uint2> tiles = batch.tiles(16);
    std::vector<T> output = poisoned<T>(batch.output.size()), dqkv = poisoned<T>(batch.dqkv.size());
    std::vector<float> log_sum_exp = poisoned<float>(batch.log_sum_exp.size()), inner = log_sum_exp;
    std::vector<float> parts = poisoned<float>(groups * batch.bias.size()), dbias(batch.bias.size());
    launch(dim3(tiles.size(), given.heads), 128, 192 * pitch, forward, output.data(), log_sum_exp.data(),
           batch.offsets.data(), tiles.data(), batch.qkv.data(), size, batch.hidden, given.heads, batch.ahead,
           batch.behind, batch.biases(), batch.reach, batch.dropout_places(), batch.key, batch.threshold,
           batch.dropout_factor);
    near(output, batch.output, tolerance, batch.name + ": output");
    near(log_sum_exp, batch.log_sum_exp, 1e-5, batch.name + ": log-sum-exp");
    const auto backward = [&](auto kernel, u32 blocks, u32 shared) {
        launch(dim3(blocks, given.heads), 128, shared, kernel, output.data(), batch.dy.data(), log_sum_exp.data(),
               inner.data(), dqkv.data(), given.biased ? parts.data() : nullptr, batch.offsets.data(), tiles.data(),
               (u32)tiles.size(), batch.qkv.data(), size, batch.hidden, given.heads, batch.ahead, batch.behind,
               batch.biases(), batch.reach, batch.dropout_places(), batch.key, batch.threshold, batch.dropout_factor);
    };
    backward(queries, groups ? groups : tiles.size(), 256 * pitch + 2112);
    backward(keys, tiles.size(), 256 * pitch);
    near(dqkv, batch.dqkv, tolerance, batch.name + ": gradient");
    for (size_t i = 0; i < parts.size(); i++) dbias[i % dbias.size()] += parts[i];
    near(dbias, batch.dbias, tolerance, batch.name + ": gradient of the bias");
}

#define TEST_CASE(given, COLUMNS, T, suffix, tolerance)                                                                \
    test<T>(given, tolerance, attention_##COLUMNS##_##suffix, attention_queries_##COLUMNS##_##suffix,                  \
            attention_keys_##COLUMNS##_##suffix)

int main() {
    for (const Case &given : cases(16)) TEST_CASE(given, 1, float, f32, 1e-5);
    for (const Case &given : cases(36)) TEST_CASE(given, 2, bf16, bf16, 1e-2);
    const auto everything = [](u32 size) { return Case{size, 2, {40, 9}, true, 30, true, true}; };
    TEST_CASE(everything(7), 1, float, f32, 1e-5);
    TEST_CASE(everything(64), 2, float, f32, 1e-5);
    TEST_CASE(everything(80), 4, float, f32, 1e-5);
    TEST_CASE(everything(250), 8, float, f32, 1e-5);
    return failures();
}
