//! The pages of a column of a Parquet file, looked at before the crate decodes them: it makes room for
//! what the header of a page says of it before it looks at a byte of its content.

use parquet::basic::{Compression, Encoding};
use parquet::column::page::Page;
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::ChunkReader;

use super::parquet_footer::Walk;

/// Pages of this size are believed: writers make them of a mebibyte, larger ones hold large values.
const BELIEVED: u64 = 16 << 20;
/// What a header is expected to fit, and how much more is read where it does not.
const HEADER: u64 = 1 << 12;
const GROWTH: u64 = 16;
/// A block of Zstandard holds no more.
const ZSTD_BLOCK: u64 = 128 << 10;

/// The pages of a column in a row group that are still to be decoded.
pub(super) struct Pages<S> {
    source: S,
    /// Row group and column, for messages.
    place: String,
    compression: Compression,
    /// Where the next page begins, and the bytes from there to the end of the last one.
    at: u64,
    left: u64,
    /// Values in the pages so far, and in all of them.
    seen: u64,
    values: u64,
    /// The largest levels of repetition and definition.
    levels: [i16; 2],
}

impl<S: ChunkReader> Pages<S> {
    /// Of the column `column` in `group`, the row group of the number `number`.
    pub(super) fn new(
        source: S,
        number: usize,
        group: &RowGroupMetaData,
        column: usize,
    ) -> Result<Self, ParquetError> {
        let chunk = group.column(column);
        let place = format!("row group {number}, column `{}`", chunk.column_path().string());
        let wrong = |what: String| Err(ParquetError::General(format!("{place}: {what}")));
        let (rows, values) = (group.num_rows(), chunk.num_values());
        let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
        let (Ok(at), Ok(left), Ok(count)) =
            (u64::try_from(start), u64::try_from(chunk.compressed_size()), u64::try_from(values))
        else {
            let size = chunk.compressed_size();
            return wrong(format!("{values} values in {size} bytes from byte {start} cannot be"));
        };
        if chunk.column_descr().max_rep_level() == 0 && values != rows {
            return wrong(format!("{values} values cannot make {rows} rows"));
        }
        let column = chunk.column_descr();
        let levels = [column.max_rep_level(), column.max_def_level()];
        Ok(Self { source, compression: chunk.compression(), at, left, seen: 0, values: count, levels, place })
    }

    /// Pass over the page that the crate decodes next.
    ///
    /// # Errors
    /// Its header is not believed.
    pub(super) fn pass(&mut self) -> Result<(), ParquetError> {
        while self.left > 0 {
            let page = self.header()?;
            self.at += page.length;
            self.left -= page.length;
            let compressed = page.compressed;
            if compressed > self.left {
                let left = self.left;
                return self
                    .wrong(format!("a page is said to have {compressed} bytes, of which {left} follow"));
            }
            let start = self.at;
            self.at += compressed;
            self.left -= compressed;
            match page.kind {
                // The crate passes over these itself.
                Kind::Index => continue,
                Kind::Dictionary => {
                    let bytes = if self.compression == Compression::UNCOMPRESSED {
                        compressed
                    } else {
                        page.uncompressed
                    };
                    // A value takes a byte at least: bits have no dictionary.
                    if page.values > bytes {
                        let values = page.values;
                        return self
                            .wrong(format!("a dictionary of {bytes} bytes is said to have {values} values"));
                    }
                }
                Kind::Data => {
                    self.seen = self.seen.saturating_add(page.values);
                    if self.seen > self.values {
                        let (seen, values) = (self.seen, self.values);
                        return self
                            .wrong(format!("its pages have {seen} values or more instead of {values}"));
                    }
                }
            }
            return self.size(&page, start);
        }
        if self.seen < self.values {
            let (seen, values) = (self.seen, self.values);
            return self.wrong(format!("its pages have {seen} values instead of {values}"));
        }
        Ok(())
    }

    /// Whether the bytes of `page`, which begin at `start`, can become as many as it says.
    fn size(&self, page: &Header, start: u64) -> Result<(), ParquetError> {
        let Header { compressed, uncompressed, .. } = *page;
        if uncompressed <= BELIEVED || page.plain {
            return Ok(());
        }
        let most = match self.compression {
            // The crate takes such pages as they are.
            Compression::UNCOMPRESSED => return Ok(()),
            // Three bytes copy 64 at most.
            Compression::SNAPPY => compressed.saturating_mul(22),
            // Two bits copy 258 bytes at most.
            Compression::GZIP(_) => compressed.saturating_mul(1032),
            Compression::ZSTD(_) => {
                let bytes = self.source.get_bytes(start, usize::try_from(compressed)?)?;
                let levels = usize::try_from(page.levels)?;
                bytes.get(levels..).and_then(zstd_most).map_or(0, |most| most.saturating_add(page.levels))
            }
            // The crate is built without.
            _ => return Ok(()),
        };
        if uncompressed > most {
            return self.wrong(format!(
                "a page of {compressed} bytes is said to become {uncompressed}, and {most} is the most that {} \
                 could make of them",
                codec(self.compression)
            ));
        }
        Ok(())
    }

    /// Look at `page` as it was decoded: the crate makes room for as many lengths of texts as these say
    /// themselves that they are.
    ///
    /// # Errors
    /// They are more than its values.
    pub(super) fn believe(&self, page: &Page) -> Result<(), ParquetError> {
        let streams = match page {
            Page::DictionaryPage { .. } => return Ok(()),
            _ => match page.encoding() {
                Encoding::DELTA_LENGTH_BYTE_ARRAY => 1,
                // What is shared with the text before, then the rest.
                Encoding::DELTA_BYTE_ARRAY => 2,
                _ => return Ok(()),
            },
        };
        let values = u64::from(page.num_values());
        let Some(mut bytes) = self.values_of(page) else {
            return self.wrong("the levels of a page cannot be decoded".to_owned());
        };
        if bytes.is_empty() {
            return Ok(());
        }
        for _ in 0..streams {
            match differences(bytes) {
                Some((count, rest)) if count <= values => bytes = rest,
                Some((count, _)) => {
                    return self.wrong(format!("a page of {values} values is said to have {count} lengths"));
                }
                None => return self.wrong("the lengths in a page cannot be decoded".to_owned()),
            }
        }
        Ok(())
    }

    /// What follows the levels in `page`.
    fn values_of<'a>(&self, page: &'a Page) -> Option<&'a [u8]> {
        let mut bytes: &[u8] = page.buffer();
        match page {
            Page::DictionaryPage { .. } => Some(bytes),
            Page::DataPageV2 { rep_levels_byte_len, def_levels_byte_len, .. } => {
                bytes.get((*rep_levels_byte_len as usize).checked_add(*def_levels_byte_len as usize)?..)
            }
            Page::DataPage { num_values, rep_level_encoding, def_level_encoding, .. } => {
                for (most, encoding) in self.levels.into_iter().zip([rep_level_encoding, def_level_encoding])
                {
                    if most <= 0 {
                        continue;
                    }
                    let length = if *encoding == Encoding::RLE {
                        let (length, rest) = bytes.split_first_chunk::<4>()?;
                        bytes = rest;
                        u64::from(u32::from_le_bytes(*length))
                    } else {
                        let bits = u64::from(i16::BITS - most.leading_zeros());
                        (u64::from(*num_values) * bits).div_ceil(8)
                    };
                    bytes = bytes.get(usize::try_from(length).ok()?..)?;
                }
                Some(bytes)
            }
        }
    }

    /// The header of the next page.
    fn header(&self) -> Result<Header, ParquetError> {
        let mut wanted = HEADER;
        loop {
            let length = wanted.min(self.left);
            let bytes = self.source.get_bytes(self.at, usize::try_from(length)?)?;
            if let Some(header) = Header::read(&bytes) {
                return Ok(header);
            }
            if length == self.left {
                return self.wrong(format!("the page header at byte {} cannot be decoded", self.at));
            }
            // One that tells its least and its largest value may be long.
            wanted = wanted.saturating_mul(GROWTH);
        }
    }

    fn wrong<T>(&self, what: String) -> Result<T, ParquetError> {
        Err(ParquetError::General(format!("{}: {what}", self.place)))
    }
}

/// The name of a compression without its level.
pub(super) fn codec(compression: Compression) -> String {
    let name = compression.to_string();
    name.split('(').next().unwrap_or_default().to_owned()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Data,
    Index,
    Dictionary,
}

/// What matters of a `PageHeader`.
#[derive(Debug, PartialEq)]
struct Header {
    kind: Kind,
    /// Bytes of the header itself.
    length: u64,
    compressed: u64,
    uncompressed: u64,
    values: u64,
    /// Bytes of levels, which the second version of data pages leaves uncompressed.
    levels: u64,
    /// Whether that version says that the rest is not compressed either.
    plain: bool,
}

/// A field of a struct as the format has it.
#[derive(Clone, Copy)]
enum Field {
    Number,
    Truth,
    /// Passed over.
    Struct,
    Data,
    Dictionary,
    DataV2,
}

use Field::{Number, Struct, Truth};

/// From field 1 on. The crate reads what it expects, whatever a field is said to be, so that another kind
/// would be read here in another way than there.
const PAGE: &[Field] =
    &[Number, Number, Number, Number, Field::Data, Struct, Field::Dictionary, Field::DataV2];
const DATA: &[Field] = &[Number, Number, Number, Number, Struct];
const DICTIONARY: &[Field] = &[Number, Number, Truth];
const DATA_V2: &[Field] = &[Number, Number, Number, Number, Number, Number, Truth, Struct];

/// The fields of a struct by their number less one: numbers, truths as 0 and 1.
type Numbers = [Option<i64>; 8];

impl Header {
    /// At the start of `bytes`; `None` where there is none, or only a part of one.
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut walk = Walk::new(bytes);
        let (mut data, mut dictionary, mut second) = (None, None, None);
        let page = fields(&mut walk, PAGE, &mut |walk, field| {
            match field {
                Field::Data => data = Some(fields(walk, DATA, &mut nothing)?),
                Field::Dictionary => dictionary = Some(fields(walk, DICTIONARY, &mut nothing)?),
                _ => second = Some(fields(walk, DATA_V2, &mut nothing)?),
            }
            Some(())
        })?;
        let (kind, of) = match page[0]? {
            0 => (Kind::Data, data?),
            1 => (Kind::Index, [Some(0); 8]),
            2 => (Kind::Dictionary, dictionary?),
            3 => (Kind::Data, second?),
            _ => return None,
        };
        // The crate looks at the header of the second version wherever it stands.
        let (levels, plain) = match second {
            Some(second) => (size(second[4])?.checked_add(size(second[5])?)?, second[6] == Some(0)),
            None => (0, false),
        };
        Some(Self {
            kind,
            length: (bytes.len() - walk.left()) as u64,
            uncompressed: size(page[1])?,
            compressed: size(page[2])?,
            values: size(of[0])?,
            levels,
            plain,
        })
    }
}

/// A size, which is a number of 32 bits.
fn size(number: Option<i64>) -> Option<u64> {
    number.and_then(|n| i32::try_from(n).ok()).and_then(|n| u64::try_from(n).ok())
}

fn nothing(_: &mut Walk<'_>, _: Field) -> Option<()> {
    None
}

/// The fields of a struct of the fields `known`; structs that matter are read by `inner`.
fn fields(
    walk: &mut Walk<'_>,
    known: &[Field],
    inner: &mut dyn FnMut(&mut Walk<'_>, Field) -> Option<()>,
) -> Option<Numbers> {
    const TRUE: u8 = 1;
    const FALSE: u8 = 2;
    const I32: u8 = 5;
    const STRUCT: u8 = 12;
    let mut out = Numbers::default();
    let mut last = 0i16;
    while let Some((id, kind)) = walk.field(last)? {
        last = id;
        let place = usize::try_from(id).ok()?.checked_sub(1)?;
        match (known.get(place).copied(), kind) {
            // Twice is once too often.
            (Some(_), _) if out[place].is_some() => return None,
            (Some(Field::Number), I32) => out[place] = Some(walk.zigzag()?),
            (Some(Field::Truth), TRUE | FALSE) => out[place] = Some(i64::from(kind == TRUE)),
            (Some(Field::Struct), STRUCT) => {
                out[place] = Some(0);
                walk.pass(kind)?;
            }
            (Some(field @ (Field::Data | Field::Dictionary | Field::DataV2)), STRUCT) => {
                out[place] = Some(0);
                inner(walk, field)?;
            }
            (Some(_), _) => return None,
            (None, _) => walk.pass(kind)?,
        }
    }
    Some(out)
}

/// How many numbers the differences at the start of `bytes` say that they stand for, and what follows them.
fn differences(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut walk = Walk::new(bytes);
    let (block, parts, count) = (walk.varint()?, walk.varint()?, walk.varint()?);
    walk.varint()?;
    let part = block.checked_div(parts)?;
    let mut left = count.saturating_sub(1);
    while left > 0 {
        if part == 0 {
            return None;
        }
        walk.varint()?;
        let mut length = 0u64;
        for _ in 0..parts {
            let bits = walk.byte()?;
            // The widths of parts without a number say nothing.
            if left > 0 {
                length = length.checked_add(u64::from(bits).checked_mul(part)? / 8)?;
            }
            left = left.saturating_sub(part);
        }
        walk.skip(length)?;
    }
    Some((count, bytes.get(bytes.len() - walk.left()..)?))
}

/// The most bytes that the Zstandard frames of `bytes` can become; `None` for what are none.
fn zstd_most(bytes: &[u8]) -> Option<u64> {
    const FRAME: u32 = 0xfd2f_b528;
    const SKIPPED: std::ops::RangeInclusive<u32> = 0x184d_2a50..=0x184d_2a5f;
    let mut rest = bytes;
    let mut take = |n: usize| {
        let (taken, after) = rest.split_at_checked(n)?;
        rest = after;
        Some(taken)
    };
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
    let mut most = 0u64;
    loop {
        let magic = match take(4) {
            Some(magic) => number(magic) as u32,
            None => return Some(most),
        };
        if SKIPPED.contains(&magic) {
            let length = number(take(4)?);
            take(usize::try_from(length).ok()?)?;
            continue;
        }
        if magic != FRAME {
            return None;
        }
        let descriptor = *take(1)?.first()?;
        let single = descriptor >> 5 & 1 == 1;
        // A window where the content is not one, and the number of a dictionary.
        take(usize::from(!single) + [0, 1, 2, 4][usize::from(descriptor & 3)])?;
        let content = take(match descriptor >> 6 {
            0 => usize::from(single),
            n => 1 << n,
        })?;
        let content = match content.len() {
            0 => u64::MAX,
            2 => number(content) + 256,
            _ => number(content),
        };
        let mut blocks = 0u64;
        loop {
            let block = number(take(3)?);
            let size = block >> 3;
            let (stored, made) = match block >> 1 & 3 {
                0 => (size, size),
                1 => (1, size),
                2 => (size, ZSTD_BLOCK),
                _ => return None,
            };
            take(usize::try_from(stored).ok()?)?;
            blocks = blocks.saturating_add(made);
            if block & 1 == 1 {
                break;
            }
        }
        most = most.saturating_add(blocks.min(content));
        if descriptor >> 2 & 1 == 1 {
            take(4)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data page of the first version: type, uncompressed and compressed size, values; all below 64.
    fn page(uncompressed: u8, compressed: u8, values: u8) -> Vec<u8> {
        let body = [0x15, 2 * values, 0x15, 0, 0x15, 6, 0x15, 6, 0];
        [&[0x15, 0, 0x15, 2 * uncompressed, 0x15, 2 * compressed, 0x2c][..], &body, &[0]].concat()
    }

    #[test]
    fn a_header_is_read_as_the_format_has_it() {
        let bytes = page(30, 20, 7);
        let header = Header::read(&[&bytes[..], b"content"].concat()).unwrap();
        let expect = Header {
            kind: Kind::Data,
            length: bytes.len() as u64,
            compressed: 20,
            uncompressed: 30,
            values: 7,
            levels: 0,
            plain: false,
        };
        assert_eq!(header, expect);
        assert_eq!(Header::read(&bytes[..bytes.len() - 1]), None);
        // A size said to be text, which the crate would read as a number.
        let mut lie = bytes.clone();
        lie[2] = 0x18;
        assert_eq!(Header::read(&lie), None);
        // The second size again, by its number.
        let again = [&bytes[..bytes.len() - 1], &[0x05, 4, 60, 0]].concat();
        assert_eq!(Header::read(&again), None);
        // The same number with a bit more than sixteen have: the crate takes it for the second.
        let far = [&bytes[..bytes.len() - 1], &[0x05, 0x84, 0x80, 0x08, 60, 0]].concat();
        assert_eq!(Header::read(&far), None);
        // Below nothing.
        let mut less = bytes;
        less[3] = 59;
        assert_eq!(Header::read(&less), None);
    }

    #[test]
    fn differences_say_how_many_they_are() {
        // Blocks of 128 in four parts: 35 numbers from 7, in widths of 1 and 2; then a block more.
        let one = [&[0x80, 1, 4, 35, 14, 2, 1, 2, 9, 9][..], &[0; 4 + 8], &[1, 2, 3]].concat();
        assert_eq!(differences(&one), Some((35, &[1, 2, 3][..])));
        assert_eq!(differences(&one[..20]), None);
        assert_eq!(differences(&[0x80, 1, 4, 1, 14, 5]), Some((1, &[5][..])));
        assert_eq!(differences(&[0x80, 1, 0, 1, 14, 5]), None);
        assert_eq!(differences(&[0, 4, 9, 14, 5]), None);
    }

    #[test]
    fn frames_of_zstandard_become_no_more_than_said() {
        use std::io::Write;
        let text: Vec<u8> = (0..3_000_000u32).flat_map(|i| (i / 700).to_le_bytes()).collect();
        for level in [1, 3, 19] {
            for content in [&text[..], &text[..300], &[], &[7; 5_000_000]] {
                let whole = zstd::bulk::compress(content, level).unwrap();
                let mut encoder = zstd::stream::Encoder::new(Vec::new(), level).unwrap();
                encoder.include_checksum(true).unwrap();
                encoder.write_all(content).unwrap();
                let streamed = encoder.finish().unwrap();
                let both = [&whole[..], &[0x53, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2], &streamed].concat();
                for (bytes, times) in [(&whole, 1), (&streamed, 1), (&both, 2)] {
                    let (most, real) = (zstd_most(bytes).unwrap(), (times * content.len()) as u64);
                    assert!(real <= most, "{real} of at most {most}");
                    assert_eq!(zstd_most(&bytes[..bytes.len() - 1]), None);
                }
                assert_eq!(zstd_most(&whole), Some(content.len() as u64));
                // A content that the blocks cannot be.
                let mut lie = whole.clone();
                if lie[4] >> 6 == 2 {
                    lie[5..9].copy_from_slice(&u32::MAX.to_le_bytes());
                    assert!(zstd_most(&lie).unwrap() < 1 << 30);
                }
            }
        }
        assert_eq!(zstd_most(b"no frame"), None);
    }
}
