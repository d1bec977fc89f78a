//! Which DataNodes hold which block, in eight bytes per block, with every count kept as it changes.
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

use std::collections::{BTreeMap, HashMap};

use proto::granary::ReplicaState;
use proto::{BlockId, GenerationStamp};

pub use super::block::{BlockTruth, Locations, Reported, Totals, Verdict};
use super::datanodes::NodeIndex;

const PAGE_BLOCKS: u64 = 4_096;
const NONE: u16 = u16::MAX;
/// An entry's expected replication beyond this stands in a side map.
const WIDE: u8 = u8::MAX;

const EXISTS: u8 = 1;
const COMPLETE: u8 = 2;
const SPILLED: u8 = 4;
const ODD: u8 = 8;
const UNDER: u8 = 16;
const MISSING: u8 = 32;
const CORRUPT: u8 = 64;
const SAFE: u8 = 128;

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

#[derive(Clone, Copy)]
struct Entry {
    nodes: [u16; 3],
    expected: u8,
    flags: u8,
}

const EMPTY: Entry = Entry { nodes: [NONE; 3], expected: 0, flags: 0 };
const _: () = assert!(size_of::<Entry>() == 8, "the map costs eight bytes per block");

struct Page {
    entries: [Entry; PAGE_BLOCKS as usize],
    blocks: u32,
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
            replication_min: replication_min as usize,
        }
    }

    /// Counts over all blocks, at no cost.
    pub fn totals(&self) -> Totals {
        self.totals
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
            self.totals.blocks += 1;
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
            self.count(flags, 0);
            self.totals.blocks -= 1;
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
            && truth.replication < u32::from(WIDE);
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
        self.count(before, after);
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

    /// Bad replicas (damaged, stale) that may go, each with the stamp it has: the good ones are as many as the file
    /// asks for, or every one of the `living` nodes holds the block, so that only a deletion makes room for a copy.
    pub fn surplus_bad(&self, id: BlockId, living: usize) -> Vec<(NodeIndex, GenerationStamp)> {
        let entry = self.entry(id);
        if entry.flags & (COMPLETE | ODD) != COMPLETE | ODD {
            return Vec::new();
        }
        let holders = self.holders(id);
        let bad: Vec<_> = self
            .odd_of(id)
            .filter(|(_, odd)| odd.state != OddState::BeingWritten)
            .map(|(node, odd)| (NodeIndex(node), GenerationStamp(odd.stamp)))
            .collect();
        let good = holders.len() - self.odd_of(id).count();
        let enough = good >= self.expected(id, entry)
            || (good >= self.replication_min.max(1) && holders.len() >= living);
        if enough { bad } else { Vec::new() }
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

    /// Drops the replicas of a node in blocks with `from <= id < end`, unless `keep` says otherwise.
    pub fn drop_range(
        &mut self,
        node: NodeIndex,
        from: u64,
        end: u64,
        keep: impl Fn(BlockId) -> bool,
    ) {
        if from >= end || self.held_by(node) == 0 {
            return;
        }
        let mut gone = Vec::new();
        for (&number, page) in self.pages.range(from / PAGE_BLOCKS..=(end - 1) / PAGE_BLOCKS) {
            let base = number * PAGE_BLOCKS;
            let first = from.saturating_sub(base).min(PAGE_BLOCKS);
            let last = (end - base).min(PAGE_BLOCKS);
            gone.extend((first..last).map(|slot| BlockId(base + slot)).filter(|&id| {
                self.holds(&page.entries[(id.0 - base) as usize], id, node) && !keep(id)
            }));
        }
        for id in gone {
            self.drop_replica(node, id);
        }
    }

    /// Goes on with dropping all replicas of a node: up to `pages_max` pages from page `cursor` on. Returns where to
    /// go on, or `None` when it is through.
    pub fn sweep(&mut self, node: NodeIndex, cursor: u64, pages_max: usize) -> Option<u64> {
        if self.held_by(node) == 0 {
            return None;
        }
        let numbers: Vec<u64> =
            self.pages.range(cursor..).map(|(&number, _)| number).take(pages_max).collect();
        let last = *numbers.last()?;
        for number in numbers {
            self.drop_range(node, number * PAGE_BLOCKS, (number + 1) * PAGE_BLOCKS, |_| false);
        }
        Some(last + 1)
    }

    /// Up to `limit` under-replicated blocks in up to `pages_max` pages from page `cursor` on, and where to go on
    /// (`None`: from the start).
    pub fn under_replicated(
        &self,
        cursor: u64,
        pages_max: usize,
        limit: usize,
    ) -> (Vec<BlockId>, Option<u64>) {
        let mut found = Vec::new();
        for (step, (&number, page)) in self.pages.range(cursor..).enumerate() {
            if step == pages_max || found.len() >= limit {
                return (found, Some(number));
            }
            let hits = page.entries.iter().enumerate().filter(|(_, e)| e.flags & UNDER != 0);
            found.extend(hits.map(|(slot, _)| BlockId(number * PAGE_BLOCKS + slot as u64)));
        }
        (found, None)
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

    fn count(&mut self, before: u8, after: u8) {
        let step = |bit: u8, total: &mut u64| match (before & bit != 0, after & bit != 0) {
            (false, true) => *total += 1,
            (true, false) => *total -= 1,
            _ => {}
        };
        step(COMPLETE, &mut self.totals.complete);
        step(SAFE, &mut self.totals.safe);
        step(UNDER, &mut self.totals.under_replicated);
        step(MISSING, &mut self.totals.missing);
        step(CORRUPT, &mut self.totals.corrupt);
    }

    /// An expected replication as an entry holds it; a wide one stands in the side map.
    fn narrow(&mut self, id: BlockId, replication: u32) -> u8 {
        let expected = u8::try_from(replication).unwrap_or(WIDE);
        if expected == WIDE {
            self.wide.insert(id.0, replication);
        } else if !self.wide.is_empty() {
            self.wide.remove(&id.0);
        }
        expected
    }

    fn expected(&self, id: BlockId, entry: Entry) -> usize {
        match entry.expected {
            WIDE => self.wide.get(&id.0).map_or(usize::from(WIDE), |&wide| wide as usize),
            narrow => usize::from(narrow),
        }
    }

    fn entry(&self, id: BlockId) -> Entry {
        let page = self.pages.get(&(id.0 / PAGE_BLOCKS));
        page.map_or(EMPTY, |page| page.entries[(id.0 % PAGE_BLOCKS) as usize])
    }

    /// Writes an entry, counting what its flags changed; pages come and go with their blocks.
    fn store(&mut self, id: BlockId, entry: Entry) {
        let number = id.0 / PAGE_BLOCKS;
        let page = self.pages.entry(number).or_insert_with(|| {
            Box::new(Page { entries: [EMPTY; PAGE_BLOCKS as usize], blocks: 0 })
        });
        let slot = &mut page.entries[(id.0 % PAGE_BLOCKS) as usize];
        let before = slot.flags;
        *slot = entry;
        match (before & EXISTS != 0, entry.flags & EXISTS != 0) {
            (false, true) => page.blocks += 1,
            (true, false) => page.blocks -= 1,
            _ => {}
        }
        if page.blocks == 0 {
            self.pages.remove(&number);
        }
        if entry.flags & EXISTS != 0 {
            self.count(before, entry.flags);
        }
    }

    fn holders(&self, id: BlockId) -> Vec<u16> {
        let entry = self.entry(id);
        if entry.flags & SPILLED != 0 {
            return self.spilled.get(&id.0).cloned().unwrap_or_default();
        }
        entry.nodes.iter().copied().filter(|&node| node != NONE).collect()
    }

    fn holder_count(&self, entry: Entry, id: BlockId) -> usize {
        if entry.flags & SPILLED != 0 {
            return self.spilled.get(&id.0).map_or(0, Vec::len);
        }
        entry.nodes.iter().filter(|&&node| node != NONE).count()
    }

    fn holds(&self, entry: &Entry, id: BlockId, node: NodeIndex) -> bool {
        if entry.flags & SPILLED != 0 {
            return self.spilled.get(&id.0).is_some_and(|nodes| nodes.contains(&node.0));
        }
        entry.nodes.contains(&node.0)
    }

    fn add_holder(&mut self, node: NodeIndex, id: BlockId) {
        let mut entry = self.entry(id);
        if self.holds(&entry, id, node) {
            return;
        }
        if entry.flags & SPILLED != 0 {
            self.spilled.entry(id.0).or_default().push(node.0);
        } else if let Some(free) = entry.nodes.iter_mut().find(|slot| **slot == NONE) {
            *free = node.0;
        } else {
            let mut nodes = entry.nodes.to_vec();
            nodes.push(node.0);
            self.spilled.insert(id.0, nodes);
            entry.nodes = [NONE; 3];
            entry.flags |= SPILLED;
        }
        self.store(id, entry);
        *held(&mut self.held, node) += 1;
    }

    fn remove_holder(&mut self, node: NodeIndex, id: BlockId) -> bool {
        let mut entry = self.entry(id);
        if !self.holds(&entry, id, node) {
            return false;
        }
        let mut nodes = self.holders(id);
        nodes.retain(|&holder| holder != node.0);
        if nodes.len() > 3 {
            self.spilled.insert(id.0, nodes);
        } else {
            self.spilled.remove(&id.0);
            entry.flags &= !SPILLED;
            entry.nodes = [NONE; 3];
            entry.nodes[..nodes.len()].copy_from_slice(&nodes);
            self.store(id, entry);
        }
        self.held[usize::from(node.0)] -= 1;
        true
    }
}

/// The count of a node's replicas.
fn held(held: &mut Vec<u64>, node: NodeIndex) -> &mut u64 {
    let number = usize::from(node.0);
    if held.len() <= number {
        held.resize(number + 1, 0);
    }
    &mut held[number]
}

/// What one reported replica is, seen beside the namespace's view. A replica that was found damaged stays so until a
/// newer stamp of it, or its deletion, is told: a report says what the files are called, not what is in them.
fn judge(replica: &Reported, truth: &BlockTruth, known_corrupt: bool) -> (Option<Odd>, Verdict) {
    let odd = |state| Some(Odd { stamp: replica.stamp.0, length: replica.length, state });
    let fits = replica.stamp == truth.stamp;
    match replica.state {
        _ if known_corrupt => (odd(OddState::Corrupt), Verdict::Bad),
        ReplicaState::Corrupt => (odd(OddState::Corrupt), Verdict::Bad),
        // Nobody writes these on: the block was completed without them.
        ReplicaState::WaitingRecovery if truth.complete => (odd(OddState::Finalized), Verdict::Bad),
        ReplicaState::BeingWritten if truth.complete && replica.stamp < truth.stamp => {
            (odd(OddState::Finalized), Verdict::Bad)
        }
        ReplicaState::BeingWritten | ReplicaState::WaitingRecovery => {
            (odd(OddState::BeingWritten), Verdict::Noted)
        }
        _ if !truth.complete => {
            let verdict = if fits { Verdict::Finalized } else { Verdict::Noted };
            (odd(OddState::Finalized), verdict)
        }
        _ if fits && replica.length == truth.length => (None, Verdict::Finalized),
        _ if fits => (odd(OddState::Corrupt), Verdict::Bad),
        _ => (odd(OddState::Finalized), Verdict::Bad),
    }
}

#[cfg(test)]
mod tests;
