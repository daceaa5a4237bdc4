//! A connection's queue: what it costs to offer frames, and to take them.
//!
//! The frames are shared, as a fan-out's are; what is timed is the queue alone.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rowcast::limits::Limits;
use rowcast::live::outbox::Offer;
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

criterion_group!(benches, queue);
criterion_main!(benches);
