// Warp collectives: shuffles, ldmatrix, mma.sync, and the queue of cp.async.
#include "scheduler.h"

namespace host {

static const char KIND_SHUFFLE = 0, KIND_SYNC = 0, KIND_LDMATRIX = 0, KIND_LDMATRIX_T = 0, KIND_MMA = 0;

u32 shuffle(u32 value, int lane, u32 mask, Site site) {
  Thread* me = current;
  Warp& w = warp_of(me);
  if (!(mask >> (lane & 31) & 1)) fail(site, "a shuffle reads lane %d, which its mask leaves out", lane & 31);
  w.in[lane_of(me)][0] = value;
  w.in[lane_of(me)][1] = (u32)lane & 31;
  warp_collective(&KIND_SHUFFLE, mask, site, [](Warp& q) {
    for (int l = 0; l < 32; l++)
      if (q.mask >> l & 1) q.out[l][0] = q.in[q.in[l][1]][0];
  });
  return w.out[lane_of(me)][0];
}

void sync_warp(u32 mask, Site site) {
  Warp& w = warp_of(current);
  void* order = &w.order[w.generation & 1];
  order_release(order);
  warp_collective(&KIND_SYNC, mask, site, [](Warp& q) { q.generation++; });
  order_acquire(order);
}

// PTX ISA, "ldmatrix": lane 8·j + r holds row r of matrix j; lane l receives elements 2(l%4), 2(l%4)+1 of row
// l/4 of each, or with .trans of each transpose.
void ldmatrix(u32 (&out)[4], const u32 (&row)[4], bool transposed, Site site) {
  Thread* me = current;
  Warp& w = warp_of(me);
  for (int i = 0; i < 4; i++) w.in[lane_of(me)][i] = row[i];
  auto work = [transposed](Warp& q) {
    for (int l = 0; l < 32; l++)
      for (int j = 0; j < 4; j++) {
        int g = l >> 2, t = l & 3;
        if (!transposed) {
          q.out[l][j] = q.in[j * 8 + g][t];
        } else {
          u32 lo = q.in[j * 8 + 2 * t][g >> 1] >> (g & 1) * 16 & 0xffffu;
          u32 hi = q.in[j * 8 + 2 * t + 1][g >> 1] >> (g & 1) * 16 & 0xffffu;
          q.out[l][j] = lo | hi << 16;
        }
      }
  };
  warp_collective(transposed ? &KIND_LDMATRIX_T : &KIND_LDMATRIX, ~0u, site, work);
  for (int i = 0; i < 4; i++) out[i] = w.out[lane_of(me)][i];
}

typedef float Row __attribute__((vector_size(32), aligned(32)));

// PTX ISA, "mma.m16n8k16": A row-major in four registers, B column-major in two, C and D in four floats.
static void mma_work(Warp& w) {
  alignas(32) float a[16][16], b[16][8], c[16][8];
  auto lo = [](u32 x) { return as_float(x << 16); };
  auto hi = [](u32 x) { return as_float(x & 0xffff0000u); };
  for (int l = 0; l < 32; l++) {
    int g = l >> 2, t = (l & 3) * 2;
    const u32* r = w.in[l];
    a[g][t] = lo(r[0]), a[g][t + 1] = hi(r[0]);
    a[g + 8][t] = lo(r[1]), a[g + 8][t + 1] = hi(r[1]);
    a[g][t + 8] = lo(r[2]), a[g][t + 9] = hi(r[2]);
    a[g + 8][t + 8] = lo(r[3]), a[g + 8][t + 9] = hi(r[3]);
    b[t][g] = lo(r[4]), b[t + 1][g] = hi(r[4]);
    b[t + 8][g] = lo(r[5]), b[t + 9][g] = hi(r[5]);
    const float* d = w.c[l];
    c[g][t] = d[0], c[g][t + 1] = d[1], c[g + 8][t] = d[2], c[g + 8][t + 1] = d[3];
  }
  for (int i = 0; i < 16; i++) {
    Row even = *(Row*)c[i], odd = {};
    for (int k = 0; k < 16; k += 2) {
      even += *(Row*)b[k] * a[i][k];
      odd += *(Row*)b[k + 1] * a[i][k + 1];
    }
    *(Row*)c[i] = even + odd;
  }
  for (int l = 0; l < 32; l++) {
    int g = l >> 2, t = (l & 3) * 2;
    float* d = w.c[l];
    d[0] = c[g][t], d[1] = c[g][t + 1], d[2] = c[g + 8][t], d[3] = c[g + 8][t + 1];
  }
}

void mma_16x8x16(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, Site site) {
  Warp& w = warp_of(current);
  int l = lane_of(current);
  for (int i = 0; i < 4; i++) w.in[l][i] = a[i];
  w.in[l][4] = b0;
  w.in[l][5] = b1;
  w.c[l] = c;
  warp_collective(&KIND_MMA, ~0u, site, mma_work);
}

void copy_issue(const Copy& copy, Site site) {
  Thread* me = current;
  me->site = site;
  if (me->copies_len == MAX_COPIES) fail(site, "more than %d cp.async copies in flight in one thread", MAX_COPIES);
  me->copies[me->copies_len++] = copy;
}

void copy_commit() {
  Thread* me = current;
  if (me->groups_len == MAX_COPY_GROUPS) fail(me->site, "too many cp.async groups in flight");
  int uncommitted = me->copies_len - me->copies_head;
  for (int i = 0; i < me->groups_len; i++) uncommitted -= me->groups[i];
  me->groups[me->groups_len++] = uncommitted;
}

// The next copy that must be complete for no more than `groups_left` groups to be in flight.
bool copy_next(int groups_left, Copy& copy) {
  Thread* me = current;
  while (me->groups_len > groups_left) {
    if (me->groups[0] > 0) {
      me->groups[0]--;
      copy = me->copies[me->copies_head++];
      if (me->copies_head == me->copies_len) me->copies_head = me->copies_len = 0;
      return true;
    }
    me->groups_len--;
    for (int i = 0; i < me->groups_len; i++) me->groups[i] = me->groups[i + 1];
  }
  if (me->copies_head > MAX_COPIES / 2) {
    // Plain loops here and elsewhere: ThreadSanitizer would take memmove for an access of the kernel.
    for (int i = me->copies_head; i < me->copies_len; i++) me->copies[i - me->copies_head] = me->copies[i];
    me->copies_len -= me->copies_head;
    me->copies_head = 0;
  }
  return false;
}

}  // namespace host
