//! Copies of blocks that have fewer good replicas than their file asks for.
//!
//! A slow walk over the map finds under-replicated blocks. One that is still so after a grace time (replicas of a
//! block that was just closed come in late) is copied: a holder is told to transfer it to targets that placement
//! chose. A copy that did not show by its deadline is tried again. Per node and in all, what is under way is bounded.
//!
//! Only replicated blocks with at least one good replica; what is missing waits for its nodes.

use std::collections::BTreeMap;

use proto::BlockId;
use proto::granary::{Block, TransferBlock};

use super::datanodes::{Liveness, NodeIndex};
use super::outbox::OUTBOX_MAX;
use super::placement::Wanted;
use super::replicas::BlockTruth;
use super::{Cluster, Effect, Truth};

/// Blocks that are looked after at once.
const PENDING_MAX: usize = 10_000;
/// Pages of the map that one tick looks through.
const PAGES_PER_TICK: usize = 1_024;
/// How long a copy may take, in milliseconds, and per byte as if a node managed 10 MB/s.
const COPY_MS_MIN: u64 = 10_000;
const COPY_BYTES_PER_MS: u64 = 10_000;

#[derive(Clone, Debug)]
struct Pending {
    deadline_ms: u64,
    source: Option<NodeIndex>,
}

/// What is under way.
#[derive(Debug)]
pub struct Repairs {
    cursor: u64,
    pending: BTreeMap<u64, Pending>,
    copies: BTreeMap<NodeIndex, usize>,
    grace_ms: u64,
    copies_per_node_max: usize,
}

impl Repairs {
    /// Nothing under way.
    pub fn new(grace_ms: u64, copies_per_node_max: usize) -> Self {
        Self {
            cursor: 0,
            pending: BTreeMap::new(),
            copies: BTreeMap::new(),
            grace_ms,
            copies_per_node_max,
        }
    }

    fn forget(&mut self, id: u64) {
        let Some(source) = self.pending.remove(&id).and_then(|pending| pending.source) else {
            return;
        };
        if let Some(count) = self.copies.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.copies.remove(&source);
            }
        }
    }
}

impl Cluster {
    /// Copies that are under way or about to be.
    pub fn repairs_pending(&self) -> usize {
        self.repairs.pending.len()
    }

    /// Looks for under-replicated blocks and goes on with those found.
    pub(super) fn repair(&mut self, now_ms: u64, truth: Truth<'_>) {
        if self.replicas.totals().under_replicated == 0 && self.repairs.pending.is_empty() {
            return;
        }
        let room = PENDING_MAX.saturating_sub(self.repairs.pending.len());
        if room > 0 {
            let (found, next) =
                self.replicas.under_replicated(self.repairs.cursor, PAGES_PER_TICK, room);
            self.repairs.cursor = next.unwrap_or(0);
            let deadline_ms = now_ms.saturating_add(self.repairs.grace_ms);
            for id in found.into_iter().take(room) {
                let pending = Pending { deadline_ms, source: None };
                self.repairs.pending.entry(id.0).or_insert(pending);
            }
        }
        let ids: Vec<u64> = self.repairs.pending.keys().copied().collect();
        for id in ids {
            self.repair_block(now_ms, BlockId(id), truth);
        }
    }

    fn repair_block(&mut self, now_ms: u64, id: BlockId, truth: Truth<'_>) {
        let (good, expected) = self.replicas.good_and_expected(id);
        let Some(truth) = truth(id).filter(|_| good > 0 && good < expected) else {
            self.repairs.forget(id.0);
            self.drop_copy_promise(id);
            return;
        };
        if self.repairs.pending.get(&id.0).is_some_and(|pending| now_ms < pending.deadline_ms) {
            return;
        }
        self.repairs.forget(id.0);
        self.drop_copy_promise(id);
        // What cannot be copied now makes room for others; the walk comes by again.
        if let Some(source) = self.start_copy(id, &truth, expected - good) {
            *self.repairs.copies.entry(source).or_default() += 1;
            let took_ms = COPY_MS_MIN.saturating_add(truth.length / COPY_BYTES_PER_MS);
            let deadline_ms = now_ms.saturating_add(took_ms);
            let pending = Pending { deadline_ms, source: Some(source) };
            self.repairs.pending.insert(id.0, pending);
        } else {
            // Perhaps every node holds it, in whatever state: what is bad makes room.
            self.settle_block(id, &truth);
        }
    }

    /// Tells a holder to copy a block; `None`: no holder is free, or no node can take a copy.
    fn start_copy(
        &mut self,
        id: BlockId,
        truth: &BlockTruth,
        replicas: usize,
    ) -> Option<NodeIndex> {
        let copies = |node: &NodeIndex| self.repairs.copies.get(node).copied().unwrap_or(0);
        let source = self
            .replicas
            .locations(id, truth)
            .nodes
            .into_iter()
            .filter(|&node| self.datanodes.get(node).liveness == Liveness::Alive)
            .filter(|node| copies(node) < self.repairs.copies_per_node_max)
            .min_by_key(|node| (copies(node), *node))?;
        let existing = self.replicas.all_holders(id);
        let wanted = Wanted {
            replicas,
            replicas_min: 1,
            block_bytes: truth.length,
            writer_host: "",
            favoured: &[],
            existing: &existing,
            excluded: &[],
        };
        // No node can take a copy now: a later tick looks again.
        let targets = self.place(&wanted).ok()?;
        let outbox = &mut self.outboxes[usize::from(source.0)];
        if outbox.transfer.len() >= OUTBOX_MAX {
            return None;
        }
        let block = Block { id: id.0, generation_stamp: truth.stamp.0, length: truth.length };
        let addresses = self.addresses(&targets);
        let command = TransferBlock { block: Some(block), targets: addresses };
        self.outboxes[usize::from(source.0)].transfer.push_back(command);
        self.promise(id, &targets, truth.length);
        self.effects.push(Effect::Wake(source));
        Some(source)
    }

    /// What was promised to a copy; a complete block has no other promise.
    fn drop_copy_promise(&mut self, id: BlockId) {
        let (_, expected) = self.replicas.good_and_expected(id);
        if expected > 0 {
            self.release(id);
        }
    }
}
