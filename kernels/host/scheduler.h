// State of the block that is running, shared by the files of the model and by nobody else.
#pragma once
#include "model.h"

// Present when the program is linked with ThreadSanitizer or AddressSanitizer.
extern "C" {
void* __tsan_get_current_fiber(void) __attribute__((weak));
void* __tsan_create_fiber(unsigned) __attribute__((weak));
void __tsan_destroy_fiber(void*) __attribute__((weak));
void __tsan_switch_to_fiber(void*, unsigned) __attribute__((weak));
void __tsan_acquire(void*) __attribute__((weak));
void __tsan_release(void*) __attribute__((weak));
void __tsan_read_range(void*, unsigned long) __attribute__((weak));
void __tsan_write_range(void*, unsigned long) __attribute__((weak));
void __asan_poison_memory_region(void const volatile*, size_t) __attribute__((weak));
void __asan_unpoison_memory_region(void const volatile*, size_t) __attribute__((weak));
void* __asan_region_is_poisoned(void*, size_t) __attribute__((weak));
}

namespace host {

constexpr int MAX_THREADS = 1024, MAX_WARPS = 32, MAX_GROUPS = 8, MAX_BARRIERS = 16;

enum class Wait : u8 { none, barrier, warp, warpgroup, mbarrier, finished };

constexpr int MAX_COPIES = 1024, MAX_COPY_GROUPS = 64;

struct Thread {
  void* stack_pointer;
  u8* stack;
  void* tsan;
  Dim3 index;
  int id;
  Wait wait;
  const void* wait_for;
  Site site;
  Copy copies[MAX_COPIES];
  int copies_len, copies_head;
  int groups[MAX_COPY_GROUPS], groups_len;
};

struct Warp {
  u32 ready, live, arrived, mask;
  const void* kind;
  Site site;
  u64 generation;
  u32 in[32][8];
  u32 out[32][4];
  float* c[32];
  char order[2];
};

extern Thread threads[MAX_THREADS];
extern Warp warps[MAX_WARPS];
extern Thread* current;
extern int thread_count, warp_count;
extern bool shuffled;  // a seed was given: random schedule

inline Warp& warp_of(const Thread* t) { return warps[t->id >> 5]; }
inline int lane_of(const Thread* t) { return t->id & 31; }

u32 random_u32();
/// Parks the running thread until somebody wakes it; runs others and, failing that, the copy engine.
void park(Wait why, const void* what, Site site);
void wake(Thread& t);
/// Under a random schedule, lets another thread run first.
void maybe_yield();

// Happens-before edges, nothing without ThreadSanitizer.
inline void order_release(void* at) {
  if (__tsan_release) __tsan_release(at);
}
inline void order_acquire(void* at) {
  if (__tsan_acquire) __tsan_acquire(at);
}
inline void note_read(const void* at, size_t n) {
  if (__tsan_read_range) __tsan_read_range((void*)at, n);
}
inline void note_write(const void* at, size_t n) {
  if (__tsan_write_range) __tsan_write_range((void*)at, n);
}

/// A collective of the running warp: `work` runs once, in the last lane that arrives.
template <class F>
void warp_collective(const void* kind, u32 mask, Site site, F work) {
  Warp& w = warp_of(current);
  if ((mask & w.live) != mask) fail(site, "a warp collective names lanes that have exited");
  if (!(mask >> lane_of(current) & 1)) fail(site, "a lane calls a warp collective whose mask leaves it out");
  if (w.arrived == 0) {
    w.kind = kind;
    w.mask = mask;
    w.site = site;
  } else if (w.kind != kind || w.mask != mask || w.site.line != site.line || w.site.file != site.file) {
    fail(site, "divergent warp collective: other lanes of the warp are at %s:%d", w.site.file, w.site.line);
  }
  w.arrived |= 1u << lane_of(current);
  if (w.arrived != mask) {
    park(Wait::warp, &w, site);
    return;
  }
  w.arrived = 0;
  work(w);
  int base = current->id & ~31;
  for (int l = 0; l < 32; l++)
    if ((mask >> l & 1) && threads[base + l].wait == Wait::warp) wake(threads[base + l]);
  maybe_yield();
}

// Implemented in hopper.cpp.
void hopper_reset(void* launch_order);
/// Lets the copy engine finish one load; false when it has none.
bool engine_step();

}  // namespace host
