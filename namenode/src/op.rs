//! What may be asked of the namespace: requests, operations, replies and effects.
//!
//! A [`Request`] carries everything that was chosen before it is journaled: who asks, when, and which call it is.
//! Inode ids, block ids and generation stamps are not chosen: `State::apply` takes them from counters, so that
//! applying the journal again gives the same ones. [`Request::encode`] is what the journal records.
//!
//! Always holds: a tag of the encoding is never reused; what one version wrote, every later one reads.
//!
//! No IO, no clock, no randomness. What is volatile (targets of a block, lease renewals, replicas) is not here.

pub mod attribute;
mod codec;
pub mod erasure;
pub mod node;
pub mod quota;
pub mod snapshot;
#[cfg(any(test, fuzzing))]
pub(crate) mod tests;

use proto::granary::{FileStatus, TableInfo};
use proto::{BlockId, FsPath, GenerationStamp, InodeId};

use attribute::AttributeOp;
pub use codec::REQUEST_BYTES_MAX;
pub(crate) use codec::{decode_reply, encode_reply};
pub(crate) use codec::{decode_table, encode_op, encode_table};

/// Groups of one caller, at most.
pub const GROUPS_MAX: usize = 256;
/// Tables of one version, at most.
pub const TABLES_MAX: usize = 10_000;
/// Bytes of an error text that a version keeps.
pub const ERROR_TEXT_BYTES_MAX: usize = 4_096;

/// Who asks. With permissions switched off, every caller is a superuser who keeps his name.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Caller {
    /// The user's name: owner of what he makes.
    pub user: String,
    /// The groups he is in.
    pub groups: Vec<String>,
    /// Whether no permission is checked.
    pub superuser: bool,
}

impl Caller {
    /// A caller of this name for whom no permission is checked.
    pub fn superuser(user: impl Into<String>) -> Self {
        Self { user: user.into(), groups: Vec::new(), superuser: true }
    }

    /// A plain user in no group.
    pub fn user(user: impl Into<String>) -> Self {
        Self { user: user.into(), groups: Vec::new(), superuser: false }
    }
}

/// Names one logical call: a retry repeats it, and gets the first call's reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId {
    /// The client process.
    pub client: [u8; 16],
    /// The call among that client's.
    pub call: u64,
}

/// One operation with all that was chosen for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Who asks.
    pub caller: Caller,
    /// Which call this is; `None` skips the retry cache.
    pub call_id: Option<CallId>,
    /// The proposer's clock, nanoseconds since 1970-01-01 UTC.
    pub now_ns: i64,
    /// What is asked.
    pub op: Op,
}

/// One block at one generation, as far as the sender knows its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Which block.
    pub id: BlockId,
    /// Which generation of it.
    pub stamp: GenerationStamp,
    /// Bytes.
    pub length: u64,
}

impl From<proto::granary::Block> for Block {
    fn from(block: proto::granary::Block) -> Self {
        Self {
            id: BlockId(block.id),
            stamp: GenerationStamp(block.generation_stamp),
            length: block.length,
        }
    }
}

impl From<Block> for proto::granary::Block {
    fn from(block: Block) -> Self {
        Self { id: block.id.0, generation_stamp: block.stamp.0, length: block.length }
    }
}

/// What a rename does if its target exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// It fails.
    NoReplace,
    /// It replaces a file by a file, or an empty folder by a folder.
    Replace,
    /// If it is a folder, the source moves into it under its own name; if it is a file, it fails. HDFS's older rename.
    Into,
}

/// Names an open file: by inode if the caller knows it (the path may have changed since), else by path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRef {
    /// The path it was opened by.
    pub path: FsPath,
    /// Its inode.
    pub inode: Option<InodeId>,
}

/// What became of a version, as its preparation tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Enough servers hold it, verified.
    Ready,
    /// It can't be served; the text says why.
    Failed(String),
}

/// One change of the namespace. Verbs follow HDFS.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields say what the wire messages of the same names say")]
pub enum Op {
    /// Makes a folder, with its parents if `create_parents`; else the parent must exist, and the path must not.
    /// `unmasked` is the mode before the caller's umask: it counts instead where the parent has a default ACL.
    Mkdirs { path: FsPath, mode: u32, unmasked: Option<u32>, create_parents: bool },
    /// Makes a file and opens it for `holder`. `overwrite` drops an existing file of that name first. `erasure` is the
    /// number of its erasure-coding policy; 0: replicated; `None`: as its folder says.
    Create {
        path: FsPath,
        holder: String,
        mode: u32,
        unmasked: Option<u32>,
        overwrite: bool,
        create_parents: bool,
        replication: u32,
        block_bytes: u64,
        erasure: Option<u8>,
    },
    /// Opens an existing file at its end; with `new_block`, a last block that is not full stays as it is.
    Append { path: FsPath, holder: String, new_block: bool },
    /// Commits `previous`, the file's last block, and gives the file one more block.
    AddBlock { file: FileRef, holder: String, previous: Option<Block> },
    /// Takes the last block away again: its pipeline never stood.
    AbandonBlock { file: FileRef, holder: String, block: Block },
    /// Mints a generation stamp for a block whose pipeline failed. Changes nothing else.
    UpdateBlockForPipeline { block: Block, holder: String },
    /// Gives the last block its new stamp and length.
    UpdatePipeline { holder: String, old_block: Block, new_block: Block },
    /// Makes the length of the last block known to readers.
    Fsync { file: FileRef, holder: String, last_block_length: u64 },
    /// Commits the last block and closes the file.
    Complete { file: FileRef, holder: String, last: Option<Block> },
    /// Moves a name.
    Rename { source: FsPath, target: FsPath, mode: RenameMode },
    /// Removes a name, and with `recursive` what is under it.
    Delete { path: FsPath, recursive: bool },
    /// Gives a file one more name.
    Link { source: FsPath, target: FsPath },
    /// Shortens a file. Inside a block, the block is cut by a recovery, and the file is open until then.
    Truncate { path: FsPath, length: u64, holder: String },
    /// Sets the permission bits (07777).
    SetPermission { path: FsPath, mode: u32 },
    /// Sets owner, group or both; an empty name leaves it.
    SetOwner { path: FsPath, owner: String, group: String },
    /// Sets times, in nanoseconds; `None` leaves it.
    SetTimes { path: FsPath, modified_ns: Option<i64>, accessed_ns: Option<i64> },
    /// Sets how many replicas a file's blocks should have.
    SetReplication { path: FsPath, replication: u32 },
    /// A client asks to end another writer's hold on a file.
    RecoverLease { path: FsPath, holder: String },
    /// The NameNode ends a writer's hold: closes the file, or mints a stamp to recover its last block under.
    /// Done again, it mints a newer stamp.
    BeginBlockRecovery { inode: InodeId },
    /// The outcome of a block recovery: `block` names the block at its old stamp.
    CommitBlockSynchronization {
        block: Block,
        new_stamp: GenerationStamp,
        new_length: u64,
        close_file: bool,
        delete_block: bool,
    },
    /// Adds a version to a store: links its tables to `/stores/<store>/v<N>/`. Makes the store if it is new.
    PublishVersion {
        store: String,
        folder: FsPath,
        tables: Vec<TableInfo>,
        activate: bool,
        keep_versions: u32,
    },
    /// Makes a ready version current; 0 is the previous one.
    ActivateVersion { store: String, version: u64 },
    /// Tells what became of a version's preparation.
    SetVersionState { store: String, version: u64, verdict: Verdict },
    /// Removes a version that is not current.
    DeleteVersion { store: String, version: u64 },
    /// Removes a store with its versions.
    DeleteStore { store: String },
    /// Changes quotas.
    Quota(quota::QuotaOp),
    /// Extended attributes, access control lists, storage policies.
    Attribute(AttributeOp),
    /// Moves the blocks of the sources behind those of the target, in their order; the sources are gone then.
    Concat { target: FsPath, sources: Vec<FsPath> },
    /// Changes snapshots.
    Snapshot(snapshot::SnapshotOp),
    /// Changes how files are coded.
    Erasure(erasure::ErasureOp),
    /// What is wanted of DataNodes.
    Node(node::NodeOp),
}

/// A block recovery to be done by a DataNode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRecovery {
    /// The block at its old stamp; the length is the one known so far.
    pub block: Block,
    /// The stamp to recover it under.
    pub new_stamp: GenerationStamp,
    /// Set for a truncate: cut to this length, in bytes.
    pub new_length: Option<u64>,
    /// The file it belongs to.
    pub inode: InodeId,
    /// The erasure-coding policy of a block group; 0: the block is replicated.
    pub policy: u8,
}

/// What an operation answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Done; there is nothing to tell.
    Done,
    /// Mkdirs: whether the folder is new.
    Created(bool),
    /// Create, Link: the file.
    File(Box<FileStatus>),
    /// Append.
    Appended {
        /// The file.
        status: Box<FileStatus>,
        /// Its last block, if that is not full.
        last_block: Option<Block>,
        /// Where the last block begins in the file, in bytes.
        last_block_offset: u64,
    },
    /// AddBlock: the block to write.
    BlockAllocated {
        /// The new block, or the same again for a retry.
        block: Block,
        /// Where it begins in the file, in bytes.
        offset: u64,
        /// The file.
        inode: InodeId,
        /// Replicas wanted.
        replication: u32,
        /// Bytes it may take.
        block_bytes: u64,
    },
    /// UpdateBlockForPipeline: the block with the stamp to use.
    Stamped(Block),
    /// Complete.
    Completed {
        /// Its file.
        inode: InodeId,
    },
    /// Delete: whether there was something.
    Deleted(bool),
    /// Truncate, RecoverLease, BeginBlockRecovery.
    Recovering {
        /// The file is closed and final.
        closed: bool,
        /// Else, what is to be recovered (`None`: a recovery is under way already).
        recovery: Option<BlockRecovery>,
    },
    /// PublishVersion: the version's number. ActivateVersion: the one that is current now.
    Version(u64),
    /// Snapshot::Create: the path of the new snapshot.
    Snapshot(FsPath),
}

/// How far a block is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockState {
    /// Committed: stamp and length are final until an append.
    Complete,
    /// A writer is at it; the length is what is known so far.
    BeingWritten,
    /// A recovery settles its length.
    UnderRecovery,
}

/// What the volatile side must know of a change, in the order of the changes. `slot` is the block's dense number:
/// used again after the block is removed.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A file got one more block.
    BlockAdded {
        /// The block; its length is 0.
        block: Block,
        /// Its dense number.
        slot: u32,
        /// Its file.
        inode: InodeId,
        /// Replicas wanted.
        replication: u32,
        /// The erasure-coding policy of a block group; 0: replicated.
        policy: u8,
    },
    /// A block's stamp, length or state changed.
    BlockChanged {
        /// The block as it is now.
        block: Block,
        /// Its dense number.
        slot: u32,
        /// Its state now.
        state: BlockState,
        /// The erasure-coding policy of a block group; 0: replicated.
        policy: u8,
    },
    /// A block is gone: its replicas may be deleted.
    BlockRemoved {
        /// The block as it was last.
        block: Block,
        /// The dense number it had.
        slot: u32,
    },
    /// Other replicas are wanted of a block.
    ReplicationChanged {
        /// Which block.
        block: BlockId,
        /// Its dense number.
        slot: u32,
        /// Replicas wanted now.
        replication: u32,
    },
    /// A block is to be recovered by a DataNode.
    RecoveryStarted(BlockRecovery),
    /// A file was opened by a holder, or changed hands.
    LeaseTaken {
        /// The file.
        inode: InodeId,
        /// Who writes it.
        holder: String,
    },
    /// A file is closed or gone.
    LeaseGone {
        /// The file.
        inode: InodeId,
        /// Who wrote it.
        holder: String,
    },
    /// Something else is wanted of DataNodes of this name; `None`: nothing any more.
    NodeWished {
        /// The name.
        node: String,
        /// What is wanted now.
        wish: Option<node::NodeWish>,
    },
    /// A store, its versions or what is current changed.
    CatalogueChanged {
        /// Which store.
        store: String,
    },
}

impl Op {
    /// The verb, for messages and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mkdirs { .. } => "mkdirs",
            Self::Create { .. } => "create",
            Self::Append { .. } => "append",
            Self::AddBlock { .. } => "addBlock",
            Self::AbandonBlock { .. } => "abandonBlock",
            Self::UpdateBlockForPipeline { .. } => "updateBlockForPipeline",
            Self::UpdatePipeline { .. } => "updatePipeline",
            Self::Fsync { .. } => "fsync",
            Self::Complete { .. } => "complete",
            Self::Rename { .. } => "rename",
            Self::Delete { .. } => "delete",
            Self::Link { .. } => "link",
            Self::Truncate { .. } => "truncate",
            Self::SetPermission { .. } => "setPermission",
            Self::SetOwner { .. } => "setOwner",
            Self::SetTimes { .. } => "setTimes",
            Self::SetReplication { .. } => "setReplication",
            Self::RecoverLease { .. } => "recoverLease",
            Self::BeginBlockRecovery { .. } => "beginBlockRecovery",
            Self::CommitBlockSynchronization { .. } => "commitBlockSynchronization",
            Self::PublishVersion { .. } => "publishVersion",
            Self::ActivateVersion { .. } => "activateVersion",
            Self::SetVersionState { .. } => "setVersionState",
            Self::DeleteVersion { .. } => "deleteVersion",
            Self::DeleteStore { .. } => "deleteStore",
            Self::Quota(op) => op.name(),
            Self::Attribute(op) => op.name(),
            Self::Concat { .. } => "concat",
            Self::Snapshot(op) => op.name(),
            Self::Erasure(op) => op.name(),
            Self::Node(op) => op.name(),
        }
    }

    /// Whether a repeated call must get the first one's reply. The others tolerate repetition by themselves.
    pub fn answers_retries(&self) -> bool {
        if let Self::Attribute(op) = self {
            return op.answers_retries();
        }
        if let Self::Snapshot(op) = self {
            return op.answers_retries();
        }
        !matches!(
            self,
            Self::AddBlock { .. }
                | Self::AbandonBlock { .. }
                | Self::UpdateBlockForPipeline { .. }
                | Self::Fsync { .. }
                | Self::Complete { .. }
                | Self::SetPermission { .. }
                | Self::SetOwner { .. }
                | Self::SetTimes { .. }
                | Self::SetReplication { .. }
                | Self::RecoverLease { .. }
                | Self::BeginBlockRecovery { .. }
                | Self::CommitBlockSynchronization { .. }
                | Self::SetVersionState { .. }
                | Self::Quota(_)
                | Self::Node(_)
        )
    }
}
