//! One operation at a time for each block: create, take over, finish, recover, delete.
//!
//! A claim is held across file IO, which no lock may be; it covers one block only. Who waits for a claim must not hold
//! another one that the holder could need. Claims are given back when dropped, also by a job that panics.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use proto::BlockId;
use tokio::sync::Notify;

/// Blocks on which an operation runs.
#[derive(Clone, Default)]
pub struct Claims {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    held: Mutex<HashSet<BlockId>>,
    released: Notify,
}

/// The right to change one block's replica.
#[must_use = "a claim that is dropped at once protects nothing"]
pub struct Claim {
    block: BlockId,
    inner: Arc<Inner>,
}

impl Claims {
    /// Waits until nobody else works on `block`.
    pub async fn claim(&self, block: BlockId) -> Claim {
        loop {
            let mut released = std::pin::pin!(self.inner.released.notified());
            released.as_mut().enable();
            if self.inner.held.lock().expect("nobody panics while holding it").insert(block) {
                return Claim { block, inner: self.inner.clone() };
            }
            released.await;
        }
    }

    /// Whether somebody works on `block` now.
    pub fn is_held(&self, block: BlockId) -> bool {
        self.inner.held.lock().expect("nobody panics while holding it").contains(&block)
    }
}

impl Claim {
    /// Which block.
    pub fn block(&self) -> BlockId {
        self.block
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.inner.held.lock().expect("nobody panics while holding it").remove(&self.block);
        self.inner.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_block_has_one_claim_at_a_time_and_everybody_gets_it() {
        let claims = Claims::default();
        let inside = Arc::new(AtomicU32::new(0));
        let tasks: Vec<_> = (0..50u64)
            .map(|n| {
                let (claims, inside) = (claims.clone(), inside.clone());
                tokio::spawn(async move {
                    let _claim = claims.claim(BlockId(n % 2)).await;
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
}
