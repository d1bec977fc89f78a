//! Fixed-width little-endian values and length-prefixed texts: what the journal and the checkpoint are made of.
//!
//! Writing is by plain functions that append to a `Vec<u8>`; reading is by [`Reader`], which is total: any bytes give
//! a value or a [`Malformed`], and nothing is allocated beyond the bytes that are there.
//!
//! Does not know what the values mean, nor checksums.

use std::fmt;

/// Bytes that are not what was expected: where, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Byte offset in what was being read.
    pub offset: usize,
    /// What was expected there.
    pub expected: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: expected {}", self.offset, self.expected)
    }
}

/// Appends one byte.
pub fn put_u8(out: &mut Vec<u8>, value: u8) {
    out.push(value);
}

/// Appends a flag as one byte, 0 or 1.
pub fn put_bool(out: &mut Vec<u8>, value: bool) {
    out.push(u8::from(value));
}

/// Appends two bytes.
pub fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends four bytes.
pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends eight bytes.
pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends eight bytes, two's complement.
pub fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a text: u32 length in bytes, then UTF-8.
pub fn put_text(out: &mut Vec<u8>, value: &str) {
    put_bytes(out, value.as_bytes());
}

/// Appends bytes: u32 length, then the bytes.
pub fn put_bytes(out: &mut Vec<u8>, value: &[u8]) {
    put_u32(out, u32::try_from(value.len()).expect("texts and values are far below 4 GiB"));
    out.extend_from_slice(value);
}

/// Reads what the `put_` functions wrote.
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the first byte of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// Offset of the next byte.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.offset
    }

    /// The error that `expected` was not found here.
    pub fn malformed(&self, expected: &'static str) -> Malformed {
        Malformed { offset: self.offset, expected }
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize, expected: &'static str) -> Result<&'a [u8], Malformed> {
        if count > self.remaining() {
            return Err(self.malformed(expected));
        }
        let taken = &self.bytes[self.offset..self.offset + count];
        self.offset += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N], Malformed> {
        Ok(self.take(N, expected)?.try_into().expect("take gives as many bytes as asked"))
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>("one byte")?[0])
    }

    /// A flag: 0 or 1, nothing else.
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        let malformed = self.malformed("a flag of 0 or 1");
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(malformed),
        }
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array("two bytes")?))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array("four bytes")?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array("eight bytes")?))
    }

    /// Eight bytes, two's complement.
    pub fn i64(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_le_bytes(self.array("eight bytes")?))
    }

    /// Sixteen bytes.
    pub fn id16(&mut self) -> Result<[u8; 16], Malformed> {
        self.array("sixteen bytes")
    }

    /// Length-prefixed bytes of at most `bytes_max`.
    pub fn bytes(&mut self, bytes_max: usize) -> Result<&'a [u8], Malformed> {
        let malformed = self.malformed("a length within its limit");
        let length = self.u32()? as usize;
        if length > bytes_max {
            return Err(malformed);
        }
        self.take(length, "as many bytes as the length says")
    }

    /// Length-prefixed UTF-8 of at most `bytes_max`.
    pub fn text(&mut self, bytes_max: usize) -> Result<&'a str, Malformed> {
        let malformed = self.malformed("UTF-8 text");
        std::str::from_utf8(self.bytes(bytes_max)?).map_err(|_| malformed)
    }

    /// A count of things that take at least `bytes_each` bytes, checked against what is left.
    pub fn count(&mut self, bytes_each: usize) -> Result<usize, Malformed> {
        let malformed = self.malformed("a count that fits in what is left");
        let count = self.u32()? as usize;
        if count.checked_mul(bytes_each).is_none_or(|bytes| bytes > self.remaining()) {
            return Err(malformed);
        }
        Ok(count)
    }

    /// Nothing may be left.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.remaining() == 0 { Ok(()) } else { Err(self.malformed("the end")) }
    }
}
