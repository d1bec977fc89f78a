//! ls, find, stat, test: what is where.

use glob::{MatchOptions, Pattern};
use proto::granary::FileStatus;
use serde::Serialize;

use super::{Found, Shell, each, mode};
use crate::coding;
use crate::failure::{Exit, Failure, Result};
use crate::output::{Align, Out, Table};
use crate::units;

/// Options of `granary fs ls`.
#[derive(clap::Args, Debug)]
#[command(disable_help_flag = true)]
pub struct LsArgs {
    /// All levels
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Sizes as in 1.5 MiB
    #[arg(short = 'h', long)]
    human: bool,
    /// Folders themselves, not what they hold
    #[arg(short = 'd', long)]
    directory: bool,
    /// Paths only, one on a line
    #[arg(short = '1', long = "names", conflicts_with = "json")]
    names: bool,
    /// Newest first
    #[arg(short = 't', long, conflicts_with = "by_size")]
    by_time: bool,
    /// Largest first
    #[arg(short = 'S', long)]
    by_size: bool,
    /// The other way round
    #[arg(short = 'r', long)]
    reverse: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Files and folders; patterns match; without any, your folder under /user
    paths: Vec<String>,
}

/// Options of `granary fs find`.
#[derive(clap::Args, Debug)]
pub struct FindArgs {
    /// Names that match this pattern
    #[arg(long, value_name = "PATTERN")]
    name: Option<String>,
    /// Only files (f) or folders (d)
    #[arg(long = "type", value_name = "f|d", value_parser = ["f", "d"])]
    kind: Option<String>,
    /// Only files larger than this, as in 10MiB
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes)]
    larger: Option<u64>,
    /// Where to look
    #[arg(required = true)]
    paths: Vec<String>,
}

/// Options of `granary fs stat`.
#[derive(clap::Args, Debug)]
pub struct StatArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Files and folders; patterns match
    #[arg(required = true)]
    paths: Vec<String>,
}

/// Options of `granary fs test`: ends with 0 for yes, 1 for no.
#[derive(clap::Args, Debug)]
pub struct TestArgs {
    #[command(flatten)]
    question: Question,
    /// The path
    path: String,
}

/// What is asked of a path.
#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct Question {
    /// Is anything there?
    #[arg(short, long)]
    exists: bool,
    /// Is it a file?
    #[arg(short, long)]
    file: bool,
    /// Is it a folder?
    #[arg(short, long)]
    directory: bool,
    /// Is it an empty file?
    #[arg(short, long)]
    zero: bool,
    /// Is it a file that holds something?
    #[arg(short = 's', long)]
    nonzero: bool,
}

/// A path as JSON.
#[derive(Serialize)]
pub struct Shown {
    path: String,
    kind: &'static str,
    length: u64,
    mode: String,
    owner: String,
    group: String,
    modified_ns: i64,
    accessed_ns: i64,
    changed_ns: i64,
    replication: u32,
    /// Of a file: how it is coded; of a folder: what new files in it get.
    erasure_policy: String,
    block_bytes: u64,
    children: u64,
    links: u32,
    open_for_write: bool,
    inode: u64,
}

impl Shown {
    fn of(found: &Found) -> Self {
        let status = &found.status;
        Self {
            path: found.path.to_string(),
            kind: if found.is_folder() { "folder" } else { "file" },
            length: status.length,
            mode: format!("{:04o}", status.mode),
            owner: status.owner.clone(),
            group: status.group.clone(),
            modified_ns: status.modified_ns,
            accessed_ns: status.accessed_ns,
            changed_ns: status.changed_ns,
            replication: status.replication,
            erasure_policy: coding::name(status.erasure_policy),
            block_bytes: status.block_bytes,
            children: status.children,
            links: status.links,
            open_for_write: status.open_for_write,
            inode: status.inode,
        }
    }
}

/// Runs `granary fs ls`.
pub async fn ls(args: &LsArgs, shell: &Shell, out: &mut Out) -> Result<()> {
    let (paths, own) = match args.paths.is_empty() {
        true => (shell.expand(".").await?, true),
        false => (shell.expand_all(&args.paths).await?, false),
    };
    let all = std::cell::RefCell::new(Vec::new());
    let result = each(&paths, async |path| {
        let found = match shell.found(path).await {
            // A user who has stored nothing yet has no folder: that is an empty list.
            Err(failure) if own && failure.exit == Exit::NotFound => return Ok(()),
            found => found?,
        };
        let mut below = match (args.directory, args.recursive) {
            (true, _) => vec![found],
            (false, true) => {
                let skip = usize::from(found.is_folder());
                shell.walk(found).await?.into_iter().skip(skip).collect()
            }
            (false, false) => shell.children(&found).await?,
        };
        sort(&mut below, args);
        all.borrow_mut().extend(below);
        Ok(())
    })
    .await;
    let all = all.into_inner();
    if args.json {
        out.json(&all.iter().map(Shown::of).collect::<Vec<_>>())?;
    } else if args.names {
        all.iter().try_for_each(|found| out.line(&found.path))?;
    } else {
        long(&all, args.human).print(out)?;
    }
    result
}

fn sort(found: &mut [Found], args: &LsArgs) {
    if args.by_time {
        found.sort_by_key(|found| std::cmp::Reverse(found.status.modified_ns));
    } else if args.by_size {
        found.sort_by_key(|found| std::cmp::Reverse(found.status.length));
    }
    if args.reverse {
        found.reverse();
    }
}

fn long(all: &[Found], human: bool) -> Table {
    use Align::{Left, Right};
    let columns = [Left, Right, Left, Left, Right, Left, Left].map(|align| ("", align));
    let mut table = Table::new(&columns);
    for Found { path, status } in all {
        let folder = super::is_folder(status);
        let size = if human { units::bytes(status.length) } else { status.length.to_string() };
        table.row(vec![
            mode::shown(folder, status.mode) + if status.has_acl { "+" } else { "" },
            if folder { "-".into() } else { copies(status) },
            status.owner.clone(),
            status.group.clone(),
            if folder { "-".into() } else { size },
            units::date(status.modified_ns),
            crate::output::printable(path.as_str().as_bytes()),
        ]);
    }
    table
}

/// The replicas of a file; of a striped one its data and parity units.
fn copies(status: &FileStatus) -> String {
    coding::units(status.erasure_policy).unwrap_or_else(|| status.replication.to_string())
}

/// Runs `granary fs find`.
pub async fn find(args: &FindArgs, shell: &Shell, out: &mut Out) -> Result<()> {
    let pattern = args.name.as_deref().map(Pattern::new).transpose().map_err(|error| {
        Failure::usage(format!("--name {:?}: {}", args.name.as_deref().unwrap_or(""), error.msg))
    })?;
    for path in shell.expand_all(&args.paths).await? {
        // Folders are opened as they come, so that a large tree is not held in memory as a whole.
        let mut open = vec![shell.found(&path).await?];
        while let Some(found) = open.pop() {
            if fits(&found, args, pattern.as_ref()) {
                out.line(&found.path)?;
            }
            if found.is_folder() {
                open.extend(shell.children(&found).await?.into_iter().rev());
            }
        }
    }
    Ok(())
}

fn fits(found: &Found, args: &FindArgs, pattern: Option<&Pattern>) -> bool {
    let name = found.path.name().unwrap_or("/");
    let named = pattern.is_none_or(|pattern| pattern.matches_with(name, MatchOptions::new()));
    let kind = match args.kind.as_deref() {
        Some("f") => !found.is_folder(),
        Some(_) => found.is_folder(),
        None => true,
    };
    let large = args.larger.is_none_or(|bytes| !found.is_folder() && found.status.length > bytes);
    named && kind && large
}

/// Runs `granary fs stat`.
pub async fn stat(args: &StatArgs, shell: &Shell, out: &mut Out) -> Result<()> {
    let paths = shell.expand_all(&args.paths).await?;
    let all = std::cell::RefCell::new(Vec::new());
    let result = each(&paths, async |path| {
        let found = shell.found(path).await?;
        all.borrow_mut().push(found);
        Ok(())
    })
    .await;
    let all = all.into_inner();
    if args.json {
        out.json(&all.iter().map(Shown::of).collect::<Vec<_>>())?;
        return result;
    }
    for found in &all {
        let shown = Shown::of(found);
        let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
        let mut row = |name: &str, value: String| table.row(vec![name.into(), value]);
        row("path", crate::output::printable(shown.path.as_bytes()));
        row("kind", shown.kind.into());
        if !found.is_folder() {
            row("length", length(shown.length));
            match found.status.erasure_policy {
                0 => row("replication", shown.replication.to_string()),
                _ => row("erasure coding", shown.erasure_policy.clone()),
            }
            row("block size", units::bytes(shown.block_bytes));
            row("open for write", if shown.open_for_write { "yes" } else { "no" }.into());
        } else {
            row("children", shown.children.to_string());
            if found.status.erasure_policy != 0 {
                row("new files get", shown.erasure_policy.clone());
            }
        }
        let text = mode::shown(found.is_folder(), found.status.mode);
        row("mode", format!("{} ({text})", shown.mode));
        if found.status.has_acl {
            row("access control list", "yes".into());
        }
        row("owner", format!("{}:{}", shown.owner, shown.group));
        row("modified", moment(shown.modified_ns));
        row("accessed", moment(shown.accessed_ns));
        row("changed", moment(shown.changed_ns));
        row("links", shown.links.to_string());
        row("inode", shown.inode.to_string());
        table.print(out)?;
    }
    result
}

/// To the second; a folder that was never read has no time of it.
fn moment(ns: i64) -> String {
    if ns == 0 { "-".into() } else { format!("{} UTC", units::moment(ns)) }
}

/// The exact number of bytes, and what that is about.
fn length(bytes: u64) -> String {
    match bytes {
        0..1024 => units::bytes(bytes),
        _ => format!("{} B ({})", units::number(bytes), units::bytes(bytes)),
    }
}

/// Runs `granary fs test`.
pub async fn test(args: &TestArgs, shell: &Shell) -> Result<()> {
    let path = shell.path(&args.path)?;
    let asked = &args.question;
    let yes = match shell.fs.try_status(&path).await? {
        None => false,
        Some(_) if asked.exists => true,
        Some(status) if asked.directory => super::is_folder(&status),
        Some(status) if super::is_folder(&status) => false,
        Some(status) if asked.zero => status.length == 0,
        Some(status) if asked.nonzero => status.length > 0,
        Some(_) => asked.file,
    };
    if yes { Ok(()) } else { Err(Failure::silent(Exit::Failure)) }
}
