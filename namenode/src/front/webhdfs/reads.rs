//! GET: what changes nothing.

use ::webhdfs::params::no_such_op;
use ::webhdfs::{Exception, Result, answer};
use axum::response::Response;
use proto::hadoop::hdfs::*;
use serde_json::{Value, json};

use super::{Ask, attributes, file_does_not_exist, json as messages, listing, redirect, trash};

/// Bytes that a range has if its length is not said.
const LENGTH_DEFAULT: u64 = i64::MAX as u64;

/// Answers a GET.
pub(super) async fn answer(ask: &Ask) -> Result<Response> {
    let value = match ask.op.as_str() {
        "OPEN" => return redirect::open(ask).await,
        "GETFILECHECKSUM" => return redirect::checksum(ask).await,
        "LISTSTATUS" => return listing::whole(ask).await,
        "LISTSTATUS_BATCH" => return listing::batch(ask).await,
        "CHECKACCESS" => return check_access(ask).await,
        "GETFILESTATUS" => {
            json!({"FileStatus": messages::status(&ask.status(file_does_not_exist).await?)})
        }
        "GETFILELINKSTATUS" => {
            let request = GetFileLinkInfoRequestProto { src: ask.src() };
            let reply: GetFileLinkInfoResponseProto = ask.call("getFileLinkInfo", request).await?;
            let status =
                reply.fs.ok_or_else(|| Exception::not_found(file_does_not_exist(&ask.path)))?;
            json!({"FileStatus": messages::status(&status)})
        }
        "GETLINKTARGET" => {
            let request = GetLinkTargetRequestProto { path: ask.src() };
            let reply: GetLinkTargetResponseProto = ask.call("getLinkTarget", request).await?;
            json!({"Path": reply.target_path})
        }
        "GETCONTENTSUMMARY" => {
            let request = GetContentSummaryRequestProto { path: ask.src() };
            let reply: GetContentSummaryResponseProto =
                ask.call("getContentSummary", request).await?;
            messages::content_summary(&reply.summary)
        }
        "GETQUOTAUSAGE" => {
            let request = GetQuotaUsageRequestProto { path: ask.src() };
            let reply: GetQuotaUsageResponseProto = ask.call("getQuotaUsage", request).await?;
            messages::quota_usage(&reply.usage)
        }
        "GETHOMEDIRECTORY" => json!({"Path": trash::home(ask)}),
        "GETTRASHROOT" => trash::root(ask),
        "GETTRASHROOTS" => trash::roots(ask).await?,
        "GETDELEGATIONTOKEN" => {
            let renewer = ask.params.text("renewer").unwrap_or(&ask.identity.user).to_owned();
            let request = GetDelegationTokenRequestProto { renewer };
            // There is no security that a token could carry: the reply has none.
            let _none: GetDelegationTokenResponseProto =
                ask.call("getDelegationToken", request).await?;
            json!({"Token": Value::Null})
        }
        "GETFILEBLOCKLOCATIONS" => messages::block_locations(&locations(ask).await?),
        "GET_BLOCK_LOCATIONS" => messages::located_blocks(&locations(ask).await?),
        "GETSERVERDEFAULTS" => {
            let request = GetServerDefaultsRequestProto {};
            let reply: GetServerDefaultsResponseProto =
                ask.call("getServerDefaults", request).await?;
            messages::server_defaults(&reply.server_defaults)
        }
        "GETSTATUS" => {
            let reply: GetFsStatsResponseProto =
                ask.call("getFsStats", GetFsStatusRequestProto {}).await?;
            messages::fs_status(&reply)
        }
        _ => return of_attributes(ask).await,
    };
    Ok(answer::json(&value))
}

/// ACLs, extended attributes, policies and snapshots.
async fn of_attributes(ask: &Ask) -> Result<Response> {
    let value = match ask.op.as_str() {
        "GETACLSTATUS" => {
            let request = GetAclStatusRequestProto { src: ask.src() };
            let reply: GetAclStatusResponseProto = ask.call("getAclStatus", request).await?;
            messages::acl_status(&reply.result)
        }
        "GETXATTRS" => attributes::get_xattrs(ask).await?,
        "LISTXATTRS" => attributes::list_xattrs(ask).await?,
        "GETALLSTORAGEPOLICY" => {
            let request = GetStoragePoliciesRequestProto {};
            let reply: GetStoragePoliciesResponseProto =
                ask.call("getStoragePolicies", request).await?;
            let policies: Vec<Value> =
                reply.policies.iter().map(messages::storage_policy).collect();
            json!({"BlockStoragePolicies": {"BlockStoragePolicy": policies}})
        }
        "GETSTORAGEPOLICY" => {
            let request = GetStoragePolicyRequestProto { path: ask.src() };
            let reply: GetStoragePolicyResponseProto =
                ask.call("getStoragePolicy", request).await?;
            json!({"BlockStoragePolicy": messages::storage_policy(&reply.storage_policy)})
        }
        "GETECPOLICY" => {
            let request = GetErasureCodingPolicyRequestProto { src: ask.src() };
            let reply: GetErasureCodingPolicyResponseProto =
                ask.call("getErasureCodingPolicy", request).await?;
            reply.ec_policy.as_ref().map_or(Value::Null, messages::coding_policy)
        }
        "GETECPOLICIES" => {
            let request = GetErasureCodingPoliciesRequestProto {};
            let reply: GetErasureCodingPoliciesResponseProto =
                ask.call("getErasureCodingPolicies", request).await?;
            let policies = reply.ec_policies.iter().map(|policy| {
                let state = format!("{:?}", policy.state()).to_uppercase();
                json!({"policy": messages::coding_policy(policy), "state": state})
            });
            let policies: Vec<Value> = policies.collect();
            json!({"ErasureCodingPolicies": {"ErasureCodingPolicyInfo": policies}})
        }
        "GETECCODECS" => {
            let request = GetErasureCodingCodecsRequestProto {};
            let reply: GetErasureCodingCodecsResponseProto =
                ask.call("getErasureCodingCodecs", request).await?;
            let codecs: serde_json::Map<_, _> =
                reply.codec.into_iter().map(|codec| (codec.codec, codec.coders.into())).collect();
            json!({"ErasureCodingCodecs": codecs})
        }
        _ => return of_snapshots(ask).await,
    };
    Ok(answer::json(&value))
}

async fn of_snapshots(ask: &Ask) -> Result<Response> {
    let value = match ask.op.as_str() {
        "GETSNAPSHOTDIFF" => {
            let name = |param: &str| ask.params.text(param).unwrap_or("").to_owned();
            let request = GetSnapshotDiffReportRequestProto {
                snapshot_root: ask.src(),
                from_snapshot: name("oldsnapshotname"),
                to_snapshot: name("snapshotname"),
            };
            let reply: GetSnapshotDiffReportResponseProto =
                ask.call("getSnapshotDiffReport", request).await?;
            messages::snapshot_diff(&reply.diff_report)
        }
        "GETSNAPSHOTDIFFLISTING" => {
            let name = |param: &str| ask.params.text(param).unwrap_or("").to_owned();
            let index = ask.params.int("snapshotdiffindex", -1)?.unwrap_or(-1);
            let start_path = name("snapshotdiffstartpath").into();
            let request = GetSnapshotDiffReportListingRequestProto {
                snapshot_root: ask.src(),
                from_snapshot: name("oldsnapshotname"),
                to_snapshot: name("snapshotname"),
                cursor: Some(SnapshotDiffReportCursorProto { start_path, index }),
            };
            let reply: GetSnapshotDiffReportListingResponseProto =
                ask.call("getSnapshotDiffReportListing", request).await?;
            messages::snapshot_diff_listing(&reply.diff_report)
        }
        "GETSNAPSHOTTABLEDIRECTORYLIST" => {
            let request = GetSnapshottableDirListingRequestProto {};
            let reply: GetSnapshottableDirListingResponseProto =
                ask.call("getSnapshottableDirListing", request).await?;
            messages::snapshottable(&reply.snapshottable_dir_list.unwrap_or_default())
        }
        "GETSNAPSHOTLIST" => {
            let request = GetSnapshotListingRequestProto { snapshot_root: ask.src() };
            let reply: GetSnapshotListingResponseProto =
                ask.call("getSnapshotListing", request).await?;
            messages::snapshots(&reply.snapshot_list.unwrap_or_default())
        }
        op => return Err(no_such_op("Get", op)),
    };
    Ok(answer::json(&value))
}

/// The blocks in the range that the request names.
async fn locations(ask: &Ask) -> Result<LocatedBlocksProto> {
    let number = |name: &str, default: u64| {
        Ok::<_, Exception>(ask.params.long(name, 0)?.map_or(default, i64::unsigned_abs))
    };
    let request = GetBlockLocationsRequestProto {
        src: ask.src(),
        offset: number("offset", 0)?,
        length: number("length", LENGTH_DEFAULT)?,
    };
    let reply: GetBlockLocationsResponseProto = ask.call("getBlockLocations", request).await?;
    reply.locations.ok_or_else(|| Exception::not_found(file_does_not_exist(&ask.path)))
}

async fn check_access(ask: &Ask) -> Result<Response> {
    let text = ask.params.required("fsaction")?;
    let mode = attributes::action(text).ok_or_else(|| {
        Exception::parameter(
            "fsaction",
            format_args!("Invalid value: \"{text}\" does not belong to the domain [r-][w-][x-]"),
        )
    })?;
    let request = CheckAccessRequestProto { path: ask.src(), mode: mode as i32 };
    ask.tell::<CheckAccessResponseProto>("checkAccess", request).await
}
