// Accumulators of mma.sync and wgmma give a lane two neighbouring columns of every eight, the four lanes of a row one
// after the other. Stored so, each access is a piece of four or eight bytes; exchanged among the four lanes first, it is
// one of sixteen.
#pragma once
#include "dev/base.cuh"

/// Blocks of eight bf16 columns, of each of which a lane has one pair: afterwards lane q of the four has block q whole.
__device__ __forceinline__ Quad whole_block(u32 a0, u32 a1, u32 a2, u32 a3, int lane) {
  const bool odd = lane & 1, high = lane & 2;
  const u32 x = __shfl_xor_sync(WARP_ALL, odd ? a0 : a1, 1), y = __shfl_xor_sync(WARP_ALL, odd ? a2 : a3, 1);
  // Half of block 0 or 1, then of block 2 or 3.
  const u32 c0 = odd ? x : a0, c1 = odd ? a1 : x, c2 = odd ? y : a2, c3 = odd ? a3 : y;
  const u32 z = __shfl_xor_sync(WARP_ALL, high ? c0 : c2, 2), w = __shfl_xor_sync(WARP_ALL, high ? c1 : c3, 2);
  return Quad{{high ? z : c0, high ? w : c1, high ? c2 : z, high ? c3 : w}};
}

/// Two blocks of eight f32 columns, of each of which a lane has two: afterwards it has four in a row, of the first block in
/// even lanes and of the second in odd ones, from column `half_block(lane)` of the sixteen.
__device__ __forceinline__ Quad whole_half(float x0, float y0, float x1, float y1, int lane) {
  const bool odd = lane & 1;
  const u32 a = __shfl_xor_sync(WARP_ALL, __float_as_uint(odd ? x0 : x1), 1), b = __shfl_xor_sync(WARP_ALL, __float_as_uint(odd ? y0 : y1), 1);
  return Quad{{odd ? a : __float_as_uint(x0), odd ? b : __float_as_uint(y0), odd ? __float_as_uint(x1) : a, odd ? __float_as_uint(y1) : b}};
}
__device__ __forceinline__ int half_block(int lane) { return (lane & 1) * 8 + (lane & 2) * 2; }

/// Stores D / 8 blocks of accumulators of a row, scaled and rounded, 16 bytes at a time. All lanes call it; those not
/// `inside` store nothing. `row` is 16-byte aligned.
template <int D>
__device__ __forceinline__ void store_accumulators(u16* row, bool inside, const float (&d)[D / 2], int h, float scale, int lane) {
#pragma unroll
  for (int j = 0; j < D / 8; j += 4) {
    u32 a[4];
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = pack_bf16(d[(j + i) * 4 + h * 2] * scale, d[(j + i) * 4 + h * 2 + 1] * scale);
    const Quad q = whole_block(a[0], a[1], a[2], a[3], lane);
    if (inside) store_vector(row + j * 8 + (lane & 3) * 8, q);
  }
}
