//! ClientNamenodeProtocol: what operators ask. DataNodes, broken files, safe mode, checkpoints, upgrades.
//!
//! Where HDFS needs a superuser, so does this. What has no meaning here is refused with the reason, or answered as a
//! NameNode answers that has nothing to do: no upgrade is ever under way, and no list of hosts is read.

use std::sync::Arc;

use proto::granary::{
    self, DatanodeStatus, NodeService, VolumeStatus, set_safe_mode_request::Action,
};
use proto::hadoop::hdfs::*;
use proto::{Code, Error};

use super::Asked;
use super::convert::datanode_info;
use super::errors::{Answered, Failure};
use crate::front::access::Method;
use crate::front::volatile::now_ns;

/// Broken blocks in one answer; clients ask on with the cookie.
const BROKEN_MAX: usize = 100;

fn unsupported<R>(why: &str) -> Answered<R> {
    Err(Failure::from(Error::new(Code::Unsupported, why)))
}

// ---- DataNodes.

/// The DataNodes that a kind of report is about.
fn datanodes(asked: &Asked, kind: DatanodeReportTypeProto) -> Vec<DatanodeStatus> {
    use DatanodeReportTypeProto::*;
    let wanted = |node: &DatanodeStatus| match kind {
        All => true,
        Live => node.alive,
        Dead => !node.alive,
        Decommissioning => node.service() == NodeService::Decommissioning,
        EnteringMaintenance => node.service() == NodeService::EnteringMaintenance,
        InMaintenance => node.service() == NodeService::InMaintenance,
    };
    asked.node.datanode_statuses().into_iter().filter(wanted).collect()
}

pub fn get_datanode_report(
    asked: &Asked,
    request: GetDatanodeReportRequestProto,
) -> Answered<GetDatanodeReportResponseProto> {
    asked.enter()?;
    let di = datanodes(asked, request.r#type()).iter().map(described).collect();
    Ok(GetDatanodeReportResponseProto { di })
}

pub fn get_datanode_storage_report(
    asked: &Asked,
    request: GetDatanodeStorageReportRequestProto,
) -> Answered<GetDatanodeStorageReportResponseProto> {
    asked.enter()?;
    let report = |node: &DatanodeStatus| DatanodeStorageReportProto {
        datanode_info: described(node),
        storage_reports: node.volumes.iter().map(storage).collect(),
    };
    let datanode_storage_reports = datanodes(asked, request.r#type()).iter().map(report).collect();
    Ok(GetDatanodeStorageReportResponseProto { datanode_storage_reports })
}

/// No DataNode is told to be slow: their speed is not compared.
pub fn get_slow_datanode_report(
    asked: &Asked,
    _: GetSlowDatanodeReportRequestProto,
) -> Answered<GetSlowDatanodeReportResponseProto> {
    asked.enter()?;
    Ok(GetSlowDatanodeReportResponseProto { datanode_info_proto: Vec::new() })
}

/// A DataNode with what it holds, by its working volumes.
fn described(node: &DatanodeStatus) -> DatanodeInfoProto {
    let sum = |field: fn(&VolumeStatus) -> u64| {
        let working = node.volumes.iter().filter(|volume| !volume.failed);
        working.map(field).fold(0, u64::saturating_add)
    };
    let now_ms = u64::try_from(now_ns() / 1_000_000).unwrap_or(0);
    let used = sum(|volume| volume.used_bytes);
    DatanodeInfoProto {
        capacity: Some(sum(|volume| volume.capacity_bytes)),
        dfs_used: Some(used),
        remaining: Some(sum(|volume| volume.remaining_bytes)),
        block_pool_used: Some(used),
        non_dfs_used: Some(sum(foreign_bytes)),
        last_update: Some(now_ms.saturating_sub(node.last_heartbeat_ms_ago)),
        xceiver_count: Some(node.active_transfers),
        admin_state: Some(admin_state(node) as i32),
        num_blocks: Some(u32::try_from(node.replicas).unwrap_or(u32::MAX)),
        software_version: Some(node.software_version.clone()),
        ..datanode_info(&node.address.clone().unwrap_or_default())
    }
}

/// What a DataNode is for, in HDFS's words.
fn admin_state(node: &DatanodeStatus) -> datanode_info_proto::AdminState {
    use datanode_info_proto::AdminState;
    match node.service() {
        NodeService::InService => AdminState::Normal,
        NodeService::Decommissioning => AdminState::DecommissionInprogress,
        NodeService::Decommissioned => AdminState::Decommissioned,
        NodeService::EnteringMaintenance => AdminState::EnteringMaintenance,
        NodeService::InMaintenance => AdminState::InMaintenance,
    }
}

/// What others have on a volume.
fn foreign_bytes(volume: &VolumeStatus) -> u64 {
    volume.capacity_bytes.saturating_sub(volume.used_bytes).saturating_sub(volume.remaining_bytes)
}

fn storage(volume: &VolumeStatus) -> StorageReportProto {
    StorageReportProto {
        storage_uuid: volume.id.clone(),
        failed: Some(volume.failed),
        capacity: Some(volume.capacity_bytes),
        dfs_used: Some(volume.used_bytes),
        remaining: Some(volume.remaining_bytes),
        block_pool_used: Some(volume.used_bytes),
        storage: Some(DatanodeStorageProto {
            storage_uuid: volume.id.clone(),
            state: Some(datanode_storage_proto::StorageState::Normal as i32),
            storage_type: Some(StorageTypeProto::Disk as i32),
        }),
        non_dfs_used: Some(foreign_bytes(volume)),
        mount: None,
    }
}

/// There are no lists of hosts to read again: what is wanted of DataNodes is journaled, by `granary admin node`.
pub fn refresh_nodes(
    asked: &Asked,
    _: RefreshNodesRequestProto,
) -> Answered<RefreshNodesResponseProto> {
    asked.enter()?;
    Ok(RefreshNodesResponseProto {})
}

/// Of one DataNode, for the balancer (`granary admin balance`). As HDFS's DataNodes do, it takes no notice of 0.
pub fn set_balancer_bandwidth(
    asked: &Asked,
    request: SetBalancerBandwidthRequestProto,
) -> Answered<SetBalancerBandwidthResponseProto> {
    asked.enter()?;
    if let Ok(rate @ 1..) = u64::try_from(request.bandwidth) {
        asked.node.volatile.cluster(|cluster, _| cluster.set_balance_rate(rate));
    }
    Ok(SetBalancerBandwidthResponseProto {})
}

// ---- Broken files.

pub async fn list_corrupt_file_blocks(
    asked: Asked,
    request: ListCorruptFileBlocksRequestProto,
) -> Answered<ListCorruptFileBlocksResponseProto> {
    asked.enter()?;
    let path = asked.path(&request.path)?;
    let cookie = match request.cookie() {
        "" => 0,
        text => text.parse().map_err(|_| {
            Error::new(Code::InvalidArgument, format!("{text:?} is no cookie of a listing"))
        })?,
    };
    let (found, next) = asked.node.broken_blocks(&path, cookie, BROKEN_MAX).await;
    let end = asked.node.log.read(crate::state::State::block_slots_end);
    let files = found.into_iter().map(|broken| broken.path).collect();
    let cookie = next.unwrap_or(end.max(cookie)).to_string();
    Ok(ListCorruptFileBlocksResponseProto { corrupt: CorruptFileBlocksProto { files, cookie } })
}

// ---- Safe mode and checkpoints.

pub fn set_safe_mode(
    asked: &Asked,
    request: SetSafeModeRequestProto,
) -> Answered<SetSafeModeResponseProto> {
    let action = match request.action() {
        SafeModeActionProto::SafemodeGet => {
            asked.enter()?;
            let result = asked.node.volatile.cluster(|cluster, _| cluster.safemode.is_on());
            return Ok(SetSafeModeResponseProto { result });
        }
        SafeModeActionProto::SafemodeEnter => Action::Enter,
        SafeModeActionProto::SafemodeLeave | SafeModeActionProto::SafemodeForceExit => {
            Action::Leave
        }
    };
    let caller = asked.caller();
    let message = granary::SetSafeModeRequest { caller, action: action as i32 };
    let reply = asked.node.set_safe_mode(message)?;
    Ok(SetSafeModeResponseProto { result: reply.safe_mode })
}

/// Writes a checkpoint, as HDFS in safe mode alone. A client that leaves it to the NameNode (a window or a gap is given) gets one only if there
/// is something new.
pub async fn save_namespace(
    asked: Asked,
    request: SaveNamespaceRequestProto,
) -> Answered<SaveNamespaceResponseProto> {
    asked.enter()?;
    if !asked.node.volatile.cluster(|cluster, _| cluster.safemode.is_on()) {
        let message = "Safe mode should be turned ON in order to create namespace image.";
        return Err(Failure::java(ipc::exceptions::IO, message));
    }
    let gap = asked.node.log.last_txid().0.saturating_sub(asked.node.log.checkpoint_txid().0);
    let at_will = request.time_window() > 0 || request.tx_gap() > 0;
    let saved = !at_will || gap > request.tx_gap();
    if saved {
        asked.node.log.checkpoint().await?;
    }
    Ok(SaveNamespaceResponseProto { saved: Some(saved) })
}

pub fn roll_edits(asked: &Asked, _: RollEditsRequestProto) -> Answered<RollEditsResponseProto> {
    asked.enter()?;
    unsupported(
        "the journal begins its segments by itself; a checkpoint (saveNamespace) shortens it",
    )
}

pub fn restore_failed_storage(
    asked: &Asked,
    request: RestoreFailedStorageRequestProto,
) -> Answered<RestoreFailedStorageResponseProto> {
    asked.enter()?;
    match request.arg.as_str() {
        // One folder, and a NameNode whose folder failed stops.
        "check" | "false" => Ok(RestoreFailedStorageResponseProto { result: false }),
        _ => unsupported("the NameNode keeps one folder: none can be restored while it runs"),
    }
}

pub fn meta_save(asked: &Asked, _: MetaSaveRequestProto) -> Answered<MetaSaveResponseProto> {
    asked.enter()?;
    unsupported("metasave is not offered: see /status, /metrics and fsck on the HTTP port")
}

// ---- Upgrades: none is ever under way.

pub fn finalize_upgrade(
    asked: &Asked,
    _: FinalizeUpgradeRequestProto,
) -> Answered<FinalizeUpgradeResponseProto> {
    asked.enter()?;
    Ok(FinalizeUpgradeResponseProto {})
}

pub fn upgrade_status(
    asked: &Asked,
    _: UpgradeStatusRequestProto,
) -> Answered<UpgradeStatusResponseProto> {
    asked.enter()?;
    Ok(UpgradeStatusResponseProto { upgrade_finalized: true })
}

pub fn rolling_upgrade(
    asked: &Asked,
    request: RollingUpgradeRequestProto,
) -> Answered<RollingUpgradeResponseProto> {
    let query = request.action() == RollingUpgradeActionProto::Query;
    if !query {
        // Looking is for everyone, the rest for superusers.
        let method = Method::NameNodeAdmin;
        Arc::clone(&asked.node).enter(method, asked.caller())?;
    }
    asked.enter()?;
    match request.action() {
        RollingUpgradeActionProto::Start => {
            unsupported("there are no rolling upgrades: stop the NameNode, and start the new one")
        }
        _ => Ok(RollingUpgradeResponseProto { rolling_upgrade_info: None }),
    }
}
