//! Answers that both roles give: JSON, nothing, and what to do with a body that nobody wants.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde_json::Value;

/// Bytes of an unwanted body that are read away before an answer.
const DRAIN_BYTES_MAX: usize = 16 << 20;
/// How long that may take.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);

/// 200 with JSON.
pub fn json(value: &Value) -> Response {
    json_with(StatusCode::OK, value)
}

/// JSON with a status.
pub fn json_with(status: StatusCode, value: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")];
    (status, headers, value.to_string()).into_response()
}

/// 200 without a body.
pub fn empty() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_LENGTH, "0"),
    ];
    (StatusCode::OK, headers).into_response()
}

/// Reads away, within bounds, a body that nobody wants: a client that sends without waiting for leave would see its
/// connection break, and not our answer. One that waits (`Expect: 100-continue`) is not told to send.
pub async fn drain(headers: &HeaderMap, body: Body) {
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let drained = async {
        let (mut left, mut stream) = (DRAIN_BYTES_MAX, body.into_data_stream());
        while let Some(Ok(bytes)) = stream.next().await {
            left = left.saturating_sub(bytes.len());
            if left == 0 {
                return;
            }
        }
    };
    if tokio::time::timeout(DRAIN_TIME_MAX, drained).await.is_err() {
        tracing::debug!("a body that nobody wanted was not sent in time");
    }
}
