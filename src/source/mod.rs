//! Files and places in them: [`FileId`], [`Span`], the [`Files`] trait and [`LineIndex`].
//! Knows nothing of the language.

mod hidden;
mod line_index;
mod memory;

pub use hidden::hidden_from;
pub use line_index::{LineIndex, Position};
pub use memory::MemoryFiles;

use serde::{Deserialize, Serialize};

/// A file known to one [`Files`] set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileId(pub u32);

/// A half-open byte range in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    /// The file the bytes belong to.
    pub file: FileId,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The range `start..end` of `file`.
    pub fn new(file: FileId, start: usize, end: usize) -> Self {
        Self { file, start: start as u32, end: end as u32 }
    }

    /// The smallest span that covers both; both must be in one file.
    pub fn to(self, other: Span) -> Span {
        debug_assert_eq!(self.file, other.file);
        Span { file: self.file, start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// The range as `usize`, for slicing.
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// How the compiler reads source text. The only way `sema` reaches a file: the command line reads
/// the disk, the language server reads open buffers first, tests read a map.
pub trait Files {
    /// Load `path` (relative paths are relative to the directory of `from`, or to the working
    /// directory). The same file loaded twice has the same id.
    ///
    /// # Errors
    /// A sentence that says why the file could not be read.
    fn load(&mut self, path: &str, from: Option<FileId>) -> Result<FileId, String>;
    /// The text of a loaded file.
    fn text(&self, file: FileId) -> &str;
    /// The path as shown to people.
    fn name(&self, file: FileId) -> &str;
    /// Paths that match a glob, relative to the directory of `from`; empty if none, or if this
    /// set has no disk behind it.
    fn glob(&self, pattern: &str, from: FileId) -> Vec<std::path::PathBuf>;
    /// The text of a data or configuration file beside `from` that is no curriculum (`config.json`); `None` when there
    /// is no such file here.
    ///
    /// # Errors
    /// Half a sentence on why what is there cannot be read.
    fn read_beside(&self, path: &str, from: FileId) -> Result<Option<String>, String>;
}
