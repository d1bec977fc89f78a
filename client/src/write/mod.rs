//! Writing a file: bytes to packets, packets to blocks, blocks to pipelines.
//!
//! [`FileWriter`] fills packets and checksums them while their bytes are in the processor's cache; large shared
//! buffers go out without being copied. A block is asked for when its first packet is ready, so that a small file
//! costs create, addBlock, one pipeline and complete. What holds: bytes go out in order; at most
//! `write_packets_in_flight_max` packets wait for acks, and only those are held in memory; a failed pipeline is mended
//! without the caller noticing ([`pipeline`]) while one DataNode of it lives. It renews no lease ([`crate::lease`]).

mod blocking;
mod pipeline;
mod replacement;

use std::sync::Arc;

use bytes::Bytes;
use proto::granary::{
    Block, CompleteRequest, FileStatus, FsyncRequest, GetBlockLocationsRequest, LocatedBlock,
};
use proto::{Code, Error, FsPath, Result};
use transfer::{Checksum, PacketBuilder, PacketHeader, SealedPacket};

pub use blocking::BlockingWriter;
pub(crate) use blocking::to_io;

use crate::fs::{Fs, Recursion, expect_file};
use crate::lease::Guard;
use pipeline::OpenBlock;

/// A file that is open for writing. Bytes go to its end.
///
/// Close it: a writer that is dropped instead leaves the file open, and its length unsettled, until its lease ends.
/// If a future of one of its methods is dropped before it is ready, the bytes of that call may be written or not, in
/// part or whole; the writer itself stays usable.
#[derive(Debug)]
pub struct FileWriter {
    target: Target,
    block_bytes: u64,
    packet_bytes: usize,
    position: u64,
    /// The packet that is being filled.
    builder: Option<PacketBuilder>,
    /// Whether `builder` holds bytes that were not sent yet.
    fresh: bool,
    /// A packet that is ready and not yet taken by a pipeline.
    ready: Option<SealedPacket>,
    /// The block that is being written, once it has a packet.
    block: Option<OpenBlock>,
    /// Bytes of the current block that were given to packets.
    block_position: u64,
    /// The last block that was finished: the NameNode is told with the next call.
    previous: Option<Block>,
    created: bool,
    _lease: Arc<Guard>,
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

impl FileWriter {
    pub(crate) fn created(
        fs: Fs,
        path: FsPath,
        status: FileStatus,
        lease: Arc<Guard>,
    ) -> Result<Self> {
        expect_file(&path, &status)?;
        if status.block_bytes == 0 {
            return Err(Error::new(Code::Incompatible, format!("{path} has blocks of 0 bytes")));
        }
        let chunk = Checksum::NATIVE.chunk_bytes();
        let packet_bytes = fs.config().packet_bytes.min(proto::limits::PACKET_BYTES_MAX / 4);
        Ok(Self {
            block_bytes: status.block_bytes,
            packet_bytes: (packet_bytes as usize / chunk).max(1) * chunk,
            position: 0,
            builder: None,
            fresh: false,
            ready: None,
            block: None,
            block_position: 0,
            previous: None,
            created: true,
            _lease: lease,
            target: Target {
                fs,
                path,
                inode: status.inode,
                replication: status.replication as usize,
                checksum: Checksum::NATIVE,
            },
        })
    }

    pub(crate) async fn appending(
        fs: Fs,
        path: FsPath,
        status: FileStatus,
        last_block: Option<LocatedBlock>,
        lease: Arc<Guard>,
    ) -> Result<Self> {
        let position = status.length;
        let mut this = Self::created(fs, path, status, lease)?;
        this.position = position;
        this.created = false;
        if let Some(located) = last_block {
            let block = OpenBlock::reopen(&this.target, located).await?;
            this.block_position = block.length();
            this.block = Some(block);
        } else if position > 0 {
            // The last block is full: the next call names it.
            this.previous = this.last_block().await?;
        }
        Ok(this)
    }

    async fn last_block(&self) -> Result<Option<Block>> {
        let request = GetBlockLocationsRequest {
            caller: self.target.fs.namenode().caller(),
            path: self.target.path.to_string(),
            offset: self.position.saturating_sub(1),
            length: 1,
        };
        let namenode = self.target.fs.namenode();
        let reply = namenode
            .namespace("locate blocks", "GetBlockLocations", request, async |mut stub, q| {
                stub.get_block_locations(q).await
            })
            .await?;
        Ok(reply.last_block.and_then(|located| located.block))
    }

    /// Which file.
    pub fn path(&self) -> &FsPath {
        &self.target.path
    }

    /// The number of the file's inode: it stays when the path changes, and tells this file from another of its path.
    pub fn inode(&self) -> u64 {
        self.target.inode
    }

    /// Offset in the file of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Writes all of `data`. Returns when it is copied or on its way, not when it is stored: see [`Self::sync`].
    pub async fn write(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let taken = self.push(data);
            data = &data[taken..];
            if !data.is_empty() || self.packet_is_full() {
                self.send_packet().await?;
            }
        }
        Ok(())
    }

    /// Writes shared bytes: whole packets of them are sent without being copied.
    pub async fn write_bytes(&mut self, mut data: Bytes) -> Result<()> {
        while !data.is_empty() {
            let whole = self.whole_packet(data.len());
            if whole > 0 {
                self.send_shared(data.split_to(whole)).await?;
                continue;
            }
            let taken = self.push(&data);
            let rest = data.split_off(taken);
            data = rest;
            if !data.is_empty() || self.packet_is_full() {
                self.send_packet().await?;
            }
        }
        Ok(())
    }

    /// Copies as many bytes as fit in the packet that is being filled, and tells how many. Never waits.
    pub(crate) fn push(&mut self, data: &[u8]) -> usize {
        if self.ready.is_some() {
            return 0;
        }
        let block_room = self.block_bytes - self.block_position;
        let data = &data[..data.len().min(usize::try_from(block_room).unwrap_or(usize::MAX))];
        if data.is_empty() {
            return 0;
        }
        let builder = self.builder.get_or_insert_with(|| {
            PacketBuilder::new(self.target.checksum, self.block_position, self.packet_bytes)
        });
        let taken = builder.push(data);
        self.fresh |= taken > 0;
        self.block_position += taken as u64;
        self.position += taken as u64;
        taken
    }

    fn packet_is_full(&self) -> bool {
        self.block_position == self.block_bytes
            || self.builder.as_ref().is_some_and(|builder| builder.room() == 0)
    }

    /// How many of `have` shared bytes may go out as they are: whole chunks, from a chunk boundary, up to a packet.
    fn whole_packet(&self, have: usize) -> usize {
        let chunk = self.target.checksum.chunk_bytes();
        let aligned = self.block_position.is_multiple_of(chunk as u64);
        if self.builder.is_some() || self.ready.is_some() || !aligned {
            return 0;
        }
        let room = usize::try_from(self.block_bytes - self.block_position).unwrap_or(usize::MAX);
        let whole = have.min(self.packet_bytes).min(room) / chunk * chunk;
        // A small piece is better gathered with what follows.
        if whole >= self.packet_bytes.min(64 << 10) { whole } else { 0 }
    }

    async fn send_shared(&mut self, data: Bytes) -> Result<()> {
        let header = PacketHeader {
            offset_in_block: self.block_position,
            seqno: 0, // numbered by the block
            last: false,
            data_len: 0,
            sync: false,
        };
        self.block_position += data.len() as u64;
        self.position += data.len() as u64;
        self.ready = Some(SealedPacket::new(header, self.target.checksum, data));
        self.send_ready().await?;
        self.end_full_block().await
    }

    /// Sends what was gathered, and ends the block if it is full.
    async fn send_packet(&mut self) -> Result<()> {
        self.send_ready().await?;
        if let Some(builder) = self.builder.take() {
            if self.fresh {
                self.fresh = false;
                self.ready = Some(builder.seal(0, false));
            }
            self.send_ready().await?;
        }
        self.end_full_block().await
    }

    async fn send_ready(&mut self) -> Result<()> {
        if self.ready.is_none() {
            return Ok(());
        }
        if self.block.is_none() {
            let block = OpenBlock::add(&self.target, self.previous.as_ref()).await?;
            self.previous = None;
            self.block = Some(block);
        }
        let block = self.block.as_mut().expect("it was just opened");
        block.send(&self.target, &mut self.ready).await
    }

    async fn end_full_block(&mut self) -> Result<()> {
        if self.block_position == self.block_bytes { self.end_block().await } else { Ok(()) }
    }

    /// Ends the block: on stable storage on every replica of its pipeline.
    async fn end_block(&mut self) -> Result<()> {
        if let Some(block) = self.block.as_mut() {
            let finished = block.finish(&self.target, self.block_position).await?;
            self.previous = Some(finished);
            self.block = None;
        }
        self.block_position = 0;
        self.builder = None;
        Ok(())
    }

    /// HDFS's `hflush`: readers who open the file now see all bytes; every replica has them in memory.
    pub async fn flush(&mut self) -> Result<()> {
        self.flush_as(Durability::Visible).await
    }

    /// HDFS's `hsync`: all bytes are on stable storage on every replica.
    pub async fn sync(&mut self) -> Result<()> {
        self.flush_as(Durability::Synced).await
    }

    async fn flush_as(&mut self, durability: Durability) -> Result<()> {
        self.send_ready().await?;
        self.seal_for_flush(durability);
        self.send_ready().await?;
        let Some(block) = self.block.as_mut() else {
            // Everything lies in finished blocks, which are stable; the NameNode learns of the last one's length.
            return Ok(());
        };
        block.drain(&self.target).await?;
        let told = block.told_namenode();
        if !told {
            let request = FsyncRequest {
                caller: self.target.fs.namenode().caller(),
                path: self.target.path.to_string(),
                inode: self.target.inode,
                holder: self.target.fs.holder().to_owned(),
                last_block_length: self.block_position,
            };
            self.target
                .fs
                .namenode()
                .namespace("fsync", "Fsync", request, async |mut stub, q| stub.fsync(q).await)
                .await?;
            block.set_told_namenode();
        }
        self.end_full_block().await
    }

    /// Makes the packet that a flush sends, and begins the next one at the open chunk's first byte.
    fn seal_for_flush(&mut self, durability: Durability) {
        let sync = durability == Durability::Synced;
        let Some(builder) = self.builder.take() else {
            if sync && self.block.is_some() {
                self.ready = Some(empty_packet(self.block_position, sync));
            }
            return;
        };
        if !self.fresh && !sync {
            self.builder = Some(builder);
            return;
        }
        let open = builder.open_chunk();
        if open.len() as u64 == builder.end() % self.target.checksum.chunk_bytes() as u64
            && !open.is_empty()
        {
            let begin = builder.end() - open.len() as u64;
            let mut next = PacketBuilder::new(self.target.checksum, begin, self.packet_bytes);
            next.push(open);
            self.builder = Some(next);
        }
        self.fresh = false;
        self.ready = Some(builder.seal(0, sync));
    }

    /// Sends what is left, waits until every replica has it on stable storage, and closes the file.
    pub async fn close(mut self) -> Result<FileStatus> {
        self.send_packet().await?;
        self.end_block().await?;
        let request = CompleteRequest {
            caller: None,
            path: self.target.path.to_string(),
            inode: self.target.inode,
            holder: self.target.fs.holder().to_owned(),
            last: self.previous,
        };
        match pipeline::complete(&self.target, request).await? {
            Some(mut status) => {
                status.name = self.target.path.name().unwrap_or("").to_owned();
                Ok(status)
            }
            None => self.target.fs.status(&self.target.path).await,
        }
    }

    /// Gives the file up: one that this writer made is deleted; one that it appended to keeps what it had, and
    /// perhaps more, and is closed by the NameNode.
    pub async fn abort(self) -> Result<()> {
        if self.created {
            self.target.fs.delete(&self.target.path, Recursion::No).await?;
        } else {
            let path = self.target.path.clone();
            let fs = self.target.fs.clone();
            drop(self);
            fs.recover_lease(&path).await?;
        }
        Ok(())
    }

    /// For a plain thread: `std::io::Write`, run on the file system's runtime.
    pub fn into_blocking(self) -> BlockingWriter {
        BlockingWriter::new(self)
    }

    pub(crate) fn fs(&self) -> &Fs {
        &self.target.fs
    }
}

/// What a flush must achieve.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// In the memory of every replica.
    Visible,
    /// On stable storage on every replica.
    Synced,
}

/// A packet that only asks for a sync.
fn empty_packet(offset_in_block: u64, sync: bool) -> SealedPacket {
    let header = PacketHeader { offset_in_block, seqno: 0, last: false, data_len: 0, sync };
    SealedPacket::with_sums(header, &[], Bytes::new())
}
