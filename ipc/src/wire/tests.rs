//! What a client writes is what a server reads, hand-written or generated; and any bytes are read without harm.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use prost::Message;
use proto::hadoop::hdfs::{RequestHeaderProto, RpcRequestHeaderProto};

use super::*;
use crate::call::Identity;
use crate::request::{self, CallId, Method};

const ID: [u8; 16] = *b"0123456789abcdef";

fn header(bytes: &[u8]) -> RpcRequestHeaderProto {
    RpcRequestHeaderProto::decode(bytes).unwrap()
}

/// As a Java client's connection begins.
#[test]
fn a_connection_begins_with_these_bytes() {
    let mut out = Vec::new();
    let identity = Identity { user: "root".into(), real_user: None };
    request::hello(&mut out, ID, &identity, "p.P");
    let mut golden = Vec::new();
    golden.extend_from_slice(b"hrpc\x09\x00\x00"); // version 9, service class 0, no authentication
    golden.extend_from_slice(b"\x00\x00\x00\x29"); // 41 bytes
    golden.extend_from_slice(b"\x1a\x08\x02\x10\x00\x18\x05\x22\x10"); // protobuf, call, -3
    golden.extend_from_slice(&ID);
    golden.extend_from_slice(b"\x28\x01"); // retry count -1
    golden.extend_from_slice(b"\x0d\x12\x06\x0a\x04root\x1a\x03p.P"); // user, protocol
    assert_eq!(out, golden);
}

#[test]
fn a_call_is_these_bytes() {
    let mut out = Vec::new();
    let id = CallId { client_id: ID, call_id: 7, retry_count: 0 };
    let method = Method { protocol: "p.P", version: 1, name: "get" };
    request::call(&mut out, &id, &method, &"/".to_owned());
    let mut golden = b"\0\0\0\x2c".to_vec(); // 44 bytes
    golden.extend_from_slice(b"\x1a\x08\x02\x10\x00\x18\x0e\x22\x10"); // protobuf, call, 7
    golden.extend_from_slice(&ID);
    golden.extend_from_slice(b"\x28\x00"); // never sent before
    golden.extend_from_slice(b"\x0c\x0a\x03get\x12\x03p.P\x18\x01");
    golden.extend_from_slice(b"\x03\x0a\x01/"); // the message: field 1 is "/"
    assert_eq!(out, golden);
}

#[test]
fn preambles_are_told_apart() {
    assert_eq!(preamble(b"hrpc\x09\0"), Preamble::More);
    assert_eq!(preamble(b"hrpc\x09\0\0"), Preamble::Hadoop(Auth::Simple));
    assert_eq!(preamble(b"hrpc\x09\x05\xdf"), Preamble::Hadoop(Auth::Sasl));
    assert_eq!(preamble(b"hrpc\x09\0\x01"), Preamble::Hadoop(Auth::Unknown(1)));
    assert_eq!(preamble(b"hrpc\x08\0\0"), Preamble::Other(8));
    assert_eq!(preamble(b"GET / "), Preamble::More);
    assert_eq!(preamble(b"GET / H"), Preamble::Http);
    assert_eq!(preamble(b"POST / "), Preamble::Other(32));
}

#[test]
fn a_frame_comes_off_only_when_all_of_it_is_there() {
    let whole = b"\0\0\0\x03abc\0\0\0\0rest";
    for cut in 0..7 {
        let mut input = BytesMut::from(&whole[..cut]);
        assert_eq!(take_frame(&mut input, 10), Ok(None));
        assert_eq!(input.len(), cut);
    }
    let mut input = BytesMut::from(&whole[..]);
    assert_eq!(take_frame(&mut input, 10), Ok(Some(Bytes::from_static(b"abc"))));
    assert_eq!(take_frame(&mut input, 10), Ok(Some(Bytes::new())));
    assert_eq!(&input[..], b"rest");
    assert!(take_frame(&mut input, 10).is_err(), "'rest' is a length of a gigabyte and more");
}

#[test]
fn names_are_slices_of_the_frame() {
    let message = RequestHeaderProto {
        method_name: "get".into(),
        declaring_class_protocol_name: "p.P".into(),
        client_protocol_version: 1,
    };
    let frame = Bytes::from(message.encode_to_vec());
    let header = CallHeader::decode(&frame).unwrap();
    let inside = frame.as_ptr() as usize..frame.as_ptr() as usize + frame.len();
    assert!(inside.contains(&(header.method.as_str().as_ptr() as usize)));
}

#[test]
fn overlong_names_and_client_ids_are_refused() {
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let message = RequestHeaderProto { method_name: long, ..Default::default() };
    let error = CallHeader::decode(&message.encode_to_vec().into()).unwrap_err();
    assert!(error.0.contains("1025 bytes"), "{error:?}");
    let message = RpcRequestHeaderProto { client_id: vec![1; 17].into(), ..Default::default() };
    let error = FrameHeader::decode(&message.encode_to_vec()).unwrap_err();
    assert!(error.0.contains("17 bytes"), "{error:?}");
}

proptest! {
    #[test]
    fn any_header_that_is_written_is_read(
        kind in proptest::option::of(0..4i32),
        operation in proptest::option::of(0..4i32),
        call_id: i32,
        client_id in proptest::collection::vec(any::<u8>(), 0..17),
        retry_count in proptest::option::of(any::<i32>()),
        state_id in proptest::option::of(any::<i64>()),
    ) {
        let message = RpcRequestHeaderProto {
            rpc_kind: kind,
            rpc_op: operation,
            call_id,
            client_id: client_id.clone().into(),
            retry_count,
            caller_context: None,
            state_id,
        };
        let read = FrameHeader::decode(&message.encode_to_vec()).unwrap();
        prop_assert_eq!(read.kind, kind.filter(|kind| *kind < 3));
        prop_assert_eq!(read.operation, operation.filter(|operation| *operation < 3));
        prop_assert_eq!(read.reply_to.call_id, call_id);
        prop_assert_eq!(read.reply_to.retry_count, retry_count.unwrap_or(-1));
        prop_assert_eq!(read.reply_to.client_id(), &client_id[..]);
    }

    #[test]
    fn any_call_that_is_written_is_read(
        call_id in 0..i32::MAX,
        retry_count: i32,
        protocol in ".{0,60}",
        name in ".{0,60}",
        version: u64,
        body in ".{0,300}",
    ) {
        let id = CallId { client_id: ID, call_id, retry_count };
        let mut out = Vec::new();
        request::call(&mut out, &id, &Method { protocol: &protocol, version, name: &name }, &body);
        let mut input = BytesMut::from(&out[..]);
        let mut frame = take_frame(&mut input, 1 << 20).unwrap().unwrap();
        prop_assert!(input.is_empty());
        let first = take_message(&mut frame).unwrap();
        let message = header(&first);
        prop_assert_eq!((message.call_id, message.retry_count()), (call_id, retry_count));
        let read = FrameHeader::decode(&first).unwrap();
        prop_assert_eq!(read.reply_to.whole_client_id(), ID);
        let read = CallHeader::decode(&take_message(&mut frame).unwrap()).unwrap();
        prop_assert_eq!((&*read.protocol, &*read.method, read.version), (&*protocol, &*name, version));
        prop_assert_eq!(String::decode(take_message(&mut frame).unwrap()).unwrap(), body);
        prop_assert!(frame.is_empty());
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        // What one of them takes, the generated decoder takes too, and it reads the same.
        if let Ok(read) = FrameHeader::decode(&bytes) {
            prop_assert_eq!(read.reply_to.call_id, header(&bytes).call_id);
        }
        if let Ok(read) = CallHeader::decode(&bytes) {
            let message = RequestHeaderProto::decode(bytes.clone()).unwrap();
            prop_assert_eq!(read.method.as_str(), message.method_name);
        }
        let mut frame = bytes.clone();
        while take_message(&mut frame).is_ok() {}
        let mut input = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = take_frame(&mut input, 100) {}
        preamble(&bytes);
    }
}
