//! The page `/jmx`: the figures that dashboards of HDFS read, under the names of HDFS's beans.
//!
//! | bean | tells |
//! |---|---|
//! | `FSNamesystem`, `FSNamesystemState` | capacity, files, blocks in trouble, DataNodes |
//! | `NameNodeInfo` | the same in words and percent, and each DataNode |
//! | `NameNodeStatus` | what this NameNode is |
//! | `ReplicatedBlocksState`, `ECBlockGroupsState` | blocks in trouble, by how their files are kept |
//!
//! `?qry=NAME` gives the one bean of that name. Attributes that have no meaning here are left out, not made up.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Query, State as Shared};
use axum::response::Json;
use proto::granary::{ClusterStatus, DatanodeStatus, NodeService, VolumeStatus};
use serde_json::{Map, Value, json};

use super::node::Node;
use crate::cluster::replicas::Totals;
use crate::state::State;

const DOMAIN: &str = "Hadoop:service=NameNode,name=";

/// Answers `GET /jmx`.
pub async fn jmx(
    Shared(node): Shared<Arc<Node>>,
    Query(query): Query<HashMap<String, String>>,
) -> Json<Value> {
    let wanted = query.get("qry").map(String::as_str);
    Json(json!({ "beans": beans(&node, wanted) }))
}

fn beans(node: &Node, wanted: Option<&str>) -> Vec<Value> {
    let status = node.status();
    let figures = Figures::new(node, &status);
    let all = [
        ("FSNamesystem", "FSNamesystem", figures.namesystem()),
        (
            "FSNamesystemState",
            "org.apache.hadoop.hdfs.server.namenode.FSNamesystem",
            figures.state(),
        ),
        ("NameNodeInfo", "org.apache.hadoop.hdfs.server.namenode.FSNamesystem", figures.info()),
        ("NameNodeStatus", "org.apache.hadoop.hdfs.server.namenode.NameNode", figures.role(node)),
        (
            "ReplicatedBlocksState",
            "org.apache.hadoop.hdfs.server.namenode.FSNamesystem",
            figures.replicated(),
        ),
        (
            "ECBlockGroupsState",
            "org.apache.hadoop.hdfs.server.namenode.FSNamesystem",
            figures.groups(node),
        ),
    ];
    let named = all.into_iter().filter_map(|(name, kind, attributes)| {
        let name = format!("{DOMAIN}{name}");
        if wanted.is_some_and(|wanted| wanted != name && wanted != "*:*") {
            return None;
        }
        let mut bean = Map::from_iter([
            ("name".to_owned(), Value::from(name)),
            ("modelerType".to_owned(), Value::from(kind)),
        ]);
        if let Value::Object(attributes) = attributes {
            bean.extend(attributes);
        }
        Some(Value::Object(bean))
    });
    named.collect()
}

/// What the beans are made of.
struct Figures<'s> {
    status: &'s ClusterStatus,
    capacity: u64,
    used: u64,
    remaining: u64,
    files: u64,
    blocks: u64,
    under_replicated: u64,
    corrupt: u64,
    missing: u64,
    snapshottable: u64,
    snapshots: u64,
    /// Of the blocks, the block groups of striped files.
    groups: Totals,
}

impl<'s> Figures<'s> {
    fn new(node: &Node, status: &'s ClusterStatus) -> Self {
        let stats = status.stats.unwrap_or_default();
        let (snapshottable, snapshots) = node.log.read(State::snapshot_counts);
        Self {
            status,
            capacity: stats.capacity_bytes,
            used: stats.used_bytes,
            remaining: stats.remaining_bytes,
            files: stats.files,
            blocks: stats.blocks,
            under_replicated: stats.under_replicated_blocks,
            corrupt: stats.corrupt_blocks,
            missing: stats.missing_blocks,
            snapshottable,
            snapshots,
            groups: node.volatile.cluster(|cluster, _| cluster.replicas.group_totals()),
        }
    }

    fn foreign(&self) -> u64 {
        self.capacity.saturating_sub(self.used).saturating_sub(self.remaining)
    }

    fn nodes(&self, alive: bool) -> impl Iterator<Item = &DatanodeStatus> {
        self.status.datanodes.iter().filter(move |node| node.alive == alive)
    }

    /// DataNodes in a state of service; `alive`: only those that live, or do not.
    fn serving(&self, alive: Option<bool>, service: NodeService) -> usize {
        let fits = |node: &&DatanodeStatus| {
            node.service() == service && alive.is_none_or(|alive| node.alive == alive)
        };
        self.status.datanodes.iter().filter(fits).count()
    }

    fn load(&self) -> u64 {
        self.nodes(true).map(|node| u64::from(node.active_transfers)).sum()
    }

    fn namesystem(&self) -> Value {
        let since = self.status.last_txid.saturating_sub(self.status.checkpoint_txid);
        json!({
            "tag.Context": "dfs",
            "tag.HAState": "active",
            "MissingBlocks": self.missing,
            "UnderReplicatedBlocks": self.under_replicated,
            "CorruptBlocks": self.corrupt,
            "TransactionsSinceLastCheckpoint": since,
            "LastWrittenTransactionId": self.status.last_txid,
            "CapacityTotal": self.capacity,
            "CapacityUsed": self.used,
            "CapacityRemaining": self.remaining,
            "CapacityUsedNonDFS": self.foreign(),
            "TotalLoad": self.load(),
            "SnapshottableDirectories": self.snapshottable,
            "Snapshots": self.snapshots,
            "BlocksTotal": self.blocks,
            "FilesTotal": self.files,
            "NumLiveDataNodes": self.nodes(true).count(),
            "NumDeadDataNodes": self.nodes(false).count(),
        })
    }

    fn state(&self) -> Value {
        let failed = |node: &DatanodeStatus| node.volumes.iter().filter(|v| v.failed).count();
        json!({
            "CapacityTotal": self.capacity,
            "CapacityUsed": self.used,
            "CapacityRemaining": self.remaining,
            "TotalLoad": self.load(),
            "BlocksTotal": self.blocks,
            "FilesTotal": self.files,
            "UnderReplicatedBlocks": self.under_replicated,
            "FSState": if self.status.safe_mode { "safeMode" } else { "Operational" },
            "NumLiveDataNodes": self.nodes(true).count(),
            "NumDeadDataNodes": self.nodes(false).count(),
            "NumDecomLiveDataNodes": self.serving(Some(true), NodeService::Decommissioned),
            "NumDecomDeadDataNodes": self.serving(Some(false), NodeService::Decommissioned),
            "NumDecommissioningDataNodes": self.serving(None, NodeService::Decommissioning),
            "NumInMaintenanceLiveDataNodes": self.serving(Some(true), NodeService::InMaintenance),
            "NumInMaintenanceDeadDataNodes": self.serving(Some(false), NodeService::InMaintenance),
            "NumEnteringMaintenanceDataNodes":
                self.serving(None, NodeService::EnteringMaintenance),
            "VolumeFailuresTotal": self.nodes(true).map(failed).sum::<usize>(),
        })
    }

    fn replicated(&self) -> Value {
        // Counted at two moments: a difference may be a little off, and is never below nothing.
        json!({
            "LowRedundancyReplicatedBlocks":
                self.under_replicated.saturating_sub(self.groups.under_replicated),
            "CorruptReplicatedBlocks": self.corrupt.saturating_sub(self.groups.corrupt),
            "MissingReplicatedBlocks": self.missing.saturating_sub(self.groups.missing),
            "TotalReplicatedBlocks": self.blocks.saturating_sub(self.groups.blocks),
        })
    }

    fn groups(&self, node: &Node) -> Value {
        let policies = node.coding_policies().into_iter();
        let enabled: Vec<&str> =
            policies.filter(|(_, enabled)| *enabled).map(|(policy, _)| policy.name).collect();
        json!({
            "LowRedundancyECBlockGroups": self.groups.under_replicated,
            "CorruptECBlockGroups": self.groups.corrupt,
            "MissingECBlockGroups": self.groups.missing,
            "TotalECBlockGroups": self.groups.blocks,
            "EnabledEcPolicies": enabled.join(", "),
        })
    }

    fn info(&self) -> Value {
        let percent = |part: u64| match self.capacity {
            0 => 0.0,
            whole => part as f64 * 100.0 / whole as f64,
        };
        // As in HDFS: maps of DataNodes are texts that hold JSON.
        let map = |alive| {
            let nodes = self.nodes(alive).map(described);
            Value::Object(nodes.collect()).to_string()
        };
        json!({
            "Version": self.status.software_version,
            "SoftwareVersion": self.status.software_version,
            "Total": self.capacity,
            "Used": self.used,
            "Free": self.remaining,
            "NonDfsUsedSpace": self.foreign(),
            "PercentUsed": percent(self.used),
            "PercentRemaining": percent(self.remaining),
            "Safemode": self.status.safe_mode_reason,
            "TotalBlocks": self.blocks,
            "TotalFiles": self.files,
            "NumberOfMissingBlocks": self.missing,
            "LiveNodes": map(true),
            "DeadNodes": map(false),
            "DecomNodes": "{}",
            "BlockPoolId": self.status.pool_id,
            "ClusterId": self.status.cluster_id,
            "NNStartedTimeInMillis": self.status.started_ns / 1_000_000,
        })
    }

    fn role(&self, node: &Node) -> Value {
        json!({
            "NNRole": "NameNode",
            "HostAndPort": node.hadoop_rpc_addr.to_string(),
            "SecurityEnabled": false,
            "State": "active",
        })
    }
}

/// What a DataNode is for, in the words of HDFS's pages.
fn admin_state(node: &DatanodeStatus) -> &'static str {
    match node.service() {
        NodeService::InService => "In Service",
        NodeService::Decommissioning => "Decommission In Progress",
        NodeService::Decommissioned => "Decommissioned",
        NodeService::EnteringMaintenance => "Entering Maintenance",
        NodeService::InMaintenance => "In Maintenance",
    }
}

/// A DataNode under the name that HDFS gives it.
fn described(node: &DatanodeStatus) -> (String, Value) {
    let address = node.address.clone().unwrap_or_default();
    let sum = |field: fn(&VolumeStatus) -> u64| {
        let working = node.volumes.iter().filter(|volume| !volume.failed);
        working.map(field).fold(0, u64::saturating_add)
    };
    let (capacity, used) = (sum(|v| v.capacity_bytes), sum(|v| v.used_bytes));
    let remaining = sum(|v| v.remaining_bytes);
    let value = json!({
        "infoAddr": format!("{}:{}", address.host, address.http_port),
        "xferaddr": format!("{}:{}", address.host, address.data_port),
        "lastContact": node.last_heartbeat_ms_ago / 1_000,
        "capacity": capacity,
        "usedSpace": used,
        "remaining": remaining,
        "nonDfsUsedSpace": capacity.saturating_sub(used).saturating_sub(remaining),
        "numBlocks": node.replicas,
        "version": node.software_version,
        "volfails": node.volumes.iter().filter(|volume| volume.failed).count(),
        "adminState": admin_state(node),
    });
    (format!("{}:{}", address.host, address.data_port), value)
}
