//! Buffers of the backend: memory of their own, or a part of a slab that several are laid over.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{MmapMut, MmapOptions};

use crate::runtime::engine::EngineError;

/// A cache line, and a vector.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] [u8; 64]);

/// Zeroed memory.
#[derive(Debug)]
pub(crate) struct Slab {
    start: NonNull<u8>,
    bytes: usize,
    _memory: Memory,
}

/// Where the memory is from, to which it goes back at the end.
#[derive(Debug)]
enum Memory {
    /// The heap, whose holes it fills: weights that were read are gone when moments are made.
    Heap(#[allow(dead_code)] Vec<Line>),
    /// Straight from the system, in huge pages where there are such: the rows of a matrix then do not lie
    /// on more pages than the processor remembers. No page exists before it is written, so each lies
    /// near the thread that writes it first.
    Map(#[allow(dead_code)] MmapMut),
}

// SAFETY: the memory is this value's alone; the buffers over it answer for what is done there.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

fn failure(bytes: usize) -> EngineError {
    EngineError::Allocation { bytes: bytes as u64, device: "the host".into() }
}

impl Slab {
    /// Memory for what is laid over it.
    pub(super) fn new(bytes: usize) -> Result<Self, EngineError> {
        let mut map = MmapOptions::new().len(bytes.max(1)).map_anon().map_err(|_| failure(bytes))?;
        #[cfg(target_os = "linux")]
        {
            // Where there are none, the usual ones do.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        let start = NonNull::from(&mut map[..]).cast();
        Ok(Slab { start, bytes, _memory: Memory::Map(map) })
    }

    /// Memory for one buffer.
    fn of_heap(bytes: usize) -> Result<Self, EngineError> {
        let mut lines = Vec::new();
        let count = bytes.div_ceil(size_of::<Line>());
        lines.try_reserve_exact(count).map_err(|_| failure(bytes))?;
        lines.resize(count, Line([0; 64]));
        let start = NonNull::from(&mut lines[..]).cast();
        Ok(Slab { start, bytes, _memory: Memory::Heap(lines) })
    }
}

/// `len` values of f32, bf16 or u32: whatever bytes are there are values.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    start: NonNull<T>,
    len: usize,
    _slab: Arc<Slab>,
    values: PhantomData<T>,
}

// SAFETY: a buffer is used like a slice that it owns; see `over` for those that share their memory.
unsafe impl<T: Send> Send for Buffer<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Buffer<T> {}

/// What may be laid over any bytes.
///
/// # Safety
/// Every pattern of bits is a value, and no value needs to be dropped.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: numbers.
unsafe impl Plain for f32 {}
// SAFETY: numbers.
unsafe impl Plain for u32 {}
// SAFETY: 16 bits without an invariant.
unsafe impl Plain for half::bf16 {}

/// Bytes of so many values; `None` where no slice can be as long.
fn bytes_of<T>(len: usize) -> Option<usize> {
    len.checked_mul(size_of::<T>()).filter(|bytes| isize::try_from(*bytes).is_ok())
}

impl<T: Plain> Buffer<T> {
    /// Zeros in memory of their own.
    pub(super) fn new(len: usize) -> Result<Self, EngineError> {
        // What does not fit the address space is asked for in full, so that the error says so.
        let bytes = bytes_of::<T>(len).ok_or_else(|| failure(len.saturating_mul(size_of::<T>())))?;
        let slab = Arc::new(Slab::of_heap(bytes)?);
        // SAFETY: nobody else knows the slab.
        Ok(unsafe { Self::over(&slab, 0, len) })
    }

    /// `len` values from the byte `at` of a slab on.
    ///
    /// # Safety
    /// While one of the buffers over the same bytes is borrowed, no other is; what one of them holds is
    /// gone once another is written.
    ///
    /// # Panics
    /// When the slab is too short or `at` is not aligned.
    pub(super) unsafe fn over(slab: &Arc<Slab>, at: usize, len: usize) -> Self {
        assert!(at.is_multiple_of(align_of::<T>()), "a buffer at byte {at}");
        let room = slab.bytes.checked_sub(at);
        let bytes = bytes_of::<T>(len).filter(|bytes| room.is_some_and(|room| *bytes <= room));
        assert!(bytes.is_some(), "{len} values from byte {at} of {} on", slab.bytes);
        // SAFETY: within the slab by the assertion.
        let start = unsafe { slab.start.add(at) }.cast();
        Buffer { start, len, _slab: Arc::clone(slab), values: PhantomData }
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the values lie in the slab, which lives as long, and any bits are values (`Plain`).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and no other borrow of these bytes by the promise made to `over`.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// A buffer of scratch that is cut up, line by line, into what an operation wants to lay there.
pub(super) struct Pieces<'a>(&'a mut [Line]);

impl<'a> Pieces<'a> {
    /// Of the lines that are whole within `scratch`.
    pub(super) fn of<T: Plain>(scratch: &'a mut [T]) -> Self {
        // SAFETY: any bytes are a line, and whatever is written there are values again (`Plain`).
        Pieces(unsafe { scratch.align_to_mut() }.1)
    }

    /// Bytes that [`take`](Self::take) takes for so many values.
    pub(super) fn bytes<T>(len: usize) -> usize {
        (len * size_of::<T>()).next_multiple_of(size_of::<Line>())
    }

    /// The next `len` values, of arbitrary content.
    ///
    /// # Panics
    /// When there is no room left for them.
    pub(super) fn take<T: Plain>(&mut self, len: usize) -> &'a mut [T] {
        const { assert!(align_of::<T>() <= align_of::<Line>()) };
        let lines = std::mem::take(&mut self.0);
        let (front, rest) = lines.split_at_mut(Self::bytes::<T>(len) / size_of::<Line>());
        self.0 = rest;
        // SAFETY: the lines are this call's alone, aligned, and hold as many values; any bits are values.
        unsafe { std::slice::from_raw_parts_mut(front.as_mut_ptr().cast(), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_lie_one_after_another() {
        let mut buffer = Buffer::<half::bf16>::new(200).unwrap();
        let mut pieces = Pieces::of(&mut buffer);
        let (a, b) = (pieces.take::<f32>(3), pieces.take::<u32>(32));
        a.fill(1.0);
        b.fill(7);
        assert_eq!((a.len(), b.len(), Pieces::bytes::<u32>(33)), (3, 32, 192));
        assert_eq!((buffer[1].to_f32(), buffer[32].to_bits(), buffer[94].to_bits()), (1.0, 7, 7));
    }

    #[test]
    #[should_panic]
    fn a_piece_beyond_the_end_is_refused() {
        let mut buffer = Buffer::<u32>::new(32).unwrap();
        Pieces::of(&mut buffer).take::<f32>(33);
    }

    #[test]
    fn buffers_over_a_slab_share_its_bytes() {
        let slab = Arc::new(Slab::new(1024).unwrap());
        // SAFETY: used one after another below.
        let (mut wide, narrow) =
            unsafe { (Buffer::<f32>::over(&slab, 512, 128), Buffer::<half::bf16>::over(&slab, 512, 256)) };
        assert!(wide.iter().all(|x| *x == 0.0));
        wide[0] = 1.0;
        // The upper half of an f32, little endian.
        assert_eq!(narrow[1].to_f32(), 1.0);
        drop(slab);
        assert_eq!(wide[0], 1.0);
    }

    #[test]
    #[should_panic(expected = "4 values from byte 8 of 20 on")]
    fn a_buffer_beyond_the_end_is_refused() {
        let slab = Arc::new(Slab::new(20).unwrap());
        // SAFETY: one buffer only.
        let _ = unsafe { Buffer::<f32>::over(&slab, 8, 4) };
    }

    /// Four times as many bytes wrap to none.
    #[test]
    #[should_panic(expected = "of 20 on")]
    fn a_buffer_longer_than_memory_is_refused() {
        let slab = Arc::new(Slab::new(20).unwrap());
        // SAFETY: one buffer only.
        let _ = unsafe { Buffer::<f32>::over(&slab, 0, 1 << 62) };
    }

    #[test]
    fn more_than_memory_is_an_error() {
        for len in [1 << 62, usize::MAX, isize::MAX as usize / 4 + 1] {
            assert!(matches!(Buffer::<f32>::new(len), Err(EngineError::Allocation { .. })), "{len}");
        }
    }

    #[test]
    fn nothing_is_a_buffer() {
        assert!(Buffer::<f32>::new(0).unwrap().is_empty());
    }
}
