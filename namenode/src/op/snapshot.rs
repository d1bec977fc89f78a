//! Changes of snapshots: the operations and their bytes. See docs/formats/journal.md.
//!
//! A folder that was made snapshottable has snapshots: read-only images of its tree, seen under `.snapshot`. The name
//! of a snapshot that the caller leaves open comes from the request's own time, so that a repeated call asks the same.

use proto::FsPath;
use proto::limits::NAME_BYTES_MAX;

use super::Op;
use super::codec::{path, put_path};
use crate::coding::{Malformed, Reader, put_text, put_u8};

/// The tag of this family in the journal.
pub(crate) const TAG: u8 = 42;

/// A change of snapshots. Each names the snapshottable folder.
#[allow(missing_docs, reason = "the fields are the snapshottable folder and names of snapshots")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotOp {
    /// Snapshots may be made of a folder.
    Allow { path: FsPath },
    /// No more; the folder must have none.
    Disallow { path: FsPath },
    /// Makes a snapshot; an empty name stands for one made from the time.
    Create { path: FsPath, name: String },
    /// Removes a snapshot.
    Delete { path: FsPath, name: String },
    /// Gives a snapshot another name.
    Rename { path: FsPath, from: String, to: String },
}

impl SnapshotOp {
    /// The verb, for messages and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Allow { .. } => "allowSnapshot",
            Self::Disallow { .. } => "disallowSnapshot",
            Self::Create { .. } => "createSnapshot",
            Self::Delete { .. } => "deleteSnapshot",
            Self::Rename { .. } => "renameSnapshot",
        }
    }

    /// Whether a repeated call must get the first one's reply.
    pub(crate) fn answers_retries(&self) -> bool {
        !matches!(self, Self::Allow { .. } | Self::Disallow { .. })
    }

    /// Appends the journal's form, the family's tag first.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_u8(out, TAG);
        match self {
            Self::Allow { path } => {
                put_u8(out, 1);
                put_path(out, path);
            }
            Self::Disallow { path } => {
                put_u8(out, 2);
                put_path(out, path);
            }
            Self::Create { path, name } => {
                put_u8(out, 3);
                put_path(out, path);
                put_text(out, name);
            }
            Self::Delete { path, name } => {
                put_u8(out, 4);
                put_path(out, path);
                put_text(out, name);
            }
            Self::Rename { path, from, to } => {
                put_u8(out, 5);
                put_path(out, path);
                put_text(out, from);
                put_text(out, to);
            }
        }
    }

    /// Reads what follows the family's tag.
    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Op, Malformed> {
        let malformed = r.malformed("a known operation on snapshots");
        Ok(Op::Snapshot(match r.u8()? {
            1 => Self::Allow { path: path(r)? },
            2 => Self::Disallow { path: path(r)? },
            3 => Self::Create { path: path(r)?, name: name(r)? },
            4 => Self::Delete { path: path(r)?, name: name(r)? },
            5 => Self::Rename { path: path(r)?, from: name(r)?, to: name(r)? },
            _ => return Err(malformed),
        }))
    }
}

fn name(r: &mut Reader<'_>) -> Result<String, Malformed> {
    r.text(NAME_BYTES_MAX).map(str::to_owned)
}
