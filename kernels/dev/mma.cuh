// Tensor-core fragments of Ampere and later: ldmatrix and mma.m16n8k16 of bf16 with f32 accumulators.
#pragma once
#include "dev/base.cuh"

#ifdef MIDC_HOST

inline void ldmatrix_x4(u32 (&r)[4], const void* p, bool transposed, host::Site s) {
  if ((uintptr_t)p & 15) host::fail(s, "ldmatrix: the address of a row is not 16-byte aligned");
  const u32* q = (const u32*)p;
  u32 row[4] = {q[0], q[1], q[2], q[3]};
  host::ldmatrix(r, row, transposed, s);
}
/// Four 8×8 matrices; lane 8·j + i gives the address of row i of matrix j.
inline void ldmatrix(u32 (&r)[4], const void* p, host::Site s = MIDC_HERE) { ldmatrix_x4(r, p, false, s); }
/// The same, each matrix transposed.
inline void ldmatrix_trans(u32 (&r)[4], const void* p, host::Site s = MIDC_HERE) { ldmatrix_x4(r, p, true, s); }
/// c += a · b for a 16×8 tile and depth 16.
inline void mma_16816(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, host::Site s = MIDC_HERE) {
  host::mma_16x8x16(c, a, b0, b1, s);
}

#else

__device__ __forceinline__ void ldmatrix(u32 (&r)[4], const void* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(p))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_trans(u32 (&r)[4], const void* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(p))
               : "memory");
}
__device__ __forceinline__ void mma_16816(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif

/// The 16×16 bf16 tile of an A operand stored [m][k] in shared memory: `row(r)` is lane-dependent, so callers give
/// the address of the 8 elements at row `lane % 16`, column `8 · (lane / 16)`.
/// Registers: rows 0–7 k 0–7, rows 8–15 k 0–7, rows 0–7 k 8–15, rows 8–15 k 8–15.
__device__ __forceinline__ int fragment_row(int lane) { return lane & 15; }
__device__ __forceinline__ int fragment_col(int lane) { return (lane >> 4) * 8; }
/// For operands stored the other way round: the first two matrices differ in the column, the last two in the row.
__device__ __forceinline__ int fragment_row_swapped(int lane) { return (lane & 7) + (lane >> 4) * 8; }
__device__ __forceinline__ int fragment_col_swapped(int lane) { return (lane >> 3 & 1) * 8; }
