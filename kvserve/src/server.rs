//! Starts and stops a key-value server.
//!
//! [`start`] returns when all listeners listen and what was complete in the folder serves; the NameNode need not be
//! there yet. [`Handle::shutdown`] stops accepting, lets each connection answer what it had received, and gives all of
//! it a few seconds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::serve::ListenerExt;
use proto::granary::KvserveAddress;
use proto::granary::kv_server::KvServer;
use proto::limits::GRPC_MESSAGE_BYTES_MAX;
use proto::{Code, Error, Result};
use rustix::net::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tonic::transport::server::TcpIncoming;
use tracing::{debug, info, warn};

use crate::attach::Attachment;
use crate::config::Config;
use crate::engine::{self, EngineClient, Parts};
use crate::fetch::{FetchLimits, Fetcher, Origin, off_thread};
use crate::folder::Folder;
use crate::grpc::{KvService, REPLY_BYTES_MAX};
use crate::http::{Pages, router};
use crate::lifecycle::Pauses;
use crate::session::{Front, serve};
use crate::tables::Stores;

#[cfg(test)]
mod tests;

/// What a graceful stop may take.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// A running server.
pub struct Handle {
    uuid: String,
    redis_addr: SocketAddr,
    grpc_addr: SocketAddr,
    http_addr: SocketAddr,
    stores: Arc<Stores>,
    front: Arc<Front>,
    engine: EngineClient,
    stop: watch::Sender<bool>,
    attachment: JoinHandle<()>,
    tasks: JoinSet<()>,
}

impl Handle {
    /// This server's identity; stays with its folder.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// Where it listens for the Redis protocol.
    pub fn redis_addr(&self) -> SocketAddr {
        self.redis_addr
    }

    /// Where it listens for gRPC.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// Where it listens for HTTP.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// What it serves.
    pub fn stores(&self) -> &Arc<Stores> {
        &self.stores
    }

    /// Stops gracefully: requests that were received are answered. Takes a few seconds at most.
    pub async fn shutdown(mut self) -> Result<()> {
        self.attachment.abort();
        self.stop.send_replace(true);
        for client in self.front.clients.all() {
            client.end(Shutdown::Read);
        }
        self.engine.stop().await;
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_MAX, all).await.is_err() {
            warn!("some connections did not end in {} s: closing them", SHUTDOWN_MAX.as_secs());
            self.tasks.shutdown().await;
        }
        info!("stopped");
        Ok(())
    }
}

/// Starts a server that fetches through the client library.
pub async fn start(config: Config) -> Result<Handle> {
    let origin = crate::origin::cluster(client::Config {
        namenode: config.namenode.clone(),
        user: config.user.clone(),
        ..client::Config::default()
    });
    start_with(config, origin).await
}

/// Starts a server that fetches from `origin`.
pub async fn start_with(config: Config, origin: Origin) -> Result<Handle> {
    let dir = config.dir.clone();
    let folder = Arc::new(off_thread(move || Folder::open(&dir)).await?);
    let (redis, redis_addr) = listen("redis_addr", &config.redis_addr).await?;
    let (grpc, grpc_addr) = listen("grpc_addr", &config.grpc_addr).await?;
    let (http, http_addr) = listen("http_addr", &config.http_addr).await?;
    let stores = Arc::new(Stores::new(&config.default_store));
    let fetcher = Arc::new(Fetcher::new(origin, fetch_limits(&config)));
    let parts = Parts {
        folder: folder.clone(),
        stores: stores.clone(),
        fetcher,
        verify_threads: config.fetch_streams,
        warm: config.warm,
        pauses: Pauses::default(),
    };
    let (engine, engine_task) = engine::start(parts).await?;
    let uuid = folder.uuid().to_owned();
    let front = Arc::new(Front::new(stores.clone(), config.clone(), uuid.clone()));
    let (stop, stopped) = watch::channel(false);
    let (attached, attached_seen) = watch::channel(false);
    let address = KvserveAddress {
        uuid: uuid.clone(),
        host: advertised_host(&config, redis_addr),
        redis_port: redis_addr.port().into(),
        grpc_port: grpc_addr.port().into(),
        http_port: http_addr.port().into(),
    };
    let reports = engine.reports();
    let namenode = config.namenode.clone();
    let attachment = Attachment { namenode, address, folder, engine: engine.clone(), attached };
    let pages = Pages { front: front.clone(), reports, attached: attached_seen };
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        if let Err(error) = engine_task.await {
            warn!(%error, "the engine ended");
        }
    });
    tasks.spawn(accept(redis, front.clone(), stopped.clone()));
    tasks.spawn(serve_grpc(grpc, front.clone(), stopped.clone()));
    tasks.spawn(serve_http(http, pages, stopped));
    info!(%redis_addr, %grpc_addr, %http_addr, uuid, "key-value server started");
    let attachment = tokio::spawn(attachment.run());
    Ok(Handle {
        uuid,
        redis_addr,
        grpc_addr,
        http_addr,
        stores,
        front,
        engine,
        stop,
        attachment,
        tasks,
    })
}

fn fetch_limits(config: &Config) -> FetchLimits {
    FetchLimits {
        streams: config.fetch_streams,
        chunk_bytes: config.fetch_chunk_bytes.clamp(4 << 10, 64 << 20),
        bytes_per_second: config.fetch_bytes_per_second_max,
        disk_reserve_bytes: config.disk_reserve_bytes,
    }
}

async fn listen(setting: &str, addr: &str) -> Result<(TcpListener, SocketAddr)> {
    let failed = |error: &std::io::Error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => ": another process uses the port; set another",
            _ => "",
        };
        let mut wrapped = Error::io(format!("kvserve.{setting} {addr:?}"), error);
        wrapped.message.push_str(hint);
        wrapped
    };
    let resolved: Vec<SocketAddr> =
        tokio::net::lookup_host(addr).await.map_err(|error| failed(&error))?.collect();
    let first = resolved.first().ok_or_else(|| {
        Error::new(Code::InvalidArgument, format!("kvserve.{setting} {addr:?}: no address"))
    })?;
    let open = || {
        let socket = match first {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(*first)?;
        let listener = socket.listen(BACKLOG)?;
        let addr = listener.local_addr()?;
        Ok((listener, addr))
    };
    open().map_err(|error| failed(&error))
}

/// The host that clients are told.
fn advertised_host(config: &Config, listening: SocketAddr) -> String {
    if !config.advertised_host.is_empty() {
        return config.advertised_host.clone();
    }
    if !listening.ip().is_unspecified() {
        return listening.ip().to_string();
    }
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Accepts connections of the Redis protocol until told to stop, then waits for those that are open.
async fn accept(listener: TcpListener, front: Arc<Front>, mut stopped: watch::Receiver<bool>) {
    let mut sessions = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|&stop| stop) => break,
            Some(_ended) = sessions.join_next() => continue,
        };
        match accepted {
            Ok((socket, peer)) => {
                if let Some(session) = admit(socket, peer, &front) {
                    sessions.spawn(session);
                }
            }
            Err(error) => {
                // Out of file descriptors, mostly: others have to end first.
                warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    // Those that were accepted after the shutdown looked at the list.
    for client in front.clients.all() {
        client.end(Shutdown::Read);
    }
    while sessions.join_next().await.is_some() {}
}

/// Takes a connection in; the future serves it.
fn admit(
    socket: TcpStream,
    peer: SocketAddr,
    front: &Arc<Front>,
) -> Option<impl Future<Output = ()> + Send + use<>> {
    use std::os::fd::AsFd;
    let prepare = || {
        socket.set_nodelay(true)?;
        rustix::net::sockopt::set_socket_keepalive(&socket, true)?;
        let local = socket.local_addr()?;
        Ok((local, socket.as_fd().try_clone_to_owned()?))
    };
    let (local, handle) = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => {
            let error: std::io::Error = error;
            debug!(%peer, %error, "a connection ended before it began");
            return None;
        }
    };
    let Some(client) = front.clients.add(peer, local, handle) else {
        front.counters.refused.fetch_add(1, Relaxed);
        // An error means that the peer has left.
        let _left = socket.try_write(b"-ERR max number of clients reached\r\n").is_err();
        return None;
    };
    let front = front.clone();
    Some(async move {
        let id = client.id;
        if let Err(error) = serve(socket, front.clone(), client).await {
            debug!(%peer, %error, "a connection broke");
        }
        front.clients.remove(id);
    })
}

async fn serve_grpc(listener: TcpListener, front: Arc<Front>, mut stopped: watch::Receiver<bool>) {
    let service = KvServer::new(KvService::new(front))
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(REPLY_BYTES_MAX + (1 << 20));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let served = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, async move {
            // An error means that the handle is gone: stop as well.
            let _gone = stopped.wait_for(|&stop| stop).await.is_err();
        });
    if let Err(error) = served.await {
        warn!(%error, "gRPC ended");
    }
}

async fn serve_http(listener: TcpListener, pages: Pages, mut stopped: watch::Receiver<bool>) {
    let listener = listener.tap_io(|socket| {
        if let Err(error) = socket.set_nodelay(true) {
            debug!(%error, "nodelay");
        }
    });
    let served = axum::serve(listener, router(pages)).with_graceful_shutdown(async move {
        // An error means that the handle is gone: stop as well.
        let _gone = stopped.wait_for(|&stop| stop).await.is_err();
    });
    if let Err(error) = served.await {
        warn!(%error, "HTTP ended");
    }
}
