//! What hangs on files and folders: extended attributes, access control lists, storage policies; and concat.
//!
//! For front ends of HDFS's protocols: gRPC does not have these. A path under `/.reserved/raw` names what the rest of
//! it names, and shows extended attributes of the raw space; superusers only.

use proto::{Code, Error, FsPath, Result, granary};

use super::access::{Method, check_principal};
use super::node::{Node, path};
use crate::op::Op;
use crate::op::attribute::{AclEntry, AclStatus, AttributeOp, XAttr, XAttrMode, XAttrSpace};
use crate::state::StoragePolicy;

/// Who calls: see [`Node::enter`].
type Caller = Option<granary::Caller>;

const RAW: &str = "/.reserved/raw";

/// The path without `/.reserved/raw`, and whether that stood before it.
pub fn raw_path(text: &str) -> Result<(FsPath, bool)> {
    match text.strip_prefix(RAW) {
        Some("") => Ok((FsPath::root(), true)),
        Some(rest) if rest.starts_with('/') => Ok((path(rest)?, true)),
        _ => Ok((path(text)?, false)),
    }
}

impl Node {
    /// Sets an extended attribute. `flags` is a sum of HDFS's: 1 create, 2 replace.
    pub async fn set_xattr(&self, who: Caller, text: &str, xattr: XAttr, flags: u32) -> Result<()> {
        let Some(mode) = XAttrMode::from_flags(flags) else {
            return Err(Error::new(Code::InvalidArgument, "A flag must be specified."));
        };
        let (path, raw) = raw_path(text)?;
        let op = AttributeOp::SetXAttr { path, raw, xattr, mode };
        self.propose_attribute(Method::SetXAttr, who, op).await
    }

    /// Removes an extended attribute.
    pub async fn remove_xattr(
        &self,
        who: Caller,
        text: &str,
        space: XAttrSpace,
        name: &str,
    ) -> Result<()> {
        let (path, raw) = raw_path(text)?;
        let op = AttributeOp::RemoveXAttr { path, raw, space, name: name.to_owned() };
        self.propose_attribute(Method::RemoveXAttr, who, op).await
    }

    /// Extended attributes with their values: those of `names`, or all that the caller may see if that is empty.
    pub fn get_xattrs(
        &self,
        who: Caller,
        text: &str,
        names: &[(XAttrSpace, String)],
    ) -> Result<Vec<XAttr>> {
        let (caller, _) = self.enter(Method::GetXAttrs, who)?;
        let (path, raw) = raw_path(text)?;
        self.log.read(|state| state.xattrs(&caller, &path, raw, names))
    }

    /// Names of the extended attributes that the caller may see.
    pub fn list_xattrs(&self, who: Caller, text: &str) -> Result<Vec<(XAttrSpace, String)>> {
        let (caller, _) = self.enter(Method::ListXAttrs, who)?;
        let (path, raw) = raw_path(text)?;
        self.log.read(|state| state.xattr_names(&caller, &path, raw))
    }

    /// Adds and replaces entries of an access control list.
    pub async fn modify_acl_entries(
        &self,
        who: Caller,
        text: &str,
        entries: Vec<AclEntry>,
    ) -> Result<()> {
        check_names(&entries)?;
        let op = AttributeOp::ModifyAclEntries { path: path(text)?, entries };
        self.propose_attribute(Method::ModifyAclEntries, who, op).await
    }

    /// Removes entries of an access control list; their permissions do not matter.
    pub async fn remove_acl_entries(
        &self,
        who: Caller,
        text: &str,
        entries: Vec<AclEntry>,
    ) -> Result<()> {
        check_names(&entries)?;
        let op = AttributeOp::RemoveAclEntries { path: path(text)?, entries };
        self.propose_attribute(Method::RemoveAclEntries, who, op).await
    }

    /// Removes the default entries.
    pub async fn remove_default_acl(&self, who: Caller, text: &str) -> Result<()> {
        let op = AttributeOp::RemoveDefaultAcl { path: path(text)? };
        self.propose_attribute(Method::RemoveDefaultAcl, who, op).await
    }

    /// Removes all of a list but what the mode says.
    pub async fn remove_acl(&self, who: Caller, text: &str) -> Result<()> {
        let op = AttributeOp::RemoveAcl { path: path(text)? };
        self.propose_attribute(Method::RemoveAcl, who, op).await
    }

    /// Replaces each scope of a list that `entries` names.
    pub async fn set_acl(&self, who: Caller, text: &str, entries: Vec<AclEntry>) -> Result<()> {
        check_names(&entries)?;
        let op = AttributeOp::SetAcl { path: path(text)?, entries };
        self.propose_attribute(Method::SetAcl, who, op).await
    }

    /// The list of a path.
    pub fn get_acl_status(&self, who: Caller, text: &str) -> Result<AclStatus> {
        let (caller, _) = self.enter(Method::GetAclStatus, who)?;
        let path = path(text)?;
        self.log.read(|state| state.acl_status(&caller, &path))
    }

    /// Sets the storage policy of this name.
    pub async fn set_storage_policy(&self, who: Caller, text: &str, name: &str) -> Result<()> {
        let Some(policy) = StoragePolicy::named(name) else {
            let message = format!("Cannot find a block policy with the name {name}");
            return Err(Error::new(Code::InvalidArgument, message));
        };
        let op = AttributeOp::SetStoragePolicy { path: path(text)?, policy: policy.id };
        self.propose_attribute(Method::SetStoragePolicy, who, op).await
    }

    /// Removes the path's own storage policy: it inherits again.
    pub async fn unset_storage_policy(&self, who: Caller, text: &str) -> Result<()> {
        let op = AttributeOp::SetStoragePolicy { path: path(text)?, policy: 0 };
        self.propose_attribute(Method::UnsetStoragePolicy, who, op).await
    }

    /// The storage policy that holds for a path. All of them: [`crate::state::STORAGE_POLICIES`].
    pub fn get_storage_policy(&self, who: Caller, text: &str) -> Result<&'static StoragePolicy> {
        let (caller, _) = self.enter(Method::GetStoragePolicy, who)?;
        let path = path(text)?;
        self.log.read(|state| state.storage_policy(&caller, &path))
    }

    /// Moves the blocks of the sources behind those of the target.
    pub async fn concat(&self, who: Caller, target: &str, sources: &[String]) -> Result<()> {
        let raw = |text: &str| text == RAW || text.starts_with("/.reserved/raw/");
        let all = std::iter::once(target).chain(sources.iter().map(String::as_str));
        if let Some(text) = all.into_iter().find(|text| raw(text)) {
            let message =
                format!("Concat operation doesn't support /.reserved relative path : {text}");
            return Err(Error::new(Code::InvalidArgument, message));
        }
        let call = self.enter(Method::Concat, who)?;
        let target = path(target)?;
        let sources = sources.iter().map(|source| path(source)).collect::<Result<Vec<_>>>()?;
        self.propose(call, Op::Concat { target, sources }).await.map(|_| ())
    }

    async fn propose_attribute(&self, method: Method, who: Caller, op: AttributeOp) -> Result<()> {
        let call = self.enter(method, who)?;
        self.propose(call, Op::Attribute(op)).await.map(|_| ())
    }
}

/// Users and groups that entries name.
fn check_names(entries: &[AclEntry]) -> Result<()> {
    let named = entries.iter().filter(|entry| !entry.name.is_empty());
    named.into_iter().try_for_each(|entry| check_principal("a name of an ACL", &entry.name))
}
