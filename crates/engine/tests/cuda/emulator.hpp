// Runs CUDA kernels on the processor, for tests without a GPU. Included before a kernel file, it gives a C++17 compiler the
// words that NVRTC knows: qualifiers, `threadIdx`, vector types, mathematics, barriers, warp collectives, atomics of
// integers (there are none of floats on purpose: results must not depend on an order).
//
// The threads of a block are fibers of one thread of the processor. Each runs until it waits at a barrier or a collective;
// then the next one runs, and the direction changes with every barrier, so that a barrier too few is noticed from either
// side. Blocks run one after the other; threads of the processor may launch kernels beside each other. Where no thread can
// go on the program ends with what each waits for. Dynamic shared memory is filled with not-a-number before every block,
// and its bounds are checked under `-fsanitize=address`.
//
//     launch(blocks, threads, shared_bytes, kernel, arguments...);

#pragma once

#define EMULATOR 1

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
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
#define __shared__ static thread_local
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
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

constexpr int warpSize = 32;

namespace emulator {

struct Copy {
    void *to;
    const void *from;
    int bytes, filled;
};

// What a thread of a block waits for.
enum class State { Ready, AtBarrier, AtCollective, Done };

// Stacks begin at multiples of their length. The lowest page says whose a stack is, the next one may not be touched.
constexpr size_t STACK = 256 << 10, PAGE = 4096, USABLE = STACK - 2 * PAGE;

struct Fiber {
    // Its lowest address.
    char *stack = nullptr;
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

    // The lowest address that it may use.
    char *bottom() const { return stack + STACK - USABLE; }
};

// What a thread of the processor that launches kernels keeps for them.
struct Launcher {
    uint3 thread, block;
    dim3 threads_of_block, blocks;
    // Threads of the block, the one that runs, and where the round is.
    unsigned threads, current, place;
    bool backwards = false;
    // The lanes of each warp that are at a collective.
    unsigned met[32] = {};
    unsigned char *shared;
    size_t shared_bytes;
    Fiber scheduler;
    std::vector<Fiber> fibers;
    std::function<void()> body;

    Fiber &self() { return fibers[current]; }
    // The fibers of the warp that runs.
    Fiber *warp() { return &fibers[current / 32 * 32]; }
    unsigned lane() const { return current % 32; }

    ~Launcher() {
        for (const Fiber &fiber : fibers)
            if (fiber.stack) munmap(fiber.stack, STACK);
    }
};

inline Launcher &of_this_thread() {
    static thread_local Launcher launcher;
    return launcher;
}

// That of the fiber which asks: from its stack, because what a library keeps for each thread is dear to look for.
inline Launcher &launcher() { return **(Launcher **)((uintptr_t)__builtin_frame_address(0) / STACK * STACK); }

[[noreturn]] inline void fail(const Launcher &launcher, const char *what) {
    const uint3 block = launcher.block, thread = launcher.thread;
    std::fprintf(stderr, "block (%u, %u, %u) thread (%u, %u, %u): %s\n", block.x, block.y, block.z, thread.x, thread.y, thread.z, what);
    std::fflush(stderr);
    std::_Exit(1);
}

[[noreturn]] inline void fail(const char *what) { fail(launcher(), what); }

#if defined(__x86_64__)
// Leaves for another stack, and comes back where somebody leaves for this one. Inline and by a jump: returns then meet the
// calls that the processor foresees, because the threads of a block mostly wait at the same place.
__attribute__((always_inline)) inline void exchange(void **from, void *to) {
    asm volatile("leaq -128(%%rsp), %%rsp\n leaq 1f(%%rip), %%rax\n pushq %%rax\n pushq %%rbp\n"
                 "movq %%rsp, (%0)\n movq %1, %%rsp\n"
                 "popq %%rbp\n popq %%rax\n jmp *%%rax\n"
                 "1: leaq 128(%%rsp), %%rsp"
                 : "+D"(from), "+S"(to)
                 :
                 : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc", "memory", "xmm0",
                   "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
                   "xmm14", "xmm15");
}
#endif

inline void go([[maybe_unused]] Launcher &launcher, Fiber &from, Fiber &to) {
#if defined(__SANITIZE_ADDRESS__)
    static thread_local const void *main_stack;
    static thread_local size_t main_size;
    if (&to == &launcher.scheduler)
        __sanitizer_start_switch_fiber(&from.shadow, main_stack, main_size);
    else
        __sanitizer_start_switch_fiber(&from.shadow, to.bottom(), USABLE);
#endif
#if defined(__x86_64__)
    exchange(&from.pointer, to.pointer);
#else
    swapcontext(&from.context, &to.context);
#endif
#if defined(__SANITIZE_ADDRESS__)
    if (&from == &launcher.scheduler)
        __sanitizer_finish_switch_fiber(from.shadow, nullptr, nullptr);
    else
        __sanitizer_finish_switch_fiber(from.shadow, &main_stack, &main_size);
#endif
}

// The next thread of this round that can go on, if there is one.
inline Fiber *next(Launcher &launcher) {
    while (++launcher.place < launcher.threads) {
        launcher.current = launcher.backwards ? launcher.threads - 1 - launcher.place : launcher.place;
        Fiber &fiber = launcher.self();
        if (fiber.state != State::Ready) continue;
        launcher.thread = fiber.index;
        return &fiber;
    }
    return nullptr;
}

inline void wait(Launcher &launcher, State state) {
    Fiber &fiber = launcher.self();
    fiber.state = state;
#if defined(__SANITIZE_ADDRESS__)
    go(launcher, fiber, launcher.scheduler);
#else
    Fiber *after = next(launcher);
    go(launcher, fiber, after ? *after : launcher.scheduler);
#endif
}

inline void start() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
    Launcher &own = launcher();
    own.body();
    own.self().open.clear();
    own.self().groups.clear();
    wait(own, State::Done);
    fail("a finished thread runs (bug of the emulator)");
}

inline void prepare(Launcher &launcher, Fiber &fiber) {
    if (!fiber.stack) {
        // Twice as much holds one that begins at a multiple.
        char *memory = (char *)mmap(nullptr, 2 * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) fail(launcher, "no memory for stacks");
        char *stack = (char *)(((uintptr_t)memory + STACK - 1) / STACK * STACK);
        if (stack != memory) munmap(memory, stack - memory);
        munmap(stack + STACK, memory + STACK - stack);
        mprotect(stack + PAGE, PAGE, PROT_NONE);
        *(Launcher **)stack = &launcher;
        fiber.stack = stack;
    }
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(fiber.bottom(), USABLE);
    fiber.shadow = nullptr;
#endif
#if defined(__x86_64__)
    void **top = (void **)(fiber.stack + STACK) - 2;
    *top = (void *)start;
    *--top = nullptr;
    fiber.pointer = top;
#else
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.bottom();
    fiber.context.uc_stack.ss_size = USABLE;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, start, 0);
#endif
    fiber.state = State::Ready;
    fiber.turn = 0;
}

// Lets everybody who waits at the barrier go on, if nobody is still on the way.
inline bool pass_barrier(Launcher &launcher) {
    bool any = false;
    for (unsigned i = 0; i < launcher.threads; i++) {
        const State state = launcher.fibers[i].state;
        if (state == State::Ready || state == State::AtCollective) return false;
        any |= state == State::AtBarrier;
    }
    for (unsigned i = 0; any && i < launcher.threads; i++) {
        State &state = launcher.fibers[i].state;
        if (state == State::AtBarrier) state = State::Ready;
    }
    launcher.backwards = !launcher.backwards;
    return any;
}

[[noreturn]] inline void stuck(const Launcher &launcher) {
    const uint3 block = launcher.block;
    std::fprintf(stderr, "block (%u, %u, %u): no thread can go on\n", block.x, block.y, block.z);
    for (unsigned i = 0; i < launcher.threads; i++) {
        const Fiber &fiber = launcher.fibers[i];
        if (fiber.state == State::AtCollective)
            std::fprintf(stderr, "  thread %u is at %s, mask %08x\n", i, fiber.collective, fiber.mask);
        else
            std::fprintf(stderr, "  thread %u %s\n", i, fiber.state == State::Done ? "is done" : "is at a barrier");
    }
    std::fflush(stderr);
    std::_Exit(1);
}

inline void run_block(Launcher &launcher) {
    const auto first = launcher.fibers.begin(), end = first + launcher.threads;
    for (auto fiber = first; fiber != end; ++fiber) prepare(launcher, *fiber);
    for (;;) {
        launcher.place = -1;
        bool ran = false;
        while (Fiber *fiber = next(launcher)) {
            ran = true;
            go(launcher, launcher.scheduler, *fiber);
        }
        if (ran) continue;
        if (std::all_of(first, end, [](const Fiber &fiber) { return fiber.state == State::Done; })) return;
        if (!pass_barrier(launcher)) stuck(launcher);
    }
}

// Waits until all lanes of the mask are at the same collective.
inline void meet(Launcher &launcher, const char *collective, unsigned mask) {
    Fiber &fiber = launcher.self(), *warp = launcher.warp();
    const unsigned own = 1u << launcher.lane(), first = launcher.current / 32 * 32;
    if (!(mask & own)) fail("a lane is not in the mask of its own collective");
    if (first + 31 - __builtin_clz(mask) >= launcher.threads) fail("a mask names lanes that the block does not have");
    fiber.collective = collective;
    fiber.mask = mask;
    fiber.state = State::AtCollective;
    unsigned &met = launcher.met[first / 32];
    met |= own;
    if ((met & mask) != mask) return wait(launcher, State::AtCollective);
    for (unsigned lane = 0; lane < 32; lane++) {
        if (!(mask >> lane & 1)) continue;
        const Fiber &other = warp[lane];
        const bool same = other.collective == collective || !std::strcmp(other.collective, collective);
        if (other.mask != mask || !same) return wait(launcher, State::AtCollective);
    }
    met &= ~mask;
    for (unsigned lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) warp[lane].state = State::Ready;
}

// Shows the others a value; afterwards `shown<T>(lane)` is what another lane of the warp shows.
template <typename T> void show(const char *collective, unsigned mask, const T &value) {
    static_assert(sizeof(T) <= sizeof(Fiber::shown[0]), "too much to show");
    Launcher &own = launcher();
    Fiber &fiber = own.self();
    std::memcpy(fiber.shown[++fiber.turn % 2], &value, sizeof(T));
    meet(own, collective, mask);
}

template <typename T> T shown(unsigned lane) {
    Launcher &own = launcher();
    T value;
    std::memcpy(&value, own.warp()[lane].shown[own.self().turn % 2], sizeof(T));
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
    Launcher &own = of_this_thread();
    own.blocks = blocks;
    own.threads_of_block = block;
    own.threads = block.x * block.y * block.z;
    if (own.threads == 0 || own.threads > 1024) fail(own, "a block has 1 to 1024 threads");
    if (shared_bytes > 227 << 10) fail(own, "more shared memory than there is");
    own.shared_bytes = shared_bytes;
    if (own.fibers.size() < own.threads) own.fibers.resize(own.threads);
    for (unsigned i = 0; i < own.threads; i++)
        own.fibers[i].index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
    own.body = [=] { kernel(arguments...); };
    for (unsigned z = 0; z < blocks.z; z++)
        for (unsigned y = 0; y < blocks.y; y++)
            for (unsigned x = 0; x < blocks.x; x++) {
                own.block = {x, y, z};
                own.shared = (unsigned char *)std::aligned_alloc(1024, (shared_bytes / 1024 + 1) * 1024);
                std::memset(own.shared, 0xff, shared_bytes);
#if defined(__SANITIZE_ADDRESS__)
                __asan_poison_memory_region(own.shared + shared_bytes, 1024 - shared_bytes % 1024);
#endif
                run_block(own);
#if defined(__SANITIZE_ADDRESS__)
                __asan_unpoison_memory_region(own.shared + shared_bytes, 1024 - shared_bytes % 1024);
#endif
                std::free(own.shared);
            }
}

#define threadIdx (emulator::launcher().thread)
#define blockIdx (emulator::launcher().block)
#define blockDim (emulator::launcher().threads_of_block)
#define gridDim (emulator::launcher().blocks)

// The dynamic shared memory of a block.
#define SHARED_MEMORY(T, name) T *name = (T *)emulator::launcher().shared

inline void __syncthreads() { emulator::wait(emulator::launcher(), emulator::State::AtBarrier); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulator::meet(emulator::launcher(), "__syncwarp", mask); }
inline void __threadfence() {}
inline void __threadfence_block() {}

template <typename T> T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
    const unsigned own = emulator::launcher().lane();
    return emulator::shuffle("__shfl_sync", mask, value, own / width * width + unsigned(lane) % width);
}
template <typename T> T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
    const unsigned own = emulator::launcher().lane(), other = own ^ lanes;
    return emulator::shuffle("__shfl_xor_sync", mask, value, other / width > own / width ? own : other);
}
template <typename T> T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32) {
    const unsigned own = emulator::launcher().lane();
    return emulator::shuffle("__shfl_down_sync", mask, value, own % width + lanes < unsigned(width) ? own + lanes : own);
}
template <typename T> T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32) {
    const unsigned own = emulator::launcher().lane();
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
