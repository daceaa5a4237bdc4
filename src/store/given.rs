//! Integer ids count up by one and are never given twice, whatever became of the records.
//!
//! A plain INTEGER PRIMARY KEY gives the largest id there is and one more: that of a deleted newest
//! record once more. SQLite's AUTOINCREMENT does not, but notes each id in a table of its own, a page
//! more to write with every insert. So the numbers are given here. The largest id a table ever held
//! is the largest it holds, unless that very record was deleted. Only then is it written down, in
//! the transaction that deletes.
//!
//! **Nothing leaves a table but past this:** rows one by one (`Tx::delete_row`), or all at once by a
//! migration's statements, with [`keep`] before them.

use std::cell::RefCell;
use std::collections::HashMap;

use rusqlite::Connection;

use crate::error::{Error, Kind, Result};
use crate::filter::sql::quote;
use crate::model::schema::{Schema, SchemaId};
use crate::model::value::Value;

use super::fault::fault;
use super::texts::TextCache;

/// In a new store.
pub(crate) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TABLE _rc_given (
             schema INTEGER PRIMARY KEY,
             id INTEGER NOT NULL
         ) STRICT",
    )
}

/// Adds it to a store that had none. Tables from before stay AUTOINCREMENT, which does no harm to
/// numbers given here; what they have counted is taken over.
pub(crate) fn add(connection: &Connection) -> rusqlite::Result<()> {
    create(connection)?;
    let counted = "SELECT count(*) FROM sqlite_schema WHERE name = 'sqlite_sequence'";
    if connection.query_row(counted, (), |row| row.get::<_, i64>(0))? == 0 {
        return Ok(());
    }
    connection.execute_batch(
        "INSERT INTO _rc_given
         SELECT s.id, max(q.seq) FROM _rc_schema AS s
         JOIN sqlite_sequence AS q ON q.name = json_extract(s.layout, '$.table') GROUP BY s.id",
    )
}

/// The statement that writes down the largest id a table holds, if it holds any.
pub(crate) fn keep(schema: &Schema) -> String {
    let key = quote(&schema.primary_column().name);
    format!(
        "INSERT INTO _rc_given SELECT {}, max({key}) FROM {} WHERE true HAVING max({key}) IS NOT \
         NULL ON CONFLICT (schema) DO UPDATE SET id = max(id, excluded.id)",
        schema.id.0,
        quote(&schema.table)
    )
}

/// Forgets a schema that is gone for good.
pub(crate) fn forget(connection: &Connection, schema: SchemaId) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM _rc_given WHERE schema = ?1", [schema.0]).map(drop)
}

/// The largest id that each table ever held, as the writer's transaction sees it, for tables it has
/// asked about. To be cleared whenever anything of a transaction is taken back.
#[derive(Default)]
pub(crate) struct Given(RefCell<HashMap<SchemaId, i64>>);

impl Given {
    /// The id that the schema's next record gets.
    ///
    /// # Errors
    /// 422 where the largest number there is was given; 503 where the disk fails.
    pub(crate) fn next(
        &self,
        connection: &Connection,
        texts: &TextCache,
        schema: &Schema,
    ) -> Result<i64> {
        let newest = self.newest(connection, texts, schema)?;
        newest.checked_add(1).ok_or_else(|| {
            let text = format!("{}: no id is left after {newest}", schema.name);
            Error::new(Kind::Unprocessable, text)
        })
    }

    /// A record of that key was put in.
    pub(crate) fn came(&self, schema: &Schema, key: &Value) {
        if let Value::Int(id) = *key
            && let Some(newest) = self.0.borrow_mut().get_mut(&schema.id)
        {
            *newest = id.max(*newest);
        }
    }

    /// A record of that key, still there, is about to be deleted.
    pub(crate) fn goes(
        &self,
        connection: &Connection,
        texts: &TextCache,
        schema: &Schema,
        key: &Value,
    ) -> Result<()> {
        let Value::Int(id) = *key else { return Ok(()) };
        if id < self.newest(connection, texts, schema)? {
            return Ok(());
        }
        connection
            .prepare_cached("INSERT OR REPLACE INTO _rc_given VALUES (?1, ?2)")
            .and_then(|mut statement| statement.execute((schema.id.0, id)))
            .map(drop)
            .map_err(fault)
    }

    /// Forgets what it knows; it is asked for anew.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    fn newest(&self, connection: &Connection, texts: &TextCache, schema: &Schema) -> Result<i64> {
        if let Some(newest) = self.0.borrow().get(&schema.id) {
            return Ok(*newest);
        }
        let newest = connection
            .prepare_cached(&texts.of(schema).newest)
            .and_then(|mut statement| statement.query_row([schema.id.0], |row| row.get(0)))
            .map_err(fault)?;
        self.0.borrow_mut().insert(schema.id, newest);
        Ok(newest)
    }
}
