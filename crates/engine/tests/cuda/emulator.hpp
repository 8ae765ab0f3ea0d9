// Runs CUDA kernels on the processor, for tests without a GPU. Included before a kernel file, it gives a C++17 compiler the
// words that NVRTC knows: qualifiers, `threadIdx`, vector types, mathematics, barriers, warp collectives, atomics of
// integers (there are none of floats on purpose: results must not depend on an order).
//
// The threads of a block are fibers of one thread of the processor. Each runs until it waits at a barrier or a collective;
// then the next one runs, and the direction changes with every barrier, so that a barrier too few is noticed from either
// side. Blocks run one after the other. Where no thread can go on the program ends with what each waits for. Dynamic
// shared memory is filled with not-a-number before every block, and its bounds are checked under `-fsanitize=address`.
//
//     launch(blocks, threads, shared_bytes, kernel, arguments...);

#pragma once

#define EMULATOR 1

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __noinline__
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define __restrict__ __restrict

// Vector types.
#define VECTORS(T, name, unit)                                                                                         \
    struct alignas(2 * unit) name##2 { T x, y; };                                                                      \
    struct name##3 { T x, y, z; };                                                                                     \
    struct alignas(4 * unit > 16 ? 16 : 4 * unit) name##4 { T x, y, z, w; };                                           \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                                         \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                                 \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
VECTORS(unsigned char, uchar, 1)
VECTORS(short, short, 2)
VECTORS(unsigned short, ushort, 2)
VECTORS(int, int, 4)
VECTORS(unsigned, uint, 4)
VECTORS(long long, longlong, 8)
VECTORS(unsigned long long, ulonglong, 8)
VECTORS(float, float, 4)
VECTORS(double, double, 8)
#undef VECTORS

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace emulator {

[[noreturn]] inline void fail(const char *what) {
    std::fprintf(stderr, "block (%u, %u, %u) thread (%u, %u, %u): %s\n", blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x,
                 threadIdx.y, threadIdx.z, what);
    std::fflush(stderr);
    std::_Exit(1);
}

struct Copy {
    void *to;
    const void *from;
    int bytes, filled;
};

// What a thread of a block waits for.
enum class State { Ready, AtBarrier, AtCollective, Done };

struct Fiber {
    void *stack = nullptr;
    void *pointer = nullptr;
    void *shadow = nullptr;
#if !defined(__x86_64__)
    ucontext_t context;
#endif
    uint3 index;
    State state = State::Done;
    const char *collective = nullptr;
    unsigned mask = 0;
    // What a lane shows the others in a collective; two of them take turns, so that one barrier is enough.
    unsigned long long shown[2][8];
    unsigned turn = 0;
    // Copies under way: those of the open group, then closed groups, the oldest first.
    std::vector<Copy> open;
    std::vector<std::vector<Copy>> groups;
};

constexpr size_t STACK = 256 << 10;

inline std::vector<std::unique_ptr<Fiber>> fibers;
inline unsigned threads, current;
// The lane of each warp for which the others waited last.
inline unsigned awaited[32];
inline bool backwards;
inline Fiber scheduler;
inline std::function<void()> body;
inline unsigned char *shared = nullptr;
inline size_t shared_bytes = 0;

inline Fiber &self() { return *fibers[current]; }

#if defined(__x86_64__)
// Keeps what the calling convention says a call keeps, and goes on with another stack.
__attribute__((naked, noinline, no_sanitize("address", "undefined"))) inline void exchange(void ** /*from*/, void * /*to*/) {
    asm("pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
        "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
        "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");
}
#endif

inline void go(Fiber &from, Fiber &to) {
#if defined(__SANITIZE_ADDRESS__)
    static const void *main_stack;
    static size_t main_size;
    if (&to == &scheduler)
        __sanitizer_start_switch_fiber(&from.shadow, main_stack, main_size);
    else
        __sanitizer_start_switch_fiber(&from.shadow, to.stack, STACK);
#endif
#if defined(__x86_64__)
    exchange(&from.pointer, to.pointer);
#else
    swapcontext(&from.context, &to.context);
#endif
#if defined(__SANITIZE_ADDRESS__)
    if (&from == &scheduler)
        __sanitizer_finish_switch_fiber(from.shadow, nullptr, nullptr);
    else
        __sanitizer_finish_switch_fiber(from.shadow, &main_stack, &main_size);
#endif
}

inline void wait(State state) {
    Fiber &fiber = self();
    fiber.state = state;
    go(fiber, scheduler);
}

inline void start() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
    body();
    self().open.clear();
    self().groups.clear();
    wait(State::Done);
    fail("a finished thread runs (bug of the emulator)");
}

inline void prepare(Fiber &fiber) {
    if (!fiber.stack) {
        void *memory = mmap(nullptr, STACK + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) fail("no memory for stacks");
        mprotect(memory, 4096, PROT_NONE);
        fiber.stack = (char *)memory + 4096;
    }
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(fiber.stack, STACK);
    fiber.shadow = nullptr;
#endif
#if defined(__x86_64__)
    void **top = (void **)((char *)fiber.stack + STACK) - 2;
    *top = (void *)start;
    fiber.pointer = top - 6;
    std::memset(fiber.pointer, 0, 6 * sizeof(void *));
#else
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, start, 0);
#endif
    fiber.state = State::Ready;
    fiber.turn = 0;
}

// Lets everybody who waits at the barrier go on, if nobody is still on the way.
inline bool pass_barrier() {
    bool any = false;
    for (unsigned i = 0; i < threads; i++) {
        if (fibers[i]->state == State::Ready || fibers[i]->state == State::AtCollective) return false;
        any |= fibers[i]->state == State::AtBarrier;
    }
    for (unsigned i = 0; any && i < threads; i++)
        if (fibers[i]->state == State::AtBarrier) fibers[i]->state = State::Ready;
    backwards = !backwards;
    return any;
}

[[noreturn]] inline void stuck() {
    std::fprintf(stderr, "block (%u, %u, %u): no thread can go on\n", blockIdx.x, blockIdx.y, blockIdx.z);
    for (unsigned i = 0; i < threads; i++) {
        const Fiber &fiber = *fibers[i];
        if (fiber.state == State::AtCollective)
            std::fprintf(stderr, "  thread %u is at %s, mask %08x\n", i, fiber.collective, fiber.mask);
        else
            std::fprintf(stderr, "  thread %u %s\n", i, fiber.state == State::Done ? "is done" : "is at a barrier");
    }
    std::fflush(stderr);
    std::_Exit(1);
}

inline void run_block() {
    for (unsigned i = 0; i < threads; i++) prepare(*fibers[i]);
    for (;;) {
        bool ran = false, done = true;
        for (unsigned i = 0; i < threads; i++) {
            current = backwards ? threads - 1 - i : i;
            Fiber &fiber = self();
            done &= fiber.state == State::Done;
            if (fiber.state != State::Ready) continue;
            ran = true;
            threadIdx = fiber.index;
            go(scheduler, fiber);
        }
        if (done) return;
        if (!ran && !pass_barrier()) stuck();
    }
}

// Waits until all lanes of the mask are at the same collective.
inline void meet(const char *collective, unsigned mask) {
    Fiber &fiber = self();
    const unsigned first = current / 32 * 32;
    if (!(mask >> (current - first) & 1)) fail("a lane is not in the mask of its own collective");
    fiber.collective = collective;
    fiber.mask = mask;
    fiber.state = State::AtCollective;
    // From the lane on that was missing last: it often still is.
    unsigned &missing = awaited[first / 32];
    for (unsigned step = 0; step < 32; step++) {
        const unsigned lane = (missing + step) % 32;
        if (!(mask >> lane & 1)) continue;
        if (first + lane >= threads) fail("a mask names lanes that the block does not have");
        const Fiber &other = *fibers[first + lane];
        const bool here = other.collective == collective || (other.collective && !std::strcmp(other.collective, collective));
        if (other.state != State::AtCollective || other.mask != mask || !here) {
            missing = lane;
            return wait(State::AtCollective);
        }
    }
    for (unsigned lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) fibers[first + lane]->state = State::Ready;
}

// Shows the others a value; afterwards `shown<T>(lane)` is what another lane of the warp shows.
template <typename T> void show(const char *collective, unsigned mask, const T &value) {
    static_assert(sizeof(T) <= sizeof(Fiber::shown[0]), "too much to show");
    Fiber &fiber = self();
    std::memcpy(fiber.shown[++fiber.turn % 2], &value, sizeof(T));
    meet(collective, mask);
}

template <typename T> T shown(unsigned lane) {
    T value;
    std::memcpy(&value, fibers[current / 32 * 32 + lane]->shown[self().turn % 2], sizeof(T));
    return value;
}

template <typename T> T shuffle(const char *name, unsigned mask, T value, unsigned lane) {
    show(name, mask, value);
    if (lane > 31 || !(mask >> lane & 1)) fail("a shuffle reads a lane that is not in its mask");
    return shown<T>(lane);
}

} // namespace emulator

// Runs a kernel.
template <typename... Parameters, typename... Arguments>
void launch(dim3 blocks, dim3 block, size_t shared_bytes, void (*kernel)(Parameters...), Arguments... arguments) {
    using namespace emulator;
    gridDim = blocks;
    blockDim = block;
    threads = block.x * block.y * block.z;
    if (threads == 0 || threads > 1024) fail("a block has 1 to 1024 threads");
    if (shared_bytes > 227 << 10) fail("more shared memory than there is");
    while (fibers.size() < threads) fibers.push_back(std::make_unique<Fiber>());
    for (unsigned i = 0; i < threads; i++)
        fibers[i]->index = make_uint3(i % block.x, i / block.x % block.y, i / block.x / block.y);
    body = [=] { kernel(arguments...); };
    for (unsigned z = 0; z < blocks.z; z++)
        for (unsigned y = 0; y < blocks.y; y++)
            for (unsigned x = 0; x < blocks.x; x++) {
                blockIdx = make_uint3(x, y, z);
                shared = (unsigned char *)std::aligned_alloc(1024, (shared_bytes / 1024 + 1) * 1024);
                emulator::shared_bytes = shared_bytes;
                std::memset(shared, 0xff, shared_bytes);
#if defined(__SANITIZE_ADDRESS__)
                __asan_poison_memory_region(shared + shared_bytes, 1024 - shared_bytes % 1024);
#endif
                run_block();
#if defined(__SANITIZE_ADDRESS__)
                __asan_unpoison_memory_region(shared + shared_bytes, 1024 - shared_bytes % 1024);
#endif
                std::free(shared);
            }
}

// The dynamic shared memory of a block.
#define SHARED_MEMORY(T, name) T *name = (T *)emulator::shared

inline void __syncthreads() { emulator::wait(emulator::State::AtBarrier); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulator::meet("__syncwarp", mask); }
inline void __threadfence() {}
inline void __threadfence_block() {}

template <typename T> T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
    const unsigned own = emulator::current % 32;
    return emulator::shuffle("__shfl_sync", mask, value, own / width * width + unsigned(lane) % width);
}
template <typename T> T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
    const unsigned own = emulator::current % 32, other = own ^ lanes;
    return emulator::shuffle("__shfl_xor_sync", mask, value, other / width > own / width ? own : other);
}
template <typename T> T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32) {
    const unsigned own = emulator::current % 32;
    return emulator::shuffle("__shfl_down_sync", mask, value, own % width + lanes < unsigned(width) ? own + lanes : own);
}
template <typename T> T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32) {
    const unsigned own = emulator::current % 32;
    return emulator::shuffle("__shfl_up_sync", mask, value, own % width >= lanes ? own - lanes : own);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
    emulator::show("__ballot_sync", mask, predicate != 0);
    unsigned votes = 0;
    for (unsigned lane = 0; lane < 32; lane++)
        if ((mask >> lane & 1) && emulator::shown<bool>(lane)) votes |= 1u << lane;
    return votes;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }

// Atomics: a fiber is never interrupted.
template <typename T, typename U> T atomicAdd(T *to, U value) {
    static_assert(std::is_integral<T>::value, "no atomics of floats: the order of the sum would be left to chance");
    const T old = *to;
    *to = old + (T)value;
    return old;
}
template <typename T, typename U> T atomicMax(T *to, U value) {
    const T old = *to;
    *to = old > (T)value ? old : (T)value;
    return old;
}
template <typename T, typename U> T atomicMin(T *to, U value) {
    const T old = *to;
    *to = old < (T)value ? old : (T)value;
    return old;
}
template <typename T, typename U> T atomicOr(T *to, U value) {
    const T old = *to;
    *to = old | (T)value;
    return old;
}
template <typename T, typename U> T atomicExch(T *to, U value) {
    const T old = *to;
    *to = (T)value;
    return old;
}
template <typename T, typename U, typename V> T atomicCAS(T *to, U expected, V value) {
    const T old = *to;
    if (old == (T)expected) *to = (T)value;
    return old;
}

// Numbers.
template <typename To, typename From> To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "of one size");
    To to;
    std::memcpy(&to, &from, sizeof(To));
    return to;
}
inline float __uint_as_float(unsigned x) { return bits_as<float>(x); }
inline float __int_as_float(int x) { return bits_as<float>(x); }
inline unsigned __float_as_uint(float x) { return bits_as<unsigned>(x); }
inline int __float_as_int(float x) { return bits_as<int>(x); }
inline double __longlong_as_double(long long x) { return bits_as<double>(x); }
inline long long __double_as_longlong(double x) { return bits_as<long long>(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz((unsigned)x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned x, unsigned y) { return unsigned((unsigned long long)x * y >> 32); }
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return (unsigned long long)((unsigned __int128)x * y >> 64);
}
template <typename T> T __ldg(const T *from) { return *from; }
template <typename T> T __ldcs(const T *from) { return *from; }
template <typename T> void __stcs(T *to, T value) { *to = value; }
inline void __trap() { emulator::fail("trapped"); }
using std::isinf;
using std::isnan;
using std::isfinite;

// CUDA has these for all arithmetic types, mixed ones too.
template <typename T, typename U> typename std::common_type<T, U>::type min(T x, U y) {
    using Both = typename std::common_type<T, U>::type;
    return (Both)x < (Both)y ? (Both)x : (Both)y;
}
template <typename T, typename U> typename std::common_type<T, U>::type max(T x, U y) {
    using Both = typename std::common_type<T, U>::type;
    return (Both)x > (Both)y ? (Both)x : (Both)y;
}

#include "tensor_core.hpp"
