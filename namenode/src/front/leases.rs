//! Who writes a file: append, truncate, renewals, and the ends of leases.
//!
//! A writer keeps its lease by renewing it. After the soft limit another writer's call ends it; after the hard limit
//! the NameNode does. Ending it mints a stamp, has a DataNode agree with its peers on the last block's length, and
//! closes the file with the outcome; a recovery that does not come back is begun again under a newer stamp.

use std::net::IpAddr;

use proto::granary::*;
use proto::{BlockId, Code, Error, FsPath, GenerationStamp, InodeId, Result};

use super::access::{Method, check_principal};
use super::node::{Node, look_up, path, required, truth_of, unexpected};
use crate::cluster::datanodes::Liveness;
use crate::cluster::replicas::{BlockTruth, Reported};
use crate::op::{self, BlockState, Caller, Op, Reply};
use crate::state::RECOVERY_HOLDER;

/// Operations that one round of the lease check proposes at most.
const RECOVERIES_PER_ROUND_MAX: usize = 1_000;

type Peer = Option<IpAddr>;

impl Node {
    pub(super) async fn append(&self, message: AppendRequest, peer: Peer) -> Result<AppendReply> {
        let call = self.enter(Method::Append, message.caller)?;
        check_principal("the lease holder", &message.holder)?;
        let path = path(&message.path)?;
        self.take_over(&call.0, &path, &message.holder).await?;
        let op = Op::Append { path, holder: message.holder, new_block: message.new_block };
        let reply = self.propose(call, op).await?;
        let Reply::Appended { status, last_block, last_block_offset } = reply else {
            return unexpected("append", &reply);
        };
        let host = super::node::host_of(peer);
        let known = last_block.and_then(|block| self.log.read(|state| state.block(block.id)));
        let last_block = known.map(|info| self.located(last_block_offset, &info, &host));
        if let Some(located) = &last_block
            && let Some(info) = known
        {
            let uuids: Vec<String> = located.locations.iter().map(|at| at.uuid.clone()).collect();
            self.volatile.cluster(|cluster, _| {
                let nodes = cluster.find_all(&uuids);
                let room = status.block_bytes.saturating_sub(info.length);
                cluster.start_pipeline(info.id, &nodes, room);
            });
        }
        Ok(AppendReply { status: Some(*status), last_block })
    }

    pub(super) async fn truncate(
        &self,
        message: TruncateRequest,
        _: Peer,
    ) -> Result<TruncateReply> {
        let call = self.enter(Method::Truncate, message.caller)?;
        check_principal("the lease holder", &message.holder)?;
        let path = path(&message.path)?;
        self.take_over(&call.0, &path, &message.holder).await?;
        let op = Op::Truncate { path, length: message.length, holder: message.holder };
        match self.propose(call, op).await? {
            Reply::Recovering { closed, .. } => Ok(TruncateReply { done: closed }),
            reply => unexpected("truncate", &reply),
        }
    }

    pub(super) async fn renew_lease(&self, message: RenewLeaseRequest, _: Peer) -> Result<Empty> {
        self.enter(Method::RenewLease, message.caller)?;
        check_principal("the lease holder", &message.holder)?;
        // Only who has a file open is remembered: nothing else can fill the table.
        let writes = self.log.read(|state| !state.files_of_holder(&message.holder).is_empty());
        if writes {
            self.volatile.cluster(|cluster, now_ms| cluster.leases.renew(now_ms, &message.holder));
        }
        Ok(Empty {})
    }

    pub(super) async fn recover_lease(
        &self,
        message: RecoverLeaseRequest,
        _: Peer,
    ) -> Result<RecoverLeaseReply> {
        let call = self.enter(Method::RecoverLease, message.caller)?;
        check_principal("the lease holder", &message.holder)?;
        let op = Op::RecoverLease { path: path(&message.path)?, holder: message.holder };
        match self.propose(call, op).await? {
            Reply::Recovering { closed, .. } => Ok(RecoverLeaseReply { closed }),
            reply => unexpected("recoverLease", &reply),
        }
    }

    /// The outcome of a block recovery. Only the stamp of the recovery that is under way may commit.
    pub(super) async fn commit_block_synchronization(
        &self,
        message: CommitBlockSynchronizationRequest,
        _: Peer,
    ) -> Result<CommitBlockSynchronizationReply> {
        self.enter(Method::CommitBlockSynchronization, None)?;
        super::blocks::check_named(&message.datanodes)?;
        let block: op::Block = required("block", message.block)?.into();
        let new_stamp = GenerationStamp(message.new_generation_stamp);
        let op = Op::CommitBlockSynchronization {
            block,
            new_stamp,
            new_length: message.new_length,
            close_file: message.close_file,
            delete_block: message.delete_block,
        };
        self.propose_own(op).await?;
        let outcome = op::Block { id: block.id, stamp: new_stamp, length: message.new_length };
        self.recovered(&message.datanodes, &message.units, outcome);
        Ok(CommitBlockSynchronizationReply {})
    }

    /// The replicas that a recovery settled, or the units, are there already, before their nodes report them.
    fn recovered(&self, uuids: &[String], units: &[u8], outcome: op::Block) {
        self.log.read(|state| {
            self.volatile.cluster(|cluster, _| {
                for (at, uuid) in uuids.iter().enumerate() {
                    let unit = units.get(at).copied().filter(|unit| *unit < 16);
                    let id = match (outcome.id.is_striped(), unit) {
                        (false, _) => outcome.id,
                        (true, Some(unit)) => outcome.id.group().of_unit(unit),
                        (true, None) => continue,
                    };
                    let (Some(node), Some(truth)) =
                        (cluster.datanodes.find(uuid), look_up(state, id))
                    else {
                        continue;
                    };
                    let length = if id.is_striped() { truth.length } else { outcome.length };
                    let state = ReplicaState::Finalized;
                    let replica = Reported { id, stamp: outcome.stamp, length, state };
                    if cluster.datanodes.get(node).liveness != Liveness::Dead {
                        cluster.replicas.report(node, &replica, Some(&truth));
                    }
                }
            });
        });
    }

    /// Ends another writer's lease on a file if its soft limit is over. `Ok`: go on and ask the state, which refuses
    /// if someone still writes. Errors: `FileOpenElsewhere` while the last block is being recovered.
    async fn take_over(&self, caller: &Caller, path: &FsPath, holder: &str) -> Result<()> {
        let other = self.log.read(|state| {
            let status = state.status(caller, path)?;
            let lease = status.and_then(|status| state.lease(InodeId(status.inode)).cloned());
            Ok::<_, Error>(lease.map(|lease| lease.holder).filter(|other| other != holder))
        })?;
        let Some(other) = other.filter(|other| other != RECOVERY_HOLDER) else { return Ok(()) };
        let expired =
            self.volatile.cluster(|cluster, now_ms| cluster.leases.is_soft_expired(now_ms, &other));
        if !expired {
            return Ok(());
        }
        tracing::info!(%path, holder = %other, by = %holder, "the lease is over its soft limit");
        let op = Op::RecoverLease { path: path.clone(), holder: holder.to_owned() };
        match self.propose((caller.clone(), None), op).await? {
            Reply::Recovering { closed: true, .. } => Ok(()),
            Reply::Recovering { .. } => Err(Error::new(
                Code::FileOpenElsewhere,
                format!(
                    "{path} was open for {other:?}; its last block is being recovered: ask again"
                ),
            )),
            reply => unexpected("recoverLease", &reply),
        }
    }

    /// Begins recoveries for holders over the hard limit, and again for those that did not come back.
    pub async fn check_leases(&self) {
        let safe_mode = self.volatile.cluster(|cluster, _| cluster.safemode.is_on());
        if safe_mode {
            return;
        }
        let (holders, overdue) = self.volatile.cluster(|cluster, now_ms| {
            (cluster.leases.hard_expired(now_ms), cluster.recoveries.overdue(now_ms))
        });
        let mut inodes: Vec<InodeId> = overdue.into_iter().map(|(_, inode)| inode).collect();
        for holder in holders {
            let files = self.log.read(|state| state.files_of_holder(&holder));
            if files.is_empty() {
                self.volatile.cluster(|cluster, _| cluster.leases.forget(&holder));
            } else if holder != RECOVERY_HOLDER {
                tracing::warn!(%holder, files = files.len(), "a writer is over the hard limit");
                inodes.extend(files);
            }
        }
        inodes.extend(self.forgotten_recoveries());
        inodes.sort_unstable();
        inodes.dedup();
        for inode in inodes.into_iter().take(RECOVERIES_PER_ROUND_MAX) {
            self.recover(inode).await;
        }
    }

    /// Files that are under recovery in the journal but not here: begun by an earlier process.
    fn forgotten_recoveries(&self) -> Vec<InodeId> {
        self.log.read(|state| {
            let files = state.files_of_holder(RECOVERY_HOLDER);
            if files.is_empty() {
                return files;
            }
            self.volatile.cluster(|cluster, _| {
                let forgotten = |inode: &InodeId| {
                    let last = state.blocks_of_inode(*inode).pop();
                    last.is_some_and(|block| cluster.recoveries.stamp(block.id).is_none())
                };
                files.into_iter().filter(forgotten).collect()
            })
        })
    }

    async fn recover(&self, inode: InodeId) {
        let last =
            self.log.read(|state| state.lease(inode).map(|_| state.blocks_of_inode(inode).pop()));
        let Some(last) = last else {
            self.end_recoveries_of(inode);
            return;
        };
        let outcome = match self.propose_own(Op::BeginBlockRecovery { inode }).await {
            Ok(Reply::Recovering { recovery: Some(recovery), .. }) => {
                self.drop_if_never_written(last.as_ref().map(truth_of), &recovery).await
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            tracing::warn!(%inode, %error, "recover the lease of a file");
            if let Some(block) = last.filter(|block| block.state != BlockState::Complete) {
                // Tried again when the deadline of this attempt is over.
                self.volatile.cluster(|cluster, now_ms| {
                    cluster.recoveries.begin(now_ms, (block.id, inode), block.stamp, &[])
                });
            }
        }
    }

    /// A last block that no replica ever showed of, and that no live node was to write, holds nothing: it goes.
    async fn drop_if_never_written(
        &self,
        truth: Option<BlockTruth>,
        recovery: &op::BlockRecovery,
    ) -> Result<()> {
        let id = recovery.block.id;
        let written = self.volatile.cluster(|cluster, _| match recovery.policy {
            0 => cluster.has_any_replica(id),
            policy => cluster.has_any_unit(id, policy),
        });
        if written || truth.is_some_and(|truth| truth.length > 0) || recovery.new_length.is_some() {
            return Ok(());
        }
        tracing::warn!(block = %id, inode = %recovery.inode, "an empty block without a replica goes");
        let op = Op::CommitBlockSynchronization {
            block: recovery.block,
            new_stamp: recovery.new_stamp,
            new_length: 0,
            close_file: true,
            delete_block: true,
        };
        self.propose_own(op).await.map(|_| ())
    }

    fn end_recoveries_of(&self, inode: InodeId) {
        self.volatile.cluster(|cluster, _| {
            let over: Vec<BlockId> = cluster
                .recoveries
                .overdue(u64::MAX)
                .into_iter()
                .filter(|&(_, of)| of == inode)
                .map(|(id, _)| id)
                .collect();
            over.into_iter().for_each(|id| cluster.recoveries.end(id));
        });
    }
}
