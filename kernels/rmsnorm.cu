// RMSNorm (arXiv:1910.07467), forward and backward, over segments of rows.
//
// A tensor has `rows` rows of `stride` values; of each the `segments` segments of `width` values that begin at
// `offset` are normalised on their own, with one weight of `width` values: y = x · rstd · (plus + w) with
// `plus` 1 where a weight is stored as its distance from 1, else 0, and rstd = (mean(x²) + eps)^(−1/2). One warp per
// segment, most of which it keeps in registers between its two passes; several to a warp where they are as short as heads.
// Width, stride and offset are multiples of 4.
//
// The gradient of the weight is a sum over all segments. Every block sums a fixed share of them in order and writes
// its partial; `rmsnorm_weight_grad` adds the partials in order. The same bits in every run, on every device.
#include "dev/eights.cuh"

namespace {

constexpr int WARPS = 8;

// Four consecutive values of f32 or bf16, as they lie in memory.
template <bool F32>
struct Four;
template <>
struct Four<true> {
  Quad q;
  __device__ __forceinline__ float at(int i) const { return __uint_as_float(q.v[i]); }
  static __device__ __forceinline__ Four load(const void* p, long long at) { return Four{*(const Quad*)((const float*)p + at)}; }
};
template <>
struct Four<false> {
  Pair q;
  __device__ __forceinline__ float at(int i) const { return i & 1 ? bf16_high(q.v[i >> 1]) : bf16_low(q.v[i >> 1]); }
  static __device__ __forceinline__ Four load(const void* p, long long at) { return Four{*(const Pair*)((const u16*)p + at)}; }
};
template <bool F32>
__device__ __forceinline__ void store(void* p, long long at, const float (&v)[4]) {
  if (F32)
    store_vector((float*)p + at, Quad{{__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]), __float_as_uint(v[3])}});
  else
    store_vector((u16*)p + at, Pair{{pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3])}});
}
// What a lane takes of N · 128 values: four of every 128, from `first` on; zeros from `width` on. All are under way at once.
template <bool F32, int N>
struct Chunk {
  Four<F32> part[N];
  __device__ __forceinline__ void load(const void* p, long long base, int first, int width) {
#pragma unroll
    for (int k = 0; k < N; k++)
      part[k] = first + k * 128 < width ? Four<F32>::load(p, base + first + k * 128) : Four<F32>{};
  }
};

// STREAM: the norm is that of `stream` (f32), whose rounded values are kept in x; otherwise that of x. ADDED: it is added to
// y (f32) instead of written (bf16). All lie alike.
template <bool STREAM, bool ADDED>
__device__ __forceinline__ void forward(const float* __restrict__ stream, u16* x, const float* __restrict__ weight, void* y,
                                        float* __restrict__ rstd, long long rows, int stride, int offset, int segments,
                                        int width, float eps, float plus) {
  constexpr int N = 16, BATCH = 4;
  const long long item = (long long)blockIdx.x * WARPS + (threadIdx.x >> 5);
  const int lane = threadIdx.x & 31;
  if (item >= rows * segments) return;
  const long long base = item / segments * stride + offset + item % segments * width;
  const int chunks = (width + N * 128 - 1) / (N * 128);
  const void* from = STREAM ? (const void*)stream : x;
  Chunk<STREAM, N> v;
  float sum = 0.0f;
  for (int c = 0; c < chunks; c++) {
    const int first = c * N * 128 + lane * 4;
    v.load(from, base, first, width);
    if (STREAM) {
#pragma unroll
      for (int k = 0; k < N; k++) {
        const float kept[4] = {v.part[k].at(0), v.part[k].at(1), v.part[k].at(2), v.part[k].at(3)};
        if (first + k * 128 < width) store<false>(x, base + first + k * 128, kept);
      }
    }
#pragma unroll
    for (int k = 0; k < N; k++)
#pragma unroll
      for (int i = 0; i < 4; i++) sum = fma_rn(v.part[k].at(i), v.part[k].at(i), sum);
  }
  const float mean = warp_sum(sum) / (float)width + eps;
  // One Newton step on the approximate root.
  float r = rsqrt_fast(mean);
  r = r * (1.5f - 0.5f * mean * r * r);
  if (lane == 0) rstd[item] = r;
  // Backwards, because the last chunk is still here.
  for (int c = chunks - 1; c >= 0; c--) {
    if (c + 1 < chunks) v.load(from, base, c * N * 128 + lane * 4, width);
#pragma unroll
    for (int k0 = 0; k0 < N; k0 += BATCH) {
      const int first = c * N * 128 + k0 * 128 + lane * 4;
      Chunk<true, BATCH> w, q;
      w.load(weight, 0, first, width);
      if (ADDED) q.load(y, base, first, width);
#pragma unroll
      for (int k = 0; k < BATCH; k++) {
        float out[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          out[i] = v.part[k0 + k].at(i) * r * (plus + w.part[k].at(i));
          if (ADDED) out[i] += q.part[k].at(i);
        }
        if (first + k * 128 < width) store<ADDED>(y, base + first + k * 128, out);
      }
    }
  }
}

// dx = rstd · (g − x̂ · mean(g · x̂)) with g = dy · (plus + w) and x̂ = x · rstd.
// MODE 0: grad (f32) += dx, copy (bf16) = grad.  MODE 1: grad (bf16) = dx.
// `grad_y` and `grad` may be the same memory: a lane reads its values before it writes them.
template <bool F32_GY, int MODE>
__device__ __forceinline__ void backward(const u16* x, const float* __restrict__ weight, const float* __restrict__ rstd,
                                         const void* grad_y, void* grad, u16* copy, float* __restrict__ partial,
                                         long long rows, int stride, int offset, int segments, int width, float plus) {
  constexpr int N = 8, BATCH = 4;
  // This block's partial gradient of the weight, one row of `width` per warp.
  DYNAMIC_SHARED(shared);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
  float* sums = (float*)shared + warp * width;
  for (int i = lane * 4; i < width; i += 128) *(Quad*)(sums + i) = Quad{};
  const long long items = rows * segments;
  const int chunks = (width + N * 128 - 1) / (N * 128);
  for (long long item = (long long)blockIdx.x * warps + warp; item < items; item += (long long)gridDim.x * warps) {
    const long long base = item / segments * stride + offset + item % segments * width;
    const float r = rstd[item];
    float dot = 0.0f;
    Chunk<false, N> v;
    Chunk<F32_GY, N> g;
    for (int c = 0; c < chunks; c++) {
      const int first = c * N * 128 + lane * 4;
      v.load(x, base, first, width);
      g.load(grad_y, base, first, width);
#pragma unroll
      for (int k = 0; k < N; k++) {
        const int at = first + k * 128;
        if (at >= width) continue;
        const Four<true> w = Four<true>::load(weight, at);
        Quad* to = (Quad*)(sums + at);
        Quad s = *to;
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const float h = v.part[k].at(i) * r;
          s.v[i] = __float_as_uint(fma_rn(g.part[k].at(i), h, __uint_as_float(s.v[i])));
          dot = fma_rn(g.part[k].at(i) * (plus + w.at(i)), h, dot);
        }
        *to = s;
      }
    }
    dot = warp_sum(dot) / (float)width;
    // Backwards, because the last chunk is still here.
    for (int c = chunks - 1; c >= 0; c--) {
      if (c + 1 < chunks) {
        v.load(x, base, c * N * 128 + lane * 4, width);
        g.load(grad_y, base, c * N * 128 + lane * 4, width);
      }
#pragma unroll
      for (int k0 = 0; k0 < N; k0 += BATCH) {
        const int first = c * N * 128 + k0 * 128 + lane * 4;
        Chunk<true, BATCH> w, q;
        w.load(weight, 0, first, width);
        if (MODE == 0) q.load(grad, base, first, width);
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
          const int at = first + k * 128;
          float out[4];
#pragma unroll
          for (int i = 0; i < 4; i++) {
            out[i] = r * (g.part[k0 + k].at(i) * (plus + w.part[k].at(i)) - v.part[k0 + k].at(i) * r * dot);
            if (MODE == 0) out[i] += q.part[k].at(i);
          }
          if (at >= width) continue;
          if (MODE == 0) store<true>(grad, base + at, out);
          store<false>(MODE == 0 ? copy : (u16*)grad, base + at, out);
        }
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

// The same for wide rows, one to a block: every thread keeps its columns of the weight and of its gradient, and all of a row
// is under way at once. Column 4 · (k · threads + thread) and the three behind it are a thread's.
template <bool F32_GY, int MODE>
__device__ __forceinline__ void rows_backward(const u16* x, const float* __restrict__ weight, const float* __restrict__ rstd,
                                              const void* grad_y, void* grad, u16* copy, float* __restrict__ partial, long long rows,
                                              int width, float plus) {
  constexpr int N = 4, MOST_WARPS = 16;
  STATIC_SHARED(float, dots, 2 * MOST_WARPS);
  const int threads = blockDim.x, warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = threads >> 5, first = (int)threadIdx.x * 4;
  Four<true> w[N];
  float sums[N][4] = {};
#pragma unroll
  for (int k = 0; k < N; k++) w[k] = first + k * threads * 4 < width ? Four<true>::load(weight, first + k * threads * 4) : Four<true>{};
  int turn = 0;
  for (long long row = blockIdx.x; row < rows; row += gridDim.x, turn ^= MOST_WARPS) {
    const long long base = row * width + first;
    const float r = rstd[row];
    Four<false> v[N];
    Four<F32_GY> g[N];
    Four<true> q[N];
#pragma unroll
    for (int k = 0; k < N; k++) {
      const bool inside = first + k * threads * 4 < width;
      v[k] = inside ? Four<false>::load(x, base + k * threads * 4) : Four<false>{};
      g[k] = inside ? Four<F32_GY>::load(grad_y, base + k * threads * 4) : Four<F32_GY>{};
      q[k] = inside && MODE == 0 ? Four<true>::load(grad, base + k * threads * 4) : Four<true>{};
    }
    float dot = 0.0f;
#pragma unroll
    for (int k = 0; k < N; k++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float h = v[k].at(i) * r;
        sums[k][i] = fma_rn(g[k].at(i), h, sums[k][i]);
        dot = fma_rn(g[k].at(i) * (plus + w[k].at(i)), h, dot);
      }
    dot = warp_sum(dot);
    // Two sets in turn: nobody writes what somebody still reads.
    if (lane == 0) dots[turn + warp] = dot;
    __syncthreads();
    dot = 0.0f;
    for (int i = 0; i < warps; i++) dot += dots[turn + i];
    dot /= (float)width;
#pragma unroll
    for (int k = 0; k < N; k++) {
      float out[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        out[i] = r * (g[k].at(i) * (plus + w[k].at(i)) - v[k].at(i) * r * dot);
        if (MODE == 0) out[i] += q[k].at(i);
      }
      if (first + k * threads * 4 >= width) continue;
      if (MODE == 0) store<true>(grad, base + k * threads * 4, out);
      store<false>(MODE == 0 ? copy : (u16*)grad, base + k * threads * 4, out);
    }
  }
#pragma unroll
  for (int k = 0; k < N; k++)
    if (first + k * threads * 4 < width) store<true>(partial, (long long)blockIdx.x * width + first + k * threads * 4, sums[k]);
}

// Segments of at most 256 values, in whole eights, as heads have them: a lane has eight columns of AT_ONCE segments, all under
// way at once, and a segment as many lanes as its width takes, rounded up to a power of two; the last of those may have no
// columns. A warp takes its segments in turns: of each, neighbours lie in neighbouring lanes.
struct HeadLanes {
  int lanes, per_warp;    // of a segment; segments side by side in a warp
  int mine, column;       // this lane's segment of those, and its first column
  bool inside;
  static __device__ __forceinline__ HeadLanes of(int width) {
    const int shift = (width > 8) + (width > 16) + (width > 32) + (width > 64) + (width > 128), lane = threadIdx.x & 31;
    const int column = (lane & ((1 << shift) - 1)) * EIGHT;
    return HeadLanes{1 << shift, 32 >> shift, lane >> shift, column, column < width};
  }
  // Of the whole segment, the same bits in all of its lanes.
  template <int N>
  __device__ __forceinline__ void sum(float (&v)[N]) const {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1)
      if (o < lanes)
#pragma unroll
        for (int n = 0; n < N; n++) v[n] += __shfl_xor_sync(WARP_ALL, v[n], o);
  }
};
// Eight values that are taken apart once more afterwards: kept apart, they would take twice the registers.
__device__ __forceinline__ void pack_again(Quad& q) {
#pragma unroll
  for (int i = 0; i < 4; i++) anew(q.v[i]);
}
// Where a segment begins in a tensor whose segments begin at `offset`, all counted in eights: half the registers of an address.
__device__ __forceinline__ u32 head_at(u32 item, u32 segments, int stride, u32 offset, int width) {
  const u32 row = item / segments;
  return row * ((u32)stride / EIGHT) + (item - row * segments) * ((u32)width / EIGHT) + offset;
}

}  // namespace

// Launch of the forward kernels: grid ⌈rows · segments / 8⌉, 256 threads.
// y = norm(stream), the stream in f32: the input of a block. x = the stream, rounded to bf16, for the backward pass.
KERNEL(rmsnorm_forward, 256, 2)
(const float* stream, const float* weight, u16* x, u16* y, float* rstd, long long rows, int stride, int offset, int segments,
 int width, float eps, float plus) {
  forward<true, false>(stream, x, weight, y, rstd, rows, stride, offset, segments, width, eps, plus);
}
// The stream (f32) += norm(x), x bf16.
KERNEL(rmsnorm_residual_forward, 256, 2)
(u16* x, const float* weight, float* stream, float* rstd, long long rows, int stride, int offset, int segments, int width,
 float eps, float plus) {
  forward<false, true>(nullptr, x, weight, stream, rstd, rows, stride, offset, segments, width, eps, plus);
}
// bf16 to bf16, for queries and keys.
KERNEL(rmsnorm_segments_forward, 256, 3)
(u16* x, const float* weight, u16* y, float* rstd, long long rows, int stride, int offset, int segments, int width,
 float eps, float plus) {
  forward<false, false>(nullptr, x, weight, y, rstd, rows, stride, offset, segments, width, eps, plus);
}

// Launch of the backward kernels: any grid, blocks of up to 8 warps, warps · width · 4 bytes of shared memory; partial
// [grid, width]. Grid and block decide the order of the sums, so they depend on the shape alone.
KERNEL(rmsnorm_backward, 256, 2)
(const u16* x, const float* weight, const float* rstd, const u16* grad_y, float* grad, u16* copy, float* partial,
 long long rows, int stride, int offset, int segments, int width, float plus) {
  backward<false, 0>(x, weight, rstd, grad_y, grad, copy, partial, rows, stride, offset, segments, width, plus);
}
KERNEL(rmsnorm_residual_backward, 256, 2)
(const u16* x, const float* weight, const float* rstd, const float* grad_y, u16* grad_x, float* partial, long long rows,
 int stride, int offset, int segments, int width, float plus) {
  backward<true, 1>(x, weight, rstd, grad_y, grad_x, nullptr, partial, rows, stride, offset, segments, width, plus);
}
KERNEL(rmsnorm_segments_backward, 256, 2)
(const u16* x, const float* weight, const float* rstd, u16* grad, float* partial, long long rows, int stride, int offset,
 int segments, int width, float plus) {
  backward<false, 1>(x, weight, rstd, grad, grad, nullptr, partial, rows, stride, offset, segments, width, plus);
}

// `rmsnorm_segments_forward` and `rmsnorm_segments_backward` over heads: width at most 256, it, stride and offset multiples of
// 8, every address one of 16 bytes, fewer than 2³¹ segments and 2³⁴ values in all. A warp has 4 · 32/lanes of them at a time,
// lanes = width/8 rounded up to a power of two. Launch: 256 threads; forward as many blocks as have all segments between them.
KERNEL(rmsnorm_heads_forward, 256, 4)
(const u16* __restrict__ x, const float* __restrict__ weight, u16* __restrict__ y, float* __restrict__ rstd, long long rows,
 int stride, int offset, int segments, int width, float eps, float plus) {
  constexpr int AT_ONCE = 4;
  const HeadLanes at = HeadLanes::of(width);
  const u32 items = (u32)(rows * segments), first = (blockIdx.x * WARPS + (threadIdx.x >> 5)) * (u32)(at.per_warp * AT_ONCE) + at.mine;
  const float share = reciprocal_fast((float)width);
  const u32 start = (u32)(offset + at.column) / EIGHT;
  u32 place[AT_ONCE];
  bool inside[AT_ONCE];
  Quad v[AT_ONCE];
#pragma unroll
  for (int n = 0; n < AT_ONCE; n++) {
    const u32 item = first + n * at.per_warp;
    inside[n] = at.inside && item < items;
    place[n] = head_at(item, segments, stride, start, width);
    v[n] = inside[n] ? ((const Quad*)x)[place[n]] : Quad{};
  }
  const Eight w = at.inside ? Eight::load(weight + at.column) : Eight{};
  float r[AT_ONCE] = {};
#pragma unroll
  for (int n = 0; n < AT_ONCE; n++)
#pragma unroll
    for (int i = 0; i < EIGHT; i++) r[n] = fma_rn(half_of(v[n], i), half_of(v[n], i), r[n]);
  at.sum(r);
#pragma unroll
  for (int n = 0; n < AT_ONCE; n++) {
    const float mean = r[n] * share + eps;
    float root = rsqrt_fast(mean);
    root = root * (1.5f - 0.5f * mean * root * root);
    if (!inside[n]) continue;
    if (at.column == 0) rstd[first + n * at.per_warp] = root;
    pack_again(v[n]);
    float out[EIGHT];
#pragma unroll
    for (int i = 0; i < EIGHT; i++) out[i] = half_of(v[n], i) * root * (plus + w.at(i));
    store((u16*)((Quad*)y + place[n]), out);
  }
}
// Any grid; partial [grid, width].
KERNEL(rmsnorm_heads_backward, 256, 2)
(const u16* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ rstd, u16* grad, float* __restrict__ partial,
 long long rows, int stride, int offset, int segments, int width, float plus) {
  constexpr int AT_ONCE = 4;
  // A row of sums for every segment that a block has side by side: 256 values a warp at most.
  STATIC_SHARED(float, all, WARPS * 256);
  const HeadLanes at = HeadLanes::of(width);
  const u32 items = (u32)(rows * segments), in_warp = (u32)(at.per_warp * AT_ONCE), warp = threadIdx.x >> 5;
  const u32 mine = warp * in_warp + at.mine, start = (u32)(offset + at.column) / EIGHT;
  const float share = reciprocal_fast((float)width);
  Eight w = at.inside ? Eight::load(weight + at.column) : Eight{};
#pragma unroll
  for (int i = 0; i < EIGHT; i++) w.q[i >> 2].v[i & 3] = __float_as_uint(plus + w.at(i));
  float sums[EIGHT] = {};
  // All warps of a block make as many turns.
  for (u32 begin = blockIdx.x * WARPS * in_warp; begin < items; begin += gridDim.x * WARPS * in_warp) {
    u32 place[AT_ONCE];
    bool inside[AT_ONCE];
    Quad v[AT_ONCE], g[AT_ONCE];
    float r[AT_ONCE], dot[AT_ONCE] = {};
#pragma unroll
    for (int n = 0; n < AT_ONCE; n++) {
      const u32 item = begin + mine + n * at.per_warp;
      inside[n] = at.inside && item < items;
      place[n] = head_at(item, segments, stride, start, width);
      v[n] = inside[n] ? ((const Quad*)x)[place[n]] : Quad{};
      g[n] = inside[n] ? ((const Quad*)grad)[place[n]] : Quad{};
      r[n] = inside[n] ? rstd[item] : 0.0f;
    }
#pragma unroll
    for (int n = 0; n < AT_ONCE; n++)
#pragma unroll
      for (int i = 0; i < EIGHT; i++) {
        const float h = half_of(v[n], i) * r[n];
        sums[i] = fma_rn(half_of(g[n], i), h, sums[i]);
        dot[n] = fma_rn(half_of(g[n], i) * w.at(i), h, dot[n]);
      }
    at.sum(dot);
#pragma unroll
    for (int n = 0; n < AT_ONCE; n++) pack_again(v[n]), pack_again(g[n]);
#pragma unroll
    for (int n = 0; n < AT_ONCE; n++) {
      if (!inside[n]) continue;
      const float mean = dot[n] * share;
      float out[EIGHT];
#pragma unroll
      for (int i = 0; i < EIGHT; i++) out[i] = r[n] * (half_of(g[n], i) * w.at(i) - half_of(v[n], i) * r[n] * mean);
      store((u16*)((Quad*)grad + place[n]), out);
    }
  }
  // In the order of the warps, and within one of its segments side by side.
  const int row = (int)warp * at.per_warp + at.mine;
  if (at.inside)
#pragma unroll
    for (int i = 0; i < EIGHT; i += 4)
      *(Quad*)(all + row * width + at.column + i) =
          Quad{{__float_as_uint(sums[i]), __float_as_uint(sums[i + 1]), __float_as_uint(sums[i + 2]), __float_as_uint(sums[i + 3])}};
  __syncthreads();
  const int i = threadIdx.x;
  if (i >= width) return;
  float s = 0.0f;
#pragma unroll 8
  for (int of = 0; of < WARPS * at.per_warp; of++) s += all[of * width + i];
  partial[(long long)blockIdx.x * width + i] = s;
}

// Rows of more than 1024 values, each in one piece; `rmsnorm_backward` and `rmsnorm_residual_backward` besides. Launch: any grid,
// blocks of 128 · ⌈width/2048⌉ threads, at most 512; partial [grid, width].
KERNEL(rmsnorm_rows_backward, 512, 1)
(const u16* x, const float* weight, const float* rstd, const u16* grad_y, float* grad, u16* copy, float* partial, long long rows,
 int width, float plus) {
  rows_backward<false, 0>(x, weight, rstd, grad_y, grad, copy, partial, rows, width, plus);
}
KERNEL(rmsnorm_rows_residual_backward, 512, 1)
(const u16* x, const float* weight, const float* rstd, const float* grad_y, u16* grad_x, float* partial, long long rows, int width,
 float plus) {
  rows_backward<true, 1>(x, weight, rstd, grad_y, grad_x, nullptr, partial, rows, width, plus);
}

// grad_w += the partials. 32 warps each sum every 32nd in order, then their sums are added in order: there are few columns, and
// the more warps, the more partials are under way. Launch: grid ⌈width/32⌉, 1024 threads.
KERNEL(rmsnorm_weight_grad, 1024, 1)(const float* __restrict__ partial, float* __restrict__ grad_w, int partials, int width) {
  constexpr int SUMMING = 32, AT_ONCE = 16;
  STATIC_SHARED(float, sums, SUMMING * 32);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, i = blockIdx.x * 32 + lane;
  float s = 0.0f;
  for (int first = warp; first < partials; first += SUMMING * AT_ONCE) {
    float v[AT_ONCE];
#pragma unroll
    for (int n = 0; n < AT_ONCE; n++) {
      const int p = first + n * SUMMING;
      v[n] = p < partials && i < width ? partial[(long long)p * width + i] : 0.0f;
    }
#pragma unroll
    for (int n = 0; n < AT_ONCE; n++) s += v[n];
  }
  sums[warp * 32 + lane] = s;
  __syncthreads();
  if (warp != 0 || i >= width) return;
  for (int w = 1; w < SUMMING; w++) s += sums[w * 32 + lane];
  grad_w[i] += s;
}
