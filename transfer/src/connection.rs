//! Connections to DataNodes: dialling, deadlines, and a small pool of idle ones.
//!
//! A read leaves its connection usable, and the next read of the same DataNode takes it from the pool. What holds:
//! the pool keeps at most `idle_max` connections and none longer than `idle_ms`; one that the peer has closed
//! meanwhile, or on which unexpected bytes wait, is not handed out. A connection can still die at any moment: who
//! takes one from the pool must be ready to dial, as [`Pool::ask`] is. A pipeline's connection goes back to the pool
//! only after a block that ended well on it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use proto::granary::DatanodeAddress;
use proto::hadoop::hdfs::{BlockOpResponseProto, DatanodeIdProto, DatanodeInfoProto};
use proto::{Code, Error, Result};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::op;

/// Bytes that are read ahead of small messages; packets bypass it.
const READ_BUFFER_BYTES: usize = 4 << 10;

/// [`Pool::ask`] uses no connection that was idle for longer: a DataNode whose machine went away meanwhile would answer
/// neither yes nor no, and the caller would wait for a reply as long as for a slow disk.
const ASK_IDLE_MAX: Duration = Duration::from_secs(2);

/// Deadlines of the data plane. All in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To connect.
    pub connect_ms: u64,
    /// Without any progress while reading or writing. For a pipeline, `per_node_ms` is added for each DataNode.
    pub idle_ms: u64,
    /// Added for each DataNode of a pipeline, so that the DataNodes downstream notice a fault before their writer.
    pub per_node_ms: u64,
    /// How often a pipeline without packets is told that its writer lives.
    pub heartbeat_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect_ms: 5_000, idle_ms: 30_000, per_node_ms: 5_000, heartbeat_ms: 10_000 }
    }
}

/// The data-transfer port of a DataNode.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its uuid; empty if unknown.
    pub uuid: String,
    /// An IP address or a name.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Peer {
    /// From a DataNode's address. A port over 65535 is `InvalidArgument`.
    pub fn from_address(address: &DatanodeAddress) -> Result<Self> {
        Self::new(&address.uuid, &address.host, address.data_port)
    }

    /// From a target of a write or transfer request.
    pub fn from_info(info: &DatanodeInfoProto) -> Result<Self> {
        Self::new(&info.id.datanode_uuid, &info.id.ip_addr, info.id.xfer_port)
    }

    fn new(uuid: &str, host: &str, port: u32) -> Result<Self> {
        let port = u16::try_from(port).ok().filter(|&port| port != 0).ok_or_else(|| {
            Error::new(
                Code::InvalidArgument,
                format!("DataNode {uuid} at {host} has port {port}, expected 1 to 65535"),
            )
        })?;
        Ok(Self { uuid: uuid.to_owned(), host: host.to_owned(), port })
    }

    /// `host:port`, as `firstBadLink` names a DataNode.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataNode {}:{}", self.host, self.port)
    }
}

/// A DataNode as a target of a write or transfer request.
pub fn datanode_info(address: &DatanodeAddress) -> DatanodeInfoProto {
    DatanodeInfoProto {
        id: DatanodeIdProto {
            ip_addr: address.host.clone(),
            host_name: address.host.clone(),
            datanode_uuid: address.uuid.clone(),
            xfer_port: address.data_port,
            info_port: address.http_port,
            ipc_port: address.ipc_port,
            info_secure_port: None,
        },
        ..Default::default()
    }
}

/// Waits for `future` at most `ms` milliseconds. `what` says what did not happen.
pub async fn within<T>(
    ms: u64,
    what: impl fmt::Display,
    future: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(Duration::from_millis(ms), future).await {
        Ok(result) => result.map_err(|error| error.context(what)),
        Err(_) => Err(Error::new(Code::Timeout, format!("{what}: no progress within {ms} ms"))),
    }
}

/// Connects to a DataNode's data port, without Nagle's delay.
///
/// Socket buffers are left to the kernel, which sizes them by what the path needs.
pub async fn dial(peer: &Peer, timeouts: &Timeouts) -> Result<TcpStream> {
    within(timeouts.connect_ms, format!("connect to {peer}"), async {
        let stream = TcpStream::connect((peer.host.as_str(), peer.port))
            .await
            .map_err(|error| Error::io("connect", &error))?;
        stream.set_nodelay(true).map_err(|error| Error::io("set TCP_NODELAY", &error))?;
        Ok(stream)
    })
    .await
}

/// A connection with a small buffer for what is read.
#[derive(Debug)]
pub struct Connection {
    /// The stream; write through `get_mut`.
    pub stream: BufReader<TcpStream>,
    /// Whether it was used before: it may have died meanwhile.
    pub reused: bool,
}

impl Connection {
    /// A new connection.
    pub async fn dial(peer: &Peer, timeouts: &Timeouts) -> Result<Self> {
        let stream = dial(peer, timeouts).await?;
        Ok(Self { stream: BufReader::with_capacity(READ_BUFFER_BYTES, stream), reused: false })
    }

    /// A connection on which a request and all that followed are over.
    pub fn used(stream: TcpStream) -> Self {
        Self { stream: BufReader::with_capacity(READ_BUFFER_BYTES, stream), reused: true }
    }

    /// The stream alone, for what follows a reply. Bytes that came before they were asked for are an error.
    pub fn into_stream(self) -> Result<TcpStream> {
        let waiting = self.stream.buffer().len();
        if waiting > 0 {
            let text = format!("{waiting} bytes behind the reply");
            return Err(Error::new(Code::Incompatible, text));
        }
        Ok(self.stream.into_inner())
    }

    async fn ask(&mut self, request: &[u8]) -> Result<BlockOpResponseProto> {
        let sent = self.stream.write_all(request).await;
        sent.map_err(|error| Error::io("send", &error))?;
        op::read_response(&mut self.stream).await
    }

    /// Whether the peer keeps it open and nothing waits to be read.
    fn is_idle(&self) -> bool {
        let mut byte = [0; 1];
        self.stream.buffer().is_empty()
            && matches!(self.stream.get_ref().try_read(&mut byte),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

/// Idle connections by DataNode.
#[derive(Debug)]
pub struct Pool {
    idle_max: usize,
    idle: Duration,
    timeouts: Timeouts,
    connections: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    by_peer: HashMap<(String, u16), VecDeque<(Instant, Connection)>>,
    count: usize,
}

impl Pool {
    /// A pool of at most `idle_max` connections, each kept at most `idle_ms` milliseconds without use.
    pub fn new(timeouts: Timeouts, idle_max: usize, idle_ms: u64) -> Self {
        Self {
            idle_max,
            idle: Duration::from_millis(idle_ms),
            timeouts,
            connections: Mutex::default(),
        }
    }

    /// The deadlines that its connections are made with.
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// An idle connection if there is one, otherwise a new one.
    pub async fn get(&self, peer: &Peer) -> Result<Connection> {
        if let Some(connection) = self.take(peer, self.idle) {
            return Ok(connection);
        }
        Connection::dial(peer, &self.timeouts).await
    }

    /// Sends a request and waits for its reply, at most `reply_ms` milliseconds, over an idle connection if there is
    /// one. If that turns out to be dead, over a new one.
    pub async fn ask(
        &self,
        peer: &Peer,
        request: &[u8],
        reply_ms: u64,
        what: impl fmt::Display,
    ) -> Result<(BlockOpResponseProto, Connection)> {
        if let Some(mut idle) = self.take(peer, ASK_IDLE_MAX) {
            match within(reply_ms, &what, idle.ask(request)).await {
                Ok(reply) => return Ok((reply, idle)),
                Err(error) if error.code == Code::Unavailable => {
                    tracing::debug!(%peer, %error, "an idle connection had died unseen");
                }
                Err(error) => return Err(error),
            }
        }
        let mut fresh = Connection::dial(peer, &self.timeouts).await?;
        let reply = within(reply_ms, &what, fresh.ask(request)).await?;
        Ok((reply, fresh))
    }

    /// Takes back a connection on which the last request and its reply are over.
    pub fn put(&self, peer: &Peer, mut connection: Connection) {
        if !connection.is_idle() {
            return;
        }
        connection.reused = true;
        let now = Instant::now();
        let mut connections = self.lock();
        connections.drop_older(now, self.idle);
        if connections.count < self.idle_max {
            let key = (peer.host.clone(), peer.port);
            connections.by_peer.entry(key).or_default().push_back((now, connection));
            connections.count += 1;
        }
    }

    /// Connections that it holds.
    pub fn idle_count(&self) -> usize {
        self.lock().count
    }

    fn take(&self, peer: &Peer, idle_max: Duration) -> Option<Connection> {
        let mut connections = self.lock();
        let now = Instant::now();
        connections.drop_older(now, self.idle);
        let Idle { by_peer, count } = &mut *connections;
        let idle = by_peer.get_mut(&(peer.host.clone(), peer.port))?;
        // The youngest first: it is the least likely to have died.
        while let Some((since, connection)) = idle.pop_back() {
            *count -= 1;
            if now - since <= idle_max && connection.is_idle() {
                return Some(connection);
            }
        }
        None
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Idle> {
        self.connections.lock().expect("nobody panics while holding the pool")
    }
}

impl Idle {
    fn drop_older(&mut self, now: Instant, idle: Duration) {
        let Self { by_peer, count } = self;
        by_peer.retain(|_, connections| {
            while connections.front().is_some_and(|(since, _)| now - *since > idle) {
                connections.pop_front();
                *count -= 1;
            }
            !connections.is_empty()
        });
    }
}
