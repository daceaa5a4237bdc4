//! From where on the log can be read through each schema, and what it does not tell of columns
//! added since.
//!
//! An entry speaks in ids, so additions and new names leave it readable. After anything else
//! (a field taken away, another type) what it says of the schema means nothing to a plan of today.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, Result};

use crate::model::catalog::Catalog;
use crate::model::schema::{FieldId, SchemaId, Shape};

pub(crate) fn create(connection: &Connection) -> Result<()> {
    connection.execute_batch(
        "CREATE TABLE _rc_readable (
             schema INTEGER PRIMARY KEY,
             position INTEGER NOT NULL
         ) STRICT;
         CREATE TABLE _rc_filled (
             field INTEGER PRIMARY KEY,
             time INTEGER NOT NULL
         ) STRICT;",
    )
}

/// Adds the table to a store that had none. Which migrations its log has seen is not looked for:
/// no client holds a cursor from before.
pub(crate) fn add(connection: &Connection) -> Result<()> {
    create(connection)?;
    connection.execute_batch(
        "INSERT INTO _rc_readable
         SELECT id, (SELECT coalesce(max(position), 0) FROM _rc_log) FROM _rc_schema",
    )
}

/// Notes the position of an entry before which nothing can be read through these schemas.
pub(crate) fn note(connection: &Connection, schemas: &[SchemaId], position: u64) -> Result<()> {
    for schema in schemas {
        connection
            .prepare_cached("INSERT OR REPLACE INTO _rc_readable VALUES (?1, ?2)")?
            .execute((schema.0, position as i64))?;
    }
    Ok(())
}

/// Columns that a migration added to rows that were there, and the time that these then held:
/// entries from before it lack them. Microseconds since 1970.
#[derive(Debug, Default)]
pub(crate) struct Filled(HashMap<FieldId, i64>);

impl Filled {
    pub(crate) fn read(connection: &Connection) -> Result<Filled> {
        let mut statement = connection.prepare_cached("SELECT field, time FROM _rc_filled")?;
        let rows = statement.query_map((), |row| Ok((FieldId(row.get(0)?), row.get(1)?)))?;
        rows.collect::<Result<_>>().map(Filled)
    }

    pub(crate) fn time(&self, field: FieldId) -> Option<i64> {
        self.0.get(&field).copied()
    }
}

/// Notes which columns a migration fills with its time.
pub(crate) fn note_filled(connection: &Connection, fields: &[FieldId], time: i64) -> Result<()> {
    for field in fields {
        connection
            .prepare_cached("INSERT OR REPLACE INTO _rc_filled VALUES (?1, ?2)")?
            .execute((field.0, time))?;
    }
    Ok(())
}

/// The schema's position, or that of the links of its relations where that is later.
pub(crate) fn from(connection: &Connection, catalog: &Catalog, schema: SchemaId) -> Result<u64> {
    let mut statement =
        connection.prepare_cached("SELECT position FROM _rc_readable WHERE schema = ?1")?;
    let mut of = |schema: SchemaId| -> Result<u64> {
        let found = statement.query_row([schema.0], |row| row.get::<_, i64>(0)).optional()?;
        Ok(found.unwrap_or(0) as u64)
    };
    let mut latest = of(schema)?;
    for relation in catalog.get(schema).iter().flat_map(|schema| &schema.relations) {
        if let Shape::Link { junction, .. } = relation.shape {
            latest = latest.max(of(junction)?);
        }
    }
    Ok(latest)
}
