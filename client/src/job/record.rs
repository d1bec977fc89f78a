//! What user functions see: a [`Record`] of the input, and the [`Emitter`] that takes what they make of it.

use std::borrow::Cow;

use proto::Result;

use super::input::InputFile;
use super::progress::Counters;

/// One record of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Which input it belongs to: 0 for the first that was added to the job, and so on.
    pub input: usize,
    /// The number of its file: files are numbered by input, then by the bytes of their paths. See [`Emitter::path`].
    pub file: u32,
    /// The path of its file.
    pub path: &'a str,
    /// Byte offset of a line in its file; number of a table's record; 0 for a document.
    pub offset: u64,
    /// The key of a table's record; empty for lines and documents.
    pub key: &'a [u8],
    /// The line without its end, the whole document, or the value of a table's record. Any bytes.
    pub value: &'a [u8],
}

impl<'a> Record<'a> {
    /// The value as text: bytes that are not UTF-8 become U+FFFD.
    pub fn text(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.value)
    }
}

/// Where emitted records go.
pub(crate) trait Sink {
    /// Takes a record.
    fn emit(&mut self, key: &[u8], value: &[u8]) -> Result<()>;
}

/// Takes what a user function makes.
pub struct Emitter<'a> {
    pub(crate) sink: &'a mut dyn Sink,
    pub(crate) counters: &'a mut Counters,
    pub(crate) files: &'a [InputFile],
}

impl<'a> Emitter<'a> {
    /// Passes a record on: from a map function to the sort, from a reduce function to the output.
    ///
    /// Keys have up to 64 KiB and values up to 64 MiB. Into tables, a reduce function must emit keys in strictly
    /// ascending order that belong to the partition of the key it was given; its own key always does.
    #[inline]
    pub fn emit(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.sink.emit(key, value)
    }

    /// Adds to a counter of the job; see [`super::JobReport::counters`]. A job has up to 1,000 of them.
    pub fn count(&mut self, name: &str, more: u64) -> Result<()> {
        self.counters.add(name, more)
    }

    /// The path of a file of the input by its number. Numbers that came from [`Record::file`] always have one.
    pub fn path(&self, file: u32) -> Option<&'a str> {
        self.files.get(file as usize).map(|file| file.path.as_str())
    }
}
