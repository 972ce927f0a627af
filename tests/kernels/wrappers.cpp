// The wrappers of dev/*.cuh one by one. A GPU is held to the host model, and what it did is recorded ($MIDC_RECORD), right
// or wrong, before the next wrapper runs; the host model is held to what was recorded ($MIDC_GOLDEN), so that neither can
// change alone.
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>

#include "check.h"

namespace {

typedef std::vector<uint32_t> Words;

// Words that are finite bf16 pairs, so that they are numbers for every wrapper.
Words input(uint64_t stream, size_t n) {
  Random r(stream);
  Words words(n);
  for (uint32_t& w : words) w = host::to_bf16((float)r.normal()) | (uint32_t)host::to_bf16((float)r.normal()) << 16;
  return words;
}

struct Golden {
  std::map<std::string, Words> recorded;
  std::map<std::string, Words> seen;

  static std::string path(const char* variable) {
    const char* p = getenv(variable);
    return p ? p : "";
  }
  Golden() {
    std::ifstream file(path("MIDC_GOLDEN"));
    std::string line;
    while (std::getline(file, line)) {
      std::istringstream parts(line);
      std::string name;
      parts >> name;
      Words& words = recorded[name];
      uint32_t w;
      while (parts >> std::hex >> w) words.push_back(w);
    }
  }
  // At once: the next wrapper may take the process with it.
  void record(const char* name, const Words& words) {
    if (path("MIDC_RECORD").empty()) return;
    std::ofstream file(path("MIDC_RECORD"), std::ios::app);
    file << name << std::hex;
    for (uint32_t w : words) file << ' ' << w;
    file << '\n';
  }
};
Golden& golden() {
  static Golden g;
  return g;
}

// `cap` 0: the same bits. Otherwise floats, no further from each other than `cap` of the largest.
void hold(Check& c, const char* name, const Words& got, double cap) {
  if (c.left_out) return;
  golden().seen[name] = got;
  // Every seed and repeat does the same.
  if (c.seed == 1 && !c.repeating && !c.reference) golden().record(name, got);
  std::vector<double> values;
  for (uint32_t w : got) values.push_back(cap > 0 ? host::as_float(w) : w);
  c.note(values);
  auto at = golden().recorded.find(name);
  if (at == golden().recorded.end()) return;
  if (cap == 0) return c.same_bits("what a GPU did", got, at->second);
  std::vector<double> want;
  double largest = 0;
  for (uint32_t w : at->second) {
    want.push_back(host::as_float(w));
    largest = fmax(largest, fabs(want.back()));
  }
  c.within("what a GPU did", values, want, cap * largest);
}

void plain(Check& c, const char* name, const Words& in, size_t outputs, double cap) {
  c.begin("%s", name);
  Buffer<uint32_t> from(c.device, in), to(c.device, outputs);
  c.device.run({name, {1, 1, 1}, {32, 1, 1}, 0}, from.ptr(), to.ptr());
  hold(c, name, to.get(), cap);
}

void mapped(Check& c, const char* name, int width, int height, size_t outputs, double cap) {
  c.begin("%s", name);
  Words in = input(9, (size_t)width * height / 2), fragment = input(10, 512);
  Buffer<uint32_t> tensor(c.device, in), from(c.device, fragment), to(c.device, outputs);
  MapBytes map = c.device.map_2d(tensor.ptr(), width, height, (uint64_t)width * 2, 64, 64);
  LaunchSpec spec = {name, {1, 1, 1}, {128, 1, 1}, 32768};
  if (std::string(name) == "wrapper_sm90_wgmma_registers")
    c.device.run(spec, map, from.ptr(), to.ptr());
  else
    c.device.run(spec, map, to.ptr());
  hold(c, name, to.get(), cap);
}

void copied(Check& c, const char* name) {
  c.begin("%s", name);
  Words in(512);
  Random r(11);
  for (uint32_t& w : in) w = host::as_bits((float)r.normal());
  Buffer<uint32_t> from(c.device, in), to(c.device, 512);
  c.device.run({name, {1, 1, 1}, {128, 1, 1}, 4096}, from.ptr(), to.ptr());
  hold(c, name, to.get(), 0);
}

void every_wrapper(Check& c) {
  // The same inputs for every seed: the schedule must not matter, and a recording is of these.
  plain(c, "wrapper_ldmatrix", input(1, 128), 128, 0);
  plain(c, "wrapper_ldmatrix_trans", input(2, 128), 128, 0);
  plain(c, "wrapper_mma", input(3, 192), 128, 1e-6);
  plain(c, "wrapper_copy_async", input(4, 128), 128, 0);
  Words rounding = input(5, 128);
  // Ties to even in both directions, infinities, values that round to infinity, a subnormal.
  const uint32_t special[] = {0x3f808000u, 0x3f818000u, 0x7f800000u, 0xff800000u, 0x7f7fffffu, 0x00012345u, 0x80000000u, 0x3f808001u};
  for (size_t i = 0; i < 8; i++) rounding[i] = special[i];
  plain(c, "wrapper_pack_bf16", rounding, 128, 0);
  Random r(6);
  Words exponents(32);
  for (uint32_t& w : exponents) w = (uint32_t)r.next();
  plain(c, "wrapper_functions", exponents, 128, 1e-6);
  if (!c.device.has_hopper()) return;
  mapped(c, "wrapper_sm90_tma", 64, 80, 2048, 0);
  mapped(c, "wrapper_sm90_wgmma_k", 64, 128, 4096, 1e-6);
  mapped(c, "wrapper_sm90_wgmma_mn", 192, 64, 8192, 1e-6);
  mapped(c, "wrapper_sm90_wgmma_registers", 128, 64, 8192, 1e-6);
  mapped(c, "wrapper_sm90_wgmma_ldmatrix", 64, 128, 4096, 1e-6);
  mapped(c, "wrapper_sm90_wgmma_half", 128, 64, 2048, 1e-6);
  copied(c, "wrapper_sm90_bulk");
}

}  // namespace

FAMILY(wrappers) {
  if (c.device.is_gpu() && golden().recorded.empty()) {
    Check model(*open_model(), c.seed, c.small);
    model.reference = true;
    every_wrapper(model);
    golden().recorded = golden().seen;
  }
  every_wrapper(c);
}
