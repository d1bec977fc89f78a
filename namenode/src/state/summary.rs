//! Sums over a tree: what `du` and `count` tell.
//!
//! Made entry by entry, so that a walk in slices (`walk`) can add up a tree of any size. What only snapshots hold is
//! known as a sum for a snapshottable folder; under one it is found folder by folder.

use proto::{FsPath, Result};

use super::permissions::{EXECUTE, READ};
use super::snapshots::KeptWalk;
use super::walk::Walker;
use super::{Kept, Quota, State};
use crate::op::Caller;

/// What a tree holds, with what only snapshots of folders in it hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeSummary {
    /// Bytes of all files.
    pub length: u64,
    /// Names of files.
    pub files: u64,
    /// Folders, the topmost included.
    pub folders: u64,
    /// Bytes, replicas counted; a block that is being written counts as a whole one.
    pub space: u64,
    /// What of all this only snapshots hold.
    pub kept: Kept,
    /// The quota of the topmost folder itself.
    pub quota: Option<Quota>,
}

impl TreeSummary {
    fn add_kept(&mut self, kept: &Kept) {
        let Kept { files, folders, length, space } = kept;
        let mine = &mut self.kept;
        for (sum, more) in [
            (&mut self.files, files),
            (&mut self.folders, folders),
            (&mut self.length, length),
            (&mut self.space, space),
            (&mut mine.files, files),
            (&mut mine.folders, folders),
            (&mut mine.length, length),
            (&mut mine.space, space),
        ] {
            *sum = sum.saturating_add(*more);
        }
    }
}

/// A sum that is being made, slice by slice. Made by [`State::begin_summary`].
pub(crate) struct Summing {
    /// So far.
    pub sum: TreeSummary,
    walker: Walker,
    kept: KeptWalk,
}

impl State {
    /// Begins to sum up what a path names: the topmost entry is counted.
    pub(crate) fn begin_summary(&self, caller: &Caller, path: &FsPath) -> Result<Summing> {
        let (slot, walker) = self.begin_walk(caller, path)?;
        let sum = TreeSummary { quota: self.quota_at(slot), ..TreeSummary::default() };
        let kept = self.begin_kept_walk(slot, &walker);
        let mut summing = Summing { sum, walker, kept };
        self.add_to_summary(caller, path, slot, (&mut summing.sum, &mut summing.kept))?;
        Ok(summing)
    }

    /// Counts up to `limit` further entries of the tree in, and folders of snapshots until they had as many; gives
    /// whether there may be more. Needs `r` and `x` on every folder.
    pub(crate) fn sum_on(
        &self,
        caller: &Caller,
        path: &FsPath,
        summing: &mut Summing,
        limit: usize,
    ) -> Result<bool> {
        let Summing { sum, walker, kept } = summing;
        if kept.is_pending() {
            sum.add_kept(&self.walk_kept(kept, limit));
            return Ok(true);
        }
        let more = self.walk_on(walker, limit, &mut |_, slot| {
            self.add_to_summary(caller, path, slot, (sum, kept))
        })?;
        Ok(more || kept.is_pending())
    }

    fn add_to_summary(
        &self,
        caller: &Caller,
        path: &FsPath,
        slot: u32,
        (sum, kept): (&mut TreeSummary, &mut KeptWalk),
    ) -> Result<()> {
        let inode = self.inodes.get(slot);
        if inode.is_folder() {
            self.demand(caller, slot, READ | EXECUTE, path)?;
            sum.folders += 1;
            if inode.is_snapshottable() {
                sum.add_kept(&self.kept_by_snapshots(slot));
            } else {
                kept.come_by(inode.id);
            }
            return Ok(());
        }
        sum.files += 1;
        sum.length = sum.length.saturating_add(inode.length);
        sum.space = sum.space.saturating_add(self.space_of(slot));
        Ok(())
    }
}
