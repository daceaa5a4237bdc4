//! The change log: entries read back, look-ups, retention.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use rowcast::model::change::{Notice, Op};
use rowcast::model::value::Value;
use rowcast::store::{Logged, Options, Rows, Store};

use crate::support::*;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(Options::new(dir.path()));
    (dir, store)
}

#[test]
fn an_entry_holds_what_the_sink_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let (store, sink) = open(Options::new(dir.path()));
    let origin = uuid::Uuid::from_u128(77);
    let user = uuid::Uuid::from_u128(1);
    store
        .write_blocking(move |tx| {
            tx.origin(origin);
            tx.user(1)?;
            tx.put("tag", &[("name", text("ü\u{1}\"'"))])?;
            tx.put("blog", &[("title", text("")), ("author_id", id(1))])?;
            tx.tie(("blog", "tags"), 1, 1, true).map(drop)
        })
        .unwrap();
    store
        .write_blocking(move |tx| {
            tx.set("blog", 1, &[("title", text("changed"))])?;
            tx.drop_it("tag", 1)?;
            tx.notice(Notice::Session { user, session: Some(origin) });
            tx.notice(Notice::Session { user, session: None });
            Ok(())
        })
        .unwrap();
    let entries = store.read_blocking(|reader| reader.entries(1, 100)).unwrap();
    let told = sink.all();
    assert_eq!(entries.len(), told.len());
    for (entry, commit) in entries.iter().zip(&told) {
        assert_eq!(entry.mark.position, commit.position);
        assert_eq!(entry.mark.stamp, commit.stamp);
        assert_eq!(entry.mark.time, commit.time);
        assert_eq!(entry.origin, commit.origin);
        assert_eq!(format!("{:?}", entry.changes), format!("{:?}", commit.changes));
        assert!(entry.unknown.is_empty());
    }
    let ended = |session| Logged::Session { user, session };
    assert_eq!(entries[1].notices, [ended(Some(origin)), ended(None)]);
    let first = store.read_blocking(|reader| reader.entries(0, 1)).unwrap();
    assert!(matches!(first[0].notices[..], [Logged::Catalog { version: 1, .. }]));
    let last = store.read_blocking(|reader| Ok((reader.newest()?, reader.oldest()?))).unwrap();
    assert_eq!((last.0.unwrap().position, last.1.unwrap().position), (3, 1));
    assert!(store.read_blocking(|reader| reader.mark(4)).unwrap().is_none());
}

#[test]
fn old_entries_are_read_with_a_later_catalog() {
    let (_dir, store) = store();
    store
        .write_blocking(|tx| {
            tx.put("tag", &[("name", text("old"))])?;
            tx.put("category", &[("name", text("gone"))]).map(drop)
        })
        .unwrap();
    let changed = TAG.replace(
        r#""unique":true}"#,
        r#""unique":true},{"name":"n","type":"int","default":5},
           {"name":"note","type":"string","optional":true}"#,
    );
    let alone = changed.replace(
        r#"{"name":"blogs","type":"relation","relation":{"schema":"blog","field":"tags","type":"m2m"}}"#,
        r#"{"name":"last","type":"bool","optional":true}"#,
    );
    store.write_blocking(move |tx| migrate(tx, &[&alone])).unwrap();
    let (entry, tag) = store
        .read_blocking(|reader| Ok((reader.entries(1, 1)?.remove(0), reader.of("tag"))))
        .unwrap();
    assert_eq!(entry.changes.len(), 1, "the category's schema is gone");
    assert_eq!(entry.unknown.len(), 1);
    let state = entry.changes[0].after.as_ref().unwrap();
    let at = |name: &str| state.get(tag.column(name).unwrap()).clone();
    assert_eq!(at("name"), text("old"));
    assert_eq!(at("n"), Value::Int(5));
    assert_eq!((at("note"), at("last")), (Value::Null, Value::Null));
}

/// A small generator: the same numbers every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> i64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % below) as i64
    }
}

type State = BTreeMap<i64, Vec<Value>>;

#[test]
fn states_and_references_are_found_at_every_position() {
    // Look-ups written at once, some at a time, and never.
    for lookups_waiting in [0, 25, 1_000_000] {
        find_everything(lookups_waiting);
    }
}

fn find_everything(lookups_waiting: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(Options { lookups_waiting, ..Options::new(dir.path()) });
    store
        .write_blocking(|tx| {
            tx.user(1)?;
            for n in 1..=3 {
                tx.put("category", &[("name", text(&n.to_string()))])?;
                tx.put("tag", &[("name", text(&n.to_string()))])?;
            }
            Ok(())
        })
        .unwrap();
    let mut dice = Dice(7);
    let mut history: Vec<(u64, State, State)> = Vec::new();
    let all = |store: &Store| -> (u64, State, State) {
        store
            .read_blocking(|reader| {
                let state = |name: &str| -> State {
                    let schema = reader.of(name);
                    let query = rowcast::store::Query {
                        schema,
                        filter: rowcast::filter::Predicate::Const(rowcast::filter::Truth::True),
                        sort: Vec::new(),
                        limit: None,
                        offset: 0,
                    };
                    let rows = reader.select(&query).unwrap();
                    let key = |row: &rowcast::model::change::Row| match row.get(0) {
                        Value::Int(n) => *n,
                        other => panic!("{other:?}"),
                    };
                    rows.iter().map(|row| (key(row), row.values.to_vec())).collect()
                };
                let position = reader.newest()?.unwrap().position;
                Ok((position, state("blog"), state("blog.tags")))
            })
            .unwrap()
    };
    history.push(all(&store));
    for step in 0..120 {
        let (what, blog, other) = (dice.roll(6), dice.roll(8) + 1, dice.roll(4));
        let category = if other == 0 { Value::Null } else { Value::Int(other) };
        store
            .write_blocking(move |tx| {
                let there = tx.find("blog", blog).is_some();
                let title = ("title", text(&step.to_string()));
                match what {
                    0 if there => tx.drop_it("blog", blog).map(drop),
                    1 | 2 if there => tx.set("blog", blog, &[("category_id", category)]),
                    3 if there => tx.set("blog", blog, &[title]),
                    4 if there => tx.tie(("blog", "tags"), blog, other.max(1), true).map(drop),
                    5 if there => tx.tie(("blog", "tags"), blog, other.max(1), false).map(drop),
                    _ if there => Ok(()),
                    _ => {
                        let key = ("id", Value::Int(blog));
                        let author = ("author_id", id(1));
                        tx.put("blog", &[key, title, ("category_id", category), author]).map(drop)
                    }
                }
            })
            .unwrap();
        history.push(all(&store));
    }
    assert!(history.last().unwrap().0 > 60, "something happened");
    let written = positions(dir.path())[1].len();
    match lookups_waiting {
        0 => assert!(written > 60),
        25 => assert!((30..history.len() - 5).contains(&written)),
        _ => assert_eq!(written, 0),
    }
    // Nothing is forgotten by a restart.
    drop(store);
    let (store, _) = open(Options { lookups_waiting, ..Options::new(dir.path()) });
    store
        .read_blocking(move |reader| {
            let (blog, links) = (reader.of("blog"), reader.of("blog.tags"));
            let category = blog.column("category_id").unwrap();
            for (position, blogs, tags) in &history {
                for n in 1..=8 {
                    let state = reader.state_at(&blog, &Value::Int(n), *position)?;
                    let state = state.map(|row| row.values.to_vec());
                    assert_eq!(state.as_ref(), blogs.get(&n), "blog {n} at {position}");
                }
                for value in 1..=3 {
                    let value = Value::Int(value);
                    let check = |schema, slot, rows: &State| {
                        let found = reader.pointing_at(schema, slot, &value, *position).unwrap();
                        let found: Vec<_> = found.iter().map(|row| row.values.to_vec()).collect();
                        let right: Vec<_> =
                            rows.values().filter(|row| row[slot] == value).cloned().collect();
                        assert_eq!(found, right, "{value:?} at {position}");
                    };
                    check(&blog, category, blogs);
                    check(&links, 2, tags);
                }
            }
            Ok(())
        })
        .unwrap();
}

/// Positions in the log's tables, read by another connection.
fn positions(dir: &Path) -> [BTreeSet<i64>; 3] {
    let other = rusqlite::Connection::open(dir.join("rowcast.db")).unwrap();
    ["_rc_log", "_rc_log_key", "_rc_log_ref"].map(|table| {
        let mut statement = other.prepare(&format!("SELECT position FROM {table}")).unwrap();
        statement.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    })
}

/// Waits for the idle writer to have trimmed the log down to `entries`, and the look-ups to none
/// besides.
fn wait_for(dir: &Path, entries: BTreeSet<i64>) {
    let until = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let [log, keys, refs] = positions(dir);
        if log == entries && keys.is_subset(&entries) && refs.is_subset(&entries) {
            return;
        }
        assert!(std::time::Instant::now() < until, "{log:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn fill(store: &Store, number: usize, length: usize) {
    for _ in 0..number {
        let title = ("title", text(&"x".repeat(length)));
        let write = store.write_blocking(move |tx| {
            tx.put("blog", &[title, ("author_id", id(1)), ("category_id", Value::Int(1))])
        });
        write.unwrap();
    }
}

fn author_and_category(store: &Store) {
    store
        .write_blocking(|tx| {
            tx.user(1)?;
            tx.put("category", &[("name", text("one"))]).map(drop)
        })
        .unwrap();
}

#[test]
fn the_log_keeps_to_its_size_with_its_look_ups() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { log_bytes: 20_000, lookups_waiting: 20, ..Options::new(dir.path()) };
    let (store, _) = open(options.clone());
    author_and_category(&store);
    fill(&store, 200, 100);
    let newest = store.read_blocking(|reader| reader.newest()).unwrap().unwrap().position as i64;
    assert_eq!(newest, 202);
    let check = |dir: &Path, newest: i64| {
        let [log, keys, refs] = positions(dir);
        assert_eq!(log.last(), Some(&newest));
        let first = *log.first().unwrap();
        assert_eq!(log, (first..=newest).collect(), "no holes");
        assert!((30..150).contains(&log.len()), "{}", log.len());
        assert!(keys.iter().chain(&refs).all(|position| log.contains(position)));
        assert!(log.len() - keys.len() < 10, "but for the newest, each entry can be found");
        log.len()
    };
    let before = check(dir.path(), newest);
    drop(store);
    // The running total is known again after a restart.
    let (store, _) = open(options);
    fill(&store, 50, 100);
    let after = check(dir.path(), newest + 50);
    assert!(before.abs_diff(after) < 12, "{before} {after}");
}

#[test]
fn the_newest_entry_stays_however_large() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { log_bytes: 10_000, lookups_waiting: 5, ..Options::new(dir.path()) };
    let (store, _) = open(options);
    author_and_category(&store);
    fill(&store, 20, 10);
    fill(&store, 1, 100_000);
    wait_for(dir.path(), (23..=23).collect());
    fill(&store, 3, 10);
    wait_for(dir.path(), (24..=26).collect());
}

#[test]
fn a_page_of_entries_is_bounded_in_bytes() {
    let (_dir, store) = store();
    author_and_category(&store);
    fill(&store, 40, 900_000);
    let page = |after| {
        let entries = store.read_blocking(move |reader| reader.entries(after, 1_000)).unwrap();
        (entries.len(), entries.last().map(|entry| entry.mark.position))
    };
    assert_eq!(page(0), (21, Some(21)));
    assert_eq!(page(21), (19, Some(40)));
    assert_eq!(page(40), (2, Some(42)));
    assert_eq!(page(42), (0, None));
}

#[test]
fn old_entries_go_by_age_even_when_nobody_writes() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(dir.path());
    let (store, _) = open(options.clone());
    author_and_category(&store);
    fill(&store, 1000, 1);
    assert_eq!(positions(dir.path())[0].len(), 1002);
    drop(store);
    let (_store, _) = open(Options { log_age: Duration::ZERO, ..options });
    wait_for(dir.path(), BTreeSet::from([1002]));
}

#[test]
fn time_never_goes_back_and_positions_have_no_holes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(Options::new(dir.path()));
    author_and_category(&store);
    fill(&store, 5, 1);
    drop(store);
    // A clock that was in the future once.
    let future = 4_000_000_000_000_000i64;
    let other = rusqlite::Connection::open(dir.path().join("rowcast.db")).unwrap();
    other.execute("UPDATE _rc_log SET time = ?1 WHERE position = 7", [future]).unwrap();
    drop(other);
    let (store, _) = open(Options::new(dir.path()));
    fill(&store, 2, 1);
    for n in 0..10 {
        // Every other write fails, and leaves no hole.
        let failed = store.write_blocking(move |tx| {
            tx.put("tag", &[("name", text(&n.to_string()))])?;
            if n % 2 == 0 { Err(rowcast::error::Error::bad("no")) } else { Ok(()) }
        });
        assert_eq!(failed.is_err(), n % 2 == 0);
    }
    let entries = store.read_blocking(|reader| reader.entries(0, 100)).unwrap();
    let positions: Vec<_> = entries.iter().map(|entry| entry.mark.position).collect();
    assert_eq!(positions, (1..=14).collect::<Vec<_>>());
    assert!(entries.is_sorted_by_key(|entry| entry.mark.time));
    assert_eq!(entries[8].mark.time, future);
    assert!(entries[9..].iter().all(|entry| matches!(entry.changes[0].op, Op::Create)));
    let stamps: BTreeSet<_> = entries.iter().map(|entry| entry.mark.stamp).collect();
    assert_eq!(stamps.len(), 14);
}
