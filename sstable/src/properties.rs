//! The properties section: counts, the smallest and largest key, and what the one who made the
//! table says about it.
//!
//! ```text
//! properties := records: u64, key_bytes: u64, value_bytes: u64, bytes smallest, bytes largest,
//!               count: u32, (bytes name, bytes value){count}
//! bytes      := length: u32, the bytes
//! ```
//!
//! User properties are sorted by name. An empty table has empty smallest and largest keys.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{Footer, KEY_BYTES_MAX, PROPERTIES_BYTES_MAX, u32_at, u64_at};

/// The Redis Cluster slots that the table's keys may have: `first-last`, both included. See
/// [`format_slots`].
pub const PROPERTY_SLOTS: &str = "granary.slots";
/// The program and version that wrote the table.
pub const PROPERTY_CREATED_BY: &str = "granary.created_by";
/// The job that wrote the table.
pub const PROPERTY_JOB: &str = "granary.job";

/// What a table says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Number of records.
    pub records: u64,
    /// Sum of the keys' lengths, in bytes.
    pub key_bytes: u64,
    /// Sum of the values' lengths, in bytes.
    pub value_bytes: u64,
    /// The first key; empty if there are no records.
    pub smallest: Vec<u8>,
    /// The last key; empty if there are no records.
    pub largest: Vec<u8>,
    /// What the writer was told to note, by name.
    pub user: BTreeMap<String, Vec<u8>>,
}

impl Properties {
    /// The value of a user property.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.user.get(name).map(Vec::as_slice)
    }

    /// The slots that the property `granary.slots` names, if it is there and well formed.
    pub fn slots(&self) -> Option<RangeInclusive<u16>> {
        parse_slots(self.get(PROPERTY_SLOTS)?)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for n in [self.records, self.key_bytes, self.value_bytes] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        let mut put = |bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        put(&self.smallest);
        put(&self.largest);
        out.extend_from_slice(&(self.user.len() as u32).to_le_bytes());
        for (name, value) in &self.user {
            for bytes in [name.as_bytes(), value] {
                out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                out.extend_from_slice(bytes);
            }
        }
        if out.len() > PROPERTIES_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "the properties have {} bytes; {PROPERTIES_BYTES_MAX} are allowed",
                    out.len()
                ),
            ));
        }
        Ok(out)
    }

    /// Reads the section that `footer` names: the `footer.properties.bytes` at
    /// `footer.properties.offset`.
    pub fn decode(section: &[u8], footer: &Footer) -> Result<Self> {
        let found = crc32fast::hash(section);
        if section.len() as u64 != footer.properties.bytes || found != footer.properties.crc32 {
            return Err(Error::corrupt(format!(
                "properties at offset {}: {} bytes with CRC32 {found:08x}, expected {} with {:08x}",
                footer.properties.offset,
                section.len(),
                footer.properties.bytes,
                footer.properties.crc32
            )));
        }
        let properties = decode_fields(section).ok_or_else(|| {
            Error::corrupt(format!(
                "properties at offset {}: {} bytes break the format",
                footer.properties.offset,
                section.len()
            ))
        })?;
        if properties.records != footer.records {
            return Err(Error::corrupt(format!(
                "properties: {} records, the footer says {}",
                properties.records, footer.records
            )));
        }
        Ok(properties)
    }
}

fn decode_fields(section: &[u8]) -> Option<Properties> {
    let (fixed, mut rest) = section.split_at_checked(24)?;
    let mut properties = Properties {
        records: u64_at(fixed, 0),
        key_bytes: u64_at(fixed, 8),
        value_bytes: u64_at(fixed, 16),
        smallest: take_bytes(&mut rest)?.to_vec(),
        largest: take_bytes(&mut rest)?.to_vec(),
        user: BTreeMap::new(),
    };
    let count = take_u32(&mut rest)?;
    for _ in 0..count {
        let name = std::str::from_utf8(take_bytes(&mut rest)?).ok()?;
        let value = take_bytes(&mut rest)?;
        let ascending =
            properties.user.last_key_value().is_none_or(|(last, _)| last.as_str() < name);
        if !ascending {
            return None;
        }
        properties.user.insert(name.to_owned(), value.to_vec());
    }
    let keys_fit = properties.smallest.len().max(properties.largest.len()) <= KEY_BYTES_MAX;
    let keys_ordered = properties.smallest <= properties.largest;
    (rest.is_empty() && keys_fit && keys_ordered).then_some(properties)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (head, tail) = rest.split_at_checked(4)?;
    *rest = tail;
    Some(u32_at(head, 0))
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_u32(rest)? as usize;
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

/// The text of [`PROPERTY_SLOTS`] for a range of slots.
pub fn format_slots(slots: &RangeInclusive<u16>) -> String {
    format!("{}-{}", slots.start(), slots.end())
}

/// The range that a text of [`PROPERTY_SLOTS`] names; none if it is not one.
pub fn parse_slots(text: &[u8]) -> Option<RangeInclusive<u16>> {
    let (first, last) = std::str::from_utf8(text).ok()?.split_once('-')?;
    let range = first.parse().ok()?..=last.parse().ok()?;
    (!range.is_empty() && *range.end() < crate::slot::SLOTS).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_back_and_nonsense_does_not() {
        assert_eq!(parse_slots(format_slots(&(5..=16383)).as_bytes()), Some(5..=16383));
        for text in ["", "-", "5", "6-5", "0-16384", "a-b", "1-2-3"] {
            assert_eq!(parse_slots(text.as_bytes()), None, "{text}");
        }
    }
}
