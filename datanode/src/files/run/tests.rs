use std::os::unix::fs::MetadataExt;
use std::path::Path;

use proptest::prelude::*;
use proto::{BlockId, GenerationStamp};
use transfer::Checksum;

use super::super::{Paths, verify};
use super::*;
use crate::layout;
use crate::testing::pattern;
use crate::volume::tests::volume;

fn files(root: &Path) -> ReplicaFiles {
    let paths = Paths::new(&layout::rbw_path(root), BlockId(7), GenerationStamp(1001));
    ReplicaFiles::create(&volume(root), paths, Checksum::NATIVE).unwrap()
}

fn sums(data: &[u8]) -> Vec<u8> {
    let mut sums = vec![0; Checksum::NATIVE.sum_bytes(data.len())];
    Checksum::NATIVE.compute(data, &mut sums);
    sums
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Packets of all sizes, some of which begin again at the chunk in which the one before ended.
    #[test]
    fn pieces_written_together_leave_what_those_written_one_by_one_leave(
        lengths in proptest::collection::vec(
            prop_oneof![0usize..1500, Just(64_512), (1usize..260).prop_map(|chunks| 512 * chunks)],
            1..12,
        ),
        together in 1usize..8,
    ) {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut one, mut other) = (files(one.path()), files(other.path()));
        let data = pattern(3, lengths.iter().sum());
        let mut end = 0;
        let places: Vec<_> = lengths.iter().map(|length| {
            let begin = end - end % 512;
            end += length;
            begin..end
        }).collect();
        let kept: Vec<_> = places.iter().map(|place| sums(&data[place.clone()])).collect();
        let pieces: Vec<_> = places.iter().zip(&kept).map(|(place, sums)| Piece {
            offset: place.start as u64,
            data: &data[place.clone()],
            sums: Some(sums),
        }).collect();
        for pieces in pieces.chunks(together) {
            let run = one.write_run(pieces);
            prop_assert!(run.failed.is_none());
            let expected: Vec<_> = pieces.iter()
                .map(|piece| other.write(piece.offset, piece.data, piece.sums).unwrap())
                .collect();
            prop_assert_eq!(run.wrote, expected);
        }
        one.give_back().unwrap();
        for (a, b) in [(&one.paths().data, &other.paths().data), (&one.paths().meta, &other.paths().meta)] {
            prop_assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
        }
        verify(&one.data, &one.meta, end as u64, "blk_7").unwrap();
    }
}

#[test]
fn what_comes_before_a_gap_is_written_and_the_gap_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = files(folder.path());
    let data = pattern(4, 2048);
    let piece = |offset: usize, bytes: usize| Piece {
        offset: offset as u64,
        data: &data[offset..offset + bytes],
        sums: None,
    };
    let run = files.write_run(&[piece(0, 512), piece(512, 512), piece(1536, 512)]);
    assert_eq!(run.wrote.iter().map(|wrote| wrote.end).collect::<Vec<_>>(), [512, 1024]);
    assert_eq!(run.failed.unwrap().code, proto::Code::InvalidArgument);
    assert_eq!(files.written(), 1024);
}

#[test]
fn space_that_was_asked_for_ahead_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = files(folder.path());
    let data = pattern(5, 3 << 20);
    files.write(0, &data, None).unwrap();
    let taken = |files: &ReplicaFiles| files.data.metadata().unwrap().blocks() * 512;
    if files.ahead.to > 0 {
        assert!(taken(&files) >= AHEAD_BYTES, "{}", taken(&files));
    }
    files.give_back().unwrap();
    files.sync().unwrap();
    assert!(taken(&files) < 4 << 20, "{}", taken(&files));
    assert_eq!(std::fs::read(&files.paths().data).unwrap(), data);
}
