//! Paths under `.snapshot`, and what readers ask of snapshots.
//!
//! Reads follow a path with [`State::look`], which goes through `.snapshot`; writes with `State::walk`, which
//! refuses it. Under a snapshot a folder that shares shows the entries of the one that it shares from, which may be
//! live: what is seen is masked, so that it does not show (an open file, a block without bytes).
//!
//! `/folder/.snapshot` itself is no inode: it is answered as a folder with the snapshots as its entries.

use proto::granary::{FileKind, FileStatus};
use proto::limits::LISTING_ENTRIES_MAX;
use proto::{Code, Error, FsPath, InodeId, Result};

use super::super::permissions::{EXECUTE, READ};
use super::super::tree::{Listing, not_found};
use super::super::{ROOT, State};
use super::{DOT_SNAPSHOT, SNAPSHOTS_PER_FOLDER_MAX, Snapshot, not_snapshottable};
use crate::op::Caller;

/// What a reader's path leads to.
#[derive(Clone, Copy)]
pub(crate) enum Look {
    /// Nothing has this path.
    Nothing,
    /// A file or folder.
    Inode(Seen),
    /// `.snapshot` of the folder in this slot.
    Snapshots(u32),
}

/// A file or folder as it is seen at a path.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    pub slot: u32,
    /// It is seen in a snapshot, though its record may be a live one.
    pub in_snapshot: bool,
}

/// A snapshottable folder.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshottableStatus {
    /// The folder under its name.
    pub status: FileStatus,
    /// Its path.
    pub path: FsPath,
    /// Snapshots that it has.
    pub snapshots: u32,
    /// Snapshots that it may have.
    pub limit: u32,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotStatus {
    /// Its root, under the snapshot's name.
    pub status: FileStatus,
    /// Its number.
    pub id: u32,
    /// The folder that it is of.
    pub folder: FsPath,
}

impl State {
    /// Follows a reader's path, through `.snapshot` as well. Fails if a folder on the way may not be passed, or is a
    /// file.
    pub(crate) fn look(&self, caller: &Caller, path: &FsPath) -> Result<Look> {
        let mut seen = Seen { slot: ROOT, in_snapshot: false };
        let mut rest = path.components();
        while let Some(name) = rest.next() {
            let inode = self.inodes.get(seen.slot);
            if !inode.is_folder() {
                let message = format!("{path}: a component before {name:?} is a file");
                return Err(Error::new(Code::ParentNotFolder, message));
            }
            self.demand(caller, seen.slot, EXECUTE, path)?;
            if let Some(child) = self.nodes.find(self.entries_of(seen.slot), name.as_bytes()) {
                seen.slot = child;
                continue;
            }
            if name != DOT_SNAPSHOT || !inode.is_snapshottable() || seen.in_snapshot {
                return Ok(Look::Nothing);
            }
            let Some(snapshot) = rest.next() else { return Ok(Look::Snapshots(seen.slot)) };
            let Some(found) = self.snapshots.named(inode.id, snapshot) else {
                return Ok(Look::Nothing);
            };
            seen = Seen { slot: found.root, in_snapshot: true };
        }
        Ok(Look::Inode(seen))
    }

    /// Fails for a path in a snapshot, or of a folder's snapshots: nothing there is changed.
    pub(crate) fn demand_outside_snapshots(&self, path: &FsPath) -> Result<()> {
        match self.walk(&Caller::superuser(""), path) {
            Err(error) if error.code == Code::ReadOnlySnapshot => Err(error),
            _ => Ok(()),
        }
    }

    /// What a reader's path leads to, which must be a file or folder.
    pub(crate) fn existing_seen(&self, caller: &Caller, path: &FsPath) -> Result<Seen> {
        match self.look(caller, path)? {
            Look::Inode(seen) => Ok(seen),
            Look::Nothing | Look::Snapshots(_) => Err(not_found(path)),
        }
    }

    /// What a reader's path leads to, which must be a file.
    pub(crate) fn existing_file_seen(&self, caller: &Caller, path: &FsPath) -> Result<Seen> {
        let seen = self.existing_seen(caller, path)?;
        if self.inodes.get(seen.slot).is_folder() {
            return Err(Error::new(Code::IsFolder, format!("Path is not a file: {path}")));
        }
        Ok(seen)
    }

    /// The blocks that a file shows anything of, with how much it shows.
    pub(in super::super) fn content_of(&self, file: u32) -> impl Iterator<Item = (u32, u64)> + '_ {
        let mut start = 0;
        let shown = self.blocks_of(file).iter().map(move |&block| {
            let shown = self.shown_from(file, block, start);
            start += shown;
            (block, shown)
        });
        shown.filter(|&(_, shown)| shown > 0)
    }

    /// The root node of a folder's entries, its own or those that it shares.
    pub(crate) fn entries_of(&self, folder: u32) -> u32 {
        let inode = self.inodes.get(folder);
        inode.shared_from().map_or(inode.body, |source| self.inodes.get(source).body)
    }

    /// What is seen, under this name.
    pub(crate) fn status_seen(&self, seen: Seen, name: &str) -> FileStatus {
        let mut status = self.status_of(seen.slot, name);
        status.open_for_write &= !seen.in_snapshot;
        status
    }

    /// `.snapshot` of a folder, as if it were one.
    pub(in super::super) fn status_of_snapshots(&self, folder: u32) -> FileStatus {
        let count = self.snapshots.folders.get(&self.inodes.get(folder).id).map_or(0, |s| s.len());
        FileStatus {
            inode: 0,
            kind: FileKind::Folder as i32,
            children: count as u64,
            links: (count as u32).saturating_add(2),
            ..self.status_of(folder, DOT_SNAPSHOT)
        }
    }

    /// Nothing has a path that was to be listed: in the place of a folder's snapshots HDFS tells that it has none.
    pub(in super::super) fn nothing_listed(&self, path: &FsPath) -> Result<Option<Listing>> {
        let of = path.parent().filter(|_| path.name() == Some(DOT_SNAPSHOT));
        match of.map(|of| (self.look(&Caller::superuser(""), &of), of)) {
            Some((Ok(Look::Inode(seen)), of)) if self.inodes.get(seen.slot).is_folder() => {
                Err(not_snapshottable(&of))
            }
            _ => Ok(None),
        }
    }

    /// The snapshots of a folder by name, after one of them.
    pub(in super::super) fn list_snapshots(&self, folder: u32, after: &str, limit: u32) -> Listing {
        let limit = if limit == 0 { LISTING_ENTRIES_MAX } else { limit.min(LISTING_ENTRIES_MAX) };
        let all = self.snapshots.folders.get(&self.inodes.get(folder).id);
        let from = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        let mut rest = all.into_iter().flat_map(|all| all.range::<str, _>(from));
        let entries = rest.by_ref().take(limit as usize);
        let entries = entries.map(|(name, snapshot)| self.status_of(snapshot.root, name)).collect();
        Listing { entries, remaining: rest.count() as u64 }
    }

    /// The snapshottable folders that the caller owns, or all for a superuser, in the order of their paths.
    pub fn snapshottable_folders(&self, caller: &Caller) -> Vec<SnapshottableStatus> {
        let mut all: Vec<_> = self
            .snapshots
            .folders
            .iter()
            .filter_map(|(&id, snapshots)| {
                let slot = self.slot_of_inode(InodeId(id)).expect("a snapshottable folder is live");
                if !caller.superuser && !self.owns(caller, slot) {
                    return None;
                }
                let path = self.path_of(InodeId(id))?;
                let status = self.status_of(slot, path.name().unwrap_or(""));
                let snapshots = snapshots.len() as u32;
                Some(SnapshottableStatus {
                    status,
                    path,
                    snapshots,
                    limit: SNAPSHOTS_PER_FOLDER_MAX,
                })
            })
            .collect();
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all
    }

    /// Whether snapshots may be made of the folder with this inode.
    pub fn is_snapshottable(&self, inode: InodeId) -> bool {
        self.snapshots.folders.contains_key(&inode.0)
    }

    /// How many folders may have snapshots, and how many snapshots there are.
    pub fn snapshot_counts(&self) -> (u64, u64) {
        let snapshots = self.snapshots.folders.values().map(|of| of.len() as u64).sum();
        (self.snapshots.folders.len() as u64, snapshots)
    }

    /// The snapshots of a folder in the order of their making. Needs `r` and `x` on the folder.
    pub fn snapshots(&self, caller: &Caller, path: &FsPath) -> Result<Vec<SnapshotStatus>> {
        let slot = self.folder_to_snapshot(caller, path)?;
        self.demand(caller, slot, READ | EXECUTE, path)?;
        let status = |(name, snapshot): (&String, &Snapshot)| SnapshotStatus {
            status: self.status_of(snapshot.root, name),
            id: snapshot.id,
            folder: path.clone(),
        };
        let mut all: Vec<_> = self.snapshots_of(slot, path)?.iter().map(status).collect();
        all.sort_by_key(|snapshot| snapshot.id);
        Ok(all)
    }
}
