//! The wire contracts of Granary: gRPC services, Hadoop's messages, and the types that every process agrees on.
//!
//! | module | owns |
//! |---|---|
//! | [`ids`] | identities as newtypes: inode, block, generation stamp, transaction |
//! | [`path`] | the one parsed path type |
//! | [`limits`] | every bound that more than one crate must agree on |
//! | [`erasure`] | erasure-coding policies |
//! | [`error`] | the error that crosses the wire: a stable code, and what the caller should do |
//! | [`rpc`] | the service Namespace over Hadoop's RPC framing: names and numbers |
//! | [`granary`] | generated: Granary's own gRPC messages and services |
//! | [`hadoop`] | generated: HDFS's messages, wire-compatible |
//!
//! Versioning: a field number is never reused and never changes its type; a new field is optional, and its absence
//! means what the older peer did. Invariant: this crate does no IO and knows no clock.

pub mod erasure;
pub mod error;
pub mod ids;
pub mod limits;
pub mod path;
pub mod rpc;

pub use error::{Code, Error, Kind, Result};
pub use ids::{BlockId, GenerationStamp, InodeId, Txid};
pub use path::FsPath;

/// Granary's own messages and services (`proto/granary/*.proto`).
#[allow(missing_docs, clippy::all, reason = "generated code")]
pub mod granary {
    tonic::include_proto!("granary.v1");
}

/// HDFS's messages (`proto/hadoop/*.proto`).
pub mod hadoop {
    /// DataTransferProtocol and what it refers to.
    #[allow(missing_docs, clippy::all, reason = "generated code")]
    pub mod hdfs {
        include!(concat!(env!("OUT_DIR"), "/hadoop.hdfs.rs"));
    }
}

/// The version that every process tells its peers.
pub const SOFTWARE_VERSION: &str = env!("CARGO_PKG_VERSION");
