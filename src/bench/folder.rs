//! The folder that a measured server works in: gone with it, and if whoever made it was killed
//! before that, gone when the next one is made beside it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tempfile::{Builder, TempDir};

const PREFIX: &str = "rowcast-bench-";

/// Locked as long as the folder is in use: the system lets go of it however the process ends.
const LOCK: &str = "in-use";

/// Removed when dropped.
pub struct Folder {
    dir: TempDir,
    _lock: File,
}

impl Folder {
    /// A new one in `dir`. Says on stderr what was removed there, left by the killed.
    pub fn make(dir: &Path) -> io::Result<Folder> {
        for left in sweep(dir) {
            eprintln!("rowcast: {} was left by a bench that was killed: removed", left.display());
        }
        let dir = Builder::new().prefix(PREFIX).tempdir_in(dir)?;
        // Locked before it bears the name: nobody finds one that is free but left.
        let new = dir.path().join("new");
        let lock = File::create_new(&new)?;
        lock.lock()?;
        fs::rename(&new, dir.path().join(LOCK))?;
        Ok(Folder { dir, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Removes the folders in `dir` that nobody uses any more. What is another user's, or no folder of a
/// bench in spite of its name, stays.
fn sweep(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let named = entries.flatten().filter(|entry| {
        entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX))
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
    });
    named.map(|entry| entry.path()).filter(|path| is_left(path).is_some()).collect()
}

/// Whether it was left, and is gone now.
fn is_left(path: &Path) -> Option<()> {
    let lock = path.join(LOCK);
    let of = fs::symlink_metadata(&lock).ok()?;
    if !of.is_file() || of.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    let lock = File::open(lock).ok()?;
    lock.try_lock().ok()?;
    fs::remove_dir_all(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_killed_left_is_removed_and_nothing_else() {
        let place = tempfile::tempdir().expect("a folder");
        let used = Folder::make(place.path()).expect("one");
        // As after a kill: there, and locked by nobody.
        let left = place.path().join("rowcast-bench-left");
        fs::create_dir_all(left.join("data")).expect("a folder");
        fs::write(left.join(LOCK), "").expect("a file");
        // No lock, or another name: nobody's business.
        let others = ["rowcast-bench-other", "other"].map(|name| place.path().join(name));
        others.iter().for_each(|other| fs::create_dir(other).expect("a folder"));
        fs::write(others[1].join(LOCK), "").expect("a file");
        assert_eq!(sweep(place.path()), [left]);
        let next = Folder::make(place.path()).expect("another");
        for path in others.iter().map(PathBuf::as_path).chain([used.path(), next.path()]) {
            assert!(path.is_dir(), "{}", path.display());
        }
        drop((used, next));
        assert_eq!(fs::read_dir(place.path()).expect("the folder").count(), 2);
    }
}
