//! Who ends where a commit cannot be told, and who hears of it all the same.

use serde_json::json;

use super::desk::*;
use super::world::*;
use crate::limits::Limits;
use crate::live::message::Events;
use crate::live::*;

fn blog(id: i64) -> Put {
    ("blog", id, Some(json!({"title": "a"})))
}

#[test]
fn who_did_not_ask_for_an_event_does_not_end_at_it() {
    let mut desk = Desk::new(Limits::default());
    let creates = desk.listen(|request: &mut Request| request.events = Events::only(Event::Create));
    let deletes = desk.listen(|request: &mut Request| request.events = Events::only(Event::Delete));
    let all = desk.listen(|_| {});
    let one = desk.listen(|request: &mut Request| {
        request.id = Some("1".into());
        request.events = Events::only(Event::Create);
    });
    desk.put(&[blog(1), blog(2)]);
    for outbox in [&creates, &all] {
        assert_eq!(heard(outbox).len(), 2);
    }
    assert_eq!(heard(&one).len(), 1);
    // The delete cannot be read; what came with it can.
    let commit = desk.write(&[blog(3), ("blog", 1, None)], |commit| {
        commit.changes[1].schema_version += 1;
    });
    desk.matcher.commit(&commit);
    let events = |desk: &Desk| {
        let mut plans = desk.matcher.registry.plans();
        plans.next().expect("a plan").events
    };
    assert_eq!((end(&deletes), end(&all)), (Some(1011), Some(1011)));
    assert_eq!(heard(&creates).len(), 1);
    // Nobody asks for deletes any more: they are not looked at.
    assert_eq!(events(&desk), Events::only(Event::Create));
    let commit = desk.write(&[("blog", 2, None)], |commit| commit.changes[0].schema_version += 1);
    desk.matcher.commit(&commit);
    assert_eq!((end(&creates), end(&one)), (None, None));
    let updates = desk.listen(|_| {});
    assert_eq!(events(&desk), Events::ALL);
    desk.put(&[blog(3)]);
    assert_eq!((heard(&updates).len(), heard(&creates).len()), (1, 0));
}

/// What all of them show is too much for whoever wants all of it, and nothing for others.
#[test]
fn who_wants_one_record_does_not_end_for_those_who_want_all() {
    let mut desk = Desk::new(Limits { tail_bytes: 64 << 10, ..Limits::default() });
    let all = desk.listen(|_| {});
    let many = desk.listen(|r| r.ask.filter = Some(json!({"id": {"$lte": 20}})));
    let few = desk.listen(|r| r.ask.filter = Some(json!({"id": {"$lte": 3}})));
    let one = desk.listen(|r| r.ask.filter = Some(json!({"id": 40})));
    let title = json!({"title": "a".repeat(3_000)});
    let puts: Vec<Put> = (1..=40).map(|id| ("blog", id, Some(title.clone()))).collect();
    desk.put(&puts);
    assert_eq!((end(&all), end(&many)), (Some(4410), Some(4410)));
    let told = |outbox: &Outbox| {
        let (frames, close) = take(outbox);
        assert_eq!(close, None);
        shown(frames).iter().map(|json| json["data"]["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((told(&few), told(&one)), (vec![json!(1), json!(2), json!(3)], vec![json!(40)]));
    desk.put(&[("blog", 40, Some(json!({"title": "b"})))]);
    assert_eq!(heard(&one).len(), 1);
}
