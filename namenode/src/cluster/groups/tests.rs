//! Groups on nodes that come and go: where units are placed, what is counted, and what is computed anew.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proto::granary::{
    DatanodeAddress, DatanodeCommands, DatanodeRegister, ReplicaState, VolumeStatus,
};

use super::super::datanodes::Registration;
use super::super::repair::streams::StreamLimits;
use super::super::replicas::{Replicas, Reported, Totals};
use super::super::topology::Topology;
use super::super::{Settings, repair};
use super::*;

pub(super) const GROUP: BlockId = BlockId::FIRST_GROUP;
const ROOM: u64 = 1 << 30;
pub(super) const CELL: u64 = 1 << 20;

pub(super) fn policy() -> Policy {
    Policy::by_name("RS-3-2-1024k").unwrap()
}

fn group(length: u64, complete: bool) -> BlockTruth {
    let (stamp, policy) = (GenerationStamp(5), policy().id);
    BlockTruth { stamp, length, complete, replication: 1, policy }
}

pub(super) fn unit(number: u8, truth: &BlockTruth) -> Reported {
    Reported {
        id: GROUP.of_unit(number),
        stamp: truth.stamp,
        length: policy().unit_bytes(truth.length, number),
        state: ReplicaState::Finalized,
    }
}

/// A cluster beside a namespace of one group.
pub(super) struct World {
    pub cluster: Cluster,
    pub truth: Option<BlockTruth>,
    pub nodes: Vec<Registration>,
    pub now_ms: u64,
}

impl World {
    pub fn new(nodes: u32) -> Self {
        Self::in_racks(&vec![0; nodes as usize])
    }

    /// A node for each entry: the rack that it stands in.
    fn in_racks(racks: &[u8]) -> Self {
        let list = racks.iter().enumerate().map(|(at, rack)| format!("dn{at}=/r{rack}"));
        let limits =
            StreamLimits { per_node: 2, total: 9, node_bytes_per_s: 0, total_bytes_per_s: 0 };
        let mut cluster = Cluster::new(&Settings {
            suspect_after_ms: 5_000,
            dead_after_ms: 10_000,
            replication_min: 1,
            safemode_threshold: 0.9,
            safemode_extension_ms: 0,
            lease_soft_limit_ms: 60_000,
            lease_hard_limit_ms: 60_000,
            recovery_timeout_ms: 30_000,
            repair: repair::Settings { grace_ms: 1_000, limits, maintenance_replicas_min: 1 },
            replication: 3,
            first_epoch: 0,
            topology: Topology::new(&list.collect::<Vec<_>>()),
            seed: 1,
        });
        let nodes = (0..racks.len()).map(|at| register(&mut cluster, 0, at)).collect();
        let mut world = Self { cluster, truth: None, nodes, now_ms: 0 };
        for at in 0..racks.len() {
            world.report_in_full(at, &[]);
        }
        world.tick(0);
        assert!(!world.cluster.safemode.is_on());
        world
    }

    fn with<R>(&mut self, f: impl FnOnce(&mut Cluster, super::super::Truth<'_>) -> R) -> R {
        let truth = self.truth;
        f(&mut self.cluster, &|id| {
            let truth = truth.filter(|_| id.is_striped() && id.group() == GROUP)?;
            if is_mark(id) { Some(truth) } else { unit_truth(&truth, id.unit()) }
        })
    }

    fn set(&mut self, truth: Option<BlockTruth>) {
        self.truth = truth;
        self.cluster.block_changed(GROUP, truth.as_ref());
    }

    pub fn report_in_full(&mut self, at: usize, units: &[Reported]) {
        let (node, epoch, now_ms) = (self.nodes[at].index, self.nodes[at].epoch, self.now_ms);
        assert!(self.cluster.report_chunk(now_ms, node, epoch, 1, 0).unwrap());
        self.with(|c, truth| c.report_part(node, epoch, units, true, truth)).unwrap();
    }

    pub fn change(&mut self, at: usize, change: Reported) {
        let (node, epoch, now_ms) = (self.nodes[at].index, self.nodes[at].epoch, self.now_ms);
        self.with(|c, truth| c.changes(now_ms, node, epoch, &[change], truth)).unwrap();
    }

    /// A complete group, unit u on node u.
    pub fn store(&mut self, length: u64) -> BlockTruth {
        let truth = group(length, true);
        self.set(Some(truth));
        for number in 0..policy().units() {
            if unit(number, &truth).length > 0 {
                self.change(number.into(), unit(number, &truth));
            }
        }
        truth
    }

    /// Time passes; all but the nodes `dead` are heard.
    fn pass(&mut self, ms: u64, dead: &[usize]) {
        let until = self.now_ms + ms;
        while self.now_ms < until {
            let now_ms = self.now_ms + 500;
            for at in (0..self.nodes.len()).filter(|at| !dead.contains(at)) {
                let (node, epoch) = (self.nodes[at].index, self.nodes[at].epoch);
                let beat = proto::granary::DatanodeHeartbeat {
                    volumes: vec![volume()],
                    ..Default::default()
                };
                self.cluster.heartbeat(now_ms, node, epoch, beat).unwrap();
            }
            self.tick(now_ms);
        }
    }

    pub fn tick(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.with(|c, truth| c.tick(now_ms, truth));
    }

    pub fn commands(&mut self, at: usize) -> DatanodeCommands {
        let (node, epoch) = (self.nodes[at].index, self.nodes[at].epoch);
        self.cluster.take_commands(node, epoch).unwrap().unwrap_or_default()
    }

    /// A command to compute units that waits, the newest, and for which node.
    fn reconstruction(
        &mut self,
        dead: &[usize],
    ) -> Option<(usize, proto::granary::ReconstructUnits)> {
        let mut found = Vec::new();
        for at in (0..self.nodes.len()).filter(|at| !dead.contains(at)) {
            found.extend(self.commands(at).reconstruct.into_iter().map(|command| (at, command)));
        }
        found.pop()
    }

    pub fn state(&self) -> GroupState {
        self.cluster.replicas.group_state(GROUP).unwrap()
    }
}

pub(super) fn volume() -> VolumeStatus {
    VolumeStatus { remaining_bytes: 10 * ROOM, ..Default::default() }
}

pub(super) fn register(cluster: &mut Cluster, now_ms: u64, at: usize) -> Registration {
    let address = DatanodeAddress {
        uuid: format!("dn{at}"),
        host: format!("10.0.0.{at}"),
        data_port: 9866,
        ..Default::default()
    };
    let volumes = vec![volume()];
    let message = DatanodeRegister { address: Some(address), volumes, ..Default::default() };
    cluster.register(now_ms, message).unwrap()
}

pub(super) fn number(address: Option<&DatanodeAddress>) -> usize {
    address.unwrap().uuid[2..].parse().unwrap()
}

#[test]
fn units_of_dead_nodes_are_computed_once_by_a_node_that_shall_hold_one() {
    let mut world = World::new(8);
    let truth = world.store(3 * CELL + 7);
    assert_eq!(world.state(), GroupState { good: 5, needed: 3, wanted: 5 });
    let dead = [1, 4];
    world.pass(12_000, &dead);
    assert_eq!(world.state().good, 3);
    assert_eq!(world.cluster.replicas.totals().under_replicated, 1);
    let (leader, command) = world.reconstruction(&dead).expect("a command");
    assert_eq!(command.group.unwrap().length, truth.length);
    let sources: BTreeSet<(u32, usize)> =
        command.sources.iter().map(|at| (at.unit, number(at.datanode.as_ref()))).collect();
    assert_eq!(sources, BTreeSet::from([(0, 0), (2, 2), (3, 3)]));
    let units: BTreeSet<u32> = command.targets.iter().map(|at| at.unit).collect();
    assert_eq!(units, BTreeSet::from([1, 4]));
    let targets: BTreeSet<usize> =
        command.targets.iter().map(|at| number(at.datanode.as_ref())).collect();
    assert!(targets.len() == 2 && targets.iter().all(|at| (5..8).contains(at)), "{targets:?}");
    assert!(targets.contains(&leader));
    for target in &command.targets {
        world.change(number(target.datanode.as_ref()), unit(target.unit as u8, &truth));
    }
    world.pass(60_000, &dead);
    assert_eq!(world.state().good, 5);
    assert_eq!(world.reconstruction(&dead), None, "all is there");
    let now_ms = world.now_ms;
    let progress = world.cluster.repair_progress(now_ms);
    assert_eq!((progress.done_blocks, progress.copies, progress.waiting_bytes), (1, 0, 0));
}

#[test]
fn a_computation_that_does_not_come_back_is_begun_again() {
    let mut world = World::new(6);
    world.store(CELL);
    world.pass(12_000, &[0]);
    assert!(world.reconstruction(&[0]).is_some());
    world.pass(5_000, &[0]);
    assert_eq!(world.reconstruction(&[0]), None, "it is under way");
    world.pass(60_000, &[0]);
    assert!(world.reconstruction(&[0]).is_some(), "its deadline is over");
}

#[test]
fn a_group_with_fewer_good_units_than_are_needed_is_missing_and_waits_for_its_nodes() {
    let mut world = World::new(8);
    world.store(3 * CELL);
    world.pass(12_000, &[0, 1, 2]);
    assert_eq!(world.cluster.replicas.totals().missing, 1);
    assert_eq!(world.reconstruction(&[0, 1, 2]), None);
    let truth = world.truth.unwrap();
    let (locations, units, corrupt) = world.cluster.group_locations(GROUP, &truth);
    assert_eq!((locations.len(), &units[..], corrupt), (2, &[3, 4][..], true));
}

#[test]
fn units_that_a_writer_lost_are_computed_after_the_grace_time() {
    let mut world = World::new(6);
    world.set(Some(group(0, false)));
    let mut nodes: Vec<Option<NodeIndex>> = world.nodes.iter().map(|n| Some(n.index)).collect();
    nodes.truncate(5);
    world.cluster.start_group(GROUP, &nodes, ROOM / 8);
    nodes[2] = None;
    world.cluster.move_group(GROUP, &nodes);
    let truth = group(3 * CELL, true);
    for number in [0, 1, 3, 4] {
        world.change(number.into(), unit(number, &truth));
    }
    world.set(Some(truth));
    assert_eq!(world.reconstruction(&[]), None);
    world.pass(3_000, &[]);
    let (_, command) = world.reconstruction(&[]).expect("a command");
    assert_eq!(command.targets.iter().map(|at| at.unit).collect::<Vec<_>>(), [2]);
    assert!(world.nodes.iter().all(|n| world.cluster.datanodes.get(n.index).scheduled_blocks < 2));
}

#[test]
fn a_damaged_unit_gives_way_where_every_node_holds_one() {
    let mut world = World::new(5);
    let truth = world.store(3 * CELL);
    world.change(2, Reported { state: ReplicaState::Corrupt, ..unit(2, &truth) });
    assert_eq!(world.state().good, 4);
    world.pass(1_000, &[]);
    let mut gone = Vec::new();
    for at in 0..5 {
        gone.extend(world.commands(at).invalidate.into_iter().map(|block| (at, block.id)));
    }
    assert_eq!(gone, [(2, GROUP.of_unit(2).0)]);
    world.change(2, Reported { state: ReplicaState::Deleted, ..unit(2, &truth) });
    world.pass(40_000, &[]);
    let (at, command) = world.reconstruction(&[]).expect("a command");
    assert_eq!((at, command.targets[0].unit), (2, 2));
}

#[test]
fn nobody_can_hold_what_stands_for_a_whole_group() {
    let mut world = World::new(5);
    let truth = world.store(3 * CELL);
    let mark = BlockId(GROUP.0 | 15);
    world.change(0, Reported { id: mark, ..unit(0, &truth) });
    assert_eq!(world.commands(0).invalidate[0].id, mark.0);
    assert_eq!(world.state().good, 5);
    world.set(None);
    assert_eq!(world.cluster.replicas.totals(), Totals::default());
    assert_eq!(world.commands(3).invalidate[0].id, GROUP.of_unit(3).0);
}

proptest! {
    #[test]
    fn units_stand_on_different_nodes_as_evenly_over_racks_as_can_be(
        racks in prop::collection::vec(0u8..5, 5..14),
    ) {
        let mut world = World::in_racks(&racks);
        let chosen = world.cluster.place_units(&Wanted {
            replicas: 5,
            replicas_min: 3,
            block_bytes: CELL,
            writer_host: "",
            favoured: &[],
            existing: &[],
            excluded: &[],
        }).unwrap();
        prop_assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), 5);
        let mut counts = BTreeMap::new();
        for node in &chosen {
            *counts.entry(racks[usize::from(node.0)]).or_insert(0usize) += 1;
        }
        let nodes_in = |rack| racks.iter().filter(|other| **other == rack).count();
        for rack in racks.iter().copied() {
            let here = counts.get(&rack).copied().unwrap_or(0);
            let most = counts.values().copied().max().unwrap_or(0);
            prop_assert!(here + 1 >= most || here == nodes_in(rack), "{:?} of {:?}", counts, racks);
        }
    }

    #[test]
    fn totals_equal_a_recount_after_any_history(
        events in prop::collection::vec((0u8..6, 0u16..7, 0u8..7, 0u64..3), 0..60),
        length in 0u64..5 * CELL,
    ) {
        let mut map = Replicas::new(1);
        let open = group(0, false);
        map.sync_group(GROUP, policy(), &open);
        let mut truth = open;
        for (what, node, number, stamp) in events {
            let node = NodeIndex(node);
            match what {
                0..=2 => {
                    let states = [
                        ReplicaState::Finalized,
                        ReplicaState::BeingWritten,
                        ReplicaState::Corrupt,
                    ];
                    let told = Reported {
                        stamp: GenerationStamp(4 + stamp),
                        state: if what == 2 { states[stamp as usize] } else { states[0] },
                        ..unit(number, &truth)
                    };
                    let of_unit = unit_truth(&truth, number);
                    map.report(node, &told, of_unit.as_ref());
                }
                3 => {
                    map.mark_corrupt(node, GROUP.of_unit(number), GenerationStamp(5));
                }
                4 => map.drop_replica(node, GROUP.of_unit(number)),
                _ => {
                    truth = if stamp == 0 { open } else { group(length, true) };
                    map.sync_group(GROUP, policy(), &truth);
                }
            }
            let good = (0..5).filter(|&number| {
                let id = GROUP.of_unit(number);
                policy().unit_bytes(length, number) > 0 && !map.good_holders(id).is_empty()
            });
            let good = good.count();
            let needed = usize::from(policy().units_needed(length));
            let wanted = if needed == 0 { 0 } else { needed + 2 };
            let is = |flag: bool| u64::from(truth.complete && flag);
            let totals = map.totals();
            prop_assert_eq!((totals.blocks, totals.complete), (1, is(true)));
            prop_assert_eq!(totals.missing, is(good < needed));
            prop_assert_eq!(totals.safe, is(good >= needed));
            prop_assert_eq!(totals.under_replicated, is(good >= needed && good < wanted));
            prop_assert_eq!(map.group_totals(), totals);
        }
        map.remove_group(GROUP);
        prop_assert_eq!(map.totals(), Totals::default());
        prop_assert!((0..7).all(|node| map.held_by(NodeIndex(node)) == 0));
    }
}
