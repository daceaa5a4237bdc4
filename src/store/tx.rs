//! One write: rows changed, consequences drawn, the log entry collected.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::{Connection, params_from_iter};
use uuid::Uuid;

use crate::error::{Error, Kind, Result};
use crate::filter::Predicate;
use crate::filter::sql::quote;
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::change::{Notice, Row};
use crate::model::related::{Key, Paths, RelatedSet};
use crate::model::schema::{Relation, Schema, SchemaId, Shape, Slot};
use crate::model::value::Value;

use super::cell::Cell;
use super::fault::fault;
use super::read::{self, Query, Rows};
use super::refs::{Referrer, ReferrerKind, referrers};
use super::related;
use super::room::Room;
use super::texts::TextCache;
use super::touched::Touched;
use super::unlinked::{Ends, Unlinked};
use super::watch::Watch;
use super::{format, refuse};

/// A job's view of the rows: sees its own changes. Implements [`super::Rows`].
///
/// Every method that changes rows records the before- and after-image; a record touched several
/// times stands in the commit once (first before-image, last after-image). Changes that end where
/// they began are dropped, except updates, which always count.
pub struct Tx<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) desk: &'a Desk,
    pub(crate) catalog: Arc<Catalog>,
    /// Whether this write replaced the catalog.
    pub(crate) migrated: bool,
    pub(crate) now: i64,
    /// Until then may this write read; what it changes is bounded by records and bytes.
    read_until: Instant,
    pub(crate) touched: Touched,
    pub(crate) notices: Vec<Notice>,
    pub(crate) origin: Option<Uuid>,
    /// Primary keys of link rows that this write took away, by junction and ends: put back, they
    /// are the rows they were.
    pub(super) unlinked: Unlinked,
}

/// The largest id that may be written where ids are automatic. SQLite counts on from the largest
/// one there ever was, and at 2^63-1 it calls the disk full.
const MAX_GIVEN_ID: i64 = 1 << 62;

/// What the writer keeps at hand from write to write.
pub(crate) struct Desk {
    pub(crate) texts: TextCache,
    pub(crate) limits: Limits,
    /// Over the writer's connection: what a job selects must not hold up all other writes.
    pub(crate) watch: Watch,
    referrers: RefCell<HashMap<SchemaId, Arc<[Referrer]>>>,
}

impl Desk {
    pub(crate) fn new(limits: Limits) -> Self {
        Desk {
            texts: TextCache::default(),
            limits,
            watch: Watch::default(),
            referrers: RefCell::default(),
        }
    }

    /// Forgets what was derived from a catalog.
    pub(crate) fn clear(&self) {
        self.texts.clear();
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
            migrated: false,
            now,
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

    /// Inserts a row given in slot order. `Value::Null` in an automatic primary key column is
    /// filled in (counter or UUID v7). Timestamps and defaults are the caller's to fill. A unique
    /// clash is a 400 naming the field; a foreign key to nothing a 400 naming the relation.
    pub fn insert(&mut self, schema: &Schema, values: Vec<Value>) -> Result<Arc<Row>> {
        let schema = self.current_schema(schema)?;
        self.insert_row(&schema, values, true)
    }

    /// Replaces the row whose primary key stands in `values`; it must exist (404 otherwise).
    pub fn update(&mut self, schema: &Schema, values: Vec<Value>) -> Result<Arc<Row>> {
        self.replace(schema, values, true)
    }

    /// [`Tx::update`] for a record that the request does not name: told after those it does.
    pub fn update_consequence(&mut self, schema: &Schema, values: Vec<Value>) -> Result<Arc<Row>> {
        self.replace(schema, values, false)
    }

    fn replace(&mut self, schema: &Schema, values: Vec<Value>, named: bool) -> Result<Arc<Row>> {
        let schema = self.current_schema(schema)?;
        fits(&schema, &values)?;
        let key = &values[schema.primary];
        let before = self.row(&schema, key)?.ok_or_else(|| no_record(&schema, key))?;
        self.small_enough(&schema, &values)?;
        self.update_row(&schema, before, values, named)
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

    /// Links through a junction (`Shape::Link`); `false` where the link stood already. A relation
    /// that is its own back reference is linked both ways.
    pub fn link(
        &mut self,
        schema: &Schema,
        relation: &Relation,
        own: &Value,
        other: &Value,
    ) -> Result<bool> {
        let schema = self.current_schema(schema)?;
        let ends = self.ends(relation)?;
        for (end, key) in [(schema.id, own), (relation.target, other)] {
            let end = self.schema(end)?;
            if self.row(&end, key)?.is_none() {
                let text = format!("{}: {}", relation.name, no_record(&end, key).message);
                return Err(Error::bad(text));
            }
        }
        let linked = self.link_row(&ends, own, other)?;
        if both_ways(&schema, relation) && own != other {
            self.link_row(&ends, other, own)?;
        }
        Ok(linked)
    }

    /// Takes a link away; `false` where there was none.
    pub fn unlink(
        &mut self,
        schema: &Schema,
        relation: &Relation,
        own: &Value,
        other: &Value,
    ) -> Result<bool> {
        let schema = self.current_schema(schema)?;
        let ends = self.ends(relation)?;
        let unlinked = self.unlink_row(&ends, own, other)?;
        if both_ways(&schema, relation) && own != other {
            self.unlink_row(&ends, other, own)?;
        }
        Ok(unlinked)
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

    /// Where related rows are read from.
    pub(crate) fn source(&self) -> related::Source<'_> {
        related::Source {
            connection: self.connection,
            texts: &self.desk.texts,
            catalog: &self.catalog,
            most: self.desk.limits.related_records,
            bytes: self.desk.limits.answer_bytes,
        }
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
            None => read::get(self.connection, &self.desk.texts, schema, key),
        }
    }

    fn insert_row(
        &mut self,
        schema: &Arc<Schema>,
        mut values: Vec<Value>,
        named: bool,
    ) -> Result<Arc<Row>> {
        fits(schema, &values)?;
        let primary = schema.primary_column();
        let mut counted = false;
        if values[schema.primary].is_null() {
            match primary.automatic {
                true if primary.ty.is_int() => counted = true,
                true => values[schema.primary] = Value::Uuid(Uuid::now_v7()),
                false => return Err(Error::bad(format!("{}: a value is required", primary.name))),
            }
        }
        if let Value::Int(id) = values[schema.primary]
            && primary.automatic
            && id > MAX_GIVEN_ID
        {
            let name = &primary.name;
            return Err(Error::bad(format!(
                "{name}: {id} is too large; use {MAX_GIVEN_ID} at most"
            )));
        }
        self.small_enough(schema, &values)?;
        let done = self
            .connection
            .prepare_cached(&self.desk.texts.of(schema).insert)
            .and_then(|mut statement| statement.execute(params_from_iter(values.iter().map(Cell))));
        if let Err(error) = done {
            return Err(self.refused(schema, &values, error));
        }
        if counted {
            values[schema.primary] = Value::Int(self.connection.last_insert_rowid());
        }
        let row = Arc::new(Row::new(values));
        let key = row.get(schema.primary);
        self.touched.step(schema, key, named, None, Some(row.clone()), &self.desk.limits)?;
        Ok(row)
    }

    fn update_row(
        &mut self,
        schema: &Arc<Schema>,
        before: Arc<Row>,
        values: Vec<Value>,
        named: bool,
    ) -> Result<Arc<Row>> {
        let changed: Vec<Slot> =
            (0..values.len()).filter(|slot| before.values[*slot] != values[*slot]).collect();
        if !changed.is_empty() {
            let text = self.desk.texts.of(schema).update(schema, &changed);
            let params = changed.iter().map(|slot| &values[*slot]).chain([&values[schema.primary]]);
            let done = self
                .connection
                .prepare_cached(&text)
                .and_then(|mut statement| statement.execute(params_from_iter(params.map(Cell))));
            if let Err(error) = done {
                return Err(self.refused(schema, &values, error));
            }
        }
        let row = Arc::new(Row::new(values));
        let key = row.get(schema.primary);
        self.touched.step(
            schema,
            key,
            named,
            Some(before),
            Some(row.clone()),
            &self.desk.limits,
        )?;
        Ok(row)
    }

    fn delete_row(&mut self, schema: &Arc<Schema>, row: Arc<Row>, named: bool) -> Result<()> {
        let key = row.get(schema.primary).clone();
        let done = self
            .connection
            .prepare_cached(&self.desk.texts.of(schema).delete)
            .and_then(|mut statement| statement.execute([Cell(&key)]));
        if let Err(error) = done {
            return Err(match refuse::constraint(&error) {
                // Our own consequences are drawn: what still refers is no schema's any more.
                Some(refuse::Constraint::Foreign) => Error::new(
                    Kind::Conflict,
                    format!(
                        "{} {} cannot be deleted: records of a schema that is no longer served \
                         refer to it",
                        schema.name,
                        refuse::shown(&key)
                    ),
                ),
                _ => fault(error),
            });
        }
        self.touched.step(schema, &key, named, Some(row), None, &self.desk.limits)
    }

    fn referrers(&self, schema: SchemaId) -> Arc<[Referrer]> {
        let mut known = self.desk.referrers.borrow_mut();
        known.entry(schema).or_insert_with(|| referrers(&self.catalog, schema).into()).clone()
    }

    /// What becomes of those who refer to a record that goes.
    fn let_go(&mut self, schema: &Schema, key: &Value, referrer: &Referrer) -> Result<()> {
        let from = &referrer.schema;
        let text = self.desk.texts.of(from).by(from, referrer.slot);
        // One more than a write may touch is enough to be refused.
        let most = match referrer.kind {
            ReferrerKind::Required(_) => 2,
            _ => self.desk.limits.write_records as u64 + 1,
        };
        // What a write may not hold it need not read either.
        let room = Room::new(self.desk.limits.write_bytes);
        let rows = read::rows_by(self.connection, &text, from, key, most, &room)?;
        for row in rows {
            let itself = from.id == schema.id && row.get(from.primary) == key;
            match &referrer.kind {
                ReferrerKind::Link => self.delete_row(from, row, false)?,
                _ if itself => {}
                ReferrerKind::Optional => {
                    let mut values = row.values.to_vec();
                    values[referrer.slot] = Value::Null;
                    if let Some(slot) = from.updated_at {
                        values[slot] = Value::Time(self.now);
                    }
                    self.update_row(from, row, values, false)?;
                }
                ReferrerKind::Required(relation) => {
                    return Err(Error::new(
                        Kind::Conflict,
                        format!(
                            "{} {} cannot be deleted: {}.{relation} is required and refers to it; \
                             delete or change those records first",
                            schema.name,
                            refuse::shown(key),
                            from.name
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    fn ends(&self, relation: &Relation) -> Result<Ends> {
        match relation.shape {
            Shape::Link { junction, own, other } => {
                Ok(Ends { junction: self.schema(junction)?, own, other })
            }
            _ => Err(Error::internal(format_args!("{} has no links", relation.name))),
        }
    }

    fn link_of(&self, ends: &Ends, own: &Value, other: &Value) -> Result<Option<Arc<Row>>> {
        let junction = &ends.junction;
        let texts = self.desk.texts.of(junction);
        let name = |slot: Slot| quote(&junction.columns[slot].name);
        let text = format!(
            "SELECT {} FROM {} WHERE r.{} = ? AND r.{} = ?",
            texts.columns,
            texts.from,
            name(ends.own),
            name(ends.other)
        );
        use rusqlite::OptionalExtension as _;
        self.connection
            .prepare_cached(&text)
            .and_then(|mut statement| {
                statement
                    .query_row([Cell(own), Cell(other)], |row| {
                        super::cell::record(row, 0, junction).map(Arc::new)
                    })
                    .optional()
            })
            .map_err(fault)
    }

    fn link_row(&mut self, ends: &Ends, own: &Value, other: &Value) -> Result<bool> {
        if self.link_of(ends, own, other)?.is_some() {
            return Ok(false);
        }
        let mut values = vec![Value::Null; ends.junction.columns.len()];
        if let Some(key) = ends.name(own, other).and_then(|name| self.unlinked.remove(&name)) {
            values[ends.junction.primary] = key;
        }
        values[ends.own] = own.clone();
        values[ends.other] = other.clone();
        self.insert_row(&ends.junction, values, false)?;
        Ok(true)
    }

    fn unlink_row(&mut self, ends: &Ends, own: &Value, other: &Value) -> Result<bool> {
        let Some(row) = self.link_of(ends, own, other)? else {
            return Ok(false);
        };
        if let Some(name) = ends.name(own, other) {
            self.unlinked.insert(name, row.get(ends.junction.primary).clone());
        }
        self.delete_row(&ends.junction, row, false)?;
        Ok(true)
    }

    fn small_enough(&self, schema: &Schema, values: &[Value]) -> Result<()> {
        refuse::small_enough(schema, values, self.desk.limits.record_bytes)
    }

    /// Why SQLite did not take the row.
    fn refused(&self, schema: &Schema, values: &[Value], error: rusqlite::Error) -> Error {
        match refuse::constraint(&error) {
            Some(refuse::Constraint::Unique(columns)) => refuse::taken(schema, values, &columns),
            Some(refuse::Constraint::NotNull(column)) => {
                Error::bad(format!("{}: a value is required", refuse::known_as(schema, &column)))
            }
            Some(refuse::Constraint::Foreign) => {
                self.missing(schema, values).unwrap_or_else(|| fault(error))
            }
            None => fault(error),
        }
    }

    /// Names the relation whose key points at nothing.
    fn missing(&self, schema: &Schema, values: &[Value]) -> Option<Error> {
        schema.relations.iter().find_map(|relation| {
            let Shape::Key { slot } = relation.shape else { return None };
            let key = &values[slot];
            let target = self.catalog.get(relation.target)?;
            let there = key.is_null() || self.row(target, key).ok()?.is_some();
            (!there).then(|| {
                let nothing = no_record(target, key).message;
                Error::bad(format!("{}: {nothing}", relation.name))
            })
        })
    }
}

/// A relation of a schema to itself that is its own back reference (friends): links go both ways.
fn both_ways(schema: &Schema, relation: &Relation) -> bool {
    relation.target == schema.id && relation.back == relation.name
}

fn no_record(schema: &Schema, key: &Value) -> Error {
    let primary = &schema.primary_column().name;
    Error::not_found(format!("{}: no record with {primary} {}", schema.name, refuse::shown(key)))
}

fn fits(schema: &Schema, values: &[Value]) -> Result<()> {
    if values.len() == schema.columns.len() {
        return Ok(());
    }
    Err(Error::internal(format_args!(
        "{}: {} values for {} columns",
        schema.name,
        values.len(),
        schema.columns.len()
    )))
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
        self.reading(|| related::gather(&self.source(), schema, rows, paths, None))
    }
}
