//! kill -9 in the middle: the old store or the new one, whole; the backup whole or not there.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rowcast::store::Mark;
use rowcast::store::backup::{self, Progress};

use crate::common::{Options, Server, rowcast};
use crate::names;
use crate::support::*;
use crate::whole::examine;

/// A data directory as a killed server leaves it, with a full write-ahead log; a backup of an
/// earlier moment; and what both hold.
struct World {
    dir: tempfile::TempDir,
    old: Vec<Mark>,
    new: Vec<Mark>,
}

impl World {
    fn new(blogs: usize) -> World {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("made");
        let (store, _) = open(rowcast::store::Options::new(&made));
        store.write_blocking(|tx| tx.user(1)).unwrap();
        let write = |count: usize| {
            for _ in 0..count.div_ceil(50) {
                let written = store.write_blocking(|tx| {
                    for _ in 0..50 {
                        let long = text(&"long ".repeat(400));
                        tx.put("blog", &[("title", long), ("author_id", id(1))])?;
                    }
                    Ok(())
                });
                written.unwrap();
            }
        };
        write(blogs);
        let file = dir.path().join("backup");
        backup::write(&made, &file, false, &Arc::new(Progress::default())).unwrap();
        write(blogs / 2);
        let killed = dir.path().join("killed");
        std::fs::create_dir(&killed).unwrap();
        for name in ["rowcast.db", "rowcast.db-wal", "rowcast.db-shm", "lock"] {
            std::fs::copy(made.join(name), killed.join(name)).unwrap();
        }
        drop(store);
        let old = examine(&made);
        let restored = dir.path().join("restored");
        let progress = Arc::new(Progress::default());
        backup::restore::restore(&restored, &file, false, &progress).unwrap();
        let new = examine(&restored);
        assert!(new.len() < old.len());
        World { dir, old, new }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A copy of the killed data directory.
    fn data(&self, name: &str) -> PathBuf {
        let to = self.path(name);
        let _ = std::fs::remove_dir_all(&to);
        std::fs::create_dir(&to).unwrap();
        for name in names(&self.path("killed")) {
            std::fs::copy(self.path("killed").join(&name), to.join(&name)).unwrap();
        }
        to
    }

    /// The store that was moved aside, with its log if that stands beside it.
    fn check_before(&self, data: &Path) {
        let before = names(data)
            .into_iter()
            .find(|name| name.starts_with("rowcast.db.before-") && !name.ends_with("-wal"));
        let before = before.unwrap_or_else(|| panic!("the old store is gone: {:?}", names(data)));
        let to = self.path("before");
        let _ = std::fs::remove_dir_all(&to);
        std::fs::create_dir(&to).unwrap();
        for end in ["", "-wal"] {
            let from = data.join(format!("{before}{end}"));
            if from.exists() {
                std::fs::copy(from, to.join(format!("rowcast.db{end}"))).unwrap();
            }
        }
        assert_eq!(examine(&to), self.old);
    }
}

/// Each state that a crash may leave after the renaming that decides.
#[test]
fn a_decided_restore_is_finished_by_whoever_opens_the_directory_next() {
    let world = World::new(200);
    let steps: [fn(&Path); 5] = [
        |_| {},
        |data| {
            let (from, to) = ("rowcast.db-wal", "rowcast.db.before-T-wal");
            std::fs::rename(data.join(from), data.join(to)).unwrap();
        },
        |data| std::fs::remove_file(data.join("rowcast.db-shm")).unwrap(),
        |data| std::fs::rename(data.join("rowcast.db"), data.join("rowcast.db.before-T")).unwrap(),
        // Taking the lock makes an empty one.
        |data| std::fs::write(data.join("rowcast.db"), "").unwrap(),
    ];
    for done in 0..=steps.len() {
        let data = world.data("data");
        let waiting = data.join("rowcast.db.restoring-T");
        std::fs::copy(world.path("restored").join("rowcast.db"), waiting).unwrap();
        for step in &steps[..done] {
            step(&data);
        }
        assert_eq!(examine(&data), world.new, "after {done} steps");
        world.check_before(&data);
    }
}

/// Runs the command and kills it after `time`; whether it had ended by itself.
fn killed_after(dir: &Path, args: &[&str], time: Duration) -> bool {
    let mut child = rowcast(dir)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(time);
    let ended = child.try_wait().unwrap().is_some();
    let _ = child.kill();
    child.wait().unwrap();
    ended
}

#[test]
fn a_killed_restore_leaves_the_old_store_or_the_new_one() {
    let world = World::new(1_500);
    let (mut old, mut new) = (0, 0);
    let mut time = Duration::from_millis(2);
    for _ in 0..40 {
        let data = world.data("data");
        let args = ["restore", "backup", "--force", "--data", "data"];
        let ended = killed_after(world.dir.path(), &args, time);
        let marks = examine(&data);
        if marks == world.old {
            old += 1;
            assert!(!ended);
        } else {
            assert_eq!(marks, world.new);
            new += 1;
            world.check_before(&data);
        }
        // Whatever was left does not disturb the next one.
        if old + new == 1 || ended {
            let args = ["restore", "backup", "--force", "--data", "data"];
            assert!(rowcast(world.dir.path()).args(args).output().unwrap().status.success());
            assert_eq!(examine(&data), world.new);
            assert!(!names(&data).iter().any(|name| name.contains("restoring")));
        }
        if ended {
            break;
        }
        time += time / 4 + Duration::from_millis(2);
    }
    eprintln!("killed: {old} left the old store, {new} the new one");
    assert!(old > 0 && new > 0);
}

#[test]
fn a_killed_backup_is_whole_or_not_there() {
    let world = World::new(1_500);
    let data = world.data("data");
    let (mut without, mut ended) = (0, false);
    let mut time = Duration::from_millis(2);
    while !ended {
        let args = ["backup", "made-up", "--force", "--data", "data"];
        ended = killed_after(world.dir.path(), &args, time);
        let file = world.path("made-up");
        if file.exists() {
            let to = world.path("from-it");
            let _ = std::fs::remove_dir_all(&to);
            let progress = Arc::new(Progress::default());
            backup::restore::restore(&to, &file, false, &progress).unwrap();
            assert_eq!(examine(&to), world.old);
            std::fs::remove_file(&file).unwrap();
        } else {
            assert!(!ended);
            without += 1;
        }
        time += time / 4 + Duration::from_millis(2);
    }
    assert!(without > 0);
    assert!(!names(world.dir.path()).iter().any(|name| name.ends_with(".part")));
    assert_eq!(examine(&data), world.old);
}

/// Who asked a running server for a backup and left: the server stops, and leaves nothing behind.
#[test]
fn a_server_gives_a_backup_up_when_nobody_waits() {
    let note = r#"{"name":"note","namespace":"notes","label_field":"text",
        "fields":[{"name":"text","label":"Text","type":"text"}]}"#;
    let server = Server::start(Options::default().schema("note", note));
    let token = server.admin_token();
    let body = serde_json::json!({"text": "x".repeat(900_000)});
    for _ in 0..30 {
        let made = server.request("POST", "/api/content/note", Some(&token), Some(&body));
        assert_eq!(made.0, 200);
    }
    let dir = server.dir.path();
    let mut time = Duration::from_millis(5);
    // One that comes while a former one is being given up is refused, and comes again.
    while !(killed_after(dir, &["backup", "file", "--force"], time) && dir.join("file").exists()) {
        server.until("the server to stop", || (!dir.join(".file.part").exists()).then_some(()));
        time += time / 3;
    }
    // And the next one is not in the way of a former one.
    server.until("a backup", || {
        let done = rowcast(dir).args(["backup", "file", "--force"]).output().unwrap();
        let err = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success() || err.contains("another backup"), "{err}");
        done.status.success().then_some(())
    });
    let progress = Arc::new(Progress::default());
    let fresh = dir.join("fresh");
    let restored = backup::restore::restore(&fresh, &dir.join("file"), false, &progress).unwrap();
    assert_eq!(restored.contents.records, 30);
}
