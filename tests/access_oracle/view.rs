//! What a principal sees: records cut to it, lists, and which questions it may ask.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

use super::filter::{self, Eyes, truth};
use super::grants::{Alt, Oracle, Who};
use super::world::{Kind, Rec, columns, key_of, relation};

/// A question.
#[derive(Clone, Debug, Default)]
pub struct Question {
    pub schema: &'static str,
    pub filter: Option<Json>,
    pub select: String,
    pub sort: String,
    pub page: u64,
    pub limit: u64,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq)]
pub enum No {
    /// 401 or 403.
    Grant,
    /// 400, which may say no more of the name than that it is unknown.
    Unknown,
    /// 400, for something the principal may know.
    Wrong,
}

/// Names wanted behind a relation; `None`: the relation itself.
#[derive(Debug, Default)]
struct Tree {
    whole: bool,
    names: BTreeMap<String, Tree>,
}

pub fn user_rec(id: i64) -> Rec {
    let name = super::USERS[id as usize];
    Rec::from([("id", json!(id)), ("username", json!(name))])
}

/// What was checked of a question.
pub struct Checked {
    reads: Vec<Alt>,
    counting: Vec<Alt>,
    tree: Option<Tree>,
    sort: Vec<(&'static str, bool)>,
}

impl Oracle {
    pub fn check(&self, question: &Question, who: &Who) -> Result<Checked, No> {
        let schema = question.schema;
        let reads = self.reads(schema, who);
        if reads.is_empty() {
            return Err(No::Grant);
        }
        // Which alternatives hold every field that filter and sort name.
        let mut named = Vec::new();
        if let Some(filter) = &question.filter {
            filter::heads(filter, &mut named);
        }
        let sorts: Vec<(&str, bool)> = question
            .sort
            .split(',')
            .filter(|entry| !entry.is_empty())
            .map(|entry| (entry.trim_start_matches('-'), entry.starts_with('-')))
            .collect();
        named.extend(sorts.iter().map(|(name, _)| *name));
        let mut counting = reads.clone();
        for name in named {
            counting.retain(|alt| alt.fields.contains(name));
        }
        let own: Vec<&str> = counting.first().map_or(Vec::new(), |_| {
            counting.iter().flat_map(|alt| alt.fields.iter().copied()).collect()
        });
        if let Some(filter) = &question.filter {
            let mut paths = Vec::new();
            filter::paths(filter, &mut paths);
            if !paths.iter().all(|path| filter::may_name(self, schema, path, who, &own)) {
                return Err(No::Unknown);
            }
        }
        let mut sort = Vec::new();
        for (name, down) in sorts {
            if !own.contains(&name) {
                return Err(No::Unknown);
            }
            let column = match relation(schema, name).map(|rel| rel.kind) {
                Some(Kind::Key(column)) => column,
                Some(_) => return Err(No::Wrong),
                None => super::grants::known(schema, name).expect("a column"),
            };
            if column == "k" {
                return Err(No::Wrong);
            }
            if let Some(rel) = key_of(schema, column) {
                let through = self.through(rel.target, who).unwrap_or_default();
                if !through.iter().any(|alt| alt.filter == json!({})) {
                    return Err(No::Unknown);
                }
            }
            if !sort.iter().any(|(known, _)| *known == column) {
                sort.push((column, down));
            }
        }
        let tree = parse_select(&question.select);
        if let Some(tree) = &tree {
            self.check_select(schema, who, &reads, tree, 0)?;
        }
        Ok(Checked { reads, counting, tree, sort })
    }

    fn check_select(
        &self,
        schema: &'static str,
        who: &Who,
        alts: &[Alt],
        tree: &Tree,
        hops: usize,
    ) -> Result<(), No> {
        for (name, deeper) in &tree.names {
            if !alts.iter().any(|alt| alt.fields.contains(name.as_str())) {
                return Err(No::Unknown);
            }
            match relation(schema, name) {
                None if deeper.names.is_empty() => {}
                None => return Err(No::Unknown),
                Some(rel) => {
                    let Some(through) = self.through(rel.target, who) else {
                        return Err(No::Unknown);
                    };
                    if hops == 2 {
                        return Err(No::Wrong);
                    }
                    self.check_select(rel.target, who, &through, deeper, hops + 1)?;
                }
            }
        }
        Ok(())
    }

    /// Whether a checked question is about the record.
    pub fn answers(&self, question: &Question, checked: &Checked, who: &Who, rec: &Rec) -> bool {
        let schema = question.schema;
        let asked = question
            .filter
            .as_ref()
            .is_none_or(|filter| truth(self, schema, rec, filter, Eyes::Of(who)) == Some(true));
        asked && checked.counting.iter().any(|alt| self.is_true(schema, rec, alt))
    }

    /// The list, total first.
    pub fn list(&self, question: &Question, who: &Who) -> Result<(u64, Vec<Json>), No> {
        let checked = self.check(question, who)?;
        let mut found: Vec<&Rec> = self
            .db
            .all(question.schema)
            .map(|(_, rec)| rec)
            .filter(|rec| self.answers(question, &checked, who, rec))
            .collect();
        let sort = if checked.sort.is_empty() { vec![("id", true)] } else { checked.sort.clone() };
        found.sort_by(|a, b| {
            let by = |column: &str, down: bool| {
                let order = order(&a[column], &b[column]);
                if down { order.reverse() } else { order }
            };
            let first = sort.iter().map(|(column, down)| by(column, *down)).find(|o| o.is_ne());
            first.unwrap_or_else(|| by("id", false))
        });
        let total = found.len() as u64;
        let skip = (question.page - 1) * question.limit;
        let page = found.into_iter().skip(skip as usize).take(question.limit as usize);
        Ok((total, page.map(|rec| self.shown(question, &checked, who, rec)).collect()))
    }

    /// The record as the question shows it.
    pub fn shown(&self, question: &Question, checked: &Checked, who: &Who, rec: &Rec) -> Json {
        let tree = checked.tree.as_ref();
        self.show(question.schema, rec, who, &checked.reads, tree, true)
    }

    /// The whole record as `who` sees it, or its key alone.
    pub fn answer(&self, schema: &'static str, id: i64, who: &Who) -> Json {
        let rec = self.db.rec(schema, id).expect("a record");
        if !self.readable(schema, id, who) {
            return json!({ "id": id });
        }
        self.show(schema, rec, who, &self.reads(schema, who), None, true)
    }

    fn show(
        &self,
        schema: &'static str,
        rec: &Rec,
        who: &Who,
        alts: &[Alt],
        wanted: Option<&Tree>,
        root: bool,
    ) -> Json {
        let mut fields = BTreeSet::from(["id"]);
        for alt in alts {
            if schema == "user" || self.is_true(schema, rec, alt) {
                fields.extend(alt.fields.iter().copied());
            }
        }
        let mut object = Map::new();
        for column in columns(schema) {
            let asked = match wanted {
                None => true,
                Some(tree) => tree.whole || tree.names.contains_key(*column),
            };
            if !(asked && fields.contains(column) || root && *column == "id") {
                continue;
            }
            let value = match key_of(schema, column) {
                None if *column == "id" => self.db.shown_id(schema, &rec["id"]),
                None => rec[column].clone(),
                Some(rel) => match rec[column].as_i64() {
                    Some(id) if self.meets(rel.target, id, who, None) => {
                        self.db.shown_id(rel.target, &rec[column])
                    }
                    _ => Json::Null,
                },
            };
            object.insert(column.to_string(), value);
        }
        for (name, deeper) in wanted.iter().flat_map(|tree| &tree.names) {
            let Some(rel) = relation(schema, name) else { continue };
            if !fields.contains(rel.name) {
                continue;
            }
            let alts = self.through(rel.target, who).expect("the path was checked");
            let mut related = self.db.related(rel, rec);
            related.retain(|id| self.meets(rel.target, *id, who, None));
            let mut shown = related.into_iter().map(|id| {
                let user;
                let other = match self.db.rec(rel.target, id) {
                    Some(other) => other,
                    None => {
                        user = user_rec(id);
                        &user
                    }
                };
                self.show(rel.target, other, who, &alts, Some(deeper), false)
            });
            let value = match rel.to_many() {
                true => Json::Array(shown.collect()),
                false => shown.next().unwrap_or(Json::Null),
            };
            object.insert(name.clone(), value);
        }
        Json::Object(object)
    }
}

fn order(a: &Json, b: &Json) -> Ordering {
    match (a, b) {
        (Json::Null, Json::Null) => Ordering::Equal,
        (Json::Null, _) => Ordering::Less,
        (_, Json::Null) => Ordering::Greater,
        (Json::String(a), Json::String(b)) => a.cmp(b),
        _ => a.as_i64().cmp(&b.as_i64()),
    }
}

fn parse_select(select: &str) -> Option<Tree> {
    let mut root = Tree::default();
    for entry in select.split(',').filter(|entry| !entry.is_empty()) {
        let mut at = &mut root;
        for name in entry.split('.') {
            at = at.names.entry(name.to_owned()).or_default();
        }
        at.whole = true;
    }
    (!select.is_empty()).then_some(root)
}
