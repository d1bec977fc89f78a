//! The stream to the NameNode: register, heartbeats, changes and full reports up; commands down.
//!
//! One task holds the stream. When it breaks, for whatever reason, it is opened again after a pause that doubles up to
//! a bound, for ever: the NameNode's restart is ridden out while clients go on reading and writing. Every stream begins
//! with a full report, so that changes that were under way when the last one broke are not lost. Only a NameNode of
//! another cluster ends it for good: that is told to whoever waits in [`Attachment::fatal`].
//!
//! Commands run in their own tasks, a bounded number of them; what exceeds it is dropped, and the NameNode asks again.
//! A command that still waits when this DataNode registers again is out of date: whoever gave it may be replaced, and the
//! new report may have led to other decisions. It is not begun any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proto::granary::datanodes_client::DatanodesClient;
use proto::granary::{
    Block, DatanodeAddress, DatanodeCommands, DatanodeDown, DatanodeHeartbeat, DatanodeRegister,
    DatanodeRegistered, DatanodeUp, ReplicaChanges, TransferBlock, datanode_down, datanode_up,
};
use proto::{BlockId, Code, Error, GenerationStamp, Result, limits};
use tokio::sync::{RwLock, Semaphore, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::changes::Due;
use crate::config::Config;
use crate::data_server::{DataServer, transfer};
use crate::reconstruct::{self, Reconstructor};
use crate::recovery;
use crate::report::Report;
use crate::store::Store;

/// Messages that may wait for the NameNode to read.
const UP_QUEUE_MAX: usize = 16;
/// Changes in one message.
const CHANGES_MAX: usize = 1_000;
/// Commands that run or wait.
const COMMANDS_MAX: usize = 10_000;
/// A heartbeat interval that the NameNode may ask for, in milliseconds.
const HEARTBEAT_MS: std::ops::RangeInclusive<u64> = 10..=60_000;
/// The name under which this DataNode writes to others.
const TRANSFER_CLIENT: &str = "granary-datanode";

/// The attachment to a NameNode.
pub struct Attachment {
    store: Arc<Store>,
    server: Arc<DataServer>,
    address: DatanodeAddress,
    settings: Settings,
    /// Commands that run or wait.
    commands: Arc<Semaphore>,
    transfers: Arc<Semaphore>,
    reconstructor: Arc<Reconstructor>,
    /// Registrations so far: commands of an earlier one are out of date.
    registrations: AtomicU64,
    /// Held to read while a replica is deleted.
    deletions: RwLock<()>,
    registered: watch::Sender<bool>,
    /// What the NameNode said it is known by to clients of WebHDFS; empty before the first registration.
    hadoop_rpc_addr: watch::Sender<String>,
    fatal: watch::Sender<Option<Error>>,
}

/// What it takes from the configuration.
#[derive(Clone, Debug)]
struct Settings {
    namenode: String,
    connect: Duration,
    backoff: Duration,
    backoff_max: Duration,
}

impl Attachment {
    /// An attachment that is not made yet.
    pub fn new(
        config: &Config,
        store: Arc<Store>,
        server: Arc<DataServer>,
        address: DatanodeAddress,
    ) -> Arc<Self> {
        let transfers = usize::try_from(config.command_transfers_max).unwrap_or(1);
        let reconstruction = reconstruct::Settings::from(config);
        Arc::new(Self {
            reconstructor: Reconstructor::new(reconstruction, store.clone(), server.clone()),
            store,
            server,
            address,
            settings: Settings {
                namenode: config.namenode.clone(),
                connect: Duration::from_millis(config.connect_timeout_ms),
                backoff: Duration::from_millis(config.reconnect_backoff_ms),
                backoff_max: Duration::from_millis(config.reconnect_backoff_max_ms),
            },
            commands: Arc::new(Semaphore::new(COMMANDS_MAX)),
            transfers: Arc::new(Semaphore::new(transfers.min(Semaphore::MAX_PERMITS))),
            registrations: AtomicU64::new(0),
            deletions: RwLock::new(()),
            registered: watch::Sender::new(false),
            hadoop_rpc_addr: watch::Sender::default(),
            fatal: watch::Sender::new(None),
        })
    }

    /// What computes lost units.
    pub fn reconstructor(&self) -> &Reconstructor {
        &self.reconstructor
    }

    /// Whether the NameNode has taken this DataNode in.
    pub fn is_registered(&self) -> bool {
        *self.registered.borrow()
    }

    /// What the NameNode is known by to clients of WebHDFS, as it said itself; empty before the first registration.
    pub fn hadoop_rpc_addr(&self) -> watch::Receiver<String> {
        self.hadoop_rpc_addr.subscribe()
    }

    /// Ends the attachment for good: this DataNode can't go on.
    pub fn give_up(&self, error: Error) {
        self.fatal.send_replace(Some(error));
    }

    /// Becomes the error that ended the attachment for good.
    pub fn fatal(&self) -> watch::Receiver<Option<Error>> {
        self.fatal.subscribe()
    }

    /// Holds the stream until the future is dropped or a fatal error.
    pub async fn run(self: Arc<Self>) {
        let mut pause = self.settings.backoff;
        loop {
            let result = self.attach_once().await;
            let was_registered = self.registered.send_replace(false);
            let Err(error) = result else { continue };
            if error.code == Code::Incompatible {
                tracing::error!(%error, namenode = self.settings.namenode, "refused by the NameNode");
                self.fatal.send_replace(Some(error));
                return;
            }
            if was_registered {
                pause = self.settings.backoff;
                tracing::warn!(%error, "the stream to the NameNode broke");
            } else {
                tracing::debug!(%error, "the NameNode cannot be reached");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.settings.backoff_max);
        }
    }

    async fn attach_once(self: &Arc<Self>) -> Result<()> {
        let channel = connect(&self.settings.namenode, self.settings.connect).await?;
        let mut client = DatanodesClient::new(channel.clone())
            .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX);
        let (up, messages) = mpsc::channel(UP_QUEUE_MAX);
        let register = datanode_up::Message::Register(DatanodeRegister {
            address: Some(self.address.clone()),
            cluster_id: self.store.identity().cluster_id,
            volumes: self.store.volume_statuses(),
            software_version: proto::SOFTWARE_VERSION.to_owned(),
        });
        up.try_send(DatanodeUp { message: Some(register) }).expect("the queue is empty");
        let attach = client.attach(ReceiverStream::new(messages));
        let answer = tokio::time::timeout(self.settings.connect, async {
            let mut down = attach.await?.into_inner();
            let registered = registered(&mut down).await?;
            Ok::<_, Error>((down, registered))
        });
        let (down, registered) = answer.await.map_err(|_| {
            Error::new(Code::Timeout, "the NameNode did not answer the registration")
        })??;
        let (store, told) = (self.store.clone(), registered.clone());
        tokio::task::spawn_blocking(move || store.join_cluster(&told.cluster_id, &told.pool_id))
            .await
            .map_err(|panic| Error::new(Code::Internal, format!("join the cluster: {panic}")))??;
        self.hadoop_rpc_addr.send_replace(registered.hadoop_rpc_addr.clone());
        tracing::info!(
            namenode = self.settings.namenode,
            cluster = registered.cluster_id,
            epoch = registered.epoch,
            "registered"
        );
        let interval_ms =
            registered.heartbeat_interval_ms.clamp(*HEARTBEAT_MS.start(), *HEARTBEAT_MS.end());
        let registration = self.registrations.fetch_add(1, Ordering::SeqCst) + 1;
        // A deletion that has begun is done before the report is made: what is listed there, the NameNode takes for
        // there, and may delete other replicas because of it.
        drop(self.deletions.write().await);
        let stream = Stream {
            attachment: self,
            registration,
            up,
            channel,
            interval: Duration::from_millis(interval_ms),
            last_heartbeat: Instant::now(),
        };
        stream.hold(down).await
    }

    /// Whether this is the registration that counts.
    fn is_current(&self, registration: u64) -> bool {
        self.registrations.load(Ordering::SeqCst) == registration
    }

    /// Starts what the NameNode asks for.
    fn obey(self: &Arc<Self>, commands: DatanodeCommands, registration: u64, channel: &Channel) {
        if !commands.invalidate.is_empty() {
            let this = self.clone();
            self.start("invalidate", async move {
                this.delete_all(commands.invalidate, registration).await;
            });
        }
        for command in commands.recover {
            let (this, channel) = (self.clone(), channel.clone());
            self.start("recover", async move {
                let id = command.block.as_ref().map_or(0, |block| block.id);
                let recovered =
                    recovery::recover(&this.store, &this.address.uuid, command, channel).await;
                match recovered {
                    Ok(length) => tracing::info!(block = id, ?length, "block recovered"),
                    Err(error) => tracing::warn!(block = id, %error, "block recovery failed"),
                }
            });
        }
        for command in commands.transfer {
            let this = self.clone();
            self.start("transfer", async move { this.send_replica(command, registration).await });
        }
        for command in commands.reconstruct {
            let this = self.clone();
            self.start("reconstruct", async move {
                let group = command.group.as_ref().map_or(0, |group| group.id);
                let is_current = || this.is_current(registration);
                match this.reconstructor.run(command, is_current).await {
                    Ok(units) => tracing::info!(group, units, "units reconstructed"),
                    // The NameNode repeats what it has heard nothing of.
                    Err(error) if error.code == Code::AlreadyExists => {
                        tracing::debug!(group, %error, "nothing to reconstruct");
                    }
                    Err(error) => tracing::warn!(group, %error, "units were not reconstructed"),
                }
            });
        }
        if commands.report_in_full {
            self.store.changes().owe_report();
        }
    }

    async fn delete_all(&self, blocks: Vec<Block>, registration: u64) {
        let count = blocks.len();
        for (done, block) in blocks.into_iter().enumerate() {
            let _deleting = self.deletions.read().await;
            if !self.is_current(registration) {
                tracing::info!(left = count - done, "deletions of an earlier registration dropped");
                return;
            }
            let stamp = GenerationStamp(block.generation_stamp);
            match self.store.delete(BlockId(block.id), stamp).await {
                // This node is stopping: its next report brings the command again.
                Err(error) if error.code == Code::Unavailable => return,
                Err(error) => {
                    tracing::warn!(block = block.id, %error, "a replica was not deleted");
                }
                Ok(_) => {}
            }
        }
    }

    async fn send_replica(&self, command: TransferBlock, registration: u64) {
        let _slot = self.transfers.acquire().await;
        let Some(block) = command.block.filter(|_| self.is_current(registration)) else { return };
        let (id, stamp) = (BlockId(block.id), GenerationStamp(block.generation_stamp));
        let sent =
            transfer::send_replica(&self.server, id, stamp, &command.targets, TRANSFER_CLIENT);
        match sent.await {
            Ok(()) => tracing::debug!(block = %id, "replica sent"),
            Err(error) => tracing::warn!(%error, "a replica was not sent"),
        }
    }

    fn start(&self, what: &str, work: impl Future<Output = ()> + Send + 'static) {
        let Ok(permit) = self.commands.clone().try_acquire_owned() else {
            tracing::warn!(what, max = COMMANDS_MAX, "too many commands wait: one is dropped");
            return;
        };
        tokio::spawn(async move {
            work.await;
            drop(permit);
        });
    }
}

/// One stream, as long as it holds.
struct Stream<'a> {
    attachment: &'a Arc<Attachment>,
    registration: u64,
    up: mpsc::Sender<DatanodeUp>,
    channel: Channel,
    interval: Duration,
    last_heartbeat: Instant,
}

impl Stream<'_> {
    async fn hold(mut self, mut down: Streaming<DatanodeDown>) -> Result<()> {
        self.heartbeat().await?;
        self.report().await?;
        self.attachment.registered.send_replace(true);
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let store = &self.attachment.store;
            tokio::select! {
                _ = ticks.tick() => self.heartbeat().await?,
                due = store.changes().next(CHANGES_MAX) => match due {
                    Due::FullReport => self.report().await?,
                    Due::Changes(changes) => {
                        let changes = ReplicaChanges { changes };
                        self.send(datanode_up::Message::Changes(changes)).await?;
                    }
                },
                message = down.message() => match message? {
                    Some(DatanodeDown { message: Some(datanode_down::Message::Commands(c)) }) => {
                        self.attachment.obey(c, self.registration, &self.channel);
                    }
                    // A newer NameNode may tell what this DataNode does not know.
                    Some(_) => {}
                    None => return Err(Error::new(Code::Unavailable, "the NameNode ended it")),
                },
            }
        }
    }

    async fn heartbeat(&mut self) -> Result<()> {
        self.last_heartbeat = Instant::now();
        let heartbeat = DatanodeHeartbeat {
            volumes: self.attachment.store.volume_statuses(),
            active_transfers: self.attachment.server.active(),
        };
        self.send(datanode_up::Message::Heartbeat(heartbeat)).await
    }

    async fn report(&mut self) -> Result<()> {
        let store = self.attachment.store.clone();
        let mut report = Report::begin(&store, uuid::Uuid::new_v4().as_u64_pair().0);
        while let Some(chunk) = report.next_chunk() {
            self.send(datanode_up::Message::Report(chunk)).await?;
            if self.last_heartbeat.elapsed() >= self.interval {
                self.heartbeat().await?;
            }
        }
        Ok(())
    }

    async fn send(&self, message: datanode_up::Message) -> Result<()> {
        self.up
            .send(DatanodeUp { message: Some(message) })
            .await
            .map_err(|_| Error::new(Code::Unavailable, "the stream to the NameNode broke"))
    }
}

/// The first message down.
async fn registered(down: &mut Streaming<DatanodeDown>) -> Result<DatanodeRegistered> {
    match down.message().await?.and_then(|down| down.message) {
        Some(datanode_down::Message::Registered(registered)) => Ok(registered),
        Some(_) => {
            Err(Error::new(Code::Incompatible, "the NameNode did not begin with Registered"))
        }
        None => Err(Error::new(Code::Unavailable, "the NameNode ended the stream")),
    }
}

/// A gRPC channel to `host:port`, with the settings that all of ours have.
pub async fn connect(address: &str, connect: Duration) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
        Error::new(Code::InvalidArgument, format!("address {address:?}: {error}"))
    })?;
    endpoint
        .tcp_nodelay(true)
        .connect_timeout(connect)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .connect()
        .await
        .map_err(|error| {
            Error::new(Code::Unavailable, format!("connect to {address}: {}", causes(&error)))
        })
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
