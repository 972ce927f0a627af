//! Page-locked memory through which the host's data goes to a GPU: two slots in turn, so that one is filled
//! while the other is still being copied.

use std::ffi::c_void;
use std::ptr::{self, NonNull};

use cudarc::driver::result::DriverError;
use cudarc::driver::{result, sys};

/// Bytes of a slot.
const SLOT: usize = 4 << 20;

#[derive(Debug)]
struct Slot {
    at: NonNull<c_void>,
    /// Recorded behind the copy from it; null until it is made.
    copied: sys::CUevent,
    busy: bool,
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: both are ours alone, and the stream that copied from here was waited for. A failure means that the
        // context is lost, and they with it.
        unsafe {
            if !self.copied.is_null() {
                let _ = result::event::destroy(self.copied);
            }
            let _ = result::free_host(self.at.as_ptr());
        }
    }
}

/// The two slots.
#[derive(Debug)]
pub(super) struct Staging {
    slots: [Slot; 2],
    next: usize,
}

// SAFETY: page-locked memory and events belong to no thread, and nobody else has these.
unsafe impl Send for Staging {}

impl Staging {
    /// The context must be current, here, in [`upload`](Self::upload), and when it is dropped, by which time the
    /// stream must have been waited for.
    pub(super) fn new() -> Result<Self, DriverError> {
        let slot = || {
            // SAFETY: the context is current.
            let at = unsafe { result::malloc_host(SLOT, 0)? };
            let at = NonNull::new(at).ok_or(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY))?;
            let mut slot = Slot { at, copied: ptr::null_mut(), busy: false };
            slot.copied = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
            Ok(slot)
        };
        Ok(Staging { slots: [slot()?, slot()?], next: 0 })
    }

    /// Copies `from` to the device behind what is in `stream`. `from` may change when this returns.
    ///
    /// # Safety
    /// `to` is device memory of at least as many bytes; the stream is valid.
    pub(super) unsafe fn upload(
        &mut self,
        to: u64,
        from: &[u8],
        stream: sys::CUstream,
    ) -> Result<(), DriverError> {
        for (i, part) in from.chunks(SLOT).enumerate() {
            let slot = &mut self.slots[self.next];
            self.next ^= 1;
            if slot.busy {
                // SAFETY: the event was recorded below.
                unsafe { sys::cuEventSynchronize(slot.copied) }.result()?;
            }
            // SAFETY: the slot has SLOT bytes, is ours alone, and no copy from it is under way.
            unsafe {
                let bytes = std::slice::from_raw_parts_mut(slot.at.as_ptr().cast::<u8>(), part.len());
                bytes.copy_from_slice(part);
                result::memcpy_htod_async(to + (i * SLOT) as u64, bytes, stream)?;
                result::event::record(slot.copied, stream)?;
            }
            slot.busy = true;
        }
        Ok(())
    }
}
