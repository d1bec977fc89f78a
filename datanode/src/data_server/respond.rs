//! The acks of one pipeline: what this DataNode and those downstream say of each packet, passed up in order.
//!
//! A packet is acknowledged when its bytes are written here (for the last: durable under the final name) and every
//! DataNode downstream said so; only then do the bytes become visible to readers. The first failure is the last ack:
//! after it the connection ends and the writer sets up another pipeline. The ack of a packet behind which the last one
//! waits already goes out together with the last one's: the writer has nothing left to do in between, and a small block
//! wakes each of its DataNodes and its writer once instead of twice.

use std::sync::Arc;

use bytes::BytesMut;
use proto::hadoop::hdfs::StatusProto;
use proto::{Code, Error, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use transfer::connection::within;
use transfer::{HEARTBEAT_SEQNO, PipelineAck};

use super::After;
use crate::files::Wrote;
use crate::open_replica::OpenReplica;

/// What the receiving side tells of a packet, in order.
pub enum Item {
    /// A packet that was handed to the disk and passed on.
    Packet {
        /// Its number.
        seqno: i64,
        /// Whether it ends the block.
        last: bool,
        /// How the disk took it.
        outcome: oneshot::Receiver<Result<Wrote>>,
    },
    /// A heartbeat that was passed on.
    Heartbeat,
    /// A packet that could not be taken or passed on; nothing comes after it.
    Failed {
        /// Its number.
        seqno: i64,
        /// This DataNode's status, and the next one's if that is to blame.
        statuses: Vec<StatusProto>,
    },
}

/// Sends acks until the last packet, a failure, or the end of the items. Tells whether both connections can serve on:
/// only after a block that ended well.
pub async fn respond(
    mut items: mpsc::Receiver<Item>,
    replica: &Arc<OpenReplica>,
    downstream: &mut Option<impl AsyncRead + Unpin>,
    upstream: &mut (impl AsyncWrite + Unpin),
    stall_ms: u64,
) -> Result<After> {
    let mut buffer = BytesMut::new();
    let mut held = BytesMut::new();
    let mut next = None;
    loop {
        let item = match next.take() {
            Some(item) => item,
            None => match items.recv().await {
                Some(item) => item,
                None => return Ok(After::Close),
            },
        };
        let (seqno, last, wrote) = match item {
            Item::Failed { seqno, statuses } => {
                send(upstream, &mut held, failed(seqno, statuses), stall_ms).await?;
                return Ok(After::Close);
            }
            Item::Heartbeat => (HEARTBEAT_SEQNO, false, None),
            Item::Packet { seqno, last, outcome } => {
                let outcome = outcome
                    .await
                    .unwrap_or_else(|_| Err(Error::new(Code::Internal, "a disk job was dropped")));
                match outcome {
                    Ok(wrote) => (seqno, last, Some(wrote)),
                    Err(error) => {
                        let ack = failed(seqno, vec![own_status(&error)]);
                        send(upstream, &mut held, ack, stall_ms).await?;
                        return Err(error);
                    }
                }
            }
        };
        let ack = match downstream {
            None => PipelineAck::new(seqno, StatusProto::Success),
            Some(stream) => match next_ack(stream, &mut buffer, seqno, stall_ms).await {
                Ok(ack) => PipelineAck::upstream(StatusProto::Success, &ack),
                Err(error) => {
                    let statuses = vec![StatusProto::Success, StatusProto::Error];
                    send(upstream, &mut held, failed(seqno, statuses), stall_ms).await?;
                    return Err(error.context("the next DataNode of the pipeline"));
                }
            },
        };
        let good = ack.first_failure().is_none();
        if let Some(wrote) = wrote.filter(|_| good) {
            replica.acked(wrote);
        }
        next = items.try_recv().ok();
        if good && !last && matches!(next, Some(Item::Packet { last: true, .. })) {
            held.extend_from_slice(&ack.encode());
            continue;
        }
        send(upstream, &mut held, ack, stall_ms).await?;
        if !good {
            return Ok(After::Close);
        }
        if last {
            // Whatever a DataNode downstream says behind its last ack makes the connection to it useless.
            return Ok(if buffer.is_empty() { After::KeepOpen } else { After::Close });
        }
    }
}

/// The status that tells the writer of an error here.
pub fn own_status(error: &Error) -> StatusProto {
    match error.code {
        Code::Corrupt => StatusProto::ErrorChecksum,
        _ => StatusProto::Error,
    }
}

fn failed(seqno: i64, statuses: Vec<StatusProto>) -> PipelineAck {
    PipelineAck { seqno, statuses, downstream_ns: 0 }
}

async fn send(
    upstream: &mut (impl AsyncWrite + Unpin),
    held: &mut BytesMut,
    ack: PipelineAck,
    stall_ms: u64,
) -> Result<()> {
    held.extend_from_slice(&ack.encode());
    let acks = held.split();
    within(stall_ms, "send an ack", async {
        upstream.write_all(&acks).await.map_err(|error| Error::io("send", &error))
    })
    .await
}

async fn next_ack(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    seqno: i64,
    stall_ms: u64,
) -> Result<PipelineAck> {
    loop {
        if let Some(ack) = PipelineAck::decode(buffer)? {
            // A failure is passed on whatever packet it names.
            if ack.seqno != seqno && ack.first_failure().is_none() {
                return Err(Error::new(
                    Code::Incompatible,
                    format!("an ack of packet {}, expected {seqno}", ack.seqno),
                ));
            }
            return Ok(PipelineAck { seqno, ..ack });
        }
        let read = stream.read_buf(buffer);
        let count = within(stall_ms, format!("wait for the ack of packet {seqno}"), async {
            read.await.map_err(|error| Error::io("read", &error))
        })
        .await?;
        if count == 0 {
            return Err(Error::new(Code::Unavailable, "it closed the connection"));
        }
    }
}
