//! The service Namespace: names, folders, attributes; and the list of all its methods.
//!
//! A method takes its message apart, enters the call, and either reads the state or proposes one operation.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use proto::granary::namespace_server::Namespace;
use proto::granary::*;
use proto::limits::{
    BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, CHECKSUM_CHUNK_BYTES, PACKET_BYTES_NATIVE, REPLICATION_MAX,
};
use proto::{Code, Error, Result};
use tonic::{Request, Response, Status};

use super::access::{Method, check_principal};
use super::node::{Node, host_of, path, unexpected};
use crate::op::{self, Op, Reply};

/// Blocks in one page that GetBlockLocations gives: about 400 bytes each with three replicas.
const LOCATED_BLOCKS_MAX: usize = 20_000;

/// The service.
pub struct NamespaceService(pub Arc<Node>);

/// Reads answer without waiting; writes wait for the journal, slow reads give way to others.
macro_rules! answer {
    (slow $call:expr) => {
        $call.await
    };
    (read $call:expr) => {
        $call
    };
    (write $call:expr) => {
        $call.await
    };
}

macro_rules! methods {
    ($($kind:ident $name:ident($request:ty) -> $reply:ty, $method:ident;)*) => {
        #[tonic::async_trait]
        impl Namespace for NamespaceService {
            $(async fn $name(
                &self,
                request: Request<$request>,
            ) -> std::result::Result<Response<$reply>, Status> {
                let since = Instant::now();
                let peer = request.remote_addr().map(|addr| addr.ip());
                let result = answer!($kind self.0.$name(request.into_inner(), peer));
                self.0.counted(Method::$method, since, result)
            })*
        }
    };
}

methods! {
    read get_server_defaults(GetServerDefaultsRequest) -> ServerDefaults, GetServerDefaults;
    read get_file_info(PathRequest) -> GetFileInfoReply, GetFileInfo;
    read get_listing(GetListingRequest) -> GetListingReply, GetListing;
    read get_block_locations(GetBlockLocationsRequest) -> LocatedBlocks, GetBlockLocations;
    slow get_content_summary(PathRequest) -> ContentSummary, GetContentSummary;
    read get_fs_stats(GetFsStatsRequest) -> FsStats, GetFsStats;
    write mkdirs(MkdirsRequest) -> MkdirsReply, Mkdirs;
    write create(CreateRequest) -> CreateReply, Create;
    write append(AppendRequest) -> AppendReply, Append;
    write add_block(AddBlockRequest) -> LocatedBlock, AddBlock;
    write abandon_block(AbandonBlockRequest) -> Empty, AbandonBlock;
    write get_additional_datanode(GetAdditionalDatanodeRequest) -> LocatedBlock, GetAdditionalDatanode;
    write update_block_for_pipeline(UpdateBlockForPipelineRequest) -> LocatedBlock, UpdateBlockForPipeline;
    write update_pipeline(UpdatePipelineRequest) -> Empty, UpdatePipeline;
    write fsync(FsyncRequest) -> Empty, Fsync;
    write complete(CompleteRequest) -> CompleteReply, Complete;
    write renew_lease(RenewLeaseRequest) -> Empty, RenewLease;
    write recover_lease(RecoverLeaseRequest) -> RecoverLeaseReply, RecoverLease;
    write report_bad_blocks(ReportBadBlocksRequest) -> Empty, ReportBadBlocks;
    write rename(RenameRequest) -> Empty, Rename;
    write delete(DeleteRequest) -> DeleteReply, Delete;
    write link(LinkRequest) -> FileStatus, Link;
    write truncate(TruncateRequest) -> TruncateReply, Truncate;
    write set_permission(SetPermissionRequest) -> Empty, SetPermission;
    write set_owner(SetOwnerRequest) -> Empty, SetOwner;
    write set_times(SetTimesRequest) -> Empty, SetTimes;
    write set_replication(SetReplicationRequest) -> Empty, SetReplication;
    write exchange_content(ExchangeContentRequest) -> Empty, ExchangeContent;
}

type Peer = Option<IpAddr>;

impl Node {
    pub(super) fn get_server_defaults(
        &self,
        _: GetServerDefaultsRequest,
        _: Peer,
    ) -> Result<ServerDefaults> {
        Ok(ServerDefaults {
            block_bytes: self.config.block_bytes,
            checksum_chunk_bytes: CHECKSUM_CHUNK_BYTES,
            packet_bytes: PACKET_BYTES_NATIVE,
            replication: self.config.replication,
            pool_id: self.pool_id.clone(),
            cluster_id: self.cluster_id.clone(),
            rpc_port: u32::from(self.hadoop_rpc_addr.port()),
        })
    }

    pub(super) fn get_file_info(&self, message: PathRequest, _: Peer) -> Result<GetFileInfoReply> {
        let (caller, _) = self.enter(Method::GetFileInfo, message.caller)?;
        let path = path(&message.path)?;
        let status = self.log.read(|state| state.status(&caller, &path))?;
        Ok(GetFileInfoReply { status })
    }

    pub(super) fn get_listing(
        &self,
        message: GetListingRequest,
        _: Peer,
    ) -> Result<GetListingReply> {
        let (caller, _) = self.enter(Method::GetListing, message.caller)?;
        let path = path(&message.path)?;
        let found = self
            .log
            .read(|state| state.list(&caller, &path, &message.start_after, message.limit))?;
        let Some(listing) = found else {
            return Err(Error::new(Code::NotFound, format!("{path} does not exist")));
        };
        Ok(GetListingReply { entries: listing.entries, remaining: listing.remaining })
    }

    /// One page of a range's blocks: who wants more asks from the end of the last one on.
    pub(super) fn get_block_locations(
        &self,
        message: GetBlockLocationsRequest,
        peer: Peer,
    ) -> Result<LocatedBlocks> {
        self.locate_blocks(message, peer, LOCATED_BLOCKS_MAX).map(|(located, _)| located)
    }

    /// The first blocks of a range, at most `blocks_max`, and how many the whole range has.
    pub(super) fn locate_blocks(
        &self,
        message: GetBlockLocationsRequest,
        peer: Peer,
        blocks_max: usize,
    ) -> Result<(LocatedBlocks, usize)> {
        let (caller, _) = self.enter(Method::GetBlockLocations, message.caller)?;
        let path = path(&message.path)?;
        let found = self
            .log
            .read(|state| state.block_locations(&caller, &path, message.offset, message.length))?;
        let host = host_of(peer);
        let located = |(offset, info): &_| self.located(*offset, info, &host);
        let count = found.blocks.len();
        let located = LocatedBlocks {
            under_construction: found.status.open_for_write,
            // What a snapshot shows is complete, though a writer may be going on in the block.
            last_block_complete: !found.status.open_for_write
                || found
                    .last
                    .as_ref()
                    .is_none_or(|(_, info)| info.state == op::BlockState::Complete),
            blocks: found.blocks.iter().take(blocks_max).map(located).collect(),
            last_block: found.last.as_ref().map(located),
            status: Some(found.status),
        };
        Ok((located, count))
    }

    pub(super) fn get_fs_stats(&self, _: GetFsStatsRequest, _: Peer) -> Result<FsStats> {
        Ok(self.fs_stats())
    }

    pub(super) async fn mkdirs(&self, message: MkdirsRequest, _: Peer) -> Result<MkdirsReply> {
        let call = self.enter(Method::Mkdirs, message.caller)?;
        let op = Op::Mkdirs {
            path: path(&message.path)?,
            mode: message.mode,
            unmasked: message.unmasked,
            create_parents: message.create_parents,
        };
        match self.propose(call, op).await? {
            Reply::Created(created) => Ok(MkdirsReply { created }),
            reply => unexpected("mkdirs", &reply),
        }
    }

    pub(super) async fn create(&self, message: CreateRequest, _: Peer) -> Result<CreateReply> {
        let call = self.enter(Method::Create, message.caller)?;
        check_principal("the lease holder", &message.holder)?;
        let or = |asked: u64, default: u64| if asked == 0 { default } else { asked };
        let replication = or(message.replication.into(), self.config.replication.into());
        let block_bytes = or(message.block_bytes, self.config.block_bytes);
        check_layout(replication, block_bytes)?;
        let op = Op::Create {
            path: path(&message.path)?,
            holder: message.holder,
            mode: message.mode,
            unmasked: message.unmasked,
            overwrite: message.overwrite,
            create_parents: message.create_parents,
            replication: replication as u32,
            block_bytes,
            erasure: message.erasure_policy.map(policy_number).transpose()?,
        };
        match self.propose(call, op).await? {
            Reply::File(status) => Ok(CreateReply { status: Some(*status) }),
            reply => unexpected("create", &reply),
        }
    }

    pub(super) async fn rename(&self, message: RenameRequest, _: Peer) -> Result<Empty> {
        let call = self.enter(Method::Rename, message.caller.clone())?;
        let mode = match message.mode() {
            RenameMode::NoReplace => op::RenameMode::NoReplace,
            RenameMode::Replace => op::RenameMode::Replace,
            RenameMode::Unspecified => {
                return Err(Error::new(Code::InvalidArgument, "rename: the mode is not given"));
            }
        };
        let op =
            Op::Rename { source: path(&message.source)?, target: path(&message.target)?, mode };
        self.propose(call, op).await.map(|_| Empty {})
    }

    pub(super) async fn delete(&self, message: DeleteRequest, _: Peer) -> Result<DeleteReply> {
        let call = self.enter(Method::Delete, message.caller)?;
        let op = Op::Delete { path: path(&message.path)?, recursive: message.recursive };
        match self.propose(call, op).await? {
            Reply::Deleted(deleted) => Ok(DeleteReply { deleted }),
            reply => unexpected("delete", &reply),
        }
    }

    pub(super) async fn link(&self, message: LinkRequest, _: Peer) -> Result<FileStatus> {
        let call = self.enter(Method::Link, message.caller)?;
        let op = Op::Link { source: path(&message.source)?, target: path(&message.target)? };
        match self.propose(call, op).await? {
            Reply::File(status) => Ok(*status),
            reply => unexpected("link", &reply),
        }
    }

    pub(super) async fn set_permission(
        &self,
        message: SetPermissionRequest,
        _: Peer,
    ) -> Result<Empty> {
        let call = self.enter(Method::SetPermission, message.caller)?;
        let op = Op::SetPermission { path: path(&message.path)?, mode: message.mode };
        self.propose(call, op).await.map(|_| Empty {})
    }

    pub(super) async fn set_owner(&self, message: SetOwnerRequest, _: Peer) -> Result<Empty> {
        let call = self.enter(Method::SetOwner, message.caller)?;
        for (what, name) in [("the owner", &message.owner), ("the group", &message.group)] {
            if !name.is_empty() {
                check_principal(what, name)?;
            }
        }
        let op =
            Op::SetOwner { path: path(&message.path)?, owner: message.owner, group: message.group };
        self.propose(call, op).await.map(|_| Empty {})
    }

    pub(super) async fn set_times(&self, message: SetTimesRequest, _: Peer) -> Result<Empty> {
        let call = self.enter(Method::SetTimes, message.caller)?;
        let op = Op::SetTimes {
            path: path(&message.path)?,
            modified_ns: message.modified_ns,
            accessed_ns: message.accessed_ns,
        };
        self.propose(call, op).await.map(|_| Empty {})
    }

    pub(super) async fn set_replication(
        &self,
        message: SetReplicationRequest,
        _: Peer,
    ) -> Result<Empty> {
        let call = self.enter(Method::SetReplication, message.caller)?;
        check_layout(message.replication.into(), self.config.block_bytes)?;
        let op =
            Op::SetReplication { path: path(&message.path)?, replication: message.replication };
        self.propose(call, op).await.map(|_| Empty {})
    }
}

/// The number of an erasure-coding policy in a message.
pub(super) fn policy_number(number: u32) -> Result<u8> {
    u8::try_from(number).map_err(|_| {
        Error::new(Code::InvalidArgument, format!("there is no erasure-coding policy {number}"))
    })
}

/// Checks what a file asks for.
fn check_layout(replication: u64, block_bytes: u64) -> Result<()> {
    if !(1..=u64::from(REPLICATION_MAX)).contains(&replication) {
        return Err(Error::new(
            Code::InvalidArgument,
            format!("replication {replication} is not within 1 to {REPLICATION_MAX}"),
        ));
    }
    if !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&block_bytes) {
        return Err(Error::new(
            Code::InvalidArgument,
            format!(
                "block size {block_bytes} is not within {BLOCK_BYTES_MIN} to {BLOCK_BYTES_MAX} bytes"
            ),
        ));
    }
    Ok(())
}
