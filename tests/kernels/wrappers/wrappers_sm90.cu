// As wrappers.cu, for what only Hopper has: TMA's swizzle and its zeros outside a tensor, and wgmma through every kind of
// operand. One warpgroup each.
#include "dev/hopper.cuh"
#include "dev/mma.cuh"

namespace {

// Boxes of 64 · 64 from column x, row y of a map, side by side, into `to`; `use`: how many loads came before.
__device__ __forceinline__ void load(u8* to, const TensorMap* map, int boxes, int x, int y, int use) {
  STATIC_SHARED(u64, full, 1);
  // Set up once: what holds an mbarrier may not become another without being invalidated.
  if (threadIdx.x == 0 && use == 0) {
    mbarrier_init(full, 1);
    fence_mbarrier_init();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    mbarrier_expect(full, boxes * 8192);
    for (int i = 0; i < boxes; i++) tma_load(to + i * 8192, map, full, x + i * 64, y);
  }
  mbarrier_wait(full, use & 1);
}

template <int N>
__device__ __forceinline__ void store(u32* out, float (&d)[N]) {
  wgmma_commit();
  wgmma_wait<0>();
  wgmma_settle(d);
  for (int i = 0; i < N; i++) out[threadIdx.x * N + i] = __float_as_uint(d[i]);
}

}  // namespace

// A box that hangs over the right and lower edge of its tensor, as it lies in shared memory.
KERNEL(wrapper_sm90_tma, 128, 1)(const __grid_constant__ TensorMap map, u32* out) {
  DYNAMIC_SHARED(shared);
  load(shared, &map, 1, 16, 40, 0);
  for (int i = threadIdx.x; i < 2048; i += 128) out[i] = ((const u32*)shared)[i];
}

// D[64, 64] = A · Bᵀ, both k-major, depth 64: 64 rows of A above 64 rows of B in one tensor.
KERNEL(wrapper_sm90_wgmma_k, 128, 1)(const __grid_constant__ TensorMap map, u32* out) {
  DYNAMIC_SHARED(shared);
  load(shared, &map, 1, 0, 0, 0);
  load(shared + 8192, &map, 1, 0, 64, 1);
  float d[32];
  for (int i = 0; i < 32; i++) d[i] = 0.0f;
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < 4; k++) wgmma_64(d, descriptor_k(shared + k * 32), descriptor_k(shared + 8192 + k * 32), k > 0);
  store(out, d);
}

// D[64, 128] = Aᵀ · B, both mn-major, depth 64: 64 rows of depth, 64 columns of A and 128 of B.
KERNEL(wrapper_sm90_wgmma_mn, 128, 1)(const __grid_constant__ TensorMap map, u32* out) {
  DYNAMIC_SHARED(shared);
  load(shared, &map, 1, 0, 0, 0);
  load(shared + 8192, &map, 2, 64, 0, 1);
  float d[64];
  for (int i = 0; i < 64; i++) d[i] = 0.0f;
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < 4; k++)
    wgmma_128<1, 1>(d, descriptor_mn(shared + k * 2048, 8192), descriptor_mn(shared + 8192 + k * 2048, 8192), k > 0);
  store(out, d);
}

// D[64, 128] = A · B, A from registers, B mn-major, depth 16.
KERNEL(wrapper_sm90_wgmma_registers, 128, 1)(const __grid_constant__ TensorMap map, const u32* in, u32* out) {
  DYNAMIC_SHARED(shared);
  load(shared, &map, 2, 0, 0, 0);
  u32 a[4];
  for (int i = 0; i < 4; i++) a[i] = in[threadIdx.x * 4 + i];
  float d[64];
  for (int i = 0; i < 64; i++) d[i] = 0.0f;
  wgmma_fence();
  wgmma_128<1>(d, a, descriptor_mn(shared, 8192), 0);
  store(out, d);
}

// D[64, 64] = A · Bᵀ, A from registers by ldmatrix out of what TMA wrote, B k-major, depth 64: 64 rows of A above 64 of B.
KERNEL(wrapper_sm90_wgmma_ldmatrix, 128, 1)(const __grid_constant__ TensorMap map, u32* out) {
  DYNAMIC_SHARED(shared);
  load(shared, &map, 1, 0, 0, 0);
  load(shared + 8192, &map, 1, 0, 64, 1);
  const int lane = threadIdx.x & 31, row = (threadIdx.x >> 5) * 16 + fragment_row(lane);
  u32 a[4][4];
#pragma unroll
  for (int k = 0; k < 4; k++) ldmatrix(a[k], shared + row * 128 + ((k * 16 + fragment_col(lane)) * 2 ^ (row & 7) << 4));
  float d[32];
  for (int i = 0; i < 32; i++) d[i] = 0.0f;
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < 4; k++) wgmma_64<0>(d, a[k], descriptor_k(shared + 8192 + k * 32), k > 0);
  store(out, d);
}

// D[64, 32] = Aᵀ · B, both mn-major, depth 64: 64 columns of A, and of B's 64 the last 32.
KERNEL(wrapper_sm90_wgmma_half, 128, 1)(const __grid_constant__ TensorMap map, u32* out) {
  DYNAMIC_SHARED(shared);
  load(shared, &map, 1, 0, 0, 0);
  load(shared + 8192, &map, 1, 64, 0, 1);
  float d[16];
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < 4; k++) {
    const u64 a = descriptor_mn(shared, 8192) + (k * 2048 >> 4), b = descriptor_mn(shared + 8192 + 64, 8192) + (k * 2048 >> 4);
    if (k == 0)
      wgmma_first_32<1, 1>(d, a, b);
    else
      wgmma_32<1, 1>(d, a, b, 1);
  }
  store(out, d);
}

// Copies of the copy engine: into shared memory, from there back, and onto what is there.
KERNEL(wrapper_sm90_bulk, 128, 1)(const u32* in, u32* out) {
  DYNAMIC_SHARED(shared);
  STATIC_SHARED(u64, full, 1);
  if (threadIdx.x == 0) {
    mbarrier_init(full, 1);
    fence_mbarrier_init();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    mbarrier_expect(full, 2048);
    bulk_load(shared, in, full, 2048);
  }
  mbarrier_wait(full, 0);
  // Each value over four, so that sums show what was added.
  for (int i = threadIdx.x; i < 512; i += 128) ((float*)shared)[512 + i] = ((const float*)shared)[i] * 0.25f;
  fence_async_proxy();
  __syncthreads();
  if (threadIdx.x != 0) return;
  bulk_store(out, shared, 2048);
  bulk_commit();
  bulk_wait<0>();
  bulk_add((float*)out, shared + 2048, 1024);
  bulk_commit();
  bulk_wait_read<0>();
  bulk_wait<0>();
}
