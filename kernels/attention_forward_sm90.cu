// Causal attention over packed qkv rows on Hopper: TMA, mbarrier and wgmma, specialised by warpgroup, the softmax of
// one tile under the products of its neighbours (arXiv:2407.08608).
//
// Inputs and outputs as in attention_forward.cu. A block of 384 threads owns 128 queries of one head: one thread of
// the first warpgroup loads tiles of 128 keys and values through two stages each, the other two warpgroups keep 64
// queries each. While a warpgroup's S = Q·Kᵀ of the next tile and O += P·V of this one run on the tensor cores, it
// computes the softmax of whichever is ready; P never leaves the registers. The two warpgroups take turns at starting
// products, so that one computes exponentials while the products of the other run.
#include "dev/hopper.cuh"
#include "dev/quads.cuh"
#include "dev/tiles.cuh"

namespace {

constexpr int QUERIES = 128, KEYS = 128, CHUNK = 16384;  // a chunk: 128 rows of 64 values

template <int D>
struct Value;
template <>
struct Value<64> {
  static __device__ __forceinline__ void run(float (&o)[32], const u32 (&p)[4], u64 v, int accumulate) {
    wgmma_64<1>(o, p, v, accumulate);
  }
};
template <>
struct Value<128> {
  static __device__ __forceinline__ void run(float (&o)[64], const u32 (&p)[4], u64 v, int accumulate) {
    wgmma_128<1>(o, p, v, accumulate);
  }
};

// 128 rows from row `y` of D columns from column `x`.
template <int D>
__device__ __forceinline__ void load(u8* to, const TensorMap* map, u64* full, int x, int y) {
#pragma unroll
  for (int c = 0; c < D / 64; c++) {
    tma_load(to + c * CHUNK, map, full, x + c * 64, y);
    tma_load(to + c * CHUNK + CHUNK / 2, map, full, x + c * 64, y + 64);
  }
}

template <int D>
__device__ __forceinline__ void attention(const TensorMap* map, const u32* __restrict__ attend_from, u16* __restrict__ out,
                                          float* __restrict__ log_sum, int context, int heads, int kv_heads, float scale) {
  constexpr int TILE = KEYS * D * 2;
  DYNAMIC_SHARED(shared);
  u8* tile_q = shared;
  u8* tiles_k = shared + TILE;
  u8* tiles_v = tiles_k + 2 * TILE;
  u64* q_full = (u64*)(tiles_v + 2 * TILE);
  u64 *k_full = q_full + 1, *k_empty = k_full + 2, *v_full = k_empty + 2, *v_empty = v_full + 2;
  int tile, head, row;
  // The heads of a group read the same keys and values.
  head_tile_of(block_number(), gridDim.x, 4ll * D * context * kv_heads / heads, tile, head, row);
  const int group = threadIdx.x >> 7, kv_head = head / (heads / kv_heads);
  const int q0 = ((int)gridDim.x - 1 - tile) * QUERIES, q_end = min_of(q0 + QUERIES, context);
  const u32* from = attend_from + (long long)row * context;
  const int first = (int)from[q0] / KEYS, tiles = (q_end - 1) / KEYS - first + 1;
  if (threadIdx.x == 0) {
    mbarrier_init(q_full, 1);
    for (int s = 0; s < 2; s++) {
      mbarrier_init(&k_full[s], 1);
      mbarrier_init(&v_full[s], 1);
      mbarrier_init(&k_empty[s], 2);
      mbarrier_init(&v_empty[s], 2);
    }
    fence_mbarrier_init();
  }
  __syncthreads();

  if (group == 0) {
    registers_down<24>();
    if (threadIdx.x == 0) {
      const int y = row * context;
      mbarrier_expect(q_full, TILE);
      load<D>(tile_q, map, q_full, head * D, y + q0);
      for (int i = 0; i < tiles; i++) {
        const int s = i & 1, use = i >> 1 & 1, key = y + (first + i) * KEYS;
        mbarrier_wait(&k_empty[s], use ^ 1);
        mbarrier_expect(&k_full[s], TILE);
        load<D>(tiles_k + s * TILE, map, &k_full[s], (heads + kv_head) * D, key);
        mbarrier_wait(&v_empty[s], use ^ 1);
        mbarrier_expect(&v_full[s], TILE);
        load<D>(tiles_v + s * TILE, map, &v_full[s], (heads + kv_heads + kv_head) * D, key);
      }
    }
    return;
  }

  registers_up<240>();
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5 & 3, w = group - 1;
  const bool leader = (threadIdx.x & 127) == 0;
  const int w0 = q0 + w * 64, r0 = w0 + warp * 16 + (lane >> 2);  // this thread's queries: r0 and r0 + 8
  const int from0 = r0 < context ? (int)from[r0] : 0, from1 = r0 + 8 < context ? (int)from[r0 + 8] : 0;
  const int latest_from = (int)from[min_of(w0 + 64, context) - 1];
  const float scale2 = scale * 1.4426950408889634f;
  float o[D / 2], s[KEYS / 2], peak[2] = {minus_infinity(), minus_infinity()}, sum[2] = {0.0f, 0.0f}, shrink[2];
  u32 p[KEYS / 16][4];
#pragma unroll
  for (int j = 0; j < D / 2; j++) o[j] = 0.0f;

  // Starts S = Q·Kᵀ of a tile.
  auto scores = [&](int i) {
    mbarrier_wait(&k_full[i & 1], i >> 1 & 1);
    wgmma_settle(s);
    wgmma_fence();
#pragma unroll
    for (int d = 0; d < D; d += 16) {
      const int at = d / 64 * CHUNK + d % 64 * 2;
      wgmma_128(s, descriptor_k(tile_q + w * (CHUNK / 2) + at), descriptor_k(tiles_k + (i & 1) * TILE + at), d > 0);
    }
    wgmma_commit();
  };
  // Starts O += P·V of a tile.
  auto values = [&](int i) {
    mbarrier_wait(&v_full[i & 1], i >> 1 & 1);
    wgmma_settle(o);
    wgmma_settle(p);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++)
      Value<D>::run(o, p[k], descriptor_mn(tiles_v + (i & 1) * TILE + k * 2048, CHUNK), 1);
    wgmma_commit();
  };
  // Turns S into exp2(scale2 · (S − peak)), moves the peak and the sum, says by how much O shrinks.
  auto softmax = [&](int i) {
    const int k0 = (first + i) * KEYS;
    if (k0 + KEYS - 1 > w0 || latest_from > k0) {
#pragma unroll
      for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
        for (int r = 0; r < 4; r++) {
          const int key = k0 + j * 8 + (lane & 3) * 2 + (r & 1), query = r0 + (r >> 1) * 8;
          if (key > query || key < (r >> 1 ? from1 : from0)) s[j * 4 + r] = minus_infinity();
        }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float m = peak[h];
#pragma unroll
      for (int j = 0; j < KEYS / 8; j++) m = fmaxf(m, fmaxf(s[j * 4 + h * 2], s[j * 4 + h * 2 + 1]));
      m = fmaxf(m, __shfl_xor_sync(WARP_ALL, m, 1));
      m = fmaxf(m, __shfl_xor_sync(WARP_ALL, m, 2));
      const float base = m == minus_infinity() ? 0.0f : m * scale2;
      shrink[h] = exp2_fast(fma_rn(peak[h], scale2, -base));
      peak[h] = m;
      float t = 0.0f;
#pragma unroll
      for (int j = 0; j < KEYS / 8; j++) {
        s[j * 4 + h * 2] = exp2_fast(fma_rn(s[j * 4 + h * 2], scale2, -base));
        s[j * 4 + h * 2 + 1] = exp2_fast(fma_rn(s[j * 4 + h * 2 + 1], scale2, -base));
        t += s[j * 4 + h * 2] + s[j * 4 + h * 2 + 1];
      }
      sum[h] = sum[h] * shrink[h] + t;
    }
  };
  // S as the A operand of the next product.
  auto pack = [&]() {
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++) {
      p[k][0] = pack_bf16(s[k * 8], s[k * 8 + 1]);
      p[k][1] = pack_bf16(s[k * 8 + 2], s[k * 8 + 3]);
      p[k][2] = pack_bf16(s[k * 8 + 4], s[k * 8 + 5]);
      p[k][3] = pack_bf16(s[k * 8 + 6], s[k * 8 + 7]);
    }
  };

  mbarrier_wait(q_full, 0);
  scores(0);
  wgmma_wait<0>();
  wgmma_settle(s);
  if (leader) mbarrier_arrive(&k_empty[0]);
  softmax(0);
  pack();
  // A warpgroup's turn begins when the other has started its products; the first has the first one.
  const int mine = 1 + w, other = 2 - w;
  if (w == 1 && tiles > 1) named_barrier_arrive(other, 256);
  // Every turn of the loop starts the same products and waits for them in the same order, or the compiler would wait
  // for each product at once.
  for (int i = 0; i + 1 < tiles; i++) {
    named_barrier(mine, 256);
    scores(i + 1);
    values(i);
    if (w == 0 || i + 2 < tiles) named_barrier_arrive(other, 256);
    wgmma_wait<1>();
    wgmma_settle(s);
    if (leader) mbarrier_arrive(&k_empty[(i + 1) & 1]);
    softmax(i + 1);
    wgmma_wait<0>();
    wgmma_settle(o);
    wgmma_settle(p);
    if (leader) mbarrier_arrive(&v_empty[i & 1]);
#pragma unroll
    for (int j = 0; j < D / 8; j++)
#pragma unroll
      for (int r = 0; r < 4; r++) o[j * 4 + r] *= shrink[r >> 1];
    pack();
  }
  values(tiles - 1);
  wgmma_wait<0>();
  wgmma_settle(o);
  if (leader) mbarrier_arrive(&v_empty[(tiles - 1) & 1]);

#pragma unroll
  for (int h = 0; h < 2; h++) {
    sum[h] += __shfl_xor_sync(WARP_ALL, sum[h], 1);
    sum[h] += __shfl_xor_sync(WARP_ALL, sum[h], 2);
    const int query = r0 + h * 8;
    const bool inside = query < context;
    if (inside && (lane & 3) == 0)
      log_sum[((long long)row * heads + head) * context + query] = (peak[h] * scale2 + log2_fast(sum[h])) * 0.6931471805599453f;
    store_accumulators<D>(out + ((long long)row * context + query) * heads * D + (long long)head * D, inside, o, h, 1.0f / sum[h], lane);
  }
}

}  // namespace

// Launch: grid (⌈context/128⌉, heads, rows), 384 threads, 5 · 128 · D · 2 + 128 bytes of shared memory. The tensor map is
// that of qkv, [tokens, (heads + 2 · kv_heads) · D] in boxes of 64 · 64.
KERNEL(attention_forward_sm90_64, 384, 1)
(const __grid_constant__ TensorMap qkv, const u32* attend_from, u16* out, float* log_sum, int context, int heads,
 int kv_heads, float scale) {
  attention<64>(&qkv, attend_from, out, log_sum, context, heads, kv_heads, scale);
}
KERNEL(attention_forward_sm90_128, 384, 1)
(const __grid_constant__ TensorMap qkv, const u32* attend_from, u16* out, float* log_sum, int context, int heads,
 int kv_heads, float scale) {
  attention<128>(&qkv, attend_from, out, log_sum, context, heads, kv_heads, scale);
}
