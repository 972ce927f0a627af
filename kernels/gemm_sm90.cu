// Matrix products of a training step on Hopper: TMA, mbarrier and wgmma, specialised by warpgroup, persistent.
//
// A block of 384 threads goes through tiles of C of 128 rows by COLUMNS (128 or 256). One thread of the first
// warpgroup loads steps of 64 in k into a ring; the other two warpgroups multiply 64 rows each with their
// accumulators in registers, one product in flight while the next step arrives. The loads of the next tile run while
// the last one is written.
//
// Operands as in gemm.cu: each may be k-major or mn-major in memory, and TMA brings either into the layout that
// wgmma reads, so the three products of a linear layer need no transposed copy. M, N and K are free (TMA fills with
// zeros); leading dimensions are multiples of 8, and C, `add` and `activated` are 16-byte aligned. The four lanes of a row
// exchange their sums, so that C is written 16 bytes at a time; what is added to the sums is brought into L2 while they
// are made. Logits become exponentials in the registers of their sums: what is kept of a part of a row needs only those four
// lanes.
#include "dev/epilogue.cuh"
#include "dev/hopper.cuh"
#include "dev/tiles.cuh"

namespace {

constexpr int BM = 128, BK = 64;

// An operand of ROWS rows by 64 k in shared memory. K-major: one box, each row 128 bytes. MN-major: boxes of 64 rows
// by 64 k, 8192 bytes each.
template <bool K_MAJOR, int ROWS>
struct Operand {
  static constexpr int BYTES = ROWS * BK * 2;
  static __device__ __forceinline__ void load(u8* to, const TensorMap* map, u64* full, int mn, int k) {
    if (K_MAJOR) {
      tma_load(to, map, full, k, mn);
    } else {
#pragma unroll
      for (int i = 0; i < ROWS / 64; i++) tma_load(to + i * 8192, map, full, mn + i * 64, k);
    }
  }
  // `first`: a multiple of 64 rows. `step`: 0 to 3, of 16 in k.
  static __device__ __forceinline__ u64 descriptor(const u8* at, int first, int step) {
    return K_MAJOR ? descriptor_k(at + first * 128 + step * 32) : descriptor_mn(at + first * 128 + step * 2048, 8192);
  }
};

template <int COLUMNS, int TA, int TB>
struct Multiply;
template <int TA, int TB>
struct Multiply<128, TA, TB> {
  static __device__ __forceinline__ void run(float (&acc)[64], u64 a, u64 b, int accumulate) {
    wgmma_128<TA, TB>(acc, a, b, accumulate);
  }
};
template <int TA, int TB>
struct Multiply<256, TA, TB> {
  static __device__ __forceinline__ void run(float (&acc)[128], u64 a, u64 b, int accumulate) {
    wgmma_256<TA, TB>(acc, a, b, accumulate);
  }
};

// GATED: a tile has COLUMNS/2 gates and the ups that belong to them. HEAD: of ROTATED.
template <bool A_K_MAJOR, bool B_K_MAJOR, Output OUTPUT, int COLUMNS, int STAGES, int HEAD = 32>
__device__ __forceinline__ void gemm(const TensorMap* map_a, const TensorMap* map_b, void* C, long long ldc,
                                     const Epilogue& epilogue, int M, int N, int K) {
  constexpr int TILE_N = OUTPUT == GATED ? COLUMNS / 2 : COLUMNS;
  constexpr int PAIR = OUTPUT == GATED ? COLUMNS / 16 : HEAD / 16;
  typedef Operand<A_K_MAJOR, BM> A;
  typedef Operand<B_K_MAJOR, COLUMNS> B;
  DYNAMIC_SHARED(shared);
  u8* stages_a = shared;
  u8* stages_b = shared + STAGES * A::BYTES;
  u64* full = (u64*)(stages_b + STAGES * B::BYTES);
  u64* empty = full + STAGES;
  const int group = threadIdx.x >> 7;
  const int rows = (M + BM - 1) / BM, columns = (N + TILE_N - 1) / TILE_N, steps = (K + BK - 1) / BK;
  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; s++) {
      mbarrier_init(&full[s], 1);
      mbarrier_init(&empty[s], 2);
    }
    fence_mbarrier_init();
  }
  __syncthreads();

  // Steps go on over all tiles of the block: each uses the next stage of the ring, whose use flips with every turn.
  int stage = 0, use = 0;
  auto next = [&]() {
    if (++stage == STAGES) stage = 0, use ^= 1;
  };
  if (group == 0) {
    registers_down<40>();
    if (threadIdx.x == 0) {
      // Rows of `add` fetched per step, and the step they begin with.
      const int share = (BM + steps - 1) / steps, begin = steps - (BM + share - 1) / share;
      for (int tile = blockIdx.x; tile < rows * columns; tile += gridDim.x) {
        int row, column;
        tile_of<16>(tile, rows, columns, row, column);
        for (int k = 0; k < steps; k++, next()) {
#ifndef BUG_GEMM_SM90_EMPTY
          mbarrier_wait(&empty[stage], use ^ 1);
#endif
          mbarrier_expect(&full[stage], A::BYTES + B::BYTES);
          A::load(stages_a + stage * A::BYTES, map_a, &full[stage], row * BM, k * BK);
          if (OUTPUT == GATED) {
            tma_load(stages_b + stage * B::BYTES, map_b, &full[stage], k * BK, column * TILE_N);
            tma_load(stages_b + stage * B::BYTES + TILE_N * BK * 2, map_b, &full[stage], k * BK, N + column * TILE_N);
          } else {
            B::load(stages_b + stage * B::BYTES, map_b, &full[stage], column * COLUMNS, k * BK);
          }
          if (OUTPUT == ADDED && epilogue.add && k >= begin) {
            const int from = row * BM + (k - begin) * share, end = min_of(min_of(from + share, row * BM + BM), M);
            const u32 bytes = (u32)min_of(TILE_N, N - column * TILE_N) * 4 & ~15u;
            for (int r = from; r < end; r++)
              if (bytes) prefetch_l2(epilogue.add + (long long)r * ldc + column * TILE_N, bytes);
          }
        }
      }
    }
    return;
  }

  registers_up<232>();
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5 & 3, first = (group - 1) * 64;
  const bool leader = (threadIdx.x & 127) == 0;
  for (int tile = blockIdx.x; tile < rows * columns; tile += gridDim.x) {
    int row, column;
    tile_of<16>(tile, rows, columns, row, column);
    const int r = row * BM + first + warp * 16 + (lane >> 2), n0 = column * TILE_N;
    // Here already, so that nobody waits for them when the sums are made.
    [[maybe_unused]] u32 targets[2] = {IGNORE, IGNORE};
    if constexpr (OUTPUT == EXPONENTIALS) {
#pragma unroll
      for (int h = 0; h < 2; h++)
        if (r + h * 8 < M) targets[h] = epilogue.targets[r + h * 8];
    }
    float acc[COLUMNS / 2];
    [[maybe_unused]] int before = 0;
    for (int k = 0; k < steps; k++, next()) {
      mbarrier_wait(&full[stage], use);
      wgmma_fence();
#pragma unroll
      for (int i = 0; i < BK / 16; i++)
        Multiply<COLUMNS, !A_K_MAJOR, !B_K_MAJOR>::run(acc, A::descriptor(stages_a + stage * A::BYTES, first, i),
                                                      B::descriptor(stages_b + stage * B::BYTES, 0, i), k > 0 || i > 0);
      wgmma_commit();
      // The product of the step before is complete: its stage may be loaded again.
#ifdef BUG_GEMM_SM90_RELEASE
      if (leader) mbarrier_arrive(&empty[stage]);
      wgmma_wait<1>();
#else
      wgmma_wait<1>();
      if (k > 0 && leader) mbarrier_arrive(&empty[before]);
#endif
      before = stage;
    }
    wgmma_wait<0>();
    wgmma_settle(acc);
#ifndef BUG_GEMM_SM90_RELEASE
    if (steps > 0 && leader) mbarrier_arrive(&empty[before]);
#endif

    if constexpr (OUTPUT == EXPONENTIALS) {
      make_exponentials<COLUMNS>((u16*)C, ldc, epilogue, acc, targets, r, M, N, n0, lane);
    } else if (n0 + TILE_N <= N) {
      store_whole<OUTPUT, COLUMNS, HEAD>(C, ldc, epilogue, acc, r, M, N, n0, lane);
    } else {
#pragma unroll
      for (int h = 0; h < 2; h++) {
        if (r + h * 8 >= M) continue;
        store_row<OUTPUT, COLUMNS / 8, PAIR, HEAD>(
            C, ldc, epilogue, r + h * 8, N, [&](int j) { return n0 + j * 8 + (lane & 3) * 2; },
            [&](int j, int c) { return acc[j * 4 + h * 2 + c]; });
      }
    }
  }
}

}  // namespace

// Launch: any grid (one block per multiprocessor), 384 threads; shared memory STAGES · (128 + columns) · 128 + 16 · STAGES
// bytes: 196672 for 256 columns (4 stages), 196704 for 128 (6 stages). Tensor maps, width · height of the box:
// k-major 64 · 128 for A, 64 · columns for B (half as many for swiglu); mn-major 64 · 64.
#define BF16_PARAMETERS                                                                                              \
  (const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b, u16* C, long long ldc, int M, \
   int N, int K)
#define F32_PARAMETERS                                                                                                 \
  (const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b, float* C, long long ldc,        \
   const float* add, int M, int N, int K)

KERNEL(gemm_sm90_nt_bf16_128, 384, 1) BF16_PARAMETERS {
  gemm<true, true, ROUNDED, 128, 6>(&map_a, &map_b, C, ldc, Epilogue{}, M, N, K);
}
KERNEL(gemm_sm90_nt_bf16_256, 384, 1) BF16_PARAMETERS {
  gemm<true, true, ROUNDED, 256, 4>(&map_a, &map_b, C, ldc, Epilogue{}, M, N, K);
}
KERNEL(gemm_sm90_nn_bf16_128, 384, 1) BF16_PARAMETERS {
  gemm<true, false, ROUNDED, 128, 6>(&map_a, &map_b, C, ldc, Epilogue{}, M, N, K);
}
KERNEL(gemm_sm90_nn_bf16_256, 384, 1) BF16_PARAMETERS {
  gemm<true, false, ROUNDED, 256, 4>(&map_a, &map_b, C, ldc, Epilogue{}, M, N, K);
}
KERNEL(gemm_sm90_nt_f32_128, 384, 1) F32_PARAMETERS {
  gemm<true, true, ADDED, 128, 6>(&map_a, &map_b, C, ldc, adding(add), M, N, K);
}
KERNEL(gemm_sm90_nt_f32_256, 384, 1) F32_PARAMETERS {
  gemm<true, true, ADDED, 256, 4>(&map_a, &map_b, C, ldc, adding(add), M, N, K);
}
KERNEL(gemm_sm90_tn_f32_128, 384, 1) F32_PARAMETERS {
  gemm<false, false, ADDED, 128, 6>(&map_a, &map_b, C, ldc, adding(add), M, N, K);
}
KERNEL(gemm_sm90_tn_f32_256, 384, 1) F32_PARAMETERS {
  gemm<false, false, ADDED, 256, 4>(&map_a, &map_b, C, ldc, adding(add), M, N, K);
}

// As gemm_nt_rope_*, gemm_nt_swiglu and gemm_nt_exponentials in gemm.cu.
#define ROTATED_KERNEL(head, columns, stages)                                                                         \
  (const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b, u16* C, long long ldc,          \
   const u32* positions, const float* cos_table, const float* sin_table, int rotated, int M, int N, int K) {         \
    const Epilogue e = rotating(positions, cos_table, sin_table, rotated);                                           \
    gemm<true, true, ROTATED, columns, stages, head>(&map_a, &map_b, C, ldc, e, M, N, K);                            \
  }
KERNEL(gemm_sm90_nt_rope_64_128, 384, 1) ROTATED_KERNEL(64, 128, 6)
KERNEL(gemm_sm90_nt_rope_64_256, 384, 1) ROTATED_KERNEL(64, 256, 4)
KERNEL(gemm_sm90_nt_rope_128_128, 384, 1) ROTATED_KERNEL(128, 128, 6)
KERNEL(gemm_sm90_nt_rope_128_256, 384, 1) ROTATED_KERNEL(128, 256, 4)

#define GATED_KERNEL(columns, stages)                                                                                 \
  (const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b, u16* C, long long ldc,          \
   u16* activated, int M, int N, int K) {                                                                             \
    gemm<true, true, GATED, columns, stages>(&map_a, &map_b, C, ldc, gating(activated), M, N, K);                    \
  }
KERNEL(gemm_sm90_nt_swiglu_128, 384, 1) GATED_KERNEL(128, 6)
KERNEL(gemm_sm90_nt_swiglu_256, 384, 1) GATED_KERNEL(256, 4)

#define EXPONENTIALS_KERNEL(columns, stages)                                                                          \
  (const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b, u16* C, long long ldc,          \
   const u32* targets, Part* parts, float* of_target, int M, int N, int K) {                                         \
    gemm<true, true, EXPONENTIALS, columns, stages>(&map_a, &map_b, C, ldc, exponentials_of(targets, parts, of_target), M, N, K); \
  }
KERNEL(gemm_sm90_nt_exponentials_128, 384, 1) EXPONENTIALS_KERNEL(128, 6)
KERNEL(gemm_sm90_nt_exponentials_256, 384, 1) EXPONENTIALS_KERNEL(256, 4)
