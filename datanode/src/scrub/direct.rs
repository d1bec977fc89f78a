//! Reads a file from front to end past the page cache.
//!
//! With O_DIRECT what is read comes from the disk even if it is cached, and nothing is cached that was not. Where the
//! file system refuses that, the file is read the ordinary way, and what was not in memory before is given back to the
//! kernel at once. Blocks; for disk threads.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Advice, fadvise};
use rustix::io::ReadWriteFlags;

/// What offsets, lengths and memory must be multiples of.
const ALIGN: usize = 4 << 10;

/// A file that is read from front to end.
pub struct Sequential {
    file: File,
    direct: bool,
    memory: Vec<u8>,
    /// Where in `memory` aligned bytes begin, and how many are read at once.
    aligned: usize,
    step: usize,
    /// Offset in the file of what is read next.
    at: u64,
    /// What was read and not handed out.
    ready: std::ops::Range<usize>,
}

impl Sequential {
    /// Opens a file; about `step_bytes` are read at once.
    pub fn open(path: &Path, step_bytes: usize) -> io::Result<Self> {
        let step = step_bytes.next_multiple_of(ALIGN).max(ALIGN);
        let direct = File::options().read(true).custom_flags(libc::O_DIRECT).open(path);
        let (file, direct) = match direct {
            Ok(file) => (file, true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => (File::open(path)?, false),
            Err(error) => return Err(error),
        };
        let memory = vec![0; step + ALIGN];
        let aligned = memory.as_ptr().align_offset(ALIGN).min(ALIGN);
        Ok(Self { file, direct, memory, aligned, step, at: 0, ready: 0..0 })
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The next bytes, at most `max` of them; none at the file's end.
    pub fn next(&mut self, max: usize) -> io::Result<&[u8]> {
        if self.ready.is_empty() {
            self.fill()?;
        }
        let count = self.ready.len().min(max);
        let from = self.ready.start;
        self.ready.start += count;
        Ok(&self.memory[from..from + count])
    }

    fn fill(&mut self) -> io::Result<()> {
        let buffer = &mut self.memory[self.aligned..self.aligned + self.step];
        let count = loop {
            let read = if self.direct {
                self.file.read_at(buffer, self.at)
            } else {
                read_and_forget(&self.file, buffer, self.at)
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Some file systems open it so, and then do not read it so.
                Err(error) if self.direct && error.raw_os_error() == Some(libc::EINVAL) => {
                    rustix::fs::fcntl_setfl(&self.file, rustix::fs::OFlags::empty())?;
                    self.direct = false;
                }
                read => break read?,
            }
        };
        self.ready = self.aligned..self.aligned + count;
        self.at += count as u64;
        // Only at the end of the file is a direct read no multiple: what follows would not be aligned.
        if self.direct && !count.is_multiple_of(ALIGN) && count > 0 {
            self.at = self.at.next_multiple_of(ALIGN as u64);
        }
        Ok(())
    }
}

/// Reads, and leaves the page cache as it was: what was in it stays, what came for this read goes.
fn read_and_forget(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut slices = [IoSliceMut::new(buffer)];
    match rustix::io::preadv2(file, &mut slices, at, ReadWriteFlags::NOWAIT) {
        Ok(count) if count > 0 => return Ok(count),
        // Not in memory, or not known here.
        _ => {}
    }
    let count = file.read_at(buffer, at)?;
    if let Err(error) = fadvise(file, at, NonZeroU64::new(count as u64), Advice::DontNeed) {
        tracing::trace!(%error, "fadvise");
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pattern;

    fn read_all(mut from: Sequential, max: usize) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let bytes = from.next(max).unwrap();
            if bytes.is_empty() {
                // And it stays at the end.
                assert!(from.next(max).unwrap().is_empty());
                return all;
            }
            all.extend_from_slice(bytes);
        }
    }

    #[test]
    fn every_byte_comes_once_and_in_order_with_and_without_the_page_cache() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for length in [0, 1, 4_095, 4_096, 4_097, 100_000, 131_072] {
            let data = pattern(length as u64, length);
            std::fs::write(&path, &data).unwrap();
            for (step, max) in [(4_096, 1_000), (65_536, usize::MAX), (1, 4_096)] {
                assert!(read_all(Sequential::open(&path, step).unwrap(), max) == data, "{length}");
                let mut cached = Sequential::open(&path, step).unwrap();
                rustix::fs::fcntl_setfl(&cached.file, rustix::fs::OFlags::empty()).unwrap();
                cached.direct = false;
                assert!(read_all(cached, max) == data, "{length} cached");
            }
        }
    }
}
