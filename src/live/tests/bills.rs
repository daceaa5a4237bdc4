//! What subscriptions cost, who is counted for it, and until when.

use std::net::IpAddr;

use serde_json::json;
use uuid::Uuid;

use super::desk::Desk;
use super::world::*;
use crate::auth::principal::Principal;
use crate::error::Error;
use crate::limits::Limits;
use crate::live::helm::Helm;
use crate::live::subscription::{Attach, Command};
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

/// A text that is long makes a search dear that is cheap for others.
#[tokio::test]
async fn nobody_pays_for_a_neighbours_search() {
    let mut world = World::new(Limits::default());
    let payer = |n| Payer::User(Uuid::from_u128(n));
    let mut ears = Vec::new();
    for n in 0..40 {
        let mut request = world.request(user(Uuid::from_u128(1), &["editor"]));
        request.ask.filter = Some(match n {
            20 => json!({"title": {"$like": "%a_c%d"}}),
            n => json!({"views": {"$gt": n}}),
        });
        request.payer = payer(if n == 20 { 2 } else { 1 });
        ears.push(world.ear(request).await);
    }
    for n in 0..10 {
        let title = format!("{}d", "ab".repeat(100_000));
        let change = world.blog(Op::Create, n, json!({"title": title, "views": 100}));
        world.commit(vec![change], vec![]);
    }
    let stats = world.live.stats().await;
    let time = |n| stats.spenders.iter().find(|known| known.payer == payer(n)).map(|s| s.time);
    assert!(time(2) > time(1), "{:?}", stats.spenders);
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

/// What is filed in many places, and what is taken out of them.
#[test]
fn what_takes_long_to_file_is_left_to_the_thread() {
    let mut desk = Desk::new(Limits::default());
    let attach = |desk: &mut Desk, id: u64, many: i64| {
        let values: Vec<i64> = (0..many).collect();
        let request = desk.request(|r| r.ask.filter = Some(json!({"views": {"$in": values}})));
        let (plan, outbox) = (desk.plan(&request), Outbox::collector());
        let (answer, _answered) = tokio::sync::oneshot::channel();
        let (key, hold, told) = (None, None, None);
        let attach = Attach { id, request, plan, key, hold, outbox, told, answer };
        Command::Attach(Box::new(attach))
    };
    let (few, many) = (attach(&mut desk, 1, 10), attach(&mut desk, 2, 1_000));
    let helm = Helm::new(desk.matcher);
    let there = |helm: &Helm, id| helm.look(|matcher| matcher.registry.subscriber(id).is_some());
    let step = |helm: &Helm| assert!(helm.step().is_some());
    assert!(helm.command(few) && helm.command(many));
    assert_eq!([1, 2].map(|id| there(&helm, id)), [true, false]);
    // In its turn, what is little too.
    assert!(helm.command(Command::Detach(1, true)));
    assert!(there(&helm, 1));
    while there(&helm, 1) {
        step(&helm);
    }
    assert!(there(&helm, 2));
    assert!(helm.command(Command::Detach(2, false)));
    assert!(there(&helm, 2));
    while there(&helm, 2) {
        step(&helm);
    }
}

/// A user with hundreds of subscriptions, each some comparisons and a search in a text.
#[test]
fn the_defaults_are_enough_for_an_app() {
    let desk = Desk::new(Limits::default());
    let request = desk.request(|r| {
        r.ask.filter = Some(json!({
            "title": {"$like": "%word%"}, "views": {"$gte": 5, "$lt": 10},
            "$or": [{"category_id": {"$in": [1, 2, 3]}}, {"id": {"$gt": 100}}],
        }));
        r.ask.select = Some("title,category.name".into());
    });
    let (cost, limits) = (u64::from(desk.plan(&request).cost), &desk.limits);
    assert!(cost * 100 <= limits.plan_cost, "{cost}");
    // Told transitions.
    assert!(2 * cost * 500 <= limits.principal_cost, "{cost}");
}
