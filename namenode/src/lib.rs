//! The NameNode: the namespace, where its blocks are, and the store catalogue.
//!
//! | module | owns |
//! |---|---|
//! | [`state`] | the namespace as a deterministic state machine (pure) |
//! | [`op`] | what may be asked of the namespace: requests, operations, replies, effects |
//! | [`log`] | propose, read; group commit, recovery at start, checkpoints |
//! | `journal` | segments, batches, replay |
//! | `checkpoint` | two sled folders, written in turn |
//! | [`state_bench`] | measures the core: memory, operations, checkpoint, restart |
//! | [`config`] | settings |
//! | [`cluster`] | volatile: DataNodes, replicas, placement, safe mode, leases, recoveries (pure) |
//! | [`serving`] | the controller of kvserve nodes and versions (pure) |
//! | [`front`] | gRPC services, HTTP status, Hadoop RPC |
//! | [`server`] | the shell: folder, log, timers, listeners |
//! | `fuzzing` | ways in for the fuzz targets |

mod checkpoint;
pub mod cluster;
mod coding;
pub mod config;
pub mod front;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod journal;
pub mod log;
pub mod op;
pub mod server;
pub mod serving;
pub mod state;

pub use config::Config;
pub use server::{Handle, start};
pub mod state_bench;
pub use state_bench::{NamespaceReport, bench_namespace};
