//! The settings of a DataNode: plain values with safe defaults, merged by the command line from file, environment
//! and flags.
//!
//! Nothing here touches disk or network; [`Config::check`] finds contradictions before anything is started.

use std::path::PathBuf;

use proto::{Code, Error, Result};
use serde::{Deserialize, Serialize};

/// Settings of one DataNode.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `host:port` of the NameNode's gRPC.
    pub namenode: String,
    /// Folders for replicas, one per disk. Made if missing.
    pub volumes: Vec<PathBuf>,
    /// Where DataTransferProtocol listens; port 0 chooses a free one.
    pub data_addr: String,
    /// Where the gRPC service Replicas listens.
    pub control_addr: String,
    /// Where Hadoop's RPC (ClientDatanodeProtocol) listens.
    pub ipc_addr: String,
    /// Where `/status`, `/metrics` and `/healthz` are served.
    pub http_addr: String,
    /// The user who may look and give orders as HDFS's superuser does; empty: the one who started this process.
    pub superuser: String,
    /// Host that clients are told to dial; empty: the host of `data_addr`, or, if that is a wildcard, the address from
    /// which the NameNode sees this DataNode.
    pub advertised_host: String,
    /// The rack that this DataNode stands in, as `/row1/rack7`, unless `namenode.racks` names it.
    pub rack: String,
    /// Unix socket for clients on this machine; empty: `data.sock` in the first volume.
    pub local_socket: String,
    /// Bytes of each volume that replicas leave free.
    pub reserved_bytes: u64,
    /// The reserve is at most this share of a volume, in percent.
    pub reserved_percent: u64,
    /// Connections that may be open on the data port at once.
    pub transfers_max: u64,
    /// Files that may be read and written over WebHDFS at once; each takes up to 8 MiB of memory.
    pub webhdfs_transfers_max: u64,
    /// Threads that read and write block files, for each volume.
    pub disk_threads: u64,
    /// Bytes of received packets that wait for the disk, for each writer.
    pub write_queue_bytes: u64,
    /// Start writing back each time so many bytes of a replica were written, so that the sync at close is short.
    pub writeback_bytes: u64,
    /// A connection without a request is closed after this time, in milliseconds.
    pub idle_timeout_ms: u64,
    /// A peer that neither sends nor takes a byte during a transfer is given up after this time, in milliseconds. The next
    /// DataNode of a pipeline gets 5 s more for each that is behind this one, as from HDFS's clients.
    pub stall_timeout_ms: u64,
    /// Connecting to another DataNode or the NameNode takes at most this time, in milliseconds.
    pub connect_timeout_ms: u64,
    /// A read beyond what is visible of a replica being written waits for it at most this time, in milliseconds: another
    /// DataNode of the pipeline may have told of bytes whose acknowledgement is still on its way here. 0: not at all.
    pub visible_wait_ms: u64,
    /// How long a recovery or a new pipeline waits for the earlier writer of a replica to stop, in milliseconds.
    pub takeover_timeout_ms: u64,
    /// The first pause before the NameNode is dialled again, in milliseconds; it doubles up to the next setting.
    pub reconnect_backoff_ms: u64,
    /// The longest pause before the NameNode is dialled again, in milliseconds.
    pub reconnect_backoff_max_ms: u64,
    /// How often the replica index is brought up to date on disk, in milliseconds.
    pub index_interval_ms: u64,
    /// Memory for the replica index of each volume, in bytes.
    pub index_cache_bytes: u64,
    /// Replicas sent to other DataNodes at the NameNode's command at once.
    pub command_transfers_max: u64,
    /// Block groups of which lost units are computed here at once.
    pub reconstruction_groups_max: u64,
    /// Bytes of each unit that are read, decoded and written at once. A group takes up to 5 times as much memory for
    /// each unit that is read, and 10 times for each that is written.
    pub reconstruction_step_bytes: u64,
    /// Bytes that are read per second to compute lost units, over all groups; 0: as fast as it goes.
    pub reconstruction_bytes_per_s: u64,
    /// Every replica is verified once in this time, in milliseconds; 0: none is, but those under suspicion.
    pub scrub_period_ms: u64,
    /// Bytes of each volume that are verified per second, at most; 0: as many as the period asks for.
    pub scrub_bytes_per_s: u64,
    /// Volumes that may be out of service before the DataNode stops. It stops at the latest when none is left.
    pub failed_volumes_max: u64,
    /// How often it is looked whether a volume is there and takes bytes, in milliseconds.
    pub volume_check_interval_ms: u64,
    /// A volume that does not answer that look for so long is out of service, in milliseconds.
    pub volume_check_timeout_ms: u64,
    /// Replicas are moved between the volumes when their shares of used space differ by more than this, in percent; 100:
    /// never.
    pub balance_threshold_percent: u64,
    /// Bytes that are moved between volumes per second, at most; 0: as fast as it goes.
    pub balance_bytes_per_s: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            namenode: "127.0.0.1:8030".into(),
            volumes: Vec::new(),
            data_addr: "127.0.0.1:9866".into(),
            control_addr: "127.0.0.1:9863".into(),
            ipc_addr: "127.0.0.1:9867".into(),
            http_addr: "127.0.0.1:9864".into(),
            superuser: String::new(),
            advertised_host: String::new(),
            rack: String::new(),
            local_socket: String::new(),
            reserved_bytes: 1 << 30,
            reserved_percent: 5,
            transfers_max: 4096,
            webhdfs_transfers_max: 64,
            disk_threads: 8,
            write_queue_bytes: 8 << 20,
            writeback_bytes: 8 << 20,
            idle_timeout_ms: 120_000,
            stall_timeout_ms: 60_000,
            connect_timeout_ms: 5_000,
            visible_wait_ms: 3_000,
            takeover_timeout_ms: 10_000,
            reconnect_backoff_ms: 100,
            reconnect_backoff_max_ms: 3_000,
            index_interval_ms: 30_000,
            index_cache_bytes: 16 << 20,
            command_transfers_max: 4,
            reconstruction_groups_max: 4,
            reconstruction_step_bytes: 1 << 20,
            reconstruction_bytes_per_s: 0,
            scrub_period_ms: 7 * 24 * 3_600_000,
            scrub_bytes_per_s: 64 << 20,
            failed_volumes_max: VOLUMES_MAX as u64,
            volume_check_interval_ms: 30_000,
            volume_check_timeout_ms: 120_000,
            balance_threshold_percent: 10,
            balance_bytes_per_s: 10 << 20,
        }
    }
}

impl Config {
    /// Checks what types can't. The error names the setting.
    pub fn check(&self) -> Result<()> {
        let bad = |what: String| Err(Error::new(Code::InvalidArgument, what));
        if self.volumes.is_empty() {
            return bad("datanode.volumes is empty: name at least one folder for replicas".into());
        }
        if self.volumes.len() > VOLUMES_MAX {
            return bad(format!(
                "datanode.volumes has {} folders, at most {VOLUMES_MAX}",
                self.volumes.len()
            ));
        }
        for (name, value) in [
            ("reserved_percent", self.reserved_percent),
            ("balance_threshold_percent", self.balance_threshold_percent),
        ] {
            if value > 100 {
                return bad(format!("datanode.{name} is {value}, at most 100"));
            }
        }
        for (name, value) in [
            ("transfers_max", self.transfers_max),
            ("webhdfs_transfers_max", self.webhdfs_transfers_max),
            ("disk_threads", self.disk_threads),
            ("write_queue_bytes", self.write_queue_bytes),
            ("writeback_bytes", self.writeback_bytes),
            ("idle_timeout_ms", self.idle_timeout_ms),
            ("stall_timeout_ms", self.stall_timeout_ms),
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("takeover_timeout_ms", self.takeover_timeout_ms),
            ("reconnect_backoff_ms", self.reconnect_backoff_ms),
            ("reconnect_backoff_max_ms", self.reconnect_backoff_max_ms),
            ("index_interval_ms", self.index_interval_ms),
            ("index_cache_bytes", self.index_cache_bytes),
            ("command_transfers_max", self.command_transfers_max),
            ("volume_check_interval_ms", self.volume_check_interval_ms),
            ("volume_check_timeout_ms", self.volume_check_timeout_ms),
            ("reconstruction_groups_max", self.reconstruction_groups_max),
            ("reconstruction_step_bytes", self.reconstruction_step_bytes),
        ] {
            if value == 0 {
                return bad(format!("datanode.{name} is 0, expected at least 1"));
            }
        }
        if self.reconstruction_step_bytes > RECONSTRUCTION_STEP_BYTES_MAX {
            return bad(format!(
                "datanode.reconstruction_step_bytes is {}, at most {RECONSTRUCTION_STEP_BYTES_MAX}",
                self.reconstruction_step_bytes
            ));
        }
        if self.disk_threads > 256 {
            return bad(format!("datanode.disk_threads is {}, at most 256", self.disk_threads));
        }
        Ok(())
    }
}

/// Folders of one DataNode: a replica's entry in memory has a byte for its volume.
pub const VOLUMES_MAX: usize = 255;

/// Bytes of a unit that are decoded at once, at most: they travel in one packet.
pub const RECONSTRUCTION_STEP_BYTES_MAX: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_named() {
        let error = Config::default().check().unwrap_err();
        assert!(error.message.contains("datanode.volumes"), "{error}");
        let config = Config { volumes: vec!["/x".into()], ..Config::default() };
        assert_eq!(config.check(), Ok(()));
        let error = Config { disk_threads: 0, ..config }.check().unwrap_err();
        assert!(error.message.contains("datanode.disk_threads"), "{error}");
    }
}
