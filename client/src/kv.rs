//! Reads from key-value servers: get, multi-get, scan.
//!
//! A [`KvClient`] asks the catalogue which servers hold the store, uses one after another, and moves to the next when
//! one fails; a server that failed is asked last for a while. When all fail, the catalogue is asked again. Every call is
//! answered from one version; a scan that moves to another server goes on in the version in which it began.
#![allow(clippy::disallowed_methods, reason = "a shell: deadlines need the clock")]

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::granary::kv_client::KvClient as Stub;
use proto::granary::{GetRequest, KvserveAddress, MultiGetRequest, ScanReply, ScanRequest};
use proto::limits::{GRPC_MESSAGE_BYTES_MAX, VALUE_BYTES_MAX};
use proto::{Code, Error, Kind, Result};
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::catalogue::Catalogue;
use crate::fs::Fs;

/// Bytes of a reply that are accepted: the largest value and what comes with it.
const REPLY_BYTES_MAX: usize = VALUE_BYTES_MAX + (2 << 20);
/// What one call to one server may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server that failed is asked last.
const BAD_TIME: Duration = Duration::from_secs(5);
/// Rounds over all servers before a call fails.
const ROUNDS_MAX: u32 = 4;
/// Before the second round; doubles each time.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// One store, as its servers answer it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct KvClient {
    shared: Arc<Shared>,
    /// 0: the current one.
    version: u64,
}

#[derive(Debug)]
struct Shared {
    store: String,
    /// `None`: the servers were given by address.
    catalogue: Option<Catalogue>,
    servers: Mutex<Vec<Server>>,
    turn: AtomicUsize,
}

#[derive(Clone, Debug)]
struct Server {
    address: String,
    stub: Stub<Channel>,
    bad_until: Option<Instant>,
}

/// Which records a scan wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanOptions {
    /// Keys that begin with this. Not together with `start` or `end`.
    pub prefix: Bytes,
    /// Keys from this one on.
    pub start: Bytes,
    /// Keys below this one; empty: no end.
    pub end: Bytes,
    /// Records at most; 0: all.
    pub limit: u64,
}

impl KvClient {
    /// Finds the servers of `store` in the catalogue. `NotFound` if there is no such store.
    pub async fn connect(fs: &Fs, store: &str) -> Result<Self> {
        let this = Self::new(store, Some(fs.catalogue()), Vec::new());
        this.refresh().await?;
        Ok(this)
    }

    /// Reads `store` from servers at these addresses (`host:port` of their gRPC service), without a NameNode. An empty
    /// name means the servers' default store.
    pub fn at_addresses(store: &str, addresses: &[String]) -> Result<Self> {
        if addresses.is_empty() {
            return Err(Error::new(Code::InvalidArgument, "no address of a key-value server"));
        }
        let servers: Result<Vec<_>> = addresses.iter().map(|a| Server::new(a.clone())).collect();
        Ok(Self::new(store, None, servers?))
    }

    fn new(store: &str, catalogue: Option<Catalogue>, servers: Vec<Server>) -> Self {
        let shared = Shared {
            store: store.to_owned(),
            catalogue,
            servers: Mutex::new(servers),
            turn: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared), version: 0 }
    }

    /// The same store, answered from this version as long as the servers keep it open; 0: the current one.
    #[must_use]
    pub fn at_version(&self, version: u64) -> Self {
        Self { shared: self.shared.clone(), version }
    }

    /// The value of a key, and the version that it is from.
    pub async fn get_versioned(&self, key: &[u8]) -> Result<(Option<Bytes>, u64)> {
        let request = GetRequest {
            store: self.shared.store.clone(),
            key: Bytes::copy_from_slice(key),
            version: self.version,
        };
        let reply = self
            .call("get", |mut stub| {
                let request = request.clone();
                async move { Ok(stub.get(request).await?.into_inner()) }
            })
            .await?;
        Ok((reply.value, reply.version))
    }

    /// The value of a key.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.get_versioned(key).await?.0)
    }

    /// The values of keys, in their order, all from one version.
    pub async fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Bytes>>> {
        let request = MultiGetRequest {
            store: self.shared.store.clone(),
            keys: keys.iter().map(|key| Bytes::copy_from_slice(key.as_ref())).collect(),
            version: self.version,
        };
        let reply = self
            .call("multi-get", |mut stub| {
                let request = request.clone();
                async move { Ok(stub.multi_get(request).await?.into_inner()) }
            })
            .await?;
        if reply.values.len() != keys.len() {
            let what = format!("{} values for {} keys", reply.values.len(), keys.len());
            return Err(Error::new(Code::Incompatible, what));
        }
        Ok(reply.values.into_iter().map(|value| value.value).collect())
    }

    /// Walks records in the order of their keys.
    pub async fn scan(&self, options: ScanOptions) -> Result<Scan> {
        let mut scan = Scan {
            client: self.clone(),
            left: options.limit,
            limited: options.limit > 0,
            options,
            stream: None,
            records: Vec::new().into_iter(),
            last: None,
            failures: 0,
        };
        scan.open().await?;
        Ok(scan)
    }

    /// Asks the catalogue which servers there are. Connections to those that stay are kept.
    async fn refresh(&self) -> Result<()> {
        let Some(catalogue) = &self.shared.catalogue else { return Ok(()) };
        let store = catalogue.get_store(&self.shared.store).await?;
        let known = self.shared.servers.lock().expect("no holder panics").clone();
        let mut servers = Vec::with_capacity(store.servers.len());
        for address in &store.servers {
            let address = address_of(address);
            match known.iter().find(|server| server.address == address) {
                Some(server) => servers.push(server.clone()),
                None => servers.push(Server::new(address)?),
            }
        }
        *self.shared.servers.lock().expect("no holder panics") = servers;
        Ok(())
    }

    /// Servers in the order in which to ask them: in turn, those that failed lately last.
    fn in_order(&self) -> Vec<Server> {
        let mut servers = self.shared.servers.lock().expect("no holder panics").clone();
        if !servers.is_empty() {
            let turn = self.shared.turn.fetch_add(1, Ordering::Relaxed) % servers.len();
            servers.rotate_left(turn);
        }
        let now = Instant::now();
        servers.sort_by_key(|server| server.bad_until.is_some_and(|until| until > now));
        servers
    }

    fn mark_bad(&self, address: &str) {
        let mut servers = self.shared.servers.lock().expect("no holder panics");
        for server in servers.iter_mut().filter(|server| server.address == address) {
            server.bad_until = Some(Instant::now() + BAD_TIME);
        }
    }

    /// Asks one server after another until one answers.
    async fn call<T, F: Future<Output = Result<T>> + Send>(
        &self,
        what: &str,
        ask: impl Fn(Stub<Channel>) -> F,
    ) -> Result<T> {
        let mut last = Error::new(
            Code::Unavailable,
            "no key-value server is attached: start one (granary kvserve)",
        );
        for round in 0..ROUNDS_MAX {
            if round > 0 {
                tokio::time::sleep(ROUND_PAUSE * (1 << (round - 1))).await;
                self.refresh().await?;
            }
            for server in self.in_order() {
                let outcome = tokio::time::timeout(CALL_TIMEOUT, ask(server.stub.clone())).await;
                let error = match outcome {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(error)) => error,
                    Err(_elapsed) => {
                        Error::new(Code::Timeout, format!("no answer in {CALL_TIMEOUT:?}"))
                    }
                };
                match error.kind() {
                    Kind::Retry | Kind::GoElsewhere | Kind::Corrupt | Kind::Fatal => {
                        self.mark_bad(&server.address);
                    }
                    // It may not have fetched the store or version yet: another may.
                    Kind::NotFound => {}
                    _ => return Err(self.told(what, &server.address, error)),
                }
                last = self.told(what, &server.address, error);
            }
            if last.kind() == Kind::NotFound {
                break;
            }
        }
        Err(last)
    }

    fn told(&self, what: &str, address: &str, error: Error) -> Error {
        error.context(format!("{what} of store {:?} from {address}", self.shared.store))
    }
}

impl Server {
    fn new(address: String) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| {
                Error::new(Code::InvalidArgument, format!("address {address:?}: {error}"))
            })?
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(5))
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10));
        let stub = Stub::new(endpoint.connect_lazy())
            .max_decoding_message_size(REPLY_BYTES_MAX)
            .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX);
        Ok(Self { address, stub, bad_until: None })
    }
}

fn address_of(address: &KvserveAddress) -> String {
    // An IPv6 address needs brackets in front of a port.
    if address.host.contains(':') {
        format!("[{}]:{}", address.host, address.grpc_port)
    } else {
        format!("{}:{}", address.host, address.grpc_port)
    }
}

/// Records in the order of their keys. Moves to another server when one fails, and goes on where it was.
#[derive(Debug)]
pub struct Scan {
    client: KvClient,
    options: ScanOptions,
    left: u64,
    limited: bool,
    stream: Option<Streaming<ScanReply>>,
    records: std::vec::IntoIter<proto::granary::Record>,
    last: Option<Bytes>,
    failures: u32,
}

impl Scan {
    /// The version that is scanned; 0 before the first record or the end was seen.
    pub fn version(&self) -> u64 {
        self.client.version
    }

    /// The next record; `None`: that was all.
    pub async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        loop {
            if self.limited && self.left == 0 {
                return Ok(None);
            }
            if let Some(record) = self.records.next() {
                self.left = self.left.saturating_sub(1);
                self.last = Some(record.key.clone());
                return Ok(Some((record.key, record.value)));
            }
            let Some(stream) = &mut self.stream else { return Ok(None) };
            match tokio::time::timeout(CALL_TIMEOUT, stream.message()).await {
                Ok(Ok(Some(reply))) => {
                    self.client.version = reply.version;
                    self.failures = 0;
                    self.records = reply.records.into_iter();
                }
                Ok(Ok(None)) => self.stream = None,
                Ok(Err(status)) => self.reopen(status.into()).await?,
                Err(_elapsed) => {
                    let what = format!("no more records in {CALL_TIMEOUT:?}");
                    self.reopen(Error::new(Code::Timeout, what)).await?;
                }
            }
        }
    }

    async fn open(&mut self) -> Result<()> {
        let mut request = ScanRequest {
            store: self.client.shared.store.clone(),
            prefix: self.options.prefix.clone(),
            start: self.options.start.clone(),
            end: self.options.end.clone(),
            limit: self.left,
            version: self.client.version,
        };
        if let Some(last) = &self.last {
            // The smallest key behind the last one; a prefix becomes the range that it means.
            if !request.prefix.is_empty() {
                request.end = end_of_prefix(&request.prefix).into();
                request.prefix = Bytes::new();
            }
            request.start = [last, &[0][..]].concat().into();
        }
        let stream = self
            .client
            .call("scan", |mut stub| {
                let request = request.clone();
                async move { Ok(stub.scan(request).await?.into_inner()) }
            })
            .await?;
        self.stream = Some(stream);
        Ok(())
    }

    async fn reopen(&mut self, error: Error) -> Result<()> {
        self.failures += 1;
        let passing = matches!(error.kind(), Kind::Retry | Kind::GoElsewhere | Kind::Corrupt);
        if !passing || self.failures > ROUNDS_MAX {
            return Err(error.context(format!("scan of store {:?}", self.client.shared.store)));
        }
        tokio::time::sleep(ROUND_PAUSE).await;
        self.open().await
    }
}

/// The smallest key above all that begin with `prefix`; empty: there is none.
fn end_of_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_above_all_its_keys() {
        assert_eq!(end_of_prefix(b"ab"), b"ac");
        assert_eq!(end_of_prefix(b"a\xff\xff"), b"b");
        assert_eq!(end_of_prefix(b"\xff"), b"");
    }

    #[tokio::test]
    async fn servers_that_failed_lately_are_asked_last_and_the_others_in_turn() {
        let addresses: Vec<String> = (1..4).map(|n| format!("127.0.0.1:{n}")).collect();
        let client = KvClient::at_addresses("s", &addresses).unwrap();
        client.mark_bad("127.0.0.1:2");
        let mut firsts: Vec<String> = Vec::new();
        for _ in 0..6 {
            let order = client.in_order();
            assert_eq!(order[2].address, "127.0.0.1:2");
            firsts.push(order[0].address.clone());
        }
        assert!(firsts.contains(&addresses[0]) && firsts.contains(&addresses[2]));
    }

    #[test]
    fn addresses_of_both_families_are_written_with_their_port() {
        let mut address = KvserveAddress { host: "::1".into(), grpc_port: 5, ..Default::default() };
        assert_eq!(address_of(&address), "[::1]:5");
        address.host = "host".into();
        assert_eq!(address_of(&address), "host:5");
    }
}
