//! The service Catalogue: stores and versions, and the streams of kvserve nodes.
//!
//! What is journaled comes from the state, what servers say from the controller. The decider (one task) gives the
//! controller each new catalogue, proposes what it decides, and has every stream send the whole assignment again.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::granary::catalogue_server::Catalogue;
use proto::granary::*;
use proto::{Code, Error, Result};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::access::{Method, check_principal};
use super::node::{Node, host_of, path, unexpected};
use super::stop::Stop;
use crate::op::{Op, Reply, Verdict};
use crate::serving::controller::{Decision, StoreView, VersionView};
use crate::state::{self, State, VersionStage};

/// Messages that may wait for one kvserve node to read: each is a whole assignment.
const DOWN_QUEUE_MAX: usize = 2;
/// How long a kvserve node may take to register.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);
/// Rounds of deciding and proposing without a pause.
const DECISION_ROUNDS_MAX: usize = 100;

type Down = std::result::Result<KvserveDown, Status>;

/// The service.
pub struct CatalogueService {
    /// What it serves.
    pub node: Arc<Node>,
    /// Ends all streams.
    pub stop: Stop,
}

macro_rules! methods {
    ($($name:ident($request:ty) -> $reply:ty, $method:ident;)*) => {
        #[tonic::async_trait]
        impl Catalogue for CatalogueService {
            type AttachStream = ReceiverStream<Down>;

            async fn attach(
                &self,
                request: Request<Streaming<KvserveUp>>,
            ) -> std::result::Result<Response<Self::AttachStream>, Status> {
                let peer = request.remote_addr().map(|addr| addr.ip());
                let (down, stream) = mpsc::channel(DOWN_QUEUE_MAX);
                let node = Arc::clone(&self.node);
                let stop = self.stop.clone();
                tokio::spawn(run(node, down, stop, request.into_inner(), peer));
                Ok(Response::new(ReceiverStream::new(stream)))
            }

            $(async fn $name(
                &self,
                request: Request<$request>,
            ) -> std::result::Result<Response<$reply>, Status> {
                let since = Instant::now();
                let result = self.node.$name(request.into_inner()).await;
                self.node.counted(Method::$method, since, result)
            })*
        }
    };
}

methods! {
    publish_version(PublishVersionRequest) -> PublishVersionReply, PublishVersion;
    list_stores(ListStoresRequest) -> ListStoresReply, ListStores;
    get_store(GetStoreRequest) -> Store, GetStore;
    activate_version(ActivateVersionRequest) -> Store, ActivateVersion;
    delete_version(DeleteVersionRequest) -> Store, DeleteVersion;
    delete_store(DeleteStoreRequest) -> DeleteStoreReply, DeleteStore;
}

impl Node {
    async fn publish_version(&self, message: PublishVersionRequest) -> Result<PublishVersionReply> {
        let call = self.enter(Method::PublishVersion, message.caller)?;
        check_principal("the store's name", &message.store)?;
        let op = Op::PublishVersion {
            store: message.store,
            folder: path(&message.folder)?,
            tables: message.tables,
            activate: message.activate,
            keep_versions: message.keep_versions,
        };
        match self.propose(call, op).await? {
            Reply::Version(version) => Ok(PublishVersionReply { version }),
            reply => unexpected("publishVersion", &reply),
        }
    }

    async fn list_stores(&self, message: ListStoresRequest) -> Result<ListStoresReply> {
        self.enter(Method::ListStores, message.caller)?;
        Ok(ListStoresReply { stores: self.stores() })
    }

    async fn get_store(&self, message: GetStoreRequest) -> Result<Store> {
        self.enter(Method::GetStore, message.caller)?;
        self.store(&message.store)
    }

    async fn activate_version(&self, message: ActivateVersionRequest) -> Result<Store> {
        let call = self.enter(Method::ActivateVersion, message.caller)?;
        let op = Op::ActivateVersion { store: message.store.clone(), version: message.version };
        self.propose(call, op).await?;
        self.store(&message.store)
    }

    async fn delete_version(&self, message: DeleteVersionRequest) -> Result<Store> {
        let call = self.enter(Method::DeleteVersion, message.caller)?;
        let op = Op::DeleteVersion { store: message.store.clone(), version: message.version };
        self.propose(call, op).await?;
        self.store(&message.store)
    }

    async fn delete_store(&self, message: DeleteStoreRequest) -> Result<DeleteStoreReply> {
        let call = self.enter(Method::DeleteStore, message.caller)?;
        self.propose(call, Op::DeleteStore { store: message.store }).await?;
        Ok(DeleteStoreReply {})
    }

    fn store(&self, name: &str) -> Result<Store> {
        let found = self.log.read(|state| state.store(name).map(to_message));
        let mut store = found.ok_or_else(|| {
            let shown: String = name.chars().take(255).collect();
            Error::new(Code::NotFound, format!("there is no store {shown:?}"))
        })?;
        self.add_servers(&mut store);
        Ok(store)
    }

    /// All stores, by name, with what every server says of each version.
    pub fn stores(&self) -> Vec<Store> {
        let mut stores: Vec<Store> =
            self.log.read(|state| state.stores().map(to_message).collect());
        stores.iter_mut().for_each(|store| self.add_servers(store));
        stores
    }

    fn add_servers(&self, store: &mut Store) {
        self.volatile.controller(|controller, _| {
            store.servers = controller.live_servers();
            for version in &mut store.versions {
                version.servers = controller.version_servers(&store.name, version.number);
            }
        });
    }

    /// Gives the controller the catalogue as it is, and journals what it decides until nothing is left to decide.
    pub async fn decide_versions(&self) {
        for _ in 0..DECISION_ROUNDS_MAX {
            let (txid, views) = self.log.read(|state| (state.catalogue_txid().0, views(state)));
            let (changed, decisions) = self.volatile.controller(|controller, now_ms| {
                controller.check(now_ms);
                let changed = controller.catalogue_txid() != txid;
                controller.set_catalogue(txid, views);
                (changed, controller.decide())
            });
            if changed {
                self.volatile.wake_kvservers();
            }
            if decisions.is_empty() || self.volatile.cluster(|cluster, _| cluster.safemode.is_on())
            {
                return;
            }
            for decision in decisions {
                tracing::info!(?decision, "the controller decided");
                if let Err(error) = self.propose_own(op_of(decision)).await {
                    // The next look at the catalogue decides anew.
                    tracing::warn!(%error, "journal a decision of the controller");
                    return;
                }
            }
        }
        self.volatile.decide.notify_one();
    }
}

async fn run(
    node: Arc<Node>,
    down: mpsc::Sender<Down>,
    stop: Stop,
    mut up: Streaming<KvserveUp>,
    peer: Option<IpAddr>,
) {
    let since = Instant::now();
    let registered = register(&node, &mut up, peer).await;
    let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
    node.volatile.metrics.called(Method::CatalogueAttach, registered.is_err(), micros);
    let result = match registered {
        Ok((uuid, epoch)) => {
            tracing::info!(%uuid, epoch, "a kvserve node registered");
            node.volatile.wake_kvservers();
            let result = attached(&node, &down, stop, &mut up, &uuid, epoch).await;
            let decides = node.volatile.controller(|controller, _| controller.detach(&uuid, epoch));
            if decides {
                node.volatile.decide.notify_one();
            }
            result
        }
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        tracing::info!(peer = %host_of(peer), %error, "a kvserve node's stream ends");
        if down.try_send(Err(error.into())).is_err() {
            tracing::debug!("the kvserve node is gone");
        }
    }
}

async fn register(
    node: &Node,
    up: &mut Streaming<KvserveUp>,
    peer: Option<IpAddr>,
) -> Result<(String, u64)> {
    let first = tokio::time::timeout(REGISTER_TIMEOUT, up.message())
        .await
        .map_err(|_| Error::new(Code::Timeout, "a kvserve node attached and did not register"))??;
    let Some(kvserve_up::Message::Register(mut message)) = first.and_then(|up| up.message) else {
        let text = "the first message of a kvserve node must be Register";
        return Err(Error::new(Code::InvalidArgument, text));
    };
    if !message.cluster_id.is_empty() && message.cluster_id != node.cluster_id {
        return Err(Error::new(
            Code::Incompatible,
            format!(
                "the kvserve node's folder belongs to cluster {}, this NameNode to {}",
                message.cluster_id.escape_debug(),
                node.cluster_id
            ),
        ));
    }
    if let Some(address) = &mut message.address
        && matches!(address.host.as_str(), "" | "0.0.0.0" | "::")
    {
        address.host = host_of(peer);
    }
    let uuid = message.address.as_ref().map(|address| address.uuid.clone()).unwrap_or_default();
    let epoch = node.volatile.controller(|c, now_ms| c.register(now_ms, message))?;
    Ok((uuid, epoch))
}

/// Sends the assignment at once and after each change, and takes what the server says.
async fn attached(
    node: &Arc<Node>,
    down: &mpsc::Sender<Down>,
    mut stop: Stop,
    up: &mut Streaming<KvserveUp>,
    uuid: &str,
    epoch: u64,
) -> Result<()> {
    let mut sender = tokio::spawn(send(Arc::clone(node), down.clone(), uuid.to_owned(), epoch));
    let result = loop {
        tokio::select! {
            ended = &mut sender => {
                return ended.unwrap_or_else(|panic| {
                    Err(Error::new(Code::Internal, format!("the sender ended: {panic}")))
                });
            }
            () = stop.wait() => {
                break Err(Error::new(Code::Unavailable, "the NameNode is stopping"));
            }
            message = up.message() => match message {
                Ok(Some(KvserveUp { message: Some(kvserve_up::Message::Heartbeat(said)) })) => {
                    let taken = node
                        .volatile
                        .controller(|c, now_ms| c.heartbeat(now_ms, uuid, epoch, said));
                    match taken {
                        Ok(true) => node.volatile.decide.notify_one(),
                        Ok(false) => {}
                        Err(error) => break Err(error),
                    }
                }
                Ok(Some(KvserveUp { message: Some(kvserve_up::Message::Register(_)) })) => {
                    break Err(Error::new(Code::InvalidArgument, "a stream registers once"));
                }
                // A newer server may tell what this NameNode does not know.
                Ok(Some(KvserveUp { message: None })) => {}
                Ok(None) => break Ok(()),
                Err(status) => break Err(Error::from(status)),
            },
        }
    };
    sender.abort();
    result
}

async fn send(node: Arc<Node>, down: mpsc::Sender<Down>, uuid: String, epoch: u64) -> Result<()> {
    let mut changes = node.volatile.watch_catalogue();
    // A server attaches with the catalogue as it is now, not as it was at the last decision.
    let (txid, views) = node.log.read(|state| (state.catalogue_txid().0, views(state)));
    node.volatile.controller(|controller, _| controller.set_catalogue(txid, views));
    loop {
        changes.mark_unchanged();
        let message = node.volatile.controller(|controller, _| {
            controller.is_current(&uuid, epoch).then(|| KvserveDown {
                cluster_id: node.cluster_id.clone(),
                heartbeat_interval_ms: node.config.heartbeat_interval_ms,
                catalogue_txid: controller.catalogue_txid(),
                stores: controller.assignment(),
            })
        });
        let Some(message) = message else {
            let text = format!("epoch {epoch} of kvserve {uuid} is over: it registered again");
            return Err(Error::new(Code::Stale, text));
        };
        if down.send(Ok(message)).await.is_err() {
            return Ok(());
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            () = down.closed() => return Ok(()),
        }
    }
}

fn op_of(decision: Decision) -> Op {
    match decision {
        Decision::Ready { store, version } => {
            Op::SetVersionState { store, version, verdict: Verdict::Ready }
        }
        Decision::Failed { store, version, error } => {
            Op::SetVersionState { store, version, verdict: Verdict::Failed(error) }
        }
        Decision::Activate { store, version } => Op::ActivateVersion { store, version },
    }
}

fn views(state: &State) -> Vec<StoreView> {
    let view = |store: &state::Store| StoreView {
        name: store.name.clone(),
        current: store.current,
        versions: store
            .versions
            .values()
            .map(|version| VersionView {
                number: version.number,
                state: state_of(store, version),
                activate: version.activate,
                tables: version.tables.clone(),
            })
            .collect(),
    };
    state.stores().map(view).collect()
}

fn state_of(store: &state::Store, version: &state::Version) -> VersionState {
    match &version.stage {
        _ if version.number == store.current => VersionState::Current,
        _ if version.number == store.previous => VersionState::Previous,
        VersionStage::Preparing => VersionState::Preparing,
        VersionStage::Ready => VersionState::Ready,
        VersionStage::Failed(_) => VersionState::Failed,
    }
}

fn to_message(store: &state::Store) -> Store {
    let version = |version: &state::Version| Version {
        number: version.number,
        state: state_of(store, version) as i32,
        tables: version.tables.clone(),
        created_ns: version.created_ns,
        error: match &version.stage {
            VersionStage::Failed(error) => error.clone(),
            _ => String::new(),
        },
        servers: Vec::new(),
    };
    Store {
        name: store.name.clone(),
        current: store.current,
        previous: store.previous,
        keep_versions: store.keep_versions,
        versions: store.versions.values().rev().map(version).collect(),
        servers: Vec::new(),
    }
}
