// What the tests of kernels share; included after the kernels. A test ends with `return failures();`.

#pragma once

#include <string>

inline int failed = 0, checked = 0;

inline bool check(bool right, const std::string &what) {
    checked++;
    if (!right) {
        failed++;
        std::printf("wrong: %s\n", what.c_str());
    }
    return right;
}

inline int failures() {
    std::printf("%d of %d checks failed\n", failed, checked);
    return failed != 0;
}

// Numbers in [-1, 1), the same in every run.
struct Random {
    u64 state;
    explicit Random(u64 seed) : state(mix(seed)) {}
    double next() {
        state = mix(state + 0x9e3779b97f4a7c15ull);
        return (double)(state >> 11) / (double)(1ull << 52) - 1.0;
    }
    // About a normal number.
    double normal() { return (next() + next() + next() + next() + next() + next()) / std::sqrt(2.0); }
    u32 below(u32 count) { return (u32)((next() + 1.0) / 2.0 * count); }
};

inline bf16 to_bf16(double x) { return bf16{bf16_bits((float)x)}; }
inline void from_number(float &to, double x) { to = (float)x; }
inline void from_number(bf16 &to, double x) { to = to_bf16(x); }

template <typename T> std::vector<T> normal_numbers(size_t count, u64 seed, double factor = 1.0) {
    Random random(seed);
    std::vector<T> numbers(count);
    for (T &x : numbers) from_number(x, factor * random.normal());
    return numbers;
}

// An output that a kernel has to write all of.
template <typename T> std::vector<T> poisoned(size_t count) {
    std::vector<T> numbers(count);
    if (count > 0) std::memset((void *)numbers.data(), 0xff, count * sizeof(T));
    return numbers;
}

// The norm of the difference relative to the norm of what was expected is at most the tolerance.
template <typename T>
bool near(const std::vector<T> &got, const std::vector<double> &expected, double tolerance, const std::string &what) {
    if (!check(got.size() == expected.size(), what + ": another length")) return false;
    double difference = 0.0, norm = 0.0;
    for (size_t i = 0; i < got.size(); i++) {
        const double d = (double)number(got[i]) - expected[i];
        difference += d * d;
        norm += expected[i] * expected[i];
    }
    difference = std::sqrt(difference), norm = std::sqrt(norm);
    return check(difference <= tolerance * norm + 1e-12,
                 what + ": off by " + std::to_string(difference) + " of " + std::to_string(norm));
}
