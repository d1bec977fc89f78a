//! Tests of requests and replies: golden bytes, bounds, damage.

use super::*;

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn read_op() -> Request {
    let block = Block { id: 5, generation_stamp: 1001, length: 9 };
    Request::ReadBlock(OpReadBlockProto {
        header: client_header("BP-1", &block, "c"),
        offset: 3,
        len: 4,
        send_checksums: None,
        caching_strategy: None,
    })
}

#[test]
fn a_read_request_has_the_bytes_of_the_protocol() {
    #[rustfmt::skip]
    let golden = [
        0, 28, 81,                             // version, op
        34,                                    // length of the message
        0x0a, 28,                              // field 1: header
          0x0a, 23,                            //   field 1: base header
            0x0a, 15,                          //     field 1: block
              0x0a, 4, b'B', b'P', b'-', b'1', //       pool
              0x10, 5,                         //       id
              0x18, 0xe9, 0x07,                //       generation stamp 1001
    ];
    let bytes = read_op().encode();
    assert_eq!(bytes[..3], golden[..3]);
    let decoded = block_on(read_request(&mut &bytes[..])).unwrap().unwrap();
    assert_eq!(decoded, read_op());
    let id_at = bytes.windows(6).position(|w| w == [0x0a, 4, b'B', b'P', b'-', b'1']).unwrap();
    assert_eq!(bytes[id_at + 6..id_at + 11], golden[golden.len() - 5..]);
    assert!(bytes.ends_with(&[0x10, 3, 0x18, 4]), "offset and length close the message");
}

#[test]
fn a_request_cut_at_any_length_is_an_error_and_an_empty_stream_is_none() {
    let bytes = read_op().encode();
    assert_eq!(block_on(read_request(&mut &b""[..])).unwrap(), None);
    for length in 1..bytes.len() {
        assert!(block_on(read_request(&mut &bytes[..length])).is_err(), "{length}");
    }
}

#[test]
fn a_flipped_bit_gives_a_request_or_an_error() {
    let bytes = read_op().encode();
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let _either = block_on(read_request(&mut &bytes[..])).is_ok();
    }
}

#[test]
fn another_version_and_an_overlong_message_are_refused() {
    let error = block_on(read_request(&mut &[0, 27, 81, 0][..])).unwrap_err();
    assert!(error.message.contains("version 27"), "{error}");
    let error = block_on(read_request(&mut &b"GET / HTTP/1.1"[..])).unwrap_err();
    assert_eq!(error.code, Code::Incompatible);
    let huge = [0, 28, 81, 0xff, 0xff, 0xff, 0xff, 0x0f];
    let error = block_on(read_request(&mut &huge[..])).unwrap_err();
    assert!(error.message.contains("longer than"), "{error}");
    let endless = [0, 28, 81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80];
    assert!(block_on(read_request(&mut &endless[..])).is_err());
}

#[test]
fn an_unknown_op_is_told_by_its_number() {
    let request = block_on(read_request(&mut &[0, 28, 99, 1, 2, 3][..])).unwrap();
    assert_eq!(request, Some(Request::Unknown(99)));
}

#[test]
fn an_error_comes_back_as_it_was_sent() {
    for code in [Code::Corrupt, Code::NotFound, Code::NoSpace, Code::Stale, Code::Overloaded] {
        let sent = Error::new(code, "blk_5: [x] what happened");
        let bytes = encode_delimited(&error_response(&sent));
        let reply = block_on(read_response(&mut &bytes[..])).unwrap();
        assert_eq!(check(&reply).unwrap_err(), sent);
    }
    let mut foreign = response(StatusProto::ErrorAccessToken);
    foreign.message = Some("[no number] denied".into());
    assert_eq!(check(&foreign).unwrap_err().code, Code::PermissionDenied);
    check(&response(StatusProto::Success)).unwrap();
}

#[test]
fn a_message_is_read_to_its_end_and_not_beyond() {
    let mut stream = &[2, 0x08, 0, 77, 78][..];
    block_on(read_response(&mut stream)).unwrap();
    assert_eq!(stream, [77, 78]);
}
