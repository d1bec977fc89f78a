//! `granary admin report`: capacity, blocks in trouble, and each DataNode in full.

use std::time::Duration;

use proto::granary::{ClusterStatus, DatanodeStatus, VolumeStatus};
use serde::Serialize;

use super::node::service;
use crate::connect::Context;
use crate::failure::Result;
use crate::output::Out;
use crate::units;

/// Options of `granary admin report`.
#[derive(clap::Args, Debug)]
pub struct ReportArgs {
    /// Only DataNodes that live
    #[arg(long, conflicts_with = "dead")]
    live: bool,
    /// Only DataNodes that are dead
    #[arg(long)]
    dead: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    safe_mode: bool,
    safe_mode_reason: String,
    capacity_bytes: u64,
    used_bytes: u64,
    remaining_bytes: u64,
    under_replicated_blocks: u64,
    corrupt_blocks: u64,
    missing_blocks: u64,
    live_datanodes: usize,
    dead_datanodes: usize,
    repair: Repair,
    datanodes: Vec<Node>,
}

/// How far repair is.
#[derive(Serialize)]
pub struct Repair {
    endangered_blocks: u64,
    waiting_blocks: u64,
    later_blocks: u64,
    leaving_blocks: u64,
    misplaced_blocks: u64,
    bytes_left: u64,
    copies: u64,
    done_blocks: u64,
    done_bytes: u64,
    failed_copies: u64,
    bytes_per_second: u64,
    left_ms: Option<u64>,
    searching: bool,
}

impl From<&ClusterStatus> for Repair {
    fn from(status: &ClusterStatus) -> Self {
        let repair = status.repair.unwrap_or_default();
        Self {
            endangered_blocks: repair.endangered_blocks,
            waiting_blocks: repair.waiting_blocks,
            later_blocks: repair.later_blocks,
            leaving_blocks: repair.leaving_blocks,
            misplaced_blocks: repair.misplaced_blocks,
            bytes_left: repair.waiting_bytes.saturating_add(repair.copies_bytes),
            copies: repair.copies,
            done_blocks: repair.done_blocks,
            done_bytes: repair.done_bytes,
            failed_copies: repair.failed_copies,
            bytes_per_second: repair.bytes_per_second,
            left_ms: repair.left_ms,
            searching: repair.searching,
        }
    }
}

impl Repair {
    /// One line: what is left, how fast it goes, how long that takes.
    pub fn line(&self) -> String {
        if self.waiting_blocks == 0 && self.copies == 0 {
            let more = if self.searching { ", still looking for more" } else { "" };
            return format!("nothing waits{more}");
        }
        let mut text = format!(
            "{} waiting, {} under way, {} left",
            units::count(self.waiting_blocks, "block"),
            units::number(self.copies),
            units::bytes(self.bytes_left)
        );
        let mut add = |count: u64, what: &str| {
            if count > 0 {
                text.push_str(&format!(", {} {what}", units::number(count)));
            }
        };
        add(self.endangered_blocks, "down to the last copy");
        add(self.leaving_blocks, "on DataNodes that are to go");
        add(self.later_blocks, "without a DataNode to go to just now");
        if self.bytes_per_second > 0 {
            text.push_str(&format!(", {}/s", units::bytes(self.bytes_per_second)));
        }
        if let Some(ms) = self.left_ms {
            text.push_str(&format!(": {} left", units::duration(Duration::from_millis(ms))));
        }
        if self.searching {
            text.push_str(", still looking for more");
        }
        text
    }
}

#[derive(Serialize)]
struct Node {
    address: String,
    uuid: String,
    rack: String,
    alive: bool,
    last_heartbeat_ms_ago: u64,
    capacity_bytes: u64,
    used_bytes: u64,
    other_bytes: u64,
    remaining_bytes: u64,
    replicas: u64,
    service: &'static str,
    blocking_blocks: u64,
    transfers: u32,
    software_version: String,
    volumes: Vec<Volume>,
}

#[derive(Serialize)]
struct Volume {
    id: String,
    capacity_bytes: u64,
    used_bytes: u64,
    remaining_bytes: u64,
    failed: bool,
    error: String,
}

impl From<&VolumeStatus> for Volume {
    fn from(volume: &VolumeStatus) -> Self {
        Self {
            id: volume.id.clone(),
            capacity_bytes: volume.capacity_bytes,
            used_bytes: volume.used_bytes,
            remaining_bytes: volume.remaining_bytes,
            failed: volume.failed,
            error: volume.error.clone(),
        }
    }
}

impl From<&DatanodeStatus> for Node {
    fn from(node: &DatanodeStatus) -> Self {
        let address = node.address.clone().unwrap_or_default();
        let sum = |field: fn(&VolumeStatus) -> u64| -> u64 {
            let working = node.volumes.iter().filter(|volume| !volume.failed);
            working.map(field).fold(0, u64::saturating_add)
        };
        let (capacity_bytes, used_bytes) = (sum(|v| v.capacity_bytes), sum(|v| v.used_bytes));
        let remaining_bytes = sum(|v| v.remaining_bytes);
        Self {
            address: format!("{}:{}", address.host, address.data_port),
            uuid: address.uuid,
            rack: address.rack,
            alive: node.alive,
            last_heartbeat_ms_ago: node.last_heartbeat_ms_ago,
            capacity_bytes,
            used_bytes,
            other_bytes: capacity_bytes.saturating_sub(used_bytes).saturating_sub(remaining_bytes),
            remaining_bytes,
            replicas: node.replicas,
            service: service(node.service()),
            blocking_blocks: node.blocking_blocks,
            transfers: node.active_transfers,
            software_version: node.software_version.clone(),
            volumes: node.volumes.iter().map(Into::into).collect(),
        }
    }
}

impl Report {
    fn new(status: &ClusterStatus, args: &ReportArgs) -> Self {
        let stats = status.stats.unwrap_or_default();
        let live_datanodes = status.datanodes.iter().filter(|node| node.alive).count();
        let wanted = |node: &&DatanodeStatus| match (args.live, args.dead) {
            (true, _) => node.alive,
            (_, true) => !node.alive,
            _ => true,
        };
        Self {
            safe_mode: status.safe_mode,
            safe_mode_reason: status.safe_mode_reason.clone(),
            capacity_bytes: stats.capacity_bytes,
            used_bytes: stats.used_bytes,
            remaining_bytes: stats.remaining_bytes,
            under_replicated_blocks: stats.under_replicated_blocks,
            corrupt_blocks: stats.corrupt_blocks,
            missing_blocks: stats.missing_blocks,
            live_datanodes,
            repair: status.into(),
            dead_datanodes: status.datanodes.len() - live_datanodes,
            datanodes: status.datanodes.iter().filter(wanted).map(Into::into).collect(),
        }
    }
}

/// Runs `granary admin report`.
pub async fn run(args: &ReportArgs, context: &Context, out: &mut Out) -> Result<()> {
    let fs = context.connect().await?;
    let report = Report::new(&fs.cluster_status().await?, args);
    if args.json {
        return out.json(&report);
    }
    if report.safe_mode {
        out.line(format_args!("safe mode is ON: {}", report.safe_mode_reason))?;
    }
    out.line(format_args!(
        "{} of {} used ({}), {} free",
        units::bytes(report.used_bytes),
        units::bytes(report.capacity_bytes),
        share(report.used_bytes, report.capacity_bytes),
        units::bytes(report.remaining_bytes)
    ))?;
    out.line(format_args!(
        "blocks: {} with too few replicas, {} with damaged replicas, {} missing",
        units::number(report.under_replicated_blocks),
        units::number(report.corrupt_blocks),
        units::number(report.missing_blocks)
    ))?;
    out.line(format_args!("repair: {}", report.repair.line()))?;
    let (live, dead) = (report.live_datanodes, report.dead_datanodes);
    out.line(format_args!("DataNodes: {live} live, {dead} dead"))?;
    report.datanodes.iter().try_for_each(|node| print(node, out))
}

fn print(node: &Node, out: &mut Out) -> Result<()> {
    let heard = units::duration(Duration::from_millis(node.last_heartbeat_ms_ago));
    let state = if node.alive { "live" } else { "DEAD" };
    out.line("")?;
    out.line(format_args!("{}  {state}, heard {heard} ago, rack {}", node.address, node.rack))?;
    out.line(format_args!("  uuid       {}", node.uuid))?;
    let blocking = match node.blocking_blocks {
        0 => String::new(),
        blocks => format!(", {} to be copied first", units::count(blocks, "block")),
    };
    out.line(format_args!("  service    {}{blocking}", node.service))?;
    out.line(format_args!("  version    {}", node.software_version))?;
    out.line(format_args!("  capacity   {}", units::bytes(node.capacity_bytes)))?;
    out.line(format_args!(
        "  used       {} ({})",
        units::bytes(node.used_bytes),
        share(node.used_bytes, node.capacity_bytes)
    ))?;
    out.line(format_args!("  by others  {}", units::bytes(node.other_bytes)))?;
    out.line(format_args!("  free       {}", units::bytes(node.remaining_bytes)))?;
    out.line(format_args!("  replicas   {}", units::number(node.replicas)))?;
    out.line(format_args!("  transfers  {}", node.transfers))?;
    for volume in node.volumes.iter().filter(|volume| volume.failed) {
        out.line(format_args!("  FAILED     volume {}: {}", volume.id, volume.error))?;
    }
    Ok(())
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1}%", part as f64 * 100.0 / whole as f64) }
}
