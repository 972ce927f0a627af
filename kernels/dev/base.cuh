// Types, intrinsics and conversions that every kernel uses. No CUDA header is needed, so the run-time compiler
// needs no include directory; with MIDC_HOST the same source is C++ for the host model.
#pragma once

#ifdef MIDC_HOST

#include "host/model.h"

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
#define threadIdx (::host::thread_index())
#define blockIdx (::host::block_index())
#define blockDim (::host::block_size())
#define gridDim (::host::grid_size())

/// The dynamic shared memory of the block, 1024-byte aligned.
#define DYNAMIC_SHARED(name) u8* name = ::host::dynamic_shared()
/// An array in static shared memory, of each place in the source its own.
#define STATIC_SHARED(type, name, n)                                                          \
  static const char name##_key = 0;                                                           \
  type* name = (type*)::host::static_shared(&name##_key, sizeof(type) * (n), MIDC_HERE)

inline void __syncthreads(host::Site s = MIDC_HERE) {
  const host::Dim3& b = host::block_size();
  host::barrier(0, (int)(b.x * b.y * b.z), s);
}
inline void __syncwarp(u32 mask = 0xffffffffu, host::Site s = MIDC_HERE) { host::sync_warp(mask, s); }
inline u32 __shfl_xor_sync(u32 m, u32 v, int o, host::Site s = MIDC_HERE) {
  return host::shuffle(v, ((int)host::thread_index().x & 31) ^ o, m, s);
}
inline float __shfl_xor_sync(u32 m, float v, int o, host::Site s = MIDC_HERE) {
  return host::as_float(host::shuffle(host::as_bits(v), ((int)host::thread_index().x & 31) ^ o, m, s));
}
inline u32 __shfl_sync(u32 m, u32 v, int l, host::Site s = MIDC_HERE) { return host::shuffle(v, l, m, s); }
inline float __int_as_float(int i) { return host::as_float((u32)i); }
inline float __uint_as_float(u32 i) { return host::as_float(i); }
inline u32 __float_as_uint(float f) { return host::as_bits(f); }
inline u32 __umulhi(u32 a, u32 b) { return (u32)((u64)a * b >> 32); }
inline void anew(int&) {}
inline void anew(u32&) {}
inline void anew(u64&) {}
inline float fma_rn(float a, float b, float c) { return fmaf(a, b, c); }

/// `ex2.approx`: 2 to the x.
inline float exp2_fast(float x) { return exp2f(x); }
/// `lg2.approx`.
inline float log2_fast(float x) { return log2f(x); }
/// `rsqrt.approx`.
inline float rsqrt_fast(float x) { return 1.0f / sqrtf(x); }
/// `rcp.approx`.
inline float reciprocal_fast(float x) { return 1.0f / x; }
/// Two floats, rounded to bf16, the first in the low half.
inline u32 pack_bf16(float lo, float hi) { return host::to_bf16(lo) | (u32)host::to_bf16(hi) << 16; }
inline u32 shared_address(const void* p) { return (u32)(uintptr_t)p; }

#else  // the device

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) u8 name[]
#define STATIC_SHARED(type, name, n) __shared__ type name[n]

/// Keeps the compiler from computing ahead, and keeping in registers, what follows from `x`.
__device__ __forceinline__ void anew(int& x) { asm volatile("" : "+r"(x)); }
__device__ __forceinline__ void anew(u32& x) { asm volatile("" : "+r"(x)); }
__device__ __forceinline__ void anew(u64& x) { asm volatile("" : "+l"(x)); }

__device__ __forceinline__ float fma_rn(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ __forceinline__ float exp2_fast(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
__device__ __forceinline__ float log2_fast(float x) {
  float r;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
__device__ __forceinline__ float rsqrt_fast(float x) {
  float r;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
__device__ __forceinline__ float reciprocal_fast(float x) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
__device__ __forceinline__ u32 pack_bf16(float lo, float hi) {
  u32 r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}
__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

#endif

/// `KERNEL(name, threads, blocks)(parameters) { … }`: blocks of at most `threads`, registers for `blocks` of them
/// on a multiprocessor.
#define KERNEL(name, threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks) name

#define WARP_ALL 0xffffffffu

__device__ __forceinline__ float from_bf16(u16 h) { return __uint_as_float((u32)h << 16); }
__device__ __forceinline__ float bf16_low(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float bf16_high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }
__device__ __forceinline__ u16 to_bf16(float f) { return (u16)(pack_bf16(f, 0.0f) & 0xffffu); }
__device__ __forceinline__ float minus_infinity() { return __int_as_float((int)0xff800000); }

__device__ __forceinline__ int min_of(int a, int b) { return a < b ? a : b; }
__device__ __forceinline__ int max_of(int a, int b) { return a > b ? a : b; }

/// Sixteen bytes, moved as one access.
struct __align__(16) Quad {
  u32 v[4];
};
struct __align__(8) Pair {
  u32 v[2];
};
#ifdef MIDC_HOST
inline void store_vector(void* to, const Quad& q) { *(Quad*)to = q; }
inline void store_vector(void* to, const Pair& p) { *(Pair*)to = p; }
#else
/// One store to global memory: where the compiler takes an array apart, it may store the parts one by one.
__device__ __forceinline__ void store_vector(void* to, const Quad& q) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(q.v[0]), "r"(q.v[1]), "r"(q.v[2]), "r"(q.v[3])
               : "memory");
}
__device__ __forceinline__ void store_vector(void* to, const Pair& p) {
  asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(to)), "r"(p.v[0]), "r"(p.v[1]) : "memory");
}
#endif

/// Eight f32 values in a row, as two accesses.
struct Eight {
  Quad q[2];
  __device__ __forceinline__ float at(int i) const { return __uint_as_float(q[i >> 2].v[i & 3]); }
  static __device__ __forceinline__ Eight load(const float* from) { return Eight{{*(const Quad*)from, *(const Quad*)(from + 4)}}; }
};

/// Sum over the warp, the same bits in every lane.
__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(WARP_ALL, v, o);
  return v;
}
__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) v = fmaxf(v, __shfl_xor_sync(WARP_ALL, v, o));
  return v;
}
/// Sum over a block of `WARPS` warps, in warp order, the same bits in every thread. `scratch` holds one float per
/// warp and may be used again after the next barrier.
template <int WARPS>
__device__ __forceinline__ float block_sum(float v, float* scratch) {
  v = warp_sum(v);
  __syncthreads();
  if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = v;
  __syncthreads();
  float s = 0.0f;
#pragma unroll
  for (int w = 0; w < WARPS; w++) s += scratch[w];
  return s;
}
template <int WARPS>
__device__ __forceinline__ float block_max(float v, float* scratch) {
  v = warp_max(v);
  __syncthreads();
  if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = v;
  __syncthreads();
  float m = scratch[0];
#pragma unroll
  for (int w = 1; w < WARPS; w++) m = fmaxf(m, scratch[w]);
  return m;
}
