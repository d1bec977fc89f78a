//! The port that is kept for Hadoop's RPC.
//!
//! An HTTP GET gets a plain 404 that tells what this port is, as Hadoop's own servers do; anything else is read up to
//! a bound and the connection is closed. Connections, bytes and time are bounded.
//!
//! Does not speak Hadoop's protocol yet.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::stop::Stop;

const CONNECTIONS_MAX: usize = 64;
const READ_BYTES_MAX: usize = 4_096;
const TIME_MAX: Duration = Duration::from_secs(5);
const BODY: &str = "This is the Hadoop RPC port of a Granary NameNode. It is reserved: Hadoop's protocol is not \
                    served here yet. The status page is on the HTTP port (9870 by default).\n";

/// Answers connections until told to stop.
pub async fn serve(listener: TcpListener, mut stop: Stop) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.wait() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept on the Hadoop RPC port");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // With no permit left the connection is closed at once.
        if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
            tokio::spawn(async move {
                if tokio::time::timeout(TIME_MAX, answer(stream)).await.is_err() {
                    tracing::debug!("a connection to the Hadoop RPC port was silent for too long");
                }
                drop(permit);
            });
        }
    }
}

async fn answer(mut stream: TcpStream) {
    let mut read = Vec::with_capacity(READ_BYTES_MAX);
    let mut buffer = [0u8; 512];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => read.extend_from_slice(&buffer[..count]),
        }
        let begins_http =
            b"GET ".starts_with(&read[..read.len().min(4)]) || read.starts_with(b"GET ");
        if !begins_http || read.len() > READ_BYTES_MAX {
            return;
        }
        if read.windows(4).any(|end| end == b"\r\n\r\n") {
            break;
        }
    }
    let reply = format!(
        "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{BODY}",
        BODY.len()
    );
    let sent = async {
        stream.write_all(reply.as_bytes()).await?;
        stream.shutdown().await
    };
    if let Err(error) = sent.await {
        tracing::debug!(%error, "a client of the Hadoop RPC port left early");
    }
}
