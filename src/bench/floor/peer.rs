//! One connection to the floor: what it sent, and what its socket did not take.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};

use bytes::{Buf, Bytes};
use mio::net::TcpStream;

/// A client: one that posts, or a subscriber.
pub struct Peer {
    pub stream: TcpStream,
    /// Read, and no whole request yet.
    pub input: Vec<u8>,
    /// What the socket did not take.
    rest: VecDeque<Bytes>,
    /// A subscriber's place among them.
    pub seat: Option<usize>,
    /// It ends once `rest` is written.
    pub last: bool,
}

/// How a read ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// There is no more for now.
    Blocked,
    Gone,
}

impl Peer {
    pub fn new(stream: TcpStream) -> Self {
        Peer { stream, input: Vec::new(), rest: VecDeque::new(), seat: None, last: false }
    }

    /// Reads all there is, `scratch` at a time. What subscribers send is dropped; with a close they
    /// are gone.
    pub fn read(&mut self, scratch: &mut [u8]) -> Ended {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Ended::Gone,
                Ok(read) => {
                    if self.seat.is_none() {
                        self.input.extend_from_slice(&scratch[..read]);
                    } else if scratch[0] & 0x0f == 8 {
                        return Ended::Gone;
                    }
                    // A stream that gave less than was asked for has no more: the next byte, or
                    // the end, is an event again.
                    if read < scratch.len() {
                        return Ended::Blocked;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ended::Blocked,
                Err(_) => return Ended::Gone,
            }
        }
    }

    /// Whether something waits for the socket.
    pub fn waits(&self) -> bool {
        !self.rest.is_empty()
    }

    /// One write() of `bytes`; what is not taken waits, behind what waits already. Gives how many
    /// bytes that adds.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, bytes: &Bytes) -> io::Result<usize> {
        let taken = if self.waits() { 0 } else { self.write(bytes)? };
        let left = bytes.len() - taken;
        if left > 0 {
            self.rest.push_back(bytes.slice(taken..));
        }
        Ok(left)
    }

    /// Writes what waits, as far as the socket takes it: a write() a frame, as if it had been taken
    /// at once. Gives how many bytes went.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn flush(&mut self) -> io::Result<usize> {
        let mut gone = 0;
        while let Some(front) = self.rest.front() {
            let length = front.len();
            let taken = self.write(front)?;
            gone += taken;
            if taken < length {
                self.rest[0].advance(taken);
                break;
            }
            self.rest.pop_front();
        }
        Ok(gone)
    }

    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        self.rest.iter().map(Bytes::len).sum()
    }

    /// How many bytes the socket took.
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match (&self.stream).write(bytes) {
                Ok(taken) => return Ok(taken),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                Err(error) => return Err(error),
            }
        }
    }
}
