//! The two steps of a block recovery on one replica.
//!
//! Step one stops the writer and tells state and length; step two cuts the replica to the agreed length, gives it the
//! recovery's stamp, and finishes it. Between the two the replica serves what was visible. Repeating a step is harmless.

use std::sync::Arc;

use proto::{BlockId, Code, Error, GenerationStamp, Result};

use super::{Store, finalized_paths, writing::move_files};
use crate::claims::Claim;
use crate::files::{Paths, ReplicaFiles};
use crate::layout;
use crate::map::{Compact, Slot};
use crate::open_replica::{OpenReplica, Place};
use crate::replica::{RecoveryInfo, Replica, State};

impl Store {
    /// Step one. `None` if there is no replica that could take part: none at all, or an older one.
    pub async fn init_recovery(
        self: &Arc<Self>,
        block: BlockId,
        asked: GenerationStamp,
        recovery: GenerationStamp,
    ) -> Result<Option<RecoveryInfo>> {
        let _claim = self.claims.claim(block).await;
        let Some(slot) = self.map.get(block) else { return Ok(None) };
        if super::slot_stamp(&slot) < asked {
            return Ok(None);
        }
        let volume = self.disk(slot.volume()).volume.clone();
        volume.check()?;
        match slot {
            Slot::Finalized(compact) => {
                let mut replica =
                    Replica::finalized(block, compact.stamp, u64::from(compact.length));
                let info = replica.begin_recovery(asked, recovery)?;
                let open = OpenReplica::new(&volume, replica, Place::Finalized, None);
                self.map.change(block, |map| map.insert(block, Slot::Open(Arc::new(open))));
                Ok(Some(info))
            }
            Slot::Open(open) => {
                // An older recovery does not even stop the writer.
                open.replica().check_recovery(asked, recovery)?;
                open.stop_writer(self.takeover_wait).await?;
                let mut inner = open.lock();
                if inner.replica.state() == State::Temporary {
                    return Ok(None);
                }
                inner.replica.begin_recovery(asked, recovery).map(Some)
            }
        }
    }

    /// Step two.
    pub async fn finish_recovery(
        self: &Arc<Self>,
        block: BlockId,
        recovery: GenerationStamp,
        length: u64,
    ) -> Result<()> {
        let claim = self.claims.claim(block).await;
        let slot = self.map.get(block).ok_or_else(|| {
            Error::new(Code::NotFound, format!("{block} has no replica on this DataNode"))
        })?;
        let open = match &slot {
            Slot::Finalized(c) if c.stamp == recovery && u64::from(c.length) == length => {
                return Ok(());
            }
            Slot::Finalized(c) => {
                return Err(Error::new(
                    Code::Stale,
                    format!("{block} is finished with {} and under no recovery", c.stamp),
                ));
            }
            Slot::Open(open) => open.clone(),
        };
        open.replica().check_finish_recovery(recovery, length)?;
        let store = self.clone();
        let pool = open.volume().pool().clone();
        pool.run(move || store.finish_recovery_now(&claim, &open, recovery, length)).await
    }

    fn finish_recovery_now(
        &self,
        claim: &Claim,
        open: &Arc<OpenReplica>,
        recovery: GenerationStamp,
        length: u64,
    ) -> Result<()> {
        let block = claim.block();
        let disk = self.disk(open.volume().number());
        let replica = open.replica();
        let mut files = ReplicaFiles::open(&disk.volume, open.paths(), replica.written())?;
        let place = open.lock().place;
        if place == Place::Finalized && length == replica.written() {
            return self.rename_stamp(open, recovery);
        }
        if place == Place::Finalized {
            // Out of the finished ones first: a crash while it is cut leaves a half-written replica.
            let from = finalized_paths(&disk.volume, block, replica.stamp());
            let to = Paths::new(&layout::rbw_path(disk.volume.root()), block, replica.stamp());
            let touch = disk.touch(block)?;
            move_files(disk, &from, &to)?;
            files.moved(to);
            self.changed_after(disk, block, touch, || open.lock().place = Place::Rbw);
        }
        files.truncate(length)?;
        disk.volume.subtract_used(replica.written() - length);
        self.finish_now(open, &mut files, recovery)?;
        open.lock().replica.finish_recovery(recovery, length);
        Ok(())
    }

    /// A finished replica that has the right length only needs its new stamp.
    fn rename_stamp(&self, open: &Arc<OpenReplica>, recovery: GenerationStamp) -> Result<()> {
        let disk = self.disk(open.volume().number());
        let replica = open.replica();
        let block = replica.block();
        let from = finalized_paths(&disk.volume, block, replica.stamp());
        let to = finalized_paths(&disk.volume, block, recovery);
        let touch = disk.touch(block)?;
        move_files(disk, &from, &to)?;
        disk.volume.sync_folder(&to.folder)?;
        let length = u32::try_from(replica.written()).expect("it was finished with this length");
        let slot = Slot::Finalized(Compact::new(recovery, length, disk.volume.number()));
        self.changed_after(disk, block, touch, || self.put(block, slot));
        open.lock().replica.finish_recovery(recovery, u64::from(length));
        Ok(())
    }
}
