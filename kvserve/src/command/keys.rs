//! Commands that read the store. All of a batch are answered from one version.

use std::io;
use std::ops::Bound;

use proto::{Code, Error, Result};

use super::glob::{literal_prefix, matches};
use super::{Flow, error_line};
use crate::lookup::{Span, table_error};
use crate::resp::Args;
use crate::resp::parse::number;
use crate::session::Session;
use crate::tables::OpenVersion;

/// Keys of MGET that are looked up together.
const GROUP_KEYS: usize = 64;
/// Records that one step of SCAN looks at, at most.
const SCAN_COUNT_MAX: usize = 10_000;
/// Records that GRANARY.SCAN answers, at most.
const RECORDS_MAX: usize = 100_000;
/// Records between two looks at whether others want to run.
const YIELD_RECORDS: usize = 2048;

const SYNTAX: &str = "ERR syntax error";
const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";

/// GET key.
pub async fn get(session: &mut Session<'_>, key: &[u8]) -> io::Result<Flow> {
    let (version, mut out) = match session.read() {
        Ok(read) => read,
        Err(error) => return refuse(session, &error),
    };
    match version.get(key) {
        Ok(Some(value)) => {
            out.hit();
            out.value(&value).await?;
        }
        Ok(None) => {
            out.miss();
            out.reply().null();
        }
        Err(error) => out.failed(&error),
    }
    Ok(Flow::Next)
}

/// MGET key ...
pub async fn mget(session: &mut Session<'_>, args: Args<'_>) -> io::Result<Flow> {
    let (version, mut out) = match session.read() {
        Ok(read) => read,
        Err(error) => return refuse(session, &error),
    };
    out.reply().array(args.len() - 1);
    let mut keys = args.from(1);
    let mut group: Vec<&[u8]> = Vec::with_capacity(GROUP_KEYS.min(args.len()));
    while keys.len() > 0 {
        group.clear();
        group.extend(keys.by_ref().take(GROUP_KEYS));
        match version.multi_get(&group) {
            Ok(values) => {
                for value in values {
                    match value {
                        Some(value) => {
                            out.hit();
                            out.value(&value).await?;
                        }
                        None => {
                            out.miss();
                            out.reply().null();
                        }
                    }
                }
            }
            // A damaged block fails its own keys only.
            Err(_) => {
                for key in &group {
                    match version.get(key) {
                        Ok(Some(value)) => out.value(&value).await?,
                        Ok(None) => out.reply().null(),
                        Err(error) => out.failed(&error),
                    }
                }
            }
        }
    }
    Ok(Flow::Next)
}

/// EXISTS key ...: a key that is named twice counts twice.
pub fn exists(session: &mut Session<'_>, args: Args<'_>) {
    answer(session, |version| {
        let mut count = 0;
        for key in args.from(1) {
            count += i64::from(version.get(key)?.is_some());
        }
        Ok(Answer::Integer(count))
    });
}

/// STRLEN key.
pub fn strlen(session: &mut Session<'_>, key: &[u8]) {
    answer(session, |version| {
        Ok(Answer::Integer(version.get(key)?.map_or(0, |value| value.len() as i64)))
    });
}

/// TYPE, TTL and PTTL of a key.
pub fn presence(session: &mut Session<'_>, command: &str, key: &[u8]) {
    answer(session, |version| {
        let present = version.get(key)?.is_some();
        Ok(match (command, present) {
            ("type", true) => Answer::Simple("string"),
            ("type", false) => Answer::Simple("none"),
            (_, true) => Answer::Integer(-1),
            (_, false) => Answer::Integer(-2),
        })
    });
}

/// GETRANGE key start end: both inclusive, negative ones count from the end.
pub fn getrange(session: &mut Session<'_>, args: Args<'_>) {
    let (Some(start), Some(end)) = (number(args.at(2)), number(args.at(3))) else {
        session.reply().error(NOT_AN_INTEGER);
        return;
    };
    let found = session.read().and_then(|(version, mut out)| {
        let value = version.get(args.at(1))?;
        let value = value.as_deref().unwrap_or_default();
        out.reply().bulk(byte_range(value, start, end));
        Ok(())
    });
    if let Err(error) = found {
        session.reply().error(&error_line(&error));
    }
}

/// The part of `value` that GETRANGE means.
fn byte_range(value: &[u8], start: i64, end: i64) -> &[u8] {
    let length = value.len() as i64;
    let place = |at: i64| if at < 0 { at.saturating_add(length).max(0) } else { at };
    if start < 0 && end < 0 && start > end {
        return &[];
    }
    let (start, end) = (place(start), place(end).min(length - 1));
    if start > end || length == 0 {
        return &[];
    }
    &value[start as usize..=end as usize]
}

/// SCAN cursor [MATCH pattern] [COUNT count] [TYPE type].
pub fn scan(session: &mut Session<'_>, args: Args<'_>) {
    let Some(cursor) = number(args.at(1)).and_then(|cursor| u64::try_from(cursor).ok()) else {
        session.reply().error("ERR invalid cursor");
        return;
    };
    let options = match ScanOptions::parse(args) {
        Ok(options) => options,
        Err(error) => {
            session.reply().error(error);
            return;
        }
    };
    let after = match cursor {
        0 => None,
        _ => match session.front.cursors.key(cursor) {
            Some(key) => Some(key),
            None => {
                let error =
                    "ERR invalid cursor: it is unknown or forgotten; start again with SCAN 0";
                session.reply().error(error);
                return;
            }
        },
    };
    let front = session.front.clone();
    let found = session.read().and_then(|(version, mut out)| {
        let (keys, last) = scan_step(version, after.as_deref(), &options)?;
        let next = last.map_or(0, |key| front.cursors.remember(key));
        let mut reply = out.reply();
        reply.array(2);
        reply.bulk(next.to_string().as_bytes());
        reply.array(keys.len());
        for key in keys {
            reply.bulk(&key);
        }
        Ok(())
    });
    if let Err(error) = found {
        session.reply().error(&error_line(&error));
    }
}

struct ScanOptions<'a> {
    pattern: Option<&'a [u8]>,
    count: usize,
    strings: bool,
}

impl<'a> ScanOptions<'a> {
    fn parse(args: Args<'a>) -> Result<Self, &'static str> {
        let mut options = Self { pattern: None, count: 10, strings: true };
        let mut at = 2;
        while at < args.len() {
            let (name, value) = (args.at(at), args.get(at + 1).ok_or(SYNTAX)?);
            if name.eq_ignore_ascii_case(b"match") {
                options.pattern = Some(value);
            } else if name.eq_ignore_ascii_case(b"count") {
                let count = number(value).ok_or(NOT_AN_INTEGER)?;
                let count = usize::try_from(count).ok().filter(|&count| count > 0).ok_or(SYNTAX)?;
                options.count = count.min(SCAN_COUNT_MAX);
            } else if name.eq_ignore_ascii_case(b"type") {
                options.strings = value.eq_ignore_ascii_case(b"string");
            } else {
                return Err(SYNTAX);
            }
            at += 2;
        }
        Ok(options)
    }
}

type ScanStep = (Vec<Vec<u8>>, Option<Vec<u8>>);

/// Keys that match among the next `count`, and the last one looked at unless the end was reached.
fn scan_step(
    version: &OpenVersion,
    after: Option<&[u8]>,
    options: &ScanOptions<'_>,
) -> Result<ScanStep> {
    if !options.strings {
        return Ok((Vec::new(), None));
    }
    let prefix = options.pattern.map(literal_prefix).unwrap_or_default();
    let start = match after {
        Some(key) => Bound::Excluded(key),
        None => Bound::Included(prefix),
    };
    let (mut keys, mut last) = (Vec::new(), None);
    for (seen, record) in version.scan(Span::Range(start, Bound::Unbounded)).enumerate() {
        if seen == options.count {
            return Ok((keys, last));
        }
        let (_, key, _) = record.map_err(table_error)?;
        if !key.starts_with(prefix) {
            break;
        }
        if options.pattern.is_none_or(|pattern| matches(pattern, &key)) {
            keys.push(key.to_vec());
        }
        last = Some(key.to_vec());
    }
    Ok((keys, None))
}

/// KEYS pattern: refused if too many match.
pub async fn keys(session: &mut Session<'_>, pattern: &[u8]) -> io::Result<Flow> {
    let keys_max = session.front.config.keys_max;
    let (version, mut out) = match session.read() {
        Ok(read) => read,
        Err(error) => return refuse(session, &error),
    };
    let mut found = Vec::new();
    for (seen, record) in version.scan(Span::Prefix(literal_prefix(pattern))).enumerate() {
        if seen % YIELD_RECORDS == YIELD_RECORDS - 1 {
            tokio::task::yield_now().await;
        }
        match record.map_err(table_error) {
            Ok((_, key, _)) if matches(pattern, &key) => found.push(key),
            Ok(_) => {}
            Err(error) => {
                out.failed(&error);
                return Ok(Flow::Next);
            }
        }
        if found.len() > keys_max {
            let error =
                format!("more than {keys_max} keys match: use SCAN, or raise kvserve.keys_max");
            out.failed(&Error::new(Code::LimitExceeded, error));
            return Ok(Flow::Next);
        }
    }
    out.reply().array(found.len());
    for key in found {
        out.value(&key).await?;
    }
    Ok(Flow::Next)
}

/// GRANARY.SCAN prefix count [AFTER key]: key, value, key, value, in the order of the keys.
pub async fn granary_scan(session: &mut Session<'_>, args: Args<'_>) -> io::Result<Flow> {
    let count = number(args.at(2)).and_then(|count| usize::try_from(count).ok());
    let Some(count) = count.filter(|&count| count <= RECORDS_MAX) else {
        session.reply().error(&format!("ERR count is not an integer from 0 to {RECORDS_MAX}"));
        return Ok(Flow::Next);
    };
    let prefix = args.at(1);
    let after = match (args.get(3), args.get(4), args.len()) {
        (None, ..) => None,
        (Some(word), Some(key), 5) if word.eq_ignore_ascii_case(b"after") => Some(key),
        _ => {
            session.reply().error(SYNTAX);
            return Ok(Flow::Next);
        }
    };
    let (version, mut out) = match session.read() {
        Ok(read) => read,
        Err(error) => return refuse(session, &error),
    };
    let start = match after {
        Some(key) if key >= prefix => Bound::Excluded(key),
        _ => Bound::Included(prefix),
    };
    let records: Result<Vec<_>, _> = version
        .scan(Span::Range(start, Bound::Unbounded))
        .take_while(|record| record.as_ref().map_or(true, |(_, key, _)| key.starts_with(prefix)))
        .take(count)
        .collect();
    match records.map_err(table_error) {
        Ok(records) => {
            out.reply().array(records.len() * 2);
            for (_, key, value) in records {
                out.value(&key).await?;
                out.value(&value).await?;
            }
        }
        Err(error) => out.failed(&error),
    }
    Ok(Flow::Next)
}

/// RANDOMKEY.
pub fn randomkey(session: &mut Session<'_>) {
    let random = session.front.random();
    answer(session, |version| Ok(version.any_key(random)?.map_or(Answer::Null, Answer::Bulk)));
}

/// DBSIZE.
pub fn dbsize(session: &mut Session<'_>) {
    answer(session, |version| Ok(Answer::Integer(version.records() as i64)));
}

/// GRANARY.USE store.
pub fn granary_use(session: &mut Session<'_>, store: &[u8]) {
    let chosen = std::str::from_utf8(store)
        .map_err(|_| Error::new(Code::InvalidArgument, "store names are UTF-8"))
        .and_then(|store| session.use_store(store));
    match chosen {
        Ok(()) => session.reply().ok(),
        Err(error) => session.reply().error(&error_line(&error)),
    }
}

/// GRANARY.VERSION: the number of the version that answers.
pub fn granary_version(session: &mut Session<'_>) {
    answer(session, |version| Ok(Answer::Integer(version.number as i64)));
}

enum Answer {
    Integer(i64),
    Simple(&'static str),
    Bulk(Vec<u8>),
    Null,
}

/// Answers from the version of this batch.
fn answer(session: &mut Session<'_>, ask: impl FnOnce(&OpenVersion) -> Result<Answer>) {
    let asked = session.read().and_then(|(version, _)| ask(version));
    match asked {
        Ok(Answer::Integer(value)) => session.reply().integer(value),
        Ok(Answer::Simple(text)) => session.reply().simple(text),
        Ok(Answer::Bulk(bytes)) => session.reply().bulk(&bytes),
        Ok(Answer::Null) => session.reply().null(),
        Err(error) => session.reply().error(&error_line(&error)),
    }
}

fn refuse(session: &mut Session<'_>, error: &Error) -> io::Result<Flow> {
    session.reply().error(&error_line(error));
    Ok(Flow::Next)
}

#[cfg(test)]
mod tests {
    use super::byte_range;

    #[test]
    fn ranges_of_a_value_are_those_of_redis() {
        let cases: [(i64, i64, &str); 12] = [
            (0, 3, "This"),
            (-3, -1, "ing"),
            (0, -1, "This is a string"),
            (10, 100, "string"),
            (5, 4, ""),
            (-1, -5, ""),
            (100, 200, ""),
            (-100, 3, "This"),
            (0, -100, "T"),
            (i64::MIN, i64::MAX, "This is a string"),
            (3, -100, ""),
            (0, 0, "T"),
        ];
        for (start, end, expected) in cases {
            let found = byte_range(b"This is a string", start, end);
            assert_eq!(found, expected.as_bytes(), "{start} {end}");
            assert_eq!(byte_range(b"", start, end), b"");
        }
    }
}
