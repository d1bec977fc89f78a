//! The one error type of the commands: what to tell the user, what to do about it, and the exit code.
//!
//! Exit codes are part of the interface: `granary help exit-codes` prints [`Exit::TABLE`]. Errors of the cluster keep
//! their meaning: the kind of a [`proto::Error`] picks the code.

use std::fmt;

use proto::{Code, Error, Kind};

/// `Result` with a [`Failure`].
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// What the process ends with. Numbers are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Any failure that has no code of its own; also the answer "no" of `granary fs test`, and "on" of `granary admin
    /// safemode get`.
    Failure = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// No such file, folder, store, version or key.
    NotFound = 3,
    /// It exists already, is not empty, or somebody else has it open.
    Conflict = 4,
    /// No permission.
    Denied = 5,
    /// The cluster does not answer, or not yet.
    Unreachable = 6,
    /// Stored bytes are damaged.
    Corrupt = 7,
    /// A disk is full, or too few nodes live.
    Exhausted = 8,
    /// Stopped by Ctrl-C.
    Interrupted = 130,
    /// Whoever read the output went away.
    Pipe = 141,
}

impl Exit {
    /// Every code with its meaning, as shown to users.
    pub const TABLE: &[(u8, &str)] = &[
        (0, "success"),
        (
            1,
            "failure; also the answer \"no\" of `granary fs test`, and \"on\" of `granary admin safemode get`",
        ),
        (2, "the command line or the configuration is wrong"),
        (3, "no such file, folder, store, version or key"),
        (4, "it exists already, is not empty, or somebody else has it open"),
        (5, "permission denied"),
        (6, "the cluster does not answer, or not yet (safe mode, time-out)"),
        (7, "stored bytes are damaged"),
        (8, "a disk is full, or too few nodes live"),
        (130, "stopped by Ctrl-C"),
        (141, "whoever read the output went away (as `| head` does)"),
    ];
}

/// Why a command did not do what it was told.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What the process ends with.
    pub exit: Exit,
    /// What went wrong; names the flag, path or address. Empty: nothing is printed.
    pub message: String,
    /// What the user can do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with this code and message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// The command line or the configuration is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Ends with this code and says nothing.
    pub fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts what was being done in front of the message.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// A role that could not start: whatever was missing, it is not a cluster that does not answer.
    pub fn start(role: impl fmt::Display, error: Error) -> Self {
        let failure = Self::from(error).context(role);
        match failure.exit {
            Exit::Unreachable => Self { exit: Exit::Failure, ..failure },
            _ => failure,
        }
    }

    /// A local file or stream failed. A reader who went away ends the command quietly.
    pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::silent(Exit::Pipe);
        }
        Error::io(what, error).into()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error.kind() {
            Kind::NotFound => Exit::NotFound,
            Kind::Conflict => Exit::Conflict,
            Kind::Denied => Exit::Denied,
            Kind::Corrupt => Exit::Corrupt,
            Kind::Exhausted => Exit::Exhausted,
            Kind::Retry if error.code == Code::Cancelled => Exit::Interrupted,
            Kind::Retry | Kind::GoElsewhere => Exit::Unreachable,
            Kind::Invalid if error.code == Code::InvalidPath => Exit::Usage,
            Kind::Invalid | Kind::Fatal => Exit::Failure,
        };
        Self::new(exit, error.message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  {hint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_is_documented() {
        for exit in [
            Exit::Failure,
            Exit::Usage,
            Exit::NotFound,
            Exit::Conflict,
            Exit::Denied,
            Exit::Unreachable,
            Exit::Corrupt,
            Exit::Exhausted,
            Exit::Interrupted,
            Exit::Pipe,
        ] {
            assert!(Exit::TABLE.iter().any(|(code, _)| *code == exit as u8), "{exit:?}");
        }
    }

    #[test]
    fn the_kind_of_an_error_picks_the_exit_code() {
        let exit = |code| Failure::from(Error::new(code, "x")).exit;
        assert_eq!(exit(Code::NotFound), Exit::NotFound);
        assert_eq!(exit(Code::AlreadyExists), Exit::Conflict);
        assert_eq!(exit(Code::Unavailable), Exit::Unreachable);
        assert_eq!(exit(Code::InvalidPath), Exit::Usage);
    }

    #[test]
    fn a_broken_pipe_is_quiet() {
        let broken = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let failure = Failure::io("write to standard output", &broken);
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::Pipe, ""));
    }
}
