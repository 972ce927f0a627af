// The mma.sync products against sums in f64.
#include "check.h"

namespace {

struct Product {
  const char* kernel;
  bool a_k_major, b_k_major, f32;
  size_t shared;
  int columns = 0;
};
const Product PRODUCTS[] = {
    {"gemm_nt_bf16", true, true, false, 61440},
    {"gemm_nt_f32", true, true, true, 61440},
    {"gemm_nn_bf16", true, false, false, 56832},
    {"gemm_tn_f32", false, false, true, 52224},
};

int up8(int n) { return (n + 7) / 8 * 8; }

// `add`: in place for even M, from another matrix for odd. With `grid`, the Hopper kernel of `p.columns` columns on so many blocks.
void product(Check& c, const Product& p, int M, int N, int K, bool add, unsigned grid = 0) {
  c.begin("%s %dx%dx%d%s", p.kernel, M, N, K, add ? " add" : "");
  Random r(c.seed * 1000 + M * 7 + N * 3 + K);
  int lda = up8(p.a_k_major ? K : M), ldb = up8(p.b_k_major ? K : N), ldc = up8(N) + 8;
  // Padding is NaN: a kernel that reads it fails.
  Bf16 a = random_bf16(r, (size_t)lda * (p.a_k_major ? M : K), 1), b = random_bf16(r, (size_t)ldb * (p.b_k_major ? N : K), 1);
  for (size_t i = 0; i < a.bits.size(); i++)
    if ((int)(i % lda) >= (p.a_k_major ? K : M)) a.bits[i] = 0x7fff;
  for (size_t i = 0; i < b.bits.size(); i++)
    if ((int)(i % ldb) >= (p.b_k_major ? K : N)) b.bits[i] = 0x7fff;
  F32 base = random_f32(r, (size_t)ldc * M, 2);
  std::vector<double> want((size_t)M * N), got(want.size());
  for (int i = 0; i < M && !c.repeating; i++)
    for (int j = 0; j < N; j++) {
      double s = 0;
      for (int k = 0; k < K; k++)
        s += a.value[p.a_k_major ? (size_t)i * lda + k : (size_t)k * lda + i] *
             b.value[p.b_k_major ? (size_t)j * ldb + k : (size_t)k * ldb + j];
      want[(size_t)i * N + j] = s + (add ? base.value[(size_t)i * ldc + j] : 0);
    }
  Buffer<uint16_t> da(c.device, a.bits), db(c.device, b.bits);
  unsigned tiles = (unsigned)((M + 127) / 128 * ((N + 127) / 128));
  LaunchSpec spec = {p.kernel, {grid ? grid : tiles, 1, 1}, {grid ? 384u : 256u, 1, 1}, p.shared};
  MapBytes map_a = {}, map_b = {};
  if (grid) {
    map_a = p.a_k_major ? c.device.map_2d(da.ptr(), K, M, lda * 2, 64, 128) : c.device.map_2d(da.ptr(), M, K, lda * 2, 64, 64);
    map_b = p.b_k_major ? c.device.map_2d(db.ptr(), K, N, ldb * 2, 64, p.columns) : c.device.map_2d(db.ptr(), N, K, ldb * 2, 64, 64);
  }
  bool padding = true;
  if (p.f32) {
    // A gradient is added to in place, a residual lies elsewhere.
    const bool apart = add && M % 2;
    Buffer<float> dc(c.device, add && !apart ? base.bits : std::vector<float>((size_t)ldc * M, NAN)), residual(c.device, base.bits);
    float* sum = apart ? residual.ptr() : add ? dc.ptr() : nullptr;
    if (grid)
      c.device.run(spec, map_a, map_b, dc.ptr(), (long long)ldc, sum, M, N, K);
    else
      c.device.run(spec, da.ptr(), (long long)lda, db.ptr(), (long long)ldb, dc.ptr(), (long long)ldc, sum, M, N, K);
    std::vector<float> out = dc.get();
    for (int i = 0; i < M; i++) {
      for (int j = 0; j < N; j++) got[(size_t)i * N + j] = out[(size_t)i * ldc + j];
      for (int j = N; j < ldc; j++) {
        float v = out[(size_t)i * ldc + j];
        padding &= add && !apart ? v == base.bits[(size_t)i * ldc + j] : std::isnan(v);
      }
    }
  } else {
    Buffer<uint16_t> dc(c.device, (size_t)ldc * M);
    if (grid)
      c.device.run(spec, map_a, map_b, dc.ptr(), (long long)ldc, M, N, K);
    else
      c.device.run(spec, da.ptr(), (long long)lda, db.ptr(), (long long)ldb, dc.ptr(), (long long)ldc, M, N, K);
    std::vector<uint16_t> out = dc.get();
    for (int i = 0; i < M; i++) {
      for (int j = 0; j < N; j++) got[(size_t)i * N + j] = host::from_bf16(out[(size_t)i * ldc + j]);
      for (int j = N; j < ldc; j++) padding &= out[(size_t)i * ldc + j] == 0xffff;
    }
  }
  c.close("C", got, want, p.f32 ? 1e-5 + 2e-7 * sqrt(K) : 2.5e-3);
  c.expect(padding, "wrote outside its columns");
}

// The product, in f64, of rows of k-major operands.
double dot(const Bf16& a, const Bf16& b, int i, int j, int K, int lda, int ldb) {
  double s = 0;
  for (int k = 0; k < K; k++) s += a.value[(size_t)i * lda + k] * b.value[(size_t)j * ldb + k];
  return s;
}

// With `columns`, the Hopper kernel of so many on `grid` blocks.
void rotated(Check& c, int head, int heads, int M, int K, int columns = 0, unsigned grid = 0) {
  std::string kernel = (columns ? "gemm_sm90_nt_rope_" : "gemm_nt_rope_") + std::to_string(head);
  if (columns) kernel += "_" + std::to_string(columns);
  const int N = heads * head, turned = (heads - 1) * head, positions = 40;
  c.begin("%s %dx%dx%d", kernel.c_str(), M, N, K);
  Random r(c.seed * 1000 + M + N + K);
  int ld = up8(K), ldc = N + 8;
  Bf16 a = random_bf16(r, (size_t)ld * M, 1), b = random_bf16(r, (size_t)ld * N, 1);
  F32 cosine = random_f32(r, (size_t)positions * head / 2, 1), sine = random_f32(r, (size_t)positions * head / 2, 1);
  std::vector<uint32_t> position((size_t)M);
  for (uint32_t& p : position) p = (uint32_t)r.below(positions);
  std::vector<double> plain((size_t)M * N), want, got;
  for (int i = 0; i < M && !c.repeating; i++)
    for (int j = 0; j < N; j++) plain[(size_t)i * N + j] = dot(a, b, i, j, K, ld, ld);
  want = plain;
  for (int i = 0; i < M; i++)
    for (int j = 0; j < turned; j++) {
      int at = j % head, pair = at % (head / 2);
      double co = cosine.value[(size_t)position[i] * head / 2 + pair], si = sine.value[(size_t)position[i] * head / 2 + pair];
      double x = plain[(size_t)i * N + j];
      double other = plain[(size_t)i * N + (at < head / 2 ? j + head / 2 : j - head / 2)];
      want[(size_t)i * N + j] = at < head / 2 ? x * co - other * si : x * co + other * si;
    }
  Buffer<uint16_t> da(c.device, a.bits), db(c.device, b.bits), dc(c.device, (size_t)ldc * M);
  Buffer<uint32_t> dp(c.device, position);
  Buffer<float> dcos(c.device, cosine.bits), dsin(c.device, sine.bits);
  if (columns) {
    MapBytes ma = c.device.map_2d(da.ptr(), K, M, ld * 2, 64, 128), mb = c.device.map_2d(db.ptr(), K, N, ld * 2, 64, columns);
    c.device.run({kernel.c_str(), {grid, 1, 1}, {384, 1, 1}, columns == 256 ? (size_t)196672 : (size_t)196704}, ma, mb, dc.ptr(),
                 (long long)ldc, dp.ptr(), dcos.ptr(), dsin.ptr(), turned, M, N, K);
  } else {
    unsigned tiles = (unsigned)((M + 127) / 128 * ((N + 127) / 128));
    c.device.run({kernel.c_str(), {tiles, 1, 1}, {256, 1, 1}, 61440}, da.ptr(), (long long)ld, db.ptr(), (long long)ld, dc.ptr(),
                 (long long)ldc, dp.ptr(), dcos.ptr(), dsin.ptr(), turned, M, N, K);
  }
  bool padding = true;
  std::vector<uint16_t> out = dc.get();
  for (int i = 0; i < M; i++) {
    for (int j = 0; j < N; j++) got.push_back(host::from_bf16(out[(size_t)i * ldc + j]));
    for (int j = N; j < ldc; j++) padding &= out[(size_t)i * ldc + j] == 0xffff;
  }
  c.close("C", got, want, 2.5e-3);
  c.expect(padding, "wrote outside its columns");
}

void gated(Check& c, int M, int N, int K, int columns = 0, unsigned grid = 0) {
  std::string kernel = columns ? "gemm_sm90_nt_swiglu_" + std::to_string(columns) : "gemm_nt_swiglu";
  c.begin("%s %dx%dx%d", kernel.c_str(), M, N, K);
  Random r(c.seed * 1000 + M + N + K);
  int ld = up8(K);
  Bf16 a = random_bf16(r, (size_t)ld * M, 0.4), b = random_bf16(r, (size_t)ld * 2 * N, 0.4);
  std::vector<double> want((size_t)M * 2 * N);
  for (int i = 0; i < M && !c.repeating; i++)
    for (int j = 0; j < 2 * N; j++) want[(size_t)i * 2 * N + j] = dot(a, b, i, j, K, ld, ld);
  Buffer<uint16_t> da(c.device, a.bits), db(c.device, b.bits), dc(c.device, want.size()), dy(c.device, (size_t)M * N),
      again(c.device, (size_t)M * N);
  if (columns) {
    MapBytes ma = c.device.map_2d(da.ptr(), K, M, ld * 2, 64, 128), mb = c.device.map_2d(db.ptr(), K, 2 * N, ld * 2, 64, columns / 2);
    c.device.run({kernel.c_str(), {grid, 1, 1}, {384, 1, 1}, columns == 256 ? (size_t)196672 : (size_t)196704}, ma, mb, dc.ptr(),
                 (long long)(2 * N), dy.ptr(), M, N, K);
  } else {
    unsigned tiles = (unsigned)((M + 127) / 128 * ((N + 63) / 64));
    c.device.run({kernel.c_str(), {tiles, 1, 1}, {256, 1, 1}, 61440}, da.ptr(), (long long)ld, db.ptr(), (long long)ld, dc.ptr(),
                 (long long)(2 * N), dy.ptr(), M, N, K);
  }
  c.close("gates and ups", widen(dc.get()), want, 2.5e-3);
  // The very bits of the kernel that does it alone: the backward pass computes them again.
  c.device.run({"swiglu_forward", {(unsigned)(((size_t)M * N / 8 + 255) / 256), 1, 1}, {256, 1, 1}, 0}, dc.ptr(), again.ptr(),
               (long long)M, N);
  c.same_bits("activated", dy.get(), again.get());
}

// Logits as exponentials, and the loss and gradient that are made of them. `offset` lies on every logit, up or down by row;
// values are multiples of 1/8, so that logits are exact in f32 with it.
void exponentials(Check& c, int M, int N, int K, int offset, int columns = 0, unsigned grid = 0) {
  std::string kernel = columns ? "gemm_sm90_nt_exponentials_" + std::to_string(columns) : "gemm_nt_exponentials";
  c.begin("%s %dx%dx%d offset %d", kernel.c_str(), M, N, K, offset);
  Random r(c.seed * 1000 + M + N + K);
  const int ld = up8(K), padded = up8(N), ldc = padded + 8, parts = (N + 127) / 128;
  Bf16 a = random_bf16(r, (size_t)ld * M, 0), b = random_bf16(r, (size_t)ld * N, 0);
  auto set = [](Bf16& m, size_t at, double value) { m.value[at] = value, m.bits[at] = host::to_bf16((float)value); };
  for (size_t i = 0; i < a.bits.size(); i++) set(a, i, (r.below(17) - 8) / 8.0);
  for (size_t i = 0; i < b.bits.size(); i++) set(b, i, (r.below(17) - 8) / 8.0);
  for (int i = 0; i < M && offset; i++) set(a, (size_t)i * ld, i % 2 ? offset : -offset);
  for (int j = 0; j < N && offset; j++) set(b, (size_t)j * ld, 1);
  std::vector<uint32_t> targets((size_t)M);
  for (uint32_t& t : targets) t = r.below(5) ? (uint32_t)r.below(N) : 0xffffffffu;
  // The first and the last column.
  targets[0] = (uint32_t)N - 1;
  if (M > 1) targets[M - 1] = 0;
  std::vector<double> largest((size_t)M * parts), sum(largest.size()), values((size_t)M * N), of_target((size_t)M), nll((size_t)M),
      gradient(values.size());
  const double scale = 0.125, z_loss = 1e-3;
  for (int i = 0; i < M && !c.repeating; i++) {
    std::vector<double> x((size_t)N);
    for (int j = 0; j < N; j++) x[j] = dot(a, b, i, j, K, ld, ld);
    const double peak = *std::max_element(x.begin(), x.end());
    double total = 0;
    for (int p = 0; p < parts; p++) {
      const int end = std::min(N, p * 128 + 128);
      const size_t at = (size_t)i * parts + p;
      largest[at] = *std::max_element(x.begin() + p * 128, x.begin() + end);
      for (int j = p * 128; j < end; j++) sum[at] += values[(size_t)i * N + j] = exp(x[j] - largest[at]), total += exp(x[j] - peak);
    }
    if (targets[i] == 0xffffffffu) continue;
    of_target[i] = x[targets[i]];
    const double log_z = peak + log(total);
    nll[i] = log_z - of_target[i];
    for (int j = 0; j < N; j++)
      gradient[(size_t)i * N + j] = scale * ((1 + 2 * z_loss * log_z) * exp(x[j] - log_z) - (targets[i] == (uint32_t)j ? 1 : 0));
  }
  Buffer<uint16_t> da(c.device, a.bits), db(c.device, b.bits), dc(c.device, (size_t)ldc * M);
  Buffer<uint32_t> dt(c.device, targets);
  Buffer<float> dp(c.device, 2 * largest.size()), again(c.device, 2 * largest.size()), dx(c.device, (size_t)M), dn(c.device, (size_t)M),
      alone(c.device, (size_t)M);
  auto run = [&](uint16_t* to, Buffer<float>& into) {
    if (columns) {
      MapBytes ma = c.device.map_2d(da.ptr(), K, M, ld * 2, 64, 128), mb = c.device.map_2d(db.ptr(), K, N, ld * 2, 64, columns);
      c.device.run({kernel.c_str(), {grid, 1, 1}, {384, 1, 1}, columns == 256 ? (size_t)196672 : (size_t)196704}, ma, mb, to,
                   (long long)ldc, dt.ptr(), into.ptr(), dx.ptr(), M, N, K);
    } else {
      unsigned tiles = (unsigned)((M + 127) / 128 * parts);
      c.device.run({kernel.c_str(), {tiles, 1, 1}, {256, 1, 1}, 61440}, da.ptr(), (long long)ld, db.ptr(), (long long)ld, to,
                   (long long)ldc, dt.ptr(), into.ptr(), dx.ptr(), M, N, K);
    }
  };
  // Of the values: those inside; the others that are to be 0, and those that are nobody's.
  auto inside = [&](bool& zeros, bool& untouched) {
    std::vector<double> got;
    std::vector<uint16_t> out = dc.get();
    zeros = untouched = true;
    for (int i = 0; i < M; i++) {
      for (int j = 0; j < N; j++) got.push_back(host::from_bf16(out[(size_t)i * ldc + j]));
      for (int j = N; j < padded; j++) zeros &= host::from_bf16(out[(size_t)i * ldc + j]) == 0;
      for (int j = padded; j < ldc; j++) untouched &= out[(size_t)i * ldc + j] == 0xffff;
    }
    return got;
  };
  run(dc.ptr(), dp);
  std::vector<double> got_largest, got_sum, got_target = widen(dx.get());
  for (float f : dp.get()) (got_largest.size() > got_sum.size() ? got_sum : got_largest).push_back(f);
  // Nobody writes those of rows without a target.
  for (int i = 0; i < M; i++) {
    if (targets[i] != 0xffffffffu) continue;
    c.expect(std::isnan(got_target[i]), "a row without a target has a logit of it");
    got_target[i] = 0;
  }
  bool zeros, untouched;
  c.close("largest", got_largest, largest, 1e-6);
  c.close("sums", got_sum, sum, 2e-6);
  c.close("logits of targets", got_target, of_target, 1e-6);
  c.close("exponentials", inside(zeros, untouched), values, 2.5e-3);
  c.expect(zeros, "padding is not 0");
  c.expect(untouched, "wrote outside its columns");
  run(nullptr, again);
  c.same_bits("parts alone", again.get(), dp.get());
  c.device.run({"cross_entropy_forward", {(unsigned)M, 1, 1}, {256, 1, 1}, 0}, dp.ptr(), dx.ptr(), dt.ptr(), alone.ptr(), N);
  c.device.run({"cross_entropy_backward", {(unsigned)M, 1, 1}, {256, 1, 1}, 0}, dc.ptr(), dp.ptr(), dx.ptr(), dt.ptr(), dn.ptr(), N,
               (long long)ldc, (float)scale, (float)z_loss);
  c.within("nll", widen(dn.get()), nll, 1e-5);
  c.same_bits("nll of both", alone.get(), dn.get());
  c.close("gradient", inside(zeros, untouched), gradient, 3e-3);
  c.expect(zeros, "the gradient of padding is not 0");
}

// Logits that are undefined or infinite come out in the loss of their row, unless the row is ignored: then its gradient is 0.
void poisoned(Check& c, int columns) {
  std::string kernel = columns ? "gemm_sm90_nt_exponentials_" + std::to_string(columns) : "gemm_nt_exponentials";
  const int M = 130, N = 300, K = 8, ldc = 304, parts = 3;
  for (double bad : {(double)NAN, (double)INFINITY}) {
    c.begin("%s with %g", kernel.c_str(), bad);
    Random r(c.seed);
    Bf16 a = random_bf16(r, (size_t)M * K, 1), b = random_bf16(r, (size_t)N * K, 1);
    std::vector<uint32_t> targets((size_t)M, 7);
    // Whole rows, one of them ignored.
    for (int i : {3, 4, 129})
      for (int k = 0; k < K; k++) a.bits[(size_t)i * K + k] = host::to_bf16((float)bad);
    targets[4] = targets[5] = targets[129] = 0xffffffffu;
    Buffer<uint16_t> da(c.device, a.bits), db(c.device, b.bits), dc(c.device, (size_t)ldc * M);
    Buffer<uint32_t> dt(c.device, targets);
    Buffer<float> dp(c.device, (size_t)2 * M * parts), dx(c.device, (size_t)M), dn(c.device, (size_t)M);
    auto loss = [&] {
      if (columns) {
        MapBytes ma = c.device.map_2d(da.ptr(), K, M, K * 2, 64, 128), mb = c.device.map_2d(db.ptr(), K, N, K * 2, 64, columns);
        c.device.run({kernel.c_str(), {2, 1, 1}, {384, 1, 1}, columns == 256 ? (size_t)196672 : (size_t)196704}, ma, mb, dc.ptr(),
                     (long long)ldc, dt.ptr(), dp.ptr(), dx.ptr(), M, N, K);
      } else {
        c.device.run({kernel.c_str(), {6, 1, 1}, {256, 1, 1}, 61440}, da.ptr(), (long long)K, db.ptr(), (long long)K, dc.ptr(),
                     (long long)ldc, dt.ptr(), dp.ptr(), dx.ptr(), M, N, K);
      }
      c.device.run({"cross_entropy_backward", {(unsigned)M, 1, 1}, {256, 1, 1}, 0}, dc.ptr(), dp.ptr(), dx.ptr(), dt.ptr(), dn.ptr(), N,
                   (long long)ldc, 1.0f, 0.0f);
      return dn.get();
    };
    auto ignored = [&](int i) {
      std::vector<uint16_t> out = dc.get();
      bool zero = dn.get()[i] == 0;
      for (int j = 0; j < ldc; j++) zero &= out[(size_t)i * ldc + j] == 0;
      return zero;
    };
    std::vector<float> nll = loss();
    for (int i = 0; i < M; i++) c.expect(std::isfinite(nll[i]) == (i != 3), i == 3 ? "the loss hides it" : "the loss of another row is not finite");
    for (int i : {4, 5, 129}) c.expect(ignored(i), "an ignored row has a gradient");
    // One column of every row.
    for (int k = 0; k < K; k++) b.bits[(size_t)290 * K + k] = host::to_bf16((float)bad);
    c.device.upload(db.ptr(), b.bits.data(), b.bits.size() * 2);
    nll = loss();
    // Infinite inputs may give a column that counts for nothing.
    for (int i = 0; i < M && std::isnan(bad); i++) c.expect(std::isnan(nll[i]) == (targets[i] != 0xffffffffu), "the loss hides one logit");
    for (int i : {4, 5, 129}) c.expect(ignored(i), "an ignored row has a gradient");
  }
}

}  // namespace

FAMILY(gemm_fused) {
  if (c.small) {
    rotated(c, 64, 3, 40, 72);
    gated(c, 40, 24, 72);
    exponentials(c, 40, 140, 72, 0);
    if (!c.device.has_hopper()) return;
    rotated(c, 128, 3, 130, 72, 128, 2), gated(c, 130, 24, 72, 128, 2);
    exponentials(c, 130, 140, 72, 0, 128, 2);
    return;
  }
  for (int head : {32, 64, 128}) {
    rotated(c, head, 1, 1, 8);
    rotated(c, head, 5, 130, 100);
    rotated(c, head, 3, 70, 168);
  }
  gated(c, 1, 8, 8);
  gated(c, 129, 72, 100);
  gated(c, 70, 200, 168);
  exponentials(c, 1, 1, 1, 0);
  exponentials(c, 129, 256, 33, 0);
  exponentials(c, 70, 301, 168, 0);
  exponentials(c, 200, 130, 40, 16384);
  poisoned(c, 0);
  if (!c.device.has_hopper()) return;
  for (int columns : {128, 256}) {
    for (int head : {64, 128}) {
      rotated(c, head, 1, 1, 8, columns, 1);
      rotated(c, head, 5, 130, 100, columns, 2);
      rotated(c, head, 3, 200, 440, columns, 1);
    }
    gated(c, 1, 8, 8, columns, 1);
    gated(c, 129, 136, 100, columns, 2);
    gated(c, 200, 72, 440, columns, 1);
    exponentials(c, 1, 1, 1, 0, columns, 1);
    exponentials(c, 127, 256, 33, 0, columns, 2);
    // More steps than stages, tiles on one block, a last tile whose second part is not there.
    exponentials(c, 300, 600, 440, 0, columns, 2);
    exponentials(c, 70, 333, 72, 16384, columns, 1);
    poisoned(c, columns);
  }
}

FAMILY(gemm) {
  for (const Product& p : PRODUCTS) {
    if (c.small) {
      product(c, p, 40, 24, 168, false);
      continue;
    }
    product(c, p, 1, 1, 1, false);
    product(c, p, 127, 129, 33, p.f32);
    product(c, p, 128, 128, 64, false);
    product(c, p, 113, 203, 160, false);
    product(c, p, 260, 8, 224, p.f32);
    product(c, p, 3, 300, 799, false);
  }
}

FAMILY(gemm_sm90) {
  if (!c.device.has_hopper()) return;
  const Product products[] = {
      {"gemm_sm90_nt_bf16_128", true, true, false, 196704, 128},  {"gemm_sm90_nt_bf16_256", true, true, false, 196672, 256},
      {"gemm_sm90_nt_f32_128", true, true, true, 196704, 128},    {"gemm_sm90_nt_f32_256", true, true, true, 196672, 256},
      {"gemm_sm90_nn_bf16_128", true, false, false, 196704, 128}, {"gemm_sm90_nn_bf16_256", true, false, false, 196672, 256},
      {"gemm_sm90_tn_f32_128", false, false, true, 196704, 128},  {"gemm_sm90_tn_f32_256", false, false, true, 196672, 256},
  };
  for (const Product& p : products) {
    if (c.small) {
      // More steps than stages, two tiles on one block.
      if (p.columns == 128) product(c, p, 130, 24, 320, false, 1);
      continue;
    }
    product(c, p, 1, 1, 1, false, 1);
    product(c, p, 127, 257, 65, p.f32, 2);
    product(c, p, 200, 136, 568, false, 1);
    product(c, p, 300, 300, 64, p.f32, 3);
  }
}
