//! Settings of a key-value server: plain values, safe defaults.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings of a key-value server. See the fields.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder for fetched tables. One server at a time may use it.
    pub dir: PathBuf,
    /// The NameNode's gRPC address, `host:port`.
    pub namenode: String,
    /// User in whose name tables are read; empty: the user of the operating system.
    pub user: String,
    /// Where to listen for the Redis protocol. Port 0: a free one.
    pub redis_addr: String,
    /// Where to listen for gRPC. Port 0: a free one.
    pub grpc_addr: String,
    /// Where to listen for status and metrics over HTTP. Port 0: a free one.
    pub http_addr: String,
    /// Host that clients are told; empty: the one it listens on, or this machine's name if that is every address.
    pub advertised_host: String,
    /// Store that plain Redis commands read; empty: the only store, if there is one.
    pub default_store: String,
    /// All fetches together, in bytes per second; 0: no limit.
    pub fetch_bytes_per_second_max: u64,
    /// Tables fetched at the same time.
    pub fetch_streams: usize,
    /// Bytes asked for at once by one stream.
    pub fetch_chunk_bytes: usize,
    /// Free space that fetches leave on the disk, in bytes.
    pub disk_reserve_bytes: u64,
    /// Read tables into memory before they serve.
    pub warm: bool,
    /// Connections of the Redis protocol.
    pub connections_max: usize,
    /// Bytes of one command, arguments and all.
    pub command_bytes_max: usize,
    /// Bytes of one argument.
    pub argument_bytes_max: usize,
    /// Arguments of one command.
    pub arguments_max: usize,
    /// Close a connection that sent nothing for so long, in milliseconds; 0: never (TCP keepalive finds dead peers).
    pub idle_timeout_ms: u64,
    /// Close a connection that does not take its replies for so long, in milliseconds.
    pub output_stall_ms_max: u64,
    /// Bytes of replies that wait before they are written in the midst of a batch.
    pub output_buffer_bytes: usize,
    /// Keys that KEYS may answer.
    pub keys_max: usize,
    /// Scan positions remembered for clients.
    pub cursors_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("granary-data/kvserve"),
            namenode: "127.0.0.1:8030".into(),
            user: String::new(),
            redis_addr: "127.0.0.1:6380".into(),
            grpc_addr: "127.0.0.1:6381".into(),
            http_addr: "127.0.0.1:6382".into(),
            advertised_host: String::new(),
            default_store: String::new(),
            fetch_bytes_per_second_max: 0,
            fetch_streams: 4,
            fetch_chunk_bytes: 4 << 20,
            disk_reserve_bytes: 256 << 20,
            warm: true,
            connections_max: 10_000,
            command_bytes_max: 64 << 20,
            argument_bytes_max: 16 << 20,
            arguments_max: 1 << 20,
            idle_timeout_ms: 0,
            output_stall_ms_max: 60_000,
            output_buffer_bytes: 256 << 10,
            keys_max: 100_000,
            cursors_max: 10_000,
        }
    }
}
