//! [`Fs`]: the verbs of the file system.
//!
//! Each verb is one call to the NameNode, repeated while that is away; file contents are the business of
//! [`crate::write`] and [`crate::read`]. What holds: when a verb that changes something returns `Ok`, the change is on
//! the NameNode's stable storage. `Fs` is cheap to clone, and all clones share one lease, one pool of connections and
//! one memory of DataNodes that failed.
#![allow(clippy::disallowed_methods, reason = "a shell: remembers when a DataNode failed")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use proto::granary::{
    AppendRequest, ClusterStatus, ContentSummary, CreateRequest, DeleteRequest, FileKind,
    FileStatus, FsStats, GetFsStatsRequest, GetListingRequest, GetStatusRequest, LinkRequest,
    MkdirsRequest, PathRequest, RecoverLeaseRequest, RenameMode, RenameRequest, ServerDefaults,
    SetOwnerRequest, SetPermissionRequest, SetReplicationRequest, SetTimesRequest, TruncateRequest,
};
use proto::{Code, Error, FsPath, Result};
use tokio::runtime::Handle;
use transfer::{Pool, Timeouts};

use crate::catalogue::Catalogue;
use crate::checksum::{CompositeChecksum, FileChecksum};
use crate::config::Config;
use crate::lease::Lease;
use crate::namenode::NameNode;
use crate::read::FileReader;
use crate::write::FileWriter;

/// A file system. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    namenode: Arc<NameNode>,
    defaults: ServerDefaults,
    lease: Lease,
    pool: Arc<Pool>,
    runtime: Handle,
    /// DataNodes that failed lately, by uuid, and until when they are asked last.
    bad_nodes: Mutex<HashMap<String, Instant>>,
}

/// How a file is made.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Replace a file that is there. Otherwise that is `AlreadyExists`.
    pub overwrite: bool,
    /// Make missing parent folders. Otherwise that is `NotFound`.
    pub create_parents: bool,
    /// Permission bits; `None`: 0666 without the configured umask.
    pub mode: Option<u32>,
    /// Permission bits from which a folder's default ACL starts, if it has one; `None`: nothing beyond `mode`, or 0666
    /// if that is not given either.
    pub unmasked: Option<u32>,
    /// Replicas; 0: the configuration's, then the server's default.
    pub replication: u32,
    /// Bytes of a block; 0: the configuration's, then the server's default. Of a striped file: of a unit of a group.
    pub block_bytes: u64,
    /// The number of an erasure-coding policy; 0: replicated; `None`: as the folder says.
    pub erasure_policy: Option<u32>,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self {
            overwrite: false,
            create_parents: true,
            mode: None,
            unmasked: None,
            replication: 0,
            block_bytes: 0,
            erasure_policy: None,
        }
    }
}

/// Whether a deletion takes what is inside a folder along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recursion {
    /// A folder with children is `NotEmpty`.
    No,
    /// With everything inside.
    Yes,
}

impl Fs {
    /// Connects to the NameNode that the configuration names, and checks that it answers.
    ///
    /// Must be called on a tokio runtime; blocking adapters and background tasks run on it.
    pub async fn connect(config: Config) -> Result<Self> {
        let user = match config.user.as_str() {
            "" => os_user(),
            user => user.to_owned(),
        };
        let (namenode, defaults) = NameNode::connect(&config, user).await?;
        let namenode = Arc::new(namenode);
        let timeouts = config.timeouts();
        Ok(Self {
            inner: Arc::new(Inner {
                lease: Lease::new(namenode.clone(), config.lease_renew_interval_ms),
                pool: Arc::new(Pool::new(
                    timeouts,
                    config.idle_connections_max,
                    config.idle_connection_ms,
                )),
                runtime: Handle::current(),
                bad_nodes: Mutex::default(),
                namenode,
                defaults,
                config,
            }),
        })
    }

    /// The same file system for another user, as a client of its own with its own lease: for a server that acts for
    /// many. Costs no call; connections are shared.
    pub fn for_user(&self, user: &str) -> Self {
        let inner = &self.inner;
        let namenode = Arc::new(inner.namenode.for_user(user));
        Self {
            inner: Arc::new(Inner {
                lease: Lease::new(namenode.clone(), inner.config.lease_renew_interval_ms),
                pool: inner.pool.clone(),
                runtime: inner.runtime.clone(),
                bad_nodes: Mutex::default(),
                namenode,
                defaults: inner.defaults.clone(),
                config: Config { user: user.to_owned(), ..inner.config.clone() },
            }),
        }
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// What the NameNode said on connecting.
    pub fn server_defaults(&self) -> &ServerDefaults {
        &self.inner.defaults
    }

    /// The runtime that this was connected on.
    pub fn runtime(&self) -> &Handle {
        &self.inner.runtime
    }

    /// Who calls.
    pub fn user(&self) -> &str {
        self.inner.namenode.user()
    }

    /// What is known of a path. `NotFound` if nothing has it.
    pub async fn status(&self, path: &FsPath) -> Result<FileStatus> {
        self.try_status(path).await?.ok_or_else(|| not_found(path))
    }

    /// What is known of a path, if something has it.
    pub async fn try_status(&self, path: &FsPath) -> Result<Option<FileStatus>> {
        let request = self.path_request(path);
        let reply = self
            .namenode()
            .namespace("status", "GetFileInfo", request, async |mut stub, q| {
                stub.get_file_info(q).await
            })
            .await?;
        Ok(reply.status)
    }

    /// Whether something has this path.
    pub async fn exists(&self, path: &FsPath) -> Result<bool> {
        Ok(self.try_status(path).await?.is_some())
    }

    /// A folder's entries, ordered by the bytes of their names; of a file, itself.
    pub async fn list(&self, path: &FsPath) -> Result<Vec<FileStatus>> {
        let mut entries: Vec<FileStatus> = Vec::new();
        loop {
            let start_after = entries.last().map_or("", |entry| entry.name.as_str());
            let (page, remaining) = self.list_page(path, start_after, 0).await?;
            let done = remaining == 0 || page.is_empty();
            entries.extend(page);
            if done {
                return Ok(entries);
            }
        }
    }

    /// At most `limit` entries (0: the server's choice) after the name `start_after`, and how many follow them.
    pub async fn list_page(
        &self,
        path: &FsPath,
        start_after: &str,
        limit: u32,
    ) -> Result<(Vec<FileStatus>, u64)> {
        let request = GetListingRequest {
            caller: self.namenode().caller(),
            path: path.to_string(),
            start_after: start_after.to_owned(),
            limit,
        };
        let reply = self
            .namenode()
            .namespace("list", "GetListing", request, async |mut stub, q| stub.get_listing(q).await)
            .await?;
        Ok((reply.entries, reply.remaining))
    }

    /// Makes a folder and its missing parents. `false` if it was there already. `mode` is taken as it is.
    pub async fn mkdirs(&self, path: &FsPath, mode: u32) -> Result<bool> {
        self.make_folder(path, mode, true).await
    }

    /// Makes one folder. Its parent must exist, and the path must not (`AlreadyExists`).
    pub async fn mkdir(&self, path: &FsPath, mode: u32) -> Result<()> {
        self.make_folder(path, mode, false).await.map(|_created| ())
    }

    async fn make_folder(&self, path: &FsPath, mode: u32, create_parents: bool) -> Result<bool> {
        let caller = self.namenode().caller();
        let path = path.to_string();
        let request = MkdirsRequest { caller, path, mode, create_parents, unmasked: None };
        let reply = self
            .namenode()
            .namespace("mkdirs", "Mkdirs", request, async |mut stub, q| stub.mkdirs(q).await)
            .await?;
        Ok(reply.created)
    }

    /// Gives a file or folder another path, atomically.
    pub async fn rename(&self, source: &FsPath, target: &FsPath, mode: RenameMode) -> Result<()> {
        let request = RenameRequest {
            caller: self.namenode().caller(),
            source: source.to_string(),
            target: target.to_string(),
            mode: mode as i32,
        };
        self.namenode()
            .namespace("rename", "Rename", request, async |mut stub, q| stub.rename(q).await)
            .await?;
        Ok(())
    }

    /// Deletes a file or folder. `false` if there was nothing.
    pub async fn delete(&self, path: &FsPath, recursion: Recursion) -> Result<bool> {
        let request = DeleteRequest {
            caller: self.namenode().caller(),
            path: path.to_string(),
            recursive: recursion == Recursion::Yes,
        };
        let reply = self
            .namenode()
            .namespace("delete", "Delete", request, async |mut stub, q| stub.delete(q).await)
            .await?;
        Ok(reply.deleted)
    }

    /// Gives a file a further name.
    pub async fn link(&self, source: &FsPath, target: &FsPath) -> Result<FileStatus> {
        let request = LinkRequest {
            caller: self.namenode().caller(),
            source: source.to_string(),
            target: target.to_string(),
        };
        self.namenode()
            .namespace("link", "Link", request, async |mut stub, q| stub.link(q).await)
            .await
    }

    /// Cuts a closed file to `length` bytes; returns when its last block has been cut on the DataNodes.
    pub async fn truncate(&self, path: &FsPath, length: u64) -> Result<()> {
        let request = TruncateRequest {
            caller: self.namenode().caller(),
            path: path.to_string(),
            length,
            holder: self.inner.lease.holder().to_owned(),
        };
        let reply = self
            .namenode()
            .namespace("truncate", "Truncate", request, async |mut stub, q| stub.truncate(q).await)
            .await?;
        if reply.done { Ok(()) } else { self.wait_closed(path, length).await }
    }

    async fn wait_closed(&self, path: &FsPath, length: u64) -> Result<()> {
        let deadline = Instant::now() + Duration::from_millis(self.inner.config.retry_total_ms);
        loop {
            let status = self.status(path).await?;
            if !status.open_for_write {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::new(
                    Code::Timeout,
                    format!(
                        "truncate of {path} to {length} bytes: its last block is still being cut \
                         after {} ms",
                        self.inner.config.retry_total_ms
                    ),
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sets the permission bits (07777).
    pub async fn set_permission(&self, path: &FsPath, mode: u32) -> Result<()> {
        let caller = self.namenode().caller();
        let request = SetPermissionRequest { caller, path: path.to_string(), mode };
        self.namenode()
            .namespace("chmod", "SetPermission", request, async |mut stub, q| {
                stub.set_permission(q).await
            })
            .await?;
        Ok(())
    }

    /// Sets owner and group; an empty one stays as it is.
    pub async fn set_owner(&self, path: &FsPath, owner: &str, group: &str) -> Result<()> {
        let request = SetOwnerRequest {
            caller: self.namenode().caller(),
            path: path.to_string(),
            owner: owner.to_owned(),
            group: group.to_owned(),
        };
        self.namenode()
            .namespace("chown", "SetOwner", request, async |mut stub, q| stub.set_owner(q).await)
            .await?;
        Ok(())
    }

    /// Sets times, in nanoseconds since 1970 UTC; `None` stays as it is.
    pub async fn set_times(
        &self,
        path: &FsPath,
        modified_ns: Option<i64>,
        accessed_ns: Option<i64>,
    ) -> Result<()> {
        let caller = self.namenode().caller();
        let request = SetTimesRequest { caller, path: path.to_string(), modified_ns, accessed_ns };
        self.namenode()
            .namespace("set times", "SetTimes", request, async |mut stub, q| {
                stub.set_times(q).await
            })
            .await?;
        Ok(())
    }

    /// Sets how many replicas a file's blocks should have.
    pub async fn set_replication(&self, path: &FsPath, replication: u32) -> Result<()> {
        let caller = self.namenode().caller();
        let request = SetReplicationRequest { caller, path: path.to_string(), replication };
        self.namenode()
            .namespace("setrep", "SetReplication", request, async |mut stub, q| {
                stub.set_replication(q).await
            })
            .await?;
        Ok(())
    }

    /// How much is in a file or under a folder.
    pub async fn content_summary(&self, path: &FsPath) -> Result<ContentSummary> {
        let request = self.path_request(path);
        self.namenode()
            .namespace("du", "GetContentSummary", request, async |mut stub, q| {
                stub.get_content_summary(q).await
            })
            .await
    }

    /// Capacity and counts of the whole file system.
    pub async fn stats(&self) -> Result<FsStats> {
        let request = GetFsStatsRequest {};
        self.namenode()
            .namespace("df", "GetFsStats", request, async |mut stub, q| stub.get_fs_stats(q).await)
            .await
    }

    /// Nodes, blocks and stores of the cluster.
    pub async fn cluster_status(&self) -> Result<ClusterStatus> {
        let request = GetStatusRequest {};
        self.namenode().admin("status", request, async |mut stub, q| stub.get_status(q).await).await
    }

    /// Stores and versions.
    pub fn catalogue(&self) -> Catalogue {
        Catalogue::new(self.clone())
    }

    /// Makes a file and opens it for writing.
    pub async fn create(&self, path: &FsPath, options: CreateOptions) -> Result<FileWriter> {
        let config = &self.inner.config;
        let or = |given: u32, default: u32| if given == 0 { default } else { given };
        let block_bytes =
            if options.block_bytes == 0 { config.block_bytes } else { options.block_bytes };
        let lease = self.inner.lease.hold();
        let request = CreateRequest {
            caller: self.namenode().caller(),
            path: path.to_string(),
            holder: self.inner.lease.holder().to_owned(),
            mode: options.mode.unwrap_or(0o666 & !config.umask),
            overwrite: options.overwrite,
            create_parents: options.create_parents,
            replication: or(options.replication, config.replication),
            block_bytes,
            unmasked: options.unmasked.or(options.mode.is_none().then_some(0o666)),
            erasure_policy: options.erasure_policy,
        };
        let reply = self
            .namenode()
            .namespace("create", "Create", request, async |mut stub, q| stub.create(q).await)
            .await?;
        let status = reply.status.ok_or_else(|| incomplete("create", "status"))?;
        FileWriter::created(self.clone(), path.clone(), status, lease)
    }

    /// Opens a file to write at its end.
    pub async fn append(&self, path: &FsPath) -> Result<FileWriter> {
        let lease = self.inner.lease.hold();
        let request = AppendRequest {
            caller: self.namenode().caller(),
            path: path.to_string(),
            holder: self.inner.lease.holder().to_owned(),
            new_block: false,
        };
        let reply = self
            .namenode()
            .namespace("append", "Append", request, async |mut stub, q| stub.append(q).await)
            .await?;
        let status = reply.status.ok_or_else(|| incomplete("append", "status"))?;
        FileWriter::appending(self.clone(), path.clone(), status, reply.last_block, lease).await
    }

    /// Opens a file for reading.
    pub async fn open(&self, path: &FsPath) -> Result<FileReader> {
        FileReader::open(self.clone(), path.clone()).await
    }

    /// A whole file. `LimitExceeded` if it is longer than `bytes_max`.
    pub async fn read_all(&self, path: &FsPath, bytes_max: u64) -> Result<Bytes> {
        let mut reader = self.open(path).await?;
        if reader.len() > bytes_max {
            return Err(Error::new(
                Code::LimitExceeded,
                format!("{path} has {} bytes, at most {bytes_max} were asked for", reader.len()),
            ));
        }
        let first = reader.read_next().await?.unwrap_or_default();
        if first.len() as u64 == reader.len() {
            return Ok(first);
        }
        let mut all = BytesMut::with_capacity(usize::try_from(reader.len()).unwrap_or(0));
        all.extend_from_slice(&first);
        while let Some(bytes) = reader.read_next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }

    /// Makes or replaces a file with this content.
    pub async fn write_all(&self, path: &FsPath, content: &[u8]) -> Result<FileStatus> {
        let options = CreateOptions { overwrite: true, ..CreateOptions::default() };
        let mut writer = self.create(path, options).await?;
        writer.write(content).await?;
        writer.close().await
    }

    /// The checksum of a whole file, as HDFS computes it.
    pub async fn checksum(&self, path: &FsPath) -> Result<FileChecksum> {
        crate::checksum::of_file(self, path).await
    }

    /// The CRC of a whole file's bytes, joined from those of its chunks: the same however it is cut into blocks.
    pub async fn composite_checksum(&self, path: &FsPath) -> Result<CompositeChecksum> {
        crate::checksum::composite_of_file(self, path).await
    }

    /// Takes the lease from whoever writes a file, and settles its length. `false`: that is under way.
    pub async fn recover_lease(&self, path: &FsPath) -> Result<bool> {
        let request = RecoverLeaseRequest {
            caller: self.namenode().caller(),
            path: path.to_string(),
            holder: self.inner.lease.holder().to_owned(),
        };
        let reply = self
            .namenode()
            .namespace("recover lease", "RecoverLease", request, async |mut stub, q| {
                stub.recover_lease(q).await
            })
            .await?;
        Ok(reply.closed)
    }

    pub(crate) fn namenode(&self) -> &NameNode {
        &self.inner.namenode
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.inner.pool
    }

    pub(crate) fn timeouts(&self) -> &Timeouts {
        self.inner.pool.timeouts()
    }

    /// The lease holder: also this client's name towards DataNodes.
    pub(crate) fn holder(&self) -> &str {
        self.inner.lease.holder()
    }

    /// A DataNode failed: it is asked last for a while.
    pub(crate) fn note_bad_node(&self, uuid: &str) {
        let until = Instant::now() + Duration::from_millis(self.inner.config.bad_node_ms);
        let mut bad = self.inner.bad_nodes.lock().expect("nobody panics while holding the map");
        bad.insert(uuid.to_owned(), until);
    }

    /// Whether a DataNode failed lately.
    pub(crate) fn is_bad_node(&self, uuid: &str) -> bool {
        let mut bad = self.inner.bad_nodes.lock().expect("nobody panics while holding the map");
        if bad.is_empty() {
            return false;
        }
        let now = Instant::now();
        bad.retain(|_, until| *until > now);
        bad.contains_key(uuid)
    }

    fn path_request(&self, path: &FsPath) -> PathRequest {
        PathRequest { caller: self.namenode().caller(), path: path.to_string() }
    }
}

/// `IsFolder` unless `status` is a file's.
pub(crate) fn expect_file(path: &FsPath, status: &FileStatus) -> Result<()> {
    if status.kind == FileKind::File as i32 {
        return Ok(());
    }
    Err(Error::new(Code::IsFolder, format!("{path} is a folder, expected a file")))
}

pub(crate) fn not_found(path: &FsPath) -> Error {
    Error::new(Code::NotFound, format!("{path}: no such file or folder"))
}

/// A reply of the NameNode lacks a part that it must have.
pub(crate) fn incomplete(call: &str, part: &str) -> Error {
    Error::new(Code::Incompatible, format!("the NameNode's reply to {call} has no {part}"))
}

/// The name of the user who runs this process, or `uid-N` if the system has none for it.
fn os_user() -> String {
    let uid = rustix::process::geteuid().as_raw();
    let table = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("uid-{uid}"))
}
