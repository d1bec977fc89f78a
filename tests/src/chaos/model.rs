//! What every file must hold: the bytes that were acknowledged, and what an operation that failed may have left.
//!
//! Each path has one writer. While an operation is under way its path is taken out of what readers may check. An
//! operation that failed has done all, nothing or a part: the writer looks which, and any of these is right, as long
//! as no acknowledged byte is missing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::Fs;
use proto::{Code, FsPath};

use super::report::Report;

/// How long a read may be tried again: as long as nothing more than a fault is in its way, it comes through.
const READ_WITHIN: Duration = Duration::from_secs(90);
/// The largest file.
const BYTES_MAX: u64 = 64 << 20;

/// What a file may hold.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// No file of that name.
    Missing,
    /// Exactly this.
    Exactly(Bytes),
    /// So many bytes of this at least, and nothing else.
    Prefix {
        /// What was being written.
        of: Bytes,
        /// What was acknowledged of it.
        at_least: usize,
    },
}

impl Outcome {
    fn allows(&self, found: Option<&[u8]>) -> bool {
        match (self, found) {
            (Self::Missing, None) => true,
            (Self::Exactly(content), Some(found)) => *content == *found,
            (Self::Prefix { of, at_least }, Some(found)) => {
                found.len() >= *at_least && of.starts_with(found)
            }
            _ => false,
        }
    }

    fn told(&self) -> String {
        match self {
            Self::Missing => "no file".into(),
            Self::Exactly(content) => format!("{} bytes", content.len()),
            Self::Prefix { of, at_least } => format!("{at_least} to {} bytes", of.len()),
        }
    }
}

struct Entry {
    content: Bytes,
    /// Grows with every change, so that a reader sees that it read in the middle of one.
    version: u64,
    busy: bool,
}

/// All files that were acknowledged.
#[derive(Default)]
pub struct Model {
    files: Mutex<BTreeMap<String, Entry>>,
    versions: Mutex<u64>,
}

impl Model {
    fn files(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_version(&self) -> u64 {
        let mut last = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        *last += 1;
        *last
    }

    /// What a path holds now; `None`: nothing.
    pub fn get(&self, path: &str) -> Option<Bytes> {
        self.files().get(path).map(|entry| entry.content.clone())
    }

    /// Paths under a folder.
    pub fn under(&self, folder: &str) -> Vec<String> {
        self.files().keys().filter(|path| path.starts_with(folder)).cloned().collect()
    }

    /// An operation on a path begins.
    pub fn begin(&self, path: &str) {
        let version = self.next_version();
        if let Some(entry) = self.files().get_mut(path) {
            (entry.busy, entry.version) = (true, version);
        }
    }

    /// It ended: the path holds this now.
    pub fn settle(&self, path: &str, content: Option<Bytes>) {
        let version = self.next_version();
        match content {
            Some(content) => {
                self.files().insert(path.to_owned(), Entry { content, version, busy: false });
            }
            None => {
                self.files().remove(path);
            }
        }
    }

    /// A path that may be read and checked now: the `nth` of all, and its version.
    pub fn pick(&self, nth: u64) -> Option<(String, Bytes, u64)> {
        let files = self.files();
        let quiet: Vec<_> = files.iter().filter(|(_, entry)| !entry.busy).collect();
        let (path, entry) = quiet.get(usize::try_from(nth % quiet.len().max(1) as u64).ok()?)?;
        Some(((*path).clone(), entry.content.clone(), entry.version))
    }

    /// Whether a path is still as it was picked.
    pub fn is_unchanged(&self, path: &str, version: u64) -> bool {
        self.files().get(path).is_some_and(|entry| entry.version == version)
    }

    /// Looks what an operation left that failed, and takes it over. What none of the outcomes allows is a violation.
    pub async fn resolve(&self, fs: &Fs, path: &FsPath, outcomes: &[Outcome], report: &Report) {
        let found = match look(fs, path).await {
            Ok(found) => found,
            Err(error) => {
                report.violation(format!("{path} cannot be looked at: {error}"));
                return self.settle(path.as_str(), None);
            }
        };
        if !outcomes.iter().any(|outcome| outcome.allows(found.as_deref())) {
            let told: Vec<String> = outcomes.iter().map(Outcome::told).collect();
            let length = found.as_ref().map_or("no file".into(), |f| format!("{} bytes", f.len()));
            report.lost(path.as_str(), format!("{length}; expected {}", told.join(" or ")));
        }
        self.settle(path.as_str(), found);
    }

    /// Reads everything once more.
    pub async fn check_all(&self, fs: &Fs, report: &Report) {
        let all: Vec<(String, Bytes)> = {
            let files = self.files();
            files.iter().map(|(path, entry)| (path.clone(), entry.content.clone())).collect()
        };
        for (path, content) in all {
            let parsed = FsPath::parse(&path).expect("a path that was used");
            match fs.read_all(&parsed, BYTES_MAX).await {
                Ok(found) if found == content => report.verified(found.len()),
                Ok(found) => {
                    report.lost(&path, format!("{}; at the end", difference(&found, &content)))
                }
                Err(error) => report.lost(&path, format!("cannot be read at the end: {error}")),
            }
        }
    }
}

/// Where two contents differ.
pub fn difference(found: &[u8], expected: &[u8]) -> String {
    let at = found.iter().zip(expected).position(|(a, b)| a != b);
    format!("{} bytes, expected {}, first difference at {at:?}", found.len(), expected.len())
}

/// Closes a file that may be open, and reads it; tries until the cluster answers.
async fn look(fs: &Fs, path: &FsPath) -> proto::Result<Option<Bytes>> {
    let deadline = Instant::now() + READ_WITHIN;
    loop {
        let looked = look_once(fs, path).await;
        match looked {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn look_once(fs: &Fs, path: &FsPath) -> proto::Result<Option<Bytes>> {
    if fs.try_status(path).await?.is_none() {
        return Ok(None);
    }
    if !fs.recover_lease(path).await? {
        return Err(proto::Error::new(Code::Unavailable, "the file is still being recovered"));
    }
    fs.read_all(path, BYTES_MAX).await.map(Some)
}

/// Reads a range, trying again until faults let it through.
pub async fn read_range(
    fs: &Fs,
    path: &FsPath,
    offset: usize,
    length: usize,
    unchanged: impl Fn() -> bool,
) -> Option<proto::Result<Bytes>> {
    let deadline = Instant::now() + READ_WITHIN;
    loop {
        let read = async { fs.open(path).await?.read_bytes_at(offset as u64, length).await };
        let read = read.await;
        if !unchanged() {
            return None;
        }
        if read.is_ok() || Instant::now() > deadline {
            return Some(read);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
