//! `granary load`: publishes tables as a new version of a store, or builds them from lines of text first.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use client::Fs;
use client::kv::{KvClient, ScanOptions};
use client::load::{
    Duplicates, Input, Options, Progress as Event, TsvOptions, load_tsv, publish_folder,
};
use proto::FsPath;
use proto::granary::ServerVersionState;

use crate::connect::Context;
use crate::failure::{Exit, Failure, Result};
use crate::fs::{Shell, is_folder};
use crate::output::Out;
use crate::progress::Progress;
use crate::units;

/// Options of `granary load`.
#[derive(clap::Args, Debug)]
pub struct LoadArgs {
    /// PATH is a folder of tables in the file system
    #[arg(long, conflicts_with = "tsv")]
    tables: bool,
    /// PATH is a local file of `key<TAB>value` lines
    #[arg(long)]
    tsv: bool,
    /// Only make the version ready; `granary store activate` switches to it
    #[arg(long)]
    no_activate: bool,
    /// Do not wait until the servers have it
    #[arg(long)]
    no_wait: bool,
    /// Versions that servers keep for a rollback; without it as the store has it
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep: u32,
    /// Accept tables that together do not cover every slot
    #[arg(long)]
    allow_gaps: bool,
    /// What to do with a key that comes twice in a TSV file
    #[arg(long, value_enum, default_value_t = OnDuplicate::Fail)]
    duplicates: OnDuplicate,
    /// Memory for sorting a TSV file
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes)]
    memory: Option<u64>,
    /// The store; made if it is new
    store: String,
    /// A folder of tables in the file system, a local TSV file, or `-` for TSV on standard input
    path: String,
}

/// What to do with a key that comes twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum OnDuplicate {
    /// Refuse the input
    Fail,
    /// Keep the first value
    First,
    /// Keep the last value
    Last,
}

/// What a load did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loaded {
    /// The version's number.
    pub version: u64,
    /// Its tables.
    pub tables: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their records.
    pub records: u64,
}

/// Runs `granary load`.
pub async fn run(args: &LoadArgs, context: &Context, out: &mut Out) -> Result<()> {
    let shell = Shell::connect(context).await?;
    let begun = Instant::now();
    let options = Options {
        activate: !args.no_activate,
        keep_versions: args.keep,
        allow_gaps: args.allow_gaps,
        wait: !args.no_wait,
        ..Options::default()
    };
    let mut watch = Watch::new(&args.store);
    match source(args, &shell).await? {
        Source::Tables(folder) => {
            publish_folder(&shell.fs, &args.store, &folder, options, |event| watch.note(event))
                .await?;
        }
        Source::Lines(input) => {
            let mut tsv = TsvOptions { publish: options, ..TsvOptions::default() };
            tsv.duplicates = match args.duplicates {
                OnDuplicate::Fail => Duplicates::Refuse,
                OnDuplicate::First => Duplicates::KeepFirst,
                OnDuplicate::Last => Duplicates::KeepLast,
            };
            if let Some(memory) = args.memory {
                tsv.sort_memory_bytes = usize::try_from(memory).unwrap_or(usize::MAX);
            }
            load_tsv(&shell.fs, &args.store, input, tsv, |event| watch.note(event)).await?;
        }
    }
    let loaded = watch.loaded;
    drop(watch);
    let state = match (args.no_wait, args.no_activate) {
        (true, _) => "published",
        (false, true) => "ready",
        (false, false) => "current",
    };
    out.line(format_args!(
        "{}: version {} is {state}: {}, {} in {}, after {}",
        args.store,
        loaded.version,
        units::count(loaded.records, "record"),
        units::bytes(loaded.bytes),
        units::count(loaded.tables, "table"),
        units::duration(begun.elapsed()),
    ))
}

enum Source {
    Tables(FsPath),
    Lines(Input),
}

/// What PATH means.
async fn source(args: &LoadArgs, shell: &Shell) -> Result<Source> {
    if args.path == "-" {
        return Ok(Source::Lines(Input::Reader(
            "standard input".into(),
            Box::new(std::io::stdin()),
        )));
    }
    let local = Path::new(&args.path);
    let lines = || Source::Lines(Input::File(PathBuf::from(&args.path)));
    let folder = shell.path(&args.path);
    if args.tsv {
        return Ok(lines());
    }
    if args.tables {
        return Ok(Source::Tables(folder?));
    }
    let in_cluster = match &folder {
        Ok(folder) => shell.fs.try_status(folder).await?.as_ref().is_some_and(is_folder),
        Err(_) => false, // a local path such as ../x
    };
    // A pipe such as that of `<(...)` is read as a file is.
    match (in_cluster, local.exists() && !local.is_dir()) {
        (true, false) => Ok(Source::Tables(folder?)),
        (false, true) => Ok(lines()),
        (true, true) => Err(Failure::usage(format!(
            "{}: is a folder in the file system, and a local file too",
            args.path
        ))
        .hint("--tables or --tsv says which is meant")),
        (false, false) => Err(Failure::new(
            Exit::NotFound,
            format!(
                "{}: neither a folder of tables in the file system nor a local file",
                args.path
            ),
        )),
    }
}

/// Follows a load: its bars, and what is known of the version.
struct Watch {
    store: String,
    progress: Progress,
    published: bool,
    loaded: Loaded,
}

impl Watch {
    fn new(store: &str) -> Self {
        let progress = Progress::spinner(&format!("load {store}"));
        Self { store: store.to_owned(), progress, published: false, loaded: Loaded::default() }
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Read { bytes, bytes_total, records } => {
                let of = bytes_total.map(|total| format!(" of {}", units::bytes(total)));
                self.progress.say(format!(
                    "sort {}{}, {}",
                    units::bytes(bytes),
                    of.unwrap_or_default(),
                    units::count(records, "record")
                ));
            }
            Event::Built { records, records_total } => self.progress.say(format!(
                "build {} of {}",
                units::number(records),
                units::count(records_total, "record")
            )),
            Event::Published { version, tables, bytes, records } => {
                self.loaded = Loaded { version, tables: tables as u64, bytes, records };
            }
            Event::Servers(servers) => {
                if !self.published {
                    self.published = true;
                    self.progress = Progress::bytes(&format!("fetch {}", self.store), 0);
                }
                let done = servers.iter().map(|server| server.bytes_done).sum();
                let total = servers.iter().map(|server| server.bytes_total).sum();
                self.progress.set(done, total);
                let verifying =
                    servers.iter().any(|server| server.state == ServerVersionState::Verifying);
                if verifying {
                    self.progress.say(format!("verify {}", self.store));
                }
            }
        }
    }
}

/// Publishes a folder of tables, switches to it, and waits until every server answers from it.
pub async fn publish(fs: &Fs, store: &str, folder: &FsPath) -> Result<Loaded> {
    let mut watch = Watch::new(store);
    let options =
        Options { wait_ms_max: Duration::from_secs(600).as_millis() as u64, ..Options::default() };
    publish_folder(fs, store, folder, options, |event| watch.note(event)).await?;
    Ok(watch.loaded)
}

/// The records of a store from a key on, in order.
pub async fn scan_from(
    fs: &Fs,
    store: &str,
    start: &'static str,
    limit: u64,
) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let client = KvClient::connect(fs, store).await?;
    let start = start.into();
    let mut scan = client.scan(ScanOptions { start, limit, ..ScanOptions::default() }).await?;
    let mut records = Vec::new();
    while let Some((key, value)) = scan.next().await? {
        records.push((key.to_vec(), value.to_vec()));
    }
    Ok(records)
}

/// The values of keys in one version.
pub async fn multi_get(
    fs: &Fs,
    store: &str,
    keys: &[Vec<u8>],
    version: u64,
) -> Result<Vec<Option<Vec<u8>>>> {
    let client = KvClient::connect(fs, store).await?.at_version(version);
    let values = client.multi_get(keys).await?;
    Ok(values.into_iter().map(|value| value.map(|value| value.to_vec())).collect())
}
