//! Anything in any order: what comes out is what was taken, whole, in order, once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::task::Waker;

use super::super::*;
use super::sinks::{Ends, ends};

/// A small generator of chance (xorshift): the same numbers for the same seed.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % below
    }
}

pub(super) const DATA: u8 = 1;
const CONTROL: u8 = 2;
pub(super) const LAST: u8 = 3;

/// `kind`, the number in four bytes, the length of what follows in two, and that.
pub(super) fn frame(kind: u8, number: u32, length: usize, cursor: Option<Cursor>) -> Frame {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&(length as u16).to_be_bytes());
    bytes.extend((0..length).map(|at| (at as u8) ^ (number as u8)));
    Frame::new(bytes.into(), cursor)
}

/// Whole frames, and whether one is cut at the end.
pub(super) fn parse(mut bytes: &[u8]) -> (Vec<(u8, u32)>, bool) {
    let mut found = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<7>() {
        let number = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let length = usize::from(u16::from_be_bytes([head[5], head[6]]));
        assert!((DATA..=LAST).contains(&head[0]), "a frame begins where another ended");
        if rest.len() < length {
            return (found, true);
        }
        for (at, byte) in rest[..length].iter().enumerate() {
            assert_eq!(*byte, (at as u8) ^ (number as u8), "nothing between its bytes");
        }
        found.push((head[0], number));
        bytes = &rest[length..];
    }
    (found, !bytes.is_empty())
}

/// One outbox, what it was given, and a connection's task as it should be.
pub(super) struct World {
    pub(super) ends: Ends,
    pub(super) chance: Chance,
    /// Numbers of the frames that it took, and the cursors they carry.
    taken: Vec<(u32, Option<Cursor>)>,
    control: Vec<u32>,
    number: u32,
    pub(super) position: u64,
    /// In a list of who is to be flushed.
    pub(super) due: bool,
    pub(super) overflowed: bool,
    /// How it was ended, by whom first.
    pub(super) closed: Option<Close>,
    /// What the task made of it.
    last: Option<Close>,
    /// The task runs again by itself: the socket takes more.
    ready: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let bounds = (1 + chance.next(200), 64 + chance.next(20_000));
        let room = chance.next(200);
        World {
            ends: ends(bounds.0, bounds.1, room),
            chance,
            taken: Vec::new(),
            control: Vec::new(),
            number: 0,
            position: 0,
            due: false,
            overflowed: false,
            closed: None,
            last: None,
            ready: false,
        }
    }

    fn number(&mut self) -> u32 {
        self.number += 1;
        self.number
    }

    pub(super) fn frames(&mut self) -> Vec<Frame> {
        self.position += 1;
        let count = 1 + self.chance.next(4) * self.chance.next(4);
        let cursor = Cursor { position: self.position, stamp: 7, grant: 7 };
        let made = (1..=count).map(|at| {
            let (number, length) = (self.number(), self.chance.next(90));
            frame(DATA, number, length, (at == count).then_some(cursor))
        });
        made.collect()
    }

    pub(super) fn took(&mut self, frames: &[Frame]) {
        for frame in frames {
            let number = frame.bytes[1..5].try_into().expect("four bytes");
            self.taken.push((u32::from_be_bytes(number), frame.cursor()));
        }
    }

    /// What became of frames that it was offered.
    pub(super) fn offered(&mut self, offer: Offer, frames: &[Frame]) {
        match offer {
            Offer::Ended => assert!(self.ended()),
            Offer::Overflowed => {
                assert!(!self.ended());
                self.overflowed = true;
            }
            offer => {
                assert!(!self.ended());
                self.due |= offer == Offer::Due;
                self.took(frames);
            }
        }
    }

    pub(super) fn ended(&self) -> bool {
        self.overflowed || self.closed.is_some()
    }

    pub(super) fn step(&mut self) {
        let outbox = self.ends.outbox.clone();
        match self.chance.next(20) {
            0..=6 => {
                let frames = self.frames();
                let now = || outbox.send_now(self.position, &frames, size(&frames));
                let offer = match self.chance.next(3) {
                    0 => outbox.send(self.position, &frames, size(&frames)),
                    1 => now().unwrap_or_else(|| outbox.offer(self.position, &frames)),
                    _ => outbox.offer(self.position, &frames),
                };
                self.offered(offer, &frames);
            }
            7 => {
                let frames = self.frames();
                match outbox.feed(self.position, &frames) {
                    Feed::Taken => self.took(&frames),
                    Feed::Full => assert!(!self.ended()),
                    Feed::Ended => assert!(self.ended()),
                }
            }
            8 => {
                let cursor = Cursor { position: self.position, stamp: 7, grant: 7 };
                let frame = frame(DATA, self.number(), 3, Some(cursor));
                if outbox.offer_idle(&frame) {
                    self.took(&[frame]);
                }
            }
            9..=11 => self.flush(),
            12 => {
                let number = self.number();
                if self.last.is_none() {
                    // From the task, which then writes.
                    let length = self.chance.next(9);
                    outbox.put_control(frame(CONTROL, number, length, None));
                    self.control.push(number);
                    self.task();
                }
            }
            13 if self.chance.next(9) == 0 => {
                let close = Close::new(4401, "over");
                outbox.close(close.clone());
                if !self.ended() {
                    self.closed = Some(close);
                }
            }
            14..=17 => {
                let room = self.chance.next(300) * self.chance.next(4);
                self.ready |= self.ends.pipe.make_room(room);
            }
            _ => self.wake(),
        }
    }

    pub(super) fn flush(&mut self) {
        if std::mem::take(&mut self.due) {
            self.ends.outbox.flush();
        }
    }

    /// The task runs, but only if it was woken.
    pub(super) fn wake(&mut self) {
        if self.ends.task.take() | std::mem::take(&mut self.ready) {
            self.task();
        }
    }

    fn task(&mut self) {
        loop {
            match self.ends.write() {
                Wrote::All => return,
                // It asks the socket, which says when it takes more once it has refused.
                Wrote::Blocked if self.ends.pipe.room() == 0 => {
                    if self.ends.write() == Wrote::Blocked {
                        return;
                    }
                }
                Wrote::Blocked | Wrote::More => {}
                Wrote::End(close) => {
                    assert!(self.last.is_none(), "once");
                    let number = self.number();
                    self.last = Some(close);
                    self.ends.outbox.put_last(frame(LAST, number, 5, None));
                }
            }
        }
    }

    /// From here on the socket takes everything; only who was woken goes on.
    pub(super) fn finish(&mut self) {
        self.ready |= self.ends.pipe.make_room(usize::MAX);
        self.flush();
        self.wake();
        self.wake();
        self.check(true);
    }

    /// Holds what came out against what went in.
    pub(super) fn check(&self, done: bool) {
        let (out, cut) = parse(&self.ends.pipe.took());
        let data: Vec<u32> =
            out.iter().filter(|(kind, _)| *kind == DATA).map(|(_, number)| *number).collect();
        let expected: Vec<u32> = self.taken.iter().map(|(number, _)| *number).collect();
        assert_eq!(data, expected[..data.len()], "in order, once, none left out");
        let control: Vec<u32> =
            out.iter().filter(|(kind, _)| *kind == CONTROL).map(|(_, number)| *number).collect();
        assert_eq!(control, self.control[..control.len()]);
        if !done {
            return;
        }
        assert!(!cut, "nothing waits for a wake-up that never came");
        assert_eq!(control.len(), self.control.len());
        assert_eq!(self.last.is_some(), self.ended());
        if let Some(last) = &self.last {
            assert_eq!(out.last().map(|(kind, _)| *kind), Some(LAST));
            if self.overflowed {
                let held = data.len().checked_sub(1);
                let cursor = held.and_then(|held| {
                    self.taken[..=held].iter().rev().find_map(|(_, cursor)| *cursor)
                });
                let close = Close::new(TOO_SLOW, "slow");
                let told = cursor.map_or(close.clone(), |cursor| close.resume_from(cursor));
                assert_eq!(*last, told, "it names what went out");
            } else {
                assert_eq!(Some(last), self.closed.as_ref());
            }
        }
        if !self.overflowed {
            assert_eq!(data.len(), expected.len(), "a close comes after what waits");
        }
    }
}

#[test]
fn whatever_happens_the_bytes_are_the_frames_in_order() {
    let (mut overflowed, mut closed, mut whole) = (0, 0, 0);
    for seed in 1..=3_000 {
        let mut world = World::new(seed);
        let steps = 20 + world.chance.next(200);
        for _ in 0..steps {
            world.step();
        }
        world.check(false);
        world.finish();
        overflowed += usize::from(world.overflowed);
        closed += usize::from(world.closed.is_some());
        whole += usize::from(!world.ended());
    }
    assert!(overflowed > 100 && closed > 100 && whole > 100, "{overflowed} {closed} {whole}");
}

/// Wakes a thread that waits on a channel.
pub(super) struct Bell(pub(super) Mutex<mpsc::Sender<()>>);
impl std::task::Wake for Bell {
    fn wake(self: Arc<Self>) {
        let _ = self.0.lock().expect("no panic").send(());
    }
}

/// A socket that takes a few bytes and then none until somebody has waited for it.
#[derive(Default)]
pub(super) struct Slow {
    pub(super) took: Mutex<Vec<u8>>,
    pub(super) full: AtomicBool,
}
impl Sink for Slow {
    fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut took = self.took.lock().expect("no panic");
        let all: VecDeque<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        let most = 1 + took.len() % 97;
        let before = took.len();
        took.extend(all.into_iter().take(most));
        self.full.store(took.len().is_multiple_of(3), Ordering::SeqCst);
        Ok(took.len() - before)
    }
}

#[test]
fn many_threads_lose_no_wake_up() {
    let limits = Limits { outbox_frames: 1 << 20, outbox_bytes: 1 << 30, ..Limits::default() };
    let outbox = Outbox::new(&limits, Close::new(TOO_SLOW, "slow"));
    let slow = Arc::new(Slow::default());
    outbox.attach(slow.clone());
    let (ring, rung) = mpsc::channel();
    let waker = Waker::from(Arc::new(Bell(Mutex::new(ring))));
    std::thread::scope(|scope| {
        let (outbox, slow) = (&outbox, &slow);
        scope.spawn(move || {
            let cx = Context::from_waker(&waker);
            loop {
                let write = |bytes: &[IoSlice<'_>]| slow.try_write_vectored(bytes);
                match outbox.write(&cx, write).expect("a whole pipe").0 {
                    // The socket tells it at once that it takes more.
                    Wrote::Blocked => slow.full.store(false, Ordering::SeqCst),
                    Wrote::More => {}
                    Wrote::End(_) => outbox.put_last(frame(LAST, 20_000, 5, None)),
                    Wrote::All if outbox.ended().is_some() => return,
                    Wrote::All => rung.recv().expect("somebody who rings"),
                }
            }
        });
        for number in 0..20_000 {
            let told = [frame(DATA, number, number as usize % 50, None)];
            let position = u64::from(number);
            let now = || outbox.send_now(position, &told, size(&told));
            let offer = match number % 5 {
                0 | 1 => outbox.send(position, &told, size(&told)),
                2 => now().unwrap_or_else(|| outbox.offer(position, &told)),
                _ => outbox.offer(position, &told),
            };
            assert_ne!(offer, Offer::Overflowed);
            if number % 3 == 0 {
                outbox.flush();
            }
        }
        outbox.flush();
        outbox.close(Close::new(1001, "done"));
    });
    let (out, cut) = parse(&slow.took.lock().expect("no panic"));
    let numbers: Vec<u32> = out.iter().map(|(_, number)| *number).collect();
    assert!(!cut && numbers == (0..=20_000).collect::<Vec<_>>());
}
