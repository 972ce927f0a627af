// Times the kernels and writes one JSON object per line: {"op", "shape", "seconds", "flops" or "bytes"}.
#include "timing.h"

namespace {

struct Timer {
  Device& device;
  FILE* out;
  int repeats;

  void row(const std::string& op, const std::string& shape, double seconds, const char* unit, double amount) {
    fprintf(out, "{\"op\":\"%s\",\"shape\":\"%s\",\"seconds\":%.9g,\"%s\":%.9g}\n", op.c_str(), shape.c_str(), seconds, unit, amount);
    fflush(out);
  }
};

std::string text(const char* format, long a, long b, long c) {
  char s[96];
  snprintf(s, sizeof s, format, a, b, c);
  return s;
}

// Random values, never zeros: zeros draw less power and run faster than any real input.
Buffer<uint16_t> values(Device& d, size_t n) {
  Random r(n);
  std::vector<uint16_t> block(std::min<size_t>(n, 1 << 20)), all(n);
  for (uint16_t& v : block) v = host::to_bf16((float)r.normal());
  for (size_t i = 0; i < n; i++) all[i] = block[i % block.size()];
  return Buffer<uint16_t>(d, all);
}

void gemm(Timer& t, long m, long n, long k) {
  Buffer<uint16_t> a = values(t.device, (size_t)m * k), b = values(t.device, (size_t)n * k);
  Buffer<float> c(t.device, (size_t)m * n);
  double flops = 2.0 * m * n * k;
  std::string shape = text("%ldx%ldx%ld", m, n, k);
  int M = (int)m, N = (int)n, K = (int)k;
  long long ldk = k, ldm = m, ldn = n;
  unsigned tiles = (unsigned)((m + 127) / 128 * ((n + 127) / 128));
  float* no = nullptr;
  t.row("gemm_nt_bf16", shape, t.device.timed(t.repeats, {"gemm_nt_bf16", {tiles, 1, 1}, {256, 1, 1}, 61440}, a.ptr(), ldk, b.ptr(), ldk,
                                              c.ptr<uint16_t>(), ldn, M, N, K), "flops", flops);
  t.row("gemm_nn_bf16", shape, t.device.timed(t.repeats, {"gemm_nn_bf16", {tiles, 1, 1}, {256, 1, 1}, 56832}, a.ptr(), ldk, b.ptr(), ldn,
                                              c.ptr<uint16_t>(), ldn, M, N, K), "flops", flops);
  t.row("gemm_tn_f32", shape, t.device.timed(t.repeats, {"gemm_tn_f32", {tiles, 1, 1}, {256, 1, 1}, 52224}, a.ptr(), ldm, b.ptr(), ldn,
                                             c.ptr(), ldn, no, M, N, K), "flops", flops);
  if (!t.device.has_hopper()) return;
  unsigned blocks = t.device.is_gpu() ? 132 : 2;
  auto hopper = [&](const char* kernel, bool a_k, bool b_k, int columns, bool f32) {
    MapBytes ma = a_k ? t.device.map_2d(a.ptr(), k, m, k * 2, 64, 128) : t.device.map_2d(a.ptr(), m, k, m * 2, 64, 64);
    MapBytes mb = b_k ? t.device.map_2d(b.ptr(), k, n, k * 2, 64, columns) : t.device.map_2d(b.ptr(), n, k, n * 2, 64, 64);
    LaunchSpec spec = {kernel, {blocks, 1, 1}, {384, 1, 1}, columns == 256 ? (size_t)196672 : (size_t)196704};
    double s = f32 ? t.device.timed(t.repeats, spec, ma, mb, c.ptr(), ldn, no, M, N, K)
                   : t.device.timed(t.repeats, spec, ma, mb, c.ptr<uint16_t>(), ldn, M, N, K);
    t.row(kernel, shape, s, "flops", flops);
  };
  // Where the shape could be that of gates and ups, or of heads of 64 values.
  if (n % 128 == 0) {
    Buffer<uint32_t> positions(t.device, std::vector<uint32_t>((size_t)m, 0));
    Buffer<float> table(t.device, std::vector<float>(32, 0.7f));
    MapBytes ma = t.device.map_2d(a.ptr(), k, m, k * 2, 64, 128), mb = t.device.map_2d(b.ptr(), k, n, k * 2, 64, 128),
             mb256 = t.device.map_2d(b.ptr(), k, n, k * 2, 64, 256);
    LaunchSpec spec = {"gemm_sm90_nt_swiglu_256", {blocks, 1, 1}, {384, 1, 1}, 196672};
    uint16_t* activated = c.ptr<uint16_t>() + (size_t)m * n;
    t.row(spec.kernel, shape, t.device.timed(t.repeats, spec, ma, mb, c.ptr<uint16_t>(), ldn, activated, M, N / 2, K), "flops", flops);
    spec.kernel = "gemm_sm90_nt_rope_64_256";
    t.row(spec.kernel, shape, t.device.timed(t.repeats, spec, ma, mb256, c.ptr<uint16_t>(), ldn, positions.ptr(), table.ptr(),
                                             table.ptr(), N, M, N, K), "flops", flops);
  }
  hopper("gemm_sm90_nt_bf16_128", true, true, 128, false);
  hopper("gemm_sm90_nt_bf16_256", true, true, 256, false);
  hopper("gemm_sm90_nn_bf16_256", true, false, 256, false);
  hopper("gemm_sm90_tn_f32_256", false, false, 256, true);
}

void attention(Timer& t, int rows, int context, int heads, int kv_heads, int d) {
  size_t tokens = (size_t)rows * context, width = (size_t)(heads + 2 * kv_heads) * d;
  Buffer<uint16_t> qkv = values(t.device, tokens * width), grad_out = values(t.device, tokens * heads * d);
  Buffer<uint16_t> out(t.device, tokens * heads * d), grad(t.device, tokens * width);
  Buffer<uint32_t> from(t.device, std::vector<uint32_t>(tokens, 0));
  Buffer<float> lse(t.device, tokens * heads), delta(t.device, tokens * heads);
  float scale = 1 / sqrtf((float)d);
  // Causal: half of the square, and the diagonal.
  double flops = 4.0 * rows * heads * d * ((double)context * (context + 1) / 2);
  std::string shape = text("%ldx%ld h%ld", rows, context, heads) + text("/%ld d%ld", kv_heads, d, 0);
  unsigned tiles = (unsigned)(context + 63) / 64, R = (unsigned)rows, H = (unsigned)heads;
  std::string suffix = std::to_string(d);
  size_t keys = d == 256 ? 32 : 64;
  std::string name = "attention_forward_" + suffix;
  t.row(name, shape, t.device.timed(t.repeats, {name.c_str(), {tiles, H, R}, {128, 1, 1}, (64 + 4 * keys) * d * 2}, qkv.ptr(), from.ptr(),
                                    out.ptr(), lse.ptr(), context, heads, kv_heads, scale), "flops", flops);
  if (t.device.has_hopper() && (d == 64 || d == 128)) {
    name = "attention_forward_sm90_" + suffix;
    MapBytes map = t.device.map_2d(qkv.ptr(), width, tokens, width * 2, 64, 64);
    t.row(name, shape, t.device.timed(t.repeats, {name.c_str(), {(unsigned)(context + 127) / 128, H, R}, {384, 1, 1}, (size_t)5 * 128 * d * 2 + 128},
                                      map, from.ptr(), out.ptr(), lse.ptr(), context, heads, kv_heads, scale), "flops", flops);
  }
  double s = t.device.timed(t.repeats, {"attention_delta", {(unsigned)((tokens * heads + 7) / 8), 1, 1}, {256, 1, 1}, 0}, out.ptr(),
                            grad_out.ptr(), delta.ptr(), rows, context, heads, d);
  size_t stages = d == 256 ? 1 : 2, kv_tile = d <= 64 ? 64 : 32, q_tile = d <= 96 ? 64 : 32;
  unsigned slices = d == 256 ? 2 : 1;
  std::string kv = "attention_backward_kv_" + suffix, q = "attention_backward_q_" + suffix;
  s += t.device.timed(t.repeats, {kv.c_str(), {tiles, (unsigned)kv_heads * slices, R}, {128, 1, 1}, (128 + 2 * stages * kv_tile) * d * 2},
                      qkv.ptr(), grad_out.ptr(), from.ptr(), lse.ptr(), delta.ptr(), grad.ptr(), context, heads, kv_heads, scale);
  s += t.device.timed(t.repeats, {q.c_str(), {tiles, H, R}, {128, 1, 1}, (128 + 2 * stages * q_tile) * d * 2}, qkv.ptr(), grad_out.ptr(),
                      from.ptr(), lse.ptr(), delta.ptr(), grad.ptr(), context, heads, kv_heads, scale);
  // Counted as the five products that are needed, not the seven that are made.
  t.row("attention_backward_" + suffix, shape, s, "flops", 2.5 * flops);
  if (!t.device.has_hopper() || (d != 64 && d != 128)) return;
  MapBytes map = t.device.map_2d(qkv.ptr(), width, tokens, width * 2, 64, 64);
  MapBytes map_out = t.device.map_2d(grad_out.ptr(), (uint64_t)heads * d, tokens, (uint64_t)heads * d * 2, 64, 64);
  unsigned wide = (unsigned)(context + 127) / 128;
  size_t keys_q = d == 64 ? 128 : 64;
  kv = "attention_backward_sm90_kv_" + suffix, q = "attention_backward_sm90_q_" + suffix;
  s = t.device.timed(t.repeats, {"attention_delta", {(unsigned)((tokens * heads + 7) / 8), 1, 1}, {256, 1, 1}, 0}, out.ptr(),
                     grad_out.ptr(), delta.ptr(), rows, context, heads, d);
  s += t.device.timed(t.repeats, {kv.c_str(), {wide, (unsigned)kv_heads, R}, {384, 1, 1}, (size_t)(256 + 5 * 64) * d * 2 + 24 * 64 + 128},
                      map, map_out, from.ptr(), lse.ptr(), delta.ptr(), grad.ptr(), context, heads, kv_heads, scale);
  s += t.device.timed(t.repeats, {q.c_str(), {wide, H, R}, {384, 1, 1}, (256 + 5 * keys_q) * d * 2 + 128}, map, map_out, from.ptr(),
                      lse.ptr(), delta.ptr(), grad.ptr(), context, heads, kv_heads, scale);
  t.row("attention_backward_sm90_" + suffix, shape, s, "flops", 2.5 * flops);
}

void bandwidth(Timer& t, long tokens, long width) {
  size_t n = (size_t)tokens * width;
  std::string shape = text("%ldx%ld", tokens, width, 0);
  Buffer<uint16_t> x = values(t.device, 2 * n), y(t.device, n);
  Buffer<float> wide(t.device, std::vector<float>(n, 0.5f)), moment(t.device, std::vector<float>(n, 0.1f)),
      second(t.device, std::vector<float>(n, 0.1f)), weight(t.device, std::vector<float>(width, 1.0f)), rstd(t.device, tokens);
  long long rows = tokens, items = (long long)n;
  int w = (int)width;
  auto blocks = [](size_t k, size_t per) { return (unsigned)((k + per - 1) / per); };
  t.row("rmsnorm_forward", shape, t.device.timed(t.repeats, {"rmsnorm_forward", {blocks(tokens, 8), 1, 1}, {256, 1, 1}, 0}, wide.ptr(),
                                                 weight.ptr(), y.ptr(), rstd.ptr(), rows, w, 0, 1, w, 1e-5f), "bytes", 6.0 * n);
  t.row("swiglu_forward", shape, t.device.timed(t.repeats, {"swiglu_forward", {blocks(n / 8, 256), 1, 1}, {256, 1, 1}, 0}, x.ptr(), y.ptr(),
                                                rows, w), "bytes", 6.0 * n);
  t.row("narrow_copy", shape, t.device.timed(t.repeats, {"narrow_copy", {blocks(n, 256), 1, 1}, {256, 1, 1}, 0}, wide.ptr(), y.ptr(), items),
        "bytes", 6.0 * n);
  t.row("adamw_f32", shape, t.device.timed(t.repeats, {"adamw_f32", {blocks(n, 256), 1, 1}, {256, 1, 1}, 0}, wide.ptr(), wide.ptr(),
                                           moment.ptr(), second.ptr(), y.ptr(), (float*)nullptr, items, 1e-4f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f,
                                           1.0f, 1.0f), "bytes", 30.0 * n);
}

}  // namespace

void time_kernels(Device& device, const char* path) {
  FILE* out = fopen(path, "w");
  if (!out) {
    fprintf(stderr, "%s: cannot be written\n", path);
    exit(2);
  }
  Timer t = {device, out, device.is_gpu() ? 20 : 1};
  if (device.is_gpu()) {
    gemm(t, 8192, 8192, 8192);
    // A 1B model at 8192 tokens: qkv, output, gate and up, down.
    gemm(t, 8192, 3072, 2048);
    gemm(t, 8192, 2048, 2048);
    gemm(t, 8192, 16384, 2048);
    gemm(t, 8192, 2048, 8192);
    for (int d : {64, 128, 256}) {
      attention(t, 4, 4096, 2048 / d, 2048 / d, d);
      attention(t, 1, 16384, 2048 / d, 2048 / d, d);
    }
    attention(t, 4, 4096, 32, 8, 64);
    bandwidth(t, 16384, 2048);
  } else {
    gemm(t, 128, 128, 64);
    attention(t, 1, 128, 2, 1, 64);
    bandwidth(t, 16, 64);
  }
  fclose(out);
}
