//! A block: sorted records, one behind the other, with a restart point every [`RESTART_INTERVAL`]
//! records.
//!
//! ```text
//! record  := key_bytes: varint, value_bytes: varint, key, value
//! block   := record*, restart: u32 *, restarts: u32
//! ```
//!
//! Keys are stored whole, so that a record can be read from its offset alone, which is what a point
//! get does. Searching bisects the restart points and walks at most one interval. What keys have in
//! common is left to zstd.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::{
    BLOCK_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX, get_varint, put_varint, u32_at, varint_bytes,
};
use crate::value::Value;

/// Records from one restart point to the next. Readers do not depend on it.
const RESTART_INTERVAL: u32 = 16;

/// Gathers the records of one block.
#[derive(Default)]
pub(crate) struct BlockBuilder {
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    records: u32,
}

impl BlockBuilder {
    pub(crate) fn records(&self) -> u32 {
        self.records
    }

    /// Length of the finished block if this record were added, in bytes.
    pub(crate) fn bytes_with(&self, key: &[u8], value: &[u8]) -> usize {
        let restarts = self.restarts.len() + usize::from(self.starts_interval());
        let lengths = varint_bytes(key.len() as u32) + varint_bytes(value.len() as u32);
        self.bytes.len() + lengths + key.len() + value.len() + 4 * restarts + 4
    }

    /// Adds a record whose sizes were checked, and returns its offset.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) -> u32 {
        assert!(key.len() <= KEY_BYTES_MAX && value.len() <= VALUE_BYTES_MAX);
        let at = self.bytes.len() as u32;
        assert!((at as usize) < BLOCK_BYTES_MAX, "a record starts within the largest block size");
        if self.starts_interval() {
            self.restarts.push(at);
        }
        put_varint(&mut self.bytes, key.len() as u32);
        put_varint(&mut self.bytes, value.len() as u32);
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.records += 1;
        at
    }

    /// The block's bytes, before compression. The builder must be cleared before the next record.
    pub(crate) fn finish(&mut self) -> &[u8] {
        assert!(self.records > 0, "a block has at least one record");
        for restart in &self.restarts {
            self.bytes.extend_from_slice(&restart.to_le_bytes());
        }
        self.bytes.extend_from_slice(&(self.restarts.len() as u32).to_le_bytes());
        &self.bytes
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.restarts.clear();
        self.records = 0;
        // One huge value must not keep its memory for the rest of the table.
        self.bytes.shrink_to(2 * BLOCK_BYTES_MAX);
    }

    fn starts_interval(&self) -> bool {
        self.records.is_multiple_of(RESTART_INTERVAL)
    }
}

/// A block's bytes before compression, from the map or on their own.
#[derive(Clone)]
pub(crate) enum BlockBytes<'t> {
    Mapped(&'t [u8]),
    Shared(Arc<Vec<u8>>),
}

impl<'t> BlockBytes<'t> {
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }

    #[inline]
    pub(crate) fn value(&self, range: Range<usize>) -> Value<'t> {
        match self {
            Self::Mapped(bytes) => Value::mapped(&bytes[range]),
            Self::Shared(bytes) => Value::shared(bytes.clone(), range),
        }
    }
}

/// Where a record's key and value lie in its block, and where the next record starts.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) key: Range<usize>,
    pub(crate) value: Range<usize>,
    pub(crate) next: usize,
}

/// Where the parts of a block are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// First byte after the records, which is the first of the restart points.
    pub(crate) records_end: usize,
    restarts: usize,
}

impl Layout {
    /// Finds the parts of a block, whatever its bytes are.
    #[inline]
    pub(crate) fn of(block: &[u8]) -> Result<Self> {
        let wrong = || {
            Error::corrupt(format!("a block of {} bytes has no room for its restarts", block.len()))
        };
        let tail = block.len().checked_sub(4).ok_or_else(wrong)?;
        let restarts = u32_at(block, tail) as usize;
        let records_end = restarts.checked_mul(4).and_then(|bytes| tail.checked_sub(bytes));
        match records_end {
            Some(records_end) if restarts > 0 => Ok(Self { records_end, restarts }),
            _ => Err(wrong()),
        }
    }

    /// The record at `at`, or an error if there is none that fits.
    #[inline]
    pub(crate) fn record(&self, block: &[u8], at: usize) -> Result<Record> {
        record_in(&block[..self.records_end], at).ok_or_else(|| {
            Error::corrupt(format!(
                "no record at offset {at} of a block with {} bytes of records",
                self.records_end
            ))
        })
    }

    /// Offset of the first record whose key is not below `key`; `records_end` if there is none.
    pub(crate) fn lower_bound(&self, block: &[u8], key: &[u8]) -> Result<usize> {
        // The last restart point whose key is below `key`; the first record not below it is in its
        // interval, or the very next one.
        let (mut low, mut high) = (0, self.restarts);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let record = self.record(block, self.restart(block, middle))?;
            if &block[record.key] < key { low = middle } else { high = middle }
        }
        let mut at = self.restart(block, low);
        while at < self.records_end {
            let record = self.record(block, at)?;
            if &block[record.key] >= key {
                return Ok(at);
            }
            at = record.next;
        }
        Ok(self.records_end)
    }

    /// Offset of restart point `i`, as it is in the file.
    pub(crate) fn restart(&self, block: &[u8], i: usize) -> usize {
        u32_at(block, self.records_end + 4 * i) as usize
    }

    /// Number of restart points.
    pub(crate) fn restarts(&self) -> usize {
        self.restarts
    }
}

/// The record at `at` of a block whose restart points were not looked at: what a point get reads.
#[inline]
pub(crate) fn record_at(block: &[u8], at: usize) -> Result<Record> {
    record_in(block, at).ok_or_else(|| {
        Error::corrupt(format!("no record at offset {at} of a block of {} bytes", block.len()))
    })
}

/// The record at `at` in a block's records, if one fits there.
#[inline]
fn record_in(records: &[u8], at: usize) -> Option<Record> {
    let mut cursor = at;
    let key_bytes = get_varint(records, &mut cursor)? as usize;
    let value_bytes = get_varint(records, &mut cursor)? as usize;
    let value_at = cursor.checked_add(key_bytes)?;
    let next = value_at.checked_add(value_bytes)?;
    let fits =
        next <= records.len() && key_bytes <= KEY_BYTES_MAX && value_bytes <= VALUE_BYTES_MAX;
    fits.then_some(Record { key: cursor..value_at, value: value_at..next, next })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_of(keys: &[Vec<u8>]) -> Vec<u8> {
        let mut builder = BlockBuilder::default();
        for key in keys {
            let bytes = builder.bytes_with(key, b"v");
            builder.add(key, b"v");
            assert!(bytes >= builder.bytes.len());
        }
        builder.finish().to_vec()
    }

    #[test]
    fn lower_bound_finds_each_key_and_each_gap() {
        for count in [1, 2, 15, 16, 17, 100] {
            let keys: Vec<Vec<u8>> =
                (0..count).map(|i| format!("{:03}", 2 * i + 1).into()).collect();
            let block = block_of(&keys);
            let layout = Layout::of(&block).unwrap();
            for probe in 0..=2 * count {
                let at = layout.lower_bound(&block, format!("{probe:03}").as_bytes()).unwrap();
                let expected =
                    keys.iter().find(|k| k.as_slice() >= format!("{probe:03}").as_bytes());
                let found = (at < layout.records_end).then(|| layout.record(&block, at).unwrap());
                assert_eq!(found.map(|r| block[r.key].to_vec()).as_ref(), expected);
            }
        }
    }

    #[test]
    fn any_bytes_give_a_layout_or_an_error() {
        for bytes in
            [&[][..], &[0; 3], &[0; 4], &[1, 0, 0, 0], &[255; 4], &[9, 0, 0, 0, 1, 0, 0, 0]]
        {
            if let Ok(layout) = Layout::of(bytes) {
                assert!(layout.lower_bound(bytes, b"k").is_err() || layout.records_end == 0);
            }
        }
    }
}
