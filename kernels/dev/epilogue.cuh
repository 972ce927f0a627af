// What becomes of the sums of a product before they are stored.
#pragma once
#include "dev/parts.cuh"
#include "dev/quads.cuh"

/// Of a product C[M, N]:
///   ROUNDED  bf16
///   ADDED    f32, plus `add` unless it is null
///   ROTATED  bf16 after RoPE of the first `rotated` columns, heads of HEAD values, halves as in rope.cu
///   GATED    the product has 2·N columns, gates then ups: they are stored in bf16, and silu(gate) · up beside them
///   EXPONENTIALS  logits: e^(logit − largest of its part) in bf16, 0 in the columns from N to the next multiple of 8;
///            the part, and the f32 logit of the row's target. With C null, of these the last two alone
enum Output { ROUNDED, ADDED, ROTATED, GATED, EXPONENTIALS };

struct Epilogue {
  const float* add = nullptr;
  const u32* positions = nullptr;
  const float* cos_table = nullptr;
  const float* sin_table = nullptr;
  int rotated = 0;
  u16* activated = nullptr;
  /// [M]; IGNORE is none.
  const u32* targets = nullptr;
  /// [M, parts_of(N)].
  Part* parts = nullptr;
  /// [M], written where there is a target.
  float* of_target = nullptr;
};
__device__ __forceinline__ Epilogue adding(const float* add) {
  Epilogue e;
  e.add = add;
  return e;
}
__device__ __forceinline__ Epilogue rotating(const u32* positions, const float* cos_table, const float* sin_table, int rotated) {
  Epilogue e;
  e.positions = positions, e.cos_table = cos_table, e.sin_table = sin_table, e.rotated = rotated;
  return e;
}
__device__ __forceinline__ Epilogue gating(u16* activated) {
  Epilogue e;
  e.activated = activated;
  return e;
}

__device__ __forceinline__ Epilogue exponentials_of(const u32* targets, Part* parts, float* of_target) {
  Epilogue e;
  e.targets = targets, e.parts = parts, e.of_target = of_target;
  return e;
}

__device__ __forceinline__ float sigmoid(float x) { return reciprocal_fast(1.0f + exp2_fast(-1.4426950408889634f * x)); }
/// SwiGLU (arXiv:2002.05202).
__device__ __forceinline__ float swiglu(float gate, float up) { return gate * sigmoid(gate) * up; }

/// Two values of row-major bf16, of which only the first may be inside.
__device__ __forceinline__ void store_pair(u16* row, int column, int end, float x, float y) {
  if (column + 1 < end)
    *(u32*)(row + column) = pack_bf16(x, y);
  else if (column < end)
    row[column] = to_bf16(x);
}

/// Stores what one thread has of one row: BLOCKS blocks of eight columns, two values each. `column(j)` is the first of the
/// thread's columns in block j, `value(j, i)` its sum. Partners of ROTATED and GATED are PAIR blocks apart.
template <Output OUTPUT, int BLOCKS, int PAIR, int HEAD, class Column, class Value>
__device__ __forceinline__ void store_row(void* C, long long ldc, const Epilogue& e, int row, int N, Column column, Value value) {
  if constexpr (OUTPUT == ADDED) {
    float* to = (float*)C + (long long)row * ldc;
    const float* from = e.add + (long long)row * ldc;
#pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
      const int c = column(j);
      float x = value(j, 0), y = value(j, 1);
      if (c + 1 < N) {
        if (e.add) {
          Pair p = *(const Pair*)(from + c);
          x += __uint_as_float(p.v[0]), y += __uint_as_float(p.v[1]);
        }
        *(Pair*)(to + c) = Pair{{__float_as_uint(x), __float_as_uint(y)}};
      } else if (c < N) {
        to[c] = e.add ? x + from[c] : x;
      }
    }
  } else if constexpr (OUTPUT == ROUNDED) {
    u16* to = (u16*)C + (long long)row * ldc;
#pragma unroll
    for (int j = 0; j < BLOCKS; j++) store_pair(to, column(j), N, value(j, 0), value(j, 1));
  } else if constexpr (OUTPUT == GATED) {
    u16 *to = (u16*)C + (long long)row * ldc, *activated = e.activated + (long long)row * N;
#pragma unroll
    for (int j = 0; j < PAIR; j++) {
      const int c = column(j);
      if (c >= N) continue;
      const u32 gate = pack_bf16(value(j, 0), value(j, 1)), up = pack_bf16(value(j + PAIR, 0), value(j + PAIR, 1));
      *(u32*)(to + c) = gate;
      *(u32*)(to + N + c) = up;
      *(u32*)(activated + c) =
          pack_bf16(swiglu(bf16_low(gate), bf16_low(up)), swiglu(bf16_high(gate), bf16_high(up)));
    }
  } else {
    u16* to = (u16*)C + (long long)row * ldc;
    const long long table = (long long)e.positions[row] * (HEAD / 2);
#pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
      if (j / PAIR % 2 != 0) continue;
      const int c = column(j);
      if (c >= N) continue;
      float a[2] = {value(j, 0), value(j, 1)}, b[2] = {value(j + PAIR, 0), value(j + PAIR, 1)};
      if (c < e.rotated) {
        const Pair p = *(const Pair*)(e.cos_table + table + c % HEAD), q = *(const Pair*)(e.sin_table + table + c % HEAD);
#pragma unroll
        for (int i = 0; i < 2; i++) {
          const float cosine = __uint_as_float(p.v[i]), sine = __uint_as_float(q.v[i]), x = a[i], y = b[i];
          a[i] = x * cosine - y * sine;
          b[i] = y * cosine + x * sine;
        }
      }
      *(u32*)(to + c) = pack_bf16(a[0], a[1]);
      *(u32*)(to + c + HEAD / 2) = pack_bf16(b[0], b[1]);
    }
  }
}

template <Output OUTPUT, int COLUMNS, int HEAD>
__device__ __forceinline__ void store_whole_row(void* C, long long ldc, const Epilogue& e, float (&acc)[COLUMNS / 2], int r, int h, int M,
                                                int N, int n0, int lane) {
  const bool inside = r < M;
  if constexpr (OUTPUT == GATED) {
    u16 *to = (u16*)C + (long long)r * ldc + n0 + (lane & 3) * 8, *activated = e.activated + (long long)r * N + n0 + (lane & 3) * 8;
#pragma unroll
    for (int j = 0; j < COLUMNS / 16; j += 4) {
      u32 gate[4], up[4], y[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float *g = acc + (j + i) * 4 + h * 2, *u = g + COLUMNS / 4;
        gate[i] = pack_bf16(g[0], g[1]), up[i] = pack_bf16(u[0], u[1]);
        y[i] = pack_bf16(swiglu(bf16_low(gate[i]), bf16_low(up[i])), swiglu(bf16_high(gate[i]), bf16_high(up[i])));
      }
      const Quad a = whole_block(gate[0], gate[1], gate[2], gate[3], lane), b = whole_block(up[0], up[1], up[2], up[3], lane),
                 c = whole_block(y[0], y[1], y[2], y[3], lane);
      if (!inside) continue;
      store_vector(to + j * 8, a);
      store_vector(to + N + j * 8, b);
      store_vector(activated + j * 8, c);
    }
  } else {
    if constexpr (OUTPUT == ROTATED) {
      // Heads begin where tiles do: all of them turn by the same values.
      constexpr int PAIR = HEAD / 16;
      const long long table = (long long)e.positions[min_of(r, M - 1)] * (HEAD / 2) + (lane & 3) * 2;
#pragma unroll
      for (int p = 0; p < PAIR; p++) {
        const Pair co = *(const Pair*)(e.cos_table + table + p * 8), si = *(const Pair*)(e.sin_table + table + p * 8);
#pragma unroll
        for (int j = p; j < COLUMNS / 8; j += 2 * PAIR) {
          if (n0 + j * 8 >= e.rotated) continue;
#pragma unroll
          for (int i = 0; i < 2; i++) {
            float &a = acc[j * 4 + h * 2 + i], &b = acc[(j + PAIR) * 4 + h * 2 + i];
            const float cosine = __uint_as_float(co.v[i]), sine = __uint_as_float(si.v[i]), x = a, y = b;
            a = x * cosine - y * sine;
            b = y * cosine + x * sine;
          }
        }
      }
    }
    store_accumulators<COLUMNS>((u16*)C + (long long)r * ldc + n0, inside, acc, h, 1.0f, lane);
  }
}

/// Stores two rows of a warp's tile of wgmma accumulators in accesses of 16 bytes: COLUMNS columns from `n0`, all of them
/// inside (of GATED: COLUMNS / 2 gates from `n0`). Lane l has rows `row` and `row` + 8, where those are below M. All lanes of
/// the warp call it; `acc` is used up.
template <Output OUTPUT, int COLUMNS, int HEAD>
__device__ __forceinline__ void store_whole(void* C, long long ldc, const Epilogue& e, float (&acc)[COLUMNS / 2], int row, int M, int N,
                                            int n0, int lane) {
  if constexpr (OUTPUT == ADDED) {
    // The loads of one batch are under way while the one before is stored.
    constexpr int BATCH = 8, OF_ROW = COLUMNS / 16 / BATCH;
    const long long at = (long long)row * ldc + n0 + half_block(lane);
    float* to = (float*)C + at;
    const float* from = e.add + at;
    Quad old[2][BATCH];
    auto load = [&](int batch) {
      const bool inside = e.add && row + batch / OF_ROW * 8 < M;
#pragma unroll
      for (int i = 0; i < BATCH; i++)
        old[batch & 1][i] = inside ? *(const Quad*)(from + batch / OF_ROW * 8 * ldc + (batch % OF_ROW * BATCH + i) * 16) : Quad{{0, 0, 0, 0}};
    };
    load(0);
#pragma unroll
    for (int batch = 0; batch < 2 * OF_ROW; batch++) {
      const int h = batch / OF_ROW;
      if (batch + 1 < 2 * OF_ROW) load(batch + 1);
#pragma unroll
      for (int i = 0; i < BATCH; i++) {
        const float* d = acc + (batch % OF_ROW * BATCH + i) * 8 + h * 2;
        Quad q = whole_half(d[0], d[1], d[4], d[5], lane);
        if (e.add) {
#pragma unroll
          for (int c = 0; c < 4; c++) q.v[c] = __float_as_uint(__uint_as_float(q.v[c]) + __uint_as_float(old[batch & 1][i].v[c]));
        }
        if (row + h * 8 < M) store_vector(to + h * 8 * ldc + (batch % OF_ROW * BATCH + i) * 16, q);
      }
    }
  } else {
#pragma unroll
    for (int h = 0; h < 2; h++) store_whole_row<OUTPUT, COLUMNS, HEAD>(C, ldc, e, acc, row + h * 8, h, M, N, n0, lane);
  }
}

// Exponentials of logits. Of a row, each of the four lanes that share it has two columns of every eight, from
// (lane & 3) · 2: BLOCKS blocks from column n0, `value(j, i)` a reference to the logit of block j. Every lane calls these.

/// Columns beyond the last count for nothing.
template <int BLOCKS, class Value>
__device__ __forceinline__ void mask_columns(int n0, int N, int lane, Value value) {
#pragma unroll
  for (int j = 0; j < BLOCKS; j++)
#pragma unroll
    for (int i = 0; i < 2; i++)
      if (n0 + j * 8 + (lane & 3) * 2 + i >= N) value(j, i) = minus_infinity();
}
/// Keeps the logit of the target, where the lane has it.
template <int BLOCKS, class Value>
__device__ __forceinline__ void keep_target(float* of_target, u32 target, int n0, int lane, Value value) {
  // IGNORE is far from every column.
  const u32 hit = target - (u32)n0;
  if (hit >= BLOCKS * 8 || (hit >> 1 & 3) != (u32)(lane & 3)) return;
  float logit = 0.0f;
#pragma unroll
  for (int j = 0; j < BLOCKS; j++)
#pragma unroll
    for (int i = 0; i < 2; i++)
      if (hit == (u32)(j * 8 + (lane & 3) * 2 + i)) logit = value(j, i);
  *of_target = logit;
}
/// The largest of the row's columns, in each of its lanes.
template <int BLOCKS, class Value>
__device__ __forceinline__ float row_largest(Value value) {
  float m[4] = {minus_infinity(), minus_infinity(), minus_infinity(), minus_infinity()};
#pragma unroll
  for (int j = 0; j < BLOCKS; j++)
#pragma unroll
    for (int i = 0; i < 2; i++) m[(j & 1) * 2 + i] = fmaxf(m[(j & 1) * 2 + i], value(j, i));
  float largest = fmaxf(fmaxf(m[0], m[1]), fmaxf(m[2], m[3]));
#ifndef BUG_EXPONENTIALS_QUAD
  largest = fmaxf(largest, __shfl_xor_sync(WARP_ALL, largest, 1));
  largest = fmaxf(largest, __shfl_xor_sync(WARP_ALL, largest, 2));
#endif
  return largest;
}
/// Makes exponentials beside `largest` of the logits, and returns their sum over the row's lanes.
template <int BLOCKS, class Value>
__device__ __forceinline__ float row_exponentials(float largest, Value value) {
  // Where nothing is above minus infinity, the difference would be undefined.
  const float base = largest == minus_infinity() ? 0.0f : largest;
  float s[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
  for (int j = 0; j < BLOCKS; j++)
#pragma unroll
    for (int i = 0; i < 2; i++) s[(j & 1) * 2 + i] += value(j, i) = beside(value(j, i), base);
  float sum = (s[0] + s[1]) + (s[2] + s[3]);
  sum += __shfl_xor_sync(WARP_ALL, sum, 1);
  return sum + __shfl_xor_sync(WARP_ALL, sum, 2);
}
/// Stores the row from column n0 on, rounded, 16 bytes at a time, where it is `inside`.
template <int BLOCKS, class Value>
__device__ __forceinline__ void store_exponentials(u16* row, bool inside, int n0, int N, int lane, Value value) {
#pragma unroll
  for (int j = 0; j < BLOCKS; j += 4) {
    u32 a[4];
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = pack_bf16(value(j + i, 0), value(j + i, 1));
    const Quad q = whole_block(a[0], a[1], a[2], a[3], lane);
    const int column = n0 + (j + (lane & 3)) * 8;
    if (inside && column < N) store_vector(row + column, q);
  }
}

/// Two rows of a warp's tile of wgmma accumulators, as in `store_whole`; the tile may reach beyond column N. `targets` are
/// those of the lane's two rows.
template <int COLUMNS>
__device__ __forceinline__ void make_exponentials(u16* C, long long ldc, const Epilogue& e, float (&acc)[COLUMNS / 2],
                                                  const u32 (&targets)[2], int row, int M, int N, int n0, int lane) {
  static_assert(COLUMNS % PART == 0, "a tile has whole parts");
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int r = row + h * 8;
    const bool inside = r < M;
    auto all = [&](int j, int i) -> float& { return acc[j * 4 + h * 2 + i]; };
    if (n0 + COLUMNS > N) mask_columns<COLUMNS / 8>(n0, N, lane, all);
    // No row that is not there has a target.
    keep_target<COLUMNS / 8>(e.of_target + r, targets[h], n0, lane, all);
#pragma unroll
    for (int p = 0; p < COLUMNS / PART; p++) {
      const int first = n0 + p * PART;
      auto value = [&](int j, int i) -> float& { return acc[(p * PART / 8 + j) * 4 + h * 2 + i]; };
      const float largest = row_largest<PART / 8>(value), sum = row_exponentials<PART / 8>(largest, value);
      if (inside && first < N && (lane & 3) == 0) store_part(e.parts + (long long)r * parts_of(N) + first / PART, largest, sum);
      store_exponentials<PART / 8>(C + (long long)r * ldc, inside && C, first, N, lane, value);
    }
  }
}
