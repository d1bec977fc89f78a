//! Block groups of striped files: where their units go and are, and whether there are enough.
//!
//! Each unit is a block of its own in the map, with one replica (`replicas::units`); so stamps, odd replicas and
//! surplus need nothing here. What is asked of a group as a whole is answered from its up to 14 units: whether it can
//! be read (as many good units as it has data units with bytes), where each unit is, whether a writer may go on.
//!
//! Units are placed on different nodes, as evenly over the racks as can be.

use proto::erasure::Policy;
use proto::granary::DatanodeAddress;
use proto::{BlockId, Code, Error, GenerationStamp, Result};

pub use super::block::{GroupState, unit_truth};
use super::datanodes::{Liveness, NodeIndex};
use super::placement::{self, Wanted};
use super::repair::group_mark;
pub use super::repair::is_mark;
use super::replicas::BlockTruth;
use super::{Cluster, Effect};

impl Cluster {
    /// The namespace made, changed or (`None`) dropped a block group.
    pub(super) fn group_changed(&mut self, group: BlockId, truth: Option<&BlockTruth>) {
        let Some(truth) = truth else {
            self.group_removed(group);
            return;
        };
        let Some(policy) = Policy::by_id(truth.policy) else { return };
        let writing = |unit: &u8| self.replicas.pipeline_len(group.of_unit(*unit)) > 0;
        let written = (0..policy.units()).filter(writing).count();
        self.replicas.sync_group(group, policy, truth);
        if !truth.complete {
            self.forget_group_repair(group);
            return;
        }
        self.recoveries.end(group);
        let mut wanted = 0;
        for unit in 0..policy.units() {
            let id = group.of_unit(unit);
            self.release(id);
            if let Some(truth) = unit_truth(truth, unit) {
                wanted += truth.replication as usize;
                self.settle_block(id, &truth);
            }
        }
        // With all its writers, its units are on their way; if not, it lacks some from the start.
        if written < wanted && self.replicas.is_lacking(group) && !self.safemode.is_on() {
            self.notice_in_time(group_mark(group), truth);
        }
    }

    fn group_removed(&mut self, group: BlockId) {
        self.recoveries.end(group);
        self.forget_group_repair(group);
        (0..BlockId::GROUP_STEP as u8).for_each(|unit| self.release(group.of_unit(unit)));
        for (unit, node) in self.replicas.remove_group(group) {
            if self.datanodes.get(node).liveness != Liveness::Dead {
                self.invalidations.push(node, unit, GenerationStamp(u64::MAX));
                self.wake(node);
            }
        }
        self.effects.push(Effect::Finalized(group));
    }

    /// As for a replicated block: the group is gone or is written again.
    fn forget_group_repair(&mut self, group: BlockId) {
        for unit in 0..BlockId::GROUP_STEP as u8 {
            self.forget_repair(group.of_unit(unit));
            self.invalidations.forget(group.of_unit(unit));
        }
    }

    /// Chooses nodes for units, one each. Errors as [`Cluster::place`].
    pub fn place_units(&mut self, wanted: &Wanted<'_>) -> Result<Vec<NodeIndex>> {
        let chosen = placement::choose_for_units(&self.datanodes, &mut self.rng, wanted);
        chosen.map_err(|error| self.perhaps_gathering(error))
    }

    /// Remembers where the units of a group are being written (`None`: nowhere), and what one may take there.
    pub fn start_group(&mut self, group: BlockId, nodes: &[Option<NodeIndex>], unit_bytes: u64) {
        for (unit, node) in (0..).zip(nodes) {
            self.start_pipeline(group.of_unit(unit), node.as_slice(), unit_bytes);
        }
    }

    /// The units of a group are written on by these nodes; each is promised what the first ones were.
    pub fn move_group(&mut self, group: BlockId, nodes: &[Option<NodeIndex>]) {
        for (unit, node) in (0..).zip(nodes) {
            self.move_pipeline(group.of_unit(unit), node.as_slice());
        }
    }

    /// Where the units of a group are being written: a node and its unit, in the order of the units.
    pub fn group_pipeline(&self, group: BlockId, policy: u8) -> Vec<(NodeIndex, u8)> {
        let units = Policy::by_id(policy).map_or(0, Policy::units);
        let of = |unit| self.replicas.pipeline(group.of_unit(unit)).into_iter().zip([unit]);
        (0..units).flat_map(of).collect()
    }

    /// Nodes that are not dead and hold a good unit of a group, or are to write one: by unit, those first that are
    /// sure to live.
    pub fn group_nodes(&self, group: BlockId, truth: &BlockTruth) -> Vec<(NodeIndex, u8)> {
        let mut found = Vec::new();
        let units = Policy::by_id(truth.policy).map_or(0, Policy::units);
        for unit in 0..units {
            let Some(truth) = unit_truth(truth, unit) else { continue };
            if truth.complete && truth.replication == 0 {
                continue;
            }
            let known = self.replicas.locations(group.of_unit(unit), &truth);
            if known.corrupt {
                continue;
            }
            let first = found.len();
            found.extend(known.nodes.into_iter().map(|node| (node, unit)));
            let rank = |node: NodeIndex| {
                let known = self.datanodes.get(node);
                (known.liveness != Liveness::Alive, !known.attached)
            };
            found[first..].sort_by_key(|&(node, _)| rank(node));
        }
        found.retain(|&(node, _)| self.datanodes.get(node).liveness != Liveness::Dead);
        found
    }

    /// Where to read a group: addresses, the unit that each holds, and whether fewer units are good than are needed.
    pub fn group_locations(
        &self,
        group: BlockId,
        truth: &BlockTruth,
    ) -> (Vec<DatanodeAddress>, Vec<u8>, bool) {
        let (nodes, units): (Vec<NodeIndex>, Vec<u8>) =
            self.group_nodes(group, truth).into_iter().unzip();
        let mut different = units.clone();
        different.dedup();
        let needed = Policy::by_id(truth.policy).map_or(0, |p| p.units_needed(truth.length));
        let unreadable = truth.complete && different.len() < usize::from(needed);
        (self.addresses(&nodes), units, unreadable)
    }

    /// Units of a group under construction that are finalized at this stamp, and as long as they are with so many
    /// bytes of data in the group.
    pub fn finalized_units(
        &self,
        group: BlockId,
        policy: Policy,
        stamp: GenerationStamp,
        length: u64,
    ) -> usize {
        let finalized = |unit: &u8| {
            let bytes = policy.unit_bytes(length, *unit);
            bytes > 0 && self.replicas.finalized(group.of_unit(*unit), stamp, bytes) > 0
        };
        (0..policy.units()).filter(finalized).count()
    }

    /// Whether some unit of a complete group is known to be damaged.
    pub fn has_damaged_unit(&self, group: BlockId) -> bool {
        self.replicas.is_corrupt_group(group)
    }

    /// Whether a unit of the group ever showed, or a live node was to write one.
    pub fn has_any_unit(&self, group: BlockId, policy: u8) -> bool {
        let units = Policy::by_id(policy).map_or(0, Policy::units);
        (0..units).any(|unit| self.has_any_replica(group.of_unit(unit)))
    }

    /// Shortly after the start nodes may still be registering: a writer that lived through a restart asks again.
    pub(super) fn perhaps_gathering(&self, error: Error) -> Error {
        if !self.gathering {
            return error;
        }
        let why = "the NameNode has just started: they may be on their way";
        Error::new(Code::Unavailable, format!("{}; {why}", error.message))
    }
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
