//! A writer for plain threads: `std::io::Write` over [`FileWriter`].
//!
//! Small writes are copied into the current packet without entering the runtime; only a full packet waits for it.

use std::io;

use proto::granary::FileStatus;
use proto::{Error, FsPath, Result};
use tokio::runtime::Handle;

use super::FileWriter;

/// A file that is open for writing, for a plain thread or `spawn_blocking`. Panics if used on an async thread.
///
/// `std::io::Write::flush` hands bytes on but promises nothing about replicas: see [`Self::sync`], [`Self::close`].
#[derive(Debug)]
pub struct BlockingWriter {
    writer: FileWriter,
    runtime: Handle,
}

impl BlockingWriter {
    pub(crate) fn new(writer: FileWriter) -> Self {
        let runtime = writer.fs().runtime().clone();
        Self { writer, runtime }
    }

    /// Which file.
    pub fn path(&self) -> &FsPath {
        self.writer.path()
    }

    /// Offset in the file of the next byte.
    pub fn position(&self) -> u64 {
        self.writer.position()
    }

    /// All bytes are on stable storage on every replica.
    pub fn sync(&mut self) -> Result<()> {
        self.runtime.block_on(self.writer.sync())
    }

    /// See [`FileWriter::close`].
    pub fn close(self) -> Result<FileStatus> {
        self.runtime.block_on(self.writer.close())
    }

    /// See [`FileWriter::abort`].
    pub fn abort(self) -> Result<()> {
        self.runtime.block_on(self.writer.abort())
    }

    /// The writer inside.
    pub fn into_inner(self) -> FileWriter {
        self.writer
    }
}

impl io::Write for BlockingWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = self.writer.push(data);
        if taken > 0 {
            return Ok(taken);
        }
        self.runtime.block_on(self.writer.write(data)).map_err(to_io)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Carries an error through `std::io`; `downcast` gives it back.
pub(crate) fn to_io(error: Error) -> io::Error {
    io::Error::other(error)
}
