//! One call as a service sees it, and what it answers.

use std::net::SocketAddr;
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

/// One call.
pub struct Call {
    /// Who calls.
    pub identity: Arc<Identity>,
    /// From where.
    pub peer: SocketAddr,
    /// The client process: with `call_id` it names the call to the retry cache.
    pub client_id: [u8; 16],
    /// The call among that client's; a retry repeats it.
    pub call_id: i32,
    /// How often it was sent before; -1 if the client does not count.
    pub retry_count: i32,
    /// The name of the protocol that declares the method.
    pub protocol: String,
    /// The method.
    pub method: String,
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
    /// Later; calls that came after may be answered before.
    Later(BoxFuture<'static, Result<Bytes, RpcError>>),
}

/// What answers the calls of a port. It is asked on the connection's own task: what has to wait goes into
/// [`Answer::Later`].
pub trait Service: Send + Sync + 'static {
    /// The version of a protocol that is spoken here; `None` if there is no such protocol.
    fn protocol_version(&self, protocol: &str) -> Option<u64>;
    /// Answers a call; `None` if the protocol has no such method.
    fn call(self: Arc<Self>, call: Call) -> Option<Answer>;
}
