//! A text or source file as one document.

use std::io::Read;
use std::path::Path;

use super::{Body, DataError, Item, Items, MAX_RECORD, read_error};

pub(super) fn whole(path: &Path, bytes: Box<dyn Read + Send>) -> Result<Items, DataError> {
    let mut text = Vec::new();
    let read = bytes.take(MAX_RECORD + 1).read_to_end(&mut text).map_err(|e| read_error(path, e))?;
    if read as u64 > MAX_RECORD {
        let what = format!("a text file is one document and may have {MAX_RECORD} bytes at most");
        return Err(DataError::Damaged { path: path.to_owned(), what });
    }
    if text.starts_with(b"\xEF\xBB\xBF") {
        text.drain(..3);
    }
    Ok(Box::new(std::iter::once(Ok(Item { record: 1, body: Body::Text(text) }))))
}
