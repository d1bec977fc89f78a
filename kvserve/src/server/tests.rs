//! A whole server on loopback: sockets, protocols, and a NameNode's side of the stream.

use std::sync::Mutex;

use proto::granary::catalogue_server::{Catalogue, CatalogueServer};
use proto::granary::kv_client::KvClient;
use proto::granary::kvserve_up::Message;
use proto::granary::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::testing::{LocalFiles, build, records, wait_for};

/// The NameNode's side of the stream: sends what the test says, keeps what the server says.
#[derive(Clone)]
struct Controller {
    down: watch::Receiver<KvserveDown>,
    heard: Arc<Mutex<Vec<KvserveUp>>>,
}

#[tonic::async_trait]
impl Catalogue for Controller {
    type AttachStream = std::pin::Pin<Box<dyn Stream<Item = Result<KvserveDown, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<KvserveUp>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (mut up, heard) = (request.into_inner(), self.heard.clone());
        tokio::spawn(async move {
            while let Ok(Some(message)) = up.message().await {
                heard.lock().unwrap().push(message);
            }
        });
        Ok(Response::new(Box::pin(WatchStream::new(self.down.clone()).map(Ok))))
    }

    async fn publish_version(
        &self,
        _: Request<PublishVersionRequest>,
    ) -> Result<Response<PublishVersionReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn list_stores(
        &self,
        _: Request<ListStoresRequest>,
    ) -> Result<Response<ListStoresReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_store(&self, _: Request<GetStoreRequest>) -> Result<Response<Store>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn activate_version(
        &self,
        _: Request<ActivateVersionRequest>,
    ) -> Result<Response<Store>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn delete_version(
        &self,
        _: Request<DeleteVersionRequest>,
    ) -> Result<Response<Store>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn delete_store(
        &self,
        _: Request<DeleteStoreRequest>,
    ) -> Result<Response<DeleteStoreReply>, Status> {
        Err(Status::unimplemented(""))
    }
}

struct Bench {
    sources: tempfile::TempDir,
    dir: tempfile::TempDir,
    server: Option<Handle>,
    say: watch::Sender<KvserveDown>,
    heard: Arc<Mutex<Vec<KvserveUp>>>,
    namenode: JoinHandle<()>,
}

fn down(txid: u64, stores: Vec<StoreAssignment>) -> KvserveDown {
    KvserveDown {
        cluster_id: "test-cluster".into(),
        heartbeat_interval_ms: 50,
        catalogue_txid: txid,
        stores,
    }
}

impl Bench {
    async fn start(configure: impl FnOnce(&mut Config)) -> Self {
        let (sources, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (say, down) = watch::channel(down(0, vec![]));
        let heard = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let namenode_addr = listener.local_addr().unwrap();
        let controller = Controller { down, heard: Arc::clone(&heard) };
        let namenode = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(CatalogueServer::new(controller))
                .serve_with_incoming(TcpIncoming::from(listener))
                .await
                .unwrap();
        });
        let any = || "127.0.0.1:0".to_owned();
        let mut config = Config {
            dir: dir.path().to_owned(),
            namenode: namenode_addr.to_string(),
            redis_addr: any(),
            grpc_addr: any(),
            http_addr: any(),
            disk_reserve_bytes: 0,
            ..Config::default()
        };
        configure(&mut config);
        let server = start_with(config, LocalFiles::default().origin()).await.unwrap();
        Self { sources, dir, server: Some(server), say, heard, namenode }
    }

    fn server(&self) -> &Handle {
        self.server.as_ref().unwrap()
    }

    fn store(&self, name: &str, current: u64, versions: &[u64]) -> StoreAssignment {
        let versions = versions
            .iter()
            .map(|&version| {
                let specs = build(
                    self.sources.path(),
                    &format!("{name}-v{version}"),
                    2,
                    &records(300, version),
                );
                let tables = specs
                    .iter()
                    .map(|spec| TableInfo {
                        path: spec.path.clone(),
                        bytes: spec.bytes,
                        records: spec.records,
                        slot_first: spec.slot_first.into(),
                        slot_last: spec.slot_last.into(),
                        footer_crc32: spec.footer_crc32,
                    })
                    .collect();
                VersionAssignment { version, tables }
            })
            .collect();
        StoreAssignment { store: name.into(), current, versions }
    }

    async fn serve(&self, txid: u64, stores: Vec<StoreAssignment>) {
        let wanted: Vec<(String, u64)> =
            stores.iter().map(|store| (store.store.clone(), store.current)).collect();
        self.say.send_replace(down(txid, stores));
        for (name, current) in wanted {
            wait_for("the version serves", || {
                let view = self.server().stores().get(&name).ok()?.view().clone();
                view.current.as_ref().filter(|version| version.number == current).map(|_| ())
            })
            .await;
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.server().redis_addr()).await.unwrap()
    }

    async fn stop(mut self) {
        self.server.take().unwrap().shutdown().await.unwrap();
        self.namenode.abort();
    }
}

/// Sends a command as a line and reads until `expected` has come.
async fn ask(socket: &mut TcpStream, command: &str, expected: &str) {
    socket.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
    let mut got = vec![0; expected.len()];
    let mut at = 0;
    while at < got.len() {
        let read = tokio::time::timeout(Duration::from_secs(10), socket.read(&mut got[at..])).await;
        match read {
            Ok(Ok(count)) if count > 0 => at += count,
            other => panic!("{command}: {other:?} after {:?}", String::from_utf8_lossy(&got[..at])),
        }
        let shown = String::from_utf8_lossy(&got[..at]);
        assert!(
            expected.as_bytes().starts_with(&got[..at]),
            "{command}: got {shown:?}, expected {expected:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_answered_as_redis_does() {
    let bench = Bench::start(|_| {}).await;
    bench.serve(1, vec![bench.store("s", 1, &[1])]).await;
    let mut c = bench.connect().await;
    let cases = [
        ("PING", "+PONG\r\n"),
        ("ping hi", "$2\r\nhi\r\n"),
        ("ping a b", "-ERR wrong number of arguments for 'ping' command\r\n"),
        ("ECHO hi", "$2\r\nhi\r\n"),
        ("GET k1", "$4\r\nv1-1\r\n"),
        ("GET nosuch", "$-1\r\n"),
        ("get", "-ERR wrong number of arguments for 'get' command\r\n"),
        ("MGET k1 nosuch k2", "*3\r\n$4\r\nv1-1\r\n$-1\r\n$4\r\nv1-2\r\n"),
        ("EXISTS k1 k1 nosuch", ":2\r\n"),
        ("STRLEN k1", ":4\r\n"),
        ("GETRANGE k1 1 -1", "$3\r\n1-1\r\n"),
        ("GETRANGE k1 0 x", "-ERR value is not an integer or out of range\r\n"),
        ("TYPE k1", "+string\r\n"),
        ("TYPE nosuch", "+none\r\n"),
        ("TTL k1", ":-1\r\n"),
        ("PTTL nosuch", ":-2\r\n"),
        ("DBSIZE", ":300\r\n"),
        (
            "KEYS k29?",
            "*10\r\n$4\r\nk290\r\n$4\r\nk291\r\n$4\r\nk292\r\n$4\r\nk293\r\n$4\r\nk294\r\n$4\r\nk295\r\n$4\r\nk296\r\n$4\r\nk297\r\n$4\r\nk298\r\n$4\r\nk299\r\n",
        ),
        ("SCAN 0 MATCH k299 COUNT 1000", "*2\r\n$1\r\n0\r\n*1\r\n$4\r\nk299\r\n"),
        ("SCAN x", "-ERR invalid cursor\r\n"),
        ("SCAN 0 COUNT 0", "-ERR syntax error\r\n"),
        ("SCAN 0 TYPE hash", "*2\r\n$1\r\n0\r\n*0\r\n"),
        ("GRANARY.VERSION", ":1\r\n"),
        ("GRANARY.SCAN k29 2", "*4\r\n$3\r\nk29\r\n$5\r\nv1-29\r\n$4\r\nk290\r\n$6\r\nv1-290\r\n"),
        ("GRANARY.SCAN k29 1 AFTER k290", "*2\r\n$4\r\nk291\r\n$6\r\nv1-291\r\n"),
        ("GRANARY.USE nosuch", "-ERR no store \"nosuch\" on this server; it has [\"s\"]\r\n"),
        ("GRANARY.USE s", "+OK\r\n"),
        ("SET a b", "-READONLY You can't write against a read only replica.\r\n"),
        ("SET a", "-ERR wrong number of arguments for 'set' command\r\n"),
        ("DEL a", "-READONLY You can't write against a read only replica.\r\n"),
        ("nosuch a b", "-ERR unknown command 'nosuch', with args beginning with: 'a' 'b' \r\n"),
        ("CLIENT nosuch", "-ERR unknown subcommand 'nosuch'. Try CLIENT HELP.\r\n"),
        ("CLIENT SETNAME", "-ERR wrong number of arguments for 'client|setname' command\r\n"),
        ("CLIENT GETNAME", "$-1\r\n"),
        ("CLIENT SETNAME me", "+OK\r\n"),
        ("CLIENT GETNAME", "$2\r\nme\r\n"),
        (
            "CLIENT SETNAME \"a b\"",
            "-ERR Client names cannot contain spaces, newlines or special characters.\r\n",
        ),
        ("CLIENT SETINFO lib-name x", "+OK\r\n"),
        ("CLIENT KILL 1.2.3.4:5", "-ERR No such client\r\n"),
        ("CLIENT KILL ID 999", ":0\r\n"),
        ("CLIENT KILL ID x", "-ERR client-id should be greater than 0\r\n"),
        ("CLUSTER INFO", "-ERR This instance has cluster support disabled\r\n"),
        ("CLUSTER nosuch", "-ERR unknown subcommand 'nosuch'. Try CLUSTER HELP.\r\n"),
        (
            "AUTH x",
            "-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?\r\n",
        ),
        ("AUTH bob x", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
        ("SELECT 0", "+OK\r\n"),
        ("SELECT 1", "-ERR DB index is out of range\r\n"),
        ("HELLO 4", "-NOPROTO unsupported protocol version\r\n"),
        ("HELLO 2 foo", "-ERR Syntax error in HELLO option 'foo'\r\n"),
        (
            "CONFIG GET save appendonly",
            "*4\r\n$10\r\nappendonly\r\n$2\r\nno\r\n$4\r\nsave\r\n$0\r\n\r\n",
        ),
        ("COMMAND GETKEYS mget a b", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
        ("COMMAND INFO nosuch", "*1\r\n*-1\r\n"),
        ("CLIENT REPLY SKIP\r\nPING\r\nECHO on", "$2\r\non\r\n"),
        ("CLIENT REPLY OFF\r\nPING\r\nCLIENT REPLY ON", "+OK\r\n"),
        ("RESET", "+RESET\r\n"),
        ("CLIENT GETNAME", "$-1\r\n"),
        (
            "HELLO 3",
            "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n",
        ),
        ("GET nosuch", "_\r\n"),
        ("QUIT", "+OK\r\n"),
    ];
    for (command, expected) in cases {
        ask(&mut c, command, expected).await;
    }
    assert_eq!(c.read(&mut [0; 1]).await.unwrap(), 0, "QUIT closes");
    let mut c = bench.connect().await;
    let error = "-ERR Protocol error: expected '$', got ':'\r\n";
    ask(&mut c, "*1\r\n:1", error).await;
    let mut rest = Vec::new();
    c.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"", "a protocol error closes");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scan_visits_every_key_once_even_across_a_switch() {
    let bench = Bench::start(|_| {}).await;
    let both = bench.store("s", 1, &[1, 2]);
    bench.serve(1, vec![both.clone()]).await;
    let mut c = bench.connect().await;
    let (mut cursor, mut keys, mut switched) = ("0".to_owned(), Vec::new(), false);
    loop {
        c.write_all(format!("SCAN {cursor} COUNT 50\r\nPING\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        while !text.ends_with("+PONG\r\n") {
            let mut piece = [0; 4096];
            let count = c.read(&mut piece).await.unwrap();
            text.push_str(std::str::from_utf8(&piece[..count]).unwrap());
        }
        let mut words = text.lines().filter(|line| !line.starts_with(['*', '$', '+']));
        cursor = words.next().unwrap().to_owned();
        keys.extend(words.map(str::to_owned));
        if cursor == "0" {
            break;
        }
        if !switched {
            bench.serve(2, vec![StoreAssignment { current: 2, ..both.clone() }]).await;
            switched = true;
        }
    }
    assert!(switched && keys.is_sorted());
    keys.dedup();
    assert_eq!(keys.len(), 300);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_stores_without_a_default_say_how_to_choose() {
    let bench = Bench::start(|_| {}).await;
    let stores = vec![bench.store("a", 1, &[1]), bench.store("b", 2, &[2])];
    bench.serve(1, stores).await;
    let mut c = bench.connect().await;
    let error =
        "-ERR several stores and no default: choose with GRANARY.USE, one of [\"a\", \"b\"]\r\n";
    ask(&mut c, "GET k1", error).await;
    ask(&mut c, "GRANARY.USE b", "+OK\r\n").await;
    ask(&mut c, "GET k1", "$4\r\nv2-1\r\n").await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_and_large_replies_pass_through_a_small_output_buffer() {
    let bench = Bench::start(|config| config.output_buffer_bytes = 1024).await;
    bench.serve(1, vec![bench.store("s", 1, &[1])]).await;
    let mut c = bench.connect().await;
    let keys: String = (0..300).map(|n| format!(" k{n}")).collect();
    let values: String =
        (0..300).map(|n| format!("v1-{n}")).map(|v| format!("${}\r\n{v}\r\n", v.len())).collect();
    let commands = vec![format!("MGET{keys}"); 20].join("\r\n");
    ask(&mut c, &commands, &format!("*300\r\n{values}").repeat(20)).await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_on_connections_commands_and_silence_hold() {
    let bench = Bench::start(|config| {
        config.connections_max = 2;
        config.command_bytes_max = 10_000;
        config.argument_bytes_max = 5_000;
        config.idle_timeout_ms = 200;
    })
    .await;
    let (mut a, _b) = (bench.connect().await, bench.connect().await);
    ask(&mut a, "PING", "+PONG\r\n").await;
    let mut refused = bench.connect().await;
    let mut text = String::new();
    refused.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "-ERR max number of clients reached\r\n");
    ask(&mut a, "*2\r\n$4\r\nECHO\r\n$5001", "-ERR Protocol error: invalid bulk length\r\n").await;
    // Those that say nothing are closed, and make room.
    let mut later = wait_for_connection(&bench).await;
    assert_eq!(later.read(&mut [0; 1]).await.unwrap(), 0, "silence closes");
    bench.stop().await;
}

async fn wait_for_connection(bench: &Bench) -> TcpStream {
    for _ in 0..1000 {
        let mut socket = bench.connect().await;
        socket.write_all(b"PING\r\n").await.unwrap();
        let mut reply = [0; 7];
        if socket.read_exact(&mut reply).await.is_ok() && &reply == b"+PONG\r\n" {
            return socket;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no connection was ever let in");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_connection_can_be_killed() {
    let bench = Bench::start(|_| {}).await;
    let (mut a, mut b) = (bench.connect().await, bench.connect().await);
    ask(&mut a, "CLIENT ID", ":1\r\n").await;
    ask(&mut b, "CLIENT ID", ":2\r\n").await;
    ask(&mut a, "CLIENT KILL ID 2", ":1\r\n").await;
    assert_eq!(b.read(&mut [0; 1]).await.unwrap(), 0);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_namenode_hears_of_every_step_and_the_folder_joins_its_cluster() {
    let bench = Bench::start(|_| {}).await;
    bench.serve(1, vec![bench.store("s", 1, &[1])]).await;
    let heard = bench.heard.clone();
    let serving = wait_for("a heartbeat says that it serves", || {
        heard.lock().unwrap().iter().find_map(|up| match &up.message {
            Some(Message::Heartbeat(beat)) => beat
                .versions
                .iter()
                .find(|v| v.state() == ServerVersionState::Serving)
                .map(|v| (v.clone(), beat.clone())),
            _ => None,
        })
    })
    .await;
    assert_eq!((serving.0.server.as_str(), serving.0.version), (bench.server().uuid(), 1));
    assert_eq!(serving.0.bytes_done, serving.0.bytes_total);
    assert!(serving.1.capacity_bytes > 0);
    match &heard.lock().unwrap()[0].message {
        Some(Message::Register(register)) => {
            let address = register.address.as_ref().unwrap();
            assert_eq!(address.redis_port, u32::from(bench.server().redis_addr().port()));
            assert_eq!(address.host, "127.0.0.1");
        }
        other => panic!("the first message registers: {other:?}"),
    }
    let identity = std::fs::read_to_string(bench.dir.path().join("identity")).unwrap();
    assert!(identity.contains("cluster test-cluster"), "{identity}");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_answers_gets_and_scans_and_names_the_version() {
    let bench = Bench::start(|_| {}).await;
    bench.serve(1, vec![bench.store("s", 2, &[1, 2])]).await;
    let url = format!("http://{}", bench.server().grpc_addr());
    let mut stub = KvClient::connect(url).await.unwrap();
    let get =
        |key: &str, version| GetRequest { store: "s".into(), key: key.to_owned().into(), version };
    let reply = stub.get(get("k1", 0)).await.unwrap().into_inner();
    assert_eq!((reply.value.as_deref(), reply.version), (Some(&b"v2-1"[..]), 2));
    wait_for("version 1 is open", || {
        bench.server().stores().get("s").unwrap().view().open.get(&1).map(|_| ())
    })
    .await;
    let reply = stub.get(get("k1", 1)).await.unwrap().into_inner();
    assert_eq!((reply.value.as_deref(), reply.version), (Some(&b"v1-1"[..]), 1), "pinned");
    assert_eq!(stub.get(get("nosuch", 0)).await.unwrap().into_inner().value, None);
    let error = Error::from(stub.get(get("k1", 9)).await.unwrap_err());
    assert_eq!(error.code, Code::NotFound);
    let keys = vec!["k1".into(), "nosuch".into(), "k0".into()];
    let request = MultiGetRequest { store: String::new(), keys, version: 0 };
    let values: Vec<_> = stub
        .multi_get(request)
        .await
        .unwrap()
        .into_inner()
        .values
        .into_iter()
        .map(|v| v.value)
        .collect();
    assert_eq!(values, [Some("v2-1".into()), None, Some("v2-0".into())]);

    let scan = |prefix: &str, start: &str, end: &str, limit| ScanRequest {
        store: "s".into(),
        prefix: prefix.to_owned().into(),
        start: start.to_owned().into(),
        end: end.to_owned().into(),
        limit,
        version: 0,
    };
    for (request, expected) in [
        (scan("k29", "", "", 0), 11),
        (scan("", "k0", "k1", 0), 1),
        (scan("", "", "", 0), 300),
        (scan("", "", "", 7), 7),
        (scan("", "k5", "k2", 0), 0),
        (scan("x", "", "", 0), 0),
    ] {
        let mut stream = stub.scan(request.clone()).await.unwrap().into_inner();
        let mut keys = Vec::new();
        while let Some(reply) = stream.message().await.unwrap() {
            assert_eq!(reply.version, 2);
            keys.extend(reply.records.into_iter().map(|record| record.key));
        }
        assert!(keys.len() == expected && keys.is_sorted(), "{request:?} gave {}", keys.len());
    }
    assert!(stub.scan(scan("k", "k", "", 0)).await.is_err());
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_tell_how_it_is() {
    let bench = Bench::start(|_| {}).await;
    bench.serve(1, vec![bench.store("s", 1, &[1])]).await;
    let addr = bench.server().http_addr();
    let fetch = |path: &'static str| async move {
        let mut socket = TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        text
    };
    assert!(fetch("/healthz").await.starts_with("HTTP/1.1 200"));
    let mut status = fetch("/status").await;
    // Readers see a switch before it is recorded, and it is recorded before it is told.
    for _ in 0..1000 {
        if status.contains("\"state\":\"serving\"") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        status = fetch("/status").await;
    }
    assert!(status.contains("\"state\":\"serving\""), "{status}");
    let metrics = fetch("/metrics").await;
    assert!(metrics.contains("granary_kvserve_store_version{store=\"s\"} 1"), "{metrics}");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_and_a_folder_in_use_are_told_by_setting() {
    let bench = Bench::start(|_| {}).await;
    let any = || "127.0.0.1:0".to_owned();
    let base = Config {
        dir: bench.dir.path().to_owned(),
        redis_addr: any(),
        grpc_addr: any(),
        http_addr: any(),
        ..Config::default()
    };
    let error = start_with(base.clone(), LocalFiles::default().origin()).await.err().unwrap();
    assert!(error.message.contains("kvserve.dir"), "{error}");
    let other = tempfile::tempdir().unwrap();
    let taken = Config {
        dir: other.path().to_owned(),
        grpc_addr: bench.server().grpc_addr().to_string(),
        ..base
    };
    let error = start_with(taken, LocalFiles::default().origin()).await.err().unwrap();
    assert!(
        error.message.contains("kvserve.grpc_addr") && error.message.contains("another process"),
        "{error}"
    );
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_every_port_harms_nobody() {
    let bench = Bench::start(|_| {}).await;
    bench.serve(1, vec![bench.store("s", 1, &[1])]).await;
    let garbage: Vec<u8> =
        (0..20_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let server = bench.server();
    for addr in [server.redis_addr(), server.grpc_addr(), server.http_addr()] {
        let (done, mut finished) = mpsc::channel::<()>(1);
        let garbage = garbage.clone();
        tokio::spawn(async move {
            let mut socket = TcpStream::connect(addr).await.unwrap();
            // The server may close at any byte.
            let _closed = socket.write_all(&garbage).await.is_err();
            drop(done);
        });
        assert!(finished.recv().await.is_none());
    }
    let mut c = bench.connect().await;
    ask(&mut c, "GET k1", "$4\r\nv1-1\r\n").await;
    bench.stop().await;
}
