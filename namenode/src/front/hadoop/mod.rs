//! Hadoop's protocols on the NameNode: what unmodified Java, Go, Rust and C clients of HDFS ask.
//!
//! | module | owns |
//! |---|---|
//! | `errors` | failures, and what they are called in Java |
//! | `convert` | HDFS's messages from ours |
//! | `absent` | what there is none of: encryption zones, tokens, caches |
//! | `attributes` | extended attributes, access control lists, storage policies, concat |
//! | `blocks` | files that are written and read: blocks, pipelines, leases, locations |
//! | `erasure` | erasure coding: which policies there are |
//! | `namespace` | names: looking, listing, mkdirs, rename, delete, attributes |
//! | `service` | the NameNode of itself; the small protocols of Java's tools |
//! | `paths` | the paths of messages: reserved ones, names that may be made |
//! | `quotas` | quotas, sums over trees |
//! | `snapshots` | snapshots |
//!
//! A method takes its message apart and calls the same function of [`Node`] that gRPC calls: there is one check of
//! permissions and one set of rules. The table below names every method with its function. `now` answers on the
//! connection's task, without waiting; `later` waits for the journal or for DataNodes.
//!
//! To add a method: one line in the table, a function `fn(&Asked, Request) -> Answered<Response>` (`async` and with
//! `Asked` by value for `later`), and if no gRPC method is like it, a line in `access`.
//!
//! Always holds: every call is counted under its [`Method`]; a message that is none is an error, not a panic.

mod absent;
mod admin;
mod attributes;
mod blocks;
mod convert;
pub(super) mod erasure;
mod errors;
mod namespace;
pub(crate) mod paths;
mod quotas;
mod service;
mod snapshots;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ipc::exceptions::Verb;
use ipc::{Answer, Call, Identity, RpcError};
use prost::Message;
use proto::{Result, granary};

use super::access::Method;
use super::native;
use super::node::Node;
use crate::op::{CallId, Caller, Op, Reply};
pub(super) use convert::storage_id;
use errors::{Answered, Failure};

/// The protocol of HDFS's clients.
pub const CLIENT_PROTOCOL: &str = "org.apache.hadoop.hdfs.protocol.ClientProtocol";
/// What answers the calls of a protocol.
type Dispatch = fn(&Arc<Node>, Call) -> Option<Answer>;

/// Every protocol by its name; each is spoken in version 1.
const PROTOCOLS: [(&str, Dispatch); 8] = [
    (CLIENT_PROTOCOL, client_protocol),
    (proto::rpc::NAMESPACE_PROTOCOL, native::call),
    ("org.apache.hadoop.ha.HAServiceProtocol", ha_protocol),
    ("org.apache.hadoop.tools.GetUserMappingsProtocol", user_mappings_protocol),
    ("org.apache.hadoop.security.RefreshUserMappingsProtocol", refresh_users_protocol),
    ("org.apache.hadoop.security.RefreshAuthorizationPolicyProtocol", refresh_acl_protocol),
    ("org.apache.hadoop.ipc.RefreshCallQueueProtocol", refresh_queue_protocol),
    ("org.apache.hadoop.ipc.GenericRefreshProtocol", refresh_protocol),
];
/// Bytes of a request that its class could not make, in Hadoop's numbers of errors.
const DETAIL_DESERIALIZE: i32 = 13;

/// What answers the calls of the Hadoop RPC port.
pub struct HadoopService(pub Arc<Node>);

impl ipc::Service for HadoopService {
    fn protocol_version(&self, protocol: &str) -> Option<u64> {
        PROTOCOLS.iter().any(|(name, _)| *name == protocol).then_some(1)
    }

    fn call(self: &Arc<Self>, call: Call) -> Option<Answer> {
        let (_, answer) = PROTOCOLS.iter().find(|(name, _)| call.protocol == *name)?;
        answer(&self.0, call)
    }
}

/// One call, as the methods see it.
#[derive(Clone)]
pub struct Asked {
    node: Arc<Node>,
    identity: Arc<Identity>,
    peer: IpAddr,
    client_id: [u8; 16],
    call_id: i32,
    method: Method,
    verb: Verb,
    since: Instant,
}

macro_rules! methods {
    ($dispatch:ident: $($text:literal => $kind:ident $method:ident $verb:ident $function:path;)*) => {
        fn $dispatch(node: &Arc<Node>, call: Call) -> Option<Answer> {
            let Call { identity, peer, client_id, call_id, method: name, body, .. } = call;
            let asked = move |method, verb| Asked {
                node: Arc::clone(node),
                identity,
                peer: peer.ip(),
                client_id,
                call_id,
                method,
                verb,
                since: Instant::now(),
            };
            Some(match name.as_str() {
                $($text => $kind(asked(Method::$method, Verb::$verb), &body, $function),)*
                _ => return None,
            })
        }
    };
}

methods! { client_protocol:
    // name => when, counted as, verb of its errors, function
    "getFileInfo" => now GetFileInfo Other namespace::get_file_info;
    "getBlockLocations" => now GetBlockLocations Other blocks::get_block_locations;
    "create" => later Create Create blocks::create;
    "addBlock" => later AddBlock Append blocks::add_block;
    "complete" => later Complete Append blocks::complete;
    "renewLease" => later RenewLease Other blocks::renew_lease;
    "getListing" => now GetListing Other namespace::get_listing;
    "getServerDefaults" => now GetServerDefaults Other namespace::get_server_defaults;
    "mkdirs" => later Mkdirs Create namespace::mkdirs;
    "rename" => later Rename Rename namespace::rename;
    "rename2" => later Rename Rename namespace::rename2;
    "delete" => later Delete Other namespace::delete;
    "setXAttr" => later SetXAttr XAttr attributes::set_xattr;
    "removeXAttr" => later RemoveXAttr XAttr attributes::remove_xattr;
    "getXAttrs" => now GetXAttrs XAttr attributes::get_xattrs;
    "listXAttrs" => now ListXAttrs XAttr attributes::list_xattrs;
    "modifyAclEntries" => later ModifyAclEntries Acl attributes::modify_acl_entries;
    "removeAclEntries" => later RemoveAclEntries Acl attributes::remove_acl_entries;
    "removeDefaultAcl" => later RemoveDefaultAcl Acl attributes::remove_default_acl;
    "removeAcl" => later RemoveAcl Acl attributes::remove_acl;
    "setAcl" => later SetAcl Acl attributes::set_acl;
    "getAclStatus" => now GetAclStatus Acl attributes::get_acl_status;
    "setStoragePolicy" => later SetStoragePolicy Other attributes::set_storage_policy;
    "unsetStoragePolicy" => later UnsetStoragePolicy Other attributes::unset_storage_policy;
    "getStoragePolicy" => now GetStoragePolicy Other attributes::get_storage_policy;
    "getStoragePolicies" => now GetStoragePolicies Other attributes::get_storage_policies;
    "concat" => later Concat Append attributes::concat;
    "setQuota" => later SetQuota Other quotas::set_quota;
    "getQuotaUsage" => later GetQuotaUsage Other quotas::get_quota_usage;
    "getContentSummary" => later GetContentSummary Other quotas::get_content_summary;
    "allowSnapshot" => later AllowSnapshot Snapshot snapshots::allow_snapshot;
    "disallowSnapshot" => later DisallowSnapshot Snapshot snapshots::disallow_snapshot;
    "createSnapshot" => later CreateSnapshot Snapshot snapshots::create_snapshot;
    "deleteSnapshot" => later DeleteSnapshot Snapshot snapshots::delete_snapshot;
    "renameSnapshot" => later RenameSnapshot Snapshot snapshots::rename_snapshot;
    "getSnapshottableDirListing" => now GetSnapshottableFolders Snapshot snapshots::get_snapshottable_dir_listing;
    "getSnapshotListing" => now GetSnapshots Snapshot snapshots::get_snapshot_listing;
    "getSnapshotDiffReport" => now GetSnapshotDiff Snapshot snapshots::get_snapshot_diff_report;
    "getSnapshotDiffReportListing" => now GetSnapshotDiff Snapshot snapshots::get_snapshot_diff_report_listing;
    "getFileLinkInfo" => now GetFileInfo Other namespace::get_file_link_info;
    "getLocatedFileInfo" => now GetBlockLocations Other blocks::get_located_file_info;
    "getLinkTarget" => now GetFileInfo Other namespace::get_link_target;
    "getEnclosingRoot" => now GetFileInfo Other namespace::get_enclosing_root;
    "getPreferredBlockSize" => now GetFileInfo Other blocks::get_preferred_block_size;
    "isFileClosed" => now GetFileInfo Other blocks::is_file_closed;
    "checkAccess" => now CheckAccess Other namespace::check_access;
    "createSymlink" => now CreateSymlink Other namespace::create_symlink;
    "setReplication" => later SetReplication Other namespace::set_replication;
    "setPermission" => later SetPermission Other namespace::set_permission;
    "setOwner" => later SetOwner Other namespace::set_owner;
    "setTimes" => later SetTimes Other namespace::set_times;
    // Files that are written.
    "append" => later Append Append blocks::append;
    "truncate" => later Truncate Append blocks::truncate;
    "abandonBlock" => later AbandonBlock Append blocks::abandon_block;
    "getAdditionalDatanode" => later GetAdditionalDatanode Append blocks::get_additional_datanode;
    "updateBlockForPipeline" => later UpdateBlockForPipeline Append blocks::update_block_for_pipeline;
    "updatePipeline" => later UpdatePipeline Append blocks::update_pipeline;
    "fsync" => later Fsync Append blocks::fsync;
    "recoverLease" => later RecoverLease Other blocks::recover_lease;
    "reportBadBlocks" => later ReportBadBlocks Other blocks::report_bad_blocks;
    // Erasure coding.
    "getDatanodeReport" => now GetDatanodeReport Other admin::get_datanode_report;
    "getDatanodeStorageReport" => now GetDatanodeReport Other admin::get_datanode_storage_report;
    "getSlowDatanodeReport" => now GetDatanodeReport Other admin::get_slow_datanode_report;
    "refreshNodes" => now NameNodeAdmin Other admin::refresh_nodes;
    "setBalancerBandwidth" => now NameNodeAdmin Other admin::set_balancer_bandwidth;
    "listCorruptFileBlocks" => later ListCorruptFileBlocks Other admin::list_corrupt_file_blocks;
    "setSafeMode" => now GetSafeMode Other admin::set_safe_mode;
    "saveNamespace" => later Checkpoint Other admin::save_namespace;
    "rollEdits" => now NameNodeAdmin Other admin::roll_edits;
    "restoreFailedStorage" => now NameNodeAdmin Other admin::restore_failed_storage;
    "metaSave" => now NameNodeAdmin Other admin::meta_save;
    "finalizeUpgrade" => now NameNodeAdmin Other admin::finalize_upgrade;
    "upgradeStatus" => now GetUpgradeStatus Other admin::upgrade_status;
    "rollingUpgrade" => now GetUpgradeStatus Other admin::rolling_upgrade;
    "getErasureCodingPolicies" => now ErasureCodingRead Other erasure::get_policies;
    "getErasureCodingCodecs" => now ErasureCodingRead Other erasure::get_codecs;
    "getErasureCodingPolicy" => now ErasureCodingRead Other erasure::get_policy;
    "getECTopologyResultForPolicies" => now ErasureCodingRead Other erasure::get_topology_result;
    "setErasureCodingPolicy" => later ErasureCodingSet Other erasure::set_policy;
    "unsetErasureCodingPolicy" => later ErasureCodingSet Other erasure::unset_policy;
    "enableErasureCodingPolicy" => later ErasureCodingAdmin Other erasure::enable_policy;
    "disableErasureCodingPolicy" => later ErasureCodingAdmin Other erasure::disable_policy;
    "addErasureCodingPolicies" => now ErasureCodingAdmin Other erasure::add_policies;
    "removeErasureCodingPolicy" => now ErasureCodingAdmin Other erasure::remove_policy;
    // Of the NameNode itself.
    "getFsStats" => now GetFsStats Other service::get_fs_stats;
    "getFsReplicatedBlockStats" => now GetFsStats Other service::get_replicated_block_stats;
    "getFsECBlockGroupStats" => now GetFsStats Other service::get_block_group_stats;
    "listOpenFiles" => now ListOpenFiles Other service::list_open_files;
    "msync" => now GetOwnState Other service::msync;
    "getHAServiceState" => now GetOwnState Other service::get_ha_service_state;
    "getCurrentEditLogTxid" => now ServiceAdmin Other service::get_current_txid;
    "getEditsFromTxid" => now ServiceAdmin Other absent::get_edits_from_txid;
    // What there is none of.
    "getEZForPath" => now EncryptionZones Other absent::get_ez_for_path;
    "listEncryptionZones" => now EncryptionAdmin Other absent::list_encryption_zones;
    "createEncryptionZone" => now EncryptionAdmin Other absent::create_encryption_zone;
    "reencryptEncryptionZone" => now EncryptionAdmin Other absent::reencrypt_encryption_zone;
    "listReencryptionStatus" => now EncryptionAdmin Other absent::list_reencryption_status;
    "getDataEncryptionKey" => now EncryptionZones Other absent::get_data_encryption_key;
    "getDelegationToken" => now Tokens Other absent::get_delegation_token;
    "renewDelegationToken" => now Tokens Other absent::renew_delegation_token;
    "cancelDelegationToken" => now Tokens Other absent::cancel_delegation_token;
    "listCacheDirectives" => now Caches Other absent::list_cache_directives;
    "listCachePools" => now Caches Other absent::list_cache_pools;
    "addCacheDirective" => now CachesAdmin Other absent::add_cache_directive;
    "modifyCacheDirective" => now CachesAdmin Other absent::modify_cache_directive;
    "removeCacheDirective" => now CachesAdmin Other absent::remove_cache_directive;
    "addCachePool" => now CachesAdmin Other absent::add_cache_pool;
    "modifyCachePool" => now CachesAdmin Other absent::modify_cache_pool;
    "removeCachePool" => now CachesAdmin Other absent::remove_cache_pool;
    "getBatchedListing" => now GetListing Other absent::get_batched_listing;
    "satisfyStoragePolicy" => now SetStoragePolicy Other absent::satisfy_storage_policy;
}

methods! { ha_protocol:
    "getServiceStatus" => now ServiceAdmin Other service::get_service_status;
    "monitorHealth" => now ServiceAdmin Other service::monitor_health;
    "transitionToActive" => now ServiceAdmin Other service::transition_to_active;
    "transitionToStandby" => now ServiceAdmin Other service::transition_to_standby;
    "transitionToObserver" => now ServiceAdmin Other service::transition_to_observer;
}

methods! { user_mappings_protocol:
    "getGroupsForUser" => now GetGroups Other service::get_groups;
}

methods! { refresh_users_protocol:
    "refreshUserToGroupsMappings" => now Refresh Other service::refresh_groups;
    "refreshSuperUserGroupsConfiguration" => now Refresh Other service::refresh_superusers;
}

methods! { refresh_acl_protocol:
    "refreshServiceAcl" => now Refresh Other service::refresh_service_acl;
}

methods! { refresh_queue_protocol:
    "refreshCallQueue" => now Refresh Other service::refresh_call_queue;
}

methods! { refresh_protocol:
    "refresh" => now Refresh Other service::refresh;
}

/// Answers at once.
fn now<Q, R>(asked: Asked, body: &Bytes, answer: fn(&Asked, Q) -> Answered<R>) -> Answer
where
    Q: Message + Default,
    R: Message,
{
    let answered = decode(body).and_then(|request| answer(&asked, request));
    Answer::Now(asked.counted(answered))
}

/// Answers when the function has.
fn later<Q, R, F>(asked: Asked, body: &Bytes, answer: fn(Asked, Q) -> F) -> Answer
where
    Q: Message + Default,
    R: Message,
    F: Future<Output = Answered<R>> + Send + 'static,
{
    let request = match decode(body) {
        Ok(request) => request,
        Err(failure) => return Answer::Now(asked.counted::<R>(Err(failure))),
    };
    let answered = answer(asked.clone(), request);
    Answer::Later(Box::pin(async move { asked.counted(answered.await) }))
}

fn decode<Q: Message + Default>(body: &Bytes) -> Answered<Q> {
    Q::decode(body.clone()).map_err(|error| {
        Failure::Java(RpcError {
            class: "org.apache.hadoop.ipc.RpcServerException",
            message: format!("the request's {} bytes are not its message: {error}", body.len()),
            detail: DETAIL_DESERIALIZE,
        })
    })
}

impl Asked {
    /// Who calls, as Granary's messages say it.
    fn caller(&self) -> Option<granary::Caller> {
        let known = self.client_id != [0; 16] && self.call_id >= 0;
        Some(granary::Caller {
            user: self.identity.user.clone(),
            client_id: if known { Bytes::copy_from_slice(&self.client_id) } else { Bytes::new() },
            call_id: u64::try_from(self.call_id).unwrap_or(0),
        })
    }

    /// From where the call comes.
    fn peer(&self) -> Option<IpAddr> {
        Some(self.peer)
    }

    /// Enters the call: see [`Node::enter`].
    fn enter(&self) -> Result<(Caller, Option<CallId>)> {
        self.node.enter(self.method, self.caller())
    }

    /// Enters the call and proposes its one operation.
    async fn propose(&self, op: Op) -> Result<Reply> {
        let call = self.enter()?;
        self.node.propose(call, op).await
    }

    fn counted<R: Message>(&self, answered: Answered<R>) -> std::result::Result<Bytes, RpcError> {
        let micros = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.node.volatile.metrics.called(self.method, answered.is_err(), micros);
        match answered {
            Ok(reply) => Ok(Bytes::from(reply.encode_to_vec())),
            Err(failure) => Err(failure.into_rpc(self.verb)),
        }
    }
}
