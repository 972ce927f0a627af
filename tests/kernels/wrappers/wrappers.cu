// One kernel for each wrapper of dev/*.cuh whose meaning the host model imitates, so that a GPU can say whether it does
// so rightly. Inputs and outputs are words; one warp each.
#include "dev/async.cuh"
#include "dev/mma.cuh"

namespace {
// 128 words of input into shared memory.
__device__ __forceinline__ u16* stage(const u32* in) {
  STATIC_SHARED(Quad, rows, 32);
  for (int i = 0; i < 4; i++) rows[threadIdx.x].v[i] = in[threadIdx.x * 4 + i];
  __syncwarp();
  return (u16*)rows;
}
}  // namespace

KERNEL(wrapper_ldmatrix, 32, 1)(const u32* in, u32* out) {
  const u16* rows = stage(in);
  u32 r[4];
  ldmatrix(r, rows + threadIdx.x * 8);
  for (int i = 0; i < 4; i++) out[threadIdx.x * 4 + i] = r[i];
}

KERNEL(wrapper_ldmatrix_trans, 32, 1)(const u32* in, u32* out) {
  const u16* rows = stage(in);
  u32 r[4];
  ldmatrix_trans(r, rows + threadIdx.x * 8);
  for (int i = 0; i < 4; i++) out[threadIdx.x * 4 + i] = r[i];
}

KERNEL(wrapper_mma, 32, 1)(const u32* in, u32* out) {
  u32 a[4], b0 = in[128 + threadIdx.x * 2], b1 = in[129 + threadIdx.x * 2];
  for (int i = 0; i < 4; i++) a[i] = in[threadIdx.x * 4 + i];
  float c[4] = {0.5f, -1.0f, 2.0f, 0.25f};
  mma_16816(c, a, b0, b1);
  for (int i = 0; i < 4; i++) out[threadIdx.x * 4 + i] = __float_as_uint(c[i]);
}

// Lane l copies l mod 9 times two bytes and gets zeros for the rest.
KERNEL(wrapper_copy_async, 32, 1)(const u32* in, u32* out) {
  STATIC_SHARED(Quad, rows, 32);
  copy_async_16(&rows[threadIdx.x], in + threadIdx.x * 4, threadIdx.x % 9 * 2);
  copy_async_commit();
  copy_async_wait<0>();
  for (int i = 0; i < 4; i++) out[threadIdx.x * 4 + i] = rows[threadIdx.x].v[i];
}

// Rounding to bf16, ties and special values among the inputs; to the bit.
KERNEL(wrapper_pack_bf16, 32, 1)(const u32* in, u32* out) {
  for (int i = 0; i < 4; i++) {
    const int at = threadIdx.x * 4 + i;
    out[at] = pack_bf16(__uint_as_float(in[at]), __uint_as_float(in[at ^ 1]));
  }
}

// exp2 of values up to 16 in size, log2 and the root of positive ones.
KERNEL(wrapper_functions, 32, 1)(const u32* in, u32* out) {
  const float x = (float)(int)in[threadIdx.x] * (1.0f / 134217728.0f), positive = x < 0.0f ? 0.001f - x : 0.001f + x;
  out[threadIdx.x] = __float_as_uint(exp2_fast(x));
  out[32 + threadIdx.x] = __float_as_uint(log2_fast(positive));
  out[64 + threadIdx.x] = __float_as_uint(rsqrt_fast(positive));
  out[96 + threadIdx.x] = __float_as_uint(reciprocal_fast(1.0f + positive));
}
