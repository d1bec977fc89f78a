//! The Redis serialization protocol, versions 2 and 3: bytes to commands and replies to bytes.
//!
//! [`parse`] finds commands in a receive buffer without copying their arguments; [`write`] appends replies to an output
//! buffer. What always holds: both are total and do no IO; a command costs no allocation beyond buffers that are
//! reused; nothing larger than [`parse::Limits`] is ever kept. What a command means is not known here.

pub mod parse;
pub mod write;

#[cfg(test)]
mod tests;

pub use parse::{Args, Limits, Parser, ProtocolError};
pub use write::{Protocol, Reply};
