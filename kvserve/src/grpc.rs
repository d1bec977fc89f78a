//! The service `Kv`: get, multi-get and scan over gRPC. Every reply names the version that it was answered from.
//!
//! A scan is answered from the version that was current when it began, however long it takes; its records travel in
//! messages of bounded size over a bounded channel, so that a slow reader holds nothing but that version open.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use proto::granary::kv_server::Kv;
use proto::granary::{
    GetReply, GetRequest, MaybeValue, MultiGetReply, MultiGetRequest, Record, ScanReply,
    ScanRequest,
};
use proto::limits::VALUE_BYTES_MAX;
use proto::{Code, Error, Result};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::lookup::{Span, table_error};
use crate::session::Front;
use crate::tables::OpenVersion;

/// Bytes of values that one reply may carry: the largest value fits.
pub const REPLY_BYTES_MAX: usize = VALUE_BYTES_MAX + (1 << 20);
/// Bytes of records after which a message of a scan is sent.
const SCAN_MESSAGE_BYTES: usize = 256 << 10;
/// Messages of a scan that wait for the reader.
const SCAN_MESSAGES_MAX: usize = 4;

/// Answers gRPC calls.
#[derive(Clone, Debug)]
pub struct KvService {
    front: Arc<Front>,
}

impl KvService {
    /// Answers from what `front` serves.
    pub fn new(front: Arc<Front>) -> Self {
        Self { front }
    }

    fn version(&self, store: &str, number: u64) -> Result<Arc<OpenVersion>> {
        self.front.counters.commands.fetch_add(1, Relaxed);
        let cell = self.front.stores.get(store)?;
        let version = cell.view().version(&cell.name, number)?;
        Ok(version)
    }

    fn count(&self, found: usize, missing: usize) {
        self.front.counters.hits.fetch_add(found as u64, Relaxed);
        self.front.counters.misses.fetch_add(missing as u64, Relaxed);
    }

    fn failed(&self, error: Error) -> Status {
        self.front.counters.failures.fetch_add(1, Relaxed);
        error.into()
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetReply>, Status> {
        let request = request.into_inner();
        let version = self.version(&request.store, request.version)?;
        let value = version.get(&request.key).map_err(|error| self.failed(error))?;
        self.count(usize::from(value.is_some()), usize::from(value.is_none()));
        let value = value.map(|value| value.to_vec().into());
        Ok(Response::new(GetReply { value, version: version.number }))
    }

    async fn multi_get(
        &self,
        request: Request<MultiGetRequest>,
    ) -> Result<Response<MultiGetReply>, Status> {
        let request = request.into_inner();
        let version = self.version(&request.store, request.version)?;
        let keys: Vec<&[u8]> = request.keys.iter().map(AsRef::as_ref).collect();
        let found = version.multi_get(&keys).map_err(|error| self.failed(error))?;
        let mut bytes = 0;
        let mut values = Vec::with_capacity(found.len());
        let mut missing = 0;
        for value in found {
            bytes += value.as_deref().map_or(0, <[u8]>::len);
            if bytes > REPLY_BYTES_MAX {
                let what = format!(
                    "the values of {} keys have over {REPLY_BYTES_MAX} bytes: ask for fewer at once",
                    keys.len()
                );
                return Err(Error::new(Code::LimitExceeded, what).into());
            }
            missing += usize::from(value.is_none());
            values.push(MaybeValue { value: value.map(|value| value.to_vec().into()) });
        }
        self.count(values.len() - missing, missing);
        Ok(Response::new(MultiGetReply { values, version: version.number }))
    }

    type ScanStream = ReceiverStream<Result<ScanReply, Status>>;

    async fn scan(
        &self,
        request: Request<ScanRequest>,
    ) -> Result<Response<Self::ScanStream>, Status> {
        let request = request.into_inner();
        let ranged = !request.start.is_empty() || !request.end.is_empty();
        if ranged && !request.prefix.is_empty() {
            let what = "a scan has a prefix, or a start and an end, not both";
            return Err(Error::new(Code::InvalidArgument, what).into());
        }
        let version = self.version(&request.store, request.version)?;
        let (sender, receiver) = mpsc::channel(SCAN_MESSAGES_MAX);
        let front = self.front.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = send_scan(&version, &request, &sender) {
                front.counters.failures.fetch_add(1, Relaxed);
                // The reader has left: nobody needs the error.
                let _left = sender.blocking_send(Err(error.into())).is_err();
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Sends the records of a scan; ends early if the reader leaves. Blocks.
fn send_scan(
    version: &OpenVersion,
    request: &ScanRequest,
    sender: &mpsc::Sender<Result<ScanReply, Status>>,
) -> Result<()> {
    let span = if request.prefix.is_empty() {
        let end = match request.end.is_empty() {
            true => Bound::Unbounded,
            false => Bound::Excluded(&request.end[..]),
        };
        Span::Range(Bound::Included(&request.start[..]), end)
    } else {
        Span::Prefix(&request.prefix)
    };
    let limit = match request.limit {
        0 => usize::MAX,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let (mut records, mut bytes) = (Vec::new(), 0);
    for record in version.scan(span).take(limit) {
        let (_, key, value) = record.map_err(table_error)?;
        let length = key.len() + value.len();
        // A message never grows beyond one record and what is worth sending alone.
        if bytes > 0 && bytes + length > SCAN_MESSAGE_BYTES {
            let records = std::mem::take(&mut records);
            if sender.blocking_send(Ok(ScanReply { records, version: version.number })).is_err() {
                return Ok(());
            }
            bytes = 0;
        }
        bytes += length;
        records.push(Record { key: key.to_vec().into(), value: value.to_vec().into() });
    }
    // Sent even if empty: an empty scan names its version, too. An error means that the reader has left.
    let _left = sender.blocking_send(Ok(ScanReply { records, version: version.number })).is_err();
    Ok(())
}
