// Philox4x32-10 (Salmon et al., SC 2011): random bits as a function of a counter, the same on host and device.
#pragma once
#include "dev/base.cuh"

__device__ __forceinline__ void philox(u32 (&c)[4], u32 k0, u32 k1) {
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const u32 hi0 = __umulhi(0xD2511F53u, c[0]), lo0 = 0xD2511F53u * c[0];
    const u32 hi1 = __umulhi(0xCD9E8D57u, c[2]), lo1 = 0xCD9E8D57u * c[2];
    c[0] = hi1 ^ c[1] ^ k0;
    c[1] = lo1;
    c[2] = hi0 ^ c[3] ^ k1;
    c[3] = lo0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

/// f rounded to bf16 up or down at random, with the exact value as its mean; `random` gives 16 bits. Values that are
/// not finite are rounded as usual.
__device__ __forceinline__ u16 stochastic_bf16(float f, u32 random) {
  const u32 bits = __float_as_uint(f);
  if ((bits & 0x7f800000u) == 0x7f800000u) return to_bf16(f);
  return (u16)((bits + (random & 0xffffu)) >> 16);
}
