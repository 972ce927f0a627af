// Biases of linear layers: added to every row, and their gradient, the sum over rows.
#include "dev/eights.cuh"

// x [rows, width] += bias in every row, rounded. Launch: grid ⌈rows · width/8/256⌉, 256 threads.
KERNEL(bias_add, 256, 4)(const float* __restrict__ bias, u16* __restrict__ x, long long rows, int width) {
  const long long n = rows * width, begin = ((long long)blockIdx.x * 256 + threadIdx.x) * EIGHT;
  // Of rows of whole eights, eight values have one row.
  if (width % EIGHT != 0 || !together(begin, n, (u64)bias | (u64)x)) {
    for (long long i = begin; i < n && i < begin + EIGHT; i++) x[i] = to_bf16(from_bf16(x[i]) + bias[i % width]);
    return;
  }
  const Eight b = Eight::load(bias + begin % width);
  const Quad old = *(const Quad*)(x + begin);
  float v[EIGHT];
#pragma unroll
  for (int i = 0; i < EIGHT; i++) v[i] = half_of(old, i) + b.at(i);
  store(x + begin, v);
}

// partial[s] = the sum over every gridDim.x-th row of grad [rows, width] from row s on, in order; `rmsnorm_weight_grad` adds
// them up. Launch: grid (shares, ⌈width/8/128⌉), 128 threads.
KERNEL(bias_grad, 128, 8)(const u16* __restrict__ grad, float* __restrict__ partial, long long rows, int width) {
  const int column = (blockIdx.y * 128 + threadIdx.x) * EIGHT;
  if (column >= width) return;
  float sum[EIGHT] = {};
  if (width % EIGHT == 0 && ((u64)grad & 15) == 0 && ((u64)partial & 15) == 0) {
#pragma unroll 4
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
      const Quad g = *(const Quad*)(grad + row * width + column);
#pragma unroll
      for (int i = 0; i < EIGHT; i++) sum[i] += half_of(g, i);
    }
    store(partial + (long long)blockIdx.x * width + column, sum);
    return;
  }
  const int count = width - column < EIGHT ? width - column : EIGHT;
  for (long long row = blockIdx.x; row < rows; row += gridDim.x)
    for (int i = 0; i < count; i++) sum[i] += from_bf16(grad[row * width + column + i]);
  for (int i = 0; i < count; i++) partial[(long long)blockIdx.x * width + column + i] = sum[i];
}
