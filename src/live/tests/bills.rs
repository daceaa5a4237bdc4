//! What subscriptions cost, who is counted for it, and until when.

use std::net::IpAddr;

use serde_json::json;
use uuid::Uuid;

use super::world::*;
use crate::auth::principal::Principal;
use crate::error::Error;
use crate::limits::Limits;
use crate::live::*;
use crate::model::change::Op;
use crate::model::cursor::Cursor;

/// An editor's request whose filter costs 16: a text is searched.
fn dear(world: &World, user_id: u128) -> Request {
    let mut request = world.request(user(Uuid::from_u128(user_id), &["editor"]));
    request.ask.filter = Some(json!({"title": {"$contains": "a"}}));
    request
}

async fn refused(world: &World, request: Request) -> Error {
    let outbox = Outbox::new(&world.limits, Close::new(4408, "slow"));
    world.live.subscribe(request, outbox).await.err().expect("a refusal")
}

#[tokio::test]
async fn a_plan_over_its_cost_is_refused_part_by_part() {
    let world = World::new(Limits { plan_cost: 79, ..Limits::default() });
    let ear = world.ear(dear(&world, 1)).await;
    let mut request = dear(&world, 1);
    request.ask.select = Some("category.name".into());
    let error = refused(&world, request.clone()).await;
    assert_eq!((error.status(), error.close_code()), (400, 4400));
    assert_eq!(
        error.message,
        "this would cost 80 for every change, and plan_cost is 79: filter 16 (1 text of 16); \
         select 64 (1 relation of 64)"
    );
    // Rules count too: they are held against every change as well.
    let mut guest = world.request(Principal::guest());
    guest.ask.filter = Some(json!({"$or": [
        {"category.name": {"$in": ["a", "b", "c"]}}, {"title": {"$like": "%a"}}
    ]}));
    let error = refused(&world, guest).await;
    let told = "cost 83 for every change, and plan_cost is 79: \
                filter 82 (2 comparisons, 1 text of 16, 1 relation of 64); \
                access rules 1 (1 comparison)";
    assert!(error.message.ends_with(told), "{error}");
    // Admins may.
    request.principal = std::sync::Arc::new(Principal::owner());
    world.ear(request).await;
    drop(ear);
    assert_eq!(world.live.ledger().payers(), 0);
}

#[tokio::test]
async fn a_principal_pays_for_all_of_its_own() {
    let mut world = World::new(Limits { principal_cost: 40, ..Limits::default() });
    let ledger = world.live.ledger().clone();
    let payer = Payer::User(Uuid::from_u128(1));
    let one = world.ear(dear(&world, 1)).await;
    // Told transitions, the state before is looked at too.
    let mut transitions = dear(&world, 1);
    transitions.told.transitions = true;
    let error = refused(&world, transitions.clone()).await;
    assert_eq!((error.status(), error.close_code()), (429, 4429));
    assert!(error.message.contains("costs 32, the 1 open ones 16"), "{error}");
    let two = world.ear(dear(&world, 1)).await;
    refused(&world, dear(&world, 1)).await;
    // Others are not concerned, nor is what comes from loopback.
    let other = world.ear(dear(&world, 2)).await;
    let mut near = dear(&world, 1);
    near.exempt = true;
    drop(world.ear(near).await);
    // A plan that costs nothing is a subscription all the same.
    let mut all = world.request(user(Uuid::from_u128(1), &["editor"]));
    all.ask.filter = None;
    let all = world.ear(all).await;
    assert_eq!(ledger.of(payer), (33, 3));
    drop((one, two, all));
    assert_eq!(ledger.of(payer), (0, 0));
    assert_eq!(ledger.payers(), 1);
    drop(other);

    // Those on their way pay like those that arrived; refused ones leave nothing behind.
    world.commit(vec![world.blog(Op::Create, 1, json!({"title": "a"}))], vec![]);
    world.told().await;
    let mut request = transitions;
    request.start = Start::After(Cursor { position: 0, stamp: 0, grant: 7 });
    refused(&world, request.clone()).await;
    assert_eq!(ledger.payers(), 0);
    request.start = Start::Now;
    let now = world.ear(request).await;
    assert_eq!(ledger.of(payer), (32, 1));
    drop(now);
    assert_eq!(ledger.payers(), 0);
}

#[tokio::test]
async fn guests_pay_by_address() {
    let world = World::new(Limits { principal_cost: 2, ..Limits::default() });
    let guest = |last: u8| {
        let mut request = world.request(Principal::guest());
        request.payer = Payer::of(None, Some(IpAddr::from([192, 0, 2, last])));
        request
    };
    let _ears = (world.ear(guest(1)).await, world.ear(guest(1)).await);
    assert_eq!(refused(&world, guest(1)).await.status(), 429);
    world.ear(guest(2)).await;
}

#[tokio::test]
async fn the_matchers_time_goes_to_who_asks_for_it() {
    let mut world = World::new(Limits::default());
    let payer = |n| Payer::User(Uuid::from_u128(n));
    let plain = |filter| {
        let mut request = world.request(user(Uuid::from_u128(1), &["editor"]));
        request.ask.filter = Some(filter);
        request
    };
    // Thirty-two texts a plan are dear: they are timed one by one. What has no piece to be filed by
    // is held against every change.
    let texts = |n: usize| -> serde_json::Value {
        (0..32).map(|text| json!({"title": {"$like": format!("%{n}_{text}%")}})).collect()
    };
    let mut ears = vec![world.ear(plain(json!({"views": 1}))).await];
    for n in 0..50 {
        let mut dear = plain(json!({"$or": texts(n)}));
        dear.payer = payer(2);
        ears.push(world.ear(dear).await);
    }
    for n in 3..20 {
        let mut shared = plain(json!({"views": {"$gt": 5}}));
        shared.payer = payer(n);
        ears.push(world.ear(shared).await);
    }
    for n in 0..20 {
        let title = "x".repeat(200);
        let change = world.blog(Op::Create, n, json!({"title": title, "views": n}));
        world.commit(vec![change], vec![]);
    }
    let stats = world.live.stats().await;
    let spenders = &stats.spenders;
    assert_eq!((spenders[0].payer, spenders[0].subscriptions), (payer(2), 50));
    assert!(spenders[0].time > spenders[1].time, "{spenders:?}");
    assert_eq!((spenders[1].payer, spenders[1].subscriptions), (payer(1), 1));
    assert_eq!(spenders.len(), 2, "what many share is nobody's");
    assert!(!stats.shared.is_zero());
    // Who left is still known for what it took.
    drop(ears);
    let stats = world.live.stats().await;
    assert_eq!((stats.spenders[0].payer, stats.spenders[0].subscriptions), (payer(2), 0));
}
