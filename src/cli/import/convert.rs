//! Values as the file has them → values as the schema has them, where an option says how.

use std::str::FromStr;

use jiff::civil;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use serde_json::{Number, Value as Json, json};

/// One `--convert`.
#[derive(Clone, Debug, PartialEq)]
pub enum Convert {
    Text,
    Number,
    Bool,
    EpochSeconds,
    EpochMillis,
    Date(String),
    Before(civil::Date),
    Json,
    Reference,
}

const CONVERSIONS: &str = "text, number, bool, epoch-s, epoch-ms, date:FORMAT (e.g. date:%b %d %Y), before:YYYY-MM-DD, json, ref";

impl FromStr for Convert {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, argument) = text.split_once(':').map_or((text, None), |(n, a)| (n, Some(a)));
        Ok(match (name, argument) {
            ("text", None) => Convert::Text,
            ("number", None) => Convert::Number,
            ("bool", None) => Convert::Bool,
            ("epoch-s", None) => Convert::EpochSeconds,
            ("epoch-ms", None) => Convert::EpochMillis,
            ("json", None) => Convert::Json,
            ("ref", None) => Convert::Reference,
            ("date", Some(format)) if !format.is_empty() => Convert::Date(format.into()),
            ("before", Some(date)) => Convert::Before(
                date.parse().map_err(|_| format!("before:{date}: use before:YYYY-MM-DD"))?,
            ),
            _ => return Err(format!("'{text}' is no conversion; use {CONVERSIONS}")),
        })
    }
}

/// `A=B`, split at the first `=` (a name may hold anything else).
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((a, b)) if !a.is_empty() && !b.is_empty() => Ok((a.into(), b.into())),
        _ => Err(format!("'{text}': use COLUMN=FIELD")),
    }
}

/// `FIELD=CONVERSION`.
pub fn conversion(text: &str) -> Result<(String, Convert), String> {
    let (field, convert) =
        text.split_once('=').ok_or_else(|| format!("'{text}': use FIELD=CONVERSION"))?;
    Ok((field.into(), convert.parse()?))
}

impl Convert {
    /// The converted value; null stays null.
    pub fn apply(&self, value: Json) -> Result<Json, String> {
        if value.is_null() {
            return Ok(value);
        }
        let wrong = |wanted: &str| format!("{value} is no {wanted}");
        match self {
            Convert::Text => match value {
                Json::String(_) => Ok(value),
                Json::Number(_) | Json::Bool(_) => Ok(Json::String(value.to_string())),
                _ => Err(wrong("number, bool or text")),
            },
            Convert::Number => number(&value).map(Json::Number).ok_or_else(|| wrong("number")),
            Convert::Bool => match scalar(&value).as_deref() {
                Some("true" | "1" | "yes" | "t" | "TRUE" | "True") => Ok(json!(true)),
                Some("false" | "0" | "no" | "f" | "FALSE" | "False") => Ok(json!(false)),
                _ => Err(wrong("true, false, yes, no, 1 or 0")),
            },
            Convert::EpochSeconds => {
                epoch(&value, 1_000_000).ok_or_else(|| wrong("epoch in seconds"))
            }
            Convert::EpochMillis => {
                epoch(&value, 1_000).ok_or_else(|| wrong("epoch in milliseconds"))
            }
            Convert::Date(format) => {
                let text = scalar(&value).ok_or_else(|| wrong("date"))?;
                date(format, text.trim())
                    .map_err(|error| format!("{value} is no date as {format}: {error}"))
            }
            Convert::Before(limit) => before(&value, *limit)
                .ok_or_else(|| wrong("date that could be moved back by centuries")),
            Convert::Json => match &value {
                Json::String(text) => crate::model::json::parse(text.as_bytes())
                    .map_err(|error| format!("{value}: {error}")),
                _ => Ok(value),
            },
            Convert::Reference => match &value {
                Json::String(text) => {
                    let key = number(&value).map_or_else(|| json!(text), Json::Number);
                    Ok(json!({ "id": key }))
                }
                Json::Number(_) => Ok(json!({ "id": value })),
                _ => Err(wrong("key of a record")),
            },
        }
    }
}

fn scalar(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Bool(switch) => Some(switch.to_string()),
        _ => None,
    }
}

/// A number or the text of one; integers stay exact.
fn number(value: &Json) -> Option<Number> {
    match value {
        Json::Number(number) => Some(number.clone()),
        Json::String(text) => serde_json::from_str(text.trim().trim_start_matches('+')).ok(),
        _ => None,
    }
}

/// Units since 1970 → RFC 3339.
fn epoch(value: &Json, micros: i64) -> Option<Json> {
    let number = number(value)?;
    let micros = match number.as_i64() {
        Some(whole) => whole.checked_mul(micros)?,
        None => {
            let micros = (number.as_f64()? * micros as f64).round();
            // Beyond this no year has four digits, and the cast could not be exact.
            (micros.abs() < 3e17).then_some(micros as i64)?
        }
    };
    let time = jiff::Timestamp::from_microsecond(micros).ok()?;
    Some(Json::String(time.to_string()))
}

fn date(format: &str, text: &str) -> Result<Json, jiff::Error> {
    let parsed = strtime::parse(format, text)?;
    if parsed.offset().is_some() {
        return Ok(Json::String(parsed.to_timestamp()?.to_string()));
    }
    if parsed.hour().is_some() {
        let time = parsed.to_datetime()?.to_zoned(TimeZone::UTC)?;
        return Ok(Json::String(time.timestamp().to_string()));
    }
    Ok(Json::String(parsed.to_date()?.to_string()))
}

/// Moves a date on or after `limit` back by whole centuries: years of two digits that were read
/// into the wrong one.
fn before(value: &Json, limit: civil::Date) -> Option<Json> {
    let text = value.as_str()?;
    let (day, rest) = text.split_at_checked(10)?;
    let mut date: civil::Date = day.parse().ok()?;
    while date >= limit {
        date = civil::Date::new(date.year() - 100, date.month(), date.day()).ok()?;
    }
    Some(Json::String(format!("{date}{rest}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(convert: &str, value: Json) -> Result<Json, String> {
        convert.parse::<Convert>()?.apply(value)
    }

    #[test]
    fn conversions() {
        for (convert, from, to) in [
            ("text", json!(1776), json!("1776")),
            ("text", json!("a"), json!("a")),
            ("text", json!(null), json!(null)),
            ("number", json!("9007199254740993"), json!(9007199254740993i64)),
            ("number", json!(" 1.5"), json!(1.5)),
            ("bool", json!(0), json!(false)),
            ("bool", json!("yes"), json!(true)),
            ("epoch-ms", json!(1517966773840i64), json!("2018-02-07T01:26:13.84Z")),
            ("epoch-s", json!("0"), json!("1970-01-01T00:00:00Z")),
            ("epoch-s", json!(-1.5), json!("1969-12-31T23:59:58.5Z")),
            ("date:%b %d %Y", json!("Jun 12 1998"), json!("1998-06-12")),
            ("date:%d/%m/%y %H:%M", json!("01/02/03 04:05"), json!("2003-02-01T04:05:00Z")),
            (
                "date:%Y-%m-%d %H:%M %z",
                json!("2020-01-01 01:00 +0100"),
                json!("2020-01-01T00:00:00Z"),
            ),
            ("before:2011-01-01", json!("2046-12-25"), json!("1946-12-25")),
            ("before:2011-01-01", json!("1998-06-12T01:00:00Z"), json!("1998-06-12T01:00:00Z")),
            ("json", json!("{\"a\":1}"), json!({"a": 1})),
            ("ref", json!(3), json!({"id": 3})),
        ] {
            assert_eq!(apply(convert, from.clone()), Ok(to), "{convert} of {from}");
        }
        for (convert, from) in [
            ("text", json!([1])),
            ("number", json!("1,5")),
            ("bool", json!("maybe")),
            ("epoch-ms", json!("soon")),
            ("epoch-s", json!(1e300)),
            ("date:%b %d %Y", json!("Jun 31 1998")),
            ("date:%b %d %Y", json!("TBD")),
            ("json", json!("{\"a\":1,\"a\":2}")),
            ("colour", json!(1)),
            ("date", json!(1)),
            ("before:soon", json!(1)),
        ] {
            assert!(apply(convert, from.clone()).is_err(), "{convert} of {from}");
        }
    }
}
