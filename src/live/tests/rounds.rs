//! Commits that wait are told together, and each socket is written once.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::desk::Desk;
use crate::limits::Limits;
use crate::live::outbox::{Carrier, Sink, Write};
use crate::model::change::Commit;
use crate::store::CommitSink;

/// Takes everything; keeps it write by write.
#[derive(Default)]
pub(super) struct Writes(Mutex<Vec<Vec<u8>>>);

impl Sink for Writes {
    fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        let length = all.len();
        self.0.lock().expect("no panic").push(all);
        Ok(length)
    }
}

impl Writes {
    /// How many bytes each write had since the last time, and all of them.
    pub(super) fn take(&self) -> (Vec<usize>, Vec<u8>) {
        let writes = std::mem::take(&mut *self.0.lock().expect("no panic"));
        (writes.iter().map(Vec::len).collect(), writes.concat())
    }
}

fn listen(desk: &mut Desk) -> Arc<Writes> {
    listen_to(desk, "")
}

fn listen_to(desk: &mut Desk, select: &str) -> Arc<Writes> {
    let outbox = desk.listen(|request| request.ask.select = Some(select.to_owned()));
    let writes = Arc::new(Writes::default());
    outbox.attach(writes.clone());
    writes
}

/// Counts how often it is asked to write to many.
#[derive(Clone, Default)]
pub(super) struct Asked(pub(super) Arc<AtomicUsize>);

impl Carrier for Asked {
    fn carry(&mut self, writes: &[Write<'_>], results: &mut [io::Result<usize>]) {
        self.0.fetch_add(1, Ordering::Relaxed);
        for (write, result) in writes.iter().zip(results) {
            *result = write.sink.try_write_vectored(write.bufs);
        }
    }
}

fn commits(desk: &mut Desk, count: usize, records: i64) -> Vec<Arc<Commit>> {
    let write = |desk: &mut Desk| {
        let puts: Vec<_> =
            (0..records).map(|id| ("blog", id, Some(json!({"title": "a"})))).collect();
        desk.write(&puts, |_| {})
    };
    (0..count).map(|_| write(desk)).collect()
}

#[test]
fn what_waits_is_written_together() {
    let mut desk = Desk::new(Limits::default());
    let (one, other) = (listen(&mut desk), listen(&mut desk));
    let first = commits(&mut desk, 1, 1);
    desk.sink.committed(&first);
    assert!(desk.matcher.step());
    assert_eq!(one.take().0.len(), 1, "at once");
    let many = commits(&mut desk, 50, 1);
    desk.sink.committed(&many);
    assert!(desk.matcher.step());
    let (writes, bytes) = one.take();
    // A busy machine may need more than one round's time.
    while desk.matcher.queue.waiting().0 > 0 {
        assert!(desk.matcher.step());
    }
    assert_eq!(writes.len(), 1, "all of a round");
    let all = [bytes, one.take().1].concat();
    let told = other.take().1;
    assert!(told.ends_with(&all), "the same for everybody");
    assert_eq!(desk.matcher.mark.position, 51);
}

/// A commit alone is written to many at once; who has fallen behind puts more into each write.
#[test]
fn the_carrier_is_for_a_commit_alone() {
    let mut desk = Desk::new(Limits::default());
    let ears: Vec<_> = (0..10).map(|_| listen(&mut desk)).collect();
    let asked = Asked::default();
    desk.matcher.fanout.carry_with(Box::new(asked.clone()));
    for (count, carried) in [(1, 1), (50, 0), (1, 1)] {
        let made = commits(&mut desk, count, 1);
        desk.sink.committed(&made);
        while desk.matcher.queue.waiting().0 > 0 {
            assert!(desk.matcher.step());
        }
        assert_eq!(asked.0.swap(0, Ordering::Relaxed), carried, "{count} commits");
        let told: Vec<_> = ears.iter().map(|writes| writes.take().1).collect();
        assert!(!told[0].is_empty() && told.iter().all(|one| *one == told[0]));
    }
    // One that nobody hears of does not make them many.
    let nobodys = desk.write(&[("category", 1, Some(json!({"name": "a"})))], |_| {});
    let made = [vec![nobodys], commits(&mut desk, 1, 1)].concat();
    desk.sink.committed(&made);
    while desk.matcher.queue.waiting().0 > 0 {
        assert!(desk.matcher.step());
    }
    assert_eq!(asked.0.load(Ordering::Relaxed), 1);
}

/// What a commit is told may have to be written before it is told whole.
#[test]
fn a_commit_in_parts_is_not_alone_behind_another() {
    let mut desk = Desk::new(Limits { tail_bytes: 4 << 10, ..Limits::default() });
    let asked = Asked::default();
    desk.matcher.fanout.carry_with(Box::new(asked.clone()));
    let selects = ["title", "title,views", "title,category"];
    let ears: Vec<_> =
        selects.iter().flat_map(|one| [*one; 10]).map(|one| listen_to(&mut desk, one)).collect();
    let blog = |title: String| ("blog", 1, Some(json!({"title": title})));
    let large = [1, 2].map(|_| desk.write(&[blog("a".repeat(3_000))], |_| {}));
    let matcher = &mut desk.matcher;
    for commit in &large {
        assert!(matcher.fanout.tell(&matcher.registry, commit).is_empty());
        // The third plan's frames are made when those of the others have gone.
        let alone = commit.position == 1;
        assert_eq!(asked.0.swap(0, Ordering::Relaxed), usize::from(alone), "{}", commit.position);
    }
    matcher.fanout.flush();
    assert_eq!(asked.0.load(Ordering::Relaxed), 0);
    assert!(ears.iter().all(|writes| writes.take().1.len() > 6_000), "both");
}

#[test]
fn rounds_are_bounded() {
    let mut desk = Desk::new(Limits::default());
    let writes = listen(&mut desk);
    for (count, records, most) in [(200, 1, 64), (20, 100, 2), (3, 1_000, 1)] {
        let before = desk.matcher.mark.position;
        let made = commits(&mut desk, count, records);
        desk.sink.committed(&made);
        assert!(desk.matcher.step());
        let told = desk.matcher.mark.position - before;
        assert!((1..=most).contains(&told), "{told} of {count} with {records}");
        while desk.matcher.queue.waiting().0 > 0 {
            assert!(desk.matcher.step());
        }
        assert_eq!(desk.matcher.mark.position, before + count as u64);
        assert!(!writes.take().1.is_empty());
    }
}
