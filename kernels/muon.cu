// What Muon (Jordan et al. 2024) does besides products: momentum, sums of matrices, transposes and the step itself.
#include "dev/eights.cuh"

// Launches: grid ⌈n/8/256⌉, 256 threads, unless said otherwise.

// momentum = keep · momentum + (1 − keep) · g with g = gradient · scale, direction = g + ahead · (momentum − g): Nesterov's
// with ahead = keep, the momentum itself with 1.
KERNEL(muon_momentum, 256, 4)
(const float* __restrict__ grad, float* __restrict__ momentum, float* __restrict__ direction, long long n, float keep, float rest,
 float ahead, float scale) {
  const long long begin = ((long long)blockIdx.x * 256 + threadIdx.x) * EIGHT;
  auto one = [&](float g, float& m) {
    g *= scale;
    m = fma_rn(keep, m, rest * g);
    return fma_rn(ahead, m - g, g);
  };
  if (!together(begin, n, (u64)grad | (u64)momentum | (u64)direction)) {
    for (long long i = begin; i < n && i < begin + EIGHT; i++) direction[i] = one(grad[i], momentum[i]);
    return;
  }
  const Eight g = Eight::load(grad + begin), old = Eight::load(momentum + begin);
  float m[EIGHT], d[EIGHT];
#pragma unroll
  for (int i = 0; i < EIGHT; i++) d[i] = one(g.at(i), m[i] = old.at(i));
  store(momentum + begin, m);
  store(direction + begin, d);
}

// x = scale · x + factor · y, copy = x, rounded; without y where it is null.
KERNEL(combine, 256, 4)
(float* __restrict__ x, const float* __restrict__ y, u16* __restrict__ copy, long long n, float scale, float factor) {
  const long long begin = ((long long)blockIdx.x * 256 + threadIdx.x) * EIGHT;
  if (!together(begin, n, (u64)x | (u64)y | (u64)copy)) {
    for (long long i = begin; i < n && i < begin + EIGHT; i++)
      copy[i] = to_bf16(x[i] = y ? fma_rn(scale, x[i], factor * y[i]) : scale * x[i]);
    return;
  }
  const Eight a = Eight::load(x + begin), b = y ? Eight::load(y + begin) : Eight{};
  float v[EIGHT];
#pragma unroll
  for (int i = 0; i < EIGHT; i++) v[i] = y ? fma_rn(scale, a.at(i), factor * b.at(i)) : scale * a.at(i);
  store(x + begin, v);
  store(copy + begin, v);
}

// weight = keep · weight − step · direction.
KERNEL(muon_descend, 256, 4)
(const float* __restrict__ direction, float* __restrict__ weight, long long n, float keep, float step) {
  const long long begin = ((long long)blockIdx.x * 256 + threadIdx.x) * EIGHT;
  if (!together(begin, n, (u64)direction | (u64)weight)) {
    for (long long i = begin; i < n && i < begin + EIGHT; i++) weight[i] = fma_rn(keep, weight[i], -step * direction[i]);
    return;
  }
  const Eight d = Eight::load(direction + begin), w = Eight::load(weight + begin);
  float v[EIGHT];
#pragma unroll
  for (int i = 0; i < EIGHT; i++) v[i] = fma_rn(keep, w.at(i), -step * d.at(i));
  store(weight + begin, v);
}

// to = fromᵀ: `from` is [rows, columns]. A block turns a square of 32 · 32 by way of shared memory, whose rows of 33 values keep
// the columns, which are read, in different banks. Launch: grid (⌈columns/32⌉, ⌈rows/32⌉), 256 threads.
KERNEL(transpose, 256, 6)(const u16* __restrict__ from, u16* __restrict__ to, int rows, int columns) {
  constexpr int SIDE = 32, PITCH = SIDE + 1;
  STATIC_SHARED(u16, square, SIDE * PITCH);
  const int left = blockIdx.x * SIDE, top = blockIdx.y * SIDE, x = threadIdx.x % SIDE, first = threadIdx.x / SIDE;
  for (int y = first; y < SIDE; y += 256 / SIDE)
    if (top + y < rows && left + x < columns) square[y * PITCH + x] = from[(long long)(top + y) * columns + left + x];
  __syncthreads();
  for (int y = first; y < SIDE; y += 256 / SIDE)
    if (left + y < columns && top + x < rows) to[(long long)(left + y) * rows + top + x] = square[x * PITCH + y];
}
