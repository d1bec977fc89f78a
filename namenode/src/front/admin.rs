//! The service Admin: the status of the whole cluster, safe mode by hand, quotas, open files, checks, checkpoints.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use proto::granary::admin_server::Admin;
use proto::granary::set_safe_mode_request::Action;
use proto::granary::*;
use proto::{Code, Error, Result};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::access::Method;
use super::fsck;
use super::node::{Node, path};
use super::nodes;
use crate::cluster::datanodes::Liveness;
use crate::state::State;

/// The service.
pub struct AdminService(pub Arc<Node>);

/// Open files in one reply: each costs a look through its folder for its name.
const OPEN_FILES_MAX: usize = 100;

type Events = Pin<Box<dyn Stream<Item = std::result::Result<CheckFilesEvent, Status>> + Send>>;

#[tonic::async_trait]
impl Admin for AdminService {
    type CheckFilesStream = Events;

    async fn check_files(
        &self,
        request: Request<CheckFilesRequest>,
    ) -> std::result::Result<Response<Events>, Status> {
        let since = Instant::now();
        let events = self.0.check_files(request.into_inner());
        let stream = |events| -> Events {
            Box::pin(ReceiverStream::new(events).filter_map(fsck::wire::message))
        };
        self.0.counted(Method::CheckFiles, since, events.map(stream))
    }

    async fn list_open_files(
        &self,
        request: Request<ListOpenFilesRequest>,
    ) -> std::result::Result<Response<ListOpenFilesReply>, Status> {
        let since = Instant::now();
        let result = self.0.list_open_files(request.into_inner());
        self.0.counted(Method::ListOpenFiles, since, result)
    }

    async fn change_snapshots(
        &self,
        request: Request<ChangeSnapshotsRequest>,
    ) -> std::result::Result<Response<ChangeSnapshotsReply>, Status> {
        let since = Instant::now();
        let result = self.0.change_snapshots_of(request.into_inner()).await;
        self.0.counted(Method::CreateSnapshot, since, result)
    }

    async fn change_nodes(
        &self,
        request: Request<ChangeNodesRequest>,
    ) -> std::result::Result<Response<ChangeNodesReply>, Status> {
        let since = Instant::now();
        let result = self.0.change_nodes(request.into_inner()).await;
        self.0.counted(Method::ChangeNodes, since, result)
    }

    async fn list_nodes(
        &self,
        request: Request<ListNodesRequest>,
    ) -> std::result::Result<Response<ListNodesReply>, Status> {
        let since = Instant::now();
        let result = self.0.list_nodes(request.into_inner());
        self.0.counted(Method::ListNodes, since, result)
    }

    async fn balance(
        &self,
        request: Request<BalanceRequest>,
    ) -> std::result::Result<Response<BalanceStatus>, Status> {
        let since = Instant::now();
        let result = self.0.balance(request.into_inner());
        self.0.counted(Method::Balance, since, result)
    }

    async fn change_erasure_coding(
        &self,
        request: Request<ChangeErasureCodingRequest>,
    ) -> std::result::Result<Response<ChangeErasureCodingReply>, Status> {
        let since = Instant::now();
        let result = self.0.change_erasure_coding(request.into_inner()).await;
        self.0.counted(Method::ErasureCodingSet, since, result)
    }

    async fn get_erasure_coding(
        &self,
        request: Request<GetErasureCodingRequest>,
    ) -> std::result::Result<Response<GetErasureCodingReply>, Status> {
        let since = Instant::now();
        let result = self.0.get_erasure_coding(request.into_inner());
        self.0.counted(Method::ErasureCodingRead, since, result)
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> std::result::Result<Response<ListSnapshotsReply>, Status> {
        let since = Instant::now();
        let result = self.0.list_snapshots(request.into_inner());
        self.0.counted(Method::GetSnapshots, since, result)
    }

    async fn diff_snapshots(
        &self,
        request: Request<DiffSnapshotsRequest>,
    ) -> std::result::Result<Response<DiffSnapshotsReply>, Status> {
        let since = Instant::now();
        let result = self.0.diff_snapshots(request.into_inner());
        self.0.counted(Method::GetSnapshotDiff, since, result)
    }

    async fn checkpoint(
        &self,
        request: Request<CheckpointRequest>,
    ) -> std::result::Result<Response<CheckpointReply>, Status> {
        let since = Instant::now();
        let result = self.0.checkpoint(request.into_inner()).await;
        self.0.counted(Method::Checkpoint, since, result)
    }

    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> std::result::Result<Response<ClusterStatus>, Status> {
        let since = Instant::now();
        self.0.counted(Method::GetStatus, since, Ok(self.0.status()))
    }

    async fn set_safe_mode(
        &self,
        request: Request<SetSafeModeRequest>,
    ) -> std::result::Result<Response<SetSafeModeReply>, Status> {
        let since = Instant::now();
        let result = self.0.set_safe_mode(request.into_inner());
        self.0.counted(Method::SetSafeMode, since, result)
    }

    async fn set_quota(
        &self,
        request: Request<SetQuotaRequest>,
    ) -> std::result::Result<Response<SetQuotaReply>, Status> {
        let since = Instant::now();
        let result = self.0.set_quota(request.into_inner()).await;
        self.0.counted(Method::SetQuota, since, result)
    }

    async fn list_quotas(
        &self,
        request: Request<ListQuotasRequest>,
    ) -> std::result::Result<Response<ListQuotasReply>, Status> {
        let since = Instant::now();
        let result = self.0.list_quotas(request.into_inner());
        self.0.counted(Method::ListQuotas, since, result)
    }
}

impl Node {
    /// The status of the whole cluster.
    pub fn status(&self) -> ClusterStatus {
        let repair = self.volatile.cluster(|cluster, now_ms| cluster.repair_progress(now_ms));
        let last_txid = self.log.read(State::txid).0;
        let datanodes = self.datanode_statuses();
        let (safe_mode, safe_mode_reason) = self
            .volatile
            .cluster(|cluster, _| (cluster.safemode.is_on(), cluster.safemode_reason()));
        ClusterStatus {
            cluster_id: self.cluster_id.clone(),
            pool_id: self.pool_id.clone(),
            safe_mode,
            safe_mode_reason,
            last_txid,
            checkpoint_txid: self.log.checkpoint_txid().0,
            started_ns: self.started_ns,
            stats: Some(self.fs_stats()),
            datanodes,
            kvservers: self.volatile.controller(|controller, now_ms| controller.statuses(now_ms)),
            stores: self.stores(),
            software_version: proto::SOFTWARE_VERSION.to_owned(),
            repair: Some(nodes::repair_status(&repair)),
        }
    }

    /// Every DataNode, in the order in which they came.
    pub(super) fn datanode_statuses(&self) -> Vec<DatanodeStatus> {
        self.volatile.cluster(|cluster, now_ms| {
            let describe =
                |(index, node): (_, &crate::cluster::datanodes::Datanode)| DatanodeStatus {
                    address: Some(node.address.clone()),
                    alive: node.liveness != Liveness::Dead,
                    last_heartbeat_ms_ago: now_ms.saturating_sub(node.last_heard_ms),
                    volumes: node.volumes.clone(),
                    replicas: cluster.replicas.held_by(index),
                    active_transfers: node.active_transfers,
                    software_version: node.software_version.clone(),
                    service: nodes::service_number(node.service),
                    blocking_blocks: cluster.blocking(index),
                };
            cluster.datanodes.iter().map(describe).collect()
        })
    }

    async fn checkpoint(&self, message: CheckpointRequest) -> Result<CheckpointReply> {
        self.enter(Method::Checkpoint, message.caller)?;
        Ok(CheckpointReply { txid: self.log.checkpoint().await?.txid.0 })
    }

    fn check_files(
        self: &Arc<Self>,
        message: CheckFilesRequest,
    ) -> Result<tokio::sync::mpsc::Receiver<fsck::Event>> {
        let (caller, _) = self.enter(Method::CheckFiles, message.caller.clone())?;
        let mend = match message.mend() {
            check_files_request::Mend::Unspecified => fsck::Mend::Leave,
            check_files_request::Mend::Move => fsck::Mend::Move,
            check_files_request::Mend::Delete => fsck::Mend::Delete,
        };
        if message.repair {
            self.enter(Method::RepairFiles, message.caller.clone())?;
        }
        let without = self.nodes_named(&message.without)?;
        let (blocks, open, repair) = (message.blocks, message.open, message.repair);
        let wanted = fsck::Wanted { blocks, open, mend, repair, without };
        fsck::check(self, caller, path(&message.path)?, wanted)
    }

    fn list_open_files(&self, message: ListOpenFilesRequest) -> Result<ListOpenFilesReply> {
        self.enter(Method::ListOpenFiles, message.caller)?;
        let under = path(if message.path.is_empty() { "/" } else { &message.path })?;
        let mut reply = ListOpenFilesReply::default();
        self.log.read(|state| {
            let rest = state.leases().filter(|(inode, _)| inode.0 > message.after_inode);
            for (inode, lease) in rest {
                if reply.files.len() == OPEN_FILES_MAX {
                    reply.more = true;
                    return;
                }
                let path = state.path_of(inode);
                let Some(path) = path.filter(|path| *path == under || under.contains(path)) else {
                    continue;
                };
                reply.files.push(OpenFile {
                    inode: inode.0,
                    path: path.to_string(),
                    holder: lease.holder.clone(),
                    recovering: lease.recovery.is_some(),
                });
            }
        });
        Ok(reply)
    }

    pub(super) fn set_safe_mode(&self, message: SetSafeModeRequest) -> Result<SetSafeModeReply> {
        let (caller, _) = self.enter(Method::SetSafeMode, message.caller.clone())?;
        let action = message.action();
        let safe_mode = self.volatile.cluster(|cluster, _| {
            match action {
                Action::Get => {}
                Action::Enter => cluster.safemode.enter(),
                Action::Leave => cluster.safemode.leave(),
                Action::Unspecified => {
                    let text = "setSafeMode: the action is not given";
                    return Err(Error::new(Code::InvalidArgument, text));
                }
            }
            Ok(cluster.safemode.is_on())
        })?;
        if action != Action::Get {
            tracing::warn!(safe_mode, by = %caller.user, "safe mode was set by hand");
        }
        Ok(SetSafeModeReply { safe_mode })
    }
}
