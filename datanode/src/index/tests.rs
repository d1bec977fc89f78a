//! The index against a model, and every kind of damage leads to a scan, never to a wrong entry.

use super::*;

const CACHE: u64 = 1 << 20;

fn entry(n: u64) -> Entry {
    Entry { stamp: GenerationStamp(1000 + n), length: u32::try_from(n * 10).unwrap() }
}

/// Ten blocks, each in a sub-folder of its own.
fn block(n: u64) -> BlockId {
    BlockId(n << 8)
}

fn filled(root: &Path) -> Index {
    let opened = Index::open(root, CACHE).unwrap();
    assert!(matches!(opened.rescan, Rescan::All(_)), "a new index knows nothing");
    let index = opened.index;
    index.flush(|| (0..10).map(|n| (block(n), Some(entry(n)))).collect(), |_| Ok(())).unwrap();
    index
}

#[test]
fn after_a_flush_a_start_scans_nothing_and_knows_all() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(folder.path()));
    let opened = Index::open(folder.path(), CACHE).unwrap();
    assert_eq!(opened.rescan, Rescan::Folders(Folders::new()));
    let expected: Vec<_> = (0..10).map(|n| (block(n), entry(n))).collect();
    assert_eq!(opened.entries, expected);
}

#[test]
fn touched_folders_are_scanned_after_a_crash_and_the_rest_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let index = filled(folder.path());
    let touch = index.touch([Folder::of(block(3)), Folder::of(block(5))]).unwrap();
    index.finish(touch);
    drop(index);
    let opened = Index::open(folder.path(), CACHE).unwrap();
    let dirty = [Folder::of(block(3)), Folder::of(block(5))].into_iter().collect();
    assert_eq!(opened.rescan, Rescan::Folders(dirty));
    assert_eq!(opened.unsure, [block(3), block(5)]);
    assert_eq!(opened.entries.len(), 8);
}

#[test]
fn a_change_that_is_under_way_during_a_flush_stays_dirty() {
    let folder = tempfile::tempdir().unwrap();
    let index = filled(folder.path());
    let before = index.touch([Folder::of(block(1))]).unwrap();
    let during = std::cell::RefCell::new(None);
    let take = || {
        *during.borrow_mut() = Some(index.touch([Folder::of(block(2))]).unwrap());
        Vec::new()
    };
    index.flush(take, |_| Ok(())).unwrap();
    assert_eq!(index.dirty_count(), 2);
    index.finish(before);
    index.finish(during.take().unwrap());
    index.flush(Vec::new, |_| Ok(())).unwrap();
    assert_eq!(index.dirty_count(), 0);
}

#[test]
fn a_flush_that_fails_leaves_the_folders_dirty() {
    let folder = tempfile::tempdir().unwrap();
    let index = filled(folder.path());
    index.finish(index.touch([Folder::of(block(1))]).unwrap());
    let failed = index.flush(Vec::new, |_| Err(Error::new(Code::Io, "expected by the test")));
    assert!(failed.is_err());
    drop(index);
    let opened = Index::open(folder.path(), CACHE).unwrap();
    assert_eq!(opened.unsure, [block(1)]);
}

#[test]
fn a_lost_log_a_lost_database_and_garbage_lead_to_a_full_scan() {
    for damage in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        drop(filled(folder.path()));
        match damage {
            0 => std::fs::remove_file(folder.path().join(DIRTY_NAME)).unwrap(),
            1 => std::fs::remove_dir_all(folder.path().join("sled")).unwrap(),
            2 => std::fs::write(folder.path().join("sled/db"), vec![7; 100_000]).unwrap(),
            _ => std::fs::write(folder.path().join(DIRTY_NAME), b"GRDIRTY1").unwrap(),
        }
        let opened = Index::open(folder.path(), CACHE).unwrap();
        assert!(matches!(opened.rescan, Rescan::All(_)), "damage {damage}");
        assert!(opened.entries.is_empty());
        assert_eq!(opened.index.dirty_count(), FOLDERS, "dirty until it was built anew");
    }
}

#[test]
fn an_entry_that_went_missing_or_changed_does_not_fit_the_digest() {
    for change in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        let index = filled(folder.path());
        let key = block(4).0.to_be_bytes();
        match change {
            0 => drop(index.db.db.remove(key).unwrap()),
            1 => drop(index.db.db.insert(key, &encode_entry(block(4), entry(9))[..]).unwrap()),
            _ => drop(index.db.db.insert(key, &[0; VALUE_BYTES][..]).unwrap()),
        }
        index.db.flush().unwrap();
        drop(index);
        let opened = Index::open(folder.path(), CACHE).unwrap();
        assert!(matches!(opened.rescan, Rescan::All(_)), "change {change}");
    }
}

#[test]
fn the_dirty_log_has_the_bytes_of_the_format_and_survives_tearing() {
    let folder = |number| Folder::from_number(number).unwrap();
    let mut bytes = b"GRDIRTY1".to_vec(); // magic
    bytes.extend([0, 0, 0, 65]); // sub-folder 65
    bytes.extend(crc32fast::hash(&[0, 0, 0, 65]).to_be_bytes()); // its CRC32
    assert_eq!(dirty_record(folder(65)), bytes[8..]);
    let second = dirty_record(folder(66));
    bytes.extend(second);
    bytes.extend([0; 16]);
    assert_eq!(parse_dirty(&bytes), Ok([folder(65), folder(66)].into_iter().collect()));
    for bit in 0..24 * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(parse_dirty(&flipped).is_err(), "bit {bit}");
    }
    // A record whose write never began.
    bytes[16..24].fill(0);
    assert_eq!(parse_dirty(&bytes), Ok([folder(65)].into_iter().collect()));
}
