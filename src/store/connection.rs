//! How every connection to the database is set up.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Result};

use super::functions;

/// How long a connection waits for another process's lock before it says so.
const BUSY: Duration = Duration::from_secs(2);

/// The writer's page cache; readers get an eighth. In KiB.
const CACHE_KIB: i64 = 64 << 10;

/// The log file beside the database shrinks back to this when a checkpoint empties it. Kept this
/// large because overwriting a file costs less than growing one.
const WAL_BYTES: i64 = 64 << 20;

/// Statements kept prepared, a connection: a dozen a schema in use.
const STATEMENTS: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Write,
    Read,
    /// Only moves pages from the write-ahead log into the database.
    Checkpoint,
}

/// The database's file in a data directory.
pub(crate) fn file(dir: &Path) -> PathBuf {
    dir.join("rowcast.db")
}

/// Turns the write-ahead log on, for good: the file remembers it. `false` where the file system
/// cannot do it.
pub(crate) fn write_ahead(writer: &Connection) -> Result<bool> {
    let mode: String =
        writer.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    Ok(mode.eq_ignore_ascii_case("wal"))
}

/// Opens the database for one use. The writer must be the first: it makes the file.
pub(crate) fn open(dir: &Path, role: Use) -> Result<Connection> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if role == Use::Write {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let connection = Connection::open_with_flags(file(dir), flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // A misspelt identifier in double quotes must be an error, not a string.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // Every commit is on disk before it is acknowledged.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // See `checkpoint.rs`: no commit pays for a checkpoint.
    connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES, |_| Ok(()))?;
    if role != Use::Checkpoint {
        functions::register(&connection)?;
    }
    match role {
        Use::Write => connection.pragma_update(None, "cache_size", -CACHE_KIB)?,
        Use::Read => {
            connection.pragma_update(None, "cache_size", -CACHE_KIB / 8)?;
            connection.pragma_update(None, "query_only", true)?;
        }
        Use::Checkpoint => {}
    }
    Ok(connection)
}
