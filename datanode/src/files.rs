//! The two files of one replica: writing, syncing, cutting, and finding out how much of them holds.
//!
//! Data and checksums are written in place. The function and the chunk size are those that the block's first writer
//! asked for and stand in the checksum file's header: whoever appends with others has them computed anew here. The bytes
//! of the last, partial chunk are kept in memory, so that its checksum can be computed again when more bytes come. What holds after [`ReplicaFiles::write`]: the files hold `written` bytes and a right checksum for each
//! chunk of them. A sync in the middle of a chunk also keeps a small record, because the chunk's checksum will be
//! overwritten in place: see [`SyncRecord`]. All functions block; they run on disk threads.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::{BlockId, Code, Error, GenerationStamp, Result};
use transfer::checksum::{Checksum, ChecksumKind, SUM_BYTES};
use transfer::{crc, meta};

use crate::layout;
use crate::volume::Volume;

mod run;

pub use run::{Piece, Run};

/// Bytes that are read at once when a replica is checked.
const CHECK_BYTES: usize = 1 << 20;

/// Where the files of a replica are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The folder.
    pub folder: PathBuf,
    /// The block's bytes.
    pub data: PathBuf,
    /// Its checksums.
    pub meta: PathBuf,
    /// The record of a sync within a chunk; only of replicas being written.
    pub synced: PathBuf,
}

impl Paths {
    /// The files of a replica in `folder`.
    pub fn new(folder: &Path, block: BlockId, stamp: GenerationStamp) -> Self {
        Self {
            data: folder.join(layout::data_name(block)),
            meta: folder.join(layout::meta_name(block, stamp)),
            synced: folder.join(layout::synced_name(block)),
            folder: folder.to_owned(),
        }
    }
}

/// The open files of a replica that is being written.
pub struct ReplicaFiles {
    volume: Arc<Volume>,
    paths: Paths,
    checksum: Checksum,
    data: File,
    meta: File,
    written: u64,
    /// The bytes of the last chunk if it is partial.
    tail: Vec<u8>,
    /// Up to here writing back was started.
    written_back: u64,
    /// Whether there may be a [`SyncRecord`].
    may_have_record: bool,
    ahead: run::Ahead,
}

/// How far a write came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrote {
    /// Bytes in the files.
    pub end: u64,
    /// The checksum of the last chunk if that is partial.
    pub tail_sum: Option<u32>,
}

impl ReplicaFiles {
    /// New, empty files. They must not exist.
    pub fn create(volume: &Arc<Volume>, paths: Paths, checksum: Checksum) -> Result<Self> {
        assert_ne!(checksum.kind(), ChecksumKind::Null, "what is stored is checksummed");
        let open =
            |path: &Path| {
                File::options().read(true).write(true).create_new(true).open(path).map_err(
                    |error| volume.io_error(format_args!("make {}", path.display()), &error),
                )
            };
        let (data, meta) = (open(&paths.data)?, open(&paths.meta)?);
        meta.write_all_at(&meta::encode_header(checksum), 0)
            .map_err(|e| volume.io_error(format_args!("write {}", paths.meta.display()), &e))?;
        let volume = volume.clone();
        Ok(Self {
            volume,
            paths,
            checksum,
            data,
            meta,
            written: 0,
            tail: Vec::new(),
            written_back: 0,
            may_have_record: false,
            ahead: run::Ahead::default(),
        })
    }

    /// Files that hold at least `length` bytes; what is beyond is cut off. The last chunk is verified.
    pub fn open(volume: &Arc<Volume>, paths: Paths, length: u64) -> Result<Self> {
        let open =
            |path: &Path| {
                File::options().read(true).write(true).open(path).map_err(|error| {
                    volume.io_error(format_args!("open {}", path.display()), &error)
                })
            };
        let (data, meta) = (open(&paths.data)?, open(&paths.meta)?);
        let checksum = read_header(&meta, &paths.meta)?;
        let volume = volume.clone();
        let mut files = Self {
            volume,
            paths,
            checksum,
            data,
            meta,
            written: length,
            tail: Vec::new(),
            written_back: length,
            may_have_record: true,
            ahead: run::Ahead::default(),
        };
        files.truncate(length)?;
        Ok(files)
    }

    /// Where they are.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// What its bytes are checksummed with.
    pub fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// The files were moved.
    pub fn moved(&mut self, paths: Paths) {
        self.paths = paths;
    }

    /// Whether there may be a record of a sync within a chunk. Only then is it looked for when the replica is finished.
    pub fn may_have_record(&self) -> bool {
        self.may_have_record
    }

    /// Bytes in the files.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The checksum of the last chunk if that is partial.
    pub fn tail_sum(&self) -> Option<u32> {
        (!self.tail.is_empty()).then(|| self.checksum.of(&self.tail))
    }

    /// Writes `data`, which lies at `offset` in the block, and its checksums.
    ///
    /// `sums` are the data's checksums as they are stored, if it begins at a chunk; without them they are computed here.
    /// Bytes that are in the files already are not written again. A gap is `InvalidArgument`; other bytes than those
    /// in the last chunk are `Corrupt`.
    pub fn write(&mut self, offset: u64, data: &[u8], sums: Option<&[u8]>) -> Result<Wrote> {
        if offset > self.written {
            return Err(Error::new(
                Code::InvalidArgument,
                format!(
                    "{}: a packet at offset {offset}, but only {} bytes came before",
                    self.paths.data.display(),
                    self.written
                ),
            ));
        }
        assert!(
            sums.is_none() || offset.is_multiple_of(self.chunk()),
            "checksums begin at a chunk"
        );
        let skip = usize::try_from(self.written - offset).unwrap_or(usize::MAX);
        if skip < data.len() {
            let (fresh_sums, tail) = self.sums_of(offset, data, skip, sums)?;
            self.ask_ahead(self.written + (data.len() - skip) as u64);
            self.write_at(&data[skip..], &fresh_sums)?;
            self.written += (data.len() - skip) as u64;
            self.tail = tail;
            self.pace()?;
        }
        Ok(Wrote { end: self.written, tail_sum: self.tail_sum() })
    }

    /// Makes data and checksums durable.
    pub fn sync(&self) -> Result<()> {
        self.volume.check()?;
        // The checksum file's writeback starts first, so that both files share a journal commit.
        start_writeback(&self.meta, 0, 0);
        for (file, path) in [(&self.data, &self.paths.data), (&self.meta, &self.paths.meta)] {
            file.sync_data().map_err(|error| {
                self.volume.sync_error(format_args!("sync {}", path.display()), &error)
            })?;
        }
        Ok(())
    }

    /// Makes durable what a replica being written holds: data, checksums, and their names.
    pub fn sync_open(&mut self) -> Result<()> {
        self.sync()?;
        if let Some(sum) = self.tail_sum() {
            self.may_have_record = true;
            SyncRecord { length: self.written, tail_sum: sum }.store(&self.paths.synced).map_err(
                |error| {
                    let path = self.paths.synced.display();
                    self.volume.sync_error(format_args!("sync {path}"), &error)
                },
            )?;
        }
        self.volume.sync_folder(&self.paths.folder)
    }

    /// Cuts both files to `length` bytes of data, and gives the last chunk its checksum.
    pub fn truncate(&mut self, length: u64) -> Result<()> {
        assert!(length <= self.written, "files are cut, not stretched");
        let tail = self.read_tail(length)?;
        let cut = |file: &File, path: &Path, bytes: u64| {
            let size = file.metadata()?.len();
            if size < bytes {
                let why = format!("{} has {size} bytes, expected {bytes}", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            if size > bytes { file.set_len(bytes) } else { Ok(()) }
        };
        let told = |error: io::Error| match error.kind() {
            io::ErrorKind::InvalidData => Error::new(Code::Corrupt, error.to_string()),
            _ => self.volume.io_error(format_args!("cut {}", self.paths.data.display()), &error),
        };
        cut(&self.data, &self.paths.data, length).map_err(told)?;
        cut(&self.meta, &self.paths.meta, meta::file_bytes(self.checksum, length)).map_err(told)?;
        if !tail.is_empty() {
            let sum = self.checksum.of(&tail).to_be_bytes();
            let at = meta::sum_offset(self.checksum, length / self.chunk());
            self.meta.write_all_at(&sum, at).map_err(told)?;
        }
        self.tail = tail;
        self.written = length;
        self.written_back = self.written_back.min(length);
        Ok(())
    }

    /// The bytes of the partial chunk that ends at `length`; the chunk's bytes are verified as far as they reach.
    fn read_tail(&self, length: u64) -> Result<Vec<u8>> {
        let start = length - length % self.chunk();
        let mut chunk = vec![0; (length - start) as usize];
        if chunk.is_empty() {
            return Ok(chunk);
        }
        let damaged = |error: &io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::new(
                Code::Corrupt,
                format!("{} ends before byte {length}", self.paths.data.display()),
            ),
            _ => self.volume.io_error(format_args!("read {}", self.paths.data.display()), error),
        };
        self.data.read_exact_at(&mut chunk, start).map_err(|error| damaged(&error))?;
        let mut sum = [0; SUM_BYTES];
        self.meta
            .read_exact_at(&mut sum, meta::sum_offset(self.checksum, start / self.chunk()))
            .map_err(|error| damaged(&error))?;
        let stored = u32::from_be_bytes(sum);
        if self.checksum.of(&chunk) == stored {
            return Ok(chunk);
        }
        // The stored checksum may cover more of the chunk than is wanted now.
        let mut whole = vec![0; self.checksum.chunk_bytes()];
        let have = read_up_to(&self.data, &mut whole, start).map_err(|error| damaged(&error))?;
        let covered = crc::longest_prefix(self.checksum.kind(), &whole[..have], stored);
        if covered.is_some_and(|covered| covered >= chunk.len()) {
            return Ok(chunk);
        }
        Err(Error::new(
            Code::Corrupt,
            format!(
                "{}: the chunk at offset {start} does not match its checksum",
                self.paths.data.display()
            ),
        ))
    }

    /// Checksums of the chunks that `data[skip..]` touches, and the partial chunk at the end.
    fn sums_of(
        &self,
        offset: u64,
        data: &[u8],
        skip: usize,
        sums: Option<&[u8]>,
    ) -> Result<(Vec<u8>, Vec<u8>)> {
        let fresh = &data[skip..];
        let chunk = self.checksum.chunk_bytes();
        let first = if self.tail.is_empty() { 0 } else { fresh.len().min(chunk - self.tail.len()) };
        let mut out = Vec::with_capacity((fresh.len() / chunk + 2) * SUM_BYTES);
        let mut tail = Vec::new();
        // The place of the first chunk that is touched among the chunks of the packet.
        let begun = self.written - self.written % self.chunk();
        let at = (begun.saturating_sub(offset) / self.chunk()) as usize;
        let given = sums.and_then(|sums| sums.get(at * SUM_BYTES..));
        if first > 0 {
            let mut joined = self.tail.clone();
            joined.extend_from_slice(&fresh[..first]);
            let sum = self.checksum.of(&joined).to_be_bytes();
            if given.is_some_and(|given| given[..SUM_BYTES] != sum) {
                return Err(Error::new(
                    Code::Corrupt,
                    format!(
                        "{}: a packet at offset {offset} has other bytes than those before byte {}",
                        self.paths.data.display(),
                        self.written
                    ),
                ));
            }
            out.extend_from_slice(&sum);
            if joined.len() < chunk {
                tail = joined;
            }
        }
        let rest = &fresh[first..];
        match given {
            Some(given) => out.extend_from_slice(&given[out.len()..]),
            None => {
                let start = out.len();
                out.resize(start + self.checksum.sum_bytes(rest.len()), 0);
                self.checksum.compute(rest, &mut out[start..]);
            }
        }
        if !rest.len().is_multiple_of(chunk) {
            tail = rest[rest.len() - rest.len() % chunk..].to_vec();
        }
        Ok((out, tail))
    }

    fn chunk(&self) -> u64 {
        self.checksum.chunk_bytes() as u64
    }

    fn write_at(&self, data: &[u8], sums: &[u8]) -> Result<()> {
        self.volume.check()?;
        self.data.write_all_at(data, self.written).map_err(|error| {
            self.volume.io_error(format_args!("write {}", self.paths.data.display()), &error)
        })?;
        let at = meta::sum_offset(self.checksum, self.written / self.chunk());
        self.meta.write_all_at(sums, at).map_err(|error| {
            self.volume.io_error(format_args!("write {}", self.paths.meta.display()), &error)
        })
    }

    /// Starts writing back what came, so that the sync at the end is short, and looks after the reserve.
    fn pace(&mut self) -> Result<()> {
        let fresh = self.written - self.written_back;
        if fresh >= self.volume.writeback_bytes() {
            start_writeback(&self.data, self.written_back, fresh);
            self.written_back = self.written;
            self.volume.check_reserve()?;
        }
        Ok(())
    }
}

/// Reads a checksum file's header. One without checksums is `Corrupt`: none is written so.
pub fn read_header(meta: &File, path: &Path) -> Result<Checksum> {
    let mut header = [0; meta::HEADER_BYTES];
    let have = read_up_to(meta, &mut header, 0)
        .map_err(|error| Error::io(format_args!("read {}", path.display()), &error))?;
    let found =
        meta::decode_header(&header[..have]).map_err(|error| error.context(path.display()))?;
    if found.kind() == ChecksumKind::Null {
        return Err(Error::new(Code::Corrupt, format!("{}: it has no checksums", path.display())));
    }
    Ok(found)
}

/// How many bytes of a half-written replica its checksums confirm.
///
/// A whole chunk counts if its checksum fits. The last chunk counts as far as its checksum fits some prefix of it (the
/// data may have grown before its checksum did), and as far as a [`SyncRecord`] confirms it (the checksum may have
/// been overwritten before the data was).
pub fn confirmed_length(paths: &Paths) -> Result<u64> {
    let open = |path: &Path| {
        File::open(path).map_err(|error| Error::io(format_args!("open {}", path.display()), &error))
    };
    let (data, meta) = (open(&paths.data)?, open(&paths.meta)?);
    let Ok(checksum) = read_header(&meta, &paths.meta) else { return Ok(0) };
    let chunk = checksum.chunk_bytes() as u64;
    let failed =
        |error: io::Error| Error::io(format_args!("read {}", paths.data.display()), &error);
    let size = data.metadata().map_err(failed)?.len().next_multiple_of(chunk);
    let step = usize::try_from(size).unwrap_or(CHECK_BYTES).min(step_bytes(checksum));
    let mut bytes = vec![0; step];
    let mut sums = vec![0; checksum.sum_bytes(step)];
    let mut good = 0u64;
    loop {
        let have = read_up_to(&data, &mut bytes, good).map_err(failed)?;
        let at = meta::sum_offset(checksum, good / chunk);
        let have_sums = read_up_to(&meta, &mut sums, at).map_err(failed)?;
        let covered = have.min(have_sums / SUM_BYTES * checksum.chunk_bytes());
        let whole = covered - covered % checksum.chunk_bytes();
        let sums_of_whole = &sums[..checksum.sum_bytes(whole)];
        if let Err(mismatch) = checksum.verify(&bytes[..whole], sums_of_whole) {
            good += mismatch.offset as u64;
            break;
        }
        good += whole as u64;
        if whole < step || step == 0 {
            break;
        }
    }
    let tail = confirmed_tail(&data, &meta, checksum, good, &paths.synced).map_err(failed)?;
    Ok(good + tail as u64)
}

/// How many bytes of the partial chunk at `good` are confirmed.
fn confirmed_tail(
    data: &File,
    meta: &File,
    checksum: Checksum,
    good: u64,
    synced: &Path,
) -> io::Result<usize> {
    let mut chunk = vec![0; checksum.chunk_bytes()];
    let have = read_up_to(data, &mut chunk, good)?;
    let mut sum = [0; SUM_BYTES];
    let at = meta::sum_offset(checksum, good / checksum.chunk_bytes() as u64);
    let mut tail = 0;
    if read_up_to(meta, &mut sum, at)? == SUM_BYTES {
        let stored = u32::from_be_bytes(sum);
        tail = crc::longest_prefix(checksum.kind(), &chunk[..have], stored).unwrap_or(0);
    }
    if let Some(record) = SyncRecord::load(synced)
        && let Some(end) = record.length.checked_sub(good).and_then(|end| usize::try_from(end).ok())
        && (1..=have).contains(&end)
        && checksum.of(&chunk[..end]) == record.tail_sum
    {
        tail = tail.max(end);
    }
    Ok(tail)
}

/// Bytes that are checked at once: whole chunks, about [`CHECK_BYTES`].
fn step_bytes(checksum: Checksum) -> usize {
    (CHECK_BYTES / checksum.chunk_bytes()).max(1) * checksum.chunk_bytes()
}

/// Brings the files of a half-written replica to the length that [`confirmed_length`] found.
pub fn settle(paths: &Paths, length: u64) -> io::Result<()> {
    let data = File::options().read(true).write(true).open(&paths.data)?;
    let meta = File::options().read(true).write(true).open(&paths.meta)?;
    let checksum = match read_header(&meta, &paths.meta) {
        Ok(checksum) => checksum,
        // Cut off before the header was written: then there is no byte either.
        Err(_) if length == 0 => Checksum::NATIVE,
        Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
    };
    if length == 0 {
        meta.write_all_at(&meta::encode_header(checksum), 0)?;
    }
    let chunk_bytes = checksum.chunk_bytes() as u64;
    let start = length - length % chunk_bytes;
    if length > start {
        let mut chunk = vec![0; (length - start) as usize];
        data.read_exact_at(&mut chunk, start)?;
        let sum = checksum.of(&chunk).to_be_bytes();
        meta.write_all_at(&sum, meta::sum_offset(checksum, start / chunk_bytes))?;
    }
    data.set_len(length)?;
    meta.set_len(meta::file_bytes(checksum, length))
}

/// Checks a finished replica of `length` bytes: sizes, header, and every checksum. The error names the first damage.
pub fn verify(data: &File, meta: &File, length: u64, name: &str) -> Result<()> {
    let checksum = read_header(meta, Path::new(name))?;
    check_sizes(data, meta, checksum, length, name)?;
    let read = |error: io::Error| Error::io(format_args!("read {name}"), &error);
    let chunk = checksum.chunk_bytes() as u64;
    let step = length.min(step_bytes(checksum) as u64);
    let mut bytes = vec![0; usize::try_from(step).expect("at most 1 MiB")];
    let mut sums = vec![0; checksum.sum_bytes(bytes.len())];
    let mut at = 0;
    while at < length {
        let count = usize::try_from((length - at).min(step)).expect("at most 1 MiB");
        let sum_count = checksum.sum_bytes(count);
        data.read_exact_at(&mut bytes[..count], at).map_err(read)?;
        meta.read_exact_at(&mut sums[..sum_count], meta::sum_offset(checksum, at / chunk))
            .map_err(read)?;
        checksum
            .verify(&bytes[..count], &sums[..sum_count])
            .map_err(|mismatch| mismatch.into_error(name, at))?;
        at += count as u64;
    }
    Ok(())
}

/// Checks that both files of a finished replica have the sizes that `length` asks for.
pub fn check_sizes(
    data: &File,
    meta: &File,
    checksum: Checksum,
    length: u64,
    name: &str,
) -> Result<()> {
    for (file, what, expected) in
        [(data, "data", length), (meta, "checksum", meta::file_bytes(checksum, length))]
    {
        let found =
            file.metadata().map_err(|e| Error::io(format_args!("look at {name}"), &e))?.len();
        if found != expected {
            return Err(Error::new(
                Code::Corrupt,
                format!("{name}: the {what} file has {found} bytes, expected {expected}"),
            ));
        }
    }
    Ok(())
}

/// Reads until `buffer` is full or the file ends; tells how many bytes came.
pub fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match file.read_at(&mut buffer[have..], offset + have as u64) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

/// What a sync in the middle of a chunk made durable: `blk_N.synced`, 20 bytes.
///
/// ```text
/// u64 length | u32 checksum of the partial chunk that ends there | u32 0 | u32 CRC32 of the 16 bytes before   (big-endian)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncRecord {
    /// Bytes of the block that were durable.
    pub length: u64,
    /// Checksum of the partial chunk that ends there.
    pub tail_sum: u32,
}

impl SyncRecord {
    const BYTES: usize = 20;

    /// Its bytes.
    pub fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.length.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.tail_sum.to_be_bytes());
        let sum = crc32fast::hash(&bytes[..16]);
        bytes[16..].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// Reads it; `None` if the bytes are not a whole record.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let (body, sum) = bytes.split_at(16);
        if crc32fast::hash(body).to_be_bytes() != sum {
            return None;
        }
        Some(Self {
            length: u64::from_be_bytes(body[..8].try_into().expect("8 bytes")),
            tail_sum: u32::from_be_bytes(body[8..12].try_into().expect("4 bytes")),
        })
    }

    /// Reads the record of a replica, if there is a good one.
    pub fn load(path: &Path) -> Option<Self> {
        let mut bytes = [0; Self::BYTES + 1];
        let have = read_up_to(&File::open(path).ok()?, &mut bytes, 0).ok()?;
        Self::decode(&bytes[..have])
    }

    fn store(self, path: &Path) -> io::Result<()> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        file.write_all_at(&self.encode(), 0)?;
        file.sync_data()
    }
}

/// Asks the kernel to begin writing back a range (0 bytes: to the file's end) without waiting for it.
fn start_writeback(file: &File, offset: u64, bytes: u64) {
    let (Ok(offset), Ok(bytes)) = (i64::try_from(offset), i64::try_from(bytes)) else {
        return;
    };
    // SAFETY: the call takes an open descriptor and three integers and touches no memory of ours.
    let _advice_only = unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, bytes, libc::SYNC_FILE_RANGE_WRITE)
    };
}

#[cfg(test)]
mod tests;
