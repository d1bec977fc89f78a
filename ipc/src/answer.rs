//! What a client reads: answers, taken off the bytes of a connection.
//!
//! The counterpart of [`crate::reply`]. Total: any bytes give an answer, a wish for more, or a [`Malformed`] that ends
//! the connection; bodies are slices of the frame. Does no IO, and knows no caller: [`crate::client`] does.

use bytes::{Bytes, BytesMut};
use prost::Message;
use proto::hadoop::hdfs::RpcResponseHeaderProto;
use proto::hadoop::hdfs::rpc_response_header_proto::RpcStatusProto;

use crate::wire::{self, Malformed};

/// An error that the server answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteError {
    /// The Java class that it is.
    pub class: String,
    /// Its message.
    pub message: String,
    /// `RpcErrorCodeProto`; 1 is the application's own.
    pub detail: i32,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The call that it answers; [`wire::NO_CALL`] if none.
    pub call_id: i32,
    /// The reply message, encoded, or why there is none.
    pub result: Result<Bytes, RemoteError>,
    /// Whether the server ends the connection with it.
    pub last: bool,
}

/// Takes the next answer off `input`, if all of it is there.
pub fn take(input: &mut BytesMut, reply_bytes_max: usize) -> Result<Option<Received>, Malformed> {
    let Some(mut frame) = wire::take_frame(input, reply_bytes_max)? else { return Ok(None) };
    let header = RpcResponseHeaderProto::decode(wire::take_message(&mut frame)?)
        .map_err(|error| Malformed(format!("an answer's header: {error}")))?;
    let (call_id, status) = (header.call_id as i32, header.status());
    let result = match status {
        RpcStatusProto::Success => Ok(wire::take_message(&mut frame)?),
        RpcStatusProto::Error | RpcStatusProto::Fatal => Err(RemoteError {
            detail: header.error_detail.unwrap_or(0),
            class: header.exception_class_name.unwrap_or_default(),
            message: header.error_msg.unwrap_or_default(),
        }),
    };
    Ok(Some(Received { call_id, result, last: status == RpcStatusProto::Fatal }))
}
