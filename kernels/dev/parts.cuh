// What is kept of a row of logits once they have become exponentials: a part for every PART columns.
#pragma once
#include "dev/base.cuh"

/// Columns of a part; the last part of a row may have fewer. product.rs has the same number.
constexpr int PART = 128;
/// The target of a token that predicts nothing.
constexpr u32 IGNORE = 0xffffffffu;
constexpr float LOG2E = 1.4426950408889634f, LN2 = 0.6931471805599453f;

/// The largest logit of a part, and the sum of e^(logit − largest) before those are rounded. NaN never becomes the
/// largest, but reaches the sum.
struct __align__(8) Part {
  float largest, sum;
};
__device__ constexpr int parts_of(int columns) { return (columns + PART - 1) / PART; }
__device__ __forceinline__ void store_part(Part* to, float largest, float sum) {
  store_vector(to, Pair{{__float_as_uint(largest), __float_as_uint(sum)}});
}

/// e^(x − largest): the difference first, which is exact where it matters however large the two are.
__device__ __forceinline__ float beside(float x, float largest) { return exp2_fast((x - largest) * LOG2E); }
