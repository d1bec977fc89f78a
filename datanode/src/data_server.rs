//! The data-transfer server: DataTransferProtocol over TCP, and over a Unix socket for clients on this machine.
//!
//! One task for each connection; one request after the other; a connection that asks nothing for a while is closed.
//! Bounds: connections ([`Limits::transfers_max`]), messages and packets (crate `transfer`), bytes that wait for the
//! disk (the store's sessions), and time: a peer that stalls is given up. Garbage closes the connection quietly: the
//! protocol has no answer to it.
//!
//! | part | owns |
//! |---|---|
//! | [`read`](self::read) | op 81 |
//! | [`write`](self::write), [`respond`](self::respond) | op 80: packets down, acks up |
//! | [`transfer`] | op 86, and transfers at the NameNode's command |
//! | [`checksum`](self::checksum), [`group_checksum`] | op 85, op 90 |
//! | [`local`](self::local) | op 87 on the Unix socket |

mod checksum;
mod group_checksum;
mod local;
mod read;
mod respond;
pub mod transfer;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::transfer::connection::{Pool, Timeouts};
use ::transfer::op::{self, Request};
use proto::hadoop::hdfs::{BlockOpResponseProto, ExtendedBlockProto};
use proto::{BlockId, Code, Error, GenerationStamp, Result, limits};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, watch};

use crate::config::Config;
use crate::store::Store;

/// Bytes that are read ahead of small messages; packets bypass it.
const READ_BUFFER_BYTES: usize = 8 << 10;
/// Idle connections to other DataNodes that are kept.
const IDLE_MAX: usize = 64;
/// How long they are kept, in milliseconds.
const IDLE_MS: u64 = 10_000;
/// Requests that are known to exist and are not served: metadata, replace, copy, shared memory, custom.
const UNSUPPORTED_OPS: [u8; 6] = [82, 83, 84, 88, 89, 127];

/// The bounds of the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub transfers_max: usize,
    /// A connection without a request is closed after this.
    pub idle: Duration,
    /// A peer without progress is given up after this, in milliseconds.
    pub stall_ms: u64,
    /// A read beyond what is visible of a replica being written waits so long for it, in milliseconds.
    pub visible_wait_ms: u64,
    /// Deadlines towards other DataNodes.
    pub timeouts: Timeouts,
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        Self {
            transfers_max: usize::try_from(config.transfers_max)
                .unwrap_or(Semaphore::MAX_PERMITS)
                .min(Semaphore::MAX_PERMITS),
            idle: Duration::from_millis(config.idle_timeout_ms),
            stall_ms: config.stall_timeout_ms,
            visible_wait_ms: config.visible_wait_ms,
            timeouts: Timeouts {
                connect_ms: config.connect_timeout_ms,
                idle_ms: config.stall_timeout_ms,
                ..Timeouts::default()
            },
        }
    }
}

/// What the server counts.
#[derive(Default)]
pub struct Counters {
    /// Readers and writers now.
    pub active: AtomicU64,
    /// Connections taken since the start.
    pub connections: AtomicU64,
    /// Connections refused because there were too many.
    pub refused: AtomicU64,
    /// Bytes of blocks sent to readers.
    pub read_bytes: AtomicU64,
    /// Bytes of blocks received from writers.
    pub written_bytes: AtomicU64,
    /// Requests that failed.
    pub failures: AtomicU64,
    /// Packets whose checksums did not fit.
    pub checksum_failures: AtomicU64,
}

/// The data-transfer server.
pub struct DataServer {
    store: Arc<Store>,
    limits: Limits,
    counters: Counters,
    slots: Arc<Semaphore>,
    /// Idle connections to other DataNodes: the next block of a pipeline often takes the same way.
    pool: Arc<Pool>,
}

/// Whether a connection can take another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    KeepOpen,
    Close,
}

/// Both directions of a connection.
struct Wire<R, W> {
    reader: BufReader<R>,
    writer: W,
}

impl DataServer {
    /// A server of these replicas.
    pub fn new(store: Arc<Store>, limits: Limits) -> Arc<Self> {
        let slots = Arc::new(Semaphore::new(limits.transfers_max));
        let pool = Arc::new(Pool::new(limits.timeouts, IDLE_MAX, IDLE_MS));
        Arc::new(Self { store, limits, counters: Counters::default(), slots, pool })
    }

    /// What it counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Idle connections to other DataNodes.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Readers and writers now.
    pub fn active(&self) -> u32 {
        u32::try_from(self.counters.active.load(Ordering::Relaxed)).unwrap_or(u32::MAX)
    }

    /// Serves TCP connections until `stop` becomes true.
    pub async fn serve_tcp(self: Arc<Self>, listener: TcpListener, stop: watch::Receiver<bool>) {
        let server = self.clone();
        self.accept(
            stop,
            || listener.accept(),
            move |(stream, _), stop| server.clone().serve_stream(stream, stop),
        )
        .await;
    }

    /// Serves connections on the Unix socket until `stop` becomes true.
    pub async fn serve_unix(self: Arc<Self>, listener: UnixListener, stop: watch::Receiver<bool>) {
        let server = self.clone();
        self.accept(
            stop,
            || listener.accept(),
            move |(stream, _), stop| local::serve(server.clone(), stream, stop),
        )
        .await;
    }

    async fn accept<C, A, S>(
        &self,
        stop: watch::Receiver<bool>,
        mut accept: impl FnMut() -> A,
        serve: impl Fn(C, watch::Receiver<bool>) -> S,
    ) where
        A: Future<Output = std::io::Result<C>>,
        S: Future<Output = ()> + Send + 'static,
    {
        loop {
            let accepted = tokio::select! {
                accepted = accept() => accepted,
                () = stopped(stop.clone()) => return,
            };
            let connection = match accepted {
                Ok(connection) => connection,
                Err(error) => {
                    // Out of descriptors, mostly: wait for some to be given back.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(slot) = self.slots.clone().try_acquire_owned() else {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    max = self.limits.transfers_max,
                    "too many connections: one refused"
                );
                continue;
            };
            self.counters.connections.fetch_add(1, Ordering::Relaxed);
            let serving = serve(connection, stop.clone());
            tokio::spawn(async move {
                serving.await;
                drop(slot);
            });
        }
    }

    async fn serve_stream(self: Arc<Self>, stream: TcpStream, stop: watch::Receiver<bool>) {
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let (reader, writer) = stream.into_split();
        let reader = BufReader::with_capacity(READ_BUFFER_BYTES, reader);
        let mut wire = Wire { reader, writer };
        loop {
            let Some(request) = self.next_request(&mut wire, &stop).await else { return };
            let serving = self.serve_request(&mut wire, request);
            let after = tokio::select! {
                after = serving => after,
                () = stopped(stop.clone()) => return,
            };
            if after == After::Close {
                return;
            }
        }
    }

    /// The next request; `None` if there is none to come: closed, idle, garbage, stopping.
    async fn next_request<R: AsyncRead + Unpin, W>(
        &self,
        wire: &mut Wire<R, W>,
        stop: &watch::Receiver<bool>,
    ) -> Option<Request> {
        let request = tokio::time::timeout(self.limits.idle, op::read_request(&mut wire.reader));
        tokio::select! {
            request = request => match request {
                Ok(Ok(request)) => request,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "connection closed");
                    None
                }
                Err(_) => None,
            },
            () = stopped(stop.clone()) => None,
        }
    }

    async fn serve_request<R, W>(&self, wire: &mut Wire<R, W>, request: Request) -> After
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send,
    {
        let _active = Active::begin(&self.counters);
        let result = match request {
            Request::ReadBlock(request) => read::serve(self, wire, request).await,
            Request::WriteBlock(request) => write::serve(self, wire, *request).await,
            Request::TransferBlock(request) => transfer::serve(self, wire, *request).await,
            Request::BlockChecksum(request) => checksum::serve(self, wire, request).await,
            Request::BlockGroupChecksum(request) => {
                group_checksum::serve(self, wire, *request).await
            }
            Request::ShortCircuitFds(_) => {
                let error = Error::new(
                    Code::Unsupported,
                    "open files are handed over on the Unix socket only",
                );
                wire.refuse(&error).await.map(|()| After::KeepOpen)
            }
            Request::Unknown(number) => refuse_unknown(wire, number).await,
        };
        result.unwrap_or_else(|error| {
            self.counters.failures.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%error, "request failed");
            After::Close
        })
    }
}

/// Counts a request as long as it is served.
struct Active<'a>(&'a Counters);

impl<'a> Active<'a> {
    fn begin(counters: &'a Counters) -> Self {
        counters.active.fetch_add(1, Ordering::Relaxed);
        Self(counters)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<R, W: AsyncWrite + Unpin> Wire<R, W> {
    async fn reply(&mut self, reply: &BlockOpResponseProto) -> Result<()> {
        let bytes = op::encode_delimited(reply);
        self.writer.write_all(&bytes).await.map_err(|error| Error::io("send a reply", &error))
    }

    async fn refuse(&mut self, error: &Error) -> Result<()> {
        self.reply(&op::error_response(error)).await
    }
}

/// Answers a request that is known to exist and is not served; says nothing to any other.
async fn refuse_unknown<R, W>(wire: &mut Wire<R, W>, number: u8) -> Result<After>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    if UNSUPPORTED_OPS.contains(&number) {
        // The message is taken off the wire first: closing with unread bytes would reset the connection.
        op::read_delimited(&mut wire.reader, limits::TRANSFER_MESSAGE_BYTES_MAX).await?;
        let error = Error::new(Code::Unsupported, format!("op {number} is not served"));
        // The replies about shared memory have their text where others name a bad link.
        let mut reply = op::error_response(&error);
        reply.first_bad_link = reply.message.clone();
        wire.reply(&reply).await?;
    }
    Ok(After::Close)
}

/// Returns when `stop` becomes true, or nobody can set it any more.
async fn stopped(mut stop: watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// Which block a request names.
fn block_of(store: &Store, block: &ExtendedBlockProto) -> Result<(BlockId, GenerationStamp)> {
    store.check_pool(&block.pool_id)?;
    Ok((BlockId(block.block_id), GenerationStamp(block.generation_stamp)))
}

#[cfg(test)]
mod tests;
