//! The bytes of Hadoop RPC, version 9, as a server reads them: the preamble, frames, and what is in a frame.
//!
//! ```text
//! connection: "hrpc" version:u8=9 service_class:u8 auth:u8 (0 simple, 0xDF SASL), then frames
//! frame:      length:u32, big-endian; then length bytes
//! in a call:  RpcRequestHeaderProto, RequestHeaderProto, the request message; each behind its length as a varint
//! others:     RpcRequestHeaderProto with a call id below 0, then one message ([`CONTEXT`], [`SASL`]) or none ([`PING`])
//! ```
//!
//! Every decoder is total: any bytes give a value or a [`Malformed`] that says what is wrong. What is decoded are
//! slices of the frame; nothing is copied and nothing is allocated but the text of an error.
//!
//! Does no IO, and does not know in which order frames may come: [`crate::session`] does.

use bytes::{Buf, Bytes, BytesMut};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::call::Name;

/// The version of Hadoop's RPC that is spoken here.
pub const VERSION: u8 = 9;
/// What a connection begins with.
pub const MAGIC: &[u8; 4] = b"hrpc";
/// Bytes of the preamble.
pub const PREAMBLE_BYTES: usize = 7;
/// Bytes of a frame's length.
pub const LENGTH_BYTES: usize = 4;
/// Bytes of a client id.
pub const CLIENT_ID_BYTES: usize = 16;
/// Bytes of a method's or protocol's name.
pub const NAME_BYTES_MAX: usize = 1_024;

/// The id of an error that belongs to no call.
pub const NO_CALL: i32 = -1;
/// The id of the frame that holds the connection context.
pub const CONTEXT: i32 = -3;
/// The id of a frame that says only that the client is there.
pub const PING: i32 = -4;
/// The id of a step of the SASL exchange.
pub const SASL: i32 = -33;

/// How a connection is to be authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// The context says who it is.
    Simple,
    /// SASL comes first.
    Sasl,
    /// Something that nobody speaks.
    Unknown(i8),
}

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preamble {
    /// Not enough bytes yet.
    More,
    /// As it should.
    Hadoop(Auth),
    /// With a GET: somebody takes this for a web server.
    Http,
    /// With another version, or with something else, whose fifth byte stands for its version.
    Other(i8),
}

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

/// What an answer repeats of its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// The call.
    pub call_id: i32,
    /// Which attempt.
    pub retry_count: i32,
    client_id: [u8; CLIENT_ID_BYTES],
    client_id_bytes: u8,
}

/// The first message of a frame, as far as a server needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What to repeat in the answer.
    pub reply_to: ReplyTo,
    /// How the call is encoded; 2 is protobuf.
    pub kind: Option<i32>,
    /// 0: a call; 2: the end of the connection.
    pub operation: Option<i32>,
}

/// The second message of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallHeader {
    /// The method.
    pub method: Name,
    /// The protocol that declares it.
    pub protocol: Name,
    /// The version of the protocol that the client speaks.
    pub version: u64,
}

/// How the connection that sent these bytes begins.
pub fn preamble(bytes: &[u8]) -> Preamble {
    if bytes.len() < PREAMBLE_BYTES {
        return Preamble::More;
    }
    if bytes.starts_with(b"GET ") {
        return Preamble::Http;
    }
    if !bytes.starts_with(MAGIC) || bytes[4] != VERSION {
        return Preamble::Other(bytes[4] as i8);
    }
    Preamble::Hadoop(match bytes[6] as i8 {
        0 => Auth::Simple,
        -33 => Auth::Sasl,
        other => Auth::Unknown(other),
    })
}

/// Bytes that the next frame in `input` needs in all, with its length; `None` if its length is not there yet.
pub fn frame_bytes(input: &[u8], frame_bytes_max: usize) -> Result<Option<usize>, Malformed> {
    let Some(length) = input.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = i32::from_be_bytes(*length);
    match usize::try_from(length) {
        Ok(length) if length <= frame_bytes_max => Ok(Some(LENGTH_BYTES + length)),
        _ => Err(Malformed(format!("a frame of {length} bytes; at most {frame_bytes_max}"))),
    }
}

/// Takes the next frame off `input`, if all of it is there.
pub fn take_frame(
    input: &mut BytesMut,
    frame_bytes_max: usize,
) -> Result<Option<Bytes>, Malformed> {
    match frame_bytes(input, frame_bytes_max)? {
        Some(bytes) if input.len() >= bytes => {
            let mut frame = input.split_to(bytes).freeze();
            frame.advance(LENGTH_BYTES);
            Ok(Some(frame))
        }
        _ => Ok(None),
    }
}

/// Takes the next message, which stands behind its length, off a frame.
pub fn take_message(frame: &mut Bytes) -> Result<Bytes, Malformed> {
    let length = decode_varint(frame).map_err(|_| Malformed("a broken length".into()))?;
    match usize::try_from(length) {
        Ok(length) if length <= frame.len() => Ok(frame.split_to(length)),
        _ => Err(Malformed(format!("a message of {length} bytes where {} are left", frame.len()))),
    }
}

impl ReplyTo {
    /// An answer to something that no client counted.
    pub fn nobody(call_id: i32) -> Self {
        Self { call_id, retry_count: -1, client_id: [0; CLIENT_ID_BYTES], client_id_bytes: 0 }
    }

    /// The same without the client's id, as errors that end a connection are sent.
    pub fn without_client(&self) -> Self {
        Self { client_id: [0; CLIENT_ID_BYTES], client_id_bytes: 0, ..*self }
    }

    /// What the client sent as its id.
    pub fn client_id(&self) -> &[u8] {
        &self.client_id[..usize::from(self.client_id_bytes)]
    }

    /// The client's id; zeros if it has none of 16 bytes.
    pub fn whole_client_id(&self) -> [u8; CLIENT_ID_BYTES] {
        match usize::from(self.client_id_bytes) {
            CLIENT_ID_BYTES => self.client_id,
            _ => [0; CLIENT_ID_BYTES],
        }
    }
}

impl FrameHeader {
    /// Reads an `RpcRequestHeaderProto`.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut kind, mut operation, mut call_id, mut client_id) = (None, None, None, None);
        let mut reply_to = ReplyTo::nobody(NO_CALL);
        while !bytes.is_empty() {
            let (tag, wire) = decode_key(&mut bytes).map_err(|_| broken())?;
            match (tag, wire) {
                // An enum's value that is not known is as good as none.
                (1, WireType::Varint) => kind = known(&mut bytes)?.or(kind),
                (2, WireType::Varint) => operation = known(&mut bytes)?.or(operation),
                (3, WireType::Varint) => call_id = Some(zigzag(varint(&mut bytes)?)),
                (4, WireType::LengthDelimited) => client_id = Some(slice(&mut bytes)?),
                (5, WireType::Varint) => reply_to.retry_count = zigzag(varint(&mut bytes)?),
                (1..=5, _) => return Err(broken()),
                _ => skip(tag, wire, &mut bytes)?,
            }
        }
        reply_to.call_id = call_id.ok_or_else(|| missing("callId"))?;
        let client_id = client_id.ok_or_else(|| missing("clientId"))?;
        if client_id.len() > CLIENT_ID_BYTES {
            let got = client_id.len();
            return Err(Malformed(format!(
                "a client id of {got} bytes; at most {CLIENT_ID_BYTES}"
            )));
        }
        reply_to.client_id[..client_id.len()].copy_from_slice(client_id);
        reply_to.client_id_bytes = client_id.len() as u8;
        Ok(Self { reply_to, kind, operation })
    }
}

impl CallHeader {
    /// Reads a `RequestHeaderProto`.
    pub fn decode(message: &Bytes) -> Result<Self, Malformed> {
        let mut bytes = &message[..];
        let (mut method, mut protocol, mut version) = (None, None, None);
        while !bytes.is_empty() {
            let (tag, wire) = decode_key(&mut bytes).map_err(|_| broken())?;
            match (tag, wire) {
                (1, WireType::LengthDelimited) => method = Some(name(message, &mut bytes)?),
                (2, WireType::LengthDelimited) => protocol = Some(name(message, &mut bytes)?),
                (3, WireType::Varint) => version = Some(varint(&mut bytes)?),
                (1..=3, _) => return Err(broken()),
                _ => skip(tag, wire, &mut bytes)?,
            }
        }
        Ok(Self {
            method: method.ok_or_else(|| missing("methodName"))?,
            protocol: protocol.ok_or_else(|| missing("declaringClassProtocolName"))?,
            version: version.ok_or_else(|| missing("clientProtocolVersion"))?,
        })
    }
}

fn missing(field: &str) -> Malformed {
    Malformed(format!("Message missing required fields: {field}"))
}

fn broken() -> Malformed {
    Malformed("a field breaks protobuf's encoding".into())
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    decode_varint(bytes).map_err(|_| broken())
}

/// A value of the enums with three values; others are as good as none.
fn known(bytes: &mut &[u8]) -> Result<Option<i32>, Malformed> {
    let value = varint(bytes)? as i32;
    Ok((0..=2).contains(&value).then_some(value))
}

/// A `sint32`: the lower 32 bits count.
fn zigzag(value: u64) -> i32 {
    let value = value as u32;
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

fn slice<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = usize::try_from(varint(bytes)?).map_err(|_| broken())?;
    let (taken, rest) = bytes.split_at_checked(length).ok_or_else(broken)?;
    *bytes = rest;
    Ok(taken)
}

fn name(message: &Bytes, bytes: &mut &[u8]) -> Result<Name, Malformed> {
    let text = slice(bytes)?;
    if text.len() > NAME_BYTES_MAX {
        let got = text.len();
        return Err(Malformed(format!("a name of {got} bytes; at most {NAME_BYTES_MAX}")));
    }
    Name::new(message.slice_ref(text)).ok_or_else(|| Malformed("a name is not UTF-8".into()))
}

fn skip(tag: u32, wire: WireType, bytes: &mut &[u8]) -> Result<(), Malformed> {
    skip_field(wire, tag, bytes, DecodeContext::default()).map_err(|_| broken())
}

#[cfg(test)]
mod tests;
