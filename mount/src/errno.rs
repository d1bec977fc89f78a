//! The one table from Granary's error codes to what a program sees in `errno`.
//!
//! A code means the same errno everywhere; a verb that needs another one says so where it answers.

use fuser::Errno;
use proto::{Code, Error, Kind};

/// The errno for an error of the file system.
pub(crate) fn errno_of(error: &Error) -> Errno {
    errno_of_code(error.code)
}

/// Answers a failed verb: the program gets the errno, the log the rest. Failures of the system are
/// worth a warning; that a file is missing is not.
pub(crate) fn told(verb: &'static str) -> impl Fn(Error) -> Errno {
    move |error| {
        match error.kind() {
            Kind::Corrupt | Kind::Fatal | Kind::Exhausted => tracing::warn!(verb, %error, "failed"),
            _ => tracing::debug!(verb, %error, "failed"),
        }
        errno_of(&error)
    }
}

fn errno_of_code(code: Code) -> Errno {
    match code {
        Code::NotFound => Errno::ENOENT,
        Code::AlreadyExists => Errno::EEXIST,
        Code::ParentNotFolder | Code::NotFolder => Errno::ENOTDIR,
        Code::IsFolder => Errno::EISDIR,
        Code::NotEmpty => Errno::ENOTEMPTY,
        Code::InvalidPath | Code::InvalidArgument => Errno::EINVAL,
        Code::PermissionDenied => Errno::EACCES,
        // Another client writes the file: HDFS's model has one writer.
        Code::FileOpenElsewhere => Errno::EBUSY,
        // The file was removed, replaced or taken over by another writer under an open handle.
        Code::LeaseExpired | Code::Stale => Errno::ESTALE,
        Code::SafeMode | Code::ReadOnlySnapshot => Errno::EROFS,
        Code::Snapshot => Errno::EINVAL,
        Code::NotEnoughDatanodes | Code::NoSpace => Errno::ENOSPC,
        Code::NamespaceQuota | Code::SpaceQuota | Code::TypeQuota => Errno::EDQUOT,
        Code::NotReplicatedYet | Code::Overloaded => Errno::EAGAIN,
        Code::Corrupt | Code::BlockMissing | Code::Io | Code::Internal => Errno::EIO,
        Code::Unavailable | Code::NotResponsible => Errno::EHOSTDOWN,
        Code::Timeout => Errno::ETIMEDOUT,
        Code::Incompatible => Errno::EPROTO,
        Code::Unsupported => Errno::EOPNOTSUPP,
        Code::LimitExceeded => Errno::EMLINK,
        Code::NoSuchAttribute => Errno::ENODATA,
        Code::Cancelled => Errno::ECANCELED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_see_the_errno_they_act_on() {
        for (code, errno) in [
            (Code::NotFound, libc::ENOENT),
            (Code::AlreadyExists, libc::EEXIST),
            (Code::ParentNotFolder, libc::ENOTDIR),
            (Code::NotFolder, libc::ENOTDIR),
            (Code::IsFolder, libc::EISDIR),
            (Code::NotEmpty, libc::ENOTEMPTY),
            (Code::InvalidPath, libc::EINVAL),
            (Code::PermissionDenied, libc::EACCES),
            (Code::FileOpenElsewhere, libc::EBUSY),
            (Code::LeaseExpired, libc::ESTALE),
            (Code::NoSpace, libc::ENOSPC),
            (Code::NotEnoughDatanodes, libc::ENOSPC),
            (Code::Corrupt, libc::EIO),
            (Code::Unsupported, libc::EOPNOTSUPP),
            (Code::Timeout, libc::ETIMEDOUT),
        ] {
            assert_eq!(errno_of_code(code).code(), errno, "{code:?}");
        }
    }

    #[test]
    fn no_code_is_success_or_kills_the_mount() {
        // ENOSYS makes the kernel stop asking for good; ENOTCONN looks like a dead mount.
        for code in (0..1000).filter_map(Code::from_number) {
            let errno = errno_of_code(code).code();
            assert!(errno > 0 && errno != libc::ENOSYS && errno != libc::ENOTCONN, "{code:?}");
        }
    }
}
