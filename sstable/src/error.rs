//! The errors of tables: a kind that tells the caller what to do, and a message for a person.
//!
//! Messages name the file, the section, the offset, what was expected and what was found. Keys in
//! messages are escaped and cut, since they may be binary and 64 KiB long.

use std::fmt;
use std::path::Path;

/// `Result` with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Bytes of a key that a message shows.
const SHOWN_KEY_BYTES_MAX: usize = 48;

/// What the caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The key does not come after the one before it: sort the input.
    Unsorted,
    /// The key was added already: decide which value holds, and add it once.
    Duplicate,
    /// A key, value, property or table is larger than the format allows: split it.
    TooLarge,
    /// An option or argument is out of its range: mend the call.
    Invalid,
    /// The bytes are not a table at all: another file was meant, or this one is cut short.
    NotATable,
    /// A newer version of the format: use a newer reader.
    Unsupported,
    /// Stored bytes are damaged: fetch the file again from a good copy.
    Corrupt,
    /// The operating system or the underlying writer failed; [`Error::io`] has its error.
    Io,
}

/// An error of reading or writing a table.
#[derive(Debug)]
pub struct Error {
    /// What the caller should do.
    pub kind: ErrorKind,
    /// What, where, expected and found.
    pub message: String,
    io: Option<std::io::Error>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), io: None }
    }

    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    pub(crate) fn from_io(what: impl fmt::Display, error: std::io::Error) -> Self {
        Self { kind: ErrorKind::Io, message: format!("{what}: {error}"), io: Some(error) }
    }

    /// Puts the file in front of the message.
    pub(crate) fn in_file(mut self, path: &Path) -> Self {
        self.message = format!("{}: {}", path.display(), self.message);
        self
    }

    /// The operating system's (or the underlying writer's) error, if there was one.
    pub fn io(&self) -> Option<&std::io::Error> {
        self.io.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.io.as_ref().map(|e| e as _)
    }
}

/// A key as text for messages: quoted, bytes outside printable ASCII as `\xNN`, cut after 48 bytes.
pub fn escape(key: &[u8]) -> String {
    let shown = &key[..key.len().min(SHOWN_KEY_BYTES_MAX)];
    let text = shown.escape_ascii();
    if shown.len() < key.len() {
        format!("\"{text}\"... ({} bytes)", key.len())
    } else {
        format!("\"{text}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_messages_are_escaped_and_cut() {
        assert_eq!(escape(b"a\xff\n"), r#""a\xff\n""#);
        let long = escape(&[b'k'; 100]);
        assert_eq!(long, format!("\"{}\"... (100 bytes)", "k".repeat(48)));
    }
}
