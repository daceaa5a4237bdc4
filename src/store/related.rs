//! Rows through relations, a few queries a relation.

use std::cell::Cell as Counter;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rusqlite::{Connection, params_from_iter};

use crate::error::{Error, Kind, Result};
use crate::filter::sql::quote;
use crate::model::catalog::Catalog;
use crate::model::change::Row;
use crate::model::related::{Key, Paths, RelatedSet};
use crate::model::schema::{Relation, Schema, SchemaId, Shape, Slot};
use crate::model::value::Value;

use super::cell::{self, Cell};
use super::fault::fault;
use super::room::Room;
use super::texts::TextCache;
use super::touched::Touched;

/// Keys in one `IN (…)`. The lists come in two lengths, so that statements are found prepared.
const CHUNK: usize = 256;
const SMALL: usize = 4;

/// Where related rows are read from.
pub(crate) struct Source<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) texts: &'a TextCache,
    pub(crate) catalog: &'a Catalog,
    /// Rows that may be read at once.
    pub(crate) most: usize,
    /// And their bytes.
    pub(crate) bytes: usize,
}

/// Everything that `paths` reads from `rows`; 413 where that is too much. With `undo` the state
/// before a write is read: the present rows, but what the write touched as it was before.
pub(crate) fn gather(
    source: &Source<'_>,
    schema: &Schema,
    rows: &[Arc<Row>],
    paths: &Paths,
    undo: Option<&Touched>,
) -> Result<RelatedSet> {
    let mut set = RelatedSet::default();
    let gatherer = Gatherer { source, undo, read: Counter::new(0), room: Room::new(source.bytes) };
    gatherer.follow(schema, rows, paths, &mut set)?;
    Ok(set)
}

struct Gatherer<'a> {
    source: &'a Source<'a>,
    undo: Option<&'a Touched>,
    /// Rows read so far.
    read: Counter<usize>,
    room: Room,
}

/// Related rows by the primary key they are related to, each list by primary key.
type Found = HashMap<Key, BTreeMap<Key, Arc<Row>>>;

impl Gatherer<'_> {
    fn follow(
        &self,
        schema: &Schema,
        rows: &[Arc<Row>],
        paths: &Paths,
        set: &mut RelatedSet,
    ) -> Result<()> {
        for (name, deeper) in &paths.0 {
            let Some(relation) = schema.relation(name).map(|index| &schema.relations[index]) else {
                continue;
            };
            let target = self.schema(relation.target)?;
            let mut found = self.step(schema, relation, &target, rows)?;
            let mut reached: BTreeMap<Key, Arc<Row>> = BTreeMap::new();
            for row in rows {
                let Some(from) = Key::of(row.get(schema.primary)) else { continue };
                let related = found.remove(&from).unwrap_or_default();
                if !deeper.is_empty() {
                    reached.extend(related.iter().map(|(key, row)| (key.clone(), row.clone())));
                }
                // Rows given twice are found once.
                if !set.contains(schema.id, name, &from) {
                    set.insert(schema.id, name, from, related.into_values().collect());
                }
            }
            if !deeper.is_empty() {
                let reached: Vec<_> = reached.into_values().collect();
                self.follow(&target, &reached, deeper, set)?;
            }
        }
        Ok(())
    }

    fn schema(&self, id: SchemaId) -> Result<Arc<Schema>> {
        self.source
            .catalog
            .get(id)
            .cloned()
            .ok_or_else(|| Error::internal(format_args!("the catalog lacks schema {}", id.0)))
    }

    fn step(
        &self,
        schema: &Schema,
        relation: &Relation,
        target: &Schema,
        rows: &[Arc<Row>],
    ) -> Result<Found> {
        match relation.shape {
            Shape::Key { slot } => {
                let keys = distinct(rows, slot);
                let there = self.by_primary(target, &keys)?;
                let mut found = Found::new();
                for row in rows {
                    let (Some(from), Some(to)) =
                        (Key::of(row.get(schema.primary)), Key::of(row.get(slot)))
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
                self.by_key(target, slot, &distinct(rows, schema.primary))
            }
            Shape::Link { junction, own, other } => {
                let junction = self.schema(junction)?;
                let links = self.by_key(&junction, own, &distinct(rows, schema.primary))?;
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
        self.fetch(schema, schema.primary, keys, |row| {
            if let Some(key) = Key::of(row.get(schema.primary)) {
                found.insert(key, row);
            }
        })?;
        if let Some(undo) = self.undo {
            for value in keys {
                let Some(key) = Key::of(value) else { continue };
                match undo.before(schema.id, &key) {
                    None => {}
                    Some(Some(row)) => drop(found.insert(key, row.clone())),
                    Some(None) => drop(found.remove(&key)),
                }
            }
        }
        Ok(found)
    }

    /// Rows whose key column `slot` holds one of `keys`, by that key.
    fn by_key(&self, schema: &Schema, slot: Slot, keys: &[Value]) -> Result<Found> {
        let mut found = Found::new();
        let mut add = |row: Arc<Row>| {
            if let (Some(to), Some(key)) =
                (Key::of(row.get(slot)), Key::of(row.get(schema.primary)))
            {
                found.entry(to).or_default().insert(key, row);
            }
        };
        let touched = |row: &Row| {
            let key = Key::of(row.get(schema.primary));
            self.undo.zip(key).is_some_and(|(undo, key)| undo.before(schema.id, &key).is_some())
        };
        self.fetch(schema, slot, keys, |row| {
            if !touched(&row) {
                add(row);
            }
        })?;
        if let Some(undo) = self.undo {
            let wanted: std::collections::HashSet<_> = keys.iter().filter_map(Key::of).collect();
            for row in undo.befores(schema.id) {
                if Key::of(row.get(slot)).is_some_and(|to| wanted.contains(&to)) {
                    add(row.clone());
                }
            }
        }
        Ok(found)
    }

    fn fetch(
        &self,
        schema: &Schema,
        slot: Slot,
        keys: &[Value],
        mut each: impl FnMut(Arc<Row>),
    ) -> Result<()> {
        let texts = self.source.texts.of(schema);
        let mut read = |keys: &[Value]| -> rusqlite::Result<Result<bool>> {
            let length = if keys.len() <= SMALL { SMALL } else { CHUNK };
            let text = format!(
                "SELECT {} FROM {} WHERE r.{} IN ({})",
                texts.columns,
                texts.from,
                quote(&schema.columns[slot].name),
                vec!["?"; length].join(", ")
            );
            let mut statement = self.source.connection.prepare_cached(&text)?;
            // What is missing to the full length is NULL, which nothing equals.
            let padded = keys.iter().chain(std::iter::repeat(&Value::Null)).take(length);
            let mut rows = statement.query(params_from_iter(padded.map(Cell)))?;
            while let Some(row) = rows.next()? {
                self.read.set(self.read.get() + 1);
                if self.read.get() > self.source.most {
                    return Ok(Ok(false));
                }
                let row = cell::record(row, 0, schema)?;
                if let Err(error) = self.room.take(&row) {
                    return Ok(Err(error));
                }
                each(Arc::new(row));
            }
            Ok(Ok(true))
        };
        for keys in keys.chunks(CHUNK) {
            if !read(keys).map_err(fault)?? {
                return Err(Error::new(
                    Kind::TooLarge,
                    format!(
                        "the related records are more than {}, the most that are read at once; \
                         ask for fewer records or for less of them",
                        self.source.most
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// The values of a column, each once, NULL left out.
fn distinct(rows: &[Arc<Row>], slot: Slot) -> Vec<Value> {
    let mut seen = std::collections::HashSet::new();
    rows.iter()
        .map(|row| row.get(slot))
        .filter(|value| Key::of(value).is_some_and(|key| seen.insert(key)))
        .cloned()
        .collect()
}
