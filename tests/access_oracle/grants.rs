//! Rules and what they give whom, worked out the slow way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rowcast::auth::principal::Principal;
use serde_json::{Map, Value as Json, json};

use super::filter::{self, Eyes, truth};
use super::world::{Db, Kind, Rec, columns, key_of, known_name, relation, relations};

#[derive(Clone, Debug)]
pub enum Rule {
    No,
    Yes,
    When { filter: Option<Json>, fields: Option<Vec<&'static str>>, set: Vec<(&'static str, Json)> },
}

/// By role, in the file's order.
pub type Access = Vec<(&'static str, BTreeMap<&'static str, Rule>)>;

pub fn to_json(access: &Access) -> Json {
    let mut roles = Map::new();
    for (role, actions) in access {
        let mut object = Map::new();
        for (action, rule) in actions {
            let rule = match rule {
                Rule::No => json!(false),
                Rule::Yes => json!(true),
                Rule::When { filter, fields, set } => {
                    let mut body = Map::new();
                    if let Some(filter) = filter {
                        body.insert("filter".into(), filter.clone());
                    }
                    if let Some(fields) = fields {
                        body.insert("fields".into(), json!(fields));
                    }
                    if !set.is_empty() {
                        let set = set.iter().map(|(name, value)| (name.to_string(), value.clone()));
                        body.insert("set".into(), Json::Object(set.collect()));
                    }
                    Json::Object(body)
                }
            };
            object.insert(action.to_string(), rule);
        }
        roles.insert(role.to_string(), Json::Object(object));
    }
    Json::Object(roles)
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Who {
    pub name: &'static str,
    /// Place in [`Db::users`].
    pub user: Option<usize>,
    pub roles: Vec<&'static str>,
    pub claims: Map<String, Json>,
    pub admin: bool,
}

impl Who {
    pub fn logged_in(&self) -> bool {
        self.user.is_some() || self.admin
    }

    pub fn principal(&self, db: &Db) -> Principal {
        let user = self.user.map(|place| db.users[place].parse().expect("a UUID"));
        Principal {
            user,
            username: self.user.map(|_| Arc::from(self.name)),
            roles: self.roles.iter().map(|role| Arc::from(*role)).collect(),
            claims: Arc::new(self.claims.clone()),
            logged_in: self.logged_in(),
            admin: self.admin,
            ..Principal::default()
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Alt {
    pub filter: Json,
    pub fields: BTreeSet<&'static str>,
    pub set: Vec<(&'static str, Json)>,
}

/// Rules, data and how to look at them.
#[derive(Clone, Debug)]
pub struct Oracle {
    pub rules: BTreeMap<&'static str, Access>,
    pub db: Db,
}

/// Every name of a schema.
pub fn all_names(schema: &str) -> BTreeSet<&'static str> {
    let columns = columns(schema).iter().copied();
    columns.chain(relations(schema).iter().map(|rel| rel.name)).collect()
}

/// A relation and its key column are one.
pub fn with_twins(
    schema: &str,
    names: impl Iterator<Item = &'static str>,
) -> BTreeSet<&'static str> {
    let mut all = BTreeSet::new();
    for name in names {
        all.insert(name);
        if let Some(rel) = key_of(schema, name) {
            all.insert(rel.name);
        }
        if let Some(Kind::Key(column)) = relation(schema, name).map(|rel| rel.kind) {
            all.insert(column);
        }
    }
    all
}

impl Oracle {
    /// What `who` may do, in the file's order.
    pub fn grant(&self, schema: &'static str, who: &Who, action: &str) -> Vec<Alt> {
        let everything = |fields| Alt { filter: json!({}), fields, set: Vec::new() };
        if who.admin {
            return vec![everything(all_names(schema))];
        }
        if schema == "user" {
            let may = who.logged_in() && action == "read";
            return if may { vec![everything(all_names(schema))] } else { Vec::new() };
        }
        let mut alternatives = Vec::new();
        for (role, actions) in &self.rules[schema] {
            let holds = match *role {
                "guest" => true,
                "user" => who.logged_in(),
                role => who.roles.contains(&role),
            };
            let rule = if holds { actions.get(action) } else { None };
            let default = || {
                let mut names = all_names(schema);
                if action != "read" {
                    names.remove("id");
                }
                names
            };
            match rule {
                None | Some(Rule::No) => {}
                Some(Rule::Yes) => alternatives.push(everything(default())),
                Some(Rule::When { filter, fields, set }) => {
                    let filter = match filter {
                        None => Some(json!({})),
                        Some(filter) => self.fill(schema, filter, who),
                    };
                    let fields = match fields {
                        None => default(),
                        Some(names) => {
                            let pk = (action == "read").then_some("id");
                            with_twins(schema, names.iter().copied().chain(pk))
                        }
                    };
                    let set: Option<Vec<_>> = set
                        .iter()
                        .map(|(name, value)| {
                            let path = [*name];
                            let value = self.value(who, value)?;
                            fits(filter::leaf_type(schema, &path), &value).then_some((*name, value))
                        })
                        .collect();
                    if let (Some(filter), Some(set)) = (filter, set) {
                        alternatives.push(Alt { filter, fields, set });
                    }
                }
            }
        }
        alternatives
    }

    /// A read grant without what others in it cover whole.
    pub fn reads(&self, schema: &'static str, who: &Who) -> Vec<Alt> {
        let all = self.grant(schema, who, "read");
        let covers = |big: &Alt, small: &Alt| {
            (big.filter == json!({}) || big.filter == small.filter)
                && big.fields.is_superset(&small.fields)
        };
        let mut kept = Vec::new();
        for (index, small) in all.iter().enumerate() {
            let covered = all.iter().enumerate().any(|(other, big)| {
                other != index && covers(big, small) && (other < index || !covers(small, big))
            });
            if !covered {
                kept.push(small.clone());
            }
        }
        kept
    }

    /// The grant that a path into the schema goes by.
    pub fn through(&self, schema: &'static str, who: &Who) -> Option<Vec<Alt>> {
        let reads = self.reads(schema, who);
        let crossing = reads.iter().any(|alt| filter::crosses(schema, &alt.filter));
        (!reads.is_empty() && !crossing).then_some(reads)
    }

    pub fn is_true(&self, schema: &'static str, rec: &Rec, alt: &Alt) -> bool {
        truth(self, schema, rec, &alt.filter, Eyes::All) == Some(true)
    }

    /// Whether a path finds the record there, to read `field` of it.
    pub fn meets(&self, schema: &'static str, id: i64, who: &Who, field: Option<&str>) -> bool {
        if schema == "user" {
            return who.logged_in();
        }
        let rec = self.db.rec(schema, id).expect("keys lead somewhere");
        self.through(schema, who).is_some_and(|alts| {
            alts.iter().any(|alt| {
                field.is_none_or(|field| alt.fields.contains(field))
                    && self.is_true(schema, rec, alt)
            })
        })
    }

    /// Whether the record may be read at all.
    pub fn readable(&self, schema: &'static str, id: i64, who: &Who) -> bool {
        if schema == "user" {
            return who.logged_in();
        }
        let Some(rec) = self.db.rec(schema, id) else { return false };
        self.reads(schema, who).iter().any(|alt| self.is_true(schema, rec, alt))
    }

    /// A literal or a placeholder's value.
    fn value(&self, who: &Who, given: &Json) -> Option<Json> {
        let value = match given.as_str() {
            Some("$user.id") => json!(self.db.users[who.user?]),
            Some("$user.username") => json!(who.user.map(|_| who.name)?),
            Some("$user.roles") => json!(who.roles),
            Some(text) if text.starts_with("$claims.") => who.claims.get(&text[8..])?.clone(),
            _ => return Some(given.clone()),
        };
        let nothing = value.is_null() || value == json!([]);
        (!nothing).then_some(value)
    }

    /// A rule's filter with values for placeholders. Rules are generated as
    /// `{"field": {"operator": value}}` and `$and`, `$or`, `$not` of such.
    fn fill(&self, schema: &str, filter: &Json, who: &Who) -> Option<Json> {
        let mut filled = Map::new();
        for (key, inner) in filter.as_object().expect("a filter") {
            let inner = match key.as_str() {
                "$and" | "$or" => {
                    let parts = inner.as_array().expect("an array").iter();
                    Json::Array(
                        parts.map(|part| self.fill(schema, part, who)).collect::<Option<_>>()?,
                    )
                }
                "$not" => self.fill(schema, inner, who)?,
                path => {
                    let parts: Vec<&str> = path.split('.').collect();
                    let ty = filter::leaf_type(schema, &parts);
                    let mut operators = Map::new();
                    for (operator, given) in inner.as_object().expect("operators") {
                        let value = self.value(who, given)?;
                        if given.as_str().is_some_and(|text| text.starts_with('$')) {
                            let fit = match operator.as_str() {
                                "$in" | "$nin" => value.as_array().is_some_and(|elements| {
                                    elements.iter().all(|element| fits(ty, element))
                                }),
                                _ => fits(ty, &value),
                            };
                            if !fit {
                                return None;
                            }
                        }
                        operators.insert(operator.clone(), value);
                    }
                    Json::Object(operators)
                }
            };
            filled.insert(key.clone(), inner);
        }
        Some(Json::Object(filled))
    }
}

fn fits(ty: filter::Ty, value: &Json) -> bool {
    match ty {
        filter::Ty::Int => value.is_i64(),
        filter::Ty::Text => value.is_string(),
        filter::Ty::User => value.as_str().is_some_and(|text| text.len() == 36),
    }
}

pub fn known(schema: &str, name: &str) -> Option<&'static str> {
    known_name(schema, name)
}
