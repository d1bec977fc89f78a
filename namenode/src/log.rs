//! The log: the one way to change the namespace, and the way to read it.
//!
//! `propose -> journal -> apply -> effects -> reply`. One thread drains the queue of proposals, makes them durable
//! with one sync for all that wait, applies them in order under the state's lock, hands their effects on, and
//! answers. While a sync runs the next batch gathers. Another thread writes checkpoints when enough has changed.
//!
//! Always holds: readers see only what is durable; every acknowledged request is durable; effects come in the order
//! of the transactions. After a failed write or sync of the journal every proposal gets that error, until a restart.
//!
//! The folder: `lock` (held by one process), `identity` (cluster, format, superuser), `journal/`, `checkpoint/`.

mod identity;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, RwLock};
use std::thread::JoinHandle;

use proto::{Code, Error, Result, Txid};
use tokio::sync::{mpsc, oneshot};

use crate::checkpoint::{Checkpoints, Opened, Written};
use crate::journal::{self, Journal, Place, SEGMENT_BYTES_MIN};
use crate::op::{Effect, GROUPS_MAX, REQUEST_BYTES_MAX, Reply, Request};
use crate::state::State;
use identity::Identity;

/// The journal grows by so much at least between two checkpoints, so that one that fails is not tried all the time.
const CHECKPOINT_APART_BYTES: u64 = 1 << 20;

/// What takes the effects of each transaction, in order. Called on the log's thread: it must be quick.
pub type EffectSink = Box<dyn FnMut(Txid, Vec<Effect>) + Send>;

/// How the log works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The owner of the root folder of a new namespace. Of an existing one, the first start's counts.
    pub superuser: String,
    /// Bytes of a journal segment; at least [`SEGMENT_BYTES_MIN`].
    pub journal_segment_bytes: u64,
    /// Proposals that may wait; beyond it, callers wait to be let in.
    pub queue_proposals_max: usize,
    /// Requests of one batch, at most.
    pub batch_requests_max: usize,
    /// Bytes of the requests of one batch at which it is closed.
    pub batch_bytes_max: usize,
    /// A checkpoint is written when the journal grew by so many bytes since the last.
    pub checkpoint_journal_bytes: u64,
    /// A checkpoint is written when so many pages (of about 64 inodes, 128 blocks or 4 folder nodes) changed.
    pub checkpoint_dirty_pages: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            superuser: "root".to_owned(),
            journal_segment_bytes: 64 << 20,
            queue_proposals_max: 16_384,
            batch_requests_max: 4_096,
            batch_bytes_max: 4 << 20,
            checkpoint_journal_bytes: 256 << 20,
            checkpoint_dirty_pages: 100_000,
        }
    }
}

/// What opening found and did.
#[derive(Clone, Debug, Default)]
pub struct OpenReport {
    /// The checkpoint that was loaded; 0 for none.
    pub checkpoint: Txid,
    /// Requests replayed from the journal after it.
    pub replayed: u64,
    /// Checkpoint folders that were damaged and passed over.
    pub damage: Vec<Error>,
    /// Whether a torn batch was cut off the journal's end.
    pub torn_tail: bool,
}

/// The log. Clones share it; dropping the last one stops its threads.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    queue: Option<mpsc::Sender<Command>>,
    threads: Vec<JoinHandle<()>>,
    report: OpenReport,
}

struct Shared {
    state: RwLock<State>,
    identity: Identity,
    last_txid: AtomicU64,
    checkpoint_txid: AtomicU64,
    failure: OnceLock<Error>,
    checkpointer: Checkpointer,
    /// Held for as long as the log lives: no other process works in this folder.
    _lock: std::fs::File,
}

#[derive(Default)]
struct Checkpointer {
    stop: AtomicBool,
    wish: Mutex<Wish>,
    wake: Condvar,
}

#[derive(Default)]
struct Wish {
    wanted: bool,
    waiting: Vec<oneshot::Sender<Result<Written>>>,
}

enum Command {
    Propose { request: Box<Request>, encoded: Vec<u8>, reply: oneshot::Sender<Result<Reply>> },
    Stop { done: oneshot::Sender<Result<()>> },
}

impl Log {
    /// Opens the namespace in `dir`, made if it is not there: loads the newest good checkpoint, replays the journal
    /// after it, and starts the threads. Reads the whole state: call it where blocking is fine.
    pub fn open(dir: &Path, settings: Settings, sink: EffectSink) -> Result<Self> {
        if settings.journal_segment_bytes < SEGMENT_BYTES_MIN {
            let message = format!(
                "journal_segment_bytes is {}, must be at least {SEGMENT_BYTES_MIN}",
                settings.journal_segment_bytes
            );
            return Err(Error::new(Code::InvalidArgument, message));
        }
        let (identity, lock) = identity::claim(dir, &settings.superuser)?;
        let place = Place {
            folder: dir.join("journal"),
            segment_bytes: settings.journal_segment_bytes,
            cluster_id: identity.cluster_id,
        };
        make_folder(&place.folder)?;
        let (checkpoints, state, journal, report) = recover(dir, &place, &identity)?;
        let shared = Arc::new(Shared {
            last_txid: AtomicU64::new(state.txid().0),
            checkpoint_txid: AtomicU64::new(checkpoints.newest().0),
            state: RwLock::new(state),
            identity,
            failure: OnceLock::new(),
            checkpointer: Checkpointer::default(),
            _lock: lock,
        });
        let (queue, proposals) = mpsc::channel(settings.queue_proposals_max.max(1));
        let writer =
            Writer { shared: shared.clone(), settings, journal, sink, since_checkpoint: 0 };
        let folder = place.folder;
        let checkpointing = shared.clone();
        let threads = vec![
            spawn("namenode-log", move || writer.run(proposals))?,
            spawn("namenode-checkpoint", move || {
                run_checkpoints(&checkpointing, checkpoints, &folder)
            })?,
        ];
        Ok(Self { inner: Arc::new(Inner { shared, queue: Some(queue), threads, report }) })
    }

    /// Performs a request: durable when this returns. Waits for room if too many are waiting. If the future is
    /// dropped, the request may still be performed.
    pub async fn propose(&self, request: Request) -> Result<Reply> {
        if let Some(error) = self.inner.shared.failure.get() {
            return Err(error.clone());
        }
        if request.caller.groups.len() > GROUPS_MAX {
            let message = format!("a caller in {} groups", request.caller.groups.len());
            return Err(Error::new(Code::InvalidArgument, message));
        }
        if let Some(reply) = self.shared().read()?.preview(&request)? {
            return Ok(reply);
        }
        let encoded = encode_checked(&request)?;
        let (reply, answer) = oneshot::channel();
        let command = Command::Propose { request: Box::new(request), encoded, reply };
        let queue = self.inner.queue.as_ref().expect("taken only when the log is dropped");
        if queue.send(command).await.is_err() {
            return Err(self.shared().stopped());
        }
        match answer.await {
            Ok(result) => result,
            Err(_) => Err(self.shared().stopped()),
        }
    }

    /// Reads the state, under a lock that changes wait for: no IO and nothing long in `read`.
    pub fn read<R>(&self, read: impl FnOnce(&State) -> R) -> R {
        match self.inner.shared.state.read() {
            Ok(state) => read(&state),
            // A panic in `apply` stops the log; what readers see may be half a change, which beats no answer to the
            // operator who looks for the reason.
            Err(broken) => read(&broken.into_inner()),
        }
    }

    /// The last transaction that readers see.
    pub fn last_txid(&self) -> Txid {
        Txid(self.inner.shared.last_txid.load(Ordering::Acquire))
    }

    /// The transaction of the newest checkpoint.
    pub fn checkpoint_txid(&self) -> Txid {
        Txid(self.inner.shared.checkpoint_txid.load(Ordering::Acquire))
    }

    /// The identity that this folder was given when it was made.
    pub fn cluster_id(&self) -> uuid::Uuid {
        uuid::Uuid::from_bytes(self.inner.shared.identity.cluster_id)
    }

    /// What opening found and did.
    pub fn open_report(&self) -> &OpenReport {
        &self.inner.report
    }

    /// Why nothing is accepted any more, if so.
    pub fn failure(&self) -> Option<Error> {
        self.inner.shared.failure.get().cloned()
    }

    /// Writes a checkpoint now and waits for it.
    pub async fn checkpoint(&self) -> Result<Written> {
        let (done, answer) = oneshot::channel();
        self.shared().ask_for_checkpoint(Some(done));
        answer.await.unwrap_or_else(|_| Err(self.shared().stopped()))
    }

    /// Stops in order: what was proposed before is performed, later proposals are refused, and the journal gets a
    /// mark that shows that it ends here.
    pub async fn shutdown(&self) -> Result<()> {
        self.shared().checkpointer.stop.store(true, Ordering::Relaxed);
        let (done, answer) = oneshot::channel();
        let queue = self.inner.queue.as_ref().expect("taken only when the log is dropped");
        if queue.send(Command::Stop { done }).await.is_err() {
            return self.failure().map_or(Ok(()), Err);
        }
        answer.await.unwrap_or_else(|_| Err(self.shared().stopped()))
    }

    fn shared(&self) -> &Shared {
        &self.inner.shared
    }
}

impl Shared {
    fn read(&self) -> Result<std::sync::RwLockReadGuard<'_, State>> {
        self.state.read().map_err(|_| self.stopped())
    }

    fn stopped(&self) -> Error {
        self.failure.get().cloned().unwrap_or_else(|| {
            Error::new(
                Code::Unavailable,
                "the NameNode's log has stopped; ask again after its restart",
            )
        })
    }

    fn fail(&self, error: &Error) {
        if self.failure.set(error.clone()).is_ok() {
            tracing::error!(%error, "the log is closed for good");
        }
    }

    fn ask_for_checkpoint(&self, waiting: Option<oneshot::Sender<Result<Written>>>) {
        let mut wish = lock(&self.checkpointer.wish);
        wish.wanted = true;
        wish.waiting.extend(waiting);
        self.checkpointer.wake.notify_one();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue = None;
        self.shared.checkpointer.stop.store(true, Ordering::Relaxed);
        drop(lock(&self.shared.checkpointer.wish));
        self.shared.checkpointer.wake.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the log had panicked");
            }
        }
    }
}

/// A mutex whose data is sound after any panic.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|e| Error::io(format!("start the thread {name}"), &e))
}

fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)
        .map_err(|e| Error::io(format!("make {}", folder.display()), &e))?;
    folder.parent().map_or(Ok(()), journal::sync_folder)
}

/// The journal's form of a request. What could not be replayed is refused.
fn encode_checked(request: &Request) -> Result<Vec<u8>> {
    let mut encoded = Vec::with_capacity(256);
    request.encode(&mut encoded);
    if encoded.len() > REQUEST_BYTES_MAX {
        let message = format!("a request of {} bytes, at most {REQUEST_BYTES_MAX}", encoded.len());
        return Err(Error::new(Code::InvalidArgument, message));
    }
    match Request::decode(&encoded) {
        Ok(_) => Ok(encoded),
        Err(why) => {
            let message = format!("{}: a field is out of its bounds: {why}", request.op.name());
            Err(Error::new(Code::InvalidArgument, message))
        }
    }
}

/// Loads the newest good checkpoint and replays the journal after it.
fn recover(
    dir: &Path,
    place: &Place,
    identity: &Identity,
) -> Result<(Checkpoints, State, Journal, OpenReport)> {
    let Opened { checkpoints, state, damage } =
        Checkpoints::open(&dir.join("checkpoint"), identity.cluster_id)?;
    for error in &damage {
        tracing::warn!(%error, "a checkpoint is damaged: an older one and more of the journal replace it");
    }
    let from_nothing = state.is_none();
    let mut state = state.unwrap_or_else(|| State::new(&identity.superuser));
    let checkpoint = state.txid();
    let mut effects = Vec::new();
    let replayed = journal::replay(place, checkpoint, &mut |txid, bytes| {
        let request = Request::decode(bytes)?;
        // What failed when it was proposed fails again, and is answered to nobody.
        let _reply = state.apply(&request, &mut effects);
        effects.clear();
        assert!(state.txid() == txid, "a replay follows the journal's numbers");
        Ok(())
    });
    let replayed = replayed.map_err(|error| explain(error, &damage, from_nothing, dir))?;
    if from_nothing && replayed.first.is_none() && !damage.is_empty() {
        let lost = Error::new(Code::Corrupt, "no checkpoint can be read, and the journal is empty");
        return Err(explain(lost, &damage, true, dir));
    }
    let torn_tail = replayed.tail.as_ref().is_some_and(|tail| tail.torn.is_some());
    let journal = Journal::resume(place.clone(), &replayed, state.txid().next())?;
    let report = OpenReport { checkpoint, replayed: replayed.requests, damage, torn_tail };
    Ok((checkpoints, state, journal, report))
}

/// Says what an operator can do when neither a checkpoint nor the journal gives the whole state.
fn explain(error: Error, damage: &[Error], from_nothing: bool, dir: &Path) -> Error {
    if damage.is_empty() || error.code != Code::Corrupt {
        return error;
    }
    let checkpoints: Vec<_> = damage.iter().map(|error| error.message.clone()).collect();
    let start = if from_nothing { "no checkpoint is good" } else { "only an older one is good" };
    let message = format!(
        "{}; {start} ({}). The namespace can't be rebuilt from {}: restore this folder from a copy of all of it",
        error.message,
        checkpoints.join("; "),
        dir.display()
    );
    Error::new(Code::Corrupt, message)
}

/// The thread that makes proposals durable and performs them.
struct Writer {
    shared: Arc<Shared>,
    settings: Settings,
    journal: Journal,
    sink: EffectSink,
    since_checkpoint: u64,
}

struct Waiting {
    request: Box<Request>,
    reply: oneshot::Sender<Result<Reply>>,
}

impl Writer {
    fn run(mut self, mut proposals: mpsc::Receiver<Command>) {
        let mut encoded = Vec::new();
        let mut waiting = Vec::new();
        while let Some(first) = proposals.blocking_recv() {
            let mut next = Some(first);
            let mut stop = None;
            let mut bytes = 0;
            while let Some(command) = next.take() {
                match command {
                    Command::Propose { request, encoded: request_bytes, reply } => {
                        bytes += request_bytes.len();
                        encoded.push(request_bytes);
                        waiting.push(Waiting { request, reply });
                    }
                    Command::Stop { done } => stop = Some(done),
                }
                let full = encoded.len() >= self.settings.batch_requests_max
                    || bytes >= self.settings.batch_bytes_max;
                if !full && stop.is_none() {
                    next = proposals.try_recv().ok();
                }
            }
            self.commit(&mut encoded, &mut waiting);
            if let Some(done) = stop {
                proposals.close();
                let ended = self.journal.append(&[]).map(|_| ());
                if done.send(ended).is_err() {
                    tracing::debug!("nobody waits for the log to stop");
                }
                return;
            }
        }
    }

    /// One batch: durable, applied, effects handed on, answered.
    fn commit(&mut self, encoded: &mut Vec<Vec<u8>>, waiting: &mut Vec<Waiting>) {
        if waiting.is_empty() {
            return;
        }
        let first = self.journal.next();
        match self.journal.append(encoded) {
            Ok(bytes) => self.since_checkpoint += bytes,
            Err(error) => {
                if let Some(poisoned) = self.journal.failure() {
                    self.shared.fail(poisoned);
                }
                answer_all(waiting, &error);
                encoded.clear();
                return;
            }
        }
        encoded.clear();
        let applied = catch_unwind(AssertUnwindSafe(|| self.apply(first, waiting)));
        let Ok(Some((outcomes, dirty_pages))) = applied else {
            let message = "the state is broken: an operation panicked. Its journal is whole; restart the NameNode";
            let error = Error::new(Code::Internal, message);
            self.shared.fail(&error);
            self.journal.close(error.clone());
            answer_all(waiting, &error);
            return;
        };
        for ((at, one), (reply, effects)) in waiting.drain(..).enumerate().zip(outcomes) {
            if !effects.is_empty() {
                (self.sink)(Txid(first.0 + at as u64), effects);
            }
            // Whoever asked may have gone away: the request is performed all the same.
            let _gone = one.reply.send(reply);
        }
        let many_pages = dirty_pages >= self.settings.checkpoint_dirty_pages
            && self.since_checkpoint >= CHECKPOINT_APART_BYTES;
        if many_pages || self.since_checkpoint >= self.settings.checkpoint_journal_bytes {
            self.since_checkpoint = 0;
            self.shared.ask_for_checkpoint(None);
        }
    }

    /// Applies a durable batch. `None` if the state broke before.
    #[allow(clippy::type_complexity, reason = "read once, right above")]
    fn apply(
        &self,
        first: Txid,
        waiting: &[Waiting],
    ) -> Option<(Vec<(Result<Reply>, Vec<Effect>)>, usize)> {
        let mut state = self.shared.state.write().ok()?;
        let mut outcomes = Vec::with_capacity(waiting.len());
        assert!(state.txid().next() == first, "the state follows the journal");
        for one in waiting {
            let mut effects = Vec::new();
            let reply = state.apply(&one.request, &mut effects);
            outcomes.push((reply, effects));
        }
        self.shared.last_txid.store(state.txid().0, Ordering::Release);
        Some((outcomes, state.dirty_pages_min()))
    }
}

fn answer_all(waiting: &mut Vec<Waiting>, error: &Error) {
    for one in waiting.drain(..) {
        // Whoever asked may have gone away.
        let _gone = one.reply.send(Err(error.clone()));
    }
}

/// The thread that writes checkpoints, and removes the segments that they make needless.
fn run_checkpoints(shared: &Shared, mut checkpoints: Checkpoints, journal_folder: &Path) {
    loop {
        let waiting = {
            let mut wish = lock(&shared.checkpointer.wish);
            while !wish.wanted && !shared.checkpointer.stop.load(Ordering::Relaxed) {
                wish = shared
                    .checkpointer
                    .wake
                    .wait(wish)
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            wish.wanted = false;
            std::mem::take(&mut wish.waiting)
        };
        if shared.checkpointer.stop.load(Ordering::Relaxed) {
            return;
        }
        let result = checkpoints.write(&shared.state, &shared.checkpointer.stop);
        match &result {
            Ok(written) => {
                shared.checkpoint_txid.store(written.txid.0, Ordering::Release);
                tracing::debug!(?written, "checkpoint");
                if let Err(error) = journal::prune(journal_folder, checkpoints.oldest()) {
                    tracing::warn!(%error, "journal segments that are not needed stay");
                }
            }
            Err(error) => tracing::warn!(%error, "no checkpoint: the journal goes on growing"),
        }
        for one in waiting {
            // Whoever asked may have gone away.
            let _gone = one.send(result.clone());
        }
    }
}
