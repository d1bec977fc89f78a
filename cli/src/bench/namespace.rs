//! `granary bench namespace`: the NameNode's core filled with one-block files, without a network.

use std::path::PathBuf;
use std::time::Duration;

use namenode::NamespaceReport;
use serde_json::json;

use super::{Folder, units};
use crate::failure::{Exit, Failure, Result};
use crate::output::{Align, Out, Table};
use crate::progress::Progress;

/// Options of `granary bench namespace`.
#[derive(clap::Args, Debug)]
pub struct NamespaceArgs {
    /// One-block files to fill the core with
    #[arg(long, value_name = "N", default_value_t = 10_000_000,
          value_parser = clap::value_parser!(u64).range(1_000..=1_000_000_000))]
    files: u64,
    /// Write the journal and the checkpoints here; without it, to a temporary folder. Removed at the end
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub async fn run(args: &NamespaceArgs, out: &mut Out) -> Result<()> {
    let folder = Folder::make(args.dir.as_deref())?;
    let (files, dir) = (args.files, folder.path().to_owned());
    let measured = tokio::task::spawn_blocking(move || {
        let progress = Progress::items("namespace", files);
        let mut tell = |phase: &'static str, done: u64, total: u64| {
            progress.say(phase);
            progress.set(done, total);
        };
        namenode::bench_namespace(files, &dir, &mut tell)
    });
    let ended = measured.await;
    let report = ended.map_err(|error| Failure::new(Exit::Failure, error.to_string()))??;
    if args.json { out.json(&told(&report)) } else { table(&report).print(out) }
}

fn told(report: &NamespaceReport) -> serde_json::Value {
    json!({
        "files": report.files,
        "operations": report.operations,
        "operations_per_second": report.applied_per_second(),
        "resident_bytes_per_file": report.resident_bytes_per_file,
        "accounted_bytes_per_file": report.accounted_bytes_per_file,
        "checkpoint_seconds": report.checkpoint.as_secs_f64(),
        "checkpoint_bytes": report.checkpoint_bytes,
        "checkpoint_of_changes_seconds": report.checkpoint_of_changes.as_secs_f64(),
        "checkpoint_of_changes_bytes": report.checkpoint_of_changes_bytes,
        "restart_seconds": report.restart.as_secs_f64(),
        "restart_seconds_per_million_files": per_million(report.restart, report.files),
        "journaled_per_second_1": report.journaled_per_second_1,
        "journaled_per_second_64": report.journaled_per_second_64,
        "replayed_per_second": report.replayed_per_second,
    })
}

fn per_million(time: Duration, files: u64) -> f64 {
    time.as_secs_f64() / files as f64 * 1e6
}

fn table(report: &NamespaceReport) -> Table {
    let mut table = Table::new(&[("", Align::Left), ("", Align::Right), ("", Align::Left)]);
    let mut row = |what: &str, value: String, more: String| {
        table.row(vec![what.to_owned(), value, more]);
    };
    let bytes = |value: f64| format!("{value:.0} B");
    let each = |value: f64| format!("{}/s", units::number(value as u64));
    let written = |bytes: u64| format!("{} written", units::bytes(bytes));
    row("one-block files", units::number(report.files), String::new());
    row(
        "memory per file",
        bytes(report.resident_bytes_per_file),
        format!("of which accounted for: {}", bytes(report.accounted_bytes_per_file)),
    );
    row("operations applied", each(report.applied_per_second()), "one thread, in memory".into());
    row("operations made durable", each(report.journaled_per_second_1), "1 caller".into());
    row("", each(report.journaled_per_second_64), "64 callers".into());
    row("operations replayed", each(report.replayed_per_second), "at a restart".into());
    let time = units::duration;
    row("checkpoint of everything", time(report.checkpoint), written(report.checkpoint_bytes));
    row(
        "checkpoint of 1 % changes",
        time(report.checkpoint_of_changes),
        written(report.checkpoint_of_changes_bytes),
    );
    row(
        "restart from a checkpoint",
        time(report.restart),
        format!("{:.2} s per million files", per_million(report.restart, report.files)),
    );
    table
}
