//! The inverted index: which documents hold a term, and how often.
//!
//! The value of a term is text: a line `3 documents, 7 occurrences`, then up to [`IndexOptions::postings_max`] lines
//! `path<TAB>count`, the most occurrences first and equal ones by path. If lines are the documents, `path` is
//! `path:offset` of the line's first byte. The key `_top` holds the terms with the most occurrences, as lines
//! `term<TAB>occurrences`.
//!
//! Between map and reduce, a posting is the number of its file (and the offset of its line) in an order-preserving form,
//! and the count: a few bytes, which sort by document.

use proto::{Code, Error, FsPath, Result};

use super::count::TermCounts;
use super::tokenize::Tokenizer;
use super::top::{Top, merged};
use super::{TOP_KEY, list_text};
use crate::job::sort::varint;
use crate::job::{Emitter, Job, Oversized, Record, Values};

/// Postings of one value at most: paths are bounded, so that the value is.
const POSTINGS_MAX: usize = 8_000;
/// Bytes at the head of a document in which a NUL byte marks it as binary.
const BINARY_PROBE_BYTES: usize = 8 << 10;

/// What a document is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IndexUnit {
    /// A whole file. One with a NUL byte near its beginning is left out and counted as `documents_binary`; one above
    /// the job's bound for documents is left out and counted as `documents_too_large`.
    #[default]
    Files,
    /// A line of a file.
    Lines,
}

/// Settings of [`inverted_index`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexOptions {
    /// Bounds of terms.
    pub tokenizer: Tokenizer,
    /// What a document is.
    pub unit: IndexUnit,
    /// Documents that a value lists, at most 8,000; the totals in its first line count all.
    pub postings_max: usize,
    /// Terms in the list under `_top`.
    pub top: usize,
}

impl Default for IndexOptions {
    fn default() -> Self {
        Self {
            tokenizer: Tokenizer::default(),
            unit: IndexUnit::Files,
            postings_max: 100,
            top: 100,
        }
    }
}

/// An inverted index of the files under some paths. See the module's head for its keys and values.
pub fn inverted_index(inputs: impl IntoIterator<Item = FsPath>, options: IndexOptions) -> Job {
    let job = Job::new("inverted index");
    let job = match options.unit {
        IndexUnit::Files => job.input_documents(inputs).documents_up_to(64 << 20, Oversized::Skip),
        IndexUnit::Lines => job.input_lines(inputs),
    };
    job.map_with(Scratch::default, move |scratch, record, out| scratch.map(&options, record, out))
        .reduce_with(Postings::default, move |state, term, postings, out| {
            state.reduce(&options, term, postings, out)
        })
        .summary(
            [TOP_KEY.to_vec()],
            move || Top::new(options.top),
            |top, term, value| {
                if let Some((_, occurrences)) = totals_of(value) {
                    top.add(term, occurrences);
                }
            },
            move |lists| vec![(TOP_KEY.to_vec(), list_text(merged(options.top, lists)))],
        )
}

/// The number of documents and of occurrences that the value of a term tells.
pub fn totals_of(value: &[u8]) -> Option<(u64, u64)> {
    let line = value.split(|&b| b == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let documents = words.next()?.parse().ok()?;
    Some((documents, words.nth(1)?.parse().ok()?))
}

/// What a map thread keeps.
#[derive(Default)]
struct Scratch {
    counts: TermCounts,
    term: Vec<u8>,
    posting: Vec<u8>,
}

impl Scratch {
    fn map(
        &mut self,
        options: &IndexOptions,
        record: &Record<'_>,
        out: &mut Emitter<'_>,
    ) -> Result<()> {
        let text = record.value;
        if options.unit == IndexUnit::Files
            && text[..text.len().min(BINARY_PROBE_BYTES)].contains(&0)
        {
            return out.count("documents_binary", 1);
        }
        let Self { counts, term, posting } = self;
        options.tokenizer.for_each(text, term, |term| counts.add(term, 1));
        posting.clear();
        posting.extend_from_slice(&record.file.to_be_bytes());
        if options.unit == IndexUnit::Lines {
            put_ordered(posting, record.offset);
        }
        let document = posting.len();
        out.count("documents", 1)?;
        counts.drain(|term, count| {
            posting.truncate(document);
            varint::put(posting, count);
            out.emit(term, posting)
        })
    }
}

/// Appends a number so that the bytes of smaller numbers sort before those of larger ones.
fn put_ordered(out: &mut Vec<u8>, number: u64) {
    let skip = number.leading_zeros() as usize / 8;
    out.push(8 - skip as u8);
    out.extend_from_slice(&number.to_be_bytes()[skip..]);
}

/// Where the count begins in a posting.
fn count_at(unit: IndexUnit, posting: &[u8]) -> Option<usize> {
    match unit {
        IndexUnit::Files => Some(4),
        IndexUnit::Lines => Some(5 + usize::from(*posting.get(4)?)),
    }
}

/// The bytes that name the document of a posting, and the count.
fn split_posting(unit: IndexUnit, posting: &[u8]) -> Option<(&[u8], u64)> {
    let document_end = count_at(unit, posting)?;
    let document = posting.get(..document_end)?;
    let mut at = document_end;
    let count = varint::take(posting, &mut at)?;
    (at == posting.len()).then_some((document, count))
}

/// The file of a document, and the offset of its line.
fn split_document(document: &[u8]) -> Option<(u32, Option<u64>)> {
    let (file, rest) = document.split_first_chunk()?;
    let mut bytes = [0; 8];
    let offset = match rest {
        [] => None,
        [length, offset @ ..] if offset.len() == usize::from(*length) && offset.len() <= 8 => {
            bytes[8 - offset.len()..].copy_from_slice(offset);
            Some(u64::from_be_bytes(bytes))
        }
        _ => return None,
    };
    Some((u32::from_be_bytes(*file), offset))
}

/// What a reduce thread keeps.
#[derive(Default)]
struct Postings {
    document: Vec<u8>,
    text: Vec<u8>,
}

impl Postings {
    fn reduce(
        &mut self,
        options: &IndexOptions,
        term: &[u8],
        postings: &mut Values<'_, '_>,
        out: &mut Emitter<'_>,
    ) -> Result<()> {
        let mut top = Top::new(options.postings_max.min(POSTINGS_MAX));
        let (mut documents, mut occurrences, mut own) = (0u64, 0u64, 0u64);
        while let Some(posting) = postings.next()? {
            let (document, count) =
                split_posting(options.unit, posting).ok_or_else(|| foreign(posting))?;
            if documents == 0 || document != self.document {
                if documents > 0 {
                    top.add(&self.document, own);
                }
                (documents, own) = (documents + 1, 0);
                self.document.clear();
                self.document.extend_from_slice(document);
            }
            own += count;
            occurrences += count;
        }
        top.add(&self.document, own);
        self.write(documents, occurrences, top, out)?;
        out.emit(term, &self.text)
    }

    fn write(
        &mut self,
        documents: u64,
        occurrences: u64,
        top: Top,
        out: &Emitter<'_>,
    ) -> Result<()> {
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        let head = format!(
            "{documents} document{}, {occurrences} occurrence{}\n",
            plural(documents),
            plural(occurrences)
        );
        self.text.clear();
        self.text.extend_from_slice(head.as_bytes());
        for (document, count) in top.into_list() {
            let found = split_document(&document)
                .and_then(|(file, offset)| Some((out.path(file)?, offset)));
            let (path, offset) = found.ok_or_else(|| foreign(&document))?;
            self.text.extend_from_slice(path.as_bytes());
            let rest = match offset {
                None => format!("\t{count}\n"),
                Some(offset) => format!(":{offset}\t{count}\n"),
            };
            self.text.extend_from_slice(rest.as_bytes());
        }
        Ok(())
    }
}

fn foreign(posting: &[u8]) -> Error {
    let shown = sstable::escape(posting);
    Error::new(Code::Internal, format!("posting {shown} was not made by this job's map"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn totals_are_read_back_from_a_value() {
        assert_eq!(totals_of(b"3 documents, 7 occurrences\n/a\t7\n"), Some((3, 7)));
        assert_eq!(totals_of(b"1 document, 1 occurrence\n"), Some((1, 1)));
        for other in [&b""[..], b"\n", b"x documents, 7 occurrences", b"3 documents", b"\xff 1, 2"]
        {
            assert_eq!(totals_of(other), None);
        }
    }

    proptest! {
        #[test]
        fn postings_sort_by_document_and_come_back(
            a in (0u32..3, any::<u64>()), b in (0u32..3, any::<u64>()), count in any::<u64>(),
        ) {
            let posting = |(file, offset): (u32, u64)| {
                let mut bytes = file.to_be_bytes().to_vec();
                put_ordered(&mut bytes, offset >> (offset % 64));
                bytes
            };
            let key = |(file, offset): (u32, u64)| (file, offset >> (offset % 64));
            prop_assert_eq!(posting(a).cmp(&posting(b)), key(a).cmp(&key(b)));
            let mut bytes = posting(a);
            varint::put(&mut bytes, count);
            let (document, its_count) = split_posting(IndexUnit::Lines, &bytes).unwrap();
            prop_assert_eq!(its_count, count);
            prop_assert_eq!(split_document(document), Some((key(a).0, Some(key(a).1))));
        }

        #[test]
        fn any_bytes_are_a_posting_or_not(bytes in prop::collection::vec(any::<u8>(), 0..30)) {
            for unit in [IndexUnit::Files, IndexUnit::Lines] {
                if let Some((document, _)) = split_posting(unit, &bytes) {
                    // It may still be no document of ours; that is an answer, not a panic.
                    let _ = split_document(document);
                }
            }
        }
    }
}
