//! `granary demo`: the main job, from files to answers, in one command.
//!
//! Starts an embedded cluster, stores text files, runs a batch job over them, loads the tables it writes as version 1 of
//! a store, asks it; changes part of the files, runs the job again, switches to version 2 while queries run, and rolls
//! back. Every number that it prints was measured in this run; a query that failed or mixed two versions ends it with
//! a failure.
//!
//! | module | owns |
//! |---|---|
//! | [`input`] | which files |
//! | [`steps`] | each step of the main job |
//! | [`traffic`] | queries in the background |
//! | [`report`] | what is shown |

mod input;
mod report;
mod steps;
mod traffic;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use crate::connect::Context;
use crate::embedded::{Ports, ports};
use crate::failure::{Exit, Failure, Result};
use crate::output::{Out, note};
use crate::progress::Progress;
use crate::roles::{listen, stop_within, until_told};
use crate::signals::Stop;
use crate::units;

/// Options of `granary demo`.
#[derive(clap::Args, Debug)]
pub struct DemoArgs {
    /// Text files and folders to work on; without any, the sources of the crates that cargo fetched
    paths: Vec<PathBuf>,
    /// Keep the cluster's data here; without it, in a temporary folder that is removed at the end
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Keep the cluster running, and its data, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// End when the job is done, even on a terminal
    #[arg(long, conflicts_with = "keep")]
    exit: bool,
    /// Input that is used at most
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = units::parse_bytes)]
    max_bytes: u64,
    /// DataNodes
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u64).range(1..=ports::DATANODES_MAX as u64))]
    datanodes: u64,
    /// Take PORT, PORT+1, ...; without it the well-known ports, or free ones if those are taken; 0 takes free ones
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(0..=i64::from(ports::BASE_MAX)))]
    port_base: Option<u16>,
}

/// Runs `granary demo`.
pub async fn run(args: &DemoArgs, context: &Context, out: &mut Out) -> Result<()> {
    let input = input::find(&args.paths, args.max_bytes)?;
    let (dir, temporary) = match &args.dir {
        Some(dir) => (dir.clone(), false),
        None => (temporary_folder(), true),
    };
    let mut stop = listen()?;
    let ports = match args.port_base {
        None => Ports::standard_or_free(),
        base => Ports::from_base(base),
    };
    let mut work = steps::Work::default();
    let job = async {
        let cluster = work.start(context, &dir, args.datanodes as usize, ports, out).await?;
        let result = work.main_job(&cluster, context, &input, out).await;
        Ok((cluster, result))
    };
    let ended = tokio::select! {
        ended = job => ended,
        _ = stop.next() => Err(Failure::silent(Exit::Interrupted)),
    };
    let (cluster, result) = match ended {
        Ok(ended) => ended,
        Err(failure) => {
            clean_up(&dir, temporary, &mut stop).await;
            return Err(failure);
        }
    };
    let stays = result.is_ok() && (args.keep || (!args.exit && watched()));
    let stopped = match result {
        Ok(()) => {
            work.next_commands(&cluster, &dir, stays, out)?;
            out.flush()?;
            if stays {
                let reason = until_told(&mut stop, cluster.ended()).await;
                stop_within(&mut stop, cluster.stop(), reason).await
            } else {
                cluster.stop().await
            }
        }
        Err(failure) => {
            // The failure is what matters; that the stop failed too would only hide it.
            cluster.stop().await.ok();
            Err(failure)
        }
    };
    clean_up(&dir, temporary && !args.keep, &mut stop).await;
    stopped
}

/// Whether somebody sits at a terminal who can type the next command.
fn watched() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

fn temporary_folder() -> PathBuf {
    std::env::temp_dir().join(format!("granary-demo-{}", uuid::Uuid::new_v4().simple()))
}

/// Removes the data, which can take as long as storing it did; a further Ctrl-C leaves the rest.
async fn clean_up(dir: &Path, remove: bool, stop: &mut Stop) {
    if !remove {
        return;
    }
    let progress = Progress::spinner("removing the demo's data");
    let owned = dir.to_owned();
    let removal = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(owned));
    let left = tokio::select! {
        removed = removal => match removed.expect("the removal does not panic") {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Some(error.to_string()),
            _ => None,
        },
        signal = stop.next() => Some(signal.to_owned()),
    };
    drop(progress);
    if let Some(why) = left {
        note(format_args!("granary: {} is left behind: {why}", dir.display()));
    }
}
