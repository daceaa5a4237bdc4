//! One commit of many records, told to many who each see another part of it.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, IoSlice};
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::desk::*;
use super::world::*;
use crate::limits::Limits;
use crate::live::outbox::Sink;
use crate::live::*;

const RECORDS: i64 = 40;
const LISTENERS: i64 = 60;
/// Room for the frames of some of them.
const BYTES: usize = 512 << 10;

/// A title of 3000 bytes.
fn title(n: i64) -> Json {
    json!({"title": format!("{n:0>3000}")})
}

fn small() -> Limits {
    Limits { tail_bytes: BYTES, message_records: 25, ..Limits::default() }
}

fn all_but(desk: &mut Desk, id: i64) -> Arc<Outbox> {
    desk.listen(|request| request.ask.filter = Some(json!({"id": {"$neq": id}})))
}

fn write_all(desk: &mut Desk, n: i64) {
    let puts: Vec<Put> = (1..=RECORDS).map(|id| ("blog", id, Some(title(n + id)))).collect();
    desk.put(&puts);
}

/// Bytes of all frames, those that are shared once.
fn bytes(told: &[Vec<Frame>]) -> usize {
    let frames = told.iter().flatten();
    let each: HashMap<_, _> =
        frames.map(|frame| (frame.bytes.as_ptr(), frame.bytes.len())).collect();
    each.values().sum()
}

/// The records named in messages of `event`.
fn ids(frames: &[Frame], event: &str) -> Vec<i64> {
    let mut ids = Vec::new();
    for frame in frames {
        let json = payload(&frame.bytes);
        assert_eq!(json["event"], event);
        match &json["data"] {
            Json::Array(all) => ids.extend(all.iter().map(|one| one["id"].as_i64().unwrap())),
            one => ids.push(one["id"].as_i64().unwrap()),
        }
    }
    ids
}

fn without(id: i64) -> Vec<i64> {
    (1..=RECORDS).filter(|other| *other != id).collect()
}

#[test]
fn records_told_one_by_one_are_encoded_once() {
    let mut desk = Desk::new(Limits::default());
    let outboxes: Vec<_> = (1..=LISTENERS).map(|id| all_but(&mut desk, id)).collect();
    write_all(&mut desk, 0);
    let told: Vec<Vec<Frame>> =
        outboxes.iter().map(|outbox| take(outbox).0.into_iter().collect()).collect();
    for (at, frames) in told.iter().enumerate() {
        assert_eq!(ids(frames, "create"), without(at as i64 + 1));
    }
    let frames: BTreeSet<_> = told.iter().flatten().map(|frame| frame.bytes.as_ptr()).collect();
    assert_eq!(frames.len(), RECORDS as usize);
}

#[test]
fn what_waits_of_one_commit_is_bounded() {
    let mut desk = Desk::new(small());
    // Told before the others, and as much.
    let everything = desk.listen(|_| {});
    let outboxes: Vec<_> = (1..=LISTENERS).map(|id| all_but(&mut desk, id)).collect();
    // The same list as the first has, asked for in another way.
    let same = desk.listen(|request| request.ask.filter = Some(json!({"id": {"$gt": 0}})));
    write_all(&mut desk, 0);
    outboxes.iter().chain([&everything, &same]).for_each(|outbox| drop(take(outbox)));
    write_all(&mut desk, 1);

    // Those make room for whom most waits, and of equals the first; whoever comes later is told.
    let all = [(&everything, 0)].into_iter();
    let all = all.chain(outboxes.iter().zip(1..)).chain([(&same, 0)]);
    let (mut whole, mut ended, mut kept) = (Vec::new(), 0, Vec::new());
    for (outbox, id) in all {
        let (frames, end) = take(outbox);
        let frames: Vec<Frame> = frames.into_iter().collect();
        kept.push(end.is_none());
        match end {
            None => {
                assert_eq!(ids(&frames, "update"), without(id));
                whole.push(frames);
            }
            Some(close) => {
                assert_eq!((close.code, frames.len()), (4408, 0));
                ended += 1;
            }
        }
    }
    assert!(ended > 0 && whole.len() > 3, "{ended} ended, {} told", whole.len());
    assert!(kept.is_sorted(), "{kept:?}");
    let waits = bytes(&whole);
    let one = bytes(&whole[..1]);
    assert!(waits > BYTES - one && waits <= BYTES + one, "{waits}");

    // The next commit finds as much room as the first.
    write_all(&mut desk, 2);
    let (frames, end) = take(&same);
    let frames: Vec<Frame> = frames.into_iter().collect();
    assert_eq!((ids(&frames, "update"), end), (without(0), None));
}

/// Looking again who holds the frames is for those alone who need new ones.
#[test]
fn who_is_told_what_was_made_is_told_beyond_the_bound() {
    let mut desk = Desk::new(small());
    let first = |request: &mut Request| request.ask.filter = Some(json!({"id": {"$lte": 1}}));
    let mut slow: Vec<_> = (1..=4).map(|id| all_but(&mut desk, id)).collect();
    let quick = desk.listen(first);
    quick.attach(Arc::new(Open));
    // With this one it is over.
    slow.push(all_but(&mut desk, 5));
    let same = desk.listen(|request| request.ask.filter = Some(json!({"id": {"$lt": 2}})));
    let late = all_but(&mut desk, 6);
    write_all(&mut desk, 0);
    slow.iter().chain([&same, &late]).for_each(|outbox| drop(take(outbox)));
    write_all(&mut desk, 1);

    // The first of those who keep much makes room for the last.
    let (frames, end) = take(&same);
    assert_eq!((ids(&Vec::from(frames), "update"), end), (vec![1], None));
    let (frames, end) = take(&late);
    assert_eq!((ids(&Vec::from(frames), "update"), end), (without(6), None));
    let ended: Vec<_> = slow.iter().map(|outbox| take(outbox).1.map(|end| end.code)).collect();
    assert!(ended.is_sorted_by(|a, b| a >= b), "{ended:?}");
    assert!(ended[0] == Some(4408) && ended[4].is_none(), "{ended:?}");
}

/// They make room for those who read.
#[test]
fn who_does_not_read_ends_nobody_else() {
    let mut desk = Desk::new(small());
    let stuck: Vec<_> = (1..=6).map(|id| all_but(&mut desk, id)).collect();
    let quick: Vec<_> = (7..=LISTENERS).map(|id| all_but(&mut desk, id)).collect();
    quick.iter().for_each(|outbox| outbox.attach(Arc::new(Open)));
    let after = all_but(&mut desk, LISTENERS + 1);
    write_all(&mut desk, 0);
    desk.matcher.flush();
    stuck.iter().chain([&after]).for_each(|outbox| drop(take(outbox)));
    stuck.iter().for_each(|outbox| outbox.attach(Arc::new(Shut(0.into()))));
    write_all(&mut desk, 1);
    desk.matcher.flush();
    for outbox in &quick {
        assert_eq!((outbox.waiting(), end(outbox)), ((0, 0), None));
    }
    // He has not begun to read, but less waits for the others by then.
    assert_eq!(end(&after), None);
    let ended: Vec<_> = stuck.iter().map(|outbox| end(outbox)).collect();
    assert!(ended[0] == Some(4408) && ended[5].is_none(), "{ended:?}");
    assert!(stuck.iter().map(|outbox| outbox.waiting().1).sum::<usize>() <= BYTES);
}

/// Each holds another commit, which found nothing waiting before it.
#[test]
fn what_waits_of_several_commits_is_bounded() {
    let limits = Limits { recent_bytes: 0, outbox_bytes: 64 << 10, ..small() };
    let most = limits.held_bytes() + limits.tail_bytes;
    let mut desk = Desk::new(limits);
    let mut slow = Vec::new();
    for n in 0..16 {
        let ids = n * RECORDS + 1..=(n + 1) * RECORDS;
        let filter = json!({"id": {"$gte": ids.start(), "$lte": ids.end()}});
        slow.push(desk.listen(|request| request.ask.filter = Some(filter)));
        let puts: Vec<Put> = ids.map(|id| ("blog", id, Some(title(id)))).collect();
        desk.put(&puts);
        let waits = slow.iter().map(|outbox| outbox.waiting().1).sum::<usize>();
        assert!(waits <= most + BYTES, "{waits}");
    }
    let ended: Vec<_> = slow.iter().map(|outbox| end(outbox)).collect();
    // The frames of other tests count too: perhaps more than one had to end.
    assert!(ended.contains(&Some(4408)) && ended[15].is_none(), "{ended:?}");
}

/// What has begun to go out stays until it is out.
#[test]
fn what_nobody_can_let_go_of_is_bounded() {
    let mut desk = Desk::new(small());
    let stuck: Vec<_> = (1..=LISTENERS).map(|id| all_but(&mut desk, id)).collect();
    write_all(&mut desk, 0);
    stuck.iter().for_each(|outbox| drop(take(outbox)));
    stuck.iter().for_each(|outbox| outbox.attach(Arc::new(Shut(1.into()))));
    write_all(&mut desk, 1);
    desk.matcher.flush();
    let (mut codes, mut bytes) = (BTreeSet::new(), 0);
    for outbox in &stuck {
        bytes += outbox.waiting().1;
        let close = take(outbox).1;
        codes.extend(close.iter().map(|close| close.code));
        let refused = close.filter(|close| close.code == 4410);
        assert!(refused.is_none_or(|close| close.reason.contains("take a snapshot")));
    }
    assert_eq!(codes, [4408, 4410].into());
    assert!(bytes <= BYTES + BYTES / 4, "{bytes}");
}

/// Takes so many bytes, and then nothing.
struct Shut(std::sync::atomic::AtomicUsize);

impl Sink for Shut {
    fn try_write_vectored(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.0.swap(0, std::sync::atomic::Ordering::Relaxed) {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            bytes => Ok(bytes),
        }
    }
}

/// Takes everything at once, and keeps nothing.
struct Open;

impl Sink for Open {
    fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(bufs.iter().map(|buf| buf.len()).sum())
    }
}

#[test]
fn what_sockets_take_does_not_count() {
    let mut desk = Desk::new(small());
    let outboxes: Vec<_> = (1..=LISTENERS).map(|id| all_but(&mut desk, id)).collect();
    outboxes.iter().for_each(|outbox| outbox.attach(Arc::new(Open)));
    for n in 0..3 {
        write_all(&mut desk, n);
        desk.matcher.flush();
    }
    for outbox in &outboxes {
        assert_eq!((outbox.waiting(), end(outbox)), ((0, 0), None));
    }
}

/// As many hits as do not fit at once: told in turns, and nobody is told twice or not at all.
#[test]
fn what_is_found_is_bounded() {
    let tell = |tail_bytes: usize| {
        let mut desk = Desk::new(Limits { tail_bytes, ..Limits::default() });
        let mut outboxes: Vec<_> = (1..=LISTENERS).map(|id| all_but(&mut desk, id)).collect();
        for id in 1..=LISTENERS {
            let filter = json!({"$or": [{"views": {"$gte": id}}, {"category.name": "x"}]});
            let outbox = desk.listen(|request| {
                request.ask.filter = Some(filter.clone());
                request.told.transitions = true;
            });
            outboxes.push(outbox);
        }
        let pipes: Vec<_> = outboxes.iter().map(|_| Arc::new(Kept::default())).collect();
        outboxes.iter().zip(&pipes).for_each(|(outbox, pipe)| outbox.attach(pipe.clone()));
        desk.put(&[("category", 1, Some(json!({"name": "y"})))]);
        for n in 0..3 {
            let put = |id: i64| {
                let category = (id % 2 == 0).then_some(1);
                let views = (id * 7 + n * 13) % (LISTENERS + 10);
                ("blog", id, Some(json!({"title": "t", "views": views, "category_id": category})))
            };
            let puts: Vec<Put> = (1..=RECORDS).map(put).collect();
            desk.put(&puts);
            desk.matcher.flush();
            let name = if n == 1 { "x" } else { "z" };
            desk.put(&[("category", 1, Some(json!({"name": name})))]);
            desk.matcher.flush();
        }
        outboxes.iter().for_each(|outbox| assert_eq!(end(outbox), None));
        pipes.iter().map(|pipe| pipe.0.lock().unwrap().clone()).collect::<Vec<_>>()
    };
    let (narrow, wide) = (tell(32 << 10), tell(64 << 20));
    assert!(wide.iter().all(|told| !told.is_empty()));
    assert!(narrow == wide);
}

/// Takes everything at once, and keeps it.
#[derive(Default)]
struct Kept(std::sync::Mutex<Vec<u8>>);

impl Sink for Kept {
    fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut kept = self.0.lock().unwrap();
        bufs.iter().for_each(|buf| kept.extend_from_slice(buf));
        Ok(bufs.iter().map(|buf| buf.len()).sum())
    }
}
