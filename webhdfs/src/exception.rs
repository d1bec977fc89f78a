//! RemoteException: an error as clients of WebHDFS get it.
//!
//! The body names a Java class and a message, the HTTP status follows from the class as in HDFS: what is not there is
//! 404, what was asked wrongly 400, everything else that is an IOException 403. Beyond HDFS, a failure of our own is
//! 500 and a full queue 503, so that proxies and people see whose fault it is; clients go by the class.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ipc::exceptions::{self as class, Verb};
use proto::{Code, Error};
use serde_json::json;

use crate::answer;

/// An error as a client of WebHDFS gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// The HTTP status.
    pub status: StatusCode,
    /// The Java class, with its package.
    pub class: &'static str,
    /// What, where, expected and found.
    pub message: String,
}

impl Exception {
    /// An exception of this class; the class decides the status.
    pub fn new(class: &'static str, message: impl Into<String>) -> Self {
        Self { status: status_of(class), class, message: message.into() }
    }

    /// The request can never succeed as it is.
    pub fn illegal(message: impl Into<String>) -> Self {
        Self::new(class::ILLEGAL_ARGUMENT, message)
    }

    /// A parameter has a value that it can't have.
    pub fn parameter(name: &str, why: impl std::fmt::Display) -> Self {
        Self::illegal(format!("Invalid value for webhdfs parameter \"{name}\": {why}"))
    }

    /// Nothing has this path.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(class::FILE_NOT_FOUND, message)
    }

    /// Something that this server does not do.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(class::UNSUPPORTED, message)
    }

    /// An error of ours while doing `verb`.
    pub fn of(error: Error, verb: Verb) -> Self {
        let mut exception = Self::new(class::class_of(&error, verb), error.message);
        match error.code {
            Code::Internal | Code::Io => exception.status = StatusCode::INTERNAL_SERVER_ERROR,
            Code::Overloaded => exception.status = StatusCode::SERVICE_UNAVAILABLE,
            _ => {}
        }
        exception
    }
}

impl From<Error> for Exception {
    fn from(error: Error) -> Self {
        Self::of(error, Verb::Other)
    }
}

impl IntoResponse for Exception {
    fn into_response(self) -> Response {
        let name = self.class.rsplit(['.', '$']).next().unwrap_or(self.class);
        let body = json!({"RemoteException": {
            "exception": name,
            "javaClassName": self.class,
            "message": self.message,
        }});
        answer::json_with(self.status, &body)
    }
}

fn status_of(java_class: &str) -> StatusCode {
    match java_class {
        class::FILE_NOT_FOUND => StatusCode::NOT_FOUND,
        class::ILLEGAL_ARGUMENT
        | class::HADOOP_ILLEGAL_ARGUMENT
        | class::INVALID_PATH
        | class::UNSUPPORTED => StatusCode::BAD_REQUEST,
        class::RUNTIME => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::FORBIDDEN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_follows_from_the_class_as_in_hdfs() {
        for (code, status) in [
            (Code::NotFound, 404),
            (Code::PermissionDenied, 403),
            (Code::AlreadyExists, 403),
            (Code::SafeMode, 403),
            (Code::InvalidArgument, 400),
            (Code::InvalidPath, 400),
            (Code::Unsupported, 400),
            (Code::Internal, 500),
            (Code::Overloaded, 503),
        ] {
            let exception = Exception::from(Error::new(code, "why"));
            assert_eq!(exception.status.as_u16(), status, "{code:?}");
        }
        assert_eq!(Exception::new(class::SECURITY, "").status.as_u16(), 403);
    }
}
