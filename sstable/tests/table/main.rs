//! Tests of tables as their users see them: bytes on disk, damage, limits, and agreement with a
//! sorted map.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod damage;
mod golden;
mod limits;
mod merged;
mod model;

use sstable::{Compression, Summary, TableWriter, WriterOptions};

/// The bytes of a table with these records, which must ascend.
fn build<'a>(
    records: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    options: WriterOptions,
) -> (Vec<u8>, Summary) {
    let mut writer = TableWriter::new(Vec::new(), options).unwrap();
    for (key, value) in records {
        writer.add(key, value).unwrap();
    }
    writer.set_property("granary.slots", "0-16383").unwrap();
    writer.finish().unwrap()
}

/// Every way to write a table, with small blocks so that few records make several.
fn all_options() -> Vec<WriterOptions> {
    let mut all = Vec::new();
    for compression in [Compression::None, Compression::Zstd { level: 1 }] {
        for hash in [true, false] {
            all.push(WriterOptions { block_bytes: 256, compression, hash });
        }
    }
    all
}
