//! A buffer that several tasks write at once, each its own part: blocks of columns, which slices
//! cannot express.

use std::marker::PhantomData;

/// A slice shared by tasks that write parts of it which do not overlap.
pub(super) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    whole: PhantomData<&'a mut [T]>,
}

// SAFETY: the pointer comes from a `&mut [T]` that nobody else can use for 'a, and `part` demands that
// no two parts in use at once overlap.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(super) fn new(whole: &'a mut [T]) -> Self {
        Disjoint { start: whole.as_mut_ptr(), len: whole.len(), whole: PhantomData }
    }

    /// `len` values from `at`.
    ///
    /// # Safety
    /// No other part in use at the same time may overlap this one.
    ///
    /// # Panics
    /// When the part is not within the slice.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn part(&self, at: usize, len: usize) -> &mut [T] {
        assert!(at <= self.len && len <= self.len - at, "{at}+{len} of {}", self.len);
        // SAFETY: within the slice by the assertion; not aliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_reach_their_place() {
        let mut values = [0; 6];
        let shared = Disjoint::new(&mut values);
        std::thread::scope(|s| {
            for i in 0..3 {
                let shared = &shared;
                // SAFETY: the three parts are 0..2, 2..4 and 4..6.
                s.spawn(move || unsafe { shared.part(2 * i, 2) }.fill(i));
            }
        });
        assert_eq!(values, [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    #[should_panic(expected = "4+3 of 6")]
    fn a_part_beyond_the_end_is_refused() {
        let mut values = [0; 6];
        // SAFETY: one part only.
        unsafe { Disjoint::new(&mut values).part(4, 3) };
    }
}
