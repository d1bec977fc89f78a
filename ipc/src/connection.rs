//! One connection's task: reads what is there, answers every whole frame in it, and writes all answers at once.
//!
//! It is one poll function rather than several tasks, so that a call costs no hop: a read, the calls in it, a write.
//! Answers that come later are futures of the same task; those that are ready together leave together.
//!
//! What always holds: nothing is read while too many answers are unsent or too many calls are in flight, so a client
//! that does not read is not read from; futures in flight are polled all the same, since they may hold what others wait
//! for. An end is a `FATAL` answer or none, then the end of the stream, then a moment in which the client can read it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use crate::call::{Answer, Call, Name, RpcError, Service};
use crate::reply;
use crate::server::{Port, Taken};
use crate::session::{self, Session, Step};
use crate::settings::Settings;
use crate::wire::ReplyTo;

/// Bytes that are read at once when frames are small.
const READ_BYTES: usize = 16 << 10;
/// With less room than this for the next read, a buffer is made anew.
const READ_BYTES_MIN: usize = 2 << 10;
/// A buffer up to this is a connection's own; a larger one is charged to what all connections may hold.
const SMALL_BYTES: usize = 4 * READ_BYTES;
/// An output buffer that grew beyond this is given back when it is empty.
const OUTPUT_BYTES_KEPT: usize = 256 << 10;
/// The shortest time between two looks at whether a connection moves.
const TICK_MIN: Duration = Duration::from_millis(5);
/// How long a client has to read the last answer.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes that a client may still send while it is told that the connection is over.
const LINGER_BYTES_MAX: usize = 1 << 20;

/// Why a connection ends before its client wanted it to.
enum Lost {
    Io(io::Error),
    Handshake,
    Stalled,
    Idle,
    Memory,
}

struct Connection<S> {
    stream: TcpStream,
    port: Arc<Port<S>>,
    session: Session,
    input: BytesMut,
    large: Taken,
    output: Output,
    waiting: FuturesUnordered<Waiting>,
    permit: Permit,
    protocol: Option<(Name, u64)>,
    /// All whole frames of the input are taken.
    starved: bool,
    over: bool,
    clock: Clock,
}

/// Answers that are not sent yet.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    sent: usize,
}

/// A call in flight.
struct Waiting {
    to: ReplyTo,
    answer: BoxFuture<'static, Result<Bytes, RpcError>>,
    _permit: OwnedSemaphorePermit,
    _large: Option<Taken>,
}

/// The right to have one more call in flight on this port.
enum Permit {
    None,
    Held(OwnedSemaphorePermit),
    Awaited(BoxFuture<'static, OwnedSemaphorePermit>),
}

/// Wakes the connection now and then to see whether anything moves.
struct Clock {
    timer: Pin<Box<Sleep>>,
    tick: Duration,
    armed: bool,
    has_read: bool,
    has_written: bool,
    began_at: Instant,
    read_at: Instant,
    written_at: Instant,
}

/// How long ago something was.
struct Ages {
    connection: Duration,
    read: Duration,
    written: Duration,
}

/// Answers one connection until it ends.
pub(crate) async fn run<S: Service>(stream: TcpStream, peer: SocketAddr, port: Arc<Port<S>>) {
    let mut connection = Connection {
        stream,
        session: Session::new(peer, port.settings.frame_bytes_max),
        input: BytesMut::new(),
        large: port.buffers.nothing(),
        output: Output::default(),
        waiting: FuturesUnordered::new(),
        permit: Permit::None,
        protocol: None,
        starved: true,
        over: false,
        clock: Clock::new(&port.settings),
        port,
    };
    let ended = poll_fn(|cx| connection.poll(cx)).await;
    match ended {
        Ok(()) => linger(connection.stream).await,
        Err(why) => tracing::debug!(%peer, %why, "a Hadoop RPC connection ends"),
    }
}

/// Ends the stream, and reads what the client still sends: closing with bytes unread would take the last answer away
/// from it.
async fn linger(mut stream: TcpStream) {
    let read = async {
        stream.shutdown().await?;
        let mut sink = [0u8; 4_096];
        let mut total = 0;
        while total < LINGER_BYTES_MAX {
            match stream.read(&mut sink).await? {
                0 => break,
                count => total += count,
            }
        }
        io::Result::Ok(())
    };
    if let Ok(Err(error)) = tokio::time::timeout(LINGER, read).await {
        tracing::trace!(%error, "a Hadoop RPC client left first");
    }
}

impl<S: Service> Connection<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        let mut moved = false;
        loop {
            let mut moves = self.finish_calls(cx);
            moves |= self.take_frames(cx);
            moves |= self.write(cx)?;
            if self.over && self.waiting.is_empty() && self.output.is_empty() {
                return Poll::Ready(Ok(()));
            }
            moves |= self.read(cx)?;
            if !moves {
                break;
            }
            moved = true;
        }
        // What woke the task was something else than the timer, which has this task's waker already.
        if moved && self.clock.is_armed() {
            return Poll::Pending;
        }
        self.check_clock(cx)
    }

    /// Puts the answers that are ready into the output; whether there were any.
    fn finish_calls(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while !self.waiting.is_empty()
            && let Poll::Ready(Some((to, result))) = self.waiting.poll_next_unpin(cx)
        {
            reply::answer(&mut self.output.bytes, &to, result.as_deref());
            moved = true;
        }
        moved
    }

    fn may_take_more(&self) -> bool {
        !self.over
            && self.output.len() < self.port.settings.unsent_bytes_max
            && self.waiting.len() < self.port.settings.connection_calls_in_flight_max
    }

    /// Answers the whole frames in the input; whether there were any.
    fn take_frames(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        self.starved = self.input.is_empty();
        while !self.starved && self.may_take_more() && self.permit.poll(&self.port.calls, cx) {
            match self.session.step(&mut self.input, &mut self.output.bytes) {
                Step::More => {
                    self.starved = true;
                    break;
                }
                Step::Done => drop(self.settle_large()),
                Step::Call { call, to, version } => self.call(call, to, version),
                Step::End => {
                    self.over = true;
                    self.input = BytesMut::new();
                }
            }
            self.starved = self.input.is_empty();
            moved = true;
        }
        self.permit.release(self.may_take_more());
        moved
    }

    fn call(&mut self, call: Call, to: ReplyTo, version: u64) {
        let _large = self.settle_large();
        match self.ask(call, version) {
            Answer::Now(result) => {
                reply::answer(&mut self.output.bytes, &to, result.as_deref());
            }
            Answer::Later(answer) => {
                let _permit = self.permit.take();
                self.waiting.push(Waiting { to, answer, _permit, _large });
            }
        }
    }

    /// After a large frame: goes on with a small buffer, and gives what the large one was charged.
    fn settle_large(&mut self) -> Option<Taken> {
        let large = self.large.hand_over()?;
        self.input = BytesMut::from(&self.input[..]);
        Some(large)
    }

    fn ask(&mut self, call: Call, version: u64) -> Answer {
        let known = self.protocol.as_ref().filter(|(known, _)| *known == call.protocol);
        let spoken = match known {
            Some((_, spoken)) => *spoken,
            None => {
                let Some(spoken) = self.port.service.protocol_version(&call.protocol) else {
                    return Answer::Now(Err(session::no_such_protocol(&call.protocol)));
                };
                // A copy: the connection keeps it, but not the buffer that it stands in.
                self.protocol = Some((Name::from(call.protocol.as_str()), spoken));
                spoken
            }
        };
        if spoken != version {
            let error = session::version_mismatch(&call.protocol, version, spoken);
            return Answer::Now(Err(error));
        }
        let (protocol, method) = (call.protocol.clone(), call.method.clone());
        self.port
            .service
            .call(call)
            .unwrap_or_else(|| Answer::Now(Err(session::no_such_method(&protocol, &method))))
    }

    /// Sends what can be sent now; whether anything was.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, Lost> {
        if self.output.is_empty() {
            return Ok(false);
        }
        match Pin::new(&mut self.stream).poll_write(cx, self.output.unsent()) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(count)) => {
                self.output.sent(count);
                self.clock.has_written = true;
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(Lost::Io(error)),
        }
    }

    /// Reads what is there, if it may; whether there was anything.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, Lost> {
        if !self.starved || !self.may_take_more() {
            return Ok(false);
        }
        self.make_room()?;
        match pin!(self.stream.read_buf(&mut self.input)).poll(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => {
                // What the client has asked is answered: it may have closed only its own direction.
                self.over = true;
                Ok(true)
            }
            Poll::Ready(Ok(_)) => {
                self.clock.has_read = true;
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(Lost::Io(error)),
        }
    }

    /// Makes room for the next read: a little, or as much again as has come of a large frame.
    fn make_room(&mut self) -> Result<(), Lost> {
        let have = self.input.len();
        let wanted = self.session.wanted_bytes(&self.input).unwrap_or(0).saturating_sub(have);
        let room = wanted.min(have).max(READ_BYTES);
        if self.input.capacity() - have >= READ_BYTES_MIN.max(wanted.min(READ_BYTES)) {
            return Ok(());
        }
        self.input.reserve(room);
        let capacity = self.input.capacity();
        if capacity > SMALL_BYTES && !self.large.grow_to(capacity) {
            return Err(Lost::Memory);
        }
        Ok(())
    }

    /// Whether the connection takes too long over anything.
    fn check_clock(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        while self.clock.poll(cx).is_ready() {
            let settings = &self.port.settings;
            let ages = self.clock.tick(!self.output.is_empty());
            let mid_frame = self.starved && !self.input.is_empty();
            if !self.session.is_open() && ages.connection >= ms(settings.handshake_ms) {
                return Poll::Ready(Err(Lost::Handshake));
            }
            let stalled = ms(settings.stalled_ms);
            if (mid_frame && ages.read >= stalled) || ages.written >= stalled {
                return Poll::Ready(Err(Lost::Stalled));
            }
            if self.waiting.is_empty() && ages.read >= ms(settings.idle_ms) {
                return Poll::Ready(Err(Lost::Idle));
            }
        }
        Poll::Pending
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Handshake => f.write_str("it did not say in time who it is"),
            Self::Stalled => {
                f.write_str("the rest of a frame did not come, or answers are not read")
            }
            Self::Idle => f.write_str("it was silent for too long"),
            Self::Memory => f.write_str("its frame does not fit into what all may hold"),
        }
    }
}

impl Output {
    fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    fn sent(&mut self, count: usize) {
        self.sent += count;
        if self.is_empty() {
            self.sent = 0;
            self.bytes.clear();
            if self.bytes.capacity() > OUTPUT_BYTES_KEPT {
                self.bytes = Vec::new();
            }
        } else if self.sent > OUTPUT_BYTES_KEPT && self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

impl Future for Waiting {
    type Output = (ReplyTo, Result<Bytes, RpcError>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let to = self.to;
        self.answer.as_mut().poll(cx).map(|result| (to, result))
    }
}

impl Permit {
    /// Whether one is held; if not, the task is woken when one is free.
    fn poll(&mut self, calls: &Arc<Semaphore>, cx: &mut Context<'_>) -> bool {
        if matches!(self, Self::None) {
            *self = match Arc::clone(calls).try_acquire_owned() {
                Ok(permit) => Self::Held(permit),
                Err(_) => {
                    let calls = Arc::clone(calls);
                    Self::Awaited(Box::pin(async move {
                        calls.acquire_owned().await.expect("the semaphore is never closed")
                    }))
                }
            };
        }
        if let Self::Awaited(awaited) = self
            && let Poll::Ready(permit) = awaited.as_mut().poll(cx)
        {
            *self = Self::Held(permit);
        }
        matches!(self, Self::Held(_))
    }

    fn take(&mut self) -> OwnedSemaphorePermit {
        match std::mem::replace(self, Self::None) {
            Self::Held(permit) => permit,
            Self::None | Self::Awaited(_) => unreachable!("a call is taken with a permit held"),
        }
    }

    /// Gives a permit back that no call has taken, and the place in the queue if no call could be taken anyway.
    fn release(&mut self, may_take_more: bool) {
        if matches!(self, Self::Held(_)) || !may_take_more {
            *self = Self::None;
        }
    }
}

impl Clock {
    fn new(settings: &Settings) -> Self {
        let tick = ms(settings.handshake_ms.min(settings.stalled_ms).min(settings.idle_ms) / 4)
            .max(TICK_MIN);
        let now = Instant::now();
        Self {
            timer: Box::pin(tokio::time::sleep(tick)),
            tick,
            armed: false,
            has_read: false,
            has_written: false,
            began_at: now,
            read_at: now,
            written_at: now,
        }
    }

    /// Whether the task will be woken at the next tick.
    fn is_armed(&self) -> bool {
        self.armed && !self.timer.is_elapsed()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.armed = true;
        self.timer.as_mut().poll(cx)
    }

    /// Begins the next tick. Gives how old the connection is, how long nothing has been read, and how long nothing has
    /// been written although something was to be, to within a tick.
    fn tick(&mut self, unsent: bool) -> Ages {
        let now = Instant::now();
        if std::mem::take(&mut self.has_read) {
            self.read_at = now;
        }
        if std::mem::take(&mut self.has_written) || !unsent {
            self.written_at = now;
        }
        self.timer.as_mut().reset(now + self.tick);
        Ages {
            connection: now - self.began_at,
            read: now - self.read_at,
            written: now - self.written_at,
        }
    }
}
