//! The folder of schema files on disk: read whole, written so that no reader sees half a file.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Error, Kind, Problem, Result};
use crate::model::file::{self, FILE_BYTES, Parsed};
use crate::store::unavailable;

/// One file as read.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Without `.json`.
    pub stem: String,
    /// `None` where it could not be read: such a file is bad, not gone.
    pub bytes: std::result::Result<Vec<u8>, String>,
}

impl Found {
    pub fn file_name(&self) -> String {
        format!("{}.json", self.stem)
    }

    /// The text as the catalog keeps it, where there is one.
    pub fn text(&self) -> Option<&str> {
        let text = std::str::from_utf8(self.bytes.as_ref().ok()?).ok()?;
        Some(text.strip_prefix(file::BYTE_ORDER_MARK).unwrap_or(text))
    }

    pub fn parse(&self) -> Parsed {
        match &self.bytes {
            Ok(bytes) => file::parse(Some(&self.file_name()), bytes),
            Err(reason) => {
                let problem = Problem {
                    code: "schema.io.read_error".to_owned(),
                    file: Some(self.file_name()),
                    line: None,
                    path: String::new(),
                    field: String::new(),
                    message: format!("the file cannot be read: {reason}"),
                };
                Parsed { def: Err(vec![problem]), draft: None, warnings: Vec::new() }
            }
        }
    }
}

/// Every `*.json` in the folder, by name. Hidden files are no schemas: editors and
/// [`write`] keep their temporary ones so.
pub(super) fn read(dir: &Path) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for path in paths(dir)? {
        let Some(stem) = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()) else {
            continue;
        };
        let bytes = match contents(&path) {
            Ok(bytes) => Ok(bytes),
            // Renamed or removed since the folder was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => Err(error.to_string()),
        };
        found.push(Found { stem, bytes });
    }
    Ok(found)
}

/// One file, where it is there.
pub(super) fn read_one(dir: &Path, stem: &str) -> Option<Found> {
    let path = dir.join(format!("{stem}.json"));
    let bytes = match contents(&path) {
        Ok(bytes) => Ok(bytes),
        Err(_) if path.is_dir() => return None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => Err(error.to_string()),
    };
    Some(Found { stem: stem.to_owned(), bytes })
}

fn paths(dir: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |error: io::Error| {
        Error::new(
            Kind::Unavailable,
            format!("the schemas folder {} cannot be read: {error}", dir.display()),
        )
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden
            && path.extension().is_some_and(|extension| extension == "json")
            && !path.is_dir()
        {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn contents(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe waits for somebody to write into it.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed, so that what is too long is seen to be.
    File::open(path)?.take(FILE_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Cheap to take and different when a file came, went or was written.
pub(super) fn fingerprint(dir: &Path) -> Result<Vec<(PathBuf, u64, Option<SystemTime>)>> {
    Ok(paths(dir)?
        .into_iter()
        .map(|path| match fs::metadata(&path) {
            Ok(data) => (path, data.len(), data.modified().ok()),
            Err(_) => (path, 0, None),
        })
        .collect())
}

/// A file's new text on disk, under a name that is no schema's yet. Dropped without
/// [`Prepared::put`], it goes away.
#[derive(Debug)]
pub(super) struct Prepared {
    temporary: PathBuf,
    target: PathBuf,
    done: bool,
}

/// Writes and syncs the text, so that what can fail has failed before anything is changed.
pub(super) fn prepare(dir: &Path, stem: &str, text: &str) -> Result<Prepared> {
    let prepared = Prepared {
        temporary: dir.join(format!(".{stem}.json.{}", std::process::id())),
        target: dir.join(format!("{stem}.json")),
        done: false,
    };
    let write = || -> io::Result<()> {
        let mut file = File::create(&prepared.temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| unwritable(&prepared.target, &error))?;
    Ok(prepared)
}

fn unwritable(path: &Path, error: &io::Error) -> Error {
    // Paths are for the log, not for clients.
    let cause = format!("{}: {error}", path.display());
    unavailable("the schemas folder cannot be written; nothing was changed", &cause)
}

impl Prepared {
    /// The new text takes the file's name.
    pub fn put(mut self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.target)?;
        self.done = true;
        sync_dir(&self.target)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !self.done {
            // What is left behind is hidden and read by nobody.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Takes a file away; that it is gone already is well.
pub(super) fn remove(dir: &Path, stem: &str) -> io::Result<()> {
    let path = dir.join(format!("{stem}.json"));
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync_dir(&path),
    }
}

/// A rename is on disk when its folder is.
fn sync_dir(path: &Path) -> io::Result<()> {
    match path.parent() {
        #[cfg(unix)]
        Some(dir) => File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_bad_and_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe.json");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("zero.json")).unwrap();
        std::os::unix::fs::symlink("loop.json", dir.path().join("loop.json")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("dangling.json")).unwrap();
        let found = read(dir.path()).unwrap();
        let names: Vec<&str> = found.iter().map(|found| &*found.stem).collect();
        assert_eq!(names, ["loop", "pipe", "zero"]);
        assert!(found.iter().all(|found| found.bytes.is_err() && found.parse().def.is_err()));
    }
}
