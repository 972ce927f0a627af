// cp.async (Ampere and later): 16-byte copies from global to shared memory.
#pragma once
#include "dev/base.cuh"

#ifdef MIDC_HOST

/// Copies the first `bytes` (0 to 16) of 16 and writes zeros for the rest.
inline void copy_async_16(void* to, const void* from, int bytes, host::Site s = MIDC_HERE) {
  if ((uintptr_t)to & 15) host::fail(s, "cp.async: the destination is not 16-byte aligned");
  if (bytes > 0 && ((uintptr_t)from & 15)) host::fail(s, "cp.async: the source is not 16-byte aligned");
  if (bytes < 0 || bytes > 16) host::fail(s, "cp.async of %d bytes", bytes);
  // The destination may change from now on; this thread may read it after its wait.
  for (int i = 0; i < 4; i++) ((u32*)to)[i] = 0xffffffffu;
  host::copy_issue({(uintptr_t)to, (uintptr_t)from, bytes}, s);
}
inline void copy_async_commit() { host::copy_commit(); }
/// Waits until at most N groups of this thread are in flight.
template <int N>
inline void copy_async_wait() {
  host::Copy c;
  while (host::copy_next(N, c)) {
    u16* to = (u16*)c.to;
    const u16* from = (const u16*)c.from;
    for (int i = 0; i < 8; i++) to[i] = i * 2 < c.bytes ? from[i] : (u16)0;
  }
}

#else

__device__ __forceinline__ void copy_async_16(void* to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

#endif
