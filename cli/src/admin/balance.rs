//! `granary admin balance`: replicas from full DataNodes to empty ones.

use std::time::Duration;

use proto::granary::BalanceStatus;
use proto::granary::balance_request::Action;
use serde_json::json;

use crate::connect::Context;
use crate::failure::Result;
use crate::output::Out;
use crate::units;

const PAUSE: Duration = Duration::from_millis(500);

/// The commands of `granary admin balance`.
#[derive(clap::Subcommand, Debug)]
pub enum BalanceCommand {
    /// Move replicas until every DataNode is within a threshold of the average
    Start(StartArgs),
    /// Begin no further move
    Stop,
    /// Show how balanced the DataNodes are, and what the balancer did
    Status(StatusArgs),
}

/// Options of `granary admin balance start`.
#[derive(clap::Args, Debug)]
pub struct StartArgs {
    /// Percent of capacity that a DataNode may use more or less than the average
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    threshold: u32,
    /// Bytes per second that are moved in all
    #[arg(long, value_name = "SIZE", default_value = "10M", value_parser = units::parse_bytes)]
    rate: u64,
    /// Wait until it ends
    #[arg(long)]
    wait: bool,
}

/// Options of `granary admin balance status`.
#[derive(clap::Args, Debug)]
pub struct StatusArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// Runs a command of `granary admin balance`.
pub async fn run(command: &BalanceCommand, context: &Context, out: &mut Out) -> Result<()> {
    let fs = context.connect().await?;
    match command {
        BalanceCommand::Start(args) => {
            let mut status = fs.balance(Action::Start, args.threshold, args.rate).await?;
            while args.wait && status.running {
                tokio::time::sleep(PAUSE).await;
                status = fs.balance(Action::Status, 0, 0).await?;
            }
            print(&status, out)
        }
        BalanceCommand::Stop => print(&fs.balance(Action::Stop, 0, 0).await?, out),
        BalanceCommand::Status(args) => {
            let status = fs.balance(Action::Status, 0, 0).await?;
            if args.json { out.json(&shown(&status)) } else { print(&status, out) }
        }
    }
}

fn shown(status: &BalanceStatus) -> serde_json::Value {
    json!({
        "running": status.running,
        "outcome": status.outcome,
        "threshold_percent": status.threshold_percent,
        "bytes_per_second": status.bytes_per_second,
        "moved_blocks": status.moved_blocks,
        "moved_bytes": status.moved_bytes,
        "failed_moves": status.failed_moves,
        "moves": status.moves,
        "bytes_left": status.bytes_left,
        "average_percent": status.average_percent,
        "fullest_percent": status.fullest_percent,
        "emptiest_percent": status.emptiest_percent,
    })
}

fn print(status: &BalanceStatus, out: &mut Out) -> Result<()> {
    out.line(format_args!(
        "used on average {:.1}%, at most {:.1}%, at least {:.1}%",
        status.average_percent, status.fullest_percent, status.emptiest_percent
    ))?;
    let moved = format!(
        "{} moved ({}), {} failed, {} under way",
        units::count(status.moved_blocks, "block"),
        units::bytes(status.moved_bytes),
        units::number(status.failed_moves),
        units::number(status.moves)
    );
    match (status.running, status.outcome.is_empty()) {
        (true, _) => {
            let left = status.bytes_left;
            let seconds = left / status.bytes_per_second.max(1);
            out.line(format_args!(
                "running: threshold {}%, at most {}/s; {moved}",
                status.threshold_percent,
                units::bytes(status.bytes_per_second)
            ))?;
            out.line(format_args!(
                "about {} left, at that rate {}",
                units::bytes(left),
                units::duration(Duration::from_secs(seconds))
            ))
        }
        (false, true) => out.line("not running"),
        (false, false) => out.line(format_args!("not running: {}; {moved}", status.outcome)),
    }
}
