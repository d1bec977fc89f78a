//! Writing a replicated file: bytes to packets, packets to blocks, blocks to pipelines.
//!
//! Packets are filled and checksummed while their bytes are in the processor's cache; large shared buffers go out
//! without being copied. A block is asked for when its first packet is ready, so that a small file
//! costs create, addBlock, one pipeline and complete. What holds: bytes go out in order; at most
//! `write_packets_in_flight_max` packets wait for acks, and only those are held in memory; a failed pipeline is mended
//! without the caller noticing ([`super::pipeline`]) while one DataNode of it lives. It knows nothing of leases.

use bytes::Bytes;
use proto::Result;
use proto::granary::{Block, LocatedBlock};
use transfer::{PacketBuilder, PacketHeader, SealedPacket};

use super::pipeline::OpenBlock;
use super::{Durability, Target};

/// A replicated file that is open for writing.
#[derive(Debug)]
pub(super) struct ReplicatedWriter {
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
}

impl ReplicatedWriter {
    /// A writer of a new file.
    pub(super) fn new(target: Target, block_bytes: u64) -> Self {
        Self {
            block_bytes,
            packet_bytes: target.packet_bytes(),
            target,
            position: 0,
            builder: None,
            fresh: false,
            ready: None,
            block: None,
            block_position: 0,
            previous: None,
        }
    }

    /// A writer at the end of a file of `position` bytes. `last_block`: the last one, if it is not full.
    pub(super) async fn appending(
        target: Target,
        block_bytes: u64,
        position: u64,
        last_block: Option<LocatedBlock>,
    ) -> Result<Self> {
        let mut this = Self::new(target, block_bytes);
        this.position = position;
        if let Some(located) = last_block {
            let block = OpenBlock::reopen(&this.target, located).await?;
            this.block_position = block.length();
            this.block = Some(block);
        } else if position > 0 {
            // The last block is full: the next call names it.
            this.previous = this.target.last_block(position).await?;
        }
        Ok(this)
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) async fn write(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let taken = self.push(data);
            data = &data[taken..];
            if !data.is_empty() || self.packet_is_full() {
                self.send_packet().await?;
            }
        }
        Ok(())
    }

    pub(super) async fn write_bytes(&mut self, mut data: Bytes) -> Result<()> {
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
    pub(super) fn push(&mut self, data: &[u8]) -> usize {
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

    pub(super) async fn flush_as(&mut self, durability: Durability) -> Result<()> {
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
            self.target.tell_length(self.block_position).await?;
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

    /// Sends what is left and ends the last block: on stable storage on every replica. Gives that block.
    pub(super) async fn finish(&mut self) -> Result<Option<Block>> {
        self.send_packet().await?;
        self.end_block().await?;
        Ok(self.previous)
    }
}

/// A packet that only asks for a sync.
fn empty_packet(offset_in_block: u64, sync: bool) -> SealedPacket {
    let header = PacketHeader { offset_in_block, seqno: 0, last: false, data_len: 0, sync };
    SealedPacket::with_sums(header, &[], Bytes::new())
}
