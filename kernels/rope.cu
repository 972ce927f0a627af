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

// Eight values of the first half of a head and their partners, as they lie in memory.
struct Turn {
  Quad a, b, cosines[2], sines[2];
  u16 *lo, *hi;
};

}  // namespace

// qkv [tokens, stride], the first `heads` heads are turned; cos and sin [positions, D/2]; D is a multiple of 4.
// A thread turns two pieces of eight values of the first half of a head with their partners, both under way at once. Launch:
// grid ⌈tokens · heads · ⌈D/16⌉/512⌉, 256 threads.
KERNEL(rope, 256, 3)
(u16* __restrict__ qkv, const u32* __restrict__ positions, const float* __restrict__ cos_table,
 const float* __restrict__ sin_table, long long tokens, int stride, int heads, int head_dim, float sign) {
  const int half = head_dim / 2, chunks = (half + 7) / 8;
  const long long items = tokens * heads * chunks, first = (long long)blockIdx.x * 512 + threadIdx.x;
  Turn turns[2];
  bool whole[2];
#pragma unroll
  for (int n = 0; n < 2; n++) {
    const long long item = first + n * 256, token = item / (heads * chunks);
    whole[n] = false;
    turns[n].lo = nullptr;
    if (item >= items) continue;
    const int within = (int)(item - token * (heads * chunks)), head = within / chunks, begin = within % chunks * 8;
    const long long angles = (long long)positions[token] * half + begin;
    const float *c = cos_table + angles, *s = sin_table + angles;
    Turn& t = turns[n];
    t.lo = qkv + token * stride + head * head_dim + begin, t.hi = t.lo + half;
    whole[n] = half % 8 == 0 && (((u64)t.lo | (u64)t.hi | (u64)c | (u64)s) & 15) == 0;
    if (whole[n]) {
      t.a = *(const Quad*)t.lo, t.b = *(const Quad*)t.hi;
#pragma unroll
      for (int h = 0; h < 2; h++) t.cosines[h] = *(const Quad*)(c + h * 4), t.sines[h] = *(const Quad*)(s + h * 4);
      continue;
    }
    for (int i = 0; i < 8 && begin + i < half; i += 2) {
      const u32 a = *(u32*)(t.lo + i), b = *(u32*)(t.hi + i);
      const float c0 = c[i], c1 = c[i + 1], s0 = s[i] * sign, s1 = s[i + 1] * sign;
      *(u32*)(t.lo + i) = turn(a, b, c0, c1, s0, s1);
      *(u32*)(t.hi + i) = turn(b, a, c0, c1, -s0, -s1);
    }
  }
#pragma unroll
  for (int n = 0; n < 2; n++) {
    if (!whole[n]) continue;
    const Turn& t = turns[n];
    Quad x, y;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const Quad &co = t.cosines[i / 2], &si = t.sines[i / 2];
      const int at = i % 2 * 2;
      const float c0 = __uint_as_float(co.v[at]), c1 = __uint_as_float(co.v[at + 1]), s0 = __uint_as_float(si.v[at]) * sign,
                  s1 = __uint_as_float(si.v[at + 1]) * sign;
      x.v[i] = turn(t.a.v[i], t.b.v[i], c0, c1, s0, s1);
      y.v[i] = turn(t.b.v[i], t.a.v[i], c0, c1, -s0, -s1);
    }
    store_vector(t.lo, x);
    store_vector(t.hi, y);
  }
}
