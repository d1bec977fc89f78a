//! Snapshots in checkpoints and in the digest. See docs/formats/checkpoint.md.
//!
//! The section holds which folders are snapshottable, their snapshots, and how much of a block files show where that
//! is less than the block has. Who shares and who holds is in the frozen records, and found again by
//! [`State::index_frozen`].

use std::collections::BTreeMap;

use proto::limits::NAME_BYTES_MAX;

use super::super::State;
use super::super::slab::{NONE, Record};
use super::{DOT_SNAPSHOT, SNAPSHOT_IDS_END, SNAPSHOTS_PER_FOLDER_MAX, Snapshot, Snapshots};
use crate::coding::{Malformed, Reader, put_i64, put_text, put_u32, put_u64};
use proto::InodeId;

fn unsound<T>(expected: &'static str) -> Result<T, Malformed> {
    Err(Malformed { offset: 0, expected })
}

impl Snapshots {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.next_id);
        put_u32(out, self.folders.len() as u32);
        for (inode, snapshots) in &self.folders {
            put_u64(out, *inode);
            put_u32(out, snapshots.len() as u32);
            for (name, snapshot) in snapshots {
                put_text(out, name);
                put_u32(out, snapshot.id);
                put_u32(out, snapshot.root);
                put_i64(out, snapshot.created_ns);
            }
        }
        put_u32(out, self.bounds.len() as u32);
        for ((file, block), shown) in &self.bounds {
            put_u32(out, *file);
            put_u32(out, *block);
            put_u32(out, *shown);
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut all = Self { next_id: r.u32()?, ..Self::default() };
        if all.next_id > SNAPSHOT_IDS_END {
            return Err(r.malformed("as many snapshots as there are numbers"));
        }
        for _ in 0..r.count(12)? {
            let malformed = r.malformed("a snapshottable folder once, within the limits");
            let (inode, count) = (r.u64()?, r.count(20)?);
            let mut snapshots = BTreeMap::new();
            for _ in 0..count {
                let malformed = r.malformed("a snapshot of a number and a name of its own");
                let name = r.text(NAME_BYTES_MAX)?.to_owned();
                let snapshot = Snapshot { id: r.u32()?, root: r.u32()?, created_ns: r.i64()? };
                let bad_name = name.is_empty() || name.contains('/') || name == DOT_SNAPSHOT;
                if bad_name
                    || snapshot.id >= all.next_id
                    || snapshots.insert(name, snapshot).is_some()
                {
                    return Err(malformed);
                }
            }
            if count > SNAPSHOTS_PER_FOLDER_MAX as usize
                || all.folders.insert(inode, snapshots).is_some()
            {
                return Err(malformed);
            }
        }
        for _ in 0..r.count(12)? {
            let malformed = r.malformed("a bound of a file's block once");
            let key = (r.u32()?, r.u32()?);
            if all.bounds.insert(key, r.u32()?).is_some() {
                return Err(malformed);
            }
        }
        Ok(all)
    }
}

impl State {
    /// While a checkpoint is loaded, after the inodes' own fields are checked: finds who shares and who holds, and
    /// checks that snapshottable folders and frozen inodes fit together. The names of frozen inodes are checked with
    /// all names.
    pub(in super::super) fn index_frozen(&mut self) -> Result<(), Malformed> {
        let mut flagged = 0;
        for (slot, inode) in self.inodes.iter() {
            flagged += usize::from(inode.is_snapshottable());
            if inode.is_snapshottable()
                && (!inode.is_folder() || !self.snapshots.folders.contains_key(&inode.id))
            {
                return unsound("a snapshottable folder that is on the list");
            }
            if let Some(source) = inode.shared_from() {
                if !inode.is_frozen() || !inode.is_folder() || source >= self.inodes.end() {
                    return unsound("a frozen folder that shares");
                }
                let of = self.inodes.get(source);
                if of.id != inode.id || !of.is_folder() || of.shared_from().is_some() {
                    return unsound(
                        "a folder that is shared, of the same inode, with its own entries",
                    );
                }
                if of.length != inode.length {
                    return unsound("as many entries in both that share them");
                }
                self.snapshots.sharers.entry(source).or_default().push(slot);
            }
            if inode.is_frozen() {
                self.snapshots.copies.insert((inode.id, slot), NONE);
            }
        }
        if flagged != self.snapshots.folders.len() {
            return unsound("a flag for every snapshottable folder");
        }
        self.check_nesting()
    }

    fn check_nesting(&self) -> Result<(), Malformed> {
        for (&id, snapshots) in &self.snapshots.folders {
            let Some(slot) = self.slot_of_inode(InodeId(id)) else {
                return unsound("a snapshottable folder that is live");
            };
            if self.snapshottable_above_checked(slot)? {
                return unsound("no snapshottable folder under another");
            }
            for snapshot in snapshots.values() {
                let root = snapshot.root;
                if root >= self.inodes.end()
                    || self.inodes.get(root).id != id
                    || !self.inodes.get(root).is_frozen()
                    || !self.inodes.get(root).is_folder()
                {
                    return unsound("a frozen folder of the same inode for each snapshot");
                }
            }
        }
        Ok(())
    }

    /// As `snapshottable_above`, of a tree whose parents may go in circles.
    fn snapshottable_above_checked(&self, slot: u32) -> Result<bool, Malformed> {
        let mut at = slot;
        for _ in 0..=self.inodes.len() {
            at = self.inodes.get(at).parent;
            if at == NONE {
                return Ok(false);
            }
            if self.inodes.get(at).is_snapshottable() {
                return Ok(true);
            }
        }
        unsound("a way up to the root from every snapshottable folder")
    }

    /// The roots of all snapshots.
    pub(in super::super) fn snapshot_roots(&self) -> impl Iterator<Item = u32> + '_ {
        self.snapshots.folders.values().flat_map(|of| of.values()).map(|snapshot| snapshot.root)
    }

    /// After the blocks are indexed: a bound is of a block that the file has, and less than the block.
    pub(in super::super) fn check_bounds(&self) -> Result<(), Malformed> {
        for (&(file, block), &shown) in &self.snapshots.bounds {
            if file >= self.inodes.end()
                || self.inodes.get(file).is_vacant()
                || self.inodes.get(file).is_folder()
                || !self.blocks_of(file).contains(&block)
                || u64::from(shown) > self.blocks.get(block).length()
            {
                return unsound("a bound of a block that a file has");
            }
        }
        Ok(())
    }

    /// What can be seen in snapshots, whoever shares and holds it.
    pub(in super::super) fn digest_snapshots(&self, take: &mut dyn FnMut(&[u8])) {
        let mut bytes = Vec::new();
        put_u32(&mut bytes, self.snapshots.next_id);
        for (inode, snapshots) in &self.snapshots.folders {
            put_u64(&mut bytes, *inode);
            for (name, snapshot) in snapshots {
                put_text(&mut bytes, name);
                put_u32(&mut bytes, snapshot.id);
                put_i64(&mut bytes, snapshot.created_ns);
                let mut pending = vec![snapshot.root];
                while let Some(slot) = pending.pop() {
                    self.encode_seen(slot, &mut bytes);
                    if self.inodes.get(slot).is_folder() {
                        self.nodes.visit(self.entries_of(slot), b"", &mut |name, child| {
                            put_text(&mut bytes, &String::from_utf8_lossy(name));
                            put_u64(&mut bytes, self.inodes.get(child).id);
                            pending.push(child);
                            true
                        });
                    }
                    take(&bytes);
                    bytes.clear();
                }
            }
        }
        take(&bytes);
    }

    /// What can be seen of an inode in a snapshot.
    fn encode_seen(&self, slot: u32, out: &mut Vec<u8>) {
        let mut shown = self.inodes.get(slot).clone();
        shown.show();
        shown.encode(out);
        if let Some(attached) = self.attached(slot) {
            attached.encode_body(out);
        }
        if !shown.is_folder() {
            for (block, length) in self.content_of(slot) {
                let record = self.blocks.get(block);
                put_u64(out, record.id);
                put_u64(out, record.stamp());
                put_u64(out, length);
            }
        }
    }
}
