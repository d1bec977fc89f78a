//! Replies to bytes, in both versions of the protocol.
//!
//! A [`Reply`] appends to an output buffer. Types that RESP2 lacks become what Redis sends there: a map is a flat
//! array, null is a null bulk string, a boolean is an integer, a verbatim text is a bulk string. The caller announces a
//! length and then writes exactly so many elements.

use bytes::BytesMut;

/// The version of the protocol that a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// What every connection starts with.
    #[default]
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

/// Appends replies in one version of the protocol.
pub struct Reply<'a> {
    out: &'a mut BytesMut,
    protocol: Protocol,
}

impl<'a> Reply<'a> {
    /// A writer at the end of `out`.
    pub fn new(out: &'a mut BytesMut, protocol: Protocol) -> Self {
        Self { out, protocol }
    }

    /// Bytes that wait in the output buffer.
    pub fn buffered(&self) -> usize {
        self.out.len()
    }

    /// `+text`. Line ends become spaces.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text);
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// `-text`; begins with an upper-case code as in `ERR what`. Line ends become spaces.
    pub fn error(&mut self, text: &str) {
        self.line(b'-', text);
    }

    /// `:value`.
    pub fn integer(&mut self, value: i64) {
        self.out.extend_from_slice(b":");
        if value < 0 {
            self.out.extend_from_slice(b"-");
        }
        self.decimal(value.unsigned_abs());
        self.out.extend_from_slice(b"\r\n");
    }

    /// `$length` and the bytes.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + 32);
        self.bulk_head(bytes.len());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// A text that a person reads: RESP3 marks it as such.
    pub fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.head(b'=', text.len() + 4);
                self.out.extend_from_slice(b"txt:");
                self.out.extend_from_slice(text.as_bytes());
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// There is no such value.
    pub fn null(&mut self) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n".as_slice(),
            Protocol::Resp3 => b"_\r\n".as_slice(),
        });
    }

    /// There is no such array.
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"*-1\r\n".as_slice(),
            Protocol::Resp3 => b"_\r\n".as_slice(),
        });
    }

    /// The head of an array of so many elements, which follow.
    pub fn array(&mut self, elements: usize) {
        self.head(b'*', elements);
    }

    /// The head of a set of so many elements, which follow.
    pub fn set(&mut self, elements: usize) {
        self.head(if self.protocol == Protocol::Resp3 { b'~' } else { b'*' }, elements);
    }

    /// The head of a map of so many pairs, which follow: key, value, key, value.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.head(b'*', pairs * 2),
            Protocol::Resp3 => self.head(b'%', pairs),
        }
    }

    fn bulk_head(&mut self, length: usize) {
        self.head(b'$', length);
    }

    fn head(&mut self, kind: u8, length: usize) {
        self.out.extend_from_slice(&[kind]);
        self.decimal(length as u64);
        self.out.extend_from_slice(b"\r\n");
    }

    fn line(&mut self, kind: u8, text: &str) {
        self.out.extend_from_slice(&[kind]);
        let start = self.out.len();
        self.out.extend_from_slice(text.as_bytes());
        for byte in &mut self.out[start..] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.out.extend_from_slice(b"\r\n");
    }

    fn decimal(&mut self, mut value: u64) {
        let mut digits = [0_u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[at..]);
    }
}
