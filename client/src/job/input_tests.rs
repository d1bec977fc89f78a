//! Claims about splits: every record comes once, wherever files are cut.

use proptest::prelude::*;

use super::*;

fn file(kind: Kind, length: u64, block_bytes: u64) -> InputFile {
    let path = FsPath::parse(&format!("/in/{length}")).unwrap();
    InputFile { input: 0, kind, path, length, block_bytes }
}

/// What [`load_lines`] takes for a split, without a cluster.
fn lines_of(data: &[u8], split: &Split) -> Vec<(u64, Vec<u8>)> {
    let from = split.start.saturating_sub(1);
    let part = &data[from as usize..split.end as usize];
    let Some(skip) = first_line(split.start, part) else { return Vec::new() };
    let begin = from as usize + skip;
    let mut end = split.end as usize;
    if data[end - 1] != b'\n' {
        end = data[end..].iter().position(|&b| b == b'\n').map_or(data.len(), |i| end + i + 1);
    }
    let mut at = begin as u64;
    let mut lines = Vec::new();
    for line in data[begin..end].split_inclusive(|&b| b == b'\n') {
        lines.push((at, line.to_vec()));
        at += line.len() as u64;
    }
    lines
}

proptest! {
    #[test]
    fn every_line_is_in_exactly_one_split(
        data in prop::collection::vec(prop::sample::select(vec![b'\n', b'a', 0xff]), 0..300),
        split_bytes in 1u64..50,
        block_bytes in 0u64..70,
    ) {
        let files = [file(Kind::Lines, data.len() as u64, block_bytes)];
        let splits = cut(&files, split_bytes);
        let mut found: Vec<_> = splits.iter().flat_map(|split| lines_of(&data, split)).collect();
        found.sort();
        let mut at = 0;
        let mut expected = Vec::new();
        for line in data.split_inclusive(|&b| b == b'\n') {
            expected.push((at, line.to_vec()));
            at += line.len() as u64;
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn splits_join_and_stay_within_their_block(
        length in 0u64..100_000, split_bytes in 1u64..20_000, block_bytes in 1u64..50_000,
    ) {
        let mut next = 0;
        for split in cut(&[file(Kind::Lines, length, block_bytes)], split_bytes) {
            prop_assert_eq!(split.start, next);
            prop_assert!(split.end > split.start && split.end - split.start <= split_bytes);
            prop_assert_eq!(split.start / block_bytes, (split.end - 1) / block_bytes);
            next = split.end;
        }
        prop_assert_eq!(next, length);
    }
}

#[test]
fn documents_and_tables_are_one_split_even_when_empty() {
    let files =
        [file(Kind::Documents, 0, 1), file(Kind::Tables, 1 << 40, 1), file(Kind::Lines, 0, 1)];
    let splits = cut(&files, 10);
    let expected = [(0, 0), (1, 1 << 40)].map(|(file, end)| Split { file, start: 0, end });
    assert_eq!(splits, expected);
}

#[test]
fn documents_above_the_limit_are_refused_by_name_or_skipped() {
    let files = || {
        vec![file(Kind::Documents, 10, 1), file(Kind::Documents, 11, 1), file(Kind::Lines, 99, 1)]
    };
    let limits = |oversized| Limits { document_bytes_max: 10, oversized };
    let error = drop_oversized(&mut files(), limits(Oversized::Refuse)).unwrap_err();
    assert!(error.message.contains("/in/11") && error.message.contains("11 bytes"), "{error}");
    let mut left = files();
    assert_eq!(drop_oversized(&mut left, limits(Oversized::Skip)).unwrap(), 1);
    assert_eq!(left.len(), 2);
}
