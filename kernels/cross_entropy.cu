// Cross-entropy over a block of logits that the product of the head left as exponentials, and their gradient in place.
//
// values is [rows, ld] bf16, e^(logit − largest of its part), 16-byte aligned with ld a multiple of 8; columns from `vocab`
// to `ld` are padding, and 0. parts is [rows, ⌈vocab/128⌉]; of_target has each row's logit of its target in f32.
//
//   nll = log Z − x[target],   dx = scale · ((1 + 2 · z_loss · log Z) · softmax − onehot(target))
//
// from  loss = Σ nll + z_loss · log² Z  (z-loss: arXiv:2204.02311, section 5). An ignored row has nll 0 and dx 0, whatever
// its logits were; an undefined logit of another reaches its nll through the sum of its part.
#include "dev/parts.cuh"

namespace {

constexpr int THREADS = 256, WARPS = 8;

struct Softmax {
  float largest, sum;
  __device__ __forceinline__ float log_sum() const { return log2_fast(sum) * LN2; }
  __device__ __forceinline__ float log_z() const { return largest + log_sum(); }
  // Not log Z less the logit: where both are large, their difference is what counts.
  __device__ __forceinline__ float nll(float logit) const { return largest - logit + log_sum(); }
};
// Of one row, the same bits in every thread of the block. Parts are summed in an order that their number alone decides.
__device__ __forceinline__ Softmax row_softmax(const Part* __restrict__ parts, int count, float* scratch) {
  float m = minus_infinity(), s = 0.0f;
  for (int i = threadIdx.x; i < count; i += THREADS) m = fmaxf(m, parts[i].largest);
  const float largest = block_max<WARPS>(m, scratch);
  // The second time they are in the cache.
  for (int i = threadIdx.x; i < count; i += THREADS) s += parts[i].sum * beside(parts[i].largest, largest);
  return Softmax{largest, block_sum<WARPS>(s, scratch)};
}

}  // namespace

// Launch of both: grid rows, 256 threads.
KERNEL(cross_entropy_forward, 256, 4)
(const Part* __restrict__ parts, const float* __restrict__ of_target, const u32* __restrict__ targets, float* __restrict__ nll,
 int vocab) {
  STATIC_SHARED(float, scratch, WARPS);
  const long long row = blockIdx.x;
  if (targets[row] == IGNORE) {
    if (threadIdx.x == 0) nll[row] = 0.0f;
    return;
  }
  const Softmax softmax = row_softmax(parts + row * parts_of(vocab), parts_of(vocab), scratch);
  if (threadIdx.x == 0) nll[row] = softmax.nll(of_target[row]);
}

KERNEL(cross_entropy_backward, 256, 4)
(u16* values, const Part* __restrict__ parts, const float* __restrict__ of_target, const u32* __restrict__ targets,
 float* __restrict__ nll, int vocab, long long ld, float scale, float z_loss) {
  STATIC_SHARED(float, scratch, WARPS);
  constexpr int STEP = THREADS * 8, AT_ONCE = 4;
  const long long row = blockIdx.x;
  const u32 target = targets[row];
  const int first = (int)threadIdx.x * 8, end = (int)ld;
  u16* x = values + row * ld;
  if (target == IGNORE) {
    // Not scaled by 0: where logits were not finite, that would not be 0.
    for (int i = first; i < end; i += STEP) store_vector(x + i, Quad{{0, 0, 0, 0}});
    if (threadIdx.x == 0) nll[row] = 0.0f;
    return;
  }
  const Part* of_row = parts + row * parts_of(vocab);
  const Softmax softmax = row_softmax(of_row, parts_of(vocab), scratch);
  const float logit = of_target[row], factor = scale * (1.0f + 2.0f * z_loss * softmax.log_z()) / softmax.sum;
  if (threadIdx.x == 0) nll[row] = softmax.nll(logit);
  for (int i0 = first; i0 < end; i0 += AT_ONCE * STEP) {
    Quad v[AT_ONCE];
    float largest[AT_ONCE];
#pragma unroll
    for (int a = 0; a < AT_ONCE; a++) {
      const int i = i0 + a * STEP;
      if (i < end) v[a] = *(const Quad*)(x + i), largest[a] = of_row[i / PART].largest;
    }
#pragma unroll
    for (int a = 0; a < AT_ONCE; a++) {
      const int i = i0 + a * STEP;
      if (i >= end) break;
      const float by = beside(largest[a], softmax.largest) * factor;
      Quad g;
#pragma unroll
      for (int c = 0; c < 4; c++) g.v[c] = pack_bf16(bf16_low(v[a].v[c]) * by, bf16_high(v[a].v[c]) * by);
      store_vector(x + i, g);
    }
  }
  // By the thread that stored the eight it is one of. From the logit itself: a probability near 1, rounded before the 1 is
  // taken from it, would leave nothing of what is to be learnt.
  if (threadIdx.x == target / 8 % THREADS) x[target] = to_bf16(beside(logit, softmax.largest) * factor - scale);
}
