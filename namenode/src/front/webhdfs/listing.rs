//! Folders as JSON, page by page: memory is bounded by a page, however many entries a folder has.
//!
//! LISTSTATUS gives a whole folder: the first page is read before the answer begins, so that what is wrong is told by
//! the status; the others while the answer is being sent. An entry made or removed meanwhile may be in it or not, as
//! in HDFS. LISTSTATUS_BATCH gives one page, and how many entries follow.

use ::webhdfs::{Exception, Result, answer};
use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use proto::hadoop::hdfs::{DirectoryListingProto, GetListingRequestProto, GetListingResponseProto};
use serde_json::json;

use super::{Ask, json as messages};

/// LISTSTATUS.
pub(super) async fn whole(ask: &Ask) -> Result<Response> {
    let mut pages = Pages { ask: ask.clone(), after: Bytes::new(), begun: false, done: false };
    let mut begun = String::from("{\"FileStatuses\":{\"FileStatus\":[\n");
    let first = page(ask, Bytes::new()).await?;
    pages.write(&mut begun, first);
    let rest = stream::unfold(Some((pages, begun)), |state| async move {
        let (mut pages, text) = state?;
        if pages.done {
            return Some((Ok(Bytes::from(text + "\n]}}\n")), None));
        }
        match page(&pages.ask, pages.after.clone()).await {
            Ok(next) => {
                let mut written = String::new();
                pages.write(&mut written, next);
                Some((Ok(Bytes::from(text)), Some((pages, written))))
            }
            // The client sees an answer that breaks off, not one that looks whole.
            Err(error) => Some((Err(std::io::Error::other(error.message)), None)),
        }
    });
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")];
    Ok((headers, Body::from_stream(rest)).into_response())
}

/// LISTSTATUS_BATCH.
pub(super) async fn batch(ask: &Ask) -> Result<Response> {
    let after = ask.params.text("startafter").unwrap_or("").to_owned();
    let page = page(ask, after.into()).await?;
    let entries: Vec<_> = page.partial_listing.iter().map(messages::status).collect();
    Ok(answer::json(&json!({"DirectoryListing": {
        "partialListing": {"FileStatuses": {"FileStatus": entries}},
        "remainingEntries": page.remaining_entries,
    }})))
}

async fn page(ask: &Ask, start_after: Bytes) -> Result<DirectoryListingProto> {
    let request = GetListingRequestProto { src: ask.src(), start_after, need_location: false };
    let reply: GetListingResponseProto = ask.call("getListing", request).await?;
    reply.dir_list.ok_or_else(|| Exception::not_found(format!("File {} does not exist.", ask.path)))
}

/// A folder that is being listed.
struct Pages {
    ask: Ask,
    after: Bytes,
    begun: bool,
    done: bool,
}

impl Pages {
    fn write(&mut self, text: &mut String, page: DirectoryListingProto) {
        for entry in &page.partial_listing {
            if self.begun {
                text.push_str(",\n");
            }
            self.begun = true;
            text.push_str(&messages::status(entry).to_string());
        }
        let last = page.partial_listing.last().map(|entry| entry.path.clone());
        self.done = page.remaining_entries == 0 || last.is_none();
        self.after = last.unwrap_or_default();
    }
}
