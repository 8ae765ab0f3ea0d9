// The emulator itself: kernels whose results are known.

#include "emulator.hpp"

#include "../../src/cuda/kernels/common.cuh"
#include "../../src/cuda/kernels/tensor_core.cuh"

#include "check.hpp"

__global__ void __launch_bounds__(256) sum_block(const float *x, float *sums, u32 count) {
    __shared__ float parts[8];
    float sum = 0.0f;
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) sum += x[i];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
        sum = warp_sum(threadIdx.x < blockDim.x / 32 ? parts[threadIdx.x] : 0.0f);
        if (threadIdx.x == 0) sums[blockIdx.x] = sum;
    }
}

// Threads beyond the rows leave; the others still have their barriers.
__global__ void reverse(const u32 *x, u32 *y, u32 count) {
    SHARED_MEMORY(u32, memory);
    if (threadIdx.x >= count) return;
    memory[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = memory[count - 1 - threadIdx.x];
}

__global__ void votes(u32 *y) {
    const u32 lane = threadIdx.x % 32, odd = __ballot_sync(0xffffffffu, lane & 1);
    const u32 next = __shfl_down_sync(0xffffffffu, lane, 1), zero = __shfl_sync(0xffffffffu, lane + 7, 0);
    y[threadIdx.x] = odd == 0xaaaaaaaau && next == (lane < 31 ? lane + 1 : 31) && zero == 7;
    if (lane < 16) y[threadIdx.x] += __shfl_xor_sync(0xffffu, lane, 15) == 15 - lane;
    atomicAdd(y + 64, 1u);
}

// c [16, 16] = a [16, 16] b [16, 16]: b once as it lies, once transposed on the way.
__global__ void tile_product(const bf16 *a, const bf16 *b, float *c, bool transposed) {
    SHARED_MEMORY(bf16, memory);
    const u32 lane = threadIdx.x, left = shared_address(memory), right = shared_address(memory + 256);
    for (u32 i = lane; i < 32; i += 32) {
        copy_async(left + i * 16, a + i * 8, true);
        copy_async(right + i * 16, b + i * 8, true);
    }
    copy_async_close();
    copy_async_wait<0>();
    __syncwarp();
    u32 x[4], y[4];
    load_matrices(x, left + lane % 16 * 32 + lane / 16 * 16);
    if (transposed)
        load_matrices_transposed(y, right + lane % 16 * 32 + lane / 16 * 16);
    else
        load_matrices(y, right + (lane % 8 + lane / 16 * 8) * 32 + lane / 8 % 2 * 16);
    for (u32 half = 0; half < 2; half++) {
        float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        multiply_add(sum, x, y[2 * half], y[2 * half + 1]);
        for (u32 i = 0; i < 4; i++)
            c[(lane / 4 + i / 2 * 8) * 16 + half * 8 + lane % 4 * 2 + i % 2] = sum[i];
    }
}

int main() {
    const std::vector<float> x = normal_numbers<float>(10000, 1);
    std::vector<float> sums = poisoned<float>(3);
    launch(3, 256, 0, sum_block, x.data(), sums.data(), (u32)x.size());
    double total = 0.0;
    for (float value : x) total += value;
    check(std::abs(sums[0] + sums[1] + sums[2] - total) < 1e-3, "a sum over blocks");

    std::vector<u32> numbers(100), turned = poisoned<u32>(100), voted(65);
    for (u32 i = 0; i < 100; i++) numbers[i] = i;
    launch(1, 128, 400, reverse, numbers.data(), turned.data(), 100u);
    for (u32 i = 0; i < 100; i++) check(turned[i] == 99 - i, "turned around");
    launch(1, 64, 0, votes, voted.data());
    for (u32 i = 0; i < 64; i++) check(voted[i] == (i % 32 < 16 ? 2 : 1), "votes and shuffles");
    check(voted[64] == 64, "an atomic count");

    const std::vector<bf16> a = normal_numbers<bf16>(256, 2), b = normal_numbers<bf16>(256, 3);
    for (bool transposed : {false, true}) {
        std::vector<float> c = poisoned<float>(256);
        std::vector<double> expected(256);
        launch(1, 32, 1024, tile_product, a.data(), b.data(), c.data(), transposed);
        for (u32 i = 0; i < 256; i++)
            for (u32 k = 0; k < 16; k++)
                expected[i] += number(a[i / 16 * 16 + k]) * number(b[transposed ? k * 16 + i % 16 : i % 16 * 16 + k]);
        near(c, expected, 1e-6, "a product of tiles");
    }
    return failures();
}
