//! Who comes back a thousand times does not hold up who comes back once.

use std::collections::VecDeque;

use serde_json::json;
use uuid::Uuid;

use super::world::*;
use crate::limits::Limits;
use crate::live::*;
use crate::model::change::Op;
use crate::model::cursor::Cursor;

/// Behind the whole log, with a filter of its own or one that many have.
fn back(world: &World, user_id: u128, below: i64) -> Request {
    let mut request = world.request(user(Uuid::from_u128(user_id), &["editor"]));
    request.ask.filter = Some(json!({"views": {"$lt": below}}));
    request.start = Start::After(Cursor { position: 0, stamp: 0, grant: 0 });
    request
}

/// Waits for the first message.
async fn first(ear: &Ear) {
    let mut out = VecDeque::new();
    let close = std::future::poll_fn(|cx| ear.outbox.poll_take(cx, &mut out, 1, 1)).await;
    assert!(close.is_none(), "{close:?}");
}

#[tokio::test]
async fn turns_at_the_log_go_round_among_principals() {
    let resumes = 40;
    // One at a time, all of them through the log: nothing is in memory any more.
    let limits = Limits { replays: 1, recent_bytes: 1, ..Limits::default() };
    let mut world = World::new(limits);
    for n in 0..600 {
        let change = world.blog(Op::Create, n, json!({"title": "a", "views": n}));
        world.commit(vec![change], vec![]);
    }
    world.told().await;
    let held = world.live.core.history.turn(Payer::Address(None)).await.expect("a turn");
    let mut many = Vec::new();
    for n in 0..resumes {
        many.push(world.ear(back(&world, 1, 1_000 + n as i64)).await);
    }
    // The one has a plan of its own; the other that of the last in the first one's line.
    let own = world.ear(back(&world, 2, 5_000)).await;
    let same = world.ear(back(&world, 3, 1_000 + resumes as i64 - 1)).await;
    tokio::task::yield_now().await;
    assert!(many.iter().all(|ear| ear.outbox.waiting() == (0, 0)));
    drop(held);
    first(&own).await;
    first(&same).await;
    let heard: Vec<bool> = many.iter().map(|ear| ear.outbox.waiting() != (0, 0)).collect();
    for ear in &many {
        first(ear).await;
    }
    let before = heard.iter().filter(|heard| **heard).count();
    assert!(before < 10, "{before} of one user's forty were told before another user's one");
    assert!(heard[39], "what was told for the one was had by the other at once");
}
