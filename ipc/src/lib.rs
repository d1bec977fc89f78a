//! Hadoop RPC, version 9, over TCP: the server side that NameNode and DataNode answer Hadoop's clients with, and a
//! client.
//!
//! | module | owns |
//! |---|---|
//! | [`call`] | one call, its answer, and the service that answers |
//! | [`exceptions`] | what our errors are called in Java, for RPC and WebHDFS alike |
//! | [`wire`], [`request`] | the bytes: what a server reads, what a client sends |
//! | [`reply`], [`answer`] | the bytes: what a server sends, what a client reads |
//! | [`session`] | one connection's conversation, without IO |
//! | [`server`], `connection` | a port; one connection's task |
//! | [`client`] | one connection from the other side |
//! | [`settings`] | what a port bounds |
//!
//! Knows frames, headers, connections and their bounds. Does not know a single method: a [`Service`] does.

pub mod answer;
pub mod call;
pub mod client;
mod connection;
pub mod exceptions;
pub mod reply;
pub mod request;
pub mod server;
pub mod session;
pub mod settings;
pub mod wire;

pub use answer::RemoteError;
pub use call::{Answer, Call, Identity, Name, RpcError, Service};
pub use client::{CallError, Client, ClientSettings};
pub use server::serve;
pub use settings::Settings;
