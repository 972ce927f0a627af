// Fibers, blocks, barriers and the launch of a kernel.
#include "scheduler.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#include "launch.h"

namespace host {

Thread threads[MAX_THREADS];
Warp warps[MAX_WARPS];
Thread* current;
int thread_count, warp_count;
bool shuffled;

namespace {

constexpr size_t STACK = 192 << 10, PAGE = 4096;
constexpr size_t SHARED_MAX = 232448;  // what one block may have on an H100
constexpr u8 CANARY = 0xa7;
// Bytes behind a block's shared memory that are watched.
size_t beyond(size_t dynamic) { return SHARED_MAX - dynamic < 4096 ? SHARED_MAX - dynamic : 4096; }
constexpr size_t STATIC_MAX = 8192;     // as much as any kernel uses; a device has 48 KiB
constexpr int MAX_STATIC = 16;

Dim3 the_block, the_block_size, the_grid;
int live_count;
u64 rng = 1;
u64 seed;
void* host_context;
void* host_tsan;
u8* shared_base;
size_t shared_bytes;
char launch_order, block_end_order;
Entry running_entry;
void** running_arguments;
const char* running_name = "?";

struct Static {
  const void* key;
  u8* at;
  size_t bytes;
};
Static statics[MAX_STATIC];
int statics_len;
size_t static_used;

struct Barrier {
  int count, expected;
  u64 generation;
  Site site;
  char order[2];
};
Barrier barriers[MAX_BARRIERS];

struct Kernel {
  const char* name;
  Entry entry;
  int parameters;
  const size_t* sizes;
};
Kernel kernels[512];
int kernels_len;

const char* wait_name(Wait w) {
  switch (w) {
    case Wait::none: return "running or ready";
    case Wait::barrier: return "at a barrier";
    case Wait::warp: return "at a warp collective";
    case Wait::warpgroup: return "at a warpgroup collective";
    case Wait::mbarrier: return "at an mbarrier";
    case Wait::finished: return "finished";
  }
  return "?";
}

}  // namespace

const Dim3& thread_index() { return current->index; }
const Dim3& block_index() { return the_block; }
const Dim3& block_size() { return the_block_size; }
const Dim3& grid_size() { return the_grid; }

void fail(Site site, const char* what, ...) {
  va_list list;
  va_start(list, what);
  fprintf(stderr, "device model: %s:%d: ", site.file ? site.file : "?", site.line);
  vfprintf(stderr, what, list);
  va_end(list);
  fprintf(stderr, " (kernel %s, block %u,%u,%u", running_name, the_block.x, the_block.y, the_block.z);
  if (current) fprintf(stderr, ", thread %d", current->id);
  fprintf(stderr, ")\n");
  // Threads that stand in the same place are reported once.
  for (int i = 0; i < thread_count; i++) {
    int same = 0;
    bool seen = false;
    for (int j = 0; j < thread_count; j++) {
      const Thread &a = threads[i], &b = threads[j];
      if (a.wait != b.wait || a.site.line != b.site.line || a.site.file != b.site.file) continue;
      if (j < i) seen = true;
      same++;
    }
    if (!seen) {
      fprintf(stderr, "  thread %d (%d alike) %s, last seen at %s:%d\n", i, same, wait_name(threads[i].wait),
              threads[i].site.file ? threads[i].site.file : "?", threads[i].site.line);
    }
  }
  fflush(stderr);
  _Exit(3);
}

u32 random_u32() {
  rng ^= rng << 13;
  rng ^= rng >> 7;
  rng ^= rng << 17;
  return (u32)(rng >> 16);
}

void enter(const char* name, Entry entry, int parameters, const size_t* sizes) {
  if (kernels_len == 512) fail(MIDC_HERE, "too many kernels");
  kernels[kernels_len++] = {name, entry, parameters, sizes};
}

// ---- switching -------------------------------------------------------------------------------------------

#ifdef __x86_64__
extern "C" void midc_fiber_switch(void** save, void* load);
asm(R"(
.text
.globl midc_fiber_switch
.type midc_fiber_switch,@function
midc_fiber_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size midc_fiber_switch,.-midc_fiber_switch
)");
static void* new_context(u8* stack, void (*start)()) {
  void** sp = (void**)(stack + STACK - 64);
  *--sp = nullptr;
  *--sp = (void*)start;
  for (int r = 0; r < 6; r++) *--sp = nullptr;
  return sp;
}
static void jump(void** save, void* load) { midc_fiber_switch(save, load); }
#else
static ucontext_t contexts[MAX_THREADS + 1];
static void* new_context(u8* stack, void (*start)()) {
  ucontext_t* c = &contexts[(current ? current->id : 0) + 1];
  getcontext(c);
  c->uc_stack.ss_sp = stack;
  c->uc_stack.ss_size = STACK;
  c->uc_link = nullptr;
  makecontext(c, start, 0);
  return c;
}
static void jump(void** save, void* load) {
  if (save == &host_context) *save = &contexts[0];
  swapcontext((ucontext_t*)*save, (ucontext_t*)load);
}
#endif

static Thread* pick() {
  int first = shuffled ? random_u32() % warp_count : (current ? current->id >> 5 : 0);
  for (int i = 0; i < warp_count; i++) {
    int w = (first + i) % warp_count;
    u32 ready = warps[w].ready;
    if (!ready) continue;
    if (shuffled)
      for (int skip = random_u32() % __builtin_popcount(ready); skip > 0; skip--) ready &= ready - 1;
    return &threads[w * 32 + __builtin_ctz(ready)];
  }
  return nullptr;
}

static void run(Thread* next) {
  Thread* me = current;
  if (next == me) return;
  current = next;
  if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(next->tsan, 1);
  jump(&me->stack_pointer, next->stack_pointer);
}

void wake(Thread& t) {
  t.wait = Wait::none;
  warp_of(&t).ready |= 1u << lane_of(&t);
}

void park(Wait why, const void* what, Site site) {
  Thread* me = current;
  me->wait = why;
  me->wait_for = what;
  me->site = site;
  warp_of(me).ready &= ~(1u << lane_of(me));
  Thread* next;
  while (!(next = pick()))
    if (!engine_step()) fail(site, "deadlock: no thread can run");
  run(next);
}

void maybe_yield() {
  if (shuffled) run(pick());
}

static void fiber_main() {
  order_acquire(&launch_order);
  running_entry(running_arguments);
  Thread* me = current;
  if (me->copies_len > me->copies_head) fail(me->site, "a thread ended with cp.async copies it never waited for");
  order_release(&block_end_order);
  me->wait = Wait::finished;
  Warp& w = warp_of(me);
  w.ready &= ~(1u << lane_of(me));
  w.live &= ~(1u << lane_of(me));
  live_count--;
  Thread* next;
  while (!(next = pick()) && live_count > 0)
    if (!engine_step()) {
      Site site = me->site;
      for (int i = 0; i < thread_count; i++)
        if (threads[i].wait != Wait::finished) site = threads[i].site;
      fail(site, "deadlock: the threads that are left wait for threads that have ended");
    }
  if (next) {
    run(next);
    fail(me->site, "a finished thread was resumed");
  }
  current = nullptr;
  if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(host_tsan, 1);
  jump(&me->stack_pointer, host_context);
}

// ---- barriers --------------------------------------------------------------------------------------------

static Barrier& arrive(int id, int expected, Site site) {
  if (id < 0 || id >= MAX_BARRIERS) fail(site, "barrier %d does not exist", id);
  if (expected % 32) fail(site, "barrier of %d threads: not a multiple of 32", expected);
  Barrier& b = barriers[id];
  current->site = site;
  if (b.count == 0) {
    b.site = site;
    b.expected = expected;
  } else if (b.expected != expected) {
    fail(site, "barrier %d expects %d threads here and %d at %s:%d", id, expected, b.expected, b.site.file, b.site.line);
  } else if (id == 0 && (b.site.line != site.line || b.site.file != site.file)) {
    fail(site, "divergent barrier: other threads are at %s:%d", b.site.file, b.site.line);
  }
  order_release(&b.order[b.generation & 1]);
  b.count++;
  return b;
}

static bool complete(Barrier& b) {
  if (b.count < b.expected) return false;
  b.count = 0;
  b.generation++;
  for (int i = 0; i < thread_count; i++)
    if (threads[i].wait == Wait::barrier && threads[i].wait_for == &b) wake(threads[i]);
  return true;
}

void barrier(int id, int expected, Site site) {
  Barrier& b = arrive(id, expected, site);
  void* order = &b.order[b.generation & 1];
  if (complete(b))
    maybe_yield();
  else
    park(Wait::barrier, &b, site);
  order_acquire(order);
}

void barrier_arrive(int id, int expected, Site site) {
  complete(arrive(id, expected, site));
  maybe_yield();
}

// ---- shared memory ---------------------------------------------------------------------------------------

u8* dynamic_shared() { return shared_base; }

void* static_shared(const void* key, size_t bytes, Site site) {
  for (int i = 0; i < statics_len; i++)
    if (statics[i].key == key) return statics[i].at;
  size_t at = (static_used + 127) / 128 * 128;
  if (statics_len == MAX_STATIC || at + bytes > STATIC_MAX) fail(site, "too much static shared memory");
  static_used = at + bytes;
  u8* base = shared_base + SHARED_MAX + at;
  statics[statics_len++] = {key, base, bytes};
  return base;
}

// The arena of a block: dynamic bytes, then static ones. A new mapping for every block under ThreadSanitizer, so
// that no access of an earlier block is remembered; low addresses, because 32-bit shared addresses must hold.
static void fresh_shared(size_t dynamic) {
  const size_t total = SHARED_MAX + STATIC_MAX;
  bool tsan = __tsan_release != nullptr;
  if (shared_base && tsan) {
    munmap(shared_base, total);
    shared_base = nullptr;
  }
  if (!shared_base) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
#ifdef MAP_32BIT
    flags |= MAP_32BIT;
#endif
    void* p = mmap(nullptr, total, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (p == MAP_FAILED) fail(MIDC_HERE, "no memory for shared memory");
    shared_base = (u8*)p;
  }
  if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(shared_base, total);
  memset(shared_base, 0xff, dynamic);
  memset(shared_base + SHARED_MAX, 0xff, STATIC_MAX);
  if (dynamic < SHARED_MAX) memset(shared_base + dynamic, CANARY, beyond(dynamic));
  if (__asan_poison_memory_region) __asan_poison_memory_region(shared_base + dynamic, SHARED_MAX - dynamic);
  shared_bytes = dynamic;
  statics_len = 0;
  static_used = 0;
}

// ---- launch ----------------------------------------------------------------------------------------------

// `fresh`: threads that no earlier block is ordered before, so that ThreadSanitizer sees races between blocks.
// A device ends a kernel that writes beyond the shared memory it was launched with.
static void check_beyond_shared() {
  if (__asan_poison_memory_region) return;
  const u8* at = shared_base + shared_bytes;
  for (size_t i = 0; i < beyond(shared_bytes); i++)
    if (at[i] != CANARY) fail(MIDC_HERE, "byte %zu of %zu of shared memory is written", shared_bytes + i, shared_bytes);
}

static void run_block(bool fresh) {
  fresh_shared(shared_bytes);
  for (Barrier& b : barriers) b = Barrier{};
  live_count = thread_count;
  bool tsan = __tsan_create_fiber != nullptr;
  order_release(&launch_order);
  for (int w = 0; w < warp_count; w++) {
    int n = thread_count - w * 32;
    warps[w].ready = warps[w].live = n >= 32 ? ~0u : (1u << n) - 1;
    warps[w].arrived = 0;
  }
  for (int i = 0; i < thread_count; i++) {
    Thread& t = threads[i];
    if (tsan && fresh && t.stack) {
      // Nor may it remember what the thread that had this stack wrote there.
      munmap(t.stack - PAGE, STACK + PAGE);
      t.stack = nullptr;
    }
    if (!t.stack) {
      u8* p = (u8*)mmap(nullptr, STACK + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p == MAP_FAILED) fail(MIDC_HERE, "no memory for the stacks of threads");
      mprotect(p, PAGE, PROT_NONE);
      t.stack = p + PAGE;
    }
    if (tsan && (fresh || !t.tsan)) {
      if (t.tsan) __tsan_destroy_fiber(t.tsan);
      t.tsan = __tsan_create_fiber(0);
    }
    t.id = i;
    t.index = {i % the_block_size.x, i / the_block_size.x % the_block_size.y, i / (the_block_size.x * the_block_size.y)};
    t.wait = Wait::none;
    t.site = {nullptr, 0};
    t.copies_len = t.copies_head = t.groups_len = 0;
    current = &t;
    t.stack_pointer = new_context(t.stack, fiber_main);
  }
  hopper_reset(&launch_order);
  current = nullptr;
  Thread* next = pick();
  current = next;
  if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(next->tsan, 1);
  jump(&host_context, next->stack_pointer);
  hopper_reset(&launch_order);
  check_beyond_shared();
  for (const Barrier& b : barriers)
    if (b.count) fail(b.site, "a block ended with %d of %d threads at barrier %d", b.count, b.expected, (int)(&b - barriers));
}

const char* launch(const char* name, Dim3 grid, Dim3 block, size_t shared, void** arguments, int arguments_len) {
  const Kernel* kernel = nullptr;
  for (int i = 0; i < kernels_len; i++)
    if (!strcmp(kernels[i].name, name)) kernel = &kernels[i];
  if (!kernel) return "no such kernel";
  if (arguments_len >= 0 && arguments_len != kernel->parameters) return "wrong number of arguments";
  u64 n = (u64)block.x * block.y * block.z;
  if (n == 0 || n > MAX_THREADS) return "blocks of 1 to 1024 threads only";
  if ((u64)grid.x * grid.y * grid.z == 0 || grid.y > 65535 || grid.z > 65535) return "grid out of range";
  if (shared > SHARED_MAX) return "more shared memory than a block may have";
  running_entry = kernel->entry;
  running_arguments = arguments;
  running_name = name;
  the_grid = grid;
  the_block_size = block;
  thread_count = (int)n;
  warp_count = (thread_count + 31) / 32;
  shared_bytes = shared;
  shuffled = seed != 0;
  rng = shuffled ? 0x9e3779b97f4a7c15ull * seed : 1;
  if (__tsan_get_current_fiber) host_tsan = __tsan_get_current_fiber();
  u64 blocks = (u64)grid.x * grid.y * grid.z;
  // Blocks in order, or with a seed from a random one onwards with a stride: no kernel may depend on it.
  u64 start = shuffled ? random_u32() % blocks : 0;
  bool down = shuffled && (random_u32() & 1);
  for (u64 i = 0; i < blocks; i++) {
    u64 b = down ? (start + blocks - i) % blocks : (start + i) % blocks;
    the_block = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / grid.x / grid.y)};
    run_block(i < 8);
  }
  order_acquire(&block_end_order);
  if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(shared_base, SHARED_MAX + STATIC_MAX);
  return nullptr;
}

void set_seed(u64 value) { seed = value; }

int kernel_count() { return kernels_len; }
const char* kernel_name(int i) { return i < kernels_len ? kernels[i].name : nullptr; }
const size_t* kernel_parameters(const char* name, int* count) {
  for (int i = 0; i < kernels_len; i++)
    if (!strcmp(kernels[i].name, name)) {
      *count = kernels[i].parameters;
      return kernels[i].sizes;
    }
  return nullptr;
}

}  // namespace host
