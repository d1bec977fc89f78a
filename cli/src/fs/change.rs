//! mkdir, mv, rm, touch, chmod, chown, setrep, append, truncate, ln: changes of what is there.

use std::path::Path;
use std::time::{Duration, SystemTime};

use client::{CreateOptions, Recursion, RenameMode};
use proto::{Code, Error, FsPath};

use super::local::Source;
use super::mode::ModeChange;
use super::{Found, Shell, each, is_folder};
use crate::failure::{Exit, Failure, Result};
use crate::output::Out;
use crate::progress::Progress;
use crate::units;

/// How long `setrep -w` sleeps between two looks.
const SETREP_INTERVAL: Duration = Duration::from_millis(300);

/// Options of `granary fs mkdir`.
#[derive(clap::Args, Debug)]
pub struct MkdirArgs {
    /// Make the folders above too, and do not mind if it is there
    #[arg(short, long)]
    parents: bool,
    /// Folders to make
    #[arg(required = true)]
    paths: Vec<String>,
}

/// Options of `granary fs mv`.
#[derive(clap::Args, Debug)]
pub struct MvArgs {
    /// Replace a file that exists
    #[arg(short, long)]
    force: bool,
    /// Paths of the cluster; patterns match
    #[arg(required = true, value_name = "SRC")]
    sources: Vec<String>,
    /// Where they go: a folder that is there, or the new name
    #[arg(value_name = "DST")]
    target: String,
}

/// Options of `granary fs rm`.
#[derive(clap::Args, Debug)]
pub struct RmArgs {
    /// Folders with all they hold
    #[arg(short, long, visible_short_alias = 'R')]
    recursive: bool,
    /// Do not mind what is not there
    #[arg(short, long)]
    force: bool,
    /// Say what is deleted
    #[arg(short, long)]
    verbose: bool,
    /// Files and folders; patterns match
    #[arg(required = true)]
    paths: Vec<String>,
}

/// Options of `granary fs touch`.
#[derive(clap::Args, Debug)]
pub struct TouchArgs {
    /// Do not make files
    #[arg(short = 'c', long)]
    no_create: bool,
    /// Files
    #[arg(required = true)]
    paths: Vec<String>,
}

/// Options of `granary fs chmod`.
#[derive(clap::Args, Debug)]
pub struct ChmodArgs {
    /// Folders with all they hold
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Octal digits as in 755, or u+x,go-w
    #[arg(allow_hyphen_values = true)]
    mode: ModeChange,
    /// Files and folders; patterns match
    #[arg(required = true)]
    paths: Vec<String>,
}

/// Options of `granary fs chown`.
#[derive(clap::Args, Debug)]
pub struct ChownArgs {
    /// Folders with all they hold
    #[arg(short = 'R', long)]
    recursive: bool,
    /// The new owner, `OWNER:GROUP`, or `:GROUP`
    #[arg(value_name = "OWNER[:GROUP]")]
    owner: String,
    /// Files and folders; patterns match
    #[arg(required = true)]
    paths: Vec<String>,
}

/// Options of `granary fs setrep`.
#[derive(clap::Args, Debug)]
pub struct SetrepArgs {
    /// Wait until no block has too few replicas
    #[arg(short, long)]
    wait: bool,
    /// Replicas of each block
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(proto::limits::REPLICATION_MAX)))]
    replicas: u32,
    /// Files, and folders with all they hold; patterns match
    #[arg(required = true)]
    paths: Vec<String>,
}

/// Options of `granary fs append`.
#[derive(clap::Args, Debug)]
pub struct AppendArgs {
    /// Local files, in this order; `-` is standard input
    #[arg(required = true, value_name = "SRC")]
    sources: Vec<String>,
    /// The file to append to; made if it is not there
    #[arg(value_name = "DST")]
    target: String,
}

/// Options of `granary fs truncate`.
#[derive(clap::Args, Debug)]
pub struct TruncateArgs {
    /// The new length in bytes, as in 4K
    #[arg(value_parser = units::parse_bytes)]
    length: u64,
    /// Files; patterns match
    #[arg(required = true)]
    paths: Vec<String>,
}

/// Options of `granary fs ln`.
#[derive(clap::Args, Debug)]
pub struct LnArgs {
    /// A file
    source: String,
    /// Its further name
    target: String,
}

/// Runs `granary fs mkdir`.
pub async fn mkdir(args: &MkdirArgs, shell: &Shell) -> Result<()> {
    each(&args.paths, async |text| {
        let path = shell.path(text)?;
        if args.parents {
            shell.fs.mkdirs(&path, 0o755).await?;
            return Ok(());
        }
        let made = shell.fs.mkdir(&path, 0o755).await.map(drop).map_err(Failure::from);
        made.map_err(|failure| match failure.exit {
            Exit::NotFound => failure.hint("-p makes the folders above too"),
            _ => failure,
        })
    })
    .await
}

/// Runs `granary fs mv`.
pub async fn mv(args: &MvArgs, shell: &Shell) -> Result<()> {
    let sources = shell.expand_all(&args.sources).await?;
    let into = shell.path(&args.target)?;
    let inside = shell.fs.try_status(&into).await?.as_ref().is_some_and(is_folder);
    if sources.len() > 1 && !inside {
        return Err(Failure::new(Exit::NotFound, format!("{into}: no such folder"))
            .hint("several sources need a folder"));
    }
    let mode = if args.force { RenameMode::Replace } else { RenameMode::NoReplace };
    each(&sources, async |source| {
        let to = match source.name() {
            Some(name) if inside => into.join(name)?,
            _ => into.clone(),
        };
        let renamed = shell.fs.rename(source, &to, mode).await.map_err(Failure::from);
        renamed.map_err(|failure| match failure.exit {
            Exit::Conflict if !args.force => failure.hint("-f replaces a file that exists"),
            _ => failure,
        })
    })
    .await
}

/// Runs `granary fs rm`.
pub async fn rm(args: &RmArgs, shell: &Shell, out: &mut Out) -> Result<()> {
    let mut paths = Vec::new();
    for text in &args.paths {
        match shell.expand(text).await {
            Err(failure) if args.force && failure.exit == Exit::NotFound => {}
            found => paths.extend(found?),
        }
    }
    let out = std::cell::RefCell::new(out);
    each(&paths, async |path| {
        if path.is_root() {
            return Err(Failure::usage("/: the root is not deleted").hint("`/*` is what it holds"));
        }
        let found = match shell.found(path).await {
            Err(failure) if args.force && failure.exit == Exit::NotFound => return Ok(()),
            found => found?,
        };
        if found.is_folder() && !args.recursive {
            let message = format!("{path}: is a folder");
            return Err(
                Failure::new(Exit::Failure, message).hint("-r deletes folders with all they hold")
            );
        }
        let recursion = if args.recursive { Recursion::Yes } else { Recursion::No };
        shell.fs.delete(path, recursion).await?;
        if args.verbose { out.borrow_mut().line(format_args!("deleted {path}")) } else { Ok(()) }
    })
    .await
}

#[allow(clippy::disallowed_methods, reason = "the user's clock is what touch is about")]
fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Runs `granary fs touch`.
pub async fn touch(args: &TouchArgs, shell: &Shell) -> Result<()> {
    each(&args.paths, async |text| {
        let path = shell.path(text)?;
        if shell.fs.try_status(&path).await?.is_some() {
            let now = now_ns();
            return Ok(shell.fs.set_times(&path, Some(now), Some(now)).await?);
        }
        if args.no_create {
            return Ok(());
        }
        let options = CreateOptions { create_parents: false, ..CreateOptions::default() };
        shell.fs.create(&path, options).await?.close().await?;
        Ok(())
    })
    .await
}

/// The paths, and with `recursive` what lies under them.
async fn selected(texts: &[String], recursive: bool, shell: &Shell) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    for path in shell.expand_all(texts).await? {
        let found = shell.found(&path).await?;
        if recursive { all.extend(shell.walk(found).await?) } else { all.push(found) }
    }
    Ok(all)
}

/// Runs `granary fs chmod`.
pub async fn chmod(args: &ChmodArgs, shell: &Shell) -> Result<()> {
    let mut found = selected(&args.paths, args.recursive, shell).await?;
    // What lies deeper first: a folder that loses its x would hide it.
    found.reverse();
    each(&found, async |found| {
        let mode = args.mode.apply(found.status.mode, found.is_folder());
        Ok(shell.fs.set_permission(&found.path, mode).await?)
    })
    .await
}

/// Runs `granary fs chown`.
pub async fn chown(args: &ChownArgs, shell: &Shell) -> Result<()> {
    let (owner, group) = args.owner.split_once(':').unwrap_or((&args.owner, ""));
    if owner.is_empty() && group.is_empty() {
        return Err(Failure::usage(format!(
            "{:?}: names neither an owner nor a group",
            args.owner
        )));
    }
    let found = selected(&args.paths, args.recursive, shell).await?;
    each(&found, async |found| Ok(shell.fs.set_owner(&found.path, owner, group).await?)).await
}

/// Runs `granary fs setrep`.
pub async fn setrep(args: &SetrepArgs, shell: &Shell) -> Result<()> {
    let mut found = selected(&args.paths, true, shell).await?;
    found.retain(|found| !found.is_folder());
    each(&found, async |found| Ok(shell.fs.set_replication(&found.path, args.replicas).await?))
        .await?;
    let progress = args.wait.then(|| Progress::spinner("waiting for replicas"));
    while let Some(progress) = &progress {
        let waiting = shell.fs.stats().await?.under_replicated_blocks;
        if waiting == 0 {
            break;
        }
        progress.say(format!("{} with too few replicas", units::count(waiting, "block")));
        tokio::time::sleep(SETREP_INTERVAL).await;
    }
    Ok(())
}

/// Runs `granary fs append`.
pub async fn append(args: &AppendArgs, shell: &Shell) -> Result<()> {
    let path = shell.path(&args.target)?;
    // All sources are opened first, so that a wrong name appends nothing.
    let sources = args.sources.iter().map(|source| Source::open(Path::new(source)));
    let sources = sources.collect::<Result<Vec<Source>>>()?;
    let mut writer = match shell.fs.try_status(&path).await? {
        Some(status) if is_folder(&status) => {
            return Err(Error::new(Code::IsFolder, format!("{path}: is a folder")).into());
        }
        Some(_) => shell.fs.append(&path).await?,
        None => {
            let options = CreateOptions { create_parents: false, ..CreateOptions::default() };
            shell.fs.create(&path, options).await?
        }
    };
    let progress = Progress::bytes("append", 0);
    for mut source in sources {
        while let Some(chunk) = source.next().await? {
            progress.add(chunk.len() as u64);
            writer.write_bytes(chunk).await?;
        }
    }
    writer.close().await?;
    Ok(())
}

/// Runs `granary fs truncate`.
pub async fn truncate(args: &TruncateArgs, shell: &Shell) -> Result<()> {
    let paths: Vec<FsPath> = shell.expand_all(&args.paths).await?;
    each(&paths, async |path| Ok(shell.fs.truncate(path, args.length).await?)).await
}

/// Runs `granary fs ln`.
pub async fn ln(args: &LnArgs, shell: &Shell) -> Result<()> {
    let (source, target) = (shell.path(&args.source)?, shell.path(&args.target)?);
    shell.fs.link(&source, &target).await.map(drop)?;
    Ok(())
}
