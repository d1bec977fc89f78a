//! Who may do what: POSIX owner, group and other, and access control lists, as HDFS applies them.
//!
//! A superuser may do everything. Else the first class that fits decides: the owner's bits for the owner; the entry of
//! a named user; the entries of the groups that the caller is in, any one of which may grant; the rest for others.
//! What entries grant is limited by the mask, which is in the mode's group bits where there is a list. Every folder on
//! the way to a path needs `x`. In a folder with the sticky bit only the owner of an entry, or of the folder, may
//! remove or rename it.
//!
//! The messages are worded as HDFS words them: operators know them, and scripts look for them.

use proto::{Code, Error, FsPath, Result};

use super::attributes::acl::Acl;
use super::interned::Permission;
use super::slab::NONE;
use super::tree::Walk;
use super::{ROOT, State};
use crate::op::Caller;
use crate::op::attribute::AclKind;

/// Read.
pub(crate) const READ: u16 = 4;
/// Write.
pub(crate) const WRITE: u16 = 2;
/// Go through a folder.
pub(crate) const EXECUTE: u16 = 1;
pub(crate) const STICKY: u16 = 0o1000;

/// HDFS's words for sums of the bits.
const ACCESS: [&str; 8] =
    ["NONE", "EXECUTE", "WRITE", "WRITE_EXECUTE", "READ", "READ_EXECUTE", "READ_WRITE", "ALL"];

fn grants(bits: u16, wanted: u16) -> bool {
    bits & wanted == wanted
}

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
        let mode = permission.mode;
        if self.owns(caller, slot) {
            return grants(mode >> 6, wanted);
        }
        let group = self.interned.names.get(permission.group);
        match self.acl_of(slot).filter(|acl| !acl.access.is_empty()) {
            Some(acl) => self.list_grants(caller, acl, group, mode, wanted),
            None if caller.groups.iter().any(|mine| **mine == **group) => grants(mode >> 3, wanted),
            None => grants(mode, wanted),
        }
    }

    /// What the entries of a list say about a caller who is not the owner.
    fn list_grants(&self, caller: &Caller, acl: &Acl, group: &str, mode: u16, wanted: u16) -> bool {
        let mut is_member = false;
        for entry in &acl.access {
            let limited = u16::from(entry.permission) & mode >> 3;
            let name = if entry.name == NONE { group } else { self.interned.names.get(entry.name) };
            if entry.kind == AclKind::User {
                if *name == *caller.user {
                    return grants(limited, wanted);
                }
            } else if caller.groups.iter().any(|mine| mine == name) {
                if grants(limited, wanted) {
                    return true;
                }
                is_member = true;
            }
        }
        !is_member && grants(mode, wanted)
    }

    /// The caller must be able to list it, if it is a folder.
    pub(crate) fn demand_listing(&self, caller: &Caller, slot: u32, path: &FsPath) -> Result<()> {
        if self.inodes.get(slot).is_folder() {
            self.demand(caller, slot, READ | EXECUTE, path)?;
        }
        Ok(())
    }

    /// [`State::may`] as an error that tells what was missing on what. `path` is what was asked for: the inode's own,
    /// or one below.
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
        Err(denied(format!(
            "Permission denied: user={}, access={}, inode={}",
            caller.user,
            ACCESS[usize::from(wanted & 7)],
            self.described(slot, path)
        )))
    }

    /// `"/d":owner:group:drwxr-xr-x`.
    fn described(&self, slot: u32, path: &FsPath) -> String {
        let permission = self.permission(slot);
        let inode = self.inodes.get(slot);
        let mut mode = String::from(if inode.is_folder() { "d" } else { "-" });
        for shift in [6, 3, 0] {
            for (bit, letter) in [(READ, 'r'), (WRITE, 'w'), (EXECUTE, 'x')] {
                mode.push(if permission.mode >> shift & bit == 0 { '-' } else { letter });
            }
        }
        if permission.mode & STICKY != 0 {
            let for_others = mode.pop();
            mode.push(if for_others == Some('x') { 't' } else { 'T' });
        }
        format!(
            "\"{}\":{}:{}:{mode}",
            self.way_to(slot, path),
            self.interned.names.get(permission.owner),
            self.interned.names.get(permission.group)
        )
    }

    /// The part of `path` that names the inode; all of it if the inode is not on the way.
    fn way_to<'p>(&self, slot: u32, path: &'p FsPath) -> &'p str {
        let (text, mut at, mut end) = (path.as_str(), ROOT, 0);
        for name in path.components() {
            if at == slot {
                break;
            }
            end += 1 + name.len();
            match self.nodes.find(self.inodes.get(at).body, name.as_bytes()) {
                Some(child) => at = child,
                None => return text,
            }
            if !self.inodes.get(at).is_folder() {
                break;
            }
        }
        match end {
            _ if at != slot => text,
            0 => "/",
            _ => &text[..end],
        }
    }

    /// The caller must own the inode or be a superuser.
    pub(crate) fn demand_owner(&self, caller: &Caller, slot: u32, path: &FsPath) -> Result<()> {
        if caller.superuser || self.owns(caller, slot) {
            return Ok(());
        }
        Err(denied(format!(
            "Permission denied. user={} is not the owner of inode={path}",
            caller.user
        )))
    }

    /// The caller must be allowed to take out the entry that a path names, or would name if it were there.
    pub(crate) fn demand_entry(&self, caller: &Caller, walk: &Walk, path: &FsPath) -> Result<()> {
        match walk.target {
            Some(ROOT) => Ok(()),
            Some(slot) => self.demand_removal(caller, walk.folder, slot, path),
            None if walk.missing == 1 => self.demand(caller, walk.folder, WRITE, path),
            None => Ok(()),
        }
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
        if self.is_guarded(caller, parent) && !self.owns(caller, child) {
            return Err(self.guarded(caller, parent, child, path));
        }
        Ok(())
    }

    /// Whether the folder's sticky bit keeps the caller from removing entries that are not his.
    pub(crate) fn is_guarded(&self, caller: &Caller, folder: u32) -> bool {
        let sticky = self.permission(folder).mode & STICKY != 0;
        sticky && !caller.superuser && !self.owns(caller, folder)
    }

    /// The error that a sticky folder guards an entry.
    pub(crate) fn guarded(&self, caller: &Caller, parent: u32, child: u32, path: &FsPath) -> Error {
        let parent_path = path.parent().unwrap_or_else(FsPath::root);
        denied(format!(
            "Permission denied by sticky bit: user={}, path={}, parent={}",
            caller.user,
            self.described(child, path),
            self.described(parent, &parent_path)
        ))
    }
}

pub(crate) fn denied(message: String) -> Error {
    Error::new(Code::PermissionDenied, message)
}
