//! What a client sends, as tungstenite reads it: bounded, and answered at the right moment.

use std::io::{self, Read, Write};
use std::task::{Context, Poll};

use tokio::time::Instant;

use crate::net::io::Io;

/// Answers to pings that may wait for a socket that takes nothing.
pub(super) const PONG_BYTES: usize = 1 << 10;

/// What came in.
pub(super) struct Inbound {
    /// Bytes that belong to no finished message yet.
    pub(super) unfinished: usize,
    /// `unfinished` is just that, and tungstenite holds nothing else: so it is while only control
    /// frames come, which is all that most clients ever send.
    pub(super) exact: bool,
    /// Since when there are such.
    pub(super) since: Option<Instant>,
    pub(super) too_long: bool,
    pub(super) messages: u32,
    /// The second that `messages` counts in.
    pub(super) second: Instant,
    /// No reading before this.
    pub(super) paused: Option<Instant>,
    /// Frames that tungstenite answers with.
    pub(super) answers: Vec<u8>,
}

impl Inbound {
    /// `unfinished` bytes came with the handshake.
    pub(super) fn new(unfinished: usize, now: Instant) -> Self {
        Inbound {
            unfinished,
            exact: true,
            since: None,
            too_long: false,
            messages: 0,
            second: now,
            paused: None,
            answers: Vec::new(),
        }
    }
}

impl Inbound {
    /// Whether everything that came was read and answered, so that nothing is lost with the
    /// reader. One that has to pause may not have said its last answer yet.
    pub(super) fn is_done(&self) -> bool {
        let answered = self.paused.is_none() && self.answers.is_empty();
        self.exact && self.unfinished == 0 && answered
    }
}

/// The socket as tungstenite sees it: reads come from it, writes are kept for the right moment.
pub(super) struct Pipe<'a, 'b> {
    pub(super) io: &'a Io,
    pub(super) cx: &'a mut Context<'b>,
    pub(super) inbound: &'a mut Inbound,
    /// The most bytes that an unfinished message may take, headers of fragments included.
    pub(super) most: usize,
    pub(super) came: bool,
}

impl Read for Pipe<'_, '_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.inbound.unfinished > self.most {
            self.inbound.too_long = true;
            return Err(io::ErrorKind::InvalidData.into());
        }
        match self.io.poll_read(self.cx, bytes) {
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(read)) => {
                self.inbound.unfinished += read;
                self.came |= read > 0;
                Ok(read)
            }
        }
    }
}

impl Write for Pipe<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.inbound.answers.len() + bytes.len() > PONG_BYTES {
            self.inbound.exact = false;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.inbound.answers.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
