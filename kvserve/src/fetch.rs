//! Copies the tables of a version from the cluster, resumes where an earlier copy stopped, verifies and opens them.
//!
//! A table is copied to `part-NNNNN.tbl.partial`; a copy goes on at the length that is there. When all are here, each is
//! opened and read in full, its length and footer checksum compared with the catalogue's, synced, and renamed to
//! `part-NNNNN.tbl`. A table that fails this is deleted, so that the next attempt fetches it anew and nothing else.
//!
//! Work on files cannot be called back once a thread has it: a fetch waits for what an abandoned one left running.
//!
//! What always holds: a file named `.tbl` was verified and is on stable storage; at most `streams` tables are copied at
//! once, over all versions; all copies together keep to the rate limit.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use proto::{Code, Error, Kind, Result};
use sstable::Table;
use tokio::sync::{RwLock, Semaphore};
use tokio::task::JoinSet;

use crate::lifecycle::{Failure, FailureKind};
use crate::lookup::table_error;
use crate::record::sync_folder;
use crate::tablespec::{TableSpec, file_name};
use crate::throttle::TokenBucket;

#[cfg(test)]
mod tests;

type Open = dyn Fn(String) -> BoxFuture<'static, Result<Source>> + Send + Sync;
type Read = dyn Fn(u64, usize) -> BoxFuture<'static, Result<Bytes>> + Send + Sync;

/// Where tables come from: opens a path of the file system for reading.
#[derive(Clone)]
pub struct Origin(Arc<Open>);

impl Origin {
    /// An origin that opens files with this function.
    pub fn new(
        open: impl Fn(String) -> BoxFuture<'static, Result<Source>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(open))
    }
}

/// One open file: its length, and a way to read ranges of it.
pub struct Source {
    bytes: u64,
    read: Box<Read>,
}

impl Source {
    /// A file of `bytes` bytes. `read(offset, length)` gives some bytes of that range, at least one.
    pub fn new(
        bytes: u64,
        read: impl Fn(u64, usize) -> BoxFuture<'static, Result<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        Self { bytes, read: Box::new(read) }
    }
}

/// Bounds of all copies together.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// Tables copied at once.
    pub streams: usize,
    /// Bytes asked for at once.
    pub chunk_bytes: usize,
    /// Bytes per second; 0: no limit.
    pub bytes_per_second: u64,
    /// Free bytes that stay on the disk.
    pub disk_reserve_bytes: u64,
}

/// Copies tables.
pub struct Fetcher {
    origin: Origin,
    limits: FetchLimits,
    streams: Arc<Semaphore>,
    bucket: Mutex<TokenBucket>,
    started: Instant,
    /// For each folder: held for reading while a thread changes a file in it.
    changes: Mutex<HashMap<PathBuf, Arc<RwLock<()>>>>,
}

impl Fetcher {
    /// Copies from `origin` within `limits`.
    pub fn new(origin: Origin, limits: FetchLimits) -> Self {
        Self {
            origin,
            limits,
            streams: Arc::new(Semaphore::new(limits.streams.max(1))),
            bucket: Mutex::new(TokenBucket::new(limits.bytes_per_second, 0)),
            started: Instant::now(),
            changes: Mutex::default(),
        }
    }

    /// Copies what is missing of `tables` into `folder`. `done` counts the bytes that are there. Cancel safe: dropping
    /// the future leaves partial files, with which the next call goes on.
    pub async fn fetch(
        self: &Arc<Self>,
        folder: &Path,
        tables: &Arc<[TableSpec]>,
        done: &Arc<AtomicU64>,
    ) -> Result<(), Failure> {
        let changes = self.changes_in(folder);
        // A copy that was abandoned may have a write on its way: it ends before anything is looked at.
        drop(changes.write().await);
        let outcome = self.fetch_missing(folder, tables, done, &changes).await;
        drop(changes.write().await);
        outcome
    }

    async fn fetch_missing(
        self: &Arc<Self>,
        folder: &Path,
        tables: &Arc<[TableSpec]>,
        done: &Arc<AtomicU64>,
        changes: &Arc<RwLock<()>>,
    ) -> Result<(), Failure> {
        let plan = {
            let (folder, tables) = (folder.to_owned(), tables.clone());
            off_thread(move || plan(&folder, &tables)).await.map_err(failure_of)?
        };
        let here: u64 = plan.iter().map(|copy| copy.here).sum();
        done.store(here, Ordering::Relaxed);
        self.check_space(folder, &plan).await?;
        let mut copies = JoinSet::new();
        for copy in plan.into_iter().filter(|copy| !copy.finished) {
            let (this, done, changes) = (self.clone(), done.clone(), changes.clone());
            copies.spawn(async move {
                let _permit = this.streams.acquire().await.expect("the semaphore is never closed");
                let path = copy.spec.path.clone();
                let copied = this.copy(copy, &done, &changes).await;
                copied.map_err(|error| error.context(format!("fetch {path}")))
            });
        }
        while let Some(outcome) = copies.join_next().await {
            // The first failure ends all: dropping the set aborts the others.
            match outcome {
                Ok(outcome) => outcome.map_err(failure_of)?,
                Err(error) => {
                    let message = format!("a copy ended: {error}");
                    return Err(Failure { kind: FailureKind::Transient, message });
                }
            }
        }
        Ok(())
    }

    /// The lock of the changes in a folder; those of folders where nothing happens are forgotten.
    fn changes_in(&self, folder: &Path) -> Arc<RwLock<()>> {
        let mut changes = self.changes.lock().expect("no holder panics");
        changes.retain(|_, lock| Arc::strong_count(lock) > 1);
        changes.entry(folder.to_owned()).or_default().clone()
    }

    async fn check_space(&self, folder: &Path, plan: &[Copy]) -> Result<(), Failure> {
        let needed: u64 = plan.iter().map(|copy| copy.spec.bytes.saturating_sub(copy.here)).sum();
        let stat = rustix::fs::statvfs(folder).map_err(|error| {
            failure_of(Error::io(format!("statvfs {}", folder.display()), &error.into()))
        })?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let reserve = self.limits.disk_reserve_bytes;
        if needed == 0 || needed.saturating_add(reserve) <= free {
            return Ok(());
        }
        let message = format!(
            "{}: {needed} bytes to fetch, {free} bytes free of which {reserve} stay free: free some or set kvserve.dir",
            folder.display()
        );
        Err(Failure { kind: FailureKind::Lasting, message })
    }

    async fn copy(&self, copy: Copy, done: &AtomicU64, changes: &Arc<RwLock<()>>) -> Result<()> {
        let source = (self.origin.0)(copy.spec.path.clone()).await?;
        if source.bytes != copy.spec.bytes {
            let what = format!("{} bytes, the catalogue says {}", source.bytes, copy.spec.bytes);
            return Err(Error::new(Code::Corrupt, what));
        }
        let path = copy.partial.clone();
        let mut at = copy.here;
        let changing = changes.clone().read_owned().await;
        let mut file = off_thread(move || {
            let _changing = changing;
            open_partial(&path, at)
        })
        .await?;
        while at < copy.spec.bytes {
            let left = usize::try_from(copy.spec.bytes - at).unwrap_or(usize::MAX);
            let length = left.min(self.limits.chunk_bytes.max(1));
            self.wait_for(length as u64).await;
            let bytes = (source.read)(at, length).await?;
            if bytes.is_empty() || bytes.len() > length {
                let what = format!("{} bytes at offset {at}, asked for {length}", bytes.len());
                return Err(Error::new(Code::Unavailable, what));
            }
            let (count, path) = (bytes.len() as u64, copy.partial.clone());
            let changing = changes.clone().read_owned().await;
            file = off_thread(move || {
                let _changing = changing;
                file.write_all(&bytes)
                    .map_err(|error| Error::io(format!("write {}", path.display()), &error))?;
                Ok(file)
            })
            .await?;
            at += count;
            done.fetch_add(count, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn wait_for(&self, bytes: u64) {
        let now_ms = self.started.elapsed().as_millis() as u64;
        let pause_ms = self.bucket.lock().expect("no holder panics").take(bytes, now_ms);
        if pause_ms > 0 {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
    }
}

/// What is to be done for one table.
struct Copy {
    spec: TableSpec,
    partial: PathBuf,
    /// Bytes that are here.
    here: u64,
    /// It is verified and has its name.
    finished: bool,
}

fn partial_path(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("{}.partial", file_name(index)))
}

/// Looks at what is here already.
fn plan(folder: &Path, tables: &[TableSpec]) -> Result<Vec<Copy>> {
    let length = |path: &Path| match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("stat {}", path.display()), &error)),
    };
    let mut plan = Vec::with_capacity(tables.len());
    for (index, spec) in tables.iter().enumerate() {
        let partial = partial_path(folder, index);
        let finished = length(&folder.join(file_name(index)))?.is_some();
        let here = match length(&partial)? {
            _ if finished => spec.bytes,
            Some(bytes) if bytes <= spec.bytes => bytes,
            _ => 0,
        };
        plan.push(Copy { spec: spec.clone(), partial, here, finished });
    }
    Ok(plan)
}

/// Opens a partial file to go on behind its first `keep` bytes.
fn open_partial(path: &Path, keep: u64) -> Result<File> {
    use std::io::{Seek, SeekFrom};
    let open = || {
        let mut file = File::options().create(true).truncate(false).write(true).open(path)?;
        file.set_len(keep)?;
        file.seek(SeekFrom::Start(keep))?;
        Ok(file)
    };
    open().map_err(|error: std::io::Error| Error::io(format!("open {}", path.display()), &error))
}

/// Verifies, syncs, renames and opens the fetched tables, on up to `threads` threads. Blocks. Damaged tables are
/// deleted, and the failure names the first.
pub fn verify_and_open(
    folder: &Path,
    tables: &[TableSpec],
    threads: usize,
    warm: bool,
) -> Result<Vec<(TableSpec, Table)>, Failure> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Result<Table, Failure>>>> =
        Mutex::new((0..tables.len()).map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, tables.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(spec) = tables.get(index) else { break };
                    let result = admit(folder, index, spec, warm);
                    results.lock().expect("no holder panics")[index] = Some(result);
                }
            });
        }
    });
    sync_folder(folder).map_err(failure_of)?;
    let results = results.into_inner().expect("no holder panics");
    let mut open = Vec::with_capacity(tables.len());
    for (spec, result) in tables.iter().zip(results) {
        open.push((spec.clone(), result.expect("every index was taken by a thread")?));
    }
    Ok(open)
}

/// Opens tables that were verified before this server was stopped: compares what names their content.
pub fn open_verified(folder: &Path, tables: &[TableSpec]) -> Result<Vec<(TableSpec, Table)>> {
    let open = |(index, spec): (usize, &TableSpec)| {
        let table = open_table(&folder.join(file_name(index)), spec)?;
        Ok((spec.clone(), table))
    };
    tables.iter().enumerate().map(open).collect()
}

/// Takes one table into service, or deletes it.
fn admit(folder: &Path, index: usize, spec: &TableSpec, warm: bool) -> Result<Table, Failure> {
    let path = folder.join(file_name(index));
    let partial = partial_path(folder, index);
    let fetched = !path.exists();
    let outcome = (|| {
        if fetched {
            verify(&partial, spec)?;
            std::fs::rename(&partial, &path)
                .map_err(|error| Error::io(format!("rename {}", partial.display()), &error))?;
        }
        let table = open_table(&path, spec)?;
        if warm {
            table.warm().map_err(table_error)?;
        }
        Ok(table)
    })();
    outcome.map_err(|error: Error| {
        if error.kind() != Kind::Corrupt {
            return failure_of(error);
        }
        let bad = if fetched && partial.exists() { &partial } else { &path };
        let mut message = format!("table {}: {error}", spec.path);
        if let Err(error) = std::fs::remove_file(bad) {
            message = format!("{message}; and it cannot be deleted: {error}");
        }
        Failure { kind: FailureKind::Damaged, message }
    })
}

/// Reads all of a fetched table and makes it durable.
fn verify(partial: &Path, spec: &TableSpec) -> Result<()> {
    let table = open_table(partial, spec)?;
    table.verify(|_, _| {}).and_then(sstable::VerifyReport::into_result).map_err(table_error)?;
    File::open(partial)
        .and_then(|file| file.sync_all())
        .map_err(|error| Error::io(format!("sync {}", partial.display()), &error))
}

/// Opens a table and compares it with what was published.
fn open_table(path: &Path, spec: &TableSpec) -> Result<Table> {
    let table = Table::open(path).map_err(|error| match error.io() {
        // A file that vanished is as good as a damaged one: it is fetched again.
        Some(io) if io.kind() == std::io::ErrorKind::NotFound => {
            Error::new(Code::Corrupt, error.message)
        }
        _ => match table_error(error) {
            error if error.code == Code::Incompatible => error,
            error if error.code == Code::InvalidArgument => {
                Error::new(Code::Corrupt, error.message)
            }
            error => error,
        },
    })?;
    let found = (table.file_bytes(), table.footer_crc32(), table.records());
    let expected = (spec.bytes, spec.footer_crc32, spec.records);
    if found != expected {
        let show = |(bytes, crc, records): (u64, u32, u64)| {
            format!("{bytes} bytes, footer checksum {crc:08x}, {records} records")
        };
        let what =
            format!("{}: {}; published were {}", path.display(), show(found), show(expected));
        return Err(Error::new(Code::Corrupt, what));
    }
    Ok(table)
}

/// What an error means for a version.
pub fn failure_of(error: Error) -> Failure {
    let kind = match error.kind() {
        Kind::Retry | Kind::GoElsewhere => FailureKind::Transient,
        Kind::NotFound
        | Kind::Conflict
        | Kind::Denied
        | Kind::Exhausted
        | Kind::Fatal
        | Kind::Corrupt => FailureKind::Lasting,
        Kind::Invalid => FailureKind::Permanent,
    };
    Failure { kind, message: error.message }
}

/// Runs `work`, which blocks, off the async threads.
pub async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => {
            Err(Error::new(Code::Internal, format!("work off the async threads: {error}")))
        }
    }
}
