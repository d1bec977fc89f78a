//! The entries: eight bytes per block, in pages by id, with what does not fit in side maps.
//!
//! An entry names up to three holders inline; more spill. Pages come and go with their blocks.
//!
//! Always holds: a node is named at most once per entry; `held` counts the entries that name it; the totals follow
//! every flag that is stored.

use proto::BlockId;

use super::super::block::Totals;
use super::super::datanodes::NodeIndex;
use super::Replicas;
use super::units::is_counted;

pub(super) const PAGE_BLOCKS: u64 = 4_096;
pub(super) const NONE: u16 = u16::MAX;
/// An entry's expected replication beyond this stands in a side map.
pub(super) const WIDE: u8 = u8::MAX;

pub(super) const EXISTS: u8 = 1;
pub(super) const COMPLETE: u8 = 2;
pub(super) const SPILLED: u8 = 4;
pub(super) const ODD: u8 = 8;
pub(super) const UNDER: u8 = 16;
pub(super) const MISSING: u8 = 32;
pub(super) const CORRUPT: u8 = 64;
pub(super) const SAFE: u8 = 128;

#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub nodes: [u16; 3],
    pub expected: u8,
    pub flags: u8,
}

pub(super) const EMPTY: Entry = Entry { nodes: [NONE; 3], expected: 0, flags: 0 };
const _: () = assert!(size_of::<Entry>() == 8, "the map costs eight bytes per block");

pub(super) struct Page {
    pub entries: [Entry; PAGE_BLOCKS as usize],
    pub blocks: u32,
}

impl Replicas {
    pub(super) fn entry(&self, id: BlockId) -> Entry {
        let page = self.pages.get(&(id.0 / PAGE_BLOCKS));
        page.map_or(EMPTY, |page| page.entries[(id.0 % PAGE_BLOCKS) as usize])
    }

    /// Writes an entry, counting what its flags changed; pages come and go with their blocks.
    pub(super) fn store(&mut self, id: BlockId, entry: Entry) {
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
        if entry.flags & EXISTS != 0 && is_counted(id) {
            self.count(id, before, entry.flags);
        }
    }

    /// Counts a change of flags of a block, or of a group's mark.
    pub(super) fn count(&mut self, id: BlockId, before: u8, after: u8) {
        step(&mut self.totals, before, after);
        if id.is_striped() {
            step(&mut self.group_totals, before, after);
        }
    }

    /// An expected replication as an entry holds it; a wide one stands in the side map.
    pub(super) fn narrow(&mut self, id: BlockId, replication: u32) -> u8 {
        let expected = u8::try_from(replication).unwrap_or(WIDE);
        if expected == WIDE {
            self.wide.insert(id.0, replication);
        } else if !self.wide.is_empty() {
            self.wide.remove(&id.0);
        }
        expected
    }

    pub(super) fn expected(&self, id: BlockId, entry: Entry) -> usize {
        match entry.expected {
            WIDE => self.wide.get(&id.0).map_or(usize::from(WIDE), |&wide| wide as usize),
            narrow => usize::from(narrow),
        }
    }

    pub(super) fn holders(&self, id: BlockId) -> Vec<u16> {
        let entry = self.entry(id);
        if entry.flags & SPILLED != 0 {
            return self.spilled.get(&id.0).cloned().unwrap_or_default();
        }
        entry.nodes.iter().copied().filter(|&node| node != NONE).collect()
    }

    pub(super) fn holder_count(&self, entry: Entry, id: BlockId) -> usize {
        if entry.flags & SPILLED != 0 {
            return self.spilled.get(&id.0).map_or(0, Vec::len);
        }
        entry.nodes.iter().filter(|&&node| node != NONE).count()
    }

    pub(super) fn holds(&self, entry: &Entry, id: BlockId, node: NodeIndex) -> bool {
        if entry.flags & SPILLED != 0 {
            return self.spilled.get(&id.0).is_some_and(|nodes| nodes.contains(&node.0));
        }
        entry.nodes.contains(&node.0)
    }

    pub(super) fn add_holder(&mut self, node: NodeIndex, id: BlockId) {
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

    pub(super) fn remove_holder(&mut self, node: NodeIndex, id: BlockId) -> bool {
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

fn step(totals: &mut Totals, before: u8, after: u8) {
    let step = |bit: u8, total: &mut u64| match (before & bit != 0, after & bit != 0) {
        (false, true) => *total += 1,
        (true, false) => *total -= 1,
        _ => {}
    };
    step(COMPLETE, &mut totals.complete);
    step(SAFE, &mut totals.safe);
    step(UNDER, &mut totals.under_replicated);
    step(MISSING, &mut totals.missing);
    step(CORRUPT, &mut totals.corrupt);
}

/// The count of a node's replicas.
pub(super) fn held(held: &mut Vec<u64>, node: NodeIndex) -> &mut u64 {
    let number = usize::from(node.0);
    if held.len() <= number {
        held.resize(number + 1, 0);
    }
    &mut held[number]
}
