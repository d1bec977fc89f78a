//! A port with a service for tests, and a client in raw bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ipc::request::{self, CallId, Method};
use ipc::{Answer, Call, Identity, RpcError, Service, Settings};
use prost::Message;
use proto::hadoop::hdfs::RpcResponseHeaderProto;
use proto::hadoop::hdfs::rpc_response_header_proto::RpcStatusProto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

pub const PROTOCOL: &str = "test.Protocol";
pub const ID: [u8; 16] = *b"0123456789abcdef";
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Answers with what was sent, who sent it, or not until it is told to.
#[derive(Default)]
pub struct Echo {
    pub release: Notify,
    pub held: AtomicUsize,
    pub asked: AtomicUsize,
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
pub struct Port {
    pub address: SocketAddr,
    pub echo: Arc<Echo>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Port {
    pub async fn start(settings: Settings) -> Self {
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

    pub async fn connect(&self) -> Peer {
        Peer { stream: TcpStream::connect(self.address).await.unwrap() }
    }

    /// A connection that has said who it is.
    pub async fn hello(&self) -> Peer {
        let mut peer = self.connect().await;
        peer.send(&hello()).await;
        peer
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(DEADLINE, self.server).await.unwrap().unwrap();
    }

    pub async fn until(&self, what: impl Fn(&Echo) -> bool) {
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
pub struct Peer {
    pub stream: TcpStream,
}

pub struct Reply {
    pub header: RpcResponseHeaderProto,
    pub body: Bytes,
}

impl Reply {
    pub fn id(&self) -> i32 {
        self.header.call_id as i32
    }

    /// Status, error detail, class and message.
    pub fn error(&self) -> (RpcStatusProto, i32, &str, &str) {
        (
            self.header.status(),
            self.header.error_detail.unwrap_or_default(),
            self.header.exception_class_name(),
            self.header.error_msg(),
        )
    }
}

impl Peer {
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub async fn reply(&mut self) -> Reply {
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
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        tokio::time::timeout(DEADLINE, self.stream.read_to_end(&mut rest)).await.unwrap().unwrap();
        rest
    }

    /// The end of the stream, or a reset.
    pub async fn ends(&mut self) {
        let mut one = [0; 1];
        let read = tokio::time::timeout(DEADLINE, self.stream.read(&mut one)).await.unwrap();
        assert!(matches!(read, Ok(0) | Err(_)), "the connection ends");
    }
}

pub fn hello() -> Vec<u8> {
    let identity = Identity { user: "alice".into(), real_user: Some("knox".into()) };
    let mut out = Vec::new();
    request::hello(&mut out, ID, &identity, PROTOCOL);
    out
}

pub fn call(call_id: i32, name: &str, body: &[u8]) -> Vec<u8> {
    call_of(PROTOCOL, 1, call_id, name, body)
}

pub fn call_of(protocol: &str, version: u64, call_id: i32, name: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let id = CallId { client_id: ID, call_id, retry_count: 0 };
    let message = Raw(body.to_vec());
    request::call(&mut out, &id, &Method { protocol, version, name }, &message);
    out
}

/// A message of any bytes.
#[derive(Debug, Default)]
pub struct Raw(pub Vec<u8>);

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
