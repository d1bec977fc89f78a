//! What is said of a block and its replicas: by the namespace, by DataNodes, to readers. Plain values.

use proto::erasure::Policy;
use proto::granary::ReplicaState;
use proto::{BlockId, GenerationStamp};

use super::datanodes::NodeIndex;

/// What the namespace says of a block, or of a block group; a unit's truth follows from its group's (`groups`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockTruth {
    /// Its stamp now.
    pub stamp: GenerationStamp,
    /// Its length in bytes; of one under construction what is known of it.
    pub length: u64,
    /// Whether it is complete, not under construction.
    pub complete: bool,
    /// Replicas that its file asks for.
    pub replication: u32,
    /// The erasure-coding policy of a block group, and of a unit of one; 0: the block is replicated.
    pub policy: u8,
}

/// One replica as a DataNode tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    /// Of this block.
    pub id: BlockId,
    /// At this stamp.
    pub stamp: GenerationStamp,
    /// So many bytes long.
    pub length: u64,
    /// In this state.
    pub state: ReplicaState,
}

/// What a report of one replica meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Noted, and nothing more.
    Noted,
    /// It is finalized at the block's stamp: whoever waits for replicas of the block may look again.
    Finalized,
    /// It is damaged, of another length, or of an older stamp.
    Bad,
    /// No file has that block: the replica may be deleted.
    Unknown,
}

/// Where a block can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locations {
    /// Nodes, in the order of the pipeline or of their reports.
    pub nodes: Vec<NodeIndex>,
    /// Every known replica is corrupt: `nodes` names those.
    pub corrupt: bool,
}

/// Counts over all blocks. A block group is one block; its good units count as its good replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Blocks of files.
    pub blocks: u64,
    /// Of those, complete ones.
    pub complete: u64,
    /// Complete blocks with at least the least number of good replicas.
    pub safe: u64,
    /// Complete blocks with some good replicas, but fewer than their file asks for; groups that can be read and lack
    /// units.
    pub under_replicated: u64,
    /// Complete blocks without a good replica; groups with fewer good units than are needed to read them.
    pub missing: u64,
    /// Complete blocks with at least one replica known to be damaged.
    pub corrupt: u64,
}

/// How many units of a complete block group are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupState {
    /// Units with bytes that have a good replica.
    pub good: u8,
    /// As many units, whichever, are enough to read the group.
    pub needed: u8,
    /// Units that there should be: those with bytes.
    pub wanted: u8,
}

/// What the namespace says of a unit, by what it says of its block group; `None`: the group has no such unit.
pub fn unit_truth(group: &BlockTruth, unit: u8) -> Option<BlockTruth> {
    let policy = Policy::by_id(group.policy).filter(|policy| unit < policy.units())?;
    let length = policy.unit_bytes(group.length, unit);
    // A unit without a byte is stored nowhere; while the group is written, any unit may get some.
    let replication = u32::from(!group.complete || length > 0);
    Some(BlockTruth { length, replication, ..*group })
}
