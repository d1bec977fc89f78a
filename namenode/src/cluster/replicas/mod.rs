//! Which DataNodes hold which block, in eight bytes per block, with every count kept as it changes.
//!
//! `entries` has the pages and what is in them, `judge` what one reported replica is, `walks` goes through the map in
//! slices, `units` keeps block groups.
//!
//! Blocks lie in pages by id. An entry names up to three holders inline; more spill into a side map. A holder without
//! a record in `odd` is *good*: finalized, with the stamp and length that the namespace has. Whatever deviates (stale,
//! corrupt, being written, or of a block that is itself being written) has its own record there. The namespace's view
//! of a block comes in as a [`BlockTruth`] with each call; [`Replicas::sync`] brings the entry in line with it.
//!
//! Always holds: a node is named at most once per block; an `odd` record's node is a holder; the totals equal a
//! recount over all entries. What the namespace does not know is never given an entry.
//!
//! Does not know whether a node lives (its replicas are swept out when it dies), nor does it decide what to copy.

mod entries;
mod judge;
mod units;
mod walks;

use std::collections::{BTreeMap, HashMap};

use proto::granary::ReplicaState;
use proto::{BlockId, GenerationStamp};

pub use super::block::{BlockTruth, Locations, Reported, Totals, Verdict};
use super::datanodes::NodeIndex;
use entries::*;
use judge::judge;
use units::is_counted;

/// Why a holder's replica is not simply good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Odd {
    stamp: u64,
    length: u64,
    state: OddState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OddState {
    Finalized,
    BeingWritten,
    Corrupt,
}

/// The map of blocks to their holders.
pub struct Replicas {
    pages: BTreeMap<u64, Box<Page>>,
    spilled: HashMap<u64, Vec<u16>>,
    wide: HashMap<u64, u32>,
    odd: BTreeMap<(u64, u16), Odd>,
    pipelines: HashMap<u64, Vec<u16>>,
    held: Vec<u64>,
    totals: Totals,
    group_totals: Totals,
    replication_min: usize,
}

impl Replicas {
    /// An empty map. A block is safe with `replication_min` good replicas.
    pub fn new(replication_min: u32) -> Self {
        assert!(replication_min > 0, "a block without a replica is not safe");
        Self {
            pages: BTreeMap::new(),
            spilled: HashMap::new(),
            wide: HashMap::new(),
            odd: BTreeMap::new(),
            pipelines: HashMap::new(),
            held: Vec::new(),
            totals: Totals::default(),
            group_totals: Totals::default(),
            replication_min: replication_min as usize,
        }
    }

    /// Counts over all blocks, at no cost.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Of those, counts over block groups.
    pub fn group_totals(&self) -> Totals {
        self.group_totals
    }

    /// Replicas that a node holds.
    pub fn held_by(&self, node: NodeIndex) -> u64 {
        self.held.get(usize::from(node.0)).copied().unwrap_or(0)
    }

    /// Brings a block's entry in line with the namespace, making it if it is new.
    pub fn sync(&mut self, id: BlockId, truth: &BlockTruth) {
        let mut entry = self.entry(id);
        let was_complete = entry.flags & COMPLETE != 0;
        if entry.flags & EXISTS == 0 {
            entry.flags = EXISTS;
            self.totals.blocks += u64::from(!id.is_striped());
        }
        entry.expected = self.narrow(id, truth.replication);
        if truth.complete {
            entry.flags |= COMPLETE
        } else {
            entry.flags &= !COMPLETE
        }
        self.store(id, entry);
        match (was_complete, truth.complete) {
            (false, true) => self.commit(id, truth),
            (true, false) => self.reopen(id, truth),
            _ => {}
        }
        self.reclassify(id);
    }

    /// As [`Replicas::sync`], if the block is not known yet.
    pub fn sync_if_new(&mut self, id: BlockId, truth: &BlockTruth) {
        if self.entry(id).flags & EXISTS == 0 {
            self.sync(id, truth);
        }
    }

    /// Other replicas are wanted of a known block.
    pub fn set_expected(&mut self, id: BlockId, replication: u32) {
        let entry = self.entry(id);
        if entry.flags & EXISTS != 0 {
            let expected = self.narrow(id, replication);
            self.store(id, Entry { expected, ..entry });
            self.reclassify(id);
        }
    }

    /// Replicas that are wanted of a known block; `None` for an unknown one.
    pub fn wanted(&self, id: BlockId) -> Option<u32> {
        let entry = self.entry(id);
        (entry.flags & EXISTS != 0).then(|| self.expected(id, entry) as u32)
    }

    /// Forgets a block that no file has any more; returns who holds it or was to hold it, by index.
    pub fn remove(&mut self, id: BlockId) -> Vec<NodeIndex> {
        let mut nodes = self.holders(id);
        for &node in &nodes {
            self.held[usize::from(node)] -= 1;
            self.odd.remove(&(id.0, node));
        }
        nodes.extend(self.pipelines.remove(&id.0).unwrap_or_default());
        nodes.sort_unstable();
        nodes.dedup();
        let flags = self.entry(id).flags;
        if flags & EXISTS != 0 {
            if is_counted(id) {
                self.count(id, flags, 0);
                self.totals.blocks -= 1;
                self.group_totals.blocks -= u64::from(id.is_striped());
            }
            self.spilled.remove(&id.0);
            self.wide.remove(&id.0);
            self.store(id, EMPTY);
        }
        nodes.into_iter().map(NodeIndex).collect()
    }

    /// Remembers where a block that is being written should appear.
    pub fn set_pipeline(&mut self, id: BlockId, nodes: &[NodeIndex]) {
        self.pipelines.insert(id.0, nodes.iter().map(|node| node.0).collect());
    }

    /// Where a block that is being written should appear.
    pub fn pipeline(&self, id: BlockId) -> Vec<NodeIndex> {
        self.pipelines.get(&id.0).into_iter().flatten().map(|&node| NodeIndex(node)).collect()
    }

    /// Takes what a DataNode says of one replica. `truth` is the namespace's view; `None`: no file has the block.
    pub fn report(
        &mut self,
        node: NodeIndex,
        replica: &Reported,
        truth: Option<&BlockTruth>,
    ) -> Verdict {
        let Some(truth) = truth else {
            self.drop_replica(node, replica.id);
            return Verdict::Unknown;
        };
        if self.report_good(node, replica, truth) {
            return Verdict::Finalized;
        }
        self.sync(replica.id, truth);
        if replica.state == ReplicaState::Deleted {
            self.drop_replica(node, replica.id);
            return Verdict::Noted;
        }
        let known_corrupt = self
            .odd
            .get(&(replica.id.0, node.0))
            .is_some_and(|odd| odd.state == OddState::Corrupt && odd.stamp >= replica.stamp.0);
        let (odd, verdict) = judge(replica, truth, known_corrupt);
        self.add_holder(node, replica.id);
        match odd {
            Some(odd) => {
                self.odd.insert((replica.id.0, node.0), odd);
            }
            None => {
                self.odd.remove(&(replica.id.0, node.0));
            }
        }
        self.reclassify(replica.id);
        verdict
    }

    /// The common case of a full report with one look-up: a good replica of a block without odd ones. False: not that.
    fn report_good(&mut self, node: NodeIndex, replica: &Reported, truth: &BlockTruth) -> bool {
        let fits = replica.state == ReplicaState::Finalized
            && truth.complete
            && (replica.stamp, replica.length) == (truth.stamp, truth.length)
            && truth.replication < u32::from(WIDE)
            && !replica.id.is_striped();
        let Some(page) = self.pages.get_mut(&(replica.id.0 / PAGE_BLOCKS)).filter(|_| fits) else {
            return false;
        };
        let entry = &mut page.entries[(replica.id.0 % PAGE_BLOCKS) as usize];
        if entry.flags & (EXISTS | COMPLETE | SPILLED | ODD) != EXISTS | COMPLETE
            || u32::from(entry.expected) != truth.replication
        {
            return false;
        }
        if entry.nodes.contains(&node.0) {
            return true;
        }
        let Some(free) = entry.nodes.iter_mut().find(|slot| **slot == NONE) else { return false };
        *free = node.0;
        let good = entry.nodes.iter().filter(|&&holder| holder != NONE).count();
        let before = entry.flags;
        entry.flags &= !(UNDER | MISSING | SAFE);
        if good < usize::from(entry.expected) {
            entry.flags |= UNDER;
        }
        if good >= self.replication_min {
            entry.flags |= SAFE;
        }
        let after = entry.flags;
        self.count(replica.id, before, after);
        *held(&mut self.held, node) += 1;
        true
    }

    /// Marks a node's replica as damaged; false if it holds none. A later stamp on that node is not touched.
    pub fn mark_corrupt(&mut self, node: NodeIndex, id: BlockId, stamp: GenerationStamp) -> bool {
        if !self.holders(id).contains(&node.0) {
            return false;
        }
        let known = self.odd.get(&(id.0, node.0)).copied();
        if known.is_some_and(|odd| odd.stamp > stamp.0) {
            return false;
        }
        let length = known.map_or(0, |odd| odd.length);
        self.odd.insert((id.0, node.0), Odd { stamp: stamp.0, length, state: OddState::Corrupt });
        self.reclassify(id);
        true
    }

    /// A node no longer has a replica.
    pub fn drop_replica(&mut self, node: NodeIndex, id: BlockId) {
        if self.entry(id).flags & EXISTS != 0 && self.remove_holder(node, id) {
            self.odd.remove(&(id.0, node.0));
            self.reclassify(id);
        }
    }

    /// Where to read a block. Stale replicas are never named, damaged ones only if there is no other.
    pub fn locations(&self, id: BlockId, truth: &BlockTruth) -> Locations {
        let holders = self.holders(id);
        let mut nodes = Vec::with_capacity(holders.len());
        if !truth.complete {
            nodes.extend(self.pipelines.get(&id.0).into_iter().flatten().copied());
        }
        for &node in &holders {
            let readable = match self.odd.get(&(id.0, node)) {
                None => true,
                Some(odd) => {
                    !truth.complete && odd.state != OddState::Corrupt && odd.stamp >= truth.stamp.0
                }
            };
            if readable && !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        nodes.retain(|&node| !self.is_corrupt(id, node));
        let corrupt = nodes.is_empty();
        if corrupt {
            nodes.extend(holders.iter().filter(|&&node| self.is_corrupt(id, node)));
        }
        Locations {
            corrupt: corrupt && !nodes.is_empty(),
            nodes: nodes.into_iter().map(NodeIndex).collect(),
        }
    }

    /// Nodes whose finalized replica has this stamp and length.
    pub fn finalized(&self, id: BlockId, stamp: GenerationStamp, length: u64) -> usize {
        let complete = self.entry(id).flags & COMPLETE != 0;
        let fits = |node: &&u16| match self.odd.get(&(id.0, **node)) {
            None => complete,
            Some(odd) => {
                odd.state == OddState::Finalized && (odd.stamp, odd.length) == (stamp.0, length)
            }
        };
        self.holders(id).iter().filter(fits).count()
    }

    /// Whether enough replicas of a complete block are good, or a replica of one under construction ever showed.
    pub fn is_reported(&self, id: BlockId) -> bool {
        !self.holders(id).is_empty()
    }

    /// The bad replicas of a complete block (damaged, stale), each with the stamp it has.
    pub fn bad(&self, id: BlockId) -> Vec<(NodeIndex, GenerationStamp)> {
        if self.entry(id).flags & (COMPLETE | ODD) != COMPLETE | ODD {
            return Vec::new();
        }
        self.odd_of(id)
            .filter(|(_, odd)| odd.state != OddState::BeingWritten)
            .map(|(node, odd)| (NodeIndex(node), GenerationStamp(odd.stamp)))
            .collect()
    }

    /// Nodes with a good replica of a complete block, in the order of their reports.
    pub fn good_holders(&self, id: BlockId) -> Vec<NodeIndex> {
        let entry = self.entry(id);
        if entry.flags & COMPLETE == 0 {
            return Vec::new();
        }
        let mut nodes = self.holders(id);
        if entry.flags & ODD != 0 {
            nodes.retain(|&node| !self.odd.contains_key(&(id.0, node)));
        }
        nodes.into_iter().map(NodeIndex).collect()
    }

    /// Whether a complete block has fewer good replicas than its file asks for, or a unit's group lacks units; at the
    /// cost of one look-up.
    pub fn is_lacking(&self, id: BlockId) -> bool {
        let id = if id.is_striped() { units::mark_of(id) } else { id };
        self.entry(id).flags & (UNDER | MISSING) != 0
    }

    /// Good replicas that make a block safe.
    pub fn replication_min(&self) -> usize {
        self.replication_min
    }

    /// How many nodes a block that is being written should appear on.
    pub fn pipeline_len(&self, id: BlockId) -> usize {
        self.pipelines.get(&id.0).map_or(0, Vec::len)
    }

    /// Whether a block has odd replicas, or more than its file asks for: at the cost of one look-up.
    pub fn has_surplus(&self, id: BlockId) -> bool {
        let entry = self.entry(id);
        entry.flags & ODD != 0 || self.holder_count(entry, id) > self.expected(id, entry)
    }

    /// (good, expected) of a block.
    pub fn good_and_expected(&self, id: BlockId) -> (usize, usize) {
        let entry = self.entry(id);
        if entry.flags & COMPLETE == 0 {
            return (0, 0);
        }
        (self.holders(id).len() - self.odd_of(id).count(), self.expected(id, entry))
    }

    /// Every node that has a replica in whatever state, in the order of their reports.
    pub fn all_holders(&self, id: BlockId) -> Vec<NodeIndex> {
        self.holders(id).into_iter().map(NodeIndex).collect()
    }

    /// Under construction to complete: whatever fits the final stamp and length is good from now on.
    fn commit(&mut self, id: BlockId, truth: &BlockTruth) {
        self.pipelines.remove(&id.0);
        let odd: Vec<(u16, Odd)> = self.odd_of(id).collect();
        for (node, odd) in odd {
            if odd.state == OddState::BeingWritten && odd.stamp < truth.stamp.0 {
                // A pipeline that went on without it, or a recovery, has left it behind.
                self.odd.insert((id.0, node), Odd { state: OddState::Finalized, ..odd });
                continue;
            }
            if odd.state != OddState::Finalized || odd.stamp != truth.stamp.0 {
                continue;
            }
            if odd.length == truth.length {
                self.odd.remove(&(id.0, node));
            } else {
                self.odd.insert((id.0, node), Odd { state: OddState::Corrupt, ..odd });
            }
        }
    }

    /// Complete to under construction (append, truncate, recovery): what was good is finalized as it was.
    fn reopen(&mut self, id: BlockId, truth: &BlockTruth) {
        for node in self.holders(id) {
            self.odd.entry((id.0, node)).or_insert(Odd {
                stamp: truth.stamp.0,
                length: truth.length,
                state: OddState::Finalized,
            });
        }
    }

    fn is_corrupt(&self, id: BlockId, node: u16) -> bool {
        self.odd.get(&(id.0, node)).is_some_and(|odd| odd.state == OddState::Corrupt)
    }

    fn odd_of(&self, id: BlockId) -> impl Iterator<Item = (u16, Odd)> + '_ {
        self.odd.range((id.0, 0)..=(id.0, NONE)).map(|(&(_, node), &odd)| (node, odd))
    }

    /// Sets an entry's class from its holders, and the totals with it.
    fn reclassify(&mut self, id: BlockId) {
        if id.is_striped() {
            self.reclassify_unit(id);
            return;
        }
        let entry = self.entry(id);
        let (mut odd, mut corrupt) = (0, false);
        for (_, record) in self.odd_of(id) {
            odd += 1;
            corrupt |= record.state == OddState::Corrupt;
        }
        let mut flags = entry.flags & (EXISTS | COMPLETE | SPILLED);
        if odd > 0 {
            flags |= ODD;
        }
        if flags & COMPLETE != 0 {
            let good = self.holder_count(entry, id) - odd;
            match good {
                0 => flags |= MISSING,
                _ if good < self.expected(id, entry) => flags |= UNDER,
                _ => {}
            }
            if corrupt {
                flags |= CORRUPT;
            }
            if good >= self.replication_min {
                flags |= SAFE;
            }
        }
        if flags != entry.flags {
            self.store(id, Entry { flags, ..entry });
        }
    }
}

#[cfg(test)]
mod tests;
