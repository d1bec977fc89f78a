//! A listener that bounds what strangers may take: connections, and their silence.
//!
//! When every connection is taken, further ones wait in the operating system's queue until one ends. A connection on
//! which no byte moves although one is waited for is ended after a while: a client that went away, one that sends its
//! header a byte an hour, one that stopped reading. What HTTP itself bounds (headers, their number, the URL) is bounded
//! by hyper.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The client's.
    pub remote: SocketAddr,
    /// Ours, as the client dialled it; unknown if the connection is gone already.
    pub local: Option<SocketAddr>,
}

impl Connected<IncomingStream<'_, Port>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Port>) -> Self {
        Self { remote: *stream.remote_addr(), local: stream.io().stream.local_addr().ok() }
    }
}

/// A listener with bounds.
pub struct Port {
    listener: TcpListener,
    connections: Arc<Semaphore>,
    silence_max: Duration,
}

impl Port {
    /// At most `connections_max` at once, each silent for at most `silence_max`.
    pub fn new(listener: TcpListener, connections_max: usize, silence_max: Duration) -> Self {
        let connections = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        Self { listener, connections, silence_max }
    }
}

impl Listener for Port {
    type Io = Bounded;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Bounded, SocketAddr) {
        let permit = Arc::clone(&self.connections).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, %peer, "a connection without TCP_NODELAY");
                    }
                    return (Bounded::new(stream, permit, self.silence_max), peer);
                }
                Err(error) => {
                    tracing::warn!(%error, "accept on an HTTP port");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with bounds.
pub struct Bounded {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
    silence_max: Duration,
    /// When the silence has lasted too long; armed while a byte is waited for.
    deadline: Pin<Box<Sleep>>,
    armed: bool,
}

impl Bounded {
    fn new(stream: TcpStream, permit: OwnedSemaphorePermit, silence_max: Duration) -> Self {
        let deadline = Box::pin(tokio::time::sleep(silence_max));
        Self { stream, _permit: permit, silence_max, deadline, armed: false }
    }

    /// Passes on an outcome, or ends a silence that has lasted too long.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.armed = false;
            return outcome;
        }
        if !self.armed {
            self.armed = true;
            let deadline = Instant::now() + self.silence_max;
            self.deadline.as_mut().reset(deadline);
        }
        ready!(self.deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the connection was silent")))
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.watch(cx, outcome)
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn port(connections_max: usize, silence_max: Duration) -> (Port, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        (Port::new(listener, connections_max, silence_max), addr)
    }

    #[tokio::test]
    async fn a_silent_connection_is_ended_and_a_talking_one_is_not() {
        let (mut port, addr) = port(4, Duration::from_millis(100)).await;
        let mut client = TcpStream::connect(addr).await.unwrap();
        let (mut served, _) = port.accept().await;
        for _ in 0..3 {
            client.write_all(b"x").await.unwrap();
            assert_eq!(served.read_u8().await.unwrap(), b'x');
        }
        let error = served.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_further_connection_waits_until_one_ends() {
        let (mut port, addr) = port(1, Duration::from_secs(60)).await;
        let _first = TcpStream::connect(addr).await.unwrap();
        let _second = TcpStream::connect(addr).await.unwrap();
        let (served, _) = port.accept().await;
        let waited = tokio::time::timeout(Duration::from_millis(50), port.accept()).await;
        assert!(waited.is_err(), "the second was let in beside the first");
        drop(served);
        port.accept().await;
    }
}
