//! Pipeline acks: what each DataNode of a pipeline says of a packet, and which packets are still in flight.
//!
//! An ack is a varint-delimited message; its statuses are ordered along the pipeline, the sender first. HDFS's client
//! takes them from `flag` (bits 0-3) when that is present and from `reply` otherwise, so both are filled. Pure: no IO,
//! no clock. What holds for [`InFlight`]: packets are acknowledged in the order in which they were sent; a
//! packet leaves only when every DataNode of the pipeline said SUCCESS; after a failure nothing more is acknowledged.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use prost::Message;
use proto::hadoop::hdfs::{PipelineAckProto, StatusProto};
use proto::{Code, Error, Result};

use crate::op::{decode_delimited, encode_delimited};
use crate::packet::SealedPacket;

/// The sequence number of a heartbeat and of its ack.
pub const HEARTBEAT_SEQNO: i64 = -1;
/// Bytes of the largest ack message that is accepted.
pub const ACK_BYTES_MAX: usize = 8 << 10;
/// Status bits of a flag.
const FLAG_STATUS_MASK: u32 = 0xf;

/// What the DataNodes of a pipeline say of one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineAck {
    /// Which packet.
    pub seqno: i64,
    /// One status for each DataNode, the one that sent this ack first.
    pub statuses: Vec<StatusProto>,
    /// How long the DataNodes downstream took, in nanoseconds.
    pub downstream_ns: u64,
}

impl PipelineAck {
    /// The ack of the last DataNode of a pipeline.
    pub fn new(seqno: i64, status: StatusProto) -> Self {
        Self { seqno, statuses: vec![status], downstream_ns: 0 }
    }

    /// What a DataNode sends up: its own status, then what came from downstream.
    #[must_use]
    pub fn upstream(own: StatusProto, downstream: &Self) -> Self {
        let mut statuses = Vec::with_capacity(1 + downstream.statuses.len());
        statuses.push(own);
        statuses.extend_from_slice(&downstream.statuses);
        Self { seqno: downstream.seqno, statuses, downstream_ns: downstream.downstream_ns }
    }

    /// The place in the pipeline of the first DataNode that failed.
    pub fn first_failure(&self) -> Option<usize> {
        self.statuses.iter().position(|&status| status != StatusProto::Success)
    }

    /// The message with its length in front.
    pub fn encode(&self) -> Bytes {
        encode_delimited(&PipelineAckProto {
            seqno: self.seqno,
            reply: self.statuses.iter().map(|&status| status as i32).collect(),
            downstream_ack_time_nanos: Some(self.downstream_ns),
            flag: self.statuses.iter().map(|&status| status as u32).collect(),
        })
    }

    /// Takes one ack from the front of `buffer`; `None` if it is not all there yet. An unknown status is an ERROR.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<Self>> {
        let Some(message) = decode_delimited(buffer, ACK_BYTES_MAX)? else {
            return Ok(None);
        };
        let message = PipelineAckProto::decode(message).map_err(|error| {
            Error::new(Code::Incompatible, format!("bad pipeline ack: {error}"))
        })?;
        let known = |number: i32| StatusProto::try_from(number).unwrap_or(StatusProto::Error);
        let statuses = if message.flag.is_empty() {
            message.reply.iter().map(|&status| known(status)).collect()
        } else {
            message.flag.iter().map(|&flag| known((flag & FLAG_STATUS_MASK) as i32)).collect()
        };
        let downstream_ns = message.downstream_ack_time_nanos.unwrap_or(0);
        Ok(Some(Self { seqno: message.seqno, statuses, downstream_ns }))
    }
}

/// Why a pipeline can't go on, from its acks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckFailure {
    /// The place in the pipeline of the DataNode to blame; `None` if the ack itself makes no sense.
    pub node: Option<usize>,
    /// What it said.
    pub what: String,
}

/// The packets in flight over one pipeline: bounded in number, acknowledged in order.
#[derive(Debug)]
pub struct InFlight {
    nodes: usize,
    packets_max: usize,
    packets: VecDeque<SealedPacket>,
    acked_bytes: u64,
    last_acked: bool,
}

impl InFlight {
    /// Nothing in flight over a pipeline of `nodes`, of which the first `acked_bytes` of the block are safe.
    pub fn new(nodes: usize, packets_max: usize, acked_bytes: u64) -> Self {
        assert!(nodes > 0, "a pipeline has a DataNode");
        assert!(packets_max > 0, "a window takes a packet");
        Self { nodes, packets_max, packets: VecDeque::new(), acked_bytes, last_acked: false }
    }

    /// Whether one more packet may be sent.
    pub fn has_room(&self) -> bool {
        self.packets.len() < self.packets_max
    }

    /// Whether every packet was acknowledged.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Bytes of the block that every DataNode has acknowledged.
    pub fn acked_bytes(&self) -> u64 {
        self.acked_bytes
    }

    /// Whether the packet that ends the block was acknowledged.
    pub fn last_acked(&self) -> bool {
        self.last_acked
    }

    /// A packet goes out. Sequence numbers must rise.
    pub fn sent(&mut self, packet: SealedPacket) {
        assert!(self.has_room(), "the window was checked");
        let rises = self.packets.back().is_none_or(|p| p.header.seqno < packet.header.seqno);
        assert!(rises, "sequence numbers rise");
        self.packets.push_back(packet);
    }

    /// An ack came in.
    pub fn acked(&mut self, ack: &PipelineAck) -> std::result::Result<(), AckFailure> {
        if let Some(node) = ack.first_failure() {
            let what = format!("answered {:?} to packet {}", ack.statuses[node], ack.seqno);
            return Err(AckFailure { node: Some(node.min(self.nodes - 1)), what });
        }
        if ack.seqno == HEARTBEAT_SEQNO {
            return Ok(());
        }
        if ack.statuses.len() != self.nodes {
            return Err(AckFailure {
                node: None,
                what: format!(
                    "an ack of {} DataNodes, expected {}",
                    ack.statuses.len(),
                    self.nodes
                ),
            });
        }
        let expected = self.packets.front().map(|packet| packet.header.seqno);
        if expected != Some(ack.seqno) {
            let what = match expected {
                Some(seqno) => format!("an ack of packet {}, expected {seqno}", ack.seqno),
                None => format!("an ack of packet {}, but none is in flight", ack.seqno),
            };
            return Err(AckFailure { node: None, what });
        }
        let packet = self.packets.pop_front().expect("the front packet was looked at");
        self.acked_bytes = self.acked_bytes.max(packet.header.end());
        self.last_acked |= packet.header.last;
        Ok(())
    }

    /// Takes out the packets that were not acknowledged, in order: to be sent again.
    pub fn take_unacked(&mut self) -> VecDeque<SealedPacket> {
        std::mem::take(&mut self.packets)
    }
}

#[cfg(test)]
mod tests;
