//! Bulk load: publishes tables as a new version of a store, and builds tables from lines of text.
//!
//! [`publish_folder`] reads the footer and properties of each table in a folder, checks that together they hold every
//! slot once, publishes them with one call, and waits until every server serves them. [`load_tsv`] sorts lines of
//! `key<TAB>value` with bounded memory, builds tables partitioned by slot in a staging folder, and publishes that.
//!
//! What always holds: nothing is published that was not checked; a load that fails before it is published leaves no
//! version and removes its staging folder; the version that served before goes on serving.
#![allow(clippy::disallowed_methods, reason = "a shell: deadlines need the clock")]

mod cover;
mod tsv;

use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use proto::granary::{FileKind, ServerVersionState, Store, TableInfo, VersionState};
use proto::{Code, Error, FsPath, Result};
use sstable::{Footer, Properties};

use crate::catalogue::NewVersion;
use crate::fs::Fs;

pub use tsv::{Duplicates, Input, TsvOptions, load_tsv};

/// Suffix of the names of tables.
pub const TABLE_SUFFIX: &str = ".tbl";
/// Tables whose footers are read at the same time.
const FOOTERS_AT_ONCE: usize = 16;
/// Pauses between questions how far the servers are.
const POLL_MIN: Duration = Duration::from_millis(20);
const POLL_MAX: Duration = Duration::from_millis(500);

/// How to publish.
#[derive(Clone, Debug)]
pub struct Options {
    /// Make the version current when it is ready.
    pub activate: bool,
    /// Versions that servers keep; 0: as the store has it.
    pub keep_versions: u32,
    /// Accept tables that together do not hold every slot: keys of the others are not found.
    pub allow_gaps: bool,
    /// Wait until every server serves the version, or has it ready if it is not activated.
    pub wait: bool,
    /// Give up waiting after so long, in milliseconds; 0: never. The version is published nevertheless.
    pub wait_ms_max: u64,
    /// Give up waiting if no server is attached for so long, in milliseconds.
    pub no_server_ms_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            activate: true,
            keep_versions: 0,
            allow_gaps: false,
            wait: true,
            wait_ms_max: 0,
            no_server_ms_max: 10_000,
        }
    }
}

/// How far a load is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Lines were read and sorted.
    Read {
        /// Bytes of input so far.
        bytes: u64,
        /// Bytes of the whole input, if known.
        bytes_total: Option<u64>,
        /// Records so far.
        records: u64,
    },
    /// Records were written to tables.
    Built {
        /// Records so far.
        records: u64,
        /// Records in all; fewer are written if duplicates are dropped.
        records_total: u64,
    },
    /// The version is in the catalogue.
    Published {
        /// Its number.
        version: u64,
        /// Its tables.
        tables: usize,
        /// Bytes of all tables.
        bytes: u64,
        /// Records of all tables.
        records: u64,
    },
    /// Servers fetch, verify and switch.
    Servers(Vec<ServerProgress>),
}

/// How far one server is with the version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerProgress {
    /// Its uuid.
    pub server: String,
    /// What it does.
    pub state: ServerVersionState,
    /// Bytes fetched.
    pub bytes_done: u64,
    /// Bytes of all tables.
    pub bytes_total: u64,
    /// Its last error; empty if there was none.
    pub error: String,
}

/// Publishes the tables in `folder` as a new version of `store` and gives its number. See [`Options`] for the wait.
pub async fn publish_folder(
    fs: &Fs,
    store: &str,
    folder: &FsPath,
    options: Options,
    mut progress: impl FnMut(Progress),
) -> Result<u64> {
    let tables = table_infos(fs, folder).await?;
    cover::check(&tables, options.allow_gaps)?;
    let (count, bytes, records) = (
        tables.len(),
        tables.iter().map(|table| table.bytes).sum(),
        tables.iter().map(|table| table.records).sum(),
    );
    let new = NewVersion {
        store: store.to_owned(),
        folder: folder.clone(),
        tables,
        activate: options.activate,
        keep_versions: options.keep_versions,
    };
    let version = fs.catalogue().publish(new).await?;
    progress(Progress::Published { version, tables: count, bytes, records });
    if options.wait {
        wait_until_served(fs, store, version, &options, progress).await?;
    }
    Ok(version)
}

/// What the tables in a folder say of themselves, by name.
pub async fn table_infos(fs: &Fs, folder: &FsPath) -> Result<Vec<TableInfo>> {
    let mut paths = Vec::new();
    for entry in fs.list(folder).await? {
        if entry.kind() == FileKind::File && entry.name.ends_with(TABLE_SUFFIX) {
            paths.push(folder.join(&entry.name)?);
        }
    }
    if paths.is_empty() {
        let what = format!("folder {folder} has no tables (files that end in {TABLE_SUFFIX})");
        return Err(Error::new(Code::NotFound, what));
    }
    paths.sort();
    stream::iter(paths)
        .map(|path| async move { table_info(fs, &path).await })
        .buffered(FOOTERS_AT_ONCE)
        .try_collect()
        .await
}

/// What one table says of itself: its footer and properties are read, nothing else.
pub async fn table_info(fs: &Fs, path: &FsPath) -> Result<TableInfo> {
    let in_table = |error: sstable::Error| {
        Error::new(Code::Corrupt, format!("table {path}: {error}: build it again"))
    };
    let reader = fs.open(path).await?;
    let bytes = reader.len();
    let tail_bytes = bytes.min(Footer::BYTES as u64);
    let tail = read_exactly(&reader, bytes - tail_bytes, tail_bytes as usize).await?;
    let footer = Footer::decode(&tail, bytes).map_err(in_table)?;
    let section = footer.properties;
    let length = usize::try_from(section.bytes).expect("the footer's check bounds it");
    let section = read_exactly(&reader, section.offset, length).await?;
    let properties = Properties::decode(&section, &footer).map_err(in_table)?;
    let slots = match properties.get(sstable::PROPERTY_SLOTS) {
        None => 0..=proto::limits::SLOTS - 1,
        Some(text) => properties.slots().ok_or_else(|| {
            let shown = String::from_utf8_lossy(text);
            let what = format!(
                "table {path}: property {} is {shown:?}, expected FIRST-LAST",
                sstable::PROPERTY_SLOTS
            );
            Error::new(Code::InvalidArgument, what)
        })?,
    };
    Ok(TableInfo {
        path: path.to_string(),
        bytes,
        records: footer.records,
        slot_first: u32::from(*slots.start()),
        slot_last: u32::from(*slots.end()),
        footer_crc32: footer.crc32,
    })
}

async fn read_exactly(
    reader: &crate::read::FileReader,
    offset: u64,
    length: usize,
) -> Result<Vec<u8>> {
    let mut buffer = vec![0; length];
    let mut done = 0;
    while done < length {
        let count = reader.read_at(offset + done as u64, &mut buffer[done..]).await?;
        if count == 0 {
            let what = format!(
                "the file ends at offset {}, expected {length} bytes more",
                offset + done as u64
            );
            return Err(Error::new(Code::Unavailable, what));
        }
        done += count;
    }
    Ok(buffer)
}

/// What a look at the catalogue says about a version that is waited for.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Pending,
    Done,
    Refused(String),
}

async fn wait_until_served(
    fs: &Fs,
    store: &str,
    version: u64,
    options: &Options,
    mut progress: impl FnMut(Progress),
) -> Result<()> {
    let started = Instant::now();
    let mut server_seen = started;
    let mut pause = POLL_MIN;
    loop {
        let seen = fs.catalogue().get_store(store).await?;
        let servers = server_progress(&seen, version);
        match standing(&seen, version, options.activate) {
            Standing::Done => {
                progress(Progress::Servers(servers));
                return Ok(());
            }
            Standing::Refused(error) => {
                let what = format!(
                    "store {store:?} version {version} was refused, version {} goes on serving: {error}",
                    seen.current
                );
                return Err(Error::new(Code::Corrupt, what));
            }
            Standing::Pending => progress(Progress::Servers(servers)),
        }
        if !seen.servers.is_empty() {
            server_seen = Instant::now();
        }
        let waited = |since: Instant| since.elapsed().as_millis() as u64;
        let lonely = waited(server_seen) >= options.no_server_ms_max;
        if lonely || (options.wait_ms_max > 0 && waited(started) >= options.wait_ms_max) {
            let why = match lonely {
                true => "no key-value server is attached: start one (granary kvserve)".to_owned(),
                false => format!("it is not served after {} ms", options.wait_ms_max),
            };
            let what = format!("store {store:?} version {version} is published, but {why}");
            return Err(Error::new(Code::Timeout, what));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL_MAX);
    }
}

/// How far each attached server is.
fn server_progress(store: &Store, number: u64) -> Vec<ServerProgress> {
    let version = store.versions.iter().find(|version| version.number == number);
    let reports = version.map(|version| version.servers.as_slice()).unwrap_or_default();
    let one = |uuid: &str| {
        let report = reports.iter().find(|report| report.server == uuid);
        ServerProgress {
            server: uuid.to_owned(),
            state: report.map_or(ServerVersionState::Unspecified, |report| report.state()),
            bytes_done: report.map_or(0, |report| report.bytes_done),
            bytes_total: report.map_or(0, |report| report.bytes_total),
            error: report.map_or(String::new(), |report| report.error.clone()),
        }
    };
    store.servers.iter().map(|server| one(&server.uuid)).collect()
}

fn standing(store: &Store, number: u64, activate: bool) -> Standing {
    let Some(version) = store.versions.iter().find(|version| version.number == number) else {
        return Standing::Refused("it was deleted".into());
    };
    let servers = server_progress(store, number);
    let refused = servers.iter().filter(|s| s.state == ServerVersionState::Failed);
    match version.state() {
        VersionState::Failed => {
            let mut errors: Vec<String> = refused
                .map(|server| format!("server {}: {}", server.server, server.error))
                .collect();
            if !version.error.is_empty() {
                errors.insert(0, version.error.clone());
            }
            Standing::Refused(errors.join("; "))
        }
        // Another version took over already: this one served.
        VersionState::Previous => Standing::Done,
        VersionState::Ready if !activate => Standing::Done,
        VersionState::Current => {
            let settled = |server: &ServerProgress| {
                matches!(server.state, ServerVersionState::Serving | ServerVersionState::Failed)
            };
            let any = servers.iter().any(|s| s.state == ServerVersionState::Serving);
            if any && servers.iter().all(settled) { Standing::Done } else { Standing::Pending }
        }
        _ => Standing::Pending,
    }
}

#[cfg(test)]
mod tests {
    use proto::granary::{KvserveAddress, ServerVersion, Version};

    use super::*;

    fn store(state: VersionState, servers: &[ServerVersionState]) -> Store {
        let reports = servers.iter().enumerate().map(|(n, &state)| ServerVersion {
            server: n.to_string(),
            version: 2,
            state: state.into(),
            error: if state == ServerVersionState::Failed { "bad block".into() } else { "".into() },
            ..Default::default()
        });
        let addresses = (0..servers.len())
            .map(|n| KvserveAddress { uuid: n.to_string(), ..Default::default() });
        let version = Version {
            number: 2,
            state: state.into(),
            servers: reports.collect(),
            ..Default::default()
        };
        Store { versions: vec![version], servers: addresses.collect(), ..Default::default() }
    }

    #[test]
    fn a_version_is_served_when_every_server_serves_it() {
        use ServerVersionState as S;
        use VersionState as V;
        let cases = [
            (V::Preparing, vec![S::Fetching], true, Standing::Pending),
            (V::Ready, vec![S::Ready], true, Standing::Pending),
            (V::Ready, vec![S::Ready], false, Standing::Done),
            (V::Current, vec![S::Serving, S::Ready], true, Standing::Pending),
            (V::Current, vec![S::Serving, S::Serving], true, Standing::Done),
            (V::Current, vec![], true, Standing::Pending),
            (V::Previous, vec![S::Ready], true, Standing::Done),
            (V::Failed, vec![S::Failed], true, Standing::Refused("server 0: bad block".into())),
        ];
        for (state, servers, activate, expected) in cases {
            assert_eq!(standing(&store(state, &servers), 2, activate), expected, "{state:?}");
        }
        assert_eq!(
            standing(&Store::default(), 2, true),
            Standing::Refused("it was deleted".into())
        );
    }
}
