//! `granary fs get`: files and folders out of the cluster.
//!
//! A local file appears under its name when it is whole and on stable storage. Names of the cluster hold no `/` and are
//! neither `.` nor `..`, so nothing is written outside the folder that the user named.

use std::path::{Path, PathBuf};

use proto::FsPath;

use super::local::{Target, is_device};
use super::transfer::{Existing, PARALLEL_DEFAULT, Transfers};
use super::{Found, Shell};
use crate::failure::{Exit, Failure, Result};
use crate::output::Out;
use crate::progress::Progress;

/// Options of `granary fs get`.
#[derive(clap::Args, Debug)]
#[command(override_usage = "granary fs get [OPTIONS] <SRC>... [DST]")]
pub struct GetArgs {
    /// Replace local files that exist
    #[arg(short, long)]
    force: bool,
    /// Files copied at the same time
    #[arg(short = 't', long, default_value_t = PARALLEL_DEFAULT, value_name = "N")]
    threads: usize,
    /// Paths of the cluster (folders with all they hold; patterns), then the local target; a single path goes to `.`,
    /// and `-` is standard output
    #[arg(required = true, num_args = 1.., value_name = "SRC... DST")]
    paths: Vec<String>,
}

struct Item {
    source: FsPath,
    local: PathBuf,
    bytes: u64,
}

/// Runs `granary fs get`.
pub async fn run(args: &GetArgs, shell: &Shell, out: &mut Out) -> Result<()> {
    let (target, sources) = match args.paths.as_slice() {
        [only] => (".", std::slice::from_ref(only)),
        [sources @ .., target] => (target.as_str(), sources),
        [] => unreachable!("clap asks for one or more"),
    };
    let sources = shell.expand_all(sources).await?;
    if target == "-" {
        return super::read::cat_paths(&sources, shell, out).await;
    }
    let items = plan(&sources, Path::new(target), args.force, shell).await?;
    let progress = Progress::bytes("get", items.iter().map(|item| item.bytes).sum());
    let transfers = Transfers::new(shell, progress, Existing::from_force(args.force));
    transfers
        .all(items, args.threads, async |item: Item| {
            let mut reader = shell.fs.open(&item.source).await?;
            let mut local = Target::create(&item.local)?;
            while let Some(chunk) = reader.read_next().await? {
                transfers.progress().add(chunk.len() as u64);
                local.write(chunk).await?;
            }
            local.finish().await
        })
        .await
}

async fn plan(sources: &[FsPath], target: &Path, force: bool, shell: &Shell) -> Result<Vec<Item>> {
    let inside = target.is_dir();
    if sources.len() > 1 && !inside {
        let message = format!("{}: no such local folder", target.display());
        return Err(Failure::new(Exit::NotFound, message).hint("several files need a folder"));
    }
    if let Some(above) = target.parent().filter(|above| !inside && !folder_exists(above)) {
        let message = format!("{}: no such local folder", above.display());
        return Err(Failure::new(Exit::NotFound, message)
            .hint(format!("mkdir -p {} makes it", above.display())));
    }
    let mut items = Vec::new();
    for source in sources {
        let found = shell.found(source).await?;
        let local = match source.name() {
            Some(name) if inside => target.join(name),
            _ => target.to_owned(),
        };
        for below in shell.walk(found).await? {
            let local = local_path(&local, source, &below);
            if below.is_folder() {
                std::fs::create_dir_all(&local)
                    .map_err(|error| Failure::io(local.display(), &error))?;
                continue;
            }
            if !force && local.exists() && !is_device(&local) {
                let message = format!("{}: exists already", local.display());
                return Err(Failure::new(Exit::Conflict, message).hint("-f replaces it"));
            }
            items.push(Item { source: below.path, local, bytes: below.status.length });
        }
    }
    Ok(items)
}

/// Whether the folder above a target is there; none named is the current one.
fn folder_exists(above: &Path) -> bool {
    above == Path::new("") || above.is_dir()
}

/// Where something under `source` goes if `source` goes to `local`.
fn local_path(local: &Path, source: &FsPath, below: &Found) -> PathBuf {
    let rest = below.path.components().skip(source.components().count());
    rest.fold(local.to_owned(), |path, name| path.join(name))
}
