//! Event tables of single blocks, and random histories beside a naive model.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const A: NodeIndex = NodeIndex(0);
const B: NodeIndex = NodeIndex(1);
const C: NodeIndex = NodeIndex(2);
const ID: BlockId = BlockId(1_073_741_825);

fn complete(stamp: u64, length: u64) -> BlockTruth {
    BlockTruth { stamp: GenerationStamp(stamp), length, complete: true, replication: 3, policy: 0 }
}

fn writing(stamp: u64) -> BlockTruth {
    BlockTruth { complete: false, ..complete(stamp, 0) }
}

fn replica(stamp: u64, length: u64, state: ReplicaState) -> Reported {
    Reported { id: ID, stamp: GenerationStamp(stamp), length, state }
}

fn good(stamp: u64, length: u64) -> Reported {
    replica(stamp, length, ReplicaState::Finalized)
}

#[test]
fn a_block_goes_from_written_to_safe_as_replicas_come_in() {
    let mut map = Replicas::new(1);
    map.sync(ID, &writing(1));
    map.set_pipeline(ID, &[A, B, C]);
    assert_eq!(map.locations(ID, &writing(1)).nodes, [A, B, C]);
    assert_eq!(map.report(A, &good(1, 10), Some(&writing(1))), Verdict::Finalized);
    assert_eq!(map.finalized(ID, GenerationStamp(1), 10), 1);
    assert_eq!(map.finalized(ID, GenerationStamp(1), 11), 0, "of another length");
    map.sync(ID, &complete(1, 10));
    let totals = map.totals();
    assert_eq!((totals.safe, totals.under_replicated, totals.missing), (1, 1, 0));
    for node in [B, C] {
        assert_eq!(map.report(node, &good(1, 10), Some(&complete(1, 10))), Verdict::Finalized);
    }
    assert_eq!(map.totals().under_replicated, 0);
    assert_eq!(map.locations(ID, &complete(1, 10)).nodes, [A, B, C]);
}

#[test]
fn a_stale_replica_is_never_read_and_told_with_its_stamp() {
    let mut map = Replicas::new(1);
    let truth = complete(2, 10);
    for (node, stamp) in [(A, 1), (B, 2)] {
        map.report(node, &good(stamp, 10), Some(&truth));
    }
    assert_eq!(map.locations(ID, &truth).nodes, [B]);
    assert_eq!(map.bad(ID), [(A, GenerationStamp(1))]);
    assert_eq!(map.good_holders(ID), [B]);
}

#[test]
fn a_corrupt_replica_is_read_only_if_it_is_the_only_one() {
    let mut map = Replicas::new(1);
    let truth = complete(1, 10);
    map.report(A, &good(1, 10), Some(&truth));
    map.report(B, &good(1, 10), Some(&truth));
    assert!(map.mark_corrupt(A, ID, GenerationStamp(1)));
    assert_eq!(map.locations(ID, &truth), Locations { nodes: vec![B], corrupt: false });
    assert_eq!(
        map.report(A, &good(1, 10), Some(&truth)),
        Verdict::Bad,
        "a report does not heal it"
    );
    assert!(map.mark_corrupt(B, ID, GenerationStamp(1)));
    assert_eq!(map.locations(ID, &truth), Locations { nodes: vec![A, B], corrupt: true });
    assert_eq!((map.totals().missing, map.totals().corrupt), (1, 1));
    map.report(A, &replica(1, 10, ReplicaState::Deleted), Some(&truth));
    assert_eq!(map.report(A, &good(1, 10), Some(&truth)), Verdict::Finalized, "a new copy is good");
    assert!(!map.mark_corrupt(C, ID, GenerationStamp(1)), "it holds none");
}

#[test]
fn a_replica_of_another_length_is_corrupt_whenever_the_length_becomes_known() {
    let mut map = Replicas::new(1);
    map.report(A, &good(1, 9), Some(&writing(1)));
    map.sync(ID, &complete(1, 10));
    assert_eq!(map.totals().corrupt, 1);
    assert_eq!(map.report(B, &good(1, 11), Some(&complete(1, 10))), Verdict::Bad);
    assert_eq!((map.totals().missing, map.totals().safe), (1, 0));
}

#[test]
fn a_new_stamp_makes_the_old_replicas_stale_and_one_told_early_good() {
    let mut map = Replicas::new(1);
    map.set_pipeline(ID, &[A, B, C]);
    map.report(A, &replica(1, 5, ReplicaState::BeingWritten), Some(&writing(1)));
    map.report(B, &good(2, 10), Some(&writing(1)));
    map.sync(ID, &writing(2));
    map.set_pipeline(ID, &[B, C]);
    assert_eq!(map.locations(ID, &writing(2)).nodes, [B, C]);
    assert_eq!(map.finalized(ID, GenerationStamp(2), 10), 1);
    map.sync(ID, &complete(2, 10));
    assert_eq!(map.locations(ID, &complete(2, 10)).nodes, [B]);
}

#[test]
fn an_append_reopens_and_closes_again() {
    let mut map = Replicas::new(1);
    map.report(A, &good(1, 10), Some(&complete(1, 10)));
    let open = BlockTruth { complete: false, ..complete(1, 10) };
    map.sync(ID, &open);
    assert_eq!((map.totals().complete, map.totals().safe), (0, 0));
    assert_eq!(map.locations(ID, &open).nodes, [A]);
    map.report(A, &good(2, 20), Some(&BlockTruth { complete: false, ..complete(2, 10) }));
    map.sync(ID, &complete(2, 20));
    assert_eq!((map.totals().safe, map.good_and_expected(ID)), (1, (1, 3)));
}

#[test]
fn a_removed_block_names_its_holders_and_its_pipeline_and_leaves_nothing() {
    let mut map = Replicas::new(1);
    map.report(B, &good(1, 10), Some(&writing(1)));
    map.set_pipeline(ID, &[A, B]);
    assert_eq!(map.remove(ID), [A, B]);
    assert_eq!(map.remove(ID), []);
    assert_eq!((map.totals(), map.held_by(B), map.pages.len()), (Totals::default(), 0, 0));
    assert_eq!(map.report(A, &good(1, 10), None), Verdict::Unknown);
    assert_eq!(map.pages.len(), 0, "an unknown block gets no entry");
}

#[test]
fn a_sweep_drops_a_dead_node_page_by_page() {
    let mut map = Replicas::new(1);
    for step in 0..3 * PAGE_BLOCKS {
        let reported = Reported { id: BlockId(ID.0 + step), ..good(1, 10) };
        for node in [A, B] {
            map.report(node, &reported, Some(&complete(1, 10)));
        }
    }
    let (mut cursor, mut steps, mut dropped) = (0, 0, 0);
    while let (ids, Some(next)) = map.sweep(A, cursor, 1, 3_000) {
        assert!(ids.len() <= 3_000);
        (cursor, steps, dropped) = (next, steps + 1, dropped + ids.len() as u64);
    }
    assert_eq!((map.held_by(A), map.held_by(B), dropped), (0, 3 * PAGE_BLOCKS, 3 * PAGE_BLOCKS));
    assert!(steps > 4, "a page may take more than one step");
    assert_eq!(map.totals().missing, 0);
}

#[test]
fn more_than_255_replicas_are_expected_and_held() {
    let mut map = Replicas::new(1);
    let truth = BlockTruth { replication: 300, ..complete(1, 10) };
    for node in 0..299 {
        map.report(NodeIndex(node), &good(1, 10), Some(&truth));
    }
    assert_eq!((map.good_and_expected(ID), map.totals().under_replicated), ((299, 300), 1));
    map.report(NodeIndex(299), &good(1, 10), Some(&truth));
    assert_eq!(map.totals().under_replicated, 0);
    for node in 0..298 {
        map.drop_replica(NodeIndex(node), ID);
    }
    assert_eq!(map.locations(ID, &truth).nodes, [NodeIndex(298), NodeIndex(299)]);
    assert!(map.spilled.is_empty());
}

#[derive(Clone, Debug)]
enum Event {
    Report(u8, u16, u64, u64, ReplicaState),
    Sync(u8, u64, bool, u32),
    Mark(u8, u16),
    Remove(u8),
    Sweep(u16),
}

fn event() -> impl Strategy<Value = Event> {
    let state = prop_oneof![
        Just(ReplicaState::Finalized),
        Just(ReplicaState::BeingWritten),
        Just(ReplicaState::Deleted),
        Just(ReplicaState::Corrupt)
    ];
    prop_oneof![
        6 => (0u8..4, 0u16..6, 1u64..3, 10u64..12, state)
            .prop_map(|(b, n, s, l, state)| Event::Report(b, n, s, l, state)),
        3 => (0u8..4, 1u64..3, any::<bool>(), 1u32..5)
            .prop_map(|(b, s, c, r)| Event::Sync(b, s, c, r)),
        1 => (0u8..4, 0u16..6).prop_map(|(b, n)| Event::Mark(b, n)),
        1 => (0u8..4).prop_map(Event::Remove),
        1 => (0u16..6).prop_map(Event::Sweep),
    ]
}

/// Recounts what the map keeps as it goes.
fn recount(map: &Replicas, truths: &BTreeMap<u8, BlockTruth>) -> Totals {
    let mut totals = Totals { blocks: truths.len() as u64, ..Default::default() };
    for (&block, truth) in truths.iter().filter(|(_, truth)| truth.complete) {
        let id = BlockId(ID.0 + u64::from(block));
        let holders = map.holders(id);
        let good = holders.iter().filter(|&&n| !map.odd.contains_key(&(id.0, n))).count();
        totals.complete += 1;
        totals.safe += u64::from(good >= 2);
        totals.missing += u64::from(good == 0);
        totals.under_replicated += u64::from(good > 0 && good < truth.replication as usize);
        totals.corrupt += u64::from(holders.iter().any(|&n| map.is_corrupt(id, n)));
    }
    totals
}

proptest! {
    #[test]
    fn totals_equal_a_recount_after_any_history(events in prop::collection::vec(event(), 0..80)) {
        let mut map = Replicas::new(2);
        let mut truths: BTreeMap<u8, BlockTruth> = BTreeMap::new();
        let id = |block: u8| BlockId(ID.0 + u64::from(block));
        for event in events {
            match event {
                Event::Report(block, node, stamp, length, state) => {
                    let reported = Reported { id: id(block), ..replica(stamp, length, state) };
                    map.report(NodeIndex(node), &reported, truths.get(&block));
                }
                Event::Sync(block, stamp, done, replication) => {
                    let truth = BlockTruth { complete: done, replication, ..complete(stamp, 10) };
                    map.sync(id(block), &truth);
                    truths.insert(block, truth);
                }
                Event::Mark(block, node) => {
                    map.mark_corrupt(NodeIndex(node), id(block), GenerationStamp(2));
                }
                Event::Remove(block) => {
                    truths.remove(&block);
                    map.remove(id(block));
                }
                Event::Sweep(node) => {
                    while map.sweep(NodeIndex(node), 0, 1, 2).1.is_some() {}
                }
            }
            prop_assert_eq!(map.totals(), recount(&map, &truths));
            for node in 0..6 {
                let held = (0..4).filter(|&b| map.holders(id(b)).contains(&node)).count();
                prop_assert_eq!(map.held_by(NodeIndex(node)), held as u64);
            }
            for &(block, node) in map.odd.keys() {
                prop_assert!(map.holders(BlockId(block)).contains(&node));
            }
        }
    }
}
