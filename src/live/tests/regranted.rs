//! Whom the matcher asks for when something changes in who is who.

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::desk::Desk;
use super::world::*;
use crate::auth::principal::Principal;
use crate::limits::Limits;
use crate::live::Outbox;
use crate::model::change::{Change, Commit, Notice, Op, Row};
use crate::model::schema::Shape;
use crate::model::value::Value;

fn outside(subject: &str) -> Principal {
    let claims = json!({"sub": subject}).as_object().cloned().expect("an object");
    let principal = user(Uuid::nil(), &["editor"]);
    Principal { user: None, session: None, claims: Arc::new(claims), ..principal }
}

/// A row of a system schema: columns by name.
fn row(desk: &Desk, schema: &str, values: &[(&str, Value)]) -> Arc<Row> {
    let schema = desk.schema(schema);
    let value = |name: &str| values.iter().find(|(known, _)| *known == name);
    let of = |name: &str| value(name).map_or(Value::Null, |(_, value)| value.clone());
    Arc::new(Row::new(schema.columns.iter().map(|column| of(&column.name)).collect()))
}

/// An update of user `n`: linked to these subjects before and after.
fn update(desk: &Desk, n: u128, links: [Option<&str>; 2]) -> Change {
    let schema = desk.schema("user");
    let key = Value::Uuid(Uuid::from_u128(n));
    let [before, after] = links.map(|link| {
        let text = |text: &str| Value::Text(text.into());
        let provider = link.map_or(Value::Null, |_| text("issuer"));
        let subject = link.map_or(Value::Null, text);
        let link = [("id", key.clone()), ("provider", provider), ("provider_id", subject)];
        Some(row(desk, "user", &link))
    });
    let (schema, schema_version) = (schema.id, schema.version);
    Change { schema, schema_version, op: Op::Update, key, before, after }
}

/// A role given to user `n`.
fn member(desk: &Desk, n: u128) -> Change {
    let user = desk.schema("user");
    let roles = &user.relations[user.relation("roles").expect("roles")];
    let Shape::Link { junction, own, .. } = roles.shape else { panic!("{roles:?}") };
    let junction = desk.catalog.get(junction).expect("a junction");
    let mut values = vec![Value::Null; junction.columns.len()];
    values[own] = Value::Uuid(Uuid::from_u128(n));
    Change {
        schema: junction.id,
        schema_version: junction.version,
        op: Op::Create,
        key: Value::Int(1),
        before: None,
        after: Some(Arc::new(Row::new(values))),
    }
}

fn role(desk: &Desk) -> Change {
    let row = Some(row(desk, "role", &[]));
    let (schema, key) = (desk.schema("role"), Value::Uuid(Uuid::from_u128(7)));
    let (schema, schema_version) = (schema.id, schema.version);
    Change { schema, schema_version, op: Op::Update, key, before: row.clone(), after: row }
}

/// Tells the matcher; gives whom it asked for, users by number and outside subjects.
fn asked(desk: &mut Desk, changes: Vec<Change>, notices: Vec<Notice>) -> Vec<String> {
    desk.position += 1;
    desk.people.asked.lock().unwrap().clear();
    let commit = Commit { changes, notices, ..entry(desk.position) };
    desk.matcher.commit(&Arc::new(commit));
    let name = |principal: &Principal| match principal.claims.get("sub") {
        Some(subject) => subject.as_str().expect("a text").to_owned(),
        None => principal.user.map_or("?".into(), |user| user.as_u128().to_string()),
    };
    let mut asked: Vec<String> = desk.people.asked.lock().unwrap().iter().map(name).collect();
    asked.sort();
    asked
}

#[test]
fn only_those_are_asked_for_whom_it_concerns() {
    let mut desk = Desk::new(Limits::default());
    let principals = [1, 1, 2, 3].map(|n| user(Uuid::from_u128(n), &["editor"]));
    let others = [outside("a"), outside("b"), Principal::guest(), Principal::owner()];
    let listen = |principal| desk.listen(|request| request.principal = Arc::new(principal));
    let _ears: Vec<Arc<Outbox>> = principals.into_iter().chain(others).map(listen).collect();
    let d = &mut desk;
    let all = ["1", "1", "2", "3", "a", "b"];

    let change = update(d, 1, [None, None]);
    assert_eq!(asked(d, vec![change], vec![]), ["1", "1"]);
    let change = update(d, 9, [None, None]);
    assert!(asked(d, vec![change], vec![]).is_empty());
    let changes = vec![update(d, 3, [None, None]), update(d, 2, [Some("c"), Some("c")])];
    assert_eq!(asked(d, changes, vec![]), ["2", "3"]);
    let session = Notice::Session { user: Uuid::from_u128(2), session: None };
    assert_eq!(asked(d, vec![], vec![session]), ["2"]);
    let change = member(d, 3);
    assert_eq!(asked(d, vec![change], vec![]), ["3"]);
    let change = role(d);
    assert_eq!(asked(d, vec![change], vec![]), all);

    // An outside token's subject is linked to a user, is that one, and is it no more.
    d.people.linked.lock().unwrap().insert("a".into(), Uuid::from_u128(2));
    let change = update(d, 2, [None, Some("a")]);
    assert_eq!(asked(d, vec![change.clone()], vec![]), ["2", "a"]);
    let same = update(d, 2, [Some("a"), Some("a")]);
    assert_eq!(asked(d, vec![same.clone()], vec![]), ["2", "a"]);
    let roles = member(d, 2);
    assert_eq!(asked(d, vec![roles], vec![]), ["2", "a"]);
    d.people.linked.lock().unwrap().clear();
    let change = update(d, 2, [Some("a"), None]);
    assert_eq!(asked(d, vec![change], vec![]), ["2", "a"]);
    let change = update(d, 2, [None, None]);
    assert_eq!(asked(d, vec![change], vec![]), ["2"]);
    // From one to the other, and a user that is made or deleted with a link.
    let change = update(d, 9, [Some("a"), Some("b")]);
    assert_eq!(asked(d, vec![change], vec![]), ["a", "b"]);
    let link = update(d, 9, [Some("a"), Some("b")]);
    let made = Change { op: Op::Create, before: None, ..link.clone() };
    assert_eq!(asked(d, vec![made], vec![]), ["b"]);
    let gone = Change { op: Op::Delete, after: None, ..link.clone() };
    assert_eq!(asked(d, vec![gone], vec![]), ["a"]);

    // A row of another layout may say anything.
    let other = Change { schema_version: link.schema_version + 1, ..same };
    assert_eq!(asked(d, vec![other], vec![]), all);
}
