//! One server a data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};

/// How long a held lock is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// Held as long as the store is open; the system lets go of it when the process ends, however.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

/// Makes the directory if it is missing (0700) and takes its lock. Errors name the directory:
/// they are for whoever starts the server, not for its clients.
pub(crate) fn take(dir: &Path) -> Result<DirLock> {
    let fail = |what: &str, error: &dyn std::fmt::Display| {
        Error::new(Kind::Unavailable, format!("data directory {}: {what}: {error}", dir.display()))
    };
    make(dir).map_err(|error| fail("cannot be made", &error))?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join("lock"))
        .map_err(|error| fail("is not writable", &error))?;
    match patiently(&file) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Error::new(
                Kind::Unavailable,
                format!(
                    "data directory {} is in use by another rowcast server; stop that one or \
                     choose another directory",
                    dir.display()
                ),
            ));
        }
        Err(TryLockError::Error(error)) => return Err(fail("cannot be locked", &error)),
    }
    // SQLite would make it for everyone to read; its other files take after it.
    private(&super::connection::file(dir)).map_err(|error| fail("is not writable", &error))?;
    // Whose lock it is, for people; nothing reads it, and a full disk is told later and better.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(DirLock { _file: file })
}

/// Tries for a moment: a server that is told to stop may be at its last breath, and a process that
/// is just being started holds its parent's files until it is another program.
fn patiently(file: &File) -> std::result::Result<(), TryLockError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(PATIENCE / 25);
            }
            outcome => return outcome,
        }
    }
}

/// Makes a file that is its owner's alone, where there is none.
fn private(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path).map(drop)
}

fn make(dir: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    if !dir.is_dir() {
        builder.create(dir)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_by_name_until_the_first_is_gone() -> Result<()> {
        let temp = tempfile::tempdir().map_err(Error::internal)?;
        let dir = temp.path().join("data");
        let first = take(&dir)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = dir.metadata().map_err(Error::internal)?.permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
        let refused = take(&dir).err().map(|error| error.message).unwrap_or_default();
        assert!(refused.contains(&*dir.to_string_lossy()), "{refused}");
        assert!(refused.contains("in use"), "{refused}");
        drop(first);
        take(&dir).map(drop)
    }
}
