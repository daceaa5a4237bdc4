//! A matcher that is so far behind that commits are dropped, and read again from the log.
//!
//! Who subscribes does the matcher's work, so one worker of each test is held with it.

use std::sync::mpsc;
use std::sync::{Arc, atomic::Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::world::*;
use crate::auth::principal::Principal;
use crate::limits::Limits;
use crate::live::*;
use crate::model::change::{Change, Commit, Notice, Op, Row};
use crate::model::schema::SchemaId;
use crate::model::value::Value;
use crate::store::CommitSink;

/// A subscription whose making holds the matcher until it is let go.
struct Held {
    go: mpsc::Sender<()>,
    attaching: tokio::task::JoinHandle<crate::error::Result<Subscription>>,
    outbox: Arc<Outbox>,
}

/// Makes the matcher wait where it asks for this user.
async fn hold(world: &World) -> Held {
    let (go, hold) = mpsc::channel();
    *world.people.hold.lock().unwrap() = Some(hold);
    let live = world.live.clone();
    let request = world.request(user(Uuid::from_u128(1), &["editor"]));
    let outbox = Outbox::new(&world.limits, Close::new(4408, "slow"));
    let attaching = tokio::spawn({
        let outbox = outbox.clone();
        async move { live.subscribe(request, outbox).await }
    });
    while world.people.hold.lock().unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Held { go, attaching, outbox }
}

fn small() -> World {
    World::new(Limits { tail_bytes: 4 << 10, ..Limits::default() })
}

fn create(world: &mut World, id: i64) {
    let change = world.blog(Op::Create, id, json!({"title": "a"}));
    world.commit(vec![change], vec![]);
}

fn ids(heard: &[Json]) -> Vec<i64> {
    heard.iter().map(|message| message["data"]["id"].as_i64().expect("an id")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_misses_or_doubles_what_was_dropped() {
    let mut world = small();
    let before = world.listen(|_| {}).await;
    let cursors = world.listen(|request| request.start = Start::Now).await;
    let held = hold(&world).await;
    for id in 0..500 {
        create(&mut world, id);
    }
    assert!(world.ground.replays.load(Ordering::SeqCst) == 0, "nothing was read yet");
    held.go.send(()).unwrap();
    // Active before all of them.
    let _subscription = held.attaching.await.unwrap().expect("attached");
    create(&mut world, 500);
    let all: Vec<i64> = (0..=500).collect();
    assert_eq!(ids(&world.heard(&before).await), all);
    assert!(world.ground.replays.load(Ordering::SeqCst) > 0, "the log was read");
    let (frames, end) = take(&held.outbox);
    assert_eq!(end, None);
    let heard: Vec<Json> = frames.iter().map(|frame| payload(&frame.bytes)).collect();
    assert_eq!(ids(&heard), all);
    // The first of them is the position that it began at.
    let (frames, end) = take(&cursors.outbox);
    assert_eq!(end, None);
    let positions = frames.iter().map(|frame| frame.cursor().expect("a cursor").position);
    assert_eq!(positions.collect::<Vec<_>>(), (0..=501).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_may_happen_again_meanwhile() {
    let mut world = small();
    let ear = world.listen(|_| {}).await;
    for round in 0..5 {
        let held = hold(&world).await;
        for id in 0..100 {
            create(&mut world, round * 100 + id);
        }
        held.go.send(()).unwrap();
        drop(held.attaching.await.unwrap().expect("attached"));
    }
    assert_eq!(ids(&world.heard(&ear).await), (0..500).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_dropped_ends_sessions_and_narrows_access_all_the_same() {
    let mut world = small();
    let [ended, demoted] = [2, 3].map(Uuid::from_u128);
    let mut ears = Vec::new();
    for id in [ended, demoted] {
        ears.push(world.ear(world.request(user(id, &["editor"]))).await);
    }
    let blog = world.schema("blog").id;
    let plain = world.listen(|r| r.ask.schema = "category".into()).await;
    let held = hold(&world).await;
    {
        let mut known = world.people.known.lock().unwrap();
        known.insert(ended, None);
        known.insert(demoted, Some(Arc::new(user(demoted, &[]))));
    }
    world.commit(vec![], vec![Notice::Session { user: ended, session: None }]);
    for id in 0..50 {
        let change = world.blog(Op::Create, id, json!({"title": "secret"}));
        world.commit(vec![change], vec![]);
    }
    held.go.send(()).unwrap();
    let _held = held.attaching.await.unwrap().expect("attached");
    assert_eq!(world.ended(&ears[0]).await, 4401);
    assert!(world.heard(&ears[1]).await.is_empty(), "no secret for who may not read it any more");

    // A schema that is broken in what was dropped ends its subscriptions alone.
    let held = hold(&world).await;
    let extra = r#", { "name": "note", "label": "N", "type": "string", "optional": true }"#;
    world.migrate(catalog(2, &files(extra)), vec![blog]);
    for id in 50..100 {
        create(&mut world, id);
    }
    held.go.send(()).unwrap();
    let _held = held.attaching.await.unwrap();
    assert_eq!(world.ended(&ears[1]).await, 4410);
    assert_eq!(take(&plain.outbox).1, None);
    let after = world.ear(world.request(Principal::owner())).await;
    create(&mut world, 100);
    assert_eq!(ids(&world.heard(&after).await), [100]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_that_is_ahead_of_the_queue_is_waited_for() {
    let mut world = small();
    let ear = world.listen(|_| {}).await;
    let held = hold(&world).await;
    for id in 0..50 {
        create(&mut world, id);
    }
    // The log is read under a catalog whose commit the queue does not have yet.
    let extra = r#", { "name": "note", "label": "N", "type": "string", "optional": true }"#;
    let new = catalog(2, &files(extra));
    *world.ground.catalog.lock().unwrap() = new.clone();
    relayout(&world, 2);
    held.go.send(()).unwrap();
    while world.ground.replays.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.migrate(new, vec![]);
    let _held = held.attaching.await.unwrap().expect("attached");
    create(&mut world, 50);
    let heard = world.heard(&ear).await;
    assert_eq!(ids(&heard), (0..=50).collect::<Vec<_>>());
    assert_eq!(heard[50]["data"].get("note"), Some(&Json::Null));
}

/// The paper log gives its rows back as this version of the catalog has them, as a log does.
fn relayout(world: &World, version: u32) {
    let blog = world.schema("blog");
    for commit in world.ground.log.lock().unwrap().iter_mut() {
        let changes = commit.changes.iter().map(|change| {
            let id = change.key.clone();
            let mut values = vec![crate::model::value::Value::Null; blog.columns.len()];
            values[blog.primary] = id;
            let title = blog.columns.iter().position(|column| &*column.name == "title");
            values[title.expect("a title")] = crate::model::value::Value::Text("a".into());
            let row = Arc::new(crate::model::change::Row::new(values));
            Change { schema_version: version, after: Some(row), ..change.clone() }
        });
        *commit = Arc::new(Commit {
            changes: changes.collect(),
            related: commit.related.clone(),
            ..entry(commit.position)
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_has_no_more_ends_everybody() {
    let mut world = small();
    let ear = world.listen(|_| {}).await;
    let held = hold(&world).await;
    for id in 0..50 {
        create(&mut world, id);
    }
    world.ground.log.lock().unwrap().drain(..10);
    held.go.send(()).unwrap();
    let _held = held.attaching.await.unwrap().expect("attached");
    assert_eq!(world.ended(&ear).await, 4408);
    let after = world.listen(|_| {}).await;
    create(&mut world, 99);
    assert_eq!(ids(&world.heard(&after).await), [99]);
}

#[test]
fn the_commit_at_work_is_not_missed() {
    let (mut sink, tail) = tail::channel(1_000);
    let commit = |position| {
        let title = format!("{position:0>600}");
        let values = vec![Value::Text(title.into())];
        let row = Arc::new(Row::new(values));
        let change = Change {
            schema: SchemaId(1),
            schema_version: 1,
            op: Op::Create,
            key: Value::Int(1),
            before: None,
            after: Some(row),
        };
        Arc::new(Commit { changes: vec![change], ..entry(position) })
    };
    let position = |item| match item {
        Some(tail::Item::Commit(commit)) => Some(commit.position),
        Some(tail::Item::Missed(missed)) => panic!("missed up to {}", missed.last.position),
        _ => None,
    };
    sink.committed(&[commit(1)]);
    assert_eq!(position(tail.0.pop()), Some(1));
    // One may wait beside the one at work; what comes behind it makes it be read again.
    sink.committed(&[commit(2)]);
    assert_eq!(position(tail.0.pop()), Some(2));
    sink.committed(&[commit(3), commit(4)]);
    let Some(tail::Item::Missed(missed)) = tail.0.pop() else { panic!("nothing was missed") };
    assert_eq!(missed.last.position, 3);
    assert_eq!(position(tail.0.pop()), Some(4));
    assert_eq!(position(tail.0.pop()), None);
}
