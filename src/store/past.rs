//! The state of all rows right after an entry of the log, for the entries of one page.
//!
//! The state at the page's end is looked up: a record's present row, or, where an entry after the
//! page touched it, its before-image in the first of these. It is kept for the whole page. From
//! there each entry's state is a matter of memory: what the page's later entries touched is as it
//! was before the first of them.

use std::cell::{Cell as Counter, RefCell};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use rusqlite::params_from_iter;

use crate::error::{Error, Result};
use crate::filter::sql::quote;
use crate::model::change::Row;
use crate::model::related::Key;
use crate::model::schema::{Schema, SchemaId, Slot};
use crate::model::value::Value;

use super::cell::{self, Cell};
use super::fault::fault;
use super::log;
use super::read::Reader;
use super::room::Room;
use super::view::{Each, View, chunks, too_many};

/// Records of later entries that are kept at hand; beyond it they are read again.
const LATER: usize = 20_000;

/// What a record was: `None` where there was none.
type State = Option<Arc<Row>>;

/// Everything that is known for one page.
pub(crate) struct Page<'a> {
    reader: &'a Reader<'a>,
    /// Position of the page's last entry, and whether it is the newest of all.
    end: u64,
    newest: bool,
    /// What the page's entries touched, by schema: each record's states before them, in order.
    touched: HashMap<SchemaId, HashMap<Key, Vec<(u64, State)>>>,
    /// Which of those records held a value in a key column before one of these entries.
    held: RefCell<HashMap<(SchemaId, Slot), Rc<Held>>>,
    /// States at the page's end.
    rows: RefCell<HashMap<SchemaId, HashMap<Key, State>>>,
    /// Rows at the page's end by the value of a key column.
    refs: RefCell<HashMap<(SchemaId, Slot), HashMap<Key, Refs>>>,
    later: RefCell<Later>,
    bytes: Counter<usize>,
}

type Held = HashMap<Key, Vec<Key>>;
type Images = HashMap<(SchemaId, Key), State>;

#[derive(Clone)]
enum Refs {
    All(Rc<Vec<Arc<Row>>>),
    /// They are more than this.
    Over(usize),
}

/// Before-images of entries after the page.
#[derive(Default)]
struct Later {
    entries: HashMap<u64, Rc<Images>>,
    records: usize,
}

impl<'a> Page<'a> {
    pub(crate) fn new(reader: &'a Reader<'a>, entries: &[log::Entry]) -> Result<Self> {
        let end = entries.last().map_or(0, |entry| entry.mark.position);
        let newest = reader.newest()?.is_none_or(|newest| newest.position <= end);
        let mut touched: HashMap<_, HashMap<_, Vec<_>>> = HashMap::new();
        for entry in entries {
            for change in &entry.changes {
                let Some(key) = Key::of(&change.key) else { continue };
                let states = touched.entry(change.schema).or_default().entry(key).or_default();
                states.push((entry.mark.position, change.before.clone()));
            }
        }
        Ok(Page {
            reader,
            end,
            newest,
            touched,
            held: RefCell::default(),
            rows: RefCell::default(),
            refs: RefCell::default(),
            later: RefCell::default(),
            bytes: Counter::new(0),
        })
    }

    /// The state right after the entry at `position`.
    pub(crate) fn at(&self, position: u64) -> Past<'_> {
        Past { page: self, position }
    }

    pub(crate) fn end(&self) -> Past<'_> {
        self.at(self.end)
    }

    /// Memory that the rows read so far take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    fn weigh(&self, row: &Row) {
        self.bytes.set(self.bytes.get() + Room::weigh(row));
    }

    fn touched(&self, schema: SchemaId) -> usize {
        self.touched.get(&schema).map_or(0, HashMap::len)
    }

    /// What a record was after the entry at `position`, where a later entry of the page tells.
    fn before_next(&self, schema: SchemaId, key: &Key, position: u64) -> Option<&State> {
        let states = self.touched.get(&schema)?.get(key)?;
        let next = states.partition_point(|(at, _)| *at <= position);
        states.get(next).map(|(_, state)| state)
    }

    fn held(&self, schema: &Schema, slot: Slot) -> Rc<Held> {
        let mut known = self.held.borrow_mut();
        let make = || {
            let mut held = Held::new();
            for (key, states) in self.touched.get(&schema.id).into_iter().flatten() {
                let rows = states.iter().filter_map(|(_, state)| state.as_ref());
                let values: HashSet<_> = rows.filter_map(|row| Key::of(row.get(slot))).collect();
                values.into_iter().for_each(|v| held.entry(v).or_default().push(key.clone()));
            }
            Rc::new(held)
        };
        known.entry((schema.id, slot)).or_insert_with(make).clone()
    }

    /// Sees to it that the states of these records at the page's end are in `rows`.
    fn load(&self, schema: &Schema, keys: &[Value]) -> Result<()> {
        let missing: Vec<Value> = {
            let mut rows = self.rows.borrow_mut();
            let known = rows.entry(schema.id).or_default();
            let is_new = |value: &&Value| Key::of(value).is_some_and(|k| !known.contains_key(&k));
            keys.iter().filter(is_new).cloned().collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        let mut found = HashMap::with_capacity(missing.len());
        self.read(schema, schema.primary, &missing, &mut |key, now, next| {
            let state = match next {
                None => Some(now),
                Some(next) => self.image(schema, &key, next)?,
            };
            found.insert(key, state);
            Ok(())
        })?;
        // Records that are gone now.
        for key in missing.iter().filter_map(Key::of) {
            if let Entry::Vacant(place) = found.entry(key) {
                let state = match self.next(schema, place.key())? {
                    None => None,
                    Some(next) => self.image(schema, place.key(), next)?,
                };
                place.insert(state);
            }
        }
        found.values().flatten().for_each(|row| self.weigh(row));
        self.rows.borrow_mut().entry(schema.id).or_default().extend(found);
        Ok(())
    }

    fn next(&self, schema: &Schema, key: &Key) -> Result<Option<u64>> {
        if self.newest {
            return Ok(None);
        }
        let recent = self.reader.recent()?;
        recent.next(self.reader.connection, schema.id.0, key, self.end).map_err(fault)
    }

    /// Gives present rows whose column `slot` holds one of `keys`, each with its primary key and
    /// the position of the first entry after the page that touched it.
    fn read(
        &self,
        schema: &Schema,
        slot: Slot,
        keys: &[Value],
        each: &mut dyn FnMut(Key, Arc<Row>, Option<u64>) -> Result<()>,
    ) -> Result<()> {
        let texts = self.reader.texts.of(schema);
        let columns = schema.columns.len();
        // The `+` takes the column's affinity away, which would keep the look-ups' key from use.
        let next = match self.newest {
            true => "NULL".to_owned(),
            false => format!(
                "(SELECT k.position FROM _rc_log_key AS k WHERE k.schema = {} AND k.key = +{} \
                 AND k.position > ? ORDER BY k.position LIMIT 1)",
                schema.id.0, texts.primary
            ),
        };
        let end = Value::Int(self.end as i64);
        let end = (!self.newest).then_some(&end);
        let recent = self.reader.recent()?;
        chunks(keys, |keys, marks| {
            let text = format!(
                "SELECT {}, {next} FROM {} WHERE r.{} IN ({marks})",
                texts.columns,
                texts.from,
                quote(&schema.columns[slot].name),
            );
            let mut statement = self.reader.connection.prepare_cached(&text)?;
            let mut rows = statement
                .query(params_from_iter(end.iter().chain(keys).map(|value| Cell(value))))?;
            while let Some(row) = rows.next()? {
                let now = Arc::new(cell::record(row, 0, schema)?);
                let next: Option<i64> = row.get(columns)?;
                let Some(key) = Key::of(now.get(schema.primary)) else { continue };
                let next = match next {
                    Some(next) => Some(next as u64),
                    None => recent.next_here(schema.id.0, &key, self.end),
                };
                if let Err(error) = each(key, now, next) {
                    return Ok(Err(error));
                }
            }
            Ok(Ok(()))
        })
    }

    /// A record's state before the entry at `position`, which touched it.
    fn image(&self, schema: &Schema, key: &Key, position: u64) -> Result<State> {
        let wrong =
            || Error::internal(format_args!("log entry {position}: its look-ups are wrong"));
        let known = self.later.borrow().entries.get(&position).cloned();
        let images = match known {
            Some(images) => images,
            None => {
                let entry = self.reader.entry(position)?.ok_or_else(wrong)?;
                let images: Images = entry
                    .changes
                    .into_iter()
                    .filter_map(|c| Some(((c.schema, Key::of(&c.key)?), c.before)))
                    .collect();
                let mut later = self.later.borrow_mut();
                if later.records + images.len() > LATER {
                    *later = Later::default();
                }
                later.records += images.len();
                let images = Rc::new(images);
                later.entries.insert(position, images.clone());
                images
            }
        };
        images.get(&(schema.id, key.clone())).cloned().ok_or_else(wrong)
    }

    /// Sees to it that the rows that held these values at the page's end are in `refs`; 413 where
    /// they are more than `most`.
    fn load_refs(&self, schema: &Schema, slot: Slot, values: &[Value], most: usize) -> Result<()> {
        let mut missing = Vec::new();
        if let Some(known) = self.refs.borrow().get(&(schema.id, slot)) {
            for value in values {
                match Key::of(value).and_then(|value| known.get(&value)) {
                    None => missing.push(value.clone()),
                    Some(Refs::All(_)) => {}
                    Some(Refs::Over(over)) if *over >= most => return Err(too_many(most)),
                    Some(Refs::Over(_)) => missing.push(value.clone()),
                }
            }
        } else {
            missing.extend_from_slice(values);
        }
        if missing.is_empty() {
            return Ok(());
        }
        let mut found: HashMap<Key, Vec<Arc<Row>>> = HashMap::new();
        let mut kept = 0;
        let mut keep = |value: Key, row: Arc<Row>| -> Result<()> {
            kept += 1;
            if kept > most {
                if let [only] = &missing[..] {
                    let key = Key::of(only).map(|key| (key, Refs::Over(most)));
                    self.refs.borrow_mut().entry((schema.id, slot)).or_default().extend(key);
                }
                return Err(too_many(most));
            }
            found.entry(value).or_default().push(row);
            Ok(())
        };
        self.read(schema, slot, &missing, &mut |key, now, next| {
            let Some(value) = Key::of(now.get(slot)) else { return Ok(()) };
            let state = match next {
                None => Some(now),
                Some(next) => self.image(schema, &key, next)?,
            };
            match state.filter(|row| Key::of(row.get(slot)).as_ref() == Some(&value)) {
                Some(row) => keep(value, row),
                None => Ok(()),
            }
        })?;
        // Those that hold another value now, or are gone.
        for (value, keys) in self.moved(schema, slot, &missing)? {
            self.load(schema, &keys)?;
            let rows = self.rows.borrow();
            let Some(rows) = rows.get(&schema.id) else { continue };
            for key in keys.iter().filter_map(Key::of) {
                let state = rows.get(&key).and_then(Option::as_ref);
                if let Some(row) = state.filter(|row| *row.get(slot) == value)
                    && let Some(value) = Key::of(&value)
                {
                    keep(value, row.clone())?;
                }
            }
        }
        found.values().flatten().for_each(|row| self.weigh(row));
        let mut refs = self.refs.borrow_mut();
        let refs = refs.entry((schema.id, slot)).or_default();
        for value in missing.iter().filter_map(Key::of) {
            let rows = found.remove(&value).unwrap_or_default();
            refs.insert(value, Refs::All(Rc::new(rows)));
        }
        Ok(())
    }

    /// Records that lost or gained one of `values` after the page and do not hold it now, each
    /// once, by value.
    fn moved(
        &self,
        schema: &Schema,
        slot: Slot,
        values: &[Value],
    ) -> Result<Vec<(Value, Vec<Value>)>> {
        let mut moved: HashMap<Key, HashSet<Key>> = HashMap::new();
        if self.newest {
            return Ok(Vec::new());
        }
        let (recent, field) = (self.reader.recent()?, schema.columns[slot].id.0);
        let texts = self.reader.texts.of(schema);
        let end = Value::Int(self.end as i64);
        chunks(values, |values, marks| {
            let text = format!(
                "SELECT DISTINCT l.value, l.key FROM _rc_log_ref AS l
                 WHERE l.field = {field} AND l.position > ? AND l.value IN ({marks})
                   AND NOT EXISTS (SELECT 1 FROM {} WHERE {} = l.key AND r.{} = l.value)",
                texts.from,
                texts.primary,
                quote(&schema.columns[slot].name),
            );
            let mut statement = self.reader.connection.prepare_cached(&text)?;
            let mut rows = statement.query(params_from_iter(
                [&&end].into_iter().chain(values).map(|value| Cell(value)),
            ))?;
            while let Some(row) = rows.next()? {
                let key = |index| row.get_ref(index).and_then(super::lookup::key_of);
                moved.entry(key(0)?).or_default().insert(key(1)?);
            }
            Ok(Ok(()))
        })?;
        for value in values.iter().filter_map(Key::of) {
            let here: HashSet<&Key> = recent.moved_here(field, &value, self.end).collect();
            let keys: Vec<Value> = here.iter().map(|key| key.value()).collect();
            let mut still = HashSet::new();
            if !keys.is_empty() {
                self.read(schema, schema.primary, &keys, &mut |key, now, _| {
                    if Key::of(now.get(slot)).as_ref() == Some(&value) {
                        still.insert(key);
                    }
                    Ok(())
                })?;
                let gone = here.into_iter().filter(|key| !still.contains(*key)).cloned();
                moved.entry(value).or_default().extend(gone);
            }
        }
        let list = |keys: HashSet<Key>| keys.iter().map(Key::value).collect();
        Ok(moved.into_iter().map(|(value, keys)| (value.value(), list(keys))).collect())
    }
}

/// One state within a page.
pub(crate) struct Past<'p> {
    page: &'p Page<'p>,
    position: u64,
}

impl View for Past<'_> {
    fn by_primary(&self, schema: &Schema, keys: &[Value], each: Each<'_>) -> Result<()> {
        let mut rest = Vec::with_capacity(keys.len());
        for value in keys {
            let Some(key) = Key::of(value) else { continue };
            match self.page.before_next(schema.id, &key, self.position) {
                None => rest.push(value.clone()),
                Some(Some(row)) => each(row.clone())?,
                Some(None) => {}
            }
        }
        self.page.load(schema, &rest)?;
        let rows = self.page.rows.borrow();
        let Some(rows) = rows.get(&schema.id) else { return Ok(()) };
        for row in rest.iter().filter_map(|value| rows.get(&Key::of(value)?)?.as_ref()) {
            each(row.clone())?;
        }
        Ok(())
    }

    fn by_key(
        &self,
        schema: &Schema,
        slot: Slot,
        keys: &[Value],
        most: usize,
        each: Each<'_>,
    ) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let (page, position) = (self.page, self.position);
        // The page's end has at most so many more of them than any state within the page.
        page.load_refs(schema, slot, keys, most.saturating_add(page.touched(schema.id)))?;
        let held = page.held(schema, slot);
        for value in keys.iter().filter_map(Key::of) {
            let refs =
                page.refs.borrow().get(&(schema.id, slot)).and_then(|r| r.get(&value).cloned());
            let rows = match refs {
                Some(Refs::All(rows)) => rows,
                Some(Refs::Over(_)) => return Err(too_many(most)),
                None => continue,
            };
            for row in rows.iter() {
                let Some(key) = Key::of(row.get(schema.primary)) else { continue };
                if page.before_next(schema.id, &key, position).is_none() {
                    each(row.clone())?;
                }
            }
            for key in held.get(&value).into_iter().flatten() {
                if let Some(Some(row)) = page.before_next(schema.id, key, position)
                    && Key::of(row.get(slot)).as_ref() == Some(&value)
                {
                    each(row.clone())?;
                }
            }
        }
        Ok(())
    }
}
