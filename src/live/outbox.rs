//! A connection's bounded queue of frames.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::limits::Limits;
use crate::model::cursor::Cursor;

/// In the place of the commit that found the outbox empty, while only a frame of none waits.
const IDLE: u64 = u64::MAX;

/// How a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    /// Cut to 123 bytes when sent.
    pub reason: Arc<str>,
}

impl Close {
    pub fn new(code: u16, reason: impl Into<Arc<str>>) -> Self {
        Close { code, reason: reason.into() }
    }

    /// For a reader that was too slow: the same, with where to go on.
    pub fn resume_from(&self, cursor: Cursor) -> Self {
        Close::new(self.code, format!("{}; resume from {cursor}", self.reason))
    }
}

/// The code of a close whose reason names the cursor to resume from, where there are cursors.
pub const TOO_SLOW: u16 = 4408;

/// Bytes for the wire, and what a client that has read them may resume from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Finished, framing included; shared by all who get them.
    pub bytes: Bytes,
    /// The cursor that the frame carries: it ends a commit, or tells a position.
    ///
    /// Behind a pointer, as most frames have none and each stands in a thousand queues.
    cursor: Option<Arc<Cursor>>,
}

impl Frame {
    /// A frame that carries this cursor.
    pub fn new(bytes: Bytes, cursor: Option<Cursor>) -> Self {
        Frame { bytes, cursor: cursor.map(Arc::new) }
    }

    /// The cursor that it carries.
    pub fn cursor(&self) -> Option<Cursor> {
        self.cursor.as_deref().copied()
    }
}

impl From<Bytes> for Frame {
    /// A frame without a cursor.
    fn from(bytes: Bytes) -> Self {
        Frame { bytes, cursor: None }
    }
}

/// What became of offered frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    Taken,
    /// They did not fit: the outbox ends here, with its overflow close.
    Overflowed,
    /// The outbox had ended before.
    Ended,
}

/// What became of frames that may wait (see [`Outbox::feed`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    Taken,
    /// They do not fit now: nothing was taken.
    Full,
    Ended,
}

/// Frames that a drained outbox keeps room for: after a replay or a burst the rest is given back,
/// as ten thousand idle outboxes would hold hundreds of megabytes.
const KEPT_FRAMES: usize = 32;

/// Filled by the matcher, drained by the connection's own task. Neither waits for the other
/// longer than it takes to move a few pointers.
///
/// An empty outbox takes one commit of any size; the bounds hold for what queues up behind it.
/// So a reader that keeps up is never closed for the size of a bulk write, and memory stays
/// bounded by one commit (whose bytes all its readers share) and the bounds.
#[derive(Debug)]
pub struct Outbox {
    max_frames: usize,
    max_bytes: usize,
    overflow: Close,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Frame>,
    /// Bytes in `queue`.
    bytes: usize,
    /// The commit that found the outbox empty, and how much of `queue`'s head is still its.
    free_position: u64,
    free_frames: usize,
    free_bytes: usize,
    end: Option<Close>,
    waker: Option<Waker>,
    /// Who waits for room.
    feeder: Option<Waker>,
    /// What the client holds already, before any frame.
    since: Option<Cursor>,
    /// All that is told up to here has been put in.
    passed: Option<Cursor>,
    /// The rest comes as it commits.
    active: bool,
}

impl Outbox {
    /// `overflow`: how a reader too slow for its bounds is told.
    pub fn new(limits: &Limits, overflow: Close) -> Arc<Self> {
        Arc::new(Outbox {
            max_frames: limits.outbox_frames,
            max_bytes: limits.outbox_bytes,
            overflow,
            state: Mutex::default(),
        })
    }

    /// One without bounds, for whoever takes what is told before telling more (see
    /// [`Outbox::take_all`]).
    pub fn collector() -> Arc<Self> {
        Arc::new(Outbox {
            max_frames: usize::MAX,
            max_bytes: usize::MAX,
            overflow: Close::new(1011, ""),
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues the frames of the commit at `position` and wakes the connection's task; never waits
    /// for it. All are taken, or none.
    pub fn offer(&self, position: u64, frames: &[Frame]) -> Offer {
        let state = self.lock();
        match self.put(state, position, frames) {
            Ok(taken) => {
                if taken == Feed::Ended {
                    Offer::Ended
                } else {
                    Offer::Taken
                }
            }
            Err(mut state) => {
                // What was queued would come too late to be of use: the reader has to start anew.
                state.queue = VecDeque::new();
                (state.bytes, state.free_frames, state.free_bytes) = (0, 0, 0);
                state.end = Some(self.overflow.clone());
                wake(state);
                Offer::Overflowed
            }
        }
    }

    /// As [`Outbox::offer`], but where the frames do not fit nothing happens: whoever feeds at the
    /// client's pace awaits [`Outbox::room`] and comes again.
    pub fn feed(&self, position: u64, frames: &[Frame]) -> Feed {
        let state = self.lock();
        self.put(state, position, frames).unwrap_or(Feed::Full)
    }

    /// Gives the state back where the frames do not fit.
    fn put<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        position: u64,
        frames: &[Frame],
    ) -> Result<Feed, MutexGuard<'a, State>> {
        if state.end.is_some() {
            return Ok(Feed::Ended);
        }
        let bytes: usize = frames.iter().map(|frame| frame.bytes.len()).sum();
        if state.queue.is_empty() {
            (state.free_frames, state.free_bytes) = (0, 0);
            state.free_position = position;
        } else if state.free_position == IDLE {
            state.free_position = position;
        }
        if state.free_position == position {
            state.free_frames += frames.len();
            state.free_bytes += bytes;
        } else if state.queue.len() - state.free_frames + frames.len() > self.max_frames
            || state.bytes - state.free_bytes + bytes > self.max_bytes
        {
            return Err(state);
        }
        state.bytes += bytes;
        state.queue.extend(frames.iter().cloned());
        wake(state);
        Ok(Feed::Taken)
    }

    /// Resolves when no more than half of what may wait does and so many frames of so many bytes fit, or when the
    /// outbox has ended. For one task at a time.
    pub async fn room(&self, frames: usize, bytes: usize) {
        std::future::poll_fn(|cx| {
            let mut state = self.lock();
            let fits = state.queue.len() - state.free_frames + frames <= self.max_frames
                && state.bytes - state.free_bytes + bytes <= self.max_bytes;
            let room = state.queue.is_empty() || (self.has_room(&state) && fits);
            if room || state.end.is_some() {
                return Poll::Ready(());
            }
            match &mut state.feeder {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
        .await;
    }

    fn has_room(&self, state: &State) -> bool {
        state.queue.len() <= self.max_frames / 2 && state.bytes <= self.max_bytes / 2
    }

    /// What the client holds before it is sent anything.
    pub fn set_since(&self, cursor: Cursor) {
        self.lock().since = Some(cursor);
    }

    /// See [`Outbox::set_since`].
    pub fn since(&self) -> Option<Cursor> {
        self.lock().since
    }

    /// Says that all that is told up to this place has been put in. Wakes nobody.
    pub fn set_passed(&self, cursor: Cursor) {
        self.lock().passed = Some(cursor);
    }

    /// [`Outbox::set_passed`], and that the subscription is active from there on.
    pub fn set_active(&self, cursor: Cursor) {
        let mut state = self.lock();
        (state.passed, state.active) = (Some(cursor), true);
        wake(state);
    }

    /// How far the log has been put in, where that was said, and whether the subscription is
    /// active. With cursors only.
    pub fn progress(&self) -> (Option<Cursor>, bool) {
        let state = self.lock();
        (state.passed, state.active)
    }

    /// Queues a frame that belongs to no commit, if nothing else waits; whether it did. The next
    /// commit finds the outbox as empty as before.
    pub fn offer_idle(&self, frame: &Frame) -> bool {
        let mut state = self.lock();
        if state.end.is_some() || !state.queue.is_empty() {
            return false;
        }
        state.free_position = IDLE;
        (state.free_frames, state.free_bytes) = (1, frame.bytes.len());
        state.bytes = frame.bytes.len();
        state.queue.push_back(frame.clone());
        wake(state);
        true
    }

    /// Ends the outbox once what waits is drained. The first end counts.
    pub fn close(&self, close: Close) {
        let mut state = self.lock();
        if state.end.is_none() {
            state.end = Some(close);
            wake(state);
        }
    }

    /// Moves frames to `out` until that holds `frames` frames or `bytes` bytes. Ready with `None`
    /// if any were moved, with the end once all were; pending, and the task told later, if
    /// nothing waits.
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
            let Some(frame) = state.queue.pop_front() else { break };
            moved += frame.bytes.len();
            if state.free_frames > 0 {
                state.free_frames -= 1;
                state.free_bytes -= frame.bytes.len();
            }
            out.push_back(frame);
        }
        state.bytes -= moved;
        if state.queue.is_empty() && state.queue.capacity() > KEPT_FRAMES {
            state.queue = VecDeque::new();
        }
        if out.len() > before {
            if self.has_room(&state)
                && let Some(feeder) = state.feeder.take()
            {
                drop(state);
                feeder.wake();
            }
            return Poll::Ready(None);
        }
        if state.queue.is_empty()
            && let Some(end) = &state.end
        {
            return Poll::Ready(Some(end.clone()));
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Takes everything that waits.
    pub fn take_all(&self) -> Vec<Frame> {
        let mut state = self.lock();
        (state.bytes, state.free_frames, state.free_bytes) = (0, 0, 0);
        state.queue.drain(..).collect()
    }

    /// Whether a close is all that is left.
    pub fn ended(&self) -> Option<Close> {
        let state = self.lock();
        state.end.clone().filter(|_| state.queue.is_empty())
    }

    /// Frames and bytes that wait.
    pub fn waiting(&self) -> (usize, usize) {
        let state = self.lock();
        (state.queue.len(), state.bytes)
    }
}

/// Wakes outside the lock, once per time the task went to sleep; at the end also who feeds.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    let feeder = state.end.is_some().then(|| state.feeder.take()).flatten();
    drop(state);
    for waker in [waker, feeder].into_iter().flatten() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future as _;

    fn outbox(frames: usize, bytes: usize) -> Arc<Outbox> {
        let limits = Limits { outbox_frames: frames, outbox_bytes: bytes, ..Limits::default() };
        Outbox::new(&limits, Close::new(4408, "slow"))
    }

    fn take(outbox: &Outbox, frames: usize) -> (usize, Poll<Option<Close>>) {
        let mut out = VecDeque::new();
        let mut cx = Context::from_waker(Waker::noop());
        let polled = outbox.poll_take(&mut cx, &mut out, frames, usize::MAX);
        (out.len(), polled)
    }

    fn frames(n: usize) -> Vec<Frame> {
        vec![Bytes::from_static(b"0123456789").into(); n]
    }

    #[test]
    fn an_empty_outbox_takes_one_commit_of_any_size() {
        let outbox = outbox(2, 1 << 20);
        assert_eq!(outbox.offer(1, &frames(10)), Offer::Taken);
        assert_eq!(outbox.offer(1, &frames(10)), Offer::Taken, "the same commit");
        assert_eq!(outbox.offer(2, &frames(2)), Offer::Taken, "the bounds begin behind it");
        assert_eq!(take(&outbox, 15).0, 15);
        assert_eq!(outbox.offer(3, &frames(1)), Offer::Overflowed);
        assert_eq!(take(&outbox, 99), (0, Poll::Ready(Some(Close::new(4408, "slow")))));
        assert_eq!(outbox.offer(4, &frames(1)), Offer::Ended);
    }

    #[test]
    fn a_frame_of_no_commit_comes_alone_and_takes_no_room() {
        let outbox = outbox(2, 1 << 20);
        assert!(outbox.offer_idle(&frames(1)[0]));
        assert!(!outbox.offer_idle(&frames(1)[0]), "one waits");
        assert_eq!(outbox.offer(1, &frames(10)), Offer::Taken, "as if it were empty");
        assert_eq!(outbox.offer(2, &frames(2)), Offer::Taken);
        assert_eq!(outbox.offer(3, &frames(1)), Offer::Overflowed);
        assert!(!outbox.offer_idle(&frames(1)[0]), "it has ended");
    }

    #[test]
    fn bytes_are_bounded_too() {
        let outbox = outbox(100, 25);
        assert_eq!(outbox.offer(1, &frames(5)), Offer::Taken);
        assert_eq!(outbox.offer(2, &frames(2)), Offer::Taken);
        assert_eq!(outbox.offer(3, &frames(1)), Offer::Overflowed);
    }

    #[test]
    fn drained_it_is_as_new() {
        let outbox = outbox(1, 10);
        for position in 1..10 {
            assert_eq!(outbox.offer(position, &frames(3)), Offer::Taken);
            assert_eq!(take(&outbox, 99).0, 3);
            assert_eq!(outbox.waiting(), (0, 0));
        }
    }

    #[test]
    fn who_feeds_waits_for_room() {
        let outbox = outbox(4, 1 << 20);
        assert_eq!(outbox.feed(1, &frames(9)), Feed::Taken, "one commit of any size");
        assert_eq!(outbox.feed(2, &frames(3)), Feed::Taken);
        assert_eq!(outbox.feed(3, &frames(2)), Feed::Full);
        assert_eq!(outbox.waiting().0, 12, "nothing was lost");
        let mut cx = Context::from_waker(Waker::noop());
        let two = frames(2);
        let mut room = std::pin::pin!(outbox.room(2, 20));
        for _ in 0..10 {
            assert!(room.as_mut().poll(&mut cx).is_pending());
            assert_eq!(take(&outbox, 1).0, 1);
        }
        assert!(room.as_mut().poll(&mut cx).is_ready());
        assert_eq!(outbox.feed(3, &two), Feed::Taken);
        outbox.close(Close::new(1001, ""));
        assert_eq!(outbox.feed(4, &two), Feed::Ended);
    }

    #[test]
    fn a_close_comes_after_what_waits() {
        let outbox = outbox(9, 999);
        outbox.offer(1, &frames(2));
        outbox.close(Close::new(4401, "first"));
        outbox.close(Close::new(1001, "second"));
        assert_eq!(take(&outbox, 99), (2, Poll::Ready(None)));
        assert_eq!(take(&outbox, 99), (0, Poll::Ready(Some(Close::new(4401, "first")))));
    }

    #[test]
    fn a_sleeping_task_is_woken_once() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let outbox = outbox(9, 999);
        let mut out = VecDeque::new();
        assert!(outbox.poll_take(&mut Context::from_waker(&waker), &mut out, 9, 99).is_pending());
        outbox.offer(1, &frames(1));
        outbox.offer(2, &frames(1));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
}
