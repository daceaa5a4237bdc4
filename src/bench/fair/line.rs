//! A burden's connection: blocking, on the burden's own thread, and left when that is to end.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::error::{Error, Kind, Result};

use super::super::client::PATIENCE;
use super::super::wire;

/// How long the end is not looked for.
const LOOK: Duration = Duration::from_millis(100);

/// What one read takes at most.
const READ: usize = 128 << 10;

/// Set when a burden is to end.
pub type Stop = Arc<AtomicBool>;

/// See the module.
pub struct Line {
    stream: File,
    /// What was read, and how much of it was taken already.
    input: Vec<u8>,
    taken: usize,
    stop: Stop,
}

impl Line {
    /// To the server.
    pub fn to(address: SocketAddr, stop: &Stop) -> Result<Line> {
        let stream = TcpStream::connect(address).map_err(lost)?;
        stream.set_nodelay(true).map_err(lost)?;
        Line::of(stream, stop)
    }

    /// To the server, with the smallest buffer there is for what it sends.
    pub fn narrow(address: SocketAddr, stop: &Stop) -> Result<Line> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let socket = rustix::net::socket(family, SocketType::STREAM, None);
        let socket = socket.map_err(|error| lost(error.into()))?;
        sockopt::set_socket_recv_buffer_size(&socket, 1).map_err(|error| lost(error.into()))?;
        rustix::net::connect(&socket, &address).map_err(|error| lost(error.into()))?;
        Line::of(TcpStream::from(socket), stop)
    }

    fn of(stream: TcpStream, stop: &Stop) -> Result<Line> {
        stream.set_read_timeout(Some(LOOK)).map_err(lost)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(lost)?;
        Ok(Line::new(stream.into(), stop))
    }

    /// To the socket of the data's owner.
    pub fn to_owner(path: &Path, stop: &Stop) -> Result<Line> {
        let stream = UnixStream::connect(path).map_err(lost)?;
        stream.set_read_timeout(Some(LOOK)).map_err(lost)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(lost)?;
        Ok(Line::new(stream.into(), stop))
    }

    fn new(stream: OwnedFd, stop: &Stop) -> Line {
        Line { stream: stream.into(), input: Vec::new(), taken: 0, stop: stop.clone() }
    }

    /// Sends all of it.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).map_err(lost)
    }

    /// The body of the next answer, which must be 200; nothing where it was not waited for.
    pub fn body(&mut self) -> Result<Option<Vec<u8>>> {
        let Some((status, body)) = self.answer()? else { return Ok(None) };
        match status {
            200 => Ok(Some(body)),
            _ => Err(refused(status, &body)),
        }
    }

    /// Subscribes by this handshake; `false` where the answer was not waited for.
    pub fn subscribe(&mut self, handshake: &[u8]) -> Result<bool> {
        self.send(handshake)?;
        match self.answer()? {
            None => Ok(false),
            Some((101, _)) => Ok(true),
            Some((status, body)) => Err(refused(status, &body)),
        }
    }

    /// Status and body of the next answer.
    fn answer(&mut self) -> Result<Option<(u16, Vec<u8>)>> {
        loop {
            let input = &self.input[self.taken..];
            if let Some(answer) = wire::answer(input)
                && let Some(body) = input.get(answer.head..answer.length)
            {
                let body = body.to_vec();
                self.taken += answer.length;
                return Ok(Some((answer.status, body)));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Gives each text frame to `take` until that is content; `false` where it was not waited for.
    pub fn frames(&mut self, mut take: impl FnMut(&[u8]) -> bool) -> Result<bool> {
        loop {
            while let Some(frame) = wire::frame(&self.input[self.taken..]) {
                match frame.opcode {
                    0x1 if take(frame.payload) => return Ok(true),
                    0x8 => {
                        let (code, reason) = wire::close(frame.payload);
                        return Err(ended(format!("closed with {code}: {reason}")));
                    }
                    _ => {}
                }
                self.taken += frame.length;
            }
            if !self.fill()? {
                return Ok(false);
            }
        }
    }

    /// Reads some more; `false` where this is to end.
    fn fill(&mut self) -> Result<bool> {
        self.input.drain(..self.taken);
        self.taken = 0;
        let (length, began) = (self.input.len(), Instant::now());
        self.input.resize(length + READ, 0);
        let read = loop {
            if self.stop.load(Ordering::Relaxed) {
                break Ok(None);
            }
            match self.stream.read(&mut self.input[length..]) {
                Ok(0) => break Err(ended("the server ended a burden's connection".to_owned())),
                Ok(read) => break Ok(Some(read)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if began.elapsed() > PATIENCE {
                        break Err(ended("the server says nothing to a burden".to_owned()));
                    }
                }
                Err(error) => break Err(lost(error)),
            }
        };
        self.input.truncate(length + read.as_ref().map_or(0, |read| read.unwrap_or_default()));
        read.map(|read| read.is_some())
    }
}

fn refused(status: u16, body: &[u8]) -> Error {
    let why = String::from_utf8_lossy(body);
    let mut error = ended(format!("a burden was answered {status}: {why}"));
    if status == 429 {
        error.kind = Kind::Limited { retry_after: 0 };
    }
    error
}

fn ended(why: String) -> Error {
    Error::new(Kind::Unavailable, why)
}

fn lost(error: io::Error) -> Error {
    ended(format!("a burden's connection: {error}"))
}
