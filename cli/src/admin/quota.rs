//! `granary admin quota`: limits on what is under a folder.

use clap::ValueEnum;
use proto::granary::{FolderQuota, Quota, QuotaLimit};
use serde::Serialize;

use super::path;
use crate::connect::Context;
use crate::failure::{Failure, Result};
use crate::output::{Align, Out, Table};
use crate::units;

const AFTER: &str = "\
Names are files and folders, the folder itself included. Space is bytes with every replica counted:
a file of 1 GiB with three replicas takes 3 GiB. While a block is being written it counts as a whole
one. A quota may be set below what is used: then nothing can be added until enough is gone.";

/// The commands of `granary admin quota`.
#[derive(clap::Subcommand, Debug)]
pub enum QuotaCommand {
    /// Set limits of folders
    Set(SetArgs),
    /// Remove limits of folders
    Clear(ClearArgs),
    /// List folders with limits, and what they use
    Ls(LsArgs),
}

/// Hadoop's types of storage. All replicas are on disks.
#[derive(ValueEnum, Clone, Copy, Debug)]
#[value(rename_all = "UPPER")]
enum StorageType {
    Disk = 1,
    Ssd = 2,
    Archive = 3,
    #[value(name = "RAM_DISK")]
    RamDisk = 4,
    Provided = 5,
    Nvdimm = 6,
}

/// Options of `granary admin quota set`.
#[derive(clap::Args, Debug)]
#[command(after_help = AFTER)]
pub struct SetArgs {
    /// At most so many files and folders
    #[arg(long, value_name = "COUNT", required_unless_present = "space")]
    names: Option<u64>,
    /// At most so many bytes, as in 10GiB, replicas counted
    #[arg(long, value_name = "BYTES", value_parser = units::parse_bytes)]
    space: Option<u64>,
    /// The space is on this type of storage alone
    #[arg(
        long = "type",
        value_name = "TYPE",
        requires = "space",
        conflicts_with = "names",
        ignore_case = true
    )]
    storage: Option<StorageType>,
    /// The folders
    #[arg(required = true)]
    paths: Vec<String>,
}

/// Options of `granary admin quota clear`.
#[derive(clap::Args, Debug)]
pub struct ClearArgs {
    /// Only the limit of names
    #[arg(long, conflicts_with = "space")]
    names: bool,
    /// Only the limit of space
    #[arg(long)]
    space: bool,
    /// Only the limit of space on this type of storage
    #[arg(long = "type", value_name = "TYPE", conflicts_with_all = ["names", "space"], ignore_case = true)]
    storage: Option<StorageType>,
    /// The folders
    #[arg(required = true)]
    paths: Vec<String>,
}

/// Options of `granary admin quota ls`.
#[derive(clap::Args, Debug)]
pub struct LsArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Only these folders; without any, all that have limits
    paths: Vec<String>,
}

/// Runs a command of `granary admin quota`.
pub async fn run(command: &QuotaCommand, context: &Context, out: &mut Out) -> Result<()> {
    match command {
        QuotaCommand::Set(args) => {
            let limit = |value: Option<u64>| {
                value.map(|value| QuotaLimit { clear: false, value: Some(value) })
            };
            let (names, space) = (limit(args.names), limit(args.space));
            change(&args.paths, names, space, args.storage, context).await
        }
        QuotaCommand::Clear(args) => {
            let clear = QuotaLimit { clear: true, value: None };
            let typed = args.storage.is_some();
            let names = (!args.space && !typed).then_some(clear);
            let space = (!args.names || typed).then_some(clear);
            change(&args.paths, names, space, args.storage, context).await
        }
        QuotaCommand::Ls(args) => list(args, context, out).await,
    }
}

async fn change(
    paths: &[String],
    names: Option<QuotaLimit>,
    space: Option<QuotaLimit>,
    storage: Option<StorageType>,
    context: &Context,
) -> Result<()> {
    let fs = context.connect().await?;
    for text in paths {
        let storage = storage.map_or(0, |kind| kind as u32);
        let done = fs.set_quota(&path(text)?, names, space, storage).await;
        done.map_err(|error| Failure::from(error).context(text))?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Shown {
    path: String,
    names: Option<u64>,
    names_used: u64,
    space: Option<u64>,
    space_used: u64,
    types: std::collections::BTreeMap<String, u64>,
}

impl Shown {
    fn new(path: String, quota: Quota) -> Self {
        Self {
            path,
            names: quota.names,
            names_used: quota.names_used,
            space: quota.space,
            space_used: quota.space_used,
            types: quota.types.into_iter().map(|kind| (kind.name, kind.limit)).collect(),
        }
    }
}

async fn list(args: &LsArgs, context: &Context, out: &mut Out) -> Result<()> {
    let fs = context.connect().await?;
    let mut shown = Vec::new();
    for text in &args.paths {
        let summary = fs.content_summary(&path(text)?).await;
        let summary = summary.map_err(|error| Failure::from(error).context(text))?;
        let unlimited = Quota {
            names_used: summary.files + summary.folders,
            space_used: summary.space_consumed,
            ..Quota::default()
        };
        shown.push(Shown::new(text.clone(), summary.quota.unwrap_or(unlimited)));
    }
    let mut after = if args.paths.is_empty() { Some(0) } else { None };
    while let Some(inode) = after {
        let page = fs.quotas_after(inode).await?;
        after = page.last().map(|last| last.inode);
        let named = |folder: FolderQuota| Shown::new(folder.path, folder.quota.unwrap_or_default());
        shown.extend(page.into_iter().map(named));
    }
    shown.sort_by(|a, b| a.path.cmp(&b.path));
    if args.json {
        return out.json(&shown);
    }
    let mut table = Table::new(&[
        ("names", Align::Right),
        ("limit", Align::Right),
        ("space", Align::Right),
        ("limit", Align::Right),
        ("by type", Align::Left),
        ("folder", Align::Left),
    ]);
    let limit = |value: Option<u64>, show: fn(u64) -> String| value.map_or("-".to_owned(), show);
    for one in &shown {
        let types: Vec<String> = one
            .types
            .iter()
            .map(|(kind, limit)| format!("{kind} {}", units::bytes(*limit)))
            .collect();
        table.row(vec![
            units::number(one.names_used),
            limit(one.names, units::number),
            units::bytes(one.space_used),
            limit(one.space, units::bytes),
            if types.is_empty() { "-".to_owned() } else { types.join(", ") },
            one.path.clone(),
        ]);
    }
    table.print(out)
}
