//! What keeps an image as it was: frozen records, shared entries, who holds a block.
//!
//! [`State::preserve`] comes before any change to the record of a live inode, [`State::preserve_entries`] before one
//! to a folder's entries: both copy the shared folders on the way to it, from the top. Where nothing is shared they
//! return at once. A folder that goes away leaves its entries to the first that shares them; a snapshot that goes
//! away leaves what it owns to the next that shares it.
//!
//! A block is held by the live file and by the frozen files of the same inode that have it in their lists; its record
//! names the live one, or else any of them. It is forgotten with its last holder, and has as many replicas as the
//! most that any of them asks for. A frozen file shows no more of its last block than its length says, so that the
//! live file may grow; where the live file is cut within a block that a frozen one shows more of, it shows less of
//! that block from then on (`bounds`), and goes on in a new one: no byte that a snapshot shows is ever cut off.
//!
//! Always holds: nothing frozen shares from what shares itself; a frozen file's blocks after the last that it shows
//! a byte of are not in its list.

use std::collections::BTreeMap;

use super::super::State;
use super::super::files::COMPLETE;
use super::super::inodes::{BlockList, Body};
use super::super::quotas::{Usage, signed};
use super::super::slab::NONE;
use super::Snapshots;
use crate::op::Effect;
use proto::{BlockId, InodeId};

impl Snapshots {
    pub(super) fn copies_of(&self, inode: u64) -> impl Iterator<Item = u32> + '_ {
        self.copies.range((inode, 0)..=(inode, NONE)).map(|(&(_, slot), _)| slot)
    }

    /// How much of a block a file shows, if that is less than the block has.
    pub(super) fn bound(&self, file: u32, block: u32) -> Option<u32> {
        if self.bounds.is_empty() { None } else { self.bounds.get(&(file, block)).copied() }
    }

    fn drop_bounds(&mut self, file: u32) {
        if !self.bounds.is_empty() {
            let blocks: Vec<_> =
                self.bounds.range((file, 0)..=(file, NONE)).map(|(&key, _)| key).collect();
            for key in blocks {
                self.bounds.remove(&key);
            }
        }
    }
}

impl State {
    /// Comes before a change to the record of a live inode.
    pub(crate) fn preserve(&mut self, slot: u32) {
        if self.snapshots.share_nothing() {
            return;
        }
        match self.folders_of_file(slot) {
            &[folder] => self.preserve_entries(folder),
            folders => {
                let folders = folders.to_vec();
                folders.into_iter().for_each(|folder| self.preserve_entries(folder));
            }
        }
    }

    /// Comes before a change to the entries of a live folder, or to the record of one of its children.
    pub(crate) fn preserve_entries(&mut self, folder: u32) {
        if self.snapshots.share_nothing() {
            return;
        }
        let mut way = Vec::new();
        let mut shared = 0;
        let mut slot = folder;
        while slot != NONE {
            debug_assert!(!self.inodes.get(slot).is_frozen(), "what is frozen never changes");
            way.push(slot);
            if self.snapshots.sharers.contains_key(&slot) {
                shared = way.len();
            }
            slot = self.inodes.get(slot).parent;
        }
        for slot in way[..shared].iter().rev() {
            self.materialise(*slot);
        }
    }

    /// Gives the frozen folders that share this one entries of their own: the first gets a copy, the others share
    /// it. Folders among the copied children share with the live ones.
    fn materialise(&mut self, folder: u32) {
        let Some(mut heirs) = self.snapshots.sharers.remove(&folder) else { return };
        self.sort_heirs(&mut heirs);
        let tag = self.snapshots.tag_of(self.inodes.get(folder).id, heirs[0]);
        let body = self.inodes.get(folder).body;
        let mut copies = Vec::with_capacity(self.inodes.get(folder).children() as usize);
        self.nodes.visit(body, b"", &mut |_, child| {
            copies.push(child);
            true
        });
        for child in &mut copies {
            *child = self.freeze_copy(*child, tag);
        }
        let body = self.nodes.copy_tree(body, &mut copies.into_iter());
        self.give_entries(&heirs, body);
    }

    /// The first of these frozen folders owns the entries from now on, the others share them with it.
    fn give_entries(&mut self, heirs: &[u32], body: u32) {
        let (first, others) = heirs.split_first().expect("somebody shared");
        self.inodes.get_mut(*first).own(body);
        for other in others {
            self.inodes.get_mut(*other).share(*first);
        }
        if !others.is_empty() {
            self.snapshots.sharers.insert(*first, others.to_vec());
        }
    }

    /// A frozen copy of a live inode: of a folder, one that shares its entries; of a file, one that holds its blocks.
    /// It belongs to the snapshots of the folder `tag`.
    pub(super) fn freeze_copy(&mut self, slot: u32, tag: u32) -> u32 {
        let mut copy = self.inodes.get(slot).clone();
        let attributes = copy.has_attributes();
        copy.freeze();
        copy.set_has_attributes(false);
        if copy.is_folder() {
            copy.share(slot);
            let id = copy.id;
            let frozen = self.inodes.insert(copy);
            self.snapshots.copies.insert((id, frozen), tag);
            if attributes {
                self.copy_attributes(slot, frozen);
            }
            self.snapshots.sharers.entry(slot).or_default().push(frozen);
            return frozen;
        }
        let shown = self.blocks_shown(slot);
        let blocks = self.blocks_of(slot)[..shown].to_vec();
        copy.set_blocks(match blocks[..] {
            [] => Body::Empty,
            [only] => Body::One(only),
            _ => Body::List(self.lists.insert(BlockList(blocks.clone()))),
        });
        let id = copy.id;
        let frozen = self.inodes.insert(copy);
        if attributes {
            self.copy_attributes(slot, frozen);
        }
        self.snapshots.copies.insert((id, frozen), tag);
        for block in blocks {
            if let Some(bound) = self.snapshots.bound(slot, block) {
                self.snapshots.bounds.insert((frozen, block), bound);
            }
        }
        frozen
    }

    /// How many blocks of a file show anything, or stand before one that does.
    fn blocks_shown(&self, file: u32) -> usize {
        let blocks = self.blocks_of(file);
        let empty = |&&block: &&u32| self.blocks.get(block).length() == 0;
        blocks.len() - blocks.iter().rev().take_while(empty).count()
    }

    /// Has a live file, whose only name goes with a folder that frozen ones share, become frozen where it is.
    fn freeze_file(&mut self, slot: u32, tag: u32, effects: &mut Vec<Effect>) {
        for &block in self.blocks_of(slot)[self.blocks_shown(slot)..].to_vec().iter().rev() {
            self.unlist_last_block(slot, block);
            self.forget_block(block, effects);
        }
        let inode = self.inodes.get_mut(slot);
        inode.freeze();
        let id = inode.id;
        if let Some(lease) = self.leases.remove(InodeId(id)) {
            effects.push(Effect::LeaseGone { inode: InodeId(id), holder: lease.holder });
        }
        self.inode_slots.remove(id - InodeId::ROOT.0);
        self.counters.files -= 1;
        self.snapshots.copies.insert((id, slot), tag);
        self.settle_kept(id, &[]);
        if let Some(&last) = self.blocks_of(slot).last() {
            self.finish_kept(id, last, effects);
        }
    }

    /// A block that nobody writes any more is final with what is known of it.
    fn finish_block(&mut self, block: u32, effects: &mut Vec<Effect>) {
        if self.blocks.get(block).state() != COMPLETE {
            self.blocks.get_mut(block).set_state(COMPLETE);
            self.tell_block(block, effects);
        }
    }

    /// A live folder that frozen ones share is about to go: they get its entries. Gives what is still to be removed,
    /// and counts what is gone. `None`: nobody shares them, or they were copied.
    pub(in super::super) fn bequeath(
        &mut self,
        folder: u32,
        freed: &mut Usage,
        effects: &mut Vec<Effect>,
    ) -> Option<Vec<u32>> {
        if !self.snapshots.sharers.contains_key(&folder) {
            return None;
        }
        let body = self.inodes.get(folder).body;
        let mut entries: Vec<(Vec<u8>, u32)> = Vec::new();
        let mut linked = false;
        self.nodes.visit(body, b"", &mut |name, child| {
            let inode = self.inodes.get(child);
            linked |= !inode.is_folder() && inode.links > 1;
            let name = if inode.is_folder() { name.to_vec() } else { Vec::new() };
            entries.push((name, child));
            !linked
        });
        if linked {
            // A file with names elsewhere lives on: here it needs a copy.
            self.materialise(folder);
            return None;
        }
        let mut heirs = self.snapshots.sharers.remove(&folder).expect("looked up above");
        self.sort_heirs(&mut heirs);
        let tag = self.snapshots.tag_of(self.inodes.get(folder).id, heirs[0]);
        let mut remaining = Vec::new();
        for (name, child) in entries {
            if self.inodes.get(child).is_folder() {
                let copy = self.freeze_copy(child, tag);
                self.nodes.replace(body, &name, copy);
                remaining.push(child);
            } else {
                freed.names += 1;
                freed.space = freed.space.saturating_add(self.space_of(child));
                self.freeze_file(child, tag, effects);
            }
        }
        self.give_entries(&heirs, body);
        self.inodes.get_mut(folder).body = NONE;
        Some(remaining)
    }

    /// Removes a frozen tree: what others share goes to them, blocks that nobody else holds are forgotten.
    pub(super) fn drop_frozen(&mut self, root: u32, effects: &mut Vec<Effect>) {
        let mut pending = vec![root];
        while let Some(slot) = pending.pop() {
            let inode = self.inodes.get(slot);
            let id = inode.id;
            let kept = self.kept_of(id);
            let live = self.slot_of_inode(InodeId(id)).filter(|_| !self.quotas.is_empty());
            let live = live.filter(|_| !inode.is_folder()).map(|file| (file, self.space_of(file)));
            if !inode.is_folder() {
                self.let_blocks_go(slot, effects);
                self.free_list(slot);
            } else if let Some(source) = inode.shared_from() {
                let sharers = self.snapshots.sharers.get_mut(&source).expect("it shares");
                sharers.retain(|&other| other != slot);
                if sharers.is_empty() {
                    self.snapshots.sharers.remove(&source);
                }
            } else if let Some(mut heirs) = self.snapshots.sharers.remove(&slot) {
                let body = inode.body;
                self.sort_heirs(&mut heirs);
                let tag = self.snapshots.tag_of(id, heirs[0]);
                self.give_entries(&heirs, body);
                if tag != self.snapshots.tag_of(id, slot) {
                    self.tag_entries(body, tag);
                }
            } else {
                let first = pending.len();
                self.nodes.drop_tree(inode.body, &mut |child| pending.push(child));
                pending[first..].reverse();
            }
            self.snapshots.copies.remove(&(id, slot));
            self.drop_attributes(slot);
            self.inodes.remove(slot);
            self.settle_kept(id, &kept);
            self.end_kept_recovery(InodeId(id), effects);
            if let Some((file, before)) = live {
                self.charge_file(file, signed(self.space_of(file)) - signed(before));
            }
        }
    }

    /// A file, live or frozen, is about to go: blocks that others of the same inode hold stay with them.
    pub(in super::super) fn let_blocks_go(&mut self, leaver: u32, effects: &mut Vec<Effect>) {
        let (id, blocks) = (self.inodes.get(leaver).id, self.blocks_of(leaver).to_vec());
        self.snapshots.drop_bounds(leaver);
        let others = self.other_holders(id, leaver);
        if others.is_empty() {
            for block in blocks {
                self.forget_block(block, effects);
            }
            return;
        }
        let mut holders = BTreeMap::new();
        // The live one is first, and wins.
        for &other in others.iter().rev() {
            holders.extend(self.blocks_of(other).iter().map(|&block| (block, other)));
        }
        let last = blocks.last().copied().filter(|last| holders.contains_key(last));
        for block in blocks {
            if !holders.contains_key(&block) {
                self.forget_block(block, effects);
            }
        }
        let before = self.replication_wanted(leaver, None);
        let replication = self.replication_wanted(leaver, Some(leaver));
        let live_goes = !self.inodes.get(leaver).is_frozen();
        for (slot, holder) in holders {
            if self.blocks.get(slot).inode == leaver {
                self.blocks.get_mut(slot).inode = holder;
            }
            if replication != before {
                self.tell_replication(slot, replication, effects);
            }
        }
        if live_goes && let Some(last) = last {
            self.finish_kept(id, last, effects);
        }
    }

    /// The live file of an inode, and its frozen ones, but not this one.
    fn other_holders(&self, id: u64, but: u32) -> Vec<u32> {
        if self.snapshots.copies.is_empty() {
            return Vec::new();
        }
        let live = self.slot_of_inode(InodeId(id));
        live.into_iter().chain(self.snapshots.copies_of(id)).filter(|&slot| slot != but).collect()
    }

    /// Whether a snapshot holds a former state of a live file.
    pub(in super::super) fn has_copies(&self, slot: u32) -> bool {
        self.snapshots.copies_of(self.inodes.get(slot).id).next().is_some()
    }

    /// The blocks of one live file are about to go to another.
    pub(in super::super) fn move_bounds(&mut self, from: u32, to: u32) {
        for &block in &self.blocks_of(from).to_vec() {
            if let Some(shown) = self.snapshots.bounds.remove(&(from, block)) {
                self.snapshots.bounds.insert((to, block), shown);
            }
        }
    }

    /// A live file loses this block from its end: whether a frozen one has it, and keeps it.
    pub(in super::super) fn leave_block(
        &mut self,
        file: u32,
        block: u32,
        effects: &mut Vec<Effect>,
    ) -> bool {
        self.snapshots.bounds.remove(&(file, block));
        let others = self.other_holders(self.inodes.get(file).id, file);
        let Some(holder) = others.into_iter().find(|&o| self.blocks_of(o).contains(&block)) else {
            return false;
        };
        self.blocks.get_mut(block).inode = holder;
        self.finish_block(block, effects);
        true
    }

    /// Whether a frozen file shows more than `length` bytes of this block of a live file, or the live one is bound to
    /// show less than the block has: then it must not be cut.
    pub(in super::super) fn must_keep_whole(&self, file: u32, block: u32, length: u64) -> bool {
        self.snapshots.bound(file, block).is_some()
            || self.other_holders(self.inodes.get(file).id, file).into_iter().any(|other| {
                self.blocks_of(other).contains(&block) && self.shown_of(other, block) > length
            })
    }

    /// Has a file show no more than this of a block.
    pub(in super::super) fn bind_block(&mut self, file: u32, block: u32, length: u64) {
        let shown = u32::try_from(length).expect("no more than the block has");
        self.snapshots.bounds.insert((file, block), shown);
    }

    /// Whether a file shows less of a block than the block has.
    pub(in super::super) fn is_bound(&self, file: u32, block: u32) -> bool {
        self.snapshots.bound(file, block).is_some()
    }

    /// How many bytes of one of its blocks a file shows.
    pub(in super::super) fn shown_of(&self, file: u32, block: u32) -> u64 {
        if !self.inodes.get(file).is_frozen() {
            return self.bounded(file, block);
        }
        let mut start = 0;
        for &at in self.blocks_of(file) {
            let shown = self.shown_from(file, at, start);
            if at == block {
                return shown;
            }
            start += shown;
        }
        0
    }

    /// [`State::shown_of`] of a block that begins at this offset of the file.
    pub(in super::super) fn shown_from(&self, file: u32, block: u32, start: u64) -> u64 {
        self.bounded(file, block).min(self.inodes.get(file).length - start)
    }

    /// A block's length within the file's bound of it, if there is one.
    pub(in super::super) fn bounded(&self, file: u32, block: u32) -> u64 {
        let bound = self.snapshots.bound(file, block);
        bound.map_or_else(|| self.blocks.get(block).length(), u64::from)
    }

    /// A live file is about to go on in this block: frozen files that show all of it, and more blocks behind it, go on
    /// showing what it has now.
    pub(in super::super) fn bind_copies(&mut self, file: u32, block: u32) {
        let length = self.blocks.get(block).length();
        let bound = || u32::try_from(length).expect("only what is replicated is written on");
        for copy in self.other_holders(self.inodes.get(file).id, file) {
            let blocks = self.blocks_of(copy);
            if blocks.contains(&block) && blocks.last() != Some(&block) {
                self.snapshots.bounds.entry((copy, block)).or_insert_with(bound);
            }
        }
    }

    /// A recovery found less of a block than was known: what is lost, frozen files can't show any more.
    pub(in super::super) fn shorten_copies(&mut self, file: u32, block: u32, length: u64) {
        let copies = self.other_holders(self.inodes.get(file).id, file);
        self.shorten(&copies, block, length);
    }

    /// Frozen files show no more than `length` bytes of a block from now on.
    pub(super) fn shorten(&mut self, copies: &[u32], block: u32, length: u64) {
        for &copy in copies {
            let shown = self.shown_of(copy, block);
            if !self.blocks_of(copy).contains(&block) || shown <= length {
                continue;
            }
            if self.blocks_of(copy).last() != Some(&block) || self.is_bound(copy, block) {
                self.bind_block(copy, block, length);
            }
            self.inodes.get_mut(copy).length -= shown - length;
            while let Some(&last) = self.blocks_of(copy).last()
                && self.shown_of(copy, last) == 0
            {
                self.snapshots.bounds.remove(&(copy, last));
                self.unlist_last_block(copy, last);
            }
        }
    }

    /// Replicas wanted of the blocks of a file: as in HDFS, the most that the live file or a frozen one asks for.
    pub(in super::super) fn replication_of(&self, file: u32) -> u32 {
        self.replication_wanted(file, None)
    }

    /// [`State::replication_of`], as if one file were gone.
    fn replication_wanted(&self, file: u32, but: Option<u32>) -> u32 {
        let of = |slot: u32| self.interned.layouts.get(self.inodes.get(slot).layout).replication;
        if self.snapshots.copies.is_empty() {
            return of(file);
        }
        let others = self.other_holders(self.inodes.get(file).id, file);
        let holders = others.into_iter().chain([file]).filter(|&slot| Some(slot) != but);
        holders.map(of).max().unwrap_or(0)
    }

    /// Other replicas are wanted of the blocks of a live file, and of those that only frozen ones have.
    pub(in super::super) fn tell_replications(&self, file: u32, effects: &mut Vec<Effect>) {
        let replication = self.replication_of(file);
        let mut slots = self.blocks_of(file).to_vec();
        for other in self.other_holders(self.inodes.get(file).id, file) {
            slots.extend(self.blocks_of(other));
        }
        if !self.snapshots.copies.is_empty() {
            slots.sort_unstable();
            slots.dedup();
        }
        for slot in slots {
            self.tell_replication(slot, replication, effects);
        }
    }

    /// Other replicas are wanted of a block; of a group's units never.
    fn tell_replication(&self, slot: u32, replication: u32, effects: &mut Vec<Effect>) {
        let record = self.blocks.get(slot);
        if !record.is_group() {
            let block = BlockId(record.id);
            effects.push(Effect::ReplicationChanged { block, slot, replication });
        }
    }

    /// Replicas that frozen copies of a live file ask for, at most; 0 if there are none.
    pub(in super::super) fn replication_of_copies(&self, file: u32) -> u32 {
        if self.snapshots.copies.is_empty() {
            return 0;
        }
        self.replication_wanted(file, Some(file))
    }

    /// Whether a snapshot holds an inode as it is, or a former state of it.
    pub(crate) fn is_in_snapshot(&self, slot: u32) -> bool {
        if self.snapshots.copies_of(self.inodes.get(slot).id).next().is_some() {
            return true;
        }
        self.folders_of_file(slot).iter().any(|&folder| {
            let mut slot = folder;
            while slot != NONE && !self.snapshots.sharers.contains_key(&slot) {
                slot = self.inodes.get(slot).parent;
            }
            slot != NONE
        })
    }
}
