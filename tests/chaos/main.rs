//! `granary-chaos --seed N --minutes M`: chaos by hand, for hours if one likes.

#![allow(clippy::print_stdout, reason = "it tells what happened")]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tests::chaos;

/// Runs a cluster of real processes under faults, and tells whether anything acknowledged was lost.
#[derive(Parser)]
#[command(name = "granary-chaos")]
struct Args {
    /// Chooses operations and faults; without it, one is chosen and told
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults go on
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// DataNodes
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u64).range(4..=64))]
    datanodes: u64,
    /// Writers
    #[arg(long, default_value_t = 4)]
    writers: usize,
    /// Readers
    #[arg(long, default_value_t = 2)]
    readers: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let options = chaos::Options {
        seed: args.seed.unwrap_or_else(|| u64::from(std::process::id())),
        time: Duration::from_secs_f64(args.minutes * 60.0),
        datanodes: args.datanodes as usize,
        writers: args.writers,
        readers: args.readers,
    };
    println!("seed          {}", options.seed);
    println!("commit        {}", commit());
    let report = chaos::run(&options).await;
    println!("{report}");
    match report.verdict() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("FAILED\n{why}");
            ExitCode::FAILURE
        }
    }
}

/// The commit of the tree that this runs in, if it is one.
fn commit() -> String {
    let asked = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    match asked {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".into(),
    }
}
