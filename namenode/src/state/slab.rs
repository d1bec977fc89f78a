//! Dense arrays of records, in chunks of fixed size, that know which of their pages changed.
//!
//! A record lives at a `u32` slot for as long as it exists; freed slots are used again. Chunks are allocated one by
//! one, so that growing never copies what is there. A page is [`Record::PAGE_SLOTS`] consecutive slots: the unit in
//! which a checkpoint writes them. Each of the two checkpoint sides has its own set of pages changed since it was
//! last written.
//!
//! A checkpoint freezes one side's set: from then on, a frozen page that is about to change is encoded first and kept
//! (`saved`), so that the checkpoint sees every page as of one transaction while operations go on.
//!
//! Always holds: a slot is either live or free; every change goes through [`Slab::get_mut`], [`Slab::insert`] or
//! [`Slab::remove`], which mark the page.

use crate::coding::{Malformed, Reader};

/// "No slot."
pub(crate) const NONE: u32 = u32::MAX;
/// Slots of one chunk of memory.
const CHUNK_SLOTS: usize = 4096;

/// What a slab holds.
pub(crate) trait Record: Default {
    /// Consecutive slots that a checkpoint writes as one value; a divisor of the chunk's size.
    const PAGE_SLOTS: u32;
    /// Whether the slot is free: what `Default` gives.
    fn is_vacant(&self) -> bool;
    /// Appends the record's bytes.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads what `encode` wrote. Total.
    fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed>;
    /// Bytes on the heap beside the record itself, for accounting.
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// One of the two checkpoint folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    A,
    B,
}

/// A set of page numbers.
#[derive(Default, Clone)]
pub(crate) struct Pages {
    words: Vec<u64>,
    count: usize,
}

impl Pages {
    fn contains(&self, page: u32) -> bool {
        let word = self.words.get(page as usize / 64).copied().unwrap_or(0);
        word >> (page % 64) & 1 == 1
    }

    fn insert(&mut self, page: u32) {
        let at = page as usize / 64;
        if at >= self.words.len() {
            self.words.resize(at + 1, 0);
        }
        let bit = 1 << (page % 64);
        self.count += usize::from(self.words[at] & bit == 0);
        self.words[at] |= bit;
    }

    fn remove(&mut self, page: u32) {
        if self.contains(page) {
            self.words[page as usize / 64] &= !(1 << (page % 64));
            self.count -= 1;
        }
    }

    /// The first page at or after `from`.
    fn next(&self, from: u32) -> Option<u32> {
        let mut at = from as usize / 64;
        let mut word = self.words.get(at)? & (u64::MAX << (from % 64));
        loop {
            if word != 0 {
                return Some(at as u32 * 64 + word.trailing_zeros());
            }
            at += 1;
            word = *self.words.get(at)?;
        }
    }
}

/// One page as of the frozen transaction: its number and its bytes; empty bytes for a page without records.
pub(crate) type PageImage = (u32, Vec<u8>);

/// See the module.
pub(crate) struct Slab<T> {
    chunks: Vec<Box<[T]>>,
    free: Vec<u32>,
    /// Slots ever used.
    end: u32,
    dirty: [Pages; 2],
    frozen: Pages,
    saved: Vec<PageImage>,
}

impl<T: Record> Slab<T> {
    pub(crate) fn new() -> Self {
        assert!(CHUNK_SLOTS.is_multiple_of(T::PAGE_SLOTS as usize), "pages do not cross chunks");
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
            end: 0,
            dirty: Default::default(),
            frozen: Pages::default(),
            saved: Vec::new(),
        }
    }

    /// Live records.
    pub(crate) fn len(&self) -> usize {
        self.end as usize - self.free.len()
    }

    /// Slots ever used: every live slot is below.
    pub(crate) fn end(&self) -> u32 {
        self.end
    }

    pub(crate) fn get(&self, slot: u32) -> &T {
        &self.chunks[slot as usize / CHUNK_SLOTS][slot as usize % CHUNK_SLOTS]
    }

    /// The record to be changed; its page counts as changed.
    pub(crate) fn get_mut(&mut self, slot: u32) -> &mut T {
        self.touch(slot);
        &mut self.chunks[slot as usize / CHUNK_SLOTS][slot as usize % CHUNK_SLOTS]
    }

    pub(crate) fn insert(&mut self, record: T) -> u32 {
        debug_assert!(!record.is_vacant());
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = self.end;
            assert!(slot < NONE, "2^32 slots are never used up");
            self.grow_to(slot + 1);
            slot
        });
        *self.get_mut(slot) = record;
        slot
    }

    pub(crate) fn remove(&mut self, slot: u32) -> T {
        let record = std::mem::take(self.get_mut(slot));
        assert!(!record.is_vacant(), "slot {slot} is freed once");
        self.free.push(slot);
        record
    }

    /// Live records in the order of their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let all = self.chunks.iter().flat_map(|chunk| chunk.iter());
        (0..self.end).zip(all).filter(|(_, record)| !record.is_vacant())
    }

    /// Bytes of memory: chunks, free list, page sets and what records hold on the heap.
    pub(crate) fn memory_bytes(&self) -> usize {
        let heap: usize = self.iter().map(|(_, record)| record.heap_bytes()).sum();
        let sets: usize = self.dirty.iter().map(|set| set.words.capacity() * 8).sum();
        self.chunks.len() * CHUNK_SLOTS * size_of::<T>() + self.free.capacity() * 4 + sets + heap
    }

    fn grow_to(&mut self, end: u32) {
        while (self.chunks.len() * CHUNK_SLOTS) < end as usize {
            self.chunks.push((0..CHUNK_SLOTS).map(|_| T::default()).collect());
        }
        self.end = self.end.max(end);
    }

    fn touch(&mut self, slot: u32) {
        let page = slot / T::PAGE_SLOTS;
        if self.frozen.contains(page) {
            self.frozen.remove(page);
            let image = self.encode_page(page);
            self.saved.push((page, image));
        }
        self.dirty[0].insert(page);
        self.dirty[1].insert(page);
    }

    fn encode_page(&self, page: u32) -> Vec<u8> {
        let first = page * T::PAGE_SLOTS;
        let end = (first + T::PAGE_SLOTS).min(self.end);
        let mut out = Vec::new();
        let mut live = 0;
        for slot in first..end {
            let record = self.get(slot);
            live += u32::from(!record.is_vacant());
            record.encode(&mut out);
        }
        if live == 0 { Vec::new() } else { out }
    }

    /// Puts a page from a checkpoint in place. Call [`Slab::finish_loading`] after the last.
    pub(crate) fn load_page(&mut self, page: u32, bytes: &[u8]) -> Result<(), Malformed> {
        let mut r = Reader::new(bytes);
        let first = page
            .checked_mul(T::PAGE_SLOTS)
            .filter(|first| first.checked_add(T::PAGE_SLOTS).is_some_and(|end| end < NONE))
            .ok_or_else(|| r.malformed("a page of slots below 2^32"))?;
        if first > self.end.saturating_add(1 << 28) {
            return Err(r.malformed("a page near the ones before it"));
        }
        let mut slot = first;
        while r.remaining() > 0 {
            if slot - first == T::PAGE_SLOTS {
                return Err(r.malformed("no more records than a page has slots"));
            }
            let record = T::decode(&mut r)?;
            self.grow_to(slot + 1);
            self.chunks[slot as usize / CHUNK_SLOTS][slot as usize % CHUNK_SLOTS] = record;
            slot += 1;
        }
        Ok(())
    }

    /// Lets every live record be changed in what is not stored: no page counts as changed.
    pub(crate) fn each_unmarked(&mut self, mut change: impl FnMut(&mut T)) {
        let all = self.chunks.iter_mut().flat_map(|chunk| chunk.iter_mut());
        all.filter(|record| !record.is_vacant()).for_each(&mut change);
    }

    /// Finds the free slots after the last page was loaded; the lowest is used first.
    pub(crate) fn finish_loading(&mut self) {
        self.free = (0..self.end).rev().filter(|&slot| self.get(slot).is_vacant()).collect();
    }

    /// Pages that changed since `side` was last written.
    pub(crate) fn dirty_pages(&self, side: Side) -> usize {
        self.dirty[side as usize].count
    }

    pub(crate) fn mark_dirty(&mut self, side: Side, page: u32) {
        self.dirty[side as usize].insert(page);
    }

    /// Every page there is counts as changed since `side` was written.
    pub(crate) fn mark_all_dirty(&mut self, side: Side) {
        for page in 0..self.end.div_ceil(T::PAGE_SLOTS) {
            self.dirty[side as usize].insert(page);
        }
    }

    pub(crate) fn freeze(&mut self, side: Side) {
        assert!(self.frozen.count == 0 && self.saved.is_empty(), "one checkpoint at a time");
        self.frozen = std::mem::take(&mut self.dirty[side as usize]);
    }

    /// Forgets a frozen set: the checkpoint failed.
    pub(crate) fn unfreeze(&mut self) {
        self.frozen = Pages::default();
        self.saved = Vec::new();
    }

    /// Encodes up to `pages_max` frozen pages from page `from` on.
    pub(crate) fn encode_frozen(&self, from: u32, pages_max: usize) -> Vec<PageImage> {
        let mut images = Vec::new();
        let mut next = self.frozen.next(from);
        while let Some(page) = next
            && images.len() < pages_max
        {
            images.push((page, self.encode_page(page)));
            next = self.frozen.next(page + 1);
        }
        images
    }

    /// Takes pages that were encoded out of the frozen set, and gives those that were saved since. A page that is
    /// in both has the same bytes in both.
    pub(crate) fn thaw(&mut self, encoded: &[PageImage]) -> Vec<PageImage> {
        for (page, _) in encoded {
            self.frozen.remove(*page);
        }
        std::mem::take(&mut self.saved)
    }
}

/// Finds the slot of an identity that is given in sequence: pages of slots, so that neither a hash nor a tree is
/// needed. Pages without any slot are freed.
#[derive(Default)]
pub(crate) struct IdMap {
    pages: Vec<Option<Box<IdPage>>>,
}

const ID_PAGE: usize = 1024;

struct IdPage {
    live: u32,
    slots: [u32; ID_PAGE],
}

impl IdMap {
    /// The slot of the `index`-th identity.
    pub(crate) fn get(&self, index: u64) -> Option<u32> {
        let page = self.pages.get(usize::try_from(index).ok()? / ID_PAGE)?.as_ref()?;
        Some(page.slots[index as usize % ID_PAGE]).filter(|&slot| slot != NONE)
    }

    pub(crate) fn insert(&mut self, index: u64, slot: u32) {
        let at = index as usize / ID_PAGE;
        if at >= self.pages.len() {
            self.pages.resize_with(at + 1, || None);
        }
        let page = self.pages[at]
            .get_or_insert_with(|| Box::new(IdPage { live: 0, slots: [NONE; ID_PAGE] }));
        page.live += u32::from(page.slots[index as usize % ID_PAGE] == NONE);
        page.slots[index as usize % ID_PAGE] = slot;
    }

    pub(crate) fn remove(&mut self, index: u64) {
        let at = index as usize / ID_PAGE;
        let Some(Some(page)) = self.pages.get_mut(at) else { return };
        page.live -= u32::from(page.slots[index as usize % ID_PAGE] != NONE);
        page.slots[index as usize % ID_PAGE] = NONE;
        if page.live == 0 {
            self.pages[at] = None;
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let live = self.pages.iter().flatten().count();
        self.pages.capacity() * 8 + live * size_of::<IdPage>()
    }
}
