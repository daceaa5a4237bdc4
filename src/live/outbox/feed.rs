//! How replays and snapshots fill an outbox: at the client's pace.

use std::task::Poll;

use super::frame::held;
use super::state::{Woken, remember};
use super::{Frame, Outbox, size};

/// What became of frames that may wait (see [`Outbox::feed`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    Taken,
    /// They do not fit now: nothing was taken.
    Full,
    Ended,
}

impl Outbox {
    /// As [`Outbox::offer`], but where the frames do not fit nothing happens: whoever feeds at the
    /// client's pace awaits [`Outbox::room`] and comes again. The connection's task is woken.
    ///
    /// Nor does a commit fit that only an empty outbox takes, while the process holds as many
    /// other frames as it may: each who comes back may have such a one to himself.
    pub fn feed(&self, position: u64, frames: &[Frame]) -> Feed {
        let bytes = size(frames);
        let mut state = self.lock();
        if state.has_ended() {
            return Feed::Ended;
        }
        if self.is_crowded(frames.len(), bytes, bytes)
            || !state.queue.put(position, frames, bytes, self.most)
        {
            return Feed::Full;
        }
        let mut woken = Woken::default();
        if !state.blocked {
            state.wake(&mut woken);
        }
        drop(state);
        woken.wake();
        Feed::Taken
    }

    /// Whether so much has to wait until others hold less; `own` bytes of what there is are its.
    fn is_crowded(&self, frames: usize, bytes: usize, own: usize) -> bool {
        let large = frames > self.most.0 || bytes > self.most.1;
        large && held().saturating_sub(own) > self.most_held
    }

    /// Resolves when no more than half of what may wait does and so many frames of so many bytes
    /// fit, or when the outbox has ended. For one task at a time. Nobody is told when others let go
    /// of frames: who may wait for that looks again now and then.
    pub async fn room(&self, frames: usize, bytes: usize) {
        std::future::poll_fn(|cx| {
            let mut state = self.lock();
            let fits = || state.queue.fits(frames, bytes, self.most);
            let room = state.queue.len() == 0 || (state.has_room(self.most) && fits());
            if room && !self.is_crowded(frames, bytes, 0) || state.has_ended() {
                return Poll::Ready(());
            }
            remember(&mut state.feeder, cx);
            Poll::Pending
        })
        .await;
    }
}
