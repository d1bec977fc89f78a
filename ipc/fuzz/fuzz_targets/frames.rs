//! Any bytes, in any pieces, are a conversation that does no harm: no panic, no endless loop, short answers, and the
//! same calls however the bytes are cut.
//!
//! The first byte says how the rest is cut; the second whether a good preamble and context come before it, so that
//! the fuzzer reaches what is behind them at once.
#![no_main]

use bytes::{BufMut, BytesMut};
use ipc::session::{Session, Step};
use ipc::{Identity, request};
use libfuzzer_sys::fuzz_target;

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

fuzz_target!(|data: &[u8]| {
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
