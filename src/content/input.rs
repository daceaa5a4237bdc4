//! A request's body → what is to be written to which column and relation.
//!
//! Everything that needs no record is checked here: names, operators, types, conflicts. What an
//! old state is needed for (`$add`, `$expr`) is kept and worked out in [`Input::values`]
//! (`content/state.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::error::{Error, Result, clip};
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::schema::{FieldRef, Relation, Schema, Shape, Slot};
use crate::model::types::FieldType;
use crate::model::value::Value;

use super::expr::Expr;

/// What a body is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Create,
    Update,
}

/// What a principal may know of the schema that is written.
pub struct Scope<'a> {
    pub catalog: &'a Catalog,
    pub schema: &'a Schema,
    pub limits: &'a Limits,
    pub mode: Mode,
    /// May name the field at all: others are answered like unknown ones.
    pub known: &'a dyn Fn(FieldRef) -> bool,
    /// May read it: what `$add` on numbers and `$expr` start from.
    pub readable: &'a dyn Fn(FieldRef) -> bool,
}

/// What is to be written, checked against the schema.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// Own columns and keys of to-one relations.
    pub columns: BTreeMap<Slot, ColumnWrite>,
    /// Relations whose keys lie elsewhere, by index.
    pub relations: BTreeMap<usize, RelationWrite>,
    /// The primary key, where an update's body repeats it: it must be the record's own.
    pub same: Option<Value>,
}

/// What happens to one column.
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnWrite {
    Set(Value),
    /// `$add` on a number.
    Add(Value),
    Expr(Expr),
    /// A to-one key, emptied if it holds one of these.
    Unset(Vec<Value>),
}

/// What happens to a relation: first `clear`, then `add`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RelationWrite {
    pub clear: Clear,
    /// Primary keys of the related schema, each once.
    pub add: Vec<Value>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Clear {
    #[default]
    Nothing,
    All,
    These(Vec<Value>),
}

/// Which operators a relation was given.
#[derive(Default)]
struct Draft {
    write: RelationWrite,
    set: bool,
    cleared: bool,
    added: bool,
}

/// Reads a body.
///
/// # Errors
/// 400 naming the field and what would be right.
pub fn parse(scope: &Scope<'_>, body: &Map<String, Json>) -> Result<Input> {
    let mut reader = Reader { scope, input: Input::default(), drafts: BTreeMap::new() };
    for (key, value) in body {
        match key.as_str() {
            "$set" => reader.each("$set", value, Reader::set)?,
            "$add" => reader.each("$add", value, Reader::add)?,
            "$expr" => reader.each("$expr", value, Reader::expr)?,
            "$clear" => reader.clear_block(value)?,
            _ if key.starts_with('$') => {
                return Err(Error::bad(format!(
                    "unknown operator '{}'; use $set, $clear, $add, $expr",
                    clip(key)
                )));
            }
            _ => reader.set(key, value)?,
        }
    }
    reader.finish()
}

/// What a rule's `set` writes.
///
/// # Errors
/// 500: the rule was checked when its schema was applied.
pub fn from_rule(
    catalog: &Catalog,
    schema: &Schema,
    limits: &Limits,
    set: &[(FieldRef, Json)],
) -> Result<Input> {
    let scope = Scope {
        catalog,
        schema,
        limits,
        mode: Mode::Create,
        known: &|_| true,
        readable: &|_| true,
    };
    let mut reader = Reader { scope: &scope, input: Input::default(), drafts: BTreeMap::new() };
    for (field, value) in set {
        let name = match *field {
            FieldRef::Column(slot) => schema.columns[slot].name.clone(),
            FieldRef::Relation(index) => schema.relations[index].name.clone(),
        };
        reader.set(&name, value).map_err(Error::internal)?;
    }
    reader.finish().map_err(Error::internal)
}

struct Reader<'a> {
    scope: &'a Scope<'a>,
    input: Input,
    drafts: BTreeMap<usize, Draft>,
}

pub(super) fn wrong(name: &str, why: impl std::fmt::Display) -> Error {
    Error::bad(format!("{}: {why}", clip(name)))
}

/// For fields that are not there and for hidden ones.
pub(super) fn unknown(name: &str) -> Error {
    Error::bad(format!("unknown field '{}'", clip(name)))
}

fn twice(name: &str) -> Error {
    wrong(name, "is written twice; use one operator a field")
}

impl Reader<'_> {
    /// The column or relation of that name; hidden ones are as unknown.
    fn field(&self, name: &str) -> Result<FieldRef> {
        let field = self.scope.schema.field(name).filter(|field| (self.scope.known)(*field));
        field.ok_or_else(|| unknown(name))
    }

    fn each(
        &mut self,
        operator: &str,
        value: &Json,
        one: fn(&mut Self, &str, &Json) -> Result<()>,
    ) -> Result<()> {
        let Json::Object(fields) = value else {
            return Err(wrong(operator, "expected an object of fields"));
        };
        fields.iter().try_for_each(|(name, value)| one(self, name, value))
    }

    /// `"$clear": ["a","b"]`, or FastSchema's `{"a": true, "tags": [{"id": 1}]}`.
    fn clear_block(&mut self, value: &Json) -> Result<()> {
        match value {
            Json::Array(names) => names.iter().try_for_each(|name| match name {
                Json::String(name) => self.clear(name, &Json::Bool(true)),
                _ => Err(wrong("$clear", "expected a list of field names")),
            }),
            Json::Object(_) => self.each("$clear", value, Reader::clear),
            _ => Err(wrong("$clear", "expected a list of field names")),
        }
    }

    fn update_only(&self, name: &str, operator: &str) -> Result<()> {
        match self.scope.mode {
            Mode::Update => Ok(()),
            Mode::Create => Err(wrong(name, format_args!("{operator} is for updates only"))),
        }
    }

    fn set(&mut self, name: &str, value: &Json) -> Result<()> {
        match self.field(name)? {
            FieldRef::Column(slot) => {
                let column = &self.scope.schema.columns[slot];
                if let Some(index) = column.key_of {
                    if value.is_object() {
                        return Err(wrong(name, "expected a key, not an object"));
                    }
                    return self.set_relation(name, index, value);
                }
                let value = Value::from_json(value, column).map_err(|why| wrong(name, why))?;
                if slot == self.scope.schema.primary && self.scope.mode == Mode::Update {
                    if self.input.same.replace(value).is_some() {
                        return Err(twice(name));
                    }
                    return Ok(());
                }
                self.writable(name, slot)?;
                if value.is_null() && !column.optional {
                    return Err(wrong(name, "is required and cannot be null"));
                }
                self.write(name, slot, ColumnWrite::Set(value))
            }
            FieldRef::Relation(index) => {
                // An object whose keys are operators, else the related record or records.
                match value.as_object() {
                    Some(object) if object.keys().any(|key| key.starts_with('$')) => {
                        self.nested(name, index, object)
                    }
                    _ => self.set_relation(name, index, value),
                }
            }
        }
    }

    /// Columns the server fills in.
    fn writable(&self, name: &str, slot: Slot) -> Result<()> {
        let schema = self.scope.schema;
        if schema.columns[slot].automatic {
            return Err(wrong(name, "is given by the server"));
        }
        if slot == schema.primary && self.scope.mode == Mode::Update {
            return Err(wrong(name, "is the primary key, which never changes"));
        }
        // Otherwise timestamps may be written by those whom a rule lets (and by admins), as an
        // import does.
        if schema.updated_at == Some(slot) && self.scope.mode == Mode::Update {
            return Err(wrong(name, "is set by the server with every update"));
        }
        Ok(())
    }

    fn write(&mut self, name: &str, slot: Slot, write: ColumnWrite) -> Result<()> {
        match self.input.columns.insert(slot, write) {
            None => Ok(()),
            Some(_) => Err(twice(name)),
        }
    }

    fn nested(&mut self, name: &str, index: usize, operators: &Map<String, Json>) -> Result<()> {
        for (operator, value) in operators {
            match operator.as_str() {
                "$set" => self.set_relation(name, index, value)?,
                "$add" => self.add_related(name, index, value)?,
                "$clear" => self.clear_related(name, index, value)?,
                _ => {
                    return Err(wrong(
                        name,
                        format_args!("unknown key '{}'; use $set, $add, $clear", clip(operator)),
                    ));
                }
            }
        }
        Ok(())
    }

    fn set_relation(&mut self, name: &str, index: usize, value: &Json) -> Result<()> {
        let add = match value {
            Json::Null => Vec::new(),
            value => self.keys(name, index, value, false)?,
        };
        let draft = self.drafts.entry(index).or_default();
        if draft.set || draft.cleared || draft.added {
            return Err(twice(name));
        }
        draft.set = true;
        draft.write = RelationWrite { clear: Clear::All, add };
        Ok(())
    }

    fn add_related(&mut self, name: &str, index: usize, value: &Json) -> Result<()> {
        let add = self.keys(name, index, value, true)?;
        let draft = self.drafts.entry(index).or_default();
        if draft.set || draft.added {
            return Err(twice(name));
        }
        draft.added = true;
        draft.write.add = add;
        Ok(())
    }

    fn clear_related(&mut self, name: &str, index: usize, value: &Json) -> Result<()> {
        self.update_only(name, "$clear")?;
        let clear = match value {
            Json::Bool(true) => Clear::All,
            // Of a to-one relation too: `one of these, if it is`.
            Json::Array(values) => {
                let keys = values.iter().map(|value| self.key(name, index, value));
                Clear::These(keys.collect::<Result<_>>()?)
            }
            Json::Bool(false) => return Err(wrong(name, "$clear takes true or a list")),
            value => Clear::These(self.keys(name, index, value, true)?),
        };
        let draft = self.drafts.entry(index).or_default();
        if draft.set || draft.cleared {
            return Err(twice(name));
        }
        draft.cleared = true;
        draft.write.clear = clear;
        Ok(())
    }

    fn add(&mut self, name: &str, value: &Json) -> Result<()> {
        let schema = self.scope.schema;
        let slot = match self.field(name)? {
            FieldRef::Relation(index) => return self.add_related(name, index, value),
            FieldRef::Column(slot) => slot,
        };
        self.update_only(name, "$add")?;
        let column = &schema.columns[slot];
        if column.key_of.is_some() || !column.ty.is_number() {
            return Err(wrong(
                name,
                format_args!("$add works on numbers and relations, not on {}", column.ty.name()),
            ));
        }
        self.writable(name, slot)?;
        self.starts_from(name, slot)?;
        // Not the field's own type: what is added to a small or unsigned integer may be negative.
        let (ty, expected) = if column.ty.is_int() {
            (FieldType::Int64, "an integer")
        } else {
            (FieldType::Float64, "a number")
        };
        let number = Value::of_type(value, ty, &[]).ok().filter(|number| !number.is_null());
        let number = number.ok_or_else(|| wrong(name, format_args!("$add takes {expected}")))?;
        self.write(name, slot, ColumnWrite::Add(number))
    }

    /// `$add` and `$expr` show what they start from, by their result or by overflowing.
    fn starts_from(&self, name: &str, slot: Slot) -> Result<()> {
        match (self.scope.readable)(FieldRef::Column(slot)) {
            true => Ok(()),
            false => Err(unknown(name)),
        }
    }

    fn expr(&mut self, name: &str, value: &Json) -> Result<()> {
        let schema = self.scope.schema;
        let FieldRef::Column(slot) = self.field(name)? else {
            return Err(wrong(name, "$expr computes own fields, not relations"));
        };
        self.update_only(name, "$expr")?;
        self.writable(name, slot)?;
        let Json::String(text) = value else {
            return Err(wrong(name, "$expr takes a string, such as \"views + 1\""));
        };
        let readable = |slot| (self.scope.readable)(FieldRef::Column(slot));
        let expr = Expr::compile(text, self.scope.limits.expr_bytes, schema, slot, readable)
            .map_err(|why| wrong(name, why))?;
        self.write(name, slot, ColumnWrite::Expr(expr))
    }

    fn clear(&mut self, name: &str, value: &Json) -> Result<()> {
        let schema = self.scope.schema;
        let slot = match self.field(name)? {
            FieldRef::Relation(index) => return self.clear_related(name, index, value),
            FieldRef::Column(slot) => slot,
        };
        if *value != Json::Bool(true) {
            return Err(wrong(name, "$clear takes true"));
        }
        if let Some(index) = schema.columns[slot].key_of {
            return self.clear_related(name, index, value);
        }
        self.update_only(name, "$clear")?;
        self.writable(name, slot)?;
        if !schema.columns[slot].optional {
            return Err(wrong(name, "is required and cannot be emptied"));
        }
        self.write(name, slot, ColumnWrite::Set(Value::Null))
    }

    /// Primary keys of related records: `{"id":1}`, the bare key, or for to-many relations an
    /// array of either (`single`: one without its array will do).
    fn keys(&self, name: &str, index: usize, value: &Json, single: bool) -> Result<Vec<Value>> {
        let relation = &self.scope.schema.relations[index];
        let mut keys = match value {
            Json::Array(values) if relation.to_many() => {
                let keys = values.iter().map(|value| self.key(name, index, value));
                keys.collect::<Result<Vec<_>>>()?
            }
            Json::Array(_) => {
                return Err(wrong(name, "expected one related record, not an array"));
            }
            value if relation.to_many() && !single => {
                self.key(name, index, value)?;
                return Err(wrong(name, "expected an array of related records"));
            }
            value => vec![self.key(name, index, value)?],
        };
        let mut seen = std::collections::HashSet::new();
        keys.retain(|key| crate::model::related::Key::of(key).is_none_or(|key| seen.insert(key)));
        Ok(keys)
    }

    fn key(&self, name: &str, index: usize, value: &Json) -> Result<Value> {
        let relation = &self.scope.schema.relations[index];
        let target = self.scope.catalog.get(relation.target);
        let target = target.ok_or_else(|| Error::internal("a relation without a target"))?;
        related_key(target, value).map_err(|why| wrong(name, why))
    }

    fn finish(mut self) -> Result<Input> {
        for (index, draft) in std::mem::take(&mut self.drafts) {
            let relation = &self.scope.schema.relations[index];
            let Shape::Key { slot } = relation.shape else {
                let mut write = draft.write;
                if !relation.to_many() && !write.add.is_empty() {
                    write.clear = Clear::All;
                }
                self.input.relations.insert(index, write);
                continue;
            };
            let write = match (draft.write.clear, draft.write.add.into_iter().next()) {
                (_, Some(key)) => ColumnWrite::Set(key),
                (Clear::These(keys), None) => ColumnWrite::Unset(keys),
                (_, None) => ColumnWrite::Set(Value::Null),
            };
            let emptied = !matches!(write, ColumnWrite::Set(ref value) if !value.is_null());
            if emptied && !self.scope.schema.columns[slot].optional {
                return Err(required_relation(relation));
            }
            self.input.columns.insert(slot, write);
        }
        Ok(self.input)
    }
}

/// A required relation cannot be emptied.
pub fn required_relation(relation: &Relation) -> Error {
    wrong(&relation.name, "is required and cannot be emptied")
}

fn related_key(target: &Schema, value: &Json) -> Result<Value, String> {
    let column = target.primary_column();
    let name = &column.name;
    let key = match value {
        Json::Object(object) => match (object.len(), object.get(&**name)) {
            (1, Some(key)) => key,
            (_, None) => return Err(format!("expected {{\"{name}\": …}}")),
            _ => {
                return Err(format!(
                    "takes '{name}' of related records and nothing else; write their fields at \
                     their own endpoint"
                ));
            }
        },
        value => value,
    };
    match Value::from_json(key, column)? {
        Value::Null => Err(format!("{name} of a related record cannot be null")),
        key => Ok(key),
    }
}

/// For messages: a field's name, the relation's for a key column.
pub fn field_name(schema: &Schema, field: FieldRef) -> Arc<str> {
    match field {
        FieldRef::Column(slot) => match schema.columns[slot].key_of {
            Some(index) => schema.relations[index].name.clone(),
            None => schema.columns[slot].name.clone(),
        },
        FieldRef::Relation(index) => schema.relations[index].name.clone(),
    }
}
