//! du, df, count: how much there is.

use serde::Serialize;

use super::{Shell, each};
use crate::failure::Result;
use crate::output::{Align, Out, Table, printable};
use crate::units;

/// Options of `granary fs du`.
#[derive(clap::Args, Debug)]
#[command(disable_help_flag = true)]
pub struct DuArgs {
    /// One line for each path, not for what it holds
    #[arg(short, long)]
    summary: bool,
    /// Sizes as in 1.5 MiB
    #[arg(short = 'h', long)]
    human: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Files and folders; patterns match
    #[arg(required = true)]
    paths: Vec<String>,
}

/// Options of `granary fs df`.
#[derive(clap::Args, Debug)]
#[command(disable_help_flag = true)]
pub struct DfArgs {
    /// Sizes as in 1.5 GiB
    #[arg(short = 'h', long)]
    human: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// Options of `granary fs count`.
#[derive(clap::Args, Debug)]
#[command(disable_help_flag = true)]
pub struct CountArgs {
    /// Sizes as in 1.5 MiB
    #[arg(short = 'h', long)]
    human: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Files and folders; patterns match
    #[arg(required = true)]
    paths: Vec<String>,
}

#[derive(Serialize)]
struct Usage {
    path: String,
    length: u64,
    space_consumed: u64,
    files: u64,
    folders: u64,
}

async fn usage_of(path: &proto::FsPath, shell: &Shell) -> Result<Usage> {
    let summary = shell.fs.content_summary(path).await?;
    Ok(Usage {
        path: path.to_string(),
        length: summary.length,
        space_consumed: summary.space_consumed,
        files: summary.files,
        folders: summary.folders,
    })
}

fn size(bytes: u64, human: bool) -> String {
    if human { units::bytes(bytes) } else { bytes.to_string() }
}

/// Runs `granary fs du`.
pub async fn du(args: &DuArgs, shell: &Shell, out: &mut Out) -> Result<()> {
    let paths = shell.expand_all(&args.paths).await?;
    let all = std::cell::RefCell::new(Vec::new());
    let result = each(&paths, async |path| {
        let found = shell.found(path).await?;
        if args.summary || !found.is_folder() {
            let usage = usage_of(path, shell).await?;
            all.borrow_mut().push(usage);
            return Ok(());
        }
        for child in shell.children(&found).await? {
            let usage = usage_of(&child.path, shell).await?;
            all.borrow_mut().push(usage);
        }
        Ok(())
    })
    .await;
    let all = all.into_inner();
    if args.json {
        out.json(&all)?;
        return result;
    }
    let columns = [("size", Align::Right), ("on disks", Align::Right), ("path", Align::Left)];
    let mut table = Table::new(&columns);
    for usage in &all {
        table.row(vec![
            size(usage.length, args.human),
            size(usage.space_consumed, args.human),
            printable(usage.path.as_bytes()),
        ]);
    }
    table.print(out)?;
    result
}

/// Runs `granary fs count`.
pub async fn count(args: &CountArgs, shell: &Shell, out: &mut Out) -> Result<()> {
    let paths = shell.expand_all(&args.paths).await?;
    let all = std::cell::RefCell::new(Vec::new());
    let result = each(&paths, async |path| {
        shell.found(path).await?;
        let usage = usage_of(path, shell).await?;
        all.borrow_mut().push(usage);
        Ok(())
    })
    .await;
    let all = all.into_inner();
    if args.json {
        out.json(&all)?;
        return result;
    }
    let columns = [
        ("folders", Align::Right),
        ("files", Align::Right),
        ("size", Align::Right),
        ("path", Align::Left),
    ];
    let mut table = Table::new(&columns);
    for usage in &all {
        table.row(vec![
            usage.folders.to_string(),
            usage.files.to_string(),
            size(usage.length, args.human),
            printable(usage.path.as_bytes()),
        ]);
    }
    table.print(out)?;
    result
}

#[derive(Serialize)]
struct Space {
    capacity_bytes: u64,
    used_bytes: u64,
    remaining_bytes: u64,
    files: u64,
    blocks: u64,
    under_replicated_blocks: u64,
    corrupt_blocks: u64,
    missing_blocks: u64,
}

/// Runs `granary fs df`.
pub async fn df(args: &DfArgs, shell: &Shell, out: &mut Out) -> Result<()> {
    let stats = shell.fs.stats().await?;
    if args.json {
        return out.json(&Space {
            capacity_bytes: stats.capacity_bytes,
            used_bytes: stats.used_bytes,
            remaining_bytes: stats.remaining_bytes,
            files: stats.files,
            blocks: stats.blocks,
            under_replicated_blocks: stats.under_replicated_blocks,
            corrupt_blocks: stats.corrupt_blocks,
            missing_blocks: stats.missing_blocks,
        });
    }
    let columns = ["size", "used", "available", "use", "inodes", "blocks"];
    let mut table = Table::new(&columns.map(|name| (name, Align::Right)));
    let percent = stats.used_bytes.saturating_mul(100).checked_div(stats.capacity_bytes);
    table.row(vec![
        size(stats.capacity_bytes, args.human),
        size(stats.used_bytes, args.human),
        size(stats.remaining_bytes, args.human),
        percent.map_or("-".into(), |percent| format!("{percent}%")),
        stats.files.to_string(),
        stats.blocks.to_string(),
    ]);
    table.print(out)
}
