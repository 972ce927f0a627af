// A device the kernel checks run on: the host model, or a GPU through its driver.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "launch.h"

/// The parameters of one launch, checked against the kernel's own where they are known.
struct LaunchSpec {
  const char* kernel;
  host::Dim3 grid, block;
  size_t shared;
};

/// A tensor map in the 128 bytes a kernel takes it by.
struct alignas(64) MapBytes {
  unsigned char bytes[128];
};

class Device {
 public:
  virtual ~Device() = default;
  virtual std::string describe() = 0;
  virtual bool is_gpu() = 0;
  /// Whether kernels that need sm_90a can run.
  virtual bool has_hopper() = 0;
  virtual int multiprocessors() { return 2; }
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* at) = 0;
  virtual void upload(void* to, const void* from, size_t bytes) = 0;
  virtual void download(void* to, const void* from, size_t bytes) = 0;
  virtual void launch(const LaunchSpec& spec, void** arguments, int arguments_len) = 0;
  /// Row-major bf16 `[height, width]` read in boxes with the 128-byte swizzle.
  virtual MapBytes map_2d(const void* base, uint64_t width, uint64_t height, uint64_t pitch_bytes, uint32_t box_width,
                          uint32_t box_height) = 0;
  /// Seconds that `repeats` of the launch take on the device, per launch, after one that is not counted. With 0 repeats
  /// there is that one alone.
  virtual double time(const LaunchSpec& spec, void** arguments, int arguments_len, int repeats) = 0;

  template <class... A>
  void run(const LaunchSpec& spec, const A&... arguments) {
    void* p[] = {(void*)&arguments..., nullptr};
    check_sizes(spec.kernel, {sizeof(A)...});
    launch(spec, p, (int)sizeof...(A));
  }
  template <class... A>
  double timed(int repeats, const LaunchSpec& spec, const A&... arguments) {
    void* p[] = {(void*)&arguments..., nullptr};
    check_sizes(spec.kernel, {sizeof(A)...});
    return time(spec, p, (int)sizeof...(A), repeats);
  }

 private:
  static void check_sizes(const char* kernel, std::vector<size_t> sizes);
};

Device* open_model();
/// The first GPU, with kernels from `DIR/*.cubin`; exits with an explanation when there is none.
Device* open_gpu(const char* cubin_dir);
