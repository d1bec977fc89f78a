//! Repair of block groups: lost units are computed from good ones by a DataNode, several at a time.
//!
//! In the queue and among what is under way a group goes by its mark (see [`group_mark`]). A unit is lost if no node
//! that lives, or is in maintenance and comes back, has a good replica of it. One of the nodes that shall hold a lost
//! unit reads as many others as are needed, computes all that are lost, and sends each to its node. A unit that merely
//! stands on a node that is to go is copied as a block is.
//!
//! Where every node holds some unit, a damaged one is deleted to make room, as long as the group can be read without.

use proto::BlockId;
use proto::erasure::Policy;
use proto::granary::{Block, ReconstructUnits, UnitLocation};

use super::need::{Need, Stand};
use super::queue::Danger;
use super::{
    Copy, NO_PLACE_PAUSE_MS, NO_ROOM_PAUSE_MS, NotNow, Purpose, copy_deadline, group_mark,
};
use crate::cluster::block::{BlockTruth, unit_truth};
use crate::cluster::datanodes::{Liveness, NodeIndex};
use crate::cluster::outbox::OUTBOX_MAX;
use crate::cluster::placement::Wanted;
use crate::cluster::{Cluster, Effect, Truth};

/// The units of a complete group, as they stand.
struct GroupStand {
    policy: Policy,
    needed: usize,
    /// Units that can be read, with the nodes that have them.
    readable: Vec<(u8, Vec<NodeIndex>)>,
    /// Units that are to be made.
    lost: Vec<u8>,
}

impl Cluster {
    /// What a group needs, if it can be read.
    pub(super) fn assess_group(&self, mark: BlockId, truth: &BlockTruth) -> Option<Need> {
        let stand = self.group_stand(mark.group(), truth)?;
        let spare = stand.readable.len().checked_sub(stand.needed)?;
        let copies = stand.lost.len();
        (copies > 0).then_some(Need { danger: Danger::lacking(spare), copies })
    }

    /// Something happened to a unit: its group is noticed too.
    pub(in super::super) fn notice_group_of(
        &mut self,
        id: BlockId,
        ready_ms: u64,
        truths: Truth<'_>,
    ) {
        if !id.is_striped() {
            return;
        }
        let mark = group_mark(id);
        if let Some(truth) = truths(mark) {
            self.notice(mark, &truth, ready_ms, false);
        }
    }

    fn group_stand(&self, group: BlockId, truth: &BlockTruth) -> Option<GroupStand> {
        let policy = Policy::by_id(truth.policy).filter(|_| truth.complete)?;
        let needed = usize::from(policy.units_needed(truth.length));
        let mut stand = GroupStand { policy, needed, readable: Vec::new(), lost: Vec::new() };
        let mut away = Vec::new();
        for unit in 0..policy.units() {
            if unit_truth(truth, unit).is_none_or(|truth| truth.replication == 0) {
                continue;
            }
            let Stand { in_service, leaving, maintained, .. } = self.stand(group.of_unit(unit));
            let is_away = !maintained.is_empty();
            let mut nodes = [in_service, leaving, maintained].concat();
            nodes.retain(|&node| self.datanodes.get(node).liveness != Liveness::Dead);
            match (nodes.is_empty(), is_away) {
                (false, _) => stand.readable.push((unit, nodes)),
                (true, true) => away.push(unit),
                (true, false) => stand.lost.push(unit),
            }
        }
        // What is in maintenance comes back; but the loss of one more must not be the loss of the group meanwhile.
        if stand.readable.len() <= needed {
            stand.lost.append(&mut away);
        }
        Some(stand)
    }

    /// Has a node compute the lost units of a group.
    pub(super) fn begin_group(
        &mut self,
        now_ms: u64,
        mark: BlockId,
        truth: &BlockTruth,
    ) -> Result<(), NotNow> {
        let group = mark.group();
        let Some(stand) = self.group_stand(group, truth) else {
            return Err(NotNow::Pause(NO_ROOM_PAUSE_MS));
        };
        let sources = self.unit_sources(now_ms, &stand)?;
        let targets = self.unit_targets(now_ms, group, truth, &stand)?;
        let bytes = stand.policy.unit_bytes(truth.length, 0);
        let leader = targets[0].1;
        let outbox = &mut self.outboxes[usize::from(leader.0)];
        if outbox.reconstruct.len() >= OUTBOX_MAX {
            return Err(NotNow::SourcesBusy);
        }
        let at = |&(unit, node): &(u8, NodeIndex)| UnitLocation {
            unit: unit.into(),
            datanode: Some(self.datanodes.get(node).address.clone()),
        };
        outbox.reconstruct.push_back(ReconstructUnits {
            group: Some(Block {
                id: group.0,
                generation_stamp: truth.stamp.0,
                length: truth.length,
            }),
            erasure_policy: truth.policy.into(),
            sources: sources.iter().map(at).collect(),
            targets: targets.iter().map(at).collect(),
        });
        let tries = self.repairs.queue.remove(mark).unwrap_or(0);
        let read: Vec<NodeIndex> =
            sources.iter().take(stand.needed).map(|&(_, node)| node).collect();
        let written: Vec<NodeIndex> = targets.iter().map(|&(_, node)| node).collect();
        self.repairs.streams.begin(now_ms, &read, &written, bytes);
        let copy = Copy {
            sources: read,
            targets: targets.iter().map(|&(unit, node)| (group.of_unit(unit), node)).collect(),
            bytes,
            deadline_ms: copy_deadline(now_ms, bytes.saturating_mul(1 + stand.needed as u64)),
            purpose: Purpose::Mend,
            tries,
        };
        for &(unit, node) in &copy.targets {
            self.promise(unit, &[node], bytes);
        }
        self.repairs.copies.insert(mark.0, copy);
        self.effects.push(Effect::Wake(leader));
        Ok(())
    }

    /// All units that can be read, each with one node: those that may send first, the least busy before others.
    fn unit_sources(
        &mut self,
        now_ms: u64,
        stand: &GroupStand,
    ) -> Result<Vec<(u8, NodeIndex)>, NotNow> {
        let mut sources: Vec<(u8, NodeIndex)> = Vec::with_capacity(stand.readable.len());
        for (unit, nodes) in &stand.readable {
            let best = nodes.iter().copied().min_by_key(|&node| self.reluctance(now_ms, node));
            sources.push((*unit, best.expect("a readable unit is somewhere")));
        }
        self.rng.shuffle(&mut sources);
        sources.sort_by_key(|&(_, node)| self.reluctance(now_ms, node));
        let last = sources.get(stand.needed.wrapping_sub(1));
        match last.map(|&(_, node)| self.reluctance(now_ms, node)) {
            Some((false, false, _)) => Ok(sources),
            Some((false, true, _)) => Err(NotNow::SourcesBusy),
            _ => Err(NotNow::Pause(NO_ROOM_PAUSE_MS)),
        }
    }

    /// How little a node is fit to be read from now: perhaps not there, sending as much as it may, busy.
    fn reluctance(&self, now_ms: u64, node: NodeIndex) -> (bool, bool, usize) {
        let (known, streams) = (self.datanodes.get(node), &self.repairs.streams);
        let sure = known.liveness == Liveness::Alive && known.attached;
        (!sure, !streams.may_send(now_ms, node), streams.sending(node))
    }

    /// Lost units and the nodes that shall hold them: each another one, that holds no unit of the group.
    fn unit_targets(
        &mut self,
        now_ms: u64,
        group: BlockId,
        truth: &BlockTruth,
        stand: &GroupStand,
    ) -> Result<Vec<(u8, NodeIndex)>, NotNow> {
        let existing: Vec<NodeIndex> =
            stand.readable.iter().flat_map(|(_, nodes)| nodes).copied().collect();
        let mut excluded = Vec::new();
        for unit in 0..stand.policy.units() {
            let id = group.of_unit(unit);
            excluded.extend(self.replicas.all_holders(id));
            excluded.extend(self.invalidations.nodes_of(id));
        }
        if !self.has_node_beside(&excluded) {
            return Err(NotNow::Pause(NO_PLACE_PAUSE_MS));
        }
        excluded.extend(self.repairs.streams.full_receivers(now_ms));
        let chosen = self.place_units(&Wanted {
            replicas: stand.lost.len(),
            replicas_min: 1,
            block_bytes: stand.policy.unit_bytes(truth.length, 0),
            writer_host: "",
            favoured: &[],
            existing: &existing,
            excluded: &excluded,
        });
        let chosen = chosen.map_err(|_| NotNow::Pause(NO_ROOM_PAUSE_MS))?;
        Ok(stand.lost.iter().copied().zip(chosen).collect())
    }

    /// Whether some node that takes writes is not among these.
    fn has_node_beside(&self, nodes: &[NodeIndex]) -> bool {
        self.datanodes.iter().any(|(node, known)| known.takes_writes() && !nodes.contains(&node))
    }

    /// If no node is free for a lost unit, its damaged or stale replicas go: they are good for nothing, and their node
    /// can hold it then.
    pub(in super::super) fn settle_group(&mut self, group: BlockId, truth: &BlockTruth) {
        let Some(stand) = self.group_stand(group, truth) else { return };
        if self.safemode.is_on() || stand.readable.len() < stand.needed {
            return;
        }
        let units = 0..stand.policy.units();
        let holders: Vec<NodeIndex> =
            units.flat_map(|unit| self.replicas.all_holders(group.of_unit(unit))).collect();
        if self.has_node_beside(&holders) {
            return;
        }
        for unit in stand.lost {
            let id = group.of_unit(unit);
            for (node, stamp) in self.replicas.bad(id) {
                self.delete_replica(node, id, stamp);
            }
        }
    }
}
