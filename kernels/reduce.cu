// Sum of squares in two passes of fixed order, and the clipping factor that stays on the device.
#include "dev/base.cuh"

namespace {
constexpr int PARTIALS = 512;
// What a block takes at once: four accesses of four values in each thread.
constexpr int STEP = 4096;
}

// partial[b] = Σ x² over the b-th of 512 shares of n values; each thread sums in f32 over at most 256 values at a time,
// then in f64. Launch: grid 512, 256 threads.
KERNEL(squared_norm_partial, 256, 2)(const float* __restrict__ x, double* __restrict__ partial, long long n) {
  STATIC_SHARED(double, sums, 256);
  // Shares are whole steps of the block, so that where they lie does not decide how they are summed.
  const long long share = ((n + PARTIALS - 1) / PARTIALS + STEP - 1) / STEP * STEP, begin = share * blockIdx.x;
  const long long end = begin + share < n ? begin + share : n;
  double total = 0.0;
  float run = 0.0f;
  int count = 0;
  const bool aligned = ((u64)x & 15) == 0;
  for (long long i = begin + threadIdx.x * 4; i < end; i += STEP) {
    float v[16];
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const long long at = i + j * 1024;
      if (aligned && at + 4 <= end) {
        const Quad q = *(const Quad*)(x + at);
#pragma unroll
        for (int c = 0; c < 4; c++) v[j * 4 + c] = __uint_as_float(q.v[c]);
      } else {
#pragma unroll
        for (int c = 0; c < 4; c++) v[j * 4 + c] = at + c < end ? x[at + c] : 0.0f;
      }
    }
#pragma unroll
    for (int j = 0; j < 16; j++) run = fma_rn(v[j], v[j], run);
    if (++count == 16) {
      total += (double)run;
      run = 0.0f;
      count = 0;
    }
  }
  sums[threadIdx.x] = total + (double)run;
  for (int half = 128; half > 0; half >>= 1) {
    __syncthreads();
    if ((int)threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) partial[blockIdx.x] = sums[0];
}

// sum[0] = Σ partial [arrays, 512] (added to what is there when `accumulate`). Launch: one block of 512 threads.
KERNEL(squared_norm_total, 512, 1)(const double* __restrict__ partial, double* __restrict__ sum, int arrays, int accumulate) {
  STATIC_SHARED(double, sums, PARTIALS);
  double s = 0.0;
  for (int a = 0; a < arrays; a++) s += partial[a * PARTIALS + threadIdx.x];
  sums[threadIdx.x] = s;
  for (int half = PARTIALS / 2; half > 0; half >>= 1) {
    __syncthreads();
    if ((int)threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) sum[0] = accumulate ? sum[0] + sums[0] : sums[0];
}

// factor = min(1, limit / (√sum + 1e-6)), the rule of torch.nn.utils.clip_grad_norm_. Launch: one block of 32 threads.
KERNEL(clip_factor, 32, 1)(const double* __restrict__ sum, float* __restrict__ factor, float limit) {
  if (threadIdx.x != 0) return;
  const double f = (double)limit / (sqrt(sum[0]) + 1e-6);
  *factor = f < 1.0 ? (float)f : 1.0f;
}
