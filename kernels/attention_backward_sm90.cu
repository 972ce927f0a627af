// Backward of causal attention on Hopper: TMA, mbarrier and wgmma, specialised by warpgroup (arXiv:2407.08608), without
// atomics. Inputs, outputs and formulas as in attention_backward.cu; `attention_delta` is there.
//
// A block of 384 threads: the first warpgroup loads, the other two multiply. In `backward_kv` a block owns 128 keys, 64 of
// them each warpgroup, and walks over the queries that see them, of all heads of the group: Sᵀ = K·Qᵀ and dPᵀ = V·dOᵀ
// leave Pᵀ and dSᵀ in registers as left operands of dV += Pᵀ·dO and dK += dSᵀ·Q. In `backward_q` a block owns 128 queries
// and walks over their keys for dQ += dS·K. While products run the warpgroup computes what the next ones need.
#include "dev/attention.cuh"
#include "dev/hopper.cuh"
#include "dev/quads.cuh"
#include "dev/tiles.cuh"

namespace {

constexpr float LOG2E = 1.4426950408889634f;
constexpr int OWNED = 128;

// The products by the number of their columns: A from shared memory with B k-major, and A from registers with B mn-major.
template <int N>
struct Columns;
#define COLUMNS(N)                                                                                             \
  template <>                                                                                                  \
  struct Columns<N> {                                                                                          \
    static __device__ __forceinline__ void shared(float (&d)[N / 2], u64 a, u64 b, int accumulate) {           \
      wgmma_##N(d, a, b, accumulate);                                                                          \
    }                                                                                                          \
    static __device__ __forceinline__ void registers(float (&d)[N / 2], const u32 (&a)[4], u64 b) {            \
      wgmma_##N<1>(d, a, b, 1);                                                                                \
    }                                                                                                          \
    static __device__ __forceinline__ void kept(float (&d)[N / 2], const u32 (&a)[4], u64 b, int accumulate) { \
      wgmma_##N<0>(d, a, b, accumulate);                                                                       \
    }                                                                                                          \
  };
COLUMNS(64)
COLUMNS(128)

// Rows of D values in shared memory: chunks of 64 columns, ROWS · 128 bytes each.
template <int D, int ROWS>
struct Rows {
  static constexpr int CHUNK = ROWS * 128, BYTES = ROWS * D * 2;
  // From row `y` and column `x`; the map has boxes of 64 · 64.
  static __device__ __forceinline__ void load(u8* to, const TensorMap* map, u64* full, int x, int y) {
#pragma unroll
    for (int c = 0; c < D / 64; c++)
#pragma unroll
      for (int r = 0; r < ROWS / 64; r++) tma_load(to + c * CHUNK + r * 8192, map, full, x + c * 64, y + r * 64);
  }
  // 64 rows from `first` (left operand) or all of them (right operand), depth along the columns from `d`.
  static __device__ __forceinline__ u64 k_major(const u8* at, int first, int d) {
    return descriptor_k(at + d / 64 * CHUNK + first * 128 + d % 64 * 2);
  }
  // The 16 rows of this warp from `first` as a left operand in registers.
  static __device__ __forceinline__ void operands(u32 (&a)[D / 16][4], const u8* at, int first, int lane) {
    const int row = first + fragment_row(lane);
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
      const int column = k * 16 + fragment_col(lane);
      ldmatrix(a[k], at + column / 64 * CHUNK + row * 128 + (column % 64 * 2 ^ (row & 7) << 4));
    }
  }
  // All columns, depth along the rows from `first`.
  static __device__ __forceinline__ u64 mn_major(const u8* at, int first) { return descriptor_mn(at + first * 128, CHUNK); }
};

// 16 columns of accumulators, from column 16·k, as the left operand of the next product.
__device__ __forceinline__ void to_operand(u32 (&p)[4], const float* s, int k) {
#pragma unroll
  for (int i = 0; i < 4; i++) p[i] = pack_bf16(s[k * 8 + i * 2], s[k * 8 + i * 2 + 1]);
}

// d += A · B, A from registers.
template <int N, int D, int ROWS>
__device__ __forceinline__ void multiply(float (&d)[D / 2], u32 (&a)[N][4], const u8* b) {
  wgmma_settle(d);
  wgmma_settle(a);
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < N; k++) Columns<D>::registers(d, a[k], Rows<D, ROWS>::mn_major(b, k * 16));
  wgmma_commit();
}

// d = A · Bᵀ, 64 rows of A from `first`, all of B.
template <int D, int OWN, int N>
__device__ __forceinline__ void scores(float (&d)[N / 2], const u8* a, int first, const u8* b) {
  wgmma_settle(d);
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < D; k += 16)
    Columns<N>::shared(d, Rows<D, OWN>::k_major(a, first, k), Rows<D, N>::k_major(b, 0, k), k > 0);
  wgmma_commit();
}

// The same with the rows of A in registers.
template <int D, int N>
__device__ __forceinline__ void scores(float (&d)[N / 2], const u32 (&a)[D / 16][4], const u8* b) {
  wgmma_settle(d);
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < D / 16; k++) Columns<N>::kept(d, a[k], Rows<D, N>::k_major(b, 0, k * 16), k > 0);
  wgmma_commit();
}

// What the queries of a tile have beside their vectors, staged by a warp.
template <int QUERIES>
struct Statistics {
  float log_sum[QUERIES];  // in units of log2
  float delta[QUERIES];
  int from[QUERIES];       // beyond the row: sees nothing
};

template <int D, int QUERIES>
__device__ __forceinline__ void backward_kv(const TensorMap* map, const TensorMap* map_out, const u32* __restrict__ attend_from,
                                            const float* __restrict__ log_sum, const float* __restrict__ delta,
                                            u16* __restrict__ grad_qkv, const u32* __restrict__ positions, const float* __restrict__ cos_table,
                                            const float* __restrict__ sin_table, int context, int heads, int kv_heads, float scale) {
  typedef Rows<D, OWNED> Own;
  typedef Rows<D, QUERIES> Tile;
  // A tile of queries is needed one step longer than its gradients.
  constexpr int Q_STAGES = 3, O_STAGES = 2;
  DYNAMIC_SHARED(shared);
  u8* tile_k = shared;
  u8* tile_v = tile_k + Own::BYTES;
  u8* tiles_q = tile_v + Own::BYTES;
  u8* tiles_o = tiles_q + Q_STAGES * Tile::BYTES;
  Statistics<QUERIES>* statistics = (Statistics<QUERIES>*)(tiles_o + O_STAGES * Tile::BYTES);
  u64* own_full = (u64*)(statistics + O_STAGES);
  u64 *q_full = own_full + 1, *q_empty = q_full + Q_STAGES, *o_full = q_empty + Q_STAGES, *o_empty = o_full + O_STAGES;
  // Where the gradients go, kept here until they are there: the loop has no register for it.
  long long* place = (long long*)(o_empty + O_STAGES);
  const int group = threadIdx.x >> 7, lane = threadIdx.x & 31;
  const int heads_of = heads / kv_heads;
  int tile, kv_head, row;
  head_tile_of(block_number(), gridDim.x, 4ll * D * context * heads_of, tile, kv_head, row);
  const int k0 = tile * OWNED;
  const u32* from = attend_from + (long long)row * context;
  const int k_end = min_of(k0 + OWNED, context);
  const int first = k0 / QUERIES, last = (first_blind(from, k0, context, k_end - 1) - 1) / QUERIES;
  const int tiles = last - first + 1, steps = tiles * heads_of;
  if (threadIdx.x == 0) {
    *place = ((long long)row * context * (heads + 2 * kv_heads) + heads + kv_head) * D;
    mbarrier_init(own_full, 1);
    for (int s = 0; s < Q_STAGES; s++) {
      mbarrier_init(&q_full[s], 1);
      mbarrier_init(&q_empty[s], 2);
    }
    for (int s = 0; s < O_STAGES; s++) {
      // The thread that loads and the warp that writes the statistics.
      mbarrier_init(&o_full[s], 33);
      // Every thread that read the statistics.
      mbarrier_init(&o_empty[s], 256);
    }
    fence_mbarrier_init();
  }
  __syncthreads();

  if (group == 0) {
    registers_down<24>();
    const int y = row * context;
    if (threadIdx.x == 0) {
      mbarrier_expect(own_full, 2 * Own::BYTES);
      Own::load(tile_k, map, own_full, (heads + kv_head) * D, y + k0);
      Own::load(tile_v, map, own_full, (heads + kv_heads + kv_head) * D, y + k0);
      for (int step = 0; step < steps; step++) {
        const int sq = step % Q_STAGES, so = step % O_STAGES;
        const int head = kv_head * heads_of + step / tiles, q0 = (first + step % tiles) * QUERIES;
#ifndef BUG_ATTENTION_SM90_EMPTY
        mbarrier_wait(&q_empty[sq], (step / Q_STAGES & 1) ^ 1);
#endif
        mbarrier_expect(&q_full[sq], Tile::BYTES);
        Tile::load(tiles_q + sq * Tile::BYTES, map, &q_full[sq], head * D, y + q0);
        mbarrier_wait(&o_empty[so], (step / O_STAGES & 1) ^ 1);
        mbarrier_expect(&o_full[so], Tile::BYTES);
        Tile::load(tiles_o + so * Tile::BYTES, map_out, &o_full[so], head * D, y + q0);
      }
    } else if (threadIdx.x >= 32 && threadIdx.x < 64) {
      for (int step = 0; step < steps; step++) {
        const int s = step % O_STAGES, head = kv_head * heads_of + step / tiles, q0 = (first + step % tiles) * QUERIES;
        const long long at = ((long long)row * heads + head) * context;
        mbarrier_wait(&o_empty[s], (step / O_STAGES & 1) ^ 1);
        for (int i = lane; i < QUERIES; i += 32) {
          const int query = q0 + i;
          const bool inside = query < context;
          statistics[s].log_sum[i] = inside ? log_sum[at + query] * LOG2E : 0.0f;
          statistics[s].delta[i] = inside ? delta[at + query] : 0.0f;
          statistics[s].from[i] = inside ? (int)from[query] : 0x7fffffff;
        }
        mbarrier_arrive(&o_full[s]);
      }
    }
    return;
  }

  registers_up<240>();
  const int warp = threadIdx.x >> 5 & 3, w = group - 1;
  const bool leader = (threadIdx.x & 127) == 0;
  const int own0 = k0 + w * 64, key0 = own0 + warp * 16 + (lane >> 2);  // this thread's keys: key0 and key0 + 8
  const float scale2 = scale * LOG2E;
  float dk[D / 2], dv[D / 2], s[QUERIES / 2], dp[QUERIES / 2];
  u32 p[QUERIES / 16][4], ds[QUERIES / 16][4];
  // Products of 64 columns would wait for shared memory, were their left operands there too.
  u32 held_k[D / 16][4], held_v[D / 16][4];
#pragma unroll
  for (int j = 0; j < D / 2; j++) dk[j] = dv[j] = 0.0f;

  // Few variables: the loop has no register to spare.
  int qs = 0, q_use = 0, step = 0, q0 = first * QUERIES;
  // Starts Sᵀ, from the tile of queries.
  auto start = [&]() {
    mbarrier_wait(&q_full[qs], q_use);
    scores<D, QUERIES>(s, held_k, tiles_q + qs * Tile::BYTES);
  };
  // Starts dPᵀ, from the tile of their gradients.
  auto start_gradients = [&]() {
    mbarrier_wait(&o_full[step & 1], step >> 1 & 1);
    scores<D, QUERIES>(dp, held_v, tiles_o + (step & 1) * Tile::BYTES);
  };
  // Turns S into P.
  auto probabilities = [&]() {
    const Statistics<QUERIES>& st = statistics[step & 1];
#pragma unroll
    for (int j = 0; j < QUERIES / 8; j++)
#pragma unroll
      for (int c = 0; c < 2; c++) {
        const float l = st.log_sum[j * 8 + (lane & 3) * 2 + c];
#pragma unroll
        for (int h = 0; h < 2; h++) s[j * 4 + h * 2 + c] = exp2_fast(s[j * 4 + h * 2 + c] * scale2 - l);
      }
    if (own0 + 63 > q0 || st.from[QUERIES - 1] > own0) {
#pragma unroll
      for (int j = 0; j < QUERIES / 8; j++)
#pragma unroll
        for (int c = 0; c < 2; c++) {
          const int i = j * 8 + (lane & 3) * 2 + c, begin = st.from[i];
#pragma unroll
          for (int h = 0; h < 2; h++)
            if (key0 + h * 8 > q0 + i || key0 + h * 8 < begin) s[j * 4 + h * 2 + c] = 0.0f;
        }
    }
  };
  // Starts dV += Pᵀ·dO.
  auto values = [&]() {
#pragma unroll
    for (int k = 0; k < QUERIES / 16; k++) to_operand(p[k], s, k);
    multiply<QUERIES / 16, D, QUERIES>(dv, p, tiles_o + (step & 1) * Tile::BYTES);
  };
  // dS, without the scale.
  auto gradients = [&]() {
    const Statistics<QUERIES>& st = statistics[step & 1];
#pragma unroll
    for (int j = 0; j < QUERIES / 8; j++)
#pragma unroll
      for (int c = 0; c < 2; c++) {
        const float d = st.delta[j * 8 + (lane & 3) * 2 + c];
#pragma unroll
        for (int h = 0; h < 2; h++) dp[j * 4 + h * 2 + c] = s[j * 4 + h * 2 + c] * (dp[j * 4 + h * 2 + c] - d);
      }
  };
  auto pack = [&]() {
#pragma unroll
    for (int k = 0; k < QUERIES / 16; k++) to_operand(ds[k], dp, k);
  };
  // Starts dK += dSᵀ·Q.
  auto add = [&](int at) { multiply<QUERIES / 16, D, QUERIES>(dk, ds, tiles_q + at * Tile::BYTES); };
  // After dV is complete: everybody is done with the gradients of the outputs, and with the statistics too.
  auto release = [&]() {
    wgmma_settle(dv);
    wgmma_settle(p);
#ifdef BUG_ATTENTION_SM90_STATISTICS
    for (int i = 0; leader && i < 128; i++) mbarrier_arrive(&o_empty[step & 1]);
#else
    mbarrier_arrive(&o_empty[step & 1]);
#endif
  };

  mbarrier_wait(own_full, 0);
  Own::operands(held_k, tile_k, w * 64 + warp * 16, lane);
  Own::operands(held_v, tile_v, w * 64 + warp * 16, lane);
  start();
  start_gradients();
  wgmma_wait<1>();
  wgmma_settle(s);
  probabilities();
  values();
  wgmma_wait<1>();
  wgmma_settle(dp);
  gradients();
  wgmma_wait<0>();
  release();
  pack();
  // Every turn starts the same products and waits for all of them, or the compiler would wait for each at once.
  for (step = 1; step < steps; step++) {
    const int before = qs;
    if (++qs == Q_STAGES) qs = 0, q_use ^= 1;
    q0 = q0 == last * QUERIES ? first * QUERIES : q0 + QUERIES;
    start();
    add(before);
    start_gradients();
    wgmma_wait<2>();
    wgmma_settle(s);
    probabilities();
    // The registers of dS are needed for P.
    wgmma_wait<1>();
    wgmma_settle(dk);
    wgmma_settle(ds);
    if (leader) mbarrier_arrive(&q_empty[before]);
    values();
    wgmma_wait<1>();
    wgmma_settle(dp);
    gradients();
    wgmma_wait<0>();
    release();
    pack();
  }
  add(qs);
  wgmma_wait<0>();
  wgmma_settle(dk);

  const long long stride = (long long)(heads + 2 * kv_heads) * D;
  u16* grad_k = grad_qkv + *place;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int key = key0 + h * 8;
    u16* to = grad_k + key * stride;
    if (positions) {
      const long long angles = (long long)positions[(long long)row * context + min_of(key, context - 1)] * (D / 2);
      turn_back<D>(dk, h, cos_table + angles, sin_table + angles, lane);
    }
    store_accumulators<D>(to, key < context, dk, h, scale, lane);
    store_accumulators<D>(to + (long long)kv_heads * D, key < context, dv, h, 1.0f, lane);
  }
}

template <int D, int KEYS>
__device__ __forceinline__ void backward_q(const TensorMap* map, const TensorMap* map_out, const u32* __restrict__ attend_from,
                                           const float* __restrict__ log_sum, const float* __restrict__ delta,
                                           u16* __restrict__ grad_qkv, const u32* __restrict__ positions, const float* __restrict__ cos_table,
                                           const float* __restrict__ sin_table, int context, int heads, int kv_heads, float scale) {
  typedef Rows<D, OWNED> Own;
  typedef Rows<D, KEYS> Tile;
  // A tile of keys is needed one step longer than its values.
  constexpr int K_STAGES = 3, V_STAGES = 2;
  DYNAMIC_SHARED(shared);
  u8* tile_q = shared;
  u8* tile_o = tile_q + Own::BYTES;
  u8* tiles_k = tile_o + Own::BYTES;
  u8* tiles_v = tiles_k + K_STAGES * Tile::BYTES;
  u64* own_full = (u64*)(tiles_v + V_STAGES * Tile::BYTES);
  u64 *k_full = own_full + 1, *k_empty = k_full + K_STAGES, *v_full = k_empty + K_STAGES, *v_empty = v_full + V_STAGES;
  const int group = threadIdx.x >> 7, lane = threadIdx.x & 31;
  int tile, head, row;
  head_tile_of(block_number(), gridDim.x, 4ll * D * context * kv_heads / heads, tile, head, row);
  const int kv_head = head / (heads / kv_heads);
  const int q0 = ((int)gridDim.x - 1 - tile) * OWNED, q_end = min_of(q0 + OWNED, context);
  const u32* from = attend_from + (long long)row * context;
  const int first = (int)from[q0] / KEYS, tiles = (q_end - 1) / KEYS - first + 1;
  if (threadIdx.x == 0) {
    mbarrier_init(own_full, 1);
    for (int s = 0; s < K_STAGES; s++) {
      mbarrier_init(&k_full[s], 1);
      mbarrier_init(&k_empty[s], 2);
    }
    for (int s = 0; s < V_STAGES; s++) {
      mbarrier_init(&v_full[s], 1);
      mbarrier_init(&v_empty[s], 2);
    }
    fence_mbarrier_init();
  }
  __syncthreads();

  if (group == 0) {
    registers_down<24>();
    if (threadIdx.x == 0) {
      const int y = row * context;
      mbarrier_expect(own_full, 2 * Own::BYTES);
      Own::load(tile_q, map, own_full, head * D, y + q0);
      Own::load(tile_o, map_out, own_full, head * D, y + q0);
      for (int i = 0; i < tiles; i++) {
        const int sk = i % K_STAGES, sv = i % V_STAGES, key = y + (first + i) * KEYS;
        mbarrier_wait(&k_empty[sk], (i / K_STAGES & 1) ^ 1);
        mbarrier_expect(&k_full[sk], Tile::BYTES);
        Tile::load(tiles_k + sk * Tile::BYTES, map, &k_full[sk], (heads + kv_head) * D, key);
        mbarrier_wait(&v_empty[sv], (i / V_STAGES & 1) ^ 1);
        mbarrier_expect(&v_full[sv], Tile::BYTES);
        Tile::load(tiles_v + sv * Tile::BYTES, map, &v_full[sv], (heads + kv_heads + kv_head) * D, key);
      }
    }
    return;
  }

  registers_up<240>();
  const int warp = threadIdx.x >> 5 & 3, w = group - 1;
  const bool leader = (threadIdx.x & 127) == 0;
  const int own0 = q0 + w * 64, r0 = own0 + warp * 16 + (lane >> 2);  // this thread's queries: r0 and r0 + 8
  const int latest_from = (int)from[min_of(own0 + 64, context) - 1];
  const float scale2 = scale * LOG2E;
  float l[2], dl[2];
  int begin[2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int query = r0 + h * 8;
    const bool inside = query < context;
    const long long at = ((long long)row * heads + head) * context + query;
    l[h] = inside ? log_sum[at] * LOG2E : 0.0f;
    dl[h] = inside ? delta[at] : 0.0f;
    begin[h] = inside ? (int)from[query] : 0x7fffffff;
  }
  float dq[D / 2], s[KEYS / 2], dp[KEYS / 2];
  u32 ds[KEYS / 16][4];
#pragma unroll
  for (int j = 0; j < D / 2; j++) dq[j] = 0.0f;

  int ks = 0, k_use = 0, vs = 0, v_use = 0, t0 = first * KEYS;
  // Starts S and dP.
  auto start = [&]() {
    mbarrier_wait(&k_full[ks], k_use);
    scores<D, OWNED, KEYS>(s, tile_q, w * 64, tiles_k + ks * Tile::BYTES);
    mbarrier_wait(&v_full[vs], v_use);
    scores<D, OWNED, KEYS>(dp, tile_o, w * 64, tiles_v + vs * Tile::BYTES);
  };
  // Starts dQ += dS·K.
  auto add = [&](int at) { multiply<KEYS / 16, D, KEYS>(dq, ds, tiles_k + at * Tile::BYTES); };
  auto probabilities = [&]() {
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
      for (int r = 0; r < 4; r++) s[j * 4 + r] = exp2_fast(s[j * 4 + r] * scale2 - l[r >> 1]);
    // Rows beyond the context are not stored, whatever is in them.
    if (t0 + KEYS - 1 <= own0 && latest_from <= t0) return;
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
      for (int r = 0; r < 4; r++) {
        const int key = t0 + j * 8 + (lane & 3) * 2 + (r & 1), h = r >> 1;
        if (key > r0 + h * 8 || key < begin[h]) s[j * 4 + r] = 0.0f;
      }
  };
  auto gradients = [&]() {
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
      for (int r = 0; r < 4; r++) dp[j * 4 + r] = s[j * 4 + r] * (dp[j * 4 + r] - dl[r >> 1]);
  };
  auto pack = [&]() {
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++) to_operand(ds[k], dp, k);
  };

  mbarrier_wait(own_full, 0);
  start();
  wgmma_wait<0>();
  wgmma_settle(s);
  wgmma_settle(dp);
  if (leader) mbarrier_arrive(&v_empty[0]);
  probabilities();
  gradients();
  pack();
  for (int i = 1; i < tiles; i++) {
    const int before = ks;
    if (++ks == K_STAGES) ks = 0, k_use ^= 1;
    if (++vs == V_STAGES) vs = 0, v_use ^= 1;
    t0 += KEYS;
    start();
    add(before);
    wgmma_wait<2>();
    wgmma_settle(s);
    probabilities();
    wgmma_wait<1>();
    wgmma_settle(dp);
    if (leader) mbarrier_arrive(&v_empty[vs]);
    gradients();
    wgmma_wait<0>();
    wgmma_settle(dq);
    wgmma_settle(ds);
    if (leader) mbarrier_arrive(&k_empty[before]);
    pack();
  }
  add(ks);
  wgmma_wait<0>();
  wgmma_settle(dq);

  const long long stride = (long long)(heads + 2 * kv_heads) * D;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int query = r0 + h * 8;
    if (positions) {
      const long long angles = (long long)positions[(long long)row * context + min_of(query, context - 1)] * (D / 2);
      turn_back<D>(dq, h, cos_table + angles, sin_table + angles, lane);
    }
    store_accumulators<D>(grad_qkv + ((long long)row * context + query) * stride + (long long)head * D, query < context, dq, h, scale, lane);
  }
}

}  // namespace

#define BACKWARD_PARAMETERS                                                                                           \
  (const __grid_constant__ TensorMap qkv, const __grid_constant__ TensorMap grad_out, const u32* attend_from,         \
   const float* log_sum, const float* delta, u16* grad_qkv, const u32* positions, const float* cos_table,             \
   const float* sin_table, int context, int heads, int kv_heads, float scale)
#define BACKWARD_ARGUMENTS                                                                                             \
  &qkv, &grad_out, attend_from, log_sum, delta, grad_qkv, positions, cos_table, sin_table, context, heads, kv_heads, scale

// Heads of 64; for those of 128 there is attention_backward_fused_sm90.cu.
//
// 384 threads. Tensor maps in boxes of 64 · 64: qkv [tokens, (heads + 2 · kv_heads) · D], grad_out [tokens, heads · D]. Where
// `positions` is not null, the gradients of queries and keys are turned back by the angles of cos and sin [positions, D/2].
// Launch: grid (⌈context/128⌉, kv_heads, rows), shared memory (256 + 5 · 64) · D · 2 + 24 · 64 + 128 bytes.
KERNEL(attention_backward_sm90_kv_64, 384, 1) BACKWARD_PARAMETERS { backward_kv<64, 64>(BACKWARD_ARGUMENTS); }
// Launch: grid (⌈context/128⌉, heads, rows), shared memory (256 + 5 · 128) · D · 2 + 128 bytes.
KERNEL(attention_backward_sm90_q_64, 384, 1) BACKWARD_PARAMETERS { backward_q<64, 128>(BACKWARD_ARGUMENTS); }
