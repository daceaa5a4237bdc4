//! Reading rows: what transactions and readers have in common.

use std::cell::{Cell as Flag, OnceCell, Ref, RefCell};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _, params_from_iter};

use crate::error::Result;
use crate::filter::Predicate;
use crate::filter::sql::{self, quote};
use crate::model::catalog::Catalog;
use crate::model::change::{Commit, Row};
use crate::model::related::{Key, Paths, RelatedSet, Want};
use crate::model::schema::{Schema, SchemaId, Slot};
use crate::model::value::Value;

use super::beside::Bounds;
use super::cell::{self, Cell};
use super::connection::prepared;
use super::fault::fault;
use super::log::{self, Entry, LogSize, Mark};
use super::lookup::Recent;
use super::readable::{self, Filled};
use super::related;
use super::replay;
use super::room::Room;
use super::texts::TextCache;
use super::view::Present;
use super::watch::Watch;

/// Entries of one call are read up to this many bytes, and one more.
const ENTRIES_BYTES: usize = 16 << 20;

/// Rows of one schema.
#[derive(Clone, Debug)]
pub struct Query {
    pub schema: Arc<Schema>,
    pub filter: Predicate,
    /// Column and whether descending; ties are broken by the primary key, ascending unless it is
    /// named. Nulls first ascending, last descending.
    pub sort: Vec<(Slot, bool)>,
    pub limit: Option<u64>,
    pub offset: u64,
}

/// One consistent state of the rows.
pub trait Rows {
    fn catalog(&self) -> &Arc<Catalog>;

    /// The row with that primary key.
    fn get(&self, schema: &Schema, key: &Value) -> Result<Option<Arc<Row>>>;

    fn select(&self, query: &Query) -> Result<Vec<Arc<Row>>> {
        self.select_within(query, usize::MAX)
    }

    /// As [`Rows::select`]; 413 as soon as the rows take more than `bytes` of memory together.
    fn select_within(&self, query: &Query, bytes: usize) -> Result<Vec<Arc<Row>>>;

    /// How many rows match (SQL's TRUE).
    fn count(&self, schema: &Schema, filter: &Predicate) -> Result<u64>;

    /// Everything that `paths` reads from `rows`, in a few queries, never one per row.
    fn gather(&self, schema: &Schema, rows: &[Arc<Row>], paths: &Paths) -> Result<RelatedSet>;
}

/// A reader's snapshot.
pub struct Reader<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) texts: &'a TextCache,
    pub(crate) bounds: Bounds,
    /// Bytes of rows, and of an answer: see [`Reader::most`].
    pub(crate) most: usize,
    /// The newest entries' look-ups as the thread's last reader left them.
    pub(crate) recent: &'a RefCell<Recent>,
    /// Whether they are those of this snapshot.
    pub(crate) is_recent: Flag<bool>,
    /// Read when an entry is first read.
    pub(crate) filled: OnceCell<Filled>,
    pub(crate) time: Time<'a>,
}

/// The time a read may take.
pub(crate) struct Time<'a> {
    pub(crate) watch: &'a Watch,
    pub(crate) until: Instant,
    /// Set when nobody waits any more.
    pub(crate) abandoned: Arc<AtomicBool>,
}

impl Time<'_> {
    /// Gives what comes now `more` than is left, the caller being gone excepted.
    pub(crate) fn extend(&self, more: Duration) {
        self.watch.hold(self.until + more, Some(self.abandoned.clone()));
    }
}

impl Reader<'_> {
    /// Of so many bytes those that a read may make: fewer in one that may be done again elsewhere
    /// ([`super::Store::read_short`]).
    pub fn most(&self, bytes: usize) -> usize {
        bytes.min(self.most)
    }

    /// Whether others wait for this read, as far as it is done where it was asked for: see
    /// [`super::Store::read_short`]. It may end with a [`Kind::Timeout`](crate::error::Kind::Timeout)
    /// to be done elsewhere.
    pub fn is_hasty(&self) -> bool {
        self.most != usize::MAX
    }

    /// The newest entry's mark; `None` while the log is empty.
    pub fn newest(&self) -> Result<Option<Mark>> {
        log::newest(self.connection)
    }

    /// The oldest entry that was not trimmed.
    pub fn oldest(&self) -> Result<Option<Mark>> {
        log::oldest(self.connection)
    }

    /// The mark of the entry at `position`; `None` where it was trimmed or is not yet written.
    pub fn mark(&self, position: u64) -> Result<Option<Mark>> {
        log::at(self.connection, position)
    }

    /// Up to `limit` entries after `after`, in order, read against this snapshot's catalog. Fewer
    /// where they are large, but one where there is one.
    pub fn entries(&self, after: u64, limit: usize) -> Result<Vec<Entry>> {
        self.entries_within(after, limit, ENTRIES_BYTES)
    }

    /// As [`Reader::entries`], up to so many bytes and one entry more.
    pub(crate) fn entries_within(
        &self,
        after: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<Entry>> {
        log::entries(self.connection, &self.catalog, self.filled()?, after, limit, bytes)
    }

    /// The entry at `position`.
    pub(crate) fn entry(&self, position: u64) -> Result<Option<Entry>> {
        log::entry(self.connection, &self.catalog, self.filled()?, position)
    }

    fn filled(&self) -> Result<&Filled> {
        if let Some(filled) = self.filled.get() {
            return Ok(filled);
        }
        let filled = Filled::read(self.connection).map_err(fault)?;
        Ok(self.filled.get_or_init(|| filled))
    }

    /// Up to `limit` commits after position `after`, in order, as the writer would have made them
    /// under `want`: read against this snapshot's catalog, without notices. Fewer where they are
    /// large or take long, but one where there is one.
    pub fn replay(&self, after: u64, limit: usize, want: &Arc<Want>) -> Result<Vec<Arc<Commit>>> {
        replay::page(self, after, limit, want)
    }

    /// From which position on the log can be read through a schema: that of the last migration
    /// that changed it by more than additions and new names; 0 where there was none.
    pub fn readable_from(&self, schema: SchemaId) -> Result<u64> {
        readable::from(self.connection, &self.catalog, schema).map_err(fault)
    }

    /// How much of the log there is.
    pub fn log_size(&self) -> Result<LogSize> {
        log::size(self.connection)
    }

    pub(crate) fn recent(&self) -> Result<Ref<'_, Recent>> {
        if !self.is_recent.get() {
            self.recent.borrow_mut().catch_up(self.connection).map_err(fault)?;
            self.is_recent.set(true);
        }
        Ok(self.recent.borrow())
    }

    /// The record as it stood right after the entry at `position` (0: before the first). Exact
    /// while the entry after it is still in the log.
    pub fn state_at(
        &self,
        schema: &Schema,
        key: &Value,
        position: u64,
    ) -> Result<Option<Arc<Row>>> {
        let (connection, recent, filled) = (self.connection, self.recent()?, self.filled()?);
        let catalog = &self.catalog;
        match log::image_before_next(connection, &recent, catalog, filled, schema, key, position)? {
            Some(image) => Ok(image),
            None => self.get(schema, key),
        }
    }

    /// The records whose key column `slot` held `value` right after the entry at `position`, by
    /// primary key, as they were then.
    pub fn pointing_at(
        &self,
        schema: &Schema,
        slot: Slot,
        value: &Value,
        position: u64,
    ) -> Result<Vec<Arc<Row>>> {
        let texts = self.texts.of(schema);
        let room = Room::unbounded();
        let text = texts.by(schema, slot);
        let now = rows_by(self.connection, &text, schema, value, u64::MAX, &room)?;
        let moved = match Key::of(value) {
            Some(value) => self
                .recent()?
                .moved(self.connection, schema.columns[slot].id.0, &value, position)
                .map_err(fault)?,
            None => Vec::new(),
        };
        let mut then = std::collections::BTreeMap::new();
        for key in now.iter().filter_map(|row| Key::of(row.get(schema.primary))).chain(moved) {
            if then.contains_key(&key) {
                continue;
            }
            let state = self.state_at(schema, &key.value(), position)?;
            then.insert(key, state.filter(|row| row.get(slot) == value));
        }
        Ok(then.into_values().flatten().collect())
    }
}

impl Rows for Reader<'_> {
    fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    fn get(&self, schema: &Schema, key: &Value) -> Result<Option<Arc<Row>>> {
        get(self.connection, self.texts, schema, key)
    }

    fn select_within(&self, query: &Query, bytes: usize) -> Result<Vec<Arc<Row>>> {
        select(self.connection, self.texts, &self.catalog, query, self.most(bytes))
    }

    fn count(&self, schema: &Schema, filter: &Predicate) -> Result<u64> {
        count(self.connection, self.texts, &self.catalog, schema, filter)
    }

    fn gather(&self, schema: &Schema, rows: &[Arc<Row>], paths: &Paths) -> Result<RelatedSet> {
        let view = Present { connection: self.connection, texts: self.texts, undo: None };
        let budget = self.bounds.budget_of(self.most);
        related::gather(&view, &self.catalog, schema, rows, paths, &budget)
    }
}

pub(crate) fn get(
    connection: &Connection,
    texts: &TextCache,
    schema: &Schema,
    key: &Value,
) -> Result<Option<Arc<Row>>> {
    connection
        .prepare_cached(&texts.of(schema).get)
        .and_then(|mut statement| {
            statement
                .query_row([Cell(key)], |row| cell::record(row, 0, schema).map(Arc::new))
                .optional()
        })
        .map_err(fault)
}

pub(crate) fn select(
    connection: &Connection,
    texts: &TextCache,
    catalog: &Catalog,
    query: &Query,
    bytes: usize,
) -> Result<Vec<Arc<Row>>> {
    let schema = &*query.schema;
    let texts = texts.of(schema);
    let condition = sql::write(&query.filter, catalog, schema, "r");
    let mut text = format!("SELECT {} FROM {} WHERE {}", texts.columns, texts.from, condition.text);
    // SQLite sorts NULL before everything else, which is what is wanted in both directions.
    let mut order: Vec<String> = Vec::new();
    for (slot, descending) in &query.sort {
        let direction = if *descending { " DESC" } else { "" };
        order.push(format!("r.{}{direction}", quote(&schema.columns[*slot].name)));
    }
    if query.sort.iter().all(|(slot, _)| *slot != schema.primary) {
        order.push(texts.primary.clone());
    }
    text.push_str(" ORDER BY ");
    text.push_str(&order.join(", "));
    // Filters vary with every client: their numbers are parameters so that plans are found again.
    text.push_str(" LIMIT ? OFFSET ?");
    let bound = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    let page = [query.limit.map_or(Value::Int(-1), bound), bound(query.offset)];
    let params: Vec<Cell<'_>> = condition.params.iter().chain(&page).map(Cell).collect();
    records(connection, &text, &params, schema, &Room::new(bytes))
}

/// The records of a statement that selects all columns of `schema`.
fn records(
    connection: &Connection,
    text: &str,
    params: &[Cell<'_>],
    schema: &Schema,
    room: &Room,
) -> Result<Vec<Arc<Row>>> {
    let read = prepared(connection, text, |statement| {
        let mut rows = statement.query(params_from_iter(params))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let record = cell::record(row, 0, schema)?;
            if let Err(error) = room.take(&record) {
                return Ok(Err(error));
            }
            found.push(Arc::new(record));
        }
        Ok(Ok(found))
    });
    read.map_err(fault)?
}

pub(crate) fn count(
    connection: &Connection,
    texts: &TextCache,
    catalog: &Catalog,
    schema: &Schema,
    filter: &Predicate,
) -> Result<u64> {
    let condition = sql::write(filter, catalog, schema, "r");
    let text = format!("SELECT count(*) FROM {} WHERE {}", texts.of(schema).from, condition.text);
    prepared(connection, &text, |statement| {
        let params = params_from_iter(condition.params.iter().map(Cell));
        statement.query_row(params, |row| row.get::<_, i64>(0))
    })
    .map(|number| number as u64)
    .map_err(fault)
}

/// A count by a statement of two parameters: a value, and how many at most.
pub(crate) fn count_by(
    connection: &Connection,
    text: &str,
    value: &Value,
    most: usize,
) -> Result<usize> {
    let most = Value::Int(i64::try_from(most).unwrap_or(i64::MAX));
    connection
        .prepare_cached(text)
        .and_then(|mut statement| {
            statement.query_row([Cell(value), Cell(&most)], |row| row.get::<_, i64>(0))
        })
        .map(|count| usize::try_from(count).unwrap_or(usize::MAX))
        .map_err(fault)
}

/// Rows by a statement of two parameters: a value, and how many at most.
pub(crate) fn rows_by(
    connection: &Connection,
    text: &str,
    schema: &Schema,
    value: &Value,
    limit: u64,
    room: &Room,
) -> Result<Vec<Arc<Row>>> {
    let limit = Value::Int(i64::try_from(limit).unwrap_or(i64::MAX));
    records(connection, text, &[Cell(value), Cell(&limit)], schema, room)
}
