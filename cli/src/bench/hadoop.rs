//! `granary bench hadoop`: what clients of HDFS get, from Granary and from another server, by the same client in the
//! same rounds.
//!
//! The client is the crate hdfs-native, and whatever commands `--run` names (FsShell, Spark): `{fs}` in a command
//! becomes the URL of the file system, `{dir}` a folder of its own there. Without `--own` a cluster is started as a
//! process of its own, so that the processor time of the servers can be told from the client's.
//!
//! Processor time is what /proc says of the servers' processes, before and after.

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use bytes::Bytes;
use proto::FsPath;
use serde_json::json;

use super::Folder;
use super::figures::{Unit, Values, ratio, spread};
use super::files::{CHUNK_BYTES, Call, rate};
use super::target::Target;
use crate::connect::Context;
use crate::failure::{Exit, Failure, Result};
use crate::output::{Align, Out, Table};
use crate::progress::Progress;
use crate::units;

/// Callers at the same time.
const CALLERS: [usize; 3] = [1, 8, 64];
/// Clock ticks per second in /proc: the kernel's interface has it fixed at 100 on all that Granary runs on.
const TICKS_PER_SECOND: f64 = 100.0;
const GIB: f64 = (1u64 << 30) as f64;

/// Options of `granary bench hadoop`.
#[derive(clap::Args, Debug)]
pub struct HadoopArgs {
    /// Measure this Granary instead of starting one
    #[arg(long, value_name = "hdfs://HOST:PORT")]
    own: Option<String>,
    /// Processes of it, for their processor time
    #[arg(long, value_name = "PID,..", value_delimiter = ',', requires = "own")]
    own_pids: Vec<u32>,
    /// The server to compare with
    #[arg(long, value_name = "hdfs://HOST:PORT")]
    reference: Option<String>,
    /// Processes of it, for their processor time
    #[arg(long, value_name = "PID,..", value_delimiter = ',', requires = "reference")]
    reference_pids: Vec<u32>,
    /// Time a shell command with each, as NAME=COMMAND; {fs} and {dir} are filled in. May be repeated
    #[arg(long, value_name = "NAME=COMMAND", value_parser = parse_command)]
    run: Vec<(String, String)>,
    /// Size of the large file
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes, default_value = "1GiB")]
    bytes: u64,
    /// Calls that change nothing, for each number of callers; of those that change something a quarter is made
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(64..=100_000_000))]
    calls: u64,
    /// Rounds; the medians are told
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    rounds: u64,
    /// Where the cluster is started; without it, in a temporary folder. Removed at the end
    #[arg(long, value_name = "DIR", conflicts_with = "own")]
    dir: Option<std::path::PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

fn parse_command(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, command)) if !name.is_empty() && !command.is_empty() => {
            Ok((name.to_owned(), command.to_owned()))
        }
        _ => Err("expected NAME=COMMAND".to_owned()),
    }
}

/// What is measured, in the order in which it is shown.
const METRICS: &[(&str, &str, Unit)] = &[
    ("info_1", "getFileInfo, 1 caller", Unit::PerSecond),
    ("info_8", "getFileInfo, 8 callers", Unit::PerSecond),
    ("info_64", "getFileInfo, 64 callers", Unit::PerSecond),
    ("mkdirs_1", "mkdirs, 1 caller", Unit::PerSecond),
    ("mkdirs_8", "mkdirs, 8 callers", Unit::PerSecond),
    ("mkdirs_64", "mkdirs, 64 callers", Unit::PerSecond),
    ("create_1", "create + complete, 1 caller", Unit::PerSecond),
    ("create_8", "create + complete, 8 callers", Unit::PerSecond),
    ("create_64", "create + complete, 64 callers", Unit::PerSecond),
    ("put", "put", Unit::BytesPerSecond),
    ("put_cpu", "put: processor time of the servers per GiB", Unit::Seconds),
    ("get", "get", Unit::BytesPerSecond),
    ("get_cpu", "get: processor time of the servers per GiB", Unit::Seconds),
];

/// A server under measurement.
struct Server {
    url: String,
    target: Target,
    pids: Vec<u32>,
    values: Values,
    /// Wall time and processor time of each command, one pair of rows for each.
    commands: Vec<[Vec<f64>; 2]>,
}

impl Server {
    fn new(url: String, user: &str, pids: Vec<u32>, commands: usize) -> Result<Self> {
        let target = Target::reference(&url, user)?;
        let commands = vec![Default::default(); commands];
        Ok(Self { url, target, pids, values: Values::default(), commands })
    }

    /// Seconds of processor time that its processes took so far; `None` if none was named.
    fn cpu(&self) -> Result<Option<f64>> {
        if self.pids.is_empty() {
            return Ok(None);
        }
        self.pids.iter().map(|&pid| cpu_seconds(pid)).sum::<Result<f64>>().map(Some)
    }
}

/// Seconds that a process took, in user and kernel mode.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::io(&path, &error))?;
    // The name, in parentheses, may hold anything; behind it the fields are numbers, from the third on.
    let fields: Vec<&str> =
        text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    match (ticks(11), ticks(12)) {
        (Some(user), Some(system)) => Ok((user + system) / TICKS_PER_SECOND),
        _ => Err(Failure::new(Exit::Failure, format!("{path} does not tell the processor time"))),
    }
}

/// Runs `granary bench hadoop`.
pub async fn run(args: &HadoopArgs, context: &Context, out: &mut Out) -> Result<()> {
    let user = context.client_config()?.user;
    // Tells before anything is started if this build has no such client.
    Target::reference("hdfs://127.0.0.1:8020", &user)?;
    let reference = match &args.reference {
        Some(url) => {
            Some(Server::new(url.clone(), &user, args.reference_pids.clone(), args.run.len())?)
        }
        None => None,
    };
    let mut stop = crate::roles::listen()?;
    let folder = Folder::make(args.dir.as_deref())?;
    let started = match &args.own {
        Some(_) => None,
        None => Some(tokio::task::block_in_place(|| Started::new(folder.path()))?),
    };
    let (url, pids) = match (&args.own, &started) {
        (Some(url), _) => (url.clone(), args.own_pids.clone()),
        (None, Some(started)) => (started.url.clone(), vec![started.child.id()]),
        (None, None) => unreachable!("it is started if none is named"),
    };
    let own = Server::new(url, &user, pids, args.run.len())?;
    let mut servers: Vec<Server> = std::iter::once(own).chain(reference).collect();
    let measured = tokio::select! {
        measured = rounds(args, &mut servers) => measured,
        _ = stop.next() => Err(Failure::silent(Exit::Interrupted)),
    };
    tokio::task::block_in_place(|| drop(started));
    measured?;
    if args.json { out.json(&told(args, &servers)) } else { print(args, &servers, out) }
}

/// A cluster in a process of its own; it ends with this value.
struct Started {
    child: std::process::Child,
    url: String,
}

impl Started {
    fn new(folder: &Path) -> Result<Self> {
        let binary = std::env::current_exe()
            .map_err(|error| Failure::io("the path of this program", &error))?;
        let mut command = std::process::Command::new(&binary);
        command.args(["up", "--json", "--port-base", "0", "--dir"]).arg(folder.join("cluster"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let child = child.map_err(|error| Failure::io(binary.display(), &error))?;
        let mut started = Self { child, url: String::new() };
        let output = started.child.stdout.take().expect("it is piped");
        let mut told = serde_json::Deserializer::from_reader(output).into_iter();
        let addresses: serde_json::Value = match told.next() {
            Some(Ok(addresses)) => addresses,
            _ => {
                let message = "the cluster that was to be measured did not start";
                return Err(Failure::new(Exit::Unreachable, message));
            }
        };
        started.url = format!("hdfs://{}", addresses["hadoop_rpc"].as_str().unwrap_or_default());
        Ok(started)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            // It may be gone already, which waiting for it tells.
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
        if let Err(error) = self.child.wait() {
            crate::output::note(format_args!("granary: the cluster's process: {error}"));
        }
    }
}

async fn rounds(args: &HadoopArgs, servers: &mut [Server]) -> Result<()> {
    let progress = Progress::items("bench", args.rounds);
    for round in 0..args.rounds {
        progress.set(round, args.rounds);
        for server in servers.iter_mut() {
            progress.say(server.url.clone());
            let name = format!("/granary-bench-{}", uuid::Uuid::new_v4().simple());
            let folder = FsPath::parse(&name)?;
            server.target.mkdirs(&folder).await?;
            let measured = measure(args, server, &folder).await;
            // What could not be deleted is told only if nothing else went wrong.
            let deleted = server.target.delete(&folder).await;
            measured.and(deleted)?;
        }
    }
    Ok(())
}

async fn measure(args: &HadoopArgs, server: &mut Server, folder: &FsPath) -> Result<()> {
    for callers in CALLERS {
        let own = folder.join(&format!("callers-{callers}"))?;
        server.target.mkdirs(&own).await?;
        let kinds =
            [("info", Call::Info, 1), ("mkdirs", Call::Mkdirs, 4), ("create", Call::Create, 4)];
        for (name, kind, share) in kinds {
            let id = format!("{name}_{callers}");
            let id = METRICS.iter().find(|metric| metric.0 == id).expect("all are listed").0;
            // One caller alone makes fewer calls, which take as long.
            let count = (args.calls / share * callers.min(8) as u64 / 8).max(16);
            server.values.add(id, rate(&server.target, &own, kind, callers, count).await?);
        }
    }
    files(args, server, folder).await?;
    for (index, (_, command)) in args.run.iter().enumerate() {
        let dir = folder.join(&format!("command-{index}"))?;
        server.target.mkdirs(&dir).await?;
        let command = command.replace("{fs}", &server.url).replace("{dir}", dir.as_str());
        let (before, begun) = (server.cpu()?, Instant::now());
        tokio::task::block_in_place(|| shell(&command))?;
        let elapsed = begun.elapsed().as_secs_f64();
        server.commands[index][0].push(elapsed);
        if let (Some(before), Some(after)) = (before, server.cpu()?) {
            server.commands[index][1].push(after - before);
        }
    }
    Ok(())
}

async fn files(args: &HadoopArgs, server: &mut Server, folder: &FsPath) -> Result<()> {
    let path = folder.join("large")?;
    let chunk = Bytes::from(super::noise(CHUNK_BYTES));
    let times = (args.bytes / CHUNK_BYTES as u64).max(1);
    let bytes = times as f64 * CHUNK_BYTES as f64;
    for (id, cpu_id) in [("put", "put_cpu"), ("get", "get_cpu")] {
        let (before, begun) = (server.cpu()?, Instant::now());
        if id == "put" {
            server.target.write(&path, &chunk, times).await?;
        } else {
            server.target.read(&path).await?;
        }
        server.values.add(id, bytes / begun.elapsed().as_secs_f64());
        if let (Some(before), Some(after)) = (before, server.cpu()?) {
            server.values.add(cpu_id, (after - before) / bytes * GIB);
        }
    }
    Ok(())
}

/// Runs a command of the user's; what it says is shown only if it fails. Ctrl-C reaches it as well.
fn shell(command: &str) -> Result<()> {
    let ran = std::process::Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::io("sh", &error))?;
    if ran.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    let end: Vec<&str> = said.lines().rev().take(5).collect();
    let end: Vec<&str> = end.into_iter().rev().collect();
    let message = format!("--run: {command}: {}: {}", ran.status, end.join(" | "));
    Err(Failure::new(Exit::Failure, message))
}

/// One row: what, its unit, the values of each server.
type Row<'a> = (String, Unit, Vec<&'a [f64]>);

fn rows<'a>(args: &HadoopArgs, servers: &'a [Server]) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    for (id, what, unit) in METRICS {
        let values: Vec<_> = servers.iter().map(|server| server.values.of(id)).collect();
        rows.push(((*what).to_owned(), *unit, values));
    }
    for (index, (name, _)) in args.run.iter().enumerate() {
        for (at, what) in ["", ": processor time of the servers"].into_iter().enumerate() {
            let values = servers.iter().map(|server| &server.commands[index][at][..]).collect();
            rows.push((format!("{name}{what}"), Unit::Seconds, values));
        }
    }
    rows.retain(|(_, _, values)| values.iter().any(|values| !values.is_empty()));
    rows
}

fn told(args: &HadoopArgs, servers: &[Server]) -> serde_json::Value {
    let names = ["granary", "reference"];
    let rows: Vec<_> = rows(args, servers)
        .into_iter()
        .map(|(what, unit, values)| {
            let mut row = json!({ "what": what, "unit": unit });
            for (name, values) in names.iter().zip(values) {
                row[*name] = json!({ "median": super::figures::median(values), "rounds": values });
            }
            row
        })
        .collect();
    json!({ "rounds": args.rounds, "file_bytes": args.bytes, "rows": rows })
}

fn print(args: &HadoopArgs, servers: &[Server], out: &mut Out) -> Result<()> {
    let mut columns = vec![("", Align::Left), ("Granary", Align::Right), ("spread", Align::Right)];
    if servers.len() > 1 {
        columns.extend([("reference", Align::Right), ("ratio", Align::Right)]);
    }
    let mut table = Table::new(&columns);
    for (what, unit, values) in rows(args, servers) {
        let show = |value: Option<f64>| value.map_or("-".to_owned(), |value| unit.show(value));
        let medians: Vec<_> = values.iter().map(|values| super::figures::median(values)).collect();
        let mut row = vec![what, show(medians[0]), spread(values[0])];
        if let Some(reference) = medians.get(1) {
            row.push(show(*reference));
            row.push(match (medians[0], reference) {
                (Some(own), Some(reference)) => ratio(own, *reference),
                _ => "-".to_owned(),
            });
        }
        table.row(row);
    }
    table.print(out)?;
    out.line(format_args!(
        "\nMedians of {}, with one client of HDFS's protocols for both; the large file has {}.\n\
         Of seconds, less is better.",
        units::count(args.rounds, "round"),
        units::bytes(args.bytes),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_of_this_process_is_told_and_grows() {
        let pid = std::process::id();
        let before = cpu_seconds(pid).unwrap();
        let mut x = 1u64;
        while cpu_seconds(pid).unwrap() < before + 0.02 {
            x = std::hint::black_box(super::super::mixed(x));
        }
        assert!(cpu_seconds(u32::MAX).is_err());
    }

    #[test]
    fn a_command_has_a_name() {
        assert_eq!(parse_command("a=b=c"), Ok(("a".into(), "b=c".into())));
        for bad in ["", "a", "=b", "a="] {
            assert!(parse_command(bad).is_err(), "{bad:?}");
        }
    }
}
