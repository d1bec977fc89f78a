//! What a port answers to what, in raw bytes over loopback. The error replies are those that a real HDFS 2.7.3 gave
//! for the same bytes.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use ipc::{Identity, Settings, request};
use prost::Message;
use proto::hadoop::hdfs::rpc_response_header_proto::RpcStatusProto;
use proto::hadoop::hdfs::{RpcResponseHeaderProto, RpcSaslProto};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::port::{DEADLINE, ID, PROTOCOL, Peer, Port, call, call_of, hello};

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
        ("initiate", vec![sasl.clone(), initiate], 15, "Client sent unsupported state INITIATE"),
        ("unknown special", vec![hello(), unknown], 12, "Unknown out of band call #-5"),
        ("built in", vec![hello(), builtin], 12, "Unknown rpc kind in rpc headerRPC_BUILTIN"),
        ("no kind", vec![hello(), no_kind], 12, " IPC Server: No rpc kind in rpcRequestHeader"),
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
    assert_eq!(peer.rest().await, b"");
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
