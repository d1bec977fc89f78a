//! The incremental parser of commands.
//!
//! [`Parser::parse`] looks at the unconsumed bytes of a connection and either finds one whole command, or says that
//! more bytes are needed, or finds a protocol error after which the connection has to be closed. Arguments are ranges
//! of the buffer; only inline commands with quotes are unescaped, into a scratch buffer that is reused. A call that
//! needs more bytes remembers how far it came, so that a command that arrives in many pieces costs linear time.
//!
//! Always holds: any bytes give a command, "more", or an error; memory is bounded by [`Limits`]. The words of the
//! errors are those of Redis, since clients and people search for them.

/// Bounds of one command. All are checked before anything is allocated.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Arguments of one command, its name included.
    pub args_max: usize,
    /// Bytes of one argument.
    pub bulk_bytes_max: usize,
    /// Bytes of one whole command on the wire.
    pub command_bytes_max: usize,
}

/// Bytes of an inline command or of a length line (as Redis has it).
pub const INLINE_BYTES_MAX: usize = 64 << 10;

impl Default for Limits {
    fn default() -> Self {
        Self { args_max: 1 << 20, bulk_bytes_max: 16 << 20, command_bytes_max: 64 << 20 }
    }
}

/// The stream of bytes is not the Redis protocol: reply with this and close the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolError(pub String);

impl ProtocolError {
    fn new(what: impl Into<String>) -> Self {
        Self(format!("Protocol error: {}", what.into()))
    }
}

/// Where an argument lies: in the receive buffer or, unescaped, in the parser's scratch buffer.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    end: u32,
}

/// Finds commands in the bytes of one connection.
#[derive(Debug, Default)]
pub struct Parser {
    limits: Limits,
    spans: Vec<Span>,
    scratch: Vec<u8>,
    inline: bool,
    /// Arguments still to come of the command at the start of the buffer; `None`: its head was not read yet.
    missing: Option<usize>,
    /// How far the command at the start of the buffer was read.
    at: usize,
}

/// The arguments of one command; the first is its name.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Args<'a> {
    /// How many there are, the name included; at least 1.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Never: a command has a name.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The argument at `index`, which must be below [`Args::len`].
    pub fn at(&self, index: usize) -> &'a [u8] {
        let span = self.spans[index];
        &self.bytes[span.start as usize..span.end as usize]
    }

    /// The argument at `index`, if the command has so many.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        (index < self.len()).then(|| self.at(index))
    }

    /// The arguments from `index` on.
    pub fn from(&self, index: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let bytes = self.bytes;
        let spans = &self.spans[index.min(self.spans.len())..];
        spans.iter().map(move |span| &bytes[span.start as usize..span.end as usize])
    }
}

impl Parser {
    /// A parser at the start of a connection.
    pub fn new(limits: Limits) -> Self {
        assert!(limits.command_bytes_max < u32::MAX as usize, "spans are 32 bits wide");
        Self { limits, ..Self::default() }
    }

    /// Looks for one command at the start of `buffer`. `Some(n)`: it takes `n` bytes, [`Parser::args`] gives its
    /// arguments, none for an empty line or array, which is to be skipped. `None`: call again when the same bytes are
    /// followed by more.
    pub fn parse(&mut self, buffer: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let found = self.step(buffer);
        match found {
            Ok(None) if buffer.len() > self.limits.command_bytes_max => Err(ProtocolError::new(
                format!("a command larger than {} bytes", self.limits.command_bytes_max),
            )),
            Ok(None) => Ok(None),
            Ok(Some(taken)) => {
                self.missing = None;
                self.at = 0;
                Ok(Some(taken))
            }
            Err(error) => Err(error),
        }
    }

    /// The arguments of the command that [`Parser::parse`] just found at the start of `buffer`.
    pub fn args<'a>(&'a self, buffer: &'a [u8]) -> Args<'a> {
        Args { bytes: if self.inline { &self.scratch } else { buffer }, spans: &self.spans }
    }

    /// Gives back memory that one huge command left behind.
    pub fn shrink(&mut self) {
        const KEEP: usize = 4096;
        if self.spans.capacity() > KEEP {
            self.spans = Vec::new();
        }
        if self.scratch.capacity() > INLINE_BYTES_MAX {
            self.scratch = Vec::new();
        }
    }

    fn step(&mut self, buffer: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let missing = match self.missing {
            Some(missing) => missing,
            None => match buffer.first() {
                None => return Ok(None),
                Some(b'*') => match self.read_head(buffer)? {
                    Some(missing) => missing,
                    None => return Ok(None),
                },
                Some(_) => return self.read_inline(buffer),
            },
        };
        self.read_bulks(buffer, missing)
    }

    /// Reads `*<count>\r\n`. Gives the count; 0 for an empty or null array.
    fn read_head(&mut self, buffer: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let Some(line) = length_line(buffer, "too big mbulk count string")? else {
            return Ok(None);
        };
        let count = number(line.digits)
            .filter(|&count| count <= self.limits.args_max as i64)
            .ok_or_else(|| ProtocolError::new("invalid multibulk length"))?;
        self.spans.clear();
        self.inline = false;
        self.at = line.taken;
        let count = usize::try_from(count).unwrap_or(0);
        self.missing = Some(count);
        Ok(Some(count))
    }

    fn read_bulks(
        &mut self,
        buffer: &[u8],
        mut missing: usize,
    ) -> Result<Option<usize>, ProtocolError> {
        while missing > 0 {
            let rest = &buffer[self.at..];
            match rest.first() {
                None => return Ok(None),
                Some(b'$') => {}
                Some(&other) => {
                    let shown = char::from(other).escape_default().to_string();
                    return Err(ProtocolError::new(format!("expected '$', got '{shown}'")));
                }
            }
            let Some(line) = length_line(rest, "too big bulk count string")? else {
                return Ok(None);
            };
            let length = number(line.digits)
                .and_then(|length| usize::try_from(length).ok())
                .filter(|&length| length <= self.limits.bulk_bytes_max)
                .ok_or_else(|| ProtocolError::new("invalid bulk length"))?;
            let start = self.at + line.taken;
            let end = start + length;
            if end + 2 > self.limits.command_bytes_max {
                return Err(ProtocolError::new(format!(
                    "a command larger than {} bytes",
                    self.limits.command_bytes_max
                )));
            }
            if buffer.len() < end + 2 {
                return Ok(None);
            }
            if &buffer[end..end + 2] != b"\r\n" {
                return Err(ProtocolError::new("a bulk string does not end where its length says"));
            }
            self.spans.push(Span { start: start as u32, end: end as u32 });
            self.at = end + 2;
            missing -= 1;
            self.missing = Some(missing);
        }
        Ok(Some(self.at))
    }

    /// Reads a command typed as a line: words, quoted as Redis has it.
    fn read_inline(&mut self, buffer: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let window = &buffer[..buffer.len().min(INLINE_BYTES_MAX)];
        let from = self.at.min(window.len());
        let Some(newline) = window[from..].iter().position(|&b| b == b'\n') else {
            if window.len() == INLINE_BYTES_MAX {
                return Err(ProtocolError::new("too big inline request"));
            }
            self.at = window.len();
            return Ok(None);
        };
        let newline = from + newline;
        let line = window[..newline].strip_suffix(b"\r").unwrap_or(&window[..newline]);
        self.inline = true;
        self.spans.clear();
        self.scratch.clear();
        split_words(line, &mut self.scratch, &mut self.spans)
            .ok_or_else(|| ProtocolError::new("unbalanced quotes in request"))?;
        Ok(Some(newline + 1))
    }
}

/// A line `<type byte><digits>\r\n`.
struct Line<'a> {
    digits: &'a [u8],
    taken: usize,
}

/// The longest decimal number of 64 bits with its sign.
const DIGITS_MAX: usize = 20;

/// Reads a length line; `None` if it has not ended yet.
fn length_line<'a>(bytes: &'a [u8], too_long: &str) -> Result<Option<Line<'a>>, ProtocolError> {
    let window = &bytes[..bytes.len().min(1 + DIGITS_MAX + 2)];
    match window.iter().position(|&b| b == b'\r') {
        Some(end) => match window.get(end + 1) {
            Some(b'\n') => Ok(Some(Line { digits: &window[1..end], taken: end + 2 })),
            Some(_) => Err(ProtocolError::new("a length line that does not end in \\r\\n")),
            None if end + 1 == bytes.len() => Ok(None),
            None => Err(ProtocolError::new(too_long)),
        },
        None if window.len() == 1 + DIGITS_MAX + 2 => Err(ProtocolError::new(too_long)),
        None => Ok(None),
    }
}

/// A decimal number as Redis accepts it: an optional minus, digits, no leading zeros, 64 bits.
pub fn number(digits: &[u8]) -> Option<i64> {
    let (negative, magnitude) = match digits.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, digits),
    };
    let leading_zero = magnitude.first() == Some(&b'0') && (magnitude.len() > 1 || negative);
    if magnitude.is_empty() || leading_zero {
        return None;
    }
    let mut value: i64 = 0;
    for &digit in magnitude {
        if !digit.is_ascii_digit() {
            return None;
        }
        let digit = i64::from(digit - b'0');
        value = value.checked_mul(10)?;
        value = if negative { value.checked_sub(digit)? } else { value.checked_add(digit)? };
    }
    Some(value)
}

/// Splits a line into words. `"..."` knows `\n \r \t \b \a \xHH \" \\`, `'...'` knows `\'`; a closing quote is
/// followed by a space or the end. `None`: the quotes do not balance.
fn split_words(line: &[u8], out: &mut Vec<u8>, spans: &mut Vec<Span>) -> Option<()> {
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        if at >= line.len() {
            return Some(());
        }
        let start = out.len() as u32;
        at = read_word(line, at, out)?;
        spans.push(Span { start, end: out.len() as u32 });
    }
}

/// Appends the word that begins at `at` and gives where it ends.
fn read_word(line: &[u8], mut at: usize, out: &mut Vec<u8>) -> Option<usize> {
    while let Some(&byte) = line.get(at) {
        match byte {
            b'"' | b'\'' => {
                at = read_quoted(line, at + 1, byte, out)?;
                return match line.get(at) {
                    Some(next) if !next.is_ascii_whitespace() => None,
                    _ => Some(at),
                };
            }
            _ if byte.is_ascii_whitespace() => break,
            _ => out.push(byte),
        }
        at += 1;
    }
    Some(at)
}

/// Appends what stands before the closing `quote` and gives where the quote ends.
fn read_quoted(line: &[u8], mut at: usize, quote: u8, out: &mut Vec<u8>) -> Option<usize> {
    loop {
        match line[at.min(line.len())..] {
            [] => return None,
            [b'\\', b'x', high, low, ..] if quote == b'"' && hex(high, low).is_some() => {
                out.push(hex(high, low)?);
                at += 4;
            }
            [b'\\', escaped, ..] if quote == b'"' => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => other,
                });
                at += 2;
            }
            [b'\\', b'\'', ..] if quote == b'\'' => {
                out.push(b'\'');
                at += 2;
            }
            [byte, ..] if byte == quote => return Some(at + 1),
            [byte, ..] => {
                out.push(byte);
                at += 1;
            }
        }
    }
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}
