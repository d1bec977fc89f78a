//! One folder of replicas on one disk: identity, lock, space, and what happens when the disk fails.
//!
//! A volume whose sync failed, or whose files answer EIO, is taken out of service at once and for good: after a failed
//! sync the kernel marks pages clean, so that trying again would lie. Its error is kept for the heartbeat. Space is
//! what the file system has free, less the reserve, less what open writers were promised. Folder syncs are shared: all
//! who wait while one runs are served by the next one. Which replicas are here is the store's knowledge, not this
//! module's.

mod probe;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};

use proto::granary::VolumeStatus;
use proto::{Code, Error, Result};
use tokio::sync::Notify;

use crate::config::Config;
use crate::disk::DiskPool;
use crate::identity::{self, FORMAT_VERSION, Identity};
use crate::layout::{self, Folder};

/// What a volume takes from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct VolumeSettings {
    /// Bytes left free.
    pub reserved_bytes: u64,
    /// The reserve is at most this share, in percent.
    pub reserved_percent: u64,
    /// Threads for file IO.
    pub disk_threads: u64,
    /// Start writing back after so many bytes.
    pub writeback_bytes: u64,
}

impl From<&Config> for VolumeSettings {
    fn from(config: &Config) -> Self {
        Self {
            reserved_bytes: config.reserved_bytes,
            reserved_percent: config.reserved_percent,
            disk_threads: config.disk_threads,
            writeback_bytes: config.writeback_bytes,
        }
    }
}

/// A folder of replicas.
pub struct Volume {
    number: u8,
    root: PathBuf,
    settings: VolumeSettings,
    identity: Mutex<Identity>,
    _lock: File,
    pool: DiskPool,
    failed: OnceLock<String>,
    /// Told once when the volume fails.
    failure: Arc<Notify>,
    /// Reads of replicas that failed since the start.
    read_errors: AtomicU64,
    used_bytes: AtomicU64,
    promised_bytes: AtomicU64,
    syncs: Mutex<HashMap<PathBuf, Arc<GroupSync>>>,
    /// Sub-folders that are there, durably: made or looked at since the start.
    prepared: Mutex<BTreeSet<Folder>>,
}

impl Volume {
    /// Opens a volume, making its folders and identity if it is new. `failure` is told when it fails later.
    pub fn open(
        root: &Path,
        number: u8,
        settings: VolumeSettings,
        datanode_uuid: &str,
        failure: Arc<Notify>,
    ) -> Result<Self> {
        let made = |path: &Path| {
            std::fs::create_dir_all(path).map_err(|error| {
                Error::io(
                    format_args!("make the folder {} (datanode.volumes)", path.display()),
                    &error,
                )
            })
        };
        made(root)?;
        let lock = identity::lock(root)?;
        for path in [
            layout::finalized_path(root),
            layout::rbw_path(root),
            layout::tmp_path(root),
            layout::moving_path(root),
            index_path(root),
        ] {
            made(&path)?;
        }
        for path in [&root.join("current"), root] {
            sync_path(path)
                .map_err(|error| Error::io(format_args!("sync {}", path.display()), &error))?;
        }
        let identity = match Identity::load(root)? {
            Some(identity) if identity.datanode_uuid != datanode_uuid => {
                return Err(Error::new(
                    Code::Incompatible,
                    format!(
                        "{} belongs to DataNode {}, the other volumes to {datanode_uuid}",
                        root.display(),
                        identity.datanode_uuid
                    ),
                ));
            }
            Some(identity) => identity,
            None => {
                let identity = Identity {
                    format_version: FORMAT_VERSION,
                    datanode_uuid: datanode_uuid.to_owned(),
                    volume_uuid: uuid::Uuid::new_v4().to_string(),
                    cluster_id: String::new(),
                    pool_id: String::new(),
                };
                identity.store(root)?;
                identity
            }
        };
        Ok(Self {
            number,
            root: root.to_owned(),
            settings,
            identity: Mutex::new(identity),
            _lock: lock,
            pool: DiskPool::start(&format!("disk-{number}"), settings.disk_threads)?,
            failed: OnceLock::new(),
            failure,
            read_errors: AtomicU64::new(0),
            used_bytes: AtomicU64::new(0),
            promised_bytes: AtomicU64::new(0),
            syncs: Mutex::default(),
            prepared: Mutex::default(),
        })
    }

    /// Its place among the DataNode's volumes.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The threads that touch its files.
    pub fn pool(&self) -> &DiskPool {
        &self.pool
    }

    /// After how many written bytes a file's writeback is started.
    pub fn writeback_bytes(&self) -> u64 {
        self.settings.writeback_bytes
    }

    /// Who it is.
    pub fn identity(&self) -> Identity {
        self.identity.lock().expect("nobody panics while holding it").clone()
    }

    /// Makes it belong to a cluster, durably. A volume of another cluster is refused.
    pub fn join_cluster(&self, cluster_id: &str, pool_id: &str) -> Result<()> {
        let mut identity = self.identity.lock().expect("nobody panics while holding it");
        for (name, ours, theirs) in
            [("cluster", &identity.cluster_id, cluster_id), ("pool", &identity.pool_id, pool_id)]
        {
            if !ours.is_empty() && ours != theirs {
                return Err(Error::new(
                    Code::Incompatible,
                    format!(
                        "{} belongs to {name} {ours:?}, the NameNode's is {theirs:?}",
                        self.root.display()
                    ),
                ));
            }
        }
        let joined = Identity {
            cluster_id: cluster_id.to_owned(),
            pool_id: pool_id.to_owned(),
            ..identity.clone()
        };
        if joined != *identity {
            joined.store(&self.root)?;
            *identity = joined;
        }
        Ok(())
    }

    /// An error if it was taken out of service.
    pub fn check(&self) -> Result<()> {
        match self.failed.get() {
            None => Ok(()),
            Some(why) => Err(Error::new(
                Code::Io,
                format!("volume {} is out of service: {why}", self.root.display()),
            )),
        }
    }

    /// Whether it was taken out of service.
    pub fn is_failed(&self) -> bool {
        self.failed.get().is_some()
    }

    /// Takes it out of service.
    pub fn fail(&self, why: &str) {
        if self.failed.set(why.to_owned()).is_ok() {
            tracing::error!(volume = %self.root.display(), why, "volume taken out of service");
            self.failure.notify_one();
        }
    }

    /// The error of a read or write on this volume. EIO and a read-only file system take it out of service.
    pub fn io_error(&self, what: impl std::fmt::Display, error: &io::Error) -> Error {
        let told = Error::io(what, error);
        if matches!(error.raw_os_error(), Some(libc::EIO | libc::EROFS | libc::EUCLEAN)) {
            self.fail(&told.message);
        }
        told
    }

    /// The error of a sync on this volume: whatever it is, the volume is out of service.
    pub fn sync_error(&self, what: impl std::fmt::Display, error: &io::Error) -> Error {
        let told = Error::new(Code::Io, format!("{what}: {error}"));
        self.fail(&told.message);
        told
    }

    /// Bytes that replicas may still take: free space less the reserve and less what was promised.
    pub fn remaining_bytes(&self) -> u64 {
        self.space().map_or(0, |space| space.remaining)
    }

    /// As the heartbeat tells it.
    pub fn status(&self) -> VolumeStatus {
        let space = self.space().unwrap_or_default();
        VolumeStatus {
            id: self.identity().volume_uuid,
            capacity_bytes: space.capacity,
            used_bytes: self.used_bytes.load(Ordering::Relaxed),
            remaining_bytes: if self.is_failed() { 0 } else { space.remaining },
            failed: self.is_failed(),
            error: self.failed.get().cloned().unwrap_or_default(),
        }
    }

    /// Bytes that replicas leave free.
    pub fn reserve_bytes(&self) -> u64 {
        self.space().map_or(0, |space| space.reserve)
    }

    /// Bytes that writers were promised and have not written yet.
    pub fn promised_bytes(&self) -> u64 {
        self.promised_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of replicas.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Counts bytes of replicas that came.
    pub fn add_used(&self, bytes: u64) {
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes of replicas that went.
    pub fn subtract_used(&self, bytes: u64) {
        let before = self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "what goes was counted when it came");
    }

    /// Promises `bytes` to a writer. `NoSpace` if they are not there.
    pub fn promise(self: &Arc<Self>, bytes: u64) -> Result<Promise> {
        self.check()?;
        let remaining = self.space()?.remaining;
        if remaining < bytes || remaining == 0 {
            return Err(Error::new(
                Code::NoSpace,
                format!(
                    "volume {} has {remaining} bytes left beside its reserve, {bytes} are needed",
                    self.root.display()
                ),
            ));
        }
        self.promised_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(Promise { volume: self.clone(), bytes })
    }

    /// An error if writing on would eat into the reserve.
    pub fn check_reserve(&self) -> Result<()> {
        let space = self.space()?;
        if space.free <= space.reserve {
            return Err(Error::new(
                Code::NoSpace,
                format!(
                    "volume {} has {} bytes free, its reserve is {}",
                    self.root.display(),
                    space.free,
                    space.reserve
                ),
            ));
        }
        Ok(())
    }

    /// Makes a sub-folder if it is missing. When this returns, it is there on stable storage, whoever made it.
    ///
    /// One caller at a time: a second one that only saw the folder could finish a block in it before the first one
    /// had made the folder itself durable. For the same reason a folder that exists is synced once after a start.
    pub fn prepare_folder(&self, folder: Folder) -> Result<PathBuf> {
        let path = folder.path(&self.root);
        let mut prepared = self.prepared.lock().expect("nobody panics while holding it");
        if prepared.contains(&folder) {
            return Ok(path);
        }
        let parent = folder.parent_path(&self.root);
        for (path, holder) in
            [(&parent, layout::finalized_path(&self.root)), (&path, parent.clone())]
        {
            match std::fs::create_dir(path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(self.io_error(format_args!("make {}", path.display()), &error));
                }
            }
            self.sync_folder(&holder)?;
        }
        prepared.insert(folder);
        Ok(path)
    }

    /// Makes a folder's entries durable. Blocks; callers that wait together share one sync.
    pub fn sync_folder(&self, path: &Path) -> Result<()> {
        self.check()?;
        let group = {
            let mut syncs = self.syncs.lock().expect("nobody panics while holding it");
            match syncs.get(path) {
                Some(group) => group.clone(),
                None => syncs.entry(path.to_owned()).or_default().clone(),
            }
        };
        let result = group.sync(|| sync_path(path));
        result.map_err(|error| self.sync_error(format_args!("sync {}", path.display()), &error))
    }

    fn space(&self) -> Result<Space> {
        let found = rustix::fs::statvfs(&self.root).map_err(|errno| {
            self.io_error(format_args!("statvfs {}", self.root.display()), &errno.into())
        })?;
        let total = found.f_blocks.saturating_mul(found.f_frsize);
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        let share = total / 100 * self.settings.reserved_percent;
        let reserve = self.settings.reserved_bytes.min(share);
        let promised = self.promised_bytes.load(Ordering::Relaxed);
        Ok(Space {
            capacity: total.saturating_sub(reserve),
            free,
            reserve,
            remaining: free.saturating_sub(reserve).saturating_sub(promised),
        })
    }
}

/// Where the replica index of a volume is.
pub fn index_path(root: &Path) -> PathBuf {
    root.join("index")
}

#[derive(Clone, Copy, Debug, Default)]
struct Space {
    capacity: u64,
    free: u64,
    reserve: u64,
    remaining: u64,
}

/// Space that was promised to a writer; given back when dropped.
pub struct Promise {
    volume: Arc<Volume>,
    bytes: u64,
}

impl Promise {
    /// The writer took `bytes` of it: they show in the free space now.
    pub fn spend(&mut self, bytes: u64) {
        let spent = bytes.min(self.bytes);
        self.bytes -= spent;
        self.volume.promised_bytes.fetch_sub(spent, Ordering::Relaxed);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.volume.promised_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn sync_path(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Shares one sync among all who ask while the one before is running.
#[derive(Default)]
struct GroupSync {
    state: Mutex<SyncState>,
    done: Condvar,
}

#[derive(Default)]
struct SyncState {
    started: u64,
    finished: u64,
    running: bool,
    /// The errno of the first failure: every later caller gets it too.
    failed: Option<i32>,
}

impl GroupSync {
    /// Returns after a sync that began after this call did.
    fn sync(&self, sync: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state.lock().expect("no sync runs under the lock");
        let wanted = state.started + 1;
        loop {
            if let Some(errno) = state.failed {
                return Err(io::Error::from_raw_os_error(errno));
            }
            if state.finished >= wanted {
                return Ok(());
            }
            if state.running {
                state = self.done.wait(state).expect("no sync runs under the lock");
                continue;
            }
            state.running = true;
            state.started += 1;
            let mine = state.started;
            drop(state);
            let result = sync();
            state = self.state.lock().expect("no sync runs under the lock");
            state.running = false;
            state.finished = mine;
            if let Err(error) = result {
                state.failed = Some(error.raw_os_error().unwrap_or(libc::EIO));
            }
            self.done.notify_all();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A volume in a temporary folder, without a reserve.
    pub(crate) fn volume(root: &Path) -> Arc<Volume> {
        let settings = VolumeSettings {
            reserved_bytes: 0,
            reserved_percent: 0,
            disk_threads: 2,
            writeback_bytes: 1 << 20,
        };
        Arc::new(Volume::open(root, 0, settings, "dn", Arc::default()).unwrap())
    }

    #[test]
    fn a_volume_of_another_datanode_or_cluster_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = volume(folder.path());
        first.join_cluster("c", "p").unwrap();
        first.join_cluster("c", "p").unwrap();
        assert_eq!(first.join_cluster("other", "p").unwrap_err().code, Code::Incompatible);
        let settings = first.settings;
        drop(first);
        let other = Volume::open(folder.path(), 0, settings, "stranger", Arc::default());
        assert_eq!(other.err().unwrap().code, Code::Incompatible);
    }

    #[test]
    fn a_failed_sync_takes_the_volume_out_of_service_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let volume = volume(folder.path());
        assert!(volume.sync_folder(&folder.path().join("missing")).is_err());
        assert!(volume.is_failed());
        assert!(volume.sync_folder(folder.path()).is_err(), "no second try");
        let status = volume.status();
        assert!(status.failed && status.error.contains("missing"));
        assert_eq!(status.remaining_bytes, 0);
    }

    #[test]
    fn promised_space_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let volume = volume(folder.path());
        let before = volume.promised_bytes.load(Ordering::Relaxed);
        let mut promise = volume.promise(1000).unwrap();
        promise.spend(600);
        assert_eq!(volume.promised_bytes.load(Ordering::Relaxed), before + 400);
        drop(promise);
        assert_eq!(volume.promised_bytes.load(Ordering::Relaxed), before);
        assert_eq!(volume.promise(u64::MAX).err().unwrap().code, Code::NoSpace);
    }

    #[test]
    fn callers_that_wait_together_share_a_sync() {
        let group = GroupSync::default();
        let count = AtomicU64::new(0);
        let gate = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                group.sync(|| {
                    if count.fetch_add(1, Ordering::SeqCst) == 0 {
                        gate.wait();
                        gate.wait();
                    }
                    Ok(())
                })
            });
            gate.wait(); // the first sync runs
            let waiters: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        group.sync(|| {
                            count.fetch_add(1, Ordering::SeqCst);
                            Ok(())
                        })
                    })
                })
                .collect();
            gate.wait(); // and ends
            for waiter in waiters {
                waiter.join().unwrap().unwrap();
            }
        });
        let syncs = count.load(Ordering::SeqCst);
        assert!((2..=9).contains(&syncs), "{syncs}");
    }
}
