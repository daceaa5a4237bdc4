//! Values of a record: the rules of comparison, NULL and text live here and nowhere else.
//!
//! What a value may be, how it is ordered and how it looks as JSON is fixed once in this file; the
//! evaluator, the SQL, the log and the encoders all go through it.

use std::cmp::Ordering;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value as Json;
use uuid::Uuid;

use super::schema::Column;
use super::{json, time};

/// One column's value. Which variant stands in which column is decided by [`FieldType`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
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
    /// Whether this is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Reads a JSON value as `column` takes it: type, range, enum words and `size`. `null` (for
    /// `json` columns the top-level one too) is NULL; whether NULL is allowed is the caller's to
    /// check. The error says what was expected and what came, without the field's name:
    /// `expected an integer from 0 to 255, got 300`.
    pub fn from_json(value: &Json, column: &Column) -> Result<Value, String> {
        Value::of_type(value, column.ty, &column.enums)?.sized(column)
    }

    /// As [`Value::from_json`], for text without types (CSV cells, scalars of a query string):
    /// `10` is a number in a number column and text in a text column. `json` columns take JSON.
    /// No text stands for NULL here, except a `json` column's `null`.
    pub fn from_text(text: &str, column: &Column) -> Result<Value, String> {
        Value::text_of_type(text, column.ty, &column.enums)?.sized(column)
    }

    /// [`Value::from_json`] without `size`: what a filter's literal must be.
    pub fn of_type(value: &Json, ty: FieldType, enums: &[Arc<str>]) -> Result<Value, String> {
        if value.is_null() {
            return Ok(Value::Null);
        }
        let wrong = || format!("expected {}, got {}", ty.expects(enums), json::brief(value));
        match (ty, value) {
            (FieldType::Json, value) => Ok(Value::Json(json::canonical(value).into())),
            (FieldType::Bool, Json::Bool(value)) => Ok(Value::Bool(*value)),
            (FieldType::Float32 | FieldType::Float64, Json::Number(number)) => {
                number.as_f64().and_then(|number| ty.float(number)).ok_or_else(wrong)
            }
            (_, Json::Number(number)) if ty.is_int() => {
                let integer = number.as_i64().or_else(|| number.as_f64().and_then(whole));
                integer.and_then(|integer| ty.int(integer)).ok_or_else(wrong)
            }
            (_, Json::String(text)) if ty.is_string_in_json() => ty.string(text, enums),
            _ => Err(wrong()),
        }
    }

    /// [`Value::from_text`] without `size`.
    pub fn text_of_type(text: &str, ty: FieldType, enums: &[Arc<str>]) -> Result<Value, String> {
        let wrong = || format!("expected {}, got \"{}\"", ty.expects(enums), json::cut(text));
        match ty {
            FieldType::Bool => match text {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => Err(wrong()),
            },
            FieldType::Json => {
                let parsed = json::parse(text.as_bytes()).map_err(|_| wrong())?;
                Value::of_type(&parsed, ty, enums)
            }
            FieldType::Float32 | FieldType::Float64 => {
                decimal(text).and_then(|number| ty.float(number)).ok_or_else(wrong)
            }
            _ if ty.is_int() => {
                let integer = text.parse().ok().or_else(|| decimal(text).and_then(whole));
                integer.and_then(|integer| ty.int(integer)).ok_or_else(wrong)
            }
            _ => ty.string(text, enums),
        }
    }

    fn sized(self, column: &Column) -> Result<Value, String> {
        let Some(size) = column.size else {
            return Ok(self);
        };
        let (length, unit) = match &self {
            Value::Text(text) if column.ty != FieldType::Enum => {
                // A string has no more characters than bytes: count only where it matters.
                let fits = text.len() as u64 <= size;
                (if fits { 0 } else { text.chars().count() }, "characters")
            }
            Value::Bytes(bytes) => (bytes.len(), "bytes"),
            _ => (0, ""),
        };
        if length as u64 > size {
            return Err(format!("expected at most {size} {unit}, got {length}"));
        }
        Ok(self)
    }

    /// Appends the value as JSON (see the table in [`FieldType`]).
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Value::Null => out.extend_from_slice(b"null"),
            Value::Bool(true) => out.extend_from_slice(b"true"),
            Value::Bool(false) => out.extend_from_slice(b"false"),
            Value::Int(number) => json::write_int(*number, out),
            Value::Float(number) => json::write_float(*number, out),
            Value::Text(text) => json::write_string(text, out),
            Value::Uuid(id) => {
                out.push(b'"');
                let mut buffer = Uuid::encode_buffer();
                out.extend_from_slice(id.as_hyphenated().encode_lower(&mut buffer).as_bytes());
                out.push(b'"');
            }
            Value::Time(micros) => {
                out.push(b'"');
                time::write(*micros, out);
                out.push(b'"');
            }
            Value::Json(text) => out.extend_from_slice(text.as_bytes()),
            Value::Bytes(bytes) => {
                out.push(b'"');
                out.extend_from_slice(BASE64.encode(bytes).as_bytes());
                out.push(b'"');
            }
        }
    }

    /// The value as JSON. Whole floats become integers, as in [`Value::write_json`].
    pub fn to_json(&self) -> Json {
        match self {
            Value::Text(text) => Json::String(text.to_string()),
            other => {
                let mut text = Vec::new();
                other.write_json(&mut text);
                serde_json::from_slice(&text).unwrap_or_default()
            }
        }
    }

    /// Order within one type. `None` where either is NULL, where the types differ and for `json`
    /// and `bytes` that differ: a comparison of those is UNKNOWN.
    pub fn compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
            (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
            (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
            (Value::Time(a), Value::Time(b)) => Some(a.cmp(b)),
            (Value::Uuid(a), Value::Uuid(b)) => Some(a.cmp(b)),
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Value::Json(a), Value::Json(b)) => (a == b).then_some(Ordering::Equal),
            (Value::Bytes(a), Value::Bytes(b)) => (a == b).then_some(Ordering::Equal),
            _ => None,
        }
    }

    /// The order lists are sorted in: NULL first, then by [`Value::compare`].
    pub fn sort_order(&self, other: &Value) -> Ordering {
        match (self.is_null(), other.is_null()) {
            (false, false) => self.compare(other).unwrap_or(Ordering::Equal),
            (a, b) => b.cmp(&a),
        }
    }

    /// Bytes this value takes in memory beside its own place, for budgets.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Value::Text(text) | Value::Json(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

/// A whole number of a float's precision: beyond 2^53 a float may stand for several integers, and
/// none is guessed.
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0).then_some(number as i64)
}

/// A decimal number as JSON writes it, `+` and a bare point allowed; no `inf`, no `nan`.
fn decimal(text: &str) -> Option<f64> {
    let plain =
        |byte: u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    if !text.bytes().all(plain) {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// The type of a column.
///
/// | type | JSON |
/// | --- | --- |
/// | `Bool` | `true`, `false` |
/// | integers | number within the width, exact; `Uint64` ends at 2^63-1 |
/// | `Float32`, `Float64` | number; whole ones are written without a fraction |
/// | `String`, `Text` | string without U+0000 |
/// | `Enum` | string, one of the column's words |
/// | `Uuid` | string; any case in, lower case with hyphens out |
/// | `Time` | string; see [`time`] |
/// | `Json` | any value but a top-level `null`, which is NULL |
/// | `Bytes` | standard base64 with padding |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
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

impl FieldType {
    /// Every type, each with its name in a schema file. `int` and `uint` are also read.
    pub const NAMES: [(&'static str, FieldType); 18] = [
        ("bool", FieldType::Bool),
        ("int8", FieldType::Int8),
        ("int16", FieldType::Int16),
        ("int32", FieldType::Int32),
        ("int64", FieldType::Int64),
        ("uint8", FieldType::Uint8),
        ("uint16", FieldType::Uint16),
        ("uint32", FieldType::Uint32),
        ("uint64", FieldType::Uint64),
        ("float32", FieldType::Float32),
        ("float64", FieldType::Float64),
        ("string", FieldType::String),
        ("text", FieldType::Text),
        ("enum", FieldType::Enum),
        ("uuid", FieldType::Uuid),
        ("time", FieldType::Time),
        ("json", FieldType::Json),
        ("bytes", FieldType::Bytes),
    ];

    /// The type of that name in a schema file.
    pub fn named(name: &str) -> Option<FieldType> {
        match name {
            "int" => Some(FieldType::Int64),
            "uint" => Some(FieldType::Uint64),
            _ => Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, ty)| *ty),
        }
    }

    /// The type's name in a schema file.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, ty)| *ty == self).map_or("", |(name, _)| name)
    }

    /// Any integer type.
    pub fn is_int(self) -> bool {
        self.int_range().is_some()
    }

    /// Integers and floats.
    pub fn is_number(self) -> bool {
        self.is_int() || matches!(self, FieldType::Float32 | FieldType::Float64)
    }

    /// `string`, `text` and `enum`: types that LIKE and substrings work on.
    pub fn is_text(self) -> bool {
        matches!(self, FieldType::String | FieldType::Text | FieldType::Enum)
    }

    /// Whether `$gt` and its like, and sorting, work on this type.
    pub fn is_ordered(self) -> bool {
        !matches!(self, FieldType::Json | FieldType::Bytes)
    }

    /// Smallest and largest value of an integer type.
    pub fn int_range(self) -> Option<(i64, i64)> {
        Some(match self {
            FieldType::Int8 => (i8::MIN.into(), i8::MAX.into()),
            FieldType::Int16 => (i16::MIN.into(), i16::MAX.into()),
            FieldType::Int32 => (i32::MIN.into(), i32::MAX.into()),
            FieldType::Int64 => (i64::MIN, i64::MAX),
            FieldType::Uint8 => (0, u8::MAX.into()),
            FieldType::Uint16 => (0, u16::MAX.into()),
            FieldType::Uint32 => (0, u32::MAX.into()),
            FieldType::Uint64 => (0, i64::MAX),
            _ => return None,
        })
    }

    /// An integer of this type, `None` where it does not fit.
    pub fn int(self, number: i64) -> Option<Value> {
        let (least, most) = self.int_range()?;
        (least..=most).contains(&number).then_some(Value::Int(number))
    }

    /// A float of this type, `None` where it is NaN, infinite or beyond the type.
    pub fn float(self, number: f64) -> Option<Value> {
        let number = match self {
            FieldType::Float32 => {
                let narrow = number as f32;
                // The shortest decimal of the f32, read as f64 (see `Value::Float`).
                if narrow.is_finite() { narrow.to_string().parse().ok()? } else { f64::NAN }
            }
            _ => number,
        };
        // Adding zero turns -0.0 into 0.0 and changes nothing else.
        number.is_finite().then_some(Value::Float(number + 0.0))
    }

    fn is_string_in_json(self) -> bool {
        !self.is_number() && !matches!(self, FieldType::Bool | FieldType::Json)
    }

    /// A value of a type whose JSON form is a string.
    fn string(self, text: &str, enums: &[Arc<str>]) -> Result<Value, String> {
        let wrong = || format!("expected {}, got \"{}\"", self.expects(enums), json::cut(text));
        match self {
            FieldType::String | FieldType::Text if text.contains('\0') => {
                Err("expected text without the character U+0000".to_owned())
            }
            FieldType::String | FieldType::Text => Ok(Value::Text(text.into())),
            FieldType::Enum => enums
                .iter()
                .find(|word| &***word == text)
                .map(|word| Value::Text(word.clone()))
                .ok_or_else(wrong),
            FieldType::Uuid => {
                // The parser takes other forms too (no hyphens, braces, urn:); one is enough.
                let parsed = (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten();
                parsed.map(Value::Uuid).ok_or_else(wrong)
            }
            FieldType::Time => time::parse(text).map(Value::Time).ok_or_else(wrong),
            FieldType::Bytes => {
                BASE64.decode(text).map(|bytes| Value::Bytes(bytes.into())).map_err(|_| wrong())
            }
            _ => Err(wrong()),
        }
    }

    /// What a value of this type is, for error messages: `an integer from 0 to 255`.
    pub fn expects(self, enums: &[Arc<str>]) -> String {
        match self {
            FieldType::Bool => "true or false".to_owned(),
            FieldType::Float32 => "a number within float32".to_owned(),
            FieldType::Float64 => "a number".to_owned(),
            FieldType::String | FieldType::Text => "a string".to_owned(),
            FieldType::Enum => {
                // Some enums hold hundreds of words; a message that long helps nobody.
                let mut shown: Vec<&str> = enums.iter().take(20).map(|word| &**word).collect();
                if enums.len() > shown.len() {
                    shown.push("…");
                }
                format!("one of {}", shown.join(", "))
            }
            FieldType::Uuid => "a UUID such as 0190163d-8694-739b-aea5-966c26f8ad91".to_owned(),
            FieldType::Time => "a time such as 2024-01-31T10:00:00Z or 2024-01-31".to_owned(),
            FieldType::Json => "JSON".to_owned(),
            FieldType::Bytes => "standard base64 with padding".to_owned(),
            FieldType::Int64 => "an integer of 64 bits".to_owned(),
            _ => {
                let (least, most) = self.int_range().unwrap_or_default();
                format!("an integer from {least} to {most}")
            }
        }
    }
}
