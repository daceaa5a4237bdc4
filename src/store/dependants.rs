//! Back through relations: which records read what a commit touched.
//!
//! Such a record was not touched itself, so its own columns are the same before and after, and so
//! are the links and keys between it and records that were not touched either. That is why one
//! state, the one after the commit, is enough to look in: whatever led to the record before and
//! does not now is a link or key that the commit touched.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::error::Result;
use crate::model::catalog::Catalog;
use crate::model::change::{Change, Op, Row};
use crate::model::related::{Key, Paths};
use crate::model::schema::{Relation, Schema, SchemaId, Shape, Slot};
use crate::model::value::Value;

use super::related::schema;
use super::view::{Budget, View, too_many};

/// Whether a commit that touched records of these schemas can concern others of `from` that read
/// through `paths`.
pub(crate) fn concerns(
    catalog: &Catalog,
    from: &Schema,
    paths: &Paths,
    touched: &HashSet<SchemaId>,
) -> bool {
    paths.0.iter().any(|(name, deeper)| {
        let relation = from.relation(name).map(|index| &from.relations[index]);
        relation.is_some_and(|relation| {
            let link = match relation.shape {
                Shape::Link { junction, .. } => touched.contains(&junction),
                _ => false,
            };
            let target = || catalog.get(relation.target);
            link || touched.contains(&relation.target)
                || target().is_some_and(|target| concerns(catalog, target, deeper, touched))
        })
    })
}

/// A commit's changes by record.
pub(crate) struct ByRecord<'a>(HashMap<SchemaId, HashMap<Key, &'a Change>>);

impl<'a> ByRecord<'a> {
    pub(crate) fn new(changes: &'a [Change]) -> Self {
        let mut by: HashMap<SchemaId, HashMap<Key, &Change>> = HashMap::new();
        for change in changes {
            if let Some(key) = Key::of(&change.key) {
                by.entry(change.schema).or_default().insert(key, change);
            }
        }
        ByRecord(by)
    }

    fn of(&self, schema: SchemaId) -> impl Iterator<Item = (&Key, &'a Change)> {
        self.0.get(&schema).into_iter().flatten().map(|(key, change)| (key, *change))
    }

    fn has(&self, schema: SchemaId, key: &Key) -> bool {
        self.0.get(&schema).is_some_and(|keys| keys.contains_key(key))
    }

    fn number(&self, schema: SchemaId) -> usize {
        self.0.get(&schema).map_or(0, HashMap::len)
    }
}

pub(crate) struct Finder<'a> {
    /// The state after the commit.
    pub(crate) view: &'a dyn View,
    pub(crate) catalog: &'a Catalog,
    pub(crate) touched: &'a ByRecord<'a>,
    /// Records that may be found through any one relation.
    pub(crate) most: usize,
    /// Rows that may be read on the way, links among them.
    pub(crate) budget: Budget,
}

/// Records by primary key.
pub(crate) type Records = BTreeMap<Key, Arc<Row>>;

impl Finder<'_> {
    /// Records of `from`, not touched themselves, that read by `relation` a record that was
    /// touched or that depends on one by `deeper`; or whose links by it were touched. 413 where
    /// they are too many.
    pub(crate) fn through(
        &self,
        from: &Schema,
        relation: &Relation,
        deeper: &Paths,
    ) -> Result<Records> {
        let target = schema(self.catalog, relation.target)?;
        let mut between = Records::new();
        for (name, deeper) in &deeper.0 {
            if let Some(index) = target.relation(name) {
                between.extend(self.through(target, &target.relations[index], deeper)?);
            }
        }
        match relation.shape {
            Shape::Key { slot } => {
                let keys = self.moved(target.id, &between);
                let mut found = Records::new();
                self.by_key(from, slot, &keys, self.most, &mut |key, row| {
                    found.insert(key, row);
                    self.few(found.len())
                })?;
                Ok(found)
            }
            Shape::BackKey { slot } | Shape::Many { slot } => {
                let mut keys = BTreeMap::new();
                let sides = self.sides(target.id);
                for row in sides.chain(between.values().map(|row| &**row)) {
                    self.note(from, row, slot, &mut keys)?;
                }
                self.by_primary(from, keys)
            }
            Shape::Link { junction, own, other } => {
                let junction = schema(self.catalog, junction)?;
                let mut keys = BTreeMap::new();
                for link in self.sides(junction.id) {
                    self.note(from, link, own, &mut keys)?;
                }
                let moved = self.moved(target.id, &between);
                self.by_key(junction, other, &moved, self.budget.left(), &mut |_, link| {
                    self.note(from, &link, own, &mut keys)
                })?;
                self.by_primary(from, keys)
            }
        }
    }

    /// Keys of records that others may read. What came or went with this commit nobody else reads
    /// by a key or link that it did not touch.
    fn moved(&self, target: SchemaId, between: &Records) -> Vec<Value> {
        let updated = self.touched.of(target).filter(|(_, change)| change.op == Op::Update);
        updated.map(|(key, _)| key).chain(between.keys()).map(Key::value).collect()
    }

    /// Every state, before and after, of the touched records of a schema.
    fn sides(&self, schema: SchemaId) -> impl Iterator<Item = &Row> {
        let changes = self.touched.of(schema).map(|(_, change)| change);
        changes.flat_map(|change| [&change.before, &change.after]).flatten().map(|row| &**row)
    }

    /// Notes the record of `from` that `row` points to, unless it was touched.
    fn note(
        &self,
        from: &Schema,
        row: &Row,
        slot: Slot,
        keys: &mut BTreeMap<Key, Value>,
    ) -> Result<()> {
        let value = row.get(slot);
        if let Some(key) = Key::of(value).filter(|key| !self.touched.has(from.id, key)) {
            keys.insert(key, value.clone());
        }
        self.few(keys.len())
    }

    fn few(&self, found: usize) -> Result<()> {
        if found > self.most { Err(too_many(self.most)) } else { Ok(()) }
    }

    fn by_primary(&self, from: &Schema, keys: BTreeMap<Key, Value>) -> Result<Records> {
        let keys: Vec<Value> = keys.into_values().collect();
        let mut found = Records::new();
        self.view.by_primary(from, &keys, &mut |row| {
            self.budget.take(&row)?;
            found.extend(Key::of(row.get(from.primary)).map(|key| (key, row)));
            Ok(())
        })?;
        Ok(found)
    }

    /// The records that were not touched among those that hold one of `keys`.
    fn by_key(
        &self,
        from: &Schema,
        slot: Slot,
        keys: &[Value],
        most: usize,
        each: &mut dyn FnMut(Key, Arc<Row>) -> Result<()>,
    ) -> Result<()> {
        let most = most + self.touched.number(from.id);
        self.view.by_key(from, slot, keys, most, &mut |row| match Key::of(row.get(from.primary)) {
            Some(key) if !self.touched.has(from.id, &key) => {
                self.budget.take(&row)?;
                each(key, row)
            }
            _ => Ok(()),
        })
    }
}
