//! The records of files and folders: 64 bytes each, at a dense slot.
//!
//! Names are not here: a folder's entries are (`names`), because a file may have several. A file of one block names
//! the block; of more, a list of blocks. A folder names the root node of its entries and knows its parent.
//!
//! Always holds: an id is given once; `length` of a file is the sum of its blocks' lengths.

use proto::{BlockId, InodeId};

use super::slab::{NONE, Record};
use crate::coding::{Malformed, Reader, put_i64, put_u8, put_u16, put_u32, put_u64};

const FOLDER: u16 = 1;
const OPEN: u16 = 1 << 1;
const LIST: u16 = 1 << 2;
const SEALED: u16 = 1 << 3;
const HAS_ATTRIBUTES: u16 = 1 << 4;
const HAS_QUOTA: u16 = 1 << 5;
const FROZEN: u16 = 1 << 6;
const SNAPSHOTTABLE: u16 = 1 << 7;
const SHARING: u16 = 1 << 8;

/// A file or folder. The default is a free slot.
#[derive(Default, Clone)]
pub(crate) struct Inode {
    /// Its identity; 0 is a free slot.
    pub id: u64,
    pub modified_ns: i64,
    pub accessed_ns: i64,
    pub changed_ns: i64,
    /// Of a file: bytes. Of a folder: children (low half) and child folders (high half).
    pub length: u64,
    /// Owner, group and mode, interned.
    pub permission: u32,
    /// Of a file: replication, block size and erasure-coding policy, interned.
    pub layout: u32,
    /// The folder it is in; of a file with several names, the folder of one. NONE for the root.
    pub parent: u32,
    /// Of a file: its block, or its list of blocks. Of a folder: the root node of its entries. Or NONE.
    pub body: u32,
    /// Names of a file; 1 for a folder.
    pub links: u32,
    flags: u16,
}

/// The blocks of a file, as slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Empty,
    One(u32),
    List(u32),
}

impl Inode {
    pub(crate) fn folder(id: InodeId, parent: u32, permission: u32, now_ns: i64) -> Self {
        Self {
            id: id.0,
            modified_ns: now_ns,
            accessed_ns: now_ns,
            changed_ns: now_ns,
            permission,
            parent,
            body: NONE,
            links: 1,
            flags: FOLDER,
            ..Self::default()
        }
    }

    pub(crate) fn file(
        id: InodeId,
        parent: u32,
        permission: u32,
        layout: u32,
        now_ns: i64,
    ) -> Self {
        Self { layout, flags: 0, ..Self::folder(id, parent, permission, now_ns) }
    }

    pub(crate) fn is_folder(&self) -> bool {
        self.flags & FOLDER != 0
    }

    pub(crate) fn is_open(&self) -> bool {
        self.flags & OPEN != 0
    }

    pub(crate) fn set_open(&mut self, open: bool) {
        self.set(OPEN, open);
    }

    /// Whether its content can never change again: a published table.
    pub(crate) fn is_sealed(&self) -> bool {
        self.flags & SEALED != 0
    }

    pub(crate) fn seal(&mut self) {
        self.set(SEALED, true);
    }

    /// Whether a folder has an entry among the quotas.
    pub(crate) fn has_quota(&self) -> bool {
        self.flags & HAS_QUOTA != 0
    }

    pub(crate) fn set_quota(&mut self, quota: bool) {
        self.set(HAS_QUOTA, quota);
    }

    /// Whether the side table has a record of it.
    pub(crate) fn has_attributes(&self) -> bool {
        self.flags & HAS_ATTRIBUTES != 0
    }

    pub(crate) fn set_has_attributes(&mut self, has: bool) {
        self.set(HAS_ATTRIBUTES, has);
    }

    /// Whether it belongs to snapshots alone: it never changes.
    pub(crate) fn is_frozen(&self) -> bool {
        self.flags & FROZEN != 0
    }

    /// Whether it is a folder of the live tree.
    pub(crate) fn is_live_folder(&self) -> bool {
        self.is_folder() && !self.is_frozen()
    }

    /// Takes from the live tree what only that has.
    pub(crate) fn freeze(&mut self) {
        self.set(FROZEN, true);
        self.set(OPEN | SNAPSHOTTABLE | HAS_QUOTA, false);
        self.parent = NONE;
    }

    /// Whether snapshots may be made of this folder.
    pub(crate) fn is_snapshottable(&self) -> bool {
        self.flags & SNAPSHOTTABLE != 0
    }

    pub(crate) fn set_snapshottable(&mut self, on: bool) {
        self.set(SNAPSHOTTABLE, on);
    }

    /// The folder whose entries are also those of this frozen folder.
    pub(crate) fn shared_from(&self) -> Option<u32> {
        (self.flags & SHARING != 0).then_some(self.body)
    }

    /// Has a frozen folder share the entries of another.
    pub(crate) fn share(&mut self, source: u32) {
        self.set(SHARING, true);
        self.body = source;
    }

    /// Gives a frozen folder entries of its own.
    pub(crate) fn own(&mut self, root_node: u32) {
        self.set(SHARING, false);
        self.body = root_node;
    }

    /// What a reader of the tree sees of it: nothing that tells how it is kept.
    pub(crate) fn show(&mut self) {
        self.set(FROZEN | SHARING | OPEN | LIST | SNAPSHOTTABLE | HAS_QUOTA, false);
        (self.parent, self.body) = (0, 0);
    }

    fn set(&mut self, flag: u16, on: bool) {
        if on { self.flags |= flag } else { self.flags &= !flag }
    }

    pub(crate) fn blocks(&self) -> Body {
        match (self.body, self.flags & LIST != 0) {
            (NONE, _) => Body::Empty,
            (slot, false) => Body::One(slot),
            (slot, true) => Body::List(slot),
        }
    }

    pub(crate) fn set_blocks(&mut self, body: Body) {
        self.set(LIST, matches!(body, Body::List(_)));
        self.body = match body {
            Body::Empty => NONE,
            Body::One(slot) | Body::List(slot) => slot,
        };
    }

    /// Children of a folder.
    pub(crate) fn children(&self) -> u32 {
        self.length as u32
    }

    /// Child folders of a folder.
    pub(crate) fn child_folders(&self) -> u32 {
        (self.length >> 32) as u32
    }

    /// Counts a child of a folder in or out.
    pub(crate) fn count_child(&mut self, child_is_folder: bool, change: i32) {
        let children = self.children().checked_add_signed(change).expect("children are counted");
        let folders = self.child_folders().checked_add_signed(change * i32::from(child_is_folder));
        let folders = folders.expect("child folders are counted");
        self.length = u64::from(folders) << 32 | u64::from(children);
    }
}

impl Record for Inode {
    const PAGE_SLOTS: u32 = 64;

    fn is_vacant(&self) -> bool {
        self.id == 0
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.id);
        if self.id == 0 {
            return;
        }
        put_i64(out, self.modified_ns);
        put_i64(out, self.accessed_ns);
        put_i64(out, self.changed_ns);
        put_u64(out, self.length);
        put_u32(out, self.permission);
        put_u32(out, self.layout);
        put_u32(out, self.parent);
        put_u32(out, self.body);
        put_u32(out, self.links);
        put_u16(out, self.flags);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let id = r.u64()?;
        if id == 0 {
            return Ok(Self::default());
        }
        Ok(Self {
            id,
            modified_ns: r.i64()?,
            accessed_ns: r.i64()?,
            changed_ns: r.i64()?,
            length: r.u64()?,
            permission: r.u32()?,
            layout: r.u32()?,
            parent: r.u32()?,
            body: r.u32()?,
            links: r.u32()?,
            flags: r.u16()?,
        })
    }
}

/// The blocks of a file that has more than one, as slots in the order of the file. The empty one is a free slot.
#[derive(Default, Clone)]
pub(crate) struct BlockList(pub(crate) Vec<u32>);

impl Record for BlockList {
    const PAGE_SLOTS: u32 = 8;

    fn is_vacant(&self) -> bool {
        self.0.is_empty()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.0.len() as u32);
        for slot in &self.0 {
            put_u32(out, *slot);
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = r.count(4)?;
        (0..count).map(|_| r.u32()).collect::<Result<_, _>>().map(Self)
    }

    fn heap_bytes(&self) -> usize {
        self.0.capacity() * 4 + 8
    }
}

/// One block or block group of a file: 24 bytes. The default is a free slot.
#[derive(Default, Clone)]
pub(crate) struct BlockRecord {
    /// Its identity; 0 is a free slot.
    pub id: u64,
    /// Generation stamp (56 bits), the highest bits of the length (6), and state (2).
    stamp_state: u64,
    /// Bytes, the low 32 bits: a block has at most 2 GiB, a block group as much in each data unit.
    length_low: u32,
    /// Slot of its file.
    pub inode: u32,
}

const STATE: u64 = 0b11;
const LENGTH_HIGH: u64 = 0b1111_1100;

impl BlockRecord {
    pub(crate) fn new(id: u64, stamp: u64, inode: u32) -> Self {
        let mut record = Self { id, stamp_state: 0, length_low: 0, inode };
        record.set_stamp(stamp);
        record
    }

    pub(crate) fn stamp(&self) -> u64 {
        self.stamp_state >> 8
    }

    pub(crate) fn set_stamp(&mut self, stamp: u64) {
        assert!(stamp < 1 << 56, "2^56 stamps are never used up");
        self.stamp_state = stamp << 8 | self.stamp_state & 0xff;
    }

    /// 0 being written, 1 complete, 2 under recovery.
    pub(crate) fn state(&self) -> u8 {
        (self.stamp_state & STATE) as u8
    }

    pub(crate) fn set_state(&mut self, state: u8) {
        self.stamp_state = self.stamp_state & !STATE | u64::from(state);
    }

    /// Bytes of data.
    pub(crate) fn length(&self) -> u64 {
        (self.stamp_state & LENGTH_HIGH) >> 2 << 32 | u64::from(self.length_low)
    }

    pub(crate) fn set_length(&mut self, length: u64) {
        assert!(length < 1 << 38, "a plan bounds the length of a block");
        self.stamp_state = self.stamp_state & !LENGTH_HIGH | length >> 32 << 2;
        self.length_low = length as u32;
    }

    /// Whether it is a block group.
    pub(crate) fn is_group(&self) -> bool {
        BlockId(self.id).is_striped()
    }
}

impl Record for BlockRecord {
    const PAGE_SLOTS: u32 = 128;

    fn is_vacant(&self) -> bool {
        self.id == 0
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_u8(out, u8::from(self.id != 0));
        if self.id == 0 {
            return;
        }
        put_u64(out, self.id);
        put_u64(out, self.stamp_state);
        put_u32(out, self.length_low);
        put_u32(out, self.inode);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        if !r.bool()? {
            return Ok(Self::default());
        }
        let malformed = r.malformed("a block id that is not 0, in a known state");
        let record =
            Self { id: r.u64()?, stamp_state: r.u64()?, length_low: r.u32()?, inode: r.u32()? };
        if record.id == 0 || record.state() > 2 { Err(malformed) } else { Ok(record) }
    }
}
