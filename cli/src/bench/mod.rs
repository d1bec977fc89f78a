//! `granary bench`: what the cluster does per second, beside what this machine gives in the same run.
//!
//! Each round measures the machine (disk, memory, loopback), then the same work through Granary's client and, with
//! `--reference`, through another file system's; medians over the rounds are told, and their ratios. Without `--cluster`
//! an embedded cluster is started on free ports in a temporary folder; what was written is deleted at the end.
//!
//! | module | owns |
//! |---|---|
//! | [`figures`] | what is measured beside what, medians, the table and the JSON |
//! | [`machine`] | disk, memory, loopback |
//! | [`target`] | the file system that is measured |
//! | [`files`] | large and small files, calls to the NameNode |
//! | [`tables`] | sort, tables, gets, jobs |
//! | [`erasure`] | `granary bench erasure`: coding per core, striped files beside replicated ones |
//! | [`namespace`] | `granary bench namespace` |
//! | [`hadoop`] | `granary bench hadoop`: one client of HDFS's protocols, against Granary and another server |
//!
//! A figure of a debug build tells nothing about speed: the output says so.

mod erasure;
mod figures;
mod files;
mod hadoop;
mod machine;
mod namespace;
mod tables;
mod target;

use std::path::{Path, PathBuf};

use client::Fs;
use proto::FsPath;
use serde_json::json;

use self::figures::Figures;
use self::tables::Served;
use self::target::Target;
use crate::connect::Context;
use crate::embedded::{Cluster, Ports};
use crate::failure::{Exit, Failure, Result};
use crate::output::{Out, note};
use crate::progress::Progress;
use crate::roles::listen;
use crate::units;

/// Bytes of a small file.
const SMALL_FILE_BYTES: usize = 4 << 10;

/// Options of `granary bench`.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// A quick run that shows that everything works; its figures mean little
    #[arg(long)]
    small: bool,
    /// Rounds; the medians are told
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    rounds: Option<u64>,
    /// Size of the large file
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes)]
    bytes: Option<u64>,
    /// Put the embedded cluster, and the files that stand for this machine's disk, here; without it, into a temporary
    /// folder. What was written is removed at the end
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// DataNodes of the embedded cluster
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=64))]
    datanodes: u64,
    /// Do the same work through another file system that speaks HDFS's protocols
    #[arg(long, value_name = "hdfs://HOST:PORT")]
    reference: Option<String>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Fill the NameNode's core: memory per file, operations, checkpoint, restart
    Namespace(namespace::NamespaceArgs),
    /// Measure erasure coding: encode and decode per core, striped files beside replicated ones
    Erasure(erasure::ErasureArgs),
    /// Measure Granary's `hdfs://` with a client of HDFS, and another server with the same client
    Hadoop(hadoop::HadoopArgs),
}

/// How much work a round is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    rounds: u64,
    /// Of the large file; whole mebibytes.
    bytes: u64,
    /// Small files.
    files: u64,
    /// Calls that change nothing; those that change something are a quarter.
    calls: u64,
    /// Records of a table.
    records: u64,
    /// Text that a job reads.
    text_bytes: u64,
}

impl Size {
    const SMALL: Self = Self {
        rounds: 1,
        bytes: 8 << 20,
        files: 32,
        calls: 256,
        records: 20_000,
        text_bytes: 1 << 20,
    };
    const USUAL: Self = Self {
        rounds: 5,
        bytes: 256 << 20,
        files: 512,
        calls: 4_096,
        records: 1_000_000,
        text_bytes: 64 << 20,
    };

    fn of(args: &BenchArgs) -> Self {
        let usual = if args.small { Self::SMALL } else { Self::USUAL };
        let bytes = args.bytes.unwrap_or(usual.bytes).max(1 << 20) >> 20 << 20;
        Self { rounds: args.rounds.unwrap_or(usual.rounds), bytes, ..usual }
    }
}

/// Runs `granary bench`.
pub async fn run(args: &BenchArgs, context: &Context, out: &mut Out) -> Result<()> {
    match &args.what {
        Some(What::Namespace(args)) => return namespace::run(args, out).await,
        Some(What::Erasure(args)) => return erasure::run(args, context, out).await,
        Some(What::Hadoop(args)) => return hadoop::run(args, context, out).await,
        None => {}
    }
    let size = Size::of(args);
    let url = args.reference.as_deref();
    let user = context.client_config()?.user;
    let reference = url.map(|url| Target::reference(url, &user)).transpose()?;
    let mut stop = listen()?;
    let folder = Folder::make(args.dir.as_deref())?;
    let cluster = cluster(context, &folder, args.datanodes as usize).await?;
    let measured = tokio::select! {
        measured = measure(reference, &size, context, cluster.as_ref(), &folder) => measured,
        _ = stop.next() => Err(Failure::silent(Exit::Interrupted)),
    };
    let stopped = match cluster {
        Some(cluster) => cluster.stop().await,
        None => Ok(()),
    };
    let figures = measured?;
    print(&figures, args, &size, out)?;
    stopped
}

/// A cluster of our own, unless one was named.
async fn cluster(context: &Context, folder: &Folder, nodes: usize) -> Result<Option<Cluster>> {
    if context.cluster.is_some() {
        return Ok(None);
    }
    let dir = folder.path().join("cluster");
    let _shown = Progress::spinner("starting a cluster");
    Ok(Some(Cluster::start(&context.settings, &dir, nodes, Ports::Free).await?))
}

/// How to reach it, or the one that was named.
fn client_config(context: &Context, cluster: Option<&Cluster>) -> Result<client::Config> {
    let Some(cluster) = cluster else { return context.client_config() };
    let mut config: client::Config = context.settings.role("client")?;
    config.namenode.clone_from(&cluster.file().namenode);
    Ok(config)
}

/// All rounds.
async fn measure(
    reference: Option<Target>,
    size: &Size,
    context: &Context,
    cluster: Option<&Cluster>,
    folder: &Folder,
) -> Result<Figures> {
    let mut config = client_config(context, cluster)?;
    let fs = Fs::connect(config.clone()).await?;
    config.short_circuit = false;
    let over_tcp = Target::Granary(Fs::connect(config).await?);
    let own = FsPath::parse(&format!("/granary-bench-{}", uuid::Uuid::new_v4().simple()))?;
    let store = format!("bench-{}", &own.as_str()[15..23]);
    let redis = redis_addr(&fs, cluster).await?;
    let bench = Bench {
        served: Served { redis: &redis, store: &store },
        granary: Target::Granary(fs.clone()),
        fs,
        over_tcp,
        reference,
        local: folder.path(),
        own,
        size,
    };
    let figures = bench.rounds().await;
    let cleaned = bench.clean().await;
    let figures = figures?;
    cleaned?;
    Ok(figures)
}

/// Where a kvserve of the cluster answers.
async fn redis_addr(fs: &Fs, cluster: Option<&Cluster>) -> Result<String> {
    if let Some(cluster) = cluster {
        return Ok(cluster.file().redis.clone());
    }
    let status = fs.cluster_status().await?;
    let alive = status.kvservers.into_iter().filter(|node| node.alive);
    let address = alive.filter_map(|node| node.address).next().ok_or_else(|| {
        Failure::new(Exit::Unreachable, "the cluster has no kvserve that answers")
    })?;
    Ok(format!("{}:{}", address.host, address.redis_port))
}

/// What all rounds share.
struct Bench<'a> {
    fs: Fs,
    granary: Target,
    over_tcp: Target,
    reference: Option<Target>,
    served: Served<'a>,
    local: &'a Path,
    own: FsPath,
    size: &'a Size,
}

impl Bench<'_> {
    async fn rounds(&self) -> Result<Figures> {
        let mut figures = Figures::default();
        let progress = Progress::items("bench", self.size.rounds);
        self.fs.mkdirs(&self.own, 0o755).await?;
        progress.say("texts");
        tables::store_texts(&self.fs, &self.own, self.size).await?;
        for round in 0..self.size.rounds {
            progress.set(round, self.size.rounds);
            self.round(round, &progress, &mut figures).await?;
        }
        Ok(figures)
    }

    async fn round(&self, round: u64, progress: &Progress, figures: &mut Figures) -> Result<()> {
        let Figures { machine, granary, reference } = figures;
        progress.say("this machine");
        tokio::task::block_in_place(|| machine::measure(self.local, self.size, machine))?;
        let folder = self.own.join("files")?;
        let over_tcp = Some(&self.over_tcp);
        files::measure(&self.granary, over_tcp, &folder, self.size, progress, granary).await?;
        if let Some(target) = &self.reference {
            let values = reference.get_or_insert_default();
            files::measure(target, None, &self.own, self.size, progress, values).await?;
        }
        progress.say("tables");
        let table = self.local.join("table");
        tokio::task::block_in_place(|| tables::local(&table, self.size, granary))?;
        if round == 0 {
            let folder = self.own.join("tables")?;
            tables::publish(&self.fs, self.served, &table, &folder).await?;
        }
        progress.say("gets");
        tables::redis(self.served, self.size, granary).await?;
        tables::index(&self.fs, &self.own, progress, granary).await
    }

    /// Removes what was written to the cluster.
    async fn clean(&self) -> Result<()> {
        let catalogue = self.fs.catalogue();
        let known = catalogue.list_stores().await?;
        if known.iter().any(|store| store.name == self.served.store) {
            catalogue.delete_store(self.served.store).await?;
        }
        self.granary.delete(&self.own).await
    }
}

fn print(figures: &Figures, args: &BenchArgs, size: &Size, out: &mut Out) -> Result<()> {
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    if args.json {
        return out.json(&json!({
            "build": build,
            "small": args.small,
            "rounds": size.rounds,
            "file_bytes": size.bytes,
            "datanodes": args.datanodes,
            "machine": figures.machine_told(),
            "granary": figures.granary_told(),
            "reference": figures.reference_told(),
        }));
    }
    figures.table().print(out)?;
    out.line(format_args!(
        "\nMedians of {}; the large file has {}. A file that Granary closed is on stable storage on\n\
         every replica, and a call that it answered is on stable storage.",
        units::count(size.rounds, "round"),
        units::bytes(size.bytes),
    ))?;
    if build == "debug" {
        out.line("This is a debug build: its figures tell nothing about speed.")?;
    }
    Ok(())
}

/// A local folder that is removed at the end.
struct Folder {
    path: PathBuf,
}

impl Folder {
    /// A new folder in `parent`, or in the system's folder for temporary files.
    fn make(parent: Option<&Path>) -> Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = parent.join(format!("granary-bench-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&path).map_err(|error| Failure::io(path.display(), &error))?;
        Ok(Self { path })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            note(format_args!("granary: {} is left behind: {error}", self.path.display()));
        }
    }
}

/// A number that looks random, the same for the same index (SplitMix64's finaliser).
fn mixed(index: u64) -> u64 {
    let mut z = index.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Bytes that do not compress.
fn noise(bytes: usize) -> Vec<u8> {
    let mut noise: Vec<u8> =
        (0..bytes.div_ceil(8) as u64).flat_map(|i| mixed(i).to_le_bytes()).collect();
    noise.truncate(bytes);
    noise
}
