//! One state of all rows: the present one, or the one before a write. (One of long ago stands in
//! `past.rs`.)

use std::cell::Cell as Counter;
use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::{Connection, params_from_iter};

use crate::error::{Error, Kind, Result};
use crate::filter::sql::quote;
use crate::model::change::Row;
use crate::model::related::Key;
use crate::model::schema::{Schema, Slot};
use crate::model::value::Value;

use super::cell::{self, Cell};
use super::fault::fault;
use super::room::Room;
use super::texts::TextCache;
use super::touched::Touched;

/// Keys in one `IN (…)`. The lists come in two lengths, so that statements are found prepared.
const CHUNK: usize = 256;
const SMALL: usize = 4;

/// Takes a row; its error ends the reading.
pub(crate) type Each<'a> = &'a mut dyn FnMut(Arc<Row>) -> Result<()>;

/// A state that rows are read from, many at once. Keys are given once each; rows come in no order.
pub(crate) trait View {
    /// The rows with these primary keys.
    fn by_primary(&self, schema: &Schema, keys: &[Value], each: Each<'_>) -> Result<()>;

    /// The rows whose key column `slot` holds one of `keys`. Whoever asks takes `most` of them and
    /// then gives an error; a view may give that error itself (413).
    fn by_key(
        &self,
        schema: &Schema,
        slot: Slot,
        keys: &[Value],
        most: usize,
        each: Each<'_>,
    ) -> Result<()>;
}

/// The rows as they are.
pub(crate) struct Present<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) texts: &'a TextCache,
    /// With it the state before a write: what the write touched as it was before.
    pub(crate) undo: Option<&'a Touched>,
}

impl View for Present<'_> {
    fn by_primary(&self, schema: &Schema, keys: &[Value], each: Each<'_>) -> Result<()> {
        let Some(undo) = self.undo else {
            return self.fetch(schema, schema.primary, keys, each);
        };
        let mut rest = Vec::with_capacity(keys.len());
        for value in keys {
            let Some(key) = Key::of(value) else { continue };
            match undo.before(schema.id, &key) {
                None => rest.push(value.clone()),
                Some(Some(row)) => each(row.clone())?,
                Some(None) => {}
            }
        }
        self.fetch(schema, schema.primary, &rest, each)
    }

    fn by_key(
        &self,
        schema: &Schema,
        slot: Slot,
        keys: &[Value],
        _: usize,
        each: Each<'_>,
    ) -> Result<()> {
        let Some(undo) = self.undo else {
            return self.fetch(schema, slot, keys, each);
        };
        let wanted: HashSet<Key> = keys.iter().filter_map(Key::of).collect();
        for row in undo.befores(schema.id) {
            if Key::of(row.get(slot)).is_some_and(|to| wanted.contains(&to)) {
                each(row.clone())?;
            }
        }
        self.fetch(schema, slot, keys, &mut |row| {
            let key = Key::of(row.get(schema.primary));
            match key.is_some_and(|key| undo.before(schema.id, &key).is_some()) {
                true => Ok(()),
                false => each(row),
            }
        })
    }
}

impl Present<'_> {
    fn fetch(&self, schema: &Schema, slot: Slot, keys: &[Value], each: Each<'_>) -> Result<()> {
        let texts = self.texts.of(schema);
        chunks(keys, |keys, marks| {
            let text = format!(
                "SELECT {} FROM {} WHERE r.{} IN ({marks})",
                texts.columns,
                texts.from,
                quote(&schema.columns[slot].name),
            );
            let mut statement = self.connection.prepare_cached(&text)?;
            let mut rows = statement.query(params_from_iter(keys.iter().map(|key| Cell(key))))?;
            while let Some(row) = rows.next()? {
                if let Err(error) = each(Arc::new(cell::record(row, 0, schema)?)) {
                    return Ok(Err(error));
                }
            }
            Ok(Ok(()))
        })
    }
}

/// Runs `read` for some keys at a time, as many as `marks` has question marks: what is missing to
/// a full list is NULL, which nothing equals.
pub(crate) fn chunks(
    keys: &[Value],
    mut read: impl FnMut(&[&Value], &str) -> rusqlite::Result<Result<()>>,
) -> Result<()> {
    for keys in keys.chunks(CHUNK) {
        let length = if keys.len() <= SMALL { SMALL } else { CHUNK };
        let marks = vec!["?"; length].join(", ");
        let padded = keys.iter().chain(std::iter::repeat(&Value::Null)).take(length);
        read(&padded.collect::<Vec<_>>(), &marks).map_err(fault)??;
    }
    Ok(())
}

/// How many rows may be read for one purpose, and their bytes.
pub(crate) struct Budget {
    most: usize,
    taken: Counter<usize>,
    room: Room,
}

impl Budget {
    pub(crate) fn new(most: usize, bytes: usize) -> Self {
        Budget { most, taken: Counter::new(0), room: Room::new(bytes) }
    }

    /// Rows that still may be taken.
    pub(crate) fn left(&self) -> usize {
        self.most - self.taken.get()
    }

    /// 413 where the row is one too many.
    pub(crate) fn take(&self, row: &Row) -> Result<()> {
        if self.left() == 0 {
            return Err(too_many(self.most));
        }
        self.taken.set(self.taken.get() + 1);
        self.room.take(row)
    }
}

pub(crate) fn too_many(most: usize) -> Error {
    Error::new(
        Kind::TooLarge,
        format!(
            "the related records are more than {most}, the most that are read at once; ask for \
             fewer records or for less of them"
        ),
    )
}

/// The values of a column, each once, NULL left out.
pub(crate) fn distinct(rows: &[Arc<Row>], slot: Slot) -> Vec<Value> {
    let mut seen = HashSet::new();
    rows.iter()
        .map(|row| row.get(slot))
        .filter(|value| Key::of(value).is_some_and(|key| seen.insert(key)))
        .cloned()
        .collect()
}
