//! One block over one pipeline: set-up, packets in flight, acks, heartbeats.
//!
//! [`BlockWriter::send`] returns when the packet is on its way; it waits only while the window is full or the socket
//! takes no more. Acks are read while sending and while waiting. What holds: every packet given to `send` is either
//! acknowledged by all DataNodes or comes back from [`BlockWriter::into_unacked`], in order, whatever failed and
//! whenever a future was dropped. A failure names the DataNode to leave out: the one that an ack or the set-up reply
//! names, otherwise the first, since that is whom the connection leads to. Deciding what to do about a failure is
//! the caller's business.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use proto::granary::{Block, DatanodeAddress};
use proto::hadoop::hdfs::{BlockOpResponseProto, OpWriteBlockProto};
use proto::{Code, Error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::WriteHalf;
use tokio::sync::Mutex;
use tokio::time::Instant;

pub use proto::hadoop::hdfs::op_write_block_proto::BlockConstructionStage as Stage;

use crate::ack::{InFlight, PipelineAck};
use crate::checksum::Checksum;
use crate::connection::{Connection, Peer, Pool, Timeouts, datanode_info};
use crate::op::{self, Request};
use crate::packet::SealedPacket;

/// How long to wait for an ack that names the culprit after the connection broke.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A pipeline to set up.
#[derive(Clone, Debug)]
pub struct PipelineSpec {
    /// Names the namespace.
    pub pool_id: String,
    /// Who writes: the lease holder.
    pub client: String,
    /// The block, with the stamp that the replicas have.
    pub block: Block,
    /// The DataNodes, in order; at least one.
    pub nodes: Vec<DatanodeAddress>,
    /// What the pipeline is set up for.
    pub stage: Stage,
    /// Bytes that every DataNode has acknowledged.
    pub min_bytes: u64,
    /// Bytes that were sent.
    pub max_bytes: u64,
    /// The stamp that the replicas get.
    pub new_stamp: u64,
    /// Checksums in use.
    pub checksum: Checksum,
    /// Packets that may wait for their ack.
    pub packets_in_flight_max: usize,
}

/// Why a pipeline can't go on, and whom to leave out of the next one.
#[derive(Clone, Debug)]
pub struct PipelineFailure {
    /// Place in the pipeline of the DataNode that failed.
    pub node: usize,
    /// What happened.
    pub error: Error,
}

/// A pipeline that takes packets.
#[derive(Debug)]
pub struct BlockWriter {
    inner: Arc<Mutex<Inner>>,
    heartbeats: Heartbeats,
    /// Where the connection came from, and goes back to.
    pool: Arc<Pool>,
    peer: Peer,
}

#[derive(Debug)]
struct Inner {
    name: String,
    stream: TcpStream,
    acks: BytesMut,
    window: InFlight,
    /// The frame that is being written: head and data, less what was written.
    outgoing: Option<SealedPacket>,
    idle: Duration,
    last_progress: Instant,
    last_sent: Instant,
    failure: Option<PipelineFailure>,
}

impl BlockWriter {
    /// Sets a pipeline up over a connection of its own. Fails if one of its DataNodes does not take part.
    pub async fn open(
        spec: &PipelineSpec,
        timeouts: &Timeouts,
    ) -> std::result::Result<Self, PipelineFailure> {
        Self::open_pooled(spec, &Arc::new(Pool::new(*timeouts, 0, 0))).await
    }

    /// Sets a pipeline up over an idle connection of the pool, if there is one.
    pub async fn open_pooled(
        spec: &PipelineSpec,
        pool: &Arc<Pool>,
    ) -> std::result::Result<Self, PipelineFailure> {
        assert!(!spec.nodes.is_empty(), "a pipeline has a DataNode");
        let first = |error: Error| PipelineFailure { node: 0, error };
        let peer = Peer::from_address(&spec.nodes[0]).map_err(first)?;
        let timeouts = pool.timeouts();
        let idle_ms = timeouts.idle_ms + timeouts.per_node_ms * spec.nodes.len() as u64;
        let what = format!("set up a pipeline for blk_{} at {peer}", spec.block.id);
        let request = set_up_request(spec).encode();
        let (reply, connection) = pool.ask(&peer, &request, idle_ms, &what).await.map_err(first)?;
        if let Err(error) = op::check(&reply) {
            let node = bad_link(&reply, &spec.nodes);
            return Err(PipelineFailure { node, error: error.context(what) });
        }
        let idle = Duration::from_millis(idle_ms);
        Self::over(connection, spec, idle, pool, peer).map_err(|error| first(error.context(what)))
    }

    fn over(
        connection: Connection,
        spec: &PipelineSpec,
        idle: Duration,
        pool: &Arc<Pool>,
        peer: Peer,
    ) -> proto::Result<Self> {
        let stream = connection.into_stream()?;
        let now = Instant::now();
        let inner = Arc::new(Mutex::new(Inner {
            name: format!("blk_{}", spec.block.id),
            stream,
            acks: BytesMut::new(),
            window: InFlight::new(
                spec.nodes.len(),
                spec.packets_in_flight_max.max(1),
                spec.min_bytes,
            ),
            outgoing: None,
            idle,
            last_progress: now,
            last_sent: now,
            failure: None,
        }));
        let every = Duration::from_millis(pool.timeouts().heartbeat_ms.max(1));
        let heartbeats = tokio::spawn(keep_alive(Arc::downgrade(&inner), every));
        let heartbeats = Heartbeats(heartbeats.abort_handle());
        Ok(Self { inner, heartbeats, pool: pool.clone(), peer })
    }

    /// Sends the packet in `slot`: waits for room in the window, then until the socket has taken it.
    ///
    /// The packet leaves the slot when it becomes one of those that [`Self::into_unacked`] gives back; until then, a
    /// failure or a future that is dropped leaves it there.
    pub async fn send(
        &mut self,
        slot: &mut Option<SealedPacket>,
    ) -> std::result::Result<(), PipelineFailure> {
        let mut inner = self.inner.lock().await;
        inner.run(|inner| inner.outgoing.is_none() && inner.window.has_room()).await?;
        if let Some(packet) = slot.take() {
            inner.window.sent(packet.clone());
            inner.outgoing = Some(packet);
        }
        inner.run(|inner| inner.outgoing.is_none()).await
    }

    /// Waits until every packet was acknowledged by every DataNode.
    pub async fn drain(&mut self) -> std::result::Result<(), PipelineFailure> {
        let mut inner = self.inner.lock().await;
        inner.run(|inner| inner.outgoing.is_none() && inner.window.is_empty()).await
    }

    /// Bytes of the block that every DataNode has acknowledged.
    pub async fn acked_bytes(&self) -> u64 {
        self.inner.lock().await.window.acked_bytes()
    }

    /// Ends a pipeline whose last packet was acknowledged: its connection can serve the next request.
    ///
    /// One on which anything is still under way is closed instead.
    pub fn end(self) {
        drop(self.heartbeats);
        // A heartbeat that is just being looked at may hold the pipeline too.
        let Some(inner) = Arc::into_inner(self.inner).map(Mutex::into_inner) else { return };
        let is_over = inner.failure.is_none()
            && inner.outgoing.is_none()
            && inner.window.is_empty()
            && inner.acks.is_empty();
        if is_over {
            self.pool.put(&self.peer, Connection::used(inner.stream));
        }
    }

    /// Ends the pipeline and gives back what was not acknowledged, in order.
    pub async fn into_unacked(self) -> VecDeque<SealedPacket> {
        drop(self.heartbeats);
        self.inner.lock().await.window.take_unacked()
    }
}

/// The task that sends heartbeats; ends when this is dropped.
#[derive(Debug)]
struct Heartbeats(tokio::task::AbortHandle);

impl Drop for Heartbeats {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Inner {
    /// Sends what is going out and takes acks until `done`. A failure is remembered: nothing goes out after it.
    async fn run(
        &mut self,
        done: impl Fn(&Self) -> bool,
    ) -> std::result::Result<(), PipelineFailure> {
        self.last_progress = Instant::now();
        while self.failure.is_none() && !done(self) {
            self.step().await;
        }
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// One step of progress: an ack, some bytes sent, or a failure.
    async fn step(&mut self) {
        let Self { stream, acks, outgoing, .. } = self;
        let (mut read_half, mut write_half) = stream.split();
        let deadline = self.last_progress + self.idle;
        let event = tokio::select! {
            biased;
            count = read_half.read_buf(acks) => Event::Read(count),
            count = write_some(&mut write_half, outgoing.as_ref()), if outgoing.is_some() =>
                Event::Wrote(count),
            () = tokio::time::sleep_until(deadline) => Event::Stalled,
        };
        self.last_progress = Instant::now();
        match event {
            Event::Read(Ok(count)) if count > 0 => self.take_acks(),
            Event::Read(Ok(_)) => self.broken(Code::Unavailable, "it closed the connection"),
            Event::Read(Err(error)) => self.broken(Code::Unavailable, &error.to_string()),
            Event::Wrote(Ok(count)) => self.wrote(count),
            Event::Wrote(Err(error)) => self.hear_last_words(&error).await,
            Event::Stalled => {
                let text = format!("no progress within {} ms", self.idle.as_millis());
                self.broken(Code::Timeout, &text);
            }
        }
    }

    fn take_acks(&mut self) {
        while self.failure.is_none() {
            match PipelineAck::decode(&mut self.acks) {
                Ok(Some(ack)) => {
                    if let Err(failure) = self.window.acked(&ack) {
                        let text = format!("{}: a DataNode {}", self.name, failure.what);
                        let error = Error::new(Code::Unavailable, text);
                        let node = failure.node.unwrap_or(0);
                        self.failure = Some(PipelineFailure { node, error });
                    }
                }
                Ok(None) => return,
                Err(error) => self.failure = Some(PipelineFailure { node: 0, error }),
            }
        }
    }

    fn wrote(&mut self, mut count: usize) {
        let packet = self.outgoing.as_mut().expect("something was going out");
        let of_head = count.min(packet.head.len());
        packet.head.advance(of_head);
        count -= of_head;
        packet.data.advance(count);
        if packet.head.is_empty() && packet.data.is_empty() {
            self.outgoing = None;
            self.last_sent = self.last_progress;
        }
    }

    /// The connection takes nothing any more; an ack that says why may still be on its way.
    async fn hear_last_words(&mut self, error: &std::io::Error) {
        let deadline = Instant::now() + LAST_WORDS;
        while self.failure.is_none() {
            let read = self.stream.read_buf(&mut self.acks);
            match tokio::time::timeout_at(deadline, read).await {
                Ok(Ok(count)) if count > 0 => self.take_acks(),
                _ => self.broken(Code::Unavailable, &error.to_string()),
            }
        }
    }

    fn broken(&mut self, code: Code, what: &str) {
        let text = format!("{}: the first DataNode of the pipeline: {what}", self.name);
        self.failure = Some(PipelineFailure { node: 0, error: Error::new(code, text) });
    }
}

enum Event {
    Read(std::io::Result<usize>),
    Wrote(std::io::Result<usize>),
    Stalled,
}

async fn write_some(
    stream: &mut WriteHalf<'_>,
    packet: Option<&SealedPacket>,
) -> std::io::Result<usize> {
    let Some(packet) = packet else { return Ok(0) };
    let slices = [IoSlice::new(&packet.head), IoSlice::new(&packet.data)];
    match stream.write_vectored(&slices).await? {
        0 => Err(std::io::ErrorKind::WriteZero.into()),
        count => Ok(count),
    }
}

/// Sends a heartbeat whenever nothing was sent for `every`, until the writer is gone.
async fn keep_alive(inner: std::sync::Weak<Mutex<Inner>>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(inner) = inner.upgrade() else { return };
        // A writer that holds the lock is sending or waiting for acks: the pipeline is not idle.
        let Ok(mut inner) = inner.try_lock() else { continue };
        if inner.failure.is_some() {
            return;
        }
        if inner.outgoing.is_none() && inner.last_sent.elapsed() >= every {
            inner.outgoing = Some(SealedPacket::heartbeat());
            // What fails here is remembered, and told to the writer's next call.
            if inner.run(|inner| inner.outgoing.is_none()).await.is_err() {
                return;
            }
        }
    }
}

fn set_up_request(spec: &PipelineSpec) -> Request {
    Request::WriteBlock(Box::new(OpWriteBlockProto {
        header: op::client_header(&spec.pool_id, &spec.block, &spec.client),
        targets: spec.nodes[1..].iter().map(datanode_info).collect(),
        source: None,
        stage: spec.stage as i32,
        pipeline_size: u32::try_from(spec.nodes.len()).expect("a pipeline is short"),
        min_bytes_rcvd: spec.min_bytes,
        max_bytes_rcvd: spec.max_bytes,
        latest_generation_stamp: spec.new_stamp,
        requested_checksum: spec.checksum.to_proto(),
        ..Default::default()
    }))
}

/// The DataNode that a refused set-up names, or the first.
fn bad_link(reply: &BlockOpResponseProto, nodes: &[DatanodeAddress]) -> usize {
    let link = reply.first_bad_link.as_deref().unwrap_or("");
    nodes.iter().position(|node| format!("{}:{}", node.host, node.data_port) == link).unwrap_or(0)
}

#[cfg(test)]
mod tests;
