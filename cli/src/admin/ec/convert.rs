//! `granary admin ec convert`: files and trees are coded anew, several files at a time.
//!
//! What is so already is passed over, so that a command that was killed is simply given again. One that fails is told
//! and stays as it was; the others go on.

use std::sync::atomic::{AtomicU64, Ordering};

use client::convert::{HIDDEN_PREFIX, Wanted, hidden_name};
use client::{Conversion, Recursion};
use proto::erasure::Policy;
use serde::Serialize;

use crate::coding;
use crate::failure::{Exit, Failure, Result};
use crate::fs::transfer::{Existing, PARALLEL_DEFAULT, Transfers};
use crate::fs::{Found, Shell};
use crate::output::Out;
use crate::progress::Progress;
use crate::units;

const AFTER: &str = "\
Each file is copied to a hidden one beside it, checked, and takes its place in one step: owner, times
and permissions stay, and who reads it goes on reading. Until then both copies take space and count
for quotas. A file that is being written is told and left alone. Folders keep their policy: see
`granary admin ec set`.";

/// Options of `granary admin ec convert`.
#[derive(clap::Args, Debug)]
#[command(after_help = AFTER)]
pub struct ConvertArgs {
    /// Tell what would be done
    #[arg(long)]
    dry_run: bool,
    /// Files that are converted at the same time
    #[arg(short = 't', long, default_value_t = PARALLEL_DEFAULT, value_name = "N")]
    threads: usize,
    /// Replicas of files that become replicated; without it the cluster's default
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    replication: u32,
    /// Print the sums as JSON
    #[arg(long)]
    json: bool,
    /// The policy, as in RS-6-3-1024k or rs-6-3; or `replicated`
    #[arg(value_parser = coding::parse)]
    policy: u32,
    /// Files, and folders with all they hold; patterns match
    #[arg(required = true)]
    paths: Vec<String>,
}

/// What was done, or would be.
#[derive(Debug, Default, Serialize)]
struct Sums {
    policy: String,
    converted_files: u64,
    converted_bytes: u64,
    already_so: u64,
    failed: u64,
    dry_run: bool,
}

/// Runs `granary admin ec convert`.
pub async fn run(args: &ConvertArgs, shell: &Shell, out: &mut Out) -> Result<()> {
    let mut files = Vec::new();
    let mut already_so = 0;
    for path in shell.expand_all(&args.paths).await? {
        for found in shell.walk(shell.found(&path).await?).await? {
            if is_left_behind(&found) {
                remove(&found, args, shell).await?;
            } else if found.is_folder() {
            } else if found.status.erasure_policy == args.policy {
                already_so += 1;
            } else {
                files.push(found);
            }
        }
    }
    let mut sums = Sums {
        policy: coding::name(args.policy),
        already_so,
        dry_run: args.dry_run,
        ..Sums::default()
    };
    if args.dry_run {
        sums.converted_files = files.len() as u64;
        sums.converted_bytes = files.iter().map(|found| found.status.length).sum();
        if !args.json {
            for found in &files {
                let (from, bytes) =
                    (coding::name(found.status.erasure_policy), units::bytes(found.status.length));
                let path = crate::output::printable(found.path.as_str().as_bytes());
                out.line(format_args!("{path}: {bytes}, {from}"))?;
            }
        }
        return tell(&sums, args, out);
    }
    if !files.is_empty() {
        demand_datanodes(args.policy, shell).await?;
    }
    let result = convert(files, args, shell, &mut sums).await;
    tell(&sums, args, out)?;
    result
}

/// Refuses before anything is copied what could never have all its units: the old replicas would not be let go.
async fn demand_datanodes(policy: u32, shell: &Shell) -> Result<()> {
    let Some(policy) = u8::try_from(policy).ok().and_then(Policy::by_id) else { return Ok(()) };
    let status = shell.fs.cluster_status().await?;
    let alive = status.datanodes.iter().filter(|node| node.alive).count();
    if alive >= usize::from(policy.units()) {
        return Ok(());
    }
    let (name, units) = (policy.name, policy.units());
    let what = format!("{name} spreads a file over {units} DataNodes, and {alive} are alive");
    Err(Failure::new(Exit::Exhausted, what)
        .hint("files stay as they are; `granary admin ec ls` lists the policies"))
}

async fn convert(
    files: Vec<Found>,
    args: &ConvertArgs,
    shell: &Shell,
    sums: &mut Sums,
) -> Result<()> {
    let total = files.iter().map(|found| found.status.length).sum();
    let asked = files.len() as u64;
    let transfers = Transfers::new(shell, Progress::bytes("convert", total), Existing::Replace);
    let (done, bytes, already) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let wanted = Wanted { policy: args.policy, replication: args.replication };
    let result = transfers
        .all(files, args.threads, async |found: Found| {
            let hidden = hidden_name(&found.path, found.status.inode)?;
            transfers.hold(&hidden);
            let progress = |more| transfers.progress().add(more);
            let converted = shell.fs.convert(&found.path, wanted, progress).await;
            transfers.release(&hidden);
            match converted.map_err(|error| Failure::from(error).context(&found.path))? {
                Conversion::Done(more) => {
                    done.fetch_add(1, Ordering::Relaxed);
                    bytes.fetch_add(more, Ordering::Relaxed);
                }
                Conversion::AlreadySo => {
                    already.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        })
        .await;
    sums.converted_files = done.into_inner();
    sums.converted_bytes = bytes.into_inner();
    let already = already.into_inner();
    sums.already_so += already;
    sums.failed = asked - sums.converted_files - already;
    result
}

fn tell(sums: &Sums, args: &ConvertArgs, out: &mut Out) -> Result<()> {
    if args.json {
        return out.json(sums);
    }
    let verb = if sums.dry_run { "would become" } else { "became" };
    let mut line = format!(
        "{} ({}) {verb} {}",
        units::count(sums.converted_files, "file"),
        units::bytes(sums.converted_bytes),
        sums.policy
    );
    for (count, what) in [(sums.already_so, "so already"), (sums.failed, "not converted")] {
        if count > 0 {
            line.push_str(&format!("; {} {what}", units::number(count)));
        }
    }
    out.line(line)
}

/// Whether this is a hidden copy that nobody writes: a conversion was killed.
fn is_left_behind(found: &Found) -> bool {
    let name = found.path.name().unwrap_or("");
    let number = name.strip_prefix(HIDDEN_PREFIX).map(str::parse::<u64>);
    !found.is_folder() && matches!(number, Some(Ok(_)))
}

/// Removes what a killed conversion left behind. One that is open may be somebody's who converts at this moment.
async fn remove(found: &Found, args: &ConvertArgs, shell: &Shell) -> Result<()> {
    if !args.dry_run && !found.status.open_for_write {
        shell.fs.delete(&found.path, Recursion::No).await?;
    }
    Ok(())
}
