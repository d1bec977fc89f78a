//! Records gathered in memory: one arena of bytes, and one array of 16-byte entries that is sorted.
//!
//! An entry is `partition (16 bits) | first 10 bytes of the key (80 bits) | place in the arena (32 bits)`: comparing two
//! entries as integers decides most pairs without a look at the arena. A record in the arena is the length of its key
//! and of its value as varints, then both. Nothing is allocated per record.

use std::cmp::Ordering;
use std::ops::Range;

use super::Ties;
use super::varint;

const PREFIX_BYTES: usize = 10;
const ENTRY_BYTES: usize = std::mem::size_of::<Entry>();

/// Bytes that a buffer may take: places are 32 bits wide, and the last record must fit behind them.
pub(super) const BUFFER_BYTES_MAX: usize = 3 << 30;

type Entry = u128;

/// Records in memory. Sorted on demand.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    arena: Vec<u8>,
    entries: Vec<Entry>,
}

impl Buffer {
    /// Bytes that the records take, with their entries.
    pub fn bytes(&self) -> usize {
        self.arena.len() + self.entries.len() * ENTRY_BYTES
    }

    /// Bytes that one more record would take.
    pub fn bytes_of(key: &[u8], value: &[u8]) -> usize {
        ENTRY_BYTES + 2 * varint::BYTES_MAX + key.len() + value.len()
    }

    pub fn records(&self) -> usize {
        self.entries.len()
    }

    /// Forgets the records and keeps the memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.entries.clear();
    }

    /// Adds a record. `budget` bounds how far the memory is grown ahead of need.
    pub fn push(&mut self, partition: u16, key: &[u8], value: &[u8], budget: usize) {
        let at = u32::try_from(self.arena.len()).expect("the sorter spills before 4 GiB");
        let more = 2 * varint::BYTES_MAX + key.len() + value.len();
        if self.arena.capacity() - self.arena.len() < more {
            grow(&mut self.arena, more, budget);
        }
        if self.entries.len() == self.entries.capacity() {
            grow(&mut self.entries, 1, budget / ENTRY_BYTES);
        }
        varint::put(&mut self.arena, key.len() as u64);
        varint::put(&mut self.arena, value.len() as u64);
        self.arena.extend_from_slice(key);
        self.arena.extend_from_slice(value);
        self.entries.push(entry(partition, key, at));
    }

    /// Puts the records in order: partition, key, then by `ties`.
    pub fn sort(&mut self, ties: Ties) {
        let arena = &self.arena;
        self.entries.sort_unstable_by(|&a, &b| {
            (a >> 32).cmp(&(b >> 32)).then_with(|| compare_whole(arena, a, b, ties))
        });
    }

    /// The places of a partition's records, once sorted.
    pub fn partition(&self, partition: u16) -> Range<usize> {
        let first = |p: u128| self.entries.partition_point(|entry| (entry >> 112) < p);
        first(u128::from(partition))..first(u128::from(partition) + 1)
    }

    /// Key and value of the record at a place, below [`Buffer::records`].
    #[inline]
    pub fn record(&self, index: usize) -> (&[u8], &[u8]) {
        record(&self.arena, self.entries[index])
    }

    /// The partition of the record at a place.
    pub fn partition_of(&self, index: usize) -> u16 {
        (self.entries[index] >> 112) as u16
    }
}

/// Doubles, but not beyond the budget unless this one record needs it.
fn grow<T>(vec: &mut Vec<T>, more: usize, budget: usize) {
    let wanted = (vec.capacity() * 2).max(1024).min(budget).max(vec.len() + more);
    vec.reserve_exact(wanted - vec.len());
}

fn entry(partition: u16, key: &[u8], at: u32) -> Entry {
    let mut prefix = [0; 16];
    let taken = key.len().min(PREFIX_BYTES);
    prefix[2..2 + taken].copy_from_slice(&key[..taken]);
    prefix[..2].copy_from_slice(&partition.to_be_bytes());
    prefix[12..].copy_from_slice(&at.to_be_bytes());
    u128::from_be_bytes(prefix)
}

fn record(arena: &[u8], entry: Entry) -> (&[u8], &[u8]) {
    let mut at = entry as u32 as usize;
    let mut length = || varint::take(arena, &mut at).expect("the buffer wrote it") as usize;
    let (key, value) = (length(), length());
    (&arena[at..at + key], &arena[at + key..at + key + value])
}

/// Called where partition and the key's first bytes are equal.
fn compare_whole(arena: &[u8], a: Entry, b: Entry, ties: Ties) -> Ordering {
    let ((key_a, value_a), (key_b, value_b)) = (record(arena, a), record(arena, b));
    key_a.cmp(key_b).then_with(|| match ties {
        Ties::Value => value_a.cmp(value_b),
        Ties::Insertion => (a as u32).cmp(&(b as u32)),
    })
}
