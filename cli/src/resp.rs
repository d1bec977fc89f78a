//! A small client of the Redis protocol (RESP2): enough to ask a kvserve as any Redis client would, and to time it.
//!
//! One request, one reply, one connection. Replies are bounded; what breaks the protocol is an error, never a panic.

use proto::{Code, Error, Result};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const LINE_BYTES_MAX: usize = 64 << 10;
/// No length or count of a reply is larger.
const NUMBER_MAX: i64 = proto::limits::VALUE_BYTES_MAX as i64;

/// One connection.
pub struct RespClient {
    stream: BufReader<TcpStream>,
    addr: String,
}

impl RespClient {
    /// Connects to `host:port`.
    pub async fn connect(addr: &str) -> Result<Self> {
        let stream = TcpStream::connect(addr).await;
        let stream = stream.map_err(|error| Error::io(format!("connect to {addr}"), &error))?;
        stream.set_nodelay(true).map_err(|error| Error::io("TCP_NODELAY", &error))?;
        Ok(Self { stream: BufReader::with_capacity(64 << 10, stream), addr: addr.to_owned() })
    }

    /// `MGET`: the values in the order of the keys.
    pub async fn mget(&mut self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut request = format!("*{}\r\n$4\r\nMGET\r\n", keys.len() + 1).into_bytes();
        for key in keys {
            request.extend_from_slice(format!("${}\r\n", key.len()).as_bytes());
            request.extend_from_slice(key);
            request.extend_from_slice(b"\r\n");
        }
        self.send(&request).await?;
        let count = self.header(b'*').await?;
        if count != keys.len() as i64 {
            return Err(self.broken(&format!("{count} values for {} keys", keys.len())));
        }
        let mut values = Vec::with_capacity(keys.len());
        for _ in keys {
            values.push(self.bulk().await?);
        }
        Ok(values)
    }

    /// `GET`.
    pub async fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut request = format!("*2\r\n$3\r\nGET\r\n${}\r\n", key.len()).into_bytes();
        request.extend_from_slice(key);
        request.extend_from_slice(b"\r\n");
        self.send(&request).await?;
        self.bulk().await
    }

    async fn send(&mut self, request: &[u8]) -> Result<()> {
        let sent = self.stream.get_mut().write_all(request).await;
        sent.map_err(|error| Error::io(format!("write to {}", self.addr), &error))
    }

    async fn bulk(&mut self) -> Result<Option<Vec<u8>>> {
        let length = self.header(b'$').await?;
        if length < 0 {
            return Ok(None);
        }
        let mut value = vec![0; length as usize + 2];
        let read = self.stream.read_exact(&mut value).await;
        read.map_err(|error| Error::io(format!("read from {}", self.addr), &error))?;
        value.truncate(length as usize);
        Ok(Some(value))
    }

    /// The number of a reply that begins with `kind`.
    async fn header(&mut self, kind: u8) -> Result<i64> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.stream).take(LINE_BYTES_MAX as u64);
        let read = bounded.read_until(b'\n', &mut line).await;
        read.map_err(|error| Error::io(format!("read from {}", self.addr), &error))?;
        let Some(text) = line.strip_suffix(b"\r\n") else {
            let message = format!("{} closed the connection", self.addr);
            return Err(Error::new(Code::Unavailable, message));
        };
        let text = String::from_utf8_lossy(text);
        match text.as_bytes().first() {
            Some(b'-') => {
                Err(Error::new(Code::Unavailable, format!("{} says: {}", self.addr, &text[1..])))
            }
            Some(b'_') => Ok(-1),
            Some(first) if *first == kind => {
                let number = text[1..].parse().ok().filter(|n| (-1..=NUMBER_MAX).contains(n));
                number.ok_or_else(|| self.broken(&text))
            }
            _ => Err(self.broken(&text)),
        }
    }

    fn broken(&self, what: &str) -> Error {
        let shown: String = what.chars().take(100).collect();
        Error::new(Code::Incompatible, format!("{} broke the Redis protocol: {shown:?}", self.addr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client makes of a server that answers with these bytes and goes away.
    fn answered(reply: &'static [u8]) -> Result<Option<Vec<u8>>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap().to_string();
            let server = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 25];
                stream.read_exact(&mut request).await.unwrap();
                assert_eq!(&request, b"*2\r\n$3\r\nGET\r\n$6\r\nkey\r\n1\r\n");
                stream.write_all(reply).await.unwrap();
            };
            let client = async {
                let mut client = RespClient::connect(&addr).await?;
                client.get(b"key\r\n1").await
            };
            tokio::join!(server, client).1
        })
    }

    #[test]
    fn values_and_their_absence_are_read() {
        assert_eq!(answered(b"$3\r\na\r\n\r\n").unwrap(), Some(b"a\r\n".to_vec()));
        assert_eq!(answered(b"$-1\r\n").unwrap(), None);
        assert_eq!(answered(b"_\r\n").unwrap(), None);
        let error = answered(b"-ERR no store\r\n").unwrap_err();
        assert!(error.message.ends_with("says: ERR no store"), "{error}");
    }

    #[test]
    fn a_server_that_breaks_the_protocol_is_an_error() {
        for reply in
            [&b"$99999999999\r\n"[..], b"$x\r\n", b"*1\r\n", b"hello\r\n", b"\xff\r\n", b"$-2\r\n"]
        {
            assert_eq!(answered(reply).unwrap_err().code, Code::Incompatible, "{reply:?}");
        }
        for reply in [&b""[..], b"$5\r\nab", b"$5"] {
            assert_eq!(answered(reply).unwrap_err().code, Code::Unavailable, "{reply:?}");
        }
    }
}
