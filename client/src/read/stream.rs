//! A range of a file as a stream of verified bytes that changes replicas when one fails.
//!
//! What holds: bytes come in order, each once, whatever fails in between: a new replica is asked from the next byte
//! on. A replica that failed for a block is not asked again until the NameNode was asked anew for locations.
#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proto::granary::{BadReplica, Block, DatanodeAddress, LocatedBlock, ReportBadBlocksRequest};
use proto::{Code, Error, Result};

use super::OpenFile;
use super::locations::length_of;
use super::replica::ReplicaReader;
use crate::fs::incomplete;
use crate::plan::{self, Standing};

/// A range that is being read.
#[derive(Debug)]
pub(crate) struct RangeStream {
    file: Arc<OpenFile>,
    position: u64,
    end: u64,
    current: Option<Attempt>,
    /// uuids of DataNodes that failed for the current block since its locations were fetched.
    failed: Vec<String>,
    /// What they said, over all rounds of the current block.
    said: Vec<String>,
    rounds: u32,
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
                self.open_replica().await?;
            }
            let Some(attempt) = self.current.as_mut() else { continue };
            match attempt.reader.next().await {
                Ok(Some(bytes)) => {
                    self.position += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Ok(None) => self.next_block(),
                Err(error) => self.fail(error),
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

    /// Opens the best replica of the block at the current position, or marks it as failed.
    async fn open_replica(&mut self) -> Result<()> {
        let file = self.file.clone();
        let located = file.locations.block_at(&file.fs, &file.path, self.position).await?;
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
            Ok(reader) => self.current = Some(Attempt { location, block, reader }),
            Err(error) => self.note(&location, block, &error),
        }
        Ok(())
    }

    fn fail(&mut self, error: Error) {
        if let Some(attempt) = self.current.take() {
            self.note(&attempt.location, attempt.block, &error);
        }
    }

    /// A replica failed: it is passed over for this block, its DataNode for a while, and damage is reported.
    fn note(&mut self, location: &DatanodeAddress, block: Block, error: &Error) {
        tracing::info!(
            block = block.id,
            node = location.uuid,
            %error,
            "a replica can't be read; another one is tried"
        );
        let local = self.file.local.give_up(block.id);
        match error.code {
            Code::Corrupt => report(&self.file, location, block),
            Code::Unavailable | Code::Timeout | Code::Incompatible => {
                self.file.fs.note_bad_node(&location.uuid);
            }
            _ => {}
        }
        self.said.push(format!("{}:{}: {error}", location.host, location.data_port));
        // Files handed over may be damaged or gone where the DataNode itself still has an answer.
        if !local || error.code == Code::Corrupt {
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
            return Err(Error::new(
                Code::BlockMissing,
                format!("{}: no replica of blk_{id} can be read: [{said}]", self.file.path),
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

/// Tells the NameNode of a damaged replica, in the background: the read goes on meanwhile.
fn report(file: &OpenFile, location: &DatanodeAddress, block: Block) {
    let fs = file.fs.clone();
    let request = ReportBadBlocksRequest {
        caller: fs.namenode().caller(),
        replicas: vec![BadReplica { block: Some(block), datanode: location.uuid.clone() }],
    };
    tokio::spawn(async move {
        let told = fs
            .namenode()
            .namespace("report bad blocks", "ReportBadBlocks", request, async |mut stub, q| {
                stub.report_bad_blocks(q).await
            })
            .await;
        if let Err(error) = told {
            tracing::warn!(block = block.id, %error, "a damaged replica was not reported");
        }
    });
}
