//! Many outboxes at once, over a carrier that does what it likes.

use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::task::Waker;

use bytes::Bytes;

use super::super::*;
use super::model::{Bell, Chance, DATA, LAST, Slow, World, frame, parse};
use super::sinks::ends;

/// Makes some writes in part, or not at all, for no reason that the socket knows of.
struct Whim {
    chance: Chance,
    /// Writes it was given, and how many of them at once at most.
    writes: usize,
    most: usize,
}

impl Carrier for Whim {
    fn carry(&mut self, writes: &[Write<'_>], results: &mut [io::Result<usize>]) {
        assert_eq!(writes.len(), results.len());
        self.writes += writes.len();
        self.most = self.most.max(writes.len());
        // In any order.
        let first = self.chance.next(writes.len());
        for at in (first..writes.len()).chain(0..first) {
            let Write { sink, bufs, .. } = writes[at];
            assert!(!bufs.is_empty() && bufs.iter().all(|buf| !buf.is_empty()));
            match self.chance.next(8) {
                0 => {}
                1 => results[at] = Err(io::ErrorKind::Interrupted.into()),
                2 => {
                    let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
                    let some = 1 + self.chance.next(all.len());
                    results[at] = sink.try_write_vectored(&[IoSlice::new(&all[..some])]);
                }
                _ => results[at] = sink.try_write_vectored(bufs),
            }
        }
    }
}

#[test]
fn whatever_the_carrier_does_the_bytes_are_the_frames_in_order() {
    let (mut writes, mut most, mut ends) = (0, 0, [0; 3]);
    for seed in 1..=150_u64 {
        let chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut whim = Whim { chance, writes: 0, most: 0 };
        let count = 1 + whim.chance.next(100);
        let mut worlds: Vec<World> =
            (0..count as u64).map(|n| World::new(seed * 1_000 + n)).collect();
        let outboxes: Vec<_> = worlds.iter().map(|world| world.ends.outbox.clone()).collect();
        for _ in 0..10 + whim.chance.next(30) {
            round(&mut whim, &mut worlds, &outboxes);
            for world in &mut worlds {
                world.step();
            }
        }
        for world in &mut worlds {
            world.check(false);
            world.finish();
            let end = (world.overflowed, world.closed.is_some());
            ends[usize::from(end.0) + 2 * usize::from(!end.0 && end.1)] += 1;
        }
        (writes, most) = (writes + whim.writes, most.max(whim.most));
    }
    assert!(writes > 5_000 && most == 64, "{writes} {most}");
    assert!(ends.iter().all(|ends| *ends > 50), "{ends:?}");
}

/// Some are told something at once, perhaps twice; then those are flushed that have to be.
fn round(whim: &mut Whim, worlds: &mut [World], outboxes: &[Arc<Outbox>]) {
    let mut told = Vec::new();
    // Or once again while it is locked.
    let twice = whim.chance.next(3 * worlds.len());
    for (at, world) in worlds.iter_mut().enumerate() {
        let times = usize::from(whim.chance.next(6) > 0) + usize::from(at == twice);
        for _ in 0..times {
            let frames = world.frames();
            told.push((at, world.position, frames));
        }
    }
    let mut batch = Batch::new(Some(whim));
    let offers: Vec<Offer> = told
        .iter()
        .map(|(at, position, frames)| {
            batch.tell(*position, frames);
            batch.send(&outboxes[*at])
        })
        .collect();
    batch.end();
    for ((at, _, frames), offer) in told.iter().zip(offers) {
        worlds[*at].offered(offer, frames);
    }
    let due = worlds.iter_mut().map(|world| std::mem::take(&mut world.due)).collect::<Vec<_>>();
    let due = outboxes.iter().zip(due).filter(|(_, due)| *due);
    let mut due: Vec<_> = due.map(|(outbox, _)| outbox.clone()).collect();
    flush(&mut due, Some(whim));
    assert!(due.is_empty());
}

/// Breaks one of the sockets.
struct Breaks(usize);

impl Carrier for Breaks {
    fn carry(&mut self, writes: &[Write<'_>], results: &mut [io::Result<usize>]) {
        for (at, (write, result)) in writes.iter().zip(results).enumerate() {
            *result = match at == self.0 {
                true => Err(io::ErrorKind::ConnectionReset.into()),
                false => write.sink.try_write_vectored(write.bufs),
            };
        }
    }
}

#[test]
fn a_socket_that_breaks_is_its_tasks_to_hear_of_and_nobody_elses() {
    let all: Vec<_> = (0..9).map(|_| ends(9, 99, usize::MAX)).collect();
    let told = [Frame::from(Bytes::from_static(b"told"))];
    let mut breaks = Breaks(5);
    let mut batch = Batch::new(Some(&mut breaks));
    batch.tell(1, &told);
    for one in &all {
        assert_eq!(batch.send(&one.outbox), Offer::Taken);
    }
    batch.end();
    for (at, one) in all.iter().enumerate() {
        assert_eq!(one.task.take(), at == 5);
        assert_eq!(one.pipe.took(), if at == 5 { &b""[..] } else { b"told" });
        let offer = one.outbox.offer(2, &told);
        assert_eq!(offer, if at == 5 { Offer::Ended } else { Offer::Due });
        assert_eq!(one.try_write().is_err(), at == 5);
    }
}

#[test]
fn what_was_taken_goes_out_if_the_batch_is_only_dropped() {
    let all: Vec<_> = (0..9).map(|_| ends(9, 99, usize::MAX)).collect();
    let mut whole = Breaks(usize::MAX);
    let mut batch = Batch::new(Some(&mut whole));
    batch.tell(1, &[Frame::from(Bytes::from_static(b"told"))]);
    all.iter().for_each(|one| assert_eq!(batch.send(&one.outbox), Offer::Taken));
    drop(batch);
    assert!(all.iter().all(|one| one.pipe.took() == b"told"));
}

#[test]
fn many_threads_and_a_batch_lose_no_wake_up() {
    const TASKS: usize = 7;
    let limits = Limits { outbox_frames: 1 << 20, outbox_bytes: 1 << 30, ..Limits::default() };
    let new = |_| (Outbox::new(&limits, Close::new(TOO_SLOW, "slow")), Arc::new(Slow::default()));
    let all: Vec<_> = (0..TASKS).map(new).collect();
    std::thread::scope(|scope| {
        for (outbox, slow) in &all {
            outbox.attach(slow.clone());
            let (ring, rung) = mpsc::channel();
            scope.spawn(move || {
                let waker = Waker::from(Arc::new(Bell(Mutex::new(ring))));
                let cx = Context::from_waker(&waker);
                loop {
                    let write = |bytes: &[IoSlice<'_>]| slow.try_write_vectored(bytes);
                    match outbox.write(&cx, write).expect("a whole pipe").0 {
                        Wrote::Blocked => slow.full.store(false, Ordering::SeqCst),
                        Wrote::More => {}
                        Wrote::End(_) => outbox.put_last(frame(LAST, 5_000, 5, None)),
                        Wrote::All if outbox.ended().is_some() => return,
                        Wrote::All => rung.recv().expect("somebody who rings"),
                    }
                }
            });
        }
        let mut whim = Whim { chance: Chance(7), writes: 0, most: 0 };
        let mut due = Vec::new();
        for number in 0..5_000_u32 {
            let told = [frame(DATA, number, number as usize % 50, None)];
            if number % 7 == 0 {
                let mut offers =
                    all.iter().map(|(outbox, _)| (outbox, outbox.offer(u64::from(number), &told)));
                due.extend(
                    offers
                        .by_ref()
                        .filter(|(_, offer)| *offer == Offer::Due)
                        .map(|(outbox, _)| outbox.clone()),
                );
                continue;
            }
            let mut batch = Batch::new(Some(&mut whim));
            batch.tell(u64::from(number), &told);
            for (outbox, _) in &all {
                match batch.send(outbox) {
                    Offer::Due => due.push(outbox.clone()),
                    offer => assert_eq!(offer, Offer::Taken),
                }
            }
            batch.end();
            flush(&mut due, Some(&mut whim));
        }
        flush(&mut due, Some(&mut whim));
        all.iter().for_each(|(outbox, _)| outbox.close(Close::new(1001, "done")));
    });
    for (_, slow) in &all {
        let (out, cut) = parse(&slow.took.lock().expect("no panic"));
        let numbers: Vec<u32> = out.iter().map(|(_, number)| *number).collect();
        assert!(!cut && numbers == (0..=5_000).collect::<Vec<_>>());
    }
}

/// Makes the first write of each.
struct First;

impl Carrier for First {
    fn carry(&mut self, writes: &[Write<'_>], results: &mut [io::Result<usize>]) {
        for (write, result) in writes.iter().zip(results) {
            *result = write.sink.try_write_vectored(write.bufs);
        }
    }
}

#[test]
fn what_takes_more_than_one_write_goes_out_whole() {
    let all: Vec<_> = (0..9).map(|_| ends(999, 99_999, usize::MAX)).collect();
    let told: Vec<_> = (0..200_u8).map(|byte| Frame::from(Bytes::from(vec![byte; 3]))).collect();
    let whole: Vec<u8> = (0..200_u8).flat_map(|byte| [byte; 3]).collect();
    for one in &all {
        assert_eq!(one.outbox.offer(1, &told), Offer::Due);
    }
    let mut due: Vec<_> = all.iter().map(|one| one.outbox.clone()).collect();
    flush(&mut due, Some(&mut First));
    for one in &all {
        assert_eq!(one.pipe.took(), whole);
        assert!(!one.task.take(), "nothing is left for the task");
        assert_eq!(one.outbox.waiting(), (0, 0));
        assert_eq!(one.outbox.offer(2, &told[..1]), Offer::Due, "it is written again");
    }
}
