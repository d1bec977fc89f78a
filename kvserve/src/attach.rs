//! The stream to the NameNode: registers this server, tells how far its versions are, hears what it should hold.
//!
//! Heartbeats go out every interval, and at once when a version's state changes. When the stream breaks it is made
//! anew, for ever, with pauses that grow to a limit; what serves goes on serving meanwhile. A NameNode of another
//! cluster is not listened to.

use std::sync::Arc;
use std::time::Duration;

use proto::granary::catalogue_client::CatalogueClient;
use proto::granary::kvserve_up::Message;
use proto::granary::{
    KvserveAddress, KvserveDown, KvserveHeartbeat, KvserveRegister, KvserveUp, ServerVersion,
    ServerVersionState,
};
use proto::limits::GRPC_MESSAGE_BYTES_MAX;
use proto::{Code, Error, Result};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tracing::{info, warn};

use crate::engine::EngineClient;
use crate::fetch::off_thread;
use crate::folder::Folder;
use crate::lifecycle::{Assignment, Phase, Report};
use crate::tablespec::TableSpec;

/// Pauses between attempts.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Heartbeats until the NameNode has said otherwise.
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(1);
/// Messages that wait for the NameNode.
const UP_MAX: usize = 16;

/// What the stream needs to know.
pub struct Attachment {
    /// The NameNode's gRPC address, `host:port`.
    pub namenode: String,
    /// How clients reach this server.
    pub address: KvserveAddress,
    /// The local folder.
    pub folder: Arc<Folder>,
    /// Takes the assignments, gives the reports.
    pub engine: EngineClient,
    /// Told whether the stream stands.
    pub attached: watch::Sender<bool>,
}

impl Attachment {
    /// Keeps the stream up until the future is dropped.
    pub async fn run(self) {
        let mut pause = RETRY_MIN;
        let mut told = String::new();
        loop {
            let ended = self.attach().await;
            if self.attached.send_replace(false) {
                pause = RETRY_MIN;
                told.clear();
            }
            let message = match ended {
                Ok(()) => "the NameNode ended the stream".to_owned(),
                Err(error) => error.message,
            };
            // The same failure again and again is told once.
            if message != told {
                warn!(namenode = self.namenode, "not attached: {message}; retrying");
                told = message;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn attach(&self) -> Result<()> {
        let mut stub = self.connect().await?;
        let (up, receiver) = mpsc::channel(UP_MAX);
        let register = Message::Register(KvserveRegister {
            address: Some(self.address.clone()),
            cluster_id: self.folder.cluster_id(),
            software_version: proto::SOFTWARE_VERSION.to_owned(),
        });
        send(&up, register).await?;
        let mut reports = self.engine.reports();
        let first = reports.borrow_and_update().clone();
        send(&up, self.heartbeat(&first)).await?;
        let mut down = stub.attach(ReceiverStream::new(receiver)).await?.into_inner();
        let mut interval = HEARTBEAT_DEFAULT;
        let mut sent = first;
        loop {
            tokio::select! {
                message = down.message() => match message? {
                    Some(message) => {
                        if message.heartbeat_interval_ms > 0 {
                            interval = Duration::from_millis(message.heartbeat_interval_ms);
                        }
                        self.hear(message).await?;
                    }
                    None => return Ok(()),
                },
                changed = reports.changed() => {
                    changed.map_err(|_| Error::new(Code::Unavailable, "the server is stopping"))?;
                    let now = reports.borrow_and_update().clone();
                    if phases_differ(&sent, &now) {
                        send(&up, self.heartbeat(&now)).await?;
                        sent = now;
                    }
                }
                () = tokio::time::sleep(interval) => {
                    let now = reports.borrow_and_update().clone();
                    send(&up, self.heartbeat(&now)).await?;
                    sent = now;
                }
            }
        }
    }

    async fn connect(&self) -> Result<CatalogueClient<Channel>> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.namenode))
            .map_err(|error| {
                let what = format!("kvserve.namenode {:?} is no host:port: {error}", self.namenode);
                Error::new(Code::InvalidArgument, what)
            })?
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(5))
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true);
        let channel = endpoint.connect().await.map_err(|error| {
            let cause =
                std::error::Error::source(&error).map_or(String::new(), |e| format!(": {e}"));
            Error::new(Code::Unavailable, format!("connect to {}: {error}{cause}", self.namenode))
        })?;
        Ok(CatalogueClient::new(channel)
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX))
    }

    async fn hear(&self, message: KvserveDown) -> Result<()> {
        if !message.cluster_id.is_empty() {
            let (folder, cluster_id) = (self.folder.clone(), message.cluster_id.clone());
            off_thread(move || folder.join_cluster(&cluster_id)).await?;
        }
        let assignments = assignments_of(message.stores)?;
        if !self.attached.send_replace(true) {
            info!(namenode = self.namenode, cluster = message.cluster_id, "attached");
        }
        self.engine.assign(message.catalogue_txid, assignments).await
    }

    fn heartbeat(&self, reports: &[Report]) -> Message {
        let (capacity_bytes, _free) = self.folder.disk_bytes().unwrap_or_default();
        Message::Heartbeat(KvserveHeartbeat {
            versions: reports.iter().map(|report| self.server_version(report)).collect(),
            capacity_bytes,
            used_bytes: reports.iter().map(|report| report.bytes_done).sum(),
        })
    }

    fn server_version(&self, report: &Report) -> ServerVersion {
        let state = match report.phase {
            Phase::Fetching => ServerVersionState::Fetching,
            Phase::Verifying => ServerVersionState::Verifying,
            Phase::Ready => ServerVersionState::Ready,
            Phase::Serving => ServerVersionState::Serving,
            Phase::Failed => ServerVersionState::Failed,
        };
        ServerVersion {
            server: self.folder.uuid().to_owned(),
            store: report.id.store.clone(),
            version: report.id.number,
            state: state.into(),
            bytes_done: report.bytes_done,
            bytes_total: report.bytes_total,
            error: report.error.clone(),
        }
    }
}

async fn send(up: &mpsc::Sender<KvserveUp>, message: Message) -> Result<()> {
    let sent = up.send(KvserveUp { message: Some(message) }).await;
    sent.map_err(|_| Error::new(Code::Unavailable, "the stream to the NameNode broke"))
}

fn phases_differ(a: &[Report], b: &[Report]) -> bool {
    let key = |report: &Report| (report.id.clone(), report.phase, report.error.clone());
    a.len() != b.len() || a.iter().zip(b).any(|(a, b)| key(a) != key(b))
}

/// Checks what came over the wire.
fn assignments_of(stores: Vec<proto::granary::StoreAssignment>) -> Result<Vec<Assignment>> {
    let mut assignments = Vec::with_capacity(stores.len());
    for store in stores {
        crate::folder::check_store_name(&store.store)?;
        let mut versions = Vec::with_capacity(store.versions.len());
        for version in store.versions {
            let tables: Result<Vec<_>> =
                version.tables.into_iter().map(TableSpec::from_proto).collect();
            let tables = tables.map_err(|error| {
                error.context(format!("store {:?} version {}", store.store, version.version))
            })?;
            versions.push((version.version, Arc::from(tables)));
        }
        assignments.push(Assignment { store: store.store, current: store.current, versions });
    }
    Ok(assignments)
}
