// Token embedding: rows of a table (f32), and their gradient without atomics.
#include "dev/base.cuh"

// out[t] = table[ids[t]]. Launch: grid tokens, 128 threads. `width` is a multiple of 4.
KERNEL(embedding_forward, 128, 8)
(const float* __restrict__ table, const u32* __restrict__ ids, float* __restrict__ out, int width) {
  const long long token = blockIdx.x, row = (long long)ids[token];
  for (int i = threadIdx.x * 4; i < width; i += 512)
    *(Quad*)(out + token * width + i) = *(const Quad*)(table + row * width + i);
}

// grad_table[ids[t]] += grad[t] for all t, additions in the order of t: the block of a token that is the first with
// its id adds the rows of all the others. Launch: grid (tokens, ⌈width/256⌉), 128 threads.
KERNEL(embedding_backward, 128, 8)
(const float* __restrict__ grad, const u32* __restrict__ ids, float* __restrict__ grad_table, int tokens, int width) {
  STATIC_SHARED(u32, found, 4);
  STATIC_SHARED(u32, hits, 4);
  const int token = blockIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const u32 id = ids[token];
  u32 earlier = 0;
  for (int t = threadIdx.x; t < token && !earlier; t += 128) earlier = ids[t] == id;
  for (int o = 16; o > 0; o >>= 1) earlier |= __shfl_xor_sync(WARP_ALL, earlier, o);
  if (lane == 0) found[warp] = earlier;
  __syncthreads();
  if (found[0] | found[1] | found[2] | found[3]) return;

  const int col = blockIdx.y * 256 + threadIdx.x * 2;
  const bool mine = col < width;
  float a = 0.0f, b = 0.0f;
  float* to = grad_table + (long long)id * width + col;
  if (mine) a = to[0], b = to[1];
  // 128 ids at a time; every thread then walks over the hits in order.
  for (int t0 = token; t0 < tokens; t0 += 128) {
    const int t = t0 + (int)threadIdx.x;
    u32 bits = t < tokens && ids[t] == id ? 1u << lane : 0u;
    for (int o = 16; o > 0; o >>= 1) bits |= __shfl_xor_sync(WARP_ALL, bits, o);
    __syncthreads();
    if (lane == 0) hits[warp] = bits;
    __syncthreads();
    for (int w = 0; w < 4; w++) {
      u32 left = hits[w];
      for (int l = 0; left; l++, left >>= 1) {
        if (!(left & 1) || !mine) continue;
        const float* from = grad + (long long)(t0 + w * 32 + l) * width + col;
        a += from[0], b += from[1];
      }
    }
  }
  if (mine) to[0] = a, to[1] = b;
}
