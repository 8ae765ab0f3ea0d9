// The twin of `src/cuda/kernels/tensor_core.cuh` for the processor: products of small matrices by the lanes of a warp,
// and copies into shared memory that arrive only when they are waited for. An address is a place in dynamic shared
// memory.

#pragma once

struct Lane {
    unsigned a[4], b[2];
};

inline unsigned shared_address(const void *pointer) {
    const emulator::Launcher &own = emulator::launcher();
    const unsigned char *place = (const unsigned char *)pointer;
    if (place < own.shared || place > own.shared + own.shared_bytes) emulator::fail("not an address of shared memory");
    return unsigned(place - own.shared);
}

inline unsigned char *shared_place(unsigned address, unsigned bytes) {
    const emulator::Launcher &own = emulator::launcher();
    if (address % bytes != 0) emulator::fail("a misaligned address of shared memory");
    if (address + bytes > own.shared_bytes) emulator::fail("an address beyond shared memory");
    return own.shared + address;
}

inline void copy_bytes_async(unsigned to, const void *from, int bytes, bool filled) {
    if ((uintptr_t)from % bytes != 0) emulator::fail("a misaligned copy");
    emulator::launcher().self().open.push_back({shared_place(to, bytes), from, bytes, filled});
}

inline void copy_async(unsigned to, const void *from, bool filled) { copy_bytes_async(to, from, 16, filled); }

inline void copy_word_async(unsigned to, const void *from, bool filled) { copy_bytes_async(to, from, 4, filled); }

inline void copy_async_close() {
    emulator::Fiber &fiber = emulator::launcher().self();
    fiber.groups.push_back(std::move(fiber.open));
    fiber.open.clear();
}

template <int LEFT> void copy_async_wait() {
    auto &groups = emulator::launcher().self().groups;
    while (groups.size() > LEFT) {
        for (const emulator::Copy &copy : groups.front()) {
            if (copy.filled)
                std::memcpy(copy.to, copy.from, copy.bytes);
            else
                std::memset(copy.to, 0, copy.bytes);
        }
        groups.erase(groups.begin());
    }
}

inline void load_matrices(unsigned (&matrices)[4], unsigned address) {
    shared_place(address, 16);
    emulator::show("ldmatrix", 0xffffffffu, address);
    const unsigned lane = emulator::launcher().lane();
    for (unsigned i = 0; i < 4; i++) {
        const unsigned char *row = emulator::launcher().shared + emulator::shown<unsigned>(8 * i + lane / 4);
        std::memcpy(&matrices[i], row + lane % 4 * 4, 4);
    }
}

inline void load_matrices_transposed(unsigned (&matrices)[4], unsigned address) {
    shared_place(address, 16);
    emulator::show("ldmatrix.trans", 0xffffffffu, address);
    const unsigned lane = emulator::launcher().lane();
    for (unsigned i = 0; i < 4; i++) {
        unsigned short pair[2];
        for (unsigned half = 0; half < 2; half++) {
            const unsigned char *row = emulator::launcher().shared + emulator::shown<unsigned>(8 * i + lane % 4 * 2 + half);
            std::memcpy(&pair[half], row + lane / 4 * 2, 2);
        }
        matrices[i] = pair[0] | unsigned(pair[1]) << 16;
    }
}

inline void multiply_add(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    emulator::show("mma", 0xffffffffu, Lane{{a[0], a[1], a[2], a[3]}, {b0, b1}});
    emulator::Launcher &own = emulator::launcher();
    const unsigned lane = own.lane(), turn = own.self().turn % 2;
    const emulator::Fiber *warp = own.warp();
    const auto half = [](unsigned pair, unsigned i) {
        return __uint_as_float(i % 2 ? pair & 0xffff0000u : pair << 16);
    };
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        float total = 0.0f;
        for (unsigned k = 0; k < 16; k++) {
            const Lane &left = *(const Lane *)warp[row % 8 * 4 + k % 8 / 2].shown[turn];
            const Lane &right = *(const Lane *)warp[column * 4 + k % 8 / 2].shown[turn];
            total += half(left.a[row / 8 + k / 8 * 2], k) * half(right.b[k / 8], k);
        }
        sum[i] += total;
    }
}

inline void multiply_add(bool begin, float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    if (begin) sum[0] = sum[1] = sum[2] = sum[3] = 0.0f;
    multiply_add(sum, a, b0, b1);
}

inline float power_of_two(float x) { return std::exp2(x); }
