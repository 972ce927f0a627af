//! Files that were damaged, or made to do harm: mutations of a valid file of every format are read to
//! the end or refused with a message that names the file, without a panic and without more memory than
//! a file of that size can ask for. The moments are the same in every run.

mod formats;
mod memory;

use std::panic::{AssertUnwindSafe, catch_unwind};

use formats::{Format, formats};
use memory::Watching;

#[global_allocator]
static MEMORY: Watching = Watching::new();

/// Mutations of each format.
const MUTATIONS: u64 = 1500;
/// No request is larger for files of a few kilobytes.
const LARGEST: usize = 32 << 20;

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.roll() % n.max(1) as u64) as usize
    }
}

/// Lengths that files lie with.
fn lies(length: usize) -> [u64; 12] {
    let n = length as u64;
    [0, 1, 2, n - 1, n, n + 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 40, i64::MAX as u64, u64::MAX]
}

fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let length = bytes.len();
    if length == 0 {
        return;
    }
    let at = dice.below(length);
    match dice.below(7) {
        0 => bytes[at] ^= 1 << dice.below(8),
        1 => bytes.truncate(at),
        2 => bytes.extend((0..dice.below(64)).map(|i| i as u8)),
        3 => {
            let lie = lies(length)[dice.below(12)].to_le_bytes();
            let width = [1, 2, 4, 8][dice.below(4)];
            let end = length.min(at + width);
            bytes[at..end].copy_from_slice(&lie[..end - at]);
        }
        4 => drop(bytes.drain(at..length.min(at + dice.below(32)))),
        5 => {
            let from = dice.below(length);
            let piece = bytes[from..length.min(from + dice.below(64))].to_vec();
            bytes.splice(at..at, piece);
        }
        // The same for lengths that are spelled out.
        _ => {
            let Some(digit) = bytes[at..].iter().position(u8::is_ascii_digit) else { return };
            let digits = bytes[at + digit..].iter().take_while(|b| b.is_ascii_digit()).count();
            let lie = lies(length)[dice.below(12)].to_string();
            bytes.splice(at + digit..at + digit + digits, lie.into_bytes());
        }
    }
}

/// A header that was mutated says its own length, so that what is behind the length is read.
fn with_length(bytes: &mut [u8]) {
    let Some(end) = bytes.windows(2).position(|w| w == b"}}") else { return };
    if let (Some(field), Some(length)) = (bytes.get(..8), (end + 2).checked_sub(8)) {
        let padded = (length..length + 8).find(|n| n % 8 == 0).unwrap_or(length) as u64;
        debug_assert_eq!(field.len(), 8);
        bytes[..8].copy_from_slice(&padded.to_le_bytes());
    }
}

fn stem(format: &Format) -> &str {
    let name = format.file.rsplit('/').next().unwrap_or_default();
    name.split('.').next().unwrap_or_default()
}

#[test]
fn mutated_files_are_read_or_refused_by_name() {
    for format in formats() {
        let dir = tempfile::tempdir().unwrap();
        format.lay(dir.path());
        assert_eq!(format.read(dir.path(), format.valid()), Ok(()), "{}", format.name);
        let mut dice = Dice(format.name.bytes().fold(7, |h, b| h * 31 + u64::from(b)));
        let (mut refused, mut silent) = (0, Vec::new());
        for number in 0..MUTATIONS {
            let mut bytes = format.valid().to_vec();
            for _ in 0..=dice.below(3) {
                mutate(&mut bytes, &mut dice);
            }
            if format.file.ends_with(".safetensors") && number % 2 == 0 {
                with_length(&mut bytes);
            }
            MEMORY.reset();
            let outcome = catch_unwind(AssertUnwindSafe(|| format.read(dir.path(), &bytes)));
            let largest = MEMORY.largest();
            let label = format!("{}, mutation {number}", format.name);
            assert!(largest <= LARGEST, "{label}: {largest} bytes asked for at once");
            match outcome {
                Err(_) => panic!("{label}: a panic"),
                Ok(Err(message)) => {
                    refused += 1;
                    if !message.contains(stem(&format)) && !message.contains(dir.path().to_str().unwrap()) {
                        silent.push(message);
                    }
                }
                Ok(Ok(())) => {}
            }
        }
        assert!(refused > MUTATIONS / 4, "{}: only {refused} refused", format.name);
        assert!(silent.is_empty(), "{}: messages that name no file: {:#?}", format.name, &silent[..1]);
    }
}

/// What fuzzing found, by format: `findings/FORMAT-WHAT`.
#[test]
fn what_fuzzing_found_is_refused() {
    let formats = formats();
    let findings = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hostile/findings");
    for finding in std::fs::read_dir(findings).unwrap() {
        let path = finding.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let format = formats.iter().find(|f| Some(f.name) == name.split('-').next()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        format.lay(dir.path());
        MEMORY.reset();
        let message = format.read(dir.path(), &std::fs::read(&path).unwrap()).expect_err(name);
        assert!(message.contains(stem(format)), "{name}: {message}");
        assert!(MEMORY.largest() <= LARGEST, "{name}: {} bytes asked for", MEMORY.largest());
    }
}
