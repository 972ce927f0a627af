// Products and attention whose every result says which element of an operand it took, so that a fault of a fragment's
// layout, a swizzle or a descriptor can be read off the log. One operand is the identity, the other holds its own row or
// column numbers, which bf16 keeps exactly up to 256.
#include "check.h"

namespace {

enum class Shows { Row, Column };

// What went where, as pairs: C[i][j] took (row, column).
void hold(Check& c, const char* operand, int rows, int columns, const std::vector<double> (&got)[2], const std::vector<double> (&want)[2]) {
  for (const std::vector<double>& g : got) c.note(g);
  if (c.repeating || c.left_out) return;
  size_t wrong = 0;
  for (size_t i = 0; i < want[0].size(); i++) wrong += !(got[0][i] == want[0][i] && got[1][i] == want[1][i]);
  c.expect(wrong == 0, std::string(operand) + ": " + std::to_string(wrong) + " of " + std::to_string(want[0].size()) + " took another element");
  if (!wrong) return;
  size_t shown = 0;
  for (size_t i = 0; i < want[0].size() && shown < 24; i++) {
    if (got[0][i] == want[0][i] && got[1][i] == want[1][i]) continue;
    shown++;
    printf("    [%zu][%zu] took (%g, %g), not (%g, %g)\n", i / columns, i % columns, got[0][i], got[1][i], want[0][i], want[1][i]);
  }
  // The corner of one 8 by 8 block, then every eighth row and column: within a fragment, and from one to the next.
  for (int step : {1, 8}) {
    printf("    every %d:\n", step);
    for (int i = 0; i < 8 * step && i < rows; i += step) {
      printf("     ");
      for (int j = 0; j < 8 * step && j < columns; j += step) printf(" %3g,%-3g", got[0][(size_t)i * columns + j], got[1][(size_t)i * columns + j]);
      printf("\n");
    }
  }
}

struct Product {
  const char* kernel;
  bool a_k, b_k, f32;
  size_t shared;
  int columns;  // of a Hopper kernel's tile; 0: mma.sync
};

// C[i][j] is an element of B when A is the identity, of A when B is.
void product(Check& c, const Product& p) {
  const int N = p.columns ? p.columns : 128, M = 128, K = 128;
  c.begin("pattern %s %dx%dx%d", p.kernel, M, N, K);
  for (bool identity_a : {true, false}) {
    std::vector<double> got[2], want[2];
    for (Shows shows : {Shows::Row, Shows::Column}) {
      std::vector<uint16_t> a((size_t)M * K), b((size_t)N * K);
      auto number = [&](int row, int column) { return host::to_bf16((float)(shows == Shows::Row ? row : column)); };
      // Beyond K the identity has no rows; what is taken there is 0.
      for (int i = 0; i < M; i++)
        for (int k = 0; k < K; k++) a[p.a_k ? (size_t)i * K + k : (size_t)k * M + i] = identity_a ? (i == k ? 0x3f80 : 0) : number(i, k);
      for (int j = 0; j < N; j++)
        for (int k = 0; k < K; k++) b[p.b_k ? (size_t)j * K + k : (size_t)k * N + j] = identity_a ? number(j, k) : j == k ? 0x3f80 : 0;
      std::vector<double>& w = want[shows == Shows::Column];
      for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++)
          w.push_back(identity_a ? (shows == Shows::Row ? j : i) : j < K ? (shows == Shows::Row ? i : j) : 0);
      Buffer<uint16_t> da(c.device, a), db(c.device, b);
      const long long lda = p.a_k ? K : M, ldb = p.b_k ? K : N, ldc = N;
      const unsigned tiles = (unsigned)((M + 127) / 128 * ((N + 127) / 128));
      const LaunchSpec spec = {p.kernel, {p.columns ? 1 : tiles, 1, 1}, {p.columns ? 384u : 256u, 1, 1}, p.shared};
      MapBytes ma = {}, mb = {};
      if (p.columns) {
        ma = p.a_k ? c.device.map_2d(da.ptr(), K, M, lda * 2, 64, 128) : c.device.map_2d(da.ptr(), M, K, lda * 2, 64, 64);
        mb = p.b_k ? c.device.map_2d(db.ptr(), K, N, ldb * 2, 64, p.columns) : c.device.map_2d(db.ptr(), N, K, ldb * 2, 64, 64);
      }
      std::vector<double>& g = got[shows == Shows::Column];
      float* const no = nullptr;
      if (p.f32) {
        Buffer<float> out(c.device, (size_t)M * N);
        if (p.columns)
          c.device.run(spec, ma, mb, out.ptr(), ldc, no, M, N, K);
        else
          c.device.run(spec, da.ptr(), lda, db.ptr(), ldb, out.ptr(), ldc, no, M, N, K);
        g = widen(out.get());
      } else {
        Buffer<uint16_t> out(c.device, (size_t)M * N);
        if (p.columns)
          c.device.run(spec, ma, mb, out.ptr(), ldc, M, N, K);
        else
          c.device.run(spec, da.ptr(), lda, db.ptr(), ldb, out.ptr(), ldc, M, N, K);
        g = widen(out.get());
      }
    }
    hold(c, identity_a ? "B" : "A", M, N, got, want);
  }
}

// Query t and key t alone point the same way, so that row t of the output is row t of V.
void attention(Check& c, int d, bool hopper) {
  const int context = d < 128 ? 64 : 128, width = 3 * d;
  c.begin("pattern attention%s d%d %dx%d", hopper ? " sm90" : "", d, context, d);
  std::vector<double> got[2], want[2];
  for (Shows shows : {Shows::Row, Shows::Column}) {
    std::vector<uint16_t> qkv((size_t)context * width, 0);
    for (int t = 0; t < context; t++) {
      qkv[(size_t)t * width + t % d] = qkv[(size_t)t * width + d + t % d] = host::to_bf16(64);
      for (int i = 0; i < d; i++) qkv[(size_t)t * width + 2 * d + i] = host::to_bf16((float)(shows == Shows::Row ? t : i));
      for (int i = 0; i < d; i++) want[shows == Shows::Column].push_back(shows == Shows::Row ? t : i);
    }
    Buffer<uint16_t> in(c.device, qkv), out(c.device, (size_t)context * d);
    Buffer<uint32_t> from(c.device, std::vector<uint32_t>((size_t)context, 0));
    Buffer<float> lse(c.device, (size_t)context);
    const std::string name = std::string("attention_forward_") + (hopper ? "sm90_" : "") + std::to_string(d);
    const float scale = (float)(1 / sqrt((double)d));
    if (hopper) {
      MapBytes map = c.device.map_2d(in.ptr(), width, context, (uint64_t)width * 2, 64, 64);
      c.device.run({name.c_str(), {1, 1, 1}, {384, 1, 1}, (size_t)5 * 128 * d * 2 + 128}, map, from.ptr(), out.ptr(), lse.ptr(), context, 1, 1, scale);
    } else {
      c.device.run({name.c_str(), {(unsigned)(context + 63) / 64, 1, 1}, {128, 1, 1}, (size_t)(64 + 4 * 64) * d * 2}, in.ptr(), from.ptr(), out.ptr(),
                   lse.ptr(), context, 1, 1, scale);
    }
    got[shows == Shows::Column] = widen(out.get());
  }
  hold(c, "V", context, d, got, want);
}

}  // namespace

FAMILY(patterns) {
  // The same inputs whatever the seed; once is enough where time is short.
  if (c.small) return product(c, {"gemm_nt_bf16", true, true, false, 61440, 0});
  const Product products[] = {
      {"gemm_nt_bf16", true, true, false, 61440, 0},
      {"gemm_nn_bf16", true, false, false, 56832, 0},
      {"gemm_tn_f32", false, false, true, 52224, 0},
      {"gemm_sm90_nt_bf16_128", true, true, false, 196704, 128},
      {"gemm_sm90_nt_bf16_256", true, true, false, 196672, 256},
      {"gemm_sm90_nn_bf16_128", true, false, false, 196704, 128},
      {"gemm_sm90_nn_bf16_256", true, false, false, 196672, 256},
      {"gemm_sm90_tn_f32_128", false, false, true, 196704, 128},
      {"gemm_sm90_tn_f32_256", false, false, true, 196672, 256},
  };
  for (const Product& p : products)
    if (!p.columns || c.device.has_hopper()) product(c, p);
  for (int d : {64, 128}) attention(c, d, false);
  for (int d : {64, 128})
    if (c.device.has_hopper()) attention(c, d, true);
}
