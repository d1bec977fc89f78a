//! Where blocks are and may go: locations for readers, targets for writers, addresses of nodes.

use std::collections::BTreeSet;

use proto::erasure::Policy;
use proto::granary::DatanodeAddress;
use proto::{BlockId, Result};

use super::Cluster;
use super::datanodes::{Liveness, NodeIndex};
use super::placement::{self, Wanted};
use super::replicas::BlockTruth;

/// What would become of a block without some nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// As before, or whole enough.
    #[default]
    Untouched,
    /// It could be read, and could lose no further replica or unit.
    Endangered,
    /// It could be read before, and not without them.
    Lost,
}

impl Cluster {
    /// What would become of a complete block, or block group, without these nodes.
    pub fn fate_without(&self, id: BlockId, truth: &BlockTruth, gone: &[NodeIndex]) -> Fate {
        let is_there = |node: &NodeIndex| self.datanodes.get(*node).liveness != Liveness::Dead;
        let stays = |node: &NodeIndex| !gone.contains(node);
        let (before, after, needed) = match Policy::by_id(truth.policy) {
            None => {
                let mut good = self.replicas.good_holders(id);
                good.retain(is_there);
                let before = good.len();
                good.retain(stays);
                (before, good.len(), 1)
            }
            Some(policy) => {
                let mut good = self.group_nodes(id, truth);
                let units = |good: &[(NodeIndex, u8)]| {
                    good.iter().map(|&(_, unit)| unit).collect::<BTreeSet<u8>>().len()
                };
                let before = units(&good);
                good.retain(|(node, _)| stays(node));
                (before, units(&good), usize::from(policy.units_needed(truth.length)))
            }
        };
        match after {
            _ if after == before || before < needed => Fate::Untouched,
            _ if after < needed => Fate::Lost,
            _ if after == needed => Fate::Endangered,
            _ => Fate::Untouched,
        }
    }

    /// Chooses targets of a new block. Errors: `NotEnoughDatanodes`; shortly after the start, when nodes may still be
    /// registering, `Unavailable`, so that a writer that lived through a restart asks again.
    pub fn place(&mut self, wanted: &Wanted<'_>) -> Result<Vec<NodeIndex>> {
        let chosen = placement::choose(&self.datanodes, &mut self.rng, wanted);
        chosen.map_err(|error| self.perhaps_gathering(error))
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

    /// Whether a replica of the block ever showed, or a live node was to write it.
    pub fn has_any_replica(&self, id: BlockId) -> bool {
        self.replicas.is_reported(id)
            || self
                .replicas
                .pipeline(id)
                .iter()
                .any(|&node| self.datanodes.get(node).liveness != Liveness::Dead)
    }
}
