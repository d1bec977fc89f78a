//! What a block no longer needs goes: bad replicas when there are enough good ones, good ones beyond the wish, and all of
//! a block that no file has any more.
//!
//! Always holds: a good replica is deleted only while more good ones than the file asks for stand on nodes in service,
//! each of which has told itself, since it came, that it has its replica, and is to delete none of them.

use std::collections::BTreeSet;

use proto::{BlockId, GenerationStamp};

use super::datanodes::{Liveness, NodeIndex};
use super::repair::is_mark;
use super::repair::need::Stand;
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
            Some(truth) if truth.complete => {
                // With a whole pipeline, its replicas are on their way; if not, it is short from the start.
                let short = self.replicas.pipeline_len(id) < truth.replication as usize;
                self.replicas.sync(id, truth);
                self.release(id);
                self.recoveries.end(id);
                self.settle_block(id, truth);
                if short && self.replicas.is_lacking(id) && !self.safemode.is_on() {
                    self.notice_in_time(id, truth);
                }
            }
            Some(truth) => {
                self.forget_repair(id);
                self.replicas.sync(id, truth);
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
        let Some(truth) = truth.filter(|truth| stamp == truth.stamp && !is_mark(id)) else {
            return;
        };
        self.replicas.sync(id, truth);
        if self.replicas.mark_corrupt(node, id, stamp) {
            self.settle_block(id, truth);
            self.look_again.insert(id);
        }
    }

    /// Deletes what a complete block no longer needs: bad replicas when there are enough good ones, and good ones
    /// beyond what its file asks for, from the fullest nodes.
    pub(super) fn settle_block(&mut self, id: BlockId, truth: &BlockTruth) {
        if is_mark(id) {
            self.settle_group(id.group(), truth);
            return;
        }
        if !truth.complete || !self.replicas.has_surplus(id) {
            return;
        }
        let stand = self.stand(id);
        let expected = truth.replication as usize;
        self.settle_bad(id, &stand, expected);
        let mut nodes = stand.in_service;
        let is_sure = nodes.iter().all(|&node| self.datanodes.get(node).is_trusted());
        if nodes.len() <= expected || !is_sure || self.safemode.is_on() {
            return;
        }
        for _ in expected..nodes.len() {
            let node = self.surplus_one(id, &mut nodes);
            self.delete_replica(node, id, truth.stamp);
        }
    }

    /// Deletes the bad replicas of a block (damaged, stale) if its good ones are enough, or if every node that could
    /// take a copy holds a replica of it, so that only a deletion makes room.
    fn settle_bad(&mut self, id: BlockId, stand: &Stand, expected: usize) {
        let bad = self.replicas.bad(id);
        if bad.is_empty() {
            return;
        }
        let is_trusted = |node: &&NodeIndex| self.datanodes.get(**node).is_trusted();
        let serving = stand.in_service.iter().filter(is_trusted).count();
        let others = stand.leaving.iter().chain(&stand.maintained).filter(is_trusted).count();
        let is_safe = serving + others >= self.replicas.replication_min();
        if serving >= expected || (is_safe && !self.has_place(id)) {
            for (node, stamp) in bad {
                self.delete_replica(node, id, stamp);
            }
        }
    }

    /// Whether some node that takes writes holds no replica of the block.
    fn has_place(&self, id: BlockId) -> bool {
        let holders = self.replicas.all_holders(id);
        self.datanodes.iter().any(|(node, known)| known.takes_writes() && !holders.contains(&node))
    }

    /// Takes out the replica that can be spared best: one that is being moved away; of a unit, one beside another unit of
    /// its group; from a rack that has another, on the node with the least room.
    fn surplus_one(&self, id: BlockId, nodes: &mut Vec<NodeIndex>) -> NodeIndex {
        let siblings = self.group_siblings(id);
        let rack = |node: NodeIndex| self.datanodes.rack(node);
        let lonely =
            |&&node: &&NodeIndex| nodes.iter().filter(|n| rack(**n) == rack(node)).count() < 2;
        let racks: BTreeSet<&str> = nodes.iter().map(|&node| rack(node)).collect();
        // With two racks the only replica of one keeps the block alive when the other is lost.
        let spared: Vec<NodeIndex> =
            if racks.len() == 2 { nodes.iter().filter(lonely).copied().collect() } else { vec![] };
        let key = |node: &NodeIndex| {
            (!siblings.contains(node), self.datanodes.get(*node).remaining_bytes(), *node)
        };
        let free = nodes.iter().filter(|node| !spared.contains(node));
        let moved = self.repairs.moved_from(id).filter(|from| nodes.contains(from));
        let moved = moved.filter(|from| !spared.contains(from));
        let chosen = moved.or_else(|| free.copied().min_by_key(key));
        let chosen = chosen.or_else(|| nodes.iter().copied().min_by_key(key));
        let chosen = chosen.expect("there are more replicas than wanted");
        nodes.retain(|node| *node != chosen);
        chosen
    }

    pub(super) fn delete_replica(&mut self, node: NodeIndex, id: BlockId, stamp: GenerationStamp) {
        if self.invalidations.push_awaited(self.now_ms, node, id, stamp) {
            self.replicas.drop_replica(node, id);
            self.wake(node);
        }
    }

    fn block_removed(&mut self, id: BlockId) {
        self.release(id);
        self.recoveries.end(id);
        self.forget_repair(id);
        self.invalidations.forget(id);
        for node in self.replicas.remove(id) {
            if self.datanodes.get(node).liveness != Liveness::Dead {
                self.invalidations.push(node, id, GenerationStamp(u64::MAX));
                self.wake(node);
            }
        }
        self.effects.push(Effect::Finalized(id));
    }
}
