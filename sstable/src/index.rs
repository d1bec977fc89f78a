//! The index section: for each block its place, its checksum, and a key that separates it from the
//! block before.
//!
//! ```text
//! index := entry{blocks}, separators
//! entry := offset: u64, separator_end: u64, stored_bytes: u32, raw_bytes: u32, crc32: u32,
//!          records: u24, codec: u8
//! ```
//!
//! Entries are 32 bytes, so that a range bisects them in the map, and a get reads one of them. The
//! separators' bytes follow, one behind the other; a separator is the shortest prefix of the
//! block's first key that is above all keys before it. The CRC32 of the blocks' stored bytes is
//! here and not beside the blocks: so the section's own CRC32, and with it the footer's, covers the
//! content of the whole file.

use crate::compress::Codec;
use crate::error::{Error, Result};
use crate::format::{BLOCK_RAW_BYTES_MAX, HEADER, KEY_BYTES_MAX, u32_at, u64_at};

/// Length of an entry, in bytes.
pub(crate) const ENTRY_BYTES: usize = 32;

/// What the index says about one block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockEntry {
    pub(crate) offset: u64,
    pub(crate) separator_end: u64,
    pub(crate) stored_bytes: u32,
    pub(crate) raw_bytes: u32,
    pub(crate) crc32: u32,
    pub(crate) records: u32,
    pub(crate) codec: Codec,
}

impl BlockEntry {
    fn encode(&self) -> [u8; ENTRY_BYTES] {
        assert!(self.records < 1 << 24, "a block has fewer than 2^24 records");
        let mut out = [0; ENTRY_BYTES];
        out[0..8].copy_from_slice(&self.offset.to_le_bytes());
        out[8..16].copy_from_slice(&self.separator_end.to_le_bytes());
        out[16..20].copy_from_slice(&self.stored_bytes.to_le_bytes());
        out[20..24].copy_from_slice(&self.raw_bytes.to_le_bytes());
        out[24..28].copy_from_slice(&self.crc32.to_le_bytes());
        out[28..32].copy_from_slice(&(self.records | (self.codec as u32) << 24).to_le_bytes());
        out
    }

    #[inline]
    fn decode(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let last = u32_at(bytes, 28);
        Some(Self {
            offset: u64_at(bytes, 0),
            separator_end: u64_at(bytes, 8),
            stored_bytes: u32_at(bytes, 16),
            raw_bytes: u32_at(bytes, 20),
            crc32: u32_at(bytes, 24),
            records: last & 0x00ff_ffff,
            codec: Codec::from_number((last >> 24) as u8)?,
        })
    }
}

/// Gathers the index while blocks are written: 32 bytes and a separator per block.
#[derive(Default)]
pub(crate) struct IndexBuilder {
    entries: Vec<u8>,
    separators: Vec<u8>,
}

impl IndexBuilder {
    /// Adds the next block. `before` is the last key of the block before it, none for the first.
    pub(crate) fn add(&mut self, mut entry: BlockEntry, before: Option<&[u8]>, first: &[u8]) {
        self.separators.extend_from_slice(separator(before, first));
        entry.separator_end = self.separators.len() as u64;
        self.entries.extend_from_slice(&entry.encode());
    }

    pub(crate) fn blocks(&self) -> u64 {
        (self.entries.len() / ENTRY_BYTES) as u64
    }

    /// The two parts of the section, in order.
    pub(crate) fn parts(&self) -> [&[u8]; 2] {
        [&self.entries, &self.separators]
    }
}

/// The shortest prefix of `first` that is above `before`; the empty key for the first block.
fn separator<'a>(before: Option<&[u8]>, first: &'a [u8]) -> &'a [u8] {
    let Some(before) = before else { return &[] };
    let common = before.iter().zip(first).take_while(|(a, b)| a == b).count();
    &first[..first.len().min(common + 1)]
}

/// The index in the map. Made by [`Index::check`] only, which is what the accessors rely on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Index {
    pub(crate) blocks: usize,
}

impl Index {
    /// Checks a section whose CRC32 matched: a wrong one was written wrongly, or on purpose.
    pub(crate) fn check(
        section: &[u8],
        blocks: u64,
        records: u64,
        section_at: u64,
    ) -> Result<Self> {
        let blocks = usize::try_from(blocks).unwrap_or(usize::MAX);
        let entries_bytes = blocks.checked_mul(ENTRY_BYTES).filter(|&bytes| bytes <= section.len());
        let Some(entries_bytes) = entries_bytes else {
            return Err(Error::corrupt(format!(
                "index: {} bytes cannot hold the entries of {blocks} blocks",
                section.len()
            )));
        };
        let index = Self { blocks };
        let (mut block_at, mut separator_at, mut total) = (HEADER.len() as u64, 0, 0);
        for i in 0..blocks {
            let wrong = |what: &str| {
                let offset = section_at + (i * ENTRY_BYTES) as u64;
                Err(Error::corrupt(format!("index entry {i} at offset {offset}: {what}")))
            };
            let Some(entry) = index.entry(section, i) else { return wrong("unknown codec") };
            if entry.offset != block_at {
                return wrong(&format!("block offset {}, expected {block_at}", entry.offset));
            }
            if entry.raw_bytes as usize > BLOCK_RAW_BYTES_MAX
                || entry.stored_bytes > entry.raw_bytes
            {
                return wrong("the block's length is over the limit");
            }
            if entry.codec == Codec::Raw && entry.stored_bytes != entry.raw_bytes {
                return wrong("a block that is not compressed has two lengths");
            }
            let separator_bytes = entry.separator_end.checked_sub(separator_at);
            if separator_bytes.is_none_or(|bytes| bytes > KEY_BYTES_MAX as u64)
                || entry.separator_end > (section.len() - entries_bytes) as u64
            {
                return wrong("the separator is not in its place");
            }
            if i > 0 && index.separator(section, i - 1) >= index.separator(section, i) {
                return wrong("the separator is not above the one before");
            }
            block_at += u64::from(entry.stored_bytes);
            separator_at = entry.separator_end;
            total += u64::from(entry.records);
        }
        if separator_at != (section.len() - entries_bytes) as u64 {
            return Err(Error::corrupt("index: bytes after the last separator".to_owned()));
        }
        if block_at.next_multiple_of(crate::format::SECTION_ALIGN) != section_at {
            return Err(Error::corrupt(format!(
                "index: the blocks end at offset {block_at}, and the index starts at {section_at}"
            )));
        }
        if total != records {
            return Err(Error::corrupt(format!(
                "index: the blocks have {total} records, the footer says {records}"
            )));
        }
        Ok(index)
    }

    /// Entry `i`, if there is one.
    #[inline]
    pub(crate) fn entry(self, section: &[u8], i: usize) -> Option<BlockEntry> {
        if i >= self.blocks {
            return None;
        }
        BlockEntry::decode(section.get(i * ENTRY_BYTES..)?.first_chunk()?)
    }

    /// The separator of block `i`: not above any key in it, and above all keys before it.
    pub(crate) fn separator(self, section: &[u8], i: usize) -> &[u8] {
        let end = |i: usize| u64_at(section, i * ENTRY_BYTES + 8) as usize;
        let start = if i == 0 { 0 } else { end(i - 1) };
        &section[self.blocks * ENTRY_BYTES..][start..end(i)]
    }

    /// The block in which `key` is, if it is anywhere; none if the table is empty.
    pub(crate) fn block_of(self, section: &[u8], key: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.blocks);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.separator(section, middle) <= key { low = middle } else { high = middle }
        }
        (low < high).then_some(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_separator_is_above_what_was_before_and_a_prefix_of_what_follows() {
        assert_eq!(separator(None, b"abc"), b"");
        assert_eq!(separator(Some(b"abc"), b"abd"), b"abd");
        assert_eq!(separator(Some(b"abc"), b"bcd"), b"b");
        assert_eq!(separator(Some(b"ab"), b"abcdef"), b"abc");
        assert_eq!(separator(Some(b""), b"abc"), b"a");
    }
}
