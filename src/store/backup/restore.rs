//! A backup back in the place of a store.
//!
//! The new store is made whole beside the old one, checked and synced; one renaming then decides.
//! Before it the old store is what is there, after it the new one is: whoever opens the directory
//! next finishes what is left to do (`finish`), so that a crash at any moment leaves either.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags};

use crate::error::{Error, Kind, Result};
use crate::model::schema::SchemaKind;
use crate::model::time;

use super::{Contents, Part, Progress, Stage, contents, copy, failed, known, open, remove, sync};
use super::{belongs, connection, format, lock, migrate, with, wrong};

/// A store that is to take the place of the one there; a tag follows.
const RESTORING: &str = "rowcast.db.restoring-";

/// The store that was there before; the same tag follows.
const BEFORE: &str = "rowcast.db.before-";

/// What came back, and what is left to be said.
#[derive(Debug)]
pub struct Restored {
    pub contents: Contents,
    /// The store that was there before; a file beside it with `-wal` at the end belongs to it.
    pub before: Option<PathBuf>,
    /// The schemas that are served from it: names and applied texts.
    pub schemas: Vec<(String, String)>,
}

/// Puts the backup `from` in the place of the store in `dir`, with all sessions ended. Takes the
/// directory's lock; makes the directory if there is none. Blocks.
///
/// # Errors
/// 400 where `from` is no whole store, or there is data and not `force`; 503 where the directory
/// is in use or a disk fails. Unless this returns `Ok`, the old store is still there (a crash
/// after the decisive renaming aside).
pub fn restore(dir: &Path, from: &Path, force: bool, progress: &Arc<Progress>) -> Result<Restored> {
    let source = examine(dir, from, progress)?;
    let _lock = lock::take(dir)?;
    finish(dir)?;
    if holds_data(dir) && !force {
        return Err(Error::bad(format!(
            "there is a store in {} already; --force restores all the same, and moves it aside",
            dir.display()
        )));
    }
    whole(&source, from)?;
    let tag = tag(dir);
    let part = Part::make(dir.join(format!(".{RESTORING}{tag}")))?;
    copy(&source, from, &part.path, progress)?;
    progress.enter(Stage::Finishing);
    let mut made = open(&part.path, OpenFlags::SQLITE_OPEN_READ_WRITE, progress)?;
    format::raise(&mut made).map_err(|error| failed(&part.path, error))?;
    end_sessions(&made).map_err(|error| failed(&part.path, error))?;
    let contents = contents(&made, &part.path)?;
    let schemas = texts(&made)?;
    made.close().map_err(|(_, error)| failed(&part.path, error))?;
    decide(dir, &tag, part)?;
    let before = finish(dir)?;
    if let Some(before) = &before {
        fold(before);
    }
    Ok(Restored { contents, before, schemas })
}

/// The backup, opened and known to be a store that this program can read.
fn examine(dir: &Path, from: &Path, progress: &Arc<Progress>) -> Result<Connection> {
    let unreadable = |error: std::io::Error| wrong(from, "cannot be read", &error);
    let file = fs::metadata(from).map_err(unreadable)?;
    if !file.is_file() {
        return Err(Error::bad(format!("{} is not a file", from.display())));
    }
    let here = |path: &Path| path.canonicalize().ok();
    if here(from).is_some_and(|from| Some(from) == here(&connection::file(dir))) {
        return Err(Error::bad(format!("{} is the store itself", from.display())));
    }
    progress.enter(Stage::Checking);
    let source = open(from, OpenFlags::SQLITE_OPEN_READ_ONLY, progress)?;
    known(&source, from)?;
    Ok(source)
}

/// Refuses a file whose pages do not fit together.
fn whole(source: &Connection, from: &Path) -> Result<()> {
    let told: String = source
        .query_row("PRAGMA integrity_check(1)", (), |row| row.get(0))
        .map_err(|error| failed(from, error))?;
    if told == "ok" {
        return Ok(());
    }
    Err(Error::bad(format!("{} is damaged and was not restored: {told}", from.display())))
}

/// Whoever was logged in logs in again: what was revoked since the backup must not come back.
fn end_sessions(made: &Connection) -> rusqlite::Result<()> {
    made.execute_batch("DELETE FROM _rc_session; DELETE FROM _rc_refresh_used;")
}

/// What is served from a store: names and applied texts.
fn texts(made: &Connection) -> Result<Vec<(String, String)>> {
    let stored = migrate::stored(made)?;
    let served = stored.schemas.into_values();
    let served = served.filter(|one| !one.retired && one.schema.kind == SchemaKind::User);
    let mut texts: Vec<_> =
        served.map(|one| (one.schema.name.to_string(), one.text.to_string())).collect();
    texts.sort();
    Ok(texts)
}

/// The renaming that makes the new store the one that counts.
fn decide(dir: &Path, tag: &str, mut part: Part) -> Result<()> {
    let fail = |error| wrong(dir, "cannot be written", &error);
    sync(&part.path).map_err(fail)?;
    sync(dir).map_err(fail)?;
    fs::rename(&part.path, dir.join(format!("{RESTORING}{tag}"))).map_err(fail)?;
    part.done = true;
    sync(dir).map_err(fail)
}

/// Puts a restored store in its place, if one waits for it; gives where the old one went. To be
/// called under the lock, before the store is opened. Every step may have been done before.
///
/// # Errors
/// 503 where the directory cannot be read or written.
pub(crate) fn finish(dir: &Path) -> Result<Option<PathBuf>> {
    let Some(tag) = waiting(dir)? else { return Ok(None) };
    let before = dir.join(format!("{BEFORE}{tag}"));
    let store = connection::file(dir);
    let moved = || -> std::io::Result<bool> {
        // While the new store waits, everything of this name is the old one's. The one but for
        // an empty file, which taking the lock makes after a crash between these steps.
        for end in ["-wal", "-journal"] {
            if filled(&with(&store, end)) {
                fs::rename(with(&store, end), with(&before, end))?;
            }
        }
        for end in ["-wal", "-journal", "-shm"] {
            remove(&with(&store, end))?;
        }
        if filled(&store) {
            fs::rename(&store, &before)?;
        }
        // A new store must never be seen beside an old one's write-ahead log.
        sync(dir)?;
        fs::rename(dir.join(format!("{RESTORING}{tag}")), &store)?;
        sync(dir)?;
        Ok(before.exists())
    };
    let moved = moved().map_err(|error| {
        let text = format!("data directory {}: a restore cannot be finished", dir.display());
        Error::new(Kind::Unavailable, format!("{text}: {error}"))
    })?;
    tracing::info!("the restored store is in place");
    Ok(moved.then_some(before))
}

/// The tag of a store that waits to be put in place.
fn waiting(dir: &Path) -> Result<Option<String>> {
    let unreadable = |error: std::io::Error| {
        let text = format!("data directory {} cannot be read: {error}", dir.display());
        Error::new(Kind::Unavailable, text)
    };
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        if let Some(tag) = name.to_str().and_then(|name| name.strip_prefix(RESTORING)) {
            return Ok(Some(tag.to_owned()));
        }
    }
    Ok(None)
}

/// Whether there is a store in the directory, or what may be left of one.
pub(super) fn holds_data(dir: &Path) -> bool {
    let store = connection::file(dir);
    filled(&store) || filled(&with(&store, "-wal")) || waiting(dir).is_ok_and(|tag| tag.is_some())
}

fn filled(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

/// Now, as part of a name that no file has yet. What earlier, killed restores left is taken away.
fn tag(dir: &Path) -> String {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(&format!(".{RESTORING}"))) {
            let _ = fs::remove_file(entry.path());
        }
    }
    let now = time::format(super::super::writer::clock());
    let now: String = now.chars().filter(char::is_ascii_alphanumeric).collect();
    let now = now.get(..15).unwrap_or(&now);
    let mut tag = format!("{now}Z");
    let mut more = 1;
    while dir.join(format!("{BEFORE}{tag}")).exists() {
        more += 1;
        tag = format!("{now}Z-{more}");
    }
    tag
}

/// Moves what stands in the old store's write-ahead log into its file, so that one file is all of
/// it. Where it cannot (it may be damaged, or not this file's: that may be why it was replaced),
/// both stay.
fn fold(before: &Path) {
    if !filled(&with(before, "-wal")) {
        return;
    }
    if !belongs::fits(before) {
        let shown = before.display();
        return tracing::warn!("{shown} and the write-ahead log beside it do not fit: both stay");
    }
    let folded = || -> rusqlite::Result<String> {
        let store = Connection::open_with_flags(before, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        store.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get(0))
    };
    if let Err(error) = folded() {
        tracing::warn!("{} keeps its write-ahead log beside it: {error}", before.display());
    }
}
