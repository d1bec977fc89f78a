//! The bytes of answers: appended to a connection's output, headers by hand and without an allocation.
//!
//! Field order, presence and the two's complement of negative call ids are as Hadoop's servers write them; a test
//! holds the bytes against the generated message.
//!
//! Does no IO; when a connection ends after an answer is [`crate::session`]'s business.

use crate::call::RpcError;
use crate::exceptions;
use crate::wire::{LENGTH_BYTES, NO_CALL, ReplyTo, VERSION};

/// Bytes of an error's message; what is longer is cut.
pub const ERROR_BYTES_MAX: usize = 64 << 10;
/// Bytes of a reply message: what Java's clients take by default.
pub const REPLY_BYTES_MAX: usize = 120 << 20;

/// Why a connection ends: `RpcErrorCodeProto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FatalCode {
    /// A header breaks a rule, or came out of order.
    InvalidHeader = 12,
    /// Bytes that are no message.
    Deserializing = 13,
    /// Another version of the RPC.
    Version = 14,
    /// An authentication that cannot be had here.
    Unauthorized = 15,
}

const STATUS_SUCCESS: u8 = 0;
const STATUS_ERROR: u8 = 1;
const STATUS_FATAL: u8 = 2;

const HTTP_BODY: &str = "This port speaks Hadoop's RPC (hdfs://), not HTTP. \
                         The status page and WebHDFS have a port of their own.\n";

/// Appends the answer to a call.
pub fn answer(out: &mut Vec<u8>, to: &ReplyTo, result: Result<&[u8], &RpcError>) {
    match result {
        Ok(body) if body.len() > REPLY_BYTES_MAX => {
            let got = body.len();
            let message = format!("a reply of {got} bytes; at most {REPLY_BYTES_MAX}");
            let error = RpcError { class: exceptions::RPC_SERVER, message, detail: 5 };
            answer(out, to, Err(&error));
        }
        Ok(body) => frame(out, |out| {
            let header_bytes = header_bytes(to);
            varint(out, header_bytes as u64);
            header_start(out, to, STATUS_SUCCESS);
            header_end(out, to);
            varint(out, body.len() as u64);
            out.extend_from_slice(body);
        }),
        Err(error) => {
            failure(out, to, STATUS_ERROR, error.class, &error.message, error.detail as u32);
        }
    }
}

/// Appends the error that ends the connection.
pub fn fatal(out: &mut Vec<u8>, to: &ReplyTo, code: FatalCode, class: &str, message: &str) {
    failure(out, to, STATUS_FATAL, class, message, code as u32);
}

/// Appends what a client of another version understands.
pub fn other_version(out: &mut Vec<u8>, version: i8) {
    let class = exceptions::VERSION_MISMATCH;
    let message =
        format!("Server IPC version {VERSION} cannot communicate with client version {version}");
    match version {
        9.. => fatal(out, &ReplyTo::nobody(NO_CALL), FatalCode::Version, class, &message),
        3..=8 => {
            out.extend_from_slice(&(-1i32).to_be_bytes()); // no call
            out.extend_from_slice(&(-1i32).to_be_bytes()); // fatal
            old_string(out, class);
            old_string(out, &message);
        }
        2 => {
            out.extend_from_slice(&0i32.to_be_bytes()); // call 0
            out.push(1); // failed
            old_string(out, class);
            old_string(out, &message);
        }
        // Nothing that could be called a version: there is no telling what it would understand.
        _ => {}
    }
}

/// Appends what a web browser understands.
pub fn not_http(out: &mut Vec<u8>) {
    let head = format!(
        "HTTP/1.1 404 Not Found\r\nContent-type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        HTTP_BODY.len()
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(HTTP_BODY.as_bytes());
}

fn failure(out: &mut Vec<u8>, to: &ReplyTo, status: u8, class: &str, message: &str, detail: u32) {
    let message = cut(message);
    let texts = 2
        + varint_bytes(class.len() as u64)
        + class.len()
        + varint_bytes(message.len() as u64)
        + message.len();
    let bytes = header_bytes(to) + texts + 1 + varint_bytes(u64::from(detail));
    frame(out, |out| {
        varint(out, bytes as u64);
        header_start(out, to, status);
        text(out, 4, class.as_bytes());
        text(out, 5, message.as_bytes());
        out.push(6 << 3);
        varint(out, u64::from(detail));
        header_end(out, to);
    });
}

/// The message as far as it may go, cut between two characters.
fn cut(message: &str) -> &str {
    let end =
        (0..=message.len().min(ERROR_BYTES_MAX)).rev().find(|&at| message.is_char_boundary(at));
    &message[..end.unwrap_or(0)]
}

/// Appends a frame around what `fill` appends.
fn frame(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    fill(out);
    let bytes = (out.len() - start - LENGTH_BYTES) as u32;
    out[start..start + LENGTH_BYTES].copy_from_slice(&bytes.to_be_bytes());
}

/// Bytes of a header without an error.
fn header_bytes(to: &ReplyTo) -> usize {
    let id = to.client_id().len();
    let call_and_status = 1 + varint_bytes(u64::from(to.call_id as u32)) + 2 + 2;
    call_and_status + 1 + varint_bytes(id as u64) + id + 1 + varint_bytes(zigzag(to.retry_count))
}

fn header_start(out: &mut Vec<u8>, to: &ReplyTo, status: u8) {
    out.push(1 << 3);
    varint(out, u64::from(to.call_id as u32));
    out.extend_from_slice(&[2 << 3, status, 3 << 3, VERSION]);
}

fn header_end(out: &mut Vec<u8>, to: &ReplyTo) {
    text(out, 7, to.client_id());
    out.push(8 << 3);
    varint(out, zigzag(to.retry_count));
}

fn text(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn zigzag(value: i32) -> u64 {
    u64::from(((value << 1) ^ (value >> 31)) as u32)
}

fn varint(out: &mut Vec<u8>, value: u64) {
    prost::encoding::encode_varint(value, out);
}

fn varint_bytes(value: u64) -> usize {
    prost::encoding::encoded_len_varint(value)
}

/// Text as clients before version 9 read it: a length in four bytes before it.
fn old_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests;
