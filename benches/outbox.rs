//! A connection's queue: what it costs to offer frames, to take them, and to write them.
//!
//! The frames are shared, as a fan-out's are. The queue is timed alone, then with sockets: one commit
//! to each, and sixteen of which each socket gets all in one write, beside a bare write() a frame.

use std::collections::VecDeque;
use std::hint::black_box;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rowcast::limits::Limits;
use rowcast::live::outbox::{Offer, Sink, flush};
use rowcast::live::{Close, Frame, Outbox};

/// So many outboxes, as a server has: none of them stays in a near cache.
const OUTBOXES: usize = 1_000;

fn outboxes() -> Vec<Arc<Outbox>> {
    (0..OUTBOXES).map(|_| Outbox::new(&Limits::default(), Close::new(4408, "slow"))).collect()
}

/// As long as a record's message.
fn frames(count: usize) -> Vec<Frame> {
    vec![Bytes::from(vec![b'x'; 410]).into(); count]
}

fn drain(outboxes: &[Arc<Outbox>], out: &mut VecDeque<Frame>) -> usize {
    let mut cx = Context::from_waker(Waker::noop());
    let mut taken = 0;
    for outbox in outboxes {
        while outbox.poll_take(&mut cx, out, 64, usize::MAX).is_ready() {
            taken += out.len();
            out.clear();
        }
    }
    taken
}

/// The time of offering `commits` commits of `per` frames to everybody and that of draining them.
fn round(outboxes: &[Arc<Outbox>], frames: &[Frame], at: &mut u64, commits: u64) -> [Duration; 2] {
    let start = Instant::now();
    for _ in 0..commits {
        *at += 1;
        for outbox in outboxes {
            assert_ne!(outbox.offer(*at, black_box(frames)), Offer::Overflowed);
        }
    }
    let offered = start.elapsed();
    let mut out = VecDeque::new();
    let start = Instant::now();
    let taken = drain(outboxes, &mut out);
    let drained = start.elapsed();
    assert_eq!(taken, outboxes.len() * frames.len() * commits as usize);
    [offered, drained]
}

fn queue(c: &mut Criterion) {
    let mut group = c.benchmark_group("outbox: 1,000 of them");
    let outboxes = outboxes();
    for (name, commits, per) in
        [("1 frame", 1, 1), ("1 commit of 16 frames", 1, 16), ("16 commits of 1 frame", 16, 1)]
    {
        let frames = frames(per);
        group.throughput(Throughput::Elements((OUTBOXES * per) as u64 * commits));
        let mut at = 0;
        for (which, what) in ["offered", "taken"].into_iter().enumerate() {
            group.bench_function(format!("{name}, {what}"), |b| {
                b.iter_custom(|rounds| {
                    (0..rounds).map(|_| round(&outboxes, &frames, &mut at, commits)[which]).sum()
                });
            });
        }
    }
    group.finish();
}

/// So many sockets; two handles each.
const SOCKETS: usize = 200;

/// A socket that the outbox writes to, in the server's place.
struct Socket(UnixStream);

impl Sink for Socket {
    fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.0).write_vectored(bufs)
    }
}

/// Both ends of each, neither of which waits.
fn pairs() -> Vec<(UnixStream, UnixStream)> {
    let pair = || {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        Ok((ours, theirs))
    };
    let pairs: io::Result<Vec<_>> = (0..SOCKETS).map(|_| pair()).collect();
    pairs.expect("handles enough")
}

/// Empties what was written; everything must have come.
fn read(pairs: &[(UnixStream, UnixStream)], bytes: usize) {
    let mut buffer = vec![0; 64 << 10];
    for (_, theirs) in pairs {
        let mut left = bytes;
        while left > 0 {
            left -= match (&mut &*theirs).read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                Err(error) => panic!("{left} bytes have not come: {error}"),
            };
        }
    }
}

fn written(c: &mut Criterion) {
    let mut group = c.benchmark_group("outbox: 200 sockets");
    let pairs = pairs();
    let frames = frames(1);
    let length = frames[0].bytes.len();
    for (name, commits) in [("1 frame", 1), ("16 frames", 16)] {
        group.throughput(Throughput::Elements(SOCKETS as u64 * commits));
        let timed = |rounds: u64, mut write: Box<dyn FnMut() + '_>| {
            let mut time = Duration::ZERO;
            for _ in 0..rounds {
                let start = Instant::now();
                write();
                time += start.elapsed();
                read(&pairs, length * commits as usize);
            }
            time
        };
        group.bench_function(format!("{name}, a bare write() each"), |b| {
            b.iter_custom(|rounds| {
                let write = || {
                    for _ in 0..commits {
                        for (ours, _) in &pairs {
                            assert_eq!((&mut &*ours).write(&frames[0].bytes).ok(), Some(length));
                        }
                    }
                };
                timed(rounds, Box::new(write))
            });
        });
        let outboxes = outboxes();
        let outboxes = &outboxes[..SOCKETS];
        for (outbox, (ours, _)) in outboxes.iter().zip(&pairs) {
            let socket = ours.try_clone().expect("handles enough");
            outbox.attach(Arc::new(Socket(socket)));
        }
        let mut at = 0;
        // As a commit is told that no other follows.
        group.bench_function(format!("{name}, sent one by one"), |b| {
            b.iter_custom(|rounds| {
                let write = || {
                    for _ in 0..commits {
                        at += 1;
                        for outbox in outboxes {
                            assert_eq!(outbox.send(at, black_box(&frames), length), Offer::Taken);
                        }
                    }
                };
                timed(rounds, Box::new(write))
            });
        });
        group.bench_function(format!("{name}, offered, then flushed"), |b| {
            b.iter_custom(|rounds| {
                let mut due = Vec::new();
                let write = || {
                    for _ in 0..commits {
                        at += 1;
                        for outbox in outboxes {
                            if outbox.offer(at, black_box(&frames)) == Offer::Due {
                                due.push(outbox.clone());
                            }
                        }
                    }
                    flush(&mut due, None);
                };
                timed(rounds, Box::new(write))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, queue, written);
criterion_main!(benches);
