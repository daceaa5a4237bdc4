//! What a write changes and what the log tells of it.

use std::sync::Arc;

use rowcast::limits::Limits;
use rowcast::model::change::Op;
use rowcast::model::{file, system};
use rowcast::store::migrate::{How, plan};
use serde_json::{Value as Json, json};

use crate::world::{World, role};
use crate::{admin, blog, changed, schema};

#[test]
fn one_write_is_one_entry_named_records_first() {
    let world = blog(Json::Null, Json::Null, Json::Null, Json::Null);
    let who = admin();
    world.ok(&who, "POST /api/content/post", json!({"title": "a"}));
    world.ok(&who, "POST /api/content/post", json!({"title": "b"}));
    world.ok(&who, "POST /api/content/tag", json!({"name": "t"}));
    let before = world.entries();
    world.ok(
        &who,
        "POST /api/content/category",
        json!({"name": "c", "posts": [{"id": 2}, {"id": 1}]}),
    );
    assert_eq!(world.entries(), before + 1);
    assert_eq!(
        world.newest(),
        [
            changed("category", Op::Create, 1),
            changed("post", Op::Update, 2),
            changed("post", Op::Update, 1)
        ]
    );
    world.ok(&who, "PUT /api/content/post/1", json!({"tags": [{"id": 1}]}));
    let changes = world.newest();
    assert_eq!(changes[0], changed("post", Op::Update, 1));
    assert_eq!(changes.len(), 2);
    assert_eq!(changes[1].1, Op::Create);
    // Nothing changes, and yet it is told.
    world.ok(&who, "PUT /api/content/post/1", json!({"tags": [{"id": 1}]}));
    assert_eq!(world.newest(), [changed("post", Op::Update, 1)]);
    // A refused write leaves nothing.
    let before = world.entries();
    let body = json!({"title": "z", "tags": [{"id": 1}, {"id": 5}]});
    world.refused(&who, "POST /api/content/post", body, 400, "tags: no 'tag' with id 5");
    assert_eq!(world.entries(), before);
    assert_eq!(world.ok(&who, "GET /api/content/post", Json::Null)["total"], 2);
    // Deleting takes the links and keys along.
    world.ok(&who, "DELETE /api/content/category/1", Json::Null);
    let changes = world.newest();
    assert_eq!(changes[0], changed("category", Op::Delete, 1));
    assert_eq!(changes.len(), 3);
    world.ok(&who, "POST /api/content/comment", json!({"text": "x", "post": {"id": 1}}));
    world.refused(&who, "DELETE /api/content/post/1", Json::Null, 409, "comment.post");
}

#[test]
fn bulk_calls_are_one_entry() {
    let world = blog(Json::Null, Json::Null, Json::Null, Json::Null);
    let who = admin();
    for n in 0..5 {
        world.ok(&who, "POST /api/content/post", json!({"title": format!("p{n}"), "views": n}));
    }
    let before = world.entries();
    let count = world.ok(
        &who,
        "PUT /api/content/post/update?filter={\"views\":{\"$gte\":2}}",
        json!({"$expr": {"views": "views * 10"}, "status": "published"}),
    );
    assert_eq!(count, 3);
    assert_eq!(world.entries(), before + 1);
    assert_eq!(world.newest().len(), 3);
    let found = world.ok(
        &who,
        "GET /api/content/post?filter={\"status\":\"published\"}&sort=id&select=views",
        Json::Null,
    );
    assert_eq!(
        found["items"],
        json!([{"id": 3, "views": 20}, {"id": 4, "views": 30}, {"id": 5, "views": 40}])
    );
    // No record: no entry.
    let none = "PUT /api/content/post/update?filter={\"views\":7}";
    assert_eq!(world.ok(&who, none, json!({"views": 1})), 0);
    assert_eq!(world.entries(), before + 1);
    // One that fails takes all back.
    world.refused(
        &who,
        "PUT /api/content/post/update?filter={}",
        json!({"$expr": {"views": "100 / (views - 20)"}}),
        400,
        "views: division by zero",
    );
    let unique = json!({"slug": "same"});
    world.refused(&who, "PUT /api/content/post/update?filter={}", unique, 400, "slug");
    assert_eq!(world.entries(), before + 1);
    assert_eq!(
        world.ok(&who, "DELETE /api/content/post/delete?filter[views][$lt]=30", Json::Null),
        3
    );
    assert_eq!(world.newest().len(), 3);
    assert_eq!(world.ok(&who, "GET /api/content/post", Json::Null)["total"], 2);
    assert_eq!(world.ok(&who, "DELETE /api/content/post/delete?filter={}", Json::Null), 2);
    assert_eq!(world.ok(&who, "DELETE /api/content/post/delete?filter={}", Json::Null), 0);
}

#[test]
fn keys_on_the_other_side() {
    let world = World::open(&[schema("person", Json::Null), schema("card", Json::Null)]);
    let who = admin();
    for name in ["ann", "bob", "cid", "dan"] {
        world.ok(&who, "POST /api/content/person", json!({"name": name}));
    }
    let read = |call: &str| world.ok(&who, &format!("GET /api/content/{call}"), Json::Null);
    world.ok(&who, "POST /api/content/card", json!({"number": "1", "holder": {"id": 1}}));
    world.ok(&who, "POST /api/content/card", json!({"number": "2"}));
    assert_eq!(read("person/1?select=card.number")["card"], json!({"number": "1"}));
    // The other card takes the first one's place.
    world.ok(&who, "PUT /api/content/person/1", json!({"card": {"id": 2}}));
    assert_eq!(read("card/1")["holder_id"], Json::Null);
    assert_eq!(read("card/2")["holder_id"], 1);
    // From one holder to the next.
    world.ok(&who, "PUT /api/content/person/2", json!({"card": 2}));
    assert_eq!(read("person/1?select=card")["card"], Json::Null);
    let taken = json!({"holder": {"id": 2}});
    world.refused(&who, "PUT /api/content/card/1", taken, 400, "holder");
    world.ok(&who, "PUT /api/content/person/2", json!({"card": {"$clear": true}}));
    assert_eq!(read("card/2")["holder_id"], Json::Null);

    // A relation that is its own back side.
    world.ok(&who, "PUT /api/content/person/1", json!({"spouse": {"id": 2}}));
    assert_eq!(read("person/2")["spouse_id"], 1);
    world.ok(&who, "PUT /api/content/person/3", json!({"spouse": {"id": 4}}));
    world.ok(&who, "PUT /api/content/person/1", json!({"spouse": {"id": 3}}));
    assert_eq!(world.newest()[0], changed("person", Op::Update, 1));
    assert_eq!(world.newest().len(), 4);
    let spouses: Vec<Json> =
        (1..=4).map(|id| read(&format!("person/{id}"))["spouse_id"].clone()).collect();
    assert_eq!(spouses, [json!(3), Json::Null, json!(1), Json::Null]);
    world.ok(&who, "PUT /api/content/person/3", json!({"$clear": ["spouse"]}));
    assert_eq!(read("person/1")["spouse_id"], Json::Null);
    world.ok(&who, "PUT /api/content/person/1", json!({"spouse": {"id": 1}}));
    assert_eq!(read("person/1")["spouse_id"], 1);
    world.ok(&who, "PUT /api/content/person/1", json!({"spouse": {"id": 2}}));
    world.ok(&who, "DELETE /api/content/person/2", Json::Null);
    assert_eq!(read("person/1")["spouse_id"], Json::Null);

    world.ok(&who, "PUT /api/content/person/1", json!({"friends": [{"id": 3}, {"id": 4}]}));
    assert_eq!(read("person/4?select=friends.name")["friends"], json!([{"name": "ann"}]));
    world.ok(&who, "PUT /api/content/person/4", json!({"friends": {"$clear": [{"id": 1}]}}));
    assert_eq!(read("person/1?select=friends.name")["friends"], json!([{"name": "cid"}]));

    world.ok(&who, "PUT /api/content/person/1", json!({"children": [{"id": 3}, {"id": 4}]}));
    assert_eq!(read("person/3")["parent_id"], 1);
    world.ok(&who, "PUT /api/content/person/4", json!({"children": {"$add": [{"id": 3}]}}));
    assert_eq!(read("person/3")["parent_id"], 4);
    world.ok(&who, "PUT /api/content/person/1", json!({"children": []}));
    assert_eq!(read("person/4")["parent_id"], Json::Null);
    world.ok(&who, "PUT /api/content/person/1", json!({"children": [{"id": 1}]}));
    assert_eq!(read("person/1")["parent_id"], 1);
}

#[test]
fn a_required_key_cannot_be_emptied_from_the_other_side() {
    let world = blog(Json::Null, Json::Null, Json::Null, Json::Null);
    let who = admin();
    world.ok(&who, "POST /api/content/post", json!({"title": "a"}));
    world.ok(&who, "POST /api/content/post", json!({"title": "b"}));
    world.ok(&who, "POST /api/content/comment", json!({"text": "x", "post": {"id": 1}}));
    for body in [
        json!({"comments": []}),
        json!({"comments": null}),
        json!({"$clear": ["comments"]}),
        json!({"comments": {"$clear": [{"id": 1}]}}),
    ] {
        world.refused(&who, "PUT /api/content/post/1", body, 400, "comments: 'comment' with id 1");
    }
    world.refused(&who, "PUT /api/content/comment/1", json!({"post": null}), 400, "post: ");
    // Given to another it is not emptied.
    world.ok(&who, "PUT /api/content/post/2", json!({"comments": [{"id": 1}]}));
    assert_eq!(world.ok(&who, "GET /api/content/comment/1", Json::Null)["post_id"], 2);
}

#[test]
fn entangled_records_go_together() {
    let mut node = schema("person", Json::Null);
    let fields = node["fields"].as_array_mut().unwrap();
    fields
        .retain(|field| ["name", "parent", "children"].contains(&field["name"].as_str().unwrap()));
    fields[1]["optional"] = json!(false);
    let world = World::open(&[node]);
    let who = admin();
    // A root that requires itself cannot be made by a client; the store takes it.
    let person = world.store.catalog().named("person").unwrap().clone();
    world
        .store
        .write_blocking(move |tx| {
            use rowcast::model::value::Value;
            tx.insert(&person, vec![Value::Int(1), Value::Text("root".into()), Value::Int(1)])
        })
        .unwrap();
    for (name, parent) in [("a", 1), ("b", 2), ("c", 3)] {
        world.ok(&who, "POST /api/content/person", json!({"name": name, "parent": parent}));
    }
    let part = "DELETE /api/content/person/delete?filter[id][$in][]=2&filter[id][$in][]=3";
    world.refused(&who, part, Json::Null, 409, "person.parent");
    assert_eq!(world.ok(&who, "DELETE /api/content/person/delete?filter={}", Json::Null), 4);
}

#[test]
fn limits_hold() {
    let world = blog(Json::Null, Json::Null, Json::Null, Json::Null);
    let who = admin();
    let long = json!({"title": "a", "body": "x".repeat(1 << 20)});
    world.refused(&who, "POST /api/content/post", long, 413, "");
    world.ok(&who, "POST /api/content/post", json!({"title": "a", "body": "x".repeat(900_000)}));
    world.refused(
        &who,
        "PUT /api/content/post/1",
        json!({"$expr": {"body": "body || body"}}),
        400,
        "body: the expression gives text over 1048576 bytes",
    );
    let limits = Limits { write_records: 2, ..Limits::default() };
    let mut world = blog(Json::Null, Json::Null, Json::Null, Json::Null);
    world.content.limits = Arc::new(limits);
    for title in ["a", "b", "c"] {
        world.ok(&who, "POST /api/content/post", json!({"title": title}));
    }
    let all = "PUT /api/content/post/update?filter={}";
    world.refused(&who, all, json!({"views": 1}), 413, "more than 2 records");
    let all = "DELETE /api/content/post/delete?filter={}";
    world.refused(&who, all, Json::Null, 413, "more than 2 records");
    let two = "DELETE /api/content/post/delete?filter={\"id\":{\"$lt\":3}}";
    assert_eq!(world.ok(&who, two, Json::Null), 2);
}

#[test]
fn a_schema_that_changes_while_a_write_waits() {
    let rules = json!({"user": {"create": true, "read": true}});
    let world = World::open(&[without_posts(schema("tag", rules))]);
    let mut changed = without_posts(schema("tag", Json::Null));
    changed["fields"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "rank", "label": "Rank", "type": "int", "default": 7}));
    changed["access"] = json!({"user": {"read": true}, "editor": {"create": true}});
    let mut defs = system::schemas();
    defs.push(file::parse(None, changed.to_string().as_bytes()).def.unwrap());
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let migrated = world.store.write(move |tx| {
        wait.recv().unwrap();
        let stored = tx.stored()?;
        tx.migrate(&plan(&stored, &defs, &How::default()).unwrap())
    });
    let body = |name: &str| json!({"name": name}).as_object().unwrap().clone();
    let (root, user, editor) = (admin(), role(&[]), role(&["editor"]));
    // Both are checked under the old rules and written under the new.
    let refused = world.content.create(&user, "tag", body("a"), None);
    let made = world.content.create(&root, "tag", body("b"), None);
    let (migrated, refused, made) = world.runtime.block_on(async {
        let release = async { go.send(()).unwrap() };
        let (migrated, refused, made, ()) = tokio::join!(migrated, refused, made, release);
        (migrated, refused, made)
    });
    migrated.unwrap();
    assert_eq!(refused.unwrap_err().status(), 403);
    let made: Json = serde_json::from_slice(&made.unwrap()).unwrap();
    assert_eq!(made["rank"], 7);
    world.ok(&editor, "POST /api/content/tag", json!({"name": "c", "rank": 1}));
}

fn without_posts(mut schema: Json) -> Json {
    schema["fields"].as_array_mut().unwrap().retain(|field| field["name"] != "posts");
    schema
}
