//! What an outbox knows, under its lock.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Waker};

use super::queue::{Queue, SLICES};
use super::{Close, Frame, Sink};
use crate::model::cursor::Cursor;

#[derive(Default)]
pub(super) struct State {
    pub(super) queue: Queue,
    pub(super) end: Option<Close>,
    /// Where what was put in may be written at once.
    pub(super) sink: Option<Arc<dyn Sink>>,
    /// Somebody is to flush.
    pub(super) due: bool,
    /// The socket took no more; only its task writes until it has.
    pub(super) blocked: bool,
    /// Bytes went out since the task last asked.
    pub(super) moved: bool,
    /// Nothing more is wanted: what comes is dropped.
    pub(super) shut: bool,
    /// The socket has failed; its task is to hear of it.
    broken: bool,
    /// The rest comes as it commits.
    pub(super) active: bool,
    pub(super) waker: Option<Waker>,
    /// Who waits for room.
    pub(super) feeder: Option<Waker>,
    /// All that is told up to here has been put in.
    pub(super) passed: Option<Cursor>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let State { queue, end, blocked, shut, .. } = self;
        write!(f, "State {{ {:?}, {end:?}, blocked: {blocked}, shut: {shut} }}", queue.left())
    }
}

/// Who is woken once the lock is free.
#[derive(Default)]
pub(super) struct Woken([Option<Waker>; 2]);

impl Woken {
    pub(super) fn wake(self) {
        self.0.into_iter().flatten().for_each(Waker::wake);
    }
}

impl State {
    pub(super) fn has_ended(&self) -> bool {
        self.shut || self.end.is_some()
    }

    pub(super) fn has_room(&self, (frames, bytes): (usize, usize)) -> bool {
        self.queue.len() <= frames / 2 && self.queue.bytes() <= bytes / 2
    }

    /// Writes to the sink; what it does not take, and how the outbox ends, is the task's.
    pub(super) fn write_through(&mut self, most: (usize, usize), woken: &mut Woken) {
        let Some(sink) = self.sink.take() else { return };
        // A broken socket is found out by the task, which has to end.
        let _ = self.write(most, woken, |bytes| sink.try_write_vectored(bytes));
        self.sink = Some(sink);
        if self.blocked || self.has_ended() {
            self.wake(woken);
        }
    }

    /// Writes frames to the sink that nothing waits before; `false` where they have to wait in turn.
    pub(super) fn write_new(
        &mut self,
        position: u64,
        frames: &[Frame],
        bytes: usize,
        woken: &mut Woken,
    ) -> bool {
        let many = frames.len() > SLICES;
        if many || self.blocked || self.broken || !self.queue.is_drained() {
            return false;
        }
        let Some(sink) = &self.sink else { return false };
        let write = |bytes: &[IoSlice<'_>]| sink.try_write_vectored(bytes);
        match self.queue.write_new(position, frames, bytes, write) {
            Ok(moved) => {
                self.moved |= moved;
                self.blocked = !self.queue.is_drained();
                if self.blocked {
                    self.wake(woken);
                }
            }
            Err(_) => {
                // The task finds it out too, and ends.
                self.broken = true;
                self.shut(woken);
            }
        }
        true
    }

    pub(super) fn write(
        &mut self,
        most: (usize, usize),
        woken: &mut Woken,
        write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<()> {
        if self.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match self.queue.write(write) {
            Ok(moved) => self.moved |= moved,
            Err(error) => {
                self.broken = true;
                self.shut(woken);
                return Err(error);
            }
        }
        self.blocked = !self.queue.is_drained();
        self.tell_feeder(most, woken);
        Ok(())
    }

    /// Takes and sends nothing more, but for what has begun and control frames.
    pub(super) fn shut(&mut self, woken: &mut Woken) {
        self.shut = true;
        self.queue.forget();
        self.wake(woken);
    }

    /// Wakes the task, once per time that it went to sleep; at the end also who feeds.
    pub(super) fn wake(&mut self, woken: &mut Woken) {
        woken.0[0] = woken.0[0].take().or(self.waker.take());
        if self.has_ended() {
            woken.0[1] = woken.0[1].take().or(self.feeder.take());
        }
    }

    pub(super) fn tell_feeder(&mut self, most: (usize, usize), woken: &mut Woken) {
        if self.feeder.is_some() && self.has_room(most) {
            woken.0[1] = woken.0[1].take().or(self.feeder.take());
        }
    }
}

/// Keeps whom to wake.
pub(super) fn remember(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(waker) => waker.clone_from(cx.waker()),
        none => *none = Some(cx.waker().clone()),
    }
}
