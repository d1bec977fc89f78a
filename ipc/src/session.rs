//! One connection's conversation, without IO: bytes in, answers out, calls for a service in between.
//!
//! ```text
//! preamble -> [SASL: negotiate -> success, "no need to"] -> context -> calls and pings, until either side ends it
//! ```
//!
//! What always holds: no call comes out before a context told who calls; after [`Step::End`] nothing comes out any
//! more, and why it ended is in the answers; a frame before the context is small; what the peer sends is bounded
//! before it is decoded. Errors and their texts are those that a real HDFS 2.7.3 sends for the same bytes, but: a user must be
//! named, a client id has at most 16 bytes, and the frame that closes a connection closes it without an error.
//!
//! It does not know sockets, time, or which protocols and methods there are.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use proto::hadoop::hdfs::rpc_sasl_proto::SaslState;
use proto::hadoop::hdfs::{IpcConnectionContextProto, RpcSaslProto};

use crate::call::{Call, Identity, RpcError};
use crate::exceptions;
use crate::reply::{self, FatalCode};
use crate::wire::{self, Auth, CallHeader, FrameHeader, Malformed, Preamble, ReplyTo};

/// Bytes of a frame before the context is known: nobody has said who is there.
pub const HANDSHAKE_FRAME_BYTES_MAX: usize = 64 << 10;
/// Bytes of a user's name. A DataNode's clients send a block's name.
pub const USER_BYTES_MAX: usize = 1_024;

/// What came of the bytes so far.
#[derive(Debug)]
pub enum Step {
    /// More bytes are needed.
    More,
    /// Something is done; there may be more in the input.
    Done,
    /// A call: the service's turn.
    Call {
        /// The call.
        call: Call,
        /// What to repeat in its answer.
        to: ReplyTo,
        /// The version of the protocol that the client speaks.
        version: u64,
    },
    /// The conversation is over, once what is in the output and all calls' answers are sent.
    End,
}

/// One connection's conversation.
#[derive(Debug)]
pub struct Session {
    peer: SocketAddr,
    frame_bytes_max: usize,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Nothing is known.
    Preamble,
    /// SASL was announced and has not been settled.
    Sasl,
    /// The next frame must be the context.
    Context,
    /// Calls.
    Open(Arc<Identity>),
    Over,
}

/// An error that ends the conversation.
struct Fatal {
    code: FatalCode,
    class: &'static str,
    message: String,
}

impl Session {
    /// A conversation that has not begun.
    pub fn new(peer: SocketAddr, frame_bytes_max: usize) -> Self {
        Self { peer, frame_bytes_max, phase: Phase::Preamble }
    }

    /// Whether the client has told who it is.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Bytes that the frame at the head of `input` needs in all; `None` while that is not known.
    pub fn wanted_bytes(&self, input: &[u8]) -> Option<usize> {
        match self.phase {
            Phase::Preamble | Phase::Over => None,
            _ => wire::frame_bytes(input, self.frame_bytes_max()).ok().flatten(),
        }
    }

    /// Takes one step: at most one frame off `input`. Answers that ipc itself knows are appended to `output`.
    pub fn step(&mut self, input: &mut BytesMut, output: &mut Vec<u8>) -> Step {
        let step = match self.phase {
            Phase::Over => Step::End,
            Phase::Preamble => self.begin(input, output),
            _ => match wire::take_frame(input, self.frame_bytes_max()) {
                Ok(None) => Step::More,
                Ok(Some(frame)) => self.frame(frame, output),
                // The reference closes without a word: the bytes may be anything.
                Err(Malformed(why)) => {
                    tracing::debug!(peer = %self.peer, why, "a Hadoop RPC connection ends");
                    Step::End
                }
            },
        };
        if matches!(step, Step::End) {
            self.phase = Phase::Over;
        }
        step
    }

    fn frame_bytes_max(&self) -> usize {
        match self.phase {
            Phase::Open(_) => self.frame_bytes_max,
            _ => self.frame_bytes_max.min(HANDSHAKE_FRAME_BYTES_MAX),
        }
    }

    fn begin(&mut self, input: &mut BytesMut, output: &mut Vec<u8>) -> Step {
        match wire::preamble(input) {
            Preamble::More => return Step::More,
            Preamble::Hadoop(Auth::Simple) => self.phase = Phase::Context,
            Preamble::Hadoop(Auth::Sasl) => self.phase = Phase::Sasl,
            // The reference says nothing either.
            Preamble::Hadoop(Auth::Unknown(_)) => return Step::End,
            Preamble::Http => {
                reply::not_http(output);
                return Step::End;
            }
            Preamble::Other(version) => {
                reply::other_version(output, version);
                return Step::End;
            }
        }
        input.advance(wire::PREAMBLE_BYTES);
        Step::Done
    }

    fn frame(&mut self, mut frame: Bytes, output: &mut Vec<u8>) -> Step {
        let mut to = ReplyTo::nobody(wire::NO_CALL);
        match self.frame_or_fatal(&mut frame, &mut to, output) {
            Ok(step) => step,
            Err(Fatal { code, class, message }) => {
                tracing::debug!(peer = %self.peer, message, "a Hadoop RPC connection ends");
                let to = to.without_client();
                reply::fatal(output, &to, code, class, &message);
                Step::End
            }
        }
    }

    fn frame_or_fatal(
        &mut self,
        frame: &mut Bytes,
        to: &mut ReplyTo,
        output: &mut Vec<u8>,
    ) -> Result<Step, Fatal> {
        let header = wire::take_message(frame)
            .and_then(|message| FrameHeader::decode(&message))
            .map_err(|error| undecoded("RpcRequestHeaderProto", &error.0))?;
        *to = header.reply_to;
        match header.operation {
            Some(0) => {}
            Some(2) => return Ok(Step::End),
            Some(_) => {
                let what = "IPC Server does not implement rpc header operation";
                return Err(invalid(format!("{what}RPC_CONTINUATION_PACKET")));
            }
            None => return Err(invalid(" IPC Server: No rpc op in rpcRequestHeader")),
        }
        let kind =
            header.kind.ok_or_else(|| invalid(" IPC Server: No rpc kind in rpcRequestHeader"))?;
        match to.call_id {
            wire::CONTEXT => self.context(frame),
            wire::SASL => self.sasl(frame, output),
            wire::PING => Ok(Step::Done),
            other if other < 0 => Err(invalid(format!("Unknown out of band call #{other}"))),
            _ => self.call(frame, *to, kind),
        }
    }

    fn context(&mut self, frame: &mut Bytes) -> Result<Step, Fatal> {
        match self.phase {
            Phase::Context => {}
            Phase::Sasl => return Err(invalid("Connection header sent during SASL negotiation")),
            _ => return Err(invalid("Connection context already processed")),
        }
        let context: IpcConnectionContextProto = decode("IpcConnectionContextProto", frame)?;
        let info = context.user_info.unwrap_or_default();
        let user = info.effective_user.unwrap_or_default();
        let real_user = info.real_user.filter(|real| !real.is_empty() && *real != user);
        if user.is_empty() {
            return Err(unauthorized("the connection context names no user"));
        }
        if user.len().max(real_user.as_ref().map_or(0, String::len)) > USER_BYTES_MAX {
            return Err(unauthorized(format!("a user's name of more than {USER_BYTES_MAX} bytes")));
        }
        self.phase = Phase::Open(Arc::new(Identity { user, real_user }));
        Ok(Step::Done)
    }

    /// The client would rather prove who it is. It need not: success is the answer that makes it send a context.
    fn sasl(&mut self, frame: &mut Bytes, output: &mut Vec<u8>) -> Result<Step, Fatal> {
        if !matches!(self.phase, Phase::Sasl) {
            return Err(invalid("SASL protocol not requested by client"));
        }
        let message: RpcSaslProto = decode("RpcSaslProto", frame)?;
        if message.state != SaslState::Negotiate as i32 {
            let state = message.state().as_str_name();
            let message = format!("Client sent unsupported state {state}");
            let class = exceptions::SASL;
            return Err(Fatal { code: FatalCode::Unauthorized, class, message });
        }
        let success = RpcSaslProto { state: SaslState::Success as i32, ..Default::default() };
        let to = ReplyTo::nobody(wire::SASL);
        reply::answer(output, &to, Ok(&success.encode_to_vec()));
        self.phase = Phase::Context;
        Ok(Step::Done)
    }

    fn call(&mut self, frame: &mut Bytes, to: ReplyTo, kind: i32) -> Result<Step, Fatal> {
        let Phase::Open(identity) = &self.phase else {
            return Err(invalid("Connection context not established"));
        };
        if kind == 0 {
            return Err(invalid("Unknown rpc kind in rpc headerRPC_BUILTIN"));
        }
        let unreadable = |Malformed(why)| Fatal {
            code: FatalCode::Deserializing,
            class: exceptions::RPC_SERVER,
            message: format!("IPC server unable to read call parameters: {why}"),
        };
        if kind != 2 {
            return Err(unreadable(Malformed("only protobuf is served".into())));
        }
        let header = wire::take_message(frame).map_err(unreadable)?;
        let CallHeader { method, protocol, version } =
            CallHeader::decode(&header).map_err(unreadable)?;
        let body = wire::take_message(frame).map_err(unreadable)?;
        let call = Call {
            identity: Arc::clone(identity),
            peer: self.peer,
            client_id: to.whole_client_id(),
            call_id: to.call_id,
            retry_count: to.retry_count,
            protocol,
            method,
            body,
        };
        Ok(Step::Call { call, to, version })
    }
}

/// There is no such protocol.
pub(crate) fn no_such_protocol(protocol: &str) -> RpcError {
    let message = format!("Unknown protocol: {protocol}");
    RpcError { class: exceptions::NO_SUCH_PROTOCOL, message, detail: 3 }
}

/// The protocol is spoken in another version.
pub(crate) fn version_mismatch(protocol: &str, client: u64, server: u64) -> RpcError {
    let message =
        format!("Protocol {protocol} version mismatch. (client = {client}, server = {server})");
    RpcError { class: exceptions::VERSION_MISMATCH, message, detail: 6 }
}

/// The protocol has no such method.
pub(crate) fn no_such_method(protocol: &str, method: &str) -> RpcError {
    let message = format!("Unknown method {method} called on {protocol} protocol.");
    RpcError { class: exceptions::NO_SUCH_METHOD, message, detail: 2 }
}

fn decode<M: Message + Default>(name: &str, frame: &mut Bytes) -> Result<M, Fatal> {
    let message = wire::take_message(frame).map_err(|error| undecoded(name, &error.0))?;
    M::decode(message).map_err(|error| undecoded(name, &error.to_string()))
}

fn undecoded(name: &str, why: &str) -> Fatal {
    let message = format!("Error decoding {name}: {why}");
    Fatal { code: FatalCode::Deserializing, class: exceptions::RPC_SERVER, message }
}

fn invalid(message: impl Into<String>) -> Fatal {
    let message = message.into();
    Fatal { code: FatalCode::InvalidHeader, class: exceptions::RPC_SERVER, message }
}

fn unauthorized(message: impl Into<String>) -> Fatal {
    let message = message.into();
    Fatal { code: FatalCode::Unauthorized, class: exceptions::ACCESS_CONTROL, message }
}

#[cfg(test)]
mod tests;
