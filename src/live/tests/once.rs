//! What is done once, or some at a time, however many it is for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::desk::*;
use super::rounds::{Asked, Writes};
use super::world::take;
use crate::limits::Limits;
use crate::live::helm::Helm;
use crate::live::*;
use crate::model::change::Commit;
use crate::store::CommitSink;

fn blog(id: i64, title: &str) -> Put {
    ("blog", id, Some(json!({"title": title, "views": 1, "category_id": 1})))
}

/// More listeners than a writer tells.
fn many(desk: &mut Desk) -> Vec<Arc<Outbox>> {
    (0..9).map(|_| desk.listen(|_| {})).collect()
}

fn one(desk: &mut Desk, id: i64) -> Arc<Commit> {
    desk.write(&[blog(id, "a")], |_| {})
}

/// Who would tell a commit looks whom it concerns; who tells it goes on from there.
#[test]
fn whom_a_commit_concerns_is_found_once() {
    let mut desk = Desk::new(Limits::default());
    let ears = many(&mut desk);
    let commits = [1, 2].map(|id| one(&mut desk, id));
    let Desk { matcher, mut sink, .. } = desk;
    let helm = Helm::new(matcher);
    let seen = |helm: &Helm| helm.look(|matcher| (matcher.mark.position, matcher.fanout.finds));
    for (commit, before) in commits.iter().zip(0..) {
        sink.committed(std::slice::from_ref(commit));
        sink.answered(true);
        // After much the second is brought to the thread at once.
        assert_eq!(seen(&helm), (before, 1));
        assert!(helm.step().is_some());
        assert_eq!(seen(&helm), (before + 1, before as usize + 1));
        assert!(ears.iter().all(|ear| heard(ear).len() == 1));
    }
}

#[test]
fn what_was_found_of_others_or_for_others_is_not_told() {
    let mut desk = Desk::new(Limits::default());
    let ears = many(&mut desk);
    let [first, second, third] = [1, 2, 3].map(|id| one(&mut desk, id));
    // Somebody leaves and somebody comes meanwhile.
    assert!(desk.matcher.lone(&first).is_none());
    assert!(desk.matcher.registry.detach(1).is_some());
    let late = desk.listen(|_| {});
    desk.matcher.commit(&first);
    assert_eq!(heard(&ears[0]), Vec::<Json>::new());
    assert!(ears[1..].iter().chain([&late]).all(|ear| heard(ear).len() == 1));
    assert_eq!(desk.matcher.fanout.finds, 2);
    // Another commit is told instead.
    assert!(desk.matcher.lone(&second).is_none());
    desk.matcher.commit(&third);
    for ear in &ears[1..] {
        let heard = heard(ear);
        assert_eq!((heard.len(), &heard[0]["data"]["id"]), (1, &json!(3)));
    }
}

/// Each message as its event and its ids.
fn brief(outbox: &Outbox) -> Vec<(String, Vec<i64>)> {
    let id = |record: &Json| record["id"].as_i64().expect("an id");
    let ids = |data: &Json| {
        data.as_array().map_or_else(|| vec![id(data)], |all| all.iter().map(id).collect())
    };
    let event = |message: &Json| message["event"].as_str().expect("an event").to_owned();
    heard(outbox).iter().map(|message| (event(message), ids(&message["data"]))).collect()
}

/// Whoever reads through relations hears of what it reads, whatever others read.
#[test]
fn what_records_depend_on_is_told_to_all_who_read_it() {
    const HOPS: usize = 5;
    let mut desk = Desk::new(Limits { select_hops: HOPS, ..Limits::default() });
    desk.put(&[("category", 1, Some(json!({"name": "news"})))]);
    let all: Vec<i64> = (1..=3).collect();
    let blogs: Vec<Put> = all.iter().map(|id| blog(*id, "a")).collect();
    desk.put(&blogs);
    let listen = |desk: &mut Desk, schema: &'static str, path: String| {
        desk.listen(|request| {
            request.ask.schema = schema.into();
            request.ask.select = Some(format!("id,{path}"));
            request.told.transitions = true;
        })
    };
    let path = |hops| -> String {
        ["category", "blogs"].into_iter().cycle().take(hops).collect::<Vec<_>>().join(".")
    };
    // Each reads through other relations than the others; two alike.
    let ears: Vec<_> =
        (1..=HOPS).chain([1]).map(|hops| listen(&mut desk, "blog", path(hops))).collect();
    let back = listen(&mut desk, "category", "blogs".into());
    desk.put(&[("category", 1, Some(json!({"name": "sport"})))]);
    for ear in &ears {
        assert_eq!(brief(ear), [("update".into(), all.clone())]);
    }
    assert_eq!(brief(&back), [("update".into(), vec![1])]);
    // Only who reads the category's blogs reads the other blogs too.
    desk.put(&[blog(1, "b")]);
    for (ear, hops) in ears.iter().zip((1..=HOPS).chain([1])) {
        let heard: Vec<i64> = brief(ear).into_iter().flat_map(|(_, ids)| ids).collect();
        let heard = std::collections::BTreeSet::from_iter(heard);
        assert_eq!(heard.len(), if hops > 1 { 3 } else { 1 }, "{hops}");
    }
    assert_eq!(brief(&back), [("update".into(), vec![1])]);
    // Too many depend on the blog by one relation: who reads by another is told.
    let category = desk.schema("category");
    let commit = desk.write(&[blog(1, "c")], |commit| {
        let by = (category.id, category.relations[0].name.clone());
        assert!(commit.related.dependants.by.insert(by, None).is_some());
    });
    desk.matcher.commit(&commit);
    assert_eq!(end(&back), Some(4410));
    assert!(ears.iter().all(|ear| !brief(ear).is_empty() && end(ear).is_none()));
}

/// Each hears once where the stream stands, as of its turn, whoever comes and goes between.
#[test]
fn positions_are_told_some_at_a_time() {
    let mut desk = Desk::new(Limits { ping_every: Duration::ZERO, ..Limits::default() });
    let ears: Vec<_> = (0..600)
        .map(|n| {
            desk.listen(|request| {
                request.start = Start::Now;
                request.told.changes = n % 2 == 0;
                request.ask.filter = Some(json!({"views": 1_000 + n / 300}));
            })
        })
        .collect();
    let told =
        |ears: &[Arc<Outbox>]| -> Vec<Vec<Json>> { ears.iter().map(|ear| heard(ear)).collect() };
    let count = |told: &[Vec<Json>], at: u64| {
        let here = |message: &Json| message["cursor"] == at;
        told.iter().flatten().filter(|message| here(message)).count()
    };
    assert_eq!(count(&told(&ears), 0), 600, "where each became active");
    desk.put(&[blog(1, "a")]);
    desk.matcher.clockwork();
    let first = told(&ears);
    assert_eq!((count(&first, 1), first.concat().len()), (256, 256));
    assert!(desk.matcher.due() <= Instant::now(), "it goes on");
    // What is told between is the later ones' position. Some leave and some come, each moving others.
    desk.put(&[blog(2, "a")]);
    for id in (1..=600).step_by(50) {
        assert!(desk.matcher.registry.detach(id).is_some());
    }
    let late = desk.listen(|request| {
        request.start = Start::Now;
        request.ask.filter = Some(json!({"views": 1_000}));
    });
    assert_eq!(heard(&late)[0]["cursor"], 2);
    let mut all = first;
    for _ in 0..2 {
        desk.matcher.clockwork();
        for (all, more) in all.iter_mut().zip(told(&ears)) {
            all.extend(more);
        }
    }
    let stays = |n: &usize| !n.is_multiple_of(50);
    assert!(all.iter().enumerate().all(|(n, told)| !stays(&n) || !told.is_empty()), "all are told");
    assert_eq!(heard(&late), Vec::<Json>::new());
    // Nobody is behind after another pass, and nobody is told anything twice.
    for _ in 0..3 {
        desk.matcher.clockwork();
        for (all, more) in all.iter_mut().zip(told(&ears)) {
            all.extend(more);
        }
    }
    for (n, told) in all.iter().enumerate().filter(|(n, _)| stays(n)) {
        let cursors: Vec<u64> = told.iter().filter_map(|told| told["cursor"].as_u64()).collect();
        assert!(cursors == [1, 2] || cursors == [2], "{n}: {cursors:?}");
    }
}

/// A plan whose listeners are told in different ways has their writes made together all the same.
#[test]
fn the_carrier_writes_to_all_groups_of_a_plan_at_once() {
    let mut desk = Desk::new(Limits::default());
    let events = [Events::ALL, Events::only(Event::Create)];
    let ways = events.into_iter().flat_map(|events| [(events, false), (events, true)]);
    let ways: Vec<_> =
        ways.flat_map(|way| [None, Some("1"), None, None].map(|id| (way, id))).collect();
    let mut ears = Vec::new();
    for ((events, cursors), id) in ways {
        let outbox = desk.listen(|request| {
            request.events = events;
            request.start = if cursors { Start::Now } else { Start::Live };
            request.id = id.map(str::to_owned);
        });
        take(&outbox);
        let writes = Arc::new(Writes::default());
        outbox.attach(writes.clone());
        ears.push((cursors, id, writes));
    }
    let asked = Asked::default();
    desk.matcher.fanout.carry_with(Box::new(asked.clone()));
    for id in 1..=3 {
        let commit = one(&mut desk, id);
        desk.sink.committed(&[commit]);
        assert!(desk.matcher.step());
        assert_eq!(asked.0.swap(0, Ordering::Relaxed), 1);
        for (cursors, only, writes) in &ears {
            let (writes, bytes) = writes.take();
            let hears = only.is_none() || id == 1;
            assert_eq!(writes.len(), usize::from(hears));
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert_eq!(text.contains("\"cursor\":\""), hears && *cursors, "{text}");
        }
    }
}
