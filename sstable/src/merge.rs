//! Merges sorted sources into one sorted sequence.
//!
//! A source is any iterator of `Result<(key, value), E>` whose keys do not descend: tables, sorted
//! runs on disk, vectors. [`merge`] yields every record, equal keys in the order of their sources;
//! [`merge_first`] yields of equal keys the one of the earliest source. Memory: one record per
//! source. An error of a source is passed on, and ends the merge: what would follow might have a
//! gap.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// All records of all sources: `(source, key, value)`. Records with equal keys come in the order of
/// `sources`, and of one source in its own order.
pub fn merge<I, K, V, E>(sources: Vec<I>) -> Merge<I, K, V>
where
    I: Iterator<Item = Result<(K, V), E>>,
    K: AsRef<[u8]>,
{
    Merge { started: false, sources, heap: BinaryHeap::new() }
}

/// Each key once, with the value that the earliest source has for it.
pub fn merge_first<I, K, V, E>(sources: Vec<I>) -> MergeFirst<I, K, V>
where
    I: Iterator<Item = Result<(K, V), E>>,
    K: AsRef<[u8]>,
{
    MergeFirst { all: merge(sources), last: None }
}

/// See [`merge`].
pub struct Merge<I, K: AsRef<[u8]>, V> {
    started: bool,
    sources: Vec<I>,
    heap: BinaryHeap<Head<K, V>>,
}

/// The next record of a source. The greatest in the heap is the one with the smallest key.
struct Head<K, V> {
    source: usize,
    key: K,
    value: V,
}

impl<K: AsRef<[u8]>, V> Ord for Head<K, V> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.key.as_ref(), other.source).cmp(&(self.key.as_ref(), self.source))
    }
}

impl<K: AsRef<[u8]>, V> PartialOrd for Head<K, V> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: AsRef<[u8]>, V> PartialEq for Head<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<K: AsRef<[u8]>, V> Eq for Head<K, V> {}

impl<I, K, V, E> Merge<I, K, V>
where
    I: Iterator<Item = Result<(K, V), E>>,
    K: AsRef<[u8]>,
{
    fn start(&mut self) -> Result<(), E> {
        self.started = true;
        for (source, records) in self.sources.iter_mut().enumerate() {
            if let Some(record) = records.next() {
                let (key, value) = record?;
                self.heap.push(Head { source, key, value });
            }
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<(usize, K, V)>, E> {
        if !self.started {
            self.start()?;
        }
        let Some(mut top) = self.heap.peek_mut() else { return Ok(None) };
        let source = top.source;
        // Replacing the top sifts once; popping and pushing would sift twice.
        let Head { key, value, .. } = match self.sources[source].next() {
            Some(record) => {
                let (key, value) = record?;
                std::mem::replace(&mut *top, Head { source, key, value })
            }
            None => PeekMut::pop(top),
        };
        Ok(Some((source, key, value)))
    }
}

impl<I, K, V, E> Iterator for Merge<I, K, V>
where
    I: Iterator<Item = Result<(K, V), E>>,
    K: AsRef<[u8]>,
{
    type Item = Result<(usize, K, V), E>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            self.sources.clear();
            self.heap.clear();
        }
        next.transpose()
    }
}

/// See [`merge_first`].
pub struct MergeFirst<I, K: AsRef<[u8]>, V> {
    all: Merge<I, K, V>,
    last: Option<Vec<u8>>,
}

impl<I, K, V, E> Iterator for MergeFirst<I, K, V>
where
    I: Iterator<Item = Result<(K, V), E>>,
    K: AsRef<[u8]>,
{
    type Item = Result<(K, V), E>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.all.next()? {
                Err(e) => return Some(Err(e)),
                Ok((_, key, _)) if self.last.as_deref() == Some(key.as_ref()) => {}
                Ok((_, key, value)) => {
                    let last = self.last.get_or_insert_default();
                    last.clear();
                    last.extend_from_slice(key.as_ref());
                    return Some(Ok((key, value)));
                }
            }
        }
    }
}
