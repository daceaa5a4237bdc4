//! One WebSocket's bytes: what waits goes out in few writes, what comes in is bounded and ignored.
//!
//! tungstenite reads what a client sends and answers its pings; frames of the outbox are whole
//! already (header included) and go to the socket as they are, so a subscriber costs no copy.
//! What tungstenite has to say is put between them, never into one.

mod inbound;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper_tungstenite::tungstenite::error::ProtocolError;
use hyper_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use hyper_tungstenite::tungstenite::{Error, Message};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use inbound::{Inbound, PONG_BYTES, Pipe};

use crate::limits::Limits;
use crate::live::outbox::TOO_SLOW;
use crate::live::{Close, Frame, Outbox, frame};
use crate::model::cursor::Cursor;

/// Bytes read at once, and kept for every idle connection.
const READ_BYTES: usize = 4 << 10;
/// Frames and bytes taken from the outbox at once: enough to fill a socket's buffer.
const BATCH_FRAMES: usize = 64;
const BATCH_BYTES: usize = 256 << 10;
/// What is read and thrown away of a client that broke the protocol, so that it gets to read why.
const DISCARD_BYTES: usize = 1 << 20;
/// Pings in a row that a client may leave unanswered.
const MISSED_PINGS: u32 = 2;
/// A control frame from a client: header and mask.
const CONTROL_HEAD: usize = 6;

pub(super) struct Wire<S> {
    io: S,
    outbox: Arc<Outbox>,
    limits: Arc<Limits>,
    reader: WebSocketContext,
    inbound: Inbound,
    /// Whole frames to write; the first may be partly written already.
    out: VecDeque<Frame>,
    first_begun: bool,
    unflushed: bool,
    phase: Phase,
    /// The last cursor of a frame that the socket took.
    cursor: Option<Cursor>,
    /// The socket took no more at the last try.
    blocked: bool,
    /// Since when, if it did not.
    blocked_since: Instant,
    next_ping: Instant,
    missed_pings: u32,
    timer: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Our close is on its way or out; the client's is awaited until then.
    Closing(Instant),
    /// The client broke the protocol: our close is on its way; what comes is thrown away until
    /// then.
    Failing(Instant, usize),
    /// Both sides have closed: what is left goes out.
    Closed(Instant),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// `read` is what the handshake read too much.
    pub(super) fn new(io: S, read: &[u8], outbox: Arc<Outbox>, limits: Arc<Limits>) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(PONG_BYTES)
            .max_message_size(Some(limits.message_bytes))
            .max_frame_size(Some(limits.message_bytes));
        let now = Instant::now();
        Wire {
            reader: WebSocketContext::from_partially_read(
                read.to_vec(),
                Role::Server,
                Some(config),
            ),
            io,
            outbox,
            inbound: Inbound::new(read.len(), now),
            out: VecDeque::new(),
            first_begun: false,
            unflushed: false,
            phase: Phase::Open,
            cursor: None,
            blocked: false,
            blocked_since: now,
            next_ping: now + limits.ping_every,
            missed_pings: 0,
            timer: Box::pin(tokio::time::sleep(limits.ping_every)),
            limits,
        }
    }

    /// Lives until the connection ends, in whichever way.
    pub(super) async fn run(mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
        // Says that nothing follows; a client that is gone need not hear it.
        let end = std::future::poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx));
        let _ = tokio::time::timeout(Duration::from_secs(1), end).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.poll_read(cx).is_ready() || self.poll_write(cx).is_ready() {
                return Poll::Ready(());
            }
            match self.poll_timer(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(true) => return Poll::Ready(()),
                Poll::Ready(false) => {}
            }
        }
    }

    /// Ready when the connection has ended.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.take_answers();
            if self.phase == Phase::Open && self.out.len() < BATCH_FRAMES {
                let taken = self.outbox.poll_take(cx, &mut self.out, BATCH_FRAMES, BATCH_BYTES);
                if let Poll::Ready(Some(close)) = taken {
                    self.close(&close);
                }
            }
            if self.out.is_empty() {
                return self.poll_flush(cx);
            }
            let mut slices = [IoSlice::new(&[]); BATCH_FRAMES];
            let filled = self.out.iter().zip(&mut slices).map(|(frame, slice)| {
                *slice = IoSlice::new(&frame.bytes);
            });
            let filled = filled.count();
            match Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..filled]) {
                Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(written)) => self.wrote(written),
                Poll::Pending => {
                    if !self.blocked {
                        (self.blocked, self.blocked_since) = (true, Instant::now());
                    }
                    self.look_for_overflow();
                    return Poll::Pending;
                }
            }
        }
    }

    /// A reader that was too slow is told at the next chance, not after what it has no use for.
    fn look_for_overflow(&mut self) {
        if self.phase == Phase::Open
            && let Some(close) = self.outbox.ended()
        {
            self.drop_waiting();
            self.close(&close);
        }
    }

    fn wrote(&mut self, mut bytes: usize) {
        if self.blocked {
            // Its side took what filled the pipe: somebody is there.
            self.missed_pings = 0;
        }
        self.blocked = false;
        self.unflushed = true;
        while let Some(first) = self.out.front_mut() {
            if bytes < first.bytes.len() {
                first.bytes.advance(bytes);
                self.first_begun |= bytes > 0;
                return;
            }
            bytes -= first.bytes.len();
            self.cursor = first.cursor().or(self.cursor);
            self.out.pop_front();
            self.first_begun = false;
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unflushed {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        match &mut self.phase {
            // Our part is out: now the client has the time of a handshake.
            Phase::Closing(until) => {
                *until = (*until).min(Instant::now() + self.limits.close_time);
                Poll::Pending
            }
            Phase::Closed(_) => Poll::Ready(()),
            // A client that waits for the end of the stream gets it at once.
            Phase::Failing(..) => match Pin::new(&mut self.io).poll_shutdown(cx) {
                Poll::Ready(Err(_)) => Poll::Ready(()),
                _ => Poll::Pending,
            },
            Phase::Open => Poll::Pending,
        }
    }

    /// Moves tungstenite's frames in front, but not into a frame that has begun.
    fn take_answers(&mut self) {
        if self.inbound.answers.is_empty() {
            return;
        }
        let answers = std::mem::take(&mut self.inbound.answers);
        if self.phase == Phase::Open {
            self.out.insert(usize::from(self.first_begun), Bytes::from(answers).into());
        }
    }

    /// Reads and ignores; ready when the connection has ended.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.phase {
                Phase::Closed(_) => return Poll::Pending,
                Phase::Failing(..) => return self.poll_discard(cx),
                Phase::Open | Phase::Closing(_) => {}
            }
            if self.inbound.paused.is_some() {
                return Poll::Pending;
            }
            let mut pipe = Pipe {
                io: &mut self.io,
                cx,
                inbound: &mut self.inbound,
                most: self.limits.message_bytes * 4 + READ_BYTES,
                came: false,
            };
            let message = self.reader.read(&mut pipe);
            if pipe.came {
                self.missed_pings = 0;
            }
            match message {
                Ok(message) => self.read_message(message),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    let open = self.inbound.unfinished > 0;
                    self.inbound.since =
                        open.then(|| self.inbound.since.unwrap_or_else(Instant::now));
                    return Poll::Pending;
                }
                Err(error) => match self.fault(&error) {
                    Some(close) => self.fail(&close),
                    None => return Poll::Ready(()),
                },
            }
        }
    }

    fn read_message(&mut self, message: Message) {
        match message {
            Message::Close(frame) => return self.closed_by_client(frame.map(|f| f.code.into())),
            Message::Ping(payload) | Message::Pong(payload) => {
                let length = payload.len() + CONTROL_HEAD;
                self.inbound.unfinished = self.inbound.unfinished.saturating_sub(length);
            }
            _ => self.inbound.unfinished = 0,
        }
        let now = Instant::now();
        let second = Duration::from_secs(1);
        if now >= self.inbound.second + second {
            (self.inbound.second, self.inbound.messages) = (now, 0);
        }
        self.inbound.messages += 1;
        if self.inbound.messages >= self.limits.messages_per_second {
            self.inbound.paused = Some(self.inbound.second + second);
        }
    }

    /// What a read error means for the client; `None` if there is none to tell.
    fn fault(&self, error: &Error) -> Option<Close> {
        let (code, reason) = match error {
            Error::Io(_) if self.inbound.too_long => {
                (1009, format!("a message may have {} bytes", self.limits.message_bytes))
            }
            Error::Capacity(_) => {
                (1009, format!("a message may have {} bytes", self.limits.message_bytes))
            }
            Error::Utf8(_) => (1007, "text must be UTF-8".into()),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return None,
            Error::Protocol(error) => (1002, error.to_string()),
            _ => return None,
        };
        Some(Close::new(code, reason))
    }

    /// Takes back what has not begun to go out.
    fn drop_waiting(&mut self) {
        self.out.truncate(usize::from(self.first_begun));
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.limits.close_time
    }

    fn close(&mut self, close: &Close) {
        let before = self.out.iter().rev().find_map(Frame::cursor);
        let cursor = before.or(self.cursor).or_else(|| self.outbox.since());
        let close = match cursor {
            Some(cursor) if close.code == TOO_SLOW => &close.resume_from(cursor),
            _ => close,
        };
        self.out.push_back(frame::close(close).into());
        self.phase = Phase::Closing(Instant::now() + self.limits.write_time);
    }

    fn fail(&mut self, close: &Close) {
        if self.phase == Phase::Open {
            self.drop_waiting();
            self.out.push_back(frame::close(close).into());
        }
        self.phase = Phase::Failing(self.deadline(), DISCARD_BYTES);
    }

    /// Answers with the client's own code and no reason, or has its answer.
    fn closed_by_client(&mut self, code: Option<u16>) {
        if self.phase == Phase::Open {
            self.drop_waiting();
            self.out.push_back(match code {
                Some(code) => frame::close(&Close::new(code, "")).into(),
                None => frame::bare_close().into(),
            });
        }
        self.phase = Phase::Closed(self.deadline());
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; READ_BYTES];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {}
            }
            let Phase::Failing(_, left) = &mut self.phase else { return Poll::Pending };
            let read = buffer.filled().len();
            if read == 0 || read > *left {
                return Poll::Ready(());
            }
            *left -= read;
        }
    }

    /// Ready with `true` when time is up, with `false` when something is to be done.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let unfinished = self.limits.body_time;
        let mut next = self.next_ping;
        let deadlines = [
            self.blocked.then(|| self.blocked_since + self.limits.write_time),
            self.inbound.paused,
            self.inbound.since.map(|since| since + unfinished),
            match self.phase {
                Phase::Open => None,
                Phase::Closing(until) | Phase::Failing(until, _) | Phase::Closed(until) => {
                    Some(until)
                }
            },
        ];
        for deadline in deadlines.into_iter().flatten() {
            next = next.min(deadline);
        }
        if self.timer.deadline() != next {
            self.timer.as_mut().reset(next);
        }
        std::task::ready!(self.timer.as_mut().poll(cx));
        Poll::Ready(self.time_is_up(Instant::now()))
    }

    fn time_is_up(&mut self, now: Instant) -> bool {
        if self.blocked && now >= self.blocked_since + self.limits.write_time {
            tracing::info!("a client that takes nothing is ended");
            return true;
        }
        match self.phase {
            Phase::Closing(until) | Phase::Failing(until, _) | Phase::Closed(until)
                if now >= until =>
            {
                return true;
            }
            _ => {}
        }
        if self.inbound.paused.is_some_and(|until| now >= until) {
            self.inbound.paused = None;
        }
        if self.inbound.since.is_some_and(|since| now >= since + self.limits.body_time) {
            self.inbound.since = None;
            self.fail(&Close::new(1008, "a message was begun and not finished in time"));
        }
        if now >= self.next_ping {
            self.next_ping = now + self.limits.ping_every;
            if self.missed_pings >= MISSED_PINGS {
                tracing::debug!("a client that answers no ping is ended");
                return true;
            }
            if self.phase == Phase::Open && !self.blocked {
                self.missed_pings += 1;
                self.out.push_back(frame::ping().into());
            }
        }
        false
    }
}
