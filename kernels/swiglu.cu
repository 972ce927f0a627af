// SwiGLU (arXiv:2002.05202): y = silu(gate) · up over rows of [gate, up], `width` values each.
#include "dev/epilogue.cuh"

// Launch of both: grid ⌈rows · width / 8 / 256⌉, 256 threads. `width` is a multiple of 8.
KERNEL(swiglu_forward, 256, 4)(const u16* __restrict__ gate_up, u16* __restrict__ y, long long rows, int width) {
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
    out.v[i] = pack_bf16(swiglu(g0, bf16_low(u.v[i])), swiglu(g1, bf16_high(u.v[i])));
  }
  *(Quad*)(y + row * width + col) = out;
}

// Turns gate_up into its gradient in place and computes y again.
KERNEL(swiglu_backward, 256, 4)
(const u16* __restrict__ grad_y, u16* __restrict__ gate_up, u16* __restrict__ y, long long rows, int width) {
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
      const float s = sigmoid(gg[j]), silu = gg[j] * s;
      yy[j] = silu * uu[j];
      du[j] = dd[j] * silu;
      dg[j] = dd[j] * uu[j] * (s + silu * (1.0f - s));
    }
    out_y.v[i] = pack_bf16(yy[0], yy[1]);
    out_g.v[i] = pack_bf16(dg[0], dg[1]);
    out_u.v[i] = pack_bf16(du[0], du[1]);
  }
  *(Quad*)(y + row * width + col) = out_y;
  *gate = out_g;
  *up = out_u;
}
