//! One block of device memory, handed out in pieces: what a run holds is reserved before it begins.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::device::{Argument, Device, DeviceFailure, Launch, Matrix, Operation, TensorMap};

/// Pieces start at multiples of this.
const ALIGNMENT: u64 = 256;

/// The free parts of a block: first offset and length of each, none beside another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Free(BTreeMap<u64, u64>);

impl Free {
    fn whole(bytes: u64) -> Self {
        Free([(0, bytes)].into())
    }

    /// The first place that is long enough.
    fn take(&mut self, bytes: u64) -> Option<u64> {
        let (&at, &len) = self.0.iter().find(|(_, len)| **len >= bytes)?;
        self.0.remove(&at);
        if len > bytes {
            self.0.insert(at + bytes, len - bytes);
        }
        Some(at)
    }

    fn give(&mut self, at: u64, bytes: u64) {
        let (mut at, mut bytes) = (at, bytes);
        if let Some((&before, &len)) = self.0.range(..at).next_back()
            && before + len == at
        {
            self.0.remove(&before);
            (at, bytes) = (before, bytes + len);
        }
        if let Some(len) = self.0.remove(&(at + bytes)) {
            bytes += len;
        }
        self.0.insert(at, bytes);
    }

    fn longest(&self) -> u64 {
        self.0.values().copied().max().unwrap_or(0)
    }
}

#[derive(Debug)]
struct Pieces {
    free: Free,
    /// Length of each piece in use, by offset.
    used: BTreeMap<u64, u64>,
}

/// A device whose memory is one block of it, allocated at once.
#[derive(Debug)]
pub struct Arena {
    device: Arc<dyn Device>,
    base: u64,
    bytes: u64,
    pieces: Mutex<Pieces>,
}

impl Arena {
    /// Reserve `bytes` of a device.
    ///
    /// # Errors
    /// When the device does not have them.
    pub fn new(device: Arc<dyn Device>, bytes: u64) -> Result<Self, DeviceFailure> {
        let bytes = bytes / ALIGNMENT * ALIGNMENT;
        let base = device.allocate(bytes as usize)?;
        let pieces = Mutex::new(Pieces { free: Free::whole(bytes), used: BTreeMap::new() });
        Ok(Arena { device, base, bytes, pieces })
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.device.release(self.base);
    }
}

impl Device for Arena {
    fn describe(&self) -> String {
        self.device.describe()
    }

    fn multiprocessors(&self) -> u32 {
        self.device.multiprocessors()
    }

    fn hopper(&self) -> bool {
        self.device.hopper()
    }

    fn shared_limit(&self) -> usize {
        self.device.shared_limit()
    }

    fn free_bytes(&self) -> Result<u64, DeviceFailure> {
        Ok(self.pieces.lock().unwrap_or_else(PoisonError::into_inner).free.0.values().sum())
    }

    fn allocate(&self, bytes: usize) -> Result<u64, DeviceFailure> {
        let len = (bytes.max(1) as u64).next_multiple_of(ALIGNMENT);
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = pieces.free.take(len) else {
            let longest = pieces.free.longest();
            return Err(DeviceFailure {
                what: format!("taking {bytes} bytes of the {} reserved", self.bytes),
                reason: format!("the longest free piece has {longest}; raise `--memory`"),
            });
        };
        pieces.used.insert(at, len);
        Ok(self.base + at)
    }

    fn release(&self, at: u64) {
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = at.wrapping_sub(self.base);
        if let Some(len) = pieces.used.remove(&offset) {
            pieces.free.give(offset, len);
        }
    }

    fn upload(&self, to: u64, from: &[u8]) -> Result<(), DeviceFailure> {
        self.device.upload(to, from)
    }

    fn download(&self, from: u64, to: &mut [u8]) -> Result<(), DeviceFailure> {
        self.device.download(from, to)
    }

    fn clear(&self, at: u64, bytes: usize) -> Result<(), DeviceFailure> {
        self.device.clear(at, bytes)
    }

    fn launch(&self, launch: Launch, arguments: &mut [Argument]) -> Result<(), DeviceFailure> {
        self.device.launch(launch, arguments)
    }

    fn tensor_map(&self, matrix: Matrix) -> Result<TensorMap, DeviceFailure> {
        self.device.tensor_map(matrix)
    }

    fn wait(&self) -> Result<(), DeviceFailure> {
        self.device.wait()
    }

    fn capture(&self, operations: &mut [Operation]) -> Result<Option<u64>, DeviceFailure> {
        self.device.capture(operations)
    }

    fn replay(&self, graph: u64) -> Result<(), DeviceFailure> {
        self.device.replay(graph)
    }

    fn forget(&self, graph: u64) {
        self.device.forget(graph);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_whole() {
        let mut free = Free::whole(1000);
        let [a, b, c] = [300, 200, 400].map(|n| free.take(n).unwrap());
        assert_eq!((a, b, c, free.take(101)), (0, 300, 500, None));
        free.give(a, 300);
        assert_eq!(free.take(301), None);
        free.give(c, 400);
        // Between two free parts: one part again.
        free.give(b, 200);
        assert_eq!(free, Free::whole(1000));
    }

    /// Whatever is taken and given back, no piece overlaps another and nothing is lost.
    #[test]
    fn no_piece_overlaps() {
        let mut free = Free::whole(1 << 16);
        let mut used: Vec<(u64, u64)> = Vec::new();
        for i in 0..2000u32 {
            let [a, b, ..] = crate::runtime::random::philox(3, [i, 0, 0, 0]);
            if a % 3 != 0 || used.is_empty() {
                let len = u64::from(b % 4000 + 1);
                if let Some(at) = free.take(len) {
                    assert!(used.iter().all(|(o, l)| at + len <= *o || o + l <= at), "{at} {len} {used:?}");
                    used.push((at, len));
                }
            } else {
                let (at, len) = used.swap_remove(b as usize % used.len());
                free.give(at, len);
            }
            let held: u64 = used.iter().map(|(_, l)| l).sum();
            assert_eq!(held + free.0.values().sum::<u64>(), 1 << 16);
        }
        for (at, len) in used {
            free.give(at, len);
        }
        assert_eq!(free, Free::whole(1 << 16));
    }
}
