//! Parquet: only the columns the source needs, a row group at a time. The only file that names the
//! parquet crate.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::Path;
use std::sync::{Arc, Once};

use bytes::Bytes;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta};
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, FileReader, Length, RowGroupReader, SerializedFileReader};
use parquet::record::reader::{ReaderIter, RowIter, TreeBuilder};
use parquet::record::{Field, Row};
use parquet::schema::types::{SchemaDescriptor, Type};
use serde_json::{Map, Number, Value};

use super::parquet_pages::{Pages, codec};
use super::{Body, DataError, Item, Items, View, parquet_footer};

/// Rows of the file as objects of the columns in `fields` (roots of nested ones; absent columns
/// are left out), or of all columns; a file without those that are needed is refused.
pub(super) fn open(path: &Path, view: &View) -> Result<Items, DataError> {
    let fields = view.fields.as_deref();
    let damaged = {
        let path = path.to_owned();
        move |what: String| DataError::Damaged { path: path.clone(), what }
    };
    let file = File::open(path).map_err(DataError::io("open", path))?;
    let opened = guarded(|| {
        let source = Source { length: file.metadata()?.len(), file: Arc::new(file) };
        if let Some(footer) = footer(&source)? {
            parquet_footer::check(&footer).map_err(ParquetError::General)?;
        }
        let reader = SerializedFileReader::new(source.clone())?;
        let schema = projection(reader.metadata().file_metadata().schema(), fields)?;
        let columns = Arc::new(SchemaDescriptor::new(Arc::new(schema)));
        Ok::<_, ParquetError>((source, reader, columns))
    });
    let (source, reader, columns) = opened.map_err(&damaged)?;
    let names: Vec<&str> =
        reader.metadata().file_metadata().schema().get_fields().iter().map(|f| f.name()).collect();
    for wanted in &view.needed {
        if !wanted.iter().any(|field| names.iter().any(|name| covers(name, field))) {
            return Err(DataError::NoColumn {
                path: path.to_owned(),
                wanted: wanted.clone(),
                columns: names.into_iter().map(str::to_owned).collect(),
            });
        }
    }
    if let Some(compression) = unread(reader.metadata(), fields) {
        return Err(DataError::Compression { path: path.to_owned(), compression });
    }
    let nanos = columns_in_nanoseconds(reader.metadata().file_metadata().schema());
    let groups = reader.num_row_groups();
    // Rows of nothing: as many as the footer claims.
    if columns.num_columns() == 0 && groups > 0 {
        return Err(damaged("none of its columns is one that is read".to_owned()));
    }
    let (mut group, mut record, mut failed) = (0, 0, false);
    let mut rows: Option<ReaderIter> = None;
    Ok(Box::new(std::iter::from_fn(move || {
        if failed {
            return None;
        }
        // A row at a time: a group of a few bytes may stand for any number of them.
        let next = guarded(|| {
            loop {
                if let Some(row) = rows.as_mut().and_then(Iterator::next) {
                    let mut columns = columns_of(&row?);
                    for name in &nanos {
                        if let Some(value) = columns.get_mut(name) {
                            *value = value.as_i64().map_or(Value::Null, |n| {
                                moment(DateTime::from_timestamp_nanos(n).naive_utc())
                            });
                        }
                    }
                    return Ok(Some(columns));
                }
                if group == groups {
                    return Ok(None);
                }
                let inner = reader.get_row_group(group)?;
                let row_group = Columns { inner, number: group, source: &source };
                rows = Some(TreeBuilder::new().as_iter(columns.clone(), &row_group)?);
                group += 1;
            }
        });
        match next {
            Ok(row) => {
                record += 1;
                row.map(|row| Ok(Item { record, body: Body::Row(row) }))
            }
            Err(what) => {
                failed = true;
                Some(Err(damaged(format!("after record {record}: {what}"))))
            }
        }
    })))
}

/// The name of a compression that is not read, where a column that is wanted has it.
fn unread(metadata: &ParquetMetaData, fields: Option<&[String]>) -> Option<String> {
    let columns = metadata.row_groups().iter().flat_map(RowGroupMetaData::columns);
    let mut wanted = columns.filter(|column| {
        let root = column.column_path().parts().first().map_or("", String::as_str);
        fields.is_none_or(|fields| fields.iter().any(|field| covers(root, field)))
    });
    let read = |compression| {
        matches!(
            compression,
            Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::GZIP(_) | Compression::ZSTD(_)
        )
    };
    wanted.find(|column| !read(column.compression())).map(|column| codec(column.compression()))
}

/// Moments that the crate gives as the numbers that they are stored as: those of NumPy and pandas.
fn columns_in_nanoseconds(schema: &Type) -> Vec<String> {
    let is = |kind: Option<&LogicalType>| matches!(kind, Some(LogicalType::Timestamp(t)) if t.unit == TimeUnit::NANOS);
    let fields = schema.get_fields().iter().filter(|field| field.is_primitive());
    fields
        .filter(|field| is(field.get_basic_info().logical_type_ref()))
        .map(|field| field.name().to_owned())
        .collect()
}

/// The encoded `FileMetaData` at the end of a file; `None` where the crate will say that there is none.
fn footer(source: &Source) -> Result<Option<Bytes>, ParquetError> {
    const TAIL: u64 = 8;
    let Some(start) = source.length.checked_sub(TAIL) else { return Ok(None) };
    let tail = source.get_bytes(start, TAIL as usize)?;
    let Some((length, b"PAR1")) = tail.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length);
    match start.checked_sub(u64::from(length)) {
        Some(start) => source.get_bytes(start, length as usize).map(Some),
        None => Ok(None),
    }
}

/// The file, whose end is an error to read beyond. The crate's own reader of files gives no bytes there,
/// which some of its loops take for any number of them, and allocates what a damaged length asks for.
#[derive(Clone)]
struct Source {
    file: Arc<File>,
    length: u64,
}

impl Length for Source {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Source {
    type T = BufReader<ToTheEnd>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(start))?;
        Ok(BufReader::new(ToTheEnd(file)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.length) {
            let problem = format!("{length} bytes from byte {start} are wanted of {}", self.length);
            return Err(ParquetError::EOF(problem));
        }
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes)?;
        Ok(bytes.into())
    }
}

/// Reads as the file does, but never nothing.
struct ToTheEnd(File);

impl Read for ToTheEnd {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buffer)? {
            0 if !buffer.is_empty() => Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => Ok(n),
        }
    }
}

/// A row group whose pages are looked at before the crate believes them.
struct Columns<'a> {
    inner: Box<dyn RowGroupReader + 'a>,
    /// Its number in the file.
    number: usize,
    source: &'a Source,
}

impl RowGroupReader for Columns<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.inner.metadata()
    }

    fn num_columns(&self) -> usize {
        self.inner.num_columns()
    }

    fn get_column_page_reader(&self, i: usize) -> Result<Box<dyn PageReader>, ParquetError> {
        let pages = Pages::new(self.source.clone(), self.number, self.metadata(), i)?;
        Ok(Box::new(Column { pages, inner: self.inner.get_column_page_reader(i)? }))
    }

    fn get_column_bloom_filter(&self, i: usize) -> Option<&Sbbf> {
        self.inner.get_column_bloom_filter(i)
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>, ParquetError> {
        RowIter::from_row_group(projection, self)
    }
}

/// The crate's reader of the pages of a column, asked for one when its header was believed.
struct Column {
    pages: Pages<Source>,
    inner: Box<dyn PageReader>,
}

impl PageReader for Column {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        loop {
            self.pages.pass()?;
            let Some(page) = self.inner.get_next_page()? else { return Ok(None) };
            self.pages.believe(&page)?;
            // The crate takes a page of no values for the end of its column.
            if page.num_values() > 0 || matches!(page, Page::DictionaryPage { .. }) {
                return Ok(Some(page));
            }
        }
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        self.inner.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        self.pages.pass()?;
        self.inner.skip_next_page()
    }
}

impl Iterator for Column {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

thread_local! {
    /// Whether this thread is in [`guarded`], where a panic is told of as an error.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}
static QUIET: Once = Once::new();

/// The crate's decoders assert what they expect of pages; for a damaged file that is an error
/// like any other.
fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    QUIET.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                before(info);
            }
        }));
    });
    GUARDED.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(read));
    GUARDED.set(false);
    match outcome {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("its pages cannot be decoded".to_owned()),
    }
}

fn projection(schema: &Type, fields: Option<&[String]>) -> Result<Type, ParquetError> {
    let wanted = |column: &str| fields.is_none_or(|fields| fields.iter().any(|f| covers(column, f)));
    let columns: Vec<_> = schema.get_fields().iter().filter(|f| wanted(f.name())).cloned().collect();
    let mut builder = Type::group_type_builder(schema.name()).with_fields(columns);
    if schema.get_basic_info().has_repetition() {
        builder = builder.with_repetition(Repetition::REQUIRED);
    }
    builder.build()
}

/// Whether `field` is the column or in it.
fn covers(column: &str, field: &str) -> bool {
    field == column || field.strip_prefix(column).is_some_and(|rest| rest.starts_with('.'))
}

fn columns_of(row: &Row) -> Map<String, Value> {
    row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect()
}

fn value(field: &Field) -> Value {
    let float = |v: f64| Number::from_f64(v).map_or(Value::Null, Value::Number);
    match field {
        Field::Null => Value::Null,
        Field::Bool(v) => (*v).into(),
        Field::Byte(v) => (*v).into(),
        Field::Short(v) => (*v).into(),
        Field::Int(v) => (*v).into(),
        Field::Long(v) => (*v).into(),
        // As JSON has them, and comparable with what a curriculum writes.
        Field::Date(days) => NaiveDate::default()
            .checked_add_signed(TimeDelta::days(i64::from(*days)))
            .map_or(Value::Null, |day| day.to_string().into()),
        Field::TimeMillis(v) => time(i64::from(*v) * 1000),
        Field::TimeMicros(v) => time(*v),
        Field::TimestampMillis(v) => {
            DateTime::from_timestamp_millis(*v).map_or(Value::Null, |at| moment(at.naive_utc()))
        }
        Field::TimestampMicros(v) => {
            DateTime::from_timestamp_micros(*v).map_or(Value::Null, |at| moment(at.naive_utc()))
        }
        Field::UByte(v) => (*v).into(),
        Field::UShort(v) => (*v).into(),
        Field::UInt(v) => (*v).into(),
        Field::ULong(v) => (*v).into(),
        Field::Float16(v) => float(f64::from(v.to_f32())),
        // The decimal that it stands for: 0.3, not the 0.30000001192092896 of twice the width.
        Field::Float(v) => float(v.to_string().parse().unwrap_or_else(|_| f64::from(*v))),
        Field::Double(v) => float(*v),
        Field::Str(v) => v.as_str().into(),
        // Text that the writer did not annotate as such.
        Field::Bytes(v) => match std::str::from_utf8(v.data()) {
            Ok(text) => text.into(),
            Err(_) => Value::Null,
        },
        Field::Group(row) => Value::Object(columns_of(row)),
        Field::ListInternal(list) => list.elements().iter().map(value).collect::<Vec<_>>().into(),
        Field::MapInternal(map) => {
            let entries = map.entries().iter().filter_map(|(k, v)| match k {
                Field::Str(k) => Some((k.clone(), value(v))),
                _ => None,
            });
            Value::Object(entries.collect())
        }
        other => Value::String(other.to_string()),
    }
}

/// `2025-07-08T12:30:00`, with fractions of a second where there are any.
fn moment(at: NaiveDateTime) -> Value {
    at.format("%Y-%m-%dT%H:%M:%S%.f").to_string().into()
}

/// Microseconds since midnight as `12:30:00`.
fn time(micros: i64) -> Value {
    NaiveTime::MIN
        .overflowing_add_signed(TimeDelta::microseconds(micros))
        .0
        .format("%H:%M:%S%.f")
        .to_string()
        .into()
}
