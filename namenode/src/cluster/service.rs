//! What a DataNode is for: in service, to be decommissioned, in maintenance. The operator's *wishes* come from the
//! namespace, which journals them; how far a node is follows from them and from the blocks.
//!
//! A decommissioning node takes nothing new; what it has counts, and is copied elsewhere first. It is decommissioned
//! when a whole round of the patrol found no block that needs it. A node in maintenance comes back: as long as enough
//! other replicas stand in service, those that it holds count even while it is away, until its time is over.
//!
//! Always holds: a node without a wish is in service; a state that promises something (decommissioned, in maintenance)
//! is entered by [`Cluster::let_go`] alone.

use std::collections::BTreeMap;

use proto::granary::DatanodeAddress;

use super::datanodes::{Datanode, Liveness, NodeIndex};
use super::patrol::Round;
use super::{Cluster, Effect};

/// What a DataNode is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Service {
    /// It reads, writes and takes copies.
    #[default]
    InService,
    /// It takes nothing new, and its blocks are copied elsewhere.
    Decommissioning,
    /// It may be switched off: no block needs it.
    Decommissioned,
    /// As decommissioning, but only until enough other replicas stand.
    EnteringMaintenance,
    /// It may be switched off for a time: its replicas stay counted.
    InMaintenance,
}

impl Service {
    /// Whether it takes part in nothing new.
    pub fn takes_no_writes(self) -> bool {
        self != Self::InService
    }

    /// Whether its replicas will not stay.
    pub fn is_leaving(self) -> bool {
        matches!(self, Self::Decommissioning | Self::Decommissioned)
    }

    /// Whether it comes back.
    pub fn is_maintenance(self) -> bool {
        matches!(self, Self::EnteringMaintenance | Self::InMaintenance)
    }

    /// Whether something is still to be done before it may go.
    pub fn is_pending(self) -> bool {
        matches!(self, Self::Decommissioning | Self::EnteringMaintenance)
    }
}

/// What an operator wants of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// It shall go.
    Decommission,
    /// It shall be away until then, in milliseconds of the caller's clock.
    Maintenance {
        /// The end of it.
        until_ms: u64,
    },
}

/// Wishes by what they name: a uuid, `host:port` of its data port, or a host.
pub type Wishes = BTreeMap<String, Wish>;

/// The wish for a node, the closest name first.
pub fn wish_for(wishes: &Wishes, address: &DatanodeAddress) -> Option<Wish> {
    if wishes.is_empty() {
        return None;
    }
    names_of(address).iter().find_map(|name| wishes.get(name)).copied()
}

/// What a node is called, the closest name first.
pub fn names_of(address: &DatanodeAddress) -> [String; 3] {
    let place = format!("{}:{}", address.host, address.data_port);
    [address.uuid.clone(), place, address.host.clone()]
}

/// What a node that was in one state is now, under a wish.
pub fn service_under(wish: Option<Wish>, now_ms: u64, before: Service) -> Service {
    match (wish, before) {
        (Some(Wish::Decommission), Service::Decommissioned) => Service::Decommissioned,
        (Some(Wish::Decommission), _) => Service::Decommissioning,
        (Some(Wish::Maintenance { until_ms }), _) if until_ms <= now_ms => Service::InService,
        (Some(Wish::Maintenance { .. }), Service::InMaintenance) => Service::InMaintenance,
        (Some(Wish::Maintenance { .. }), _) => Service::EnteringMaintenance,
        (None, _) => Service::InService,
    }
}

impl Cluster {
    /// The operator's wishes as they are now; those before them are forgotten.
    pub fn set_wishes(&mut self, now_ms: u64, wishes: Wishes) {
        let changed = self.datanodes.set_wishes(now_ms, wishes);
        self.take_services(now_ms, changed);
    }

    /// The operator's wish for nodes of one name as it is now; `None`: nothing special any more.
    pub fn set_wish(&mut self, now_ms: u64, name: &str, wish: Option<Wish>) {
        let changed = self.datanodes.set_wish(now_ms, name, wish);
        self.take_services(now_ms, changed);
    }

    /// Blocks that keep a node from going, as last counted.
    pub fn blocking(&self, node: NodeIndex) -> u64 {
        match self.datanodes.get(node).service.is_pending() {
            true => self.patrol.blocking(node),
            false => 0,
        }
    }

    /// Maintenance that is over ends.
    pub(super) fn expire_wishes(&mut self, now_ms: u64) {
        let changed = self.datanodes.refresh_services(now_ms);
        self.take_services(now_ms, changed);
    }

    /// What follows from nodes that are for something else now.
    pub(super) fn take_services(&mut self, now_ms: u64, changed: Vec<(NodeIndex, Service)>) {
        for &(node, before) in &changed {
            let known = self.datanodes.get(node);
            self.effects.push(Effect::Served(node, known.service));
            // What it held counted while it was away; no more.
            let was_away = before == Service::InMaintenance && known.liveness == Liveness::Dead;
            if was_away {
                self.sweeps.insert(node, 0);
            }
        }
        if !changed.is_empty() {
            // What could not be placed may find a place, and what was seen in this round may be otherwise now.
            self.repairs.queue.wake_all();
            self.patrol.start_over(now_ms);
        }
    }

    /// Lets nodes go that nothing keeps, as a whole round found.
    pub(super) fn let_go(&mut self, round: &Round) {
        let free = |node: &Datanode, index: NodeIndex| {
            node.service.is_pending()
                && node.service_since_ms <= round.began_ms
                && (node.reported || node.liveness == Liveness::Dead)
                && !self.sweeps.contains_key(&index)
                && !round.blocking.contains_key(&index)
        };
        let nodes = self.datanodes.iter();
        let free: Vec<NodeIndex> =
            nodes.filter(|(index, node)| free(node, *index)).map(|(index, _)| index).collect();
        for index in free {
            let node = self.datanodes.get_mut(index);
            node.service = match node.service {
                Service::EnteringMaintenance => Service::InMaintenance,
                _ => Service::Decommissioned,
            };
            let service = node.service;
            self.effects.push(Effect::Served(index, service));
        }
    }
}
