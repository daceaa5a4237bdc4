//! The oracle's own idea of the data: plain maps, all of it in memory, nothing optimised.
//!
//! The schemas' shape is fixed, as it holds every kind of relation; rules, records and questions
//! are random.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};

/// A record: own columns and keys by name. Ids of users are their places in [`Db::users`].
pub type Rec = BTreeMap<&'static str, Json>;

#[derive(Clone, Debug, Default)]
pub struct Db {
    pub tables: BTreeMap<&'static str, BTreeMap<i64, Rec>>,
    /// `a.cs`: (a, c).
    pub links: BTreeSet<(i64, i64)>,
    /// UUIDs by id.
    pub users: Vec<String>,
}

/// How a relation is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// To-one, by the own column.
    Key(&'static str),
    /// To-one, by the other's column.
    BackKey(&'static str),
    /// To-many, by the other's column.
    Many(&'static str),
    /// `a.cs`.
    LinkOwn,
    /// `c.linked`.
    LinkOther,
}

#[derive(Clone, Copy, Debug)]
pub struct Rel {
    pub name: &'static str,
    pub target: &'static str,
    pub kind: Kind,
}

impl Rel {
    pub fn to_many(self) -> bool {
        !matches!(self.kind, Kind::Key(_) | Kind::BackKey(_))
    }
}

const fn rel(name: &'static str, target: &'static str, kind: Kind) -> Rel {
    Rel { name, target, kind }
}

pub const SCHEMAS: [&str; 3] = ["a", "b", "c"];

/// Own columns in order, keys last.
pub fn columns(schema: &str) -> &'static [&'static str] {
    match schema {
        "a" => &["id", "n", "s", "k", "b_id", "owner_id"],
        "b" => &["id", "n", "s", "c_id", "one_id"],
        "c" => &["id", "n", "s", "peer_id"],
        _ => &["id", "username"],
    }
}

pub fn relations(schema: &str) -> &'static [Rel] {
    const A: &[Rel] = &[
        rel("b", "b", Kind::Key("b_id")),
        rel("owner", "user", Kind::Key("owner_id")),
        rel("cs", "c", Kind::LinkOwn),
    ];
    const B: &[Rel] = &[
        rel("all", "a", Kind::Many("b_id")),
        rel("c", "c", Kind::Key("c_id")),
        rel("one", "c", Kind::Key("one_id")),
    ];
    const C: &[Rel] = &[
        rel("bs", "b", Kind::Many("c_id")),
        rel("uno", "b", Kind::BackKey("one_id")),
        rel("peer", "c", Kind::Key("peer_id")),
        rel("peers", "c", Kind::Many("peer_id")),
        rel("linked", "a", Kind::LinkOther),
    ];
    match schema {
        "a" => A,
        "b" => B,
        "c" => C,
        _ => &[],
    }
}

pub fn relation(schema: &str, name: &str) -> Option<Rel> {
    relations(schema).iter().copied().find(|rel| rel.name == name)
}

/// The relation whose key the column is.
pub fn key_of(schema: &str, column: &str) -> Option<Rel> {
    relations(schema).iter().copied().find(|rel| rel.kind == Kind::Key(static_name(column)))
}

fn static_name(name: &str) -> &'static str {
    ["b_id", "owner_id", "c_id", "one_id", "peer_id"]
        .into_iter()
        .find(|known| *known == name)
        .unwrap_or("")
}

/// A column's or relation's name as the constants have it.
pub fn known_name(schema: &str, name: &str) -> Option<&'static str> {
    let columns = columns(schema).iter().copied();
    columns.chain(relations(schema).iter().map(|rel| rel.name)).find(|known| *known == name)
}

/// The schema files, with these access rules.
pub fn files(access: impl Fn(&str) -> Json) -> Vec<Json> {
    let field = |name: &str, ty: &str, sortable: bool| json!({ "name": name, "label": name, "type": ty, "optional": true, "sortable": sortable });
    let related = |name: &str, schema: &str, back: &str, kind: &str, owner: bool| {
        json!({
            "name": name, "label": name, "type": "relation", "optional": true,
            "sortable": !owner && kind != "m2m",
            "relation": { "schema": schema, "field": back, "type": kind, "owner": owner,
                          "optional": true }
        })
    };
    let schema = |name: &str, fields: Json| {
        json!({
            "name": name, "namespace": format!("{name}_rows"), "label_field": "s",
            "disable_timestamp": true, "fields": fields, "access": access(name)
        })
    };
    vec![
        schema(
            "a",
            json!([
                field("n", "int", true),
                field("s", "string", true),
                field("k", "int", false),
                related("b", "b", "all", "o2m", false),
                related("owner", "user", "owned", "o2m", false),
                related("cs", "c", "linked", "m2m", true),
            ]),
        ),
        schema(
            "b",
            json!([
                field("n", "int", true),
                field("s", "string", true),
                related("all", "a", "b", "o2m", true),
                related("c", "c", "bs", "o2m", false),
                related("one", "c", "uno", "o2o", false),
            ]),
        ),
        schema(
            "c",
            json!([
                field("n", "int", true),
                field("s", "string", true),
                related("bs", "b", "c", "o2m", true),
                related("uno", "b", "one", "o2o", true),
                related("peer", "c", "peers", "o2m", false),
                related("peers", "c", "peer", "o2m", true),
                related("linked", "a", "cs", "m2m", false),
            ]),
        ),
    ]
}

impl Db {
    pub fn rec(&self, schema: &str, id: i64) -> Option<&Rec> {
        self.tables.get(schema)?.get(&id)
    }

    pub fn all(&self, schema: &str) -> impl Iterator<Item = (i64, &Rec)> {
        self.tables.get(schema).into_iter().flatten().map(|(id, rec)| (*id, rec))
    }

    /// Ids that the relation leads to, in order.
    pub fn related(&self, rel: Rel, rec: &Rec) -> Vec<i64> {
        let own = rec["id"].as_i64().expect("ids are numbers here");
        let pointing = |column: &str| {
            let all = self.all(rel.target);
            let found = all.filter(|(_, other)| other[column].as_i64() == Some(own));
            found.map(|(id, _)| id).collect::<Vec<_>>()
        };
        match rel.kind {
            Kind::Key(column) => rec[column].as_i64().into_iter().collect(),
            Kind::BackKey(column) | Kind::Many(column) => pointing(column),
            Kind::LinkOwn => {
                self.links.iter().filter(|(a, _)| *a == own).map(|(_, c)| *c).collect()
            }
            Kind::LinkOther => {
                self.links.iter().filter(|(_, c)| *c == own).map(|(a, _)| *a).collect()
            }
        }
    }

    /// An id as clients see it.
    pub fn shown_id(&self, schema: &str, id: &Json) -> Json {
        match (schema, id.as_i64()) {
            ("user", Some(id)) => json!(self.users[id as usize]),
            _ => id.clone(),
        }
    }

    /// An id as clients give it; `null` and what is no id become `null`.
    pub fn own_id(&self, schema: &str, shown: &Json) -> Json {
        match schema {
            "user" => {
                let place = self.users.iter().position(|id| Some(id.as_str()) == shown.as_str());
                place.map_or(Json::Null, |place| json!(place))
            }
            _ => shown.clone(),
        }
    }

    /// Deletes a record; what referred to it does so no more. Gives the records that change.
    pub fn delete(&mut self, schema: &'static str, id: i64) -> Vec<(&'static str, i64)> {
        let mut changed = Vec::new();
        self.tables.get_mut(schema).expect("a table").remove(&id);
        for other in SCHEMAS {
            for rel in relations(other) {
                let Kind::Key(column) = rel.kind else { continue };
                if rel.target != schema {
                    continue;
                }
                for (from, rec) in self.tables.get_mut(other).expect("a table") {
                    if rec[column].as_i64() == Some(id) {
                        rec.insert(column, Json::Null);
                        changed.push((other, *from));
                    }
                }
            }
        }
        self.links.retain(|(a, c)| !(schema == "a" && *a == id || schema == "c" && *c == id));
        changed.sort_unstable();
        changed.dedup();
        changed
    }
}
