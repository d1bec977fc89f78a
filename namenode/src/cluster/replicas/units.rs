//! Units of block groups in the map: each is a block of its own, and a group has an entry beside those of its units.
//!
//! A group's id leaves room for 16 blocks; the last of them is never a unit, and its entry, the *mark*, stands for the
//! group: it has no holders, `expected` says how many units are needed to read the group (high half) and how many
//! more there are (low half), and its flags tell how many good units there are. Only marks are counted in the totals
//! and found by the walk for what lacks replicas; units are not.
//!
//! Always holds: a mark's flags follow from the entries of its units, which lie in the same page.

use proto::BlockId;
use proto::erasure::Policy;

use super::super::block::{GroupState, unit_truth};
use super::super::datanodes::NodeIndex;
use super::entries::*;
use super::{BlockTruth, OddState, Replicas};

/// Where the mark of a group is, behind the group's id.
const MARK: u8 = (BlockId::GROUP_STEP - 1) as u8;
const _: () = assert!(PAGE_BLOCKS.is_multiple_of(BlockId::GROUP_STEP), "a group lies in one page");

/// The mark of a unit's group.
pub(super) fn mark_of(id: BlockId) -> BlockId {
    id.group().of_unit(MARK)
}

/// Whether an entry counts in the totals: a replicated block's, or a group's mark.
pub(super) fn is_counted(id: BlockId) -> bool {
    !id.is_striped() || id.unit() == MARK
}

impl Replicas {
    /// Brings a group and its units in line with the namespace. `policy` is the one that `truth` names.
    pub fn sync_group(&mut self, group: BlockId, policy: Policy, truth: &BlockTruth) {
        let mark = group.of_unit(MARK);
        let mut entry = self.entry(mark);
        if entry.flags & EXISTS == 0 {
            entry.flags = EXISTS;
            self.totals.blocks += 1;
            self.group_totals.blocks += 1;
        }
        entry.expected = policy.units_needed(truth.length) << 4 | policy.parity_units;
        if truth.complete {
            entry.flags |= COMPLETE
        } else {
            entry.flags &= !COMPLETE
        }
        self.store(mark, entry);
        for unit in 0..policy.units() {
            if let Some(truth) = unit_truth(truth, unit) {
                self.sync(group.of_unit(unit), &truth);
            }
        }
        self.reclassify_group(group);
    }

    /// Whether a group is known.
    pub fn knows_group(&self, group: BlockId) -> bool {
        self.entry(group.of_unit(MARK)).flags & EXISTS != 0
    }

    /// How a complete group is; `None` for one that is not complete, or not known.
    pub fn group_state(&self, group: BlockId) -> Option<GroupState> {
        let mark = self.entry(group.of_unit(MARK));
        if mark.flags & COMPLETE == 0 {
            return None;
        }
        let needed = mark.expected >> 4;
        let wanted = if needed == 0 { 0 } else { needed + (mark.expected & 0xf) };
        Some(GroupState { good: self.good_units(group), needed, wanted })
    }

    /// Whether a unit of a complete group is damaged.
    pub fn is_corrupt_group(&self, group: BlockId) -> bool {
        self.entry(group.of_unit(MARK)).flags & CORRUPT != 0
    }

    /// Forgets a group; returns its units with who holds them or was to hold them.
    pub fn remove_group(&mut self, group: BlockId) -> Vec<(BlockId, NodeIndex)> {
        let units = (0..=MARK).map(|unit| group.of_unit(unit));
        units.flat_map(|id| self.remove(id).into_iter().map(move |node| (id, node))).collect()
    }

    /// Sets the class of a unit, and that of its group.
    pub(super) fn reclassify_unit(&mut self, id: BlockId) {
        let entry = self.entry(id);
        let mut flags = entry.flags & (EXISTS | COMPLETE | SPILLED);
        for (_, record) in self.odd_of(id) {
            flags |= ODD;
            if record.state == OddState::Corrupt && flags & COMPLETE != 0 {
                flags |= CORRUPT;
            }
        }
        if flags != entry.flags {
            self.store(id, Entry { flags, ..entry });
        }
        self.reclassify_group(id.group());
    }

    fn reclassify_group(&mut self, group: BlockId) {
        let id = group.of_unit(MARK);
        let mark = self.entry(id);
        let mut flags = mark.flags & (EXISTS | COMPLETE);
        if let Some(state) = self.group_state(group) {
            if state.good < state.needed {
                flags |= MISSING;
            } else {
                flags |= SAFE;
                if state.good < state.wanted {
                    flags |= UNDER;
                }
            }
            let corrupt = |unit| self.entry(group.of_unit(unit)).flags & CORRUPT != 0;
            if (0..MARK).any(corrupt) {
                flags |= CORRUPT;
            }
        }
        if flags != mark.flags {
            self.store(id, Entry { flags, ..mark });
        }
    }

    /// Units of a complete group that have bytes and a good replica.
    fn good_units(&self, group: BlockId) -> u8 {
        let Some(page) = self.pages.get(&(group.0 / PAGE_BLOCKS)) else { return 0 };
        let first = (group.0 % PAGE_BLOCKS) as usize;
        let entries = &page.entries[first..first + usize::from(MARK)];
        let good = |(unit, entry): (usize, &Entry)| {
            let id = group.of_unit(unit as u8);
            let odd = if entry.flags & ODD == 0 { 0 } else { self.odd_of(id).count() };
            entry.flags & (EXISTS | COMPLETE) == EXISTS | COMPLETE
                && entry.expected > 0
                && self.holder_count(*entry, id) > odd
        };
        entries.iter().enumerate().filter(|&unit| good(unit)).count() as u8
    }
}
