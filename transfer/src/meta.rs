//! The checksum file beside a replica: a header of 7 bytes, then one checksum for each chunk, as HDFS lays it out.
//!
//! ```text
//! offset  bytes  field
//!      0      2  version, big-endian: 1
//!      2      1  type: 0 none, 1 CRC32, 2 CRC32C
//!      3      4  bytes under one checksum, big-endian
//!      7   4..n  checksums, 4 bytes each, big-endian; the last may cover a short chunk
//! ```
//!
//! `docs/formats/replica-meta.md` tells who writes and reads it. Pure: offsets and bytes, no files.

use proto::{Code, Error, Result};

use crate::checksum::{Checksum, ChecksumKind, SUM_BYTES};

/// The only version there is.
pub const VERSION: u16 = 1;
/// Bytes before the first checksum.
pub const HEADER_BYTES: usize = 7;

/// The header's bytes.
pub fn encode_header(checksum: Checksum) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[0..2].copy_from_slice(&VERSION.to_be_bytes());
    bytes[2] = checksum.kind() as u8;
    let chunk = u32::try_from(checksum.chunk_bytes()).expect("a chunk is at most 1 MiB");
    bytes[3..7].copy_from_slice(&chunk.to_be_bytes());
    bytes
}

/// Reads the header from the file's first bytes (more may follow). Anything but a known header is `Corrupt`.
pub fn decode_header(bytes: &[u8]) -> Result<Checksum> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Err(corrupt(format!("{} bytes, expected at least {HEADER_BYTES}", bytes.len())));
    };
    let version = u16::from_be_bytes([header[0], header[1]]);
    if version != VERSION {
        return Err(corrupt(format!("version {version}, expected {VERSION}")));
    }
    let kind = ChecksumKind::from_number(header[2])
        .ok_or_else(|| corrupt(format!("checksum type {}, expected 0, 1 or 2", header[2])))?;
    let chunk = u32::from_be_bytes([header[3], header[4], header[5], header[6]]);
    Checksum::new(kind, chunk).map_err(|error| corrupt(error.message))
}

/// Bytes of the whole checksum file of a replica of `data_bytes`.
pub fn file_bytes(checksum: Checksum, data_bytes: u64) -> u64 {
    sum_offset(checksum, data_bytes.div_ceil(checksum.chunk_bytes() as u64))
}

/// Where the checksum of chunk number `chunk` (from 0) stands in the file.
pub fn sum_offset(checksum: Checksum, chunk: u64) -> u64 {
    match checksum.kind() {
        ChecksumKind::Null => HEADER_BYTES as u64,
        _ => HEADER_BYTES as u64 + chunk * SUM_BYTES as u64,
    }
}

fn corrupt(what: String) -> Error {
    Error::new(Code::Corrupt, format!("checksum file header: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_bytes_of_the_format() {
        // version 1 | type 2 (CRC32C) | 512
        assert_eq!(encode_header(Checksum::NATIVE), [0, 1, 2, 0, 0, 2, 0]);
        assert_eq!(decode_header(&[0, 1, 2, 0, 0, 2, 0, 9]).unwrap(), Checksum::NATIVE);
    }

    #[test]
    fn truncations_and_bit_flips_never_panic_and_never_pass_as_the_same() {
        let good = encode_header(Checksum::NATIVE);
        for length in 0..HEADER_BYTES {
            assert_eq!(decode_header(&good[..length]).unwrap_err().code, Code::Corrupt);
        }
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = decode_header(&bytes) {
                assert_ne!(other, Checksum::NATIVE, "bit {bit}");
            }
        }
    }

    #[test]
    fn sizes_and_offsets_follow_the_chunks() {
        let native = Checksum::NATIVE;
        assert_eq!(file_bytes(native, 0), 7);
        assert_eq!(file_bytes(native, 1), 11);
        assert_eq!(file_bytes(native, 512), 11);
        assert_eq!(file_bytes(native, 513), 15);
        assert_eq!(sum_offset(native, 3), 19);
        let null = Checksum::new(ChecksumKind::Null, 512).unwrap();
        assert_eq!(file_bytes(null, 1 << 20), 7);
    }
}
