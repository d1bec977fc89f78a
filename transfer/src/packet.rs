//! The packet: what block bytes travel in.
//!
//! ```text
//! u32 plen = 4 + checksums + data | u16 hlen | PacketHeader | checksums, 4 bytes each | data      (all big-endian)
//! ```
//!
//! The header is a protobuf message whose fields have fixed sizes, so that it is 25 bytes, or 27 with `syncBlock`.
//! A received packet lies in one buffer: its frame can be forwarded and its data written to disk without copying.
//! A packet to be sent is two pieces, head (lengths, header, checksums) and data, written with one vectored write,
//! so that data which the caller already shares is not copied either.
//!
//! What holds: a [`Packet`] that decodes has exactly `data_len` bytes of data, a number of checksum bytes that is a
//! multiple of 4, and at most [`limits::PACKET_BYTES_MAX`] bytes in all; [`Packet::verify`] also checks that there
//! are as many checksums as chunks. Nothing here knows sockets; [`PacketReader`] reads from any `AsyncRead`.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use proto::hadoop::hdfs::PacketHeaderProto;
use proto::{Code, Error, Result, limits};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::checksum::{Checksum, ChecksumKind, SUM_BYTES};

/// Bytes before the header: `plen` and `hlen`.
pub const PREFIX_BYTES: usize = 6;
/// Bytes of the largest header that is accepted. HDFS's own is 25 or 27; room for fields to come.
pub const HEADER_BYTES_MAX: usize = 256;
/// Bytes of the smallest packet: the prefix and a header of 25 bytes.
pub(crate) const FRAME_BYTES_MIN: usize = PREFIX_BYTES + 25;
/// How much is allocated on a peer's word alone, in bytes; more only as bytes arrive.
pub(crate) const TRUSTED_BYTES: usize = limits::PACKET_BYTES_NATIVE as usize + (64 << 10);

/// The header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketHeader {
    /// Offset of the first data byte in the block.
    pub offset_in_block: u64,
    /// Place in the sequence of packets; [`crate::HEARTBEAT_SEQNO`] for a heartbeat.
    pub seqno: i64,
    /// The block ends here. Such a packet carries no data.
    pub last: bool,
    /// Bytes of data.
    pub data_len: u32,
    /// Sync the replica to disk before the ack.
    pub sync: bool,
}

impl PacketHeader {
    /// Appends prefix and header for a packet with `sum_bytes` of checksums.
    pub fn encode(&self, sum_bytes: usize, out: &mut impl BufMut) {
        let message = PacketHeaderProto {
            offset_in_block: i64::try_from(self.offset_in_block)
                .expect("a block is under 2^63 bytes"),
            seqno: self.seqno,
            last_packet_in_block: self.last,
            data_len: i32::try_from(self.data_len).expect("a packet is at most 16 MiB"),
            sync_block: self.sync.then_some(true),
        };
        let plen = 4 + sum_bytes + self.data_len as usize;
        out.put_u32(u32::try_from(plen).expect("a packet is at most 16 MiB"));
        out.put_u16(u16::try_from(message.encoded_len()).expect("a header is 25 or 27 bytes"));
        message.encode(out).expect("the buffer grows");
    }

    /// Bytes of prefix and header.
    fn frame_head_bytes(&self) -> usize {
        PREFIX_BYTES + if self.sync { 27 } else { 25 }
    }

    /// Decodes the message after the prefix.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let message = PacketHeaderProto::decode(bytes)
            .map_err(|error| broken(format!("its header does not decode: {error}")))?;
        let offset_in_block = u64::try_from(message.offset_in_block)
            .map_err(|_| broken(format!("offset {}", message.offset_in_block)))?;
        let data_len = u32::try_from(message.data_len)
            .map_err(|_| broken(format!("{} data bytes", message.data_len)))?;
        Ok(Self {
            offset_in_block,
            seqno: message.seqno,
            last: message.last_packet_in_block,
            data_len,
            sync: message.sync_block.unwrap_or(false),
        })
    }

    /// Offset in the block after the last data byte.
    pub fn end(&self) -> u64 {
        self.offset_in_block.saturating_add(u64::from(self.data_len))
    }
}

/// A received packet: its frame as it came, and where the parts lie in it.
#[derive(Clone, Debug)]
pub struct Packet {
    header: PacketHeader,
    frame: Bytes,
    sums: Range<usize>,
}

impl Packet {
    /// Decodes one whole frame. Bytes missing or left over are an error.
    pub fn decode(frame: Bytes) -> Result<Self> {
        let prefix = Prefix::decode(&frame)?;
        if frame.len() != prefix.frame_bytes() {
            return Err(broken(format!(
                "{} bytes, expected {} from its lengths",
                frame.len(),
                prefix.frame_bytes()
            )));
        }
        let sums_at = PREFIX_BYTES + prefix.header_bytes;
        let header = PacketHeader::decode(&frame[PREFIX_BYTES..sums_at])?;
        let sum_bytes =
            prefix.body_bytes.checked_sub(header.data_len as usize).ok_or_else(|| {
                broken(format!(
                    "{} data bytes in a body of {} bytes",
                    header.data_len, prefix.body_bytes
                ))
            })?;
        if sum_bytes % SUM_BYTES != 0 {
            return Err(broken(format!(
                "{sum_bytes} bytes of checksums, expected a multiple of 4"
            )));
        }
        if header.last && header.data_len != 0 {
            return Err(broken(format!("the last packet has {} data bytes", header.data_len)));
        }
        Ok(Self { header, sums: sums_at..sums_at + sum_bytes, frame })
    }

    /// Its header.
    pub fn header(&self) -> &PacketHeader {
        &self.header
    }

    /// All its bytes as received, to be forwarded.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// Its checksums.
    pub fn sums(&self) -> &[u8] {
        &self.frame[self.sums.clone()]
    }

    /// Its data.
    pub fn data(&self) -> &[u8] {
        &self.frame[self.sums.end..]
    }

    /// Its data, sharing the frame's memory.
    pub fn data_bytes(&self) -> Bytes {
        self.frame.slice(self.sums.end..)
    }

    /// Its checksums, sharing the frame's memory.
    pub fn sums_bytes(&self) -> Bytes {
        self.frame.slice(self.sums.clone())
    }

    /// Checks that there is one checksum per chunk and that each fits. `what` names the block in the error.
    ///
    /// Data that begins within a chunk must not reach beyond that chunk (an append's first packet).
    pub fn verify(&self, checksum: Checksum, what: impl std::fmt::Display) -> Result<()> {
        let data = self.data();
        let within = (self.header.offset_in_block % checksum.chunk_bytes() as u64) as usize;
        if within != 0 && within + data.len() > checksum.chunk_bytes() {
            return Err(broken(format!(
                "{} bytes at offset {} cross the end of a chunk that they do not begin",
                data.len(),
                self.header.offset_in_block
            ))
            .context(what));
        }
        let expected = checksum.sum_bytes(data.len());
        if self.sums().len() != expected {
            return Err(broken(format!(
                "{} bytes of checksums for {} bytes of data, expected {expected}",
                self.sums().len(),
                data.len()
            ))
            .context(what));
        }
        checksum
            .verify(data, self.sums())
            .map_err(|mismatch| mismatch.into_error(what, self.header.offset_in_block))
    }
}

/// The lengths that open a packet, within their bounds.
#[derive(Clone, Copy)]
pub(crate) struct Prefix {
    header_bytes: usize,
    body_bytes: usize,
}

impl Prefix {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let Some(&[p0, p1, p2, p3, h0, h1]) = bytes.first_chunk::<PREFIX_BYTES>() else {
            return Err(broken(format!("{} bytes, expected at least {PREFIX_BYTES}", bytes.len())));
        };
        let plen = u32::from_be_bytes([p0, p1, p2, p3]);
        let header_bytes = usize::from(u16::from_be_bytes([h0, h1]));
        if !(4..=limits::PACKET_BYTES_MAX).contains(&plen) {
            let max = limits::PACKET_BYTES_MAX;
            return Err(broken(format!("length {plen}, expected 4 to {max}")));
        }
        if !(FRAME_BYTES_MIN - PREFIX_BYTES..=HEADER_BYTES_MAX).contains(&header_bytes) {
            return Err(broken(format!(
                "a header of {header_bytes} bytes, expected 25 to {HEADER_BYTES_MAX}"
            )));
        }
        Ok(Self { header_bytes, body_bytes: plen as usize - 4 })
    }

    pub(crate) fn frame_bytes(self) -> usize {
        PREFIX_BYTES + self.header_bytes + self.body_bytes
    }

    /// The header in a frame that begins with this prefix and is all there.
    pub(crate) fn header(self, frame: &[u8]) -> Result<PacketHeader> {
        PacketHeader::decode(&frame[PREFIX_BYTES..PREFIX_BYTES + self.header_bytes])
    }
}

/// Reads packets one after the other into a buffer that is reused when nobody holds an earlier packet any more.
///
/// Takes no byte beyond a packet's end, so that the stream can be used for something else afterwards. A future that
/// is dropped half-way keeps what it read: calling again goes on (cancel safe).
#[derive(Debug, Default)]
pub struct PacketReader {
    buffer: BytesMut,
}

impl PacketReader {
    /// A reader with no buffer yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next packet. The end of the stream before or within a packet is `Unavailable`.
    pub async fn next(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Packet> {
        self.fill(stream, FRAME_BYTES_MIN).await?;
        let prefix = Prefix::decode(&self.buffer)?;
        self.fill(stream, prefix.frame_bytes()).await?;
        Packet::decode(self.buffer.split_to(prefix.frame_bytes()).freeze())
    }

    /// Reads until the buffer holds `wanted` bytes, and none more.
    async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin), wanted: usize) -> Result<()> {
        while self.buffer.len() < wanted {
            let have = self.buffer.len();
            if self.buffer.capacity() < wanted {
                let trusted = wanted.min((2 * have).max(TRUSTED_BYTES));
                self.buffer.reserve(trusted - have);
            }
            let room = wanted.min(self.buffer.capacity()) - have;
            let mut limited = (&mut self.buffer).limit(room);
            let count = stream
                .read_buf(&mut limited)
                .await
                .map_err(|error| Error::io("read a packet", &error))?;
            if count == 0 {
                return Err(Error::new(
                    Code::Unavailable,
                    format!(
                        "the peer closed the connection {have} bytes into a packet of {wanted}"
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// A packet ready to be sent. Clones share its memory.
#[derive(Clone, Debug)]
pub struct SealedPacket {
    /// What its header says.
    pub header: PacketHeader,
    /// Prefix, header and checksums.
    pub head: Bytes,
    /// Data.
    pub data: Bytes,
}

impl SealedPacket {
    /// A packet of shared data, its checksums computed here.
    ///
    /// `header.data_len` is taken from `data`. Data that begins within a chunk must end within it.
    pub fn new(mut header: PacketHeader, checksum: Checksum, data: Bytes) -> Self {
        header.data_len = u32::try_from(data.len()).expect("a packet is at most 16 MiB");
        let sum_bytes = checksum.sum_bytes(data.len());
        let mut head = BytesMut::with_capacity(PREFIX_BYTES + 27 + sum_bytes);
        header.encode(sum_bytes, &mut head);
        let sums_at = head.len();
        head.resize(sums_at + sum_bytes, 0);
        checksum.compute(&data, &mut head[sums_at..]);
        Self { header, head: head.freeze(), data }
    }

    /// A packet of data whose checksums are known.
    pub fn with_sums(mut header: PacketHeader, sums: &[u8], data: Bytes) -> Self {
        header.data_len = u32::try_from(data.len()).expect("a packet is at most 16 MiB");
        let mut head = BytesMut::with_capacity(PREFIX_BYTES + 27 + sums.len());
        header.encode(sums.len(), &mut head);
        head.extend_from_slice(sums);
        Self { header, head: head.freeze(), data }
    }

    /// A heartbeat: keeps a pipeline alive that has nothing to say.
    pub fn heartbeat() -> Self {
        let header = PacketHeader {
            offset_in_block: 0,
            seqno: crate::HEARTBEAT_SEQNO,
            last: false,
            data_len: 0,
            sync: false,
        };
        Self::with_sums(header, &[], Bytes::new())
    }

    /// Gives it another sequence number; checksums and data stay.
    pub fn renumber(&mut self, seqno: i64) {
        self.header.seqno = seqno;
        let sum_bytes = self.head.len() - self.header.frame_head_bytes();
        let mut head = BytesMut::with_capacity(self.head.len());
        self.header.encode(sum_bytes, &mut head);
        head.extend_from_slice(&self.head[self.head.len() - sum_bytes..]);
        self.head = head.freeze();
    }

    /// Bytes on the wire.
    pub fn frame_bytes(&self) -> usize {
        self.head.len() + self.data.len()
    }
}

/// Fills one packet's data from slices, computing checksums while the bytes are still in the processor's cache.
#[derive(Debug)]
pub struct PacketBuilder {
    checksum: Checksum,
    offset_in_block: u64,
    data: BytesMut,
    data_bytes_max: usize,
    sums: Vec<u8>,
    /// Bytes of `data` whose checksums are in `sums`: whole chunks.
    summed: usize,
}

/// How many bytes are copied before their checksums are computed: fits in the second-level cache.
const COPY_STEP_BYTES: usize = 64 << 10;

impl PacketBuilder {
    /// An empty packet that begins at `offset_in_block` and takes at most `data_bytes_max` bytes.
    ///
    /// If the offset lies within a chunk, it takes no more than what completes that chunk; otherwise the bound is
    /// rounded down to whole chunks (but to one at least).
    pub fn new(checksum: Checksum, offset_in_block: u64, data_bytes_max: usize) -> Self {
        let chunk = checksum.chunk_bytes();
        let within = (offset_in_block % chunk as u64) as usize;
        let data_bytes_max = match within {
            0 => (data_bytes_max / chunk).max(1) * chunk,
            _ => chunk - within,
        };
        assert!(data_bytes_max <= limits::PACKET_BYTES_MAX as usize / 2, "a packet fits its bound");
        Self {
            checksum,
            offset_in_block,
            data: BytesMut::new(),
            data_bytes_max,
            sums: Vec::new(),
            summed: 0,
        }
    }

    /// Takes as many of `bytes` as have room, and tells how many.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room());
        if self.data.capacity() < self.data.len() + taken {
            // Small files get small buffers; whoever fills one buffer soon gets the whole of it at once.
            let wanted = (4 * (self.data.len() + taken)).min(self.data_bytes_max);
            self.data.reserve(wanted - self.data.len());
        }
        for step in bytes[..taken].chunks(COPY_STEP_BYTES) {
            self.data.extend_from_slice(step);
            let whole = self.data.len() - self.data.len() % self.checksum.chunk_bytes();
            self.sum_to(whole);
        }
        taken
    }

    /// Bytes that it still takes.
    pub fn room(&self) -> usize {
        self.data_bytes_max - self.data.len()
    }

    /// Bytes that it has.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Offset in the block after its last byte.
    pub fn end(&self) -> u64 {
        self.offset_in_block + self.data.len() as u64
    }

    /// The bytes of its last chunk if that is not full: what the next packet begins with after a flush.
    pub fn open_chunk(&self) -> &[u8] {
        let chunk = self.checksum.chunk_bytes() as u64;
        let open = (self.end() % chunk) as usize;
        &self.data[self.data.len().saturating_sub(open)..]
    }

    /// The packet, ready to be sent.
    pub fn seal(mut self, seqno: i64, sync: bool) -> SealedPacket {
        self.sum_to(self.data.len());
        let header = PacketHeader {
            offset_in_block: self.offset_in_block,
            seqno,
            last: false,
            data_len: 0,
            sync,
        };
        SealedPacket::with_sums(header, &self.sums, self.data.freeze())
    }

    fn sum_to(&mut self, end: usize) {
        if end == self.summed || self.checksum.kind() == ChecksumKind::Null {
            return;
        }
        let data = &self.data[self.summed..end];
        let at = self.sums.len();
        self.sums.resize(at + self.checksum.sum_bytes(data.len()), 0);
        self.checksum.compute(data, &mut self.sums[at..]);
        self.summed = end;
    }
}

fn broken(what: String) -> Error {
    Error::new(Code::Incompatible, format!("bad packet: {what}"))
}

#[cfg(test)]
mod tests;
