//! Whether a write-ahead log belongs to the database beside it.
//!
//! SQLite does not ask: it puts whatever pages a log holds into the file it finds. A store's file
//! that somebody replaced after a crash, the log of the old one left beside it, would be mixed
//! with that and lost. So would one whose log was cut below what a checkpoint had moved into it.
//! The change log tells: what stands in the file alone must also stand there when the write-ahead
//! log is read with it.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use crate::error::{Error, Kind, Result};

use super::log::{self, Mark};
use super::{codec, connection};

/// To be called before the store is opened for writing. Changes nothing; costs nothing where no
/// write-ahead log was left.
pub(crate) fn check(dir: &Path) -> Result<()> {
    if fits(&connection::file(dir)) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Unavailable,
        format!(
            "data directory {}: rowcast.db-wal is not of this rowcast.db (was one of them replaced \
             after a crash?), or it is damaged; nothing was changed. Put the old file back, or \
             restore a backup",
            dir.display()
        ),
    ))
}

/// Whether the write-ahead log beside a store's file is that file's, as far as can be told.
pub(crate) fn fits(file: &Path) -> bool {
    let mut wal = file.to_owned().into_os_string();
    wal.push("-wal");
    let filled = |path: &Path| std::fs::metadata(path).is_ok_and(|file| file.len() > 0);
    if !filled(file) || !filled(wal.as_ref()) {
        return true;
    }
    // A file that is read while a checkpoint was half done may make no sense by itself. Then
    // nothing can be told, and nothing is refused.
    let Some(alone) = alone(file) else { return true };
    stands(file, alone)
}

/// What only grows.
struct Seen {
    newest: Mark,
    /// SQLite's count of changes to the tables; a copy counts one more than what it was made of.
    schema: i64,
}

/// What is in the file, its write-ahead log left aside.
fn alone(file: &Path) -> Option<Seen> {
    let mut uri = String::from("file:");
    for byte in std::path::absolute(file).ok()?.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                uri.push(char::from(*byte));
            }
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri, flags).ok()?;
    let newest = log::tail(&connection).ok()?.newest;
    let entry: Vec<u8> = connection
        .query_row(
            "SELECT entry FROM _rc_log WHERE position = ?1",
            [newest.position as i64],
            |row| row.get(0),
        )
        .ok()?;
    codec::decode(&entry).ok()?;
    Some(Seen { newest, schema: schema(&connection).ok()? })
}

fn schema(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "schema_version", |row| row.get(0))
}

/// Whether that entry is still there, or was trimmed, when the write-ahead log is read too.
fn stands(file: &Path, alone: Seen) -> bool {
    let entry = alone.newest;
    let read = || -> rusqlite::Result<bool> {
        let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        if schema(&connection)? < alone.schema {
            return Ok(false);
        }
        let stamp = "SELECT stamp FROM _rc_log WHERE position = ?1";
        let stamp = connection
            .query_row(stamp, [entry.position as i64], |row| row.get::<_, i64>(0))
            .optional()?;
        let oldest = "SELECT min(position) FROM _rc_log";
        let oldest: Option<i64> = connection.query_row(oldest, (), |row| row.get(0))?;
        Ok(match stamp {
            Some(stamp) => stamp as u64 == entry.stamp,
            None => oldest.is_some_and(|oldest| oldest as u64 > entry.position),
        })
    };
    match read() {
        Ok(stands) => stands,
        // Whether it is damaged is for the opening to say; a lock or a bad disk too.
        Err(error) => !matches!(
            error.sqlite_error_code(),
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
                | Some(rusqlite::ErrorCode::Unknown)
        ),
    }
}
