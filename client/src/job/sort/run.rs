//! A sorted run, in memory or on local disk: what a sorter sets aside, and what a merge reads.
//!
//! ```text
//! block block block ...           in memory; or one file, without a name: it is gone when the process is
//!
//! block    bytes of the records u32 | number of records u32 | crc32 of both and of the records u32 | records
//! record   bytes of the key shared with the record before u32 | bytes of the rest | bytes of the value (varints)
//!          | rest of the key | value
//! ```
//!
//! Integers are little-endian. A block holds records of one partition; the first shares nothing. Where each partition
//! begins is kept in memory: a run never outlives the process that wrote it. Nothing is handed out of a block before
//! its checksum was compared, and any bytes give records or an error.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use proto::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use proto::{Code, Error, Result};
use rustix::fs::{Mode, OFlags};

use super::varint;

const HEADER_BYTES: usize = 12;
/// Bytes of records after which a block ends.
const BLOCK_BYTES: usize = 64 << 10;
/// A block ends after the record that fills it.
const BLOCK_BYTES_MAX: usize =
    BLOCK_BYTES + KEY_BYTES_MAX + VALUE_BYTES_MAX + 3 * varint::BYTES_MAX;
const WRITE_BYTES: usize = 1 << 20;

/// A finished run.
#[derive(Debug)]
pub(super) struct Run {
    store: Store,
    /// Where the blocks of each partition begin and end, by partition.
    parts: Vec<Part>,
    pub bytes: u64,
}

#[derive(Debug)]
enum Store {
    Memory(Vec<u8>),
    File(File),
}

#[derive(Clone, Copy, Debug)]
struct Part {
    partition: u16,
    start: u64,
    end: u64,
}

impl Run {
    /// The records of a partition, in order.
    pub fn read(&self, partition: u16) -> RunReader<'_> {
        let found = self.parts.binary_search_by_key(&partition, |part| part.partition);
        let (at, end) = found.map_or((0, 0), |i| (self.parts[i].start, self.parts[i].end));
        RunReader {
            store: &self.store,
            at,
            end,
            block: Cow::Borrowed(&[]),
            position: 0,
            left: 0,
            key: Vec::new(),
            value: 0..0,
        }
    }

    /// The file itself, to damage it.
    #[cfg(test)]
    pub fn file_for_test(&self) -> &File {
        match &self.store {
            Store::File(file) => file,
            Store::Memory(_) => panic!("this run is in memory"),
        }
    }

    /// The partitions that have records, ascending.
    pub fn partitions(&self) -> impl Iterator<Item = u16> + '_ {
        self.parts.iter().map(|part| part.partition)
    }
}

/// Writes a run.
pub(super) struct RunWriter {
    out: Out,
    at: u64,
    parts: Vec<Part>,
    block: Vec<u8>,
    records: u32,
    last_key: Vec<u8>,
}

enum Out {
    Memory(Vec<u8>),
    File(io::BufWriter<File>),
}

impl RunWriter {
    /// Starts a run in a file without a name in `folder`.
    pub fn to_file(folder: &Path) -> Result<Self> {
        let file = unnamed_file(folder)
            .map_err(|e| Error::io(format!("spill to {}", folder.display()), &e))?;
        Ok(Self::new(Out::File(io::BufWriter::with_capacity(WRITE_BYTES, file))))
    }

    /// Starts a run in memory.
    pub fn to_memory() -> Self {
        Self::new(Out::Memory(Vec::new()))
    }

    fn new(out: Out) -> Self {
        Self {
            out,
            at: 0,
            parts: Vec::new(),
            block: vec![0; HEADER_BYTES],
            records: 0,
            last_key: Vec::new(),
        }
    }

    /// Adds a record. The caller gives them in order of partition and key.
    pub fn add(&mut self, partition: u16, key: &[u8], value: &[u8]) -> Result<()> {
        if self.parts.last().is_none_or(|part| part.partition != partition) {
            self.end_block()?;
            self.parts.push(Part { partition, start: self.at, end: self.at });
        }
        let shared = if self.records == 0 { 0 } else { shared(&self.last_key, key) };
        varint::put(&mut self.block, shared as u64);
        varint::put(&mut self.block, (key.len() - shared) as u64);
        varint::put(&mut self.block, value.len() as u64);
        self.block.extend_from_slice(&key[shared..]);
        self.block.extend_from_slice(value);
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(&key[shared..]);
        self.records += 1;
        if self.block.len() >= HEADER_BYTES + BLOCK_BYTES { self.end_block() } else { Ok(()) }
    }

    /// Writes what is left.
    pub fn finish(mut self) -> Result<Run> {
        self.end_block()?;
        let store = match self.out {
            Out::Memory(mut bytes) => {
                bytes.shrink_to_fit();
                Store::Memory(bytes)
            }
            Out::File(out) => {
                Store::File(out.into_inner().map_err(|e| spill_error(self.at, e.error()))?)
            }
        };
        Ok(Run { store, parts: self.parts, bytes: self.at })
    }

    fn end_block(&mut self) -> Result<()> {
        if self.records == 0 {
            return Ok(());
        }
        let bytes = (self.block.len() - HEADER_BYTES) as u32;
        self.block[..4].copy_from_slice(&bytes.to_le_bytes());
        self.block[4..8].copy_from_slice(&self.records.to_le_bytes());
        let crc = block_crc(&self.block[..8], &self.block[HEADER_BYTES..]);
        self.block[8..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        match &mut self.out {
            Out::Memory(bytes) => bytes.extend_from_slice(&self.block),
            Out::File(out) => out.write_all(&self.block).map_err(|e| spill_error(self.at, &e))?,
        }
        self.at += self.block.len() as u64;
        self.parts.last_mut().expect("a record has a partition").end = self.at;
        self.block.truncate(HEADER_BYTES);
        self.records = 0;
        Ok(())
    }
}

/// Reads one partition of a run, record by record.
#[derive(Debug)]
pub(super) struct RunReader<'a> {
    store: &'a Store,
    at: u64,
    end: u64,
    block: Cow<'a, [u8]>,
    position: usize,
    left: u32,
    key: Vec<u8>,
    value: std::ops::Range<usize>,
}

impl<'a> RunReader<'a> {
    /// Goes to the next record. False at the end.
    pub fn advance(&mut self) -> Result<bool> {
        if self.left == 0 {
            if self.position < self.block.len() {
                return Err(self.damaged("bytes behind the last record"));
            }
            if self.at == self.end {
                return Ok(false);
            }
            self.read_block()?;
        }
        match self.decode() {
            Some(()) => {
                self.left -= 1;
                Ok(true)
            }
            None => Err(self.damaged("a record that does not fit")),
        }
    }

    /// The current record's key.
    #[inline]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The current record's value.
    #[inline]
    pub fn value(&self) -> &[u8] {
        &self.block[self.value.clone()]
    }

    fn decode(&mut self) -> Option<()> {
        let mut at = self.position;
        let mut length = || usize::try_from(varint::take(&self.block, &mut at)?).ok();
        let (shared, rest, value) = (length()?, length()?, length()?);
        let key_end = at.checked_add(rest)?;
        let value_end = key_end.checked_add(value)?;
        if shared > self.key.len() || value_end > self.block.len() {
            return None;
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(&self.block[at..key_end]);
        self.value = key_end..value_end;
        self.position = value_end;
        Some(())
    }

    fn read_block(&mut self) -> Result<()> {
        if self.end - self.at < HEADER_BYTES as u64 {
            return Err(self.damaged("a block's header that is cut short"));
        }
        let header = self.bytes_at(self.at, HEADER_BYTES, Cow::Borrowed(&[]))?;
        let word = |i: usize| u32::from_le_bytes(header[i..i + 4].try_into().expect("4 bytes"));
        let (bytes, records, crc) = (word(0) as usize, word(4), word(8));
        let room = self.end - self.at - HEADER_BYTES as u64;
        if bytes > BLOCK_BYTES_MAX || bytes as u64 > room || records == 0 {
            return Err(self.damaged("a block's header that cannot be"));
        }
        let old = std::mem::take(&mut self.block);
        let block = self.bytes_at(self.at + HEADER_BYTES as u64, bytes, old)?;
        if block_crc(&header[..8], &block) != crc {
            return Err(self.damaged("a block whose checksum differs"));
        }
        self.block = block;
        self.at += (HEADER_BYTES + bytes) as u64;
        self.position = 0;
        self.left = records;
        self.key.clear();
        Ok(())
    }

    /// Bytes of the run; `room` is used again where they must be read.
    fn bytes_at(&self, at: u64, bytes: usize, room: Cow<'a, [u8]>) -> Result<Cow<'a, [u8]>> {
        match self.store {
            Store::Memory(all) => {
                let found = usize::try_from(at).ok().and_then(|at| all.get(at..at + bytes));
                found.map(Cow::Borrowed).ok_or_else(|| self.damaged("a part that is cut short"))
            }
            Store::File(file) => {
                let mut buffer = match room {
                    Cow::Owned(buffer) => buffer,
                    Cow::Borrowed(_) => Vec::new(),
                };
                buffer.resize(bytes, 0);
                file.read_exact_at(&mut buffer, at).map_err(|e| match e.kind() {
                    io::ErrorKind::UnexpectedEof => self.damaged("a file that is cut short"),
                    _ => Error::io(format!("read a spilled run at offset {at}"), &e),
                })?;
                Ok(Cow::Owned(buffer))
            }
        }
    }

    fn damaged(&self, what: &str) -> Error {
        let message = format!(
            "a run of the sort has {what} before offset {}: this machine's {} is not to be trusted",
            self.at,
            if matches!(self.store, Store::File(_)) { "disk" } else { "memory" }
        );
        Error::new(Code::Corrupt, message)
    }
}

fn shared(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn block_crc(head: &[u8], records: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head);
    crc.update(records);
    crc.finalize()
}

fn spill_error(at: u64, error: &io::Error) -> Error {
    Error::io(format!("spill at offset {at} of a run"), error)
}

/// A file that has no name, so that nothing is left of it however the process ends.
pub(crate) fn unnamed_file(folder: &Path) -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(folder, flags | OFlags::TMPFILE, mode) {
        Ok(fd) => Ok(File::from(fd)),
        // File systems without it: a name for a moment.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {
            let path = folder.join(format!(".granary-spill-{}", uuid::Uuid::new_v4().simple()));
            let fd = rustix::fs::open(&path, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
            std::fs::remove_file(&path)?;
            Ok(File::from(fd))
        }
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
