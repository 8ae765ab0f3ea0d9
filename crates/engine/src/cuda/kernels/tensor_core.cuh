// Instructions of compute capability 8.0 for matrices of bf16 in the registers of a warp. The emulator has twins of
// them in `tests/cuda/tensor_core.hpp`.
//
// Lane l of a warp holds of an 8 x 8 matrix the elements (l / 4, 2 (l % 4)) and the one right of it, in one register.
// An operand A, 16 x 16, is four of them: top left, bottom left, top right, bottom right; B, 16 x 8, is two whose
// columns lie as rows do in A; the sum, 16 x 8, has rows l / 4 and l / 4 + 8 of columns 2 (l % 4) and the next, in
// float.

#ifndef EMULATOR

__device__ __forceinline__ u32 shared_address(const void *pointer) { return (u32)__cvta_generic_to_shared(pointer); }

// Starts the copy of 16 bytes to shared memory; zeros where not `filled`, and nothing is read.
__device__ __forceinline__ void copy_async(u32 to, const void *from, bool filled) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(filled ? 16 : 0) : "memory");
}

// The same for 4 bytes.
__device__ __forceinline__ void copy_word_async(u32 to, const void *from, bool filled) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(filled ? 4 : 0) : "memory");
}

// Ends a group of copies.
__device__ __forceinline__ void copy_async_close() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until all groups but the latest `LEFT` have arrived.
template <int LEFT> __device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

// Four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrices(u32 (&matrices)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
                 : "r"(address)
                 : "memory");
}

// The same, each transposed.
__device__ __forceinline__ void load_matrices_transposed(u32 (&matrices)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
                 : "r"(address)
                 : "memory");
}

// sum += a b
__device__ __forceinline__ void multiply_add(float (&sum)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// sum = a b
__device__ __forceinline__ void multiply(float (&sum)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%10, %10, %10, %10};"
        : "=f"(sum[0]), "=f"(sum[1]), "=f"(sum[2]), "=f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0f));
}

// Adds the product to the sum, or begins it.
__device__ __forceinline__ void multiply_add(bool begin, float (&sum)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    if (begin)
        multiply(sum, a, b0, b1);
    else
        multiply_add(sum, a, b0, b1);
}

// 2^x to 22 bits; 0 for minus infinity.
__device__ __forceinline__ float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif
