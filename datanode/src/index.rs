//! The index of finished replicas: what makes a restart cheap.
//!
//! The folders are the truth; the index is a copy of what they hold (block -> stamp, length) in sled, brought up to
//! date now and then. Before anything in a sub-folder changes, that sub-folder is recorded, durably, in the *dirty log*;
//! when the index was brought up to date, the log starts anew with the sub-folders that changed meanwhile. So a start
//! after any stop reads the index and scans only the sub-folders in the log: blocks written together share a
//! sub-folder, and few are dirty. If sled does not open, an entry fails its checksum, the digest over all entries does
//! not fit, or the log is missing or damaged, every sub-folder is scanned and the index is built again.
//!
//! sled's flush alone does not survive a power cut: [`SafeDb`] adds the syncs that do. What always holds: a sub-folder
//! that is not in the log has, in the index, exactly its replicas as they are on stable storage.
//!
//! ```text
//! index/sled/    u64 block -> u64 stamp, u32 length, u32 CRC32 over block, stamp, length (BE)
//!                "digest" -> u64 sum of hashes, u64 count of all entries (BE), in one batch with them
//! index/dirty    "GRDIRTY1", then u32 sub-folder, u32 CRC32 over it (BE), each; then zeros up to the size of a full log
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use proto::{BlockId, Code, Error, GenerationStamp, Result};

use crate::files::read_up_to;
use crate::identity::persist;
use crate::layout::{FOLDERS, Folder};

const DIRTY_NAME: &str = "dirty";
const DIRTY_MAGIC: &[u8; 8] = b"GRDIRTY1";
const DIRTY_RECORD_BYTES: usize = 8;
/// Bytes of the log, always: it has room for each sub-folder once, so that a full disk does not stop a deletion.
const DIRTY_BYTES: usize = DIRTY_MAGIC.len() + FOLDERS * DIRTY_RECORD_BYTES;
/// Entries that go into sled at once.
const BATCH_ENTRIES: usize = 4_096;
const VALUE_BYTES: usize = 16;
/// In the one tree, no block's key: blocks have 8 bytes.
const DIGEST_KEY: &[u8] = b"digest";

/// A finished replica, as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its generation.
    pub stamp: GenerationStamp,
    /// Its bytes.
    pub length: u32,
}

/// What must be scanned before the index can be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rescan {
    /// These sub-folders.
    Folders(BTreeSet<Folder>),
    /// Everything; says why.
    All(String),
}

/// The index of one volume.
pub struct Index {
    root: PathBuf,
    db: SafeDb,
    dirty: Mutex<DirtyLog>,
    /// One flush at a time.
    flushing: Mutex<()>,
}

/// An index, just opened.
pub struct Opened {
    /// The index.
    pub index: Index,
    /// Replicas of sub-folders that need no scan.
    pub entries: Vec<(BlockId, Entry)>,
    /// Blocks of sub-folders that do: their entries must be looked at in the next flush.
    pub unsure: Vec<BlockId>,
    /// What must be scanned.
    pub rescan: Rescan,
}

struct DirtyLog {
    file: File,
    /// Where the next record goes.
    end: u64,
    /// Sub-folders that the log on disk names.
    durable: Folders,
    /// Sub-folders that were touched since the running flush began.
    since_flush: Option<Folders>,
    /// Changes that have been announced and are not finished.
    active: BTreeMap<Folder, u32>,
}

type Folders = BTreeSet<Folder>;

/// A change in some sub-folders is under way. Finish it with [`Index::finish`].
#[must_use = "an announced change is finished"]
#[derive(Debug)]
pub struct Touch(Vec<Folder>);

impl Index {
    /// Opens the index in `root`.
    pub fn open(root: &Path, cache_bytes: u64) -> Result<Opened> {
        let opened = SafeDb::open(root, cache_bytes).and_then(|db| {
            let entries = db.load()?;
            Ok((db, entries))
        });
        let (db, mut entries, damage) = match opened {
            Ok((db, Some(entries))) => (db, entries, None),
            Ok((db, None)) => (db, Vec::new(), Some("the index is new".to_owned())),
            Err(error) => {
                SafeDb::remove(root)?;
                (SafeDb::open(root, cache_bytes)?, Vec::new(), Some(error.message))
            }
        };
        let (logged, damage) = match (read_dirty(root), damage) {
            (_, Some(why)) => (None, Some(why)),
            (Err(why), None) => (None, Some(why)),
            (Ok(folders), None) => (Some(folders), None),
        };
        let durable = match &logged {
            Some(folders) => folders.clone(),
            None => Folder::all().collect(),
        };
        let mut unsure = Vec::new();
        let rescan = match (logged, damage) {
            (Some(folders), None) => {
                entries.retain(|(block, _)| {
                    let sure = !folders.contains(&Folder::of(*block));
                    if !sure {
                        unsure.push(*block);
                    }
                    sure
                });
                Rescan::Folders(folders)
            }
            (_, why) => {
                entries.clear();
                db.clear()?;
                Rescan::All(why.unwrap_or_default())
            }
        };
        let (file, end) = write_dirty(root, &durable)?;
        let dirty = DirtyLog { file, end, durable, since_flush: None, active: BTreeMap::new() };
        let index = Self {
            root: root.to_owned(),
            db,
            dirty: Mutex::new(dirty),
            flushing: Mutex::default(),
        };
        Ok(Opened { index, entries, unsure, rescan })
    }

    /// Announces changes in these sub-folders: after this returns, a crash leads to a scan of them. Blocks; one sync
    /// at most, and none for sub-folders that are dirty already.
    pub fn touch(&self, folders: impl IntoIterator<Item = Folder>) -> Result<Touch> {
        let folders: Vec<Folder> = folders.into_iter().collect();
        let mut log = self.lock();
        let fresh: Folders =
            folders.iter().copied().filter(|folder| !log.durable.contains(folder)).collect();
        if !fresh.is_empty() {
            let records: Vec<u8> = fresh.iter().flat_map(|folder| dirty_record(*folder)).collect();
            let write = || -> std::io::Result<()> {
                log.file.write_all_at(&records, log.end)?;
                log.file.sync_data()
            };
            write().map_err(|error| {
                let path = self.root.join(DIRTY_NAME);
                Error::new(Code::Io, format!("write {}: {error}", path.display()))
            })?;
            log.durable.extend(fresh);
            log.end += records.len() as u64;
        }
        if let Some(since) = &mut log.since_flush {
            since.extend(folders.iter().copied());
        }
        for folder in &folders {
            *log.active.entry(*folder).or_default() += 1;
        }
        Ok(Touch(folders))
    }

    /// The announced change is done, and the store knows its outcome.
    pub fn finish(&self, touch: Touch) {
        let mut log = self.lock();
        for folder in touch.0 {
            let count = log.active.get_mut(&folder).expect("it was announced");
            *count -= 1;
            if *count == 0 {
                log.active.remove(&folder);
            }
        }
    }

    /// Sub-folders that a restart would scan.
    pub fn dirty_count(&self) -> usize {
        self.lock().durable.len()
    }

    /// Brings the index up to date. Blocks.
    ///
    /// `take_changes` gives every block whose entry may have changed since the last call, with what is true now
    /// (`None`: no such replica); it is called once, after the flush has begun. `sync` makes a sub-folder durable.
    pub fn flush(
        &self,
        take_changes: impl FnOnce() -> Vec<(BlockId, Option<Entry>)>,
        sync: impl Fn(Folder) -> Result<()>,
    ) -> Result<()> {
        let _one = self.flushing.lock().expect("a flush does not panic");
        let old = {
            let mut log = self.lock();
            // Changes under way may end after their outcome was asked for: they stay dirty.
            log.since_flush = Some(log.active.keys().copied().collect());
            log.durable.clone()
        };
        let changes = take_changes();
        let result = self.flush_changes(&old, &changes, sync);
        let mut log = self.lock();
        let since = log.since_flush.take().expect("set above, by the only flush");
        result?;
        (log.file, log.end) = write_dirty(&self.root, &since)?;
        log.durable = since;
        Ok(())
    }

    fn flush_changes(
        &self,
        old: &Folders,
        changes: &[(BlockId, Option<Entry>)],
        sync: impl Fn(Folder) -> Result<()>,
    ) -> Result<()> {
        for batch in changes.chunks(BATCH_ENTRIES) {
            self.db.apply(batch)?;
        }
        for folder in old {
            sync(*folder)?;
        }
        self.db.flush()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, DirtyLog> {
        self.dirty.lock().expect("nobody panics while holding the dirty log")
    }
}

/// sled with the syncs that make its flush survive a power cut.
struct SafeDb {
    db: sled::Db,
    file: File,
}

impl SafeDb {
    fn folder(root: &Path) -> PathBuf {
        root.join("sled")
    }

    fn open(root: &Path, cache_bytes: u64) -> Result<Self> {
        let folder = Self::folder(root);
        let config = sled::Config::new()
            .path(&folder)
            .cache_capacity(cache_bytes)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput);
        let db = open_unlocked(&folder, &config)?;
        let sync = || -> std::io::Result<File> {
            File::open(folder.join("conf"))?.sync_all()?;
            File::open(&folder)?.sync_all()?;
            File::open(root)?.sync_all()?;
            File::options().write(true).open(folder.join("db"))
        };
        let file =
            sync().map_err(|error| Error::io(format_args!("sync {}", folder.display()), &error))?;
        Ok(Self { db, file })
    }

    fn remove(root: &Path) -> Result<()> {
        let folder = Self::folder(root);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format_args!("remove {}", folder.display()), &error))
            }
            _ => Ok(()),
        }
    }

    /// All entries, verified; `None` if it never was filled.
    fn load(&self) -> Result<Option<Vec<(BlockId, Entry)>>> {
        let read = || -> Result<Option<Vec<(BlockId, Entry)>>> {
            let mut entries = Vec::new();
            let mut digest = Digest::default();
            let mut stored = None;
            for item in self.db.iter() {
                let (key, value) = item.map_err(|error| damaged(Path::new("index"), &error))?;
                if &key[..] == DIGEST_KEY {
                    stored = Digest::decode(&value);
                    continue;
                }
                let (block, entry) = decode_entry(&key, &value)?;
                digest.add(block, entry);
                entries.push((block, entry));
            }
            match stored {
                None if entries.is_empty() => Ok(None),
                Some(stored) if stored == digest => Ok(Some(entries)),
                _ => Err(Error::new(
                    Code::Corrupt,
                    format!("index: {} entries do not fit their digest", entries.len()),
                )),
            }
        };
        catch_unwind(AssertUnwindSafe(read))
            .unwrap_or_else(|_| Err(Error::new(Code::Corrupt, "index: sled panicked")))
    }

    fn clear(&self) -> Result<()> {
        self.db.clear().map_err(|error| damaged(Path::new("index"), &error))
    }

    /// Puts and removes entries and their digest in one batch.
    fn apply(&self, changes: &[(BlockId, Option<Entry>)]) -> Result<()> {
        let told = |error: &sled::Error| damaged(Path::new("index"), error);
        let stored = self.db.get(DIGEST_KEY).map_err(|error| told(&error))?;
        let mut digest = stored.as_deref().and_then(Digest::decode).unwrap_or_default();
        let mut batch = sled::Batch::default();
        let last: BTreeMap<BlockId, Option<Entry>> = changes.iter().copied().collect();
        for (block, entry) in last {
            let key = block.0.to_be_bytes();
            if let Some(old) = self.db.get(key).map_err(|error| told(&error))? {
                digest.remove(block, decode_entry(&key, &old)?.1);
            }
            match entry {
                Some(entry) => {
                    digest.add(block, entry);
                    batch.insert(&key, &encode_entry(block, entry));
                }
                None => batch.remove(&key),
            }
        }
        batch.insert(DIGEST_KEY, &digest.encode());
        self.db.apply_batch(batch).map_err(|error| told(&error))
    }

    fn flush(&self) -> Result<()> {
        self.db.flush().map_err(|error| damaged(Path::new("index"), &error))?;
        self.file.sync_data().map_err(|error| Error::new(Code::Io, format!("sync index: {error}")))
    }
}

/// How long, and how often, an open waits for sled's lock: 10 seconds in all.
const LOCK_WAIT: std::time::Duration = std::time::Duration::from_millis(5);
const LOCK_WAITS_MAX: u32 = 2_000;

/// Opens sled once its lock is free: sled's own threads keep it for a moment after the last handle is gone. Nobody else
/// opens it, as the volume is locked.
#[allow(clippy::disallowed_methods, reason = "opening is a shell: it waits for other threads")]
fn open_unlocked(folder: &Path, config: &sled::Config) -> Result<sled::Db> {
    let mut waits = 0;
    loop {
        // sled may panic on a damaged folder.
        let opened = catch_unwind(AssertUnwindSafe(|| config.open())).map_err(|_| {
            Error::new(Code::Corrupt, format!("{}: sled panicked", folder.display()))
        })?;
        match opened {
            Err(error)
                if waits < LOCK_WAITS_MAX
                    && error.to_string().contains("could not acquire lock") =>
            {
                waits += 1;
                std::thread::sleep(LOCK_WAIT);
            }
            opened => return opened.map_err(|error| damaged(folder, &error)),
        }
    }
}

fn damaged(folder: &Path, error: &sled::Error) -> Error {
    Error::new(Code::Corrupt, format!("{}: {error}", folder.display()))
}

fn encode_entry(block: BlockId, entry: Entry) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    value[..8].copy_from_slice(&entry.stamp.0.to_be_bytes());
    value[8..12].copy_from_slice(&entry.length.to_be_bytes());
    let sum = entry_sum(block, &value[..12]);
    value[12..].copy_from_slice(&sum.to_be_bytes());
    value
}

fn decode_entry(key: &[u8], value: &[u8]) -> Result<(BlockId, Entry)> {
    let bad = || Error::new(Code::Corrupt, format!("index: bad entry {key:02x?} -> {value:02x?}"));
    let block = BlockId(u64::from_be_bytes(key.try_into().map_err(|_| bad())?));
    let value: &[u8; VALUE_BYTES] = value.try_into().map_err(|_| bad())?;
    let (body, sum) = value.split_at(12);
    if entry_sum(block, body).to_be_bytes() != sum {
        return Err(bad());
    }
    let stamp = u64::from_be_bytes(body[..8].try_into().expect("8 bytes"));
    let length = u32::from_be_bytes(body[8..].try_into().expect("4 bytes"));
    Ok((block, Entry { stamp: GenerationStamp(stamp), length }))
}

fn entry_sum(block: BlockId, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&block.0.to_be_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// A sum over all entries that finds lost ones, kept up to date entry by entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Digest {
    sum: u64,
    count: u64,
}

impl Digest {
    fn add(&mut self, block: BlockId, entry: Entry) {
        self.sum = self.sum.wrapping_add(hash(block, entry));
        self.count = self.count.wrapping_add(1);
    }

    fn remove(&mut self, block: BlockId, entry: Entry) {
        self.sum = self.sum.wrapping_sub(hash(block, entry));
        self.count = self.count.wrapping_sub(1);
    }

    fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.sum.to_be_bytes());
        bytes[8..].copy_from_slice(&self.count.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 16] = bytes.try_into().ok()?;
        let (sum, count) = bytes.split_at(8);
        Some(Self {
            sum: u64::from_be_bytes(sum.try_into().expect("8 bytes")),
            count: u64::from_be_bytes(count.try_into().expect("8 bytes")),
        })
    }
}

/// Mixes an entry into 64 bits (the finaliser of SplitMix64, three times).
fn hash(block: BlockId, entry: Entry) -> u64 {
    let mix = |mut x: u64| {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    mix(mix(mix(block.0.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ entry.stamp.0)
        ^ u64::from(entry.length))
}

fn dirty_record(folder: Folder) -> [u8; DIRTY_RECORD_BYTES] {
    let number = u32::try_from(folder.number()).expect("there are 4096 sub-folders").to_be_bytes();
    let mut record = [0; DIRTY_RECORD_BYTES];
    record[..4].copy_from_slice(&number);
    record[4..].copy_from_slice(&crc32fast::hash(&number).to_be_bytes());
    record
}

/// Replaces the log, durably, and opens it for more records; tells where they go.
fn write_dirty(root: &Path, folders: &Folders) -> Result<(File, u64)> {
    let mut bytes = DIRTY_MAGIC.to_vec();
    for folder in folders {
        bytes.extend(dirty_record(*folder));
    }
    let end = bytes.len() as u64;
    bytes.resize(DIRTY_BYTES, 0);
    persist(root, DIRTY_NAME, &bytes)?;
    let path = root.join(DIRTY_NAME);
    let file = File::options()
        .write(true)
        .open(&path)
        .map_err(|error| Error::io(format_args!("open {}", path.display()), &error))?;
    Ok((file, end))
}

/// The sub-folders that the log names. The error says why it cannot be believed.
///
/// A torn record at the end is no damage: nothing was changed before its sync returned.
fn read_dirty(root: &Path) -> Result<Folders, String> {
    let path = root.join(DIRTY_NAME);
    let mut bytes = vec![0; DIRTY_BYTES + 1];
    let count = File::open(&path)
        .and_then(|file| read_up_to(&file, &mut bytes, 0))
        .map_err(|error| format!("read {}: {error}", path.display()))?;
    if count != DIRTY_BYTES {
        return Err(format!("{} has {count} bytes, expected {DIRTY_BYTES}", path.display()));
    }
    parse_dirty(&bytes[..count]).map_err(|why| format!("{}: {why}", path.display()))
}

fn parse_dirty(bytes: &[u8]) -> Result<Folders, String> {
    let records =
        bytes.strip_prefix(DIRTY_MAGIC).ok_or_else(|| "it has no magic number".to_owned())?;
    let mut folders = Folders::new();
    for (place, record) in records.chunks_exact(DIRTY_RECORD_BYTES).enumerate() {
        let rest = &records[place * DIRTY_RECORD_BYTES..];
        if rest.iter().all(|&byte| byte == 0) {
            break;
        }
        let number: [u8; 4] = record[..4].try_into().expect("4 bytes");
        if crc32fast::hash(&number).to_be_bytes() != record[4..] {
            return Err(format!("record {place} fails its checksum"));
        }
        let number = u32::from_be_bytes(number) as usize;
        let folder = (number < FOLDERS).then(|| Folder::from_number(number)).flatten();
        folders.insert(folder.ok_or_else(|| format!("record {place} names {number}"))?);
    }
    Ok(folders)
}

#[cfg(test)]
mod tests;
