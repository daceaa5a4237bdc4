//! Types of columns: their names, ranges and what a value of each is.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use uuid::Uuid;

use super::value::Value;
use super::{json, time};

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

    pub(super) fn is_string_in_json(self) -> bool {
        !self.is_number() && !matches!(self, FieldType::Bool | FieldType::Json)
    }

    /// A value of a type whose JSON form is a string.
    pub(super) fn string(self, text: &str, enums: &[Arc<str>]) -> Result<Value, String> {
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
