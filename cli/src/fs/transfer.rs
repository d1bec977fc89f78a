//! Many copies at once: bounded, with one progress bar, and with nothing half-done under a final name.
//!
//! A file of the cluster is written as `name._COPYING_` and renamed when it is closed. What Ctrl-C or an error leaves
//! under such a name is deleted before the command ends; what `kill -9` leaves is overwritten by the next attempt.

use std::collections::BTreeSet;
use std::sync::Mutex;

use bytes::Bytes;
use client::CreateOptions;
use futures_util::StreamExt;
use proto::limits::NAME_BYTES_MAX;
use proto::{Code, Error, FsPath};

use super::Shell;
use crate::failure::{Exit, Failure, Result};
use crate::progress::Progress;

const SUFFIX: &str = "._COPYING_";

/// Copies that run at the same time if nobody says otherwise.
pub const PARALLEL_DEFAULT: usize = 4;

/// What to do with a target that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    Keep,
    /// Replace the file.
    Replace,
}

impl Existing {
    /// `-f` replaces.
    pub fn from_force(force: bool) -> Self {
        if force { Self::Replace } else { Self::Keep }
    }

    /// The rename that does it.
    pub fn rename_mode(self) -> client::RenameMode {
        match self {
            Self::Keep => client::RenameMode::NoReplace,
            Self::Replace => client::RenameMode::Replace,
        }
    }
}

/// Where chunks come from.
pub trait Chunks {
    /// The next chunk; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>>;
}

impl Chunks for super::local::Source {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        Self::next(self).await
    }
}

impl Chunks for client::FileReader {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        Ok(self.read_next().await?)
    }
}

/// How a file is stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    /// Replicas; 0 means the server's default.
    pub replication: u32,
    /// Block size in bytes; 0 means the server's default.
    pub block_bytes: u64,
    /// The number of an erasure-coding policy; 0: replicated; `None`: as the folder says.
    pub erasure_policy: Option<u32>,
}

/// The copies of one command.
pub struct Transfers<'a> {
    shell: &'a Shell,
    progress: Progress,
    existing: Existing,
    temporaries: Mutex<BTreeSet<FsPath>>,
}

impl<'a> Transfers<'a> {
    /// Copies that show `progress`.
    pub fn new(shell: &'a Shell, progress: Progress, existing: Existing) -> Self {
        Self { shell, progress, existing, temporaries: Mutex::default() }
    }

    /// The bar.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Stores chunks as a file that appears when it is whole. Gives its length in bytes.
    pub async fn store(
        &self,
        mut from: impl Chunks,
        target: &FsPath,
        layout: Layout,
        mode: u32,
    ) -> Result<u64> {
        self.refuse_existing(target).await?;
        let temporary = temporary(target)?;
        self.held().insert(temporary.clone());
        let stored = self.store_as(&mut from, &temporary, target, layout, mode).await;
        if stored.is_err() {
            self.remove(&temporary).await;
        }
        self.held().remove(&temporary);
        stored.map_err(|failure| failure.context(target))
    }

    async fn store_as(
        &self,
        from: &mut impl Chunks,
        temporary: &FsPath,
        target: &FsPath,
        layout: Layout,
        mode: u32,
    ) -> Result<u64> {
        let options = CreateOptions {
            overwrite: true,
            create_parents: false,
            mode: Some(mode),
            replication: layout.replication,
            block_bytes: layout.block_bytes,
            erasure_policy: layout.erasure_policy,
            ..CreateOptions::default()
        };
        let mut writer = self.shell.fs.create(temporary, options).await?;
        let mut bytes = 0;
        while let Some(chunk) = from.next().await? {
            let length = chunk.len() as u64;
            writer.write_bytes(chunk).await?;
            bytes += length;
            self.progress.add(length);
        }
        writer.close().await?;
        self.shell.fs.rename(temporary, target, self.existing.rename_mode()).await?;
        Ok(bytes)
    }

    /// Fails early rather than after all bytes were sent; the rename decides.
    async fn refuse_existing(&self, target: &FsPath) -> Result<()> {
        match self.shell.fs.try_status(target).await? {
            Some(status) if super::is_folder(&status) => {
                Err(Error::new(Code::IsFolder, format!("{target}: is a folder")).into())
            }
            Some(_) if self.existing == Existing::Keep => {
                let message = format!("{target}: exists already");
                Err(Failure::new(Exit::Conflict, message).hint("-f replaces it"))
            }
            _ => Ok(()),
        }
    }

    /// From now on a file is deleted if the command ends early.
    pub fn hold(&self, temporary: &FsPath) {
        self.held().insert(temporary.clone());
    }

    /// A file is left as it is from now on.
    pub fn release(&self, temporary: &FsPath) {
        self.held().remove(temporary);
    }

    async fn remove(&self, temporary: &FsPath) {
        // Best effort: a cluster that is gone cannot delete, and the next attempt overwrites.
        self.shell.fs.delete(temporary, client::Recursion::No).await.ok();
    }

    fn held(&self) -> std::sync::MutexGuard<'_, BTreeSet<FsPath>> {
        self.temporaries.lock().expect("no holder panics")
    }

    /// Runs `one` for all items, `parallel` at a time. Says what failed and goes on; ends with the first failure's
    /// code. Stops at once if the cluster is gone or full, and cleans up after Ctrl-C and SIGTERM.
    pub async fn all<T>(
        &self,
        items: Vec<T>,
        parallel: usize,
        one: impl AsyncFn(T) -> Result<()>,
    ) -> Result<()> {
        let alone = items.len() == 1;
        let work = async {
            let mut first: Option<Failure> = None;
            let mut running = futures_util::stream::iter(items)
                .map(|item| one(item))
                .buffer_unordered(parallel.max(1));
            while let Some(result) = running.next().await {
                let Err(failure) = result else { continue };
                let fatal =
                    [Exit::Unreachable, Exit::Exhausted, Exit::Pipe].contains(&failure.exit);
                if alone || fatal {
                    return Err(failure);
                }
                self.progress.note(&format!("granary: {failure}"));
                first.get_or_insert(failure);
            }
            first.map_or(Ok(()), |failure| Err(Failure::silent(failure.exit)))
        };
        let result = tokio::select! {
            result = work => result,
            signal = crate::signals::stop() => Err(signal),
        };
        let left: Vec<FsPath> = self.held().iter().cloned().collect();
        for temporary in &left {
            self.remove(temporary).await;
        }
        result
    }
}

/// The name under which a file is written: `name._COPYING_`, shortened if that would be too long a name.
pub fn temporary(target: &FsPath) -> Result<FsPath> {
    let (Some(parent), Some(name)) = (target.parent(), target.name()) else {
        return Err(Error::new(Code::IsFolder, "/: is a folder").into());
    };
    let mut keep = name.len().min(NAME_BYTES_MAX - SUFFIX.len());
    while !name.is_char_boundary(keep) {
        keep -= 1;
    }
    Ok(parent.join(&format!("{}{SUFFIX}", &name[..keep]))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_names_stay_within_the_limit() {
        let path = |text: &str| FsPath::parse(text).unwrap();
        assert_eq!(temporary(&path("/a/b.txt")).unwrap(), path("/a/b.txt._COPYING_"));
        let long = path(&format!("/{}", "\u{e4}".repeat(127)));
        assert!(temporary(&long).unwrap().name().unwrap().len() <= NAME_BYTES_MAX);
        assert!(temporary(&FsPath::root()).is_err());
    }
}
