//! The registry of DataNodes: who they are, what they have, and whether they live.
//!
//! A DataNode is found by its uuid and named inside by a dense [`NodeIndex`], so that the replica map spends two
//! bytes on it. Each registration mints an epoch; only the newest epoch of a uuid is listened to. A node that was
//! silent for `suspect_after_ms` gets no new writes; after `dead_after_ms` its replicas do not count.
//!
//! Always holds: a uuid has one index for as long as any replica may name it; an epoch is never given twice by one
//! process; an address (host and data port) belongs to at most one node that is not dead.
//!
//! Does not know which replicas a node holds (see `replicas`), nor does it talk to one.

use std::collections::{BTreeSet, HashMap};

use proto::granary::{DatanodeAddress, DatanodeHeartbeat, DatanodeRegister, VolumeStatus};
use proto::{Code, Error, Result};

use super::service::{Service, Wish, Wishes, names_of, service_under, wish_for};
use super::topology::Topology;

/// Volumes that one DataNode may tell of.
pub const VOLUMES_MAX: usize = 256;
/// DataNodes that may be known at once: an index fits 16 bits and leaves one value for "none".
pub const DATANODES_MAX: usize = u16::MAX as usize;
/// Bytes of a uuid, host, socket path, version or error text from a DataNode.
const TEXT_BYTES_MAX: usize = 1_024;

/// A DataNode's dense number in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub u16);

/// Whether a DataNode can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Heard of lately.
    Alive,
    /// Silent for a while: no new writes go there, readers try it last.
    Suspect,
    /// Silent for too long, or replaced: its replicas do not count.
    Dead,
}

/// What the NameNode knows of one DataNode.
#[derive(Clone, Debug)]
pub struct Datanode {
    /// Its identity and how to reach it.
    pub address: DatanodeAddress,
    /// Its volumes as of the last heartbeat.
    pub volumes: Vec<VolumeStatus>,
    /// Readers and writers on it as of the last heartbeat.
    pub active_transfers: u32,
    /// What it runs.
    pub software_version: String,
    /// The registration that is listened to.
    pub epoch: u64,
    /// Whether the stream of that registration stands.
    pub attached: bool,
    /// When it was last heard, in milliseconds of the caller's clock.
    pub last_heard_ms: u64,
    /// Whether it can be relied on.
    pub liveness: Liveness,
    /// Whether a full report of this epoch is in.
    pub reported: bool,
    /// When it was last asked for one, or sent a part of one, in milliseconds of the caller's clock.
    pub report_heard_ms: u64,
    /// Bytes promised to blocks being written there.
    pub reserved_bytes: u64,
    /// Blocks being written there.
    pub scheduled_blocks: u32,
    /// What it is for.
    pub service: Service,
    /// Since when, in milliseconds of the caller's clock.
    pub service_since_ms: u64,
}

impl Datanode {
    /// Whether new replicas may go there: it lives, is attached, and is in service.
    pub fn takes_writes(&self) -> bool {
        self.liveness == Liveness::Alive && self.attached && !self.service.takes_no_writes()
    }

    /// Whether what is known of its replicas is what it told itself since it came: only then may another replica be
    /// deleted because this one has it.
    pub fn is_trusted(&self) -> bool {
        self.liveness == Liveness::Alive && self.attached && self.reported
    }

    /// Bytes that replicas may still take on volumes that work.
    pub fn remaining_bytes(&self) -> u64 {
        self.working().map(|v| v.remaining_bytes).fold(0, u64::saturating_add)
    }

    /// The most that one working volume can still take, in bytes.
    pub fn volume_remaining_max(&self) -> u64 {
        self.working().map(|v| v.remaining_bytes).max().unwrap_or(0)
    }

    /// (capacity, used, remaining) in bytes, of volumes that work.
    pub fn space(&self) -> (u64, u64, u64) {
        self.working().fold((0, 0, 0), |(c, u, r): (u64, u64, u64), v| {
            (
                c.saturating_add(v.capacity_bytes),
                u.saturating_add(v.used_bytes),
                r.saturating_add(v.remaining_bytes),
            )
        })
    }

    fn working(&self) -> impl Iterator<Item = &VolumeStatus> {
        self.volumes.iter().filter(|volume| !volume.failed)
    }
}

/// What a registration led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The node's index.
    pub index: NodeIndex,
    /// The epoch that its stream carries from now on.
    pub epoch: u64,
    /// Whether the uuid was known under another address.
    pub moved: bool,
    /// Whether it was not there before: new, or dead.
    pub is_back: bool,
    /// Another node that had this address and is dead now.
    pub replaced: Option<NodeIndex>,
}

/// All DataNodes that registered since this process began.
#[derive(Debug)]
pub struct Datanodes {
    nodes: Vec<Datanode>,
    by_uuid: HashMap<String, NodeIndex>,
    last_epoch: u64,
    suspect_after_ms: u64,
    dead_after_ms: u64,
    topology: Topology,
    wishes: Wishes,
}

impl Datanodes {
    /// An empty registry. Epochs go on from `first_epoch`, so that those of an earlier process are not met again.
    pub fn new(suspect_after_ms: u64, dead_after_ms: u64, first_epoch: u64) -> Self {
        assert!(suspect_after_ms <= dead_after_ms, "a node is suspect before it is dead");
        Self {
            nodes: Vec::new(),
            by_uuid: HashMap::new(),
            last_epoch: first_epoch,
            suspect_after_ms,
            dead_after_ms,
            topology: Topology::default(),
            wishes: Wishes::new(),
        }
    }

    /// What an operator wants of nodes, from now on. Tells which are for something else now, and what they were for.
    pub fn set_wishes(&mut self, now_ms: u64, wishes: Wishes) -> Vec<(NodeIndex, Service)> {
        self.wishes = wishes;
        self.refresh_services(now_ms)
    }

    /// What an operator wants of nodes of one name, from now on; as [`Datanodes::set_wishes`].
    pub fn set_wish(
        &mut self,
        now_ms: u64,
        name: &str,
        wish: Option<Wish>,
    ) -> Vec<(NodeIndex, Service)> {
        match wish {
            Some(wish) => self.wishes.insert(name.to_owned(), wish),
            None => self.wishes.remove(name),
        };
        self.refresh_services(now_ms)
    }

    /// Nodes of a name: a uuid, `host:port` of the data port, or a host.
    pub fn named(&self, name: &str) -> Vec<NodeIndex> {
        let is_named = |node: &Datanode| names_of(&node.address).iter().any(|known| known == name);
        self.iter().filter(|(_, node)| is_named(node)).map(|(index, _)| index).collect()
    }

    /// As [`Datanodes::set_wishes`], with the wishes as they are: those that were for a time may be over.
    pub fn refresh_services(&mut self, now_ms: u64) -> Vec<(NodeIndex, Service)> {
        let mut changed = Vec::new();
        for (number, node) in self.nodes.iter_mut().enumerate() {
            let before = node.service;
            node.service = service_under(wish_for(&self.wishes, &node.address), now_ms, before);
            if node.service != before {
                node.service_since_ms = now_ms;
                changed.push((index_of(number), before));
            }
        }
        changed
    }

    /// Where nodes stand, from now on: those that are known are moved.
    pub fn set_topology(&mut self, topology: Topology) {
        for node in &mut self.nodes {
            node.address.rack = topology.rack_of(&node.address);
        }
        self.topology = topology;
    }

    /// The rack that a node stands in.
    pub fn rack(&self, index: NodeIndex) -> &str {
        &self.get(index).address.rack
    }

    /// Racks with a node that is alive or suspect.
    pub fn racks(&self) -> usize {
        let racks: BTreeSet<&str> =
            self.living_nodes().map(|(_, node)| &node.address.rack[..]).collect();
        racks.len()
    }

    /// Takes a registration. `free_index` says whether an index of a dead node may be given to another uuid (no
    /// replica names it). Errors: `InvalidArgument` on a malformed message, `LimitExceeded` when the table is full.
    pub fn register(
        &mut self,
        now_ms: u64,
        message: DatanodeRegister,
        free_index: impl Fn(NodeIndex) -> bool,
    ) -> Result<Registration> {
        let mut address = message.address.unwrap_or_default();
        check_address(&address)?;
        address.rack = self.topology.rack_of(&address);
        check_volumes(&message.volumes)?;
        check_text("software_version", &message.software_version)?;
        self.last_epoch += 1;
        let epoch = self.last_epoch;
        let known = self.by_uuid.get(&address.uuid).copied();
        let moved = known.is_some_and(|index| !same_place(&self.get(index).address, &address));
        let is_back = known.is_none_or(|index| self.get(index).liveness == Liveness::Dead);
        let replaced = self.end_of_address(&address);
        let before = known.map_or(Service::InService, |index| self.get(index).service);
        let service = service_under(wish_for(&self.wishes, &address), now_ms, before);
        let since_ms = known.filter(|_| service == before).map(|at| self.get(at).service_since_ms);
        let node = Datanode {
            service,
            service_since_ms: since_ms.unwrap_or(now_ms),
            volumes: message.volumes,
            active_transfers: 0,
            software_version: message.software_version,
            epoch,
            attached: true,
            last_heard_ms: now_ms,
            liveness: Liveness::Alive,
            reported: false,
            report_heard_ms: now_ms,
            reserved_bytes: known.map_or(0, |index| self.get(index).reserved_bytes),
            scheduled_blocks: known.map_or(0, |index| self.get(index).scheduled_blocks),
            address,
        };
        let index = match known {
            Some(index) => index,
            None => self.new_index(&node, free_index)?,
        };
        self.by_uuid.insert(node.address.uuid.clone(), index);
        match self.nodes.get_mut(usize::from(index.0)) {
            Some(slot) => *slot = node,
            None => self.nodes.push(node),
        }
        Ok(Registration { index, epoch, moved, is_back, replaced })
    }

    /// Takes a heartbeat of one epoch. Errors: `Stale` if a newer registration ended that epoch.
    pub fn heartbeat(
        &mut self,
        now_ms: u64,
        index: NodeIndex,
        epoch: u64,
        message: DatanodeHeartbeat,
    ) -> Result<()> {
        check_volumes(&message.volumes)?;
        self.hear(now_ms, index, epoch)?;
        let node = &mut self.nodes[usize::from(index.0)];
        node.volumes = message.volumes;
        node.active_transfers = message.active_transfers;
        Ok(())
    }

    /// Notes that something came from a node. Errors: `Stale` if a newer registration ended that epoch, or if the
    /// node was declared dead since (it must register and report anew).
    pub fn hear(&mut self, now_ms: u64, index: NodeIndex, epoch: u64) -> Result<()> {
        let node = &mut self.nodes[usize::from(index.0)];
        if node.epoch != epoch || node.liveness == Liveness::Dead {
            let why = if node.epoch == epoch { "was declared dead" } else { "was fenced off" };
            return Err(Error::new(
                Code::Stale,
                format!(
                    "epoch {epoch} of DataNode {} {why} (the newest is {}): register again",
                    node.address.uuid, node.epoch
                ),
            ));
        }
        node.last_heard_ms = node.last_heard_ms.max(now_ms);
        node.liveness = Liveness::Alive;
        Ok(())
    }

    /// Notes that the stream of an epoch ended. A later one of the same uuid is not touched.
    pub fn detach(&mut self, index: NodeIndex, epoch: u64) {
        let node = &mut self.nodes[usize::from(index.0)];
        if node.epoch == epoch {
            node.attached = false;
        }
    }

    /// Moves silent nodes on to suspect and dead; returns those that died now, by index.
    pub fn check(&mut self, now_ms: u64) -> Vec<NodeIndex> {
        let mut died = Vec::new();
        for (number, node) in self.nodes.iter_mut().enumerate() {
            let silent_ms = now_ms.saturating_sub(node.last_heard_ms);
            match node.liveness {
                Liveness::Dead => {}
                _ if silent_ms >= self.dead_after_ms => {
                    node.liveness = Liveness::Dead;
                    died.push(index_of(number));
                }
                _ if silent_ms >= self.suspect_after_ms => node.liveness = Liveness::Suspect,
                _ => {}
            }
        }
        died
    }

    /// The node with this index. Panics on an index that this registry never gave.
    pub fn get(&self, index: NodeIndex) -> &Datanode {
        &self.nodes[usize::from(index.0)]
    }

    /// The node with this index, to be changed.
    pub fn get_mut(&mut self, index: NodeIndex) -> &mut Datanode {
        &mut self.nodes[usize::from(index.0)]
    }

    /// The index of a uuid.
    pub fn find(&self, uuid: &str) -> Option<NodeIndex> {
        self.by_uuid.get(uuid).copied()
    }

    /// All nodes, by index.
    pub fn iter(&self) -> impl Iterator<Item = (NodeIndex, &Datanode)> {
        self.nodes.iter().enumerate().map(|(number, node)| (index_of(number), node))
    }

    /// Nodes that are alive or suspect, by index.
    pub fn living_nodes(&self) -> impl Iterator<Item = (NodeIndex, &Datanode)> {
        self.iter().filter(|(_, node)| node.liveness != Liveness::Dead)
    }

    /// How many nodes are alive or suspect.
    pub fn living(&self) -> usize {
        self.living_nodes().count()
    }

    /// Declares dead whoever else had this address, and tells who.
    fn end_of_address(&mut self, address: &DatanodeAddress) -> Option<NodeIndex> {
        let (number, node) = self.nodes.iter_mut().enumerate().find(|(_, node)| {
            node.liveness != Liveness::Dead
                && node.address.uuid != address.uuid
                && same_place(&node.address, address)
        })?;
        node.liveness = Liveness::Dead;
        node.attached = false;
        Some(index_of(number))
    }

    fn new_index(
        &mut self,
        node: &Datanode,
        free_index: impl Fn(NodeIndex) -> bool,
    ) -> Result<NodeIndex> {
        if self.nodes.len() < DATANODES_MAX {
            return Ok(index_of(self.nodes.len()));
        }
        let free = self.iter().find(|(index, old)| {
            old.liveness == Liveness::Dead && !old.attached && free_index(*index)
        });
        let Some((index, old)) = free else {
            return Err(Error::new(
                Code::LimitExceeded,
                format!("DataNode {}: {DATANODES_MAX} are registered already", node.address.uuid),
            ));
        };
        let uuid = old.address.uuid.clone();
        self.by_uuid.remove(&uuid);
        Ok(index)
    }
}

fn index_of(number: usize) -> NodeIndex {
    NodeIndex(u16::try_from(number).expect("the table holds at most DATANODES_MAX nodes"))
}

fn same_place(a: &DatanodeAddress, b: &DatanodeAddress) -> bool {
    a.host == b.host && a.data_port == b.data_port
}

fn check_address(address: &DatanodeAddress) -> Result<()> {
    if address.uuid.is_empty() || address.uuid.len() > 64 {
        return Err(invalid(format!(
            "a DataNode's uuid has {} bytes, expected 1 to 64",
            address.uuid.len()
        )));
    }
    check_text("uuid", &address.uuid)?;
    check_text("host", &address.host)?;
    check_text("local_socket", &address.local_socket)?;
    check_text("rack", &address.rack)?;
    if address.host.is_empty() {
        return Err(invalid(format!("DataNode {} tells no host", address.uuid)));
    }
    for (name, port) in [
        ("data_port", address.data_port),
        ("control_port", address.control_port),
        ("http_port", address.http_port),
        ("ipc_port", address.ipc_port),
    ] {
        if port > 65_535 || (port == 0 && name == "data_port") {
            return Err(invalid(format!("DataNode {}: {name} {port} is no port", address.uuid)));
        }
    }
    Ok(())
}

fn check_volumes(volumes: &[VolumeStatus]) -> Result<()> {
    if volumes.len() > VOLUMES_MAX {
        return Err(invalid(format!("{} volumes, at most {VOLUMES_MAX}", volumes.len())));
    }
    for volume in volumes {
        check_text("volume id", &volume.id)?;
        check_text("volume error", &volume.error)?;
    }
    Ok(())
}

fn check_text(what: &str, text: &str) -> Result<()> {
    if text.len() > TEXT_BYTES_MAX || text.contains('\0') {
        return Err(invalid(format!(
            "{what} has {} bytes or a NUL, at most {TEXT_BYTES_MAX} without",
            text.len()
        )));
    }
    Ok(())
}

fn invalid(message: String) -> Error {
    Error::new(Code::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(uuid: &str, port: u32) -> DatanodeRegister {
        DatanodeRegister {
            address: Some(DatanodeAddress {
                uuid: uuid.into(),
                host: "10.0.0.1".into(),
                data_port: port,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn registry() -> Datanodes {
        Datanodes::new(5_000, 30_000, 0)
    }

    #[test]
    fn a_later_registration_fences_the_earlier_epoch() {
        let mut nodes = registry();
        let first = nodes.register(0, register("a", 1), |_| false).unwrap();
        let second = nodes.register(10, register("a", 1), |_| false).unwrap();
        assert_eq!(first.index, second.index);
        assert!(second.epoch > first.epoch && !second.moved);
        let old = nodes.heartbeat(20, first.index, first.epoch, DatanodeHeartbeat::default());
        assert_eq!(old.unwrap_err().code, Code::Stale);
        nodes.heartbeat(20, first.index, second.epoch, DatanodeHeartbeat::default()).unwrap();
        nodes.detach(first.index, first.epoch);
        assert!(nodes.get(first.index).attached, "the old stream's end is nothing to the new one");
    }

    #[test]
    fn silence_makes_suspect_then_dead_and_a_heartbeat_mends_only_the_first() {
        let mut nodes = registry();
        let a = nodes.register(0, register("a", 1), |_| false).unwrap();
        for (now_ms, died, liveness) in [
            (4_999, 0, Liveness::Alive),
            (5_000, 0, Liveness::Suspect),
            (29_999, 0, Liveness::Suspect),
        ] {
            assert_eq!(nodes.check(now_ms).len(), died);
            assert_eq!(nodes.get(a.index).liveness, liveness);
        }
        nodes.hear(29_999, a.index, a.epoch).unwrap();
        assert_eq!(nodes.get(a.index).liveness, Liveness::Alive);
        assert_eq!(nodes.check(59_999), [a.index]);
        assert_eq!(nodes.check(60_000), [], "a death is told once");
        assert_eq!(nodes.hear(60_001, a.index, a.epoch).unwrap_err().code, Code::Stale);
        let again = nodes.register(60_002, register("a", 1), |_| false).unwrap();
        assert_eq!(again.index, a.index);
    }

    #[test]
    fn a_move_keeps_the_index_and_a_new_uuid_at_an_address_ends_the_old_one() {
        let mut nodes = registry();
        let a = nodes.register(0, register("a", 1), |_| false).unwrap();
        let moved = nodes.register(1, register("a", 2), |_| false).unwrap();
        assert!(moved.moved && moved.index == a.index && moved.replaced.is_none());
        let b = nodes.register(2, register("b", 2), |_| false).unwrap();
        assert_eq!(b.replaced, Some(a.index));
        assert_eq!(nodes.get(a.index).liveness, Liveness::Dead);
    }

    #[test]
    fn malformed_registrations_are_refused() {
        let mut nodes = registry();
        let mut no_port = register("a", 1);
        no_port.address.as_mut().unwrap().data_port = 0;
        let mut big_port = register("a", 1);
        big_port.address.as_mut().unwrap().http_port = 70_000;
        let mut nul = register("a\0", 1);
        nul.software_version = "x".into();
        let mut volumes = register("a", 1);
        volumes.volumes = vec![VolumeStatus::default(); VOLUMES_MAX + 1];
        let long = register(&"u".repeat(65), 1);
        for bad in [DatanodeRegister::default(), no_port, big_port, nul, volumes, long] {
            let error = nodes.register(0, bad, |_| false).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument, "{error}");
        }
        assert_eq!(nodes.iter().count(), 0);
    }
}
