//! ClientNamenodeProtocol: snapshots.

use bytes::Bytes;
use proto::hadoop::hdfs::*;
use proto::{Code, Error};

use super::Asked;
use super::convert::file_status;
use super::errors::{Answered, Failure};
use crate::op::Reply;
use crate::op::snapshot::SnapshotOp;
use crate::state::{DiffEntry, DiffKind, SnapshotDiff, SnapshotStatus, SnapshottableStatus};

/// Bytes of paths, and of what is beside them, after which a part of a report ends.
const LISTING_BYTES: usize = 1 << 20;
/// Bytes of an entry beside its paths, about.
const LISTED_ENTRY_BYTES: usize = 32;

/// Enters the call and changes; an error is told in the words that HDFS has.
async fn change(asked: &Asked, root: &str, op: SnapshotOp) -> Answered<Reply> {
    let call = asked.enter()?;
    let allows = matches!(op, SnapshotOp::Allow { .. } | SnapshotOp::Disallow { .. });
    asked.node.change_snapshots(call, op).await.map_err(|error| match error.code {
        Code::NotFound if !allows => {
            let message = format!("Directory/File does not exist {root}");
            Failure::java(ipc::exceptions::FILE_NOT_FOUND, message)
        }
        _ => refusal(error, root),
    })
}

fn refusal(error: Error, root: &str) -> Failure {
    match error.code {
        Code::NotFound => {
            let message = format!("Directory does not exist: {root}");
            Failure::java(ipc::exceptions::FILE_NOT_FOUND, message)
        }
        Code::NotFolder => {
            let message = format!("`{root}': Is not a directory");
            Failure::java(ipc::exceptions::PATH_NOT_DIRECTORY, message)
        }
        _ => Failure::from(error),
    }
}

pub async fn allow_snapshot(
    asked: Asked,
    request: AllowSnapshotRequestProto,
) -> Answered<AllowSnapshotResponseProto> {
    let root = request.snapshot_root;
    let op = SnapshotOp::Allow { path: asked.path(&root)? };
    change(&asked, &root, op).await.map(|_| AllowSnapshotResponseProto {})
}

pub async fn disallow_snapshot(
    asked: Asked,
    request: DisallowSnapshotRequestProto,
) -> Answered<DisallowSnapshotResponseProto> {
    let root = request.snapshot_root;
    let op = SnapshotOp::Disallow { path: asked.path(&root)? };
    change(&asked, &root, op).await.map(|_| DisallowSnapshotResponseProto {})
}

pub async fn create_snapshot(
    asked: Asked,
    request: CreateSnapshotRequestProto,
) -> Answered<CreateSnapshotResponseProto> {
    let root = request.snapshot_root;
    let name = request.snapshot_name.unwrap_or_default();
    let op = SnapshotOp::Create { path: asked.path(&root)?, name };
    match change(&asked, &root, op).await? {
        Reply::Snapshot(path) => {
            Ok(CreateSnapshotResponseProto { snapshot_path: path.to_string() })
        }
        reply => Ok(crate::front::node::unexpected("createSnapshot", &reply)?),
    }
}

pub async fn delete_snapshot(
    asked: Asked,
    request: DeleteSnapshotRequestProto,
) -> Answered<DeleteSnapshotResponseProto> {
    let root = request.snapshot_root;
    let op = SnapshotOp::Delete { path: asked.path(&root)?, name: request.snapshot_name };
    change(&asked, &root, op).await.map(|_| DeleteSnapshotResponseProto {})
}

pub async fn rename_snapshot(
    asked: Asked,
    request: RenameSnapshotRequestProto,
) -> Answered<RenameSnapshotResponseProto> {
    let root = request.snapshot_root;
    let op = SnapshotOp::Rename {
        path: asked.path(&root)?,
        from: request.snapshot_old_name,
        to: request.snapshot_new_name,
    };
    change(&asked, &root, op).await.map(|_| RenameSnapshotResponseProto {})
}

pub fn get_snapshottable_dir_listing(
    asked: &Asked,
    _: GetSnapshottableDirListingRequestProto,
) -> Answered<GetSnapshottableDirListingResponseProto> {
    let (caller, _) = asked.enter()?;
    let found = asked.node.snapshottable_folders(&caller);
    let listing = SnapshottableDirectoryListingProto {
        snapshottable_dir_listing: found.iter().map(snapshottable).collect(),
    };
    // As HDFS has it, nothing is told rather than an empty list.
    let snapshottable_dir_list = (!found.is_empty()).then_some(listing);
    Ok(GetSnapshottableDirListingResponseProto { snapshottable_dir_list })
}

fn snapshottable(folder: &SnapshottableStatus) -> SnapshottableDirectoryStatusProto {
    let parent = folder.path.parent().map_or(Bytes::new(), |path| path.to_string().into());
    SnapshottableDirectoryStatusProto {
        dir_status: file_status(&folder.status, folder.path.name().unwrap_or("")),
        snapshot_quota: folder.limit,
        snapshot_number: folder.snapshots,
        parent_fullpath: parent,
    }
}

pub fn get_snapshot_listing(
    asked: &Asked,
    request: GetSnapshotListingRequestProto,
) -> Answered<GetSnapshotListingResponseProto> {
    let (caller, _) = asked.enter()?;
    let root = request.snapshot_root;
    let found = asked.node.snapshots(&caller, &asked.path(&root)?);
    let found = found.map_err(|error| refusal(error, &root))?;
    let listing = SnapshotListingProto { snapshot_listing: found.iter().map(snapshot).collect() };
    Ok(GetSnapshotListingResponseProto { snapshot_list: Some(listing) })
}

fn snapshot(snapshot: &SnapshotStatus) -> SnapshotStatusProto {
    SnapshotStatusProto {
        dir_status: file_status(&snapshot.status, &snapshot.status.name),
        snapshot_id: snapshot.id,
        parent_fullpath: snapshot.folder.to_string().into(),
        is_deleted: false,
    }
}

pub fn get_snapshot_diff_report(
    asked: &Asked,
    request: GetSnapshotDiffReportRequestProto,
) -> Answered<GetSnapshotDiffReportResponseProto> {
    let (caller, _) = asked.enter()?;
    let (root, from, to) = (request.snapshot_root, request.from_snapshot, request.to_snapshot);
    let found = asked.node.snapshot_diff(&caller, &asked.path(&root)?, (&from, &to));
    let found = found.map_err(|error| refusal(error, &root))?;
    let report = SnapshotDiffReportProto {
        snapshot_root: root,
        from_snapshot: from,
        to_snapshot: to,
        diff_report_entries: found.into_iter().map(difference).collect(),
    };
    Ok(GetSnapshotDiffReportResponseProto { diff_report: report })
}

/// The same in parts: a part goes on behind the entry that the cursor names, by number and path. Between two snapshots
/// nothing moves; the folder as it is may, and then the cursor names another entry, which is an error.
pub fn get_snapshot_diff_report_listing(
    asked: &Asked,
    request: GetSnapshotDiffReportListingRequestProto,
) -> Answered<GetSnapshotDiffReportListingResponseProto> {
    let (caller, _) = asked.enter()?;
    let (root, from, to) = (request.snapshot_root, request.from_snapshot, request.to_snapshot);
    let found = asked.node.snapshot_changes(&caller, &asked.path(&root)?, (&from, &to));
    let SnapshotDiff { from_earlier, entries } = found.map_err(|error| refusal(error, &root))?;
    let told = told_before(&entries, request.cursor)?;
    let mut part = SnapshotDiffReportListingProto {
        is_from_earlier: from_earlier,
        cursor: Some(SnapshotDiffReportCursorProto { start_path: Bytes::new(), index: -1 }),
        ..Default::default()
    };
    let mut bytes = 0;
    for (at, entry) in entries.into_iter().enumerate().skip(told) {
        bytes +=
            LISTED_ENTRY_BYTES + entry.path.len() + entry.target.as_ref().map_or(0, String::len);
        let full = bytes >= LISTING_BYTES;
        let index = i32::try_from(at + 1).expect("a report has fewer entries");
        let cursor = SnapshotDiffReportCursorProto { start_path: entry.path.clone().into(), index };
        list(&mut part, entry);
        if full {
            part.cursor = Some(cursor);
            break;
        }
    }
    Ok(GetSnapshotDiffReportListingResponseProto { diff_report: part })
}

/// How many entries the client has; the rules of cursors are the server's own.
fn told_before(
    entries: &[DiffEntry],
    cursor: Option<SnapshotDiffReportCursorProto>,
) -> Answered<usize> {
    let Some(cursor) = cursor.filter(|cursor| cursor.index >= 0) else { return Ok(0) };
    let told = usize::try_from(cursor.index).unwrap_or(0);
    let last = told.checked_sub(1).and_then(|last| entries.get(last));
    match last {
        Some(last) if cursor.start_path == last.path.as_bytes() => Ok(told),
        _ => {
            let path = String::from_utf8_lossy(&cursor.start_path);
            let message = format!(
                "the differences changed since a part of them was told: number {told} is not {path}"
            );
            Err(Failure::java(ipc::exceptions::SNAPSHOT, message))
        }
    }
}

/// An entry where clients look for it: what is told among a folder's changes has that folder's id.
fn list(part: &mut SnapshotDiffReportListingProto, entry: DiffEntry) {
    let is_folder = entry.inode == entry.folder;
    let listed = SnapshotDiffReportListingEntryProto {
        fullpath: entry.path.into(),
        dir_id: entry.folder.0,
        is_reference: match entry.kind {
            DiffKind::Modified => is_folder,
            kind => kind == DiffKind::Renamed,
        },
        target_path: entry.target.map(Bytes::from),
        file_id: Some(entry.inode.0),
    };
    match entry.kind {
        DiffKind::Modified => part.modified_entries.push(listed),
        DiffKind::Created => part.created_entries.push(listed),
        DiffKind::Deleted | DiffKind::Renamed => part.deleted_entries.push(listed),
    }
}

fn difference(entry: DiffEntry) -> SnapshotDiffReportEntryProto {
    SnapshotDiffReportEntryProto {
        fullpath: entry.path.into(),
        modification_label: entry.kind.label().to_owned(),
        target_path: entry.target.map(Bytes::from),
    }
}
