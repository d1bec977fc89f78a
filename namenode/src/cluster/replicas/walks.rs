//! Walks over the map in slices: what one node holds in a range of ids, what deserves a look.

use proto::BlockId;

use super::super::datanodes::NodeIndex;
use super::Replicas;
use super::entries::{COMPLETE, EXISTS, NONE, ODD, PAGE_BLOCKS, SPILLED, UNDER};

impl Replicas {
    /// Drops the replicas of a node in blocks with `from <= id < end`, unless `keep` says otherwise, and at most so
    /// many; tells which.
    pub fn drop_range(
        &mut self,
        node: NodeIndex,
        (from, end): (u64, u64),
        limit: usize,
        keep: impl Fn(BlockId) -> bool,
    ) -> Vec<BlockId> {
        let mut gone = Vec::new();
        if from >= end || self.held_by(node) == 0 {
            return gone;
        }
        for (&number, page) in self.pages.range(from / PAGE_BLOCKS..=(end - 1) / PAGE_BLOCKS) {
            let base = number * PAGE_BLOCKS;
            let first = from.saturating_sub(base).min(PAGE_BLOCKS);
            let last = (end - base).min(PAGE_BLOCKS);
            let ids = (first..last).map(|slot| BlockId(base + slot)).filter(|&id| {
                self.holds(&page.entries[(id.0 - base) as usize], id, node) && !keep(id)
            });
            gone.extend(ids.take(limit.saturating_sub(gone.len())));
            if gone.len() >= limit {
                break;
            }
        }
        for &id in &gone {
            self.drop_replica(node, id);
        }
        gone
    }

    /// Goes on with dropping all replicas of a node, from block `from` on, through up to `pages_max` pages and up to
    /// `limit` replicas. Returns what was dropped, and where to go on, or `None` when it is through.
    pub fn sweep(
        &mut self,
        node: NodeIndex,
        from: u64,
        pages_max: usize,
        limit: usize,
    ) -> (Vec<BlockId>, Option<u64>) {
        if self.held_by(node) == 0 {
            return (Vec::new(), None);
        }
        let numbers = self.pages.range(from / PAGE_BLOCKS..).map(|(&number, _)| number);
        let Some(last) = numbers.take(pages_max).last() else { return (Vec::new(), None) };
        let end = last.saturating_add(1).saturating_mul(PAGE_BLOCKS);
        let dropped = self.drop_range(node, (from, end), limit, |_| false);
        let next = match dropped.last() {
            Some(id) if dropped.len() >= limit => id.0 + 1,
            _ => end,
        };
        (dropped, Some(next))
    }

    /// Blocks from `from` on that deserve a look, in up to `pages_max` pages and up to `limit` of them; and where to go
    /// on, or `None` at the end. Those are blocks with too few or too many replicas or odd ones, and those of whose
    /// holders (with those that are to write it) `concern` says so.
    pub fn walk(
        &self,
        from: u64,
        pages_max: usize,
        limit: usize,
        concern: impl Fn(&[u16]) -> bool,
    ) -> (Vec<BlockId>, Option<u64>) {
        let mut found = Vec::new();
        for (step, (&number, page)) in self.pages.range(from / PAGE_BLOCKS..).enumerate() {
            let base = number * PAGE_BLOCKS;
            if step == pages_max {
                return (found, Some(base));
            }
            for id in (base.max(from)..base + PAGE_BLOCKS).map(BlockId) {
                let entry = page.entries[(id.0 - base) as usize];
                if entry.flags & EXISTS == 0 {
                    continue;
                }
                if found.len() >= limit {
                    return (found, Some(id.0));
                }
                if self.deserves_a_look(id, entry, &concern) {
                    found.push(id);
                }
            }
        }
        (found, None)
    }

    /// Complete blocks from `from` on of which a node holds a good replica, in up to `pages_max` pages and up to `limit`
    /// of them; and where to go on, or `None` at the end.
    pub fn good_on(
        &self,
        node: NodeIndex,
        from: u64,
        pages_max: usize,
        limit: usize,
    ) -> (Vec<BlockId>, Option<u64>) {
        let mut found = Vec::new();
        for (step, (&number, page)) in self.pages.range(from / PAGE_BLOCKS..).enumerate() {
            let base = number * PAGE_BLOCKS;
            if step == pages_max {
                return (found, Some(base));
            }
            for id in (base.max(from)..base + PAGE_BLOCKS).map(BlockId) {
                let entry = page.entries[(id.0 - base) as usize];
                let good = entry.flags & COMPLETE != 0
                    && self.holds(&entry, id, node)
                    && !self.odd.contains_key(&(id.0, node.0));
                if good && found.len() >= limit {
                    return (found, Some(id.0));
                }
                if good {
                    found.push(id);
                }
            }
        }
        (found, None)
    }

    fn deserves_a_look(
        &self,
        id: BlockId,
        entry: super::entries::Entry,
        concern: impl Fn(&[u16]) -> bool,
    ) -> bool {
        if entry.flags & COMPLETE == 0 {
            let mut holders = self.holders(id);
            holders.extend(self.pipelines.get(&id.0).into_iter().flatten());
            return concern(&holders);
        }
        if entry.flags & (UNDER | ODD) != 0 {
            return true;
        }
        if entry.flags & SPILLED != 0 {
            let holders = self.holders(id);
            return holders.len() > self.expected(id, entry) || concern(&holders);
        }
        let count = entry.nodes.iter().position(|&node| node == NONE).unwrap_or(3);
        count > self.expected(id, entry) || concern(&entry.nodes[..count])
    }
}
