//! A whole copy of the store in one file, made while it is written to.
//!
//! The copy is one read transaction: rows and log agree. Writers are not held up, but the
//! write-ahead log cannot start over while it lasts and grows by what is written meanwhile.
//!
//! **Does not know:** who asks, and how the copy comes back (`restore.rs`).

pub mod restore;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use serde_json::{Value as Json, json};

use crate::error::{Error, Kind, Result};
use crate::model::catalog::Catalog;
use crate::model::schema::SchemaKind;
use crate::model::time;

use super::fault::Trouble;
use super::log::{self, LogSize};
use super::{belongs, connection, format, functions, lock, migrate};

/// Steps of SQLite's machine between two looks at whether to go on.
const STEPS: i32 = 10_000;

/// How the names begin that the data directory needs for itself.
const OWN: [&str; 5] = ["rowcast.db", ".env", "lock", "control.sock", ".control"];

/// Page cache of a copy and of a check, in KiB.
const CACHE_KIB: i64 = 16 << 10;

/// What a long copy is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading a file through to see whether it is whole.
    Checking,
    /// Writing the copy.
    Copying,
    /// Counting what is in the copy, and waiting for the disk.
    Finishing,
}

impl Stage {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Checking => "checking",
            Stage::Copying => "copying",
            Stage::Finishing => "finishing",
        }
    }
}

/// How far a copy is, for whoever waits for it, and the way to end it.
#[derive(Debug, Default)]
pub struct Progress {
    stage: AtomicU8,
    done: AtomicU64,
    of: AtomicU64,
    stopped: AtomicBool,
}

impl Progress {
    /// The stage, bytes written, and bytes there will be at most (0 while that is not known).
    pub fn now(&self) -> (Stage, u64, u64) {
        let stage = match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Checking,
            1 => Stage::Copying,
            _ => Stage::Finishing,
        };
        (stage, self.done.load(Ordering::Relaxed), self.of.load(Ordering::Relaxed))
    }

    /// Nobody waits any more: the copy ends with an error and leaves nothing behind.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// What is in a store's file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Records of the schemas that are served, and how many those are.
    pub records: u64,
    pub schemas: usize,
    pub users: u64,
    /// The change log.
    pub log: LogSize,
    /// Of the file.
    pub bytes: u64,
}

impl Contents {
    /// As it travels between a server and its owner's command; times are RFC 3339 or null.
    pub fn to_json(&self) -> Json {
        json!({
            "records": self.records,
            "schemas": self.schemas,
            "users": self.users,
            "entries": self.log.entries,
            "newest": self.log.newest.map(|mark| time::format(mark.time)),
            "bytes": self.bytes,
        })
    }
}

/// Copies the store in `dir` to the file `to`, readable by its owner alone: whole and on disk when
/// this returns, or not there at all. `dir` may be in use by this process, or by none: then the
/// caller holds the lock. Blocks.
///
/// # Errors
/// 400 where `to` cannot be written to or holds something and not `force`; 503 for a disk that
/// fails or a store that is damaged. Errors name files: they are for the owner.
pub fn write(dir: &Path, to: &Path, force: bool, progress: &Arc<Progress>) -> Result<Contents> {
    let target = Target::new(dir, to, force)?;
    let source = connection::file(dir);
    let store = open(&source, OpenFlags::SQLITE_OPEN_READ_WRITE, progress)?;
    known(&store, &source)?;
    let part = Part::make(target.beside(".", ".part")?)?;
    copy(&store, &source, &part.path, progress)?;
    progress.enter(Stage::Finishing);
    let mut copied = open(&part.path, OpenFlags::SQLITE_OPEN_READ_WRITE, progress)?;
    format::raise(&mut copied).map_err(|error| failed(&part.path, error))?;
    let contents = contents(&copied, &part.path)?;
    copied.close().map_err(|(_, error)| failed(&part.path, error))?;
    if progress.is_stopped() {
        return Err(stopped());
    }
    target.put(part)?;
    Ok(contents)
}

/// [`write()`] for a store that no server has open: takes its lock.
///
/// # Errors
/// Those of [`write()`]; 503 where the directory is in use, or its write-ahead log another
/// store's; 400 where there is no store in it.
pub fn write_closed(
    dir: &Path,
    to: &Path,
    force: bool,
    progress: &Arc<Progress>,
) -> Result<Contents> {
    if !restore::holds_data(dir) {
        return Err(Error::bad(format!("there is no store in {}", dir.display())));
    }
    Target::new(dir, to, force)?;
    let _lock = lock::take(dir)?;
    restore::finish(dir)?;
    belongs::check(dir)?;
    write(dir, to, force, progress)
}

/// Where a backup goes.
struct Target {
    path: PathBuf,
    folder: PathBuf,
    name: OsString,
    force: bool,
}

impl Target {
    fn new(dir: &Path, to: &Path, force: bool) -> Result<Target> {
        let shown = to.display();
        let Some(name) = to.file_name().map(ToOwned::to_owned) else {
            return Err(Error::bad(format!("'{shown}' is no name for a file")));
        };
        if to.to_str().is_none() {
            return Err(Error::bad(format!("{shown}: a name in UTF-8 is needed")));
        }
        let folder = match to.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let found = folder.canonicalize();
        let found = found.map_err(|error| wrong(&folder, "cannot be written to", &error))?;
        let own = dir.canonicalize().is_ok_and(|dir| dir == found);
        let there = fs::symlink_metadata(to);
        // Beside the store lie its keys, its lock and its door: nothing there is ever replaced.
        let ours = |name: &[u8]| OWN.iter().any(|own| name.starts_with(own.as_bytes()));
        if own && (there.is_ok() || ours(name.as_encoded_bytes())) {
            return Err(Error::bad(format!("{shown} is the store's own; choose another name")));
        }
        match there {
            Ok(there) if there.is_dir() => {
                return Err(Error::bad(format!("{shown} is a folder; name a file in it")));
            }
            Ok(there) if !there.is_file() && !there.is_symlink() => {
                return Err(Error::bad(format!("{shown} is no plain file; choose another name")));
            }
            // An empty file is somebody's placeholder (`mktemp`).
            Ok(there) if !(force || there.is_file() && there.len() == 0) => {
                return Err(Error::bad(format!(
                    "{shown} is there already; choose another name, or --force to replace it"
                )));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(wrong(to, "cannot be written", &error));
            }
            _ => {}
        }
        Ok(Target { path: to.to_owned(), folder, name, force })
    }

    /// A name in the same folder.
    fn beside(&self, before: &str, after: &str) -> Result<PathBuf> {
        let mut name = OsString::from(before);
        name.push(&self.name);
        name.push(after);
        Ok(self.folder.join(name))
    }

    /// Gives the finished copy its name.
    fn put(&self, mut part: Part) -> Result<()> {
        let fail = |error: io::Error| wrong(&self.path, "cannot be written", &error);
        sync(&part.path).map_err(fail)?;
        let empty = fs::symlink_metadata(&self.path).is_ok_and(|there| there.len() == 0);
        if self.force || empty {
            fs::rename(&part.path, &self.path).map_err(fail)?;
        } else {
            // Unlike a rename, a link never replaces what somebody has put there meanwhile.
            match fs::hard_link(&part.path, &self.path) {
                Ok(()) => fs::remove_file(&part.path).map_err(fail)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(fail(error));
                }
                // Some file systems have no links.
                Err(_) => fs::rename(&part.path, &self.path).map_err(fail)?,
            }
        }
        part.done = true;
        sync(&self.folder).map_err(fail)
    }
}

/// A copy in the making; dropped before it is done, it goes away.
struct Part {
    path: PathBuf,
    done: bool,
}

impl Part {
    /// An empty file that only its owner can read. What an earlier, killed attempt left is
    /// replaced.
    fn make(path: PathBuf) -> Result<Part> {
        let part = Part { path, done: false };
        let made = remove(&part.path).and_then(|()| {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            {
                use std::os::unix::fs::OpenOptionsExt as _;
                options.mode(0o600);
            }
            options.open(&part.path)
        });
        match made {
            Ok(_) => Ok(part),
            Err(error) => Err(wrong(&part.path, "cannot be made", &error)),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.done {
            let _ = remove(&self.path);
            let _ = remove(&with(&self.path, "-journal"));
        }
    }
}

/// Removes a file; that it is gone already is well.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The path with something added to its last name.
fn with(path: &Path, end: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(end);
    path.into()
}

/// Has a file, or a folder's names, on disk.
fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Opens any store's file for copying and checking, its statements ended by `progress`.
fn open(path: &Path, access: OpenFlags, progress: &Arc<Progress>) -> Result<Connection> {
    let opened = || -> rusqlite::Result<Connection> {
        let mut opened =
            Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        opened.busy_timeout(Duration::from_secs(10))?;
        opened.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        opened.pragma_update(None, "cache_size", -CACHE_KIB)?;
        opened.pragma_update(None, "temp_store", "MEMORY")?;
        // The caller syncs the file once it is whole.
        opened.pragma_update(None, "synchronous", "NORMAL")?;
        functions::register(&opened)?;
        let progress = progress.clone();
        opened.progress_handler(STEPS, Some(move || progress.is_stopped()))?;
        Ok(opened)
    };
    opened().map_err(|error| failed(path, error))
}

/// Copies everything that one moment's transaction sees to the empty file `part`.
fn copy(store: &Connection, source: &Path, part: &Path, progress: &Arc<Progress>) -> Result<()> {
    let number = |name: &str| store.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let size = || Ok((number("page_count")? - number("freelist_count")?) * number("page_size")?);
    let size = size().map_err(|error| failed(source, error))?;
    progress.of.store(size.unsigned_abs(), Ordering::Relaxed);
    progress.done.store(0, Ordering::Relaxed);
    progress.enter(Stage::Copying);
    let name = part.to_str().ok_or_else(|| Error::bad("a name in UTF-8 is needed"))?;
    // The copy grows as it is made; looking at its size is all that can be told from outside.
    let over = AtomicBool::new(false);
    let copied = std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                if let Ok(part) = fs::metadata(part) {
                    progress.done.store(part.len(), Ordering::Relaxed);
                }
                std::thread::park_timeout(Duration::from_millis(200));
            }
        });
        let copied = store.execute("VACUUM INTO ?1", [name]);
        over.store(true, Ordering::Relaxed);
        looking.thread().unpark();
        copied
    });
    copied.map(drop).map_err(|error| match Trouble::of(&error) {
        // Nothing is written but the copy.
        Trouble::Full => failed(part, error),
        _ => failed(source, error),
    })
}

/// Refuses a file that is none of ours, or of a newer program.
fn known(store: &Connection, path: &Path) -> Result<()> {
    let number = |name| store.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let numbers = number("application_id").and_then(|id| Ok((id, number("user_version")?)));
    let (id, format) = numbers.map_err(|error| failed(path, error))?;
    if id != format::APPLICATION || format < 1 {
        return Err(Error::bad(format!("{} is not a Rowcast store", path.display())));
    }
    if format > format::FORMAT {
        return Err(Error::bad(format!(
            "{} has format {format}, this program reads up to format {}; use a newer rowcast",
            path.display(),
            format::FORMAT
        )));
    }
    Ok(())
}

/// Counts what is in a store of the present format.
fn contents(store: &Connection, path: &Path) -> Result<Contents> {
    let fail = |error| failed(path, error);
    let mut contents = Contents {
        log: log::size(store)?,
        bytes: fs::metadata(path).map_err(|error| wrong(path, "cannot be read", &error))?.len(),
        ..Contents::default()
    };
    let catalog: Catalog = migrate::load(store)?;
    for schema in catalog.all() {
        let count = || {
            let text = format!("SELECT count(*) FROM {}", crate::filter::sql::quote(&schema.table));
            store.query_row(&text, (), |row| row.get::<_, i64>(0)).map_err(fail)
        };
        match schema.kind {
            SchemaKind::User => {
                contents.records += count()?.unsigned_abs();
                contents.schemas += 1;
            }
            SchemaKind::System if &*schema.name == "user" => {
                contents.users = count()?.unsigned_abs();
            }
            _ => {}
        }
    }
    Ok(contents)
}

fn stopped() -> Error {
    Error::new(Kind::Unavailable, "stopped; nothing was written")
}

fn wrong(path: &Path, what: &str, error: &io::Error) -> Error {
    Error::bad(format!("{} {what}: {error}", path.display()))
}

/// SQLite's answer in words for the owner, who may know the file.
fn failed(path: &Path, error: rusqlite::Error) -> Error {
    let shown = path.display();
    let text = match Trouble::of(&error) {
        Trouble::Interrupted => return stopped(),
        Trouble::Full => format!("{shown}: the disk is full"),
        Trouble::Busy => format!("{shown} is locked by another process"),
        Trouble::Disk => format!("{shown} cannot be read or written: {error}"),
        Trouble::Fault => match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => format!("{shown} is not a Rowcast store"),
            Some(ErrorCode::DatabaseCorrupt) => format!("{shown} is damaged: {error}"),
            _ => format!("{shown}: {error}"),
        },
    };
    Error::new(Kind::Unavailable, text)
}
