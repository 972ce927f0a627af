//! How long work tells that it moves. The command line draws it; the runtime only speaks.

/// Hears about long work. Called from several threads.
pub trait Progress: Sync {
    /// Work on `what` begins; `total` bytes will be read.
    fn begin(&self, what: &str, total: u64);
    /// `bytes` more were read.
    fn advance(&self, bytes: u64);
    /// The work that began last has ended.
    fn end(&self);
    /// Something worth a line, such as a damaged cache that is made anew.
    fn note(&self, text: &str);
    /// Whether the work is to be given up: it ends with [`DataError::Stopped`](super::DataError::Stopped).
    fn stopped(&self) -> bool {
        false
    }
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {}
    fn note(&self, _: &str) {}
}
