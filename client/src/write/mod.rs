//! Writing a file.
//!
//! | module | owns |
//! |---|---|
//! | `replicated` | a file whose blocks are replicated: packets, blocks, pipelines |
//! | [`striped`] | a file whose blocks are striped and coded: rows, groups, units |
//! | `pipeline`, `replacement` | one replicated block, and what happens when its pipeline fails |
//! | `blocking` | the writer for plain threads |
//!
//! [`FileWriter`] is either kind, as the file's erasure-coding policy says. What holds for both: bytes go out in order;
//! memory is bounded by the settings; failures are mended without the caller noticing while that is possible: one
//! DataNode of a pipeline lives, or no more units of a group are lost than it has parity. Leases are renewed elsewhere
//! ([`crate::lease`]).

mod blocking;
mod pipeline;
mod replacement;
mod replicated;
pub mod striped;

use std::sync::Arc;

use bytes::Bytes;
use proto::erasure::Policy;
use proto::granary::{
    Block, CompleteRequest, FileStatus, FsyncRequest, GetBlockLocationsRequest, LocatedBlock,
};
use proto::{Code, Error, FsPath, Result};
use transfer::Checksum;

pub use blocking::BlockingWriter;
pub(crate) use blocking::to_io;

use crate::fs::{Fs, Recursion, expect_file};
use crate::lease::Guard;
use replicated::ReplicatedWriter;
use striped::StripedWriter;

/// A file that is open for writing. Bytes go to its end.
///
/// Close it: a writer that is dropped instead leaves the file open, and its length unsettled, until its lease ends.
/// If a future of one of its methods is dropped before it is ready, the bytes of that call may be written or not, in
/// part or whole; the writer itself stays usable.
#[derive(Debug)]
pub struct FileWriter {
    kind: Kind,
    created: bool,
    _lease: Arc<Guard>,
}

#[derive(Debug)]
enum Kind {
    Replicated(Box<ReplicatedWriter>),
    Striped(Box<StripedWriter>),
}

/// Which file, for whom: what every call about it names.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) fs: Fs,
    pub(crate) path: FsPath,
    pub(crate) inode: u64,
    /// Replicas that the file asks for.
    pub(crate) replication: usize,
    pub(crate) checksum: Checksum,
}

/// What a flush must achieve.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// In the memory of every replica.
    Visible,
    /// On stable storage on every replica.
    Synced,
}

impl FileWriter {
    pub(crate) fn created(
        fs: Fs,
        path: FsPath,
        status: FileStatus,
        lease: Arc<Guard>,
    ) -> Result<Self> {
        let target = Target::new(fs, path, &status)?;
        let kind = match policy_of(&target.path, &status)? {
            None => Kind::Replicated(Box::new(ReplicatedWriter::new(target, status.block_bytes))),
            Some(policy) => {
                let writer = StripedWriter::new(target, policy, status.block_bytes)?;
                Kind::Striped(Box::new(writer))
            }
        };
        Ok(Self { kind, created: true, _lease: lease })
    }

    pub(crate) async fn appending(
        fs: Fs,
        path: FsPath,
        status: FileStatus,
        last_block: Option<LocatedBlock>,
        lease: Arc<Guard>,
    ) -> Result<Self> {
        let target = Target::new(fs, path, &status)?;
        let (block_bytes, length) = (status.block_bytes, status.length);
        let kind = match policy_of(&target.path, &status)? {
            None => {
                let writer =
                    ReplicatedWriter::appending(target, block_bytes, length, last_block).await?;
                Kind::Replicated(Box::new(writer))
            }
            Some(policy) => {
                let writer = StripedWriter::appending(target, policy, block_bytes, length).await?;
                Kind::Striped(Box::new(writer))
            }
        };
        Ok(Self { kind, created: false, _lease: lease })
    }

    fn target(&self) -> &Target {
        match &self.kind {
            Kind::Replicated(writer) => writer.target(),
            Kind::Striped(writer) => writer.target(),
        }
    }

    /// Which file.
    pub fn path(&self) -> &FsPath {
        &self.target().path
    }

    /// The number of the file's inode: it stays when the path changes, and tells this file from another of its path.
    pub fn inode(&self) -> u64 {
        self.target().inode
    }

    /// Offset in the file of the next byte.
    pub fn position(&self) -> u64 {
        match &self.kind {
            Kind::Replicated(writer) => writer.position(),
            Kind::Striped(writer) => writer.position(),
        }
    }

    /// Writes all of `data`. Returns when it is copied or on its way, not when it is stored: see [`Self::sync`].
    pub async fn write(&mut self, data: &[u8]) -> Result<()> {
        match &mut self.kind {
            Kind::Replicated(writer) => writer.write(data).await,
            Kind::Striped(writer) => writer.write(data).await,
        }
    }

    /// Writes shared bytes: whole packets of them are sent without being copied.
    pub async fn write_bytes(&mut self, data: Bytes) -> Result<()> {
        match &mut self.kind {
            Kind::Replicated(writer) => writer.write_bytes(data).await,
            Kind::Striped(writer) => writer.write_bytes(data).await,
        }
    }

    /// Copies as many bytes as fit in what is being filled, and tells how many. Never waits.
    pub(crate) fn push(&mut self, data: &[u8]) -> usize {
        match &mut self.kind {
            Kind::Replicated(writer) => writer.push(data),
            Kind::Striped(writer) => writer.push(data),
        }
    }

    /// HDFS's `hflush`: readers who open the file now see all bytes; every replica has them in memory.
    ///
    /// A striped file has them on stable storage then: each flush ends a block group, and the next byte begins another.
    pub async fn flush(&mut self) -> Result<()> {
        self.flush_as(Durability::Visible).await
    }

    /// HDFS's `hsync`: all bytes are on stable storage on every replica.
    pub async fn sync(&mut self) -> Result<()> {
        self.flush_as(Durability::Synced).await
    }

    async fn flush_as(&mut self, durability: Durability) -> Result<()> {
        match &mut self.kind {
            Kind::Replicated(writer) => writer.flush_as(durability).await,
            Kind::Striped(writer) => writer.flush().await,
        }
    }

    /// Sends what is left, waits until every replica has it on stable storage, and closes the file.
    pub async fn close(mut self) -> Result<FileStatus> {
        let last = match &mut self.kind {
            Kind::Replicated(writer) => writer.finish().await?,
            Kind::Striped(writer) => writer.finish().await?,
        };
        let target = self.target();
        let request = CompleteRequest {
            caller: None,
            path: target.path.to_string(),
            inode: target.inode,
            holder: target.fs.holder().to_owned(),
            last,
        };
        match pipeline::complete(target, request).await? {
            Some(mut status) => {
                status.name = target.path.name().unwrap_or("").to_owned();
                Ok(status)
            }
            None => target.fs.status(&target.path).await,
        }
    }

    /// Gives the file up: one that this writer made is deleted; one that it appended to keeps what it had, and
    /// perhaps more, and is closed by the NameNode.
    pub async fn abort(self) -> Result<()> {
        let Target { fs, path, .. } = self.target().clone();
        let created = self.created;
        drop(self);
        if created {
            fs.delete(&path, Recursion::No).await?;
        } else {
            fs.recover_lease(&path).await?;
        }
        Ok(())
    }

    /// For a plain thread: `std::io::Write`, run on the file system's runtime.
    pub fn into_blocking(self) -> BlockingWriter {
        BlockingWriter::new(self)
    }

    pub(crate) fn fs(&self) -> &Fs {
        &self.target().fs
    }
}

/// How a file is coded; `None`: it is replicated.
fn policy_of(path: &FsPath, status: &FileStatus) -> Result<Option<Policy>> {
    if status.erasure_policy == 0 {
        return Ok(None);
    }
    crate::erasure::policy(path, status.erasure_policy).map(Some)
}

impl Target {
    fn new(fs: Fs, path: FsPath, status: &FileStatus) -> Result<Self> {
        expect_file(&path, status)?;
        if status.block_bytes == 0 {
            return Err(Error::new(Code::Incompatible, format!("{path} has blocks of 0 bytes")));
        }
        Ok(Self {
            fs,
            path,
            inode: status.inode,
            replication: status.replication as usize,
            checksum: Checksum::NATIVE,
        })
    }

    /// Data bytes of a packet: whole chunks.
    fn packet_bytes(&self) -> usize {
        let chunk = self.checksum.chunk_bytes();
        let packet_bytes = self.fs.config().packet_bytes.min(proto::limits::PACKET_BYTES_MAX / 4);
        (packet_bytes as usize / chunk).max(1) * chunk
    }

    /// The last block of the file, which ends at `position`.
    async fn last_block(&self, position: u64) -> Result<Option<Block>> {
        let request = GetBlockLocationsRequest {
            caller: self.fs.namenode().caller(),
            path: self.path.to_string(),
            offset: position.saturating_sub(1),
            length: 1,
        };
        let namenode = self.fs.namenode();
        let reply = namenode
            .namespace("locate blocks", "GetBlockLocations", request, async |mut stub, q| {
                stub.get_block_locations(q).await
            })
            .await?;
        Ok(reply.last_block.and_then(|located| located.block))
    }

    /// Tells the NameNode how many bytes the last block has.
    async fn tell_length(&self, last_block_length: u64) -> Result<()> {
        let request = FsyncRequest {
            caller: self.fs.namenode().caller(),
            path: self.path.to_string(),
            inode: self.inode,
            holder: self.fs.holder().to_owned(),
            last_block_length,
        };
        let namenode = self.fs.namenode();
        namenode
            .namespace("fsync", "Fsync", request, async |mut stub, q| stub.fsync(q).await)
            .await?;
        Ok(())
    }
}
