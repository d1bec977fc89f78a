//! Web logs in the common or combined format: hits, bytes and statuses by path.
//!
//! | key | value |
//! |---|---|
//! | `/path` (without a query) | lines `hits<TAB>N`, `bytes<TAB>N`, and `status NNN<TAB>N` for each status |
//! | `_status:NNN` | the same over all paths, for one status |
//! | `_total` | the same over everything |
//! | `_top` | lines `path<TAB>hits`, the most hits first |
//!
//! A line that is not of the format, or whose request is not for a path, is counted as `lines_unparsed`.

use std::collections::BTreeMap;

use proto::limits::KEY_BYTES_MAX;
use proto::{Code, Error, FsPath, Result};

use super::top::{Top, merged};
use super::{TOP_KEY, list_text};
use crate::job::sort::varint;
use crate::job::{Job, Values};

const TOTAL_KEY: &[u8] = b"_total";

/// Settings of [`access_log`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessLogOptions {
    /// Paths in the list under `_top`.
    pub top: usize,
}

impl Default for AccessLogOptions {
    fn default() -> Self {
        Self { top: 100 }
    }
}

/// Evaluates the web logs under some paths. See the module's head for its keys and values.
pub fn access_log(inputs: impl IntoIterator<Item = FsPath>, options: AccessLogOptions) -> Job {
    Job::new("access log")
        .input_lines(inputs)
        .map_gathering(
            <(BTreeMap<u16, Sum>, Vec<u8>)>::default,
            |(by_status, value), line, out| {
                let Some(hit) = parse(line.value) else { return out.count("lines_unparsed", 1) };
                let own = Sum { hits: 1, bytes: hit.bytes };
                by_status.entry(hit.status).or_default().add(own);
                encode(value, hit.status, own);
                out.emit(hit.path, value)
            },
            |(by_status, value), out| {
                while let Some((status, sum)) = by_status.pop_first() {
                    encode(value, status, sum);
                    out.emit(TOTAL_KEY, value)?;
                    out.emit(format!("_status:{status}").as_bytes(), value)?;
                }
                Ok(())
            },
        )
        .combine(|key, values, out| {
            let mut value = Vec::new();
            for_each_status(key, values, |status, sum| {
                encode(&mut value, status, sum);
                out.emit(&value)
            })
        })
        .reduce(|key, values, out| {
            let mut all = Sum::default();
            let mut statuses = String::new();
            for_each_status(key, values, |status, sum| {
                all.add(sum);
                statuses.push_str(&format!("status {status}\t{}\n", sum.hits));
                Ok(())
            })?;
            let text = format!("hits\t{}\nbytes\t{}\n{statuses}", all.hits, all.bytes);
            out.emit(key, text.as_bytes())
        })
        .summary(
            [TOP_KEY.to_vec()],
            move || Top::new(options.top),
            |top, path, value| {
                if path.starts_with(b"/") {
                    top.add(path, hits_of(value).unwrap_or(0));
                }
            },
            move |lists| vec![(TOP_KEY.to_vec(), list_text(merged(options.top, lists)))],
        )
}

/// What one line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hit<'a> {
    path: &'a [u8],
    status: u16,
    bytes: u64,
}

/// Parses `host ident user [time] "METHOD /path?query PROTOCOL" status bytes ...`.
fn parse(line: &[u8]) -> Option<Hit<'_>> {
    let quote = memchr::memchr(b'"', line)?;
    let rest = &line[quote + 1..];
    let end = closing_quote(rest)?;
    let mut request = rest[..end].split(|&b| b == b' ').filter(|word| !word.is_empty());
    let (_method, target) = (request.next()?, request.next()?);
    let path = target.split(|&b| b == b'?' || b == b'#').next()?;
    let tail = std::str::from_utf8(rest[end + 1..].split(|&b| b == b'"').next()?).ok()?;
    let mut numbers = tail.split_ascii_whitespace();
    let status = numbers.next().filter(|text| text.len() == 3)?.parse().ok()?;
    let bytes = match numbers.next()? {
        "-" => 0,
        text => text.parse().ok()?,
    };
    let good = path.starts_with(b"/") && path.len() <= KEY_BYTES_MAX;
    good.then_some(Hit { path, status, bytes })
}

/// The quote that ends a field; servers write one inside it as `\"`.
fn closing_quote(field: &[u8]) -> Option<usize> {
    let mut escaped = false;
    field.iter().position(|&byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    hits: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.hits += other.hits;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// Between map and reduce: the status, big-endian so that values sort by it, and the sums as varints.
fn encode(value: &mut Vec<u8>, status: u16, sum: Sum) {
    value.clear();
    value.extend_from_slice(&status.to_be_bytes());
    varint::put(value, sum.hits);
    varint::put(value, sum.bytes);
}

fn decode(value: &[u8]) -> Option<(u16, Sum)> {
    let (status, _) = value.split_first_chunk()?;
    let mut at = 2;
    let hits = varint::take(value, &mut at)?;
    let bytes = varint::take(value, &mut at)?;
    (at == value.len()).then_some((u16::from_be_bytes(*status), Sum { hits, bytes }))
}

/// Calls `each` once per status, ascending.
fn for_each_status(
    key: &[u8],
    values: &mut Values<'_, '_>,
    mut each: impl FnMut(u16, Sum) -> Result<()>,
) -> Result<()> {
    let mut current: Option<(u16, Sum)> = None;
    while let Some(value) = values.next()? {
        let (status, sum) = decode(value).ok_or_else(|| {
            let key = sstable::escape(key);
            Error::new(Code::Internal, format!("a value of {key} was not made by this job's map"))
        })?;
        match &mut current {
            Some((last, all)) if *last == status => all.add(sum),
            _ => {
                if let Some((status, sum)) = current.replace((status, sum)) {
                    each(status, sum)?;
                }
            }
        }
    }
    current.map_or(Ok(()), |(status, sum)| each(status, sum))
}

fn hits_of(value: &[u8]) -> Option<u64> {
    let line = value.split(|&b| b == b'\n').next()?.strip_prefix(b"hits\t")?;
    std::str::from_utf8(line).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combined_and_common_lines_are_parsed() {
        let line = br#"83.149.9.216 - - [17/May/2015:10:05:03 +0000] "GET /a/b.png?x=1 HTTP/1.1" 200 203023 "http://r" "M (X) \"y\"""#;
        assert_eq!(parse(line), Some(Hit { path: b"/a/b.png", status: 200, bytes: 203023 }));
        let line = br#"::1 - bob [17/May/2015:10:05:03 +0000] "HEAD / HTTP/1.0" 304 -"#;
        assert_eq!(parse(line), Some(Hit { path: b"/", status: 304, bytes: 0 }));
        let line = br#"h - - [t] "GET /say/\"hi\" HTTP/1.0" 404 5"#;
        assert_eq!(parse(line), Some(Hit { path: br#"/say/\"hi\""#, status: 404, bytes: 5 }));
    }

    #[test]
    fn lines_that_are_not_of_the_format_are_not_hits() {
        for line in [
            &b""[..],
            b"hello",
            br#"h - - [t] "-" 408 -"#,
            br#"h - - [t] "GET / HTTP/1.0"#,
            br#"h - - [t] "GET / HTTP/1.0" 20 1"#,
            br#"h - - [t] "GET / HTTP/1.0" 200"#,
            br#"h - - [t] "GET / HTTP/1.0" 200 x"#,
            br#"h - - [t] "OPTIONS * HTTP/1.0" 200 0"#,
            br#"h - - [t] "GET _total HTTP/1.0" 200 0"#,
            b"\xff\"\xff \xff\" \xff \xff",
        ] {
            assert_eq!(parse(line), None, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn sums_come_back_and_sort_by_status() {
        let value = |status, hits, bytes| {
            let mut value = Vec::new();
            encode(&mut value, status, Sum { hits, bytes });
            value
        };
        assert_eq!(decode(&value(404, 3, 1 << 40)), Some((404, Sum { hits: 3, bytes: 1 << 40 })));
        assert!(value(200, 900, 1) < value(404, 1, 1));
        assert_eq!(decode(b"\x01"), None);
        assert_eq!(hits_of(b"hits\t12\nbytes\t3\n"), Some(12));
    }
}
