//! Lines of a `.jsonl` file. Parsing them is left to the threads that tokenise.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::{Body, DataError, Item, MAX_RECORD, read_error};

/// Iterator over the lines of `bytes`, blank ones included (they are counted as bad records; an
/// end of file after a line end is no line).
pub(super) struct Lines {
    path: PathBuf,
    line: u64,
    bytes: Option<BufReader<Box<dyn Read + Send>>>,
}

impl Lines {
    pub(super) fn new(path: &Path, lines_before: u64, bytes: Box<dyn Read + Send>) -> Self {
        Self {
            path: path.to_owned(),
            line: lines_before,
            bytes: Some(BufReader::with_capacity(1 << 18, bytes)),
        }
    }
}

impl Iterator for Lines {
    type Item = Result<Item, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.bytes.as_mut()?;
        let mut line = Vec::new();
        let read = bytes.by_ref().take(MAX_RECORD).read_until(b'\n', &mut line);
        match read {
            Ok(0) => {
                self.bytes = None;
                None
            }
            Ok(n) if n as u64 == MAX_RECORD && line.last() != Some(&b'\n') => {
                self.bytes = None;
                let what = format!("line {} is longer than {MAX_RECORD} bytes", self.line + 1);
                Some(Err(DataError::Damaged { path: self.path.clone(), what }))
            }
            Ok(_) => {
                self.line += 1;
                while line.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
                    line.pop();
                }
                if self.line == 1 && line.starts_with(b"\xEF\xBB\xBF") {
                    line.drain(..3);
                }
                Some(Ok(Item { record: self.line, body: Body::Json(line) }))
            }
            Err(error) => {
                self.bytes = None;
                Some(Err(read_error(&self.path, error)))
            }
        }
    }
}
