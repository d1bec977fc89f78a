//! ClientNamenodeProtocol: files that are written and read. Create, append, blocks, pipelines, leases, locations.
//!
//! Lease holders are the clients' names; a file that was opened is named by its number if the client sends it, so that
//! a rename in the meantime does not matter.

use ipc::exceptions;
use proto::granary::{self, FileKind};
use proto::hadoop::hdfs::*;
use proto::{BlockId, Code, Error, InodeId};

use super::Asked;
use super::convert::{self, file_status, located_block, located_blocks};
use super::errors::{Answered, Failure};
use super::namespace::status_of;
use crate::cluster::placement;

/// Of a new block: not on the writer's own machine, or without regard to where the writer is.
const NOT_NEAR: [i32; 2] =
    [AddBlockFlagProto::NoLocalWrite as i32, AddBlockFlagProto::IgnoreClientLocality as i32];
/// DataNodes that a writer may wish for; what he names beyond is passed over.
const FAVOURED_MAX: usize = 64;
/// Blocks in one answer to getBlockLocations, of about 400 bytes each with three replicas: clients take 128 MiB.
const LOCATED_BLOCKS_MAX: usize = 200_000;
/// A host that no DataNode has.
const NO_HOST: &str = "-";

fn has(flags: u32, flag: CreateFlagProto) -> bool {
    flags & flag as u32 != 0
}

pub async fn create(asked: Asked, request: CreateRequestProto) -> Answered<CreateResponseProto> {
    let overwrite = has(request.create_flag, CreateFlagProto::Overwrite);
    let path = asked.new_path(&request.src)?;
    if !has(request.create_flag, CreateFlagProto::Create) {
        let missing = !overwrite || status_of(&asked, &request.src)?.is_none();
        if missing {
            let message = format!("{path} does not exist, and the call is not to create it");
            return Err(Failure::java(exceptions::FILE_NOT_FOUND, message));
        }
    }
    let erasure_policy = coding(&asked, &request)?;
    if request.replication == 0 {
        let message = format!("{path}: replication 0 is less than the least, 1");
        return Err(Failure::java(exceptions::IO, message));
    }
    let message = granary::CreateRequest {
        caller: asked.caller(),
        path: path.to_string(),
        holder: request.client_name,
        mode: request.masked.perm & convert::MODE_BITS,
        unmasked: request.unmasked.map(|mode| mode.perm & convert::MODE_BITS),
        overwrite,
        create_parents: request.create_parent,
        replication: request.replication,
        block_bytes: request.block_size,
        erasure_policy,
    };
    let reply = asked.node.create(message, asked.peer()).await?;
    Ok(CreateResponseProto { fs: reply.status.map(|status| file_status(&status, "")) })
}

/// How a new file is to be coded, if the client says so.
fn coding(asked: &Asked, request: &CreateRequestProto) -> Answered<Option<u32>> {
    let named = request.ec_policy_name.as_deref().filter(|name| !name.is_empty());
    match (named, has(request.create_flag, CreateFlagProto::ShouldReplicate)) {
        (Some(_), true) => {
            let message = "SHOULD_REPLICATE flag and ecPolicyName are exclusive parameters.";
            Err(Failure::java(exceptions::HADOOP_ILLEGAL_ARGUMENT, message))
        }
        (Some(name), false) => super::erasure::wanted(asked, name).map(|id| Some(id.into())),
        (None, true) => Ok(Some(0)),
        (None, false) => Ok(None),
    }
}

pub async fn append(asked: Asked, request: AppendRequestProto) -> Answered<AppendResponseProto> {
    let message = granary::AppendRequest {
        caller: asked.caller(),
        path: asked.path(&request.src)?.to_string(),
        new_block: has(request.flag(), CreateFlagProto::NewBlock),
        holder: request.client_name,
    };
    let reply = asked.node.append(message, asked.peer()).await.map_err(|error| {
        Failure::from(error).with_class(Code::IsFolder, exceptions::ALREADY_EXISTS)
    })?;
    let pool_id = &asked.node.pool_id;
    Ok(AppendResponseProto {
        block: reply.last_block.map(|block| located_block(pool_id, &block)),
        stat: reply.status.map(|status| file_status(&status, "")),
    })
}

pub async fn truncate(
    asked: Asked,
    request: TruncateRequestProto,
) -> Answered<TruncateResponseProto> {
    let message = granary::TruncateRequest {
        caller: asked.caller(),
        path: asked.path(&request.src)?.to_string(),
        length: request.new_length,
        holder: request.client_name,
    };
    let reply = asked.node.truncate(message, asked.peer()).await?;
    Ok(TruncateResponseProto { result: reply.done })
}

pub async fn add_block(
    asked: Asked,
    request: AddBlockRequestProto,
) -> Answered<AddBlockResponseProto> {
    let far = request.flags.iter().any(|flag| NOT_NEAR.contains(flag));
    let message = granary::AddBlockRequest {
        caller: asked.caller(),
        path: open_path(&asked, &request.src, request.file_id())?,
        inode: request.file_id(),
        holder: request.client_name,
        previous: request.previous.as_ref().map(|block| block_of(&asked, block)).transpose()?,
        excluded: uuids(request.exclude_nodes),
        client_host: if far { NO_HOST.to_owned() } else { String::new() },
        favoured: favoured(&asked, &request.favored_nodes),
    };
    let block = asked.node.add_block(message, asked.peer()).await.map_err(|error| {
        Failure::from(error)
            .with_class(Code::IsFolder, exceptions::LEASE_EXPIRED)
            // Just started, and the DataNodes are on their way: this is the error that writers wait on.
            .with_class(Code::Unavailable, exceptions::NOT_REPLICATED_YET)
    })?;
    Ok(AddBlockResponseProto { block: located_block(&asked.node.pool_id, &block) })
}

/// The path of an open file. Named by its number, the path is for messages alone: it may be anything.
fn open_path(asked: &Asked, path: &str, inode: u64) -> Answered<String> {
    match asked.path(path) {
        Ok(path) => Ok(path.to_string()),
        Err(error) if error.code == Code::NotFound && inode == 0 => {
            Err(Failure::java(exceptions::LEASE_EXPIRED, error.message))
        }
        Err(error) if error.code == Code::NotFound => Ok("/".to_owned()),
        Err(error) => Err(error.into()),
    }
}

/// A block that a client names: of this NameNode's pool.
fn block_of(asked: &Asked, block: &ExtendedBlockProto) -> Answered<granary::Block> {
    let expected = &asked.node.pool_id;
    if block.pool_id != *expected {
        let message = format!("Unexpected BlockPoolId {} - expected {expected}", block.pool_id);
        return Err(Failure::java(exceptions::IO, message));
    }
    Ok(convert::block(block).into())
}

fn uuids(nodes: Vec<DatanodeInfoProto>) -> Vec<String> {
    nodes.into_iter().map(|node| node.id.datanode_uuid).collect()
}

/// The uuids of DataNodes that a client names by host and port, in his order; a name that none has is passed over.
fn favoured(asked: &Asked, names: &[String]) -> Vec<String> {
    if names.is_empty() {
        return Vec::new();
    }
    asked.node.volatile.cluster(|cluster, _| {
        let named = |name: &String| {
            let (host, port) = name.rsplit_once(':')?;
            let port: u32 = port.parse().ok()?;
            let mut nodes = cluster.datanodes.living_nodes().map(|(_, node)| node);
            let found = nodes
                .find(|node| node.address.data_port == port && placement::is_on_host(node, host));
            found.map(|node| node.address.uuid.clone())
        };
        names.iter().take(FAVOURED_MAX).filter_map(named).collect()
    })
}

pub async fn abandon_block(
    asked: Asked,
    request: AbandonBlockRequestProto,
) -> Answered<AbandonBlockResponseProto> {
    let message = granary::AbandonBlockRequest {
        caller: asked.caller(),
        path: open_path(&asked, &request.src, request.file_id())?,
        inode: request.file_id(),
        holder: request.holder,
        block: Some(block_of(&asked, &request.b)?),
    };
    asked.node.abandon_block(message, asked.peer()).await?;
    Ok(AbandonBlockResponseProto {})
}

pub async fn get_additional_datanode(
    asked: Asked,
    request: GetAdditionalDatanodeRequestProto,
) -> Answered<GetAdditionalDatanodeResponseProto> {
    let message = granary::GetAdditionalDatanodeRequest {
        caller: asked.caller(),
        path: open_path(&asked, &request.src, request.file_id())?,
        inode: request.file_id(),
        holder: request.client_name,
        block: Some(block_of(&asked, &request.blk)?),
        existing: uuids(request.existings),
        excluded: uuids(request.excludes),
        wanted: request.num_additional_nodes,
    };
    let existing = (message.block, message.existing.clone());
    let block = match asked.node.get_additional_datanode(message, asked.peer()).await {
        // HDFS names the old pipeline then, and leaves it to the client whether to go on with less.
        Err(error) if error.code == Code::NotEnoughDatanodes => {
            let (block, existing) = existing;
            let locations = asked.node.volatile.cluster(|cluster, _| {
                let nodes = cluster.find_all(&existing);
                cluster.addresses(&nodes)
            });
            granary::LocatedBlock { block, locations, ..Default::default() }
        }
        found => found?,
    };
    Ok(GetAdditionalDatanodeResponseProto { block: located_block(&asked.node.pool_id, &block) })
}

pub async fn update_block_for_pipeline(
    asked: Asked,
    request: UpdateBlockForPipelineRequestProto,
) -> Answered<UpdateBlockForPipelineResponseProto> {
    let message = granary::UpdateBlockForPipelineRequest {
        caller: asked.caller(),
        block: Some(block_of(&asked, &request.block)?),
        holder: request.client_name,
    };
    let id = BlockId(request.block.block_id);
    let stamped = asked.node.update_block_for_pipeline(message, asked.peer()).await;
    let block = stamped.map_err(|error| no_such_block(&asked, id, error))?;
    Ok(UpdateBlockForPipelineResponseProto { block: located_block(&asked.node.pool_id, &block) })
}

pub async fn update_pipeline(
    asked: Asked,
    request: UpdatePipelineRequestProto,
) -> Answered<UpdatePipelineResponseProto> {
    let message = granary::UpdatePipelineRequest {
        caller: asked.caller(),
        holder: request.client_name,
        old_block: Some(block_of(&asked, &request.old_block)?),
        new_block: Some(block_of(&asked, &request.new_block)?),
        datanodes: request.new_nodes.into_iter().map(|node| node.datanode_uuid).collect(),
    };
    let id = BlockId(request.old_block.block_id);
    let updated = asked.node.update_pipeline(message, asked.peer()).await;
    updated.map_err(|error| no_such_block(&asked, id, error))?;
    Ok(UpdatePipelineResponseProto {})
}

/// A block that is gone is no question of leases to HDFS.
fn no_such_block(asked: &Asked, id: BlockId, error: Error) -> Failure {
    let gone = asked.node.log.read(|state| state.block(id).is_none());
    let failure = Failure::from(error);
    if gone { failure.with_class(Code::LeaseExpired, exceptions::IO) } else { failure }
}

pub async fn fsync(asked: Asked, request: FsyncRequestProto) -> Answered<FsyncResponseProto> {
    let message = granary::FsyncRequest {
        caller: asked.caller(),
        path: open_path(&asked, &request.src, request.file_id())?,
        inode: request.file_id(),
        // -1: the length is not told.
        last_block_length: u64::try_from(request.last_block_length()).unwrap_or(0),
        holder: request.client,
    };
    asked.node.fsync(message, asked.peer()).await?;
    Ok(FsyncResponseProto {})
}

pub async fn complete(
    asked: Asked,
    request: CompleteRequestProto,
) -> Answered<CompleteResponseProto> {
    let message = granary::CompleteRequest {
        caller: asked.caller(),
        path: open_path(&asked, &request.src, request.file_id())?,
        inode: request.file_id(),
        holder: request.client_name,
        last: request.last.as_ref().map(|block| block_of(&asked, block)).transpose()?,
    };
    let reply = asked.node.complete(message, asked.peer()).await?;
    Ok(CompleteResponseProto { result: reply.completed })
}

pub async fn report_bad_blocks(
    asked: Asked,
    request: ReportBadBlocksRequestProto,
) -> Answered<ReportBadBlocksResponseProto> {
    let bad = |located: LocatedBlockProto| {
        let block = convert::block(&located.b).into();
        located.locs.into_iter().map(move |node| granary::BadReplica {
            block: Some(block),
            datanode: node.id.datanode_uuid,
        })
    };
    let message = granary::ReportBadBlocksRequest {
        caller: asked.caller(),
        replicas: request.blocks.into_iter().flat_map(bad).collect(),
    };
    asked.node.report_bad_blocks(message, asked.peer()).await?;
    Ok(ReportBadBlocksResponseProto {})
}

pub async fn renew_lease(
    asked: Asked,
    request: RenewLeaseRequestProto,
) -> Answered<RenewLeaseResponseProto> {
    let message =
        granary::RenewLeaseRequest { caller: asked.caller(), holder: request.client_name };
    asked.node.renew_lease(message, asked.peer()).await?;
    Ok(RenewLeaseResponseProto {})
}

pub async fn recover_lease(
    asked: Asked,
    request: RecoverLeaseRequestProto,
) -> Answered<RecoverLeaseResponseProto> {
    let path = asked.path(&request.src)?;
    asked.node.log.read(|state| state.demand_outside_snapshots(&path))?;
    // Of a closed file there is nothing to recover, and nothing to be permitted.
    let closed =
        |status: &granary::FileStatus| status.kind() == FileKind::File && !status.open_for_write;
    if status_of(&asked, &request.src)?.as_ref().is_some_and(closed) {
        return Ok(RecoverLeaseResponseProto { result: true });
    }
    let message = granary::RecoverLeaseRequest {
        caller: asked.caller(),
        path: path.to_string(),
        holder: request.client_name,
    };
    let reply = asked.node.recover_lease(message, asked.peer()).await?;
    Ok(RecoverLeaseResponseProto { result: reply.closed })
}

pub fn is_file_closed(
    asked: &Asked,
    request: IsFileClosedRequestProto,
) -> Answered<IsFileClosedResponseProto> {
    let status = existing_file(asked, &request.src)?;
    Ok(IsFileClosedResponseProto { result: !status.open_for_write })
}

pub fn get_preferred_block_size(
    asked: &Asked,
    request: GetPreferredBlockSizeRequestProto,
) -> Answered<GetPreferredBlockSizeResponseProto> {
    let status = existing_file(asked, &request.filename)?;
    Ok(GetPreferredBlockSizeResponseProto { bsize: status.block_bytes })
}

fn existing_file(asked: &Asked, path: &str) -> Answered<granary::FileStatus> {
    match status_of(asked, path)? {
        Some(status) if status.kind() == FileKind::File => Ok(status),
        Some(_) => {
            Err(Failure::java(exceptions::FILE_NOT_FOUND, format!("Path is not a file: {path}")))
        }
        None => {
            Err(Failure::java(exceptions::FILE_NOT_FOUND, format!("File does not exist: {path}")))
        }
    }
}

pub fn get_block_locations(
    asked: &Asked,
    request: GetBlockLocationsRequestProto,
) -> Answered<GetBlockLocationsResponseProto> {
    if request.offset > i64::MAX as u64 || request.length > i64::MAX as u64 {
        let message = format!("Negative offset is not supported. File: {}", request.src);
        return Err(Failure::java(exceptions::HADOOP_ILLEGAL_ARGUMENT, message));
    }
    let message = granary::GetBlockLocationsRequest {
        caller: asked.caller(),
        path: asked.path(&request.src)?.to_string(),
        offset: request.offset,
        length: request.length,
    };
    let found = asked.node.locate_blocks(message, asked.peer(), LOCATED_BLOCKS_MAX);
    let (located, count) = found.map_err(|error| {
        Failure::from(error).with_class(Code::ParentNotFolder, exceptions::FILE_NOT_FOUND)
    })?;
    demand_whole_range(&request.src, located.blocks.len(), count)?;
    let locations = Some(located_blocks(&asked.node.pool_id, &located));
    Ok(GetBlockLocationsResponseProto { locations })
}

/// A range is answered whole or not at all: HDFS's clients take what comes for all there is.
pub(super) fn demand_whole_range(path: &str, given: usize, count: usize) -> Answered<()> {
    if given == count {
        return Ok(());
    }
    let message = format!("{path}: {count} blocks in one range, at most {given}: ask for a part");
    Err(Failure::java(exceptions::IO, message))
}

pub fn get_located_file_info(
    asked: &Asked,
    request: GetLocatedFileInfoRequestProto,
) -> Answered<GetLocatedFileInfoResponseProto> {
    let Some(status) = status_of(asked, request.src())? else {
        return Ok(GetLocatedFileInfoResponseProto { fs: None });
    };
    let mut fs = file_status(&status, "");
    if status.kind() == FileKind::File {
        fs.locations = Some(locations_of(asked, &status));
    }
    Ok(GetLocatedFileInfoResponseProto { fs: Some(fs) })
}

/// All blocks of a file, for a listing: no permission on the file itself is needed.
pub fn locations_of(asked: &Asked, status: &granary::FileStatus) -> LocatedBlocksProto {
    let blocks = asked.node.log.read(|state| state.blocks_of_inode(InodeId(status.inode)));
    let host = super::super::node::host_of(asked.peer());
    let mut offset = 0;
    let mut located = granary::LocatedBlocks {
        status: Some(status.clone()),
        under_construction: status.open_for_write,
        last_block_complete: true,
        ..Default::default()
    };
    for info in &blocks {
        located.last_block_complete = info.state == crate::op::BlockState::Complete;
        located.blocks.push(asked.node.located(offset, info, &host));
        offset += info.length;
    }
    located.last_block = located.blocks.last().cloned();
    located_blocks(&asked.node.pool_id, &located)
}
