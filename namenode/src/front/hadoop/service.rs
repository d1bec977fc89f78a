//! What the NameNode says of itself: space and blocks in all, open files, its role; and the small protocols that Java's
//! tools open on the same port.

use ipc::exceptions;
use proto::hadoop::hdfs::*;
use proto::{Code, Error, InodeId};

use super::Asked;
use super::errors::{Answered, Failure};

/// Open files in one page: each costs a look through its folder for its name.
const OPEN_FILES_PAGE: usize = 100;
const SERVICE_FAILED: &str = "org.apache.hadoop.ha.ServiceFailedException";

pub fn get_fs_stats(
    asked: &Asked,
    _: GetFsStatusRequestProto,
) -> Answered<GetFsStatsResponseProto> {
    asked.enter()?;
    let stats = asked.node.fs_stats();
    Ok(GetFsStatsResponseProto {
        capacity: stats.capacity_bytes,
        used: stats.used_bytes,
        remaining: stats.remaining_bytes,
        under_replicated: stats.under_replicated_blocks,
        corrupt_blocks: stats.corrupt_blocks,
        missing_blocks: stats.missing_blocks,
        missing_repl_one_blocks: Some(0),
        blocks_in_future: Some(0),
        pending_deletion_blocks: Some(0),
    })
}

pub fn get_replicated_block_stats(
    asked: &Asked,
    _: GetFsReplicatedBlockStatsRequestProto,
) -> Answered<GetFsReplicatedBlockStatsResponseProto> {
    asked.enter()?;
    let (all, groups) = asked
        .node
        .volatile
        .cluster(|cluster, _| (cluster.replicas.totals(), cluster.replicas.group_totals()));
    Ok(GetFsReplicatedBlockStatsResponseProto {
        low_redundancy: all.under_replicated - groups.under_replicated,
        corrupt_blocks: all.corrupt - groups.corrupt,
        missing_blocks: all.missing - groups.missing,
        ..Default::default()
    })
}

pub fn get_block_group_stats(
    asked: &Asked,
    _: GetFsEcBlockGroupStatsRequestProto,
) -> Answered<GetFsEcBlockGroupStatsResponseProto> {
    asked.enter()?;
    let groups = asked.node.volatile.cluster(|cluster, _| cluster.replicas.group_totals());
    Ok(GetFsEcBlockGroupStatsResponseProto {
        low_redundancy: groups.under_replicated,
        corrupt_blocks: groups.corrupt,
        missing_blocks: groups.missing,
        ..Default::default()
    })
}

pub fn list_open_files(
    asked: &Asked,
    request: ListOpenFilesRequestProto,
) -> Answered<ListOpenFilesResponseProto> {
    asked.enter()?;
    let under = match request.path() {
        "" => proto::FsPath::root(),
        path => asked.path(path)?,
    };
    // Nothing is ever being decommissioned.
    let all = request.types.is_empty()
        || request.types.contains(&(OpenFilesTypeProto::AllOpenFiles as i32));
    let mut entries = Vec::new();
    let mut has_more = false;
    let after = InodeId(u64::try_from(request.id).unwrap_or(0));
    asked.node.log.read(|state| {
        for (inode, lease) in state.leases().filter(|(inode, _)| all && *inode > after) {
            if entries.len() == OPEN_FILES_PAGE {
                has_more = true;
                return;
            }
            let Some(path) = state.path_of(inode).filter(|path| under.contains(path)) else {
                continue;
            };
            entries.push(OpenFilesBatchResponseProto {
                id: i64::try_from(inode.0).unwrap_or(i64::MAX),
                path: path.to_string(),
                client_name: lease.holder.clone(),
                client_machine: String::new(),
            });
        }
    });
    Ok(ListOpenFilesResponseProto { entries, has_more, types: request.types })
}

pub fn msync(asked: &Asked, _: MsyncRequestProto) -> Answered<MsyncResponseProto> {
    asked.enter()?;
    Ok(MsyncResponseProto {})
}

pub fn get_ha_service_state(
    asked: &Asked,
    _: HaServiceStateRequestProto,
) -> Answered<HaServiceStateResponseProto> {
    asked.enter()?;
    Ok(HaServiceStateResponseProto { state: HaServiceStateProto::Active as i32 })
}

pub fn get_current_txid(
    asked: &Asked,
    _: GetCurrentEditLogTxidRequestProto,
) -> Answered<GetCurrentEditLogTxidResponseProto> {
    asked.enter()?;
    let txid = i64::try_from(asked.node.log.last_txid().0).unwrap_or(i64::MAX);
    Ok(GetCurrentEditLogTxidResponseProto { txid })
}

// ---- HAServiceProtocol: one NameNode, always active.

pub fn get_service_status(
    asked: &Asked,
    _: GetServiceStatusRequestProto,
) -> Answered<GetServiceStatusResponseProto> {
    asked.enter()?;
    Ok(GetServiceStatusResponseProto {
        state: HaServiceStateProto::Active as i32,
        ready_to_become_active: Some(true),
        not_ready_reason: None,
    })
}

pub fn monitor_health(
    asked: &Asked,
    _: MonitorHealthRequestProto,
) -> Answered<MonitorHealthResponseProto> {
    asked.enter()?;
    Ok(MonitorHealthResponseProto {})
}

pub fn transition_to_active(
    asked: &Asked,
    _: TransitionToActiveRequestProto,
) -> Answered<TransitionToActiveResponseProto> {
    asked.enter()?;
    Ok(TransitionToActiveResponseProto {})
}

pub fn transition_to_standby(
    asked: &Asked,
    _: TransitionToStandbyRequestProto,
) -> Answered<TransitionToStandbyResponseProto> {
    asked.enter()?;
    Err(Failure::java(SERVICE_FAILED, "HA for namenode is not enabled"))
}

pub fn transition_to_observer(
    asked: &Asked,
    _: TransitionToObserverRequestProto,
) -> Answered<TransitionToObserverResponseProto> {
    asked.enter()?;
    Err(Failure::java(SERVICE_FAILED, "HA for namenode is not enabled"))
}

// ---- Users, groups and what else can be read again. Groups come from the settings, which are read at start.

pub fn get_groups(
    asked: &Asked,
    request: GetGroupsForUserRequestProto,
) -> Answered<GetGroupsForUserResponseProto> {
    Ok(GetGroupsForUserResponseProto { groups: asked.node.access.groups_of(&request.user) })
}

pub fn refresh_groups(
    asked: &Asked,
    _: RefreshUserToGroupsMappingsRequestProto,
) -> Answered<RefreshUserToGroupsMappingsResponseProto> {
    asked.enter()?;
    Ok(RefreshUserToGroupsMappingsResponseProto {})
}

pub fn refresh_superusers(
    asked: &Asked,
    _: RefreshSuperUserGroupsConfigurationRequestProto,
) -> Answered<RefreshSuperUserGroupsConfigurationResponseProto> {
    asked.enter()?;
    Ok(RefreshSuperUserGroupsConfigurationResponseProto {})
}

pub fn refresh_service_acl(
    asked: &Asked,
    _: RefreshServiceAclRequestProto,
) -> Answered<RefreshServiceAclResponseProto> {
    asked.enter()?;
    Err(Failure::java(exceptions::AUTHORIZATION, "Service Level Authorization not enabled!"))
}

pub fn refresh_call_queue(
    asked: &Asked,
    _: RefreshCallQueueRequestProto,
) -> Answered<RefreshCallQueueResponseProto> {
    asked.enter()?;
    Ok(RefreshCallQueueResponseProto {})
}

pub fn refresh(
    asked: &Asked,
    request: GenericRefreshRequestProto,
) -> Answered<GenericRefreshResponseCollectionProto> {
    asked.enter()?;
    let message = format!("nothing here is refreshed by the name {:?}", request.identifier());
    Err(Error::new(Code::InvalidArgument, message).into())
}
