//! What a method of Hadoop's protocols fails with, and how that crosses the wire.
//!
//! Most failures are Granary's own errors, which get Java's class from the one table in [`ipc::exceptions`], by the verb
//! that was asked. A method names a class itself only where HDFS does so for this method alone.

use ipc::RpcError;
use ipc::exceptions::{Verb, class_of};
use proto::{Code, Error};

/// What a method answers.
pub type Answered<R> = std::result::Result<R, Failure>;

/// Why a method failed.
#[derive(Debug, PartialEq)]
pub enum Failure {
    /// An error of Granary's: the verb decides its class.
    Error(Error),
    /// An error that names its class.
    Java(RpcError),
}

impl Failure {
    /// A failure of this Java class.
    pub fn java(class: &'static str, message: impl Into<String>) -> Self {
        Self::Java(RpcError::application(class, message))
    }

    /// Gives another class to errors with this code.
    #[must_use]
    pub fn with_class(self, code: Code, class: &'static str) -> Self {
        match self {
            Self::Error(error) if error.code == code => Self::java(class, error.message),
            other => other,
        }
    }

    /// The code, if it is an error of Granary's.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Error(error) => Some(error.code),
            Self::Java(_) => None,
        }
    }

    /// As the client gets it.
    pub fn into_rpc(self, verb: Verb) -> RpcError {
        match self {
            Self::Error(error) => RpcError::application(class_of(&error, verb), error.message),
            Self::Java(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}
