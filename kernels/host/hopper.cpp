// mbarrier, TMA and wgmma.
//
// Loads belong to a copy engine that runs when no thread can (or, under a random schedule, at any wait); the
// destination is poisoned when a load is issued. A wgmma executes when its group is waited for; until then its
// accumulators read as NaN. Both are the extremes of what a device may do.
#include "scheduler.h"

namespace host {

static const char KIND_WGMMA = 0, KIND_FENCE = 0, KIND_COMMIT = 0, KIND_WAIT = 0;

namespace {

constexpr int MAX_MBARRIERS = 128, MAX_LOADS = 512, MAX_OPS = 128, MAX_OP_GROUPS = 32, MAX_ACCUMULATORS = 4;

struct MBarrier {
  const u64* at;
  int phase, pending, arrivals;
  long bytes;
  char order[2];
};
MBarrier mbarriers[MAX_MBARRIERS];
int mbarriers_len;

struct Load {
  u8* to;
  TensorMap map;
  u64* barrier;
  int x, y;
  Site site;
};
// A copy to global memory and the group it belongs to, counted over the block.
struct Store {
  u8* to;
  const u8* from;
  u32 bytes;
  bool add;
  int thread, group;
  Site site;
};
constexpr int MAX_STORES = 64;
Store stores[MAX_STORES];
int stores_len;
// Groups that each thread has committed.
int committed[1024];

Load loads[MAX_LOADS];
int loads_len;
void* engine;          // the engine's ThreadSanitizer fiber
void* launch_order_at; // what the engine's reads of global memory come after

struct Accumulator {
  float* at[128];
  int columns, pending;
  float value[64][256];
};
struct Op {
  WarpgroupMma op;
  u32 fragment[128][4];
  int accumulator;
  Site site;
};
struct Warpgroup {
  int arrived;
  const void* kind;
  Site site;
  float* accumulator[128];
  const u32* fragment[128];
  Op ops[MAX_OPS];
  int ops_head, ops_len;
  int groups[MAX_OP_GROUPS], groups_len;
  Accumulator accumulators[MAX_ACCUMULATORS];
  bool fenced;
  u64 generation;
  char order[2];
};
Warpgroup warpgroups[MAX_GROUPS];

MBarrier& find(const u64* at, Site site) {
  for (int i = 0; i < mbarriers_len; i++)
    if (mbarriers[i].at == at) return mbarriers[i];
  fail(site, "an mbarrier is used before it is initialised");
}

void settle(MBarrier& b, Site site) {
  if (b.pending < 0) fail(site, "too many arrivals at an mbarrier of %d", b.arrivals);
  if (b.pending > 0 || b.bytes != 0) return;
  b.phase ^= 1;
  b.pending = b.arrivals;
  for (int i = 0; i < thread_count; i++)
    if (threads[i].wait == Wait::mbarrier && threads[i].wait_for == &b) wake(threads[i]);
}

u16 element(const TensorMap& m, long x, long y) {
  if (x < 0 || y < 0 || x >= (long)m.width || y >= (long)m.height) return 0;
  const u8* p = (const u8*)m.base + (u64)y * m.pitch_bytes + (u64)x * 2;
  return *(const u16*)p;
}

uintptr_t swizzle128(uintptr_t a) { return a ^ (a >> 7 & 7) << 4; }

void finish_load(int at) {
  Load load = loads[at];
  for (int i = at + 1; i < loads_len; i++) loads[i - 1] = loads[i];
  loads_len--;
  void* me = nullptr;
  if (__tsan_get_current_fiber) {
    me = __tsan_get_current_fiber();
    if (!engine) engine = __tsan_create_fiber(0);
    __tsan_switch_to_fiber(engine, 1);
  }
  const TensorMap& m = load.map;
  MBarrier& b = find(load.barrier, load.site);
  order_acquire(launch_order_at);
  order_acquire(&b.order[b.phase]);
  u32 row_bytes = m.box_width * m.element_bytes;
  note_write(load.to, (size_t)row_bytes * m.box_height);
  for (u32 r = 0; r < m.box_height; r++) {
    long y = (long)load.y + r;
    if (y >= 0 && y < (long)m.height && load.x >= 0 && load.x < (long)m.width) {
      long columns = (long)m.width - load.x;
      if (columns > (long)m.box_width) columns = m.box_width;
      note_read((const u8*)m.base + (u64)y * m.pitch_bytes + (u64)load.x * 2, (size_t)columns * 2);
    }
    for (u32 c = 0; c < m.box_width; c++) {
      uintptr_t a = (uintptr_t)load.to + r * row_bytes + c * 2;
      *(u16*)(m.swizzle_bytes == 128 ? swizzle128(a) : a) = element(m, (long)load.x + c, y);
    }
  }
  order_release(&b.order[b.phase]);
  if (me) __tsan_switch_to_fiber(me, 1);
  b.bytes -= (long)row_bytes * m.box_height;
  settle(b, load.site);
}

}  // namespace

bool engine_step() {
  if (loads_len == 0) return false;
  finish_load(shuffled ? (int)(random_u32() % loads_len) : loads_len - 1);
  return true;
}

void hopper_reset(void* launch_order) {
  launch_order_at = launch_order;
  if (loads_len) fail(loads[0].site, "a block ended with TMA loads in flight");
  if (stores_len) fail(stores[0].site, "a block ended with copies to global memory in flight");
  memset(committed, 0, sizeof committed);
  mbarriers_len = 0;
  for (Warpgroup& g : warpgroups) {
    if (g.ops_len != g.ops_head) fail(g.site, "a block ended with wgmma operations in flight");
    g.arrived = g.ops_head = g.ops_len = g.groups_len = 0;
    g.fenced = false;
    for (Accumulator& a : g.accumulators) a.pending = 0;
  }
}

void mbarrier_init(u64* at, int arrivals, Site site) {
  // PTX ISA, "mbarrier.init": undefined where a valid mbarrier is.
  for (int i = 0; i < mbarriers_len; i++)
    if (mbarriers[i].at == at) fail(site, "an mbarrier is initialised twice");
  if (mbarriers_len == MAX_MBARRIERS) fail(site, "more than %d mbarriers", MAX_MBARRIERS);
  MBarrier* b = &mbarriers[mbarriers_len++];
  if ((uintptr_t)at & 7) fail(site, "an mbarrier is not 8-byte aligned");
  b->at = at;
  b->phase = 0;
  b->bytes = 0;
  b->pending = b->arrivals = arrivals;
}

void mbarrier_arrive(u64* at, u32 expected_bytes, Site site) {
  MBarrier& b = find(at, site);
  order_release(&b.order[b.phase]);
  b.bytes += expected_bytes;
  if (b.bytes > (1 << 20) - 1) fail(site, "an mbarrier expects %ld bytes, more than it can count", b.bytes);
  b.pending--;
  settle(b, site);
  maybe_yield();
}

void mbarrier_wait(u64* at, int parity, Site site) {
  MBarrier& b = find(at, site);
  if (shuffled && loads_len && (random_u32() & 1)) engine_step();
  while (b.phase == parity) park(Wait::mbarrier, &b, site);
  order_acquire(&b.order[parity]);
}

void tma_load_2d(void* to, const TensorMap& map, u64* barrier, int x, int y, Site site) {
  if ((uintptr_t)to & (map.swizzle_bytes == 128 ? 1023 : 127))
    fail(site, "the destination of a TMA load is not aligned for its swizzle");
  if (((uintptr_t)map.base & 15) || (map.pitch_bytes & 15)) fail(site, "a tensor map is not 16-byte aligned");
  // What cuTensorMapEncodeTiled refuses.
  if (map.box_width == 0 || map.box_width > 256 || map.box_height == 0 || map.box_height > 256 || map.width == 0 || map.height == 0 ||
      map.box_width * map.element_bytes % 16 || (map.swizzle_bytes && map.box_width * map.element_bytes > map.swizzle_bytes))
    fail(site, "a tensor map with a box of %u by %u", map.box_width, map.box_height);
  if (loads_len == MAX_LOADS) fail(site, "more than %d TMA loads in flight", MAX_LOADS);
  u32 bytes = map.box_width * map.box_height * map.element_bytes;
  for (u32 i = 0; i < bytes; i += 4) *(u32*)((u8*)to + i) = 0xffffffffu;
  loads[loads_len++] = {(u8*)to, map, barrier, x, y, site};
}

void bulk_load(void* to, const void* from, u64* barrier, u32 bytes, Site site) {
  if (((uintptr_t)to & 15) || ((uintptr_t)from & 15) || (bytes & 15)) fail(site, "a bulk load of %u bytes is not 16-byte aligned", bytes);
  // Rows of tensors, as long as a box can be.
  for (u32 at = 0; at < bytes; at += 512) {
    const u32 n = bytes - at < 512 ? bytes - at : 512;
    tma_load_2d((u8*)to + at, TensorMap{(const u8*)from + at, n / 2, 1, n, n / 2, 1, 2, 0}, barrier, 0, 0, site);
  }
}

void bulk_store(void* to, const void* from, u32 bytes, bool add, Site site) {
  if (((uintptr_t)to & 15) || ((uintptr_t)from & 15) || (bytes & 15)) fail(site, "a bulk copy of %u bytes is not 16-byte aligned", bytes);
  if (stores_len == MAX_STORES) fail(site, "more than %d copies to global memory in flight", MAX_STORES);
  stores[stores_len++] = {(u8*)to, (const u8*)from, bytes, add, current->id, committed[current->id], site};
}

void bulk_commit() { committed[current->id]++; }

void bulk_wait(int groups_left) {
  const int me = current->id;
  for (int i = 0; i < stores_len;) {
    const Store s = stores[i];
    if (s.thread != me || s.group >= committed[me] - groups_left) {
      i++;
      continue;
    }
    note_read(s.from, s.bytes);
    if (s.add) note_read(s.to, s.bytes);
    note_write(s.to, s.bytes);
    if (s.add)
      for (u32 b = 0; b < s.bytes; b += 4) *(float*)(s.to + b) += *(const float*)(s.from + b);
    else
      memcpy(s.to, s.from, s.bytes);
    for (int j = i + 1; j < stores_len; j++) stores[j - 1] = stores[j];
    stores_len--;
  }
  maybe_yield();
}

// Brings nothing anywhere, but the memory must be there.
void prefetch(const void* from, u32 bytes, Site site) {
  if (((uintptr_t)from & 15) || (bytes & 15)) fail(site, "a prefetch of %u bytes is not 16-byte aligned", bytes);
  if (__asan_region_is_poisoned && __asan_region_is_poisoned((void*)from, bytes)) fail(site, "a prefetch of memory that is not there");
}

// ---- wgmma -----------------------------------------------------------------------------------------------

template <class F>
static void group_collective(const void* kind, Site site, F work) {
  Warpgroup& g = warpgroups[current->id >> 7];
  if ((current->id | 127) >= thread_count) fail(site, "a warpgroup operation in an incomplete warpgroup");
  if (g.arrived == 0) {
    g.kind = kind;
    g.site = site;
  } else if (g.kind != kind || g.site.line != site.line || g.site.file != site.file) {
    fail(site, "divergent warpgroup operation: other threads are at %s:%d", g.site.file, g.site.line);
  }
  if (++g.arrived < 128) {
    park(Wait::warpgroup, &g, site);
    return;
  }
  g.arrived = 0;
  work(g);
  int base = current->id & ~127;
  for (int i = base; i < base + 128; i++)
    if (threads[i].wait == Wait::warpgroup) wake(threads[i]);
  maybe_yield();
}

// PTX ISA, "wgmma: shared memory matrix layout" and "matrix descriptor": 128-byte swizzle, both majors.
static uintptr_t operand(u64 descriptor, bool transposed, int mn, int k) {
  uintptr_t a = (uintptr_t)(descriptor & 0x3fffffff) << 4;
  uintptr_t stride = (uintptr_t)(descriptor >> 32 & 0x3fff) << 4;
  if (transposed) {
    // 64 elements along M or N are contiguous; 8 such rows of k make an atom.
    uintptr_t leading = (uintptr_t)(descriptor >> 46 & 0xffff) << 4;
    a += (mn % 64) * 2 + mn / 64 * leading + k % 8 * 128 + k / 8 * stride;
  } else {
    a += mn % 8 * 128 + mn / 8 * stride + k * 2;
  }
  return swizzle128(a);
}

static void execute(Warpgroup& g, const Op& o) {
  static float a[64][16], b[16][256];
  int n = o.op.columns;
  auto fetch = [](u64 d, bool t, int mn, int k) {
    uintptr_t at = operand(d, t, mn, k);
    return from_bf16(*(const u16*)at);
  };
  // One annotation per 16 bytes.
  auto touch = [](u64 d, bool t, int rows) {
    if (!__tsan_read_range) return;
    if (t) {
      for (int k = 0; k < 16; k++)
        for (int mn = 0; mn < rows; mn += 8) note_read((void*)operand(d, t, mn, k), 16);
    } else {
      for (int mn = 0; mn < rows; mn++)
        for (int k = 0; k < 16; k += 8) note_read((void*)operand(d, t, mn, k), 16);
    }
  };
  touch(o.op.b, o.op.b_transposed, n);
  for (int k = 0; k < 16; k++)
    for (int j = 0; j < n; j++) b[k][j] = fetch(o.op.b, o.op.b_transposed, j, k);
  if (o.op.a_fragment) {
    for (int t = 0; t < 128; t++) {
      int row = (t >> 5) * 16 + (t & 31) / 4, col = (t & 3) * 2;
      for (int r = 0; r < 4; r++) {
        u32 v = o.fragment[t][r];
        a[row + (r & 1) * 8][col + (r >> 1) * 8] = as_float(v << 16);
        a[row + (r & 1) * 8][col + (r >> 1) * 8 + 1] = as_float(v & 0xffff0000u);
      }
    }
  } else {
    touch(o.op.a, o.op.a_transposed, 64);
    for (int i = 0; i < 64; i++)
      for (int k = 0; k < 16; k++) a[i][k] = fetch(o.op.a, o.op.a_transposed, i, k);
  }
  Accumulator& acc = g.accumulators[o.accumulator];
  for (int i = 0; i < 64; i++) {
    float* row = acc.value[i];
    if (!o.op.accumulate)
      for (int j = 0; j < n; j++) row[j] = 0;
    for (int k = 0; k < 16; k++)
      for (int j = 0; j < n; j++) row[j] += a[i][k] * b[k][j];
  }
  if (--acc.pending > 0) return;
  for (int i = 0; i < 64; i++)
    for (int j = 0; j < n; j++) {
      int thread = (i >> 4) * 32 + (i & 7) * 4 + (j & 7) / 2;
      acc.at[thread][(j >> 3) * 4 + (i >> 3 & 1) * 2 + (j & 1)] = acc.value[i][j];
    }
}

void wgmma(float* accumulator, const WarpgroupMma& op, Site site) {
  Warpgroup& mine = warpgroups[current->id >> 7];
  mine.accumulator[current->id & 127] = accumulator;
  mine.fragment[current->id & 127] = op.a_fragment;
  group_collective(&KIND_WGMMA, site, [&op, site](Warpgroup& g) {
    if (!g.fenced) fail(site, "wgmma without wgmma.fence before it");
    if (g.ops_len == MAX_OPS) fail(site, "more than %d wgmma operations in flight", MAX_OPS);
    int slot = -1;
    for (int i = 0; i < MAX_ACCUMULATORS; i++)
      if (g.accumulators[i].pending && g.accumulators[i].at[127] == g.accumulator[127]) slot = i;
    if (slot < 0) {
      for (int i = 0; i < MAX_ACCUMULATORS && slot < 0; i++)
        if (!g.accumulators[i].pending) slot = i;
      if (slot < 0) fail(site, "more than %d accumulators in flight", MAX_ACCUMULATORS);
      Accumulator& a = g.accumulators[slot];
      a.columns = op.columns;
      for (int t = 0; t < 128; t++) a.at[t] = g.accumulator[t];
      for (int i = 0; i < 64; i++)
        for (int j = 0; j < op.columns; j++) {
          int thread = (i >> 4) * 32 + (i & 7) * 4 + (j & 7) / 2;
          float* at = &a.at[thread][(j >> 3) * 4 + (i >> 3 & 1) * 2 + (j & 1)];
          a.value[i][j] = *at;
          *at = as_float(0xffffffffu);
        }
    } else if (g.accumulators[slot].columns != op.columns) {
      fail(site, "an accumulator in flight is used with another shape");
    }
    g.accumulators[slot].pending++;
    Op& o = g.ops[g.ops_len++];
    o.op = op;
    o.accumulator = slot;
    o.site = site;
    if (op.a_fragment)
      for (int t = 0; t < 128; t++)
        for (int r = 0; r < 4; r++) o.fragment[t][r] = g.fragment[t][r];
  });
}

void wgmma_fence(Site site) {
  group_collective(&KIND_FENCE, site, [](Warpgroup& g) { g.fenced = true; });
}

void wgmma_commit(Site site) {
  group_collective(&KIND_COMMIT, site, [site](Warpgroup& g) {
    if (g.groups_len == MAX_OP_GROUPS) fail(site, "more than %d wgmma groups in flight", MAX_OP_GROUPS);
    int n = g.ops_len - g.ops_head;
    for (int i = 0; i < g.groups_len; i++) n -= g.groups[i];
    g.groups[g.groups_len++] = n;
    g.fenced = false;
  });
}

// The wait orders the whole warpgroup: one elected thread may then release what the operations read.
void wgmma_wait(int groups_left, Site site) {
  Warpgroup& mine = warpgroups[current->id >> 7];
  void* order = &mine.order[mine.generation & 1];
  group_collective(&KIND_WAIT, site, [groups_left, order](Warpgroup& g) {
    while (g.groups_len > groups_left) {
      for (int i = 0; i < g.groups[0]; i++) execute(g, g.ops[g.ops_head++]);
      if (g.ops_head == g.ops_len) g.ops_head = g.ops_len = 0;
      g.groups_len--;
      for (int i = 0; i < g.groups_len; i++) g.groups[i] = g.groups[i + 1];
    }
    order_release(order);
    g.generation++;
  });
  order_acquire(order);
}

}  // namespace host
