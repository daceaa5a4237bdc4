//! What an outbox knows, under its lock.

use std::io::{self, IoSlice};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::task::{Context, Waker};

use super::queue::{Queue, SLICES, Went};
use super::{Close, Frame, Sink};
use crate::model::cursor::Cursor;

/// Where what was put in may be written at once.
pub(super) struct Socket {
    pub(super) sink: Arc<dyn Sink>,
    /// Kept here, as the sink is a cache line more for each delivery.
    pub(super) fd: Option<RawFd>,
}

/// Frames of the commit at `position`, `bytes` long together.
#[derive(Clone, Copy)]
pub(super) struct Told<'a> {
    pub(super) position: u64,
    pub(super) frames: &'a [Frame],
    pub(super) bytes: usize,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) queue: Queue,
    pub(super) end: Option<Close>,
    pub(super) socket: Option<Socket>,
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
        let Some(socket) = self.socket.take() else { return };
        // A broken socket is found out by the task, which has to end.
        let _ = self.write(most, usize::MAX, woken, |bytes| socket.sink.try_write_vectored(bytes));
        self.socket = Some(socket);
        if self.blocked || self.has_ended() {
            self.wake(woken);
        }
    }

    /// Takes what became of the one write of what waits that a carrier has made; whether the sink
    /// may take more.
    pub(super) fn written(
        &mut self,
        most: (usize, usize),
        made: io::Result<usize>,
        woken: &mut Woken,
    ) -> bool {
        let (mut made, mut more) = (Some(made), false);
        // As above.
        let _ = self.write(most, usize::MAX, woken, |_| {
            made.take().unwrap_or_else(|| {
                more = true;
                Err(io::ErrorKind::WouldBlock.into())
            })
        });
        self.blocked &= !more;
        if self.blocked || self.has_ended() {
            self.wake(woken);
        }
        more
    }

    /// Whether something waits that can be written to the sink now.
    pub(super) fn can_write(&self) -> bool {
        self.socket.is_some() && !self.blocked && !self.broken && !self.queue.is_drained()
    }

    /// Whether frames can be written to the sink that nothing waits before.
    pub(super) fn takes_new(&self, told: &Told<'_>) -> bool {
        let many = told.frames.len() > SLICES;
        !many && !self.blocked && !self.broken && self.queue.is_drained() && self.socket.is_some()
    }

    /// Writes frames to the sink that nothing waits before (see [`State::takes_new`]). `made` is
    /// what became of that, where a carrier has done it.
    pub(super) fn write_new(
        &mut self,
        told: &Told<'_>,
        made: Option<io::Result<usize>>,
        woken: &mut Woken,
    ) {
        let Some(socket) = &self.socket else { return };
        let write = |bytes: &[IoSlice<'_>]| match made {
            Some(made) => made,
            None => socket.sink.try_write_vectored(bytes),
        };
        match self.queue.write_new(told, write) {
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
    }

    /// Writes `piece` bytes at most; whether more might have gone.
    pub(super) fn write(
        &mut self,
        most: (usize, usize),
        piece: usize,
        woken: &mut Woken,
        write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        if self.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let Went { moved, more } = match self.queue.write(piece, write) {
            Ok(went) => went,
            Err(error) => {
                self.broken = true;
                self.shut(woken);
                return Err(error);
            }
        };
        self.moved |= moved;
        self.blocked = !self.queue.is_drained();
        self.tell_feeder(most, woken);
        Ok(more)
    }

    /// Ends so, and drops what waits: it would come too late to be of use, the reader has to start
    /// anew.
    pub(super) fn overflow(&mut self, close: &Close, woken: &mut Woken) {
        self.queue.forget();
        self.end = Some(close.clone());
        self.wake(woken);
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
