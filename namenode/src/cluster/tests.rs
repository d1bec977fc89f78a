//! Whole histories of DataNodes and blocks through [`Cluster`].

mod repairing;
mod returns;

use std::cell::RefCell;

use proto::granary::{DatanodeAddress, DatanodeCommands, ReplicaState, VolumeStatus};
use proto::{Code, GenerationStamp, InodeId};

use super::replicas::Reported;
use super::*;

const ROOM: u64 = 1 << 30;

/// A cluster beside a namespace that is a table.
struct World {
    cluster: Cluster,
    blocks: RefCell<BTreeMap<u64, BlockTruth>>,
}

fn settings() -> Settings {
    Settings {
        suspect_after_ms: 5_000,
        dead_after_ms: 30_000,
        replication_min: 1,
        safemode_threshold: 0.999,
        safemode_extension_ms: 0,
        lease_soft_limit_ms: 60_000,
        lease_hard_limit_ms: 1_200_000,
        recovery_timeout_ms: 30_000,
        repair: repair::Settings {
            grace_ms: 10_000,
            limits: repair::streams::StreamLimits {
                per_node: 2,
                total: 100,
                node_bytes_per_s: 0,
                total_bytes_per_s: 0,
            },
            maintenance_replicas_min: 1,
        },
        replication: 3,
        first_epoch: 0,
        topology: Default::default(),
        seed: 1,
    }
}

impl World {
    fn new(blocks: &[(u64, BlockTruth)]) -> Self {
        let mut cluster = Cluster::new(&settings());
        for (id, truth) in blocks {
            cluster.block_changed(BlockId(*id), Some(truth));
        }
        Self { cluster, blocks: RefCell::new(blocks.iter().copied().collect()) }
    }

    fn with<R>(&mut self, f: impl FnOnce(&mut Cluster, Truth<'_>) -> R) -> R {
        let blocks = &self.blocks;
        f(&mut self.cluster, &|id| blocks.borrow().get(&id.0).copied())
    }

    fn set(&mut self, id: u64, truth: Option<BlockTruth>) {
        match truth {
            Some(truth) => self.blocks.borrow_mut().insert(id, truth),
            None => self.blocks.borrow_mut().remove(&id),
        };
        self.cluster.block_changed(BlockId(id), truth.as_ref());
    }

    fn attach(&mut self, now_ms: u64, number: u32) -> Registration {
        self.attach_at(now_ms, number, 9866)
    }

    fn attach_at(&mut self, now_ms: u64, number: u32, data_port: u32) -> Registration {
        let address = DatanodeAddress {
            uuid: format!("dn{number}"),
            host: format!("10.0.0.{number}"),
            data_port,
            ..Default::default()
        };
        let volume = VolumeStatus { remaining_bytes: 10 * ROOM, ..Default::default() };
        let message = DatanodeRegister {
            address: Some(address),
            volumes: vec![volume],
            ..Default::default()
        };
        self.cluster.register(now_ms, message).unwrap()
    }

    fn report(&mut self, at: &Registration, chunks: &[&[Reported]]) {
        for (number, chunk) in chunks.iter().enumerate() {
            let accepted =
                self.cluster.report_chunk(0, at.index, at.epoch, 1, number as u32).unwrap();
            assert!(accepted);
            let last = number + 1 == chunks.len();
            self.with(|c, truth| c.report_part(at.index, at.epoch, chunk, last, truth)).unwrap();
        }
    }

    fn report_again(&mut self, at: &Registration, all: &[Reported]) {
        assert!(self.cluster.report_chunk(0, at.index, at.epoch, 2, 0).unwrap());
        self.with(|c, truth| c.report_part(at.index, at.epoch, all, true, truth)).unwrap();
    }

    fn change(&mut self, at: &Registration, change: Reported) {
        self.with(|c, truth| c.changes(0, at.index, at.epoch, &[change], truth)).unwrap();
    }

    fn commands(&mut self, at: &Registration) -> DatanodeCommands {
        self.cluster.take_commands(at.index, at.epoch).unwrap().unwrap_or_default()
    }

    fn holders(&self, id: u64) -> Vec<NodeIndex> {
        self.cluster.replicas.all_holders(BlockId(id))
    }
}

fn done(replication: u32) -> BlockTruth {
    BlockTruth { stamp: GenerationStamp(1), length: 10, complete: true, replication, policy: 0 }
}

fn has(id: u64) -> Reported {
    Reported {
        id: BlockId(id),
        stamp: GenerationStamp(1),
        length: 10,
        state: ReplicaState::Finalized,
    }
}

fn deleted(id: u64) -> Reported {
    Reported { state: ReplicaState::Deleted, ..has(id) }
}

#[test]
fn safe_mode_ends_when_the_blocks_are_reported_and_holds_deletions_back_until_then() {
    let mut world = World::new(&[(5, done(1)), (6, done(1))]);
    let a = world.attach(0, 1);
    assert!(world.commands(&a).report_in_full);
    world.report(&a, &[&[has(5), has(99)]]);
    world.with(|c, truth| c.tick(0, truth));
    let error = world.cluster.check_may_change().unwrap_err();
    assert_eq!(error.code, Code::SafeMode);
    assert!(error.message.contains("1 of 2 blocks"), "{error}");
    assert_eq!(world.commands(&a), DatanodeCommands::default(), "blk_99 may yet turn out known");
    world.change(&a, has(6));
    world.cluster.take_effects();
    world.with(|c, truth| c.tick(1, truth));
    assert!(world.cluster.check_may_change().is_ok());
    let effects = world.cluster.take_effects();
    assert_eq!(effects, [Effect::LeftSafeMode, Effect::Wake(a.index)]);
    assert_eq!(world.commands(&a).invalidate[0].id, 99);
}

#[test]
fn a_full_report_drops_what_it_no_longer_lists_across_chunks() {
    let mut world = World::new(&[1, 2, 3, 4, 5, 9000].map(|id| (id, done(1))));
    let a = world.attach(0, 1);
    world.report(&a, &[&[has(1), has(2), has(3)], &[has(4), has(5), has(9000)]]);
    assert_eq!(world.cluster.replicas.held_by(a.index), 6);
    let a = world.attach(1, 1);
    assert_eq!(world.cluster.replicas.held_by(a.index), 6, "kept until the new report is in");
    world.report(&a, &[&[has(2)], &[has(4)], &[]]);
    let held: Vec<u64> =
        [1, 2, 3, 4, 5, 9000].into_iter().filter(|&id| world.holders(id) == [a.index]).collect();
    assert_eq!(held, [2, 4]);
    assert_eq!(world.cluster.replicas.totals().missing, 4);
}

#[test]
fn a_change_told_during_a_report_outweighs_the_older_list() {
    let mut world = World::new(&[1, 2, 3].map(|id| (id, done(1))));
    let a = world.attach(0, 1);
    world.report(&a, &[&[has(2)]]);
    assert!(world.cluster.report_chunk(0, a.index, a.epoch, 2, 0).unwrap());
    world.with(|c, truth| c.report_part(a.index, a.epoch, &[has(1)], false, truth)).unwrap();
    world.change(&a, deleted(2));
    world.change(&a, has(3));
    assert!(world.cluster.report_chunk(0, a.index, a.epoch, 2, 1).unwrap());
    world.with(|c, truth| c.report_part(a.index, a.epoch, &[has(2)], true, truth)).unwrap();
    assert_eq!((world.holders(2), world.holders(3)), (vec![], vec![a.index]));
}

#[test]
fn a_chunk_out_of_order_asks_for_a_new_report_and_loses_nothing() {
    let mut world = World::new(&[1, 2].map(|id| (id, done(1))));
    let a = world.attach(0, 1);
    world.report(&a, &[&[has(1), has(2)]]);
    world.commands(&a);
    assert!(world.cluster.report_chunk(0, a.index, a.epoch, 2, 0).unwrap());
    assert!(!world.cluster.report_chunk(0, a.index, a.epoch, 2, 2).unwrap());
    assert!(world.commands(&a).report_in_full);
    assert_eq!(world.cluster.replicas.held_by(a.index), 2);
    assert!(world.cluster.report_chunk(0, a.index, a.epoch, 3, 0).unwrap());
    world.with(|c, truth| c.report_part(a.index, a.epoch, &[has(2)], false, truth)).unwrap();
    let back = world.with(|c, truth| c.report_part(a.index, a.epoch, &[has(1)], true, truth));
    assert_eq!(back.unwrap_err().code, Code::InvalidArgument);
}

#[test]
fn a_dead_nodes_replicas_do_not_count_and_come_back_with_its_report() {
    let mut world = World::new(&[(1, done(1))]);
    let a = world.attach(0, 1);
    world.report(&a, &[&[has(1)]]);
    world.with(|c, truth| c.tick(30_000, truth));
    assert_eq!(world.cluster.replicas.totals().missing, 1);
    assert_eq!(world.cluster.locations(BlockId(1), &done(1), ""), (vec![], false));
    let late = world.cluster.take_commands(a.index, a.epoch).unwrap_err();
    assert_eq!(late.code, Code::Stale);
    let a = world.attach(40_000, 1);
    world.report(&a, &[&[has(1)]]);
    assert_eq!(world.cluster.replicas.totals().missing, 0);
}

#[test]
fn locations_are_live_before_suspect_and_the_readers_machine_first() {
    let mut world = World::new(&[(1, done(3))]);
    for number in 1..=3 {
        let at = world.attach(if number == 2 { 0 } else { 6_000 }, number);
        world.report(&at, &[&[has(1)]]);
    }
    world.with(|c, truth| c.tick(6_000, truth));
    for _ in 0..20 {
        let (nodes, _) = world.cluster.locations(BlockId(1), &done(3), "10.0.0.3");
        let hosts: Vec<_> = nodes.iter().map(|node| node.host.as_str()).collect();
        assert_eq!(hosts, ["10.0.0.3", "10.0.0.1", "10.0.0.2"]);
    }
}

#[test]
fn a_removed_block_is_deleted_on_its_holders_and_on_its_pipeline() {
    let mut world = World::new(&[(1, done(1))]);
    let a = world.attach(0, 1);
    let b = world.attach(0, 2);
    world.report(&a, &[&[has(1)]]);
    world.report(&b, &[&[]]);
    world.with(|c, truth| c.tick(0, truth));
    let open = BlockTruth { complete: false, ..done(1) };
    world.set(2, Some(open));
    world.cluster.start_pipeline(BlockId(2), &[b.index], ROOM);
    assert_eq!(world.cluster.datanodes.get(b.index).reserved_bytes, ROOM);
    world.set(1, None);
    world.set(2, None);
    assert_eq!(world.commands(&a).invalidate[0].id, 1);
    assert_eq!(world.commands(&b).invalidate[0].id, 2);
    assert_eq!(world.cluster.datanodes.get(b.index).reserved_bytes, 0);
}

#[test]
fn room_promised_to_a_block_is_given_back_as_its_replicas_are_finalized() {
    let mut world = World::new(&[]);
    let (a, b) = (world.attach(0, 1), world.attach(0, 2));
    world.set(1, Some(BlockTruth { complete: false, ..done(2) }));
    world.cluster.start_pipeline(BlockId(1), &[a.index, b.index], ROOM);
    world.change(&a, Reported { state: ReplicaState::BeingWritten, ..has(1) });
    let reserved =
        |world: &World, at: &Registration| world.cluster.datanodes.get(at.index).reserved_bytes;
    assert_eq!((reserved(&world, &a), reserved(&world, &b)), (ROOM, ROOM));
    world.change(&a, has(1));
    assert_eq!((reserved(&world, &a), reserved(&world, &b)), (0, ROOM));
    world.set(1, Some(done(2)));
    assert_eq!(reserved(&world, &b), 0);
}

#[test]
fn an_under_replicated_block_is_copied_after_the_grace_time() {
    let mut world = World::new(&[(1, done(2))]);
    let a = world.attach(0, 1);
    let b = world.attach(0, 2);
    world.report(&a, &[&[has(1)]]);
    world.report(&b, &[&[]]);
    world.with(|c, truth| c.tick(0, truth));
    world.commands(&a);
    world.with(|c, truth| c.tick(1_000, truth));
    assert!(world.commands(&a).transfer.is_empty(), "its replica may still come in");
    for at in [&a, &b] {
        let beat = DatanodeHeartbeat {
            volumes: world.cluster.datanodes.get(at.index).volumes.clone(),
            active_transfers: 0,
        };
        world.cluster.heartbeat(12_000, at.index, at.epoch, beat).unwrap();
    }
    world.with(|c, truth| c.tick(12_000, truth));
    let transfer = world.commands(&a).transfer;
    assert_eq!(transfer[0].targets[0].uuid, "dn2");
    world.with(|c, truth| c.tick(12_001, truth));
    assert!(world.commands(&a).transfer.is_empty(), "one copy at a time");
    world.change(&b, has(1));
    world.with(|c, truth| c.tick(12_002, truth));
    let progress = world.cluster.repair_progress(12_002);
    assert_eq!((progress.copies, progress.waiting(), progress.done_blocks), (0, 0, 1));
    assert_eq!(world.cluster.datanodes.get(b.index).reserved_bytes, 0);
    assert_eq!(world.cluster.replicas.totals().under_replicated, 0);
}

#[test]
fn a_corrupt_replica_goes_only_after_enough_good_ones_exist() {
    let mut world = World::new(&[(1, done(2))]);
    let nodes: Vec<_> = (1..=3).map(|number| world.attach(0, number)).collect();
    for at in &nodes[..2] {
        world.report(at, &[&[has(1)]]);
    }
    world.with(|c, truth| c.tick(0, truth));
    world.commands(&nodes[0]);
    world.cluster.bad_replica(nodes[0].index, BlockId(1), GenerationStamp(1), Some(&done(2)));
    assert!(world.commands(&nodes[0]).invalidate.is_empty());
    let (locations, corrupt) = world.cluster.locations(BlockId(1), &done(2), "");
    assert_eq!((locations.len(), locations[0].uuid.as_str(), corrupt), (1, "dn2", false));
    world.change(&nodes[2], has(1));
    assert_eq!(world.commands(&nodes[0]).invalidate[0].id, 1);
    assert_eq!(world.cluster.replicas.totals().corrupt, 0);
}

#[test]
fn replicas_beyond_the_wish_are_deleted() {
    let mut world = World::new(&[(1, done(3))]);
    let nodes: Vec<_> = (1..=3).map(|number| world.attach(0, number)).collect();
    for at in &nodes {
        world.report(at, &[&[has(1)]]);
        world.commands(at);
    }
    world.with(|c, truth| c.tick(0, truth));
    world.blocks.borrow_mut().insert(1, done(1));
    world.cluster.replication_changed(BlockId(1), 1);
    assert_eq!(world.holders(1).len(), 3);
    world.with(|c, truth| c.tick(0, truth));
    let deleted: usize = nodes.iter().map(|at| world.commands(at).invalidate.len()).sum();
    assert_eq!((deleted, world.holders(1).len()), (2, 1));
}

#[test]
fn a_recovery_goes_to_a_live_holder_with_all_replicas_named() {
    let mut world = World::new(&[]);
    let nodes: Vec<_> = (1..=3).map(|number| world.attach(0, number)).collect();
    let open = BlockTruth { complete: false, ..done(3) };
    world.set(1, Some(open));
    let pipeline: Vec<_> = nodes.iter().map(|at| at.index).collect();
    assert!(!world.cluster.has_any_replica(BlockId(1)));
    world.cluster.start_pipeline(BlockId(1), &pipeline, ROOM);
    assert!(world.cluster.has_any_replica(BlockId(1)));
    let stamp = GenerationStamp(7);
    assert!(world.cluster.begin_recovery(0, (BlockId(1), InodeId(5)), &open, stamp, None));
    let told: Vec<_> = nodes.iter().flat_map(|at| world.commands(at).recover).collect();
    assert_eq!((told.len(), told[0].replicas.len(), told[0].new_generation_stamp), (1, 3, 7));
    assert_eq!(world.cluster.recoveries.stamp(BlockId(1)), Some(stamp));
    world.set(1, Some(done(3)));
    assert_eq!(world.cluster.recoveries.stamp(BlockId(1)), None);
}

proptest::proptest! {
    #[test]
    fn after_a_full_report_a_node_holds_what_it_listed_and_a_file_has(
        blocks in proptest::collection::btree_set(1u64..60, 0..40),
        before in proptest::collection::btree_set(1u64..60, 0..40),
        listed in proptest::collection::btree_set(1u64..60, 0..40),
        late in proptest::collection::vec((1u64..60, proptest::bool::ANY), 0..6),
        chunk in 1usize..7,
    ) {
        // Ids far apart, so that they lie on several pages.
        let id = |number: u64| number * 700;
        let truths: Vec<_> = blocks.iter().map(|&number| (id(number), done(1))).collect();
        let mut world = World::new(&truths);
        let other = world.attach(0, 2);
        let all: Vec<_> = blocks.iter().map(|&number| has(id(number))).collect();
        world.report(&other, &[&all]);
        let at = world.attach(0, 1);
        for &number in &before {
            world.change(&at, has(id(number)));
        }
        let list: Vec<_> = listed.iter().map(|&number| has(id(number))).collect();
        let mut expected = listed.clone();
        let chunks: Vec<&[Reported]> = list.chunks(chunk).chain([&[][..]]).collect();
        for (index, part) in chunks.iter().enumerate() {
            world.cluster.report_chunk(0, at.index, at.epoch, 9, index as u32).unwrap();
            if index == chunks.len() / 2 {
                for &(number, there) in &late {
                    world.change(&at, if there { has(id(number)) } else { deleted(id(number)) });
                    if there { expected.insert(number) } else { expected.remove(&number) };
                }
            }
            let last = index + 1 == chunks.len();
            world.with(|c, truth| c.report_part(at.index, at.epoch, part, last, truth)).unwrap();
        }
        for number in 1..60 {
            let holds = world.holders(id(number)).contains(&at.index);
            proptest::prop_assert_eq!(
                holds,
                expected.contains(&number) && blocks.contains(&number),
                "block {}", number
            );
        }
        let others = world.cluster.replicas.held_by(other.index);
        proptest::prop_assert_eq!(others, blocks.len() as u64);
    }
}

#[test]
fn replicas_that_a_pipeline_left_behind_make_room_for_copies() {
    let settled = BlockTruth { stamp: GenerationStamp(2), ..done(3) };
    for state in [ReplicaState::BeingWritten, ReplicaState::WaitingRecovery] {
        let mut world = World::new(&[(1, settled)]);
        let nodes: Vec<_> = (1..=4).map(|number| world.attach(0, number)).collect();
        let good = Reported { stamp: GenerationStamp(2), ..has(1) };
        let behind = Reported { state, ..has(1) };
        for (at, replica) in nodes.iter().zip([good, good, behind, behind]) {
            world.report(at, &[&[replica]]);
        }
        world.with(|c, truth| c.tick(0, truth));
        let deleted = world.commands(&nodes[2]).invalidate;
        assert_eq!(deleted.len(), 1, "{state:?}: every node holds it, so that no copy has a place");
    }
}

#[test]
fn what_was_being_written_under_an_older_stamp_is_bad_once_the_block_is_settled() {
    let open = BlockTruth { complete: false, ..done(2) };
    let mut world = World::new(&[(1, open)]);
    let nodes: Vec<_> = (1..=3).map(|number| world.attach(0, number)).collect();
    let writing = Reported { state: ReplicaState::BeingWritten, ..has(1) };
    for at in &nodes {
        world.report(at, &[&[writing]]);
    }
    world.set(1, Some(BlockTruth { stamp: GenerationStamp(2), ..done(2) }));
    let good = Reported { stamp: GenerationStamp(2), ..has(1) };
    world.change(&nodes[0], good);
    world.change(&nodes[1], good);
    world.with(|c, truth| c.tick(0, truth));
    assert_eq!(world.commands(&nodes[2]).invalidate.len(), 1);
}
