//! What is told of a commit, and how it is shared.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::world::*;
use crate::auth::principal::Principal;
use crate::limits::Limits;
use crate::live::*;
use crate::model::change::Op;

#[tokio::test]
async fn messages_of_a_commit() {
    let mut world = World::new(Limits::default());
    let all = world.listen(|_| {}).await;
    let popular = world
        .listen(|request| {
            request.ask.filter = Some(json!({"views": {"$gte": 10}}));
            request.ask.select = Some("views".into());
        })
        .await;
    let deletes = world.listen(|r| r.events = Events::only(Event::Delete)).await;
    let second = world.listen(|r| r.id = Some("2".into())).await;
    let changes = vec![
        world.blog(Op::Delete, 4, json!({"title": "d", "views": 40})),
        world.blog(Op::Create, 1, json!({"title": "a", "views": 1})),
        world.blog(Op::Update, 2, json!({"title": "b", "views": 10})),
        world.blog(Op::Update, 3, json!({"title": "c", "views": 11})),
        world.blog(Op::Create, 5, json!({"title": "e"})),
    ];
    world.commit(changes, vec![]);
    let full = |id: i64, title: &str, views: Json| json!({"id": id, "title": title, "views": views, "category_id": null});
    assert_eq!(
        world.heard(&all).await,
        [
            json!({"event": "create", "data": full(1, "a", json!(1))}),
            json!({"event": "create", "data": full(5, "e", Json::Null)}),
            json!({"event": "update", "data": [full(2, "b", json!(10)), full(3, "c", json!(11))]}),
            json!({"event": "delete", "data": [full(4, "d", json!(40))]}),
        ]
    );
    assert_eq!(
        world.heard(&popular).await,
        [
            json!({"event": "update", "data": [{"id": 2, "views": 10}, {"id": 3, "views": 11}]}),
            json!({"event": "delete", "data": [{"id": 4, "views": 40}]}),
        ]
    );
    assert_eq!(
        world.heard(&deletes).await,
        [json!({"event": "delete", "data": [full(4, "d", json!(40))]})]
    );
    assert_eq!(
        world.heard(&second).await,
        [json!({"event": "update", "data": full(2, "b", json!(10))})]
    );
    drop((all, popular, deletes, second));
    assert_eq!(world.live.stats().await.plans, 0);
}

#[tokio::test]
async fn long_messages_are_cut() {
    let limits = Limits { message_records: 2, frame_bytes: 150, ..Limits::default() };
    let mut world = World::new(limits);
    let ear = world.listen(|r| r.ask.select = Some("title".into())).await;
    let long = "x".repeat(100);
    let titles = ["a", "b", "c", &long, &long, &"y".repeat(500), "d"];
    let change = |(at, title): (usize, &&str)| {
        world.blog(Op::Update, at as i64 + 1, json!({"title": title}))
    };
    let changes = titles.iter().enumerate().map(change).collect();
    world.commit(changes, vec![]);
    let heard = world.heard(&ear).await;
    let ids = |message: &Json| -> Vec<i64> {
        let records = message["data"].as_array().expect("an array").iter();
        records.map(|record| record["id"].as_i64().expect("an id")).collect()
    };
    let ids: Vec<_> = heard.iter().map(ids).collect();
    assert_eq!(ids, [vec![1, 2], vec![3, 4], vec![5], vec![6], vec![7]]);
}

#[tokio::test]
async fn bytes_are_shared() {
    let mut world = World::new(Limits::default());
    let mut ears = Vec::new();
    for n in 0..4 {
        // Two plans, one projection.
        let filter = json!({"views": {"$gt": n % 2}});
        ears.push(world.listen(|r| r.ask.filter = Some(filter)).await);
    }
    assert_eq!(world.live.stats().await.plans, 2);
    let change = world.blog(Op::Create, 1, json!({"title": "a", "views": 9}));
    world.commit(vec![change], vec![]);
    world.told().await;
    let frames: Vec<_> = ears.iter().map(|ear| take(&ear.outbox).0[0].bytes.as_ptr()).collect();
    assert!(frames.iter().all(|frame| *frame == frames[0]), "one frame for all");
}

#[tokio::test]
async fn a_guest_hears_what_its_rule_shows() {
    let mut world = World::new(Limits::default());
    let ear = world.ear(world.request(Principal::guest())).await;
    let changes = vec![
        world.blog(Op::Create, 1, json!({"title": "secret"})),
        world.blog(Op::Delete, 2, json!({"title": "secret"})),
        world.blog(Op::Delete, 3, json!({"title": "public"})),
    ];
    world.commit(changes, vec![]);
    let heard = world.heard(&ear).await;
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0]["data"][0]["id"], 3);
}

#[tokio::test]
async fn a_quiet_subscription_hears_where_the_stream_stands() {
    let every = Duration::from_millis(100);
    let mut world = World::new(Limits { ping_every: every, ..Limits::default() });
    let ear = world
        .listen(|request| {
            request.start = Start::Now;
            request.ask.schema = "category".into();
        })
        .await;
    let next = async || {
        let mut out = VecDeque::new();
        let taken = poll_fn(|cx| ear.outbox.poll_take(cx, &mut out, 1, usize::MAX));
        assert_eq!(taken.await, None);
        out[0].cursor().expect("a cursor").position
    };
    assert_eq!(next().await, 0);
    let change = world.blog(Op::Create, 1, json!({"title": "a"}));
    world.commit(vec![change], vec![]);
    assert_eq!(next().await, 1);
}
