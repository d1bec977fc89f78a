//! A block that only snapshots hold, and that its writer did not finish.
//!
//! When an open file goes and a snapshot shows a part of its last block, replicas are at any length, and perhaps at a
//! stamp that a recovery just gave them: none of them is what the namespace knows, and all would count as damaged. So
//! the block is recovered as that of a lost writer. The inode's lease says so until the outcome is here, though no
//! live file has that inode: it is held by [`RECOVERY_HOLDER`].
//!
//! Always holds: such a lease is there exactly as long as a frozen file's last block is not complete.

use proto::{GenerationStamp, InodeId};

use super::super::files::{COMPLETE, UNDER_RECOVERY};
use super::super::leases::{Lease, PendingRecovery};
use super::super::{RECOVERY_HOLDER, State};
use crate::op::{BlockRecovery, Effect, Reply};

impl State {
    /// The block of a file that is gone which is still to be recovered.
    pub(in super::super) fn unfinished_of(&self, inode: InodeId) -> Option<u32> {
        if self.slot_of_inode(inode).is_some() {
            return None;
        }
        let lasts = self.snapshots.copies_of(inode.0).filter_map(|copy| {
            if self.inodes.get(copy).is_folder() { None } else { self.blocks_of(copy).last() }
        });
        lasts.copied().find(|&block| self.blocks.get(block).state() != COMPLETE)
    }

    /// A live file went, and its lease; frozen ones keep this block of it.
    pub(super) fn finish_kept(&mut self, inode: u64, block: u32, effects: &mut Vec<Effect>) {
        if self.blocks.get(block).state() != COMPLETE {
            self.take_lease(InodeId(inode), RECOVERY_HOLDER, effects);
            self.recover_kept(InodeId(inode), block, effects);
        }
    }

    /// Begins the recovery of such a block, or begins it again.
    pub(in super::super) fn recover_kept(
        &mut self,
        inode: InodeId,
        block: u32,
        effects: &mut Vec<Effect>,
    ) -> Reply {
        let stamp = self.mint_stamp();
        self.blocks.get_mut(block).set_state(UNDER_RECOVERY);
        self.tell_block(block, effects);
        let recovery = Some(PendingRecovery { stamp: stamp.0, new_length: None });
        self.leases.set(inode, Lease { holder: RECOVERY_HOLDER.to_owned(), recovery });
        let info = self.block_info(block);
        let (block, policy) = (info.block(), info.policy);
        let recovery = BlockRecovery { block, new_stamp: stamp, new_length: None, inode, policy };
        effects.push(Effect::RecoveryStarted(recovery));
        Reply::Recovering { closed: false, recovery: Some(recovery) }
    }

    /// The outcome: what was found of the block. What is lost, frozen files can't show any more.
    pub(in super::super) fn commit_kept(
        &mut self,
        block: u32,
        stamp: GenerationStamp,
        length: u64,
        effects: &mut Vec<Effect>,
    ) {
        let id = self.inodes.get(self.blocks.get(block).inode).id;
        let before = self.kept_of(id);
        let copies: Vec<u32> = self.snapshots.copies_of(id).collect();
        self.shorten(&copies, block, length);
        match copies.into_iter().find(|&copy| self.blocks_of(copy).contains(&block)) {
            None => self.forget_block(block, effects),
            Some(holder) => {
                let record = self.blocks.get_mut(block);
                record.inode = holder;
                record.set_stamp(stamp.0);
                record.set_length(length);
                record.set_state(COMPLETE);
                self.tell_block(block, effects);
            }
        }
        self.settle_kept(id, &before);
        self.end_kept_recovery(InodeId(id), effects);
    }

    /// Drops the lease of a file that is gone, if nothing of it is to be recovered any more.
    pub(super) fn end_kept_recovery(&mut self, inode: InodeId, effects: &mut Vec<Effect>) {
        if self.leases.get(inode).is_none()
            || self.slot_of_inode(inode).is_some()
            || self.unfinished_of(inode).is_some()
        {
            return;
        }
        let lease = self.leases.remove(inode).expect("looked up above");
        effects.push(Effect::LeaseGone { inode, holder: lease.holder });
    }

    /// The blocks of a frozen file of an inode that is gone, as long as the last is to be recovered.
    pub(in super::super) fn blocks_to_recover(&self, inode: InodeId) -> &[u32] {
        let Some(block) = self.unfinished_of(inode) else { return &[] };
        let holder = self
            .snapshots
            .copies_of(inode.0)
            .find(|&copy| self.blocks_of(copy).last() == Some(&block));
        holder.map_or(&[], |holder| self.blocks_of(holder))
    }
}
