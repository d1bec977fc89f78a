//! Truncate, and the recovery of what a lost writer left: recoverLease, block recovery, commitBlockSynchronization.
//!
//! A recovery mints a stamp; only its outcome under that stamp commits. Meanwhile the file is open, held by
//! [`RECOVERY_HOLDER`]: nobody writes it. Beginning again mints a newer stamp and fences the earlier attempt off.
//! A truncate inside a block is a recovery with a length to cut to; readers see the new length at once.
//!
//! Does not choose the DataNode that recovers, nor when a lease has expired: those are volatile.

use proto::{Code, Error, FsPath, GenerationStamp, InodeId, Result};

use super::files::{COMPLETE, UNDER_RECOVERY};
use super::leases::{Lease, PendingRecovery};
use super::permissions::WRITE;
use super::quotas::signed;
use super::{RECOVERY_HOLDER, State};
use crate::op::{BlockRecovery, BlockState, Caller, Effect, Op, Reply};

/// What is to be recovered.
enum Begin {
    /// A live file.
    File(u32),
    /// A block of one that is gone, for snapshots.
    Kept(u32),
}

/// What the outcome of a recovery asks for.
enum Outcome {
    /// It was committed before.
    Done,
    /// The block in this slot gets its final stamp and length, or goes.
    Commit(u32),
}

fn error<T>(code: Code, message: String) -> Result<T> {
    Err(Error::new(code, message))
}

const CLOSED: Reply = Reply::Recovering { closed: true, recovery: None };

impl State {
    pub(super) fn plan_recovery(&self, caller: &Caller, op: &Op) -> Result<Option<Reply>> {
        match op {
            Op::Truncate { path, length, .. } => {
                let slot = self.plan_truncate(caller, path, *length)?;
                Ok((self.inodes.get(slot).length == *length).then_some(CLOSED))
            }
            Op::RecoverLease { path, .. } => {
                let slot = self.plan_recover_lease(caller, path)?;
                Ok(self.recovery_under_way(slot))
            }
            Op::BeginBlockRecovery { inode } => {
                Ok(match self.plan_begin_recovery(caller, *inode)? {
                    Begin::File(slot) if !self.inodes.get(slot).is_open() => Some(CLOSED),
                    Begin::File(_) | Begin::Kept(_) => None,
                })
            }
            Op::CommitBlockSynchronization { .. } => match self.plan_outcome(caller, op)? {
                Outcome::Done => Ok(Some(Reply::Done)),
                Outcome::Commit(_) => Ok(None),
            },
            _ => unreachable!("State::plan sends only these here"),
        }
    }

    pub(super) fn perform_recovery(
        &mut self,
        caller: &Caller,
        now: i64,
        op: &Op,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply> {
        match op {
            Op::Truncate { path, length, .. } => {
                let slot = self.plan_truncate(caller, path, *length)?;
                Ok(self.truncate(slot, *length, now, effects))
            }
            Op::RecoverLease { path, .. } => {
                let slot = self.plan_recover_lease(caller, path)?;
                match self.recovery_under_way(slot) {
                    Some(reply) => Ok(reply),
                    None => Ok(self.begin_recovery(slot, now, effects)),
                }
            }
            Op::BeginBlockRecovery { inode } => {
                Ok(match self.plan_begin_recovery(caller, *inode)? {
                    Begin::Kept(block) => self.recover_kept(*inode, block, effects),
                    Begin::File(slot) if self.inodes.get(slot).is_open() => {
                        self.begin_recovery(slot, now, effects)
                    }
                    Begin::File(_) => CLOSED,
                })
            }
            Op::CommitBlockSynchronization { .. } => {
                if let Outcome::Commit(slot) = self.plan_outcome(caller, op)? {
                    self.commit_outcome(slot, op, now, effects);
                }
                Ok(Reply::Done)
            }
            _ => unreachable!("State::perform sends only these here"),
        }
    }

    fn plan_truncate(&self, caller: &Caller, path: &FsPath, length: u64) -> Result<u32> {
        let (slot, _) = self.existing(caller, path)?;
        self.demand(caller, slot, WRITE, path)?;
        self.demand_file(slot, path)?;
        self.demand_unsealed(slot, path)?;
        if self.layout(slot).policy != 0 {
            return error(
                Code::Unsupported,
                format!("Cannot truncate file with striped block {path}"),
            );
        }
        self.demand_closed(slot, path)?;
        let have = self.inodes.get(slot).length;
        if length > have {
            let message = format!("{path} has {have} bytes: it can't be truncated to {length}");
            return error(Code::InvalidArgument, message);
        }
        self.demand_room(&self.file_charges(slot, self.space_to_truncate(slot, length)))?;
        Ok(slot)
    }

    /// How much more, or less, space a file takes when it is cut: a block that is cut inside counts as a whole one
    /// while it is.
    fn space_to_truncate(&self, file: u32, length: u64) -> i64 {
        let layout = self.charged_layout(file);
        let whole = layout.space_max();
        let (mut start, mut before, mut after) = (0u64, 0u64, 0u64);
        for &block in self.blocks_of(file) {
            let end = start + self.blocks.get(block).length();
            let charged = self.charged(block, &layout);
            before = before.saturating_add(charged);
            if start < length {
                after = after.saturating_add(if end > length { whole } else { charged });
            }
            start = end;
        }
        signed(after) - signed(before)
    }

    fn truncate(&mut self, file: u32, length: u64, now: i64, effects: &mut Vec<Effect>) -> Reply {
        if self.inodes.get(file).length == length {
            return CLOSED;
        }
        self.preserve(file);
        while let Some(&last) = self.blocks_of(file).last() {
            let start = self.inodes.get(file).length - self.shown_of(file, last);
            if start < length {
                break;
            }
            self.drop_last_block(file, last, effects);
        }
        let inode = self.inodes.get_mut(file);
        inode.modified_ns = now;
        inode.changed_ns = now;
        if inode.length == length {
            return CLOSED;
        }
        let (id, excess) = (InodeId(inode.id), inode.length - length);
        let last = *self.blocks_of(file).last().expect("a file with bytes has a block");
        let cut = self.shown_of(file, last) - excess;
        if self.must_keep_whole(file, last, cut) {
            self.bind_block(file, last, cut);
            self.inodes.get_mut(file).length = length;
            return CLOSED;
        }
        self.inodes.get_mut(file).set_open(true);
        self.take_lease(id, RECOVERY_HOLDER, effects);
        self.start_recovery(file, last, Some(cut), effects)
    }

    fn plan_recover_lease(&self, caller: &Caller, path: &FsPath) -> Result<u32> {
        let slot = self.existing_file(caller, path)?;
        self.demand(caller, slot, WRITE, path)?;
        Ok(slot)
    }

    /// The answer to a client if the file is closed, or its recovery has begun.
    fn recovery_under_way(&self, slot: u32) -> Option<Reply> {
        let inode = self.inodes.get(slot);
        match self.leases.get(InodeId(inode.id)) {
            None => Some(CLOSED),
            Some(lease) if lease.recovery.is_some() => {
                Some(Reply::Recovering { closed: false, recovery: None })
            }
            Some(_) => None,
        }
    }

    fn plan_begin_recovery(&self, caller: &Caller, inode: InodeId) -> Result<Begin> {
        if !caller.superuser {
            let message = format!("user {} may not begin the recovery of {inode}", caller.user);
            return error(Code::PermissionDenied, message);
        }
        if let Some(block) = self.unfinished_of(inode) {
            return Ok(Begin::Kept(block));
        }
        match self.slot_of_inode(inode).filter(|&slot| !self.inodes.get(slot).is_folder()) {
            Some(slot) => Ok(Begin::File(slot)),
            None => error(Code::NotFound, format!("no file is {inode}")),
        }
    }

    /// Ends the hold of whoever writes the file: closes it, or begins the recovery of its last block.
    fn begin_recovery(&mut self, file: u32, now: i64, effects: &mut Vec<Effect>) -> Reply {
        let last = self.blocks_of(file).last().copied();
        let unfinished = last.filter(|&slot| self.blocks.get(slot).state() != COMPLETE);
        let Some(last) = unfinished else {
            self.close_file(file, now, effects);
            return CLOSED;
        };
        let id = InodeId(self.inodes.get(file).id);
        let lease = self.leases.get(id).expect("an open file has a lease");
        let new_length = lease.recovery.and_then(|recovery| recovery.new_length);
        if lease.holder != RECOVERY_HOLDER {
            effects.push(Effect::LeaseGone { inode: id, holder: lease.holder.clone() });
            self.take_lease(id, RECOVERY_HOLDER, effects);
        }
        self.start_recovery(file, last, new_length, effects)
    }

    fn start_recovery(
        &mut self,
        file: u32,
        last: u32,
        new_length: Option<u64>,
        effects: &mut Vec<Effect>,
    ) -> Reply {
        let stamp = self.mint_stamp();
        let length = new_length.unwrap_or(self.blocks.get(last).length());
        self.set_block(last, length, UNDER_RECOVERY, effects);
        let inode = InodeId(self.inodes.get(file).id);
        let recovery = Some(PendingRecovery { stamp: stamp.0, new_length });
        self.leases.set(inode, Lease { holder: RECOVERY_HOLDER.to_owned(), recovery });
        let info = self.block_info(last);
        let (block, policy) = (info.block(), info.policy);
        let recovery = BlockRecovery { block, new_stamp: stamp, new_length, inode, policy };
        effects.push(Effect::RecoveryStarted(recovery));
        Reply::Recovering { closed: false, recovery: Some(recovery) }
    }

    fn plan_outcome(&self, caller: &Caller, op: &Op) -> Result<Outcome> {
        let Op::CommitBlockSynchronization { block, new_stamp, new_length, delete_block, .. } = op
        else {
            unreachable!("called for commitBlockSynchronization alone");
        };
        if !caller.superuser {
            return error(Code::PermissionDenied, format!("user {} is no DataNode", caller.user));
        }
        let Some(slot) = self.slot_of_block(block.id) else {
            if *delete_block {
                return Ok(Outcome::Done);
            }
            return error(Code::NotFound, format!("{} is gone", block.id));
        };
        let info = self.block_info(slot);
        if info.state == BlockState::Complete
            && (info.stamp, info.length) == (*new_stamp, *new_length)
        {
            return Ok(Outcome::Done);
        }
        let pending = self.leases.get(info.inode).and_then(|lease| lease.recovery);
        let expected = pending.map(|recovery| GenerationStamp(recovery.stamp));
        if info.state != BlockState::UnderRecovery || expected != Some(*new_stamp) {
            let message =
                format!("{} is not being recovered under {new_stamp} (but {expected:?})", info.id);
            return error(Code::Stale, message);
        }
        let cut = pending.and_then(|recovery| recovery.new_length);
        let file = self.blocks.get(slot).inode;
        if *new_length > self.block_data_max(file) || cut.is_some_and(|cut| cut != *new_length) {
            let message = format!("{}: {new_length} bytes, must be {cut:?}", info.id);
            return error(Code::InvalidArgument, message);
        }
        Ok(Outcome::Commit(slot))
    }

    fn commit_outcome(&mut self, slot: u32, op: &Op, now: i64, effects: &mut Vec<Effect>) {
        let Op::CommitBlockSynchronization {
            new_stamp, new_length, close_file, delete_block, ..
        } = op
        else {
            unreachable!("called for commitBlockSynchronization alone");
        };
        let file = self.blocks.get(slot).inode;
        if self.inodes.get(file).is_frozen() {
            let length = if *delete_block { 0 } else { *new_length };
            self.commit_kept(slot, *new_stamp, length, effects);
            return;
        }
        if *delete_block {
            self.drop_last_block(file, slot, effects);
        } else {
            self.blocks.get_mut(slot).set_stamp(new_stamp.0);
            self.set_block(slot, *new_length, COMPLETE, effects);
        }
        if *close_file {
            self.close_file(file, now, effects);
        } else {
            let inode = InodeId(self.inodes.get(file).id);
            let holder = RECOVERY_HOLDER.to_owned();
            self.leases.set(inode, Lease { holder, recovery: None });
        }
    }
}
