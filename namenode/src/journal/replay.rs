//! Reading the journal: every request after a transaction, in order; and where its end is.
//!
//! A batch that can't be read is either the torn last one (cut off: it was never acknowledged) or damage (an error
//! that names file and offset). It is torn only if nothing can have been written after it: no later segment, and no
//! whole batch anywhere behind it in the same one, because a batch is written only after the one before it is synced.
//! What can't be told from a torn batch: damage in the very last batch of a journal that did not stop in order, and
//! was not yet covered by a checkpoint.
//!
//! Always holds: requests are handed out without a gap, or an error is given.

use std::path::{Path, PathBuf};

use proto::{Code, Error, Result, Txid};

use super::Place;
use super::segment::{
    BATCH_ALIGN, Batch, HEADER_BYTES, Header, decode_batch, list_segments, looks_like_batch,
};
use crate::coding::Malformed;

/// Takes each request with its transaction.
pub(crate) type EachRequest<'a> = &'a mut dyn FnMut(Txid, &[u8]) -> Result<(), Malformed>;

/// Where a replay ended.
#[derive(Debug)]
pub(crate) struct Replayed {
    /// The last segment, if there is one.
    pub tail: Option<Tail>,
    /// The first transaction that the journal still has, if it has a segment.
    pub first: Option<Txid>,
    /// Requests handed out.
    pub requests: u64,
}

/// The end of the last segment.
#[derive(Debug)]
pub(crate) struct Tail {
    pub path: PathBuf,
    pub header: Header,
    /// Where the next batch goes.
    pub offset: u64,
    /// The transaction that comes next.
    pub next: Txid,
    /// What could not be read there, if anything but zeros was: a torn batch.
    pub torn: Option<Malformed>,
}

fn damaged(path: &Path, offset: u64, why: impl std::fmt::Display) -> Error {
    let message = format!(
        "journal {}: damaged at offset {offset}: {why}. Acknowledged changes are there or behind it; restore the \
         file from a copy, or start from a checkpoint that is newer",
        path.display()
    );
    Error::new(Code::Corrupt, message)
}

/// Hands every request after `after` to `each`, with its transaction. The journal must reach back to `after` + 1,
/// unless it has nothing after it.
pub(crate) fn replay(place: &Place, after: Txid, each: EachRequest<'_>) -> Result<Replayed> {
    let segments = list_segments(&place.folder)?;
    let mut replayed =
        Replayed { tail: None, first: segments.first().map(|segment| segment.0), requests: 0 };
    // Segments that end before `after` need not be read: the next one's first transaction tells.
    let skipped = segments.iter().rposition(|segment| segment.0.0 <= after.0 + 1).unwrap_or(0);
    if let Some((first, path)) = segments.get(skipped)
        && first.0 > after.0 + 1
    {
        let message = format!(
            "the journal begins with {first} ({}), but {} is needed: a segment is missing",
            path.display(),
            Txid(after.0 + 1)
        );
        return Err(Error::new(Code::Corrupt, message));
    }
    for (at, (first, path)) in segments.iter().enumerate().skip(skipped) {
        if let Some(before) = replayed.tail.take()
            && before.next != *first
        {
            let why = format!(
                "a gap: {} should follow, {} begins with {first}",
                before.next,
                path.display()
            );
            return Err(damaged(&before.path, before.offset, why));
        }
        let is_last = at + 1 == segments.len();
        let tail = read_segment(place, path, *first, after, is_last, &mut |txid, request| {
            replayed.requests += 1;
            each(txid, request)
        })?;
        replayed.tail = Some(tail);
    }
    Ok(replayed)
}

fn read_segment(
    place: &Place,
    path: &Path,
    first: Txid,
    after: Txid,
    is_last: bool,
    each: EachRequest<'_>,
) -> Result<Tail> {
    let bytes =
        std::fs::read(path).map_err(|e| Error::io(format!("read {}", path.display()), &e))?;
    let header = read_header(place, path, first, &bytes)?;
    let mut offset = HEADER_BYTES;
    let mut next = first;
    let torn = loop {
        let rest = &bytes[offset as usize..];
        let batch = match decode_batch(header.salt, rest) {
            Ok(batch) if batch.first == next => batch,
            Ok(batch) => {
                let why = format!("a batch of {} where {next} should follow", batch.first);
                return Err(damaged(path, offset, why));
            }
            Err(_) if rest.iter().all(|&byte| byte == 0) => break None,
            Err(why) => break Some(why),
        };
        for request in &batch.requests {
            if next.0 > after.0 {
                each(next, request).map_err(|why| damaged(path, offset, why))?;
            }
            next = next.next();
        }
        offset = (offset + batch.bytes).min(bytes.len() as u64);
    };
    if let Some(why) = &torn {
        demand_nothing_behind(path, &header, &bytes, offset, why)?;
        if !is_last {
            return Err(damaged(path, offset, format!("{why}, and a later segment exists")));
        }
    }
    Ok(Tail { path: path.to_owned(), header, offset, next, torn })
}

fn read_header(place: &Place, path: &Path, first: Txid, bytes: &[u8]) -> Result<Header> {
    let header = Header::decode(bytes).map_err(|why| damaged(path, 0, why))?;
    if header.cluster_id != place.cluster_id {
        let message = format!(
            "journal {} belongs to the cluster {}, this folder to {}",
            path.display(),
            uuid::Uuid::from_bytes(header.cluster_id),
            uuid::Uuid::from_bytes(place.cluster_id)
        );
        return Err(Error::new(Code::Incompatible, message));
    }
    if header.first != first {
        let why = format!("its header says that it begins with {}", header.first);
        return Err(damaged(path, 32, why));
    }
    if header.segment_bytes != bytes.len() as u64 {
        let why = format!("{} bytes, its header says {}", bytes.len(), header.segment_bytes);
        return Err(damaged(path, 40, why));
    }
    Ok(header)
}

/// A whole batch behind an unreadable one shows that the unreadable one was synced once.
fn demand_nothing_behind(
    path: &Path,
    header: &Header,
    bytes: &[u8],
    offset: u64,
    why: &Malformed,
) -> Result<()> {
    let mut at = offset + BATCH_ALIGN;
    while let Some(rest) = bytes.get(at as usize..) {
        if looks_like_batch(rest)
            && let Ok(Batch { first, .. }) = decode_batch(header.salt, rest)
        {
            let why = format!("{why}; a whole batch with {first} stands behind it at offset {at}");
            return Err(damaged(path, offset, why));
        }
        at += BATCH_ALIGN;
    }
    Ok(())
}
