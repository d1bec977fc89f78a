//! The patrol: a slow walk around all blocks that finds what no event told of.
//!
//! It goes on a few pages with each tick and begins anew at the end. Blocks that look as if something were to be done
//! (too few or too many replicas, an odd one, too few racks, a replica on a node that is to go) are settled and
//! noticed. While nodes are to go it walks fast: only a whole *round* that found nothing of theirs to be copied shows
//! that they may.
//!
//! Beside it, the replicas of dead nodes are swept out, node by node, as fast as the tick allows.

use std::collections::{BTreeMap, BTreeSet};

use proto::BlockId;

use super::block::BlockTruth;
use super::datanodes::{Liveness, NodeIndex};
use super::repair::queue::Danger;
use super::{Cluster, Truth};

/// Pages (of 4096 blocks) that one tick looks through, and blocks that it looks at, at leisure and in a hurry.
const LEISURE: (usize, usize) = (64, 5_000);
const HURRY: (usize, usize) = (512, 50_000);
/// Replicas of dead nodes that one tick drops.
const SWEPT_PER_TICK: usize = 50_000;

/// What a round found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// When it began.
    pub began_ms: u64,
    /// Blocks in too few racks.
    pub misplaced: u64,
    /// Blocks that keep a node from going, by node: those that need copies and have a replica there.
    pub blocking: BTreeMap<NodeIndex, u64>,
}

/// Where the walk is.
#[derive(Debug, Default)]
pub struct Patrol {
    cursor: u64,
    round: Round,
    last: Round,
    rounds: u64,
}

impl Patrol {
    /// What the last whole round found.
    pub fn last_round(&self) -> &Round {
        &self.last
    }

    /// Blocks that keep a node from going, as far as is known: of the last round, or of this one if that is more.
    pub fn blocking(&self, node: NodeIndex) -> u64 {
        let of = |round: &Round| round.blocking.get(&node).copied().unwrap_or(0);
        of(&self.last).max(of(&self.round))
    }

    /// Begins the round anew: what was seen in it may no longer hold.
    pub(super) fn start_over(&mut self, now_ms: u64) {
        self.cursor = 0;
        self.round = Round { began_ms: now_ms, ..Round::default() };
    }
}

impl Cluster {
    /// Whether replicas of some dead or leaving node are still being searched for.
    pub(super) fn is_searching(&self) -> bool {
        !self.sweeps.is_empty() || self.datanodes.iter().any(|(_, node)| node.service.is_pending())
    }

    /// Goes on with the walk; at its end, nodes that nothing keeps are let go.
    pub(super) fn patrol(&mut self, now_ms: u64, truth: Truth<'_>) {
        let (pages, blocks) = if self.is_searching() { HURRY } else { LEISURE };
        if self.patrol.cursor == 0 {
            self.patrol.start_over(now_ms);
        }
        let notes = Notes::of(self);
        let look = |holders: &[u16]| notes.concern(holders);
        let (found, next) = self.replicas.walk(self.patrol.cursor, pages, blocks, look);
        for id in found {
            if let Some(truth) = truth(id) {
                self.look_at(id, &truth);
            }
        }
        self.patrol.cursor = next.unwrap_or(0);
        if next.is_none() {
            self.patrol.rounds += 1;
            let round = std::mem::take(&mut self.patrol.round);
            self.let_go(&round);
            self.patrol.last = round;
        }
    }

    /// Goes on with dropping what dead nodes held; what its blocks need now is noticed.
    pub(super) fn go_on_sweeping(&mut self, truth_of: Truth<'_>) {
        let mut left = SWEPT_PER_TICK;
        while let Some((&node, &cursor)) = self.sweeps.first_key_value() {
            let (dropped, next) = self.replicas.sweep(node, cursor, HURRY.0, left);
            left = left.saturating_sub(dropped.len());
            if !self.safemode.is_on() {
                for id in dropped {
                    if let Some(truth) = truth_of(id) {
                        self.notice(id, &truth, 0, false);
                        self.notice_group_of(id, 0, truth_of);
                    }
                }
            }
            match next {
                Some(next) => {
                    self.sweeps.insert(node, next);
                    return;
                }
                None => self.sweeps.remove(&node),
            };
        }
    }

    fn look_at(&mut self, id: BlockId, truth: &BlockTruth) {
        self.settle_block(id, truth);
        let need = self.assess(id, truth);
        self.patrol.round.misplaced +=
            u64::from(need.is_some_and(|need| need.danger == Danger::MISPLACED));
        if (need.is_some() && !self.is_past_help(id, truth)) || !truth.complete {
            for node in self.nodes_kept_by(id) {
                *self.patrol.round.blocking.entry(node).or_default() += 1;
            }
        }
        match need {
            // What its nodes are told to leave is in no danger: there is nothing to wait for.
            Some(need) if need.danger == Danger::LEAVING => {
                self.notice(id, truth, 0, false);
            }
            _ => self.notice_in_time(id, truth),
        }
    }

    /// Whether a block has the default number of replicas in service and more are wanted than there are nodes: what
    /// cannot be had keeps no node from going.
    fn is_past_help(&self, id: BlockId, truth: &BlockTruth) -> bool {
        let serving = self.stand(id).in_service.len();
        let takers = self.datanodes.iter().filter(|(_, node)| node.takes_writes()).count();
        truth.replication as usize > takers && serving >= self.replication && serving >= takers
    }

    /// Nodes that are to go and hold a block or are to hold it.
    fn nodes_kept_by(&self, id: BlockId) -> Vec<NodeIndex> {
        let mut nodes = self.replicas.all_holders(id);
        nodes.extend(self.replicas.pipeline(id));
        nodes.retain(|&node| self.datanodes.get(node).service.is_pending());
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }
}

/// What the walk must know of nodes, at hand by number.
struct Notes {
    nodes: Vec<(bool, usize)>,
    racks: usize,
}

impl Notes {
    fn of(cluster: &Cluster) -> Self {
        let nodes = &cluster.datanodes;
        let racks: BTreeSet<&str> = nodes.iter().map(|(_, node)| &node.address.rack[..]).collect();
        let racks: BTreeMap<&str, usize> =
            racks.into_iter().enumerate().map(|(number, rack)| (rack, number)).collect();
        let note = |(_, node): (_, &super::datanodes::Datanode)| {
            let watched = node.service.takes_no_writes()
                || (node.liveness == Liveness::Dead && node.service.is_maintenance());
            (watched, racks[&node.address.rack[..]])
        };
        Self { nodes: nodes.iter().map(note).collect(), racks: nodes.racks() }
    }

    /// Whether holders are worth a look: one is to go, or all of several stand in one rack and there are more.
    fn concern(&self, holders: &[u16]) -> bool {
        let of = |&node: &u16| self.nodes[usize::from(node)];
        let one_rack = || {
            let mut racks = holders.iter().map(|node| of(node).1);
            let first = racks.next();
            holders.len() > 1 && racks.all(|rack| Some(rack) == first)
        };
        holders.iter().any(|node| of(node).0) || (self.racks > 1 && one_rack())
    }
}
