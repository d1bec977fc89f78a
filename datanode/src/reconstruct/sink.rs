//! A computed unit on its way to the DataNode that shall hold it: this one, or another.
//!
//! Both ways store it as a transfer does: as a temporary replica that nobody sees, finished when all of it is there and
//! durable. A sink that is dropped before leaves nothing.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use proto::{BlockId, Code, Error, GenerationStamp, Result};
use tokio::sync::oneshot;
use transfer::writer::{BlockWriter, PipelineFailure, PipelineSpec, Stage};
use transfer::{Checksum, Packet, PacketHeader, SealedPacket};

use super::job::{Holder, Job};
use crate::data_server::DataServer;
use crate::files::Run;
use crate::store::{Purpose, Store, WriteSession};

/// The name under which this DataNode writes to others.
const CLIENT: &str = "granary-datanode";
/// Packets on their way to another DataNode.
const PACKETS_MAX: usize = 4;

/// A unit that is being written.
pub struct Sink {
    unit: usize,
    block: u64,
    seqno: i64,
    written: u64,
    way: Way,
}

enum Way {
    Own { session: WriteSession, outcomes: VecDeque<oneshot::Receiver<Run>> },
    Other(Box<BlockWriter>),
}

impl Sink {
    /// Begins to write a unit.
    pub async fn open(
        store: &std::sync::Arc<Store>,
        server: &DataServer,
        job: &Job,
        target: &Holder,
    ) -> Result<Self> {
        let block = job.unit_block(target.unit);
        let identity = store.identity();
        let way = if target.datanode.uuid == identity.datanode_uuid {
            let purpose = Purpose::Transfer {
                stamp: GenerationStamp(block.generation_stamp),
                bytes: block.length,
                checksum: Checksum::NATIVE,
            };
            let session = store.begin_write(BlockId(block.id), purpose).await?;
            Way::Own { session, outcomes: VecDeque::new() }
        } else {
            let spec = PipelineSpec {
                pool_id: identity.pool_id,
                client: CLIENT.to_owned(),
                block,
                nodes: vec![target.datanode.clone()],
                stage: Stage::TransferFinalized,
                min_bytes: 0,
                max_bytes: 0,
                new_stamp: block.generation_stamp,
                checksum: Checksum::NATIVE,
                packets_in_flight_max: PACKETS_MAX,
            };
            let opened = BlockWriter::open_pooled(&spec, server.pool()).await;
            Way::Other(Box::new(opened.map_err(|failure| failure.error)?))
        };
        Ok(Self { unit: target.unit, block: block.id, seqno: 0, written: 0, way })
    }

    /// Which unit.
    pub fn unit(&self) -> usize {
        self.unit
    }

    /// Writes the bytes that follow, perhaps none. After an error the sink is of no use.
    pub async fn write(&mut self, offset: u64, data: Bytes) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        assert_eq!(offset, self.written, "steps follow each other");
        let header = PacketHeader {
            offset_in_block: offset,
            seqno: self.seqno,
            last: false,
            data_len: 0,
            sync: false,
        };
        self.seqno += 1;
        self.written += data.len() as u64;
        let packet = SealedPacket::new(header, Checksum::NATIVE, data);
        match &mut self.way {
            Way::Own { session, outcomes } => {
                let written = async {
                    let mut frame = BytesMut::from(&packet.head[..]);
                    frame.extend_from_slice(&packet.data);
                    let packet = Packet::decode(frame.freeze())?;
                    outcomes.push_back(session.write(vec![packet], Checksum::NATIVE).await?);
                    while let Some(first) = outcomes.front_mut() {
                        match first.try_recv() {
                            Ok(run) => run.result()?,
                            Err(oneshot::error::TryRecvError::Empty) => break,
                            Err(oneshot::error::TryRecvError::Closed) => return Err(dropped()),
                        }
                        outcomes.pop_front();
                    }
                    Ok(())
                };
                unless_stopped(session, written).await
            }
            Way::Other(writer) => writer.send(&mut Some(packet)).await.map_err(told),
        }
        .map_err(|error| error.context(format_args!("write blk_{}", self.block)))
    }

    /// Finishes the unit; tells its bytes. When this returns, it is durable and visible.
    pub async fn finish(self) -> Result<u64> {
        let block = self.block;
        let finished = match self.way {
            Way::Own { session, outcomes } => {
                let finished = async {
                    for outcome in outcomes {
                        outcome.await.map_err(|_| dropped())?.result()?;
                    }
                    session.finish().await?.await.map_err(|_| dropped())?.map(|_| ())
                };
                unless_stopped(&session, finished).await
            }
            Way::Other(mut writer) => {
                let header = PacketHeader {
                    offset_in_block: self.written,
                    seqno: self.seqno,
                    last: true,
                    data_len: 0,
                    sync: false,
                };
                let last = SealedPacket::with_sums(header, &[], Bytes::new());
                let sent = async {
                    writer.send(&mut Some(last)).await?;
                    writer.drain().await
                };
                let sent = sent.await.map_err(told);
                if sent.is_ok() {
                    writer.end();
                }
                sent
            }
        };
        finished
            .map(|()| self.written)
            .map_err(|error| error.context(format_args!("finish blk_{block}")))
    }
}

/// Gives up when another takes the replica over: it waits until this writer is gone.
async fn unless_stopped<T>(
    session: &WriteSession,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        result = work => result,
        () = session.stopped() => {
            Err(Error::new(Code::Stale, "another writer or a deletion took over"))
        }
    }
}

fn told(failure: PipelineFailure) -> Error {
    failure.error
}

fn dropped() -> Error {
    Error::new(Code::Internal, "a disk job was dropped")
}
