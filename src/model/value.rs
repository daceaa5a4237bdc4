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

pub use super::types::FieldType;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::schema::tests::schema;

    fn column(ty: &str) -> Column {
        let mut column = schema(&[("id", "int"), ("x", ty)]).columns[1].clone();
        if ty == "enum" {
            column.enums = vec!["draft".into(), "done".into()];
        }
        column
    }

    /// `text` as JSON of a type, written again.
    fn written(ty: &str, text: &str) -> Result<String, String> {
        let json = json::parse(text.as_bytes()).map_err(|error| error.message)?;
        let value = Value::from_json(&json, &column(ty))?;
        let mut out = Vec::new();
        value.write_json(&mut out);
        Ok(String::from_utf8(out).expect("JSON is text"))
    }

    #[test]
    fn json_in_and_out() {
        for (ty, text, out) in [
            ("bool", "true", "true"),
            ("int64", "9007199254740993", "9007199254740993"),
            ("int64", "-9223372036854775808", "-9223372036854775808"),
            ("uint64", "9223372036854775807", "9223372036854775807"),
            ("int", "5.0", "5"),
            ("uint", "1e3", "1000"),
            ("float32", "0.1", "0.1"),
            ("float32", "16777217", "16777216"),
            ("float32", "1e-60", "0"),
            ("float64", "0.1", "0.1"),
            ("float64", "-0.0", "0"),
            ("float64", "5", "5"),
            ("float64", "1e300", "1e+300"),
            ("string", "\"a\\\"\\n\\u00e9\"", "\"a\\\"\\né\""),
            ("enum", "\"done\"", "\"done\""),
            (
                "uuid",
                "\"0190163D-8694-739B-AEA5-966C26F8AD91\"",
                "\"0190163d-8694-739b-aea5-966c26f8ad91\"",
            ),
            ("time", "\"2024-01-31 10:00:00\"", "\"2024-01-31T10:00:00Z\""),
            ("time", "\"2024-01-31T10:00:00.1204567+02:00\"", "\"2024-01-31T08:00:00.120456Z\""),
            ("json", "{\"b\": 1.0, \"a\": null}", "{\"a\":null,\"b\":1}"),
            ("json", "null", "null"),
            ("bytes", "\"/+8=\"", "\"/+8=\""),
            ("int8", "null", "null"),
        ] {
            assert_eq!(written(ty, text).as_deref(), Ok(out), "{ty} {text}");
        }
        assert_eq!(Value::from_json(&Json::Null, &column("json")), Ok(Value::Null));
    }

    #[test]
    fn refused_json() {
        for (ty, text, wrong) in [
            ("bool", "1", "expected true or false, got 1"),
            ("uint8", "256", "expected an integer from 0 to 255, got 256"),
            ("int", "5.5", "expected an integer of 64 bits, got 5.5"),
            // A float of this size may be any of several integers: none is guessed.
            ("int", "9007199254740993.0", "expected an integer of 64 bits, got 9007199254740992.0"),
            (
                "uint64",
                "9223372036854775808",
                "expected an integer from 0 to 9223372036854775807, got 9223372036854775808",
            ),
            ("float32", "1e39", "expected a number within float32, got 1e+39"),
            ("string", "5", "expected a string, got 5"),
            ("string", "\"\\u0000\"", "expected text without the character U+0000"),
            ("enum", "\"Done\"", "expected one of draft, done, got \"Done\""),
            ("bytes", "\"/+8\"", "expected standard base64 with padding, got \"/+8\""),
        ] {
            assert_eq!(written(ty, text), Err(wrong.to_owned()), "{ty} {text}");
        }
    }

    #[test]
    fn size_counts_characters_of_text_and_bytes_of_bytes() {
        let mut column = column("string");
        column.size = Some(3);
        let read = |text: &str| Value::from_json(&Json::from(text), &column);
        assert!(read("ééé").is_ok());
        assert_eq!(read("éééé"), Err("expected at most 3 characters, got 4".to_owned()));
        column.ty = FieldType::Bytes;
        let read = |text: &str| Value::from_json(&Json::from(text), &column);
        assert!(read("AAEC").is_ok());
        assert_eq!(read("AAECAw=="), Err("expected at most 3 bytes, got 4".to_owned()));
    }

    #[test]
    fn text_is_read_by_the_type() {
        for (ty, text, value) in [
            ("int", "10", Value::Int(10)),
            ("int", "9007199254740993", Value::Int(9_007_199_254_740_993)),
            ("int", "1e2", Value::Int(100)),
            ("float64", ".5", Value::Float(0.5)),
            ("bool", "true", Value::Bool(true)),
            ("string", "10", Value::Text("10".into())),
            ("json", "[1.0]", Value::Json("[1]".into())),
            ("json", "null", Value::Null),
        ] {
            assert_eq!(Value::from_text(text, &column(ty)), Ok(value), "{ty} {text}");
        }
        for (ty, text) in
            [("int", ""), ("int", "1.5"), ("float64", "inf"), ("bool", "1"), ("json", "x")]
        {
            assert!(Value::from_text(text, &column(ty)).is_err(), "{ty} {text}");
        }
    }

    #[test]
    fn every_type_has_its_name() {
        for (name, ty) in FieldType::NAMES {
            assert_eq!((FieldType::named(name), ty.name()), (Some(ty), name));
        }
        assert_eq!(FieldType::named("int"), Some(FieldType::Int64));
        assert_eq!(FieldType::named("relation"), None);
    }
}
