// Times the kernels and writes one JSON object per line: {"op", "shape", "seconds", "flops" or "bytes"}; with "error" and
// "cap" where some of the results were compared with f64 at the very shape that was timed.
#include "timing.h"

#include <algorithm>

#include "attention.h"

namespace {

// What --profile runs: the kernels a step of a 1B model spends its time in.
const char* const PROFILED[][2] = {
    {"gemm_sm90_nt_bf16_256", "8192x8192x8192"},   {"gemm_sm90_nt_bf16_256", "8192x2048x8192"},
    {"gemm_sm90_nn_bf16_256", "8192x2048x8192"},   {"gemm_sm90_tn_f32_256", "8192x2048x8192"},
    {"gemm_sm90_nt_exponentials_256", "4096x128256x2048"},
    {"attention_forward_sm90_128", "4x4096"},      {"attention_forward_sm90_128", "1x16384"},
    {"attention_backward_fused_sm90_128", "4x4096"}, {"attention_backward_fused_sm90_64", "4x4096 h32/8"},
    {"attention_backward_sm90_kv_64", "4x4096 h32/8"}, {"attention_backward_sm90_q_64", "4x4096 h32/8"},
    {"adamw_f32", ""},
    {"rmsnorm_forward", ""},                       {"rmsnorm_rows_backward", ""},
    {"rmsnorm_heads_forward", ""},                 {"rmsnorm_heads_backward", ""},
    {"cross_entropy_backward", ""},
};

struct Timer {
  Device& device;
  FILE* out;
  int repeats;
  bool profile;

  /// Seconds of one launch; NaN for one that did not take place.
  template <class... A>
  double run(const std::string& shape, const LaunchSpec& spec, const A&... arguments) {
    bool wanted = !profile;
    for (auto& p : PROFILED) wanted |= profile && !strcmp(p[0], spec.kernel) && shape.compare(0, strlen(p[1]), p[1]) == 0;
    return wanted ? device.timed(repeats, spec, arguments...) : NAN;
  }
  /// `error` is below 0 where nothing was compared.
  void row(const std::string& op, const std::string& shape, double seconds, const char* unit, double amount, double error = -1,
           double cap = 0) {
    // Left out, or it took a process with it.
    if (std::isnan(seconds) || profile) return;
    fprintf(out, "{\"op\":\"%s\",\"shape\":\"%s\",\"seconds\":%.9g,\"%s\":%.9g", op.c_str(), shape.c_str(), seconds, unit, amount);
    // JSON has no NaN.
    if (error >= 0 || std::isnan(error)) fprintf(out, ",\"error\":%.4g,\"cap\":%g", std::isnan(error) ? 9.99e99 : error, cap);
    fprintf(out, "}\n");
    fflush(out);
  }
};

std::string text(const char* format, long a, long b, long c) {
  char s[96];
  snprintf(s, sizeof s, format, a, b, c);
  return s;
}

// Random values, never zeros: zeros draw less power and run faster than any real input.
struct Values {
  std::vector<uint16_t> bits;
  Buffer<uint16_t> on;
  static std::vector<uint16_t> random(size_t n, uint64_t seed) {
    Random r(n + seed);
    std::vector<uint16_t> block(1 << 18), all(n);
    for (uint16_t& v : block) v = host::to_bf16((float)r.normal());
    // Drawn from the block at random: rows that come again would give a softmax one key that is the query itself.
    uint64_t state = r.next();
    for (uint16_t& v : all) {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      v = block[state >> 46];
    }
    return all;
  }
  Values(Device& d, size_t n, uint64_t seed = 0) : bits(random(n, seed)), on(d, bits) {}
  double operator[](size_t i) const { return host::from_bf16(bits[i]); }
};

void gemm(Timer& t, long m, long n, long k) {
  Values a(t.device, (size_t)m * k), b(t.device, (size_t)n * k, 1);
  Buffer<float> c(t.device, (size_t)m * n);
  const double flops = 2.0 * m * n * k;
  const std::string shape = text("%ldx%ldx%ld", m, n, k);
  const int M = (int)m, N = (int)n, K = (int)k;
  const long long ldk = k, ldm = m, ldn = n;
  const unsigned tiles = (unsigned)((m + 127) / 128 * ((n + 127) / 128));
  float* const no = nullptr;
  // Some of the results, so that tiles, the wrap of the ring and large addresses are seen at this very shape.
  std::vector<size_t> sample = {0, (size_t)n - 1, (size_t)(m - 1) * n, (size_t)m * n - 1};
  Random r(7);
  while (sample.size() < 400) sample.push_back((size_t)r.below((int)m) * n + (size_t)r.below((int)n));
  auto poison = [&](bool f32) {
    const uint32_t nan = 0xffffffffu;
    const size_t size = f32 ? 4 : 2;
    for (size_t at : sample) t.device.upload((char*)c.ptr() + at * size, &nan, size);
  };
  // Largest distance from f64, relative to the usual size of a product.
  auto error = [&](bool a_k, bool b_k, bool f32) {
    double worst = 0;
    for (size_t at : sample) {
      const size_t i = at / n, j = at % n;
      double want = 0;
      for (long p = 0; p < k; p++) want += a[a_k ? i * k + p : (size_t)p * m + i] * b[b_k ? j * k + p : (size_t)p * n + j];
      uint32_t word = 0;
      t.device.download(&word, (char*)c.ptr() + at * (f32 ? 4 : 2), f32 ? 4 : 2);
      const double d = fabs((f32 ? host::as_float(word) : host::from_bf16((uint16_t)word)) - want) / sqrt((double)k);
      if (!(d <= worst)) worst = d;
    }
    return worst;
  };
  auto timed = [&](const char* kernel, bool a_k, bool b_k, bool f32, auto launch) {
    if (!t.profile) poison(f32);
    const double seconds = launch();
    if (std::isnan(seconds) || t.profile) return;
    // bf16 keeps 8 bits of values up to four or five times the usual.
    t.row(kernel, shape, seconds, "flops", flops, error(a_k, b_k, f32), f32 ? 1e-3 : 0.025);
  };
  if (t.device.has_hopper()) {
    const unsigned blocks = (unsigned)t.device.multiprocessors();
    auto hopper = [&](const char* kernel, bool a_k, bool b_k, int columns, bool f32) {
      MapBytes ma = a_k ? t.device.map_2d(a.on.ptr(), k, m, k * 2, 64, 128) : t.device.map_2d(a.on.ptr(), m, k, m * 2, 64, 64);
      MapBytes mb = b_k ? t.device.map_2d(b.on.ptr(), k, n, k * 2, 64, columns) : t.device.map_2d(b.on.ptr(), n, k, n * 2, 64, 64);
      LaunchSpec spec = {kernel, {blocks, 1, 1}, {384, 1, 1}, columns == 256 ? (size_t)196672 : (size_t)196704};
      timed(kernel, a_k, b_k, f32, [&] {
        return f32 ? t.run(shape, spec, ma, mb, c.ptr(), ldn, no, M, N, K) : t.run(shape, spec, ma, mb, c.ptr<uint16_t>(), ldn, M, N, K);
      });
    };
    hopper("gemm_sm90_nt_bf16_256", true, true, 256, false);
    hopper("gemm_sm90_nn_bf16_256", true, false, 256, false);
    hopper("gemm_sm90_tn_f32_256", false, false, 256, true);
    hopper("gemm_sm90_nt_bf16_128", true, true, 128, false);
    // Where the shape could be that of gates and ups, or of heads of 64 values.
    if (n % 128 == 0) {
      Buffer<uint32_t> positions(t.device, std::vector<uint32_t>((size_t)m, 0));
      Buffer<float> table(t.device, std::vector<float>(32, 0.7f));
      MapBytes ma = t.device.map_2d(a.on.ptr(), k, m, k * 2, 64, 128), mb = t.device.map_2d(b.on.ptr(), k, n, k * 2, 64, 128),
               mb256 = t.device.map_2d(b.on.ptr(), k, n, k * 2, 64, 256);
      LaunchSpec spec = {"gemm_sm90_nt_swiglu_256", {blocks, 1, 1}, {384, 1, 1}, 196672};
      uint16_t* activated = c.ptr<uint16_t>() + (size_t)m * n;
      t.row(spec.kernel, shape, t.run(shape, spec, ma, mb, c.ptr<uint16_t>(), ldn, activated, M, N / 2, K), "flops", flops);
      spec.kernel = "gemm_sm90_nt_rope_64_256";
      t.row(spec.kernel, shape, t.run(shape, spec, ma, mb256, c.ptr<uint16_t>(), ldn, positions.ptr(), table.ptr(), table.ptr(), N, M, N, K),
            "flops", flops);
    }
  }
  LaunchSpec spec = {"gemm_nt_bf16", {tiles, 1, 1}, {256, 1, 1}, 61440};
  timed(spec.kernel, true, true, false, [&] { return t.run(shape, spec, a.on.ptr(), ldk, b.on.ptr(), ldk, c.ptr<uint16_t>(), ldn, M, N, K); });
  spec.kernel = "gemm_nn_bf16", spec.shared = 56832;
  timed(spec.kernel, true, false, false, [&] { return t.run(shape, spec, a.on.ptr(), ldk, b.on.ptr(), ldn, c.ptr<uint16_t>(), ldn, M, N, K); });
  spec.kernel = "gemm_tn_f32", spec.shared = 52224;
  timed(spec.kernel, false, false, true, [&] { return t.run(shape, spec, a.on.ptr(), ldm, b.on.ptr(), ldn, c.ptr(), ldn, no, M, N, K); });
}

struct Heads {
  int rows, context, heads, kv_heads, d;
  size_t width() const { return (size_t)(heads + 2 * kv_heads) * d; }
  size_t tokens() const { return (size_t)rows * context; }
  double scale() const { return 1 / sqrt((double)d); }
};

double distance(const std::vector<double>& got, const std::vector<double>& want) {
  double d2 = 0, w2 = 0;
  for (size_t i = 0; i < got.size(); i++) d2 += (got[i] - want[i]) * (got[i] - want[i]), w2 += want[i] * want[i];
  return sqrt(d2) / (sqrt(w2) + 1e-6);
}

// Some rows of what attention computed, written out in f64. The gradients of keys and values take the sums of the softmax
// and delta as the device computed them; those of queries do not.
struct AttentionErrors {
  double out = 0, gradients = 0;
};
AttentionErrors attention_errors(const Heads& s, const Values& qkv, const Values& grad_out, const std::vector<uint16_t>& out,
                                 const std::vector<float>& lse, const std::vector<float>* delta, const std::vector<uint16_t>* grad) {
  AttentionErrors worst;
  auto keep = [](double& at, double value) {
    if (!(value <= at)) at = value;
  };
  const size_t w = s.width(), group = (size_t)(s.heads / s.kv_heads), d = (size_t)s.d;
  Random r(11);
  for (int n = 0; n < 12; n++) {
    const size_t row = (size_t)r.below(s.rows), h = (size_t)r.below(s.heads), first = row * s.context;
    const size_t t = n == 0 ? (size_t)s.context - 1 : (size_t)(s.context / 8 + r.below(s.context - s.context / 8)), token = first + t;
    const size_t q = token * w + h * d, k = first * w + (s.heads + h / group) * d, v = k + s.kv_heads * d, g = (token * s.heads + h) * d;
    std::vector<double> p(t + 1), o(d, 0), have(d), dq(d, 0);
    double peak = -1e300, sum = 0, dot = 0;
    for (size_t j = 0; j <= t; j++) {
      p[j] = 0;
      for (size_t i = 0; i < d; i++) p[j] += qkv[q + i] * qkv[k + j * w + i];
      p[j] *= s.scale(), peak = fmax(peak, p[j]);
    }
    for (double& x : p) sum += x = exp(x - peak);
    for (size_t j = 0; j <= t; j++)
      for (size_t i = 0; i < d; i++) o[i] += p[j] / sum * qkv[v + j * w + i];
    for (size_t i = 0; i < d; i++) have[i] = host::from_bf16(out[g + i]), dot += grad_out[g + i] * o[i];
    keep(worst.out, distance(have, o));
    keep(worst.out, fabs(lse[(row * s.heads + h) * s.context + t] - (peak + log(sum))));
    if (!grad) continue;
    for (size_t j = 0; j <= t; j++) {
      double dp = 0;
      for (size_t i = 0; i < d; i++) dp += grad_out[g + i] * qkv[v + j * w + i];
      for (size_t i = 0; i < d; i++) dq[i] += p[j] / sum * (dp - dot) * s.scale() * qkv[k + j * w + i];
    }
    for (size_t i = 0; i < d; i++) have[i] = host::from_bf16((*grad)[q + i]);
    keep(worst.gradients, distance(have, dq));
    // The key at the same place, for every query of its group that sees it.
    const size_t kv = h / group;
    std::vector<double> dk(d, 0), dv(d, 0);
    for (size_t head = kv * group; head < (kv + 1) * group; head++)
      for (size_t u = t; u < (size_t)s.context; u++) {
        const size_t query = (first + u) * w + head * d, go = ((first + u) * s.heads + head) * d, at = (row * s.heads + head) * s.context + u;
        double x = 0, dp = 0;
        for (size_t i = 0; i < d; i++) x += qkv[query + i] * qkv[k + t * w + i], dp += grad_out[go + i] * qkv[v + t * w + i];
        x = exp(x * s.scale() - lse[at]);
        for (size_t i = 0; i < d; i++) dv[i] += x * grad_out[go + i], dk[i] += x * (dp - (*delta)[at]) * s.scale() * qkv[query + i];
      }
    for (size_t i = 0; i < d; i++) have[i] = host::from_bf16((*grad)[k + t * w + i]);
    keep(worst.gradients, distance(have, dk));
    for (size_t i = 0; i < d; i++) have[i] = host::from_bf16((*grad)[v + t * w + i]);
    keep(worst.gradients, distance(have, dv));
  }
  return worst;
}

void attention(Timer& t, const Heads& s) {
  const int context = s.context, heads = s.heads, kv_heads = s.kv_heads, d = s.d;
  const size_t tokens = s.tokens(), width = s.width();
  Values qkv(t.device, tokens * width), grad_out(t.device, tokens * heads * d, 1);
  Buffer<uint32_t> from(t.device, std::vector<uint32_t>(tokens, 0));
  const float scale = (float)s.scale();
  // Causal: half of the square, and the diagonal.
  const double flops = 4.0 * s.rows * heads * d * ((double)context * (context + 1) / 2);
  const std::string shape = text("%ldx%ld h%ld", s.rows, context, heads) + text("/%ld d%ld", kv_heads, d, 0), suffix = std::to_string(d);
  const unsigned R = (unsigned)s.rows, H = (unsigned)heads, KV = (unsigned)kv_heads;
  for (bool hopper : {true, false}) {
    if (hopper && (!t.device.has_hopper() || (d != 64 && d != 128))) continue;
    if (t.profile && !hopper) continue;
    Buffer<uint16_t> out(t.device, tokens * heads * d), grad(t.device, tokens * width);
    Buffer<float> lse(t.device, tokens * heads), delta(t.device, tokens * heads);
    const std::string tier = hopper ? "sm90_" : "", name = "attention_forward_" + tier + suffix, kv = "attention_backward_kv_" + suffix,
                      q = "attention_backward_q_" + suffix;
    const LaunchSpec forward_delta = {"attention_delta", {delta_blocks(tokens * heads, d), 1, 1}, {256, 1, 1}, 0};
    double forward, backward;
    if (hopper) {
      MapBytes map = t.device.map_2d(qkv.on.ptr(), width, tokens, width * 2, 64, 64);
      MapBytes map_out = t.device.map_2d(grad_out.on.ptr(), (uint64_t)heads * d, tokens, (uint64_t)heads * d * 2, 64, 64);
      const unsigned wide = (unsigned)(context + 127) / 128;
      forward = t.run(shape, {name.c_str(), {wide, H, R}, {384, 1, 1}, (size_t)5 * 128 * d * 2 + 128}, map, from.ptr(), out.ptr(), lse.ptr(),
                      context, heads, kv_heads, scale);
      backward = t.run(shape, forward_delta, out.ptr(), grad_out.on.ptr(), delta.ptr(), s.rows, context, heads, d);
      auto launch = [&](const LaunchSpec& spec, const auto&... arguments) { return t.run(shape, spec, arguments...); };
      const uint32_t* nowhere = nullptr;
      const float* no = nullptr;
      if (d == 64)
        backward += TwoBackward(s.rows, context, heads, kv_heads, d).run(launch, map, map_out, from.ptr(), lse.ptr(), delta.ptr(), grad.ptr(), nowhere,
                                                                         no, no, scale);
      else
        backward = NAN;
      FusedBackward passes(t.device, s.rows, context, heads, kv_heads, d);
      Buffer<uint16_t> fused(t.device, tokens * width);
      const double seconds = passes.run(launch, map, map_out, out.ptr(), grad_out.on.ptr(), from.ptr(), lse.ptr(), fused.ptr(), nowhere, no, no, scale);
      if (!t.profile && !std::isnan(seconds)) {
        const std::vector<float> sums = lse.get(), by = delta.get();
        const std::vector<uint16_t> gradients = fused.get();
        const AttentionErrors e = attention_errors(s, qkv, grad_out, out.get(), sums, &by, &gradients);
        // Thousands of blocks add to one sum after the other: in the same order each time.
        for (int again = 0; again < 10; again++) {
          passes.run([&](const LaunchSpec& spec, const auto&... arguments) { return t.device.run(spec, arguments...), 0.0; }, map, map_out, out.ptr(),
                     grad_out.on.ptr(), from.ptr(), lse.ptr(), fused.ptr(), nowhere, no, no, scale);
          if (fused.get() != gradients) printf("FAIL attention_backward_fused_sm90_%d %s: two runs differ\n", d, shape.c_str());
        }
        t.row("attention_backward_fused_sm90_" + suffix, shape, seconds, "flops", 2.5 * flops, e.gradients, 0.04);
      }
    } else {
      const unsigned tiles = (unsigned)(context + 63) / 64, slices = d == 256 ? 2 : 1;
      const size_t keys = d == 256 ? 32 : 64, stages = d == 256 ? 1 : 2, kv_tile = d <= 64 ? 64 : 32, q_tile = d <= 96 ? 64 : 32;
      forward = t.run(shape, {name.c_str(), {tiles, H, R}, {128, 1, 1}, (64 + 4 * keys) * d * 2}, qkv.on.ptr(), from.ptr(), out.ptr(), lse.ptr(),
                      context, heads, kv_heads, scale);
      backward = t.run(shape, forward_delta, out.ptr(), grad_out.on.ptr(), delta.ptr(), s.rows, context, heads, d);
      backward += t.run(shape, {kv.c_str(), {tiles, KV * slices, R}, {128, 1, 1}, (128 + 2 * stages * kv_tile) * d * 2}, qkv.on.ptr(),
                        grad_out.on.ptr(), from.ptr(), lse.ptr(), delta.ptr(), grad.ptr(), context, heads, kv_heads, scale);
      backward += t.run(shape, {q.c_str(), {tiles, H, R}, {128, 1, 1}, (128 + 2 * stages * q_tile) * d * 2}, qkv.on.ptr(), grad_out.on.ptr(),
                        from.ptr(), lse.ptr(), delta.ptr(), grad.ptr(), context, heads, kv_heads, scale);
    }
    if (t.profile || std::isnan(forward)) continue;
    const std::vector<float> sums = lse.get(), deltas = delta.get();
    const std::vector<uint16_t> gradients = grad.get();
    const AttentionErrors e = attention_errors(s, qkv, grad_out, out.get(), sums, &deltas, std::isnan(backward) ? nullptr : &gradients);
    t.row(name, shape, forward, "flops", flops, e.out, 0.02);
    // Counted as the five products that are needed; mma.sync makes seven.
    t.row("attention_backward_" + tier + suffix, shape, backward, "flops", 2.5 * flops, e.gradients, 0.04);
  }
}

unsigned blocks(size_t k, size_t per) { return (unsigned)((k + per - 1) / per); }

// Kernels bound by memory; bytes are the fewest they could move.
void bandwidth(Timer& t, long tokens, long width) {
  const size_t n = (size_t)tokens * width;
  const std::string shape = text("%ldx%ld", tokens, width, 0);
  Values x(t.device, 2 * n), gradient(t.device, n);
  Buffer<uint16_t> y(t.device, n), kept(t.device, n);
  Buffer<float> wide(t.device, std::vector<float>(n, 0.5f)), moment(t.device, std::vector<float>(n, 0.1f)),
      second(t.device, std::vector<float>(n, 0.1f)), weight(t.device, std::vector<float>(width, 1.0f)), rstd(t.device, tokens);
  Buffer<double> sums(t.device, 512);
  const long long rows = tokens, items = (long long)n;
  // As norm.rs launches it.
  const int w = (int)width, warps = std::max(1, std::min(8, 8192 / w));
  const unsigned shares = std::min(blocks(tokens, warps), std::min(2112u / warps, 1056u));
  const unsigned by_row = std::min((unsigned)tokens, 512u);
  Buffer<float> partial(t.device, (size_t)std::max(shares, by_row) * width);
  auto row = [&](const char* op, double bytes, double seconds) { t.row(op, shape, seconds, "bytes", bytes * n); };
  const LaunchSpec by_warp = {"", {blocks(tokens, 8), 1, 1}, {256, 1, 1}, 0}, eights = {"", {blocks((n + 7) / 8, 256), 1, 1}, {256, 1, 1}, 0},
                   by_share = {"", {shares, 1, 1}, {(unsigned)warps * 32, 1, 1}, (size_t)warps * width * 4},
                   row_by_row = {"", {by_row, 1, 1}, {128u * ((w + 2047) / 2048), 1, 1}, 0};
  auto named = [](LaunchSpec spec, const char* kernel) {
    spec.kernel = kernel;
    return spec;
  };
  row("rmsnorm_forward", 8, t.run(shape, {"rmsnorm_forward", {blocks(tokens, 8), 1, 1}, {256, 1, 1}, 0}, wide.ptr(), weight.ptr(),
                                  kept.ptr(), y.ptr(), rstd.ptr(), rows, w, 0, 1, w, 1e-5f, 0.0f));
  row("adamw_f32", 30, t.run(shape, {"adamw_f32", {blocks(n, 256), 1, 1}, {256, 1, 1}, 0}, wide.ptr(), wide.ptr(), moment.ptr(), second.ptr(),
                             y.ptr(), (float*)nullptr, items, 1e-4f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f, 1.0f, 1.0f));
  row("rmsnorm_rows_backward", 14, t.run(shape, {"rmsnorm_rows_backward", {by_row, 1, 1}, {128u * ((w + 2047) / 2048), 1, 1}, 0}, kept.ptr(),
                                         weight.ptr(), rstd.ptr(), gradient.on.ptr(), moment.ptr(), y.ptr(), partial.ptr(), rows, w, 0.0f));
  row("rmsnorm_backward", 14, t.run(shape, {"rmsnorm_backward", {shares, 1, 1}, {(unsigned)warps * 32, 1, 1}, (size_t)warps * width * 4},
                                    kept.ptr(), weight.ptr(), rstd.ptr(), gradient.on.ptr(), moment.ptr(), y.ptr(), partial.ptr(), rows, w, 0, 1, w,
                                    0.0f));
  row("rmsnorm_residual_forward", 10, t.run(shape, named(by_warp, "rmsnorm_residual_forward"), kept.ptr(), weight.ptr(), wide.ptr(), rstd.ptr(),
                                            rows, w, 0, 1, w, 1e-5f, 0.0f));
  row("rmsnorm_rows_residual_backward", 8, t.run(shape, named(row_by_row, "rmsnorm_rows_residual_backward"), kept.ptr(), weight.ptr(), rstd.ptr(),
                                                 moment.ptr(), y.ptr(), partial.ptr(), rows, w, 0.0f));
  row("rmsnorm_residual_backward", 8, t.run(shape, named(by_share, "rmsnorm_residual_backward"), kept.ptr(), weight.ptr(), rstd.ptr(), moment.ptr(),
                                            y.ptr(), partial.ptr(), rows, w, 0, 1, w, 0.0f));
  row("rmsnorm_segments_forward", 4, t.run(shape, named(by_warp, "rmsnorm_segments_forward"), kept.ptr(), weight.ptr(), y.ptr(), rstd.ptr(), rows,
                                           w, 0, 1, w, 1e-5f, 0.0f));
  row("rmsnorm_segments_backward", 6, t.run(shape, named(by_share, "rmsnorm_segments_backward"), kept.ptr(), weight.ptr(), rstd.ptr(),
                                            gradient.on.ptr(), partial.ptr(), rows, w, 0, 1, w, 0.0f));
  t.row("rmsnorm_weight_grad", shape, t.run(shape, {"rmsnorm_weight_grad", {blocks(width, 32), 1, 1}, {1024, 1, 1}, 0}, partial.ptr(), second.ptr(),
                                            (int)by_row, w),
        "bytes", 4.0 * width * (by_row + 2));
  row("swiglu_forward", 6, t.run(shape, {"swiglu_forward", {blocks(n / 8, 256), 1, 1}, {256, 1, 1}, 0}, x.on.ptr(), y.ptr(), rows, w));
  row("swiglu_backward", 12, t.run(shape, {"swiglu_backward", {blocks(n / 8, 256), 1, 1}, {256, 1, 1}, 0}, gradient.on.ptr(), x.on.ptr(), y.ptr(),
                                   rows, w));
  row("adamw_stochastic", 24, t.run(shape, {"adamw_stochastic", {blocks((n + 7) / 8, 256), 1, 1}, {256, 1, 1}, 0}, wide.ptr(), y.ptr(),
                                    moment.ptr(), second.ptr(), (float*)nullptr, items, 1e-4f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f, 1.0f, 1.0f,
                                    (unsigned long long)1, 1u, 0u));
  row("muon_momentum", 16, t.run(shape, {"muon_momentum", {blocks((n + 7) / 8, 256), 1, 1}, {256, 1, 1}, 0}, wide.ptr(), moment.ptr(),
                                 second.ptr(), items, 0.95f, 0.05f, 0.95f, 1.0f));
  row("combine", 14, t.run(shape, {"combine", {blocks((n + 7) / 8, 256), 1, 1}, {256, 1, 1}, 0}, wide.ptr(), moment.ptr(), y.ptr(), items, 0.5f, 0.5f));
  row("muon_descend", 12, t.run(shape, {"muon_descend", {blocks((n + 7) / 8, 256), 1, 1}, {256, 1, 1}, 0}, moment.ptr(), wide.ptr(), items, 0.99f, 1e-4f));
  row("transpose", 4, t.run(shape, {"transpose", {blocks(width, 32), blocks(tokens, 32), 1}, {256, 1, 1}, 0}, kept.ptr(), y.ptr(), (int)tokens, w));
  row("bias_add", 4, t.run(shape, {"bias_add", {blocks((n + 7) / 8, 256), 1, 1}, {256, 1, 1}, 0}, weight.ptr(), y.ptr(), rows, w));
  const unsigned bias_shares = std::min(blocks(tokens, 16), 528u);
  row("bias_grad", 2, t.run(shape, {"bias_grad", {bias_shares, blocks(width, 1024), 1}, {128, 1, 1}, 0}, kept.ptr(), partial.ptr(), rows, w));
  row("narrow_copy", 6, t.run(shape, {"narrow_copy", {blocks((n + 7) / 8, 256), 1, 1}, {256, 1, 1}, 0}, wide.ptr(), y.ptr(), items));
  row("squared_norm", 4, t.run(shape, {"squared_norm_partial", {512, 1, 1}, {256, 1, 1}, 0}, wide.ptr(), sums.ptr(), items));
  row("geglu_forward", 6, t.run(shape, named(eights, "geglu_forward"), x.on.ptr(), y.ptr(), rows, w));
  row("geglu_backward", 12, t.run(shape, named(eights, "geglu_backward"), gradient.on.ptr(), x.on.ptr(), y.ptr(), rows, w));
  row("add_narrow", 12, t.run(shape, named(eights, "add_narrow"), gradient.on.ptr(), wide.ptr(), y.ptr(), items));
  // The second half of every row.
  row("copy_columns", 2, t.run(shape, {"copy_columns", {blocks((n / 2 + 15) / 16, 256), 1, 1}, {256, 1, 1}, 0}, kept.ptr(), y.ptr(), rows, w, w / 2,
                               w / 2));
  // As many ids as tokens, some of them more than once.
  Random r(5);
  std::vector<uint32_t> drawn((size_t)tokens);
  for (uint32_t& id : drawn) id = (uint32_t)r.below((int)tokens);
  Buffer<uint32_t> ids(t.device, drawn);
  std::sort(drawn.begin(), drawn.end());
  const double distinct = (double)(std::unique(drawn.begin(), drawn.end()) - drawn.begin()) / (double)tokens;
  row("embedding_forward", 4 + 4 * distinct, t.run(shape, {"embedding_forward", {(unsigned)tokens, 1, 1}, {128, 1, 1}, 0}, wide.ptr(), ids.ptr(),
                                                   moment.ptr(), w, 1.0f));
  row("embedding_backward", 4 + 8 * distinct, t.run(shape, {"embedding_backward", {(unsigned)tokens, blocks(width, 512), 1}, {128, 1, 1}, 0},
                                                    moment.ptr(), ids.ptr(), second.ptr(), (int)tokens, w, 1.0f));
  if (width % 64 == 0) {
    Buffer<uint32_t> positions(t.device, std::vector<uint32_t>((size_t)tokens, 0));
    Buffer<float> table(t.device, std::vector<float>(32, 0.7f));
    row("rope", 4, t.run(shape, {"rope", {blocks(n / 16, 512), 1, 1}, {256, 1, 1}, 0}, x.on.ptr(), positions.ptr(), table.ptr(), table.ptr(), rows,
                         w, w / 64, 64, 1.0f));
    // Every head of such rows on its own.
    const int d = w % 128 == 0 ? 128 : 64, heads = w / d;
    const size_t all = (size_t)tokens * heads;
    const unsigned turns = blocks(all, 8 * 4 * 32 / (d / 8)), head_shares = std::min(turns, 256u);
    Buffer<float> of_heads(t.device, all), head_partial(t.device, (size_t)head_shares * d);
    const std::string head_shape = text("%ldx%ldx%ld", tokens, heads, d);
    double seconds = t.run(head_shape, {"rmsnorm_heads_forward", {turns, 1, 1}, {256, 1, 1}, 0}, kept.ptr(), weight.ptr(), y.ptr(), of_heads.ptr(),
                           rows, w, 0, heads, d, 1e-5f, 0.0f);
    t.row("rmsnorm_heads_forward", head_shape, seconds, "bytes", 4.0 * n + 4.0 * all);
    seconds = t.run(head_shape, {"rmsnorm_heads_backward", {head_shares, 1, 1}, {256, 1, 1}, 0}, kept.ptr(), weight.ptr(), of_heads.ptr(),
                    gradient.on.ptr(), head_partial.ptr(), rows, w, 0, heads, d, 0.0f);
    t.row("rmsnorm_heads_backward", head_shape, seconds, "bytes", 6.0 * n + 4.0 * all);
  }
}

// The product of the head, which leaves its logits as exponentials: beside a plain product of the same shape.
void exponentials(Timer& t, long m, long n, long k) {
  // Logits of a few units each: with larger ones a part would have one exponential that is not 0.
  Values a(t.device, (size_t)m * k);
  std::vector<uint16_t> weights = Values::random((size_t)n * k, 1);
  const double small = 1 / sqrt((double)k);
  for (uint16_t& w : weights) w = host::to_bf16((float)(host::from_bf16(w) * small));
  Buffer<uint16_t> b(t.device, weights), c(t.device, (size_t)m * n);
  const int parts = (int)((n + 127) / 128), M = (int)m, N = (int)n, K = (int)k;
  const long long ldk = k, ldn = n;
  Random r(7);
  std::vector<uint32_t> target((size_t)m);
  for (uint32_t& at : target) at = (uint32_t)r.below(N);
  Buffer<uint32_t> targets(t.device, target);
  Buffer<float> part(t.device, (size_t)2 * m * parts), of_target(t.device, (size_t)m);
  const std::string shape = text("%ldx%ldx%ld", m, n, k);
  const double flops = 2.0 * m * n * k;
  // Some parts in f64: largest, sum, every exponential, and the logit of the row's target. One is the last of the last row.
  auto error = [&] {
    double worst = 0;
    auto keep = [&](double got, double want) {
      if (!(fabs(got - want) <= worst)) worst = fabs(got - want);
    };
    auto logit = [&](size_t i, size_t j) {
      double x = 0;
      for (size_t p = 0; p < (size_t)k; p++) x += a[i * k + p] * host::from_bf16(weights[j * k + p]);
      return x;
    };
    for (int s = 0; s < 12; s++) {
      const size_t i = s ? (size_t)r.below(M) : (size_t)m - 1, p = s ? (size_t)r.below(parts) : (size_t)parts - 1, from = p * 128,
                   to = std::min((size_t)n, from + 128);
      std::vector<double> x;
      for (size_t j = from; j < to; j++) x.push_back(logit(i, j));
      const double largest = *std::max_element(x.begin(), x.end());
      float got[2], of;
      std::vector<uint16_t> values(to - from);
      t.device.download(got, part.ptr() + 2 * (i * parts + p), sizeof got);
      t.device.download(&of, of_target.ptr() + i, 4);
      t.device.download(values.data(), c.ptr() + i * n + from, values.size() * 2);
      double sum = 0;
      for (size_t j = 0; j < x.size(); j++) sum += exp(x[j] - largest), keep(host::from_bf16(values[j]), exp(x[j] - largest));
      keep(got[0], largest), keep(got[1] / sum, 1), keep(of, logit(i, target[i]));
    }
    return worst;
  };
  auto timed = [&](const char* kernel, double seconds) {
    if (!std::isnan(seconds) && !t.profile) t.row(kernel, shape, seconds, "flops", flops, error(), 5e-3);
    // The next kernel's are looked at.
    const std::vector<unsigned char> nan(2 * (size_t)m * parts * 4, 0xff);
    t.device.upload(part.ptr(), nan.data(), nan.size());
  };
  if (t.device.has_hopper()) {
    MapBytes ma = t.device.map_2d(a.on.ptr(), k, m, k * 2, 64, 128), mb = t.device.map_2d(b.ptr(), k, n, k * 2, 64, 256);
    LaunchSpec spec = {"gemm_sm90_nt_exponentials_256", {(unsigned)t.device.multiprocessors(), 1, 1}, {384, 1, 1}, 196672};
    timed(spec.kernel, t.run(shape, spec, ma, mb, c.ptr(), ldn, targets.ptr(), part.ptr(), of_target.ptr(), M, N, K));
    spec.kernel = "gemm_sm90_nt_bf16_256";
    t.row(spec.kernel, shape, t.run(shape, spec, ma, mb, c.ptr(), ldn, M, N, K), "flops", flops);
  }
  const unsigned tiles = (unsigned)((m + 127) / 128 * parts);
  const LaunchSpec spec = {"gemm_nt_exponentials", {tiles, 1, 1}, {256, 1, 1}, 61440};
  timed(spec.kernel, t.run(shape, spec, a.on.ptr(), ldk, b.ptr(), ldk, c.ptr(), ldn, targets.ptr(), part.ptr(), of_target.ptr(), M, N, K));
}

void cross_entropy(Timer& t, long tokens, long vocab) {
  const size_t n = (size_t)tokens * vocab, parts = (size_t)(vocab + 127) / 128;
  const std::string shape = text("%ldx%ld", tokens, vocab, 0);
  Values values(t.device, n);
  // Of such a size that a gradient in their place is as large, however often it is made.
  std::vector<float> pairs(2 * tokens * parts, 0.0f);
  for (size_t i = 1; i < pairs.size(); i += 2) pairs[i] = 1.0f / (float)parts;
  Buffer<float> part(t.device, pairs), of_target(t.device, std::vector<float>((size_t)tokens, 0.0f)), nll(t.device, (size_t)tokens);
  Buffer<uint32_t> targets(t.device, std::vector<uint32_t>((size_t)tokens, 1));
  const int v = (int)vocab;
  // What a row has besides: parts, target and its logit, and the loss.
  const double beside = (double)tokens * (8.0 * parts + 12);
  LaunchSpec spec = {"cross_entropy_forward", {(unsigned)tokens, 1, 1}, {256, 1, 1}, 0};
  t.row(spec.kernel, shape, t.run(shape, spec, part.ptr(), of_target.ptr(), targets.ptr(), nll.ptr(), v), "bytes", beside);
  spec.kernel = "cross_entropy_backward";
  t.row(spec.kernel, shape,
        t.run(shape, spec, values.on.ptr(), part.ptr(), of_target.ptr(), targets.ptr(), nll.ptr(), v, (long long)vocab, 1.0f, 0.0f), "bytes",
        4.0 * n + beside);
}

}  // namespace

void time_kernels(Device& device, const char* path, bool profile, const std::vector<std::string>& groups) {
  // A run that goes on after one that was ended keeps what that one measured.
  FILE* out = fopen(path, "a");
  if (!out) {
    fprintf(stderr, "%s: cannot be written\n", path);
    exit(2);
  }
  Timer t = {device, out, profile ? 0 : device.is_gpu() ? 20 : 1, profile};
  auto of = [&](const char* group) { return groups.empty() || std::find(groups.begin(), groups.end(), group) != groups.end(); };
  auto gemm = [&](long m, long n, long k) {
    if (of("gemm")) ::gemm(t, m, n, k);
  };
  auto attention = [&](const Heads& heads) {
    if (of("attention")) ::attention(t, heads);
  };
  auto head = [&](long tokens, long vocab, long width) {
    if (of("gemm")) exponentials(t, tokens, vocab, width);
  };
  auto rows = [&](long tokens, long width, long at_once, long vocab) {
    if (!of("rows")) return;
    bandwidth(t, tokens, width);
    cross_entropy(t, at_once, vocab);
  };
  if (device.is_gpu()) {
    // In order of value: time may end.
    gemm(8192, 8192, 8192);
    attention({4, 4096, 16, 16, 128});
    attention({4, 4096, 32, 8, 64});
    rows(16384, 2048, 2048, 128256);
    head(4096, 128256, 2048);
    // A 1B model at 8192 tokens: down, gate and up, qkv, output.
    gemm(8192, 2048, 8192);
    if (!profile) gemm(8192, 16384, 2048);
    if (!profile) gemm(8192, 3072, 2048);
    if (!profile) gemm(8192, 2048, 2048);
    attention({1, 16384, 16, 16, 128});
    if (!profile) {
      attention({4, 4096, 32, 32, 64});
      attention({1, 16384, 32, 32, 64});
      attention({4, 4096, 8, 8, 256});
    }
  } else {
    gemm(128, 128, 64);
    attention({1, 128, 2, 1, 64});
    head(128, 264, 64);
    rows(16, 64, 2, 1000);
  }
  fclose(out);
}
