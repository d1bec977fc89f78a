//! Block recoveries under way: which DataNode leads each, and when to try another.
//!
//! A recovery begins with a stamp that the journal minted. One DataNode that has a replica is told to lead it. If its
//! outcome is not in by the deadline, the caller mints a new stamp and begins again, and another node leads; the old
//! leader's outcome is refused by its stamp. How many may be under way is bounded by the caller's open files.

use std::collections::BTreeMap;

use proto::granary::{Block, RecoverBlock};
use proto::{BlockId, GenerationStamp, InodeId};

use super::datanodes::{Liveness, NodeIndex};
use super::outbox::OUTBOX_MAX;
use super::replicas::BlockTruth;
use super::{Cluster, Effect};

#[derive(Clone, Debug)]
struct Recovery {
    inode: InodeId,
    stamp: GenerationStamp,
    deadline_ms: u64,
    /// Every leader so far, the latest last.
    leaders: Vec<NodeIndex>,
}

/// The recoveries of all blocks.
#[derive(Debug)]
pub struct Recoveries {
    by_block: BTreeMap<u64, Recovery>,
    timeout_ms: u64,
}

impl Recoveries {
    /// None yet. A leader gets `timeout_ms` to come back.
    pub fn new(timeout_ms: u64) -> Self {
        Self { by_block: BTreeMap::new(), timeout_ms }
    }

    /// Begins or begins anew; chooses the leader among `replicas`: one that did not lead yet, or the one that led
    /// longest ago. `None`: there is no replica to lead; asked again when the deadline is over.
    pub fn begin(
        &mut self,
        now_ms: u64,
        (id, inode): (BlockId, InodeId),
        stamp: GenerationStamp,
        replicas: &[NodeIndex],
    ) -> Option<NodeIndex> {
        let mut leaders = self.by_block.remove(&id.0).map(|old| old.leaders).unwrap_or_default();
        let led = |node: &NodeIndex| leaders.iter().rposition(|leader| leader == node);
        let leader = replicas.iter().copied().min_by_key(|node| led(node).map_or(0, |at| at + 1));
        leaders.retain(|&old| Some(old) != leader);
        leaders.extend(leader);
        let deadline_ms = now_ms.saturating_add(self.timeout_ms);
        self.by_block.insert(id.0, Recovery { inode, stamp, deadline_ms, leaders });
        leader
    }

    /// The stamp of the recovery that is under way for a block.
    pub fn stamp(&self, id: BlockId) -> Option<GenerationStamp> {
        self.by_block.get(&id.0).map(|recovery| recovery.stamp)
    }

    /// Whether a recovery is under way and its deadline is not over.
    pub fn is_pending(&self, now_ms: u64, id: BlockId) -> bool {
        self.by_block.get(&id.0).is_some_and(|recovery| now_ms < recovery.deadline_ms)
    }

    /// Recoveries whose deadline is over, and their files, by block.
    pub fn overdue(&self, now_ms: u64) -> Vec<(BlockId, InodeId)> {
        self.by_block
            .iter()
            .filter(|(_, recovery)| now_ms >= recovery.deadline_ms)
            .map(|(&id, recovery)| (BlockId(id), recovery.inode))
            .collect()
    }

    /// The recovery is over, or its block is gone.
    pub fn end(&mut self, id: BlockId) {
        self.by_block.remove(&id.0);
    }
}

impl Cluster {
    /// Has a replica's holder lead the recovery of a block to a new stamp. False: no live node has a replica.
    pub fn begin_recovery(
        &mut self,
        now_ms: u64,
        (id, inode): (BlockId, InodeId),
        truth: &BlockTruth,
        new_stamp: GenerationStamp,
        new_length: Option<u64>,
    ) -> bool {
        let mut found: Vec<(NodeIndex, u8)> = match truth.policy {
            0 => {
                self.replicas.locations(id, truth).nodes.into_iter().map(|node| (node, 0)).collect()
            }
            _ => self.group_nodes(id, truth),
        };
        found.retain(|&(node, _)| self.datanodes.get(node).liveness != Liveness::Dead);
        let nodes: Vec<NodeIndex> = found.iter().map(|&(node, _)| node).collect();
        let Some(leader) = self.recoveries.begin(now_ms, (id, inode), new_stamp, &nodes) else {
            return false;
        };
        // The leader first; the others keep their order.
        found.sort_by_key(|&(node, _)| node != leader);
        let (nodes, units): (Vec<NodeIndex>, Vec<u8>) = found.into_iter().unzip();
        let units = if truth.policy == 0 { Vec::new() } else { units };
        let command = RecoverBlock {
            block: Some(Block { id: id.0, generation_stamp: truth.stamp.0, length: truth.length }),
            new_generation_stamp: new_stamp.0,
            replicas: self.addresses(&nodes),
            new_length,
            erasure_policy: truth.policy.into(),
            units: units.into(),
        };
        let outbox = &mut self.outboxes[usize::from(leader.0)];
        if outbox.recover.len() < OUTBOX_MAX {
            outbox.recover.push_back(command);
            self.effects.push(Effect::Wake(leader));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_that_does_not_come_back_is_led_by_another() {
        let mut recoveries = Recoveries::new(100);
        let (id, inode) = (BlockId(7), InodeId(9));
        let replicas = [NodeIndex(1), NodeIndex(2)];
        let begin = |recoveries: &mut Recoveries, now_ms, stamp| {
            recoveries.begin(now_ms, (id, inode), GenerationStamp(stamp), &replicas)
        };
        assert_eq!(begin(&mut recoveries, 0, 10), Some(NodeIndex(1)));
        assert!(recoveries.is_pending(99, id) && recoveries.overdue(99).is_empty());
        assert_eq!(recoveries.overdue(100), [(id, inode)]);
        assert_eq!(begin(&mut recoveries, 100, 11), Some(NodeIndex(2)));
        assert_eq!(recoveries.stamp(id), Some(GenerationStamp(11)));
        assert_eq!(begin(&mut recoveries, 200, 12), Some(NodeIndex(1)), "the one longest ago");
        assert_eq!(recoveries.begin(300, (id, inode), GenerationStamp(13), &[]), None);
        recoveries.end(id);
        assert!(recoveries.overdue(u64::MAX).is_empty() && recoveries.stamp(id).is_none());
    }
}
