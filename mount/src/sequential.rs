//! Reading ahead for a program that reads a file from front to back.
//!
//! The kernel asks for pieces of at most its own read-ahead, several at a time, and they may arrive
//! out of order. A [`Stream`] has the client fetch ahead, keeps the bytes around the place where
//! the program reads, and cuts the pieces from them. Reads that jump about do not come here.
//! Memory: the client's read-ahead, and [`KEPT_BYTES`] behind the place.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use client::{FileReader, Result};

/// Bytes kept behind the last read, for pieces that arrive late.
const KEPT_BYTES: u64 = 2 << 20;
/// How far ahead of what was fetched a piece may be and still belong to the stream, in bytes.
const AHEAD_BYTES: u64 = 4 << 20;

/// Bytes of a file around the place where a program reads.
#[derive(Debug)]
pub(crate) struct Stream {
    reader: FileReader,
    window: Window,
}

impl Stream {
    /// Reads on from `offset`.
    pub(crate) fn new(mut reader: FileReader, offset: u64) -> Self {
        reader.seek(offset);
        Self { reader, window: Window::new(offset) }
    }

    /// Whether a piece at `offset` is near enough to come from here.
    pub(crate) fn covers(&self, offset: u64) -> bool {
        self.window.covers(offset)
    }

    /// The bytes at `offset`, fewer at the end of the file. The caller has asked [`Self::covers`].
    pub(crate) async fn read(&mut self, offset: u64, size: usize) -> Result<Bytes> {
        let end = offset.saturating_add(size as u64);
        while self.window.end < end {
            let Some(bytes) = self.reader.read_next().await? else { break };
            self.window.push(bytes);
        }
        let piece = self.window.cut(offset, size);
        self.window.drop_before(offset.saturating_sub(KEPT_BYTES));
        Ok(piece)
    }
}

/// Consecutive bytes of a file, from `start` to `end`. Pure.
#[derive(Debug)]
struct Window {
    start: u64,
    end: u64,
    parts: VecDeque<Bytes>,
}

impl Window {
    fn new(offset: u64) -> Self {
        Self { start: offset, end: offset, parts: VecDeque::new() }
    }

    fn covers(&self, offset: u64) -> bool {
        self.start <= offset && offset <= self.end.saturating_add(AHEAD_BYTES)
    }

    fn push(&mut self, bytes: Bytes) {
        self.end += bytes.len() as u64;
        self.parts.push_back(bytes);
    }

    /// What there is of the `size` bytes at `offset`; without a copy if it lies in one part.
    fn cut(&self, offset: u64, size: usize) -> Bytes {
        let mut skip = offset.saturating_sub(self.start);
        let mut copied = BytesMut::new();
        for part in &self.parts {
            if skip >= part.len() as u64 {
                skip -= part.len() as u64;
                continue;
            }
            let from = skip as usize;
            let to = part.len().min(from + (size - copied.len()));
            skip = 0;
            if copied.is_empty() && to - from == size {
                return part.slice(from..to);
            }
            copied.extend_from_slice(&part[from..to]);
            if copied.len() == size {
                break;
            }
        }
        copied.freeze()
    }

    fn drop_before(&mut self, offset: u64) {
        while let Some(part) = self.parts.front()
            && self.start + part.len() as u64 <= offset
        {
            self.start += part.len() as u64;
            self.parts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_across_parts_and_old_parts_are_dropped() {
        let mut window = Window::new(10);
        for part in ["abc", "defgh", "ij"] {
            window.push(Bytes::from_static(part.as_bytes()));
        }
        assert_eq!((window.start, window.end), (10, 20));
        assert_eq!(window.cut(10, 3), "abc");
        assert_eq!(window.cut(12, 4), "cdef");
        assert_eq!(window.cut(14, 2), "ef");
        assert_eq!(window.cut(11, 100), "bcdefghij");
        assert_eq!(window.cut(20, 5), "");
        window.drop_before(17);
        assert_eq!((window.start, window.parts.len()), (13, 2));
        assert_eq!(window.cut(13, 6), "defghi");
        assert!(window.covers(13) && window.covers(20 + AHEAD_BYTES));
        assert!(!window.covers(12) && !window.covers(21 + AHEAD_BYTES));
    }
}
