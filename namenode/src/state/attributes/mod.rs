//! What hangs on some files and folders beside owner, group and mode: access control lists, extended attributes, a
//! storage policy of their own, an erasure-coding policy of a folder's own.
//!
//! | module | owns |
//! |---|---|
//! | `acl` | lists of entries: changing, checking, inheriting; pure |
//! | `acls` | the verbs on them |
//! | `xattrs` | extended attributes |
//! | `policies` | storage policies |
//!
//! Only inodes with `HAS_ATTRIBUTES` have a record here; all others pay one bit. Records lie in a slab, so that a
//! checkpoint writes those that changed. Equal access control lists are kept once: a tree under one default list has
//! one or two, however many files it holds. Each record is bounded: 32 extended attributes of 16 KiB, 64 entries.
//!
//! Always holds: an inode has the flag if and only if there is a record of it, and no record is bare. A hard link
//! shares the inode's record; a removed inode takes it along.

pub(crate) mod acl;
mod acls;
mod policies;
mod xattrs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proto::{Code, Error, FsPath, Result};

use super::State;
use super::interned::coding;
use super::slab::{Record, Slab};
use crate::coding::{Malformed, Reader, put_bool, put_u8, put_u32};
use crate::op::Caller;
use crate::op::Reply;
use crate::op::attribute::{AttributeOp, XATTRS_MAX, XAttr, decode_xattr, encode_xattr};
use acl::Acl;

pub use policies::{STORAGE_POLICIES, StoragePolicy, storage_policy};
pub use xattrs::demand_raw;

/// The error of HDFS's words where nothing has the path.
fn missing(error: Error, words: &str, path: &FsPath) -> Error {
    match error.code {
        Code::NotFound => Error::new(Code::NotFound, format!("{words} {path}")),
        _ => error,
    }
}

/// What hangs on one inode. The default is a free slot.
#[derive(Default, Clone, Debug, PartialEq)]
pub(crate) struct Attached {
    /// The inode's slot plus one; 0 is a free slot.
    owner: u32,
    /// Its own storage policy; 0 for none.
    pub policy: u8,
    /// Of a folder: the erasure-coding policy of new files below it, if it has its own; 0: they are replicated.
    pub erasure: Option<u8>,
    /// What the mode can't say.
    pub acl: Option<Arc<Acl>>,
    /// The newest first.
    pub xattrs: Vec<XAttr>,
}

impl Attached {
    fn is_bare(&self) -> bool {
        self.policy == 0 && self.erasure.is_none() && self.acl.is_none() && self.xattrs.is_empty()
    }

    /// The record without the inode that it belongs to.
    pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
        // Both kinds of policy have numbers below 15: one byte, as before there was a second kind.
        put_u8(out, self.policy | self.erasure.map_or(0, |id| id + 1) << 4);
        put_bool(out, self.acl.is_some());
        if let Some(acl) = &self.acl {
            acl.encode(out);
        }
        put_u8(out, u8::try_from(self.xattrs.len()).expect("a plan bounds the attributes"));
        for xattr in &self.xattrs {
            encode_xattr(xattr, out);
        }
    }
}

impl Record for Attached {
    const PAGE_SLOTS: u32 = 16;

    fn is_vacant(&self) -> bool {
        self.owner == 0
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.owner);
        if self.owner != 0 {
            self.encode_body(out);
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let owner = r.u32()?;
        if owner == 0 {
            return Ok(Self::default());
        }
        let policies = r.u8()?;
        let (policy, erasure) = (policies & 0xf, (policies >> 4).checked_sub(1));
        let acl = if r.bool()? { Some(Arc::new(Acl::decode(r)?)) } else { None };
        let malformed = r.malformed("at most 32 extended attributes, and not nothing at all");
        let count = usize::from(r.u8()?);
        if count > XATTRS_MAX {
            return Err(malformed);
        }
        let xattrs = (0..count).map(|_| decode_xattr(r)).collect::<Result<Vec<_>, _>>()?;
        let attached = Self { owner, policy, erasure, acl, xattrs };
        if attached.is_bare() { Err(malformed) } else { Ok(attached) }
    }

    fn heap_bytes(&self) -> usize {
        let bytes = |xattr: &XAttr| xattr.name.capacity() + xattr.value.capacity();
        self.xattrs.capacity() * size_of::<XAttr>() + self.xattrs.iter().map(bytes).sum::<usize>()
    }
}

/// The records, found by the slots of their inodes.
pub(crate) struct Attributes {
    pub(super) records: Slab<Attached>,
    slots: BTreeMap<u32, u32>,
    /// Every list that is in use, once.
    pub(super) acls: BTreeSet<Arc<Acl>>,
    /// Inodes with a storage policy of their own: with none, nobody looks for an inherited one.
    policies: usize,
    /// Folders with an erasure-coding policy of their own; as above.
    codings: usize,
}

impl Attributes {
    pub(super) fn new() -> Self {
        Self {
            records: Slab::new(),
            slots: BTreeMap::new(),
            acls: BTreeSet::new(),
            policies: 0,
            codings: 0,
        }
    }

    fn get(&self, inode: u32) -> Option<&Attached> {
        self.slots.get(&inode).map(|&at| self.records.get(at))
    }

    fn change(&mut self, inode: u32, change: impl FnOnce(&mut Attached)) {
        let at = self.slots.get(&inode).copied();
        let mut attached = match at {
            Some(at) => self.records.get(at).clone(),
            None => Attached { owner: inode + 1, ..Attached::default() },
        };
        let (old_acl, old_policy) = (attached.acl.clone(), attached.policy);
        self.codings -= usize::from(attached.erasure.is_some());
        change(&mut attached);
        attached.acl = attached.acl.map(|acl| self.shared(acl));
        self.policies += usize::from(attached.policy != 0);
        self.policies -= usize::from(old_policy != 0);
        self.codings += usize::from(attached.erasure.is_some());
        match (at, attached.is_bare()) {
            (Some(at), true) => {
                self.records.remove(at);
                self.slots.remove(&inode);
            }
            (Some(at), false) => *self.records.get_mut(at) = attached,
            (None, true) => {}
            (None, false) => {
                let at = self.records.insert(attached);
                self.slots.insert(inode, at);
            }
        }
        if let Some(acl) = old_acl {
            self.release(&acl);
        }
    }

    /// The one copy of a list.
    fn shared(&mut self, acl: Arc<Acl>) -> Arc<Acl> {
        if let Some(kept) = self.acls.get(&acl) {
            return Arc::clone(kept);
        }
        self.acls.insert(Arc::clone(&acl));
        acl
    }

    /// Forgets a list that nothing but the set and the caller holds.
    fn release(&mut self, acl: &Arc<Acl>) {
        if Arc::strong_count(acl) == 2 {
            self.acls.remove(acl);
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let acls: usize = self.acls.iter().map(|acl| acl.memory_bytes()).sum();
        // A node of a B-tree holds up to 11 entries and is 3/4 full in the long run.
        self.records.memory_bytes() + self.slots.len() * 12 + acls
    }
}

impl State {
    /// What hangs on an inode.
    pub(crate) fn attached(&self, slot: u32) -> Option<&Attached> {
        if !self.inodes.get(slot).has_attributes() {
            return None;
        }
        self.attributes.get(slot)
    }

    /// The inode's list beyond its mode.
    pub(crate) fn acl_of(&self, slot: u32) -> Option<&Arc<Acl>> {
        self.attached(slot).and_then(|attached| attached.acl.as_ref())
    }

    /// Whether any folder has an erasure-coding policy of its own.
    pub(super) fn has_codings(&self) -> bool {
        self.attributes.codings > 0
    }

    pub(super) fn change_attached(&mut self, slot: u32, change: impl FnOnce(&mut Attached)) {
        self.attributes.change(slot, change);
        let has = self.attributes.get(slot).is_some();
        if self.inodes.get(slot).has_attributes() != has {
            self.inodes.get_mut(slot).set_has_attributes(has);
        }
    }

    /// Gives one inode what hangs on another: a frozen copy of it, for example.
    pub(crate) fn copy_attributes(&mut self, from_slot: u32, to_slot: u32) {
        let copied = self.attached(from_slot).cloned();
        self.change_attached(to_slot, |attached| {
            let copied = copied.unwrap_or_default();
            *attached = Attached { owner: attached.owner, ..copied };
        });
    }

    /// Takes everything off an inode that is about to be removed.
    pub(crate) fn drop_attributes(&mut self, slot: u32) {
        if self.inodes.get(slot).has_attributes() {
            self.change_attached(slot, |attached| {
                *attached = Attached { owner: attached.owner, ..Attached::default() };
            });
        }
    }

    pub(super) fn plan_attribute(
        &self,
        caller: &Caller,
        op: &AttributeOp,
    ) -> Result<Option<Reply>> {
        use AttributeOp as A;
        match op {
            A::SetXAttr { path, raw, xattr, mode } => {
                self.plan_set_xattr(caller, path, *raw, xattr, *mode).map(|_| None)
            }
            A::RemoveXAttr { path, raw, space, name } => {
                self.plan_remove_xattr(caller, path, *raw, *space, name).map(|_| None)
            }
            A::SetStoragePolicy { path, policy } => {
                self.plan_set_policy(caller, path, *policy).map(|_| None)
            }
            A::ModifyAclEntries { .. }
            | A::RemoveAclEntries { .. }
            | A::RemoveDefaultAcl { .. }
            | A::RemoveAcl { .. }
            | A::SetAcl { .. } => self.plan_acl(caller, op).map(|_| None),
        }
    }

    pub(super) fn perform_attribute(
        &mut self,
        caller: &Caller,
        now: i64,
        op: &AttributeOp,
    ) -> Result<Reply> {
        use AttributeOp as A;
        let slot = match op {
            A::SetXAttr { path, raw, xattr, mode } => {
                let slot = self.plan_set_xattr(caller, path, *raw, xattr, *mode)?;
                self.preserve(slot);
                self.set_xattr(slot, xattr);
                slot
            }
            A::RemoveXAttr { path, raw, space, name } => {
                let slot = self.plan_remove_xattr(caller, path, *raw, *space, name)?;
                self.preserve(slot);
                self.remove_xattr(slot, *space, name);
                slot
            }
            A::SetStoragePolicy { path, policy } => {
                let slot = self.plan_set_policy(caller, path, *policy)?;
                self.preserve(slot);
                self.change_attached(slot, |attached| attached.policy = *policy);
                slot
            }
            A::ModifyAclEntries { .. }
            | A::RemoveAclEntries { .. }
            | A::RemoveDefaultAcl { .. }
            | A::RemoveAcl { .. }
            | A::SetAcl { .. } => {
                let (slot, entries) = self.plan_acl(caller, op)?;
                self.preserve(slot);
                self.set_acl(slot, &entries);
                slot
            }
        };
        self.inodes.get_mut(slot).changed_ns = now;
        Ok(Reply::Done)
    }

    /// After loading: finds the record of each inode, and checks that they fit.
    pub(super) fn index_attributes(&mut self) -> Result<(), Malformed> {
        let unsound = |expected| Err(Malformed { offset: 0, expected });
        for (at, attached) in self.attributes.records.iter() {
            let slot = attached.owner - 1;
            let known = slot < self.inodes.end()
                && self.inodes.get(slot).id != 0
                && self.inodes.get(slot).has_attributes();
            if !known || self.attributes.slots.insert(slot, at).is_some() {
                return unsound("one record of attributes per inode that has some");
            }
            let folder = self.inodes.get(slot).is_folder();
            if let Some(acl) = &attached.acl
                && !acl.is_sound(&self.interned.names, folder)
            {
                return unsound("an access control list in order, with known names");
            }
            if attached.policy != 0 && storage_policy(attached.policy).is_none() {
                return unsound("a known storage policy");
            }
            let coded = |id| id == 0 || coding(id).is_some();
            if attached.erasure.is_some_and(|id| !folder || !coded(id)) {
                return unsound("a known erasure-coding policy of a folder");
            }
            if xattrs::has_twins(&attached.xattrs) {
                return unsound("each extended attribute once");
            }
            self.attributes.policies += usize::from(attached.policy != 0);
            self.attributes.codings += usize::from(attached.erasure.is_some());
        }
        let flagged = self.inodes.iter().filter(|(_, inode)| inode.has_attributes()).count();
        if flagged != self.attributes.records.len() {
            return unsound("as many records of attributes as inodes that have some");
        }
        let acls = &mut self.attributes.acls;
        self.attributes.records.each_unmarked(|attached| {
            if let Some(acl) = &mut attached.acl {
                match acls.get(acl) {
                    Some(kept) => *acl = Arc::clone(kept),
                    None => drop(acls.insert(Arc::clone(acl))),
                }
            }
        });
        Ok(())
    }
}
