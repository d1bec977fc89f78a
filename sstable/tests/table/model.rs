//! Properties: whatever is written, gets, batches and ranges agree with a sorted map.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use sstable::{Compression, Table, WriterOptions};

use crate::build;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keys that meet in few bytes, share long prefixes, end in 0x00 or 0xff, or are empty.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(prop_oneof![Just(0u8), Just(1), Just(b'a'), Just(0xfe), Just(0xff)], 0..6),
        vec(any::<u8>(), 0..40),
        (0usize..300, any::<u16>())
            .prop_map(|(n, i)| { [vec![b'p'; n], i.to_be_bytes().to_vec()].concat() }),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..20),
        2 => (any::<u8>(), 0usize..600).prop_map(|(byte, n)| vec![byte; n]),
        1 => (any::<u8>(), 0usize..70_000).prop_map(|(byte, n)| vec![byte; n]),
    ]
}

fn options() -> impl Strategy<Value = WriterOptions> {
    let compression = prop_oneof![Just(Compression::None), Just(Compression::Zstd { level: 3 })];
    (256usize..5000, compression, any::<bool>()).prop_map(|(block_bytes, compression, hash)| {
        WriterOptions { block_bytes, compression, hash }
    })
}

fn collect(iter: sstable::Iter<'_>) -> Model {
    let records: Vec<_> = iter.map(|r| r.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap()).collect();
    assert!(records.is_sorted_by(|a, b| a.0 < b.0));
    records.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tables_agree_with_a_sorted_map(
        model in btree_map(key(), value(), 0..200),
        probes in vec(key(), 1..50),
        options in options(),
    ) {
        let records = model.iter().map(|(k, v)| (k.as_slice(), v.as_slice()));
        let (bytes, summary) = build(records.clone(), options.clone());
        prop_assert_eq!(&build(records, options).0, &bytes, "equal input gives equal bytes");
        prop_assert_eq!(summary.bytes, bytes.len() as u64);
        let table = Table::from_bytes("model", bytes).unwrap();
        prop_assert_eq!(table.footer_crc32(), summary.footer_crc32);
        let report = table.verify(|_, _| {}).unwrap();
        prop_assert!(report.is_good(), "{:?}", report);
        prop_assert_eq!(report.records, model.len() as u64);

        let keys: Vec<&Vec<u8>> = model.keys().chain(&probes).collect();
        for (key, many) in keys.iter().zip(table.multi_get(&keys)) {
            let expected = model.get(*key).map(Vec::as_slice);
            let (one, many) = (table.get(key).unwrap(), many.unwrap());
            prop_assert_eq!(one.as_deref(), expected);
            prop_assert_eq!(many.as_deref(), expected);
        }
        prop_assert_eq!(&collect(table.iter()), &model);
        for pair in probes.windows(2) {
            let (low, high) = (pair[0].as_slice().min(&pair[1]), pair[0].as_slice().max(&pair[1]));
            for start in [Bound::Unbounded, Bound::Included(low), Bound::Excluded(low)] {
                for end in [Bound::Unbounded, Bound::Included(high), Bound::Excluded(high)] {
                    if (start, end) == (Bound::Excluded(low), Bound::Excluded(low)) {
                        continue; // The sorted map refuses to answer this one.
                    }
                    let expected: Model = model
                        .range::<[u8], _>((start, end))
                        .map(|(k, v)| (k.clone(), v.clone()))
                        .collect();
                    prop_assert_eq!(collect(table.range((start, end))), expected);
                }
            }
            prop_assert_eq!(table.range(high..low).count(), 0, "a range that is turned round");
        }
        for probe in &probes {
            let prefix = &probe[..probe.len().min(3)];
            let mut expected = model.clone();
            expected.retain(|k, _| k.starts_with(prefix));
            prop_assert_eq!(collect(table.prefix(prefix)), expected);
        }
    }

    #[test]
    fn any_bytes_are_opened_or_refused(mut bytes in vec(any::<u8>(), 0..400), magic in any::<bool>()) {
        if magic {
            bytes.extend(b"\nELBATRG");
        }
        prop_assert!(Table::from_bytes("noise", bytes).is_err());
    }
}

#[test]
fn a_mapped_file_answers_from_many_threads_and_can_be_unlinked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.tbl");
    let model: Model = (0..20_000u32)
        .map(|i| (format!("{i:06}").into(), vec![i as u8; (i % 200) as usize]))
        .collect();
    for compression in [Compression::None, Compression::Zstd { level: 1 }] {
        let options = WriterOptions { compression, ..WriterOptions::default() };
        let (bytes, _) = build(model.iter().map(|(k, v)| (k.as_slice(), v.as_slice())), options);
        std::fs::write(&path, bytes).unwrap();
        let table = Table::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for (key, value) in &model {
                        let found = table.get(key).unwrap().unwrap();
                        assert_eq!(*found, **value);
                        assert_eq!(
                            found.as_mapped().is_some(),
                            compression == Compression::None || {
                                // Blocks that did not shrink are stored as they are.
                                found.as_mapped().is_some()
                            }
                        );
                    }
                });
            }
        });
        table.warm().unwrap();
        assert!(table.verify(|_, _| {}).unwrap().is_good());
    }
}
