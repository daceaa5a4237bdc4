//! Values of a record: the rules of comparison, NULL and text live here and nowhere else.
//!
//! What a value may be, how it is ordered and how it looks as JSON is fixed once in this file; the
//! evaluator, the SQL, the log and the encoders all go through it.

use std::sync::Arc;

use uuid::Uuid;

/// One column's value. Which variant stands in which column is decided by [`FieldType`].
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    /// Every integer type; `uint64` ends at 2^63-1.
    Int(i64),
    /// `float32` values are kept as the f64 nearest to the shortest decimal of the f32, so that
    /// they print as they were written and compare as f32s do. Never NaN, infinite or -0.0.
    Float(f64),
    /// `string`, `text` and `enum`. Ordered by Unicode code point, which is UTF-8's byte order.
    Text(Arc<str>),
    Uuid(Uuid),
    /// Microseconds since 1970-01-01T00:00:00Z, years 0001 to 9999.
    Time(i64),
    /// Canonical JSON text: sorted keys, exact 64-bit integers, other numbers as shortest f64.
    Json(Arc<str>),
    Bytes(Arc<[u8]>),
}

impl Value {
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldType {
    Bool,
    Int8,
    Int16,
    Int32,
    /// `int` is 64 bits wide, as in FastSchema.
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Float32,
    Float64,
    String,
    Text,
    Enum,
    Uuid,
    Time,
    Json,
    Bytes,
}
