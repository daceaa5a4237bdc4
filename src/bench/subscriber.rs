//! One subscriber's connection: from connecting to the frames that come.

use std::io::{self, ErrorKind, Read as _, Write as _};

use mio::net::TcpStream;

use super::check::Order;
use super::ledger::{Ledger, Side};
use super::wire;

/// A connection and who listens on it; without one when it has ended.
pub struct Subscriber {
    pub stream: Option<TcpStream>,
    pub listener: Listener,
}

/// What is known of a subscriber.
pub struct Listener {
    pub side: Side,
    pub class: u32,
    pub order: Order,
    state: State,
    /// The beginning of what has not come whole.
    rest: Vec<u8>,
}

enum State {
    /// With the handshake that is to be sent.
    Connecting(Vec<u8>),
    Upgrading,
    Open,
    /// It has said good-bye.
    Leaving,
}

/// What a turn with a subscriber came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Nothing,
    /// The handshake was answered: it is subscribed from now on.
    Opened,
    /// It said good-bye, and the connection is gone.
    Left,
}

impl Subscriber {
    pub fn new(stream: TcpStream, side: Side, class: u32, request: Vec<u8>) -> Subscriber {
        let (order, rest) = (Order::default(), Vec::new());
        let state = State::Connecting(request);
        Subscriber { stream: Some(stream), listener: Listener { side, class, order, state, rest } }
    }

    /// Says good-bye. `false` where there is no end to wait for, because it is there already.
    pub fn leave(&mut self) -> bool {
        self.listener.state = State::Leaving;
        if let Some(stream) = &mut self.stream {
            // Where it cannot be sent, the connection is about to end anyway.
            let _ = stream.write(&wire::CLOSE);
        }
        self.stream.is_some()
    }

    /// Reads what there is. `clock` gives the time in nanoseconds.
    pub fn turn(
        &mut self,
        writable: bool,
        buffer: &mut [u8],
        ledger: &mut Ledger,
        clock: impl Fn() -> u64,
    ) -> Turn {
        let Subscriber { stream: place, listener } = self;
        let Some(stream) = place else { return Turn::Nothing };
        match listener.go_on(stream, writable, buffer, ledger, clock) {
            Ok(turn) => turn,
            Err(error) => {
                *place = None;
                if matches!(listener.state, State::Leaving) {
                    return Turn::Left;
                }
                ledger.end(listener, error.to_string());
                Turn::Nothing
            }
        }
    }
}

impl Listener {
    fn go_on(
        &mut self,
        stream: &mut TcpStream,
        writable: bool,
        buffer: &mut [u8],
        ledger: &mut Ledger,
        clock: impl Fn() -> u64,
    ) -> io::Result<Turn> {
        if let State::Connecting(request) = &self.state {
            if let Some(error) = stream.take_error()? {
                return Err(error);
            }
            if !writable {
                return Ok(Turn::Nothing);
            }
            stream.set_nodelay(true)?;
            // A fresh socket takes a request whole.
            if stream.write(request)? != request.len() {
                return Err(io::Error::other("the handshake could not be sent"));
            }
            self.state = State::Upgrading;
        }
        let mut turn = Turn::Nothing;
        loop {
            let length = match stream.read(buffer) {
                Ok(0) => return Err(io::Error::other("it ended without a word")),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(turn),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let (now, bytes) = (clock(), &buffer[..length]);
            if self.rest.is_empty() {
                let used = self.take(stream, bytes, ledger, now, &mut turn)?;
                self.rest.extend_from_slice(&bytes[used..]);
            } else {
                let mut whole = std::mem::take(&mut self.rest);
                whole.extend_from_slice(bytes);
                let used = self.take(stream, &whole, ledger, now, &mut turn)?;
                whole.drain(..used);
                // What a burst needed is given back where nothing is left.
                self.rest = if whole.is_empty() { Vec::new() } else { whole };
            }
            // Less than it could have been: nothing more is there.
            if length < buffer.len() {
                return Ok(turn);
            }
        }
    }

    /// Looks at whole frames; gives how many bytes they were.
    fn take(
        &mut self,
        stream: &mut TcpStream,
        bytes: &[u8],
        ledger: &mut Ledger,
        now: u64,
        turn: &mut Turn,
    ) -> io::Result<usize> {
        let mut used = 0;
        if matches!(self.state, State::Upgrading) {
            let Some(answer) = wire::answer(bytes) else { return Ok(0) };
            if answer.status != 101 {
                let body = String::from_utf8_lossy(&bytes[answer.head..]).into_owned();
                return Err(io::Error::other(format!("answered {}: {body}", answer.status)));
            }
            used = answer.head;
            self.state = State::Open;
            *turn = Turn::Opened;
        }
        while let Some(frame) = wire::frame(&bytes[used..]) {
            match frame.opcode {
                0x1 => ledger.frame(self, frame.payload, frame.length, now),
                0x8 => {
                    let (code, reason) = wire::close(frame.payload);
                    return Err(io::Error::other(format!("closed with {code}: {reason}")));
                }
                // Six bytes: a socket that cannot take them has not been read for long.
                0x9 => drop(stream.write(&wire::PONG)?),
                _ => {}
            }
            used += frame.length;
        }
        Ok(used)
    }
}
