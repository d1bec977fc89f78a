//! The key-value server: copies whole versions of stores from the file system, checks them, switches to them by one
//! pointer, and answers from them over the Redis protocol and gRPC.
//!
//! | module | owns |
//! |---|---|
//! | [`lifecycle`] | what becomes of each version (pure) |
//! | [`tablespec`] | what the catalogue says of a table, checked (pure) |
//! | [`throttle`] | the rate limit of fetches (pure) |
//! | [`folder`], [`record`] | the local folder and its small files |
//! | [`fetch`], [`origin`] | copying, resuming, verifying, opening tables |
//! | [`tables`], [`lookup`] | open versions, the pointer that is switched, questions to them |
//! | [`engine`] | performs what [`lifecycle`] asks for |
//! | [`attach`] | the stream to the NameNode |
//! | [`resp`] | the Redis protocol: bytes to commands, replies to bytes (pure) |
//! | [`command`], [`session`], [`clients`] | the commands, one connection, all connections |
//! | [`grpc`], [`http`] | the other front ends |
//! | [`server`] | starts and stops all of it |
//!
//! Invariants: a version that was not verified byte for byte never answers; a request is answered from one version
//! throughout; nothing here writes to the file system of the cluster or decides which version is current.

pub mod attach;
pub mod clients;
pub mod command;
pub mod config;
pub mod engine;
pub mod fetch;
pub mod folder;
pub mod grpc;
pub mod http;
pub mod lifecycle;
pub mod lookup;
pub mod origin;
pub mod record;
pub mod resp;
pub mod server;
pub mod session;
pub mod tables;
pub mod tablespec;
#[cfg(test)]
mod testing;
pub mod throttle;

pub use config::Config;
pub use server::{Handle, start};
