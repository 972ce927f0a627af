// Backward of causal attention on Hopper: TMA, mbarrier and wgmma, specialised by warpgroup (arXiv:2407.08608). Five
// products, and no order of additions that depends on the schedule. Formulas as in attention_backward.cu.
//
// A block of 384 threads owns 128 keys of one head and walks over the queries that see them, of all heads of the group. Its
// first warpgroup loads and stores, the other two keep 64 keys each: Sᵀ = K·Qᵀ and dPᵀ = V·dOᵀ leave Pᵀ and dSᵀ in registers
// as left operands of dV += Pᵀ·dO and dK += dSᵀ·Q. dSᵀ also goes to shared memory, from where each of the two computes half
// of the columns of dQ = dS·K over all 128 keys.
//
// The dQ of a tile of 64 queries is a sum over the blocks of the keys it sees, made in memory by the copy engine. Blocks add
// to it in the order of their keys: a counter beside every tile says whose turn it is. They take their keys in that order too,
// as they begin, and walk from the last queries to the first: so a block waits only for blocks that began before it, and once
// it is a step behind them it waits no more.
#include "dev/attention.cuh"
#include "dev/hopper.cuh"
#include "dev/quads.cuh"
#include "dev/tiles.cuh"

namespace {

constexpr float LOG2E = 1.4426950408889634f;
constexpr int OWNED = 128, QUERIES = 64;

// The products by the number of their columns: of operands that are k-major, that are mn-major in shared memory, and of a
// left operand in registers with either.
template <int N>
struct Columns;
#define COLUMNS(N)                                                                                              \
  template <>                                                                                                   \
  struct Columns<N> {                                                                                           \
    template <int TA, int TB>                                                                                   \
    static __device__ __forceinline__ void shared(float (&d)[N / 2], u64 a, u64 b, bool first) {                \
      if (first)                                                                                                \
        wgmma_first_##N<TA, TB>(d, a, b);                                                                       \
      else                                                                                                      \
        wgmma_##N<TA, TB>(d, a, b, 1);                                                                          \
    }                                                                                                           \
    static __device__ __forceinline__ void kept(float (&d)[N / 2], const u32 (&a)[4], u64 b, bool first) {      \
      if (first)                                                                                                \
        wgmma_first_##N<0>(d, a, b);                                                                            \
      else                                                                                                      \
        wgmma_##N<0>(d, a, b, 1);                                                                               \
    }                                                                                                           \
  };
COLUMNS(32)
COLUMNS(64)
#undef COLUMNS

__device__ __forceinline__ void accumulate(float (&d)[64], u64 a, u64 b) { wgmma_128<0, 1>(d, a, b, 1); }
__device__ __forceinline__ void accumulate(float (&d)[32], const u32 (&a)[4], u64 b) { wgmma_64<1>(d, a, b, 1); }
__device__ __forceinline__ void accumulate(float (&d)[64], const u32 (&a)[4], u64 b) { wgmma_128<1>(d, a, b, 1); }

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
  // From a descriptor of rows (all of them, or 64 of a left operand) with their depth along the columns: to column `d`.
  static __device__ __forceinline__ u64 column(u64 descriptor, int d) { return descriptor + ((d / 64 * CHUNK + d % 64 * 2) >> 4); }
  // The 16 rows of this warp from `first` as a left operand in registers.
  static __device__ __forceinline__ void operands(u32 (&a)[D / 16][4], const u8* at, int first, int lane) {
    const int row = first + fragment_row(lane);
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
      const int column = k * 16 + fragment_col(lane);
      ldmatrix(a[k], at + column / 64 * CHUNK + row * 128 + (column % 64 * 2 ^ (row & 7) << 4));
    }
  }
  // The same with their depth along the rows: to row `d`.
  static __device__ __forceinline__ u64 row(u64 descriptor, int d) { return descriptor + (d * 128 >> 4); }
};

// 16 columns of accumulators, from column 16·k, as the left operand of the next product.
__device__ __forceinline__ void to_operand(u32 (&p)[4], const float* s, int k) {
#pragma unroll
  for (int i = 0; i < 4; i++) p[i] = pack_bf16(s[k * 8 + i * 2], s[k * 8 + i * 2 + 1]);
}

// Descriptors are made anew where they are used: kept over a loop for every step of depth, they would take all registers.
__device__ __forceinline__ u64 k_major(const u8* at) {
  u64 d = descriptor_k(at);
  anew(d);
  return d;
}
__device__ __forceinline__ u64 mn_major(const u8* at, u32 leading_bytes) {
  u64 d = descriptor_mn(at, leading_bytes);
  anew(d);
  return d;
}

// d += A · B, A from registers.
template <int N, int D, int ROWS>
__device__ __forceinline__ void multiply(float (&d)[D / 2], u32 (&a)[N][4], const u8* b) {
  wgmma_settle(d);
  wgmma_settle(a);
  wgmma_fence();
  const u64 of_b = mn_major(b, Rows<D, ROWS>::CHUNK);
#pragma unroll
  for (int k = 0; k < N; k++) accumulate(d, a[k], Rows<D, ROWS>::row(of_b, k * 16));
  wgmma_commit();
}

// d = A · Bᵀ, all of B; `a`: 64 rows of OWN.
template <int D, int OWN, int N>
__device__ __forceinline__ void scores(float (&d)[N / 2], const u8* a, const u8* b) {
  wgmma_fence();
  const u64 of_a = k_major(a), of_b = k_major(b);
#pragma unroll
  for (int k = 0; k < D; k += 16)
    Columns<N>::template shared<0, 0>(d, Rows<D, OWN>::column(of_a, k), Rows<D, N>::column(of_b, k), k == 0);
  wgmma_commit();
}

// The same with the rows of A in registers.
template <int D, int N>
__device__ __forceinline__ void scores(float (&d)[N / 2], const u32 (&a)[D / 16][4], const u8* b) {
  wgmma_fence();
  const u64 of_b = k_major(b);
#pragma unroll
  for (int k = 0; k < D / 16; k++) Columns<N>::kept(d, a[k], Rows<D, N>::column(of_b, k * 16), k == 0);
  wgmma_commit();
}

// What the queries of a tile have beside their vectors, as `attention_backward_fused_sm90_begin` leaves it in memory.
struct Statistics {
  float log_sum[QUERIES];  // in units of log2
  float delta[QUERIES];
  int from[QUERIES];       // beyond the row: sees nothing
};
constexpr u32 SUMS_BYTES = 2 * QUERIES * 4, FROM_BYTES = QUERIES * 4;

// On to the tile of queries before; from the first to the last of the next head, `width` columns on.
__device__ __forceinline__ void step_back(int first, int last, int all, int width, int& t, int& at, int& x) {
  if (t != first) {
    t--, at--;
    return;
  }
  t = last, at += all + last - first, x += width;
}

template <int D>
__device__ __forceinline__ void backward(const TensorMap* map, const TensorMap* map_out, const u32* __restrict__ attend_from,
                                         const float* __restrict__ sums, const u32* __restrict__ from_tiles, float* grad_q, u32* turns,
                                         u16* __restrict__ grad_qkv, const u32* __restrict__ positions,
                                         const float* __restrict__ cos_table, const float* __restrict__ sin_table, int context,
                                         int heads, int kv_heads, float scale) {
  typedef Rows<D, OWNED> Own;
  typedef Rows<D, QUERIES> Tile;
  // A tile of queries is needed one step longer than its gradients.
  constexpr int Q_STAGES = 3, O_STAGES = 2, DS_BYTES = OWNED * QUERIES * 2, STAGED_BYTES = QUERIES * D * 4;
  // Tiles of dQ on their way to memory: as many as there is room for, one after the other in the care of three warps, since to
  // wait for a turn, for the copy and to pass the turn on takes longer than a step.
  constexpr int STAGED = D == 64 ? 3 : 1, WRITERS = 3;
  DYNAMIC_SHARED(shared);
  u8* tile_k = shared;
  u8* tile_v = tile_k + Own::BYTES;
  u8* tiles_q = tile_v + Own::BYTES;
  u8* tiles_o = tiles_q + Q_STAGES * Tile::BYTES;
  u8* tiles_ds = tiles_o + O_STAGES * Tile::BYTES;
  u8* staged = tiles_ds + 2 * DS_BYTES;
  Statistics* statistics = (Statistics*)(staged + STAGED * STAGED_BYTES);
  u64* own_full = (u64*)(statistics + O_STAGES);
  u64 *q_full = own_full + 1, *q_empty = q_full + Q_STAGES, *o_full = q_empty + Q_STAGES, *o_empty = o_full + O_STAGES;
  u64 *staged_full = o_empty + O_STAGES, *staged_empty = staged_full + WRITERS;
  // What the loop has no register for: where the gradients go, and the walk.
  long long* place = (long long*)(staged_empty + STAGED);
  int* walk = (int*)(place + 1);
  const int group = threadIdx.x >> 7, lane = threadIdx.x & 31;
  const int heads_of = heads / kv_heads, all = (context + QUERIES - 1) / QUERIES;
  if (threadIdx.x == 0) walk[0] = (int)(take_number(turns + (long long)gridDim.z * heads * all) % (gridDim.x * gridDim.y * gridDim.z));
  __syncthreads();
  int tile, kv_head, row;
  head_tile_of<32>(walk[0], gridDim.x, 4ll * D * context * heads_of, tile, kv_head, row);
  // Everybody has it before it is overwritten.
  __syncthreads();
  const int k0 = tile * OWNED;
  const u32* from = attend_from + (long long)row * context;
  const int k_end = min_of(k0 + OWNED, context);
  const int first = k0 / QUERIES, last = (first_blind(from, k0, context, k_end - 1) - 1) / QUERIES;
  const int tiles = last - first + 1, steps = tiles * heads_of;
  if (threadIdx.x == 0) {
    walk[0] = first * QUERIES, walk[1] = last * QUERIES;
    *place = ((long long)row * context * (heads + 2 * kv_heads) + heads + kv_head) * D;
    mbarrier_init(own_full, 1);
    for (int s = 0; s < Q_STAGES; s++) {
      mbarrier_init(&q_full[s], 1);
      mbarrier_init(&q_empty[s], 2);
    }
    for (int s = 0; s < O_STAGES; s++) {
      mbarrier_init(&o_full[s], 1);
      // Every thread that read the statistics.
      mbarrier_init(&o_empty[s], 256);
    }
    // Every thread that wrote its part.
    for (int s = 0; s < WRITERS; s++) mbarrier_init(&staged_full[s], 256);
    for (int s = 0; s < STAGED; s++) mbarrier_init(&staged_empty[s], 1);
    fence_mbarrier_init();
  }
  __syncthreads();

  if (group == 0) {
    registers_down<D == 64 ? 40 : 24>();
    const int y = row * context;
    if (threadIdx.x == 0) {
      mbarrier_expect(own_full, 2 * Own::BYTES);
      Own::load(tile_k, map, own_full, (heads + kv_head) * D, y + k0);
      Own::load(tile_v, map, own_full, (heads + kv_heads + kv_head) * D, y + k0);
      int t = last, at = (row * heads + kv_head * heads_of) * all + last, x = kv_head * heads_of * D;
#pragma unroll 1
      for (int step = 0; step < steps; step++) {
        const int sq = step % Q_STAGES, so = step % O_STAGES;
#ifndef BUG_ATTENTION_SM90_EMPTY
        mbarrier_wait(&q_empty[sq], (step / Q_STAGES & 1) ^ 1);
#endif
        mbarrier_expect(&q_full[sq], Tile::BYTES);
        Tile::load(tiles_q + sq * Tile::BYTES, map, &q_full[sq], x, y + t * QUERIES);
        mbarrier_wait(&o_empty[so], (step / O_STAGES & 1) ^ 1);
        mbarrier_expect(&o_full[so], Tile::BYTES + SUMS_BYTES + FROM_BYTES);
        Tile::load(tiles_o + so * Tile::BYTES, map_out, &o_full[so], x, y + t * QUERIES);
        bulk_load(statistics[so].log_sum, sums + (long long)at * (2 * QUERIES), &o_full[so], SUMS_BYTES);
        bulk_load(statistics[so].from, from_tiles + (row * all + t) * QUERIES, &o_full[so], FROM_BYTES);
        step_back(first, last, all, D, t, at, x);
      }
    } else if (lane == 0) {
      // Adds what is staged to the dQ of its tile when it is this block's turn, and passes the turn on when that is done.
      const int mine = (int)(threadIdx.x >> 5) - 1;
      int t = last, at = (row * heads + kv_head * heads_of) * all + last, x = 0;
#pragma unroll 1
      for (int step = 0; step < steps; step++) {
        if (step % WRITERS == mine) {
          u8* from = staged + step % STAGED * STAGED_BYTES;
          // So many blocks of keys come before this one.
          const u32 before = (u32)(tile - (int)from_tiles[(row * all + t) * QUERIES] / OWNED);
          while (before != 0 && !turn_is(turns + at, before)) {
          }
          mbarrier_wait(&staged_full[mine], step / WRITERS & 1);
          if (before == 0) {
            bulk_store(grad_q + (long long)at * (QUERIES * D), from, STAGED_BYTES);
          } else {
            fence_async_global();
            bulk_add(grad_q + (long long)at * (QUERIES * D), from, STAGED_BYTES);
          }
          bulk_commit();
          bulk_wait_read<0>();
          mbarrier_arrive(&staged_empty[step % STAGED]);
          bulk_wait<0>();
          // The last leaves the counter as it was found.
          pass_turn(turns + at, t / (OWNED / QUERIES) == tile ? 0 : before + 1);
        }
        step_back(first, last, all, 0, t, at, x);
      }
    }
    return;
  }

  registers_up<D == 64 ? 232 : 240>();
  const int warp = threadIdx.x >> 5 & 3, w = group - 1;
  const bool leader = (threadIdx.x & 127) == 0;
  const int own0 = k0 + w * 64, key0 = own0 + warp * 16 + (lane >> 2);  // this thread's keys: key0 and key0 + 8
  const float scale2 = scale * LOG2E;
  float dk[D / 2], dv[D / 2], s[QUERIES / 2], dp[QUERIES / 2], dq[D / 4];
  u32 p[QUERIES / 16][4], ds[QUERIES / 16][4];
  // Where there are registers for them, what is owned and dS are left operands there: products of 64 columns wait for shared
  // memory when both operands come from it.
  constexpr bool HELD = D == 64;
  u32 held_k[HELD ? D / 16 : 1][4], held_v[HELD ? D / 16 : 1][4];
#pragma unroll
  for (int j = 0; j < D / 2; j++) dk[j] = dv[j] = 0.0f;

  // Few variables: the loop has no register to spare.
  int qs = 0, q_use = 0, step = 0, q0 = last * QUERIES;
  // Starts Sᵀ, from the tile of queries.
  auto start = [&]() {
    mbarrier_wait(&q_full[qs], q_use);
    if constexpr (HELD)
      scores<D, QUERIES>(s, held_k, tiles_q + qs * Tile::BYTES);
    else
      scores<D, OWNED, QUERIES>(s, tile_k + w * 8192, tiles_q + qs * Tile::BYTES);
  };
  // Starts dPᵀ, from the tile of their gradients.
  auto start_gradients = [&]() {
    if constexpr (HELD)
      scores<D, QUERIES>(dp, held_v, tiles_o + (step & 1) * Tile::BYTES);
    else
      scores<D, OWNED, QUERIES>(dp, tile_v + w * 8192, tiles_o + (step & 1) * Tile::BYTES);
  };
  // Turns S into P.
  auto probabilities = [&]() {
    const Statistics& st = statistics[step & 1];
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
  // dS, without the scale; to shared memory as well, a row for each key, swizzled as TMA does.
  auto gradients = [&]() {
    const Statistics& st = statistics[step & 1];
#pragma unroll
    for (int j = 0; j < QUERIES / 8; j++)
#pragma unroll
      for (int c = 0; c < 2; c++) {
        const float d = st.delta[j * 8 + (lane & 3) * 2 + c];
#pragma unroll
        for (int h = 0; h < 2; h++) dp[j * 4 + h * 2 + c] = s[j * 4 + h * 2 + c] * (dp[j * 4 + h * 2 + c] - d);
      }
    // Of the first eight columns; those of the others differ in three bits. Not kept for each of them over the loop.
    int at = (step & 1) * DS_BYTES + (w * 64 + warp * 16 + (lane >> 2)) * (QUERIES * 2) + (lane >> 2) * 16 + (lane & 3) * 4;
    anew(at);
#pragma unroll
    for (int j = 0; j < QUERIES / 8; j++)
#pragma unroll
      for (int h = 0; h < 2; h++)
        *(u32*)(tiles_ds + h * 8 * (QUERIES * 2) + (at ^ j << 4)) = pack_bf16(dp[j * 4 + h * 2], dp[j * 4 + h * 2 + 1]);
  };
  auto pack = [&]() {
    if constexpr (HELD) {
#pragma unroll
      for (int k = 0; k < QUERIES / 16; k++) to_operand(ds[k], dp, k);
    }
  };
  // Starts dK += dSᵀ·Q of a step.
  auto add = [&](int of, int at) {
    if constexpr (HELD) {
      multiply<QUERIES / 16, D, QUERIES>(dk, ds, tiles_q + at * Tile::BYTES);
    } else {
      wgmma_settle(dk);
      wgmma_fence();
      const u64 of_a = k_major(tiles_ds + (of & 1) * DS_BYTES + w * (DS_BYTES / 2)), of_b = mn_major(tiles_q + at * Tile::BYTES, Tile::CHUNK);
#pragma unroll
      for (int k = 0; k < QUERIES; k += 16) accumulate(dk, Rows<QUERIES, OWNED>::column(of_a, k), Tile::row(of_b, k));
      wgmma_commit();
    }
  };
  // Starts dQ = dS·K of a step: this warpgroup's half of the columns, over the keys of both.
  auto queries = [&](int of) {
    wgmma_fence();
    const u64 of_a = mn_major(tiles_ds + (of & 1) * DS_BYTES, 8192), of_b = mn_major(tile_k + w * (D == 128 ? Own::CHUNK : D), Own::CHUNK);
#pragma unroll
    for (int k = 0; k < OWNED; k += 16) Columns<D / 2>::template shared<1, 1>(dq, Own::row(of_a, k), Own::row(of_b, k), k == 0);
    wgmma_commit();
  };
  // dQ of a step to where it is added from, as it lies in the registers.
  auto stage = [&](int of) {
    const int at = of % STAGED, use = of / STAGED & 1;
    mbarrier_wait(&staged_empty[at], use ^ 1);
    Quad* to = (Quad*)(staged + at * STAGED_BYTES + w * (STAGED_BYTES / 2)) + (threadIdx.x & 127);
#pragma unroll
    for (int j = 0; j < D / 16; j++)
      to[j * 128] = Quad{{__float_as_uint(dq[j * 4]), __float_as_uint(dq[j * 4 + 1]), __float_as_uint(dq[j * 4 + 2]), __float_as_uint(dq[j * 4 + 3])}};
    fence_async_proxy();
    mbarrier_arrive(&staged_full[of % WRITERS]);
  };
  // After dV is complete: everybody has written dS, and is done with the gradients of the outputs and the statistics.
  auto meet = [&]() {
    wgmma_settle(dv);
    wgmma_settle(p);
    fence_async_proxy();
#ifndef BUG_ATTENTION_SM90_MEET
    named_barrier(1, 256);
#endif
    mbarrier_arrive(&o_empty[step & 1]);
  };

  mbarrier_wait(own_full, 0);
  if constexpr (HELD) {
    Own::operands(held_k, tile_k, w * 64 + warp * 16, lane);
    Own::operands(held_v, tile_v, w * 64 + warp * 16, lane);
  }
  start();
  mbarrier_wait(&o_full[0], 0);
  start_gradients();
  wgmma_wait<1>();
  wgmma_settle(s);
  probabilities();
  values();
  wgmma_wait<1>();
  wgmma_settle(dp);
  gradients();
  wgmma_wait<0>();
  meet();
  pack();
  // Every turn starts the same products and waits for all of them, or the compiler would wait for each at once.
  for (step = 1; step < steps; step++) {
    const int before = qs;
    if (++qs == Q_STAGES) qs = 0, q_use ^= 1;
    q0 = q0 == walk[0] ? walk[1] : q0 - QUERIES;
    start();
    queries(step - 1);
    add(step - 1, before);
    mbarrier_wait(&o_full[step & 1], step >> 1 & 1);
    wgmma_wait<2>();
    wgmma_settle(s);
    probabilities();
    wgmma_wait<1>();
    wgmma_settle(dq);
    stage(step - 1);
    start_gradients();
    // The registers of dS are needed for P.
    wgmma_wait<1>();
    wgmma_settle(dk);
    if constexpr (HELD) wgmma_settle(ds);
    if (leader) mbarrier_arrive(&q_empty[before]);
    values();
    wgmma_wait<1>();
    wgmma_settle(dp);
    gradients();
    wgmma_wait<0>();
    meet();
    pack();
  }
  queries(steps - 1);
  add(steps - 1, qs);
  wgmma_wait<1>();
  wgmma_settle(dq);
  stage(steps - 1);
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

// Rounds dQ of a tile, scaled and turned back.
template <int D>
__device__ __forceinline__ void finish(const float* __restrict__ grad_q, u16* __restrict__ grad_qkv, const u32* __restrict__ positions,
                                       const float* __restrict__ cos_table, const float* __restrict__ sin_table, int context, int heads,
                                       int kv_heads, float scale) {
  const int tile = (int)blockIdx.x, head = (int)blockIdx.y, row = (int)blockIdx.z, lane = threadIdx.x & 31;
  const float* from = grad_q + (((long long)row * heads + head) * gridDim.x + tile) * (QUERIES * D);
  float d[D / 2];
#pragma unroll
  for (int j = 0; j < D / 8; j++) {
    const Quad q = *(const Quad*)(from + (j * 128 + (int)threadIdx.x) * 4);
#pragma unroll
    for (int i = 0; i < 4; i++) d[j * 4 + i] = __uint_as_float(q.v[i]);
  }
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int query = tile * QUERIES + (int)(threadIdx.x >> 5) * 16 + (lane >> 2) + h * 8;
    const long long token = (long long)row * context + query;
    if (positions) {
      const long long angles = (long long)positions[(long long)row * context + min_of(query, context - 1)] * (D / 2);
      turn_back<D>(d, h, cos_table + angles, sin_table + angles, lane);
    }
    store_accumulators<D>(grad_qkv + (token * (heads + 2 * kv_heads) + head) * D, query < context, d, h, scale, lane);
  }
}

}  // namespace

// What the blocks of keys need of the queries, by tiles of 64: `sums` [rows, heads, tiles, 2, 64] f32, the log-sum in units
// of log2 and Δ = Σ dO ∘ O; `from_tiles` [rows, tiles, 64]; `turns` [rows · heads · tiles + 1], set to 0. `head_dim` is 64 or
// 128.
// Launch: grid (⌈context/64⌉, heads, rows), 256 threads.
KERNEL(attention_backward_fused_sm90_begin, 256, 4)
(const u16* __restrict__ out, const u16* __restrict__ grad_out, const u32* __restrict__ attend_from, const float* __restrict__ log_sum,
 float* __restrict__ sums, u32* __restrict__ from_tiles, u32* __restrict__ turns, int context, int heads, int head_dim) {
  const int tile = (int)blockIdx.x, head = (int)blockIdx.y, row = (int)blockIdx.z, lanes = head_dim / 8, at = (int)threadIdx.x % lanes;
  const long long of = (long long)row * heads + head, place = of * gridDim.x + tile;
  // The lanes of a query are neighbours in a warp.
  for (int i = (int)threadIdx.x / lanes; i < QUERIES; i += 256 / lanes) {
    const int query = tile * QUERIES + i;
    float sum = 0.0f;
    if (query < context) {
      const long long from = (((long long)row * context + query) * heads + head) * head_dim + at * 8;
      sum = dot_of_eight(out + from, grad_out + from);
    }
    for (int step = lanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(WARP_ALL, sum, step);
    if (at != 0) continue;
    sums[place * (2 * QUERIES) + i] = query < context ? log_sum[of * context + query] * LOG2E : 0.0f;
    sums[place * (2 * QUERIES) + QUERIES + i] = sum;
  }
  if (head == 0 && threadIdx.x < QUERIES) {
    const int query = tile * QUERIES + (int)threadIdx.x;
    from_tiles[((long long)row * gridDim.x + tile) * QUERIES + threadIdx.x] =
        query < context ? attend_from[(long long)row * context + query] : 0x7fffffffu;
  }
  if (threadIdx.x == 0) turns[place] = 0;
  if (threadIdx.x == 0 && place == 0) turns[(long long)gridDim.z * heads * gridDim.x] = 0;
}

// 384 threads. Tensor maps in boxes of 64 · 64: qkv [tokens, (heads + 2 · kv_heads) · D], grad_out [tokens, heads · D].
// `grad_q` [rows, heads, tiles of queries, 64 · D] f32 is what `…_end` reads, in an order of its own. Where `positions` is
// not null, the gradients of keys are turned back by the angles of cos and sin [positions, D/2].
// Launch: grid (⌈context/128⌉, kv_heads, rows); shared memory 157440 bytes for D = 64, 214784 for 128.
#define BACKWARD(d)                                                                                                            \
  (const __grid_constant__ TensorMap qkv, const __grid_constant__ TensorMap grad_out, const u32* attend_from, const float* sums, \
   const u32* from_tiles, float* grad_q, u32* turns, u16* grad_qkv, const u32* positions, const float* cos_table,              \
   const float* sin_table, int context, int heads, int kv_heads, float scale) {                                                \
    backward<d>(&qkv, &grad_out, attend_from, sums, from_tiles, grad_q, turns, grad_qkv, positions, cos_table, sin_table,      \
                context, heads, kv_heads, scale);                                                                              \
  }
KERNEL(attention_backward_fused_sm90_64, 384, 1) BACKWARD(64)
KERNEL(attention_backward_fused_sm90_128, 384, 1) BACKWARD(128)

// The gradients of queries, scaled, turned back as those of keys, and rounded. Launch: grid (⌈context/64⌉, heads, rows), 128
// threads.
#define END(d)                                                                                                            \
  (const float* grad_q, u16* grad_qkv, const u32* positions, const float* cos_table, const float* sin_table, int context, \
   int heads, int kv_heads, float scale) {                                                                                \
    finish<d>(grad_q, grad_qkv, positions, cos_table, sin_table, context, heads, kv_heads, scale);                        \
  }
KERNEL(attention_backward_fused_sm90_end_64, 128, 4) END(64)
KERNEL(attention_backward_fused_sm90_end_128, 128, 4) END(128)
