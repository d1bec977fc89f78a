//! The verbs on names and attributes: from the kernel's inodes and components to paths, one call to
//! the NameNode, and what the kernel is told.
//!
//! Each verb first finds the path, without holding the map's lock over the call, and notes
//! afterwards what changed. If another client has moved things meanwhile, a path leads to another
//! inode than the kernel meant: that is `ESTALE`, upon which the kernel looks the names up again.

use std::ffi::OsStr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use client::{FileStatus, Fs, FsPath, Recursion, RenameMode};
use fuser::{Errno, FileAttr, RenameFlags, TimeOrNow};
use proto::Code;
use proto::limits::NAME_BYTES_MAX;
use tokio::runtime::Handle as Runtime;

use crate::Options;
use crate::attributes::{attributes, is_folder, nanoseconds};
use crate::errno::told;
use crate::inode_map::{InodeMap, number_of};
use crate::open_files::{OpenFile, OpenFiles};
use crate::owners::{Kind, Owners};

/// What a mount is made of: shared by the threads that take the kernel's requests and the tasks
/// that answer them.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) fs: Fs,
    pub(crate) runtime: Runtime,
    pub(crate) options: Options,
    pub(crate) open: OpenFiles,
    pub(crate) owners: Owners,
    inodes: Mutex<InodeMap>,
}

/// Who asks, as the kernel says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What `setattr` is to change; `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) accessed: Option<TimeOrNow>,
    pub(crate) modified: Option<TimeOrNow>,
}

/// What `statfs` shows, in units of [`Space::UNIT_BYTES`] and files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    pub(crate) blocks: u64,
    pub(crate) free: u64,
    pub(crate) files: u64,
    pub(crate) files_free: u64,
}

impl Space {
    pub(crate) const UNIT_BYTES: u32 = 4096;
}

impl Mounted {
    pub(crate) fn new(fs: Fs, runtime: Runtime, options: Options) -> Self {
        Self {
            fs,
            runtime,
            options,
            open: OpenFiles::default(),
            owners: Owners::default(),
            inodes: Mutex::new(InodeMap::new()),
        }
    }

    pub(crate) fn inodes(&self) -> MutexGuard<'_, InodeMap> {
        self.inodes.lock().expect("nobody panics while holding the map")
    }

    /// How long the kernel may keep attributes and names.
    pub(crate) fn ttl(&self) -> Duration {
        Duration::from_millis(self.options.attribute_ttl_ms)
    }

    /// A path of an inode that has one.
    pub(crate) fn path(&self, number: u64) -> Result<FsPath, Errno> {
        self.inodes().path(number).ok_or(Errno::ESTALE)
    }

    /// The path of a component in a folder.
    pub(crate) fn child(&self, parent: u64, name: &str) -> Result<FsPath, Errno> {
        self.path(parent)?.join(name).map_err(told("a name"))
    }

    /// The attributes that the kernel is shown. Of a file that is being written here, the size is
    /// what was written.
    pub(crate) async fn shown(&self, status: &FileStatus) -> FileAttr {
        let mut shown = attributes(status, self.owners.ids(&status.owner, &status.group).await);
        if let Some(position) = self.open.file(shown.ino.0).and_then(|file| file.position()) {
            shown.size = shown.size.max(position);
            shown.blocks = shown.size.div_ceil(512);
        }
        shown
    }

    pub(crate) async fn lookup(&self, parent: u64, name: &str) -> Result<FileAttr, Errno> {
        let path = self.child(parent, name)?;
        match self.fs.try_status(&path).await.map_err(told("lookup"))? {
            Some(status) => Ok(self.enter(parent, name, &status).await),
            None => {
                self.inodes().removed(parent, name);
                Err(Errno::ENOENT)
            }
        }
    }

    /// Notes that the kernel is told of a name, and what it is told.
    pub(crate) async fn enter(&self, parent: u64, name: &str, status: &FileStatus) -> FileAttr {
        let shown = self.shown(status).await;
        self.inodes().looked_up(parent, name, shown.ino.0);
        self.note(status);
        shown
    }

    /// An open file is told what the NameNode says of it.
    fn note(&self, status: &FileStatus) {
        if let Some(file) = self.open.file(number_of(status.inode)) {
            file.seen(status.clone());
        }
    }

    /// What the NameNode says of an inode, by one of its names.
    pub(crate) async fn status(&self, number: u64) -> Result<FileStatus, Errno> {
        let path = self.path(number)?;
        let status = self.fs.try_status(&path).await.map_err(told("getattr"))?;
        let status = status.ok_or(Errno::ESTALE)?;
        if number_of(status.inode) != number {
            return Err(Errno::ESTALE);
        }
        self.note(&status);
        Ok(status)
    }

    pub(crate) async fn getattr(&self, number: u64) -> Result<FileAttr, Errno> {
        match self.status(number).await {
            Ok(status) => Ok(self.shown(&status).await),
            // A file without a name that a program still has open.
            Err(Errno::ESTALE) => match self.open.file(number) {
                Some(file) => {
                    let mut shown = self.shown(&file.last_seen()).await;
                    shown.nlink = 0;
                    Ok(shown)
                }
                None => Err(Errno::ESTALE),
            },
            Err(errno) => Err(errno),
        }
    }

    pub(crate) async fn setattr(&self, number: u64, changes: Changes) -> Result<FileAttr, Errno> {
        if let Some(size) = changes.size {
            self.truncate(number, size).await?;
        }
        let path = self.path(number)?;
        if let Some(mode) = changes.mode {
            let set = self.fs.set_permission(&path, mode & 0o7777).await;
            set.map_err(told("chmod"))?;
        }
        if changes.uid.is_some() || changes.gid.is_some() {
            self.chown(&path, changes.uid, changes.gid).await?;
        }
        if changes.accessed.is_some() || changes.modified.is_some() {
            // Closing sets the time of modification: do that first.
            if let Some(file) = self.open.file(number) {
                self.finish_writer(&file).await?;
            }
            let now = now();
            let (modified, accessed) = (ns(changes.modified, now), ns(changes.accessed, now));
            let set = self.fs.set_times(&path, modified, accessed).await;
            set.map_err(told("utimens"))?;
        }
        self.getattr(number).await
    }

    async fn chown(&self, path: &FsPath, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        let name = async |kind, id: Option<u32>| match id {
            Some(id) => self.owners.name(kind, id).await,
            None => String::new(),
        };
        let (owner, group) = (name(Kind::User, uid).await, name(Kind::Group, gid).await);
        // POSIX has EPERM here, not EACCES.
        self.fs.set_owner(path, &owner, &group).await.map_err(|error| match error.code {
            Code::PermissionDenied => Errno::EPERM,
            _ => told("chown")(error),
        })
    }

    /// Files belong to who made them, also when the mount runs as somebody else, as far as the
    /// mount's user may say so.
    pub(crate) async fn give_to(&self, path: &FsPath, asker: Asker) {
        // SAFETY: these calls have no preconditions and cannot fail.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        if !self.options.allow_other || (asker.uid, asker.gid) == (uid, gid) {
            return;
        }
        if let Err(errno) = self.chown(path, Some(asker.uid), Some(asker.gid)).await {
            tracing::debug!(%path, uid = asker.uid, ?errno, "the maker of a file cannot be its owner");
        }
    }

    pub(crate) async fn mkdir(
        &self,
        parent: u64,
        name: &str,
        mode: u32,
        asker: Asker,
    ) -> Result<FileAttr, Errno> {
        let path = self.child(parent, name)?;
        self.fs.mkdir(&path, mode & 0o7777).await.map_err(told("mkdir"))?;
        self.give_to(&path, asker).await;
        self.lookup(parent, name).await
    }

    pub(crate) async fn unlink(&self, parent: u64, name: &str) -> Result<(), Errno> {
        let path = self.child(parent, name)?;
        let status = self.fs.status(&path).await.map_err(told("unlink"))?;
        if is_folder(&status) {
            return Err(Errno::EISDIR);
        }
        self.note(&status);
        self.delete(parent, name, &path).await
    }

    pub(crate) async fn rmdir(&self, parent: u64, name: &str) -> Result<(), Errno> {
        let path = self.child(parent, name)?;
        let status = self.fs.status(&path).await.map_err(told("rmdir"))?;
        if !is_folder(&status) {
            return Err(Errno::ENOTDIR);
        }
        self.delete(parent, name, &path).await
    }

    async fn delete(&self, parent: u64, name: &str, path: &FsPath) -> Result<(), Errno> {
        let deleted = self.fs.delete(path, Recursion::No).await.map_err(told("delete"))?;
        self.inodes().removed(parent, name);
        if deleted { Ok(()) } else { Err(Errno::ENOENT) }
    }

    pub(crate) async fn rename(
        &self,
        from: (u64, &str),
        to: (u64, &str),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let mode = match flags {
            f if f.is_empty() => RenameMode::Replace,
            RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            _ => return Err(Errno::EINVAL),
        };
        let (source, target) = (self.child(from.0, from.1)?, self.child(to.0, to.1)?);
        // A writer knows its file by the path that it was opened with.
        self.finish_writers_below(&source).await?;
        self.fs.rename(&source, &target, mode).await.map_err(told("rename"))?;
        self.inodes().renamed(from, to);
        Ok(())
    }

    pub(crate) async fn link(
        &self,
        number: u64,
        parent: u64,
        name: &str,
    ) -> Result<FileAttr, Errno> {
        let (source, target) = (self.path(number)?, self.child(parent, name)?);
        let status = self.fs.link(&source, &target).await.map_err(told("link"))?;
        Ok(self.enter(parent, name, &status).await)
    }

    pub(crate) async fn statfs(&self) -> Result<Space, Errno> {
        let stats = self.fs.stats().await.map_err(told("statfs"))?;
        let unit = u64::from(Space::UNIT_BYTES);
        // What is free is shared by all replicas of a new file.
        let defaults = self.fs.server_defaults().replication;
        let configured = self.fs.config().replication;
        let replicas = if configured == 0 { defaults } else { configured }.max(1);
        Ok(Space {
            blocks: stats.capacity_bytes / u64::from(replicas) / unit,
            free: stats.remaining_bytes / u64::from(replicas) / unit,
            files: stats.files.saturating_add(FILES_FREE),
            files_free: FILES_FREE,
        })
    }

    async fn finish_writers_below(&self, path: &FsPath) -> Result<(), Errno> {
        for file in self.open.files() {
            if file.position().is_some()
                && self.inodes().path(file.number).is_some_and(|open| path.contains(&open))
            {
                self.finish_writer(&file).await?;
            }
        }
        Ok(())
    }

    /// Closes whatever is still being written, for the end of the mount. Reports the first failure,
    /// and tries all.
    pub(crate) async fn finish_all(&self) -> Result<(), Errno> {
        let mut result = Ok(());
        for file in self.open.files() {
            result = result.and(self.finish_writer(&file).await);
        }
        result
    }

    /// An open file for an inode that was just opened or made.
    pub(crate) fn opened(
        &self,
        status: FileStatus,
        writable: bool,
        append: bool,
    ) -> (u64, Arc<OpenFile>) {
        let number = number_of(status.inode);
        let (handle, opened) = self.open.open_file(number, status, writable, append);
        (handle, opened.file.clone())
    }
}

/// A limit that is not there; programs want a number.
const FILES_FREE: u64 = 1 << 40;

/// A component that the file system can have: UTF-8, and not too long.
pub(crate) fn component(name: &OsStr) -> Result<&str, Errno> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    name.to_str().ok_or(Errno::EILSEQ)
}

#[allow(clippy::disallowed_methods, reason = "a shell: `touch` sets the time that it is")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn ns(time: Option<TimeOrNow>, now: SystemTime) -> Option<i64> {
    time.map(|time| match time {
        TimeOrNow::SpecificTime(time) => nanoseconds(time),
        TimeOrNow::Now => nanoseconds(now),
    })
}
