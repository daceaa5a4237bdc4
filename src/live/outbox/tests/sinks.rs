//! Outboxes that write: sinks that take little, at every place.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use bytes::Bytes;

use super::super::*;
use crate::limits::Limits;

/// Takes so many bytes and keeps them.
#[derive(Default)]
pub(super) struct Pipe(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    room: usize,
    took: Vec<u8>,
    /// How often it was called.
    calls: usize,
    /// It said that it takes no more; whoever waits for room hears of it.
    refused: bool,
    broken: bool,
}

impl Pipe {
    pub(super) fn with_room(room: usize) -> Arc<Pipe> {
        Arc::new(Pipe(Mutex::new(Inner { room, ..Inner::default() })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic")
    }

    /// Whether somebody was refused before.
    pub(super) fn make_room(&self, room: usize) -> bool {
        let mut inner = self.inner();
        inner.room = room;
        room > 0 && std::mem::take(&mut inner.refused)
    }

    pub(super) fn room(&self) -> usize {
        self.inner().room
    }

    pub(super) fn took(&self) -> Vec<u8> {
        self.inner().took.clone()
    }

    fn calls(&self) -> usize {
        self.inner().calls
    }
}

impl Sink for Pipe {
    fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut inner = self.inner();
        inner.calls += 1;
        if inner.broken {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if inner.room == 0 {
            inner.refused = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let before = inner.room;
        for buf in bufs {
            let taken = buf.len().min(inner.room);
            inner.room -= taken;
            inner.took.extend_from_slice(&buf[..taken]);
        }
        Ok(before - inner.room)
    }
}

/// A connection's task, as far as it is asleep or not.
#[derive(Default)]
pub(super) struct Task {
    woken: AtomicUsize,
}

impl std::task::Wake for Task {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::Relaxed);
    }
}

impl Task {
    /// Whether it was woken since the last time.
    pub(super) fn take(&self) -> bool {
        self.woken.swap(0, Ordering::Relaxed) > 0
    }
}

pub(super) struct Ends {
    pub(super) outbox: Arc<Outbox>,
    pub(super) pipe: Arc<Pipe>,
    pub(super) task: Arc<Task>,
    waker: Waker,
}

/// An outbox and its two ends; the task has looked once and sleeps.
pub(super) fn ends(frames: usize, bytes: usize, room: usize) -> Ends {
    let limits = Limits { outbox_frames: frames, outbox_bytes: bytes, ..Limits::default() };
    let outbox = Outbox::new(&limits, Close::new(TOO_SLOW, "slow"));
    let (pipe, task) = (Pipe::with_room(room), Arc::new(Task::default()));
    outbox.attach(pipe.clone());
    let waker = Waker::from(task.clone());
    let ends = Ends { outbox, pipe, task, waker };
    assert_eq!(ends.write(), Wrote::All);
    ends
}

impl Ends {
    /// What the task does when it wakes.
    pub(super) fn write(&self) -> Wrote {
        self.try_write().expect("the pipe is whole").0
    }

    pub(super) fn try_write(&self) -> io::Result<(Wrote, bool)> {
        let cx = Context::from_waker(&self.waker);
        self.outbox.write(&cx, |bytes| self.pipe.try_write_vectored(bytes))
    }
}

fn frame(bytes: &str, cursor: u64) -> Frame {
    let cursor = (cursor > 0).then_some(Cursor { position: cursor, stamp: 1, grant: 1 });
    Frame::new(Bytes::copy_from_slice(bytes.as_bytes()), cursor)
}

#[test]
fn what_the_sink_takes_wakes_nobody() {
    let ends = ends(9, 99, usize::MAX);
    assert_eq!(ends.outbox.offer(1, &[frame("one", 0), frame("two", 0)]), Offer::Due);
    assert_eq!(ends.outbox.offer(2, &[frame("three", 0)]), Offer::Taken, "said once");
    assert_eq!(ends.pipe.took(), b"");
    ends.outbox.flush();
    assert_eq!(ends.pipe.took(), b"onetwothree");
    assert_eq!(ends.pipe.calls(), 1, "all in one write");
    ends.outbox.flush();
    assert_eq!(ends.pipe.calls(), 1);
    assert!(!ends.task.take());
    assert!(ends.outbox.offer_idle(&frame("idle", 0)), "written at once");
    assert_eq!(ends.pipe.took(), b"onetwothreeidle");
    assert_eq!(ends.outbox.offer(3, &[frame("four", 0)]), Offer::Due, "said again");
    assert!(!ends.task.take());
}

#[test]
fn control_frames_and_closes_come_between_frames_wherever_it_stops() {
    let told = [frame("first.", 1), frame("second.", 2), frame("third.", 3)];
    let whole = "first.second.third.";
    for room in 0..=whole.len() {
        let ends = ends(9, 99, room);
        for (at, frame) in told.iter().enumerate() {
            ends.outbox.offer(at as u64 + 1, std::slice::from_ref(frame));
        }
        ends.outbox.flush();
        assert_eq!(ends.pipe.took(), &whole.as_bytes()[..room]);
        assert_eq!(ends.task.take(), room < whole.len(), "the rest is the task's");
        // While it is blocked nobody else tries, nor wakes it.
        let calls = ends.pipe.calls();
        ends.outbox.put_control(frame("[ping]", 0));
        let offer = ends.outbox.offer(4, &[frame("fourth.", 4)]);
        assert_eq!(offer, if room < whole.len() { Offer::Taken } else { Offer::Due });
        if room < whole.len() {
            ends.outbox.flush();
            assert_eq!(ends.pipe.calls(), calls);
            assert!(!ends.task.take());
        }
        ends.outbox.close(Close::new(4401, "end"));
        assert_eq!(ends.task.take(), room == whole.len(), "once");
        ends.pipe.make_room(usize::MAX);
        assert_eq!(ends.write(), Wrote::End(Close::new(4401, "end")));
        ends.outbox.put_last(frame("[close]", 0));
        assert_eq!(ends.outbox.offer(5, &[frame("late", 5)]), Offer::Ended);
        ends.outbox.put_control(frame("[late]", 0));
        assert_eq!(ends.write(), Wrote::All);
        // The ping follows the frame that had begun.
        let cut = [0, 6, 13, 19].into_iter().find(|end| room <= *end).expect("an end");
        let (before, after) = whole.split_at(cut);
        let all = format!("{before}[ping]{after}fourth.[close]");
        assert_eq!(String::from_utf8(ends.pipe.took()).expect("text"), all, "{room}");
    }
}

#[test]
fn who_is_too_slow_is_told_what_it_holds_wherever_it_stops() {
    let text = "first.second.";
    for room in 0..=text.len() {
        let ends = ends(1, 99, room);
        ends.outbox.set_since(Cursor { position: 9, stamp: 1, grant: 1 });
        let texts = ["first.", "second.", "third.", "fourth.", "fifth.", "sixth.", "seventh."];
        let offers = texts.iter().zip(11..).map(|(text, position)| {
            let offer = ends.outbox.offer(position, &[frame(text, position)]);
            ends.outbox.flush();
            offer
        });
        assert_eq!(offers.filter(|offer| *offer == Offer::Overflowed).count(), 1);
        assert!(ends.task.take());
        // Its close goes out next, behind the frame that has begun.
        let Wrote::End(close) = ends.write() else { panic!("it goes on at {room}") };
        ends.outbox.put_last(frame("[close]", 0));
        ends.pipe.make_room(usize::MAX);
        assert_eq!(ends.write(), Wrote::All);
        let (out, held) = match room {
            0 => ("[close]", 9),
            1..=6 => ("first.[close]", 11),
            _ => ("first.second.[close]", 12),
        };
        assert_eq!(String::from_utf8(ends.pipe.took()).expect("text"), out);
        let cursor = Cursor { position: held, stamp: 1, grant: 1 };
        assert_eq!(close, Close::new(TOO_SLOW, "slow").resume_from(cursor), "{room}");
    }
}

#[test]
fn a_round_larger_than_the_bounds_goes_out_on_the_way() {
    let ends = ends(4, 9_999, usize::MAX);
    let mut all = String::new();
    for position in 1..100 {
        let text = format!("{position},");
        let frames = vec![frame(&text, position); 3];
        assert_ne!(ends.outbox.offer(position, &frames), Offer::Overflowed, "it keeps up");
        all.push_str(&text.repeat(3));
    }
    ends.outbox.flush();
    assert_eq!(String::from_utf8(ends.pipe.took()).expect("text"), all);
    assert!(!ends.task.take());
}

#[test]
fn a_broken_socket_is_its_tasks_to_hear_of() {
    let ends = ends(9, 99, 3);
    ends.pipe.inner().broken = true;
    assert_eq!(ends.outbox.offer(1, &[frame("one", 0)]), Offer::Due);
    ends.outbox.flush();
    assert!(ends.task.take());
    assert_eq!(ends.outbox.offer(2, &[frame("two", 0)]), Offer::Ended);
    ends.pipe.inner().broken = false;
    assert!(ends.try_write().is_err(), "it says so once only, but it is remembered");
}

#[test]
fn nothing_is_held_of_a_connection_that_has_ended() {
    let ends = ends(9, 99, 0);
    let bytes = Bytes::from(vec![b'x'; 9]);
    ends.outbox.offer(1, &[Frame::from(bytes.clone())]);
    assert!(!bytes.is_unique());
    ends.outbox.detach();
    assert_eq!(Arc::strong_count(&ends.pipe), 1, "the socket can close");
    assert!(bytes.is_unique());
    assert_eq!(ends.outbox.offer(2, &[bytes.into()]), Offer::Ended);
}

#[test]
fn many_frames_leave_in_few_writes() {
    let ends = ends(9, 99, usize::MAX);
    let frames: Vec<Frame> = (0..200).map(|n| frame(&format!("{n},"), 0)).collect();
    ends.outbox.offer(1, &frames);
    ends.outbox.flush();
    assert_eq!(ends.pipe.calls(), 4);
    let all: String = (0..200).map(|n| format!("{n},")).collect();
    assert_eq!(String::from_utf8(ends.pipe.took()).expect("text"), all);
    assert_eq!(ends.outbox.waiting(), (0, 0));
}

#[test]
fn a_task_writes_piece_by_piece() {
    let ends = ends(999, 9 << 20, 0);
    let wide = "x".repeat(PIECE * 2 + 1);
    let frames = [frame("a", 0), frame(&wide, 0), frame("b", 0), frame("c", 0)];
    ends.outbox.offer(1, &frames);
    ends.outbox.flush();
    ends.pipe.make_room(usize::MAX);
    for pieces in 1..=2 {
        assert_eq!(ends.write(), Wrote::More);
        assert_eq!(ends.pipe.took().len(), PIECE * pieces);
    }
    // It is the task's turn: nobody writes before it what comes meanwhile.
    assert_eq!(ends.outbox.send(2, &[frame("d", 0)], 1), Offer::Taken);
    ends.outbox.flush();
    assert_eq!(ends.pipe.took().len(), PIECE * 2);
    assert_eq!(ends.write(), Wrote::All);
    assert_eq!(String::from_utf8(ends.pipe.took()).expect("text"), format!("a{wide}bcd"));
    ends.outbox.send(3, &[frame("e", 0)], 1);
    assert!(ends.pipe.took().ends_with(b"cde"), "at once");
}
