// Rotary position embedding (arXiv:2104.09864) of queries and keys in place, halves as in transformers.
//
// The host computes cos and sin in f64 for whatever scaling method a stage has; the tables carry the attention
// factor. Values i and i + D/2 of a head turn by the angle of their token's position. The backward pass turns by
// the negative angle.
#include "dev/base.cuh"

// One block per token, of all heads. qkv [tokens, stride], the first `heads` heads are turned; cos and sin
// [positions, D/2]. Launch: grid tokens, 256 threads.
KERNEL(rope, 256, 4)
(u16* __restrict__ qkv, const u32* __restrict__ positions, const float* __restrict__ cos_table,
 const float* __restrict__ sin_table, int stride, int heads, int head_dim, float sign) {
  const long long token = blockIdx.x;
  const int half = head_dim / 2, pairs = half / 2;
  const float* c = cos_table + (long long)positions[token] * half;
  const float* s = sin_table + (long long)positions[token] * half;
  u16* row = qkv + token * stride;
  for (int i = threadIdx.x; i < heads * pairs; i += 256) {
    const int head = i / pairs, at = i % pairs * 2;
    u32* lo = (u32*)(row + head * head_dim + at);
    u32* hi = (u32*)(row + head * head_dim + half + at);
    const u32 a = *lo, b = *hi;
    const float c0 = c[at], c1 = c[at + 1], s0 = s[at] * sign, s1 = s[at + 1] * sign;
    const float a0 = bf16_low(a), a1 = bf16_high(a), b0 = bf16_low(b), b1 = bf16_high(b);
    *lo = pack_bf16(a0 * c0 - b0 * s0, a1 * c1 - b1 * s1);
    *hi = pack_bf16(b0 * c0 + a0 * s0, b1 * c1 + a1 * s1);
  }
}
