// Causal attention over packed qkv rows, blocked, on mma.sync: flash attention (arXiv:2307.08691).
//
// qkv is [rows · context, (heads + 2 · kv_heads) · D] bf16: queries, keys, values. Query t of a row attends to the
// keys from attend_from[t] to t of its row; attend_from never decreases, so the keys of a tile of queries are one
// range and tiles outside it are never read. Writes out [rows · context, heads · D] bf16 and the natural log of
// each softmax's denominator [rows, heads, context].
//
// A block of 128 threads owns 64 queries of one head; each warp keeps 16 of them with all their state in
// registers. Keys and values come in tiles through two stages.
#include "dev/attention.cuh"

namespace {

template <int D, int KEYS>
__device__ __forceinline__ void attention_forward(const u16* __restrict__ qkv, const u32* __restrict__ attend_from,
                                                  u16* __restrict__ out, float* __restrict__ log_sum, int context,
                                                  int heads, int kv_heads, float scale) {
  typedef HeadTile<D> Tile;
  constexpr int QUERIES = 64, THREADS = 128;
  DYNAMIC_SHARED(shared);
  u16* tile_q = (u16*)shared;
  u16* tiles_k = tile_q + QUERIES * D;
  u16* tiles_v = tiles_k + 2 * KEYS * D;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int head = blockIdx.y, row = blockIdx.z, kv_head = head / (heads / kv_heads);
  // The longest ranges first: causal tiles grow towards the end of the row.
  const int q0 = (int)(gridDim.x - 1 - blockIdx.x) * QUERIES;
  const long long stride = (long long)(heads + 2 * kv_heads) * D;
  const u16* q = qkv + (long long)row * context * stride + (long long)head * D;
  const u16* k = qkv + (long long)row * context * stride + (long long)(heads + kv_head) * D;
  const u16* v = k + (long long)kv_heads * D;
  const u32* from = attend_from + (long long)row * context;
  const int q_end = min_of(q0 + QUERIES, context);
  const int first = (int)from[q0] / KEYS, last = (q_end - 1) / KEYS;

  Tile::template load<QUERIES, THREADS>(tile_q, q, stride, q0, context);
  Tile::template load<KEYS, THREADS>(tiles_k, k, stride, first * KEYS, context);
  Tile::template load<KEYS, THREADS>(tiles_v, v, stride, first * KEYS, context);
  copy_async_commit();

  // Scores are kept in units of log2: exp2 is one instruction.
  const float scale2 = scale * 1.4426950408889634f;
  const int r0 = q0 + warp * 16 + (lane >> 2);  // this thread's queries: r0 and r0 + 8
  const int from0 = r0 < context ? (int)from[r0] : 0, from1 = r0 + 8 < context ? (int)from[r0 + 8] : 0;
  const int latest_from = (int)from[q_end - 1];
  float o[D / 8][4], peak[2] = {minus_infinity(), minus_infinity()}, sum[2] = {0.0f, 0.0f};
#pragma unroll
  for (int j = 0; j < D / 8; j++)
#pragma unroll
    for (int r = 0; r < 4; r++) o[j][r] = 0.0f;

  for (int n = first; n <= last; n++) {
    const int stage = (n - first) & 1;
    if (n < last) {
      Tile::template load<KEYS, THREADS>(tiles_k + (stage ^ 1) * KEYS * D, k, stride, (n + 1) * KEYS, context);
      Tile::template load<KEYS, THREADS>(tiles_v + (stage ^ 1) * KEYS * D, v, stride, (n + 1) * KEYS, context);
    }
    copy_async_commit();
    copy_async_wait<1>();
    __syncthreads();
    const u16* tk = tiles_k + stage * KEYS * D;
    const u16* tv = tiles_v + stage * KEYS * D;

    float s[KEYS / 8][4];
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
      for (int r = 0; r < 4; r++) s[j][r] = 0.0f;
    // Unrolled in full, the widest head would need more registers than there are.
#pragma unroll(D > 128 ? 1 : D / 16)
    for (int d = 0; d < D; d += 16) {
      u32 a[4];
      Tile::a(a, tile_q, warp * 16, d, lane);
#pragma unroll
      for (int j = 0; j < KEYS / 16; j++) {
        u32 b[4];
        Tile::b(b, tk, j * 16, d, lane);
        mma_16816(s[2 * j], a, b[0], b[1]);
        mma_16816(s[2 * j + 1], a, b[2], b[3]);
      }
    }

    const int k0 = n * KEYS;
    const bool whole = k0 + KEYS - 1 <= q0 && latest_from <= k0;
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
      for (int r = 0; r < 4; r++) {
        float x = s[j][r] * scale2;
        if (!whole) {
          int key = k0 + j * 8 + (lane & 3) * 2 + (r & 1), query = r0 + (r >> 1) * 8;
#ifdef BUG_ATTENTION_MASK
          if (key >= query || key < (r >> 1 ? from1 : from0)) x = minus_infinity();
#else
          if (key > query || key < (r >> 1 ? from1 : from0)) x = minus_infinity();
#endif
        }
        s[j][r] = x;
      }
#pragma unroll
    for (int i = 0; i < 2; i++) {
      float m = peak[i];
#pragma unroll
      for (int j = 0; j < KEYS / 8; j++) m = fmaxf(m, fmaxf(s[j][2 * i], s[j][2 * i + 1]));
      m = fmaxf(m, __shfl_xor_sync(WARP_ALL, m, 1));
      m = fmaxf(m, __shfl_xor_sync(WARP_ALL, m, 2));
      // A query that has seen no key yet: subtract 0, not −∞.
      const float base = m == minus_infinity() ? 0.0f : m;
      const float shrink = exp2_fast(peak[i] - base);
      peak[i] = m;
      float t = 0.0f;
#pragma unroll
      for (int j = 0; j < KEYS / 8; j++) {
        s[j][2 * i] = exp2_fast(s[j][2 * i] - base);
        s[j][2 * i + 1] = exp2_fast(s[j][2 * i + 1] - base);
        t += s[j][2 * i] + s[j][2 * i + 1];
      }
      sum[i] = sum[i] * shrink + t;
#pragma unroll
      for (int j = 0; j < D / 8; j++) {
        o[j][2 * i] *= shrink;
        o[j][2 * i + 1] *= shrink;
      }
    }
#pragma unroll
    for (int j = 0; j < KEYS / 16; j++) {
      u32 p[4];
      to_fragment(p, s[2 * j], s[2 * j + 1]);
#pragma unroll
      for (int d = 0; d < D / 16; d++) {
        u32 b[4];
        Tile::b_trans(b, tv, j * 16, d * 16, lane);
        mma_16816(o[2 * d], p, b[0], b[1]);
        mma_16816(o[2 * d + 1], p, b[2], b[3]);
      }
    }
    // The stage just read is loaded next.
#ifndef BUG_ATTENTION_RING
    __syncthreads();
#endif
  }
  copy_async_wait<0>();

#pragma unroll
  for (int i = 0; i < 2; i++) {
    sum[i] += __shfl_xor_sync(WARP_ALL, sum[i], 1);
    sum[i] += __shfl_xor_sync(WARP_ALL, sum[i], 2);
    const int query = r0 + i * 8;
    if (query >= context) continue;
    const float inverse = 1.0f / sum[i];
    if ((lane & 3) == 0)
      log_sum[((long long)row * heads + head) * context + query] = (peak[i] + log2_fast(sum[i])) * 0.6931471805599453f;
    u16* to = out + ((long long)row * context + query) * heads * D + (long long)head * D + (lane & 3) * 2;
#pragma unroll
    for (int j = 0; j < D / 8; j++) *(u32*)(to + j * 8) = pack_bf16(o[j][2 * i] * inverse, o[j][2 * i + 1] * inverse);
  }
}

}  // namespace

// Launch: grid (⌈context/64⌉, heads, rows), 128 threads, (64 + 4 · keys) · D · 2 bytes of shared memory, where keys
// is 64, or 32 for head dimension 256.
KERNEL(attention_forward_32, 128, 2)
(const u16* qkv, const u32* attend_from, u16* out, float* log_sum, int context, int heads, int kv_heads, float scale) {
  attention_forward<32, 64>(qkv, attend_from, out, log_sum, context, heads, kv_heads, scale);
}
KERNEL(attention_forward_64, 128, 2)
(const u16* qkv, const u32* attend_from, u16* out, float* log_sum, int context, int heads, int kv_heads, float scale) {
  attention_forward<64, 64>(qkv, attend_from, out, log_sum, context, heads, kv_heads, scale);
}
KERNEL(attention_forward_96, 128, 2)
(const u16* qkv, const u32* attend_from, u16* out, float* log_sum, int context, int heads, int kv_heads, float scale) {
  attention_forward<96, 64>(qkv, attend_from, out, log_sum, context, heads, kv_heads, scale);
}
KERNEL(attention_forward_128, 128, 2)
(const u16* qkv, const u32* attend_from, u16* out, float* log_sum, int context, int heads, int kv_heads, float scale) {
  attention_forward<128, 64>(qkv, attend_from, out, log_sum, context, heads, kv_heads, scale);
}
KERNEL(attention_forward_256, 128, 1)
(const u16* qkv, const u32* attend_from, u16* out, float* log_sum, int context, int heads, int kv_heads, float scale) {
  attention_forward<256, 32>(qkv, attend_from, out, log_sum, context, heads, kv_heads, scale);
}
