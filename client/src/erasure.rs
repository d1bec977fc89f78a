//! Erasure-coding policies as the client works with them: found by number, turned into a layout and a coder.

use proto::erasure::Policy;
use proto::{Code as ErrorCode, Error, FsPath, Result};
use transfer::coder::{Code, Coder};

/// The policy with a number that the NameNode told of a file; `Incompatible` if nothing is known of it.
pub(crate) fn policy(path: &FsPath, number: u32) -> Result<Policy> {
    let known = u8::try_from(number).ok().and_then(Policy::by_id);
    known.ok_or_else(|| {
        let what = format!("{path} has erasure-coding policy {number}, which this client lacks");
        Error::new(ErrorCode::Incompatible, what)
    })
}

/// What computes a policy's parity; `Unsupported` if its codec is known by name alone.
pub(crate) fn coder(path: &FsPath, policy: Policy) -> Result<Coder> {
    let code = Code::of(policy).ok_or_else(|| {
        let what = format!("{path}: policy {} cannot be coded here", policy.name);
        Error::new(ErrorCode::Unsupported, what)
    })?;
    Ok(Coder::new(code))
}
