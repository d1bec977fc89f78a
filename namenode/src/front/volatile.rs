//! The shell around the volatile cores: their locks, their clock, and who is woken by what they say.
//!
//! Lock order: the state's lock (taken by `Log::read`, or by the log while it gives effects), then the cluster's or
//! the controller's; never the other way, never two of these, and nothing is awaited under one.
//!
//! Always holds: after the cluster's lock is given back, its effects are carried out; so whoever changed it need not
//! think of whom to wake.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use proto::{BlockId, Txid};
use tokio::sync::{Notify, Semaphore, watch};

use super::fsck::CHECKS_MAX;
use super::metrics::Metrics;
use crate::cluster::datanodes::NodeIndex;
use crate::cluster::replicas::BlockTruth;
use crate::cluster::service::Wish;
use crate::cluster::{self, Cluster};
use crate::op::node::NodeWish;
use crate::op::{self, BlockState};
use crate::serving::controller::Controller;

/// Callers that may wait for replicas of blocks at once.
const WAITERS_MAX: usize = 100_000;

/// Everything that is not in the journal.
pub struct Volatile {
    cluster: Mutex<Cluster>,
    controller: Mutex<Controller>,
    /// Counters.
    pub metrics: Metrics,
    started: Instant,
    wakers: RwLock<Vec<Arc<Notify>>>,
    waiters: Mutex<HashMap<BlockId, (usize, Arc<Notify>)>>,
    waiting: AtomicUsize,
    /// Counts changes of the catalogue.
    catalogue: watch::Sender<u64>,
    /// Something may be for the controller, or a lease, to decide.
    pub decide: Notify,
    /// One permit per check of files.
    pub checks: Arc<Semaphore>,
}

impl Volatile {
    /// Around fresh cores.
    pub fn new(settings: &cluster::Settings, kvserve_dead_after_ms: u64) -> Self {
        Self {
            cluster: Mutex::new(Cluster::new(settings)),
            controller: Mutex::new(Controller::new(kvserve_dead_after_ms)),
            metrics: Metrics::default(),
            started: Instant::now(),
            wakers: RwLock::default(),
            waiters: Mutex::default(),
            waiting: AtomicUsize::new(0),
            catalogue: watch::Sender::new(0),
            decide: Notify::new(),
            checks: Arc::new(Semaphore::new(CHECKS_MAX)),
        }
    }

    /// Milliseconds since this process began to serve: the cores' clock, which never goes back.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Works on the cluster, then wakes whom that concerns.
    pub fn cluster<R>(&self, work: impl FnOnce(&mut Cluster, u64) -> R) -> R {
        let now_ms = self.now_ms();
        let mut cluster = lock(&self.cluster);
        let result = work(&mut cluster, now_ms);
        let effects = cluster.take_effects();
        drop(cluster);
        for effect in effects {
            self.carry_out(effect);
        }
        result
    }

    /// Works on the controller.
    pub fn controller<R>(&self, work: impl FnOnce(&mut Controller, u64) -> R) -> R {
        let now_ms = self.now_ms();
        work(&mut lock(&self.controller), now_ms)
    }

    /// Takes the effects of journaled operations, in their order.
    pub fn take(&self, txid: Txid, effects: &[op::Effect]) {
        self.metrics.took_effects(effects.len());
        let mut catalogue = false;
        self.cluster(|cluster, now_ms| {
            for effect in effects {
                catalogue |= matches!(effect, op::Effect::CatalogueChanged { .. });
                take_one(cluster, now_ms, effect);
            }
        });
        if catalogue {
            self.catalogue.send_replace(txid.0);
            self.decide.notify_one();
        }
    }

    /// Tells of each change of the catalogue.
    pub fn watch_catalogue(&self) -> watch::Receiver<u64> {
        self.catalogue.subscribe()
    }

    /// Has every kvserve stream look again.
    pub fn wake_kvservers(&self) {
        self.catalogue.send_modify(|_| {});
    }

    /// What wakes the sender of a DataNode's stream.
    pub fn waker(&self, node: NodeIndex) -> Arc<Notify> {
        let number = usize::from(node.0);
        if let Some(waker) = self.wakers.read().unwrap_or_else(PoisonError::into_inner).get(number)
        {
            return Arc::clone(waker);
        }
        let mut wakers = self.wakers.write().unwrap_or_else(PoisonError::into_inner);
        while wakers.len() <= number {
            wakers.push(Arc::default());
        }
        Arc::clone(&wakers[number])
    }

    /// A fresh waker for a node's new stream; the old stream's sender is woken, to find that it is fenced off.
    pub fn new_waker(&self, node: NodeIndex) -> Arc<Notify> {
        let old = self.waker(node);
        let fresh = Arc::new(Notify::new());
        let mut wakers = self.wakers.write().unwrap_or_else(PoisonError::into_inner);
        wakers[usize::from(node.0)] = Arc::clone(&fresh);
        drop(wakers);
        old.notify_one();
        fresh
    }

    /// What wakes whoever waits for a block's replicas; `None` when too many wait already.
    pub fn wait_for(self: &Arc<Self>, id: BlockId) -> Option<Waiter> {
        if self.waiting.fetch_add(1, Ordering::SeqCst) >= WAITERS_MAX {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        let mut waiters = lock(&self.waiters);
        let (count, notify) = waiters.entry(id).or_default();
        *count += 1;
        Some(Waiter { volatile: Arc::clone(self), id, notify: Arc::clone(notify) })
    }

    fn carry_out(&self, effect: cluster::Effect) {
        match effect {
            cluster::Effect::Wake(node) => self.waker(node).notify_one(),
            cluster::Effect::Finalized(id) => {
                if self.waiting.load(Ordering::SeqCst) > 0
                    && let Some((_, notify)) = lock(&self.waiters).get(&id)
                {
                    notify.notify_waiters();
                }
            }
            cluster::Effect::LeftSafeMode => {
                tracing::info!("safe mode is over");
                self.decide.notify_one();
            }
            cluster::Effect::Served(node, service) => {
                tracing::info!(node = node.0, ?service, "a DataNode is for something else now");
            }
            cluster::Effect::Died(node) => {
                tracing::warn!(node = node.0, "a DataNode is dead: its replicas do not count");
            }
        }
    }
}

/// One caller that waits for a block's replicas.
pub struct Waiter {
    volatile: Arc<Volatile>,
    id: BlockId,
    notify: Arc<Notify>,
}

impl Waiter {
    /// Becomes ready when the block's replicas change after this was called and the future was first polled or
    /// enabled.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiters = lock(&self.volatile.waiters);
        if let Some((count, _)) = waiters.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                waiters.remove(&self.id);
            }
        }
        self.volatile.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One effect of a journaled operation, taken by the cluster.
fn take_one(cluster: &mut Cluster, now_ms: u64, effect: &op::Effect) {
    match effect {
        op::Effect::BlockAdded { block, replication, policy, .. } => {
            let truth = truth(block, BlockState::BeingWritten, *replication, *policy);
            cluster.block_changed(block.id, Some(&truth));
        }
        op::Effect::BlockChanged { block, state, policy, .. } => {
            if let Some(replication) = cluster.replicas.wanted(block.id) {
                cluster.block_changed(block.id, Some(&truth(block, *state, replication, *policy)));
            }
        }
        op::Effect::BlockRemoved { block, .. } => cluster.block_changed(block.id, None),
        op::Effect::ReplicationChanged { block, replication, .. } => {
            cluster.replication_changed(*block, *replication);
        }
        op::Effect::RecoveryStarted(recovery) => {
            let replication = cluster.replicas.wanted(recovery.block.id).unwrap_or(1);
            let state = BlockState::UnderRecovery;
            let truth = truth(&recovery.block, state, replication, recovery.policy);
            let names = (recovery.block.id, recovery.inode);
            if !cluster.begin_recovery(
                now_ms,
                names,
                &truth,
                recovery.new_stamp,
                recovery.new_length,
            ) {
                tracing::debug!(block = %recovery.block.id, "no live replica can lead a recovery");
            }
        }
        op::Effect::LeaseTaken { holder, .. } => cluster.leases.renew(now_ms, holder),
        op::Effect::NodeWished { node, wish } => {
            cluster.set_wish(now_ms, node, wish.map(|wish| wish_at(now_ms, wish)));
        }
        // Whether the holder has other files open is seen when its term is over.
        op::Effect::LeaseGone { .. } | op::Effect::CatalogueChanged { .. } => {}
    }
}

/// The namespace's view of a block, as the cluster takes it.
pub fn truth(block: &op::Block, state: BlockState, replication: u32, policy: u8) -> BlockTruth {
    BlockTruth {
        stamp: block.stamp,
        length: block.length,
        complete: state == BlockState::Complete,
        replication,
        policy,
    }
}

/// A wish with its end on the cores' clock.
pub fn wish_at(now_ms: u64, wish: NodeWish) -> Wish {
    match wish {
        NodeWish::Decommission => Wish::Decommission,
        NodeWish::Maintenance { until_ns } => {
            let left_ns = until_ns.saturating_sub(now_ns());
            let left_ms = u64::try_from(left_ns / 1_000_000).unwrap_or(0);
            Wish::Maintenance { until_ms: now_ms.saturating_add(left_ms) }
        }
    }
}

/// A wall clock reading for the journal, in nanoseconds since 1970-01-01 UTC.
#[allow(clippy::disallowed_methods, reason = "the shell reads the clock, once per operation")]
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A lock whose holder panicked is taken all the same: the cores assert before they change anything, and a wrong
/// count is better than a NameNode that answers nobody. The panic itself is told by the runtime.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
