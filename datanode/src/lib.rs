//! A DataNode: replicas on disk, the data-transfer server, reports to the NameNode, block recovery.
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | settings |
//! | [`replica`] | one replica's states and legal transitions (pure) |
//! | [`layout`] | names of folders and files (pure) |
//! | [`identity`] | who a volume is, and its lock |
//! | [`volume`] | one folder of replicas: space, failure, folder syncs |
//! | [`disk`] | the threads of a volume, and lanes |
//! | [`files`] | the two files of a replica |
//! | [`index`] | what makes a restart cheap |
//! | [`map`], [`open_replica`], [`claims`] | all replicas in memory; unfinished ones; one operation per block |
//! | [`store`] | every operation on replicas |
//! | [`data_server`] | DataTransferProtocol |
//! | [`heartbeat`], [`report`] | the stream to the NameNode: reports up, commands down |
//! | [`reconstruct`] | lost units of block groups, computed from others |
//! | [`scrub`] | verifies what nobody reads |
//! | [`balance`] | volumes that are about equally full |
//! | [`throttle`] | bytes per second |
//! | [`recovery`], [`control`] | block recovery as primary; its steps on this DataNode's replicas |
//! | [`hadoop`] | ClientDatanodeProtocol over Hadoop's RPC |
//! | [`http`] | status and metrics |
//! | [`webhdfs`] | file contents over HTTP, as a client of the cluster |
//! | [`server`] | starts and stops it all |
//! | [`changes`] | what the NameNode has not been told yet |
//!
//! Invariants: no block bytes travel by gRPC; no lock is held across file IO; nothing is acknowledged as closed that
//! is not durable. This crate knows nothing of the NameNode's code, and,
//! but for [`webhdfs`], nothing of files and folders of the namespace.

pub mod balance;
pub mod changes;
pub mod claims;
pub mod config;
pub mod control;
pub mod data_server;
pub mod disk;
pub mod files;
pub mod hadoop;
pub mod heartbeat;
pub mod http;
pub mod identity;
pub mod index;
pub mod layout;
pub mod map;
pub mod open_replica;
pub mod reconstruct;
pub mod recovery;
pub mod replica;
pub mod report;
pub mod scrub;
pub mod server;
pub mod store;
pub mod throttle;
pub mod volume;
pub mod webhdfs;

#[cfg(test)]
mod testing;

pub use config::Config;
pub use server::{Handle, start};
