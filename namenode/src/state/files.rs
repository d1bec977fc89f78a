//! The life of a file that is written: create, append, addBlock, complete; what happens to its last block meanwhile is
//! planned in `last_block`.
//!
//! A file has one writer, who holds its lease; everything here but create and append demands it. A new last block
//! commits the one before: its stamp and length are final then. The length of an open file is what committed blocks
//! have and what fsync told of the last one.
//!
//! Always holds: only the last block of a file can be other than complete, and only while the file is open.
//!
//! Does not know replicas: whether enough of them are there is asked before an operation is proposed.

use proto::limits::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, PRINCIPAL_BYTES_MAX, REPLICATION_MAX};
use proto::{BlockId, Code, Error, FsPath, InodeId, Result};

use super::inodes::{BlockList, BlockRecord, Body, Inode};
use super::interned::Layout;
use super::leases::Lease;
use super::permissions::{WRITE, denied};
use super::quotas::{Charge, signed};
use super::tree::Walk;
use super::verbs::NewMode;
use super::{BlockInfo, RECOVERY_HOLDER, State};
use crate::op::{Block, BlockState, Caller, Effect, FileRef, Op, Reply};

pub(super) const BEING_WRITTEN: u8 = 0;
pub(super) const COMPLETE: u8 = 1;
pub(super) const UNDER_RECOVERY: u8 = 2;

/// What addBlock will do.
enum NextBlock {
    /// The last block again: the call is a repetition.
    Again(BlockInfo),
    /// A new one, after the last block (if it is being written) is committed with this length.
    New { file: u32, commit: Option<(u32, u64)> },
}

/// What complete will do.
enum Closing {
    /// It is closed already, with the same last block.
    Closed(InodeId),
    /// Commit the last block with this length, then close.
    Close { file: u32, commit: Option<(u32, u64)> },
}

fn error<T>(code: Code, message: String) -> Result<T> {
    Err(Error::new(code, message))
}

fn check_holder(holder: &str) -> Result<()> {
    if holder.is_empty() || holder.len() > PRINCIPAL_BYTES_MAX || holder == RECOVERY_HOLDER {
        let message = format!("lease holder {holder:?}: must be 1 to {PRINCIPAL_BYTES_MAX} bytes");
        return error(Code::InvalidArgument, message);
    }
    Ok(())
}

impl State {
    pub(super) fn plan_on_file(&self, caller: &Caller, op: &Op) -> Result<Option<Reply>> {
        match op {
            Op::Create { .. } => self.plan_create(caller, op).map(|_| None),
            Op::Append { .. } => self.plan_append(caller, op).map(|_| None),
            Op::AddBlock { file, holder, previous } => {
                match self.plan_add_block(caller, file, holder, previous.as_ref())? {
                    NextBlock::Again(info) => Ok(Some(self.allocated(&info))),
                    NextBlock::New { .. } => Ok(None),
                }
            }
            Op::AbandonBlock { file, holder, block } => {
                let found = self.plan_abandon(caller, file, holder, block)?;
                Ok(found.is_none().then_some(Reply::Done))
            }
            Op::UpdateBlockForPipeline { block, holder } => {
                self.plan_new_stamp(block, holder).map(|_| None)
            }
            Op::UpdatePipeline { holder, old_block, new_block } => {
                let found = self.plan_update_pipeline(holder, old_block, new_block)?;
                Ok(found.is_none().then_some(Reply::Done))
            }
            Op::Fsync { file, holder, last_block_length } => {
                let found = self.plan_fsync(caller, file, holder, *last_block_length)?;
                Ok(found.is_none().then_some(Reply::Done))
            }
            Op::Complete { file, holder, last } => {
                match self.plan_complete(caller, file, holder, last.as_ref())? {
                    Closing::Closed(inode) => Ok(Some(Reply::Completed { inode })),
                    Closing::Close { .. } => Ok(None),
                }
            }
            _ => unreachable!("State::plan sends only these here"),
        }
    }

    pub(super) fn perform_on_file(
        &mut self,
        caller: &Caller,
        now: i64,
        op: &Op,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply> {
        match op {
            Op::Create { .. } => self.create(caller, now, op, effects),
            Op::Append { path, holder, .. } => {
                let (slot, reopened) = self.plan_append(caller, op)?;
                Ok(self.append(slot, reopened, path, holder, effects))
            }
            Op::AddBlock { file, holder, previous } => {
                match self.plan_add_block(caller, file, holder, previous.as_ref())? {
                    NextBlock::Again(info) => Ok(self.allocated(&info)),
                    NextBlock::New { file, commit } => {
                        Ok(self.add_block(file, commit, now, effects))
                    }
                }
            }
            Op::AbandonBlock { file, holder, block } => {
                if let Some((file, slot)) = self.plan_abandon(caller, file, holder, block)? {
                    self.drop_last_block(file, slot, effects);
                }
                Ok(Reply::Done)
            }
            Op::UpdateBlockForPipeline { block, holder } => {
                let info = self.plan_new_stamp(block, holder)?;
                let stamp = self.mint_stamp();
                Ok(Reply::Stamped(Block { stamp, ..info.block() }))
            }
            Op::UpdatePipeline { holder, old_block, new_block } => {
                if let Some(slot) = self.plan_update_pipeline(holder, old_block, new_block)? {
                    self.blocks.get_mut(slot).set_stamp(new_block.stamp.0);
                    self.set_block(slot, new_block.length, BEING_WRITTEN, effects);
                }
                Ok(Reply::Done)
            }
            Op::Fsync { file, holder, last_block_length } => {
                if let Some(slot) = self.plan_fsync(caller, file, holder, *last_block_length)? {
                    self.set_block(slot, *last_block_length, BEING_WRITTEN, effects);
                    let file = self.blocks.get(slot).inode;
                    self.inodes.get_mut(file).modified_ns = now;
                }
                Ok(Reply::Done)
            }
            Op::Complete { file, holder, last } => {
                match self.plan_complete(caller, file, holder, last.as_ref())? {
                    Closing::Closed(inode) => Ok(Reply::Completed { inode }),
                    Closing::Close { file, commit } => {
                        self.commit_block(commit, effects);
                        Ok(Reply::Completed { inode: self.close_file(file, now, effects) })
                    }
                }
            }
            _ => unreachable!("State::perform sends only these here"),
        }
    }

    fn plan_create(&self, caller: &Caller, op: &Op) -> Result<Walk> {
        let Op::Create {
            path,
            holder,
            overwrite,
            create_parents,
            replication,
            block_bytes,
            erasure,
            ..
        } = op
        else {
            unreachable!("called for create alone");
        };
        check_holder(holder)?;
        if !(1..=REPLICATION_MAX).contains(replication) {
            let message = format!("replication {replication}: must be 1 to {REPLICATION_MAX}");
            return error(Code::InvalidArgument, message);
        }
        if !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(block_bytes) {
            let message = format!(
                "block size {block_bytes}: must be {BLOCK_BYTES_MIN} to {BLOCK_BYTES_MAX} bytes"
            );
            return error(Code::InvalidArgument, message);
        }
        let walk = self.walk(caller, path)?;
        self.plan_coding(walk.folder, *erasure, *block_bytes)?;
        let Some(slot) = walk.target else {
            self.plan_new_entry(caller, path, walk.folder, walk.missing, *create_parents)?;
            self.demand_names(walk.folder, walk.missing)?;
            return Ok(walk);
        };
        let inode = self.inodes.get(slot);
        if inode.is_folder() {
            return error(Code::AlreadyExists, format!("{path} exists and is a folder"));
        }
        if *overwrite {
            self.catalogue.demand_unguarded(path)?;
            self.demand(caller, slot, WRITE, path)?;
            self.demand(caller, walk.folder, WRITE, path)?;
            self.demand_room_to_keep(slot, walk.folder)?;
            return Ok(walk);
        }
        self.demand_closed(slot, path)?;
        error(Code::AlreadyExists, format!("{path} exists"))
    }

    /// Nobody may be writing the file.
    pub(super) fn demand_closed(&self, slot: u32, path: &FsPath) -> Result<()> {
        let inode = self.inodes.get(slot);
        if !inode.is_open() {
            return Ok(());
        }
        let holder = self.leases.get(InodeId(inode.id)).map_or("", |lease| &lease.holder);
        error(Code::FileOpenElsewhere, format!("{path} is being written by {holder}"))
    }

    /// The content of a published table never changes.
    pub(super) fn demand_unsealed(&self, slot: u32, path: &FsPath) -> Result<()> {
        if self.inodes.get(slot).is_sealed() {
            return Err(denied(format!("{path} is a published table: its content can't change")));
        }
        Ok(())
    }

    fn create(
        &mut self,
        caller: &Caller,
        now: i64,
        op: &Op,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply> {
        let walk = self.plan_create(caller, op)?;
        let Op::Create { path, holder, mode, unmasked, replication, block_bytes, erasure, .. } = op
        else {
            unreachable!("called for create alone");
        };
        let name = path.name().expect("the root is a folder");
        let folder = match walk.target {
            Some(old) => {
                self.detach(walk.folder, name, now);
                self.remove_tree(old, walk.folder, now, effects);
                walk.folder
            }
            None => {
                let mode = |parents: u16| NewMode::plain(parents).with_owner_writing();
                self.make_parents(&caller.user, now, path, walk.folder, walk.missing, mode)
            }
        };
        let policy = erasure.unwrap_or_else(|| self.coding_below(folder));
        let replication = if policy == 0 { *replication } else { 1 };
        let layout = Layout { replication, block_bytes: *block_bytes, policy };
        let layout = self.interned.layouts.number(layout);
        let bits = |mode: u32| (mode & 0o777) as u16;
        let (mode, acl) = self.inherited(folder, bits(*mode), unmasked.map(bits), false);
        let permission = self.new_permission(&caller.user, folder, mode);
        let id = self.next_inode();
        let mut inode = Inode::file(id, folder, permission, layout, now);
        inode.set_open(true);
        let slot = self.add_inode(inode);
        self.attach(folder, name, slot, now);
        self.charge(&[Charge { folder, names: 1, space: 0 }]);
        self.hand_down(slot, folder, acl);
        self.take_lease(id, holder, effects);
        Ok(Reply::File(Box::new(self.status_of(slot, name))))
    }

    pub(super) fn take_lease(&mut self, inode: InodeId, holder: &str, effects: &mut Vec<Effect>) {
        self.leases.set(inode, Lease { holder: holder.to_owned(), recovery: None });
        effects.push(Effect::LeaseTaken { inode, holder: holder.to_owned() });
    }

    /// The file, and its last block if that is written on.
    fn plan_append(&self, caller: &Caller, op: &Op) -> Result<(u32, Option<u32>)> {
        let Op::Append { path, holder, new_block } = op else {
            unreachable!("called for append alone");
        };
        check_holder(holder)?;
        let slot = self.existing_file(caller, path)?;
        self.demand(caller, slot, WRITE, path)?;
        self.demand_unsealed(slot, path)?;
        self.demand_closed(slot, path)?;
        let layout = self.charged_layout(slot);
        // Units are never written on: a striped file goes on with a block group of its own.
        let reopens = !new_block && layout.policy == 0;
        let last = self.blocks_of(slot).last().copied().filter(|_| reopens);
        let partial = last.filter(|&block| {
            self.block_info(block).length < layout.block_bytes && !self.is_bound(slot, block)
        });
        if let Some(block) = partial {
            let open = signed(layout.space_max()) - signed(self.charged(block, &layout));
            self.demand_room(&self.file_charges(slot, open))?;
        }
        Ok((slot, partial))
    }

    fn append(
        &mut self,
        slot: u32,
        reopened: Option<u32>,
        path: &FsPath,
        holder: &str,
        effects: &mut Vec<Effect>,
    ) -> Reply {
        self.preserve(slot);
        let inode = self.inodes.get_mut(slot);
        inode.set_open(true);
        let (id, length) = (InodeId(inode.id), inode.length);
        self.take_lease(id, holder, effects);
        let last_block = reopened.map(|block| {
            self.bind_copies(slot, block);
            let length = self.blocks.get(block).length();
            self.set_block(block, length, BEING_WRITTEN, effects);
            self.block_info(block).block()
        });
        let status = Box::new(self.status_of(slot, path.name().unwrap_or("")));
        let last_block_offset = length - last_block.map_or(0, |block| block.length);
        Reply::Appended { status, last_block, last_block_offset }
    }

    /// The file that the caller names, whether open or not.
    fn named_file(&self, caller: &Caller, file: &FileRef) -> Result<u32> {
        let slot = match file.inode {
            Some(inode) => self.slot_of_inode(inode),
            None => match self.walk(caller, &file.path) {
                Err(error) if error.code == Code::ParentNotFolder => None,
                walk => walk?.target,
            },
        };
        match slot.filter(|&slot| !self.inodes.get(slot).is_folder()) {
            Some(slot) => Ok(slot),
            None => error(Code::LeaseExpired, format!("{} is gone", file.path)),
        }
    }

    /// The open file that the caller names and this holder writes.
    pub(super) fn held_file(&self, caller: &Caller, file: &FileRef, holder: &str) -> Result<u32> {
        let slot = self.named_file(caller, file)?;
        self.demand_lease(slot, holder)?;
        Ok(slot)
    }

    pub(super) fn demand_lease(&self, slot: u32, holder: &str) -> Result<()> {
        let inode = InodeId(self.inodes.get(slot).id);
        match self.leases.get(inode) {
            Some(lease) if lease.holder == holder && holder != RECOVERY_HOLDER => Ok(()),
            Some(lease) => {
                let message = format!("{inode} is held by {}, no longer by {holder}", lease.holder);
                error(Code::LeaseExpired, message)
            }
            None => {
                error(Code::LeaseExpired, format!("{inode} is closed: {holder} holds no lease"))
            }
        }
    }

    /// The most bytes of data in one block or block group of a file.
    pub(super) fn block_data_max(&self, file: u32) -> u64 {
        self.layout(file).data_max()
    }

    /// The commit that naming `told` as the last block asks for: nothing if it is complete already.
    fn plan_commit(&self, file: u32, told: Option<&Block>) -> Result<Option<(u32, u64)>> {
        let last = self.blocks_of(file).last().map(|&slot| self.block_info(slot));
        let full = |last: &BlockInfo| {
            last.state == BlockState::Complete && last.length >= self.block_data_max(file)
        };
        let (Some(last), Some(told)) = (last, told) else {
            return match (last, told) {
                (None, None) => Ok(None),
                (Some(last), None) if full(&last) || last.state == BlockState::Complete => Ok(None),
                (Some(last), None) => error(
                    Code::Stale,
                    format!("the last block is {}, the call names none", last.id),
                ),
                (None, Some(told)) => {
                    error(Code::Stale, format!("the file has no block, the call names {}", told.id))
                }
                (Some(_), Some(_)) => unreachable!("taken apart above"),
            };
        };
        if told.id != last.id || told.stamp != last.stamp {
            let message = format!(
                "the last block is {} at {}, the call names {} at {}",
                last.id, last.stamp, told.id, told.stamp
            );
            return error(Code::Stale, message);
        }
        if last.state == BlockState::Complete {
            return if told.length == last.length {
                Ok(None)
            } else {
                let message = format!(
                    "{} is complete with {} bytes, the call says {}",
                    last.id, last.length, told.length
                );
                error(Code::Stale, message)
            };
        }
        let most = self.block_data_max(file);
        if told.length > most || told.length < last.length {
            let message =
                format!("{}: {} bytes, must be {} to {most}", last.id, told.length, last.length);
            return error(Code::InvalidArgument, message);
        }
        Ok(Some((last.slot, told.length)))
    }

    fn plan_add_block(
        &self,
        caller: &Caller,
        file: &FileRef,
        holder: &str,
        previous: Option<&Block>,
    ) -> Result<NextBlock> {
        let file = self.held_file(caller, file, holder)?;
        let blocks = self.blocks_of(file);
        if let [before @ .., last] = blocks {
            let last = self.block_info(*last);
            let penultimate = before.last().map(|&slot| BlockId(self.blocks.get(slot).id));
            let untouched = last.state == BlockState::BeingWritten && last.length == 0;
            if untouched && penultimate == previous.map(|block| block.id) {
                return Ok(NextBlock::Again(last));
            }
        }
        if blocks.len() >= u32::MAX as usize {
            return error(Code::LimitExceeded, format!("a file of {} blocks", blocks.len()));
        }
        let commit = self.plan_commit(file, previous)?;
        // What a block that is final now did not use is given back first.
        let layout = self.charged_layout(file);
        let whole = signed(layout.space_max());
        let unused = commit.map_or(0, |(_, length)| whole - signed(layout.space(length)));
        self.demand_room(&self.file_charges(file, whole - unused))?;
        Ok(NextBlock::New { file, commit })
    }

    fn add_block(
        &mut self,
        file: u32,
        commit: Option<(u32, u64)>,
        now: i64,
        effects: &mut Vec<Effect>,
    ) -> Reply {
        self.preserve(file);
        self.commit_block(commit, effects);
        let layout = self.charged_layout(file);
        let id = self.next_block(layout.policy);
        let stamp = self.mint_stamp();
        let slot = self.blocks.insert(BlockRecord::new(id.0, stamp.0, file));
        self.index_block(id, slot);
        let body = match self.inodes.get(file).blocks() {
            Body::Empty => Body::One(slot),
            Body::One(first) => Body::List(self.lists.insert(BlockList(vec![first, slot]))),
            Body::List(list) => {
                self.lists.get_mut(list).0.push(slot);
                Body::List(list)
            }
        };
        let inode = self.inodes.get_mut(file);
        inode.set_blocks(body);
        inode.modified_ns = now;
        self.charge_file(file, signed(layout.space_max()));
        let info = self.block_info(slot);
        effects.push(Effect::BlockAdded {
            block: info.block(),
            slot,
            inode: info.inode,
            replication: info.replication,
            policy: info.policy,
        });
        self.allocated(&info)
    }

    /// The identity of the next block, or block group of a policy that is not 0.
    fn next_block(&mut self, policy: u8) -> BlockId {
        let (counter, step) = match policy {
            0 => (&mut self.counters.next_block, 1),
            _ => (&mut self.counters.next_group, BlockId::GROUP_STEP),
        };
        let id = BlockId(*counter);
        *counter = counter.checked_add(step).expect("2^59 block groups are never used up");
        id
    }

    fn allocated(&self, last: &BlockInfo) -> Reply {
        let file = self.blocks.get(last.slot).inode;
        Reply::BlockAllocated {
            block: last.block(),
            offset: self.inodes.get(file).length - last.length,
            inode: last.inode,
            replication: last.replication,
            block_bytes: self.layout(file).block_bytes,
        }
    }

    pub(super) fn commit_block(&mut self, commit: Option<(u32, u64)>, effects: &mut Vec<Effect>) {
        if let Some((slot, length)) = commit {
            self.set_block(slot, length, COMPLETE, effects);
        }
    }

    /// Gives a block its length and state, its file the sum, and quotas what it takes now.
    pub(super) fn set_block(
        &mut self,
        slot: u32,
        length: u64,
        state: u8,
        effects: &mut Vec<Effect>,
    ) {
        let file = self.blocks.get(slot).inode;
        self.preserve(file);
        self.shorten_copies(file, slot, length);
        let layout = self.charged_layout(file);
        let charged = signed(self.charged(slot, &layout));
        let record = self.blocks.get_mut(slot);
        let old = record.length();
        record.set_length(length);
        record.set_state(state);
        let inode = self.inodes.get_mut(file);
        inode.length = inode.length - old + length;
        let space = signed(self.charged(slot, &layout)) - charged;
        self.charge_file(file, space);
        self.tell_block(slot, effects);
    }

    /// A block's stamp, length or state changed.
    pub(super) fn tell_block(&self, slot: u32, effects: &mut Vec<Effect>) {
        let info = self.block_info(slot);
        let (block, state, policy) = (info.block(), info.state, info.policy);
        effects.push(Effect::BlockChanged { block, slot, state, policy });
    }

    /// Takes the last block of a file away.
    pub(super) fn drop_last_block(&mut self, file: u32, slot: u32, effects: &mut Vec<Effect>) {
        self.preserve(file);
        let charged = self.charged(slot, &self.charged_layout(file));
        self.charge_file(file, -signed(charged));
        let shown = self.shown_of(file, slot);
        self.unlist_last_block(file, slot);
        self.inodes.get_mut(file).length -= shown;
        if self.leave_block(file, slot, effects) {
            let kept = self.charged(slot, &self.charged_layout(file));
            self.charge_file(file, signed(kept));
        } else {
            self.forget_block(slot, effects);
        }
    }

    /// Takes the last block off a file's list. Its length, and the block itself, are the caller's business.
    pub(super) fn unlist_last_block(&mut self, file: u32, slot: u32) {
        let body = match self.inodes.get(file).blocks() {
            Body::List(list) => {
                let blocks = &mut self.lists.get_mut(list).0;
                assert!(blocks.pop() == Some(slot), "the last block is dropped");
                match blocks[..] {
                    [only] => {
                        self.lists.remove(list);
                        Body::One(only)
                    }
                    _ => Body::List(list),
                }
            }
            _ => Body::Empty,
        };
        self.inodes.get_mut(file).set_blocks(body);
    }

    fn plan_complete(
        &self,
        caller: &Caller,
        file: &FileRef,
        holder: &str,
        last: Option<&Block>,
    ) -> Result<Closing> {
        let slot = self.named_file(caller, file)?;
        let inode = self.inodes.get(slot);
        if !inode.is_open() {
            let have = self.blocks_of(slot).last().map(|&block| self.block_info(block).block());
            let same = match (have, last) {
                (None, None) => true,
                (Some(have), Some(told)) => have.id == told.id && have.length == told.length,
                _ => false,
            };
            if same {
                return Ok(Closing::Closed(InodeId(inode.id)));
            }
        }
        self.demand_lease(slot, holder)?;
        Ok(Closing::Close { file: slot, commit: self.plan_commit(slot, last)? })
    }

    /// Closes a file whose blocks are all complete.
    pub(super) fn close_file(&mut self, slot: u32, now: i64, effects: &mut Vec<Effect>) -> InodeId {
        self.preserve(slot);
        let inode = self.inodes.get_mut(slot);
        inode.set_open(false);
        inode.modified_ns = now;
        inode.changed_ns = now;
        let id = InodeId(inode.id);
        let lease = self.leases.remove(id).expect("an open file has a lease");
        effects.push(Effect::LeaseGone { inode: id, holder: lease.holder });
        id
    }
}
