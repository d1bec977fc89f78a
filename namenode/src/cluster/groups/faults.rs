//! A group on disks that are lost, damaged and brought back, at random: no unit that is needed is ever deleted, and when
//! the faults end every unit is where it should be, once.
//!
//! Faults are held to what can be survived: the group stays readable from the disks of nodes that live. A failing case is
//! printed as its list of faults, made as short as can be.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proto::granary::{DatanodeHeartbeat, ReplicaState};

use super::super::replicas::Reported;
use super::tests::{CELL, World, number, policy, register, unit, volume};
use super::*;

const NODES: usize = 8;
const STEP_MS: u64 = 1_000;

#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill(usize),
    Start(usize),
    Wipe(usize),
    Damage(usize),
    LoseCommands(usize),
    Nothing,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => (0..NODES).prop_map(Fault::Kill),
        3 => (0..NODES).prop_map(Fault::Start),
        2 => (0..NODES).prop_map(Fault::Wipe),
        2 => (0..NODES).prop_map(Fault::Damage),
        1 => (0..NODES).prop_map(Fault::LoseCommands),
        6 => Just(Fault::Nothing),
    ]
}

/// The world outside of the core: disks by node, with the units on each and whether they are whole.
struct Disks {
    world: World,
    truth: BlockTruth,
    units: Vec<BTreeMap<u8, bool>>,
    alive: [bool; NODES],
}

impl Disks {
    fn new(length: u64) -> Self {
        let mut world = World::new(NODES as u32);
        let truth = world.store(length);
        let mut units = vec![BTreeMap::new(); NODES];
        for at in (0..policy().units()).filter(|&at| unit(at, &truth).length > 0) {
            units[usize::from(at)].insert(at, true);
        }
        Self { world, truth, units, alive: [true; NODES] }
    }

    /// Different whole units on nodes that live, but for one node.
    fn readable_without(&self, but: Option<usize>) -> usize {
        let there = (0..NODES).filter(|&at| self.alive[at] && Some(at) != but);
        let whole = there.flat_map(|at| self.units[at].iter().filter(|(_, whole)| **whole));
        whole.map(|(unit, _)| *unit).collect::<BTreeSet<u8>>().len()
    }

    fn needed(&self) -> usize {
        policy().units_needed(self.truth.length).into()
    }

    fn do_fault(&mut self, fault: Fault) {
        let survived = |at| self.readable_without(Some(at)) >= self.needed();
        match fault {
            Fault::Kill(at) if self.alive[at] && survived(at) => self.kill(at),
            Fault::Start(at) if !self.alive[at] => self.start(at),
            Fault::Wipe(at) if self.alive[at] && survived(at) => {
                self.kill(at);
                self.units[at].clear();
            }
            Fault::Damage(at) if self.alive[at] && survived(at) => {
                if let Some((&number, whole)) = self.units[at].iter_mut().next() {
                    *whole = false;
                    self.tell(at, number, ReplicaState::Corrupt);
                }
            }
            Fault::LoseCommands(at) if self.alive[at] => {
                self.world.commands(at);
            }
            _ => {}
        }
    }

    fn kill(&mut self, at: usize) {
        self.alive[at] = false;
        let (node, epoch) = (self.world.nodes[at].index, self.world.nodes[at].epoch);
        self.world.cluster.detach(node, epoch);
    }

    fn start(&mut self, at: usize) {
        self.alive[at] = true;
        self.world.nodes[at] = register(&mut self.world.cluster, self.world.now_ms, at);
        let told: Vec<Reported> =
            self.units[at].keys().map(|&number| unit(number, &self.truth)).collect();
        self.world.report_in_full(at, &told);
        // What is damaged is found again by who reads it.
        let damaged = self.units[at].iter().filter(|(_, whole)| !**whole);
        for number in damaged.map(|(&number, _)| number).collect::<Vec<_>>() {
            self.tell(at, number, ReplicaState::Corrupt);
        }
    }

    fn tell(&mut self, at: usize, number: u8, state: ReplicaState) {
        self.world.change(at, Reported { state, ..unit(number, &self.truth) });
    }

    fn step(&mut self) {
        let now_ms = self.world.now_ms + STEP_MS;
        for at in (0..NODES).filter(|&at| self.alive[at]) {
            let (node, epoch) = (self.world.nodes[at].index, self.world.nodes[at].epoch);
            let beat = DatanodeHeartbeat { volumes: vec![volume()], ..Default::default() };
            self.world.cluster.heartbeat(now_ms, node, epoch, beat).unwrap();
        }
        self.world.tick(now_ms);
    }

    /// Every node does what it is told, until there is nothing more to do.
    fn obey(&mut self) {
        let mut busy = true;
        while busy {
            busy = false;
            for at in (0..NODES).filter(|&at| self.alive[at]).collect::<Vec<_>>() {
                let commands = self.world.commands(at);
                busy |= !commands.invalidate.is_empty() || !commands.reconstruct.is_empty();
                for block in commands.invalidate {
                    self.delete(at, BlockId(block.id).unit());
                }
                for command in commands.reconstruct {
                    self.reconstruct(&command);
                }
            }
        }
    }

    fn delete(&mut self, at: usize, number: u8) {
        if self.units[at].remove(&number) == Some(true) {
            let elsewhere = (0..NODES)
                .any(|other| self.alive[other] && self.units[other].get(&number) == Some(&true));
            assert!(elsewhere, "unit {number} on node {at} was the only one");
        }
        self.tell(at, number, ReplicaState::Deleted);
    }

    fn reconstruct(&mut self, command: &proto::granary::ReconstructUnits) {
        let whole = |source: &&proto::granary::UnitLocation| {
            let at = number(source.datanode.as_ref());
            self.alive[at] && self.units[at].get(&(source.unit as u8)) == Some(&true)
        };
        if command.sources.iter().filter(whole).count() < self.needed() {
            return;
        }
        for target in &command.targets {
            let (at, made) = (number(target.datanode.as_ref()), target.unit as u8);
            if self.alive[at] {
                self.units[at].insert(made, true);
                self.tell(at, made, ReplicaState::Finalized);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_group_lives_through_any_faults_that_leave_it_readable_and_is_whole_again_after_them(
        faults in prop::collection::vec(fault(), 0..60),
        length in prop::sample::select(vec![9, CELL, CELL + 1, 3 * CELL, 4 * CELL + 5]),
    ) {
        let mut disks = Disks::new(length);
        for fault in faults {
            disks.do_fault(fault);
            disks.step();
            disks.obey();
            prop_assert!(disks.readable_without(None) >= disks.needed());
        }
        for at in 0..NODES {
            disks.do_fault(Fault::Start(at));
        }
        for _ in 0..400 {
            disks.step();
            disks.obey();
        }
        let state = disks.world.state();
        prop_assert_eq!((state.good, state.needed), (state.wanted, disks.needed() as u8));
        let held: Vec<u8> = disks.units.iter().flat_map(|units| units.keys().copied()).collect();
        prop_assert_eq!(held.len(), usize::from(state.wanted), "each unit once: {:?}", disks.units);
        prop_assert!(disks.units.iter().all(|units| units.len() < 2), "{:?}", disks.units);
        prop_assert!(disks.units.iter().all(|units| units.values().all(|whole| *whole)));
    }
}
