// Conversions, sums and moves.
#include "dev/base.cuh"

// All launches: grid ⌈items/256⌉ with the items named below, 256 threads.

// to = from, rounded. Items: n.
KERNEL(narrow_copy, 256, 6)(const float* __restrict__ from, u16* __restrict__ to, long long n) {
  const long long i = (long long)blockIdx.x * 256 + threadIdx.x;
  if (i < n) to[i] = to_bf16(from[i]);
}

// to += from, then copy = to, rounded. Items: n.
KERNEL(add_narrow, 256, 6)(const u16* __restrict__ from, float* __restrict__ to, u16* __restrict__ copy, long long n) {
  const long long i = (long long)blockIdx.x * 256 + threadIdx.x;
  if (i >= n) return;
  const float v = to[i] + from_bf16(from[i]);
  to[i] = v;
  copy[i] = to_bf16(v);
}

// `width` values at `offset` of each of `rows` rows of `stride`. Items: rows · width.
KERNEL(copy_columns, 256, 6)
(const u16* __restrict__ from, u16* __restrict__ to, long long rows, int stride, int offset, int width) {
  const long long i = (long long)blockIdx.x * 256 + threadIdx.x;
  if (i >= rows * width) return;
  const long long at = i / width * stride + offset + i % width;
  to[at] = from[at];
}

// average = (first ? 0 : average) + weight · x: a soup is one launch per checkpoint, in order. Items: n.
KERNEL(soup_add, 256, 6)
(const float* __restrict__ x, float* __restrict__ average, long long n, float weight, int first) {
  const long long i = (long long)blockIdx.x * 256 + threadIdx.x;
  if (i < n) average[i] = fma_rn(weight, x[i], first ? 0.0f : average[i]);
}
KERNEL(soup_add_bf16, 256, 6)
(const u16* __restrict__ x, float* __restrict__ average, long long n, float weight, int first) {
  const long long i = (long long)blockIdx.x * 256 + threadIdx.x;
  if (i < n) average[i] = fma_rn(weight, from_bf16(x[i]), first ? 0.0f : average[i]);
}
