//! What differs between two snapshots of a folder, or between a snapshot and the folder as it is.
//!
//! Both trees are walked side by side, folder by folder of the same inode. Where both share the same entries nothing
//! below differs, and the walk ends: it takes time in proportion to what changed, by folders. An inode that went from
//! one name and came up under another was renamed; a renamed folder is walked as well. The walk always goes from the
//! earlier to the later; a report the other way round is its mirror image.
//!
//! As in HDFS a folder is modified if it lost or got entries, or if its owner, group, mode or attributes differ;
//! a file if its content, replication or those differ. Times alone do not count.

use std::collections::BTreeMap;

use proto::{Code, Error, FsPath, InodeId, Result};

use super::super::State;
use super::super::permissions::{EXECUTE, READ};
use crate::op::Caller;

/// Entries of one report, at most.
pub const SNAPSHOT_DIFF_ENTRIES_MAX: usize = 1 << 20;

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiffKind {
    /// It is there in both, and differs.
    Modified,
    /// It is there in the second alone.
    Created,
    /// It is there in the first alone.
    Deleted,
    /// It has another path in the second.
    Renamed,
}

impl DiffKind {
    /// Hadoop's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Created => "+",
            Self::Deleted => "-",
            Self::Modified => "M",
            Self::Renamed => "R",
        }
    }
}

/// One difference. Paths are relative to the folder, without a leading slash; the folder itself is empty. As in HDFS,
/// what is in a folder that was renamed is told under the folder's first name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiffEntry {
    /// What became of it.
    pub kind: DiffKind,
    /// Its path.
    pub path: String,
    /// Of what was renamed, the path that it went to.
    pub target: Option<String>,
    /// What it is about.
    pub inode: InodeId,
    /// The folder among whose changes it is told: the one that it is or was in; a folder that was modified itself.
    pub folder: InodeId,
}

/// All differences of two snapshots, or of one and the folder as it is, from the earlier to the later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotDiff {
    /// Whether the first that was asked for is the earlier one.
    pub from_earlier: bool,
    /// In the order of a report.
    pub entries: Vec<DiffEntry>,
}

impl DiffEntry {
    /// The same, told from the later to the earlier.
    fn mirrored(self) -> Self {
        match (self.kind, self.target) {
            (DiffKind::Created, target) => Self { kind: DiffKind::Deleted, target, ..self },
            (DiffKind::Deleted, target) => Self { kind: DiffKind::Created, target, ..self },
            (DiffKind::Renamed, Some(target)) => {
                Self { path: target, target: Some(self.path), ..self }
            }
            (kind, target) => Self { kind, target, ..self },
        }
    }
}

/// An entry that is in one of two folders alone.
struct Lone {
    slot: u32,
    path: String,
    /// The id of the folder that it is in.
    folder: u64,
    /// It came along with a new folder: told of only if it was renamed.
    within_new: bool,
}

/// Where an entry stands in a report, as in HDFS: by the folder or file that it is about, those nearer to the root first;
/// there first that it is modified, then what came, then what went; then by path.
type Place = (usize, Vec<String>, u8, String);

/// What is told there.
struct Told {
    kind: DiffKind,
    target: Option<String>,
    inode: u64,
    folder: u64,
}

/// A walk over two trees.
struct Walker<'s> {
    state: &'s State,
    caller: &'s Caller,
    root: &'s FsPath,
    /// Folders to compare: slots in the first and second, and the path.
    pending: Vec<(u32, u32, String)>,
    found: BTreeMap<Place, Told>,
    /// What came and went, by inode.
    created: BTreeMap<u64, Vec<Lone>>,
    deleted: BTreeMap<u64, Vec<Lone>>,
}

impl State {
    /// What differs from the snapshot `from` to the snapshot `to` of a folder; an empty name is the folder as it is.
    /// Needs `r` and `x` on every folder that is looked into.
    pub fn snapshot_diff(
        &self,
        caller: &Caller,
        path: &FsPath,
        from: &str,
        to: &str,
    ) -> Result<Vec<DiffEntry>> {
        let SnapshotDiff { from_earlier, entries } =
            self.snapshot_changes(caller, path, from, to)?;
        if from_earlier {
            return Ok(entries);
        }
        Ok(entries.into_iter().map(DiffEntry::mirrored).collect())
    }

    /// The same, told from the earlier to the later, whichever of them is `from`.
    pub fn snapshot_changes(
        &self,
        caller: &Caller,
        path: &FsPath,
        from: &str,
        to: &str,
    ) -> Result<SnapshotDiff> {
        let folder = self.folder_to_snapshot(caller, path)?;
        if !(from.is_empty() && to.is_empty()) {
            // A snapshot is below the folder: who may not pass is told so before anything else.
            self.demand(caller, folder, EXECUTE, path)?;
        }
        let snapshots = self.snapshots_of(folder, path)?;
        let root = |name: &str| match snapshots.get(name) {
            _ if name.is_empty() => Ok((u32::MAX, folder)),
            Some(snapshot) => Ok((snapshot.id, snapshot.root)),
            None => {
                let message =
                    format!("Cannot find the snapshot of directory {path} with name {name}");
                Err(Error::new(Code::Snapshot, message))
            }
        };
        let (from, to) = (root(from)?, root(to)?);
        let (from_earlier, (_, earlier), (_, later)) = (from <= to, from.min(to), from.max(to));
        let mut walker = Walker {
            state: self,
            caller,
            root: path,
            pending: vec![(earlier, later, String::new())],
            found: BTreeMap::new(),
            created: BTreeMap::new(),
            deleted: BTreeMap::new(),
        };
        walker.walk()?;
        let entry = |((.., path), Told { kind, target, inode, folder }): (Place, Told)| DiffEntry {
            kind,
            path,
            target,
            inode: InodeId(inode),
            folder: InodeId(folder),
        };
        let entries = walker.found.into_iter().map(entry).collect();
        Ok(SnapshotDiff { from_earlier, entries })
    }

    /// Whether two records of the same inode differ in what a report tells, their entries left out.
    fn differs(&self, from: u32, to: u32) -> bool {
        if from == to {
            return false;
        }
        let (a, b) = (self.inodes.get(from), self.inodes.get(to));
        let attached = |slot| self.attached(slot).map(|it| (it.policy, &it.acl, &it.xattrs));
        if a.permission != b.permission || attached(from) != attached(to) {
            return true;
        }
        if a.is_folder() {
            return false;
        }
        a.layout != b.layout
            || a.length != b.length
            || !self.content_of(from).eq(self.content_of(to))
    }
}

impl Walker<'_> {
    fn walk(&mut self) -> Result<()> {
        loop {
            while let Some((from, to, path)) = self.pending.pop() {
                self.compare_folders(from, to, path)?;
            }
            self.look_into_new_folders()?;
            self.match_renames()?;
            if self.pending.is_empty() {
                break;
            }
        }
        for (kind, lone) in [
            (DiffKind::Created, std::mem::take(&mut self.created)),
            (DiffKind::Deleted, std::mem::take(&mut self.deleted)),
        ] {
            let all = lone
                .into_iter()
                .flat_map(|(inode, lone)| lone.into_iter().map(move |l| (inode, l)));
            for (inode, Lone { path, folder, .. }) in all.filter(|(_, lone)| !lone.within_new) {
                self.tell(path, Told { kind, target: None, inode, folder })?;
            }
        }
        Ok(())
    }

    fn compare_folders(&mut self, from: u32, to: u32, path: String) -> Result<()> {
        let state = self.state;
        let (a, b) = (state.entries_owner(from), state.entries_owner(to));
        let mut modified = state.differs(from, to);
        let folder = state.inodes.get(from).id;
        if a != b {
            state.demand(self.caller, from, READ | EXECUTE, self.root)?;
            state.demand(self.caller, to, READ | EXECUTE, self.root)?;
            let mut before = BTreeMap::new();
            state.nodes.visit(state.inodes.get(a).body, b"", &mut |name, child| {
                before.insert(name.to_vec(), child);
                true
            });
            let mut after = Vec::new();
            state.nodes.visit(state.inodes.get(b).body, b"", &mut |name, child| {
                after.push((name.to_vec(), child));
                true
            });
            let id = |slot: u32| state.inodes.get(slot).id;
            for (name, new) in after {
                let path = below(&path, &name);
                match before.get(&name) {
                    Some(&old) if id(old) == id(new) => {
                        before.remove(&name);
                        self.compare(old, new, folder, path)?;
                    }
                    _ => {
                        modified = true;
                        let lone = Lone { slot: new, path, folder, within_new: false };
                        self.created.entry(id(new)).or_default().push(lone);
                    }
                }
            }
            modified |= !before.is_empty();
            for (name, old) in before {
                let path = below(&path, &name);
                let lone = Lone { slot: old, path, folder, within_new: false };
                self.deleted.entry(id(old)).or_default().push(lone);
            }
        }
        if !modified {
            return Ok(());
        }
        self.tell(path, Told { kind: DiffKind::Modified, target: None, inode: folder, folder })
    }

    /// The same inode in both trees; `folder` is the id of the one it was in.
    fn compare(&mut self, old: u32, new: u32, folder: u64, path: String) -> Result<()> {
        if self.state.inodes.get(old).is_folder() {
            self.pending.push((old, new, path));
        } else if self.state.differs(old, new) {
            let inode = self.state.inodes.get(old).id;
            self.tell(path, Told { kind: DiffKind::Modified, target: None, inode, folder })?;
        }
        Ok(())
    }

    /// What went from one place may have come up within a folder that is new.
    fn look_into_new_folders(&mut self) -> Result<()> {
        if self.deleted.is_empty() {
            return Ok(());
        }
        let state = self.state;
        let is_new = |entry: &&Lone| {
            let inode = state.inodes.get(entry.slot);
            inode.is_folder() && !entry.within_new && !self.deleted.contains_key(&inode.id)
        };
        let tops = self.created.values().flatten().filter(is_new);
        let mut folders: Vec<_> = tops.map(|entry| (entry.slot, entry.path.clone())).collect();
        let mut within = Vec::new();
        while let Some((folder, path)) = folders.pop() {
            state.demand(self.caller, folder, READ | EXECUTE, self.root)?;
            let id = state.inodes.get(folder).id;
            state.nodes.visit(state.entries_of(folder), b"", &mut |name, slot| {
                let inode = state.inodes.get(slot);
                if self.deleted.contains_key(&inode.id) {
                    let path = below(&path, name);
                    within.push((inode.id, Lone { slot, path, folder: id, within_new: true }));
                } else if inode.is_folder() {
                    folders.push((slot, below(&path, name)));
                }
                true
            });
        }
        for (id, lone) in within {
            self.created.entry(id).or_default().push(lone);
        }
        Ok(())
    }

    /// What went from one place and came up in another was renamed.
    fn match_renames(&mut self) -> Result<()> {
        let both: Vec<u64> =
            self.deleted.keys().filter(|id| self.created.contains_key(id)).copied().collect();
        for id in both {
            let (Some(mut gone), Some(mut come)) =
                (self.deleted.remove(&id), self.created.remove(&id))
            else {
                continue;
            };
            while !gone.is_empty() && !come.is_empty() {
                let (old, new) = (gone.remove(0), come.remove(0));
                let (kind, folder) = (DiffKind::Renamed, old.folder);
                let told = Told { kind, target: Some(new.path), inode: id, folder };
                self.tell(old.path.clone(), told)?;
                self.compare(old.slot, new.slot, folder, old.path)?;
            }
            if !gone.is_empty() {
                self.deleted.insert(id, gone);
            }
            if !come.is_empty() {
                self.created.insert(id, come);
            }
        }
        Ok(())
    }

    fn tell(&mut self, path: String, told: Told) -> Result<()> {
        if self.found.len() >= SNAPSHOT_DIFF_ENTRIES_MAX {
            let root = self.root;
            let message =
                format!("{root}: more than {SNAPSHOT_DIFF_ENTRIES_MAX} differences in one report");
            return Err(Error::new(Code::LimitExceeded, message));
        }
        let (about, rank) = match told.kind {
            DiffKind::Modified => (&path[..], 0),
            DiffKind::Created => (folder_of(&path), 1),
            DiffKind::Deleted | DiffKind::Renamed => (folder_of(&path), 2),
        };
        let names = about.split('/').filter(|name| !name.is_empty()).map(String::from);
        let names: Vec<_> = names.collect();
        self.found.insert((names.len(), names, rank, path), told);
        Ok(())
    }
}

impl State {
    /// The folder whose record has the root node of a folder's entries.
    fn entries_owner(&self, folder: u32) -> u32 {
        self.inodes.get(folder).shared_from().unwrap_or(folder)
    }
}

fn below(folder: &str, name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    if folder.is_empty() { name.into_owned() } else { format!("{folder}/{name}") }
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
