//! `granary admin snapshot`: read-only images of a folder's tree.

use proto::granary::change_snapshots_request::Action;
use serde::Serialize;

use super::path;
use crate::connect::Context;
use crate::failure::Result;
use crate::output::{Align, Out, Table};
use crate::units;

/// The commands of `granary admin snapshot`.
#[derive(clap::Subcommand, Debug)]
pub enum SnapshotCommand {
    /// Allow snapshots of a folder (superusers)
    Allow(FolderArgs),
    /// Allow no more; the folder must have none
    Disallow(FolderArgs),
    /// Make a snapshot; prints its path
    Create(CreateArgs),
    /// Remove a snapshot
    Rm(OneArgs),
    /// Give a snapshot another name
    Rename(RenameArgs),
    /// List folders that may have snapshots, or the snapshots of one
    Ls(LsArgs),
    /// Show what differs between two snapshots, or between one and now
    Diff(DiffArgs),
}

/// A folder.
#[derive(clap::Args, Debug)]
pub struct FolderArgs {
    /// The folder
    path: String,
}

/// Options of `granary admin snapshot create`.
#[derive(clap::Args, Debug)]
pub struct CreateArgs {
    /// The folder
    path: String,
    /// The snapshot's name [default: made from the time]
    #[arg(default_value = "", hide_default_value = true)]
    name: String,
}

/// A snapshot of a folder.
#[derive(clap::Args, Debug)]
pub struct OneArgs {
    /// The folder
    path: String,
    /// The snapshot's name
    name: String,
}

/// Options of `granary admin snapshot rename`.
#[derive(clap::Args, Debug)]
pub struct RenameArgs {
    /// The folder
    path: String,
    /// The snapshot's name
    name: String,
    /// Its new name
    new_name: String,
}

/// Options of `granary admin snapshot ls`.
#[derive(clap::Args, Debug)]
pub struct LsArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// The folder
    path: Option<String>,
}

/// Options of `granary admin snapshot diff`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Marks: + came, - went, M changed, R renamed.")]
pub struct DiffArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// The folder
    path: String,
    /// The earlier snapshot
    from: String,
    /// The later one [default: the folder as it is]
    #[arg(default_value = "", hide_default_value = true)]
    to: String,
}

/// Runs a command of `granary admin snapshot`.
pub async fn run(command: &SnapshotCommand, context: &Context, out: &mut Out) -> Result<()> {
    let fs = context.connect().await?;
    let change = async |at: &str, action, name: &str, new_name: &str| {
        Ok::<_, crate::failure::Failure>(
            fs.change_snapshots(&path(at)?, action, name, new_name).await?,
        )
    };
    match command {
        SnapshotCommand::Allow(args) => change(&args.path, Action::Allow, "", "").await.map(|_| ()),
        SnapshotCommand::Disallow(args) => {
            change(&args.path, Action::Disallow, "", "").await.map(|_| ())
        }
        SnapshotCommand::Create(args) => {
            let made = change(&args.path, Action::Create, &args.name, "").await?;
            out.line(made)
        }
        SnapshotCommand::Rm(args) => {
            change(&args.path, Action::Delete, &args.name, "").await.map(|_| ())
        }
        SnapshotCommand::Rename(args) => {
            change(&args.path, Action::Rename, &args.name, &args.new_name).await.map(|_| ())
        }
        SnapshotCommand::Ls(args) => match &args.path {
            Some(at) => snapshots(args, &fs.snapshots(&path(at)?).await?, out),
            None => folders(args, &fs.snapshottable_folders().await?, out),
        },
        SnapshotCommand::Diff(args) => {
            let found = fs.snapshot_diff(&path(&args.path)?, &args.from, &args.to).await?;
            diff(args, &found, out)
        }
    }
}

#[derive(Serialize)]
struct Folder<'a> {
    path: &'a str,
    snapshots: u32,
    limit: u32,
}

fn folders(
    args: &LsArgs,
    found: &[proto::granary::SnapshottableFolder],
    out: &mut Out,
) -> Result<()> {
    if args.json {
        let shown: Vec<Folder<'_>> = found
            .iter()
            .map(|one| Folder { path: &one.path, snapshots: one.snapshots, limit: one.limit })
            .collect();
        return out.json(&shown);
    }
    let mut table = Table::new(&[("snapshots", Align::Right), ("folder", Align::Left)]);
    for folder in found {
        table.row(vec![units::number(folder.snapshots.into()), folder.path.clone()]);
    }
    table.print(out)
}

#[derive(Serialize)]
struct Snapshot<'a> {
    name: &'a str,
    id: u32,
    created_ns: i64,
}

fn snapshots(args: &LsArgs, found: &[proto::granary::Snapshot], out: &mut Out) -> Result<()> {
    if args.json {
        let shown: Vec<Snapshot<'_>> = found
            .iter()
            .map(|one| Snapshot { name: &one.name, id: one.id, created_ns: one.created_ns })
            .collect();
        return out.json(&shown);
    }
    let mut table = Table::new(&[("made", Align::Left), ("name", Align::Left)]);
    for snapshot in found {
        table.row(vec![units::date(snapshot.created_ns), snapshot.name.clone()]);
    }
    table.print(out)
}

#[derive(Serialize)]
struct Difference<'a> {
    kind: &'a str,
    path: &'a str,
    target: &'a str,
}

fn diff(
    args: &DiffArgs,
    found: &[proto::granary::SnapshotDifference],
    out: &mut Out,
) -> Result<()> {
    if args.json {
        let shown: Vec<Difference<'_>> = found
            .iter()
            .map(|one| Difference { kind: &one.kind, path: &one.path, target: &one.target })
            .collect();
        return out.json(&shown);
    }
    for one in found {
        let path = if one.path.is_empty() { "." } else { &one.path };
        match one.target.as_str() {
            "" => out.line(format_args!("{}  {path}", one.kind))?,
            target => out.line(format_args!("{}  {path} -> {target}", one.kind))?,
        }
    }
    Ok(())
}
