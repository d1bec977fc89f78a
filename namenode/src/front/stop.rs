//! Tells every task of the server to stop: one switch, many listeners.

use tokio::sync::watch;

/// The switch.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// One listener.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// A switch that is not thrown, and a listener.
pub fn new() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Throws the switch, for all listeners, for ever.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Whether the switch is thrown.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the switch is thrown, or is gone.
    pub async fn wait(&mut self) {
        // An error says that the switch is gone, which is as good as thrown.
        if self.0.wait_for(|&stopped| stopped).await.is_err() {
            tracing::debug!("the stop switch is gone");
        }
    }
}
