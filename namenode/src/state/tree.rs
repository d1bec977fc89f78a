//! Paths to inodes, and what readers ask of the tree.
//!
//! Every read takes the caller and checks what HDFS checks: `x` on every folder of the path, `r` and `x` for a
//! listing, `r` for the blocks of a file. Reads change nothing, access times included.

use proto::granary::{FileKind, FileStatus};
use proto::limits::LISTING_ENTRIES_MAX;
use proto::{BlockId, Code, Error, FsPath, InodeId, Result};

use super::inodes::Body;
use super::interned::Layout;
use super::permissions::{EXECUTE, READ};
use super::slab::NONE;
use super::snapshots::{DOT_SNAPSHOT, Look, Seen, read_only};
use super::{BlockInfo, ROOT, State};
use crate::op::{BlockState, Caller};

/// Where a path leads.
pub(crate) struct Walk {
    /// The deepest folder that exists on the way, without the target itself; the root for the root.
    pub folder: u32,
    /// The inode of the path, if there is one.
    pub target: Option<u32>,
    /// Components that do not exist.
    pub missing: usize,
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// Ordered by the bytes of their names.
    pub entries: Vec<FileStatus>,
    /// Entries after the last one given.
    pub remaining: u64,
}

/// A file and its blocks in a range.
#[derive(Clone, Debug, PartialEq)]
pub struct FileBlocks {
    /// The file.
    pub status: FileStatus,
    /// Blocks that overlap the range, each with its offset in the file, in bytes.
    pub blocks: Vec<(u64, BlockInfo)>,
    /// The last block of the file with its offset.
    pub last: Option<(u64, BlockInfo)>,
}

/// Which block group this is, from 0; `None` for a unit, and for what is replicated.
fn group_index(block: BlockId) -> Option<u64> {
    let group = block.is_striped() && block.unit() == 0;
    group.then(|| (block.0 - BlockId::FIRST_GROUP.0) / BlockId::GROUP_STEP)
}

pub(crate) fn not_found(path: &FsPath) -> Error {
    Error::new(Code::NotFound, format!("File does not exist: {path}"))
}

impl State {
    /// Follows the path of something to be changed from the root. Fails if a folder on the way may not be passed or is
    /// a file, and where it leads into a snapshot. Reads follow [`State::look`].
    pub(crate) fn walk(&self, caller: &Caller, path: &FsPath) -> Result<Walk> {
        let (mut folder, mut slot) = (ROOT, ROOT);
        let mut rest = path.components();
        while let Some(name) = rest.next() {
            let inode = self.inodes.get(slot);
            if !inode.is_folder() {
                let message = format!("{path}: a component before {name:?} is a file");
                return Err(Error::new(Code::ParentNotFolder, message));
            }
            self.demand(caller, slot, EXECUTE, path)?;
            folder = slot;
            match self.nodes.find(inode.body, name.as_bytes()) {
                Some(child) => slot = child,
                None if name == DOT_SNAPSHOT && inode.is_snapshottable() => {
                    return Err(read_only());
                }
                None => return Ok(Walk { folder, target: None, missing: 1 + rest.count() }),
            }
        }
        Ok(Walk { folder, target: Some(slot), missing: 0 })
    }

    /// The inode of a path that must exist, and the folder it is in.
    pub(crate) fn existing(&self, caller: &Caller, path: &FsPath) -> Result<(u32, u32)> {
        let walk = self.walk(caller, path)?;
        Ok((walk.target.ok_or_else(|| not_found(path))?, walk.folder))
    }

    /// The file of a path that must exist and not be a folder.
    pub(crate) fn existing_file(&self, caller: &Caller, path: &FsPath) -> Result<u32> {
        let (slot, _) = self.existing(caller, path)?;
        self.demand_file(slot, path)?;
        Ok(slot)
    }

    /// The inode of a path must not be a folder.
    pub(crate) fn demand_file(&self, slot: u32, path: &FsPath) -> Result<()> {
        if self.inodes.get(slot).is_folder() {
            return Err(Error::new(Code::IsFolder, format!("Path is not a file: {path}")));
        }
        Ok(())
    }

    /// What a path names; `None` if nothing does, also under a file.
    pub fn status(&self, caller: &Caller, path: &FsPath) -> Result<Option<FileStatus>> {
        match self.look(caller, path) {
            Ok(Look::Inode(seen)) => Ok(Some(self.status_seen(seen, path.name().unwrap_or("")))),
            Ok(Look::Snapshots(folder)) => Ok(Some(self.status_of_snapshots(folder))),
            Ok(Look::Nothing) => Ok(None),
            Err(error) if error.code == Code::ParentNotFolder => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Entries of a folder after the name `start_after`; of a file, the file alone. `None` if nothing has that path.
    /// `limit` 0 means [`LISTING_ENTRIES_MAX`], which also is the most.
    pub fn list(
        &self,
        caller: &Caller,
        path: &FsPath,
        start_after: &str,
        limit: u32,
    ) -> Result<Option<Listing>> {
        let seen = match self.look(caller, path) {
            Ok(Look::Inode(seen)) => seen,
            Ok(Look::Snapshots(folder)) => {
                return Ok(Some(self.list_snapshots(folder, start_after, limit)));
            }
            Ok(Look::Nothing) => return self.nothing_listed(path),
            Err(error) if error.code == Code::ParentNotFolder => return Ok(None),
            Err(error) => return Err(error),
        };
        let slot = seen.slot;
        if !self.inodes.get(slot).is_folder() {
            let status = self.status_seen(seen, path.name().unwrap_or(""));
            return Ok(Some(Listing { entries: vec![status], remaining: 0 }));
        }
        let body = self.entries_of(slot);
        self.demand(caller, slot, READ | EXECUTE, path)?;
        let limit = if limit == 0 { LISTING_ENTRIES_MAX } else { limit.min(LISTING_ENTRIES_MAX) };
        let mut entries = Vec::new();
        self.nodes.visit(body, start_after.as_bytes(), &mut |name, child| {
            let child = Seen { slot: child, ..seen };
            entries.push(self.status_seen(child, &String::from_utf8_lossy(name)));
            entries.len() < limit as usize
        });
        let remaining = match entries.last() {
            Some(last) if entries.len() == limit as usize => {
                self.nodes.count_after(body, last.name.as_bytes())
            }
            _ => 0,
        };
        Ok(Some(Listing { entries, remaining }))
    }

    /// A file's blocks that overlap `length` bytes from `offset`, and its last one. Needs `r` on the file.
    pub fn block_locations(
        &self,
        caller: &Caller,
        path: &FsPath,
        offset: u64,
        length: u64,
    ) -> Result<FileBlocks> {
        let seen = self.existing_file_seen(caller, path)?;
        let slot = seen.slot;
        self.demand(caller, slot, READ, path)?;
        self.demand_unmarked(caller, slot)?;
        let status = self.status_seen(seen, path.name().unwrap_or(""));
        let end = offset.saturating_add(length);
        let mut blocks = Vec::new();
        let mut last = None;
        let mut at = 0;
        for &block in self.blocks_of(slot) {
            let mut info = self.block_info(block);
            info.shown = self.shown_from(slot, block, at);
            let block_end = at + info.shown;
            if seen.in_snapshot && info.shown == 0 {
                continue;
            }
            // A block being written may hold more than is known: it goes with the range that reaches the end.
            let open_end = status.open_for_write && info.state != BlockState::Complete && end > at;
            if at < end && block_end > offset || open_end {
                blocks.push((at, info));
            }
            last = Some((at, info));
            at = block_end;
        }
        Ok(FileBlocks { status, blocks, last })
    }

    /// Whether the caller has all of the `wanted` bits (of a mode: read 4, write 2, execute 1) on what a path names.
    pub fn check_access(&self, caller: &Caller, path: &FsPath, wanted: u16) -> Result<()> {
        self.demand(caller, self.existing_seen(caller, path)?.slot, wanted, path)
    }

    /// What an inode is, under this name.
    pub(crate) fn status_of(&self, slot: u32, name: &str) -> FileStatus {
        let inode = self.inodes.get(slot);
        let permission = self.permission(slot);
        let mut status = FileStatus {
            inode: inode.id,
            name: name.to_owned(),
            mode: u32::from(permission.mode),
            owner: self.interned.names.get(permission.owner).to_string(),
            group: self.interned.names.get(permission.group).to_string(),
            modified_ns: inode.modified_ns,
            accessed_ns: inode.accessed_ns,
            changed_ns: inode.changed_ns,
            has_acl: self.acl_of(slot).is_some(),
            storage_policy: u32::from(self.policy_of(slot)),
            ..FileStatus::default()
        };
        if inode.is_folder() {
            status.kind = FileKind::Folder as i32;
            status.children = u64::from(inode.children());
            status.links = inode.child_folders().saturating_add(2);
            status.snapshottable = inode.is_snapshottable();
            status.erasure_policy = self.coding_below(slot).into();
        } else {
            let layout = self.interned.layouts.get(inode.layout);
            status.kind = FileKind::File as i32;
            status.length = inode.length;
            status.replication = layout.replication;
            status.block_bytes = layout.block_bytes;
            status.erasure_policy = layout.policy.into();
            status.open_for_write = inode.is_open();
            status.links = inode.links;
        }
        status
    }

    /// What an inode is, without a name and without a check of permissions.
    pub fn inode_status(&self, inode: InodeId) -> Option<FileStatus> {
        self.slot_of_inode(inode).map(|slot| self.status_of(slot, ""))
    }

    /// One path of an inode; `None` if it is gone, or only known under further hard links.
    pub fn path_of(&self, inode: InodeId) -> Option<FsPath> {
        let mut names: Vec<String> = Vec::new();
        let mut slot = self.slot_of_inode(inode)?;
        while slot != ROOT {
            let parent = self.inodes.get(slot).parent;
            if parent == NONE {
                return None;
            }
            let mut found = None;
            self.nodes.visit(self.inodes.get(parent).body, b"", &mut |name, child| {
                if child == slot {
                    found = Some(String::from_utf8_lossy(name).into_owned());
                }
                found.is_none()
            });
            names.push(found?);
            slot = parent;
        }
        names.reverse();
        FsPath::parse(&format!("/{}", names.join("/"))).ok()
    }

    pub(crate) fn blocks_of(&self, slot: u32) -> &[u32] {
        let inode = self.inodes.get(slot);
        match inode.blocks() {
            Body::Empty => &[],
            Body::One(_) => std::slice::from_ref(&inode.body),
            Body::List(list) => &self.lists.get(list).0,
        }
    }

    pub(crate) fn slot_of_inode(&self, inode: InodeId) -> Option<u32> {
        self.inode_slots.get(inode.0.checked_sub(InodeId::ROOT.0)?)
    }

    /// The slot of a block or a block group; units have none.
    pub(crate) fn slot_of_block(&self, block: BlockId) -> Option<u32> {
        if block.is_striped() {
            return self.group_slots.get(group_index(block)?);
        }
        self.block_slots.get(block.0.checked_sub(BlockId::FIRST.0)?)
    }

    /// Remembers where a block's record is.
    pub(crate) fn index_block(&mut self, block: BlockId, slot: u32) {
        match group_index(block) {
            Some(index) => self.group_slots.insert(index, slot),
            None => self.block_slots.insert(block.0 - BlockId::FIRST.0, slot),
        }
    }

    /// Forgets where a block's record was.
    pub(crate) fn unindex_block(&mut self, block: BlockId) {
        match group_index(block) {
            Some(index) => self.group_slots.remove(index),
            None => self.block_slots.remove(block.0 - BlockId::FIRST.0),
        }
    }

    pub(crate) fn layout(&self, file: u32) -> Layout {
        *self.interned.layouts.get(self.inodes.get(file).layout)
    }
}
