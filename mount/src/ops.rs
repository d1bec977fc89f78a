//! The adapter to fuser: each request of the kernel becomes a task on the runtime that runs one
//! verb and answers.
//!
//! The thread that takes requests never waits: neither for the network, nor for another request.
//! The kernel bounds how many are under way: programs wait for their own, and of its background
//! requests there are at most [`BACKGROUND_MAX`]. What the file system has not (symbolic links,
//! extended attributes, special files) is answered here.

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use fuser::{
    BsdFileFlags, Errno, FileHandle, FileType, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::attributes::is_folder;
use crate::contents::Access;
use crate::errno::told;
use crate::folder::{FIRST_ENTRY, OpenFolder};
use crate::inode_map::number_of;
use crate::names::{Asker, Changes, Mounted, Space, component};

/// Bytes of one write request. The kernel gives no more than 1 MiB unless an administrator allows
/// it.
const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Read-ahead and other requests that no program waits for, at once.
const BACKGROUND_MAX: u16 = 64;
/// Numbers are never reused, so one generation is enough.
const GENERATION: Generation = Generation(0);

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Adapter {
    mounted: Arc<Mounted>,
}

impl Adapter {
    pub(crate) fn new(mounted: Arc<Mounted>) -> Self {
        Self { mounted }
    }

    /// Runs a verb on the runtime. Its reply is sent by the task; if the runtime has stopped, fuser
    /// answers `EIO`.
    fn run<F: Future<Output = ()> + Send + 'static>(&self, verb: impl FnOnce(Arc<Mounted>) -> F) {
        self.mounted.runtime.spawn(verb(self.mounted.clone()));
    }

    /// Runs a verb that answers with an entry of a folder.
    fn run_entry<F>(
        &self,
        name: &OsStr,
        reply: ReplyEntry,
        verb: impl FnOnce(Arc<Mounted>, String) -> F,
    ) where
        F: Future<Output = Result<fuser::FileAttr, Errno>> + Send + 'static,
    {
        let name = match component(name) {
            Ok(name) => name.to_owned(),
            Err(errno) => return reply.error(errno),
        };
        let ttl = self.mounted.ttl();
        let answer = verb(self.mounted.clone(), name);
        self.mounted.runtime.spawn(async move {
            match answer.await {
                Ok(shown) => reply.entry(&ttl, &shown, GENERATION),
                Err(errno) => reply.error(errno),
            }
        });
    }

    /// Runs a verb that answers with success or an errno.
    fn run_empty<F>(&self, reply: ReplyEmpty, verb: impl FnOnce(Arc<Mounted>) -> F)
    where
        F: Future<Output = Result<(), Errno>> + Send + 'static,
    {
        let answer = verb(self.mounted.clone());
        self.mounted.runtime.spawn(async move {
            match answer.await {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno),
            }
        });
    }

    /// Runs a verb that answers with attributes.
    fn run_attr<F>(&self, reply: ReplyAttr, verb: impl FnOnce(Arc<Mounted>) -> F)
    where
        F: Future<Output = Result<fuser::FileAttr, Errno>> + Send + 'static,
    {
        let ttl = self.mounted.ttl();
        let answer = verb(self.mounted.clone());
        self.mounted.runtime.spawn(async move {
            match answer.await {
                Ok(shown) => reply.attr(&ttl, &shown),
                Err(errno) => reply.error(errno),
            }
        });
    }
}

fn asker(request: &Request) -> Asker {
    Asker { uid: request.uid(), gid: request.gid() }
}

impl fuser::Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_AUTO_INVAL_DATA
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_PARALLEL_DIROPS;
        for flag in wanted.iter() {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!(?flag, "the kernel does not have it");
            }
        }
        let refused = config.set_max_write(WRITE_BYTES_MAX).is_err()
            || config.set_max_background(BACKGROUND_MAX).is_err();
        if refused {
            tracing::debug!("the kernel keeps its own limits of requests");
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name.to_str().is_none() {
            return reply.error(Errno::ENOENT);
        }
        self.run_entry(name, reply, async move |fs, name| fs.lookup(parent.0, &name).await);
    }

    fn forget(&self, _: &Request, number: INodeNo, lookups: u64) {
        self.mounted.inodes().forget(number.0, lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.run_attr(reply, async move |fs| fs.getattr(number.0).await);
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _changed: Option<SystemTime>,
        _: Option<FileHandle>,
        _created: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changes = Changes { mode, uid, gid, size, accessed, modified };
        self.run_attr(reply, async move |fs| fs.setattr(number.0, changes).await);
    }

    fn readlink(&self, _: &Request, _: INodeNo, reply: ReplyData) {
        reply.error(Errno::EINVAL);
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _device: u32,
        reply: ReplyEntry,
    ) {
        let kind = mode & libc::S_IFMT;
        if kind != 0 && kind != libc::S_IFREG {
            return reply.error(Errno::EPERM);
        }
        let asker = asker(request);
        self.run_entry(name, reply, async move |fs, name| {
            fs.make_empty(parent.0, &name, mode, asker).await
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let asker = asker(request);
        self.run_entry(name, reply, async move |fs, name| {
            fs.mkdir(parent.0, &name, mode, asker).await
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = component(name).map(str::to_owned);
        self.run_empty(reply, async move |fs| fs.unlink(parent.0, &name?).await);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = component(name).map(str::to_owned);
        self.run_empty(reply, async move |fs| fs.rmdir(parent.0, &name?).await);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let from = component(name).map(str::to_owned);
        let to = component(new_name).map(str::to_owned);
        self.run_empty(reply, async move |fs| {
            fs.rename((parent.0, &from?), (new_parent.0, &to?), flags).await
        });
    }

    fn link(
        &self,
        _: &Request,
        number: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        self.run_entry(new_name, reply, async move |fs, name| {
            fs.link(number.0, new_parent.0, &name).await
        });
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let access = Access::from_flags(flags.0);
        self.run(async move |fs| match fs.open(number.0, access).await {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let name = match component(name) {
            Ok(name) => name.to_owned(),
            Err(errno) => return reply.error(errno),
        };
        let (access, asker) = (Access::from_flags(flags), asker(request));
        self.run(async move |fs| match fs.create(parent.0, &name, mode, access, asker).await {
            Ok((shown, handle)) => {
                let handle = FileHandle(handle);
                reply.created(&fs.ttl(), &shown, GENERATION, handle, FopenFlags::empty());
            }
            Err(errno) => reply.error(errno),
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.run(async move |fs| match fs.read(handle.0, offset, size).await {
            Ok(data) => reply.data(&data),
            Err(errno) => reply.error(errno),
        });
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let data = Bytes::copy_from_slice(data);
        self.run(async move |fs| match fs.write(handle.0, offset, data).await {
            Ok(taken) => reply.written(taken),
            Err(errno) => reply.error(errno),
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, handle: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.run_empty(reply, async move |fs| fs.flush(handle.0).await);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.run_empty(reply, async move |fs| fs.release(handle.0).await);
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        self.run_empty(reply, async move |fs| fs.fsync(handle.0).await);
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let handle = self.mounted.open.open_folder(OpenFolder::new(number.0));
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.run(async move |fs| match readdir(&fs, handle.0, offset, reply).await {
            Ok(reply) => reply.ok(),
            Err((reply, errno)) => reply.error(errno),
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.run(async move |fs| match readdirplus(&fs, handle.0, offset, reply).await {
            Ok(reply) => reply.ok(),
            Err((reply, errno)) => reply.error(errno),
        });
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.mounted.open.close(handle.0);
        reply.ok();
    }

    /// Every change of a folder is on stable storage when its call returns.
    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.run(async move |fs| match fs.statfs().await {
            Ok(space) => reply.statfs(
                space.blocks,
                space.free,
                space.free,
                space.files,
                space.files_free,
                Space::UNIT_BYTES,
                proto::limits::NAME_BYTES_MAX as u32,
                Space::UNIT_BYTES,
            ),
            Err(errno) => reply.error(errno),
        });
    }

    // ENOSYS tells the kernel not to ask again; programs then get EOPNOTSUPP.

    fn setxattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: &[u8],
        _: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }
}

/// Fills a reply with `.`, `..` and entries, as many as fit.
async fn readdir(
    fs: &Mounted,
    handle: u64,
    offset: u64,
    mut reply: ReplyDirectory,
) -> Result<ReplyDirectory, (ReplyDirectory, Errno)> {
    let Some(folder) = fs.open.folder_handle(handle) else { return Err((reply, Errno::EBADF)) };
    let here = folder.number;
    let dots = [(here, "."), (fs.inodes().parent(here), "..")];
    for (at, (number, name)) in (0..).zip(dots).skip(offset.min(FIRST_ENTRY) as usize) {
        if reply.add(INodeNo(number), at + 1, FileType::Directory, name) {
            return Ok(reply);
        }
    }
    let from = offset.max(FIRST_ENTRY) - FIRST_ENTRY;
    let entries = match entries(fs, &folder, from).await {
        Ok(entries) => entries,
        Err(errno) => return Err((reply, errno)),
    };
    for (at, entry) in (from..).zip(&entries) {
        let kind = if is_folder(entry) { FileType::Directory } else { FileType::RegularFile };
        let number = INodeNo(number_of(entry.inode));
        if reply.add(number, at + FIRST_ENTRY + 1, kind, &entry.name) {
            break;
        }
    }
    Ok(reply)
}

/// The same with attributes. Each entry that fits counts as a lookup; `.` and `..` do not.
async fn readdirplus(
    fs: &Mounted,
    handle: u64,
    offset: u64,
    mut reply: ReplyDirectoryPlus,
) -> Result<ReplyDirectoryPlus, (ReplyDirectoryPlus, Errno)> {
    let Some(folder) = fs.open.folder_handle(handle) else { return Err((reply, Errno::EBADF)) };
    let (here, ttl) = (folder.number, fs.ttl());
    let dots = [(here, "."), (fs.inodes().parent(here), "..")];
    for (at, (number, name)) in (0..).zip(dots).skip(offset.min(FIRST_ENTRY) as usize) {
        // The kernel reads number and kind of these two, and nothing else.
        let shown = match fs.getattr(number).await {
            Ok(shown) => shown,
            Err(errno) => return Err((reply, errno)),
        };
        if reply.add(INodeNo(number), at + 1, name, &ttl, &shown, GENERATION) {
            return Ok(reply);
        }
    }
    let from = offset.max(FIRST_ENTRY) - FIRST_ENTRY;
    let entries = match entries(fs, &folder, from).await {
        Ok(entries) => entries,
        Err(errno) => return Err((reply, errno)),
    };
    for (at, entry) in (from..).zip(&entries) {
        let shown = fs.shown(entry).await;
        if reply.add(shown.ino, at + FIRST_ENTRY + 1, &entry.name, &ttl, &shown, GENERATION) {
            break;
        }
        fs.inodes().looked_up(here, &entry.name, shown.ino.0);
    }
    Ok(reply)
}

async fn entries(
    fs: &Mounted,
    folder: &OpenFolder,
    from: u64,
) -> Result<Vec<client::FileStatus>, Errno> {
    let path = fs.path(folder.number)?;
    folder.entries(&fs.fs, &path, from).await.map_err(told("readdir"))
}
