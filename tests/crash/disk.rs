//! Disks that do not do as told, and other processes' locks.

use std::path::Path;
#[cfg(target_os = "linux")]
use std::process::Command;
use std::time::{Duration, Instant};

use rowcast::error::Kind;
use rowcast::store::{Options, Store};

use crate::child::Running;
use crate::support::*;

#[test]
fn a_full_disk_is_503_until_there_is_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let Some(running) = Running::start_small("starve", dir.path(), "8m", "4M") else { return };
    let refused = running.wait_for("refused");
    assert!(refused.starts_with("503 the disk is full"), "{refused}");
    assert!(refused.contains("(error "), "{refused}");
    running.wait_for("back");
    running.wait_for("whole");
    assert!(running.ended().success());
}

#[test]
fn a_full_disk_at_open_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let Some(running) = Running::start_small("open", dir.path(), "64k", "60K") else { return };
    let refused = running.wait_for("refused");
    assert!(refused.contains("full"), "{refused}");
    assert!(refused.contains(&*dir.path().to_string_lossy()), "{refused}");
}

/// The other way a disk fails: an error that is not "full". A limit on the size of files does it.
#[cfg(target_os = "linux")]
#[test]
fn a_failing_disk_is_503_until_it_works_again() {
    let dir = tempfile::tempdir().unwrap();
    // A file that grows past the soft limit gets EFBIG, since the signal is ignored.
    let running = Running::start("starve", dir.path(), "trap '' XFSZ; ulimit -S -f 4000");
    let refused = running.wait_for("refused");
    assert!(refused.starts_with("503 the disk does not answer"), "{refused}");
    let pid = running.child.id().to_string();
    let lifted =
        Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:unlimited"]).status();
    if !lifted.is_ok_and(|status| status.success()) {
        eprintln!("left out: no prlimit here");
        return;
    }
    running.wait_for("back");
    running.wait_for("whole");
    assert!(running.ended().success());
}

fn refused_open(dir: &Path) -> String {
    let error = Store::open(Options::new(dir), Box::new(Told::default())).map(drop).unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.contains(&*dir.to_string_lossy()), "{error}");
    error.message
}

#[test]
fn a_database_locked_by_another_process_is_503_and_told_at_open() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(Options::new(dir.path()));
    let other = rusqlite::Connection::open(dir.path().join("rowcast.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begun = Instant::now();
    let error = store.write_blocking(|tx| tx.user(1)).unwrap_err();
    assert_eq!(error.status(), 503);
    assert!(error.message.contains("locked by another process"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    // Reads go on.
    assert!(store.read_blocking(|reader| Ok(reader.find("user", id(1)))).unwrap().is_none());
    other.execute_batch("ROLLBACK").unwrap();
    let position = store.write_blocking(|tx| tx.user(1)).unwrap().commit.unwrap().position;
    assert_eq!(position, 2);
    drop(store);

    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    let error = refused_open(dir.path());
    assert!(error.contains("locked by another process"), "{error}");
}

#[test]
fn directories_that_cannot_be_used_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    refused_open(&file);
    refused_open(&file.join("data"));
    // Root may write everywhere but in a read-only file system.
    let sealed = Path::new("/proc/rowcast");
    if Path::new("/proc/self").exists() {
        refused_open(sealed);
    }
}
