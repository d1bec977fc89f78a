//! Extended attributes: names with values that users hang on files and folders.
//!
//! The space decides who may see and set one, as in HDFS: `user` whoever may read or write the inode, `trusted`
//! superusers, `raw` superusers by a path under `/.reserved/raw`, `security` and `system` nobody. The one exception
//! is `security.hdfs.unreadable.by.superuser`, which anyone may set on his file, and nobody removes.

use proto::{Code, Error, FsPath, Result};

use super::missing;
use crate::op::Caller;
use crate::op::attribute::{
    UNREADABLE_BY_SUPERUSER, XATTR_BYTES_MAX, XATTRS_MAX, XAttr, XAttrMode, XAttrSpace,
};
use crate::state::State;
use crate::state::permissions::{READ, STICKY, WRITE, denied};

fn named(xattr: &XAttr, space: XAttrSpace, name: &str) -> bool {
    xattr.space == space && xattr.name == name
}

fn is_unreadable_mark(space: XAttrSpace, name: &str) -> bool {
    space == XAttrSpace::Security && name == UNREADABLE_BY_SUPERUSER
}

/// Whether an attribute is there twice.
pub(super) fn has_twins(xattrs: &[XAttr]) -> bool {
    let twin_before = |at: usize| {
        xattrs[..at].iter().any(|other| named(other, xattrs[at].space, &xattrs[at].name))
    };
    (1..xattrs.len()).any(twin_before)
}

/// Whether this caller, by this kind of path, is told of attributes of this space.
fn is_visible(caller: &Caller, raw: bool, space: XAttrSpace, name: &str) -> bool {
    match space {
        XAttrSpace::User => true,
        XAttrSpace::Trusted => caller.superuser,
        XAttrSpace::Raw => caller.superuser && raw,
        XAttrSpace::Security => is_unreadable_mark(space, name),
        XAttrSpace::System => false,
    }
}

fn demand_visible(caller: &Caller, raw: bool, space: XAttrSpace, name: &str) -> Result<()> {
    if is_visible(caller, raw, space, name) {
        return Ok(());
    }
    let prefix = space.prefix();
    Err(denied(format!("User doesn't have permission for xattr: {prefix}.{name}")))
}

/// Paths under `/.reserved/raw` are the superusers'.
pub fn demand_raw(caller: &Caller) -> Result<()> {
    if !caller.superuser {
        let user = &caller.user;
        return Err(denied(format!(
            "Access denied for user {user}. Superuser privilege is required"
        )));
    }
    Ok(())
}

impl State {
    fn xattrs_of(&self, slot: u32) -> &[XAttr] {
        self.attached(slot).map_or(&[], |attached| &attached.xattrs)
    }

    /// Attributes of a path: those of `names`, in their order, or all that the caller may see if `names` is empty.
    /// Needs `r`. Errors: `NoSuchAttribute` if one of the names is not there but
    /// others are; where there are none at all, the answer is none, as HDFS has it.
    pub fn xattrs(
        &self,
        caller: &Caller,
        path: &FsPath,
        raw: bool,
        names: &[(XAttrSpace, String)],
    ) -> Result<Vec<XAttr>> {
        if raw {
            demand_raw(caller)?;
        }
        for (space, name) in names {
            demand_visible(caller, raw, *space, name)?;
        }
        let seen = self.existing_seen(caller, path);
        let slot = seen.map_err(|error| missing(error, "cannot find", path))?.slot;
        self.demand(caller, slot, READ, path)?;
        let xattrs = self.xattrs_of(slot);
        if names.is_empty() {
            let seen = |x: &&XAttr| is_visible(caller, raw, x.space, &x.name);
            return Ok(xattrs.iter().filter(seen).cloned().collect());
        }
        if !xattrs.iter().any(|x| is_visible(caller, raw, x.space, &x.name)) {
            return Ok(Vec::new());
        }
        let find = |(space, name): &(XAttrSpace, String)| {
            xattrs.iter().find(|x| named(x, *space, name)).cloned().ok_or_else(|| {
                let message = "At least one of the attributes provided was not found.";
                Error::new(Code::NoSuchAttribute, message)
            })
        };
        names.iter().map(find).collect()
    }

    /// Names of the attributes that the caller may see. Needs `x` on the folders of the path, and no more.
    pub fn xattr_names(
        &self,
        caller: &Caller,
        path: &FsPath,
        raw: bool,
    ) -> Result<Vec<(XAttrSpace, String)>> {
        if raw {
            demand_raw(caller)?;
        }
        let seen = self.existing_seen(caller, path);
        let slot = seen.map_err(|error| missing(error, "cannot find", path))?.slot;
        let seen = self.xattrs_of(slot).iter();
        let seen = seen.filter(|x| is_visible(caller, raw, x.space, &x.name));
        Ok(seen.map(|x| (x.space, x.name.clone())).collect())
    }

    /// The contents of a file may be read, unless the caller is a superuser and the file is marked.
    pub(crate) fn demand_unmarked(&self, caller: &Caller, slot: u32) -> Result<()> {
        let marked = |x: &XAttr| is_unreadable_mark(x.space, &x.name);
        if caller.superuser && self.xattrs_of(slot).iter().any(marked) {
            return Err(denied(format!(
                "Access is denied for {} since the superuser is not allowed to perform this operation.",
                caller.user
            )));
        }
        Ok(())
    }

    pub(super) fn plan_set_xattr(
        &self,
        caller: &Caller,
        path: &FsPath,
        raw: bool,
        xattr: &XAttr,
        mode: XAttrMode,
    ) -> Result<u32> {
        check_size(xattr)?;
        if raw {
            demand_raw(caller)?;
        }
        demand_visible(caller, raw, xattr.space, &xattr.name)?;
        let mark = is_unreadable_mark(xattr.space, &xattr.name);
        if mark && !xattr.value.is_empty() {
            let name = xattr.full_name();
            return Err(denied(format!(
                "Attempt to set a value for '{name}'. Values are not allowed for this xattr."
            )));
        }
        let slot = self.plan_xattr_change(caller, path, xattr.space)?;
        let there = self.xattrs_of(slot);
        let exists = there.iter().any(|x| named(x, xattr.space, &xattr.name));
        let name = &xattr.name;
        match mode {
            XAttrMode::Create if exists => {
                let message =
                    format!("XAttr: {name} already exists. The REPLACE flag must be specified.");
                return Err(Error::new(Code::AlreadyExists, message));
            }
            XAttrMode::Replace if !exists => {
                let message =
                    format!("XAttr: {name} does not exist. The CREATE flag must be specified.");
                return Err(Error::new(Code::NoSuchAttribute, message));
            }
            _ => {}
        }
        if mark && self.inodes.get(slot).is_folder() {
            let message = format!("Can only set '{}' on a file.", xattr.full_name());
            return Err(Error::new(Code::LimitExceeded, message));
        }
        if !exists && there.len() >= XATTRS_MAX {
            let message =
                format!("Cannot add additional XAttr to inode, would exceed limit of {XATTRS_MAX}");
            return Err(Error::new(Code::LimitExceeded, message));
        }
        Ok(slot)
    }

    /// The inode, if the caller may change its attributes of this space.
    fn plan_xattr_change(&self, caller: &Caller, path: &FsPath, space: XAttrSpace) -> Result<u32> {
        let found = self.existing(caller, path);
        let (slot, _) = found.map_err(|error| missing(error, "cannot find", path))?;
        if space == XAttrSpace::User {
            let sticky =
                self.inodes.get(slot).is_folder() && self.permission(slot).mode & STICKY != 0;
            if sticky {
                self.demand_owner(caller, slot, path)?;
            } else {
                self.demand(caller, slot, WRITE, path)?;
            }
        }
        Ok(slot)
    }

    pub(super) fn set_xattr(&mut self, slot: u32, xattr: &XAttr) {
        self.change_attached(slot, |attached| {
            attached.xattrs.retain(|x| !named(x, xattr.space, &xattr.name));
            attached.xattrs.insert(0, xattr.clone());
        });
    }

    pub(super) fn plan_remove_xattr(
        &self,
        caller: &Caller,
        path: &FsPath,
        raw: bool,
        space: XAttrSpace,
        name: &str,
    ) -> Result<u32> {
        if raw {
            demand_raw(caller)?;
        }
        demand_visible(caller, raw, space, name)?;
        let slot = self.plan_xattr_change(caller, path, space)?;
        if !self.xattrs_of(slot).iter().any(|x| named(x, space, name)) {
            let message = "No matching attributes found for remove operation";
            return Err(Error::new(Code::NoSuchAttribute, message));
        }
        if is_unreadable_mark(space, name) {
            let prefix = space.prefix();
            return Err(denied(format!("The xattr '{prefix}.{name}' can not be deleted.")));
        }
        Ok(slot)
    }

    pub(super) fn remove_xattr(&mut self, slot: u32, space: XAttrSpace, name: &str) {
        self.change_attached(slot, |attached| {
            attached.xattrs.retain(|x| !named(x, space, name));
        });
    }
}

fn check_size(xattr: &XAttr) -> Result<()> {
    if xattr.name.is_empty() {
        return Err(Error::new(Code::InvalidArgument, "XAttr name cannot be empty."));
    }
    let bytes = xattr.name.len() + xattr.value.len();
    if bytes > XATTR_BYTES_MAX {
        return Err(Error::new(
            Code::InvalidArgument,
            format!(
                "The XAttr is too big. The maximum combined size of the name and value is \
                 {XATTR_BYTES_MAX}, but the total size is {bytes}"
            ),
        ));
    }
    Ok(())
}
