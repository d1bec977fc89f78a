//! A reader for plain threads: `std::io::Read` and `Seek` over [`FileReader`].

use std::io::{self, SeekFrom};

use bytes::{Buf, Bytes};
use proto::{FsPath, Result};
use tokio::runtime::Handle;

use super::FileReader;
use crate::write::to_io;

/// A file that is open for reading, for a plain thread or `spawn_blocking`. Panics if used on an async thread.
#[derive(Debug)]
pub struct BlockingReader {
    reader: FileReader,
    runtime: Handle,
    /// Bytes that were fetched and not yet read; they end at the reader's position.
    current: Bytes,
}

impl BlockingReader {
    pub(crate) fn new(reader: FileReader) -> Self {
        let runtime = reader.fs().runtime().clone();
        Self { reader, runtime, current: Bytes::new() }
    }

    /// Which file.
    pub fn path(&self) -> &FsPath {
        self.reader.path()
    }

    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        self.reader.len()
    }

    /// Whether the file has no byte.
    pub fn is_empty(&self) -> bool {
        self.reader.is_empty()
    }

    /// The next bytes without copying them; `None` at the end of the file.
    pub fn next_bytes(&mut self) -> Result<Option<Bytes>> {
        if !self.current.is_empty() {
            return Ok(Some(std::mem::take(&mut self.current)));
        }
        self.runtime.block_on(self.reader.read_next())
    }

    /// Reads at any position, whatever the current one is.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.runtime.block_on(self.reader.read_at(offset, buffer))
    }

    fn position(&self) -> u64 {
        self.reader.position() - self.current.len() as u64
    }
}

impl io::Read for BlockingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() && !buffer.is_empty() {
            let next = self.runtime.block_on(self.reader.read_next()).map_err(to_io)?;
            self.current = next.unwrap_or_default();
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

impl io::Seek for BlockingReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(by) => self.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.position().checked_add_signed(by),
        };
        let target = target.ok_or(io::ErrorKind::InvalidInput)?;
        let position = self.position();
        let ahead = target.checked_sub(position).and_then(|by| usize::try_from(by).ok());
        match ahead.filter(|&by| by <= self.current.len()) {
            Some(by) => self.current.advance(by),
            None => {
                self.current = Bytes::new();
                self.reader.seek(target);
            }
        }
        Ok(target)
    }
}
