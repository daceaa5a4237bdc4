//! The schemas, rules and people of the test: every kind of relation, rules of every kind.

use serde_json::{Value as Json, json};

use crate::rng::Rng;

pub const SCHEMAS: [&str; 4] = ["item", "group", "person", "tag"];

/// What schemas look like now: which rules of its own each has, and how many columns were added.
#[derive(Clone, Copy, Debug, Default)]
pub struct Form {
    pub rules: usize,
    pub more: usize,
    /// How often the first of them was renamed.
    pub renames: usize,
}

/// Names of columns that are added while the server runs begin so.
pub const MORE: &str = "more_";

/// The name of an added column after so many renames.
pub fn more(number: usize, renames: usize) -> String {
    if number == 0 { format!("{MORE}0_{renames}") } else { format!("{MORE}{number}") }
}

fn field(name: &str, ty: &str) -> Json {
    json!({ "name": name, "label": name, "type": ty, "optional": true, "sortable": true })
}

fn relation(name: &str, schema: &str, back: &str, kind: &str, owner: bool) -> Json {
    json!({
        "name": name, "label": name, "type": "relation", "optional": true,
        "relation": { "schema": schema, "field": back, "type": kind, "owner": owner }
    })
}

fn required(mut field: Json) -> Json {
    field["optional"] = json!(false);
    field
}

/// The file of a schema.
pub fn file(schema: &str, form: Form) -> Json {
    let mut fields = match schema {
        "item" => vec![
            field("title", "string"),
            field("n", "int"),
            json!({ "name": "state", "label": "State", "type": "enum", "optional": true,
                    "enums": [{ "value": "open" }, { "value": "closed" }, { "value": "void" }] }),
            field("note", "json"),
            relation("group", "group", "items", "o2m", false),
            required(relation("lead", "person", "leads", "o2m", false)),
            relation("owner", "user", "owned", "o2m", false),
            relation("tags", "tag", "items", "m2m", true),
            relation("kin", "item", "kin_of", "m2m", true),
            relation("kin_of", "item", "kin", "m2m", false),
        ],
        "group" => vec![
            field("name", "string"),
            field("rank", "int"),
            field("open", "bool"),
            relation("items", "item", "group", "o2m", true),
            relation("parent", "group", "children", "o2m", false),
            relation("children", "group", "parent", "o2m", true),
            relation("head", "person", "heads", "o2o", true),
        ],
        "person" => vec![
            field("name", "string"),
            field("level", "int"),
            relation("leads", "item", "lead", "o2m", true),
            relation("boss", "person", "staff", "o2m", false),
            relation("staff", "person", "boss", "o2m", true),
            relation("heads", "group", "head", "o2o", false),
        ],
        _ => vec![
            field("name", "string"),
            field("weight", "int"),
            relation("items", "item", "tags", "m2m", false),
        ],
    };
    fields.extend((0..form.more).map(|number| field(&more(number, form.renames), "int")));
    let label = if schema == "item" { "title" } else { "name" };
    json!({
        "name": schema, "namespace": format!("{schema}_rows"), "label_field": label,
        "disable_timestamp": schema == "tag", "fields": fields, "access": access(schema, form.rules)
    })
}

/// How many sets of rules a schema has to choose from.
pub fn variants(schema: &str) -> usize {
    if schema == "item" { 5 } else { 3 }
}

/// What everyone who is logged in may write; `read` beside it.
fn writes(read: Json) -> Json {
    json!({ "read": read, "create": true, "update": true, "delete": true })
}

fn when(filter: Json) -> Json {
    json!({ "filter": filter })
}

fn access(schema: &str, variant: usize) -> Json {
    let some = |filter: Json, fields: Json| json!({ "filter": filter, "fields": fields });
    let (guest, user, editor) = match (schema, variant) {
        ("item", 0) => (
            some(json!({ "state": "open" }), json!(["title", "n", "state", "group"])),
            when(json!({ "$or": [{ "owner": "$user.id" }, { "n": { "$gt": 30 } }] })),
            json!(true),
        ),
        ("item", 1) => (json!(true), json!(true), json!(true)),
        ("item", 2) => (
            when(json!({ "group.open": true })),
            some(
                json!({ "tags.weight": { "$gt": 5 } }),
                json!(["title", "n", "lead", "tags", "note"]),
            ),
            json!(true),
        ),
        ("item", 3) => (
            json!(false),
            when(json!({ "lead.level": { "$lt": 5 } })),
            when(json!({ "n": { "$gt": 10 } })),
        ),
        ("item", _) => (
            some(json!({ "n": { "$gte": 20 } }), json!(["title", "tags", "kin", "lead"])),
            some(json!({ "kin.state": "open" }), json!(["n", "state", "group", "kin"])),
            json!(false),
        ),
        ("group", 1) => (
            when(json!({ "open": true })),
            some(json!({ "rank": { "$gt": 3 } }), json!(["name", "rank", "parent", "items"])),
            json!(true),
        ),
        ("group", 2) => (json!(false), json!(true), json!(true)),
        ("person", 1) => {
            (json!(false), some(json!({}), json!(["name", "boss", "leads", "level"])), json!(true))
        }
        ("person", 2) => (when(json!({ "level": { "$lt": 7 } })), json!(false), json!(false)),
        ("tag", 1) => (json!(false), when(json!({ "weight": { "$lt": 7 } })), json!(true)),
        ("tag", 2) => (
            some(json!({ "weight": { "$gte": 2 } }), json!(["name", "items"])),
            json!(false),
            json!(false),
        ),
        _ => (json!(true), json!(true), json!(true)),
    };
    json!({ "guest": { "read": guest }, "user": writes(user), "editor": { "read": editor } })
}

/// A schema that nobody of the test reads.
pub fn stranger(number: usize) -> Json {
    json!({
        "name": format!("stranger{number}"), "namespace": format!("strangers{number}"),
        "label_field": "name", "fields": [field("name", "string")]
    })
}

/// Somebody who asks or writes.
#[derive(Clone, Debug)]
pub struct Person {
    pub name: &'static str,
    pub id: String,
    /// `None`: a guest.
    pub token: Option<String>,
}

pub fn number(rng: &mut Rng) -> Json {
    let end = if rng.chance(50) { 10 } else { 50 };
    if rng.chance(12) { Json::Null } else { json!(rng.below(end)) }
}

pub fn word(rng: &mut Rng) -> Json {
    let length = 1 + rng.below(4);
    let letters: String = (0..length).map(|_| *rng.pick(&['a', 'b', 'c', 'ä', '%', ' '])).collect();
    json!(letters)
}

pub fn state(rng: &mut Rng) -> Json {
    rng.pick(&[json!("open"), json!("open"), json!("closed"), json!("void"), Json::Null]).clone()
}
