//! The replicas of this DataNode: which there are, on which volume, and every operation on one of them.
//!
//! The map in memory says what there is; the folders say it durably; the index makes reading them cheap. Each operation
//! claims its block, changes files on the volume's threads, then the map, then tells [`Changes`]. What always holds:
//! a finished replica is in the map only after its files are synced under their final names; an operation that was
//! refused or failed leaves the replica as it was, or, if its files may be half changed, as what a restart would find.
//!
//! | part | owns |
//! |---|---|
//! | [`disks`](self::disks) | the volumes, and which one a new replica goes to |
//! | [`load`](self::load) | start: what index and folders say |
//! | [`writing`](self::writing) | sessions: create, append, take over, finish |
//! | [`reading`](self::reading) | open files and the length that a reader may see |
//! | [`recovering`](self::recovering) | the two steps of a block recovery |
//! | [`moving`](self::moving) | from one volume to another |
//! | [`scrubbing`](self::scrubbing) | replicas in order, and those under suspicion |

mod disks;
mod load;
mod moving;
mod reading;
mod recovering;
mod scrubbing;
mod writing;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::granary::{Block, ReplicaState, VolumeStatus};
use proto::{BlockId, Code, Error, GenerationStamp, Result};
use tokio::sync::Notify;

use crate::changes::Changes;
use crate::claims::Claims;
use crate::config::Config;
use crate::files::Paths;
use crate::identity::Identity;
use crate::index::Entry;
use crate::layout::Folder;
use crate::map::{Compact, ReplicaMap, Slot};
use crate::open_replica::Place;
use crate::replica::State;
use crate::volume::Volume;

use disks::{Disk, Disks};
pub use load::LoadSummary;
pub use reading::ReplicaReader;
pub use scrubbing::{PARTS, Suspects};
pub use writing::{Change, Purpose, WriteSession};

/// Blocks whose index entry may be old, before a flush is asked for.
const CHANGED_MAX: usize = 100_000;

/// All replicas of a DataNode.
pub struct Store {
    disks: Disks,
    map: ReplicaMap,
    claims: Claims,
    changes: Changes,
    takeover_wait: Duration,
    write_queue_bytes: u64,
    flush_wanted: Notify,
    suspects: Suspects,
}

/// A volume as an operator looks at it.
#[derive(Clone, Debug)]
pub struct VolumeFacts {
    /// Its folder.
    pub path: String,
    /// As the heartbeat tells it.
    pub status: VolumeStatus,
    /// Bytes that replicas leave free.
    pub reserved_bytes: u64,
    /// Bytes that writers were promised and have not written yet.
    pub promised_bytes: u64,
    /// Replicas on it.
    pub replicas: u64,
}

impl Store {
    /// Opens all volumes and finds their replicas. Blocks. A volume that is in use or foreign is an error; one whose disk
    /// does not answer is left out, if others are left and the configuration allows as many failures.
    pub fn open(config: &Config) -> Result<(Arc<Self>, LoadSummary)> {
        let disks = Disks::new(config, datanode_uuid(config)?);
        let mut finds = Vec::new();
        for root in &config.volumes {
            match disks.open(root) {
                Ok((_, found)) => finds.push(found),
                Err(error) if is_broken(&error) => disks.give_up(root, error),
                Err(error) => return Err(error),
            }
        }
        let failed = disks.failed_count();
        if disks.count() == 0 || failed as u64 > config.failed_volumes_max {
            return Err(too_many_failed(&disks, config.failed_volumes_max));
        }
        let store = Self {
            disks,
            map: ReplicaMap::default(),
            claims: Claims::default(),
            changes: Changes::default(),
            takeover_wait: Duration::from_millis(config.takeover_timeout_ms),
            write_queue_bytes: config.write_queue_bytes,
            flush_wanted: Notify::new(),
            suspects: Suspects::default(),
        };
        let mut summary = LoadSummary::default();
        for (disk, found) in store.disks.iter().zip(finds) {
            store.take_in(disk, found, &mut summary);
        }
        Ok((Arc::new(store), summary))
    }

    /// Takes up those folders that are not volumes yet, and tells how many replicas came with them. Blocks. The folders
    /// behind the first that cannot be opened are not looked at.
    pub fn add_volumes(&self, roots: &[PathBuf]) -> Result<(usize, LoadSummary)> {
        let identity = self.identity();
        let mut summary = LoadSummary::default();
        let mut added = 0;
        for root in roots {
            let is_used = |disk: &Disk| disk.volume.root() == root && !disk.volume.is_failed();
            if self.disks.iter().any(is_used) {
                continue;
            }
            let (disk, found) = self.disks.open(root)?;
            if !identity.cluster_id.is_empty() {
                let joined = disk.volume.join_cluster(&identity.cluster_id, &identity.pool_id);
                joined.inspect_err(|error| disk.volume.fail(&error.message))?;
            }
            self.take_in(disk, found, &mut summary);
            tracing::info!(volume = %root.display(), "a volume was added");
            added += 1;
        }
        if added > 0 {
            self.changes.owe_report();
        }
        Ok((added, summary))
    }

    /// How many volumes are out of service.
    pub fn failed_volumes(&self) -> usize {
        self.disks.failed_count()
    }

    /// Who this DataNode is: the identity of its first volume.
    pub fn identity(&self) -> Identity {
        self.disk(0).volume.identity()
    }

    /// Makes all volumes belong to a cluster, or refuses.
    pub fn join_cluster(&self, cluster_id: &str, pool_id: &str) -> Result<()> {
        self.disks.iter().try_for_each(|disk| disk.volume.join_cluster(cluster_id, pool_id))
    }

    /// Refuses a request for another block pool. Before the NameNode told ours, any is accepted.
    pub fn check_pool(&self, pool_id: &str) -> Result<()> {
        let ours = self.identity().pool_id;
        if ours.is_empty() || pool_id.is_empty() || ours == pool_id {
            return Ok(());
        }
        Err(Error::new(
            Code::Incompatible,
            format!("a request for block pool {pool_id:?}, this DataNode serves {ours:?}"),
        ))
    }

    /// What waits to be told to the NameNode.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// All volumes, in the order of their numbers; later ones come behind.
    pub fn volumes(&self) -> Vec<Arc<Volume>> {
        self.disks.iter().map(|disk| disk.volume.clone()).collect()
    }

    /// All volumes as the heartbeat tells them.
    pub fn volume_statuses(&self) -> Vec<VolumeStatus> {
        self.disks.statuses()
    }

    /// All volumes as an operator looks at them. Counts replicas: not cheap.
    pub fn volume_facts(&self) -> Vec<VolumeFacts> {
        let mut replicas = vec![0; self.disks.count()];
        self.map.for_each(|slot| replicas[usize::from(slot.volume())] += 1);
        let facts = |(disk, replicas): (&Disk, u64)| VolumeFacts {
            path: disk.volume.root().display().to_string(),
            status: disk.volume.status(),
            reserved_bytes: disk.volume.reserve_bytes(),
            promised_bytes: disk.volume.promised_bytes(),
            replicas,
        };
        self.disks.iter().zip(replicas).map(facts).collect()
    }

    /// Ends every pipeline through this DataNode: their writers go on without it. Tells how many there were.
    pub fn evict_writers(&self) -> usize {
        let mut evicted = 0;
        self.map.for_each(|slot| {
            if let Slot::Open(open) = slot {
                evicted += usize::from(open.evict_writer());
            }
        });
        evicted
    }

    /// How many replicas there are.
    pub fn replica_count(&self) -> usize {
        self.map.count()
    }

    /// Sub-folders that a restart would scan, over all volumes.
    pub fn dirty_folders(&self) -> usize {
        self.disks.iter().map(|disk| disk.index.dirty_count()).sum()
    }

    /// The ids of all replicas, in ascending order.
    pub fn sorted_ids(&self) -> Vec<BlockId> {
        self.map.sorted_ids()
    }

    /// What the NameNode should know of a replica; `None` if there is none, or only a temporary one.
    pub fn reported(&self, block: BlockId) -> Option<(Block, ReplicaState)> {
        self.map.get(block).and_then(|slot| reported(block, &slot))
    }

    /// Waits until a volume fails, then forgets its replicas and owes a full report. Returns when more have failed than
    /// may, or all.
    pub async fn watch_volumes(&self, failed_max: u64) -> Error {
        loop {
            self.disks.failure.notified().await;
            let failed = |slot: &Slot| self.disk(slot.volume()).volume.is_failed();
            let lost = self.map.remove_where(failed);
            tracing::error!(replicas = lost.len(), "replicas of failed volumes are gone");
            self.changes.owe_report();
            let all_failed = self.disks.iter().all(|disk| disk.volume.is_failed());
            if all_failed || self.failed_volumes() as u64 > failed_max {
                return too_many_failed(&self.disks, failed_max);
            }
        }
    }

    /// Waits until an index has fallen far behind.
    pub async fn index_flush_wanted(&self) {
        self.flush_wanted.notified().await;
    }

    /// Brings the indexes of all volumes up to date, each on its own threads. The first error is returned; a volume
    /// whose sync failed is out of service.
    pub async fn flush_indexes(self: &Arc<Self>) -> Result<()> {
        let mut first = Ok(());
        for volume in self.volumes().into_iter().filter(|volume| !volume.is_failed()) {
            let (store, number) = (self.clone(), volume.number());
            let result = volume.pool().run(move || store.flush_index(number)).await;
            if first.is_ok() {
                first = result;
            }
        }
        first
    }

    /// Ends the disk threads once their queues are empty.
    pub fn stop(&self) {
        for disk in self.disks.iter() {
            disk.volume.pool().stop();
        }
    }

    /// Deletes a replica if it is of generation `stamp` or older. Its writer is stopped.
    pub async fn delete(self: &Arc<Self>, block: BlockId, stamp: GenerationStamp) -> Result<()> {
        let claim = self.claims.claim(block).await;
        let Some(slot) = self.map.get(block) else { return Ok(()) };
        let found = slot_stamp(&slot);
        if found > stamp {
            return Err(Error::new(
                Code::Stale,
                format!("{block} has {found}, the command to delete is for {stamp} or older"),
            ));
        }
        if let Slot::Open(open) = &slot {
            open.stop_writer(self.takeover_wait).await?;
        }
        let store = self.clone();
        let pool = self.disk(slot.volume()).volume.pool().clone();
        pool.run(move || {
            let _claim = claim;
            store.delete_now(block, &slot)
        })
        .await
    }

    /// Tells the NameNode that a replica is damaged, if it still is the one that was looked at. One on which an operation
    /// is under way may only look so, between two renames: that one is put under suspicion.
    pub fn report_corrupt(&self, block: BlockId, looked_at: &Slot, why: &Error) {
        if self.claims.is_held(block) {
            self.suspects.push(block);
        } else {
            self.report_damage(block, looked_at, why);
        }
    }

    fn report_damage(&self, block: BlockId, looked_at: &Slot, why: &Error) {
        let Some(slot) = self.map.get(block).filter(|slot| slot.is_same(looked_at)) else { return };
        tracing::warn!(%block, %why, "corrupt replica");
        if let Some((told, _)) = reported(block, &slot) {
            self.tell(told, ReplicaState::Corrupt, slot.volume());
        }
    }

    fn delete_now(&self, block: BlockId, slot: &Slot) -> Result<()> {
        let disk = self.disk(slot.volume());
        let (paths, length) = match slot {
            Slot::Finalized(compact) => {
                (finalized_paths(&disk.volume, block, compact.stamp), u64::from(compact.length))
            }
            Slot::Open(open) => (open.paths(), open.replica().written()),
        };
        disk.volume.check()?;
        let touch = disk.touch(block)?;
        for path in [&paths.data, &paths.meta, &paths.synced] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    disk.index.finish(touch);
                    let what = format!("remove {}", path.display());
                    return Err(disk.volume.io_error(what, &error));
                }
                _ => {}
            }
        }
        let told = Block { id: block.0, generation_stamp: slot_stamp(slot).0, length };
        self.map.change(block, |map| {
            map.remove(&block);
            self.tell(told, ReplicaState::Deleted, slot.volume());
        });
        disk.volume.subtract_used(length);
        self.changed(disk, block);
        disk.index.finish(touch);
        Ok(())
    }

    /// Puts a slot into the map and tells the NameNode.
    fn put(&self, block: BlockId, slot: Slot) {
        self.map.change(block, |map| {
            if let Some((told, state)) = reported(block, &slot) {
                self.tell(told, state, slot.volume());
            }
            map.insert(block, slot);
        });
    }

    fn tell(&self, block: Block, state: ReplicaState, volume: u8) {
        self.changes.push(block, state, &self.disk(volume).volume.identity().volume_uuid);
    }

    fn changed(&self, disk: &Disk, block: BlockId) {
        let mut changed = disk.changed.lock().expect("nobody panics while holding it");
        changed.insert(block);
        if changed.len() == CHANGED_MAX {
            self.flush_wanted.notify_one();
        }
    }

    fn flush_index(&self, number: u8) -> Result<()> {
        let disk = self.disk(number);
        disk.volume.check()?;
        let take = || {
            let mut changed = disk.changed.lock().expect("nobody panics while holding it");
            let blocks = std::mem::take(&mut *changed);
            drop(changed);
            blocks.into_iter().map(|block| (block, self.index_entry(disk, block))).collect()
        };
        let sync = |folder: Folder| {
            let path = folder.path(disk.volume.root());
            if path.exists() { disk.volume.sync_folder(&path) } else { Ok(()) }
        };
        disk.index.flush(take, sync)
    }

    fn index_entry(&self, disk: &Disk, block: BlockId) -> Option<Entry> {
        match self.map.get(block)? {
            Slot::Finalized(compact) if compact.volume() == disk.volume.number() => {
                Some(Entry { stamp: compact.stamp, length: compact.length })
            }
            Slot::Open(open) => {
                // A recovery that has only begun has changed no file.
                let inner = open.lock();
                let replica = &inner.replica;
                let length = u32::try_from(replica.written()).ok();
                let there = inner.place == Place::Finalized;
                length.filter(|_| there).map(|length| Entry { stamp: replica.stamp(), length })
            }
            Slot::Finalized(_) => None,
        }
    }

    fn disk(&self, number: u8) -> &Disk {
        self.disks.get(number)
    }
}

/// Whether a volume that was not opened has a broken disk, and not a wrong folder.
fn is_broken(error: &Error) -> bool {
    error.code == Code::Io
}

fn too_many_failed(disks: &Disks, failed_max: u64) -> Error {
    let failed: Vec<String> = disks
        .statuses()
        .into_iter()
        .filter(|status| status.failed)
        .map(|status| format!("{}: {}", status.id, status.error))
        .collect();
    Error::new(
        Code::Io,
        format!(
            "{} volumes are out of service, datanode.failed_volumes_max is {failed_max} and one must be left: {}",
            failed.len(),
            failed.join("; ")
        ),
    )
}

/// Where a finished replica's files are.
fn finalized_paths(volume: &Volume, block: BlockId, stamp: GenerationStamp) -> Paths {
    Paths::new(&Folder::of(block).path(volume.root()), block, stamp)
}

fn slot_stamp(slot: &Slot) -> GenerationStamp {
    match slot {
        Slot::Finalized(compact) => compact.stamp,
        Slot::Open(open) => open.lock().replica.stamp(),
    }
}

fn reported(block: BlockId, slot: &Slot) -> Option<(Block, ReplicaState)> {
    let (stamp, length, state) = match slot {
        Slot::Finalized(Compact { stamp, length, .. }) => {
            (*stamp, u64::from(*length), ReplicaState::Finalized)
        }
        Slot::Open(open) => {
            let inner = open.lock();
            let state = reported_state(inner.replica.reported_state())?;
            (inner.replica.stamp(), inner.replica.written(), state)
        }
    };
    Some((Block { id: block.0, generation_stamp: stamp.0, length }, state))
}

/// As messages name a state; `None` if the NameNode is not told of it.
pub fn reported_state(state: State) -> Option<ReplicaState> {
    match state {
        State::Finalized => Some(ReplicaState::Finalized),
        State::BeingWritten => Some(ReplicaState::BeingWritten),
        State::WaitingRecovery => Some(ReplicaState::WaitingRecovery),
        State::Temporary | State::UnderRecovery => None,
    }
}

/// The uuid that the volumes carry, or a new one.
fn datanode_uuid(config: &Config) -> Result<String> {
    for root in &config.volumes {
        let loaded = Identity::load(Path::new(root));
        if let Some(identity) = loaded.map_err(|error| error.context("datanode.volumes"))? {
            return Ok(identity.datanode_uuid);
        }
    }
    Ok(uuid::Uuid::new_v4().to_string())
}

#[cfg(test)]
mod tests;
