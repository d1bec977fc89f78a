//! Snapshots, for all front ends.
//!
//! Changes are one operation each; reads are one look at the state. See `state::snapshots` for what they mean.

use proto::{FsPath, Result};

use super::node::Node;
use crate::op::snapshot::SnapshotOp;
use crate::op::{CallId, Caller, Op, Reply};
use crate::state::{DiffEntry, SnapshotStatus, SnapshottableStatus};

impl Node {
    /// Allows, disallows, makes, removes or renames. Answers [`Reply::Snapshot`] for one that was made.
    pub(super) async fn change_snapshots(
        &self,
        call: (Caller, Option<CallId>),
        op: SnapshotOp,
    ) -> Result<Reply> {
        self.propose(call, Op::Snapshot(op)).await
    }

    /// The snapshottable folders that the caller owns, or all for a superuser.
    pub(super) fn snapshottable_folders(&self, caller: &Caller) -> Vec<SnapshottableStatus> {
        self.log.read(|state| state.snapshottable_folders(caller))
    }

    /// The snapshots of a folder in the order of their making.
    pub(super) fn snapshots(&self, caller: &Caller, path: &FsPath) -> Result<Vec<SnapshotStatus>> {
        self.log.read(|state| state.snapshots(caller, path))
    }

    /// What differs between two snapshots of a folder; an empty name is the folder as it is.
    pub(super) fn snapshot_diff(
        &self,
        caller: &Caller,
        path: &FsPath,
        (from, to): (&str, &str),
    ) -> Result<Vec<DiffEntry>> {
        self.log.read(|state| state.snapshot_diff(caller, path, from, to))
    }
}
