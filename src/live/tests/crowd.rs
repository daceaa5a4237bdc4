//! What those who come back may hold together.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::world::*;
use crate::auth::principal::Principal;
use crate::limits::Limits;
use crate::live::*;
use crate::model::change::Op;
use crate::model::cursor::Cursor;
use crate::model::value::Value;
use crate::store::Mark;

fn waiting(ears: &[Ear]) -> usize {
    ears.iter().map(|ear| ear.outbox.waiting().1).sum()
}

/// Each has the large commit made for itself alone, and reads nothing.
#[tokio::test]
async fn those_who_come_back_and_do_not_read_are_bounded_together() {
    const EARS: usize = 30;
    const BYTES: usize = 1 << 20;
    let limits =
        Limits { tail_bytes: BYTES, recent_bytes: 1, outbox_bytes: 64 << 10, ..Limits::default() };
    let most = limits.held_bytes();
    let mut world = World::new(limits);
    let title = "a".repeat(3_000);
    let changes = (0..40).map(|id| world.blog(Op::Create, id, json!({"title": title}))).collect();
    world.commit(changes, vec![]);
    world.told().await;
    let mut ears = Vec::new();
    for n in 0..EARS {
        let mut request = world.request(Principal::owner());
        request.ask.filter = Some(json!({"id": {"$neq": 1_000 + n}}));
        request.start = Start::After(Cursor { position: 0, stamp: 0, grant: 0 });
        ears.push(world.ear(request).await);
    }
    let history = &world.live.core.history;
    while world.ground.replays.load(Ordering::SeqCst) < EARS || history.at_work() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(waiting(&ears) > 0);
    // One commit more than the bound for each that is told at the same time.
    let one = 40 * 3_100;
    let bound = most + world.limits.replays * one;
    // As they read, the others have their turn.
    let mut heard = vec![0; EARS];
    while heard.iter().any(|frames| *frames < 40) {
        assert!(waiting(&ears) <= bound, "{} of {bound}", waiting(&ears));
        for (ear, heard) in ears.iter().zip(&mut heard) {
            let (frames, close) = take(&ear.outbox);
            assert_eq!(close, None);
            let creates = frames.iter().filter(|frame| frame.bytes.len() > 3_000);
            *heard += creates.count();
        }
        tokio::task::yield_now().await;
    }
    assert!(heard.iter().all(|frames| *frames == 40), "{heard:?}");
}

/// A page that would have to wait for the client is read again.
#[tokio::test]
async fn a_snapshot_keeps_no_page_while_the_client_is_waited_for() {
    let limits = Limits { outbox_frames: 2, recent_bytes: 1, ..Limits::default() };
    let mut world = World::new(limits);
    *world.ground.upto.lock().unwrap() = Some(Value::Int(100));
    for id in 1..=6 {
        let change = world.blog(Op::Create, id, json!({"title": "a"}));
        world.commit(vec![change], vec![]);
    }
    world.told().await;
    *world.ground.empty.lock().unwrap() = Some(Mark { position: 6, stamp: 0, time: 0 });
    let mut request = world.request(Principal::owner());
    request.start = Start::Snapshot { since: None };
    let ear = world.ear(request).await;
    let pages = || world.ground.pages.load(Ordering::SeqCst);
    let mut heard = Vec::new();
    // What the outbox takes at once, and how many pages have been read for it.
    for (frames, read) in [(3, 2), (3, 3), (2, 4)] {
        while ear.outbox.waiting().0 < frames || pages() < read {
            tokio::task::yield_now().await;
        }
        let (some, close) = take(&ear.outbox);
        assert_eq!((some.len(), close, pages()), (frames, None, read));
        heard.extend(some.iter().map(|frame| payload(&frame.bytes)));
    }
    let told = |json: &serde_json::Value| match &json["data"] {
        serde_json::Value::Array(_) => json["complete"].clone(),
        one => one["id"].clone(),
    };
    let told: Vec<_> = heard.iter().map(told).collect();
    assert_eq!(json!(told), json!([false, 1, 2, 3, 4, 5, 6, true]));
}
