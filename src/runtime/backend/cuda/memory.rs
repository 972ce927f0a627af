//! Buffers of the backend in device memory.

use std::cell::RefCell;
use std::sync::Arc;

use super::device::{Device, DeviceFailure};

/// Numbers that are what bytes they are made of.
///
/// # Safety
/// Every pattern of bits is one, and there is no padding in it.
pub(super) unsafe trait Plain {}

// SAFETY: as there.
unsafe impl Plain for f32 {}
// SAFETY: as there.
unsafe impl Plain for u32 {}

/// As they lie in memory.
pub(super) fn bytes<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: the same memory for as long; a byte needs no alignment, and none of them is padding.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// As they lie in memory, to be written over.
pub(super) fn bytes_mut<T: Plain>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as above, borrowed mutably; whatever is written is a value.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// Bytes of device memory.
#[derive(Debug)]
pub struct Memory {
    at: u64,
    bytes: usize,
    owner: Owner,
}

/// What a piece of memory was taken from.
#[derive(Debug)]
enum Owner {
    /// The device, to which it goes back.
    Device(Arc<dyn Device>),
    /// A larger piece, which it keeps.
    Slab(#[allow(dead_code)] Arc<Memory>),
}

impl Memory {
    /// Contents undefined.
    pub(super) fn new(device: &Arc<dyn Device>, bytes: usize) -> Result<Self, DeviceFailure> {
        Ok(Memory { at: device.allocate(bytes)?, bytes, owner: Owner::Device(Arc::clone(device)) })
    }

    pub(super) fn zeroed(device: &Arc<dyn Device>, bytes: usize) -> Result<Self, DeviceFailure> {
        let memory = Memory::new(device, bytes)?;
        device.clear(memory.at, bytes)?;
        Ok(memory)
    }

    /// `bytes` of a slab from its byte `at` on.
    ///
    /// # Panics
    /// When the slab is too short.
    pub(super) fn within(slab: &Arc<Memory>, at: usize, bytes: usize) -> Self {
        assert!(at <= slab.bytes && bytes <= slab.bytes - at, "{at}+{bytes} bytes of {}", slab.bytes);
        Memory { at: slab.at + at as u64, bytes, owner: Owner::Slab(Arc::clone(slab)) }
    }

    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Owner::Device(device) = &self.owner {
            device.release(self.at);
        }
    }
}

/// f32 values, with a bf16 copy once they have been an operand of a product.
#[derive(Debug)]
pub struct Wide {
    pub(super) memory: Memory,
    copy: RefCell<Option<Copy>>,
}

/// The bf16 copy of a wide buffer, of the same length.
#[derive(Debug)]
struct Copy {
    memory: Memory,
    fresh: bool,
}

impl Wide {
    pub(super) fn new(memory: Memory) -> Self {
        Wide { memory, copy: RefCell::new(None) }
    }

    /// To read the values.
    pub(super) fn at(&self) -> u64 {
        self.memory.at()
    }

    /// To change them: the copy is no longer theirs.
    pub(super) fn change(&mut self) -> u64 {
        if let Some(copy) = self.copy.get_mut() {
            copy.fresh = false;
        }
        self.memory.at()
    }

    pub(super) fn len(&self) -> usize {
        self.memory.bytes() / 4
    }

    /// Address of the copy, when there is one, for somebody who changes it along with the values.
    pub(super) fn copy_to_update(&mut self) -> Option<u64> {
        self.copy.get_mut().as_mut().map(|copy| {
            copy.fresh = true;
            copy.memory.at()
        })
    }

    /// The copy, brought up to date by `refresh(from, to, len)` when it is not.
    pub(super) fn narrow(
        &self,
        device: &Arc<dyn Device>,
        refresh: impl FnOnce(u64, u64, usize) -> Result<(), DeviceFailure>,
    ) -> Result<u64, DeviceFailure> {
        let mut slot = self.copy.borrow_mut();
        let copy = self.copy_in(&mut slot, device)?;
        if !copy.fresh {
            refresh(self.memory.at(), copy.memory.at(), self.len())?;
            copy.fresh = true;
        }
        Ok(copy.memory.at())
    }

    /// Memory for the copy, where there is none.
    pub(super) fn reserve_copy(&self, device: &Arc<dyn Device>) -> Result<(), DeviceFailure> {
        self.copy_in(&mut self.copy.borrow_mut(), device).map(drop)
    }

    fn copy_in<'a>(
        &self,
        slot: &'a mut Option<Copy>,
        device: &Arc<dyn Device>,
    ) -> Result<&'a mut Copy, DeviceFailure> {
        Ok(match slot.take() {
            Some(copy) => slot.insert(copy),
            None => slot.insert(Copy { memory: Memory::new(device, self.len() * 2)?, fresh: false }),
        })
    }
}

/// bf16 values.
#[derive(Debug)]
pub struct Narrow(pub(super) Memory);

/// u32 values.
#[derive(Debug)]
pub struct Index(pub(super) Memory);

/// Memory that is kept between operations and grows when one needs more.
#[derive(Debug, Default)]
pub(super) struct Scratch(Option<Memory>);

impl Scratch {
    pub(super) fn at_least(&mut self, device: &Arc<dyn Device>, bytes: usize) -> Result<u64, DeviceFailure> {
        if self.0.as_ref().is_none_or(|m| m.bytes() < bytes) {
            self.0 = None;
            self.0 = Some(Memory::new(device, bytes)?);
        }
        Ok(self.0.as_ref().map_or(0, Memory::at))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |m| m.bytes() as u64)
    }
}
