// Eight values of a thread, which lie in one piece: as many accesses of 16 bytes as its arrays have.
#pragma once
#include "dev/base.cuh"

constexpr int EIGHT = 8;

/// Whether the eight from `begin` on lie within `n` and every array, whose addresses are or-ed together, at a multiple of
/// 16 bytes.
__device__ __forceinline__ bool together(long long begin, long long n, u64 addresses) {
  return begin + EIGHT <= n && (addresses & 15) == 0;
}
__device__ __forceinline__ void store(float* to, const float (&v)[EIGHT]) {
#pragma unroll
  for (int i = 0; i < EIGHT; i += 4)
    store_vector(to + i, Quad{{__float_as_uint(v[i]), __float_as_uint(v[i + 1]), __float_as_uint(v[i + 2]), __float_as_uint(v[i + 3])}});
}
__device__ __forceinline__ void store(u16* to, const float (&v)[EIGHT]) {
  store_vector(to, Quad{{pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7])}});
}
/// One of eight values of bf16.
__device__ __forceinline__ float half_of(const Quad& q, int i) { return i & 1 ? bf16_high(q.v[i >> 1]) : bf16_low(q.v[i >> 1]); }
