//! The server's local folder: who owns it, where tables lie, what is complete, what served last.
//!
//! ```text
//! <dir>/lock                                  locked while a server runs
//! <dir>/identity                              this server's uuid, and the cluster once it is known
//! <dir>/stores/<store>/current                the version that answers
//! <dir>/stores/<store>/v<N>/part-00000.tbl    a verified table; with .partial behind it: as far as it was fetched
//! <dir>/stores/<store>/v<N>/complete          written last: names all tables of the version and their checksums
//! <dir>/trash/                                dropped versions whose files are still in use; emptied at the start
//! ```
//!
//! What always holds: a version with a readable `complete` has all its tables verified and on stable storage; a
//! dropped version leaves by one rename; store names cannot lead out of the folder.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use proto::{Code, Error, Result};
use rustix::fs::FlockOperation;

use crate::lifecycle::VersionId;
use crate::record;
use crate::tablespec::TableSpec;

/// A version that was complete when the server stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalVersion {
    /// Which.
    pub id: VersionId,
    /// Its tables; their paths are empty.
    pub tables: Arc<[TableSpec]>,
    /// Whether it answered.
    pub current: bool,
}

/// An open, locked folder.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    uuid: String,
    cluster: Mutex<String>,
    discarded: AtomicU64,
    _lock: File,
}

impl Folder {
    /// Opens the folder and makes it if it is new. Refused if another process uses it.
    pub fn open(root: &Path) -> Result<Self> {
        let failed = |what: &str, error: &std::io::Error| {
            Error::io(format!("kvserve.dir {}: {what}", root.display()), error)
        };
        for folder in [root.to_owned(), root.join("stores"), root.join("trash")] {
            std::fs::create_dir_all(&folder).map_err(|error| failed("make the folder", &error))?;
        }
        let lock = File::create(root.join("lock")).map_err(|error| failed("open lock", &error))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            let what = format!(
                "kvserve.dir {}: in use by another server; stop it or set another folder",
                root.display()
            );
            Error::new(Code::AlreadyExists, what)
        })?;
        let (uuid, cluster) = read_identity(root)?;
        let folder = Self {
            root: root.to_owned(),
            uuid,
            cluster: Mutex::new(cluster),
            discarded: AtomicU64::new(0),
            _lock: lock,
        };
        folder.write_identity(&folder.cluster_id())?;
        folder.empty_trash()?;
        Ok(folder)
    }

    /// This server's identity; stays with the folder.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// The cluster that the folder belongs to; empty until the first NameNode was met.
    pub fn cluster_id(&self) -> String {
        self.cluster.lock().expect("no holder panics").clone()
    }

    /// Ties the folder to a cluster. Refused if it belongs to another.
    pub fn join_cluster(&self, cluster_id: &str) -> Result<()> {
        let mut cluster = self.cluster.lock().expect("no holder panics");
        if *cluster == cluster_id {
            return Ok(());
        }
        if !cluster.is_empty() {
            let what = format!(
                "kvserve.dir {} belongs to cluster {:?}, the NameNode to {cluster_id:?}: set another folder or NameNode",
                self.root.display(),
                *cluster,
            );
            return Err(Error::new(Code::Incompatible, what));
        }
        self.write_identity(cluster_id)?;
        cluster_id.clone_into(&mut cluster);
        Ok(())
    }

    /// Where the tables of a version lie.
    pub fn version_folder(&self, id: &VersionId) -> PathBuf {
        self.store_folder(&id.store).join(format!("v{}", id.number))
    }

    /// Makes the folder of a version, durably.
    pub fn make_version_folder(&self, id: &VersionId) -> Result<PathBuf> {
        check_store_name(&id.store)?;
        let folder = self.version_folder(id);
        std::fs::create_dir_all(&folder)
            .map_err(|error| Error::io(format!("make folder {}", folder.display()), &error))?;
        record::sync_folder(&self.store_folder(&id.store))?;
        record::sync_folder(&self.root.join("stores"))?;
        Ok(folder)
    }

    /// Notes that all tables of the version are verified and on stable storage.
    pub fn mark_complete(&self, id: &VersionId, tables: &[TableSpec]) -> Result<()> {
        let lines: Vec<_> = tables
            .iter()
            .map(|t| {
                let TableSpec { bytes, records, slot_first, slot_last, footer_crc32, .. } = t;
                let crc = format!("{footer_crc32:08x}");
                ("table", format!("{bytes} {records} {slot_first} {slot_last} {crc}"))
            })
            .collect();
        record::persist(
            &self.version_folder(id).join("complete"),
            &record::encode("version", &lines),
        )
    }

    /// Notes which version of a store answers; `None`: none.
    pub fn record_current(&self, store: &str, number: Option<u64>) -> Result<()> {
        check_store_name(store)?;
        let path = self.store_folder(store).join("current");
        match number {
            Some(number) => {
                let text = record::encode("current", &[("version", number.to_string())]);
                record::persist(&path, &text)
            }
            None => match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::io(format!("remove {}", path.display()), &error))
                }
                _ => Ok(()),
            },
        }
    }

    /// Moves a version out of the way. The caller deletes what the path names when nobody reads it any more.
    pub fn discard(&self, id: &VersionId) -> Result<Option<PathBuf>> {
        let from = self.version_folder(id);
        let unique = self.discarded.fetch_add(1, Ordering::Relaxed);
        let to = self.root.join("trash").join(format!("v{}-{unique}", id.number));
        match std::fs::rename(&from, &to) {
            Ok(()) => Ok(Some(to)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("move {} to the trash", from.display()), &error)),
        }
    }

    /// Removes what is left of a store of which no version is left.
    pub fn forget_store(&self, store: &str) -> Result<()> {
        check_store_name(store)?;
        self.record_current(store, None)?;
        match std::fs::remove_dir(self.store_folder(store)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove the folder of store {store:?}"), &error))
            }
            _ => Ok(()),
        }
    }

    /// Complete versions, by store and number. What cannot be read is told by `damaged` and left for a new fetch.
    pub fn local_versions(
        &self,
        mut damaged: impl FnMut(&Path, Error),
    ) -> Result<Vec<LocalVersion>> {
        let mut found = Vec::new();
        for (store, folder) in names_in(&self.root.join("stores"))? {
            let current = read_current(&folder.join("current")).unwrap_or_else(|error| {
                damaged(&folder, error);
                None
            });
            for (name, folder) in names_in(&folder)? {
                let Some(number) = name.strip_prefix('v').and_then(|n| n.parse().ok()) else {
                    continue;
                };
                match read_complete(&folder.join("complete")) {
                    Ok(None) => {}
                    Ok(Some(tables)) => found.push(LocalVersion {
                        id: VersionId { store: store.clone(), number },
                        tables,
                        current: current == Some(number),
                    }),
                    Err(error) => damaged(&folder, error),
                }
            }
        }
        found.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    /// Bytes of the disk, and bytes free for this process.
    pub fn disk_bytes(&self) -> Result<(u64, u64)> {
        let stat = rustix::fs::statvfs(&self.root)
            .map_err(|e| Error::io(format!("statvfs {}", self.root.display()), &e.into()))?;
        Ok((
            stat.f_blocks.saturating_mul(stat.f_frsize),
            stat.f_bavail.saturating_mul(stat.f_frsize),
        ))
    }

    fn store_folder(&self, store: &str) -> PathBuf {
        self.root.join("stores").join(store)
    }

    fn write_identity(&self, cluster: &str) -> Result<()> {
        let lines = [("uuid", self.uuid.clone()), ("cluster", cluster.to_owned())];
        record::persist(&self.root.join("identity"), &record::encode("identity", &lines))
    }

    fn empty_trash(&self) -> Result<()> {
        let trash = self.root.join("trash");
        for (_, path) in names_in(&trash)? {
            std::fs::remove_dir_all(&path)
                .map_err(|error| Error::io(format!("delete {}", path.display()), &error))?;
        }
        Ok(())
    }
}

/// A store's name is a component of a path, here and in the file system.
pub fn check_store_name(store: &str) -> Result<()> {
    let bad =
        |why: String| Error::new(Code::InvalidArgument, format!("store name {store:?}: {why}"));
    if store.is_empty() {
        return Err(bad("it is empty".into()));
    }
    proto::FsPath::root().join(store).map(|_| ()).map_err(|error| bad(error.message))
}

fn read_identity(root: &Path) -> Result<(String, String)> {
    let path = root.join("identity");
    let Some(text) = record::read(&path)? else {
        return Ok((uuid::Uuid::new_v4().to_string(), String::new()));
    };
    let lines = record::decode("identity", &text)
        .map_err(|error| error.context(format!("kvserve.dir: {}", path.display())))?;
    let field = |name: &str| lines.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
    match field("uuid") {
        Some(uuid) if !uuid.is_empty() => {
            Ok((uuid.to_owned(), field("cluster").unwrap_or_default().to_owned()))
        }
        _ => Err(Error::new(Code::Corrupt, format!("{}: no uuid", path.display()))),
    }
}

fn read_current(path: &Path) -> Result<Option<u64>> {
    let Some(text) = record::read(path)? else { return Ok(None) };
    let lines = record::decode("current", &text)
        .map_err(|error| error.context(path.display().to_string()))?;
    match lines[..] {
        [("version", number)] => Ok(number.parse().ok()),
        _ => Err(Error::new(Code::Corrupt, format!("{}: no version", path.display()))),
    }
}

fn read_complete(path: &Path) -> Result<Option<Arc<[TableSpec]>>> {
    let Some(text) = record::read(path)? else { return Ok(None) };
    let lines = record::decode("version", &text)
        .map_err(|error| error.context(path.display().to_string()))?;
    let tables: Option<Vec<TableSpec>> = lines.iter().map(parse_table).collect();
    let tables = tables.ok_or_else(|| {
        Error::new(Code::Corrupt, format!("{}: a line that is no table", path.display()))
    })?;
    Ok(Some(tables.into()))
}

fn parse_table((name, value): &(&str, &str)) -> Option<TableSpec> {
    let mut words = value.split(' ');
    let table = TableSpec {
        path: String::new(),
        bytes: words.next()?.parse().ok()?,
        records: words.next()?.parse().ok()?,
        slot_first: words.next()?.parse().ok()?,
        slot_last: words.next()?.parse().ok()?,
        footer_crc32: u32::from_str_radix(words.next()?, 16).ok()?,
    };
    let whole = *name == "table" && words.next().is_none();
    (whole && table.slot_first <= table.slot_last && table.slot_last < proto::limits::SLOTS)
        .then_some(table)
}

/// Names in a folder that are UTF-8, in order, with their paths.
fn names_in(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let failed = |error| Error::io(format!("list {}", folder.display()), &error);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_folder = entry.file_type().map_err(failed)?.is_dir();
        if let (true, Ok(name)) = (is_folder, entry.file_name().into_string()) {
            names.push((name, entry.path()));
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(store: &str, number: u64) -> VersionId {
        VersionId { store: store.into(), number }
    }

    fn table(crc: u32) -> TableSpec {
        TableSpec {
            path: String::new(),
            bytes: 10,
            records: 2,
            slot_first: 0,
            slot_last: 16383,
            footer_crc32: crc,
        }
    }

    #[test]
    fn a_second_server_on_the_same_folder_is_refused_and_identity_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::open(dir.path()).unwrap();
        let error = Folder::open(dir.path()).unwrap_err();
        assert!(error.message.contains("in use by another server"), "{error}");
        let uuid = first.uuid().to_owned();
        first.join_cluster("c1").unwrap();
        drop(first);
        let again = Folder::open(dir.path()).unwrap();
        assert_eq!((again.uuid(), again.cluster_id().as_str()), (uuid.as_str(), "c1"));
        assert_eq!(again.join_cluster("c2").unwrap_err().code, Code::Incompatible);
    }

    #[test]
    fn complete_versions_and_the_current_one_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        for number in [1, 2, 3] {
            folder.make_version_folder(&id("s", number)).unwrap();
        }
        folder.mark_complete(&id("s", 1), &[table(7)]).unwrap();
        folder.mark_complete(&id("s", 2), &[table(8), table(9)]).unwrap();
        folder.record_current("s", Some(2)).unwrap();
        let none = |path: &Path, error: Error| panic!("{}: {error}", path.display());
        let found = folder.local_versions(none).unwrap();
        let summary: Vec<_> =
            found.iter().map(|v| (v.id.number, v.tables.len(), v.current)).collect();
        assert_eq!(summary, [(1, 1, false), (2, 2, true)]);
        assert_eq!(found[0].tables[0], table(7));

        let trash = folder.discard(&id("s", 1)).unwrap().unwrap();
        assert!(trash.join("complete").exists());
        assert_eq!(folder.discard(&id("s", 1)).unwrap(), None);
        std::fs::write(folder.version_folder(&id("s", 2)).join("complete"), "x").unwrap();
        let mut damaged = 0;
        assert_eq!(folder.local_versions(|_, _| damaged += 1).unwrap(), []);
        assert_eq!(damaged, 1);
        drop(folder);
        Folder::open(dir.path()).unwrap();
        assert!(!trash.exists(), "the trash is emptied at the start");
    }

    #[test]
    fn store_names_cannot_lead_out_of_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        for name in ["", "..", ".", "a/b", "/etc", "a\0"] {
            assert!(folder.make_version_folder(&id(name, 1)).is_err(), "{name:?}");
        }
    }
}
