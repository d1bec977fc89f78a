//! The world around the core: DataNodes with disks and streams, and a namespace that is a table.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use proto::granary::{
    DatanodeAddress, DatanodeCommands, DatanodeHeartbeat, DatanodeRegister, ReplicaState,
    TransferBlock, VolumeStatus,
};
use proto::{BlockId, GenerationStamp};

use super::super::balance::BalanceStatus;
use super::super::datanodes::{Liveness, NodeIndex};
use super::super::placement::Wanted;
use super::super::repair::{self, streams::StreamLimits};
use super::super::replicas::{BlockTruth, Reported};
use super::super::rng::Choices;
use super::super::service::{Service, Wish, Wishes};
use super::super::topology::Topology;
use super::super::{Cluster, Effect, Settings};

const LENGTH: u64 = 1_000;
/// What a node can hold: a hundred blocks.
const ROOM: u64 = 100 * LENGTH;
/// Small, so that a report has several chunks.
const CHUNK: usize = 7;
pub const LIMITS: StreamLimits =
    StreamLimits { per_node: 2, total: 6, node_bytes_per_s: 0, total_bytes_per_s: 0 };

/// A message that is on its way up.
#[derive(Clone, Debug)]
enum Up {
    Change(Reported),
    Chunk { report: u64, index: u32, part: Vec<Reported>, last: bool },
}

/// What a DataNode does, and when it is done.
#[derive(Clone, Debug)]
enum Work {
    Delete(BlockId, GenerationStamp),
    Send(BlockId, GenerationStamp, Vec<String>),
    Report,
}

#[derive(Clone, Debug, Default)]
pub struct SimNode {
    uuid: String,
    is_up: bool,
    /// Replicas by block: stamp, and whether they are damaged.
    disk: BTreeMap<u64, (u64, bool)>,
    /// The registration that its stream carries.
    stream: Option<(NodeIndex, u64)>,
    up: VecDeque<(u64, Up)>,
    work: Vec<(u64, Work)>,
    pub frozen_until_ms: u64,
    reports: u64,
}

pub struct World {
    pub seed: u64,
    pub now_ms: u64,
    pub nodes: Vec<SimNode>,
    pub blocks: BTreeMap<u64, BlockTruth>,
    pub is_calm: bool,
    pub trace: u64,
    cluster: Cluster,
    wishes: Wishes,
    next_block: u64,
    counts: [u64; 6],
}

impl World {
    pub fn new(seed: u64, rng: &mut Choices) -> Self {
        let count = 4 + rng.below(6);
        let racks = 1 + rng.below(3);
        let places: Vec<String> =
            (0..=count).map(|number| format!("dn{number}=/r{}", number % racks)).collect();
        let settings = Settings {
            suspect_after_ms: 5_000,
            dead_after_ms: 30_000,
            replication_min: 1,
            safemode_threshold: 0.999,
            safemode_extension_ms: 0,
            lease_soft_limit_ms: 60_000,
            lease_hard_limit_ms: 1_200_000,
            recovery_timeout_ms: 30_000,
            repair: repair::Settings {
                grace_ms: 5_000,
                limits: LIMITS,
                maintenance_replicas_min: 1,
            },
            replication: 3,
            first_epoch: 0,
            seed,
            topology: Topology::new(&places),
        };
        let node = |number: usize| SimNode { uuid: format!("dn{number}"), ..Default::default() };
        let mut world = Self {
            seed,
            now_ms: 0,
            nodes: (0..count).map(node).collect(),
            blocks: BTreeMap::new(),
            is_calm: false,
            trace: 0,
            cluster: Cluster::new(&settings),
            wishes: Wishes::new(),
            next_block: 1_000,
            counts: [0; 6],
        };
        for node in 0..count {
            world.start(node);
        }
        world.step(rng);
        for _ in 0..20 {
            world.add_block(rng);
        }
        world
    }

    // ---- what happens to nodes

    pub fn kill(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.is_up = false;
        node.stream = None;
        node.up.clear();
        node.work.clear();
    }

    pub fn start(&mut self, node: usize) {
        if !self.nodes[node].is_up {
            self.nodes[node].is_up = true;
            self.register(node);
        }
    }

    /// Its disk is replaced by an empty one under the same uuid, if every block has another good replica.
    pub fn wipe(&mut self, at: usize) {
        let ids: Vec<u64> = self.nodes[at].disk.keys().copied().collect();
        if ids.into_iter().all(|id| self.has_another(at, id)) {
            self.note(&format!("{at} loses its disk: {:?}", self.nodes[at].disk));
            self.kill(at);
            self.nodes[at].disk.clear();
            self.counts[3] += 1;
            self.start(at);
        }
    }

    /// Its stream breaks, and it registers again: what was on its way is lost. What it was told before it has either
    /// done or will never do.
    pub fn cut_stream(&mut self, node: usize) {
        if self.nodes[node].is_up {
            self.nodes[node].up.clear();
            self.nodes[node].work.retain(|(_, work)| matches!(work, Work::Send(..)));
            self.register(node);
        }
    }

    /// It neither sends nor takes anything for a while; its stream stands.
    pub fn freeze(&mut self, node: usize, seconds: u64) {
        self.nodes[node].frozen_until_ms = self.now_ms + seconds * 1_000;
    }

    /// A replica is damaged, and a reader or the scrubber finds it.
    pub fn damage(&mut self, at: usize, rng: &mut Choices) {
        let ids: Vec<u64> = self.nodes[at].disk.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[rng.below(ids.len())];
        // Until it is found, a damaged replica may be taken for the good one that makes another superfluous: that is
        // survived by blocks that keep a second one, and of which no other is damaged.
        let keeps_two = self.blocks.get(&id).is_some_and(|truth| truth.replication >= 2);
        let is_first = !self.nodes.iter().any(|node| node.disk.get(&id).is_some_and(|has| has.1));
        if !keeps_two || !is_first || !self.has_another(at, id) {
            return;
        }
        self.counts[4] += 1;
        self.note(&format!("{at} has blk_{id} damaged"));
        let stamp = self.nodes[at].disk[&id].0;
        self.nodes[at].disk.insert(id, (stamp, true));
        let change = self.reported(at, id, ReplicaState::Corrupt);
        self.send_up(at, Up::Change(change), 1 + rng.below(3) as u64);
    }

    /// What it last said is said again.
    pub fn tell_twice(&mut self, node: usize) {
        let last = self.nodes[node].up.back().cloned();
        self.nodes[node].up.extend(last);
    }

    /// A chunk of its report is lost.
    pub fn lose_chunk(&mut self, node: usize) {
        let up = &mut self.nodes[node].up;
        if let Some(at) = up.iter().position(|(_, message)| matches!(message, Up::Chunk { .. })) {
            up.remove(at);
        }
    }

    /// One more node, without a block.
    pub fn join(&mut self) {
        let uuid = format!("dn{}", self.nodes.len());
        self.nodes.push(SimNode { uuid, ..Default::default() });
        self.start(self.nodes.len() - 1);
    }

    pub fn balance(&mut self, threshold_percent: u32) {
        self.cluster.start_balancing(threshold_percent, 1 << 20);
    }

    pub fn balanced(&self) -> BalanceStatus {
        self.cluster.balance_status()
    }

    pub fn wish(&mut self, node: usize, wish: Option<Wish>) {
        let uuid = self.nodes[node].uuid.clone();
        match wish {
            Some(wish) => self.wishes.insert(uuid, wish),
            None => self.wishes.remove(&uuid),
        };
        self.cluster.set_wishes(self.now_ms, self.wishes.clone());
    }

    // ---- what happens to blocks

    pub fn add_block(&mut self, rng: &mut Choices) {
        let replication = 1 + rng.below(3) as u32;
        let wanted = Wanted {
            replicas: replication as usize,
            replicas_min: 1,
            block_bytes: LENGTH,
            writer_host: "",
            favoured: &[],
            existing: &[],
            excluded: &[],
        };
        let Ok(mut targets) = self.cluster.place(&wanted) else { return };
        targets.retain(|&target| self.node_of(target).is_some_and(|at| self.is_reachable(at)));
        if targets.is_empty() {
            return;
        }
        self.next_block += 1;
        let id = BlockId(self.next_block);
        let open = truth(false, replication);
        self.blocks.insert(id.0, open);
        self.cluster.block_changed(id, Some(&open));
        self.cluster.start_pipeline(id, &targets, LENGTH);
        for &target in &targets {
            let at = self.node_of(target).expect("it was asked above");
            self.nodes[at].disk.insert(id.0, (1, false));
            let change = self.reported(at, id.0, ReplicaState::Finalized);
            self.send_up(at, Up::Change(change), rng.below(4) as u64);
        }
        let done = truth(true, replication);
        self.blocks.insert(id.0, done);
        self.cluster.block_changed(id, Some(&done));
    }

    pub fn remove_block(&mut self, rng: &mut Choices) {
        if let Some(id) = self.some_block(rng) {
            self.blocks.remove(&id);
            self.cluster.block_changed(BlockId(id), None);
        }
    }

    pub fn set_replication(&mut self, rng: &mut Choices) {
        let replication = 1 + rng.below(4) as u32;
        if let Some(id) = self.some_block(rng) {
            // The last good one of several may be the one that goes: see `damage`.
            if self.nodes.iter().any(|node| node.disk.get(&id).is_some_and(|has| has.1)) {
                return;
            }
            self.blocks.insert(id, truth(true, replication));
            self.cluster.replication_changed(BlockId(id), replication);
        }
    }

    pub fn repair_now(&mut self, rng: &mut Choices) {
        if let Some(id) = self.some_block(rng) {
            let truth = self.blocks[&id];
            self.cluster.repair_now(BlockId(id), &truth);
        }
    }

    // ---- time

    /// Everything that is due happens, in an order by the seed; then the core ticks.
    pub fn step(&mut self, rng: &mut Choices) {
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        rng.shuffle(&mut order);
        for at in order {
            if self.nodes[at].is_up && self.nodes[at].frozen_until_ms <= self.now_ms {
                self.step_node(at, rng);
            }
        }
        let (now_ms, blocks) = (self.now_ms, RefCell::new(&self.blocks));
        self.cluster.tick(now_ms, &|id| blocks.borrow().get(&id.0).copied());
        for effect in self.cluster.take_effects() {
            match effect {
                Effect::Died(_) => self.counts[2] += 1,
                Effect::Served(_, Service::Decommissioned | Service::InMaintenance) => {
                    self.counts[5] += 1;
                }
                _ => {}
            }
            self.note(&format!("{effect:?}"));
        }
    }

    fn step_node(&mut self, at: usize, rng: &mut Choices) {
        if self.nodes[at].stream.is_none() {
            self.register(at);
        }
        self.heartbeat(at);
        self.deliver(at);
        self.obey(at, rng);
        let now_ms = self.now_ms;
        let (due, later): (Vec<_>, Vec<_>) =
            self.nodes[at].work.drain(..).partition(|&(due_ms, _)| due_ms <= now_ms);
        self.nodes[at].work = later;
        for (_, work) in due {
            self.perform(at, work, rng);
        }
    }

    fn heartbeat(&mut self, at: usize) {
        let Some((index, epoch)) = self.nodes[at].stream else { return };
        let beat = DatanodeHeartbeat { volumes: self.volumes(at), active_transfers: 0 };
        if self.cluster.heartbeat(self.now_ms, index, epoch, beat).is_err() {
            self.cut_stream(at);
        }
    }

    fn deliver(&mut self, at: usize) {
        while let Some(&(due_ms, _)) = self.nodes[at].up.front()
            && due_ms <= self.now_ms
        {
            let (_, message) = self.nodes[at].up.pop_front().expect("it was there");
            let Some((index, epoch)) = self.nodes[at].stream else { return };
            let (now_ms, blocks) = (self.now_ms, &self.blocks);
            let truth = |id: BlockId| blocks.get(&id.0).copied();
            let cluster = &mut self.cluster;
            let taken = match message {
                Up::Change(change) => cluster.changes(now_ms, index, epoch, &[change], &truth),
                Up::Chunk { report, index: number, part, last } => {
                    match cluster.report_chunk(now_ms, index, epoch, report, number) {
                        Ok(true) => cluster.report_part(index, epoch, &part, last, &truth),
                        Ok(false) => Ok(()),
                        Err(error) => Err(error),
                    }
                }
            };
            if taken.is_err() {
                self.cut_stream(at);
                return;
            }
        }
    }

    fn obey(&mut self, at: usize, rng: &mut Choices) {
        let Some((index, epoch)) = self.nodes[at].stream else { return };
        let commands = match self.cluster.take_commands(index, epoch) {
            Ok(commands) => commands.unwrap_or_default(),
            Err(_) => return self.cut_stream(at),
        };
        if commands != DatanodeCommands::default() {
            self.note(&format!("{at}: {commands:?}"));
        }
        let slow = if self.is_calm { 2 } else { 12 };
        let mut later = |most: usize| self.now_ms + 1_000 * rng.below(most) as u64;
        let work = &mut self.nodes[at].work;
        for block in commands.invalidate {
            let what = Work::Delete(BlockId(block.id), GenerationStamp(block.generation_stamp));
            work.push((later(slow), what));
        }
        for TransferBlock { block, targets } in commands.transfer {
            let block = block.expect("a copy names its block");
            let targets = targets.into_iter().map(|target| target.uuid).collect();
            let (id, stamp) = (BlockId(block.id), GenerationStamp(block.generation_stamp));
            work.push((later(slow), Work::Send(id, stamp, targets)));
        }
        if commands.report_in_full {
            work.push((self.now_ms, Work::Report));
        }
    }

    fn perform(&mut self, at: usize, work: Work, rng: &mut Choices) {
        let delay = if self.is_calm { 0 } else { rng.below(3) as u64 };
        match work {
            Work::Delete(id, stamp) => {
                if self.nodes[at].disk.get(&id.0).is_some_and(|&(has, _)| has <= stamp.0) {
                    self.note(&format!("{at} deletes {id}"));
                    let change = self.reported(at, id.0, ReplicaState::Deleted);
                    self.nodes[at].disk.remove(&id.0);
                    self.counts[1] += 1;
                    self.send_up(at, Up::Change(change), delay);
                }
            }
            Work::Send(id, stamp, targets) => {
                let good = self.nodes[at].disk.get(&id.0) == Some(&(stamp.0, false));
                let fails = !self.is_calm && rng.below(8) == 0;
                if !good || fails {
                    return;
                }
                for uuid in targets {
                    let to = self.nodes.iter().position(|node| node.uuid == uuid);
                    let to = to.expect("targets are nodes of this world");
                    // A pipeline ends where a node does not answer, or has the block in whatever state.
                    if !self.is_reachable(to) || self.nodes[to].disk.contains_key(&id.0) {
                        return;
                    }
                    self.nodes[to].disk.insert(id.0, (stamp.0, false));
                    self.note(&format!("{at} has copied {id} to {to}"));
                    self.counts[0] += 1;
                    let change = self.reported(to, id.0, ReplicaState::Finalized);
                    self.send_up(to, Up::Change(change), delay);
                }
            }
            Work::Report => self.report(at, delay),
        }
    }

    fn report(&mut self, at: usize, delay: u64) {
        self.nodes[at].reports += 1;
        let report = self.nodes[at].reports;
        let ids: Vec<u64> = self.nodes[at].disk.keys().copied().collect();
        let all: Vec<Reported> =
            ids.iter().map(|&id| self.reported(at, id, ReplicaState::Finalized)).collect();
        let parts: Vec<Vec<Reported>> =
            all.chunks(CHUNK).map(<[_]>::to_vec).chain([Vec::new()]).collect();
        let count = parts.len();
        for (index, part) in parts.into_iter().enumerate() {
            let last = index + 1 == count;
            let chunk = Up::Chunk { report, index: index as u32, part, last };
            self.send_up(at, chunk, delay + index as u64);
        }
        // A report tells what files there are; what is wrong in them the scrubber finds again.
        let mut damaged = ids;
        damaged.retain(|id| self.nodes[at].disk[id].1);
        for id in damaged {
            let change = self.reported(at, id, ReplicaState::Corrupt);
            self.send_up(at, Up::Change(change), delay);
        }
    }

    fn register(&mut self, at: usize) {
        let message = DatanodeRegister {
            address: Some(DatanodeAddress {
                uuid: self.nodes[at].uuid.clone(),
                host: self.nodes[at].uuid.clone(),
                data_port: 9866,
                ..Default::default()
            }),
            volumes: self.volumes(at),
            ..Default::default()
        };
        let registered = self.cluster.register(self.now_ms, message).expect("it is well formed");
        self.nodes[at].stream = Some((registered.index, registered.epoch));
    }

    /// Messages of one stream come in the order in which they were sent.
    fn send_up(&mut self, at: usize, message: Up, seconds: u64) {
        let up = &mut self.nodes[at].up;
        let last_ms = up.back().map_or(0, |&(due_ms, _)| due_ms);
        up.push_back((last_ms.max(self.now_ms + seconds * 1_000), message));
    }

    // ---- what is so

    pub fn counts(&self) -> [u64; 6] {
        self.counts
    }

    pub fn service(&self, at: usize) -> Service {
        self.index_of(at)
            .map_or(Service::InService, |node| self.cluster.datanodes.get(node).service)
    }

    pub fn liveness(&self, at: usize) -> Option<Liveness> {
        self.index_of(at).map(|node| self.cluster.datanodes.get(node).liveness)
    }

    /// Whether the core believes that a node has a replica.
    pub fn holds(&self, at: usize, id: BlockId) -> bool {
        self.index_of(at).is_some_and(|node| self.cluster.replicas.all_holders(id).contains(&node))
    }

    /// Good replicas on nodes that run, less what is wanted and can be had, of the block where that is least.
    pub fn fewest_spare(&self) -> Option<i64> {
        let open = (0..self.nodes.len())
            .filter(|&at| self.nodes[at].is_up && self.service(at) == Service::InService)
            .count();
        let spare = |(&id, truth): (&u64, &BlockTruth)| {
            let good =
                (0..self.nodes.len()).filter(|&at| self.nodes[at].is_up && self.is_good(at, id));
            good.count() as i64 - (truth.replication as usize).min(open) as i64
        };
        self.blocks.iter().map(spare).min()
    }

    /// A good replica of every block is on some disk, and nothing above a limit is under way.
    pub fn check_always(&self) {
        let seed = self.seed;
        for &id in self.blocks.keys() {
            let somewhere = (0..self.nodes.len()).any(|at| self.is_good(at, id));
            assert!(somewhere, "seed {seed} at {} ms: blk_{id} is deleted everywhere", self.now_ms);
        }
        let copies = &self.cluster.repairs.copies;
        assert!(copies.len() <= LIMITS.total, "seed {seed}: {} copies", copies.len());
        assert_eq!(copies.len(), self.cluster.repairs.streams.copies(), "seed {seed}");
        for (node, _) in self.cluster.datanodes.iter() {
            let out = copies.values().filter(|copy| copy.sources.contains(&node)).count();
            let into = copies.values().flat_map(|copy| &copy.targets);
            let into = into.filter(|(_, target)| *target == node).count();
            let streams = &self.cluster.repairs.streams;
            assert_eq!(
                (out, into),
                (streams.sending(node), streams.receiving(node)),
                "seed {seed}"
            );
            assert!(out.max(into) <= LIMITS.per_node, "seed {seed}: {out} out, {into} in");
        }
    }

    /// Every block has as many good replicas in service as are wanted and can be had, in two racks if it can be, and
    /// nothing bad or superfluous stands on nodes in service.
    pub fn check_mended(&mut self) {
        let seed = self.seed;
        let open: Vec<usize> =
            (0..self.nodes.len()).filter(|&at| self.service(at) == Service::InService).collect();
        let rack = |at: usize| {
            let node = self.index_of(at).expect("every node registered");
            self.cluster.datanodes.rack(node).to_owned()
        };
        let all_racks: BTreeSet<String> = open.iter().map(|&at| rack(at)).collect();
        for (&id, truth) in &self.blocks {
            let good: Vec<usize> =
                open.iter().copied().filter(|&at| self.is_good(at, id)).collect();
            let away = (0..self.nodes.len())
                .filter(|&at| self.service(at).is_maintenance() && self.is_good(at, id))
                .count();
            let wanted = (truth.replication as usize).min(open.len());
            let enough = wanted.saturating_sub(away).max(wanted.min(1));
            assert!(
                (enough..=wanted).contains(&good.len()),
                "seed {seed}: blk_{id} has {good:?} of {wanted}, {away} in maintenance: {}",
                self.described(BlockId(id))
            );
            let racks: BTreeSet<String> = good.iter().map(|&at| rack(at)).collect();
            assert!(
                away > 0 || racks.len() >= wanted.min(2).min(all_racks.len()),
                "seed {seed}: blk_{id} on {good:?} in {racks:?}"
            );
        }
        for &at in &open {
            for &id in self.nodes[at].disk.keys() {
                let known = self.blocks.contains_key(&id) && self.is_good(at, id);
                assert!(known, "seed {seed}: node {at} still has blk_{id}");
            }
        }
        let progress = self.cluster.repair_progress(self.now_ms);
        assert_eq!(progress.copies, 0, "seed {seed}: {progress:?}");
    }

    /// What the core thinks of a block.
    fn described(&self, id: BlockId) -> String {
        let (stand, truth) = (self.cluster.stand(id), self.blocks[&id.0]);
        let services: Vec<Service> = (0..self.nodes.len()).map(|at| self.service(at)).collect();
        let holders = self.cluster.replicas.all_holders(id);
        let told: Vec<NodeIndex> = self.cluster.invalidations.nodes_of(id).collect();
        format!(
            "{stand:?} of {holders:?}, {told:?} about to delete, {:?}, {:?}, {services:?}",
            self.cluster.assess(id, &truth),
            self.cluster.repairs
        )
    }

    fn is_good(&self, at: usize, id: u64) -> bool {
        self.nodes[at].disk.get(&id) == Some(&(1, false))
    }

    /// Whether a block has a good replica elsewhere that nobody was told to delete, or is none of a file.
    fn has_another(&self, but: usize, id: u64) -> bool {
        if !self.blocks.contains_key(&id) {
            return true;
        }
        let told: Vec<NodeIndex> = self.cluster.invalidations.nodes_of(BlockId(id)).collect();
        (0..self.nodes.len()).any(|at| {
            let index = self.index_of(at);
            let told = index.is_some_and(|index| told.contains(&index));
            let doing = |(_, work): &(u64, Work)| matches!(work, Work::Delete(of, _) if of.0 == id);
            at != but && self.is_good(at, id) && !told && !self.nodes[at].work.iter().any(doing)
        })
    }

    fn is_reachable(&self, at: usize) -> bool {
        self.nodes[at].is_up && self.nodes[at].frozen_until_ms <= self.now_ms
    }

    fn reported(&self, at: usize, id: u64, state: ReplicaState) -> Reported {
        let stamp = self.nodes[at].disk.get(&id).map_or(1, |&(stamp, _)| stamp);
        Reported { id: BlockId(id), stamp: GenerationStamp(stamp), length: LENGTH, state }
    }

    fn volumes(&self, at: usize) -> Vec<VolumeStatus> {
        let used_bytes = self.nodes[at].disk.len() as u64 * LENGTH;
        vec![VolumeStatus {
            capacity_bytes: ROOM,
            used_bytes,
            remaining_bytes: ROOM - used_bytes,
            ..Default::default()
        }]
    }

    fn some_block(&self, rng: &mut Choices) -> Option<u64> {
        let ids: Vec<u64> = self.blocks.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[rng.below(ids.len())])
    }

    fn index_of(&self, at: usize) -> Option<NodeIndex> {
        self.cluster.datanodes.find(&self.nodes[at].uuid)
    }

    fn node_of(&self, index: NodeIndex) -> Option<usize> {
        let uuid = &self.cluster.datanodes.get(index).address.uuid;
        self.nodes.iter().position(|node| node.uuid == *uuid)
    }

    /// Into the trace; told if one seed is replayed.
    fn note(&mut self, what: &str) {
        if std::env::var_os("GRANARY_SIM_SEED").is_some() {
            eprintln!("{:>7} {what}", self.now_ms);
        }
        let mut hasher = DefaultHasher::new();
        (self.trace, self.now_ms, what).hash(&mut hasher);
        self.trace = hasher.finish();
    }
}

fn truth(complete: bool, replication: u32) -> BlockTruth {
    BlockTruth {
        stamp: GenerationStamp(1),
        length: if complete { LENGTH } else { 0 },
        complete,
        replication,
        policy: 0,
    }
}
