// What every kernel file begins with. NVRTC compiles it without any header; a C++ compiler does, too, after
// `tests/cuda/emulator.hpp`, which runs the kernels on the processor.
//
// Matrices are dense and row-major. A kernel that reads or writes activations is a template over their type, `float` or
// `bf16`, and is named `name_f32` or `name_bf16`; it computes in `float`. Parameters, statistics and gradients of
// parameters are `float`.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

// The dynamic shared memory of a block as an array; the emulator has its own.
#ifndef EMULATOR
#define SHARED_MEMORY(T, name)                                                                                         \
    extern __shared__ uint4 dynamic_memory[];                                                                          \
    T *name = (T *)dynamic_memory
#endif

// The upper half of a float.
struct bf16 {
    u16 bits;
};

__device__ __forceinline__ float number(float x) { return x; }

__device__ __forceinline__ float number(bf16 x) { return __uint_as_float((u32)x.bits << 16); }

// To the nearest, ties to even; not-a-number stays one.
__device__ __forceinline__ u16 bf16_bits(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    u16 short_bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(short_bits) : "f"(x));
    return short_bits;
#else
    u32 bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (u16)((bits >> 16) | 0x40u);
    return (u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
#endif
}

// Two numbers as bf16, the first in the lower half.
__device__ __forceinline__ u32 pair(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    u32 both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
#else
    return bf16_bits(low) | (u32)bf16_bits(high) << 16;
#endif
}

__device__ __forceinline__ void put(float *to, float x) { *to = x; }

__device__ __forceinline__ void put(bf16 *to, float x) { to->bits = bf16_bits(x); }

// Four consecutive numbers at once; `from` and `to` are aligned to them.
__device__ __forceinline__ float4 numbers(const float *from) { return *(const float4 *)from; }

__device__ __forceinline__ float4 numbers(const bf16 *from) {
    const uint2 x = *(const uint2 *)from;
    return make_float4(__uint_as_float(x.x << 16), __uint_as_float(x.x & 0xffff0000u), __uint_as_float(x.y << 16),
                       __uint_as_float(x.y & 0xffff0000u));
}

__device__ __forceinline__ void put_numbers(float *to, float4 x) { *(float4 *)to = x; }

__device__ __forceinline__ void put_numbers(bf16 *to, float4 x) {
    *(uint2 *)to = make_uint2(pair(x.x, x.y), pair(x.z, x.w));
}

// Eight consecutive numbers at once; `from` and `to` are aligned to 16 bytes.
struct Eight {
    float of[8];
};

__device__ __forceinline__ Eight eight(const float *from) {
    const float4 a = numbers(from), b = numbers(from + 4);
    return Eight{{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

__device__ __forceinline__ Eight eight(const bf16 *from) {
    const uint4 x = *(const uint4 *)from;
    return Eight{{__uint_as_float(x.x << 16), __uint_as_float(x.x & 0xffff0000u), __uint_as_float(x.y << 16),
                  __uint_as_float(x.y & 0xffff0000u), __uint_as_float(x.z << 16), __uint_as_float(x.z & 0xffff0000u),
                  __uint_as_float(x.w << 16), __uint_as_float(x.w & 0xffff0000u)}};
}

__device__ __forceinline__ void put_eight(float *to, const Eight &x) {
    put_numbers(to, make_float4(x.of[0], x.of[1], x.of[2], x.of[3]));
    put_numbers(to + 4, make_float4(x.of[4], x.of[5], x.of[6], x.of[7]));
}

__device__ __forceinline__ void put_eight(bf16 *to, const Eight &x) {
    *(uint4 *)to = make_uint4(pair(x.of[0], x.of[1]), pair(x.of[2], x.of[3]), pair(x.of[4], x.of[5]),
                              pair(x.of[6], x.of[7]));
}

// The counter-based random numbers of `random.rs`, bit for bit.
__device__ __forceinline__ u64 mix(u64 x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

// The stream of one part of another.
__device__ __forceinline__ u64 key_part(u64 key, u64 index) { return mix(key ^ mix(index + 0x9e3779b97f4a7c15ull)); }

// The stream of a row of a packed matrix: `row` is its example and its position.
__device__ __forceinline__ u64 row_key(u64 key, uint2 row) { return key_part(key_part(key, row.x), row.y); }

// Random bits of the elements `counter` and `counter + 8` of a row, where `counter` has no bit of 8.
__device__ __forceinline__ u32 draws(u64 key, u32 counter) {
    u32 x = (counter + (u32)key) * 0x7feb352du;
    x = (x ^ (x >> 15) ^ (u32)(key >> 32)) * 0x846ca68bu;
    return x ^ (x >> 16);
}

// Whether the first and the second of the two survive dropout.
__device__ __forceinline__ bool keep_first(u32 drawn, u32 threshold) { return drawn << 16 >= threshold; }
__device__ __forceinline__ bool keep_second(u32 drawn, u32 threshold) { return drawn >= threshold; }

// Whether element `counter` of a row does.
__device__ __forceinline__ bool keep(u64 key, u32 counter, u32 threshold) {
    return draws(key, counter & ~8u) << (counter & 8u ? 0 : 16) >= threshold;
}

// The sum and the largest over the lanes of a warp, in every lane.
__device__ __forceinline__ float warp_sum(float x) {
    for (int lane = 16; lane > 0; lane >>= 1) x += __shfl_xor_sync(0xffffffffu, x, lane);
    return x;
}

__device__ __forceinline__ double warp_sum(double x) {
    for (int lane = 16; lane > 0; lane >>= 1) x += __shfl_xor_sync(0xffffffffu, x, lane);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
    for (int lane = 16; lane > 0; lane >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, lane));
    return x;
}
