//! Blocks of files that are being written: where they go, when they count, and what is wrong with them.
//!
//! The journal mints ids and stamps; targets are chosen here and only remembered. `addBlock` and `complete` hold
//! their answer for a bounded moment until enough finalized replicas of the last block were reported: they are woken
//! by the report, so that closing a small file costs no poll.

use std::net::IpAddr;
use std::time::Duration;

use proto::erasure::Policy;
use proto::granary::*;
use proto::{BlockId, Code, Error, GenerationStamp, InodeId, Result};

use super::access::{Method, check_principal};
use super::groups::policy_of;
use super::node::{Node, file_ref, host_of, look_up, required, truth_of, unexpected};
use crate::cluster::datanodes::NodeIndex;
use crate::cluster::placement::Wanted;
use crate::op::{self, BlockState, FileRef, Op, Reply};

/// DataNodes that a request may exclude or name, and bad replicas that it may report.
const NAMED_MAX: usize = 10_000;

type Peer = Option<IpAddr>;

impl Node {
    pub(super) async fn add_block(
        &self,
        message: AddBlockRequest,
        peer: Peer,
    ) -> Result<LocatedBlock> {
        let call = self.enter(Method::AddBlock, message.caller)?;
        check_named(&message.excluded)?;
        check_named(&message.favoured)?;
        let file = file_ref(&message.path, message.inode)?;
        let previous = message.previous.map(op::Block::from);
        if let Some(previous) = &previous
            && !self.wait_for_replicas(previous).await
        {
            return Err(self.not_replicated_yet(previous));
        }
        let host = if message.client_host.is_empty() { host_of(peer) } else { message.client_host };
        let excluded = self.volatile.cluster(|cluster, _| cluster.find_all(&message.excluded));
        // Nothing is minted if there is no node to write to.
        let status = self.file_to_write(&call.0, &file)?;
        let (replication, block_bytes) = (status.replication, status.block_bytes);
        if let Some(policy) = policy_of(&status) {
            let op = Op::AddBlock { file, holder: message.holder, previous };
            return self.add_group(call, op, policy, (block_bytes, excluded)).await;
        }
        let favoured = self.volatile.cluster(|cluster, _| cluster.find_all(&message.favoured));
        let mut targets = self.choose(&Wanted {
            replicas: replication as usize,
            replicas_min: self.config.replication_min.min(replication) as usize,
            block_bytes,
            writer_host: &host,
            favoured: &favoured,
            existing: &[],
            excluded: &excluded,
        })?;
        let op = Op::AddBlock { file, holder: message.holder, previous };
        let reply = self.propose(call, op).await?;
        let Reply::BlockAllocated { block, offset, replication, block_bytes, .. } = reply else {
            return unexpected("addBlock", &reply);
        };
        let locations = self.volatile.cluster(|cluster, _| {
            // A repeated call gets the same block again: then also the same targets, if it still wants them.
            let known = cluster.replicas.pipeline(block.id);
            if !known.is_empty() && !known.iter().any(|node| excluded.contains(node)) {
                targets = known;
            }
            targets.truncate(replication as usize);
            cluster.start_pipeline(block.id, &targets, block_bytes);
            cluster.addresses(&targets)
        });
        Ok(LocatedBlock { block: Some(block.into()), offset, locations, ..Default::default() })
    }

    pub(super) async fn abandon_block(
        &self,
        message: AbandonBlockRequest,
        _: Peer,
    ) -> Result<Empty> {
        let call = self.enter(Method::AbandonBlock, message.caller)?;
        let op = Op::AbandonBlock {
            file: file_ref(&message.path, message.inode)?,
            holder: message.holder,
            block: required("block", message.block)?.into(),
        };
        self.propose(call, op).await.map(|_| Empty {})
    }

    /// The whole pipeline: the existing nodes first, then those added.
    pub(super) async fn get_additional_datanode(
        &self,
        message: GetAdditionalDatanodeRequest,
        peer: Peer,
    ) -> Result<LocatedBlock> {
        let (caller, _) = self.enter(Method::GetAdditionalDatanode, message.caller)?;
        check_named(&message.existing)?;
        check_named(&message.excluded)?;
        let block = required("block", message.block)?;
        let file = file_ref(&message.path, message.inode)?;
        self.check_holder(&caller, &file, &message.holder)?;
        let status = self.file_to_write(&caller, &file)?;
        if policy_of(&status).is_some() {
            let message = format!("{} is striped: a lost unit is not replaced", file.path);
            return Err(Error::new(Code::Unsupported, message));
        }
        let block_bytes = status.block_bytes;
        let (existing, excluded) = self.volatile.cluster(|cluster, _| {
            (cluster.find_all(&message.existing), cluster.find_all(&message.excluded))
        });
        let added = self.choose(&Wanted {
            replicas: message.wanted.clamp(1, 16) as usize,
            replicas_min: 1,
            block_bytes,
            writer_host: &host_of(peer),
            favoured: &[],
            existing: &existing,
            excluded: &excluded,
        })?;
        let all: Vec<NodeIndex> = existing.into_iter().chain(added).collect();
        let locations = self.volatile.cluster(|cluster, _| cluster.addresses(&all));
        Ok(LocatedBlock { block: Some(block), locations, ..Default::default() })
    }

    pub(super) async fn update_block_for_pipeline(
        &self,
        message: UpdateBlockForPipelineRequest,
        _: Peer,
    ) -> Result<LocatedBlock> {
        let call = self.enter(Method::UpdateBlockForPipeline, message.caller)?;
        let block = required("block", message.block)?.into();
        let op = Op::UpdateBlockForPipeline { block, holder: message.holder };
        match self.propose(call, op).await? {
            Reply::Stamped(block) if block.id.is_striped() => {
                let known = self.log.read(|state| state.block(block.id));
                Ok(self.group_with_stamp(block, known.map_or(0, |info| info.policy)))
            }
            Reply::Stamped(block) => Ok(LocatedBlock {
                locations: self.volatile.cluster(|cluster, _| {
                    let nodes = cluster.replicas.pipeline(block.id);
                    cluster.addresses(&nodes)
                }),
                block: Some(block.into()),
                ..Default::default()
            }),
            reply => unexpected("updateBlockForPipeline", &reply),
        }
    }

    pub(super) async fn update_pipeline(
        &self,
        message: UpdatePipelineRequest,
        _: Peer,
    ) -> Result<Empty> {
        let call = self.enter(Method::UpdatePipeline, message.caller)?;
        check_named(&message.datanodes)?;
        let old_block: op::Block = required("old block", message.old_block)?.into();
        let new_block: op::Block = required("new block", message.new_block)?.into();
        let op = Op::UpdatePipeline { holder: message.holder, old_block, new_block };
        if new_block.id.is_striped() {
            let nodes = self.unit_nodes(&message.datanodes)?;
            self.propose(call, op).await?;
            self.volatile.cluster(|cluster, _| cluster.move_group(new_block.id, &nodes));
            return Ok(Empty {});
        }
        self.propose(call, op).await?;
        self.volatile.cluster(|cluster, _| {
            let nodes = cluster.find_all(&message.datanodes);
            cluster.move_pipeline(new_block.id, &nodes);
        });
        Ok(Empty {})
    }

    pub(super) async fn fsync(&self, message: FsyncRequest, _: Peer) -> Result<Empty> {
        let call = self.enter(Method::Fsync, message.caller)?;
        let op = Op::Fsync {
            file: file_ref(&message.path, message.inode)?,
            holder: message.holder,
            last_block_length: message.last_block_length,
        };
        self.propose(call, op).await.map(|_| Empty {})
    }

    pub(super) async fn complete(
        &self,
        message: CompleteRequest,
        _: Peer,
    ) -> Result<CompleteReply> {
        let call = self.enter(Method::Complete, message.caller)?;
        let file = file_ref(&message.path, message.inode)?;
        let last = message.last.map(op::Block::from);
        if let Some(last) = &last
            && !self.wait_for_replicas(last).await
        {
            return Ok(CompleteReply { completed: false, status: None });
        }
        let op = Op::Complete { file, holder: message.holder, last };
        match self.propose(call, op).await? {
            Reply::Completed { inode } => {
                let status = self.log.read(|state| state.inode_status(inode));
                Ok(CompleteReply { completed: true, status })
            }
            reply => unexpected("complete", &reply),
        }
    }

    pub(super) async fn report_bad_blocks(
        &self,
        message: ReportBadBlocksRequest,
        _: Peer,
    ) -> Result<Empty> {
        self.enter(Method::ReportBadBlocks, message.caller)?;
        if message.replicas.len() > NAMED_MAX {
            return Err(too_many("bad replicas", message.replicas.len()));
        }
        for bad in &message.replicas {
            let block = required("block of a bad replica", bad.block)?;
            let id = BlockId(block.id);
            self.log.read(|state| {
                let truth = look_up(state, id);
                self.volatile.cluster(|cluster, _| {
                    if let Some(node) = cluster.datanodes.find(&bad.datanode) {
                        let stamp = GenerationStamp(block.generation_stamp);
                        cluster.bad_replica(node, id, stamp, truth.as_ref());
                    }
                });
            });
        }
        Ok(Empty {})
    }

    /// Waits until enough finalized replicas of a block at this stamp and length were reported; false when the
    /// moment is over.
    async fn wait_for_replicas(&self, block: &op::Block) -> bool {
        let enough = || {
            let known = self.log.read(|state| state.block(block.id));
            // What the namespace has committed had its replicas; of what it does not have, the operation tells.
            let Some(known) = known.filter(|known| known.state != BlockState::Complete) else {
                return true;
            };
            if let Some(policy) = Policy::by_id(known.policy) {
                let needed = policy.units_needed(block.length);
                return self.volatile.cluster(|cluster, _| {
                    if !cluster.replicas.knows_group(block.id) {
                        cluster.block_changed(block.id, Some(&truth_of(&known)));
                    }
                    let (stamp, length) = (block.stamp, block.length);
                    cluster.finalized_units(block.id, policy, stamp, length) >= needed.into()
                });
            }
            let min = self.config.replication_min.min(known.replication) as usize;
            self.volatile.cluster(|cluster, _| {
                cluster.replicas.sync_if_new(block.id, &truth_of(&known));
                cluster.replicas.finalized(block.id, block.stamp, block.length) >= min
            })
        };
        if enough() {
            return true;
        }
        let Some(waiter) = self.volatile.wait_for(block.id) else { return false };
        let until = tokio::time::sleep(Duration::from_millis(self.config.complete_hold_ms));
        tokio::pin!(until);
        loop {
            let changed = waiter.changed();
            tokio::pin!(changed);
            // From here on no change is missed; only then is it looked at.
            changed.as_mut().enable();
            if enough() {
                return true;
            }
            tokio::select! {
                () = changed => {}
                () = &mut until => return enough(),
            }
        }
    }

    fn not_replicated_yet(&self, block: &op::Block) -> Error {
        let known = self.log.read(|state| state.block(block.id));
        let policy = known.and_then(|info| Policy::by_id(info.policy));
        let (count, needed) = self.volatile.cluster(|cluster, _| match policy {
            None => (
                cluster.replicas.finalized(block.id, block.stamp, block.length),
                self.config.replication_min,
            ),
            Some(policy) => (
                cluster.finalized_units(block.id, policy, block.stamp, block.length),
                policy.units_needed(block.length).into(),
            ),
        });
        Error::new(
            Code::NotReplicatedYet,
            format!(
                "{} {} of {} bytes has {count} reported replicas or units, {needed} are needed",
                block.id, block.stamp, block.length
            ),
        )
    }

    /// A file that a writer names, with what it asks for.
    fn file_to_write(&self, caller: &op::Caller, file: &FileRef) -> Result<FileStatus> {
        let status = self.log.read(|state| match file.inode {
            Some(inode) => Ok(state.inode_status(inode)),
            None => state.status(caller, &file.path),
        })?;
        match status {
            Some(status) if status.kind() == FileKind::File => Ok(status),
            Some(_) => Err(Error::new(Code::IsFolder, format!("{} is a folder", file.path))),
            None => Err(Error::new(
                Code::LeaseExpired,
                format!("{} is gone: it was deleted or replaced while it was open", file.path),
            )),
        }
    }

    pub(super) fn choose(&self, wanted: &Wanted<'_>) -> Result<Vec<NodeIndex>> {
        self.volatile.cluster(|cluster, _| cluster.place(wanted))
    }

    /// Errors with `LeaseExpired` unless the holder writes the file.
    fn check_holder(&self, caller: &op::Caller, file: &FileRef, holder: &str) -> Result<()> {
        check_principal("the lease holder", holder)?;
        let lease = self.log.read(|state| {
            let inode = match file.inode {
                Some(inode) => Some(inode),
                None => state.status(caller, &file.path)?.map(|status| InodeId(status.inode)),
            };
            let lease = inode.and_then(|inode| state.lease(inode));
            Ok::<_, Error>(lease.map(|lease| lease.holder.clone()))
        })?;
        if lease.as_deref() == Some(holder) {
            return Ok(());
        }
        let by = lease.map_or("nobody".to_owned(), |other| format!("{other:?}"));
        Err(Error::new(
            Code::LeaseExpired,
            format!("{} is open for {by}, not for {holder:?}", file.path),
        ))
    }
}

pub(super) fn check_named(uuids: &[String]) -> Result<()> {
    if uuids.len() > NAMED_MAX { Err(too_many("DataNodes", uuids.len())) } else { Ok(()) }
}

fn too_many(what: &str, count: usize) -> Error {
    Error::new(Code::InvalidArgument, format!("{count} {what} in one request, at most {NAMED_MAX}"))
}
