// Cross-entropy, the gradient norm and AdamW.
#include "check.h"

namespace {

const uint32_t IGNORE = 0xffffffffu;

unsigned blocks(size_t items, size_t per) { return (unsigned)((items + per - 1) / per); }

// A block of logits as the product of the head leaves it: exponentials, parts, logits of targets.
struct Logits {
  std::vector<uint16_t> values;
  std::vector<float> parts, of_target;
  Logits(const std::vector<float>& x, int rows, int vocab, long long ld, const std::vector<uint32_t>& target)
      : values((size_t)rows * ld, 0), of_target(rows, NAN) {
    for (int t = 0; t < rows; t++) {
      const float* row = &x[(size_t)t * vocab];
      for (int first = 0; first < vocab; first += 128) {
        const int end = std::min(vocab, first + 128);
        float peak = -INFINITY, sum = 0;
        for (int i = first; i < end; i++) peak = fmaxf(peak, row[i]);
        for (int i = first; i < end; i++) {
          const float e = expf(row[i] - peak);
          values[(size_t)t * ld + i] = host::to_bf16(e);
          sum += e;
        }
        parts.push_back(peak);
        parts.push_back(sum);
      }
      if (target[t] != IGNORE) of_target[t] = row[target[t]];
    }
  }
};

void cross_entropy(Check& c, int rows, int vocab, double spread) {
  c.begin("cross_entropy %dx%d spread %g", rows, vocab, spread);
  Random r(c.seed * 5 + vocab);
  long long ld = (vocab + 7) / 8 * 8;
  F32 x = random_f32(r, (size_t)rows * vocab, spread);
  std::vector<uint32_t> target(rows);
  for (uint32_t& t : target) t = r.below(5) ? (uint32_t)r.below(vocab) : IGNORE;
  target[0] = 0;
  double scale = 0.125, z_loss = 1e-2;
  std::vector<double> nll(rows), grad((size_t)rows * vocab);
  for (int t = 0; t < rows; t++) {
    const double* row = &x.value[(size_t)t * vocab];
    if (target[t] == IGNORE) continue;
    double peak = row[0], sum = 0;
    for (int i = 0; i < vocab; i++) peak = row[i] > peak ? row[i] : peak;
    for (int i = 0; i < vocab; i++) sum += exp(row[i] - peak);
    double log_z = peak + log(sum);
    nll[t] = log_z - row[target[t]];
    for (int i = 0; i < vocab; i++)
      grad[(size_t)t * vocab + i] =
          scale * ((1 + 2 * z_loss * log_z) * exp(row[i] - log_z) - (target[t] == (uint32_t)i ? 1 : 0));
  }
  const Logits logits(x.bits, rows, vocab, ld, target);
  Buffer<uint16_t> values(c.device, logits.values);
  Buffer<float> parts(c.device, logits.parts), of_target(c.device, logits.of_target), out(c.device, rows), again(c.device, rows);
  Buffer<uint32_t> dt(c.device, target);
  LaunchSpec spec = {"cross_entropy_forward", {(unsigned)rows, 1, 1}, {256, 1, 1}, 0};
  c.device.run(spec, parts.ptr(), of_target.ptr(), dt.ptr(), out.ptr(), vocab);
  c.close("nll", widen(out.get()), nll, 1e-5);
  spec.kernel = "cross_entropy_backward";
  c.device.run(spec, values.ptr(), parts.ptr(), of_target.ptr(), dt.ptr(), again.ptr(), vocab, ld, (float)scale, (float)z_loss);
  c.same_bits("nll of both", out.get(), again.get());
  std::vector<uint16_t> memory = values.get();
  std::vector<double> got((size_t)rows * vocab);
  bool padding = true;
  for (int t = 0; t < rows; t++) {
    for (int i = 0; i < vocab; i++) got[(size_t)t * vocab + i] = host::from_bf16(memory[(size_t)t * ld + i]);
    for (int i = vocab; i < ld; i++) padding &= memory[(size_t)t * ld + i] == 0;
  }
  c.close("gradient", got, grad, 3e-3);
  c.expect(padding, "the gradient of padding is not 0");
}

// An infinite or undefined logit must come out as a loss that is not finite, and an ignored row must not show it.
void poisoned_logits(Check& c) {
  for (float bad : {NAN, INFINITY}) {
    c.begin("cross_entropy with %g", bad);
    std::vector<float> x(2 * 300, 0.5f);
    x[40] = x[300 + 299] = bad;
    const std::vector<uint32_t> target = {3, IGNORE};
    const Logits logits(x, 2, 300, 304, target);
    Buffer<uint16_t> values(c.device, logits.values);
    Buffer<float> parts(c.device, logits.parts), of_target(c.device, logits.of_target), out(c.device, 2), again(c.device, 2);
    Buffer<uint32_t> dt(c.device, target);
    c.device.run({"cross_entropy_forward", {2, 1, 1}, {256, 1, 1}, 0}, parts.ptr(), of_target.ptr(), dt.ptr(), out.ptr(), 300);
    c.device.run({"cross_entropy_backward", {2, 1, 1}, {256, 1, 1}, 0}, values.ptr(), parts.ptr(), of_target.ptr(), dt.ptr(), again.ptr(),
                 300, 304ll, 1.0f, 0.0f);
    c.expect(!std::isfinite(out.get()[0]) && !std::isfinite(again.get()[0]), "the loss hides it");
    c.expect(out.get()[1] == 0 && again.get()[1] == 0, "an ignored row has a loss");
    bool zero = true;
    const std::vector<uint16_t> gradient = values.get();
    for (int i = 0; i < 304; i++) zero &= gradient[304 + i] == 0;
    c.expect(zero, "an ignored row has a gradient");
  }
}

void adamw(Check& c, size_t n) {
  c.begin("adamw %zu", n);
  Random r(c.seed + n);
  F32 g = random_f32(r, n, 3), w = random_f32(r, n, 1), m = random_f32(r, n, 0.5), v = random_f32(r, n, 0.5);
  for (size_t i = 0; i < n; i++) v.value[i] = v.bits[i] = fabsf(v.bits[i]);
  double lr = 1e-2, b1 = 0.9, b2 = 0.95, eps = 1e-8, decay = 0.1, c1 = 1 - pow(b1, 7), c2 = 1 - pow(b2, 7), scale = 0.7, clip = 0.5;
  std::vector<double> nw(n), nm(n), nv(n);
  for (size_t i = 0; i < n; i++) {
    double gi = g.value[i] * scale * clip;
    nm[i] = b1 * m.value[i] + (1 - b1) * gi;
    nv[i] = b2 * v.value[i] + (1 - b2) * gi * gi;
    nw[i] = w.value[i] - lr * (nm[i] / c1 / (sqrt(nv[i] / c2) + eps) + decay * w.value[i]);
  }
  Buffer<float> dg(c.device, g.bits), dw(c.device, w.bits), dm(c.device, m.bits), dv(c.device, v.bits),
      dclip(c.device, std::vector<float>{(float)clip});
  Buffer<uint16_t> copy(c.device, n);
  c.device.run({"adamw_f32", {blocks(n, 256), 1, 1}, {256, 1, 1}, 0}, dg.ptr(), dw.ptr(), dm.ptr(), dv.ptr(), copy.ptr(),
               dclip.ptr(), (long long)n, (float)lr, (float)b1, (float)b2, (float)eps, (float)decay, (float)(1 / c1),
               (float)(1 / c2), (float)scale);
  c.close("weights", widen(dw.get()), nw, 1e-6);
  c.close("first moment", widen(dm.get()), nm, 1e-6);
  c.close("second moment", widen(dv.get()), nv, 1e-6);
  std::vector<uint16_t> rounded;
  for (float f : dw.get()) rounded.push_back(host::to_bf16(f));
  c.same_bits("bf16 copy", copy.get(), rounded);

  // Stochastic rounding: the mean over steps is the exact value, each result one of its two neighbours.
  c.begin("adamw_stochastic %zu", n);
  std::vector<double> mean(n, 0);
  const int draws = c.small ? 4 : 200;
  bool neighbours = true;
  std::vector<uint16_t> start(n), first;
  for (size_t i = 0; i < n; i++) start[i] = host::to_bf16(w.bits[i]);
  std::vector<double> exact(n), gap(n);
  for (int s = 0; s < draws; s++) {
    Buffer<uint16_t> bw(c.device, start);
    Buffer<float> bm(c.device, m.bits), bv(c.device, v.bits);
    c.device.run({"adamw_stochastic", {blocks((n + 7) / 8, 256), 1, 1}, {256, 1, 1}, 0}, dg.ptr(), bw.ptr(), bm.ptr(),
                 bv.ptr(), (float*)nullptr, (long long)n, (float)lr, (float)b1, (float)b2, (float)eps, (float)decay,
                 (float)(1 / c1), (float)(1 / c2), (float)(scale * clip), (unsigned long long)c.seed, (uint32_t)s, 0u);
    std::vector<uint16_t> got = bw.get();
    if (s == 0) first = got;
    for (size_t i = 0; i < n; i++) {
      double w0 = host::from_bf16(start[i]);
      exact[i] = w0 - lr * (nm[i] / c1 / (sqrt(nv[i] / c2) + eps) + decay * w0);
      float down = host::as_float(host::as_bits((float)exact[i]) & 0xffff0000u);
      float up = host::as_float((host::as_bits((float)exact[i]) & 0xffff0000u) + 0x10000u);
      gap[i] = fabs((double)up - down);
      float x = host::from_bf16(got[i]);
      // The kernel's f32 sum may fall on the other side of a bf16 value than the exact one.
      neighbours &= x == down || x == up || fabs(x - exact[i]) < gap[i] * 1.01;
      mean[i] += x / draws;
    }
  }
  c.expect(neighbours, "a weight was rounded to neither neighbour");
  double z = 0;
  for (size_t i = 0; i < n; i++) z += (mean[i] - exact[i]) / gap[i];
  // Each draw has a variance of at most 1/4 of the gap squared.
  c.expect(fabs(z) < 5 * 0.5 * sqrt((double)n / draws), "stochastic rounding is biased");
  Buffer<uint16_t> bw(c.device, start);
  Buffer<float> bm(c.device, m.bits), bv(c.device, v.bits);
  c.device.run({"adamw_stochastic", {blocks((n + 7) / 8, 256), 1, 1}, {256, 1, 1}, 0}, dg.ptr(), bw.ptr(), bm.ptr(), bv.ptr(),
               (float*)nullptr, (long long)n, (float)lr, (float)b1, (float)b2, (float)eps, (float)decay, (float)(1 / c1),
               (float)(1 / c2), (float)(scale * clip), (unsigned long long)c.seed, 0u, 0u);
  c.same_bits("the same draw again", bw.get(), first);
}

// The parts of a step of Muon; `at` values lie before the matrix, so that it need not begin at 16 bytes.
void muon(Check& c, int rows, int columns, size_t at) {
  c.begin("muon %dx%d from %zu", rows, columns, at);
  const size_t n = (size_t)rows * columns;
  Random r(c.seed + n);
  F32 g = random_f32(r, n + at, 3), m = random_f32(r, n + at, 0.5), w = random_f32(r, n + at, 1);
  const double keep = 0.95, scale = 0.7, decay = 0.99, step = 0.02, factor = -4.775;
  Buffer<float> dg(c.device, g.bits), dw(c.device, w.bits), direction(c.device, n), sum(c.device, w.bits);
  Buffer<uint16_t> copy(c.device, n), turned(c.device, n);
  std::vector<double> nm(n), nd(n), nw(n), ns(n);
  for (bool nesterov : {false, true}) {
    Buffer<float> dm(c.device, m.bits);
    for (size_t i = 0; i < n; i++) {
      const double gi = g.value[at + i] * scale;
      nm[i] = keep * m.value[at + i] + (1 - keep) * gi;
      nd[i] = nesterov ? keep * nm[i] + (1 - keep) * gi : nm[i];
    }
    c.device.run({"muon_momentum", {blocks((n + 7) / 8, 256), 1, 1}, {256, 1, 1}, 0}, dg.ptr() + at, dm.ptr() + at, direction.ptr(),
                 (long long)n, (float)keep, (float)(1 - keep), nesterov ? (float)keep : 1.0f, (float)scale);
    std::vector<double> got = widen(dm.get());
    c.close("momentum", std::vector<double>(got.begin() + (long)at, got.end()), nm, 1e-6);
    c.close("direction", widen(direction.get()), nd, 1e-6);
  }
  c.device.run({"muon_descend", {blocks((n + 7) / 8, 256), 1, 1}, {256, 1, 1}, 0}, direction.ptr(), dw.ptr() + at, (long long)n,
               (float)decay, (float)step);
  std::vector<double> got = widen(dw.get());
  bool before = true;
  for (size_t i = 0; i < at; i++) before &= got[i] == w.value[i];
  c.expect(before, "what lies before the matrix has changed");
  for (size_t i = 0; i < n; i++) nw[i] = decay * w.value[at + i] - step * nd[i];
  c.close("weights", std::vector<double>(got.begin() + (long)at, got.end()), nw, 1e-6);

  const LaunchSpec combine = {"combine", {blocks((n + 7) / 8, 256), 1, 1}, {256, 1, 1}, 0};
  c.device.run(combine, sum.ptr() + at, direction.ptr(), copy.ptr(), (long long)n, (float)decay, (float)factor);
  for (size_t i = 0; i < n; i++) ns[i] = decay * w.value[at + i] + factor * nd[i];
  got = widen(sum.get());
  c.close("sum", std::vector<double>(got.begin() + (long)at, got.end()), ns, 1e-6);
  std::vector<uint16_t> rounded;
  const std::vector<float> exact = sum.get();
  for (size_t i = 0; i < n; i++) rounded.push_back(host::to_bf16(exact[at + i]));
  c.same_bits("rounded sum", copy.get(), rounded);
  c.device.run(combine, direction.ptr(), (float*)nullptr, copy.ptr(), (long long)n, 0.25f, 0.0f);
  for (size_t i = 0; i < n; i++) nd[i] *= 0.25;
  c.close("scaled", widen(direction.get()), nd, 1e-6);

  c.device.run({"transpose", {blocks(columns, 32), blocks(rows, 32), 1}, {256, 1, 1}, 0}, copy.ptr(), turned.ptr(), rows, columns);
  const std::vector<uint16_t> straight = copy.get();
  std::vector<uint16_t> expected(n);
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < columns; j++) expected[(size_t)j * rows + i] = straight[(size_t)i * columns + j];
  c.same_bits("turned", turned.get(), expected);
}

}  // namespace

FAMILY(cross_entropy) {
  cross_entropy(c, 2, 40, 1);
  if (c.small) return;
  cross_entropy(c, 5, 1, 1);
  cross_entropy(c, 3, 513, 5);
  cross_entropy(c, 4, 2050, 30);
  cross_entropy(c, 3, 300, 1e4);
  // Several steps of a block.
  cross_entropy(c, 2, 9003, 3);
  cross_entropy(c, 2, 20001, 3);
  poisoned_logits(c);
}

FAMILY(optimizer) {
  adamw(c, c.small ? 20 : 1023);
  muon(c, 3, 70, 1);
  if (!c.small) {
    muon(c, 64, 64, 0);
    muon(c, 65, 200, 8);
    muon(c, 300, 129, 4);
  }
  for (size_t n : {(size_t)1, (size_t)5000, (size_t)300001, (size_t)3000001}) {
    if (c.small && n > 1) continue;
    c.begin("squared norm of %zu", n);
    Random r(c.seed + n);
    F32 x = random_f32(r, n, 0.5);
    double want = 0;
    for (double v : x.value) want += v * v;
    Buffer<float> dx(c.device, x.bits), factor(c.device, 1);
    Buffer<double> partial(c.device, 1024), sum(c.device, 1);
    const LaunchSpec total = {"squared_norm_total", {1, 1, 1}, {512, 1, 1}, 0};
    for (int half = 0; half < 2; half++)
      c.device.run({"squared_norm_partial", {512, 1, 1}, {256, 1, 1}, 0}, dx.ptr(), partial.ptr() + half * 512, (long long)n);
    c.device.run(total, partial.ptr(), sum.ptr(), 2, 0);
    c.close("sum of two", sum.get(), {2 * want}, 1e-6);
    c.device.run(total, partial.ptr(), sum.ptr(), 1, 0);
    c.close("sum", sum.get(), {want}, 1e-6);
    c.device.run(total, partial.ptr(), sum.ptr(), 1, 1);
    c.close("sum and another", sum.get(), {2 * want}, 1e-6);
    c.device.run({"clip_factor", {1, 1, 1}, {32, 1, 1}, 0}, sum.ptr(), factor.ptr(), 1.0f);
    c.close("clip factor", widen(factor.get()), {std::min(1.0, 1 / (sqrt(2 * want) + 1e-6))}, 1e-6);
  }
}
