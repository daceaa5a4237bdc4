//! One column: what becomes of its values when its type changes.

use crate::model::schema::{Column, Default};
use crate::model::value::FieldType;
use crate::store::ddl::{literal, storage};

/// What becomes of a column's values. `{c}` in the texts stands for the column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Conversion {
    /// Every value stays as it is.
    Same,
    /// Every value has its like in the new type.
    Exact { convert: String },
    /// Values for which `fits` is true have their like, the others are lost.
    Partial { fits: String, convert: String },
    /// No value has.
    Lost,
}

/// The largest integer below which every integer is an f64 (f32).
const F64_EXACT: i64 = 1 << 53;
const F32_EXACT: i64 = 1 << 24;

pub(super) fn conversion(old: &Column, new: &Column) -> Conversion {
    let by_type = by_type(old, new);
    let Some(size) = new.size.filter(|size| old.size.is_none_or(|was| was > *size)) else {
        return by_type;
    };
    // Values of both types that have a size are as long in either.
    let short = format!("length({{c}}) <= {size}");
    match by_type {
        Conversion::Same if old.ty == FieldType::Enum => {
            let longest = old.enums.iter().map(|word| word.chars().count()).max().unwrap_or(0);
            if longest as u64 <= size {
                Conversion::Same
            } else {
                Conversion::Partial { fits: short, convert: "{c}".into() }
            }
        }
        Conversion::Same => Conversion::Partial { fits: short, convert: "{c}".into() },
        other => other,
    }
}

fn by_type(old: &Column, new: &Column) -> Conversion {
    use FieldType::{Enum, Float32, Float64, String, Text};
    if old.ty == new.ty {
        return Conversion::Same;
    }
    let partial = |fits: std::string::String, convert: &str| Conversion::Partial {
        fits,
        convert: convert.to_owned(),
    };
    match (old.ty.int_range(), new.ty.int_range()) {
        (Some((old_least, old_most)), Some((least, most))) => {
            if least <= old_least && old_most <= most {
                return Conversion::Same;
            }
            return partial(format!("{{c}} BETWEEN {least} AND {most}"), "{c}");
        }
        (Some((least, most)), None) if matches!(new.ty, Float32 | Float64) => {
            let exact = if new.ty == Float32 { F32_EXACT } else { F64_EXACT };
            let convert = "CAST({c} AS REAL)";
            return if -exact <= least && most <= exact {
                Conversion::Exact { convert: convert.to_owned() }
            } else {
                partial(format!("{{c}} BETWEEN {} AND {exact}", -exact), convert)
            };
        }
        (None, Some((least, most))) if matches!(old.ty, Float32 | Float64) => {
            // Beyond 2^53 a float may stand for a neighbour; and CAST cuts at the ends of i64.
            let (least, most) = (least.max(-F64_EXACT), most.min(F64_EXACT));
            let fits = format!(
                "{{c}} BETWEEN {least} AND {most} AND {{c}} = CAST(CAST({{c}} AS INTEGER) AS REAL)"
            );
            return partial(fits, "CAST({c} AS INTEGER)");
        }
        _ => {}
    }
    match (old.ty, new.ty) {
        (Float32, Float64) | (String | Text | Enum, String | Text) => Conversion::Same,
        (String | Text, Enum) => partial(is_word(new), "{c}"),
        _ => Conversion::Lost,
    }
}

fn is_word(column: &Column) -> String {
    format!("{{c}} IN ({})", words(column.enums.iter().map(|word| &**word)))
}

/// Words of an enum as an SQL list.
pub(super) fn words<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<String> =
        words.map(|word| literal(&crate::model::value::Value::Text(word.into()))).collect();
    words.join(", ")
}

impl Conversion {
    /// The condition under which a value is lost; `None` where none is.
    pub fn lost_where(&self) -> Option<String> {
        match self {
            Conversion::Same | Conversion::Exact { .. } => None,
            Conversion::Partial { fits, .. } => Some(format!("{{c}} IS NOT NULL AND NOT ({fits})")),
            Conversion::Lost => Some("{c} IS NOT NULL".to_owned()),
        }
    }

    /// Whether the stored form changes.
    pub fn moves(&self, old: &Column, new: &Column) -> bool {
        *self == Conversion::Lost || storage(old.ty) != storage(new.ty)
    }

    /// The new value of a row: `null` for NULL, `lost` for what cannot be kept.
    pub fn expression(&self, null: &str, lost: &str) -> String {
        let null = format!("WHEN {{c}} IS NULL THEN {null}");
        match self {
            Conversion::Same => format!("CASE {null} ELSE {{c}} END"),
            Conversion::Exact { convert } => format!("CASE {null} ELSE {convert} END"),
            Conversion::Partial { fits, convert } => {
                format!("CASE {null} WHEN {fits} THEN {convert} ELSE {lost} END")
            }
            Conversion::Lost => format!("CASE {null} ELSE {lost} END"),
        }
    }
}

/// What stands where a value is lost: the default, else NULL. `None` where the column can hold
/// neither.
pub(super) fn replacement(new: &Column) -> Option<String> {
    match &new.default {
        Some(Default::Value(value)) => Some(literal(value)),
        Some(Default::Now) => Some(":now".to_owned()),
        None if new.optional => Some("NULL".to_owned()),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::file::plain_column;

    #[test]
    fn widening_keeps_every_value() {
        use FieldType::*;
        let of = |old, new| conversion(&plain_column("a", old), &plain_column("a", new));
        for (old, new) in [
            (Int8, Int16),
            (Int32, Int64),
            (Uint8, Int16),
            (Uint32, Int64),
            (Uint64, Int64),
            (Float32, Float64),
            (String, Text),
            (Text, String),
            (Enum, String),
        ] {
            assert_eq!(of(old, new), Conversion::Same, "{old:?} to {new:?}");
        }
        assert!(matches!(of(Int32, Float64), Conversion::Exact { .. }));
        for (old, new) in [(Int64, Int8), (Int8, Uint8), (Int64, Float64), (Float64, Int32)] {
            assert!(matches!(of(old, new), Conversion::Partial { .. }), "{old:?} to {new:?}");
        }
        for (old, new) in [(String, Int64), (Float64, Float32), (Uuid, String), (Time, Text)] {
            assert_eq!(of(old, new), Conversion::Lost, "{old:?} to {new:?}");
        }
    }
}
