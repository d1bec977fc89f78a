//! What waits for a DataNode to be sent: recoveries, copies, units to compute, deletions, the wish for a full report.

use std::collections::VecDeque;

use proto::granary::{Block, DatanodeCommands, ReconstructUnits, RecoverBlock, TransferBlock};
use proto::{Code, Error, Result};

use super::datanodes::{Liveness, NodeIndex};
use super::{Cluster, Effect};

/// Recoveries or copies that may wait for one DataNode.
pub(super) const OUTBOX_MAX: usize = 10_000;
/// Recoveries or copies handed out at once.
const COMMANDS_BATCH_MAX: usize = 100;

/// What waits for one DataNode.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub recover: VecDeque<RecoverBlock>,
    pub transfer: VecDeque<TransferBlock>,
    pub reconstruct: VecDeque<ReconstructUnits>,
    pub report_in_full: bool,
}

impl Cluster {
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
        let batch = outbox.reconstruct.len().min(COMMANDS_BATCH_MAX);
        commands.reconstruct.extend(outbox.reconstruct.drain(..batch));
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

    /// Wakes a node's sender once for a run of deletions.
    pub(super) fn wake(&mut self, node: NodeIndex) {
        if self.effects.last() != Some(&Effect::Wake(node)) {
            self.effects.push(Effect::Wake(node));
        }
    }
}
