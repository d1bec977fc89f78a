//! The scrubber: verifies what nobody reads, every replica within a period.
//!
//! Each volume has a task that goes through its finished replicas, part by part ([`crate::store`] lists them), in the
//! order of block ids within a part, at a rate that [`pace`] sets: slow enough to be spread over the period, fast enough
//! to end in time. How far it came is on disk ([`cursor`]), so that a restart goes on. Replicas that are under suspicion
//! (a client told of a wrong checksum, the disk could not read) are looked at first. A damaged replica is told to the
//! NameNode, which has it mended.
//!
//! Bytes are read past the page cache where the file system can ([`direct`]): what is verified is the disk, and what
//! others have cached stays. What always holds: a replica that changes while it is looked at is not called damaged: what
//! looks so is looked at again while nothing may change it.

pub mod cursor;
pub mod direct;
pub mod pace;
mod verify;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::{BlockId, Code, Result};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::Config;
use crate::data_server::DataServer;
use crate::store::{PARTS, Store};
use crate::throttle::Throttle;
use crate::volume::Volume;

use cursor::Cursor;
use pace::Pace;
use verify::Verification;

/// How often volumes that came are looked for, and the pace is set anew.
const TICK: Duration = Duration::from_secs(5);
/// How long after the last time the cursor is written again.
const CURSOR_INTERVAL: Duration = Duration::from_secs(30);

/// What was found since the start.
#[derive(Default)]
pub struct Counters {
    /// Replicas that were verified.
    pub replicas: AtomicU64,
    /// Bytes of them.
    pub bytes: AtomicU64,
    /// Replicas that are damaged.
    pub corrupt: AtomicU64,
    /// Replicas that were looked at because they were under suspicion.
    pub suspects: AtomicU64,
    /// Rounds that ended, over all volumes.
    pub rounds: AtomicU64,
}

/// How far a volume's round is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Progress {
    /// When the round began, in milliseconds since 1970.
    pub started_ms: u64,
    /// When the round before ended; 0: none did.
    pub last_finished_ms: u64,
    /// Bytes of replicas that were verified in it.
    pub verified_bytes: u64,
    /// Bytes that are left.
    pub left_bytes: u64,
    /// Damaged replicas found in it.
    pub corrupt: u64,
}

/// The scrubber of a DataNode.
pub struct Scrubber {
    store: Arc<Store>,
    server: Arc<DataServer>,
    pace: Pace,
    counters: Counters,
    progress: Mutex<HashMap<u8, Progress>>,
}

impl Scrubber {
    /// Does nothing before it is run.
    pub fn new(config: &Config, store: Arc<Store>, server: Arc<DataServer>) -> Arc<Self> {
        let pace =
            Pace { period_ms: config.scrub_period_ms, bytes_per_s_max: config.scrub_bytes_per_s };
        Arc::new(Self {
            store,
            server,
            pace,
            counters: Counters::default(),
            progress: Mutex::default(),
        })
    }

    /// What was found since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How far the round of a volume is; `None` before its first.
    pub fn progress(&self, volume: u8) -> Option<Progress> {
        self.progress.lock().expect("nobody panics while holding it").get(&volume).copied()
    }

    /// Scrubs all volumes, those that come later too, until the future is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().look_at_suspects());
        let mut known = 0;
        loop {
            let volumes = self.store.volumes();
            if self.pace.period_ms > 0 {
                for volume in &volumes[known..] {
                    tasks.spawn(self.clone().scrub(volume.clone()));
                }
            }
            known = volumes.len();
            tokio::time::sleep(TICK).await;
        }
    }

    async fn look_at_suspects(self: Arc<Self>) {
        let throttle = Throttle::new(self.pace.bytes_per_s_max);
        loop {
            let block = self.store.suspects().next().await;
            self.counters.suspects.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = self.verify(block, &throttle, || {}).await {
                tracing::warn!(%block, %error, "a replica under suspicion is damaged");
            }
        }
    }

    /// Goes round a volume until it fails.
    async fn scrub(self: Arc<Self>, volume: Arc<Volume>) {
        let now = now_ms();
        let loaded = Cursor::load(volume.root());
        let mut cursor =
            loaded.filter(|cursor| cursor.started_ms <= now).unwrap_or(Cursor::new(now));
        let throttle = Throttle::new(self.pace.bytes_per_s_max);
        let mut saved = Instant::now();
        while !volume.is_failed() {
            self.tell(&volume, &cursor, 0);
            if cursor.part >= PARTS {
                self.wait_for_round(&volume, &mut cursor).await;
                continue;
            }
            let (blocks, mut left_bytes) = self.store.finalized_in(volume.number(), cursor.part);
            for (block, bytes) in blocks {
                if cursor.block.is_some_and(|last| block <= last) {
                    left_bytes = left_bytes.saturating_sub(bytes);
                    continue;
                }
                self.tell(&volume, &cursor, left_bytes);
                let pace = || self.set_pace(&throttle, &cursor, left_bytes);
                match self.verify(block, &throttle, pace).await {
                    Ok(bytes) => cursor.verified_bytes += bytes,
                    Err(error) if error.code == Code::Corrupt => cursor.corrupt += 1,
                    Err(error) => tracing::debug!(%block, %error, "not verified"),
                }
                left_bytes = left_bytes.saturating_sub(bytes);
                cursor.block = Some(block);
                if volume.is_failed() {
                    return;
                }
                if saved.elapsed() >= CURSOR_INTERVAL {
                    saved = Instant::now();
                    self.save(&volume, cursor).await;
                }
            }
            cursor.part += 1;
            cursor.block = None;
            if cursor.part >= PARTS {
                self.end_round(&volume, &mut cursor).await;
            }
        }
    }

    async fn end_round(&self, volume: &Arc<Volume>, cursor: &mut Cursor) {
        cursor.last_finished_ms = now_ms();
        self.tell(volume, cursor, 0);
        self.counters.rounds.fetch_add(1, Ordering::Relaxed);
        tracing::info!(
            volume = %volume.root().display(),
            bytes = cursor.verified_bytes,
            corrupt = cursor.corrupt,
            seconds = cursor.last_finished_ms.saturating_sub(cursor.started_ms) / 1_000,
            "a round of scrubbing has ended"
        );
        self.save(volume, *cursor).await;
    }

    /// Waits until the next round is due, and begins it.
    async fn wait_for_round(&self, volume: &Arc<Volume>, cursor: &mut Cursor) {
        let now = now_ms();
        match self.pace.wait_ms(cursor.started_ms, now) {
            0 => {
                let next = Cursor::new(now);
                *cursor = Cursor { last_finished_ms: cursor.last_finished_ms, ..next };
                self.save(volume, *cursor).await;
            }
            // In pieces: a volume may fail, and a clock may jump.
            wait => tokio::time::sleep(TICK.min(Duration::from_millis(wait))).await,
        }
    }

    fn set_pace(&self, throttle: &Throttle, cursor: &Cursor, left_bytes: u64) {
        let busy = self.server.active() > 0;
        throttle.set(self.pace.bytes_per_s(left_bytes, cursor.started_ms, now_ms(), busy));
    }

    /// Verifies one replica; tells how many bytes it had, 0 if it is gone or no longer finished. `pace` is called before
    /// each step.
    async fn verify(&self, block: BlockId, throttle: &Throttle, pace: impl Fn()) -> Result<u64> {
        let Some(mut verification) = Verification::begin(&self.store, block) else { return Ok(0) };
        let pool = verification.volume().pool().clone();
        loop {
            let bytes;
            (verification, bytes) = pool
                .run(move || {
                    let bytes = verification.step();
                    Ok((verification, bytes))
                })
                .await?;
            match bytes {
                Ok(0) => break,
                Ok(bytes) => {
                    self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
                    pace();
                    throttle.take(bytes).await;
                }
                Err(error) if error.code == Code::Corrupt => {
                    return self.look_again(&verification).await;
                }
                Err(error) => return Err(error),
            }
        }
        self.counters.replicas.fetch_add(1, Ordering::Relaxed);
        Ok(verification.length())
    }

    /// What looks damaged may just be changing: looks again while it can't, and tells the NameNode.
    async fn look_again(&self, first: &Verification) -> Result<u64> {
        let Some(mut again) = Verification::begin(&self.store, first.block()) else { return Ok(0) };
        let slot = again.slot().clone();
        let look = move || {
            while again.step()? > 0 {}
            Ok(())
        };
        let looked = self.store.confirm_damage(first.block(), &slot, look).await;
        if looked.as_ref().is_err_and(|error| error.code == Code::Corrupt) {
            self.counters.corrupt.fetch_add(1, Ordering::Relaxed);
        }
        looked.map(|is_same| if is_same { first.length() } else { 0 })
    }

    fn tell(&self, volume: &Volume, cursor: &Cursor, left_bytes: u64) {
        let progress = Progress {
            started_ms: cursor.started_ms,
            last_finished_ms: cursor.last_finished_ms,
            verified_bytes: cursor.verified_bytes,
            left_bytes,
            corrupt: cursor.corrupt,
        };
        let mut all = self.progress.lock().expect("nobody panics while holding it");
        all.insert(volume.number(), progress);
    }

    async fn save(&self, volume: &Arc<Volume>, cursor: Cursor) {
        let to = volume.clone();
        let saved = volume.pool().run(move || cursor.save(to.root())).await;
        if let Err(error) = saved {
            tracing::warn!(%error, "how far scrubbing came is not kept");
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a shell: rounds are known across restarts")]
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
