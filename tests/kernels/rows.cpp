// The kernels that go over rows once: RMSNorm, SwiGLU and GeGLU, RoPE, embedding, conversions.
#include "check.h"

namespace {

unsigned blocks(size_t items, size_t per) { return (unsigned)((items + per - 1) / per); }

struct Norm {
  int rows, stride, offset, segments, width;
  // Added to the weight.
  float plus = 0;
  size_t size() const { return (size_t)rows * stride; }
  size_t items() const { return (size_t)rows * segments; }
  size_t base(size_t item) const { return item / segments * stride + offset + item % segments * width; }
};

// y, rstd and the backward pass in f64; what lies outside the segments is left as `y` and `dx` come.
void norm_reference(const Norm& n, double eps, const std::vector<double>& x, const std::vector<double>& w,
                    const std::vector<double>& dy, std::vector<double>& y, std::vector<double>& rstd,
                    std::vector<double>& dx, std::vector<double>& dw) {
  rstd.assign(n.items(), 0);
  dw.assign(n.width, 0);
  for (size_t item = 0; item < n.items(); item++) {
    size_t b = n.base(item);
    double s = 0, dot = 0;
    for (int i = 0; i < n.width; i++) s += x[b + i] * x[b + i];
    double r = rstd[item] = 1 / sqrt(s / n.width + eps);
    for (int i = 0; i < n.width; i++) {
      y[b + i] = x[b + i] * r * (n.plus + w[i]);
      dot += dy[b + i] * (n.plus + w[i]) * x[b + i] * r;
      dw[i] += dy[b + i] * x[b + i] * r;
    }
    for (int i = 0; i < n.width; i++) dx[b + i] = r * (dy[b + i] * (n.plus + w[i]) - x[b + i] * r * dot / n.width);
  }
}

void rmsnorm(Check& c, const Norm& n) {
  Random r(c.seed * 31 + n.width);
  double eps = 1e-5;
  LaunchSpec forward = {"", {blocks(n.items(), 8), 1, 1}, {256, 1, 1}, 0};
  int warps = n.width > 256 ? 4 : 8;
  unsigned grid = std::min(blocks(n.items(), warps), 5u);
  LaunchSpec backward = {"", {grid, 1, 1}, {(unsigned)warps * 32, 1, 1}, (size_t)warps * n.width * 4};
  LaunchSpec weight = {"rmsnorm_weight_grad", {blocks(n.width, 32), 1, 1}, {1024, 1, 1}, 0};
  long long rows = n.rows;
  float eps32 = (float)eps;
  F32 w = random_f32(r, n.width, 0.3, 1), xf = random_f32(r, n.size(), 1.5), gf = random_f32(r, n.size(), 1),
      base = random_f32(r, n.size(), 1), dw0 = random_f32(r, n.width, 1);
  Bf16 xb = random_bf16(r, n.size(), 1.5), gb = random_bf16(r, n.size(), 1);
  Buffer<float> dwt(c.device, w.bits), dxf(c.device, xf.bits), dgf(c.device, gf.bits);
  Buffer<uint16_t> dxb(c.device, xb.bits), dgb(c.device, gb.bits);
  std::vector<double> y, rstd, dx, dw, nothing(n.size(), 0);
  auto plus = [](std::vector<double> a, const std::vector<double>& b) {
    for (size_t i = 0; i < a.size(); i++) a[i] += b[i];
    return a;
  };
  bool whole = n.segments == 1 && n.width == n.stride;

  if (whole) {
    c.begin("rmsnorm stream %dx%d", n.rows, n.width);
    y = dx = nothing;
    std::vector<uint16_t> rounded(n.size());
    for (size_t i = 0; i < n.size(); i++) rounded[i] = host::to_bf16(xf.bits[i]);
    norm_reference(n, eps, xf.value, w.value, gb.value, y, rstd, dx, dw);
    Buffer<uint16_t> dx16(c.device, n.size()), dy(c.device, n.size()), copy(c.device, n.size());
    Buffer<float> drstd(c.device, n.items()), grad(c.device, base.bits), partial(c.device, (size_t)grid * n.width),
        grad_w(c.device, dw0.bits);
    forward.kernel = "rmsnorm_forward";
    c.device.run(forward, dxf.ptr(), dwt.ptr(), dx16.ptr(), dy.ptr(), drstd.ptr(), rows, n.stride, n.offset, n.segments, n.width, eps32, n.plus);
    c.same_bits("x", dx16.get(), rounded);
    c.close("y", widen(dy.get()), y, 3e-3);
    c.close("rstd", widen(drstd.get()), rstd, 1e-6);
    // What is computed again from the kept x differs by its rounding; the backward pass takes its statistics.
    Buffer<uint16_t> again(c.device, n.size());
    Buffer<float> rstd_again(c.device, n.items());
    LaunchSpec segments = forward;
    segments.kernel = "rmsnorm_segments_forward";
    c.device.run(segments, dx16.ptr(), dwt.ptr(), again.ptr(), rstd_again.ptr(), rows, n.stride, n.offset, n.segments, n.width,
                 eps32, n.plus);
    c.close("y again", widen(again.get()), y, 5e-3);
    y = dx = nothing;
    norm_reference(n, eps, widen(rounded), w.value, gb.value, y, rstd, dx, dw);
    backward.kernel = "rmsnorm_backward";
    c.device.run(backward, dx16.ptr(), dwt.ptr(), rstd_again.ptr(), dgb.ptr(), grad.ptr(), copy.ptr(), partial.ptr(), rows, n.stride,
                 n.offset, n.segments, n.width, n.plus);
    c.device.run(weight, partial.ptr(), grad_w.ptr(), (int)grid, n.width);
    c.close("grad", widen(grad.get()), plus(dx, base.value), 1e-5);
    c.close("copy", widen(copy.get()), plus(dx, base.value), 3e-3);
    c.close("grad w", widen(grad_w.get()), plus(dw, dw0.value), 1e-5);
    const LaunchSpec by_row = {"rmsnorm_rows_backward", {std::min((unsigned)n.rows, 5u), 1, 1}, {128u * ((n.width + 2047) / 2048), 1, 1}, 0};
    Buffer<float> row_grad(c.device, base.bits), row_partial(c.device, (size_t)by_row.grid.x * n.width), row_grad_w(c.device, dw0.bits);
    Buffer<uint16_t> row_copy(c.device, n.size());
    c.device.run(by_row, dx16.ptr(), dwt.ptr(), rstd_again.ptr(), dgb.ptr(), row_grad.ptr(), row_copy.ptr(), row_partial.ptr(), rows, n.width, n.plus);
    c.device.run(weight, row_partial.ptr(), row_grad_w.ptr(), (int)by_row.grid.x, n.width);
    c.close("grad by row", widen(row_grad.get()), plus(dx, base.value), 1e-5);
    c.close("copy by row", widen(row_copy.get()), plus(dx, base.value), 3e-3);
    c.close("grad w by row", widen(row_grad_w.get()), plus(dw, dw0.value), 1e-5);

    c.begin("rmsnorm residual %dx%d", n.rows, n.width);
    y = dx = nothing;
    norm_reference(n, eps, xb.value, w.value, gf.value, y, rstd, dx, dw);
    Buffer<float> dy2(c.device, base.bits), drstd2(c.device, n.items()), partial2(c.device, (size_t)grid * n.width),
        grad_w2(c.device, dw0.bits);
    Buffer<uint16_t> grad_x(c.device, n.size());
    forward.kernel = "rmsnorm_residual_forward";
    c.device.run(forward, dxb.ptr(), dwt.ptr(), dy2.ptr(), drstd2.ptr(), rows, n.stride, n.offset, n.segments,
                 n.width, eps32, n.plus);
    c.close("y", widen(dy2.get()), plus(y, base.value), 1e-5);
    backward.kernel = "rmsnorm_residual_backward";
    c.device.run(backward, dxb.ptr(), dwt.ptr(), drstd2.ptr(), dgf.ptr(), grad_x.ptr(), partial2.ptr(), rows, n.stride,
                 n.offset, n.segments, n.width, n.plus);
    c.device.run(weight, partial2.ptr(), grad_w2.ptr(), (int)grid, n.width);
    c.close("grad x", widen(grad_x.get()), dx, 3e-3);
    c.close("grad w", widen(grad_w2.get()), plus(dw, dw0.value), 1e-5);
    LaunchSpec by_row2 = by_row;
    by_row2.kernel = "rmsnorm_rows_residual_backward";
    Buffer<float> row_partial2(c.device, (size_t)by_row.grid.x * n.width), row_grad_w2(c.device, dw0.bits);
    c.device.run(by_row2, dxb.ptr(), dwt.ptr(), drstd2.ptr(), dgf.ptr(), grad_x.ptr(), row_partial2.ptr(), rows, n.width, n.plus);
    c.device.run(weight, row_partial2.ptr(), row_grad_w2.ptr(), (int)by_row.grid.x, n.width);
    c.close("grad x by row", widen(grad_x.get()), dx, 3e-3);
    c.close("grad w by row", widen(row_grad_w2.get()), plus(dw, dw0.value), 1e-5);
  }

  c.begin("rmsnorm segments %dx%dx%d", n.rows, n.segments, n.width);
  y = xb.value;
  dx = gb.value;
  norm_reference(n, eps, xb.value, w.value, gb.value, y, rstd, dx, dw);
  Buffer<uint16_t> dy3(c.device, xb.bits), grad3(c.device, gb.bits);
  Buffer<float> drstd3(c.device, n.items()), partial3(c.device, (size_t)grid * n.width), grad_w3(c.device, dw0.bits);
  forward.kernel = "rmsnorm_segments_forward";
  c.device.run(forward, dxb.ptr(), dwt.ptr(), dy3.ptr(), drstd3.ptr(), rows, n.stride, n.offset, n.segments, n.width, eps32, n.plus);
  c.close("y", widen(dy3.get()), y, 3e-3);
  backward.kernel = "rmsnorm_segments_backward";
  c.device.run(backward, dxb.ptr(), dwt.ptr(), drstd3.ptr(), grad3.ptr(), partial3.ptr(), rows, n.stride, n.offset, n.segments,
               n.width, n.plus);
  c.device.run(weight, partial3.ptr(), grad_w3.ptr(), (int)grid, n.width);
  c.close("grad", widen(grad3.get()), dx, 3e-3);
  c.close("grad w", widen(grad_w3.get()), plus(dw, dw0.value), 1e-5);

  if (n.width > 256 || n.width % 8 != 0 || n.stride % 8 != 0 || n.offset % 8 != 0) return;
  c.begin("rmsnorm heads %dx%dx%d", n.rows, n.segments, n.width);
  // A block has as many segments at once as norm.rs says; with three blocks some make more turns than others.
  unsigned lanes = 1;
  while (lanes * 8 < (unsigned)n.width) lanes *= 2;
  const unsigned all = blocks(n.items(), 8 * 4 * (32 / lanes)), shares = std::min(all, 3u);
  Buffer<uint16_t> dy4(c.device, xb.bits), grad4(c.device, gb.bits);
  Buffer<float> drstd4(c.device, n.items()), partial4(c.device, (size_t)shares * n.width), grad_w4(c.device, dw0.bits);
  c.device.run({"rmsnorm_heads_forward", {all, 1, 1}, {256, 1, 1}, 0}, dxb.ptr(), dwt.ptr(), dy4.ptr(), drstd4.ptr(), rows, n.stride, n.offset,
               n.segments, n.width, eps32, n.plus);
  c.close("y", widen(dy4.get()), y, 3e-3);
  c.close("rstd", widen(drstd4.get()), rstd, 1e-6);
  c.device.run({"rmsnorm_heads_backward", {shares, 1, 1}, {256, 1, 1}, 0}, dxb.ptr(), dwt.ptr(), drstd4.ptr(), grad4.ptr(), partial4.ptr(), rows,
               n.stride, n.offset, n.segments, n.width, n.plus);
  c.device.run(weight, partial4.ptr(), grad_w4.ptr(), (int)shares, n.width);
  c.close("grad", widen(grad4.get()), dx, 3e-3);
  c.close("grad w", widen(grad_w4.get()), plus(dw, dw0.value), 1e-5);
}

void glu(Check& c, bool gelu, int rows, int width) {
  c.begin("%s %dx%d", gelu ? "geglu" : "swiglu", rows, width);
  Random r(c.seed * 17 + width);
  Bf16 in = random_bf16(r, (size_t)rows * 2 * width, 2), dy = random_bf16(r, (size_t)rows * width, 1);
  std::vector<double> y((size_t)rows * width), grad(in.value.size());
  const double linear = 2 * sqrt(2 / M_PI), cubic = 0.044715;
  for (int t = 0; t < rows; t++)
    for (int i = 0; i < width; i++) {
      size_t g = (size_t)t * 2 * width + i, u = g + width, o = (size_t)t * width + i;
      double x = in.value[g], gated, slope;
      if (gelu) {
        double tan = tanh(linear / 2 * (x + cubic * x * x * x));
        gated = x / 2 * (1 + tan);
        slope = (1 + tan) / 2 + x / 2 * (1 - tan * tan) * linear / 2 * (1 + 3 * cubic * x * x);
      } else {
        double s = 1 / (1 + exp(-x));
        gated = x * s;
        slope = s + gated * (1 - s);
      }
      y[o] = gated * in.value[u];
      grad[g] = dy.value[o] * in.value[u] * slope;
      grad[u] = dy.value[o] * gated;
    }
  Buffer<uint16_t> gate_up(c.device, in.bits), out(c.device, y.size()), again(c.device, y.size()), d(c.device, dy.bits);
  unsigned grid = blocks(y.size() / 8, 256);
  c.device.run({gelu ? "geglu_forward" : "swiglu_forward", {grid, 1, 1}, {256, 1, 1}, 0}, gate_up.ptr(), out.ptr(), (long long)rows, width);
  c.close("y", widen(out.get()), y, 3e-3);
  c.device.run({gelu ? "geglu_backward" : "swiglu_backward", {grid, 1, 1}, {256, 1, 1}, 0}, d.ptr(), gate_up.ptr(), again.ptr(), (long long)rows, width);
  c.close("gradient", widen(gate_up.get()), grad, 3e-3);
  c.same_bits("y computed again", out.get(), again.get());
}

void rope(Check& c, int tokens, int heads, int other, int d) {
  c.begin("rope %d tokens, %d+%d heads of %d", tokens, heads, other, d);
  Random r(c.seed * 13 + d);
  int stride = (heads + other) * d, positions = 50, half = d / 2;
  Bf16 x = random_bf16(r, (size_t)tokens * stride, 1);
  std::vector<uint32_t> at(tokens);
  for (uint32_t& p : at) p = (uint32_t)r.below(positions);
  std::vector<float> cs((size_t)positions * half), sn(cs.size());
  for (int p = 0; p < positions; p++)
    for (int i = 0; i < half; i++) {
      double angle = p * pow(10000, -2.0 * i / d);
      cs[(size_t)p * half + i] = (float)(1.1 * cos(angle));
      sn[(size_t)p * half + i] = (float)(1.1 * sin(angle));
    }
  Buffer<uint32_t> dat(c.device, at);
  Buffer<float> dcs(c.device, cs), dsn(c.device, sn);
  for (float sign : {1.0f, -1.0f}) {
    std::vector<double> want = x.value;
    for (int t = 0; t < tokens; t++)
      for (int h = 0; h < heads; h++)
        for (int i = 0; i < half; i++) {
          size_t lo = (size_t)t * stride + (size_t)h * d + i, hi = lo + half, k = (size_t)at[t] * half + i;
          want[lo] = x.value[lo] * cs[k] - x.value[hi] * sn[k] * sign;
          want[hi] = x.value[hi] * cs[k] + x.value[lo] * sn[k] * sign;
        }
    Buffer<uint16_t> qkv(c.device, x.bits);
    c.device.run({"rope", {blocks((size_t)tokens * heads * ((half + 7) / 8), 512), 1, 1}, {256, 1, 1}, 0}, qkv.ptr(), dat.ptr(), dcs.ptr(),
                 dsn.ptr(), (long long)tokens, stride, heads, d, sign);
    c.close(sign > 0 ? "forward" : "backward", widen(qkv.get()), want, 3e-3);
  }
}

void embedding(Check& c, int tokens, int width, int vocab, float scale = 1) {
  c.begin("embedding %d of %d, width %d", tokens, vocab, width);
  Random r(c.seed * 11 + tokens);
  F32 table = random_f32(r, (size_t)vocab * width, 1), grad = random_f32(r, (size_t)tokens * width, 1),
      before = random_f32(r, (size_t)vocab * width, 1);
  std::vector<uint32_t> ids(tokens);
  for (uint32_t& id : ids) id = (uint32_t)(r.below(3) ? r.below(vocab) : 1 % vocab);
  std::vector<double> out((size_t)tokens * width), want = before.value;
  std::vector<float> exact = before.bits;
  for (int t = 0; t < tokens; t++)
    for (int i = 0; i < width; i++) {
      out[(size_t)t * width + i] = scale * table.bits[(size_t)ids[t] * width + i];
      want[(size_t)ids[t] * width + i] += scale * grad.value[(size_t)t * width + i];
      float& sum = exact[(size_t)ids[t] * width + i];
      sum = fmaf(scale, grad.bits[(size_t)t * width + i], sum);
    }
  Buffer<float> dt(c.device, table.bits), dg(c.device, grad.bits), db(c.device, before.bits), dout(c.device, out.size());
  Buffer<uint32_t> di(c.device, ids);
  c.device.run({"embedding_forward", {(unsigned)tokens, 1, 1}, {128, 1, 1}, 0}, dt.ptr(), di.ptr(), dout.ptr(), width, scale);
  c.close("rows", widen(dout.get()), out, 0);
  c.device.run({"embedding_backward", {(unsigned)tokens, blocks(width, 512), 1}, {128, 1, 1}, 0}, dg.ptr(), di.ptr(), db.ptr(),
               tokens, width, scale);
  c.close("gradient", widen(db.get()), want, 1e-6);
  c.same_bits("additions in the order of the tokens", db.get(), exact);
}

}  // namespace

FAMILY(rmsnorm) {
  if (c.small) return rmsnorm(c, {3, 64, 0, 1, 64});
  rmsnorm(c, {1, 8, 0, 1, 8});
  rmsnorm(c, {19, 576, 0, 1, 576});
  rmsnorm(c, {70, 96, 0, 1, 96});
  rmsnorm(c, {9, 320, 64, 3, 64});
  rmsnorm(c, {33, 192, 0, 1, 128});
  rmsnorm(c, {19, 576, 0, 1, 576, 1});
  rmsnorm(c, {9, 320, 64, 3, 64, 1});
  // Heads: more than their blocks have at once, lanes with nothing, and one lane to a segment.
  rmsnorm(c, {67, 640, 128, 3, 128});
  rmsnorm(c, {131, 512, 256, 1, 256, 1});
  rmsnorm(c, {37, 400, 0, 5, 80});
  rmsnorm(c, {301, 64, 8, 6, 8});
  // More than the registers of a warp hold.
  rmsnorm(c, {5, 2304, 0, 1, 2304});
  rmsnorm(c, {3, 4352, 0, 1, 4352});
}

FAMILY(glu) {
  for (bool gelu : {false, true}) {
    glu(c, gelu, 1, 8);
    if (!c.small) glu(c, gelu, 13, 200), glu(c, gelu, 3, 1536);
  }
}

FAMILY(rope) {
  rope(c, 3, 2, 1, 64);
  if (!c.small) rope(c, 7, 5, 2, 96), rope(c, 2, 9, 3, 128), rope(c, 2, 2, 1, 256);
  // More than a block, and halves that are no whole eights.
  if (!c.small) rope(c, 70, 3, 1, 64), rope(c, 60, 2, 1, 20), rope(c, 5, 3, 0, 8);
}

FAMILY(embedding) {
  embedding(c, 9, 8, 5);
  if (!c.small) embedding(c, 300, 264, 40), embedding(c, 1, 576, 3), embedding(c, 1101, 516, 70), embedding(c, 65, 72, 9, 25.3f);
}

FAMILY(elementwise) {
  Random r(c.seed);
  size_t n = c.small ? 300 : 1023;
  F32 x = random_f32(r, n, 1), y = random_f32(r, n, 1);
  Bf16 b = random_bf16(r, n, 1);
  Buffer<float> dx(c.device, x.bits), dy(c.device, y.bits), average(c.device, n);
  Buffer<uint16_t> db(c.device, b.bits), copy(c.device, n);
  LaunchSpec spec = {"narrow_copy", {blocks((n + 7) / 8, 256), 1, 1}, {256, 1, 1}, 0};
  c.begin("narrow_copy");
  c.device.run(spec, dx.ptr(), copy.ptr(), (long long)n);
  std::vector<uint16_t> rounded(n);
  for (size_t i = 0; i < n; i++) rounded[i] = host::to_bf16(x.bits[i]);
  c.same_bits("rounded to nearest even", copy.get(), rounded);

  c.begin("add_narrow");
  spec.kernel = "add_narrow";
  c.device.run(spec, db.ptr(), dy.ptr(), copy.ptr(), (long long)n);
  std::vector<float> sum(n);
  for (size_t i = 0; i < n; i++) sum[i] = y.bits[i] + (float)b.value[i], rounded[i] = host::to_bf16(sum[i]);
  c.same_bits("sum", dy.get(), sum);
  c.same_bits("copy", copy.get(), rounded);

  // Rows of whole eights, and rows of others, which go value by value.
  for (int wide : {8, 31, c.small ? 16 : 72}) {
    long long many = (long long)n / wide;
    c.begin("bias %lldx%d", many, wide);
    F32 bias = random_f32(r, (size_t)wide, 1), before = random_f32(r, (size_t)wide, 1);
    Buffer<float> dbias(c.device, bias.bits), total(c.device, before.bits);
    Buffer<uint16_t> biased(c.device, b.bits);
    size_t count = (size_t)many * wide;
    c.device.run({"bias_add", {blocks((count + 7) / 8, 256), 1, 1}, {256, 1, 1}, 0}, dbias.ptr(), biased.ptr(), many, wide);
    std::vector<uint16_t> want_biased = b.bits;
    std::vector<double> want_total(before.value.begin(), before.value.end());
    for (size_t i = 0; i < count; i++) {
      want_biased[i] = host::to_bf16((float)b.value[i] + bias.bits[i % wide]);
      want_total[i % wide] += b.value[i];
    }
    c.same_bits("biased", biased.get(), want_biased);
    int shares = 5;
    Buffer<float> partial(c.device, (size_t)shares * wide);
    c.device.run({"bias_grad", {(unsigned)shares, blocks((size_t)(wide + 7) / 8, 128), 1}, {128, 1, 1}, 0}, db.ptr(),
                 partial.ptr(), many, wide);
    c.device.run({"rmsnorm_weight_grad", {blocks((size_t)wide, 32), 1, 1}, {1024, 1, 1}, 0}, partial.ptr(), total.ptr(), shares,
                 wide);
    c.close("gradient", widen(total.get()), want_total, 1e-5);
  }

  // Whole eights, more than a block has; and a width, a stride or an offset that is none.
  const struct {
    int stride, offset, width;
  } columns[] = {{24, 8, 16}, {30, 7, 11}, {32, 4, 8}, {40, 16, 24}, {12, 0, 8}};
  for (const auto& s : columns) {
    if (c.small && s.stride > 30) continue;
    const long long rows = s.stride == 40 ? 777 : (long long)n / s.stride;
    c.begin("copy_columns %lldx%d of %d from %d", rows, s.width, s.stride, s.offset);
    const size_t size = (size_t)rows * s.stride;
    Bf16 v = random_bf16(r, size, 1);
    Buffer<uint16_t> source(c.device, v.bits), moved(c.device, size);
    c.device.run({"copy_columns", {blocks((size_t)rows * s.width, 16 * 256), 1, 1}, {256, 1, 1}, 0}, source.ptr(), moved.ptr(), rows, s.stride,
                 s.offset, s.width);
    std::vector<uint16_t> want(size, 0xffff);
    for (long long t = 0; t < rows; t++)
      for (int i = 0; i < s.width; i++) want[t * s.stride + s.offset + i] = v.bits[t * s.stride + s.offset + i];
    c.same_bits("columns", moved.get(), want);
  }

  c.begin("soup");
  spec.kernel = "soup_add";
  c.device.run(spec, dx.ptr(), average.ptr(), (long long)n, 0.25f, 1);
  spec.kernel = "soup_add_bf16";
  c.device.run(spec, db.ptr(), average.ptr(), (long long)n, 0.75f, 0);
  std::vector<double> soup(n);
  for (size_t i = 0; i < n; i++) soup[i] = 0.25 * x.value[i] + 0.75 * b.value[i];
  c.close("average", widen(average.get()), soup, 1e-6);
}
