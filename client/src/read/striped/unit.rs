//! Reading one unit of a group: a range in one request, or ahead of who takes it.
//!
//! A [`UnitStream`] is a task that reads a unit from front to back into a bounded queue, so that k units are fetched and
//! verified at the same time. What holds: bytes come in order, verified; the task ends when its stream is dropped.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use proto::granary::{Block, DatanodeAddress};
use proto::{Code, Error, Result};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::plan::Piece;
use crate::read::OpenFile;
use crate::read::replica::ReplicaReader;

/// A unit at one of its DataNodes.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) file: Arc<OpenFile>,
    pub(super) location: DatanodeAddress,
    pub(super) block: Block,
}

impl Source {
    /// Reads a range of the unit, which is not empty.
    pub(super) async fn read(self, range: Range<u64>) -> Result<Vec<Bytes>> {
        let mut reader = self.open(&range).await?;
        let (mut pieces, mut have) = (Vec::new(), 0);
        while have < range.end - range.start {
            let bytes = reader.next().await?.ok_or_else(|| self.too_short(range.start + have))?;
            have += bytes.len() as u64;
            pieces.push(bytes);
        }
        Ok(pieces)
    }

    async fn open(&self, range: &Range<u64>) -> Result<ReplicaReader> {
        let piece = Piece { offset_in_block: range.start, length: range.end - range.start };
        ReplicaReader::open(&self.file, &self.location, self.block, piece).await
    }

    fn too_short(&self, at: u64) -> Error {
        let Self { location, block, .. } = self;
        let what = format!("blk_{} from {} ends at offset {at}", block.id, location.host);
        Error::new(Code::Corrupt, what)
    }
}

/// A unit that is read ahead.
#[derive(Debug)]
pub(super) struct UnitStream {
    source: Source,
    queue: mpsc::Receiver<Result<Bytes>>,
    task: AbortHandle,
    /// What came and was not taken.
    rest: Bytes,
    position: u64,
    end: u64,
}

impl UnitStream {
    /// Reads a range of the unit, which is not empty, at most `ahead_max` packets before they are taken.
    pub(super) fn start(source: Source, range: Range<u64>, ahead_max: usize) -> Self {
        let (sender, queue) = mpsc::channel(ahead_max.max(1));
        let (reading, wanted) = (source.clone(), range.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = reading.read_into(wanted, &sender).await {
                let _nobody_waits = sender.send(Err(error)).await;
            }
        });
        Self {
            source,
            queue,
            task: task.abort_handle(),
            rest: Bytes::new(),
            position: range.start,
            end: range.end,
        }
    }

    /// Whether the range is what comes next.
    pub(super) fn is_at(&self, range: &Range<u64>) -> bool {
        self.position == range.start && range.end <= self.end
    }

    /// Takes the next `length` bytes.
    pub(super) async fn take(&mut self, length: u64) -> Result<Vec<Bytes>> {
        let (mut pieces, mut wanted) = (Vec::new(), usize::try_from(length).unwrap_or(usize::MAX));
        while wanted > 0 {
            if self.rest.is_empty() {
                let next = self.queue.recv().await;
                self.rest = next.unwrap_or_else(|| Err(self.source.too_short(self.position)))?;
            }
            let piece = self.rest.split_to(wanted.min(self.rest.len()));
            wanted -= piece.len();
            self.position += piece.len() as u64;
            pieces.push(piece);
        }
        Ok(pieces)
    }
}

impl Source {
    async fn read_into(
        &self,
        range: Range<u64>,
        sender: &mpsc::Sender<Result<Bytes>>,
    ) -> Result<()> {
        let mut reader = self.open(&range).await?;
        while let Some(bytes) = reader.next().await? {
            if sender.send(Ok(bytes)).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

impl Drop for UnitStream {
    fn drop(&mut self) {
        self.task.abort();
    }
}
