//! One WebSocket's bytes: what waits goes out in few writes, what comes in is bounded and ignored.
//!
//! All that goes out passes through the outbox, which writes it: mostly from the matcher's thread,
//! while this task sleeps. The task is for what the socket did not take, and for the rest of the
//! protocol. tungstenite reads what a client sends and answers its pings; those answers, pings of
//! our own and the close are put between the outbox's frames, never into one.

mod inbound;

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper_tungstenite::tungstenite::error::ProtocolError;
use hyper_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use hyper_tungstenite::tungstenite::{Error, Message};
use tokio::time::{Instant, Sleep};

use inbound::{Inbound, PONG_BYTES, Pipe};

use super::clients::Connection;
use super::io::Io;
use crate::limits::Limits;
use crate::live::outbox::Wrote;
use crate::live::{Close, Outbox, Subscription, frame};

/// Bytes read at once. Only who has something to read has a buffer for it.
const READ_BYTES: usize = 4 << 10;
/// What is read and thrown away of a client that broke the protocol, so that it gets to read why.
const DISCARD_BYTES: usize = 1 << 20;
/// Pings in a row that a client may leave unanswered.
const MISSED_PINGS: u32 = 2;
/// A control frame from a client: header and mask.
const CONTROL_HEAD: usize = 6;

pub(super) struct Wire {
    /// Shared with the outbox, which writes by itself what the socket takes at once.
    io: Arc<Io>,
    outbox: Arc<Outbox>,
    /// `None` once nothing more is sent of it: who takes nothing is matched for no longer, though
    /// its connection may last for a while.
    subscription: Option<Subscription>,
    limits: Arc<Limits>,
    /// `None` while nothing comes: an idle connection holds no buffer.
    reader: Option<Box<WebSocketContext>>,
    inbound: Inbound,
    phase: Phase,
    /// The socket took no more at the last try.
    blocked: bool,
    /// Since when, if it did not.
    blocked_since: Instant,
    next_ping: Instant,
    missed_pings: u32,
    timer: Pin<Box<Sleep>>,
    /// Counted as open until the wire ends.
    _connection: Arc<Connection>,
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

impl Wire {
    /// `read` is what the handshake read too much.
    pub(super) fn new(
        io: Io,
        read: Vec<u8>,
        connection: Arc<Connection>,
        (outbox, subscription): (Arc<Outbox>, Option<Subscription>),
        limits: Arc<Limits>,
    ) -> Self {
        let now = Instant::now();
        let inbound = Inbound::new(read.len(), now);
        let io = Arc::new(io);
        outbox.attach(io.clone());
        Wire {
            reader: (!read.is_empty()).then(|| reader(read, &limits)),
            io,
            outbox,
            subscription,
            inbound,
            phase: Phase::Open,
            blocked: false,
            blocked_since: now,
            next_ping: now + limits.ping_every,
            missed_pings: 0,
            timer: Box::pin(tokio::time::sleep(limits.ping_every)),
            limits,
            _connection: connection,
        }
    }

    /// Lives until the connection ends, in whichever way.
    pub(super) async fn run(mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
        self.io.shutdown();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.poll_read(cx).is_ready() || self.poll_write(cx).is_ready() {
                return Poll::Ready(());
            }
            if self.inbound.is_done() {
                self.reader = None;
            }
            match self.poll_timer(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(true) => return Poll::Ready(()),
                Poll::Ready(false) => {}
            }
        }
    }

    /// Writes what is left for the task to write; ready when the connection has ended.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.take_answers();
            let written = self.outbox.write(cx, |bytes| self.io.try_write(bytes));
            let Ok((wrote, moved)) = written else { return Poll::Ready(()) };
            if moved && self.blocked {
                // Its side took what filled the pipe: somebody is there.
                self.missed_pings = 0;
            }
            let was_blocked = std::mem::replace(&mut self.blocked, wrote == Wrote::Blocked);
            if self.blocked && (moved || !was_blocked) {
                self.blocked_since = Instant::now();
            }
            match wrote {
                Wrote::All if !self.inbound.answers.is_empty() => {}
                Wrote::All => return self.all_out(),
                Wrote::More => {
                    // Comes again after the loop has looked at its sockets.
                    let _ = pin!(tokio::task::yield_now()).poll(cx);
                    return Poll::Pending;
                }
                Wrote::Blocked => match ready!(self.io.poll_write_ready(cx)) {
                    Ok(()) => {}
                    Err(_) => return Poll::Ready(()),
                },
                Wrote::End(close) => self.close(&close),
            }
        }
    }

    /// Nothing is left to write.
    fn all_out(&mut self) -> Poll<()> {
        match &mut self.phase {
            // Our part is out: now the client has the time of a handshake.
            Phase::Closing(until) => {
                *until = (*until).min(Instant::now() + self.limits.close_time);
                Poll::Pending
            }
            Phase::Closed(_) => Poll::Ready(()),
            // A client that waits for the end of the stream gets it at once.
            Phase::Failing(..) => {
                self.io.shutdown();
                Poll::Pending
            }
            Phase::Open => Poll::Pending,
        }
    }

    /// Has tungstenite's frames go out next. While some still wait for a socket that takes
    /// nothing, the others do here, where they are few.
    fn take_answers(&mut self) {
        if self.inbound.answers.is_empty() || self.outbox.has_control() {
            return;
        }
        let answers = std::mem::take(&mut self.inbound.answers);
        if self.phase == Phase::Open {
            self.outbox.put_control(Bytes::from(answers).into());
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
            let Some(reader) = &mut self.reader else {
                if ready!(self.poll_first(cx)) {
                    continue;
                }
                return Poll::Ready(());
            };
            let mut pipe = Pipe {
                io: &self.io,
                cx,
                inbound: &mut self.inbound,
                most: self.limits.message_bytes * 4 + READ_BYTES,
                came: false,
            };
            let message = reader.read(&mut pipe);
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

    /// Something has come to a connection that was idle; `false` if that is its end.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        // Asked first: mostly there is nothing, and no need of room for it.
        if ready!(self.io.poll_read_ready(cx)).is_err() {
            return Poll::Ready(false);
        }
        let mut bytes = [0; READ_BYTES];
        let Ok(read @ 1..) = ready!(self.io.poll_read(cx, &mut bytes)) else {
            return Poll::Ready(false);
        };
        self.inbound.unfinished += read;
        self.missed_pings = 0;
        self.reader = Some(reader(bytes[..read].to_vec(), &self.limits));
        Poll::Ready(true)
    }

    fn read_message(&mut self, message: Message) {
        match message {
            Message::Close(frame) => return self.closed_by_client(frame.map(|f| f.code.into())),
            Message::Ping(payload) | Message::Pong(payload) => {
                let length = payload.len() + CONTROL_HEAD;
                self.inbound.unfinished = self.inbound.unfinished.saturating_sub(length);
            }
            _ => {
                // Perhaps the next one has begun in the same read.
                self.inbound.exact = false;
                self.inbound.unfinished = 0;
            }
        }
        if self.inbound.unfinished == 0 {
            // It may be a while until the next read finds that out.
            self.inbound.since = None;
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

    fn deadline(&self) -> Instant {
        Instant::now() + self.limits.close_time
    }

    fn close(&mut self, close: &Close) {
        self.subscription = None;
        self.outbox.put_last(frame::close(close).into());
        self.phase = Phase::Closing(Instant::now() + self.limits.write_time);
    }

    fn fail(&mut self, close: &Close) {
        self.subscription = None;
        if self.phase == Phase::Open {
            self.outbox.forget();
            self.outbox.put_last(frame::close(close).into());
        }
        self.phase = Phase::Failing(self.deadline(), DISCARD_BYTES);
    }

    /// Answers with the client's own code and no reason, or has its answer.
    fn closed_by_client(&mut self, code: Option<u16>) {
        self.subscription = None;
        if self.phase == Phase::Open {
            self.outbox.forget();
            let answer = code.map(|code| frame::close(&Close::new(code, "")));
            self.outbox.put_last(answer.unwrap_or_else(frame::bare_close).into());
        }
        self.phase = Phase::Closed(self.deadline());
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; READ_BYTES];
        loop {
            let Ok(read) = ready!(self.io.poll_read(cx, &mut bytes)) else {
                return Poll::Ready(());
            };
            let Phase::Failing(_, left) = &mut self.phase else { return Poll::Pending };
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
                self.outbox.put_control(frame::ping().into());
            }
        }
        false
    }
}

/// tungstenite's side of a connection of which `read` was read already.
fn reader(read: Vec<u8>, limits: &Limits) -> Box<WebSocketContext> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(PONG_BYTES)
        .max_message_size(Some(limits.message_bytes))
        .max_frame_size(Some(limits.message_bytes));
    Box::new(WebSocketContext::from_partially_read(read, Role::Server, Some(config)))
}

impl Drop for Wire {
    /// The socket closes with its last holder: the outbox may live on for a while.
    fn drop(&mut self) {
        self.outbox.detach();
    }
}
