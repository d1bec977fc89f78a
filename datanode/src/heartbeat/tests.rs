//! The stream against a small NameNode that records what comes up and sends what a test tells it to.

use std::net::SocketAddr;
use std::sync::Mutex;

use super::*;
use ::transfer::Checksum;
use proto::granary::datanodes_server::{Datanodes, DatanodesServer};
use proto::granary::{
    Block, CommitBlockSynchronizationReply, CommitBlockSynchronizationRequest, ReconstructUnits,
    RecoverBlock, ReplicaChange, ReplicaState, ReportChunk, TransferBlock, UnitLocation,
};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::server::{Handle, start};
use crate::store::Purpose;
use crate::testing::{config, pattern, read_block, wait_until, write, write_block};

#[derive(Default)]
struct Seen {
    registers: Vec<DatanodeRegister>,
    heartbeats: usize,
    changes: Vec<ReplicaChange>,
    chunks: Vec<ReportChunk>,
    outcomes: Vec<CommitBlockSynchronizationRequest>,
    streams: Vec<tokio::task::AbortHandle>,
    down: Vec<mpsc::Sender<std::result::Result<DatanodeDown, Status>>>,
}

#[derive(Clone)]
struct NameNode {
    cluster: &'static str,
    seen: Arc<Mutex<Seen>>,
}

#[tonic::async_trait]
impl Datanodes for NameNode {
    type AttachStream = ReceiverStream<std::result::Result<DatanodeDown, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<DatanodeUp>>,
    ) -> std::result::Result<Response<Self::AttachStream>, Status> {
        let (down, stream) = mpsc::channel(16);
        let this = self.clone();
        let stream_task = tokio::spawn(async move {
            let mut up = request.into_inner();
            while let Ok(Some(message)) = up.message().await {
                this.take(message.message.unwrap(), &down).await;
            }
        });
        self.seen.lock().unwrap().streams.push(stream_task.abort_handle());
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn commit_block_synchronization(
        &self,
        request: Request<CommitBlockSynchronizationRequest>,
    ) -> std::result::Result<Response<CommitBlockSynchronizationReply>, Status> {
        self.seen.lock().unwrap().outcomes.push(request.into_inner());
        Ok(Response::new(CommitBlockSynchronizationReply {}))
    }
}

impl NameNode {
    fn new(cluster: &'static str) -> Self {
        Self { cluster, seen: Arc::default() }
    }

    /// Serves until the task is aborted.
    async fn serve(&self, addr: &str) -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = tokio::net::TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(DatanodesServer::new(self.clone()))
            .serve_with_incoming(TcpIncoming::from(listener));
        (addr, tokio::spawn(async move { server.await.unwrap() }))
    }

    async fn take(
        &self,
        message: datanode_up::Message,
        down: &mpsc::Sender<std::result::Result<DatanodeDown, Status>>,
    ) {
        match message {
            datanode_up::Message::Register(register) => {
                if !register.cluster_id.is_empty() && register.cluster_id != self.cluster {
                    let error = Error::new(Code::Incompatible, "another cluster");
                    down.send(Err(error.into())).await.unwrap();
                    return;
                }
                let registered = DatanodeRegistered {
                    cluster_id: self.cluster.into(),
                    pool_id: "BP-1".into(),
                    epoch: 1,
                    heartbeat_interval_ms: 20,
                    hadoop_rpc_addr: "127.0.0.1:8020".into(),
                };
                let message = Some(datanode_down::Message::Registered(registered));
                down.send(Ok(DatanodeDown { message })).await.unwrap();
                let mut seen = self.seen.lock().unwrap();
                seen.registers.push(register);
                seen.down.push(down.clone());
            }
            datanode_up::Message::Heartbeat(_) => self.seen.lock().unwrap().heartbeats += 1,
            datanode_up::Message::Changes(changes) => {
                self.seen.lock().unwrap().changes.extend(changes.changes);
            }
            datanode_up::Message::Report(chunk) => self.seen.lock().unwrap().chunks.push(chunk),
        }
    }

    async fn command(&self, node: usize, commands: DatanodeCommands) {
        let down = self.seen.lock().unwrap().down[node].clone();
        let message = Some(datanode_down::Message::Commands(commands));
        down.send(Ok(DatanodeDown { message })).await.unwrap();
    }

    fn was_told(&self, id: u64, state: ReplicaState) -> bool {
        let seen = self.seen.lock().unwrap();
        seen.changes.iter().any(|c| c.block.unwrap().id == id && c.state() == state)
    }
}

async fn attached(namenode: SocketAddr, folder: &tempfile::TempDir) -> Handle {
    let config = Config {
        namenode: namenode.to_string(),
        reconnect_backoff_ms: 10,
        reconnect_backoff_max_ms: 50,
        ..config(folder.path())
    };
    let handle = start(config).await.unwrap();
    wait_until("it is registered", || handle.is_registered()).await;
    handle
}

fn address(handle: &Handle) -> DatanodeAddress {
    DatanodeAddress {
        uuid: handle.uuid().to_owned(),
        host: "127.0.0.1".into(),
        data_port: handle.data_addr().port().into(),
        control_port: handle.control_addr().port().into(),
        ..Default::default()
    }
}

fn block(id: u64, length: u64) -> Block {
    Block { id, generation_stamp: 1001, length }
}

#[tokio::test]
async fn it_registers_reports_beats_and_tells_changes_at_once() {
    let namenode = NameNode::new("c");
    let (addr, _serving) = namenode.serve("127.0.0.1:0").await;
    let folder = tempfile::tempdir().unwrap();
    let node = attached(addr, &folder).await;
    {
        let seen = namenode.seen.lock().unwrap();
        assert_eq!(seen.registers[0].cluster_id, "", "it takes what Registered tells");
        assert_eq!(seen.registers[0].address.as_ref().unwrap().uuid, node.uuid());
    }
    wait_until("a report came", || !namenode.seen.lock().unwrap().chunks.is_empty()).await;
    write_block(node.store(), 7, 1001, b"abc").await.unwrap();
    wait_until("it was told", || namenode.was_told(7, ReplicaState::Finalized)).await;
    wait_until("it beats", || namenode.seen.lock().unwrap().heartbeats > 3).await;
    let invalidate = vec![Block { id: 7, generation_stamp: 1001, length: 0 }];
    namenode.command(0, DatanodeCommands { invalidate, ..Default::default() }).await;
    wait_until("it is deleted", || namenode.was_told(7, ReplicaState::Deleted)).await;
    assert_eq!(node.store().replica_count(), 0);
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_restart_of_the_namenode_is_ridden_out_and_followed_by_a_full_report() {
    let namenode = NameNode::new("c");
    let (addr, serving) = namenode.serve("127.0.0.1:0").await;
    let folder = tempfile::tempdir().unwrap();
    let node = attached(addr, &folder).await;
    serving.abort();
    {
        let mut seen = namenode.seen.lock().unwrap();
        seen.streams.drain(..).for_each(|stream| stream.abort());
        seen.down.clear();
    }
    wait_until("the stream broke", || !node.is_registered()).await;
    for id in [9, 5, 300] {
        write_block(node.store(), id, 1001, &pattern(id, 100)).await.unwrap();
    }
    let again = NameNode::new("c");
    let (_, _serving) = again.serve(&addr.to_string()).await;
    wait_until("it reports", || !again.seen.lock().unwrap().chunks.is_empty()).await;
    let chunk = again.seen.lock().unwrap().chunks[0].clone();
    assert_eq!(chunk.id_deltas, [5, 4, 291]);
    assert_eq!(chunk.lengths, [100, 100, 100]);
    assert!(chunk.last && chunk.states.is_empty());
    assert_eq!(again.seen.lock().unwrap().registers[0].cluster_id, "c");
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_namenode_of_another_cluster_is_a_fatal_error_that_says_so() {
    let first = NameNode::new("c");
    let (addr, _serving) = first.serve("127.0.0.1:0").await;
    let folder = tempfile::tempdir().unwrap();
    let node = attached(addr, &folder).await;
    node.shutdown().await.unwrap();
    let other = NameNode::new("other");
    let (addr, _serving) = other.serve("127.0.0.1:0").await;
    let config = Config { namenode: addr.to_string(), ..config(folder.path()) };
    let node = start(config).await.unwrap();
    let error = node.fatal().await;
    assert_eq!((error.code, error.message.contains("cluster")), (Code::Incompatible, true));
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_copied_and_recovered_at_the_namenodes_command() {
    let namenode = NameNode::new("c");
    let (addr, _serving) = namenode.serve("127.0.0.1:0").await;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let first = attached(addr, &folders[0]).await;
    let second = attached(addr, &folders[1]).await;
    let data = pattern(1, 2_500_000);
    write_block(first.store(), 7, 1001, &data).await.unwrap();
    let transfer =
        vec![TransferBlock { block: Some(block(7, 0)), targets: vec![address(&second)] }];
    namenode.command(0, DatanodeCommands { transfer, ..Default::default() }).await;
    wait_until("it was copied", || second.store().reported(BlockId(7)).is_some()).await;
    assert_eq!(read_block(second.store(), 7, 1001).unwrap(), data);

    // Two replicas of a block whose writer is gone, of different lengths.
    for (node, length) in [(&first, 900), (&second, 700)] {
        let purpose =
            Purpose::Create { stamp: GenerationStamp(1001), bytes: 0, checksum: Checksum::NATIVE };
        let session = node.store().begin_write(BlockId(8), purpose).await.unwrap();
        write(&session, 0, &data[..length], false).await.unwrap();
    }
    let recover = vec![RecoverBlock {
        block: Some(block(8, 0)),
        new_generation_stamp: 1002,
        replicas: vec![address(&first), address(&second)],
        new_length: None,
        ..Default::default()
    }];
    namenode.command(0, DatanodeCommands { recover, ..Default::default() }).await;
    wait_until("it is told", || !namenode.seen.lock().unwrap().outcomes.is_empty()).await;
    let outcome = namenode.seen.lock().unwrap().outcomes[0].clone();
    assert_eq!((outcome.new_length, outcome.new_generation_stamp), (700, 1002));
    assert_eq!((outcome.datanodes.len(), outcome.delete_block), (2, false));
    for node in [first, second] {
        assert_eq!(read_block(node.store(), 8, 1002).unwrap(), &data[..700]);
        node.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_group_is_recovered_with_its_good_units_and_lost_ones_come_back_at_the_namenodes_command()
 {
    use crate::reconstruct::tests::units_of;
    const GROUP: u64 = 1 << 63 | 0x70;
    let policy = proto::erasure::Policy::by_name("RS-3-2-1024k").unwrap();
    let namenode = NameNode::new("c");
    let (addr, _serving) = namenode.serve("127.0.0.1:0").await;
    let data = pattern(1, (3 << 20) + 100);
    let units = units_of(policy, &data);
    let mut nodes = Vec::new();
    for (unit, bytes) in units.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let node = attached(addr, &folder).await;
        let id = GROUP | unit as u64;
        match unit {
            // Its writer had lost it before it went on under a new stamp.
            1 => write_block(node.store(), id, 1000, bytes).await.unwrap(),
            // Its last bytes are missing.
            2 => {
                let stamp = GenerationStamp(1001);
                let checksum = Checksum::NATIVE;
                let purpose = Purpose::Create { stamp, bytes: 0, checksum };
                let session = node.store().begin_write(BlockId(id), purpose).await.unwrap();
                write(&session, 0, &bytes[..5_000], false).await.unwrap();
            }
            _ => write_block(node.store(), id, 1001, bytes).await.unwrap(),
        }
        nodes.push((node, folder));
    }
    let group = block(GROUP, data.len() as u64);
    let recover = vec![RecoverBlock {
        block: Some(group),
        new_generation_stamp: 1002,
        replicas: nodes.iter().map(|(node, _)| address(node)).collect(),
        erasure_policy: policy.id.into(),
        units: vec![0, 1, 2, 3, 4].into(),
        ..Default::default()
    }];
    namenode.command(3, DatanodeCommands { recover, ..Default::default() }).await;
    wait_until("it is told", || !namenode.seen.lock().unwrap().outcomes.is_empty()).await;
    let outcome = namenode.seen.lock().unwrap().outcomes[0].clone();
    assert_eq!((outcome.new_length, outcome.new_generation_stamp), (group.length, 1002));
    assert_eq!(&outcome.units[..], [0, 3, 4]);
    let uuid = |unit: usize| nodes[unit].0.uuid().to_owned();
    assert_eq!(outcome.datanodes, [uuid(0), uuid(3), uuid(4)]);
    assert!(outcome.close_file && !outcome.delete_block);

    let at =
        |unit: usize| UnitLocation { unit: unit as u32, datanode: Some(address(&nodes[unit].0)) };
    let reconstruct = vec![ReconstructUnits {
        group: Some(Block { generation_stamp: 1002, ..group }),
        erasure_policy: policy.id.into(),
        sources: [0, 3, 4].map(at).to_vec(),
        targets: [1, 2].map(at).to_vec(),
    }];
    namenode.command(1, DatanodeCommands { reconstruct, ..Default::default() }).await;
    // The stale unit makes room, and so does the one that the recovery has passed over.
    let told = |unit: u64| {
        let found = nodes[unit as usize].0.store().reported(BlockId(GROUP | unit));
        found.is_some_and(|(block, _)| block.generation_stamp == 1002)
    };
    wait_until("both units came back", || told(1) && told(2)).await;
    for (unit, bytes) in units.iter().enumerate() {
        assert!(read_block(nodes[unit].0.store(), GROUP | unit as u64, 1002).unwrap() == *bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_wait_when_the_datanode_registers_again_are_not_obeyed() {
    let namenode = NameNode::new("c");
    let (addr, _serving) = namenode.serve("127.0.0.1:0").await;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let settings = Config {
        namenode: addr.to_string(),
        reconnect_backoff_ms: 10,
        reconnect_backoff_max_ms: 50,
        command_transfers_max: 1,
        ..config(folders[0].path())
    };
    let node = start(settings).await.unwrap();
    wait_until("it is registered", || node.is_registered()).await;
    let other = attached(addr, &folders[1]).await;
    for id in [7, 8, 9] {
        write_block(node.store(), id, 1001, &pattern(id, 1_000)).await.unwrap();
    }
    // One transfer hangs, one waits for it, and a deletion shows that both have arrived.
    let hanging = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = hanging.local_addr().unwrap().port().into();
    let nobody = DatanodeAddress { data_port: port, ..address(&other) };
    let transfer = |id, to| vec![TransferBlock { block: Some(block(id, 0)), targets: vec![to] }];
    let first = transfer(7, nobody);
    namenode.command(0, DatanodeCommands { transfer: first, ..Default::default() }).await;
    let (held, _) = hanging.accept().await.unwrap();
    let second = transfer(8, address(&other));
    let invalidate = vec![block(9, 0)];
    namenode.command(0, DatanodeCommands { transfer: second, ..Default::default() }).await;
    namenode.command(0, DatanodeCommands { invalidate, ..Default::default() }).await;
    wait_until("9 is deleted", || node.store().reported(BlockId(9)).is_none()).await;
    {
        let mut seen = namenode.seen.lock().unwrap();
        seen.streams[0].abort();
        seen.down[0] = mpsc::channel(1).0;
    }
    wait_until("it registers again", || namenode.seen.lock().unwrap().registers.len() == 3).await;
    wait_until("it is registered", || node.is_registered()).await;
    drop((held, hanging));
    let third = transfer(7, address(&other));
    namenode.command(2, DatanodeCommands { transfer: third, ..Default::default() }).await;
    wait_until("the new command is obeyed", || other.store().reported(BlockId(7)).is_some()).await;
    assert!(other.store().reported(BlockId(8)).is_none(), "the old one is not");
    node.shutdown().await.unwrap();
    other.shutdown().await.unwrap();
}

#[tokio::test]
async fn deletions_stop_when_the_datanode_registers_again() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(config(folder.path())).await.unwrap();
    for id in [7, 8] {
        write_block(node.store(), id, 1001, &pattern(id, 1_000)).await.unwrap();
    }
    let (store, server) = (node.store().clone(), node.server().clone());
    let attachment = Attachment::new(&config(folder.path()), store, server, address(&node));
    attachment.registrations.store(2, Ordering::SeqCst);
    attachment.delete_all(vec![block(7, 0), block(8, 0)], 1).await;
    assert_eq!(node.store().replica_count(), 2);
    attachment.delete_all(vec![block(7, 0), block(8, 0)], 2).await;
    assert_eq!(node.store().replica_count(), 0);
    node.shutdown().await.unwrap();
}
