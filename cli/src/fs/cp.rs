//! `granary fs cp`: copies within the cluster. The bytes pass through this process.

use proto::FsPath;

use super::transfer::{Existing, Layout, PARALLEL_DEFAULT, Transfers};
use super::{Found, Shell, is_folder};
use crate::failure::{Exit, Failure, Result};
use crate::progress::Progress;

/// Options of `granary fs cp`.
#[derive(clap::Args, Debug)]
pub struct CpArgs {
    /// Copy folders with all they hold
    #[arg(short, long, visible_short_alias = 'R')]
    recursive: bool,
    /// Replace files that exist
    #[arg(short, long)]
    force: bool,
    /// Files copied at the same time
    #[arg(short = 't', long, default_value_t = PARALLEL_DEFAULT, value_name = "N")]
    threads: usize,
    /// Paths of the cluster; patterns match
    #[arg(required = true, value_name = "SRC")]
    sources: Vec<String>,
    /// Where they go: a folder that is there, or the new name
    #[arg(value_name = "DST")]
    target: String,
}

/// Runs `granary fs cp`.
pub async fn run(args: &CpArgs, shell: &Shell) -> Result<()> {
    let sources = shell.expand_all(&args.sources).await?;
    let into = shell.path(&args.target)?;
    let inside = shell.fs.try_status(&into).await?.as_ref().is_some_and(is_folder);
    if sources.len() > 1 && !inside {
        return Err(Failure::new(Exit::NotFound, format!("{into}: no such folder"))
            .hint("several sources need a folder"));
    }
    let mut files = Vec::new();
    for source in &sources {
        let target = match source.name() {
            Some(name) if inside => into.join(name)?,
            _ => into.clone(),
        };
        let found = shell.found(source).await?;
        if found.is_folder() {
            check_folder(source, &target, args.recursive)?;
        }
        for below in shell.walk(found).await? {
            let to = moved(source, &target, &below)?;
            if below.is_folder() {
                shell.fs.mkdirs(&to, below.status.mode).await?;
            } else {
                files.push((below, to));
            }
        }
    }
    let total = files.iter().map(|(found, _)| found.status.length).sum();
    let transfers =
        Transfers::new(shell, Progress::bytes("cp", total), Existing::from_force(args.force));
    transfers
        .all(files, args.threads, async |(found, to): (Found, FsPath)| {
            let reader = shell.fs.open(&found.path).await?;
            let layout = Layout {
                replication: found.status.replication,
                block_bytes: found.status.block_bytes,
                // What is striped stays so: one replica would be a poor copy of it.
                erasure_policy: Some(found.status.erasure_policy).filter(|policy| *policy != 0),
            };
            transfers.store(reader, &to, layout, found.status.mode).await.map(drop)
        })
        .await
}

fn check_folder(source: &FsPath, target: &FsPath, recursive: bool) -> Result<()> {
    if !recursive {
        return Err(Failure::usage(format!("{source}: is a folder")).hint("-r copies folders"));
    }
    if source.contains(target) {
        let message = format!("{source}: cannot be copied into itself ({target})");
        return Err(Failure::new(Exit::Failure, message));
    }
    Ok(())
}

/// Where something under `source` goes if `source` goes to `target`.
fn moved(source: &FsPath, target: &FsPath, below: &Found) -> Result<FsPath> {
    let rest = below.path.components().skip(source.components().count());
    let mut to = target.clone();
    for name in rest {
        to = to.join(name)?;
    }
    Ok(to)
}
