//! Which partition of a job's output a key belongs to. Pure.
//!
//! Partition `p` of `P` holds the Redis Cluster slots from `p * 16384 / P` up to the next partition's first: contiguous
//! ranges that cover every slot once. A key's slot is [`sstable::slot::slot_of`], so the tables that a job writes are
//! the shards that cluster-aware clients route to.

use std::ops::RangeInclusive;

use proto::{Code, Error, Result};
use sstable::slot::{SLOTS, slot_of};

/// A split of all slots into contiguous ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitions {
    count: u16,
}

impl Partitions {
    /// So many ranges: from 1 to the number of slots.
    pub fn new(count: usize) -> Result<Self> {
        match u16::try_from(count) {
            Ok(count @ 1..=SLOTS) => Ok(Self { count }),
            _ => Err(Error::new(
                Code::InvalidArgument,
                format!("{count} partitions; a job has from 1 to {SLOTS}"),
            )),
        }
    }

    /// How many.
    pub fn count(self) -> u16 {
        self.count
    }

    /// The slots of a partition, which must be below [`Partitions::count`].
    pub fn slots(self, partition: u16) -> RangeInclusive<u16> {
        assert!(partition < self.count, "partition {partition} of {}", self.count);
        self.first(partition)..=self.first(partition + 1) - 1
    }

    /// The partition of a slot.
    pub fn of_slot(self, slot: u16) -> u16 {
        let (slot, count, slots) = (u32::from(slot), u32::from(self.count), u32::from(SLOTS));
        // The largest p with p * slots / count <= slot.
        (((slot + 1) * count - 1) / slots) as u16
    }

    /// The partition of a key.
    #[inline]
    pub fn of(self, key: &[u8]) -> u16 {
        if self.count == 1 { 0 } else { self.of_slot(slot_of(key)) }
    }

    fn first(self, partition: u16) -> u16 {
        (u32::from(partition) * u32::from(SLOTS) / u32::from(self.count)) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_in_exactly_one_partition() {
        for count in (1..=300).chain([4096, 9999, 16383, 16384]) {
            let partitions = Partitions::new(count).unwrap();
            let mut next = 0;
            for partition in 0..partitions.count() {
                let slots = partitions.slots(partition);
                assert_eq!(*slots.start(), next, "{count}: ranges join");
                assert!(!slots.is_empty());
                for slot in [*slots.start(), *slots.end()] {
                    assert_eq!(partitions.of_slot(slot), partition, "{count}: slot {slot}");
                }
                next = slots.end() + 1;
            }
            assert_eq!(next, SLOTS, "{count}: the last range ends with the last slot");
        }
    }

    #[test]
    fn keys_go_where_their_slot_is() {
        let partitions = Partitions::new(7).unwrap();
        for key in ["", "a", "{a}b", "hello", "\u{e4}"] {
            let partition = partitions.of(key.as_bytes());
            assert!(partitions.slots(partition).contains(&slot_of(key.as_bytes())));
        }
    }

    #[test]
    fn a_count_out_of_range_is_refused() {
        for count in [0, 16385, 1 << 20] {
            assert_eq!(Partitions::new(count).unwrap_err().code, Code::InvalidArgument);
        }
    }
}
