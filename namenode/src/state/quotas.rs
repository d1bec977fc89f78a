//! Quotas: limits on a folder's tree, and what the tree uses.
//!
//! A folder with a limit has a flag in its record and an entry here, with what its tree uses: names (itself
//! included), and bytes with replicas counted. Setting the first limit counts the tree once; from then on every
//! change of names or blocks is charged to all such folders above it, on the way up the `parent` pointers. Where no
//! quota is set anywhere nothing is counted. As in HDFS, a block counts as a whole block from when it is given to
//! when its length is final, and a file with several names is charged where each of them is. A block group counts
//! with the bytes of all its units, parity included. What only snapshots hold is charged to the folder that they are of
//! (`snapshots::usage`).
//!
//! Always holds: what is used equals a count of the tree by its names, and of what its snapshots keep; an entry
//! without a limit does not exist.
//!
//! The root has no limit unless one is set; Hadoop calls that a limit of 2^63 - 1 names.

use std::collections::BTreeMap;

use proto::{Code, Error, FsPath, InodeId, Result};

use super::inodes::Inode;
use super::interned::Layout;
use super::permissions::denied;
use super::slab::NONE;
use super::tree::not_found;
use super::{ROOT, State, files};
use crate::coding::{Malformed, Reader, put_bool, put_u32, put_u64};
use crate::op::quota::{Limit, QuotaOp, STORAGE_TYPES, StorageType};
use crate::op::{Caller, Reply};

const ENTRY_BYTES_MIN: usize = 8 + 2 + STORAGE_TYPES.len() + 16;

/// What a tree uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Files and folders, by their names.
    pub names: u64,
    /// Bytes, replicas counted.
    pub space: u64,
}

/// The limits of a folder; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of names.
    pub names: Option<u64>,
    /// Of bytes, replicas counted.
    pub space: Option<u64>,
    /// Of bytes on each type of storage, in the order of [`STORAGE_TYPES`].
    pub types: [Option<u64>; STORAGE_TYPES.len()],
}

/// A folder's limits, and what its tree uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// The limits.
    pub limits: Limits,
    /// What is used.
    pub used: Usage,
}

/// A change of what is used under a folder, itself included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Charge {
    pub folder: u32,
    pub names: i64,
    pub space: i64,
}

/// The folders that have a quota, by inode.
#[derive(Default)]
pub(crate) struct Quotas {
    folders: BTreeMap<u64, Quota>,
}

fn error<T>(code: Code, message: String) -> Result<T> {
    Err(Error::new(code, message))
}

/// An amount as a change of usage.
pub(super) fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

impl Limits {
    fn changed(mut self, names: Limit, space: Limit, storage: Option<StorageType>) -> Self {
        let change = |old: &mut Option<u64>, limit| match limit {
            Limit::Keep => {}
            Limit::Clear => *old = None,
            Limit::Set(value) => *old = Some(value),
        };
        match storage {
            None => {
                change(&mut self.names, names);
                change(&mut self.space, space);
            }
            Some(kind) => change(&mut self.types[kind as usize - 1], space),
        }
        self
    }

    /// Of the bytes on disks, where all replicas are.
    fn disk(&self) -> Option<u64> {
        self.types[StorageType::Disk as usize - 1]
    }
}

impl Quotas {
    pub(crate) fn is_empty(&self) -> bool {
        self.folders.is_empty()
    }

    /// Folders with a quota.
    pub(crate) fn len(&self) -> usize {
        self.folders.len()
    }

    /// A folder is gone.
    pub(super) fn forget(&mut self, inode: u64) {
        self.folders.remove(&inode);
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.folders.len() as u32);
        let put_maybe = |out: &mut Vec<u8>, value: Option<u64>| {
            put_bool(out, value.is_some());
            if let Some(value) = value {
                put_u64(out, value);
            }
        };
        for (inode, quota) in &self.folders {
            put_u64(out, *inode);
            put_maybe(out, quota.limits.names);
            put_maybe(out, quota.limits.space);
            for limit in quota.limits.types {
                put_maybe(out, limit);
            }
            put_u64(out, quota.used.names);
            put_u64(out, quota.used.space);
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let maybe = |r: &mut Reader<'_>| -> Result<Option<u64>, Malformed> {
            if r.bool()? { r.u64().map(Some) } else { Ok(None) }
        };
        let mut folders = BTreeMap::new();
        for _ in 0..r.count(ENTRY_BYTES_MIN)? {
            let malformed = r.malformed("a folder with limits, once");
            let inode = r.u64()?;
            let mut limits = Limits { names: maybe(r)?, space: maybe(r)?, ..Limits::default() };
            for limit in &mut limits.types {
                *limit = maybe(r)?;
            }
            let used = Usage { names: r.u64()?, space: r.u64()? };
            let known = folders.insert(inode, Quota { limits, used }).is_some();
            if known || limits == Limits::default() {
                return Err(malformed);
            }
        }
        Ok(Self { folders })
    }
}

impl State {
    pub(super) fn plan_on_quota(&self, caller: &Caller, op: &QuotaOp) -> Result<Option<Reply>> {
        let (slot, limits) = self.plan_set_quota(caller, op)?;
        Ok((self.quota_at(slot).unwrap_or_default().limits == limits).then_some(Reply::Done))
    }

    pub(super) fn perform_on_quota(&mut self, caller: &Caller, op: &QuotaOp) -> Result<Reply> {
        let (slot, limits) = self.plan_set_quota(caller, op)?;
        let id = self.inodes.get(slot).id;
        let none = limits == Limits::default();
        let known = self.inodes.get(slot).has_quota();
        if known && !none {
            self.quotas.folders.get_mut(&id).expect("the flag says so").limits = limits;
        } else if known {
            self.quotas.forget(id);
            self.inodes.get_mut(slot).set_quota(false);
        } else if !none {
            let used = self.usage_of(slot);
            self.quotas.folders.insert(id, Quota { limits, used });
            self.inodes.get_mut(slot).set_quota(true);
        }
        Ok(Reply::Done)
    }

    /// The folder and the limits it is to have.
    fn plan_set_quota(&self, caller: &Caller, op: &QuotaOp) -> Result<(u32, Limits)> {
        let QuotaOp::Set { path, names, space, storage } = op;
        if !caller.superuser {
            let who = &caller.user;
            let message = format!("Access denied for user {who}. Superuser privilege is required");
            return Err(denied(message));
        }
        let slot = self.walk(caller, path)?.target.ok_or_else(|| not_found(path))?;
        if !self.inodes.get(slot).is_folder() {
            return error(Code::NotFolder, format!("{path} is a file: quotas are for folders"));
        }
        if slot == ROOT && storage.is_none() && *names == Limit::Clear {
            let message = "Cannot clear namespace quota on root.".to_owned();
            return error(Code::InvalidArgument, message);
        }
        if storage.is_some() && *names != Limit::Keep {
            let message = format!("{path}: a quota for a type of storage says nothing of names");
            return error(Code::InvalidArgument, message);
        }
        let old = self.quota_at(slot).unwrap_or_default().limits;
        Ok((slot, old.changed(*names, *space, *storage)))
    }

    /// The quota of a folder that has one.
    pub(crate) fn quota_at(&self, slot: u32) -> Option<Quota> {
        let inode = self.inodes.get(slot);
        if inode.has_quota() { self.quotas.folders.get(&inode.id).copied() } else { None }
    }

    /// The quota of the folder of a path; `None` if it has none. Fails if nothing has the path.
    pub fn quota(&self, caller: &Caller, path: &FsPath) -> Result<Option<Quota>> {
        Ok(self.quota_at(self.existing_seen(caller, path)?.slot))
    }

    /// Folders that have a quota, after the inode `after`, in the order of their inodes.
    pub fn quotas_after(&self, after: u64, limit: usize) -> Vec<(InodeId, Quota)> {
        let rest = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        let found = self.quotas.folders.range(rest).take(limit);
        found.map(|(inode, quota)| (InodeId(*inode), *quota)).collect()
    }

    /// Folders with a quota from this one up to the root.
    fn quota_folders(&self, folder: u32) -> impl Iterator<Item = u32> + '_ {
        let first = (!self.quotas.is_empty() && folder != NONE).then_some(folder);
        std::iter::successors(first, |&slot| {
            Some(self.inodes.get(slot).parent).filter(|&parent| parent != NONE)
        })
        .filter(|&slot| self.inodes.get(slot).has_quota())
    }

    /// Whether what happens in this folder is counted anywhere.
    pub(super) fn is_counted(&self, folder: u32) -> bool {
        self.quota_folders(folder).next().is_some()
    }

    /// Whether a move from one folder to the other changes what any quota counts.
    pub(super) fn is_counted_apart(&self, from: u32, to: u32) -> bool {
        !self.quota_folders(from).eq(self.quota_folders(to))
    }

    /// What a tree uses. Takes time in proportion to the tree, as far as it has no quotas of its own.
    pub(super) fn usage_of(&self, slot: u32) -> Usage {
        let mut sum = Usage::default();
        let mut pending = vec![slot];
        while let Some(slot) = pending.pop() {
            let inode = self.inodes.get(slot);
            if let Some(quota) = self.quota_at(slot) {
                sum.names = sum.names.saturating_add(quota.used.names);
                sum.space = sum.space.saturating_add(quota.used.space);
                continue;
            }
            sum.names += 1;
            if inode.is_folder() {
                if inode.is_snapshottable() {
                    let kept = self.kept_by_snapshots(slot);
                    sum.names += kept.files + kept.folders;
                    sum.space = sum.space.saturating_add(kept.space);
                }
                self.nodes.visit(inode.body, b"", &mut |_, child| {
                    pending.push(child);
                    true
                });
            } else {
                sum.space = sum.space.saturating_add(self.space_of(slot));
            }
        }
        sum
    }

    /// The bytes that a file is charged for each of its names: as in HDFS, with what only its frozen copies have of
    /// it, and as many replicas as any of them asks for.
    pub(crate) fn space_of(&self, file: u32) -> u64 {
        let layout = self.charged_layout(file);
        let charged = |&block: &u32| self.charged(block, &layout);
        let copies = self.blocks_of_copies(file);
        self.blocks_of(file).iter().chain(&copies).map(charged).fold(0, u64::saturating_add)
    }

    /// The layout that a file's blocks are charged by: with as many replicas as it or a frozen copy of it asks for.
    pub(super) fn charged_layout(&self, file: u32) -> Layout {
        let mut layout = self.layout(file);
        if !self.inodes.get(file).is_frozen() {
            layout.replication = self.replication_of(file);
        }
        layout
    }

    /// The bytes that a block is charged in a file of this layout: those of a whole one until its length is final.
    pub(super) fn charged(&self, block: u32, layout: &Layout) -> u64 {
        let record = self.blocks.get(block);
        // What only snapshots hold may be coded in another way than the file is now.
        let own = self.layout(record.inode);
        let layout = match own.policy == layout.policy {
            true => *layout,
            false => Layout { replication: layout.replication, ..own },
        };
        if record.state() == files::COMPLETE {
            layout.space(record.length())
        } else {
            layout.space_max()
        }
    }

    /// What a change of a file's space by `space` means where its names are.
    pub(super) fn file_charges(&self, file: u32, space: i64) -> Vec<Charge> {
        if self.quotas.is_empty() || space == 0 {
            return Vec::new();
        }
        let charge = |&folder: &u32| Charge { folder, names: 0, space };
        self.folders_of_file(file).iter().map(charge).collect()
    }

    /// Counts changes in.
    pub(super) fn charge(&mut self, charges: &[Charge]) {
        for charge in charges {
            let folders: Vec<u32> = self.quota_folders(charge.folder).collect();
            for slot in folders {
                let id = self.inodes.get(slot).id;
                let quota = self.quotas.folders.get_mut(&id).expect("the flag says so");
                quota.used.names = quota.used.names.saturating_add_signed(charge.names);
                quota.used.space = quota.used.space.saturating_add_signed(charge.space);
            }
        }
    }

    /// Counts a change of a file's space in.
    pub(super) fn charge_file(&mut self, file: u32, space: i64) {
        let charges = self.file_charges(file, space);
        self.charge(&charges);
    }

    /// Whether `count` new names, made one in another, fit into the quotas over a folder. Tells the first that does
    /// not, as if they were made one by one.
    pub(super) fn demand_names(&self, folder: u32, count: usize) -> Result<()> {
        let room = |names| self.demand_room(&[Charge { folder, names, space: 0 }]);
        match room(signed(count as u64)) {
            Ok(()) => Ok(()),
            Err(error) => {
                Err((1..signed(count as u64)).find_map(|n| room(n).err()).unwrap_or(error))
            }
        }
    }

    /// Whether all changes together fit into every quota that they touch. What shrinks always fits.
    pub(super) fn demand_room(&self, charges: &[Charge]) -> Result<()> {
        let mut sums: Vec<Charge> = Vec::new();
        for charge in charges {
            for folder in self.quota_folders(charge.folder) {
                match sums.iter_mut().find(|sum| sum.folder == folder) {
                    None => sums.push(Charge { folder, ..*charge }),
                    Some(sum) => {
                        sum.names = sum.names.saturating_add(charge.names);
                        sum.space = sum.space.saturating_add(charge.space);
                    }
                }
            }
        }
        sums.iter().try_for_each(|sum| self.demand_room_in(sum))
    }

    /// [`State::demand_room`] of one folder's own quota. The texts are those that Hadoop's users know.
    fn demand_room_in(&self, charge: &Charge) -> Result<()> {
        let Some(Quota { limits, used }) = self.quota_at(charge.folder) else { return Ok(()) };
        let exceeded = |limit: Option<u64>, used: u64, change: i64| {
            let after = used.saturating_add_signed(change);
            limit.filter(|&limit| change > 0 && after > limit).map(|limit| (limit, after))
        };
        let name = || {
            let id = InodeId(self.inodes.get(charge.folder).id);
            self.path_of(id).map_or_else(|| id.to_string(), |path| path.to_string())
        };
        if let Some((limit, after)) = exceeded(limits.names, used.names, charge.names) {
            let message = format!(
                "The NameSpace quota (directories and files) of directory {} is exceeded: \
                 quota={limit} file count={after}",
                name()
            );
            return error(Code::NamespaceQuota, message);
        }
        if let Some((limit, after)) = exceeded(limits.space, used.space, charge.space) {
            let message = format!(
                "The DiskSpace quota of {} is exceeded: quota = {limit} B = {} but diskspace \
                 consumed = {after} B = {}",
                name(),
                rounded(limit),
                rounded(after)
            );
            return error(Code::SpaceQuota, message);
        }
        if let Some((limit, after)) = exceeded(limits.disk(), used.space, charge.space) {
            let message = format!(
                "Quota by storage type : DISK on path : {} is exceeded. quota = {} but space \
                 consumed = {}",
                name(),
                rounded(limit),
                rounded(after)
            );
            return error(Code::TypeQuota, message);
        }
        Ok(())
    }

    /// After loading: every entry is a folder with the flag, and every flag has its entry.
    pub(super) fn check_quotas(&self) -> std::result::Result<(), Malformed> {
        let flagged = |inode: &&Inode| inode.has_quota();
        let count = self.inodes.iter().map(|(_, inode)| inode).filter(flagged).count();
        let known = self.quotas.folders.keys().all(|&id| {
            let slot = self.slot_of_inode(InodeId(id));
            slot.map(|slot| self.inodes.get(slot)).is_some_and(|i| i.has_quota() && i.is_folder())
        });
        if known && count == self.quotas.len() {
            return Ok(());
        }
        Err(Malformed {
            offset: 0,
            expected: "a folder for every quota, and a quota for every flag",
        })
    }
}

/// Bytes with a binary prefix, as Hadoop writes them: "1 MB", "1.50 GB".
fn rounded(bytes: u64) -> String {
    const PREFIXES: [char; 6] = ['K', 'M', 'G', 'T', 'P', 'E'];
    let place = (63 - bytes.max(1).leading_zeros() as usize) / 10;
    let Some(at) = place.checked_sub(1) else { return format!("{bytes} B") };
    let unit = 1u64 << (10 * (at + 1));
    if bytes.is_multiple_of(unit) {
        return format!("{} {}B", bytes / unit, PREFIXES[at]);
    }
    let text = format!("{:.2}", bytes as f64 / unit as f64);
    match PREFIXES.get(at + 1) {
        Some(next) if text.starts_with("1024") => format!("1.00 {next}B"),
        _ => format!("{text} {}B", PREFIXES[at]),
    }
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn bytes_are_written_as_hadoop_does() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KB"),
            (1 << 20, "1 MB"),
            (3 << 29, "1.50 GB"),
            ((1 << 20) - 1, "1.00 MB"),
            (u64::MAX, "16.00 EB"),
        ] {
            assert_eq!(rounded(bytes), text);
        }
    }
}
