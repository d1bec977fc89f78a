//! Any bytes, in any pieces, are a conversation that does no harm: no panic, no endless loop, short answers, and the
//! same calls however the bytes are cut.
//!
//! The first byte says how the rest is cut; the second whether a good preamble and context come before it, so that
//! the fuzzer reaches what is behind them at once.
#![no_main]

use bytes::{BufMut, BytesMut};
use ipc::request::{self, CallId, Method};
use ipc::session::{Session, Step};
use ipc::{Identity, wire};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use proto::hadoop::hdfs::{GetListingRequestProto, RpcSaslProto, rpc_sasl_proto::SaslState};

const FRAME_BYTES_MAX: usize = 1 << 20;

fn converse(pieces: impl Iterator<Item = impl AsRef<[u8]>>) -> (Vec<(i32, usize)>, Vec<u8>, bool) {
    let mut session = Session::new(([127, 0, 0, 1], 1).into(), FRAME_BYTES_MAX);
    let (mut input, mut output, mut calls) = (BytesMut::new(), Vec::new(), Vec::new());
    for piece in pieces {
        input.put_slice(piece.as_ref());
        loop {
            let before = input.len();
            match session.step(&mut input, &mut output) {
                Step::More => break,
                Step::Done => assert!(input.len() < before, "a step takes something"),
                Step::Call { call, .. } => {
                    assert!(input.len() < before && call.body.len() < before);
                    calls.push((call.call_id, call.body.len()));
                }
                Step::End => return (calls, output, true),
            }
        }
    }
    (calls, output, false)
}

/// Conversations as clients have them.
fn seeds() -> Vec<Vec<u8>> {
    const ID: [u8; 16] = *b"0123456789abcdef";
    let identity = Identity { user: "alice".into(), real_user: Some("boss".into()) };
    let protocol = "org.apache.hadoop.hdfs.protocol.ClientProtocol";
    let message =
        GetListingRequestProto { src: "/a/b".into(), start_after: "c".into(), need_location: true };
    let calls = |out: &mut Vec<u8>| {
        for (call_id, name) in [(0, "getListing"), (1, "noSuchMethod")] {
            let id = CallId { client_id: ID, call_id, retry_count: call_id };
            request::call(out, &id, &Method { protocol, version: 1, name }, &message);
        }
        request::ping(out, ID);
        request::close(out, ID);
    };
    let mut whole = vec![0, 0];
    request::hello(&mut whole, ID, &identity, protocol);
    calls(&mut whole);
    let mut behind = vec![3, 1];
    calls(&mut behind);
    let mut sasl = vec![255, 0];
    sasl.extend_from_slice(wire::MAGIC);
    sasl.extend_from_slice(&[wire::VERSION, 0, 0xdf]);
    let negotiate = RpcSaslProto { state: SaslState::Negotiate as i32, ..RpcSaslProto::default() };
    request::sasl(&mut sasl, &negotiate.encode_to_vec());
    request::context(&mut sasl, ID, &identity, protocol);
    calls(&mut sasl);
    let http = b"\x01\0GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
    let old = b"\x01\0hrpc\x08\0\0".to_vec();
    vec![whole, behind, sasl, http, old]
}

fuzz_target!(init: fuzz::start(seeds), |data: &[u8]| {
    let [cut, good, rest @ ..] = data else { return };
    let mut bytes = Vec::new();
    if good & 1 == 1 {
        let identity = Identity { user: "alice".into(), real_user: None };
        request::hello(&mut bytes, *b"0123456789abcdef", &identity, "p.P");
    }
    bytes.extend_from_slice(rest);
    let whole = converse(std::iter::once(&bytes));
    assert!(whole.1.len() < 4_096, "answers to nonsense are short");
    let pieces = converse(bytes.chunks(usize::from(*cut).max(1)));
    assert_eq!(whole, pieces);
});
