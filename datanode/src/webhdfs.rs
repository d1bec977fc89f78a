//! WebHDFS on a DataNode: file contents over HTTP.
//!
//! | module | owns |
//! |---|---|
//! | [`reading`] | OPEN, GETFILECHECKSUM |
//! | [`writing`] | CREATE, APPEND |
//!
//! The NameNode sends clients here. This DataNode then is a client of the cluster like any other, in the name of the
//! user who asks: it asks its own NameNode, which checks permissions, and moves bytes by the data-transfer protocol,
//! mostly to and from itself. What holds: the address of a NameNode in a request is compared with the one that this
//! DataNode is attached to, and never dialled; the number of transfers and the memory of each are bounded; a slow
//! client or a slow pipeline holds the other back.

mod reading;
mod writing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::webhdfs::{Exception, PREFIX, Params, Result, answer, paths};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use client::Fs;
use ipc::exceptions::{self as class};
use proto::{Code, Error, FsPath};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, watch};

use crate::config::Config;
use crate::heartbeat::Attachment;

/// Data bytes of a packet that is written for a client.
const PACKET_BYTES: u32 = 256 << 10;
/// Packets of a writer that wait for their acks.
const PACKETS_IN_FLIGHT_MAX: usize = 16;
/// Bytes that are read before a client takes them.
const READ_AHEAD_BYTES: u64 = 4 << 20;
/// How long calls to a NameNode that is away or in safe mode are repeated, in milliseconds.
const RETRY_TOTAL_MS: u64 = 10_000;

/// What the requests share.
pub struct WebHdfs {
    /// The cluster, once a request needed it.
    fs: OnceCell<Fs>,
    settings: client::Config,
    attachment: Arc<Attachment>,
    transfers: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

impl WebHdfs {
    /// By these settings. `stopping` ends what is being written.
    pub fn new(
        config: &Config,
        attachment: Arc<Attachment>,
        stopping: watch::Receiver<bool>,
    ) -> Arc<Self> {
        let transfers = usize::try_from(config.webhdfs_transfers_max).unwrap_or(usize::MAX);
        Arc::new(Self {
            fs: OnceCell::new(),
            settings: client::Config {
                namenode: config.namenode.clone(),
                // Clients of WebHDFS say which bits a file gets.
                umask: 0,
                packet_bytes: PACKET_BYTES,
                write_packets_in_flight_max: PACKETS_IN_FLIGHT_MAX,
                read_ahead_bytes: READ_AHEAD_BYTES,
                connect_timeout_ms: config.connect_timeout_ms,
                connect_total_ms: config.connect_timeout_ms,
                retry_total_ms: RETRY_TOTAL_MS,
                transfer_timeout_ms: config.stall_timeout_ms,
                ..client::Config::default()
            },
            attachment,
            transfers: Arc::new(Semaphore::new(transfers.min(Semaphore::MAX_PERMITS))),
            stopping,
        })
    }

    /// The routes.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route(PREFIX, any(serve))
            .route(&format!("{PREFIX}/"), any(serve))
            .route(&format!("{PREFIX}/{{*path}}"), any(serve))
            .with_state(self)
    }

    /// The cluster, for this user.
    async fn fs(&self, user: &str) -> Result<Fs> {
        let connect = || Fs::connect(self.settings.clone());
        Ok(self.fs.get_or_try_init(connect).await?.for_user(user))
    }

    /// Room for one more transfer.
    fn permit(&self) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.transfers).try_acquire_owned().map_err(|_| {
            let text =
                "as many files are read and written over WebHDFS as may be at once: try again";
            Exception::from(Error::new(Code::Overloaded, text))
        })
    }

    /// The name of our NameNode, if it is the one that the request means. The NameNode may send clients here a moment
    /// before its answer to our registration is here: then that is waited for.
    async fn namenode(&self, params: &Params) -> Result<String> {
        let mut told = self.attachment.hadoop_rpc_addr();
        let known = told.wait_for(|addr| !addr.is_empty());
        let wait = Duration::from_millis(self.settings.connect_timeout_ms);
        let ours = match tokio::time::timeout(wait, known).await {
            Ok(Ok(addr)) => addr.clone(),
            _ => {
                let text = "this DataNode is not registered at its NameNode: try again";
                return Err(Error::new(Code::Unavailable, text).into());
            }
        };
        match params.text("namenoderpcaddress") {
            Some(theirs) if !is_same(&ours, theirs) => Err(Exception::parameter(
                "namenoderpcaddress",
                format_args!("this DataNode belongs to the NameNode {ours:?}, to no other"),
            )),
            Some(theirs) => Ok(theirs.to_owned()),
            None => Ok(ours),
        }
    }
}

/// Whether both name the same NameNode. One that listens on every address is known by its port.
fn is_same(ours: &str, theirs: &str) -> bool {
    match (ours.parse::<SocketAddr>(), theirs.parse::<SocketAddr>()) {
        (Ok(ours), Ok(theirs)) if ours.ip().is_unspecified() => ours.port() == theirs.port(),
        (Ok(ours), Ok(theirs)) => ours == theirs,
        _ => false,
    }
}

/// One request, taken apart.
struct Ask {
    web: Arc<WebHdfs>,
    params: Params,
    path: FsPath,
    user: String,
    /// What the NameNode is called.
    namenode: String,
}

impl Ask {
    async fn new(web: Arc<WebHdfs>, uri: &Uri) -> Result<Self> {
        let params = Params::parse(uri.query().unwrap_or(""))?;
        let user = params.user()?.to_owned();
        let path = FsPath::parse(&paths::path_of(uri.path())?)?;
        let namenode = web.namenode(&params).await?;
        Ok(Self { web, params, path, user, namenode })
    }

    async fn fs(&self) -> Result<Fs> {
        self.web.fs(&self.user).await
    }
}

async fn serve(State(web): State<Arc<WebHdfs>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let asked = Ask::new(web, &head.uri).await.map(|ask| (ask.params.op(), ask));
    let answered = match asked {
        Err(exception) => Err((exception, Some(body))),
        Ok((op, ask)) => match (&head.method, op.as_str()) {
            (&Method::GET, "OPEN") => reading::open(ask).await.map_err(|e| (e, Some(body))),
            (&Method::GET, "GETFILECHECKSUM") => {
                reading::checksum(ask).await.map_err(|e| (e, Some(body)))
            }
            (&Method::PUT, "CREATE") => writing::create(ask, body).await,
            (&Method::POST, "APPEND") => writing::append(ask, body).await,
            (_, op) => Err((Exception::new(class::ILLEGAL_ARGUMENT, no_such_op(op)), Some(body))),
        },
    };
    match answered {
        Ok(response) => response,
        Err((exception, body)) => {
            let Exception { class, message, .. } = &exception;
            tracing::debug!(uri = %head.uri, class, message, "refused");
            if let Some(body) = body {
                answer::drain(&head.headers, body).await;
            }
            exception.into_response()
        }
    }
}

fn no_such_op(op: &str) -> String {
    let shown: String = op.chars().take(200).collect();
    format!("Invalid operation {shown}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_another_namenode_is_not_ours() {
        assert!(is_same("127.0.0.1:8020", "127.0.0.1:8020"));
        assert!(is_same("0.0.0.0:8020", "10.1.2.3:8020"));
        assert!(!is_same("127.0.0.1:8020", "127.0.0.1:8021"));
        assert!(!is_same("127.0.0.1:8020", "10.1.2.3:8020"));
        assert!(!is_same("0.0.0.0:8020", "evil.example:8020"));
        assert!(!is_same("", ""));
    }
}
