//! Concat: the blocks of some files go behind those of another, and the files are gone.
//!
//! No byte moves. As in HDFS, all files lie in one folder and are closed, sources are not empty, and their blocks are
//! not larger than the target's may be. Blocks inside the target may be shorter than its block size from then on.
//! A source with several names or of a published table is refused: its other names would lose their bytes.

use std::collections::BTreeSet;

use proto::{BlockId, Code, Error, FsPath, Result};

use super::State;
use super::inodes::{BlockList, Body};
use super::permissions::{READ, WRITE};
use super::quotas::{Charge, signed};
use super::tree::not_found;
use crate::op::attribute::CONCAT_SOURCES_MAX;
use crate::op::{Caller, Effect, Reply};

fn refused<T>(message: String) -> Result<T> {
    Err(Error::new(Code::InvalidArgument, message))
}

/// What concat found: slots.
pub(super) struct Concat {
    target: u32,
    folder: u32,
    sources: Vec<u32>,
}

impl State {
    pub(super) fn plan_concat(
        &self,
        caller: &Caller,
        target: &FsPath,
        sources: &[FsPath],
    ) -> Result<Concat> {
        if sources.is_empty() {
            return refused("No sources given".into());
        }
        if sources.len() > CONCAT_SOURCES_MAX {
            return refused(format!(
                "concat: {} sources, at most {CONCAT_SOURCES_MAX}",
                sources.len()
            ));
        }
        let (target_slot, folder) = self.existing(caller, target)?;
        self.demand(caller, target_slot, WRITE, target)?;
        self.demand_file(target_slot, target)?;
        self.demand_unsealed(target_slot, target)?;
        if self.layout(target_slot).policy != 0 {
            return refused(format!("concat: the target file {target} is with striped blocks"));
        }
        if self.inodes.get(target_slot).is_open() {
            return refused(format!("concat: target file {target} is under construction"));
        }
        let mut found = Vec::with_capacity(sources.len());
        for source in sources {
            found.push(self.plan_source(caller, source, target, target_slot, folder)?);
        }
        if found.iter().collect::<BTreeSet<_>>().len() < found.len() {
            return refused("concat: at least two of the source files are the same".into());
        }
        let plan = Concat { target: target_slot, folder, sources: found };
        let (freed, gained) = self.concat_space(&plan);
        let names = -signed(plan.sources.len() as u64);
        let mut charges = self.file_charges(plan.target, signed(gained));
        charges.push(Charge { folder, names, space: -signed(freed) });
        self.demand_room(&charges)?;
        Ok(plan)
    }

    fn plan_source(
        &self,
        caller: &Caller,
        source: &FsPath,
        target: &FsPath,
        target_slot: u32,
        folder: u32,
    ) -> Result<u32> {
        let walk = self.walk(caller, source)?;
        if let Some(slot) = walk.target {
            self.demand(caller, slot, READ, source)?;
        }
        self.demand_entry(caller, &walk, source)?;
        let slot = walk.target.ok_or_else(|| not_found(source))?;
        self.demand_file(slot, source)?;
        self.catalogue.demand_unguarded(source)?;
        self.demand_unsealed(slot, source)?;
        if walk.folder != folder {
            return refused(format!(
                "Source file {source} is not in the same directory with the target {target}"
            ));
        }
        if slot == target_slot {
            return refused(format!(
                "concat: the src file {source} is the same with the target file {target}"
            ));
        }
        let inode = self.inodes.get(slot);
        if inode.is_open() || self.blocks_of(slot).is_empty() {
            return refused(format!(
                "concat: source file {source} is invalid or empty or underConstruction"
            ));
        }
        if self.is_in_snapshot(slot) {
            let message = format!("Concat: the source file {source} is in snapshot");
            return Err(Error::new(Code::Snapshot, message));
        }
        if inode.links > 1 {
            return refused(format!("concat: source file {source} has {} names", inode.links));
        }
        if self.layout(slot).policy != 0 {
            return refused(format!("concat: the src file {source} is with striped blocks"));
        }
        let (own, limit) = (self.layout(slot).block_bytes, self.layout(target_slot).block_bytes);
        if own > limit {
            return refused(format!(
                "concat: source file {source} has preferred block size {own} which is greater than \
                 the target file's preferred block size {limit}"
            ));
        }
        Ok(slot)
    }

    pub(super) fn concat(
        &mut self,
        now: i64,
        plan: &Concat,
        sources: &[FsPath],
        effects: &mut Vec<Effect>,
    ) -> Reply {
        self.preserve(plan.target);
        let mut blocks = self.blocks_of(plan.target).to_vec();
        let kept = blocks.len();
        let mut length = self.inodes.get(plan.target).length;
        let (freed, gained) = self.concat_space(plan);
        for (&source, path) in plan.sources.iter().zip(sources) {
            blocks.extend_from_slice(self.blocks_of(source));
            length += self.inodes.get(source).length;
            self.move_bounds(source, plan.target);
            self.take_blocks(source);
            self.detach(plan.folder, path.name().expect("a file has a name"), now);
            self.remove_tree(source, plan.folder, now, effects);
        }
        self.charge(&[Charge { folder: plan.folder, names: 0, space: -signed(freed) }]);
        self.charge_file(plan.target, signed(gained));
        let replication = self.replication_of(plan.target);
        self.take_blocks(plan.target);
        for &block in &blocks[kept..] {
            self.blocks.get_mut(block).inode = plan.target;
        }
        let body = match blocks[..] {
            [only] => Body::One(only),
            _ => Body::List(self.lists.insert(BlockList(blocks.clone()))),
        };
        let inode = self.inodes.get_mut(plan.target);
        inode.set_blocks(body);
        inode.length = length;
        inode.modified_ns = now;
        inode.changed_ns = now;
        for &slot in &blocks[kept..] {
            let block = BlockId(self.blocks.get(slot).id);
            effects.push(Effect::ReplicationChanged { block, slot, replication });
        }
        Reply::Done
    }

    /// Bytes that the sources were charged, and that the target is charged for their blocks.
    fn concat_space(&self, plan: &Concat) -> (u64, u64) {
        let (mut freed, mut gained) = (0u64, 0u64);
        for &source in &plan.sources {
            // Whole blocks: of one that a snapshot shows more of, the source may show a part.
            let space = self.space_of(source);
            let bytes = space / u64::from(self.replication_of(source).max(1));
            let replication = self.replication_of(plan.target);
            freed = freed.saturating_add(space);
            gained = gained.saturating_add(bytes.saturating_mul(u64::from(replication)));
        }
        (freed, gained)
    }

    /// Leaves a file without blocks, and the blocks without a file.
    fn take_blocks(&mut self, slot: u32) {
        if let Body::List(list) = self.inodes.get(slot).blocks() {
            self.lists.remove(list);
        }
        let inode = self.inodes.get_mut(slot);
        inode.set_blocks(Body::Empty);
        inode.length = 0;
    }
}
