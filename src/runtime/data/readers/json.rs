//! A `.json` file that is one array: its elements are the records. They are cut apart here and parsed by the
//! threads that tokenise, as lines are.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::{Body, Compression, DataError, Item, MAX_RECORD, decoded, read_error};

/// Bytes looked at to tell an array from lines.
const PEEK: u64 = 4096;

/// Whether the first thing in a file is `[`. One that cannot be read is not: whoever reads it says why.
pub(super) fn is_array(path: &Path, compression: Compression) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let mut head = Vec::new();
    let read = decoded(file, compression).and_then(|bytes| bytes.take(PEEK).read_to_end(&mut head));
    let head = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&head);
    read.is_ok() && head.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[')
}

/// Iterator over the elements of the arrays that `bytes` are: one, or one to a line. What is broken comes as a record
/// that cannot be read, as a broken line does.
pub(super) struct Elements {
    path: PathBuf,
    element: u64,
    /// Whether an array is open.
    opened: bool,
    bytes: Option<BufReader<Box<dyn Read + Send>>>,
}

impl Elements {
    pub(super) fn new(path: &Path, bytes: Box<dyn Read + Send>) -> Self {
        let bytes = Some(BufReader::with_capacity(1 << 18, bytes));
        Self { path: path.to_owned(), element: 0, opened: false, bytes }
    }

    /// The next element, `None` at the end. Commas and blanks are no part of it.
    fn cut(&mut self) -> Result<Option<Vec<u8>>, DataError> {
        let Some(bytes) = self.bytes.as_mut() else { return Ok(None) };
        let mut value = Vec::new();
        // Brackets that are open within the element, and what a byte in a string means.
        let (mut depth, mut string, mut escaped) = (0usize, false, false);
        loop {
            let chunk = bytes.fill_buf().map_err(|e| read_error(&self.path, e))?;
            if chunk.is_empty() {
                self.bytes = None;
                // Cut off: the bracket alone says so where nothing else is left.
                return Ok(self.opened.then(|| if value.is_empty() { b"[".to_vec() } else { value }));
            }
            let (mut used, mut ended) = (0, false);
            for &byte in chunk {
                used += 1;
                if string {
                    (string, escaped) = (byte != b'"' || escaped, byte == b'\\' && !escaped);
                    value.push(byte);
                    continue;
                }
                match byte {
                    _ if byte.is_ascii_whitespace() && value.is_empty() => continue,
                    b'[' if !self.opened => {
                        self.opened = true;
                        continue;
                    }
                    // A byte order mark, and commas between arrays.
                    0xEF | 0xBB | 0xBF | b',' if !self.opened => continue,
                    b',' | b']' if depth == 0 => {
                        self.opened = byte == b',';
                        if value.is_empty() {
                            continue;
                        }
                        ended = true;
                        break;
                    }
                    b'[' | b'{' => depth += 1,
                    b']' | b'}' => depth = depth.saturating_sub(1),
                    b'"' => string = true,
                    _ => {}
                }
                self.opened = true;
                value.push(byte);
            }
            bytes.consume(used);
            if value.len() as u64 > MAX_RECORD {
                let what = format!("element {} is longer than {MAX_RECORD} bytes", self.element + 1);
                return Err(DataError::Damaged { path: self.path.clone(), what });
            }
            if ended {
                while value.last().is_some_and(u8::is_ascii_whitespace) {
                    value.pop();
                }
                return Ok(Some(value));
            }
        }
    }
}

impl Iterator for Elements {
    type Item = Result<Item, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.cut() {
            Ok(Some(value)) => {
                self.element += 1;
                Some(Ok(Item { record: self.element, body: Body::Json(value) }))
            }
            Ok(None) => None,
            Err(error) => {
                self.bytes = None;
                Some(Err(error))
            }
        }
    }
}
