//! OPEN, CREATE, APPEND and GETFILECHECKSUM: the NameNode says which DataNode does it.
//!
//! What can be refused is refused here: safe mode, permission on the way, a file that is missing, a folder, a file in
//! the way. The DataNode is one that has the block in question, or, for a new file, one that would be given its first
//! block. The client is sent there with its own parameters, and with `namenoderpcaddress`: it names this NameNode to
//! the DataNode, which takes requests for its own alone.

use std::net::IpAddr;

use ::webhdfs::{Exception, PREFIX, Result, answer, paths};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ipc::exceptions::{self as class, Verb};
use proto::granary::DatanodeAddress;
use proto::hadoop::hdfs::hdfs_file_status_proto::FileType;
use proto::hadoop::hdfs::{
    DatanodeInfoProto, GetBlockLocationsRequestProto, GetBlockLocationsResponseProto,
    HdfsFileStatusProto,
};
use serde_json::json;

use super::json::host_port;
use super::{Ask, file_does_not_exist};
use crate::cluster::datanodes::NodeIndex;
use crate::cluster::placement::Wanted;
use crate::front::access::Method;
use crate::front::hadoop::paths::path_by_inode;

/// Parameters that are not the DataNode's business, or that are set anew.
const KEPT: &[&str] = &[
    "op",
    "user.name",
    "doas",
    "delegation",
    "noredirect",
    "excludedatanodes",
    "namenoderpcaddress",
];
/// DataNodes that a request may exclude.
const EXCLUDED_MAX: usize = 1_000;

/// OPEN.
pub(super) async fn open(ask: &Ask) -> Result<Response> {
    let offset = ask.params.long("offset", 0)?.unwrap_or(0).unsigned_abs();
    ask.params.long("length", 0)?;
    let status = file(ask).await?;
    if offset >= status.length && status.length > 0 {
        return Err(Exception::new(
            class::IO,
            format!(
                "Offset={offset} out of the range [0, {}); OPEN, path={}",
                status.length, ask.path
            ),
        ));
    }
    to_datanode(ask, reader_of(ask, &status, offset).await?)
}

/// GETFILECHECKSUM.
pub(super) async fn checksum(ask: &Ask) -> Result<Response> {
    let status = file(ask).await?;
    to_datanode(ask, reader_of(ask, &status, status.length.saturating_sub(1)).await?)
}

/// APPEND.
pub(super) async fn append(ask: &Ask) -> Result<Response> {
    ask.node().enter(Method::Append, ask.caller())?;
    let status = file(ask).await?;
    to_datanode(ask, reader_of(ask, &status, status.length.saturating_sub(1)).await?)
}

/// CREATE.
pub(super) async fn create(ask: &Ask) -> Result<Response> {
    ask.node().enter(Method::Create, ask.caller())?;
    let overwrite = ask.params.boolean("overwrite", false)?
        || ask
            .params
            .text("createflag")
            .is_some_and(|flags| flags.to_lowercase().contains("overwrite"));
    let in_the_way = |what: &str| {
        Err(Exception::new(
            class::ALREADY_EXISTS,
            format!("{} already exists as a {what}", ask.path),
        ))
    };
    match ask.try_status().await? {
        Some(status) if status.file_type() == FileType::IsDir => return in_the_way("directory"),
        Some(_) if !overwrite => return in_the_way("file"),
        _ => {}
    }
    let block_bytes = ask.params.long("blocksize", 1)?.map_or(0, i64::unsigned_abs);
    to_datanode(ask, any_node(ask, block_bytes)?)
}

/// The file that the path names.
async fn file(ask: &Ask) -> Result<HdfsFileStatusProto> {
    let status = ask.status(file_does_not_exist).await?;
    if status.file_type() == FileType::IsDir {
        return Err(Exception::not_found(format!("Path is not a file: {}", ask.path)));
    }
    Ok(status)
}

/// A DataNode that has the block at `offset`; any if there is none.
async fn reader_of(ask: &Ask, status: &HdfsFileStatusProto, offset: u64) -> Result<Target> {
    if status.length > 0 {
        let request = GetBlockLocationsRequestProto { src: ask.src(), offset, length: 1 };
        let reply: GetBlockLocationsResponseProto = ask.call("getBlockLocations", request).await?;
        let excluded = excluded(ask)?;
        let blocks = reply.locations.unwrap_or_default().blocks;
        let mut targets = blocks.into_iter().flat_map(|block| block.locs).map(Target::from);
        if let Some(target) = targets.find(|target| target.fits(&excluded)) {
            return Ok(target);
        }
    }
    any_node(ask, 0)
}

/// A DataNode that could take a block now.
fn any_node(ask: &Ask, block_bytes: u64) -> Result<Target> {
    let names = excluded(ask)?;
    let excluded: Vec<NodeIndex> = ask.node().volatile.cluster(|cluster, _| {
        let nodes = cluster.datanodes.iter();
        let left_out = nodes.filter(|(_, node)| !Target::from(&node.address).fits(&names));
        left_out.map(|(index, _)| index).collect()
    });
    let block_bytes = if block_bytes == 0 { ask.node().config.block_bytes } else { block_bytes };
    let host = ask.peer.remote.ip().to_canonical().to_string();
    let found = ask.node().choose(&Wanted {
        replicas: 1,
        replicas_min: 1,
        block_bytes,
        writer_host: &host,
        favoured: &[],
        existing: &[],
        excluded: &excluded,
    });
    let chosen = found.map_err(|error| Exception::of(error, Verb::Create))?;
    let addresses = ask.node().volatile.cluster(|cluster, _| cluster.addresses(&chosen));
    addresses.first().map(Target::from).ok_or_else(|| {
        Exception::new(
            class::IO,
            format!(
                "Failed to find datanode, suggest to check cluster health. excludeDatanodes={}",
                names.join(",")
            ),
        )
    })
}

/// A DataNode as a client of WebHDFS reaches it.
struct Target {
    host: String,
    http_port: u32,
    data_port: u32,
}

impl From<&DatanodeAddress> for Target {
    fn from(at: &DatanodeAddress) -> Self {
        Self { host: at.host.clone(), http_port: at.http_port, data_port: at.data_port }
    }
}

impl From<DatanodeInfoProto> for Target {
    fn from(at: DatanodeInfoProto) -> Self {
        Self { host: at.id.host_name, http_port: at.id.info_port, data_port: at.id.xfer_port }
    }
}

impl Target {
    /// Whether it serves HTTP, and is not excluded.
    fn fits(&self, excluded: &[String]) -> bool {
        let full = [self.data_port, self.http_port].map(|port| host_port(&self.host, port));
        self.http_port != 0
            && !excluded.iter().any(|name| *name == self.host || full.contains(name))
    }
}

/// The DataNodes that the client does not want, as `host` or `host:port`.
fn excluded(ask: &Ask) -> Result<Vec<String>> {
    let text = ask.params.text("excludedatanodes").unwrap_or("");
    let names: Vec<String> =
        text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if names.len() > EXCLUDED_MAX {
        return Err(Exception::parameter(
            "excludedatanodes",
            format_args!("{} DataNodes, at most {EXCLUDED_MAX}", names.len()),
        ));
    }
    Ok(names)
}

/// Sends the client there: 307, or 200 with the address if it asked not to be redirected. A DataNode knows paths, and no
/// inodes by their numbers.
fn to_datanode(ask: &Ask, at: Target) -> Result<Response> {
    let path = path_by_inode(ask.node(), ask.path.as_str());
    let path = path.map_err(|error| Exception::of(error, Verb::Other))?;
    let location = format!(
        "http://{}{PREFIX}{}?op={}&user.name={}&namenoderpcaddress={}{}",
        host_port(&at.host, at.http_port),
        paths::encode_path(path.as_ref().unwrap_or(&ask.path).as_str()),
        ask.op,
        paths::encode_query(&ask.identity.user),
        rpc_address(ask),
        ask.params.pass_on(KEPT),
    );
    if ask.params.boolean("noredirect", false)? {
        return Ok(answer::json(&json!({"Location": location})));
    }
    let location = HeaderValue::try_from(location)
        .map_err(|error| Exception::new(class::IO, format!("the DataNode's address: {error}")))?;
    let mut response = answer::empty();
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response.into_response())
}

/// What DataNodes know this NameNode by; if it listens everywhere, as the client dialled it.
fn rpc_address(ask: &Ask) -> String {
    let mut address = ask.node().hadoop_rpc_addr;
    if address.ip().is_unspecified()
        && let Some(local) = ask.peer.local
    {
        address.set_ip(IpAddr::to_canonical(&local.ip()));
    }
    address.to_string()
}
