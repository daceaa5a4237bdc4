//! The change log's tables: entries by position, and what they can be found by.
//!
//! `_rc_log` holds an entry a row; `bytes` is what the entry takes, look-ups included, and `ends`
//! the sum over all entries up to and with this one, trimmed ones too, so that the log's size is
//! one subtraction. What entries can be found by stands in `lookup.rs`.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::model::catalog::Catalog;
use crate::model::change::{Change, Row};
use crate::model::related::Key;
use crate::model::schema::{Default, Schema, SchemaId};
use crate::model::value::Value;
use crate::nice;

use super::codec::{self, Damaged, Raw, Shape};
use super::fault::fault;
use super::lookup::{self, Lines, Recent};
use super::readable::Filled;

pub use super::codec::Logged;

/// Estimated bytes of a row in `_rc_log` beside its entry.
const ROW_BYTES: usize = 40;

pub(crate) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TABLE _rc_log (
             position INTEGER PRIMARY KEY,
             stamp INTEGER NOT NULL,
             time INTEGER NOT NULL,
             bytes INTEGER NOT NULL,
             ends INTEGER NOT NULL,
             entry BLOB NOT NULL
         ) STRICT;",
    )?;
    lookup::create(connection)
}

/// Where an entry stands and how it is told from one of another history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub position: u64,
    pub stamp: u64,
    /// Microseconds since 1970.
    pub time: i64,
}

/// An entry of the log, read against a later catalog.
#[derive(Clone, Debug)]
pub struct Entry {
    pub mark: Mark,
    pub origin: Option<Uuid>,
    /// In the order of the commit; states have the slots of the catalog they were read against.
    /// `schema_version` is the one they were written under.
    pub changes: Vec<Change>,
    pub notices: Vec<Logged>,
    /// Schemas of the entry that the catalog does not hold; their changes are left out.
    pub unknown: Vec<SchemaId>,
}

/// How much of the log there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSize {
    /// Entries that were not trimmed.
    pub entries: u64,
    /// Their bytes, look-ups included, as `Options::log_bytes` counts them.
    pub bytes: u64,
    /// The oldest entry that is there; `None` while the log is empty.
    pub oldest: Option<Mark>,
    pub newest: Option<Mark>,
}

/// What the writer keeps in mind of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The newest entry; position 0 where there was never one.
    pub(crate) newest: Mark,
    /// Bytes of all entries ever written.
    pub(crate) ends: u64,
}

pub(crate) fn tail(connection: &Connection) -> rusqlite::Result<Tail> {
    connection
        .query_row(
            "SELECT position, stamp, time, ends FROM _rc_log ORDER BY position DESC LIMIT 1",
            (),
            |row| Ok(Tail { newest: mark(row)?, ends: row.get::<_, i64>(3)? as u64 }),
        )
        .optional()
        .map(Option::unwrap_or_default)
}

fn mark(row: &rusqlite::Row<'_>) -> rusqlite::Result<Mark> {
    Ok(Mark {
        position: row.get::<_, i64>(0)? as u64,
        stamp: row.get::<_, i64>(1)? as u64,
        time: row.get(2)?,
    })
}

/// Writes an entry; its look-ups are added to `lines`. Gives the bytes both add to the log.
pub(crate) fn append(
    connection: &Connection,
    mark: Mark,
    before: u64,
    entry: &[u8],
    changes: &[Change],
    schemas: &[Arc<Schema>],
    lines: &mut Lines,
) -> rusqlite::Result<u64> {
    let mut bytes = ROW_BYTES + entry.len();
    for (change, schema) in changes.iter().zip(schemas) {
        bytes += lines.add(mark.position, schema, change);
    }
    let ends = before + bytes as u64;
    connection.prepare_cached("INSERT INTO _rc_log VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute((
        mark.position as i64,
        mark.stamp as i64,
        mark.time,
        bytes as i64,
        ends as i64,
        entry,
    ))?;
    Ok(bytes as u64)
}

/// Takes an entry out of the log. Its look-ups are added to `lines`, to be erased.
pub(crate) fn remove(
    connection: &Connection,
    position: u64,
    lines: &mut Lines,
) -> rusqlite::Result<()> {
    let entry: Option<Vec<u8>> = connection
        .prepare_cached("DELETE FROM _rc_log WHERE position = ?1 RETURNING entry")?
        .query_row([position as i64], |row| row.get(0))
        .optional()?;
    // A damaged entry leaves its look-ups behind: they find a position that is gone, and nothing.
    if let Some(Ok(raw)) = entry.map(|entry| codec::decode(&entry)) {
        lines.add_raw(position, &raw);
    }
    Ok(())
}

/// The newest entry's mark; `None` while the log is empty.
pub(crate) fn newest(connection: &Connection) -> Result<Option<Mark>> {
    let tail = tail(connection).map_err(fault)?;
    Ok((tail.newest.position > 0).then_some(tail.newest))
}

/// The oldest entry that is still there.
pub(crate) fn oldest(connection: &Connection) -> Result<Option<Mark>> {
    connection
        .prepare_cached("SELECT position, stamp, time FROM _rc_log ORDER BY position LIMIT 1")
        .and_then(|mut statement| statement.query_row((), mark).optional())
        .map_err(fault)
}

/// A look at both ends: positions have no holes, and `ends` is a running total.
pub(crate) fn size(connection: &Connection) -> Result<LogSize> {
    let tail = tail(connection).map_err(fault)?;
    let oldest = connection
        .prepare_cached(
            "SELECT position, stamp, time, ends - bytes FROM _rc_log ORDER BY position LIMIT 1",
        )
        .and_then(|mut statement| {
            statement.query_row((), |row| Ok((mark(row)?, row.get::<_, i64>(3)? as u64))).optional()
        })
        .map_err(fault)?;
    Ok(oldest.map_or_else(LogSize::default, |(oldest, begins)| LogSize {
        entries: tail.newest.position + 1 - oldest.position,
        bytes: tail.ends - begins,
        oldest: Some(oldest),
        newest: Some(tail.newest),
    }))
}

/// The entry at a position, if it is still there.
pub(crate) fn at(connection: &Connection, position: u64) -> Result<Option<Mark>> {
    connection
        .prepare_cached("SELECT position, stamp, time FROM _rc_log WHERE position = ?1")
        .and_then(|mut statement| statement.query_row([position as i64], mark).optional())
        .map_err(fault)
}

/// Up to `limit` entries after position `after`, in order; no more once they have `most` bytes, but
/// one where there is one.
pub(crate) fn entries(
    connection: &Connection,
    catalog: &Catalog,
    filled: &Filled,
    after: u64,
    limit: usize,
    most: usize,
) -> Result<Vec<Entry>> {
    let read = || -> rusqlite::Result<Vec<(Mark, Vec<u8>)>> {
        let mut statement = connection.prepare_cached(
            "SELECT position, stamp, time, entry FROM _rc_log
             WHERE position > ?1 ORDER BY position LIMIT ?2",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = statement.query((after as i64, limit))?;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while bytes < most
            && let Some(row) = rows.next()?
        {
            let entry: Vec<u8> = row.get(3)?;
            bytes += entry.len();
            entries.push((mark(row)?, entry));
        }
        Ok(entries)
    };
    let entries = read().map_err(fault)?;
    let against = |(mark, entry): &(Mark, Vec<u8>)| {
        nice::pause();
        against(catalog, filled, *mark, decode(*mark, entry)?)
    };
    entries.iter().map(against).collect()
}

/// The entry at a position, read against a later catalog.
pub(crate) fn entry(
    connection: &Connection,
    catalog: &Catalog,
    filled: &Filled,
    position: u64,
) -> Result<Option<Entry>> {
    let Some((mark, entry)) = stored(connection, position)? else { return Ok(None) };
    against(catalog, filled, mark, decode(mark, &entry)?).map(Some)
}

fn stored(connection: &Connection, position: u64) -> Result<Option<(Mark, Vec<u8>)>> {
    connection
        .prepare_cached("SELECT position, stamp, time, entry FROM _rc_log WHERE position = ?1")
        .and_then(|mut statement| {
            statement.query_row([position as i64], |row| Ok((mark(row)?, row.get(3)?))).optional()
        })
        .map_err(fault)
}

fn decode(mark: Mark, entry: &[u8]) -> Result<Raw> {
    codec::decode(entry)
        .map_err(|Damaged(why)| Error::internal(format_args!("log entry {}: {why}", mark.position)))
}

/// Where each column of a later schema finds its value in an entry.
struct Reading {
    schema: Arc<Schema>,
    /// Index into the shape's fields, by slot.
    from: Vec<Option<usize>>,
}

impl Reading {
    fn new(catalog: &Catalog, shape: &Shape) -> Option<Reading> {
        let schema = catalog.get(shape.schema)?.clone();
        let find = |id| shape.fields.iter().position(|(field, _)| *field == id);
        let from = schema.columns.iter().map(|column| find(column.id)).collect();
        Some(Reading { schema, from })
    }

    /// A column added since holds what the migration gave older rows: its default, else NULL.
    fn row(&self, state: &[Value], filled: &Filled) -> Arc<Row> {
        let values = self.from.iter().zip(&self.schema.columns).map(|(from, column)| match from {
            Some(index) => state[*index].clone(),
            None => match (filled.time(column.id), &column.default) {
                (Some(time), _) => Value::Time(time),
                (None, Some(Default::Value(value))) => value.clone(),
                (None, _) => Value::Null,
            },
        });
        Arc::new(Row::new(values.collect()))
    }
}

fn against(catalog: &Catalog, filled: &Filled, mark: Mark, raw: Raw) -> Result<Entry> {
    let readings: Vec<_> = raw.shapes.iter().map(|shape| Reading::new(catalog, shape)).collect();
    let mut entry = Entry {
        mark,
        origin: raw.origin,
        changes: Vec::with_capacity(raw.changes.len()),
        notices: raw.notices,
        unknown: Vec::new(),
    };
    for (reading, shape) in readings.iter().zip(&raw.shapes) {
        if reading.is_none() {
            entry.unknown.push(shape.schema);
        }
    }
    for change in &raw.changes {
        let (Some(reading), shape) = (&readings[change.shape], &raw.shapes[change.shape]) else {
            continue;
        };
        let Some(key) = change.key(shape) else { continue };
        let row =
            |state: &Option<Vec<Value>>| state.as_ref().map(|state| reading.row(state, filled));
        entry.changes.push(Change {
            schema: shape.schema,
            schema_version: shape.version,
            op: change.op,
            key: key.clone(),
            before: row(&change.before),
            after: row(&change.after),
        });
    }
    Ok(entry)
}

/// A record's before-image in its first entry after `position`. `None`: it was not touched since
/// (its state then is its row now). `Some(None)`: it did not exist.
pub(crate) fn image_before_next(
    connection: &Connection,
    recent: &Recent,
    catalog: &Catalog,
    filled: &Filled,
    schema: &Schema,
    key: &Value,
    position: u64,
) -> Result<Option<Option<Arc<Row>>>> {
    let Some(name) = Key::of(key) else { return Ok(None) };
    let next = recent.next(connection, schema.id.0, &name, position).map_err(fault)?;
    let Some(next) = next else { return Ok(None) };
    if let Some((mark, entry)) = stored(connection, next)? {
        let raw = decode(mark, &entry)?;
        for change in &raw.changes {
            let shape = &raw.shapes[change.shape];
            if shape.schema == schema.id && change.key(shape) == Some(key) {
                let image = change.before.as_ref().and_then(|state| {
                    Reading::new(catalog, shape).map(|reading| reading.row(state, filled))
                });
                return Ok(Some(image));
            }
        }
    }
    Err(Error::internal(format_args!("log entry {next}: its look-ups are wrong")))
}
