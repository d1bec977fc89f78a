//! The bytes of a request in the journal, and of replies and tables in a checkpoint. See docs/formats/journal.md.
//!
//! A request is: version, caller, call id, time, tag of the operation, its fields in the order of their declaration.
//! Tags are never reused. Decoding is total: bytes that are not a request are an error that tells the offset.

use proto::granary::{FileStatus, TableInfo};
use proto::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX, PRINCIPAL_BYTES_MAX};
use proto::{BlockId, FsPath, GenerationStamp, InodeId};

use super::attribute::{AttributeOp, CONCAT_SOURCES_MAX};
use super::erasure::{self, ErasureOp};
use super::node::{self, NodeOp};
use super::quota::{self, QuotaOp};
use super::snapshot::{self, SnapshotOp};
use super::{
    Block, BlockRecovery, CallId, Caller, ERROR_TEXT_BYTES_MAX, FileRef, GROUPS_MAX, Op,
    RenameMode, Reply, Request, TABLES_MAX, Verdict,
};
use crate::coding::{
    Malformed, Reader, put_bool, put_i64, put_text, put_u8, put_u16, put_u32, put_u64,
};

/// The version of the encoding that is written.
const VERSION: u8 = 1;
/// The largest request that is journaled, in bytes.
pub const REQUEST_BYTES_MAX: usize = 16 << 20;
/// The fewest bytes a table takes.
const TABLE_BYTES_MIN: usize = 4 + 8 + 8 + 4 + 4 + 4;

pub(super) type Decoded<T> = Result<T, Malformed>;

impl Request {
    /// Appends the journal's form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u8(out, VERSION);
        encode_caller(&self.caller, out);
        put_bool(out, self.call_id.is_some());
        if let Some(id) = &self.call_id {
            out.extend_from_slice(&id.client);
            put_u64(out, id.call);
        }
        put_i64(out, self.now_ns);
        encode_op(&self.op, out);
    }

    /// Reads what [`Request::encode`] wrote; nothing may follow.
    pub fn decode(bytes: &[u8]) -> Decoded<Self> {
        let mut r = Reader::new(bytes);
        let malformed = r.malformed("version 1 of a request");
        if r.u8()? != VERSION {
            return Err(malformed);
        }
        let caller = decode_caller(&mut r)?;
        let call_id =
            if r.bool()? { Some(CallId { client: r.id16()?, call: r.u64()? }) } else { None };
        let now_ns = r.i64()?;
        let op = decode_op(&mut r)?;
        r.end()?;
        Ok(Self { caller, call_id, now_ns, op })
    }
}

fn encode_caller(caller: &Caller, out: &mut Vec<u8>) {
    put_text(out, &caller.user);
    put_u16(out, u16::try_from(caller.groups.len()).expect("the log bounds the groups"));
    for group in &caller.groups {
        put_text(out, group);
    }
    put_bool(out, caller.superuser);
}

fn decode_caller(r: &mut Reader<'_>) -> Decoded<Caller> {
    let user = principal(r)?;
    let malformed = r.malformed("at most 256 groups");
    let count = usize::from(r.u16()?);
    if count > GROUPS_MAX {
        return Err(malformed);
    }
    let groups = (0..count).map(|_| principal(r)).collect::<Decoded<Vec<_>>>()?;
    Ok(Caller { user, groups, superuser: r.bool()? })
}

pub(super) fn principal(r: &mut Reader<'_>) -> Decoded<String> {
    r.text(PRINCIPAL_BYTES_MAX).map(str::to_owned)
}

pub(super) fn put_path(out: &mut Vec<u8>, path: &FsPath) {
    put_text(out, path.as_str());
}

pub(super) fn path(r: &mut Reader<'_>) -> Decoded<FsPath> {
    let malformed = r.malformed("a path");
    let text = r.text(PATH_BYTES_MAX)?;
    let path = FsPath::parse(text).map_err(|_| malformed.clone())?;
    if path.as_str() == text { Ok(path) } else { Err(malformed) }
}

fn encode_block(block: &Block, out: &mut Vec<u8>) {
    put_u64(out, block.id.0);
    put_u64(out, block.stamp.0);
    put_u64(out, block.length);
}

fn decode_block(r: &mut Reader<'_>) -> Decoded<Block> {
    Ok(Block { id: BlockId(r.u64()?), stamp: GenerationStamp(r.u64()?), length: r.u64()? })
}

fn put_maybe_block(out: &mut Vec<u8>, block: Option<&Block>) {
    put_bool(out, block.is_some());
    if let Some(block) = block {
        encode_block(block, out);
    }
}

fn maybe_block(r: &mut Reader<'_>) -> Decoded<Option<Block>> {
    if r.bool()? { decode_block(r).map(Some) } else { Ok(None) }
}

fn put_maybe_u64(out: &mut Vec<u8>, value: Option<u64>) {
    put_bool(out, value.is_some());
    if let Some(value) = value {
        put_u64(out, value);
    }
}

fn maybe_u64(r: &mut Reader<'_>) -> Decoded<Option<u64>> {
    if r.bool()? { r.u64().map(Some) } else { Ok(None) }
}

fn put_maybe_i64(out: &mut Vec<u8>, value: Option<i64>) {
    put_bool(out, value.is_some());
    if let Some(value) = value {
        put_i64(out, value);
    }
}

fn maybe_i64(r: &mut Reader<'_>) -> Decoded<Option<i64>> {
    if r.bool()? { r.i64().map(Some) } else { Ok(None) }
}

/// The numbers 0 and 1 are also what an older version wrote as "does it replace".
fn rename_mode_number(mode: RenameMode) -> u8 {
    match mode {
        RenameMode::NoReplace => 0,
        RenameMode::Replace => 1,
        RenameMode::Into => 2,
    }
}

fn rename_mode(r: &mut Reader<'_>) -> Decoded<RenameMode> {
    let malformed = r.malformed("a mode of a rename");
    match r.u8()? {
        0 => Ok(RenameMode::NoReplace),
        1 => Ok(RenameMode::Replace),
        2 => Ok(RenameMode::Into),
        _ => Err(malformed),
    }
}

fn put_file(out: &mut Vec<u8>, file: &FileRef, holder: &str) {
    put_path(out, &file.path);
    put_maybe_u64(out, file.inode.map(|inode| inode.0));
    put_text(out, holder);
}

fn file(r: &mut Reader<'_>) -> Decoded<(FileRef, String)> {
    let path = path(r)?;
    let inode = maybe_u64(r)?.map(InodeId);
    Ok((FileRef { path, inode }, principal(r)?))
}

pub(crate) fn encode_table(table: &TableInfo, out: &mut Vec<u8>) {
    put_text(out, &table.path);
    put_u64(out, table.bytes);
    put_u64(out, table.records);
    put_u32(out, table.slot_first);
    put_u32(out, table.slot_last);
    put_u32(out, table.footer_crc32);
}

pub(crate) fn decode_table(r: &mut Reader<'_>) -> Decoded<TableInfo> {
    Ok(TableInfo {
        path: r.text(PATH_BYTES_MAX)?.to_owned(),
        bytes: r.u64()?,
        records: r.u64()?,
        slot_first: r.u32()?,
        slot_last: r.u32()?,
        footer_crc32: r.u32()?,
    })
}

fn tables(r: &mut Reader<'_>) -> Decoded<Vec<TableInfo>> {
    let malformed = r.malformed("at most 10000 tables");
    let count = r.count(TABLE_BYTES_MIN)?;
    if count > TABLES_MAX {
        return Err(malformed);
    }
    (0..count).map(|_| decode_table(r)).collect()
}

/// The mode before the umask; its tag says whether there is one.
fn put_unmasked(out: &mut Vec<u8>, unmasked: Option<u32>) {
    if let Some(mode) = unmasked {
        put_u32(out, mode);
    }
}

fn sources(r: &mut Reader<'_>) -> Decoded<Vec<FsPath>> {
    let malformed = r.malformed("at most 100000 sources");
    let count = r.count(5)?;
    if count > CONCAT_SOURCES_MAX {
        return Err(malformed);
    }
    (0..count).map(|_| path(r)).collect()
}

#[allow(clippy::too_many_lines, reason = "one arm per tag, as in decode_op")]
pub(crate) fn encode_op(op: &Op, out: &mut Vec<u8>) {
    match op {
        Op::Create { erasure: Some(policy), .. } => erasure::encode_create(op, *policy, out),
        Op::Mkdirs { path, mode, unmasked, create_parents } => {
            put_u8(out, if unmasked.is_some() { 44 } else { 1 });
            put_path(out, path);
            put_u32(out, *mode);
            put_bool(out, *create_parents);
            put_unmasked(out, *unmasked);
        }
        Op::Create {
            path,
            holder,
            mode,
            unmasked,
            overwrite,
            create_parents,
            replication,
            block_bytes,
            erasure: None,
        } => {
            put_u8(out, if unmasked.is_some() { 45 } else { 2 });
            put_path(out, path);
            put_text(out, holder);
            put_u32(out, *mode);
            put_bool(out, *overwrite);
            put_bool(out, *create_parents);
            put_u32(out, *replication);
            put_u64(out, *block_bytes);
            put_unmasked(out, *unmasked);
        }
        Op::Append { path, holder, new_block } => {
            put_u8(out, if *new_block { 26 } else { 3 });
            put_path(out, path);
            put_text(out, holder);
        }
        Op::AddBlock { file, holder, previous } => {
            put_u8(out, 4);
            put_file(out, file, holder);
            put_maybe_block(out, previous.as_ref());
        }
        Op::AbandonBlock { file, holder, block } => {
            put_u8(out, 5);
            put_file(out, file, holder);
            encode_block(block, out);
        }
        Op::UpdateBlockForPipeline { block, holder } => {
            put_u8(out, 6);
            encode_block(block, out);
            put_text(out, holder);
        }
        Op::UpdatePipeline { holder, old_block, new_block } => {
            put_u8(out, 7);
            put_text(out, holder);
            encode_block(old_block, out);
            encode_block(new_block, out);
        }
        Op::Fsync { file, holder, last_block_length } => {
            put_u8(out, 8);
            put_file(out, file, holder);
            put_u64(out, *last_block_length);
        }
        Op::Complete { file, holder, last } => {
            put_u8(out, 9);
            put_file(out, file, holder);
            put_maybe_block(out, last.as_ref());
        }
        Op::Rename { source, target, mode } => {
            put_u8(out, 10);
            put_path(out, source);
            put_path(out, target);
            put_u8(out, rename_mode_number(*mode));
        }
        Op::Delete { path, recursive } => {
            put_u8(out, 11);
            put_path(out, path);
            put_bool(out, *recursive);
        }
        Op::Link { source, target } => {
            put_u8(out, 12);
            put_path(out, source);
            put_path(out, target);
        }
        Op::Truncate { path, length, holder } => {
            put_u8(out, 13);
            put_path(out, path);
            put_u64(out, *length);
            put_text(out, holder);
        }
        Op::SetPermission { path, mode } => {
            put_u8(out, 14);
            put_path(out, path);
            put_u32(out, *mode);
        }
        Op::SetOwner { path, owner, group } => {
            put_u8(out, 15);
            put_path(out, path);
            put_text(out, owner);
            put_text(out, group);
        }
        Op::SetTimes { path, modified_ns, accessed_ns } => {
            put_u8(out, 16);
            put_path(out, path);
            put_maybe_i64(out, *modified_ns);
            put_maybe_i64(out, *accessed_ns);
        }
        Op::SetReplication { path, replication } => {
            put_u8(out, 17);
            put_path(out, path);
            put_u32(out, *replication);
        }
        Op::RecoverLease { path, holder } => {
            put_u8(out, 18);
            put_path(out, path);
            put_text(out, holder);
        }
        Op::BeginBlockRecovery { inode } => {
            put_u8(out, 19);
            put_u64(out, inode.0);
        }
        Op::CommitBlockSynchronization {
            block,
            new_stamp,
            new_length,
            close_file,
            delete_block,
        } => {
            put_u8(out, 20);
            encode_block(block, out);
            put_u64(out, new_stamp.0);
            put_u64(out, *new_length);
            put_bool(out, *close_file);
            put_bool(out, *delete_block);
        }
        Op::PublishVersion { store, folder, tables, activate, keep_versions } => {
            put_u8(out, 21);
            put_text(out, store);
            put_path(out, folder);
            put_u32(out, u32::try_from(tables.len()).expect("the log bounds the tables"));
            for table in tables {
                encode_table(table, out);
            }
            put_bool(out, *activate);
            put_u32(out, *keep_versions);
        }
        Op::ActivateVersion { store, version } => {
            put_u8(out, 22);
            put_text(out, store);
            put_u64(out, *version);
        }
        Op::SetVersionState { store, version, verdict } => {
            put_u8(out, 23);
            put_text(out, store);
            put_u64(out, *version);
            put_bool(out, matches!(verdict, Verdict::Failed(_)));
            if let Verdict::Failed(why) = verdict {
                put_text(out, why);
            }
        }
        Op::DeleteVersion { store, version } => {
            put_u8(out, 24);
            put_text(out, store);
            put_u64(out, *version);
        }
        Op::DeleteStore { store } => {
            put_u8(out, 25);
            put_text(out, store);
        }
        Op::Quota(op) => op.encode(out),
        Op::Attribute(op) => {
            put_u8(out, 40);
            op.encode(out);
        }
        Op::Concat { target, sources } => {
            put_u8(out, 43);
            put_path(out, target);
            put_u32(out, u32::try_from(sources.len()).expect("a message has fewer paths"));
            for source in sources {
                put_path(out, source);
            }
        }
        Op::Snapshot(op) => op.encode(out),
        Op::Erasure(op) => op.encode(out),
        Op::Node(op) => op.encode(out),
    }
}

#[allow(clippy::too_many_lines, reason = "one arm per tag, as in encode_op")]
fn decode_op(r: &mut Reader<'_>) -> Decoded<Op> {
    let malformed = r.malformed("a known operation tag");
    Ok(match r.u8()? {
        tag @ (1 | 44) => {
            let (path, mode, create_parents) = (path(r)?, r.u32()?, r.bool()?);
            let unmasked = if tag == 44 { Some(r.u32()?) } else { None };
            Op::Mkdirs { path, mode, unmasked, create_parents }
        }
        tag @ (2 | 45) => Op::Create {
            path: path(r)?,
            holder: principal(r)?,
            mode: r.u32()?,
            overwrite: r.bool()?,
            create_parents: r.bool()?,
            replication: r.u32()?,
            block_bytes: r.u64()?,
            unmasked: if tag == 45 { Some(r.u32()?) } else { None },
            erasure: None,
        },
        tag @ (3 | 26) => {
            Op::Append { path: path(r)?, holder: principal(r)?, new_block: tag == 26 }
        }
        4 => {
            let (file, holder) = file(r)?;
            Op::AddBlock { file, holder, previous: maybe_block(r)? }
        }
        5 => {
            let (file, holder) = file(r)?;
            Op::AbandonBlock { file, holder, block: decode_block(r)? }
        }
        6 => Op::UpdateBlockForPipeline { block: decode_block(r)?, holder: principal(r)? },
        7 => Op::UpdatePipeline {
            holder: principal(r)?,
            old_block: decode_block(r)?,
            new_block: decode_block(r)?,
        },
        8 => {
            let (file, holder) = file(r)?;
            Op::Fsync { file, holder, last_block_length: r.u64()? }
        }
        9 => {
            let (file, holder) = file(r)?;
            Op::Complete { file, holder, last: maybe_block(r)? }
        }
        10 => Op::Rename { source: path(r)?, target: path(r)?, mode: rename_mode(r)? },
        11 => Op::Delete { path: path(r)?, recursive: r.bool()? },
        12 => Op::Link { source: path(r)?, target: path(r)? },
        13 => Op::Truncate { path: path(r)?, length: r.u64()?, holder: principal(r)? },
        14 => Op::SetPermission { path: path(r)?, mode: r.u32()? },
        15 => Op::SetOwner { path: path(r)?, owner: principal(r)?, group: principal(r)? },
        16 => {
            Op::SetTimes { path: path(r)?, modified_ns: maybe_i64(r)?, accessed_ns: maybe_i64(r)? }
        }
        17 => Op::SetReplication { path: path(r)?, replication: r.u32()? },
        18 => Op::RecoverLease { path: path(r)?, holder: principal(r)? },
        19 => Op::BeginBlockRecovery { inode: InodeId(r.u64()?) },
        20 => Op::CommitBlockSynchronization {
            block: decode_block(r)?,
            new_stamp: GenerationStamp(r.u64()?),
            new_length: r.u64()?,
            close_file: r.bool()?,
            delete_block: r.bool()?,
        },
        21 => Op::PublishVersion {
            store: principal(r)?,
            folder: path(r)?,
            tables: tables(r)?,
            activate: r.bool()?,
            keep_versions: r.u32()?,
        },
        22 => Op::ActivateVersion { store: principal(r)?, version: r.u64()? },
        23 => Op::SetVersionState {
            store: principal(r)?,
            version: r.u64()?,
            verdict: if r.bool()? {
                Verdict::Failed(r.text(ERROR_TEXT_BYTES_MAX)?.to_owned())
            } else {
                Verdict::Ready
            },
        },
        24 => Op::DeleteVersion { store: principal(r)?, version: r.u64()? },
        25 => Op::DeleteStore { store: principal(r)? },
        quota::TAG => QuotaOp::decode(r)?,
        40 => Op::Attribute(AttributeOp::decode(r)?),
        43 => Op::Concat { target: path(r)?, sources: sources(r)? },
        snapshot::TAG => SnapshotOp::decode(r)?,
        erasure::TAG => ErasureOp::decode(r)?,
        node::TAG => NodeOp::decode(r)?,
        _ => return Err(malformed),
    })
}

fn encode_status(status: &FileStatus, out: &mut Vec<u8>) {
    put_u64(out, status.inode);
    put_text(out, &status.name);
    let coding = (status.erasure_policy as u8) << 4;
    put_u8(out, u8::try_from(status.kind).unwrap_or(0) | coding);
    put_u64(out, status.length);
    put_u32(out, status.mode);
    put_text(out, &status.owner);
    put_text(out, &status.group);
    put_i64(out, status.modified_ns);
    put_i64(out, status.accessed_ns);
    put_i64(out, status.changed_ns);
    put_u32(out, status.replication);
    put_u64(out, status.block_bytes);
    put_u64(out, status.children);
    let (open, acl) = (u8::from(status.open_for_write), u8::from(status.has_acl));
    put_u8(out, open | acl << 1 | (status.storage_policy as u8) << 4);
    put_u32(out, status.links);
}

fn decode_status(r: &mut Reader<'_>) -> Decoded<FileStatus> {
    let (inode, name) = (r.u64()?, r.text(NAME_BYTES_MAX)?.to_owned());
    // The kind, and an erasure-coding policy in the high half.
    let kind = r.u8()?;
    let mut status = FileStatus {
        inode,
        name,
        kind: i32::from(kind & 0xf),
        erasure_policy: u32::from(kind >> 4),
        length: r.u64()?,
        mode: r.u32()?,
        owner: principal(r)?,
        group: principal(r)?,
        modified_ns: r.i64()?,
        accessed_ns: r.i64()?,
        changed_ns: r.i64()?,
        replication: r.u32()?,
        block_bytes: r.u64()?,
        children: r.u64()?,
        ..FileStatus::default()
    };
    let malformed = r.malformed("flags open 1, ACL 2, and a storage policy in the high half");
    let flags = r.u8()?;
    if flags & 0b1100 != 0 {
        return Err(malformed);
    }
    (status.open_for_write, status.has_acl) = (flags & 1 != 0, flags & 2 != 0);
    status.storage_policy = u32::from(flags >> 4);
    status.links = r.u32()?;
    Ok(status)
}

/// Appends a reply as the retry cache keeps it in a checkpoint.
pub(crate) fn encode_reply(reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Done => put_u8(out, 1),
        Reply::Created(new) => {
            put_u8(out, 2);
            put_bool(out, *new);
        }
        Reply::File(status) => {
            put_u8(out, 3);
            encode_status(status, out);
        }
        Reply::Appended { status, last_block, last_block_offset } => {
            put_u8(out, 4);
            encode_status(status, out);
            put_maybe_block(out, last_block.as_ref());
            put_u64(out, *last_block_offset);
        }
        Reply::BlockAllocated { block, offset, inode, replication, block_bytes } => {
            put_u8(out, 5);
            encode_block(block, out);
            put_u64(out, *offset);
            put_u64(out, inode.0);
            put_u32(out, *replication);
            put_u64(out, *block_bytes);
        }
        Reply::Stamped(block) => {
            put_u8(out, 6);
            encode_block(block, out);
        }
        Reply::Completed { inode } => {
            put_u8(out, 7);
            put_u64(out, inode.0);
        }
        Reply::Deleted(was) => {
            put_u8(out, 8);
            put_bool(out, *was);
        }
        Reply::Recovering { closed, recovery } => {
            put_u8(out, 9);
            put_bool(out, *closed);
            put_bool(out, recovery.is_some());
            if let Some(recovery) = recovery {
                encode_block(&recovery.block, out);
                put_u64(out, recovery.new_stamp.0);
                put_maybe_u64(out, recovery.new_length);
                put_u64(out, recovery.inode.0);
            }
        }
        Reply::Version(number) => {
            put_u8(out, 10);
            put_u64(out, *number);
        }
        Reply::Snapshot(path) => {
            put_u8(out, 60);
            put_path(out, path);
        }
    }
}

/// Reads what [`encode_reply`] wrote.
pub(crate) fn decode_reply(r: &mut Reader<'_>) -> Decoded<Reply> {
    let malformed = r.malformed("a known reply tag");
    Ok(match r.u8()? {
        1 => Reply::Done,
        2 => Reply::Created(r.bool()?),
        3 => Reply::File(Box::new(decode_status(r)?)),
        4 => Reply::Appended {
            status: Box::new(decode_status(r)?),
            last_block: maybe_block(r)?,
            last_block_offset: r.u64()?,
        },
        5 => Reply::BlockAllocated {
            block: decode_block(r)?,
            offset: r.u64()?,
            inode: InodeId(r.u64()?),
            replication: r.u32()?,
            block_bytes: r.u64()?,
        },
        6 => Reply::Stamped(decode_block(r)?),
        7 => Reply::Completed { inode: InodeId(r.u64()?) },
        8 => Reply::Deleted(r.bool()?),
        9 => {
            let closed = r.bool()?;
            let recovery = if r.bool()? {
                Some(BlockRecovery {
                    block: decode_block(r)?,
                    new_stamp: GenerationStamp(r.u64()?),
                    new_length: maybe_u64(r)?,
                    inode: InodeId(r.u64()?),
                    // Only a truncate is kept, and what is striped is not truncated.
                    policy: 0,
                })
            } else {
                None
            };
            Reply::Recovering { closed, recovery }
        }
        10 => Reply::Version(r.u64()?),
        60 => Reply::Snapshot(path(r)?),
        _ => return Err(malformed),
    })
}
