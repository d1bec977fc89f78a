//! The records of the serving catalogue: stores, their versions, their tables.
//!
//! The files of a version are hard links under `/stores/<store>/v<number>/`; while the catalogue names them, no verb
//! of the namespace removes, replaces or renames them (nor adds to their folders by rename or link).
//!
//! Always holds: versions of a store are ordered by number, numbers are not used again; `current` and `previous` are
//! 0 or name a version that is there and was ready.

use std::collections::BTreeMap;

use proto::granary::TableInfo;
use proto::limits::{PATH_BYTES_MAX, PRINCIPAL_BYTES_MAX};
use proto::{FsPath, Result};

use super::permissions::denied;
use crate::coding::{Malformed, Reader, put_bool, put_i64, put_text, put_u8, put_u32, put_u64};
use crate::op::{ERROR_TEXT_BYTES_MAX, TABLES_MAX, decode_table, encode_table};

/// The folder that holds what stores serve.
pub(crate) const STORES_FOLDER: &str = "stores";

/// How far the preparation of a version is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionStage {
    /// Servers fetch, verify and warm it.
    Preparing,
    /// It may become current, or is or was.
    Ready,
    /// It can't be served; the text says why.
    Failed(String),
}

/// One complete content of a store.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// 1, 2, 3 ... within its store.
    pub number: u64,
    /// How far its preparation is. Whether it is current or previous, the store says.
    pub stage: VersionStage,
    /// Its tables, with their paths in the file system.
    pub tables: Vec<TableInfo>,
    /// When it was published, nanoseconds since 1970-01-01 UTC.
    pub created_ns: i64,
    /// Flip to it when it is ready. Cleared by the flip.
    pub activate: bool,
}

/// A named data set that is served.
#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    /// Its name.
    pub name: String,
    /// The user who made it: he and superusers may change it.
    pub owner: String,
    /// The version that answers; 0 for none.
    pub current: u64,
    /// The version that a rollback returns to; 0 for none.
    pub previous: u64,
    /// Versions kept when a new one comes.
    pub keep_versions: u32,
    /// The number that the next version gets.
    pub next_version: u64,
    /// By number.
    pub versions: BTreeMap<u64, Version>,
}

/// All stores, by name.
#[derive(Default)]
pub(crate) struct Catalogue {
    pub stores: BTreeMap<String, Store>,
    pub changed_txid: u64,
}

impl Catalogue {
    /// Names that belong to a store are changed by the verbs of the catalogue alone.
    pub(crate) fn demand_unguarded(&self, path: &FsPath) -> Result<()> {
        let mut names = path.components();
        if self.stores.is_empty() || names.next() != Some(STORES_FOLDER) {
            return Ok(());
        }
        match names.next() {
            None => Err(denied(format!("{path} holds {} stores", self.stores.len()))),
            Some(store) if self.stores.contains_key(store) => Err(denied(format!(
                "{path} belongs to the store {store}: delete the version or the store instead"
            ))),
            Some(_) => Ok(()),
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.changed_txid);
        put_u32(out, self.stores.len() as u32);
        for store in self.stores.values() {
            put_text(out, &store.name);
            put_text(out, &store.owner);
            put_u64(out, store.current);
            put_u64(out, store.previous);
            put_u32(out, store.keep_versions);
            put_u64(out, store.next_version);
            put_u32(out, store.versions.len() as u32);
            for version in store.versions.values() {
                encode_version(version, out);
            }
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut all = Self { stores: BTreeMap::new(), changed_txid: r.u64()? };
        for _ in 0..r.count(40)? {
            let malformed = r.malformed("a store whose current and previous versions are there");
            let name = r.text(PRINCIPAL_BYTES_MAX)?.to_owned();
            let mut store = Store {
                name: name.clone(),
                owner: r.text(PRINCIPAL_BYTES_MAX)?.to_owned(),
                current: r.u64()?,
                previous: r.u64()?,
                keep_versions: r.u32()?,
                next_version: r.u64()?,
                versions: BTreeMap::new(),
            };
            for _ in 0..r.count(22)? {
                let version = decode_version(r)?;
                store.versions.insert(version.number, version);
            }
            let there = |number| number == 0 || store.versions.contains_key(&number);
            if !there(store.current) || !there(store.previous) {
                return Err(malformed);
            }
            all.stores.insert(name, store);
        }
        Ok(all)
    }
}

fn encode_version(version: &Version, out: &mut Vec<u8>) {
    put_u64(out, version.number);
    match &version.stage {
        VersionStage::Preparing => put_u8(out, 1),
        VersionStage::Ready => put_u8(out, 2),
        VersionStage::Failed(why) => {
            put_u8(out, 3);
            put_text(out, why);
        }
    }
    put_i64(out, version.created_ns);
    put_bool(out, version.activate);
    put_u32(out, version.tables.len() as u32);
    for table in &version.tables {
        encode_table(table, out);
    }
}

fn decode_version(r: &mut Reader<'_>) -> Result<Version, Malformed> {
    let number = r.u64()?;
    let malformed = r.malformed("the stage of a version");
    let stage = match r.u8()? {
        1 => VersionStage::Preparing,
        2 => VersionStage::Ready,
        3 => VersionStage::Failed(r.text(ERROR_TEXT_BYTES_MAX)?.to_owned()),
        _ => return Err(malformed),
    };
    let created_ns = r.i64()?;
    let activate = r.bool()?;
    let malformed = r.malformed("tables within their limit");
    let count = r.count(32)?;
    if count > TABLES_MAX {
        return Err(malformed);
    }
    let tables = (0..count).map(|_| decode_table(r)).collect::<Result<Vec<_>, _>>()?;
    if tables.iter().any(|table| table.path.len() > PATH_BYTES_MAX) {
        return Err(malformed);
    }
    Ok(Version { number, stage, tables, created_ns, activate })
}
