//! What 32-bit CRCs allow beyond computing them: the CRC of joined pieces, and the CRCs of all prefixes.
//!
//! A CRC is a remainder of polynomials over GF(2), here with bits reflected (the highest power in the lowest bit), so
//! the CRC of two joined pieces is `crc(a) * x^(8 * bytes of b) + crc(b)` modulo the polynomial: no byte is read again.
//! That is how HDFS's composite CRC makes a file's CRC of its chunks' ones. Pure; speaks of [`ChecksumKind`] only.

use crate::checksum::ChecksumKind;

/// The polynomial of CRC-32 (IEEE 802.3), reflected.
const IEEE: u32 = 0xedb8_8320;
/// The polynomial of CRC-32C (Castagnoli), reflected.
const CASTAGNOLI: u32 = 0x82f6_3b78;
/// The polynomial 1, reflected.
const ONE: u32 = 1 << 31;

static IEEE_TABLE: [u32; 256] = table(IEEE);
static CASTAGNOLI_TABLE: [u32; 256] = table(CASTAGNOLI);

/// The CRC of pieces that are joined one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Composite {
    polynomial: u32,
    crc: u32,
    /// The length that `shift` is for: pieces mostly have the same one.
    piece_bytes: u64,
    shift: u32,
}

impl Composite {
    /// Of no piece yet; `None` for [`ChecksumKind::Null`].
    pub fn new(kind: ChecksumKind) -> Option<Self> {
        let polynomial = polynomial(kind)?;
        Some(Self { polynomial, crc: 0, piece_bytes: 0, shift: ONE })
    }

    /// Joins a piece of `bytes` bytes that has this CRC.
    pub fn append(&mut self, crc: u32, bytes: u64) {
        if bytes != self.piece_bytes {
            self.piece_bytes = bytes;
            self.shift = shift_by(self.polynomial, bytes);
        }
        self.crc = multiply(self.polynomial, self.shift, self.crc) ^ crc;
    }

    /// The CRC of all that was joined; 0 of nothing.
    pub fn value(&self) -> u32 {
        self.crc
    }
}

/// The longest prefix of `data`, of at least one byte, whose CRC is `crc`.
pub fn longest_prefix(kind: ChecksumKind, data: &[u8], crc: u32) -> Option<usize> {
    let table = match kind {
        ChecksumKind::Null => return None,
        ChecksumKind::Crc32 => &IEEE_TABLE,
        ChecksumKind::Crc32c => &CASTAGNOLI_TABLE,
    };
    let mut state = u32::MAX;
    let mut longest = None;
    for (at, byte) in data.iter().enumerate() {
        state = table[usize::from(state as u8 ^ byte)] ^ (state >> 8);
        if !state == crc {
            longest = Some(at + 1);
        }
    }
    longest
}

fn polynomial(kind: ChecksumKind) -> Option<u32> {
    match kind {
        ChecksumKind::Null => None,
        ChecksumKind::Crc32 => Some(IEEE),
        ChecksumKind::Crc32c => Some(CASTAGNOLI),
    }
}

/// `x^(8 * bytes)` modulo the polynomial.
fn shift_by(polynomial: u32, bytes: u64) -> u32 {
    let mut power = ONE >> 8;
    let mut rest = bytes;
    let mut result = ONE;
    while rest > 0 {
        if rest & 1 == 1 {
            result = multiply(polynomial, power, result);
        }
        power = multiply(polynomial, power, power);
        rest >>= 1;
    }
    result
}

/// `a * b` modulo the polynomial.
fn multiply(polynomial: u32, a: u32, b: u32) -> u32 {
    let (mut a, mut b, mut product) = (a, b, 0);
    // The highest bit of `a` is its constant term.
    while a != 0 {
        if a & ONE != 0 {
            product ^= b;
        }
        a <<= 1;
        b = if b & 1 == 1 { (b >> 1) ^ polynomial } else { b >> 1 };
    }
    product
}

const fn table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ polynomial } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Checksum;
    use proptest::prelude::*;

    const KINDS: [ChecksumKind; 2] = [ChecksumKind::Crc32, ChecksumKind::Crc32c];

    #[test]
    fn nothing_joined_is_zero_and_null_has_no_composite() {
        for kind in KINDS {
            assert_eq!(Composite::new(kind).unwrap().value(), 0);
        }
        assert!(Composite::new(ChecksumKind::Null).is_none());
        assert_eq!(longest_prefix(ChecksumKind::Null, b"abc", 0), None);
    }

    proptest! {
        #[test]
        fn joined_crcs_are_the_crc_of_the_joined_bytes(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..700), 0..8),
            kind in prop_oneof![Just(KINDS[0]), Just(KINDS[1])],
        ) {
            let checksum = Checksum::new(kind, 512).unwrap();
            let mut composite = Composite::new(kind).unwrap();
            for piece in &pieces {
                composite.append(checksum.of(piece), piece.len() as u64);
            }
            prop_assert_eq!(composite.value(), checksum.of(&pieces.concat()));
        }

        #[test]
        fn the_prefix_that_a_crc_covers_is_found(
            data in proptest::collection::vec(any::<u8>(), 1..2000),
            at in any::<proptest::sample::Index>(),
            kind in prop_oneof![Just(KINDS[0]), Just(KINDS[1])],
        ) {
            let end = at.index(data.len()) + 1;
            let crc = Checksum::new(kind, 512).unwrap().of(&data[..end]);
            prop_assert!(longest_prefix(kind, &data, crc) >= Some(end));
            prop_assert_eq!(longest_prefix(kind, &data[..end], crc), Some(end));
        }
    }
}
