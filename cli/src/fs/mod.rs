//! `granary fs`: the commands over files and folders of the cluster.
//!
//! | module | owns |
//! |---|---|
//! | [`paths`] | relative paths and patterns |
//! | [`mode`] | permission bits as text |
//! | [`local`] | local files and streams, on their own threads |
//! | [`transfer`] | many copies at once, with progress, and nothing half-done under a final name |
//! | [`put`], [`get`], [`cp`] | copies in, out and within |
//! | [`read`] | cat, head, tail, checksum |
//! | [`list`] | ls, find, stat, test |
//! | [`usage`] | du, df, count |
//! | [`change`] | mkdir, mv, rm, touch, chmod, chown, setrep, append, truncate, ln |

pub mod change;
pub mod cp;
pub mod get;
pub mod list;
pub mod local;
pub mod mode;
pub mod paths;
pub mod put;
pub mod read;
pub mod transfer;
pub mod usage;

use client::Fs;
use proto::FsPath;
use proto::granary::{FileKind, FileStatus};

use crate::connect::Context;
use crate::failure::{Exit, Failure, Result};
use crate::output::Out;

/// The commands of `granary fs`.
#[derive(clap::Subcommand, Debug)]
pub enum FsCommand {
    /// Copy local files and folders into the cluster; `-` is standard input
    #[command(visible_alias = "copyFromLocal")]
    Put(put::PutArgs),
    /// Copy files and folders out of the cluster; `-` is standard output
    #[command(visible_alias = "copyToLocal")]
    Get(get::GetArgs),
    /// Write files to standard output
    Cat(read::CatArgs),
    /// List folders
    Ls(list::LsArgs),
    /// Make folders
    Mkdir(change::MkdirArgs),
    /// Rename files and folders
    Mv(change::MvArgs),
    /// Copy within the cluster
    Cp(cp::CpArgs),
    /// Delete files, and folders with -r
    Rm(change::RmArgs),
    /// Show how much files and folders hold
    Du(usage::DuArgs),
    /// Show everything known of a path
    Stat(list::StatArgs),
    /// Show the cluster's space
    Df(usage::DfArgs),
    /// Show the checksums of files, as HDFS computes them
    Checksum(read::ChecksumArgs),
    /// Make empty files, or set the time of files
    Touch(change::TouchArgs),
    /// Change permission bits
    Chmod(change::ChmodArgs),
    /// Change owner and group
    Chown(change::ChownArgs),
    /// Change how many replicas files have
    Setrep(change::SetrepArgs),
    /// Append local files to a file; `-` is standard input
    Append(change::AppendArgs),
    /// Cut a file to a length
    Truncate(change::TruncateArgs),
    /// Give a file a further name
    Ln(change::LnArgs),
    /// Show the end of a file
    Tail(read::TailArgs),
    /// Show the beginning of a file
    Head(read::HeadArgs),
    /// Answer a question about a path by the exit code
    Test(list::TestArgs),
    /// Count folders, files and bytes
    Count(usage::CountArgs),
    /// List what lies under folders and fits
    Find(list::FindArgs),
}

/// Runs one command.
pub async fn run(command: &FsCommand, context: &Context, out: &mut Out) -> Result<()> {
    let shell = &Shell::connect(context).await?;
    match command {
        FsCommand::Put(args) => put::run(args, shell).await,
        FsCommand::Get(args) => get::run(args, shell, out).await,
        FsCommand::Cp(args) => cp::run(args, shell).await,
        FsCommand::Cat(args) => read::cat(args, shell, out).await,
        FsCommand::Head(args) => read::head(args, shell, out).await,
        FsCommand::Tail(args) => read::tail(args, shell, out).await,
        FsCommand::Checksum(args) => read::checksum(args, shell, out).await,
        FsCommand::Ls(args) => list::ls(args, shell, out).await,
        FsCommand::Find(args) => list::find(args, shell, out).await,
        FsCommand::Stat(args) => list::stat(args, shell, out).await,
        FsCommand::Test(args) => list::test(args, shell).await,
        FsCommand::Du(args) => usage::du(args, shell, out).await,
        FsCommand::Df(args) => usage::df(args, shell, out).await,
        FsCommand::Count(args) => usage::count(args, shell, out).await,
        FsCommand::Mkdir(args) => change::mkdir(args, shell).await,
        FsCommand::Mv(args) => change::mv(args, shell).await,
        FsCommand::Rm(args) => change::rm(args, shell, out).await,
        FsCommand::Touch(args) => change::touch(args, shell).await,
        FsCommand::Chmod(args) => change::chmod(args, shell).await,
        FsCommand::Chown(args) => change::chown(args, shell).await,
        FsCommand::Setrep(args) => change::setrep(args, shell).await,
        FsCommand::Append(args) => change::append(args, shell).await,
        FsCommand::Truncate(args) => change::truncate(args, shell).await,
        FsCommand::Ln(args) => change::ln(args, shell).await,
    }
}

/// A connection, and the user whose folder relative paths stand in.
pub struct Shell {
    /// The file system.
    pub fs: Fs,
    /// The user's name.
    pub user: String,
}

/// A path and what is there.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its full path.
    pub path: FsPath,
    /// What is there.
    pub status: FileStatus,
}

impl Found {
    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        is_folder(&self.status)
    }
}

/// Whether this is a folder.
pub fn is_folder(status: &FileStatus) -> bool {
    status.kind() == FileKind::Folder
}

impl Shell {
    /// Connects to the cluster that the context names.
    pub async fn connect(context: &Context) -> Result<Self> {
        let fs = context.connect().await?;
        let user = fs.user().to_owned();
        Ok(Self { fs, user })
    }

    /// A user's text as a path.
    pub fn path(&self, text: &str) -> Result<FsPath> {
        paths::parse(text, &self.user)
    }

    /// The paths that a user's text stands for: itself, or what its pattern matches. Never empty.
    pub async fn expand(&self, text: &str) -> Result<Vec<FsPath>> {
        if !paths::is_pattern(text) {
            return Ok(vec![self.path(text)?]);
        }
        if let Ok(literal) = self.path(text)
            && self.fs.try_status(&literal).await?.is_some()
        {
            return Ok(vec![literal]);
        }
        let list = async |folder: &FsPath| match self.fs.try_status(folder).await? {
            Some(status) if is_folder(&status) => {
                let entries = self.fs.list(folder).await?;
                Ok(entries.into_iter().map(|entry| entry.name).collect())
            }
            _ => Ok(Vec::new()),
        };
        let exists = async |path: &FsPath| Ok(self.fs.try_status(path).await?.is_some());
        paths::expand(&paths::absolute(text, &self.user), list, exists).await
    }

    /// The same for several texts.
    pub async fn expand_all(&self, texts: &[String]) -> Result<Vec<FsPath>> {
        let mut all = Vec::new();
        for text in texts {
            all.extend(self.expand(text).await?);
        }
        Ok(all)
    }

    /// What is at a path.
    pub async fn found(&self, path: &FsPath) -> Result<Found> {
        let status = self.fs.try_status(path).await?;
        let status = status.ok_or_else(|| missing(path))?;
        Ok(Found { path: path.clone(), status })
    }

    /// What is in a folder, ordered by name; for a file, the file.
    pub async fn children(&self, of: &Found) -> Result<Vec<Found>> {
        if !of.is_folder() {
            return Ok(vec![of.clone()]);
        }
        let entries = self.fs.list(&of.path).await?;
        let found = entries
            .into_iter()
            .map(|status| Ok(Found { path: of.path.join(&status.name)?, status }));
        found.collect()
    }

    /// Everything under a path, folders before what they hold; the path itself first.
    pub async fn walk(&self, from: Found) -> Result<Vec<Found>> {
        let (mut open, mut all) = (vec![from], Vec::new());
        while let Some(next) = open.pop() {
            if next.is_folder() {
                open.extend(self.children(&next).await?.into_iter().rev());
            }
            all.push(next);
        }
        Ok(all)
    }
}

/// Nothing is at a path.
pub fn missing(path: &FsPath) -> Failure {
    Failure::new(Exit::NotFound, format!("{path}: no such file or folder"))
}

/// Runs `one` for every item; says what failed, goes on, and ends with the first failure's code.
pub async fn each<T>(items: &[T], one: impl AsyncFn(&T) -> Result<()>) -> Result<()> {
    let mut first: Option<Failure> = None;
    for item in items {
        if let Err(failure) = one(item).await {
            if items.len() == 1 || matches!(failure.exit, Exit::Pipe | Exit::Unreachable) {
                return Err(failure);
            }
            crate::output::note(format_args!("granary: {failure}"));
            first.get_or_insert(failure);
        }
    }
    first.map_or(Ok(()), |failure| Err(Failure::silent(failure.exit)))
}
