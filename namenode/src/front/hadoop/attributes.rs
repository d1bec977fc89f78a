//! ClientNamenodeProtocol: extended attributes, access control lists, storage policies, concat.
//!
//! The numbers of spaces, scopes, kinds and permissions are HDFS's here as there. Entries and attributes of a message
//! are checked one by one: what is no known number is refused, not guessed.

use ipc::exceptions::ILLEGAL_ARGUMENT;
use proto::hadoop::hdfs::acl_entry_proto::{AclEntryScopeProto, AclEntryTypeProto};
use proto::hadoop::hdfs::*;
use proto::{Code, Error, Result};

use super::Asked;
use super::errors::{Answered, Failure};
use crate::front::attributes::raw_path;
use crate::op::attribute::{AclEntry, AclKind, AclScope, XAttr, XAttrSpace};
use crate::op::quota::StorageType;
use crate::state::{STORAGE_POLICIES, StoragePolicy};

/// A path as the functions of the node take it: with `/.reserved/raw` before it, or with its inode looked up.
fn path_of(asked: &Asked, text: &str) -> Result<String> {
    match raw_path(text) {
        Ok((_, true)) => Ok(text.to_owned()),
        _ => Ok(asked.path(text)?.to_string()),
    }
}

fn no_xattr() -> Error {
    Error::new(Code::InvalidArgument, "the request has no extended attribute of a known space")
}

fn space_of(xattr: &XAttrProto) -> Result<XAttrSpace> {
    u8::try_from(xattr.namespace).ok().and_then(XAttrSpace::from_number).ok_or_else(no_xattr)
}

pub async fn set_xattr(
    asked: Asked,
    request: SetXAttrRequestProto,
) -> Answered<SetXAttrResponseProto> {
    let sent = request.x_attr.as_ref().ok_or_else(no_xattr)?;
    let xattr = XAttr {
        space: space_of(sent)?,
        name: sent.name.clone(),
        value: sent.value.as_ref().map(|value| value.to_vec()).unwrap_or_default(),
    };
    let path = path_of(&asked, &request.src)?;
    asked.node.set_xattr(asked.caller(), &path, xattr, request.flag()).await?;
    Ok(SetXAttrResponseProto {})
}

pub async fn remove_xattr(
    asked: Asked,
    request: RemoveXAttrRequestProto,
) -> Answered<RemoveXAttrResponseProto> {
    let sent = request.x_attr.as_ref().ok_or_else(no_xattr)?;
    let path = path_of(&asked, &request.src)?;
    asked.node.remove_xattr(asked.caller(), &path, space_of(sent)?, &sent.name).await?;
    Ok(RemoveXAttrResponseProto {})
}

pub fn get_xattrs(
    asked: &Asked,
    request: GetXAttrsRequestProto,
) -> Answered<GetXAttrsResponseProto> {
    let name = |sent: &XAttrProto| Ok((space_of(sent)?, sent.name.clone()));
    let names = request.x_attrs.iter().map(name).collect::<Result<Vec<_>>>()?;
    let path = path_of(asked, &request.src)?;
    let found = asked.node.get_xattrs(asked.caller(), &path, &names)?;
    let shown = |xattr: XAttr| XAttrProto {
        namespace: i32::from(xattr.space as u8),
        name: xattr.name,
        value: Some(xattr.value.into()),
    };
    Ok(GetXAttrsResponseProto { x_attrs: found.into_iter().map(shown).collect() })
}

pub fn list_xattrs(
    asked: &Asked,
    request: ListXAttrsRequestProto,
) -> Answered<ListXAttrsResponseProto> {
    let path = path_of(asked, &request.src)?;
    let found = asked.node.list_xattrs(asked.caller(), &path)?;
    let shown = |(space, name): (XAttrSpace, String)| XAttrProto {
        namespace: i32::from(space as u8),
        name,
        value: None,
    };
    Ok(ListXAttrsResponseProto { x_attrs: found.into_iter().map(shown).collect() })
}

fn entries(sent: &[AclEntryProto]) -> Result<Vec<AclEntry>> {
    sent.iter().map(entry).collect()
}

fn entry(sent: &AclEntryProto) -> Result<AclEntry> {
    let unknown = || Error::new(Code::InvalidArgument, format!("no entry of an ACL: {sent:?}"));
    let kind = u8::try_from(sent.r#type).ok().and_then(AclKind::from_number);
    let permission = u8::try_from(sent.permissions).ok().filter(|&bits| bits <= 7);
    let scope = match AclEntryScopeProto::try_from(sent.scope).map_err(|_| unknown())? {
        AclEntryScopeProto::Access => AclScope::Access,
        AclEntryScopeProto::Default => AclScope::Default,
    };
    Ok(AclEntry {
        scope,
        kind: kind.ok_or_else(unknown)?,
        name: sent.name().to_owned(),
        permission: permission.ok_or_else(unknown)?,
    })
}

fn shown(entry: AclEntry) -> AclEntryProto {
    let kind = match entry.kind {
        AclKind::User => AclEntryTypeProto::User,
        AclKind::Group => AclEntryTypeProto::Group,
        AclKind::Mask => AclEntryTypeProto::Mask,
        AclKind::Other => AclEntryTypeProto::Other,
    };
    AclEntryProto {
        r#type: kind as i32,
        scope: i32::from(entry.scope as u8),
        permissions: i32::from(entry.permission),
        name: (!entry.name.is_empty()).then_some(entry.name),
    }
}

pub async fn modify_acl_entries(
    asked: Asked,
    request: ModifyAclEntriesRequestProto,
) -> Answered<ModifyAclEntriesResponseProto> {
    let path = path_of(&asked, &request.src)?;
    let entries = entries(&request.acl_spec)?;
    asked.node.modify_acl_entries(asked.caller(), &path, entries).await?;
    Ok(ModifyAclEntriesResponseProto {})
}

pub async fn remove_acl_entries(
    asked: Asked,
    request: RemoveAclEntriesRequestProto,
) -> Answered<RemoveAclEntriesResponseProto> {
    let path = path_of(&asked, &request.src)?;
    let entries = entries(&request.acl_spec)?;
    asked.node.remove_acl_entries(asked.caller(), &path, entries).await?;
    Ok(RemoveAclEntriesResponseProto {})
}

pub async fn remove_default_acl(
    asked: Asked,
    request: RemoveDefaultAclRequestProto,
) -> Answered<RemoveDefaultAclResponseProto> {
    let path = path_of(&asked, &request.src)?;
    asked.node.remove_default_acl(asked.caller(), &path).await?;
    Ok(RemoveDefaultAclResponseProto {})
}

pub async fn remove_acl(
    asked: Asked,
    request: RemoveAclRequestProto,
) -> Answered<RemoveAclResponseProto> {
    let path = path_of(&asked, &request.src)?;
    asked.node.remove_acl(asked.caller(), &path).await?;
    Ok(RemoveAclResponseProto {})
}

pub async fn set_acl(asked: Asked, request: SetAclRequestProto) -> Answered<SetAclResponseProto> {
    let path = path_of(&asked, &request.src)?;
    let entries = entries(&request.acl_spec)?;
    asked.node.set_acl(asked.caller(), &path, entries).await?;
    Ok(SetAclResponseProto {})
}

pub fn get_acl_status(
    asked: &Asked,
    request: GetAclStatusRequestProto,
) -> Answered<GetAclStatusResponseProto> {
    let path = path_of(asked, &request.src)?;
    let status = asked.node.get_acl_status(asked.caller(), &path)?;
    Ok(GetAclStatusResponseProto {
        result: AclStatusProto {
            owner: status.owner,
            group: status.group,
            sticky: status.mode & 0o1000 != 0,
            entries: status.entries.into_iter().map(shown).collect(),
            permission: Some(FsPermissionProto { perm: status.mode & 0o1777 }),
        },
    })
}

pub async fn set_storage_policy(
    asked: Asked,
    request: SetStoragePolicyRequestProto,
) -> Answered<SetStoragePolicyResponseProto> {
    let path = path_of(&asked, &request.src)?;
    asked.node.set_storage_policy(asked.caller(), &path, &request.policy_name).await?;
    Ok(SetStoragePolicyResponseProto {})
}

pub async fn unset_storage_policy(
    asked: Asked,
    request: UnsetStoragePolicyRequestProto,
) -> Answered<UnsetStoragePolicyResponseProto> {
    let path = path_of(&asked, &request.src)?;
    asked.node.unset_storage_policy(asked.caller(), &path).await?;
    Ok(UnsetStoragePolicyResponseProto {})
}

pub fn get_storage_policy(
    asked: &Asked,
    request: GetStoragePolicyRequestProto,
) -> Answered<GetStoragePolicyResponseProto> {
    let path = path_of(asked, &request.path)?;
    let policy = asked.node.get_storage_policy(asked.caller(), &path)?;
    Ok(GetStoragePolicyResponseProto { storage_policy: policy_message(policy) })
}

pub fn get_storage_policies(
    asked: &Asked,
    _: GetStoragePoliciesRequestProto,
) -> Answered<GetStoragePoliciesResponseProto> {
    asked.enter()?;
    Ok(GetStoragePoliciesResponseProto {
        policies: STORAGE_POLICIES.iter().map(policy_message).collect(),
    })
}

fn policy_message(policy: &StoragePolicy) -> BlockStoragePolicyProto {
    let types = |types: &[StorageType]| StorageTypesProto {
        storage_types: types.iter().map(|&kind| i32::from(kind as u8)).collect(),
    };
    BlockStoragePolicyProto {
        policy_id: u32::from(policy.id),
        name: policy.name.to_owned(),
        creation_policy: types(policy.types),
        creation_fallback_policy: Some(types(policy.creation_fallbacks)),
        replication_fallback_policy: Some(types(policy.replication_fallbacks)),
    }
}

pub async fn concat(asked: Asked, request: ConcatRequestProto) -> Answered<ConcatResponseProto> {
    let target = path_of(&asked, &request.trg)?;
    let sources = request.srcs.iter().map(|source| path_of(&asked, source));
    let sources = sources.collect::<Result<Vec<_>>>()?;
    if sources.is_empty() {
        return Err(Failure::java(ILLEGAL_ARGUMENT, "No sources given"));
    }
    asked.node.concat(asked.caller(), &target, &sources).await?;
    Ok(ConcatResponseProto {})
}
