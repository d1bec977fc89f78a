//! Counts terms in memory: one arena for their bytes, one table of 16-byte entries; no allocation per term.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// How often each term was seen. Meant to be used over and over.
#[derive(Debug, Default)]
pub(super) struct TermCounts {
    hasher: DefaultHashBuilder,
    arena: Vec<u8>,
    table: HashTable<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u32,
    bytes: u32,
    count: u64,
}

impl Entry {
    fn term<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        &arena[self.start as usize..][..self.bytes as usize]
    }
}

impl TermCounts {
    /// Bytes after which [`TermCounts::is_full`].
    const ARENA_BYTES: usize = 8 << 20;

    /// Sees a term, at most 64 KiB long.
    #[inline]
    pub fn add(&mut self, term: &[u8], more: u64) {
        let Self { hasher, arena, table } = self;
        let hash = hasher.hash_one(term);
        if let Some(entry) = table.find_mut(hash, |entry| entry.term(arena) == term) {
            entry.count += more;
            return;
        }
        let start = u32::try_from(arena.len()).expect("emptied when it is full");
        let entry = Entry { start, bytes: term.len() as u32, count: more };
        arena.extend_from_slice(term);
        table.insert_unique(hash, entry, |entry| hasher.hash_one(entry.term(arena)));
    }

    /// Whether it is time to drain.
    pub fn is_full(&self) -> bool {
        self.arena.len() >= Self::ARENA_BYTES
    }

    /// Gives all terms with their counts, in no particular order, and forgets them; also where `each` fails.
    pub fn drain<E>(&mut self, mut each: impl FnMut(&[u8], u64) -> Result<(), E>) -> Result<(), E> {
        let arena = &self.arena;
        let result = self.table.iter().try_for_each(|entry| each(entry.term(arena), entry.count));
        self.table.clear();
        self.arena.clear();
        result
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn counts_equal_those_of_a_map() {
        let mut counts = TermCounts::default();
        for _ in 0..2 {
            let mut expected = BTreeMap::new();
            for i in 0..10_000u64 {
                let term = format!("t{}", i * i % 1_009);
                counts.add(term.as_bytes(), i);
                *expected.entry(term).or_insert(0) += i;
            }
            let mut found = BTreeMap::new();
            let all: Result<(), ()> = counts.drain(|term, count| {
                assert_eq!(found.insert(String::from_utf8(term.to_vec()).unwrap(), count), None);
                Ok(())
            });
            all.unwrap();
            assert_eq!(found, expected);
        }
    }
}
