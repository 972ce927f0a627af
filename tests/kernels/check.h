// What the kernel checks share: random inputs, buffers, comparison with an f64 reference.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
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

struct Check;
/// Told of every case before it runs; may leave it out.
struct Observer {
  virtual ~Observer() = default;
  /// Whether the case that `check` has just begun is to run.
  virtual bool begin(Check& check) = 0;
};

/// One check of a family: its cases call `expect…`; the driver counts.
struct Check {
  Device& device;
  uint64_t seed;
  bool small;  // sanitizer builds: only the smallest shapes
  Check(Device& d, uint64_t s, bool only_small) : device(d), seed(s), small(only_small) {}
  int passed = 0, failed = 0;
  std::string case_name;
  /// Only the results count: nothing is compared, and references need not be computed.
  bool repeating = false;
  Observer* observer = nullptr;
  /// On the host model, for what a GPU is held to.
  bool reference = false;
  /// The case in hand is left out: its launches do nothing, its results are not looked at.
  bool left_out = false;

  void fail(const std::string& why) {
    failed++;
    printf("FAIL %s (seed %llu): %s\n", case_name.c_str(), (unsigned long long)seed, why.c_str());
  }
  void expect(bool ok, const std::string& what) {
    if (left_out) return;
    if (ok || repeating)
      passed++;
    else
      fail(what);
  }
  /// Relative Frobenius distance at most `cap`; a NaN never passes. Where the reference is all but 0 (the gradient of q
  /// in a row of one token), nothing is relative to it: there 2e-6 per value is allowed instead.
  void close(const std::string& what, const std::vector<double>& got, const std::vector<double>& want, double cap) {
    note(got);
    if (repeating || left_out) return;
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
      explain(what, got, want, 4 * cap * sqrt(w2 / n) + floor / sqrt(n), cap);
    }
  }
  /// Largest absolute distance.
  void within(const std::string& what, const std::vector<double>& got, const std::vector<double>& want, double cap) {
    note(got);
    if (repeating || left_out) return;
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
      explain(what, got, want, cap, 0);
    }
  }
  template <class T>
  void same_bits(const std::string& what, const std::vector<T>& a, const std::vector<T>& b) {
    const bool same = a.size() == b.size() && memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
    expect(same, what + ": bits differ");
    if (!same && !repeating && !left_out) explain(what, std::vector<double>(a.begin(), a.end()), std::vector<double>(b.begin(), b.end()), 0, 0);
  }
  void begin(const char* format, ...) __attribute__((format(printf, 2, 3)));
  bool verbose = false;
  /// Every case so far and a hash of its results: equal for runs that computed the same bits.
  struct Outcome {
    std::string name;
    uint64_t hash;
  };
  std::vector<Outcome> outcomes;
  void note(const std::vector<double>& got) {
    if (outcomes.empty() || left_out) return;
    for (double v : got) {
      uint64_t bits;
      memcpy(&bits, &v, 8);
      outcomes.back().hash = (outcomes.back().hash ^ bits) * 1099511628211ull;
    }
  }

 private:
  int explained = 0;
  /// `repeating` as it was before a case was left out.
  bool kept = false;
  /// Rows of what a case computes, from its name, whose last `AxB…` is its shape; 1 when they do not divide `size`.
  size_t rows_of(size_t size) const {
    size_t rows = 1;
    for (size_t i = 0; i < case_name.size(); i++) {
      int a = 0, b = 0;
      // A number begins here, not in the middle of another or of a word.
      if (i && (isalnum((unsigned char)case_name[i - 1]) || case_name[i - 1] == '_')) continue;
      if (sscanf(case_name.c_str() + i, "%dx%d", &a, &b) != 2 || a < 1 || b < 1) continue;
      rows = case_name.compare(0, 9, "attention") == 0 ? (size_t)a * b : (size_t)a;
    }
    return rows && size % rows == 0 ? rows : 1;
  }
  /// Residues that occur among `at`, unless all do: "mod 8: 1 3; ".
  static std::string residues(const std::vector<size_t>& at, size_t extent) {
    std::string text;
    for (size_t m : {2, 8, 16, 64}) {
      if (extent <= m) break;
      std::vector<bool> seen(m);
      size_t count = 0;
      for (size_t i : at) count += !seen[i % m], seen[i % m] = true;
      if (count == m || count > 8) continue;
      text += " mod " + std::to_string(m) + ":";
      for (size_t i = 0; i < m; i++)
        if (seen[i]) text += " " + std::to_string(i);
      text += ";";
    }
    return text;
  }
  /// Where it is wrong and by how much, so that a layout, a lost tile and a race can be told apart when the machine is gone.
  void explain(const std::string& what, const std::vector<double>& got, const std::vector<double>& want, double absolute,
               double relative) {
    if (explained++ >= 6 || got.size() != want.size() || got.empty()) return;
    const size_t rows = rows_of(got.size()), columns = got.size() / rows;
    std::vector<size_t> at_row, at_column;
    std::vector<double> ratios;
    std::vector<bool> row_seen(rows), column_seen(columns);
    size_t wrong = 0, shown = 0, undefined = 0, zero = 0;
    printf("  %s: %zu rows of %zu\n", what.c_str(), rows, columns);
    for (size_t i = 0; i < got.size(); i++) {
      const double d = got[i] == want[i] ? 0 : fabs(got[i] - want[i]);
      if (d <= absolute + relative * fabs(want[i])) continue;
      const size_t r = i / columns, k = i % columns;
      wrong++, undefined += std::isnan(got[i]), zero += got[i] == 0;
      if (!row_seen[r]) at_row.push_back(r), row_seen[r] = true;
      if (!column_seen[k]) at_column.push_back(k), column_seen[k] = true;
      if (want[i] != 0 && std::isfinite(got[i])) ratios.push_back(got[i] / want[i]);
      if (shown++ < 8) printf("    [%zu][%zu] %.8g, want %.8g\n", r, k, got[i], want[i]);
    }
    if (wrong) {
      std::sort(at_row.begin(), at_row.end()), std::sort(at_column.begin(), at_column.end());
      std::sort(ratios.begin(), ratios.end());
      printf("    %zu of %zu wrong (%zu NaN, %zu zero); %zu rows, %zu to %zu;%s %zu columns, %zu to %zu;%s median got/want %.4g\n", wrong,
             got.size(), undefined, zero, at_row.size(), at_row.front(), at_row.back(), residues(at_row, rows).c_str(), at_column.size(),
             at_column.front(), at_column.back(), residues(at_column, columns).c_str(), ratios.empty() ? NAN : ratios[ratios.size() / 2]);
    }
    const char* folder = getenv("MIDC_DUMP");
    if (!folder || got.size() > 1 << 17) return;
    std::string name = case_name + " " + what + " " + std::to_string(seed);
    for (char& letter : name)
      if (!isalnum((unsigned char)letter)) letter = '-';
    if (FILE* file = fopen((std::string(folder) + "/" + name + ".f32").c_str(), "wb")) {
      // A line of text, then what was got and what was wanted, row by row in f32.
      fprintf(file, "%zu %zu %s: %s\n", rows, columns, case_name.c_str(), what.c_str());
      for (const std::vector<double>* values : {&got, &want}) {
        std::vector<float> narrow(values->begin(), values->end());
        fwrite(narrow.data(), 4, narrow.size(), file);
      }
      fclose(file);
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
