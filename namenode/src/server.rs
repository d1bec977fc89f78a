//! The shell: the folder, the log, the listeners, the timers.
//!
//! [`start`] binds every port, opens the log (which locks the folder and replays the journal), tells the volatile side
//! of every block, and only then answers. Three tasks keep time: a tick for the cluster, a round for leases, and
//! the decider for versions.
//!
//! Always holds: nothing is answered before the journal is replayed; a port or folder that cannot be had is an error
//! that names the setting; a stop ends within its grace, with the log closed last and the folder free.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proto::granary::admin_server::AdminServer;
use proto::granary::catalogue_server::CatalogueServer;
use proto::granary::datanodes_server::DatanodesServer;
use proto::granary::namespace_server::NamespaceServer;
use proto::limits::GRPC_MESSAGE_BYTES_MAX;
use proto::{Code, Error, Result};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinHandle};
use tonic::transport::server::TcpIncoming;

use crate::cluster;
use crate::config::Config;
use crate::front::access::Access;
use crate::front::admin::AdminService;
use crate::front::catalogue::CatalogueService;
use crate::front::datanodes::DatanodesService;
use crate::front::hadoop::HadoopService;
use crate::front::http;
use crate::front::namespace::NamespaceService;
use crate::front::node::{Node, look_up, truth_of};
use crate::front::stop::{self, Stop, Stopper};
use crate::front::volatile::{Volatile, now_ns, wish_at};
use crate::log::{self, Log};

/// How often silence is looked at, in milliseconds.
const TICK_MS_MAX: u64 = 500;
/// How often leases are looked at, in milliseconds.
const LEASE_ROUND_MS_MAX: u64 = 1_000;
const KEEPALIVE: Duration = Duration::from_secs(20);

/// One task of the server, and the one that watches it.
struct Task {
    name: &'static str,
    work: AbortHandle,
    watcher: JoinHandle<()>,
}

/// A NameNode that runs. Dropping it leaves it running until the runtime ends; [`Handle::shutdown`] stops it.
pub struct Handle {
    node: Arc<Node>,
    grpc_addr: SocketAddr,
    http_addr: SocketAddr,
    hadoop_rpc_addr: SocketAddr,
    stopper: Arc<Stopper>,
    stop: Stop,
    tasks: Vec<Task>,
    grace: Duration,
}

impl Handle {
    /// Where gRPC listens.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// Where the status page is.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Where Hadoop's RPC listens: `hdfs://` of this address.
    pub fn hadoop_rpc_addr(&self) -> SocketAddr {
        self.hadoop_rpc_addr
    }

    /// What the front ends share, for tests that ask without a socket.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Names the cluster.
    pub fn cluster_id(&self) -> &str {
        &self.node.cluster_id
    }

    /// Names the namespace in data-transfer operations.
    pub fn pool_id(&self) -> &str {
        &self.node.pool_id
    }

    /// Waits until the NameNode stops by itself: one of its tasks panicked, which the log has told.
    pub async fn failed(&self) {
        self.stop.clone().wait().await;
    }

    /// Stops: no new calls, streams told, calls under way finished within the grace, the log closed, the folder free.
    pub async fn shutdown(self) -> Result<()> {
        self.stopper.stop();
        let until = tokio::time::Instant::now() + self.grace;
        for task in self.tasks {
            // The watcher has told of a panic; it never panics itself.
            if tokio::time::timeout_at(until, task.watcher).await.is_err() {
                tracing::warn!(name = task.name, "did not stop in time: ended");
                task.work.abort();
            }
        }
        let closed = self.node.log.shutdown().await;
        free_folder(self.node, until).await;
        tracing::info!("the NameNode stopped");
        closed
    }
}

/// Drops the log with the last that uses it, so that the folder's lock is free when this returns. Streams and
/// connections were told to end; who does not in time keeps the lock until it does.
async fn free_folder(node: Arc<Node>, until: tokio::time::Instant) {
    while Arc::strong_count(&node) > 1 && tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let users = Arc::strong_count(&node);
    if users > 1 {
        tracing::warn!(
            users = users - 1,
            "connections did not end in time: the folder stays locked"
        );
    }
    // The log's threads are joined where blocking is fine.
    if let Err(error) = tokio::task::spawn_blocking(move || drop(node)).await {
        tracing::error!(%error, "dropping the log panicked");
    }
}

/// Starts a NameNode; returns when it listens. Errors name the setting that is at fault.
pub async fn start(config: Config) -> Result<Handle> {
    config.check()?;
    let superuser = superuser_of(&config)?;
    let grpc = bind("grpc_addr", &config.grpc_addr).await?;
    let http = bind("http_addr", &config.http_addr).await?;
    let hadoop = bind("hadoop_rpc_addr", &config.hadoop_rpc_addr).await?;

    let settings = cluster_settings(&config);
    let volatile = Arc::new(Volatile::new(&settings, config.kvserve_dead_after_ms));
    let log = open_log(&config, superuser.clone(), &volatile).await?;
    let cluster_id = log.cluster_id();
    let addr = |name: &str, listener: &TcpListener| {
        listener.local_addr().map_err(|error| Error::io(format!("the address of {name}"), &error))
    };
    let node = Arc::new(Node {
        access: Access::new(&config, superuser),
        cluster_id: cluster_id.to_string(),
        pool_id: pool_id_of(cluster_id),
        log,
        volatile,
        started_ns: now_ns(),
        hadoop_rpc_addr: addr("hadoop_rpc_addr", &hadoop)?,
        config,
    });
    tell_of_blocks(&node);
    let opened = node.log.open_report();
    tracing::info!(checkpoint = %opened.checkpoint, replayed = opened.replayed, "the log is open");
    for damage in &opened.damage {
        tracing::error!(%damage, "a damaged checkpoint was passed over");
    }

    let (stopper, stop) = stop::new();
    let (grpc_addr, http_addr) = (addr("grpc_addr", &grpc)?, addr("http_addr", &http)?);
    let hadoop_rpc_addr = node.hadoop_rpc_addr;
    let stopper = Arc::new(stopper);
    let spawn = |name, work: JoinHandle<()>| Task {
        name,
        work: work.abort_handle(),
        watcher: watch(name, Arc::clone(&stopper), work),
    };
    let (node_of, stop_of) = (|| Arc::clone(&node), || stop.clone());
    let tasks = vec![
        spawn("grpc", tokio::spawn(serve_grpc(grpc, node_of(), stop_of()))),
        spawn("http", tokio::spawn(http::serve(http, node_of(), stop_of()))),
        spawn("hadoop_rpc", tokio::spawn(serve_hadoop(hadoop, node_of(), stop_of()))),
        spawn("tick", tokio::spawn(keep_time(node_of(), stop_of()))),
        spawn("leases", tokio::spawn(keep_leases(node_of(), stop_of()))),
        spawn("decide", tokio::spawn(keep_deciding(node_of(), stop_of()))),
    ];
    tracing::info!(
        dir = %node.config.dir.display(),
        cluster = %node.cluster_id,
        grpc = %grpc_addr,
        http = %http_addr,
        "the NameNode started"
    );
    let grace = Duration::from_millis(node.config.shutdown_grace_ms);
    Ok(Handle { node, grpc_addr, http_addr, hadoop_rpc_addr, stopper, stop, tasks, grace })
}

/// Stops everything if a task panics: half a NameNode is worse than none.
fn watch(name: &'static str, stopper: Arc<Stopper>, task: JoinHandle<()>) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = task.await
            && error.is_panic()
        {
            tracing::error!(name, %error, "a task of the NameNode panicked: it stops");
            stopper.stop();
        }
    })
}

/// The configured superuser, or the user who started this process.
fn superuser_of(config: &Config) -> Result<String> {
    let name = if config.superuser.is_empty() { os_user() } else { config.superuser.clone() };
    crate::front::access::check_principal("namenode.superuser", &name)?;
    Ok(name)
}

/// The name of the user who runs this process, by the password file; by number if it has none.
fn os_user() -> String {
    let uid = rustix::process::geteuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("uid{uid}"))
}

/// The block pool's name follows from the cluster's: both are chosen once, when the folder is made.
fn pool_id_of(cluster_id: uuid::Uuid) -> String {
    format!("BP-{}", cluster_id.as_u128() as u64)
}

fn cluster_settings(config: &Config) -> cluster::Settings {
    cluster::Settings {
        suspect_after_ms: config.datanode_suspect_after_ms,
        dead_after_ms: config.datanode_dead_after_ms,
        replication_min: config.replication_min,
        safemode_threshold: config.safemode_threshold,
        safemode_extension_ms: config.safemode_extension_ms,
        lease_soft_limit_ms: config.lease_soft_limit_ms,
        lease_hard_limit_ms: config.lease_hard_limit_ms,
        recovery_timeout_ms: config.block_recovery_timeout_ms,
        repair: cluster::repair::Settings {
            grace_ms: config.repair_grace_ms,
            limits: cluster::repair::streams::StreamLimits {
                per_node: config.repair_copies_per_datanode_max,
                total: config.repair_copies_max,
                node_bytes_per_s: config.repair_datanode_bytes_per_s_max,
                total_bytes_per_s: config.repair_bytes_per_s_max,
            },
            maintenance_replicas_min: config.maintenance_replicas_min,
        },
        replication: config.replication,
        // Microseconds: above every epoch of an earlier process.
        first_epoch: u64::try_from(now_ns() / 1_000).unwrap_or(0),
        seed: uuid::Uuid::new_v4().as_u128() as u64,
        topology: cluster::topology::Topology::new(&config.racks),
    }
}

async fn bind(setting: &str, addr: &str) -> Result<TcpListener> {
    TcpListener::bind(addr).await.map_err(|error| {
        use std::io::ErrorKind;
        let (code, why) = match error.kind() {
            ErrorKind::AddrInUse => (Code::Unavailable, "is in use by another process"),
            ErrorKind::PermissionDenied => (Code::PermissionDenied, "may not be used"),
            ErrorKind::InvalidInput => (Code::InvalidArgument, "is not host:port"),
            _ => (Code::Unavailable, "cannot be listened on"),
        };
        Error::new(code, format!("namenode.{setting} {addr} {why}: {error}"))
    })
}

/// Replays the journal, off the async threads.
async fn open_log(config: &Config, superuser: String, volatile: &Arc<Volatile>) -> Result<Log> {
    let dir = config.dir.clone();
    let sink_volatile = Arc::clone(volatile);
    let settings = log::Settings {
        superuser,
        checkpoint_journal_bytes: config.checkpoint_journal_bytes,
        checkpoint_dirty_pages: config.checkpoint_dirty_pages,
        journal_segment_bytes: config.journal_segment_bytes,
        queue_proposals_max: config.queue_proposals_max,
        ..Default::default()
    };
    let opened = tokio::task::spawn_blocking(move || {
        Log::open(&dir, settings, Box::new(move |txid, effects| sink_volatile.take(txid, &effects)))
    });
    match opened.await {
        Ok(log) => {
            log.map_err(|error| error.context(format!("namenode.dir {}", config.dir.display())))
        }
        Err(panic) => Err(Error::new(Code::Internal, format!("opening the log panicked: {panic}"))),
    }
}

/// The volatile side starts from what the journal left: every block, and every writer with a fresh term.
fn tell_of_blocks(node: &Node) {
    node.log.read(|state| {
        node.volatile.cluster(|cluster, now_ms| {
            for info in state.all_blocks() {
                cluster.block_changed(info.id, Some(&truth_of(&info)));
            }
            let wishes = state.node_wishes();
            let wishes = wishes.map(|(name, wish)| (name.to_owned(), wish_at(now_ms, wish)));
            cluster.set_wishes(now_ms, wishes.collect());
            for (_, lease) in state.leases() {
                cluster.leases.renew(now_ms, &lease.holder);
            }
            cluster.tick(now_ms, &|id| look_up(state, id));
        });
    });
    node.volatile.decide.notify_one();
}

async fn serve_grpc(listener: TcpListener, node: Arc<Node>, stop: Stop) {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let datanodes = DatanodesService { node: Arc::clone(&node), stop: stop.clone() };
    let catalogue = CatalogueService { node: Arc::clone(&node), stop: stop.clone() };
    let mut stopped = stop;
    let served = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(
            NamespaceServer::new(NamespaceService(Arc::clone(&node)))
                .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX),
        )
        .add_service(
            DatanodesServer::new(datanodes)
                .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX),
        )
        .add_service(
            CatalogueServer::new(catalogue)
                .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX),
        )
        .add_service(
            AdminServer::new(AdminService(node))
                .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX),
        )
        .serve_with_incoming_shutdown(incoming, async move { stopped.wait().await })
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the gRPC port ended");
    }
}

async fn serve_hadoop(listener: TcpListener, node: Arc<Node>, mut stop: Stop) {
    let service = Arc::new(HadoopService(node));
    ipc::serve(listener, service, ipc::Settings::default(), async move { stop.wait().await }).await;
}

async fn keep_time(node: Arc<Node>, mut stop: Stop) {
    let tick_ms = (node.config.datanode_suspect_after_ms / 4).clamp(10, TICK_MS_MAX);
    let mut tick = tokio::time::interval(Duration::from_millis(tick_ms));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.wait() => return,
        }
        node.log.read(|state| {
            node.volatile.cluster(|cluster, now_ms| cluster.tick(now_ms, &|id| look_up(state, id)));
        });
        if node.volatile.controller(|controller, now_ms| controller.check(now_ms)) {
            node.volatile.decide.notify_one();
        }
    }
}

async fn keep_leases(node: Arc<Node>, mut stop: Stop) {
    let round_ms = (node.config.lease_hard_limit_ms / 4).clamp(10, LEASE_ROUND_MS_MAX);
    let mut round = tokio::time::interval(Duration::from_millis(round_ms));
    round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = round.tick() => {}
            () = stop.wait() => return,
        }
        node.check_leases().await;
    }
}

/// Decides on versions whenever something changed, and now and then for what could not be journaled before.
async fn keep_deciding(node: Arc<Node>, mut stop: Stop) {
    loop {
        tokio::select! {
            () = node.volatile.decide.notified() => {}
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
            () = stop.wait() => return,
        }
        node.decide_versions().await;
    }
}
