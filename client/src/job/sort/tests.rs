//! Claims about the sorter: it agrees with a plain sort, whatever spills.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Record = (u16, Vec<u8>, Vec<u8>);

fn options(memory_bytes: usize, ties: Ties) -> SorterOptions {
    SorterOptions { memory_bytes, ties, ..SorterOptions::default() }
}

fn sort(records: &[Record], options: SorterOptions) -> Sorted {
    let mut sorter = Sorter::new(options);
    for (partition, key, value) in records {
        sorter.push_to(*partition, key, value).unwrap();
    }
    sorter.finish().unwrap()
}

fn collect(sorts: &[Sorted], partitions: u16) -> Vec<Record> {
    let mut all = Vec::new();
    for partition in 0..partitions {
        let mut merged = merge_all(sorts, partition);
        while let Some((key, value)) = merged.next().unwrap() {
            all.push((partition, key.to_vec(), value.to_vec()));
        }
        assert!(merged.next().unwrap().is_none(), "the end stays the end");
    }
    all
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    // Few letters, so that keys, prefixes and values often are equal.
    let bytes =
        |max| prop::collection::vec(prop::sample::select(vec![0u8, b'a', b'b', 255]), 0..max);
    prop::collection::vec((0u16..4, bytes(14), bytes(4)), 0..400)
}

proptest! {
    #[test]
    fn a_sort_with_many_spills_equals_the_sort_of_a_vector(records in records(), memory in 1usize..4000) {
        let sorted = sort(&records, options(memory, Ties::Value));
        let mut expected = records.clone();
        expected.sort();
        prop_assert_eq!(collect(&[sorted], 4), expected);
    }

    #[test]
    fn equal_keys_stay_in_the_order_of_their_pushes(records in records(), memory in 1usize..4000) {
        let sorted = sort(&records, options(memory, Ties::Insertion));
        let mut expected = records.clone();
        expected.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        prop_assert_eq!(collect(&[sorted], 4), expected);
    }

    #[test]
    fn several_sorts_merge_as_one(records in records(), memory in 1usize..4000, cut in 0usize..400) {
        let cut = cut.min(records.len());
        let parts = [&records[..cut], &records[cut..]].map(|part| sort(part, options(memory, Ties::Value)));
        let mut expected = records.clone();
        expected.sort();
        prop_assert_eq!(collect(&parts, 4), expected);
    }

    #[test]
    fn groups_hold_each_key_once_even_where_values_are_left(records in records(), take in 0usize..3) {
        let sorted = sort(&records, options(500, Ties::Value));
        let mut expected: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        for (_, key, value) in records.iter().filter(|record| record.0 == 0) {
            expected.entry(key.clone()).or_default().push(value.clone());
        }
        let mut seen = Vec::new();
        let groups = for_each_group(&mut sorted.records(), |key, values| {
            let mut some = Vec::new();
            while some.len() < take && let Some(value) = values.next()? {
                some.push(value.to_vec());
            }
            seen.push((key.to_vec(), some));
            Ok(())
        }).unwrap();
        prop_assert_eq!(groups.groups, expected.len() as u64);
        prop_assert_eq!(groups.records, expected.values().map(Vec::len).sum::<usize>() as u64);
        let expected: Vec<_> = expected.into_iter().map(|(key, mut values)| {
            values.sort();
            values.truncate(take);
            (key, values)
        }).collect();
        prop_assert_eq!(seen, expected);
    }
}

#[test]
fn more_runs_than_one_merge_takes_are_merged_in_levels() {
    let records: Vec<Record> = (0..FAN_IN * FAN_IN + 500)
        .map(|i| (0, format!("{:06}", i * 7919 % 1_000_003).into_bytes(), vec![1; 8]))
        .collect();
    let sorted = sort(&records, options(1, Ties::Insertion));
    assert_eq!(sorted.stats().spills, records.len() as u64 - 1);
    assert!(sorted.runs.len() < 2 * FAN_IN, "{} runs", sorted.runs.len());
    let mut expected = records;
    expected.sort();
    assert_eq!(collect(&[sorted], 1), expected);
}

fn sum(_: &[u8], values: &mut Values<'_, '_>, out: &mut Combined<'_>) -> Result<()> {
    let mut sum = 0u64;
    while let Some(value) = values.next()? {
        sum += u64::from_be_bytes(value.try_into().unwrap());
    }
    out.emit(&sum.to_be_bytes())
}

#[test]
fn a_combiner_shrinks_what_is_spilled_and_keeps_the_sums() {
    let push_all = |combiner: Option<Combiner>| {
        let mut sorter = Sorter::new(SorterOptions { combiner, ..options(4_000, Ties::Value) });
        for i in 0..50_000u64 {
            sorter
                .push_to((i % 3) as u16, format!("k{}", i % 30).as_bytes(), &1u64.to_be_bytes())
                .unwrap();
        }
        sorter.finish().unwrap()
    };
    let (plain, combined) = (push_all(None), push_all(Some(Arc::new(sum))));
    assert!(combined.stats().spilled_bytes * 3 < plain.stats().spilled_bytes);
    for sorted in [plain, combined] {
        let mut sums = BTreeMap::new();
        for (partition, key, value) in collect(&[sorted], 3) {
            *sums.entry((partition, key)).or_insert(0) +=
                u64::from_be_bytes(value.try_into().unwrap());
        }
        assert_eq!(sums.len(), 30);
        assert_eq!(sums.values().sum::<u64>(), 50_000);
    }
}

#[test]
fn a_combiner_whose_values_descend_is_refused() {
    let combiner: Combiner = Arc::new(|_, _, out| {
        out.emit(b"b")?;
        out.emit(b"a")
    });
    let mut sorter =
        Sorter::new(SorterOptions { combiner: Some(combiner), ..options(1, Ties::Value) });
    sorter.push(b"k", b"1").unwrap();
    let error = sorter.push(b"k", b"2").unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(error.message.contains("\"k\""), "{error}");
}

#[test]
fn a_damaged_run_ends_the_merge_with_an_error() {
    use std::os::unix::fs::FileExt;
    let records: Vec<Record> =
        (0..2_000u32).map(|i| (0, i.to_be_bytes().to_vec(), vec![9; 20])).collect();
    let sorted = sort(&records, options(20_000, Ties::Value));
    let file = sorted.runs[1].file_for_test();
    file.write_all_at(&[0xff], 100).unwrap();
    let mut merged = sorted.records();
    let error = loop {
        match merged.next() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("damage went unnoticed"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code, Code::Corrupt);
}

#[test]
fn keys_and_values_over_the_limit_are_refused() {
    let mut sorter = Sorter::new(SorterOptions::default());
    let long = vec![0; KEY_BYTES_MAX + 1];
    assert_eq!(sorter.push(&long, b"").unwrap_err().code, Code::InvalidArgument);
    sorter.push(&long[1..], b"").unwrap();
    assert_eq!(sorter.stats().records, 1);
}
