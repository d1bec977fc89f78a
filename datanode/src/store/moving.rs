//! Moving a finished replica from one volume of this DataNode to another.
//!
//! The copy is made beside the replicas, verified as it is read, while readers and writers of the block go on; then, with
//! the block claimed, it is synced, takes its final name, and takes the replica's place in the map; then the old files are
//! removed. If the replica changed meanwhile, the copy is thrown away. What always holds: one whole, durable replica is
//! there at every moment. A crash before the old files are removed leaves two alike: the next start removes one.

use std::path::Path;
use std::sync::Arc;

use proto::{BlockId, Code, Error, Result};

use super::disks::Disk;
use super::{ReplicaReader, Store, finalized_paths, writing::move_files};
use crate::claims::Claim;
use crate::files::{Paths, ReplicaFiles};
use crate::layout::{self, Folder};
use crate::map::{Compact, Slot};
use crate::throttle::Throttle;
use crate::volume::Promise;

/// About how many bytes are copied at once.
const STEP_BYTES: u64 = 1 << 20;

impl Store {
    /// Moves a finished replica to another volume, at the pace of `throttle`. Tells its bytes; `Stale` if it is not
    /// finished, is there already, or changed meanwhile.
    pub async fn move_replica(
        self: &Arc<Self>,
        block: BlockId,
        to: u8,
        throttle: &Throttle,
    ) -> Result<u64> {
        let stale = |what: &str| Error::new(Code::Stale, format!("{block} {what}"));
        let slot = self.map.get(block).ok_or_else(|| stale("is gone"))?;
        let Slot::Finalized(compact) = &slot else { return Err(stale("is not finished")) };
        let compact = *compact;
        if compact.volume() == to {
            return Err(stale("is there already"));
        }
        let length = u64::from(compact.length);
        let promise = self.disk(to).volume.promise(length)?;
        let mut files = self.copy(block, &slot, to, throttle, promise).await?;
        let claim = self.claims.claim(block).await;
        let (store, pool) = (self.clone(), self.disk(to).volume.pool().clone());
        let moved = pool.run(move || {
            let disk = store.disk(to);
            let moved = match store.is_same(block, &slot) {
                true => store.place(&claim, &mut files, compact, disk),
                false => Err(Error::new(Code::Stale, format!("{block} changed meanwhile"))),
            };
            if moved.is_err() {
                forget(files.paths());
                return moved.map(|()| claim);
            }
            Ok(claim)
        });
        let claim = moved.await?;
        let (store, pool) = (self.clone(), self.disk(compact.volume()).volume.pool().clone());
        pool.run(move || store.remove_old(&claim, compact)).await?;
        Ok(length)
    }

    /// Copies a replica's files into the folder for copies of another volume.
    async fn copy(
        self: &Arc<Self>,
        block: BlockId,
        slot: &Slot,
        to: u8,
        throttle: &Throttle,
        mut promise: Promise,
    ) -> Result<ReplicaFiles> {
        let from_pool = self.disk(slot.volume()).volume.pool().clone();
        let to_volume = self.disk(to).volume.clone();
        let stamp = super::slot_stamp(slot);
        let store = self.clone();
        let reader = from_pool.run(move || store.open_reader(block, stamp)).await?;
        let reader = Arc::new(reader);
        let (checksum, length) = (reader.checksum(), reader.length());
        let paths = Paths::new(&layout::moving_path(to_volume.root()), block, stamp);
        let made = to_volume.clone();
        let mut files = to_volume
            .pool()
            .run(move || {
                forget(&paths);
                ReplicaFiles::create(&made, paths, checksum)
            })
            .await?;
        let mut at = 0;
        while at < length {
            let count = STEP_BYTES.next_multiple_of(reader.chunk()).min(length - at);
            throttle.take(count).await;
            let from = reader.clone();
            let read = from_pool.run(move || verified(&from, at, count)).await;
            let (data, sums) = match read {
                Ok(read) => read,
                Err(error) => {
                    forget(files.paths());
                    if error.code == Code::Corrupt {
                        self.suspects.push(block);
                    }
                    return Err(error);
                }
            };
            let written;
            (files, written) = to_volume
                .pool()
                .run(move || {
                    let written = files.write(at, &data, Some(&sums));
                    Ok((files, written))
                })
                .await?;
            if let Err(error) = written {
                forget(files.paths());
                return Err(error);
            }
            promise.spend(count);
            at += count;
        }
        Ok(files)
    }

    /// Makes the copy durable under its final name, and the replica. Blocks; the block is claimed.
    fn place(
        &self,
        claim: &Claim,
        files: &mut ReplicaFiles,
        old: Compact,
        disk: &Disk,
    ) -> Result<()> {
        let block = claim.block();
        files.sync()?;
        let touch = disk.touch(block)?;
        let folder = match disk.volume.prepare_folder(Folder::of(block)) {
            Ok(folder) => folder,
            Err(error) => {
                disk.index.finish(touch);
                return Err(error);
            }
        };
        let to = Paths::new(&folder, block, old.stamp);
        move_files(disk, &files.paths().clone(), &to)?;
        files.moved(to);
        disk.volume.sync_folder(&folder)?;
        let slot = Slot::Finalized(Compact::new(old.stamp, old.length, disk.volume.number()));
        disk.volume.add_used(u64::from(old.length));
        self.changed_after(disk, block, touch, || self.put(block, slot));
        Ok(())
    }

    /// Removes the files of a replica of which there is another copy. Blocks; the block is claimed.
    pub(super) fn remove_old(&self, claim: &Claim, old: Compact) -> Result<()> {
        let disk = self.disk(old.volume());
        disk.volume.subtract_used(u64::from(old.length));
        self.remove_copy(disk, claim.block(), old)
    }

    /// Removes the files of a replica that the map does not name.
    pub(super) fn remove_copy(&self, disk: &Disk, block: BlockId, old: Compact) -> Result<()> {
        disk.volume.check()?;
        let touch = disk.touch(block)?;
        let paths = finalized_paths(&disk.volume, block, old.stamp);
        let removed =
            [&paths.data, &paths.meta].into_iter().try_for_each(|path| match std::fs::remove_file(
                path,
            ) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    let what = format!("remove {}", path.display());
                    Err(disk.volume.io_error(what, &error))
                }
                _ => Ok(()),
            });
        self.changed_after(disk, block, touch, || {});
        removed
    }
}

fn verified(reader: &ReplicaReader, at: u64, count: u64) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut data = vec![0; usize::try_from(count).expect("a step fits in memory")];
    let mut sums = Vec::new();
    reader.read(at, &mut data, &mut sums)?;
    let checked = reader.checksum().verify(&data, &sums);
    checked.map_err(|mismatch| mismatch.into_error(reader.block(), at))?;
    Ok((data, sums))
}

/// Removes what is left of a copy. What cannot be removed is removed by the next start.
fn forget(paths: &Paths) {
    let remove = |path: &Path| match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a copy was not removed");
        }
        _ => {}
    };
    remove(&paths.data);
    remove(&paths.meta);
}
