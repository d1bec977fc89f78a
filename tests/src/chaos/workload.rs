//! Writers, each with files of its own, and readers of everybody's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use client::{CreateOptions, Fs, Recursion, RenameMode};
use proto::FsPath;
use proto::erasure::Policy;

use super::model::{Model, Outcome, difference, read_range};
use super::report::Report;
use crate::seed::Seed;

/// Files of one writer.
const FILES_MAX: usize = 24;
/// Bytes of a file or an append, at most: a few blocks.
const BYTES_MAX: u64 = 1 << 20;
/// Bytes of a file that was appended to, at most.
const GROWN_MAX: usize = 4 << 20;
/// How many times as long the files of a writer of striped files are: a few cells, so that rows are short and whole.
const STRIPED_FACTOR: u64 = 6;
/// Bytes of a unit of a block group, at most: two rows.
const UNIT_BYTES: u64 = 2 << 20;

pub(super) struct Worker {
    pub number: usize,
    pub fs: Fs,
    pub seed: Seed,
    pub model: Arc<Model>,
    pub report: Arc<Report>,
    pub stop: Arc<AtomicBool>,
    /// How this writer's files are coded; `None`: replicated.
    pub coded: Option<Policy>,
}

fn parsed(path: &str) -> FsPath {
    FsPath::parse(path).expect("a good path")
}

impl Worker {
    /// Writes until told to stop.
    pub(super) async fn write(mut self) {
        let folder = format!("/writer-{}/", self.number);
        while !self.stop.load(Ordering::Relaxed) {
            let path = format!("{folder}{}", self.seed.below(FILES_MAX as u64));
            let exists = self.model.get(&path).is_some();
            match (self.seed.below(10), exists) {
                (0..=3, _) | (_, false) => self.create(&path).await,
                (4..=6, true) => self.append(&path).await,
                (7, true) => self.rename(&path, &folder).await,
                (8, true) => self.delete(&path).await,
                (_, true) => self.list(&folder).await,
            }
        }
    }

    /// Reads until told to stop.
    pub(super) async fn read(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let Some((path, content, version)) = self.model.pick(self.seed.next()) else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let start = self.seed.below(content.len() as u64 + 1) as usize;
            let length = self.seed.below((content.len() - start) as u64 + 1) as usize;
            let expected = &content[start..start + length];
            let unchanged = || self.model.is_unchanged(&path, version);
            match read_range(&self.fs, &parsed(&path), start, length, unchanged).await {
                None => {}
                Some(Ok(found)) if found == expected => self.report.verified(found.len()),
                Some(Ok(found)) => {
                    self.report
                        .lost(&path, format!("at {start}: {}", difference(&found, expected)));
                }
                Some(Err(error)) => self.report.lost(&path, format!("cannot be read: {error}")),
            }
        }
    }

    fn factor(&self) -> u64 {
        if self.coded.is_some() { STRIPED_FACTOR } else { 1 }
    }

    fn verb(&self, replicated: &'static str, striped: &'static str) -> &'static str {
        if self.coded.is_some() { striped } else { replicated }
    }

    async fn create(&mut self, path: &str) {
        let length = self.seed.below(BYTES_MAX * self.factor()) as usize;
        let content = Bytes::from(self.seed.bytes(length));
        let old = self.model.get(path);
        self.model.begin(path);
        let mut durable = 0;
        let mut created = false;
        let written = async {
            let options = CreateOptions {
                overwrite: true,
                block_bytes: self.coded.map_or(0, |_| UNIT_BYTES),
                erasure_policy: self.coded.map(|policy| policy.id.into()),
                ..CreateOptions::default()
            };
            let mut file = self.fs.create(&parsed(path), options).await?;
            created = true;
            fill(&mut file, &content, &mut self.seed, &mut durable).await?;
            file.close().await
        };
        if written.await.is_ok() {
            self.report.acknowledged(self.verb("create", "create striped"));
            return self.model.settle(path, Some(content));
        }
        self.report.failed(self.verb("create", "create striped"));
        let before = old.map_or(Outcome::Missing, Outcome::Exactly);
        let after = Outcome::Prefix { of: content, at_least: durable };
        let outcomes = if created { vec![after] } else { vec![before, after] };
        self.model.resolve(&self.fs, &parsed(path), &outcomes, &self.report).await;
    }

    async fn append(&mut self, path: &str) {
        let old = self.model.get(path).expect("it exists");
        if old.len() > GROWN_MAX * self.factor() as usize {
            return self.delete(path).await;
        }
        let length = self.seed.below(BYTES_MAX / 4 * self.factor()) as usize;
        let tail = Bytes::from(self.seed.bytes(length));
        let whole = Bytes::from([&old[..], &tail[..]].concat());
        self.model.begin(path);
        let mut durable = 0;
        let written = async {
            let mut file = self.fs.append(&parsed(path)).await?;
            fill(&mut file, &tail, &mut self.seed, &mut durable).await?;
            file.close().await
        };
        if written.await.is_ok() {
            self.report.acknowledged(self.verb("append", "append striped"));
            return self.model.settle(path, Some(whole));
        }
        self.report.failed(self.verb("append", "append striped"));
        let outcome = Outcome::Prefix { of: whole, at_least: old.len() + durable };
        self.model.resolve(&self.fs, &parsed(path), &[outcome], &self.report).await;
    }

    async fn rename(&mut self, path: &str, folder: &str) {
        let target = format!("{folder}{}", self.seed.below(FILES_MAX as u64));
        if target == path {
            return;
        }
        let moved = self.model.get(path).expect("it exists");
        let replaced = self.model.get(&target);
        self.model.begin(path);
        self.model.begin(&target);
        let renamed =
            self.fs.rename(&parsed(path), &parsed(&target), RenameMode::Replace).await.is_ok();
        if renamed {
            self.report.acknowledged("rename");
            self.model.settle(path, None);
            return self.model.settle(&target, Some(moved));
        }
        self.report.failed("rename");
        let before = replaced.map_or(Outcome::Missing, Outcome::Exactly);
        let ours = Outcome::Exactly(moved);
        let at_source = [ours.clone(), Outcome::Missing];
        self.model.resolve(&self.fs, &parsed(path), &at_source, &self.report).await;
        // Where the source is gone the target has its content, and the other way round.
        let at_target = if self.model.get(path).is_some() { [before] } else { [ours] };
        self.model.resolve(&self.fs, &parsed(&target), &at_target, &self.report).await;
    }

    async fn delete(&mut self, path: &str) {
        let old = self.model.get(path).expect("it exists");
        self.model.begin(path);
        if self.fs.delete(&parsed(path), Recursion::No).await.is_ok() {
            self.report.acknowledged("delete");
            return self.model.settle(path, None);
        }
        self.report.failed("delete");
        let outcomes = [Outcome::Missing, Outcome::Exactly(old)];
        self.model.resolve(&self.fs, &parsed(path), &outcomes, &self.report).await;
    }

    /// The names and lengths of a folder are those of the model.
    async fn list(&mut self, folder: &str) {
        let Ok(listed) = self.fs.list(&parsed(folder.trim_end_matches('/'))).await else {
            return self.report.failed("list");
        };
        let mut found: Vec<(String, u64)> = listed
            .into_iter()
            .map(|status| (format!("{folder}{}", status.name), status.length))
            .collect();
        found.sort();
        let mut expected: Vec<(String, u64)> = Vec::new();
        for path in self.model.under(folder) {
            let length = self.model.get(&path).map_or(0, |content| content.len() as u64);
            expected.push((path, length));
        }
        expected.sort();
        if found != expected {
            self.report.violation(format!("{folder} lists {found:?}, expected {expected:?}"));
        }
        self.report.acknowledged("list");
    }
}

/// Writes content in parts, and syncs now and then: `durable` tells how much of it is on stable storage for certain.
async fn fill(
    file: &mut client::FileWriter,
    content: &Bytes,
    seed: &mut Seed,
    durable: &mut usize,
) -> proto::Result<()> {
    let mut at = 0;
    while at < content.len() {
        let part = (1 + seed.below(200_000) as usize).min(content.len() - at);
        file.write_bytes(content.slice(at..at + part)).await?;
        at += part;
        if seed.below(4) == 0 {
            file.sync().await?;
            *durable = at;
        }
    }
    Ok(())
}
