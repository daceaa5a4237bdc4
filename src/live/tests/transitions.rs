//! What an update did to the match, changes of related records, watched and changed fields.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::desk::*;
use super::world::{catalog, files};
use crate::auth::principal::Principal;
use crate::limits::Limits;
use crate::live::*;
use crate::model::related::Key;

fn transitions(request: &mut Request) {
    request.told.transitions = true;
}

fn popular(request: &mut Request) {
    request.ask.filter = Some(json!({"views": {"$gte": 10}}));
    request.ask.select = Some("views".into());
}

fn news(request: &mut Request) {
    request.ask.filter = Some(json!({"category.name": "news"}));
    request.ask.select = Some("title".into());
    request.told.transitions = true;
}

fn blog(id: i64, title: &str, views: i64, category: Option<i64>) -> Put {
    ("blog", id, Some(json!({"title": title, "views": views, "category_id": category})))
}

fn category(id: i64, name: &str) -> Put {
    ("category", id, Some(json!({"name": name})))
}

fn record(id: i64, title: &str) -> Json {
    json!({"id": id, "title": title})
}

#[test]
fn an_update_is_told_by_what_it_did_to_the_match() {
    let mut desk = Desk::new(Limits::default());
    let views = [(1, 10), (2, 20), (3, 1), (4, 1), (5, 50)];
    desk.put(&views.map(|(id, views)| blog(id, "old", views, None)));
    let plain = desk.listen(popular);
    let told = desk.listen(|r| {
        popular(r);
        transitions(r);
    });
    let one = desk.listen(|r| {
        popular(r);
        transitions(r);
        r.id = Some("1".into());
    });
    let updates = desk.listen(|r| {
        popular(r);
        r.events = Events::only(Event::Update);
    });
    desk.put(&[
        ("blog", 5, None),
        ("blog", 3, Some(json!({"views": 30}))),
        ("blog", 2, Some(json!({"views": 21}))),
        ("blog", 1, Some(json!({"views": 9}))),
        ("blog", 4, Some(json!({"views": 2}))),
        blog(6, "new", 60, None),
        blog(7, "new", 7, None),
    ]);
    let create = json!({"event": "create", "data": {"id": 6, "views": 60}});
    let delete = json!({"event": "delete", "data": [{"id": 5, "views": 50}]});
    let both = json!({"event": "update", "data": [{"id": 3, "views": 30}, {"id": 2, "views": 21}]});
    assert_eq!(heard(&plain), [create.clone(), both.clone(), delete.clone()]);
    assert_eq!(heard(&updates), [both]);
    assert_eq!(
        heard(&told),
        [
            create,
            json!({"event": "leave", "data": [{"id": 1}]}),
            json!({"event": "update", "data": [{"id": 2, "views": 21}]}),
            json!({"event": "enter", "data": [{"id": 3, "views": 30}]}),
            delete,
        ]
    );
    assert_eq!(heard(&one), [json!({"event": "leave", "data": {"id": 1}})]);
    desk.put(&[("blog", 1, Some(json!({"views": 10})))]);
    assert_eq!(heard(&one), [json!({"event": "enter", "data": {"id": 1, "views": 10}})]);
    desk.put(&[("blog", 1, Some(json!({"views": 1})))]);
    desk.put(&[("blog", 1, None)]);
    assert_eq!(heard(&one), [json!({"event": "leave", "data": {"id": 1}})], "left before");
    assert_eq!(heard(&plain).len(), 1);
}

#[test]
fn a_related_record_s_change_is_told_of_those_that_read_it() {
    let mut desk = Desk::new(Limits::default());
    desk.put(&[category(1, "news"), category(2, "sport")]);
    desk.put(&[blog(1, "a", 0, Some(1)), blog(2, "b", 0, Some(2)), blog(3, "c", 0, None)]);
    let told = desk.listen(news);
    let first = desk.listen(|r| {
        news(r);
        r.id = Some("1".into());
    });
    let plain = desk.listen(|r| {
        news(r);
        r.told.transitions = false;
    });
    let shows = desk.listen(|r| {
        r.ask.select = Some("title,category".into());
        r.told.transitions = true;
    });
    let own = desk.listen(transitions);

    desk.put(&[category(1, "old news")]);
    let left = json!({"event": "leave", "data": [{"id": 1}]});
    assert_eq!(heard(&told), [left]);
    assert_eq!(heard(&first), [json!({"event": "leave", "data": {"id": 1}})]);
    let shown = json!({"id": 1, "title": "a", "category": {"id": 1, "name": "old news"}});
    assert_eq!(heard(&shows), [json!({"event": "update", "data": [shown]})]);

    desk.put(&[category(2, "news")]);
    assert_eq!(heard(&told), [json!({"event": "enter", "data": [record(2, "b")]})]);
    assert_eq!(heard(&shows).len(), 1);

    // Nothing that may be seen changed.
    desk.put(&[category(2, "news")]);
    assert_eq!((heard(&told), heard(&shows)), (vec![], vec![]));

    // A record that was touched itself is told once, as what it is then.
    desk.put(&[category(1, "news"), ("blog", 2, Some(json!({"title": "B"})))]);
    let messages = [
        json!({"event": "update", "data": [record(2, "B")]}),
        json!({"event": "enter", "data": [record(1, "a")]}),
    ];
    assert_eq!(heard(&told), messages);

    desk.put(&[("category", 1, None), ("blog", 1, Some(json!({"category_id": null})))]);
    assert_eq!(heard(&told), [json!({"event": "leave", "data": [{"id": 1}]})]);
    assert_eq!(heard(&plain).len(), 1, "of its own update alone");
    assert_eq!(heard(&own).len(), 2, "who reads no relation hears of no category");
}

#[test]
fn over_many_dependants_end_those_that_wanted_them() {
    let mut desk = Desk::new(Limits::default());
    desk.put(&[category(1, "news"), blog(1, "a", 0, Some(1)), blog(2, "b", 0, None)]);
    let told = desk.listen(news);
    let plain = desk.listen(|r| {
        news(r);
        r.told.transitions = false;
    });
    let own = desk.listen(transitions);
    let relation = desk.schema("blog").relations[0].name.clone();
    let id = desk.schema("blog").id;
    let changes = [category(1, "News"), ("blog", 2, Some(json!({"category_id": 1})))];
    let commit = desk.write(&changes, |commit| {
        commit.related.dependants.changes.clear();
        commit.related.dependants.by.insert((id, relation), None);
    });
    desk.matcher.commit(&commit);
    let (frames, close) = super::world::take(&told);
    let close = close.expect("an end");
    assert!(frames.is_empty(), "all of a commit, or none");
    assert_eq!(close.code, 4410);
    assert!(close.reason.starts_with("take a snapshot"), "{}", close.reason);
    assert_eq!((end(&plain), end(&own)), (None, None));
    desk.put(&[category(1, "news"), ("blog", 2, Some(json!({"title": "B"})))]);
    assert_eq!(heard(&plain), [json!({"event": "update", "data": [record(2, "B")]})]);
}

#[test]
fn what_was_not_gathered_is_not_guessed() {
    for (ungathered, code) in [(true, 4410), (false, 4410)] {
        let mut desk = Desk::new(Limits::default());
        desk.put(&[category(1, "news"), blog(1, "a", 0, Some(1))]);
        let told = desk.listen(news);
        let plain = desk.listen(|r| {
            news(r);
            r.told.transitions = false;
        });
        let other = desk.listen(|r| r.ask.schema = "category".into());
        let id = desk.schema("blog").id;
        let break_it = |commit: &mut crate::model::change::Commit| {
            if ungathered {
                let gathered = Arc::make_mut(&mut commit.related.gathered);
                gathered.dependants.clear();
            } else {
                commit.related.incomplete.insert(id);
            }
        };
        // Of a category: only who looks back is concerned.
        let commit = desk.write(&[category(1, "sport")], break_it);
        desk.matcher.commit(&commit);
        assert_eq!(end(&told), Some(code));
        assert_eq!((end(&plain), heard(&other).len()), (None, 1));
        let told = desk.listen(news);
        let commit = desk.write(&[blog(1, "a", 0, Some(1))], |commit| {
            break_it(commit);
            commit.related.dependants = Default::default();
        });
        desk.matcher.commit(&commit);
        // Of a blog: who looks forth finds all in the one case, nothing in the other.
        assert_eq!(end(&told), (!ungathered).then_some(code));
        assert_eq!(end(&plain), (!ungathered).then_some(code));
    }
}

#[test]
fn only_what_is_watched_is_told() {
    let mut desk = Desk::new(Limits::default());
    desk.put(&[category(1, "news"), category(2, "news"), blog(1, "a", 0, None)]);
    desk.put(&[blog(2, "b", 20, Some(1))]);
    let plain = desk.listen(|r| {
        popular(r);
        r.ask.watch = Some("views".into());
    });
    let told = desk.listen(|r| {
        popular(r);
        transitions(r);
        r.ask.watch = Some("views".into());
    });
    let linked = desk.listen(|r| r.ask.watch = Some("category".into()));
    let ids = |outbox: &Outbox| -> Vec<Json> {
        let events = heard(outbox).into_iter();
        events.map(|message| json!([message["event"], message["data"][0]["id"]])).collect()
    };
    desk.put(&[("blog", 2, Some(json!({"title": "B"})))]);
    assert_eq!((ids(&plain), ids(&told), ids(&linked)), (vec![], vec![], vec![]));
    desk.put(&[("blog", 2, Some(json!({"views": 21}))), ("blog", 1, Some(json!({"views": 30})))]);
    assert_eq!(ids(&plain), [json!(["update", 2])], "both, in one message");
    assert_eq!(ids(&told), [json!(["update", 2]), json!(["enter", 1])]);
    desk.put(&[("blog", 2, Some(json!({"category_id": 2})))]);
    assert_eq!((ids(&plain), ids(&linked)), (vec![], vec![json!(["update", 2])]));
    desk.put(&[category(2, "sport")]);
    assert_eq!(ids(&linked), Vec::<Json>::new());
    desk.put(&[("blog", 2, Some(json!({"title": "c"}))), ("blog", 1, None)]);
    assert_eq!(ids(&plain), [json!(["delete", 1])]);
}

#[test]
fn entering_is_told_whatever_is_watched() {
    let mut desk = Desk::new(Limits::default());
    desk.put(&[blog(1, "a", 1, None)]);
    let watching = |transitions: bool| {
        move |r: &mut Request| {
            popular(r);
            r.told.transitions = transitions;
            r.ask.watch = Some("title".into());
        }
    };
    let (plain, told) = (desk.listen(watching(false)), desk.listen(watching(true)));
    desk.put(&[("blog", 1, Some(json!({"views": 10})))]);
    desk.put(&[("blog", 1, Some(json!({"views": 1})))]);
    assert_eq!(heard(&plain), Vec::<Json>::new());
    let events: Vec<_> = heard(&told).iter().map(|message| message["event"].clone()).collect();
    assert_eq!(events, ["enter", "leave"]);
}

#[test]
fn changed_fields_are_named() {
    let mut desk = Desk::new(Limits::default());
    // `updated_at` is set by every update, and never named.
    let stamped: Vec<_> =
        files("").iter().map(|file| file.replace("\"disable_timestamp\": true,", "")).collect();
    desk.migrate(catalog(2, &stamped), vec![]);
    let now = |day: u32, mut record: Json| {
        record["updated_at"] = format!("2026-01-0{day}T00:00:00Z").into();
        Some(record)
    };
    desk.put(&[("category", 1, now(1, json!({"name": "news"})))]);
    let old = json!({"title": "a", "views": 1, "category_id": 1});
    desk.put(&[1, 2, 3, 4].map(|id| ("blog", id, now(1, old.clone()))));
    let plain = desk.listen(|r| r.ask.select = Some("title".into()));
    let own = desk.listen(|r| r.told.changes = true);
    let told = desk.listen(|r| {
        r.told = Told { transitions: true, changes: true };
        r.ask.filter = Some(json!({"views": {"$lt": 5}}));
        r.ask.select = Some("title,views,category".into());
    });
    desk.put(&[
        ("blog", 1, now(2, json!({"title": "b"}))),
        ("blog", 2, now(2, json!({"title": "c"}))),
        ("blog", 3, now(2, json!({"title": "c", "views": 9}))),
        ("blog", 4, now(2, json!({}))),
        ("blog", 5, now(2, old.clone())),
    ]);
    let brief = |outbox: &Outbox| -> Vec<Json> {
        let ids = |data: &Json| match data {
            Json::Array(all) => all.iter().map(|record| record["id"].clone()).collect(),
            one => vec![one["id"].clone()],
        };
        let messages = heard(outbox).into_iter();
        messages
            .map(|m| json!([m["event"], ids(&m["data"]), m.get("changed").unwrap_or(&Json::Null)]))
            .collect()
    };
    assert_eq!(
        brief(&own),
        [
            json!(["create", [5], null]),
            json!(["update", [1, 2], ["title"]]),
            json!(["update", [3], ["title", "views"]]),
            json!(["update", [4], []]),
        ]
    );
    assert_eq!(
        brief(&told),
        [
            json!(["create", [5], null]),
            json!(["leave", [3], null]),
            json!(["update", [1, 2], ["title"]]),
            json!(["update", [4], []]),
        ]
    );
    assert_eq!(brief(&plain)[1], json!(["update", [1, 2, 3, 4], null]));
    desk.put(&[("blog", 3, now(3, json!({"views": 2}))), ("blog", 5, None)]);
    desk.put(&[("category", 1, now(3, json!({"name": "sport"})))]);
    assert_eq!(
        brief(&told),
        [
            json!(["enter", [3], null]),
            json!(["delete", [5], null]),
            json!(["update", [1, 2, 3, 4], ["category"]]),
        ]
    );
}

#[test]
fn what_was_hidden_before_is_compared_with_nothing() {
    let mut desk = Desk::new(Limits::default());
    desk.put(&[blog(1, "secret", 7, None), blog(2, "a", 7, None)]);
    let guest = |r: &mut Request| r.principal = Arc::new(Principal::guest());
    let changes = desk.listen(|r| {
        guest(r);
        r.told.changes = true;
    });
    let watching = desk.listen(|r| {
        guest(r);
        r.ask.watch = Some("views".into());
    });
    desk.put(&[("blog", 1, Some(json!({"title": "b"}))), ("blog", 2, Some(json!({"title": "b"})))]);
    let told: Vec<Json> =
        heard(&changes).iter().map(|m| json!([m["data"][0]["id"], m["changed"]])).collect();
    assert_eq!(
        told,
        [json!([2, ["title"]]), json!([1, ["title", "views", "category_id"]])],
        "what is new is named whole, changed or not"
    );
    let told = heard(&watching);
    assert_eq!(told[0]["data"].as_array().map(Vec::len), Some(1), "{told:?}");
    assert_eq!(told[0]["data"][0]["id"], 1);
}

#[test]
fn only_records_up_to_a_key() {
    let mut desk = Desk::new(Limits::default());
    desk.put(&[category(1, "news")]);
    desk.put(&[1, 2, 3].map(|id| blog(id, "a", 0, Some(1))));
    // Keeps the related rows wanted.
    let _all = desk.listen(news);
    let mut teller = desk.teller(news);
    teller.up_to(Some(Key::Int(2)));
    let commit = desk.put(&[("blog", 3, Some(json!({"title": "b"}))), category(1, "sport")]);
    let told = teller.tell(&commit).expect("told");
    assert_eq!(shown(told), [json!({"event": "leave", "data": [{"id": 1}, {"id": 2}]})]);
    teller.up_to(None);
    let told = teller.tell(&commit).expect("told");
    assert_eq!(shown(told)[0]["data"], json!([{"id": 3}, {"id": 1}, {"id": 2}]));
}
