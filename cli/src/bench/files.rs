//! Files and names: sequential write and read, small files, calls to the NameNode with 1 and with 32 callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use proto::FsPath;

use super::figures::Values;
use super::target::Target;
use super::{SMALL_FILE_BYTES, Size};
use crate::failure::{Exit, Failure, Result};
use crate::progress::Progress;

/// Bytes that a large file is written with at once.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Callers at the same time, with the suffix of their figures.
const CALLERS: [usize; 2] = [1, 32];

/// Measures everything once in `folder`, which is made and deleted. `over_tcp` is the same file system without the short
/// way to DataNodes on this machine.
pub async fn measure(
    target: &Target,
    over_tcp: Option<&Target>,
    folder: &FsPath,
    size: &Size,
    progress: &Progress,
    values: &mut Values,
) -> Result<()> {
    target.mkdirs(folder).await?;
    let measured = async {
        sequential(target, over_tcp, folder, size, progress, values).await?;
        for callers in CALLERS {
            progress.say(format!("names, {callers} callers"));
            names(target, folder, size, callers, values).await?;
        }
        Ok(())
    };
    let measured = measured.await;
    // What could not be deleted is told only if nothing else went wrong.
    let deleted = target.delete(folder).await;
    measured.and(deleted)
}

async fn sequential(
    target: &Target,
    over_tcp: Option<&Target>,
    folder: &FsPath,
    size: &Size,
    progress: &Progress,
    values: &mut Values,
) -> Result<()> {
    let path = folder.join("large")?;
    let chunk = Bytes::from(super::noise(CHUNK_BYTES));
    let times = size.bytes / CHUNK_BYTES as u64;
    progress.say("sequential write");
    let begun = Instant::now();
    target.write(&path, &chunk, times).await?;
    let rate = |bytes: u64, begun: Instant| bytes as f64 / begun.elapsed().as_secs_f64();
    values.add("write", rate(times * CHUNK_BYTES as u64, begun));
    let direct = [("read", Some(target)), ("read_tcp", over_tcp)];
    for (id, target) in direct.into_iter().filter_map(|(id, target)| Some((id, target?))) {
        progress.say("sequential read");
        let begun = Instant::now();
        let bytes = target.read(&path).await?;
        values.add(id, rate(bytes, begun));
    }
    Ok(())
}

async fn names(
    target: &Target,
    folder: &FsPath,
    size: &Size,
    callers: usize,
    values: &mut Values,
) -> Result<()> {
    let ids: [&'static str; 4] = match callers {
        1 => ["files_1", "info_1", "mkdirs_1", "create_1"],
        _ => ["files_32", "info_32", "mkdirs_32", "create_32"],
    };
    let own = folder.join(&format!("callers-{callers}"))?;
    target.mkdirs(&own).await?;
    let calls = [size.files, size.calls, size.calls / 4, size.calls / 4];
    let kinds = [Call::SmallFile, Call::Info, Call::Mkdirs, Call::Create];
    for ((id, kind), count) in ids.into_iter().zip(kinds).zip(calls) {
        values.add(id, rate(target, &own, kind, callers, count).await?);
    }
    Ok(())
}

/// What is called again and again.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    /// Create, write, close.
    SmallFile,
    /// getFileInfo of the folder.
    Info,
    /// mkdirs of a new folder.
    Mkdirs,
    /// create and complete, without a block.
    Create,
}

/// Lets so many callers make `count` calls in `folder` together, and tells how many were done per second.
pub async fn rate(
    target: &Target,
    folder: &FsPath,
    kind: Call,
    callers: usize,
    count: u64,
) -> Result<f64> {
    let caller = Caller {
        target: target.clone(),
        folder: folder.clone(),
        kind,
        content: Bytes::from(super::noise(SMALL_FILE_BYTES)),
        next: Arc::new(AtomicU64::new(0)),
        count,
    };
    caller.rate(callers).await
}

/// One of several tasks that share the work.
#[derive(Clone)]
struct Caller {
    target: Target,
    folder: FsPath,
    kind: Call,
    content: Bytes,
    next: Arc<AtomicU64>,
    count: u64,
}

impl Caller {
    /// Lets so many callers do the work, and tells how much of it was done per second.
    async fn rate(self, callers: usize) -> Result<f64> {
        let count = self.count;
        let begun = Instant::now();
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..callers {
            running.spawn(self.clone().work());
        }
        while let Some(ended) = running.join_next().await {
            ended.map_err(|error| Failure::new(Exit::Failure, error.to_string()))??;
        }
        Ok(count as f64 / begun.elapsed().as_secs_f64())
    }

    async fn work(self) -> Result<()> {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.count {
                return Ok(());
            }
            let name = |kind: &str| self.folder.join(&format!("{kind}-{index}"));
            match self.kind {
                Call::SmallFile => self.target.write(&name("small")?, &self.content, 1).await?,
                Call::Info => self.target.info(&self.folder).await?,
                Call::Mkdirs => self.target.mkdirs(&name("folder")?).await?,
                Call::Create => self.target.write(&name("empty")?, &Bytes::new(), 0).await?,
            }
        }
    }
}
