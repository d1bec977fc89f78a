//! An open folder: its entries by position, a page at a time.
//!
//! The kernel asks for entries from an offset on. Offset 0 is `.`, 1 is `..`, and 2 + i is entry i
//! in the order of names. One page is kept, so memory does not grow with the folder; going back
//! before it (`rewinddir`, `seekdir`) reads from the start again, which also shows what has
//! changed. Entries that come or go between pages are seen or not, as POSIX says.

use client::{FileStatus, Fs, Result};
use proto::FsPath;

/// Offset of the first entry behind `.` and `..`.
pub(crate) const FIRST_ENTRY: u64 = 2;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct OpenFolder {
    pub(crate) number: u64,
    page: tokio::sync::Mutex<Page>,
}

#[derive(Debug, Default)]
struct Page {
    /// Position of the first entry of the page.
    first: u64,
    entries: Vec<FileStatus>,
    /// Nothing follows the page.
    last: bool,
}

impl OpenFolder {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, page: tokio::sync::Mutex::default() }
    }

    /// The entries from position `from` on that one page has; none at the end of the folder.
    pub(crate) async fn entries(
        &self,
        fs: &Fs,
        path: &FsPath,
        from: u64,
    ) -> Result<Vec<FileStatus>> {
        let mut page = self.page.lock().await;
        if from == 0 || from < page.first {
            *page = Page::default();
        }
        loop {
            let skip = usize::try_from(from - page.first).unwrap_or(usize::MAX);
            if skip < page.entries.len() {
                return Ok(page.entries[skip..].to_vec());
            }
            if page.last {
                return Ok(Vec::new());
            }
            let after = page.entries.last().map_or("", |entry| entry.name.as_str());
            let (entries, remaining) = fs.list_page(path, after, 0).await?;
            let first = page.first + page.entries.len() as u64;
            *page = Page { first, last: remaining == 0 || entries.is_empty(), entries };
        }
    }
}
