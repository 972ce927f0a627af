// Attention, forward and backward, against the softmax written out in f64.
#include "attention.h"

namespace {

size_t forward_shared(int d) { return (size_t)(64 + 4 * (d == 256 ? 32 : 64)) * d * 2; }
size_t backward_shared(int d, bool q) {
  int stages = d == 256 ? 1 : 2, tile = d <= (q ? 96 : 64) ? 64 : 32;
  return (size_t)(128 + 2 * stages * tile) * d * 2;
}

// dQ, dK and dV beside the reference, each on its own.
void compare_gradients(Check& c, const AttentionCase& s, const std::vector<double>& g, const AttentionReference& ref) {
  int width = s.width();
  const char* parts[3] = {"dQ", "dK", "dV"};
  int begin[4] = {0, s.heads * s.d, (s.heads + s.kv_heads) * s.d, width};
  for (int p = 0; p < 3; p++) {
    std::vector<double> have, want;
    for (int t = 0; t < s.tokens(); t++)
      for (int i = begin[p]; i < begin[p + 1]; i++) {
        have.push_back(g[(size_t)t * width + i]);
        if (!c.repeating) want.push_back(ref.grad[(size_t)t * width + i]);
      }
    c.close(parts[p], have, want, 1e-2);
  }
}

void forward_and_backward(Check& c, const AttentionCase& s) {
  c.begin("attention d%d h%d/%d %dx%d %s", s.d, s.heads, s.kv_heads, s.rows, s.context, s.mask);
  AttentionData a = attention_data(c.seed, s);
  Buffer<uint16_t> qkv(c.device, a.qkv.bits), out(c.device, (size_t)s.tokens() * s.heads * s.d);
  Buffer<uint32_t> from(c.device, a.from);
  Buffer<float> lse(c.device, (size_t)s.tokens() * s.heads);
  std::string name = "attention_forward_" + std::to_string(s.d);
  unsigned tiles = (unsigned)(s.context + 63) / 64;
  float scale = (float)s.scale();
  c.device.run({name.c_str(), {tiles, (unsigned)s.heads, (unsigned)s.rows}, {128, 1, 1}, forward_shared(s.d)}, qkv.ptr(),
               from.ptr(), out.ptr(), lse.ptr(), s.context, s.heads, s.kv_heads, scale);
  AttentionReference ref;
  if (!c.repeating) ref = attention_reference(s, a);
  std::vector<double> got = widen(out.get());
  c.close("out", got, ref.out, 5e-3);
  c.within("log sum", widen(lse.get()), ref.lse, 1e-4);

  // The backward pass sees what the forward pass wrote, as in training.
  Buffer<uint16_t> grad_out(c.device, a.grad_out.bits), grad(c.device, a.qkv.bits.size());
  Buffer<float> delta(c.device, (size_t)s.tokens() * s.heads);
  c.device.run({"attention_delta", {delta_blocks((size_t)s.tokens() * s.heads, s.d), 1, 1}, {256, 1, 1}, 0}, out.ptr(),
               grad_out.ptr(), delta.ptr(), s.rows, s.context, s.heads, s.d);
  std::string kv = "attention_backward_kv_" + std::to_string(s.d), q = "attention_backward_q_" + std::to_string(s.d);
  unsigned slices = s.d == 256 ? 2 : 1;
  c.device.run({kv.c_str(), {tiles, (unsigned)s.kv_heads * slices, (unsigned)s.rows}, {128, 1, 1}, backward_shared(s.d, false)},
               qkv.ptr(), grad_out.ptr(), from.ptr(), lse.ptr(), delta.ptr(), grad.ptr(), s.context, s.heads, s.kv_heads, scale);
  c.device.run({q.c_str(), {tiles, (unsigned)s.heads, (unsigned)s.rows}, {128, 1, 1}, backward_shared(s.d, true)}, qkv.ptr(),
               grad_out.ptr(), from.ptr(), lse.ptr(), delta.ptr(), grad.ptr(), s.context, s.heads, s.kv_heads, scale);
  compare_gradients(c, s, widen(grad.get()), ref);
}

void hopper_forward_and_backward(Check& c, const AttentionCase& s, bool rope = false) {
  c.begin("attention sm90 d%d h%d/%d %dx%d %s", s.d, s.heads, s.kv_heads, s.rows, s.context, s.mask);
  AttentionData a = attention_data(c.seed, s);
  Buffer<uint16_t> qkv(c.device, a.qkv.bits), out(c.device, (size_t)s.tokens() * s.heads * s.d);
  Buffer<uint32_t> from(c.device, a.from);
  Buffer<float> lse(c.device, (size_t)s.tokens() * s.heads);
  std::string name = "attention_forward_sm90_" + std::to_string(s.d);
  MapBytes map = c.device.map_2d(qkv.ptr(), s.width(), s.tokens(), (uint64_t)s.width() * 2, 64, 64);
  unsigned tiles = (unsigned)(s.context + 127) / 128, rows = (unsigned)s.rows;
  float scale = (float)s.scale();
  c.device.run({name.c_str(), {tiles, (unsigned)s.heads, rows}, {384, 1, 1}, (size_t)5 * 128 * s.d * 2 + 128}, map, from.ptr(),
               out.ptr(), lse.ptr(), s.context, s.heads, s.kv_heads, scale);
  AttentionReference ref;
  if (!c.repeating) ref = attention_reference(s, a);
  c.close("out", widen(out.get()), ref.out, 5e-3);
  c.within("log sum", widen(lse.get()), ref.lse, 1e-4);

  Buffer<uint16_t> grad_out(c.device, a.grad_out.bits), grad(c.device, a.qkv.bits.size());
  Buffer<float> delta(c.device, (size_t)s.tokens() * s.heads);
  c.device.run({"attention_delta", {delta_blocks((size_t)s.tokens() * s.heads, s.d), 1, 1}, {256, 1, 1}, 0}, out.ptr(),
               grad_out.ptr(), delta.ptr(), s.rows, s.context, s.heads, s.d);
  FusedBackward backward(c.device, s.rows, s.context, s.heads, s.kv_heads, s.d);
  MapBytes map_out = c.device.map_2d(grad_out.ptr(), s.heads * s.d, s.tokens(), (uint64_t)s.heads * s.d * 2, 64, 64);
  auto run = [&](const LaunchSpec& spec, const auto&... arguments) { return c.device.run(spec, arguments...), 0.0; };
  TwoBackward two(s.rows, s.context, s.heads, s.kv_heads, s.d);
  const uint32_t* nowhere = nullptr;
  const float* no = nullptr;
  if (s.d == 64) {
    two.run(run, map, map_out, from.ptr(), lse.ptr(), delta.ptr(), grad.ptr(), nowhere, no, no, scale);
    compare_gradients(c, s, widen(grad.get()), ref);
  }
  c.begin("attention fused sm90 d%d h%d/%d %dx%d %s", s.d, s.heads, s.kv_heads, s.rows, s.context, s.mask);
  backward.run(run, map, map_out, out.ptr(), grad_out.ptr(), from.ptr(), lse.ptr(), grad.ptr(), nowhere, no, no, scale);
  compare_gradients(c, s, widen(grad.get()), ref);
  if (!rope) return;

  // Turned back: what `rope` makes of these gradients, rounded once less.
  Random r(c.seed + 5);
  const int positions = 900, half = s.d / 2;
  std::vector<uint32_t> at((size_t)s.tokens());
  for (uint32_t& p : at) p = (uint32_t)r.below(positions);
  std::vector<float> cosines((size_t)positions * half), sines(cosines.size());
  for (size_t i = 0; i < cosines.size(); i++) {
    const double angle = (double)(i / half) * pow(10000, -2.0 * (double)(i % half) / s.d);
    cosines[i] = (float)(1.1 * cos(angle)), sines[i] = (float)(1.1 * sin(angle));
  }
  Buffer<uint32_t> places(c.device, at);
  Buffer<float> table_c(c.device, cosines), table_s(c.device, sines);
  if (!c.repeating)
    for (int t = 0; t < s.tokens(); t++)
      for (int h = 0; h < s.heads + s.kv_heads; h++)
        for (int i = 0; i < half; i++) {
          double &a = ref.grad[(size_t)t * s.width() + h * s.d + i], &b = ref.grad[(size_t)t * s.width() + h * s.d + half + i];
          const double x = a, y = b, co = cosines[(size_t)at[t] * half + i], si = sines[(size_t)at[t] * half + i];
          a = x * co + y * si, b = y * co - x * si;
        }
  backward.run(run, map, map_out, out.ptr(), grad_out.ptr(), from.ptr(), lse.ptr(), grad.ptr(), places.ptr(), table_c.ptr(), table_s.ptr(), scale);
  compare_gradients(c, s, widen(grad.get()), ref);
  if (s.d != 64) return;
  two.run(run, map, map_out, from.ptr(), lse.ptr(), delta.ptr(), grad.ptr(), places.ptr(), table_c.ptr(), table_s.ptr(), scale);
  compare_gradients(c, s, widen(grad.get()), ref);
}

// Changing a token leaves everything before it as it was, to the bit.
void causal(Check& c, const AttentionCase& s, int changed) {
  c.begin("attention causal d%d context %d", s.d, s.context);
  AttentionData a = attention_data(c.seed, s);
  std::vector<uint16_t> outs[2];
  for (int pass = 0; pass < 2; pass++) {
    if (pass == 1)
      for (int i = 0; i < s.width(); i++) a.qkv.bits[(size_t)changed * s.width() + i] ^= 0x0080;
    Buffer<uint16_t> qkv(c.device, a.qkv.bits), out(c.device, (size_t)s.tokens() * s.heads * s.d);
    Buffer<uint32_t> from(c.device, a.from);
    Buffer<float> lse(c.device, (size_t)s.tokens() * s.heads);
    std::string name = "attention_forward_" + std::to_string(s.d);
    c.device.run({name.c_str(), {(unsigned)(s.context + 63) / 64, (unsigned)s.heads, (unsigned)s.rows}, {128, 1, 1}, forward_shared(s.d)},
                 qkv.ptr(), from.ptr(), out.ptr(), lse.ptr(), s.context, s.heads, s.kv_heads, (float)s.scale());
    outs[pass] = out.get();
    outs[pass].resize((size_t)changed * s.heads * s.d);
  }
  c.same_bits("tokens before the changed one", outs[0], outs[1]);
}

}  // namespace

FAMILY(attention) {
  if (c.small) {
    // More tiles of keys than stages, or a race in the ring stays unseen; then tiles that are skipped.
    forward_and_backward(c, {64, 1, 1, 1, 260, "causal"});
    forward_and_backward(c, {32, 2, 1, 1, 130, "documents"});
    return;
  }
  for (int d : {32, 64, 96, 128, 256}) {
    forward_and_backward(c, {d, 2, 1, 1, 1, "causal"});
    forward_and_backward(c, {d, 2, 2, 2, 65, "documents"});
    forward_and_backward(c, {d, 3, 1, 1, d == 64 ? 330 : 200, "causal"});
  }
  forward_and_backward(c, {64, 4, 2, 1, 63, "causal"});
  forward_and_backward(c, {64, 8, 1, 1, 64, "documents"});
  forward_and_backward(c, {64, 4, 4, 1, 513, "documents"});
  forward_and_backward(c, {64, 2, 1, 1, 300, "window"});
  forward_and_backward(c, {128, 4, 1, 1, 257, "edges"});
  causal(c, {64, 2, 1, 1, 200, "causal"}, 130);
}

FAMILY(attention_sm90) {
  if (!c.device.has_hopper()) return;
  if (c.small) {
    hopper_forward_and_backward(c, {64, 1, 1, 1, 520, "window"});
    hopper_forward_and_backward(c, {128, 2, 1, 1, 330, "causal"}, true);
    return;
  }
  for (int d : {64, 128}) {
    hopper_forward_and_backward(c, {d, 2, 1, 1, 1, "causal"});
    hopper_forward_and_backward(c, {d, 2, 2, 2, 65, "documents"});
    hopper_forward_and_backward(c, {d, 3, 1, 1, 127, "causal"});
    hopper_forward_and_backward(c, {d, 2, 1, 2, 129, "documents"});
    hopper_forward_and_backward(c, {d, 1, 1, 1, 700, "causal"});
    hopper_forward_and_backward(c, {d, 4, 2, 1, 385, "window"}, true);
    hopper_forward_and_backward(c, {d, 1, 1, 1, 513, "documents"});
    hopper_forward_and_backward(c, {d, 1, 1, 1, 256, "edges"});
  }
}
