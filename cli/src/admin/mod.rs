//! `granary admin`: what operators do to a running cluster.
//!
//! | module | owns |
//! |---|---|
//! | `balance` | replicas from full DataNodes to empty ones |
//! | `node` | DataNodes that shall go, for good or for a time |
//! | `fsck` | checks of files |
//! | `report` | DataNodes and their space |
//! | `safemode` | safe mode |
//! | `ec` | how files are coded |
//! | `quota` | quotas of folders |
//! | `snapshot` | snapshots of folders |
//! | `lease` | files that are being written |

mod balance;
mod ec;
mod fsck;
mod lease;
pub mod node;
mod quota;
pub mod report;
mod safemode;
mod snapshot;

use crate::connect::Context;
use crate::failure::{Failure, Result};
use crate::output::Out;

/// The commands of `granary admin`.
#[derive(clap::Subcommand, Debug)]
pub enum AdminCommand {
    /// Check that every block of every file can be read
    Fsck(fsck::FsckArgs),
    /// Show capacity, blocks in trouble, and each DataNode
    Report(report::ReportArgs),
    /// Show, enter or leave safe mode, in which nothing can be changed
    #[command(subcommand)]
    Safemode(safemode::SafemodeCommand),
    /// Erasure coding: how files and folders are coded
    #[command(subcommand)]
    Ec(ec::EcCommand),
    /// Limit what is under a folder
    #[command(subcommand)]
    Quota(quota::QuotaCommand),
    /// Read-only images of a folder's tree, seen under its .snapshot
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Files that are being written, and who writes them
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// DataNodes that shall go, for good or for a time
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Move replicas from full DataNodes to empty ones
    #[command(subcommand)]
    Balance(balance::BalanceCommand),
    /// Write a checkpoint of the namespace now, so that a restart replays less
    Checkpoint,
}

/// Runs a command of `granary admin`.
pub async fn run(command: &AdminCommand, context: &Context, out: &mut Out) -> Result<()> {
    match command {
        AdminCommand::Fsck(args) => fsck::run(args, context, out).await,
        AdminCommand::Report(args) => report::run(args, context, out).await,
        AdminCommand::Safemode(command) => safemode::run(command, context, out).await,
        AdminCommand::Ec(command) => ec::run(command, context, out).await,
        AdminCommand::Quota(command) => quota::run(command, context, out).await,
        AdminCommand::Snapshot(command) => snapshot::run(command, context, out).await,
        AdminCommand::Lease(command) => lease::run(command, context, out).await,
        AdminCommand::Node(command) => node::run(command, context, out).await,
        AdminCommand::Balance(command) => balance::run(command, context, out).await,
        AdminCommand::Checkpoint => {
            let txid = context.connect().await?.checkpoint().await?;
            out.line(format_args!("checkpoint of transaction {txid}"))
        }
    }
}

/// An absolute path of the cluster.
fn path(text: &str) -> Result<proto::FsPath> {
    proto::FsPath::parse(text).map_err(Failure::from)
}
