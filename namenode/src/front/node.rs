//! What all front ends share: the log, the volatile side, who may call, and how one call is entered and counted.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use proto::granary::{self, FsStats, LocatedBlock};
use proto::{BlockId, Code, Error, FsPath, InodeId, Result};
use tonic::{Response, Status};

use super::access::{Access, Method};
use super::volatile::{Volatile, now_ns};
use crate::cluster::groups;
use crate::cluster::replicas::BlockTruth;
use crate::config::Config;
use crate::log::Log;
use crate::op::{CallId, Caller, FileRef, Op, Reply, Request};
use crate::state::{BlockInfo, State};

/// One NameNode, as its front ends see it.
pub struct Node {
    /// Its settings.
    pub config: Config,
    /// Names the cluster: a uuid.
    pub cluster_id: String,
    /// Names the namespace in every data-transfer operation: `BP-<n>`.
    pub pool_id: String,
    /// The journaled side.
    pub log: Log,
    /// The rest.
    pub volatile: Arc<Volatile>,
    /// Who may call what.
    pub access: Access,
    /// When it started, in nanoseconds since 1970-01-01 UTC.
    pub started_ns: i64,
    /// Where Hadoop's RPC listens: what DataNodes know this NameNode by when a client of WebHDFS is sent to them.
    pub hadoop_rpc_addr: SocketAddr,
}

impl Node {
    /// Enters a call: who calls, and whether that may be now. Errors: `InvalidArgument`, `PermissionDenied`,
    /// `SafeMode`; after a failure of the log that failure, for reads as well.
    pub fn enter(
        &self,
        method: Method,
        caller: Option<granary::Caller>,
    ) -> Result<(Caller, Option<CallId>)> {
        if let Some(error) = self.log.failure() {
            return Err(error.context("the NameNode must be restarted"));
        }
        let entered = self.access.check(method, caller)?;
        if method.changes() {
            self.volatile.cluster(|cluster, _| cluster.check_may_change())?;
        }
        Ok(entered)
    }

    /// Makes an operation durable, applies it, and gives its reply.
    pub async fn propose(
        &self,
        (caller, call_id): (Caller, Option<CallId>),
        op: Op,
    ) -> Result<Reply> {
        self.log.propose(Request { caller, call_id, now_ns: now_ns(), op }).await
    }

    /// Proposes an operation of the NameNode's own.
    pub async fn propose_own(&self, op: Op) -> Result<Reply> {
        self.propose((Caller::superuser(self.access.superuser()), None), op).await
    }

    /// Counts a call and turns its result into what tonic wants.
    pub fn counted<R>(
        &self,
        method: Method,
        since: Instant,
        result: Result<R>,
    ) -> std::result::Result<Response<R>, Status> {
        let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.volatile.metrics.called(method, result.is_err(), micros);
        result.map(Response::new).map_err(Status::from)
    }

    /// A block with its locations, for a reader on `host`.
    pub fn located(&self, offset: u64, info: &BlockInfo, host: &str) -> LocatedBlock {
        let truth = truth_of(info);
        let (locations, units, corrupt) = self.volatile.cluster(|cluster, _| {
            if info.policy != 0 {
                return cluster.group_locations(info.id, &truth);
            }
            let (locations, corrupt) = cluster.locations(info.id, &truth, host);
            (locations, Vec::new(), corrupt)
        });
        LocatedBlock {
            block: Some(granary::Block {
                id: info.id.0,
                generation_stamp: info.stamp.0,
                length: info.shown,
            }),
            offset,
            locations,
            corrupt,
            erasure_policy: info.policy.into(),
            units: units.into(),
        }
    }

    /// Counts of the whole file system.
    pub fn fs_stats(&self) -> FsStats {
        let counts = self.log.read(State::counts);
        self.volatile.cluster(|cluster, _| {
            let totals = cluster.replicas.totals();
            let mut stats = FsStats {
                files: counts.files + counts.folders,
                blocks: totals.blocks,
                under_replicated_blocks: totals.under_replicated,
                corrupt_blocks: totals.corrupt,
                missing_blocks: totals.missing,
                ..Default::default()
            };
            for (_, node) in cluster.datanodes.living_nodes() {
                let (capacity, used, remaining) = node.space();
                stats.capacity_bytes = stats.capacity_bytes.saturating_add(capacity);
                stats.used_bytes = stats.used_bytes.saturating_add(used);
                stats.remaining_bytes = stats.remaining_bytes.saturating_add(remaining);
            }
            stats
        })
    }
}

/// The namespace's view of a block as the cluster takes it.
pub fn truth_of(info: &BlockInfo) -> BlockTruth {
    BlockTruth {
        stamp: info.stamp,
        length: info.length,
        complete: info.state == crate::op::BlockState::Complete,
        replication: info.replication,
        policy: info.policy,
    }
}

/// The namespace's view of the block with this id: a block, or a unit of a block group. The block of a group that is
/// never a unit stands for the whole group.
pub fn look_up(state: &State, id: BlockId) -> Option<BlockTruth> {
    if !id.is_striped() {
        return state.block(id).map(|info| truth_of(&info));
    }
    let group = truth_of(&state.block(id.group())?);
    if groups::is_mark(id) {
        return Some(group);
    }
    groups::unit_truth(&group, id.unit())
}

/// A path of a message.
pub fn path(text: &str) -> Result<FsPath> {
    FsPath::parse(text)
}

/// An open file of a message.
pub fn file_ref(text: &str, inode: u64) -> Result<FileRef> {
    Ok(FileRef { path: path(text)?, inode: (inode != 0).then_some(InodeId(inode)) })
}

/// A part of a message that must be there.
pub fn required<T>(what: &str, part: Option<T>) -> Result<T> {
    part.ok_or_else(|| Error::new(Code::InvalidArgument, format!("the request has no {what}")))
}

/// A reply that does not belong to its operation: our own mistake, told and not hidden.
pub fn unexpected<T>(op: &str, reply: &Reply) -> Result<T> {
    Err(Error::new(Code::Internal, format!("{op} was answered by {reply:?}")))
}

/// The address of a peer as text; empty if it is not known.
pub fn host_of(peer: Option<IpAddr>) -> String {
    peer.map(|ip| ip.to_canonical().to_string()).unwrap_or_default()
}
