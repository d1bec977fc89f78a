//! One block that is being written, and what happens when its pipeline fails.
//!
//! A failure leaves one DataNode out. The NameNode mints a new stamp, the survivors take it (stage: streaming
//! recovery), the NameNode learns the new pipeline, and what was not acknowledged is sent again. A pipeline that has lost
//! too many gets another DataNode first ([`super::replacement`]). If no DataNode is
//! left but every byte of the block is still held, the block is given up and written anew elsewhere. What holds: no
//! acknowledged byte is forgotten; a DataNode that failed for this block is not used for it again; the number of
//! attempts is bounded by the DataNodes of the pipeline and by `block_tries_max` sets of them.

use std::collections::{HashSet, VecDeque};

use proto::granary::{
    AbandonBlockRequest, AddBlockRequest, Block, CompleteRequest, DatanodeAddress, FileStatus,
    LocatedBlock, UpdateBlockForPipelineRequest, UpdatePipelineRequest,
};
use proto::{Code, Error, Result};
use transfer::SealedPacket;
use transfer::packet::PacketHeader;
use transfer::writer::{BlockWriter, PipelineFailure, PipelineSpec, Stage};

use super::{Target, replacement};
use crate::fs::incomplete;

/// A block with a pipeline.
#[derive(Debug)]
pub(crate) struct OpenBlock {
    block: Block,
    nodes: Vec<DatanodeAddress>,
    /// `None` while a failed pipeline is being replaced.
    writer: Option<BlockWriter>,
    /// Packets to send again once there is a pipeline.
    resend: VecDeque<SealedPacket>,
    next_seqno: i64,
    /// Offset after the last byte that was sent.
    sent_bytes: u64,
    acked_bytes: u64,
    told_namenode: bool,
    /// uuids of DataNodes that failed for this block.
    failed: HashSet<String>,
    /// What they said.
    said: Vec<String>,
    /// The block before this one, to ask for this one's replacement.
    previous: Option<Block>,
    tries: u32,
    /// Whether the block existed before this writer: it can't be given up.
    reopened: bool,
}

impl OpenBlock {
    /// Asks for the file's next block and sets up its pipeline.
    pub(crate) async fn add(target: &Target, previous: Option<&Block>) -> Result<Self> {
        let mut this = Self {
            block: Block::default(),
            nodes: Vec::new(),
            writer: None,
            resend: VecDeque::new(),
            next_seqno: 0,
            sent_bytes: 0,
            acked_bytes: 0,
            told_namenode: false,
            failed: HashSet::new(),
            said: Vec::new(),
            previous: previous.copied(),
            tries: 0,
            reopened: false,
        };
        this.place(target).await?;
        Ok(this)
    }

    /// Sets up a pipeline to the last block of a file, to go on at its end.
    pub(crate) async fn reopen(target: &Target, located: LocatedBlock) -> Result<Self> {
        let block = located.block.ok_or_else(|| incomplete("append", "block"))?;
        let mut this = Self {
            block,
            nodes: located.locations,
            writer: None,
            resend: VecDeque::new(),
            next_seqno: 0,
            sent_bytes: block.length,
            acked_bytes: block.length,
            told_namenode: true,
            failed: HashSet::new(),
            said: Vec::new(),
            previous: None,
            tries: 0,
            reopened: true,
        };
        this.mend(target, Stage::PipelineSetupAppend).await?;
        Ok(this)
    }

    /// Bytes of the block that it had when it was reopened.
    pub(crate) fn length(&self) -> u64 {
        self.block.length
    }

    /// Whether the NameNode knows of bytes in this block.
    pub(crate) fn told_namenode(&self) -> bool {
        self.told_namenode
    }

    /// The NameNode knows now.
    pub(crate) fn set_told_namenode(&mut self) {
        self.told_namenode = true;
    }

    /// Sends the packet in `slot`, over a mended pipeline if need be.
    pub(crate) async fn send(
        &mut self,
        target: &Target,
        slot: &mut Option<SealedPacket>,
    ) -> Result<()> {
        if let Some(packet) = slot.as_mut()
            && packet.header.seqno != self.next_seqno
        {
            packet.renumber(self.next_seqno);
        }
        while let Some(end) = slot.as_ref().map(|packet| packet.header.end()) {
            let writer = self.writer(target).await?;
            let sent = writer.send(slot).await;
            if slot.is_none() {
                self.next_seqno += 1;
                self.sent_bytes = self.sent_bytes.max(end);
            }
            if let Err(failure) = sent {
                self.fail(target, failure).await;
            }
        }
        Ok(())
    }

    /// Waits until every packet was acknowledged by every DataNode.
    pub(crate) async fn drain(&mut self, target: &Target) -> Result<()> {
        loop {
            match self.writer(target).await?.drain().await {
                Ok(()) => return Ok(()),
                Err(failure) => self.fail(target, failure).await,
            }
        }
    }

    /// Ends the block at `length` bytes: every DataNode has it on stable storage. Gives the block as it is then.
    pub(crate) async fn finish(&mut self, target: &Target, length: u64) -> Result<Block> {
        let header = PacketHeader {
            offset_in_block: length,
            seqno: self.next_seqno,
            last: true,
            data_len: 0,
            sync: false,
        };
        let mut last = Some(SealedPacket::with_sums(header, &[], bytes::Bytes::new()));
        self.send(target, &mut last).await?;
        self.drain(target).await?;
        if let Some(writer) = self.writer.take() {
            writer.end();
        }
        self.block.length = length;
        Ok(self.block)
    }

    /// The pipeline; a new one if the last one failed, with everything sent again that was not acknowledged.
    async fn writer(&mut self, target: &Target) -> Result<&mut BlockWriter> {
        while self.writer.is_none() || !self.resend.is_empty() {
            if self.writer.is_none() {
                let all_held = self.acked_bytes == 0 && !self.reopened;
                if self.nodes.is_empty() && all_held {
                    self.replace(target).await?;
                } else {
                    self.mend(target, Stage::PipelineSetupStreamingRecovery).await?;
                }
            }
            let writer = self.writer.as_mut().expect("it was just set up");
            let mut slot = self.resend.pop_front();
            let sent = writer.send(&mut slot).await;
            if let Some(packet) = slot {
                self.resend.push_front(packet);
            }
            if let Err(failure) = sent {
                self.fail(target, failure).await;
            }
        }
        Ok(self.writer.as_mut().expect("the loop ends with a pipeline"))
    }

    /// Takes a failed pipeline down: what it did not acknowledge waits to be sent again.
    async fn fail(&mut self, target: &Target, failure: PipelineFailure) {
        if let Some(writer) = self.writer.take() {
            self.acked_bytes = self.acked_bytes.max(writer.acked_bytes().await);
            let mut unacked = writer.into_unacked().await;
            unacked.append(&mut self.resend);
            self.resend = unacked;
        }
        self.exclude(target, &failure);
    }

    fn exclude(&mut self, target: &Target, failure: &PipelineFailure) {
        if failure.node >= self.nodes.len() {
            return;
        }
        let node = self.nodes.remove(failure.node);
        tracing::info!(
            block = self.block.id,
            node = node.uuid,
            error = %failure.error,
            left = self.nodes.len(),
            "a DataNode is left out of the pipeline"
        );
        target.fs.note_bad_node(&node.uuid);
        self.said.push(format!("{}:{}: {}", node.host, node.data_port, failure.error));
        self.failed.insert(node.uuid);
    }

    /// Asks for a block and sets its pipeline up, until a set of DataNodes takes it.
    async fn place(&mut self, target: &Target) -> Result<()> {
        while self.tries < target.fs.config().block_tries_max {
            self.tries += 1;
            let located = self.ask_for_block(target).await?;
            self.block = located.block.ok_or_else(|| incomplete("add block", "block"))?;
            self.nodes = located.locations;
            if self.nodes.is_empty() {
                return Err(incomplete("add block", "DataNode"));
            }
            let spec = self.spec(target, Stage::PipelineSetupCreate, self.block.generation_stamp);
            match BlockWriter::open_pooled(&spec, target.fs.pool()).await {
                Ok(writer) => {
                    self.writer = Some(writer);
                    return Ok(());
                }
                Err(failure) => self.exclude(target, &failure),
            }
            self.abandon(target).await?;
        }
        Err(self.lost(target, format!("{} sets of DataNodes were tried", self.tries)))
    }

    async fn ask_for_block(&self, target: &Target) -> Result<LocatedBlock> {
        let mut excluded: Vec<String> = self.failed.iter().cloned().collect();
        excluded.sort();
        let request = AddBlockRequest {
            caller: target.fs.namenode().caller(),
            path: target.path.to_string(),
            inode: target.inode,
            holder: target.fs.holder().to_owned(),
            previous: self.previous,
            excluded,
            client_host: String::new(), // the NameNode sees where the call comes from
            ..Default::default()
        };
        let namenode = target.fs.namenode();
        namenode
            .namespace("add block", "AddBlock", request, async |mut stub, q| {
                stub.add_block(q).await
            })
            .await
            .map_err(|error| match self.said.as_slice() {
                [] => error,
                said => Error::new(
                    error.code,
                    format!("{} (DataNodes left out: [{}])", error.message, said.join("; ")),
                ),
            })
    }

    async fn abandon(&self, target: &Target) -> Result<()> {
        let request = AbandonBlockRequest {
            caller: target.fs.namenode().caller(),
            path: target.path.to_string(),
            inode: target.inode,
            holder: target.fs.holder().to_owned(),
            block: Some(self.block),
        };
        let namenode = target.fs.namenode();
        namenode
            .namespace("abandon block", "AbandonBlock", request, async |mut stub, q| {
                stub.abandon_block(q).await
            })
            .await?;
        Ok(())
    }

    /// Gives the block up, none of whose DataNodes is left, and writes it anew: every byte of it is still held.
    async fn replace(&mut self, target: &Target) -> Result<()> {
        self.abandon(target).await?;
        self.place(target).await
    }

    /// Sets the pipeline up again with a new stamp over the DataNodes that are left.
    async fn mend(&mut self, target: &Target, mut stage: Stage) -> Result<()> {
        while !self.nodes.is_empty() {
            self.fill_up(target).await;
            let stamp = self.new_stamp(target).await?;
            let spec = self.spec(target, stage, stamp);
            match BlockWriter::open_pooled(&spec, target.fs.pool()).await {
                Ok(writer) => {
                    self.tell_pipeline(target, stamp).await?;
                    self.block.generation_stamp = stamp;
                    self.writer = Some(writer);
                    return Ok(());
                }
                Err(failure) => self.exclude(target, &failure),
            }
            if stage == Stage::PipelineSetupAppend {
                // Some of the others may have begun to append already.
                stage = Stage::PipelineSetupAppendRecovery;
            }
        }
        let acked = self.acked_bytes;
        Err(self.lost(target, format!("no DataNode is left that has its first {acked} bytes")))
    }

    /// Adds a DataNode to what is left of the pipeline, if too much of it is gone and one can be had.
    async fn fill_up(&mut self, target: &Target) {
        let counted_on = self.reopened || self.told_namenode;
        if !replacement::is_wanted(target.replication, self.nodes.len(), counted_on) {
            return;
        }
        let mut failed: Vec<String> = self.failed.iter().cloned().collect();
        failed.sort();
        let block = Block { length: self.acked_bytes, ..self.block };
        let recruit = replacement::recruit(target, &block, &self.nodes, failed).await;
        self.nodes.extend(recruit);
    }

    async fn new_stamp(&self, target: &Target) -> Result<u64> {
        let request = UpdateBlockForPipelineRequest {
            caller: target.fs.namenode().caller(),
            block: Some(self.block),
            holder: target.fs.holder().to_owned(),
        };
        let namenode = target.fs.namenode();
        let located = namenode
            .namespace(
                "update block for pipeline",
                "UpdateBlockForPipeline",
                request,
                async |mut stub, q| stub.update_block_for_pipeline(q).await,
            )
            .await?;
        let block =
            located.block.ok_or_else(|| incomplete("update block for pipeline", "block"))?;
        Ok(block.generation_stamp)
    }

    async fn tell_pipeline(&self, target: &Target, stamp: u64) -> Result<()> {
        let length = self.acked_bytes;
        let request = UpdatePipelineRequest {
            caller: target.fs.namenode().caller(),
            holder: target.fs.holder().to_owned(),
            old_block: Some(self.block),
            new_block: Some(Block { generation_stamp: stamp, length, ..self.block }),
            datanodes: self.nodes.iter().map(|node| node.uuid.clone()).collect(),
        };
        let namenode = target.fs.namenode();
        namenode
            .namespace("update pipeline", "UpdatePipeline", request, async |mut stub, q| {
                stub.update_pipeline(q).await
            })
            .await?;
        Ok(())
    }

    fn spec(&self, target: &Target, stage: Stage, new_stamp: u64) -> PipelineSpec {
        PipelineSpec {
            pool_id: target.fs.server_defaults().pool_id.clone(),
            client: target.fs.holder().to_owned(),
            block: self.block,
            nodes: self.nodes.clone(),
            stage,
            min_bytes: self.acked_bytes,
            max_bytes: self.sent_bytes,
            new_stamp,
            checksum: target.checksum,
            packets_in_flight_max: target.fs.config().write_packets_in_flight_max,
        }
    }

    fn lost(&self, target: &Target, what: String) -> Error {
        Error::new(
            Code::NotEnoughDatanodes,
            format!(
                "write to {}: blk_{}: {what}: [{}]",
                target.path,
                self.block.id,
                self.said.join("; ")
            ),
        )
    }
}

/// Asks the NameNode to close the file until it says that enough replicas are reported.
///
/// Gives the closed file's status, if the server tells it.
pub(crate) async fn complete(
    target: &Target,
    request: CompleteRequest,
) -> Result<Option<FileStatus>> {
    let namenode = target.fs.namenode();
    let config = target.fs.config();
    let policy = crate::retry::Policy {
        total_ms: config.retry_total_ms,
        pause_min_ms: config.retry_pause_min_ms,
        pause_max_ms: config.retry_pause_max_ms,
    };
    let mut waited_ms = 0;
    for attempt in 1.. {
        // Each is a call of its own: an answer "not yet" must not come from the retry cache.
        let request = CompleteRequest { caller: namenode.caller(), ..request.clone() };
        let reply = namenode
            .namespace("complete", "Complete", request, async |mut stub, q| stub.complete(q).await)
            .await?;
        if reply.completed {
            return Ok(reply.status);
        }
        let Some(pause_ms) = policy.pause_ms(attempt, waited_ms, target.inode) else { break };
        tokio::time::sleep(std::time::Duration::from_millis(pause_ms)).await;
        waited_ms += pause_ms;
    }
    Err(Error::new(
        Code::NotReplicatedYet,
        format!(
            "close of {}: too few replicas of its last block were reported within {} ms",
            target.path, config.retry_total_ms
        ),
    ))
}
