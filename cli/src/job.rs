//! `granary job`: batch jobs over files, with the jobs that the library brings or with commands of the user.
//!
//! The output appears when the job is complete, or not at all; Ctrl-C cancels and leaves nothing visible.

use std::path::PathBuf;
use std::time::Duration;

use client::Fs;
use client::job::builtin::{
    AccessLogOptions, IndexOptions, IndexUnit, TopTermsOptions, access_log, inverted_index,
    top_terms,
};
use client::job::{Cancel, Cleaned, Existing, Job, JobReport, Phase, Progress as State};

use crate::connect::Context;
use crate::failure::{Exit, Failure, Result};
use crate::fs::Shell;
use crate::output::{Align, Out, Table};
use crate::progress::Progress;
use crate::signals::Stop;
use crate::units;

/// How often the bar is moved.
const TICK: Duration = Duration::from_millis(100);

/// The commands of `granary job`.
#[derive(clap::Subcommand, Debug)]
pub enum JobCommand {
    /// Which documents hold a term, and how often; `_top` has the most frequent terms
    InvertedIndex(IndexArgs),
    /// How often each term is used; `top:0001` ... has the most frequent ones
    TopTerms(TopArgs),
    /// Hits, bytes and statuses of the paths in web logs; `_top`, `_total` and `_status:NNN` have sums
    AccessLog(TopArgs),
    /// Map and reduce by shell commands: lines in, `key<TAB>value` lines out
    Run(RunArgs),
    /// Remove what jobs left that were killed
    Clean(CleanArgs),
}

/// What every job takes.
#[derive(clap::Args, Debug)]
pub struct Common {
    /// The new folder of the output
    #[arg(short, long, value_name = "DIR")]
    output: String,
    /// Replace the output if it exists, when the new one is complete
    #[arg(long)]
    overwrite: bool,
    /// Files of the output, one for each range of slots
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(proto::limits::SLOTS)))]
    partitions: u16,
    /// Memory for sorting; what does not fit goes to local disk
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = units::parse_bytes)]
    memory: u64,
    /// Threads; without it one for each core
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The local folder for what does not fit in memory
    #[arg(long, value_name = "DIR")]
    temp_dir: Option<PathBuf>,
    /// Print what the job did as JSON
    #[arg(long)]
    json: bool,
}

/// Options of `granary job inverted-index`.
#[derive(clap::Args, Debug)]
pub struct IndexArgs {
    #[command(flatten)]
    common: Common,
    /// Lines are the documents, not files
    #[arg(long)]
    lines: bool,
    /// Documents that are listed for a term; all are counted
    #[arg(long, value_name = "N", default_value_t = IndexOptions::default().postings_max)]
    postings: usize,
    /// Terms in the list of the most frequent
    #[arg(long, value_name = "N", default_value_t = IndexOptions::default().top)]
    top: usize,
    /// Input files and folders of the file system; patterns match
    #[arg(required = true)]
    paths: Vec<String>,
}

/// Options of `granary job top-terms` and `access-log`.
#[derive(clap::Args, Debug)]
pub struct TopArgs {
    #[command(flatten)]
    common: Common,
    /// Entries of the list
    #[arg(long, value_name = "N", default_value_t = TopTermsOptions::default().top)]
    top: usize,
    /// Input files and folders of the file system; patterns match
    #[arg(required = true)]
    paths: Vec<String>,
}

/// Options of `granary job run`.
#[derive(clap::Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    common: Common,
    /// The shell command that maps: gets a part of the input; without it, lines are passed on
    #[arg(long, value_name = "COMMAND")]
    map: Option<String>,
    /// The shell command that reduces: gets lines sorted by key; without it, records are passed on
    #[arg(long, value_name = "COMMAND")]
    reduce: Option<String>,
    /// What the input is
    #[arg(long, value_enum, default_value_t = InputKind::Lines)]
    input: InputKind,
    /// Write text files instead of tables
    #[arg(long)]
    text: bool,
    /// Input files and folders of the file system; patterns match
    #[arg(required = true)]
    paths: Vec<String>,
}

/// What a record of the input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum InputKind {
    /// A line of a file
    Lines,
    /// A whole file
    Documents,
    /// A record of a table
    Tables,
}

/// Options of `granary job clean`.
#[derive(clap::Args, Debug)]
pub struct CleanArgs {
    /// The folder that holds the jobs' outputs
    folder: String,
}

/// Runs `granary job`.
pub async fn run(command: &JobCommand, context: &Context, out: &mut Out) -> Result<()> {
    let shell = Shell::connect(context).await?;
    match command {
        JobCommand::InvertedIndex(args) => {
            let unit = if args.lines { IndexUnit::Lines } else { IndexUnit::Files };
            let options = IndexOptions {
                unit,
                postings_max: args.postings,
                top: args.top,
                ..IndexOptions::default()
            };
            let job = inverted_index(shell.expand_all(&args.paths).await?, options);
            args.common.run_tables(job, &shell, out).await
        }
        JobCommand::TopTerms(args) => {
            let options = TopTermsOptions { top: args.top, ..TopTermsOptions::default() };
            let job = top_terms(shell.expand_all(&args.paths).await?, options);
            args.common.run_tables(job, &shell, out).await
        }
        JobCommand::AccessLog(args) => {
            let options = AccessLogOptions { top: args.top };
            let job = access_log(shell.expand_all(&args.paths).await?, options);
            args.common.run_tables(job, &shell, out).await
        }
        JobCommand::Run(args) => streaming(args, &shell, out).await,
        JobCommand::Clean(args) => clean(args, &shell, out).await,
    }
}

impl Common {
    /// The job with these settings.
    fn apply(&self, job: Job) -> Job {
        let memory = usize::try_from(self.memory).unwrap_or(usize::MAX);
        let existing = if self.overwrite { Existing::Overwrite } else { Existing::Refuse };
        let mut job =
            job.partitions(usize::from(self.partitions)).memory_bytes(memory).existing(existing);
        if let Some(threads) = self.threads {
            job = job.threads(threads);
        }
        if let Some(folder) = &self.temp_dir {
            job = job.temp_dir(folder);
        }
        job
    }

    /// Runs a job that writes tables, and prints what it did.
    async fn run_tables(&self, job: Job, shell: &Shell, out: &mut Out) -> Result<()> {
        let output = shell.path(&self.output)?;
        self.run(job.output_tables(output), shell, out).await
    }

    /// Runs a job and prints what it did.
    async fn run(&self, job: Job, shell: &Shell, out: &mut Out) -> Result<()> {
        let report =
            follow(self.apply(job), &shell.fs).await.map_err(|failure| match failure.exit {
                Exit::Conflict if !self.overwrite => failure.hint("--overwrite replaces it"),
                _ => failure,
            })?;
        if self.json { out.json(&report) } else { print(&report, out) }
    }
}

async fn streaming(args: &RunArgs, shell: &Shell, out: &mut Out) -> Result<()> {
    let paths = shell.expand_all(&args.paths).await?;
    let output = shell.path(&args.common.output)?;
    let mut job = Job::new("run");
    job = match args.input {
        InputKind::Lines => job.input_lines(paths),
        InputKind::Documents => job.input_documents(paths),
        InputKind::Tables => job.input_tables(paths),
    };
    job = match &args.map {
        Some(command) => job.map_command(command),
        None => job.map(|record, out| {
            let (key, value) = match record.value.iter().position(|byte| *byte == b'\t') {
                Some(tab) if record.key.is_empty() => {
                    (&record.value[..tab], &record.value[tab + 1..])
                }
                None if record.key.is_empty() => (record.value, &[][..]),
                _ => (record.key, record.value),
            };
            out.emit(key, value)
        }),
    };
    if let Some(command) = &args.reduce {
        job = job.reduce_command(command);
    }
    job = if args.text { job.output_text(output) } else { job.output_tables(output) };
    args.common.run(job, shell, out).await
}

async fn clean(args: &CleanArgs, shell: &Shell, out: &mut Out) -> Result<()> {
    let folder = shell.path(&args.folder)?;
    for done in client::job::clean(&shell.fs, &folder).await? {
        match done {
            Cleaned::Deleted(path) => out.line(format_args!("deleted {path}"))?,
            Cleaned::Restored(path) => out.line(format_args!("restored {path}"))?,
        }
    }
    Ok(())
}

/// Runs a job with a bar; Ctrl-C and SIGTERM cancel it.
pub async fn follow(job: Job, fs: &Fs) -> Result<JobReport> {
    let (state, cancel) = (State::new(), Cancel::new());
    let mut stop = Stop::listen().map_err(|error| Failure::io("listen for signals", &error))?;
    let running = job.cancelled_by(cancel.clone()).run(fs, &state);
    tokio::pin!(running);
    let mut bar = Progress::spinner("plan");
    let mut shown = Phase::Plan;
    let mut interrupted = false;
    loop {
        tokio::select! {
            result = &mut running => {
                return match result {
                    Err(_) if interrupted => Err(Failure::silent(Exit::Interrupted)),
                    result => Ok(result?),
                };
            }
            _ = stop.next(), if !interrupted => {
                interrupted = true;
                cancel.cancel();
                bar.say("cancelling");
            }
            () = tokio::time::sleep(TICK) => {}
        }
        let now = state.snapshot();
        if now.phase != shown {
            shown = now.phase;
            bar = match shown {
                Phase::Map => Progress::bytes("map", now.input_bytes_total),
                Phase::Reduce => Progress::items("reduce", now.shuffled_records_total),
                _ => Progress::spinner(shown.name()),
            };
        }
        match shown {
            Phase::Map => bar.set(now.input_bytes_done, now.input_bytes_total),
            Phase::Reduce => bar.set(now.shuffled_records_done, now.shuffled_records_total),
            _ => {}
        }
    }
}

fn print(report: &JobReport, out: &mut Out) -> Result<()> {
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    let mut row = |name: &str, value: String| table.row(vec![name.to_owned(), value]);
    row("job", format!("{}, on {}", report.name, units::count(report.threads as u64, "thread")));
    row(
        "input",
        format!(
            "{}, {}, {}",
            units::count(report.input_files, "file"),
            units::bytes(report.input_bytes),
            units::count(report.input_records, "record")
        ),
    );
    row(
        "mapped",
        format!(
            "{}, {}",
            units::count(report.mapped_records, "record"),
            units::bytes(report.mapped_bytes)
        ),
    );
    if report.spills > 0 {
        let spilled = units::bytes(report.spilled_bytes);
        row("sorted on disk", format!("{spilled} in {}", units::count(report.spills, "run")));
    }
    row(
        "output",
        format!(
            "{}, {}, {} in {}",
            units::count(report.output_records, "record"),
            units::bytes(report.output_bytes),
            units::count(report.parts.len() as u64, "file"),
            report.output
        ),
    );
    for (name, count) in &report.counters {
        row(name, units::number(*count));
    }
    let times = &report.times;
    row(
        "time",
        format!(
            "{} (plan {}, map {}, reduce {}, commit {}), {}",
            units::duration(report.elapsed),
            units::duration(times.plan),
            units::duration(times.map),
            units::duration(times.reduce),
            units::duration(times.commit),
            units::byte_rate(report.input_bytes, report.elapsed)
        ),
    );
    table.print(out)
}
