//! The journal's bytes, its crash images and its failures.
//!
//! The bound that is checked: after any single bit flip or cut, a replay gives an error or a prefix of what was
//! appended, and the prefix lacks at most the last batch.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use proto::{Code, Result, Txid};

use super::segment::{self, HEADER_BYTES, Header};
use super::{Journal, Place, Replayed, prune, replay};

const SEGMENT: u64 = 4096;

fn place(folder: &Path) -> Place {
    Place { folder: folder.to_owned(), segment_bytes: SEGMENT, cluster_id: [9; 16] }
}

fn read(place: &Place, after: u64) -> Result<(Vec<Vec<u8>>, Replayed)> {
    let mut requests = Vec::new();
    let replayed = replay(place, Txid(after), &mut |_, bytes| {
        requests.push(bytes.to_vec());
        Ok(())
    })?;
    Ok((requests, replayed))
}

fn resume(place: &Place) -> Journal {
    let (_, replayed) = read(place, 0).unwrap();
    let next = replayed.tail.as_ref().map_or(Txid(1), |tail| tail.next);
    Journal::resume(place.clone(), &replayed, next).unwrap()
}

fn requests(count: usize, tag: u8) -> Vec<Vec<u8>> {
    (0..count).map(|at| vec![tag; 10 + at * 7]).collect()
}

/// Appends batches of 1, 2 and 3 requests; gives all of them and the number in each batch.
fn three_batches(place: &Place) -> (Vec<Vec<u8>>, Vec<usize>) {
    let mut journal = resume(place);
    let mut all = Vec::new();
    for count in 1..=3 {
        let batch = requests(count, b'a' + count as u8);
        journal.append(&batch).unwrap();
        all.extend(batch);
    }
    (all, vec![1, 2, 3])
}

fn only_segment(folder: &Path) -> PathBuf {
    folder.join("00000000000000000001.log")
}

#[test]
fn golden_bytes_of_header_and_batch() {
    let header =
        Header { cluster_id: [7; 16], first: Txid(5), segment_bytes: 4096, salt: 0x0102_0304 };
    let mut expected = b"GRNJRNL1".to_vec(); // magic
    expected.extend([1, 0, 0, 0]); // version
    expected.extend([0; 4]); // reserved
    expected.extend([7; 16]); // cluster id
    expected.extend([5, 0, 0, 0, 0, 0, 0, 0]); // first txid
    expected.extend([0, 16, 0, 0, 0, 0, 0, 0]); // bytes of the segment
    expected.extend([4, 3, 2, 1, 0, 0, 0, 0]); // salt
    expected.extend([0; 4]); // reserved
    expected.extend(crc32fast::hash(&expected).to_le_bytes());
    assert_eq!(header.encode().to_vec(), expected);

    let mut batch = Vec::new();
    segment::encode_batch(0x0102_0304, Txid(5), &[b"xy".to_vec()], &mut batch);
    let mut head = b"GNBH".to_vec(); // magic
    head.extend([6, 0, 0, 0]); // bytes of the requests with their lengths
    head.extend([5, 0, 0, 0, 0, 0, 0, 0]); // first txid
    head.extend([1, 0, 0, 0]); // requests
    head.extend([0; 8]); // reserved
    let payload = [2, 0, 0, 0, b'x', b'y'];
    let summed = [&[4, 3, 2, 1, 0, 0, 0, 0], &head[..], &payload].concat();
    head.extend(crc32fast::hash(&summed).to_le_bytes());
    head.extend(payload);
    head.extend([0; 2]); // to a multiple of eight
    assert_eq!(batch, head);
}

#[test]
fn any_bit_flip_gives_an_error_or_loses_at_most_the_last_batch() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let (all, _) = three_batches(&place);
    let path = only_segment(dir.path());
    let good = std::fs::read(&path).unwrap();
    let used = good.iter().rposition(|&byte| byte != 0).unwrap() + 16;
    let mut errors = 0;
    for offset in 0..used {
        let mut bytes = good.clone();
        bytes[offset] ^= 1 << (offset % 8);
        std::fs::write(&path, &bytes).unwrap();
        match read(&place, 0) {
            Err(error) => {
                assert!(matches!(error.code, Code::Corrupt | Code::Incompatible), "{error:?}");
                assert!(error.message.contains("00000000000000000001.log"), "{error:?}");
                errors += 1;
            }
            Ok((found, _)) => {
                assert!(found == all || found == all[..3], "flip at {offset}: {}", found.len());
            }
        }
    }
    assert!(errors > 64, "the header and all but the last batch are guarded: {errors}");
}

#[test]
fn a_segment_cut_short_at_any_length_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    three_batches(&place);
    let path = only_segment(dir.path());
    let good = std::fs::read(&path).unwrap();
    for length in (0..400).chain([SEGMENT as usize - 1]) {
        std::fs::write(&path, &good[..length]).unwrap();
        assert_eq!(read(&place, 0).unwrap_err().code, Code::Corrupt, "cut at {length}");
    }
}

#[test]
fn every_crash_image_of_a_batch_holds_all_batches_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let mut journal = resume(&place);
    let path = only_segment(dir.path());
    let mut acknowledged: Vec<Vec<u8>> = Vec::new();
    for round in 0..4u8 {
        let synced = std::fs::read(&path).unwrap();
        // Several sectors long, so that a crash can keep any of them.
        let batch = vec![vec![round + 1; 700], vec![round + 1; 300]];
        journal.append(&batch).unwrap();
        if journal.path != path {
            break;
        }
        let written = std::fs::read(&path).unwrap();
        let sectors: Vec<usize> = (0..written.len())
            .step_by(512)
            .filter(|&at| written[at..at + 512] != synced[at..at + 512])
            .collect();
        assert!(sectors.len() < 8);
        for kept in 0..1u32 << sectors.len() {
            let mut image = synced.clone();
            for (bit, &at) in sectors.iter().enumerate() {
                if kept >> bit & 1 == 1 {
                    image[at..at + 512].copy_from_slice(&written[at..at + 512]);
                }
            }
            check_image(&image, &acknowledged, &batch);
        }
        acknowledged.extend(batch);
    }
    assert!(acknowledged.len() >= 4);
}

/// Opens an image as after a crash: nothing acknowledged is missing, the last batch is there whole or not at all, and
/// the journal goes on.
fn check_image(image: &[u8], acknowledged: &[Vec<u8>], batch: &[Vec<u8>]) {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    std::fs::write(only_segment(dir.path()), image).unwrap();
    let (found, replayed) = read(&place, 0).unwrap();
    let with = [acknowledged, batch].concat();
    assert!(found == acknowledged || found == with, "{} requests", found.len());
    let next = Txid(found.len() as u64 + 1);
    let mut journal = Journal::resume(place.clone(), &replayed, next).unwrap();
    journal.append(&[b"after".to_vec()]).unwrap();
    let (again, replayed) = read(&place, 0).unwrap();
    assert_eq!(again.len(), found.len() + 1);
    assert_eq!(replayed.tail.unwrap().torn, None);
}

#[test]
fn a_torn_batch_is_zeroed_so_that_its_rest_never_returns() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let (all, _) = three_batches(&place);
    let path = only_segment(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    bytes[last] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (found, replayed) = read(&place, 0).unwrap();
    assert_eq!(found, all[..3]);
    let tail = replayed.tail.as_ref().unwrap();
    assert!(tail.torn.is_some());
    let offset = tail.offset as usize;
    drop(Journal::resume(place, &replayed, Txid(4)).unwrap());
    assert!(std::fs::read(&path).unwrap()[offset..].iter().all(|&byte| byte == 0));
}

#[test]
fn requests_that_look_like_batches_are_not_taken_for_some() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let mut journal = resume(&place);
    let mut forged = Vec::new();
    // A user can guess everything but the salt.
    segment::encode_batch(0, Txid(9), &[b"evil".to_vec()], &mut forged);
    let request = [&[0; 4][..], &forged, &forged].concat();
    journal.append(&[request]).unwrap();
    let path = only_segment(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[HEADER_BYTES as usize + 5] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (found, replayed) = read(&place, 0).unwrap();
    assert!(found.is_empty() && replayed.tail.unwrap().torn.is_some());
}

#[test]
fn segments_follow_each_other_and_a_missing_one_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let mut journal = resume(&place);
    let mut all = Vec::new();
    for round in 0..40u8 {
        let batch = vec![vec![round; 400]];
        journal.append(&batch).unwrap();
        all.extend(batch);
    }
    drop(journal);
    let (found, replayed) = read(&place, 0).unwrap();
    assert_eq!((found, replayed.requests), (all.clone(), 40));
    assert_eq!(read(&place, 25).unwrap().0, all[25..]);
    let segments = segment::list_segments(dir.path()).unwrap();
    assert!(segments.len() >= 4);
    let aside = tempfile::tempdir().unwrap();
    let gone = aside.path().join("gone.log");
    std::fs::rename(&segments[2].1, &gone).unwrap();
    let error = read(&place, 0).unwrap_err();
    assert!(error.message.contains("gap"), "{error:?}");
    std::fs::rename(&gone, &segments[2].1).unwrap();
    // Pruned up to a checkpoint, what is after it is still there, and what is before it is missed aloud.
    assert!(prune(dir.path(), Txid(segments[2].0.0)).unwrap() == 2);
    assert_eq!(read(&place, segments[2].0.0).unwrap().0, all[segments[2].0.0 as usize..]);
    let error = read(&place, 0).unwrap_err();
    assert!(error.message.contains("a segment is missing"), "{error:?}");
}

#[test]
fn a_batch_larger_than_a_segment_gets_one_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let mut journal = resume(&place);
    journal.append(&[vec![1; 10]]).unwrap();
    journal.append(&[vec![2; 3 * SEGMENT as usize]]).unwrap();
    journal.append(&[vec![3; 10]]).unwrap();
    drop(journal);
    let lengths: Vec<_> = read(&place, 0).unwrap().0.iter().map(Vec::len).collect();
    assert_eq!(lengths, [10, 3 * SEGMENT as usize, 10]);
}

#[test]
fn a_failed_write_closes_the_journal_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let mut journal = resume(&place);
    journal.append(&requests(1, b'a')).unwrap();
    let good = journal.file.try_clone().unwrap();
    journal.replace_file(File::open(only_segment(dir.path())).unwrap());
    let error = journal.append(&requests(1, b'b')).unwrap_err();
    assert_eq!(error.code, Code::Io);
    journal.replace_file(good);
    assert_eq!(journal.append(&requests(1, b'c')).unwrap_err(), error, "it is never tried again");
    assert_eq!(read(&place, 0).unwrap().0, requests(1, b'a'));
}

#[test]
fn a_segment_that_cannot_be_made_fails_the_batch_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let mut journal = resume(&place);
    journal.append(&[vec![1; 1500]]).unwrap();
    // A folder where the spare would be made: nothing can be made there, as on a full disk.
    let spare = dir.path().join("spare.tmp");
    std::fs::create_dir(&spare).unwrap();
    journal.append(&[vec![2; 3000]]).unwrap_err();
    assert!(journal.failure().is_none());
    journal.append(&[vec![3; 100]]).unwrap();
    std::fs::remove_dir(&spare).unwrap();
    journal.append(&[vec![4; 3000]]).unwrap();
    drop(journal);
    let firsts: Vec<_> = read(&place, 0).unwrap().0.iter().map(|request| request[0]).collect();
    assert_eq!(firsts, [1, 3, 4]);
}

#[test]
fn a_foreign_or_newer_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mine = place(dir.path());
    three_batches(&mine);
    let other = Place { cluster_id: [1; 16], ..mine.clone() };
    assert_eq!(read(&other, 0).unwrap_err().code, Code::Incompatible);
    let file = OpenOptions::new().write(true).open(only_segment(dir.path())).unwrap();
    let mut header = std::fs::read(only_segment(dir.path())).unwrap()[..60].to_vec();
    header[8] = 2;
    let crc = crc32fast::hash(&header).to_le_bytes();
    file.write_all_at(&[&header[..], &crc].concat(), 0).unwrap();
    assert!(read(&mine, 0).unwrap_err().message.contains("newer"));
}
