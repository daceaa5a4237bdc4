//! A table by primary key, some rows at a time.
//!
//! Whoever reads a whole table so holds no transaction from one page to the next. A page is
//! bounded in time too, where the filter matches hardly anything: rows are looked at in windows of
//! the primary key, and a page ends where its time does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{OptionalExtension as _, params_from_iter};

use crate::error::Result;
use crate::filter::Predicate;
use crate::filter::sql;
use crate::model::change::Row;
use crate::model::schema::Schema;
use crate::model::value::Value;

use super::cell::{self, Cell};
use super::connection::prepared;
use super::fault::fault;
use super::read::Reader;
use super::room::Room;

/// Rows looked at between two looks at the clock, to begin with; then more, while that is quick.
const WINDOW: u64 = 2_000;
const LARGEST_WINDOW: u64 = 128_000;

/// What to read next of a table.
#[derive(Clone, Debug)]
pub struct Scan<'a> {
    pub schema: &'a Schema,
    pub filter: &'a Predicate,
    /// Rows of greater primary keys only.
    pub after: Option<&'a Value>,
    /// Rows; at least one.
    pub limit: usize,
    /// Bytes of memory; the page ends with the row that reaches them.
    pub bytes: usize,
    /// Another window of rows is begun only before this has passed.
    pub time: Duration,
}

/// A page of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Scanned {
    /// By primary key; perhaps none, though there may be more to come.
    pub rows: Vec<Arc<Row>>,
    /// Every row that matches and whose primary key is at most this was given, now or before.
    /// `None`: all of them were.
    pub upto: Option<Value>,
}

impl Reader<'_> {
    /// The rows that match (SQL's TRUE) and follow `scan.after`, until one of its bounds.
    pub fn scan(&self, scan: &Scan<'_>) -> Result<Scanned> {
        let until = Instant::now() + scan.time;
        let mut page = Page { rows: Vec::new(), left: scan.bytes.max(1) };
        let mut after = scan.after.cloned();
        let mut window = WINDOW;
        loop {
            let began = Instant::now();
            let end = self.window_end(scan.schema, after.as_ref(), window)?;
            self.fill(scan, after.as_ref(), end.as_ref(), &mut page)?;
            if page.rows.len() >= scan.limit.max(1) || page.left == 0 {
                let last = page.rows.last().map(|row| row.get(scan.schema.primary).clone());
                return Ok(Scanned { rows: page.rows, upto: last });
            }
            if end.is_none() || Instant::now() >= until {
                return Ok(Scanned { rows: page.rows, upto: end });
            }
            after = end;
            if began.elapsed() < scan.time / 8 {
                window = (window * 4).min(LARGEST_WINDOW);
            }
        }
    }

    /// The primary key of the row that ends a window of so many rows; `None` where the table ends
    /// before.
    fn window_end(
        &self,
        schema: &Schema,
        after: Option<&Value>,
        rows: u64,
    ) -> Result<Option<Value>> {
        let texts = self.texts.of(schema);
        let (key, from) = (&texts.primary, &texts.from);
        let follows = if after.is_some() { format!("WHERE {key} > ? ") } else { String::new() };
        let text = format!("SELECT {key} FROM {from} {follows}ORDER BY {key} LIMIT 1 OFFSET ?");
        let offset = Value::Int(rows as i64 - 1);
        let params = params_from_iter(after.into_iter().chain([&offset]).map(Cell));
        let ty = schema.primary_column().ty;
        let found = prepared(self.connection, &text, |statement| {
            let value = |row: &rusqlite::Row<'_>| {
                let cell = row.get_ref(0)?;
                cell::value(cell, ty).map_err(|error| {
                    let ty = cell.data_type();
                    rusqlite::Error::FromSqlConversionFailure(0, ty, error.into())
                })
            };
            statement.query_row(params, value).optional()
        });
        found.map_err(fault)
    }

    /// Adds the matching rows between two primary keys, until the page is full.
    fn fill(
        &self,
        scan: &Scan<'_>,
        after: Option<&Value>,
        end: Option<&Value>,
        page: &mut Page,
    ) -> Result<()> {
        let texts = self.texts.of(scan.schema);
        let (key, columns, from) = (&texts.primary, &texts.columns, &texts.from);
        let condition = sql::write(scan.filter, &self.catalog, scan.schema, "r");
        let mut bounds = String::new();
        let mut params: Vec<&Value> = Vec::new();
        for (bound, operator) in [(after, ">"), (end, "<=")] {
            if let Some(bound) = bound {
                bounds.push_str(&format!("{key} {operator} ? AND "));
                params.push(bound);
            }
        }
        // The plus keeps the filter away from indexes: they would lead out of the window, and
        // their rows would have to be sorted.
        let text = format!(
            "SELECT {columns} FROM {from} WHERE {bounds}+({}) ORDER BY {key} LIMIT ?",
            condition.text
        );
        let left = scan.limit.max(1).saturating_sub(page.rows.len());
        let left = Value::Int(i64::try_from(left).unwrap_or(i64::MAX));
        params.extend(&condition.params);
        params.push(&left);
        let params = params_from_iter(params.into_iter().map(Cell));
        let read = prepared(self.connection, &text, |statement| {
            let mut rows = statement.query(params)?;
            while page.left > 0
                && let Some(row) = rows.next()?
            {
                let record = cell::record(row, 0, scan.schema)?;
                page.left = page.left.saturating_sub(Room::weigh(&record));
                page.rows.push(Arc::new(record));
            }
            Ok(())
        });
        read.map_err(fault)
    }
}

struct Page {
    rows: Vec<Arc<Row>>,
    /// Bytes that still fit; 0 once full.
    left: usize,
}
