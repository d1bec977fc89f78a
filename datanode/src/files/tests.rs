//! Golden bytes, every bit flip and truncation, and any way of writing gives the same files.

use super::*;
use crate::testing::pattern;
use crate::volume::tests::volume;
use proptest::prelude::*;

const BLOCK: BlockId = BlockId(7);
const STAMP: GenerationStamp = GenerationStamp(1001);

const NATIVE: Checksum = Checksum::NATIVE;

fn new_files(root: &Path) -> ReplicaFiles {
    files_with(root, NATIVE)
}

fn files_with(root: &Path, checksum: Checksum) -> ReplicaFiles {
    let volume = volume(root);
    let paths = Paths::new(&layout::rbw_path(root), BLOCK, STAMP);
    ReplicaFiles::create(&volume, paths, checksum).unwrap()
}

#[test]
fn a_replica_has_the_bytes_of_the_format() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = new_files(folder.path());
    let mut data = vec![0; 512];
    data.extend_from_slice(b"123456789");
    files.write(0, &data, None).unwrap();
    files.sync_open().unwrap();
    let paths = files.paths().clone();
    assert_eq!(paths.data.file_name().unwrap(), "blk_7");
    assert_eq!(paths.meta.file_name().unwrap(), "blk_7_1001.meta");
    assert_eq!(std::fs::read(&paths.data).unwrap(), data);
    let mut meta = vec![0, 1]; // version 1
    meta.push(2); // CRC32C
    meta.extend([0, 0, 2, 0]); // 512 bytes per checksum
    meta.extend([0x30, 0xfc, 0xed, 0xc0]); // CRC32C of 512 zeros
    meta.extend([0xe3, 0x06, 0x92, 0x83]); // CRC32C of "123456789"
    assert_eq!(std::fs::read(&paths.meta).unwrap(), meta);
    let mut synced = vec![0, 0, 0, 0, 0, 0, 2, 9]; // length 521
    synced.extend([0xe3, 0x06, 0x92, 0x83]); // CRC32C of the chunk that ends there
    synced.extend([0, 0, 0, 0]);
    synced.extend(crc32fast::hash(&synced).to_be_bytes());
    assert_eq!(std::fs::read(&paths.synced).unwrap(), synced);
    assert_eq!(confirmed_length(&paths).unwrap(), 521);
}

#[test]
fn each_bit_flip_and_truncation_of_a_finished_replica_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = new_files(folder.path());
    let data = pattern(1, 1100);
    files.write(0, &data, None).unwrap();
    let paths = files.paths().clone();
    let check = || {
        let (data, meta) = (File::open(&paths.data).unwrap(), File::open(&paths.meta).unwrap());
        verify(&data, &meta, 1100, "blk_7")
    };
    assert_eq!(check(), Ok(()));
    for path in [&paths.data, &paths.meta] {
        let good = std::fs::read(path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(path, &bytes).unwrap();
            assert_eq!(check().unwrap_err().code, Code::Corrupt, "bit {bit} of {path:?}");
            // What a restart would keep of it never reaches beyond the damage, and never panics.
            let kept = confirmed_length(&paths).unwrap();
            if path == &paths.data {
                assert_eq!(kept, (bit as u64 / 8) / 512 * 512, "bit {bit}");
            }
        }
        for length in 0..good.len() {
            std::fs::write(path, &good[..length]).unwrap();
            assert_eq!(check().unwrap_err().code, Code::Corrupt, "{length} bytes of {path:?}");
            assert!(confirmed_length(&paths).unwrap() <= 1100);
        }
        std::fs::write(path, &good).unwrap();
    }
    assert_eq!(check(), Ok(()));
}

#[test]
fn each_bit_flip_and_truncation_of_a_sync_record_is_refused() {
    let record = SyncRecord { length: 521, tail_sum: 0xe306_9283 };
    let good = record.encode();
    assert_eq!(SyncRecord::decode(&good), Some(record));
    for length in 0..good.len() {
        assert_eq!(SyncRecord::decode(&good[..length]), None);
    }
    for bit in 0..good.len() * 8 {
        let mut bytes = good;
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(SyncRecord::decode(&bytes), None, "bit {bit}");
    }
}

/// The bug this guards against: a chunk's checksum is overwritten in place when the chunk grows, so that a crash
/// between the two files could lose bytes of that chunk that had been synced or flushed before.
#[test]
fn synced_bytes_of_a_growing_chunk_survive_a_crash_between_data_and_checksum() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = new_files(folder.path());
    let data = pattern(2, 900);
    files.write(0, &data[..600], None).unwrap();
    files.sync_open().unwrap();
    let paths = files.paths().clone();
    let meta_600 = std::fs::read(&paths.meta).unwrap();
    files.write(512, &data[512..900], None).unwrap();
    let meta_900 = std::fs::read(&paths.meta).unwrap();
    assert_eq!(confirmed_length(&paths).unwrap(), 900);
    // The data came to disk, its checksum did not.
    std::fs::write(&paths.meta, &meta_600).unwrap();
    assert_eq!(confirmed_length(&paths).unwrap(), 600);
    // The checksum came to disk, the data did not.
    std::fs::write(&paths.meta, &meta_900).unwrap();
    std::fs::write(&paths.data, &data[..600]).unwrap();
    assert_eq!(confirmed_length(&paths).unwrap(), 600);
    settle(&paths, 600).unwrap();
    std::fs::remove_file(&paths.synced).unwrap();
    assert_eq!(confirmed_length(&paths).unwrap(), 600);
}

#[test]
fn a_gap_and_bytes_that_differ_from_those_before_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = new_files(folder.path());
    let data = pattern(3, 700);
    files.write(0, &data[..600], None).unwrap();
    assert_eq!(files.write(601, &[1], None).unwrap_err().code, Code::InvalidArgument);
    let mut other = data[512..700].to_vec();
    other[0] ^= 1;
    let mut sums = vec![0; 4];
    NATIVE.compute(&other, &mut sums);
    assert_eq!(files.write(512, &other, Some(&sums)).unwrap_err().code, Code::Corrupt);
    assert_eq!(files.written(), 600);
    files.write(600, &data[600..], None).unwrap();
    assert_eq!(confirmed_length(files.paths()).unwrap(), 700);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn however_it_is_written_and_cut_a_replica_equals_its_model(
        steps in proptest::collection::vec((0usize..1700, 0usize..700, any::<bool>(), 0u8..6), 1..12),
        kind_and_chunk in prop_oneof![
            Just((ChecksumKind::Crc32c, 512)), Just((ChecksumKind::Crc32, 512)),
            Just((ChecksumKind::Crc32c, 1)), Just((ChecksumKind::Crc32, 700)),
            Just((ChecksumKind::Crc32c, 4096)), Just((ChecksumKind::Crc32, 1 << 20)),
        ],
    ) {
        let checksum = Checksum::new(kind_and_chunk.0, kind_and_chunk.1).unwrap();
        let chunk = checksum.chunk_bytes();
        let folder = tempfile::tempdir().unwrap();
        let mut files = files_with(folder.path(), checksum);
        let all = pattern(4, 40_000);
        let mut length = 0usize;
        for (count, back, native, kind) in steps {
            if kind == 0 {
                length -= back.min(length);
                files.truncate(length as u64).unwrap();
            } else if kind == 1 {
                let paths = files.paths().clone();
                let volume = files.volume.clone();
                files = ReplicaFiles::open(&volume, paths, length as u64).unwrap();
            } else {
                // Overlap is resent from a chunk's start, as HDFS's clients do.
                let start = length.saturating_sub(back) / chunk * chunk;
                let start = if native { start } else { length };
                let end = (start + count).max(length).min(all.len());
                let data = &all[start..end];
                let mut sums = vec![0; checksum.sum_bytes(data.len())];
                checksum.compute(data, &mut sums);
                let wrote = files.write(start as u64, data, native.then_some(&sums)).unwrap();
                length = end;
                prop_assert_eq!(wrote.end, length as u64);
            }
            let tail = &all[length / chunk * chunk..length];
            prop_assert_eq!(files.tail_sum(), (!tail.is_empty()).then(|| checksum.of(tail)));
        }
        let (data, meta) = (&files.data, &files.meta);
        prop_assert_eq!(verify(data, meta, length as u64, "blk_7"), Ok(()));
        prop_assert_eq!(std::fs::read(&files.paths.data).unwrap(), &all[..length]);
        prop_assert_eq!(confirmed_length(&files.paths).unwrap(), length as u64);
    }
}
