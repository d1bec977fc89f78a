//! The client library: the file system, jobs, bulk load, key-value reads.
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | settings |
//! | [`fs`] | [`Fs`]: every verb of the file system |
//! | [`write`] | [`FileWriter`]: packets, pipelines and their recovery |
//! | [`read`] | [`FileReader`]: replicas, verification, read-ahead |
//! | [`checksum`] | the checksum of a whole file, as HDFS computes it |
//! | [`convert`] | files are coded anew while readers read |
//! | [`admin`] | what operators ask: safe mode, quotas, checks, open files |
//! | [`catalogue`] | stores and versions |
//! | [`kv`] | reads from key-value servers |
//! | [`load`] | tables become a version of a store; lines of text become tables |
//! | `namenode`, `retry`, `lease` | calls to the NameNode, when they are repeated, who may write |
//! | `erasure` | erasure-coding policies: their layouts and coders |
//! | `plan` | which replica to ask first (pure) |
//!
//! ```no_run
//! # async fn example() -> proto::Result<()> {
//! use client::{Config, CreateOptions, Fs};
//! let fs = Fs::connect(Config::default()).await?;
//! let path = "/greetings/hello.txt".parse()?;
//! let mut file = fs.create(&path, CreateOptions::default()).await?;
//! file.write(b"hello").await?;
//! file.close().await?;
//! assert_eq!(fs.read_all(&path, 1 << 20).await?, b"hello"[..]);
//! # Ok(())
//! # }
//! ```
//!
//! Invariants: no byte is handed out that does not match a checksum its writer computed. A writer goes on without an
//! error while one DataNode of its pipeline lives. Memory per open file is bounded by the settings.

pub mod admin;
pub mod catalogue;
pub mod checksum;
pub mod config;
pub mod convert;
mod erasure;
pub mod fs;
pub mod job;
pub mod kv;
mod lease;
pub mod load;
mod namenode;
mod plan;
pub mod read;
mod retry;
mod rpc;
pub mod write;

pub use admin::{CheckOptions, Mend};
pub use catalogue::{Catalogue, NewVersion};
pub use checksum::{CompositeChecksum, FileChecksum};
pub use config::Config;
pub use convert::Conversion;
pub use fs::{CreateOptions, Fs, Recursion};
pub use read::{BlockingReader, FileReader};
pub use write::{BlockingWriter, FileWriter};

pub use proto::granary::{FileKind, FileStatus, RenameMode};
pub use proto::{Code, Error, FsPath, Kind, Result};

#[cfg(test)]
mod tests {
    use super::*;

    /// Compiles only if the futures of the API may move between threads.
    #[allow(dead_code, reason = "it is compiled, not run")]
    fn every_future_can_be_spawned(fs: &'static Fs, path: &'static FsPath) {
        fn spawnable<T: Send>(_: T) {}
        spawnable(Fs::connect(Config::default()));
        spawnable(fs.status(path));
        spawnable(fs.read_all(path, 1));
        spawnable(fs.write_all(path, b""));
        spawnable(fs.checksum(path));
        spawnable(fs.composite_checksum(path));
        spawnable(fs.list(path));
        spawnable(async move {
            let mut writer = fs.append(path).await?;
            writer.write(b"").await?;
            writer.sync().await?;
            writer.close().await
        });
    }
}
