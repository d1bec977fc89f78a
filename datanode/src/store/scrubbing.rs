//! What the scrubber needs of the store: replicas in order, their files, and those under suspicion.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use proto::{BlockId, Code, Result};
use tokio::sync::Notify;

use super::{Store, finalized_paths};
use crate::files::Paths;
use crate::layout::{FOLDERS, Folder};
use crate::map::Slot;
use crate::volume::Volume;

/// A volume's replicas are listed in so many parts, by sub-folder: a list of all would take memory for each of them.
pub const PARTS: usize = 64;
const FOLDERS_PER_PART: usize = FOLDERS / PARTS;

/// Replicas that may wait under suspicion; the round finds what does not fit.
const SUSPECTS_MAX: usize = 10_000;

/// Replicas that should be verified soon, each once.
#[derive(Default)]
pub struct Suspects {
    waiting: Mutex<(VecDeque<BlockId>, HashSet<BlockId>)>,
    news: Notify,
}

impl Suspects {
    /// Puts a replica under suspicion.
    pub fn push(&self, block: BlockId) {
        let mut waiting = self.waiting.lock().expect("nobody panics while holding it");
        let (queue, known) = &mut *waiting;
        if queue.len() < SUSPECTS_MAX && known.insert(block) {
            queue.push_back(block);
            drop(waiting);
            self.news.notify_one();
        }
    }

    /// The next one; waits for it. Cancel safe.
    pub async fn next(&self) -> BlockId {
        loop {
            let news = self.news.notified();
            {
                let mut waiting = self.waiting.lock().expect("nobody panics while holding it");
                let (queue, known) = &mut *waiting;
                if let Some(block) = queue.pop_front() {
                    known.remove(&block);
                    return block;
                }
            }
            news.await;
        }
    }
}

impl Store {
    /// Replicas under suspicion.
    pub fn suspects(&self) -> &Suspects {
        &self.suspects
    }

    /// The finished replicas of one part of a volume, in the order of their ids, with their bytes; and the bytes of this
    /// part and all behind it.
    pub fn finalized_in(&self, volume: u8, part: usize) -> (Vec<(BlockId, u64)>, u64) {
        let (mut blocks, mut left_bytes) = (Vec::new(), 0);
        self.map.for_each_block(|block, slot| {
            let Slot::Finalized(compact) = slot else { return };
            if compact.volume() != volume {
                return;
            }
            let found = Folder::of(block).number() / FOLDERS_PER_PART;
            if found >= part {
                left_bytes += u64::from(compact.length);
            }
            if found == part {
                blocks.push((block, u64::from(compact.length)));
            }
        });
        blocks.sort_unstable();
        (blocks, left_bytes)
    }

    /// A finished replica, where it is, and its files; `None` if there is none or its volume is out of service.
    pub fn finalized_files(&self, block: BlockId) -> Option<(Slot, Arc<Volume>, Paths)> {
        let slot = self.map.get(block)?;
        let Slot::Finalized(compact) = &slot else { return None };
        let volume = self.disk(compact.volume()).volume.clone();
        let paths = finalized_paths(&volume, block, compact.stamp);
        (!volume.is_failed()).then_some((slot, volume, paths))
    }

    /// Looks at a replica while nothing else is done with it, and tells the NameNode if that finds damage. False if it no
    /// longer is the one that was looked at before.
    pub async fn confirm_damage(
        self: &Arc<Self>,
        block: BlockId,
        looked_at: &Slot,
        look: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<bool> {
        let _claim = self.claims.claim(block).await;
        if !self.is_same(block, looked_at) {
            return Ok(false);
        }
        let pool = self.disk(looked_at.volume()).volume.pool().clone();
        match pool.run(look).await {
            Err(error) if error.code == Code::Corrupt => {
                self.report_damage(block, looked_at, &error);
                Err(error)
            }
            looked => looked.map(|()| true),
        }
    }

    /// Whether the replica still is the one that was looked at.
    pub fn is_same(&self, block: BlockId, looked_at: &Slot) -> bool {
        self.map.get(block).is_some_and(|slot| slot.is_same(looked_at))
    }
}
