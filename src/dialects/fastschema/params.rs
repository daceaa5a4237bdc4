//! Query strings: serde_qs, JSON or brackets.
//!
//! Every parameter may stand once and must be asked for by somebody: what is left over when
//! [`Params::finish`] is called is an error that names it.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::Value as Json;

use crate::error::{Error, Result, clip};
use crate::limits::Limits;
use crate::model::json;

/// Deepest bracket nesting that is read; a filter at its own limit stays below it.
const BRACKET_DEPTH: usize = 64;

/// A token in a query string is taken by `auth` before any dialect looks.
const TOKEN: &str = "access_token";

/// The parameters of one request.
#[derive(Debug)]
pub struct Params {
    values: serde_json::Map<String, Json>,
    /// Bytes of each bracketed parameter, keys and values, as decoded.
    filter_bytes: usize,
    asked: Vec<&'static str>,
    limits: FilterText,
}

#[derive(Clone, Copy, Debug)]
struct FilterText {
    bytes: usize,
}

/// A filter as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterParam {
    pub json: Json,
    /// Came in brackets: scalars are text, to be read by the field's type.
    pub untyped: bool,
}

/// Reads a query string (what follows the `?`, without it), in time linear in its length.
///
/// # Errors
/// 400 naming the parameter: repeated, not UTF-8, brackets that do not close or are too deep.
pub fn query(text: &str, limits: &Limits) -> Result<Params> {
    let filter_bytes = check_keys(text)?;
    if filter_bytes > limits.filter_bytes {
        return Err(filter_too_long(filter_bytes, limits.filter_bytes));
    }
    let values = if text.is_empty() {
        serde_json::Map::new()
    } else {
        // Form encoding: browsers send `[` as `%5B`.
        serde_qs::Config::new()
            .max_depth(BRACKET_DEPTH)
            .use_form_encoding(true)
            .deserialize_str::<serde_json::Map<String, Json>>(text)
            .map_err(|error| {
                Error::bad(format!("malformed query string: {}", clip(&error.to_string())))
            })?
    };
    for (name, value) in &values {
        check_nesting(name, value)?;
    }
    let limits = FilterText { bytes: limits.filter_bytes };
    Ok(Params { values, filter_bytes, asked: Vec::new(), limits })
}

/// Refuses repeated keys (`a[]` may stand several times), which serde_qs would turn into arrays,
/// and keys without a value. Gives the bytes of all `filter[…]` parameters.
fn check_keys(text: &str) -> Result<usize> {
    let mut seen = HashSet::new();
    let mut filter_bytes = 0;
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = match pair.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (pair, None),
        };
        let key = decode(key)?;
        if key.is_empty() {
            return Err(Error::bad("a parameter without a name"));
        }
        let Some(value) = value else {
            return Err(Error::bad(format!("parameter '{}' has no value", clip(&key))));
        };
        // What a value holds is not told: it may be a token.
        decode(value).map_err(|_| {
            Error::bad(format!("parameter '{}' is not percent-encoded UTF-8", clip(&key)))
        })?;
        if key.starts_with("filter[") {
            filter_bytes += key.len() + value.len();
        }
        if !key.ends_with("[]") && !seen.insert(key.clone()) {
            return Err(Error::bad(format!("parameter '{}' is given twice", clip(&key))));
        }
    }
    Ok(filter_bytes)
}

/// Percent-decodes, `+` being a space.
fn decode(text: &str) -> Result<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'+' => out.push(b' '),
            b'%' => match (hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    at += 2;
                }
                _ => {
                    return Err(Error::bad(format!(
                        "'{}': % must be followed by two hexadecimal digits",
                        clip(text)
                    )));
                }
            },
            byte => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8(out).map_err(|_| Error::bad(format!("'{}' is not UTF-8", clip(text))))
}

fn hex(byte: Option<&u8>) -> Option<u8> {
    char::from(*byte?).to_digit(16).map(|digit| digit as u8)
}

/// Percent-decodes one segment of a path, where `+` is itself.
///
/// # Errors
/// 400 where it is not UTF-8 or an escape is broken.
pub fn path_segment(text: &str) -> Result<Cow<'_, str>> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    decode(&text.replace('+', "%2B")).map(Cow::Owned)
}

/// At its depth limit serde_qs does not fail but hands out what is left as one key, brackets
/// included; a value that met an object comes under an empty key.
fn check_nesting(name: &str, value: &Json) -> Result<()> {
    let mut waiting = vec![value];
    if name.contains(['[', ']']) {
        return Err(Error::bad(format!("parameter '{}': brackets do not pair", clip(name))));
    }
    while let Some(value) = waiting.pop() {
        match value {
            Json::Object(object) => {
                for (key, value) in object {
                    if key.is_empty() {
                        return Err(Error::bad(format!(
                            "parameter '{}' is given both plain and with brackets",
                            clip(name)
                        )));
                    }
                    if key.contains('[') {
                        return Err(Error::bad(format!(
                            "parameter '{}': brackets nest deeper than {BRACKET_DEPTH} or do not pair",
                            clip(name)
                        )));
                    }
                    waiting.push(value);
                }
            }
            Json::Array(array) => waiting.extend(array),
            _ => {}
        }
    }
    Ok(())
}

fn filter_too_long(bytes: usize, limit: usize) -> Error {
    Error::bad(format!("filter is {bytes} bytes long, at most {limit} are allowed"))
}

impl Params {
    /// Takes a plain parameter.
    ///
    /// # Errors
    /// 400 where it came with brackets.
    pub fn text(&mut self, name: &'static str) -> Result<Option<String>> {
        self.asked.push(name);
        match self.values.shift_remove(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(_) => {
                Err(Error::bad(format!("parameter '{name}' takes one plain value, no brackets")))
            }
        }
    }

    /// Takes a parameter that is a whole number, 0 or more.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn number(&mut self, name: &'static str) -> Result<Option<u64>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.parse() {
            Ok(number) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Some(number)),
            _ => Err(Error::bad(format!(
                "parameter '{name}' must be a whole number, 0 or more, not '{}'",
                clip(&text)
            ))),
        }
    }

    /// Takes a parameter that is true or false.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn flag(&mut self, name: &'static str) -> Result<Option<bool>> {
        match self.text(name)?.as_deref() {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => Err(Error::bad(format!(
                "parameter '{name}' must be true or false, not '{}'",
                clip(other)
            ))),
        }
    }

    /// Takes `filter`: JSON (`filter={"a":1}`) or brackets (`filter[a][$gt]=1`).
    ///
    /// # Errors
    /// 400 for a text over the limit, or JSON that is none.
    pub fn filter(&mut self) -> Result<Option<FilterParam>> {
        self.asked.push("filter");
        match self.values.shift_remove("filter") {
            None => Ok(None),
            Some(Json::String(text)) => {
                if text.len() > self.limits.bytes {
                    return Err(filter_too_long(text.len(), self.limits.bytes));
                }
                if text.trim().is_empty() {
                    return Err(Error::bad("filter is empty; leave it out, or give {} for all"));
                }
                let json = json::parse(text.as_bytes()).map_err(|error| Error {
                    message: format!("invalid filter: {}", error.message),
                    ..error
                })?;
                Ok(Some(FilterParam { json, untyped: false }))
            }
            Some(json) => {
                debug_assert!(self.filter_bytes > 0);
                Ok(Some(FilterParam { json, untyped: true }))
            }
        }
    }

    /// Says that nothing else is taken.
    ///
    /// # Errors
    /// 400 naming a parameter that nobody asked for, and those that are known.
    pub fn finish(self) -> Result<()> {
        let Some(unknown) = self.values.keys().find(|name| *name != TOKEN) else {
            return Ok(());
        };
        let known = match self.asked.is_empty() {
            true => "none is taken here".to_owned(),
            false => format!("use {}", self.asked.join(", ")),
        };
        Err(Error::bad(format!("unknown parameter '{}'; {known}", clip(unknown))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::{Duration, Instant};

    fn parse(text: &str) -> Result<Params> {
        query(text, &Limits::default())
    }

    fn filter(text: &str) -> Result<FilterParam> {
        Ok(parse(text)?.filter()?.expect("a filter"))
    }

    #[test]
    fn both_forms_of_a_filter() {
        let typed = filter("filter=%7B%22a%22%3A%7B%22%24gt%22%3A1%7D%7D").unwrap();
        assert_eq!(typed, FilterParam { json: json!({"a": {"$gt": 1}}), untyped: false });
        for text in ["filter[a][$gt]=1", "filter%5Ba%5D%5B%24gt%5D=1"] {
            let untyped = filter(text).unwrap();
            assert_eq!(untyped, FilterParam { json: json!({"a": {"$gt": "1"}}), untyped: true });
        }
        let list =
            filter("filter[$or][0][a]=x&filter[$or][1][b][$in][]=1&filter[$or][1][b][$in][]=2");
        assert_eq!(list.unwrap().json, json!({"$or": [{"a": "x"}, {"b": {"$in": ["1", "2"]}}]}));
        assert_eq!(filter("filter[a.b]=x+y%2B").unwrap().json, json!({"a.b": "x y+"}));
        assert_eq!(filter("filter[a]=").unwrap().json, json!({"a": ""}));
    }

    #[test]
    fn what_is_refused() {
        for (text, culprit) in [
            ("limit=1&limit=2", "limit"),
            ("limit=1&%6Cimit=2", "limit"),
            ("filter[a]=1&filter[a]=2", "filter[a]"),
            ("filter[a]=1&filter={}", "filter"),
            ("filter={}&filter[a]=1", "query string"),
            ("filter[a", "filter[a"),
            ("filter[a=1", "query string"),
            ("filter[a][$in][0]=1&filter[a][$in][2]=1", "query string"),
            ("a]=1", "a]"),
            ("=1", "without a name"),
            ("select", "select"),
            ("select=%zz", "select"),
            ("%FF=1", "%FF"),
            ("filter[%FF]=1", "UTF-8"),
            ("access_token=%FF", "access_token"),
        ] {
            let error = parse(text).and_then(|mut params| params.filter().map(drop));
            let message = error.expect_err(text).message;
            assert!(message.contains(culprit), "{text}: {message}");
        }
    }

    #[test]
    fn depth_and_length_end_early() {
        let started = Instant::now();
        for text in [
            format!("filter{}=1", "[a]".repeat(17_000)),
            format!("filter{}=1", "[a]".repeat(200)),
            format!("filter{}", "[".repeat(50_000)),
            format!("filter={}", "[".repeat(50_000)),
            format!("filter={}", "%5B".repeat(17_000)),
            format!("filter{}=1", "[]".repeat(25_000)),
            "filter[a][]=1&".repeat(5_000),
            (0..9_000).map(|n| format!("filter[a][{n}]=1&")).collect(),
        ] {
            let error = parse(&text).and_then(|mut params| params.filter().map(drop)).unwrap_err();
            assert_eq!(error.status(), 400);
            assert!(error.message.len() < 300, "{}", error.message);
        }
        assert!(started.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn numbers_and_leftovers() {
        let mut params = parse("page=2&limit=05&access_token=x").unwrap();
        assert_eq!(params.number("page").unwrap(), Some(2));
        assert_eq!(params.number("limit").unwrap(), Some(5));
        params.finish().unwrap();
        for text in ["page=-1", "page=+1", "page=1.5", "page=", "page=99999999999999999999"] {
            assert!(parse(text).unwrap().number("page").is_err(), "{text}");
        }
        let mut params = parse("sort=a&nope=1").unwrap();
        params.text("sort").unwrap();
        assert_eq!(params.finish().unwrap_err().message, "unknown parameter 'nope'; use sort");
    }
}
