//! A client: one connection, any number of callers, answers in any order.
//!
//! A caller encodes its call into the connection's output under a short lock. The first one there writes it to the
//! socket itself, and whatever others append meanwhile goes with it; only when the socket takes no more does the
//! connection's writer go on. One reader hands each answer to the caller that waits for it. So a call by one caller
//! alone costs one hop, and many callers share their writes.
//!
//! What always holds: calls in flight are bounded, the others wait for their turn; a caller that gives up leaves nothing
//! behind; when the connection is lost, every caller is told, and every later call. Whether to connect again, and
//! whether a call may be asked twice, is the caller's to know: [`CallId`] is what a server tells a retry by.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use prost::Message;
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::AbortHandle;

use crate::answer::{self, Received, RemoteError};
use crate::call::Identity;
use crate::request::{self, CallId, Method};
use crate::wire::{self, CLIENT_ID_BYTES, Malformed, NO_CALL};

/// Bytes read at once, and kept free for the next read.
const READ_BYTES: usize = 32 << 10;
/// With as many calls in flight, callers leave it to the writer to send what all of them have.
const SHARED_WRITE_CALLS: usize = 4;
/// An output buffer that grew beyond this is given back when it is empty.
const OUTPUT_BYTES_KEPT: usize = 256 << 10;

/// Who calls, and the bounds of a connection.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Who calls.
    pub identity: Identity,
    /// The client process, for the server's retry cache.
    pub client_id: [u8; CLIENT_ID_BYTES],
    /// The protocol that the connection is for.
    pub protocol: String,
    /// Calls in flight; more wait for their turn.
    pub calls_in_flight_max: usize,
    /// Bytes of an answer; a longer one ends the connection.
    pub reply_bytes_max: usize,
    /// How often the server is told that the client is still there while it waits, in milliseconds.
    pub ping_interval_ms: u64,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The server answered with an error.
    Remote(RemoteError),
    /// The connection is lost; whether the server has done what was asked is not known.
    Lost(Arc<str>),
}

/// A connection. Clones share it; it is closed with the last one.
#[derive(Clone)]
pub struct Client(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    tasks: [AbortHandle; 2],
}

struct Shared {
    stream: TcpStream,
    client_id: [u8; CLIENT_ID_BYTES],
    turns: Semaphore,
    state: Mutex<State>,
    /// There is output that nobody is writing.
    unwritten: Notify,
}

#[derive(Default)]
struct State {
    waiting: HashMap<i32, oneshot::Sender<Result<Bytes, CallError>>>,
    output: Vec<u8>,
    /// Somebody writes, and will look for more output when it has.
    writing: bool,
    next_call_id: i32,
    lost: Option<Arc<str>>,
}

/// A place among the waiting, until the answer is there.
struct Place<'a> {
    shared: &'a Shared,
    call_id: i32,
}

impl Client {
    /// Connects, and says who calls. That the server agrees shows with the first answer.
    pub async fn connect(
        address: impl ToSocketAddrs,
        settings: ClientSettings,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut output = Vec::new();
        request::hello(&mut output, settings.client_id, &settings.identity, &settings.protocol);
        let shared = Arc::new(Shared {
            stream,
            client_id: settings.client_id,
            turns: Semaphore::new(settings.calls_in_flight_max),
            state: Mutex::new(State { output, ..State::default() }),
            unwritten: Notify::new(),
        });
        let ping_interval = Duration::from_millis(settings.ping_interval_ms);
        let reader = tokio::spawn(read(Arc::clone(&shared), settings.reply_bytes_max));
        let writer = tokio::spawn(write(Arc::clone(&shared), ping_interval));
        let tasks = [reader.abort_handle(), writer.abort_handle()];
        Ok(Self(Arc::new(Handle { shared, tasks })))
    }

    /// Whether the connection is lost: every call from now on will tell so.
    pub fn is_lost(&self) -> bool {
        self.0.shared.lock().lost.is_some()
    }

    /// The name of a call that has not been asked yet.
    pub fn new_call_id(&self) -> CallId {
        let mut state = self.0.shared.lock();
        let call_id = state.next_call_id;
        state.next_call_id = call_id.checked_add(1).unwrap_or(0);
        CallId { client_id: self.0.shared.client_id, call_id, retry_count: 0 }
    }

    /// Asks, and waits for the answer: the reply message, encoded.
    pub async fn call<M: Message>(
        &self,
        method: &Method<'_>,
        message: &M,
    ) -> Result<Bytes, CallError> {
        self.call_as(&self.new_call_id(), method, message).await
    }

    /// Asks under the name of a call that was perhaps asked before, on another connection. No other call of that
    /// number may be in flight on this one.
    pub async fn call_as<M: Message>(
        &self,
        id: &CallId,
        method: &Method<'_>,
        message: &M,
    ) -> Result<Bytes, CallError> {
        let shared = &*self.0.shared;
        let _turn = shared.turns.acquire().await.expect("the semaphore is never closed");
        let (sender, receiver) = oneshot::channel();
        let place = shared.ask(id, sender, |out| request::call(out, id, method, message))?;
        let answer = receiver.await;
        drop(place);
        answer.unwrap_or_else(|_| Err(shared.why_lost()))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.lock().waiting.remove(&self.call_id);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the lock")
    }

    fn why_lost(&self) -> CallError {
        CallError::Lost(self.lock().lost.clone().unwrap_or_else(|| "the client is gone".into()))
    }

    /// Queues a call and its waiter, and writes unless somebody does already.
    fn ask(
        &self,
        id: &CallId,
        sender: oneshot::Sender<Result<Bytes, CallError>>,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Place<'_>, CallError> {
        let mut state = self.lock();
        if let Some(why) = &state.lost {
            return Err(CallError::Lost(Arc::clone(why)));
        }
        let before = state.waiting.insert(id.call_id, sender);
        assert!(before.is_none(), "call {} is in flight already", id.call_id);
        encode(&mut state.output);
        if !state.writing {
            if state.waiting.len() < SHARED_WRITE_CALLS {
                self.write_now(state);
            } else {
                state.writing = true;
                drop(state);
                self.unwritten.notify_one();
            }
        }
        Ok(Place { shared: self, call_id: id.call_id })
    }

    /// Writes until there is nothing more, or the socket takes no more: then the writer is told.
    fn write_now<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        state.writing = true;
        while !state.output.is_empty() {
            let mut output = std::mem::take(&mut state.output);
            drop(state);
            let result = self.stream.try_write(&output);
            state = self.lock();
            match result {
                Ok(count) if count == output.len() => {
                    output.clear();
                    // What others appended meanwhile is in a buffer of its own.
                    if state.output.is_empty() && output.capacity() <= OUTPUT_BYTES_KEPT {
                        state.output = output;
                    }
                    continue;
                }
                Ok(count) => drop(output.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    drop(state);
                    self.lose(&format!("write to the server: {error}"));
                    return;
                }
            }
            output.append(&mut state.output);
            state.output = output;
            // `writing` stays: the writer goes on.
            self.unwritten.notify_one();
            return;
        }
        state.writing = false;
    }

    /// Tells everybody that the connection is lost.
    fn lose(&self, why: &str) {
        let mut state = self.lock();
        let why = Arc::clone(state.lost.get_or_insert_with(|| why.into()));
        let waiting = std::mem::take(&mut state.waiting);
        state.output = Vec::new();
        drop(state);
        for (_, sender) in waiting {
            deliver(sender, Err(CallError::Lost(Arc::clone(&why))));
        }
    }

    /// Hands the whole answers of `input` to those who wait; an error ends the connection.
    fn answer(&self, input: &mut BytesMut, reply_bytes_max: usize) -> Result<(), Malformed> {
        while let Some(Received { call_id, result, last }) = answer::take(input, reply_bytes_max)? {
            let result = result.map_err(CallError::Remote);
            let end = match &result {
                Err(error) if last => {
                    Err(Malformed(format!("the server ended the connection: {error}")))
                }
                _ => Ok(()),
            };
            if !last || call_id != NO_CALL {
                self.deliver_to(call_id, result);
            }
            end?;
        }
        Ok(())
    }

    fn deliver_to(&self, call_id: i32, result: Result<Bytes, CallError>) {
        // A caller may have given up: then nobody waits.
        let sender = self.lock().waiting.remove(&call_id);
        if let Some(sender) = sender {
            deliver(sender, result);
        }
    }
}

fn deliver(sender: oneshot::Sender<Result<Bytes, CallError>>, result: Result<Bytes, CallError>) {
    if sender.send(result).is_err() {
        tracing::trace!("a caller gave up before its answer was there");
    }
}

/// Reads answers until the connection ends.
async fn read(shared: Arc<Shared>, reply_bytes_max: usize) {
    let mut input = BytesMut::new();
    let why = loop {
        if let Err(error) = shared.stream.readable().await {
            break format!("read from the server: {error}");
        }
        let wanted = wire::frame_bytes(&input, reply_bytes_max).ok().flatten().unwrap_or(0);
        let missing = wanted.saturating_sub(input.len());
        input.reserve(missing.min(input.len()).max(READ_BYTES));
        match shared.stream.try_read_buf(&mut input) {
            Ok(0) => break "the server closed the connection".to_owned(),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => break format!("read from the server: {error}"),
        }
        if let Err(Malformed(why)) = shared.answer(&mut input, reply_bytes_max) {
            break why;
        }
    };
    shared.lose(&why);
}

/// Writes what callers could not, and pings while they wait.
async fn write(shared: Arc<Shared>, ping_interval: Duration) {
    loop {
        if tokio::time::timeout(ping_interval, shared.unwritten.notified()).await.is_err() {
            let mut state = shared.lock();
            if state.lost.is_some() {
                return;
            }
            if !state.waiting.is_empty() && !state.writing {
                request::ping(&mut state.output, shared.client_id);
                shared.write_now(state);
            }
            continue;
        }
        // Who runs now may have more to send: it goes with the rest.
        tokio::task::yield_now().await;
        if let Err(error) = shared.stream.writable().await {
            shared.lose(&format!("write to the server: {error}"));
            return;
        }
        let state = shared.lock();
        if state.lost.is_some() {
            return;
        }
        shared.write_now(state);
    }
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            identity: Identity { user: String::new(), real_user: None },
            client_id: [0; CLIENT_ID_BYTES],
            protocol: String::new(),
            calls_in_flight_max: 4_096,
            reply_bytes_max: crate::reply::REPLY_BYTES_MAX,
            ping_interval_ms: 60_000,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(RemoteError { class, message, .. }) => write!(f, "{class}: {message}"),
            Self::Lost(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for CallError {}
