//! Hadoop RPC, version 9, over TCP: the server side that NameNode and DataNode answer Hadoop's clients with.
//!
//! | module | owns |
//! |---|---|
//! | [`call`] | one call, its answer, and the errors that cross the wire |
//! | [`exceptions`] | what our errors are called in Java, for RPC and WebHDFS alike |
//!
//! Knows frames, headers, connections and their bounds. Does not know a single method: a [`Service`] does.

pub mod call;
pub mod exceptions;

pub use call::{Answer, Call, Identity, RpcError, Service};
