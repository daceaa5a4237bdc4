//! The copy itself, without a server.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rowcast::error::Kind;
use rowcast::store::backup::restore::restore;
use rowcast::store::backup::{self, Progress};
use rowcast::store::{Options, Store};

use crate::support::*;
use crate::whole::examine;
use crate::{mode, names};

fn progress() -> Arc<Progress> {
    Arc::new(Progress::default())
}

/// A store with some records.
fn world(dir: &Path) -> Store {
    let (store, _) = open(Options::new(dir));
    store
        .write_blocking(|tx| {
            tx.user(1)?;
            let category = tx.put("category", &[("name", text("x"))])?;
            for _ in 0..50 {
                let long = text(&"long ".repeat(200));
                let category = ("category_id", category.clone());
                tx.put("blog", &[("title", long), ("author_id", id(1)), category])?;
            }
            Ok(())
        })
        .unwrap();
    store
}

#[test]
fn a_backup_in_a_write_storm_is_of_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let store = world(&data);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (store, over) = (&store, &over);
            scope.spawn(move || {
                let mut n = 0;
                while !over.load(Ordering::Relaxed) {
                    n += 1;
                    let title = format!("{thread} {n}").repeat(50);
                    let written = store.write_blocking(move |tx| {
                        let tag = tx.put("tag", &[("name", text(&title))])?;
                        let blog =
                            tx.put("blog", &[("title", text(&title)), ("author_id", id(1))])?;
                        let number = |value| match value {
                            rowcast::model::value::Value::Int(n) => n,
                            other => panic!("{other:?}"),
                        };
                        let (tag, blog) = (number(tag), number(blog));
                        tx.tie(("blog", "tags"), blog, tag, true)?;
                        if blog % 3 == 0 {
                            tx.drop_it("blog", blog)?;
                        }
                        Ok(())
                    });
                    written.unwrap();
                }
            });
        }
        let mut newest = 0;
        for round in 0..6 {
            let to = dir.path().join(format!("backup-{round}"));
            let contents = backup::write(&data, &to, false, &progress()).unwrap();
            let restored = dir.path().join(format!("restored-{round}"));
            let told = restore(&restored, &to, false, &progress()).unwrap();
            assert_eq!(told.contents.log, contents.log);
            assert_eq!(told.before, None);
            let marks = examine(&restored);
            assert_eq!(contents.log.newest, marks.last().copied());
            assert_eq!(contents.log.entries, marks.len() as u64);
            assert!(marks.len() > newest, "writers were held up");
            newest = marks.len();
        }
        over.store(true, Ordering::Relaxed);
    });
    // They are entries of one history.
    drop(store);
    let all = examine(&data);
    let restored = examine(&dir.path().join("restored-5"));
    assert_eq!(all[..restored.len()], restored);
}

#[test]
fn the_file_is_its_owners_from_its_first_byte_and_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let store = world(&data);
    let place = dir.path().join("place");
    std::fs::create_dir(&place).unwrap();
    let to = place.join("backup");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for name in names(&place) {
                    // It may be renamed just now.
                    if let Ok(file) = std::fs::metadata(place.join(&name)) {
                        use std::os::unix::fs::PermissionsExt as _;
                        assert_eq!(file.permissions().mode() & 0o777, 0o600, "{name}");
                    }
                }
            }
        });
        for _ in 0..10 {
            backup::write(&data, &to, true, &progress()).unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!((names(&place), mode(&to)), (vec!["backup".to_owned()], 0o600));
    drop(store);
}

#[test]
fn what_is_there_is_not_overwritten_unless_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let store = world(&data);
    let write = |to: &Path, force| backup::write(&data, to, force, &progress());
    let refused = |to: &Path, force, told: &str| {
        let error = write(to, force).unwrap_err();
        assert_eq!(error.kind, Kind::Bad, "{error}");
        assert!(error.message.contains(told), "{error}");
        assert!(error.message.contains(&*to.to_string_lossy()) || told == "no-folder", "{error}");
    };
    let to = dir.path().join("backup");
    std::fs::write(&to, "mine").unwrap();
    refused(&to, false, "--force");
    assert_eq!(std::fs::read(&to).unwrap(), b"mine");
    write(&to, true).unwrap();
    assert_eq!(mode(&to), 0o600);
    // An empty one was made to be filled, whoever may read it.
    let empty = dir.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    write(&empty, false).unwrap();
    assert_eq!(mode(&empty), 0o600);

    refused(dir.path(), true, "is a folder");
    refused(&dir.path().join("no-folder/backup"), false, "no-folder");
    refused(&data.join("rowcast.db"), true, "the store's own");
    refused(&data.join("../data/rowcast.db-wal"), true, "the store's own");
    write(&data.join("backup"), false).unwrap();
    drop(store);

    // Nobody waits for it any more.
    let stopped = progress();
    stopped.stop();
    let to = dir.path().join("stopped");
    let error = backup::write(&data, &to, false, &stopped).unwrap_err();
    assert!(error.message.contains("stopped"), "{error}");
    // What a killed attempt left is replaced, not followed.
    let target = dir.path().join("target");
    std::fs::write(&target, "mine").unwrap();
    std::os::unix::fs::symlink(&target, dir.path().join(".after.part")).unwrap();
    backup::write_closed(&data, &dir.path().join("after"), false, &progress()).unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"mine");
    let left = names(dir.path());
    assert_eq!(left, ["after", "backup", "data", "empty", "target"]);

    let none = dir.path().join("none");
    let error = backup::write_closed(&none, &dir.path().join("x"), false, &progress());
    assert!(error.unwrap_err().message.contains("there is no store"));
    assert!(!none.exists());
}

#[test]
fn what_is_no_whole_store_is_not_restored() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    drop(world(&data));
    let good = dir.path().join("good");
    backup::write_closed(&data, &good, false, &progress()).unwrap();
    let bytes = std::fs::read(&good).unwrap();
    let fresh = dir.path().join("fresh");
    let refused = |name: &str, bytes: &[u8], told: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        let error = restore(&fresh, &file, false, &progress()).unwrap_err();
        assert!(error.message.contains(name) && error.message.contains(told), "{name}: {error}");
        assert!(
            !fresh.join("rowcast.db").exists()
                || fresh.join("rowcast.db").metadata().unwrap().len() == 0
        );
    };
    refused("text", b"just some text, long enough to be read", "is not a Rowcast store");
    refused("empty", b"", "is not a Rowcast store");
    assert!(!fresh.exists(), "nothing is made before the file is known");
    let with = |at: usize, number: u32| {
        let mut bytes = bytes.clone();
        bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
        bytes
    };
    refused("other", &with(68, 7), "is not a Rowcast store");
    refused("newer", &with(60, 999), "format 999");
    refused("short", &bytes[..bytes.len() / 2], "damaged");
    let mut noise = bytes.clone();
    for page in 5..bytes.len() / 4096 {
        noise[page * 4096..][..64].fill(0xa5);
    }
    refused("noise", &noise, "damaged");
    let error = restore(&fresh, &dir.path().join("missing"), false, &progress()).unwrap_err();
    assert!(error.message.contains("missing"), "{error}");
    let error = restore(&fresh, dir.path(), false, &progress()).unwrap_err();
    assert!(error.message.contains("not a file"), "{error}");
    let error = restore(&data, &data.join("rowcast.db"), true, &progress()).unwrap_err();
    assert!(error.message.contains("the store itself"), "{error}");

    restore(&fresh, &good, false, &progress()).unwrap();
    assert_eq!(examine(&fresh), examine(&data));
    assert_eq!(mode(&fresh.join("rowcast.db")), 0o600);
    assert_eq!(names(&fresh), ["lock", "rowcast.db"]);
}

#[test]
fn ids_of_what_was_deleted_are_not_given_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let store = world(&data);
    for newest in [50, 49] {
        assert!(store.write_blocking(move |tx| tx.drop_it("blog", newest)).unwrap().value);
    }
    let file = dir.path().join("backup");
    backup::write(&data, &file, false, &progress()).unwrap();
    let fresh = dir.path().join("fresh");
    restore(&fresh, &file, false, &progress()).unwrap();
    let (store, _) = open(Options::new(&fresh));
    let made = store
        .write_blocking(|tx| tx.put("blog", &[("title", text("x")), ("author_id", id(1))]))
        .unwrap();
    assert_eq!(made.value, rowcast::model::value::Value::Int(51));
}

#[test]
fn an_older_format_is_brought_up_to_date_on_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    drop(world(&data));
    let old = dir.path().join("old");
    let contents = backup::write_closed(&data, &old, false, &progress()).unwrap();
    let opened = rusqlite::Connection::open(&old).unwrap();
    // What came with later formats.
    let former = "DROP TABLE _rc_filled; DROP TABLE _rc_readable; DROP TABLE _rc_given;
                  PRAGMA user_version = 1";
    opened.execute_batch(former).unwrap();
    drop(opened);
    let fresh = dir.path().join("fresh");
    let restored = restore(&fresh, &old, false, &progress()).unwrap();
    assert_eq!(restored.contents.records, contents.records);
    assert_eq!(examine(&fresh), examine(&data));
    assert_eq!(names(&fresh), ["lock", "rowcast.db"]);
}

#[test]
fn the_old_store_is_kept_with_all_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let store = world(&data);
    let file = dir.path().join("backup");
    backup::write(&data, &file, false, &progress()).unwrap();
    let error = restore(&data, &file, true, &progress()).unwrap_err();
    assert!(error.message.contains("in use by another"), "{error}");
    store.write_blocking(|tx| tx.put("tag", &[("name", text("late"))])).unwrap();
    // As a kill leaves it: what was acknowledged last is in the write-ahead log alone.
    let killed = dir.path().join("killed");
    std::fs::create_dir(&killed).unwrap();
    for name in ["rowcast.db", "rowcast.db-wal", "lock"] {
        std::fs::copy(data.join(name), killed.join(name)).unwrap();
    }
    drop(store);
    let all = examine(&data);

    let error = restore(&killed, &file, false, &progress()).unwrap_err();
    assert!(error.message.contains("--force"), "{error}");
    let restored = restore(&killed, &file, true, &progress()).unwrap();
    let before = restored.before.unwrap();
    assert_eq!(before.parent(), Some(&*killed));
    let left = names(&killed);
    let name = before.file_name().unwrap().to_str().unwrap();
    assert_eq!(left, ["lock", "rowcast.db", name]);
    let marks = examine(&killed);
    assert_eq!(marks[..], all[..all.len() - 1]);
    // And forth again.
    let again = restore(&killed, &before, true, &progress()).unwrap();
    assert_eq!(examine(&killed), all);
    assert_ne!(again.before, Some(before));
}

#[test]
fn a_closed_store_is_one_file() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..20 {
        let (store, _) = open(Options::new(dir.path()));
        store.write_blocking(move |tx| tx.put("tag", &[("name", text(&n.to_string()))])).unwrap();
        drop(store);
        assert_eq!(names(dir.path()), ["lock", "rowcast.db"], "round {n}");
    }
}
