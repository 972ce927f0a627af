// What the mma.sync attention kernels share: swizzled tiles of heads and the shape of a packed qkv matrix.
#pragma once
#include "dev/async.cuh"
#include "dev/mma.cuh"

/// Rows of D bf16 values in shared memory, 16-byte chunks permuted so that the rows of an ldmatrix fall into
/// different banks without padding. D is a multiple of 32.
template <int D>
struct HeadTile {
  static __device__ __forceinline__ int at(int row, int col) {
    int chunk = col >> 3;
    chunk ^= D % 64 == 0 ? row & 7 : row >> 1 & 3;
    return row * D + chunk * 8 + (col & 7);
  }
  /// Copies `ROWS` rows from row `first` of a matrix; rows from `end` on are zero.
  template <int ROWS, int THREADS>
  static __device__ __forceinline__ void load(u16* tile, const u16* __restrict__ from, long long stride, int first, int end) {
    constexpr int CHUNKS = ROWS * D / 8;
    // Every unrolled copy keeps an address; the widest head has no registers for them.
#pragma unroll(D > 128 ? 2 : (CHUNKS + THREADS - 1) / THREADS)
    for (int i = 0; i < (CHUNKS + THREADS - 1) / THREADS; i++) {
      int chunk = (int)threadIdx.x + i * THREADS;
      if (CHUNKS % THREADS != 0 && chunk >= CHUNKS) break;
      int row = chunk / (D / 8), col = chunk % (D / 8) * 8;
      bool inside = first + row < end;
      copy_async_16(tile + at(row, col), inside ? from + (long long)(first + row) * stride + col : from, inside ? 16 : 0);
    }
  }
  /// A operand of rows `row`…, depth `col`….
  static __device__ __forceinline__ void a(u32 (&r)[4], const u16* tile, int row, int col, int lane) {
    ldmatrix(r, tile + at(row + fragment_row(lane), col + fragment_col(lane)));
  }
  /// Two B operands whose columns are the rows `row`… and whose depth runs along the columns.
  static __device__ __forceinline__ void b(u32 (&r)[4], const u16* tile, int row, int col, int lane) {
    ldmatrix(r, tile + at(row + fragment_row_swapped(lane), col + fragment_col_swapped(lane)));
  }
  /// Two B operands whose columns are the columns `col`… and whose depth runs along the rows.
  static __device__ __forceinline__ void b_trans(u32 (&r)[4], const u16* tile, int row, int col, int lane) {
    ldmatrix_trans(r, tile + at(row + fragment_row(lane), col + fragment_col(lane)));
  }
};

/// Accumulators of a 16×16 tile (two 16×8 ones) as the A operand of the next product.
__device__ __forceinline__ void to_fragment(u32 (&r)[4], const float (&left)[4], const float (&right)[4]) {
  r[0] = pack_bf16(left[0], left[1]);
  r[1] = pack_bf16(left[2], left[3]);
  r[2] = pack_bf16(right[0], right[1]);
  r[3] = pack_bf16(right[2], right[3]);
}

/// First index in `[begin, end)` whose `attend_from` exceeds `key`: the first query that no longer sees it.
__device__ __forceinline__ int first_blind(const u32* __restrict__ attend_from, int begin, int end, int key) {
  while (begin < end) {
    int middle = (begin + end) >> 1;
    if ((int)attend_from[middle] > key)
      end = middle;
    else
      begin = middle + 1;
  }
  return begin;
}

/// Σ a ∘ b of eight bf16 values each, 16-byte aligned.
__device__ __forceinline__ float dot_of_eight(const u16* a, const u16* b) {
  const Quad x = *(const Quad*)a, y = *(const Quad*)b;
  float sum = 0.0f;
#pragma unroll
  for (int c = 0; c < 4; c++) {
    sum = fma_rn(bf16_low(x.v[c]), bf16_low(y.v[c]), sum);
    sum = fma_rn(bf16_high(x.v[c]), bf16_high(y.v[c]), sum);
  }
  return sum;
}

/// Turns a row of wgmma accumulators of D columns by the negative angles: RoPE backwards, halves as in rope.cu. `h`: which of
/// the two rows a lane has.
template <int D>
__device__ __forceinline__ void turn_back(float (&d)[D / 2], int h, const float* cosines, const float* sines, int lane) {
#pragma unroll
  for (int p = 0; p < D / 16; p++) {
    const int at = p * 8 + (lane & 3) * 2;
    const Pair co = *(const Pair*)(cosines + at), si = *(const Pair*)(sines + at);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      float &a = d[p * 4 + h * 2 + i], &b = d[(p + D / 16) * 4 + h * 2 + i];
      const float cosine = __uint_as_float(co.v[i]), sine = __uint_as_float(si.v[i]), x = a, y = b;
      a = x * cosine + y * sine;
      b = y * cosine - x * sine;
    }
  }
}
