//! What a block no longer needs goes: bad replicas when there are enough good ones, good ones beyond the wish, and all of
//! a block that no file has any more.
//!
//! Always holds: a good replica is deleted only while more good ones than the file asks for stand on nodes that live.

use std::collections::BTreeSet;

use proto::{BlockId, GenerationStamp};

use super::datanodes::{Liveness, NodeIndex};
use super::replicas::BlockTruth;
use super::{Cluster, Effect};

impl Cluster {
    /// The namespace made, changed or (`None`) dropped a block or a block group.
    pub fn block_changed(&mut self, id: BlockId, truth: Option<&BlockTruth>) {
        if id.is_striped() {
            self.group_changed(id, truth);
            return;
        }
        match truth {
            Some(truth) => {
                self.replicas.sync(id, truth);
                if truth.complete {
                    self.release(id);
                    self.recoveries.end(id);
                    self.settle_block(id, truth);
                }
            }
            None => self.block_removed(id),
        }
    }

    /// Other replicas are wanted of a block; what is too many goes with the next tick.
    pub fn replication_changed(&mut self, id: BlockId, replication: u32) {
        self.replicas.set_expected(id, replication);
        self.look_again.insert(id);
    }

    /// Someone found a node's replica damaged. Ignored if the node holds no such replica.
    pub fn bad_replica(
        &mut self,
        node: NodeIndex,
        id: BlockId,
        stamp: GenerationStamp,
        truth: Option<&BlockTruth>,
    ) {
        let Some(truth) = truth.filter(|truth| stamp == truth.stamp) else { return };
        self.replicas.sync(id, truth);
        if self.replicas.mark_corrupt(node, id, stamp) {
            self.settle_block(id, truth);
        }
    }

    /// Deletes what a complete block no longer needs: bad replicas when there are enough good ones, and good ones
    /// beyond what its file asks for, from the fullest nodes.
    pub(super) fn settle_block(&mut self, id: BlockId, truth: &BlockTruth) {
        if !truth.complete || !self.replicas.has_surplus(id) {
            return;
        }
        for (node, stamp) in self.replicas.surplus_bad(id, self.datanodes.living()) {
            self.delete_replica(node, id, stamp);
        }
        let (good, expected) = self.replicas.good_and_expected(id);
        if good <= expected || self.safemode.is_on() {
            return;
        }
        let mut nodes = self.replicas.locations(id, truth).nodes;
        let all_live =
            nodes.iter().all(|&node| self.datanodes.get(node).liveness == Liveness::Alive);
        if !all_live {
            return;
        }
        for _ in expected..good {
            let node = self.surplus_one(&mut nodes);
            self.delete_replica(node, id, truth.stamp);
        }
    }

    /// Takes out the replica that can be spared best: from a rack that has another, on the node with the least room.
    fn surplus_one(&self, nodes: &mut Vec<NodeIndex>) -> NodeIndex {
        let rack = |node: NodeIndex| self.datanodes.rack(node);
        let lonely =
            |&&node: &&NodeIndex| nodes.iter().filter(|n| rack(**n) == rack(node)).count() < 2;
        let racks: BTreeSet<&str> = nodes.iter().map(|&node| rack(node)).collect();
        // With two racks the only replica of one keeps the block alive when the other is lost.
        let spared: Vec<NodeIndex> =
            if racks.len() == 2 { nodes.iter().filter(lonely).copied().collect() } else { vec![] };
        let key = |node: &NodeIndex| (self.datanodes.get(*node).remaining_bytes(), *node);
        let free = nodes.iter().filter(|node| !spared.contains(node));
        let chosen = free.copied().min_by_key(key);
        let chosen = chosen.or_else(|| nodes.iter().copied().min_by_key(key));
        let chosen = chosen.expect("there are more replicas than wanted");
        nodes.retain(|node| *node != chosen);
        chosen
    }

    fn delete_replica(&mut self, node: NodeIndex, id: BlockId, stamp: GenerationStamp) {
        self.replicas.drop_replica(node, id);
        self.invalidations.push(node, id, stamp);
        self.wake(node);
    }

    fn block_removed(&mut self, id: BlockId) {
        self.release(id);
        self.recoveries.end(id);
        for node in self.replicas.remove(id) {
            if self.datanodes.get(node).liveness != Liveness::Dead {
                self.invalidations.push(node, id, GenerationStamp(u64::MAX));
                self.wake(node);
            }
        }
        self.effects.push(Effect::Finalized(id));
    }
}
