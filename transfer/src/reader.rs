//! A range of one block from one DataNode over TCP: one request, a stream of packets, every chunk verified.
//!
//! The DataNode sends whole chunks; what lies before and after the range asked for is verified too, then trimmed
//! off. What holds: [`BlockReader::next`] hands out the bytes of the range in order, each exactly once, and only
//! after their checksum fits; packets must follow each other without a gap. At the end the reader tells the DataNode
//! that the checksums were right and gives the connection back to the pool; a reader that is dropped earlier closes
//! it. Errors say where to go: `Corrupt` (this replica is damaged), `NotFound` or `Stale` (it is not here),
//! `Unavailable` or `Timeout` (the DataNode is gone or hangs), `Incompatible` (it does not speak the protocol).

use std::sync::Arc;

use bytes::Bytes;
use proto::granary::Block;
use proto::hadoop::hdfs::{
    BlockOpResponseProto, ClientReadStatusProto, OpReadBlockProto, StatusProto,
};
use proto::{Code, Error, Result};
use tokio::io::AsyncWriteExt;

use crate::checksum::{Checksum, ChecksumKind};
use crate::connection::{Connection, Peer, Pool, within};
use crate::op::{self, Request};
use crate::packet::{Packet, PacketReader};

/// What to read.
#[derive(Clone, Debug)]
pub struct ReadRange {
    /// Names the namespace.
    pub pool_id: String,
    /// Who reads, for the DataNode's log.
    pub client: String,
    /// The block; its length bounds the range.
    pub block: Block,
    /// First byte.
    pub offset: u64,
    /// Bytes, at least 1.
    pub length: u64,
}

/// A read that is under way.
#[derive(Debug)]
pub struct BlockReader {
    pool: Arc<Pool>,
    peer: Peer,
    block_id: u64,
    /// `None` once it was given back.
    connection: Option<Connection>,
    packets: PacketReader,
    checksum: Checksum,
    /// Offset in the block where the next packet must begin.
    next_packet: u64,
    /// Offset in the block of the next byte to hand out.
    position: u64,
    /// Offset in the block after the last byte to hand out.
    end: u64,
}

impl BlockReader {
    /// Asks `peer` for the range, over an idle connection if there is one.
    pub async fn open(pool: &Arc<Pool>, peer: &Peer, range: &ReadRange) -> Result<Self> {
        assert!(range.length > 0, "a read has a length");
        let connection = pool.get(peer).await?;
        let reused = connection.reused;
        match Self::ask(pool, peer, range, connection).await {
            Err(error) if reused && error.code == Code::Unavailable => {
                // The idle connection had died unseen.
                let fresh = Connection::dial(peer, pool.timeouts()).await?;
                Self::ask(pool, peer, range, fresh).await
            }
            result => result,
        }
    }

    async fn ask(
        pool: &Arc<Pool>,
        peer: &Peer,
        range: &ReadRange,
        mut connection: Connection,
    ) -> Result<Self> {
        let request = Request::ReadBlock(OpReadBlockProto {
            header: op::client_header(&range.pool_id, &range.block, &range.client),
            offset: range.offset,
            len: range.length,
            send_checksums: Some(true),
            caching_strategy: None,
        });
        let what = format!("read blk_{} from {peer}", range.block.id);
        let reply = within(pool.timeouts().idle_ms, &what, async {
            let stream = &mut connection.stream;
            stream.write_all(&request.encode()).await.map_err(|e| Error::io("send", &e))?;
            op::read_response(stream).await
        })
        .await?;
        op::check(&reply).map_err(|error| error.context(&what))?;
        let (checksum, first) =
            layout(&reply, range.offset).map_err(|error| error.context(&what))?;
        Ok(Self {
            pool: pool.clone(),
            peer: peer.clone(),
            block_id: range.block.id,
            connection: Some(connection),
            packets: PacketReader::new(),
            checksum,
            next_packet: first,
            position: range.offset,
            end: range.offset.saturating_add(range.length),
        })
    }

    /// Offset in the block of the next byte to be handed out.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next verified bytes of the range; `None` when all were handed out.
    ///
    /// A future that is dropped half-way loses nothing: call again.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.position < self.end {
            let packet = self.packet().await?;
            let header = *packet.header();
            let what = format!("blk_{} from {}", self.block_id, self.peer);
            if header.last {
                return Err(Error::new(
                    Code::Corrupt,
                    format!("{what}: ends at offset {}, expected {}", self.position, self.end),
                ));
            }
            if header.offset_in_block != self.next_packet || header.data_len == 0 {
                return Err(Error::new(
                    Code::Incompatible,
                    format!(
                        "{what}: a packet of {} bytes at offset {}, expected offset {}",
                        header.data_len, header.offset_in_block, self.next_packet
                    ),
                ));
            }
            packet.verify(self.checksum, &what)?;
            self.next_packet = header.end();
            let begin = self.position.max(header.offset_in_block);
            let end = self.end.min(header.end());
            if begin < end {
                self.position = end;
                let within = |offset: u64| (offset - header.offset_in_block) as usize;
                let data = packet.data_bytes().slice(within(begin)..within(end));
                if self.position == self.end {
                    self.finish().await;
                }
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    async fn packet(&mut self) -> Result<Packet> {
        let connection = self.connection.as_mut().expect("the range is not at its end");
        let what = format!("read blk_{} at {} from {}", self.block_id, self.position, self.peer);
        let packet = self.packets.next(&mut connection.stream);
        within(self.pool.timeouts().idle_ms, what, packet).await
    }

    /// Takes the empty last packet, tells that checksums fit, and gives the connection back if all of that worked.
    ///
    /// Everything asked for has been verified already, so a fault here costs a connection and nothing else.
    async fn finish(&mut self) {
        let Ok(packet) = self.packet().await else {
            self.connection = None;
            return;
        };
        let Some(mut connection) = self.connection.take() else { return };
        if !packet.header().last {
            return;
        }
        let status = ClientReadStatusProto { status: StatusProto::ChecksumOk as i32 };
        let told = connection.stream.write_all(&op::encode_delimited(&status)).await;
        if told.is_ok() {
            self.pool.put(&self.peer, connection);
        }
    }
}

/// The checksum in use and where the first packet begins: at or before `offset`, less than a chunk away.
fn layout(reply: &BlockOpResponseProto, offset: u64) -> Result<(Checksum, u64)> {
    let info = reply.read_op_checksum_info.as_ref().ok_or_else(|| {
        Error::new(Code::Incompatible, "the reply does not tell how checksums lie")
    })?;
    let checksum = Checksum::from_proto(&info.checksum)?;
    if checksum.kind() == ChecksumKind::Null {
        return Err(Error::new(Code::Incompatible, "it sends no checksums, which were asked for"));
    }
    let chunk = checksum.chunk_bytes() as u64;
    if info.chunk_offset > offset || offset - info.chunk_offset >= chunk {
        return Err(Error::new(
            Code::Incompatible,
            format!("data begins at {}, expected {}", info.chunk_offset, offset / chunk * chunk),
        ));
    }
    Ok((checksum, info.chunk_offset))
}

#[cfg(test)]
mod tests;
