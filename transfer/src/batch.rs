//! Packets as they come: those that arrive together are taken together.
//!
//! A client of HDFS sends packets of 64 KiB. Taken one by one, each costs its receiver a wake-up, several reads, a visit
//! to the disk and a write to the next DataNode. [`BatchReader`] reads what the socket has into one buffer and hands
//! over the whole packets in it, whose frames lie one behind the other: they can be passed on as one piece.
//!
//! Whole packets are held back for more only while the next one has begun to come, and no longer than [`HOLD`]: a writer
//! that waits for an ack has sent its last packet to the end, and is not kept waiting. What holds: a batch has at least
//! one packet and at most [`PACKETS_MAX`]; a packet that ends the block or asks for a sync ends its batch at once; a packet
//! that is broken is told after those before it were handed over. A future that is dropped half-way keeps what it read.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use proto::{Code, Error, Result};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

use crate::packet::{FRAME_BYTES_MIN, Packet, Prefix, TRUSTED_BYTES};

/// Packets of one batch.
pub const PACKETS_MAX: usize = 64;
/// How long whole packets wait for others.
pub const HOLD: Duration = Duration::from_millis(1);
/// Bytes of the first buffer: a packet of HDFS's clients. Later ones grow to [`BATCH_BYTES`] if bytes keep coming.
const FIRST_BYTES: usize = 66 << 10;
/// Bytes of a batch of small packets: four of HDFS's clients. They stay in the processor's second-level cache.
const BATCH_BYTES: usize = 4 * FIRST_BYTES;
/// Bytes of buffers that are kept to be used again: about as many as wait for the disk.
const SPARE_BYTES_MAX: usize = 16 * BATCH_BYTES;

/// Packets that were received together.
#[derive(Debug)]
pub struct Batch {
    /// All their frames, one behind the other.
    pub frames: Bytes,
    /// The packets, which share that memory.
    pub packets: Vec<Packet>,
}

/// Reads packets in batches.
#[derive(Debug)]
pub struct BatchReader {
    /// What was read and not handed over. The first `whole` bytes are frames of whole packets.
    buffer: BytesMut,
    /// Bytes of memory behind it.
    allocated: usize,
    /// Empty handles of earlier buffers and the bytes of memory behind each: they can be used again when nobody holds their
    /// batches any more.
    spares: VecDeque<(usize, BytesMut)>,
    whole: usize,
    /// Lengths of the whole frames.
    frames: Vec<usize>,
    /// The last whole packet ends the block, or asks for a sync.
    ends: bool,
    /// What comes behind the whole packets is broken.
    broken: Option<Error>,
    /// Bytes of the next buffer.
    room: usize,
    /// The length of the frame that was seen last: the next ones probably have it too.
    usual: usize,
    /// Until when whole packets are held back.
    hold_until: Option<Instant>,
}

impl Default for BatchReader {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchReader {
    /// A reader with no buffer yet.
    pub fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            allocated: 0,
            spares: VecDeque::new(),
            whole: 0,
            frames: Vec::new(),
            ends: false,
            broken: None,
            room: FIRST_BYTES,
            usual: 0,
            hold_until: None,
        }
    }

    /// The next packets. The end of the stream before or within a packet is `Unavailable`, what is no packet
    /// `Incompatible`.
    pub async fn next(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Batch> {
        loop {
            let wanted = self.scan();
            if self.is_ready() {
                return self.take();
            }
            if let Some(error) = self.broken.take() {
                return Err(error);
            }
            let end = self.make_room(wanted);
            let read = fill(&mut self.buffer, stream, end);
            if self.frames.is_empty() {
                if read.await? == 0 {
                    return Err(self.ended(wanted));
                }
                continue;
            }
            let until = *self.hold_until.get_or_insert_with(|| Instant::now() + HOLD);
            match timeout_at(until, read).await {
                Ok(Ok(count)) if count > 0 => {}
                // An end of the stream is told again when the whole packets are gone.
                _ => return self.take(),
            }
        }
    }

    /// Whether bytes were read that belong to no packet which was handed over.
    pub fn has_rest(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Finds whole frames, and tells how many bytes the buffer must hold for one more.
    fn scan(&mut self) -> usize {
        loop {
            let rest = &self.buffer[self.whole..];
            if self.broken.is_some() || self.is_closed() {
                return self.whole;
            }
            if rest.len() < FRAME_BYTES_MIN {
                return self.whole + FRAME_BYTES_MIN;
            }
            match Prefix::decode(rest) {
                Err(error) => self.broken = Some(error),
                Ok(prefix) if rest.len() < prefix.frame_bytes() => {
                    return self.whole + prefix.frame_bytes();
                }
                Ok(prefix) => match prefix.header(rest) {
                    Err(error) => self.broken = Some(error),
                    Ok(header) => {
                        self.frames.push(prefix.frame_bytes());
                        self.whole += prefix.frame_bytes();
                        self.usual = prefix.frame_bytes();
                        self.ends = header.last || header.sync;
                    }
                },
            }
        }
    }

    /// No packet is added to this batch any more.
    fn is_closed(&self) -> bool {
        self.ends || self.frames.len() == PACKETS_MAX
    }

    fn is_ready(&self) -> bool {
        let more = self.buffer.len() > self.whole;
        !self.frames.is_empty()
            && (self.is_closed() || self.broken.is_some() || !more || self.is_full())
    }

    /// Another packet as long as the last one would not fit into the buffer.
    fn is_full(&self) -> bool {
        self.whole + self.usual > self.room
    }

    /// How much of the room is read into: no part of a packet that would have to be moved to the next buffer.
    fn whole_frames(&self) -> usize {
        match self.usual {
            0 => self.room,
            usual => (self.room - self.room % usual).max(usual.min(self.room)),
        }
    }

    /// Sees to it that the buffer takes more, towards `wanted` bytes. Tells up to how many bytes it is to be filled: a
    /// packet larger than the room is read to its end and no further, so that nothing of the next one has to be moved.
    fn make_room(&mut self, wanted: usize) -> usize {
        let end = wanted.max(self.whole_frames());
        let have = self.buffer.len();
        // Beyond what any peer is trusted with, memory grows only as bytes arrive.
        let trusted = (2 * have).max(TRUSTED_BYTES);
        if end.min(trusted) > self.buffer.capacity() {
            let bytes = wanted.max(self.room).min(trusted);
            // The youngest first: it is the most likely to be in the cache.
            let unused = self.spares.iter_mut().rposition(|(_, spare)| spare.try_reclaim(bytes));
            let (allocated, mut next) = unused
                .and_then(|at| self.spares.remove(at))
                .unwrap_or_else(|| (bytes, BytesMut::with_capacity(bytes)));
            next.extend_from_slice(&self.buffer);
            let mut spare = std::mem::replace(&mut self.buffer, next);
            spare.clear();
            self.spares.push_back((std::mem::replace(&mut self.allocated, allocated), spare));
            while self.spares.iter().map(|(bytes, _)| bytes).sum::<usize>() > SPARE_BYTES_MAX {
                self.spares.pop_front();
            }
        }
        end.min(self.buffer.capacity())
    }

    fn take(&mut self) -> Result<Batch> {
        let frames = self.buffer.split_to(self.whole).freeze();
        let mut packets = Vec::with_capacity(self.frames.len());
        let mut at = 0;
        for length in self.frames.drain(..) {
            match Packet::decode(frames.slice(at..at + length)) {
                Ok(packet) => packets.push(packet),
                Err(error) => {
                    self.broken = Some(error);
                    break;
                }
            }
            at += length;
        }
        (self.whole, self.ends, self.hold_until) = (0, false, None);
        if 2 * at >= self.room {
            // Bytes keep coming: larger steps cost less.
            self.room = (4 * self.room).min(BATCH_BYTES);
        }
        if packets.is_empty() {
            return Err(self.broken.take().expect("a batch without packets has a broken one"));
        }
        Ok(Batch { frames: frames.slice(..at), packets })
    }

    fn ended(&self, wanted: usize) -> Error {
        let have = self.buffer.len();
        let text = format!("the peer closed the connection {have} bytes into a packet of {wanted}");
        Error::new(Code::Unavailable, text)
    }
}

/// Reads once, to no more than `end` bytes in the buffer. Tells how many bytes came; 0 at the end of the stream.
async fn fill(
    buffer: &mut BytesMut,
    stream: &mut (impl AsyncRead + Unpin),
    end: usize,
) -> Result<usize> {
    let limit = end - buffer.len();
    let mut limited = buffer.limit(limit);
    stream.read_buf(&mut limited).await.map_err(|error| Error::io("read packets", &error))
}

#[cfg(test)]
mod tests;
