//! A real NameNode on free ports in a temporary folder, spoken to over its own protocols: gRPC as clients, DataNodes
//! and kvserve nodes speak it, HTTP, and bytes on the reserved port.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod catalogue;
mod datanode;
mod fsck;
mod groups;
mod http;
mod lifecycle;
mod names;
mod native;
mod webhdfs;
mod world;
