//! Principal × schema × action → grant: alternatives of filter and fields.

use std::sync::Arc;

use crate::error::{Error, Problem, Result};
use crate::filter::Predicate;
use crate::model::catalog::Catalog;
use crate::model::schema::{FieldRef, Schema, SchemaKind, Shape};

use super::principal::Principal;
use super::rules;

/// What is to be done with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Read,
    Create,
    Update,
    Delete,
}

impl Action {
    /// The action's name in a schema file.
    pub fn name(self) -> &'static str {
        match self {
            Action::Read => "read",
            Action::Create => "create",
            Action::Update => "update",
            Action::Delete => "delete",
        }
    }
}

/// What a principal may do; nothing where there is no alternative.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grant {
    /// In the file's order, one per role of the principal that has a rule. Reads are simplified:
    /// an alternative that another one covers whole is left out.
    pub alternatives: Vec<Alternative>,
}

/// One way to be allowed.
#[derive(Clone, Debug, PartialEq)]
pub struct Alternative {
    /// Reads unrestricted through relations, as rules do.
    pub filter: Predicate,
    pub fields: FieldSet,
    /// Field and value, already typed JSON with placeholders filled in: overrides the client's.
    /// Columns take a value of their type, to-one relations the related primary key.
    pub set: Vec<(FieldRef, serde_json::Value)>,
}

/// Columns and relations by index. A to-one relation and its key column stand or fall together.
/// Of a read grant the primary key is always in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldSet {
    pub columns: Box<[bool]>,
    pub relations: Box<[bool]>,
}

impl FieldSet {
    /// No field at all.
    pub fn none(schema: &Schema) -> Self {
        FieldSet {
            columns: vec![false; schema.columns.len()].into(),
            relations: vec![false; schema.relations.len()].into(),
        }
    }

    /// Every column and relation.
    pub fn all(schema: &Schema) -> Self {
        FieldSet {
            columns: vec![true; schema.columns.len()].into(),
            relations: vec![true; schema.relations.len()].into(),
        }
    }

    /// Whether `field` is in.
    pub fn has(&self, field: FieldRef) -> bool {
        match field {
            FieldRef::Column(slot) => self.columns.get(slot).copied().unwrap_or(false),
            FieldRef::Relation(index) => self.relations.get(index).copied().unwrap_or(false),
        }
    }

    /// Puts `field` in, under both its names if it is a to-one relation or its key.
    pub fn add(&mut self, schema: &Schema, field: FieldRef) {
        let (column, relation) = match field {
            FieldRef::Column(slot) => (Some(slot), schema.columns[slot].key_of),
            FieldRef::Relation(index) => match schema.relations[index].shape {
                Shape::Key { slot } => (Some(slot), Some(index)),
                _ => (None, Some(index)),
            },
        };
        if let Some(slot) = column {
            self.columns[slot] = true;
        }
        if let Some(index) = relation {
            self.relations[index] = true;
        }
    }

    /// Puts everything in that is in `other`.
    pub fn union(&mut self, other: &FieldSet) {
        for (mine, theirs) in self.columns.iter_mut().zip(&other.columns) {
            *mine |= theirs;
        }
        for (mine, theirs) in self.relations.iter_mut().zip(&other.relations) {
            *mine |= theirs;
        }
    }

    /// Whether everything in `other` is in here.
    pub fn covers(&self, other: &FieldSet) -> bool {
        let within = |mine: &[bool], theirs: &[bool]| {
            mine.iter().zip(theirs).all(|(mine, theirs)| *mine || !theirs)
        };
        within(&self.columns, &other.columns) && within(&self.relations, &other.relations)
    }
}

impl Grant {
    /// All of every record.
    pub fn everything(schema: &Schema) -> Self {
        let alternative =
            Alternative { filter: Predicate::ALL, fields: FieldSet::all(schema), set: Vec::new() };
        Grant { alternatives: vec![alternative] }
    }

    /// Whether nothing is allowed.
    pub fn is_nothing(&self) -> bool {
        self.alternatives.is_empty()
    }

    /// TRUE for the records that some alternative allows.
    pub fn filter(&self) -> Predicate {
        Predicate::or(self.alternatives.iter().map(|alternative| alternative.filter.clone()))
    }

    /// Whether some alternative holds `field`.
    pub fn offers(&self, field: FieldRef) -> bool {
        self.alternatives.iter().any(|alternative| alternative.fields.has(field))
    }

    /// Whether a filter in here reads through a relation: such a grant is refused on paths.
    pub fn crosses(&self, catalog: &Catalog, schema: &Schema) -> bool {
        self.alternatives
            .iter()
            .any(|alternative| !alternative.filter.paths(catalog, schema).is_empty())
    }

    /// Leaves out what another alternative covers whole: same records or more, same fields or
    /// more. What a reader sees does not change by that.
    fn simplified(mut self) -> Self {
        let all = std::mem::take(&mut self.alternatives);
        let covers = |big: &Alternative, small: &Alternative| {
            (big.filter == Predicate::ALL || big.filter == small.filter)
                && big.fields.covers(&small.fields)
        };
        let kept = all.iter().enumerate().filter(|(index, small)| {
            small.filter != Predicate::NONE
                && !all.iter().enumerate().any(|(other, big)| {
                    other != *index && covers(big, small) && (other < *index || !covers(small, big))
                })
        });
        self.alternatives = kept.map(|(_, alternative)| alternative.clone()).collect();
        self
    }
}

/// Resolves what `principal` may do. `admin` gets everything; the system schemas' rules
/// (names to everyone logged in, the rest to admins) are built in.
///
/// Nothing is kept between calls: a grant takes about 2 us, a whole plan about 12 us
/// (`benches/query.rs`), both far below the query or handshake they are made for.
///
/// A rule that cannot be resolved (a placeholder without a value, a value of the wrong type)
/// grants nothing.
pub fn resolve(catalog: &Catalog, schema: &Schema, principal: &Principal, action: Action) -> Grant {
    if principal.admin {
        return Grant::everything(schema);
    }
    match schema.kind {
        SchemaKind::Junction => Grant::default(),
        SchemaKind::System => system(schema, principal, action),
        SchemaKind::User => {
            let rules = schema.access.roles.iter().take(rules::MOST_ROLES);
            let alternatives = rules
                .filter(|rules| rules::holds(&rules.role, principal))
                .filter_map(|rules| rules::alternative(catalog, schema, principal, action, rules))
                .collect();
            let grant = Grant { alternatives };
            if action == Action::Read { grant.simplified() } else { grant }
        }
    }
}

/// Of `user` and `role`, everyone logged in may read what names them.
fn system(schema: &Schema, principal: &Principal, action: Action) -> Grant {
    if !principal.logged_in || action != Action::Read {
        return Grant::default();
    }
    let name = if &*schema.name == "user" { "username" } else { "name" };
    let mut fields = FieldSet::none(schema);
    fields.add(schema, FieldRef::Column(schema.primary));
    if let Some(field) = schema.field(name) {
        fields.add(schema, field);
    }
    let filter = Predicate::ALL;
    Grant { alternatives: vec![Alternative { filter, fields, set: Vec::new() }] }
}

/// As [`resolve`], and an error where nothing is allowed: 401 for a guest, 403 for a user.
pub fn require(
    catalog: &Catalog,
    schema: &Schema,
    principal: &Principal,
    action: Action,
) -> Result<Grant> {
    let grant = resolve(catalog, schema, principal, action);
    if grant.is_nothing() { Err(refused(&schema.name, principal, action)) } else { Ok(grant) }
}

/// The answer to someone for whom no rule gives `action`.
pub fn refused(schema: &str, principal: &Principal, action: Action) -> Error {
    let (action, schema) = (action.name(), crate::error::clip(schema));
    if principal.logged_in {
        Error::forbidden(format_args!("no rule lets you {action} '{schema}'"))
    } else {
        Error::unauthorized(format_args!("log in to {action} '{schema}'"))
    }
}

/// The schema of that name, if it is served. A guest is told 401 where there is none, as where
/// there is no rule.
pub fn schema(
    catalog: &Catalog,
    principal: &Principal,
    name: &str,
    action: Action,
) -> Result<Arc<Schema>> {
    match catalog.named(name) {
        Some(schema) if schema.kind != SchemaKind::Junction => Ok(schema.clone()),
        _ if principal.logged_in => Err(Error::no_schema(name)),
        _ => Err(refused(name, principal, action)),
    }
}

/// Every problem in the access rules of `schema`, `access.*` paths filled in. `catalog` holds
/// the schemas that the rules' filters reach.
pub fn check(catalog: &Catalog, schema: &Schema) -> Vec<Problem> {
    rules::check(catalog, schema)
}
