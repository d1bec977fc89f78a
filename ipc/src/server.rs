//! A port: accepts connections, and holds what they share: the service, the bounds, and what is used of them.
//!
//! Each connection is one task ([`crate::connection`]). When the port is told to stop, it accepts no more and drops
//! its connections with their calls: to a client that is a broken connection, after which it asks again.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

use crate::call::Service;
use crate::connection;
use crate::settings::Settings;

/// How long to wait after an accept that failed: mostly, file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the connections of a port share.
pub(crate) struct Port<S> {
    pub service: Arc<S>,
    pub settings: Settings,
    /// A permit for each call in flight.
    pub calls: Arc<Semaphore>,
    /// What is left of `buffered_bytes_max`.
    pub buffers: Arc<Budget>,
}

/// Bytes that may still be taken.
pub(crate) struct Budget(AtomicUsize);

/// Bytes taken from a budget, given back when dropped.
pub(crate) struct Taken {
    budget: Arc<Budget>,
    bytes: usize,
}

/// Answers the connections of a port until `stop` is done. Connections end with it.
pub async fn serve<S: Service>(
    listener: TcpListener,
    service: Arc<S>,
    settings: Settings,
    stop: impl Future<Output = ()>,
) {
    let port = Arc::new(Port {
        service,
        calls: Arc::new(Semaphore::new(settings.calls_in_flight_max)),
        buffers: Arc::new(Budget(AtomicUsize::new(settings.buffered_bytes_max))),
        settings,
    });
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => admit(stream, peer, &port, &mut connections),
                Err(error) => {
                    tracing::warn!(%error, "accept on a Hadoop RPC port");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

fn admit<S: Service>(
    stream: TcpStream,
    peer: SocketAddr,
    port: &Arc<Port<S>>,
    connections: &mut JoinSet<()>,
) {
    let max = port.settings.connections_max;
    if connections.len() >= max {
        tracing::warn!(%peer, max, "a Hadoop RPC port has all the connections it may have");
        return;
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "a Hadoop RPC client left at once");
        return;
    }
    connections.spawn(connection::run(stream, peer, Arc::clone(port)));
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a Hadoop RPC connection's task panicked");
    }
}

impl Budget {
    /// Nothing, taken from this budget.
    pub fn nothing(self: &Arc<Self>) -> Taken {
        Taken { budget: Arc::clone(self), bytes: 0 }
    }
}

impl Taken {
    /// Takes more until it is `bytes`; whether there was enough.
    pub fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let left = &self.budget.0;
        let enough = left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(more))
            .is_ok();
        if enough {
            self.bytes += more;
        }
        enough
    }

    /// Hands what was taken to another owner.
    pub fn hand_over(&mut self) -> Option<Taken> {
        let bytes = std::mem::take(&mut self.bytes);
        (bytes > 0).then(|| Taken { budget: Arc::clone(&self.budget), bytes })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.0.fetch_add(self.bytes, Ordering::Relaxed);
        }
    }
}
