//! Walking a tree in slices, so that no reader holds the state for as long as a whole tree takes.
//!
//! A walk remembers, per folder that it is in, the last name it saw; between two slices anything may change. What is
//! there from the beginning to the end and does not move is visited once; what comes, goes or moves meanwhile is
//! visited at most once per place. Its memory is one name per level.

use proto::{Error, FsPath, InodeId, Result};

use super::State;
use super::snapshots::{Look, Seen};
use crate::op::Caller;

/// Where a walk is. Made by [`State::begin_walk`].
pub(crate) struct Walker {
    levels: Vec<Level>,
    /// The path of the entry that was visited last; the levels' lengths are of this.
    path: String,
}

impl Walker {
    /// Whether it is in a snapshot.
    pub(crate) fn is_in_snapshot(&self) -> bool {
        self.levels.first().is_some_and(|level| level.folder.is_none())
    }
}

struct Level {
    /// In a snapshot, where inodes do not tell folders apart, the path finds it.
    folder: Option<InodeId>,
    /// The last name seen in it.
    after: Vec<u8>,
    path_bytes: usize,
}

impl State {
    /// The inode of a path, and a walk through what is under it: nothing, if it is a file.
    pub(crate) fn begin_walk(&self, caller: &Caller, path: &FsPath) -> Result<(u32, Walker)> {
        let Seen { slot, in_snapshot } = self.existing_seen(caller, path)?;
        let inode = self.inodes.get(slot);
        let path = if path.is_root() { String::new() } else { path.as_str().to_owned() };
        let folder = (!in_snapshot).then_some(InodeId(inode.id));
        let level = Level { folder, after: Vec::new(), path_bytes: path.len() };
        let levels = if inode.is_folder() { vec![level] } else { Vec::new() };
        Ok((slot, Walker { levels, path }))
    }

    /// Visits up to `limit` further entries, a folder before what is in it, names in order. Gives whether there may
    /// be more. A visitor's error ends the walk.
    pub(crate) fn walk_on(
        &self,
        walker: &mut Walker,
        limit: usize,
        visit: &mut dyn FnMut(&str, u32) -> Result<()>,
    ) -> Result<bool> {
        let mut left = limit;
        while left > 0 {
            let Some(level) = walker.levels.last_mut() else { return Ok(false) };
            let in_snapshot = level.folder.is_none();
            let folder = match level.folder {
                Some(folder) => self.slot_of_inode(folder),
                None => self.slot_in_snapshot(&walker.path[..level.path_bytes]),
            };
            let Some(folder) = folder.filter(|&slot| self.inodes.get(slot).is_folder()) else {
                walker.levels.pop();
                continue;
            };
            let (mut failed, mut into) = (None::<Error>, None);
            let (path, after) = (&mut walker.path, std::mem::take(&mut level.after));
            let mut last = None;
            let all = self.nodes.visit(self.entries_of(folder), &after, &mut |name, slot| {
                path.truncate(level.path_bytes);
                path.push('/');
                path.push_str(&String::from_utf8_lossy(name));
                last = Some(name.to_vec());
                left -= 1;
                if let Err(error) = visit(path, slot) {
                    failed = Some(error);
                } else if self.inodes.get(slot).is_folder() {
                    into = Some(slot);
                }
                failed.is_none() && into.is_none() && left > 0
            });
            level.after = last.unwrap_or(after);
            if let Some(error) = failed {
                walker.levels.clear();
                return Err(error);
            }
            if let Some(slot) = into {
                let folder = (!in_snapshot).then(|| InodeId(self.inodes.get(slot).id));
                let path_bytes = walker.path.len();
                walker.levels.push(Level { folder, after: Vec::new(), path_bytes });
            } else if all {
                walker.levels.pop();
            }
        }
        Ok(!walker.levels.is_empty())
    }

    /// The inode of a path that a walk came by.
    fn slot_in_snapshot(&self, path: &str) -> Option<u32> {
        let path = FsPath::parse(path).ok()?;
        match self.look(&Caller::superuser(""), &path) {
            Ok(Look::Inode(seen)) => Some(seen.slot),
            _ => None,
        }
    }
}
