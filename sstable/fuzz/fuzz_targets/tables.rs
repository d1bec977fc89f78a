//! Any bytes as a table: refused, or read without a panic, in order, and the same by gets as by the scan if nothing is
//! found wrong with it.
//!
//! If the first byte is odd, all checksums are made to fit first (`docs/formats/table.md` says where they are), so that
//! what is behind them is reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sstable::{Compression, Footer, Table, TableWriter, WriterOptions};

fn seeds() -> Vec<Vec<u8>> {
    let table = |records: usize, compression, hash| {
        let options = WriterOptions { block_bytes: 256, compression, hash };
        let mut writer = TableWriter::new(vec![1], options).expect("a table");
        for number in 0..records {
            let value = format!("value {number}, again value {number}");
            writer.add(format!("key {number:04}").as_bytes(), value.as_bytes()).expect("a record");
        }
        let (bytes, _) = writer.finish().expect("a table");
        bytes
    };
    let zstd = Compression::Zstd { level: 1 };
    vec![
        table(0, Compression::None, true),
        table(2, Compression::None, true),
        table(40, Compression::None, true),
        table(40, zstd, true),
        table(40, zstd, false),
    ]
}

fuzz_target!(init: fuzz::start(seeds), |bytes: &[u8]| {
    let [mend, bytes @ ..] = bytes else { return };
    let mut bytes = bytes.to_vec();
    if mend & 1 == 1 {
        mend_sums(&mut bytes);
    }
    let Ok(table) = Table::from_bytes("fuzzed", bytes) else { return };
    let report = table.verify(|_, _| {}).expect("a report is no error");
    let mut last: Option<Vec<u8>> = None;
    for record in table.iter().take(1_000) {
        let Ok((key, value)) = record else { break };
        let (key, value) = (key.to_vec(), value.to_vec());
        let found = table.get(&key);
        if report.is_good() {
            assert!(last.as_ref().is_none_or(|last| *last < key), "keys ascend");
            let found = found.expect("a good table").expect("what is listed is found");
            assert_eq!(&found[..], &value[..]);
        }
        last = Some(key);
    }
    drop(table.get(b"key 0001"));
    for found in table.multi_get(&[&b"key 0002"[..], b"", b"zzz"]) {
        drop(found);
    }
    table.range(&b"key 0003"[..]..&b"key 0009"[..]).take(100).for_each(drop);
});

/// Makes every checksum fit, as far as the footer and the index lead.
fn mend_sums(bytes: &mut [u8]) {
    let Some(footer) = bytes.len().checked_sub(Footer::BYTES) else { return };
    put(bytes, footer, &(bytes.len() as u64).to_le_bytes());
    // A section: offset, bytes, checksum; index, hash, properties.
    let [index, hash, properties] = [24, 48, 72].map(|at| footer + at);
    let blocks = get(bytes, footer + 16, 8).unwrap_or(0);
    let entries = get(bytes, index, 8).unwrap_or(0);
    for entry in (0..blocks.min(1_000)).map(|n| entries.saturating_add(n * 32)) {
        let place = get(bytes, entry, 8).zip(get(bytes, entry.saturating_add(16), 4));
        if let Some((offset, length)) = place {
            mend(bytes, offset, length, entry.saturating_add(24));
        }
    }
    if let Some(head) = get(bytes, hash, 8) {
        let slots = get(bytes, head.saturating_add(8), 8).unwrap_or(0).min(1 << 20);
        let chunks = (slots * 8).div_ceil(64 << 10);
        let head_bytes = (32 + 4 * chunks).next_multiple_of(64);
        for chunk in 0..chunks {
            let length = (slots * 8 - chunk * (64 << 10)).min(64 << 10);
            let offset = head.saturating_add(head_bytes + chunk * (64 << 10));
            mend(bytes, offset, length, head.saturating_add(32 + 4 * chunk));
        }
        mend(bytes, head, head_bytes, hash + 16);
    }
    for section in [index, properties] {
        if let Some((offset, length)) = get(bytes, section, 8).zip(get(bytes, section + 8, 8)) {
            mend(bytes, offset, length, section + 16);
        }
    }
    mend(bytes, footer, Footer::BYTES - 12, footer + Footer::BYTES - 12);
}

/// The little-endian number of `length` bytes at `at`.
fn get(bytes: &[u8], at: usize, length: usize) -> Option<usize> {
    let mut number = [0; 8];
    number[..length].copy_from_slice(bytes.get(at..at.checked_add(length)?)?);
    usize::try_from(u64::from_le_bytes(number)).ok()
}

/// Writes, if there is room.
fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    if let Some(place) = at.checked_add(what.len()).and_then(|end| bytes.get_mut(at..end)) {
        place.copy_from_slice(what);
    }
}

/// Puts the checksum of a range to `at`.
fn mend(bytes: &mut [u8], offset: usize, length: usize, at: usize) {
    let end = offset.saturating_add(length);
    let Some(sum) = bytes.get(offset..end).map(crc32fast::hash) else { return };
    put(bytes, at, &sum.to_le_bytes());
}
