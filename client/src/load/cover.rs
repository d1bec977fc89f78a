//! Whether tables together hold every slot once. Pure.

use proto::granary::TableInfo;
use proto::limits::SLOTS;
use proto::{Code, Error, Result};

/// Refuses slots that two tables hold and, unless gaps are allowed, slots that none holds.
pub fn check(tables: &[TableInfo], allow_gaps: bool) -> Result<()> {
    let bad = |what: String| Err(Error::new(Code::InvalidArgument, what));
    let mut sorted: Vec<&TableInfo> = tables.iter().collect();
    sorted.sort_by_key(|table| (table.slot_first, table.slot_last));
    let mut next = 0;
    let mut before: Option<&TableInfo> = None;
    for table in sorted {
        if let Some(before) = before.filter(|before| table.slot_first <= before.slot_last) {
            return bad(format!(
                "tables {} (slots {}-{}) and {} (slots {}-{}) overlap: the property {} of a table names the slots of \
                 its keys",
                before.path,
                before.slot_first,
                before.slot_last,
                table.path,
                table.slot_first,
                table.slot_last,
                sstable::PROPERTY_SLOTS,
            ));
        }
        if table.slot_first > next && !allow_gaps {
            return bad(gap(next, table.slot_first - 1));
        }
        next = table.slot_last + 1;
        before = Some(table);
    }
    if next < u32::from(SLOTS) && !allow_gaps {
        return bad(gap(next, u32::from(SLOTS) - 1));
    }
    Ok(())
}

fn gap(first: u32, last: u32) -> String {
    format!("no table holds the slots {first}-{last}: their keys would not be found")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(slots: &[(u32, u32)]) -> Vec<TableInfo> {
        let table = |&(slot_first, slot_last): &(u32, u32)| TableInfo {
            path: format!("/t{slot_first}"),
            slot_first,
            slot_last,
            ..Default::default()
        };
        slots.iter().map(table).collect()
    }

    #[test]
    fn every_slot_is_held_once() {
        assert!(check(&tables(&[(0, 16383)]), false).is_ok());
        assert!(check(&tables(&[(8192, 16383), (0, 8191)]), false).is_ok());
        let cases: [(&[(u32, u32)], &str); 5] = [
            (&[(0, 16383), (0, 16383)], "overlap"),
            (&[(0, 10), (10, 16383)], "overlap"),
            (&[(1, 16383)], "0-0"),
            (&[(0, 10), (12, 16383)], "11-11"),
            (&[(0, 16382)], "16383-16383"),
        ];
        for (slots, why) in cases {
            let error = check(&tables(slots), false).unwrap_err();
            assert!(error.message.contains(why), "{error}");
        }
        assert!(check(&tables(&[(0, 10), (12, 13)]), true).is_ok());
    }
}
