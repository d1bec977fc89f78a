//! The life of every version on this server. Pure: `(now, event) -> effects`.
//!
//! ```text
//!            +------ transient failure, after a pause -----+
//!            v                                             |
//! assigned: fetching --> verifying --> open (ready) --> serving --> open (previous, kept) --> dropping --> gone
//!            ^               |                                                                 ^
//!            +-- damaged: fetched again, once --> failed --------- no longer assigned ---------+
//! ```
//!
//! The NameNode says which versions this server should hold and which is current ([`Event::Assigned`]); work reports
//! how it went; the effects tell the shell what to do next. Work is named by a [`Ticket`]: the outcome of work that
//! was cancelled or overtaken changes nothing.
//!
//! What always holds: a store has at most one serving version, and it is open; the serving version changes only to one
//! that is open, verified, and the NameNode's current; a version goes on serving, even if it is no longer assigned,
//! until its successor can; effects come in a defined order, and a version is never dropped while it serves.
//!
//! It does no IO, knows no clock, and does not know where tables lie.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::tablespec::{TableSpec, same_content, slot_cover_fault};

#[cfg(test)]
mod tests;

/// One version of one store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId {
    /// The store's name.
    pub store: String,
    /// The version's number, from 1.
    pub number: u64,
}

impl std::fmt::Display for VersionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "store {:?} version {}", self.store, self.number)
    }
}

/// Names one piece of work that the shell was asked for; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What the NameNode wants of one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The store's name.
    pub store: String,
    /// The version to serve; 0: none yet.
    pub current: u64,
    /// Versions to hold open, with their tables.
    pub versions: Vec<(u64, Arc<[TableSpec]>)>,
}

/// What kind of failure work ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// A node or the network: worth trying for ever.
    Transient,
    /// Full disks, missing files: worth a few tries.
    Lasting,
    /// The fetched bytes are not what was published: worth one more fetch.
    Damaged,
    /// Cannot succeed: told at once.
    Permanent,
}

/// Why work failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What to do about it.
    pub kind: FailureKind,
    /// What happened, for the NameNode and for people.
    pub message: String,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A complete local version was found and opened at the start.
    Restored {
        /// Which.
        id: VersionId,
        /// Its tables.
        tables: Arc<[TableSpec]>,
        /// Whether it served when this server was last running.
        current: bool,
    },
    /// The NameNode told everything that this server should hold.
    Assigned {
        /// The catalogue's transaction; older than one already seen: ignored.
        txid: u64,
        /// All stores; what is not listed is dropped.
        stores: Vec<Assignment>,
    },
    /// So many bytes of the version are here.
    Progress {
        /// The fetch.
        ticket: Ticket,
        /// Bytes of all tables together.
        bytes_done: u64,
    },
    /// All bytes are here.
    Fetched {
        /// The fetch.
        ticket: Ticket,
    },
    /// All tables are verified and open.
    Opened {
        /// The work that [`Effect::Open`] asked for.
        ticket: Ticket,
    },
    /// A fetch, or verifying and opening, failed.
    Failed {
        /// The work.
        ticket: Ticket,
        /// Why.
        failure: Failure,
    },
    /// The files of a version are out of the way.
    Dropped {
        /// Which.
        id: VersionId,
    },
    /// The deadline came.
    Tick,
}

/// What the shell has to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Copy what is missing of the tables; ends in `Fetched` or `Failed`.
    Fetch {
        /// Names the work.
        ticket: Ticket,
        /// Which version.
        id: VersionId,
        /// Its tables.
        tables: Arc<[TableSpec]>,
    },
    /// Verify, sync and open the fetched tables; ends in `Opened` or `Failed`.
    Open {
        /// Names the work.
        ticket: Ticket,
        /// Which version.
        id: VersionId,
        /// Its tables.
        tables: Arc<[TableSpec]>,
    },
    /// The work is no longer wanted: stop it if it runs, discard what it brought.
    Cancel {
        /// The work.
        ticket: Ticket,
    },
    /// Let readers have the version that this work opened.
    Install {
        /// The work that opened it.
        ticket: Ticket,
        /// Which version.
        id: VersionId,
    },
    /// Answer from this version from now on, and remember so.
    MakeCurrent {
        /// Which version; it is installed.
        id: VersionId,
    },
    /// Answer from no version of this store any more, and forget which it was.
    ClearCurrent {
        /// The store.
        store: String,
    },
    /// Take the version from readers and delete its files once nobody reads them; ends in `Dropped`.
    Drop {
        /// Which version.
        id: VersionId,
    },
    /// Nothing of the store is left.
    ForgetStore {
        /// The store.
        store: String,
    },
}

/// A version's state as the NameNode and people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its tables are being copied, or will be after a pause.
    Fetching,
    /// Its tables are being verified.
    Verifying,
    /// Open, not current.
    Ready,
    /// Open and current here.
    Serving,
    /// Refused; the message says why.
    Failed,
}

/// What this server says of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which version.
    pub id: VersionId,
    /// How far it is.
    pub phase: Phase,
    /// Bytes that are here.
    pub bytes_done: u64,
    /// Bytes of all tables.
    pub bytes_total: u64,
    /// The last failure; empty if there was none.
    pub error: String,
}

/// Pauses, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    /// Before the second attempt; doubles each time.
    pub retry_ms_min: u64,
    /// The longest pause.
    pub retry_ms_max: u64,
    /// Before a failed version that is nevertheless the NameNode's current one is tried afresh.
    pub failed_retry_ms: u64,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { retry_ms_min: 500, retry_ms_max: 30_000, failed_retry_ms: 60_000 }
    }
}

/// Attempts at a fetch that fails for a lasting reason.
const LASTING_ATTEMPTS_MAX: u32 = 5;

#[derive(Debug)]
enum State {
    Waiting {
        retry_at_ms: u64,
    },
    Fetching {
        ticket: Ticket,
    },
    Verifying {
        ticket: Ticket,
    },
    Open,
    Failed {
        at_ms: u64,
    },
    /// `then`: what to fetch in its place once the old files are gone.
    Dropping {
        then: Option<Arc<[TableSpec]>>,
    },
}

#[derive(Debug)]
struct Version {
    tables: Arc<[TableSpec]>,
    state: State,
    bytes_done: u64,
    attempts: u32,
    refetched: bool,
    error: String,
}

impl Version {
    fn new(tables: Arc<[TableSpec]>, state: State) -> Self {
        Self { tables, state, bytes_done: 0, attempts: 0, refetched: false, error: String::new() }
    }

    fn bytes_total(&self) -> u64 {
        self.tables.iter().fold(0, |sum, table| sum.saturating_add(table.bytes))
    }

    fn ticket(&self) -> Option<Ticket> {
        match self.state {
            State::Fetching { ticket } | State::Verifying { ticket } => Some(ticket),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
struct Store {
    wanted: u64,
    serving: Option<u64>,
    listed: BTreeSet<u64>,
    versions: BTreeMap<u64, Version>,
}

/// The state of all versions on this server.
#[derive(Debug)]
pub struct Lifecycle {
    pauses: Pauses,
    stores: BTreeMap<String, Store>,
    txid_seen: u64,
    tickets_given: u64,
}

impl Lifecycle {
    /// A server that holds nothing.
    pub fn new(pauses: Pauses) -> Self {
        Self { pauses, stores: BTreeMap::new(), txid_seen: 0, tickets_given: 0 }
    }

    /// Takes one event and gives what to do about it. `now_ms` never steps back.
    pub fn handle(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Restored { id, tables, current } => {
                self.restore(id, tables, current, &mut effects)
            }
            Event::Assigned { txid, stores } => self.assign(now_ms, txid, stores, &mut effects),
            Event::Progress { ticket, bytes_done } => {
                if let Some((_, version)) = self.find(ticket) {
                    version.bytes_done = bytes_done;
                }
            }
            Event::Fetched { ticket } => self.fetched(ticket, &mut effects),
            Event::Opened { ticket } => self.opened(ticket, &mut effects),
            Event::Failed { ticket, failure } => {
                self.failed(now_ms, ticket, failure, &mut effects);
            }
            Event::Dropped { id } => self.dropped(now_ms, &id, &mut effects),
            Event::Tick => self.tick(now_ms, &mut effects),
        }
        self.assert_invariants();
        effects
    }

    /// When [`Event::Tick`] is due, if ever, in the milliseconds of `now_ms`.
    pub fn deadline_ms(&self) -> Option<u64> {
        let due = |store: &Store, (number, version): (&u64, &Version)| match version.state {
            State::Waiting { retry_at_ms } => Some(retry_at_ms),
            State::Failed { at_ms } if store.wanted == *number => {
                Some(at_ms.saturating_add(self.pauses.failed_retry_ms))
            }
            _ => None,
        };
        self.stores
            .values()
            .flat_map(|store| store.versions.iter().filter_map(move |entry| due(store, entry)))
            .min()
    }

    /// What to tell the NameNode, by store and number.
    pub fn reports(&self) -> Vec<Report> {
        let mut reports = Vec::new();
        for (name, store) in &self.stores {
            for (&number, version) in &store.versions {
                let phase = match version.state {
                    State::Waiting { .. } | State::Fetching { .. } => Phase::Fetching,
                    State::Verifying { .. } => Phase::Verifying,
                    State::Open if store.serving == Some(number) => Phase::Serving,
                    State::Open => Phase::Ready,
                    State::Failed { .. } => Phase::Failed,
                    State::Dropping { .. } => continue,
                };
                reports.push(Report {
                    id: VersionId { store: name.clone(), number },
                    phase,
                    bytes_done: version.bytes_done,
                    bytes_total: version.bytes_total(),
                    error: version.error.clone(),
                });
            }
        }
        reports
    }

    /// The version of `store` that answers.
    pub fn serving(&self, store: &str) -> Option<u64> {
        self.stores.get(store)?.serving
    }

    fn restore(
        &mut self,
        id: VersionId,
        tables: Arc<[TableSpec]>,
        current: bool,
        out: &mut Vec<Effect>,
    ) {
        let store = self.stores.entry(id.store.clone()).or_default();
        let mut version = Version::new(tables, State::Open);
        version.bytes_done = version.bytes_total();
        store.listed.insert(id.number);
        store.versions.insert(id.number, version);
        if current {
            store.wanted = id.number;
            settle(&id.store, store, out);
        }
    }

    fn assign(
        &mut self,
        now_ms: u64,
        txid: u64,
        assignments: Vec<Assignment>,
        out: &mut Vec<Effect>,
    ) {
        if txid < self.txid_seen {
            return;
        }
        self.txid_seen = txid;
        for store in self.stores.values_mut() {
            store.wanted = 0;
            store.listed.clear();
        }
        for assignment in assignments {
            let store = self.stores.entry(assignment.store.clone()).or_default();
            store.wanted = assignment.current;
            store.listed = assignment.versions.iter().map(|(number, _)| *number).collect();
            for (number, tables) in assignment.versions {
                list_version(&assignment.store, store, number, tables, now_ms, out);
            }
        }
        for (name, store) in &mut self.stores {
            settle(name, store, out);
        }
        self.tick(now_ms, out);
        self.forget_empty(out);
    }

    fn fetched(&mut self, ticket: Ticket, out: &mut Vec<Effect>) {
        let next = Ticket(self.tickets_given + 1);
        let Some((id, version)) = self.find(ticket) else { return };
        assert!(matches!(version.state, State::Fetching { .. }), "{id} was being fetched");
        version.state = State::Verifying { ticket: next };
        version.bytes_done = version.bytes_total();
        out.push(Effect::Open { ticket: next, id, tables: version.tables.clone() });
        self.tickets_given = next.0;
    }

    fn opened(&mut self, ticket: Ticket, out: &mut Vec<Effect>) {
        let Some((id, version)) = self.find(ticket) else {
            out.push(Effect::Cancel { ticket });
            return;
        };
        assert!(matches!(version.state, State::Verifying { .. }), "{id} was being verified");
        version.state = State::Open;
        version.error.clear();
        out.push(Effect::Install { ticket, id: id.clone() });
        let store = self.stores.get_mut(&id.store).expect("the version was found in it");
        settle(&id.store, store, out);
    }

    fn failed(&mut self, now_ms: u64, ticket: Ticket, failure: Failure, out: &mut Vec<Effect>) {
        let pauses = self.pauses;
        let Some((_, version)) = self.find(ticket) else { return };
        version.error = failure.message;
        let again = match failure.kind {
            FailureKind::Transient => true,
            FailureKind::Lasting => version.attempts < LASTING_ATTEMPTS_MAX,
            FailureKind::Damaged => !std::mem::replace(&mut version.refetched, true),
            FailureKind::Permanent => false,
        };
        if !again {
            version.state = State::Failed { at_ms: now_ms };
            return;
        }
        let doublings = version.attempts.saturating_sub(1).min(32);
        let pause_ms = match failure.kind {
            FailureKind::Damaged => 0,
            _ => (pauses.retry_ms_min << doublings).min(pauses.retry_ms_max),
        };
        version.state = State::Waiting { retry_at_ms: now_ms.saturating_add(pause_ms) };
        self.tick(now_ms, out);
    }

    fn dropped(&mut self, now_ms: u64, id: &VersionId, out: &mut Vec<Effect>) {
        let Some(store) = self.stores.get_mut(&id.store) else { return };
        let Some(version) = store.versions.get_mut(&id.number) else { return };
        let State::Dropping { then } = &mut version.state else { return };
        match then.take() {
            Some(tables) => *version = Version::new(tables, State::Waiting { retry_at_ms: now_ms }),
            None => {
                store.versions.remove(&id.number);
            }
        }
        self.tick(now_ms, out);
        self.forget_empty(out);
    }

    /// Starts what is due.
    fn tick(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        for (name, store) in &mut self.stores {
            for (&number, version) in &mut store.versions {
                match version.state {
                    State::Waiting { retry_at_ms } if retry_at_ms <= now_ms => {}
                    State::Failed { at_ms }
                        if store.wanted == number
                            && at_ms.saturating_add(self.pauses.failed_retry_ms) <= now_ms =>
                    {
                        version.attempts = 0;
                        version.refetched = false;
                    }
                    _ => continue,
                }
                if let Err(fault) = slot_cover_fault(&version.tables) {
                    version.error = fault;
                    version.state = State::Failed { at_ms: now_ms };
                    continue;
                }
                self.tickets_given += 1;
                let ticket = Ticket(self.tickets_given);
                version.attempts = version.attempts.saturating_add(1);
                version.state = State::Fetching { ticket };
                let id = VersionId { store: name.clone(), number };
                out.push(Effect::Fetch { ticket, id, tables: version.tables.clone() });
            }
        }
    }

    fn forget_empty(&mut self, out: &mut Vec<Effect>) {
        self.stores.retain(|name, store| {
            let keep = !store.versions.is_empty() || store.wanted != 0;
            if !keep {
                out.push(Effect::ForgetStore { store: name.clone() });
            }
            keep
        });
    }

    /// The version that this work is for, unless the work was overtaken.
    fn find(&mut self, ticket: Ticket) -> Option<(VersionId, &mut Version)> {
        self.stores.iter_mut().find_map(|(name, store)| {
            let (&number, version) =
                store.versions.iter_mut().find(|(_, version)| version.ticket() == Some(ticket))?;
            Some((VersionId { store: name.clone(), number }, version))
        })
    }

    fn assert_invariants(&self) {
        for (name, store) in &self.stores {
            if let Some(serving) = store.serving {
                let version = store.versions.get(&serving);
                assert!(
                    version.is_some_and(|version| matches!(version.state, State::Open)),
                    "store {name:?} serves version {serving}, so it is open"
                );
            }
        }
    }
}

/// Takes note that the NameNode wants this version held.
fn list_version(
    name: &str,
    store: &mut Store,
    number: u64,
    tables: Arc<[TableSpec]>,
    now_ms: u64,
    out: &mut Vec<Effect>,
) {
    let Some(version) = store.versions.get_mut(&number) else {
        let waiting = State::Waiting { retry_at_ms: now_ms };
        store.versions.insert(number, Version::new(tables, waiting));
        return;
    };
    let same = same_content(&version.tables, &tables);
    match &mut version.state {
        State::Dropping { then } => *then = Some(tables),
        // The places of the tables may have changed; their content has not.
        _ if same => version.tables = tables,
        // A store of the same name was made anew: its versions count from 1 again.
        _ => {
            if store.serving == Some(number) {
                store.serving = None;
                out.push(Effect::ClearCurrent { store: name.to_owned() });
            }
            start_drop(name, number, version, Some(tables), out);
        }
    }
}

/// Brings a store in line with what is wanted of it, as far as what is open allows.
fn settle(name: &str, store: &mut Store, out: &mut Vec<Effect>) {
    let open = |number: u64| {
        store.versions.get(&number).is_some_and(|version| matches!(version.state, State::Open))
    };
    if store.wanted != 0 && store.serving != Some(store.wanted) && open(store.wanted) {
        store.serving = Some(store.wanted);
        out.push(Effect::MakeCurrent {
            id: VersionId { store: name.into(), number: store.wanted },
        });
    }
    if store.wanted == 0 && store.serving.take().is_some() {
        out.push(Effect::ClearCurrent { store: name.to_owned() });
    }
    for (&number, version) in &mut store.versions {
        let kept = store.listed.contains(&number) || store.serving == Some(number);
        if kept {
            continue;
        }
        match &mut version.state {
            State::Dropping { then } => *then = None,
            _ => start_drop(name, number, version, None, out),
        }
    }
}

fn start_drop(
    name: &str,
    number: u64,
    version: &mut Version,
    then: Option<Arc<[TableSpec]>>,
    out: &mut Vec<Effect>,
) {
    if let Some(ticket) = version.ticket() {
        out.push(Effect::Cancel { ticket });
    }
    version.state = State::Dropping { then };
    out.push(Effect::Drop { id: VersionId { store: name.to_owned(), number } });
}
