//! Block bytes on the wire: HDFS's DataTransferProtocol, shared by clients and DataNodes.
//!
//! | module | owns |
//! |---|---|
//! | [`checksum`] | CRC32C, CRC32 and NULL over chunks: compute and verify |
//! | [`crc`] | the CRC of joined pieces, and of prefixes |
//! | [`packet`] | the packet: header, framing, total decoder, building one from bytes |
//! | [`ack`] | pipeline acks, and the pure state of packets in flight |
//! | [`op`] | requests (`u16 28, u8 op, message`) and replies (`message`), both bounded |
//! | [`meta`] | the layout of the checksum file beside a replica |
//! | [`batch`] | packets that arrive together, read together |
//! | [`connection`] | dialling a DataNode, deadlines, a small pool of idle connections |
//! | [`reader`] | a range of one block from one DataNode, verified |
//! | [`writer`] | one block over one pipeline, with packets in flight |
//! | [`coder`] | erasure coding: parity from data, lost units from those left |
//! | [`stripe`] | where the bytes of a striped block group are |
//! | [`short_circuit`] | open files handed over a Unix socket |
//!
//! Invariants: [`checksum`], [`crc`], [`coder`], [`packet`], [`ack`], [`stripe`] and [`meta`] decide without IO and know
//! no clock. Every decoder is total: any bytes give a value or an error, and nothing is allocated beyond a checked length.
//! This crate knows neither files of the namespace nor folders of a DataNode.

pub mod ack;
pub mod batch;
pub mod checksum;
pub mod coder;
pub mod connection;
pub mod crc;
pub mod meta;
pub mod op;
pub mod packet;
pub mod reader;
pub mod short_circuit;
pub mod stripe;
pub mod writer;

pub use ack::{HEARTBEAT_SEQNO, PipelineAck};
pub use batch::{Batch, BatchReader};
pub use checksum::{Checksum, ChecksumKind, Mismatch};
pub use connection::{Peer, Pool, Timeouts};

pub use op::{OpCode, Request};
pub use packet::{Packet, PacketBuilder, PacketHeader, PacketReader, SealedPacket};
