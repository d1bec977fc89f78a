//! What the tests share: a NameNode, callers, and the far ends of the streams of DataNodes and kvserve nodes.

use std::time::Duration;

use namenode::{Config, Handle};
use proto::granary::admin_client::AdminClient;
use proto::granary::catalogue_client::CatalogueClient;
use proto::granary::datanodes_client::DatanodesClient;
use proto::granary::namespace_client::NamespaceClient;
use proto::granary::*;
use proto::{Code, Error};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

pub const WAIT: Duration = Duration::from_secs(20);
pub const MIB: u64 = 1 << 20;

/// A NameNode, its folder, and one connection to it.
pub struct World {
    pub handle: Option<Handle>,
    _dir: tempfile::TempDir,
    pub config: Config,
    pub fs: NamespaceClient<Channel>,
    pub channel: Channel,
    call: u64,
}

pub fn config(dir: &tempfile::TempDir) -> Config {
    Config {
        dir: dir.path().join("nn"),
        grpc_addr: "127.0.0.1:0".into(),
        http_addr: "127.0.0.1:0".into(),
        hadoop_rpc_addr: "127.0.0.1:0".into(),
        superuser: "boss".into(),
        block_bytes: MIB,
        replication: 1,
        ..Config::default()
    }
}

pub fn caller(user: &str) -> Option<Caller> {
    Some(Caller { user: user.into(), ..Default::default() })
}

pub fn boss() -> Option<Caller> {
    caller("boss")
}

/// The error that travelled in a status.
pub fn code<T: std::fmt::Debug>(result: Result<T, tonic::Status>) -> Code {
    Error::from(result.expect_err("an error")).code
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir);
        change(&mut config);
        let handle = namenode::start(config.clone()).await.unwrap();
        let channel = connect(&handle).await;
        let fs = NamespaceClient::new(channel.clone());
        Self { handle: Some(handle), _dir: dir, config, fs, channel, call: 0 }
    }

    /// Stops the NameNode and starts it again on the same folder.
    pub async fn restart(&mut self) {
        self.handle.take().unwrap().shutdown().await.unwrap();
        let handle = namenode::start(self.config.clone()).await.unwrap();
        self.channel = connect(&handle).await;
        self.fs = NamespaceClient::new(self.channel.clone());
        self.handle = Some(handle);
    }

    pub fn handle(&self) -> &Handle {
        self.handle.as_ref().unwrap()
    }

    pub fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    pub fn catalogue(&self) -> CatalogueClient<Channel> {
        CatalogueClient::new(self.channel.clone())
    }

    pub fn datanodes(&self) -> DatanodesClient<Channel> {
        DatanodesClient::new(self.channel.clone())
    }

    /// The boss with the id of a new call.
    pub fn new_call(&mut self) -> Option<Caller> {
        self.call += 1;
        Some(Caller { user: "boss".into(), client_id: vec![7; 16].into(), call_id: self.call })
    }

    pub async fn mkdir(&mut self, path: &str) -> bool {
        let message = MkdirsRequest {
            caller: boss(),
            path: path.into(),
            mode: 0o755,
            create_parents: true,
            ..Default::default()
        };
        self.fs.mkdirs(message).await.unwrap().into_inner().created
    }

    pub async fn create(&mut self, path: &str) -> FileStatus {
        let message = CreateRequest {
            caller: boss(),
            path: path.into(),
            holder: "w".into(),
            mode: 0o644,
            create_parents: true,
            ..Default::default()
        };
        self.fs.create(message).await.unwrap().into_inner().status.unwrap()
    }

    pub async fn add_block(&mut self, path: &str, previous: Option<Block>) -> LocatedBlock {
        let message = add_block(path, previous);
        self.fs.add_block(message).await.unwrap().into_inner()
    }

    pub async fn complete(&mut self, path: &str, last: Option<Block>) -> bool {
        let message = complete(path, last);
        self.fs.complete(message).await.unwrap().into_inner().completed
    }

    /// A closed file of one block that the DataNode holds.
    pub async fn write(&mut self, at: &Datanode, path: &str, length: u64) -> Block {
        self.create(path).await;
        let located = self.add_block(path, None).await;
        let block = Block { length, ..located.block.unwrap() };
        at.report(block, ReplicaState::Finalized).await;
        assert!(self.complete(path, Some(block)).await, "{path} is complete");
        block
    }

    pub async fn stat(&mut self, path: &str) -> Option<FileStatus> {
        let message = PathRequest { caller: boss(), path: path.into() };
        self.fs.get_file_info(message).await.unwrap().into_inner().status
    }

    pub async fn locate(&mut self, path: &str) -> LocatedBlocks {
        let message = GetBlockLocationsRequest {
            caller: boss(),
            path: path.into(),
            offset: 0,
            length: u64::MAX,
        };
        self.fs.get_block_locations(message).await.unwrap().into_inner()
    }

    pub async fn status(&self) -> ClusterStatus {
        self.admin().get_status(GetStatusRequest {}).await.unwrap().into_inner()
    }

    /// Asks for the status until it fits.
    pub async fn until(&self, what: &str, fits: impl Fn(&ClusterStatus) -> bool) -> ClusterStatus {
        let asked = async {
            loop {
                let status = self.status().await;
                if fits(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        match tokio::time::timeout(WAIT, asked).await {
            Ok(status) => status,
            Err(_) => panic!("never came: {what}; {:?}", self.status().await),
        }
    }
}

pub fn add_block(path: &str, previous: Option<Block>) -> AddBlockRequest {
    AddBlockRequest {
        caller: boss(),
        path: path.into(),
        holder: "w".into(),
        previous,
        ..Default::default()
    }
}

pub fn complete(path: &str, last: Option<Block>) -> CompleteRequest {
    CompleteRequest {
        caller: boss(),
        path: path.into(),
        holder: "w".into(),
        last,
        ..Default::default()
    }
}

async fn connect(handle: &Handle) -> Channel {
    let uri = format!("http://{}", handle.grpc_addr());
    Channel::from_shared(uri).unwrap().connect().await.unwrap()
}

/// The DataNode's end of a stream.
pub struct Datanode {
    pub up: mpsc::Sender<DatanodeUp>,
    pub down: Streaming<DatanodeDown>,
    pub registered: DatanodeRegistered,
}

pub fn register(uuid: &str, port: u32) -> DatanodeRegister {
    DatanodeRegister {
        address: Some(DatanodeAddress {
            uuid: uuid.into(),
            host: format!("10.9.9.{port}"),
            data_port: 1000 + port,
            ..Default::default()
        }),
        volumes: vec![volume()],
        ..Default::default()
    }
}

fn volume() -> VolumeStatus {
    VolumeStatus {
        id: "v".into(),
        capacity_bytes: 1000 * MIB,
        remaining_bytes: 900 * MIB,
        used_bytes: 100 * MIB,
        ..Default::default()
    }
}

impl Datanode {
    pub async fn attach(world: &World, uuid: &str, port: u32) -> Self {
        Self::attach_as(world, register(uuid, port)).await.unwrap()
    }

    pub async fn attach_as(
        world: &World,
        message: DatanodeRegister,
    ) -> Result<Self, tonic::Status> {
        let (up, stream) = mpsc::channel(16);
        let message = datanode_up::Message::Register(message);
        up.send(DatanodeUp { message: Some(message) }).await.unwrap();
        let mut down = world.datanodes().attach(ReceiverStream::new(stream)).await?.into_inner();
        match down.message().await?.and_then(|down| down.message) {
            Some(datanode_down::Message::Registered(registered)) => {
                Ok(Self { up, down, registered })
            }
            other => panic!("Registered comes first, not {other:?}"),
        }
    }

    pub async fn send(&self, message: datanode_up::Message) {
        self.up.send(DatanodeUp { message: Some(message) }).await.unwrap();
    }

    pub async fn beat(&self) {
        let beat = DatanodeHeartbeat { volumes: vec![volume()], active_transfers: 0 };
        self.send(datanode_up::Message::Heartbeat(beat)).await;
    }

    pub async fn report(&self, block: Block, state: ReplicaState) {
        let change = ReplicaChange { block: Some(block), state: state as i32, volume: "v".into() };
        let changes = ReplicaChanges { changes: vec![change] };
        self.send(datanode_up::Message::Changes(changes)).await;
    }

    /// A full report of finalized replicas, ordered by id, in one chunk.
    pub async fn report_in_full(&self, blocks: &[Block]) {
        let mut chunk = ReportChunk { report_id: 1, last: true, ..Default::default() };
        let mut before = 0;
        for block in blocks {
            chunk.id_deltas.push(block.id - before);
            chunk.generation_stamps.push(block.generation_stamp);
            chunk.lengths.push(block.length);
            before = block.id;
        }
        self.send(datanode_up::Message::Report(chunk)).await;
    }

    /// The next commands that fit; others are passed over.
    pub async fn commands(
        &mut self,
        what: &str,
        fits: impl Fn(&DatanodeCommands) -> bool,
    ) -> DatanodeCommands {
        let next = async {
            loop {
                let down = self.down.message().await.unwrap().expect("the stream stands");
                if let Some(datanode_down::Message::Commands(commands)) = down.message
                    && fits(&commands)
                {
                    return commands;
                }
            }
        };
        tokio::time::timeout(WAIT, next).await.unwrap_or_else(|_| panic!("never came: {what}"))
    }

    /// How the stream ends.
    pub async fn end(&mut self) -> Code {
        let end = async {
            loop {
                match self.down.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("a stream ends with an error that says why"),
                    Err(status) => return Error::from(status).code,
                }
            }
        };
        tokio::time::timeout(WAIT, end).await.expect("the stream ends")
    }
}

/// The kvserve's end of a stream.
pub struct Kvserve {
    pub up: mpsc::Sender<KvserveUp>,
    pub down: Streaming<KvserveDown>,
}

impl Kvserve {
    pub async fn attach(world: &World, uuid: &str) -> Self {
        let (up, stream) = mpsc::channel(16);
        let address = KvserveAddress { uuid: uuid.into(), redis_port: 6380, ..Default::default() };
        let register = KvserveRegister { address: Some(address), ..Default::default() };
        let message = Some(kvserve_up::Message::Register(register));
        up.send(KvserveUp { message }).await.unwrap();
        let stream = ReceiverStream::new(stream);
        let down = world.catalogue().attach(stream).await.unwrap().into_inner();
        Self { up, down }
    }

    pub async fn say(&self, store: &str, version: u64, state: ServerVersionState, error: &str) {
        let said = ServerVersion {
            store: store.into(),
            version,
            state: state as i32,
            error: error.into(),
            ..Default::default()
        };
        let beat = KvserveHeartbeat { versions: vec![said], ..Default::default() };
        let message = Some(kvserve_up::Message::Heartbeat(beat));
        self.up.send(KvserveUp { message }).await.unwrap();
    }

    /// The next assignment that fits.
    pub async fn assigned(
        &mut self,
        what: &str,
        fits: impl Fn(&KvserveDown) -> bool,
    ) -> KvserveDown {
        let next = async {
            loop {
                let down = self.down.message().await.unwrap().expect("the stream stands");
                if fits(&down) {
                    return down;
                }
            }
        };
        tokio::time::timeout(WAIT, next).await.unwrap_or_else(|_| panic!("never came: {what}"))
    }
}
