//! Performs what the [`lifecycle`](crate::lifecycle) asks for: one task that owns it, and the work that it starts.
//!
//! Assignments and outcomes of work arrive over one bounded channel; effects are performed in order. Readers see changes
//! through [`Stores`]; the stream to the NameNode watches the reports. Errors of local files are logged here.
//!
//! Always holds: a switch is stored for readers first and recorded on disk second; files of a dropped version leave by
//! one rename and are deleted when the last request that reads them has ended.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proto::{Code, Error, Result};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tracing::{info, warn};

use crate::fetch::{Fetcher, failure_of, off_thread, open_verified, verify_and_open};
use crate::folder::Folder;
use crate::lifecycle::{
    Assignment, Effect, Event, Failure, Lifecycle, Pauses, Phase, Report, Ticket, VersionId,
};
use crate::tables::{OpenVersion, Stores};
use crate::tablespec::TableSpec;

#[cfg(test)]
mod tests;

/// Messages that wait for the engine.
const MESSAGES_MAX: usize = 1024;
/// How often the reports are brought up to date while tables are fetched.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// What the engine works with.
pub struct Parts {
    /// The local folder.
    pub folder: Arc<Folder>,
    /// What readers see.
    pub stores: Arc<Stores>,
    /// Copies tables.
    pub fetcher: Arc<Fetcher>,
    /// Threads that verify tables of one version.
    pub verify_threads: usize,
    /// Read tables into memory before they serve.
    pub warm: bool,
    /// Pauses between attempts.
    pub pauses: Pauses,
}

enum Message {
    Assigned { txid: u64, stores: Vec<Assignment> },
    Outcome(Ticket, Outcome),
    Stop,
}

enum Outcome {
    Fetched,
    Opened(Box<OpenVersion>, oneshot::Receiver<()>),
    Failed(Failure),
}

enum Work {
    Fetching { abort: AbortHandle, done: Arc<AtomicU64> },
    Opening,
    Opened(Box<OpenVersion>, oneshot::Receiver<()>),
}

/// Talks to the running engine.
#[derive(Clone)]
pub struct EngineClient {
    messages: mpsc::Sender<Message>,
    reports: watch::Receiver<Arc<Vec<Report>>>,
}

impl EngineClient {
    /// Hands on what the NameNode wants held.
    pub async fn assign(&self, txid: u64, stores: Vec<Assignment>) -> Result<()> {
        let sent = self.messages.send(Message::Assigned { txid, stores }).await;
        sent.map_err(|_| Error::new(Code::Unavailable, "the server is stopping"))
    }

    /// What to tell the NameNode; changes are announced.
    pub fn reports(&self) -> watch::Receiver<Arc<Vec<Report>>> {
        self.reports.clone()
    }

    /// Ends the engine; work in progress is abandoned and goes on at the next start.
    pub async fn stop(&self) {
        // An error means that it has ended already.
        let _ended = self.messages.send(Message::Stop).await.is_err();
    }
}

struct Engine {
    parts: Parts,
    lifecycle: Lifecycle,
    started: Instant,
    work: HashMap<Ticket, Work>,
    /// Complete when the last user of an installed version has let it go.
    closed: HashMap<VersionId, oneshot::Receiver<()>>,
    sender: mpsc::Sender<Message>,
    reports: watch::Sender<Arc<Vec<Report>>>,
}

/// Opens what is complete in the folder, so that it serves when this returns, and starts the engine.
pub async fn start(parts: Parts) -> Result<(EngineClient, JoinHandle<()>)> {
    let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
    let (reports, reports_seen) = watch::channel(Arc::default());
    let client = EngineClient { messages: sender.clone(), reports: reports_seen };
    let mut engine = Engine {
        lifecycle: Lifecycle::new(parts.pauses),
        parts,
        started: Instant::now(),
        work: HashMap::new(),
        closed: HashMap::new(),
        sender,
        reports,
    };
    engine.restore().await?;
    Ok((client, tokio::spawn(engine.run(receiver))))
}

impl Engine {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        loop {
            let fetching = self.work.values().any(|work| matches!(work, Work::Fetching { .. }));
            let deadline = self
                .lifecycle
                .deadline_ms()
                .map(|at| Duration::from_millis(at).saturating_sub(self.started.elapsed()));
            let pause = match deadline {
                Some(pause) if !fetching => pause,
                Some(pause) => pause.min(PROGRESS_INTERVAL),
                None if fetching => PROGRESS_INTERVAL,
                None => Duration::from_secs(3600),
            };
            let message = tokio::time::timeout(pause, messages.recv()).await;
            match message {
                Err(_elapsed) => self.handle(Event::Tick).await,
                Ok(None | Some(Message::Stop)) => break,
                Ok(Some(Message::Assigned { txid, stores })) => {
                    self.handle(Event::Assigned { txid, stores }).await;
                }
                Ok(Some(Message::Outcome(ticket, outcome))) => self.outcome(ticket, outcome).await,
            }
            self.publish_reports();
        }
        for work in self.work.values() {
            if let Work::Fetching { abort, .. } = work {
                abort.abort();
            }
        }
    }

    /// Opens the versions that were complete when the server stopped.
    async fn restore(&mut self) -> Result<()> {
        let folder = self.parts.folder.clone();
        let found = off_thread(move || {
            let versions = folder.local_versions(|path, error| {
                warn!(path = %path.display(), %error, "a local record is damaged: fetching anew");
            })?;
            let open = |version: crate::folder::LocalVersion| {
                let tables = open_verified(&folder.version_folder(&version.id), &version.tables);
                (version, tables)
            };
            Ok(versions.into_iter().map(open).collect::<Vec<_>>())
        })
        .await?;
        for (version, tables) in found {
            let opened = tables.and_then(|tables| OpenVersion::new(version.id.number, tables));
            match opened {
                Ok((open, closed)) => {
                    self.install(&version.id, open, closed);
                    let id = version.id;
                    let (tables, current) = (version.tables, version.current);
                    self.handle(Event::Restored { id, tables, current }).await;
                }
                Err(error) => {
                    warn!(version = %version.id, %error, "a local table is damaged: fetching anew");
                    self.discard(&version.id).await;
                }
            }
        }
        self.publish_reports();
        Ok(())
    }

    async fn outcome(&mut self, ticket: Ticket, outcome: Outcome) {
        match outcome {
            Outcome::Fetched => {
                self.work.remove(&ticket);
                self.handle(Event::Fetched { ticket }).await;
            }
            Outcome::Opened(version, closed) => {
                self.work.insert(ticket, Work::Opened(version, closed));
                self.handle(Event::Opened { ticket }).await;
            }
            Outcome::Failed(failure) => {
                self.work.remove(&ticket);
                warn!(kind = ?failure.kind, "{}", failure.message);
                self.handle(Event::Failed { ticket, failure }).await;
            }
        }
    }

    async fn handle(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now_ms = self.started.elapsed().as_millis() as u64;
            for effect in self.lifecycle.handle(now_ms, event) {
                events.extend(self.perform(effect).await);
            }
        }
    }

    async fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Fetch { ticket, id, tables } => self.start_fetch(ticket, id, tables),
            Effect::Open { ticket, id, tables } => self.start_open(ticket, id, tables),
            Effect::Cancel { ticket } => {
                if let Some(Work::Fetching { abort, .. }) = self.work.remove(&ticket) {
                    abort.abort();
                }
            }
            Effect::Install { ticket, id } => match self.work.remove(&ticket) {
                Some(Work::Opened(version, closed)) => self.install(&id, *version, closed),
                _ => panic!("{id} is installed from work that opened it"),
            },
            Effect::MakeCurrent { id } => {
                self.parts.stores.make_current(&id.store, id.number);
                info!(store = id.store, version = id.number, "serving");
                self.record_current(id.store, Some(id.number)).await;
            }
            Effect::ClearCurrent { store } => {
                self.parts.stores.clear_current(&store);
                self.record_current(store, None).await;
            }
            Effect::Drop { id } => {
                self.parts.stores.remove(&id.store, id.number);
                self.discard(&id).await;
                return Some(Event::Dropped { id });
            }
            Effect::ForgetStore { store } => {
                self.parts.stores.forget(&store);
                let folder = self.parts.folder.clone();
                log_failure(off_thread(move || folder.forget_store(&store)).await);
            }
        }
        None
    }

    fn install(&mut self, id: &VersionId, version: OpenVersion, closed: oneshot::Receiver<()>) {
        self.parts.stores.install(&id.store, Arc::new(version));
        self.closed.insert(id.clone(), closed);
    }

    async fn record_current(&self, store: String, number: Option<u64>) {
        let folder = self.parts.folder.clone();
        log_failure(off_thread(move || folder.record_current(&store, number)).await);
    }

    /// Moves the files of a version away, and has them deleted when nobody reads them.
    async fn discard(&mut self, id: &VersionId) {
        let (folder, wanted) = (self.parts.folder.clone(), id.clone());
        let moved = off_thread(move || folder.discard(&wanted)).await;
        let closed = self.closed.remove(id);
        if let Some(Some(path)) = log_failure(moved) {
            tokio::spawn(delete_when_closed(path, closed));
        }
    }

    fn start_fetch(&mut self, ticket: Ticket, id: VersionId, tables: Arc<[TableSpec]>) {
        info!(store = id.store, version = id.number, tables = tables.len(), "fetching");
        let done = Arc::new(AtomicU64::new(0));
        let (fetcher, folder) = (self.parts.fetcher.clone(), self.parts.folder.clone());
        let (sender, counter) = (self.sender.clone(), done.clone());
        let task = tokio::spawn(async move {
            let outcome = async {
                let made = off_thread(move || folder.make_version_folder(&id)).await;
                fetcher.fetch(&made.map_err(failure_of)?, &tables, &counter).await
            };
            let outcome = match outcome.await {
                Ok(()) => Outcome::Fetched,
                Err(failure) => Outcome::Failed(failure),
            };
            // The engine has ended: nobody needs the outcome.
            let _ended = sender.send(Message::Outcome(ticket, outcome)).await.is_err();
        });
        self.work.insert(ticket, Work::Fetching { abort: task.abort_handle(), done });
    }

    fn start_open(&mut self, ticket: Ticket, id: VersionId, tables: Arc<[TableSpec]>) {
        self.work.insert(ticket, Work::Opening);
        let folder = self.parts.folder.clone();
        let (threads, warm) = (self.parts.verify_threads, self.parts.warm);
        let sender = self.sender.clone();
        tokio::task::spawn_blocking(move || {
            let open = || {
                let path = folder.version_folder(&id);
                let open = verify_and_open(&path, &tables, threads, warm)?;
                folder.mark_complete(&id, &tables).map_err(failure_of)?;
                OpenVersion::new(id.number, open).map_err(failure_of)
            };
            let outcome = match open() {
                Ok((version, closed)) => Outcome::Opened(Box::new(version), closed),
                Err(failure) => Outcome::Failed(failure),
            };
            // The engine has ended: nobody needs the outcome.
            let _ended = sender.blocking_send(Message::Outcome(ticket, outcome)).is_err();
        });
    }

    fn publish_reports(&mut self) {
        let now_ms = self.started.elapsed().as_millis() as u64;
        for (&ticket, work) in &self.work {
            if let Work::Fetching { done, .. } = work {
                let bytes_done = done.load(Ordering::Relaxed);
                let progress = Event::Progress { ticket, bytes_done };
                let effects = self.lifecycle.handle(now_ms, progress);
                assert!(effects.is_empty(), "progress has no effect");
            }
        }
        let reports = self.lifecycle.reports();
        self.reports.send_if_modified(|last| {
            let changed = **last != reports;
            if changed {
                log_refusals(last, &reports);
                *last = Arc::new(reports);
            }
            changed
        });
    }
}

/// Tells of versions that were refused since the last reports.
fn log_refusals(last: &[Report], reports: &[Report]) {
    for report in reports.iter().filter(|report| report.phase == Phase::Failed) {
        let known = last.iter().any(|old| old.id == report.id && old.phase == Phase::Failed);
        if !known {
            warn!(version = %report.id, error = report.error, "refused: the version before it goes on serving");
        }
    }
}

fn log_failure<T>(outcome: Result<T>) -> Option<T> {
    outcome.inspect_err(|error| warn!(%error, "a change of the local folder failed")).ok()
}

async fn delete_when_closed(path: PathBuf, closed: Option<oneshot::Receiver<()>>) {
    if let Some(closed) = closed {
        // The sender sits in the version and never sends: an error is what its end looks like.
        let _gone = closed.await.is_err();
    }
    let deleted = off_thread(move || {
        std::fs::remove_dir_all(&path)
            .map_err(|error| Error::io(format!("delete {}", path.display()), &error))
    });
    log_failure(deleted.await);
}
