//! A WebSocket that costs its client next to nothing: frames are only counted, and looked into for
//! their cursor.

use std::io;
use std::net::SocketAddr;

use rowcast::model::cursor::Cursor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub struct Socket {
    stream: TcpStream,
    /// What was read and not yet taken.
    bytes: Vec<u8>,
    from: usize,
}

/// What the server sent.
pub enum Frame<'a> {
    Text(&'a [u8]),
    Ping,
    /// Code and reason.
    Close(u16, String),
}

impl Socket {
    /// Subscribes; `Ok` once the server has answered 101.
    pub async fn open(address: SocketAddr, query: &str, token: &str) -> io::Result<Socket> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let head = format!(
            "GET /api/realtime/content?{query} HTTP/1.1\r\nHost: localhost\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        let mut socket = Socket { stream, bytes: Vec::with_capacity(2 << 10), from: 0 };
        loop {
            if let Some(at) = socket.bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                if !socket.bytes.starts_with(b"HTTP/1.1 101 ") {
                    let head = String::from_utf8_lossy(&socket.bytes[..at]).into_owned();
                    return Err(io::Error::other(head));
                }
                socket.from = at + 4;
                return Ok(socket);
            }
            if socket.stream.read_buf(&mut socket.bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Hands over every whole frame there is, after waiting for one at least. `false` where the
    /// connection has ended.
    pub async fn read(&mut self, mut take: impl FnMut(Frame<'_>)) -> io::Result<bool> {
        let mut pings = 0;
        loop {
            let mut taken = 0;
            while let Some((opcode, start, end)) = whole(&self.bytes[self.from..]) {
                let payload = &self.bytes[self.from + start..self.from + end];
                match opcode {
                    0x1 => take(Frame::Text(payload)),
                    0x9 => {
                        pings += 1;
                        take(Frame::Ping);
                    }
                    0x8 => {
                        let code =
                            payload.first_chunk().map_or(1005, |two| u16::from_be_bytes(*two));
                        let reason = payload.get(2..).unwrap_or_default();
                        take(Frame::Close(code, String::from_utf8_lossy(reason).into_owned()));
                    }
                    _ => {}
                }
                self.from += end;
                taken += 1;
            }
            self.bytes.drain(..self.from);
            self.from = 0;
            // Ten thousand of them: what a burst needed is given back.
            if self.bytes.is_empty() {
                self.bytes.shrink_to(2 << 10);
            }
            for _ in 0..std::mem::take(&mut pings) {
                // An empty pong, masked with zeros.
                self.stream.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await?;
            }
            if taken > 0 {
                return Ok(true);
            }
            if self.stream.read_buf(&mut self.bytes).await? == 0 {
                return Ok(false);
            }
        }
    }
}

/// The first frame, if all of it is there: opcode, and where its payload begins and ends.
fn whole(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (start, length) = match second {
        126 => (4, u64::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)),
        short => (2, u64::from(short)),
    };
    let end = start + usize::try_from(length).ok()?;
    (bytes.len() >= end).then_some((first & 0x0f, start, end))
}

/// The cursor that a message ends with.
pub fn cursor(message: &[u8]) -> Option<Cursor> {
    // `"cursor":"` and 34 characters and `"}`.
    let tail = message.get(message.len().checked_sub(46)?..)?;
    let text = tail.strip_prefix(br#""cursor":""#)?.strip_suffix(br#""}"#)?;
    std::str::from_utf8(text).ok()?.parse().ok()
}
