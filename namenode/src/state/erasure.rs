//! Erasure coding in the namespace: which policy holds for new files, and how a file's content is coded anew.
//!
//! A file's policy is in its layout, chosen when it is made: the one that the call names, else that of the nearest
//! folder above it that has its own (side table), else it is replicated. A folder can say "replicated" too. Files that
//! are there keep theirs, also when they move. Blocks of a striped file are block groups (see docs/formats): ids of
//! their own, lengths in bytes of data.
//!
//! A file is coded anew by writing its bytes to another file and then exchanging the two contents in one operation.
//! What the target had before is then the other file's, or, as far as snapshots hold it, theirs alone.
//!
//! Always holds: a file has block groups if its layout names a policy, and blocks if not.

use proto::erasure::{POLICIES, Policy};
use proto::{BlockId, Code, Error, FsPath, InodeId, Result};

use super::State;
use super::inodes::Body;
use super::interned::coding;
use super::permissions::{READ, WRITE};
use super::quotas::{Charge, signed};
use super::slab::NONE;
use crate::coding::{Malformed, Reader, put_u16, put_u64};
use crate::op::erasure::ErasureOp;
use crate::op::{Caller, Effect, Reply};

/// Which policies may be given to folders and new files: bit n for the policy n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Enabled(u16);

impl Default for Enabled {
    /// All that files can be coded by.
    fn default() -> Self {
        let bits = POLICIES.iter().filter(|policy| coding(policy.id).is_some());
        Self(bits.fold(0, |bits, policy| bits | 1 << policy.id))
    }
}

impl Enabled {
    fn has(self, policy: u8) -> bool {
        policy < 16 && self.0 & 1 << policy != 0
    }

    fn with(self, policy: u8, enabled: bool) -> Self {
        if enabled { Self(self.0 | 1 << policy) } else { Self(self.0 & !(1 << policy)) }
    }
}

/// What an exchange found: slots of files.
struct Exchange {
    target: u32,
    source: u32,
}

fn refused<T>(message: String) -> Result<T> {
    Err(Error::new(Code::InvalidArgument, message))
}

impl State {
    /// Whether a policy may be given to folders and new files.
    pub fn is_coding_enabled(&self, policy: u8) -> bool {
        self.erasure.has(policy)
    }

    /// The policy of new files in a folder: its own, or that of the nearest one above that has one; 0: replicated.
    pub(crate) fn coding_below(&self, folder: u32) -> u8 {
        if !self.has_codings() {
            return 0;
        }
        let mut slot = folder;
        while slot != NONE {
            if let Some(policy) = self.attached(slot).and_then(|attached| attached.erasure) {
                return policy;
            }
            slot = self.inodes.get(slot).parent;
        }
        0
    }

    /// The policy of a file, or of new files in a folder; 0: replicated.
    pub fn coding_policy(&self, caller: &Caller, path: &FsPath) -> Result<u8> {
        let slot = self.existing_seen(caller, path)?.slot;
        if self.inodes.get(slot).is_folder() {
            return Ok(self.coding_below(slot));
        }
        Ok(self.layout(slot).policy)
    }

    /// The policy that a folder has of its own; 0: "replicated".
    pub fn own_coding_policy(&self, caller: &Caller, path: &FsPath) -> Result<Option<u8>> {
        Ok(self.own_coding(self.existing_seen(caller, path)?.slot))
    }

    /// Whether a new file in a folder can be coded as asked for.
    pub(super) fn plan_coding(
        &self,
        folder: u32,
        asked: Option<u8>,
        block_bytes: u64,
    ) -> Result<()> {
        let id = match asked {
            Some(id) if id != 0 => self.demand_enabled(id)?.id,
            Some(_) => 0,
            None => self.coding_below(folder),
        };
        match coding(id) {
            Some(policy) if block_bytes < u64::from(policy.cell_bytes) => refused(format!(
                "Specified block size {block_bytes} is less than the cell size ({}) of the erasure \
                 coding policy on this file.",
                policy.cell_bytes
            )),
            _ => Ok(()),
        }
    }

    fn demand_enabled(&self, id: u8) -> Result<Policy> {
        let Some(policy) = coding(id) else {
            return refused(format!("erasure-coding policy {id}: no file can be coded by it"));
        };
        if !self.erasure.has(id) {
            let enabled: Vec<&str> = POLICIES
                .iter()
                .filter(|other| self.erasure.has(other.id))
                .map(|other| other.name)
                .collect();
            return refused(format!(
                "Policy '{}' does not match any enabled erasure coding policies: [{}]. An erasure \
                 coding policy can be enabled by enableErasureCodingPolicy API.",
                policy.name,
                enabled.join(", ")
            ));
        }
        Ok(policy)
    }

    pub(super) fn plan_erasure(&self, caller: &Caller, op: &ErasureOp) -> Result<Option<Reply>> {
        match op {
            ErasureOp::SetPolicy { path, policy } => {
                let slot = self.plan_set_coding(caller, path, *policy)?;
                let same = self.own_coding(slot) == Some(*policy);
                Ok(same.then_some(Reply::Done))
            }
            ErasureOp::UnsetPolicy { path } => self.plan_unset_coding(caller, path).map(|_| None),
            ErasureOp::Enable { policy, enabled } => {
                plan_enable(caller, *policy, *enabled)?;
                Ok((self.erasure.has(*policy) == *enabled).then_some(Reply::Done))
            }
            ErasureOp::Exchange { target, source, inode, modified_ns } => {
                self.plan_exchange(caller, target, source, *inode, *modified_ns).map(|_| None)
            }
        }
    }

    pub(super) fn perform_erasure(
        &mut self,
        caller: &Caller,
        now: i64,
        op: &ErasureOp,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply> {
        match op {
            ErasureOp::SetPolicy { path, policy } => {
                let slot = self.plan_set_coding(caller, path, *policy)?;
                self.set_coding(slot, Some(*policy), now);
            }
            ErasureOp::UnsetPolicy { path } => {
                let slot = self.plan_unset_coding(caller, path)?;
                self.set_coding(slot, None, now);
            }
            ErasureOp::Enable { policy, enabled } => {
                plan_enable(caller, *policy, *enabled)?;
                if *policy < 16 {
                    self.erasure = self.erasure.with(*policy, *enabled);
                }
            }
            ErasureOp::Exchange { target, source, inode, modified_ns } => {
                let plan = self.plan_exchange(caller, target, source, *inode, *modified_ns)?;
                self.exchange(&plan, now, effects);
            }
        }
        Ok(Reply::Done)
    }

    fn own_coding(&self, folder: u32) -> Option<u8> {
        self.attached(folder).and_then(|attached| attached.erasure)
    }

    fn plan_set_coding(&self, caller: &Caller, path: &FsPath, policy: u8) -> Result<u32> {
        let slot = self.plan_folder(caller, path)?;
        if policy != 0 {
            self.demand_enabled(policy)?;
        }
        Ok(slot)
    }

    fn plan_unset_coding(&self, caller: &Caller, path: &FsPath) -> Result<u32> {
        let slot = self.plan_folder(caller, path)?;
        match self.own_coding(slot) {
            Some(_) => Ok(slot),
            None => Err(Error::new(
                Code::NoSuchAttribute,
                format!("No erasure coding policy explicitly set on {path}"),
            )),
        }
    }

    fn plan_folder(&self, caller: &Caller, path: &FsPath) -> Result<u32> {
        let (slot, _) = self.existing(caller, path)?;
        self.demand(caller, slot, WRITE, path)?;
        if !self.inodes.get(slot).is_folder() {
            let message = format!("Attempt to set an erasure coding policy for a file {path}");
            return Err(Error::new(Code::NotFolder, message));
        }
        Ok(slot)
    }

    fn set_coding(&mut self, slot: u32, policy: Option<u8>, now: i64) {
        self.preserve(slot);
        self.change_attached(slot, |attached| attached.erasure = policy);
        self.inodes.get_mut(slot).changed_ns = now;
    }

    fn plan_exchange(
        &self,
        caller: &Caller,
        target: &FsPath,
        source: &FsPath,
        inode: InodeId,
        modified_ns: i64,
    ) -> Result<Exchange> {
        let found = |path: &FsPath| -> Result<u32> {
            let slot = self.existing_file(caller, path)?;
            self.demand(caller, slot, READ | WRITE, path)?;
            self.demand_unsealed(slot, path)?;
            self.demand_closed(slot, path)?;
            Ok(slot)
        };
        let plan = Exchange { target: found(target)?, source: found(source)? };
        let (old, new) = (self.inodes.get(plan.target), self.inodes.get(plan.source));
        if (old.id, old.modified_ns) != (inode.0, modified_ns) {
            let message =
                format!("{target} is not the file of {inode} any more, or was written since");
            return Err(Error::new(Code::Stale, message));
        }
        if plan.target == plan.source || old.length != new.length {
            return refused(format!(
                "{target} has {} bytes, {source} has {}: they must be two files with the same content",
                old.length, new.length
            ));
        }
        if new.links > 1 || self.is_in_snapshot(plan.source) {
            return refused(format!("{source} has several names, or a snapshot has it"));
        }
        self.demand_room(&self.exchange_charges(&plan))?;
        Ok(plan)
    }

    /// What each file's names gain and lose. What a snapshot holds of the target stays charged to it.
    fn exchange_charges(&self, plan: &Exchange) -> Vec<Charge> {
        let (old, new) = (signed(self.space_of(plan.target)), signed(self.space_of(plan.source)));
        let (gained, left) =
            if self.is_in_snapshot(plan.target) { (new, -new) } else { (new - old, old - new) };
        let mut charges = self.file_charges(plan.target, gained);
        charges.extend(self.file_charges(plan.source, left));
        charges
    }

    fn exchange(&mut self, plan: &Exchange, now: i64, effects: &mut Vec<Effect>) {
        self.preserve(plan.target);
        self.preserve(plan.source);
        let files = [plan.target, plan.source];
        let before = files.map(|file| self.space_of(file));
        // What snapshots hold of the target stays theirs: then the other file is left with nothing.
        let held = self.has_copies(plan.target);
        if held {
            self.let_blocks_go(plan.target, effects);
            self.free_list(plan.target);
            self.inodes.get_mut(plan.target).set_blocks(Body::Empty);
        } else {
            self.move_bounds(plan.target, plan.source);
        }
        self.move_bounds(plan.source, plan.target);
        let (old, new) = (self.inodes.get(plan.target), self.inodes.get(plan.source));
        let (old_content, new_content) = ((old.blocks(), old.layout), (new.blocks(), new.layout));
        self.take_content(plan.target, new_content, now);
        self.take_content(plan.source, old_content, now);
        if held {
            self.inodes.get_mut(plan.source).length = 0;
        }
        for (file, before) in files.into_iter().zip(before) {
            self.charge_file(file, signed(self.space_of(file)) - signed(before));
            self.tell_replications(file, effects);
        }
    }

    fn take_content(&mut self, file: u32, (body, layout): (Body, u32), now: i64) {
        let inode = self.inodes.get_mut(file);
        inode.set_blocks(body);
        inode.layout = layout;
        inode.changed_ns = now;
        for block in self.blocks_of(file).to_vec() {
            self.blocks.get_mut(block).inode = file;
        }
    }

    /// The section of a checkpoint: the next block group, and which policies are enabled.
    pub(crate) fn encode_erasure(&self, out: &mut Vec<u8>) {
        put_u64(out, self.counters.next_group);
        put_u16(out, self.erasure.0);
    }

    pub(crate) fn decode_erasure(
        &mut self,
        r: &mut Reader<'_>,
    ) -> std::result::Result<(), Malformed> {
        let malformed = r.malformed("the id of a block group, and known policies");
        let (next, enabled) = (BlockId(r.u64()?), r.u16()?);
        if !next.is_striped() || next.unit() != 0 || enabled & !Enabled::default().0 != 0 {
            return Err(malformed);
        }
        self.counters.next_group = next.0;
        self.erasure = Enabled(enabled);
        Ok(())
    }
}

fn plan_enable(caller: &Caller, policy: u8, enabled: bool) -> Result<()> {
    if !caller.superuser {
        let who = &caller.user;
        let message = format!("Access denied for user {who}. Superuser privilege is required");
        return Err(Error::new(Code::PermissionDenied, message));
    }
    if Policy::by_id(policy).is_none() {
        return refused(format!("The policy {policy} does not exist"));
    }
    if enabled && coding(policy).is_none() {
        return refused(format!("erasure-coding policy {policy}: no file can be coded by it"));
    }
    Ok(())
}
