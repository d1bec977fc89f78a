//! The state as a checkpoint sees it: pages of the five slabs, and sections for what is small.
//!
//! Freezing marks the pages that one side lacks, and encodes the sections; the pages are then encoded a few at a
//! time while operations go on (see `slab`). Loading is the reverse, and ends with a check that every reference leads
//! somewhere, so that later code may follow them without asking.

use proto::{BlockId, InodeId};

use super::inodes::{Body, Inode};
use super::interned::Interned;
use super::leases::Leases;
use super::names::Node;
use super::quotas::Quotas;
use super::retry::RetryCache;
use super::slab::{NONE, PageImage, Record, Side};
use super::wishes::NodeWishes;
use super::{Catalogue, Counters, ROOT, Snapshots, State};
use crate::coding::{Malformed, Reader, put_text, put_u32, put_u64};

/// What a page holds. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum PageKind {
    Inodes = 1,
    Lists = 2,
    Blocks = 3,
    Nodes = 4,
    Attributes = 5,
}

impl PageKind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Inodes, Self::Lists, Self::Blocks, Self::Nodes, Self::Attributes];

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// Runs the same expression on the slab of a kind.
macro_rules! on_slab {
    ($state:expr, $kind:expr, $slab:ident => $do:expr) => {
        match $kind {
            PageKind::Inodes => {
                let $slab = &mut $state.inodes;
                $do
            }
            PageKind::Lists => {
                let $slab = &mut $state.lists;
                $do
            }
            PageKind::Blocks => {
                let $slab = &mut $state.blocks;
                $do
            }
            PageKind::Nodes => {
                let $slab = &mut $state.nodes;
                $do
            }
            PageKind::Attributes => {
                let $slab = &mut $state.attributes.records;
                $do
            }
        }
    };
}

/// Numbers that were met.
#[derive(Default)]
struct Once {
    words: Vec<u64>,
    count: usize,
}

impl Once {
    /// Whether a number is met for the first time.
    fn is_first(&mut self, number: u32) -> bool {
        let (at, bit) = (number as usize / 64, 1 << (number % 64));
        if at >= self.words.len() {
            self.words.resize(at + 1, 0);
        }
        let first = self.words[at] & bit == 0;
        self.words[at] |= bit;
        self.count += usize::from(first);
        first
    }
}

fn unsound<T>(expected: &'static str) -> Result<T, Malformed> {
    Err(Malformed { offset: 0, expected })
}

impl State {
    /// Begins a checkpoint of one side: what it lacks is frozen. Gives the sections.
    pub(crate) fn freeze(&mut self, side: Side) -> Vec<u8> {
        for kind in PageKind::ALL {
            on_slab!(self, kind, slab => slab.freeze(side));
        }
        let mut sections = self.encode_sections();
        self.snapshots.encode(&mut sections);
        self.encode_erasure(&mut sections);
        self.wishes.encode(&mut sections);
        sections
    }

    /// Gives up a checkpoint.
    pub(crate) fn unfreeze(&mut self) {
        for kind in PageKind::ALL {
            on_slab!(self, kind, slab => slab.unfreeze());
        }
    }

    /// Up to `pages_max` frozen pages from `from` on.
    pub(crate) fn encode_frozen(
        &self,
        kind: PageKind,
        from: u32,
        pages_max: usize,
    ) -> Vec<PageImage> {
        match kind {
            PageKind::Inodes => self.inodes.encode_frozen(from, pages_max),
            PageKind::Lists => self.lists.encode_frozen(from, pages_max),
            PageKind::Blocks => self.blocks.encode_frozen(from, pages_max),
            PageKind::Nodes => self.nodes.encode_frozen(from, pages_max),
            PageKind::Attributes => self.attributes.records.encode_frozen(from, pages_max),
        }
    }

    /// Ends the freeze of pages that were encoded, and gives those that operations had to save.
    pub(crate) fn thaw(&mut self, kind: PageKind, encoded: &[PageImage]) -> Vec<PageImage> {
        on_slab!(self, kind, slab => slab.thaw(encoded))
    }

    /// Pages that changed since a side was written.
    pub(crate) fn dirty_pages(&self, side: Side) -> usize {
        self.inodes.dirty_pages(side)
            + self.lists.dirty_pages(side)
            + self.blocks.dirty_pages(side)
            + self.nodes.dirty_pages(side)
            + self.attributes.records.dirty_pages(side)
    }

    /// Pages that the next checkpoint would write, at least.
    pub(crate) fn dirty_pages_min(&self) -> usize {
        self.dirty_pages(Side::A).min(self.dirty_pages(Side::B))
    }

    pub(crate) fn mark_dirty(&mut self, side: Side, kind: PageKind, page: u32) {
        on_slab!(self, kind, slab => slab.mark_dirty(side, page));
    }

    pub(crate) fn mark_all_dirty(&mut self, side: Side) {
        for kind in PageKind::ALL {
            on_slab!(self, kind, slab => slab.mark_all_dirty(side));
        }
    }

    fn encode_sections(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let c = &self.counters;
        for value in [c.txid, c.next_inode, c.next_block, c.next_stamp, c.files, c.folders] {
            put_u64(&mut out, value);
        }
        self.interned.encode(&mut out);
        self.leases.encode(&mut out);
        self.retry.encode(&mut out);
        self.catalogue.encode(&mut out);
        self.quotas.encode(&mut out);
        out
    }

    /// Reads what [`State::freeze`] gave.
    pub(crate) fn load_sections(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let r = &mut Reader::new(bytes);
        self.counters = Counters {
            txid: r.u64()?,
            next_inode: r.u64()?,
            next_block: r.u64()?,
            next_stamp: r.u64()?,
            files: r.u64()?,
            folders: r.u64()?,
            next_group: BlockId::FIRST_GROUP.0,
        };
        self.interned = Interned::decode(r)?;
        self.leases = Leases::decode(r)?;
        self.retry = RetryCache::decode(r)?;
        self.catalogue = Catalogue::decode(r)?;
        // What a version before quotas wrote ends here.
        if r.remaining() > 0 {
            self.quotas = Quotas::decode(r)?;
        }
        // And before snapshots, here.
        if r.remaining() > 0 {
            self.snapshots = Snapshots::decode(r)?;
        }
        // And before erasure coding, here.
        if r.remaining() > 0 {
            self.decode_erasure(r)?;
        }
        // And before nodes could be wished away, here.
        if r.remaining() > 0 {
            self.wishes = NodeWishes::decode(r)?;
        }
        r.end()
    }

    pub(crate) fn load_page(
        &mut self,
        kind: PageKind,
        page: u32,
        bytes: &[u8],
    ) -> Result<(), Malformed> {
        on_slab!(self, kind, slab => slab.load_page(page, bytes))
    }

    /// After the last page and the sections: builds what is not stored, and checks every reference.
    pub(crate) fn finish_loading(&mut self) -> Result<(), Malformed> {
        for kind in PageKind::ALL {
            on_slab!(self, kind, slab => slab.finish_loading());
        }
        self.index_inodes()?;
        self.index_frozen()?;
        self.index_blocks()?;
        self.check_bounds()?;
        let names = self.check_names()?;
        for (file, folder) in names {
            self.found_name(file, folder);
        }
        self.index_kept()?;
        self.check_quotas()?;
        self.index_attributes()?;
        for (inode, _) in self.leases.iter() {
            match self.slot_of_inode(inode) {
                Some(slot) if self.inodes.get(slot).is_open() => {}
                None if self.unfinished_of(inode).is_some() => {}
                _ => return unsound("a lease of an open file"),
            }
        }
        Ok(())
    }

    fn index_inodes(&mut self) -> Result<(), Malformed> {
        let (mut files, mut folders, mut open) = (0, 0, 0);
        let ids = InodeId::ROOT.0..self.counters.next_inode;
        for (slot, inode) in self.inodes.iter() {
            let parent = inode.parent;
            let parent_ok = match parent {
                NONE => slot == ROOT || !inode.is_folder() || inode.is_frozen(),
                _ => {
                    let there = parent < self.inodes.end();
                    there && !inode.is_frozen() && self.inodes.get(parent).is_live_folder()
                }
            };
            let layout_ok =
                inode.is_folder() || (inode.layout as usize) < self.interned.layouts.len();
            let permission_ok = (inode.permission as usize) < self.interned.permissions.len();
            if !ids.contains(&inode.id) || !parent_ok || !layout_ok || !permission_ok {
                return unsound("an inode of known parent, permission and layout");
            }
            if inode.is_frozen() {
                if inode.is_open() || inode.has_quota() || inode.is_snapshottable() {
                    return unsound("a frozen inode without what only live ones have");
                }
                continue;
            }
            if self.inode_slots.get(inode.id - ids.start).is_some() {
                return unsound("an inode id that was given once");
            }
            self.inode_slots.insert(inode.id - ids.start, slot);
            if inode.is_folder() {
                folders += 1
            } else {
                files += 1
            }
            open += usize::from(inode.is_open());
        }
        if (files, folders) != (self.counters.files, self.counters.folders)
            || open
                != self.leases.iter().filter(|(id, _)| self.slot_of_inode(*id).is_some()).count()
        {
            return unsound("as many files, folders and leases as counted");
        }
        match self.inodes.iter().next() {
            Some((ROOT, root)) if root.is_live_folder() && root.id == InodeId::ROOT.0 => Ok(()),
            _ => unsound("a root folder in the first slot"),
        }
    }

    fn index_blocks(&mut self) -> Result<(), Malformed> {
        let ids = BlockId::FIRST.0..self.counters.next_block;
        let (mut lists, mut owned) = (Once::default(), Once::default());
        for (slot, inode) in self.inodes.iter().filter(|(_, inode)| !inode.is_folder()) {
            if let Body::List(list) = inode.blocks()
                && (list >= self.lists.end()
                    || self.lists.get(list).is_vacant()
                    || !lists.is_first(list))
            {
                return unsound("a list of blocks of its own");
            }
            let (mut length, mut last) = (0, 0);
            for &block in self.blocks_of(slot) {
                if block >= self.blocks.end() || !self.may_hold(slot, block) {
                    return unsound("a block of the file that names it");
                }
                if self.blocks.get(block).inode == slot && !owned.is_first(block) {
                    return unsound("a block once in its file");
                }
                last = self.bounded(slot, block);
                length += last;
            }
            let length_ok = if inode.is_frozen() && length > 0 {
                // Of its last block a frozen file may show a part.
                inode.length <= length && inode.length > length - last
            } else {
                inode.length == length
            };
            if !length_ok {
                return unsound("a file as long as its blocks");
            }
        }
        let groups = BlockId::FIRST_GROUP.0..self.counters.next_group;
        let mut known = Vec::with_capacity(self.blocks.len());
        for (slot, block) in self.blocks.iter() {
            let id = BlockId(block.id);
            let group = groups.contains(&id.0) && id.unit() == 0;
            if !(group || ids.contains(&id.0)) {
                return unsound("a block id that was given");
            }
            if block.inode >= self.inodes.end() || self.inodes.get(block.inode).is_folder() {
                return unsound("a file for every block");
            }
            let layout = self.inodes.get(block.inode).layout;
            if (layout as usize) >= self.interned.layouts.len()
                || group != (self.interned.layouts.get(layout).policy != 0)
            {
                return unsound("block groups in striped files, and only there");
            }
            known.push((id, slot));
        }
        for (id, slot) in known {
            if self.slot_of_block(id).is_some() {
                return unsound("a block id that was given once");
            }
            self.index_block(id, slot);
        }
        if owned.count != self.blocks.len() || lists.count != self.lists.len() {
            return unsound("no block and no list without a file");
        }
        Ok(())
    }

    /// Whether a file may have this block in its list: a live one those that name it, a frozen one also those that
    /// name another file of the same inode.
    fn may_hold(&self, file: u32, block: u32) -> bool {
        let owner = self.blocks.get(block).inode;
        if owner == file || !self.inodes.get(file).is_frozen() {
            return owner == file;
        }
        owner < self.inodes.end()
            && !self.inodes.get(owner).is_folder()
            && self.inodes.get(owner).id == self.inodes.get(file).id
    }

    /// Gives the names, as file and folder, of live files that have several or do not know their folder.
    fn check_names(&self) -> Result<Vec<(u32, u32)>, Malformed> {
        let mut nodes = 0;
        let (mut live_names, mut frozen_names) = (0, 0);
        let mut named = Once::default();
        let mut several = Vec::new();
        let owns = |inode: &Inode| inode.is_folder() && inode.shared_from().is_none();
        for (folder, inode) in self.inodes.iter().filter(|(_, inode)| owns(inode)) {
            let mut children = 0;
            let mut pending: Vec<(u32, Option<u8>)> = vec![(inode.body, None)];
            while let Some((node, level)) = pending.pop().filter(|(node, _)| *node != NONE) {
                nodes += 1;
                if node >= self.nodes.end() || nodes > self.nodes.len() {
                    return unsound("each folder node once");
                }
                let node = self.nodes.get(node);
                if node.is_vacant() || level.is_some_and(|level| level != node.level()) {
                    return unsound("a folder node of the level below its parent");
                }
                for slot in node.slots() {
                    if node.level() > 0 {
                        pending.push((slot, Some(node.level() - 1)));
                        continue;
                    }
                    children += 1;
                    self.check_named(slot, folder, &mut named)?;
                    let child = self.inodes.get(slot);
                    if !child.is_frozen() && (child.links > 1 || child.parent == NONE) {
                        several.push((slot, folder));
                    }
                }
            }
            if children != inode.children() {
                return unsound("as many names as children");
            }
            let names = if inode.is_frozen() { &mut frozen_names } else { &mut live_names };
            *names += u64::from(children);
        }
        for root in self.snapshot_roots() {
            if !named.is_first(root) {
                return unsound("a frozen folder for each snapshot");
            }
            frozen_names += 1;
        }
        let (mut links, mut frozen) = (0, 0);
        for (_, inode) in self.inodes.iter() {
            links += if inode.is_frozen() { 0 } else { u64::from(inode.links) };
            frozen += u64::from(inode.is_frozen());
        }
        // The root has no name, and counts as having one.
        if links != live_names + 1 || frozen != frozen_names {
            return unsound("as many names as links");
        }
        Ok(several)
    }

    /// A name of `slot` in `folder`: live ones in live folders, frozen ones in frozen folders, and but for files with
    /// several names only this one.
    fn check_named(&self, slot: u32, folder: u32, named: &mut Once) -> Result<(), Malformed> {
        if slot >= self.inodes.end() || self.inodes.get(slot).is_vacant() {
            return unsound("an inode under every name");
        }
        let (child, parent) = (self.inodes.get(slot), self.inodes.get(folder));
        if child.is_frozen() != parent.is_frozen() {
            return unsound("what is frozen in what is frozen");
        }
        if slot == ROOT || child.is_live_folder() && child.parent != folder {
            return unsound("a folder in the folder that it knows");
        }
        let several = !child.is_folder() && !child.is_frozen() && child.links > 1;
        if !several && !named.is_first(slot) {
            return unsound("one name of what has one");
        }
        Ok(())
    }

    /// A checksum over everything that can be seen: equal states have equal ones, however they came about. Takes time
    /// in proportion to the namespace; for tests.
    pub fn digest(&self) -> u64 {
        let mut low = crc32fast::Hasher::new();
        let mut high = crc32fast::Hasher::new_with_initial(0x5eed);
        let mut bytes = self.encode_sections();
        self.encode_erasure(&mut bytes);
        self.wishes.encode(&mut bytes);
        let mut pending = vec![ROOT];
        while let Some(slot) = pending.pop() {
            let inode = self.inodes.get(slot);
            encode_visible(self, slot, &mut bytes);
            if inode.is_folder() {
                self.nodes.visit(inode.body, b"", &mut |name, child| {
                    put_text(&mut bytes, &String::from_utf8_lossy(name));
                    put_u64(&mut bytes, self.inodes.get(child).id);
                    pending.push(child);
                    true
                });
            }
            low.update(&bytes);
            high.update(&bytes);
            bytes.clear();
        }
        self.digest_snapshots(&mut |bytes| {
            low.update(bytes);
            high.update(bytes);
        });
        u64::from(high.finalize()) << 32 | u64::from(low.finalize())
    }
}

/// What can be seen of an inode, without slots.
fn encode_visible(state: &State, slot: u32, out: &mut Vec<u8>) {
    let inode = state.inodes.get(slot);
    let mut shown = inode.clone();
    shown.body = 0;
    shown.parent = 0;
    shown.encode(out);
    put_u32(out, u32::from(inode.is_folder()));
    if let Some(attached) = state.attached(slot) {
        attached.encode_body(out);
    }
    if !inode.is_folder() {
        for &block in state.blocks_of(slot) {
            let mut record = state.blocks.get(block).clone();
            record.inode = 0;
            record.encode(out);
            put_u64(out, state.bounded(slot, block));
        }
    }
}

impl Node {
    fn slots(&self) -> impl Iterator<Item = u32> {
        (0..self.count()).map(|at| self.entry(at).1)
    }
}
