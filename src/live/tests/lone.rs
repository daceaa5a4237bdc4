//! A commit that is alone and concerns few is told by whoever wrote it.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};

use serde_json::json;
use tokio::task::JoinHandle;

use super::desk::Desk;
use super::rounds::Writes;
use super::world::*;
use crate::limits::Limits;
use crate::live::helm::Helm;
use crate::live::outbox::{Feed, Sink};
use crate::live::subscription::Command;
use crate::live::*;
use crate::model::change::{Commit, Notice, Op};
use crate::store::CommitSink;

/// A socket that takes nothing.
struct Full;

impl Sink for Full {
    fn try_write_vectored(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// One commit that makes one blog.
fn one(desk: &mut Desk) -> Vec<Arc<Commit>> {
    vec![desk.write(&[("blog", 1, Some(json!({"title": "a", "views": 1})))], |_| {})]
}

fn listen(desk: &mut Desk, count: usize, change: fn(&mut Request, usize)) {
    for n in 0..count {
        desk.listen(|request| change(request, n));
    }
}

fn by_id(request: &mut Request, n: usize) {
    request.id = Some((n + 1).to_string());
}

fn by_views(request: &mut Request, n: usize) {
    request.ask.filter = Some(json!({"views": n}));
}

/// What no index finds, and none of what is written here matches.
fn by_what_it_lacks(request: &mut Request, n: usize) {
    let parts =
        [json!({"title": {"$notcontains": "a"}}), json!({"title": {"$neq": n.to_string()}})];
    request.ask.filter = Some(json!({"$and": parts}));
}

fn with_category(request: &mut Request, _: usize) {
    request.ask.select = Some("title,category".into());
    request.told.transitions = true;
}

/// Each reads through other relations than the others, back and forth.
fn far(desk: &mut Desk, count: usize) {
    desk.limits = Arc::new(Limits { select_hops: count, ..Limits::default() });
    for hops in 1..=count {
        let path: Vec<&str> = ["category", "blogs"].into_iter().cycle().take(hops).collect();
        desk.listen(|request| {
            request.ask.select = Some(path.join("."));
            request.told.transitions = true;
        });
    }
}

type Listen = fn(&mut Desk);
type Write = fn(&mut Desk) -> Vec<Arc<Commit>>;

/// Who listens, what is written, whether the writer is idle then, and whether it tells.
const CASES: &[(&str, Listen, Write, bool, bool)] = &[
    ("nobody", |_| {}, one, true, true),
    ("one", |desk| listen(desk, 1, |_, _| {}), one, true, true),
    ("a writer with other work", |desk| listen(desk, 1, |_, _| {}), one, false, false),
    ("as many as are few", |desk| listen(desk, 8, |_, _| {}), one, true, true),
    ("a broadcast", |desk| listen(desk, 9, |_, _| {}), one, true, false),
    ("many, each for one record", |desk| listen(desk, 100, by_id), one, true, true),
    ("many filters", |desk| listen(desk, 100, by_views), one, true, true),
    ("some texts", |desk| listen(desk, 20, by_what_it_lacks), one, true, true),
    ("more texts than are read soon", |desk| listen(desk, 62, by_what_it_lacks), one, true, false),
    ("a scan", |desk| listen(desk, 65, by_what_it_lacks), one, true, false),
    (
        "two at once",
        |desk| listen(desk, 1, |_, _| {}),
        |desk| [one(desk), one(desk)].concat(),
        true,
        false,
    ),
    (
        "many records",
        |desk| listen(desk, 1, |_, _| {}),
        |desk| {
            let blog = |id| ("blog", id, Some(json!({"title": "a"})));
            vec![desk.write(&[blog(1), blog(2), blog(3), blog(4), blog(5)], |_| {})]
        },
        true,
        false,
    ),
    (
        "much of one",
        |desk| listen(desk, 1, |_, _| {}),
        |desk| vec![desk.write(&[("blog", 1, Some(json!({"title": "a".repeat(20_000)})))], |_| {})],
        true,
        false,
    ),
    (
        "who reads through a relation",
        |desk| listen(desk, 1, with_category),
        |desk| vec![desk.write(&[("category", 1, Some(json!({"name": "a"})))], |_| {})],
        true,
        false,
    ),
    ("many who read through relations", |desk| far(desk, 65), one, true, false),
    (
        "after many who read through relations",
        |desk| {
            far(desk, 65);
            for id in 1..=65 {
                desk.matcher.registry.detach(id).expect("it listens");
            }
        },
        one,
        true,
        true,
    ),
    (
        "a fault, which ends somebody",
        |desk| listen(desk, 1, |_, _| {}),
        |desk| {
            let blog = ("blog", 1, Some(json!({"title": "a"})));
            vec![desk.write(&[blog], |commit| commit.changes[0].schema_version += 1)]
        },
        true,
        false,
    ),
    (
        "a session's end",
        |desk| listen(desk, 1, |_, _| {}),
        |desk| {
            let notice = Notice::Session { user: uuid::Uuid::nil(), session: None };
            vec![desk.write(&[], |commit| commit.notices.push(notice))]
        },
        true,
        false,
    ),
    (
        "a role",
        |_| {},
        |desk| {
            let role = desk.schema("role").id;
            let blog = ("blog", 1, Some(json!({"title": "a"})));
            vec![desk.write(&[blog], |commit| commit.changes[0].schema = role)]
        },
        true,
        false,
    ),
];

/// Without a thread: what is told is told by whoever brings it.
#[test]
fn what_is_light_needs_no_thread() {
    for (what, listen, write, idle, told) in CASES {
        let mut desk = Desk::new(Limits::default());
        listen(&mut desk);
        let commits = write(&mut desk);
        let Desk { matcher, mut sink, position, .. } = desk;
        let (queue, helm) = (matcher.queue.clone(), Helm::new(matcher));
        sink.committed(&commits);
        sink.answered(*idle);
        let mark = |helm: &Helm| helm.look(|matcher| matcher.mark.position);
        assert_eq!(mark(&helm), if *told { position } else { 0 }, "{what}");
        // What is left is the thread's.
        until(&helm, position);
        assert_eq!(queue.waiting().0, 0, "{what}");
    }
}

#[test]
fn after_much_the_thread_is_told_at_once_until_it_has_little_again() {
    let mut desk = Desk::new(Limits::default());
    listen(&mut desk, 9, |request, _| request.ask.filter = Some(json!({"views": {"$gte": 10}})));
    let ear = desk.listen(|_| {});
    let views = [1, 10, 1, 1, 11, 12, 1, 1];
    let tells = [true, false, false, true, false, false, false, true];
    let commits: Vec<_> = (1..)
        .zip(views)
        .map(|(id, views)| {
            desk.write(&[("blog", id, Some(json!({"title": "a", "views": views})))], |_| {})
        })
        .collect();
    let Desk { matcher, mut sink, .. } = desk;
    let helm = Helm::new(matcher);
    for (commit, tells) in commits.iter().zip(tells) {
        sink.committed(std::slice::from_ref(commit));
        sink.answered(true);
        let mark = helm.look(|matcher| matcher.mark.position);
        assert_eq!(mark == commit.position, tells, "{}", commit.position);
        assert!(helm.step().is_some());
        assert_eq!(helm.look(|matcher| matcher.mark.position), commit.position);
    }
    assert_eq!(take(&ear).0.len(), commits.len());
}

#[test]
fn between_the_commits_of_an_import_little_is_told_at_once() {
    let mut desk = Desk::new(Limits::default());
    let ear = desk.listen(|_| {});
    let blog = |id| ("blog", id, Some(json!({"title": "a"})));
    let commits: Vec<_> = [&[1, 2, 3, 4, 5][..], &[6], &[7], &[11, 12, 13, 14, 15], &[16]]
        .map(|ids| desk.write(&ids.iter().copied().map(blog).collect::<Vec<_>>(), |_| {}))
        .into();
    let Desk { matcher, mut sink, .. } = desk;
    let helm = Helm::new(matcher);
    for commit in &commits {
        sink.committed(std::slice::from_ref(commit));
        sink.answered(true);
        let mark = helm.look(|matcher| matcher.mark.position);
        assert_eq!(mark == commit.position, commit.changes.len() == 1, "{}", commit.position);
        assert!(helm.step().is_some());
    }
    let records: usize = commits.iter().map(|commit| commit.changes.len()).sum();
    assert_eq!(take(&ear).0.len(), records);
}

/// Many plans come up for a commit: those of its schema that follow are left to the thread for a
/// while, without a look at what comes up for them, and those of another schema are not.
#[test]
fn a_schema_of_many_candidates_is_not_tried_again_soon() {
    let mut desk = Desk::new(Limits::default());
    // The index finds them by their views; none of them matches what is written here.
    listen(&mut desk, 4_097, |request, n| {
        let parts =
            [json!({"title": {"$notcontains": "a"}}), json!({"title": {"$neq": n.to_string()}})];
        request.ask.filter = Some(json!({"views": 1, "$and": parts}));
    });
    let ear = desk.listen(|_| {});
    let blog = |views: i64| ("blog", 1, Some(json!({"title": "a", "views": views})));
    let rounds: Vec<_> = (0..2)
        .map(|_| {
            let many = desk.write(&[blog(1)], |_| {});
            let others = [1, 2].map(|id| {
                let category = ("category", id, Some(json!({"name": "a"})));
                desk.write(&[category], |_| {})
            });
            let few: Vec<_> = (0..300).map(|_| desk.write(&[blog(2)], |_| {})).collect();
            (many, others, few)
        })
        .collect();
    let Desk { matcher, mut sink, .. } = desk;
    let helm = Helm::new(matcher);
    // Whether the writer told it.
    let mut told = |commit: &Arc<Commit>| {
        sink.committed(std::slice::from_ref(commit));
        sink.answered(true);
        let by_writer = helm.look(|matcher| matcher.mark.position) == commit.position;
        until(&helm, commit.position);
        by_writer
    };
    for (many, others, few) in &rounds {
        assert!(!told(many));
        // After much the first is brought to the thread, which finds that it is little.
        assert_eq!(others.each_ref().map(&mut told), [false, true], "another schema");
        let left = few.iter().take_while(|commit| !told(commit)).count();
        assert!((250..=260).contains(&left), "{left} were left to the thread");
        assert!(few[left + 1..].iter().all(&mut told));
    }
    assert_eq!(take(&ear).0.len(), 602);
}

#[test]
fn a_command_between_a_commit_and_its_answer_keeps_its_place() {
    let mut desk = Desk::new(Limits::default());
    let (first, second) = (desk.listen(|_| {}), desk.listen(|_| {}));
    let commits = [one(&mut desk), one(&mut desk)].concat();
    let Desk { matcher, mut sink, .. } = desk;
    let helm = Helm::new(matcher);
    sink.committed(&commits[..1]);
    assert!(helm.command(Command::Detach(1, true)));
    sink.answered(true);
    assert_eq!(take(&first).0.len(), 0, "the thread's, as two wait");
    while helm.look(|matcher| matcher.registry.subscriber(1).is_some()) {
        assert!(helm.step().is_some());
    }
    assert_eq!(take(&first).0.len(), 1, "before it left");
    sink.committed(&commits[1..]);
    sink.answered(true);
    assert_eq!((take(&first).0.len(), take(&second).0.len()), (0, 2));
}

/// Has the matcher's work done without a thread until it has come to `position`.
fn until(helm: &Helm, position: u64) {
    while helm.look(|matcher| matcher.mark.position) < position {
        assert!(helm.step().is_some());
    }
}

#[test]
fn the_writer_waits_for_nobody_who_is_at_an_outbox() {
    let mut desk = Desk::new(Limits::default());
    let (busy, free) = (desk.listen(|_| {}), desk.listen(|_| {}));
    let [to_busy, to_free] = [&busy, &free].map(|outbox| {
        let writes = Arc::new(Writes::default());
        outbox.attach(writes.clone());
        writes
    });
    let commits = [one(&mut desk), one(&mut desk)].concat();
    let Desk { matcher, mut sink, .. } = desk;
    let (queue, helm) = (matcher.queue.clone(), Helm::new(matcher));
    assert_eq!(busy.feed(0, &[Frame::new(Plain.position("before"), None)]), Feed::Taken);
    let ((come, came), (go, gone)) = (mpsc::channel(), mpsc::channel());
    let task = std::thread::spawn({
        let busy = busy.clone();
        move || {
            let cx = Context::from_waker(Waker::noop());
            busy.write(&cx, |bufs| {
                come.send(()).expect("somebody waits");
                gone.recv().expect("somebody lets it go on");
                Ok(bufs.iter().map(|buf| buf.len()).sum())
            })
        }
    });
    came.recv().expect("it writes");
    sink.committed(&commits[..1]);
    sink.answered(true);
    assert_eq!(helm.look(|matcher| matcher.mark.position), 1);
    assert_eq!((to_free.take().0.len(), to_busy.take().0.len()), (1, 0));
    assert!(queue.lone().is_none() && queue.waiting() == (0, 0), "what is left is no commit");
    // The next one waits behind what is left.
    sink.committed(&commits[1..]);
    sink.answered(true);
    assert_eq!(helm.look(|matcher| matcher.mark.position), 1);
    go.send(()).expect("it waits");
    task.join().expect("no panic").expect("written");
    until(&helm, 2);
    let (free, busy) = (to_free.take(), to_busy.take());
    assert_eq!((free.0.len(), busy.0.len()), (1, 2));
    assert!(busy.1.ends_with(&free.1) && busy.1.len() > free.1.len(), "both, in order");
}

#[test]
fn who_is_too_slow_is_seen_to_by_the_thread() {
    let limits = Limits { outbox_frames: 2, ..Limits::default() };
    let mut desk = Desk::new(limits);
    let slow = desk.listen(|_| {});
    slow.attach(Arc::new(Full));
    let commits: Vec<_> = (0..4).flat_map(|_| one(&mut desk)).collect();
    let Desk { matcher, mut sink, .. } = desk;
    let (queue, helm) = (matcher.queue.clone(), Helm::new(matcher));
    // The first finds the outbox empty; two more fit behind it.
    for (commit, left) in commits.iter().zip([false, false, false, true]) {
        sink.committed(std::slice::from_ref(commit));
        sink.answered(true);
        assert_eq!(helm.look(|matcher| matcher.mark.position), commit.position);
        assert_eq!(slow.ended(), None);
        assert_eq!(queue.has_late(), left, "{}", commit.position);
    }
    assert!(helm.step().is_some());
    assert_eq!(slow.ended().map(|close| close.code), Some(4408));
}

/// Its connection may last for a while, and carry what has begun.
#[test]
fn who_is_too_slow_is_matched_for_no_longer() {
    let limits = Limits { outbox_frames: 2, ..Limits::default() };
    let mut desk = Desk::new(limits);
    let slow = desk.listen(|_| {});
    slow.attach(Arc::new(Full));
    let put = |desk: &mut Desk| drop(desk.put(&[("blog", 1, Some(json!({"title": "a"})))]));
    let there = |desk: &Desk| desk.matcher.registry.subscribers().count();
    for _ in 0..3 {
        put(&mut desk);
        assert_eq!((there(&desk), slow.ended()), (1, None));
    }
    put(&mut desk);
    assert!(slow.ended().is_some());
    assert_eq!(there(&desk), 0);
    // Nor for one who was ended by somebody else.
    let ended = desk.listen(|_| {});
    ended.close(Close::new(1001, ""));
    put(&mut desk);
    assert_eq!(there(&desk), 0);
}

/// Whoever stays hears every commit once and in order; who comes and goes, all between.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lone_and_crowded_commits_are_told_once_and_in_order() {
    let mut world = World::new(Limits::default());
    let some = |request: &mut Request| request.ask.filter = Some(json!({"views": 1}));
    let many = |request: &mut Request| request.ask.filter = Some(json!({"title": "all"}));
    let (few, mut all) = (world.listen(some).await, Vec::new());
    for _ in 0..20 {
        all.push(world.listen(many).await);
    }
    let over = Arc::new(AtomicBool::new(false));
    let comers: Vec<_> = (0..3).map(|_| come_and_go(&world, over.clone())).collect();
    let mut seed = 7_u64;
    let mut roll = |sides: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % sides
    };
    let (mut for_few, mut for_all) = (Vec::new(), Vec::new());
    while world.position < 6_000 {
        let count = if roll(4) == 0 { 1 + roll(5) } else { 1 };
        let mut commits = Vec::new();
        for _ in 0..count {
            let id = world.position as i64 + 1;
            // Runs of what is light, and of what is not.
            let title = if (id / 40) % 3 == 0 && roll(3) == 0 { "all" } else { "a" };
            let views = roll(2);
            let change = world.blog(Op::Create, id, json!({"title": title, "views": views}));
            commits.push(world.made(vec![change], vec![]));
            if title == "all" {
                for_all.push(id);
            }
            if views == 1 {
                for_few.push(id);
            }
        }
        world.sink.committed(&commits);
        if roll(8) == 0 {
            tokio::task::yield_now().await;
        }
        world.sink.answered(roll(4) != 0);
        match roll(40) {
            0 => world.told().await,
            1..5 => tokio::task::yield_now().await,
            _ => {}
        }
        if world.position % 400 < count {
            for (ear, due) in [(&few, &mut for_few), (&all[0], &mut for_all)] {
                assert_eq!(ids(&world, ear).await, std::mem::take(due));
            }
            for ear in &all[1..] {
                take(&ear.outbox);
            }
        }
    }
    over.store(true, Ordering::SeqCst);
    let mut heard = BTreeSet::new();
    for comer in comers {
        heard.extend(comer.await.expect("no panic"));
    }
    assert!(heard.len() > 100, "they heard {} commits", heard.len());
    assert_eq!(ids(&world, &few).await, for_few);
    assert_eq!(ids(&world, &all[19]).await.last(), for_all.last());
    assert_eq!(world.live.stats().await.subscriptions, 21);
}

async fn ids(world: &World, ear: &Ear) -> Vec<i64> {
    let heard = world.heard(ear).await;
    heard.iter().map(|message| message["data"]["id"].as_i64().expect("an id")).collect()
}

/// Subscribes to everything, listens for a while and leaves, again and again; gives all it heard.
fn come_and_go(world: &World, over: Arc<AtomicBool>) -> JoinHandle<Vec<u64>> {
    let (live, limits) = (world.live.clone(), world.limits.clone());
    let mut request = world.request(crate::auth::principal::Principal::owner());
    request.start = Start::Now;
    tokio::spawn(async move {
        let mut all = Vec::new();
        let mut stay = 0;
        while !over.load(Ordering::SeqCst) {
            let outbox = Outbox::new(&limits, Close::new(4408, "slow"));
            let subscription = live.subscribe(request.clone(), outbox.clone()).await;
            let _subscription = subscription.expect("subscribed");
            stay = (stay * 5 + 1) % 37;
            for _ in 0..stay {
                tokio::task::yield_now().await;
            }
            // All that was committed before it leaves has been told then.
            let until = live.recent().reach().1;
            live.stats().await;
            let heard: Vec<u64> =
                take(&outbox).0.iter().filter_map(Frame::cursor).map(|c| c.position).collect();
            let first = *heard.first().expect("where it became active");
            let last = heard.last().copied().unwrap_or(first);
            assert_eq!(heard, (first..=last).collect::<Vec<_>>(), "a hole, or out of order");
            assert!(last >= until, "{last} of {until}");
            all.extend(heard);
        }
        all
    })
}
