//! For tests: small tables, an origin that reads local files and can be told to fail, waiting with a deadline.
#![allow(clippy::disallowed_methods, reason = "deadlines of tests")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::{Code, Error};
use sstable::{TableWriter, WriterOptions};

use crate::fetch::{FetchLimits, Origin, Source};
use crate::tablespec::TableSpec;

/// Builds the tables of one version: `tables` of them, each record where its slot belongs.
pub fn build(
    folder: &Path,
    name: &str,
    tables: u16,
    records: &[(String, String)],
) -> Arc<[TableSpec]> {
    let width = 16384 / tables;
    let mut specs = Vec::new();
    for n in 0..tables {
        let first = n * width;
        let last = if n + 1 == tables { 16383 } else { first + width - 1 };
        let path = folder.join(format!("{name}-{n}.tbl"));
        let mut wanted: Vec<_> = records
            .iter()
            .filter(|(key, _)| (first..=last).contains(&sstable::slot::slot_of(key.as_bytes())))
            .collect();
        wanted.sort();
        let file = File::create(&path).unwrap();
        let mut writer = TableWriter::new(file, WriterOptions::default()).unwrap();
        for (key, value) in wanted {
            writer.add(key.as_bytes(), value.as_bytes()).unwrap();
        }
        let (_, summary) = writer.finish().unwrap();
        specs.push(TableSpec {
            path: path.display().to_string(),
            bytes: summary.bytes,
            records: summary.records,
            slot_first: first,
            slot_last: last,
            footer_crc32: summary.footer_crc32,
        });
    }
    specs.into()
}

/// Records `k0..` whose values name the version.
pub fn records(count: u32, version: u64) -> Vec<(String, String)> {
    (0..count).map(|n| (format!("k{n}"), format!("v{version}-{n}"))).collect()
}

/// An origin over local files.
#[derive(Clone, Default)]
pub struct LocalFiles {
    /// Reads fail with "unavailable" once so many bytes were handed out; 0: never.
    pub fail_after: Arc<AtomicU64>,
    /// Bytes handed out.
    pub served: Arc<AtomicU64>,
    /// Offsets that were asked for, by file.
    pub offsets: Arc<Mutex<Vec<(PathBuf, u64)>>>,
}

impl LocalFiles {
    /// The origin.
    pub fn origin(&self) -> Origin {
        let this = self.clone();
        Origin::new(move |path| {
            let this = this.clone();
            Box::pin(async move {
                let path = PathBuf::from(path);
                let content = std::fs::read(&path).map_err(|e| Error::io("origin", &e))?;
                let content = Bytes::from(content);
                Ok(Source::new(content.len() as u64, move |offset, length| {
                    let (this, path, content) = (this.clone(), path.clone(), content.clone());
                    Box::pin(async move {
                        let limit = this.fail_after.load(Ordering::SeqCst);
                        if limit > 0 && this.served.load(Ordering::SeqCst) >= limit {
                            return Err(Error::new(Code::Unavailable, "origin is told to fail"));
                        }
                        this.offsets.lock().unwrap().push((path, offset));
                        this.served.fetch_add(length as u64, Ordering::SeqCst);
                        Ok(content.slice(offset as usize..offset as usize + length))
                    })
                }))
            })
        })
    }
}

/// Limits that make small tables travel in many pieces.
pub fn small_limits() -> FetchLimits {
    FetchLimits { streams: 2, chunk_bytes: 1000, bytes_per_second: 0, disk_reserve_bytes: 0 }
}

/// Waits until `done` gives something. Panics after a generous deadline.
pub async fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
