//! Replicas to be deleted, queued per DataNode and handed out in batches.
//!
//! A queue has a bound; what does not fit is left out, and found again by the node's next full report, which lists a
//! replica that no file has. Handed out is not done: the node tells a deletion as a change, and a lost command is
//! found again in the same way.

use std::collections::VecDeque;

use proto::{BlockId, GenerationStamp};

use super::datanodes::NodeIndex;

/// Deletions that may wait for one DataNode (16 bytes each).
pub const QUEUE_MAX: usize = 1_000_000;
/// Deletions handed out at once.
pub const BATCH_MAX: usize = 1_000;

/// The queues of all DataNodes.
#[derive(Debug, Default)]
pub struct Invalidations {
    queues: Vec<VecDeque<(BlockId, GenerationStamp)>>,
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

    /// Forgets what waits for a node: it is dead, and reports in full when it comes back.
    pub fn clear(&mut self, node: NodeIndex) {
        if let Some(queue) = self.queues.get_mut(usize::from(node.0)) {
            *queue = VecDeque::new();
        }
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
}
