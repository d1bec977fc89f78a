//! Requests and replies: what is said on a connection before and after packets.
//!
//! A request is `u16 28` (the protocol's version), `u8 op`, then a message with its length as a varint in front; a
//! reply is such a message alone. What holds: no message over [`limits::TRANSFER_MESSAGE_BYTES_MAX`] is read; bytes
//! are taken from the stream up to the message's end and not beyond it, so that packets or file descriptors may
//! follow. Wrap the stream in a `BufReader` where a few small reads would each be a system call.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use proto::granary::Block;
use proto::hadoop::hdfs::{
    BaseHeaderProto, BlockOpResponseProto, ClientOperationHeaderProto, ExtendedBlockProto,
    OpBlockChecksumProto, OpBlockGroupChecksumProto, OpReadBlockProto,
    OpRequestShortCircuitAccessProto, OpTransferBlockProto, OpWriteBlockProto, StatusProto,
    TokenProto,
};
use proto::{Code, Error, Result, limits};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The version of the protocol that opens every request.
pub const VERSION: u16 = 28;

/// What a request asks for. Numbers are HDFS's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OpCode {
    /// Write a block, or set up a pipeline again.
    WriteBlock = 80,
    /// Read a range of a block.
    ReadBlock = 81,
    /// Send a finished replica on to other DataNodes.
    TransferBlock = 86,
    /// Hand over the open files of a replica (only on a Unix socket).
    ShortCircuitFds = 87,
    /// The checksum over a block's checksums.
    BlockChecksum = 85,
    /// The same of a striped block group.
    BlockGroupChecksum = 90,
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Write a block, or set up a pipeline again.
    WriteBlock(Box<OpWriteBlockProto>),
    /// Read a range of a block.
    ReadBlock(OpReadBlockProto),
    /// Send a finished replica on to other DataNodes.
    TransferBlock(Box<OpTransferBlockProto>),
    /// Hand over the open files of a replica (only on a Unix socket).
    ShortCircuitFds(OpRequestShortCircuitAccessProto),
    /// The checksum over a block's checksums.
    BlockChecksum(OpBlockChecksumProto),
    /// The same of a striped block group.
    BlockGroupChecksum(Box<OpBlockGroupChecksumProto>),
    /// A request that this version does not know: its number.
    Unknown(u8),
}

impl Request {
    /// Its bytes. [`Request::Unknown`] has no message.
    pub fn encode(&self) -> Bytes {
        let (op, message) = match self {
            Self::WriteBlock(m) => (OpCode::WriteBlock as u8, encode_delimited(m.as_ref())),
            Self::ReadBlock(m) => (OpCode::ReadBlock as u8, encode_delimited(m)),
            Self::TransferBlock(m) => (OpCode::TransferBlock as u8, encode_delimited(m.as_ref())),
            Self::ShortCircuitFds(m) => (OpCode::ShortCircuitFds as u8, encode_delimited(m)),
            Self::BlockChecksum(m) => (OpCode::BlockChecksum as u8, encode_delimited(m)),
            Self::BlockGroupChecksum(m) => {
                (OpCode::BlockGroupChecksum as u8, encode_delimited(m.as_ref()))
            }
            Self::Unknown(op) => (*op, Bytes::new()),
        };
        let mut out = BytesMut::with_capacity(3 + message.len());
        out.put_u16(VERSION);
        out.put_u8(op);
        out.put(message);
        out.freeze()
    }

    /// Decodes the message of op `op`.
    pub fn decode(op: u8, message: Bytes) -> Result<Self> {
        fn parse<M: Message + Default>(message: Bytes) -> Result<M> {
            M::decode(message).map_err(|error| broken(format!("it does not decode: {error}")))
        }
        Ok(match op {
            80 => Self::WriteBlock(Box::new(parse(message)?)),
            81 => Self::ReadBlock(parse(message)?),
            85 => Self::BlockChecksum(parse(message)?),
            86 => Self::TransferBlock(Box::new(parse(message)?)),
            87 => Self::ShortCircuitFds(parse(message)?),
            90 => Self::BlockGroupChecksum(Box::new(parse(message)?)),
            _ => Self::Unknown(op),
        })
    }
}

/// Reads the next request; `None` if the peer closed the connection before its first byte.
///
/// The message of an unknown op is not read: answer and close, or close.
pub async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Request>> {
    let mut head = [0u8; 3];
    let first = stream.read(&mut head[..1]).await.map_err(|e| Error::io("read a request", &e))?;
    if first == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut head[1..]).await.map_err(|e| Error::io("read a request", &e))?;
    let version = u16::from_be_bytes([head[0], head[1]]);
    if version != VERSION {
        return Err(broken(format!("version {version}, expected {VERSION}")));
    }
    let op = head[2];
    if !matches!(op, 80 | 81 | 85..=87 | 90) {
        return Ok(Some(Request::Unknown(op)));
    }
    let message = read_delimited(stream, limits::TRANSFER_MESSAGE_BYTES_MAX).await?;
    Request::decode(op, message).map(Some)
}

/// Reads a reply. Its status may be an error: see [`check`].
pub async fn read_response(stream: &mut (impl AsyncRead + Unpin)) -> Result<BlockOpResponseProto> {
    let message = read_delimited(stream, limits::TRANSFER_MESSAGE_BYTES_MAX).await?;
    BlockOpResponseProto::decode(message).map_err(|error| broken(format!("bad reply: {error}")))
}

/// A reply with a status and nothing else.
pub fn response(status: StatusProto) -> BlockOpResponseProto {
    BlockOpResponseProto { status: status as i32, ..Default::default() }
}

/// A reply that says why not.
///
/// The status carries what HDFS's clients understand; the message carries Granary's own code in front (`[17] ...`),
/// so that native peers get the error back as it was.
pub fn error_response(error: &Error) -> BlockOpResponseProto {
    let status = match error.code {
        Code::Corrupt => StatusProto::ErrorChecksum,
        Code::InvalidArgument => StatusProto::ErrorInvalid,
        Code::AlreadyExists => StatusProto::ErrorExists,
        Code::PermissionDenied => StatusProto::ErrorAccessToken,
        Code::Unsupported => StatusProto::ErrorUnsupported,
        _ => StatusProto::Error,
    };
    let mut reply = response(status);
    reply.message = Some(format!("[{}] {}", error.code as u32, error.message));
    reply
}

/// The error in a reply, if its status is not SUCCESS (or CHECKSUM_OK).
pub fn check(reply: &BlockOpResponseProto) -> Result<()> {
    let status = StatusProto::try_from(reply.status).unwrap_or(StatusProto::Error);
    let code = match status {
        StatusProto::Success | StatusProto::ChecksumOk => return Ok(()),
        StatusProto::ErrorChecksum => Code::Corrupt,
        StatusProto::ErrorInvalid => Code::InvalidArgument,
        StatusProto::ErrorExists => Code::AlreadyExists,
        StatusProto::ErrorAccessToken => Code::PermissionDenied,
        StatusProto::ErrorUnsupported => Code::Unsupported,
        _ => Code::Unavailable,
    };
    let text = reply.message.as_deref().unwrap_or("");
    if let Some((number, rest)) = text.strip_prefix('[').and_then(|text| text.split_once("] "))
        && let Some(code) = number.parse().ok().and_then(Code::from_number)
    {
        return Err(Error::new(code, rest));
    }
    Err(Error::new(code, format!("{status:?} {text}")))
}

/// A message with its length as a varint in front.
pub fn encode_delimited(message: &impl Message) -> Bytes {
    message.encode_length_delimited_to_vec().into()
}

/// Takes a delimited message's bytes from the front of `buffer`; `None` if it is not all there yet.
pub fn decode_delimited(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<Bytes>> {
    let mut length = Varint::default();
    for at in 0..buffer.len() {
        if let Some(length) = length.push(buffer[at], bytes_max)? {
            if buffer.len() - at - 1 < length {
                return Ok(None);
            }
            buffer.advance(at + 1);
            return Ok(Some(buffer.split_to(length).freeze()));
        }
    }
    Ok(None)
}

/// Reads a delimited message's bytes, and no byte beyond them.
pub async fn read_delimited(
    stream: &mut (impl AsyncRead + Unpin),
    bytes_max: usize,
) -> Result<Bytes> {
    let mut length = Varint::default();
    let length = loop {
        let byte = stream.read_u8().await.map_err(|e| Error::io("read a message", &e))?;
        if let Some(length) = length.push(byte, bytes_max)? {
            break length;
        }
    };
    let mut message = BytesMut::with_capacity(length.min(64 << 10));
    while message.len() < length {
        message.reserve((length - message.len()).min(64 << 10));
        let room = length - message.len();
        let mut limited = (&mut message).limit(room);
        let count =
            stream.read_buf(&mut limited).await.map_err(|e| Error::io("read a message", &e))?;
        if count == 0 {
            return Err(Error::new(
                Code::Unavailable,
                format!("the peer closed after {} of {length} bytes of a message", message.len()),
            ));
        }
    }
    Ok(message.freeze())
}

/// A length that arrives byte by byte.
#[derive(Default)]
struct Varint {
    value: u64,
    bytes: u32,
}

impl Varint {
    /// One more byte; the length if it was the last one.
    fn push(&mut self, byte: u8, bytes_max: usize) -> Result<Option<usize>> {
        self.value |= u64::from(byte & 0x7f) << (7 * self.bytes);
        self.bytes += 1;
        if self.value > bytes_max as u64 || (byte & 0x80 != 0 && self.bytes == 5) {
            return Err(broken(format!("a message longer than {bytes_max} bytes")));
        }
        let done = byte & 0x80 == 0;
        Ok(done.then_some(self.value as usize))
    }
}

/// A block as data-transfer messages name it.
pub fn extended_block(pool_id: &str, block: &Block) -> ExtendedBlockProto {
    ExtendedBlockProto {
        pool_id: pool_id.to_owned(),
        block_id: block.id,
        generation_stamp: block.generation_stamp,
        num_bytes: Some(block.length),
    }
}

/// The header of requests about one block, with the empty token of a cluster without security.
pub fn base_header(pool_id: &str, block: &Block) -> BaseHeaderProto {
    BaseHeaderProto {
        block: extended_block(pool_id, block),
        token: Some(TokenProto {
            identifier: Bytes::new(),
            password: Bytes::new(),
            kind: String::new(),
            service: String::new(),
        }),
    }
}

/// The header of requests of a client about one block.
pub fn client_header(pool_id: &str, block: &Block, client: &str) -> ClientOperationHeaderProto {
    ClientOperationHeaderProto {
        base_header: base_header(pool_id, block),
        client_name: client.to_owned(),
    }
}

fn broken(what: String) -> Error {
    Error::new(Code::Incompatible, format!("bad request or reply: {what}"))
}

#[cfg(test)]
mod tests;
