//! Write-ahead logs that are not as they were written.
//!
//! What is asserted: a write whose frames are all there is there, whatever follows them; of a
//! write whose frames are not, nothing is. What a cut or a flipped bit takes out of frames that
//! were already synced cannot be asked back of anyone; those who had seen it hold cursors that are
//! refused. Where more is gone than that, because pages had been moved into the database from
//! frames that are gone now, the store is refused and left as it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rowcast::store::backup::{self, Progress};
use rowcast::store::{Mark, Options, Store};

use crate::support::*;
use crate::whole::{Nobody, examine};

const HEADER: usize = 32;
const FRAME: usize = 24 + 4096;

/// A store's files as a power cut would leave them, and where in its write-ahead log each
/// acknowledged write ends.
struct World {
    dir: tempfile::TempDir,
    wal: Vec<u8>,
    marks: Vec<Mark>,
    /// By position, less one.
    ends: Vec<usize>,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let (at, copy) = (dir.path().join("at"), dir.path().join("copy"));
        let (store, _) = open(Options::new(&at));
        let length = || std::fs::metadata(at.join("rowcast.db-wal")).unwrap().len() as usize;
        let mut ends = vec![length()];
        let mut write = |job: fn(&mut rowcast::store::Tx<'_>) -> rowcast::error::Result<()>| {
            store.write_blocking(job).unwrap();
            ends.push(length());
        };
        write(|tx| tx.user(1).map(drop));
        for _ in 0..12 {
            write(|tx| {
                let category = tx.put("category", &[("name", text("x"))])?;
                let category = ("category_id", category);
                let title = text(&"long ".repeat(3_000));
                tx.put("blog", &[("title", title), ("author_id", id(1)), category]).map(drop)
            });
        }
        write(|tx| tx.set("user", id(1), &[("username", text("other"))]));
        std::fs::create_dir(&copy).unwrap();
        for name in ["rowcast.db", "rowcast.db-wal"] {
            std::fs::copy(at.join(name), copy.join(name)).unwrap();
        }
        drop(store);
        let marks = examine(&at);
        assert_eq!(marks.len(), ends.len());
        let wal = std::fs::read(copy.join("rowcast.db-wal")).unwrap();
        assert_eq!(ends.last(), Some(&wal.len()));
        World { dir, wal, marks, ends }
    }

    /// The data directory with this write-ahead log.
    fn with(&self, wal: &[u8]) -> PathBuf {
        let data = self.dir.path().join("data");
        let _ = std::fs::remove_dir_all(&data);
        std::fs::create_dir(&data).unwrap();
        std::fs::copy(self.dir.path().join("copy/rowcast.db"), data.join("rowcast.db")).unwrap();
        std::fs::write(data.join("rowcast.db-wal"), wal).unwrap();
        data
    }

    /// Writes whose frames all lie in the first `length` bytes.
    fn whole(&self, length: usize) -> usize {
        self.ends.iter().filter(|end| **end <= length).count()
    }

    /// Opens it: exactly `expected` writes are there, and it goes on.
    fn holds(&self, data: &Path, expected: usize, what: &str) {
        if expected == 0 {
            // Not even the schemas: a store as on its first day.
            assert_eq!(examine(data), [], "{what}");
            return;
        }
        assert_eq!(examine(data), self.marks[..expected], "{what}");
        let (store, _) = open(Options::new(data));
        store.write_blocking(|tx| tx.put("tag", &[("name", text("new"))])).unwrap();
        drop(store);
        let marks = examine(data);
        assert_eq!(marks.len(), expected + 1, "{what}");
        // The place of a lost write is taken by another one, which no cursor of before names.
        assert_ne!(Some(&marks[expected]), self.marks.get(expected), "{what}");
    }
}

#[test]
fn a_cut_log_keeps_every_write_before_the_cut() {
    let world = World::new();
    let mut lengths: Vec<usize> = vec![0, 1, 31, HEADER, HEADER + 1];
    for end in world.ends.iter().step_by(3) {
        lengths.extend([end - FRAME, end - 24, end - 1, *end, end + 1, end + 24]);
    }
    for length in lengths {
        let length = length.min(world.wal.len());
        let data = world.with(&world.wal[..length]);
        world.holds(&data, world.whole(length), &format!("cut at {length}"));
    }
}

/// As a disk may do with a tail that it had not written yet.
#[test]
fn zeros_or_noise_after_the_last_whole_write_are_nothing() {
    let world = World::new();
    for (index, end) in world.ends.iter().enumerate().skip(1).step_by(5) {
        for fill in [0_u8, 0xff, 0x5a] {
            let mut wal = world.wal[..*end].to_vec();
            wal.resize(end + 3 * FRAME + 100, fill);
            world.holds(&world.with(&wal), index + 1, &format!("{fill} from {end}"));
        }
    }
}

#[test]
fn a_flipped_bit_takes_what_follows_and_nothing_before() {
    let world = World::new();
    let mut at = HEADER;
    for round in 0_usize.. {
        at += 9_770 + 6_131 * (round % 7);
        if at >= world.wal.len() {
            break;
        }
        let mut wal = world.wal.clone();
        wal[at] ^= 1 << (round % 8);
        let frame = HEADER + (at - HEADER) / FRAME * FRAME;
        world.holds(&world.with(&wal), world.whole(frame), &format!("flipped at {at}"));
    }
    // In the log's own header: none of it counts.
    for at in (0..HEADER).step_by(5) {
        let mut wal = world.wal.clone();
        wal[at] ^= 1;
        world.holds(&world.with(&wal), 0, &format!("flipped at {at}"));
    }
}

/// A file put in the place of another one's after a crash, that one's log left beside it: SQLite
/// would mix the two.
#[test]
fn a_log_of_another_store_is_refused_and_nothing_is_lost() {
    let (one, other) = (World::new(), World::new());
    // A backup of the one, put there by hand.
    let data = one.with(&one.wal);
    let moved = one.dir.path().join("moved");
    std::fs::create_dir(&moved).unwrap();
    let to = moved.join("rowcast.db");
    backup::write_closed(&data, &to, false, &Arc::new(Progress::default())).unwrap();
    let file = std::fs::read(&to).unwrap();
    let few = &other.wal[..other.ends[1]];
    for (what, wal) in [("another", &other.wal[..]), ("few of another", few), ("own", &one.wal)] {
        std::fs::write(moved.join("rowcast.db-wal"), wal).unwrap();
        let opened = Store::open(Options::new(&moved), Box::new(Nobody));
        let error = opened.map(drop).expect_err(what);
        assert!(error.message.contains("rowcast.db-wal is not of this"), "{what}: {error}");
        // Nor is a backup made of such a pair.
        let out = one.dir.path().join("out");
        let error = backup::write_closed(&moved, &out, false, &Arc::default()).expect_err(what);
        assert!(error.message.contains("rowcast.db-wal is not of this"), "{what}: {error}");
        assert_eq!(std::fs::read(&to).unwrap(), file, "{what}");
        assert_eq!(std::fs::read(moved.join("rowcast.db-wal")).unwrap(), wal, "{what}");
    }
    // A restore sets both aside as they are.
    let good = one.dir.path().join("good");
    std::fs::write(&good, &file).unwrap();
    std::fs::write(moved.join("rowcast.db-wal"), &other.wal).unwrap();
    let restored = backup::restore::restore(&moved, &good, true, &Arc::default()).unwrap();
    let before = restored.before.unwrap();
    assert_eq!(std::fs::read(&before).unwrap(), file);
    let log = format!("{}-wal", before.display());
    assert_eq!(std::fs::read(log).unwrap(), other.wal);
    assert_eq!(examine(&moved), one.marks);
    std::fs::copy(&before, &to).unwrap();
    std::fs::write(moved.join("rowcast.db-wal"), "").unwrap();
    std::fs::remove_file(moved.join("rowcast.db-wal")).unwrap();
    assert_eq!(examine(&moved), one.marks);
}

#[test]
fn a_log_cut_below_what_was_moved_into_the_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (at, data) = (dir.path().join("at"), dir.path().join("data"));
    let (store, _) = open(Options::new(&at));
    let length = || std::fs::metadata(at.join("rowcast.db-wal")).unwrap().len() as usize;
    store.write_blocking(|tx| tx.user(1).map(drop)).unwrap();
    let write = || {
        let written = store.write_blocking(|tx| {
            let title = text(&"long ".repeat(3_000));
            tx.put("blog", &[("title", title), ("author_id", id(1))])
        });
        written.unwrap();
        length()
    };
    let mut ends: Vec<usize> = (0..5).map(|_| write()).collect();
    let other = || rusqlite::Connection::open(at.join("rowcast.db")).unwrap();
    // As long as it is read, the log does not start over.
    let reader = other();
    reader.execute_batch("BEGIN; SELECT count(*) FROM _rc_log").unwrap();
    other().query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(())).unwrap();
    let moved = ends[4];
    ends.extend((0..5).map(|_| write()));
    let (file, wal) = (at.join("rowcast.db"), at.join("rowcast.db-wal"));
    let (file, wal) = (std::fs::read(file).unwrap(), std::fs::read(wal).unwrap());
    drop((reader, store));
    let marks = examine(&at);
    for length in ends.iter().flat_map(|end| [*end - 1, *end]) {
        let _ = std::fs::remove_dir_all(&data);
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("rowcast.db"), &file).unwrap();
        std::fs::write(data.join("rowcast.db-wal"), &wal[..length]).unwrap();
        if length >= moved {
            let held = examine(&data);
            assert_eq!(held, marks[..held.len()], "cut at {length}");
            continue;
        }
        let opened = Store::open(Options::new(&data), Box::new(Nobody));
        let error =
            opened.map(drop).expect_err(&format!("cut at {length} of {ends:?}, moved {moved}"));
        assert!(error.message.contains("rowcast.db-wal is not of this"), "{error}");
        assert_eq!(std::fs::read(data.join("rowcast.db")).unwrap(), file);
    }
}
