//! Checksums over chunks: 4 bytes, big-endian, for each `chunk_bytes` of data, the last chunk possibly short.
//!
//! CRC32C is HDFS's default and Granary's own; CRC32 (IEEE) is what some HDFS clients ask for; NULL means no
//! checksum bytes at all. Pure: no IO. What holds: `sums.len() == sum_bytes(data.len())` on every call, and
//! [`Checksum::verify`] names the first chunk that does not match. It does not know where chunks begin in a block:
//! callers give data that begins at a chunk boundary, or a piece that lies within one chunk.

use proto::hadoop::hdfs::{ChecksumProto, ChecksumTypeProto};
use proto::{Code, Error, Result, limits};

/// Bytes of one checksum.
pub const SUM_BYTES: usize = 4;

/// The largest chunk that anyone may ask for, in bytes.
pub const CHUNK_BYTES_MAX: u32 = 1 << 20;

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ChecksumKind {
    /// No checksums.
    Null = 0,
    /// CRC-32 (IEEE 802.3).
    Crc32 = 1,
    /// CRC-32C (Castagnoli).
    Crc32c = 2,
}

impl ChecksumKind {
    /// The kind with this number on the wire and in checksum files.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Null),
            1 => Some(Self::Crc32),
            2 => Some(Self::Crc32c),
            _ => None,
        }
    }
}

/// A function and the bytes that each of its values covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Checksum {
    kind: ChecksumKind,
    chunk_bytes: u32,
}

/// The first chunk whose checksum is not the one that came with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Offset of the chunk's first byte within the data that was given.
    pub offset: usize,
    /// The checksum that came with the data.
    pub expected: u32,
    /// The checksum of the data.
    pub found: u32,
}

impl Mismatch {
    /// As an error about the block or file `what`, whose given data began at `base`.
    pub fn into_error(self, what: impl std::fmt::Display, base: u64) -> Error {
        Error::new(
            Code::Corrupt,
            format!(
                "{what}: the chunk at offset {} has checksum {:08x}, expected {:08x}",
                base + self.offset as u64,
                self.found,
                self.expected
            ),
        )
    }
}

impl Checksum {
    /// What Granary writes: CRC32C over 512-byte chunks.
    pub const NATIVE: Self =
        Self { kind: ChecksumKind::Crc32c, chunk_bytes: limits::CHECKSUM_CHUNK_BYTES };

    /// `chunk_bytes` must lie in 1..=[`CHUNK_BYTES_MAX`].
    pub fn new(kind: ChecksumKind, chunk_bytes: u32) -> Result<Self> {
        if chunk_bytes == 0 || chunk_bytes > CHUNK_BYTES_MAX {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("{chunk_bytes} bytes per checksum, expected 1 to {CHUNK_BYTES_MAX}"),
            ));
        }
        Ok(Self { kind, chunk_bytes })
    }

    /// Which function.
    pub fn kind(self) -> ChecksumKind {
        self.kind
    }

    /// Bytes under one checksum, at least 1.
    pub fn chunk_bytes(self) -> usize {
        self.chunk_bytes as usize
    }

    /// The same chunks without checksums.
    #[must_use]
    pub fn without_sums(self) -> Self {
        Self { kind: ChecksumKind::Null, ..self }
    }

    /// Bytes of checksums for `data_bytes` of data: 0 for [`ChecksumKind::Null`].
    pub fn sum_bytes(self, data_bytes: usize) -> usize {
        match self.kind {
            ChecksumKind::Null => 0,
            _ => data_bytes.div_ceil(self.chunk_bytes()) * SUM_BYTES,
        }
    }

    /// The checksum of all of `data` as one chunk; 0 for [`ChecksumKind::Null`].
    pub fn of(self, data: &[u8]) -> u32 {
        match self.kind {
            ChecksumKind::Null => 0,
            ChecksumKind::Crc32 => crc32fast::hash(data),
            ChecksumKind::Crc32c => crc_fast::crc32_iscsi(data),
        }
    }

    /// Writes the checksum of each chunk of `data` to `sums`, which must be [`Self::sum_bytes`] long.
    pub fn compute(self, data: &[u8], sums: &mut [u8]) {
        assert_eq!(sums.len(), self.sum_bytes(data.len()), "one checksum for each chunk");
        for (chunk, sum) in data.chunks(self.chunk_bytes()).zip(sums.chunks_exact_mut(SUM_BYTES)) {
            sum.copy_from_slice(&self.of(chunk).to_be_bytes());
        }
    }

    /// Checks each chunk of `data` against `sums`, which must be [`Self::sum_bytes`] long.
    pub fn verify(self, data: &[u8], sums: &[u8]) -> std::result::Result<(), Mismatch> {
        assert_eq!(sums.len(), self.sum_bytes(data.len()), "one checksum for each chunk");
        let chunks = data.chunks(self.chunk_bytes()).zip(sums.chunks_exact(SUM_BYTES));
        for (index, (chunk, sum)) in chunks.enumerate() {
            let found = self.of(chunk);
            let expected = u32::from_be_bytes(sum.try_into().expect("a checksum is 4 bytes"));
            if found != expected {
                return Err(Mismatch { offset: index * self.chunk_bytes(), expected, found });
            }
        }
        Ok(())
    }

    /// As it stands in a request or reply.
    pub fn to_proto(self) -> ChecksumProto {
        let kind = match self.kind {
            ChecksumKind::Null => ChecksumTypeProto::ChecksumNull,
            ChecksumKind::Crc32 => ChecksumTypeProto::ChecksumCrc32,
            ChecksumKind::Crc32c => ChecksumTypeProto::ChecksumCrc32c,
        };
        ChecksumProto { r#type: kind as i32, bytes_per_checksum: self.chunk_bytes }
    }

    /// From a request or reply. An unknown function or a chunk of 0 bytes is an error.
    pub fn from_proto(message: &ChecksumProto) -> Result<Self> {
        let kind = u8::try_from(message.r#type).ok().and_then(ChecksumKind::from_number);
        let kind = kind.ok_or_else(|| {
            Error::new(
                Code::InvalidArgument,
                format!("checksum type {}, expected 0, 1 or 2", message.r#type),
            )
        })?;
        Self::new(kind, message.bytes_per_checksum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CRC32: Checksum = Checksum { kind: ChecksumKind::Crc32, chunk_bytes: 512 };

    #[test]
    fn both_functions_give_the_check_values_of_their_definitions() {
        assert_eq!(Checksum::NATIVE.of(b"123456789"), 0xe306_9283);
        assert_eq!(CRC32.of(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn null_takes_no_bytes_and_accepts_anything() {
        let null = Checksum::new(ChecksumKind::Null, 512).unwrap();
        assert_eq!(null.sum_bytes(10_000), 0);
        null.compute(b"abc", &mut []);
        assert_eq!(null.verify(b"abc", &[]), Ok(()));
    }

    #[test]
    fn an_unknown_type_and_an_empty_or_huge_chunk_are_refused() {
        for (kind, bytes) in [(3, 512), (-1, 512), (2, 0), (2, CHUNK_BYTES_MAX + 1)] {
            let message = ChecksumProto { r#type: kind, bytes_per_checksum: bytes };
            let error = Checksum::from_proto(&message).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument);
        }
        let native = Checksum::NATIVE;
        assert_eq!(Checksum::from_proto(&native.to_proto()).unwrap(), native);
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_found_in_its_chunk(
            mut data in proptest::collection::vec(any::<u8>(), 1..3000),
            at in any::<proptest::sample::Index>(),
            flip in 1u8..,
            kind in prop_oneof![Just(Checksum::NATIVE), Just(CRC32)],
        ) {
            let mut sums = vec![0; kind.sum_bytes(data.len())];
            kind.compute(&data, &mut sums);
            prop_assert_eq!(kind.verify(&data, &sums), Ok(()));
            let at = at.index(data.len());
            data[at] ^= flip;
            let mismatch = kind.verify(&data, &sums).unwrap_err();
            prop_assert_eq!(mismatch.offset, at / 512 * 512);
            prop_assert_ne!(mismatch.expected, mismatch.found);
        }
    }
}
