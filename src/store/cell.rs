//! Values ↔ SQLite's cells.
//!
//! Bool INTEGER 0/1; integers INTEGER; floats REAL; string, text, enum and json TEXT; uuid BLOB of
//! 16 bytes; time INTEGER microseconds; bytes BLOB.

use std::sync::Arc;

use rusqlite::Result;
use rusqlite::types::{FromSqlError, ToSql, ToSqlOutput, Value as Owned, ValueRef};
use uuid::Uuid;

use crate::model::change::Row;
use crate::model::schema::Schema;
use crate::model::value::{FieldType, Value};

/// A value on its way into a statement.
pub(crate) struct Cell<'a>(pub(crate) &'a Value);

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        let borrowed = |value| Ok(ToSqlOutput::Borrowed(value));
        match self.0 {
            Value::Null => borrowed(ValueRef::Null),
            Value::Bool(flag) => borrowed(ValueRef::Integer(i64::from(*flag))),
            Value::Int(number) | Value::Time(number) => borrowed(ValueRef::Integer(*number)),
            Value::Float(number) => Ok(ToSqlOutput::Owned(Owned::Real(*number))),
            Value::Text(text) | Value::Json(text) => borrowed(ValueRef::Text(text.as_bytes())),
            Value::Uuid(id) => borrowed(ValueRef::Blob(id.as_bytes())),
            Value::Bytes(bytes) => borrowed(ValueRef::Blob(bytes)),
        }
    }
}

/// The value of a column of type `ty`.
pub(crate) fn value(cell: ValueRef<'_>, ty: FieldType) -> Result<Value, FromSqlError> {
    let text = |bytes| {
        std::str::from_utf8(bytes).map(Arc::from).map_err(|error| FromSqlError::Other(error.into()))
    };
    Ok(match (cell, ty) {
        (ValueRef::Null, _) => Value::Null,
        (ValueRef::Integer(flag), FieldType::Bool) => Value::Bool(flag != 0),
        (ValueRef::Integer(micros), FieldType::Time) => Value::Time(micros),
        (ValueRef::Integer(number), _) if ty.is_int() => Value::Int(number),
        (ValueRef::Real(number), FieldType::Float32 | FieldType::Float64) => Value::Float(number),
        (ValueRef::Text(bytes), FieldType::Json) => Value::Json(text(bytes)?),
        (ValueRef::Text(bytes), _) if ty.is_text() => Value::Text(text(bytes)?),
        (ValueRef::Blob(bytes), FieldType::Uuid) => {
            Value::Uuid(Uuid::from_slice(bytes).map_err(|error| FromSqlError::Other(error.into()))?)
        }
        (ValueRef::Blob(bytes), FieldType::Bytes) => Value::Bytes(bytes.into()),
        _ => return Err(FromSqlError::InvalidType),
    })
}

/// The record whose columns stand in `row` from column `from` on.
pub(crate) fn record(row: &rusqlite::Row<'_>, from: usize, schema: &Schema) -> Result<Row> {
    let mut values = Vec::with_capacity(schema.columns.len());
    for (slot, column) in schema.columns.iter().enumerate() {
        let cell = row.get_ref(from + slot)?;
        values.push(value(cell, column.ty).map_err(|error| {
            let what = format!("`{}`.`{}`: {error}", schema.table, column.name);
            rusqlite::Error::FromSqlConversionFailure(from + slot, cell.data_type(), what.into())
        })?);
    }
    Ok(Row::new(values))
}
