//! A shard of tokenised documents on disk: written once, aside, synced and renamed; read through a
//! memory map. A shard that is cut off, damaged or of another version is no shard, and is made
//! anew. Knows bytes and offsets, not sources.
//!
//! Layout, all little endian; sections start at multiples of 64 bytes:
//!
//! ```text
//! 0    magic, version, token width, counts, lengths     128   blake3 of bytes 0..128
//! 64   key of the content     96  blake3 of the payload  256   payload:
//! tokens  u16|u32 × tokens       of each document its text, then the end-of-sequence token
//! ends    u64 × documents        one past its last token
//! hashes  u128 × documents       of its text
//! origin  u64 × documents        file of the shard << 40 | record
//! keys    f64 × documents        sort key, where the order is by a field; NaN for none
//! mask    u8 × ⌈tokens/8⌉        one bit per token that carries loss, where not all do
//! report  JSON                   what was dropped and why
//! ```
//!
//! The payload's hash is the hash of the hashes of its [`CHUNK`]s, so that it is checked on all
//! cores.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use rayon::prelude::*;

use super::DataError;
use crate::runtime::run_dir::has_no_locks;
use crate::runtime::whole::sync_dir;

const MAGIC: &[u8; 8] = b"MIDCTOK\n";
/// Changes with the layout and with what tokenisation makes of the same input.
pub(crate) const VERSION: u32 = 1;
const HEADER: usize = 256;
const SIGNED: usize = 128;
const ALIGN: usize = 64;
const CHUNK: usize = 1 << 20;

/// What is kept about a document besides its tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Document {
    pub(crate) hash: u128,
    /// File of the shard << 40 | record.
    pub(crate) origin: u64,
    pub(crate) key: f64,
}

/// The numbers of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    width: u32,
    documents: u64,
    tokens: u64,
    has_keys: bool,
    has_mask: bool,
    report: u64,
    key: [u8; 32],
    payload: [u8; 32],
}

/// Byte ranges of the sections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sections {
    tokens: Range<usize>,
    ends: Range<usize>,
    hashes: Range<usize>,
    origins: Range<usize>,
    keys: Range<usize>,
    mask: Range<usize>,
    report: Range<usize>,
}

impl Header {
    fn sections(&self) -> Option<Sections> {
        let mut at = HEADER as u64;
        let mut next = |bytes: Option<u64>| -> Option<Range<usize>> {
            let start = at.checked_next_multiple_of(ALIGN as u64)?;
            let end = start.checked_add(bytes?)?;
            at = end;
            Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
        };
        let documents = self.documents;
        Some(Sections {
            tokens: next(self.tokens.checked_mul(u64::from(self.width)))?,
            ends: next(documents.checked_mul(8))?,
            hashes: next(documents.checked_mul(16))?,
            origins: next(documents.checked_mul(8))?,
            keys: next(if self.has_keys { documents.checked_mul(8) } else { Some(0) })?,
            mask: next(Some(if self.has_mask { self.tokens.div_ceil(8) } else { 0 }))?,
            report: next(Some(self.report))?,
        })
    }

    fn encode(&self) -> [u8; HEADER] {
        let mut out = [0u8; HEADER];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &self.width.to_le_bytes());
        put(16, &self.documents.to_le_bytes());
        put(24, &self.tokens.to_le_bytes());
        put(32, &[u8::from(self.has_keys), u8::from(self.has_mask)]);
        put(40, &self.report.to_le_bytes());
        put(64, &self.key);
        put(96, &self.payload);
        let signature = blake3::hash(&out[..SIGNED]);
        out[SIGNED..SIGNED + 32].copy_from_slice(signature.as_bytes());
        out
    }

    fn decode(data: &[u8]) -> Result<Self, &'static str> {
        let head = data.get(..HEADER).ok_or("it is shorter than its header")?;
        if !head.starts_with(MAGIC) {
            return Err("it is no token cache");
        }
        let bytes = |at: usize| -> [u8; 32] {
            let mut out = [0; 32];
            out.copy_from_slice(&head[at..at + 32]);
            out
        };
        let u64_at = |at: usize| {
            let mut out = [0; 8];
            out.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(out)
        };
        if bytes(SIGNED) != *blake3::hash(&head[..SIGNED]).as_bytes() {
            return Err("its header does not match its checksum");
        }
        let version_and_width = u64_at(8);
        if version_and_width as u32 != VERSION {
            return Err("it is of another version");
        }
        let width = (version_and_width >> 32) as u32;
        if width != 2 && width != 4 {
            return Err("its tokens have neither two nor four bytes");
        }
        Ok(Self {
            width,
            documents: u64_at(16),
            tokens: u64_at(24),
            has_keys: head[32] != 0,
            has_mask: head[33] != 0,
            report: u64_at(40),
            key: bytes(64),
            payload: bytes(96),
        })
    }
}

/// A shard, mapped.
#[derive(Debug)]
pub(crate) struct Shard {
    map: Mmap,
    header: Header,
    at: Sections,
}

/// Why a file is not the wanted shard.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// There is no such file.
    Absent,
    /// It is damaged, of another version or of other content.
    Bad(&'static str),
    /// It cannot be read.
    Failed(DataError),
}

impl Shard {
    /// Map `path` and check every byte of it.
    pub(crate) fn open(path: &Path, key: &blake3::Hash) -> Result<Self, Unusable> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Unusable::Absent),
            Err(e) => return Err(Unusable::Failed(DataError::io("open", path)(e))),
        };
        // SAFETY: read only. Shards are never changed in place: they are renamed into being.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Unusable::Failed(DataError::io("map", path)(e)))?;
        let header = Header::decode(&map).map_err(Unusable::Bad)?;
        if header.key != *key.as_bytes() {
            return Err(Unusable::Bad("it was made from other input"));
        }
        let at = header.sections().ok_or(Unusable::Bad("its counts overflow"))?;
        if map.len() != at.report.end {
            return Err(Unusable::Bad("it is cut off or has bytes to spare"));
        }
        let payload =
            payload_hash(path, map.len()).map_err(|e| Unusable::Failed(DataError::io("read", path)(e)))?;
        if payload != header.payload {
            return Err(Unusable::Bad("its content does not match its checksum"));
        }
        let shard = Self { map, header, at };
        // The content is as it was written; this guards against a writer that was wrong.
        let sound = (0..shard.documents()).try_fold(0, |start, i| Some(shard.end(i)).filter(|e| *e > start));
        if sound != Some(shard.tokens()) && shard.documents() > 0 {
            return Err(Unusable::Bad("its documents do not tile its tokens"));
        }
        Ok(shard)
    }

    pub(crate) fn documents(&self) -> u64 {
        self.header.documents
    }

    pub(crate) fn tokens(&self) -> u64 {
        self.header.tokens
    }

    fn end(&self, document: u64) -> u64 {
        self.u64_at(self.at.ends.start, document)
    }

    /// The tokens of `document`, as places in the shard.
    pub(crate) fn range(&self, document: u64) -> Range<u64> {
        let start = if document == 0 { 0 } else { self.end(document - 1) };
        start..self.end(document)
    }

    /// Append tokens `range` of the shard to `out`.
    pub(crate) fn read(&self, range: Range<u64>, out: &mut Vec<u32>) {
        let width = self.header.width as usize;
        let start = self.at.tokens.start + range.start as usize * width;
        let bytes = &self.map[start..start + (range.end - range.start) as usize * width];
        if width == 2 {
            out.extend(bytes.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]]))));
        } else {
            out.extend(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        }
    }

    /// Whether token `at` of the shard carries loss.
    pub(crate) fn has_loss(&self, at: u64) -> bool {
        !self.header.has_mask || self.map[self.at.mask.start + (at / 8) as usize] >> (at % 8) & 1 == 1
    }

    /// Whether any token of the shard carries loss.
    pub(crate) fn any_loss(&self) -> bool {
        !self.header.has_mask || self.map[self.at.mask.clone()].iter().any(|byte| *byte != 0)
    }

    /// Whether some tokens carry no loss.
    pub(crate) fn has_mask(&self) -> bool {
        self.header.has_mask
    }

    pub(crate) fn hash(&self, document: u64) -> u128 {
        let at = self.at.hashes.start + 16 * document as usize;
        let mut out = [0; 16];
        out.copy_from_slice(&self.map[at..at + 16]);
        u128::from_le_bytes(out)
    }

    /// (file of the shard, record).
    pub(crate) fn origin(&self, document: u64) -> (usize, u64) {
        let origin = self.u64_at(self.at.origins.start, document);
        ((origin >> 40) as usize, origin & ((1 << 40) - 1))
    }

    /// Sort key of `document`; NaN when it has none.
    pub(crate) fn key(&self, document: u64) -> f64 {
        if !self.header.has_keys {
            return f64::NAN;
        }
        f64::from_bits(self.u64_at(self.at.keys.start, document))
    }

    /// The report that was given to [`Writer::finish`].
    pub(crate) fn report(&self) -> &[u8] {
        &self.map[self.at.report.clone()]
    }

    fn u64_at(&self, section: usize, i: u64) -> u64 {
        let at = section + 8 * i as usize;
        let mut out = [0; 8];
        out.copy_from_slice(&self.map[at..at + 8]);
        u64::from_le_bytes(out)
    }
}

/// The hash of the payload of the file at `path`, `len` bytes long in all. Reads the file rather than its
/// mapping, whose pages would all count as memory of midc from then on.
fn payload_hash(path: &Path, len: usize) -> std::io::Result<[u8; 32]> {
    let starts: Vec<usize> = (HEADER..len).step_by(CHUNK).collect();
    let chunks: Vec<blake3::Hash> = starts
        .into_par_iter()
        .map_init(
            || (File::open(path), vec![0; CHUNK]),
            |(file, buffer), start| {
                let file = file.as_mut().map_err(|e| std::io::Error::from(e.kind()))?;
                let chunk = &mut buffer[..CHUNK.min(len - start)];
                file.seek(SeekFrom::Start(start as u64))?;
                file.read_exact(chunk)?;
                Ok(blake3::hash(chunk))
            },
        )
        .collect::<std::io::Result<_>>()?;
    Ok(root(&chunks))
}

fn root(chunks: &[blake3::Hash]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for chunk in chunks {
        hasher.update(chunk.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

fn open(partial: &Path) -> Result<File, DataError> {
    let mut options = File::options();
    let file = options.create(true).truncate(false).read(true).write(true).open(partial);
    file.map_err(DataError::io("create", partial))
}

/// Waits while another process has the lock.
fn lock(file: &File, partial: &Path) -> Result<(), DataError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::Error(error)) if has_no_locks(&error) => Ok(()),
        Err(_) => file.lock().map_err(DataError::io("lock", partial)),
    }
}

/// Whose a locked file is that was opened as `partial`.
#[derive(Debug, PartialEq, Eq)]
enum Claim {
    /// To be written by who has the lock.
    Ours,
    /// Another process has put the shard in place since.
    Finished,
    /// It bears that name no more: another process has made it a shard, which may be mapped.
    Stale,
}

fn claim(file: &File, path: &Path, partial: &Path) -> Result<Claim, DataError> {
    if path.exists() {
        return Ok(Claim::Finished);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let held = file.metadata().map_err(DataError::io("read", partial))?;
        // The file of that name may be gone as well.
        let named = std::fs::metadata(partial).ok();
        if named.is_none_or(|named| (named.dev(), named.ino()) != (held.dev(), held.ino())) {
            return Ok(Claim::Stale);
        }
    }
    Ok(Claim::Ours)
}

/// Writes a shard: documents one by one, then [`Writer::finish`]. Dropped before that, it leaves
/// nothing but an empty `.partial` file that the next writer fills. (It is not removed: who waits for its
/// lock has it open.)
pub(crate) struct Writer {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    width: u32,
    mask: Option<Vec<u8>>,
    keyed: bool,
    tokens: u64,
    ends: Vec<u64>,
    documents: Vec<Document>,
    buffer: Vec<u8>,
    chunks: Vec<blake3::Hash>,
    written: usize,
    whole: bool,
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.whole {
            // A disk that is full stays so otherwise.
            let _ = self.file.set_len(0);
        }
    }
}

impl Writer {
    /// Begin `path`. Waits while another process writes the same shard; `None` when that one has
    /// meanwhile finished it.
    pub(crate) fn create(
        path: &Path,
        width: u32,
        masked: bool,
        keyed: bool,
    ) -> Result<Option<Self>, DataError> {
        let partial = path.with_extension("partial");
        let file = loop {
            let file = open(&partial)?;
            lock(&file, &partial)?;
            match claim(&file, path, &partial)? {
                Claim::Ours => break file,
                Claim::Finished => return Ok(None),
                Claim::Stale => {}
            }
        };
        file.set_len(0).map_err(DataError::io("write", &partial))?;
        let mut writer = Self {
            path: path.to_owned(),
            partial,
            file,
            width,
            mask: masked.then(Vec::new),
            keyed,
            tokens: 0,
            ends: Vec::new(),
            documents: Vec::new(),
            buffer: Vec::with_capacity(2 * CHUNK),
            chunks: Vec::new(),
            written: 0,
            whole: false,
        };
        writer.file.seek(SeekFrom::Start(HEADER as u64)).map_err(DataError::io("write", &writer.partial))?;
        Ok(Some(writer))
    }

    /// Append a document of at least one token. `loss[i]` says whether token i carries loss; an
    /// empty `loss` means all do.
    pub(crate) fn push(
        &mut self,
        tokens: &[u32],
        loss: &[bool],
        document: Document,
    ) -> Result<(), DataError> {
        if let Some(mask) = &mut self.mask {
            for i in 0..tokens.len() {
                let at = self.tokens + i as u64;
                if at.is_multiple_of(8) {
                    mask.push(0);
                }
                if loss.get(i).copied().unwrap_or(true)
                    && let Some(byte) = mask.last_mut()
                {
                    *byte |= 1 << (at % 8);
                }
            }
        }
        for token in tokens {
            if self.width == 2 {
                self.buffer.extend_from_slice(&(*token as u16).to_le_bytes());
            } else {
                self.buffer.extend_from_slice(&token.to_le_bytes());
            }
        }
        self.tokens += tokens.len() as u64;
        self.ends.push(self.tokens);
        self.documents.push(document);
        self.flush(CHUNK)
    }

    /// Complete the shard and put it in place.
    pub(crate) fn finish(mut self, key: &blake3::Hash, report: &[u8]) -> Result<(), DataError> {
        let mut header = Header {
            width: self.width,
            documents: self.documents.len() as u64,
            tokens: self.tokens,
            has_keys: self.keyed,
            has_mask: self.mask.is_some(),
            report: report.len() as u64,
            key: *key.as_bytes(),
            payload: [0; 32],
        };
        let ends = std::mem::take(&mut self.ends);
        let documents = std::mem::take(&mut self.documents);
        self.section(ends.iter().map(|v| v.to_le_bytes()))?;
        self.section(documents.iter().map(|d| d.hash.to_le_bytes()))?;
        self.section(documents.iter().map(|d| d.origin.to_le_bytes()))?;
        let keys = if self.keyed { documents.as_slice() } else { &[] };
        self.section(keys.iter().map(|d| d.key.to_le_bytes()))?;
        let mask = self.mask.take().unwrap_or_default();
        self.section(mask.iter().map(|b| [*b]))?;
        self.section(report.iter().map(|b| [*b]))?;
        self.flush(1)?;
        header.payload = root(&self.chunks);
        let io = |what: &'static str| DataError::io(what, &self.partial);
        self.file.seek(SeekFrom::Start(0)).map_err(io("write"))?;
        self.file.write_all(&header.encode()).map_err(io("write"))?;
        self.file.sync_all().map_err(io("sync"))?;
        std::fs::rename(&self.partial, &self.path).map_err(io("rename"))?;
        self.whole = true;
        // So that the name survives a power cut as well as the content.
        if let Some(dir) = self.path.parent() {
            sync_dir(dir).map_err(DataError::io("sync", dir))?;
        }
        Ok(())
    }

    /// Pad to a section start, then write it.
    fn section<const N: usize>(&mut self, items: impl Iterator<Item = [u8; N]>) -> Result<(), DataError> {
        let at = self.written + self.buffer.len();
        self.buffer.resize(self.buffer.len() + at.next_multiple_of(ALIGN) - at, 0);
        for item in items {
            self.buffer.extend_from_slice(&item);
            self.flush(CHUNK)?;
        }
        Ok(())
    }

    /// Write whole chunks while at least `least` bytes are buffered.
    fn flush(&mut self, least: usize) -> Result<(), DataError> {
        let mut at = 0;
        while self.buffer.len() - at >= least {
            let chunk = &self.buffer[at..self.buffer.len().min(at + CHUNK)];
            self.chunks.push(blake3::hash(chunk));
            self.file.write_all(chunk).map_err(DataError::io("write", &self.partial))?;
            self.written += chunk.len();
            at += chunk.len();
        }
        self.buffer.drain(..at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> blake3::Hash {
        blake3::hash(b"input")
    }

    fn document(i: u64) -> Document {
        Document { hash: u128::from(i) << 64 | 7, origin: 3 << 40 | i, key: i as f64 / 2.0 }
    }

    fn write(path: &Path, lengths: &[usize], width: u32, masked: bool) {
        let mut writer = Writer::create(path, width, masked, true).unwrap().unwrap();
        for (i, n) in lengths.iter().enumerate() {
            let tokens: Vec<u32> = (0..*n as u32).map(|t| t * 31 % 60_000).collect();
            let loss: Vec<bool> = (0..*n).map(|t| t % 3 == 0).collect();
            writer.push(&tokens, &loss, document(i as u64)).unwrap();
        }
        writer.finish(&key(), b"{}").unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn what_was_written_is_read(lengths in proptest::collection::vec(1usize..400_000, 0..6), wide: bool, masked: bool) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.tokens");
            write(&path, &lengths, if wide { 4 } else { 2 }, masked);
            let shard = Shard::open(&path, &key()).unwrap();
            prop_assert_eq!(shard.documents(), lengths.len() as u64);
            prop_assert_eq!(shard.report(), b"{}");
            for (i, n) in lengths.iter().enumerate() {
                let i = i as u64;
                let range = shard.range(i);
                let mut tokens = Vec::new();
                shard.read(range.clone(), &mut tokens);
                prop_assert!(tokens.iter().copied().eq((0..*n as u32).map(|t| t * 31 % 60_000)));
                prop_assert_eq!((shard.hash(i), shard.origin(i)), (document(i).hash, (3, i)));
                prop_assert_eq!(shard.key(i), document(i).key);
                prop_assert!((0..*n as u64).all(|t| shard.has_loss(range.start + t) == (!masked || t % 3 == 0)));
            }
        }

        /// Any change of any byte, any cut and any growth is noticed.
        #[test]
        fn damage_is_noticed(at in 0usize..20_000, bit in 0u8..8, kind in 0..3) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.tokens");
            write(&path, &[1000, 17, 500], 4, true);
            let mut bytes = std::fs::read(&path).unwrap();
            let at = at % bytes.len();
            // Bytes between the header's checksum and the payload mean nothing.
            prop_assume!(kind != 0 || !(SIGNED + 32..HEADER).contains(&at));
            match kind {
                0 => bytes[at] ^= 1 << bit,
                1 => bytes.truncate(at),
                _ => bytes.extend(vec![0; at + 1]),
            }
            std::fs::write(&path, bytes).unwrap();
            prop_assert!(matches!(Shard::open(&path, &key()), Err(Unusable::Bad(_) | Unusable::Failed(_))));
        }

        /// A header that claims anything, with a good checksum, cannot do harm.
        #[test]
        fn hostile_counts_are_refused(documents: u64, tokens: u64, report: u64, flags in 0u8..4) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.tokens");
            let payload = root(&[blake3::hash(&[0; 512])]);
            let header = Header {
                width: 2, documents, tokens, report, payload,
                has_keys: flags & 1 == 1, has_mask: flags & 2 == 2, key: *key().as_bytes(),
            };
            let mut bytes = header.encode().to_vec();
            bytes.resize(HEADER + 512, 0);
            std::fs::write(&path, bytes).unwrap();
            prop_assert!(Shard::open(&path, &key()).is_err());
        }
    }

    /// Who opened the file before another process made a shard of it, and has the lock only now, leaves it alone.
    #[test]
    fn a_shard_put_in_place_meanwhile_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tokens");
        let partial = path.with_extension("partial");
        let late = open(&partial).unwrap();
        assert_eq!(claim(&late, &path, &partial).unwrap(), Claim::Ours);
        write(&path, &[1000], 2, false);
        lock(&late, &partial).unwrap();
        assert_eq!(claim(&late, &path, &partial).unwrap(), Claim::Finished);
        assert!(Writer::create(&path, 2, false, true).unwrap().is_none());
        assert_eq!(Shard::open(&path, &key()).unwrap().documents(), 1);
        #[cfg(unix)]
        {
            // Nor where that shard has been removed: who has it mapped reads it still.
            let mapped = Shard::open(&path, &key()).unwrap();
            std::fs::remove_file(&path).unwrap();
            assert_eq!(claim(&late, &path, &partial).unwrap(), Claim::Stale);
            write(&path, &[3, 4], 2, false);
            assert_eq!((mapped.documents(), mapped.tokens()), (1, 1000));
        }
    }

    #[test]
    fn other_input_and_half_written_files_are_no_shards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tokens");
        assert!(matches!(Shard::open(&path, &key()), Err(Unusable::Absent)));
        let mut writer = Writer::create(&path, 2, false, false).unwrap().unwrap();
        writer.push(&[1, 2, 3], &[], document(0)).unwrap();
        drop(writer);
        assert!(matches!(Shard::open(&path, &key()), Err(Unusable::Absent)));
        write(&path, &[5], 2, false);
        assert!(matches!(Shard::open(&path, &blake3::hash(b"other")), Err(Unusable::Bad(_))));
        assert!(!path.with_extension("partial").exists());
    }
}
