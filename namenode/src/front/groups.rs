//! Block groups of striped files that are being written: where their units go, and when they count.
//!
//! As `blocks`, which has the methods and comes here with striped files. A location names a node, `units` its unit.
//! Fewer nodes than units are enough as long as the group can be read from what they hold: the units without a node
//! are lost from the start, and repair makes them when there are more nodes.

use proto::erasure::Policy;
use proto::granary::{FileStatus, LocatedBlock};
use proto::{Code, Error, Result};

use super::node::{Node, unexpected};
use crate::cluster::datanodes::NodeIndex;
use crate::cluster::placement::Wanted;
use crate::op::{self, CallId, Caller, Op, Reply};

/// The policy of a striped file; `None`: it is replicated.
pub(super) fn policy_of(status: &FileStatus) -> Option<Policy> {
    u8::try_from(status.erasure_policy).ok().and_then(Policy::by_id)
}

impl Node {
    /// AddBlock on a striped file: one more block group.
    pub(super) async fn add_group(
        &self,
        call: (Caller, Option<CallId>),
        op: Op,
        policy: Policy,
        (block_bytes, excluded): (u64, Vec<NodeIndex>),
    ) -> Result<LocatedBlock> {
        let units = usize::from(policy.units());
        let targets = self.volatile.cluster(|cluster, _| {
            cluster.place_units(&Wanted {
                replicas: units,
                replicas_min: policy.data_units.into(),
                block_bytes,
                writer_host: "",
                favoured: &[],
                existing: &[],
                excluded: &excluded,
            })
        })?;
        let reply = self.propose(call, op).await?;
        let Reply::BlockAllocated { block, offset, block_bytes, .. } = reply else {
            return unexpected("addBlock", &reply);
        };
        Ok(self.volatile.cluster(|cluster, _| {
            // A repeated call gets the same group again: then also the same nodes, if it still wants them.
            let mut at = cluster.group_pipeline(block.id, policy.id);
            if at.is_empty() || at.iter().any(|(node, _)| excluded.contains(node)) {
                at = targets.into_iter().take(units).zip(0..).collect();
                let mut nodes = vec![None; units];
                at.iter().for_each(|&(node, unit)| nodes[usize::from(unit)] = Some(node));
                cluster.start_group(block.id, &nodes, block_bytes);
            }
            let (nodes, units): (Vec<NodeIndex>, Vec<u8>) = at.into_iter().unzip();
            LocatedBlock {
                block: Some(block.into()),
                offset,
                locations: cluster.addresses(&nodes),
                corrupt: false,
                erasure_policy: policy.id.into(),
                units: units.into(),
            }
        }))
    }

    /// UpdateBlockForPipeline on a group: the stamp to go on with, and where the units are being written.
    pub(super) fn group_with_stamp(&self, block: op::Block, policy: u8) -> LocatedBlock {
        self.volatile.cluster(|cluster, _| {
            let (nodes, units): (Vec<NodeIndex>, Vec<u8>) =
                cluster.group_pipeline(block.id, policy).into_iter().unzip();
            LocatedBlock {
                locations: cluster.addresses(&nodes),
                units: units.into(),
                erasure_policy: policy.into(),
                block: Some(block.into()),
                ..Default::default()
            }
        })
    }

    /// Nodes by uuid, one per unit; an empty uuid is a lost unit. Errors: `InvalidArgument` if there are more than a
    /// group has units.
    pub(super) fn unit_nodes(&self, uuids: &[String]) -> Result<Vec<Option<NodeIndex>>> {
        if uuids.len() >= proto::BlockId::GROUP_STEP as usize {
            let message = format!("{} nodes for the units of one block group", uuids.len());
            return Err(Error::new(Code::InvalidArgument, message));
        }
        Ok(self
            .volatile
            .cluster(|cluster, _| uuids.iter().map(|uuid| cluster.datanodes.find(uuid)).collect()))
    }
}
