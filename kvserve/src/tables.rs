//! Open versions and the one pointer per store that answers come from.
//!
//! A [`View`] is everything that is open of one store at one moment: the current version and those kept for pinning
//! and rollback. Readers load it without a lock; a switch or a rollback stores a new one. A request loads once and
//! answers from what it loaded throughout, so it never mixes versions.
//!
//! What always holds: the current version of a view is one of its open versions; the files of a version that was
//! taken out of its view are still mapped until the last request that holds it ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use proto::limits::SLOTS;
use proto::{Code, Error, Result};
use sstable::Table;
use tokio::sync::oneshot;

use crate::tablespec::TableSpec;

/// A slot without a table.
const NO_TABLE: u16 = u16::MAX;

/// One version of one store, verified and open.
pub struct OpenVersion {
    /// Its number.
    pub number: u64,
    tables: Vec<Table>,
    by_slot: BySlot,
    /// Fires when the maps are gone: declared last, dropped last.
    _closed: oneshot::Sender<()>,
}

enum BySlot {
    /// One table holds every slot: no key needs to be hashed.
    One,
    /// Index of the table of each slot.
    Map(Box<[u16]>),
}

impl OpenVersion {
    /// A version of these tables. Also gives what completes when the last user has let it go.
    pub fn new(
        number: u64,
        tables: Vec<(TableSpec, Table)>,
    ) -> Result<(Self, oneshot::Receiver<()>)> {
        let mut map = vec![NO_TABLE; usize::from(SLOTS)];
        let mut open = Vec::with_capacity(tables.len());
        for (spec, table) in tables {
            let index = u16::try_from(open.len()).ok().filter(|&index| index != NO_TABLE);
            let index = index.ok_or_else(|| {
                Error::new(
                    Code::LimitExceeded,
                    format!("version {number} has over {NO_TABLE} tables"),
                )
            })?;
            let slots = &mut map[usize::from(spec.slot_first)..=usize::from(spec.slot_last)];
            if slots.iter().any(|&other| other != NO_TABLE) {
                let what = format!(
                    "version {number}: slots {} to {} overlap",
                    spec.slot_first, spec.slot_last
                );
                return Err(Error::new(Code::InvalidArgument, what));
            }
            slots.fill(index);
            open.push(table);
        }
        let one = open.len() == 1 && map.iter().all(|&index| index == 0);
        let by_slot = if one { BySlot::One } else { BySlot::Map(map.into_boxed_slice()) };
        let (closed, watch) = oneshot::channel();
        Ok((Self { number, tables: open, by_slot, _closed: closed }, watch))
    }

    /// All tables.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// The index in [`OpenVersion::tables`] of the one that would hold `key`.
    #[inline]
    pub fn table_of(&self, key: &[u8]) -> Option<usize> {
        match &self.by_slot {
            BySlot::One => Some(0),
            BySlot::Map(map) => match map[usize::from(sstable::slot::slot_of(key))] {
                NO_TABLE => None,
                index => Some(usize::from(index)),
            },
        }
    }

    /// Records in all tables.
    pub fn records(&self) -> u64 {
        self.tables.iter().map(Table::records).sum()
    }

    /// Bytes of all tables' files.
    pub fn bytes(&self) -> u64 {
        self.tables.iter().map(Table::file_bytes).sum()
    }
}

impl std::fmt::Debug for OpenVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenVersion({}, {} tables)", self.number, self.tables.len())
    }
}

/// What is open of one store at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The version that answers.
    pub current: Option<Arc<OpenVersion>>,
    /// All open versions by number, the current one among them.
    pub open: BTreeMap<u64, Arc<OpenVersion>>,
}

impl View {
    /// The version to answer from: `number`, or the current one if it is 0.
    pub fn version(&self, store: &str, number: u64) -> Result<Arc<OpenVersion>> {
        let found = if number == 0 { &self.current } else { &self.open.get(&number).cloned() };
        found.clone().ok_or_else(|| match number {
            0 => Error::new(
                Code::Unavailable,
                format!("store {store:?} has no version that serves yet"),
            ),
            _ => {
                let open: Vec<_> = self.open.keys().collect();
                let what = format!(
                    "store {store:?}: version {number} is not open here; open are {open:?}"
                );
                Error::new(Code::NotFound, what)
            }
        })
    }
}

/// One store: its name and its view.
#[derive(Debug)]
pub struct StoreCell {
    /// The store's name.
    pub name: String,
    view: ArcSwap<View>,
}

impl StoreCell {
    /// What is open now.
    pub fn view(&self) -> arc_swap::Guard<Arc<View>> {
        self.view.load()
    }

    /// The caller holds the lock of changes.
    fn edit(&self, change: impl FnOnce(&mut View)) {
        let mut view = View::clone(&self.view.load());
        change(&mut view);
        self.view.store(Arc::new(view));
    }
}

/// All stores of this server.
#[derive(Debug)]
pub struct Stores {
    cells: ArcSwap<BTreeMap<String, Arc<StoreCell>>>,
    /// The store that plain Redis commands read.
    default: ArcSwap<Option<Arc<StoreCell>>>,
    default_name: String,
    /// Held by whoever changes anything: readers never wait for it.
    change: Mutex<()>,
}

impl Stores {
    /// No stores. `default_name`: the one that plain commands read; empty: the only one.
    pub fn new(default_name: &str) -> Self {
        Self {
            cells: ArcSwap::default(),
            default: ArcSwap::from_pointee(None),
            default_name: default_name.to_owned(),
            change: Mutex::new(()),
        }
    }

    /// All stores by name.
    pub fn all(&self) -> Arc<BTreeMap<String, Arc<StoreCell>>> {
        self.cells.load_full()
    }

    /// A store by name; the empty name is the default store.
    pub fn get(&self, name: &str) -> Result<Arc<StoreCell>> {
        if name.is_empty() {
            return self.default_store();
        }
        let cells = self.cells.load();
        cells.get(name).cloned().ok_or_else(|| {
            let known: Vec<_> = cells.keys().collect();
            Error::new(
                Code::NotFound,
                format!("no store {name:?} on this server; it has {known:?}"),
            )
        })
    }

    /// The store that plain commands read.
    pub fn default_store(&self) -> Result<Arc<StoreCell>> {
        if let Some(cell) = &**self.default.load() {
            return Ok(cell.clone());
        }
        let cells = self.cells.load();
        let known: Vec<_> = cells.keys().collect();
        Err(match (known.len(), self.default_name.as_str()) {
            (0, _) => Error::new(Code::Unavailable, "this server has no store yet"),
            (_, "") => Error::new(
                Code::InvalidArgument,
                format!("several stores and no default: choose with GRANARY.USE, one of {known:?}"),
            ),
            (_, name) => Error::new(
                Code::Unavailable,
                format!("the default store {name:?} is not on this server; it has {known:?}"),
            ),
        })
    }

    /// Lets readers have a version.
    pub fn install(&self, store: &str, version: Arc<OpenVersion>) {
        let _change = self.change.lock().expect("no holder panics");
        let number = version.number;
        if let Some(cell) = self.cells.load().get(store) {
            cell.edit(|view| drop(view.open.insert(number, version)));
            return;
        }
        let view = View { current: None, open: BTreeMap::from([(number, version)]) };
        let cell = StoreCell { name: store.to_owned(), view: ArcSwap::from_pointee(view) };
        let mut cells = BTreeMap::clone(&self.cells.load());
        cells.insert(store.to_owned(), Arc::new(cell));
        self.publish(cells);
    }

    /// Answers from this version, which was installed, from now on.
    pub fn make_current(&self, store: &str, number: u64) {
        self.edit(store, |view| {
            let version = view.open.get(&number).expect("only installed versions become current");
            view.current = Some(version.clone());
        });
    }

    /// Answers from no version any more.
    pub fn clear_current(&self, store: &str) {
        self.edit(store, |view| view.current = None);
    }

    /// Takes a version from readers, if they have it; requests that hold it finish with it.
    pub fn remove(&self, store: &str, number: u64) {
        self.edit(store, |view| {
            assert!(
                view.current.as_ref().is_none_or(|current| current.number != number),
                "the current version is never removed"
            );
            view.open.remove(&number);
        });
    }

    /// Forgets a store.
    pub fn forget(&self, store: &str) {
        let _change = self.change.lock().expect("no holder panics");
        let mut cells = BTreeMap::clone(&self.cells.load());
        cells.remove(store);
        self.publish(cells);
    }

    fn edit(&self, store: &str, change: impl FnOnce(&mut View)) {
        let _change = self.change.lock().expect("no holder panics");
        if let Some(cell) = self.cells.load().get(store) {
            cell.edit(change);
        }
    }

    fn publish(&self, cells: BTreeMap<String, Arc<StoreCell>>) {
        let default = match self.default_name.as_str() {
            "" if cells.len() == 1 => cells.values().next().cloned(),
            "" => None,
            name => cells.get(name).cloned(),
        };
        self.cells.store(Arc::new(cells));
        self.default.store(Arc::new(default));
    }
}
