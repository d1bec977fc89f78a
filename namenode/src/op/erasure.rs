//! Erasure coding: the operations and their bytes. See docs/formats/journal.md.
//!
//! A folder's policy holds for files that are made below it from then on; a file's own never changes, but by the
//! exchange of its content with that of another file, which was written by the other policy before.
//!
//! Making a file with a policy that the caller names is [`Op::Create`]; only its bytes are here.

use proto::{FsPath, InodeId};

use super::Op;
use super::codec::{path, principal, put_path};
use crate::coding::{Malformed, Reader, put_bool, put_i64, put_text, put_u8, put_u32, put_u64};

/// The tag of this family in the journal.
pub(crate) const TAG: u8 = 46;

/// A change of how files are coded. Policies are named by their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErasureOp {
    /// Gives a folder a policy; 0: files below it are replicated, whatever is set above it.
    SetPolicy {
        /// The folder.
        path: FsPath,
        /// The policy.
        policy: u8,
    },
    /// Takes a folder's own policy away.
    UnsetPolicy {
        /// The folder.
        path: FsPath,
    },
    /// Says whether a policy may be given to folders and new files.
    Enable {
        /// The policy.
        policy: u8,
        /// Whether it may.
        enabled: bool,
    },
    /// Two closed files of one length exchange their blocks and layouts; the target keeps its times but for that of
    /// the change. Nothing happens if the target is not what it was.
    Exchange {
        /// The file whose content is coded anew.
        target: FsPath,
        /// The file that holds the same bytes, coded as wished.
        source: FsPath,
        /// The inode that the target had when it was read.
        inode: InodeId,
        /// The time of its last change of content then, in nanoseconds.
        modified_ns: i64,
    },
}

impl ErasureOp {
    /// The verb, for messages and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SetPolicy { .. } => "setErasureCodingPolicy",
            Self::UnsetPolicy { .. } => "unsetErasureCodingPolicy",
            Self::Enable { enabled: true, .. } => "enableErasureCodingPolicy",
            Self::Enable { enabled: false, .. } => "disableErasureCodingPolicy",
            Self::Exchange { .. } => "exchangeContent",
        }
    }

    /// Appends the journal's form, the family's tag first.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_u8(out, TAG);
        match self {
            Self::SetPolicy { path, policy } => {
                put_u8(out, 2);
                put_path(out, path);
                put_u8(out, *policy);
            }
            Self::UnsetPolicy { path } => {
                put_u8(out, 3);
                put_path(out, path);
            }
            Self::Enable { policy, enabled } => {
                put_u8(out, 4);
                put_u8(out, *policy);
                put_bool(out, *enabled);
            }
            Self::Exchange { target, source, inode, modified_ns } => {
                put_u8(out, 5);
                put_path(out, target);
                put_path(out, source);
                put_u64(out, inode.0);
                put_i64(out, *modified_ns);
            }
        }
    }

    /// Reads what follows the family's tag.
    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Op, Malformed> {
        let malformed = r.malformed("a known operation on erasure coding");
        Ok(Op::Erasure(match r.u8()? {
            1 => return decode_create(r),
            2 => Self::SetPolicy { path: path(r)?, policy: r.u8()? },
            3 => Self::UnsetPolicy { path: path(r)? },
            4 => Self::Enable { policy: r.u8()?, enabled: r.bool()? },
            5 => Self::Exchange {
                target: path(r)?,
                source: path(r)?,
                inode: InodeId(r.u64()?),
                modified_ns: r.i64()?,
            },
            _ => return Err(malformed),
        }))
    }
}

/// Appends a create that names a policy, the family's tag first.
pub(super) fn encode_create(op: &Op, erasure: u8, out: &mut Vec<u8>) {
    let Op::Create {
        path,
        holder,
        mode,
        unmasked,
        overwrite,
        create_parents,
        replication,
        block_bytes,
        erasure: _,
    } = op
    else {
        unreachable!("called for create alone");
    };
    put_u8(out, TAG);
    put_u8(out, 1);
    put_path(out, path);
    put_text(out, holder);
    put_u32(out, *mode);
    put_bool(out, unmasked.is_some());
    if let Some(mode) = unmasked {
        put_u32(out, *mode);
    }
    put_bool(out, *overwrite);
    put_bool(out, *create_parents);
    put_u32(out, *replication);
    put_u64(out, *block_bytes);
    put_u8(out, erasure);
}

fn decode_create(r: &mut Reader<'_>) -> Result<Op, Malformed> {
    Ok(Op::Create {
        path: path(r)?,
        holder: principal(r)?,
        mode: r.u32()?,
        unmasked: if r.bool()? { Some(r.u32()?) } else { None },
        overwrite: r.bool()?,
        create_parents: r.bool()?,
        replication: r.u32()?,
        block_bytes: r.u64()?,
        erasure: Some(r.u8()?),
    })
}
