// Conversions, sums and moves.
#include "dev/eights.cuh"

// Launches: grid ⌈n/8/256⌉, 256 threads, unless said otherwise.

// to = from, rounded.
KERNEL(narrow_copy, 256, 4)(const float* __restrict__ from, u16* __restrict__ to, long long n) {
  const long long begin = ((long long)blockIdx.x * 256 + threadIdx.x) * EIGHT;
  if (!together(begin, n, (u64)from | (u64)to)) {
    for (long long i = begin; i < n && i < begin + EIGHT; i++) to[i] = to_bf16(from[i]);
    return;
  }
  const Eight x = Eight::load(from + begin);
  const float v[EIGHT] = {x.at(0), x.at(1), x.at(2), x.at(3), x.at(4), x.at(5), x.at(6), x.at(7)};
  store(to + begin, v);
}

// to += from, then copy = to, rounded.
KERNEL(add_narrow, 256, 4)(const u16* __restrict__ from, float* __restrict__ to, u16* __restrict__ copy, long long n) {
  const long long begin = ((long long)blockIdx.x * 256 + threadIdx.x) * EIGHT;
  if (!together(begin, n, (u64)from | (u64)to | (u64)copy)) {
    for (long long i = begin; i < n && i < begin + EIGHT; i++) copy[i] = to_bf16(to[i] += from_bf16(from[i]));
    return;
  }
  const Eight x = Eight::load(to + begin);
  const Quad y = *(const Quad*)(from + begin);
  float v[EIGHT];
#pragma unroll
  for (int i = 0; i < EIGHT; i++) v[i] = x.at(i) + half_of(y, i);
  store(to + begin, v);
  store(copy + begin, v);
}

// `width` values at `offset` of each of `rows` rows of `stride`. A thread copies two pieces of eight, both under way at once.
// Launch: grid ⌈rows · width/16/256⌉.
KERNEL(copy_columns, 256, 6)
(const u16* __restrict__ from, u16* __restrict__ to, long long rows, int stride, int offset, int width) {
  const long long n = rows * width;
  if (width % EIGHT == 0 && stride % EIGHT == 0 && offset % EIGHT == 0 && n < 1ll << 34 && (((u64)from | (u64)to) & 15) == 0) {
    const u32 pieces = (u32)(n / EIGHT), of_row = (u32)width / EIGHT;
    u64 at[2];
    bool inside[2];
    Quad q[2];
#pragma unroll
    for (int k = 0; k < 2; k++) {
      const u32 piece = blockIdx.x * 512 + threadIdx.x + k * 256, row = piece / of_row;
      inside[k] = piece < pieces;
      at[k] = (u64)row * ((u32)stride / EIGHT) + ((u32)offset / EIGHT + piece - row * of_row);
      q[k] = inside[k] ? ((const Quad*)from)[at[k]] : Quad{};
    }
#pragma unroll
    for (int k = 0; k < 2; k++)
      if (inside[k]) store_vector((Quad*)to + at[k], q[k]);
    return;
  }
  const long long begin = ((long long)blockIdx.x * 256 + threadIdx.x) * (2 * EIGHT);
  for (long long i = begin; i < n && i < begin + 2 * EIGHT; i++) {
    const long long at = i / width * stride + offset + i % width;
    to[at] = from[at];
  }
}

// average = (first ? 0 : average) + weight · x: a soup is one launch per checkpoint, in order.
KERNEL(soup_add, 256, 4)
(const float* __restrict__ x, float* __restrict__ average, long long n, float weight, int first) {
  const long long begin = ((long long)blockIdx.x * 256 + threadIdx.x) * EIGHT;
  if (!together(begin, n, (u64)x | (u64)average)) {
    for (long long i = begin; i < n && i < begin + EIGHT; i++) average[i] = fma_rn(weight, x[i], first ? 0.0f : average[i]);
    return;
  }
  const Eight y = Eight::load(x + begin), old = first ? Eight{} : Eight::load(average + begin);
  float v[EIGHT];
#pragma unroll
  for (int i = 0; i < EIGHT; i++) v[i] = fma_rn(weight, y.at(i), old.at(i));
  store(average + begin, v);
}
KERNEL(soup_add_bf16, 256, 4)
(const u16* __restrict__ x, float* __restrict__ average, long long n, float weight, int first) {
  const long long begin = ((long long)blockIdx.x * 256 + threadIdx.x) * EIGHT;
  if (!together(begin, n, (u64)x | (u64)average)) {
    for (long long i = begin; i < n && i < begin + EIGHT; i++)
      average[i] = fma_rn(weight, from_bf16(x[i]), first ? 0.0f : average[i]);
    return;
  }
  const Quad y = *(const Quad*)(x + begin);
  const Eight old = first ? Eight{} : Eight::load(average + begin);
  float v[EIGHT];
#pragma unroll
  for (int i = 0; i < EIGHT; i++) v[i] = fma_rn(weight, half_of(y, i), old.at(i));
  store(average + begin, v);
}
