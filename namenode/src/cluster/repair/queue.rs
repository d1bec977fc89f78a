//! What is to be repaired, the most endangered first.
//!
//! An entry is a block, or a block group under its group's id. It is *ready*, or to be looked at *later*: after a grace
//! time, or after a pause because the last try came to nothing. Ready ones are ordered by urgency (an operator asked),
//! then danger, then by who came first.
//!
//! Always holds: an id is there once, and in exactly one of the two orders; the sums equal a recount; never more than
//! the bound. What does not fit is left out: the patrol finds it again when there is room.

use std::collections::{BTreeMap, BTreeSet};

use proto::BlockId;

/// Entries at once (about 150 bytes each).
pub const QUEUE_MAX: usize = 1_000_000;

/// How endangered something is: less is worse. What lacks copies comes before what is merely in the wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Danger(u8);

impl Danger {
    /// The number of different dangers.
    pub const COUNT: usize = 5;
    /// It has all its copies, but some stand on nodes that are to go.
    pub const LEAVING: Self = Self(3);
    /// It has all its copies, but in too few racks.
    pub const MISPLACED: Self = Self(4);

    /// Copies are lacking, and `spare` more can be lost before there is nothing to mend it from: good replicas less
    /// one; good units of a group less its data units.
    pub fn lacking(spare: usize) -> Self {
        Self(spare.min(2) as u8)
    }

    /// Its place in a list of counts by danger.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What is known of an entry when it is put in.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// How endangered it is.
    pub danger: Danger,
    /// An operator asked for it.
    pub urgent: bool,
    /// Bytes that its repair writes.
    pub bytes: u64,
    /// Not to be tried before.
    pub ready_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    item: Item,
    seq: u64,
    tries: u32,
    is_ready: bool,
}

impl Entry {
    fn key(&self, id: u64) -> (bool, Danger, u64, u64) {
        (!self.item.urgent, self.item.danger, self.seq, id)
    }
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    entries: BTreeMap<u64, Entry>,
    ready: BTreeSet<(bool, Danger, u64, u64)>,
    later: BTreeSet<(u64, u64)>,
    next_seq: u64,
    bytes: u64,
    by_danger: [u64; Danger::COUNT],
    left_out: u64,
    max: usize,
}

impl Queue {
    /// An empty queue for up to `max` entries.
    pub fn new(max: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            ready: BTreeSet::new(),
            later: BTreeSet::new(),
            next_seq: 0,
            bytes: 0,
            by_danger: [0; Danger::COUNT],
            left_out: 0,
            max,
        }
    }

    /// Puts an entry in, or brings one that is there up to date: it keeps its turn, becomes ready no later than it
    /// was to be, and stays urgent.
    pub fn put(&mut self, id: BlockId, item: Item) {
        let old = self.take(id);
        if old.is_none() && !self.make_room(&item) {
            self.left_out += 1;
            return;
        }
        let (seq, tries, mut item) = match old {
            Some(old) => {
                let ready_ms = item.ready_ms.min(old.item.ready_ms);
                let urgent = item.urgent || old.item.urgent;
                (old.seq, old.tries, Item { ready_ms, urgent, ..item })
            }
            None => {
                self.next_seq += 1;
                (self.next_seq, 0, item)
            }
        };
        if item.urgent {
            item.ready_ms = 0;
        }
        let is_ready = item.ready_ms == 0 || old.is_some_and(|old| old.is_ready);
        self.insert(id, Entry { item, seq, tries, is_ready });
    }

    /// It could not be tried: the entry waits so long. Nothing if it is not there.
    pub fn put_off(&mut self, id: BlockId, now_ms: u64, pause_ms: u64) {
        let Some(mut entry) = self.take(id) else { return };
        entry.item.ready_ms = now_ms.saturating_add(pause_ms).max(1);
        entry.is_ready = false;
        self.insert(id, entry);
    }

    /// The copy of an entry failed: it waits, twice as long after each failure, within these bounds.
    pub fn failed(&mut self, id: BlockId, now_ms: u64, tries: u32, bounds_ms: (u64, u64)) {
        let Some(mut entry) = self.take(id) else { return };
        let pause_ms = bounds_ms.0.saturating_mul(1 << tries.min(16)).min(bounds_ms.1);
        entry.item.ready_ms = now_ms.saturating_add(pause_ms).max(1);
        entry.item.urgent = false;
        entry.is_ready = false;
        entry.tries = tries.saturating_add(1);
        self.insert(id, entry);
    }

    /// Takes an entry out; tells how often it was tried.
    pub fn remove(&mut self, id: BlockId) -> Option<u32> {
        self.take(id).map(|entry| entry.tries)
    }

    /// Whether an entry is there.
    pub fn contains(&self, id: BlockId) -> bool {
        self.entries.contains_key(&id.0)
    }

    /// Makes ready what was to wait until now.
    pub fn wake(&mut self, now_ms: u64) {
        while let Some(&(ready_ms, id)) = self.later.first()
            && ready_ms <= now_ms
        {
            self.make_ready(id);
        }
    }

    /// Makes everything ready: what could not be done before may be possible now.
    pub fn wake_all(&mut self) {
        while let Some(&(_, id)) = self.later.first() {
            self.make_ready(id);
        }
    }

    /// The first ready ones, in order.
    pub fn first(&self, count: usize) -> Vec<BlockId> {
        self.ready.iter().take(count).map(|&(.., id)| BlockId(id)).collect()
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is nothing to repair.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether something is ready.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Entries that are ready.
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Bytes that the repair of all entries writes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Entries by danger, the worst first.
    pub fn by_danger(&self) -> [u64; Danger::COUNT] {
        self.by_danger
    }

    /// Entries that found no room since the process began.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    fn make_ready(&mut self, id: u64) {
        let mut entry = self.take(BlockId(id)).expect("what waits has an entry");
        entry.item.ready_ms = 0;
        entry.is_ready = true;
        self.insert(BlockId(id), entry);
    }

    /// Whether there is room for one more; for one with nothing to spare, one that is in less danger gives way.
    fn make_room(&mut self, item: &Item) -> bool {
        if self.entries.len() < self.max {
            return true;
        }
        let least = self.ready.last().copied();
        match least {
            Some((_, danger, _, id)) if item.danger < danger => {
                self.take(BlockId(id));
                self.left_out += 1;
                true
            }
            _ => false,
        }
    }

    fn insert(&mut self, id: BlockId, entry: Entry) {
        if entry.is_ready {
            self.ready.insert(entry.key(id.0));
        } else {
            self.later.insert((entry.item.ready_ms, id.0));
        }
        self.bytes = self.bytes.saturating_add(entry.item.bytes);
        self.by_danger[entry.item.danger.index()] += 1;
        self.entries.insert(id.0, entry);
    }

    fn take(&mut self, id: BlockId) -> Option<Entry> {
        let entry = self.entries.remove(&id.0)?;
        let was_there = if entry.is_ready {
            self.ready.remove(&entry.key(id.0))
        } else {
            self.later.remove(&(entry.item.ready_ms, id.0))
        };
        assert!(was_there, "an entry is in exactly one order");
        self.bytes = self.bytes.saturating_sub(entry.item.bytes);
        self.by_danger[entry.item.danger.index()] -= 1;
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item(danger: Danger, ready_ms: u64) -> Item {
        Item { danger, urgent: false, bytes: 10, ready_ms }
    }

    fn ids(queue: &Queue) -> Vec<u64> {
        queue.first(100).into_iter().map(|id| id.0).collect()
    }

    #[test]
    fn the_most_endangered_come_first_and_what_an_operator_asked_for_before_them() {
        let mut queue = Queue::new(100);
        queue.put(BlockId(1), item(Danger::MISPLACED, 0));
        queue.put(BlockId(2), item(Danger::lacking(1), 0));
        queue.put(BlockId(3), item(Danger::LEAVING, 0));
        queue.put(BlockId(4), item(Danger::lacking(0), 0));
        queue.put(BlockId(5), item(Danger::lacking(1), 0));
        assert_eq!(ids(&queue), [4, 2, 5, 3, 1]);
        queue.put(BlockId(5), item(Danger::lacking(0), 0));
        assert_eq!(ids(&queue), [4, 5, 2, 3, 1], "it lost another replica");
        queue.put(BlockId(1), Item { urgent: true, ..item(Danger::MISPLACED, 0) });
        assert_eq!(ids(&queue), [1, 4, 5, 2, 3]);
        assert_eq!((queue.bytes(), queue.by_danger()), (50, [2, 1, 0, 1, 1]));
    }

    #[test]
    fn what_waits_becomes_ready_in_its_time_or_when_it_gets_worse() {
        let mut queue = Queue::new(100);
        queue.put(BlockId(1), item(Danger::lacking(1), 50));
        queue.put(BlockId(2), item(Danger::lacking(0), 60));
        queue.wake(49);
        assert_eq!(ids(&queue), [0u64; 0]);
        queue.put(BlockId(2), item(Danger::lacking(0), 0));
        assert_eq!(ids(&queue), [2]);
        queue.wake(50);
        assert_eq!(ids(&queue), [2, 1]);
        queue.failed(BlockId(2), 100, 3, (10, 1_000));
        queue.wake(179);
        assert_eq!(ids(&queue), [1]);
        queue.wake(180);
        assert_eq!((ids(&queue), queue.remove(BlockId(2))), (vec![2, 1], Some(4)));
    }

    #[test]
    fn a_full_queue_lets_the_worse_in_for_the_better() {
        let mut queue = Queue::new(2);
        queue.put(BlockId(1), item(Danger::lacking(1), 0));
        queue.put(BlockId(2), item(Danger::MISPLACED, 0));
        queue.put(BlockId(3), item(Danger::MISPLACED, 0));
        assert_eq!((ids(&queue), queue.left_out()), (vec![1, 2], 1));
        queue.put(BlockId(4), item(Danger::lacking(0), 0));
        assert_eq!((ids(&queue), queue.left_out()), (vec![4, 1], 2));
    }

    proptest! {
        #[test]
        fn the_sums_equal_a_recount_after_any_history(
            steps in prop::collection::vec((0u8..6, 0u64..8, 0usize..4, 0u64..40), 0..80),
        ) {
            let mut queue = Queue::new(5);
            for (step, (what, id, spare, ms)) in steps.into_iter().enumerate() {
                let id = BlockId(id);
                match what {
                    0 | 1 => queue.put(id, item(Danger::lacking(spare), ms)),
                    2 => { queue.remove(id); }
                    3 => queue.put_off(id, step as u64, ms),
                    4 => queue.wake(step as u64),
                    _ => queue.failed(id, step as u64, spare as u32, (1, 30)),
                }
                prop_assert!(queue.len() <= 5);
                prop_assert_eq!(queue.bytes(), 10 * queue.len() as u64);
                prop_assert_eq!(queue.by_danger().iter().sum::<u64>(), queue.len() as u64);
                prop_assert_eq!(queue.ready.len() + queue.later.len(), queue.len());
                let order = queue.first(9);
                let danger = |id: &BlockId| queue.entries[&id.0].item.danger;
                prop_assert!(order.is_sorted_by_key(danger));
            }
        }
    }
}
