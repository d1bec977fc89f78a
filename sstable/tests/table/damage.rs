//! Damage: every flipped bit and every truncation of a small table is found, and none leads to a
//! wrong answer.

use std::collections::BTreeMap;
use std::io::Write;

use sstable::{ErrorKind, Footer, Table, WriterOptions, verify_file};

use crate::{all_options, build};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Records that fill a few small blocks, some of which compress.
fn model() -> Model {
    let value = |i: u8| {
        if i.is_multiple_of(3) { vec![i; 40] } else { vec![i, i ^ 0xa5, i.wrapping_mul(37)] }
    };
    (0..30).map(|i| (format!("key-{i:03}").into_bytes(), value(i))).collect()
}

fn bytes_of(model: &Model, options: WriterOptions) -> Vec<u8> {
    build(model.iter().map(|(k, v)| (k.as_slice(), v.as_slice())), options).0
}

/// Asks the table for everything in all ways. An error is an answer; a value that was never stored
/// is not.
fn assert_answers_are_true(table: &Table, model: &Model, what: &str) {
    for (key, value) in model {
        if let Ok(found) = table.get(key) {
            assert_eq!(found.as_deref(), Some(value.as_slice()), "{what}: get");
        }
    }
    for found in
        table.multi_get(&[b"key-003".as_slice(), b"absent"]).into_iter().flatten().flatten()
    {
        assert_eq!(*found, *model[b"key-003".as_slice()], "{what}: multi_get");
    }
    assert!(!matches!(table.get(b"absent"), Ok(Some(_))), "{what}: a key that was never stored");
    let mut expected = model.iter();
    for record in table.iter() {
        let Ok((key, value)) = record else { return };
        assert_eq!(Some((&key.to_vec(), &value.to_vec())), expected.next(), "{what}: scan");
    }
    assert_eq!(expected.next(), None, "{what}: a scan without an error is complete");
}

#[test]
fn every_flipped_bit_is_found_and_no_answer_is_wrong() {
    let model = model();
    for options in all_options() {
        let good = bytes_of(&model, options.clone());
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let what = format!("{options:?}, byte {at} of {}, bit {bit}", good.len());
                let Ok(table) = Table::from_bytes("flipped", bad) else { continue };
                assert_answers_are_true(&table, &model, &what);
                let report = table.verify(|_, _| {}).unwrap();
                assert_eq!(report.damage.len(), 1, "{what}: {report:?}");
                let damage = &report.damage[0];
                let range = damage.offset..damage.offset + damage.bytes;
                assert!(range.contains(&(at as u64)), "{what}: {damage}");
            }
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    let good = bytes_of(&model(), WriterOptions { block_bytes: 256, ..WriterOptions::default() });
    for length in 0..good.len() {
        let error = Table::from_bytes("cut", good[..length].to_vec()).expect_err("cut short");
        assert!(
            matches!(error.kind, ErrorKind::NotATable | ErrorKind::Corrupt),
            "{length}: {error}"
        );
        assert!(error.message.starts_with("cut: "), "{error}");
    }
    let mut longer = good;
    longer.push(0);
    assert_eq!(Table::from_bytes("longer", longer).expect_err("longer").kind, ErrorKind::NotATable);
}

#[test]
fn all_damage_of_a_file_is_listed_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.tbl");
    let mut bytes =
        bytes_of(&model(), WriterOptions { block_bytes: 256, ..WriterOptions::default() });
    let table = Table::from_bytes("good", bytes.clone()).unwrap();
    assert!(table.verify(|_, _| {}).unwrap().is_good());
    assert!(table.footer().blocks >= 3);
    let footer = table.footer().clone();

    // Two blocks and the slots of the hash section: it opens, and the check names three places.
    let last_slot = footer.hash.end() as usize - 1;
    for at in [20, footer.index.offset as usize - 64, last_slot] {
        bytes[at] ^= 1;
    }
    std::fs::write(&path, &bytes).unwrap();
    let mut calls = Vec::new();
    let report = verify_file(&path, |done, all| calls.push((done, all))).unwrap();
    let sections: Vec<&str> = report.damage.iter().map(|d| d.section).collect();
    assert_eq!(sections, ["block", "block", "hash"], "{report:?}");
    assert!(calls.is_sorted() && calls.last() == Some(&(footer.file_bytes, footer.file_bytes)));
    let error = report.into_result().unwrap_err();
    assert!(error.message.contains("bad.tbl") && error.message.contains("3 places"), "{error}");

    // The index and the properties as well: it does not open, and the check still names what it can
    // reach.
    bytes[footer.index.offset as usize + 3] ^= 1;
    bytes[footer.properties.offset as usize + 3] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(Table::open(&path).unwrap_err().kind, ErrorKind::Corrupt);
    let report = verify_file(&path, |_, _| {}).unwrap();
    let sections: Vec<&str> = report.damage.iter().map(|d| d.section).collect();
    assert_eq!(sections, ["index", "properties", "hash"], "{report:?}");
}

#[test]
fn files_that_are_no_tables_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tbl");
    let open = || Table::open(&path).expect_err("not a table");
    assert_eq!(open().kind, ErrorKind::Io);
    assert_eq!(open().io().map(std::io::Error::kind), Some(std::io::ErrorKind::NotFound));
    let mut file = std::fs::File::create(&path).unwrap();
    assert_eq!(open().kind, ErrorKind::NotATable, "an empty file");
    file.write_all(&[b'x'; 5000]).unwrap();
    assert_eq!(open().kind, ErrorKind::NotATable, "another format");
    assert!(open().message.contains("x.tbl"));
    assert_eq!(Table::open(folder.path()).unwrap_err().kind, ErrorKind::NotATable, "a folder");
}

#[test]
fn a_newer_version_is_told_apart_from_damage() {
    let good = bytes_of(&model(), WriterOptions::default());
    let version_at = good.len() - 16;
    for sealed in [true, false] {
        let mut bytes = good.clone();
        bytes[version_at] = 2;
        if sealed {
            seal(&mut bytes);
        }
        let error = Table::from_bytes("newer", bytes).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
        assert!(error.message.contains("version is 2") && error.message.contains("reads 1"));
        assert_eq!(error.message.contains("damaged"), !sealed, "{error}");
    }
}

/// Sections with a correct checksum but nonsense inside, as a hostile writer would make them: an
/// error or a missing value, never a panic.
#[test]
fn nonsense_under_correct_checksums_does_not_panic() {
    let model = model();
    for options in all_options() {
        let good = bytes_of(&model, options);
        let footer = Table::from_bytes("good", good.clone()).unwrap().footer().clone();
        let start = footer.index.offset as usize;
        for at in start..good.len() - 12 {
            for value in [0, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                seal(&mut bad);
                let Ok(table) = Table::from_bytes("sealed", bad) else { continue };
                for key in model.keys() {
                    drop(table.get(key));
                }
                drop(table.iter().map(|r| r.map(|_| ())).collect::<Vec<_>>());
                drop(table.verify(|_, _| {}));
            }
        }
    }
}

/// Makes all checksums correct that the footer leads to.
fn seal(bytes: &mut [u8]) {
    let at = bytes.len() - Footer::BYTES;
    let u64_at =
        |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    for section in 0..3 {
        let handle = at + 24 + 24 * section;
        let (offset, length) = (u64_at(bytes, handle) as usize, u64_at(bytes, handle + 8) as usize);
        let Some(mut content) = offset.checked_add(length).and_then(|end| bytes.get(offset..end))
        else {
            continue;
        };
        if section == 1 && length > 64 {
            let slots = u64_at(content, 8).saturating_mul(8);
            let head = (length as u64).saturating_sub(slots) as usize;
            let crc = crc32fast::hash(&content[head..]);
            bytes[offset + 32..offset + 36].copy_from_slice(&crc.to_le_bytes());
            content = &bytes[offset..offset + head];
        }
        let crc = crc32fast::hash(content);
        bytes[handle + 16..handle + 20].copy_from_slice(&crc.to_le_bytes());
    }
    let crc = crc32fast::hash(&bytes[at..at + 100]);
    bytes[at + 100..at + 104].copy_from_slice(&crc.to_le_bytes());
}
