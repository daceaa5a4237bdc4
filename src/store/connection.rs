//! How every connection to the database is set up.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Result, Statement};

use super::{functions, here};

/// How long a connection waits for another process's lock before it says so, and how often it looks.
const BUSY: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(5);

/// SQLite asks after its `looks`th whether to look again. An event loop that writes by itself never
/// waits: the writer's thread, to whom the connection belongs as well, does it then.
fn waits(looks: i32) -> bool {
    if here::is_here() || LOOK * looks.unsigned_abs() >= BUSY {
        return false;
    }
    std::thread::sleep(LOOK);
    true
}

/// The writer's page cache; readers get an eighth, event loops' reads a quarter of that: there is one
/// for each core. In KiB.
const CACHE_KIB: i64 = 64 << 10;

/// The log file beside the database shrinks back to this when a checkpoint empties it. Kept this
/// large because overwriting a file costs less than growing one.
pub(crate) const WAL_BYTES: i64 = 64 << 20;

/// Statements kept prepared, a connection: a dozen a schema in use.
const STATEMENTS: usize = 512;

/// And for an event loop's reads.
const HASTY_STATEMENTS: usize = 64;

/// Longer statements are not kept: clients' filters make them, each its own, and they are large.
const KEPT_BYTES: usize = 4 << 10;

/// Runs `with` on a statement, kept prepared where it is of a size to keep.
pub(crate) fn prepared<T>(
    connection: &Connection,
    text: &str,
    with: impl FnOnce(&mut Statement<'_>) -> Result<T>,
) -> Result<T> {
    if text.len() > KEPT_BYTES {
        with(&mut connection.prepare(text)?)
    } else {
        with(&mut *connection.prepare_cached(text)?)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Write,
    Read,
    /// On an event loop, which waits for no lock.
    ReadHastily,
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

/// Makes the file where it is missing, for its owner alone: a directory that was there before may
/// be open to others, and password hashes are in it. SQLite's own files take after it.
pub(crate) fn make(dir: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(file(dir)).map(drop)
}

/// Opens the database for one use. The file must be there.
pub(crate) fn open(dir: &Path, role: Use) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(file(dir), flags)?;
    let (patience, statements) = match role {
        Use::ReadHastily => (Duration::ZERO, HASTY_STATEMENTS),
        _ => (BUSY, STATEMENTS),
    };
    match role {
        Use::Write => connection.busy_handler(Some(waits))?,
        _ => connection.busy_timeout(patience)?,
    }
    connection.set_prepared_statement_cache_capacity(statements);
    // A misspelt identifier in double quotes must be an error, not a string.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // A plan holds for every value. Else a statement whose LIMIT is bound is compiled anew each time
    // it runs, so that nothing is gained by keeping it: a fifth of a list of ten.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Every commit is on disk before it is acknowledged.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // On macOS a plain fsync leaves it in the drive's cache; elsewhere this changes nothing.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
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
        Use::Read | Use::ReadHastily => {
            let part = if role == Use::Read { 8 } else { 32 };
            connection.pragma_update(None, "cache_size", -CACHE_KIB / part)?;
            connection.pragma_update(None, "query_only", true)?;
        }
        Use::Checkpoint => {}
    }
    Ok(connection)
}
