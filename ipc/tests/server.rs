//! A port under clients that behave and clients that do not, in raw bytes over loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ipc::request::{self, CallId, Method};
use ipc::{Answer, Call, Identity, RpcError, Service, Settings};
use prost::Message;
use proto::hadoop::hdfs::rpc_response_header_proto::RpcStatusProto;
use proto::hadoop::hdfs::{RpcResponseHeaderProto, RpcSaslProto};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

const PROTOCOL: &str = "test.Protocol";
const ID: [u8; 16] = *b"0123456789abcdef";
const DEADLINE: Duration = Duration::from_secs(60);

/// Answers with what was sent, who sent it, or not until it is told to.
#[derive(Default)]
struct Echo {
    release: Notify,
    held: AtomicUsize,
    asked: AtomicUsize,
}

/// Counts a call as held until it is answered or dropped.
struct Held(Arc<Echo>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Service for Echo {
    fn protocol_version(&self, protocol: &str) -> Option<u64> {
        (protocol == PROTOCOL).then_some(1)
    }

    fn call(self: &Arc<Self>, call: Call) -> Option<Answer> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Some(match call.method.as_str() {
            "echo" => Answer::Now(Ok(call.body)),
            "large" => Answer::Now(Ok(Bytes::from(vec![7; 100_000]))),
            "who" => Answer::Now(Ok(Bytes::from(format!("{:?}", call.identity)))),
            "id" => Answer::Now(Ok(Bytes::from(format!("{:?} {}", call.client_id, call.call_id)))),
            "fail" => {
                Answer::Now(Err(RpcError::application("java.io.IOException", "it was to be")))
            }
            "yield" => Answer::Later(Box::pin(async move {
                for _ in 0..call.call_id % 7 {
                    tokio::task::yield_now().await;
                }
                Ok(call.body)
            })),
            "hold" => {
                self.held.fetch_add(1, Ordering::SeqCst);
                let held = Held(Arc::clone(self));
                Answer::Later(Box::pin(async move {
                    held.0.release.notified().await;
                    Ok(call.body)
                }))
            }
            _ => return None,
        })
    }
}

/// A port, its service, and the end of it all.
struct Port {
    address: SocketAddr,
    echo: Arc<Echo>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Port {
    async fn start(settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let echo = Arc::new(Echo::default());
        let (stop, stopped) = oneshot::channel();
        let service = Arc::clone(&echo);
        let server = tokio::spawn(ipc::serve(listener, service, settings, async {
            stopped.await.unwrap();
        }));
        Self { address, echo, stop, server }
    }

    async fn connect(&self) -> Peer {
        Peer { stream: TcpStream::connect(self.address).await.unwrap() }
    }

    /// A connection that has said who it is.
    async fn hello(&self) -> Peer {
        let mut peer = self.connect().await;
        peer.send(&hello()).await;
        peer
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(DEADLINE, self.server).await.unwrap().unwrap();
    }

    async fn until(&self, what: impl Fn(&Echo) -> bool) {
        tokio::time::timeout(DEADLINE, async {
            while !what(&self.echo) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap();
    }
}

/// A client in raw bytes.
struct Peer {
    stream: TcpStream,
}

struct Reply {
    header: RpcResponseHeaderProto,
    body: Bytes,
}

impl Reply {
    fn id(&self) -> i32 {
        self.header.call_id as i32
    }

    /// Status, error detail, class and message.
    fn error(&self) -> (RpcStatusProto, i32, &str, &str) {
        (
            self.header.status(),
            self.header.error_detail.unwrap_or_default(),
            self.header.exception_class_name(),
            self.header.error_msg(),
        )
    }
}

impl Peer {
    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn reply(&mut self) -> Reply {
        tokio::time::timeout(DEADLINE, async {
            let length = self.stream.read_u32().await.unwrap();
            let mut frame = vec![0; length as usize];
            self.stream.read_exact(&mut frame).await.unwrap();
            let mut frame = Bytes::from(frame);
            let header = RpcResponseHeaderProto::decode_length_delimited(&mut frame).unwrap();
            let body = match header.status() {
                RpcStatusProto::Success => ipc::wire::take_message(&mut frame).unwrap(),
                _ => Bytes::new(),
            };
            assert!(frame.is_empty(), "nothing behind the reply");
            Reply { header, body }
        })
        .await
        .unwrap()
    }

    /// Everything until the end of the stream.
    async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        tokio::time::timeout(DEADLINE, self.stream.read_to_end(&mut rest)).await.unwrap().unwrap();
        rest
    }

    /// The end of the stream, or a reset.
    async fn ends(&mut self) {
        let mut one = [0; 1];
        let read = tokio::time::timeout(DEADLINE, self.stream.read(&mut one)).await.unwrap();
        assert!(matches!(read, Ok(0) | Err(_)), "the connection ends");
    }
}

fn hello() -> Vec<u8> {
    let identity = Identity { user: "alice".into(), real_user: Some("knox".into()) };
    let mut out = Vec::new();
    request::hello(&mut out, ID, &identity, PROTOCOL);
    out
}

fn call(call_id: i32, name: &str, body: &[u8]) -> Vec<u8> {
    call_of(PROTOCOL, 1, call_id, name, body)
}

fn call_of(protocol: &str, version: u64, call_id: i32, name: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let id = CallId { client_id: ID, call_id, retry_count: 0 };
    let message = Raw(body.to_vec());
    request::call(&mut out, &id, &Method { protocol, version, name }, &message);
    out
}

/// A message of any bytes.
#[derive(Debug, Default)]
struct Raw(Vec<u8>);

impl Message for Raw {
    fn encode_raw(&self, buf: &mut impl bytes::BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        _: u32,
        _: prost::encoding::WireType,
        _: &mut impl bytes::Buf,
        _: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        unreachable!("only encoded")
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

const RPC_SERVER: &str = "org.apache.hadoop.ipc.RpcServerException";
const MISMATCH: &str = "org.apache.hadoop.ipc.RPC$VersionMismatch";

#[tokio::test]
async fn a_call_is_answered_with_what_named_it() {
    let port = Port::start(Settings::default()).await;
    let mut peer = port.hello().await;
    peer.send(&call(5, "echo", b"what")).await;
    let reply = peer.reply().await;
    assert_eq!(
        (reply.id(), reply.header.status(), &reply.body[..]),
        (5, RpcStatusProto::Success, &b"what"[..])
    );
    assert_eq!(reply.header.client_id(), ID);
    assert_eq!(reply.header.server_ipc_version_num, Some(9));
    assert_eq!(reply.header.retry_count, Some(0));
    peer.send(&call(6, "who", b"")).await;
    let who = Identity { user: "alice".into(), real_user: Some("knox".into()) };
    assert_eq!(peer.reply().await.body, format!("{who:?}"));
    port.stop().await;
}

#[tokio::test]
async fn an_empty_reply_still_has_its_length() {
    let port = Port::start(Settings::default()).await;
    let mut peer = port.hello().await;
    peer.send(&call(1, "echo", b"")).await;
    let length = peer.stream.read_u32().await.unwrap();
    let mut frame = vec![0; length as usize];
    peer.stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame.last(), Some(&0));
    assert_eq!(usize::from(frame[0]) + 2, frame.len());
    port.stop().await;
}

#[tokio::test]
async fn calls_are_answered_out_of_order_and_none_is_lost() {
    const CALLS: i32 = 10_000;
    let port = Port::start(Settings::default()).await;
    let mut peer = port.hello().await;
    let (mut read, mut write) = peer.stream.into_split();
    let sender = tokio::spawn(async move {
        for id in 0..CALLS {
            let name = if id % 3 == 0 { "echo" } else { "yield" };
            write.write_all(&call(id, name, &id.to_be_bytes())).await.unwrap();
        }
        write
    });
    let mut order = Vec::new();
    while order.len() < CALLS as usize {
        let length = tokio::time::timeout(DEADLINE, read.read_u32()).await.unwrap().unwrap();
        let mut frame = vec![0; length as usize];
        read.read_exact(&mut frame).await.unwrap();
        let mut frame = Bytes::from(frame);
        let header = RpcResponseHeaderProto::decode_length_delimited(&mut frame).unwrap();
        let body = ipc::wire::take_message(&mut frame).unwrap();
        assert_eq!(body[..], header.call_id.to_be_bytes());
        order.push(header.call_id as i32);
    }
    let write = sender.await.unwrap();
    assert!(!order.is_sorted(), "some were overtaken");
    order.sort_unstable();
    assert!(order.iter().copied().eq(0..CALLS), "each once");
    peer = Peer { stream: read.reunite(write).unwrap() };
    peer.send(&call(1, "echo", b"still here")).await;
    assert_eq!(&peer.reply().await.body[..], b"still here");
    port.stop().await;
}

#[tokio::test]
async fn an_error_of_the_application_leaves_the_connection_alone() {
    let port = Port::start(Settings::default()).await;
    let mut peer = port.hello().await;
    peer.send(&[call(1, "fail", b""), call(2, "echo", b"x")].concat()).await;
    let failed = peer.reply().await;
    let expected = (RpcStatusProto::Error, 1, "java.io.IOException", "it was to be");
    assert_eq!((failed.id(), failed.error()), (1, expected));
    assert_eq!(peer.reply().await.id(), 2);
    port.stop().await;
}

#[tokio::test]
async fn what_is_not_served_is_refused_as_the_reference_does_and_the_connection_goes_on() {
    let port = Port::start(Settings::default()).await;
    let mut peer = port.hello().await;
    peer.send(&call(1, "fly", b"")).await;
    assert_eq!(
        peer.reply().await.error(),
        (
            RpcStatusProto::Error,
            2,
            "org.apache.hadoop.ipc.RpcNoSuchMethodException",
            "Unknown method fly called on test.Protocol protocol."
        )
    );
    peer.send(&call_of("no.Such", 1, 2, "echo", b"")).await;
    assert_eq!(
        peer.reply().await.error(),
        (
            RpcStatusProto::Error,
            3,
            "org.apache.hadoop.ipc.RpcNoSuchProtocolException",
            "Unknown protocol: no.Such"
        )
    );
    peer.send(&call_of(PROTOCOL, 2, 3, "echo", b"")).await;
    let message = "Protocol test.Protocol version mismatch. (client = 2, server = 1)";
    assert_eq!(peer.reply().await.error(), (RpcStatusProto::Error, 6, MISMATCH, message));
    peer.send(&call(4, "echo", b"on")).await;
    assert_eq!(&peer.reply().await.body[..], b"on");
    port.stop().await;
}

#[tokio::test]
async fn clients_of_other_versions_get_what_they_understand() {
    let port = Port::start(Settings::default()).await;
    let text = |version: i32| {
        format!("Server IPC version 9 cannot communicate with client version {version}")
    };
    let old = |head: &[u8], version: i32| {
        let mut bytes = head.to_vec();
        for text in [MISMATCH, &text(version)] {
            bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    };
    for version in [3, 8] {
        let mut peer = port.connect().await;
        peer.send(&[b"hrpc".as_slice(), &[version, 0, 0]].concat()).await;
        assert_eq!(peer.rest().await, old(&[0xFF; 8], i32::from(version)));
    }
    let mut peer = port.connect().await;
    peer.send(b"hrpc\x02\0\0").await;
    assert_eq!(peer.rest().await, old(&[0, 0, 0, 0, 1], 2));
    let mut peer = port.connect().await;
    peer.send(b"hrpc\x0a\0\0 and more that nobody reads").await;
    let reply = peer.reply().await;
    assert_eq!(
        (reply.id(), reply.error()),
        (-1, (RpcStatusProto::Fatal, 14, MISMATCH, &*text(10)))
    );
    assert_eq!(peer.rest().await, b"");
    for silent in [b"hrpc\x01\0\0".as_slice(), b"hrpc\xf7\0\0"] {
        let mut peer = port.connect().await;
        peer.send(silent).await;
        assert_eq!(peer.rest().await, b"");
    }
    port.stop().await;
}

#[tokio::test]
async fn a_web_browser_gets_a_404() {
    let port = Port::start(Settings::default()).await;
    let mut peer = port.connect().await;
    peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let rest = String::from_utf8(peer.rest().await).unwrap();
    assert!(rest.starts_with("HTTP/1.1 404 Not Found\r\nContent-type: text/plain\r\n"), "{rest}");
    port.stop().await;
}

#[tokio::test]
async fn a_client_with_a_token_is_told_that_it_needs_none() {
    let port = Port::start(Settings::default()).await;
    let mut peer = port.connect().await;
    // Length; header: protobuf, call, -33, no client id, -1; negotiate.
    let negotiate = [0, 0, 0, 14, 10, 8, 2, 16, 0, 24, 65, 34, 0, 40, 1, 2, 16, 1];
    peer.send(&[b"hrpc\x09\0\xdf".as_slice(), &negotiate[..4], &negotiate[4..]].concat()).await;
    let reply = peer.reply().await;
    assert_eq!((reply.id(), reply.header.status()), (-33, RpcStatusProto::Success));
    assert_eq!(reply.header.call_id, 0xFFFF_FFDF);
    let success = RpcSaslProto::decode(reply.body).unwrap();
    assert_eq!((success.state, success.auths.len()), (0, 0));
    peer.send(&[&hello()[7..], &call(1, "echo", b"in")].concat()).await;
    assert_eq!(&peer.reply().await.body[..], b"in");
    port.stop().await;
}

#[tokio::test]
async fn what_comes_out_of_order_ends_the_connection_with_the_reason() {
    let port = Port::start(Settings::default()).await;
    let simple = hello()[..7].to_vec();
    let context = hello()[7..].to_vec();
    let sasl = b"hrpc\x09\0\xdf".to_vec();
    let mut negotiate = Vec::new();
    request::sasl(&mut negotiate, &[16, 1]);
    let mut initiate = Vec::new();
    request::sasl(&mut initiate, &[16, 2]);
    let mut unknown = call(1, "echo", b"");
    unknown[10] = 9; // the call's id, zigzag: -5
    let mut builtin = call(1, "echo", b"");
    builtin[6] = 0;
    let mut no_kind = call(1, "echo", b"");
    no_kind[6] = 9;
    let cases: [(&str, Vec<Vec<u8>>, i32, &str); 10] = [
        (
            "call first",
            vec![simple.clone(), call(1, "echo", b"")],
            12,
            "Connection context not established",
        ),
        (
            "context twice",
            vec![hello(), context.clone()],
            12,
            "Connection context already processed",
        ),
        (
            "context in SASL",
            vec![sasl.clone(), context.clone()],
            12,
            "Connection header sent during SASL negotiation",
        ),
        (
            "call in SASL",
            vec![sasl.clone(), call(1, "echo", b"")],
            12,
            "Connection context not established",
        ),
        (
            "SASL in simple",
            vec![simple.clone(), negotiate.clone()],
            12,
            "SASL protocol not requested by client",
        ),
        ("initiate", vec![sasl.clone(), initiate], 15, "Client sent unsupported state 2"),
        ("unknown special", vec![hello(), unknown], 12, "Unknown out of band call #-5"),
        (
            "built in",
            vec![hello(), builtin],
            12,
            "Unknown rpc kind RPC_BUILTIN from client 127.0.0.1",
        ),
        ("no kind", vec![hello(), no_kind], 12, "IPC Server: No rpc kind in rpcRequestHeader"),
        (
            "garbage",
            vec![hello(), vec![0, 0, 0, 3, 2, 0xFF, 0xFF]],
            13,
            "Error decoding RpcRequestHeaderProto",
        ),
    ];
    for (name, bytes, detail, message) in cases {
        let mut peer = port.connect().await;
        peer.send(&bytes.concat()).await;
        let reply = peer.reply().await;
        let (status, got, _, text) = reply.error();
        assert_eq!((status, got), (RpcStatusProto::Fatal, detail), "{name}: {text}");
        assert!(text.starts_with(message), "{name}: {text}");
        assert_eq!(peer.rest().await, b"", "{name}");
    }
    let mut peer = port.connect().await;
    peer.send(b"hrpc\x09\0\x05").await;
    let class = "org.apache.hadoop.ipc.IpcException";
    let expected = (RpcStatusProto::Fatal, 15, class, "Unknown auth protocol:5");
    assert_eq!(peer.reply().await.error(), expected);
    port.stop().await;
}

#[tokio::test]
async fn a_call_that_cannot_be_read_ends_the_connection() {
    let port = Port::start(Settings::default()).await;
    let whole = call(3, "echo", b"body");
    for cut in [1, 5, 20] {
        let mut bytes = whole[..whole.len() - cut].to_vec();
        let length = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        let mut peer = port.hello().await;
        peer.send(&bytes).await;
        let reply = peer.reply().await;
        let (status, detail, class, _) = reply.error();
        assert_eq!((reply.id(), status, detail, class), (3, RpcStatusProto::Fatal, 13, RPC_SERVER));
        assert_eq!(peer.rest().await, b"");
    }
    port.stop().await;
}

#[tokio::test]
async fn pings_are_taken_and_a_close_lets_what_is_in_flight_be_answered() {
    let port = Port::start(Settings::default()).await;
    let mut peer = port.hello().await;
    let mut bytes = Vec::new();
    request::ping(&mut bytes, ID);
    bytes.extend(call(1, "hold", b"held"));
    request::ping(&mut bytes, ID);
    request::close(&mut bytes, ID);
    peer.send(&bytes).await;
    port.until(|echo| echo.held.load(Ordering::SeqCst) == 1).await;
    port.echo.release.notify_one();
    assert_eq!(&peer.reply().await.body[..], b"held");
    assert_eq!(peer.rest().await, b"");
    port.stop().await;
}

#[tokio::test]
async fn bytes_that_trickle_in_are_one_frame_all_the_same() {
    let port = Port::start(Settings::default()).await;
    let mut peer = port.connect().await;
    for byte in [hello(), call(1, "echo", b"slow")].concat() {
        peer.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(&peer.reply().await.body[..], b"slow");
    port.stop().await;
}

#[tokio::test]
async fn a_large_frame_is_taken_and_a_too_large_one_ends_the_connection() {
    let settings = Settings { frame_bytes_max: 4 << 20, ..Settings::default() };
    let port = Port::start(settings).await;
    let mut peer = port.hello().await;
    let body = vec![3; (4 << 20) - 200];
    peer.send(&call(1, "echo", &body)).await;
    assert!(peer.reply().await.body == body);
    peer.send(&call(2, "echo", b"small")).await;
    assert_eq!(&peer.reply().await.body[..], b"small");
    for length in [(4 << 20) + 1, -1, i32::MIN, i32::MAX] {
        let mut peer = port.hello().await;
        peer.send(&length.to_be_bytes()).await;
        peer.ends().await;
    }
    // Before the context, even a frame that would be fine later is too large.
    let mut peer = port.connect().await;
    peer.send(&hello()[..7]).await;
    peer.send(&100_000i32.to_be_bytes()).await;
    peer.ends().await;
    port.stop().await;
}

#[tokio::test]
async fn large_frames_together_have_a_bound() {
    let settings = Settings { buffered_bytes_max: 1 << 20, ..Settings::default() };
    let port = Port::start(settings).await;
    let large = call(1, "hold", &vec![1; 600 << 10]);
    let mut first = port.hello().await;
    first.send(&large).await;
    port.until(|echo| echo.held.load(Ordering::SeqCst) == 1).await;
    let mut second = port.hello().await;
    // The port may end the connection before all is sent.
    if second.stream.write_all(&large).await.is_ok() {
        second.ends().await;
    }
    port.echo.release.notify_one();
    assert_eq!(first.reply().await.body.len(), 600 << 10);
    let mut third = port.hello().await;
    third.send(&call(1, "echo", &vec![1; 600 << 10])).await;
    assert_eq!(third.reply().await.body.len(), 600 << 10, "what was charged is given back");
    port.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_from() {
    let settings = Settings { unsent_bytes_max: 1 << 20, ..Settings::default() };
    let port = Port::start(settings).await;
    let mut peer = port.hello().await;
    let (mut read, mut write) = peer.stream.split();
    let calls = 2_000;
    let send = async {
        for id in 0..calls {
            write.write_all(&call(id, "large", b"")).await.unwrap();
        }
    };
    let look = async {
        // Nothing moves any more once the kernel's buffers and ours are full.
        let mut before = usize::MAX;
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let asked = port.echo.asked.load(Ordering::SeqCst);
            if asked == before && asked > 0 {
                break;
            }
            before = asked;
        }
        assert!(before < 500, "{before} answers of 100 KB for a client that reads none");
        let mut sink = vec![0; 1 << 20];
        let mut left = 0;
        while left < calls as usize * 100_000 {
            left += read.read(&mut sink).await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, async { tokio::join!(send, look) }).await.unwrap();
    assert_eq!(port.echo.asked.load(Ordering::SeqCst), calls as usize);
    port.stop().await;
}

#[tokio::test]
async fn calls_in_flight_are_bounded_per_connection_and_per_port() {
    let settings = Settings {
        calls_in_flight_max: 5,
        connection_calls_in_flight_max: 3,
        ..Settings::default()
    };
    let port = Port::start(settings).await;
    let mut first = port.hello().await;
    let mut second = port.hello().await;
    let many: Vec<u8> = (0..10).flat_map(|id| call(id, "hold", b"")).collect();
    first.send(&many).await;
    port.until(|echo| echo.held.load(Ordering::SeqCst) == 3).await;
    second.send(&many).await;
    port.until(|echo| echo.held.load(Ordering::SeqCst) == 5).await;
    let most = Arc::new(AtomicUsize::new(0));
    let watch = async {
        loop {
            most.fetch_max(port.echo.held.load(Ordering::SeqCst), Ordering::SeqCst);
            port.echo.release.notify_one();
            tokio::task::yield_now().await;
        }
    };
    let all = async {
        for _ in 0..10 {
            first.reply().await;
            second.reply().await;
        }
    };
    tokio::select! { () = watch => unreachable!("it never ends"), () = all => {} }
    assert_eq!(most.load(Ordering::SeqCst), 5);
    port.stop().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_takes_its_calls_with_it() {
    let port = Port::start(Settings::default()).await;
    let mut peer = port.hello().await;
    peer.send(&(0..100).flat_map(|id| call(id, "hold", b"")).collect::<Vec<_>>()).await;
    port.until(|echo| echo.held.load(Ordering::SeqCst) == 100).await;
    peer.stream.set_zero_linger().unwrap();
    drop(peer);
    port.until(|echo| echo.held.load(Ordering::SeqCst) == 0).await;
    // In the middle of a frame.
    let mut peer = port.hello().await;
    peer.send(&call(1, "echo", b"half")[..30]).await;
    drop(peer);
    let mut peer = port.hello().await;
    peer.send(&call(1, "echo", b"whole")).await;
    assert_eq!(&peer.reply().await.body[..], b"whole");
    port.stop().await;
}

#[tokio::test]
async fn a_client_that_closes_its_direction_still_gets_its_answers() {
    let port = Port::start(Settings::default()).await;
    let mut peer = port.hello().await;
    peer.send(&[call(1, "hold", b"held"), call(2, "echo", b"now")].concat()).await;
    peer.stream.shutdown().await.unwrap();
    assert_eq!(peer.reply().await.id(), 2);
    port.until(|echo| echo.held.load(Ordering::SeqCst) == 1).await;
    port.echo.release.notify_one();
    assert_eq!(peer.reply().await.id(), 1);
    assert_eq!(peer.rest().await, b"");
    port.stop().await;
}

#[tokio::test]
async fn a_connection_beyond_the_bound_is_closed_and_one_that_ends_makes_room() {
    let settings = Settings { connections_max: 1, ..Settings::default() };
    let port = Port::start(settings).await;
    let mut first = port.hello().await;
    first.send(&call(1, "echo", b"")).await;
    first.reply().await;
    port.connect().await.ends().await;
    drop(first);
    tokio::time::timeout(DEADLINE, async {
        loop {
            let mut peer = port.connect().await;
            let bytes = [hello(), call(1, "echo", b"in")].concat();
            let mut length = [0; 4];
            if peer.stream.write_all(&bytes).await.is_ok()
                && peer.stream.read_exact(&mut length).await.is_ok()
            {
                break;
            }
        }
    })
    .await
    .unwrap();
    port.stop().await;
}

#[tokio::test]
async fn silence_is_ended_before_a_context_in_a_frame_and_after_all() {
    let settings =
        Settings { handshake_ms: 100, stalled_ms: 100, idle_ms: 400, ..Settings::default() };
    let port = Port::start(settings).await;
    for begun in [&b""[..], b"hr", b"hrpc\x09\0\0", b"hrpc\x09\0\0\0\0\0\x10half"] {
        let mut peer = port.connect().await;
        peer.send(begun).await;
        peer.ends().await;
    }
    let mut half = port.hello().await;
    half.send(&call(1, "echo", b"")[..20]).await;
    let mut idle = port.hello().await;
    let mut busy = port.hello().await;
    busy.send(&call(1, "hold", b"")).await;
    half.ends().await;
    idle.ends().await;
    port.until(|echo| echo.held.load(Ordering::SeqCst) == 1).await;
    port.echo.release.notify_one();
    assert_eq!(busy.reply().await.id(), 1, "a call in flight is no silence");
    port.stop().await;
}

#[tokio::test]
async fn the_end_of_a_port_is_the_end_of_its_connections() {
    let port = Port::start(Settings::default()).await;
    let mut peer = port.hello().await;
    peer.send(&call(1, "hold", b"")).await;
    port.until(|echo| echo.held.load(Ordering::SeqCst) == 1).await;
    let echo = Arc::clone(&port.echo);
    port.stop().await;
    peer.ends().await;
    tokio::time::timeout(DEADLINE, async {
        while echo.held.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}
