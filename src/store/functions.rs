//! The evaluator's own text operators as SQLite functions, so that there is one implementation.
//!
//! `rc_like(value, pattern)`, `rc_contains(value, text)` and `rc_contains_fold(value, text)` give
//! 1, 0, or NULL where the value is NULL. SQLite's own LIKE folds ASCII and stops at U+0000.

use std::sync::Arc;

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, Result};

use crate::filter::fold::Fold;
use crate::filter::text::{Like, Needle};

/// Adds the functions to a connection.
pub fn register(connection: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("rc_like", 2, flags, |context| {
        run(context, Like::new, Like::matches)
    })?;
    connection.create_scalar_function("rc_contains", 2, flags, |context| {
        run(context, |text| Ok(Needle::new(text)), Needle::is_in)
    })?;
    connection.create_scalar_function("rc_contains_fold", 2, flags, |context| {
        run(context, |text| Ok(Fold::new(text)), Fold::is_in)
    })
}

/// Makes the pattern once a statement (it is a parameter, so SQLite keeps it) and runs it.
fn run<P: Send + Sync + 'static>(
    context: &Context<'_>,
    make: impl FnOnce(&str) -> Result<P, String>,
    found: impl FnOnce(&P, &str) -> bool,
) -> Result<Option<bool>> {
    let value = match context.get_raw(0) {
        ValueRef::Null => return Ok(None),
        value => value.as_str().map_err(|error| Error::UserFunctionError(error.into()))?,
    };
    let pattern: Arc<P> = context.get_or_create_aux(1, |text| {
        let text = text.as_str().map_err(|error| error.to_string())?;
        make(text).map_err(Box::<dyn std::error::Error + Send + Sync>::from)
    })?;
    Ok(Some(found(&pattern, value)))
}
