// Backward of causal attention on mma.sync, without atomics: the same bits in every run.
//
// Three kernels. `attention_delta` computes Δ = Σ dO ∘ O of every query. `attention_backward_kv` keeps a tile of
// keys and values and walks over the queries that see it, of all heads of the group; computing the transposed
// scores leaves Pᵀ and dSᵀ in registers as operands of dV += Pᵀ·dO and dK += dSᵀ·Q. `attention_backward_q` keeps a
// tile of queries and walks over its keys for dQ += dS·K. The scores are computed in both: seven products where
// five would do, and no order of additions depends on the schedule.
//
//   P = exp(S − log_sum),  dP = dO·Vᵀ,  dS = P ∘ (dP − Δ) · scale      (arXiv:2205.14135, appendix B)
#include "dev/attention.cuh"

namespace {

constexpr float LOG2E = 1.4426950408889634f;

// D: head dimension; W: width of the slice of dK and dV that one block computes; QUERIES per tile.
template <int D, int W, int QUERIES, int STAGES>
__device__ __forceinline__ void backward_kv(const u16* __restrict__ qkv, const u16* __restrict__ grad_out,
                                            const u32* __restrict__ attend_from, const float* __restrict__ log_sum,
                                            const float* __restrict__ delta, u16* __restrict__ grad_qkv, int context,
                                            int heads, int kv_heads, float scale) {
  typedef HeadTile<D> Tile;
  constexpr int KEYS = 64, THREADS = 128;
  DYNAMIC_SHARED(shared);
  u16* tile_k = (u16*)shared;
  u16* tile_v = tile_k + KEYS * D;
  u16* tiles_q = tile_v + KEYS * D;
  u16* tiles_o = tiles_q + STAGES * QUERIES * D;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int slice = blockIdx.y % (D / W) * W, kv_head = blockIdx.y / (D / W), row = blockIdx.z, group = heads / kv_heads;
  const int k0 = (int)blockIdx.x * KEYS;
  const long long stride = (long long)(heads + 2 * kv_heads) * D, out_stride = (long long)heads * D;
  const u16* qkv_row = qkv + (long long)row * context * stride;
  const u16* k = qkv_row + (long long)(heads + kv_head) * D;
  const u16* v = k + (long long)kv_heads * D;
  const u32* from = attend_from + (long long)row * context;
  const int k_end = min_of(k0 + KEYS, context);
  // Queries from the first key on, up to the last that still sees the last key.
  const int first = k0 / QUERIES, last = (first_blind(from, k0, context, k_end - 1) - 1) / QUERIES;
  const int tiles = last - first + 1, steps = tiles * group;

  auto load = [&](int step) {
    const int head = kv_head * group + step / tiles, q0 = (first + step % tiles) * QUERIES, stage = step % STAGES;
    Tile::template load<QUERIES, THREADS>(tiles_q + stage * QUERIES * D, qkv_row + (long long)head * D, stride, q0, context);
    Tile::template load<QUERIES, THREADS>(tiles_o + stage * QUERIES * D,
                                          grad_out + (long long)row * context * out_stride + (long long)head * D,
                                          out_stride, q0, context);
  };
  Tile::template load<KEYS, THREADS>(tile_k, k, stride, k0, context);
  Tile::template load<KEYS, THREADS>(tile_v, v, stride, k0, context);
  if (STAGES > 1) load(0);
  copy_async_commit();

  float dk[W / 8][4], dv[W / 8][4];
#pragma unroll
  for (int j = 0; j < W / 8; j++)
#pragma unroll
    for (int r = 0; r < 4; r++) dk[j][r] = dv[j][r] = 0.0f;
  const int key0 = k0 + warp * 16 + (lane >> 2);  // this thread's keys: key0 and key0 + 8
  const float scale2 = scale * LOG2E;

  for (int step = 0; step < steps; step++) {
    if (STAGES > 1) {
      if (step + 1 < steps) load(step + 1);
      copy_async_commit();
      copy_async_wait<1>();
    } else {
      load(step);
      copy_async_commit();
      copy_async_wait<0>();
    }
    __syncthreads();
    const u16* tq = tiles_q + step % STAGES * QUERIES * D;
    const u16* to = tiles_o + step % STAGES * QUERIES * D;
    const int head = kv_head * group + step / tiles, q0 = (first + step % tiles) * QUERIES;
    const float* lse = log_sum + ((long long)row * heads + head) * context;
    const float* del = delta + ((long long)row * heads + head) * context;

    float s[QUERIES / 8][4], dp[QUERIES / 8][4];
#pragma unroll
    for (int j = 0; j < QUERIES / 8; j++)
#pragma unroll
      for (int r = 0; r < 4; r++) s[j][r] = dp[j][r] = 0.0f;
    // Unrolled in full, some head dimensions would need more registers than there are.
#pragma unroll(D == 96 ? 2 : D / 16)
    for (int d = 0; d < D; d += 16) {
      u32 ak[4], av[4];
      Tile::a(ak, tile_k, warp * 16, d, lane);
      Tile::a(av, tile_v, warp * 16, d, lane);
#pragma unroll
      for (int j = 0; j < QUERIES / 16; j++) {
        u32 b[4];
        Tile::b(b, tq, j * 16, d, lane);
        mma_16816(s[2 * j], ak, b[0], b[1]);
        mma_16816(s[2 * j + 1], ak, b[2], b[3]);
        Tile::b(b, to, j * 16, d, lane);
        mma_16816(dp[2 * j], av, b[0], b[1]);
        mma_16816(dp[2 * j + 1], av, b[2], b[3]);
      }
    }
    // s becomes P, dp becomes dS (without the scale).
#pragma unroll
    for (int j = 0; j < QUERIES / 8; j++)
#pragma unroll
      for (int c = 0; c < 2; c++) {
        const int query = q0 + j * 8 + (lane & 3) * 2 + c;
        const bool inside = query < context;
        const float l = inside ? lse[query] * LOG2E : 0.0f, dl = inside ? del[query] : 0.0f;
        const int begin = inside ? (int)from[query] : context;
#pragma unroll
        for (int i = 0; i < 2; i++) {
          const int key = key0 + i * 8;
          float p = 0.0f, ds = 0.0f;
          if (inside && key <= query && key >= begin) {
            p = exp2_fast(s[j][2 * i + c] * scale2 - l);
            ds = p * (dp[j][2 * i + c] - dl);
          }
          s[j][2 * i + c] = p;
          dp[j][2 * i + c] = ds;
        }
      }
#pragma unroll
    for (int j = 0; j < QUERIES / 16; j++) {
      u32 p[4], ds[4];
      to_fragment(p, s[2 * j], s[2 * j + 1]);
      to_fragment(ds, dp[2 * j], dp[2 * j + 1]);
#pragma unroll
      for (int d = 0; d < W / 16; d++) {
        u32 b[4];
        Tile::b_trans(b, to, j * 16, slice + d * 16, lane);
        mma_16816(dv[2 * d], p, b[0], b[1]);
        mma_16816(dv[2 * d + 1], p, b[2], b[3]);
        Tile::b_trans(b, tq, j * 16, slice + d * 16, lane);
        mma_16816(dk[2 * d], ds, b[0], b[1]);
        mma_16816(dk[2 * d + 1], ds, b[2], b[3]);
      }
    }
    __syncthreads();
  }
  copy_async_wait<0>();

#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int key = key0 + i * 8;
    if (key >= context) continue;
    u16* gk = grad_qkv + ((long long)row * context + key) * stride + (long long)(heads + kv_head) * D + slice + (lane & 3) * 2;
    u16* gv = gk + (long long)kv_heads * D;
#pragma unroll
    for (int j = 0; j < W / 8; j++) {
      *(u32*)(gk + j * 8) = pack_bf16(dk[j][2 * i] * scale, dk[j][2 * i + 1] * scale);
      *(u32*)(gv + j * 8) = pack_bf16(dv[j][2 * i], dv[j][2 * i + 1]);
    }
  }
}

template <int D, int KEYS, int STAGES>
__device__ __forceinline__ void backward_q(const u16* __restrict__ qkv, const u16* __restrict__ grad_out,
                                           const u32* __restrict__ attend_from, const float* __restrict__ log_sum,
                                           const float* __restrict__ delta, u16* __restrict__ grad_qkv, int context,
                                           int heads, int kv_heads, float scale) {
  typedef HeadTile<D> Tile;
  constexpr int QUERIES = 64, THREADS = 128;
  DYNAMIC_SHARED(shared);
  u16* tile_q = (u16*)shared;
  u16* tile_o = tile_q + QUERIES * D;
  u16* tiles_k = tile_o + QUERIES * D;
  u16* tiles_v = tiles_k + STAGES * KEYS * D;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int head = blockIdx.y, row = blockIdx.z, kv_head = head / (heads / kv_heads);
  const int q0 = (int)(gridDim.x - 1 - blockIdx.x) * QUERIES;
  const long long stride = (long long)(heads + 2 * kv_heads) * D, out_stride = (long long)heads * D;
  const u16* qkv_row = qkv + (long long)row * context * stride;
  const u16* k = qkv_row + (long long)(heads + kv_head) * D;
  const u16* v = k + (long long)kv_heads * D;
  const u32* from = attend_from + (long long)row * context;
  const int q_end = min_of(q0 + QUERIES, context);
  const int first = (int)from[q0] / KEYS, last = (q_end - 1) / KEYS;

  auto load = [&](int n) {
    const int stage = (n - first) % STAGES;
    Tile::template load<KEYS, THREADS>(tiles_k + stage * KEYS * D, k, stride, n * KEYS, context);
    Tile::template load<KEYS, THREADS>(tiles_v + stage * KEYS * D, v, stride, n * KEYS, context);
  };
  Tile::template load<QUERIES, THREADS>(tile_q, qkv_row + (long long)head * D, stride, q0, context);
  Tile::template load<QUERIES, THREADS>(tile_o, grad_out + (long long)row * context * out_stride + (long long)head * D,
                                        out_stride, q0, context);
  if (STAGES > 1) load(first);
  copy_async_commit();

  const int r0 = q0 + warp * 16 + (lane >> 2);
  const float* lse = log_sum + ((long long)row * heads + head) * context;
  const float* del = delta + ((long long)row * heads + head) * context;
  float l[2], dl[2];
  int begin[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int query = r0 + i * 8;
    const bool inside = query < context;
    l[i] = inside ? lse[query] * LOG2E : 0.0f;
    dl[i] = inside ? del[query] : 0.0f;
    begin[i] = inside ? (int)from[query] : 0x7fffffff;
  }
  const float scale2 = scale * LOG2E;
  float dq[D / 8][4];
#pragma unroll
  for (int j = 0; j < D / 8; j++)
#pragma unroll
    for (int r = 0; r < 4; r++) dq[j][r] = 0.0f;

  for (int n = first; n <= last; n++) {
    if (STAGES > 1) {
      if (n < last) load(n + 1);
      copy_async_commit();
      copy_async_wait<1>();
    } else {
      load(n);
      copy_async_commit();
      copy_async_wait<0>();
    }
    __syncthreads();
    const u16* tk = tiles_k + (n - first) % STAGES * KEYS * D;
    const u16* tv = tiles_v + (n - first) % STAGES * KEYS * D;
    float s[KEYS / 8][4], dp[KEYS / 8][4];
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
      for (int r = 0; r < 4; r++) s[j][r] = dp[j][r] = 0.0f;
#pragma unroll
    for (int d = 0; d < D; d += 16) {
      u32 aq[4], ao[4];
      Tile::a(aq, tile_q, warp * 16, d, lane);
      Tile::a(ao, tile_o, warp * 16, d, lane);
#pragma unroll
      for (int j = 0; j < KEYS / 16; j++) {
        u32 b[4];
        Tile::b(b, tk, j * 16, d, lane);
        mma_16816(s[2 * j], aq, b[0], b[1]);
        mma_16816(s[2 * j + 1], aq, b[2], b[3]);
        Tile::b(b, tv, j * 16, d, lane);
        mma_16816(dp[2 * j], ao, b[0], b[1]);
        mma_16816(dp[2 * j + 1], ao, b[2], b[3]);
      }
    }
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
      for (int r = 0; r < 4; r++) {
        const int key = n * KEYS + j * 8 + (lane & 3) * 2 + (r & 1), i = r >> 1;
        float ds = 0.0f;
        if (key <= r0 + i * 8 && key >= begin[i]) ds = exp2_fast(s[j][r] * scale2 - l[i]) * (dp[j][r] - dl[i]);
        s[j][r] = ds;
      }
#pragma unroll
    for (int j = 0; j < KEYS / 16; j++) {
      u32 ds[4];
      to_fragment(ds, s[2 * j], s[2 * j + 1]);
#pragma unroll
      for (int d = 0; d < D / 16; d++) {
        u32 b[4];
        Tile::b_trans(b, tk, j * 16, d * 16, lane);
        mma_16816(dq[2 * d], ds, b[0], b[1]);
        mma_16816(dq[2 * d + 1], ds, b[2], b[3]);
      }
    }
    __syncthreads();
  }
  copy_async_wait<0>();
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int query = r0 + i * 8;
    if (query >= context) continue;
    u16* to = grad_qkv + ((long long)row * context + query) * stride + (long long)head * D + (lane & 3) * 2;
#pragma unroll
    for (int j = 0; j < D / 8; j++) *(u32*)(to + j * 8) = pack_bf16(dq[j][2 * i] * scale, dq[j][2 * i + 1] * scale);
  }
}

}  // namespace

// Δ[row, head, t] = Σ dO ∘ O. Launch: grid ⌈tokens · heads · lanes / 256⌉, 256 threads; `lanes`, of each query and head, is the
// power of two from head_dim / 8 on.
KERNEL(attention_delta, 256, 4)
(const u16* __restrict__ out, const u16* __restrict__ grad_out, float* __restrict__ delta, int rows, int context, int heads,
 int head_dim) {
  // Eight values for each of 4, 8, 16 or 32 lanes.
  const int lanes = head_dim <= 32 ? 4 : head_dim <= 64 ? 8 : head_dim <= 128 ? 16 : 32, at = (int)threadIdx.x % lanes;
  // 32 bits are enough for every query of every head, and divide in a fraction of the time.
  const int item = ((int)blockIdx.x * 256 + (int)threadIdx.x) / lanes;
  const bool inside = item < rows * context * heads;
  float sum = 0.0f;
  if (inside && at * 8 < head_dim) {
    const long long from = (long long)item * head_dim + at * 8;
    sum = dot_of_eight(out + from, grad_out + from);
  }
  for (int step = lanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(WARP_ALL, sum, step);
  if (!inside || at != 0) return;
  const int head = item % heads, token = item / heads, row = token / context;
  delta[((long long)row * heads + head) * context + (token - row * context)] = sum;
}

#define BACKWARD_PARAMETERS                                                                                      \
  (const u16* qkv, const u16* grad_out, const u32* attend_from, const float* log_sum, const float* delta,        \
   u16* grad_qkv, int context, int heads, int kv_heads, float scale)
#define BACKWARD_ARGUMENTS qkv, grad_out, attend_from, log_sum, delta, grad_qkv, context, heads, kv_heads, scale

// Launch: grid (⌈context/64⌉, kv_heads, rows), twice as many in y for head dimension 256; 128 threads; shared memory
// (128 + 2 · stages · queries) · D · 2 bytes with stages, queries = 2, 64 (32 and 64), 2, 32 (96 and 128), 1, 32 (256).
KERNEL(attention_backward_kv_32, 128, 2) BACKWARD_PARAMETERS { backward_kv<32, 32, 64, 2>(BACKWARD_ARGUMENTS); }
KERNEL(attention_backward_kv_64, 128, 2) BACKWARD_PARAMETERS { backward_kv<64, 64, 64, 2>(BACKWARD_ARGUMENTS); }
KERNEL(attention_backward_kv_96, 128, 1) BACKWARD_PARAMETERS { backward_kv<96, 96, 32, 2>(BACKWARD_ARGUMENTS); }
KERNEL(attention_backward_kv_128, 128, 1) BACKWARD_PARAMETERS { backward_kv<128, 128, 32, 2>(BACKWARD_ARGUMENTS); }
KERNEL(attention_backward_kv_256, 128, 1) BACKWARD_PARAMETERS { backward_kv<256, 128, 32, 1>(BACKWARD_ARGUMENTS); }

// Launch: grid (⌈context/64⌉, heads, rows); 128 threads; shared memory (128 + 2 · stages · keys) · D · 2 bytes with
// stages, keys = 2, 64 (32, 64 and 96), 2, 32 (128), 1, 32 (256).
KERNEL(attention_backward_q_32, 128, 2) BACKWARD_PARAMETERS { backward_q<32, 64, 2>(BACKWARD_ARGUMENTS); }
KERNEL(attention_backward_q_64, 128, 2) BACKWARD_PARAMETERS { backward_q<64, 64, 2>(BACKWARD_ARGUMENTS); }
KERNEL(attention_backward_q_96, 128, 1) BACKWARD_PARAMETERS { backward_q<96, 64, 2>(BACKWARD_ARGUMENTS); }
KERNEL(attention_backward_q_128, 128, 1) BACKWARD_PARAMETERS { backward_q<128, 32, 2>(BACKWARD_ARGUMENTS); }
KERNEL(attention_backward_q_256, 128, 1) BACKWARD_PARAMETERS { backward_q<256, 32, 1>(BACKWARD_ARGUMENTS); }
