//! One connection of the Redis protocol: reads what came, answers all complete commands into one buffer, writes it.
//!
//! Commands that arrived together are a batch: all of them are answered from one version of the store. While the peer
//! does not take its replies nothing more is read from it (back pressure), and if it takes none for too long it is
//! disconnected, so that it cannot hold an old version open for ever. Large values go from the table's map to the
//! socket without a copy.
//!
//! Always holds: the output buffer is bounded by the setting plus one value below [`DIRECT_BYTES`]; the input by the
//! largest command; a GET allocates nothing.
#![allow(clippy::disallowed_methods, reason = "a shell: seeds and uptime need the clock")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Buf, BytesMut};
use proto::{Error, Result};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::WriteHalf;

use crate::clients::{Client, Clients};
use crate::command::cursor::Cursors;
use crate::command::{self, Flow, error_line};
use crate::config::Config;
use crate::resp::{Limits, Parser, Protocol, Reply};
use crate::tables::{OpenVersion, Stores};

/// Values from this size on are written without being copied to the output buffer.
const DIRECT_BYTES: usize = 64 << 10;
/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;
/// Memory that an idle connection keeps.
const KEEP_BYTES: usize = 64 << 10;

/// What all connections share.
#[derive(Debug)]
pub struct Front {
    /// What is served.
    pub stores: Arc<Stores>,
    /// Settings.
    pub config: Config,
    /// Who is connected.
    pub clients: Clients,
    /// Positions of SCAN.
    pub cursors: Cursors,
    /// Counts.
    pub counters: Counters,
    /// When the server started.
    pub started: Instant,
    /// This server's identity.
    pub uuid: String,
    random: AtomicU64,
}

/// Counts since the start, over all front ends.
#[derive(Debug, Default)]
pub struct Counters {
    /// Commands and gRPC calls.
    pub commands: AtomicU64,
    /// Keys that were found.
    pub hits: AtomicU64,
    /// Keys that were not found.
    pub misses: AtomicU64,
    /// Reads that failed, for instance on a damaged block.
    pub failures: AtomicU64,
    /// Connections that were refused because there were too many.
    pub refused: AtomicU64,
}

impl Front {
    /// Shared state at the start of a server.
    pub fn new(stores: Arc<Stores>, config: Config, uuid: String) -> Self {
        let seed = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(1, |since| since.as_nanos() as u64);
        Self {
            stores,
            clients: Clients::new(config.connections_max),
            cursors: Cursors::new(config.cursors_max, seed >> 8),
            config,
            counters: Counters::default(),
            started: Instant::now(),
            uuid,
            random: AtomicU64::new(seed),
        }
    }

    /// A number that is hard to tell from a random one (splitmix64); not for secrets.
    pub fn random(&self) -> u64 {
        let mut z = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Which replies a connection does not want (CLIENT REPLY).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Muting {
    /// It wants all.
    None,
    /// It wants none.
    All,
    /// Not the one to the next command.
    NextCommand,
}

/// The state of one connection.
pub struct Session<'s> {
    /// What all connections share.
    pub front: Arc<Front>,
    /// This connection, as others see it.
    pub client: Arc<Client>,
    /// The protocol it speaks.
    pub protocol: Protocol,
    /// The store it chose; empty: the default.
    store: String,
    /// The version that answers this batch.
    version: Option<Arc<OpenVersion>>,
    output: Output<'s>,
    muting: Muting,
    tally: Tally,
}

/// Counts of one batch, added to [`Counters`] at its end.
#[derive(Default)]
struct Tally {
    commands: u64,
    hits: u64,
    misses: u64,
    failures: u64,
}

/// Serves a connection until it ends. Errors are those of the socket.
pub async fn serve(
    mut socket: TcpStream,
    front: Arc<Front>,
    client: Arc<Client>,
) -> io::Result<()> {
    let (mut reader, writer) = socket.split();
    let config = &front.config;
    let limits = Limits {
        args_max: config.arguments_max,
        bulk_bytes_max: config.argument_bytes_max,
        command_bytes_max: config.command_bytes_max.min(u32::MAX as usize - 1),
    };
    let idle = (config.idle_timeout_ms > 0).then(|| Duration::from_millis(config.idle_timeout_ms));
    let mut session = Session::new(front.clone(), client, writer);
    let mut parser = Parser::new(limits);
    let mut input = BytesMut::with_capacity(READ_BYTES);
    loop {
        let flow = session.batch(&mut parser, &mut input).await?;
        session.output.flush().await?;
        if flow == Flow::Close {
            return session.output.finish().await;
        }
        if input.is_empty() && input.capacity() > KEEP_BYTES {
            input = BytesMut::with_capacity(READ_BYTES);
            parser.shrink();
        }
        tokio::task::coop::consume_budget().await;
        input.reserve(READ_BYTES);
        let read = reader.read_buf(&mut input);
        let count = match idle {
            None => read.await?,
            Some(idle) => match tokio::time::timeout(idle, read).await {
                Ok(read) => read?,
                Err(_idle_too_long) => return Ok(()),
            },
        };
        if count == 0 {
            return Ok(());
        }
    }
}

impl<'s> Session<'s> {
    fn new(front: Arc<Front>, client: Arc<Client>, writer: WriteHalf<'s>) -> Self {
        let output = Output {
            socket: writer,
            buffer: BytesMut::with_capacity(READ_BYTES),
            bytes_max: front.config.output_buffer_bytes.max(1024),
            stall: Duration::from_millis(front.config.output_stall_ms_max.max(1)),
            muted: false,
        };
        Self {
            front,
            client,
            protocol: Protocol::Resp2,
            store: String::new(),
            version: None,
            output,
            muting: Muting::None,
            tally: Tally::default(),
        }
    }

    /// Answers all complete commands of `input` and takes them out of it.
    async fn batch(&mut self, parser: &mut Parser, input: &mut BytesMut) -> io::Result<Flow> {
        let mut at = 0;
        let flow = loop {
            if at == input.len() {
                break Flow::Next;
            }
            let bytes = &input[at..];
            match parser.parse(bytes) {
                Ok(Some(taken)) => {
                    let args = parser.args(bytes);
                    at += taken;
                    if args.is_empty() {
                        continue;
                    }
                    self.tally.commands += 1;
                    let skipping = self.muting == Muting::NextCommand;
                    let flow = command::run(self, args).await?;
                    if skipping {
                        self.mute(Muting::None).await?;
                    }
                    self.output.relieve().await?;
                    if flow == Flow::Close {
                        break flow;
                    }
                }
                Ok(None) => break Flow::Next,
                Err(error) => {
                    self.reply().error(&format!("ERR {}", error.0));
                    break Flow::Close;
                }
            }
        };
        input.advance(at);
        self.end_batch();
        Ok(flow)
    }

    fn end_batch(&mut self) {
        self.version = None;
        let tally = std::mem::take(&mut self.tally);
        let counters = &self.front.counters;
        for (counter, count) in [
            (&counters.commands, tally.commands),
            (&counters.hits, tally.hits),
            (&counters.misses, tally.misses),
            (&counters.failures, tally.failures),
        ] {
            if count > 0 {
                counter.fetch_add(count, Relaxed);
            }
        }
        self.client.last_ms.store(self.client.since.elapsed().as_millis() as u64, Relaxed);
    }

    /// Writes a reply.
    pub fn reply(&mut self) -> Reply<'_> {
        Reply::new(&mut self.output.buffer, self.protocol)
    }

    /// The version that answers this batch, and the way to answer.
    pub fn read(&mut self) -> Result<(&OpenVersion, Answering<'_, 's>)> {
        if self.version.is_none() {
            let cell = self.front.stores.get(&self.store)?;
            let view = cell.view();
            match &view.current {
                Some(current) => self.version = Some(current.clone()),
                None => {
                    return Err(view.version(&cell.name, 0).expect_err("there is no current one"));
                }
            }
        }
        let version = self.version.as_deref().expect("it was just loaded");
        let answering =
            Answering { output: &mut self.output, protocol: self.protocol, tally: &mut self.tally };
        Ok((version, answering))
    }

    /// Reads another store from now on.
    pub fn use_store(&mut self, store: &str) -> Result<()> {
        self.front.stores.get(store)?;
        store.clone_into(&mut self.store);
        self.version = None;
        Ok(())
    }

    /// Speaks another version of the protocol from now on.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.client.told().protocol = if protocol == Protocol::Resp3 { 3 } else { 2 };
    }

    /// Puts the connection back to its start.
    pub fn reset(&mut self) {
        self.set_protocol(Protocol::Resp2);
        self.client.told().name.clear();
        self.store.clear();
        self.version = None;
    }

    /// Changes which replies are sent from now on; those before are sent first.
    pub async fn mute(&mut self, muting: Muting) -> io::Result<()> {
        self.output.flush().await?;
        self.muting = muting;
        self.output.muted = muting != Muting::None;
        Ok(())
    }
}

/// Answers a read.
pub struct Answering<'a, 's> {
    output: &'a mut Output<'s>,
    protocol: Protocol,
    tally: &'a mut Tally,
}

impl Answering<'_, '_> {
    /// Writes a reply.
    pub fn reply(&mut self) -> Reply<'_> {
        Reply::new(&mut self.output.buffer, self.protocol)
    }

    /// A key was found.
    pub fn hit(&mut self) {
        self.tally.hits += 1;
    }

    /// A key was not found.
    pub fn miss(&mut self) {
        self.tally.misses += 1;
    }

    /// Answers with an error of a table.
    pub fn failed(&mut self, error: &Error) {
        self.tally.failures += 1;
        self.reply().error(&error_line(error));
    }

    /// Answers with a value, however large; waits while the peer does not take it.
    #[inline]
    pub async fn value(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() < DIRECT_BYTES {
            self.reply().bulk(bytes);
            return self.output.relieve().await;
        }
        let head = format!("${}\r\n", bytes.len());
        self.output.buffer.extend_from_slice(head.as_bytes());
        self.output.flush().await?;
        self.output.write(bytes).await?;
        self.output.buffer.extend_from_slice(b"\r\n");
        Ok(())
    }
}

/// The way out: a buffer and the socket behind it.
struct Output<'s> {
    socket: WriteHalf<'s>,
    buffer: BytesMut,
    bytes_max: usize,
    stall: Duration,
    muted: bool,
}

impl Output<'_> {
    /// Writes the buffer if it has grown large.
    #[inline]
    async fn relieve(&mut self) -> io::Result<()> {
        if self.buffer.len() < self.bytes_max { Ok(()) } else { self.flush().await }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.muted {
            self.buffer.clear();
        }
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        self.write(&buffer).await?;
        buffer.clear();
        if buffer.capacity() > KEEP_BYTES.max(2 * self.bytes_max) {
            buffer = BytesMut::with_capacity(READ_BYTES);
        }
        self.buffer = buffer;
        Ok(())
    }

    async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if self.muted {
            return Ok(());
        }
        while !bytes.is_empty() {
            match self.socket.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let writable = tokio::time::timeout(self.stall, self.socket.writable()).await;
                    writable.map_err(|_| {
                        io::Error::new(
                            io::ErrorKind::TimedOut,
                            "the peer does not take its replies",
                        )
                    })??;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends the stream after the last reply.
    async fn finish(&mut self) -> io::Result<()> {
        tokio::io::AsyncWriteExt::shutdown(&mut self.socket).await
    }
}
