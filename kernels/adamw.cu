// AdamW (arXiv:1711.05101, algorithm 2) over a flat range of parameters.
//
//   g = gradient · scale,  m = β₁m + (1−β₁)g,  v = β₂v + (1−β₂)g²
//   w = w − lr · (m/c₁ / (√(v/c₂) + ε) + decay · w)
//
// The corrections c₁, c₂ = 1 − βᵢ^step come from the host in f64. `clip` is a factor on the device that multiplies
// the gradient, or null.
#include "dev/philox.cuh"

namespace {

struct Constants {
  float lr, beta1, beta2, eps, decay, inverse_correction1, inverse_correction2, scale;
};

__device__ __forceinline__ float update(const Constants& c, float factor, float g, float w, float& m, float& v) {
  g *= factor;
  m = fma_rn(c.beta1, m, (1.0f - c.beta1) * g);
  v = fma_rn(c.beta2, v, (1.0f - c.beta2) * g * g);
  const float step = m * c.inverse_correction1 / (sqrtf(v * c.inverse_correction2) + c.eps);
  return w - c.lr * fma_rn(c.decay, w, step);
}

}  // namespace

// Weights and moments in f32; `copy` receives the weights in bf16 when not null.
// Launch: grid ⌈n/256⌉, 256 threads.
KERNEL(adamw_f32, 256, 4)
(const float* __restrict__ grad, float* __restrict__ weight, float* __restrict__ first, float* __restrict__ second,
 u16* __restrict__ copy, const float* __restrict__ clip, long long n, float lr, float beta1, float beta2, float eps,
 float decay, float inverse_correction1, float inverse_correction2, float scale) {
  const Constants c = {lr, beta1, beta2, eps, decay, inverse_correction1, inverse_correction2, scale};
  const long long i = (long long)blockIdx.x * 256 + threadIdx.x;
  if (i >= n) return;
  float m = first[i], v = second[i];
  const float w = update(c, clip ? scale * *clip : scale, grad[i], weight[i], m, v);
  first[i] = m;
  second[i] = v;
  weight[i] = w;
  if (copy) copy[i] = to_bf16(w);
}

// bf16 weights without a master copy, rounded stochastically; random bits depend on (seed, step, tensor, index), so a
// resumed run draws the same. Launch: grid ⌈n/8/256⌉, 256 threads; eight values each.
KERNEL(adamw_stochastic, 256, 2)
(const float* __restrict__ grad, u16* __restrict__ weight, float* __restrict__ first, float* __restrict__ second,
 const float* __restrict__ clip, long long n, float lr, float beta1, float beta2, float eps, float decay,
 float inverse_correction1, float inverse_correction2, float scale, u64 seed, u32 step, u32 tensor) {
  const Constants c = {lr, beta1, beta2, eps, decay, inverse_correction1, inverse_correction2, scale};
  const long long block = (long long)blockIdx.x * 256 + threadIdx.x, begin = block * 8;
  if (begin >= n) return;
  const float factor = clip ? scale * *clip : scale;
  u32 random[4] = {(u32)block, (u32)(block >> 32), step, tensor};
  philox(random, (u32)seed, (u32)(seed >> 32));
  auto one = [&](int j, float g, float& m, float& v, u16& w) {
    w = stochastic_bf16(update(c, factor, g, from_bf16(w), m, v), random[j >> 1] >> (j & 1) * 16);
  };
  if (begin + 8 > n || (((u64)grad | (u64)first | (u64)second | (u64)weight) & 15)) {
    for (int j = 0; j < 8 && begin + j < n; j++) one(j, grad[begin + j], first[begin + j], second[begin + j], weight[begin + j]);
    return;
  }
  // Seven accesses of sixteen bytes under way at once.
  Quad g[2], m[2], v[2], w = *(const Quad*)(weight + begin);
#pragma unroll
  for (int q = 0; q < 2; q++) {
    g[q] = *(const Quad*)(grad + begin + q * 4);
    m[q] = *(const Quad*)(first + begin + q * 4);
    v[q] = *(const Quad*)(second + begin + q * 4);
  }
#pragma unroll
  for (int j = 0; j < 8; j++) {
    float mean = __uint_as_float(m[j / 4].v[j % 4]), square = __uint_as_float(v[j / 4].v[j % 4]);
    u16 value = (u16)(w.v[j / 2] >> (j & 1) * 16);
    one(j, __uint_as_float(g[j / 4].v[j % 4]), mean, square, value);
    m[j / 4].v[j % 4] = __float_as_uint(mean), v[j / 4].v[j % 4] = __float_as_uint(square);
    w.v[j / 2] = j & 1 ? (w.v[j / 2] & 0xffffu) | (u32)value << 16 : (w.v[j / 2] & 0xffff0000u) | value;
  }
#pragma unroll
  for (int q = 0; q < 2; q++) {
    store_vector(first + begin + q * 4, m[q]);
    store_vector(second + begin + q * 4, v[q]);
  }
  store_vector(weight + begin, w);
}
