// The host model of a CUDA device: what a kernel compiled as C++ sees of it.
//
// One fiber per CUDA thread, one block at a time. A kernel never includes this file itself; dev/base.cuh does
// when MIDC_HOST is defined, and the wrappers in dev/*.cuh call what is declared here.
//
// The model is stricter than a device where strictness finds bugs: shared memory starts as NaN, asynchronous
// work happens as late as it may while its destination is poisoned as early as it may be overwritten, and
// every collective must be reached by all its threads from one place in the source.
//
// Nothing here is instrumented by sanitizers (the .cpp files are compiled without them); memory that belongs to
// the kernel is touched either by code inlined into the kernel or under an explicit annotation.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef unsigned long long u64;

namespace host {

/// Where in the source a thread asked for something.
struct Site {
  const char* file;
  int line;
  /// As a default argument: the place of the call.
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};
#define MIDC_HERE ::host::Site::here()

struct Dim3 {
  unsigned x, y, z;
};

const Dim3& thread_index();
const Dim3& block_index();
const Dim3& block_size();
const Dim3& grid_size();

/// Prints what went wrong, where every thread stands, and ends the process with status 3.
[[noreturn]] void fail(Site site, const char* what, ...) __attribute__((format(printf, 2, 3)));

// Shared memory.
u8* dynamic_shared();
void* static_shared(const void* key, size_t bytes, Site site);

// Barriers. `arrive` counts without waiting.
void barrier(int id, int threads, Site site);
void barrier_arrive(int id, int threads, Site site);
void sync_warp(u32 mask, Site site);

// Warp collectives.
u32 shuffle(u32 value, int lane, u32 mask, Site site);
void ldmatrix(u32 (&out)[4], const u32 (&row)[4], bool transposed, Site site);
void mma_16x8x16(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, Site site);

// cp.async: issued copies wait in a queue of their thread; the copy itself is made by inlined code.
struct Copy {
  uintptr_t to, from;
  int bytes;
};
void copy_issue(const Copy& copy, Site site);
void copy_commit();
bool copy_next(int groups_left, Copy& copy);

// mbarrier.
void mbarrier_init(u64* at, int arrivals, Site site);
void mbarrier_arrive(u64* at, u32 expected_bytes, Site site);
void mbarrier_wait(u64* at, int parity, Site site);

/// The model's counterpart of CUtensorMap: a 2-D tensor and the box one load moves.
struct TensorMap {
  const void* base;
  u64 width, height, pitch_bytes;
  u32 box_width, box_height, element_bytes, swizzle_bytes;
};
void tma_load_2d(void* to, const TensorMap& map, u64* barrier, int x, int y, Site site);

void bulk_load(void* to, const void* from, u64* barrier, u32 bytes, Site site);
// A thread's copies from shared to global memory: made when they are waited for. `add`: f32 values are added up.
void bulk_store(void* to, const void* from, u32 bytes, bool add, Site site);
void bulk_commit();
void bulk_wait(int groups_left);

void prefetch(const void* from, u32 bytes, Site site);

// wgmma: the accumulators of a thread are `columns / 2` floats.
struct WarpgroupMma {
  u64 a, b;              // shared-memory descriptors
  const u32* a_fragment; // when A comes from registers
  int columns;
  bool accumulate, a_transposed, b_transposed;
};
void wgmma(float* accumulator, const WarpgroupMma& op, Site site);
void wgmma_fence(Site site);
void wgmma_commit(Site site);
void wgmma_wait(int groups_left, Site site);

inline float as_float(u32 bits) {
  float f;
  memcpy(&f, &bits, 4);
  return f;
}
inline u32 as_bits(float f) {
  u32 bits;
  memcpy(&bits, &f, 4);
  return bits;
}
inline u16 to_bf16(float f) {
  u32 u = as_bits(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return (u16)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
inline float from_bf16(u16 h) { return as_float((u32)h << 16); }

// Called by the code generated for each .cu file: the kernels by name, with the sizes of their parameters.
typedef void (*Entry)(void** arguments);
void enter(const char* name, Entry entry, int parameters, const size_t* sizes);

template <class... A>
struct Signature {
  static constexpr size_t sizes[sizeof...(A) + 1] = {sizeof(A)..., 0};
};
template <auto kernel>
struct Registered;
template <class... A, void (*kernel)(A...)>
struct Registered<kernel> {
  template <size_t... I>
  static void call(void** p, std::integer_sequence<size_t, I...>) {
    kernel(*(A*)p[I]...);
  }
  static void entry(void** p) { call(p, std::make_integer_sequence<size_t, sizeof...(A)>()); }
  explicit Registered(const char* name) { enter(name, entry, sizeof...(A), Signature<A...>::sizes); }
};

}  // namespace host
