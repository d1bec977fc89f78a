//! The error that crosses the wire.
//!
//! A [`Code`] is stable and says what happened; its [`Kind`] says what the caller should do. The message names the
//! path, block or node, what was expected and what was found. Travels in the details of a gRPC status, so that the
//! caller gets back the same value; a status without details (a broken connection, a foreign server) becomes the
//! nearest code.

use std::fmt;

use prost::Message;

use crate::granary::ErrorDetail;

/// `Result` with Granary's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ask the same node again after a pause.
    Retry,
    /// Ask another node.
    GoElsewhere,
    /// The thing is not there: tell the user, or make it.
    NotFound,
    /// The thing is not in the state that the call assumed: look again, then decide.
    Conflict,
    /// The call can never succeed as it is: mend it.
    Invalid,
    /// The caller may not do this.
    Denied,
    /// Stored bytes are damaged: use another copy, and report this one.
    Corrupt,
    /// Something is full or worn out: free or add some.
    Exhausted,
    /// The node cannot go on: an operator must look.
    Fatal,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $kind:ident, $grpc:ident;)*) => {
        /// What happened. Numbers are stable and never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Code { $($(#[$doc])* $name = $number,)* }

        impl Code {
            /// The code with this number, if there is one.
            pub fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// What the caller should do.
            pub fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }

            fn grpc(self) -> tonic::Code {
                match self { $(Self::$name => tonic::Code::$grpc,)* }
            }
        }

        #[cfg(test)]
        const ALL: &[Code] = &[$(Code::$name),*];
    };
}

codes! {
    /// No such file, folder, block, store, version, key or node.
    NotFound = 1, NotFound, NotFound;
    /// The target exists already.
    AlreadyExists = 2, Conflict, AlreadyExists;
    /// A component of the path is a file.
    ParentNotFolder = 3, Invalid, FailedPrecondition;
    /// The call wants a file and found a folder.
    IsFolder = 4, Invalid, FailedPrecondition;
    /// The call wants a folder and found a file.
    NotFolder = 5, Invalid, FailedPrecondition;
    /// The folder has children, and the call was not recursive.
    NotEmpty = 6, Conflict, FailedPrecondition;
    /// The path breaks a rule: `..`, NUL, an empty or overlong component, not absolute.
    InvalidPath = 7, Invalid, InvalidArgument;
    /// An argument is out of its range or contradicts another.
    InvalidArgument = 8, Invalid, InvalidArgument;
    /// The caller lacks a permission.
    PermissionDenied = 9, Denied, PermissionDenied;
    /// Another writer holds the file's lease.
    FileOpenElsewhere = 10, Conflict, FailedPrecondition;
    /// The caller's lease on the file has ended: it expired, was taken over, or the file is gone or closed.
    LeaseExpired = 11, Conflict, FailedPrecondition;
    /// The NameNode is in safe mode: it does not change anything yet.
    SafeMode = 12, Retry, Unavailable;
    /// Too few DataNodes can take a replica.
    NotEnoughDatanodes = 13, Exhausted, ResourceExhausted;
    /// The previous block has too few reported replicas yet.
    NotReplicatedYet = 14, Retry, Unavailable;
    /// No space left on the volumes in question.
    NoSpace = 15, Exhausted, ResourceExhausted;
    /// A block, stamp or version is not the one that is current.
    Stale = 16, Conflict, FailedPrecondition;
    /// Stored bytes fail their checksum, or a table breaks its format.
    Corrupt = 17, Corrupt, DataLoss;
    /// No good replica of a block can be reached.
    BlockMissing = 18, Retry, Unavailable;
    /// The node is starting, stopping or unreachable.
    Unavailable = 19, Retry, Unavailable;
    /// No answer in time.
    Timeout = 20, Retry, DeadlineExceeded;
    /// The node is not the one responsible: ask another.
    NotResponsible = 21, GoElsewhere, Unavailable;
    /// A queue, the memory for a request, or a table of connections is full.
    Overloaded = 22, Retry, ResourceExhausted;
    /// A peer speaks another cluster's identity, a wrong protocol or an incompatible version.
    Incompatible = 23, Invalid, FailedPrecondition;
    /// A feature that this server does not have.
    Unsupported = 24, Invalid, Unimplemented;
    /// A disk or the operating system failed under this node.
    Io = 25, Fatal, Internal;
    /// The node found its own state broken.
    Internal = 26, Fatal, Internal;
    /// The target of a link or rename would make a loop, or a limit of the file system is reached.
    LimitExceeded = 27, Invalid, FailedPrecondition;
    /// The caller stopped it before it was done; nothing of it is visible.
    Cancelled = 28, Retry, Cancelled;
    /// The quota of files and folders under a folder is used up.
    NamespaceQuota = 29, Exhausted, ResourceExhausted;
    /// The quota of bytes, replicas counted, under a folder is used up.
    SpaceQuota = 30, Exhausted, ResourceExhausted;
    /// The quota of bytes on one type of storage under a folder is used up.
    TypeQuota = 31, Exhausted, ResourceExhausted;
    /// Snapshots forbid it: the folder has some, is not snapshottable, or lies within one that is.
    Snapshot = 32, Conflict, FailedPrecondition;
    /// What is in a snapshot can't be changed.
    ReadOnlySnapshot = 33, Denied, PermissionDenied;
    /// The file or folder does not have this extended attribute.
    NoSuchAttribute = 34, NotFound, NotFound;
}

/// An error: a stable code and a message for a person.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    /// What happened.
    pub code: Code,
    /// What, where, expected and found.
    pub message: String,
}

impl Error {
    /// An error with this code and message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// What the caller should do.
    pub fn kind(&self) -> Kind {
        self.code.kind()
    }

    /// Puts what was being done in front of the message.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// An error of the operating system while doing `what`. "No space" and "not found" keep their meaning.
    pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as E;
        let code = match error.kind() {
            E::StorageFull | E::QuotaExceeded => Code::NoSpace,
            E::NotFound => Code::NotFound,
            E::PermissionDenied => Code::PermissionDenied,
            E::ConnectionRefused
            | E::ConnectionReset
            | E::ConnectionAborted
            | E::BrokenPipe
            | E::NotConnected
            | E::HostUnreachable
            | E::NetworkUnreachable
            | E::UnexpectedEof => Code::Unavailable,
            E::TimedOut => Code::Timeout,
            _ => Code::Io,
        };
        Self::new(code, format!("{what}: {error}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        let detail = ErrorDetail { code: error.code as u32, message: error.message.clone() };
        tonic::Status::with_details(error.code.grpc(), error.message, detail.encode_to_vec().into())
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        if let Ok(detail) = ErrorDetail::decode(status.details())
            && let Some(code) = Code::from_number(detail.code)
        {
            return Self::new(code, detail.message);
        }
        let code = match status.code() {
            tonic::Code::NotFound => Code::NotFound,
            tonic::Code::AlreadyExists => Code::AlreadyExists,
            tonic::Code::InvalidArgument | tonic::Code::OutOfRange => Code::InvalidArgument,
            tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => Code::PermissionDenied,
            tonic::Code::ResourceExhausted => Code::Overloaded,
            tonic::Code::Unimplemented => Code::Unsupported,
            tonic::Code::DeadlineExceeded => Code::Timeout,
            tonic::Code::DataLoss => Code::Corrupt,
            tonic::Code::FailedPrecondition => Code::Incompatible,
            _ => Code::Unavailable,
        };
        Self::new(code, told(&status))
    }
}

/// What a status without details says: of a connection that failed the operating system's words, else the kind.
fn told(status: &tonic::Status) -> String {
    let causes = std::iter::successors(std::error::Error::source(status), |error| error.source());
    match causes.last() {
        Some(cause) => format!("{}: {cause}", status.message()),
        None => format!("{}: {}", status.code().description(), status.message()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for &code in ALL {
            let sent = Error::new(code, format!("what happened: {code:?}"));
            assert_eq!(Error::from(tonic::Status::from(sent.clone())), sent);
        }
    }

    #[test]
    fn a_status_without_details_gets_the_nearest_code() {
        let error = Error::from(tonic::Status::unavailable("connection refused"));
        assert_eq!((error.code, error.kind()), (Code::Unavailable, Kind::Retry));
    }

    #[test]
    fn a_connection_that_failed_says_why_in_the_words_of_the_operating_system() {
        let refused = std::io::Error::from_raw_os_error(111);
        let said = refused.to_string();
        let mut status = tonic::Status::unavailable("connect");
        status.set_source(std::sync::Arc::new(refused));
        assert_eq!(Error::from(status).message, format!("connect: {said}"));
    }

    #[test]
    fn a_full_disk_keeps_its_meaning() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(Error::io("write blk_1", &full).code, Code::NoSpace);
    }
}
