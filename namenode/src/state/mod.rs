//! The namespace as a deterministic state machine: folders, files, blocks, leases, the retry cache, the catalogue.
//!
//! | module | owns |
//! |---|---|
//! | `slab` | dense arrays in chunks, which pages changed, identity to slot |
//! | `inodes` | records of files, folders, block lists and blocks |
//! | `names` | entries of folders: B+trees of small nodes |
//! | `interned` | names of users and groups, permission triples, layouts |
//! | `permissions` | who may do what |
//! | `tree` | paths to inodes, reads |
//! | `walk`, `summary` | whole trees in slices; sums over them |
//! | `verbs` | mkdirs, delete, link, owner, mode, times |
//! | `rename` | rename: into, over, and what quotas say |
//! | `files`, `last_block` | create, append, addBlock, complete and what lies between |
//! | `concat` | one file of several |
//! | `erasure` | erasure-coding policies; two files exchange their content |
//! | `attributes` | access control lists, extended attributes, storage policies |
//! | `recovery` | truncate, lease and block recovery |
//! | `links` | the folders of files with several names |
//! | `quotas` | limits on folders, and what their trees use |
//! | `snapshots` | read-only images of folders |
//! | `leases` | open files and their writers |
//! | `retry` | replies to calls that may be repeated |
//! | `catalogue`, `stores` | stores, versions, tables; the verbs on them |
//! | `wishes` | what is wanted of DataNodes |
//! | `image` | the state as pages and sections, for checkpoints; its digest |
//!
//! Each verb is a plan, which looks and decides and may fail, and then the change, which can't: an operation that
//! fails changes nothing but the transaction id. [`State::preview`] runs the plan alone.
//!
//! Always holds: [`State::apply`] is the only way to change anything; it depends on nothing but the state and the
//! request, so that replaying the journal gives the same state. No IO, no clock, no randomness.

pub(crate) mod attributes;
pub(crate) mod catalogue;
mod concat;
mod erasure;
mod files;
pub(crate) mod image;
mod inodes;
mod interned;
mod last_block;
pub(crate) mod leases;
mod links;
mod names;
mod permissions;
mod quotas;
mod recovery;
mod rename;
mod retry;
pub(crate) mod slab;
mod snapshots;
mod stores;
mod summary;
mod tree;
mod verbs;
mod walk;
mod wishes;

#[cfg(test)]
mod tests;

use proto::{BlockId, Code, Error, GenerationStamp, InodeId, Result, Txid};

pub use attributes::{STORAGE_POLICIES, StoragePolicy, demand_raw};
pub use catalogue::{Store, Version, VersionStage};
pub use leases::{Lease, PendingRecovery, RECOVERY_HOLDER};
pub use quotas::{Limits, Quota, Usage};
pub use retry::{RETRY_AGE_NS_MAX, RETRY_ENTRIES_MAX};
pub use snapshots::{
    DOT_SNAPSHOT, DiffEntry, DiffKind, Kept, SNAPSHOT_DIFF_ENTRIES_MAX, SNAPSHOTS_PER_FOLDER_MAX,
    SnapshotDiff, SnapshotStatus, SnapshottableStatus,
};
pub use summary::TreeSummary;
pub use tree::{FileBlocks, Listing};

use crate::op::{Block, BlockState, Effect, Op, Reply, Request};
use attributes::Attributes;
use catalogue::Catalogue;
use erasure::Enabled;
use inodes::{BlockList, BlockRecord, Inode};
use interned::{Interned, Permission};
use leases::Leases;
use links::Links;
use names::Nodes;
use quotas::Quotas;
use retry::RetryCache;
use slab::{IdMap, NONE, Slab};
use snapshots::Snapshots;
use wishes::NodeWishes;

/// The slot of the root folder.
pub(crate) const ROOT: u32 = 0;
/// The group of the root folder, and so of all that is made where nobody set another.
const ROOT_GROUP: &str = "supergroup";

/// What identities come from, and what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counters {
    pub txid: u64,
    pub next_inode: u64,
    pub next_block: u64,
    pub next_group: u64,
    pub next_stamp: u64,
    pub files: u64,
    pub folders: u64,
}

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counts {
    /// Files.
    pub files: u64,
    /// Folders, the root included.
    pub folders: u64,
    /// Blocks.
    pub blocks: u64,
    /// Files open for writing.
    pub open_files: u64,
    /// Replies in the retry cache.
    pub retry_entries: u64,
}

/// One block and the file it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Which block.
    pub id: BlockId,
    /// Its dense number while it exists: below [`State::block_slots_end`].
    pub slot: u32,
    /// Its generation.
    pub stamp: GenerationStamp,
    /// Bytes known so far.
    pub length: u64,
    /// Bytes that the file shows of it, which may be one in a snapshot: as a rule all.
    pub shown: u64,
    /// How far it is written.
    pub state: BlockState,
    /// Its file.
    pub inode: InodeId,
    /// Replicas wanted; of each unit of a block group 1.
    pub replication: u32,
    /// The erasure-coding policy of a block group; 0: the block is replicated.
    pub policy: u8,
}

impl BlockInfo {
    /// Id, stamp and length.
    pub fn block(&self) -> Block {
        Block { id: self.id, stamp: self.stamp, length: self.length }
    }
}

/// The namespace. See the module.
pub struct State {
    pub(crate) inodes: Slab<Inode>,
    pub(crate) lists: Slab<BlockList>,
    pub(crate) blocks: Slab<BlockRecord>,
    pub(crate) nodes: Nodes,
    pub(crate) inode_slots: IdMap,
    pub(crate) block_slots: IdMap,
    pub(crate) group_slots: IdMap,
    pub(crate) attributes: Attributes,
    pub(crate) interned: Interned,
    pub(crate) leases: Leases,
    pub(crate) retry: RetryCache,
    pub(crate) catalogue: Catalogue,
    pub(crate) quotas: Quotas,
    pub(crate) links: Links,
    pub(crate) snapshots: Snapshots,
    pub(crate) erasure: Enabled,
    pub(crate) wishes: NodeWishes,
    pub(crate) counters: Counters,
}

impl State {
    /// An empty namespace: a root folder (mode 755) of `superuser`. The same name must be given whenever the journal
    /// is replayed from its beginning.
    pub fn new(superuser: &str) -> Self {
        let mut state = Self::blank();
        let permission = Permission {
            owner: state.interned.name(superuser),
            group: state.interned.name(ROOT_GROUP),
            mode: 0o755,
        };
        let permission = state.interned.permissions.number(permission);
        let root = state.add_inode(Inode::folder(InodeId::ROOT, NONE, permission, 0));
        assert!(root == ROOT, "the root takes the first slot");
        state
    }

    /// Without even a root: what a checkpoint is loaded into.
    pub(crate) fn blank() -> Self {
        Self {
            inodes: Slab::new(),
            lists: Slab::new(),
            blocks: Slab::new(),
            nodes: Slab::new(),
            inode_slots: IdMap::default(),
            block_slots: IdMap::default(),
            group_slots: IdMap::default(),
            attributes: Attributes::new(),
            interned: Interned::new(),
            leases: Leases::default(),
            retry: RetryCache::default(),
            catalogue: Catalogue::default(),
            quotas: Quotas::default(),
            links: Links::default(),
            snapshots: Snapshots::default(),
            erasure: Enabled::default(),
            wishes: NodeWishes::default(),
            counters: Counters {
                txid: 0,
                next_inode: InodeId::ROOT.0,
                next_block: BlockId::FIRST.0,
                next_group: BlockId::FIRST_GROUP.0,
                next_stamp: GenerationStamp::FIRST.0,
                files: 0,
                folders: 0,
            },
        }
    }

    /// Performs one operation, journaled as the transaction after [`State::txid`]. Effects are appended in the order
    /// of the changes. On an error nothing has changed but the transaction id.
    pub fn apply(&mut self, request: &Request, effects: &mut Vec<Effect>) -> Result<Reply> {
        self.counters.txid += 1;
        self.retry.expire(request.now_ns);
        if let Some(reply) = self.answered_before(request)? {
            return Ok(reply);
        }
        let reply = self.perform(request, effects)?;
        if let Some(id) = request.call_id
            && request.op.answers_retries()
        {
            self.retry.insert(id, request.now_ns, fingerprint(&request.op), reply.clone());
        }
        Ok(reply)
    }

    /// What [`State::apply`] would say: an error, or a reply that needs no change (a repeated call, a folder that is
    /// there, nothing to delete), or `None` if there is something to do.
    pub fn preview(&self, request: &Request) -> Result<Option<Reply>> {
        if let Some(reply) = self.answered_before(request)? {
            return Ok(Some(reply));
        }
        self.plan(request)
    }

    fn answered_before(&self, request: &Request) -> Result<Option<Reply>> {
        let Some(id) = request.call_id.filter(|_| request.op.answers_retries()) else {
            return Ok(None);
        };
        match self.retry.get(&id) {
            None => Ok(None),
            Some((asked, reply)) if asked == fingerprint(&request.op) => Ok(Some(reply.clone())),
            Some(_) => {
                let message = format!(
                    "call {} of this client asked something else before; a new call needs a new id",
                    id.call
                );
                Err(Error::new(Code::InvalidArgument, message))
            }
        }
    }

    fn perform(&mut self, request: &Request, effects: &mut Vec<Effect>) -> Result<Reply> {
        let (caller, now) = (&request.caller, request.now_ns);
        match &request.op {
            Op::Mkdirs { .. }
            | Op::Rename { .. }
            | Op::Delete { .. }
            | Op::Link { .. }
            | Op::SetPermission { .. }
            | Op::SetOwner { .. }
            | Op::SetTimes { .. }
            | Op::SetReplication { .. } => self.perform_verb(caller, now, &request.op, effects),
            Op::Create { .. }
            | Op::Append { .. }
            | Op::AddBlock { .. }
            | Op::AbandonBlock { .. }
            | Op::UpdateBlockForPipeline { .. }
            | Op::UpdatePipeline { .. }
            | Op::Fsync { .. }
            | Op::Complete { .. } => self.perform_on_file(caller, now, &request.op, effects),
            Op::Truncate { .. }
            | Op::RecoverLease { .. }
            | Op::BeginBlockRecovery { .. }
            | Op::CommitBlockSynchronization { .. } => {
                self.perform_recovery(caller, now, &request.op, effects)
            }
            Op::PublishVersion { .. }
            | Op::ActivateVersion { .. }
            | Op::SetVersionState { .. }
            | Op::DeleteVersion { .. }
            | Op::DeleteStore { .. } => self.perform_on_store(caller, now, &request.op, effects),
            Op::Quota(op) => self.perform_on_quota(caller, op),
            Op::Attribute(op) => self.perform_attribute(caller, now, op),
            Op::Concat { target, sources } => {
                let plan = self.plan_concat(caller, target, sources)?;
                Ok(self.concat(now, &plan, sources, effects))
            }
            Op::Snapshot(op) => self.perform_on_snapshot(caller, now, op, effects),
            Op::Erasure(op) => self.perform_erasure(caller, now, op, effects),
            Op::Node(op) => self.perform_on_node(caller, op, effects),
        }
    }

    fn plan(&self, request: &Request) -> Result<Option<Reply>> {
        let caller = &request.caller;
        match &request.op {
            Op::Mkdirs { .. }
            | Op::Rename { .. }
            | Op::Delete { .. }
            | Op::Link { .. }
            | Op::SetPermission { .. }
            | Op::SetOwner { .. }
            | Op::SetTimes { .. }
            | Op::SetReplication { .. } => self.plan_verb(caller, &request.op),
            Op::Create { .. }
            | Op::Append { .. }
            | Op::AddBlock { .. }
            | Op::AbandonBlock { .. }
            | Op::UpdateBlockForPipeline { .. }
            | Op::UpdatePipeline { .. }
            | Op::Fsync { .. }
            | Op::Complete { .. } => self.plan_on_file(caller, &request.op),
            Op::Truncate { .. }
            | Op::RecoverLease { .. }
            | Op::BeginBlockRecovery { .. }
            | Op::CommitBlockSynchronization { .. } => self.plan_recovery(caller, &request.op),
            Op::PublishVersion { .. }
            | Op::ActivateVersion { .. }
            | Op::SetVersionState { .. }
            | Op::DeleteVersion { .. }
            | Op::DeleteStore { .. } => self.plan_on_store(caller, &request.op),
            Op::Quota(op) => self.plan_on_quota(caller, op),
            Op::Attribute(op) => self.plan_attribute(caller, op),
            Op::Concat { target, sources } => {
                self.plan_concat(caller, target, sources).map(|_| None)
            }
            Op::Snapshot(op) => self.plan_on_snapshot(caller, request.now_ns, op),
            Op::Erasure(op) => self.plan_erasure(caller, op),
            Op::Node(op) => self.plan_on_node(caller, op),
        }
    }

    /// The last transaction applied.
    pub fn txid(&self) -> Txid {
        Txid(self.counters.txid)
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        Counts {
            files: self.counters.files,
            folders: self.counters.folders,
            blocks: self.blocks.len() as u64,
            open_files: self.leases.len() as u64,
            retry_entries: self.retry.len() as u64,
        }
    }

    /// A block by its id.
    pub fn block(&self, id: BlockId) -> Option<BlockInfo> {
        self.slot_of_block(id).map(|slot| self.block_info(slot))
    }

    /// A block by its dense number.
    pub fn block_at(&self, slot: u32) -> Option<BlockInfo> {
        (slot < self.blocks.end() && self.blocks.get(slot).id != 0).then(|| self.block_info(slot))
    }

    /// Every block's slot is below this: the length that parallel arrays need.
    pub fn block_slots_end(&self) -> u32 {
        self.blocks.end()
    }

    /// All blocks, in the order of their slots.
    pub fn all_blocks(&self) -> impl Iterator<Item = BlockInfo> {
        self.blocks.iter().map(|(slot, _)| self.block_info(slot))
    }

    /// The blocks of a file, in its order; none for a folder or what is gone, unless a snapshot holds the last block of
    /// it and that is to be recovered.
    pub fn blocks_of_inode(&self, inode: InodeId) -> Vec<BlockInfo> {
        let slot = self.slot_of_inode(inode).filter(|&slot| !self.inodes.get(slot).is_folder());
        let blocks =
            slot.map_or_else(|| self.blocks_to_recover(inode), |slot| self.blocks_of(slot));
        blocks.iter().map(|&slot| self.block_info(slot)).collect()
    }

    /// Who writes a file; `None` if it is closed or gone.
    pub fn lease(&self, inode: InodeId) -> Option<&Lease> {
        self.leases.get(inode)
    }

    /// All open files, in the order of their inodes.
    pub fn leases(&self) -> impl Iterator<Item = (InodeId, &Lease)> {
        self.leases.iter()
    }

    /// The files that a holder has open.
    pub fn files_of_holder(&self, holder: &str) -> Vec<InodeId> {
        self.leases.files_of(holder).collect()
    }

    /// A store of the catalogue.
    pub fn store(&self, name: &str) -> Option<&Store> {
        self.catalogue.stores.get(name)
    }

    /// All stores, in the order of their names.
    pub fn stores(&self) -> impl Iterator<Item = &Store> {
        self.catalogue.stores.values()
    }

    /// The last transaction that changed the catalogue.
    pub fn catalogue_txid(&self) -> Txid {
        Txid(self.catalogue.changed_txid)
    }

    /// Bytes of memory that files, folders, names and blocks take, by what their structures have allocated.
    pub fn memory_bytes(&self) -> usize {
        self.inodes.memory_bytes()
            + self.lists.memory_bytes()
            + self.blocks.memory_bytes()
            + self.nodes.memory_bytes()
            + self.inode_slots.memory_bytes()
            + self.block_slots.memory_bytes()
            + self.group_slots.memory_bytes()
            + self.attributes.memory_bytes()
            + self.snapshots.memory_bytes()
    }

    pub(crate) fn block_info(&self, slot: u32) -> BlockInfo {
        let record = self.blocks.get(slot);
        let inode = self.inodes.get(record.inode);
        BlockInfo {
            id: BlockId(record.id),
            slot,
            stamp: GenerationStamp(record.stamp()),
            length: record.length(),
            shown: record.length(),
            state: match record.state() {
                0 => BlockState::BeingWritten,
                1 => BlockState::Complete,
                _ => BlockState::UnderRecovery,
            },
            inode: InodeId(inode.id),
            replication: if record.is_group() { 1 } else { self.replication_of(record.inode) },
            policy: if record.is_group() { self.layout(record.inode).policy } else { 0 },
        }
    }

    /// Puts a record with the next identity in place. Names and counts of folders are the caller's business.
    pub(crate) fn add_inode(&mut self, inode: Inode) -> u32 {
        assert!(inode.id == self.counters.next_inode, "identities are given in sequence");
        self.counters.next_inode += 1;
        let id = inode.id;
        if inode.is_folder() {
            self.counters.folders += 1
        } else {
            self.counters.files += 1
        }
        let slot = self.inodes.insert(inode);
        self.inode_slots.insert(id - InodeId::ROOT.0, slot);
        slot
    }

    pub(crate) fn next_inode(&self) -> InodeId {
        InodeId(self.counters.next_inode)
    }

    pub(crate) fn mint_stamp(&mut self) -> GenerationStamp {
        let stamp = GenerationStamp(self.counters.next_stamp);
        self.counters.next_stamp += 1;
        stamp
    }
}

/// Tells calls apart that wrongly share an id.
fn fingerprint(op: &Op) -> u32 {
    let mut bytes = Vec::with_capacity(128);
    crate::op::encode_op(op, &mut bytes);
    crc32fast::hash(&bytes)
}
