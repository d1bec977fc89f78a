//! Jobs that come with the library. Each gives a [`Job`](super::Job) that lacks only its output.
//!
//! | function | reads | writes |
//! |---|---|---|
//! | [`inverted_index`] | text files, or lines | term -> documents with counts; `_top` -> the most frequent terms |
//! | [`top_terms`] | lines | term -> count; `top:0001` ... -> the most frequent terms, one per key |
//! | [`access_log`] | lines of web logs | path -> hits, bytes, statuses; `_top`, `_total`, `_status:NNN` |
//!
//! Keys that begin with `_`, and `top:NNNN`, are never terms or paths: a term holds letters and digits alone, and a path
//! begins with `/`. All values are text, to be read with a plain GET.

mod access_log;
mod count;
mod index;
mod tokenize;
mod top;
mod top_terms;

pub use access_log::{AccessLogOptions, access_log};
pub use index::{IndexOptions, IndexUnit, inverted_index, totals_of};
pub use tokenize::Tokenizer;
pub use top_terms::{TopTermsOptions, top_terms};

/// The key of a list of the most frequent keys.
pub const TOP_KEY: &[u8] = b"_top";

/// Lines `name<TAB>count`.
fn list_text(list: Vec<(Vec<u8>, u64)>) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, count) in list {
        text.extend_from_slice(&name);
        text.extend_from_slice(format!("\t{count}\n").as_bytes());
    }
    text
}
