//! Every replica of this DataNode in memory, compactly: 24 bytes and a hash table's overhead for a finished one.
//!
//! Sharded, so that growing moves a part at a time and lookups do not wait for each other. Locks are held for a lookup
//! or a change, never across IO. What is reported to the NameNode is pushed under the shard's lock, so that changes of
//! one block are told in the order in which they happened.

use std::collections::HashMap;
use std::num::NonZeroU8;
use std::sync::{Arc, Mutex, MutexGuard};

use proto::{BlockId, GenerationStamp};

use crate::open_replica::OpenReplica;

const SHARDS: usize = 64;

/// A finished replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compact {
    /// Its generation.
    pub stamp: GenerationStamp,
    /// Its bytes: a block has at most 2 GiB.
    pub length: u32,
    /// The place of its volume, plus one: the value that is never there makes room for the other kind of slot.
    volume_plus_one: NonZeroU8,
}

impl Compact {
    /// A finished replica on volume number `volume`.
    pub fn new(stamp: GenerationStamp, length: u32, volume: u8) -> Self {
        let volume_plus_one = volume.checked_add(1).and_then(NonZeroU8::new);
        let volume_plus_one = volume_plus_one.expect("there are at most 255 volumes");
        Self { stamp, length, volume_plus_one }
    }

    /// The place of its volume.
    pub fn volume(&self) -> u8 {
        self.volume_plus_one.get() - 1
    }
}

/// What is known of a block here.
#[derive(Clone)]
pub enum Slot {
    /// A finished replica.
    Finalized(Compact),
    /// Any other.
    Open(Arc<OpenReplica>),
}

impl Slot {
    /// The place of its volume.
    pub fn volume(&self) -> u8 {
        match self {
            Self::Finalized(compact) => compact.volume(),
            Self::Open(open) => open.volume().number(),
        }
    }

    /// Whether it is the same replica in the same generation and length.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Finalized(a), Self::Finalized(b)) => a == b,
            (Self::Open(a), Self::Open(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// All replicas.
pub struct ReplicaMap {
    shards: Vec<Mutex<HashMap<BlockId, Slot>>>,
}

impl Default for ReplicaMap {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl ReplicaMap {
    /// The replica of `block`.
    pub fn get(&self, block: BlockId) -> Option<Slot> {
        self.shard(block).get(&block).cloned()
    }

    /// Changes the entry of `block` under its lock.
    pub fn change<T>(
        &self,
        block: BlockId,
        change: impl FnOnce(&mut HashMap<BlockId, Slot>) -> T,
    ) -> T {
        change(&mut self.shard(block))
    }

    /// The ids of all replicas, in ascending order.
    pub fn sorted_ids(&self) -> Vec<BlockId> {
        let mut ids: Vec<BlockId> = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().expect("nobody panics while holding a shard");
            ids.extend(shard.keys());
        }
        ids.sort_unstable();
        ids
    }

    /// Shows each replica, in no order, under a lock that others wait for.
    pub fn for_each(&self, mut show: impl FnMut(&Slot)) {
        for shard in &self.shards {
            let shard = shard.lock().expect("nobody panics while holding a shard");
            shard.values().for_each(&mut show);
        }
    }

    /// Shows each block and its replica, in no order, under a lock that others wait for.
    pub fn for_each_block(&self, mut show: impl FnMut(BlockId, &Slot)) {
        for shard in &self.shards {
            let shard = shard.lock().expect("nobody panics while holding a shard");
            shard.iter().for_each(|(block, slot)| show(*block, slot));
        }
    }

    /// Removes entries; tells which.
    pub fn remove_where(&self, gone: impl Fn(&Slot) -> bool) -> Vec<(BlockId, Slot)> {
        let mut removed = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().expect("nobody panics while holding a shard");
            removed.extend(shard.extract_if(|_, slot| gone(slot)));
        }
        removed
    }

    /// How many replicas there are.
    pub fn count(&self) -> usize {
        let count = |shard: &Mutex<HashMap<BlockId, Slot>>| {
            shard.lock().expect("nobody panics while holding a shard").len()
        };
        self.shards.iter().map(count).sum()
    }

    fn shard(&self, block: BlockId) -> MutexGuard<'_, HashMap<BlockId, Slot>> {
        let number = usize::try_from(block.0 % SHARDS as u64).expect("below the number of shards");
        self.shards[number].lock().expect("nobody panics while holding a shard")
    }
}

const _: () = assert!(size_of::<(BlockId, Slot)>() == 24, "50 million replicas fit in memory");
const _: () =
    assert!(proto::limits::BLOCK_BYTES_MAX <= u32::MAX as u64, "a length fits in 32 bits");
