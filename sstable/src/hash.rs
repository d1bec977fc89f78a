//! The hash section: from a key to its record in one look-up, used straight from the map.
//!
//! ```text
//! hash := homes: u64, slots: u64, seed: u64, probe_max: u32, chunk_bytes: u32,
//!         crc32 of a chunk: u32 *, zeros to 64 bytes, slot: u64 {slots}
//! slot := 0 | fingerprint: u16 (not 0) << 48 | block: u28 << 20 | offset in the block: u20
//! ```
//!
//! An open hash table with linear probing whose slots are in the order of the hashes. A hash's home
//! is the upper half of its product with the number of homes, so it grows with the hash: sorting the
//! hashes and giving each the next free slot from its home on makes the table in one sequential
//! pass, and equal input gives equal bytes. Three quarters of the homes are taken. A hit reads one
//! cache line here (sometimes the next), then the block's entry in the index, then the record; a
//! miss ends at the first empty slot, and reads a record in one of about eight thousand cases.
//!
//! Building takes 16 bytes per key. The slots are in chunks of 64 KiB with a CRC32 each, compared
//! when a chunk is first used, so that opening does not read the section; the section's own CRC32
//! covers its head.

use crate::error::{Error, Result};
use crate::format::{BLOCKS_MAX, u32_at, u64_at};

/// Slots under one checksum, in bytes.
const CHUNK_BYTES: usize = 64 << 10;
const SLOT_BYTES: usize = 8;
const FIXED_BYTES: usize = 32;
const OFFSET_BITS: u32 = 20;
/// The seed that the writer uses: fixed, so that equal input gives an equal file.
const SEED: u64 = 0x510e_527f_ade6_82d1;

// 28 bits for a block, 20 for an offset, 16 for the fingerprint.
const _: () = assert!(BLOCKS_MAX == 1 << 28 && 28 + OFFSET_BITS + 16 == 64);

// The first words of SHA-512's initial value: constants without a choice.
const K0: u64 = 0x6a09_e667_f3bc_c908;
const K1: u64 = 0xbb67_ae85_84ca_a73b;
const K2: u64 = 0x3c6e_f372_fe94_f82b;

/// The 64-bit hash of a key. Part of the format: it never changes within a version.
#[inline]
pub(crate) fn hash_of(key: &[u8], seed: u64) -> u64 {
    let mut state = seed;
    let mut rest = key;
    while rest.len() > 16 {
        state = fold(u64_at(rest, 0) ^ K0, u64_at(rest, 8) ^ state) ^ state.rotate_left(23);
        rest = &rest[16..];
    }
    // What is left has up to 16 bytes; the two words may overlap.
    let (a, b) = match rest.len() {
        0 => (0, 0),
        n @ 1..4 => {
            let (first, middle, last) = (rest[0], rest[n / 2], rest[n - 1]);
            (u64::from(first) << 16 | u64::from(middle) << 8 | u64::from(last), 0)
        }
        n @ 4..8 => (u64::from(u32_at(rest, 0)), u64::from(u32_at(rest, n - 4))),
        n => (u64_at(rest, 0), u64_at(rest, n - 8)),
    };
    state = fold(a ^ K0, b ^ state) ^ state.rotate_left(23);
    fold(state ^ K1, key.len() as u64 ^ K2)
}

/// Both halves of the 128-bit product, added without carry.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[inline]
fn home_of(hash: u64, homes: u64) -> u64 {
    ((u128::from(hash) * u128::from(homes)) >> 64) as u64
}

#[inline]
fn fingerprint_of(hash: u64) -> u16 {
    (hash as u16).max(1)
}

/// Gathers keys' hashes and places, and writes the section: 16 bytes of memory per key.
#[derive(Default)]
pub(crate) struct HashBuilder {
    keys: Vec<(u64, u64)>,
}

impl HashBuilder {
    pub(crate) fn add(&mut self, key: &[u8], block: u64, offset: u32) {
        assert!(block < BLOCKS_MAX && offset < 1 << OFFSET_BITS, "a place fits its slot");
        self.keys.push((hash_of(key, SEED), block << OFFSET_BITS | u64::from(offset)));
    }

    /// Writes the section in two parts: its head, then the slots. Returns the head's CRC32 and the
    /// section's length.
    pub(crate) fn finish(
        mut self,
        mut write: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<(u32, u64)> {
        self.keys.sort_unstable();
        let homes = (self.keys.len() as u64).div_ceil(3).max(1) * 4;
        let layout = lay_out(&self.keys, homes);
        let mut head = Vec::new();
        head.extend_from_slice(&homes.to_le_bytes());
        head.extend_from_slice(&layout.slots.to_le_bytes());
        head.extend_from_slice(&SEED.to_le_bytes());
        head.extend_from_slice(&layout.probe_max.to_le_bytes());
        head.extend_from_slice(&(CHUNK_BYTES as u32).to_le_bytes());
        self.chunks(homes, layout.slots, |chunk| {
            head.extend_from_slice(&crc32fast::hash(chunk).to_le_bytes());
            Ok(())
        })?;
        head.resize(head.len().next_multiple_of(64), 0);
        write(&head)?;
        // The slots are computed a second time rather than kept: memory stays at 16 bytes per key.
        self.chunks(homes, layout.slots, &mut write)?;
        Ok((crc32fast::hash(&head), head.len() as u64 + layout.slots * SLOT_BYTES as u64))
    }

    /// Gives the encoded slots to `each`, a chunk at a time.
    fn chunks(
        &self,
        homes: u64,
        slots: u64,
        mut each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut keys = self.keys.iter().peekable();
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        for slot in 0..slots {
            let taken = keys.next_if(|(hash, _)| home_of(*hash, homes) <= slot);
            let word =
                taken.map_or(0, |(hash, place)| u64::from(fingerprint_of(*hash)) << 48 | place);
            chunk.extend_from_slice(&word.to_le_bytes());
            if chunk.len() == CHUNK_BYTES || slot + 1 == slots {
                each(&chunk)?;
                chunk.clear();
            }
        }
        assert!(keys.next().is_none(), "every key has a slot");
        Ok(())
    }
}

struct Placed {
    slots: u64,
    probe_max: u32,
}

/// How many slots sorted hashes need, and the longest walk from a home to its slot, counted in
/// slots looked at.
fn lay_out(keys: &[(u64, u64)], homes: u64) -> Placed {
    let (mut next, mut probe_max) = (0, 1);
    for (hash, _) in keys {
        let home = home_of(*hash, homes);
        let slot = home.max(next);
        probe_max = probe_max.max(slot - home + 1);
        next = slot + 1;
    }
    let probe_max = u32::try_from(probe_max).unwrap_or(u32::MAX);
    Placed { slots: homes.max(next), probe_max }
}

/// A record's place, as a slot names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) block: usize,
    pub(crate) offset: usize,
}

/// The head of a hash section in the map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    homes: u64,
    slots: u64,
    pub(crate) seed: u64,
    probe_max: u32,
    /// Where the slots start, from the start of the section.
    slots_at: usize,
}

impl Head {
    /// Reads the head of a section and compares its CRC32.
    pub(crate) fn decode(section: &[u8], crc32: u32) -> Result<Self> {
        if section.len() < FIXED_BYTES {
            return Err(Error::corrupt(format!("hash: {} bytes have no head", section.len())));
        }
        let slots = u64_at(section, 8);
        let chunk_bytes = u32_at(section, 28);
        let slots_bytes = usize::try_from(slots).ok().and_then(|n| n.checked_mul(SLOT_BYTES));
        let slots_at = slots_bytes.and_then(|bytes| section.len().checked_sub(bytes));
        let head_bytes = slots_bytes
            .map(|bytes| (FIXED_BYTES + bytes.div_ceil(CHUNK_BYTES) * 4).next_multiple_of(64));
        let Some(slots_at) = slots_at.filter(|_| slots_at == head_bytes) else {
            return Err(Error::corrupt(format!(
                "hash: {} bytes do not hold {slots} slots and their checksums",
                section.len()
            )));
        };
        let found = crc32fast::hash(&section[..slots_at]);
        if found != crc32 {
            return Err(Error::corrupt(format!(
                "hash: CRC32 of its head {found:08x}, expected {crc32:08x}"
            )));
        }
        let head = Self {
            homes: u64_at(section, 0),
            slots,
            seed: u64_at(section, 16),
            probe_max: u32_at(section, 24),
            slots_at,
        };
        if chunk_bytes as usize != CHUNK_BYTES || head.homes == 0 || head.homes > slots {
            return Err(Error::corrupt(format!(
                "hash: {} homes in {slots} slots, chunks of {chunk_bytes} bytes",
                head.homes
            )));
        }
        Ok(head)
    }

    pub(crate) fn chunks(&self) -> usize {
        (self.slots as usize * SLOT_BYTES).div_ceil(CHUNK_BYTES)
    }

    /// Bytes of chunk `i`, from the start of the section.
    pub(crate) fn chunk(&self, i: usize) -> std::ops::Range<usize> {
        let end = self.slots_at + self.slots as usize * SLOT_BYTES;
        let start = self.slots_at + i * CHUNK_BYTES;
        start.min(end)..(start + CHUNK_BYTES).min(end)
    }

    /// Compares the CRC32 of chunk `i`.
    pub(crate) fn check_chunk(&self, section: &[u8], i: usize) -> Result<()> {
        let range = self.chunk(i);
        let expected = u32_at(section, FIXED_BYTES + 4 * i);
        let found = crc32fast::hash(&section[range.clone()]);
        if expected == found {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "hash chunk {i}, {} bytes at {} of the section: CRC32 {found:08x}, expected {expected:08x}",
            range.len(),
            range.start
        )))
    }

    /// The walk of slots that may name a key with this hash.
    #[inline]
    pub(crate) fn probe(&self, hash: u64) -> Probe {
        let slot = home_of(hash, self.homes) as usize;
        let end = (slot + self.probe_max as usize).min(self.slots as usize);
        Probe { slot, end, fingerprint: fingerprint_of(hash) }
    }

    /// Where slot `i` lies, from the start of the section.
    #[inline]
    pub(crate) fn slot_at(&self, i: usize) -> usize {
        self.slots_at + i * SLOT_BYTES
    }

    /// Number of slots that are taken. Reads them all.
    pub(crate) fn taken(&self, section: &[u8]) -> u64 {
        section[self.slots_at..].chunks_exact(SLOT_BYTES).filter(|s| u64_at(s, 0) != 0).count()
            as u64
    }
}

/// A walk over the slots that may name a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    pub(crate) slot: usize,
    end: usize,
    fingerprint: u16,
}

impl Probe {
    /// The next place with the key's fingerprint; none when the key is not in the table. `ready` is
    /// asked with a chunk's number before a slot of it is read.
    #[inline]
    pub(crate) fn next(
        &mut self,
        head: &Head,
        section: &[u8],
        ready: impl Fn(usize) -> Result<()>,
    ) -> Result<Option<Place>> {
        let mut chunk = usize::MAX;
        while self.slot < self.end {
            let at = head.slot_at(self.slot);
            let here = (at - head.slots_at) / CHUNK_BYTES;
            if here != chunk {
                ready(here)?;
                chunk = here;
            }
            let word = u64_at(section, at);
            if word == 0 {
                break;
            }
            self.slot += 1;
            if (word >> 48) as u16 == self.fingerprint {
                let block = (word >> OFFSET_BITS) as usize & (BLOCKS_MAX as usize - 1);
                return Ok(Some(Place { block, offset: word as usize & ((1 << OFFSET_BITS) - 1) }));
            }
        }
        self.slot = self.end;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn section_of(keys: u64) -> (Vec<u8>, Head) {
        let mut builder = HashBuilder::default();
        for key in 0..keys {
            builder.add(&key.to_le_bytes(), key, key as u32 % 1000);
        }
        let mut section = Vec::new();
        let (crc32, bytes) = builder
            .finish(|part| {
                section.extend_from_slice(part);
                Ok(())
            })
            .unwrap();
        assert_eq!(bytes, section.len() as u64);
        let head = Head::decode(&section, crc32).unwrap();
        (section, head)
    }

    #[test]
    fn every_key_is_found_at_its_place() {
        for keys in [0, 1, 2, 3, 1000, 100_000] {
            let (section, head) = section_of(keys);
            assert_eq!(head.taken(&section), keys);
            for key in 0..keys {
                let mut probe = head.probe(hash_of(&key.to_le_bytes(), head.seed));
                let expected = Place { block: key as usize, offset: key as usize % 1000 };
                let mut found = false;
                while let Some(place) =
                    probe.next(&head, &section, |c| head.check_chunk(&section, c)).unwrap()
                {
                    found |= place == expected;
                }
                assert!(found, "key {key} of {keys}");
            }
        }
    }

    #[test]
    fn absent_keys_rarely_lead_to_a_record_and_walks_are_short() {
        let (section, head) = section_of(100_000);
        assert!(head.probe_max < 200, "longest walk {}", head.probe_max);
        let mut wrong = 0;
        for key in 100_000u64..200_000 {
            let mut probe = head.probe(hash_of(&key.to_le_bytes(), head.seed));
            while probe.next(&head, &section, |_| Ok(())).unwrap().is_some() {
                wrong += 1;
            }
        }
        assert!(wrong < 60, "{wrong} of 100000 misses read a record");
    }

    #[test]
    fn the_hash_is_the_formats_and_tells_keys_apart() {
        // Golden: a change of these numbers is a change of the format.
        let golden = [b"".as_slice(), b"a", b"granary", b"0123456789abcdef", b"0123456789abcdefg"];
        let hashes: Vec<u64> = golden.iter().map(|key| hash_of(key, SEED)).collect();
        assert_eq!(hashes, HASHES, "{hashes:#x?}");
        let (mut keys, mut hashes) = (HashSet::new(), HashSet::new());
        for length in 0..100 {
            for byte in [0, 1, 0x80, 0xff] {
                let mut key = vec![0; length];
                for at in 0..length {
                    key[at] = byte;
                    hashes.insert(hash_of(&key, SEED));
                    keys.insert(key.clone());
                }
            }
        }
        assert_eq!(hashes.len(), keys.len());
    }

    const HASHES: [u64; 5] = [
        0x11af_bc63_a3dc_e9ab,
        0xd4cd_dd37_f1ca_c362,
        0xa89d_dd80_1170_f168,
        0x4ee1_1b58_fa6d_f23d,
        0xdbcb_c51f_613b_f134,
    ];
}
