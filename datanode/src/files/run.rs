//! Several packets written at once: their bytes in one call, and their checksums in another.
//!
//! What a packet costs is mostly the call: the file system finds its way to the page, to the extent, to the journal, each
//! time. Space is asked for ahead in large steps, so that it is not looked for block by block. What holds: space that was
//! asked for and not used is given back before a replica is finished; a file system that gives none ahead is written to
//! all the same; what [`ReplicaFiles::write`] promises holds here as well.

use std::fs::File;
use std::io::{self, IoSlice};

use proto::{Error, Result};
use rustix::fs::FallocateFlags;
use transfer::meta;

use super::{ReplicaFiles, Wrote};

/// Bytes of a block after which space is asked for ahead: what is small is not worth it.
const AHEAD_FROM_BYTES: u64 = 1 << 20;
/// Bytes that are asked for at once.
const AHEAD_BYTES: u64 = 8 << 20;

/// Data is handed to the file system in steps that end at multiples of this: each becomes one piece of the page cache.
/// Larger ones cost a little less where memory in large pieces is at hand, and several times more where it is not.
const STEP_BYTES: u64 = 64 << 10;

/// Bytes of a packet, and where they belong.
#[derive(Clone, Copy)]
pub struct Piece<'a> {
    /// Offset in the block.
    pub offset: u64,
    /// The bytes.
    pub data: &'a [u8],
    /// Their checksums as they are stored, if they begin at a chunk; otherwise they are computed.
    pub sums: Option<&'a [u8]>,
}

/// How far the pieces of a run came: one value for each that is written, in order, and why the next one is not.
#[derive(Debug, Default)]
pub struct Run {
    /// How far each piece came.
    pub wrote: Vec<Wrote>,
    /// What the first piece failed with that is not in the files.
    pub failed: Option<Error>,
}

impl Run {
    /// Nothing was written.
    pub fn failed(error: Error) -> Self {
        Self { wrote: Vec::new(), failed: Some(error) }
    }

    /// Whether all was written.
    pub fn result(self) -> Result<()> {
        self.failed.map_or(Ok(()), Err)
    }
}

/// Space of a data file that was asked for ahead.
#[derive(Default)]
pub(super) struct Ahead {
    /// Up to here.
    to: u64,
    /// The file system gives none.
    refused: bool,
}

impl ReplicaFiles {
    /// Writes pieces one behind the other.
    pub fn write_run(&mut self, pieces: &[Piece<'_>]) -> Run {
        if self.fits_on(pieces) {
            return match self.write_together(pieces) {
                Ok(wrote) => Run { wrote, failed: None },
                Err(error) => Run::failed(error),
            };
        }
        let mut run = Run::default();
        for piece in pieces {
            match self.write(piece.offset, piece.data, piece.sums) {
                Ok(wrote) => run.wrote.push(wrote),
                Err(error) => {
                    run.failed = Some(error);
                    break;
                }
            }
        }
        run
    }

    /// Gives back what was asked for ahead and not used.
    pub fn give_back(&mut self) -> Result<()> {
        // Of files that were opened again nobody knows what an earlier writer left.
        if self.ahead.to > self.written || self.may_have_record {
            self.data.set_len(self.written).map_err(|error| {
                self.volume.io_error(format_args!("cut {}", self.paths.data.display()), &error)
            })?;
            self.ahead.to = 0;
        }
        Ok(())
    }

    /// Asks for space for what is written up to `end`.
    pub(super) fn ask_ahead(&mut self, end: u64) {
        if self.ahead.refused || end < AHEAD_FROM_BYTES || end <= self.ahead.to {
            return;
        }
        let from = self.ahead.to.max(self.written);
        let bytes = (end - from).max(AHEAD_BYTES);
        match rustix::fs::fallocate(&self.data, FallocateFlags::KEEP_SIZE, from, bytes) {
            Ok(()) => self.ahead.to = from + bytes,
            // A file system that cannot, or has no such room: then it shows when the bytes are written.
            Err(_) => self.ahead.refused = true,
        }
    }

    /// Whether the pieces continue the files chunk by chunk, each with its checksums.
    fn fits_on(&self, pieces: &[Piece<'_>]) -> bool {
        let mut at = self.written;
        self.tail.is_empty()
            && pieces.len() > 1
            && pieces.iter().all(|piece| {
                let follows = piece.offset == at && at.is_multiple_of(self.chunk());
                at += piece.data.len() as u64;
                follows && piece.sums.is_some()
            })
    }

    fn write_together(&mut self, pieces: &[Piece<'_>]) -> Result<Vec<Wrote>> {
        self.volume.check()?;
        let end = self.written + pieces.iter().map(|piece| piece.data.len() as u64).sum::<u64>();
        self.ask_ahead(end);
        let data = pieces.iter().map(|piece| piece.data);
        write_all_at(&self.data, data, self.written).map_err(|error| {
            self.volume.io_error(format_args!("write {}", self.paths.data.display()), &error)
        })?;
        let sums = pieces.iter().filter_map(|piece| piece.sums);
        let at = meta::sum_offset(self.checksum, self.written / self.chunk());
        write_all_at(&self.meta, sums, at).map_err(|error| {
            self.volume.io_error(format_args!("write {}", self.paths.meta.display()), &error)
        })?;
        let mut wrote = Vec::with_capacity(pieces.len());
        for piece in pieces {
            self.written += piece.data.len() as u64;
            // Only the last piece can end within a chunk.
            let open = piece.data.len() % self.checksum.chunk_bytes();
            self.tail.extend_from_slice(&piece.data[piece.data.len() - open..]);
            wrote.push(Wrote { end: self.written, tail_sum: self.tail_sum() });
        }
        self.pace()?;
        Ok(wrote)
    }
}

/// Writes all bytes of `parts` one behind the other from `offset`, in steps that end at multiples of [`STEP_BYTES`].
fn write_all_at<'a>(
    file: &File,
    parts: impl IntoIterator<Item = &'a [u8]>,
    offset: u64,
) -> io::Result<()> {
    let mut step = Vec::new();
    let (mut at, mut room) = (offset, room_at(offset));
    for mut part in parts {
        while !part.is_empty() {
            let (now, later) = part.split_at(part.len().min(room));
            step.push(IoSlice::new(now));
            room -= now.len();
            part = later;
            if room == 0 {
                at += write_step(file, &mut step, at)?;
                step.clear();
                room = room_at(at);
            }
        }
    }
    write_step(file, &mut step, at).map(drop)
}

/// Bytes from `offset` to where a step ends.
fn room_at(offset: u64) -> usize {
    (STEP_BYTES - offset % STEP_BYTES) as usize
}

/// Writes all slices from `offset`, and tells how many bytes that were.
fn write_step(file: &File, mut slices: &mut [IoSlice<'_>], begin: u64) -> io::Result<u64> {
    let mut offset = begin;
    while !slices.is_empty() {
        match rustix::io::pwritev(file, slices, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                IoSlice::advance_slices(&mut slices, count);
                offset += count as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(offset - begin)
}

#[cfg(test)]
mod tests;
