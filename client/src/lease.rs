//! The lease: the right of this client to write its open files, renewed in the background.
//!
//! One holder per [`crate::Fs`]. While at least one file is open a task renews the lease at the configured interval;
//! it ends with the last file. A renewal that fails is tried again at the next tick: the lease lasts several
//! intervals, and a writer learns of a lost one from its next call.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use proto::granary::RenewLeaseRequest;

use crate::namenode::NameNode;

/// The lease of one client process.
#[derive(Debug)]
pub(crate) struct Lease {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    namenode: Arc<NameNode>,
    holder: String,
    interval: Duration,
    /// The guard that open files share; the renewal task lives as long as it.
    guard: Mutex<Weak<Guard>>,
}

/// Keeps the lease renewed while it lives.
#[derive(Debug)]
pub(crate) struct Guard {
    renewal: tokio::task::AbortHandle,
}

impl Lease {
    pub(crate) fn new(namenode: Arc<NameNode>, interval_ms: u64) -> Self {
        Self {
            inner: Arc::new(Inner {
                namenode,
                holder: format!("granary-client-{}", uuid::Uuid::new_v4()),
                interval: Duration::from_millis(interval_ms.max(1)),
                guard: Mutex::default(),
            }),
        }
    }

    /// The name by which the NameNode knows this writer.
    pub(crate) fn holder(&self) -> &str {
        &self.inner.holder
    }

    /// Renews the lease as long as the returned guard lives.
    pub(crate) fn hold(&self) -> Arc<Guard> {
        let mut shared = self.inner.guard.lock().expect("nobody panics while holding the guard");
        if let Some(guard) = shared.upgrade() {
            return guard;
        }
        let renewal = tokio::spawn(renew(self.inner.clone())).abort_handle();
        let guard = Arc::new(Guard { renewal });
        *shared = Arc::downgrade(&guard);
        guard
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

async fn renew(lease: Arc<Inner>) {
    loop {
        tokio::time::sleep(lease.interval).await;
        let request =
            RenewLeaseRequest { caller: lease.namenode.caller(), holder: lease.holder.clone() };
        let renewed = lease
            .namenode
            .namespace("renew lease", "RenewLease", request, async |mut stub, q| {
                stub.renew_lease(q).await
            })
            .await;
        if let Err(error) = renewed {
            tracing::warn!(holder = lease.holder, %error, "the lease was not renewed");
        }
    }
}
