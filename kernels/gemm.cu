// Matrix products of a training step on mma.sync, for every device from Ampere on.
//
// A block of 256 threads computes a 128×128 tile of C, eight warps of 32×64 each, over k in steps of 32 through a
// ring of three stages filled by cp.async. Either operand may lie with k contiguous ("k-major": rows of A, rows of
// B) or with its other dimension contiguous, so the three products of a linear layer need no transposed copy:
//
//   y  = x · wᵀ      nt   A [M, K], B [N, K]
//   dx = dy · w      nn   A [M, K], B [K, N]
//   dw = dyᵀ · x     tn   A [K, M], B [K, N]
//
// Leading dimensions are multiples of 8 and bases 16-byte aligned; M, N and K are free. Sums are f32, in a fixed
// order. bf16 results are rounded once; f32 results may add a matrix (the residual stream, or C itself); RoPE and
// SwiGLU can be applied to the sums before they are stored, and logits leave as exponentials.
#include "dev/async.cuh"
#include "dev/epilogue.cuh"
#include "dev/mma.cuh"
#include "dev/tiles.cuh"

namespace {

constexpr int BM = 128, BN = 128, BK = 32, STAGES = 3, THREADS = 256;

// Shared tile of 128 (rows of A, or columns of C) by 32 (k). Rows are padded by 16 bytes: the eight rows of an
// ldmatrix then fall into different banks.
template <bool K_MAJOR>
struct Tile {
  static constexpr int LD = K_MAJOR ? BK + 8 : 128 + 8;
  static constexpr int SIZE = K_MAJOR ? 128 * LD : BK * LD;

  // `mn0`, `k0`: first row and first k of the tile in the matrix. The second 64 rows of a k-major tile lie `jump`
  // further on than those that follow the first.
  static __device__ __forceinline__ void load(u16* tile, const u16* __restrict__ from, long long ld, int mn0, int k0,
                                              int mn_end, int k_end, int jump = 0) {
#pragma unroll
    for (int i = 0; i < 128 * BK / 8 / THREADS; i++) {
      int chunk = (int)threadIdx.x + i * THREADS;
      int row, col, left;
      const u16* src = from;
      if (K_MAJOR) {
        row = chunk / (BK / 8), col = chunk % (BK / 8) * 8;
        const int mn = mn0 + row + (row >= 64 ? jump : 0);
        left = mn < mn_end ? k_end - (k0 + col) : 0;
        if (left > 0) src += (long long)mn * ld + k0 + col;
      } else {
        row = chunk / 16, col = chunk % 16 * 8;
        left = k0 + row < k_end ? mn_end - (mn0 + col) : 0;
        if (left > 0) src += (long long)(k0 + row) * ld + mn0 + col;
      }
      copy_async_16(tile + row * LD + col, src, left <= 0 ? 0 : left >= 8 ? 16 : left * 2);
    }
  }

  // The 16×16 fragment at (mn, k) as an A operand.
  static __device__ __forceinline__ void fragment_a(u32 (&r)[4], const u16* tile, int mn, int k, int lane) {
    if (K_MAJOR)
      ldmatrix(r, tile + (mn + fragment_row(lane)) * LD + k + fragment_col(lane));
    else
      ldmatrix_trans(r, tile + (k + fragment_row_swapped(lane)) * LD + mn + fragment_col_swapped(lane));
  }
  // As two B operands of eight columns each: registers 0, 1 and 2, 3.
  static __device__ __forceinline__ void fragment_b(u32 (&r)[4], const u16* tile, int mn, int k, int lane) {
    if (K_MAJOR)
      ldmatrix(r, tile + (mn + fragment_row_swapped(lane)) * LD + k + fragment_col_swapped(lane));
    else
      ldmatrix_trans(r, tile + (k + fragment_row(lane)) * LD + mn + fragment_col(lane));
  }
};

// GATED: a tile has 64 gates and the 64 ups that belong to them. HEAD: of ROTATED.
template <bool A_K_MAJOR, bool B_K_MAJOR, Output OUTPUT, int HEAD = 32>
__device__ __forceinline__ void gemm(const u16* __restrict__ A, long long lda, const u16* __restrict__ B, long long ldb,
                                     void* C, long long ldc, const Epilogue& epilogue, int M, int N, int K) {
  typedef Tile<A_K_MAJOR> TA;
  typedef Tile<B_K_MAJOR> TB;
  constexpr int TILE_N = OUTPUT == GATED ? BN / 2 : BN;
  // The columns of a warp: 64 in a row, or twice 32 whose partners are 64 apart.
  constexpr bool SPLIT = OUTPUT == GATED || (OUTPUT == ROTATED && HEAD == 128);
  constexpr int PAIR = OUTPUT == ROTATED && HEAD == 32 ? 2 : 4;
  DYNAMIC_SHARED(shared);
  u16* tiles_a = (u16*)shared;
  u16* tiles_b = tiles_a + STAGES * TA::SIZE;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  int tile_row, tile_column;
  tile_of<8>(blockIdx.x, (M + BM - 1) / BM, (N + TILE_N - 1) / TILE_N, tile_row, tile_column);
  const int m0 = tile_row * BM, n0 = tile_column * TILE_N;
  const int wm = (warp & 3) * 32, wn = (warp >> 2) * (SPLIT ? 32 : 64);
  const int rows_b = OUTPUT == GATED ? 2 * N : N, jump = OUTPUT == GATED ? N - 64 : 0;

  float acc[2][8][4];
#pragma unroll
  for (int i = 0; i < 2; i++)
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
      for (int r = 0; r < 4; r++) acc[i][j][r] = 0.0f;

  const int steps = (K + BK - 1) / BK;
#pragma unroll
  for (int s = 0; s < STAGES - 1; s++) {
    if (s < steps) {
      TA::load(tiles_a + s * TA::SIZE, A, lda, m0, s * BK, M, K);
      TB::load(tiles_b + s * TB::SIZE, B, ldb, n0, s * BK, rows_b, K, jump);
    }
    copy_async_commit();
  }
  for (int step = 0; step < steps; step++) {
    copy_async_wait<STAGES - 2>();
    // Everybody's copies of this step have landed, and everybody is done with the stage loaded next.
#ifndef BUG_GEMM_BARRIER
    __syncthreads();
#endif
    int next = step + STAGES - 1;
    if (next < steps) {
      TA::load(tiles_a + next % STAGES * TA::SIZE, A, lda, m0, next * BK, M, K);
      TB::load(tiles_b + next % STAGES * TB::SIZE, B, ldb, n0, next * BK, rows_b, K, jump);
    }
    copy_async_commit();
    const u16* ta = tiles_a + step % STAGES * TA::SIZE;
    const u16* tb = tiles_b + step % STAGES * TB::SIZE;
#pragma unroll
    for (int k = 0; k < BK; k += 16) {
      u32 a[2][4], b[4][4];
#pragma unroll
      for (int i = 0; i < 2; i++) TA::fragment_a(a[i], ta, wm + i * 16, k, lane);
#pragma unroll
      for (int j = 0; j < 4; j++) TB::fragment_b(b[j], tb, wn + j * 16 + (SPLIT && j > 1 ? 32 : 0), k, lane);
#pragma unroll
      for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) mma_16816(acc[i][j], a[i], b[j >> 1][(j & 1) * 2], b[j >> 1][(j & 1) * 2 + 1]);
    }
  }
  copy_async_wait<0>();

  if constexpr (OUTPUT == EXPONENTIALS) {
    // The columns of a part are shared by two warps, which exchange what they find where the tiles were.
    static_assert(BN == PART, "a tile is a part");
    float *peaks = (float*)shared, *sums = peaks + 2 * BM;
    const int half = warp >> 2;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const int r = wm + i * 16 + h * 8 + (lane >> 2);
        auto value = [&](int j, int c) -> float& { return acc[i][j][h * 2 + c]; };
        if (n0 + BN > N) mask_columns<8>(n0 + wn, N, lane, value);
        if (m0 + r < M) keep_target<8>(epilogue.of_target + m0 + r, epilogue.targets[m0 + r], n0 + wn, lane, value);
        const float peak = row_largest<8>(value);
        if ((lane & 3) == 0) peaks[half * BM + r] = peak;
      }
#ifndef BUG_EXPONENTIALS_BARRIER
    __syncthreads();
#endif
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const int r = wm + i * 16 + h * 8 + (lane >> 2);
        auto value = [&](int j, int c) -> float& { return acc[i][j][h * 2 + c]; };
        const float sum = row_exponentials<8>(fmaxf(peaks[r], peaks[BM + r]), value);
        if ((lane & 3) == 0) sums[half * BM + r] = sum;
        store_exponentials<8>((u16*)C + (m0 + r) * ldc, m0 + r < M && C, n0 + wn, N, lane, value);
      }
    __syncthreads();
    const int r = threadIdx.x;
    if (r < BM && m0 + r < M)
      store_part(epilogue.parts + (long long)(m0 + r) * parts_of(N) + tile_column, fmaxf(peaks[r], peaks[BM + r]),
                 sums[r] + sums[BM + r]);
  } else {
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const int row = m0 + wm + i * 16 + h * 8 + (lane >> 2);
        if (row >= M) continue;
        store_row<OUTPUT, 8, PAIR, HEAD>(
            C, ldc, epilogue, row, N,
            [&](int j) { return n0 + wn + j * 8 + (SPLIT && OUTPUT != GATED && j > 3 ? 32 : 0) + (lane & 3) * 2; },
            [&](int j, int c) { return acc[i][j][h * 2 + c]; });
      }
  }
}

}  // namespace

// Launch: grid = ⌈M/128⌉ · ⌈N/128⌉ (⌈N/64⌉ for swiglu), 256 threads, 61440 bytes (nt), 56832 (nn), 52224 (tn) of shared
// memory.
KERNEL(gemm_nt_bf16, 256, 2)
(const u16* A, long long lda, const u16* B, long long ldb, u16* C, long long ldc, int M, int N, int K) {
  gemm<true, true, ROUNDED>(A, lda, B, ldb, C, ldc, Epilogue{}, M, N, K);
}
// C = add + A · Bᵀ, or A · Bᵀ when `add` is null; `add` may be C and has its leading dimension.
KERNEL(gemm_nt_f32, 256, 2)
(const u16* A, long long lda, const u16* B, long long ldb, float* C, long long ldc, const float* add, int M, int N,
 int K) {
  gemm<true, true, ADDED>(A, lda, B, ldb, C, ldc, adding(add), M, N, K);
}
KERNEL(gemm_nn_bf16, 256, 2)
(const u16* A, long long lda, const u16* B, long long ldb, u16* C, long long ldc, int M, int N, int K) {
  gemm<true, false, ROUNDED>(A, lda, B, ldb, C, ldc, Epilogue{}, M, N, K);
}
KERNEL(gemm_tn_f32, 256, 2)
(const u16* A, long long lda, const u16* B, long long ldb, float* C, long long ldc, const float* add, int M, int N,
 int K) {
  gemm<false, false, ADDED>(A, lda, B, ldb, C, ldc, adding(add), M, N, K);
}

// C = A · Bᵀ with RoPE on the first `rotated` columns, heads of 32, 64 or 128 values; row i turns by the angles of
// positions[i] in the tables [positions, head/2]. N and `rotated` are whole heads.
#define ROTATED_KERNEL(head)                                                                                          \
  (const u16* A, long long lda, const u16* B, long long ldb, u16* C, long long ldc, const u32* positions,            \
   const float* cos_table, const float* sin_table, int rotated, int M, int N, int K) {                               \
    const Epilogue e = rotating(positions, cos_table, sin_table, rotated);                                           \
    gemm<true, true, ROTATED, head>(A, lda, B, ldb, C, ldc, e, M, N, K);                                             \
  }
KERNEL(gemm_nt_rope_32, 256, 2) ROTATED_KERNEL(32)
KERNEL(gemm_nt_rope_64, 256, 2) ROTATED_KERNEL(64)
KERNEL(gemm_nt_rope_128, 256, 2) ROTATED_KERNEL(128)

// C[M, 2·N] = A · Bᵀ, rows of gates then ups, and activated[M, N] = silu(gate) · up of the rounded values. N is a
// multiple of 8.
KERNEL(gemm_nt_swiglu, 256, 2)
(const u16* A, long long lda, const u16* B, long long ldb, u16* C, long long ldc, u16* activated, int M, int N, int K) {
  gemm<true, true, GATED>(A, lda, B, ldb, C, ldc, gating(activated), M, N, K);
}

// Logits A · Bᵀ as exponentials, C[M, N to the next multiple of 8] in bf16 or null, with parts [M, ⌈N/128⌉] and, of rows with
// a target, its logit.
KERNEL(gemm_nt_exponentials, 256, 2)
(const u16* A, long long lda, const u16* B, long long ldb, u16* C, long long ldc, const u32* targets, Part* parts,
 float* of_target, int M, int N, int K) {
  gemm<true, true, EXPONENTIALS>(A, lda, B, ldb, C, ldc, exponentials_of(targets, parts, of_target), M, N, K);
}
