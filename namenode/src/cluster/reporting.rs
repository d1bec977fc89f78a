//! What DataNodes tell of their replicas: changes, and full reports part by part.
//!
//! Each reported replica is judged by the map beside the namespace's view, and what follows from the verdict is done at
//! once: whoever waits for the block is told, a replica that no file has is deleted, a complete block is settled.

use proto::granary::ReplicaState;
use proto::{BlockId, Code, Error, Result};

use super::datanodes::{Datanode, NodeIndex};
use super::repair::is_mark;
use super::replicas::{Reported, Verdict};
use super::report::FullReport;
use super::{Cluster, Effect, Truth};

/// A full report that goes on for so long without a further chunk is asked for anew.
const REPORT_PAUSE_MS_MAX: u64 = 120_000;

impl Cluster {
    /// Replicas of a node that changed. Errors: `Stale` when the stream of that epoch must end.
    pub fn changes(
        &mut self,
        now_ms: u64,
        node: NodeIndex,
        epoch: u64,
        changes: &[Reported],
        truth: Truth<'_>,
    ) -> Result<()> {
        self.datanodes.hear(now_ms, node, epoch)?;
        self.now_ms = self.now_ms.max(now_ms);
        for change in changes {
            if let Some(report) = self.reports.get_mut(&node) {
                report.touch(change.id);
            }
            self.one_replica(node, change, truth);
        }
        Ok(())
    }

    /// The header of a report's chunk; its replicas follow by [`Cluster::report_part`]. False: it does not follow the
    /// one before, the node is asked for a new report. Errors: `Stale` when the stream of that epoch must end.
    pub fn report_chunk(
        &mut self,
        now_ms: u64,
        node: NodeIndex,
        epoch: u64,
        report_id: u64,
        chunk_index: u32,
    ) -> Result<bool> {
        self.datanodes.hear(now_ms, node, epoch)?;
        self.now_ms = self.now_ms.max(now_ms);
        if chunk_index == 0 {
            let search = self.replicas.held_by(node) > 0;
            self.reports.insert(node, FullReport::begin(report_id, search));
        }
        let accepted = self
            .reports
            .get_mut(&node)
            .is_some_and(|report| report.accepts(report_id, chunk_index));
        self.datanodes.get_mut(node).report_heard_ms = now_ms;
        if !accepted {
            self.ask_for_report(node);
        }
        Ok(accepted)
    }

    /// Asks again for full reports that were begun or promised and do not come: without one, a node vouches for
    /// nothing.
    pub(super) fn ask_for_missing_reports(&mut self, now_ms: u64) {
        let is_missing = |node: &Datanode| {
            node.attached
                && !node.reported
                && now_ms.saturating_sub(node.report_heard_ms) >= REPORT_PAUSE_MS_MAX
        };
        let nodes = self.datanodes.living_nodes();
        let missing: Vec<NodeIndex> =
            nodes.filter(|(_, node)| is_missing(node)).map(|(index, _)| index).collect();
        for node in missing {
            self.datanodes.get_mut(node).report_heard_ms = now_ms;
            self.ask_for_report(node);
        }
    }

    fn ask_for_report(&mut self, node: NodeIndex) {
        self.reports.remove(&node);
        self.outboxes[usize::from(node.0)].report_in_full = true;
        self.effects.push(Effect::Wake(node));
    }

    /// A run of replicas of the chunk that was announced, ordered by id; `last`: the report is through with it.
    /// Errors: `Stale` when the stream must end; `InvalidArgument` if ids do not ascend.
    pub fn report_part(
        &mut self,
        node: NodeIndex,
        epoch: u64,
        part: &[Reported],
        last: bool,
        truth: Truth<'_>,
    ) -> Result<()> {
        if self.datanodes.get(node).epoch != epoch {
            return Err(Error::new(Code::Stale, "the DataNode registered again during its report"));
        }
        let Some(mut report) = self.reports.remove(&node) else {
            return Err(Error::new(Code::Stale, "the report was given up"));
        };
        for replica in part {
            if replica.id.0 < report.settled {
                return Err(Error::new(
                    Code::InvalidArgument,
                    format!("a full report does not ascend at {}", replica.id),
                ));
            }
            self.settle_gap(node, &report, replica.id.0, truth);
            report.settled = replica.id.0.saturating_add(1);
            if !report.is_touched(replica.id) {
                self.one_replica(node, replica, truth);
            }
        }
        if last {
            self.settle_gap(node, &report, u64::MAX, truth);
            self.datanodes.get_mut(node).reported = true;
        } else {
            self.reports.insert(node, report);
        }
        Ok(())
    }

    fn one_replica(&mut self, node: NodeIndex, replica: &Reported, truths: Truth<'_>) {
        let (id, is_gone) = (replica.id, replica.state == ReplicaState::Deleted);
        // What stands for a whole group is no block: nobody can have it.
        let truth = truths(id).filter(|_| !is_mark(id));
        if is_gone {
            self.invalidations.told(node, id);
        } else if truth.is_some() && self.invalidations.is_awaited(node, id, replica.stamp) {
            return;
        }
        let verdict = self.replicas.report(node, replica, truth.as_ref());
        if !matches!(replica.state, ReplicaState::BeingWritten) && !self.promises.is_empty() {
            self.release_on(node, id);
        }
        match (verdict, truth) {
            (Verdict::Finalized | Verdict::Bad, Some(truth)) if truth.complete => {
                self.settle_block(id, &truth);
            }
            (Verdict::Finalized | Verdict::Bad, Some(_)) => {
                // Of a unit, whoever waits for its group.
                let whole = if id.is_striped() { id.group() } else { id };
                self.effects.push(Effect::Finalized(whole));
            }
            (Verdict::Unknown, _) if !is_gone => {
                self.invalidations.push(node, id, replica.stamp);
                self.wake(node);
            }
            _ => {}
        }
        if verdict == Verdict::Finalized {
            self.arrived(node, id, truths);
        }
        let lost = (is_gone || verdict == Verdict::Bad) && self.replicas.is_lacking(id);
        if lost || self.repairs.knows(id) {
            self.notice_now(id, truths);
        }
    }

    /// What is known of a block changed: what it needs now is noticed.
    pub(super) fn notice_now(&mut self, id: BlockId, truths: Truth<'_>) {
        if self.safemode.is_on() {
            return;
        }
        if let Some(truth) = truths(id) {
            self.notice(id, &truth, 0, false);
            self.notice_group_of(id, 0, truths);
        }
    }

    fn settle_gap(&mut self, node: NodeIndex, report: &FullReport, end: u64, truths: Truth<'_>) {
        if !report.search {
            return;
        }
        let range = (report.settled, end);
        let dropped = self.replicas.drop_range(node, range, usize::MAX, |id| report.is_touched(id));
        for id in dropped {
            self.notice_now(id, truths);
        }
    }
}
