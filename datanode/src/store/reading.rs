//! Reading a replica: its open files, how much of them may be seen, and the checksums that go with it.
//!
//! Files are opened without a claim; if the replica changed meanwhile, they are opened again. The checksum of the last,
//! partial chunk is taken when the files are opened, because an append overwrites it in place: after it was read, the
//! replica is looked at once more, and only if it is still the same does the checksum belong to the length.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use proto::{BlockId, Code, Error, GenerationStamp, Result};
use transfer::checksum::{Checksum, SUM_BYTES};
use transfer::meta;

use super::{Store, finalized_paths};
use crate::files;
use crate::map::Slot;
use crate::volume::Volume;

/// How often files are opened again because the replica changed.
const TRIES_MAX: u32 = 8;
/// About so many bytes of a range are checked at once.
const VERIFY_BYTES: u64 = 1 << 20;

/// A replica opened for reading.
pub struct ReplicaReader {
    store: Arc<Store>,
    volume: Arc<Volume>,
    slot: Slot,
    block: BlockId,
    stamp: GenerationStamp,
    data: File,
    meta: File,
    checksum: Checksum,
    length: u64,
    tail_sum: Option<u32>,
}

impl Store {
    /// Opens a replica of generation `stamp` or newer for reading. Blocks: for disk threads.
    ///
    /// `NotFound` if there is none, `Stale` if it is older.
    pub fn open_reader(
        self: &Arc<Self>,
        block: BlockId,
        stamp: GenerationStamp,
    ) -> Result<ReplicaReader> {
        let mut last = None;
        for _ in 0..TRIES_MAX {
            let slot = self.slot_for_reading(block, stamp)?;
            match self.open_slot(block, &slot) {
                Ok(reader) => {
                    if self.map.get(block).is_some_and(|now| now.is_same(&slot)) {
                        return Ok(reader);
                    }
                }
                Err(error) => {
                    if self.map.get(block).is_some_and(|now| now.is_same(&slot)) {
                        // Nobody moved the files: they are missing or damaged.
                        if matches!(error.code, Code::NotFound | Code::Corrupt) {
                            self.report_corrupt(block, &slot, &error);
                            return Err(Error::new(Code::Corrupt, error.message));
                        }
                        return Err(error);
                    }
                    last = Some(error);
                }
            }
        }
        let why = last.map_or(String::new(), |error| format!(": {error}"));
        Err(Error::new(Code::Unavailable, format!("{block} keeps changing{why}")))
    }

    /// The threads of the volume on which a readable replica is.
    pub fn pool_of(&self, block: BlockId, stamp: GenerationStamp) -> Result<crate::disk::DiskPool> {
        let slot = self.slot_for_reading(block, stamp)?;
        Ok(self.disk(slot.volume()).volume.pool().clone())
    }

    /// How many bytes of a replica a reader may see.
    pub fn visible_length(&self, block: BlockId, stamp: GenerationStamp) -> Result<u64> {
        Ok(match self.slot_for_reading(block, stamp)? {
            Slot::Finalized(compact) => u64::from(compact.length),
            Slot::Open(open) => open.lock().replica.visible(),
        })
    }

    /// Whether somebody writes a replica that is not visible up to `end` yet.
    pub fn may_become_visible(&self, block: BlockId, end: u64) -> bool {
        match self.map.get(block) {
            Some(Slot::Open(open)) => open.replica().visible() < end && open.has_writer(),
            _ => false,
        }
    }

    fn slot_for_reading(&self, block: BlockId, stamp: GenerationStamp) -> Result<Slot> {
        let slot = self.map.get(block);
        let slot = slot.ok_or_else(|| {
            Error::new(Code::NotFound, format!("{block} has no replica on this DataNode"))
        })?;
        let found = super::slot_stamp(&slot);
        if found < stamp {
            return Err(Error::new(
                Code::Stale,
                format!("the replica of {block} has {found}, older than the requested {stamp}"),
            ));
        }
        self.disk(slot.volume()).volume.check()?;
        Ok(slot)
    }

    fn open_slot(self: &Arc<Self>, block: BlockId, slot: &Slot) -> Result<ReplicaReader> {
        let volume = self.disk(slot.volume()).volume.clone();
        let (paths, stamp, length, mut tail_sum) = match slot {
            Slot::Finalized(compact) => {
                let paths = finalized_paths(&volume, block, compact.stamp);
                (paths, compact.stamp, u64::from(compact.length), None)
            }
            Slot::Open(open) => {
                let inner = open.lock();
                let paths = crate::open_replica::paths_at(&volume, inner.place, &inner.replica);
                (paths, inner.replica.stamp(), inner.replica.visible(), inner.tail_sum)
            }
        };
        let open = |path: &std::path::Path| {
            File::open(path)
                .map_err(|error| volume.io_error(format_args!("open {}", path.display()), &error))
        };
        let (data, meta) = (open(&paths.data)?, open(&paths.meta)?);
        let checksum = files::read_header(&meta, &paths.meta)?;
        if matches!(slot, Slot::Finalized(_)) {
            let name = paths.data.display().to_string();
            files::check_sizes(&data, &meta, checksum, length, &name)?;
        }
        let chunk = checksum.chunk_bytes() as u64;
        if !length.is_multiple_of(chunk) && tail_sum.is_none() {
            let mut sum = [0; SUM_BYTES];
            meta.read_exact_at(&mut sum, meta::sum_offset(checksum, length / chunk)).map_err(
                |error| volume.io_error(format_args!("read {}", paths.meta.display()), &error),
            )?;
            tail_sum = Some(u32::from_be_bytes(sum));
        }
        let (store, slot) = (self.clone(), slot.clone());
        Ok(ReplicaReader {
            store,
            volume,
            slot,
            block,
            stamp,
            data,
            meta,
            checksum,
            length,
            tail_sum,
        })
    }
}

impl ReplicaReader {
    /// Which block.
    pub fn block(&self) -> BlockId {
        self.block
    }

    /// Its generation.
    pub fn stamp(&self) -> GenerationStamp {
        self.stamp
    }

    /// Bytes that may be read.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What its bytes are checksummed with.
    pub fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// Bytes under one of its checksums.
    pub fn chunk(&self) -> u64 {
        self.checksum.chunk_bytes() as u64
    }

    /// Whether it is finished.
    pub fn is_finalized(&self) -> bool {
        matches!(self.slot, Slot::Finalized(_))
    }

    /// Its volume.
    pub fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// Its open files: data and checksums.
    pub fn files(&self) -> (&File, &File) {
        (&self.data, &self.meta)
    }

    /// Tells the kernel that the range will be read from front to end.
    pub fn advise_sequential(&self, offset: u64, bytes: u64) {
        let length = std::num::NonZeroU64::new(bytes);
        let advice = rustix::fs::Advice::Sequential;
        if let Err(error) = rustix::fs::fadvise(&self.data, offset, length, advice) {
            // Advice only: a file system that does not take it reads all the same.
            tracing::trace!(%error, "fadvise");
        }
    }

    /// Fills `data` from `offset`, which begins a chunk, and appends its checksums to `sums`. `data` ends at a chunk's
    /// end or at the replica's. Damage that shows (a file too short) is reported.
    pub fn read(&self, offset: u64, data: &mut [u8], sums: &mut Vec<u8>) -> Result<()> {
        self.read_inner(offset, data, sums).inspect_err(|error| {
            if error.code == Code::Corrupt {
                self.store.report_corrupt(self.block, &self.slot, error);
            }
        })
    }

    fn read_inner(&self, offset: u64, data: &mut [u8], sums: &mut Vec<u8>) -> Result<()> {
        let end = offset + data.len() as u64;
        assert!(
            offset.is_multiple_of(self.chunk()) && end <= self.length,
            "whole chunks of the replica"
        );
        self.volume.check()?;
        let failed = |error: &std::io::Error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::new(
                Code::Corrupt,
                format!("{}: its files end before byte {end} of {}", self.block, self.length),
            ),
            _ => self.volume.read_error(format_args!("read {}", self.block), error),
        };
        self.data.read_exact_at(data, offset).map_err(|error| failed(&error))?;
        self.sums(offset, data.len() as u64, sums)
    }

    /// Appends the checksums of a range that begins a chunk and ends at a chunk's end or the replica's.
    pub fn sums(&self, offset: u64, bytes: u64, sums: &mut Vec<u8>) -> Result<()> {
        let end = offset + bytes;
        assert!(
            offset.is_multiple_of(self.chunk()) && end <= self.length,
            "whole chunks of the replica"
        );
        let first = sums.len();
        let chunks =
            usize::try_from(bytes.div_ceil(self.chunk())).expect("a block is at most 2 GiB");
        sums.resize(first + chunks * SUM_BYTES, 0);
        let partial = !end.is_multiple_of(self.chunk());
        let stored = sums.len() - if partial { SUM_BYTES } else { 0 };
        let at = meta::sum_offset(self.checksum, offset / self.chunk());
        self.meta.read_exact_at(&mut sums[first..stored], at).map_err(|error| {
            match error.kind() {
                std::io::ErrorKind::UnexpectedEof => Error::new(
                    Code::Corrupt,
                    format!("{}: its checksum file ends before byte {end} of data", self.block),
                ),
                _ => self.volume.read_error(format_args!("read {}", self.block), &error),
            }
        })?;
        if partial {
            assert_eq!(end, self.length, "a partial chunk is the replica's last");
            let sum = self.tail_sum.expect("it was read when the files were opened");
            sums[stored..].copy_from_slice(&sum.to_be_bytes());
        }
        Ok(())
    }

    /// Checks the chunks of a range of a finished replica, and reports it if they are damaged.
    pub fn verify_range(&self, range: std::ops::Range<u64>) -> Result<()> {
        if !self.is_finalized() {
            return Ok(());
        }
        let chunk = self.chunk();
        let step = VERIFY_BYTES.next_multiple_of(chunk);
        let end = range.end.next_multiple_of(chunk).min(self.length);
        let mut at = range.start - range.start % chunk;
        let (mut data, mut sums) = (Vec::new(), Vec::new());
        while at < end {
            let count = step.min(end - at);
            data.resize(usize::try_from(count).expect("at most 2 MiB"), 0);
            sums.clear();
            self.read(at, &mut data, &mut sums)?;
            self.checksum.verify(&data, &sums).map_err(|mismatch| {
                let error = mismatch.into_error(self.block, at);
                self.store.report_corrupt(self.block, &self.slot, &error);
                error
            })?;
            at += count;
        }
        Ok(())
    }

    /// The bytes of a range, after the chunks that it touches were checked. Damage is reported.
    pub fn read_verified(&self, range: std::ops::Range<u64>) -> Result<Vec<u8>> {
        let chunk = self.chunk();
        let start = range.start - range.start % chunk;
        let end = range.end.next_multiple_of(chunk).min(self.length);
        assert!(range.start <= range.end && range.end <= end, "a range of the replica");
        let bytes = usize::try_from(end - start).expect("a part of a block fits in memory");
        let (mut data, mut sums) = (vec![0; bytes], Vec::new());
        self.read(start, &mut data, &mut sums)?;
        if let Err(mismatch) = self.checksum.verify(&data, &sums) {
            // The second look tells damage from a replica that changed under us, and reports it.
            self.verify_range(start..end)?;
            return Err(mismatch.into_error(self.block, start));
        }
        data.truncate(usize::try_from(range.end - start).expect("no longer than the data"));
        data.drain(..usize::try_from(range.start - start).expect("less than a chunk"));
        Ok(data)
    }

    /// Checks every byte, and reports the replica if it is damaged.
    pub fn verify(&self) -> Result<()> {
        if !self.is_finalized() {
            return Ok(());
        }
        let name = self.block.to_string();
        files::verify(&self.data, &self.meta, self.length, &name).inspect_err(|error| {
            if error.code == Code::Corrupt {
                self.store.report_corrupt(self.block, &self.slot, error);
            }
        })
    }
}
