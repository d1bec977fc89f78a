//! What a check finds, in the order in which it finds it.
//!
//! For a file: `File`, a `Bad` per bad block, `FileChecked`; then, if blocks are wanted, a `Block` each and
//! `BlocksTold`; then `Mended` if it was. A check ends with `Sums` or `Failed`.

use proto::Error;
use proto::erasure::Policy;
use proto::granary::DatanodeAddress;

use super::Mend;
use crate::cluster::locate::Fate;
use crate::op::Block;

/// One thing that a check tells.
#[derive(Clone, Debug)]
pub enum Event {
    /// A folder is entered.
    Folder(String),
    /// A file is about to be checked: nothing is counted in it yet.
    File(Box<FoundFile>),
    /// A block of it has too few good replicas, but some; or only damaged ones; or they stand in too few racks.
    Bad(Box<FoundBlock>),
    /// A file was checked.
    FileChecked(Box<FoundFile>),
    /// A block of it.
    Block(Box<FoundBlock>),
    /// That was its last block.
    BlocksTold,
    /// A broken file was moved or deleted.
    Mended(Mend, String),
    /// Everything was checked.
    Sums(Box<Sums>),
    /// The check ended early.
    Failed(Error),
}

/// A file.
#[derive(Clone, Debug, Default)]
pub struct FoundFile {
    /// Its path.
    pub path: String,
    /// Bytes.
    pub length: u64,
    /// Blocks.
    pub blocks: u64,
    /// Whether it is being written.
    pub open: bool,
    /// How it is coded; `None`: replicated.
    pub coding: Option<Policy>,
    /// Replicas wanted of each block.
    pub replication: u32,
    /// Blocks without a good replica.
    pub missing: u64,
    /// Their bytes.
    pub missing_bytes: u64,
    /// Blocks of which all replicas are damaged: missing ones too.
    pub damaged: u64,
    /// Blocks with too few good replicas, but some.
    pub short: u64,
    /// Blocks whose good replicas stand in too few racks.
    pub misplaced: u64,
    /// Blocks that could not be read without the nodes that were asked for.
    pub lost: u64,
    /// Their bytes.
    pub lost_bytes: u64,
    /// Blocks that would be down to the last.
    pub endangered: u64,
}

/// A block of a file.
#[derive(Clone, Debug)]
pub struct FoundBlock {
    /// The how-manieth of its file.
    pub index: usize,
    /// Which block.
    pub block: Block,
    /// Whether its length is final: else nothing is said of it.
    pub complete: bool,
    /// Replicas wanted; of a block group, units.
    pub wanted: u32,
    /// Good replicas, or good units.
    pub live: u32,
    /// With fewer good ones it cannot be read: 1, or of a block group as many as it has data units with bytes.
    pub needed: u32,
    /// It cannot be read, and of what is lacking something is there, damaged; of a block: every known replica.
    pub damaged: bool,
    /// Further racks that it should be in.
    pub racks_lacking: usize,
    /// What would become of it without the nodes that were asked for.
    pub without: Fate,
    /// Whether repair was told of it.
    pub repairing: bool,
    /// Where the replicas are.
    pub nodes: Vec<DatanodeAddress>,
    /// Of a block group: the unit that each of them holds.
    pub units: Vec<u8>,
}

impl FoundBlock {
    /// Whether it cannot be read: no good replica is known, or too few good units.
    pub fn is_missing(&self) -> bool {
        self.complete && self.live < self.needed
    }

    /// Whether it is a block group.
    pub fn is_group(&self) -> bool {
        self.block.id.is_striped()
    }

    /// Whether all replicas are damaged.
    pub fn is_damaged(&self) -> bool {
        self.complete && self.damaged
    }

    /// Whether its good replicas stand in too few racks.
    pub fn is_misplaced(&self) -> bool {
        self.complete && self.live > 0 && !self.is_missing() && self.racks_lacking > 0
    }

    /// Whether there are good replicas, but too few.
    pub fn is_short(&self) -> bool {
        self.complete && !self.is_missing() && self.live < self.wanted
    }
}

impl FoundFile {
    /// Counts a block of it in.
    pub fn count(&mut self, block: &FoundBlock) {
        self.missing += u64::from(block.is_missing());
        self.missing_bytes += if block.is_missing() { block.block.length } else { 0 };
        self.damaged += u64::from(block.is_damaged());
        self.short += u64::from(block.is_short());
        self.misplaced += u64::from(block.is_misplaced());
        let lost = block.without == Fate::Lost;
        self.lost += u64::from(lost);
        self.lost_bytes += if lost { block.block.length } else { 0 };
        self.endangered += u64::from(block.without == Fate::Endangered);
    }
}

/// The sums over a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Folders.
    pub folders: u64,
    /// Files that were checked.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their blocks.
    pub blocks: u64,
    /// Files being written that were not checked.
    pub open_files: u64,
    /// Their bytes.
    pub open_bytes: u64,
    /// Their blocks.
    pub open_blocks: u64,
    /// Files with missing or damaged blocks.
    pub broken_files: u64,
    /// Blocks without a good replica.
    pub missing: u64,
    /// Their bytes.
    pub missing_bytes: u64,
    /// Blocks of which all replicas are damaged.
    pub damaged: u64,
    /// Blocks with fewer good replicas than the least number, which counts as safe.
    pub below_min: u64,
    /// Blocks with at least that number.
    pub at_min: u64,
    /// Blocks with too few good replicas, but some.
    pub short: u64,
    /// Blocks whose good replicas stand in too few racks.
    pub misplaced: u64,
    /// Blocks with more than wanted.
    pub over: u64,
    /// Good replicas.
    pub replicas: u64,
    /// Replicas wanted.
    pub replicas_wanted: u64,
    /// Replicas that blocks with some lack.
    pub replicas_lacking: u64,
    /// Files that could not be read in whole without the nodes that were asked for.
    pub lost_files: u64,
    /// Their blocks that could not.
    pub lost: u64,
    /// The bytes of those.
    pub lost_bytes: u64,
    /// Blocks that would be down to the last.
    pub endangered: u64,
    /// Blocks that repair was told of.
    pub repairing: u64,
}

impl Sums {
    /// Whether every block can be read.
    pub fn is_healthy(&self) -> bool {
        self.missing == 0 && self.damaged == 0
    }

    pub(super) fn open(&mut self, file: &FoundFile) {
        self.open_files += 1;
        self.open_bytes += file.length;
        self.open_blocks += file.blocks;
    }

    pub(super) fn file(&mut self, file: &FoundFile) {
        self.files += 1;
        self.bytes += file.length;
        self.blocks += file.blocks;
    }

    pub(super) fn file_checked(&mut self, file: &FoundFile) {
        self.broken_files += u64::from(file.missing > 0 || file.damaged > 0);
        self.missing += file.missing;
        self.missing_bytes += file.missing_bytes;
        self.damaged += file.damaged;
        self.short += file.short;
        self.misplaced += file.misplaced;
        self.lost_files += u64::from(file.lost > 0);
        self.lost += file.lost;
        self.lost_bytes += file.lost_bytes;
        self.endangered += file.endangered;
    }

    pub(super) fn block(&mut self, block: &FoundBlock, replication_min: u32) {
        self.replicas += u64::from(block.live);
        self.repairing += u64::from(block.repairing);
        self.replicas_wanted += u64::from(block.wanted);
        if block.is_short() {
            self.replicas_lacking += u64::from(block.wanted - block.live);
        }
        self.over += u64::from(block.complete && block.live > block.wanted);
        let min = if block.is_group() { block.needed } else { replication_min };
        self.at_min += u64::from(!block.complete || block.live >= min);
        self.below_min += u64::from(block.complete && block.live < min);
    }
}
