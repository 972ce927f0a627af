// Cases and the f64 reference of attention.
#pragma once
#include <cstring>

#include "check.h"

struct AttentionCase {
  int d, heads, kv_heads, rows, context;
  const char* mask;  // causal, documents, window, edges
  int width() const { return (heads + 2 * kv_heads) * d; }
  int tokens() const { return rows * context; }
  double scale() const { return 1 / sqrt((double)d); }
};
struct AttentionData {
  Bf16 qkv, grad_out;
  std::vector<uint32_t> from;
};
struct AttentionReference {
  std::vector<double> out, lse, grad;
};

inline AttentionData attention_data(uint64_t seed, const AttentionCase& s) {
  Random r(seed * 77 + (uint64_t)s.d * 13 + (uint64_t)s.context);
  AttentionData a;
  a.qkv = random_bf16(r, (size_t)s.tokens() * s.width(), 1);
  a.grad_out = random_bf16(r, (size_t)s.tokens() * s.heads * s.d, 1);
  a.from.resize((size_t)s.tokens());
  for (int row = 0; row < s.rows; row++) {
    uint32_t start = 0;
    int left = 0;
    for (int t = 0; t < s.context; t++) {
      uint32_t& f = a.from[(size_t)row * s.context + t];
      if (!strcmp(s.mask, "documents")) {
        // Lengths from 1 to half the row.
        if (left == 0) start = (uint32_t)t, left = r.below(4) == 0 ? 1 : 1 + r.below(s.context / 2 + 1);
        left--;
        f = start;
      } else if (!strcmp(s.mask, "edges")) {
        // Documents that end on the edges of tiles.
        f = (uint32_t)(t / 64 * 64);
      } else if (!strcmp(s.mask, "window")) {
        f = t > 90 ? (uint32_t)(t - 90) : 0;
      } else {
        f = 0;
      }
    }
  }
  return a;
}

inline AttentionReference attention_reference(const AttentionCase& s, const AttentionData& a) {
  AttentionReference ref;
  int w = s.width(), d = s.d;
  ref.out.assign((size_t)s.tokens() * s.heads * d, 0);
  ref.lse.assign((size_t)s.tokens() * s.heads, 0);
  ref.grad.assign((size_t)s.tokens() * w, 0);
  std::vector<double> p((size_t)s.context), dp((size_t)s.context);
  for (int row = 0; row < s.rows; row++)
    for (int h = 0; h < s.heads; h++)
      for (int t = 0; t < s.context; t++) {
        size_t token = (size_t)row * s.context + t, first = (size_t)row * s.context;
        const double* q = &a.qkv.value[token * w + (size_t)h * d];
        const double* k = &a.qkv.value[first * w + (size_t)(s.heads + h / (s.heads / s.kv_heads)) * d];
        const double* v = k + (size_t)s.kv_heads * d;
        const double* go = &a.grad_out.value[(token * s.heads + h) * d];
        int from = (int)a.from[token];
        double peak = -1e300, sum = 0;
        for (int j = from; j <= t; j++) {
          double x = 0;
          for (int i = 0; i < d; i++) x += q[i] * k[(size_t)j * w + i];
          p[j] = x * s.scale();
          peak = p[j] > peak ? p[j] : peak;
        }
        for (int j = from; j <= t; j++) sum += p[j] = exp(p[j] - peak);
        ref.lse[((size_t)row * s.heads + h) * s.context + t] = peak + log(sum);
        double* o = &ref.out[(token * s.heads + h) * d];
        double delta = 0;
        for (int j = from; j <= t; j++) {
          p[j] /= sum;
          dp[j] = 0;
          for (int i = 0; i < d; i++) {
            o[i] += p[j] * v[(size_t)j * w + i];
            dp[j] += go[i] * v[(size_t)j * w + i];
          }
          delta += p[j] * dp[j];
        }
        double* gq = &ref.grad[token * w + (size_t)h * d];
        double* gk = &ref.grad[first * w + (size_t)(s.heads + h / (s.heads / s.kv_heads)) * d];
        double* gv = gk + (size_t)s.kv_heads * d;
        for (int j = from; j <= t; j++) {
          double ds = p[j] * (dp[j] - delta) * s.scale();
          for (int i = 0; i < d; i++) {
            gq[i] += ds * k[(size_t)j * w + i];
            gk[(size_t)j * w + i] += ds * q[i];
            gv[(size_t)j * w + i] += p[j] * go[i];
          }
        }
      }
  return ref;
}

/// Blocks of `attention_delta`.
inline unsigned delta_blocks(size_t queries, int d) {
  const int lanes = d <= 32 ? 4 : d <= 64 ? 8 : d <= 128 ? 16 : 32;
  return (unsigned)((queries * lanes + 255) / 256);
}

/// The fused backward pass of Hopper: what it keeps between its kernels, and their launches.
struct FusedBackward {
  int rows, context, heads, kv_heads, d;
  unsigned tiles;
  Buffer<float> sums, grad_q;
  Buffer<uint32_t> from_tiles, turns;
  std::string backward, end;

  FusedBackward(Device& device, int r, int c, int h, int kv, int dim)
      : rows(r), context(c), heads(h), kv_heads(kv), d(dim), tiles((unsigned)(c + 63) / 64), sums(device, (size_t)r * h * tiles * 128),
        grad_q(device, (size_t)r * h * tiles * 64 * dim), from_tiles(device, (size_t)r * tiles * 64), turns(device, (size_t)r * h * tiles + 1),
        backward("attention_backward_fused_sm90_" + std::to_string(dim)), end("attention_backward_fused_sm90_end_" + std::to_string(dim)) {}

  /// `launch(spec, arguments…)` returns seconds; so does this. `positions` and the tables may be null.
  template <class Launch>
  double run(Launch launch, const MapBytes& qkv, const MapBytes& map_out, const uint16_t* out, const uint16_t* grad_out, const uint32_t* from,
             const float* lse, uint16_t* grad, const uint32_t* positions, const float* cosines, const float* sines, float scale) {
    const unsigned H = (unsigned)heads, R = (unsigned)rows;
    double seconds = launch({"attention_backward_fused_sm90_begin", {tiles, H, R}, {256, 1, 1}, 0}, out, grad_out, from, lse, sums.ptr(),
                            from_tiles.ptr(), turns.ptr(), context, heads, d);
    seconds += launch({backward.c_str(), {(tiles + 1) / 2, (unsigned)kv_heads, R}, {384, 1, 1}, (size_t)(d == 64 ? 157440 : 214784)}, qkv, map_out, from,
                      (const float*)sums.ptr(), (const uint32_t*)from_tiles.ptr(), grad_q.ptr(), turns.ptr(), grad, positions, cosines, sines,
                      context, heads, kv_heads, scale);
    seconds += launch({end.c_str(), {tiles, H, R}, {128, 1, 1}, 0}, (const float*)grad_q.ptr(), grad, positions, cosines, sines, context, heads,
                      kv_heads, scale);
    return seconds;
  }
};

/// That of two kernels, after `attention_delta`; heads of 64.
struct TwoBackward {
  int rows, context, heads, kv_heads, d;
  std::string kv, q;

  TwoBackward(int r, int c, int h, int k, int dim)
      : rows(r), context(c), heads(h), kv_heads(k), d(dim), kv("attention_backward_sm90_kv_" + std::to_string(dim)),
        q("attention_backward_sm90_q_" + std::to_string(dim)) {}

  template <class Launch>
  double run(Launch launch, const MapBytes& qkv, const MapBytes& map_out, const uint32_t* from, const float* lse, const float* delta,
             uint16_t* grad, const uint32_t* positions, const float* cosines, const float* sines, float scale) {
    const unsigned tiles = (unsigned)(context + 127) / 128, R = (unsigned)rows;
    auto shared = [&](int tile) { return (size_t)(256 + 5 * tile) * d * 2 + 128; };
    double seconds = launch({kv.c_str(), {tiles, (unsigned)kv_heads, R}, {384, 1, 1}, shared(64) + 24 * 64}, qkv, map_out, from, lse, delta, grad,
                            positions, cosines, sines, context, heads, kv_heads, scale);
    seconds += launch({q.c_str(), {tiles, (unsigned)heads, R}, {384, 1, 1}, shared(d == 64 ? 128 : 64)}, qkv, map_out, from, lse, delta, grad,
                      positions, cosines, sines, context, heads, kv_heads, scale);
    return seconds;
  }
};
