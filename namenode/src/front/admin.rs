//! The service Admin: the status of the whole cluster, and safe mode by hand.

use std::sync::Arc;
use std::time::Instant;

use proto::granary::admin_server::Admin;
use proto::granary::set_safe_mode_request::Action;
use proto::granary::*;
use proto::{Code, Error, Result, Txid};
use tonic::{Request, Response, Status};

use super::access::Method;
use super::node::Node;
use crate::cluster::datanodes::Liveness;
use crate::state::State;

/// The service.
pub struct AdminService(pub Arc<Node>);

#[tonic::async_trait]
impl Admin for AdminService {
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
                };
            cluster.datanodes.iter().map(describe).collect()
        })
    }

    /// Writes a checkpoint, in safe mode alone, as HDFS does it. Errors: `InvalidArgument` out of safe mode.
    pub(super) async fn save_namespace(&self) -> Result<Txid> {
        if !self.volatile.cluster(|cluster, _| cluster.safemode.is_on()) {
            let message = "Safe mode should be turned ON in order to create namespace image.";
            return Err(Error::new(Code::InvalidArgument, message));
        }
        Ok(self.log.checkpoint().await?.txid)
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
