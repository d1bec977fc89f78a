//! OPEN and GETFILECHECKSUM: what is in a file.
//!
//! The first bytes are read before the answer begins, so that a file that cannot be read is told as an exception; what
//! fails later breaks the answer off before its announced length. A client that goes away ends the reading.

use ::webhdfs::{Exception, Result, answer};
use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use client::FileReader;
use futures_util::stream;
use ipc::exceptions::{self as class};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::Ask;

/// Ranges up to this many bytes are read in one piece, without fetching ahead.
const WHOLE_BYTES_MAX: u64 = 1 << 20;

/// OPEN.
pub(super) async fn open(ask: Ask) -> Result<Response> {
    let number = |name: &str| Ok::<_, Exception>(ask.params.long(name, 0)?.map(i64::unsigned_abs));
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
    ask.params.int("buffersize", 1)?;
    let permit = ask.web.permit()?;
    let mut reader = ask.fs().await?.open(&ask.path).await?;
    if offset > reader.len() {
        return Err(Exception::new(
            class::IO,
            format!(
                "Offset={offset} out of the range [0, {}); OPEN, path={}",
                reader.len(),
                ask.path
            ),
        ));
    }
    let length = length.unwrap_or(u64::MAX).min(reader.len() - offset);
    reader.seek(offset);
    let mut range = Range { reader, left: length, _permit: permit };
    let first = range.next().await?;
    let rest = stream::unfold((first, Some(range)), |(ready, range)| async move {
        let (bytes, mut range) = (ready?, range?);
        match range.next().await {
            Ok(next) => Some((Ok(bytes), (next, Some(range)))),
            Err(error) => {
                tracing::warn!(%error, "a file that is read over WebHDFS breaks off");
                Some((Err(std::io::Error::other(error)), (None, None)))
            }
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
    ];
    Ok((headers, Body::from_stream(rest)).into_response())
}

/// A range that is being read.
struct Range {
    reader: FileReader,
    left: u64,
    _permit: OwnedSemaphorePermit,
}

impl Range {
    async fn next(&mut self) -> proto::Result<Option<Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        let short = usize::try_from(self.left).ok().filter(|_| self.left <= WHOLE_BYTES_MAX);
        let position = self.reader.position();
        let read = match short {
            Some(left) => Some(self.reader.read_bytes_at(position, left).await?),
            None => self.reader.read_next().await?,
        };
        let Some(mut bytes) = read.filter(|bytes| !bytes.is_empty()) else { return Ok(None) };
        bytes.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= bytes.len() as u64;
        if short.is_some() {
            self.reader.seek(position + bytes.len() as u64);
        }
        Ok(Some(bytes))
    }
}

/// GETFILECHECKSUM.
pub(super) async fn checksum(ask: Ask) -> Result<Response> {
    let _permit = ask.web.permit()?;
    let sum = ask.fs().await?.checksum(&ask.path).await?;
    let bytes = sum.to_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(answer::json(&json!({"FileChecksum": {
        "algorithm": sum.algorithm(),
        "bytes": hex,
        "length": bytes.len(),
    }})))
}
