//! Random rules, records, questions and writes.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::filter::{self, Ty};
use super::grants::{Access, Rule, Who};
use super::rng::Rng;
use super::view::Question;
use super::world::{Db, Kind, Rec, SCHEMAS, columns, known_name, relations};

pub const ROLES: [&str; 4] = ["guest", "user", "r1", "r2"];
const ACTIONS: [&str; 4] = ["read", "create", "update", "delete"];
const TEXTS: [&str; 6] = ["x", "y", "xy", "ann", "r1", "%"];

pub fn access(rng: &mut Rng, schema: &'static str) -> Access {
    let mut roles = ROLES;
    // The file's order is the order of alternatives.
    for at in (1..roles.len()).rev() {
        roles.swap(at, rng.below(at + 1));
    }
    let mut access = Access::new();
    for role in roles {
        if rng.chance(25) {
            continue;
        }
        let mut actions = BTreeMap::new();
        for action in ACTIONS {
            if rng.chance(75) {
                actions.insert(action, rule(rng, schema, action));
            }
        }
        access.push((role, actions));
    }
    access
}

fn rule(rng: &mut Rng, schema: &'static str, action: &str) -> Rule {
    // Reads are cut in every way; writes are to come through often enough.
    match rng.below(10) {
        0 => return Rule::No,
        1 | 2 => return Rule::Yes,
        3 | 4 if action != "read" => return Rule::Yes,
        _ => {}
    }
    let filter = rng.chance(70).then(|| rule_filter(rng, schema, 0));
    let names: Vec<&str> = columns(schema)
        .iter()
        .copied()
        .chain(relations(schema).iter().map(|rel| rel.name))
        .collect();
    let fields = (action != "delete" && rng.chance(60)).then(|| rng.some(&names, 60));
    let mut set = Vec::new();
    if matches!(action, "create" | "update") && rng.chance(30) {
        set.push(match rng.below(4) {
            0 if schema == "a" => ("owner", json!("$user.id")),
            1 => ("n", json!("$claims.n")),
            2 => ("s", json!("$user.username")),
            _ => ("n", json!(rng.below(4))),
        });
    }
    Rule::When { filter, fields, set }
}

fn rule_filter(rng: &mut Rng, schema: &'static str, depth: usize) -> Json {
    if depth < 2 && rng.chance(20) {
        let parts = (0..2).map(|_| rule_filter(rng, schema, depth + 1)).collect::<Vec<_>>();
        return match rng.below(3) {
            0 => json!({ "$and": parts }),
            1 => json!({ "$or": parts }),
            _ => json!({ "$not": parts[0] }),
        };
    }
    let hops = if rng.chance(20) { 1 + rng.below(2) } else { 0 };
    let path = path(rng, schema, hops, false);
    let parts: Vec<&str> = path.split('.').collect();
    let ty = filter::leaf_type(schema, &parts);
    let test = if rng.chance(40) { placeholder(rng, ty) } else { test(rng, ty) };
    json!({ path: test })
}

fn placeholder(rng: &mut Rng, ty: Ty) -> Json {
    match ty {
        Ty::User => json!({ *rng.pick(&["$eq", "$neq"]): "$user.id" }),
        Ty::Text => match rng.below(3) {
            0 => json!({ *rng.pick(&["$in", "$nin"]): "$user.roles" }),
            1 => json!({ "$eq": "$claims.s" }),
            _ => json!({ *rng.pick(&["$eq", "$neq", "$contains"]): "$user.username" }),
        },
        Ty::Int => match rng.below(2) {
            0 => json!({ *rng.pick(&["$in", "$nin"]): "$claims.list" }),
            _ => json!({ *rng.pick(&["$eq", "$neq", "$gt", "$lte"]): "$claims.n" }),
        },
    }
}

/// A path over at most `hops` relations; `odd` lets unknown names and keys in.
fn path(rng: &mut Rng, schema: &'static str, hops: usize, odd: bool) -> String {
    let mut names: Vec<String> = Vec::new();
    let mut at = schema;
    for _ in 0..hops {
        let all = relations(at);
        if all.is_empty() {
            break;
        }
        let rel = rng.pick(all);
        names.push(rel.name.to_owned());
        at = rel.target;
    }
    if odd && rng.chance(4) {
        names.push((*rng.pick(&["zz", "email", "owner", "nn"])).to_owned());
    } else if names.is_empty() || rng.chance(75) {
        let all = columns(at);
        // Ids seldom: they tell least.
        let name = if rng.chance(90) { rng.pick(&all[1..]) } else { &all[0] };
        names.push((*name).to_owned());
    }
    names.join(".")
}

fn test(rng: &mut Rng, ty: Ty) -> Json {
    let int = |rng: &mut Rng| json!(rng.below(4));
    let text = |rng: &mut Rng| json!(*rng.pick(&TEXTS));
    let null = |rng: &mut Rng| match rng.below(3) {
        0 => json!({ "$null": rng.chance(50) }),
        1 => json!({ "$eq": null }),
        _ => json!({ "$neq": null }),
    };
    if rng.chance(15) {
        return null(rng);
    }
    match ty {
        Ty::Int => match rng.below(4) {
            0 => json!({ *rng.pick(&["$in", "$nin"]): [int(rng), int(rng)] }),
            1 => json!({ "$gt": int(rng), "$neq": int(rng) }),
            _ => json!({ *rng.pick(&["$eq", "$neq", "$gt", "$lte"]): int(rng) }),
        },
        Ty::Text => match rng.below(4) {
            0 => json!({ *rng.pick(&["$in", "$nin"]): [text(rng), text(rng)] }),
            1 => json!({ *rng.pick(&["$contains", "$notcontains"]): text(rng) }),
            _ => json!({ *rng.pick(&["$eq", "$neq"]): text(rng) }),
        },
        Ty::User => {
            let id = json!(super::user_id(rng.below(super::USERS.len())));
            json!({ *rng.pick(&["$eq", "$neq"]): id })
        }
    }
}

fn client_filter(rng: &mut Rng, schema: &'static str, depth: usize) -> Json {
    if depth < 3 && rng.chance(30) {
        let count = 1 + rng.below(3);
        let parts = (0..count).map(|_| client_filter(rng, schema, depth + 1)).collect::<Vec<_>>();
        return match rng.below(4) {
            0 | 1 => json!({ "$and": parts }),
            2 => json!({ "$or": parts }),
            _ => json!({ "$not": parts[0] }),
        };
    }
    let hops = if rng.chance(45) { 1 + rng.below(2) } else { 0 };
    let path = path(rng, schema, hops, true);
    let parts: Vec<&str> = path.split('.').collect();
    let mut filter = Map::new();
    let ty = filter::leaf_type(schema, &parts);
    filter.insert(path.clone(), test(rng, ty));
    Json::Object(filter)
}

/// Claims of every kind that a rule might choke on.
pub fn claims(rng: &mut Rng) -> Map<String, Json> {
    let mut claims = Map::new();
    let wrong = [json!(null), json!("1"), json!([]), json!([1]), json!({ "$gt": 0 }), json!(true)];
    let n = if rng.chance(70) { json!(rng.below(4)) } else { rng.pick(&wrong).clone() };
    let s = if rng.chance(70) { json!(*rng.pick(&TEXTS)) } else { rng.pick(&wrong).clone() };
    let list = if rng.chance(70) { json!([0, rng.below(4)]) } else { rng.pick(&wrong).clone() };
    for (name, value) in [("n", n), ("s", s), ("list", list)] {
        if rng.chance(85) {
            claims.insert(name.to_owned(), value);
        }
    }
    claims
}

fn maybe<T: Into<Json>>(rng: &mut Rng, percent: usize, value: impl Fn(&mut Rng) -> T) -> Json {
    if rng.chance(percent) { value(rng).into() } else { Json::Null }
}

/// A record with values at random; keys lead to records that are there.
pub fn record(rng: &mut Rng, schema: &'static str, db: &Db) -> Rec {
    let mut rec = Rec::new();
    for column in columns(schema) {
        let value = match *column {
            "id" => Json::Null,
            "s" => maybe(rng, 80, |rng| *rng.pick(&TEXTS)),
            "owner_id" => maybe(rng, 70, |rng| rng.below(super::USERS.len()) as i64),
            key if key.ends_with("_id") => {
                let rel = relations(schema).iter().find(|rel| rel.kind == Kind::Key(column));
                let ids: Vec<i64> =
                    rel.map_or(Vec::new(), |rel| db.all(rel.target).map(|(id, _)| id).collect());
                // One each: the key of a one-to-one relation is unique.
                let taken = |id: &i64| {
                    key == "one_id" && db.all("b").any(|(_, rec)| rec["one_id"] == json!(id))
                };
                let free: Vec<i64> = ids.into_iter().filter(|id| !taken(id)).collect();
                if free.is_empty() || rng.chance(25) { Json::Null } else { json!(rng.pick(&free)) }
            }
            _ => maybe(rng, 80, |rng| rng.below(4) as i64),
        };
        rec.insert(column, value);
    }
    rec
}

pub fn question(rng: &mut Rng) -> Question {
    let schema = *rng.pick(&SCHEMAS);
    let filter = rng.chance(80).then(|| client_filter(rng, schema, 0));
    let mut select = Vec::new();
    if rng.chance(45) {
        for _ in 0..1 + rng.below(4) {
            let hops = if rng.chance(50) { 1 + rng.below(2) } else { 0 };
            let path = path(rng, schema, hops, true);
            // A user's whole record is another matter for admins.
            select.push(path);
        }
    }
    let mut sort = Vec::new();
    if rng.chance(40) {
        for _ in 0..1 + rng.below(2) {
            let name = path(rng, schema, 0, true);
            sort.push(format!("{}{name}", if rng.chance(50) { "-" } else { "" }));
        }
    }
    Question {
        schema,
        filter,
        select: select.join(","),
        sort: sort.join(","),
        page: 1 + rng.below(2) as u64,
        limit: 1 + rng.below(9) as u64,
    }
}

/// What to write: own columns, to-one relations by either name, links.
pub fn body(rng: &mut Rng, schema: &'static str, db: &Db) -> Map<String, Json> {
    let mut body = Map::new();
    let rec = record(rng, schema, db);
    for (column, value) in rec {
        if column == "id" || rng.chance(60) {
            continue;
        }
        let rel = relations(schema).iter().find(|rel| rel.kind == Kind::Key(column));
        let Some(rel) = rel else {
            body.insert(column.to_owned(), value);
            continue;
        };
        // Now and then a record that is not there.
        let value = if rng.chance(10) && rel.target != "user" { json!(99) } else { value };
        let id = db.shown_id(rel.target, &value);
        if rng.chance(50) {
            body.insert(column.to_owned(), id);
        } else if id.is_null() {
            body.insert(rel.name.to_owned(), id);
        } else {
            body.insert(rel.name.to_owned(), json!({ "id": id }));
        }
    }
    if schema == "a" && rng.chance(30) {
        let all: Vec<i64> = db.all("c").map(|(id, _)| id).collect();
        let some: Vec<Json> = rng.some(&all, 40).iter().map(|id| json!({ "id": id })).collect();
        body.insert("cs".to_owned(), Json::Array(some));
    }
    if schema == "b" && rng.chance(25) {
        let all: Vec<i64> = db.all("a").map(|(id, _)| id).collect();
        let some: Vec<Json> = rng.some(&all, 30).iter().map(|id| json!({ "id": id })).collect();
        body.insert("all".to_owned(), Json::Array(some));
    }
    if rng.chance(3) {
        body.insert("zz".to_owned(), json!(1));
    }
    body
}

/// Guests, users with and without roles, odd claims; the names of users are fixed.
pub fn people(rng: &mut Rng) -> Vec<Who> {
    let who = |rng: &mut Rng, name, user: Option<usize>, roles: &[&'static str]| Who {
        name,
        user,
        roles: roles.to_vec(),
        claims: if user.is_some() { claims(rng) } else { Map::new() },
        admin: false,
    };
    vec![
        who(rng, "guest", None, &[]),
        who(rng, super::USERS[0], Some(0), &[]),
        who(rng, super::USERS[1], Some(1), &["r1"]),
        who(rng, super::USERS[2], Some(2), &["r1", "r2"]),
        who(rng, super::USERS[0], Some(0), &["r2"]),
    ]
}

pub fn column_name(schema: &str, name: &str) -> Option<&'static str> {
    known_name(schema, name)
}
