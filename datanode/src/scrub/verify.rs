//! One replica, verified step by step: sizes, header, every checksum.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use proto::{BlockId, Code, Error, Result};
use transfer::checksum::{Checksum, SUM_BYTES};
use transfer::meta;

use super::direct::Sequential;
use crate::files;
use crate::map::Slot;
use crate::store::Store;
use crate::volume::Volume;

/// Bytes that are verified in one step.
const STEP_BYTES: usize = 1 << 20;
/// Bytes of checksums that are read at once.
const SUMS_BYTES: usize = 32 << 10;

/// A finished replica that is being verified.
pub struct Verification {
    block: BlockId,
    slot: Slot,
    volume: Arc<Volume>,
    length: u64,
    paths: (PathBuf, PathBuf),
    open: Option<Open>,
    at: u64,
}

/// Its open files.
struct Open {
    data: Sequential,
    sums: Sequential,
    checksum: Checksum,
    /// Bytes of a chunk that is not whole yet.
    chunk: Vec<u8>,
}

impl Verification {
    /// Begins to look at a replica; `None` if there is none that is finished, or its volume is out of service.
    pub fn begin(store: &Store, block: BlockId) -> Option<Self> {
        let (slot, volume, paths) = store.finalized_files(block)?;
        let Slot::Finalized(compact) = &slot else { return None };
        let length = u64::from(compact.length);
        let paths = (paths.data, paths.meta);
        Some(Self { block, slot, volume, length, paths, open: None, at: 0 })
    }

    /// Which block.
    pub fn block(&self) -> BlockId {
        self.block
    }

    /// Its volume.
    pub fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// The replica as it was when this began.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Its bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Verifies some more; tells how many bytes, 0 at the end. `Corrupt` if there is damage. Blocks.
    pub fn step(&mut self) -> Result<u64> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open()?,
        };
        let end = self.length.min(self.at + STEP_BYTES as u64);
        let begin = self.at;
        while self.at < end {
            let left = usize::try_from(end - self.at).expect("a step is small");
            let bytes = open.data.next(left).map_err(|error| self.failed(&error))?;
            if bytes.is_empty() {
                return Err(self.damaged(format_args!("its data ends at {}", self.at)));
            }
            let mut bytes = bytes;
            while !bytes.is_empty() {
                let wanted = open.checksum.chunk_bytes() - open.chunk.len();
                let (now, later) = bytes.split_at(wanted.min(bytes.len()));
                bytes = later;
                self.at += now.len() as u64;
                let is_whole = now.len() == wanted || self.at == self.length;
                if !is_whole {
                    open.chunk.extend_from_slice(now);
                    continue;
                }
                let found = match open.chunk.is_empty() {
                    true => open.checksum.of(now),
                    false => {
                        open.chunk.extend_from_slice(now);
                        open.checksum.of(&open.chunk)
                    }
                };
                open.chunk.clear();
                let stored = next_sum(&mut open.sums).map_err(|error| self.failed(&error))?;
                if stored != Some(found) {
                    return Err(self.damaged(format_args!(
                        "the chunk before byte {} has checksum {found:08x}, expected {stored:08x?}",
                        self.at
                    )));
                }
            }
        }
        self.open = Some(open);
        Ok(self.at - begin)
    }

    fn open(&self) -> Result<Open> {
        let (data_path, meta_path) = &self.paths;
        let bounded = |most: usize, bytes: u64| usize::try_from(bytes).unwrap_or(most).min(most);
        let data = Sequential::open(data_path, bounded(STEP_BYTES, self.length))
            .map_err(|error| self.failed(&error))?;
        let sums = self.length.div_ceil(Checksum::NATIVE.chunk_bytes() as u64) * SUM_BYTES as u64;
        let mut sums = Sequential::open(meta_path, bounded(SUMS_BYTES, sums))
            .map_err(|error| self.failed(&error))?;
        let mut header = Vec::new();
        while header.len() < meta::HEADER_BYTES {
            let left = meta::HEADER_BYTES - header.len();
            match sums.next(left).map_err(|error| self.failed(&error))? {
                [] => break,
                bytes => header.extend_from_slice(bytes),
            }
        }
        let checksum = meta::decode_header(&header)
            .map_err(|error| self.damaged(format_args!("{}", error.message)))?;
        if checksum.without_sums() == checksum {
            return Err(self.damaged(format_args!("it has no checksums")));
        }
        let name = self.block.to_string();
        files::check_sizes(data.file(), sums.file(), checksum, self.length, &name)?;
        Ok(Open { data, sums, checksum, chunk: Vec::new() })
    }

    fn failed(&self, error: &io::Error) -> Error {
        let what = format!("read {}", self.paths.0.display());
        match error.kind() {
            io::ErrorKind::NotFound => self.damaged(format_args!("{what}: {error}")),
            _ => self.volume.read_error(what, error),
        }
    }

    fn damaged(&self, what: std::fmt::Arguments<'_>) -> Error {
        Error::new(Code::Corrupt, format!("{}: {what}", self.block))
    }
}

/// The next checksum; `None` at the file's end.
fn next_sum(sums: &mut Sequential) -> io::Result<Option<u32>> {
    let mut sum = [0; SUM_BYTES];
    let mut have = 0;
    while have < SUM_BYTES {
        let bytes = sums.next(SUM_BYTES - have)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        sum[have..have + bytes.len()].copy_from_slice(bytes);
        have += bytes.len();
    }
    Ok(Some(u32::from_be_bytes(sum)))
}
