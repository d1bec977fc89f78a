//! The most frequent terms, and how often each term is used.
//!
//! The table holds every term with its count in decimal, and the list as `top:0001` -> `term<TAB>count`, `top:0002` ...:
//! the ranks are padded with zeros, so that a scan over the prefix `top:` gives the list in order.

use proto::{Code, Error, FsPath, Result};

use super::count::TermCounts;
use super::tokenize::Tokenizer;
use super::top::{Top, merged};
use crate::job::{Emitter, Job};

/// Digits of a rank at least.
const RANK_DIGITS_MIN: usize = 4;
/// Terms that the list may have.
const TOP_MAX: usize = 1_000_000;

/// Settings of [`top_terms`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopTermsOptions {
    /// Bounds of terms.
    pub tokenizer: Tokenizer,
    /// Terms in the list, at most a million.
    pub top: usize,
}

impl Default for TopTermsOptions {
    fn default() -> Self {
        Self { tokenizer: Tokenizer::default(), top: 100 }
    }
}

/// Counts the terms of all lines of the files under some paths. See the module's head for its keys and values.
pub fn top_terms(inputs: impl IntoIterator<Item = FsPath>, options: TopTermsOptions) -> Job {
    let top = options.top.min(TOP_MAX);
    Job::new("top terms")
        .input_lines(inputs)
        .map_gathering(
            <(TermCounts, Vec<u8>)>::default,
            move |(counts, term), line, out| {
                options.tokenizer.for_each(line.value, term, |term| counts.add(term, 1));
                if counts.is_full() { emit_all(counts, out) } else { Ok(()) }
            },
            |(counts, _), out| emit_all(counts, out),
        )
        .combine(|term, counts, out| {
            let mut sum = 0;
            while let Some(count) = counts.next()? {
                sum += decode(term, count)?;
            }
            out.emit(&sum.to_be_bytes())
        })
        .reduce(|term, counts, out| {
            let mut sum = 0;
            while let Some(count) = counts.next()? {
                sum += decode(term, count)?;
            }
            out.emit(term, sum.to_string().as_bytes())
        })
        .summary(
            (1..=top).map(move |rank| rank_key(rank, top)),
            move || Top::new(top),
            |list, term, count| {
                let count = std::str::from_utf8(count).ok().and_then(|text| text.parse().ok());
                list.add(term, count.unwrap_or(0));
            },
            move |lists| {
                let list = merged(top, lists).into_iter().zip(1..);
                list.map(|((term, count), rank)| {
                    let value = [&term[..], format!("\t{count}").as_bytes()].concat();
                    (rank_key(rank, top), value)
                })
                .collect()
            },
        )
}

fn emit_all(counts: &mut TermCounts, out: &mut Emitter<'_>) -> Result<()> {
    counts.drain(|term, count| out.emit(term, &count.to_be_bytes()))
}

fn decode(term: &[u8], count: &[u8]) -> Result<u64> {
    let bytes = count.try_into().map_err(|_| {
        let term = sstable::escape(term);
        Error::new(Code::Internal, format!("the count of {term} has {} bytes, not 8", count.len()))
    })?;
    Ok(u64::from_be_bytes(bytes))
}

fn rank_key(rank: usize, top: usize) -> Vec<u8> {
    let digits = top.to_string().len().max(RANK_DIGITS_MIN);
    format!("top:{rank:0digits$}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_padded_so_that_keys_sort_by_rank() {
        assert_eq!(rank_key(1, 100), b"top:0001");
        let keys: Vec<_> = (1..=20_000).map(|rank| rank_key(rank, 20_000)).collect();
        assert!(keys.is_sorted());
        assert_eq!(keys[0], b"top:00001");
    }
}
