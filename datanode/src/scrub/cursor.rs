//! How far a round of scrubbing came: `<volume>/scrub`, so that a restart goes on.
//!
//! ```text
//! "GRSCRUB1" | u64 started ms | u64 last finished ms | u64 part | u8 whether a block follows, u64 block
//!            | u64 verified bytes | u64 corrupt | u32 CRC32 of all before      (big-endian, 61 bytes)
//! ```
//!
//! A cursor that does not decode is none: the round begins anew, which costs time and nothing else.

use std::path::Path;

use bytes::{Buf, BufMut};
use proto::{BlockId, Result};

use crate::files::read_up_to;
use crate::identity::persist;

const NAME: &str = "scrub";
const MAGIC: &[u8; 8] = b"GRSCRUB1";
const BYTES: usize = 8 + 3 * 8 + 9 + 2 * 8 + 4;

/// How far a round came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// When the round before ended; 0: none did.
    pub last_finished_ms: u64,
    /// The part that is gone through; the number of parts if the round has ended.
    pub part: usize,
    /// The last block of it that was looked at.
    pub block: Option<BlockId>,
    /// Bytes of replicas that were verified.
    pub verified_bytes: u64,
    /// Damaged replicas that were found.
    pub corrupt: u64,
}

impl Cursor {
    /// A round that begins.
    pub fn new(started_ms: u64) -> Self {
        Self {
            started_ms,
            last_finished_ms: 0,
            part: 0,
            block: None,
            verified_bytes: 0,
            corrupt: 0,
        }
    }

    /// Its bytes.
    pub fn encode(self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.put_u64(self.started_ms);
        bytes.put_u64(self.last_finished_ms);
        bytes.put_u64(self.part as u64);
        bytes.put_u8(u8::from(self.block.is_some()));
        bytes.put_u64(self.block.unwrap_or_default().0);
        bytes.put_u64(self.verified_bytes);
        bytes.put_u64(self.corrupt);
        let sum = crc32fast::hash(&bytes);
        bytes.put_u32(sum);
        bytes
    }

    /// Reads it; `None` if the bytes are no whole cursor.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.split_at_checked(BYTES - 4)?;
        if sum != crc32fast::hash(body).to_be_bytes() {
            return None;
        }
        let mut body = body.strip_prefix(MAGIC)?;
        let (started_ms, last_finished_ms) = (body.get_u64(), body.get_u64());
        let part = usize::try_from(body.get_u64()).ok()?;
        let block = (body.get_u8() == 1, BlockId(body.get_u64()));
        Some(Self {
            started_ms,
            last_finished_ms,
            part,
            block: block.0.then_some(block.1),
            verified_bytes: body.get_u64(),
            corrupt: body.get_u64(),
        })
    }

    /// The cursor of a volume, if there is a good one.
    pub fn load(root: &Path) -> Option<Self> {
        let mut bytes = [0; BYTES + 1];
        let file = std::fs::File::open(root.join(NAME)).ok()?;
        let count = read_up_to(&file, &mut bytes, 0).ok()?;
        Self::decode(&bytes[..count])
    }

    /// Keeps it, durably. Blocks.
    pub fn save(self, root: &Path) -> Result<()> {
        persist(root, NAME, &self.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURSOR: Cursor = Cursor {
        started_ms: 1,
        last_finished_ms: 2,
        part: 3,
        block: Some(BlockId(1 << 63 | 4)),
        verified_bytes: 5,
        corrupt: 6,
    };

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let bytes = CURSOR.encode();
        assert_eq!(bytes.len(), BYTES);
        assert_eq!(&bytes[..8], MAGIC);
        // part 3 | a block follows | 2^63 + 4
        assert_eq!(bytes[24..41], [0, 0, 0, 0, 0, 0, 0, 3, 1, 0x80, 0, 0, 0, 0, 0, 0, 4]);
        assert_eq!(Cursor::decode(&bytes), Some(CURSOR));
    }

    #[test]
    fn no_truncation_and_no_flipped_bit_passes_for_a_cursor() {
        let good = CURSOR.encode();
        for length in 0..good.len() {
            assert_eq!(Cursor::decode(&good[..length]), None);
        }
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Cursor::decode(&bytes), None, "bit {bit}");
        }
    }

    #[test]
    fn a_saved_cursor_is_loaded_and_a_missing_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Cursor::load(folder.path()), None);
        CURSOR.save(folder.path()).unwrap();
        assert_eq!(Cursor::load(folder.path()), Some(CURSOR));
    }
}
