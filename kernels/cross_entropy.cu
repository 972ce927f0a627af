// Cross-entropy over a chunk of logits, and its gradient in place.
//
// logits is [rows, ld] f32 from the product of the head, 16-byte aligned with ld a multiple of 8; columns from `vocab` to
// `ld` are padding. With gradients, the row's f32 values are replaced by bf16 ones in the front half of the same memory, [rows, 2 · ld] bf16, ready
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

// Takes eight values into a maximum and Σ 2^((x − maximum) · log2 e). NaN never becomes the maximum, but reaches the sum.
__device__ __forceinline__ void take(const Eight& v, float& m, float& s) {
  float peak = m;
#pragma unroll
  for (int i = 0; i < 8; i++) peak = fmaxf(peak, v.at(i));
  const float base = peak == minus_infinity() ? 0.0f : peak * LOG2E;
  s *= exp2_fast(fma_rn(m, LOG2E, -base));
  m = peak;
#pragma unroll
  for (int i = 0; i < 8; i++) s += exp2_fast(fma_rn(v.at(i), LOG2E, -base));
}

// The largest value of a row and Σ 2^((x − largest) · log2 e), in one pass.
__device__ __forceinline__ void row_softmax(const float* x, int vocab, float* scratch, float& largest, float& sum) {
  constexpr int STEP = THREADS * 8;
  float m = minus_infinity(), s = 0.0f;
  int i = threadIdx.x * 8;
  // Two steps at a time, so that four loads are under way.
  for (; i + STEP + 8 <= vocab; i += 2 * STEP) {
    const Eight a = Eight::load(x + i), b = Eight::load(x + i + STEP);
    take(a, m, s);
    take(b, m, s);
  }
  for (; i < vocab; i += STEP) {
    Eight a = {{{{0xff800000u, 0xff800000u, 0xff800000u, 0xff800000u}}, {{0xff800000u, 0xff800000u, 0xff800000u, 0xff800000u}}}};
    if (i + 8 <= vocab) {
      a = Eight::load(x + i);
    } else {
#pragma unroll
      for (int j = 0; j < 8; j++)
        if (i + j < vocab) a.q[j >> 2].v[j & 3] = __float_as_uint(x[i + j]);
    }
    take(a, m, s);
  }
  largest = block_max<WARPS>(m, scratch);
  const float base = largest == minus_infinity() ? 0.0f : largest * LOG2E;
  sum = block_sum<WARPS>(s * exp2_fast(fma_rn(m, LOG2E, -base)), scratch);
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
  // Values i of the f32 row and 2i, 2i+1 of the bf16 row share memory, so a step is read by everybody before any of it is
  // written; a step's bf16 values lie before the f32 ones of the next, which are fetched ahead.
  constexpr int STEP = THREADS * 8;
  const float base = largest * LOG2E;
  auto fetch = [&](int i) { return i < (int)ld ? Eight::load(x + i) : Eight{}; };
  Eight now = fetch(threadIdx.x * 8);
  for (int i0 = 0; i0 < (int)ld; i0 += STEP) {
    const int i = i0 + (int)threadIdx.x * 8;
    const Eight next = fetch(i + STEP);
    Quad out8;
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
      float g[2];
#pragma unroll
      for (int c = 0; c < 2; c++) {
        const int at = i + j + c;
        g[c] = at < vocab && !ignored ? factor * exp2_fast(fma_rn(now.at(j + c), LOG2E, -base)) : 0.0f;
        if (at < vocab && !ignored && (u32)at == target) g[c] -= scale;
      }
      out8.v[j / 2] = pack_bf16(g[0], g[1]);
    }
    // Also orders the read of x[target] above before the first write.
#ifndef BUG_CROSS_ENTROPY_BARRIER
    __syncthreads();
#endif
    if (i < (int)ld) store_vector(out + i, out8);
    now = next;
  }
}
