// Kernels that are wrong on purpose: the host model must catch every one of them.
#include "dev/async.cuh"
#include "dev/hopper.cuh"
#include "dev/mma.cuh"

// A neighbour's value is read without waiting for it.
KERNEL(missing_syncwarp, 32, 1)(float* out) {
  DYNAMIC_SHARED(shared);
  float* s = (float*)shared;
  s[threadIdx.x] = (float)threadIdx.x;
  out[threadIdx.x] = s[threadIdx.x ^ 1];
}

// Scratch is written again while others still read it.
KERNEL(reused_scratch, 64, 1)(float* out) {
  DYNAMIC_SHARED(shared);
  float* s = (float*)shared;
  float sum = 0;
  for (int round = 0; round < 3; round++) {
    if (threadIdx.x == 0) s[0] = (float)round;
    __syncthreads();
    sum += s[0];
  }
  out[threadIdx.x] = sum;
}

KERNEL(divergent_barrier, 64, 1)(float* out) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
  out[threadIdx.x] = 1;
}

KERNEL(exited_lane, 32, 1)(float* out) {
  if (threadIdx.x == 5) return;
  out[threadIdx.x] = __shfl_xor_sync(WARP_ALL, 1.0f, 1);
}

KERNEL(barrier_after_exit, 64, 1)(float* out) {
  if (threadIdx.x >= 32) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

KERNEL(misaligned_ldmatrix, 32, 1)(float* out) {
  DYNAMIC_SHARED(shared);
  u32 r[4];
  ldmatrix(r, shared + threadIdx.x * 18);
  out[threadIdx.x] = __uint_as_float(r[0]);
}

KERNEL(read_before_wait, 32, 1)(const float* in, float* out) {
  DYNAMIC_SHARED(shared);
  copy_async_16((float*)shared + threadIdx.x * 4, in, 16);
  copy_async_commit();
  out[threadIdx.x] = ((float*)shared)[threadIdx.x * 4];
  copy_async_wait<0>();
}

KERNEL(never_waited, 32, 1)(const float* in, float* out) {
  DYNAMIC_SHARED(shared);
  copy_async_16((float*)shared + threadIdx.x * 4, in, 16);
  copy_async_commit();
  out[threadIdx.x] = 1;
}

KERNEL(global_overrun, 32, 1)(float* out) { out[threadIdx.x] = out[threadIdx.x + 1]; }

KERNEL(shared_overrun, 32, 1)(float* out) {
  DYNAMIC_SHARED(shared);
  float* s = (float*)shared;
  s[threadIdx.x * 8 + 8] = 1;
  out[threadIdx.x] = 1;
}

// Blocks add into the same place without an atomic.
KERNEL(cross_block_race, 32, 1)(float* out) {
  if (threadIdx.x == blockIdx.x) out[0] = out[0] + 1;
}

KERNEL(uninitialised_mbarrier, 128, 1)(float* out) {
  DYNAMIC_SHARED(shared);
  mbarrier_wait((u64*)shared, 0);
  out[threadIdx.x] = 1;
}

KERNEL(mbarrier_deadlock, 128, 1)(float* out) {
  DYNAMIC_SHARED(shared);
  u64* bar = (u64*)shared;
  if (threadIdx.x == 0) mbarrier_init(bar, 2);
  __syncthreads();
  if (threadIdx.x == 0) mbarrier_arrive(bar);
  mbarrier_wait(bar, 0);
  out[threadIdx.x] = 1;
}

KERNEL(wgmma_without_fence, 128, 1)(float* out) {
  DYNAMIC_SHARED(shared);
  float acc[32];
  for (int i = 0; i < 32; i++) acc[i] = 0;
  wgmma_64(acc, descriptor_k(shared), descriptor_k(shared + 8192), 1);
  wgmma_commit();
  wgmma_wait<0>();
  out[threadIdx.x] = acc[0];
}

// The accumulators are read while the product is in flight.
KERNEL(wgmma_read_early, 128, 1)(float* out) {
  DYNAMIC_SHARED(shared);
  for (int i = threadIdx.x; i < 4096; i += 128) ((u32*)shared)[i] = 0x3f803f80u;
  fence_async_proxy();
  __syncthreads();
  float acc[32];
  for (int i = 0; i < 32; i++) acc[i] = 0;
  wgmma_fence();
  wgmma_64(acc, descriptor_k(shared), descriptor_k(shared + 8192), 1);
  wgmma_commit();
  out[threadIdx.x] = acc[0];
  wgmma_wait<0>();
}

// The operands are overwritten while the product is in flight.
KERNEL(wgmma_overwritten, 128, 1)(float* out) {
  DYNAMIC_SHARED(shared);
  for (int i = threadIdx.x; i < 4096; i += 128) ((u32*)shared)[i] = 0x3f803f80u;
  fence_async_proxy();
  __syncthreads();
  float acc[32];
  for (int i = 0; i < 32; i++) acc[i] = 0;
  wgmma_fence();
  wgmma_64(acc, descriptor_k(shared), descriptor_k(shared + 8192), 1);
  wgmma_commit();
  __syncthreads();
  for (int i = threadIdx.x; i < 4096; i += 128) ((u32*)shared)[i] = 0;
  wgmma_wait<0>();
  out[threadIdx.x] = acc[0] == 16.0f ? 1.0f : __int_as_float(0x7fffffff);
}

// Where an mbarrier is, another may not be set up.
KERNEL(mbarrier_twice, 128, 1)(float* out) {
  DYNAMIC_SHARED(shared);
  if (threadIdx.x == 0) mbarrier_init((u64*)shared, 1);
  __syncthreads();
  if (threadIdx.x == 0) mbarrier_init((u64*)shared, 1);
  __syncthreads();
  out[threadIdx.x] = 1;
}

// Half of a barrier's threads arrive and nobody waits for the others.
KERNEL(unfinished_barrier, 64, 1)(float* out) {
  if (threadIdx.x < 32) named_barrier_arrive(1, 64);
  out[threadIdx.x] = 1;
}

KERNEL(wild_prefetch, 32, 1)(const float* in, float* out) {
  if (threadIdx.x == 0) prefetch_l2(in + 128, 64);
  out[threadIdx.x] = 1;
}
