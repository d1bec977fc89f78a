//! PUT, POST and DELETE: what changes the namespace.

use ::webhdfs::params::no_such_op;
use ::webhdfs::{Exception, Result, answer};
use axum::response::Response;
use proto::hadoop::hdfs::*;
use serde_json::json;

use super::attributes::{self, Permissions};
use super::{Ask, redirect};

/// Permission bits of a folder if none are asked for.
const FOLDER_MODE: u32 = 0o755;
/// HDFS's number for "leave this quota as it is".
const QUOTA_DONT_SET: i64 = i64::MAX;

/// Answers a PUT.
pub(super) async fn put(ask: &Ask) -> Result<Response> {
    let src = ask.src();
    match ask.op.as_str() {
        "CREATE" => redirect::create(ask).await,
        "MKDIRS" => {
            let unmasked = ask.params.mode("unmaskedpermission")?;
            let masked = ask.params.mode("permission")?.unwrap_or(FOLDER_MODE);
            let request = MkdirsRequestProto {
                src,
                masked: FsPermissionProto { perm: masked },
                create_parent: true,
                unmasked: unmasked.map(|perm| FsPermissionProto { perm }),
            };
            let reply: MkdirsResponseProto = ask.call("mkdirs", request).await?;
            Ok(boolean(reply.result))
        }
        "RENAME" => rename(ask).await,
        "SETREPLICATION" => {
            let replication = ask.params.short("replication", 1)?;
            let replication = match replication {
                Some(asked) => asked.unsigned_abs().into(),
                None => ask.node().config.replication,
            };
            let request = SetReplicationRequestProto { src, replication };
            let reply: SetReplicationResponseProto = ask.call("setReplication", request).await?;
            Ok(boolean(reply.result))
        }
        "SETOWNER" => {
            let name = |param: &str| ask.params.text(param).map(str::to_owned);
            let request =
                SetOwnerRequestProto { src, username: name("owner"), groupname: name("group") };
            if request.username.is_none() && request.groupname.is_none() {
                return Err(Exception::illegal("Both owner and group are empty."));
            }
            ask.tell::<SetOwnerResponseProto>("setOwner", request).await
        }
        "SETPERMISSION" => {
            let perm = ask.params.mode("permission")?.unwrap_or(FOLDER_MODE);
            let request = SetPermissionRequestProto { src, permission: FsPermissionProto { perm } };
            ask.tell::<SetPermissionResponseProto>("setPermission", request).await
        }
        "SETTIMES" => {
            // -1, as HDFS has it, leaves a time as it is.
            let time = |name: &str| Ok::<_, Exception>(ask.params.long(name, -1)?.unwrap_or(-1));
            let request = SetTimesRequestProto {
                src,
                mtime: time("modificationtime")?.cast_unsigned(),
                atime: time("accesstime")?.cast_unsigned(),
            };
            ask.tell::<SetTimesResponseProto>("setTimes", request).await
        }
        "CREATESYMLINK" => {
            let request = CreateSymlinkRequestProto {
                target: ask.path_param("destination")?,
                link: src,
                dir_perm: FsPermissionProto { perm: FOLDER_MODE },
                create_parent: ask.params.boolean("createparent", false)?,
            };
            ask.tell::<CreateSymlinkResponseProto>("createSymlink", request).await
        }
        "RENEWDELEGATIONTOKEN" | "CANCELDELEGATIONTOKEN" => {
            Err(Exception::unsupported(format!("{}: no delegation token is ever given", ask.op)))
        }
        _ => put_attribute(ask).await,
    }
}

async fn rename(ask: &Ask) -> Result<Response> {
    let (src, dst) = (ask.src(), ask.path_param("destination")?);
    let Some(options) = ask.params.text("renameoptions") else {
        let reply: RenameResponseProto =
            ask.call("rename", RenameRequestProto { src, dst }).await?;
        return Ok(boolean(reply.result));
    };
    let mut request =
        Rename2RequestProto { src, dst, overwrite_dest: false, move_to_trash: Some(false) };
    for option in options.split(',') {
        match option.to_uppercase().as_str() {
            "NONE" => {}
            "OVERWRITE" => request.overwrite_dest = true,
            "TO_TRASH" => request.move_to_trash = Some(true),
            other => {
                return Err(Exception::parameter(
                    "renameoptions",
                    format_args!("No enum constant org.apache.hadoop.fs.Options.Rename.{other}"),
                ));
            }
        }
    }
    ask.tell::<Rename2ResponseProto>("rename2", request).await
}

/// ACLs, extended attributes, policies.
async fn put_attribute(ask: &Ask) -> Result<Response> {
    let src = ask.src();
    let spec = |permissions| attributes::acl_spec(ask.params.required("aclspec")?, permissions);
    match ask.op.as_str() {
        "MODIFYACLENTRIES" => {
            let request = ModifyAclEntriesRequestProto { src, acl_spec: spec(Permissions::Told)? };
            ask.tell::<ModifyAclEntriesResponseProto>("modifyAclEntries", request).await
        }
        "REMOVEACLENTRIES" => {
            let acl_spec = spec(Permissions::Left)?;
            let request = RemoveAclEntriesRequestProto { src, acl_spec };
            ask.tell::<RemoveAclEntriesResponseProto>("removeAclEntries", request).await
        }
        "REMOVEDEFAULTACL" => {
            let request = RemoveDefaultAclRequestProto { src };
            ask.tell::<RemoveDefaultAclResponseProto>("removeDefaultAcl", request).await
        }
        "REMOVEACL" => {
            let request = RemoveAclRequestProto { src };
            ask.tell::<RemoveAclResponseProto>("removeAcl", request).await
        }
        "SETACL" => {
            let request = SetAclRequestProto { src, acl_spec: spec(Permissions::Told)? };
            ask.tell::<SetAclResponseProto>("setAcl", request).await
        }
        "SETXATTR" => attributes::set_xattr(ask).await,
        "REMOVEXATTR" => attributes::remove_xattr(ask).await,
        "SETSTORAGEPOLICY" => {
            let policy_name = ask.params.required("storagepolicy")?.to_owned();
            let request = SetStoragePolicyRequestProto { src, policy_name };
            ask.tell::<SetStoragePolicyResponseProto>("setStoragePolicy", request).await
        }
        "SATISFYSTORAGEPOLICY" => {
            let request = SatisfyStoragePolicyRequestProto { src };
            ask.tell::<SatisfyStoragePolicyResponseProto>("satisfyStoragePolicy", request).await
        }
        _ => put_coding(ask).await,
    }
}

/// Erasure coding.
async fn put_coding(ask: &Ask) -> Result<Response> {
    let policy = || Ok::<_, Exception>(ask.params.required("ecpolicy")?.to_owned());
    match ask.op.as_str() {
        "ENABLEECPOLICY" => {
            let request = EnableErasureCodingPolicyRequestProto { ec_policy_name: policy()? };
            let method = "enableErasureCodingPolicy";
            ask.tell::<EnableErasureCodingPolicyResponseProto>(method, request).await
        }
        "DISABLEECPOLICY" => {
            let request = DisableErasureCodingPolicyRequestProto { ec_policy_name: policy()? };
            let method = "disableErasureCodingPolicy";
            ask.tell::<DisableErasureCodingPolicyResponseProto>(method, request).await
        }
        "SETECPOLICY" => {
            let ec_policy_name = Some(policy()?);
            let request = SetErasureCodingPolicyRequestProto { src: ask.src(), ec_policy_name };
            ask.tell::<SetErasureCodingPolicyResponseProto>("setErasureCodingPolicy", request).await
        }
        _ => put_limit(ask).await,
    }
}

/// Quotas and snapshots.
async fn put_limit(ask: &Ask) -> Result<Response> {
    let path = ask.src();
    let quota =
        |name: &str| Ok::<_, Exception>(ask.params.long(name, -1)?.unwrap_or(QUOTA_DONT_SET));
    match ask.op.as_str() {
        "SETQUOTA" => {
            let request = SetQuotaRequestProto {
                path,
                namespace_quota: quota("namespacequota")?.cast_unsigned(),
                storagespace_quota: quota("storagespacequota")?.cast_unsigned(),
                storage_type: None,
            };
            ask.tell::<SetQuotaResponseProto>("setQuota", request).await
        }
        "SETQUOTABYSTORAGETYPE" => {
            let name = ask.params.required("storagetype")?.to_uppercase();
            let kind = StorageTypeProto::from_str_name(&name).ok_or_else(|| {
                Exception::parameter(
                    "storagetype",
                    format_args!("No enum constant org.apache.hadoop.fs.StorageType.{name}"),
                )
            })?;
            let request = SetQuotaRequestProto {
                path,
                namespace_quota: QUOTA_DONT_SET.cast_unsigned(),
                storagespace_quota: quota("storagespacequota")?.cast_unsigned(),
                storage_type: Some(kind as i32),
            };
            ask.tell::<SetQuotaResponseProto>("setQuota", request).await
        }
        "ALLOWSNAPSHOT" => {
            let request = AllowSnapshotRequestProto { snapshot_root: path };
            ask.tell::<AllowSnapshotResponseProto>("allowSnapshot", request).await
        }
        "DISALLOWSNAPSHOT" => {
            let request = DisallowSnapshotRequestProto { snapshot_root: path };
            ask.tell::<DisallowSnapshotResponseProto>("disallowSnapshot", request).await
        }
        "CREATESNAPSHOT" => {
            let snapshot_name = ask.params.text("snapshotname").map(str::to_owned);
            let request = CreateSnapshotRequestProto { snapshot_root: path, snapshot_name };
            let reply: CreateSnapshotResponseProto = ask.call("createSnapshot", request).await?;
            Ok(answer::json(&json!({"Path": reply.snapshot_path})))
        }
        "RENAMESNAPSHOT" => {
            let request = RenameSnapshotRequestProto {
                snapshot_root: path,
                snapshot_old_name: ask.params.required("oldsnapshotname")?.to_owned(),
                snapshot_new_name: ask.params.required("snapshotname")?.to_owned(),
            };
            ask.tell::<RenameSnapshotResponseProto>("renameSnapshot", request).await
        }
        op => Err(no_such_op("Put", op)),
    }
}

/// Answers a POST.
pub(super) async fn post(ask: &Ask) -> Result<Response> {
    let src = ask.src();
    match ask.op.as_str() {
        "APPEND" => redirect::append(ask).await,
        "CONCAT" => {
            let sources = ask.params.required("sources")?;
            let srcs = sources.split(',').filter(|path| !path.is_empty()).map(str::to_owned);
            let request = ConcatRequestProto { trg: src, srcs: srcs.collect() };
            ask.tell::<ConcatResponseProto>("concat", request).await
        }
        "TRUNCATE" => {
            let length = ask.params.long("newlength", 0)?;
            let length = length.ok_or_else(|| {
                Exception::illegal("newLength parameter is not specified: where to truncate to")
            })?;
            let request = TruncateRequestProto {
                src,
                new_length: length.unsigned_abs(),
                client_name: format!("webhdfs-{}", uuid::Uuid::new_v4()),
            };
            let reply: TruncateResponseProto = ask.call("truncate", request).await?;
            Ok(boolean(reply.result))
        }
        "UNSETSTORAGEPOLICY" => {
            let request = UnsetStoragePolicyRequestProto { src };
            ask.tell::<UnsetStoragePolicyResponseProto>("unsetStoragePolicy", request).await
        }
        "UNSETECPOLICY" => {
            let request = UnsetErasureCodingPolicyRequestProto { src };
            let method = "unsetErasureCodingPolicy";
            ask.tell::<UnsetErasureCodingPolicyResponseProto>(method, request).await
        }
        op => Err(no_such_op("Post", op)),
    }
}

/// Answers a DELETE.
pub(super) async fn delete(ask: &Ask) -> Result<Response> {
    let src = ask.src();
    match ask.op.as_str() {
        "DELETE" => {
            let recursive = ask.params.boolean("recursive", false)?;
            let request = DeleteRequestProto { src, recursive };
            let reply: DeleteResponseProto = ask.call("delete", request).await?;
            Ok(boolean(reply.result))
        }
        "DELETESNAPSHOT" => {
            let snapshot_name = ask.params.required("snapshotname")?.to_owned();
            let request = DeleteSnapshotRequestProto { snapshot_root: src, snapshot_name };
            ask.tell::<DeleteSnapshotResponseProto>("deleteSnapshot", request).await
        }
        op => Err(no_such_op("Delete", op)),
    }
}

fn boolean(value: bool) -> Response {
    answer::json(&json!({"boolean": value}))
}
