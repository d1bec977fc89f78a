//! `granary admin lease`: files that are being written.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::path;
use crate::connect::Context;
use crate::failure::{Exit, Failure, Result};
use crate::output::{Align, Out, Table};
use crate::units;

const PAUSE: Duration = Duration::from_millis(200);

/// The commands of `granary admin lease`.
#[derive(clap::Subcommand, Debug)]
pub enum LeaseCommand {
    /// List files that are being written, and who writes them
    Ls(LsArgs),
    /// End a writer's hold on a file, and close it with what is known to be written
    Recover(RecoverArgs),
}

/// Options of `granary admin lease ls`.
#[derive(clap::Args, Debug)]
pub struct LsArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Only under this folder
    #[arg(default_value = "/")]
    path: String,
}

/// Options of `granary admin lease recover`.
#[derive(clap::Args, Debug)]
pub struct RecoverArgs {
    /// Wait for the file to be closed, at most this long; ends with 6 if it is not
    #[arg(long, value_name = "TIME", value_parser = units::parse_millis, default_value = "60s")]
    timeout: u64,
    /// The file
    path: String,
}

#[derive(Serialize)]
struct Shown {
    path: String,
    inode: u64,
    holder: String,
    recovering: bool,
}

/// Runs a command of `granary admin lease`.
pub async fn run(command: &LeaseCommand, context: &Context, out: &mut Out) -> Result<()> {
    match command {
        LeaseCommand::Ls(args) => list(args, context, out).await,
        LeaseCommand::Recover(args) => recover(args, context, out).await,
    }
}

async fn list(args: &LsArgs, context: &Context, out: &mut Out) -> Result<()> {
    let (fs, path) = (context.connect().await?, path(&args.path)?);
    let mut shown: Vec<Shown> = Vec::new();
    loop {
        let after = shown.last().map_or(0, |last| last.inode);
        let (files, more) = fs.open_files_after(&path, after).await?;
        let end = !more || files.is_empty();
        shown.extend(files.into_iter().map(|file| Shown {
            path: file.path,
            inode: file.inode,
            holder: file.holder,
            recovering: file.recovering,
        }));
        if end {
            break;
        }
    }
    if args.json {
        return out.json(&shown);
    }
    let columns = [("inode", Align::Right), ("writer", Align::Left), ("file", Align::Left)];
    let mut table = Table::new(&columns);
    for file in &shown {
        let holder = if file.recovering { "(being recovered)" } else { &file.holder };
        table.row(vec![file.inode.to_string(), holder.to_owned(), file.path.clone()]);
    }
    table.print(out)
}

async fn recover(args: &RecoverArgs, context: &Context, out: &mut Out) -> Result<()> {
    let (fs, path) = (context.connect().await?, path(&args.path)?);
    let began = Instant::now();
    while !fs.recover_lease(&path).await? {
        if began.elapsed() >= Duration::from_millis(args.timeout) {
            let message = format!("{path} is still being recovered: ask again");
            return Err(Failure::new(Exit::Unreachable, message));
        }
        tokio::time::sleep(PAUSE).await;
    }
    out.line(format_args!("{path} is closed"))
}
