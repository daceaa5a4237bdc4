//! One write: rows changed, consequences drawn, the log entry collected.

mod consequences;
mod links;
mod rows;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::Connection;
use uuid::Uuid;

use crate::error::{Error, Kind, Result};
use crate::filter::Predicate;
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::change::{Notice, Row};
use crate::model::related::{Key, Paths, RelatedSet};
use crate::model::schema::{Schema, SchemaId};
use crate::model::value::Value;

use super::beside::Bounds;
use super::format;
use super::given::Given;
use super::read::{self, Query, Rows};
use super::refs::Referrer;
use super::related;
use super::room::Room;
use super::texts::TextCache;
use super::touched::Touched;
use super::unlinked::Unlinked;
use super::view::Present;
use super::watch::Watch;

use rows::{fits, no_record};

/// Bytes of rows that an event loop's write reads and writes at most, as they lie in memory: the record
/// of a request of 32 KiB, as it was and as it becomes, and small ones that go with it.
const BRIEF_BYTES: usize = 128 << 10;

/// A job's view of the rows: sees its own changes. Implements [`super::Rows`].
///
/// Every method that changes rows records the before- and after-image; a record touched several
/// times stands in the commit once (first before-image, last after-image). Changes that end where
/// they began are dropped, except updates, which always count.
pub struct Tx<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) desk: &'a Desk,
    pub(crate) catalog: Arc<Catalog>,
    /// Where an event loop does it: what it may yet read and write.
    brief: Option<Room>,
    /// That, or whoever runs the job, found it too much.
    is_over: Cell<bool>,
    pub(crate) given_back: bool,
    /// Whether this write replaced the catalog.
    pub(crate) migrated: bool,
    pub(crate) now: i64,
    /// Schemas through which the log cannot be read before this write's entry.
    pub(crate) unreadable: Vec<SchemaId>,
    /// Until then may this write read; what it changes is bounded by records and bytes.
    read_until: Instant,
    pub(crate) touched: Touched,
    pub(crate) notices: Vec<Notice>,
    pub(crate) origin: Option<Uuid>,
    /// Primary keys of link rows that this write took away, by junction and ends: put back, they
    /// are the rows they were.
    pub(super) unlinked: Unlinked,
}

/// What the writer keeps at hand from write to write.
pub(crate) struct Desk {
    pub(crate) texts: TextCache,
    pub(crate) given: Given,
    pub(crate) limits: Limits,
    /// Over the writer's connection: what a job selects must not hold up all other writes.
    pub(crate) watch: Watch,
    referrers: RefCell<HashMap<SchemaId, Arc<[Referrer]>>>,
}

impl Desk {
    pub(crate) fn new(limits: Limits) -> Self {
        Desk {
            texts: TextCache::default(),
            given: Given::default(),
            limits,
            watch: Watch::default(),
            referrers: RefCell::default(),
        }
    }

    /// Forgets what was derived from a catalog, and ids given.
    pub(crate) fn clear(&self) {
        self.texts.clear();
        self.given.clear();
        self.referrers.borrow_mut().clear();
    }
}

impl<'a> Tx<'a> {
    pub(crate) fn new(
        connection: &'a Connection,
        desk: &'a Desk,
        catalog: Arc<Catalog>,
        now: i64,
    ) -> Self {
        Tx {
            connection,
            desk,
            catalog,
            brief: None,
            is_over: Cell::new(false),
            given_back: false,
            migrated: false,
            now,
            unreadable: Vec::new(),
            read_until: Instant::now() + desk.limits.read_time,
            touched: Touched::default(),
            notices: Vec::new(),
            origin: None,
            unlinked: Unlinked::default(),
        }
    }

    /// `NOW()` of this write: microseconds since 1970, the same for the whole write.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// Whether others wait for this write that do not write: it must take well under a millisecond.
    /// See [`super::Store::write_brief`].
    pub fn is_brief(&self) -> bool {
        self.brief.is_some()
    }

    /// From here on it is brief: see [`BRIEF_BYTES`].
    pub(crate) fn be_brief(&mut self) {
        self.brief = Some(Room::new(BRIEF_BYTES));
    }

    /// Whether this write is more than a brief one may be: [`Tx::too_much`] was said, by whom ever.
    /// What failed since may have failed for that.
    pub fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// The error with which a brief write ends early that is to be given back.
    pub fn too_much(&self) -> Error {
        self.is_over.set(true);
        Error::new(Kind::TooLarge, "more than a brief write may read and change")
    }

    /// Takes back all that this write has changed. The job gives its value all the same, and the
    /// write no commit: it is to be handed in again in another way.
    pub fn give_back(&mut self) {
        self.given_back = true;
    }

    /// A row of these values is read, or about to be written.
    fn spend(&self, values: &[Value]) -> Result<()> {
        match &self.brief {
            Some(room) => room.take_values(values).map_err(|_| self.too_much()),
            None => Ok(()),
        }
    }

    /// Of so many bytes those that may be read.
    fn most(&self, bytes: usize) -> usize {
        self.brief.as_ref().map_or(bytes, |room| bytes.min(room.left()))
    }

    /// What came of reading [`Tx::most`] bytes.
    fn spent<T>(&self, read: Result<T>) -> Result<T> {
        match &read {
            Err(error) if self.is_brief() && error.kind == Kind::TooLarge => Err(self.too_much()),
            _ => read,
        }
    }

    /// Inserts a row given in slot order. `Value::Null` in an automatic primary key column is
    /// filled in (counter or UUID v7). Timestamps and defaults are the caller's to fill. A unique
    /// clash is a 400 naming the field; a foreign key to nothing a 400 naming the relation.
    pub fn insert(&mut self, schema: &Schema, values: Vec<Value>) -> Result<Arc<Row>> {
        let schema = self.current_schema(schema)?;
        self.insert_row(&schema, values, true)
    }

    /// Replaces the row whose primary key stands in `values`; it must exist (404 otherwise).
    pub fn update(&mut self, schema: &Schema, values: Vec<Value>) -> Result<Arc<Row>> {
        let schema = self.current_schema(schema)?;
        fits(&schema, &values)?;
        let before = self.row(&schema, &values[schema.primary])?;
        self.replace(&schema, before, values, true)
    }

    /// Replaces the row that this write has `read`, as [`Tx::update`] does, and does not read it
    /// again. `named`: whether the request names it; other records are told after those.
    pub fn update_read(
        &mut self,
        schema: &Schema,
        read: &Arc<Row>,
        values: Vec<Value>,
        named: bool,
    ) -> Result<Arc<Row>> {
        let schema = self.current_schema(schema)?;
        fits(&schema, &values)?;
        let before = self.still(&schema, read);
        self.replace(&schema, before, values, named)
    }

    fn replace(
        &mut self,
        schema: &Arc<Schema>,
        before: Option<Arc<Row>>,
        values: Vec<Value>,
        named: bool,
    ) -> Result<Arc<Row>> {
        let before = before.ok_or_else(|| no_record(schema, &values[schema.primary]))?;
        self.small_enough(schema, &values)?;
        self.update_row(schema, before, values, named)
    }

    /// A row that this write has `read`, as it is now; `None` where this write has deleted it.
    /// Nobody else writes meanwhile, and what this write changes it has at hand.
    pub fn still(&self, schema: &Schema, read: &Arc<Row>) -> Option<Arc<Row>> {
        let touched = Key::of(read.get(schema.primary))
            .and_then(|key| self.touched.after(schema.id, &key).map(Option::<&Arc<Row>>::cloned));
        touched.unwrap_or_else(|| Some(read.clone()))
    }

    /// Deletes a row and draws the consequences: optional references become null (an update of
    /// each referring record, `updated_at` set), links are unlinked, a required reference makes
    /// it a 409 that names who refers. `false` where there is no such row.
    pub fn delete(&mut self, schema: &Schema, key: &Value) -> Result<bool> {
        let schema = self.current_schema(schema)?;
        let Some(row) = self.row(&schema, key)? else {
            return Ok(false);
        };
        for referrer in self.referrers(schema.id).iter() {
            self.let_go(&schema, key, referrer)?;
        }
        self.delete_row(&schema, row, true)?;
        Ok(true)
    }

    /// Adds a notice to this write's entry.
    pub fn notice(&mut self, notice: Notice) {
        self.notices.push(notice);
    }

    /// For echo suppression: who wrote.
    pub fn origin(&mut self, origin: Uuid) {
        self.origin = Some(origin);
    }

    /// The image a record had before this write, if this write touched it
    /// (`Some(None)`: it did not exist).
    pub fn before(&self, schema: &Schema, key: &Value) -> Option<Option<Arc<Row>>> {
        self.touched.before(schema.id, &Key::of(key)?).map(|row| row.cloned())
    }

    /// The catalog that holds from here on, for the rest of this write and, once it is committed,
    /// for everybody. The caller has changed the tables and adds the [`Notice::Catalog`].
    pub(crate) fn set_catalog(&mut self, catalog: Arc<Catalog>) -> Result<()> {
        format::set_catalog_version(self.connection, catalog.version)?;
        self.desk.clear();
        self.catalog = catalog;
        self.migrated = true;
        Ok(())
    }

    /// The schema as this write's catalog has it, if it is the version that the caller knows.
    fn current_schema(&self, schema: &Schema) -> Result<Arc<Schema>> {
        match self.catalog.get(schema.id) {
            Some(current) if current.version == schema.version => Ok(current.clone()),
            _ => Err(Error::new(
                Kind::Conflict,
                format!("schema {} was changed meanwhile; try again", schema.name),
            )),
        }
    }

    /// Runs what a client's filter may make long, for no longer than a read may take.
    pub(crate) fn reading<T>(&self, read: impl FnOnce() -> Result<T>) -> Result<T> {
        self.desk.watch.hold(self.read_until, None);
        let outcome = read();
        self.desk.watch.release();
        outcome
    }

    fn schema(&self, id: SchemaId) -> Result<Arc<Schema>> {
        self.catalog
            .get(id)
            .cloned()
            .ok_or_else(|| Error::internal(format_args!("the catalog lacks schema {}", id.0)))
    }

    /// A row as this write has left it.
    fn row(&self, schema: &Schema, key: &Value) -> Result<Option<Arc<Row>>> {
        let touched = Key::of(key).and_then(|key| self.touched.after(schema.id, &key));
        match touched {
            Some(row) => Ok(row.cloned()),
            None => {
                let row = read::get(self.connection, &self.desk.texts, schema, key)?;
                if let Some(row) = &row {
                    self.spend(&row.values)?;
                }
                Ok(row)
            }
        }
    }
}

impl Rows for Tx<'_> {
    fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    fn get(&self, schema: &Schema, key: &Value) -> Result<Option<Arc<Row>>> {
        self.row(schema, key)
    }

    fn select_within(&self, query: &Query, bytes: usize) -> Result<Vec<Arc<Row>>> {
        let texts = &self.desk.texts;
        self.reading(|| read::select(self.connection, texts, &self.catalog, query, bytes))
    }

    fn count(&self, schema: &Schema, filter: &Predicate) -> Result<u64> {
        let texts = &self.desk.texts;
        self.reading(|| read::count(self.connection, texts, &self.catalog, schema, filter))
    }

    fn gather(&self, schema: &Schema, rows: &[Arc<Row>], paths: &Paths) -> Result<RelatedSet> {
        let view = Present { connection: self.connection, texts: &self.desk.texts, undo: None };
        let budget = Bounds::new(&self.desk.limits).budget_of(self.most(usize::MAX));
        let read = || related::gather(&view, &self.catalog, schema, rows, paths, &budget);
        self.spent(self.reading(read))
    }
}
