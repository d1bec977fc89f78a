//! Op 81: sends a range of a replica, whole chunks with their checksums, then learns how the client liked it.
//!
//! While one batch of packets is on the wire the next is read from disk; two buffers go round. A batch is read at once
//! and written at once, whatever packets the client takes: for small ones that is most of what they cost. Nothing is
//! verified before it is sent: the checksums travel with the bytes, and the client verifies.
//!
//! A client that tells of a checksum failure makes this DataNode check its replica. One that goes without a word
//! may have met damage too: HDFS's client hangs up at a wrong checksum, and tells the NameNode only if another replica
//! was good. So what it may have seen last is checked then: at most [`SUSPECT_BYTES`], and never more than was sent.
//! Never sent: bytes beyond the visible length.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use proto::hadoop::hdfs::{
    ClientReadStatusProto, OpReadBlockProto, ReadOpChecksumInfoProto, StatusProto,
};
use proto::{Code, Error, Result, limits};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use transfer::connection::within;
use transfer::{Checksum, ChecksumKind, PacketHeader, SealedPacket, op};

use super::{After, DataServer, Wire, block_of};
use crate::disk::DiskPool;
use crate::store::{ReplicaReader, Store};

/// Data bytes of a packet for clients that are not our own. HDFS sends 64 KiB and its clients take up to 16 MiB: with fewer
/// packets they have less to do.
const PACKET_BYTES_FOREIGN: u64 = 256 << 10;
/// Data bytes that are read and written at once.
const BATCH_BYTES: u64 = 512 << 10;
/// Our own clients' names begin with this.
const NATIVE_CLIENT: &str = "granary";
/// How often a read that waits for bytes looks whether they are visible.
const VISIBLE_POLL: Duration = Duration::from_millis(5);
/// Bytes of the client's last word.
const STATUS_BYTES_MAX: usize = 64;
/// Bytes before the end of what was sent that a client who hung up may have looked at last: more than the socket buffers
/// of both sides and the client's own hold.
const SUSPECT_BYTES: u64 = 32 << 20;
/// Ranges from this on are announced to the kernel as sequential.
const SEQUENTIAL_BYTES: u64 = 1 << 20;

/// What is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    start: u64,
    end: u64,
    packet_bytes: u64,
    /// Data bytes of a batch: whole packets.
    batch_bytes: u64,
    /// What the client gets: as stored, or none.
    checksum: Checksum,
}

/// Serves one request.
pub async fn serve<R, W>(
    server: &DataServer,
    wire: &mut Wire<R, W>,
    request: OpReadBlockProto,
) -> Result<After>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    wait_until_visible(server, &request).await;
    let opened = open(&server.store, &request).await;
    let (pool, reader, plan, first) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            wire.refuse(&error).await?;
            return Ok(After::KeepOpen);
        }
    };
    let reply = op::encode_delimited(&reply(&plan));
    let mut sent = plan.start;
    let sending = send(server, wire, (&pool, &reader), plan, (reply, first), &mut sent).await;
    server.counters.read_bytes.fetch_add(sent - plan.start, Ordering::Relaxed);
    let status = match sending {
        Ok(()) => end(server, wire).await.ok(),
        Err(_) => None,
    };
    let suspect = match status {
        Some(StatusProto::Success | StatusProto::ChecksumOk) => return Ok(After::KeepOpen),
        Some(StatusProto::ErrorChecksum) => {
            // All of it, but not at once: anybody may say so, again and again.
            server.store.suspects().push(reader.block());
            return Ok(After::KeepOpen);
        }
        // It may also have what it wants.
        _ => plan.start.max(sent.saturating_sub(SUSPECT_BYTES))..sent,
    };
    // Damage is reported by the check itself.
    drop(pool.run(move || reader.verify_range(suspect)).await);
    sending.map(|()| if status.is_some() { After::KeepOpen } else { After::Close })
}

/// The client's last word, which may not come.
async fn end<R, W>(server: &DataServer, wire: &mut Wire<R, W>) -> Result<StatusProto>
where
    R: AsyncRead + Unpin + Send,
{
    let status = within(server.limits.stall_ms, "the client's read status", async {
        op::read_delimited(&mut wire.reader, STATUS_BYTES_MAX).await
    })
    .await?;
    let status = ClientReadStatusProto::decode(status)
        .map_err(|e| Error::new(Code::Incompatible, format!("bad read status: {e}")))?;
    Ok(status.status())
}

/// Waits a moment for bytes whose acknowledgement is on its way: a DataNode further down the pipeline counts a byte as
/// visible before this one does, and a reader may have its length from there.
async fn wait_until_visible(server: &DataServer, request: &OpReadBlockProto) {
    let named = &request.header.base_header.block;
    let Some(end) = request.offset.checked_add(request.len) else { return };
    let block = proto::BlockId(named.block_id);
    let deadline = Instant::now() + Duration::from_millis(server.limits.visible_wait_ms);
    while server.store.may_become_visible(block, end) && Instant::now() < deadline {
        tokio::time::sleep(VISIBLE_POLL).await;
    }
}

/// Opens the replica and reads the first packet, in one visit to the disk threads.
async fn open(
    store: &Arc<Store>,
    request: &OpReadBlockProto,
) -> Result<(DiskPool, Arc<ReplicaReader>, Plan, Batch)> {
    let header = &request.header;
    let (block, stamp) = block_of(store, &header.base_header.block)?;
    let native = header.client_name.starts_with(NATIVE_CLIENT);
    let (offset, length) = (request.offset, request.len);
    let with_sums = request.send_checksums.unwrap_or(true);
    let pool = store.pool_of(block, stamp)?;
    let store = store.clone();
    let (reader, plan, first) = pool
        .run(move || {
            let reader = store.open_reader(block, stamp)?;
            let stored = reader.checksum();
            let mut plan = plan(reader.length(), stored, offset, length)
                .map_err(|error| error.context(format_args!("read {block}")))?;
            if !with_sums {
                plan.checksum = stored.without_sums();
            }
            if native {
                let bytes = limits::PACKET_BYTES_NATIVE.into();
                plan = plan.with_packets(whole_chunks(bytes, reader.chunk()));
            }
            if plan.end - plan.start >= SEQUENTIAL_BYTES {
                reader.advise_sequential(plan.start, plan.end - plan.start);
            }
            let first = batch(&reader, plan, 0, BytesMut::new())?;
            Ok((Arc::new(reader), plan, first))
        })
        .await?;
    Ok((pool, reader, plan, first))
}

/// Widens a range to whole chunks.
fn plan(visible: u64, stored: Checksum, offset: u64, length: u64) -> Result<Plan> {
    let end = offset.checked_add(length).filter(|&end| end <= visible).ok_or_else(|| {
        Error::new(
            Code::InvalidArgument,
            format!("{length} bytes from {offset}, but {visible} bytes are visible"),
        )
    })?;
    let chunk = stored.chunk_bytes() as u64;
    let plan = Plan {
        start: offset - offset % chunk,
        end: end.next_multiple_of(chunk).min(visible),
        packet_bytes: 0,
        batch_bytes: 0,
        checksum: stored,
    };
    Ok(plan.with_packets(whole_chunks(PACKET_BYTES_FOREIGN, chunk)))
}

impl Plan {
    fn with_packets(self, packet_bytes: u64) -> Self {
        let batch_bytes = whole_chunks(BATCH_BYTES.max(packet_bytes), packet_bytes);
        Self { packet_bytes, batch_bytes, ..self }
    }
}

/// The bound of a packet's data, in whole chunks.
fn whole_chunks(bytes: u64, chunk: u64) -> u64 {
    (bytes - bytes % chunk).max(chunk)
}

fn reply(plan: &Plan) -> proto::hadoop::hdfs::BlockOpResponseProto {
    let mut reply = op::response(StatusProto::Success);
    reply.read_op_checksum_info = Some(ReadOpChecksumInfoProto {
        checksum: plan.checksum.to_proto(),
        chunk_offset: plan.start,
    });
    reply
}

/// Packets that are written together, and the memory of their data.
struct Batch {
    packets: Vec<SealedPacket>,
    data: Bytes,
}

impl Batch {
    /// Everything to be written, behind `before` and before `end`.
    fn frames(&self, before: Bytes, end: Option<SealedPacket>) -> Frames {
        let mut parts = VecDeque::with_capacity(2 * self.packets.len() + 2);
        let packets = self.packets.iter().flat_map(|p| [p.head.clone(), p.data.clone()]);
        parts.extend([before].into_iter().chain(packets).chain(end.map(|end| end.head)));
        parts.retain(|part| !part.is_empty());
        Frames { parts }
    }

    /// The memory, to be used again: nobody else holds it once all was sent.
    fn into_spare(self) -> BytesMut {
        drop(self.packets);
        self.data.try_into_mut().unwrap_or_default()
    }
}

/// Bytes in parts, handed to the kernel together.
struct Frames {
    parts: VecDeque<Bytes>,
}

impl Buf for Frames {
    fn remaining(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(front) = self.parts.front_mut().filter(|_| count > 0) {
            let taken = count.min(front.len());
            front.advance(taken);
            count -= taken;
            if front.is_empty() {
                self.parts.pop_front();
            }
        }
        assert!(count == 0, "no more is taken than there is");
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.len().min(self.parts.len());
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = IoSlice::new(part);
        }
        filled
    }
}

/// Reads batch number `number` into `buffer`. Blocks.
fn batch(reader: &ReplicaReader, plan: Plan, number: u64, mut buffer: BytesMut) -> Result<Batch> {
    let start = (plan.start + number * plan.batch_bytes).min(plan.end);
    let bytes = (plan.end - start).min(plan.batch_bytes);
    buffer.resize(usize::try_from(bytes).expect("a batch is at most 1 MiB"), 0);
    let mut sums = Vec::new();
    reader.read(start, &mut buffer, &mut sums)?;
    if plan.checksum.kind() == ChecksumKind::Null {
        sums.clear();
    }
    let data = buffer.freeze();
    let packet_bytes = usize::try_from(plan.packet_bytes).expect("a packet is at most 1 MiB");
    let sum_bytes = plan.checksum.sum_bytes(packet_bytes);
    let first = number * (plan.batch_bytes / plan.packet_bytes);
    let packet = |at: usize| {
        let part = at * packet_bytes..data.len().min((at + 1) * packet_bytes);
        let sums = &sums[(at * sum_bytes).min(sums.len())..((at + 1) * sum_bytes).min(sums.len())];
        let header = PacketHeader {
            offset_in_block: start + part.start as u64,
            seqno: i64::try_from(first + at as u64).expect("a block has under 2^63 packets"),
            last: false,
            data_len: 0,
            sync: false,
        };
        SealedPacket::with_sums(header, sums, data.slice(part))
    };
    let packets = (0..data.len().div_ceil(packet_bytes)).map(packet).collect();
    Ok(Batch { packets, data })
}

/// The empty packet that ends the block.
fn last_packet(plan: Plan, seqno: i64) -> SealedPacket {
    let header =
        PacketHeader { offset_in_block: plan.end, seqno, last: true, data_len: 0, sync: false };
    SealedPacket::with_sums(header, &[], Bytes::new())
}

/// Sends what is planned. `sent` follows: up to there bytes may be on their way.
async fn send<R, W: AsyncWrite + Unpin>(
    server: &DataServer,
    wire: &mut Wire<R, W>,
    (pool, reader): (&DiskPool, &Arc<ReplicaReader>),
    plan: Plan,
    (mut before, first): (Bytes, Batch),
    sent: &mut u64,
) -> Result<()> {
    let batches = (plan.end - plan.start).div_ceil(plan.batch_bytes).max(1);
    let packets = (plan.end - plan.start).div_ceil(plan.packet_bytes);
    let mut current = first;
    let mut spare = BytesMut::new();
    for number in 1..=batches {
        let is_last = number == batches;
        let next = async {
            if is_last {
                return Ok(None);
            }
            let (reader, buffer) = (reader.clone(), std::mem::take(&mut spare));
            pool.run(move || batch(&reader, plan, number, buffer)).await.map(Some)
        };
        let end = is_last.then(|| last_packet(plan, i64::try_from(packets).unwrap_or(i64::MAX)));
        let mut frames = current.frames(std::mem::take(&mut before), end);
        *sent += current.data.len() as u64;
        let written = within(server.limits.stall_ms, "send packets", async {
            wire.writer.write_all_buf(&mut frames).await.map_err(|e| Error::io("send", &e))
        });
        let (next, written) = tokio::join!(next, written);
        written?;
        let Some(next) = next? else { break };
        spare = std::mem::replace(&mut current, next).into_spare();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_widened_to_chunks_and_end_with_the_visible_bytes() {
        let check = |visible, offset, length| {
            let plan = plan(visible, Checksum::NATIVE, offset, length);
            plan.map(|plan| (plan.start, plan.end)).ok()
        };
        assert_eq!(check(1000, 0, 1000), Some((0, 1000)));
        assert_eq!(check(1000, 513, 1), Some((512, 1000)));
        assert_eq!(check(2000, 100, 300), Some((0, 512)));
        assert_eq!(check(1000, 1000, 0), Some((512, 1000)));
        assert_eq!(check(0, 0, 0), Some((0, 0)));
        assert_eq!(check(1000, 0, 1001), None);
        assert_eq!(check(1000, u64::MAX, 2), None);
        let wide = Checksum::new(ChecksumKind::Crc32, 100_000).unwrap();
        let plan = plan(250_000, wide, 120_000, 100).unwrap();
        assert_eq!((plan.start, plan.end, plan.packet_bytes), (100_000, 200_000, 200_000));
    }
}
