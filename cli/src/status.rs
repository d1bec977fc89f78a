//! `granary status`: the cluster at a glance.

use std::time::Duration;

use proto::granary::{ClusterStatus, DatanodeStatus, KvserveStatus};
use serde::Serialize;

use crate::admin::node::service;
use crate::admin::report::Repair;
use crate::connect::Context;
use crate::failure::Result;
use crate::output::{Align, Out, Table};
use crate::store::{Shown as ShownStore, table as store_table};
use crate::units;

const CLEAR: &str = "\x1b[H\x1b[2J";

/// Options of `granary status`.
#[derive(clap::Args, Debug)]
pub struct StatusArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Show it again and again, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2, requires = "watch")]
    interval: u64,
}

#[derive(Serialize)]
struct Shown {
    cluster_id: String,
    software_version: String,
    safe_mode: bool,
    safe_mode_reason: String,
    last_txid: u64,
    checkpoint_txid: u64,
    started_ns: i64,
    capacity_bytes: u64,
    used_bytes: u64,
    remaining_bytes: u64,
    files: u64,
    blocks: u64,
    under_replicated_blocks: u64,
    corrupt_blocks: u64,
    missing_blocks: u64,
    repair: Repair,
    datanodes: Vec<ShownDatanode>,
    kvservers: Vec<ShownKvserve>,
    stores: Vec<ShownStore>,
}

#[derive(Serialize)]
struct ShownDatanode {
    uuid: String,
    address: String,
    alive: bool,
    service: &'static str,
    last_heartbeat_ms_ago: u64,
    volumes: usize,
    failed_volumes: usize,
    capacity_bytes: u64,
    used_bytes: u64,
    remaining_bytes: u64,
    replicas: u64,
    active_transfers: u32,
    software_version: String,
}

#[derive(Serialize)]
struct ShownKvserve {
    uuid: String,
    redis: String,
    grpc: String,
    alive: bool,
    last_heartbeat_ms_ago: u64,
    capacity_bytes: u64,
    used_bytes: u64,
}

impl From<&DatanodeStatus> for ShownDatanode {
    fn from(node: &DatanodeStatus) -> Self {
        let address = node.address.clone().unwrap_or_default();
        let sum =
            |field: fn(&proto::granary::VolumeStatus) -> u64| node.volumes.iter().map(field).sum();
        Self {
            uuid: address.uuid,
            address: format!("{}:{}", address.host, address.data_port),
            alive: node.alive,
            service: service(node.service()),
            last_heartbeat_ms_ago: node.last_heartbeat_ms_ago,
            volumes: node.volumes.len(),
            failed_volumes: node.volumes.iter().filter(|volume| volume.failed).count(),
            capacity_bytes: sum(|volume| volume.capacity_bytes),
            used_bytes: sum(|volume| volume.used_bytes),
            remaining_bytes: sum(|volume| volume.remaining_bytes),
            replicas: node.replicas,
            active_transfers: node.active_transfers,
            software_version: node.software_version.clone(),
        }
    }
}

impl From<&KvserveStatus> for ShownKvserve {
    fn from(node: &KvserveStatus) -> Self {
        let address = node.address.clone().unwrap_or_default();
        Self {
            redis: format!("{}:{}", address.host, address.redis_port),
            grpc: format!("{}:{}", address.host, address.grpc_port),
            uuid: address.uuid,
            alive: node.alive,
            last_heartbeat_ms_ago: node.last_heartbeat_ms_ago,
            capacity_bytes: node.capacity_bytes,
            used_bytes: node.used_bytes,
        }
    }
}

impl From<&ClusterStatus> for Shown {
    fn from(status: &ClusterStatus) -> Self {
        let stats = status.stats.unwrap_or_default();
        Self {
            cluster_id: status.cluster_id.clone(),
            software_version: status.software_version.clone(),
            safe_mode: status.safe_mode,
            safe_mode_reason: status.safe_mode_reason.clone(),
            last_txid: status.last_txid,
            checkpoint_txid: status.checkpoint_txid,
            started_ns: status.started_ns,
            capacity_bytes: stats.capacity_bytes,
            used_bytes: stats.used_bytes,
            remaining_bytes: stats.remaining_bytes,
            files: stats.files,
            blocks: stats.blocks,
            under_replicated_blocks: stats.under_replicated_blocks,
            corrupt_blocks: stats.corrupt_blocks,
            missing_blocks: stats.missing_blocks,
            repair: status.into(),
            datanodes: status.datanodes.iter().map(Into::into).collect(),
            kvservers: status.kvservers.iter().map(Into::into).collect(),
            stores: status.stores.iter().map(Into::into).collect(),
        }
    }
}

/// Runs `granary status`.
pub async fn run(args: &StatusArgs, context: &Context, out: &mut Out) -> Result<()> {
    let fs = context.connect().await?;
    loop {
        let shown = Shown::from(&fs.cluster_status().await?);
        if args.watch && !args.json {
            out.bytes(CLEAR.as_bytes())?;
        }
        if args.json {
            out.json(&shown)?
        } else {
            print(&shown, out)?
        }
        if !args.watch {
            return Ok(());
        }
        out.flush()?;
        tokio::time::sleep(Duration::from_secs(args.interval.max(1))).await;
    }
}

fn print(shown: &Shown, out: &mut Out) -> Result<()> {
    let mut head = Table::new(&[("", Align::Left), ("", Align::Left)]);
    let mut row = |name: &str, value: String| head.row(vec![name.to_owned(), value]);
    row("cluster", format!("{}, version {}", shown.cluster_id, shown.software_version));
    row("since", format!("{} UTC", units::date(shown.started_ns)));
    if shown.safe_mode {
        row("safe mode", format!("on: {}", shown.safe_mode_reason));
    }
    row("journal", format!("at {}, checkpoint at {}", shown.last_txid, shown.checkpoint_txid));
    row(
        "space",
        format!(
            "{} used, {} free of {}",
            units::bytes(shown.used_bytes),
            units::bytes(shown.remaining_bytes),
            units::bytes(shown.capacity_bytes)
        ),
    );
    row("files", format!("{}, folders included", units::number(shown.files)));
    row("blocks", blocks(shown));
    row("repair", shown.repair.line());
    head.print(out)?;
    if !shown.datanodes.is_empty() {
        out.line("")?;
        datanodes(&shown.datanodes).print(out)?;
    }
    if !shown.kvservers.is_empty() {
        out.line("")?;
        kvservers(&shown.kvservers).print(out)?;
    }
    if !shown.stores.is_empty() {
        out.line("")?;
        store_table(&shown.stores).print(out)?;
    }
    Ok(())
}

fn blocks(shown: &Shown) -> String {
    let mut text = units::number(shown.blocks);
    for (count, what) in [
        (shown.under_replicated_blocks, "with too few replicas"),
        (shown.corrupt_blocks, "corrupt"),
        (shown.missing_blocks, "missing"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {} {what}", units::number(count)));
        }
    }
    text
}

fn state(alive: bool, ms_ago: u64) -> String {
    if alive {
        return "alive".into();
    }
    format!("dead for {}", units::duration(Duration::from_millis(ms_ago)))
}

fn served(node: &ShownDatanode) -> String {
    let state = state(node.alive, node.last_heartbeat_ms_ago);
    match node.service {
        "in service" => state,
        service => format!("{state}, {service}"),
    }
}

fn datanodes(nodes: &[ShownDatanode]) -> Table {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("DataNode", Left),
        ("state", Left),
        ("used", Right),
        ("free", Right),
        ("size", Right),
        ("replicas", Right),
        ("volumes", Left),
    ]);
    for node in nodes {
        let failed = match node.failed_volumes {
            0 => node.volumes.to_string(),
            failed => format!("{}, {failed} failed", node.volumes),
        };
        table.row(vec![
            node.address.clone(),
            served(node),
            units::bytes(node.used_bytes),
            units::bytes(node.remaining_bytes),
            units::bytes(node.capacity_bytes),
            units::number(node.replicas),
            failed,
        ]);
    }
    table
}

fn kvservers(nodes: &[ShownKvserve]) -> Table {
    use Align::{Left, Right};
    let columns =
        [("kvserve", Left), ("state", Left), ("used", Right), ("size", Right), ("gRPC", Left)];
    let mut table = Table::new(&columns);
    for node in nodes {
        table.row(vec![
            node.redis.clone(),
            state(node.alive, node.last_heartbeat_ms_ago),
            units::bytes(node.used_bytes),
            units::bytes(node.capacity_bytes),
            node.grpc.clone(),
        ]);
    }
    table
}
