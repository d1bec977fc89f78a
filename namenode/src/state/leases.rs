//! Which files are open, and who writes them.
//!
//! When a lease was last renewed is volatile and not known here: after a restart every lease counts as fresh.
//! Always holds: a file has a lease exactly while its inode says that it is open; one that is gone, as long as a block
//! that snapshots hold is to be recovered.

use std::collections::{BTreeMap, BTreeSet};

use proto::InodeId;
use proto::limits::PRINCIPAL_BYTES_MAX;

use crate::coding::{Malformed, Reader, put_bool, put_text, put_u32, put_u64};

/// The holder of files whose last block is being recovered: nobody writes them.
pub const RECOVERY_HOLDER: &str = "granary-namenode";

/// Who writes a file, and the recovery of its last block if one is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The client process, or [`RECOVERY_HOLDER`].
    pub holder: String,
    /// The recovery that may commit.
    pub recovery: Option<PendingRecovery>,
}

/// A recovery of a file's last block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingRecovery {
    /// The stamp it was begun under: only this one may commit.
    pub stamp: u64,
    /// Set for a truncate: the length to cut to, in bytes.
    pub new_length: Option<u64>,
}

/// All leases.
#[derive(Default)]
pub(crate) struct Leases {
    by_inode: BTreeMap<InodeId, Lease>,
    by_holder: BTreeMap<String, BTreeSet<InodeId>>,
}

impl Leases {
    pub(crate) fn get(&self, inode: InodeId) -> Option<&Lease> {
        self.by_inode.get(&inode)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_inode.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (InodeId, &Lease)> {
        self.by_inode.iter().map(|(&inode, lease)| (inode, lease))
    }

    pub(crate) fn files_of(&self, holder: &str) -> impl Iterator<Item = InodeId> {
        self.by_holder.get(holder).into_iter().flatten().copied()
    }

    /// Gives the file to a holder, whoever had it.
    pub(crate) fn set(&mut self, inode: InodeId, lease: Lease) {
        self.remove(inode);
        self.by_holder.entry(lease.holder.clone()).or_default().insert(inode);
        self.by_inode.insert(inode, lease);
    }

    pub(crate) fn remove(&mut self, inode: InodeId) -> Option<Lease> {
        let lease = self.by_inode.remove(&inode)?;
        if let Some(files) = self.by_holder.get_mut(&lease.holder) {
            files.remove(&inode);
            if files.is_empty() {
                self.by_holder.remove(&lease.holder);
            }
        }
        Some(lease)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.by_inode.len() as u32);
        for (inode, lease) in &self.by_inode {
            put_u64(out, inode.0);
            put_text(out, &lease.holder);
            put_bool(out, lease.recovery.is_some());
            if let Some(recovery) = &lease.recovery {
                put_u64(out, recovery.stamp);
                put_bool(out, recovery.new_length.is_some());
                put_u64(out, recovery.new_length.unwrap_or(0));
            }
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut all = Self::default();
        for _ in 0..r.count(13)? {
            let inode = InodeId(r.u64()?);
            let holder = r.text(PRINCIPAL_BYTES_MAX)?.to_owned();
            let recovery = if r.bool()? {
                let stamp = r.u64()?;
                let new_length = if r.bool()? { Some(r.u64()?) } else { r.u64().map(|_| None)? };
                Some(PendingRecovery { stamp, new_length })
            } else {
                None
            };
            all.set(inode, Lease { holder, recovery });
        }
        Ok(all)
    }
}
