//! Claims about spill runs: what is read is what was written, or an error.

use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn write(records: &[(u16, &[u8], &[u8])]) -> Run {
    let mut writer = RunWriter::to_file(folder().path()).unwrap();
    for (partition, key, value) in records {
        writer.add(*partition, key, value).unwrap();
    }
    writer.finish().unwrap()
}

fn read(run: &Run, partition: u16) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut reader = run.read(partition);
    let mut records = Vec::new();
    while reader.advance()? {
        records.push((reader.key().to_vec(), reader.value().to_vec()));
    }
    Ok(records)
}

fn bytes(run: &Run) -> Vec<u8> {
    let mut bytes = vec![0; run.bytes as usize];
    run.file_for_test().read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

const SMALL: &[(u16, &[u8], &[u8])] =
    &[(0, b"apple", b"1"), (0, b"apply", b""), (3, b"apply", b"22"), (3, b"apply", b"23")];

#[test]
fn golden_bytes() {
    let mut golden: Vec<u8> = Vec::new();
    // Partition 0: 13 bytes of records, two records, the checksum.
    golden.extend([13, 0, 0, 0, 2, 0, 0, 0]);
    let first = [
        0, 5, 1, b'a', b'p', b'p', b'l', b'e',
        b'1', // nothing shared, 5 more bytes of key, 1 of value
        4, 1, 0, b'y', // "appl" shared, no value
    ];
    golden.extend(block_crc(&golden, &first).to_le_bytes());
    golden.extend(first);
    // Partition 3: a block of its own, whose first record shares nothing.
    let head = [15, 0, 0, 0, 2, 0, 0, 0];
    let second = [
        0, 5, 2, b'a', b'p', b'p', b'l', b'y', b'2', b'2', // whole key
        5, 0, 2, b'2', b'3', // the same key
    ];
    golden.extend(head);
    golden.extend(block_crc(&head, &second).to_le_bytes());
    golden.extend(second);
    assert_eq!(bytes(&write(SMALL)), golden);
}

#[test]
fn a_run_in_memory_has_the_same_bytes() {
    let mut writer = RunWriter::to_memory();
    for (partition, key, value) in SMALL {
        writer.add(*partition, key, value).unwrap();
    }
    let run = writer.finish().unwrap();
    let Store::Memory(in_memory) = &run.store else { panic!("not in memory") };
    let file = write(SMALL);
    assert_eq!(*in_memory, bytes(&file));
    for partition in 0..5 {
        assert_eq!(read(&run, partition).unwrap(), read(&file, partition).unwrap());
    }
}

#[test]
fn each_partition_gives_its_own_records() {
    let run = write(SMALL);
    assert_eq!(run.partitions().collect::<Vec<_>>(), [0, 3]);
    let text = |partition| -> Vec<String> {
        let records = read(&run, partition).unwrap();
        records.iter().map(|(k, v)| String::from_utf8([&k[..], v].join(&b'=')).unwrap()).collect()
    };
    assert_eq!(text(0), ["apple=1", "apply="]);
    assert_eq!(text(3), ["apply=22", "apply=23"]);
    assert!(text(1).is_empty());
}

#[test]
fn a_flipped_bit_at_any_offset_is_an_error() {
    let run = write(SMALL);
    let good = bytes(&run);
    for (offset, byte) in good.into_iter().enumerate() {
        for bit in 0..8 {
            run.file_for_test().write_all_at(&[byte ^ (1 << bit)], offset as u64).unwrap();
            let results = [read(&run, 0), read(&run, 3)];
            let bad: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
            assert!(!bad.is_empty(), "offset {offset}, bit {bit}: undetected");
            assert!(bad.iter().all(|e| e.code == Code::Corrupt), "offset {offset}: {bad:?}");
        }
        run.file_for_test().write_all_at(&[byte], offset as u64).unwrap();
    }
}

#[test]
fn a_file_cut_at_any_length_is_an_error() {
    for length in 0..write(SMALL).bytes {
        let run = write(SMALL);
        run.file_for_test().set_len(length).unwrap();
        let results = [read(&run, 0), read(&run, 3)];
        assert!(results.iter().any(|r| matches!(r, Err(e) if e.code == Code::Corrupt)), "{length}");
    }
}

#[test]
fn large_records_and_many_blocks_come_back() {
    let big = vec![7; 300_000];
    let mut writer = RunWriter::to_file(folder().path()).unwrap();
    for number in 0..20_000u32 {
        let value = if number % 5_000 == 0 { &big[..] } else { b"small" };
        writer.add(1, format!("key-{number:08}").as_bytes(), value).unwrap();
    }
    let run = writer.finish().unwrap();
    let records = read(&run, 1).unwrap();
    assert_eq!(records.len(), 20_000);
    assert!(records.is_sorted());
    assert_eq!(records[5_000].1, big);
}

#[test]
fn a_spill_leaves_no_name_in_the_folder() {
    let folder = folder();
    let mut writer = RunWriter::to_file(folder.path()).unwrap();
    writer.add(0, b"k", b"v").unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    writer.finish().unwrap();
}

#[test]
fn a_folder_that_is_not_there_is_named_in_the_error() {
    let error = RunWriter::to_file(Path::new("/not/there")).err().unwrap();
    assert!(error.message.contains("/not/there"), "{error}");
}
