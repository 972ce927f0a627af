// Rotary position embedding (arXiv:2104.09864) of queries and keys in place, halves as in transformers.
//
// The host computes cos and sin in f64 for whatever scaling method a stage has; the tables carry the attention
// factor. Values i and i + D/2 of a head turn by the angle of their token's position. The backward pass turns by
// the negative angle.
#include "dev/base.cuh"

namespace {

__device__ __forceinline__ u32 turn(u32 a, u32 b, float c0, float c1, float s0, float s1) {
  return pack_bf16(bf16_low(a) * c0 - bf16_low(b) * s0, bf16_high(a) * c1 - bf16_high(b) * s1);
}

}  // namespace

// qkv [tokens, stride], the first `heads` heads are turned; cos and sin [positions, D/2]; D is a multiple of 4.
// A thread turns eight values of the first half of a head with their partners. Launch: grid
// ⌈tokens · heads · ⌈D/16⌉/256⌉, 256 threads.
KERNEL(rope, 256, 4)
(u16* __restrict__ qkv, const u32* __restrict__ positions, const float* __restrict__ cos_table,
 const float* __restrict__ sin_table, long long tokens, int stride, int heads, int head_dim, float sign) {
  const int half = head_dim / 2, chunks = (half + 7) / 8;
  const long long item = (long long)blockIdx.x * 256 + threadIdx.x, token = item / (heads * chunks);
  if (token >= tokens) return;
  const int within = (int)(item - token * (heads * chunks)), head = within / chunks, begin = within % chunks * 8;
  const long long angles = (long long)positions[token] * half + begin;
  const float *c = cos_table + angles, *s = sin_table + angles;
  u16 *lo = qkv + token * stride + head * head_dim + begin, *hi = lo + half;
  if (half % 8 == 0 && (((u64)lo | (u64)hi | (u64)c | (u64)s) & 15) == 0) {
    const Quad a = *(const Quad*)lo, b = *(const Quad*)hi;
    Quad x, y;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const Quad cq = *(const Quad*)(c + h * 4), sq = *(const Quad*)(s + h * 4);
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const float c0 = __uint_as_float(cq.v[i * 2]), c1 = __uint_as_float(cq.v[i * 2 + 1]), s0 = __uint_as_float(sq.v[i * 2]) * sign,
                    s1 = __uint_as_float(sq.v[i * 2 + 1]) * sign;
        const u32 p = a.v[h * 2 + i], q = b.v[h * 2 + i];
        x.v[h * 2 + i] = turn(p, q, c0, c1, s0, s1);
        y.v[h * 2 + i] = turn(q, p, c0, c1, -s0, -s1);
      }
    }
    store_vector(lo, x);
    store_vector(hi, y);
    return;
  }
  for (int i = 0; i < 8 && begin + i < half; i += 2) {
    const u32 a = *(u32*)(lo + i), b = *(u32*)(hi + i);
    const float c0 = c[i], c1 = c[i + 1], s0 = s[i] * sign, s1 = s[i + 1] * sign;
    *(u32*)(lo + i) = turn(a, b, c0, c1, s0, s1);
    *(u32*)(hi + i) = turn(b, a, c0, c1, -s0, -s1);
  }
}
