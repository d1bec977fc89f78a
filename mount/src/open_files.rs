//! Files and folders that programs have open: one [`OpenFile`] per inode, one [`Handle`] per open.
//!
//! The model below has one writer per file, at its end. So all handles of an inode share one
//! writer, made at the first write and closed at each `close(2)`: after it the file is complete and
//! durable, and the program has been told if that failed. A handle that is written to after that (a
//! descriptor that was passed to another process) gets a new writer that appends. The writer's lock
//! is the order of the writes; the kernel sends the next one after the answer to the last, and an
//! answer waits while too much is in flight. If a writer's end fails, what it had taken may be lost: every handle that
//! was open then gets `EIO` for further writes, `fsync` and `close`; handles opened after that start afresh.
//!
//! Readers know a file's blocks as of their opening. They are opened anew when the file is known to
//! have grown past them or was cut, and bytes that this mount has written but not closed are pushed
//! to the DataNodes first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use client::{FileReader, FileStatus, FileWriter};

use crate::folder::OpenFolder;
use crate::sequential::Stream;

/// What all handles of one inode share.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) number: u64,
    /// Open while something was written since the last close.
    pub(crate) writer: tokio::sync::Mutex<Option<FileWriter>>,
    /// Where the writer is, in bytes; [`NO_WRITER`] without one.
    position: AtomicU64,
    /// The longest that the file is known to be, in bytes.
    length: AtomicU64,
    /// Counts cuts: what was read before one does not hold after it.
    cuts: AtomicU64,
    /// Counts writers that could not be closed.
    failures: AtomicU64,
    /// As it was last seen. Answers for a file that has lost its last name.
    status: Mutex<FileStatus>,
}

const NO_WRITER: u64 = u64::MAX;

impl OpenFile {
    fn new(number: u64, status: FileStatus) -> Self {
        Self {
            number,
            writer: tokio::sync::Mutex::new(None),
            position: AtomicU64::new(NO_WRITER),
            length: AtomicU64::new(status.length),
            cuts: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            status: Mutex::new(status),
        }
    }

    /// Where the open writer is.
    pub(crate) fn position(&self) -> Option<u64> {
        match self.position.load(Ordering::Acquire) {
            NO_WRITER => None,
            position => Some(position),
        }
    }

    /// The writer is there, and stands at `position`.
    pub(crate) fn written_to(&self, position: u64) {
        self.position.store(position, Ordering::Release);
        self.length.fetch_max(position, Ordering::AcqRel);
    }

    /// The writer is gone; the file is `length` long, if that is known.
    pub(crate) fn writer_closed(&self, status: Option<FileStatus>) {
        self.position.store(NO_WRITER, Ordering::Release);
        if let Some(status) = status {
            self.seen(status);
        }
    }

    /// The writer is gone, and what it had taken may be lost.
    pub(crate) fn writer_failed(&self) {
        self.failures.fetch_add(1, Ordering::AcqRel);
        self.writer_closed(None);
    }

    /// The NameNode said this of the file.
    pub(crate) fn seen(&self, status: FileStatus) {
        self.length.fetch_max(status.length, Ordering::AcqRel);
        *self.status.lock().expect("nobody panics while holding a status") = status;
    }

    pub(crate) fn last_seen(&self) -> FileStatus {
        self.status.lock().expect("nobody panics while holding a status").clone()
    }

    /// A reader was opened, and found the file this long.
    pub(crate) fn opened_as(&self, length: u64) {
        if self.position().is_none() {
            self.length.store(length, Ordering::Release);
        }
    }

    /// The file was cut to this length.
    pub(crate) fn cut_to(&self, length: u64) {
        self.length.store(length, Ordering::Release);
        self.cuts.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    pub(crate) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Acquire)
    }
}

/// One open of a file.
#[derive(Debug)]
pub(crate) struct FileHandle {
    pub(crate) file: Arc<OpenFile>,
    pub(crate) writable: bool,
    /// Writes go to the end, wherever the kernel believes that is.
    pub(crate) append: bool,
    /// The file's failures when this was opened.
    failures: u64,
    reader: Mutex<Option<OpenReader>>,
    /// Reads ahead while the program reads from front to back, as of a count of cuts.
    pub(crate) stream: tokio::sync::Mutex<Option<(Stream, u64)>>,
    /// Where the last read ended.
    pub(crate) read_to: AtomicU64,
}

/// A reader, and the count of cuts when it was opened.
#[derive(Clone, Debug)]
pub(crate) struct OpenReader {
    pub(crate) reader: Arc<FileReader>,
    pub(crate) cuts: u64,
}

impl FileHandle {
    /// Whether bytes may be lost that were written while this was open.
    pub(crate) fn has_failed(&self) -> bool {
        self.failures != self.file.failures.load(Ordering::Acquire)
    }

    pub(crate) fn reader(&self) -> Option<OpenReader> {
        self.reader.lock().expect("nobody panics while holding a reader").clone()
    }

    pub(crate) fn set_reader(&self, reader: OpenReader) {
        *self.reader.lock().expect("nobody panics while holding a reader") = Some(reader);
    }
}

/// One open of a file or folder.
#[derive(Clone, Debug)]
pub(crate) enum Handle {
    File(Arc<FileHandle>),
    Folder(Arc<OpenFolder>),
}

/// All that is open, by the number that the kernel was given.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles {
    inner: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    last: u64,
    handles: HashMap<u64, Handle>,
    files: HashMap<u64, Weak<OpenFile>>,
}

impl OpenFiles {
    /// Opens a file; `status` is what the NameNode just said of it.
    pub(crate) fn open_file(
        &self,
        number: u64,
        status: FileStatus,
        writable: bool,
        append: bool,
    ) -> (u64, Arc<FileHandle>) {
        let mut tables = self.tables();
        let file = match tables.files.get(&number).and_then(Weak::upgrade) {
            Some(file) => {
                file.seen(status);
                file
            }
            None => {
                if tables.files.len() > 2 * tables.handles.len() + 64 {
                    tables.files.retain(|_, file| file.strong_count() > 0);
                }
                let file = Arc::new(OpenFile::new(number, status));
                tables.files.insert(number, Arc::downgrade(&file));
                file
            }
        };
        let failures = file.failures.load(Ordering::Acquire);
        let handle = Arc::new(FileHandle {
            file,
            writable,
            append,
            failures,
            reader: Mutex::new(None),
            stream: tokio::sync::Mutex::new(None),
            read_to: AtomicU64::new(0),
        });
        (tables.add(Handle::File(handle.clone())), handle)
    }

    pub(crate) fn open_folder(&self, folder: OpenFolder) -> u64 {
        self.tables().add(Handle::Folder(Arc::new(folder)))
    }

    pub(crate) fn file_handle(&self, handle: u64) -> Option<Arc<FileHandle>> {
        match self.tables().handles.get(&handle) {
            Some(Handle::File(handle)) => Some(handle.clone()),
            _ => None,
        }
    }

    pub(crate) fn folder_handle(&self, handle: u64) -> Option<Arc<OpenFolder>> {
        match self.tables().handles.get(&handle) {
            Some(Handle::Folder(folder)) => Some(folder.clone()),
            _ => None,
        }
    }

    /// The open file with this inode, if there is one.
    pub(crate) fn file(&self, number: u64) -> Option<Arc<OpenFile>> {
        self.tables().files.get(&number).and_then(Weak::upgrade)
    }

    /// All open files, for the end.
    pub(crate) fn files(&self) -> Vec<Arc<OpenFile>> {
        let tables = self.tables();
        let mut files: Vec<_> = tables.files.values().filter_map(Weak::upgrade).collect();
        files.sort_by_key(|file| file.number);
        files
    }

    /// The kernel is done with a handle.
    pub(crate) fn close(&self, handle: u64) {
        let mut tables = self.tables();
        if let Some(Handle::File(closed)) = tables.handles.remove(&handle) {
            let number = closed.file.number;
            drop(closed);
            if tables.files.get(&number).is_some_and(|file| file.strong_count() == 0) {
                tables.files.remove(&number);
            }
        }
    }

    fn tables(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.inner.lock().expect("nobody panics while holding the tables")
    }
}

impl Tables {
    fn add(&mut self, handle: Handle) -> u64 {
        self.last += 1;
        self.handles.insert(self.last, handle);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(length: u64) -> FileStatus {
        FileStatus { inode: 20_000, length, ..FileStatus::default() }
    }

    #[test]
    fn handles_of_one_inode_share_a_file_until_the_last_is_closed() {
        let open = OpenFiles::default();
        let (first, one) = open.open_file(20_000, status(5), true, false);
        let (second, two) = open.open_file(20_000, status(9), false, false);
        assert!(first != second && Arc::ptr_eq(&one.file, &two.file));
        assert_eq!(one.file.length(), 9);
        drop((one, two));
        open.close(first);
        assert!(open.file(20_000).is_some() && open.file_handle(first).is_none());
        open.close(second);
        assert!(open.file(20_000).is_none() && open.files().is_empty());
    }

    #[test]
    fn a_lost_writer_is_told_to_who_had_the_file_open_and_to_nobody_after() {
        let open = OpenFiles::default();
        let (_, before) = open.open_file(20_000, status(5), true, false);
        before.file.written_to(9);
        assert!(!before.has_failed());
        before.file.writer_failed();
        let (_, after) = open.open_file(20_000, status(5), true, false);
        assert!(before.has_failed() && !after.has_failed());
        assert_eq!(after.file.position(), None);
    }

    #[test]
    fn an_open_writer_tells_the_size_and_a_cut_takes_it_back() {
        let file = OpenFile::new(20_000, status(5));
        assert_eq!((file.position(), file.length()), (None, 5));
        file.written_to(8);
        assert_eq!((file.position(), file.length()), (Some(8), 8));
        file.writer_closed(Some(status(8)));
        assert_eq!((file.position(), file.last_seen().length), (None, 8));
        file.cut_to(0);
        assert_eq!((file.length(), file.cuts()), (0, 1));
    }
}
