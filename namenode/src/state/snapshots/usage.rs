//! What only snapshots hold, as `du`, `count` and quotas count it.
//!
//! A file or folder that is gone from the live tree and that a snapshot still shows counts once where the snapshot's
//! folder is: a name, and for a file the distinct blocks of its frozen copies with the most replicas that any of them
//! asks for. What is live counts where its names are, with the blocks that only its frozen copies have.
//!
//! Each frozen record is *tagged* with the snapshottable folder whose snapshots own it: that of the snapshot whose root
//! it is, or of the frozen folder that lists it. Where several own it by turns (a folder was moved from under one
//! snapshottable folder to another, and is shared by snapshots of both) it is that of the smallest inode.
//!
//! A deletion is never refused for what it leaves to snapshots: what was moved out of their folder and is deleted
//! elsewhere counts there again, though a quota may be exceeded by it.
//!
//! Always holds: `kept` is the sum over all inodes that are not live, by tag; what is kept is charged to the quotas
//! of the tag's folder and above. Not stored: tags and sums follow from the records (`State::index_kept`).

use std::collections::BTreeSet;

use proto::{InodeId, Result};

use super::super::State;
use super::super::interned::Layout;
use super::super::quotas::{Charge, signed};
use super::super::slab::NONE;
use super::super::walk::Walker;
use super::Snapshots;
use crate::coding::Malformed;

/// What only the snapshots of one folder hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Files.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Bytes of the files, each as long as it ever was.
    pub length: u64,
    /// Bytes, replicas counted.
    pub space: u64,
}

/// A walk through what only snapshots hold of some folders under a snapshottable one, whose own sum is known.
#[derive(Default)]
pub(crate) struct KeptWalk {
    /// Whether the tree is one of which snapshots hold something.
    on: bool,
    /// Folders whose frozen copies are still to be looked at, by inode.
    pending: Vec<u64>,
    /// What was counted.
    counted: BTreeSet<u64>,
}

impl KeptWalk {
    /// A live folder of the tree.
    pub(crate) fn come_by(&mut self, folder: u64) {
        if self.on {
            self.pending.push(folder);
        }
    }

    /// Whether there is something to look at.
    pub(crate) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }
}

impl Kept {
    fn names(&self) -> u64 {
        self.files + self.folders
    }

    fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.folders += other.folders;
        self.length = self.length.saturating_add(other.length);
        self.space = self.space.saturating_add(other.space);
    }

    fn subtract(&mut self, other: &Self) {
        self.files -= other.files;
        self.folders -= other.folders;
        self.length = self.length.saturating_sub(other.length);
        self.space = self.space.saturating_sub(other.space);
    }
}

impl Snapshots {
    /// The snapshottable folder whose snapshots own a frozen record.
    pub(super) fn tag_of(&self, inode: u64, frozen: u32) -> u32 {
        *self.copies.get(&(inode, frozen)).expect("what is frozen has a tag")
    }
}

impl State {
    /// What only the snapshots of this live folder hold.
    pub(in super::super) fn kept_by_snapshots(&self, folder: u32) -> Kept {
        if self.snapshots.kept.is_empty() {
            return Kept::default();
        }
        self.snapshots.kept.get(&folder).copied().unwrap_or_default()
    }

    /// For a walk through the live tree under a folder.
    pub(in super::super) fn begin_kept_walk(&self, top: u32, walker: &Walker) -> KeptWalk {
        let inode = self.inodes.get(top);
        let on = !self.snapshots.kept.is_empty()
            && inode.is_live_folder()
            && !walker.is_in_snapshot()
            && self.snapshottable_above(top).is_some();
        KeptWalk { on, ..KeptWalk::default() }
    }

    /// Looks at folders until about `limit` entries were seen: what is not live counts once.
    pub(in super::super) fn walk_kept(&self, walk: &mut KeptWalk, limit: usize) -> Kept {
        let (mut sum, mut seen) = (Kept::default(), 0);
        while seen < limit
            && let Some(folder) = walk.pending.pop()
        {
            for copy in self.snapshots.copies_of(folder) {
                let inode = self.inodes.get(copy);
                // What others share is seen where it is owned.
                if inode.shared_from().is_some() {
                    continue;
                }
                self.nodes.visit(inode.body, b"", &mut |_, child| {
                    seen += 1;
                    let id = self.inodes.get(child).id;
                    if self.slot_of_inode(InodeId(id)).is_none() && walk.counted.insert(id) {
                        let copies: Vec<u32> = self.snapshots.copies_of(id).collect();
                        sum.add(&self.kept_in(&copies));
                        if self.inodes.get(child).is_folder() {
                            walk.pending.push(id);
                        }
                    }
                    true
                });
            }
        }
        sum
    }

    /// What is kept of an inode, by tag: nothing while it is live.
    pub(super) fn kept_of(&self, id: u64) -> Vec<(u32, Kept)> {
        if self.snapshots.copies.is_empty() || self.slot_of_inode(InodeId(id)).is_some() {
            return Vec::new();
        }
        let mut by_tag: Vec<(u32, Vec<u32>)> = Vec::new();
        for (&(_, slot), &tag) in self.snapshots.copies.range((id, 0)..=(id, NONE)) {
            match by_tag.iter_mut().find(|(known, _)| *known == tag) {
                Some((_, slots)) => slots.push(slot),
                None => by_tag.push((tag, vec![slot])),
            }
        }
        by_tag.into_iter().map(|(tag, slots)| (tag, self.kept_in(&slots))).collect()
    }

    /// What frozen records of one inode come to.
    fn kept_in(&self, slots: &[u32]) -> Kept {
        if self.inodes.get(slots[0]).is_folder() {
            return Kept { folders: 1, ..Kept::default() };
        }
        let (mut replication, mut length) = (0, 0);
        let mut blocks: Vec<(u32, u64, Layout)> = Vec::new();
        for &slot in slots {
            length = length.max(self.inodes.get(slot).length);
            let layout = self.layout(slot);
            replication = replication.max(layout.replication);
            // Between two snapshots the file may have been coded anew.
            blocks.extend(self.content_of(slot).map(|(block, shown)| (block, shown, layout)));
        }
        // Of each block the most that a copy shows.
        blocks.sort_unstable_by_key(|&(block, shown, _)| (block, std::cmp::Reverse(shown)));
        blocks.dedup_by_key(|(block, ..)| *block);
        let space = blocks.iter().fold(0u64, |sum, (_, shown, layout)| {
            sum.saturating_add(Layout { replication, ..*layout }.space(*shown))
        });
        Kept { files: 1, folders: 0, length, space }
    }

    /// After a change of what is kept of an inode, which was `before`: counts the difference in.
    pub(in super::super) fn settle_kept(&mut self, id: u64, before: &[(u32, Kept)]) {
        let after = self.kept_of(id);
        if before == after {
            return;
        }
        let mut charges = Vec::new();
        for (tag, kept) in before {
            self.snapshots.kept.get_mut(tag).expect("it was counted in").subtract(kept);
            let (names, space) = (-signed(kept.names()), -signed(kept.space));
            charges.push(Charge { folder: *tag, names, space });
        }
        for (tag, kept) in &after {
            self.snapshots.kept.entry(*tag).or_default().add(kept);
            let (names, space) = (signed(kept.names()), signed(kept.space));
            charges.push(Charge { folder: *tag, names, space });
        }
        for (tag, _) in before {
            if self.snapshots.kept.get(tag) == Some(&Kept::default()) {
                self.snapshots.kept.remove(tag);
            }
        }
        self.charge(&charges);
    }

    /// Whether there is room for one more name where snapshots keep a file of this folder that is about to be replaced.
    pub(in super::super) fn demand_room_to_keep(&self, file: u32, folder: u32) -> Result<()> {
        if self.quotas.is_empty() || !self.is_in_snapshot(file) {
            return Ok(());
        }
        let above = self.snapshottable_above(folder);
        let of = if self.inodes.get(folder).is_snapshottable() { Some(folder) } else { above };
        match of {
            Some(folder) => self.demand_room(&[Charge { folder, names: 1, space: 0 }]),
            None => Ok(()),
        }
    }

    /// Blocks that only frozen copies of a live file have.
    pub(in super::super) fn blocks_of_copies(&self, file: u32) -> Vec<u32> {
        let inode = self.inodes.get(file);
        if self.snapshots.copies.is_empty() || inode.is_frozen() {
            return Vec::new();
        }
        let own = self.blocks_of(file);
        let mut others = BTreeSet::new();
        for copy in self.snapshots.copies_of(inode.id) {
            let blocks = self.blocks_of(copy);
            // As a rule a file has grown since, or is as it was.
            if !own.starts_with(blocks) {
                others.extend(blocks);
            }
        }
        if !others.is_empty() {
            own.iter().for_each(|block| {
                others.remove(block);
            });
        }
        others.into_iter().collect()
    }

    /// Has frozen folders in the order in which they come to own what they share.
    pub(super) fn sort_heirs(&self, heirs: &mut [u32]) {
        if heirs.len() > 1 {
            heirs.sort_by_key(|&heir| {
                let tag = self.snapshots.tag_of(self.inodes.get(heir).id, heir);
                self.inodes.get(tag).id
            });
        }
    }

    /// Has everything that is owned through these entries belong to another snapshottable folder's snapshots.
    pub(super) fn tag_entries(&mut self, body: u32, tag: u32) {
        let mut pending = Vec::new();
        let push = |state: &Self, body: u32, pending: &mut Vec<u32>| {
            state.nodes.visit(body, b"", &mut |_, child| {
                pending.push(child);
                true
            });
        };
        push(self, body, &mut pending);
        while let Some(slot) = pending.pop() {
            let inode = self.inodes.get(slot);
            let id = inode.id;
            if inode.is_folder() && inode.shared_from().is_none() {
                push(self, inode.body, &mut pending);
            }
            let before = self.kept_of(id);
            self.snapshots.copies.insert((id, slot), tag);
            self.settle_kept(id, &before);
        }
    }

    /// While a checkpoint is loaded, after all names are checked: gives every frozen record its tag, and sums up what
    /// is kept. What is kept is among the charges of the quotas that were loaded.
    pub(in super::super) fn index_kept(&mut self) -> std::result::Result<(), Malformed> {
        let mut pending = Vec::new();
        for (&id, snapshots) in &self.snapshots.folders {
            let Some(folder) = self.slot_of_inode(InodeId(id)) else { continue };
            pending.extend(snapshots.values().map(|snapshot| (snapshot.root, folder)));
        }
        while let Some((slot, tag)) = pending.pop() {
            let inode = self.inodes.get(slot);
            self.snapshots.copies.insert((inode.id, slot), tag);
            if inode.is_folder() && inode.shared_from().is_none() {
                self.nodes.visit(inode.body, b"", &mut |_, child| {
                    pending.push((child, tag));
                    true
                });
            }
        }
        let mut last = None;
        let mut ids = Vec::new();
        for (&(id, _), &tag) in &self.snapshots.copies {
            if tag == NONE {
                let expected = "a way from a snapshot to everything that is frozen";
                return Err(Malformed { offset: 0, expected });
            }
            if last.replace(id) != Some(id) && self.slot_of_inode(InodeId(id)).is_none() {
                ids.push(id);
            }
        }
        for id in ids {
            for (tag, kept) in self.kept_of(id) {
                self.snapshots.kept.entry(tag).or_default().add(&kept);
            }
        }
        Ok(())
    }
}
