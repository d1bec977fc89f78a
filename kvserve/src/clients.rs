//! Who is connected over the Redis protocol: for CLIENT LIST and KILL, the limit on connections, and the shutdown.
//!
//! A connection is ended by shutting its socket down: its task then reads the end of the stream, answers what it had
//! received, and leaves. No task is aborted in the midst of a reply.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use rustix::net::Shutdown;

/// What is known of one connection.
#[derive(Debug)]
pub struct Client {
    /// Never reused.
    pub id: u64,
    /// The peer.
    pub peer: SocketAddr,
    /// This end.
    pub local: SocketAddr,
    /// When it connected.
    pub since: Instant,
    /// Milliseconds from `since` to its last batch of commands.
    pub last_ms: AtomicU64,
    /// What it told of itself.
    pub told: Mutex<Told>,
    socket: OwnedFd,
}

/// What a connection told of itself.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// CLIENT SETNAME.
    pub name: String,
    /// CLIENT SETINFO lib-name.
    pub lib_name: String,
    /// CLIENT SETINFO lib-ver.
    pub lib_version: String,
    /// Version of the protocol: 2 or 3.
    pub protocol: u8,
}

impl Client {
    /// What it told of itself.
    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("no holder panics")
    }

    /// Ends the connection: nothing more is read from it.
    pub fn end(&self, how: Shutdown) {
        // An error means that the peer has ended it already.
        let _ended = rustix::net::shutdown(&self.socket, how).is_err();
    }

    /// A line of CLIENT LIST.
    pub fn line(&self, command: &str) -> String {
        let told = self.told();
        let age = self.since.elapsed();
        let idle_ms = age.as_millis() as u64
            - self.last_ms.load(Ordering::Relaxed).min(age.as_millis() as u64);
        format!(
            "id={} addr={} laddr={} name={} age={} idle={} flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 cmd={command} \
             user=default redir=-1 resp={} lib-name={} lib-ver={}\n",
            self.id,
            self.peer,
            self.local,
            told.name,
            age.as_secs(),
            idle_ms / 1000,
            told.protocol,
            told.lib_name,
            told.lib_version,
        )
    }
}

/// All connections.
#[derive(Debug)]
pub struct Clients {
    count_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    accepted: u64,
    connected: BTreeMap<u64, Arc<Client>>,
}

impl Clients {
    /// Up to `count_max` connections.
    pub fn new(count_max: usize) -> Self {
        Self { count_max, inner: Mutex::default() }
    }

    /// Takes a connection in; `None`: there are too many.
    pub fn add(&self, peer: SocketAddr, local: SocketAddr, socket: OwnedFd) -> Option<Arc<Client>> {
        let mut inner = self.inner.lock().expect("no holder panics");
        if inner.connected.len() >= self.count_max {
            return None;
        }
        inner.accepted += 1;
        let told = Mutex::new(Told { protocol: 2, ..Told::default() });
        let (id, since) = (inner.accepted, Instant::now());
        let last_ms = AtomicU64::new(0);
        let client = Arc::new(Client { id, peer, local, since, last_ms, told, socket });
        inner.connected.insert(id, client.clone());
        Some(client)
    }

    /// Forgets a connection.
    pub fn remove(&self, id: u64) {
        self.inner.lock().expect("no holder panics").connected.remove(&id);
    }

    /// All that are connected, in the order in which they came.
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.inner.lock().expect("no holder panics").connected.values().cloned().collect()
    }

    /// How many are connected, and how many ever were.
    pub fn counts(&self) -> (usize, u64) {
        let inner = self.inner.lock().expect("no holder panics");
        (inner.connected.len(), inner.accepted)
    }
}
