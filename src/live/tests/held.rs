//! Who is told, and until when.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use uuid::Uuid;

use super::world::*;
use crate::auth::principal::Principal;
use crate::error::Kind;
use crate::limits::Limits;
use crate::live::*;
use crate::model::change::{Change, Commit, Notice, Op, Row};
use crate::model::cursor::Cursor;
use crate::model::related::{Key, RelatedRows};
use crate::model::value::Value;
use crate::query::Plan;
use crate::store::Mark;

#[tokio::test]
async fn refusals() {
    let world = World::new(Limits::default());
    let outbox = || Outbox::new(&world.limits, Close::new(4408, "slow"));
    let refused = async |request: Request| {
        let answer = world.live.subscribe(request, outbox()).await;
        answer.err().expect("a refusal").kind
    };
    let mut request = world.request(Principal::owner());
    request.ask.schema = "blgo".into();
    assert_eq!(refused(request).await, Kind::NoSchema);
    let mut request = world.request(Principal::owner());
    request.id = Some("x".into());
    assert_eq!(refused(request).await, Kind::Bad);
    let gone = Uuid::from_u128(1);
    world.people.known.lock().unwrap().insert(gone, None);
    assert_eq!(refused(world.request(user(gone, &["editor"]))).await, Kind::Unauthorized);
    world.live.close_all(Close::new(1001, "bye"));
    assert_eq!(refused(world.request(Principal::owner())).await, Kind::Unavailable);
}

#[tokio::test]
async fn access_holds_while_connected() {
    let mut world = World::new(Limits::default());
    let [kept, demoted, renamed, disabled] = [1, 2, 3, 4].map(Uuid::from_u128);
    let mut ears = Vec::new();
    for id in [kept, demoted, renamed, disabled] {
        ears.push(world.ear(world.request(user(id, &["editor"]))).await);
    }
    {
        let mut known = world.people.known.lock().unwrap();
        known.insert(demoted, Some(Arc::new(user(demoted, &[]))));
        let named = Principal { username: Some("new".into()), ..user(renamed, &["editor"]) };
        known.insert(renamed, Some(Arc::new(named)));
        known.insert(disabled, None);
    }
    let before = world.blog(Op::Create, 1, json!({"title": "secret"}));
    world.commit(vec![before], vec![]);
    assert_eq!(world.heard(&ears[3]).await.len(), 1, "nothing was logged about anyone yet");

    let role = world.schema("role");
    let row = Arc::new(Row::new(vec![Value::Null; role.columns.len()]));
    let change = Change {
        schema: role.id,
        schema_version: role.version,
        op: Op::Update,
        key: Value::Uuid(Uuid::from_u128(7)),
        before: Some(row.clone()),
        after: Some(row),
    };
    let after = world.blog(Op::Create, 2, json!({"title": "secret"}));
    world.commit(vec![change, after], vec![]);
    world.told().await;
    let heard = |ear: &Ear| {
        let (frames, close) = take(&ear.outbox);
        (frames.len(), close.map(|close| close.code))
    };
    assert_eq!(heard(&ears[0]), (2, None));
    // What a guest may read is left; the secret told before stays told.
    assert_eq!(heard(&ears[1]), (1, None));
    assert_eq!(heard(&ears[2]), (2, None));
    assert_eq!(heard(&ears[3]), (0, Some(4401)));

    world.people.known.lock().unwrap().insert(kept, None);
    world.commit(vec![], vec![Notice::Session { user: kept, session: None }]);
    assert_eq!(world.ended(&ears[0]).await, 4401);
}

#[tokio::test]
async fn nothing_left_is_4403() {
    let mut world = World::new(Limits::default());
    let guest = world.ear(world.request(Principal::guest())).await;
    let closed = files("").into_iter().map(|text| text.replace("\"guest\"", "\"other\""));
    world.migrate(catalog(2, &closed.collect::<Vec<_>>()), vec![]);
    assert_eq!(world.ended(&guest).await, 4403);
}

#[tokio::test]
async fn additions_are_swapped_in() {
    let mut world = World::new(Limits::default());
    let ear = world.listen(|_| {}).await;
    let extra = r#", { "name": "note", "label": "N", "type": "string", "optional": true }"#;
    world.migrate(catalog(2, &files(extra)), vec![]);
    let change = world.blog(Op::Create, 1, json!({"title": "a", "note": "n"}));
    world.commit(vec![change], vec![]);
    assert_eq!(world.heard(&ear).await[0]["data"]["note"], "n");
}

#[tokio::test]
async fn broken_and_gone_schemas_end_their_subscriptions_alone() {
    let mut world = World::new(Limits::default());
    let blog = world.listen(|_| {}).await;
    let other = world.listen(|r| r.ask.schema = "category".into()).await;
    let id = world.schema("blog").id;
    world.migrate(catalog(2, &files("")), vec![id]);
    assert_eq!(world.ended(&blog).await, 4410);
    assert_eq!(take(&other.outbox), (VecDeque::new(), None));
    world.migrate(catalog(3, &[]), vec![]);
    assert_eq!(world.ended(&other).await, 4404);
}

#[tokio::test]
async fn a_row_that_no_plan_can_read_is_a_fault() {
    let mut world = World::new(Limits::default());
    let ear = world.listen(|_| {}).await;
    let other = world.listen(|r| r.ask.schema = "category".into()).await;
    let mut change = world.blog(Op::Create, 1, json!({"title": "a"}));
    change.schema_version += 1;
    world.commit(vec![change], vec![]);
    assert_eq!(world.ended(&ear).await, 1011);
    assert_eq!(take(&other.outbox), (VecDeque::new(), None));
}

/// As it ends who is live; but a snapshot is taken instead, where one was asked for.
#[tokio::test]
async fn a_fault_ends_a_replay_too() {
    for (fault, snapshot, pages) in
        [(true, false, 0), (true, true, 1), (false, false, 0), (false, true, 1)]
    {
        // Nothing is in memory any more.
        let mut world = World::new(Limits { recent_bytes: 1, ..Limits::default() });
        let mut request = world.request(Principal::owner());
        request.ask.select = Some("title,category.name".into());
        let live = world.ear(request.clone()).await;
        let good = world.blog(Op::Create, 1, json!({"title": "a"}));
        world.commit(vec![good], vec![]);
        let mut bad = world.blog(Op::Create, 2, json!({"title": "b"}));
        bad.schema_version += u32::from(fault);
        let made = world.made(vec![bad], vec![]);
        let mut related = made.related.clone();
        if !fault {
            related.incomplete.insert(world.schema("blog").id);
        }
        let changes = made.changes.clone();
        let made = Arc::new(Commit { changes, related, ..entry(2) });
        world.ground.log.lock().unwrap()[1] = made.clone();
        world.committed(&[made]);
        let code = if fault { 1011 } else { 4410 };
        assert_eq!(world.ended(&live).await, code);

        let catalog = world.ground.catalog.lock().unwrap().clone();
        let plan = Plan::compile(&catalog, &request.principal, &world.limits, &request.ask);
        let since = Cursor { position: 1, stamp: 0, grant: plan.unwrap().grant };
        request.start = match snapshot {
            false => Start::After(since),
            true => Start::Snapshot { since: Some(since) },
        };
        let back = world.ear(request).await;
        let mut heard = VecDeque::new();
        let close = loop {
            let outbox = &back.outbox;
            let took = std::future::poll_fn(|cx| outbox.poll_take(cx, &mut heard, 9, 9));
            if let Some(close) = took.await {
                break close;
            }
        };
        assert_eq!(world.ground.pages.load(Ordering::SeqCst), pages, "{fault} {snapshot}");
        // A store of paper has no pages: that is a fault of its own.
        assert_eq!(close.code, if pages > 0 { 1011 } else { code }, "{fault} {snapshot}");
        assert!(heard.is_empty());
    }
}

/// Whoever comes back with the same cursor meets the same fault, so it is not sent away for ever; a
/// fault behind the snapshot is told.
#[tokio::test]
async fn a_resume_past_a_fault_starts_over_once() {
    for behind in [false, true] {
        let mut world = World::new(Limits { recent_bytes: 1, ..Limits::default() });
        let mut request = world.request(Principal::owner());
        for id in 1..=3 {
            let mut change = world.blog(Op::Create, id, json!({"title": "a"}));
            change.schema_version += u32::from(id == 2);
            world.commit(vec![change], vec![]);
        }
        world.told().await;
        let upto = if behind { 1 } else { 3 };
        *world.ground.empty.lock().unwrap() = Some(Mark { position: upto, stamp: 0, time: 0 });
        let catalog = world.ground.catalog.lock().unwrap().clone();
        let plan = Plan::compile(&catalog, &request.principal, &world.limits, &request.ask);
        let since = Cursor { position: 1, stamp: 0, grant: plan.unwrap().grant };
        request.start = Start::Snapshot { since: Some(since) };
        let ear = world.ear(request).await;
        let (mut heard, mut end) = (VecDeque::new(), None);
        while heard.is_empty() || behind && end.is_none() {
            let (frames, close) = take(&ear.outbox);
            heard.extend(frames);
            end = end.or(close);
            tokio::task::yield_now().await;
        }
        assert_eq!(heard.len(), 1, "the snapshot");
        assert_eq!(end.map(|close| close.code), behind.then_some(1011));
        assert_eq!(world.ground.pages.load(Ordering::SeqCst), 1);
        if !behind {
            let change = world.blog(Op::Create, 4, json!({"title": "b"}));
            world.commit(vec![change], vec![]);
            while heard.len() < 2 {
                let (frames, close) = take(&ear.outbox);
                assert_eq!(close.map(|close| close.code), None);
                heard.extend(frames);
                tokio::task::yield_now().await;
            }
        }
    }
}

/// It may have been of its moment.
#[tokio::test]
async fn a_fault_is_kept_for_nobody() {
    for fault in [false, true] {
        let mut world = World::new(Limits::default());
        let mut change = world.blog(Op::Create, 1, json!({"title": "a"}));
        change.schema_version += u32::from(fault);
        world.commit(vec![change], vec![]);
        world.told().await;
        let request = world.request(Principal::owner());
        let catalog = world.ground.catalog.lock().unwrap().clone();
        let plan = Plan::compile(&catalog, &request.principal, &world.limits, &request.ask);
        let plan = Arc::new(plan.unwrap());
        let mode = registry::Mode::of(&request, &plan);
        let listener = history::Listener::new(&request, &plan, &None, mode);
        let history = &world.live.core.history;
        let first = history.told(&listener, 0).await.unwrap();
        let second = history.told(&listener, 0).await.unwrap();
        assert_eq!((*first).as_ref().unwrap().commits[0].1.is_err(), fault);
        assert_eq!(Arc::ptr_eq(&first, &second), !fault);
    }
}

#[tokio::test]
async fn a_token_ends_within_the_second() {
    let world = World::new(Limits::default());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let mut principal = user(Uuid::from_u128(1), &["editor"]);
    principal.expires = Some(now + 1);
    let ear = world.ear(world.request(principal)).await;
    let began = Instant::now();
    let close = loop {
        if let Some(close) = take(&ear.outbox).1 {
            break close;
        }
        assert!(began.elapsed() < Duration::from_secs(2));
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!((close.code, &*close.reason), (4401, "Unauthorized: the token has expired"));
}

#[tokio::test]
async fn a_new_schema_waits_for_its_place() {
    let mut world = World::new(Limits::default());
    // The store knows the new catalog, the matcher has not come to it.
    let extra = r#", { "name": "note", "label": "N", "type": "string", "optional": true }"#;
    let new = catalog(2, &files(extra));
    *world.ground.catalog.lock().unwrap() = new.clone();
    let live = world.live.clone();
    let mut request = world.request(Principal::owner());
    request.ask.filter = Some(json!({"note": "n"}));
    let outbox = Outbox::new(&world.limits, Close::new(4408, "slow"));
    let waiting = tokio::spawn({
        let outbox = outbox.clone();
        async move { live.subscribe(request, outbox).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    world.migrate(new, vec![]);
    let _subscription = waiting.await.unwrap().expect("active now");
    let change = world.blog(Op::Create, 1, json!({"title": "a", "note": "n"}));
    world.commit(vec![change], vec![]);
    world.told().await;
    assert_eq!(take(&outbox).0.len(), 1);
}

#[tokio::test]
async fn relations_are_wanted_before_and_only_while_they_are_read() {
    let mut world = World::new(Limits::default());
    let wants = |world: &World| world.ground.wants.lock().unwrap().clone();
    let plain = world.listen(|_| {}).await;
    assert!(wants(&world).is_empty());
    let select = |request: &mut Request| request.ask.select = Some("title,category".into());
    let first = world.listen(select).await;
    let blog = world.schema("blog");
    assert!(wants(&world)[0].paths[&blog.id].0.contains_key("category"));
    assert_eq!(world.ground.barriers.load(Ordering::SeqCst), 1);
    let second = world.listen(select).await;
    assert_eq!(wants(&world).len(), 1, "known already");
    assert_eq!(world.ground.barriers.load(Ordering::SeqCst), 1);

    let category = world.schema("category");
    let row = Arc::new(Row::new(vec![Value::Int(3), Value::Text("news".into())]));
    let gathered = Arc::new(wants(&world)[0].clone());
    let mut related = RelatedRows { gathered, ..RelatedRows::default() };
    related.after.insert(blog.id, &blog.relations[0].name, Key::Int(1), vec![row]);
    assert_eq!(category.columns.len(), 2);
    let change = world.blog(Op::Create, 1, json!({"title": "a", "category_id": 3}));
    world.position += 1;
    let position = world.position;
    let commit = Commit { changes: vec![change], related, ..entry(position) };
    world.committed(&[Arc::new(commit)]);
    let heard = world.heard(&second).await;
    assert_eq!(heard[0]["data"]["category"], json!({"id": 3, "name": "news"}));
    drop((first, plain));
    world.told().await;
    assert_eq!(wants(&world).len(), 1);
    drop(second);
    world.told().await;
    assert!(wants(&world)[1].is_empty());
}

#[tokio::test]
async fn a_rule_that_reads_more_is_swapped_in() {
    let mut world = World::new(Limits::default());
    let guest = world.ear(world.request(Principal::guest())).await;
    let (all, news) =
        (r#"{ "read": true }, "user""#, r#"{ "read": { "filter": { "name": "news" } } }, "user""#);
    let narrowed: Vec<String> = files("").into_iter().map(|text| text.replace(all, news)).collect();
    assert_ne!(narrowed, files(""));
    // What is behind `category_id` decides from now on whether it is shown.
    world.migrate(catalog(2, &narrowed), vec![]);
    world.told().await;
    let linked =
        |world: &World, id| world.blog(Op::Create, id, json!({"title": "a", "category_id": 3}));
    let change = linked(&world, 1);
    world.commit(vec![change], vec![]);
    let heard = world.heard(&guest).await;
    assert_eq!(heard[0]["data"]["category_id"], json!(null), "hidden: no such row was gathered");

    // An entry that the writer made before it was asked for the rows.
    world.ground.wants.lock().unwrap().push(Default::default());
    let change = linked(&world, 2);
    world.commit(vec![change], vec![]);
    assert_eq!(world.ended(&guest).await, 4410);
}

#[tokio::test]
async fn who_lost_access_while_the_log_was_read_hears_nothing_of_it() {
    let mut world = World::new(Limits { recent_bytes: 1, ..Limits::default() });
    let change = world.blog(Op::Create, 1, json!({"title": "secret"}));
    world.commit(vec![change], vec![]);
    world.told().await;
    let gone = Uuid::from_u128(1);
    let mut request = world.request(user(gone, &["editor"]));
    let catalog = world.ground.catalog.lock().unwrap().clone();
    let plan = Plan::compile(&catalog, &request.principal, &world.limits, &request.ask).unwrap();
    request.start = Start::After(Cursor { position: 0, stamp: 0, grant: plan.grant });
    let people = world.people.clone();
    let happens = move || drop(people.known.lock().unwrap().insert(gone, None));
    *world.ground.meanwhile.lock().unwrap() = Some(Box::new(happens));
    let ear = world.ear(request).await;
    let (frames, close) = loop {
        match take(&ear.outbox) {
            (frames, None) if frames.is_empty() => tokio::task::yield_now().await,
            heard => break heard,
        }
    };
    assert!(frames.is_empty(), "what came after the end of its session");
    assert_eq!(close.expect("an end").code, 4401);
    assert!(world.ground.meanwhile.lock().unwrap().is_none(), "the log was read");
}
