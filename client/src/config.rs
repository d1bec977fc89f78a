//! Settings of a client. Plain values; the command line merges file, environment and flags into them.

use proto::limits;
use serde::{Deserialize, Serialize};
use transfer::Timeouts;

/// How a client talks to its cluster. Every field has a safe default.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `host:port` of the NameNode's gRPC service.
    pub namenode: String,
    /// Who calls. Empty: the user of the operating system.
    pub user: String,
    /// Replicas of new files. 0: the server's default.
    pub replication: u32,
    /// Bytes of a block of new files. 0: the server's default.
    pub block_bytes: u64,
    /// Data bytes of a packet that this client writes. Rounded down to whole chunks of 512.
    pub packet_bytes: u32,
    /// Packets of a block that may wait for their ack. Bounds the memory of a writer: this times `packet_bytes`.
    pub write_packets_in_flight_max: usize,
    /// Rows of a striped file's group that may wait for their acks. Bounds the memory of its writer: a cell of each unit
    /// for each row, and for three rows more.
    pub striped_rows_in_flight_max: usize,
    /// Bytes that a sequential reader fetches before they are asked for.
    pub read_ahead_bytes: u64,
    /// Read replicas on this machine through file descriptors that the DataNode hands over.
    pub short_circuit: bool,
    /// Permission bits that new files and folders do not get.
    pub umask: u32,
    /// Milliseconds to connect to a NameNode or DataNode.
    pub connect_timeout_ms: u64,
    /// Milliseconds that `Fs::connect` tries to reach the NameNode before it says that nobody is there.
    pub connect_total_ms: u64,
    /// Milliseconds that one attempt of a call to the NameNode may take.
    pub call_timeout_ms: u64,
    /// Milliseconds that a call is repeated while the NameNode is away, starting or in safe mode.
    pub retry_total_ms: u64,
    /// Milliseconds before the first repetition; doubled each time.
    pub retry_pause_min_ms: u64,
    /// Milliseconds between repetitions at most.
    pub retry_pause_max_ms: u64,
    /// Milliseconds without progress after which a connection to a DataNode is given up.
    pub transfer_timeout_ms: u64,
    /// Milliseconds between heartbeats on a pipeline without packets.
    pub pipeline_heartbeat_ms: u64,
    /// Milliseconds that a DataNode which failed is asked last.
    pub bad_node_ms: u64,
    /// Milliseconds after which a unit of a striped file that was asked for and has not come is computed from others.
    /// 0: never.
    pub read_hedge_ms: u64,
    /// How often the locations of a block are asked for anew before a read of it fails.
    pub read_rounds_max: u32,
    /// How many sets of DataNodes a new block is tried on before a write fails.
    pub block_tries_max: u32,
    /// Idle connections to DataNodes that are kept.
    pub idle_connections_max: usize,
    /// Milliseconds that an idle connection to a DataNode is kept.
    pub idle_connection_ms: u64,
    /// Milliseconds between renewals of the lease while files are open for writing.
    pub lease_renew_interval_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            namenode: "127.0.0.1:8030".into(),
            user: String::new(),
            replication: 0,
            block_bytes: 0,
            packet_bytes: limits::PACKET_BYTES_NATIVE,
            write_packets_in_flight_max: 16,
            striped_rows_in_flight_max: 3,
            read_ahead_bytes: 8 << 20,
            short_circuit: true,
            umask: 0o022,
            connect_timeout_ms: 5_000,
            connect_total_ms: 5_000,
            call_timeout_ms: 15_000,
            retry_total_ms: 60_000,
            retry_pause_min_ms: 20,
            retry_pause_max_ms: 2_000,
            transfer_timeout_ms: 30_000,
            pipeline_heartbeat_ms: 10_000,
            bad_node_ms: 60_000,
            read_hedge_ms: 500,
            read_rounds_max: 4,
            block_tries_max: 8,
            idle_connections_max: 64,
            idle_connection_ms: 3_000,
            lease_renew_interval_ms: limits::LEASE_RENEW_INTERVAL_MS,
        }
    }
}

impl Config {
    /// The deadlines of the data plane.
    pub(crate) fn timeouts(&self) -> Timeouts {
        Timeouts {
            connect_ms: self.connect_timeout_ms,
            idle_ms: self.transfer_timeout_ms,
            heartbeat_ms: self.pipeline_heartbeat_ms,
            ..Timeouts::default()
        }
    }
}
