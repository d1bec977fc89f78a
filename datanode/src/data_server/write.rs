//! Op 80: takes a block from a writer, stores it, and passes it on to the next DataNode of the pipeline.
//!
//! Set-up opens the replica here and dials the next DataNode at the same time; the reply names the first DataNode that
//! failed. Then packets are verified, handed to the disk, and passed on as the bytes that came, those that arrive together
//! in one step, while [`super::respond`] sends acks up. Both run in one task. What holds: a packet whose checksums do not fit is neither stored nor passed
//! on; a session that another takes over ends at once.

use std::sync::atomic::Ordering;

use proto::hadoop::hdfs::op_write_block_proto::BlockConstructionStage as Stage;
use proto::hadoop::hdfs::{BlockOpResponseProto, OpWriteBlockProto, StatusProto};
use proto::{Code, Error, GenerationStamp, Result};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;
use transfer::connection::{Connection, Peer, within};
use transfer::{Batch, BatchReader, Checksum, ChecksumKind, HEARTBEAT_SEQNO, Packet, Request, op};

use super::respond::{self, Item, own_status};
use super::{After, DataServer, Limits, Wire, block_of};
use crate::replica::Expected;
use crate::store::{Purpose, WriteSession};

/// Runs of packets of one pipeline that wait for their acks here; each has at most [`transfer::batch::PACKETS_MAX`].
const ITEMS_MAX: usize = 256;
/// Targets of one pipeline.
pub(super) const TARGETS_MAX: usize = proto::limits::REPLICATION_MAX as usize;

/// The next DataNode of a pipeline.
struct Mirror {
    peer: Peer,
    stream: TcpStream,
}

/// The set-up failed: the reply that says so.
struct Refusal {
    error: Error,
    bad_link: String,
}

/// Serves one request. The connection serves on after a block that ended well.
pub async fn serve<R, W>(
    server: &DataServer,
    wire: &mut Wire<R, W>,
    request: OpWriteBlockProto,
) -> Result<After>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let stage = Stage::try_from(request.stage).unwrap_or(Stage::DataStreaming);
    let (session, mirror, checksum) = match set_up(server, &request, stage).await {
        Ok(ready) => ready,
        Err(refusal) => {
            tracing::debug!(error = %refusal.error, "pipeline refused");
            let mut reply = op::error_response(&refusal.error);
            reply.first_bad_link = Some(refusal.bad_link);
            wire.reply(&reply).await?;
            return Ok(After::Close);
        }
    };
    wire.reply(&BlockOpResponseProto {
        first_bad_link: Some(String::new()),
        ..op::response(StatusProto::Success)
    })
    .await?;
    if stage == Stage::PipelineCloseRecovery {
        return Ok(After::Close);
    }
    let downstream = request.targets.len();
    run(server, wire, &session, mirror, (checksum, stage), downstream).await
}

async fn set_up(
    server: &DataServer,
    request: &OpWriteBlockProto,
    stage: Stage,
) -> Result<(WriteSession, Option<Mirror>, Checksum), Refusal> {
    let own = |error: Error| Refusal { error, bad_link: String::new() };
    let block = &request.header.base_header.block;
    let (id, _) = block_of(&server.store, block).map_err(own)?;
    let checksum = Checksum::from_proto(&request.requested_checksum).map_err(own)?;
    let purpose = purpose(request, stage, checksum).map_err(own)?;
    let (session, mirror) =
        tokio::join!(server.store.begin_write(id, purpose), dial_next(server, request));
    let session = session.map_err(own)?;
    let mirror = match mirror {
        Ok(mirror) => mirror,
        Err(refusal) => {
            if stage == Stage::PipelineSetupCreate {
                session.discard();
            }
            return Err(refusal);
        }
    };
    if stage == Stage::PipelineCloseRecovery {
        finish(&session, stage).await.map_err(own)?;
    }
    Ok((session, mirror, checksum))
}

/// What a stage asks of the replica here.
fn purpose(request: &OpWriteBlockProto, stage: Stage, sent: Checksum) -> Result<Purpose> {
    let block = &request.header.base_header.block;
    let asked = GenerationStamp(block.generation_stamp);
    // A writer that was given no new stamp keeps the one it has.
    let new = GenerationStamp(request.latest_generation_stamp.max(block.generation_stamp));
    // HDFS's clients put the block's size limit into the header, and the length that is there into the lower bound.
    let bytes = block.num_bytes.unwrap_or(0);
    let change = crate::store::Change { asked, new, length: request.min_bytes_rcvd };
    // What is stored has checksums, even if the writer sends none.
    let checksum = if sent.kind() == ChecksumKind::Null { Checksum::NATIVE } else { sent };
    Ok(match stage {
        Stage::PipelineSetupCreate => Purpose::Create { stamp: asked, bytes, checksum },
        Stage::TransferRbw | Stage::TransferFinalized => {
            Purpose::Transfer { stamp: asked, bytes, checksum }
        }
        Stage::PipelineSetupAppend => Purpose::Append(change),
        Stage::PipelineSetupAppendRecovery => Purpose::RecoverAppend(change),
        Stage::PipelineCloseRecovery => Purpose::RecoverClose(change),
        Stage::PipelineSetupStreamingRecovery => Purpose::RecoverStreaming {
            asked,
            new,
            expected: Expected {
                acked_min: request.min_bytes_rcvd,
                sent_max: request.max_bytes_rcvd,
            },
        },
        Stage::DataStreaming | Stage::PipelineClose => {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("a pipeline is not set up for stage {stage:?}"),
            ));
        }
    })
}

/// Dials the next DataNode of the pipeline, if there is one, and waits until all behind it are set up.
async fn dial_next(
    server: &DataServer,
    request: &OpWriteBlockProto,
) -> Result<Option<Mirror>, Refusal> {
    let Some((next, rest)) = request.targets.split_first() else { return Ok(None) };
    let bad = |error: Error, bad_link: String| Refusal { error, bad_link };
    if request.targets.len() > TARGETS_MAX {
        let why = format!("{} targets, at most {TARGETS_MAX}", request.targets.len());
        return Err(bad(Error::new(Code::InvalidArgument, why), String::new()));
    }
    let named = format!("{}:{}", next.id.ip_addr, next.id.xfer_port);
    let peer = Peer::from_info(next).map_err(|error| bad(error, named.clone()))?;
    let timeouts = &server.limits.timeouts;
    let passed_on = OpWriteBlockProto {
        targets: rest.to_vec(),
        target_storage_types: request.target_storage_types.iter().skip(1).copied().collect(),
        target_storage_ids: request.target_storage_ids.iter().skip(1).cloned().collect(),
        target_pinnings: request.target_pinnings.iter().skip(1).copied().collect(),
        storage_type: request.target_storage_types.first().copied().or(request.storage_type),
        storage_id: request.target_storage_ids.first().cloned(),
        ..request.clone()
    };
    let bytes = Request::WriteBlock(Box::new(passed_on)).encode();
    let wait_ms = timeouts.idle_ms + timeouts.per_node_ms * (rest.len() as u64 + 1);
    let what = format!("set up {peer}");
    let asked = server.pool.ask(&peer, &bytes, wait_ms, what).await;
    let (reply, connection) = asked.map_err(|error| bad(error, peer.address()))?;
    if let Err(error) = op::check(&reply) {
        let link = reply.first_bad_link.filter(|link| !link.is_empty());
        return Err(bad(error, link.unwrap_or_else(|| peer.address())));
    }
    let stream = connection.into_stream().map_err(|error| bad(error, peer.address()))?;
    Ok(Some(Mirror { peer, stream }))
}

/// Packets down, acks up, until the block ends or something fails.
async fn run<R, W>(
    server: &DataServer,
    wire: &mut Wire<R, W>,
    session: &WriteSession,
    mirror: Option<Mirror>,
    (checksum, stage): (Checksum, Stage),
    downstream: usize,
) -> Result<After>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (items, told) = mpsc::channel(ITEMS_MAX);
    let (peer, stream) = mirror.map(|mirror| (mirror.peer, mirror.stream)).unzip();
    let (mut from_mirror, to_mirror) = stream.map(TcpStream::into_split).unzip();
    // Whoever is further from the end of the pipeline waits longer, so that a hanging DataNode is named by the one before.
    let Limits { stall_ms, timeouts, .. } = server.limits;
    let stall_ms = stall_ms + timeouts.per_node_ms * downstream as u64;
    let replica = session.replica().clone();
    let respond = respond::respond(told, &replica, &mut from_mirror, &mut wire.writer, stall_ms);
    let receiver = Receiver { server, session, checksum, stage, to_mirror, items, stall_ms };
    let receive = receiver.receive(&mut wire.reader);
    let mut received = None;
    let responded = {
        let (mut respond, mut receive) = (std::pin::pin!(respond), std::pin::pin!(receive));
        loop {
            tokio::select! {
                result = &mut receive, if received.is_none() => received = Some(result),
                result = &mut respond => break result,
                () = session.stopped() => {
                    break Err(Error::new(Code::Stale, "another writer or a recovery took over"));
                }
            }
        }
    };
    let to_mirror = received.transpose()?.flatten();
    let after = responded?;
    if after == After::KeepOpen
        && let (Some(peer), Some(from), Some(to)) = (peer, from_mirror, to_mirror)
        && let Ok(stream) = from.reunite(to)
    {
        server.pool.put(&peer, Connection::used(stream));
    }
    Ok(after)
}

/// The side that takes packets.
struct Receiver<'a> {
    server: &'a DataServer,
    session: &'a WriteSession,
    checksum: Checksum,
    stage: Stage,
    to_mirror: Option<OwnedWriteHalf>,
    items: mpsc::Sender<Item>,
    /// How long the way to the next DataNode may be blocked.
    stall_ms: u64,
}

impl Receiver<'_> {
    /// Takes packets until the last one, and gives back the way to the next DataNode, if it can be used again. A failure
    /// is told to the responder, which ends the pipeline.
    async fn receive(
        mut self,
        reader: &mut (impl AsyncRead + Unpin),
    ) -> Result<Option<OwnedWriteHalf>> {
        let mut batches = BatchReader::new();
        loop {
            let stall_ms = self.server.limits.stall_ms;
            let batch = within(stall_ms, "wait for a packet", batches.next(reader)).await?;
            let last = batch.packets.last().is_some_and(|packet| packet.header().last);
            if !self.take(batch).await? {
                // The responder has told of an earlier failure.
                return Ok(self.to_mirror);
            }
            if last && batches.has_rest() {
                return Err(Error::new(Code::Incompatible, "bytes behind the last packet"));
            }
            if last {
                return Ok(self.to_mirror);
            }
        }
    }

    /// Takes the packets that fit their checksums, and tells the responder of them and of the first that does not.
    /// False if nobody listens any more.
    async fn take(&mut self, batch: Batch) -> Result<bool> {
        let name = self.session.replica().replica().block();
        let verified = batch.packets.iter().position(|packet| {
            packet.header().seqno != HEARTBEAT_SEQNO && packet.verify(self.checksum, name).is_err()
        });
        let Batch { frames, mut packets } = batch;
        let bad = verified.map(|at| packets.split_off(at).swap_remove(0));
        let bytes = packets.iter().map(|packet| packet.frame().len()).sum();
        let first = packets.first().map(|packet| packet.header().seqno);
        if let Some(first) = first {
            match self.take_good(packets, &frames[..bytes]).await {
                Ok(items) => {
                    for item in items {
                        if self.items.send(item).await.is_err() {
                            return Ok(false);
                        }
                    }
                }
                Err((error, statuses)) => return self.fail(first, error, statuses).await,
            }
        }
        let Some(bad) = bad else { return Ok(true) };
        let error = bad.verify(self.checksum, name).expect_err("it was verified before");
        if error.code == Code::Corrupt {
            self.server.counters.checksum_failures.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%error, "a packet fails its checksum");
        }
        let statuses = vec![own_status(&error)];
        self.fail(bad.header().seqno, error, statuses).await
    }

    async fn fail(&self, seqno: i64, error: Error, statuses: Vec<StatusProto>) -> Result<bool> {
        // If the responder is gone, it has told of an earlier failure.
        drop(self.items.send(Item::Failed { seqno, statuses }).await);
        Err(error)
    }

    /// Hands verified packets to the disk, in runs that end with a sync, and passes them on.
    async fn take_good(
        &mut self,
        packets: Vec<Packet>,
        frames: &[u8],
    ) -> Result<Vec<Item>, (Error, Vec<StatusProto>)> {
        let own = |error: Error| {
            let status = own_status(&error);
            (error, vec![status])
        };
        let written = packets.iter().map(|packet| u64::from(packet.header().data_len)).sum();
        self.server.counters.written_bytes.fetch_add(written, Ordering::Relaxed);
        let mut items = Vec::new();
        let mut run = Vec::with_capacity(packets.len());
        let mut last = None;
        for packet in packets {
            let header = *packet.header();
            let heartbeat = header.seqno == HEARTBEAT_SEQNO;
            if heartbeat || header.last || header.sync {
                self.write(&mut run, &mut items).await.map_err(own)?;
            }
            if heartbeat {
                items.push(Item::Heartbeat);
            } else if header.last {
                last = Some(header.seqno);
            } else {
                run.push(packet);
            }
        }
        self.write(&mut run, &mut items).await.map_err(own)?;
        // The next DataNode writes and syncs while this one does.
        self.pass_on(frames).await?;
        if let Some(seqno) = last {
            let outcome = end(self.session, self.stage).await.map_err(own)?;
            items.push(Item::Last { seqno, outcome });
        }
        Ok(items)
    }

    /// Hands a run of packets to the disk, if there is one.
    async fn write(&self, run: &mut Vec<Packet>, items: &mut Vec<Item>) -> Result<()> {
        if run.is_empty() {
            return Ok(());
        }
        let seqnos = run.iter().map(|packet| packet.header().seqno).collect();
        let outcome = self.session.write(std::mem::take(run), self.checksum).await?;
        items.push(Item::Packets { seqnos, outcome });
        Ok(())
    }

    async fn pass_on(&mut self, frames: &[u8]) -> Result<(), (Error, Vec<StatusProto>)> {
        let Some(mirror) = &mut self.to_mirror else { return Ok(()) };
        within(self.stall_ms, "pass packets on", async {
            mirror.write_all(frames).await.map_err(|error| Error::io("send", &error))
        })
        .await
        .map_err(|error| (error, vec![StatusProto::Success, StatusProto::Error]))
    }
}

/// Ends the replica as its stage says.
async fn end(
    session: &WriteSession,
    stage: Stage,
) -> Result<tokio::sync::oneshot::Receiver<Result<crate::files::Wrote>>> {
    match stage {
        Stage::TransferRbw => session.promote().await,
        _ => session.finish().await,
    }
}

async fn finish(session: &WriteSession, stage: Stage) -> Result<()> {
    let outcome = end(session, stage).await?.await;
    outcome.map_err(|_| Error::new(Code::Internal, "a disk job was dropped"))?.map(|_| ())
}
