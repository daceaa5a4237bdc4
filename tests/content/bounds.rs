//! What a call may cost, however little it says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rowcast::auth::principal::Principal;
use rowcast::content::ListAsk;
use rowcast::dialects::fastschema::rest::{self, Call};
use rowcast::model::change::Op;
use rowcast::model::schema::Schema;
use rowcast::model::value::Value;
use rowcast::query::Ask;
use rowcast::store::Lane;
use serde_json::{Value as Json, json};

use crate::world::World;
use crate::{admin, blog, changed};

pub(crate) fn node(parent_optional: bool) -> Json {
    json!({
        "name": "node", "namespace": "nodes", "label_field": "name", "disable_timestamp": true,
        "fields": [
            {"name": "name", "label": "N", "type": "string"},
            {"name": "parent", "label": "P", "type": "relation", "optional": parent_optional,
             "relation": {"schema": "node", "field": "children", "type": "o2m"}},
            {"name": "children", "label": "C", "type": "relation", "optional": true,
             "relation": {"schema": "node", "field": "parent", "type": "o2m", "owner": true}}
        ]
    })
}

/// Records 1 to `count`, each with the parent that `parent` tells.
pub(crate) fn plant(world: &World, count: i64, parent: impl Fn(i64) -> i64 + Send + 'static) {
    let write = move |tx: &mut rowcast::store::Tx<'_>| {
        let schema: Arc<Schema> = rowcast::store::Rows::catalog(tx).named("node").unwrap().clone();
        for id in 1..=count {
            let value = |column: &rowcast::model::schema::Column| match &*column.name {
                "id" => Value::Int(id),
                "name" => Value::Text("x".into()),
                _ => Value::Int(parent(id)),
            };
            tx.insert(&schema, schema.columns.iter().map(value).collect())?;
        }
        Ok(())
    };
    world.store.write_blocking(write).unwrap();
}

#[test]
fn a_chain_of_required_records_goes_in_one_pass() {
    let world = World::open(&[node(false)]);
    plant(&world, 5_000, |id| (id - 1).max(1));
    let began = Instant::now();
    let deleted =
        world.ok(&admin(), "DELETE /api/content/node/delete?filter[id][$gt]=1", Json::Null);
    assert_eq!(deleted, 4_999);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // Named in the order in which they can go.
    assert_eq!(world.newest()[0].2, 5_000);
    // It refers to itself alone.
    assert_eq!(world.ok(&admin(), "DELETE /api/content/node/delete?filter={}", Json::Null), 1);
}

#[test]
fn rings_and_references_from_outside_refuse_the_whole_call() {
    let world = World::open(&[node(false)]);
    plant(&world, 3, |_| 1);
    world.ok(&admin(), "PUT /api/content/node/1", json!({"parent": 2}));
    for filter in ["filter[id][$lt]=3", "filter={}", "filter[id]=2"] {
        let call = format!("DELETE /api/content/node/delete?{filter}");
        world.refused(&admin(), &call, Json::Null, 409, "node.parent is required");
    }
    assert_eq!(world.ok(&admin(), "GET /api/content/node", Json::Null)["total"], 3);
}

/// However small the request.
#[test]
fn what_weighs_much_is_not_written_by_an_event_loop() {
    const TRIES: i64 = 20;
    let world = World::patient(&[node(true)]);
    plant(&world, 3 * TRIES, |_| 1);
    let heavy = "x".repeat(100 << 10);
    for id in TRIES + 1..=2 * TRIES {
        let write = format!("PUT /api/content/node/{id}");
        world.ok(&admin(), &write, json!({ "name": heavy }));
    }
    let writes = |method: &str, id: i64| {
        let (op, body) = match method {
            "PUT" => (Op::Update, json!({"parent": {"id": 2}})),
            _ => (Op::Delete, Json::Null),
        };
        let before = world.entries();
        let here = world.writes_here(&admin(), &format!("{method} /api/content/node/{id}"), body);
        assert_eq!(world.newest(), [changed("node", op, id)]);
        assert_eq!(world.entries(), before + 1);
        here
    };
    for method in ["PUT", "DELETE"] {
        // A thread that was just awake may come between.
        assert!((3..=TRIES).rev().any(|id| writes(method, id)), "{method}");
        assert!(!(TRIES + 1..TRIES + 6).any(|id| writes(method, id)), "{method}");
    }
}

/// However small the record that is named, and few the others.
#[test]
fn what_changes_heavy_others_is_not_done_by_an_event_loop() {
    const TRIES: i64 = 10;
    let world = World::patient(&[node(true)]);
    // Half of them are children of the others, and half of those weigh much.
    let parents = 6 * TRIES;
    plant(&world, 2 * parents, move |id| if id <= parents { id } else { id - parents });
    let heavy = "x".repeat(200 << 10);
    for id in parents + parents / 2 + 1..=2 * parents {
        let write = format!("PUT /api/content/node/{id}");
        world.ok(&admin(), &write, json!({ "name": heavy }));
    }
    let writes = |method: &str, id: i64| {
        let child = id + parents;
        let one = format!("{method} /api/content/node/{id}");
        let (call, op, body) = match method {
            "DELETE" => (&*one, Op::Delete, Json::Null),
            "PUT" => (&*one, Op::Update, json!({"children": []})),
            _ => ("POST /api/content/node", Op::Create, json!({"name": "y", "children": [child]})),
        };
        let before = world.entries();
        let here = world.writes_here(&admin(), call, body);
        let newest = world.newest();
        assert!(newest.len() == 2 && newest[0].1 == op, "{newest:?}");
        assert_eq!(newest[1], changed("node", Op::Update, child));
        assert_eq!(world.entries(), before + 1);
        here
    };
    for (turn, method) in ["DELETE", "PUT", "POST"].into_iter().enumerate() {
        let first = 1 + turn as i64 * TRIES;
        assert!((first..first + TRIES).any(|id| writes(method, id)), "{method}");
        let first = first + parents / 2;
        assert!(!(first..first + 4).any(|id| writes(method, id)), "{method}");
    }
}

/// Whether a list is read by the thread that asks: all readers are busy.
fn is_read_here(world: &World, who: &Principal) -> bool {
    world.runtime.block_on(async {
        let (mut busy, mut releases) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            let (release, released) = std::sync::mpsc::channel::<()>();
            let mut read = Box::pin(world.store.read(move |_| Ok(released.recv().is_err())));
            assert!((&mut read).now_or_never().is_none());
            busy.push(read);
            releases.push(release);
        }
        let ask = Ask { schema: "node".into(), ..Ask::default() };
        let asked = ListAsk { ask, page: None, limit: None };
        let mut list = Box::pin(world.content.list(who, asked));
        let mut answer = None;
        for _ in 0..3 {
            answer = (&mut list).now_or_never();
            if answer.is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(releases);
        let here = answer.is_some();
        let answer = match answer {
            Some(answer) => answer,
            None => list.await,
        };
        let answer: Json = serde_json::from_slice(&answer.unwrap()).unwrap();
        assert_eq!(answer["total"], 3);
        here
    })
}

#[test]
fn what_rules_search_for_in_texts_is_not_read_by_an_event_loop() {
    for (filter, may) in
        [(json!({"name": "x"}), true), (json!({"name": {"$contains": "x"}}), false)]
    {
        let mut schema = node(true);
        schema["access"] = json!({"guest": {"read": {"filter": filter}}});
        let world = World::open(&[schema]);
        plant(&world, 3, |_| 1);
        assert_eq!((0..20).any(|_| is_read_here(&world, &Principal::guest())), may);
    }
}

#[test]
fn an_event_loop_joins_no_texts() {
    let world = World::patient(&[node(true)]);
    plant(&world, 1, |_| 1);
    let computes = |text: &str| {
        let body = json!({"$expr": { "name": text }});
        world.writes_here(&admin(), "PUT /api/content/node/1", body)
    };
    assert!((0..20).any(|_| computes("name")));
    assert!(!(0..4).any(|_| computes("name||name")));
    let name = &world.ok(&admin(), "GET /api/content/node/1", Json::Null)["name"];
    assert_eq!(*name, "x".repeat(16));
}

#[test]
fn an_answer_is_bounded_in_bytes() {
    let world = blog(Json::Null, Json::Null, Json::Null, Json::Null);
    let who = admin();
    let large = "x".repeat(700 << 10);
    world.ok(&who, "POST /api/content/category", json!({"name": large}));
    for n in 0..100 {
        let body = json!({"title": format!("p{n}"), "category": {"id": 1}});
        world.ok(&who, "POST /api/content/post", body);
    }
    // Small records that name a large one.
    let list = |query: &str| format!("GET /api/content/post?{query}");
    world.refused(&who, &list("limit=100&select=category"), Json::Null, 413, "67108864 bytes");
    world.ok(&who, &list("limit=50&select=category"), Json::Null);
    world.ok(&who, &list("limit=100&select=category.id"), Json::Null);
    // The same from the other side: one record, many related ones that lead back to it.
    let back = "GET /api/content/category/1?select=posts.category";
    world.refused(&who, back, Json::Null, 413, "67108864 bytes");
    world.ok(&who, "GET /api/content/category/1?select=posts", Json::Null);

    for n in 0..99 {
        world.ok(&who, "POST /api/content/category", json!({"name": format!("{n}{large}")}));
    }
    let list = |query: &str| format!("GET /api/content/category?{query}");
    world.refused(&who, &list("limit=100"), Json::Null, 413, "ask for fewer with 'limit'");
    world.ok(&who, &list("limit=50"), Json::Null);
    for call in [
        "PUT /api/content/category/update?filter={}",
        "DELETE /api/content/category/delete?filter={}",
    ] {
        world.refused(&who, call, json!({"name": "small"}), 413, "67108864 bytes");
    }
}

#[test]
fn a_delete_that_changes_many_lets_others_pass() {
    const EACH: i64 = 600;
    let world = World::open(&[node(true)]);
    // 1 to 3 have many children, 4 has few.
    plant(&world, 3 * EACH + 10, |id| match id {
        1..=4 => id,
        _ => ((id - 5) / EACH + 1).min(4),
    });
    let before = world.entries();
    let who = admin();
    let (content, limits) = (&world.content, &world.content.limits);
    let delete = |id: &'static str| content.delete(&who, "node", id, None);
    let made = |name: &str| {
        let body = json!({ "name": name }).to_string();
        let parsed = rest::parse("POST", "/api/content/node", "", body.as_bytes(), limits);
        let Ok(Call::Create { schema, body }) = parsed else { panic!() };
        let who = &who;
        async move { content.create(who, &schema, body, None).await }
    };
    // While all of them are handed in the writer is held, by something that outlasts a group.
    let (release, released) = std::sync::mpsc::channel();
    let store = world.store.clone();
    let mut held = Box::pin(store.write_long(Lane::Schemas, move |_| {
        let _ = released.recv_timeout(Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(200));
        Ok(())
    }));
    assert!((&mut held).now_or_never().is_none());
    let mut deletes = ["1", "2", "3", "4"].map(delete).map(Box::pin);
    for delete in &mut deletes {
        assert!(delete.now_or_never().is_none());
    }
    let mut made = Box::pin(made("x"));
    assert!((&mut made).now_or_never().is_none());
    release.send(()).unwrap();
    world.runtime.block_on(async {
        held.await.unwrap();
        let deleted = futures_util::future::join_all(deletes).await;
        made.await.unwrap();
        let keys = deleted.into_iter().map(|key| String::from_utf8(key.unwrap()).unwrap());
        assert_eq!(keys.collect::<Vec<_>>(), [1, 2, 3, 4].map(|id| format!("{{\"id\":{id}}}")));
    });
    let told = world.told.0.lock().unwrap();
    let sizes: Vec<usize> = told[before..].iter().map(|commit| commit.changes.len()).collect();
    let many = EACH as usize + 1;
    assert_eq!(sizes, [7, 1, many, many, many], "short ones first, as they came");
}
