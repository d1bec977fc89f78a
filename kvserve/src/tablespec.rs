//! What the catalogue says of a table, checked: its place, its size, its slots, and the checksum that names its content.
//!
//! Pure. Local names of tables follow from their order in the version.

use proto::granary::TableInfo;
use proto::limits::SLOTS;
use proto::{Code, Error, Result};

/// One table of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// Path in the file system.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Records in it.
    pub records: u64,
    /// First Redis Cluster slot whose keys are in it.
    pub slot_first: u16,
    /// Last slot, inclusive; below [`SLOTS`].
    pub slot_last: u16,
    /// The table's own checksum of its footer; names its exact content together with the length.
    pub footer_crc32: u32,
}

impl TableSpec {
    /// Checks what came over the wire.
    pub fn from_proto(table: TableInfo) -> Result<Self> {
        let bad = |what: String| {
            Error::new(Code::InvalidArgument, format!("table {:?}: {what}", table.path))
        };
        let slot = |value: u32| {
            u16::try_from(value)
                .ok()
                .filter(|&slot| slot < SLOTS)
                .ok_or_else(|| bad(format!("slot {value}, the last one is {}", SLOTS - 1)))
        };
        let (slot_first, slot_last) = (slot(table.slot_first)?, slot(table.slot_last)?);
        if slot_first > slot_last {
            return Err(bad(format!("slots {slot_first} to {slot_last}: the first is the larger")));
        }
        Ok(Self {
            bytes: table.bytes,
            records: table.records,
            footer_crc32: table.footer_crc32,
            slot_first,
            slot_last,
            path: table.path,
        })
    }
}

/// The local file name of the table at `index`.
pub fn file_name(index: usize) -> String {
    format!("part-{index:05}.tbl")
}

/// Whether two lists hold the same tables, wherever they lie.
pub fn same_content(a: &[TableSpec], b: &[TableSpec]) -> bool {
    let key = |t: &TableSpec| (t.bytes, t.footer_crc32, t.slot_first, t.slot_last);
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| key(a) == key(b))
}

/// Tables of one version whose slots overlap cannot be told apart: says which they are.
pub fn slot_cover_fault(tables: &[TableSpec]) -> Result<(), String> {
    let mut sorted: Vec<&TableSpec> = tables.iter().collect();
    sorted.sort_by_key(|table| (table.slot_first, table.slot_last));
    for pair in sorted.windows(2) {
        if pair[1].slot_first <= pair[0].slot_last {
            return Err(format!(
                "tables {:?} (slots {} to {}) and {:?} (slots {} to {}) overlap",
                pair[0].path,
                pair[0].slot_first,
                pair[0].slot_last,
                pair[1].path,
                pair[1].slot_first,
                pair[1].slot_last,
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(first: u32, last: u32) -> TableInfo {
        TableInfo { path: "/t".into(), slot_first: first, slot_last: last, ..Default::default() }
    }

    #[test]
    fn slots_out_of_range_or_order_are_refused() {
        assert!(TableSpec::from_proto(info(0, 16383)).is_ok());
        for (first, last, why) in [(0, 16384, "16384"), (70000, 1, "70000"), (2, 1, "larger")] {
            let error = TableSpec::from_proto(info(first, last)).unwrap_err();
            assert!(error.message.contains(why), "{error}");
        }
    }

    #[test]
    fn overlapping_tables_are_named() {
        let tables: Vec<_> = [(0, 10), (11, 20), (20, 30)]
            .map(|(first, last)| TableSpec::from_proto(info(first, last)).unwrap())
            .to_vec();
        assert!(slot_cover_fault(&tables[..2]).is_ok());
        assert!(slot_cover_fault(&tables).unwrap_err().contains("11 to 20"));
    }
}
