// Token embedding: rows of a table (f32), and their gradient without atomics.
#include "dev/base.cuh"

// out[t] = scale · table[ids[t]]. Launch: grid tokens, 128 threads. `width` is a multiple of 4.
KERNEL(embedding_forward, 128, 8)
(const float* __restrict__ table, const u32* __restrict__ ids, float* __restrict__ out, int width, float scale) {
  const long long token = blockIdx.x, row = (long long)ids[token];
  for (int i = threadIdx.x * 4; i < width; i += 512) {
    Quad q = *(const Quad*)(table + row * width + i);
#pragma unroll
    for (int k = 0; k < 4; k++) q.v[k] = __float_as_uint(scale * __uint_as_float(q.v[k]));
    *(Quad*)(out + token * width + i) = q;
  }
}

// grad_table[ids[t]] += scale · grad[t] for all t, additions in the order of t: the block of a token that is the first with
// its id adds the rows of all the others. Launch: grid (tokens, ⌈width/512⌉), 128 threads. `width` is a multiple of 4, `ids`
// are 16-byte aligned.
KERNEL(embedding_backward, 128, 8)
(const float* __restrict__ grad, const u32* __restrict__ ids, float* __restrict__ grad_table, int tokens, int width,
 float scale) {
  STATIC_SHARED(u32, found, 4);
  STATIC_SHARED(u32, hits, 16);
  const int token = blockIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const u32 id = ids[token];
  // A bit for each of the four ids from `t` on that are this one.
  auto same = [&](int t) {
    u32 bits = 0;
    if (t + 4 <= tokens) {
      const Quad q = *(const Quad*)(ids + t);
#pragma unroll
      for (int i = 0; i < 4; i++) bits |= q.v[i] == id ? 1u << i : 0u;
    } else {
      for (int i = 0; t + i < tokens; i++) bits |= ids[t + i] == id ? 1u << i : 0u;
    }
    return bits;
  };
  u32 earlier = 0;
  for (int t = (int)threadIdx.x * 4; t < token && !earlier; t += 512)
    earlier = same(t) & (t + 4 <= token ? 15u : (1u << (token - t)) - 1u);
  for (int o = 16; o > 0; o >>= 1) earlier |= __shfl_xor_sync(WARP_ALL, earlier, o);
  if (lane == 0) found[warp] = earlier;
  __syncthreads();
  if (found[0] | found[1] | found[2] | found[3]) return;

  const int col = blockIdx.y * 512 + threadIdx.x * 4;
  const bool mine = col < width;
  Quad* to = (Quad*)(grad_table + (long long)id * width + col);
  Quad sum = mine ? *to : Quad{};
  // 512 ids at a time; every thread then walks over the hits in order.
  for (int t0 = token & ~3; t0 < tokens; t0 += 512) {
    const int t = t0 + (int)threadIdx.x * 4;
    u32 bits = t < tokens ? same(t) : 0u;
    bits <<= (lane & 7) * 4;
    for (int o = 4; o > 0; o >>= 1) bits |= __shfl_xor_sync(WARP_ALL, bits, o);
    __syncthreads();
    if ((lane & 7) == 0) hits[warp * 4 + (lane >> 3)] = bits;
    __syncthreads();
    for (int w = 0; w < 16; w++) {
      u32 left = hits[w];
      for (int l = 0; left; l++, left >>= 1) {
        // The first four begin before the token; what is there is not its id.
        if (!(left & 1) || !mine) continue;
        const Quad q = *(const Quad*)(grad + (long long)(t0 + w * 32 + l) * width + col);
#pragma unroll
        for (int i = 0; i < 4; i++) sum.v[i] = __float_as_uint(fma_rn(scale, __uint_as_float(q.v[i]), __uint_as_float(sum.v[i])));
      }
    }
  }
  if (mine) *to = sum;
}
