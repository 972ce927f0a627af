// RMSNorm (arXiv:1910.07467), forward and backward, over segments of rows.
//
// A tensor has `rows` rows of `stride` values; of each the `segments` segments of `width` values that begin at
// `offset` are normalised on their own, with one weight of `width` values: y = x · rstd · w with
// rstd = (mean(x²) + eps)^(−1/2). One warp per segment.
//
// The gradient of the weight is a sum over all segments. Every block sums a fixed share of them in order and writes
// its partial; `rmsnorm_weight_grad` adds the partials in order. The same bits in every run, on every device.
#include "dev/base.cuh"

namespace {

constexpr int WARPS = 8;

// Two consecutive values of a row of f32 or bf16.
template <bool F32>
__device__ __forceinline__ void load2(const void* p, long long at, float (&v)[2]) {
  if (F32) {
    Pair q = *(const Pair*)((const float*)p + at);
    v[0] = __uint_as_float(q.v[0]), v[1] = __uint_as_float(q.v[1]);
  } else {
    u32 q = *(const u32*)((const u16*)p + at);
    v[0] = bf16_low(q), v[1] = bf16_high(q);
  }
}
template <bool F32>
__device__ __forceinline__ void store2(void* p, long long at, float a, float b) {
  if (F32)
    *(Pair*)((float*)p + at) = Pair{{__float_as_uint(a), __float_as_uint(b)}};
  else
    *(u32*)((u16*)p + at) = pack_bf16(a, b);
}

// y lies as x does; `residual` (f32, whole rows) is added when F32_Y.
template <bool F32_X, bool F32_Y>
__device__ __forceinline__ void forward(const void* x, const float* __restrict__ weight, const float* residual, void* y,
                                        float* __restrict__ rstd, long long rows, int stride, int offset, int segments,
                                        int width, float eps) {
  const long long item = (long long)blockIdx.x * WARPS + (threadIdx.x >> 5);
  const int lane = threadIdx.x & 31;
  if (item >= rows * segments) return;
  const long long base = item / segments * stride + offset + item % segments * width;
  float sum = 0.0f;
  for (int i = lane * 2; i < width; i += 64) {
    float v[2];
    load2<F32_X>(x, base + i, v);
    sum = fma_rn(v[0], v[0], sum);
    sum = fma_rn(v[1], v[1], sum);
  }
  const float mean = warp_sum(sum) / (float)width + eps;
  // One Newton step on the approximate root.
  float r = rsqrt_fast(mean);
  r = r * (1.5f - 0.5f * mean * r * r);
  if (lane == 0) rstd[item] = r;
  for (int i = lane * 2; i < width; i += 64) {
    float v[2];
    load2<F32_X>(x, base + i, v);
    float a = v[0] * r * weight[i], b = v[1] * r * weight[i + 1];
    if (F32_Y) {
      float q[2];
      load2<true>(residual, base + i, q);
      a += q[0], b += q[1];
    }
    store2<F32_Y>(y, base + i, a, b);
  }
}

// dx = rstd · (g − x̂ · mean(g · x̂)) with g = dy · w and x̂ = x · rstd.
// MODE 0: grad (f32) += dx, copy (bf16) = grad.  MODE 1: grad (bf16) = dx.
// `grad_y` and `grad` may be the same memory: a lane reads its values before it writes them.
template <bool F32_X, bool F32_GY, int MODE>
__device__ __forceinline__ void backward(const void* x, const float* __restrict__ weight, const float* __restrict__ rstd,
                                         const void* grad_y, void* grad, u16* copy, float* __restrict__ partial,
                                         long long rows, int stride, int offset, int segments, int width) {
  // This block's partial gradient of the weight, one row of `width` per warp.
  DYNAMIC_SHARED(shared);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
  float* sums = (float*)shared + warp * width;
  for (int i = lane * 2; i < width; i += 64) sums[i] = sums[i + 1] = 0.0f;
  const long long items = rows * segments;
  for (long long item = (long long)blockIdx.x * warps + warp; item < items; item += (long long)gridDim.x * warps) {
    const long long base = item / segments * stride + offset + item % segments * width;
    const float r = rstd[item];
    float dot = 0.0f;
    for (int i = lane * 2; i < width; i += 64) {
      float v[2], g[2];
      load2<F32_X>(x, base + i, v);
      load2<F32_GY>(grad_y, base + i, g);
      const float h0 = v[0] * r, h1 = v[1] * r;
      sums[i] = fma_rn(g[0], h0, sums[i]);
      sums[i + 1] = fma_rn(g[1], h1, sums[i + 1]);
      dot = fma_rn(g[0] * weight[i], h0, dot);
      dot = fma_rn(g[1] * weight[i + 1], h1, dot);
    }
    dot = warp_sum(dot) / (float)width;
    for (int i = lane * 2; i < width; i += 64) {
      float v[2], g[2];
      load2<F32_X>(x, base + i, v);
      load2<F32_GY>(grad_y, base + i, g);
      float a = r * (g[0] * weight[i] - v[0] * r * dot), b = r * (g[1] * weight[i + 1] - v[1] * r * dot);
      if (MODE == 0) {
        float q[2];
        load2<true>(grad, base + i, q);
        a += q[0], b += q[1];
        store2<true>(grad, base + i, a, b);
        store2<false>(copy, base + i, a, b);
      } else {
        store2<false>(grad, base + i, a, b);
      }
    }
  }
#ifndef BUG_RMSNORM_BARRIER
  __syncthreads();
#endif
  const float* all = (const float*)shared;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    float s = 0.0f;
    for (int w = 0; w < warps; w++) s += all[w * width + i];
    partial[(long long)blockIdx.x * width + i] = s;
  }
}

}  // namespace

// Launch of the forward kernels: grid ⌈rows · segments / 8⌉, 256 threads.
// The stream (f32) to the input of a layer (bf16).
KERNEL(rmsnorm_forward, 256, 4)
(const float* x, const float* weight, u16* y, float* rstd, long long rows, int stride, int offset, int segments, int width,
 float eps) {
  forward<true, false>(x, weight, nullptr, y, rstd, rows, stride, offset, segments, width, eps);
}
// y (f32) = residual + norm(x), x bf16.
KERNEL(rmsnorm_residual_forward, 256, 4)
(const u16* x, const float* weight, const float* residual, float* y, float* rstd, long long rows, int stride, int offset,
 int segments, int width, float eps) {
  forward<false, true>(x, weight, residual, y, rstd, rows, stride, offset, segments, width, eps);
}
// bf16 to bf16, for queries and keys.
KERNEL(rmsnorm_segments_forward, 256, 4)
(const u16* x, const float* weight, u16* y, float* rstd, long long rows, int stride, int offset, int segments, int width,
 float eps) {
  forward<false, false>(x, weight, nullptr, y, rstd, rows, stride, offset, segments, width, eps);
}

// Launch of the backward kernels: any grid, blocks of up to 8 warps, warps · width · 4 bytes of shared memory; partial
// [grid, width]. Grid and block decide the order of the sums, so they depend on the shape alone.
KERNEL(rmsnorm_backward, 256, 2)
(const float* x, const float* weight, const float* rstd, const u16* grad_y, float* grad, u16* copy, float* partial,
 long long rows, int stride, int offset, int segments, int width) {
  backward<true, false, 0>(x, weight, rstd, grad_y, grad, copy, partial, rows, stride, offset, segments, width);
}
KERNEL(rmsnorm_residual_backward, 256, 2)
(const u16* x, const float* weight, const float* rstd, const float* grad_y, u16* grad_x, float* partial, long long rows,
 int stride, int offset, int segments, int width) {
  backward<false, true, 1>(x, weight, rstd, grad_y, grad_x, nullptr, partial, rows, stride, offset, segments, width);
}
KERNEL(rmsnorm_segments_backward, 256, 2)
(const u16* x, const float* weight, const float* rstd, u16* grad, float* partial, long long rows, int stride, int offset,
 int segments, int width) {
  backward<false, false, 1>(x, weight, rstd, grad, grad, nullptr, partial, rows, stride, offset, segments, width);
}

// grad_w += the partials, in order. Launch: grid ⌈width/256⌉, 256 threads.
KERNEL(rmsnorm_weight_grad, 256, 4)(const float* __restrict__ partial, float* __restrict__ grad_w, int partials, int width) {
  const int i = blockIdx.x * 256 + threadIdx.x;
  if (i >= width) return;
  float s = 0.0f;
  for (int p = 0; p < partials; p++) s += partial[(long long)p * width + i];
  grad_w[i] += s;
}
