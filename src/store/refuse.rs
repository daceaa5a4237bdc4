//! Why a row was not taken, in the words of its schema.

use rusqlite::ffi;

use crate::error::{Error, Kind, Problem, Result};
use crate::model::schema::Schema;
use crate::model::value::Value;

/// A constraint of the store that a row broke; columns by their names in the table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Constraint {
    Unique(Vec<String>),
    NotNull(String),
    Foreign,
}

/// Reads SQLite's answer: `UNIQUE constraint failed: table.a, table.b`.
pub(crate) fn constraint(error: &rusqlite::Error) -> Option<Constraint> {
    let rusqlite::Error::SqliteFailure(code, text) = error else { return None };
    let columns = || -> Vec<String> {
        let list = text.as_deref().and_then(|text| text.split_once(": ")).map_or("", |(_, l)| l);
        list.split(", ").filter_map(|name| Some(name.rsplit_once('.')?.1.to_owned())).collect()
    };
    match code.extended_code {
        ffi::SQLITE_CONSTRAINT_UNIQUE
        | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
        | ffi::SQLITE_CONSTRAINT_ROWID => Some(Constraint::Unique(columns())),
        ffi::SQLITE_CONSTRAINT_NOTNULL => {
            Some(Constraint::NotNull(columns().pop().unwrap_or_default()))
        }
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => Some(Constraint::Foreign),
        _ => None,
    }
}

/// The name that clients use for a column: the relation's where it is a key.
pub(crate) fn known_as<'s>(schema: &'s Schema, column: &'s str) -> &'s str {
    let slot = schema.column(column);
    let relation = slot.and_then(|slot| schema.columns[slot].key_of);
    relation.map_or(column, |index| &schema.relations[index].name)
}

/// 400 for a unique clash: names the fields and the values. For whoever may not know all of them
/// there is one problem a column, in the same order: `path` its name, `field` the name that clients
/// use for it, `message` its value.
pub(crate) fn taken(schema: &Schema, values: &[Value], columns: &[String]) -> Error {
    let mut error = Error::bad("");
    for column in columns {
        let value = schema.column(column).map(|slot| shown(&values[slot]));
        error.problems.push(problem(TAKEN, schema, column, value.unwrap_or_default()));
    }
    told(&mut error, "it must be unique");
    error
}

/// The codes of problems that say which columns a message speaks of.
const TAKEN: &str = "value.taken";
const LARGE: &str = "record.large";

fn problem(code: &str, schema: &Schema, column: &str, message: String) -> Problem {
    Problem {
        code: code.to_owned(),
        file: None,
        line: None,
        path: column.to_owned(),
        field: known_as(schema, column).to_owned(),
        message,
    }
}

/// A refusal of [`taken`] or [`small_enough`] as someone is told who knows only of some columns;
/// other errors stay as they are.
pub(crate) fn known_only(mut error: Error, known: impl Fn(&str) -> bool) -> Error {
    let before = error.problems.len();
    match error.problems.first() {
        Some(first) if first.code == TAKEN => {}
        Some(first) if first.code == LARGE => {
            if !known(&first.path) {
                error.message = first.message.clone();
            }
            error.problems.clear();
            return error;
        }
        _ => return error,
    }
    error.problems.retain(|problem| known(&problem.path));
    match error.problems.len() {
        0 => error.message = "a value that must be unique is taken by another record".to_owned(),
        left if left < before => told(&mut error, "together with other fields it must be unique"),
        _ => {}
    }
    error.problems.clear();
    error
}

fn told(error: &mut Error, rule: &str) {
    let names: Vec<&str> = error.problems.iter().map(|problem| &*problem.field).collect();
    let values: Vec<&str> = error.problems.iter().map(|problem| &*problem.message).collect();
    error.message = format!(
        "{}: the value {} is taken by another record; {rule}",
        names.join(", "),
        values.join(", ")
    );
}

/// A value as JSON, short enough to be told.
pub(crate) fn shown(value: &Value) -> String {
    let mut text = Vec::new();
    value.write_json(&mut text);
    crate::error::clip(&String::from_utf8_lossy(&text)).into_owned()
}

/// Refuses a record whose JSON would be larger than one may be.
pub(crate) fn small_enough(schema: &Schema, values: &[Value], limit: usize) -> Result<()> {
    // JSON makes six bytes of one at most (`\u0001`): where even that fits, nothing is encoded.
    let names: usize = schema.columns.iter().map(|column| column.name.len() + 6).sum();
    let heap: usize = values.iter().map(Value::heap_bytes).sum();
    if names + 40 * values.len() + 6 * heap <= limit {
        return Ok(());
    }
    let mut text = Vec::new();
    let mut bytes = names;
    let mut largest = (0, schema.primary);
    for (slot, value) in values.iter().enumerate() {
        text.clear();
        value.write_json(&mut text);
        bytes += text.len();
        largest = largest.max((text.len(), slot));
    }
    if bytes <= limit {
        return Ok(());
    }
    let column = &schema.columns[largest.1].name;
    let mut error = Error::new(
        Kind::TooLarge,
        format!(
            "the record takes {bytes} bytes as JSON, more than the {limit} one may; most of it is \
             {column} with {}",
            largest.0
        ),
    );
    let less = format!("the record takes more than the {limit} bytes as JSON that one may");
    error.problems.push(problem(LARGE, schema, column, less));
    Err(error)
}
