//! Cursors: where they stand, when positions are told, how a replayed subscription joins.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::desk::*;
use super::world::{Plain, catalog, files, take, user};
use crate::error::{Error, Kind, Result};
use crate::limits::Limits;
use crate::live::subscription::Joined;
use crate::live::*;
use crate::model::change::Notice;
use crate::model::cursor::Cursor;
use crate::store::Mark;

fn cursors(request: &mut Request) {
    request.start = Start::Now;
    request.ask.select = Some("title".into());
}

fn blog(id: i64, title: &str) -> Put {
    ("blog", id, Some(json!({"title": title})))
}

/// Position and stamp of an entry that the desk wrote.
fn mark(position: u64) -> Mark {
    Mark { position, stamp: 1000 + position, time: 0 }
}

/// Each message as its event, its ids and its cursor's position.
fn brief(messages: Vec<Json>) -> Vec<Json> {
    let id = |record: &Json| record["id"].clone();
    let ids = |data: &Json| match data {
        Json::Array(all) => all.iter().map(id).collect(),
        one => vec![id(one)],
    };
    let one = |m: Json| match m.get("data") {
        Some(data) => json!([m["event"], ids(data), m["cursor"]]),
        None => json!([m["event"], m["cursor"]]),
    };
    messages.into_iter().map(one).collect()
}

#[test]
fn the_last_message_of_a_commit_has_the_cursor() {
    let limits = Limits { message_records: 2, ..Limits::default() };
    let mut desk = Desk::new(limits);
    desk.put(&[blog(1, "a"), blog(2, "b"), blog(3, "c"), blog(4, "d")]);
    let plain = desk.listen(|r| r.ask.select = Some("title".into()));
    let told = desk.listen(cursors);
    let updates = desk.listen(|r| {
        cursors(r);
        r.events = Events::only(Event::Update);
    });
    let one = desk.listen(|r| {
        cursors(r);
        r.id = Some("1".into());
    });
    for outbox in [&told, &updates, &one] {
        assert_eq!(heard(outbox), [json!({"event": "position", "cursor": 1})]);
    }
    desk.put(&[blog(1, "A"), blog(2, "B"), blog(3, "C"), ("blog", 4, None), blog(5, "e")]);
    let bytes = |outbox: &Outbox| -> Vec<_> {
        take(outbox).0.iter().map(|frame| frame.bytes.as_ptr()).collect()
    };
    let (frames, bare) = (take(&told).0, bytes(&plain));
    assert_eq!(bare.len(), 4);
    for (at, (frame, bare)) in frames.iter().zip(bare).enumerate() {
        assert_eq!(frame.bytes.as_ptr() == bare, at < 3, "shared but for the last");
    }
    assert_eq!(
        brief(shown(frames)),
        [
            json!(["create", [5], null]),
            json!(["update", [1, 2], null]),
            json!(["update", [3], null]),
            json!(["delete", [4], 2]),
        ]
    );
    let updated = [json!(["update", [1, 2], null]), json!(["update", [3], 2])];
    assert_eq!(brief(heard(&updates)), updated);
    assert_eq!(brief(heard(&one)), [json!(["update", [1], 2])]);
}

#[test]
fn a_position_is_told_where_nothing_else_tells_it() {
    let mut desk = Desk::new(Limits::default());
    let all = desk.listen(cursors);
    let none = desk.listen(|r| {
        cursors(r);
        r.ask.filter = Some(json!({"title": "z"}));
    });
    let plain = desk.listen(|r| r.ask.filter = Some(json!({"title": "z"})));
    let start = [json!(["position", 0])];
    assert_eq!((brief(heard(&all)), brief(heard(&none))), (start.to_vec(), start.to_vec()));
    desk.matcher.positions();
    assert_eq!(heard(&none), Vec::<Json>::new(), "it has not moved");
    desk.put(&[blog(1, "a")]);
    desk.put(&[blog(2, "b")]);
    desk.matcher.positions();
    desk.matcher.positions();
    assert_eq!(brief(heard(&none)), [json!(["position", 2])]);
    assert_eq!(brief(heard(&all)), [json!(["create", [1], 1]), json!(["create", [2], 2])]);
    assert_eq!(heard(&plain), Vec::<Json>::new());
    // What waits comes first; the position is told when it is gone.
    desk.put(&[blog(3, "z")]);
    desk.put(&[blog(4, "d")]);
    desk.matcher.positions();
    assert_eq!(brief(heard(&none)), [json!(["create", [3], 3])]);
    desk.matcher.positions();
    assert_eq!(brief(heard(&none)), [json!(["position", 4])]);
}

#[test]
fn who_holds_cursors_ends_where_access_changes() {
    let mut desk = Desk::new(Limits::default());
    let [same, other] = [1, 2].map(Uuid::from_u128);
    let listen = |desk: &mut Desk, id, cursors: bool| {
        desk.listen(|r| {
            r.principal = Arc::new(user(id, &["editor"]));
            r.start = if cursors { Start::Now } else { Start::Live };
        })
    };
    let kept = listen(&mut desk, same, true);
    let lost = listen(&mut desk, other, true);
    let plain = listen(&mut desk, other, false);
    {
        let mut known = desk.people.known.lock().unwrap();
        let mut renamed = user(same, &["editor"]);
        renamed.username = Some("new".into());
        known.insert(same, Some(Arc::new(renamed)));
        known.insert(other, Some(Arc::new(user(other, &[]))));
    }
    for id in [same, other] {
        let notice = Notice::Session { user: id, session: None };
        let commit = desk.write(&[], |commit| commit.notices.push(notice));
        desk.matcher.commit(&commit);
    }
    desk.put(&[blog(1, "secret"), blog(2, "a")]);
    let told = brief(heard(&kept));
    assert_eq!(
        told,
        [json!(["position", 0]), json!(["create", [1], null]), json!(["create", [2], 3])]
    );
    assert_eq!(end(&lost), Some(4410));
    assert_eq!(brief(heard(&plain)), [json!(["create", [2], null])], "swapped");
}

#[test]
fn additions_leave_cursors_alone_and_rules_do_not() {
    let mut desk = Desk::new(Limits::default());
    let guest = |r: &mut Request| {
        cursors(r);
        r.principal = Arc::new(crate::auth::principal::Principal::guest());
    };
    let told = desk.listen(guest);
    let extra = r#", { "name": "note", "label": "N", "type": "string", "optional": true }"#;
    desk.migrate(catalog(2, &files(extra)), vec![]);
    desk.put(&[blog(1, "a")]);
    assert_eq!(brief(heard(&told)), [json!(["position", 0]), json!(["create", [1], 2])]);
    let ruled: Vec<_> = files(extra).iter().map(|file| file.replace("secret", "hidden")).collect();
    desk.migrate(catalog(3, &ruled), vec![]);
    assert_eq!(end(&told), Some(4410));
}

fn joined(desk: &mut Desk, told: u64) -> (Result<Joined, Error>, Arc<Outbox>) {
    let request = desk.request(cursors);
    let (outbox, joined) = desk.join(request, Some(mark(told)));
    (joined, outbox)
}

#[test]
fn a_replay_joins_without_a_gap_and_without_a_double() {
    let mut desk = Desk::new(Limits::default());
    for id in 1..=5 {
        desk.put(&[blog(id, "a")]);
    }
    // The live stream is ahead of it: what lies between comes first.
    let (joins, behind) = joined(&mut desk, 3);
    assert_eq!(joins.unwrap(), Joined::Active(mark(5)));
    // It is where the live stream is.
    let (joins, even) = joined(&mut desk, 5);
    assert_eq!(joins.unwrap(), Joined::Active(mark(5)));
    // It read the log before the matcher was told.
    let (joins, ahead) = joined(&mut desk, 7);
    assert_eq!(joins.unwrap(), Joined::Active(mark(7)));
    for id in 6..=8 {
        desk.put(&[blog(id, "a")]);
        desk.matcher.positions();
    }
    let creates = |ids: std::ops::RangeInclusive<i64>| -> Vec<Json> {
        ids.map(|id| json!(["create", [id], id])).collect()
    };
    assert_eq!(brief(heard(&behind)), creates(4..=8));
    let mut all = vec![json!(["position", 5])];
    all.extend(creates(6..=8));
    assert_eq!(brief(heard(&even)), all);
    assert_eq!(brief(heard(&ahead)), [json!(["position", 7]), json!(["create", [8], 8])]);
}

#[test]
fn those_who_join_alike_are_told_the_same_bytes() {
    let mut desk = Desk::new(Limits::default());
    for id in 1..=5 {
        desk.put(&[blog(id, "a")]);
    }
    let pointers = |outbox: &Outbox| -> Vec<_> {
        take(outbox).0.iter().map(|frame| frame.bytes.as_ptr()).collect()
    };
    let first = pointers(&joined(&mut desk, 2).1);
    let further = pointers(&joined(&mut desk, 4).1);
    assert_eq!((first.len(), &first[2..]), (3, &further[..]));
    let earlier = joined(&mut desk, 1).1;
    desk.put(&[blog(6, "b")]);
    let later = joined(&mut desk, 3).1;
    let earlier = pointers(&earlier);
    assert_eq!((earlier.len(), &earlier[2..4]), (5, &pointers(&later)[..2]));
    let request = desk.request(|r| {
        cursors(r);
        r.told.changes = true;
    });
    let (other, joined) = desk.join(request, Some(mark(5)));
    assert_eq!(joined.unwrap(), Joined::Active(mark(6)));
    assert_eq!(brief(heard(&other)), [json!(["create", [6], 6])]);
}

#[test]
fn a_replay_that_is_too_far_behind_goes_on_from_the_log() {
    let limits = Limits { outbox_frames: 64, ..Limits::default() };
    let mut desk = Desk::new(limits);
    for id in 1..=400 {
        desk.put(&[blog(id, "a")]);
    }
    assert_eq!(joined(&mut desk, 1).0.unwrap(), Joined::Behind, "too many commits");
    assert_eq!(joined(&mut desk, 300).0.unwrap(), Joined::Behind, "too many frames");
    let (joins, outbox) = joined(&mut desk, 390);
    assert_eq!(joins.unwrap(), Joined::Active(mark(400)));
    assert_eq!(heard(&outbox).len(), 10);
    desk.migrate(catalog(2, &files("")), vec![]);
    desk.put(&[blog(401, "a")]);
    assert_eq!(joined(&mut desk, 400).0.unwrap(), Joined::Behind, "the catalog changed");
    assert_eq!(joined(&mut desk, 401).0.unwrap(), Joined::Active(mark(402)));
}

#[test]
fn a_replay_does_not_end_at_what_cannot_be_told_on_joining() {
    let mut desk = Desk::new(Limits::default());
    desk.put(&[blog(1, "a")]);
    let request = desk.request(|r| {
        cursors(r);
        r.ask.select = Some("title,category.name".into());
    });
    let schema = desk.schema("blog").id;
    let too_much = |commit: &mut crate::model::change::Commit| {
        commit.related.incomplete.insert(schema);
    };
    let commit = desk.write(&[blog(2, "a")], too_much);
    desk.matcher.commit(&commit);
    // It is told from the log what became of it: a snapshot begins there if it was asked for.
    let (_, joins) = desk.join(request.clone(), Some(mark(1)));
    assert_eq!(joins.unwrap(), Joined::Behind);
    let (_, joins) = desk.join(request, Some(mark(2)));
    assert_eq!(joins.unwrap(), Joined::Active(mark(2)));
}

#[test]
fn a_position_that_is_owed_is_told_as_soon_as_nothing_waits() {
    let mut desk = Desk::new(Limits::default());
    for id in 1..=3 {
        desk.put(&[blog(id, "a")]);
    }
    let outbox = Outbox::new(&desk.limits, Close::new(4408, "slow"));
    let replayed =
        Frame::from(Plain.position(&Cursor { position: 3, stamp: 0, grant: 0 }.to_string()));
    outbox.offer(3, std::slice::from_ref(&replayed));
    let request = desk.request(cursors);
    let joins = desk.join_with(request, Some(mark(3)), &outbox);
    assert_eq!(joins.unwrap(), Joined::Active(mark(3)));
    desk.matcher.owed();
    assert_eq!(take(&outbox).0.len(), 1, "what waits comes first");
    desk.matcher.owed();
    assert_eq!(brief(heard(&outbox)), [json!(["position", 3])]);
    desk.matcher.owed();
    assert!(take(&outbox).0.is_empty() && desk.matcher.owing.is_empty(), "once");
    // Nor is it told to who has left.
    outbox.offer(3, std::slice::from_ref(&replayed));
    let request = desk.request(cursors);
    let joins = desk.join_with(request, Some(mark(3)), &outbox);
    assert_eq!(joins.unwrap(), Joined::Active(mark(3)));
    let all: Vec<_> = desk.matcher.registry.subscribers().map(|(id, _)| id).collect();
    all.into_iter().for_each(|id| drop(desk.matcher.registry.detach(id)));
    take(&outbox);
    desk.matcher.owed();
    assert!(take(&outbox).0.is_empty() && desk.matcher.owing.is_empty());
}

#[test]
fn a_position_that_is_owed_is_told_under_other_rules_too() {
    let mut desk = Desk::new(Limits::default());
    for id in 1..=5 {
        desk.put(&[blog(id, "a")]);
    }
    // Ahead of the live stream, and with something in its outbox.
    let outbox = Outbox::new(&desk.limits, Close::new(4408, "slow"));
    let waits =
        Frame::from(Plain.position(&Cursor { position: 5, stamp: 0, grant: 0 }.to_string()));
    outbox.offer(5, std::slice::from_ref(&waits));
    let request = desk.request(cursors);
    let joins = desk.join_with(request, Some(mark(7)), &outbox);
    assert_eq!(joins.unwrap(), Joined::Active(mark(7)));
    desk.migrate(catalog(2, &files("")), vec![]);
    desk.put(&[blog(7, "a")]);
    take(&outbox);
    desk.matcher.positions();
    assert_eq!(brief(heard(&outbox)), [json!(["position", 7])]);
}

#[test]
fn what_is_kept_for_those_who_join_is_bounded() {
    let limits = Limits { recent_bytes: 16 << 10, ..Limits::default() };
    let mut desk = Desk::new(limits);
    for id in 1..=5 {
        desk.put(&[blog(id, "a")]);
    }
    let mut most = 0;
    for n in 0..100 {
        let request = desk.request(|r| {
            cursors(r);
            r.ask.filter = Some(json!({"views": {"$null": true}, "id": {"$neq": 100 + n}}));
        });
        let (outbox, joins) = desk.join(request, Some(mark(0)));
        assert_eq!(joins.unwrap(), Joined::Active(mark(5)));
        assert_eq!(heard(&outbox).len(), 5);
        most = most.max(desk.matcher.gaps.bytes);
    }
    assert!(most > 8 << 10 && most < 18 << 10, "{most}");
}

#[test]
fn a_replay_whose_access_changed_under_way_is_refused() {
    let mut desk = Desk::new(Limits::default());
    let id = Uuid::from_u128(1);
    desk.put(&[blog(1, "a")]);
    let mut request = desk.request(cursors);
    request.principal = Arc::new(user(id, &["editor"]));
    desk.people.known.lock().unwrap().insert(id, Some(Arc::new(user(id, &[]))));
    let (_, refused) = desk.join(request.clone(), Some(mark(1)));
    assert_eq!(refused.unwrap_err().kind, Kind::Gone);
    // Nothing was told yet: it begins with what holds now.
    let (outbox, joins) = desk.join(request.clone(), None);
    assert_eq!(joins.unwrap(), Joined::Active(mark(1)));
    desk.put(&[blog(2, "secret")]);
    desk.put(&[blog(3, "a")]);
    assert_eq!(brief(heard(&outbox)), [json!(["position", 1]), json!(["create", [3], 3])]);
    desk.people.known.lock().unwrap().insert(id, None);
    let (_, refused) = desk.join(request, Some(mark(1)));
    assert_eq!(refused.unwrap_err().kind, Kind::Unauthorized);
}

#[test]
fn what_was_told_is_not_told_again() {
    let mut desk = Desk::new(Limits::default());
    let told = desk.listen(|r| r.ask.select = Some("title".into()));
    let first = desk.put(&[blog(1, "a")]);
    let second = desk.put(&[blog(2, "b")]);
    // As the log gives them back.
    desk.matcher.commit(&first);
    desk.matcher.commit(&second);
    assert_eq!(heard(&told).len(), 2);
    assert_eq!(desk.matcher.recent.reach(), (0, 2));
}
