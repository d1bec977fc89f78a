//! Questions to one open version: a key, many keys, a range over all tables, any key.
//!
//! Tables are partitioned by slot, so a key is in at most one of them, and a range walks all of them side by side.

use std::ops::Bound;

use proto::{Code, Error, Result};
use sstable::{Iter, Value};

use crate::tables::OpenVersion;

/// Records that [`OpenVersion::any_key`] may walk.
const WALK_RECORDS: usize = 1024;

/// Keys and values, borrowed from the version.
pub type Record<'v> = (Value<'v>, Value<'v>);

/// Turns an error of a table into one that crosses the wire.
pub fn table_error(error: sstable::Error) -> Error {
    use sstable::ErrorKind as K;
    let code = match error.kind {
        K::Corrupt | K::NotATable => Code::Corrupt,
        K::Unsupported => Code::Incompatible,
        K::Unsorted | K::Duplicate | K::TooLarge | K::Invalid => Code::InvalidArgument,
        K::Io => {
            return error.io().map_or_else(
                || Error::new(Code::Io, error.message.clone()),
                |io| Error::new(Error::io("", io).code, error.message.clone()),
            );
        }
    };
    Error::new(code, error.message)
}

/// Which records a scan wants.
#[derive(Clone, Debug)]
pub enum Span<'k> {
    /// Keys that begin with this.
    Prefix(&'k [u8]),
    /// Keys in a range.
    Range(Bound<&'k [u8]>, Bound<&'k [u8]>),
}

impl OpenVersion {
    /// The value of `key`.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Result<Option<Value<'_>>> {
        match self.table_of(key) {
            Some(index) => self.tables()[index].get(key).map_err(table_error),
            None => Ok(None),
        }
    }

    /// The values of `keys`, in their order. Keys of one table are looked up together.
    pub fn multi_get<'v>(&'v self, keys: &[&[u8]]) -> Result<Vec<Option<Value<'v>>>> {
        if let [table] = self.tables()
            && keys.iter().all(|key| self.table_of(key) == Some(0))
        {
            return table.multi_get(keys).into_iter().map(|v| v.map_err(table_error)).collect();
        }
        let mut order: Vec<(usize, usize)> = keys
            .iter()
            .enumerate()
            .filter_map(|(at, key)| Some((self.table_of(key)?, at)))
            .collect();
        order.sort_unstable();
        let mut values = vec![None; keys.len()];
        for group in order.chunk_by(|a, b| a.0 == b.0) {
            let wanted: Vec<&[u8]> = group.iter().map(|&(_, at)| keys[at]).collect();
            let found = self.tables()[group[0].0].multi_get(&wanted);
            for (&(_, at), value) in group.iter().zip(found) {
                values[at] = value.map_err(table_error)?;
            }
        }
        Ok(values)
    }

    /// The records of `span` over all tables, in the order of their keys. Errors are [`table_error`]'s to translate.
    pub fn scan(&self, span: Span<'_>) -> sstable::merge::Merge<Iter<'_>, Value<'_>, Value<'_>> {
        let sources = self
            .tables()
            .iter()
            .map(|table| match &span {
                Span::Prefix(prefix) => table.prefix(prefix),
                Span::Range(start, end) => table.range((*start, *end)),
            })
            .collect();
        sstable::merge::merge(sources)
    }

    /// Some key; `random` decides which. Not every key is equally likely.
    pub fn any_key(&self, random: u64) -> Result<Option<Vec<u8>>> {
        let records = self.records();
        if records == 0 {
            return Ok(None);
        }
        let mut rank = random % records;
        let table = self.tables().iter().find(|table| {
            let within = rank < table.records();
            rank = rank.saturating_sub(table.records());
            within
        });
        let table = table.expect("the rank is below the sum of all records");
        let properties = table.properties();
        let target = between(&properties.smallest, &properties.largest, random);
        let from_target = table.range((Bound::Included(&target[..]), Bound::Unbounded));
        // Keys use few of all byte strings, so many targets meet the same key: walk on from there.
        let steps = (random >> 32) as usize % WALK_RECORDS;
        let mut found = None;
        for record in from_target.take(steps + 1) {
            found = Some(record.map_err(table_error)?.0);
        }
        match found {
            Some(key) => Ok(Some(key.to_vec())),
            None => table
                .iter()
                .next()
                .transpose()
                .map_err(table_error)
                .map(|first| first.map(|(key, _)| key.to_vec())),
        }
    }
}

/// A byte string that lies between two others, as far as their common prefix and the eight bytes behind it tell.
fn between(smallest: &[u8], largest: &[u8], random: u64) -> Vec<u8> {
    let common = smallest.iter().zip(largest).take_while(|(a, b)| a == b).count();
    let number = |key: &[u8]| {
        let mut bytes = [0; 8];
        let rest = &key[common..];
        let taken = rest.len().min(8);
        bytes[..taken].copy_from_slice(&rest[..taken]);
        u64::from_be_bytes(bytes)
    };
    let (low, high) = (number(smallest), number(largest));
    // A second mix of the same number: the first chose the table.
    let random = random.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
    let span = u128::from(high.saturating_sub(low)) + 1;
    let offset = (u128::from(random) * span) >> 64;
    let target = low.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX));
    [&smallest[..common], &target.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::fetch::open_verified;
    use crate::tables::OpenVersion;
    use crate::tablespec::file_name;
    use crate::testing::{build, records};

    #[test]
    fn some_key_is_a_key_and_not_always_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let specs = build(folder.path(), "v1", 2, &records(3000, 1));
        for (n, spec) in specs.iter().enumerate() {
            std::fs::rename(&spec.path, folder.path().join(file_name(n))).unwrap();
        }
        let tables = open_verified(folder.path(), &specs).unwrap();
        let (version, _closed) = OpenVersion::new(1, tables).unwrap();
        let mut seen = BTreeSet::new();
        for n in 0..1000_u64 {
            let random = n.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (n << 7);
            let key = version.any_key(random).unwrap().expect("there are keys");
            assert!(version.get(&key).unwrap().is_some());
            seen.insert(key);
        }
        assert!(seen.len() > 100, "{} different keys of 3000 in 1000 tries", seen.len());
    }
}
