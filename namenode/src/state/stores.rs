//! The verbs of the catalogue: publish, activate, set state, delete.
//!
//! Publishing is one change: the tables get further names under the store's own folder, are sealed (their content
//! can't change any more), and the version is there, to be prepared. The folders are made in the superuser's name, so
//! that only these verbs and superusers touch them. Retention runs with every publish and flip: the oldest versions
//! beyond `keep_versions` go, but never current, previous, or one still being prepared.

use std::collections::{BTreeMap, BTreeSet};

use proto::granary::TableInfo;
use proto::limits::{PRINCIPAL_BYTES_MAX, SLOTS};
use proto::{Code, Error, FsPath, Result};

use super::catalogue::{STORES_FOLDER, Store, Version, VersionStage};
use super::permissions::{EXECUTE, READ, denied};
use super::quotas::{Charge, signed};
use super::snapshots::demand_no_reserved_name;
use super::verbs::NewMode;
use super::{ROOT, State};
use crate::op::{Caller, ERROR_TEXT_BYTES_MAX, Effect, Op, Reply, TABLES_MAX, Verdict};

/// Versions that a new store keeps if nobody says otherwise.
const KEEP_VERSIONS_DEFAULT: u32 = 3;
const FOLDER_MODE: u16 = 0o755;

fn error<T>(code: Code, message: String) -> Result<T> {
    Err(Error::new(code, message))
}

impl State {
    pub(super) fn plan_on_store(&self, caller: &Caller, op: &Op) -> Result<Option<Reply>> {
        match op {
            Op::PublishVersion { store, folder, tables, .. } => {
                self.plan_publish(caller, store, folder, tables).map(|_| None)
            }
            Op::ActivateVersion { store, version } => {
                let (store, version) = self.plan_activate(caller, store, *version)?;
                Ok((store.current == version).then_some(Reply::Version(version)))
            }
            Op::SetVersionState { store, version, verdict } => {
                let change = self.plan_verdict(caller, store, *version, verdict)?;
                Ok(change.is_none().then_some(Reply::Done))
            }
            Op::DeleteVersion { store, version } => {
                self.plan_delete_version(caller, store, *version).map(|()| None)
            }
            Op::DeleteStore { store } => self.owned_store(caller, store).map(|_| None),
            _ => unreachable!("State::plan sends only these here"),
        }
    }

    pub(super) fn perform_on_store(
        &mut self,
        caller: &Caller,
        now: i64,
        op: &Op,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply> {
        let (name, reply) = match op {
            Op::PublishVersion { store, folder, tables, activate, keep_versions } => {
                let files = self.plan_publish(caller, store, folder, tables)?;
                self.open_store(caller, store, *keep_versions);
                let number = self.publish(store, tables, &files, *activate, now);
                self.retain(store, now, effects);
                (store, Reply::Version(number))
            }
            Op::ActivateVersion { store, version } => {
                let (_, version) = self.plan_activate(caller, store, *version)?;
                self.activate(store, version);
                self.retain(store, now, effects);
                (store, Reply::Version(version))
            }
            Op::SetVersionState { store, version, verdict } => {
                if let Some(stage) = self.plan_verdict(caller, store, *version, verdict)? {
                    let store = self.catalogue.stores.get_mut(store).expect("planned");
                    store.versions.get_mut(version).expect("planned").stage = stage;
                }
                (store, Reply::Done)
            }
            Op::DeleteVersion { store, version } => {
                self.plan_delete_version(caller, store, *version)?;
                self.drop_version(store, *version, now, effects);
                (store, Reply::Done)
            }
            Op::DeleteStore { store } => {
                self.owned_store(caller, store)?;
                self.catalogue.stores.remove(store);
                self.drop_folder(&[STORES_FOLDER, store], now, effects);
                (store, Reply::Done)
            }
            _ => unreachable!("State::perform sends only these here"),
        };
        self.catalogue.changed_txid = self.counters.txid;
        effects.push(Effect::CatalogueChanged { store: name.clone() });
        Ok(reply)
    }

    fn existing_store(&self, name: &str) -> Result<&Store> {
        match self.catalogue.stores.get(name) {
            Some(store) => Ok(store),
            None => error(Code::NotFound, format!("no store is named {name:?}")),
        }
    }

    /// A store that the caller may change.
    fn owned_store(&self, caller: &Caller, name: &str) -> Result<&Store> {
        let store = self.existing_store(name)?;
        if caller.superuser || caller.user == store.owner {
            return Ok(store);
        }
        Err(denied(format!("the store {name} belongs to {}, not {}", store.owner, caller.user)))
    }

    /// The files to link, by the names they get.
    fn plan_publish<'t>(
        &self,
        caller: &Caller,
        store: &str,
        folder: &FsPath,
        tables: &'t [TableInfo],
    ) -> Result<BTreeMap<&'t str, u32>> {
        if store.len() > PRINCIPAL_BYTES_MAX {
            return error(Code::InvalidArgument, format!("a store name of {} bytes", store.len()));
        }
        let folder_name = FsPath::root().join(store);
        demand_no_reserved_name(&folder_name.map_err(|error| error.context("name of the store"))?)?;
        if self.catalogue.stores.contains_key(store) {
            self.owned_store(caller, store)?;
        } else {
            self.demand_free_store_folder(store)?;
        }
        if tables.is_empty() || tables.len() > TABLES_MAX {
            let message = format!("{} tables: must be 1 to {TABLES_MAX}", tables.len());
            return error(Code::InvalidArgument, message);
        }
        let (slot, _) = self.existing(caller, folder)?;
        if !self.inodes.get(slot).is_folder() {
            return error(Code::NotFolder, format!("{folder} is a file, not a folder of tables"));
        }
        self.demand(caller, slot, READ | EXECUTE, folder)?;
        let mut files = BTreeMap::new();
        for table in tables {
            let (name, file) = self.plan_table(caller, folder, table)?;
            if files.insert(name, file).is_some() {
                return error(Code::InvalidArgument, format!("two tables are named {name:?}"));
            }
        }
        self.demand_room_for_version(store, files.values())?;
        Ok(files)
    }

    /// The folders and names of a new version, where they will be.
    fn demand_room_for_version<'f>(
        &self,
        store: &str,
        files: impl Iterator<Item = &'f u32>,
    ) -> Result<()> {
        let (mut folder, mut made) = (ROOT, 3);
        for part in [STORES_FOLDER, store] {
            match self.nodes.find(self.inodes.get(folder).body, part.as_bytes()) {
                Some(child) => folder = child,
                None => break,
            }
            made -= 1;
        }
        if !self.is_counted(folder) {
            return Ok(());
        }
        let mut charges = vec![Charge { folder, names: made, space: 0 }];
        charges.extend(files.map(|&file| {
            let space = signed(self.space_of(file));
            Charge { folder, names: 1, space }
        }));
        self.demand_room(&charges)
    }

    /// What a new store will call its own must not be somebody else's.
    fn demand_free_store_folder(&self, store: &str) -> Result<()> {
        let Some(stores) = self.nodes.find(self.inodes.get(ROOT).body, STORES_FOLDER.as_bytes())
        else {
            return Ok(());
        };
        let inode = self.inodes.get(stores);
        if !inode.is_folder() {
            return error(Code::NotFolder, format!("/{STORES_FOLDER} is a file: move it away"));
        }
        match self.nodes.find(inode.body, store.as_bytes()) {
            Some(_) => {
                let message = format!("/{STORES_FOLDER}/{store} exists and is no store's");
                error(Code::AlreadyExists, message)
            }
            None => Ok(()),
        }
    }

    fn plan_table<'t>(
        &self,
        caller: &Caller,
        folder: &FsPath,
        table: &'t TableInfo,
    ) -> Result<(&'t str, u32)> {
        let path = if table.path.starts_with('/') {
            FsPath::parse(&table.path)?
        } else {
            FsPath::parse(&format!("{}/{}", folder.as_str().trim_end_matches('/'), table.path))?
        };
        if !folder.contains(&path) {
            return error(Code::InvalidArgument, format!("{path} does not lie in {folder}"));
        }
        if table.slot_first > table.slot_last || table.slot_last >= u32::from(SLOTS) {
            let message = format!("{path}: slots {} to {}", table.slot_first, table.slot_last);
            return error(Code::InvalidArgument, message);
        }
        let slot = self.existing_file(caller, &path)?;
        self.demand(caller, slot, READ, &path)?;
        self.demand_closed(slot, &path)?;
        let bytes = self.inodes.get(slot).length;
        if bytes != table.bytes {
            let message = format!("{path} has {bytes} bytes, the call says {}", table.bytes);
            return error(Code::InvalidArgument, message);
        }
        let name = table.path.trim_end_matches('/').rsplit('/').next().unwrap_or(&table.path);
        Ok((name, slot))
    }

    fn open_store(&mut self, caller: &Caller, name: &str, keep_versions: u32) {
        let store = self.catalogue.stores.entry(name.to_owned()).or_insert_with(|| Store {
            name: name.to_owned(),
            owner: caller.user.clone(),
            current: 0,
            previous: 0,
            keep_versions: KEEP_VERSIONS_DEFAULT,
            next_version: 1,
            versions: BTreeMap::new(),
        });
        if keep_versions > 0 {
            store.keep_versions = keep_versions;
        }
    }

    fn publish(
        &mut self,
        name: &str,
        tables: &[TableInfo],
        files: &BTreeMap<&str, u32>,
        activate: bool,
        now: i64,
    ) -> u64 {
        let store = self.catalogue.stores.get_mut(name).expect("just opened");
        let number = store.next_version;
        store.next_version += 1;
        let folder_name = format!("v{number}");
        let mut folder = ROOT;
        for part in [STORES_FOLDER, name, &folder_name] {
            folder = self.own_folder(folder, part, now);
        }
        for (name, &slot) in files {
            self.attach_link(folder, name, slot, now);
            self.inodes.get_mut(slot).seal();
        }
        let own = |table: &TableInfo| {
            let file = table.path.trim_end_matches('/').rsplit('/').next().unwrap_or(&table.path);
            let path = format!("/{STORES_FOLDER}/{name}/{folder_name}/{file}");
            TableInfo { path, ..table.clone() }
        };
        let tables = tables.iter().map(own).collect();
        let stage = VersionStage::Preparing;
        let version = Version { number, stage, tables, created_ns: now, activate };
        let store = self.catalogue.stores.get_mut(name).expect("just opened");
        store.versions.insert(number, version);
        number
    }

    /// A folder in the superuser's name, found or made.
    fn own_folder(&mut self, parent: u32, name: &str, now: i64) -> u32 {
        match self.nodes.find(self.inodes.get(parent).body, name.as_bytes()) {
            Some(slot) => slot,
            None => {
                let owner = self.permission(ROOT).owner;
                let owner = self.interned.names.get(owner).to_string();
                self.make_folder(&owner, now, parent, name, NewMode::plain(FOLDER_MODE))
            }
        }
    }

    /// The store and the version to make current.
    fn plan_activate(&self, caller: &Caller, name: &str, version: u64) -> Result<(&Store, u64)> {
        let store = self.owned_store(caller, name)?;
        let version = if version == 0 { store.previous } else { version };
        if version == 0 {
            let message = format!("the store {name} has no previous version to return to");
            return error(Code::NotFound, message);
        }
        match store.versions.get(&version) {
            None => error(Code::NotFound, format!("the store {name} has no version {version}")),
            Some(found) if found.stage != VersionStage::Ready => {
                let message =
                    format!("version {version} of {name} is {:?}, not ready", found.stage);
                error(Code::Stale, message)
            }
            Some(_) => Ok((store, version)),
        }
    }

    fn activate(&mut self, name: &str, version: u64) {
        let store = self.catalogue.stores.get_mut(name).expect("planned");
        if store.current != version {
            store.previous = store.current;
            store.current = version;
        }
        store.versions.get_mut(&version).expect("planned").activate = false;
    }

    /// The stage to set; `None` if it is so already.
    fn plan_verdict(
        &self,
        caller: &Caller,
        name: &str,
        version: u64,
        verdict: &Verdict,
    ) -> Result<Option<VersionStage>> {
        if !caller.superuser {
            return Err(denied(format!("user {} may not judge a version", caller.user)));
        }
        let store = self.existing_store(name)?;
        let Some(found) = store.versions.get(&version) else {
            return error(Code::NotFound, format!("the store {name} has no version {version}"));
        };
        let stage = match verdict {
            Verdict::Ready => VersionStage::Ready,
            Verdict::Failed(why) if why.len() > ERROR_TEXT_BYTES_MAX => {
                return error(Code::InvalidArgument, format!("an error text of {}", why.len()));
            }
            Verdict::Failed(_) if version == store.current || version == store.previous => {
                let message = format!("version {version} of {name} serves: it can't have failed");
                return error(Code::Stale, message);
            }
            Verdict::Failed(why) => VersionStage::Failed(why.clone()),
        };
        Ok((found.stage != stage).then_some(stage))
    }

    fn plan_delete_version(&self, caller: &Caller, name: &str, version: u64) -> Result<()> {
        let store = self.owned_store(caller, name)?;
        if !store.versions.contains_key(&version) {
            return error(Code::NotFound, format!("the store {name} has no version {version}"));
        }
        if store.current == version {
            let message = format!("version {version} of {name} is current: activate another first");
            return error(Code::InvalidArgument, message);
        }
        Ok(())
    }

    fn drop_version(&mut self, name: &str, version: u64, now: i64, effects: &mut Vec<Effect>) {
        let store = self.catalogue.stores.get_mut(name).expect("planned");
        store.versions.remove(&version);
        if store.previous == version {
            store.previous = 0;
        }
        self.drop_folder(&[STORES_FOLDER, name, &format!("v{version}")], now, effects);
    }

    /// Removes a folder by its names from the root, if it is there.
    fn drop_folder(&mut self, names: &[&str], now: i64, effects: &mut Vec<Effect>) {
        let (mut parent, mut slot) = (ROOT, ROOT);
        for name in names {
            parent = slot;
            match self.nodes.find(self.inodes.get(slot).body, name.as_bytes()) {
                Some(child) => slot = child,
                None => return,
            }
        }
        self.detach(parent, names.last().expect("a folder has a name"), now);
        self.remove_tree(slot, parent, now, effects);
    }

    fn retain(&mut self, name: &str, now: i64, effects: &mut Vec<Effect>) {
        let store = &self.catalogue.stores[name];
        let beyond = store.versions.len().saturating_sub(store.keep_versions as usize);
        let droppable = |version: &&Version| {
            version.number != store.current
                && version.number != store.previous
                && version.stage != VersionStage::Preparing
        };
        let old: BTreeSet<u64> =
            store.versions.values().filter(droppable).map(|v| v.number).take(beyond).collect();
        for number in old {
            self.drop_version(name, number, now, effects);
        }
    }
}
