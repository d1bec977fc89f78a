//! The input of a job: which files, cut into which splits, loaded ahead of the threads that map them.
//!
//! Folders are walked; names that begin with `_` or `.` are skipped inside them (a path that the user names is taken
//! whatever its name). Files are numbered by input, then by the bytes of their paths. A text file is cut into splits
//! within its blocks; a line belongs to the split that its first byte lies in, whichever split its end is in, so that
//! every line is mapped once. Documents and tables are one split each.
//!
//! Memory: splits that are loaded and not yet mapped are bounded by a budget of bytes; a single one may be as large as
//! [`Limits::document_bytes_max`], or a split and a line. Small files are opened many at a time, to hide the round trips.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use proto::granary::{FileKind, FileStatus};
use proto::{Code, Error, FsPath, Result};
use sstable::Table;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::table_error;
use crate::fs::Fs;
use crate::read::FileReader;

/// Bytes of a line at most.
pub(crate) const LINE_BYTES_MAX: usize = 64 << 20;
const SPLIT_BYTES_MAX: u64 = 16 << 20;
const SPLIT_BYTES_MIN: u64 = 1 << 20;
/// Splits per thread that a small input is cut into, so that all threads end at about the same time.
const SPLITS_PER_THREAD: u64 = 4;
/// How far beyond a split the end of its last line is looked for at a time, in bytes.
const TAIL_BYTES: usize = 64 << 10;
/// Splits that are loaded at the same time.
const LOADS_MAX: usize = 16;
/// The unit in which the budget is counted.
const PERMIT_BYTES: u64 = 4 << 10;
/// Tables up to this size are held in memory; larger ones go through a local file.
const TABLE_BYTES_IN_MEMORY_MAX: u64 = 16 << 20;

/// What the records of an input are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Lines,
    Documents,
    Tables,
}

/// What a job does with a document above its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Oversized {
    /// Fails before it begins, and names the document.
    #[default]
    Refuse,
    /// Leaves it out, and counts it as `documents_too_large`.
    Skip,
}

/// Bounds of an input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub document_bytes_max: u64,
    pub oversized: Oversized,
}

/// Paths of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub kind: Kind,
    pub roots: Vec<FsPath>,
}

/// One file to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InputFile {
    pub input: usize,
    pub kind: Kind,
    pub path: FsPath,
    pub length: u64,
    pub block_bytes: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub files: Vec<InputFile>,
    pub splits: Vec<Split>,
    pub bytes: u64,
    pub skipped: u64,
}

/// A part of a file that is mapped in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    pub file: u32,
    pub start: u64,
    pub end: u64,
}

/// Lists the files under all inputs and cuts them.
pub(crate) async fn plan(
    fs: &Fs,
    inputs: &[Input],
    limits: Limits,
    threads: usize,
) -> Result<Plan> {
    let mut plan = Plan::default();
    for (number, input) in inputs.iter().enumerate() {
        let mut files = Vec::new();
        for root in &input.roots {
            list(fs, root, |path, status| {
                files.push(InputFile {
                    input: number,
                    kind: input.kind,
                    path,
                    length: status.length,
                    block_bytes: status.block_bytes,
                });
            })
            .await?;
        }
        files.sort_by(|a, b| a.path.as_str().cmp(b.path.as_str()));
        files.dedup_by(|a, b| a.path == b.path);
        plan.skipped += drop_oversized(&mut files, limits)?;
        plan.files.append(&mut files);
    }
    if u32::try_from(plan.files.len()).is_err() {
        let message =
            format!("{} files of input; a job reads up to {}", plan.files.len(), u32::MAX);
        return Err(Error::new(Code::LimitExceeded, message));
    }
    plan.bytes = plan.files.iter().map(|file| file.length).sum();
    let split_bytes = (plan.bytes / (threads as u64 * SPLITS_PER_THREAD).max(1))
        .clamp(SPLIT_BYTES_MIN, SPLIT_BYTES_MAX);
    plan.splits = cut(&plan.files, split_bytes);
    Ok(plan)
}

/// Calls `found` with every file under `root`.
async fn list(fs: &Fs, root: &FsPath, mut found: impl FnMut(FsPath, FileStatus)) -> Result<()> {
    let status = fs.status(root).await.map_err(|error| error.context("input"))?;
    if status.kind != FileKind::Folder as i32 {
        found(root.clone(), status);
        return Ok(());
    }
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs.list(&folder).await.map_err(|error| error.context("input"))? {
            if entry.name.starts_with(['_', '.']) {
                continue;
            }
            let path = folder.join(&entry.name)?;
            if entry.kind == FileKind::Folder as i32 {
                folders.push(path);
            } else {
                found(path, entry);
            }
        }
    }
    Ok(())
}

fn drop_oversized(files: &mut Vec<InputFile>, limits: Limits) -> Result<u64> {
    let max = limits.document_bytes_max;
    let large = |file: &InputFile| file.kind == Kind::Documents && file.length > max;
    if limits.oversized == Oversized::Refuse
        && let Some(file) = files.iter().find(|file| large(file))
    {
        let message = format!(
            "input {}: the document has {} bytes, more than the {max} that a document of this job may \
             have: raise the limit, read it by lines, or leave such documents out",
            file.path, file.length
        );
        return Err(Error::new(Code::LimitExceeded, message));
    }
    let before = files.len();
    files.retain(|file| !large(file));
    Ok((before - files.len()) as u64)
}

/// Cuts files into splits. Pure.
fn cut(files: &[InputFile], split_bytes: u64) -> Vec<Split> {
    let mut splits = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let number = u32::try_from(number).expect("counted before");
        if file.kind != Kind::Lines {
            splits.push(Split { file: number, start: 0, end: file.length });
            continue;
        }
        let mut start = 0;
        while start < file.length {
            let block_end = match file.block_bytes {
                0 => file.length,
                block => (start / block + 1).saturating_mul(block).min(file.length),
            };
            // A block's rest is cut evenly: no split is much smaller than its neighbours.
            let pieces = (block_end - start).div_ceil(split_bytes);
            let end = start + (block_end - start).div_ceil(pieces);
            splits.push(Split { file: number, start, end });
            start = end;
        }
    }
    splits
}

/// A split in memory.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub split: Split,
    pub content: Content,
    /// Gives the memory back to those that load.
    _permit: OwnedSemaphorePermit,
}

impl Loaded {
    /// A split that came from nowhere.
    #[cfg(test)]
    pub fn for_test(split: Split, content: Content, permit: OwnedSemaphorePermit) -> Self {
        Self { split, content, _permit: permit }
    }

    /// Where its first record begins in the file.
    pub fn offset(&self) -> u64 {
        match self.content {
            Content::Lines { offset, .. } => offset,
            Content::Document(_) | Content::Table(_) => 0,
        }
    }
}

/// What a split holds.
#[derive(Debug)]
pub(crate) enum Content {
    /// Whole lines, and the offset in the file of the first.
    Lines {
        offset: u64,
        data: Bytes,
    },
    Document(Bytes),
    Table(Box<Table>),
}

/// Loads splits in order, some ahead, until all are sent or nobody takes them any more.
pub(crate) async fn feed(
    fs: Fs,
    plan: Arc<Plan>,
    memory_bytes: usize,
    temp_dir: PathBuf,
    to: mpsc::Sender<Result<Loaded>>,
) {
    let permits = (memory_bytes as u64 / PERMIT_BYTES).clamp(1, u64::from(u32::MAX / 2)) as u32;
    let budget = Arc::new(Semaphore::new(permits as usize));
    let loads = futures_util::stream::iter(plan.splits.iter().copied()).map(|split| {
        let (budget, fs, temp_dir) = (budget.clone(), &fs, &temp_dir);
        let file = &plan.files[split.file as usize];
        async move {
            let wanted = ((split.end - split.start) / PERMIT_BYTES + 1).min(u64::from(permits));
            let permit = budget.acquire_many_owned(wanted as u32).await.expect("never closed");
            let content = load(fs, file, split, temp_dir).await?;
            Ok(Loaded { split, content, _permit: permit })
        }
    });
    let mut loads = loads.buffered(LOADS_MAX);
    while let Some(loaded) = loads.next().await {
        let failed = loaded.is_err();
        if to.send(loaded).await.is_err() || failed {
            return;
        }
    }
}

async fn load(fs: &Fs, file: &InputFile, split: Split, temp_dir: &Path) -> Result<Content> {
    if file.length == 0 && file.kind == Kind::Documents {
        return Ok(Content::Document(Bytes::new()));
    }
    let reader = fs.open(&file.path).await.map_err(|error| error.context("input"))?;
    if reader.len() < file.length {
        let message = format!(
            "input {} had {} bytes when the job began and has {} now: it is being replaced",
            file.path,
            file.length,
            reader.len()
        );
        return Err(Error::new(Code::Stale, message));
    }
    match file.kind {
        Kind::Lines => load_lines(&reader, file, split).await,
        Kind::Documents => Ok(Content::Document(exactly(&reader, 0, file.length).await?)),
        Kind::Tables => load_table(reader, file, temp_dir).await,
    }
}

/// Bytes that the file is known to have.
async fn exactly(reader: &FileReader, offset: u64, length: u64) -> Result<Bytes> {
    let length = usize::try_from(length).expect("splits and documents are bounded");
    let bytes = reader.read_bytes_at(offset, length).await?;
    if bytes.len() != length {
        let message = format!(
            "input {}: {} bytes at offset {offset} instead of {length}",
            reader.path(),
            bytes.len()
        );
        return Err(Error::new(Code::Stale, message));
    }
    Ok(bytes)
}

async fn load_lines(reader: &FileReader, file: &InputFile, split: Split) -> Result<Content> {
    // The byte before tells whether a line begins with the split.
    let from = split.start.saturating_sub(1);
    let mut data = exactly(reader, from, split.end - from).await?;
    let Some(skip) = first_line(split.start, &data) else {
        return Ok(Content::Lines { offset: split.end, data: Bytes::new() });
    };
    let offset = from + skip as u64;
    data = data.slice(skip..);
    if data.last() != Some(&b'\n') && split.end < file.length {
        let mut whole = Vec::from(data);
        let mut at = split.end;
        while at < file.length {
            let wanted = (file.length - at).min(TAIL_BYTES as u64);
            let more = exactly(reader, at, wanted).await?;
            if let Some(end) = memchr::memchr(b'\n', &more) {
                whole.extend_from_slice(&more[..=end]);
                break;
            }
            whole.extend_from_slice(&more);
            at += wanted;
            check_tail(file, split, at)?;
        }
        data = whole.into();
    }
    Ok(Content::Lines { offset, data })
}

/// Where the first line that begins in a split begins in `data`, which holds the byte before the split, if there is one.
fn first_line(start: u64, data: &[u8]) -> Option<usize> {
    if start == 0 {
        return Some(0);
    }
    let begin = memchr::memchr(b'\n', data)? + 1;
    (begin < data.len()).then_some(begin)
}

fn check_tail(file: &InputFile, split: Split, at: u64) -> Result<()> {
    if at - split.end <= LINE_BYTES_MAX as u64 {
        return Ok(());
    }
    let message = format!(
        "input {}: a line that begins before offset {} does not end within {LINE_BYTES_MAX} bytes: \
         is this a text file?",
        file.path, split.end
    );
    Err(Error::new(Code::LimitExceeded, message))
}

async fn load_table(reader: FileReader, file: &InputFile, temp_dir: &Path) -> Result<Content> {
    let name = PathBuf::from(file.path.as_str());
    let table = if file.length <= TABLE_BYTES_IN_MEMORY_MAX {
        let bytes = exactly(&reader, 0, file.length).await?;
        Table::from_bytes(name, bytes.into())
    } else {
        let local = temp_dir.join(format!(".granary-table-{}", uuid::Uuid::new_v4().simple()));
        let path = file.path.clone();
        let copied = tokio::task::spawn_blocking(move || copy_table(reader, &path, &local)).await;
        copied.map_err(|error| Error::new(Code::Internal, format!("{}: {error}", file.path)))??
    };
    Ok(Content::Table(Box::new(table.map_err(|e| table_error(&file.path, e))?)))
}

/// Opens a table from a local copy that has no name any more when this returns.
fn copy_table(reader: FileReader, path: &FsPath, local: &Path) -> Result<sstable::Result<Table>> {
    let copied = || -> std::io::Result<()> {
        let mut out = std::fs::File::options().write(true).create_new(true).open(local)?;
        std::io::copy(&mut reader.into_blocking(), &mut out)?;
        Ok(())
    };
    let copied = copied();
    let table = Table::open(local);
    // It may not exist; what is left of a copy that failed is removed as far as possible.
    let removed = std::fs::remove_file(local);
    let both = copied.and(removed);
    both.map_err(|e| Error::io(format!("copy {path} to {}", local.display()), &e))?;
    Ok(table)
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;
