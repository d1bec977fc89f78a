//! Starts and stops a DataNode: volumes, sockets, tasks.
//!
//! [`start`] returns when everything listens, whether the NameNode is there or not. Ports are bound before the volumes
//! are opened, so that a port in use costs nothing; a folder in use, a foreign one, or one without permission is an
//! error that names the setting. Stopping is bounded in time: connections are cut, indexes flushed, threads ended.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::webhdfs::Port;
use proto::granary::DatanodeAddress;
use proto::granary::replicas_server::ReplicasServer;
use proto::{Code, Error, Result, limits};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::balance::Balancer;
use crate::config::Config;
use crate::control::ReplicasService;
use crate::data_server::{DataServer, Limits};
use crate::hadoop;
use crate::heartbeat::Attachment;
use crate::http::{Pages, router};
use crate::scrub::Scrubber;
use crate::store::Store;
use crate::volume::Volume;
use crate::webhdfs::WebHdfs;

/// Bytes that the path of a Unix socket may have, without the NUL behind it.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Connections to the HTTP port that may be open at once; further ones wait.
const HTTP_CONNECTIONS_MAX: usize = 1_024;
/// How long a stop waits for tasks.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A running DataNode.
pub struct Handle {
    uuid: String,
    data_addr: SocketAddr,
    control_addr: SocketAddr,
    ipc_addr: SocketAddr,
    http_addr: SocketAddr,
    local_socket: PathBuf,
    store: Arc<Store>,
    server: Arc<DataServer>,
    scrubber: Arc<Scrubber>,
    attachment: Arc<Attachment>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Starts a DataNode. Returns when it listens.
pub async fn start(config: Config) -> Result<Handle> {
    config.check()?;
    let data = bind("data_addr", &config.data_addr).await?;
    let control = bind("control_addr", &config.control_addr).await?;
    let ipc = bind("ipc_addr", &config.ipc_addr).await?;
    let http = bind("http_addr", &config.http_addr).await?;
    let opening = config.clone();
    let (store, found) = tokio::task::spawn_blocking(move || Store::open(&opening))
        .await
        .map_err(|panic| Error::new(Code::Internal, format!("open the volumes: {panic}")))??;
    let identity = store.identity();
    let local_socket = socket_path(&config, &identity.datanode_uuid);
    let local = bind_socket(&local_socket)?;
    let (data_addr, control_addr) = (local_addr(&data)?, local_addr(&control)?);
    let (ipc_addr, http_addr) = (local_addr(&ipc)?, local_addr(&http)?);
    let address = DatanodeAddress {
        uuid: identity.datanode_uuid.clone(),
        host: advertised_host(&config, data_addr),
        data_port: data_addr.port().into(),
        control_port: control_addr.port().into(),
        http_port: http_addr.port().into(),
        local_socket: local_socket.to_str().unwrap_or_default().to_owned(),
        ipc_port: ipc_addr.port().into(),
        rack: config.rack.clone(),
    };
    let server = DataServer::new(store.clone(), Limits::from(&config));
    let attachment = Attachment::new(&config, store.clone(), server.clone(), address.clone());
    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(server.clone().serve_tcp(data, stopping.clone()));
    tasks.spawn(server.clone().serve_unix(local, stopping.clone()));
    let superuser = match config.superuser.as_str() {
        "" => hadoop::process_user(),
        name => name.to_owned(),
    };
    let service = Arc::new(hadoop::ClientService::new(store.clone(), superuser));
    tasks.spawn(serve_ipc(ipc, service, stopping.clone()));
    tasks.spawn(serve_control(control, store.clone(), stopping.clone()));
    let scrubber = Scrubber::new(&config, store.clone(), server.clone());
    let balancer = Balancer::new(&config, store.clone());
    let pages = Pages {
        scrubber: scrubber.clone(),
        balancer: balancer.clone(),
        store: store.clone(),
        server: server.clone(),
        attachment: attachment.clone(),
        address,
    };
    let web = WebHdfs::new(&config, attachment.clone(), stopping.clone());
    let silence_max = Duration::from_millis(config.idle_timeout_ms);
    let http = Port::new(http, HTTP_CONNECTIONS_MAX, silence_max);
    tasks.spawn(serve_http(http, pages, web, stopping.clone()));
    tasks.spawn(until(stopping.clone(), attachment.clone().run()));
    let failed_max = config.failed_volumes_max;
    tasks.spawn(until(
        stopping.clone(),
        watch_volumes(store.clone(), attachment.clone(), failed_max),
    ));
    let check = Check {
        interval: Duration::from_millis(config.volume_check_interval_ms),
        timeout: Duration::from_millis(config.volume_check_timeout_ms),
    };
    tasks.spawn(until(stopping.clone(), check.run(store.clone())));
    tasks.spawn(until(stopping.clone(), balancer.clone().run()));
    tasks.spawn(until(stopping.clone(), scrubber.clone().run()));
    let interval = Duration::from_millis(config.index_interval_ms);
    tasks.spawn(until(stopping, keep_index(store.clone(), interval)));
    tracing::info!(uuid = identity.datanode_uuid, %data_addr, ?found, "DataNode started");
    let uuid = identity.datanode_uuid;
    Ok(Handle {
        uuid,
        data_addr,
        control_addr,
        ipc_addr,
        http_addr,
        local_socket,
        store,
        server,
        scrubber,
        attachment,
        stop,
        tasks,
    })
}

impl Handle {
    /// Who it is.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// Where DataTransferProtocol listens.
    pub fn data_addr(&self) -> SocketAddr {
        self.data_addr
    }

    /// Where the gRPC service Replicas listens.
    pub fn control_addr(&self) -> SocketAddr {
        self.control_addr
    }

    /// Where Hadoop's RPC listens.
    pub fn ipc_addr(&self) -> SocketAddr {
        self.ipc_addr
    }

    /// Where status and metrics are.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// The Unix socket for clients on this machine.
    pub fn local_socket(&self) -> &Path {
        &self.local_socket
    }

    /// Its replicas.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Its data-transfer server.
    pub fn server(&self) -> &Arc<DataServer> {
        &self.server
    }

    /// What verifies its replicas.
    pub fn scrubber(&self) -> &Arc<Scrubber> {
        &self.scrubber
    }

    /// Whether the NameNode has taken it in and has its full report.
    pub fn is_registered(&self) -> bool {
        self.attachment.is_registered()
    }

    /// Takes up those folders that are not volumes yet; tells how many. Volumes that are no longer named stay.
    pub async fn add_volumes(&self, roots: Vec<PathBuf>) -> Result<usize> {
        let store = self.store.clone();
        let (added, found) = tokio::task::spawn_blocking(move || store.add_volumes(&roots))
            .await
            .map_err(|panic| Error::new(Code::Internal, format!("add volumes: {panic}")))??;
        if added > 0 {
            tracing::info!(added, ?found, "volumes were added");
        }
        Ok(added)
    }

    /// Waits for an error that ends the attachment to the NameNode for good: a NameNode of another cluster.
    pub async fn fatal(&self) -> Error {
        let mut fatal = self.attachment.fatal();
        let error = fatal.wait_for(Option::is_some).await;
        error.ok().and_then(|error| error.clone()).unwrap_or_else(|| {
            Error::new(Code::Internal, "the attachment to the NameNode ended without a reason")
        })
    }

    /// Stops it: cuts connections, brings the indexes up to date, ends the threads. Takes a few seconds at most.
    pub async fn shutdown(mut self) -> Result<()> {
        self.stop.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            tracing::warn!("some tasks did not end in time");
            self.tasks.abort_all();
        }
        let flushed = tokio::time::timeout(STOP_TIMEOUT, self.store.flush_indexes()).await;
        self.store.stop();
        if let Err(error) = std::fs::remove_file(&self.local_socket) {
            tracing::debug!(%error, "the local socket was gone");
        }
        flushed.unwrap_or_else(|_| {
            Err(Error::new(Code::Timeout, "the replica index was not flushed in time"))
        })
    }
}

/// Runs `work` until it ends or the DataNode stops.
async fn until(mut stop: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

async fn watch_volumes(store: Arc<Store>, attachment: Arc<Attachment>, failed_max: u64) {
    let error = store.watch_volumes(failed_max).await;
    tracing::error!(%error, "the DataNode stops");
    attachment.give_up(error);
}

/// How volumes are looked at.
struct Check {
    interval: Duration,
    timeout: Duration,
}

impl Check {
    /// Looks at all volumes now and then. One that vanished, fails or hangs is taken out of service.
    async fn run(self, store: Arc<Store>) {
        loop {
            tokio::time::sleep(self.interval).await;
            let volumes = store.volumes().into_iter().filter(|volume| !volume.is_failed());
            let looks = volumes.map(|volume| self.look(volume));
            futures_util::future::join_all(looks).await;
        }
    }

    async fn look(&self, volume: Arc<Volume>) {
        let looked_at = volume.clone();
        // Not on the volume's own threads: those may have much to do, and that is no failure.
        let look = tokio::task::spawn_blocking(move || looked_at.probe());
        if tokio::time::timeout(self.timeout, look).await.is_err() {
            volume.fail(&format!("it did not answer within {} ms", self.timeout.as_millis()));
        }
    }
}

/// Brings the indexes up to date now and then.
async fn keep_index(store: Arc<Store>, interval: Duration) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = store.index_flush_wanted() => {}
        }
        if let Err(error) = store.flush_indexes().await {
            tracing::warn!(%error, "the replica index was not brought up to date");
        }
    }
}

async fn serve_control(listener: TcpListener, store: Arc<Store>, mut stop: watch::Receiver<bool>) {
    let service = ReplicasServer::new(ReplicasService { store })
        .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let served = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, async move {
            drop(stop.wait_for(|stop| *stop).await);
        })
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the control server ended");
    }
}

async fn serve_ipc(
    listener: TcpListener,
    service: Arc<hadoop::ClientService>,
    mut stop: watch::Receiver<bool>,
) {
    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
    ipc::serve(listener, service, hadoop::bounds(), stopped).await;
}

async fn serve_http(port: Port, pages: Pages, web: Arc<WebHdfs>, mut stop: watch::Receiver<bool>) {
    let served = axum::serve(port, router(pages).merge(web.router()))
        .with_graceful_shutdown(async move {
            drop(stop.wait_for(|stop| *stop).await);
        })
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the HTTP server ended");
    }
}

async fn bind(setting: &str, addr: &str) -> Result<TcpListener> {
    TcpListener::bind(addr)
        .await
        .map_err(|error| Error::io(format_args!("listen on {addr} (datanode.{setting})"), &error))
}

fn local_addr(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().map_err(|error| Error::io("look at an own port", &error))
}

fn bind_socket(path: &Path) -> Result<UnixListener> {
    // Left by a DataNode that was killed: the lock on the volumes says that it is gone.
    let is_socket = |found: std::fs::Metadata| found.file_type().is_socket();
    if std::fs::symlink_metadata(path).is_ok_and(is_socket) {
        std::fs::remove_file(path).map_err(|error| {
            Error::io(format_args!("remove {} (datanode.local_socket)", path.display()), &error)
        })?;
    }
    UnixListener::bind(path).map_err(|error| {
        Error::io(format_args!("listen on {} (datanode.local_socket)", path.display()), &error)
    })
}

fn socket_path(config: &Config, uuid: &str) -> PathBuf {
    if !config.local_socket.is_empty() {
        return PathBuf::from(&config.local_socket);
    }
    let path = config.volumes.first().map(|volume| volume.join("data.sock")).unwrap_or_default();
    let path = std::path::absolute(&path).unwrap_or(path);
    if path.as_os_str().as_bytes().len() <= SOCKET_PATH_BYTES_MAX && path.to_str().is_some() {
        return path;
    }
    std::env::temp_dir().join(format!("granary-{uuid}.sock"))
}

fn advertised_host(config: &Config, data_addr: SocketAddr) -> String {
    match config.advertised_host.as_str() {
        "" if data_addr.ip().is_unspecified() => String::new(),
        "" => data_addr.ip().to_string(),
        host => host.to_owned(),
    }
}
