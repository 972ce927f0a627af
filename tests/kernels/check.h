// What the kernel checks share: random inputs, buffers, comparison with an f64 reference.
#pragma once
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "host/device.h"

/// Counter-based random numbers: the same on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state(seed * 0x9e3779b97f4a7c15ull + 1) {}
  uint64_t next() {
    state += 0x9e3779b97f4a7c15ull;
    uint64_t z = state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
  }
  double uniform() { return (double)(next() >> 11) * 0x1p-53; }
  double normal() { return sqrt(-2 * log(1 - uniform())) * cos(6.283185307179586 * uniform()); }
  int below(int n) { return (int)(next() % (uint64_t)n); }

 private:
  uint64_t state;
};

inline float bf16_round(float f) { return host::from_bf16(host::to_bf16(f)); }

/// Memory on the device that frees itself. Outputs start as NaN.
template <class T>
class Buffer {
 public:
  Buffer(Device& d, size_t n) : device(d), len(n), at((T*)d.allocate(n * sizeof(T))) {
    std::vector<unsigned char> nan(n * sizeof(T), 0xff);
    d.upload(at, nan.data(), nan.size());
  }
  Buffer(Device& d, const std::vector<T>& v) : device(d), len(v.size()), at((T*)d.allocate(v.size() * sizeof(T))) {
    d.upload(at, v.data(), v.size() * sizeof(T));
  }
  ~Buffer() {
    if (at) device.release(at);
  }
  Buffer(const Buffer&) = delete;
  Buffer(Buffer&& other) noexcept : device(other.device), len(other.len), at(other.at) { other.at = nullptr; }
  std::vector<T> get() const {
    std::vector<T> v(len);
    device.download(v.data(), at, len * sizeof(T));
    return v;
  }
  /// The pointer as the kernels take it.
  template <class U = T>
  U* ptr() const {
    return (U*)at;
  }

 private:
  Device& device;
  size_t len;
  T* at;
};

/// Random bf16 values with their exact f64 meaning.
struct Bf16 {
  std::vector<uint16_t> bits;
  std::vector<double> value;
};
inline Bf16 random_bf16(Random& r, size_t n, double scale) {
  Bf16 v;
  v.bits.resize(n);
  v.value.resize(n);
  for (size_t i = 0; i < n; i++) {
    v.bits[i] = host::to_bf16((float)(r.normal() * scale));
    v.value[i] = host::from_bf16(v.bits[i]);
  }
  return v;
}
struct F32 {
  std::vector<float> bits;
  std::vector<double> value;
};
inline F32 random_f32(Random& r, size_t n, double scale, double shift = 0) {
  F32 v;
  v.bits.resize(n);
  v.value.resize(n);
  for (size_t i = 0; i < n; i++) {
    v.bits[i] = (float)(r.normal() * scale + shift);
    v.value[i] = v.bits[i];
  }
  return v;
}
inline std::vector<double> widen(const std::vector<uint16_t>& v) {
  std::vector<double> out(v.size());
  for (size_t i = 0; i < v.size(); i++) out[i] = host::from_bf16(v[i]);
  return out;
}
inline std::vector<double> widen(const std::vector<float>& v) { return std::vector<double>(v.begin(), v.end()); }

/// One check of a family: its cases call `expect…`; the driver counts.
struct Check {
  Device& device;
  uint64_t seed;
  bool small;  // sanitizer builds: only the smallest shapes
  Check(Device& d, uint64_t s, bool only_small) : device(d), seed(s), small(only_small) {}
  int passed = 0, failed = 0;
  std::string case_name;
  /// Only `results` counts: nothing is compared, and references need not be computed.
  bool repeating = false;

  void fail(const std::string& why) {
    failed++;
    printf("FAIL %s (seed %llu): %s\n", case_name.c_str(), (unsigned long long)seed, why.c_str());
  }
  void expect(bool ok, const std::string& what) {
    if (ok || repeating)
      passed++;
    else
      fail(what);
  }
  /// Relative Frobenius distance at most `cap`; a NaN never passes. Where the reference is all but 0 (the gradient of q
  /// in a row of one token), nothing is relative to it: there 2e-6 per value is allowed instead.
  void close(const std::string& what, const std::vector<double>& got, const std::vector<double>& want, double cap) {
    note(got);
    if (repeating) return;
    double d2 = 0, w2 = 0, worst = 0;
    size_t nan = 0, at = 0;
    if (got.size() != want.size()) return fail(what + ": sizes differ");
    for (size_t i = 0; i < got.size(); i++) {
      if (std::isnan(got[i]) || std::isnan(want[i])) {
        if (!nan++) at = i;
        continue;
      }
      double d = got[i] == want[i] ? 0 : got[i] - want[i];
      d2 += d * d;
      w2 += want[i] * want[i];
      if (!nan && !(fabs(d) <= worst)) worst = fabs(d), at = i;
    }
    double rel = sqrt(d2) / (sqrt(w2) + 1e-30);
    char text[256];
    snprintf(text, sizeof text, "%s: relative error %.3g (cap %.3g), %zu NaN of %zu, worst at %zu: %.8g, want %.8g",
             what.c_str(), rel, cap, nan, got.size(), at, got.empty() ? 0 : got[at], want.empty() ? 0 : want[at]);
    const double n = (double)got.size(), floor = w2 < 1e-10 * n ? 2e-6 * sqrt(n) : 0;
    if (nan == 0 && sqrt(d2) <= cap * sqrt(w2) + floor) {
      passed++;
      if (verbose) printf("  ok %s %s\n", case_name.c_str(), text);
    } else {
      fail(text);
    }
  }
  /// Largest absolute distance.
  void within(const std::string& what, const std::vector<double>& got, const std::vector<double>& want, double cap) {
    note(got);
    if (repeating) return;
    double worst = 0;
    size_t nan = 0, at = 0;
    if (got.size() != want.size()) return fail(what + ": sizes differ");
    for (size_t i = 0; i < got.size(); i++) {
      double d = got[i] == want[i] ? 0 : fabs(got[i] - want[i]);
      if (std::isnan(d)) nan++, at = i;
      if (!nan && d > worst) worst = d, at = i;
    }
    char text[256];
    snprintf(text, sizeof text, "%s: error %.3g (cap %.3g), %zu NaN, worst at %zu: %.8g, want %.8g", what.c_str(),
             worst, cap, nan, at, got.empty() ? 0 : got[at], want.empty() ? 0 : want[at]);
    if (nan == 0 && worst <= cap) {
      passed++;
      if (verbose) printf("  ok %s %s\n", case_name.c_str(), text);
    } else {
      fail(text);
    }
  }
  template <class T>
  void same_bits(const std::string& what, const std::vector<T>& a, const std::vector<T>& b) {
    expect(a.size() == b.size() && memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0, what + ": bits differ");
  }
  void begin(const char* format, ...) __attribute__((format(printf, 2, 3)));
  bool verbose = false;
  /// Hash of every result so far: equal for runs that computed the same bits.
  uint64_t results = 14695981039346656037ull;
  void note(const std::vector<double>& got) {
    for (double v : got) {
      uint64_t bits;
      memcpy(&bits, &v, 8);
      results = (results ^ bits) * 1099511628211ull;
    }
  }
};

/// A family registers itself under its name.
struct Family {
  const char* name;
  void (*run)(Check&);
  Family* next;
  static Family*& first() {
    static Family* list = nullptr;
    return list;
  }
  Family(const char* n, void (*f)(Check&)) : name(n), run(f), next(first()) { first() = this; }
};
#define FAMILY(name)                                  \
  static void check_##name(Check& c);                 \
  static Family family_##name(#name, check_##name);   \
  static void check_##name(Check& c)
