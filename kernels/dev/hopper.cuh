// Hopper (sm_90a): mbarrier, TMA loads, wgmma, register reallocation.
#pragma once
#include "dev/base.cuh"

#ifdef MIDC_HOST

struct TensorMap {
  host::TensorMap map;
  u8 rest[128 - sizeof(host::TensorMap)];
};

inline void mbarrier_init(u64* b, int arrivals, host::Site s = MIDC_HERE) { host::mbarrier_init(b, arrivals, s); }
inline void fence_mbarrier_init() {}
inline void mbarrier_arrive(u64* b, host::Site s = MIDC_HERE) { host::mbarrier_arrive(b, 0, s); }
inline void mbarrier_expect(u64* b, u32 bytes, host::Site s = MIDC_HERE) { host::mbarrier_arrive(b, bytes, s); }
inline void mbarrier_wait(u64* b, int parity, host::Site s = MIDC_HERE) { host::mbarrier_wait(b, parity, s); }
/// The map is read when the load is issued: on the host a kernel's parameters die with its thread.
inline void tma_load(void* to, const TensorMap* m, u64* b, int x, int y, host::Site s = MIDC_HERE) {
  host::tma_load_2d(to, m->map, b, x, y, s);
}
inline void fence_async_proxy() {}
inline void prefetch_l2(const void* from, u32 bytes, host::Site s = MIDC_HERE) { host::prefetch(from, bytes, s); }
inline void bulk_load(void* to, const void* from, u64* b, u32 bytes, host::Site s = MIDC_HERE) { host::bulk_load(to, from, b, bytes, s); }
inline void bulk_store(void* to, const void* from, u32 bytes, host::Site s = MIDC_HERE) { host::bulk_store(to, from, bytes, false, s); }
inline void bulk_add(float* to, const void* from, u32 bytes, host::Site s = MIDC_HERE) { host::bulk_store(to, from, bytes, true, s); }
inline void bulk_commit() { host::bulk_commit(); }
template <int N>
inline void bulk_wait_read() {
  host::bulk_wait(N);
}
template <int N>
inline void bulk_wait() {
  host::bulk_wait(N);
}
inline void fence_async_global() {}
// Blocks run one after the other there: a turn that has not come never will.
inline bool turn_is(const u32* turn, u32 value, host::Site s = MIDC_HERE) {
  const u32 now = __atomic_load_n(turn, __ATOMIC_ACQUIRE);
  if (now != value) host::fail(s, "a turn that does not come: it is %u, not %u", now, value);
  return true;
}
inline void pass_turn(u32* turn, u32 value) { __atomic_store_n(turn, value, __ATOMIC_RELEASE); }
inline u32 take_number(u32* next) { return __atomic_fetch_add(next, 1u, __ATOMIC_RELAXED); }
inline void named_barrier(int id, int threads, host::Site s = MIDC_HERE) { host::barrier(id, threads, s); }
inline void named_barrier_arrive(int id, int threads, host::Site s = MIDC_HERE) { host::barrier_arrive(id, threads, s); }
template <int N>
inline void registers_up() {}
template <int N>
inline void registers_down() {}

// The model keeps 30 bits of the start address, so the leading offset moves up; see host/hopper.cpp.
inline u64 descriptor_k(const void* p) { return 1ull << 62 | 64ull << 32 | shared_address(p) >> 4; }
inline u64 descriptor_mn(const void* p, u32 leading_bytes) {
  return 1ull << 62 | (u64)(leading_bytes >> 4) << 46 | 64ull << 32 | shared_address(p) >> 4;
}
inline void wgmma_fence(host::Site s = MIDC_HERE) { host::wgmma_fence(s); }
inline void wgmma_commit(host::Site s = MIDC_HERE) { host::wgmma_commit(s); }
template <int N>
inline void wgmma_wait(host::Site s = MIDC_HERE) {
  host::wgmma_wait(N, s);
}

template <int N>
inline void wgmma_settle(float (&)[N]) {}
template <int N>
inline void wgmma_settle(u32 (&)[N][4]) {}

#define MIDC_WGMMA(N)                                                                                             \
  template <int TA = 0, int TB = 0>                                                                               \
  inline void wgmma_##N(float (&d)[N / 2], u64 a, u64 b, int accumulate, host::Site s = MIDC_HERE) {              \
    host::wgmma(d, {a, b, nullptr, N, accumulate != 0, TA != 0, TB != 0}, s);                                     \
  }                                                                                                               \
  template <int TB = 0>                                                                                           \
  inline void wgmma_##N(float (&d)[N / 2], const u32 (&a)[4], u64 b, int accumulate, host::Site s = MIDC_HERE) {  \
    host::wgmma(d, {0, b, a, N, accumulate != 0, false, TB != 0}, s);                                             \
  }
#define MIDC_WGMMA_FIRST(N)                                                                        \
  template <int TA = 0, int TB = 0>                                                                \
  inline void wgmma_first_##N(float (&d)[N / 2], u64 a, u64 b, host::Site s = MIDC_HERE) {         \
    wgmma_##N<TA, TB>(d, a, b, 0, s);                                                              \
  }                                                                                                \
  template <int TB = 0>                                                                            \
  inline void wgmma_first_##N(float (&d)[N / 2], const u32 (&a)[4], u64 b, host::Site s = MIDC_HERE) { \
    wgmma_##N<TB>(d, a, b, 0, s);                                                                  \
  }
MIDC_WGMMA(32)
MIDC_WGMMA(64)
MIDC_WGMMA_FIRST(32)
MIDC_WGMMA_FIRST(64)
MIDC_WGMMA(128)
MIDC_WGMMA(256)
#undef MIDC_WGMMA
#undef MIDC_WGMMA_FIRST

#else  // the device

/// CUtensorMap, passed by value as a `__grid_constant__` parameter.
struct __align__(64) TensorMap {
  u64 opaque[16];
};

__device__ __forceinline__ void mbarrier_init(u64* b, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void fence_mbarrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ __forceinline__ void mbarrier_arrive(u64* b) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
}
/// Arrives, and makes the phase wait for `bytes` more to be written.
__device__ __forceinline__ void mbarrier_expect(u64* b, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes) : "memory");
}
/// Waits until the phase of this parity is complete. Lanes may see it at different turns: the branches are not `.uni`.
__device__ __forceinline__ void mbarrier_wait(u64* b, int parity) {
  asm volatile(
      "{\n.reg .pred done;\nAGAIN%=:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra DONE%=;\nbra AGAIN%=;\nDONE%=:\n}" ::"r"(shared_address(b)),
      "r"(parity)
      : "memory");
}
/// Loads the box at column x, row y; zeros outside the tensor.
__device__ __forceinline__ void tma_load(void* to, const TensorMap* m, u64* b, int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
          shared_address(to)),
      "l"((u64)m), "r"(shared_address(b)), "r"(x), "r"(y)
      : "memory");
}
/// Brings `bytes` of global memory, both multiples of 16, into L2. Nobody waits for it.
__device__ __forceinline__ void prefetch_l2(const void* from, u32 bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(__cvta_generic_to_global(from)), "r"(bytes));
}
/// Copies `bytes` from global to shared memory. Addresses and `bytes` are multiples of 16.
__device__ __forceinline__ void bulk_load(void* to, const void* from, u64* b, u32 bytes) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(to)),
               "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(b))
               : "memory");
}
/// Copies `bytes` from shared to global memory, as part of the thread's open group. Alignment as above.
__device__ __forceinline__ void bulk_store(void* to, const void* from, u32 bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(__cvta_generic_to_global(to)), "r"(shared_address(from)),
               "r"(bytes)
               : "memory");
}
/// The same, added to the f32 values that are there.
__device__ __forceinline__ void bulk_add(float* to, const void* from, u32 bytes) {
  asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(__cvta_generic_to_global(to)),
               "r"(shared_address(from)), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/// Waits until all but the last N groups of the thread have read what they copy.
template <int N>
__device__ __forceinline__ void bulk_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
}
/// Waits until all but the last N groups of the thread are complete.
template <int N>
__device__ __forceinline__ void bulk_wait() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(N) : "memory");
}
/// Orders what the copy engine did and will do in global memory with the thread's own accesses.
__device__ __forceinline__ void fence_async_global() { asm volatile("fence.proxy.async.global;" ::: "memory"); }
/// Whether a counter in global memory, that other blocks set, has come to `value`; then what they did before is seen.
__device__ __forceinline__ bool turn_is(const u32* turn, u32 value) {
  u32 now;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(__cvta_generic_to_global(turn)) : "memory");
  return now == value;
}
__device__ __forceinline__ void pass_turn(u32* turn, u32 value) {
  fence_async_global();
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(turn)), "r"(value) : "memory");
}
/// Counts `next` up and returns what it was: blocks that wait for one another are numbered as they begin.
__device__ __forceinline__ u32 take_number(u32* next) { return atomicAdd(next, 1u); }
/// Makes ordinary writes to shared memory visible to TMA and wgmma.
__device__ __forceinline__ void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ __forceinline__ void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
template <int N>
__device__ __forceinline__ void registers_up() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N>
__device__ __forceinline__ void registers_down() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

// Shared-memory operands with the 128-byte swizzle (PTX ISA, "matrix descriptor"). Groups of eight rows are 1024
// bytes apart. In a k-major operand a step of 16 in k is 32 bytes; in an mn-major one it is 2048 bytes, and each 64
// elements of the other dimension are `leading_bytes` from the ones before.
__device__ __forceinline__ u64 descriptor_k(const void* p) {
  return 1ull << 62 | 64ull << 32 | 1ull << 16 | (shared_address(p) & 0x3ffffu) >> 4;
}
__device__ __forceinline__ u64 descriptor_mn(const void* p, u32 leading_bytes) {
  return 1ull << 62 | 64ull << 32 | (u64)(leading_bytes >> 4) << 16 | (shared_address(p) & 0x3ffffu) >> 4;
}
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/// After a wait: keeps the compiler from moving reads of the accumulators before it. Before a fence: keeps it from moving
/// writes of them behind it.
template <int N>
__device__ __forceinline__ void wgmma_settle(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}
/// The same for left operands in registers: after a wait, they were needed until here.
template <int N>
__device__ __forceinline__ void wgmma_settle(u32 (&a)[N][4]) {
#pragma unroll
  for (int i = 0; i < N * 4; i++) asm volatile("" : "+r"(a[i / 4][i % 4])::"memory");
}

#include "dev/wgmma_shapes.cuh"

#endif
