//! Snapshots: read-only images of a folder's tree, seen under `.snapshot`; and the verbs that make and remove them.
//!
//! | module | owns |
//! |---|---|
//! | `freeze` | what keeps an image as it was: frozen records, shared entries, who holds a block |
//! | `look` | paths under `.snapshot`, and what readers ask of snapshots |
//! | `diff` | what differs between two snapshots |
//! | `image` | snapshots in checkpoints and in the digest |
//! | `unfinished` | blocks that only snapshots hold, and that their writers did not finish |
//! | `usage` | what only snapshots hold, for sums and quotas |
//!
//! Copied lazily, by folder (docs/decisions/0008-snapshots-copied-by-folder.md). A snapshot of a folder is one
//! *frozen* record that *shares* the folder's entries. Before anything under a shared folder changes, the folders on
//! the way from it to the change are copied, each with the records of its direct children; folders among these share
//! again. So a snapshot costs one record, and then what changes, by folders.
//!
//! Always holds: what a frozen folder shares is as it was when it was frozen; a frozen record has one name at most
//! and is not among the live inodes by id, nor counted; no folder above or below a snapshottable one is
//! snapshottable; a folder with snapshots, or one above it, is neither deleted nor renamed.

mod diff;
mod freeze;
mod image;
mod look;
#[cfg(test)]
mod tests;
mod unfinished;
mod usage;

use std::collections::BTreeMap;

use proto::limits::NAME_BYTES_MAX;
use proto::{Code, Error, FsPath, Result};

pub use diff::{DiffEntry, DiffKind, SNAPSHOT_DIFF_ENTRIES_MAX, SnapshotDiff};
pub(crate) use look::{Look, Seen};
pub use look::{SnapshotStatus, SnapshottableStatus};
pub use usage::Kept;
pub(crate) use usage::KeptWalk;

use super::permissions::denied;
use super::slab::NONE;
use super::tree::not_found;
use super::{ROOT, State};
use crate::op::snapshot::SnapshotOp;
use crate::op::{Caller, Effect, Reply};

/// The name under which the snapshots of a folder are seen. Nothing else can have it.
pub const DOT_SNAPSHOT: &str = ".snapshot";
/// Snapshots of one folder, at most (HDFS's default).
pub const SNAPSHOTS_PER_FOLDER_MAX: u32 = 65_536;
/// Numbers of snapshots, as Hadoop's clients know them, are below this.
const SNAPSHOT_IDS_END: u32 = 1 << 24;

/// One snapshot.
#[derive(Clone, Copy)]
struct Snapshot {
    /// Given in sequence over all folders.
    id: u32,
    /// The slot of its frozen folder.
    root: u32,
    created_ns: i64,
}

/// All snapshots, and who shares or holds what.
#[derive(Default)]
pub(crate) struct Snapshots {
    /// Snapshottable folders by inode; their snapshots by name.
    folders: BTreeMap<u64, BTreeMap<String, Snapshot>>,
    next_id: u32,
    /// How much of a block a file shows, where that is less than the block has: by file and block.
    bounds: BTreeMap<(u32, u32), u32>,
    /// The frozen folders that share the entries of a folder, in the order of their making. Not stored: the frozen
    /// folders say it.
    sharers: BTreeMap<u32, Vec<u32>>,
    /// Frozen files and folders by inode, each with the live folder whose snapshots own it. Not stored.
    copies: BTreeMap<(u64, u32), u32>,
    /// What only the snapshots of a live folder hold. Not stored.
    kept: BTreeMap<u32, Kept>,
}

fn error<T>(code: Code, message: String) -> Result<T> {
    Err(Error::new(code, message))
}

/// Hadoop's text for a write into a snapshot.
pub(crate) fn read_only() -> Error {
    Error::new(Code::ReadOnlySnapshot, "Modification on a read-only snapshot is disallowed")
}

/// Hadoop's text where a folder of this path has no snapshots and may have none.
pub(crate) fn not_snapshottable(path: &FsPath) -> Error {
    let message = format!("Directory is not a snapshottable directory: {path}");
    Error::new(Code::Snapshot, message)
}

/// Nothing may be made under the name that snapshots have.
pub(crate) fn demand_no_reserved_name(path: &FsPath) -> Result<()> {
    if path.components().any(|name| name == DOT_SNAPSHOT) {
        return error(Code::InvalidArgument, format!("\"{DOT_SNAPSHOT}\" is a reserved name."));
    }
    Ok(())
}

/// The name that a snapshot gets if nobody gives one: `s20260131-235959.007`, in UTC.
fn name_of_time(now_ns: i64) -> String {
    let millis = now_ns.div_euclid(1_000_000);
    let (seconds, millis) = (millis.div_euclid(1_000), millis.rem_euclid(1_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01, in eras of 400 years (Hinnant, "chrono-compatible low-level date algorithms").
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * shifted + 2) / 5 + 1, (shifted + 2) % 12 + 1);
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("s{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}.{millis:03}")
}

impl Snapshots {
    /// Whether no snapshot shares anything: then a change has nothing to preserve.
    pub(super) fn share_nothing(&self) -> bool {
        self.sharers.is_empty()
    }

    /// Bytes of memory of the tables; the frozen records are among the others.
    pub(super) fn memory_bytes(&self) -> usize {
        // Nodes of a B-tree are 3/4 full in the long run.
        self.copies.len() * 28 + self.sharers.len() * 48 + self.bounds.len() * 16
    }

    fn named(&self, folder: u64, name: &str) -> Option<&Snapshot> {
        self.folders.get(&folder)?.get(name)
    }
}

impl State {
    pub(super) fn plan_on_snapshot(
        &self,
        caller: &Caller,
        now: i64,
        op: &SnapshotOp,
    ) -> Result<Option<Reply>> {
        match op {
            SnapshotOp::Allow { path } => {
                let slot = self.plan_allow(caller, path)?;
                Ok(self.inodes.get(slot).is_snapshottable().then_some(Reply::Done))
            }
            SnapshotOp::Disallow { path } => {
                let slot = self.plan_disallow(caller, path)?;
                Ok((!self.inodes.get(slot).is_snapshottable()).then_some(Reply::Done))
            }
            SnapshotOp::Create { path, name } => {
                self.plan_create_snapshot(caller, path, name, now).map(|_| None)
            }
            SnapshotOp::Delete { path, name } => {
                self.plan_delete_snapshot(caller, path, name).map(|_| None)
            }
            SnapshotOp::Rename { path, from, to } => {
                self.plan_rename_snapshot(caller, path, from, to)?;
                Ok((from == to).then_some(Reply::Done))
            }
        }
    }

    pub(super) fn perform_on_snapshot(
        &mut self,
        caller: &Caller,
        now: i64,
        op: &SnapshotOp,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply> {
        match op {
            SnapshotOp::Allow { path } => {
                let slot = self.plan_allow(caller, path)?;
                let inode = self.inodes.get_mut(slot);
                inode.set_snapshottable(true);
                self.snapshots.folders.entry(inode.id).or_default();
                Ok(Reply::Done)
            }
            SnapshotOp::Disallow { path } => {
                let slot = self.plan_disallow(caller, path)?;
                self.forget_snapshottable(slot);
                self.inodes.get_mut(slot).set_snapshottable(false);
                Ok(Reply::Done)
            }
            SnapshotOp::Create { path, name } => {
                let (slot, name) = self.plan_create_snapshot(caller, path, name, now)?;
                let seen = path.join(DOT_SNAPSHOT)?.join(&name)?;
                self.create_snapshot(slot, name, now);
                Ok(Reply::Snapshot(seen))
            }
            SnapshotOp::Delete { path, name } => {
                let slot = self.plan_delete_snapshot(caller, path, name)?;
                let id = self.inodes.get(slot).id;
                let snapshots = self.snapshots.folders.get_mut(&id).expect("planned");
                let gone = snapshots.remove(name).expect("planned");
                self.touch_folder(slot, now);
                self.drop_frozen(gone.root, effects);
                Ok(Reply::Done)
            }
            SnapshotOp::Rename { path, from, to } => {
                let slot = self.plan_rename_snapshot(caller, path, from, to)?;
                let id = self.inodes.get(slot).id;
                let snapshots = self.snapshots.folders.get_mut(&id).expect("planned");
                // The same name may be one that is not there.
                if let Some(snapshot) = snapshots.remove(from) {
                    snapshots.insert(to.clone(), snapshot);
                }
                Ok(Reply::Done)
            }
        }
    }

    /// Takes a folder off the list of those that may have snapshots; it has none.
    pub(super) fn forget_snapshottable(&mut self, slot: u32) {
        let inode = self.inodes.get(slot);
        if inode.is_snapshottable() {
            self.snapshots.folders.remove(&inode.id);
        }
    }

    /// As HDFS has it, a folder's time changes when it gets or loses a snapshot.
    fn touch_folder(&mut self, slot: u32, now: i64) {
        self.preserve(slot);
        let inode = self.inodes.get_mut(slot);
        inode.modified_ns = now;
        inode.changed_ns = now;
    }

    fn create_snapshot(&mut self, slot: u32, name: String, now: i64) {
        self.touch_folder(slot, now);
        let root = self.freeze_copy(slot, slot);
        let snapshot = Snapshot { id: self.snapshots.next_id, root, created_ns: now };
        self.snapshots.next_id += 1;
        let folder = self.inodes.get(slot).id;
        self.snapshots.folders.get_mut(&folder).expect("planned").insert(name, snapshot);
    }

    /// The live folder of a path, for a verb on its snapshots.
    fn folder_to_snapshot(&self, caller: &Caller, path: &FsPath) -> Result<u32> {
        let slot = self.walk(caller, path)?.target.ok_or_else(|| not_found(path))?;
        self.demand_folder(slot, path)
    }

    fn demand_folder(&self, slot: u32, path: &FsPath) -> Result<u32> {
        if !self.inodes.get(slot).is_folder() {
            return error(Code::NotFolder, format!("{path} is a file: folders have snapshots"));
        }
        Ok(slot)
    }

    fn plan_allow(&self, caller: &Caller, path: &FsPath) -> Result<u32> {
        demand_superuser(caller)?;
        let slot = self.folder_to_snapshot(caller, path)?;
        if let Some(above) = self.snapshottable_above(slot) {
            let message = format!(
                "Nested snapshottable directories not allowed: path={path}, the ancestor {} is \
                 already a snapshottable directory.",
                self.shown_path(above)
            );
            return error(Code::Snapshot, message);
        }
        let under = self.snapshottables_under(slot).find(|&found| found != slot);
        if let Some(under) = under {
            let message = format!(
                "Nested snapshottable directories not allowed: path={path}, the subdirectory {} \
                 is already a snapshottable directory.",
                self.shown_path(under)
            );
            return error(Code::Snapshot, message);
        }
        Ok(slot)
    }

    fn plan_disallow(&self, caller: &Caller, path: &FsPath) -> Result<u32> {
        demand_superuser(caller)?;
        let slot = self.folder_to_snapshot(caller, path)?;
        let snapshots = self.snapshots.folders.get(&self.inodes.get(slot).id);
        if snapshots.is_some_and(|snapshots| !snapshots.is_empty()) {
            let message = format!(
                "The directory {path} has snapshot(s). Please redo the operation after removing \
                 all the snapshots."
            );
            return error(Code::Snapshot, message);
        }
        Ok(slot)
    }

    /// A snapshottable folder that the caller owns, with its snapshots.
    fn own_snapshottable(
        &self,
        caller: &Caller,
        path: &FsPath,
    ) -> Result<(u32, &BTreeMap<String, Snapshot>)> {
        let slot = self.walk(caller, path)?.target.ok_or_else(|| not_found(path))?;
        self.demand_owner(caller, slot, path)?;
        self.demand_folder(slot, path)?;
        Ok((slot, self.snapshots_of(slot, path)?))
    }

    fn snapshots_of(&self, slot: u32, path: &FsPath) -> Result<&BTreeMap<String, Snapshot>> {
        let inode = self.inodes.get(slot);
        match self.snapshots.folders.get(&inode.id).filter(|_| inode.is_snapshottable()) {
            Some(snapshots) => Ok(snapshots),
            None => Err(not_snapshottable(path)),
        }
    }

    fn plan_create_snapshot(
        &self,
        caller: &Caller,
        path: &FsPath,
        name: &str,
        now: i64,
    ) -> Result<(u32, String)> {
        let (slot, snapshots) = self.own_snapshottable(caller, path)?;
        let name = if name.is_empty() { name_of_time(now) } else { name.to_owned() };
        check_snapshot_name(path, &name)?;
        if snapshots.contains_key(&name) {
            let message = format!(
                "Failed to add snapshot: there is already a snapshot with the same name \"{name}\"."
            );
            return error(Code::Snapshot, message);
        }
        if snapshots.len() >= SNAPSHOTS_PER_FOLDER_MAX as usize {
            let message = format!(
                "Failed to add snapshot: there are already {} snapshot(s) and the snapshot quota \
                 is {SNAPSHOTS_PER_FOLDER_MAX}",
                snapshots.len()
            );
            return error(Code::Snapshot, message);
        }
        if self.snapshots.next_id >= SNAPSHOT_IDS_END {
            let message = "Failed to create the snapshot. The FileSystem has run out of snapshot \
                           IDs and ID rollover is not supported.";
            return error(Code::Snapshot, message.to_owned());
        }
        Ok((slot, name))
    }

    fn plan_delete_snapshot(&self, caller: &Caller, path: &FsPath, name: &str) -> Result<u32> {
        let (slot, snapshots) = self.own_snapshottable(caller, path)?;
        if !snapshots.contains_key(name) {
            let message = format!(
                "Cannot delete snapshot {name} from path {path}: the snapshot does not exist."
            );
            return error(Code::Snapshot, message);
        }
        Ok(slot)
    }

    fn plan_rename_snapshot(
        &self,
        caller: &Caller,
        path: &FsPath,
        from: &str,
        to: &str,
    ) -> Result<u32> {
        let (slot, snapshots) = self.own_snapshottable(caller, path)?;
        check_snapshot_name(path, to)?;
        // HDFS does not look whether it is there.
        if from == to {
            return Ok(slot);
        }
        if !snapshots.contains_key(from) {
            let message = format!("The snapshot {from} does not exist for directory {path}");
            return error(Code::Snapshot, message);
        }
        if snapshots.contains_key(to) {
            let message = format!("The snapshot {to} already exists for directory {path}");
            return error(Code::Snapshot, message);
        }
        Ok(slot)
    }

    /// The nearest snapshottable folder above an inode, itself left out.
    fn snapshottable_above(&self, slot: u32) -> Option<u32> {
        let mut slot = self.inodes.get(slot).parent;
        while slot != NONE && !self.inodes.get(slot).is_snapshottable() {
            slot = self.inodes.get(slot).parent;
        }
        (slot != NONE).then_some(slot)
    }

    /// The snapshottable folders in the tree under an inode, itself included.
    fn snapshottables_under(&self, root: u32) -> impl Iterator<Item = u32> + '_ {
        let slots = self.snapshots.folders.keys().map(|&id| {
            self.slot_of_inode(proto::InodeId(id)).expect("a snapshottable folder is live")
        });
        slots.filter(move |&slot| {
            let mut at = slot;
            while at != root && at != ROOT {
                at = self.inodes.get(at).parent;
            }
            at == root
        })
    }

    /// A folder with snapshots stays where it is, and so do the folders above it.
    pub(super) fn demand_no_snapshots(&self, slot: u32, path: &FsPath) -> Result<()> {
        if self.snapshots.folders.is_empty() || !self.inodes.get(slot).is_folder() {
            return Ok(());
        }
        let full = |&slot: &u32| !self.snapshots.folders[&self.inodes.get(slot).id].is_empty();
        match self.snapshottables_under(slot).find(full) {
            None => Ok(()),
            Some(found) => {
                let message = format!(
                    "The directory {path} cannot be deleted since {} is snapshottable and already \
                     has snapshots",
                    self.shown_path(found)
                );
                error(Code::Snapshot, message)
            }
        }
    }

    /// A tree with snapshottable folders may not be moved under another one.
    pub(super) fn demand_not_nested(&self, slot: u32, to: u32, target: &FsPath) -> Result<()> {
        if self.snapshots.folders.is_empty() || !self.inodes.get(slot).is_folder() {
            return Ok(());
        }
        let nested =
            self.inodes.get(to).is_snapshottable() || self.snapshottable_above(to).is_some();
        if nested && self.snapshottables_under(slot).next().is_some() {
            let message = format!(
                "Nested snapshottable directories not allowed: {target} would lie within one, and \
                 what is moved there has one"
            );
            return error(Code::Snapshot, message);
        }
        Ok(())
    }

    fn shown_path(&self, slot: u32) -> String {
        let id = proto::InodeId(self.inodes.get(slot).id);
        self.path_of(id).map_or_else(|| id.to_string(), |path| path.to_string())
    }
}

pub(super) fn demand_superuser(caller: &Caller) -> Result<()> {
    if caller.superuser {
        return Ok(());
    }
    let user = &caller.user;
    Err(denied(format!("Access denied for user {user}. Superuser privilege is required")))
}

fn check_snapshot_name(path: &FsPath, name: &str) -> Result<()> {
    let fits = !name.is_empty() && name.len() <= NAME_BYTES_MAX && name != DOT_SNAPSHOT;
    let named = path.join(DOT_SNAPSHOT)?.join(name);
    if !fits || name.contains(':') || named.is_err() {
        let shown: String = name.chars().take(200).collect();
        let message = format!("Invalid path name Invalid snapshot name: {shown}");
        return error(Code::InvalidPath, message);
    }
    Ok(())
}
