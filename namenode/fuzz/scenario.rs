//! A NameNode to ask, and a day in its life, from which inputs are made. Part of each target of this package.
//!
//! A call in an input is `u8 who` (the lowest two bits the user, the others the protocol), `u8 length, method`,
//! `u16 length, message`, little-endian.
#![allow(dead_code, reason = "each target needs a part of it")]

use bytes::Bytes;
use ipc::RpcError;
use namenode::front::hadoop::CLIENT_PROTOCOL;
use namenode::fuzzing::{SUPERUSER, World};
use namenode::op::Request;
use prost::Message;
use proto::granary::DatanodeUp;
use proto::hadoop::hdfs::*;
use tokio::runtime::Runtime;

const USERS: [&str; 4] = [SUPERUSER, "ann", "bob", ""];
const PROTOCOLS: [&str; 4] = [
    CLIENT_PROTOCOL,
    "org.apache.hadoop.ha.HAServiceProtocol",
    "org.apache.hadoop.tools.GetUserMappingsProtocol",
    proto::rpc::NAMESPACE_PROTOCOL,
];

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    who: u8,
    method: String,
    message: Vec<u8>,
}

impl Call {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.who, self.method.len() as u8];
        out.extend_from_slice(self.method.as_bytes());
        out.extend_from_slice(&(self.message.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.message);
        out
    }

    /// Takes a call off the bytes; what is cut short is taken as far as it goes.
    pub fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let [who, length, rest @ ..] = *bytes else { return None };
        let (method, rest) = rest.split_at_checked(usize::from(*length))?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (message, rest) = rest.split_at(rest.len().min(u16::from_le_bytes(*length).into()));
        *bytes = rest;
        let method = std::str::from_utf8(method).ok()?.to_owned();
        Some(Self { who: *who, method, message: message.to_vec() })
    }
}

/// A NameNode in a folder that goes with it.
pub struct Living {
    runtime: Runtime,
    world: World,
    dir: tempfile::TempDir,
}

impl Living {
    pub fn new() -> Self {
        // In memory where there is room: every change is synced.
        let memory = std::path::Path::new("/dev/shm");
        let dir = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir());
        let dir = dir.expect("a folder");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let world = runtime.block_on(World::start(dir.path())).expect("a NameNode");
        Self { runtime, world, dir }
    }

    /// One with the files of a day, to begin with.
    pub fn with_files() -> Self {
        let living = Self::new();
        day(&living);
        living
    }

    pub fn ask(&self, call: &Call) -> Option<Result<Bytes, RpcError>> {
        let user = USERS[usize::from(call.who & 3)];
        let protocol = PROTOCOLS[usize::from(call.who >> 2) % PROTOCOLS.len()];
        let message = Bytes::copy_from_slice(&call.message);
        self.runtime.block_on(self.world.ask(user, protocol, &call.method, message))
    }

    pub fn hear(&self, messages: impl Iterator<Item = DatanodeUp>) {
        self.runtime.block_on(async {
            let mut at = self.world.register(World::datanode(0)).expect("it registers");
            for message in messages {
                if self.world.hear(&mut at, message).await.is_err() {
                    break;
                }
            }
        });
    }
}

/// Plays the day; its calls, and what the journal has of them.
pub fn play() -> (Vec<Call>, Vec<Request>) {
    let living = Living::new();
    let calls = day(&living);
    let Living { runtime, world, dir } = living;
    let journal = runtime.block_on(world.end(dir.path())).expect("a journal");
    (calls, journal)
}

/// Asks for one thing after the other, and notes it.
struct Day<'a> {
    living: &'a Living,
    calls: Vec<Call>,
}

impl Day<'_> {
    fn ask<R: Message + Default>(&mut self, who: u8, method: &str, message: &impl Message) -> R {
        let call = Call { who, method: method.into(), message: message.encode_to_vec() };
        let answer = self.living.ask(&call).unwrap_or_else(|| panic!("there is no {method}"));
        self.calls.push(call);
        // Some are refused, and are no worse as a start.
        answer.map(|bytes| R::decode(bytes).expect("a reply")).unwrap_or_default()
    }

    /// Asks for what has an answer that does not matter here.
    fn tell(&mut self, who: u8, method: &str, message: &impl Message) {
        self.ask::<RenewLeaseResponseProto>(who, method, message);
    }

    /// A file of some blocks, closed.
    fn write(&mut self, who: u8, path: &str, blocks: usize) {
        self.open(who, path);
        let mut previous: Option<ExtendedBlockProto> = None;
        for number in 0..blocks {
            let request = AddBlockRequestProto { previous: previous.take(), ..add_block(path) };
            let mut block = self.ask::<AddBlockResponseProto>(who, "addBlock", &request).block.b;
            block.num_bytes = Some(if number + 1 == blocks { 77 } else { 1 << 20 });
            previous = Some(block);
        }
        let complete = CompleteRequestProto {
            src: path.into(),
            client_name: holder(),
            last: previous,
            file_id: None,
        };
        self.tell(who, "complete", &complete);
    }

    fn open(&mut self, who: u8, path: &str) {
        let create = CreateRequestProto {
            src: path.into(),
            masked: mode(0o644),
            client_name: holder(),
            create_flag: 3,
            create_parent: true,
            replication: 1,
            block_size: 1 << 20,
            ..CreateRequestProto::default()
        };
        self.tell(who, "create", &create);
    }
}

fn holder() -> String {
    "DFSClient_1".into()
}

fn mode(perm: u32) -> FsPermissionProto {
    FsPermissionProto { perm }
}

fn add_block(path: &str) -> AddBlockRequestProto {
    AddBlockRequestProto { src: path.into(), client_name: holder(), ..Default::default() }
}

fn day(living: &Living) -> Vec<Call> {
    let mut day = Day { living, calls: Vec::new() };
    files(&mut day);
    attributes(&mut day);
    snapshots(&mut day);
    looks(&mut day);
    day.calls
}

fn files(day: &mut Day<'_>) {
    for path in ["/a/b/c", "/a/d", "/e"] {
        let request = MkdirsRequestProto {
            src: path.into(),
            masked: mode(0o777),
            create_parent: true,
            unmasked: Some(mode(0o777)),
        };
        day.tell(0, "mkdirs", &request);
    }
    day.write(0, "/a/b/one", 1);
    day.write(0, "/a/b/two", 2);
    day.write(1, "/e/three", 3);
    day.write(0, "/e/none", 0);
    day.open(0, "/e/open");
    let added: AddBlockResponseProto = day.ask(0, "addBlock", &add_block("/e/open"));
    let block = added.block.b;
    let fsync = FsyncRequestProto {
        src: "/e/open".into(),
        client: holder(),
        last_block_length: Some(5),
        file_id: None,
    };
    day.tell(0, "fsync", &fsync);
    let update = UpdateBlockForPipelineRequestProto { block: block.clone(), client_name: holder() };
    let updated: UpdateBlockForPipelineResponseProto =
        day.ask(0, "updateBlockForPipeline", &update);
    let pipeline = UpdatePipelineRequestProto {
        client_name: holder(),
        old_block: block,
        new_block: updated.block.b,
        ..Default::default()
    };
    day.tell(0, "updatePipeline", &pipeline);
    let source = |src: &str, dst: &str| (src.to_owned(), dst.to_owned());
    let (src, dst) = source("/e/none", "/a/none");
    day.tell(0, "rename", &RenameRequestProto { src, dst });
    let (src, dst) = source("/a/none", "/a/b/one");
    let rename = Rename2RequestProto { src, dst, overwrite_dest: true, move_to_trash: None };
    day.tell(0, "rename2", &rename);
    let append =
        AppendRequestProto { src: "/a/b/two".into(), client_name: holder(), flag: Some(4) };
    day.tell(0, "append", &append);
    let lease = RecoverLeaseRequestProto { src: "/a/b/two".into(), client_name: "other".into() };
    day.tell(0, "recoverLease", &lease);
    let truncate =
        TruncateRequestProto { src: "/e/three".into(), new_length: 1 << 20, client_name: holder() };
    day.tell(0, "truncate", &truncate);
    let concat = ConcatRequestProto { trg: "/e/three".into(), srcs: vec!["/a/b/two".into()] };
    day.tell(0, "concat", &concat);
    day.tell(
        0,
        "renewLease",
        &RenewLeaseRequestProto { client_name: holder(), namespaces: vec![] },
    );
}

fn attributes(day: &mut Day<'_>) {
    let src = || "/a".to_owned();
    let permission = mode(0o750);
    day.tell(0, "setPermission", &SetPermissionRequestProto { src: src(), permission });
    let owner = SetOwnerRequestProto {
        src: src(),
        username: Some("ann".into()),
        groupname: Some("staff".into()),
    };
    day.tell(0, "setOwner", &owner);
    day.tell(0, "setTimes", &SetTimesRequestProto { src: src(), mtime: 5, atime: 6 });
    let replication = SetReplicationRequestProto { src: "/e/three".into(), replication: 2 };
    day.tell(0, "setReplication", &replication);
    let quota = SetQuotaRequestProto {
        path: src(),
        namespace_quota: 50,
        storagespace_quota: u64::MAX,
        storage_type: None,
    };
    day.tell(0, "setQuota", &quota);
    let xattr = XAttrProto { namespace: 0, name: "colour".into(), value: Some("red".into()) };
    let set = SetXAttrRequestProto { src: src(), x_attr: Some(xattr.clone()), flag: Some(1) };
    day.tell(0, "setXAttr", &set);
    day.tell(0, "removeXAttr", &RemoveXAttrRequestProto { src: "/e".into(), x_attr: Some(xattr) });
    let entry = |scope, r#type, permissions, name: Option<&str>| AclEntryProto {
        r#type,
        scope,
        permissions,
        name: name.map(Into::into),
    };
    let acl_spec = vec![
        entry(0, 0, 7, None),
        entry(0, 0, 5, Some("bob")),
        entry(0, 1, 4, None),
        entry(0, 3, 0, None),
        entry(1, 1, 7, Some("web")),
    ];
    let acl = SetAclRequestProto { src: src(), acl_spec: acl_spec.clone() };
    day.tell(0, "setAcl", &acl);
    day.tell(0, "modifyAclEntries", &ModifyAclEntriesRequestProto { src: "/e".into(), acl_spec });
    let policy = SetStoragePolicyRequestProto { src: src(), policy_name: "COLD".into() };
    day.tell(0, "setStoragePolicy", &policy);
}

fn snapshots(day: &mut Day<'_>) {
    let snapshot_root = || "/a".to_owned();
    day.tell(0, "allowSnapshot", &AllowSnapshotRequestProto { snapshot_root: snapshot_root() });
    for name in ["s1", "s2", "s3"] {
        let snapshot_name = Some(name.into());
        let create = CreateSnapshotRequestProto { snapshot_root: snapshot_root(), snapshot_name };
        day.tell(0, "createSnapshot", &create);
        day.write(0, &format!("/a/b/in-{name}"), 1);
        day.tell(0, "delete", &DeleteRequestProto { src: "/a/d".into(), recursive: true });
    }
    let rename = RenameSnapshotRequestProto {
        snapshot_root: snapshot_root(),
        snapshot_old_name: "s2".into(),
        snapshot_new_name: "s4".into(),
    };
    day.tell(0, "renameSnapshot", &rename);
    let delete =
        DeleteSnapshotRequestProto { snapshot_root: snapshot_root(), snapshot_name: "s3".into() };
    day.tell(0, "deleteSnapshot", &delete);
    let difference = GetSnapshotDiffReportRequestProto {
        snapshot_root: snapshot_root(),
        from_snapshot: "s1".into(),
        to_snapshot: String::new(),
    };
    day.tell(0, "getSnapshotDiffReport", &difference);
    let snapshots = GetSnapshotListingRequestProto { snapshot_root: snapshot_root() };
    day.tell(0, "getSnapshotListing", &snapshots);
}

fn looks(day: &mut Day<'_>) {
    // These messages begin with the path, and have no more or nothing that must be there.
    let one_path = GetFileInfoRequestProto { src: "/a/b".into() };
    for method in [
        "getFileInfo",
        "getFileLinkInfo",
        "getLocatedFileInfo",
        "getContentSummary",
        "getQuotaUsage",
        "getPreferredBlockSize",
        "getLinkTarget",
        "getEnclosingRoot",
        "isFileClosed",
        "getAclStatus",
        "getXAttrs",
        "listXAttrs",
        "getStoragePolicy",
        "getErasureCodingPolicy",
        "getEZForPath",
        "unsetStoragePolicy",
        "removeAcl",
        "removeDefaultAcl",
        "setErasureCodingPolicy",
        "listCorruptFileBlocks",
    ] {
        day.tell(1, method, &one_path);
    }
    let nothing = GetServerDefaultsRequestProto {};
    for method in [
        "getServerDefaults",
        "getFsStats",
        "getStoragePolicies",
        "getSnapshottableDirListing",
        "getErasureCodingPolicies",
        "getErasureCodingCodecs",
        "listCachePools",
        "refreshNodes",
        "rollEdits",
        "msync",
        "getHAServiceState",
        "getCurrentEditLogTxid",
    ] {
        day.tell(0, method, &nothing);
    }
    let listing = GetListingRequestProto {
        src: "/a/b".into(),
        start_after: "in".into(),
        need_location: true,
    };
    day.tell(0, "getListing", &listing);
    let blocks =
        GetBlockLocationsRequestProto { src: "/e/three".into(), offset: 3, length: 1 << 30 };
    day.tell(0, "getBlockLocations", &blocks);
    day.tell(2, "checkAccess", &CheckAccessRequestProto { path: "/a".into(), mode: 7 });
    let open = ListOpenFilesRequestProto { id: 0, types: vec![1], path: Some("/".into()) };
    day.tell(0, "listOpenFiles", &open);
    let report = GetDatanodeReportRequestProto { r#type: 1 };
    day.tell(0, "getDatanodeReport", &report);
    day.tell(0, "setSafeMode", &SetSafeModeRequestProto { action: 3, checked: None });
}
