//! The volatile side of the NameNode: which DataNodes live, where replicas are, and what DataNodes shall do about it.
//!
//! | module | owns |
//! |---|---|
//! | [`datanodes`] | the registry: identity, epochs, liveness, space |
//! | [`block`] | what is said of a block and its replicas |
//! | [`replicas`] | blocks to holders, with all counts |
//! | [`report`] | full reports in chunks |
//! | [`topology`] | racks, and what placement asks of them |
//! | [`placement`] | targets of a new block |
//! | [`invalidate`] | deletions that wait |
//! | [`repair`] | copies of under-replicated blocks |
//! | [`safemode`] | when nothing may be changed yet |
//! | [`leases`], [`recovery`] | writers that went silent |
//! | [`rng`] | seeded choices |
//!
//! [`Cluster`] ties them: events go in with the time, [`Effect`]s and per-node commands come out. It has no clock, no
//! IO, and never asks the namespace: each call that needs to know of a block is given the namespace's view
//! ([`Truth`]). Nothing here is persisted; all of it comes back by reports.

pub mod block;
pub mod datanodes;
pub mod invalidate;
pub mod leases;
pub mod placement;
pub mod recovery;
pub mod repair;
pub mod replicas;
pub mod report;
pub mod rng;
pub mod safemode;
pub mod topology;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use proto::granary::{
    Block, DatanodeAddress, DatanodeCommands, DatanodeHeartbeat, DatanodeRegister, RecoverBlock,
    ReplicaState, TransferBlock,
};
use proto::{BlockId, Code, Error, GenerationStamp, InodeId, Result};

use datanodes::{Datanodes, Liveness, NodeIndex, Registration};
use invalidate::Invalidations;
use leases::Leases;
use placement::Wanted;
use recovery::Recoveries;
use repair::Repairs;
use replicas::{BlockTruth, Replicas, Reported, Verdict};
use report::FullReport;
use rng::Choices;
use safemode::SafeMode;

/// The namespace's view of a block; `None`: no file has it.
pub type Truth<'a> = &'a dyn Fn(BlockId) -> Option<BlockTruth>;

/// Pages (of 4096 blocks) that one tick looks through for the replicas of dead nodes.
const SWEEP_PAGES_PER_TICK: usize = 1_024;
/// Recoveries or copies that may wait for one DataNode.
const OUTBOX_MAX: usize = 10_000;
/// Recoveries or copies handed out at once.
const COMMANDS_BATCH_MAX: usize = 100;

/// What the volatile side goes by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Silent for so long: no new writes.
    pub suspect_after_ms: u64,
    /// Silent for so long: its replicas do not count.
    pub dead_after_ms: u64,
    /// Good replicas that make a block safe.
    pub replication_min: u32,
    /// Share of safe blocks that ends safe mode.
    pub safemode_threshold: f64,
    /// Time between reaching the threshold and the end of safe mode.
    pub safemode_extension_ms: u64,
    /// See [`leases`].
    pub lease_soft_limit_ms: u64,
    /// See [`leases`].
    pub lease_hard_limit_ms: u64,
    /// How long the leader of a block recovery may take.
    pub recovery_timeout_ms: u64,
    /// How long a block may be under-replicated before it is copied.
    pub repair_grace_ms: u64,
    /// Copies under way from one DataNode.
    pub repair_copies_per_node_max: usize,
    /// Epochs begin after this number.
    pub first_epoch: u64,
    /// Seed of all random choices.
    pub seed: u64,
    /// Racks of DataNodes.
    pub topology: topology::Topology,
}

/// What the shell must do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Commands wait for this DataNode, or its stream is to end: its sender shall look.
    Wake(NodeIndex),
    /// A finalized replica of a block came in: whoever waits for it shall look again.
    Finalized(BlockId),
    /// Safe mode ended.
    LeftSafeMode,
    /// This DataNode died.
    Died(NodeIndex),
}

#[derive(Debug, Default)]
struct Outbox {
    recover: VecDeque<RecoverBlock>,
    transfer: VecDeque<TransferBlock>,
    report_in_full: bool,
}

/// Room promised on nodes for a block that is being written.
#[derive(Debug)]
struct Promise {
    nodes: Vec<NodeIndex>,
    bytes: u64,
}

/// The volatile side of one NameNode.
pub struct Cluster {
    /// Who they are.
    pub datanodes: Datanodes,
    /// What they hold.
    pub replicas: Replicas,
    /// Whether anything may change.
    pub safemode: SafeMode,
    /// When writers were last heard.
    pub leases: Leases,
    /// Blocks that are being recovered.
    pub recoveries: Recoveries,
    invalidations: Invalidations,
    repairs: Repairs,
    reports: HashMap<NodeIndex, FullReport>,
    outboxes: Vec<Outbox>,
    promises: HashMap<u64, Promise>,
    sweeps: BTreeMap<NodeIndex, u64>,
    rng: Choices,
    look_again: BTreeSet<BlockId>,
    effects: Vec<Effect>,
    /// How long after the start DataNodes are given to register before a block that finds none is refused.
    gathering_ms: u64,
    started_ms: Option<u64>,
    gathering: bool,
}

impl Cluster {
    /// Nothing known yet, in safe mode.
    pub fn new(settings: &Settings) -> Self {
        let mut datanodes =
            Datanodes::new(settings.suspect_after_ms, settings.dead_after_ms, settings.first_epoch);
        datanodes.set_topology(settings.topology.clone());
        Self {
            datanodes,
            replicas: Replicas::new(settings.replication_min),
            safemode: SafeMode::new(settings.safemode_threshold, settings.safemode_extension_ms),
            leases: Leases::new(settings.lease_soft_limit_ms, settings.lease_hard_limit_ms),
            recoveries: Recoveries::new(settings.recovery_timeout_ms),
            invalidations: Invalidations::default(),
            repairs: Repairs::new(settings.repair_grace_ms, settings.repair_copies_per_node_max),
            reports: HashMap::new(),
            outboxes: Vec::new(),
            promises: HashMap::new(),
            sweeps: BTreeMap::new(),
            rng: Choices::new(settings.seed),
            look_again: BTreeSet::new(),
            gathering_ms: settings.safemode_extension_ms,
            started_ms: None,
            gathering: settings.safemode_extension_ms > 0,
            effects: Vec::new(),
        }
    }

    /// Takes what the shell must do, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// A DataNode registers; it is asked for a full report.
    pub fn register(&mut self, now_ms: u64, message: DatanodeRegister) -> Result<Registration> {
        let replicas = &self.replicas;
        let unheld = |index| replicas.held_by(index) == 0;
        let registration = self.datanodes.register(now_ms, message, unheld)?;
        let index = registration.index;
        self.sweeps.remove(&index);
        self.reports.remove(&index);
        let number = usize::from(index.0);
        if self.outboxes.len() <= number {
            self.outboxes.resize_with(number + 1, Outbox::default);
        }
        self.outboxes[number] = Outbox { report_in_full: true, ..Outbox::default() };
        if let Some(replaced) = registration.replaced {
            self.bury(replaced);
        }
        self.effects.push(Effect::Wake(index));
        Ok(registration)
    }

    /// A heartbeat of one epoch. Errors: `Stale` when the stream of that epoch must end.
    pub fn heartbeat(
        &mut self,
        now_ms: u64,
        node: NodeIndex,
        epoch: u64,
        message: DatanodeHeartbeat,
    ) -> Result<()> {
        self.datanodes.heartbeat(now_ms, node, epoch, message)
    }

    /// Replicas of a node that changed. Errors: `Stale` when the stream of that epoch must end.
    pub fn changes(
        &mut self,
        now_ms: u64,
        node: NodeIndex,
        epoch: u64,
        changes: &[Reported],
        truth: Truth<'_>,
    ) -> Result<()> {
        self.datanodes.hear(now_ms, node, epoch)?;
        for change in changes {
            if let Some(report) = self.reports.get_mut(&node) {
                report.touch(change.id);
            }
            self.one_replica(node, change, truth);
        }
        Ok(())
    }

    /// The header of a report's chunk; its replicas follow by [`Cluster::report_part`]. False: it does not follow the
    /// one before, the node is asked for a new report. Errors: `Stale` when the stream of that epoch must end.
    pub fn report_chunk(
        &mut self,
        now_ms: u64,
        node: NodeIndex,
        epoch: u64,
        report_id: u64,
        chunk_index: u32,
    ) -> Result<bool> {
        self.datanodes.hear(now_ms, node, epoch)?;
        if chunk_index == 0 {
            let search = self.replicas.held_by(node) > 0;
            self.reports.insert(node, FullReport::begin(report_id, search));
        }
        let accepted = self
            .reports
            .get_mut(&node)
            .is_some_and(|report| report.accepts(report_id, chunk_index));
        if !accepted {
            self.reports.remove(&node);
            self.outboxes[usize::from(node.0)].report_in_full = true;
            self.effects.push(Effect::Wake(node));
        }
        Ok(accepted)
    }

    /// A run of replicas of the chunk that was announced, ordered by id; `last`: the report is through with it.
    /// Errors: `Stale` when the stream must end; `InvalidArgument` if ids do not ascend.
    pub fn report_part(
        &mut self,
        node: NodeIndex,
        epoch: u64,
        part: &[Reported],
        last: bool,
        truth: Truth<'_>,
    ) -> Result<()> {
        if self.datanodes.get(node).epoch != epoch {
            return Err(Error::new(Code::Stale, "the DataNode registered again during its report"));
        }
        let Some(mut report) = self.reports.remove(&node) else {
            return Err(Error::new(Code::Stale, "the report was given up"));
        };
        for replica in part {
            if replica.id.0 < report.settled {
                return Err(Error::new(
                    Code::InvalidArgument,
                    format!("a full report does not ascend at {}", replica.id),
                ));
            }
            self.settle_gap(node, &mut report, replica.id.0);
            report.settled = replica.id.0.saturating_add(1);
            if !report.is_touched(replica.id) {
                self.one_replica(node, replica, truth);
            }
        }
        if last {
            self.settle_gap(node, &mut report, u64::MAX);
            self.datanodes.get_mut(node).reported = true;
        } else {
            self.reports.insert(node, report);
        }
        Ok(())
    }

    /// The stream of an epoch ended.
    pub fn detach(&mut self, node: NodeIndex, epoch: u64) {
        self.datanodes.detach(node, epoch);
    }

    /// What a node shall do now; `None`: nothing. Errors: `Stale` when the stream of that epoch must end.
    pub fn take_commands(
        &mut self,
        node: NodeIndex,
        epoch: u64,
    ) -> Result<Option<DatanodeCommands>> {
        let known = self.datanodes.get(node);
        if known.epoch != epoch || known.liveness == Liveness::Dead {
            return Err(Error::new(
                Code::Stale,
                format!("epoch {epoch} of DataNode {} is over: register again", known.address.uuid),
            ));
        }
        let outbox = &mut self.outboxes[usize::from(node.0)];
        let mut commands = DatanodeCommands {
            report_in_full: std::mem::take(&mut outbox.report_in_full),
            ..Default::default()
        };
        let batch = outbox.recover.len().min(COMMANDS_BATCH_MAX);
        commands.recover.extend(outbox.recover.drain(..batch));
        let batch = outbox.transfer.len().min(COMMANDS_BATCH_MAX);
        commands.transfer.extend(outbox.transfer.drain(..batch));
        if !self.safemode.is_on() {
            commands.invalidate = self
                .invalidations
                .take(node)
                .into_iter()
                .map(|(id, stamp)| Block { id: id.0, generation_stamp: stamp.0, length: 0 })
                .collect();
        }
        Ok(Some(commands).filter(|commands| *commands != DatanodeCommands::default()))
    }

    /// The namespace made, changed or (`None`) dropped a block.
    pub fn block_changed(&mut self, id: BlockId, truth: Option<&BlockTruth>) {
        match truth {
            Some(truth) => {
                self.replicas.sync(id, truth);
                if truth.complete {
                    self.release(id);
                    self.recoveries.end(id);
                    self.settle_block(id, truth);
                }
            }
            None => self.block_removed(id),
        }
    }

    /// Other replicas are wanted of a block; what is too many goes with the next tick.
    pub fn replication_changed(&mut self, id: BlockId, replication: u32) {
        self.replicas.set_expected(id, replication);
        self.look_again.insert(id);
    }

    /// Chooses targets of a new block. Errors: `NotEnoughDatanodes`; shortly after the start, when nodes may still be
    /// registering, `Unavailable`, so that a writer that lived through a restart asks again.
    pub fn place(&mut self, wanted: &Wanted<'_>) -> Result<Vec<NodeIndex>> {
        let chosen = placement::choose(&self.datanodes, &mut self.rng, wanted);
        chosen.map_err(|error| match self.gathering {
            true => Error::new(
                Code::Unavailable,
                format!(
                    "{}; the NameNode has just started: they may be on their way",
                    error.message
                ),
            ),
            false => error,
        })
    }

    /// Remembers where a block is being written, and what it may take there.
    pub fn start_pipeline(&mut self, id: BlockId, nodes: &[NodeIndex], block_bytes: u64) {
        self.replicas.set_pipeline(id, nodes);
        self.promise(id, nodes, block_bytes);
    }

    /// The pipeline of a block goes on with these nodes; each is promised what the first ones were.
    pub fn move_pipeline(&mut self, id: BlockId, nodes: &[NodeIndex]) {
        let bytes = self.promises.get(&id.0).map_or(0, |promise| promise.bytes);
        self.start_pipeline(id, nodes, bytes);
    }

    /// Indexes of uuids, in their order; unknown ones are left out.
    pub fn find_all(&self, uuids: &[String]) -> Vec<NodeIndex> {
        uuids.iter().filter_map(|uuid| self.datanodes.find(uuid)).collect()
    }

    /// Addresses of nodes, in their order.
    pub fn addresses(&self, nodes: &[NodeIndex]) -> Vec<DatanodeAddress> {
        nodes.iter().map(|&node| self.datanodes.get(node).address.clone()).collect()
    }

    /// Where to read a block, best first: live before suspect or detached, the reader's own machine first, then at random; dead
    /// nodes are left out. The flag: every known replica is corrupt.
    pub fn locations(
        &mut self,
        id: BlockId,
        truth: &BlockTruth,
        reader_host: &str,
    ) -> (Vec<DatanodeAddress>, bool) {
        let mut found = self.replicas.locations(id, truth);
        self.rng.shuffle(&mut found.nodes);
        let rank = |node: &NodeIndex| {
            let known = self.datanodes.get(*node);
            let far = !placement::is_on_host(known, reader_host);
            match known.liveness {
                Liveness::Alive if known.attached => Some((0, far)),
                Liveness::Alive | Liveness::Suspect => Some((1, far)),
                Liveness::Dead => None,
            }
        };
        found.nodes.retain(|node| rank(node).is_some());
        found.nodes.sort_by_key(rank);
        (self.addresses(&found.nodes), found.corrupt)
    }

    /// Nodes that are not dead and hold a good replica, or, if there is none, those with damaged ones: the flag
    /// says so.
    pub fn live_locations(&self, id: BlockId, truth: &BlockTruth) -> (Vec<DatanodeAddress>, bool) {
        let mut found = self.replicas.locations(id, truth);
        found.nodes.retain(|&node| self.datanodes.get(node).liveness != Liveness::Dead);
        (self.addresses(&found.nodes), found.corrupt)
    }

    /// Someone found a node's replica damaged. Ignored if the node holds no such replica.
    pub fn bad_replica(
        &mut self,
        node: NodeIndex,
        id: BlockId,
        stamp: GenerationStamp,
        truth: Option<&BlockTruth>,
    ) {
        let Some(truth) = truth.filter(|truth| stamp == truth.stamp) else { return };
        self.replicas.sync(id, truth);
        if self.replicas.mark_corrupt(node, id, stamp) {
            self.settle_block(id, truth);
        }
    }

    /// Has a replica's holder lead the recovery of a block to a new stamp. False: no live node has a replica.
    pub fn begin_recovery(
        &mut self,
        now_ms: u64,
        (id, inode): (BlockId, InodeId),
        truth: &BlockTruth,
        new_stamp: GenerationStamp,
        new_length: Option<u64>,
    ) -> bool {
        let mut nodes = self.replicas.locations(id, truth).nodes;
        nodes.retain(|&node| self.datanodes.get(node).liveness != Liveness::Dead);
        let Some(leader) = self.recoveries.begin(now_ms, (id, inode), new_stamp, &nodes) else {
            return false;
        };
        nodes.retain(|&node| node != leader);
        nodes.insert(0, leader);
        let command = RecoverBlock {
            block: Some(Block { id: id.0, generation_stamp: truth.stamp.0, length: truth.length }),
            new_generation_stamp: new_stamp.0,
            replicas: self.addresses(&nodes),
            new_length,
            ..Default::default()
        };
        let outbox = &mut self.outboxes[usize::from(leader.0)];
        if outbox.recover.len() < OUTBOX_MAX {
            outbox.recover.push_back(command);
            self.effects.push(Effect::Wake(leader));
        }
        true
    }

    /// Whether a replica of the block ever showed, or a live node was to write it.
    pub fn has_any_replica(&self, id: BlockId) -> bool {
        self.replicas.is_reported(id)
            || self
                .replicas
                .pipeline(id)
                .iter()
                .any(|&node| self.datanodes.get(node).liveness != Liveness::Dead)
    }

    /// Time passed: nodes fall silent, replicas of the dead are swept out, safe mode may end, blocks are mended.
    pub fn tick(&mut self, now_ms: u64, truth: Truth<'_>) {
        let age_ms = now_ms.saturating_sub(*self.started_ms.get_or_insert(now_ms));
        self.gathering = age_ms < self.gathering_ms;
        for node in self.datanodes.check(now_ms) {
            self.bury(node);
        }
        self.go_on_sweeping();
        if self.safemode.check(now_ms, &self.replicas.totals()) {
            self.effects.push(Effect::LeftSafeMode);
        }
        if self.safemode.is_on() {
            return;
        }
        for id in std::mem::take(&mut self.look_again) {
            if let Some(truth) = truth(id) {
                self.settle_block(id, &truth);
            }
        }
        self.repair(now_ms, truth);
        let waiting = |(node, _): &(NodeIndex, _)| self.invalidations.waiting(*node) > 0;
        let woken: Vec<_> =
            self.datanodes.iter().filter(waiting).map(|(node, _)| Effect::Wake(node)).collect();
        self.effects.extend(woken);
    }

    /// Errors with `SafeMode` while nothing may change.
    pub fn check_may_change(&self) -> Result<()> {
        if !self.safemode.is_on() {
            return Ok(());
        }
        self.safemode.check_off(&self.replicas.totals(), self.datanodes.living())
    }

    /// Why nothing may change; empty when it may.
    pub fn safemode_reason(&self) -> String {
        self.safemode.reason(&self.replicas.totals(), self.datanodes.living())
    }

    fn one_replica(&mut self, node: NodeIndex, replica: &Reported, truth: Truth<'_>) {
        let truth = truth(replica.id);
        let verdict = self.replicas.report(node, replica, truth.as_ref());
        if !matches!(replica.state, ReplicaState::BeingWritten) && !self.promises.is_empty() {
            self.release_on(node, replica.id);
        }
        match verdict {
            Verdict::Noted => {}
            Verdict::Finalized | Verdict::Bad => match truth {
                Some(truth) if truth.complete => self.settle_block(replica.id, &truth),
                Some(_) => self.effects.push(Effect::Finalized(replica.id)),
                None => {}
            },
            Verdict::Unknown => {
                if replica.state != ReplicaState::Deleted {
                    self.invalidations.push(node, replica.id, replica.stamp);
                    self.wake(node);
                }
            }
        }
    }

    /// Deletes what a complete block no longer needs: bad replicas when there are enough good ones, and good ones
    /// beyond what its file asks for, from the fullest nodes.
    fn settle_block(&mut self, id: BlockId, truth: &BlockTruth) {
        if !truth.complete || !self.replicas.has_surplus(id) {
            return;
        }
        for (node, stamp) in self.replicas.surplus_bad(id, self.datanodes.living()) {
            self.delete_replica(node, id, stamp);
        }
        let (good, expected) = self.replicas.good_and_expected(id);
        if good <= expected || self.safemode.is_on() {
            return;
        }
        let mut nodes = self.replicas.locations(id, truth).nodes;
        let all_live =
            nodes.iter().all(|&node| self.datanodes.get(node).liveness == Liveness::Alive);
        if !all_live {
            return;
        }
        for _ in expected..good {
            let node = self.surplus_one(&mut nodes);
            self.delete_replica(node, id, truth.stamp);
        }
    }

    /// Takes out the replica that can be spared best: from a rack that has another, on the node with the least room.
    fn surplus_one(&self, nodes: &mut Vec<NodeIndex>) -> NodeIndex {
        let rack = |node: NodeIndex| self.datanodes.rack(node);
        let lonely =
            |&&node: &&NodeIndex| nodes.iter().filter(|n| rack(**n) == rack(node)).count() < 2;
        let racks: BTreeSet<&str> = nodes.iter().map(|&node| rack(node)).collect();
        // With two racks the only replica of one keeps the block alive when the other is lost.
        let spared: Vec<NodeIndex> =
            if racks.len() == 2 { nodes.iter().filter(lonely).copied().collect() } else { vec![] };
        let key = |node: &NodeIndex| (self.datanodes.get(*node).remaining_bytes(), *node);
        let free = nodes.iter().filter(|node| !spared.contains(node));
        let chosen = free.copied().min_by_key(key);
        let chosen = chosen.or_else(|| nodes.iter().copied().min_by_key(key));
        let chosen = chosen.expect("there are more replicas than wanted");
        nodes.retain(|node| *node != chosen);
        chosen
    }

    fn delete_replica(&mut self, node: NodeIndex, id: BlockId, stamp: GenerationStamp) {
        self.replicas.drop_replica(node, id);
        self.invalidations.push(node, id, stamp);
        self.wake(node);
    }

    fn block_removed(&mut self, id: BlockId) {
        self.release(id);
        self.recoveries.end(id);
        for node in self.replicas.remove(id) {
            if self.datanodes.get(node).liveness != Liveness::Dead {
                self.invalidations.push(node, id, GenerationStamp(u64::MAX));
                self.wake(node);
            }
        }
        self.effects.push(Effect::Finalized(id));
    }

    /// Wakes a node's sender once for a run of deletions.
    fn wake(&mut self, node: NodeIndex) {
        if self.effects.last() != Some(&Effect::Wake(node)) {
            self.effects.push(Effect::Wake(node));
        }
    }

    /// A node died: nothing of it counts any more.
    fn bury(&mut self, node: NodeIndex) {
        self.sweeps.insert(node, 0);
        self.reports.remove(&node);
        self.invalidations.clear(node);
        self.outboxes[usize::from(node.0)] = Outbox::default();
        self.effects.push(Effect::Died(node));
        self.effects.push(Effect::Wake(node));
    }

    fn go_on_sweeping(&mut self) {
        let Some((&node, &cursor)) = self.sweeps.first_key_value() else { return };
        match self.replicas.sweep(node, cursor, SWEEP_PAGES_PER_TICK) {
            Some(next) => {
                self.sweeps.insert(node, next);
            }
            None => {
                self.sweeps.remove(&node);
                self.go_on_sweeping();
            }
        }
    }

    fn settle_gap(&mut self, node: NodeIndex, report: &mut FullReport, end: u64) {
        if report.search {
            self.replicas.drop_range(node, report.settled, end, |id| report.is_touched(id));
        }
    }

    /// Keeps room for a block on these nodes, in place of what was kept for it before.
    fn promise(&mut self, id: BlockId, nodes: &[NodeIndex], bytes: u64) {
        self.release(id);
        for &node in nodes {
            let known = self.datanodes.get_mut(node);
            known.reserved_bytes = known.reserved_bytes.saturating_add(bytes);
            known.scheduled_blocks = known.scheduled_blocks.saturating_add(1);
        }
        self.promises.insert(id.0, Promise { nodes: nodes.to_vec(), bytes });
    }

    /// Gives back what was promised to a block on all its nodes.
    fn release(&mut self, id: BlockId) {
        let Some(promise) = self.promises.remove(&id.0) else { return };
        for &node in &promise.nodes {
            self.give_back(node, promise.bytes);
        }
    }

    fn release_on(&mut self, node: NodeIndex, id: BlockId) {
        let Some(promise) = self.promises.get_mut(&id.0) else { return };
        let Some(at) = promise.nodes.iter().position(|&promised| promised == node) else { return };
        promise.nodes.remove(at);
        let (bytes, empty) = (promise.bytes, promise.nodes.is_empty());
        if empty {
            self.promises.remove(&id.0);
        }
        self.give_back(node, bytes);
    }

    fn give_back(&mut self, node: NodeIndex, bytes: u64) {
        let known = self.datanodes.get_mut(node);
        known.reserved_bytes = known.reserved_bytes.saturating_sub(bytes);
        known.scheduled_blocks = known.scheduled_blocks.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests;
