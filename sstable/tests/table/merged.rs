//! Properties of merges.

use proptest::collection::vec;
use proptest::prelude::*;
use sstable::merge::{merge, merge_first};
use sstable::{Table, WriterOptions};

use crate::build;

type Records = Vec<(Vec<u8>, u32)>;

/// Sorted sources with equal keys within and across them; values tell records apart.
fn sources() -> impl Strategy<Value = Vec<Records>> {
    vec(vec(vec(0u8..4, 0..4), 0..40), 0..6).prop_map(|mut sources| {
        let mut number = 0;
        let mut name = |key| {
            number += 1;
            (key, number)
        };
        for source in &mut sources {
            source.sort();
        }
        sources.into_iter().map(|source| source.into_iter().map(&mut name).collect()).collect()
    })
}

fn readers(sources: &[Records]) -> Vec<impl Iterator<Item = Result<(Vec<u8>, u32), String>>> {
    sources.iter().map(|source| source.clone().into_iter().map(Ok)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_merge_is_a_stable_sort_of_all_records(sources in sources()) {
        let mut expected: Vec<(usize, Vec<u8>, u32)> = Vec::new();
        for (i, source) in sources.iter().enumerate() {
            expected.extend(source.iter().map(|(key, value)| (i, key.clone(), *value)));
        }
        expected.sort_by(|a, b| a.1.cmp(&b.1));
        let merged: Result<Vec<_>, String> = merge(readers(&sources)).collect();
        prop_assert_eq!(merged.unwrap(), expected.clone());
        expected.dedup_by(|later, first| later.1 == first.1);
        let first: Result<Vec<_>, String> = merge_first(readers(&sources)).collect();
        let expected: Records = expected.into_iter().map(|(_, key, value)| (key, value)).collect();
        prop_assert_eq!(first.unwrap(), expected);
    }

    #[test]
    fn an_error_of_a_source_ends_the_merge(sources in sources(), at in 0usize..100) {
        let total: usize = sources.iter().map(Vec::len).sum();
        prop_assume!(at < total);
        let mut left = at;
        let failing = sources.iter().map(|source| {
            let mut records: Vec<Result<(Vec<u8>, u32), String>> = source.iter().cloned().map(Ok).collect();
            if left < records.len() {
                records[left] = Err("disk".to_owned());
                left = usize::MAX;
            } else if left != usize::MAX {
                left -= records.len();
            }
            records.into_iter()
        });
        let merged: Vec<_> = merge(failing.collect()).collect();
        prop_assert_eq!(merged.iter().filter(|r| r.is_err()).count(), 1);
        prop_assert!(merged.last().unwrap().is_err());
    }
}

#[test]
fn tables_are_sources() {
    let old = build([(&b"a"[..], &b"old"[..]), (b"b", b"old")], WriterOptions::default()).0;
    let new = build([(&b"b"[..], &b"new"[..]), (b"c", b"new")], WriterOptions::default()).0;
    let (old, new) =
        (Table::from_bytes("old", old).unwrap(), Table::from_bytes("new", new).unwrap());
    let merged = merge_first(vec![new.iter(), old.iter()]).map(|r| {
        let (key, value) = r.unwrap();
        format!("{}={}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value))
    });
    assert_eq!(merged.collect::<Vec<_>>(), ["a=old", "b=new", "c=new"]);
}
