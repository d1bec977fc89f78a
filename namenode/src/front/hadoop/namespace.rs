//! ClientNamenodeProtocol: names. Looking, listing, and the verbs on names.

use proto::granary;
use proto::hadoop::hdfs::*;
use proto::{Code, Result};

use super::convert::file_status;
use super::errors::{Answered, Failure};
use super::{Asked, INODES};
use crate::op::{Op, RenameMode, Reply};

/// Bytes of a client's buffer for a stream, as HDFS suggests.
const FILE_BUFFER_BYTES: u32 = 4096;
/// Data bytes of a packet, as HDFS suggests: what Java's clients are made for.
const PACKET_BYTES: u32 = 64 << 10;
/// HDFS's number of the policy "all replicas on disks".
const POLICY_HOT: u32 = 7;

pub fn get_file_info(
    asked: &Asked,
    request: GetFileInfoRequestProto,
) -> Answered<GetFileInfoResponseProto> {
    Ok(GetFileInfoResponseProto {
        fs: status_of(asked, &request.src)?.map(|status| file_status(&status, "")),
    })
}

/// What a path names; `None` if nothing does.
fn status_of(asked: &Asked, path: &str) -> Result<Option<granary::FileStatus>> {
    let (caller, _) = asked.enter()?;
    let path = match asked.path(path) {
        Err(error) if error.code == Code::NotFound => return Ok(None),
        path => path?,
    };
    asked.node.log.read(|state| state.status(&caller, &path))
}

pub fn get_listing(
    asked: &Asked,
    request: GetListingRequestProto,
) -> Answered<GetListingResponseProto> {
    let (caller, _) = asked.enter()?;
    let path = match asked.path(&request.src) {
        Err(error) if error.code == Code::NotFound => {
            return Ok(GetListingResponseProto { dir_list: None });
        }
        path => path?,
    };
    let start_after = start_after(&request.start_after);
    let found = asked.node.log.read(|state| state.list(&caller, &path, &start_after, 0))?;
    let Some(listing) = found else { return Ok(GetListingResponseProto { dir_list: None }) };
    let of_file = listing.entries.iter().any(|entry| entry.kind() == granary::FileKind::File)
        && asked
            .node
            .log
            .read(|state| state.status(&caller, &path))?
            .is_some_and(|status| status.kind() == granary::FileKind::File);
    let name =
        |entry: &granary::FileStatus| if of_file { String::new() } else { entry.name.clone() };
    let partial_listing =
        listing.entries.iter().map(|entry| file_status(entry, &name(entry))).collect();
    let remaining_entries = u32::try_from(listing.remaining).unwrap_or(u32::MAX);
    Ok(GetListingResponseProto {
        dir_list: Some(DirectoryListingProto { partial_listing, remaining_entries }),
    })
}

/// The name to go on after: clients that list by inode send it with its folder.
fn start_after(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.strip_prefix(INODES) {
        Some(rest) => rest.rsplit('/').next().unwrap_or("").to_owned(),
        None => text.into_owned(),
    }
}

pub fn get_server_defaults(
    asked: &Asked,
    _: GetServerDefaultsRequestProto,
) -> Answered<GetServerDefaultsResponseProto> {
    let message = granary::GetServerDefaultsRequest {};
    let defaults = asked.node.get_server_defaults(message, asked.peer())?;
    let server_defaults = FsServerDefaultsProto {
        block_size: defaults.block_bytes,
        bytes_per_checksum: defaults.checksum_chunk_bytes,
        write_packet_size: PACKET_BYTES,
        replication: defaults.replication,
        file_buffer_size: FILE_BUFFER_BYTES,
        encrypt_data_transfer: Some(false),
        trash_interval: Some(0),
        checksum_type: Some(ChecksumTypeProto::ChecksumCrc32c as i32),
        key_provider_uri: Some(String::new()),
        policy_id: Some(POLICY_HOT),
        snapshot_trash_root_enabled: Some(false),
    };
    Ok(GetServerDefaultsResponseProto { server_defaults })
}

pub async fn mkdirs(asked: Asked, request: MkdirsRequestProto) -> Answered<MkdirsResponseProto> {
    let message = granary::MkdirsRequest {
        caller: asked.caller(),
        path: asked.path(&request.src)?.to_string(),
        mode: request.masked.perm,
        create_parents: request.create_parent,
        unmasked: request.unmasked.map(|mode| mode.perm),
    };
    asked.node.mkdirs(message, asked.peer()).await?;
    // A folder that was there already is as good.
    Ok(MkdirsResponseProto { result: true })
}

/// The older rename: into a folder that exists, and false instead of most errors.
pub async fn rename(asked: Asked, request: RenameRequestProto) -> Answered<RenameResponseProto> {
    let renamed = move_name(&asked, &request.src, &request.dst, RenameMode::Into).await;
    match renamed {
        Ok(()) => Ok(RenameResponseProto { result: true }),
        Err(failure) if failure.code().is_some_and(is_refusal) => {
            tracing::debug!(src = request.src, dst = request.dst, ?failure, "rename is refused");
            Ok(RenameResponseProto { result: false })
        }
        Err(failure) => Err(failure),
    }
}

/// Whether the older rename tells an error by `false` alone.
fn is_refusal(code: Code) -> bool {
    use Code::*;
    matches!(
        code,
        NotFound
            | AlreadyExists
            | NotFolder
            | IsFolder
            | NotEmpty
            | LimitExceeded
            | InvalidArgument
    )
}

pub async fn rename2(asked: Asked, request: Rename2RequestProto) -> Answered<Rename2ResponseProto> {
    let mode = if request.overwrite_dest { RenameMode::Replace } else { RenameMode::NoReplace };
    move_name(&asked, &request.src, &request.dst, mode).await?;
    Ok(Rename2ResponseProto {})
}

async fn move_name(asked: &Asked, source: &str, target: &str, mode: RenameMode) -> Answered<()> {
    let op = Op::Rename { source: asked.path(source)?, target: asked.path(target)?, mode };
    match asked.propose(op).await? {
        Reply::Done => Ok(()),
        reply => super::super::node::unexpected("rename", &reply).map_err(Failure::from),
    }
}

pub async fn delete(asked: Asked, request: DeleteRequestProto) -> Answered<DeleteResponseProto> {
    let path = match asked.path(&request.src) {
        Err(error) if error.code == Code::NotFound => {
            return Ok(DeleteResponseProto { result: false });
        }
        path => path?,
    };
    let message = granary::DeleteRequest {
        caller: asked.caller(),
        path: path.to_string(),
        recursive: request.recursive,
    };
    let reply = asked.node.delete(message, asked.peer()).await?;
    Ok(DeleteResponseProto { result: reply.deleted })
}
