//! The volatile side of the NameNode: which DataNodes live, where replicas are, and what DataNodes shall do about it.
//!
//! | module | owns |
//! |---|---|
//! | [`datanodes`] | the registry: identity, epochs, liveness, space |
//! | [`block`] | what is said of a block and its replicas |
//! | [`replicas`] | blocks to holders, with all counts |
//! | [`report`], `reporting` | full reports in chunks; what DataNodes tell is taken |
//! | `settle` | what a block no longer needs goes |
//! | [`topology`] | racks, and what placement asks of them |
//! | [`placement`], [`locate`], `promises` | targets of a new block; where blocks are; room kept for them |
//! | [`groups`] | block groups of striped files: their units |
//! | [`invalidate`], `outbox` | deletions that wait; all else that waits for a DataNode |
//! | [`repair`], [`patrol`] | copies of blocks that need them; the walk that finds what no event told of |
//! | [`balance`] | replicas from full nodes to empty ones |
//! | [`service`] | nodes that an operator wants to go, for good or for a time |
//! | [`safemode`] | when nothing may be changed yet |
//! | [`leases`], [`recovery`] | writers that went silent |
//! | [`rng`] | seeded choices |
//!
//! [`Cluster`] ties them: events go in with the time, [`Effect`]s and per-node commands come out. It has no clock, no
//! IO, and never asks the namespace: each call that needs to know of a block is given the namespace's view
//! ([`Truth`]). Nothing here is persisted; all of it comes back by reports.

pub mod balance;
pub mod block;
pub mod datanodes;
pub mod groups;
pub mod invalidate;
pub mod leases;
pub mod locate;
mod outbox;
pub mod patrol;
pub mod placement;
mod promises;
pub mod recovery;
pub mod repair;
pub mod replicas;
pub mod report;
mod reporting;
pub mod rng;
pub mod safemode;
pub mod service;
mod settle;
pub mod topology;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proto::granary::{DatanodeHeartbeat, DatanodeRegister};
use proto::{BlockId, Result};

use balance::Balancer;
use datanodes::{Datanodes, NodeIndex, Registration};
use invalidate::Invalidations;
use leases::Leases;
use outbox::Outbox;
use patrol::Patrol;
use promises::Promise;
use recovery::Recoveries;
use repair::Repairs;
use replicas::{BlockTruth, Replicas};
use report::FullReport;
use rng::Choices;
use safemode::SafeMode;
use service::Service;

/// The namespace's view of a block; `None`: no file has it.
pub type Truth<'a> = &'a dyn Fn(BlockId) -> Option<BlockTruth>;

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
    /// See [`repair`].
    pub repair: repair::Settings,
    /// Replicas of a block if nobody asks for another number.
    pub replication: u32,
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
    /// This DataNode is for something else now.
    Served(NodeIndex, Service),
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
    patrol: Patrol,
    balancer: Balancer,
    maintenance_replicas_min: usize,
    replication: usize,
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
    /// The latest time that was told.
    now_ms: u64,
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
            repairs: Repairs::new(&settings.repair),
            patrol: Patrol::default(),
            balancer: Balancer::default(),
            maintenance_replicas_min: settings.repair.maintenance_replicas_min as usize,
            replication: settings.replication as usize,
            reports: HashMap::new(),
            outboxes: Vec::new(),
            promises: HashMap::new(),
            sweeps: BTreeMap::new(),
            rng: Choices::new(settings.seed),
            look_again: BTreeSet::new(),
            gathering_ms: settings.safemode_extension_ms,
            started_ms: None,
            now_ms: 0,
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
        self.now_ms = self.now_ms.max(now_ms);
        let replicas = &self.replicas;
        let unheld = |index| replicas.held_by(index) == 0;
        let registration = self.datanodes.register(now_ms, message, unheld)?;
        let index = registration.index;
        self.sweeps.remove(&index);
        self.reports.remove(&index);
        self.invalidations.clear(index);
        self.end_copies_of(index);
        if registration.is_back {
            self.repairs.queue.wake_all();
        }
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

    /// The stream of an epoch ended.
    pub fn detach(&mut self, node: NodeIndex, epoch: u64) {
        self.datanodes.detach(node, epoch);
    }

    /// Time passed: nodes fall silent, replicas of the dead are swept out, safe mode may end, blocks are mended.
    pub fn tick(&mut self, now_ms: u64, truth: Truth<'_>) {
        let age_ms = now_ms.saturating_sub(*self.started_ms.get_or_insert(now_ms));
        self.gathering = age_ms < self.gathering_ms;
        self.now_ms = self.now_ms.max(now_ms);
        self.expire_wishes(now_ms);
        for node in self.datanodes.check(now_ms) {
            self.bury(node);
        }
        self.go_on_sweeping(truth);
        self.ask_for_missing_reports(now_ms);
        if self.safemode.check(now_ms, &self.replicas.totals()) {
            self.effects.push(Effect::LeftSafeMode);
        }
        if self.safemode.is_on() {
            return;
        }
        for id in std::mem::take(&mut self.look_again) {
            if let Some(block) = truth(id) {
                self.settle_block(id, &block);
                self.notice(id, &block, 0, false);
                self.notice_group_of(id, 0, truth);
            }
        }
        self.invalidations.remind(now_ms);
        self.patrol(now_ms, truth);
        self.repair(now_ms, truth);
        self.balance(now_ms, truth);
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

    /// A node died: nothing of it counts any more, unless it is in maintenance and comes back.
    fn bury(&mut self, node: NodeIndex) {
        if self.datanodes.get(node).service != Service::InMaintenance {
            self.sweeps.insert(node, 0);
        }
        self.reports.remove(&node);
        self.invalidations.clear(node);
        self.outboxes[usize::from(node.0)] = Outbox::default();
        self.end_copies_of(node);
        self.patrol.start_over(self.now_ms);
        self.effects.push(Effect::Died(node));
        self.effects.push(Effect::Wake(node));
    }
}

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
