//! The footer of a Parquet file, looked over before the crate decodes it: the crate makes room for as
//! many entries as a length says. Thrift's compact protocol, of which only the skeleton is read.

/// Structs and lists within each other beyond which it is no Parquet.
const DEEPEST: usize = 16;
/// `FileMetaData.schema`, and `SchemaElement.num_children` in it.
const SCHEMA: i16 = 2;
const NUM_CHILDREN: i16 = 5;

/// Whether every length in the footer (`FileMetaData`, without the trailing length and magic) is one that
/// its bytes can hold; otherwise what is wrong.
pub(super) fn check(footer: &[u8]) -> Result<(), String> {
    let mut walk = Walk::new(footer);
    walk.structure(At::Root, 0).ok_or_else(|| match walk.elements {
        0 => "its footer cannot be decoded".to_owned(),
        n => format!("its footer tells of {n} entries in {} bytes", footer.len()),
    })
}

/// Which struct is walked through, as far as it matters.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Root,
    /// An element of `FileMetaData.schema`.
    Schema,
    Elsewhere,
}

/// Through a struct of Thrift's compact protocol.
pub(super) struct Walk<'a> {
    rest: &'a [u8],
    /// The length that could not be.
    elements: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, elements: 0 }
    }

    /// Bytes that are still to be read.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// Number and kind of the field after the one of the number `last`, 0 for none; `Some(None)` at the
    /// end of the struct.
    pub(super) fn field(&mut self, last: i16) -> Option<Option<(i16, u8)>> {
        let header = self.byte()?;
        if header == 0 {
            return Some(None);
        }
        let id = match header >> 4 {
            // The crate cuts longer numbers off.
            0 => i16::try_from(self.zigzag()?).ok()?,
            step => last.checked_add(i16::from(step))?,
        };
        Some(Some((id, header & 0x0f)))
    }

    /// Pass over a field of the kind `kind`.
    pub(super) fn pass(&mut self, kind: u8) -> Option<()> {
        // The value of a boolean field is its kind.
        if matches!(kind, 1 | 2) { Some(()) } else { self.value(kind, At::Elsewhere, 0) }
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    pub(super) fn skip(&mut self, bytes: u64) -> Option<()> {
        let bytes = usize::try_from(bytes).ok()?;
        self.rest = self.rest.get(bytes..)?;
        Some(())
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A number of things of which each takes a byte at least.
    fn count(&mut self, count: u64) -> Option<u64> {
        if count > self.rest.len() as u64 {
            self.elements = count;
            return None;
        }
        Some(count)
    }

    fn structure(&mut self, at: At, depth: usize) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        let mut last = 0;
        while let Some((id, kind)) = self.field(last)? {
            last = id;
            if at == At::Schema && id == NUM_CHILDREN {
                // The crate reads a number there, whatever the field is said to be.
                let children = self.zigzag()?;
                self.count(u64::try_from(children).unwrap_or(u64::MAX))?;
                if kind != 5 {
                    return None;
                }
            } else if !matches!(kind, 1 | 2) {
                // The value of a boolean field is its kind.
                let inner = if at == At::Root && id == SCHEMA { At::Schema } else { At::Elsewhere };
                self.value(kind, inner, depth)?;
            }
        }
        Some(())
    }

    fn value(&mut self, kind: u8, at: At, depth: usize) -> Option<()> {
        match kind {
            1..=3 => self.skip(1),
            4..=6 => self.varint().map(drop),
            7 => self.skip(8),
            8 => {
                let length = self.varint()?;
                self.skip(length)
            }
            9 | 10 => {
                let header = self.byte()?;
                let count = match header >> 4 {
                    15 => self.varint()?,
                    count => u64::from(count),
                };
                for _ in 0..self.count(count)? {
                    self.value(header & 0x0f, at, depth + 1)?;
                }
                Some(())
            }
            11 => {
                let count = self.varint()?;
                if self.count(count)? == 0 {
                    return Some(());
                }
                let kinds = self.byte()?;
                for _ in 0..count {
                    self.value(kinds >> 4, at, depth + 1)?;
                    self.value(kinds & 0x0f, at, depth + 1)?;
                }
                Some(())
            }
            12 => self.structure(at, depth + 1),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    /// Version 1 and a schema of one element with so many children (zigzag, two bytes).
    fn footer(children: [u8; 2]) -> Vec<u8> {
        let mut bytes = vec![0x15, 2, 0x19, 0x1c, 0x55];
        bytes.extend(children);
        bytes.extend([0, 0]);
        bytes
    }

    #[test]
    fn a_length_must_fit_the_footer() {
        assert_eq!(check(&footer([0x80, 0])), Ok(()));
        assert_eq!(check(&footer([0x84, 0])), Ok(()));
        let told = check(&footer([0xd0, 0x0f])).unwrap_err();
        assert!(told.contains("1000 entries"), "{told}");
        // A list of 2²⁰ elements.
        let told = check(&[0x19, 0xfc, 0x80, 0x80, 0x40, 0]).unwrap_err();
        assert!(told.contains("1048576 entries"), "{told}");
        assert!(check(&footer([0x80, 0])[..5]).is_err());
        assert!(check(&[0x1c; 100]).is_err());
    }
}
