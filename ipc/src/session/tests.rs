//! A conversation is the same however its bytes are cut into reads, and no bytes do harm.

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::request::{self, CallId, Method};

const ID: [u8; 16] = *b"0123456789abcdef";
const FRAME_BYTES_MAX: usize = 1 << 20;

/// What came of a conversation: its calls, its answers, and whether it is over.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    calls: Vec<(i32, String, Vec<u8>)>,
    output: Vec<u8>,
    over: bool,
}

fn converse<'a>(reads: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let mut session = Session::new(([127, 0, 0, 1], 1).into(), FRAME_BYTES_MAX);
    let mut outcome = Outcome::default();
    let mut input = BytesMut::new();
    for read in reads {
        input.put_slice(read);
        loop {
            let before = (input.len(), outcome.over);
            match session.step(&mut input, &mut outcome.output) {
                Step::More => break,
                Step::Done => assert!(input.len() < before.0, "a step takes something"),
                Step::Call { call, to, .. } => {
                    assert_eq!(call.call_id, to.call_id);
                    assert!(!outcome.over, "no call after the end");
                    let body = call.body.to_vec();
                    outcome.calls.push((call.call_id, call.method.to_string(), body));
                }
                Step::End => {
                    outcome.over = true;
                    break;
                }
            }
        }
    }
    outcome
}

fn conversation() -> Vec<u8> {
    let mut bytes = Vec::new();
    let identity = Identity { user: "alice".into(), real_user: None };
    request::hello(&mut bytes, ID, &identity, "p.P");
    request::ping(&mut bytes, ID);
    for call_id in 0..3 {
        let id = CallId { client_id: ID, call_id, retry_count: 0 };
        let method = Method { protocol: "p.P", version: 1, name: "get" };
        request::call(&mut bytes, &id, &method, &"a path".to_owned());
    }
    request::close(&mut bytes, ID);
    bytes
}

#[test]
fn every_cut_of_a_conversation_gives_the_same_calls() {
    let bytes = conversation();
    let whole = converse(std::iter::once(&bytes[..]));
    assert_eq!((whole.calls.len(), whole.over, whole.output.len()), (3, true, 0));
    for cut in 0..bytes.len() {
        assert_eq!(converse([&bytes[..cut], &bytes[cut..]].into_iter()), whole);
        let cut_off = converse(std::iter::once(&bytes[..cut]));
        assert!(!cut_off.over && cut_off.output.is_empty() && cut_off.calls.len() <= 3);
    }
    assert_eq!(converse(bytes.chunks(1)), whole);
}

#[test]
fn a_flipped_bit_is_never_a_panic_and_an_end_is_an_end() {
    let bytes = conversation();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let outcome = converse(std::iter::once(&flipped[..]));
        assert!(outcome.calls.len() <= 3, "bit {bit}");
    }
}

#[test]
fn nobody_calls_without_a_name() {
    for user in ["", &"x".repeat(USER_BYTES_MAX + 1)] {
        let mut bytes = Vec::new();
        let identity = Identity { user: user.into(), real_user: None };
        request::hello(&mut bytes, ID, &identity, "p.P");
        let outcome = converse(std::iter::once(&bytes[..]));
        assert!(outcome.over && !outcome.output.is_empty());
    }
}

#[test]
fn a_user_who_acts_for_himself_is_one_user() {
    let mut bytes = Vec::new();
    let identity = Identity { user: "bob".into(), real_user: Some("bob".into()) };
    request::hello(&mut bytes, ID, &identity, "p.P");
    let mut session = Session::new(([127, 0, 0, 1], 1).into(), FRAME_BYTES_MAX);
    let mut input = BytesMut::from(&bytes[..]);
    while !matches!(session.step(&mut input, &mut Vec::new()), Step::More) {}
    let Phase::Open(known) = &session.phase else { panic!("{:?}", session.phase) };
    assert_eq!(known.real_user, None);
}

proptest! {
    #[test]
    fn any_bytes_cut_anywhere_give_the_same_outcome(
        begins_well: bool,
        tail in proptest::collection::vec(any::<u8>(), 0..300),
        cut in 0..400usize,
    ) {
        let mut bytes = if begins_well { conversation()[..60].to_vec() } else { Vec::new() };
        bytes.extend_from_slice(&tail);
        let cut = cut.min(bytes.len());
        let whole = converse(std::iter::once(&bytes[..]));
        prop_assert_eq!(&converse([&bytes[..cut], &bytes[cut..]].into_iter()), &whole);
        prop_assert!(whole.output.len() < 1_000, "an answer to nonsense is short");
    }

    #[test]
    fn frames_of_any_messages_do_no_harm(
        frames in proptest::collection::vec(
            (-40..3i32, 0..3u64, proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
        sasl: bool,
    ) {
        let mut bytes = b"hrpc\x09\0\0".to_vec();
        if sasl { bytes[6] = 0xDF; }
        for (call_id, version, body) in frames {
            let id = CallId { client_id: ID, call_id, retry_count: 0 };
            let method = Method { protocol: "p.P", version, name: "get" };
            let body = String::from_utf8_lossy(&body).into_owned();
            request::call(&mut bytes, &id, &method, &body);
        }
        let whole = converse(std::iter::once(&bytes[..]));
        prop_assert_eq!(converse(bytes.chunks(3)), whole);
    }
}
