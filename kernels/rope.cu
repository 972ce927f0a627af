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

// A piece: eight values of the first half of a head, and their partners.
template <class Index>
struct Piece {
  Index token;
  int column, begin;  // of the row, of the half
  static __device__ __forceinline__ Piece at(Index item, int heads, int head_dim) {
    const int chunks = (head_dim / 2 + 7) / 8;
    const Index token = item / (Index)(heads * chunks);
    const u32 within = (u32)(item - token * (Index)(heads * chunks)), head = within / (u32)chunks;
    const int begin = (int)(within - head * (u32)chunks) * 8;
    return Piece{token, (int)head * head_dim + begin, begin};
  }
};

// Two pieces a thread. What they wait for is under way together: first positions and values, then the angles.
template <class Index>
__device__ __forceinline__ void turn_whole(u16* qkv, const u32* __restrict__ positions, const float* __restrict__ cos_table,
                                           const float* __restrict__ sin_table, Index items, int stride, int heads, int head_dim,
                                           float sign) {
  const int half = head_dim / 2;
  Piece<Index> p[2];
  bool inside[2];
  u32 position[2];
  u16* lo[2];
  Quad a[2], b[2], cosines[2][2], sines[2][2];
#pragma unroll
  for (int n = 0; n < 2; n++) {
    const Index item = (Index)blockIdx.x * 512 + threadIdx.x + n * 256;
    inside[n] = item < items;
    p[n] = Piece<Index>::at(item, heads, head_dim);
    lo[n] = qkv + (u64)p[n].token * (u32)stride + (u32)p[n].column;
    position[n] = inside[n] ? positions[p[n].token] : 0u;
    a[n] = inside[n] ? *(const Quad*)lo[n] : Quad{};
    b[n] = inside[n] ? *(const Quad*)(lo[n] + half) : Quad{};
  }
  // Or the compiler would wait for a position before it loads any value.
  __syncwarp();
#pragma unroll
  for (int n = 0; n < 2; n++) {
    const Index angles = (Index)position[n] * (Index)half + (Index)p[n].begin;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      cosines[n][h] = inside[n] ? *(const Quad*)(cos_table + angles + h * 4) : Quad{};
      sines[n][h] = inside[n] ? *(const Quad*)(sin_table + angles + h * 4) : Quad{};
    }
  }
#pragma unroll
  for (int n = 0; n < 2; n++) {
    Quad x, y;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const Quad &co = cosines[n][i / 2], &si = sines[n][i / 2];
      const int at = i % 2 * 2;
      const float c0 = __uint_as_float(co.v[at]), c1 = __uint_as_float(co.v[at + 1]), s0 = __uint_as_float(si.v[at]) * sign,
                  s1 = __uint_as_float(si.v[at + 1]) * sign;
      x.v[i] = turn(a[n].v[i], b[n].v[i], c0, c1, s0, s1);
      y.v[i] = turn(b[n].v[i], a[n].v[i], c0, c1, -s0, -s1);
    }
    if (!inside[n]) continue;
    store_vector(lo[n], x);
    store_vector(lo[n] + half, y);
  }
}

}  // namespace

// qkv [tokens, stride], the first `heads` heads are turned; cos and sin [positions, D/2]; D is a multiple of 4.
// A thread turns two pieces of eight values of the first half of a head with their partners. Launch: grid
// ⌈tokens · heads · ⌈D/16⌉/512⌉, 256 threads.
KERNEL(rope, 256, 3)
(u16* __restrict__ qkv, const u32* __restrict__ positions, const float* __restrict__ cos_table,
 const float* __restrict__ sin_table, long long tokens, int stride, int heads, int head_dim, float sign) {
  const int half = head_dim / 2;
  const long long items = tokens * (heads * ((half + 7) / 8));
  if (half % 8 == 0 && stride % 8 == 0 && (((u64)qkv | (u64)cos_table | (u64)sin_table) & 15) == 0) {
    // Also of what lies beyond the last piece.
    if (items < 1ll << 31)
      turn_whole<u32>(qkv, positions, cos_table, sin_table, (u32)items, stride, heads, head_dim, sign);
    else
      turn_whole<long long>(qkv, positions, cos_table, sin_table, items, stride, heads, head_dim, sign);
    return;
  }
  for (int n = 0; n < 2; n++) {
    const long long item = (long long)blockIdx.x * 512 + threadIdx.x + n * 256;
    if (item >= items) return;
    const Piece<long long> p = Piece<long long>::at(item, heads, head_dim);
    const long long angles = (long long)positions[p.token] * half;
    u16 *lo = qkv + p.token * stride + p.column - p.begin, *hi = lo + half;
    for (int i = p.begin; i < p.begin + 8 && i < half; i += 2) {
      const u32 a = *(u32*)(lo + i), b = *(u32*)(hi + i);
      const float c0 = cos_table[angles + i], c1 = cos_table[angles + i + 1], s0 = sin_table[angles + i] * sign,
                  s1 = sin_table[angles + i + 1] * sign;
      *(u32*)(lo + i) = turn(a, b, c0, c1, s0, s1);
      *(u32*)(hi + i) = turn(b, a, c0, c1, -s0, -s1);
    }
  }
}
