//! HDFS's messages from ours: files, blocks, DataNodes.
//!
//! Times are milliseconds there and nanoseconds here; a mode has no set-id bits there. What HDFS has and this NameNode
//! has not (tokens, caches, encryption) is left empty, where the protocol demands it also empty.

use proto::granary::{self, DatanodeAddress, FileKind, FileStatus, LocatedBlock};
use proto::hadoop::hdfs::*;
use proto::{BlockId, GenerationStamp};

use super::erasure::coded_by;
use crate::op;

/// Permission bits that HDFS knows: POSIX's and the sticky bit.
pub const MODE_BITS: u32 = 0o1777;
/// The flag of a file or folder with an access control list.
const FLAG_ACL: u32 = 1;
/// The flag of a file that is erasure coded, and of a folder in which new ones are.
const FLAG_CODED: u32 = 4;
/// The flag of a folder that may have snapshots.
const FLAG_SNAPSHOTTABLE: u32 = 8;

/// A file or folder; `name` is what a listing calls it, empty elsewhere.
pub fn file_status(status: &FileStatus, name: &str) -> HdfsFileStatusProto {
    let folder = status.kind() == FileKind::Folder;
    let kind = if folder {
        hdfs_file_status_proto::FileType::IsDir
    } else {
        hdfs_file_status_proto::FileType::IsFile
    };
    HdfsFileStatusProto {
        file_type: kind as i32,
        path: name.as_bytes().to_vec().into(),
        length: if folder { 0 } else { status.length },
        permission: FsPermissionProto { perm: status.mode & MODE_BITS },
        owner: status.owner.clone(),
        group: status.group.clone(),
        modification_time: millis(status.modified_ns),
        access_time: millis(status.accessed_ns),
        block_replication: Some(status.replication),
        blocksize: Some(status.block_bytes),
        file_id: Some(status.inode),
        children_num: Some(i32::try_from(status.children).unwrap_or(i32::MAX)),
        storage_policy: Some(status.storage_policy),
        flags: Some(flags(status)),
        ec_policy: coded_by(status.erasure_policy),
        ..Default::default()
    }
}

/// What else HDFS tells of a file or folder.
fn flags(status: &FileStatus) -> u32 {
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    flag(status.has_acl, FLAG_ACL)
        | flag(status.erasure_policy != 0, FLAG_CODED)
        | flag(status.snapshottable, FLAG_SNAPSHOTTABLE)
}

/// Milliseconds since 1970-01-01 UTC; 0 for what was before.
pub fn millis(ns: i64) -> u64 {
    u64::try_from(ns / 1_000_000).unwrap_or(0)
}

/// A block as HDFS names it.
pub fn extended_block(pool_id: &str, block: &granary::Block) -> ExtendedBlockProto {
    ExtendedBlockProto {
        pool_id: pool_id.to_owned(),
        block_id: block.id,
        generation_stamp: block.generation_stamp,
        num_bytes: Some(block.length),
    }
}

/// A block that a client names.
pub fn block(block: &ExtendedBlockProto) -> op::Block {
    op::Block {
        id: BlockId(block.block_id),
        stamp: GenerationStamp(block.generation_stamp),
        length: block.num_bytes(),
    }
}

/// A block and where it is. Of a block group, each location has the number of its unit, and a token of its own.
pub fn located_block(pool_id: &str, located: &LocatedBlock) -> LocatedBlockProto {
    let striped = located.erasure_policy != 0;
    LocatedBlockProto {
        b: extended_block(pool_id, &located.block.unwrap_or_default()),
        offset: located.offset,
        locs: located.locations.iter().map(datanode_info).collect(),
        corrupt: located.corrupt,
        block_token: no_token(),
        storage_types: vec![StorageTypeProto::Disk as i32; located.locations.len()],
        storage_i_ds: located.locations.iter().map(|at| storage_id(&at.uuid)).collect(),
        block_indices: striped.then(|| located.units.clone()),
        block_tokens: vec![no_token(); located.units.len()],
        is_cached: Vec::new(),
    }
}

/// A file's blocks.
pub fn located_blocks(pool_id: &str, located: &granary::LocatedBlocks) -> LocatedBlocksProto {
    let status = located.status.clone().unwrap_or_default();
    let last = located.last_block.as_ref();
    let unfinished = last.filter(|_| !located.last_block_complete);
    let unfinished_bytes = unfinished.and_then(|last| last.block).map_or(0, |block| block.length);
    LocatedBlocksProto {
        // Without the last block while that is written: its length is the DataNode's to tell.
        file_length: status.length.saturating_sub(unfinished_bytes),
        blocks: located.blocks.iter().map(|block| located_block(pool_id, block)).collect(),
        under_construction: located.under_construction,
        last_block: last.map(|block| located_block(pool_id, block)),
        is_last_block_complete: last.is_some() && located.last_block_complete,
        file_encryption_info: None,
        ec_policy: coded_by(status.erasure_policy),
    }
}

/// A DataNode as the place of a replica.
pub fn datanode_info(address: &DatanodeAddress) -> DatanodeInfoProto {
    DatanodeInfoProto {
        id: DatanodeIdProto {
            ip_addr: address.host.clone(),
            host_name: address.host.clone(),
            datanode_uuid: address.uuid.clone(),
            xfer_port: address.data_port,
            info_port: address.http_port,
            ipc_port: address.ipc_port,
            info_secure_port: None,
        },
        location: Some(address.rack.clone()),
        ..Default::default()
    }
}

/// A DataNode's replicas are under one name, whichever volume they are on.
pub fn storage_id(uuid: &str) -> String {
    format!("DS-{uuid}")
}

/// The token that must be there where no token is needed.
pub fn no_token() -> TokenProto {
    TokenProto::default()
}
