//! What subscriptions that ask alike have in common.

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::world::*;
use crate::limits::Limits;
use crate::live::*;
use crate::model::change::Op;
use crate::model::cursor::Cursor;
use crate::query::{Body, Plan, Question};

fn plans(world: &World) -> Vec<Arc<Plan>> {
    world
        .live
        .helm
        .look(|matcher| matcher.registry.plans().map(|entry| entry.plan.clone()).collect())
}

/// What the next one gets who asks this.
fn next(world: &World, request: &Request) -> Arc<Plan> {
    let catalog = world.ground.catalog.lock().unwrap().clone();
    let mut asked: Question = request.ask.clone();
    let plans = &world.live.core.plans;
    plans.compile(&catalog, &request.principal, &world.limits, &mut asked).expect("a plan")
}

#[tokio::test]
async fn plans_of_one_projection_keep_one_body_whichever_way_they_come() {
    let mut world = World::new(Limits::default());
    world.commit(vec![world.blog(Op::Create, 1, json!({"title": "a"}))], vec![]);
    world.told().await;
    let starts =
        [Start::Live, Start::Now, Start::After(Cursor { position: 1, stamp: 0, grant: 0 })];
    let mut ears = Vec::new();
    for n in 0..300 {
        let change = |request: &mut Request| {
            request.ask.filter = Some(json!({"views": n, "category.name": "a"}));
            request.ask.select = Some("title".into());
            request.start = starts[n % 3];
        };
        ears.push(world.listen(change).await);
    }
    // Those that began at a cursor come by themselves.
    while plans(&world).len() < 300 {
        tokio::task::yield_now().await;
    }
    let plans = plans(&world);
    let one = |body: fn(&Plan) -> &Arc<Body>| {
        plans.iter().all(|plan| Arc::ptr_eq(body(plan), body(&plans[0])))
    };
    assert!(one(|plan| &plan.body));
    assert!(one(|plan| plan.reads.as_ref().expect("what it reads")));
}

#[tokio::test]
async fn who_is_granted_anew_shares_again() {
    let mut world = World::new(Limits::default());
    let editor = |n| user(Uuid::from_u128(n), &["editor"]);
    let mut ears = Vec::new();
    for n in 0..10 {
        ears.push(world.ear(world.request(editor(n))).await);
    }
    let asked = world.request(editor(11));
    let old = next(&world, &asked);
    let others = files("").iter().map(|text| text.replace("secret", "hidden")).collect::<Vec<_>>();
    world.migrate(catalog(2, &others), vec![]);
    world.told().await;
    let now = plans(&world);
    let [now] = &now[..] else { panic!("{} plans", now.len()) };
    assert!(!Arc::ptr_eq(now, &old));
    assert_eq!(now.catalog.version, 2);
    assert!(Arc::ptr_eq(now, &next(&world, &asked)), "it was kept");
    // Who loses a role has a plan of its own.
    let plain = Arc::new(user(Uuid::from_u128(3), &[]));
    world.people.known.lock().unwrap().insert(Uuid::from_u128(3), Some(plain.clone()));
    let notice = crate::model::change::Notice::Session { user: Uuid::from_u128(3), session: None };
    world.commit(vec![], vec![notice]);
    world.told().await;
    let mut asked = world.request((*plain).clone());
    asked.principal = plain;
    let its = next(&world, &asked);
    assert!(!Arc::ptr_eq(&its, now));
    let all = plans(&world);
    assert_eq!(all.len(), 2);
    assert!(all.iter().any(|plan| Arc::ptr_eq(plan, &its)));
}
