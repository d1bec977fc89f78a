//! One call as a service sees it, and what it answers.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// Who calls, by the connection context: nobody has proved it, as in Hadoop's "simple" mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user the calls are made as. A DataNode's clients may send a block's name here.
    pub user: String,
    /// The user who was authenticated and acts for `user`, if another.
    pub real_user: Option<String>,
}

/// Text that is a part of a frame: as a `&str`, without a copy of its own.
#[derive(Clone, PartialEq, Eq)]
pub struct Name(Bytes);

/// One call.
#[derive(Debug)]
pub struct Call {
    /// Who calls.
    pub identity: Arc<Identity>,
    /// From where.
    pub peer: SocketAddr,
    /// The client process: with `call_id` it names the call to the retry cache. All zero if the client has no id
    /// of 16 bytes: then its calls cannot be told apart.
    pub client_id: [u8; 16],
    /// The call among that client's; a retry repeats it.
    pub call_id: i32,
    /// How often it was sent before; -1 if the client does not count.
    pub retry_count: i32,
    /// The name of the protocol that declares the method.
    pub protocol: Name,
    /// The method.
    pub method: Name,
    /// The request message, encoded.
    pub body: Bytes,
}

/// An error as a Java client gets it: the connection goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError {
    /// The class that the client makes an exception of, with its package.
    pub class: &'static str,
    /// Its message: the first line is what a user reads.
    pub message: String,
    /// Why, for the header: one of `RpcErrorCodeProto`. 1 is the application's own.
    pub detail: i32,
}

/// What a service answers: the reply message, encoded.
pub enum Answer {
    /// At once, without waiting for anything: written with what else is ready for the connection.
    Now(Result<Bytes, RpcError>),
    /// Later; calls that came after may be answered before. Dropped unanswered if the connection ends.
    Later(BoxFuture<'static, Result<Bytes, RpcError>>),
}

/// What answers the calls of a port. It is asked on the connection's own task: what has to wait goes into
/// [`Answer::Later`].
pub trait Service: Send + Sync + 'static {
    /// The version of a protocol that is spoken here; `None` if there is no such protocol.
    fn protocol_version(&self, protocol: &str) -> Option<u64>;
    /// Answers a call; `None` if the protocol has no such method.
    fn call(self: &Arc<Self>, call: Call) -> Option<Answer>;
}

impl RpcError {
    /// An error of the application.
    pub fn application(class: &'static str, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), detail: 1 }
    }
}

impl Name {
    /// The text of these bytes, if they are UTF-8.
    pub fn new(bytes: Bytes) -> Option<Self> {
        std::str::from_utf8(&bytes).is_ok().then_some(Self(bytes))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // SAFETY: `new` checked that the bytes are UTF-8, `from` took them from a `str`, and `Bytes` never change.
        unsafe { std::str::from_utf8_unchecked(&self.0) }
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}
