//! Ctrl-C and SIGTERM.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Exit, Failure};

/// Both signals that ask a process to stop.
pub struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// Begins to listen: from now on neither signal ends the process by itself.
    pub fn listen() -> std::io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one, and tells its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// Waits until a command is told to stop. If signals cannot be had, they end the process as usual.
pub async fn stop() -> Failure {
    match Stop::listen() {
        Ok(mut stop) => {
            stop.next().await;
            Failure::silent(Exit::Interrupted)
        }
        Err(_) => std::future::pending().await,
    }
}
