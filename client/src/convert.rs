//! Coding a file anew: replicated to striped, striped to replicated, or from one policy to another.
//!
//! The content is copied to a hidden file beside it, which is closed, looked at until every block has all its replicas or
//! units, and compared by checksum; then one operation of the NameNode exchanges the content of both, if the file is
//! still the one that was copied; then the hidden file, which has the old blocks now, is deleted. What holds: at every
//! moment one of the two is whole and safe, whatever is killed; a file that is written meanwhile stays as it is, and the
//! error says so; a file that is so already costs one call. Whoever reads the file goes on with the old blocks, or asks
//! for the new ones when those are gone. What a killed conversion left behind is overwritten by the next one.
#![allow(clippy::disallowed_methods, reason = "a shell: waits for reports")]

use std::time::{Duration, Instant};

use proto::granary::{ExchangeContentRequest, FileStatus, LocatedBlock};
use proto::{Code, Error, FsPath, Result};
use transfer::stripe::Layout;

use crate::fs::{CreateOptions, Fs, Recursion, expect_file};

/// How the names of hidden copies begin; the number of the file's inode follows.
pub const HIDDEN_PREFIX: &str = ".granary-convert-";

/// Between two looks at the copy's blocks.
const PAUSE: Duration = Duration::from_millis(200);

/// How a file shall be stored.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The number of an erasure-coding policy; 0: replicated.
    pub policy: u32,
    /// Replicas, if it shall be replicated; 0: as many as new files get.
    pub replication: u32,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// It was so already.
    AlreadySo,
    /// It was coded anew: so many bytes.
    Done(u64),
}

impl Fs {
    /// Codes a closed file anew. `progress` is told how many bytes more were copied.
    ///
    /// `Stale` if it was written meanwhile, `NotReplicatedYet` if the cluster has too few DataNodes to hold the copy with
    /// all its replicas or units: either way it is as it was.
    pub async fn convert(
        &self,
        path: &FsPath,
        wanted: Wanted,
        progress: impl Fn(u64),
    ) -> Result<Conversion> {
        let status = self.status(path).await?;
        expect_file(path, &status)?;
        if status.erasure_policy == wanted.policy {
            return Ok(Conversion::AlreadySo);
        }
        if status.open_for_write {
            let what = format!("{path} is being written; it is converted when it is closed");
            return Err(Error::new(Code::FileOpenElsewhere, what));
        }
        let hidden = hidden_name(path, status.inode)?;
        let converted = self.convert_by(path, &hidden, &status, wanted, progress).await;
        let removed = self.delete(&hidden, Recursion::No).await;
        let bytes = converted?;
        removed.map_err(|error| {
            error.context(format_args!("{path} is converted, but {hidden} is left behind"))
        })?;
        Ok(Conversion::Done(bytes))
    }

    async fn convert_by(
        &self,
        path: &FsPath,
        hidden: &FsPath,
        status: &FileStatus,
        wanted: Wanted,
        progress: impl Fn(u64),
    ) -> Result<u64> {
        let copied = self.copy(path, hidden, status, wanted, progress).await?;
        self.wait_until_whole(hidden).await?;
        self.expect_unchanged(path, status).await?;
        if copied > 0 {
            let (old, new) =
                (self.composite_checksum(path).await?, self.composite_checksum(hidden).await?);
            if old != new {
                self.expect_unchanged(path, status).await?;
                let what = format!("{path} has checksum {old}, its copy {new}: it stays as it was");
                return Err(Error::new(Code::Corrupt, what));
            }
        }
        let request = ExchangeContentRequest {
            caller: self.namenode().caller(),
            target: path.to_string(),
            source: hidden.to_string(),
            inode: status.inode,
            modified_ns: status.modified_ns,
        };
        self.namenode()
            .namespace("exchange content", "ExchangeContent", request, async |mut stub, q| {
                stub.exchange_content(q).await
            })
            .await?;
        Ok(copied)
    }

    /// Copies the content; gives its bytes.
    async fn copy(
        &self,
        path: &FsPath,
        hidden: &FsPath,
        status: &FileStatus,
        wanted: Wanted,
        progress: impl Fn(u64),
    ) -> Result<u64> {
        let mut reader = self.open(path).await?;
        let options = CreateOptions {
            overwrite: true,
            create_parents: false,
            mode: Some(0o600),
            replication: wanted.replication,
            block_bytes: block_bytes(path, status, wanted.policy)?,
            erasure_policy: Some(wanted.policy),
            ..CreateOptions::default()
        };
        let mut writer = self.create(hidden, options).await?;
        let mut copied = 0;
        while let Some(bytes) = reader.read_next().await? {
            let length = bytes.len() as u64;
            writer.write_bytes(bytes).await?;
            copied += length;
            progress(length);
        }
        if copied != status.length {
            let what = format!("{path} had {} bytes and has {copied} now", status.length);
            return Err(Error::new(Code::Stale, what));
        }
        writer.close().await?;
        Ok(copied)
    }

    /// `Stale` if a file is not the one that is being converted any more.
    async fn expect_unchanged(&self, path: &FsPath, status: &FileStatus) -> Result<()> {
        let now = self.status(path).await?;
        let same = (now.inode, now.modified_ns, now.length, now.open_for_write)
            == (status.inode, status.modified_ns, status.length, false);
        if same {
            return Ok(());
        }
        let what = format!("{path} was written while it was being converted: it stays as it is");
        Err(Error::new(Code::Stale, what))
    }

    /// Waits until every block of a closed file has all its replicas or units: the old ones go when it takes their place.
    async fn wait_until_whole(&self, path: &FsPath) -> Result<()> {
        let deadline = Instant::now() + Duration::from_millis(self.config().retry_total_ms);
        loop {
            let reader = self.open(path).await?;
            let replication = reader.status().replication;
            let blocks = reader.all_blocks().await?;
            let lacking = blocks.iter().find_map(|block| lacks(path, block, replication));
            let Some(lacking) = lacking else { return Ok(()) };
            if Instant::now() >= deadline {
                let what = format!(
                    "the copy has not all it should have within {} ms, so the file stays as it \
                     was: {lacking}",
                    self.config().retry_total_ms
                );
                return Err(Error::new(Code::NotReplicatedYet, what));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// What a block lacks of its replicas or units, if anything.
fn lacks(path: &FsPath, located: &LocatedBlock, replication: u32) -> Option<String> {
    let block = located.block.unwrap_or_default();
    let (have, wanted, what) = match crate::erasure::policy(path, located.erasure_policy) {
        Ok(policy) => {
            let layout = Layout::from(policy);
            let with_bytes = |unit: &usize| layout.unit_length(block.length, *unit) > 0;
            let wanted = (0..layout.units()).filter(with_bytes);
            let have = wanted.clone().filter(|unit| located.units.contains(&(*unit as u8)));
            (have.count(), wanted.count(), "units of block group")
        }
        Err(_) => (located.locations.len(), replication as usize, "replicas of block"),
    };
    (have < wanted).then(|| format!("{have} of {wanted} {what} blk_{} are there", block.id))
}

/// Bytes of a block of the copy: as the file has them, if they hold a cell.
fn block_bytes(path: &FsPath, status: &FileStatus, policy: u32) -> Result<u64> {
    if policy == 0 {
        return Ok(status.block_bytes);
    }
    let cell_bytes = u64::from(crate::erasure::policy(path, policy)?.cell_bytes);
    Ok(status.block_bytes.max(cell_bytes))
}

/// Where a file is copied to: beside it, so that the same quotas count.
pub fn hidden_name(path: &FsPath, inode: u64) -> Result<FsPath> {
    let parent = path.parent().unwrap_or_else(FsPath::root);
    parent.join(&format!("{HIDDEN_PREFIX}{inode}"))
}
