//! HDFS's messages as WebHDFS's JSON: field names, units and types are what clients of WebHDFS know.
//!
//! Times are milliseconds, permissions octal text, no quota is -1. Fields of a feature that a file does not use are
//! left out where HDFS leaves them out.

use proto::erasure::Policy;
use proto::hadoop::hdfs::hdfs_file_status_proto::{FileType, Flags};
use proto::hadoop::hdfs::*;
use serde_json::{Map, Value, json};

use super::super::hadoop::erasure::in_full;
use super::attributes::acl_text;

/// An empty token, as Hadoop writes tokens into URLs: empty identifier, password, kind and service.
const EMPTY_TOKEN: &str = "AAAAAA";

/// FileStatus.
pub(super) fn status(status: &HdfsFileStatusProto) -> Value {
    let kind = match status.file_type() {
        FileType::IsDir => "DIRECTORY",
        FileType::IsFile => "FILE",
        FileType::IsSymlink => "SYMLINK",
    };
    let mut value = json!({
        "pathSuffix": text(&status.path),
        "type": kind,
        "length": status.length,
        "owner": status.owner,
        "group": status.group,
        "permission": format!("{:o}", status.permission.perm),
        "accessTime": status.access_time,
        "modificationTime": status.modification_time,
        "blockSize": status.blocksize(),
        "replication": status.block_replication(),
        "fileId": status.file_id(),
        "childrenNum": status.children_num(),
        "storagePolicy": status.storage_policy(),
    });
    if let Some(target) = &status.symlink
        && !target.is_empty()
    {
        value["symlink"] = text(target).into();
    }
    for (flag, name) in [
        (Flags::HasAcl, "aclBit"),
        (Flags::HasCrypt, "encBit"),
        (Flags::HasEc, "ecBit"),
        (Flags::SnapshotEnabled, "snapshotEnabled"),
    ] {
        if status.flags() & flag as u32 != 0 {
            value[name] = true.into();
        }
    }
    if let Some(policy) = &status.ec_policy {
        let told = coding_policy(policy);
        value["ecPolicy"] = told["name"].clone();
        value["ecPolicyObj"] = told;
    }
    value
}

/// ContentSummary.
pub(super) fn content_summary(summary: &ContentSummaryProto) -> Value {
    json!({"ContentSummary": {
        "length": summary.length,
        "fileCount": summary.file_count,
        "directoryCount": summary.directory_count,
        "quota": quota(summary.quota),
        "spaceConsumed": summary.space_consumed,
        "spaceQuota": quota(summary.space_quota),
        "typeQuota": type_quotas(summary.type_quota_infos.as_ref()),
        "ecPolicy": summary.erasure_coding_policy(),
        "snapshotLength": summary.snapshot_length(),
        "snapshotFileCount": summary.snapshot_file_count(),
        "snapshotDirectoryCount": summary.snapshot_directory_count(),
        "snapshotSpaceConsumed": summary.snapshot_space_consumed(),
    }})
}

/// QuotaUsage.
pub(super) fn quota_usage(usage: &QuotaUsageProto) -> Value {
    json!({"QuotaUsage": {
        "fileAndDirectoryCount": usage.file_and_directory_count,
        "quota": quota(usage.quota),
        "spaceConsumed": usage.space_consumed,
        "spaceQuota": quota(usage.space_quota),
        "typeQuota": type_quotas(usage.type_quota_infos.as_ref()),
    }})
}

/// A quota as Java has it: none is -1.
fn quota(value: u64) -> i64 {
    value.cast_signed()
}

fn type_quotas(infos: Option<&StorageTypeQuotaInfosProto>) -> Value {
    let set = infos.into_iter().flat_map(|infos| &infos.type_quota_info);
    let quotas = set.filter(|info| info.quota != u64::MAX).map(|info| {
        let value = json!({"quota": quota(info.quota), "consumed": info.consumed});
        (info.r#type().as_str_name().to_owned(), value)
    });
    Value::Object(quotas.collect::<Map<_, _>>())
}

/// FsStatus.
pub(super) fn fs_status(stats: &GetFsStatsResponseProto) -> Value {
    json!({"FsStatus": {
        "capacity": stats.capacity,
        "used": stats.used,
        "remaining": stats.remaining,
    }})
}

/// FsServerDefaults.
pub(super) fn server_defaults(defaults: &FsServerDefaultsProto) -> Value {
    json!({"FsServerDefaults": {
        "blockSize": defaults.block_size,
        "bytesPerChecksum": defaults.bytes_per_checksum,
        "writePacketSize": defaults.write_packet_size,
        "replication": defaults.replication,
        "fileBufferSize": defaults.file_buffer_size,
        "encryptDataTransfer": defaults.encrypt_data_transfer(),
        "trashInterval": defaults.trash_interval(),
        "checksumType": defaults.checksum_type() as i32,
        "keyProviderUri": defaults.key_provider_uri(),
        "defaultStoragePolicyId": defaults.policy_id(),
    }})
}

/// BlockLocations: what a scheduler wants to know.
pub(super) fn block_locations(located: &LocatedBlocksProto) -> Value {
    let locations: Vec<Value> = located.blocks.iter().map(block_location).collect();
    json!({"BlockLocations": {"BlockLocation": locations}})
}

fn block_location(block: &LocatedBlockProto) -> Value {
    let each = |text: fn(&DatanodeInfoProto) -> String| -> Vec<String> {
        block.locs.iter().map(text).collect()
    };
    json!({
        "offset": block.offset,
        "length": block.b.num_bytes(),
        "corrupt": block.corrupt,
        "hosts": each(|at| at.id.host_name.clone()),
        "names": each(|at| host_port(&at.id.ip_addr, at.id.xfer_port)),
        "topologyPaths": each(|at| {
            format!("{}/{}", at.location(), host_port(&at.id.ip_addr, at.id.xfer_port))
        }),
        "storageTypes": storage_types(&block.storage_types),
        "cachedHosts": [],
    })
}

/// LocatedBlocks: what a reader of blocks wants to know.
pub(super) fn located_blocks(located: &LocatedBlocksProto) -> Value {
    let blocks: Vec<Value> = located.blocks.iter().map(located_block).collect();
    json!({"LocatedBlocks": {
        "fileLength": located.file_length,
        "isUnderConstruction": located.under_construction,
        "locatedBlocks": blocks,
        "lastLocatedBlock": located.last_block.as_ref().map(located_block),
        "isLastBlockComplete": located.is_last_block_complete,
    }})
}

fn located_block(located: &LocatedBlockProto) -> Value {
    let locations: Vec<Value> = located.locs.iter().map(datanode).collect();
    json!({
        "blockToken": {"urlString": EMPTY_TOKEN},
        "isCorrupt": located.corrupt,
        "startOffset": located.offset,
        "block": {
            "blockPoolId": located.b.pool_id,
            // Java's numbers are signed.
            "blockId": located.b.block_id.cast_signed(),
            "numBytes": located.b.num_bytes(),
            "generationStamp": located.b.generation_stamp,
        },
        "locations": locations,
        "storageTypes": storage_types(&located.storage_types),
        "cachedLocations": [],
    })
}

fn datanode(at: &DatanodeInfoProto) -> Value {
    let id = &at.id;
    json!({
        "name": host_port(&id.ip_addr, id.xfer_port),
        "ipAddr": id.ip_addr,
        "hostName": id.host_name,
        "storageID": id.datanode_uuid,
        "xferPort": id.xfer_port,
        "infoPort": id.info_port,
        "infoSecurePort": id.info_secure_port(),
        "ipcPort": id.ipc_port,
        "capacity": at.capacity(),
        "dfsUsed": at.dfs_used(),
        "nonDfsUsed": at.non_dfs_used(),
        "remaining": at.remaining(),
        "blockPoolUsed": at.block_pool_used(),
        "lastUpdate": at.last_update(),
        "lastUpdateMonotonic": at.last_update_monotonic(),
        "xceiverCount": at.xceiver_count(),
        "networkLocation": at.location(),
        "adminState": at.admin_state().as_str_name(),
        "cacheCapacity": at.cache_capacity(),
        "cacheUsed": at.cache_used(),
    })
}

/// AclStatus.
pub(super) fn acl_status(acl: &AclStatusProto) -> Value {
    let entries: Vec<String> = acl.entries.iter().map(acl_text).collect();
    let mut value = json!({
        "owner": acl.owner,
        "group": acl.group,
        "stickyBit": acl.sticky,
        "entries": entries,
    });
    if let Some(permission) = &acl.permission {
        value["permission"] = format!("{:o}", permission.perm).into();
    }
    json!({"AclStatus": value})
}

/// BlockStoragePolicy.
pub(super) fn storage_policy(policy: &BlockStoragePolicyProto) -> Value {
    let types = |list: Option<&StorageTypesProto>| {
        storage_types(list.map_or(&[][..], |list| &list.storage_types))
    };
    json!({
        "id": policy.policy_id,
        "name": policy.name,
        "storageTypes": types(Some(&policy.creation_policy)),
        "creationFallbacks": types(policy.creation_fallback_policy.as_ref()),
        "replicationFallbacks": types(policy.replication_fallback_policy.as_ref()),
        "copyOnCreateFile": false,
    })
}

/// ErasureCodingPolicy. One that is built in may come as its number alone.
pub(super) fn coding_policy(policy: &ErasureCodingPolicyProto) -> Value {
    let known = u8::try_from(policy.id).ok().and_then(Policy::by_id);
    if let Some(known) = known.filter(|_| policy.schema.is_none()) {
        return coding_policy(&in_full(known, true));
    }
    let schema = policy.schema.clone().unwrap_or_default();
    let options: Map<String, Value> =
        schema.options.into_iter().map(|option| (option.key, option.value.into())).collect();
    json!({
        "name": policy.name(),
        "id": policy.id,
        "cellSize": policy.cell_size(),
        "codecName": schema.codec_name,
        "numDataUnits": schema.data_units,
        "numParityUnits": schema.parity_units,
        "replicationPolicy": policy.id == 0,
        "systemPolicy": policy.id < 64,
        "schema": {
            "codecName": schema.codec_name,
            "numDataUnits": schema.data_units,
            "numParityUnits": schema.parity_units,
            "extraOptions": options,
        },
    })
}

/// SnapshotDiffReport.
pub(super) fn snapshot_diff(report: &SnapshotDiffReportProto) -> Value {
    let entries = report.diff_report_entries.iter().map(|entry| {
        let kind = match entry.modification_label.as_str() {
            "+" => "CREATE",
            "-" => "DELETE",
            "R" => "RENAME",
            _ => "MODIFY",
        };
        let mut value = json!({"sourcePath": text(&entry.fullpath), "type": kind});
        if let Some(target) = &entry.target_path
            && !target.is_empty()
        {
            value["targetPath"] = text(target).into();
        }
        value
    });
    json!({"SnapshotDiffReport": {
        "snapshotRoot": report.snapshot_root,
        "fromSnapshot": report.from_snapshot,
        "toSnapshot": report.to_snapshot,
        "diffList": entries.collect::<Vec<Value>>(),
    }})
}

/// SnapshotDiffReportListing: a part of a report.
pub(super) fn snapshot_diff_listing(part: &SnapshotDiffReportListingProto) -> Value {
    let entry = |entry: &SnapshotDiffReportListingEntryProto| {
        let mut value = json!({
            "dirId": entry.dir_id,
            "fileId": entry.file_id(),
            "isReference": entry.is_reference,
            "sourcePath": text(&entry.fullpath),
        });
        if let Some(target) = &entry.target_path {
            value["targetPath"] = text(target).into();
        }
        value
    };
    let list = |entries: &[SnapshotDiffReportListingEntryProto]| -> Value {
        entries.iter().map(entry).collect()
    };
    let cursor = part.cursor.clone().unwrap_or_default();
    json!({"SnapshotDiffReportListing": {
        "isFromEarlier": part.is_from_earlier,
        "lastPath": text(&cursor.start_path),
        "lastIndex": cursor.index,
        "modifyList": list(&part.modified_entries),
        "createList": list(&part.created_entries),
        "deleteList": list(&part.deleted_entries),
    }})
}

/// SnapshottableDirectoryList.
pub(super) fn snapshottable(list: &SnapshottableDirectoryListingProto) -> Value {
    let folders = list.snapshottable_dir_listing.iter().map(|folder| {
        json!({
            "dirStatus": status(&folder.dir_status),
            "snapshotNumber": folder.snapshot_number,
            "snapshotQuota": folder.snapshot_quota,
            "parentFullPath": text(&folder.parent_fullpath),
        })
    });
    json!({"SnapshottableDirectoryList": folders.collect::<Vec<Value>>()})
}

/// SnapshotList.
pub(super) fn snapshots(list: &SnapshotListingProto) -> Value {
    let snapshots = list.snapshot_listing.iter().map(|snapshot| {
        json!({
            "dirStatus": status(&snapshot.dir_status),
            "snapshotID": snapshot.snapshot_id,
            "parentFullPath": text(&snapshot.parent_fullpath),
            "deletionStatus": if snapshot.is_deleted { "DELETED" } else { "ACTIVE" },
        })
    });
    json!({"SnapshotList": snapshots.collect::<Vec<Value>>()})
}

fn storage_types(types: &[i32]) -> Vec<&'static str> {
    let name =
        |number: &i32| StorageTypeProto::try_from(*number).map_or("DISK", |t| t.as_str_name());
    types.iter().map(name).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `host:port` as it stands in a URL.
pub(super) fn host_port(host: &str, port: u32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> HdfsFileStatusProto {
        HdfsFileStatusProto {
            file_type: FileType::IsFile as i32,
            path: "f".into(),
            length: 5,
            permission: FsPermissionProto { perm: 0o1777 },
            owner: "ann".into(),
            group: "web".into(),
            modification_time: 1000,
            access_time: 2000,
            block_replication: Some(3),
            blocksize: Some(134_217_728),
            file_id: Some(16387),
            children_num: Some(0),
            storage_policy: Some(0),
            ..Default::default()
        }
    }

    // The texts are what the server of HDFS 2.7.3 writes for the same values.

    #[test]
    fn a_status_is_written_as_hdfs_writes_it() {
        assert_eq!(
            json!({"FileStatus": status(&file())}).to_string(),
            "{\"FileStatus\":{\"accessTime\":2000,\"blockSize\":134217728,\"childrenNum\":0,\
             \"fileId\":16387,\"group\":\"web\",\"length\":5,\"modificationTime\":1000,\
             \"owner\":\"ann\",\"pathSuffix\":\"f\",\"permission\":\"1777\",\"replication\":3,\
             \"storagePolicy\":0,\"type\":\"FILE\"}}"
        );
        let flags = Flags::HasAcl as u32 | Flags::SnapshotEnabled as u32;
        let marked = status(&HdfsFileStatusProto { flags: Some(flags), ..file() });
        assert_eq!((&marked["aclBit"], &marked["snapshotEnabled"]), (&json!(true), &json!(true)));
        assert_eq!(marked.get("ecBit"), None);
    }

    #[test]
    fn blocks_are_written_as_hdfs_writes_them() {
        let block = LocatedBlockProto {
            b: ExtendedBlockProto {
                pool_id: "BP-1".into(),
                block_id: 1_073_741_825,
                generation_stamp: 1001,
                num_bytes: Some(5),
            },
            ..Default::default()
        };
        let located = LocatedBlocksProto {
            file_length: 5,
            blocks: vec![block],
            is_last_block_complete: true,
            ..Default::default()
        };
        assert_eq!(
            located_blocks(&located).to_string(),
            "{\"LocatedBlocks\":{\"fileLength\":5,\"isLastBlockComplete\":true,\
             \"isUnderConstruction\":false,\"lastLocatedBlock\":null,\"locatedBlocks\":[{\"block\":\
             {\"blockId\":1073741825,\"blockPoolId\":\"BP-1\",\"generationStamp\":1001,\"numBytes\":5},\
             \"blockToken\":{\"urlString\":\"AAAAAA\"},\"cachedLocations\":[],\"isCorrupt\":false,\
             \"locations\":[],\"startOffset\":0,\"storageTypes\":[]}]}}"
        );
    }

    #[test]
    fn no_quota_is_minus_one_and_types_without_one_are_left_out() {
        let info = |kind: StorageTypeProto, quota| StorageTypeQuotaInfoProto {
            r#type: Some(kind as i32),
            quota,
            consumed: 1,
        };
        let infos = StorageTypeQuotaInfosProto {
            type_quota_info: vec![
                info(StorageTypeProto::Disk, u64::MAX),
                info(StorageTypeProto::Ssd, 9),
            ],
        };
        let usage = QuotaUsageProto {
            quota: u64::MAX,
            space_quota: 7,
            type_quota_infos: Some(infos),
            ..Default::default()
        };
        let written = &quota_usage(&usage)["QuotaUsage"];
        assert_eq!((&written["quota"], &written["spaceQuota"]), (&json!(-1), &json!(7)));
        assert_eq!(written["typeQuota"], json!({"SSD": {"consumed": 1, "quota": 9}}));
    }
}
