//! Golden bytes, splits at every byte, limits, and arbitrary input.

use bytes::BytesMut;
use proptest::prelude::*;

use super::parse::{INLINE_BYTES_MAX, number};
use super::*;

/// Parses everything in `bytes`, delivered in pieces of `step` bytes.
fn parse_in_steps(bytes: &[u8], step: usize) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
    let limits = Limits { args_max: 8, bulk_bytes_max: 1000, command_bytes_max: 2000 };
    let mut parser = Parser::new(limits);
    let (mut buffer, mut commands) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(step.max(1)) {
        buffer.extend_from_slice(piece);
        while let Some(taken) = parser.parse(&buffer)? {
            let args = parser.args(&buffer);
            if !args.is_empty() {
                commands.push(args.from(0).map(<[u8]>::to_vec).collect());
            }
            buffer.drain(..taken);
            if buffer.is_empty() {
                break;
            }
        }
    }
    Ok(commands)
}

fn words(commands: &[&[&str]]) -> Vec<Vec<Vec<u8>>> {
    commands.iter().map(|c| c.iter().map(|w| w.as_bytes().to_vec()).collect()).collect()
}

#[test]
fn commands_parse_alike_however_they_are_split() {
    let bytes = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n\r\nPING\r\n*0\r\n*-1\r\nget 'x y' \"\\x41\\n\"\n\
                  *3\r\n$4\r\nMGET\r\n$0\r\n\r\n$2\r\n\r\n\r\n";
    let expected =
        words(&[&["GET", "a"], &["PING"], &["get", "x y", "A\n"], &["MGET", "", "\r\n"]]);
    for step in 1..=bytes.len() {
        assert_eq!(parse_in_steps(bytes, step).unwrap(), expected, "in pieces of {step}");
    }
}

#[test]
fn protocol_errors_are_worded_as_redis_does() {
    let long = [vec![b'x'; INLINE_BYTES_MAX], b"\r\n".to_vec()].concat();
    let cases: [(&[u8], &str); 14] = [
        (b"*x\r\n", "invalid multibulk length"),
        (b"*9\r\n", "invalid multibulk length"),
        (b"*1\r\n:1\r\n", "expected '$', got ':'"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$1001\r\n", "invalid bulk length"),
        (b"*1\r\n$+1\r\na\r\n", "invalid bulk length"),
        (b"*1\r\n$01\r\na\r\n", "invalid bulk length"),
        (b"*1\r\n$1\r\nab\r\n", "does not end where its length says"),
        (b"*111111111111111111111111", "too big mbulk count string"),
        (b"*1\r\n$1111111111111111111111111", "too big bulk count string"),
        (b"*1\rx", "does not end in"),
        (b"get \"x\r\n", "unbalanced quotes"),
        (b"get 'x'y\r\n", "unbalanced quotes"),
        (&long, "too big inline request"),
    ];
    for (bytes, why) in cases {
        let error = parse_in_steps(bytes, bytes.len()).unwrap_err();
        assert!(error.0.contains(why), "{:?} should give {why:?}, gave {error:?}", bytes.get(..9));
        assert!(error.0.starts_with("Protocol error: "));
    }
}

#[test]
fn a_command_over_the_limit_is_refused_before_it_is_received() {
    let head = b"*3\r\n$900\r\n";
    let bytes = [head.as_slice(), &[b'a'; 900], b"\r\n$900\r\n", &[b'a'; 900], b"\r\n$900\r\n"];
    let error = parse_in_steps(&bytes.concat(), 100).unwrap_err();
    assert!(error.0.contains("larger than 2000 bytes"), "{error:?}");
}

#[test]
fn numbers_are_read_strictly() {
    let good: [(&[u8], i64); 5] = [
        (b"0", 0),
        (b"-1", -1),
        (b"9223372036854775807", i64::MAX),
        (b"-9223372036854775808", i64::MIN),
        (b"10", 10),
    ];
    for (text, value) in good {
        assert_eq!(number(text), Some(value));
    }
    let bad: [&[u8]; 9] =
        [b"", b"-", b"+1", b"01", b"-0", b"1 ", b"9223372036854775808", b"1e3", b"0x1"];
    for text in bad {
        assert_eq!(number(text), None, "{text:?}");
    }
}

#[test]
fn replies_have_these_bytes() {
    let write = |protocol, f: fn(&mut Reply)| {
        let mut out = BytesMut::new();
        f(&mut Reply::new(&mut out, protocol));
        String::from_utf8(out.to_vec()).unwrap()
    };
    type Case = (fn(&mut Reply), &'static str, &'static str);
    let cases: [Case; 14] = [
        (|r| r.ok(), "+OK\r\n", "+OK\r\n"),
        (|r| r.simple("a\r\nb"), "+a  b\r\n", "+a  b\r\n"),
        (|r| r.error("ERR x"), "-ERR x\r\n", "-ERR x\r\n"),
        (|r| r.integer(0), ":0\r\n", ":0\r\n"),
        (|r| r.integer(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n"),
        (|r| r.bulk(b""), "$0\r\n\r\n", "$0\r\n\r\n"),
        (|r| r.bulk(b"a\r\nb"), "$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n"),
        (|r| r.null(), "$-1\r\n", "_\r\n"),
        (|r| r.null_array(), "*-1\r\n", "_\r\n"),
        (|r| r.array(12), "*12\r\n", "*12\r\n"),
        (|r| r.set(2), "*2\r\n", "~2\r\n"),
        (|r| r.map(2), "*4\r\n", "%2\r\n"),
        (|r| r.verbatim("hi"), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"),
        (|r| r.array(0), "*0\r\n", "*0\r\n"),
    ];
    for (f, resp2, resp3) in cases {
        assert_eq!(write(Protocol::Resp2, f), resp2);
        assert_eq!(write(Protocol::Resp3, f), resp3);
    }
}

/// Bytes that look like the protocol often enough to reach its corners.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"*2\r\n".to_vec()),
        Just(b"*".to_vec()),
        Just(b"$".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\"\\x4".to_vec()),
        Just(b"'".to_vec()),
        Just(b"GET ".to_vec()),
        (-3_i64..1200).prop_map(|n| format!("${n}\r\n").into_bytes()),
        (-3_i64..12).prop_map(|n| format!("*{n}\r\n").into_bytes()),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    proptest::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_give_the_same_however_they_are_split(bytes in hostile(), step in 1_usize..50) {
        let whole = parse_in_steps(&bytes, usize::MAX);
        let split = parse_in_steps(&bytes, step);
        // In pieces, commands before an error are the same; the error comes no earlier than with the whole.
        prop_assert_eq!(whole, split);
    }

    #[test]
    fn what_a_client_writes_is_what_is_parsed(
        commands in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 1..8), 0..5),
        step in 1_usize..200,
    ) {
        let mut out = BytesMut::new();
        let mut reply = Reply::new(&mut out, Protocol::Resp2);
        for command in &commands {
            reply.array(command.len());
            for arg in command {
                reply.bulk(arg);
            }
        }
        prop_assert_eq!(parse_in_steps(&out, step).unwrap(), commands);
    }
}
