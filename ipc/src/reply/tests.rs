//! Answers are the bytes that a real HDFS 2.7.3 sent, and what the generated message reads.

use proptest::prelude::*;
use prost::Message;
use proto::hadoop::hdfs::RpcResponseHeaderProto;
use proto::hadoop::hdfs::rpc_response_header_proto::RpcStatusProto;

use super::*;
use crate::wire::FrameHeader;

/// What to repeat of a call with this header.
fn to(call_id: i32, client_id: &[u8], retry_count: i32) -> ReplyTo {
    let header = proto::hadoop::hdfs::RpcRequestHeaderProto {
        call_id,
        client_id: client_id.to_vec().into(),
        retry_count: Some(retry_count),
        ..Default::default()
    };
    FrameHeader::decode(&header.encode_to_vec()).unwrap().reply_to
}

#[test]
fn an_answer_is_these_bytes() {
    let mut out = Vec::new();
    answer(&mut out, &to(1, b"0123456789abcdef", -1), Ok(b"body"));
    let mut golden = b"\x00\x00\x00\x20".to_vec(); // 32 bytes
    golden.extend_from_slice(b"\x1a\x08\x01\x10\x00\x18\x09"); // call 1, success, version 9
    golden.extend_from_slice(b"\x3a\x100123456789abcdef\x40\x01"); // client, retry count -1
    golden.extend_from_slice(b"\x04body");
    assert_eq!(out, golden);
}

#[test]
fn the_end_of_a_connection_is_these_bytes() {
    let mut out = Vec::new();
    let class = exceptions::RPC_SERVER;
    let code = FatalCode::InvalidHeader;
    fatal(&mut out, &ReplyTo::nobody(1), code, class, "Connection context not established");
    let mut golden = b"\x00\x00\x00\x5b\x5a\x08\x01\x10\x02\x18\x09".to_vec();
    golden.extend_from_slice(b"\x22\x28org.apache.hadoop.ipc.RpcServerException");
    golden.extend_from_slice(b"\x2a\x22Connection context not established\x30\x0c\x3a\x00\x40\x01");
    assert_eq!(out, golden);
}

#[test]
fn a_newer_client_gets_these_bytes() {
    let mut out = Vec::new();
    other_version(&mut out, 10);
    let mut golden = b"\x00\x00\x00\x7c\x7b\x08\xff\xff\xff\xff\x0f\x10\x02\x18\x09".to_vec();
    golden.extend_from_slice(b"\x22\x29org.apache.hadoop.ipc.RPC$VersionMismatch\x2a\x3e");
    golden.extend_from_slice(b"Server IPC version 9 cannot communicate with client version 10");
    golden.extend_from_slice(b"\x30\x0e\x3a\x00\x40\x01");
    assert_eq!(out, golden);
}

#[test]
fn an_error_that_is_too_long_is_cut_between_characters() {
    let mut out = Vec::new();
    let error = RpcError::application("java.io.IOException", "ü".repeat(ERROR_BYTES_MAX));
    answer(&mut out, &ReplyTo::nobody(1), Err(&error));
    let header = RpcResponseHeaderProto::decode_length_delimited(&out[4..]).unwrap();
    assert_eq!(header.error_msg().len(), ERROR_BYTES_MAX);
    assert!(out.len() < ERROR_BYTES_MAX + 200);
}

proptest! {
    #[test]
    fn any_answer_is_read_as_it_was_written(
        call_id: i32,
        client_id in proptest::collection::vec(any::<u8>(), 0..17),
        retry_count: i32,
        body in proptest::collection::vec(any::<u8>(), 0..300),
        message in ".{0,200}",
        detail in 0..1000i32,
        fails: bool,
    ) {
        let mut out = b"before".to_vec();
        let error = RpcError { class: "a.B", message: message.clone(), detail };
        let result = if fails { Err(&error) } else { Ok(&body[..]) };
        answer(&mut out, &to(call_id, &client_id, retry_count), result);
        let (length, mut frame) = out["before".len()..].split_first_chunk().unwrap();
        prop_assert_eq!(u32::from_be_bytes(*length) as usize, frame.len());
        let header = RpcResponseHeaderProto::decode_length_delimited(&mut frame).unwrap();
        prop_assert_eq!(header.call_id as i32, call_id);
        prop_assert_eq!(header.client_id(), &client_id[..]);
        prop_assert_eq!(header.retry_count(), retry_count);
        prop_assert_eq!(header.server_ipc_version_num(), 9);
        if fails {
            prop_assert_eq!(header.status(), RpcStatusProto::Error);
            prop_assert_eq!(header.exception_class_name(), "a.B");
            prop_assert_eq!(header.error_msg(), &message);
            prop_assert_eq!(header.error_detail, Some(detail));
            prop_assert!(frame.is_empty());
        } else {
            prop_assert_eq!(header.status(), RpcStatusProto::Success);
            prop_assert_eq!(Vec::<u8>::decode_length_delimited(&b"\0"[..]).unwrap().len(), 0);
            let body_read = crate::wire::take_message(&mut frame.to_vec().into()).unwrap();
            prop_assert_eq!(&body_read[..], &body[..]);
        }
    }
}
