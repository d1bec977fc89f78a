//! ClientNamenodeProtocol: names. Looking, listing, and the verbs on names.

use ipc::exceptions;
use proto::granary::{self, FileKind};
use proto::hadoop::hdfs::*;
use proto::{Code, Error, Result};

use super::Asked;
use super::convert::{MODE_BITS, file_status};
use super::errors::{Answered, Failure};
use super::paths::INODES;
use crate::op::{Op, RenameMode, Reply};

/// Bytes of a client's buffer for a stream, as HDFS suggests.
const FILE_BUFFER_BYTES: u32 = 4096;
/// Data bytes of a packet, as HDFS suggests: what Java's clients are made for.
const PACKET_BYTES: u32 = 64 << 10;
/// Locations of blocks in one page of a listing, about.
const LISTED_LOCATIONS_MAX: usize = 3_000;
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

fn missing(path: &str) -> Error {
    Error::new(Code::NotFound, format!("{path} does not exist"))
}

/// What a path names; `None` if nothing does.
pub fn status_of(asked: &Asked, path: &str) -> Result<Option<granary::FileStatus>> {
    let (caller, _) = asked.enter()?;
    let Some(path) = asked.look(path)? else { return Ok(None) };
    asked.node.log.read(|state| state.status(&caller, &path))
}

pub fn get_listing(
    asked: &Asked,
    request: GetListingRequestProto,
) -> Answered<GetListingResponseProto> {
    let nothing = GetListingResponseProto { dir_list: None };
    let (caller, _) = asked.enter()?;
    let Some(path) = asked.look(&request.src)? else { return Ok(nothing) };
    let after = start_after(&request.start_after);
    let found = asked.node.log.read(|state| {
        let of_folder =
            state.status(&caller, &path)?.is_some_and(|found| found.kind() == FileKind::Folder);
        Ok::<_, Error>((of_folder, state.list(&caller, &path, &after, 0)?))
    })?;
    let (of_folder, Some(listing)) = found else { return Ok(nothing) };
    let mut page = DirectoryListingProto::default();
    let mut locations = 0;
    for (given, entry) in listing.entries.iter().enumerate() {
        if locations >= LISTED_LOCATIONS_MAX {
            let left = listing.remaining + (listing.entries.len() - given) as u64;
            page.remaining_entries = u32::try_from(left).unwrap_or(u32::MAX);
            return Ok(GetListingResponseProto { dir_list: Some(page) });
        }
        let mut status = file_status(entry, if of_folder { &entry.name } else { "" });
        if request.need_location && entry.kind() == FileKind::File {
            let located = super::blocks::locations_of(asked, entry);
            locations += located.blocks.iter().map(|block| block.locs.len().max(1)).sum::<usize>();
            status.locations = Some(located);
        }
        page.partial_listing.push(status);
    }
    page.remaining_entries = u32::try_from(listing.remaining).unwrap_or(u32::MAX);
    Ok(GetListingResponseProto { dir_list: Some(page) })
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
        path: asked.new_path(&request.src)?.to_string(),
        mode: request.masked.perm & MODE_BITS,
        create_parents: request.create_parent,
        unmasked: request.unmasked.map(|mode| mode.perm),
    };
    match asked.node.mkdirs(message, asked.peer()).await {
        Ok(_) => {}
        // A folder that was there already is as good.
        Err(error) if error.code == Code::AlreadyExists => {
            let found = status_of(&asked, &request.src)?;
            if found.is_none_or(|status| status.kind() != FileKind::Folder) {
                return Err(error.into());
            }
        }
        // A reserved name.
        Err(error) => {
            let class = exceptions::HADOOP_ILLEGAL_ARGUMENT;
            return Err(Failure::from(error).with_class(Code::InvalidArgument, class));
        }
    }
    Ok(MkdirsResponseProto { result: true })
}

/// The older rename: into a folder that exists, and false instead of most errors.
pub async fn rename(asked: Asked, request: RenameRequestProto) -> Answered<RenameResponseProto> {
    let renamed = move_name(&asked, &request.src, &request.dst, RenameMode::Into)
        .await
        .map_err(|failure| failure.with_class(Code::InvalidPath, exceptions::IO));
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
    let (source, target) = (&request.src, &request.dst);
    let mode = if request.overwrite_dest { RenameMode::Replace } else { RenameMode::NoReplace };
    match move_name(&asked, source, target, mode).await {
        Ok(()) => Ok(Rename2ResponseProto {}),
        // That the kinds differ comes before that the target exists.
        Err(failure) if failure.code() == Some(Code::AlreadyExists) => {
            let kind = |path| Ok::<_, Failure>(status_of(&asked, path)?.map(|found| found.kind()));
            if kind(source)? == kind(target)? {
                return Err(failure);
            }
            let message =
                format!("Source {source} and destination {target} must both be directories");
            Err(Failure::java(exceptions::IO, message))
        }
        Err(failure) => Err(failure),
    }
}

async fn move_name(asked: &Asked, source: &str, target: &str, mode: RenameMode) -> Answered<()> {
    let op = Op::Rename { source: asked.path(source)?, target: asked.new_path(target)?, mode };
    match asked.propose(op).await? {
        Reply::Done => Ok(()),
        reply => super::super::node::unexpected("rename", &reply).map_err(Failure::from),
    }
}

pub async fn delete(asked: Asked, request: DeleteRequestProto) -> Answered<DeleteResponseProto> {
    let message = granary::DeleteRequest {
        caller: asked.caller(),
        path: match asked.look(&request.src)? {
            Some(path) => path.to_string(),
            None => return Ok(DeleteResponseProto { result: false }),
        },
        recursive: request.recursive,
    };
    let reply = asked.node.delete(message, asked.peer()).await?;
    Ok(DeleteResponseProto { result: reply.deleted })
}

pub fn get_file_link_info(
    asked: &Asked,
    request: GetFileLinkInfoRequestProto,
) -> Answered<GetFileLinkInfoResponseProto> {
    let fs = status_of(asked, &request.src)?.map(|status| file_status(&status, ""));
    Ok(GetFileLinkInfoResponseProto { fs })
}

/// Nothing is a symbolic link.
pub fn get_link_target(
    asked: &Asked,
    request: GetLinkTargetRequestProto,
) -> Answered<GetLinkTargetResponseProto> {
    match status_of(asked, &request.path)? {
        Some(_) => Err(Failure::java(exceptions::IO, format!("{} is no link", request.path))),
        None => Err(missing(&request.path).into()),
    }
}

pub fn create_symlink(
    _: &Asked,
    _: CreateSymlinkRequestProto,
) -> Answered<CreateSymlinkResponseProto> {
    Err(Failure::java(exceptions::UNSUPPORTED, "Symlinks not supported"))
}

/// The folder that encloses a path in one zone: there are no zones.
pub fn get_enclosing_root(
    asked: &Asked,
    request: GetEnclosingRootRequestProto,
) -> Answered<GetEnclosingRootResponseProto> {
    let (caller, _) = asked.enter()?;
    let path = asked.path(request.filename())?;
    asked.node.log.read(|state| state.status(&caller, &path))?;
    Ok(GetEnclosingRootResponseProto { enclosing_root_path: Some("/".to_owned()) })
}

pub fn check_access(
    asked: &Asked,
    request: CheckAccessRequestProto,
) -> Answered<CheckAccessResponseProto> {
    let (caller, _) = asked.enter()?;
    let path = asked.path(&request.path)?;
    // The numbers of FsActionProto are the bits of a mode.
    let wanted = u16::try_from(request.mode & 7).unwrap_or(0);
    asked.node.log.read(|state| state.check_access(&caller, &path, wanted))?;
    Ok(CheckAccessResponseProto {})
}

pub async fn set_replication(
    asked: Asked,
    request: SetReplicationRequestProto,
) -> Answered<SetReplicationResponseProto> {
    let message = granary::SetReplicationRequest {
        caller: asked.caller(),
        path: asked.path(&request.src)?.to_string(),
        replication: request.replication,
    };
    match asked.node.set_replication(message, asked.peer()).await {
        Ok(_) => Ok(SetReplicationResponseProto { result: true }),
        // What is striped has no replicas either.
        Err(error) if matches!(error.code, Code::NotFound | Code::IsFolder | Code::Unsupported) => {
            Ok(SetReplicationResponseProto { result: false })
        }
        Err(error) => Err(Failure::from(error).with_class(Code::InvalidArgument, exceptions::IO)),
    }
}

pub async fn set_permission(
    asked: Asked,
    request: SetPermissionRequestProto,
) -> Answered<SetPermissionResponseProto> {
    let message = granary::SetPermissionRequest {
        caller: asked.caller(),
        path: asked.path(&request.src)?.to_string(),
        mode: request.permission.perm & MODE_BITS,
    };
    asked.node.set_permission(message, asked.peer()).await?;
    Ok(SetPermissionResponseProto {})
}

pub async fn set_owner(
    asked: Asked,
    request: SetOwnerRequestProto,
) -> Answered<SetOwnerResponseProto> {
    let message = granary::SetOwnerRequest {
        caller: asked.caller(),
        path: asked.path(&request.src)?.to_string(),
        owner: request.username.unwrap_or_default(),
        group: request.groupname.unwrap_or_default(),
    };
    asked.node.set_owner(message, asked.peer()).await?;
    Ok(SetOwnerResponseProto {})
}

pub async fn set_times(
    asked: Asked,
    request: SetTimesRequestProto,
) -> Answered<SetTimesResponseProto> {
    let message = granary::SetTimesRequest {
        caller: asked.caller(),
        path: asked.path(&request.src)?.to_string(),
        modified_ns: nanos(request.mtime),
        accessed_ns: nanos(request.atime),
    };
    asked.node.set_times(message, asked.peer()).await?;
    Ok(SetTimesResponseProto {})
}

/// Nanoseconds of a time in milliseconds; -1 (as an unsigned number) leaves the time as it is.
fn nanos(millis: u64) -> Option<i64> {
    (millis != u64::MAX)
        .then(|| i64::try_from(millis).unwrap_or(i64::MAX).saturating_mul(1_000_000))
}
