mod batch;
mod model;
mod sinks;

use std::future::Future as _;
use std::task::Waker;

use bytes::Bytes;

use super::*;

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

#[test]
fn who_is_fed_a_large_commit_waits_while_others_hold_much() {
    let outbox = |tail_bytes| {
        let limits = Limits { tail_bytes, recent_bytes: 0, outbox_bytes: 64, ..Limits::default() };
        Outbox::new(&limits, Close::new(4408, "slow"))
    };
    let room = |outbox: &Outbox, bytes| {
        let mut cx = Context::from_waker(Waker::noop());
        std::pin::pin!(outbox.room(1, bytes)).poll(&mut cx).is_ready()
    };
    let others = Frame::from(Bytes::from(vec![b'a'; 1_000]));
    let large = [Frame::from(Bytes::from(vec![b'a'; 100]))];
    assert!(held() >= 1_100);
    let crowded = outbox(999);
    assert_eq!(crowded.feed(1, &large), Feed::Full);
    assert!(!room(&crowded, 100) && room(&crowded, 64));
    assert_eq!(crowded.feed(1, &frames(2)), Feed::Taken, "within bounds");
    assert_eq!(crowded.offer(1, &large), Offer::Taken, "the live stream does not wait");
    let free = outbox(usize::MAX);
    assert_eq!(free.feed(1, &large), Feed::Taken);
    drop(others);
}
