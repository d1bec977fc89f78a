//! The last block of a file that is being written: abandonBlock, updateBlockForPipeline, updatePipeline, fsync.
//!
//! Plans alone: they say which block is meant, and whether its writer may do that with it. `files` makes the changes.
//!
//! Always holds: what is planned for is the last block of an open file, not complete, and the holder's.

use proto::{BlockId, Code, Error, GenerationStamp, Result};

use super::files::BEING_WRITTEN;
use super::{BlockInfo, State};
use crate::op::{Block, BlockState, Caller, FileRef};

fn error<T>(code: Code, message: String) -> Result<T> {
    Err(Error::new(code, message))
}

impl State {
    /// The file and its block; `None` if the block is gone already.
    pub(super) fn plan_abandon(
        &self,
        caller: &Caller,
        file: &FileRef,
        holder: &str,
        block: &Block,
    ) -> Result<Option<(u32, u32)>> {
        let file = self.held_file(caller, file, holder)?;
        let Some(slot) = self.slot_of_block(block.id) else { return Ok(None) };
        if self.blocks.get(slot).inode != file && self.is_in_snapshot(file) {
            return Ok(None);
        }
        if self.blocks_of(file).last() != Some(&slot)
            || self.blocks.get(slot).state() != BEING_WRITTEN
        {
            let message = format!("{} is not the block that the file's writer is at", block.id);
            return error(Code::Stale, message);
        }
        Ok(Some((file, slot)))
    }

    /// The last block of an open file, as its holder names it.
    fn held_block(&self, block: BlockId, holder: &str) -> Result<BlockInfo> {
        let Some(slot) = self.slot_of_block(block) else {
            return error(Code::LeaseExpired, format!("{block} is gone"));
        };
        let file = self.blocks.get(slot).inode;
        self.demand_lease(file, holder)?;
        if self.blocks_of(file).last() != Some(&slot)
            || self.blocks.get(slot).state() != BEING_WRITTEN
        {
            return error(Code::Stale, format!("{block} is not being written any more"));
        }
        Ok(self.block_info(slot))
    }

    pub(super) fn plan_new_stamp(&self, block: &Block, holder: &str) -> Result<BlockInfo> {
        self.held_block(block.id, holder)
    }

    /// The block to change; `None` if it has the new stamp already.
    pub(super) fn plan_update_pipeline(
        &self,
        holder: &str,
        old: &Block,
        new: &Block,
    ) -> Result<Option<u32>> {
        let info = self.held_block(old.id, holder)?;
        if info.stamp == new.stamp && old.id == new.id {
            return Ok(None);
        }
        let minted = GenerationStamp(self.counters.next_stamp);
        if new.id != old.id
            || old.stamp != info.stamp
            || new.stamp <= old.stamp
            || new.stamp >= minted
        {
            let message = format!(
                "{} is at {}; the call goes from {} to {} of {}",
                info.id, info.stamp, old.stamp, new.stamp, new.id
            );
            return error(Code::Stale, message);
        }
        let file = self.blocks.get(info.slot).inode;
        let most = self.block_data_max(file);
        if new.length < info.length || new.length > most {
            let message =
                format!("{}: {} bytes, must be {} to {most}", info.id, new.length, info.length);
            return error(Code::InvalidArgument, message);
        }
        Ok(Some(info.slot))
    }

    /// The block to lengthen; `None` if there is nothing new.
    pub(super) fn plan_fsync(
        &self,
        caller: &Caller,
        file: &FileRef,
        holder: &str,
        length: u64,
    ) -> Result<Option<u32>> {
        let file = self.held_file(caller, file, holder)?;
        let last = self.blocks_of(file).last().map(|&slot| self.block_info(slot));
        let most = self.block_data_max(file);
        if length > most {
            let message = format!("{length} bytes in a block of {most}");
            return error(Code::InvalidArgument, message);
        }
        let grows =
            |last: &BlockInfo| last.state == BlockState::BeingWritten && length > last.length;
        Ok(last.filter(grows).map(|last| last.slot))
    }
}
