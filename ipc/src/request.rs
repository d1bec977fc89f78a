//! The bytes that a client sends: appended to its output, headers by hand and without an allocation.
//!
//! The counterpart of [`crate::wire`]; a test holds one against the other and against the generated messages.

use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use proto::hadoop::hdfs::{IpcConnectionContextProto, UserInformationProto};

use crate::call::Identity;
use crate::wire::{CLIENT_ID_BYTES, CONTEXT, LENGTH_BYTES, MAGIC, PING, SASL, VERSION};

/// What a call asks, without the request message.
#[derive(Clone, Copy, Debug)]
pub struct Method<'a> {
    /// The protocol that declares the method.
    pub protocol: &'a str,
    /// The protocol's version.
    pub version: u64,
    /// The method.
    pub name: &'a str,
}

/// What names one call to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallId {
    /// The client process.
    pub client_id: [u8; CLIENT_ID_BYTES],
    /// The call among that client's.
    pub call_id: i32,
    /// How often it was sent before.
    pub retry_count: i32,
}

/// Appends the preamble of a connection without authentication, and its context.
pub fn hello(out: &mut Vec<u8>, id: [u8; CLIENT_ID_BYTES], identity: &Identity, protocol: &str) {
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[VERSION, 0, 0]);
    context(out, id, identity, protocol);
}

/// Appends the connection context.
pub fn context(out: &mut Vec<u8>, id: [u8; CLIENT_ID_BYTES], identity: &Identity, protocol: &str) {
    let context = IpcConnectionContextProto {
        user_info: Some(UserInformationProto {
            effective_user: Some(identity.user.clone()),
            real_user: identity.real_user.clone(),
        }),
        protocol: Some(protocol.to_owned()),
    };
    special(out, id, CONTEXT, &context.encode_to_vec());
}

/// Appends a frame that only says that the client is there.
pub fn ping(out: &mut Vec<u8>, id: [u8; CLIENT_ID_BYTES]) {
    frame(out, |out| header(out, 0, &CallId { client_id: id, call_id: PING, retry_count: -1 }));
}

/// Appends a step of the SASL exchange: an `RpcSaslProto`, encoded.
pub fn sasl(out: &mut Vec<u8>, message: &[u8]) {
    special(out, [0; CLIENT_ID_BYTES], SASL, message);
}

/// Appends the frame that ends a connection.
pub fn close(out: &mut Vec<u8>, id: [u8; CLIENT_ID_BYTES]) {
    frame(out, |out| header(out, 2, &CallId { client_id: id, call_id: -1, retry_count: -1 }));
}

/// Appends a call.
pub fn call<M: Message>(out: &mut Vec<u8>, id: &CallId, method: &Method<'_>, message: &M) {
    frame(out, |out| {
        header(out, 0, id);
        method_header(out, method);
        encode_varint(message.encoded_len() as u64, out);
        message.encode_raw(out);
    });
}

fn special(out: &mut Vec<u8>, client_id: [u8; CLIENT_ID_BYTES], call_id: i32, message: &[u8]) {
    frame(out, |out| {
        header(out, 0, &CallId { client_id, call_id, retry_count: -1 });
        encode_varint(message.len() as u64, out);
        out.extend_from_slice(message);
    });
}

/// Appends a frame around what `fill` appends.
fn frame(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    fill(out);
    let bytes = (out.len() - start - LENGTH_BYTES) as u32;
    out[start..start + LENGTH_BYTES].copy_from_slice(&bytes.to_be_bytes());
}

/// An `RpcRequestHeaderProto`, behind its length.
fn header(out: &mut Vec<u8>, operation: u8, id: &CallId) {
    let (call_id, retry_count) = (zigzag(id.call_id), zigzag(id.retry_count));
    let bytes = 4
        + (1 + encoded_len_varint(call_id))
        + (2 + CLIENT_ID_BYTES)
        + (1 + encoded_len_varint(retry_count));
    encode_varint(bytes as u64, out);
    out.extend_from_slice(&[1 << 3, 2, 2 << 3, operation, 3 << 3]); // protobuf
    encode_varint(call_id, out);
    out.extend_from_slice(&[4 << 3 | 2, CLIENT_ID_BYTES as u8]);
    out.extend_from_slice(&id.client_id);
    out.push(5 << 3);
    encode_varint(retry_count, out);
}

/// A `RequestHeaderProto`, behind its length.
fn method_header(out: &mut Vec<u8>, method: &Method<'_>) {
    let text_bytes = |text: &str| 1 + encoded_len_varint(text.len() as u64) + text.len();
    let bytes = text_bytes(method.name)
        + text_bytes(method.protocol)
        + 1
        + encoded_len_varint(method.version);
    encode_varint(bytes as u64, out);
    for (tag, text) in [(1 << 3 | 2, method.name), (2 << 3 | 2, method.protocol)] {
        out.push(tag);
        encode_varint(text.len() as u64, out);
        out.extend_from_slice(text.as_bytes());
    }
    out.push(3 << 3);
    encode_varint(method.version, out);
}

fn zigzag(value: i32) -> u64 {
    u64::from(((value << 1) ^ (value >> 31)) as u32)
}
