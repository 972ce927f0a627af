// Gated linear units (Shazeer, arXiv:2002.05202): y = act(gate) · up over rows of [gate, up], `width` values each, where
// act(x) = x · σ(u(x)). SwiGLU has u(x) = x; GeGLU, with GELU by its approximation with a hyperbolic tangent
// (arXiv:1606.08415), u(x) = 2·√(2/π) · (x + 0.044715 · x³).
#include "dev/epilogue.cuh"

namespace {

struct Silu {
  static __device__ __forceinline__ float inner(float x) { return x; }
  static __device__ __forceinline__ float slope(float) { return 1.0f; }
};
struct GeluTanh {
  static constexpr float LINEAR = 1.5957691216057308f, CUBIC = 0.044715f * LINEAR;
  static __device__ __forceinline__ float inner(float x) { return x * fma_rn(CUBIC, x * x, LINEAR); }
  static __device__ __forceinline__ float slope(float x) { return fma_rn(3.0f * CUBIC, x * x, LINEAR); }
};

template <class Gate>
__device__ __forceinline__ void forward(const u16* __restrict__ gate_up, u16* __restrict__ y, long long rows, int width) {
  const int chunks = width / 8;
  const long long item = (long long)blockIdx.x * 256 + threadIdx.x;
  if (item >= rows * chunks) return;
  const long long row = item / chunks;
  const int col = (int)(item % chunks) * 8;
  const Quad g = *(const Quad*)(gate_up + row * 2 * width + col);
  const Quad u = *(const Quad*)(gate_up + row * 2 * width + width + col);
  Quad out;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float g0 = bf16_low(g.v[i]), g1 = bf16_high(g.v[i]);
    out.v[i] = pack_bf16(g0 * sigmoid(Gate::inner(g0)) * bf16_low(u.v[i]), g1 * sigmoid(Gate::inner(g1)) * bf16_high(u.v[i]));
  }
  *(Quad*)(y + row * width + col) = out;
}

template <class Gate>
__device__ __forceinline__ void backward(const u16* __restrict__ grad_y, u16* __restrict__ gate_up, u16* __restrict__ y,
                                         long long rows, int width) {
  const int chunks = width / 8;
  const long long item = (long long)blockIdx.x * 256 + threadIdx.x;
  if (item >= rows * chunks) return;
  const long long row = item / chunks;
  const int col = (int)(item % chunks) * 8;
  Quad* gate = (Quad*)(gate_up + row * 2 * width + col);
  Quad* up = (Quad*)(gate_up + row * 2 * width + width + col);
  const Quad g = *gate, u = *up, d = *(const Quad*)(grad_y + row * width + col);
  Quad out_y, out_g, out_u;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    float gg[2] = {bf16_low(g.v[i]), bf16_high(g.v[i])}, uu[2] = {bf16_low(u.v[i]), bf16_high(u.v[i])};
    float dd[2] = {bf16_low(d.v[i]), bf16_high(d.v[i])}, yy[2], dg[2], du[2];
#pragma unroll
    for (int j = 0; j < 2; j++) {
      const float s = sigmoid(Gate::inner(gg[j])), gated = gg[j] * s;
      yy[j] = gated * uu[j];
      du[j] = dd[j] * gated;
      dg[j] = dd[j] * uu[j] * (s + gated * Gate::slope(gg[j]) * (1.0f - s));
    }
    out_y.v[i] = pack_bf16(yy[0], yy[1]);
    out_g.v[i] = pack_bf16(dg[0], dg[1]);
    out_u.v[i] = pack_bf16(du[0], du[1]);
  }
  *(Quad*)(y + row * width + col) = out_y;
  *gate = out_g;
  *up = out_u;
}

}  // namespace

// Launch of all: grid ⌈rows · width / 8 / 256⌉, 256 threads. `width` is a multiple of 8.
KERNEL(swiglu_forward, 256, 4)(const u16* gate_up, u16* y, long long rows, int width) { forward<Silu>(gate_up, y, rows, width); }
KERNEL(geglu_forward, 256, 4)(const u16* gate_up, u16* y, long long rows, int width) { forward<GeluTanh>(gate_up, y, rows, width); }
// Turns gate_up into its gradient in place and computes y again.
KERNEL(swiglu_backward, 256, 4)(const u16* grad_y, u16* gate_up, u16* y, long long rows, int width) {
  backward<Silu>(grad_y, gate_up, y, rows, width);
}
KERNEL(geglu_backward, 256, 4)(const u16* grad_y, u16* gate_up, u16* y, long long rows, int width) {
  backward<GeluTanh>(grad_y, gate_up, y, rows, width);
}
