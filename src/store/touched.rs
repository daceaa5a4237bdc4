//! What a write has touched so far: each record once, first before-image, last after-image.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::limits::Limits;
use crate::model::change::{Change, Op, Row};
use crate::model::related::Key;
use crate::model::schema::{Schema, SchemaId, SchemaKind};
use crate::model::value::Value;

/// Among so few a record is looked for one by one: most writes touch one.
const FEW: usize = 8;

#[derive(Default)]
pub(crate) struct Touched {
    list: Vec<Touch>,
    /// Where records stand in `list`: of the first as many as there are here, and of all once they
    /// are more than a [`FEW`].
    index: HashMap<(SchemaId, Key), usize>,
    named: usize,
    bytes: usize,
    /// While there are marks: what each step found, `None` where it added to the list.
    journal: Vec<Option<(usize, Touch)>>,
    marks: usize,
}

/// Where a [`Touched`] stood.
pub(crate) struct Stood {
    journal: usize,
    bytes: usize,
}

#[derive(Clone)]
struct Touch {
    schema: Arc<Schema>,
    key: Value,
    /// The how manieth the request named; `None` for a consequence.
    named: Option<usize>,
    before: Option<Arc<Row>>,
    after: Option<Arc<Row>>,
}

impl Touched {
    /// Notes one step of a record. `before` counts only at the record's first step.
    pub(crate) fn step(
        &mut self,
        schema: &Arc<Schema>,
        key: &Value,
        named: bool,
        before: Option<Arc<Row>>,
        after: Option<Arc<Row>>,
        limits: &Limits,
    ) -> Result<()> {
        let Some(name) = Key::of(key) else {
            return Err(Error::internal(format_args!("{}: not a key: {key:?}", schema.name)));
        };
        let named = named.then_some(self.named);
        self.named += 1;
        match self.place(schema.id, &name) {
            Some(index) => {
                let touch = &mut self.list[index];
                if self.marks > 0 {
                    self.journal.push(Some((index, touch.clone())));
                }
                self.bytes -= touch.after.as_deref().map_or(0, size);
                self.bytes += after.as_deref().map_or(0, size);
                touch.named = touch.named.or(named);
                touch.after = after;
                touch.schema = schema.clone();
            }
            None => {
                self.bytes += before.as_deref().map_or(0, size) + after.as_deref().map_or(0, size);
                if self.marks > 0 {
                    self.journal.push(None);
                }
                let (schema, key) = (schema.clone(), key.clone());
                self.list.push(Touch { schema, key, named, before, after });
                self.file();
            }
        }
        self.within(limits)
    }

    fn place(&self, schema: SchemaId, key: &Key) -> Option<usize> {
        if self.list.len() > FEW {
            return self.index.get(&(schema, key.clone())).copied();
        }
        let is_it = |touch: &Touch| {
            touch.schema.id == schema && Key::of(&touch.key).is_some_and(|own| own == *key)
        };
        self.list.iter().position(is_it)
    }

    fn file(&mut self) {
        if self.list.len() > FEW {
            for (at, touch) in self.list.iter().enumerate().skip(self.index.len()) {
                if let Some(key) = Key::of(&touch.key) {
                    self.index.insert((touch.schema.id, key), at);
                }
            }
        }
    }

    fn within(&self, limits: &Limits) -> Result<()> {
        let refuse = |what: String| {
            Err(Error::new(
                Kind::TooLarge,
                format!("{what}, consequences included; split it into smaller writes"),
            ))
        };
        if self.list.len() > limits.write_records {
            return refuse(format!(
                "the write touches more than {} records, the most one write may",
                limits.write_records
            ));
        }
        if self.bytes > limits.write_bytes {
            return refuse(format!(
                "the write holds {} bytes of states before and after, more than the {} one write \
                 may",
                self.bytes, limits.write_bytes
            ));
        }
        Ok(())
    }

    /// The touched records of a schema as they are now; `None`: deleted.
    pub(crate) fn now(
        &self,
        schema: SchemaId,
    ) -> impl Iterator<Item = (&Value, Option<&Arc<Row>>)> {
        let of = move |touch: &&Touch| touch.schema.id == schema;
        self.list.iter().filter(of).map(|touch| (&touch.key, touch.after.as_ref()))
    }

    /// Notes where it stands; to be given to [`Touched::back_to`] or [`Touched::go_on`].
    pub(crate) fn mark(&mut self) -> Stood {
        self.marks += 1;
        Stood { journal: self.journal.len(), bytes: self.bytes }
    }

    /// Takes back every step since the newest mark.
    pub(crate) fn back_to(&mut self, stood: &Stood) {
        for step in self.journal.drain(stood.journal..).rev() {
            match step {
                Some((index, touch)) => self.list[index] = touch,
                None => {
                    if let Some(touch) = self.list.pop()
                        && let Some(key) = Key::of(&touch.key)
                    {
                        self.index.remove(&(touch.schema.id, key));
                    }
                }
            }
        }
        self.bytes = stood.bytes;
        self.go_on();
    }

    /// Forgets the newest mark.
    pub(crate) fn go_on(&mut self) {
        self.marks -= 1;
        if self.marks == 0 {
            self.journal.clear();
        }
    }

    /// `None`: not touched. `Some(None)`: did not exist before.
    pub(crate) fn before(&self, schema: SchemaId, key: &Key) -> Option<Option<&Arc<Row>>> {
        self.find(schema, key).map(|touch| touch.before.as_ref())
    }

    /// `None`: not touched. `Some(None)`: does not exist now.
    pub(crate) fn after(&self, schema: SchemaId, key: &Key) -> Option<Option<&Arc<Row>>> {
        self.find(schema, key).map(|touch| touch.after.as_ref())
    }

    fn find(&self, schema: SchemaId, key: &Key) -> Option<&Touch> {
        self.place(schema, key).map(|index| &self.list[index])
    }

    /// The before-images of a schema's records.
    pub(crate) fn befores(&self, schema: SchemaId) -> impl Iterator<Item = &Arc<Row>> {
        self.list
            .iter()
            .filter(move |touch| touch.schema.id == schema)
            .filter_map(|touch| touch.before.as_ref())
    }

    /// The commit's changes and the schema of each: first the records that the request named, as
    /// it named them, then the consequences, as they came. What came and went leaves nothing; so
    /// does a link that is what it was.
    pub(crate) fn changes(&self) -> (Vec<Change>, Vec<Arc<Schema>>) {
        let mut order: Vec<&Touch> = self.list.iter().collect();
        order.sort_by_key(|touch| touch.named.unwrap_or(usize::MAX));
        let mut changes = Vec::with_capacity(order.len());
        let mut schemas = Vec::with_capacity(order.len());
        for touch in order {
            let op = match (&touch.before, &touch.after) {
                (None, None) => continue,
                (None, Some(_)) => Op::Create,
                (Some(_), None) => Op::Delete,
                (before, after) if touch.schema.kind == SchemaKind::Junction && before == after => {
                    continue;
                }
                _ => Op::Update,
            };
            changes.push(Change {
                schema: touch.schema.id,
                schema_version: touch.schema.version,
                op,
                key: touch.key.clone(),
                before: touch.before.clone(),
                after: touch.after.clone(),
            });
            schemas.push(touch.schema.clone());
        }
        (changes, schemas)
    }
}

/// Bytes a state counts for.
fn size(row: &Row) -> usize {
    row.values.iter().map(|value| 9 + value.heap_bytes()).sum()
}
