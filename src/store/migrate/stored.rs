//! The catalog's own tables: what is applied, with ids, kept through removals and renames.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _};
use serde_json::Value as Json;

use crate::model::catalog::Catalog;
use crate::model::schema::{Schema, SchemaId};

/// Everything the catalog knows, what is not served now among it.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    pub catalog: Arc<Catalog>,
    pub schemas: HashMap<SchemaId, StoredSchema>,
    /// The next ids to give; they only grow.
    pub next_schema: u32,
    pub next_field: u32,
}

/// One schema as it was last applied.
#[derive(Clone, Debug)]
pub struct StoredSchema {
    pub schema: Arc<Schema>,
    /// The applied text; empty for junctions.
    pub text: Arc<str>,
    /// Its file is gone: the data is kept, nothing is served.
    pub retired: bool,
    /// A file the API still has to write or take away (see [`Pending`]).
    pub pending: Option<Pending>,
}

/// Set in the transaction of a change by API, cleared once the folder agrees. A start that finds
/// it knows that the folder, not the catalog, is behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The file (without `.json`) that held the schema before; `None` where there was none.
    pub name: Option<String>,
    /// Its text.
    pub text: Option<String>,
}

/// Makes the catalog's table in a new store; its counters stand in `_rc_meta`.
pub(crate) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TABLE _rc_schema (
             id INTEGER PRIMARY KEY,
             name TEXT NOT NULL,
             retired INTEGER NOT NULL,
             layout TEXT NOT NULL,
             text TEXT NOT NULL,
             pending TEXT
         ) STRICT",
    )
}

/// Reads the catalog.
pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Stored> {
    let counter = |name: &str| {
        connection
            .query_row("SELECT value FROM _rc_meta WHERE name = ?1", [name], |row| row.get(0))
            .optional()
            .map(|found: Option<u32>| found.unwrap_or(0))
    };
    let mut schemas = HashMap::new();
    let mut statement =
        connection.prepare("SELECT layout, text, retired, pending FROM _rc_schema ORDER BY id")?;
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        let (layout, text): (String, String) = (row.get(0)?, row.get(1)?);
        let broken = |error: serde_json::Error| {
            rusqlite::Error::FromSqlConversionFailure(
                0,
                rusqlite::types::Type::Text,
                Box::new(error),
            )
        };
        let mut schema: Schema = serde_json::from_str(&layout).map_err(broken)?;
        schema.source = Arc::new(if text.is_empty() {
            Json::Null
        } else {
            serde_json::from_str(&text).map_err(broken)?
        });
        let pending: Option<String> = row.get(3)?;
        let pending = match pending {
            Some(text) => {
                let (name, text) = serde_json::from_str(&text).map_err(broken)?;
                Some(Pending { name, text })
            }
            None => None,
        };
        schemas.insert(
            schema.id,
            StoredSchema {
                schema: Arc::new(schema),
                text: text.into(),
                retired: row.get(2)?,
                pending,
            },
        );
    }
    let served = schemas.values().filter(|s| !s.retired).map(|s| s.schema.clone()).collect();
    Ok(Stored {
        catalog: Arc::new(Catalog::new(counter("catalog")?.into(), served)),
        schemas,
        next_schema: counter("schema")?.max(1),
        next_field: counter("field")?.max(1),
    })
}

pub(crate) fn set_counter(connection: &Connection, name: &str, value: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO _rc_meta (name, value) VALUES (?1, ?2)")?
        .execute((name, value as i64))?;
    Ok(())
}

pub(crate) fn put(connection: &Connection, stored: &StoredSchema) -> rusqlite::Result<()> {
    let layout = layout(&stored.schema);
    let pending = stored
        .pending
        .as_ref()
        .map(|pending| serde_json::json!([pending.name, pending.text]).to_string());
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO _rc_schema (id, name, retired, layout, text, pending) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute((
            stored.schema.id.0,
            &*stored.schema.name,
            stored.retired,
            layout,
            &*stored.text,
            pending,
        ))?;
    Ok(())
}

pub(crate) fn remove(connection: &Connection, id: SchemaId) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM _rc_schema WHERE id = ?1")?.execute([id.0])?;
    Ok(())
}

/// The schema as the store keeps it: equal for schemas that mean the same.
pub(crate) fn layout(schema: &Schema) -> String {
    // Maps have text keys and floats are finite, so this cannot fail.
    serde_json::to_string(schema).unwrap_or_default()
}
