//! Repair: blocks that lack good replicas, or have them in the wrong places, are copied, the most endangered first.
//!
//! | module | owns |
//! |---|---|
//! | [`queue`] | what waits, in the order of danger |
//! | [`need`] | what a block needs |
//! | `groups` | the same of block groups: lost units are computed |
//! | [`streams`] | what may be under way at once |
//! | [`progress`] | what is left, and how fast it goes |
//!
//! A block is looked at when something happened to it: a replica of it was lost with its node, was found damaged, was
//! deleted, came in; and now and then by the patrol, which misses nothing. What it needs is then known from the map
//! alone; if it needs something it waits in the queue, once. A *copy* is under way from the command to its source until
//! its targets have reported the replica, or its deadline is over, or one of its nodes died; then the block is looked
//! at again. A slot that becomes free is used at once.
//!
//! Always holds: a block is waiting or under way or neither, never both; no node and no sum is above its limit; a
//! target holds no replica of the block, good or bad.
//!
//! A unit of a block group that stands on a node that is to go is copied as any block is, to a node that holds no other
//! unit of its group. What a group lacks is known for the group alone: it is named by its mark (see [`group_mark`]).

mod groups;
pub mod need;
pub mod progress;
pub mod queue;
pub mod streams;

use std::collections::{BTreeMap, BTreeSet};

use proto::BlockId;
use proto::erasure::Policy;
use proto::granary::{Block, TransferBlock};

use super::datanodes::{Liveness, NodeIndex};
use super::outbox::OUTBOX_MAX;
use super::placement::Wanted;
use super::replicas::BlockTruth;
use super::{Cluster, Effect, Truth};
use need::Need;
use progress::{Progress, Rate, left_ms};
use queue::{Danger, Item, QUEUE_MAX, Queue};
use streams::{StreamLimits, Streams};

/// Waiting blocks that one tick tries to begin.
const TRIES_PER_TICK: usize = 20_000;
/// Waiting blocks that are tried when a copy came in.
const TRIES_PER_ARRIVAL: usize = 200;
/// How long a copy may take, in milliseconds, and per byte as if a node managed 10 MB/s.
const COPY_MS_MIN: u64 = 10_000;
const COPY_BYTES_PER_MS: u64 = 10_000;
/// The pause of a block whose copy failed, in milliseconds: the first, and the longest.
const FAILED_PAUSE_MS: (u64, u64) = (5_000, 300_000);
/// The pause of a block that has no place to go, and of one whose nodes have no room just now.
const NO_PLACE_PAUSE_MS: u64 = 30_000;
const NO_ROOM_PAUSE_MS: u64 = 1_000;

/// What repair goes by.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long a block whose replicas may yet be on their way is left alone.
    pub grace_ms: u64,
    /// What may be under way at once.
    pub limits: StreamLimits,
    /// Replicas that must stand in service beside those in maintenance.
    pub maintenance_replicas_min: u32,
}

/// Why a copy is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The block needs it.
    Mend,
    /// This node shall hold less: its replica goes when the copy has shown.
    Relieve(NodeIndex),
}

/// A copy under way.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    /// Who sends, or reads to compute.
    pub sources: Vec<NodeIndex>,
    /// What is yet to show, and where.
    pub targets: Vec<(BlockId, NodeIndex)>,
    /// Bytes that each target takes.
    pub bytes: u64,
    /// When it is given up.
    pub deadline_ms: u64,
    /// Why it is made.
    pub purpose: Purpose,
    /// How often it was tried before.
    pub tries: u32,
}

/// How a copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Every target reported it.
    Done,
    /// Some target did not, or a node died.
    Failed,
    /// The block is gone, or is written again.
    Moot,
}

/// What waits, what is under way, and what was done.
#[derive(Debug)]
pub(super) struct Repairs {
    pub queue: Queue,
    pub streams: Streams,
    pub copies: BTreeMap<u64, Copy>,
    rate: Rate,
    grace_ms: u64,
    done_blocks: u64,
    done_bytes: u64,
    failed: u64,
}

impl Repairs {
    /// Nothing waits, nothing is under way.
    pub fn new(settings: &Settings) -> Self {
        Self {
            queue: Queue::new(QUEUE_MAX),
            streams: Streams::new(settings.limits),
            copies: BTreeMap::new(),
            rate: Rate::default(),
            grace_ms: settings.grace_ms,
            done_blocks: 0,
            done_bytes: 0,
            failed: 0,
        }
    }

    /// Whether the arrival of a block's replica may concern repair.
    pub fn knows(&self, id: BlockId) -> bool {
        let known = |id: BlockId| self.copies.contains_key(&id.0) || self.queue.contains(id);
        known(id) || (id.is_striped() && known(group_mark(id)))
    }

    /// The node that a block is being moved away from.
    pub fn moved_from(&self, id: BlockId) -> Option<NodeIndex> {
        match self.copies.get(&id.0)?.purpose {
            Purpose::Relieve(from) => Some(from),
            Purpose::Mend => None,
        }
    }

    /// The copy under way that makes a replica of this block there.
    fn copy_to(&mut self, id: BlockId, node: NodeIndex) -> Option<(BlockId, &mut Copy)> {
        let makes = |whole: &BlockId| {
            let copy = self.copies.get(&whole.0);
            copy.is_some_and(|copy| copy.targets.contains(&(id, node)))
        };
        let whole = [Some(id), id.is_striped().then(|| group_mark(id))];
        let whole = whole.into_iter().flatten().find(makes)?;
        self.copies.get_mut(&whole.0).map(|copy| (whole, copy))
    }
}

/// What stands for a whole block group in the queue and among the copies: the block of the group that is never a unit.
pub(super) fn group_mark(id: BlockId) -> BlockId {
    id.group().of_unit((BlockId::GROUP_STEP - 1) as u8)
}

/// Whether this stands for a whole block group.
pub fn is_mark(id: BlockId) -> bool {
    id.is_striped() && id == group_mark(id)
}

impl Cluster {
    /// How far repair is.
    pub fn repair_progress(&mut self, now_ms: u64) -> Progress {
        let searching = self.is_searching();
        let repairs = &mut self.repairs;
        let of = |mend: bool| {
            let copies = repairs.copies.values();
            copies.filter(move |copy| (copy.purpose == Purpose::Mend) == mend)
        };
        let copies = of(true).count() as u64;
        let copies_bytes = of(true).map(|copy| copy.bytes * copy.targets.len() as u64).sum();
        let bytes_per_s = repairs.rate.bytes_per_s(now_ms);
        let waiting_bytes = repairs.queue.bytes();
        Progress {
            waiting_by_danger: repairs.queue.by_danger(),
            waiting_later: (repairs.queue.len() - repairs.queue.ready_len()) as u64,
            waiting_bytes,
            copies,
            copies_bytes,
            done_blocks: repairs.done_blocks,
            done_bytes: repairs.done_bytes,
            failed: repairs.failed,
            bytes_per_s,
            left_ms: left_ms(waiting_bytes.saturating_add(copies_bytes), bytes_per_s),
            searching,
            misplaced: self.patrol.last_round().misplaced,
            left_out: repairs.queue.left_out(),
        }
    }

    /// An operator wants a block mended now. True if it needs that.
    pub fn repair_now(&mut self, id: BlockId, truth: &BlockTruth) -> bool {
        // Whoever asks names a group by its id.
        let id = if id.is_striped() { group_mark(id) } else { id };
        self.settle_block(id, truth);
        self.notice(id, truth, 0, true)
    }

    /// Something happened to a block: what it needs is put in the queue, or taken out of it. True if it needs
    /// something.
    pub(super) fn notice(
        &mut self,
        id: BlockId,
        truth: &BlockTruth,
        ready_ms: u64,
        urgent: bool,
    ) -> bool {
        if self.repairs.copies.contains_key(&id.0) {
            return true;
        }
        let Some(Need { danger, copies }) = self.assess(id, truth) else {
            self.repairs.queue.remove(id);
            return false;
        };
        let policy = Policy::by_id(truth.policy).filter(|_| is_mark(id));
        let each = policy.map_or(truth.length, |policy| policy.unit_bytes(truth.length, 0));
        let bytes = each.saturating_mul(copies as u64);
        self.repairs.queue.put(id, Item { danger, urgent, bytes, ready_ms });
        true
    }

    /// As [`Cluster::notice`], for what may mend by itself within the grace time.
    pub(super) fn notice_in_time(&mut self, id: BlockId, truth: &BlockTruth) {
        let ready_ms = self.now_ms.saturating_add(self.repairs.grace_ms).max(1);
        self.notice(id, truth, ready_ms, false);
    }

    /// Ends what took too long, and begins what may be.
    pub(super) fn repair(&mut self, now_ms: u64, truth: Truth<'_>) {
        let overdue = |copy: &Copy| copy.deadline_ms <= now_ms;
        let over: Vec<u64> =
            self.repairs.copies.iter().filter(|(_, c)| overdue(c)).map(|(&id, _)| id).collect();
        for id in over {
            self.end_copy(BlockId(id), Outcome::Failed, truth);
        }
        self.repairs.queue.wake(now_ms);
        self.begin_some(now_ms, truth, TRIES_PER_TICK);
    }

    /// A replica came in: if a copy made it, its slot is free for the next.
    pub(super) fn arrived(&mut self, node: NodeIndex, id: BlockId, truth: Truth<'_>) {
        let Some((whole, copy)) = self.repairs.copy_to(id, node) else { return };
        copy.targets.retain(|&target| target != (id, node));
        let (bytes, through) = (copy.bytes, copy.targets.is_empty());
        let mends = copy.purpose == Purpose::Mend;
        self.repairs.streams.end_target(node);
        if mends {
            self.repairs.rate.add(self.now_ms, bytes);
            self.repairs.done_bytes = self.repairs.done_bytes.saturating_add(bytes);
        }
        if through {
            self.end_copy(whole, Outcome::Done, truth);
            self.begin_some(self.now_ms, truth, TRIES_PER_ARRIVAL);
        }
    }

    /// A node is no longer there to send or to receive: its copies failed. They are looked at with the next tick.
    pub(super) fn end_copies_of(&mut self, node: NodeIndex) {
        let concerns = |copy: &Copy| {
            copy.sources.contains(&node) || copy.targets.iter().any(|&(_, target)| target == node)
        };
        let copies = self.repairs.copies.iter();
        let ids: Vec<u64> = copies.filter(|(_, copy)| concerns(copy)).map(|(&id, _)| id).collect();
        for id in ids {
            self.end_copy(BlockId(id), Outcome::Failed, &|_| None);
            self.look_again.insert(BlockId(id));
        }
    }

    /// A block is gone or is written again: nothing is to be repaired.
    pub(super) fn forget_repair(&mut self, id: BlockId) {
        if self.repairs.copies.contains_key(&id.0) {
            self.end_copy(id, Outcome::Moot, &|_| None);
        }
        self.repairs.queue.remove(id);
    }

    /// Takes a copy down, gives back what it held, and looks at its block again.
    pub(super) fn end_copy(&mut self, id: BlockId, outcome: Outcome, truth: Truth<'_>) {
        let Some(copy) = self.repairs.copies.remove(&id.0) else { return };
        self.repairs.streams.end(&copy.sources);
        for &(_, node) in &copy.targets {
            self.repairs.streams.end_target(node);
        }
        self.release(id);
        copy.targets.iter().for_each(|&(made, _)| self.release(made));
        match (outcome, copy.purpose) {
            (Outcome::Done, Purpose::Mend) => self.repairs.done_blocks += 1,
            (Outcome::Failed, Purpose::Mend) => self.repairs.failed += 1,
            (_, Purpose::Relieve(_)) => self.move_ended(id, &copy, outcome),
            _ => {}
        }
        if outcome == Outcome::Moot {
            return;
        }
        let Some(truth) = truth(id) else { return };
        self.settle_block(id, &truth);
        self.notice(id, &truth, 0, false);
        if outcome == Outcome::Failed {
            self.repairs.queue.failed(id, self.now_ms, copy.tries, FAILED_PAUSE_MS);
        }
    }

    fn begin_some(&mut self, now_ms: u64, truth: Truth<'_>, tries: usize) {
        if self.safemode.is_on()
            || !self.repairs.queue.has_ready()
            || !self.repairs.streams.has_room(now_ms)
        {
            return;
        }
        for id in self.repairs.queue.first(tries) {
            if !self.repairs.streams.has_room(now_ms) {
                return;
            }
            self.try_to_begin(now_ms, id, truth);
        }
    }

    /// Begins the repair of a waiting block, leaves it if its sources are busy, or puts it off.
    fn try_to_begin(&mut self, now_ms: u64, id: BlockId, truth: Truth<'_>) {
        let truth = truth(id);
        let Some((truth, need)) = truth.and_then(|t| Some((t, self.assess(id, &t)?))) else {
            self.repairs.queue.remove(id);
            return;
        };
        let begun = if is_mark(id) {
            self.begin_group(now_ms, id, &truth)
        } else {
            self.begin_copy(now_ms, id, &truth, need)
        };
        match begun {
            Ok(()) => {}
            Err(NotNow::SourcesBusy) => {}
            Err(NotNow::Pause(pause_ms)) => {
                self.repairs.queue.put_off(id, now_ms, pause_ms);
                // Perhaps every node holds it, in whatever state: what is bad makes room.
                self.settle_block(id, &truth);
            }
        }
    }

    /// Has a good holder of a block copy it to nodes that placement chooses.
    fn begin_copy(
        &mut self,
        now_ms: u64,
        id: BlockId,
        truth: &BlockTruth,
        need: Need,
    ) -> Result<(), NotNow> {
        let stand = self.stand(id);
        let source = self.source(now_ms, id)?;
        let mut existing = stand.in_service;
        existing.extend(stand.maintained);
        let targets = self.targets(now_ms, id, truth, need, &existing)?;
        let copy = Copy {
            sources: vec![source],
            targets: targets.iter().map(|&target| (id, target)).collect(),
            bytes: truth.length,
            deadline_ms: copy_deadline(now_ms, truth.length),
            purpose: Purpose::Mend,
            tries: 0,
        };
        self.send_copy(now_ms, id, truth, copy)
    }

    /// The holder that sends: the least busy one; of those, one that is to leave, else any.
    pub(super) fn source(&mut self, now_ms: u64, id: BlockId) -> Result<NodeIndex, NotNow> {
        let mut able = self.replicas.good_holders(id);
        able.retain(|&node| {
            let known = self.datanodes.get(node);
            known.liveness == Liveness::Alive && known.attached
        });
        if able.is_empty() {
            return Err(NotNow::Pause(NO_ROOM_PAUSE_MS));
        }
        self.rng.shuffle(&mut able);
        let streams = &self.repairs.streams;
        able.retain(|&node| streams.may_send(now_ms, node));
        let stays = |node| !self.datanodes.get(node).service.is_leaving();
        able.into_iter()
            .min_by_key(|&node| (streams.sending(node), stays(node)))
            .ok_or(NotNow::SourcesBusy)
    }

    /// Where the copies of a block go.
    fn targets(
        &mut self,
        now_ms: u64,
        id: BlockId,
        truth: &BlockTruth,
        need: Need,
        existing: &[NodeIndex],
    ) -> Result<Vec<NodeIndex>, NotNow> {
        let mut excluded: BTreeSet<NodeIndex> = self.replicas.all_holders(id).into_iter().collect();
        excluded.extend(self.invalidations.nodes_of(id));
        if need.danger == Danger::MISPLACED {
            let racks: Vec<&str> = existing.iter().map(|&node| self.datanodes.rack(node)).collect();
            let nodes = self.datanodes.iter();
            let there = nodes.filter(|(_, known)| racks.contains(&&known.address.rack[..]));
            excluded.extend(there.map(|(node, _)| node));
        }
        let siblings = self.group_siblings(id);
        excluded.extend(&siblings);
        let has_place = self
            .datanodes
            .iter()
            .any(|(node, known)| known.takes_writes() && !excluded.contains(&node));
        if !has_place {
            return Err(NotNow::Pause(NO_PLACE_PAUSE_MS));
        }
        excluded.extend(self.repairs.streams.full_receivers(now_ms));
        let wanted = Wanted {
            replicas: need.copies,
            replicas_min: 1,
            block_bytes: truth.length,
            writer_host: "",
            favoured: &[],
            existing: if id.is_striped() { &siblings } else { existing },
            excluded: &excluded.into_iter().collect::<Vec<_>>(),
        };
        let chosen = if id.is_striped() { self.place_units(&wanted) } else { self.place(&wanted) };
        chosen.map_err(|_| NotNow::Pause(NO_ROOM_PAUSE_MS))
    }

    /// Nodes that hold other units of a unit's group, in whatever state; none for a replicated block.
    pub(super) fn group_siblings(&self, id: BlockId) -> Vec<NodeIndex> {
        if !id.is_striped() {
            return Vec::new();
        }
        let units = (0..BlockId::GROUP_STEP as u8).map(|unit| id.group().of_unit(unit));
        units.filter(|&unit| unit != id).flat_map(|unit| self.replicas.all_holders(unit)).collect()
    }

    /// Sends a copy's command off and counts it.
    pub(super) fn send_copy(
        &mut self,
        now_ms: u64,
        id: BlockId,
        truth: &BlockTruth,
        mut copy: Copy,
    ) -> Result<(), NotNow> {
        let source = copy.sources[0];
        let targets: Vec<NodeIndex> = copy.targets.iter().map(|&(_, node)| node).collect();
        let addresses = self.addresses(&targets);
        let outbox = &mut self.outboxes[usize::from(source.0)];
        if outbox.transfer.len() >= OUTBOX_MAX {
            return Err(NotNow::SourcesBusy);
        }
        let block = Block { id: id.0, generation_stamp: truth.stamp.0, length: truth.length };
        outbox.transfer.push_back(TransferBlock { block: Some(block), targets: addresses });
        copy.tries = self.repairs.queue.remove(id).unwrap_or(0);
        self.repairs.streams.begin(now_ms, &copy.sources, &targets, copy.bytes);
        self.repairs.copies.insert(id.0, copy);
        self.promise(id, &targets, truth.length);
        self.effects.push(Effect::Wake(source));
        Ok(())
    }
}

/// Why a copy was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotNow {
    /// Every source sends as much as it may: a slot that becomes free is taken at once.
    SourcesBusy,
    /// It makes no sense to try again before that, in milliseconds.
    Pause(u64),
}

/// When a copy of so many bytes is given up.
pub(super) fn copy_deadline(now_ms: u64, bytes: u64) -> u64 {
    now_ms.saturating_add(COPY_MS_MIN).saturating_add(bytes / COPY_BYTES_PER_MS)
}
