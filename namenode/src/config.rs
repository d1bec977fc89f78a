//! Settings of a NameNode: plain values, safe defaults, one flat level.
//!
//! [`Config::check`] says what is out of range, by the setting's name. Opening ports and folders is the server's.

use std::path::PathBuf;

use proto::limits;
use proto::{Code, Error, Result};
use serde::{Deserialize, Serialize};

/// Settings of a NameNode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder of the journal, the checkpoints and the identity.
    pub dir: PathBuf,
    /// Where gRPC listens, `host:port`; port 0 takes a free one.
    pub grpc_addr: String,
    /// Where the status page and the metrics are, `host:port`; port 0 takes a free one.
    pub http_addr: String,
    /// Where Hadoop's RPC listens, for `hdfs://`, `host:port`; port 0 takes a free one.
    pub hadoop_rpc_addr: String,
    /// The user for whom no permission is checked. Empty: the one who started this process.
    pub superuser: String,
    /// The group whose members are superusers.
    pub supergroup: String,
    /// Who is in which groups: `user=group,group`. A user who is not named is in a group of his own name.
    pub groups: Vec<String>,
    /// Which rack a DataNode stands in: `host=/rack` or `uuid=/rack`. One that is not named stands where it tells
    /// itself, or in `/default-rack`.
    pub racks: Vec<String>,
    /// Whether permissions are checked at all.
    pub permissions_enabled: bool,
    /// Replicas of a block if the client asks for none.
    pub replication: u32,
    /// Replicas that a block must have before its file can be closed or go on.
    pub replication_min: u32,
    /// Bytes of a block if the client asks for none.
    pub block_bytes: u64,
    /// How often DataNodes and kvserve nodes report, in milliseconds.
    pub heartbeat_interval_ms: u64,
    /// A DataNode that was silent for so long gets no new writes, in milliseconds.
    pub datanode_suspect_after_ms: u64,
    /// The replicas of a DataNode that was silent for so long do not count, in milliseconds.
    pub datanode_dead_after_ms: u64,
    /// A kvserve node that was silent for so long does not hold a new version up, in milliseconds.
    pub kvserve_dead_after_ms: u64,
    /// Share of blocks that must be reported before anything may change after a start, 0 to 1.
    pub safemode_threshold: f64,
    /// After that, how long safe mode waits for blocks that still lack replicas, and how long after a start a writer
    /// that finds too few DataNodes is asked to try again, in milliseconds.
    pub safemode_extension_ms: u64,
    /// A writer that was silent for so long may be replaced by another, in milliseconds.
    pub lease_soft_limit_ms: u64,
    /// The files of a writer that was silent for so long are recovered, in milliseconds.
    pub lease_hard_limit_ms: u64,
    /// How long one DataNode may take to recover a block before another is asked, in milliseconds.
    pub block_recovery_timeout_ms: u64,
    /// How long a block may have too few replicas before it is copied, in milliseconds.
    pub repair_grace_ms: u64,
    /// Copies for repair and balancing that one DataNode sends at once; and so many it receives.
    pub repair_copies_per_datanode_max: usize,
    /// Copies for repair and balancing that are under way in the cluster at once.
    pub repair_copies_max: usize,
    /// Bytes per second that one DataNode sends for repair and balancing, and receives; 0: no limit.
    pub repair_datanode_bytes_per_s_max: u64,
    /// Bytes per second of all repair and balancing; 0: no limit.
    pub repair_bytes_per_s_max: u64,
    /// Replicas that must stand on DataNodes in service while others are in maintenance.
    pub maintenance_replicas_min: u32,
    /// How long `complete` and `addBlock` wait for a block's replicas before they say "not yet", in milliseconds.
    pub complete_hold_ms: u64,
    /// A checkpoint is written when the journal grew by so many bytes since the last.
    pub checkpoint_journal_bytes: u64,
    /// A checkpoint is written when so many pages of the state (about 64 files each) changed since the last.
    pub checkpoint_dirty_pages: usize,
    /// Bytes of one file of the journal; it is allocated whole.
    pub journal_segment_bytes: u64,
    /// Changes that may wait to be journaled; beyond it callers wait to be let in.
    pub queue_proposals_max: usize,
    /// How long a graceful stop may take, in milliseconds.
    pub shutdown_grace_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("granary-namenode"),
            grpc_addr: "127.0.0.1:8030".into(),
            http_addr: "127.0.0.1:9870".into(),
            hadoop_rpc_addr: "127.0.0.1:8020".into(),
            superuser: String::new(),
            supergroup: "supergroup".into(),
            groups: Vec::new(),
            racks: Vec::new(),
            permissions_enabled: true,
            replication: limits::REPLICATION_DEFAULT,
            replication_min: 1,
            block_bytes: limits::BLOCK_BYTES_DEFAULT,
            heartbeat_interval_ms: 1_000,
            datanode_suspect_after_ms: 5_000,
            datanode_dead_after_ms: 30_000,
            kvserve_dead_after_ms: 10_000,
            safemode_threshold: 0.999,
            safemode_extension_ms: 5_000,
            lease_soft_limit_ms: limits::LEASE_SOFT_LIMIT_MS,
            lease_hard_limit_ms: limits::LEASE_HARD_LIMIT_MS,
            block_recovery_timeout_ms: 30_000,
            repair_grace_ms: 10_000,
            repair_copies_per_datanode_max: 4,
            repair_copies_max: 10_000,
            repair_datanode_bytes_per_s_max: 0,
            repair_bytes_per_s_max: 0,
            maintenance_replicas_min: 1,
            complete_hold_ms: 2_000,
            checkpoint_journal_bytes: 256 << 20,
            checkpoint_dirty_pages: 100_000,
            journal_segment_bytes: 64 << 20,
            queue_proposals_max: 16_384,
            shutdown_grace_ms: 3_000,
        }
    }
}

impl Config {
    /// Checks every range. Errors: `InvalidArgument` that names the setting.
    pub fn check(&self) -> Result<()> {
        let wrong = |setting: &str, why: String| {
            Err(Error::new(Code::InvalidArgument, format!("namenode.{setting}: {why}")))
        };
        let between = |setting: &str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            wrong(setting, format!("{value} is not within {low} to {high}"))
        };
        if !(0.0..=1.0).contains(&self.safemode_threshold) {
            return wrong(
                "safemode_threshold",
                format!("{} is not within 0 to 1", self.safemode_threshold),
            );
        }
        if self.dir.as_os_str().is_empty() {
            return wrong("dir", "it is empty".into());
        }
        between("replication", self.replication.into(), 1, limits::REPLICATION_MAX.into())?;
        between("replication_min", self.replication_min.into(), 1, self.replication.into())?;
        between("block_bytes", self.block_bytes, limits::BLOCK_BYTES_MIN, limits::BLOCK_BYTES_MAX)?;
        const HOUR_MS: u64 = 3_600_000;
        between("heartbeat_interval_ms", self.heartbeat_interval_ms, 10, HOUR_MS)?;
        let suspect_ms = self.datanode_suspect_after_ms;
        between("datanode_suspect_after_ms", suspect_ms, self.heartbeat_interval_ms, HOUR_MS)?;
        between("datanode_dead_after_ms", self.datanode_dead_after_ms, suspect_ms, 24 * HOUR_MS)?;
        let interval_ms = self.heartbeat_interval_ms;
        between("kvserve_dead_after_ms", self.kvserve_dead_after_ms, interval_ms, 24 * HOUR_MS)?;
        between("lease_soft_limit_ms", self.lease_soft_limit_ms, 1, 24 * HOUR_MS)?;
        let soft_ms = self.lease_soft_limit_ms;
        between("lease_hard_limit_ms", self.lease_hard_limit_ms, soft_ms, 24 * HOUR_MS)?;
        between("block_recovery_timeout_ms", self.block_recovery_timeout_ms, 100, HOUR_MS)?;
        between("repair_grace_ms", self.repair_grace_ms, 0, HOUR_MS)?;
        let copies = self.repair_copies_per_datanode_max as u64;
        between("repair_copies_per_datanode_max", copies, 1, 1_000)?;
        between("repair_copies_max", self.repair_copies_max as u64, 1, 1_000_000)?;
        let least = u64::from(self.maintenance_replicas_min);
        between("maintenance_replicas_min", least, 1, limits::REPLICATION_MAX.into())?;
        between("complete_hold_ms", self.complete_hold_ms, 0, 60_000)?;
        between("checkpoint_journal_bytes", self.checkpoint_journal_bytes, 1 << 20, 1 << 40)?;
        between("checkpoint_dirty_pages", self.checkpoint_dirty_pages as u64, 1, 1 << 32)?;
        between("journal_segment_bytes", self.journal_segment_bytes, 4 << 20, 1 << 32)?;
        between("queue_proposals_max", self.queue_proposals_max as u64, 1, 1 << 20)?;
        between("shutdown_grace_ms", self.shutdown_grace_ms, 1, HOUR_MS)?;
        for entry in &self.racks {
            if crate::cluster::topology::parse_entry(entry).is_none() {
                return wrong("racks", format!("{entry:?} is not of the form host=/rack"));
            }
        }
        for entry in &self.groups {
            if parse_groups(entry).is_none() {
                return wrong("groups", format!("{entry:?} is not of the form user=group,group"));
            }
        }
        Ok(())
    }
}

/// `user=group,group` as (user, groups); `None` if it is not of that form.
pub fn parse_groups(entry: &str) -> Option<(&str, Vec<&str>)> {
    let (user, groups) = entry.split_once('=')?;
    let groups: Vec<&str> = groups.split(',').map(str::trim).collect();
    let fit = |name: &str| !name.is_empty() && name.len() <= limits::PRINCIPAL_BYTES_MAX;
    (fit(user.trim()) && groups.iter().all(|group| fit(group))).then_some((user.trim(), groups))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range() {
        Config::default().check().unwrap();
    }

    #[test]
    fn a_setting_out_of_range_is_named() {
        let base = Config::default;
        for (config, name) in [
            (Config { replication_min: 4, ..base() }, "replication_min"),
            (Config { replication: 0, ..base() }, "replication"),
            (Config { block_bytes: 1, ..base() }, "block_bytes"),
            (Config { safemode_threshold: f64::NAN, ..base() }, "safemode_threshold"),
            (Config { datanode_dead_after_ms: 1, ..base() }, "datanode_dead_after_ms"),
            (Config { groups: vec!["alice".into()], ..base() }, "groups"),
            (Config { dir: PathBuf::new(), ..base() }, "dir"),
        ] {
            let error = config.check().unwrap_err();
            assert!(error.message.starts_with(&format!("namenode.{name}: ")), "{error}");
        }
    }

    #[test]
    fn groups_are_parsed_and_trimmed() {
        assert_eq!(parse_groups("alice=staff, web"), Some(("alice", vec!["staff", "web"])));
        for bad in ["", "alice", "=staff", "alice=", "alice=a,,b"] {
            assert_eq!(parse_groups(bad), None, "{bad}");
        }
    }
}
