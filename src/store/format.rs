//! The number of the store's own layout, and how an older one is brought up to date.
//!
//! The number stands in SQLite's `user_version`, beside an `application_id` that tells a Rowcast
//! store from any other SQLite file. Schemas' tables are not counted here: they have a catalog.

use std::path::Path;

use rusqlite::Connection;

use crate::error::{Error, Kind, Result};

use super::fault::fault;
use super::{accounts, connection, given, log, migrate, readable};

/// `RWCT`.
pub(crate) const APPLICATION: i32 = 0x5257_4354;

/// The layout this program reads and writes.
pub(crate) const FORMAT: i32 = 3;

/// Brings a store of format `n` to `n + 1`, within a transaction.
type Step = fn(&Connection) -> rusqlite::Result<()>;

/// `STEPS[n - 1]` leads from format `n` to `n + 1`.
const STEPS: &[Step] = &[readable::add, given::add];

const _: () = assert!(STEPS.len() + 1 == FORMAT as usize, "a step for every older format");

/// The system's own tables.
fn lay_out(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TABLE _rc_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
         INSERT INTO _rc_meta VALUES ('catalog', 0);",
    )?;
    migrate::create(connection)?;
    log::create(connection)?;
    readable::create(connection)?;
    given::create(connection)?;
    accounts::create(connection)
}

/// Makes a new store, accepts one of this format, brings an older one up to date (after a copy),
/// refuses a newer one and files that are no store.
pub(crate) fn ready(writer: &mut Connection, dir: &Path) -> Result<()> {
    bring_up(writer, dir, FORMAT, STEPS)
}

fn bring_up(writer: &mut Connection, dir: &Path, current: i32, steps: &[Step]) -> Result<()> {
    let number = |name| writer.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let application = number("application_id").map_err(|error| at_open(dir, error))?;
    let format = number("user_version").map_err(|error| at_open(dir, error))?;
    let refuse = |text: String| {
        Err(Error::new(Kind::Unavailable, format!("data directory {}: {text}", dir.display())))
    };
    if application == 0 && format == 0 {
        let tables: i64 = writer
            .query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))
            .map_err(|error| at_open(dir, error))?;
        if tables > 0 {
            return refuse("its rowcast.db is not a Rowcast store".into());
        }
        return change(writer, current, &[lay_out]).map_err(|error| at_open(dir, error));
    }
    if application != APPLICATION || format < 1 {
        return refuse("its rowcast.db is not a Rowcast store".into());
    }
    if format > current {
        return refuse(format!(
            "the store has format {format}, this program reads up to format {current}; use a \
             newer rowcast or a backup"
        ));
    }
    if format < current {
        let copy = dir.join(format!("rowcast.db.format-{format}"));
        copy_to(writer, &copy).map_err(|error| at_open(dir, error))?;
        tracing::info!(
            "store format {format} becomes {current}; a copy of the old one is kept as {}",
            copy.display()
        );
        let todo = &steps[(format - 1) as usize..(current - 1) as usize];
        change(writer, current, todo).map_err(|error| at_open(dir, error))?;
    }
    Ok(())
}

/// Brings a store of a known format up to date in its place: for a copy, of which nobody needs
/// another.
pub(crate) fn raise(copy: &mut Connection) -> rusqlite::Result<()> {
    let format: i32 = copy.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match STEPS.get(usize::try_from(format - 1).unwrap_or(usize::MAX)..) {
        None | Some([]) => Ok(()),
        Some(steps) => change(copy, FORMAT, steps),
    }
}

/// Runs the steps and notes the new format, all or nothing.
fn change(writer: &mut Connection, format: i32, steps: &[Step]) -> rusqlite::Result<()> {
    let transaction = writer.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for step in steps {
        step(&transaction)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", format)?;
    transaction.commit()
}

/// A whole, consistent copy that only the owner can read. An unfinished copy of an earlier start
/// is replaced.
fn copy_to(writer: &Connection, copy: &Path) -> rusqlite::Result<()> {
    let io = |error: std::io::Error| rusqlite::Error::ToSqlConversionFailure(error.into());
    let part = copy.with_extension("part");
    match std::fs::remove_file(&part) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    writer.execute("VACUUM INTO ?1", [part.to_string_lossy()])?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o600)).map_err(io)?;
    }
    std::fs::File::open(&part).and_then(|file| file.sync_all()).map_err(io)?;
    std::fs::rename(&part, copy).map_err(io)
}

/// Errors while opening are for whoever starts the server and name the directory.
pub(crate) fn at_open(dir: &Path, error: rusqlite::Error) -> Error {
    use super::fault::Trouble;
    let what = match Trouble::of(&error) {
        Trouble::Full => "the disk is full".into(),
        Trouble::Busy => "its rowcast.db is locked by another process; close that one".into(),
        Trouble::Disk => format!("its rowcast.db cannot be read and written: {error}"),
        Trouble::Interrupted | Trouble::Fault => match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => {
                "its rowcast.db is not a Rowcast store".into()
            }
            Some(rusqlite::ErrorCode::DatabaseCorrupt) => {
                format!("its rowcast.db is damaged ({error}); restore a backup")
            }
            _ => format!("its rowcast.db cannot be opened: {error}"),
        },
    };
    Error::new(Kind::Unavailable, format!("data directory {}: {what}", dir.display()))
}

/// The writer's connection to the store in `dir`, made or brought up to date.
pub(crate) fn open(dir: &Path) -> Result<Connection> {
    connection::make(dir).map_err(|error| {
        let text = format!("data directory {}: rowcast.db cannot be made: {error}", dir.display());
        Error::new(Kind::Unavailable, text)
    })?;
    let mut writer =
        connection::open(dir, connection::Use::Write).map_err(|error| at_open(dir, error))?;
    ready(&mut writer, dir)?;
    // Not before it is known to be ours: other programs' files are left as they are.
    if !connection::write_ahead(&writer).map_err(|error| at_open(dir, error))? {
        return Err(Error::new(
            Kind::Unavailable,
            format!(
                "data directory {}: its file system cannot share memory between processes, which \
                 SQLite's write-ahead log needs; choose a local directory",
                dir.display()
            ),
        ));
    }
    Ok(writer)
}

/// The version of the catalog that the rows are in, within the caller's transaction.
pub(crate) fn catalog_version(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT value FROM _rc_meta WHERE name = 'catalog'")
        .and_then(|mut statement| statement.query_row((), |row| row.get::<_, i64>(0)))
        .map(|version| version as u64)
}

/// Notes it, within the caller's transaction.
pub(crate) fn set_catalog_version(connection: &Connection, version: u64) -> Result<()> {
    connection
        .execute("UPDATE _rc_meta SET value = ?1 WHERE name = 'catalog'", [version as i64])
        .map(drop)
        .map_err(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(dir: &Path) -> Connection {
        open(dir).unwrap_or_else(|error| panic!("{error}"))
    }

    fn format_of(connection: &Connection) -> i32 {
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap_or(-1)
    }

    #[test]
    fn a_newer_store_is_refused_with_both_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = made(dir.path());
        writer.pragma_update(None, "user_version", 77).unwrap();
        let refused = ready(&mut writer, dir.path()).unwrap_err().message;
        assert!(refused.contains("77") && refused.contains(&FORMAT.to_string()), "{refused}");
    }

    #[test]
    fn an_older_store_is_migrated_after_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = made(dir.path());
        let from = FORMAT;
        let mut steps = STEPS.to_vec();
        steps.push(|connection| connection.execute_batch("CREATE TABLE _rc_one (a INTEGER)"));
        steps.push(|connection| connection.execute_batch("CREATE TABLE _rc_two (a INTEGER)"));
        bring_up(&mut writer, dir.path(), from + 2, &steps).unwrap();
        assert_eq!(format_of(&writer), from + 2);
        writer.execute_batch("SELECT * FROM _rc_one, _rc_two").unwrap();

        let path = dir.path().join(format!("rowcast.db.format-{from}"));
        let copy = Connection::open(&path).unwrap();
        assert_eq!(format_of(&copy), from);
        assert!(copy.execute_batch("SELECT * FROM _rc_one").is_err());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_step_that_fails_leaves_the_old_format() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = made(dir.path());
        let mut steps = STEPS.to_vec();
        steps.push(|connection| {
            connection.execute_batch("CREATE TABLE _rc_one (a INTEGER); SELECT nonsense")
        });
        assert!(bring_up(&mut writer, dir.path(), FORMAT + 1, &steps).is_err());
        assert_eq!(format_of(&writer), FORMAT);
        assert!(writer.execute_batch("SELECT * FROM _rc_one").is_err());
    }

    #[test]
    fn other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(connection::file(dir.path()), "no database at all, but long enough")
            .unwrap();
        let refused = open(dir.path()).map(drop).unwrap_err().message;
        assert!(refused.contains("not a Rowcast store"), "{refused}");

        let dir = tempfile::tempdir().unwrap();
        let other = Connection::open(connection::file(dir.path())).unwrap();
        other.execute_batch("CREATE TABLE a (b)").unwrap();
        drop(other);
        let refused = open(dir.path()).map(drop).unwrap_err().message;
        assert!(refused.contains("not a Rowcast store"), "{refused}");
    }
}
