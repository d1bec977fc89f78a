//! The service Namespace over Hadoop's RPC framing: the names and numbers that client and NameNode agree on.
//!
//! Methods and messages are those of the gRPC service, encoded alike; only what is around them differs. An error is
//! one of class [`ERROR_CLASS`] whose detail holds its code, beyond the numbers that Hadoop uses.

use crate::Code;

/// The protocol that declares the methods.
pub const NAMESPACE_PROTOCOL: &str = "granary.Namespace";
/// Its version.
pub const NAMESPACE_VERSION: u64 = 1;
/// The class of our errors.
pub const ERROR_CLASS: &str = "granary.Error";

const DETAIL_BASE: i32 = 1_000;

/// A code as the detail of an RPC error.
pub fn detail_of(code: Code) -> i32 {
    DETAIL_BASE + code as i32
}

/// The code that a detail holds, if it is one that is known here.
pub fn code_of(detail: i32) -> Option<Code> {
    let number = detail.checked_sub(DETAIL_BASE)?;
    Code::from_number(u32::try_from(number).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_and_hadoops_own_numbers_are_none() {
        for code in [Code::NotFound, Code::SafeMode, Code::Cancelled, Code::TypeQuota] {
            assert_eq!(code_of(detail_of(code)), Some(code));
        }
        for detail in [i32::MIN, -1, 0, 1, 15, 999, 1_000, 1_999, i32::MAX] {
            assert_eq!(code_of(detail), None);
        }
    }
}
