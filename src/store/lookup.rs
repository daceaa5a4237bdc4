//! What entries of the log can be found by: the record they touch, and the values that its key
//! columns lost or gained.
//!
//! Look-ups are ordered by record and value, so those of one group of writes would lie all over
//! their tables, a page each: with two references a record, half the cost of a create. So the
//! writer keeps the newest ones in mind ([`Lines`]) and writes some thousands at once, in order.
//! Entries after the `indexed` position are not in the tables yet; a reader that looks something
//! up reads these few entries themselves ([`Recent`]).

use std::collections::HashMap;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Result, Statement};

use crate::model::change::Change;
use crate::model::related::Key;
use crate::model::schema::Schema;
use crate::model::value::Value;

use super::codec::{self, Raw, RawChange, Shape};

/// Estimated bytes of a look-up beside its keys.
const LINE_BYTES: usize = 12;

pub(crate) fn create(connection: &Connection) -> Result<()> {
    connection.execute_batch(
        "CREATE TABLE _rc_log_key (
             schema INTEGER NOT NULL,
             key ANY NOT NULL,
             position INTEGER NOT NULL,
             PRIMARY KEY (schema, key, position)
         ) STRICT, WITHOUT ROWID;
         CREATE TABLE _rc_log_ref (
             field INTEGER NOT NULL,
             value ANY NOT NULL,
             position INTEGER NOT NULL,
             key ANY NOT NULL,
             PRIMARY KEY (field, value, position, key)
         ) STRICT, WITHOUT ROWID;
         INSERT INTO _rc_meta VALUES ('indexed', 0);",
    )
}

/// The entry at `position` touched the record `key` of `schema`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct KeyLine {
    schema: u32,
    key: Key,
    position: u64,
}

/// In the entry at `position`, the column `field` of the record `key` lost or gained `value`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RefLine {
    field: u32,
    value: Key,
    position: u64,
    key: Key,
}

/// Look-ups of some entries, on their way into the tables or out of them.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    keys: Vec<KeyLine>,
    refs: Vec<RefLine>,
}

impl Lines {
    pub(crate) fn len(&self) -> usize {
        self.keys.len() + self.refs.len()
    }

    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.refs.clear();
    }

    /// Forgets entries after `position`: they were rolled back.
    pub(crate) fn keep_until(&mut self, position: u64) {
        self.keys.retain(|line| line.position <= position);
        self.refs.retain(|line| line.position <= position);
    }

    /// Adds the look-ups of a change. Gives the bytes they will take.
    pub(crate) fn add(&mut self, position: u64, schema: &Schema, change: &Change) -> usize {
        let slots = (0..schema.columns.len()).filter(|slot| codec::is_key(schema, *slot));
        let cells = slots.map(|slot| {
            let before = change.before.as_ref().map(|row| row.get(slot));
            let after = change.after.as_ref().map(|row| row.get(slot));
            (schema.columns[slot].id.0, before, after)
        });
        self.lines(position, schema.id.0, &change.key, cells)
    }

    /// Adds the look-ups of a whole entry.
    pub(crate) fn add_raw(&mut self, position: u64, raw: &Raw) {
        for change in &raw.changes {
            let shape = &raw.shapes[change.shape];
            let Some(key) = change.key(shape) else { continue };
            let fields = shape.fields.iter().enumerate().filter(|(_, (_, is_key))| *is_key);
            let cells = fields.map(|(index, (field, _))| {
                let before = change.before.as_ref().map(|state| &state[index]);
                let after = change.after.as_ref().map(|state| &state[index]);
                (field.0, before, after)
            });
            self.lines(position, shape.schema.0, key, cells);
        }
    }

    fn lines<'v>(
        &mut self,
        position: u64,
        schema: u32,
        key: &Value,
        cells: impl Iterator<Item = (u32, Option<&'v Value>, Option<&'v Value>)>,
    ) -> usize {
        let Some(key) = Key::of(key) else { return 0 };
        let mut bytes = LINE_BYTES + size(&key);
        for (field, before, after) in cells.filter(|(_, before, after)| before != after) {
            for value in [before, after].into_iter().flatten().filter_map(Key::of) {
                bytes += LINE_BYTES + size(&value) + size(&key);
                self.refs.push(RefLine { field, value, position, key: key.clone() });
            }
        }
        self.keys.push(KeyLine { schema, key, position });
        bytes
    }

    /// Writes those of entries from position `oldest` on, in the tables' order, and notes that
    /// everything up to `newest` is there.
    pub(crate) fn write(
        &mut self,
        connection: &Connection,
        oldest: u64,
        newest: u64,
    ) -> Result<()> {
        self.keys.sort_unstable();
        self.refs.sort_unstable();
        let keys: Vec<_> = self.keys.iter().filter(|line| line.position >= oldest).collect();
        insert(connection, "_rc_log_key VALUES ", "(?, ?, ?)", &keys, |line, row| {
            row.bind(line.schema)?;
            row.bind(Cell(&line.key))?;
            row.bind(line.position as i64)
        })?;
        let refs: Vec<_> = self.refs.iter().filter(|line| line.position >= oldest).collect();
        insert(connection, "_rc_log_ref VALUES ", "(?, ?, ?, ?)", &refs, |line, row| {
            row.bind(line.field)?;
            row.bind(Cell(&line.value))?;
            row.bind(line.position as i64)?;
            row.bind(Cell(&line.key))
        })?;
        connection
            .prepare_cached("UPDATE _rc_meta SET value = ?1 WHERE name = 'indexed'")?
            .execute([newest as i64])
            .map(drop)
    }

    /// Takes them out of the tables, where they are there.
    pub(crate) fn erase(&mut self, connection: &Connection) -> Result<()> {
        self.keys.sort_unstable();
        self.refs.sort_unstable();
        let mut delete = connection.prepare_cached(
            "DELETE FROM _rc_log_key WHERE schema = ?1 AND key = ?2 AND position = ?3",
        )?;
        for line in &self.keys {
            delete.execute((line.schema, Cell(&line.key), line.position as i64))?;
        }
        let mut delete = connection.prepare_cached(
            "DELETE FROM _rc_log_ref
             WHERE field = ?1 AND value = ?2 AND position = ?3 AND key = ?4",
        )?;
        for line in &self.refs {
            let position = line.position as i64;
            delete.execute((line.field, Cell(&line.value), position, Cell(&line.key)))?;
        }
        Ok(())
    }

    /// Those of the entries that are not in the tables yet.
    pub(crate) fn waiting(connection: &Connection) -> Result<Lines> {
        Lines::after(connection, indexed(connection)?).map(|(lines, _)| lines)
    }

    /// Those of the entries after `position`, in order, and the position of the last of these.
    fn after(connection: &Connection, position: u64) -> Result<(Lines, u64)> {
        let mut last = position;
        let mut entries = connection.prepare_cached(
            "SELECT position, entry FROM _rc_log WHERE position > ?1 ORDER BY position",
        )?;
        let mut entries = entries.query([position as i64])?;
        let mut lines = Lines::default();
        while let Some(row) = entries.next()? {
            last = row.get::<_, i64>(0)? as u64;
            // A damaged entry cannot be found by what it holds; whoever reads it is told.
            if let Ok(raw) = codec::decode(row.get_ref(1)?.as_blob()?) {
                lines.add_raw(last, &raw);
            }
        }
        Ok((lines, last))
    }
}

/// Look-ups that one statement writes: within one SQLite goes on from where it put the last, and a
/// tenth of all instructions of a small create were those of its look-up.
const ROWS: usize = 32;

/// A statement whose parameters are given one after the other.
struct Binding<'s, 'c> {
    statement: &'s mut Statement<'c>,
    bound: usize,
}

impl Binding<'_, '_> {
    fn bind(&mut self, value: impl ToSql) -> Result<()> {
        self.bound += 1;
        self.statement.raw_bind_parameter(self.bound, value)
    }
}

/// Writes `lines` into a table, unless they are there. `bind` gives the cells of each.
fn insert<L>(
    connection: &Connection,
    into: &str,
    row: &str,
    lines: &[L],
    bind: impl Fn(&L, &mut Binding<'_, '_>) -> Result<()>,
) -> Result<()> {
    let text = |rows| format!("INSERT OR IGNORE INTO {into}{}", vec![row; rows].join(", "));
    let write = |lines: &[L], statement: &mut Statement<'_>| {
        let mut binding = Binding { statement, bound: 0 };
        lines.iter().try_for_each(|line| bind(line, &mut binding))?;
        statement.raw_execute()
    };
    let (many, rest) = lines.as_chunks::<ROWS>();
    if !many.is_empty() {
        let mut statement = connection.prepare_cached(&text(ROWS))?;
        for lines in many {
            write(lines, &mut statement)?;
        }
    }
    let mut statement = connection.prepare_cached(&text(1))?;
    for line in rest {
        write(std::slice::from_ref(line), &mut statement)?;
    }
    Ok(())
}

/// Up to which position entries' look-ups are in the tables.
fn indexed(connection: &Connection) -> Result<u64> {
    connection
        .prepare_cached("SELECT value FROM _rc_meta WHERE name = 'indexed'")?
        .query_row((), |row| row.get::<_, i64>(0))
        .map(|position| position as u64)
}

fn size(key: &Key) -> usize {
    match key {
        Key::Text(text) => text.len(),
        Key::Int(_) => 8,
        Key::Uuid(_) => 16,
    }
}

impl RawChange {
    /// The record's primary key.
    pub(crate) fn key(&self, shape: &Shape) -> Option<&Value> {
        self.before.as_ref().or(self.after.as_ref()).map(|state| &state[shape.primary])
    }
}

/// The newest entries' look-ups, for one snapshot. A reader keeps them for its next one, which is
/// at the same place or further on.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// Of the entries after this position,
    after: u64,
    /// up to this one.
    upto: u64,
    keys: HashMap<(u32, Key), Vec<u64>>,
    refs: HashMap<(u32, Key), Vec<(u64, Key)>>,
}

impl Recent {
    /// Goes on to the connection's snapshot.
    pub(crate) fn catch_up(&mut self, connection: &Connection) -> Result<()> {
        let indexed = indexed(connection)?;
        if indexed != self.after {
            *self = Recent { after: indexed, upto: indexed, ..Recent::default() };
        }
        let (lines, upto) = Lines::after(connection, self.upto)?;
        self.upto = upto;
        // In order of positions, as they were written.
        for line in lines.keys {
            self.keys.entry((line.schema, line.key)).or_default().push(line.position);
        }
        for line in lines.refs {
            let at = self.refs.entry((line.field, line.value)).or_default();
            at.push((line.position, line.key));
        }
        Ok(())
    }

    /// The first of these entries after `position` that touched a record.
    pub(crate) fn next_here(&self, schema: u32, key: &Key, position: u64) -> Option<u64> {
        let positions = self.keys.get(&(schema, key.clone()))?;
        positions.get(positions.partition_point(|found| *found <= position)).copied()
    }

    /// Records whose column `field` lost or gained `value` in these entries after `position`; some
    /// more than once.
    pub(crate) fn moved_here(
        &self,
        field: u32,
        value: &Key,
        position: u64,
    ) -> impl Iterator<Item = &Key> {
        let moved = self.refs.get(&(field, value.clone())).map_or(&[][..], Vec::as_slice);
        let first = moved.partition_point(|(found, _)| *found <= position);
        moved[first..].iter().map(|(_, key)| key)
    }

    /// The first entry after `position` that touched a record.
    pub(crate) fn next(
        &self,
        connection: &Connection,
        schema: u32,
        key: &Key,
        position: u64,
    ) -> Result<Option<u64>> {
        let indexed: Option<i64> = connection
            .prepare_cached(
                "SELECT position FROM _rc_log_key
                 WHERE schema = ?1 AND key = ?2 AND position > ?3 ORDER BY position LIMIT 1",
            )?
            .query_row((schema, Cell(key), position as i64), |row| row.get(0))
            .optional()?;
        Ok(indexed.map(|found| found as u64).or_else(|| self.next_here(schema, key, position)))
    }

    /// Records whose column `field` lost or gained `value` after `position`; some more than once.
    pub(crate) fn moved(
        &self,
        connection: &Connection,
        field: u32,
        value: &Key,
        position: u64,
    ) -> Result<Vec<Key>> {
        let mut keys: Vec<Key> = connection
            .prepare_cached(
                "SELECT DISTINCT key FROM _rc_log_ref
                 WHERE field = ?1 AND value = ?2 AND position > ?3",
            )?
            .query_and_then((field, Cell(value), position as i64), |row| key_of(row.get_ref(0)?))?
            .collect::<Result<_>>()?;
        keys.extend(self.moved_here(field, value, position).cloned());
        Ok(keys)
    }
}

/// A key on its way into a statement.
struct Cell<'a>(&'a Key);

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Key::Int(number) => ValueRef::Integer(*number),
            Key::Text(text) => ValueRef::Text(text.as_bytes()),
            Key::Uuid(id) => ValueRef::Blob(id.as_bytes()),
        }))
    }
}

pub(crate) fn key_of(cell: ValueRef<'_>) -> Result<Key> {
    Ok(match cell {
        ValueRef::Integer(number) => Key::Int(number),
        ValueRef::Text(_) => Key::Text(cell.as_str()?.into()),
        other => {
            let id = uuid::Uuid::from_slice(other.as_blob()?);
            Key::Uuid(id.map_err(|error| rusqlite::Error::UserFunctionError(error.into()))?)
        }
    })
}
