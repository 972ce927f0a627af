//! The kernels with AVX2: f32 alone, bf16 being widened on its way. The micro-kernel is made of intrinsics, all
//! else of plain loops that become vector instructions.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use half::bf16;

use super::attention::{KEYS, Scores, Sum};
use super::element::{Element, Stored};
use super::pack::{AHEAD, SliceStep, odd_lines};
use super::powers::{FULL, LEAST};
use super::tile::{Panel, Tile, Write};
use super::{PANEL, Step};
use crate::runtime::backend::cpu::element::Element as Value;
use crate::runtime::backend::cpu::linear::Part;
use crate::runtime::backend::cpu::vectorise::{LANES, sum_lanes};

/// An f32, multiplied with AVX2.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Avx2(#[allow(dead_code)] f32);

/// Columns of a part of a tile, two registers.
const HALF: usize = 16;
/// Rows of it at most: 6 · 2 accumulators, two registers of B, one broadcast of A, which leaves one of 16.
const MOST: usize = 6;

/// The tile `c (+)= a · b`, in parts of a few rows and half of the columns; of A's steps one is `NEXT` bytes
/// from the other, and rows `lda` bytes apart.
///
/// # Safety
/// Needs `has_avx2`; A holds the rows, B one panel of `steps` steps, `c` its tile.
unsafe fn tile<const NEXT: usize>(rows: usize, steps: usize, a: *const u8, lda: usize, b: Panel, c: Tile) {
    let parts = rows.div_ceil(MOST);
    let mut next = b.next;
    for half in 0..c.columns.div_ceil(HALF) {
        let columns = (c.columns - half * HALF).min(HALF);
        for part in 0..parts {
            let (first, end) = (part * rows / parts, (part + 1) * rows / parts);
            let size = if c.write == Write::Rounded { size_of::<bf16>() } else { size_of::<f32>() };
            // SAFETY: a part of what the caller vouches for.
            unsafe {
                let to = c.to.add((first * c.stride + half * HALF) * size);
                let operands = Operands {
                    steps,
                    a: a.add(first * lda),
                    lda,
                    b: b.from.add(half * HALF * size_of::<f32>()),
                    next,
                    c: Tile { to, columns, ..c },
                };
                match (end - first, next.is_null()) {
                    (1, _) => operands.part::<1, NEXT, false>(),
                    (2, _) => operands.part::<2, NEXT, false>(),
                    (3, _) => operands.part::<3, NEXT, false>(),
                    (4, true) => operands.part::<4, NEXT, false>(),
                    (4, false) => operands.part::<4, NEXT, true>(),
                    (5, true) => operands.part::<5, NEXT, false>(),
                    (5, false) => operands.part::<5, NEXT, true>(),
                    (_, true) => operands.part::<MOST, NEXT, false>(),
                    (_, false) => operands.part::<MOST, NEXT, true>(),
                }
            }
            // The first part brings it.
            next = std::ptr::null();
        }
    }
}

/// What a part of a tile is made of.
struct Operands {
    steps: usize,
    a: *const u8,
    lda: usize,
    b: *const u8,
    /// As in [`Panel`].
    next: *const u8,
    /// Of sixteen columns at most.
    c: Tile,
}

impl Operands {
    /// `R` rows; `FETCH` says whether there is a next panel.
    ///
    /// # Safety
    /// As for [`tile`].
    #[target_feature(enable = "avx2,fma")]
    unsafe fn part<const R: usize, const NEXT: usize, const FETCH: bool>(self) {
        let Operands { steps, a, lda, mut b, mut next, c } = self;
        if c.write == Write::Add {
            // On their way while the sums are made.
            for i in 0..R {
                _mm_prefetch::<_MM_HINT_T0>(c.to.wrapping_add(i * c.stride * size_of::<f32>()).cast());
            }
        }
        let mut sum = [[_mm256_setzero_ps(); 2]; R];
        // Three rows lie within reach of one address: no more than once and twice `lda` from it.
        let mut triples = [a, a.wrapping_add(3 * lda)];
        // Four steps at a time: what counts them would take turns with the sums.
        for _ in 0..steps / 4 {
            for step in 0..4 {
                if FETCH {
                    let next = next.wrapping_add(step * size_of::<Step>());
                    _mm_prefetch::<_MM_HINT_T1>(next.cast());
                    _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(64).cast());
                }
                // SAFETY: the caller vouches for `steps` steps of A and of B.
                unsafe {
                    let a = triples.map(|a| a.wrapping_add(step * NEXT));
                    multiply_add(&mut sum, a, lda, b.add(step * size_of::<Step>()));
                }
            }
            triples = triples.map(|a| a.wrapping_add(4 * NEXT));
            b = b.wrapping_add(4 * size_of::<Step>());
            next = next.wrapping_add(4 * size_of::<Step>());
        }
        for _ in 0..steps % 4 {
            // SAFETY: as above.
            unsafe { multiply_add(&mut sum, triples, lda, b) };
            triples = triples.map(|a| a.wrapping_add(NEXT));
            b = b.wrapping_add(size_of::<Step>());
        }
        for (i, [low, high]) in sum.into_iter().enumerate() {
            let at = i * c.stride;
            // SAFETY: the caller vouches for the tile, of which no more than its columns are touched.
            unsafe {
                if c.columns == HALF && c.write != Write::Rounded {
                    let to = c.to.cast::<f32>().add(at);
                    let (low, high) = if c.write == Write::Add {
                        (
                            _mm256_add_ps(_mm256_loadu_ps(to), low),
                            _mm256_add_ps(_mm256_loadu_ps(to.add(8)), high),
                        )
                    } else {
                        (low, high)
                    };
                    _mm256_storeu_ps(to, low);
                    _mm256_storeu_ps(to.add(8), high);
                    continue;
                }
                let mut row = [0.0f32; HALF];
                _mm256_storeu_ps(row.as_mut_ptr(), low);
                _mm256_storeu_ps(row.as_mut_ptr().add(8), high);
                match c.write {
                    Write::Set | Write::Add => {
                        let to = std::slice::from_raw_parts_mut(c.to.cast::<f32>().add(at), c.columns);
                        for (to, x) in to.iter_mut().zip(row) {
                            *to = if c.write == Write::Add { *to + x } else { x };
                        }
                    }
                    Write::Rounded => {
                        let rounded = row.map(<bf16 as Value>::of);
                        let to = std::slice::from_raw_parts_mut(c.to.cast::<bf16>().add(at), c.columns);
                        to.copy_from_slice(&rounded[..c.columns]);
                    }
                }
            }
        }
    }
}

/// One step.
///
/// # Safety
/// Rows `lda` bytes apart from the first address on, three from each; two registers of B.
#[inline(always)]
unsafe fn multiply_add<const R: usize>(
    sum: &mut [[__m256; 2]; R],
    triples: [*const u8; 2],
    lda: usize,
    b: *const u8,
) {
    // SAFETY: by the caller.
    unsafe {
        let (low, high) = (_mm256_load_ps(b.cast()), _mm256_load_ps(b.add(32).cast()));
        for (i, sum) in sum.iter_mut().enumerate() {
            let x = _mm256_set1_ps(triples[i / 3].add(i % 3 * lda).cast::<f32>().read_unaligned());
            sum[0] = _mm256_fmadd_ps(x, low, sum[0]);
            sum[1] = _mm256_fmadd_ps(x, high, sum[1]);
        }
    }
}

/// 2^x for x ≤ 100; 0 below −100.
#[inline(always)]
fn exp2(x: f32) -> f32 {
    // Adding 1.5·2²³ leaves the nearest integer in the low bits of the mantissa.
    const SHIFT: f32 = 12_582_912.0;
    let shifted = x + SHIFT;
    let f = x - (shifted - SHIFT);
    let mut p = FULL[FULL.len() - 1];
    for term in FULL[..FULL.len() - 1].iter().rev() {
        p = p.mul_add(f, *term);
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    // Not less: a NaN stays one.
    if x < LEAST { 0.0 } else { p * power }
}

/// The first and the last of the bits that are set, which lie side by side.
fn range(bits: u128) -> (usize, usize) {
    if bits == 0 {
        return (0, 0);
    }
    (bits.trailing_zeros() as usize, 128 - bits.leading_zeros() as usize)
}

/// The largest; −∞ of none. NaN is passed over: the exponentials show it.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn largest(x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<8>();
    let mut lanes = [_mm256_set1_ps(f32::NEG_INFINITY); 2];
    for (i, chunk) in chunks.iter().enumerate() {
        // SAFETY: eight values. The second is taken where one is NaN.
        lanes[i % 2] = unsafe { _mm256_max_ps(_mm256_loadu_ps(chunk.as_ptr()), lanes[i % 2]) };
    }
    let eight = _mm256_max_ps(lanes[0], lanes[1]);
    let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    let mut largest = _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
    for x in rest {
        largest = if *x > largest { *x } else { largest };
    }
    largest
}

impl Element for Avx2 {
    const GROUP: usize = 1;
    const ROWS: usize = 2 * MOST;

    unsafe fn row_kernel(rows: usize, steps: usize, a: *const Avx2, lda: usize, b: Panel, c: Tile) {
        // SAFETY: by the caller, here and below.
        unsafe { tile::<4>(rows, steps, a.cast(), lda * size_of::<f32>(), b, c) }
    }

    unsafe fn slice_kernel(rows: usize, steps: usize, a: *const u8, b: Panel, c: Tile) {
        // SAFETY: as above.
        unsafe { tile::<{ size_of::<SliceStep>() }>(rows, steps, a, 4, b, c) }
    }

    unsafe fn column_kernel(rows: usize, steps: usize, a: *const u8, b: Panel, c: Tile) {
        // SAFETY: as above.
        unsafe { tile::<{ size_of::<Step>() }>(rows, steps, a, 4, b, c) }
    }

    unsafe fn pack_rows(from: *const Avx2, ld: usize, k: usize, columns: usize, to: &mut [Step]) {
        // SAFETY: as above; it is an f32.
        unsafe { <f32 as Stored<Avx2>>::pack_rows(from.cast(), ld, k, columns, to) }
    }

    unsafe fn pack_weight_rows(from: *const f32, ld: usize, k: usize, columns: usize, to: &mut [Step]) {
        // SAFETY: as above.
        unsafe { <f32 as Stored<Avx2>>::pack_rows(from, ld, k, columns, to) }
    }

    unsafe fn pack_weight_columns(from: *const f32, ld: usize, k: usize, columns: usize, to: &mut [Step]) {
        // SAFETY: as above.
        unsafe { <f32 as Stored<Avx2>>::pack_columns(from, ld, k, columns, to) }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn weigh<const WHOLE: bool>(
        n: usize,
        log_scale: f32,
        scores: *const f32,
        sums: &mut [Sum],
        seen_by: impl Fn(usize) -> u128,
        d: usize,
        rows: *mut f32,
        weights: *mut Avx2,
    ) {
        let n = if WHOLE { KEYS } else { n.next_multiple_of(PANEL) };
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: row `i` of the tile.
            let (scores, weights) = unsafe {
                (
                    std::slice::from_raw_parts(scores.add(i * KEYS), n),
                    std::slice::from_raw_parts_mut(weights.add(i * KEYS).cast::<f32>(), n),
                )
            };
            let (from, until) = if WHOLE { (0, KEYS) } else { range(seen_by(i)) };
            let top = largest(&scores[from..until]);
            if top > sum.limit {
                // SAFETY: the values that go with the row.
                let row = unsafe { std::slice::from_raw_parts_mut(rows.add(i * d), d) };
                sum.refer(top, log_scale, row);
            }
            let minus = -sum.reference();
            for (weight, score) in weights.iter_mut().zip(scores) {
                *weight = exp2(score.mul_add(log_scale, minus));
            }
            if !WHOLE {
                weights[..from].fill(0.0);
                weights[until..].fill(0.0);
            }
            for chunk in weights.as_chunks::<16>().0 {
                for (part, weight) in sum.parts.iter_mut().zip(chunk) {
                    *part += *weight;
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn score_gradients<const WHOLE: bool>(
        of: &Scores<'_, impl Fn(usize) -> u128>,
        scores: *const f32,
        weight_grads: *const f32,
        weights: *mut u32,
        score_grads: *mut u32,
        rows: *mut Avx2,
    ) {
        let count = of.logs.len();
        for i in 0..count.next_multiple_of(2) {
            // SAFETY: row `i` of what the caller vouches for.
            let [weights, steps, row] = unsafe {
                [weights.add(i * PANEL).cast(), score_grads.add(i * PANEL).cast(), rows.add(i * KEYS).cast()]
                    .map(|to: *mut f32| &mut *to.cast::<[f32; PANEL]>())
            };
            if i == count {
                // The last of an odd number is beside a row of zeros.
                (*weights, *steps, *row) = ([0.0; PANEL], [0.0; PANEL], [0.0; PANEL]);
                continue;
            }
            // SAFETY: as above.
            let [scores, weight_grads] =
                unsafe { [scores, weight_grads].map(|from| &*from.add(i * PANEL).cast::<[f32; PANEL]>()) };
            let (log, delta) = (-of.logs[i] * std::f32::consts::LOG2_E, of.deltas[i]);
            for c in 0..PANEL {
                weights[c] = exp2(scores[c].mul_add(of.log_scale, log));
                steps[c] = weights[c] * (weight_grads[c] - delta);
            }
            if !WHOLE {
                let (from, until) = range((of.seen_by)(i));
                for to in [&mut *weights, &mut *steps] {
                    to[..from].fill(0.0);
                    to[until..].fill(0.0);
                }
            }
            *row = *steps;
        }
    }
}

impl<S: Value> Stored<Avx2> for S {
    const WRITE: Write = if size_of::<S>() == size_of::<f32>() { Write::Set } else { Write::Rounded };

    #[target_feature(enable = "avx2,fma")]
    unsafe fn pack_rows(from: *const S, ld: usize, k: usize, columns: usize, to: &mut [Step]) {
        for (p, Step(step)) in to.iter_mut().enumerate().take(k) {
            let ahead = from.wrapping_add((p + AHEAD) * ld).cast::<i8>();
            _mm_prefetch::<_MM_HINT_T0>(ahead);
            _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64));
            // SAFETY: the caller vouches for the rows.
            let row = unsafe { std::slice::from_raw_parts(from.add(p * ld), columns) };
            if let Ok(row) = <&[S; PANEL]>::try_from(row) {
                for (to, x) in step.iter_mut().zip(row) {
                    *to = x.get().to_bits();
                }
            } else {
                step[columns..].fill(0);
                for (to, x) in step.iter_mut().zip(row) {
                    *to = x.get().to_bits();
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn pack_columns(from: *const S, ld: usize, k: usize, columns: usize, to: &mut [Step]) {
        for first in (0..k).step_by(8) {
            let count = (k - first).min(8);
            for group in 0..PANEL / 8 {
                let mut block = [[0.0f32; 8]; 8];
                for (j, line) in block.iter_mut().enumerate().take(columns.saturating_sub(8 * group)) {
                    // SAFETY: the caller vouches for the rows.
                    let row =
                        unsafe { std::slice::from_raw_parts(from.add((8 * group + j) * ld + first), count) };
                    if let Ok(row) = <&[S; 8]>::try_from(row) {
                        *line = row.map(S::get);
                    } else {
                        for (to, x) in line.iter_mut().zip(row) {
                            *to = x.get();
                        }
                    }
                }
                let block = transpose(&block);
                for (Step(step), line) in to[first..first + count].iter_mut().zip(&block) {
                    // SAFETY: eight of the step's 32 values, aligned.
                    unsafe { _mm256_store_ps(step.as_mut_ptr().add(8 * group).cast(), *line) };
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn pack_slices(
        from: *const S,
        ld: usize,
        k: usize,
        columns: usize,
        depth: usize,
        to: &mut [MaybeUninit<SliceStep>],
    ) {
        for p in 0..k {
            for (slice, at) in (0..columns).step_by(Avx2::ROWS).enumerate() {
                // SAFETY: the caller vouches for the rows.
                let row = unsafe {
                    std::slice::from_raw_parts(from.add(p * ld + at), (columns - at).min(Avx2::ROWS))
                };
                _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add((p + AHEAD) * ld + at).cast());
                // The lanes behind these are not read.
                let to = to[slice * depth + p].as_mut_ptr().cast::<u32>();
                if let Ok(row) = <&[S; Avx2::ROWS]>::try_from(row) {
                    let bits = row.map(|x| x.get().to_bits());
                    // SAFETY: there are as many lanes.
                    unsafe { to.cast::<[u32; Avx2::ROWS]>().write(bits) };
                } else {
                    for (i, x) in row.iter().enumerate() {
                        // SAFETY: as above.
                        unsafe { to.add(i).write(x.get().to_bits()) };
                    }
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn rows(
        from: *const S,
        ld: usize,
        rows: usize,
        values: usize,
        scratch: &mut [Step],
    ) -> (*const Avx2, usize) {
        if size_of::<S>() == size_of::<f32>() {
            return (from.cast(), ld);
        }
        assert!(scratch.len() >= <S as Stored<Avx2>>::room(rows, values));
        let (to, stride) = (scratch.as_mut_ptr().cast::<f32>(), odd_lines(values));
        for i in 0..rows {
            // SAFETY: by the caller; there is room for as many rows.
            unsafe { widen(values, from.add(i * ld), to.add(i * stride)) }
        }
        (to.cast(), stride)
    }

    fn room(rows: usize, values: usize) -> usize {
        if size_of::<S>() == size_of::<f32>() { 0 } else { (rows * odd_lines(values)).div_ceil(PANEL) }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn gather(count: usize, d: usize, from: *const S, ld: usize, to: *mut Avx2) {
        for i in 0..count {
            // SAFETY: by the caller.
            unsafe { widen(d, from.add(i * ld), to.add(i * d).cast()) }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn round(from: &[f32], factor: f32, to: *mut S) {
        // SAFETY: by the caller.
        let to = unsafe { std::slice::from_raw_parts_mut(to, from.len()) };
        for (to, x) in to.iter_mut().zip(from) {
            *to = S::of(*x * factor);
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn dot(d: usize, a: *const S, b: *const Avx2) -> f32 {
        // SAFETY: by the caller.
        let (a, b) =
            unsafe { (std::slice::from_raw_parts(a, d), std::slice::from_raw_parts(b.cast::<f32>(), d)) };
        let mut lanes = [0.0; LANES];
        let ((a, last_a), (b, last_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        for (a, b) in a.iter().zip(b) {
            for i in 0..LANES {
                lanes[i] = a[i].get().mul_add(b[i], lanes[i]);
            }
        }
        for ((lane, a), b) in lanes.iter_mut().zip(last_a).zip(last_b) {
            *lane = a.get().mul_add(*b, *lane);
        }
        sum_lanes(lanes)
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn exponentials(logits: &[f32], to: *mut S) -> Part {
        let largest = largest(logits);
        // SAFETY: by the caller.
        let to = unsafe { std::slice::from_raw_parts_mut(to, logits.len()) };
        let power = |x: f32| exp2((x - largest) * std::f32::consts::LOG2_E);
        let mut lanes = [0.0; LANES];
        let ((logits, last), (to, last_to)) = (logits.as_chunks::<LANES>(), to.as_chunks_mut::<LANES>());
        for (to, logits) in to.iter_mut().zip(logits) {
            for i in 0..LANES {
                let exponential = power(logits[i]);
                lanes[i] += exponential;
                to[i] = S::of(exponential);
            }
        }
        for ((lane, to), x) in lanes.iter_mut().zip(last_to).zip(last) {
            let exponential = power(*x);
            *lane += exponential;
            *to = S::of(exponential);
        }
        Part { largest, sum: sum_lanes(lanes) }
    }
}

/// `count` values as f32.
///
/// # Safety
/// Needs `has_avx2`; both hold as many.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn widen<S: Value>(count: usize, from: *const S, to: *mut f32) {
    // SAFETY: by the caller.
    let (from, to) =
        unsafe { (std::slice::from_raw_parts(from, count), std::slice::from_raw_parts_mut(to, count)) };
    for (to, x) in to.iter_mut().zip(from) {
        *to = x.get();
    }
}

/// The columns of eight rows.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn transpose(rows: &[[f32; 8]; 8]) -> [__m256; 8] {
    // SAFETY: each row is eight values.
    let m = rows.each_ref().map(|row| unsafe { _mm256_loadu_ps(row.as_ptr()) });
    let mut t = [_mm256_setzero_ps(); 8];
    for i in 0..4 {
        t[2 * i] = _mm256_unpacklo_ps(m[2 * i], m[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(m[2 * i], m[2 * i + 1]);
    }
    // Columns c and c + 4 of rows 0 to 3, then of rows 4 to 7.
    let mut four = [_mm256_setzero_ps(); 8];
    for i in 0..2 {
        let [a, b, c, d] = [t[4 * i], t[4 * i + 1], t[4 * i + 2], t[4 * i + 3]];
        four[4 * i] = _mm256_shuffle_ps::<0x44>(a, c);
        four[4 * i + 1] = _mm256_shuffle_ps::<0xee>(a, c);
        four[4 * i + 2] = _mm256_shuffle_ps::<0x44>(b, d);
        four[4 * i + 3] = _mm256_shuffle_ps::<0xee>(b, d);
    }
    let mut out = [_mm256_setzero_ps(); 8];
    for c in 0..4 {
        out[c] = _mm256_permute2f128_ps::<0x20>(four[c], four[4 + c]);
        out[4 + c] = _mm256_permute2f128_ps::<0x31>(four[c], four[4 + c]);
    }
    out
}
