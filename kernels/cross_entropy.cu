// Cross-entropy over a chunk of logits, and its gradient in place.
//
// logits is [rows, ld] f32 from the product of the head; columns from `vocab` to `ld` are padding. With gradients,
// the row's f32 values are replaced by bf16 ones in the front half of the same memory, [rows, 2 · ld] bf16, ready
// to be an operand of the two products that follow.
//
//   nll = log Z − x[target],   dx = scale · ((1 + 2 · z_loss · log Z) · softmax − onehot(target))
//
// from  loss = Σ nll + z_loss · log² Z  (z-loss: arXiv:2204.02311, section 5). An ignored row has nll 0 and dx 0.
#include "dev/base.cuh"

namespace {

constexpr int THREADS = 256, WARPS = 8;
constexpr u32 IGNORE = 0xffffffffu;
constexpr float LOG2E = 1.4426950408889634f, LN2 = 0.6931471805599453f;

// The largest value of a row and Σ 2^((x − largest) · log2 e), in one pass.
__device__ __forceinline__ void row_softmax(const float* x, int vocab, float* scratch, float& largest, float& sum) {
  float m = minus_infinity(), s = 0.0f;
  for (int i = threadIdx.x; i < vocab; i += THREADS) {
    const float v = x[i];
    if (v > m) {
      s = s * exp2_fast((m - v) * LOG2E) + 1.0f;
      m = v;
    } else {
      // Also taken by NaN, which must reach the sum.
      s += exp2_fast((v - m) * LOG2E);
    }
  }
  largest = block_max<WARPS>(m, scratch);
  sum = block_sum<WARPS>(m == minus_infinity() && !(s != s) ? 0.0f : s * exp2_fast((m - largest) * LOG2E), scratch);
}

}  // namespace

// Launch of both: grid rows, 256 threads.
KERNEL(cross_entropy_forward, 256, 4)
(const float* __restrict__ logits, const u32* __restrict__ targets, float* __restrict__ nll, int vocab, long long ld) {
  STATIC_SHARED(float, scratch, WARPS);
  const long long row = blockIdx.x;
  const u32 target = targets[row];
  if (target == IGNORE) {
    if (threadIdx.x == 0) nll[row] = 0.0f;
    return;
  }
  const float* x = logits + row * ld;
  float largest, sum;
  row_softmax(x, vocab, scratch, largest, sum);
  if (threadIdx.x == 0) nll[row] = largest + log2_fast(sum) * LN2 - x[target];
}

KERNEL(cross_entropy_backward, 256, 4)
(float* logits, const u32* __restrict__ targets, float* __restrict__ nll, int vocab, long long ld, float scale, float z_loss) {
  STATIC_SHARED(float, scratch, WARPS);
  const long long row = blockIdx.x;
  const u32 target = targets[row];
  float* x = logits + row * ld;
  u16* out = (u16*)x;
  const bool ignored = target == IGNORE;
  float largest = 0.0f, sum = 1.0f, log_z = 0.0f;
  if (!ignored) {
    row_softmax(x, vocab, scratch, largest, sum);
    log_z = largest + log2_fast(sum) * LN2;
    if (threadIdx.x == 0) nll[row] = log_z - x[target];
  } else if (threadIdx.x == 0) {
    nll[row] = 0.0f;
  }
  const float factor = ignored ? 0.0f : scale * (1.0f + 2.0f * z_loss * log_z) / sum;
  // Values i of the f32 row and 2i, 2i+1 of the bf16 row share memory, so a chunk is read by everybody before any of
  // it is written; a chunk's bf16 values lie at or before its f32 ones.
  for (int i0 = 0; i0 < (int)ld; i0 += THREADS * 2) {
    const int i = i0 + (int)threadIdx.x * 2;
    float g[2];
#pragma unroll
    for (int j = 0; j < 2; j++) {
      g[j] = 0.0f;
      if (i + j < vocab && !ignored) {
        g[j] = factor * exp2_fast((x[i + j] - largest) * LOG2E);
        if ((u32)(i + j) == target) g[j] -= scale;
      }
    }
    // Also orders the read of x[target] above before the first write.
#ifndef BUG_CROSS_ENTROPY_BARRIER
    __syncthreads();
#endif
    if (i < (int)ld) *(u32*)(out + i) = pack_bf16(g[0], g[1]);
  }
}
