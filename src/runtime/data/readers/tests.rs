//! Every reader on good files, and on files cut, flipped and made up at random: records or an
//! error, never a panic.

use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

const VIEW: View = View { vocab_size: 5000, eos: 0, fields: None, needed: Vec::new() };

fn read(path: &Path) -> Result<Vec<Item>, DataError> {
    let format = Format::of(path).unwrap();
    let stretch = Stretch { path: path.to_owned(), format, range: None, records_before: 0 };
    open(&stretch, &VIEW)?.collect()
}

fn file(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn lines(items: Vec<Item>) -> Vec<(u64, String)> {
    let text = |body| match body {
        Body::Json(b) | Body::Text(b) => String::from_utf8(b).unwrap(),
        other => format!("{other:?}"),
    };
    items.into_iter().map(|i| (i.record, text(i.body))).collect()
}

fn tokens(items: Vec<Item>) -> Vec<Vec<u32>> {
    let tokens = |item: Item| match item.body {
        Body::Tokens(t) => t,
        other => panic!("{other:?}"),
    };
    items.into_iter().map(tokens).collect()
}

#[test]
fn lines_are_counted_through_every_compression() {
    let dir = tempfile::tempdir().unwrap();
    let text = b"\xEF\xBB\xBF{\"a\": 1}\r\n\n{\"b\": 2}\n{\"c\": 3}";
    let expect =
        [(1, "{\"a\": 1}"), (2, ""), (3, "{\"b\": 2}"), (4, "{\"c\": 3}")].map(|(n, t)| (n, t.to_owned()));
    let (head, tail) = text.split_at(10);
    for (name, bytes) in [
        ("a.jsonl", text.to_vec()),
        ("a.jsonl.gz", gzip(text)),
        ("members.jsonl.gz", [gzip(head), gzip(tail)].concat()),
        ("a.jsonl.zst", zstd::encode_all(&text[..], 3).unwrap()),
        (
            "frames.jsonl.zst",
            [zstd::encode_all(head, 1).unwrap(), zstd::encode_all(tail, 1).unwrap()].concat(),
        ),
    ] {
        assert_eq!(lines(read(&file(&dir, name, &bytes)).unwrap()), expect, "{name}");
    }
}

#[test]
fn elements_of_an_array_are_cut_apart() {
    let dir = tempfile::tempdir().unwrap();
    let text =
        "\u{feff} [\n  {\"a\": \"],[ \\\" \\\\\", \"b\": [1, {\"c\": []}]} ,\r\n{}, 3, \"x\", [4]\n]\n";
    let expect = ["{\"a\": \"],[ \\\" \\\\\", \"b\": [1, {\"c\": []}]}", "{}", "3", "\"x\"", "[4]"];
    for (name, bytes) in [("a.json", text.as_bytes().to_vec()), ("a.json.gz", gzip(text.as_bytes()))] {
        let found: Vec<String> =
            lines(read(&file(&dir, name, &bytes)).unwrap()).into_iter().map(|l| l.1).collect();
        assert_eq!(found, expect, "{name}");
    }
    assert!(read(&file(&dir, "none.json", b"[]")).unwrap().is_empty());
    // What is cut off is a record that cannot be read.
    for cut in text.find('[').unwrap() + 1..text.trim_end().len() {
        let path = file(&dir, "cut.json", &text.as_bytes()[..cut]);
        let found = lines(read(&path).unwrap());
        let (last, before) = found.split_last().unwrap();
        assert!(before.iter().zip(expect).all(|((_, found), whole)| found == whole), "{cut}");
        let complete = expect[before.len().min(4)] == last.1.trim();
        assert!(complete || serde_json::from_str::<serde_json::Value>(&last.1).is_err(), "{cut}: {last:?}");
    }
    // One array to a line, and whatever stands behind one.
    let many = file(&dir, "many.json", b"[{\"a\": 1}]\n[{\"a\": 2}, 3], []\n{\"a\": 4}\n");
    let found: Vec<String> = lines(read(&many).unwrap()).into_iter().map(|l| l.1).collect();
    assert_eq!(found, ["{\"a\": 1}", "{\"a\": 2}", "3", "{\"a\": 4}\n"]);
    // Lines, as ever.
    let path = file(&dir, "lines.json", b"{\"text\": \"a\"}\n{\"text\": \"b\"}\n");
    assert_eq!(Format::of(&path), Some(Format::Jsonl(Compression::None)));
    assert_eq!(Format::of(Path::new("table.csv")), None);
}

#[test]
fn a_text_file_is_a_document() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("a.md", b"# a\n\nb\n".to_vec()),
        ("a.rs", b"# a\n\nb\n".to_vec()),
        ("a.txt.gz", gzip(b"# a\n\nb\n")),
    ] {
        assert_eq!(lines(read(&file(&dir, name, &bytes)).unwrap()), [(1, "# a\n\nb\n".to_owned())]);
    }
}

#[test]
fn truncated_archives_are_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let text = "{\"text\": \"abcdefgh\"}\n".repeat(5000).into_bytes();
    for (name, bytes) in
        [("a.jsonl.gz", gzip(&text)), ("a.jsonl.zst", zstd::encode_all(&text[..], 1).unwrap())]
    {
        let path = file(&dir, name, &bytes[..bytes.len() - 7]);
        let error = read(&path).unwrap_err();
        assert!(matches!(error, DataError::Damaged { .. }), "{error:?}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

fn numpy(descr: &str, count: usize, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({count},), }}\n");
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend_from_slice(&(header.len() as u16).to_le_bytes());
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(data);
    out
}

fn u16s(tokens: &[u16]) -> Vec<u8> {
    tokens.iter().flat_map(|t| t.to_le_bytes()).collect()
}

fn u32s(tokens: &[u32]) -> Vec<u8> {
    tokens.iter().flat_map(|t| t.to_le_bytes()).collect()
}

#[test]
fn token_files_of_every_kind_are_split_at_the_end_token() {
    let dir = tempfile::tempdir().unwrap();
    let ids = [5u16, 6, 0, 7, 0, 4999, 8];
    let wide = ids.map(u32::from);
    let expect = vec![vec![5, 6, 0], vec![7, 0], vec![4999, 8]];
    let mut llmc = vec![0u32; 256];
    (llmc[0], llmc[1], llmc[2]) = (20_240_520, 1, ids.len() as u32);
    let llmc = [u32s(&llmc), u16s(&ids)].concat();
    for (name, bytes) in [
        ("np16.npy", numpy("<u2", 7, &u16s(&ids))),
        ("np32.npy", numpy("<u4", 7, &u32s(&wide))),
        (
            "np64.npy",
            numpy("<i8", 7, &wide.iter().flat_map(|t| u64::from(*t).to_le_bytes()).collect::<Vec<_>>()),
        ),
        (
            "raw64.bin",
            [&wide[..], &[0, 1, 0]].concat().iter().flat_map(|t| u64::from(*t).to_le_bytes()).collect(),
        ),
        ("raw16.npy", u16s(&ids)),
        ("raw32.npy", u32s(&wide)),
        ("nano.bin", u16s(&ids)),
        ("llmc.bin", llmc),
    ] {
        let got = tokens(read(&file(&dir, name, &bytes)).unwrap());
        match name {
            // Of so few bytes in more ways than one.
            "raw64.bin" => assert_eq!(got, [&expect[..2], &[vec![4999, 8, 0], vec![1, 0]]].concat()),
            _ => assert_eq!(got, expect, "{name}"),
        }
    }
}

#[test]
fn token_files_that_do_not_fit_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let header = b"\x93NUMPY\x01\x00\x3e\x00{'descr': '<u2', 'fortran_order': True, 'shape': (2, 2), }   \n";
    let fortran = [&header[..], &u16s(&[1, 3, 2, 4])].concat();
    for (name, bytes, expect) in [
        ("range.npy", numpy("<u2", 2, &u16s(&[1, 5000])), "token 5000 at position 1"),
        ("short.npy", numpy("<u2", 3, &u16s(&[1, 2])), "promises 3 tokens and it holds 2"),
        ("float.npy", numpy("<f4", 1, &[0; 4]), "element type `<f4`"),
        ("either.bin", u32s(&[5, 0, 6, 0]), "32 bits or of 64"),
        ("fortran.npy", fortran, "column by column"),
        ("vocab.bin", u16s(&[60_000, 60_000]), "beyond the vocabulary"),
        ("odd.bin", vec![1, 2, 3], "no whole number of tokens"),
    ] {
        let error = read(&file(&dir, name, &bytes)).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(expect), "{error}");
    }
}

/// Masked tokens of 64 bits would be tokens of 16 to a large vocabulary.
#[test]
fn wider_integers_that_do_not_fit_are_not_read_as_narrow_ones() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = u32s(&[5, 0, 6, 0, u32::MAX - 99, u32::MAX, 7, 0, 8, 0, 9, 0]);
    let path = file(&dir, "masked.bin", &bytes);
    let stretch = Stretch { path, format: Format::Tokens, range: None, records_before: 0 };
    let error = open(&stretch, &View { vocab_size: 1 << 17, ..VIEW }).err().unwrap();
    assert!(matches!(error, DataError::Width { .. }), "{error}");
}

/// Two documents of [[1, 2], [3]] and [[4]].
fn megatron(dir: &tempfile::TempDir) -> PathBuf {
    let mut index = b"MMIDIDX\x00\x00".to_vec();
    index.extend_from_slice(&1u64.to_le_bytes());
    index.push(8);
    index.extend_from_slice(&3u64.to_le_bytes());
    index.extend_from_slice(&3u64.to_le_bytes());
    index.extend_from_slice(&u32s(&[2, 1, 1]));
    for pointer in [0u64, 4, 6] {
        index.extend_from_slice(&pointer.to_le_bytes());
    }
    for bound in [0u64, 2, 3] {
        index.extend_from_slice(&bound.to_le_bytes());
    }
    file(dir, "m.idx", &index);
    file(dir, "m.bin", &u16s(&[1, 2, 3, 4]))
}

#[test]
fn megatron_documents_are_joined_from_sequences() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(tokens(read(&megatron(&dir)).unwrap()), [vec![1, 2, 3], vec![4]]);
}

/// An index says where every sequence lies; one that lies is refused before its tokens are read as
/// others, or as many more than there are.
#[test]
fn a_megatron_index_that_lies_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bin = megatron(&dir);
    let whole = std::fs::read(dir.path().join("m.idx")).unwrap();
    let (lengths, pointers, bounds) = (34, 46, 70);
    let cases: [(usize, &[u8], &str); 8] = [
        (17, &[4], "sequence 2"),
        (lengths, &[1], "sequence 2"),
        (pointers + 8, &[0], "sequence 2"),
        (pointers + 16, &[2], "sequence 3"),
        (lengths + 8, &[2], "end at byte"),
        (bounds, &[1], "do not cover"),
        (bounds + 16, &[2], "do not cover"),
        (26, &[2], "bytes to spare"),
    ];
    for (at, lie, said) in cases {
        let mut index = whole.clone();
        index[at..at + lie.len()].copy_from_slice(lie);
        file(&dir, "m.idx", &index);
        let message = read(&bin).unwrap_err().to_string();
        assert!(message.contains("m.idx") && message.contains(said), "byte {at}: {message}");
    }
    // Every sequence the whole file: little files of any number of tokens.
    let mut index = b"MMIDIDX\x00\x00".to_vec();
    index.extend_from_slice(&1u64.to_le_bytes());
    index.push(8);
    index.extend_from_slice(&1000u64.to_le_bytes());
    index.extend_from_slice(&2u64.to_le_bytes());
    index.extend_from_slice(&u32s(&[4; 1000]));
    index.extend_from_slice(&[0; 8000]);
    index.extend_from_slice(&0u64.to_le_bytes());
    index.extend_from_slice(&1000u64.to_le_bytes());
    file(&dir, "m.idx", &index);
    assert!(read(&bin).unwrap_err().to_string().contains("sequence 2"));
    // A byte for every sequence, as indices of several modalities have, is no damage.
    megatron(&dir);
    file(&dir, "m.idx", &[whole, vec![0; 3]].concat());
    assert_eq!(tokens(read(&bin).unwrap()), [vec![1, 2, 3], vec![4]]);
}

/// A table of (text, score, messages), made by the writer of the parquet crate.
fn table(dir: &tempfile::TempDir) -> PathBuf {
    use ::parquet::data_type::{ByteArray, ByteArrayType, DoubleType};
    use ::parquet::file::writer::SerializedFileWriter;
    let schema = "message m { required binary text (UTF8); optional double score;
        optional group messages (LIST) { repeated group list { optional group element {
            optional binary role (UTF8); optional binary content (UTF8); } } } }";
    let schema = ::parquet::schema::parser::parse_message_type(schema).unwrap();
    let path = dir.path().join("t.parquet");
    let out = std::fs::File::create(&path).unwrap();
    let mut writer = SerializedFileWriter::new(out, schema.into(), Default::default()).unwrap();
    for group in 0..2 {
        let mut rows = writer.next_row_group().unwrap();
        let text = |t: &str| ByteArray::from(format!("{t}{group}").as_str());
        let mut column = rows.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&[text("a"), text("b")], None, None).unwrap();
        column.close().unwrap();
        let mut column = rows.next_column().unwrap().unwrap();
        column.typed::<DoubleType>().write_batch(&[0.5], Some(&[1, 0]), None).unwrap();
        column.close().unwrap();
        for field in ["role", "content"] {
            // Row 0 has two turns, row 1 none.
            let mut column = rows.next_column().unwrap().unwrap();
            let values = [text(field), text(field)];
            column.typed::<ByteArrayType>().write_batch(&values, Some(&[4, 4, 0]), Some(&[0, 1, 0])).unwrap();
            column.close().unwrap();
        }
        rows.close().unwrap();
    }
    writer.close().unwrap();
    path
}

#[test]
fn tables_are_read_by_column() {
    let dir = tempfile::tempdir().unwrap();
    let path = table(&dir);
    let row = |item: &Item| match &item.body {
        Body::Row(row) => serde_json::Value::Object(row.clone()),
        other => panic!("{other:?}"),
    };
    let items = read(&path).unwrap();
    assert_eq!(items.iter().map(|i| i.record).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let turn = serde_json::json!({"role": "role1", "content": "content1"});
    assert_eq!(row(&items[2]), serde_json::json!({"text": "a1", "score": 0.5, "messages": [turn, turn]}));
    assert_eq!(row(&items[3]), serde_json::json!({"text": "b1", "score": null, "messages": null}));
    let stretch = Stretch { path, format: Format::Parquet, range: None, records_before: 0 };
    let view = View { fields: Some(vec!["score".into(), "text".into(), "absent".into()]), ..VIEW };
    let items: Vec<Item> = open(&stretch, &view).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(row(&items[1]), serde_json::json!({"text": "b0", "score": null}));
}

/// As JSON has them.
#[test]
fn moments_and_fractions_of_tables_are_read_as_they_are_written() {
    use ::parquet::data_type::{FloatType, Int32Type, Int64Type};
    use ::parquet::file::writer::SerializedFileWriter;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let schema = "message m { required int32 day (DATE); required int32 ms (TIME_MILLIS);
        required int64 micros (TIMESTAMP_MICROS); required int64 nanos (TIMESTAMP(NANOS, false));
        required float share; }";
    let schema = ::parquet::schema::parser::parse_message_type(schema).unwrap();
    let out = std::fs::File::create(&path).unwrap();
    let mut writer = SerializedFileWriter::new(out, schema.into(), Default::default()).unwrap();
    let mut rows = writer.next_row_group().unwrap();
    for value in [18_262, 45_000_000] {
        let mut column = rows.next_column().unwrap().unwrap();
        column.typed::<Int32Type>().write_batch(&[value], None, None).unwrap();
        column.close().unwrap();
    }
    for value in [1_577_836_800_000_000, 1_577_836_800_500_000_000] {
        let mut column = rows.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[value], None, None).unwrap();
        column.close().unwrap();
    }
    let mut column = rows.next_column().unwrap().unwrap();
    column.typed::<FloatType>().write_batch(&[0.3], None, None).unwrap();
    column.close().unwrap();
    rows.close().unwrap();
    writer.close().unwrap();
    let Body::Row(row) = &read(&path).unwrap()[0].body else { panic!("no row") };
    let expect = serde_json::json!({
        "day": "2020-01-01", "ms": "12:30:00", "micros": "2020-01-01T00:00:00", "nanos": "2020-01-01T00:00:00.500",
        "share": 0.3,
    });
    assert_eq!(serde_json::Value::Object(row.clone()), expect);
}

/// Files that pyarrow wrote.
#[test]
fn what_other_writers_do_is_read_or_named() {
    let written = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parquet");
    let error = read(&written.join("compressed_with_lz4.parquet")).unwrap_err().to_string();
    assert!(error.contains("is compressed with LZ4_RAW, which midc does not read"), "{error}");
    let Body::Row(row) = &read(&written.join("first_page_without_values.parquet")).unwrap()[0].body else {
        panic!("no row")
    };
    assert_eq!(row["messages"], serde_json::json!([{"role": "user", "u": false}]));
}

/// The crate would make room for what is claimed before it looks at a byte.
#[test]
fn a_page_that_claims_too_much_is_named() {
    let findings = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/findings");
    let dir = tempfile::tempdir().unwrap();
    for codec in ["ZSTD", "SNAPPY", "GZIP"] {
        let name = format!("parquet-page_of_{}_beyond_its_bytes", codec.to_lowercase());
        let path = file(&dir, "p.parquet", &std::fs::read(findings.join(name)).unwrap());
        let told = read(&path).unwrap_err().to_string();
        for part in ["p.parquet", "row group 0, column `text`", "become 1400000000", codec] {
            assert!(told.contains(part), "{told}");
        }
    }
}

#[test]
fn a_table_without_the_text_is_refused_by_its_columns() {
    let dir = tempfile::tempdir().unwrap();
    let stretch = Stretch { path: table(&dir), format: Format::Parquet, range: None, records_before: 0 };
    let wanted = |needed: &[&[&str]]| {
        let needed =
            needed.iter().map(|of| of.iter().map(|f| f.to_string()).collect()).collect::<Vec<Vec<_>>>();
        let view = View { fields: Some(needed.concat()), needed, ..VIEW };
        open(&stretch, &view).map(Iterator::count)
    };
    assert_eq!(wanted(&[&["body", "text"]]).unwrap(), 4);
    assert_eq!(wanted(&[&["messages.0.content"], &["text"]]).unwrap(), 4);
    let told = wanted(&[&["content", "conversations"]]).unwrap_err().to_string();
    assert!(
        told.ends_with("no column `content` or `conversations`; it has `text`, `score` and `messages`"),
        "{told}"
    );
    // Every part of a template.
    let told = wanted(&[&["text"], &["answer"]]).unwrap_err();
    assert!(told.to_string().contains("t.parquet` has no column `answer`"), "{told}");
    let help = miette::Diagnostic::help(&told).unwrap().to_string();
    assert!(help.contains("`text` of the source"), "{help}");
}

/// Read a damaged version of a good file; what comes is records or an error.
fn survive(name: &str, mut bytes: Vec<u8>, damage: &[(usize, u8)], cut: usize) {
    for (at, value) in damage {
        let len = bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(at % len) {
            *byte = *value;
        }
    }
    if cut < bytes.len() {
        bytes.truncate(cut);
    }
    let dir = tempfile::tempdir().unwrap();
    match name.strip_suffix(".idx") {
        Some(stem) => {
            file(&dir, &format!("{stem}.bin"), &u16s(&[1, 2, 3, 4]));
            file(&dir, name, &bytes);
            drop(read(&dir.path().join(format!("{stem}.bin"))));
        }
        None => drop(read(&file(&dir, name, &bytes))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn damaged_files_do_no_harm(
        kind in 0..8,
        damage in proptest::collection::vec((0usize..4000, any::<u8>()), 0..8),
        cut in 0usize..6000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let text = "{\"text\": \"abcdefgh\"}\n".repeat(50).into_bytes();
        let (name, bytes) = match kind {
            0 => ("a.jsonl", text),
            1 => ("a.jsonl.gz", gzip(&text)),
            2 => ("a.jsonl.zst", zstd::encode_all(&text[..], 1).unwrap()),
            3 => ("a.npy", numpy("<u2", 100, &u16s(&[7; 100]))),
            4 => ("a.bin", u32s(&[7; 100])),
            6 => ("a.json", format!("[{}{{}}]", "{\"text\": \"a\\\"b\"}, ".repeat(50)).into_bytes()),
            5 => { megatron(&dir); ("m.idx", std::fs::read(dir.path().join("m.idx")).unwrap()) }
            _ => ("a.parquet", std::fs::read(table(&dir)).unwrap()),
        };
        survive(name, bytes, &damage, cut);
    }

    #[test]
    fn made_up_files_do_no_harm(
        name in prop_oneof![
            Just("a.json"), Just("a.jsonl"), Just("a.jsonl.gz"), Just("a.jsonl.zst"), Just("a.txt"),
            Just("a.npy"), Just("a.bin"), Just("m.idx"), Just("a.parquet"),
        ],
        start in proptest::sample::select(vec![
            &b""[..], b"[", b"\x93NUMPY\x01\x00", b"MMIDIDX\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x08",
            b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"PAR1",
        ]),
        rest in proptest::collection::vec(any::<u8>(), 0..300),
        end in proptest::sample::select(vec![&b""[..], b"\x10\x00\x00\x00PAR1"]),
    ) {
        survive(name, [start, &rest, end].concat(), &[], usize::MAX);
    }
}
