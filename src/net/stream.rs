//! One client's byte stream, with the time bounds that hyper does not keep.
//!
//! Bounds while hyper runs the connection: the first byte of a request within the idle time, its
//! head within the head time, and a response taken at a minimal rate; a stream of events may take
//! as long as it likes, as long as the client takes something. After an upgrade the
//! WebSocket keeps its own (see [`Stream::into_parts`]).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::limits::Limits;
use crate::net::clients::Connection;
use crate::net::targets::Targets;

pub use super::io::Io;

/// A client that takes a response slower than this is ended, once it is a stall time behind.
const SLOWEST_BYTES_PER_SECOND: u64 = 4 << 10;

/// What is written at once, and what is written before others have their turn: who reads as fast as
/// we write would hold the event loop as long as the answer is.
const WRITE_BYTES: usize = 256 << 10;
const BURST_BYTES: usize = 1 << 20;

/// Ready when others have had theirs.
struct Turn(Pin<Box<dyn Future<Output = ()> + Send>>);

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Turn")
    }
}

/// Where a connection stands in the exchange of requests and responses; shared by the stream,
/// which sees bytes, and the service, which sees requests.
#[derive(Debug)]
pub struct Phase {
    state: AtomicU8,
    /// When the present state began, or bytes last moved in it.
    since: Mutex<Instant>,
}

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;
const STREAMS: u8 = 3;

impl Phase {
    fn new() -> Arc<Self> {
        // A new connection owes a head at once: connecting and keeping silent is no idling.
        Arc::new(Phase { state: AtomicU8::new(HEAD), since: Mutex::new(Instant::now()) })
    }

    fn enter(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
        self.touch();
    }

    fn touch(&self) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn since(&self) -> Instant {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A whole head was read: the service works.
    pub fn busy(&self) {
        self.enter(BUSY);
    }

    /// The response goes on for as long as the client likes; there is no next request.
    pub fn streams(&self) {
        self.enter(STREAMS);
    }

    /// The response is hyper's to write; the next request may come.
    pub fn idle(&self) {
        self.enter(IDLE);
    }
}

/// A client's byte stream. After an upgrade `hyper::upgrade::Upgraded::downcast` gives it back
/// (inside `hyper_util::rt::TokioIo`).
#[derive(Debug)]
pub struct Stream {
    io: Io,
    /// Counted as open until the stream is dropped.
    connection: Arc<Connection>,
    phase: Arc<Phase>,
    timer: Pin<Box<Sleep>>,
    head_time: Duration,
    idle_time: Duration,
    stall_time: Duration,
    write_time: Duration,
    /// When the write that now waits began to wait, and what went out since.
    stalled: Option<(Instant, u64)>,
    /// Bytes written since others had their turn.
    burst: usize,
    /// Others have it.
    turn: Option<Turn>,
    targets: Targets,
    /// Read and rewritten, but more than the reader had room for.
    spare: Vec<u8>,
}

impl Stream {
    /// A stream whose first request's head is awaited from now on.
    pub fn new(io: Io, connection: Arc<Connection>, limits: &Limits) -> Self {
        Stream {
            io,
            connection,
            phase: Phase::new(),
            timer: Box::pin(tokio::time::sleep(limits.head_time)),
            head_time: limits.head_time,
            idle_time: limits.idle_time,
            stall_time: limits.body_time,
            write_time: limits.write_time,
            stalled: None,
            burst: 0,
            turn: None,
            targets: Targets::default(),
            spare: Vec::new(),
        }
    }

    /// For the service, to tell when it works and when it has answered.
    pub fn phase(&self) -> &Arc<Phase> {
        &self.phase
    }

    /// What counts this stream as open.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The transport itself, what was read of it and not taken, and what counts it as open: keep
    /// that as long as the socket lives.
    pub fn into_parts(self) -> (Io, Vec<u8>, Arc<Connection>) {
        (self.io, self.spare, self.connection)
    }

    /// Ready once `deadline` has passed; wakes the task then.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        loop {
            if self.timer.deadline() != deadline {
                self.timer.as_mut().reset(deadline);
            }
            ready!(self.timer.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
        }
    }

    /// Gives what was read before and did not fit; `false` where there is none.
    fn take_spare(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.spare.is_empty() {
            return false;
        }
        let fits = self.spare.len().min(buf.remaining());
        buf.put_slice(&self.spare[..fits]);
        self.spare.drain(..fits);
        true
    }

    fn read_deadline(&self) -> Option<Instant> {
        match self.phase.state.load(Ordering::Relaxed) {
            HEAD => Some(self.phase.since() + self.head_time),
            IDLE => Some(self.phase.since() + self.idle_time),
            _ => None,
        }
    }

    /// Told of every try to write: how much went out, or that the socket is full.
    fn wrote(&mut self, cx: &mut Context<'_>, written: Option<usize>) -> Poll<io::Error> {
        let streams = self.phase.state.load(Ordering::Relaxed) == STREAMS;
        match written {
            Some(_) if streams => {
                self.stalled = None;
                Poll::Pending
            }
            Some(bytes) => {
                if self.phase.state.load(Ordering::Relaxed) == IDLE {
                    self.phase.touch();
                }
                if let Some((_, out)) = &mut self.stalled {
                    *out += bytes as u64;
                }
                Poll::Pending
            }
            None => {
                let (began, out) = *self.stalled.get_or_insert_with(|| (Instant::now(), 0));
                let patience = match streams {
                    true => self.write_time,
                    false => self.stall_time + Duration::from_secs(out / SLOWEST_BYTES_PER_SECOND),
                };
                ready!(self.poll_deadline(cx, began + patience));
                Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the client does not read"))
            }
        }
    }
}

/// Has the connections of a listener end when what was sent stays unacknowledged for long: an
/// event stream's client that vanished without a word is noticed in no other way.
#[cfg(target_os = "linux")]
pub(super) fn end_when_unheard(listener: &impl AsFd, limits: &Limits) {
    let time = 2 * limits.ping_every + limits.write_time.max(limits.body_time);
    let milliseconds = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    // A system that does not know it goes without.
    let _ = rustix::net::sockopt::set_tcp_user_timeout(listener, milliseconds);
}

#[cfg(not(target_os = "linux"))]
pub(super) fn end_when_unheard(_: &impl AsFd, _: &Limits) {}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.take_spare(buf) {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Io::Unix(io) => Pin::new(io).poll_read(cx, buf),
        };
        if let Some(rewritten) = self.targets.read(&buf.filled()[before..]) {
            buf.set_filled(before);
            self.spare = rewritten;
            self.take_spare(buf);
        }
        match polled {
            Poll::Ready(result) => {
                if self.phase.state.load(Ordering::Relaxed) == IDLE && buf.filled().len() > before {
                    self.phase.enter(HEAD);
                }
                // A head that comes in drops is never pending: its time counts here too.
                if let Some(deadline) = self.read_deadline()
                    && Instant::now() >= deadline
                {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                // While a response waits to go out its own deadline holds the timer.
                if self.stalled.is_none()
                    && let Some(deadline) = self.read_deadline()
                {
                    ready!(self.poll_deadline(cx, deadline));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Pending
            }
        }
    }
}

/// The first [`WRITE_BYTES`] of what are more, and how many parts those are. A short head and a
/// long body mostly.
fn first_of<'a>(bufs: &'a [io::IoSlice<'_>]) -> ([io::IoSlice<'a>; 4], usize) {
    let mut cut = [io::IoSlice::new(&[]); 4];
    let (mut parts, mut left) = (0, WRITE_BYTES);
    for buf in bufs.iter().filter(|buf| !buf.is_empty()) {
        if parts == cut.len() || left == 0 {
            break;
        }
        let some = &buf[..buf.len().min(left)];
        cut[parts] = io::IoSlice::new(some);
        parts += 1;
        left -= some.len();
    }
    (cut, parts)
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.burst >= BURST_BYTES {
            self.burst = 0;
            // Behind what the sockets have to say: waking itself would only let those tasks pass
            // that are ready already.
            self.turn = Some(Turn(Box::pin(tokio::task::yield_now())));
        }
        if let Some(turn) = &mut self.turn {
            ready!(turn.0.as_mut().poll(cx));
            self.turn = None;
        }
        let (cut, parts);
        let bufs = if bufs.iter().map(|buf| buf.len()).sum::<usize>() > WRITE_BYTES {
            (cut, parts) = first_of(bufs);
            &cut[..parts]
        } else {
            bufs
        };
        let polled = match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Io::Unix(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        };
        match polled {
            Poll::Ready(Ok(bytes)) => {
                self.burst += bytes;
                let _ = self.wrote(cx, Some(bytes));
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.burst = 0;
                self.wrote(cx, None).map(Err)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper flushes when a response is out: nothing is stalled then.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stalled = None;
        // A stream's parts are flushed one by one.
        if self.phase.state.load(Ordering::Relaxed) != STREAMS {
            self.burst = 0;
        }
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_flush(cx),
            Io::Unix(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Io::Unix(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;

    #[test]
    fn a_write_is_cut_where_it_grows_long() {
        let (head, body) = (vec![1; 200], vec![2; 3 * WRITE_BYTES]);
        let lengths = |bufs: &[&[u8]]| {
            let bufs: Vec<_> = bufs.iter().map(|buf| IoSlice::new(buf)).collect();
            let (cut, parts) = first_of(&bufs);
            cut[..parts].iter().map(|part| part.len()).collect::<Vec<_>>()
        };
        assert_eq!(lengths(&[&body]), [WRITE_BYTES]);
        assert_eq!(lengths(&[&head, &body]), [200, WRITE_BYTES - 200]);
        assert_eq!(lengths(&[&[], &[], &[], &[], &head, &body, &head]), [200, WRITE_BYTES - 200]);
        assert_eq!(lengths(&[&body[..WRITE_BYTES], &head]), [WRITE_BYTES]);
        let parts = [&head[..]; 9];
        assert_eq!(lengths(&parts), [200; 4]);
    }
}
