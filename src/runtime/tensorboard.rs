//! Event files that TensorBoard reads: `tensorboard/…/events.out.tfevents.SECONDS.midc.PID`.
//!
//! A file is a row of TFRecords (length and payload, each with a masked CRC-32C), each payload one
//! `Event` of `tensorboard/compat/proto/event.proto`, encoded here by hand: six messages, and no
//! code generator in the build. A process opens a file of its own and never touches an older one;
//! after a restart its first event tells readers to drop what they hold from `first_step` on.
//! Knows nothing of training beyond the records of the journals.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::runtime::journal::{EvalRecord, StepRecord};
use crate::runtime::run_dir::RunDirError;

const PREFIX: &str = "events.out.tfevents.";

/// An event file open for appending.
#[derive(Debug)]
pub struct TensorBoard {
    path: PathBuf,
    file: File,
}

impl TensorBoard {
    /// Start a new event file in `dir`, making the directory. Where older event files are there,
    /// readers are told that everything from `first_step` on is about to be written again.
    ///
    /// One directory is one curve per tag in TensorBoard: give each stage its own, and a fan-out
    /// shows as curves over each other.
    ///
    /// # Errors
    /// [`RunDirError::Io`].
    pub fn open(dir: &Path, first_step: u64) -> Result<Self, RunDirError> {
        fs::create_dir_all(dir).map_err(RunDirError::io("create", dir))?;
        let latest = latest_stamp(dir)?;
        // Readers take the files of a directory in the order of their names, so a restart within a
        // second, or after the clock was set back, must still sort last.
        let stamp = latest.map_or(seconds() as u64, |l| l.saturating_add(1).max(seconds() as u64));
        let path = dir.join(format!("{PREFIX}{stamp:010}.midc.{}", std::process::id()));
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&path)
            .map_err(RunDirError::io("create", &path))?;
        let mut board = Self { path, file };
        board.append(&event(0, Message::new().string(3, "brain.Event:2")))?;
        if latest.is_some() {
            // Event.session_log { status: START }
            board.append(&event(first_step, Message::new().message(7, Message::new().uint(1, 1))))?;
        }
        Ok(board)
    }

    /// Append one event with a value for each tag.
    ///
    /// # Errors
    /// [`RunDirError::Io`], on a full disk for example.
    pub fn scalars<'a>(
        &mut self,
        step: u64,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Result<(), RunDirError> {
        let mut summary = Message::new();
        for (tag, value) in values {
            summary = summary.message(1, Message::new().string(1, tag).float(2, value as f32));
        }
        self.append(&event(step, Message::new().message(5, summary)))
    }

    /// Append a text in Markdown, shown by the text plugin.
    ///
    /// # Errors
    /// [`RunDirError::Io`].
    pub fn text(&mut self, step: u64, tag: &str, markdown: &str) -> Result<(), RunDirError> {
        let plugin = Message::new().message(1, Message::new().string(1, "text"));
        let shape = Message::new().message(2, Message::new().uint(1, 1));
        // DT_STRING = 7
        let tensor = Message::new().uint(1, 7).message(2, shape).string(8, markdown);
        let value = Message::new().string(1, tag).message(8, tensor).message(9, plugin);
        self.append(&event(step, Message::new().message(5, Message::new().message(1, value))))
    }

    /// Append what one step's line of `metrics.jsonl` says, at `record.step`.
    ///
    /// # Errors
    /// [`RunDirError::Io`].
    pub fn step(&mut self, record: &StepRecord) -> Result<(), RunDirError> {
        let mut tags = vec![
            ("train/loss".to_owned(), record.loss),
            ("train/lr".to_owned(), record.lr),
            ("train/grad_norm".to_owned(), record.grad_norm),
            ("train/tokens_per_second".to_owned(), record.tokens_per_second),
            ("train/batch_tokens".to_owned(), record.batch_tokens as f64),
            ("train/context".to_owned(), record.context as f64),
            ("train/tokens".to_owned(), record.tokens as f64),
        ];
        tags.extend(record.mfu.map(|mfu| ("train/mfu".to_owned(), mfu)));
        tags.extend(record.loss_by_source.iter().map(|(s, v)| (format!("loss/{s}"), *v)));
        tags.extend(record.mix.iter().map(|(s, v)| (format!("mix_planned/{s}"), *v)));
        let rows: u64 = record.rows.values().sum();
        if rows > 0 {
            let share = |(s, n): (&String, &u64)| (format!("mix_read/{s}"), *n as f64 / rows as f64);
            tags.extend(record.rows.iter().map(share));
        }
        self.scalars(record.step, tags.iter().map(|(tag, value)| (tag.as_str(), *value)))
    }

    /// Append one measurement, at the steps done when it was taken.
    ///
    /// # Errors
    /// [`RunDirError::Io`].
    pub fn eval(&mut self, record: &EvalRecord) -> Result<(), RunDirError> {
        let tag = format!("{}/{}/{}", record.eval, record.measure, record.subject);
        self.scalars(record.step, [(tag.as_str(), record.value)])
    }

    fn append(&mut self, event: &Message) -> Result<(), RunDirError> {
        // One write a record: a kill leaves whole records and at most one torn one at the end,
        // which readers wait for and never see.
        self.file.write_all(&tf_record(&event.0)).map_err(RunDirError::io("write", &self.path))
    }
}

/// The largest time stamp in the names of the event files of `dir`.
fn latest_stamp(dir: &Path) -> Result<Option<u64>, RunDirError> {
    let names = fs::read_dir(dir).map_err(RunDirError::io("list", dir))?;
    let stamp = |name: &str| name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok();
    Ok(names.flatten().filter_map(|e| stamp(e.file_name().to_str()?)).max())
}

fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// `Event { wall_time: 1, step: 2 }` with the fields of `what`.
fn event(step: u64, what: Message) -> Message {
    let mut event = Message::new().double(1, seconds()).uint(2, step);
    event.0.extend(what.0);
    event
}

/// Length, its checksum, payload, its checksum (`tensorflow/core/lib/io/record_writer.h`).
fn tf_record(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(payload.len() + 16);
    record.extend(length);
    record.extend(masked(crc32c(&length)).to_le_bytes());
    record.extend(payload);
    record.extend(masked(crc32c(payload)).to_le_bytes());
    record
}

/// Rotated and offset, so that checksums of data that holds checksums stay good.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4), a byte at a time: a step writes about a kilobyte.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0u32; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0u32, |crc, b| (crc >> 8) ^ TABLE[((crc ^ u32::from(*b)) & 0xff) as usize])
}

/// A Protocol Buffers message under construction; methods take the field's number.
struct Message(Vec<u8>);

impl Message {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn uint(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn double(mut self, field: u64, value: f64) -> Self {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn float(mut self, field: u64, value: f32) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    fn string(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    fn message(self, field: u64, value: Self) -> Self {
        self.bytes(field, &value.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720 appendix B.4.
    #[test]
    fn crc_of_the_published_vectors() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&ascending), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    /// The payloads of a file whose frames and checksums hold.
    fn payloads(path: &Path) -> Vec<Vec<u8>> {
        let bytes = fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut found = Vec::new();
        let word = |b: &[u8]| u32::from_le_bytes(b.try_into().unwrap());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(word(&rest[8..12]), masked(crc32c(&rest[..8])));
            let payload = &rest[12..12 + length];
            assert_eq!(word(&rest[12 + length..16 + length]), masked(crc32c(payload)));
            found.push(payload.to_vec());
            rest = &rest[16 + length..];
        }
        found
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn a_restart_writes_a_new_last_file_that_purges() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = TensorBoard::open(dir.path(), 0).unwrap();
        first.scalars(0, [("train/loss", 2.5)]).unwrap();
        // Stamped in the far future, as by a clock that was wrong.
        let future = dir.path().join(format!("{PREFIX}9000000000.midc.1"));
        fs::rename(&files(dir.path())[0], &future).unwrap();
        TensorBoard::open(dir.path(), 300).unwrap();
        let files = files(dir.path());
        assert_eq!(files.len(), 2);
        assert_eq!(files[0], future);
        assert_eq!(payloads(&future).len(), 2, "a first file has no session start");
        let second = payloads(&files[1]);
        assert_eq!(second.len(), 2);
        // wall_time, step 300, session_log { status: START }
        assert_eq!(second[1][9..], [2 << 3, 0xac, 0x02, 7 << 3 | 2, 2, 1 << 3, 1]);
    }

    #[test]
    fn no_stamp_is_too_late() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(format!("{PREFIX}{}.midc.1", u64::MAX)), "").unwrap();
        TensorBoard::open(dir.path(), 0).unwrap();
        assert_eq!(files(dir.path()).len(), 2);
    }

    #[test]
    fn a_scalar_is_a_summary_value() {
        let dir = tempfile::tempdir().unwrap();
        let mut board = TensorBoard::open(dir.path(), 0).unwrap();
        board.scalars(1, [("x", 1.0)]).unwrap();
        let payloads = payloads(&board.path);
        // step 1, summary { value { tag "x", simple_value 1.0f } }
        let expected = [16, 1, 42, 10, 10, 8, 10, 1, b'x', 21, 0, 0, 0x80, 0x3f];
        assert_eq!(payloads[1][9..], expected);
    }
}
