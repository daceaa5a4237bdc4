//! Rows through relations, a few queries a relation.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::catalog::Catalog;
use crate::model::change::Row;
use crate::model::related::{Key, Paths, RelatedSet};
use crate::model::schema::{Relation, Schema, SchemaId, Shape, Slot};
use crate::model::value::Value;

use super::view::{Budget, View, distinct};

/// Everything that `paths` reads from `rows` in one state; 413 where that is too much.
pub(crate) fn gather(
    view: &dyn View,
    catalog: &Catalog,
    schema: &Schema,
    rows: &[Arc<Row>],
    paths: &Paths,
    budget: &Budget,
) -> Result<RelatedSet> {
    let mut set = RelatedSet::default();
    Gatherer { view, catalog, budget }.follow(schema, rows, paths, &mut set)?;
    Ok(set)
}

/// A schema that another one relates to.
pub(crate) fn schema(catalog: &Catalog, id: SchemaId) -> Result<&Arc<Schema>> {
    catalog
        .get(id)
        .ok_or_else(|| Error::internal(format_args!("the catalog lacks schema {}", id.0)))
}

struct Gatherer<'a> {
    view: &'a dyn View,
    catalog: &'a Catalog,
    budget: &'a Budget,
}

/// Related rows by the primary key they are related to, each list by primary key.
type Found = HashMap<Key, BTreeMap<Key, Arc<Row>>>;

impl Gatherer<'_> {
    fn follow(
        &self,
        from: &Schema,
        rows: &[Arc<Row>],
        paths: &Paths,
        set: &mut RelatedSet,
    ) -> Result<()> {
        for (name, deeper) in &paths.0 {
            let Some(relation) = from.relation(name).map(|index| &from.relations[index]) else {
                continue;
            };
            let target = schema(self.catalog, relation.target)?;
            let mut found = self.step(from, relation, target, rows)?;
            let mut reached: BTreeMap<Key, Arc<Row>> = BTreeMap::new();
            for row in rows {
                let Some(key) = Key::of(row.get(from.primary)) else { continue };
                let related = found.remove(&key).unwrap_or_default();
                if !deeper.is_empty() {
                    reached.extend(related.iter().map(|(key, row)| (key.clone(), row.clone())));
                }
                // Rows given twice are found once.
                if !set.contains(from.id, name, &key) {
                    set.insert(from.id, name, key, related.into_values().collect());
                }
            }
            if !deeper.is_empty() {
                let reached: Vec<_> = reached.into_values().collect();
                self.follow(target, &reached, deeper, set)?;
            }
        }
        Ok(())
    }

    fn step(
        &self,
        from: &Schema,
        relation: &Relation,
        target: &Schema,
        rows: &[Arc<Row>],
    ) -> Result<Found> {
        match relation.shape {
            Shape::Key { slot } => {
                let there = self.by_primary(target, &distinct(rows, slot))?;
                let mut found = Found::new();
                for row in rows {
                    let (Some(from), Some(to)) =
                        (Key::of(row.get(from.primary)), Key::of(row.get(slot)))
                    else {
                        continue;
                    };
                    if let Some(row) = there.get(&to) {
                        found.entry(from).or_default().insert(to, row.clone());
                    }
                }
                Ok(found)
            }
            Shape::BackKey { slot } | Shape::Many { slot } => {
                self.by_key(target, slot, &distinct(rows, from.primary))
            }
            Shape::Link { junction, own, other } => {
                let junction = schema(self.catalog, junction)?;
                let links = self.by_key(junction, own, &distinct(rows, from.primary))?;
                let ends: Vec<_> =
                    links.values().flat_map(|links| links.values().cloned()).collect();
                let there = self.by_primary(target, &distinct(&ends, other))?;
                let mut found = Found::new();
                for (from, links) in links {
                    let ends = found.entry(from).or_default();
                    for link in links.values() {
                        if let Some(to) = Key::of(link.get(other))
                            && let Some(row) = there.get(&to)
                        {
                            ends.insert(to, row.clone());
                        }
                    }
                }
                Ok(found)
            }
        }
    }

    /// Rows by primary key.
    fn by_primary(&self, schema: &Schema, keys: &[Value]) -> Result<HashMap<Key, Arc<Row>>> {
        let mut found = HashMap::new();
        self.view.by_primary(schema, keys, &mut |row| {
            self.budget.take(&row)?;
            if let Some(key) = Key::of(row.get(schema.primary)) {
                found.insert(key, row);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Rows whose key column `slot` holds one of `keys`, by that key.
    fn by_key(&self, schema: &Schema, slot: Slot, keys: &[Value]) -> Result<Found> {
        let mut found = Found::new();
        self.view.by_key(schema, slot, keys, self.budget.left(), &mut |row| {
            self.budget.take(&row)?;
            if let (Some(to), Some(key)) =
                (Key::of(row.get(slot)), Key::of(row.get(schema.primary)))
            {
                found.entry(to).or_default().insert(key, row);
            }
            Ok(())
        })?;
        Ok(found)
    }
}
