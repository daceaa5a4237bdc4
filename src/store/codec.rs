//! Log entries ↔ bytes.
//!
//! An entry describes itself: each schema in it stands there once as a *shape* (schema id, schema
//! version, field ids in slot order), and states are the values in the shape's order. So entries
//! are read against any later catalog, whatever was renamed, added or dropped since.
//!
//! ```text
//! entry   = 1 (codec version), flags (1: origin), [origin: 16 bytes],
//!           n, n × shape, n, n × change, n, n × notice
//! shape   = schema, version, primary (index), n, n × (field id × 2 + 1 if a key to other records)
//! change  = shape (index), op (0 create, 1 update, 2 delete), state, [state]
//! state   = a value a field; after an update's first state, SAME where the value is that one's
//! notice  = 1, catalog version, n, n × schema  |  2, user: 16 bytes, 0 | 1, session: 16 bytes
//! ```
//!
//! Numbers are LEB128, signed ones zigzag.

use std::sync::Arc;

use uuid::Uuid;

use crate::model::change::{Change, Notice, Op, Row};
use crate::model::schema::{FieldId, Schema, SchemaId, SchemaKind, Slot};
use crate::model::value::Value;
use crate::nice;

const VERSION: u8 = 1;

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const FLOAT: u8 = 4;
const TEXT: u8 = 5;
const UUID: u8 = 6;
const TIME: u8 = 7;
const JSON: u8 = 8;
const BYTES: u8 = 9;
const SAME: u8 = 10;

/// What an entry of the log holds, by field ids.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Raw {
    pub(crate) origin: Option<Uuid>,
    pub(crate) shapes: Vec<Shape>,
    pub(crate) changes: Vec<RawChange>,
    pub(crate) notices: Vec<Logged>,
}

/// A schema as it was when the entry was written.
#[derive(Debug, PartialEq)]
pub(crate) struct Shape {
    pub(crate) schema: SchemaId,
    pub(crate) version: u32,
    pub(crate) primary: usize,
    /// Each field and whether it is a key to other records.
    pub(crate) fields: Vec<(FieldId, bool)>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct RawChange {
    /// Index into [`Raw::shapes`].
    pub(crate) shape: usize,
    pub(crate) op: Op,
    /// Values in the shape's order.
    pub(crate) before: Option<Vec<Value>>,
    pub(crate) after: Option<Vec<Value>>,
}

/// A notice as the log keeps it: a catalog by its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Logged {
    /// Schemas or access rules changed.
    Catalog {
        version: u64,
        /// Schemas that changed by more than additions.
        broken: Vec<SchemaId>,
    },
    /// Sessions of a user ended: one, or all of them.
    Session { user: Uuid, session: Option<Uuid> },
}

/// The entry is no entry: a damaged file, or one of a newer program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damaged(pub(crate) &'static str);

/// Whether the column holds keys of other records, by which the log can be searched.
pub(crate) fn is_key(schema: &Schema, slot: Slot) -> bool {
    schema.columns[slot].key_of.is_some()
        || (schema.kind == SchemaKind::Junction && slot != schema.primary)
}

/// `schemas[i]` is the schema of `changes[i]`.
pub(crate) fn encode(
    origin: Option<Uuid>,
    changes: &[Change],
    schemas: &[Arc<Schema>],
    notices: &[Notice],
    out: &mut Vec<u8>,
) {
    out.push(VERSION);
    out.push(u8::from(origin.is_some()));
    if let Some(origin) = origin {
        out.extend_from_slice(origin.as_bytes());
    }
    let mut shapes: Vec<&Arc<Schema>> = Vec::new();
    let mut last = usize::MAX;
    let mut index = Vec::with_capacity(changes.len());
    for schema in schemas {
        // Changes of one schema mostly follow each other.
        if shapes.get(last).is_none_or(|known| !Arc::ptr_eq(known, schema)) {
            last =
                shapes.iter().position(|known| Arc::ptr_eq(known, schema)).unwrap_or_else(|| {
                    shapes.push(schema);
                    shapes.len() - 1
                });
        }
        index.push(last);
    }
    count(out, shapes.len());
    for schema in shapes {
        unsigned(out, schema.id.0.into());
        unsigned(out, schema.version.into());
        count(out, schema.primary);
        count(out, schema.columns.len());
        for (slot, column) in schema.columns.iter().enumerate() {
            unsigned(out, u64::from(column.id.0) << 1 | u64::from(is_key(schema, slot)));
        }
    }
    count(out, changes.len());
    for (change, shape) in changes.iter().zip(index) {
        nice::pause();
        count(out, shape);
        out.push(match change.op {
            Op::Create => 0,
            Op::Update => 1,
            Op::Delete => 2,
        });
        match (&change.before, &change.after) {
            (Some(before), Some(after)) => {
                state(out, before);
                for (old, new) in before.values.iter().zip(&after.values) {
                    if old == new { out.push(SAME) } else { value(out, new) }
                }
            }
            (before, after) => {
                if let Some(row) = before.as_ref().or(after.as_ref()) {
                    state(out, row);
                }
            }
        }
    }
    count(out, notices.len());
    for notice in notices {
        match notice {
            Notice::Catalog { catalog, broken } => {
                out.push(1);
                unsigned(out, catalog.version);
                count(out, broken.len());
                for schema in broken {
                    unsigned(out, schema.0.into());
                }
            }
            Notice::Session { user, session } => {
                out.push(2);
                out.extend_from_slice(user.as_bytes());
                out.push(u8::from(session.is_some()));
                if let Some(session) = session {
                    out.extend_from_slice(session.as_bytes());
                }
            }
        }
    }
}

fn state(out: &mut Vec<u8>, row: &Row) {
    for item in &row.values {
        value(out, item);
    }
}

fn value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(NULL),
        Value::Bool(flag) => out.push(if *flag { TRUE } else { FALSE }),
        Value::Int(number) => {
            out.push(INT);
            signed(out, *number);
        }
        Value::Float(number) => {
            out.push(FLOAT);
            out.extend_from_slice(&number.to_le_bytes());
        }
        Value::Text(text) => bytes(out, TEXT, text.as_bytes()),
        Value::Uuid(id) => {
            out.push(UUID);
            out.extend_from_slice(id.as_bytes());
        }
        Value::Time(micros) => {
            out.push(TIME);
            signed(out, *micros);
        }
        Value::Json(text) => bytes(out, JSON, text.as_bytes()),
        Value::Bytes(content) => bytes(out, BYTES, content),
    }
}

fn bytes(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    count(out, content.len());
    out.extend_from_slice(content);
}

fn count(out: &mut Vec<u8>, number: usize) {
    unsigned(out, number as u64);
}

fn signed(out: &mut Vec<u8>, number: i64) {
    unsigned(out, ((number << 1) ^ (number >> 63)) as u64);
}

fn unsigned(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(crate) fn decode(entry: &[u8]) -> Result<Raw, Damaged> {
    let mut input = Input { rest: entry };
    if input.byte()? != VERSION {
        return Err(Damaged("written by a newer program"));
    }
    let mut raw = Raw::default();
    if input.byte()? & 1 != 0 {
        raw.origin = Some(input.uuid()?);
    }
    for _ in 0..input.count()? {
        raw.shapes.push(input.shape()?);
    }
    for _ in 0..input.count()? {
        raw.changes.push(input.change(&raw.shapes)?);
    }
    for _ in 0..input.count()? {
        raw.notices.push(input.notice()?);
    }
    if input.rest.is_empty() { Ok(raw) } else { Err(Damaged("longer than it should be")) }
}

struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Damaged("cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Damaged> {
        self.take(1).map(|taken| taken[0])
    }

    fn unsigned(&mut self) -> Result<u64, Damaged> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Damaged("a number is too long"))
    }

    fn signed(&mut self) -> Result<i64, Damaged> {
        let number = self.unsigned()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn id(&mut self) -> Result<u32, Damaged> {
        self.unsigned()?.try_into().map_err(|_| Damaged("an id is too large"))
    }

    /// How many items follow. Each takes a byte at least, which bounds what a damaged entry can
    /// make us reserve.
    fn count(&mut self) -> Result<usize, Damaged> {
        let number = self.unsigned()?;
        if number > self.rest.len() as u64 {
            return Err(Damaged("a count is too large"));
        }
        Ok(number as usize)
    }

    fn index(&mut self, below: usize) -> Result<usize, Damaged> {
        let number = self.unsigned()?;
        if number >= below as u64 {
            return Err(Damaged("an index is too large"));
        }
        Ok(number as usize)
    }

    fn uuid(&mut self) -> Result<Uuid, Damaged> {
        Uuid::from_slice(self.take(16)?).map_err(|_| Damaged("cut short"))
    }

    fn shape(&mut self) -> Result<Shape, Damaged> {
        let schema = SchemaId(self.id()?);
        let version = self.id()?;
        let primary = self.unsigned()? as usize;
        let length = self.count()?;
        let mut fields = Vec::with_capacity(length);
        for _ in 0..length {
            let number = self.unsigned()?;
            let id = (number >> 1).try_into().map_err(|_| Damaged("an id is too large"))?;
            fields.push((FieldId(id), number & 1 != 0));
        }
        if primary >= fields.len() {
            return Err(Damaged("a schema without a primary key"));
        }
        Ok(Shape { schema, version, primary, fields })
    }

    fn change(&mut self, shapes: &[Shape]) -> Result<RawChange, Damaged> {
        let shape = self.index(shapes.len())?;
        let length = shapes[shape].fields.len();
        Ok(match self.byte()? {
            0 => {
                let after = Some(self.state(length, None)?);
                RawChange { shape, op: Op::Create, before: None, after }
            }
            1 => {
                let before = self.state(length, None)?;
                let after = Some(self.state(length, Some(&before))?);
                RawChange { shape, op: Op::Update, before: Some(before), after }
            }
            2 => {
                let before = Some(self.state(length, None)?);
                RawChange { shape, op: Op::Delete, before, after: None }
            }
            _ => return Err(Damaged("an unknown operation")),
        })
    }

    fn state(&mut self, length: usize, before: Option<&[Value]>) -> Result<Vec<Value>, Damaged> {
        let mut values = Vec::with_capacity(length);
        for index in 0..length {
            values.push(match (self.byte()?, before) {
                (SAME, Some(before)) => before[index].clone(),
                (tag, _) => self.value(tag)?,
            });
        }
        Ok(values)
    }

    fn value(&mut self, tag: u8) -> Result<Value, Damaged> {
        Ok(match tag {
            NULL => Value::Null,
            FALSE => Value::Bool(false),
            TRUE => Value::Bool(true),
            INT => Value::Int(self.signed()?),
            FLOAT => {
                let mut number = [0; 8];
                number.copy_from_slice(self.take(8)?);
                Value::Float(f64::from_le_bytes(number))
            }
            TEXT => Value::Text(self.text()?.into()),
            UUID => Value::Uuid(self.uuid()?),
            TIME => Value::Time(self.signed()?),
            JSON => Value::Json(self.text()?.into()),
            BYTES => {
                let length = self.count()?;
                Value::Bytes(self.take(length)?.into())
            }
            _ => return Err(Damaged("an unknown kind of value")),
        })
    }

    fn text(&mut self) -> Result<&'a str, Damaged> {
        let length = self.count()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Damaged("a text is not UTF-8"))
    }

    fn notice(&mut self) -> Result<Logged, Damaged> {
        match self.byte()? {
            1 => {
                let version = self.unsigned()?;
                let length = self.count()?;
                let broken: Result<_, Damaged> =
                    (0..length).map(|_| self.id().map(SchemaId)).collect();
                Ok(Logged::Catalog { version, broken: broken? })
            }
            2 => {
                let user = self.uuid()?;
                let session = if self.byte()? == 0 { None } else { Some(self.uuid()?) };
                Ok(Logged::Session { user, session })
            }
            _ => Err(Damaged("an unknown notice")),
        }
    }
}

#[cfg(test)]
mod tests;
