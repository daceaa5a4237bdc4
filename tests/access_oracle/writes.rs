//! What a write may do and does.

use serde_json::{Map, Value as Json};

use super::filter::{Eyes, truth};
use super::grants::{Oracle, Who};
use super::view::Question;
use super::world::{Db, Kind, Rec, columns, relation, relations};

/// One record of a write: its schema, id and what happened.
pub type Touched = (&'static str, i64, &'static str);

/// A body as columns of the record and, for `a`, the links it is to have.
struct Wanted {
    /// Fields as named, relations by their own name.
    fields: Vec<&'static str>,
    columns: Rec,
    /// Set on a side by the client: these must be readable.
    related: Vec<(&'static str, i64)>,
    links: Option<Vec<i64>>,
    /// `b.all`: the records of `a` that are to point here.
    all: Option<Vec<i64>>,
}

fn wanted(schema: &'static str, body: &Map<String, Json>, db: &Db) -> Option<Wanted> {
    let mut wanted = Wanted {
        fields: Vec::new(),
        columns: Rec::new(),
        related: Vec::new(),
        links: None,
        all: None,
    };
    for (name, value) in body {
        let name = super::generate::column_name(schema, name)?;
        let rel =
            relations(schema).iter().find(|rel| rel.name == name || rel.kind == Kind::Key(name));
        let Some(rel) = rel else {
            wanted.fields.push(name);
            wanted.columns.insert(name, value.clone());
            continue;
        };
        wanted.fields.push(rel.name);
        match rel.kind {
            Kind::Key(column) => {
                let id = db.own_id(rel.target, value.get("id").unwrap_or(value));
                if let Some(id) = id.as_i64() {
                    wanted.related.push((rel.target, id));
                }
                wanted.columns.insert(column, id);
            }
            _ => {
                let ids = value.as_array()?.iter();
                let ids: Vec<i64> = ids.map(|other| other["id"].as_i64()).collect::<Option<_>>()?;
                wanted.related.extend(ids.iter().map(|id| (rel.target, *id)));
                match rel.kind {
                    Kind::LinkOwn => wanted.links = Some(ids),
                    Kind::Many(_) => wanted.all = Some(ids),
                    _ => return None,
                }
            }
        }
    }
    Some(wanted)
}

impl Oracle {
    fn exists(&self, schema: &str, id: i64) -> bool {
        schema == "user" || self.db.rec(schema, id).is_some()
    }

    /// The state after a create (`id` is to be new) or an update, if `who` may, and what changed.
    pub fn written(
        &self,
        schema: &'static str,
        id: i64,
        create: bool,
        body: &Map<String, Json>,
        who: &Who,
    ) -> Option<(Oracle, Vec<Touched>)> {
        let wanted = wanted(schema, body, &self.db)?;
        if !create && !self.readable(schema, id, who) {
            return None;
        }
        self.decided(schema, id, create, &wanted, who, true)
    }

    /// The first rule that allows a write decides. `named`: by the client, which must be able to
    /// read what it relates to; else a key that a relation of the named record changes.
    fn decided(
        &self,
        schema: &'static str,
        id: i64,
        create: bool,
        wanted: &Wanted,
        who: &Who,
        named: bool,
    ) -> Option<(Oracle, Vec<Touched>)> {
        let action = if create { "create" } else { "update" };
        for alt in self.grant(schema, who, action) {
            let sets = |field: &str| {
                alt.set.iter().any(|(name, _)| {
                    *name == field || relation(schema, name).is_some_and(|rel| rel.name == field)
                })
            };
            let fields = wanted.fields.iter();
            if !fields.clone().all(|field| alt.fields.contains(field) || sets(field)) {
                continue;
            }
            if !create {
                let old = self.db.rec(schema, id).expect("it is readable");
                if !self.is_true(schema, old, &alt) {
                    continue;
                }
            }
            let mut after = self.clone();
            let mut touched = vec![(schema, id, action)];
            let table = after.db.tables.get_mut(schema).expect("a table");
            let empty = || columns(schema).iter().map(|column| (*column, Json::Null)).collect();
            let rec: &mut Rec = table.entry(id).or_insert_with(empty);
            rec.insert("id", id.into());
            rec.extend(wanted.columns.iter().map(|(name, value)| (*name, value.clone())));
            for (name, value) in &alt.set {
                match relation(schema, name).map(|rel| (rel.kind, rel.target)) {
                    Some((Kind::Key(column), target)) => {
                        rec.insert(column, self.db.own_id(target, value));
                    }
                    _ => {
                        rec.insert(name, value.clone());
                    }
                }
            }
            let one = rec.get("one_id").cloned().unwrap_or_default();
            if let Some(links) = &wanted.links {
                // Hidden ones are left alone.
                let links_of = self.db.links.iter().filter(|(a, _)| *a == id);
                let gone: Vec<(i64, i64)> =
                    links_of.filter(|(_, c)| self.readable("c", *c, who)).copied().collect();
                after.db.links.retain(|link| !gone.contains(link));
                after.db.links.extend(links.iter().map(|c| (id, *c)));
            }
            let related = wanted.related.iter().filter(|(target, _)| {
                // What the rule sets itself need not be readable.
                !sets("owner") || *target != "user"
            });
            let mut refused = related.clone().any(|(target, other)| {
                named && (!self.exists(target, *other) || !self.readable(target, *other, who))
            });
            if let (Some(all), false) = (&wanted.all, refused) {
                for (other, rec) in self.db.all("a") {
                    let here = rec["b_id"].as_i64() == Some(id);
                    let to = match (here, all.contains(&other)) {
                        (true, false) if self.readable("a", other, who) => Json::Null,
                        (false, true) => Json::from(id),
                        _ => continue,
                    };
                    let change = Wanted {
                        fields: vec!["b"],
                        columns: Rec::from([("b_id", to)]),
                        related: Vec::new(),
                        links: None,
                        all: None,
                    };
                    match after.decided("a", other, false, &change, who, false) {
                        Some((next, more)) => {
                            after = next;
                            touched.extend(more);
                        }
                        None => refused = true,
                    }
                }
            }
            let rec = after.db.rec(schema, id).expect("it was just written");
            if !refused && truth(&after, schema, rec, &alt.filter, Eyes::All) != Some(true) {
                continue;
            }
            // This rule decides: what else is wrong refuses the write whatever the others say.
            let taken = !one.is_null()
                && schema == "b"
                && self.db.all("b").any(|(other, rec)| other != id && rec["one_id"] == one);
            return (!taken && !refused).then_some((after, touched));
        }
        None
    }

    /// The state after a bulk update: every record that is in the filter and in what `who` may
    /// read and update; one forbidden new state refuses all.
    pub fn written_all(
        &self,
        question: &Question,
        body: &Map<String, Json>,
        who: &Who,
    ) -> Option<(Oracle, Vec<Touched>)> {
        let schema = question.schema;
        let wanted = wanted(schema, body, &self.db)?;
        let checked = self.check(question, who).ok()?;
        let counting: Vec<_> = self
            .grant(schema, who, "update")
            .into_iter()
            .filter(|alt| {
                let set = |field: &str| alt.set.iter().any(|(name, _)| *name == field);
                wanted.fields.iter().all(|field| alt.fields.contains(field) || set(field))
            })
            .collect();
        if counting.is_empty() {
            return None;
        }
        let (mut after, mut touched) = (self.clone(), Vec::new());
        for (id, rec) in self.db.all(schema) {
            let may = counting.iter().any(|alt| self.is_true(schema, rec, alt));
            if may && self.answers(question, &checked, who, rec) {
                let (next, more) = after.decided(schema, id, false, &wanted, who, true)?;
                after = next;
                touched.extend(more);
            }
        }
        Some((after, touched))
    }

    /// The state after a delete, if `who` may, and what changed.
    pub fn deleted(
        &self,
        schema: &'static str,
        id: i64,
        who: &Who,
    ) -> Option<(Oracle, Vec<Touched>)> {
        let rec = self.db.rec(schema, id)?;
        let may =
            self.grant(schema, who, "delete").iter().any(|alt| self.is_true(schema, rec, alt));
        if !may || !self.readable(schema, id, who) {
            return None;
        }
        let mut after = self.clone();
        let changed = after.db.delete(schema, id);
        let mut touched = vec![(schema, id, "delete")];
        let changed = changed.into_iter().filter(|one| *one != (schema, id));
        touched.extend(changed.map(|(schema, id)| (schema, id, "update")));
        Some((after, touched))
    }

    /// What a subscription hears of a write, in any order.
    pub fn told(
        &self,
        after: &Oracle,
        touched: &[Touched],
        question: &Question,
        who: &Who,
    ) -> Vec<(String, Json)> {
        let mut told = Vec::new();
        let checked = self.check(question, who).expect("it is subscribed");
        for (schema, id, event) in touched {
            if *schema != question.schema {
                continue;
            }
            let state = if *event == "delete" { self } else { after };
            let rec = state.db.rec(schema, *id).expect("a state");
            if state.answers(question, &checked, who, rec) {
                told.push((event.to_string(), state.shown(question, &checked, who, rec)));
            }
        }
        told
    }
}
