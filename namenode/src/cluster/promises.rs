//! Room promised on nodes: what a block that is being written, or copied, may yet take there.
//!
//! Always holds: a node's reserved bytes and scheduled blocks are the sums over the promises that name it. A promise
//! ends as its replica is finalized, as its block is complete or gone, or as another takes its place.

use proto::BlockId;

use super::Cluster;
use super::datanodes::NodeIndex;

/// Room promised on nodes for one block.
#[derive(Debug)]
pub(super) struct Promise {
    nodes: Vec<NodeIndex>,
    bytes: u64,
}

impl Cluster {
    /// Remembers where a block is being written, and what it may take there.
    pub fn start_pipeline(&mut self, id: BlockId, nodes: &[NodeIndex], block_bytes: u64) {
        self.replicas.set_pipeline(id, nodes);
        self.promise(id, nodes, block_bytes);
    }

    /// The pipeline of a block goes on with these nodes; each is promised what the first ones were.
    pub fn move_pipeline(&mut self, id: BlockId, nodes: &[NodeIndex]) {
        let bytes = self.promises.get(&id.0).map_or(0, |promise| promise.bytes);
        self.start_pipeline(id, nodes, bytes);
    }

    /// Keeps room for a block on these nodes, in place of what was kept for it before.
    pub(super) fn promise(&mut self, id: BlockId, nodes: &[NodeIndex], bytes: u64) {
        self.release(id);
        for &node in nodes {
            let known = self.datanodes.get_mut(node);
            known.reserved_bytes = known.reserved_bytes.saturating_add(bytes);
            known.scheduled_blocks = known.scheduled_blocks.saturating_add(1);
        }
        self.promises.insert(id.0, Promise { nodes: nodes.to_vec(), bytes });
    }

    /// Gives back what was promised to a block on all its nodes.
    pub(super) fn release(&mut self, id: BlockId) {
        let Some(promise) = self.promises.remove(&id.0) else { return };
        for &node in &promise.nodes {
            self.give_back(node, promise.bytes);
        }
    }

    pub(super) fn release_on(&mut self, node: NodeIndex, id: BlockId) {
        let Some(promise) = self.promises.get_mut(&id.0) else { return };
        let Some(at) = promise.nodes.iter().position(|&promised| promised == node) else { return };
        promise.nodes.remove(at);
        let (bytes, empty) = (promise.bytes, promise.nodes.is_empty());
        if empty {
            self.promises.remove(&id.0);
        }
        self.give_back(node, bytes);
    }

    fn give_back(&mut self, node: NodeIndex, bytes: u64) {
        let known = self.datanodes.get_mut(node);
        known.reserved_bytes = known.reserved_bytes.saturating_sub(bytes);
        known.scheduled_blocks = known.scheduled_blocks.saturating_sub(1);
    }
}
