//! Any bytes, in any pieces, as a server's answers: no panic, nothing beyond what was sent, and the same answers however
//! the bytes are cut. The first byte says how they are.
#![no_main]

use bytes::{BufMut, BytesMut};
use ipc::answer::{self, Received};
use ipc::reply::{self, FatalCode};
use ipc::wire::ReplyTo;
use ipc::{RpcError, exceptions};
use libfuzzer_sys::fuzz_target;

const REPLY_BYTES_MAX: usize = 1 << 20;

fn seeds() -> Vec<Vec<u8>> {
    let error = RpcError::application(exceptions::FILE_NOT_FOUND, "File does not exist: /a");
    let to = |call_id| ReplyTo::nobody(call_id);
    let mut good = vec![0];
    reply::answer(&mut good, &to(1), Ok(b"message"));
    reply::answer(&mut good, &to(3), Ok(b""));
    reply::answer(&mut good, &to(2), Err(&error));
    let mut ended = vec![5];
    reply::answer(&mut ended, &to(1), Err(&error));
    reply::fatal(&mut ended, &to(-1), FatalCode::Unauthorized, "a.B", "who are you?");
    vec![good, ended]
}

fn read(pieces: impl Iterator<Item = impl AsRef<[u8]>>) -> (Vec<Received>, bool) {
    let (mut input, mut answers) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        input.put_slice(piece.as_ref());
        loop {
            let before = input.len();
            match answer::take(&mut input, REPLY_BYTES_MAX) {
                Ok(Some(answer)) => {
                    assert!(input.len() < before, "an answer takes something");
                    assert!(answer.result.as_ref().map_or(0, |body| body.len()) < before);
                    answers.push(answer);
                }
                Ok(None) => break,
                Err(_) => return (answers, true),
            }
        }
    }
    (answers, false)
}

fuzz_target!(init: fuzz::start(seeds), |data: &[u8]| {
    let [cut, bytes @ ..] = data else { return };
    let whole = read(std::iter::once(bytes));
    assert_eq!(whole, read(bytes.chunks(usize::from(*cut).max(1))));
});
