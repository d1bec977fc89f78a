//! Rename: what is moved, what is replaced, and what that does to quotas.
//!
//! A target that exists fails the rename, is replaced, or is gone into, by the mode. Decided where the operation is
//! applied, so that a repeated call does the same.

use std::borrow::Cow;

use proto::{Code, Error, FsPath, Result};

use super::State;
use super::permissions::WRITE;
use super::quotas::{Charge, signed};
use super::snapshots::demand_no_reserved_name;
use super::tree::{Walk, not_found};
use crate::op::{Caller, Effect, RenameMode};

/// What a rename found.
pub(super) struct RenamePlan {
    /// The new name.
    name: String,
    slot: u32,
    from: u32,
    to: u32,
    replaced: Option<u32>,
    charges: Vec<Charge>,
}

fn error<T>(code: Code, message: String) -> Result<T> {
    Err(Error::new(code, message))
}

impl State {
    /// What is to be done; `None`: the older rename finds everything where it is to be.
    pub(super) fn plan_rename(
        &self,
        caller: &Caller,
        source: &FsPath,
        target: &FsPath,
        mode: RenameMode,
    ) -> Result<Option<RenamePlan>> {
        let target = self.rename_target(caller, source, target, mode)?;
        if mode == RenameMode::Into && *source == *target {
            let (found, _) = self.demand_rename(caller, source, source)?;
            return found.map(|_| None).ok_or_else(|| not_found(source));
        }
        self.plan_move(caller, source, &target, mode).map(Some)
    }

    /// The full new path: the older rename moves into a folder that exists.
    fn rename_target<'a>(
        &self,
        caller: &Caller,
        source: &FsPath,
        target: &'a FsPath,
        mode: RenameMode,
    ) -> Result<Cow<'a, FsPath>> {
        let Some(name) = source.name().filter(|_| mode == RenameMode::Into) else {
            return Ok(Cow::Borrowed(target));
        };
        match self.walk(caller, target)?.target {
            Some(slot) if self.inodes.get(slot).is_folder() => target.join(name).map(Cow::Owned),
            _ => Ok(Cow::Borrowed(target)),
        }
    }

    fn plan_move(
        &self,
        caller: &Caller,
        source: &FsPath,
        target: &FsPath,
        mode: RenameMode,
    ) -> Result<RenamePlan> {
        let Some(name) = target.name().filter(|_| !source.is_root()) else {
            return error(Code::InvalidArgument, "the root can't be renamed or replaced".into());
        };
        let (found, walk) = self.demand_rename(caller, source, target)?;
        let (slot, from) = found.ok_or_else(|| not_found(source))?;
        if source == target {
            return error(Code::AlreadyExists, format!("{source} can't be renamed to itself"));
        }
        if source.contains(target) {
            let message = format!("{source} can't be moved into itself, to {target}");
            return error(Code::LimitExceeded, message);
        }
        self.catalogue.demand_unguarded(source)?;
        self.catalogue.demand_unguarded(target)?;
        self.demand_no_snapshots(slot, source)?;
        if walk.missing > 1 {
            let parent = target.parent().unwrap_or_else(FsPath::root);
            return error(
                Code::NotFound,
                format!("{parent}, the folder of {target}, is not there"),
            );
        }
        demand_no_reserved_name(target)?;
        self.demand_not_nested(slot, walk.folder, target)?;
        if let Some(old) = walk.target {
            self.plan_replace(caller, slot, old, walk.folder, target, mode)?;
        }
        let charges = self.charges_of_move(slot, from, walk.folder);
        self.demand_room(&self.charges_of_replacing(walk.folder, walk.target, &charges))?;
        let (name, to, replaced) = (name.to_owned(), walk.folder, walk.target);
        Ok(RenamePlan { name, slot, from, to, replaced, charges })
    }

    /// What the caller must be allowed to, whether or not there is something to rename: who may not change a folder
    /// does not learn what is in it. Gives the source, if it is there, with its folder, and where the target leads.
    fn demand_rename(
        &self,
        caller: &Caller,
        source: &FsPath,
        target: &FsPath,
    ) -> Result<(Option<(u32, u32)>, Walk)> {
        let found = match self.walk(caller, source) {
            Err(error) if error.code == Code::ParentNotFolder => None,
            walk => Some(walk?),
        };
        if let Some(walk) = &found {
            self.demand_entry(caller, walk, source)?;
        }
        let to = self.walk(caller, target)?;
        self.demand(caller, to.folder, WRITE, target)?;
        Ok((found.and_then(|walk| Some((walk.target?, walk.folder))), to))
    }

    /// What a move means to quotas: nothing if they are the same on both sides.
    fn charges_of_move(&self, slot: u32, from: u32, to: u32) -> Vec<Charge> {
        if !self.is_counted_apart(from, to) {
            return Vec::new();
        }
        let usage = self.usage_of(slot);
        let (names, space) = (signed(usage.names), signed(usage.space));
        vec![
            Charge { folder: from, names: -names, space: -space },
            Charge { folder: to, names, space },
        ]
    }

    /// A move's charges, with what the target's replacement gives back.
    fn charges_of_replacing(&self, to: u32, old: Option<u32>, charges: &[Charge]) -> Vec<Charge> {
        let mut charges = charges.to_vec();
        // What a snapshot shows of it stays.
        let gone = |old: &u32| !charges.is_empty() && !self.is_in_snapshot(*old);
        if let Some(old) = old.filter(gone) {
            let usage = self.usage_of(old);
            let (names, space) = (-signed(usage.names), -signed(usage.space));
            charges.push(Charge { folder: to, names, space });
        }
        charges
    }

    fn plan_replace(
        &self,
        caller: &Caller,
        slot: u32,
        old: u32,
        folder: u32,
        target: &FsPath,
        mode: RenameMode,
    ) -> Result<()> {
        if mode != RenameMode::Replace {
            return error(Code::AlreadyExists, format!("{target} exists"));
        }
        let (new_inode, old_inode) = (self.inodes.get(slot), self.inodes.get(old));
        match (new_inode.is_folder(), old_inode.is_folder()) {
            (false, true) => {
                return error(Code::IsFolder, format!("{target} is a folder, the source a file"));
            }
            (true, false) => {
                return error(Code::NotFolder, format!("{target} is a file, the source a folder"));
            }
            (true, true) if old_inode.children() > 0 => {
                return error(
                    Code::NotEmpty,
                    format!("{target} has {} entries", old_inode.children()),
                );
            }
            _ => {}
        }
        self.demand_no_snapshots(old, target)?;
        self.demand_removal(caller, folder, old, target)
    }

    pub(super) fn rename(
        &mut self,
        now: i64,
        source: &FsPath,
        plan: &RenamePlan,
        effects: &mut Vec<Effect>,
    ) {
        self.detach(plan.from, source.name().expect("the root is not renamed"), now);
        let name = &plan.name;
        // Two names of one inode: the source name goes, the target name stays.
        if let Some(old) = plan.replaced {
            self.detach(plan.to, name, now);
            self.remove_tree(old, plan.to, now, effects);
        }
        self.attach(plan.to, name, plan.slot, now);
        self.move_link(plan.slot, plan.from, plan.to);
        self.preserve(plan.slot);
        self.inodes.get_mut(plan.slot).changed_ns = now;
        self.charge(&plan.charges);
    }
}
