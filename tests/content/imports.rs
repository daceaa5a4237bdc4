//! What an import commits at once.

use rowcast::content::{IMPORT_RECORDS, ImportAsk, Imported};
use serde_json::{Map, Value as Json, json};

use crate::admin;
use crate::bounds::{node, plant};
use crate::world::World;

fn world() -> World {
    World::open(&[json!({
        "name": "note", "namespace": "notes", "label_field": "text",
        "fields": [{"name": "text", "label": "T", "type": "string", "unique": true}]
    })])
}

/// So many notes, some of which are not right: at these places.
fn notes(count: usize, wrong: &[usize]) -> Vec<Map<String, Json>> {
    let note = |at: usize| match wrong.contains(&at) {
        true => json!({"text": at}),
        false => json!({"text": at.to_string()}),
    };
    let object = |json| match json {
        Json::Object(object) => object,
        _ => unreachable!(),
    };
    (0..count).map(|at| object(note(at))).collect()
}

fn import(world: &World, notes: Vec<Map<String, Json>>, all_or_nothing: bool) -> Imported {
    let ask = ImportAsk { all_or_nothing, ..ImportAsk::default() };
    world.runtime.block_on(world.content.import(&admin(), "note", notes, ask)).unwrap()
}

/// How many changes each entry has, from the `from`th on.
fn entries(world: &World, from: usize) -> Vec<usize> {
    world.told.0.lock().unwrap()[from..].iter().map(|commit| commit.changes.len()).collect()
}

#[test]
fn so_many_records_are_a_commit() {
    let world = world();
    let wrong = [0, IMPORT_RECORDS - 1, IMPORT_RECORDS, 2 * IMPORT_RECORDS + 7];
    let before = world.entries();
    let imported = import(&world, notes(2 * IMPORT_RECORDS + 10, &wrong), false);
    assert_eq!(imported.created as usize, 2 * IMPORT_RECORDS + 6);
    let refused: Vec<usize> = imported.refused.iter().map(|(at, _)| *at).collect();
    assert_eq!(refused, wrong, "told by their place in the call");
    assert_eq!(entries(&world, before), [IMPORT_RECORDS - 2, IMPORT_RECORDS - 1, 9]);
    // Those that are there are refused by the writer, each by itself.
    let before = world.entries();
    let again = import(&world, notes(2 * IMPORT_RECORDS + 11, &[]), false);
    assert_eq!(again.created, 5);
    assert_eq!(entries(&world, before), [2, 1, 2]);
    let mut refused = again.refused.iter().map(|(at, _)| *at).filter(|at| wrong.contains(at));
    assert_eq!(refused.next(), None);
}

#[test]
fn all_or_nothing_is_one_commit_or_none() {
    let world = world();
    let before = world.entries();
    let many = 2 * IMPORT_RECORDS + 10;
    assert_eq!(import(&world, notes(many, &[many - 1]), true).created, 0);
    assert_eq!(import(&world, notes(many, &[]), true).created as usize, many);
    assert_eq!(entries(&world, before), [many]);
}

#[test]
fn an_empty_one_and_one_of_nothing() {
    let world = world();
    let before = world.entries();
    assert_eq!(import(&world, Vec::new(), false).created, 0);
    assert_eq!(world.entries(), before);
    let (who, ask) = (admin(), ImportAsk::default());
    let none = world.content.import(&who, "nothing", Vec::new(), ask);
    world.runtime.block_on(none).unwrap_err();
}

#[test]
fn an_error_of_the_whole_call_tells_what_is_written() {
    let world = World::open(&[node(true)]);
    let most = i64::try_from(world.content.limits.write_records).unwrap();
    plant(&world, most, |_| 1);
    let object = |json: Json| json.as_object().unwrap().clone();
    let mut records = vec![object(json!({"name": "a"})); IMPORT_RECORDS + 1];
    records[3] = object(json!({"name": 1}));
    records[IMPORT_RECORDS] =
        object(json!({"name": "c", "children": (1..=most).collect::<Vec<_>>()}));
    let (who, before) = (admin(), world.entries());
    let imported = world.content.import(&who, "node", records, ImportAsk::default());
    let error = world.runtime.block_on(imported).unwrap_err();
    assert_eq!(error.status(), 413);
    let told = "(of the 500 before, 499 created, 0 updated)";
    assert!(error.message.contains(told), "{}", error.message);
    assert_eq!(entries(&world, before), [IMPORT_RECORDS - 1]);
    let [refused] = &error.problems[..] else { panic!("{:?}", error.problems) };
    assert_eq!((&*refused.path, &*refused.code), ("records[3]", "record.refused"));
    assert!(refused.message.contains("name"), "{}", refused.message);
}

#[test]
fn a_password_anywhere_refuses_the_whole_call() {
    let world = World::open(&[]);
    let user = |at: usize| json!({"username": format!("u{at}")}).as_object().unwrap().clone();
    let mut users: Vec<_> = (0..=IMPORT_RECORDS).map(user).collect();
    users[IMPORT_RECORDS].insert("password".into(), "long enough".into());
    let (who, before) = (admin(), world.entries());
    let imported = world.content.import(&who, "user", users, ImportAsk::default());
    let error = world.runtime.block_on(imported).unwrap_err();
    assert!(error.message.contains("one user at a time"), "{}", error.message);
    assert_eq!(world.entries(), before);
}
