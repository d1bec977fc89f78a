//! Walks over the map in slices: what one node holds in a range of ids, what lacks replicas.

use proto::BlockId;

use super::super::datanodes::NodeIndex;
use super::Replicas;
use super::entries::{PAGE_BLOCKS, UNDER};

impl Replicas {
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
}
