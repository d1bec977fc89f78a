//! The paths of Hadoop's messages: what is reserved, what is looked up by number, and which names may be made.
//!
//! `/.reserved/.inodes/N/x` begins at the inode of that number, `/.reserved/raw/x` is `/x` for superusers. A name over
//! the limit names nothing to who looks, and is an error to who makes it. Clients of HDFS make no name with a colon, and
//! none that HDFS keeps for itself: other clients of Granary may have, and then it can be read.

use ipc::exceptions;
use proto::limits::NAME_BYTES_MAX;
use proto::{Code, Error, FsPath, InodeId, Result};

use super::Asked;
use super::errors::{Answered, Failure};
use crate::front::attributes::raw_path;
use crate::front::node::Node;
use crate::state::demand_raw;

/// Where an inode is found by its number.
pub const INODES: &str = "/.reserved/.inodes/";
const RESERVED: &str = ".reserved";
const SNAPSHOT: &str = ".snapshot";
const NAME_TOO_LONG: &str =
    "org.apache.hadoop.hdfs.protocol.FSLimitException$PathComponentTooLongException";

fn long_name(text: &str) -> Option<&str> {
    text.split('/').find(|name| name.len() > NAME_BYTES_MAX)
}

/// The path of what is named by its inode's number; `None`: it is named by its path.
pub fn path_by_inode(node: &Node, text: &str) -> Result<Option<FsPath>> {
    let Some(rest) = text.strip_prefix(INODES) else { return Ok(None) };
    let (number, below) = rest.split_once('/').unwrap_or((rest, ""));
    let missing = || Error::new(Code::NotFound, format!("{text}: there is no such inode"));
    let inode = InodeId(number.parse().map_err(|_| missing())?);
    let at = node.log.read(|state| state.path_of(inode)).ok_or_else(missing)?;
    match (below, at.is_root()) {
        ("", _) => Ok(Some(at)),
        (_, true) => FsPath::parse(&format!("/{below}")).map(Some),
        (_, false) => FsPath::parse(&format!("{at}/{below}")).map(Some),
    }
}

impl Asked {
    /// The path of a message.
    pub fn path(&self, text: &str) -> Result<FsPath> {
        if let Some(path) = path_by_inode(&self.node, text)? {
            return Ok(path);
        }
        let (path, raw) = raw_path(text)?;
        if raw {
            demand_raw(&self.enter()?.0)?;
        }
        Ok(path)
    }

    /// The path of something to look at; `None` if it can't be there.
    pub fn look(&self, text: &str) -> Result<Option<FsPath>> {
        if long_name(text).is_some() {
            return Ok(None);
        }
        self.path(text).map(Some)
    }

    /// The path of something to be made.
    pub fn new_path(&self, text: &str) -> Answered<FsPath> {
        if let Some(name) = long_name(text) {
            let message = format!(
                "The maximum path component name limit of {name} in {text} is exceeded: \
                 limit={NAME_BYTES_MAX} length={}",
                name.len()
            );
            return Err(Failure::java(NAME_TOO_LONG, message));
        }
        let path = self.path(text)?;
        if path.components().any(|name| name.contains(':')) {
            let message = format!("Invalid path name {text}");
            return Err(Failure::java(exceptions::INVALID_PATH, message));
        }
        self.node.log.read(|state| state.demand_outside_snapshots(&path))?;
        let reserved = path.components().next().filter(|name| *name == RESERVED);
        if let Some(name) = reserved.or(path.name().filter(|name| *name == SNAPSHOT)) {
            let message = format!("File name \"{name}\" is reserved and cannot be created.");
            return Err(Failure::java(exceptions::HADOOP_ILLEGAL_ARGUMENT, message));
        }
        Ok(path)
    }
}
