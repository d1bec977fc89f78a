//! Who may do what: POSIX owner, group and other, as HDFS applies them.
//!
//! A superuser may do everything. Else the first class that fits decides: the owner's bits for the owner, the
//! group's for a member, the rest for others. Every folder on the way to a path needs `x`. In a folder with the
//! sticky bit only the owner of an entry, or of the folder, may remove or rename it.

use proto::{Code, Error, FsPath, Result};

use super::State;
use super::interned::Permission;
use crate::op::Caller;

/// Read.
pub(crate) const READ: u16 = 4;
/// Write.
pub(crate) const WRITE: u16 = 2;
/// Go through a folder.
pub(crate) const EXECUTE: u16 = 1;
const STICKY: u16 = 0o1000;

impl State {
    pub(crate) fn permission(&self, slot: u32) -> Permission {
        *self.interned.permissions.get(self.inodes.get(slot).permission)
    }

    pub(crate) fn owns(&self, caller: &Caller, slot: u32) -> bool {
        *caller.user == **self.interned.names.get(self.permission(slot).owner)
    }

    /// Whether the caller has all of the `wanted` bits on the inode.
    pub(crate) fn may(&self, caller: &Caller, slot: u32, wanted: u16) -> bool {
        if caller.superuser {
            return true;
        }
        let permission = self.permission(slot);
        let group = self.interned.names.get(permission.group);
        let bits = if self.owns(caller, slot) {
            permission.mode >> 6
        } else if caller.groups.iter().any(|mine| **mine == **group) {
            permission.mode >> 3
        } else {
            permission.mode
        };
        bits & wanted == wanted
    }

    /// [`State::may`] as an error that tells what was missing on what.
    pub(crate) fn demand(
        &self,
        caller: &Caller,
        slot: u32,
        wanted: u16,
        path: &FsPath,
    ) -> Result<()> {
        if self.may(caller, slot, wanted) {
            return Ok(());
        }
        let kinds = [(READ, "read"), (WRITE, "write"), (EXECUTE, "execute")];
        let missing: Vec<_> =
            kinds.iter().filter(|(bit, _)| wanted & bit != 0).map(|(_, kind)| *kind).collect();
        let permission = self.permission(slot);
        Err(denied(format!(
            "user {} has no {} permission on {} of {path} (owner {}, group {}, mode {:o})",
            caller.user,
            missing.join("+"),
            if self.inodes.get(slot).is_folder() { "a folder" } else { "a file" },
            self.interned.names.get(permission.owner),
            self.interned.names.get(permission.group),
            permission.mode
        )))
    }

    /// The caller must own the inode or be a superuser.
    pub(crate) fn demand_owner(&self, caller: &Caller, slot: u32, path: &FsPath) -> Result<()> {
        if caller.superuser || self.owns(caller, slot) {
            return Ok(());
        }
        Err(denied(format!("user {} does not own {path}", caller.user)))
    }

    /// The caller must be allowed to take the entry `child` out of `parent`.
    pub(crate) fn demand_removal(
        &self,
        caller: &Caller,
        parent: u32,
        child: u32,
        path: &FsPath,
    ) -> Result<()> {
        self.demand(caller, parent, WRITE, path)?;
        let sticky = self.permission(parent).mode & STICKY != 0;
        if !sticky || caller.superuser || self.owns(caller, parent) || self.owns(caller, child) {
            return Ok(());
        }
        Err(denied(format!("user {} owns neither {path} nor its sticky folder", caller.user)))
    }
}

pub(crate) fn denied(message: String) -> Error {
    Error::new(Code::PermissionDenied, message)
}
