//! Replicas to be deleted, queued per DataNode and handed out in batches.
//!
//! A queue has a bound; what does not fit is left out, and found again by the node's next full report, which lists a
//! replica that no file has. Handed out is not done: the node tells a deletion as a change.
//!
//! The deletion of a replica whose block goes on (a surplus, a bad one) is *awaited* until the node told it: so long the
//! replica counts for nothing, though an older report may still list it. Else two reports that cross two commands
//! could make two replicas vouch for each other while both are deleted. A command that was lost is given again. A new
//! registration ends all that: the node carries out nothing that it was told before, and what it lists then, it has.

use std::collections::{BTreeMap, VecDeque};

use proto::{BlockId, GenerationStamp};

use super::datanodes::NodeIndex;

/// Deletions that may wait for one DataNode (16 bytes each).
pub const QUEUE_MAX: usize = 1_000_000;
/// Deletions handed out at once.
pub const BATCH_MAX: usize = 1_000;
/// Deletions that may be awaited (about 60 bytes each).
pub const AWAITED_MAX: usize = 1_000_000;
/// A deletion that was not told by then is asked for again, in milliseconds; and so often at most.
const REMIND_MS: u64 = 300_000;
const REMINDERS_MAX: u8 = 3;

#[derive(Clone, Copy, Debug)]
struct Awaited {
    stamp: GenerationStamp,
    remind_ms: u64,
    reminders: u8,
}

/// The queues of all DataNodes.
#[derive(Debug, Default)]
pub struct Invalidations {
    queues: Vec<VecDeque<(BlockId, GenerationStamp)>>,
    awaited: BTreeMap<(u64, u16), Awaited>,
    left_out: u64,
}

impl Invalidations {
    /// Queues the deletion of a replica of this stamp or older.
    pub fn push(&mut self, node: NodeIndex, id: BlockId, stamp: GenerationStamp) {
        let number = usize::from(node.0);
        if self.queues.len() <= number {
            self.queues.resize_with(number + 1, VecDeque::new);
        }
        if self.queues[number].len() < QUEUE_MAX {
            self.queues[number].push_back((id, stamp));
        } else {
            self.left_out += 1;
        }
    }

    /// As [`Invalidations::push`], for a block that goes on: awaited until the node tells it. False: too many are.
    pub fn push_awaited(
        &mut self,
        now_ms: u64,
        node: NodeIndex,
        id: BlockId,
        stamp: GenerationStamp,
    ) -> bool {
        if self.awaited.len() >= AWAITED_MAX {
            return false;
        }
        let remind_ms = now_ms.saturating_add(REMIND_MS);
        self.awaited.insert((id.0, node.0), Awaited { stamp, remind_ms, reminders: 0 });
        self.push(node, id, stamp);
        true
    }

    /// Whether a replica of this stamp is about to be deleted there, and so counts for nothing.
    pub fn is_awaited(&self, node: NodeIndex, id: BlockId, stamp: GenerationStamp) -> bool {
        !self.awaited.is_empty()
            && self.awaited.get(&(id.0, node.0)).is_some_and(|awaited| stamp <= awaited.stamp)
    }

    /// The node told that it has the replica no more.
    pub fn told(&mut self, node: NodeIndex, id: BlockId) {
        if !self.awaited.is_empty() {
            self.awaited.remove(&(id.0, node.0));
        }
    }

    /// Nodes on which a replica of a block is about to be deleted.
    pub fn nodes_of(&self, id: BlockId) -> impl Iterator<Item = NodeIndex> + '_ {
        self.awaited.range((id.0, 0)..=(id.0, u16::MAX)).map(|(&(_, node), _)| NodeIndex(node))
    }

    /// The block is gone with all its replicas: nothing vouches for anything any more.
    pub fn forget(&mut self, id: BlockId) {
        let nodes: Vec<NodeIndex> = self.nodes_of(id).collect();
        for node in nodes {
            self.told(node, id);
        }
    }

    /// Asks again for what was not told in time; after some times it is taken for refused.
    pub fn remind(&mut self, now_ms: u64) {
        let due = self.awaited.iter().filter(|(_, awaited)| awaited.remind_ms <= now_ms);
        let due: Vec<((u64, u16), Awaited)> = due.map(|(&key, &awaited)| (key, awaited)).collect();
        for ((id, node), awaited) in due {
            if awaited.reminders >= REMINDERS_MAX {
                self.awaited.remove(&(id, node));
                continue;
            }
            let remind_ms = now_ms.saturating_add(REMIND_MS);
            let reminders = awaited.reminders + 1;
            self.awaited.insert((id, node), Awaited { remind_ms, reminders, ..awaited });
            self.push(NodeIndex(node), BlockId(id), awaited.stamp);
        }
    }

    /// Takes the next batch for a node, oldest first.
    pub fn take(&mut self, node: NodeIndex) -> Vec<(BlockId, GenerationStamp)> {
        let Some(queue) = self.queues.get_mut(usize::from(node.0)) else { return Vec::new() };
        let batch = queue.len().min(BATCH_MAX);
        queue.drain(..batch).collect()
    }

    /// Deletions that wait for a node.
    pub fn waiting(&self, node: NodeIndex) -> usize {
        self.queues.get(usize::from(node.0)).map_or(0, VecDeque::len)
    }

    /// Forgets what a node was to delete: it is dead, or comes anew, and reports in full when it does.
    pub fn clear(&mut self, node: NodeIndex) {
        if let Some(queue) = self.queues.get_mut(usize::from(node.0)) {
            *queue = VecDeque::new();
        }
        self.awaited.retain(|&(_, of), _| of != node.0);
    }

    /// Deletions that did not fit a queue since the process began.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_come_in_order_and_the_queue_has_a_bound() {
        let mut queues = Invalidations::default();
        let node = NodeIndex(2);
        for id in 0..QUEUE_MAX as u64 + 3 {
            queues.push(node, BlockId(id), GenerationStamp(1));
        }
        assert_eq!((queues.waiting(node), queues.left_out()), (QUEUE_MAX, 3));
        let batch = queues.take(node);
        assert_eq!((batch.len(), batch[0].0, batch[1].0), (BATCH_MAX, BlockId(0), BlockId(1)));
        queues.clear(node);
        assert_eq!(queues.take(node), []);
        assert_eq!(queues.take(NodeIndex(9)), []);
    }

    #[test]
    fn what_is_awaited_counts_for_nothing_until_it_is_told_or_the_node_comes_anew() {
        let (mut queues, node, id) = (Invalidations::default(), NodeIndex(2), BlockId(7));
        let stamp = GenerationStamp;
        assert!(queues.push_awaited(0, node, id, stamp(5)));
        assert!(queues.is_awaited(node, id, stamp(5)) && !queues.is_awaited(node, id, stamp(6)));
        assert_eq!(queues.nodes_of(id).collect::<Vec<_>>(), [node]);
        assert_eq!(queues.take(node), [(id, stamp(5))]);
        queues.remind(REMIND_MS - 1);
        assert_eq!(queues.waiting(node), 0);
        queues.remind(REMIND_MS);
        assert_eq!(queues.take(node), [(id, stamp(5))], "the command may have been lost");
        queues.told(node, id);
        assert!(!queues.is_awaited(node, id, stamp(5)));
        assert!(queues.push_awaited(0, node, id, stamp(5)));
        queues.clear(node);
        assert!(!queues.is_awaited(node, id, stamp(5)) && queues.waiting(node) == 0);
        assert!(queues.push_awaited(0, node, id, stamp(5)));
        for round in 1..=4 {
            queues.remind(round * REMIND_MS);
        }
        assert!(!queues.is_awaited(node, id, stamp(5)), "it does not go: then it is there");
    }
}
