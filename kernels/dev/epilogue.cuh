// What becomes of the sums of a product before they are stored.
#pragma once
#include "dev/base.cuh"

/// Of a product C[M, N]:
///   ROUNDED  bf16
///   ADDED    f32, plus `add` unless it is null
///   ROTATED  bf16 after RoPE of the first `rotated` columns, heads of HEAD values, halves as in rope.cu
///   GATED    the product has 2·N columns, gates then ups: they are stored in bf16, and silu(gate) · up beside them
enum Output { ROUNDED, ADDED, ROTATED, GATED };

struct Epilogue {
  const float* add = nullptr;
  const u32* positions = nullptr;
  const float* cos_table = nullptr;
  const float* sin_table = nullptr;
  int rotated = 0;
  u16* activated = nullptr;
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

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + exp2_fast(-1.4426950408889634f * x)); }
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
