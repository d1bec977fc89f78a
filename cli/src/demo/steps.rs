//! The steps of the main job, one function each. What a later step needs of an earlier one is in [`Work`].

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use client::Fs;
use client::job::builtin::{IndexOptions, TOP_KEY, inverted_index};
use proto::FsPath;

use super::input::{Input, TextFile};
use super::report::{Report, Step};
use super::traffic::{Answer, Tally, Traffic};
use crate::connect::Context;
use crate::embedded::{Cluster, Ports};
use crate::failure::{Exit, Failure, Result};
use crate::fs::Shell;
use crate::fs::put::{Item, Plan};
use crate::fs::transfer::{Existing, Layout, Transfers};
use crate::output::{Out, printable};
use crate::progress::Progress;
use crate::resp::RespClient;
use crate::{job, load, store, units};

/// The store that the demo serves.
pub const STORE: &str = "index";
/// One of so many files is changed for version 2.
const CHANGED_ONE_IN: usize = 8;
/// A term that no input holds: version 2 has it, version 1 has not.
const NEW_TERM: &str = "granaryversiontwo";
/// Background queries ask at once for the first fitting word from each of these on.
const PROBE_STARTS: [&str; 8] = ["ba", "co", "de", "fo", "in", "pa", "re", "st"];
/// Probes have values of at most so many bytes, so that the network does not hide the lookup.
const PROBE_VALUE_BYTES_MAX: usize = 512;
/// Records looked at to find a probe.
const PROBE_CANDIDATES_MAX: u64 = 2_000;
/// A word that most inputs hold, and that means something to everybody.
const EXAMPLE: &str = "error";
/// How long queries run before and after a switch.
const QUERY_TIME: Duration = Duration::from_millis(1_500);
const CONNECTIONS: usize = 2;
/// What is shown of an answer.
const ANSWER_LINES: usize = 6;
const ANSWER_CHARS: usize = 100;
/// Small files in flight at the same time.
const STORE_PARALLEL: usize = 16;

/// What is known after the steps so far.
#[derive(Default)]
pub struct Work {
    report: Report,
    probes: Vec<Vec<u8>>,
    old: Answer,
    new: Answer,
    /// A term that the user can ask for.
    example: String,
}

fn path(text: &str) -> FsPath {
    FsPath::parse(text).expect("a constant path")
}

fn tables(version: u64) -> FsPath {
    path(&format!("/demo/index-{version}"))
}

impl Work {
    /// Starts the cluster.
    pub async fn start(
        &mut self,
        context: &Context,
        dir: &Path,
        datanodes: usize,
        ports: Ports,
        out: &mut Out,
    ) -> Result<Cluster> {
        out.line(format_args!("Granary demo, data in {}\n", dir.display()))?;
        let begun = Instant::now();
        let progress = Progress::spinner("starting a cluster");
        let cluster = Cluster::start(&context.settings, dir, datanodes, ports).await?;
        drop(progress);
        let amount =
            format!("1 NameNode, {}, 1 kvserve", units::count(datanodes as u64, "DataNode"));
        self.done("start", amount, begun, String::new(), out)?;
        Ok(cluster)
    }

    fn done(
        &mut self,
        name: &'static str,
        amount: String,
        begun: Instant,
        rate: String,
        out: &mut Out,
    ) -> Result<()> {
        self.report.done(Step { name, amount, time: begun.elapsed(), rate }, out)
    }

    /// Everything after the start.
    pub async fn main_job(
        &mut self,
        cluster: &Cluster,
        context: &Context,
        input: &Input,
        out: &mut Out,
    ) -> Result<()> {
        let mut config: client::Config = context.settings.role("client")?;
        config.namenode.clone_from(&cluster.file().namenode);
        let fs = Fs::connect(config).await?;
        let user = fs.user().to_owned();
        let shell = Shell { fs, user };
        // A folder that an earlier demo used holds its files and versions.
        shell.fs.delete(&path("/demo"), client::Recursion::Yes).await?;
        self.store_input(&shell, input, out).await?;
        self.build(&shell, 1, out).await?;
        let first = self.load(&shell, 1, out).await?;
        self.choose_probes(&shell).await?;
        self.show_answers(cluster, out).await?;
        self.query(cluster, out).await?;
        self.change_input(&shell, input, out).await?;
        self.build(&shell, 2, out).await?;
        let second = self.switch(cluster, &shell, first, out).await?;
        self.roll_back(cluster, &shell, first, second, out).await?;
        out.line("\nMeasured in this run:\n")?;
        self.report.print(out)
    }

    async fn store_input(&mut self, shell: &Shell, input: &Input, out: &mut Out) -> Result<()> {
        let begun = Instant::now();
        let items = input.files.iter().map(|file| item(file, file.local.clone(), file.bytes));
        put(shell, "store files", items.collect::<Result<_>>()?).await?;
        let files = input.files.len() as u64;
        let cut = if input.cut { " (more was there: --max-bytes)" } else { "" };
        let amount = format!(
            "{}, {} from {}{cut}",
            units::count(files, "file"),
            units::bytes(input.bytes),
            input.from
        );
        let time = begun.elapsed();
        let rate = format!("{}, {}", units::byte_rate(input.bytes, time), units::rate(files, time));
        self.done("store files", amount, begun, rate, out)
    }

    /// Runs the job over the input as it is now.
    async fn build(&mut self, shell: &Shell, version: u64, out: &mut Out) -> Result<()> {
        let begun = Instant::now();
        let job = inverted_index([path("/demo/input")], IndexOptions::default());
        let built = job::follow(job.output_tables(tables(version)), &shell.fs).await?;
        let amount = format!(
            "{}, {} in; {}, {} in {} out",
            units::count(built.input_files, "file"),
            units::bytes(built.input_bytes),
            units::count(built.output_records, "term"),
            units::bytes(built.output_bytes),
            units::count(built.parts.len() as u64, "table"),
        );
        let rate = units::byte_rate(built.input_bytes, begun.elapsed());
        let name = if version == 1 { "index, version 1" } else { "index, version 2" };
        self.done(name, amount, begun, rate, out)
    }

    async fn load(&mut self, shell: &Shell, version: u64, out: &mut Out) -> Result<u64> {
        let begun = Instant::now();
        let loaded = load::publish(&shell.fs, STORE, &tables(version)).await?;
        let amount = format!(
            "{} in {}, fetched, verified and serving as version {}",
            units::bytes(loaded.bytes),
            units::count(loaded.tables, "table"),
            loaded.version
        );
        let rate = units::byte_rate(loaded.bytes, begun.elapsed());
        let name = if version == 1 { "load, version 1" } else { "load and switch" };
        self.done(name, amount, begun, rate, out)?;
        Ok(loaded.version)
    }

    /// What the user can type next.
    pub fn next_commands(
        &self,
        cluster: &Cluster,
        dir: &Path,
        stays: bool,
        out: &mut Out,
    ) -> Result<()> {
        let file = cluster.file();
        let port = file.redis.rsplit_once(':').map_or("", |(_, port)| port);
        let (program, term) = (crate::program::called(), &self.example);
        if !stays {
            out.line(format_args!(
                "\nTo look around in a cluster that stays: {program} demo --keep, then"
            ))?;
            return out.line(format_args!("  {program} get {STORE} {term}"));
        }
        let option = crate::up::cluster_option(file, dir);
        out.line("\nThe cluster goes on until Ctrl-C. Type next, in another terminal:")?;
        out.line(format_args!("  {program} {option}get {STORE} {term}"))?;
        out.line(format_args!("  redis-cli -p {port} GET {term}"))?;
        out.line(format_args!("  {program} {option}store versions {STORE}"))?;
        out.line(format_args!("  {program} {option}fs ls /demo"))
    }

    /// Words with short values, spread over the alphabet.
    async fn choose_probes(&mut self, shell: &Shell) -> Result<()> {
        let plain = |key: &[u8]| key.len() >= 4 && key.iter().all(u8::is_ascii_lowercase);
        for start in PROBE_STARTS {
            let records = load::scan_from(&shell.fs, STORE, start, PROBE_CANDIDATES_MAX).await?;
            let fit = records.into_iter().find(|(key, value)| {
                plain(key) && value.len() <= PROBE_VALUE_BYTES_MAX && !self.probes.contains(key)
            });
            self.probes.extend(fit.map(|(key, _)| key));
        }
        if self.probes.is_empty() {
            let message = "the input holds no word of four letters to ask for";
            return Err(Failure::new(Exit::Failure, message));
        }
        Ok(())
    }

    /// The top list, and some terms.
    async fn show_answers(&mut self, cluster: &Cluster, out: &mut Out) -> Result<()> {
        let mut client = RespClient::connect(&cluster.file().redis).await?;
        let keys = [TOP_KEY.to_vec()].into_iter().chain(self.probes.iter().take(3).cloned());
        for key in keys {
            let begun = Instant::now();
            let value = client.get(&key).await?;
            let time = units::duration(begun.elapsed());
            let value = value.unwrap_or_default();
            let lines = value.split(|byte| *byte == b'\n').take(ANSWER_LINES);
            let shown: Vec<String> = lines.map(|line| printable(line).replace('\t', " ")).collect();
            let shown: String = shown.join(" | ").chars().take(ANSWER_CHARS).collect();
            out.line(format_args!("      GET {:<12} ({time}) {shown}", printable(&key)))?;
        }
        let common = client.get(EXAMPLE.as_bytes()).await?.map(|_| EXAMPLE.to_owned());
        self.example = common.unwrap_or_else(|| printable(&self.probes[0]));
        Ok(())
    }

    async fn query(&mut self, cluster: &Cluster, out: &mut Out) -> Result<()> {
        let begun = Instant::now();
        let mut client = RespClient::connect(&cluster.file().redis).await?;
        self.old = client.mget(&self.probes).await?;
        let traffic = self.traffic(cluster).await?;
        tokio::time::sleep(QUERY_TIME).await;
        let tally = traffic.finish(&self.old, &self.old).await;
        self.done(
            "queries",
            told(&tally),
            begun,
            units::rate(keys(&tally, &self.probes), tally.time),
            out,
        )?;
        sound(&tally)
    }

    async fn traffic(&self, cluster: &Cluster) -> Result<Traffic> {
        let addr = &cluster.file().redis;
        Ok(Traffic::start(addr, self.probes.clone(), CONNECTIONS).await?)
    }

    /// Part of the files get a line that changes what the probes should answer.
    async fn change_input(&mut self, shell: &Shell, input: &Input, out: &mut Out) -> Result<()> {
        let begun = Instant::now();
        let folder =
            std::env::temp_dir().join(format!("granary-change-{}", uuid::Uuid::new_v4().simple()));
        let changed = self.changed_files(&folder, input);
        let items = changed.map(|items| (items.iter().map(|item| item.bytes).sum(), items));
        let result = match items {
            Ok((bytes, items)) => {
                let files = items.len() as u64;
                put(shell, "change files", items).await.map(|()| (files, bytes))
            }
            Err(failure) => Err(failure),
        };
        // What could not be removed lies in the folder for temporary files.
        std::fs::remove_dir_all(&folder).ok();
        let (files, bytes): (u64, u64) = result?;
        let amount = format!("{}, {}", units::count(files, "file"), units::bytes(bytes));
        let rate = units::byte_rate(bytes, begun.elapsed());
        self.done("change files", amount, begun, rate, out)
    }

    fn changed_files(&self, folder: &Path, input: &Input) -> Result<Vec<Item>> {
        let fail = |path: &Path, error: &std::io::Error| Failure::io(path.display(), error);
        std::fs::create_dir_all(folder).map_err(|error| fail(folder, &error))?;
        let words: Vec<String> = self.probes.iter().map(|probe| printable(probe)).collect();
        let line = format!("\n{NEW_TERM} {}\n", words.join(" "));
        let mut items = Vec::new();
        for (index, file) in input.files.iter().step_by(CHANGED_ONE_IN).enumerate() {
            let mut text = std::fs::read(&file.local).map_err(|error| fail(&file.local, &error))?;
            text.extend_from_slice(line.as_bytes());
            let local: PathBuf = folder.join(index.to_string());
            std::fs::write(&local, &text).map_err(|error| fail(&local, &error))?;
            items.push(item(file, local, text.len() as u64)?);
        }
        Ok(items)
    }

    /// Loads version 2 while queries run.
    async fn switch(
        &mut self,
        cluster: &Cluster,
        shell: &Shell,
        first: u64,
        out: &mut Out,
    ) -> Result<u64> {
        let traffic = self.traffic(cluster).await?;
        let second = self.load(shell, 2, out).await?;
        tokio::time::sleep(QUERY_TIME).await;
        self.old = load::multi_get(&shell.fs, STORE, &self.probes, first).await?;
        self.new = load::multi_get(&shell.fs, STORE, &self.probes, second).await?;
        let tally = traffic.finish(&self.old, &self.new).await;
        if self.old == self.new {
            let message = "the probes answer alike in both versions: the change did not arrive";
            return Err(Failure::new(Exit::Failure, message));
        }
        let step = Step {
            name: "queries meanwhile",
            amount: told(&tally),
            time: tally.time,
            rate: units::rate(keys(&tally, &self.probes), tally.time),
        };
        self.report.done(step, out)?;
        sound(&tally)?;
        Ok(second)
    }

    /// Rolls back, while queries run too.
    async fn roll_back(
        &mut self,
        cluster: &Cluster,
        shell: &Shell,
        first: u64,
        second: u64,
        out: &mut Out,
    ) -> Result<()> {
        let traffic = self.traffic(cluster).await?;
        let begun = Instant::now();
        let catalogue = shell.fs.catalogue();
        let current = catalogue.activate(STORE, 0).await?.current;
        store::serving(&catalogue, STORE, current).await?;
        let time = begun.elapsed();
        if current != first {
            let message = format!("the rollback led to version {current}, not to {first}");
            return Err(Failure::new(Exit::Failure, message));
        }
        let amount = format!("version {second} to version {first}, on every server");
        self.report.done(Step { name: "roll back", amount, time, rate: String::new() }, out)?;
        tokio::time::sleep(QUERY_TIME / 3).await;
        let tally = traffic.finish(&self.old, &self.new).await;
        sound(&tally)
    }
}

/// Where a file goes.
fn item(file: &TextFile, local: PathBuf, bytes: u64) -> Result<Item> {
    let target = FsPath::parse(&format!("/demo/input/{}", file.name))?;
    Ok(Item { local, target, bytes, mode: 0o644 })
}

/// Stores files, replacing what is there.
async fn put(shell: &Shell, what: &str, files: Vec<Item>) -> Result<()> {
    let mut folders: Vec<FsPath> = files.iter().filter_map(|item| item.target.parent()).collect();
    folders.sort();
    folders.dedup();
    let progress = Progress::bytes(what, files.iter().map(|item| item.bytes).sum());
    let transfers = Transfers::new(shell, progress, Existing::Replace);
    let plan = Plan { folders, files };
    crate::fs::put::copy(&transfers, shell, plan, Layout::default(), STORE_PARALLEL).await
}

fn keys(tally: &Tally, probes: &[Vec<u8>]) -> u64 {
    tally.queries * probes.len() as u64
}

fn told(tally: &Tally) -> String {
    let versions = match (tally.old, tally.new) {
        (old, new) if old > 0 && new > 0 => {
            format!(
                " ({} old, {} new, {} mixed)",
                units::number(old),
                units::number(new),
                tally.mixed
            )
        }
        _ => String::new(),
    };
    format!(
        "{}{versions}, {}, p50 {}, p99 {}, slowest {}",
        units::count(tally.queries, "MGET"),
        units::count(tally.errors, "error"),
        units::duration(tally.p50),
        units::duration(tally.p99),
        units::duration(tally.slowest),
    )
}

/// No query failed, and none was answered from two versions.
fn sound(tally: &Tally) -> Result<()> {
    if tally.errors > 0 || tally.mixed > 0 {
        let message = format!(
            "{} of {} queries failed, {} mixed two versions; the first error: {}",
            tally.errors,
            tally.queries,
            tally.mixed,
            tally.first_error.as_deref().unwrap_or("none")
        );
        return Err(Failure::new(Exit::Failure, message));
    }
    Ok(())
}
