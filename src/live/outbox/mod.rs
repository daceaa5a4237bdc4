//! A connection's bounded queue of frames, and the one place from which they are written.
//!
//! Whoever has put something in may write it: the matcher does so at once, without waiting, where
//! the outbox has a [`Sink`] that takes it. What a socket does not take stays here, and the
//! connection's own task is woken, which waits for the socket and goes on with the same function.
//! Frames leave in one order whoever writes, as both hold the same lock meanwhile.

mod batch;
mod feed;
mod frame;
mod queue;
mod sink;
mod state;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll};

use crate::limits::Limits;
use crate::model::cursor::Cursor;

pub use batch::{Batch, FEW, flush};
pub use feed::Feed;
pub use frame::{Close, Frame, Framed, TOO_SLOW, held, size};
pub use sink::{Carrier, Sink, Write};
use state::{Socket, State, Told, Woken, remember};

/// Bytes that a connection's task writes before others have their turn: some 50 us. A client that
/// reads as fast as a replay is told could keep its loop for itself.
const PIECE: usize = 64 << 10;

/// What became of offered frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// They are in, and whoever takes them has been told.
    Taken,
    /// They are in, and go out with the next [`Outbox::flush`], which is the caller's to see to.
    /// Said once until then.
    Due,
    /// They did not fit: the outbox ends here, with its overflow close.
    Overflowed,
    /// The outbox had ended before.
    Ended,
}

/// How far a connection's task came with writing (see [`Outbox::write`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrote {
    /// Everything went out. The task is told when there is more.
    All,
    /// The socket took no more: it is the task that waits until it does.
    Blocked,
    /// The socket might take more: the task is to come again, after others had their turn.
    More,
    /// Nothing waits any more, and nothing comes: this is how the connection ends. A frame that
    /// has begun may still be going out.
    End(Close),
}

/// Filled by the matcher, drained by it or by the connection's own task. Neither waits for the
/// other longer than it takes to hand bytes to a socket that takes them at once.
///
/// An empty outbox takes one commit of any size; the bounds hold for what queues up behind it.
/// So a reader that keeps up is never closed for the size of a bulk write, and memory stays
/// bounded by one commit (whose bytes all its readers share) and the bounds. What is made for one
/// reader alone is fed, and bounded for all (see [`Outbox::feed`]).
#[derive(Debug)]
pub struct Outbox {
    most: (usize, usize),
    /// Bytes of all frames of the process beyond which nothing is fed that is larger than `most`.
    most_held: usize,
    overflow: Close,
    state: Mutex<State>,
}

impl Outbox {
    /// `overflow`: how a reader too slow for its bounds is told.
    pub fn new(limits: &Limits, overflow: Close) -> Arc<Self> {
        let most = (limits.outbox_frames, limits.outbox_bytes);
        let most_held = limits.held_bytes();
        Arc::new(Outbox { most, most_held, overflow, state: Mutex::default() })
    }

    /// One without bounds, for whoever takes what is told before telling more (see
    /// [`Outbox::take_all`]).
    pub fn collector() -> Arc<Self> {
        let (most, most_held) = ((usize::MAX, usize::MAX), usize::MAX);
        let overflow = Close::new(1011, "");
        Arc::new(Outbox { most, most_held, overflow, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` while somebody else has it.
    fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Takes the frames of the commit at `position`; all, or none. Where there is a sink they wait
    /// for [`Outbox::flush`], else the connection's task is woken; never waits for it.
    pub fn offer(&self, position: u64, frames: &[Frame]) -> Offer {
        self.offer_sized(position, frames, size(frames))
    }

    /// As [`Outbox::offer`], for who offers the same frames to many: they have `bytes` bytes.
    pub fn offer_sized(&self, position: u64, frames: &[Frame], bytes: usize) -> Offer {
        self.offer_told(self.lock(), &Told { position, frames, bytes })
    }

    fn offer_told(&self, mut state: MutexGuard<'_, State>, told: &Told<'_>) -> Offer {
        if state.has_ended() {
            return Offer::Ended;
        }
        let &Told { position, frames, bytes } = told;
        let mut woken = Woken::default();
        let mut fits = state.queue.put(position, frames, bytes, self.most);
        if !fits && state.socket.is_some() {
            // The frames of a whole round may wait here while the socket would take them.
            state.write_through(self.most, &mut woken);
            fits = state.queue.put(position, frames, bytes, self.most);
        }
        let offer = if !fits {
            state.overflow(&self.overflow, &mut woken);
            Offer::Overflowed
        } else if state.socket.is_none() {
            state.wake(&mut woken);
            Offer::Taken
        } else if state.blocked || std::mem::replace(&mut state.due, true) {
            Offer::Taken
        } else {
            Offer::Due
        };
        drop(state);
        woken.wake();
        offer
    }

    /// As [`Outbox::offer_sized`], but where nothing waits they are written at once: one pass over
    /// the outboxes instead of two for a commit that no other follows.
    pub fn send(&self, position: u64, frames: &[Frame], bytes: usize) -> Offer {
        self.send_told(self.lock(), &Told { position, frames, bytes })
    }

    fn send_told(&self, mut state: MutexGuard<'_, State>, told: &Told<'_>) -> Offer {
        if state.has_ended() {
            return Offer::Ended;
        }
        if !state.takes_new(told) {
            return self.offer_told(state, told);
        }
        let mut woken = Woken::default();
        state.write_new(told, None, &mut woken);
        drop(state);
        woken.wake();
        Offer::Taken
    }

    /// As [`Outbox::send`], for who must not wait: `None`, and nothing is done, where somebody else
    /// is at the outbox, or a reader too slow is to be seen to.
    pub fn send_now(&self, position: u64, frames: &[Frame], bytes: usize) -> Option<Offer> {
        let mut state = self.try_lock()?;
        if state.has_ended() {
            return Some(Offer::Ended);
        }
        let told = Told { position, frames, bytes };
        let mut woken = Woken::default();
        if state.takes_new(&told) {
            state.write_new(&told, None, &mut woken);
        } else {
            let tasks = state.blocked || state.socket.is_none();
            if !tasks || !state.queue.put(position, frames, bytes, self.most) {
                return None;
            }
            if state.socket.is_none() {
                state.wake(&mut woken);
            }
        }
        drop(state);
        woken.wake();
        Some(Offer::Taken)
    }

    /// Writes what waits, as far as the sink takes it at once; its task is woken for the rest.
    pub fn flush(&self) {
        let mut woken = Woken::default();
        self.flush_state(self.lock(), &mut woken);
        woken.wake();
    }

    fn flush_state(&self, mut state: MutexGuard<'_, State>, woken: &mut Woken) {
        state.due = false;
        if state.socket.is_none() {
            state.wake(woken);
        } else if !state.blocked {
            state.write_through(self.most, woken);
        }
    }

    /// What the client holds before it is sent anything.
    pub fn set_since(&self, cursor: Cursor) {
        self.lock().queue.cursor = Some(cursor);
    }

    /// See [`Outbox::set_since`]; where the outbox itself writes, the last cursor that went out.
    pub fn since(&self) -> Option<Cursor> {
        self.lock().queue.cursor
    }

    /// Says that all that is told up to this place has been put in. Wakes nobody.
    pub fn set_passed(&self, cursor: Cursor) {
        self.lock().passed = Some(cursor);
    }

    /// [`Outbox::set_passed`], and that the subscription is active from there on.
    pub fn set_active(&self, cursor: Cursor) {
        let mut state = self.lock();
        (state.passed, state.active) = (Some(cursor), true);
        let mut woken = Woken::default();
        state.wake(&mut woken);
        drop(state);
        woken.wake();
    }

    /// How far the log has been put in, where that was said, and whether the subscription is
    /// active. With cursors only.
    pub fn progress(&self) -> (Option<Cursor>, bool) {
        let state = self.lock();
        (state.passed, state.active)
    }

    /// Sends a frame that belongs to no commit, if nothing else waits; whether it did. The next
    /// commit finds the outbox as empty as before.
    pub fn offer_idle(&self, frame: &Frame) -> bool {
        let mut state = self.lock();
        if state.has_ended() || state.queue.len() > 0 {
            return false;
        }
        state.queue.put_idle(frame.clone());
        let mut woken = Woken::default();
        self.flush_state(state, &mut woken);
        woken.wake();
        true
    }

    /// Bytes of the commit at `position` that wait, where that was the last to be put in; of a
    /// frame that has begun to go out, all. None where the outbox has ended.
    pub fn waiting_of(&self, position: u64) -> usize {
        let state = self.lock();
        if state.has_ended() { 0 } else { state.queue.left_of(position) }
    }

    /// Ends the outbox as if its reader had been too slow for its bounds; `false` where it had
    /// ended.
    pub fn overflow(&self) -> bool {
        let mut state = self.lock();
        if state.has_ended() {
            return false;
        }
        let mut woken = Woken::default();
        state.overflow(&self.overflow, &mut woken);
        drop(state);
        woken.wake();
        true
    }

    /// Ends the outbox once what waits is drained. The first end counts.
    pub fn close(&self, close: Close) {
        let mut state = self.lock();
        if state.has_ended() {
            return;
        }
        state.end = Some(close);
        let mut woken = Woken::default();
        state.wake(&mut woken);
        drop(state);
        woken.wake();
    }

    /// From now on what is offered is written to `sink` at once, where that takes it. For the
    /// connection's task, once the socket is the outbox's alone.
    pub fn attach(&self, sink: Arc<dyn Sink>) {
        let fd = sink.fd();
        self.lock().socket = Some(Socket { sink, fd });
    }

    /// Lets go of the sink, and of everything: nothing is sent any more.
    pub fn detach(&self) {
        let mut state = self.lock();
        let socket = state.socket.take();
        let mut woken = Woken::default();
        state.shut(&mut woken);
        drop(state);
        woken.wake();
        drop(socket);
    }

    /// Sends a frame before all that waits, but for one that has begun. Drops it where nothing
    /// more is sent. It goes out with the task's next [`Outbox::write`].
    pub fn put_control(&self, frame: Frame) {
        let mut state = self.lock();
        if !state.shut {
            state.queue.put_control(frame);
        }
    }

    /// Whether such frames wait.
    pub fn has_control(&self) -> bool {
        self.lock().queue.has_control()
    }

    /// Drops what has not begun to go out.
    pub fn forget(&self) {
        self.lock().queue.forget_all();
    }

    /// Sends this frame, the last one, and takes nothing any more. What waits is dropped.
    pub fn put_last(&self, frame: Frame) {
        let mut state = self.lock();
        if state.shut {
            return;
        }
        state.queue.put_control(frame);
        let mut woken = Woken::default();
        state.shut(&mut woken);
        drop(state);
        woken.wake();
    }

    /// For the connection's task: writes what waits with `write` until all is out, it says
    /// [`io::ErrorKind::WouldBlock`], or others should have their turn. Also says whether any byte
    /// went out since the last time, whoever wrote it. The task is woken when it should come again,
    /// but not when the socket takes more.
    ///
    /// # Errors
    /// The socket's end.
    pub fn write(
        &self,
        cx: &Context<'_>,
        write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<(Wrote, bool)> {
        let mut state = self.lock();
        let mut woken = Woken::default();
        let more = match state.write(self.most, PIECE, &mut woken, write) {
            Ok(more) => more,
            Err(error) => {
                drop(state);
                woken.wake();
                return Err(error);
            }
        };
        remember(&mut state.waker, cx);
        let moved = std::mem::take(&mut state.moved);
        let wrote = match &state.end {
            Some(end) if state.queue.len() == 0 && !state.shut => {
                let cursor = state.queue.cursor_then().filter(|_| end.code == TOO_SLOW);
                Wrote::End(cursor.map_or_else(|| end.clone(), |cursor| end.resume_from(cursor)))
            }
            _ if more => Wrote::More,
            _ if state.blocked => Wrote::Blocked,
            _ => Wrote::All,
        };
        drop(state);
        woken.wake();
        Ok((wrote, moved))
    }

    /// Moves frames to `out` until that holds `frames` frames or `bytes` bytes. Ready with `None`
    /// if any were moved, with the end once all were; pending, and the task told later, if
    /// nothing waits. For connections that are written in another way.
    pub fn poll_take(
        &self,
        cx: &mut Context<'_>,
        out: &mut VecDeque<Frame>,
        frames: usize,
        bytes: usize,
    ) -> Poll<Option<Close>> {
        let mut state = self.lock();
        let mut moved = 0;
        let before = out.len();
        while out.len() < frames && moved < bytes {
            let Some(frame) = state.queue.pop() else { break };
            moved += frame.bytes.len();
            out.push_back(frame);
        }
        if out.len() > before {
            let mut woken = Woken::default();
            state.tell_feeder(self.most, &mut woken);
            drop(state);
            woken.wake();
            return Poll::Ready(None);
        }
        if let Some(end) = &state.end {
            return Poll::Ready(Some(end.clone()));
        }
        remember(&mut state.waker, cx);
        Poll::Pending
    }

    /// Takes everything that waits.
    pub fn take_all(&self) -> Vec<Frame> {
        let mut state = self.lock();
        std::iter::from_fn(|| state.queue.pop()).collect()
    }

    /// Whether a close is all that is left.
    pub fn ended(&self) -> Option<Close> {
        let state = self.lock();
        state.end.clone().filter(|_| state.queue.len() == 0)
    }

    /// Frames and bytes that wait.
    pub fn waiting(&self) -> (usize, usize) {
        self.lock().queue.left()
    }
}
