//! Snapshots, for all front ends.
//!
//! Changes are one operation each; reads are one look at the state. See `state::snapshots` for what they mean.

use proto::granary::change_snapshots_request::Action;
use proto::granary::*;
use proto::{Code, Error, FsPath, Result};

use super::access::Method;
use super::node::{Node, path};
use crate::op::snapshot::SnapshotOp;
use crate::op::{CallId, Caller, Op, Reply};
use crate::state::{DiffEntry, SnapshotDiff, SnapshotStatus, SnapshottableStatus};

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

    /// The same from the earlier to the later.
    pub(super) fn snapshot_changes(
        &self,
        caller: &Caller,
        path: &FsPath,
        (from, to): (&str, &str),
    ) -> Result<SnapshotDiff> {
        self.log.read(|state| state.snapshot_changes(caller, path, from, to))
    }

    pub(super) async fn change_snapshots_of(
        &self,
        message: ChangeSnapshotsRequest,
    ) -> Result<ChangeSnapshotsReply> {
        let action = message.action();
        let (path, name) = (path(&message.path)?, message.name);
        let (method, op) = match action {
            Action::Allow => (Method::AllowSnapshot, SnapshotOp::Allow { path }),
            Action::Disallow => (Method::DisallowSnapshot, SnapshotOp::Disallow { path }),
            Action::Create => (Method::CreateSnapshot, SnapshotOp::Create { path, name }),
            Action::Delete => (Method::DeleteSnapshot, SnapshotOp::Delete { path, name }),
            Action::Rename => {
                let op = SnapshotOp::Rename { path, from: name, to: message.new_name };
                (Method::RenameSnapshot, op)
            }
            Action::Unspecified => {
                let message = "changeSnapshots: the action is not given";
                return Err(Error::new(Code::InvalidArgument, message));
            }
        };
        let call = self.enter(method, message.caller)?;
        match self.change_snapshots(call, op).await? {
            Reply::Snapshot(made) => Ok(ChangeSnapshotsReply { path: made.to_string() }),
            _ => Ok(ChangeSnapshotsReply::default()),
        }
    }

    pub(super) fn list_snapshots(
        &self,
        message: ListSnapshotsRequest,
    ) -> Result<ListSnapshotsReply> {
        if message.path.is_empty() {
            let (caller, _) = self.enter(Method::GetSnapshottableFolders, message.caller)?;
            let folder = |found: SnapshottableStatus| SnapshottableFolder {
                path: found.path.to_string(),
                snapshots: found.snapshots,
                limit: found.limit,
            };
            let folders = self.snapshottable_folders(&caller).into_iter().map(folder).collect();
            return Ok(ListSnapshotsReply { folders, snapshots: Vec::new() });
        }
        let (caller, _) = self.enter(Method::GetSnapshots, message.caller)?;
        let snapshot = |found: SnapshotStatus| Snapshot {
            name: found.status.name,
            id: found.id,
            created_ns: found.status.modified_ns,
        };
        let found = self.snapshots(&caller, &path(&message.path)?)?;
        Ok(ListSnapshotsReply {
            folders: Vec::new(),
            snapshots: found.into_iter().map(snapshot).collect(),
        })
    }

    pub(super) fn diff_snapshots(
        &self,
        message: DiffSnapshotsRequest,
    ) -> Result<DiffSnapshotsReply> {
        let (caller, _) = self.enter(Method::GetSnapshotDiff, message.caller)?;
        let names = (message.from.as_str(), message.to.as_str());
        let difference = |found: DiffEntry| SnapshotDifference {
            kind: found.kind.label().to_owned(),
            path: found.path,
            target: found.target.unwrap_or_default(),
        };
        let found = self.snapshot_diff(&caller, &path(&message.path)?, names)?;
        Ok(DiffSnapshotsReply { differences: found.into_iter().map(difference).collect() })
    }
}
