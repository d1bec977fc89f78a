//! `granary store`: stores and their versions.

use std::time::{Duration, Instant};

use proto::granary::{Store, Version, VersionState};
use serde::Serialize;

use crate::connect::Context;
use crate::failure::{Exit, Failure, Result};
use crate::output::{Align, Out, Table};
use crate::units;

/// The commands of `granary store`.
#[derive(clap::Subcommand, Debug)]
pub enum StoreCommand {
    /// List the stores
    Ls(LsArgs),
    /// List the versions of a store
    Versions(VersionsArgs),
    /// Go back to the previous version
    Rollback(RollbackArgs),
    /// Switch to a version that is ready
    Activate(ActivateArgs),
    /// Delete a store with all versions, or one version
    Rm(RmArgs),
}

/// Options of `granary store ls`.
#[derive(clap::Args, Debug)]
pub struct LsArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// Options of `granary store versions`.
#[derive(clap::Args, Debug)]
pub struct VersionsArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// The store
    store: String,
}

/// Options of `granary store rollback`.
#[derive(clap::Args, Debug)]
pub struct RollbackArgs {
    /// The store
    store: String,
}

/// Options of `granary store activate`.
#[derive(clap::Args, Debug)]
pub struct ActivateArgs {
    /// The store
    store: String,
    /// The version's number
    version: u64,
}

/// Options of `granary store rm`.
#[derive(clap::Args, Debug)]
pub struct RmArgs {
    /// The store
    store: String,
    /// Only this version; it may not be the current one
    version: Option<u64>,
}

/// A store as JSON.
#[derive(Serialize)]
pub struct Shown {
    name: String,
    current: u64,
    previous: u64,
    keep_versions: u32,
    servers: Vec<String>,
    versions: Vec<ShownVersion>,
}

#[derive(Serialize)]
struct ShownVersion {
    number: u64,
    state: &'static str,
    tables: usize,
    records: u64,
    bytes: u64,
    created_ns: i64,
    error: String,
}

impl From<&Version> for ShownVersion {
    fn from(version: &Version) -> Self {
        let state = match version.state() {
            VersionState::Unspecified => "unknown",
            VersionState::Preparing => "preparing",
            VersionState::Ready => "ready",
            VersionState::Current => "current",
            VersionState::Previous => "previous",
            VersionState::Failed => "failed",
        };
        Self {
            number: version.number,
            state,
            tables: version.tables.len(),
            records: version.tables.iter().map(|table| table.records).sum(),
            bytes: version.tables.iter().map(|table| table.bytes).sum(),
            created_ns: version.created_ns,
            error: version.error.clone(),
        }
    }
}

impl From<&Store> for Shown {
    fn from(store: &Store) -> Self {
        let server = |server: &proto::granary::KvserveAddress| {
            format!("{}:{}", server.host, server.redis_port)
        };
        Self {
            name: store.name.clone(),
            current: store.current,
            previous: store.previous,
            keep_versions: store.keep_versions,
            servers: store.servers.iter().map(server).collect(),
            versions: store.versions.iter().map(Into::into).collect(),
        }
    }
}

/// One line for each store.
pub fn table(stores: &[Shown]) -> Table {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("store", Left),
        ("current", Right),
        ("previous", Right),
        ("records", Right),
        ("size", Right),
        ("versions", Right),
    ]);
    let or_none = |number: u64| if number == 0 { "-".to_owned() } else { number.to_string() };
    for store in stores {
        let current = store.versions.iter().find(|version| version.number == store.current);
        table.row(vec![
            store.name.clone(),
            or_none(store.current),
            or_none(store.previous),
            current.map_or("-".into(), |version| units::number(version.records)),
            current.map_or("-".into(), |version| units::bytes(version.bytes)),
            store.versions.len().to_string(),
        ]);
    }
    table
}

/// Runs `granary store`.
pub async fn run(command: &StoreCommand, context: &Context, out: &mut Out) -> Result<()> {
    let fs = context.connect().await?;
    let catalogue = fs.catalogue();
    match command {
        StoreCommand::Ls(args) => {
            let stores: Vec<Shown> =
                catalogue.list_stores().await?.iter().map(Into::into).collect();
            if args.json { out.json(&stores) } else { table(&stores).print(out) }
        }
        StoreCommand::Versions(args) => {
            let store = catalogue.get_store(&args.store).await?;
            versions(&Shown::from(&store), args.json, out)
        }
        StoreCommand::Rollback(args) => switch(&catalogue, &args.store, 0, out).await,
        StoreCommand::Activate(args) if args.version == 0 => {
            Err(Failure::usage("version 0: versions begin with 1")
                .hint("`granary store rollback` goes back to the previous one"))
        }
        StoreCommand::Activate(args) => switch(&catalogue, &args.store, args.version, out).await,
        StoreCommand::Rm(args) => match args.version {
            Some(version) => Ok(catalogue.delete_version(&args.store, version).await.map(drop)?),
            None => Ok(catalogue.delete_store(&args.store).await?),
        },
    }
}

async fn switch(
    catalogue: &client::Catalogue,
    store: &str,
    version: u64,
    out: &mut Out,
) -> Result<()> {
    let begun = Instant::now();
    let switched = catalogue.activate(store, version).await?;
    let servers = serving(catalogue, store, switched.current).await?;
    out.line(format_args!(
        "{store}: version {} is current on {}, after {}",
        switched.current,
        units::count(servers, "server"),
        units::duration(begun.elapsed())
    ))
}

/// Waits until every server that holds the version answers from it. Gives how many do.
pub async fn serving(catalogue: &client::Catalogue, store: &str, version: u64) -> Result<u64> {
    const TIMEOUT: Duration = Duration::from_secs(30);
    const INTERVAL: Duration = Duration::from_millis(2);
    let begun = Instant::now();
    loop {
        let told = catalogue.get_store(store).await?;
        let found = told.versions.iter().find(|known| known.number == version);
        let servers = found.map(|found| found.servers.as_slice()).unwrap_or_default();
        let serving = servers
            .iter()
            .filter(|server| server.state() == proto::granary::ServerVersionState::Serving);
        let serving = serving.count();
        if serving == servers.len() {
            return Ok(serving as u64);
        }
        if begun.elapsed() > TIMEOUT {
            let message = format!(
                "{store}: version {version} is current, but only {serving} of {} servers answer from it yet",
                servers.len()
            );
            return Err(Failure::new(Exit::Unreachable, message));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn versions(store: &Shown, json: bool, out: &mut Out) -> Result<()> {
    if json {
        return out.json(store);
    }
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("version", Right),
        ("state", Left),
        ("records", Right),
        ("size", Right),
        ("tables", Right),
        ("made (UTC)", Left),
        ("", Left),
    ]);
    for version in &store.versions {
        table.row(vec![
            version.number.to_string(),
            version.state.into(),
            units::number(version.records),
            units::bytes(version.bytes),
            version.tables.to_string(),
            units::date(version.created_ns),
            version.error.clone(),
        ]);
    }
    table.print(out)
}
