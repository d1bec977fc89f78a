//! `granary fs put`: local files and folders into the cluster.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proto::{FsPath, Result as ProtoResult};

use super::local::Source;
use super::transfer::{Existing, Layout, PARALLEL_DEFAULT, Transfers};
use super::{Shell, is_folder};
use crate::coding;
use crate::failure::{Exit, Failure, Result};
use crate::output::note;
use crate::progress::Progress;
use crate::units;

/// Options of `granary fs put`.
#[derive(clap::Args, Debug)]
pub struct PutArgs {
    /// Replace files that exist
    #[arg(short, long)]
    pub force: bool,
    /// Make the folders above the target
    #[arg(long)]
    pub parents: bool,
    /// Files copied at the same time
    #[arg(short = 't', long, default_value_t = PARALLEL_DEFAULT, value_name = "N")]
    pub threads: usize,
    /// Replicas of each block; without it the cluster's default
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub replication: u32,
    /// Block size, as in 64MiB; without it the cluster's default
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes, default_value = "0", hide_default_value = true)]
    pub block_size: u64,
    /// Erasure-coding policy, as in RS-6-3-1024k or rs-6-3, or `replicated`; without it the folder's
    #[arg(long, value_name = "POLICY", value_parser = coding::parse)]
    pub ec: Option<u32>,
    /// Local files and folders (folders with all they hold); `-` is standard input
    #[arg(required = true, value_name = "SRC")]
    pub sources: Vec<String>,
    /// Where they go: a folder that is there, or the new name
    #[arg(value_name = "DST")]
    pub target: String,
}

/// One file to copy.
#[derive(Clone, Debug)]
pub struct Item {
    /// The local file; `-` is standard input.
    pub local: PathBuf,
    /// Where it goes.
    pub target: FsPath,
    /// Its length now.
    pub bytes: u64,
    /// Its permission bits.
    pub mode: u32,
}

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Folders to make, parents first.
    pub folders: Vec<FsPath>,
    /// Files to copy.
    pub files: Vec<Item>,
}

/// Runs `granary fs put`.
pub async fn run(args: &PutArgs, shell: &Shell) -> Result<()> {
    let plan = plan(&args.sources, &args.target, args.parents, shell).await?;
    let total = plan.files.iter().map(|item| item.bytes).sum();
    let progress = Progress::bytes("put", total);
    let transfers = Transfers::new(shell, progress, Existing::from_force(args.force));
    let layout = Layout {
        replication: args.replication,
        block_bytes: args.block_size,
        erasure_policy: args.ec,
    };
    copy(&transfers, shell, plan, layout, args.threads).await
}

/// Makes the folders of a plan and copies its files.
pub async fn copy(
    transfers: &Transfers<'_>,
    shell: &Shell,
    plan: Plan,
    layout: Layout,
    parallel: usize,
) -> Result<()> {
    for folder in &plan.folders {
        shell.fs.mkdirs(folder, 0o755).await?;
    }
    transfers
        .all(plan.files, parallel, async |item: Item| {
            let source = Source::open(&item.local)?;
            transfers.store(source, &item.target, layout, item.mode).await.map(drop)
        })
        .await
}

async fn plan(sources: &[String], target: &str, parents: bool, shell: &Shell) -> Result<Plan> {
    let into = shell.path(target)?;
    let there = shell.fs.try_status(&into).await?;
    let folder = there.as_ref().is_some_and(is_folder);
    let mut plan = Plan::default();
    if !folder && (sources.len() > 1 || target.ends_with('/')) {
        if !parents {
            return Err(Failure::new(Exit::NotFound, format!("{into}: no such folder"))
                .hint(format!("granary fs mkdir -p {into}, or put --parents")));
        }
        plan.folders.push(into.clone());
    } else if !folder && let Some(above) = into.parent() {
        require_parent(&above, parents, shell, &mut plan).await?;
    }
    let inside = folder || !plan.folders.is_empty() && plan.folders[0] == into;
    for source in sources {
        add_source(Path::new(source), &into, inside, &mut plan)?;
    }
    Ok(plan)
}

async fn require_parent(above: &FsPath, make: bool, shell: &Shell, plan: &mut Plan) -> Result<()> {
    if shell.fs.try_status(above).await?.is_some() {
        return Ok(());
    }
    // The user's own folder is made on first use, as anybody would expect.
    if make || above.as_str() == format!("/user/{}", shell.user) {
        plan.folders.push(above.clone());
        return Ok(());
    }
    Err(Failure::new(Exit::NotFound, format!("{above}: no such folder"))
        .hint(format!("granary fs mkdir -p {above}, or put --parents")))
}

fn add_source(source: &Path, into: &FsPath, inside: bool, plan: &mut Plan) -> Result<()> {
    if source == Path::new("-") {
        if inside {
            let message = format!("-: standard input needs a file name, and {into} is a folder");
            return Err(Failure::usage(message));
        }
        let item = Item { local: source.to_owned(), target: into.clone(), bytes: 0, mode: 0o644 };
        plan.files.push(item);
        return Ok(());
    }
    let fail = |error: &std::io::Error| Failure::io(source.display(), error);
    let metadata = std::fs::metadata(source).map_err(|error| fail(&error))?;
    let target = if inside {
        // `dir/..` and `.` have no name of their own.
        let real = std::fs::canonicalize(source).map_err(|error| fail(&error))?;
        into.join(name_of(source.file_name().map_or(&*real, Path::new))?)?
    } else {
        into.clone()
    };
    if metadata.is_dir() {
        return add_folder(source, target, plan);
    }
    let mode = metadata.permissions().mode() & 0o777;
    plan.files.push(Item { local: source.to_owned(), target, bytes: metadata.len(), mode });
    Ok(())
}

/// A folder with all it holds. Links to files are followed, links to folders are not (they may go in circles).
fn add_folder(source: &Path, target: FsPath, plan: &mut Plan) -> Result<()> {
    let mut open = vec![(source.to_owned(), target)];
    while let Some((folder, target)) = open.pop() {
        let fail = |error: &std::io::Error| Failure::io(folder.display(), error);
        let entries = std::fs::read_dir(&folder).map_err(|error| fail(&error))?;
        let mut entries =
            entries.collect::<std::io::Result<Vec<_>>>().map_err(|error| fail(&error))?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        plan.folders.push(target.clone());
        for entry in entries {
            let local = entry.path();
            let below = join(&target, &local)?;
            let kind = entry.file_type().map_err(|error| Failure::io(local.display(), &error))?;
            let metadata = match std::fs::metadata(&local) {
                Ok(metadata) => metadata,
                Err(error) => {
                    note(format_args!("granary: {} is left out: {error}", local.display()));
                    continue;
                }
            };
            if kind.is_dir() {
                open.push((local, below));
            } else if metadata.is_file() {
                let mode = metadata.permissions().mode() & 0o777;
                plan.files.push(Item { local, target: below, bytes: metadata.len(), mode });
            } else {
                note(format_args!("granary: {} is left out: no file or folder", local.display()));
            }
        }
    }
    Ok(())
}

fn join(folder: &FsPath, local: &Path) -> Result<FsPath> {
    let joined: ProtoResult<FsPath> = folder.join(name_of(local)?);
    Ok(joined?)
}

fn name_of(local: &Path) -> Result<&str> {
    let name = local.file_name().and_then(|name| name.to_str());
    name.ok_or_else(|| {
        Failure::usage(format!(
            "{}: its name is not UTF-8; names in the cluster are",
            local.display()
        ))
    })
}
