//! A range of a file as a stream of verified bytes that changes replicas when one fails.
//!
//! What holds: bytes come in order, each once, whatever fails in between: a new replica is asked from the next byte
//! on. A replica that failed for a block is not asked again until the NameNode was asked anew for locations.
#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proto::granary::{Block, DatanodeAddress, LocatedBlock};
use proto::{Code, Error, Result};

use super::locations::length_of;
use super::replica::ReplicaReader;
use super::striped::GroupStream;
use super::{OpenFile, failures};
use crate::fs::incomplete;
use crate::plan::{self, Standing};

/// A range that is being read.
#[derive(Debug)]
pub(crate) struct RangeStream {
    file: Arc<OpenFile>,
    position: u64,
    end: u64,
    current: Option<Current>,
    /// uuids of DataNodes that failed for the current block since its locations were fetched.
    failed: Vec<String>,
    /// What they said, over all rounds of the current block.
    said: Vec<String>,
    rounds: u32,
}

/// What is being read.
#[derive(Debug)]
enum Current {
    Replica(Box<Attempt>),
    Group(Box<GroupStream>),
}

/// The replica that is being read.
#[derive(Debug)]
struct Attempt {
    location: DatanodeAddress,
    block: Block,
    reader: ReplicaReader,
}

impl RangeStream {
    pub(crate) fn new(file: Arc<OpenFile>, offset: u64, length: u64) -> Self {
        Self {
            file,
            position: offset,
            end: offset.saturating_add(length),
            current: None,
            failed: Vec::new(),
            said: Vec::new(),
            rounds: 0,
        }
    }

    /// The next bytes; `None` at the end of the range.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.position < self.end {
            if self.current.is_none() {
                self.open_block().await?;
            }
            let next = match self.current.as_mut() {
                None => continue,
                Some(Current::Replica(attempt)) => attempt.reader.next().await,
                Some(Current::Group(group)) => group.next().await,
            };
            match next {
                Ok(Some(bytes)) => {
                    self.position += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Ok(None) => self.next_block(),
                Err(error) => self.fail(error).await?,
            }
        }
        Ok(None)
    }

    /// All of the range in one piece.
    pub(crate) async fn collect(mut self) -> Result<Bytes> {
        let wanted = self.end - self.position;
        let first = self.next().await?.unwrap_or_default();
        if first.len() as u64 == wanted {
            return Ok(first);
        }
        let mut all = BytesMut::with_capacity(usize::try_from(wanted).unwrap_or(0));
        all.extend_from_slice(&first);
        while let Some(bytes) = self.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }

    fn next_block(&mut self) {
        self.current = None;
        self.failed.clear();
        self.said.clear();
        self.rounds = 0;
    }

    /// Opens the block at the current position: the best replica, which is marked if that fails; or the group.
    async fn open_block(&mut self) -> Result<()> {
        let file = self.file.clone();
        let located = file.locations.block_at(&file.fs, &file.path, self.position).await?;
        if located.erasure_policy == 0 {
            return self.open_replica(located).await;
        }
        let begin = self.position - located.offset;
        let group = GroupStream::open(&file, &located, begin, self.end - located.offset)?;
        self.current = Some(Current::Group(Box::new(group)));
        Ok(())
    }

    async fn open_replica(&mut self, located: LocatedBlock) -> Result<()> {
        let file = self.file.clone();
        let candidates = plan::order(&located.locations, |location| {
            if self.failed.contains(&location.uuid) {
                Standing::Excluded
            } else if file.local.is_local(location) {
                Standing::Local
            } else if file.fs.is_bad_node(&location.uuid) {
                Standing::Suspect
            } else {
                Standing::Good
            }
        });
        let Some(location) = candidates.into_iter().next() else {
            return self.locate_anew(&located).await;
        };
        let block = located.block.ok_or_else(|| incomplete("locate blocks", "block"))?;
        let piece = plan::piece_of(
            self.position,
            self.end - self.position,
            located.offset,
            length_of(&located),
        );
        match ReplicaReader::open(&file, &location, block, piece).await {
            Ok(reader) => {
                let attempt = Attempt { location, block, reader };
                self.current = Some(Current::Replica(Box::new(attempt)));
            }
            Err(error) => self.note(&location, block, &error),
        }
        Ok(())
    }

    async fn fail(&mut self, error: Error) -> Result<()> {
        match self.current.take() {
            None => {}
            Some(Current::Replica(attempt)) => self.note(&attempt.location, attempt.block, &error),
            // It has asked everyone already.
            Some(Current::Group(_)) if error.code == Code::BlockMissing => {
                let file = self.file.clone();
                let located = file.locations.block_at(&file.fs, &file.path, self.position).await?;
                self.said.push(error.message);
                self.locate_anew(&located).await?;
            }
            Some(Current::Group(_)) => return Err(error),
        }
        Ok(())
    }

    /// A replica failed: it is passed over for this block.
    fn note(&mut self, location: &DatanodeAddress, block: Block, error: &Error) {
        self.said.push(format!("{}:{}: {error}", location.host, location.data_port));
        if !failures::note(&self.file, location, block, error) {
            self.failed.push(location.uuid.clone());
        }
    }

    /// Every replica failed: asks the NameNode for others, or gives up.
    async fn locate_anew(&mut self, located: &LocatedBlock) -> Result<()> {
        let config = self.file.fs.config();
        self.rounds += 1;
        if self.rounds >= config.read_rounds_max {
            let id = located.block.as_ref().map_or(0, |block| block.id);
            let said = match self.said.as_slice() {
                [] => "no DataNode has reported a replica".to_owned(),
                said => said.join("; "),
            };
            let what = match located.erasure_policy {
                0 => format!("no replica of blk_{id} can be read"),
                _ => format!("too little of block group blk_{id} can be read"),
            };
            return Err(Error::new(
                Code::BlockMissing,
                format!("{}: {what}: [{said}]", self.file.path),
            ));
        }
        let pause_ms = config.retry_pause_min_ms << (4 * (self.rounds - 1)).min(20);
        let pause_ms = pause_ms.min(config.retry_pause_max_ms);
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        self.failed.clear();
        let file = &self.file;
        file.locations.fetch_anew(&file.fs, &file.path, self.position).await?;
        Ok(())
    }
}
