//! What a complete block needs: copies, or a place in another rack, or nothing.
//!
//! Counted are good replicas on nodes that are not dead, by what their node is for: *in service*; *leaving*, which is
//! good for reading and as a source, but will not stay; *in maintenance*, which stays counted, dead or not, as long as
//! enough others stand in service.

use proto::BlockId;

use super::super::Cluster;
use super::super::block::BlockTruth;
use super::super::datanodes::{Liveness, NodeIndex};
use super::super::service::Service;
use super::is_mark;
use super::queue::Danger;

/// What is to be done for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// How endangered it is.
    pub danger: Danger,
    /// Copies to be made.
    pub copies: usize,
}

/// The good replicas of a block, by the service of their nodes. Nodes that are dead and not in maintenance are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Stand {
    /// In service, alive or suspect.
    pub in_service: Vec<NodeIndex>,
    /// To be decommissioned, or decommissioned and still there.
    pub leaving: Vec<NodeIndex>,
    /// Entering or in maintenance.
    pub maintained: Vec<NodeIndex>,
    /// Of all these, those on nodes that are not dead.
    pub reachable: usize,
}

impl Cluster {
    /// Where the good replicas of a complete block stand.
    pub(in super::super) fn stand(&self, id: BlockId) -> Stand {
        let mut stand = Stand::default();
        for node in self.replicas.good_holders(id) {
            let known = self.datanodes.get(node);
            let is_dead = known.liveness == Liveness::Dead;
            if is_dead && known.service != Service::InMaintenance {
                continue;
            }
            if known.service.is_maintenance() {
                stand.maintained.push(node);
            } else if known.service.is_leaving() {
                stand.leaving.push(node);
            } else {
                stand.in_service.push(node);
            }
            stand.reachable += usize::from(!is_dead);
        }
        stand
    }

    /// What a block needs, if there is a replica to make it from.
    pub(in super::super) fn assess(&self, id: BlockId, truth: &BlockTruth) -> Option<Need> {
        if !truth.complete {
            return None;
        }
        if is_mark(id) {
            return self.assess_group(id, truth);
        }
        let stand = self.stand(id);
        if stand.reachable == 0 {
            return None;
        }
        let (serving, expected) = (stand.in_service.len(), truth.replication as usize);
        let wanted = self.wanted_in_service(&stand, expected);
        if serving < wanted {
            let all = serving + stand.leaving.len() + stand.maintained.len();
            let danger = if all >= expected {
                Danger::LEAVING
            } else {
                Danger::lacking(stand.reachable - 1)
            };
            return Some(Need { danger, copies: wanted - serving });
        }
        self.is_misplaced(&stand, expected).then_some(Need { danger: Danger::MISPLACED, copies: 1 })
    }

    /// Replicas that a block should have in service: those in maintenance come back, but a few must stand without them.
    fn wanted_in_service(&self, stand: &Stand, expected: usize) -> usize {
        if stand.maintained.is_empty() {
            return expected;
        }
        let least = self.maintenance_replicas_min.min(expected);
        expected.saturating_sub(stand.maintained.len()).max(least)
    }

    /// Whether the replicas that stay are in fewer racks than they could be: two, if there are two.
    fn is_misplaced(&self, stand: &Stand, expected: usize) -> bool {
        if expected < 2 || self.datanodes.racks() < 2 {
            return false;
        }
        let mut staying = stand.in_service.iter().chain(&stand.maintained);
        let Some(&first) = staying.next() else { return false };
        let rack = self.datanodes.rack(first);
        staying.all(|&node| self.datanodes.rack(node) == rack)
    }
}
