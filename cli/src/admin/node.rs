//! `granary admin node`: DataNodes that shall go, for good or for a time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::granary::change_nodes_request::Action;
use proto::granary::{DatanodeStatus, NodeService, NodeWish};
use serde::Serialize;

use crate::connect::Context;
use crate::failure::{Exit, Failure, Result};
use crate::output::{Align, Out, Table};
use crate::units;

const PAUSE: Duration = Duration::from_millis(500);

const AFTER: &str = "\
A DataNode is named by its uuid, by its host and data port (10.0.0.7:9866), or by its host: then all
DataNodes of that host are meant. What is wanted of it is remembered until `recommission`, also if it
is not there, or the NameNode restarts.";

/// The commands of `granary admin node`.
#[derive(clap::Subcommand, Debug)]
#[command(after_help = AFTER)]
pub enum NodeCommand {
    /// Copy what DataNodes hold to others, so that they can be switched off for good
    Decommission(GoArgs),
    /// Let DataNodes be away for a time: what they hold stays counted, and is not copied
    Maintenance(MaintenanceArgs),
    /// Take DataNodes back into service
    Recommission(BackArgs),
    /// Show what each DataNode is for, and what keeps it from going
    Ls(LsArgs),
}

/// Options of `granary admin node decommission`.
#[derive(clap::Args, Debug)]
pub struct GoArgs {
    /// Wait until they may be switched off
    #[arg(long)]
    wait: bool,
    /// The DataNodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

/// Options of `granary admin node maintenance`.
#[derive(clap::Args, Debug)]
pub struct MaintenanceArgs {
    /// Until when, as "2026-11-21 14:00" (UTC), or how long from now, as 2h
    #[arg(long, value_name = "TIME", default_value = "24h")]
    until: String,
    /// Wait until they may be switched off
    #[arg(long)]
    wait: bool,
    /// The DataNodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

/// Options of `granary admin node recommission`.
#[derive(clap::Args, Debug)]
pub struct BackArgs {
    /// The DataNodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

/// Options of `granary admin node ls`.
#[derive(clap::Args, Debug)]
pub struct LsArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// Runs a command of `granary admin node`.
pub async fn run(command: &NodeCommand, context: &Context, out: &mut Out) -> Result<()> {
    let fs = context.connect().await?;
    match command {
        NodeCommand::Decommission(args) => {
            fs.change_nodes(Action::Decommission, args.nodes.clone(), 0).await?;
            told(&fs, &args.nodes, args.wait, out).await
        }
        NodeCommand::Maintenance(args) => {
            let until_ns = until(&args.until, now_ns())
                .map_err(|why| Failure::new(Exit::Usage, format!("--until: {why}")))?;
            fs.change_nodes(Action::Maintenance, args.nodes.clone(), until_ns).await?;
            out.line(format_args!("until {} UTC", units::moment(until_ns)))?;
            told(&fs, &args.nodes, args.wait, out).await
        }
        NodeCommand::Recommission(args) => {
            fs.change_nodes(Action::Recommission, args.nodes.clone(), 0).await?;
            told(&fs, &args.nodes, false, out).await
        }
        NodeCommand::Ls(args) => ls(&fs, args, out).await,
    }
}

/// Tells the state of named nodes; with `wait`, until all may go.
async fn told(fs: &client::Fs, names: &[String], wait: bool, out: &mut Out) -> Result<()> {
    let mut before: Vec<String> = Vec::new();
    loop {
        let status = fs.cluster_status().await?;
        let named: Vec<&DatanodeStatus> = status
            .datanodes
            .iter()
            .filter(|node| names.iter().any(|n| is_named(node, n)))
            .collect();
        let lines: Vec<String> = named.iter().map(|node| line_of(node)).collect();
        for line in lines.iter().filter(|line| !before.contains(line)) {
            out.line(line)?;
        }
        if before.is_empty() {
            let unknown =
                names.iter().filter(|name| !named.iter().any(|node| is_named(node, name)));
            for name in unknown {
                out.line(format_args!("{name}: no such DataNode now; it is remembered"))?;
            }
        }
        let pending = |node: &&DatanodeStatus| {
            matches!(
                node.service(),
                NodeService::Decommissioning | NodeService::EnteringMaintenance
            )
        };
        if !wait || !named.iter().any(pending) {
            return Ok(());
        }
        before = lines;
        out.flush()?;
        tokio::time::sleep(PAUSE).await;
    }
}

fn line_of(node: &DatanodeStatus) -> String {
    let blocking = match node.blocking_blocks {
        0 => String::new(),
        blocks => format!(", {} to be copied first", units::count(blocks, "block")),
    };
    format!("{}: {}{blocking}", place(node), service(node.service()))
}

#[derive(Serialize)]
struct Shown {
    address: String,
    uuid: String,
    alive: bool,
    service: &'static str,
    wanted: Option<&'static str>,
    until_ns: Option<i64>,
    replicas: u64,
    blocking_blocks: u64,
}

async fn ls(fs: &client::Fs, args: &LsArgs, out: &mut Out) -> Result<()> {
    let (status, wishes) = (fs.cluster_status().await?, fs.node_wishes().await?);
    let mut shown: Vec<Shown> = status.datanodes.iter().map(|node| shown(node, &wishes)).collect();
    let unmet =
        wishes.iter().filter(|w| !status.datanodes.iter().any(|node| is_named(node, &w.node)));
    shown.extend(unmet.map(|wish| Shown {
        address: wish.node.clone(),
        uuid: String::new(),
        alive: false,
        service: "not there",
        wanted: Some(service(wish.wanted())),
        until_ns: Some(wish.until_ns).filter(|&ns| ns != 0),
        replicas: 0,
        blocking_blocks: 0,
    }));
    if args.json {
        return out.json(&shown);
    }
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("DataNode", Left),
        ("state", Left),
        ("service", Left),
        ("replicas", Right),
        ("to be copied first", Right),
        ("until", Left),
    ]);
    for node in &shown {
        let until = node.until_ns.map(|ns| format!("{} UTC", units::date(ns))).unwrap_or_default();
        table.row(vec![
            node.address.clone(),
            if node.alive { "alive" } else { "dead" }.to_owned(),
            node.service.to_owned(),
            units::number(node.replicas),
            units::number(node.blocking_blocks),
            until,
        ]);
    }
    table.print(out)
}

fn shown(node: &DatanodeStatus, wishes: &[NodeWish]) -> Shown {
    let names = names(node);
    let wish = names.iter().find_map(|name| wishes.iter().find(|wish| wish.node == *name));
    Shown {
        address: place(node),
        uuid: names[0].clone(),
        alive: node.alive,
        service: service(node.service()),
        wanted: wish.map(|wish| service(wish.wanted())),
        until_ns: wish.map(|wish| wish.until_ns).filter(|&ns| ns != 0),
        replicas: node.replicas,
        blocking_blocks: node.blocking_blocks,
    }
}

/// What a DataNode is for, in words.
pub fn service(service: NodeService) -> &'static str {
    match service {
        NodeService::InService => "in service",
        NodeService::Decommissioning => "decommissioning",
        NodeService::Decommissioned => "decommissioned",
        NodeService::EnteringMaintenance => "entering maintenance",
        NodeService::InMaintenance => "in maintenance",
    }
}

fn is_named(node: &DatanodeStatus, name: &str) -> bool {
    names(node).iter().any(|known| known == name)
}

/// The names that a DataNode goes by, the closest first.
fn names(node: &DatanodeStatus) -> [String; 3] {
    let host = node.address.as_ref().map(|at| at.host.clone()).unwrap_or_default();
    let uuid = node.address.as_ref().map(|at| at.uuid.clone()).unwrap_or_default();
    [uuid, place(node), host]
}

fn place(node: &DatanodeStatus) -> String {
    let at = node.address.clone().unwrap_or_default();
    format!("{}:{}", at.host, at.data_port)
}

/// A moment, or a time from now.
fn until(text: &str, now_ns: i64) -> std::result::Result<i64, String> {
    if let Ok(ms) = units::parse_millis(text) {
        let ns = i64::try_from(ms).ok().and_then(|ms| ms.checked_mul(1_000_000));
        return ns
            .and_then(|ns| now_ns.checked_add(ns))
            .ok_or_else(|| format!("{text:?} is too long"));
    }
    let ns = units::parse_moment(text)?;
    if ns <= now_ns {
        return Err(format!("{text:?} is over"));
    }
    Ok(ns)
}

#[allow(clippy::disallowed_methods, reason = "a command line reads the clock")]
fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_moment_or_a_time_from_now() {
        assert_eq!(until("2h", 5), Ok(7_200_000_000_005));
        assert_eq!(until("1970-01-02 00:00", 5), Ok(86_400_000_000_000));
        for bad in ["1970-01-01 00:00", "soon", "", "99999999999999999h"] {
            assert!(until(bad, 5).is_err(), "{bad}");
        }
    }
}
