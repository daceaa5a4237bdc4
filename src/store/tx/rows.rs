//! Rows that change, and why SQLite did not take one.

use std::sync::Arc;

use rusqlite::params_from_iter;
use uuid::Uuid;

use crate::error::{Error, Kind, Result};
use crate::model::change::Row;
use crate::model::schema::{Schema, Shape, Slot};
use crate::model::value::Value;
use crate::nice;

use super::super::cell::Cell;
use super::super::fault::fault;
use super::super::refuse::{self, Constraint};
use super::{Desk, Tx};

/// The largest id that may be written where ids are automatic: they count on from the largest one
/// there ever was, and end at 2^63-1.
const MAX_GIVEN_ID: i64 = 1 << 62;

impl Tx<'_> {
    /// Inserts and notes it; `named` by the request or not.
    pub(super) fn insert_row(
        &mut self,
        schema: &Arc<Schema>,
        mut values: Vec<Value>,
        named: bool,
    ) -> Result<Arc<Row>> {
        nice::pause();
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
        self.spend(&values)?;
        let Desk { given, texts, .. } = self.desk;
        if counted {
            values[schema.primary] = Value::Int(given.next(self.connection, texts, schema)?);
        }
        let done = self
            .connection
            .prepare_cached(&texts.of(schema).insert)
            .and_then(|mut statement| statement.execute(params_from_iter(values.iter().map(Cell))));
        if let Err(error) = done {
            return Err(self.refused(schema, &values, error));
        }
        let row = Arc::new(Row::new(values));
        let key = row.get(schema.primary);
        given.came(schema, key);
        self.touched.step(schema, key, named, None, Some(row.clone()), &self.desk.limits)?;
        Ok(row)
    }

    pub(super) fn update_row(
        &mut self,
        schema: &Arc<Schema>,
        before: Arc<Row>,
        values: Vec<Value>,
        named: bool,
    ) -> Result<Arc<Row>> {
        nice::pause();
        self.spend(&values)?;
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

    pub(super) fn delete_row(
        &mut self,
        schema: &Arc<Schema>,
        row: Arc<Row>,
        named: bool,
    ) -> Result<()> {
        nice::pause();
        let key = row.get(schema.primary).clone();
        let Desk { given, texts, .. } = self.desk;
        given.goes(self.connection, texts, schema, &key)?;
        let done = self
            .connection
            .prepare_cached(&texts.of(schema).delete)
            .and_then(|mut statement| statement.execute([Cell(&key)]));
        if let Err(error) = done {
            return Err(match refuse::constraint(&error) {
                // Our own consequences are drawn: what still refers is no schema's any more.
                Some(Constraint::Foreign) => Error::new(
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

    pub(super) fn small_enough(&self, schema: &Schema, values: &[Value]) -> Result<()> {
        refuse::small_enough(schema, values, self.desk.limits.record_bytes)
    }

    /// Why SQLite did not take the row.
    fn refused(&self, schema: &Schema, values: &[Value], error: rusqlite::Error) -> Error {
        match refuse::constraint(&error) {
            Some(Constraint::Unique(columns)) => refuse::taken(schema, values, &columns),
            Some(Constraint::NotNull(column)) => {
                Error::bad(format!("{}: a value is required", refuse::known_as(schema, &column)))
            }
            Some(Constraint::Foreign) => {
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

pub(super) fn no_record(schema: &Schema, key: &Value) -> Error {
    let primary = &schema.primary_column().name;
    Error::not_found(format!("{}: no record with {primary} {}", schema.name, refuse::shown(key)))
}

pub(super) fn fits(schema: &Schema, values: &[Value]) -> Result<()> {
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
