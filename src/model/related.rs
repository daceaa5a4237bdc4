//! Rows reached through relations, gathered once and then read from memory.
//!
//! The evaluator and the encoder read related records through [`Related`] and do not know whether
//! a query, a transaction or a commit gathered them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::change::{Change, Row};
use super::schema::{Relation, Schema, SchemaId};
use super::value::Value;

/// Related rows of a row. Missing rows are answered with an empty slice, never an error: who
/// gathers must gather all that the plan's [`Paths`] name.
pub trait Related {
    /// The rows that `relation` of `schema` leads to from `row`, ordered by primary key.
    /// To-one relations give at most one.
    fn related(&self, schema: &Schema, relation: &Relation, row: &Row) -> &[Arc<Row>];
}

/// For plans that cross no relation.
pub struct NoRelated;

impl Related for NoRelated {
    fn related(&self, _: &Schema, _: &Relation, _: &Row) -> &[Arc<Row>] {
        &[]
    }
}

/// Hashable form of a primary key (keys are integers, text or UUIDs).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    Int(i64),
    Text(Arc<str>),
    Uuid(uuid::Uuid),
}

impl Key {
    /// `None` for NULL and for types that are no key.
    pub fn of(value: &Value) -> Option<Key> {
        match value {
            Value::Int(n) => Some(Key::Int(*n)),
            Value::Text(text) => Some(Key::Text(text.clone())),
            Value::Uuid(id) => Some(Key::Uuid(*id)),
            _ => None,
        }
    }

    /// The value it is the key of.
    pub fn value(&self) -> Value {
        match self {
            Key::Int(n) => Value::Int(*n),
            Key::Text(text) => Value::Text(text.clone()),
            Key::Uuid(id) => Value::Uuid(*id),
        }
    }
}

/// Gathered rows by (schema, relation, primary key of the row they are read from).
#[derive(Clone, Debug, Default)]
pub struct RelatedSet {
    rows: HashMap<(SchemaId, Arc<str>), ByKey>,
}

/// Related rows by the primary key of the row they are read from.
type ByKey = HashMap<Key, Vec<Arc<Row>>>;

impl RelatedSet {
    pub fn insert(
        &mut self,
        schema: SchemaId,
        relation: &Arc<str>,
        from: Key,
        rows: Vec<Arc<Row>>,
    ) {
        self.rows.entry((schema, relation.clone())).or_default().insert(from, rows);
    }

    /// Adds the related rows of many, each by its primary key; `None` where there are none, or
    /// where they were added before.
    pub fn insert_all(
        &mut self,
        schema: SchemaId,
        relation: &Arc<str>,
        all: impl Iterator<Item = (Key, Option<Vec<Arc<Row>>>)>,
    ) {
        let known = self.rows.entry((schema, relation.clone())).or_default();
        for (from, rows) in all {
            known.entry(from).or_insert_with(|| rows.unwrap_or_default());
        }
    }

    pub fn contains(&self, schema: SchemaId, relation: &Arc<str>, from: &Key) -> bool {
        self.rows.get(&(schema, relation.clone())).is_some_and(|rows| rows.contains_key(from))
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds what `other` gathered of the same state.
    pub fn merge(&mut self, other: RelatedSet) {
        for (relation, rows) in other.rows {
            self.rows.entry(relation).or_default().extend(rows);
        }
    }
}

impl Related for RelatedSet {
    fn related(&self, schema: &Schema, relation: &Relation, row: &Row) -> &[Arc<Row>] {
        let Some(key) = Key::of(row.get(schema.primary)) else {
            return &[];
        };
        self.rows
            .get(&(schema.id, relation.name.clone()))
            .and_then(|rows| rows.get(&key))
            .map_or(&[], |rows| rows.as_slice())
    }
}

/// What the writer is asked to read beside the rows it writes, by schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Relations to follow from a changed record.
    pub paths: HashMap<SchemaId, Paths>,
    /// Relations to follow back, from a changed record to the records of the schema named that
    /// read it through these: their [`Dependants`]. Each tree is also part of `paths`.
    pub dependants: HashMap<SchemaId, Paths>,
}

impl Want {
    /// Nothing at all.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.dependants.is_empty()
    }
}

/// Records that a commit did not touch, but that read a record (or a link) that it did.
#[derive(Clone, Debug, Default)]
pub struct Dependants {
    /// As updates that change none of their own columns: `before` and `after` are one row. Each
    /// record once, by schema and primary key.
    pub changes: Vec<Change>,
    /// Indexes into `changes`, by the schema of the dependants and the first relation of the path
    /// they read through; relations through which there are none are left out. `None`: they, or
    /// the records between, are more than `Limits::dependants`, or it took too long or too much to
    /// gather them, and none is listed.
    pub by: HashMap<(SchemaId, Arc<str>), Option<Vec<usize>>>,
}

/// Both sides of one commit.
#[derive(Clone, Debug, Default)]
pub struct RelatedRows {
    /// Read from the changed records and from the dependants, as it all stood before the commit.
    pub before: RelatedSet,
    /// The same after it.
    pub after: RelatedSet,
    /// Schemas from whose records too much was to be gathered: who reads through their relations
    /// cannot be told of this commit.
    pub incomplete: HashSet<SchemaId>,
    pub dependants: Dependants,
    /// What the writer was asked to gather when it worked on the commit.
    pub gathered: Arc<Want>,
}

impl RelatedRows {
    /// Roughly what it holds in memory beside the changes' own rows, bytes. A row that many share
    /// counts once.
    pub fn bytes(&self) -> usize {
        if self.before.is_empty() && self.after.is_empty() && self.dependants.changes.is_empty() {
            return 0;
        }
        let mut seen = HashSet::new();
        let mut row = |row: &Arc<Row>| {
            let new = seen.insert(Arc::as_ptr(row));
            size_of::<Arc<Row>>() + if new { row.bytes() } else { 0 }
        };
        let mut bytes = 0;
        for by_key in self.before.rows.values().chain(self.after.rows.values()) {
            for rows in by_key.values() {
                bytes += 64 + rows.iter().map(&mut row).sum::<usize>();
            }
        }
        for change in &self.dependants.changes {
            bytes += 128 + change.before.iter().chain(&change.after).map(&mut row).sum::<usize>();
        }
        bytes
    }

    /// Whether the writer was asked for all that `paths` read from `schema`, and (`back`) for the
    /// records that read through them.
    pub fn gathers(&self, schema: SchemaId, paths: &Paths, back: bool) -> bool {
        let covers = |wanted: &HashMap<SchemaId, Paths>| {
            wanted.get(&schema).is_some_and(|all| all.covers(paths))
        };
        paths.is_empty()
            || (covers(&self.gathered.paths) && (!back || covers(&self.gathered.dependants)))
    }
}

/// The relations that a filter, grant or projection reads, as a tree from one schema:
/// relation name → what is read from there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Paths(pub std::collections::BTreeMap<Arc<str>, Paths>);

impl Paths {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this tree has every branch of `some`.
    pub fn covers(&self, some: &Paths) -> bool {
        some.0.iter().all(|(name, deeper)| self.0.get(name).is_some_and(|all| all.covers(deeper)))
    }

    /// Adds `other`'s branches to this tree.
    pub fn merge(&mut self, other: &Paths) {
        for (name, deeper) in &other.0 {
            self.0.entry(name.clone()).or_default().merge(deeper);
        }
    }
}
