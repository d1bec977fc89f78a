//! Reading a file: positions to blocks, blocks to replicas, replicas to verified bytes.
//!
//! [`FileReader::read_at`] reads at any position and may be called by many tasks at once; [`FileReader::read_next`]
//! goes from front to back with a task that fetches ahead. What holds: every byte handed out matched its checksum; a
//! replica that fails is left in the middle of a read without the caller noticing; a read fails only after every
//! replica failed and the NameNode was asked for others `read_rounds_max` times, and then says what each replica said.
//! The list of blocks is fetched in windows and kept. A striped block is read cell by cell from its units, and decoded
//! where some cannot be read ([`striped`]).

mod ahead;
mod blocking;
mod failures;
mod locations;
mod replica;
mod stream;
mod striped;

use std::sync::Arc;

use bytes::Bytes;
use proto::granary::{FileStatus, LocatedBlock};
use proto::{Code, Error, FsPath, Result};

pub use blocking::BlockingReader;

use crate::fs::Fs;
use ahead::ReadAhead;
use locations::Locations;
use stream::RangeStream;

/// A file that is open for reading.
///
/// Its length is that of the moment it was opened; [`Self::refresh`] looks again at a file that is being written.
#[derive(Debug)]
pub struct FileReader {
    file: Arc<OpenFile>,
    position: u64,
    ahead: Option<ReadAhead>,
}

/// What all reads of an open file share.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) fs: Fs,
    pub(crate) path: FsPath,
    pub(crate) locations: Locations,
    pub(crate) local: replica::LocalReplicas,
}

/// Reads up to this many bytes happen in the caller's task: handing them over would cost more than fetching ahead gains.
const INLINE_BYTES_MAX: u64 = 1 << 20;

impl FileReader {
    pub(crate) async fn open(fs: Fs, path: FsPath) -> Result<Self> {
        let locations = Locations::open(&fs, &path).await?;
        let local = replica::LocalReplicas::new(fs.config().short_circuit);
        let file = Arc::new(OpenFile { fs, path, locations, local });
        Ok(Self { file, position: 0, ahead: None })
    }

    /// Which file.
    pub fn path(&self) -> &FsPath {
        &self.file.path
    }

    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        self.file.locations.length()
    }

    /// Whether the file has no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the NameNode said of the file when it was opened or refreshed.
    pub fn status(&self) -> FileStatus {
        self.file.locations.status()
    }

    /// Reads at `offset` until `buffer` is full or the file ends; gives the number of bytes. 0 at or after the end.
    pub async fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let length = self.len().saturating_sub(offset).min(buffer.len() as u64);
        let mut stream = RangeStream::new(self.file.clone(), offset, length);
        let mut filled = 0;
        while let Some(bytes) = stream.next().await? {
            buffer[filled..filled + bytes.len()].copy_from_slice(&bytes);
            filled += bytes.len();
        }
        Ok(filled)
    }

    /// Reads `length` bytes at `offset`, fewer at the end of the file, without copying if they lie in one packet.
    pub async fn read_bytes_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let length = self.len().saturating_sub(offset).min(length as u64);
        RangeStream::new(self.file.clone(), offset, length).collect().await
    }

    /// Where [`Self::read_next`] goes on.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Lets [`Self::read_next`] go on at `position`.
    pub fn seek(&mut self, position: u64) {
        if position != self.position {
            self.position = position;
            self.ahead = None;
        }
    }

    /// The next bytes from front to back, as many as are at hand; `None` at the end of the file.
    pub async fn read_next(&mut self) -> Result<Option<Bytes>> {
        let left = self.len().saturating_sub(self.position);
        if left == 0 {
            self.ahead = None;
            return Ok(None);
        }
        let file = &self.file;
        let bytes = if self.ahead.is_none() && left <= INLINE_BYTES_MAX {
            RangeStream::new(file.clone(), self.position, left).collect().await?
        } else {
            let position = self.position;
            let ahead =
                self.ahead.get_or_insert_with(|| ReadAhead::start(file.clone(), position, left));
            match ahead.next().await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => {
                    self.ahead = None;
                    return Err(Error::new(
                        Code::Internal,
                        format!("{}: read-ahead ended at {position}", self.file.path),
                    ));
                }
                Err(error) => {
                    self.ahead = None;
                    return Err(error);
                }
            }
        };
        self.position += bytes.len() as u64;
        Ok(Some(bytes))
    }

    /// Looks again how long the file is and where its blocks are.
    pub async fn refresh(&mut self) -> Result<()> {
        self.ahead = None;
        self.file.locations.refresh(&self.file.fs, &self.file.path).await
    }

    /// For a plain thread: `std::io::Read` and `Seek`, run on the file system's runtime.
    pub fn into_blocking(self) -> BlockingReader {
        BlockingReader::new(self)
    }

    /// Every block of the file, in order.
    pub async fn all_blocks(&self) -> Result<Vec<LocatedBlock>> {
        self.file.locations.all(&self.file.fs, &self.file.path).await
    }

    pub(crate) fn fs(&self) -> &Fs {
        &self.file.fs
    }
}
