//! The verbs on access control lists, and what new files and folders inherit.

use std::sync::Arc;

use proto::{Code, Error, FsPath, Result};

use super::acl::{self, Acl, Grant};
use super::missing;
use crate::op::Caller;
use crate::op::attribute::{AclEntry, AclKind, AclScope, AclStatus, AttributeOp};
use crate::state::State;
use crate::state::interned::Permission;
use crate::state::slab::NONE;

impl State {
    /// The list of a path, as readers get it. The path's folders must grant `x`.
    pub fn acl_status(&self, caller: &Caller, path: &FsPath) -> Result<AclStatus> {
        let seen = self.existing_seen(caller, path);
        let slot = seen.map_err(|error| missing(error, "cannot find", path))?.slot;
        let permission = self.permission(slot);
        let mut entries = Vec::new();
        if let Some(acl) = self.acl_of(slot) {
            entries.extend(acl.access.iter().map(|grant| self.entry(AclScope::Access, grant)));
            entries.extend(acl.defaults.iter().map(|grant| self.entry(AclScope::Default, grant)));
        }
        Ok(AclStatus {
            owner: self.interned.names.get(permission.owner).to_string(),
            group: self.interned.names.get(permission.group).to_string(),
            mode: u32::from(permission.mode),
            entries,
        })
    }

    fn entry(&self, scope: AclScope, grant: &Grant) -> AclEntry {
        let name = match grant.name {
            NONE => String::new(),
            name => self.interned.names.get(name).to_string(),
        };
        AclEntry { scope, kind: grant.kind, name, permission: grant.permission }
    }

    /// The whole list of an inode: what is stored and what the mode says, in order.
    fn whole_acl(&self, slot: u32) -> Vec<AclEntry> {
        let mode = self.permission(slot).mode;
        let says = |kind, shift: u16| AclEntry {
            scope: AclScope::Access,
            kind,
            name: String::new(),
            permission: (mode >> shift & 7) as u8,
        };
        let acl = self.acl_of(slot);
        let mut list = vec![says(AclKind::User, 6)];
        match acl.filter(|acl| !acl.access.is_empty()) {
            Some(acl) => {
                list.extend(acl.access.iter().map(|grant| self.entry(AclScope::Access, grant)));
                list.push(says(AclKind::Mask, 3));
            }
            None => list.push(says(AclKind::Group, 3)),
        }
        list.push(says(AclKind::Other, 0));
        let defaults = acl.map_or(&[][..], |acl| &acl.defaults);
        list.extend(defaults.iter().map(|grant| self.entry(AclScope::Default, grant)));
        list
    }

    /// The inode, and the whole list that it gets.
    pub(super) fn plan_acl(
        &self,
        caller: &Caller,
        op: &AttributeOp,
    ) -> Result<(u32, Vec<AclEntry>)> {
        let path = op.path();
        let found = self.existing(caller, path);
        let (slot, _) = found.map_err(|error| missing(error, "cannot find", path))?;
        self.demand_owner(caller, slot, path)?;
        let list = self.whole_acl(slot);
        let changed = match op {
            AttributeOp::ModifyAclEntries { entries, .. } => acl::modify(&list, entries),
            AttributeOp::RemoveAclEntries { entries, .. } => acl::remove(&list, entries),
            AttributeOp::RemoveDefaultAcl { .. } => acl::without_defaults(&list),
            AttributeOp::SetAcl { entries, .. } if !entries.is_empty() => {
                acl::replace(&list, entries)
            }
            AttributeOp::SetAcl { .. } | AttributeOp::RemoveAcl { .. } => Ok(plain(&list)),
            _ => unreachable!("State::plan_attribute sends only these here"),
        };
        let names_path =
            |error: Error| Error::new(error.code, format!("{} Path: {path}", error.message));
        let changed = changed.map_err(names_path)?;
        let has_defaults = changed.iter().any(|entry| entry.scope == AclScope::Default);
        if has_defaults && !self.inodes.get(slot).is_folder() {
            let message =
                format!("Invalid ACL: only directories may have a default ACL. Path: {path}");
            return Err(Error::new(Code::InvalidArgument, message));
        }
        Ok((slot, changed))
    }

    /// Stores a whole list: some of it in the mode, the rest beside it.
    pub(super) fn set_acl(&mut self, slot: u32, list: &[AclEntry]) {
        let mut of_scope = |scope| -> Vec<Grant> {
            let entries = list.iter().filter(|entry| entry.scope == scope);
            let stored = entries.map(|entry| Grant {
                kind: entry.kind,
                permission: entry.permission,
                name: match &*entry.name {
                    "" => NONE,
                    name => self.interned.name(name),
                },
            });
            stored.collect()
        };
        let (access, defaults) = (of_scope(AclScope::Access), of_scope(AclScope::Default));
        let (bits, access) = acl::split_access(&access);
        let old = self.permission(slot);
        let permission = Permission { mode: old.mode & 0o7000 | bits, ..old };
        if permission != old {
            self.inodes.get_mut(slot).permission = self.interned.permissions.number(permission);
        }
        let acl = Acl { access, defaults: defaults.into() };
        let says_more = !acl.access.is_empty() || !acl.defaults.is_empty();
        self.change_attached(slot, |attached| {
            attached.acl = says_more.then(|| Arc::new(acl));
        });
    }

    /// The mode and list of a new entry of a folder. Where the folder has defaults, they decide, limited by the mode
    /// before the umask; else the mode after it.
    pub(crate) fn inherited(
        &self,
        parent: u32,
        mode: u16,
        unmasked: Option<u16>,
        folder: bool,
    ) -> (u16, Option<Acl>) {
        match self.acl_of(parent).filter(|acl| !acl.defaults.is_empty()) {
            Some(acl) => acl::inherit(&acl.defaults, unmasked.unwrap_or(mode), folder),
            None => (mode, None),
        }
    }

    /// Hangs what is inherited on a new inode: a list, and for a file a storage policy that is copied.
    pub(crate) fn hand_down(&mut self, slot: u32, parent: u32, acl: Option<Acl>) {
        let policy = self.copied_policy(slot, parent);
        if acl.is_none() && policy == 0 {
            return;
        }
        self.change_attached(slot, |attached| {
            attached.acl = acl.map(Arc::new);
            attached.policy = policy;
        });
    }
}

/// A list without named entries, masks and defaults.
fn plain(list: &[AclEntry]) -> Vec<AclEntry> {
    let stays = |entry: &&AclEntry| {
        entry.scope == AclScope::Access && entry.kind != AclKind::Mask && entry.name.is_empty()
    };
    list.iter().filter(stays).cloned().collect()
}
