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

/// Related rows by the primary key they are related to, each list in any order.
type Found = HashMap<Key, Vec<Arc<Row>>>;

impl Gatherer<'_> {
    fn follow(
        &self,
        from: &Schema,
        rows: &[Arc<Row>],
        paths: &Paths,
        set: &mut RelatedSet,
    ) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        for (name, deeper) in &paths.0 {
            let Some(relation) = from.relation(name).map(|index| &from.relations[index]) else {
                continue;
            };
            let target = schema(self.catalog, relation.target)?;
            let mut found = self.step(from, relation, target, rows)?;
            let mut reached: BTreeMap<Key, Arc<Row>> = BTreeMap::new();
            for list in found.values_mut().filter(|_| !deeper.is_empty()) {
                let keyed = |row: &Arc<Row>| Some((Key::of(row.get(target.primary))?, row.clone()));
                reached.extend(list.iter().filter_map(keyed));
            }
            let lists = rows.iter().filter_map(|row| {
                let key = Key::of(row.get(from.primary))?;
                // Rows given twice are found once.
                let mut list = found.remove(&key);
                if let Some(list) = list.as_mut().filter(|list| list.len() > 1) {
                    list.sort_by_cached_key(|row| Key::of(row.get(target.primary)));
                }
                Some((key, list))
            });
            set.insert_all(from.id, name, lists);
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
                let found = rows.iter().filter_map(|row| {
                    let to = there.get(&Key::of(row.get(slot))?)?;
                    Some((Key::of(row.get(from.primary))?, vec![to.clone()]))
                });
                Ok(found.collect())
            }
            Shape::BackKey { slot } | Shape::Many { slot } => {
                self.by_key(target, slot, &distinct(rows, from.primary))
            }
            Shape::Link { junction, own, other } => {
                let junction = schema(self.catalog, junction)?;
                let links = self.by_key(junction, own, &distinct(rows, from.primary))?;
                let ends: Vec<_> = links.values().flatten().cloned().collect();
                let there = self.by_primary(target, &distinct(&ends, other))?;
                let end = |link: &Arc<Row>| there.get(&Key::of(link.get(other))?).cloned();
                let found = links.into_iter();
                Ok(found
                    .map(|(from, links)| (from, links.iter().filter_map(end).collect()))
                    .collect())
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
            if let Some(to) = Key::of(row.get(slot)) {
                found.entry(to).or_default().push(row);
            }
            Ok(())
        })?;
        Ok(found)
    }
}
