//! The balancer: moves replicas from nodes that are fuller than the average to those that are emptier.
//!
//! It runs when an operator starts it, until every node in service is within a threshold of the average, or nothing can
//! be moved any more. It does not run by itself: a move ends with a deletion, and costs readers and writers bandwidth;
//! nobody should find either without having asked for it.
//!
//! A move is a copy, like one of repair and within the same limits, and a rate of its own. When the copy has shown, the
//! block has one replica too many, and the one on the full node is preferred to go. So there is never a moment with
//! fewer replicas than before. Blocks that need anything, or are being copied, are left alone, and while any block lacks
//! replicas nothing is moved.
//!
//! Always holds: after a move a block stands in as many racks as before, up to two, and on different nodes.

use std::collections::{BTreeMap, BTreeSet};

use proto::BlockId;

use super::datanodes::NodeIndex;
use super::repair::{Copy, Outcome, Purpose, copy_deadline};
use super::replicas::BlockTruth;
use super::{Cluster, Truth};

/// The threshold and the rate if nobody asks for others.
pub const THRESHOLD_PERCENT: u32 = 10;
/// Bytes per second.
pub const BYTES_PER_S: u64 = 10 << 20;
/// Pages and blocks that are looked through for one move.
const SEARCH: (usize, usize) = (16, 256);
/// Moves that one tick begins.
const MOVES_PER_TICK: usize = 100;
/// The balancer ends when so many ticks in a row found nothing to move while nothing was under way.
const IDLE_TICKS_MAX: u32 = 60;

/// A run that an operator started.
#[derive(Debug)]
struct Run {
    threshold_percent: u32,
    bytes_per_s: u64,
    /// The next move may begin then.
    free_at_ms: u64,
    idle_ticks: u32,
    cursors: BTreeMap<NodeIndex, u64>,
    /// Blocks whose move failed in this run are not tried again.
    failed: BTreeSet<u64>,
}

/// The balancer's state and what it did.
#[derive(Debug, Default)]
pub(super) struct Balancer {
    run: Option<Run>,
    shown: Shown,
    /// Bytes per second of one node, if an operator said how many.
    node_bytes_per_s: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Shown {
    outcome: &'static str,
    threshold_percent: u32,
    bytes_per_s: u64,
    moved_blocks: u64,
    moved_bytes: u64,
    failed: u64,
}

/// What an operator sees.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BalanceStatus {
    /// Whether it runs.
    pub running: bool,
    /// How the last run ended; empty if none did.
    pub outcome: &'static str,
    /// Of capacity, above and below the average.
    pub threshold_percent: u32,
    /// In all.
    pub bytes_per_s: u64,
    /// Since the run began.
    pub moved_blocks: u64,
    /// Since the run began.
    pub moved_bytes: u64,
    /// Since the run began.
    pub failed: u64,
    /// Under way.
    pub moves: u64,
    /// About so many bytes are yet to be moved.
    pub bytes_left: u64,
    /// Used share of the capacity of all nodes in service.
    pub average_percent: f64,
    /// Of the fullest of them.
    pub fullest_percent: f64,
    /// Of the emptiest of them.
    pub emptiest_percent: f64,
}

/// A node in service as the balancer sees it: what it will use when what is under way is through.
#[derive(Clone, Copy, Debug)]
struct Level {
    node: NodeIndex,
    used: u64,
    capacity: u64,
}

impl Level {
    fn share(&self) -> f64 {
        self.used as f64 / self.capacity as f64
    }
}

/// All nodes in service, and the average.
struct Levels {
    all: Vec<Level>,
    average: f64,
}

impl Levels {
    /// Bytes that a node has above a share; negative: below it.
    fn above(level: &Level, share: f64) -> f64 {
        level.used as f64 - share * level.capacity as f64
    }

    /// (full ones, the fullest first; empty ones, the emptiest first), of which at least one side is beyond the
    /// threshold; `None` if nobody is.
    fn sides(&self, threshold: f64) -> Option<(Vec<Level>, Vec<Level>)> {
        let over = |level: &&Level| level.share() > self.average + threshold;
        let under = |level: &&Level| level.share() < self.average - threshold;
        let any_over = self.all.iter().any(|level| over(&level));
        let any_under = self.all.iter().any(|level| under(&level));
        if !any_over && !any_under {
            return None;
        }
        // The full give to whoever is below the average; the empty take from whoever is above it.
        let gives = |level: &&Level| match any_over {
            true => over(level),
            false => level.share() > self.average,
        };
        let takes = |level: &&Level| match any_over {
            true => level.share() < self.average,
            false => under(level),
        };
        let mut from: Vec<Level> = self.all.iter().filter(gives).copied().collect();
        let mut to: Vec<Level> = self.all.iter().filter(takes).copied().collect();
        from.sort_by(|a, b| b.share().total_cmp(&a.share()).then(a.node.cmp(&b.node)));
        to.sort_by(|a, b| a.share().total_cmp(&b.share()).then(a.node.cmp(&b.node)));
        Some((from, to))
    }
}

impl Cluster {
    /// Begins a run, in place of one that is under way.
    pub fn start_balancing(&mut self, threshold_percent: u32, bytes_per_s: u64) {
        self.balancer.run = Some(Run {
            threshold_percent,
            bytes_per_s,
            free_at_ms: 0,
            idle_ticks: 0,
            cursors: BTreeMap::new(),
            failed: BTreeSet::new(),
        });
        self.balancer.shown = Shown { threshold_percent, bytes_per_s, ..Shown::default() };
    }

    /// The rate of a run that asks for none.
    pub fn balance_rate(&self) -> u64 {
        let nodes = || self.datanodes.iter().filter(|(_, node)| node.takes_writes()).count().max(1);
        self.balancer
            .node_bytes_per_s
            .map_or(BYTES_PER_S, |rate| rate.saturating_mul(nodes() as u64))
    }

    /// Sets the rate by what one node may move, for the run that is under way, and for those that ask for none. As in HDFS
    /// it is forgotten when the process ends.
    pub fn set_balance_rate(&mut self, node_bytes_per_s: u64) {
        self.balancer.node_bytes_per_s = Some(node_bytes_per_s);
        let rate = self.balance_rate();
        if let Some(run) = &mut self.balancer.run {
            (run.bytes_per_s, run.free_at_ms) = (rate, 0);
            self.balancer.shown.bytes_per_s = rate;
        }
    }

    /// Begins no further move.
    pub fn stop_balancing(&mut self) {
        self.end_run("stopped by an operator");
    }

    /// How balanced the cluster is, and what the balancer does about it.
    pub fn balance_status(&self) -> BalanceStatus {
        let levels = self.levels();
        let shown = self.balancer.shown.clone();
        let shares = || levels.all.iter().map(|level| level.share() * 100.0);
        let threshold = f64::from(shown.threshold_percent) / 100.0;
        let far = |level: &Level| {
            let over = Levels::above(level, levels.average + threshold);
            let under = -Levels::above(level, levels.average - threshold);
            (over.max(0.0), under.max(0.0))
        };
        let (over, under) = levels
            .all
            .iter()
            .map(far)
            .fold((0.0, 0.0), |(over, under), (o, u)| (over + o, under + u));
        BalanceStatus {
            running: self.balancer.run.is_some(),
            outcome: shown.outcome,
            threshold_percent: shown.threshold_percent,
            bytes_per_s: shown.bytes_per_s,
            moved_blocks: shown.moved_blocks,
            moved_bytes: shown.moved_bytes,
            failed: shown.failed,
            moves: self.moves().count() as u64,
            bytes_left: over.max(under) as u64,
            average_percent: levels.average * 100.0,
            fullest_percent: shares().fold(0.0, f64::max),
            emptiest_percent: shares().reduce(f64::min).unwrap_or(0.0),
        }
    }

    /// Begins what moves may be begun now, or ends the run.
    pub(super) fn balance(&mut self, now_ms: u64, truth: Truth<'_>) {
        let Some(run) = &self.balancer.run else { return };
        let (threshold, free_at_ms) = (f64::from(run.threshold_percent) / 100.0, run.free_at_ms);
        let lacking: u64 = self.repairs.queue.by_danger()[..3].iter().sum();
        if lacking > 0 || free_at_ms > now_ms {
            return;
        }
        let Some((from, to)) = self.levels().sides(threshold) else {
            if self.moves().next().is_none() {
                self.end_run("every DataNode is within the threshold");
            }
            return;
        };
        let mut begun = 0;
        // What is under way changes who is full and who is empty: one move per source and look.
        for source in from.iter().take(MOVES_PER_TICK) {
            let may_go_on = self.balancer.run.as_ref().is_some_and(|run| run.free_at_ms <= now_ms)
                && self.repairs.streams.has_room(now_ms);
            begun += usize::from(may_go_on && self.move_one(now_ms, source.node, &to, truth));
        }
        let is_idle = begun == 0 && self.moves().next().is_none();
        let Some(run) = &mut self.balancer.run else { return };
        run.idle_ticks = if is_idle { run.idle_ticks + 1 } else { 0 };
        if run.idle_ticks >= IDLE_TICKS_MAX {
            self.end_run("no replica can be moved any more");
        }
    }

    /// A move ended: counted, and tried again or not.
    pub(super) fn move_ended(&mut self, id: BlockId, copy: &Copy, outcome: Outcome) {
        let shown = &mut self.balancer.shown;
        match outcome {
            Outcome::Done => {
                shown.moved_blocks += 1;
                shown.moved_bytes = shown.moved_bytes.saturating_add(copy.bytes);
            }
            Outcome::Failed => {
                shown.failed += 1;
                if let Some(run) = &mut self.balancer.run {
                    run.failed.insert(id.0);
                }
            }
            Outcome::Moot => {}
        }
    }

    fn end_run(&mut self, outcome: &'static str) {
        if self.balancer.run.take().is_some() {
            self.balancer.shown.outcome = outcome;
        }
    }

    fn moves(&self) -> impl Iterator<Item = (NodeIndex, &Copy)> {
        self.repairs.copies.values().filter_map(|copy| match copy.purpose {
            Purpose::Relieve(from) => Some((from, copy)),
            Purpose::Mend => None,
        })
    }

    fn levels(&self) -> Levels {
        let mut all: Vec<Level> = self
            .datanodes
            .iter()
            .filter(|(_, node)| node.takes_writes())
            .map(|(node, known)| {
                let (capacity, used, _) = known.space();
                Level { node, used, capacity: capacity.max(1) }
            })
            .collect();
        for level in &mut all {
            for (from, copy) in self.moves() {
                if from == level.node {
                    level.used = level.used.saturating_sub(copy.bytes);
                }
                if copy.targets.iter().any(|&(_, target)| target == level.node) {
                    level.used = level.used.saturating_add(copy.bytes);
                }
            }
        }
        let used: f64 = all.iter().map(|level| level.used as f64).sum();
        let capacity: f64 = all.iter().map(|level| level.capacity as f64).sum();
        Levels { average: if capacity > 0.0 { used / capacity } else { 0.0 }, all }
    }

    /// Begins to move one block off a node; false: none was found now.
    fn move_one(&mut self, now_ms: u64, from: NodeIndex, to: &[Level], truth: Truth<'_>) -> bool {
        let Some(run) = &mut self.balancer.run else { return false };
        let cursor = run.cursors.get(&from).copied().unwrap_or(0);
        let (found, next) = self.replicas.good_on(from, cursor, SEARCH.0, SEARCH.1);
        for id in found {
            let is_free = !self.repairs.copies.contains_key(&id.0)
                && !self.repairs.queue.contains(id)
                && !self.balancer.run.as_ref().is_some_and(|run| run.failed.contains(&id.0));
            let Some(truth) = truth(id).filter(|_| is_free) else { continue };
            let Some(target) = self.move_target(now_ms, id, &truth, from, to) else { continue };
            let Ok(source) = self.source(now_ms, id) else { continue };
            let copy = Copy {
                sources: vec![source],
                targets: vec![(id, target)],
                bytes: truth.length,
                deadline_ms: copy_deadline(now_ms, truth.length),
                purpose: Purpose::Relieve(from),
                tries: 0,
            };
            if self.send_copy(now_ms, id, &truth, copy).is_err() {
                continue;
            }
            if let Some(run) = &mut self.balancer.run {
                run.cursors.insert(from, id.0 + 1);
                let takes_ms = truth.length.saturating_mul(1_000) / run.bytes_per_s.max(1);
                run.free_at_ms = run.free_at_ms.max(now_ms).saturating_add(takes_ms);
            }
            return true;
        }
        if let Some(run) = &mut self.balancer.run {
            run.cursors.insert(from, next.unwrap_or(0));
        }
        false
    }

    /// Where a replica that stands on `from` may move, the emptiest first.
    fn move_target(
        &self,
        now_ms: u64,
        id: BlockId,
        truth: &BlockTruth,
        from: NodeIndex,
        to: &[Level],
    ) -> Option<NodeIndex> {
        let stand = self.stand(id);
        let is_whole = stand.in_service.len() == truth.replication as usize
            && stand.leaving.is_empty()
            && stand.maintained.is_empty()
            && stand.in_service.contains(&from);
        if truth.length == 0 || !is_whole || self.assess(id, truth).is_some() {
            return None;
        }
        let mut taken: BTreeSet<NodeIndex> = self.replicas.all_holders(id).into_iter().collect();
        taken.extend(self.invalidations.nodes_of(id));
        taken.extend(self.group_siblings(id));
        let stay: Vec<NodeIndex> =
            stand.in_service.iter().copied().filter(|&node| node != from).collect();
        let racks = |nodes: &[NodeIndex]| {
            let racks: BTreeSet<&str> =
                nodes.iter().map(|&node| self.datanodes.rack(node)).collect();
            racks.len().min(2)
        };
        let before = racks(&stand.in_service);
        let fits = |node: NodeIndex| {
            let known = self.datanodes.get(node);
            let mut after = stay.clone();
            after.push(node);
            !taken.contains(&node)
                && self.repairs.streams.may_receive(now_ms, node)
                && known.volume_remaining_max() >= truth.length
                && known.remaining_bytes() >= known.reserved_bytes.saturating_add(truth.length)
                && racks(&after) >= before
        };
        to.iter().map(|level| level.node).find(|&node| node != from && fits(node))
    }
}
