//! The service Datanodes: one stream per DataNode, and the outcomes of block recoveries.
//!
//! A stream has two tasks: one takes what comes up, one sends what waits in the cluster for this node. The sender is
//! woken, never polled; a DataNode that does not read stops its own sender at a bounded channel and nobody else.
//! A newer registration of the same uuid, or its death, ends the stream with an error that says so.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::granary::datanodes_server::Datanodes;
use proto::granary::*;
use proto::{BlockId, Code, Error, GenerationStamp, Result};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::access::Method;
use super::node::{Node, host_of, look_up};
use super::stop::Stop;
use crate::cluster::datanodes::NodeIndex;
use crate::cluster::replicas::Reported;
use crate::cluster::report::decode_chunk;

/// Messages that may wait for one DataNode to read.
const DOWN_QUEUE_MAX: usize = 16;
/// Replicas of a full report that are taken under one lock.
const REPORT_SLICE: usize = 4_096;
/// Changes in one message.
const CHANGES_MAX: usize = 1_000_000;
/// How long a DataNode may take to register.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);

type Down = std::result::Result<DatanodeDown, Status>;

/// The service.
pub struct DatanodesService {
    /// What it serves.
    pub node: Arc<Node>,
    /// Ends all streams.
    pub stop: Stop,
}

#[tonic::async_trait]
impl Datanodes for DatanodesService {
    type AttachStream = ReceiverStream<Down>;

    async fn attach(
        &self,
        request: Request<Streaming<DatanodeUp>>,
    ) -> std::result::Result<Response<Self::AttachStream>, Status> {
        let peer = request.remote_addr().map(|addr| addr.ip());
        let (down, stream) = mpsc::channel(DOWN_QUEUE_MAX);
        let attached = Attached { node: Arc::clone(&self.node), down, stop: self.stop.clone() };
        tokio::spawn(attached.run(request.into_inner(), peer));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn commit_block_synchronization(
        &self,
        request: Request<CommitBlockSynchronizationRequest>,
    ) -> std::result::Result<Response<CommitBlockSynchronizationReply>, Status> {
        let since = Instant::now();
        let peer = request.remote_addr().map(|addr| addr.ip());
        let result = self.node.commit_block_synchronization(request.into_inner(), peer).await;
        self.node.counted(Method::CommitBlockSynchronization, since, result)
    }
}

/// One stream of a DataNode.
struct Attached {
    node: Arc<Node>,
    down: mpsc::Sender<Down>,
    stop: Stop,
}

/// The registration that a stream carries.
#[derive(Clone, Copy)]
pub struct Epoch {
    pub(crate) index: NodeIndex,
    pub(crate) epoch: u64,
}

impl Attached {
    async fn run(mut self, mut up: Streaming<DatanodeUp>, peer: Option<IpAddr>) {
        let since = Instant::now();
        let registered = self.register(&mut up, peer).await;
        let failed = registered.is_err();
        let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.node.volatile.metrics.called(Method::DatanodesAttach, failed, micros);
        let result = match registered {
            Ok((at, waker)) => {
                let result = self.attached(&mut up, at, waker).await;
                self.node.volatile.cluster(|cluster, _| cluster.detach(at.index, at.epoch));
                result
            }
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::info!(peer = %host_of(peer), %error, "a DataNode's stream ends");
            // Nobody may read any more: then there is nobody to tell.
            if self.down.try_send(Err(error.into())).is_err() {
                tracing::debug!("the DataNode is gone");
            }
        }
    }

    async fn register(
        &mut self,
        up: &mut Streaming<DatanodeUp>,
        peer: Option<IpAddr>,
    ) -> Result<(Epoch, Arc<Notify>)> {
        let first = tokio::time::timeout(REGISTER_TIMEOUT, up.message())
            .await
            .map_err(|_| Error::new(Code::Timeout, "a DataNode attached and did not register"))??;
        let Some(datanode_up::Message::Register(mut message)) = first.and_then(|up| up.message)
        else {
            return Err(Error::new(
                Code::InvalidArgument,
                "the first message of a DataNode must be Register",
            ));
        };
        let ours = &self.node;
        if !message.cluster_id.is_empty() && message.cluster_id != ours.cluster_id {
            return Err(Error::new(
                Code::Incompatible,
                format!(
                    "the DataNode's volumes belong to cluster {}, this NameNode to {}",
                    message.cluster_id.escape_debug(),
                    ours.cluster_id
                ),
            ));
        }
        if let Some(address) = &mut message.address
            && matches!(address.host.as_str(), "" | "0.0.0.0" | "::")
        {
            address.host = host_of(peer);
        }
        let name = message.address.as_ref().map(|a| (a.uuid.clone(), a.host.clone(), a.data_port));
        let registration =
            self.node.volatile.cluster(|cluster, now_ms| cluster.register(now_ms, message))?;
        let waker = self.node.volatile.new_waker(registration.index);
        tracing::info!(
            datanode = ?name,
            epoch = registration.epoch,
            moved = registration.moved,
            "a DataNode registered"
        );
        let hello = datanode_down::Message::Registered(DatanodeRegistered {
            cluster_id: ours.cluster_id.clone(),
            pool_id: ours.pool_id.clone(),
            epoch: registration.epoch,
            heartbeat_interval_ms: self.node.config.heartbeat_interval_ms,
            hadoop_rpc_addr: self.node.hadoop_rpc_addr.to_string(),
        });
        let at = Epoch { index: registration.index, epoch: registration.epoch };
        if self.down.send(Ok(DatanodeDown { message: Some(hello) })).await.is_err() {
            self.node.volatile.cluster(|cluster, _| cluster.detach(at.index, at.epoch));
            return Err(Error::new(Code::Unavailable, "the DataNode left while it registered"));
        }
        Ok((at, waker))
    }

    /// Takes what comes up and sends what waits, until either ends.
    async fn attached(
        &mut self,
        up: &mut Streaming<DatanodeUp>,
        at: Epoch,
        waker: Arc<Notify>,
    ) -> Result<()> {
        let sender = send(Arc::clone(&self.node), self.down.clone(), at, waker);
        let mut sender = tokio::spawn(sender);
        let result = loop {
            tokio::select! {
                ended = &mut sender => {
                    return ended.unwrap_or_else(|panic| {
                        Err(Error::new(Code::Internal, format!("the sender ended: {panic}")))
                    });
                }
                () = self.stop.wait() => {
                    break Err(Error::new(Code::Unavailable, "the NameNode is stopping"));
                }
                message = up.message() => match message {
                    Ok(Some(message)) => {
                        if let Err(error) = take(&self.node, at, message).await {
                            break Err(error);
                        }
                    }
                    Ok(None) => break Ok(()),
                    Err(status) => break Err(Error::from(status)),
                },
            }
        };
        sender.abort();
        result
    }
}

/// Sends what waits for a node, until its epoch is over or nobody reads.
async fn send(
    node: Arc<Node>,
    down: mpsc::Sender<Down>,
    at: Epoch,
    waker: Arc<Notify>,
) -> Result<()> {
    loop {
        let taken =
            node.volatile.cluster(|cluster, _| cluster.take_commands(at.index, at.epoch))?;
        let Some(commands) = taken else {
            tokio::select! {
                () = waker.notified() => {}
                () = down.closed() => return Ok(()),
            }
            continue;
        };
        let message = Some(datanode_down::Message::Commands(commands));
        if down.send(Ok(DatanodeDown { message })).await.is_err() {
            return Ok(());
        }
    }
}

/// Takes one message of a node.
pub(crate) async fn take(node: &Node, at: Epoch, message: DatanodeUp) -> Result<()> {
    match message.message {
        Some(datanode_up::Message::Heartbeat(heartbeat)) => {
            node.volatile.cluster(|c, now_ms| c.heartbeat(now_ms, at.index, at.epoch, heartbeat))
        }
        Some(datanode_up::Message::Changes(changes)) => {
            let changes = decode_changes(&changes)?;
            for slice in changes.chunks(REPORT_SLICE) {
                node.log.read(|state| {
                    node.volatile.cluster(|cluster, now_ms| {
                        let truth = |id| look_up(state, id);
                        cluster.changes(now_ms, at.index, at.epoch, slice, &truth)
                    })
                })?;
            }
            Ok(())
        }
        Some(datanode_up::Message::Report(chunk)) => take_chunk(node, at, &chunk).await,
        Some(datanode_up::Message::Register(_)) => {
            Err(Error::new(Code::InvalidArgument, "a stream registers once"))
        }
        // A newer DataNode may tell what this NameNode does not know.
        None => Ok(()),
    }
}

async fn take_chunk(node: &Node, at: Epoch, chunk: &ReportChunk) -> Result<()> {
    let replicas = decode_chunk(chunk)?;
    let accepted = node.volatile.cluster(|cluster, now_ms| {
        cluster.report_chunk(now_ms, at.index, at.epoch, chunk.report_id, chunk.index)
    })?;
    if !accepted {
        return Ok(());
    }
    let mut slices = replicas.chunks(REPORT_SLICE).peekable();
    loop {
        let slice = slices.next().unwrap_or_default();
        let through = slices.peek().is_none();
        node.log.read(|state| {
            node.volatile.cluster(|cluster, _| {
                let truth = |id| look_up(state, id);
                cluster.report_part(at.index, at.epoch, slice, through && chunk.last, &truth)
            })
        })?;
        if through {
            return Ok(());
        }
        // Others get the locks between two slices.
        tokio::task::yield_now().await;
    }
}

fn decode_changes(message: &ReplicaChanges) -> Result<Vec<Reported>> {
    let count = message.changes.len();
    if count > CHANGES_MAX {
        let text = format!("{count} changes in one message, at most {CHANGES_MAX}");
        return Err(Error::new(Code::InvalidArgument, text));
    }
    let decode = |change: &ReplicaChange| match (change.block, change.state()) {
        (None, _) => Err(Error::new(Code::InvalidArgument, "a replica's change names no block")),
        (_, ReplicaState::Unspecified) => {
            let text = format!("a replica's change has state {}", change.state);
            Err(Error::new(Code::InvalidArgument, text))
        }
        (Some(block), state) => Ok(Reported {
            id: BlockId(block.id),
            stamp: GenerationStamp(block.generation_stamp),
            length: block.length,
            state,
        }),
    };
    message.changes.iter().map(decode).collect()
}
