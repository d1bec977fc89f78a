//! The fixed parts of a table file: limits, magic numbers, the footer, variable-length integers.
//!
//! Encode and decode stand side by side. All integers are little-endian. Decoders are total: any
//! bytes give a value or an error, and nothing is allocated from a length that was not checked.
//!
//! Blocks, index, hash section and properties have their own files; `docs/formats/table.md`
//! describes all of it.

use crate::error::{Error, ErrorKind, Result};

/// The format's version that is written, and the newest that is read.
pub const VERSION: u32 = 1;
/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 64 << 20;
/// Smallest block size that may be asked for, in bytes before compression.
pub const BLOCK_BYTES_MIN: usize = 256;
/// Largest block size that may be asked for, in bytes before compression. A single larger record
/// has a larger block.
pub const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Longest properties section, in bytes.
pub const PROPERTIES_BYTES_MAX: usize = 16 << 20;

/// Largest block before compression: one record of the largest size, with its lengths and one
/// restart.
pub(crate) const BLOCK_RAW_BYTES_MAX: usize = VALUE_BYTES_MAX + KEY_BYTES_MAX + BLOCK_BYTES_MAX;
/// Blocks in a table: 28 bits in a slot of the hash section.
pub(crate) const BLOCKS_MAX: u64 = 1 << 28;
/// The file starts with this.
pub(crate) const HEADER: &[u8; 8] = b"GRTABLE\n";
/// The file ends with this.
pub(crate) const MAGIC_END: &[u8; 8] = b"\nELBATRG";
/// Sections start at a multiple of this, so that a slot or a block's entry never straddles a cache
/// line needlessly.
pub(crate) const SECTION_ALIGN: u64 = 64;

// An offset in a block has 20 bits in a slot of the hash section.
const _: () = assert!(BLOCK_BYTES_MAX <= 1 << 20);
// A block's length is a u32.
const _: () = assert!(BLOCK_RAW_BYTES_MAX < u32::MAX as usize);

/// Where a section lies, and its checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// Offset from the start of the file, in bytes.
    pub offset: u64,
    /// Length in bytes; 0 means that the table does not have this section.
    pub bytes: u64,
    /// CRC32 of the section (of the hash section: of its head, which holds the CRC32 of its
    /// chunks).
    pub crc32: u32,
}

impl Section {
    const BYTES: usize = 24;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.crc32.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    }

    fn decode(bytes: &[u8]) -> Self {
        Self { offset: u64_at(bytes, 0), bytes: u64_at(bytes, 8), crc32: u32_at(bytes, 16) }
    }

    /// First byte after the section. Cannot overflow once the footer was checked.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes)
    }
}

/// The last [`Footer::BYTES`] of a file: where everything is. Its CRC32 names the content of the
/// whole table. Of any version, the last 16 bytes are the version, the CRC32 and the magic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Length of the whole file, in bytes.
    pub file_bytes: u64,
    /// Number of records.
    pub records: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// Blocks' first keys, places and checksums.
    pub index: Section,
    /// Keys' hashes and places; 0 bytes long if the writer was told to leave it out.
    pub hash: Section,
    /// Counts, smallest and largest key, user properties.
    pub properties: Section,
    /// CRC32 of the footer up to the CRC itself.
    pub crc32: u32,
}

impl Footer {
    /// Length of an encoded footer, in bytes.
    pub const BYTES: usize = 3 * 8 + 3 * Section::BYTES + 4 + 4 + 8;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::BYTES);
        out.extend_from_slice(&self.file_bytes.to_le_bytes());
        out.extend_from_slice(&self.records.to_le_bytes());
        out.extend_from_slice(&self.blocks.to_le_bytes());
        self.index.encode(&mut out);
        self.hash.encode(&mut out);
        self.properties.encode(&mut out);
        out.extend_from_slice(&VERSION.to_le_bytes());
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(MAGIC_END);
        debug_assert_eq!(out.len(), Self::BYTES);
        out
    }

    /// Reads the footer from the last bytes of a file that is `file_bytes` long. `tail` may be
    /// longer than the footer, as long as it ends where the file ends. Checks all that can be
    /// checked without the rest of the file.
    pub fn decode(tail: &[u8], file_bytes: u64) -> Result<Self> {
        let Some(bytes) = tail.last_chunk::<{ Self::BYTES }>() else {
            return Err(Error::new(
                ErrorKind::NotATable,
                format!("not a table: {} bytes, a footer alone has {}", tail.len(), Self::BYTES),
            ));
        };
        let (body, magic) = bytes.split_at(Self::BYTES - MAGIC_END.len());
        if magic != MAGIC_END {
            return Err(Error::new(
                ErrorKind::NotATable,
                format!(
                    "not a table, or cut short: the last 8 of {file_bytes} bytes are {}, not {}",
                    crate::escape(magic),
                    crate::escape(MAGIC_END)
                ),
            ));
        }
        let (fields, crc) = body.split_at(body.len() - 4);
        let version = u32_at(fields, fields.len() - 4);
        let (expected, found) = (u32_at(crc, 0), crc32fast::hash(fields));
        if version != VERSION {
            // A newer footer may be longer, so that its CRC32 cannot be compared here.
            let doubt = if expected == found { "" } else { ", or its footer is damaged" };
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the table's format version is {version}{doubt}; this program reads {VERSION}"
                ),
            ));
        }
        if expected != found {
            return Err(Error::corrupt(format!(
                "footer at offset {}: CRC32 {found:08x}, expected {expected:08x}",
                file_bytes.saturating_sub(Self::BYTES as u64),
            )));
        }
        let section = |i: usize| Section::decode(&fields[24 + i * Section::BYTES..]);
        let footer = Self {
            file_bytes: u64_at(fields, 0),
            records: u64_at(fields, 8),
            blocks: u64_at(fields, 16),
            index: section(0),
            hash: section(1),
            properties: section(2),
            crc32: expected,
        };
        footer.check(file_bytes)?;
        Ok(footer)
    }

    /// Sections must follow each other without room for anything between them but padding.
    fn check(&self, file_bytes: u64) -> Result<()> {
        let wrong = |what: &str, expected: u64, found: u64| {
            Err(Error::corrupt(format!("footer: {what} is {found}, expected {expected}")))
        };
        if self.file_bytes != file_bytes {
            return wrong("file length", file_bytes, self.file_bytes);
        }
        if self.blocks > BLOCKS_MAX {
            return wrong("number of blocks", BLOCKS_MAX, self.blocks);
        }
        if self.properties.bytes > PROPERTIES_BYTES_MAX as u64 {
            return wrong("properties length", PROPERTIES_BYTES_MAX as u64, self.properties.bytes);
        }
        let mut end = self.index.offset;
        for (name, section) in
            [("index", self.index), ("hash", self.hash), ("properties", self.properties)]
        {
            let Some(start) = end.checked_next_multiple_of(SECTION_ALIGN) else {
                return wrong(name, end, section.offset);
            };
            if section.offset != start {
                return wrong(&format!("offset of the {name} section"), start, section.offset);
            }
            end = match section.offset.checked_add(section.bytes) {
                Some(end) if end <= file_bytes => end,
                _ => return wrong(&format!("length of the {name} section"), 0, section.bytes),
            };
        }
        let footer_at = end.checked_next_multiple_of(SECTION_ALIGN);
        if footer_at.and_then(|at| at.checked_add(Self::BYTES as u64)) != Some(file_bytes) {
            return wrong(
                "end of the sections",
                file_bytes.saturating_sub(Self::BYTES as u64),
                end,
            );
        }
        Ok(())
    }
}

/// The u32 at `at`. The caller has checked the length.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were sliced"))
}

/// The u64 at `at`. The caller has checked the length.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were sliced"))
}

/// Appends `n` in groups of 7 bits, lowest first, with the top bit set on all but the last.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut n: u32) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Bytes that [`put_varint`] takes for `n`.
pub(crate) fn varint_bytes(n: u32) -> usize {
    (32 - (n | 1).leading_zeros()).div_ceil(7) as usize
}

/// Reads what [`put_varint`] wrote and moves `at` behind it; none if it is cut off or does not fit
/// a u32.
#[inline]
pub(crate) fn get_varint(bytes: &[u8], at: &mut usize) -> Option<u32> {
    let first = *bytes.get(*at)?;
    *at += 1;
    if first < 0x80 {
        return Some(u32::from(first));
    }
    let mut n = u32::from(first & 0x7f);
    for shift in [7, 14, 21, 28] {
        let byte = *bytes.get(*at)?;
        *at += 1;
        let part = u32::from(byte & 0x7f);
        if shift == 28 && byte > 0x0f {
            return None;
        }
        n |= part << shift;
        if byte < 0x80 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_come_back_and_their_length_is_known() {
        for n in [0, 1, 127, 128, 16383, 16384, 1 << 21, (1 << 28) - 1, 1 << 28, u32::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, n);
            assert_eq!(out.len(), varint_bytes(n), "{n}");
            let mut at = 0;
            assert_eq!((get_varint(&out, &mut at), at), (Some(n), out.len()));
            assert_eq!(get_varint(&out[..out.len() - 1], &mut 0), None);
        }
    }

    #[test]
    fn a_varint_over_32_bits_is_refused() {
        assert_eq!(get_varint(&[0xff, 0xff, 0xff, 0xff, 0x10], &mut 0), None);
        assert_eq!(get_varint(&[0x80; 6], &mut 0), None);
    }
}
