//! The acks of one pipeline: what this DataNode and those downstream say of each packet, passed up in order.
//!
//! A packet is acknowledged when its bytes are written here (for the last: durable under the final name) and every
//! DataNode downstream said so; only then do the bytes become visible to readers. The first failure is the last ack:
//! after it the connection ends and the writer sets up another pipeline. Acks that are ready together go out together.
//! So does the ack of a packet behind which the last one waits already with the last one's: the writer has nothing left
//! to do in between, and a small block wakes each of its DataNodes and its writer once instead of twice.

use std::sync::Arc;

use bytes::BytesMut;
use proto::hadoop::hdfs::StatusProto;
use proto::{Code, Error, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use transfer::connection::within;
use transfer::{HEARTBEAT_SEQNO, PipelineAck};

use super::After;
use crate::files::{Run, Wrote};
use crate::open_replica::OpenReplica;

/// What the receiving side tells of packets, in order.
pub enum Item {
    /// Packets that were handed to the disk together, and passed on.
    Packets {
        /// Their numbers.
        seqnos: Vec<i64>,
        /// How the disk took them.
        outcome: oneshot::Receiver<Run>,
    },
    /// The packet that ends the block was passed on, and the replica is being finished.
    Last {
        /// Its number.
        seqno: i64,
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
    let mut acks = Acks {
        replica,
        downstream,
        upstream,
        read: BytesMut::new(),
        held: BytesMut::new(),
        stall_ms,
    };
    let mut next = None;
    loop {
        let item = match next.take() {
            Some(item) => item,
            None => match items.recv().await {
                Some(item) => item,
                None => return Ok(After::Close),
            },
        };
        let last = matches!(item, Item::Last { .. });
        if !acks.of(item).await? {
            return Ok(After::Close);
        }
        next = items.try_recv().ok();
        if !matches!(next, Some(Item::Last { .. })) {
            acks.send_held().await?;
        }
        if last {
            // Whatever a DataNode downstream says behind its last ack makes the connection to it useless.
            return Ok(if acks.read.is_empty() { After::KeepOpen } else { After::Close });
        }
    }
}

/// The acks of one pipeline.
struct Acks<'a, D, U> {
    replica: &'a OpenReplica,
    downstream: &'a mut Option<D>,
    upstream: &'a mut U,
    /// What came from downstream and is not used yet.
    read: BytesMut,
    /// What is to be sent up.
    held: BytesMut,
    stall_ms: u64,
}

impl<D: AsyncRead + Unpin, U: AsyncWrite + Unpin> Acks<'_, D, U> {
    /// Waits for what an item's packets came to and holds their acks. False after a failure that was told.
    async fn of(&mut self, item: Item) -> Result<bool> {
        match item {
            Item::Failed { seqno, statuses } => {
                self.send(failed(seqno, statuses)).await?;
                Ok(false)
            }
            Item::Heartbeat => self.one(HEARTBEAT_SEQNO, None).await,
            Item::Last { seqno, outcome } => {
                match outcome.await.unwrap_or_else(|_| Err(dropped())) {
                    Ok(wrote) => self.one(seqno, Some(wrote)).await,
                    Err(error) => self.refuse(seqno, error).await,
                }
            }
            Item::Packets { seqnos, outcome } => {
                let run = outcome.await.unwrap_or_else(|_| Run::failed(dropped()));
                for (&seqno, &wrote) in seqnos.iter().zip(&run.wrote) {
                    if !self.one(seqno, Some(wrote)).await? {
                        return Ok(false);
                    }
                }
                match (run.failed, seqnos.get(run.wrote.len())) {
                    (Some(error), Some(&seqno)) => self.refuse(seqno, error).await,
                    _ => Ok(true),
                }
            }
        }
    }

    /// Holds the ack of a packet that was taken here, when all downstream have said of it what they have to. False after
    /// a failure that was told.
    async fn one(&mut self, seqno: i64, wrote: Option<Wrote>) -> Result<bool> {
        let ack = if self.downstream.is_none() {
            PipelineAck::new(seqno, StatusProto::Success)
        } else {
            match self.downstream_ack(seqno).await {
                Ok(ack) => PipelineAck::upstream(StatusProto::Success, &ack),
                Err(error) => {
                    let statuses = vec![StatusProto::Success, StatusProto::Error];
                    self.send(failed(seqno, statuses)).await?;
                    return Err(error.context("the next DataNode of the pipeline"));
                }
            }
        };
        if ack.first_failure().is_some() {
            self.send(ack).await?;
            return Ok(false);
        }
        if let Some(wrote) = wrote {
            self.replica.acked(wrote);
        }
        self.held.extend_from_slice(&ack.encode());
        Ok(true)
    }

    async fn refuse(&mut self, seqno: i64, error: Error) -> Result<bool> {
        self.send(failed(seqno, vec![own_status(&error)])).await?;
        Err(error)
    }

    async fn send(&mut self, ack: PipelineAck) -> Result<()> {
        self.held.extend_from_slice(&ack.encode());
        self.send_held().await
    }

    async fn send_held(&mut self) -> Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let acks = self.held.split();
        within(self.stall_ms, "send acks", async {
            self.upstream.write_all(&acks).await.map_err(|error| Error::io("send", &error))
        })
        .await
    }

    /// The next DataNode's ack. Those that are held go up before it is waited for.
    async fn downstream_ack(&mut self, seqno: i64) -> Result<PipelineAck> {
        loop {
            if let Some(ack) = PipelineAck::decode(&mut self.read)? {
                // A failure is passed on whatever packet it names.
                if ack.seqno != seqno && ack.first_failure().is_none() {
                    return Err(Error::new(
                        Code::Incompatible,
                        format!("an ack of packet {}, expected {seqno}", ack.seqno),
                    ));
                }
                return Ok(PipelineAck { seqno, ..ack });
            }
            let stream = self.downstream.as_mut().expect("it was looked for");
            let read = async {
                stream.read_buf(&mut self.read).await.map_err(|error| Error::io("read", &error))
            };
            let count = if self.held.is_empty() {
                within(self.stall_ms, format!("wait for the ack of packet {seqno}"), read).await?
            } else {
                tokio::select! {
                    biased;
                    count = read => count?,
                    () = std::future::ready(()) => {
                        self.send_held().await?;
                        continue;
                    }
                }
            };
            if count == 0 {
                return Err(Error::new(Code::Unavailable, "it closed the connection"));
            }
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

fn dropped() -> Error {
    Error::new(Code::Internal, "a disk job was dropped")
}
