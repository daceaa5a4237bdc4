//! Who may write what, and what each is told.

use rowcast::auth::principal::Principal;
use serde_json::{Value as Json, json};

use crate::world::{World, role};
use crate::{admin, blog, schema};

#[test]
fn the_first_alternative_that_allows_decides() {
    let post = json!({
        "guest": {"read": {"filter": {"status": "published"}, "fields": ["title", "status"]}},
        "user": {"read": true},
        "small": {
            "create": {"filter": {"views": {"$lt": 10}}, "fields": ["title", "views"],
                       "set": {"status": "draft"}},
            "update": {"filter": {"views": {"$lt": 10}}, "fields": ["title", "views"],
                       "set": {"body": "by small"}}
        },
        "big": {
            "create": {"set": {"status": "published"}},
            "update": {"filter": {"views": {"$gte": 5}}, "set": {"body": "by big"}},
            "delete": {"filter": {"views": {"$gte": 10}}}
        }
    });
    let world = blog(post, Json::Null, Json::Null, Json::Null);
    let (small, big, both) = (role(&["small"]), role(&["big"]), role(&["small", "big"]));
    let create = "POST /api/content/post";
    // `set` goes over what the client sent, in `fields` or not.
    let made = world.ok(&small, create, json!({"title": "a", "status": "published"}));
    assert_eq!((&made["status"], &made["views"]), (&json!("draft"), &json!(0)));
    world.refused(&small, create, json!({"title": "a", "slug": "s"}), 403, "'slug' of 'post'");
    world.refused(&small, create, json!({"title": "a", "views": 10}), 403, "Forbidden");
    world.refused(&role(&[]), create, json!({"title": "a"}), 403, "Forbidden");
    world.refused(&Principal::guest(), create, json!({"title": "a"}), 401, "Unauthorized");
    assert_eq!(world.ok(&both, create, json!({"title": "b", "views": 9}))["status"], "draft");
    assert_eq!(world.ok(&both, create, json!({"title": "c", "views": 10}))["status"], "published");
    let made = world.ok(&both, create, json!({"title": "d", "slug": "s"}));
    assert_eq!(made["status"], "published");

    // 1: a 0, 2: b 9, 3: c 10, 4: d 0
    let update = |id: u64| format!("PUT /api/content/post/{id}");
    assert_eq!(world.ok(&both, &update(2), json!({"views": 8}))["body"], "by small");
    // The first is not TRUE for the new state, the second for both.
    assert_eq!(world.ok(&both, &update(2), json!({"views": 20}))["body"], "by big");
    // One alternative for both states: small's old, big's new is not enough.
    world.refused(&both, &update(1), json!({"views": 10}), 403, "to this state");
    world.refused(&small, &update(3), json!({"title": "x"}), 403, "this 'post' with id 3");
    world.refused(&big, &update(1), json!({"title": "x"}), 403, "this 'post' with id 1");
    world.refused(&small, &update(1), json!({"score": 1}), 403, "'score'");
    world.refused(&big, &update(3), json!({"created_at": "2020-01-01"}), 403, "'created_at'");
    world.refused(&big, &update(99), json!({"title": "x"}), 404, "99");
    world.refused(&small, "DELETE /api/content/post/1", Json::Null, 403, "Forbidden");
    world.refused(&big, "DELETE /api/content/post/1", Json::Null, 403, "this 'post' with id 1");
    world.ok(&big, "DELETE /api/content/post/3", Json::Null);

    // Bulk: 1: a 0, 2: b 20, 4: d 0. Only what each may.
    let all = "PUT /api/content/post/update?filter={}";
    assert_eq!(world.ok(&small, all, json!({"$add": {"views": 1}})), 2);
    assert_eq!(world.ok(&big, all, json!({"title": "big"})), 1);
    world.refused(&small, all, json!({"views": 50}), 403, "to this state");
    world.refused(&small, all, json!({"slug": null}), 403, "'slug'");
    assert_eq!(world.ok(&both, all, json!({"title": "both"})), 3);
    let list = world.ok(&both, "GET /api/content/post?sort=id&select=body", Json::Null);
    let bodies: Vec<&Json> = list["items"].as_array().unwrap().iter().map(|i| &i["body"]).collect();
    assert_eq!(bodies, ["by small", "by big", "by small"]);
    assert_eq!(world.ok(&big, "DELETE /api/content/post/delete?filter={}", Json::Null), 1);
    world.refused(
        &role(&[]),
        "DELETE /api/content/post/delete?filter={}",
        Json::Null,
        403,
        "Forbidden",
    );
}

#[test]
fn what_may_not_be_read_is_not_there() {
    let post = json!({
        "writer": {
            "read": {"filter": {"status": "published"}, "fields": ["title", "status", "category"]},
            "create": {"fields": ["title", "status", "slug", "category", "tags"]},
            "update": {"fields": ["title", "views", "category", "status"]},
            "delete": true
        },
        "blind": {"create": true, "update": true, "delete": true}
    });
    let category = json!({"writer": {"read": {"filter": {"name": {"$neq": "secret"}}}}});
    let tag = json!({"writer": {"read": {"filter": {"name": {"$neq": "secret"}}}}});
    let world = blog(post, category, tag, Json::Null);
    let (root, writer, blind) = (admin(), role(&["writer"]), role(&["blind"]));
    for name in ["open", "secret"] {
        world.ok(&root, "POST /api/content/category", json!({"name": name}));
        world.ok(&root, "POST /api/content/tag", json!({"name": name}));
    }
    let create = "POST /api/content/post";
    let body = json!({"title": "a", "status": "published", "slug": "s"});
    assert_eq!(
        world.ok(&writer, create, body),
        json!({"id": 1, "title": "a", "status": "published", "category_id": null})
    );
    // Not readable once written: only the key is told.
    assert_eq!(world.ok(&writer, create, json!({"title": "b"})), json!({"id": 2}));
    assert_eq!(world.ok(&blind, create, json!({"title": "c"})), json!({"id": 3}));
    // Hidden fields: unknown where they may not be written either, else write-only.
    world.refused(&writer, create, json!({"title": "x", "body": "x"}), 400, "unknown field 'body'");
    world.refused(&writer, create, json!({"title": "x", "views": 1}), 400, "unknown field 'views'");
    let update = "PUT /api/content/post/1";
    world.refused(&writer, update, json!({"$add": {"views": 1}}), 400, "unknown field 'views'");
    world.refused(
        &writer,
        update,
        json!({"$expr": {"title": "title || slug"}}),
        400,
        "unknown field 'slug'",
    );
    world.ok(&writer, update, json!({"views": 5, "$expr": {"title": "title || '!'"}}));
    // Hidden records: not there, for the request's own id and for related ones.
    world.refused(&writer, "PUT /api/content/post/2", json!({"title": "x"}), 404, "2");
    world.refused(&writer, "DELETE /api/content/post/2", Json::Null, 404, "2");
    world.refused(&blind, "PUT /api/content/post/1", json!({"title": "x"}), 404, "1");
    let missing = |name: &str, id: u64| format!("{name}: no '{name}' with id {id}");
    for id in [2, 99] {
        let body = json!({"category": {"id": id}});
        world.refused(&writer, update, body, 400, &missing("category", id));
        let body = json!({"title": "x", "tags": [{"id": id}]});
        let text = format!("tags: no 'tag' with id {id}");
        world.refused(&writer, create, body, 400, &text);
    }
    world.refused(&writer, update, json!({"tags": []}), 400, "unknown field 'tags'");
    // A hidden key shows as null and may be written over.
    world.ok(&root, update, json!({"category": {"id": 2}, "tags": [{"id": 1}, {"id": 2}]}));
    let read = "GET /api/content/post/1";
    assert_eq!(world.ok(&writer, read, Json::Null)["category_id"], Json::Null);
    world.ok(&writer, update, json!({"category": {"id": 1}}));
    assert_eq!(world.ok(&writer, read, Json::Null)["category_id"], 1);
    // Counts are of what is readable.
    let all = "PUT /api/content/post/update?filter={}";
    assert_eq!(world.ok(&writer, all, json!({"title": "n"})), 1);
    world.refused(&blind, all, json!({"title": "n"}), 403, "Forbidden");
    let hidden = "PUT /api/content/post/update?filter={\"views\":5}";
    world.refused(&writer, hidden, json!({"title": "n"}), 400, "unknown field 'views'");
    // Out of one's own sight.
    assert_eq!(world.ok(&writer, update, json!({"status": "draft"})), json!({"id": 1}));
    world.refused(&writer, update, json!({"status": "draft"}), 404, "1");
    assert_eq!(world.ok(&writer, "DELETE /api/content/post/delete?filter={}", Json::Null), 0);
}

#[test]
fn hidden_related_records_are_left_alone() {
    let post = json!({
        "writer": {"read": true, "update": {"fields": ["tags"]}}
    });
    let tag = json!({"writer": {"read": {"filter": {"name": {"$neq": "secret"}}}}});
    let world = blog(post, Json::Null, tag, Json::Null);
    let (root, writer) = (admin(), role(&["writer"]));
    for name in ["a", "b", "secret"] {
        world.ok(&root, "POST /api/content/tag", json!({"name": name}));
    }
    let all = json!([{"id": 1}, {"id": 2}, {"id": 3}]);
    world.ok(&root, "POST /api/content/post", json!({"title": "p", "tags": all}));
    let update = "PUT /api/content/post/1";
    let tags = || {
        let read = "GET /api/content/post/1?select=tags.name";
        let found = world.ok(&admin(), read, Json::Null);
        let names = found["tags"].as_array().unwrap().iter().map(|tag| tag["name"].clone());
        Json::Array(names.collect())
    };
    world.ok(&writer, update, json!({"tags": [{"id": 1}]}));
    assert_eq!(tags(), json!(["a", "secret"]));
    world.ok(&writer, update, json!({"tags": {"$clear": true}}));
    assert_eq!(tags(), json!(["secret"]));
    let body = json!({"tags": {"$clear": [{"id": 3}]}});
    world.refused(&writer, update, body, 400, "tags: no 'tag' with id 3");
}

#[test]
fn keys_elsewhere_need_update_there() {
    let category = json!({
        "editor": {"read": true, "create": true, "update": true}
    });
    let post = json!({
        "user": {"read": {"filter": {"views": {"$lt": 100}}}},
        "editor": {"update": {"filter": {"status": "draft"}, "fields": ["category"],
                              "set": {"body": "moved"}}}
    });
    let world = blog(post, category.clone(), Json::Null, Json::Null);
    let (root, editor) = (admin(), role(&["editor"]));
    world.ok(&root, "POST /api/content/post", json!({"title": "a"}));
    world.ok(&root, "POST /api/content/post", json!({"title": "b", "status": "published"}));
    world.ok(&root, "POST /api/content/post", json!({"title": "c", "views": 100}));
    let create = "POST /api/content/category";
    world.ok(&editor, create, json!({"name": "x", "posts": [{"id": 1}]}));
    let read = world.ok(&root, "GET /api/content/post/1", Json::Null);
    assert_eq!((&read["category_id"], &read["body"]), (&json!(1), &json!("moved")));
    let body = json!({"name": "y", "posts": [{"id": 2}]});
    world.refused(&editor, create, body, 403, "this 'post' with id 2");
    let body = json!({"name": "y", "posts": [{"id": 3}]});
    world.refused(&editor, create, body, 400, "posts: no 'post' with id 3");
    // Taken away is changed too.
    world.ok(&root, "PUT /api/content/post/1", json!({"status": "published"}));
    let update = "PUT /api/content/category/1";
    world.refused(&editor, update, json!({"posts": []}), 403, "this 'post' with id 1");
    world.ok(&editor, update, json!({"name": "z"}));

    let world = blog(json!({"user": {"read": true}}), category, Json::Null, Json::Null);
    world.ok(&admin(), "POST /api/content/post", json!({"title": "a"}));
    let body = json!({"name": "y", "posts": [{"id": 1}]});
    world.refused(&editor, create, body, 403, "update 'post'");
}

#[test]
fn rules_that_read_through_relations() {
    let post = json!({
        "user": {"read": true},
        "a": {"create": {"filter": {"category.name": "mine"}, "set": {"body": "a"}},
              "update": {"filter": {"category.name": "mine"}, "set": {"body": "a"}}},
        "b": {"create": {"filter": {"tags.name": "good"}, "set": {"body": "b"}},
              "update": {"filter": {"tags.name": "good"}, "set": {"body": "b"}}}
    });
    let open = json!({"user": {"read": true}});
    let world = blog(post, open.clone(), open, Json::Null);
    let (root, a, both) = (admin(), role(&["a"]), role(&["a", "b"]));
    for name in ["mine", "other"] {
        world.ok(&root, "POST /api/content/category", json!({"name": name}));
    }
    for name in ["good", "bad"] {
        world.ok(&root, "POST /api/content/tag", json!({"name": name}));
    }
    let create = "POST /api/content/post";
    world.ok(&a, create, json!({"title": "1", "category": {"id": 1}}));
    world.refused(&a, create, json!({"title": "x", "category": {"id": 2}}), 403, "to this state");
    world.refused(&a, create, json!({"title": "x"}), 403, "to this state");
    let before = world.entries();
    // The first alternative is tried and taken back.
    let body = json!({"title": "2", "category": {"id": 2}, "tags": [{"id": 1}]});
    let made = world.ok(&both, create, body);
    assert_eq!((&made["id"], &made["body"]), (&json!(2), &json!("b")));
    assert_eq!(world.entries(), before + 1);
    assert_eq!(world.newest().len(), 2);
    let body = json!({"title": "3", "category": {"id": 1}, "tags": [{"id": 2}]});
    assert_eq!(world.ok(&both, create, body)["body"], "a");
    let body = json!({"title": "x", "tags": [{"id": 2}]});
    world.refused(&both, create, body, 403, "to this state");
    // Old and new state under one alternative.
    let update = "PUT /api/content/post/1";
    world.refused(&both, update, json!({"category": null, "tags": [{"id": 1}]}), 403, "to this");
    world.ok(&both, update, json!({"tags": [{"id": 1}]}));
    assert_eq!(world.ok(&both, update, json!({"category": null}))["body"], "b");
    world.refused(&a, update, json!({"title": "x"}), 403, "this 'post'");
    // All of a bulk call's new states are looked at when all is written.
    let all = "PUT /api/content/post/update?filter={}";
    assert_eq!(world.ok(&both, all, json!({"score": 1})), 3);
    world.refused(&both, all, json!({"category": {"id": 2}, "tags": []}), 403, "to this state");
    assert_eq!(world.ok(&a, all, json!({"title": "n"})), 1);
}

#[test]
fn placeholders_name_the_writer() {
    let mut note = schema("tag", Json::Null);
    note = json!({
        "name": "note", "namespace": "notes", "label_field": "text",
        "fields": [
            note["fields"][0].clone(),
            {"name": "text", "label": "Text", "type": "string"},
            {"name": "author", "label": "Author", "type": "relation", "optional": true,
             "relation": {"schema": "user", "field": "notes", "type": "o2m"}}
        ],
        "access": {"user": {
            "read": true,
            "create": {"fields": ["text", "name"], "set": {"author": "$user.id"}},
            "update": {"filter": {"author": "$user.id"}, "fields": ["text"]},
            "delete": {"filter": {"author": "$user.id"}}
        }}
    });
    let world = World::open(&[note]);
    let (ann, bob) = (world.user("ann", &[]), world.user("bob", &[]));
    let create = "POST /api/content/note";
    let bobs = bob.user.unwrap().to_string();
    let made = world.ok(&ann, create, json!({"text": "t", "name": "n", "author": {"id": bobs}}));
    assert_eq!(made["author_id"], ann.user.unwrap().to_string());
    world.refused(&bob, "PUT /api/content/note/1", json!({"text": "x"}), 403, "Forbidden");
    world.refused(&bob, "DELETE /api/content/note/1", Json::Null, 403, "Forbidden");
    world.ok(&ann, "PUT /api/content/note/1", json!({"text": "x"}));
    world.refused(&ann, "PUT /api/content/note/1", json!({"author": null}), 403, "'author'");
    // Without an id of its own nobody can write.
    world.refused(&role(&[]), create, json!({"text": "t", "name": "m"}), 403, "Forbidden");
    assert_eq!(world.ok(&bob, "DELETE /api/content/note/delete?filter={}", Json::Null), 0);
    assert_eq!(world.ok(&ann, "DELETE /api/content/note/delete?filter={}", Json::Null), 1);
}

#[test]
fn a_guest_is_told_to_log_in() {
    let post = json!({"guest": {
        "read": true,
        "create": {"fields": ["title"]},
        "update": {"filter": {"status": "draft"}, "fields": ["title"]},
        "delete": {"filter": {"status": "draft"}}
    }});
    let world = blog(post, Json::Null, Json::Null, Json::Null);
    let (root, guest) = (admin(), Principal::guest());
    world.ok(&guest, "POST /api/content/post", json!({"title": "a"}));
    world.ok(&root, "POST /api/content/post", json!({"title": "b", "status": "published"}));
    let text = "Unauthorized: no rule lets you";
    let body = json!({"title": "c", "views": 1});
    world.refused(&guest, "POST /api/content/post", body, 401, text);
    world.ok(&guest, "PUT /api/content/post/1", json!({"title": "x"}));
    world.refused(&guest, "PUT /api/content/post/2", json!({"title": "x"}), 401, text);
    world.refused(&guest, "DELETE /api/content/post/2", Json::Null, 401, text);
    assert_eq!(world.ok(&guest, "DELETE /api/content/post/delete?filter={}", Json::Null), 1);
    world.refused(&guest, "DELETE /api/content/tag/1", Json::Null, 401, "Unauthorized");
}
