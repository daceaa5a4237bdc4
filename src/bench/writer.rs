//! A connection that writes, one request at a time, kept alive.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

use mio::net::TcpStream;

use super::ledger::Side;
use super::wire;

pub struct Writer {
    pub stream: TcpStream,
    pub side: Side,
    out: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    /// When the request under way was sent, as its latency counts.
    sent: Option<u64>,
    /// Since when there is none.
    pub idle_since: u64,
}

impl Writer {
    pub fn connect(side: Side, address: SocketAddr, now: u64) -> io::Result<Writer> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let (stream, out, input) = (TcpStream::from_std(stream), Vec::new(), Vec::new());
        Ok(Writer { stream, side, out, written: 0, input, sent: None, idle_since: now })
    }

    /// Whether a request is under way.
    pub fn is_busy(&self) -> bool {
        self.sent.is_some()
    }

    /// Sends the request that `write` appends.
    pub fn send(&mut self, sent: u64, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.out.clear();
        self.written = 0;
        write(&mut self.out);
        self.sent = Some(sent);
        self.push()
    }

    fn push(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Goes on; gives when the request was sent that is answered now.
    pub fn turn(&mut self, buffer: &mut [u8]) -> io::Result<Option<u64>> {
        self.push()?;
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::Error::other("a connection that asks was ended")),
                Ok(length) => {
                    self.input.extend_from_slice(&buffer[..length]);
                    // Less than it could have been: nothing more is there.
                    if length < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let Some(answer) = wire::answer(&self.input) else { return Ok(None) };
        let Some(body) = self.input.get(answer.head..answer.length) else { return Ok(None) };
        if answer.status != 200 {
            let body = String::from_utf8_lossy(body);
            return Err(io::Error::other(format!(
                "a request was answered {}: {body}",
                answer.status
            )));
        }
        self.input.drain(..answer.length);
        Ok(self.sent.take())
    }
}
