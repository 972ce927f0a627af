// The host model behind the interface of the checks.
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "device.h"

void Device::check_sizes(const char* kernel, std::vector<size_t> sizes) {
  int n = 0;
  const size_t* want = host::kernel_parameters(kernel, &n);
  if (!want) {
    fprintf(stderr, "no kernel named %s\n", kernel);
    exit(2);
  }
  bool same = n == (int)sizes.size();
  for (int i = 0; same && i < n; i++) same = sizes[i] == want[i];
  if (!same) {
    fprintf(stderr, "%s: the arguments given do not have the sizes of its %d parameters\n", kernel, n);
    exit(2);
  }
}

namespace {

class Model : public Device {
 public:
  std::string describe() override { return "host model"; }
  bool is_gpu() override { return false; }
  bool has_hopper() override { return true; }
  // Exactly as many bytes as asked for, so that AddressSanitizer sees the first one beyond.
  void* allocate(size_t bytes) override {
    void* p = nullptr;
    if (posix_memalign(&p, 256, bytes ? bytes : 1)) abort();
    return p;
  }
  void release(void* at) override { free(at); }
  void upload(void* to, const void* from, size_t bytes) override { memcpy(to, from, bytes); }
  void download(void* to, const void* from, size_t bytes) override { memcpy(to, from, bytes); }
  void launch(const LaunchSpec& s, void** arguments, int n) override {
    if (const char* wrong = host::launch(s.kernel, s.grid, s.block, s.shared, arguments, n)) {
      fprintf(stderr, "%s: %s\n", s.kernel, wrong);
      exit(2);
    }
  }
  MapBytes map_2d(const void* base, uint64_t width, uint64_t height, uint64_t pitch, uint32_t box_width,
                  uint32_t box_height) override {
    MapBytes out = {};
    host::TensorMap map = {base, width, height, pitch, box_width, box_height, 2, 128};
    memcpy(&out, &map, sizeof map);
    return out;
  }
  double time(const LaunchSpec& s, void** arguments, int n, int repeats) override {
    auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < repeats; i++) launch(s, arguments, n);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / repeats;
  }
};

}  // namespace

Device* open_model() {
  static Model model;
  return &model;
}
