//! The verbs on contents: open, create, read, write, truncate, flush, fsync, release.
//!
//! Files are written once, from their start or on from their end: a write anywhere else is
//! `EOPNOTSUPP`. What [`crate::open_files`] says of writers and readers is done here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use client::{CreateOptions, Error, FileReader, FileWriter, Fs, FsPath};
use fuser::{Errno, FileAttr};
use proto::{Code, Kind};
use tokio::sync::MutexGuard;

use crate::attributes::is_folder;
use crate::errno::{errno_of, told};
use crate::names::{Asker, Mounted};
use crate::open_files::{FileHandle, OpenFile, OpenReader};
use crate::sequential::Stream;

/// How a program opens a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) append: bool,
    pub(crate) truncate: bool,
    pub(crate) exclusive: bool,
}

/// A read of at least so many bytes may be a piece of a sequential one that arrived out of order.
const STREAM_READ_BYTES_MIN: u32 = 64 << 10;
/// Reading ahead starts if so many bytes are left.
const STREAM_BYTES_MIN: u64 = 1 << 20;
/// How often the length of a file whose writer is lost is asked to be settled.
const RECOVERIES_MAX: u32 = 1000;
/// The longest time between two of these.
const RECOVERY_PAUSE_MAX: Duration = Duration::from_secs(30);

impl Access {
    pub(crate) fn from_flags(flags: i32) -> Self {
        let mode = flags & libc::O_ACCMODE;
        Self {
            read: mode != libc::O_WRONLY,
            write: mode != libc::O_RDONLY,
            append: flags & libc::O_APPEND != 0,
            truncate: flags & libc::O_TRUNC != 0,
            exclusive: flags & libc::O_EXCL != 0,
        }
    }
}

impl Mounted {
    pub(crate) async fn open(&self, number: u64, access: Access) -> Result<u64, Errno> {
        if access.truncate && access.write {
            self.truncate(number, 0).await?;
        }
        let status = self.status(number).await?;
        if is_folder(&status) {
            return Err(Errno::EISDIR);
        }
        let (handle, file) = self.opened(status, access.write, access.append);
        if access.read && !access.write {
            // Now rather than at the first read: so that `open` says what is wrong.
            let opened = self.file_handle(handle)?;
            if let Err(errno) = self.reader(&opened, &file, 0).await {
                self.open.close(handle);
                return Err(errno);
            }
        }
        Ok(handle)
    }

    /// Makes a file and opens it; opens one that another client made at the same time.
    pub(crate) async fn create(
        &self,
        parent: u64,
        name: &str,
        mode: u32,
        access: Access,
        asker: Asker,
    ) -> Result<(FileAttr, u64), Errno> {
        let path = self.child(parent, name)?;
        let options = CreateOptions {
            overwrite: false,
            create_parents: false,
            mode: Some(mode & 0o7777),
            ..CreateOptions::default()
        };
        let writer = match self.fs.create(&path, options).await {
            Ok(writer) => writer,
            Err(error) if error.code == Code::AlreadyExists && !access.exclusive => {
                let shown = self.lookup(parent, name).await?;
                return Ok((shown, self.open(shown.ino.0, access).await?));
            }
            Err(error) => return Err(told("create")(error)),
        };
        self.give_to(&path, asker).await;
        let status = self.fs.status(&path).await.map_err(told("create"))?;
        let (handle, file) = self.opened(status.clone(), access.write, access.append);
        let position = writer.position();
        *file.writer.lock().await = Some(writer);
        file.written_to(position);
        Ok((self.enter(parent, name, &status).await, handle))
    }

    /// Makes an empty file (`mknod`).
    pub(crate) async fn make_empty(
        &self,
        parent: u64,
        name: &str,
        mode: u32,
        asker: Asker,
    ) -> Result<FileAttr, Errno> {
        let access =
            Access { read: false, write: true, append: false, truncate: false, exclusive: true };
        let (shown, handle) = self.create(parent, name, mode, access, asker).await?;
        let closed = self.release(handle).await;
        closed.map(|()| shown)
    }

    pub(crate) async fn read(&self, handle: u64, offset: u64, size: u32) -> Result<Bytes, Errno> {
        let handle = self.file_handle(handle)?;
        let file = &handle.file;
        let end = offset.saturating_add(u64::from(size));
        let reader = self.reader(&handle, file, end).await?;
        let in_order = handle.read_to.swap(end, Ordering::Relaxed) == offset;
        if in_order || size >= STREAM_READ_BYTES_MIN {
            let ahead = reader.len().saturating_sub(offset);
            let mut slot = handle.stream.lock().await;
            let usable = slot
                .as_ref()
                .is_some_and(|(stream, cuts)| *cuts == file.cuts() && stream.covers(offset));
            if usable || (in_order && ahead >= STREAM_BYTES_MIN) {
                if !usable {
                    *slot = Some(self.stream(file, offset).await?);
                }
                let (stream, _) = slot.as_mut().expect("it was just opened");
                let read = stream.read(offset, size as usize).await.map_err(told("read"))?;
                if !read.is_empty() || offset >= reader.len() {
                    return Ok(read);
                }
                // The file has grown since the stream was opened.
                *slot = None;
            }
        }
        reader.read_bytes_at(offset, size as usize).await.map_err(told("read"))
    }

    async fn stream(&self, file: &OpenFile, offset: u64) -> Result<(Stream, u64), Errno> {
        let cuts = file.cuts();
        let path = self.path(file.number)?;
        let reader = self.fs.open(&path).await.map_err(told("open"))?;
        Ok((Stream::new(reader, offset), cuts))
    }

    /// A reader that knows the file's bytes up to `end`, as far as there are any.
    async fn reader(
        &self,
        handle: &FileHandle,
        file: &OpenFile,
        end: u64,
    ) -> Result<Arc<FileReader>, Errno> {
        let cuts = file.cuts();
        if let Some(open) = handle.reader() {
            let knows_enough = open.reader.len() >= end.min(file.length());
            if open.cuts == cuts && knows_enough {
                return Ok(open.reader);
            }
        }
        if file.position().is_some()
            && let Some(writer) = file.writer.lock().await.as_mut()
        {
            writer.flush().await.map_err(told("read of what was written"))?;
        }
        let path = self.path(file.number)?;
        let reader = Arc::new(self.fs.open(&path).await.map_err(told("open"))?);
        file.opened_as(reader.len());
        handle.set_reader(OpenReader { reader: reader.clone(), cuts });
        Ok(reader)
    }

    /// Takes bytes at the file's end. Returns when they are on their way: an error may show at the
    /// next write, `fsync` or `close`.
    pub(crate) async fn write(&self, handle: u64, offset: u64, data: Bytes) -> Result<u32, Errno> {
        let handle = self.file_handle(handle)?;
        if !handle.writable {
            return Err(Errno::EBADF);
        }
        let file = &handle.file;
        let mut slot = file.writer.lock().await;
        not_failed(&handle)?;
        let position = match slot.as_ref() {
            Some(writer) => writer.position(),
            None => self.status(file.number).await?.length,
        };
        if offset != position && !handle.append {
            tracing::debug!(
                inode = file.number,
                offset,
                position,
                "a write that does not go on at the file's end is not supported"
            );
            return Err(Errno::EOPNOTSUPP);
        }
        let taken = data.len() as u32;
        let writer = self.writer(file, &mut slot).await?;
        let result = writer.write_bytes(data).await;
        file.written_to(writer.position());
        result.map_err(told("write"))?;
        Ok(taken)
    }

    async fn writer<'a>(
        &self,
        file: &OpenFile,
        slot: &'a mut MutexGuard<'_, Option<FileWriter>>,
    ) -> Result<&'a mut FileWriter, Errno> {
        if slot.is_none() {
            let path = self.path(file.number)?;
            **slot = Some(self.fs.append(&path).await.map_err(told("append"))?);
        }
        Ok(slot.as_mut().expect("it was just opened"))
    }

    pub(crate) async fn truncate(&self, number: u64, size: u64) -> Result<(), Errno> {
        let file = self.open.file(number);
        if let Some(file) = &file {
            if file.position() == Some(size) {
                return Ok(());
            }
            self.finish_writer(file).await?;
        }
        let status = self.status(number).await?;
        if is_folder(&status) {
            return Err(Errno::EISDIR);
        }
        if size == status.length {
            return Ok(());
        }
        if size > status.length {
            tracing::debug!(number, size, length = status.length, "a file cannot be extended");
            return Err(Errno::EPERM);
        }
        let path = self.path(number)?;
        self.fs.truncate(&path, size).await.map_err(told("truncate"))?;
        // A file that was opened meanwhile must know as well.
        if let Some(file) = self.open.file(number).or(file) {
            file.cut_to(size);
        }
        Ok(())
    }

    /// A program closed one of its descriptors: what was written through this mount is complete and
    /// durable now, and this is where the program learns if it is not.
    pub(crate) async fn flush(&self, handle: u64) -> Result<(), Errno> {
        let handle = self.file_handle(handle)?;
        if !handle.writable {
            return Ok(());
        }
        self.finish_writer(&handle.file).await?;
        not_failed(&handle)
    }

    pub(crate) async fn fsync(&self, handle: u64) -> Result<(), Errno> {
        let handle = self.file_handle(handle)?;
        match handle.file.writer.lock().await.as_mut() {
            Some(writer) => writer.sync().await.map_err(told("fsync")),
            None => not_failed(&handle),
        }
    }

    /// The last descriptor of an open is gone.
    pub(crate) async fn release(&self, handle: u64) -> Result<(), Errno> {
        let flushed = self.flush(handle).await;
        self.open.close(handle);
        flushed
    }

    /// Closes the file's writer, if it has one.
    pub(crate) async fn finish_writer(&self, file: &OpenFile) -> Result<(), Errno> {
        let mut slot = file.writer.lock().await;
        let Some(writer) = slot.take() else { return Ok(()) };
        let path = writer.path().clone();
        match writer.close().await {
            Ok(status) => {
                file.writer_closed(Some(status));
                Ok(())
            }
            Err(error) => self.close_failed(file, &path, &error),
        }
    }

    fn close_failed(&self, file: &OpenFile, path: &FsPath, error: &Error) -> Result<(), Errno> {
        let nameless = self.inodes().path(file.number).is_none();
        let gone = matches!(error.code, Code::NotFound | Code::LeaseExpired | Code::Stale);
        if nameless && gone {
            // It was unlinked while open: nobody can miss its end.
            file.writer_closed(None);
            return Ok(());
        }
        file.writer_failed();
        tracing::warn!(%path, %error, "a file could not be closed");
        self.runtime.spawn(recover(self.fs.clone(), path.clone()));
        Err(errno_of(error))
    }

    fn file_handle(&self, handle: u64) -> Result<Arc<FileHandle>, Errno> {
        self.open.file_handle(handle).ok_or(Errno::EBADF)
    }
}

/// `EIO` for a handle that was open when a writer was lost.
fn not_failed(handle: &FileHandle) -> Result<(), Errno> {
    if handle.has_failed() { Err(Errno::EIO) } else { Ok(()) }
}

/// Has the NameNode settle the length of a file whose writer is lost. It would not do so by itself: the lease is this
/// client's, who renews it as long as any other file is open. Goes on over outages of the NameNode, for hours.
async fn recover(fs: Fs, path: FsPath) {
    let mut pause = Duration::from_millis(200);
    for _ in 0..RECOVERIES_MAX {
        match fs.recover_lease(&path).await {
            // If it is under way, the NameNode goes on with it; asking again could hit a new writer.
            Ok(_done) => return,
            Err(error) if matches!(error.kind(), Kind::Retry | Kind::GoElsewhere) => {
                tracing::debug!(%path, %error, "its lease could not be recovered yet");
            }
            Err(error) => {
                tracing::debug!(%path, %error, "its lease is not recovered");
                return;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RECOVERY_PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_flags_mean_what_programs_mean() {
        let read = Access::from_flags(libc::O_RDONLY);
        assert!(read.read && !read.write);
        let append = Access::from_flags(libc::O_WRONLY | libc::O_APPEND);
        assert!(!append.read && append.write && append.append && !append.truncate);
        let both = Access::from_flags(libc::O_RDWR | libc::O_TRUNC | libc::O_EXCL);
        assert!(both.read && both.write && both.truncate && both.exclusive);
    }
}
