//! Automatic ids count up by one and are never given twice, whatever became of the records.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rowcast::error::{Error, Kind, Result};
use rowcast::model::value::Value;
use rowcast::store::{Options, Store, Tx};
use rusqlite::Connection;

use crate::rng::Rng;
use crate::support::*;
use crate::writes::{Hold, runtime};

/// The tags there are and their links to blog 1, by tag; and the largest number that either got.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    tags: BTreeSet<i64>,
    links: BTreeMap<i64, i64>,
    tag_top: i64,
    link_top: i64,
}

fn file(dir: &Path) -> Connection {
    Connection::open(dir.join("rowcast.db")).unwrap()
}

fn tag(tx: &mut Tx<'_>, given: Option<i64>) -> Result<i64> {
    let name = text(&uuid::Uuid::new_v4().to_string());
    let mut row = vec![("name", name)];
    row.extend(given.map(|id| ("id", Value::Int(id))));
    match tx.put("tag", &row)? {
        Value::Int(id) => Ok(id),
        other => panic!("{other:?}"),
    }
}

/// A store with blog 1.
fn world(dir: &Path) -> Store {
    let (store, _) = open(Options::new(dir));
    let made = store.write_blocking(|tx| {
        tx.user(1)?;
        tx.put("blog", &[("title", text("x")), ("author_id", id(1))])
    });
    made.unwrap();
    store
}

/// A tag made by a write of its own.
fn next(store: &Store) -> i64 {
    store.write_blocking(|tx| tag(tx, None)).unwrap_or_else(|error| panic!("{error}")).value
}

fn gone(store: &Store, id: i64) {
    assert!(store.write_blocking(move |tx| tx.drop_it("tag", id)).unwrap().value);
}

impl Model {
    /// What the file holds.
    fn read(&mut self, dir: &Path) {
        let file = file(dir);
        let mut tags = file.prepare("SELECT id FROM tags").unwrap();
        let mut links = file.prepare("SELECT target_id, id FROM blog_tags_links").unwrap();
        self.tags = tags.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let links = links.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        self.links = links.map(Result::unwrap).collect();
    }

    fn made(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        let id = tag(tx, None)?;
        self.tag_top += 1;
        self.tags.insert(self.tag_top);
        match id == self.tag_top {
            true => Ok(()),
            false => Err(Error::bad(format!("{id}, not {}", self.tag_top))),
        }
    }

    fn unmade(&mut self, tx: &mut Tx<'_>, id: i64) -> Result<()> {
        self.tags.remove(&id);
        self.links.remove(&id);
        tx.drop_it("tag", id).map(drop)
    }

    fn any(&self, rng: &mut Rng) -> Option<i64> {
        let at = rng.below(self.tags.len().max(1));
        self.tags.iter().nth(at).copied()
    }

    /// Some one thing.
    fn step(&mut self, tx: &mut Tx<'_>, rng: &mut Rng, depth: usize) -> Result<()> {
        match rng.below(12) {
            0..=2 => self.made(tx)?,
            3 => {
                let id = (self.tag_top + rng.below(7) as i64 - 4).max(1);
                // Refused, the write goes on.
                if tag(tx, Some(id)).is_ok() {
                    self.tags.insert(id);
                    self.tag_top = self.tag_top.max(id);
                }
            }
            4..=6 => {
                if let Some(newest) = self.tags.last().copied() {
                    self.unmade(tx, newest)?;
                }
            }
            7 => {
                if let Some(id) = self.any(rng) {
                    self.unmade(tx, id)?;
                }
            }
            8 if rng.chance(30) => {
                let mut ids: Vec<i64> = self.tags.iter().copied().collect();
                if rng.chance(50) {
                    ids.reverse();
                }
                ids.into_iter().try_for_each(|id| self.unmade(tx, id))?;
            }
            8 | 9 => {
                // A link put back by the write that took it would be the row it was: not here.
                if let Some(id) = self.any(rng)
                    && depth == 0
                    && tx.tie(("blog", "tags"), 1, id, true)?
                {
                    self.link_top += 1;
                    self.links.insert(id, self.link_top);
                }
            }
            10 if depth < 3 => {
                let mark = tx.mark()?;
                let stood = self.clone();
                for _ in 0..=rng.below(4) {
                    self.step(tx, rng, depth + 1)?;
                }
                if rng.chance(50) {
                    tx.undo(mark)?;
                    *self = stood;
                } else {
                    tx.keep(mark)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A write of some steps; one in three is refused at its end. The model goes with those that stand.
fn job(
    model: Arc<Mutex<Model>>,
    mut rng: Rng,
) -> impl FnOnce(&mut Tx<'_>) -> Result<()> + Send + 'static {
    move |tx| {
        let mut changed = model.lock().unwrap().clone();
        for _ in 0..=rng.below(5) {
            changed.step(tx, &mut rng, 0)?;
        }
        if rng.chance(33) {
            return Err(Error::forbidden("on purpose"));
        }
        *model.lock().unwrap() = changed;
        Ok(())
    }
}

fn may_be_refused<T>(outcome: Result<T>) {
    if let Err(error) = outcome {
        assert_eq!(error.kind, Kind::Forbidden, "{error}");
    }
}

/// Writes of all kinds, alone and in groups, restarts and changes of the schema.
fn walk(dir: &Path, seed: u64) {
    let mut rng = Rng(seed);
    let mut store = world(dir);
    let model = Arc::new(Mutex::new(Model::default()));
    let later = TAG.replacen(
        "\"fields\":[",
        "\"accept_data_loss\":[\"n\"],\"fields\":[{\"name\":\"n\",\"type\":\"int\",\"optional\":true},",
        1,
    );
    let before = TAG.replacen("\"fields\":[", "\"accept_data_loss\":[\"n\"],\"fields\":[", 1);
    for round in 0..150 {
        match rng.below(20) {
            0..=13 => {
                let job = job(model.clone(), Rng(rng.next()));
                may_be_refused(store.write_blocking(job));
            }
            14..=16 => {
                let hold = Hold::new(&store);
                let runtime = runtime();
                let writes: Vec<_> = (0..2 + rng.below(4))
                    .map(|_| {
                        let (store, job) = (store.clone(), job(model.clone(), Rng(rng.next())));
                        runtime.spawn(async move { store.write(job).await.map(drop) })
                    })
                    .collect();
                hold.release();
                for write in writes {
                    may_be_refused(runtime.block_on(write).unwrap());
                }
            }
            17 | 18 => {
                drop(store);
                store = open(Options::new(dir)).0;
            }
            _ => {
                let tag = if rng.chance(50) { later.clone() } else { before.clone() };
                let refused = rng.chance(30);
                let changed = store.write_blocking(move |tx| {
                    migrate(tx, &[&tag, CATEGORY, BLOG])?;
                    match refused {
                        true => Err(Error::forbidden("on purpose")),
                        false => Ok(()),
                    }
                });
                may_be_refused(changed);
            }
        }
        let model = model.lock().unwrap();
        let mut found = model.clone();
        found.read(dir);
        assert_eq!(found, *model, "round {round}, seed {seed}");
    }
    assert!(model.lock().unwrap().tag_top > 50);
}

#[test]
fn ids_count_up_whatever_comes_and_goes() {
    for seed in 1..=6 {
        walk(tempfile::tempdir().unwrap().path(), seed);
    }
}

#[test]
fn the_newest_are_gone_and_their_ids_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = world(dir.path());
    assert_eq!([next(&store), next(&store), next(&store)], [1, 2, 3]);
    gone(&store, 3);
    drop(store);
    let (store, _) = open(Options::new(dir.path()));
    gone(&store, 2);
    gone(&store, 1);
    drop(store);
    let (store, _) = open(Options::new(dir.path()));
    assert_eq!(next(&store), 4);
    // A number of one's own counts, and stays counted.
    store.write_blocking(|tx| tag(tx, Some(1_000))).unwrap();
    gone(&store, 1_000);
    store.write_blocking(|tx| tag(tx, Some(1_000))).unwrap();
    gone(&store, 1_000);
    store.write_blocking(|tx| tag(tx, Some(7))).unwrap();
    drop(store);
    let (store, _) = open(Options::new(dir.path()));
    assert_eq!(next(&store), 1_001);
}

#[test]
fn links_that_a_delete_took_along_count() {
    let dir = tempfile::tempdir().unwrap();
    let store = world(dir.path());
    let linked = |of: i64| {
        store.write_blocking(move |tx| tx.tie(("blog", "tags"), 1, of, true)).unwrap();
        let mut model = Model::default();
        model.read(dir.path());
        model.links[&of]
    };
    assert_eq!([next(&store), next(&store), next(&store)], [1, 2, 3]);
    assert_eq!([linked(1), linked(2)], [1, 2]);
    gone(&store, 2);
    assert_eq!(linked(1), 1);
    assert_eq!(linked(3), 3);
    // The other end goes, and all its links with it.
    store
        .write_blocking(|tx| {
            tx.drop_it("blog", 1)?;
            tx.put("blog", &[("id", Value::Int(1)), ("title", text("y")), ("author_id", id(1))])
        })
        .unwrap();
    assert_eq!(linked(3), 4);
}

#[test]
fn links_that_a_schemas_return_takes_away_count() {
    let plain = r#"{"name":"tag","namespace":"tags","label_field":"name","disable_timestamp":true,
        "fields":[{"name":"name","type":"string","unique":true}]}"#;
    let post = r#"{"name":"post","namespace":"posts","label_field":"title","disable_timestamp":true,
        "fields":[{"name":"title","type":"string"},
            {"name":"tags","type":"relation","optional":true,
             "relation":{"schema":"tag","field":"posts","type":"m2m","owner":true}}]}"#;
    let with = plain.replacen(
        "\"fields\":[",
        "\"fields\":[{\"name\":\"posts\",\"type\":\"relation\",\
         \"relation\":{\"schema\":\"post\",\"field\":\"tags\",\"type\":\"m2m\"}},",
        1,
    );
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Options::new(dir.path()), Box::new(Told::default())).unwrap();
    let apply = |texts: &[&str]| {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let job = move |tx: &mut Tx<'_>| {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            migrate(tx, &texts)
        };
        store.write_blocking(job).unwrap_or_else(|error| panic!("{error}"));
    };
    apply(&[&with, post]);
    store
        .write_blocking(|tx| {
            tx.put("post", &[("title", text("x"))])?;
            for n in 1..=2 {
                tag(tx, None)?;
                tx.tie(("post", "tags"), 1, n, true)?;
            }
            Ok(())
        })
        .unwrap();
    apply(&[plain]);
    gone(&store, 2);
    apply(&[&with, post]);
    let links = || {
        let file = file(dir.path());
        let mut links = file.prepare("SELECT id FROM post_tags_links ORDER BY id").unwrap();
        let links = links.query_map((), |row| row.get(0)).unwrap();
        links.map(Result::unwrap).collect::<Vec<i64>>()
    };
    assert_eq!(links(), [1]);
    let id = next(&store);
    store.write_blocking(move |tx| tx.tie(("post", "tags"), 1, id, true)).unwrap();
    assert_eq!(links(), [1, 3]);
}

#[test]
fn where_no_number_is_left_none_is_made_up() {
    let dir = tempfile::tempdir().unwrap();
    drop(world(dir.path()));
    let last = i64::MAX;
    file(dir.path()).execute("INSERT INTO tags (id, name) VALUES (?1, 'last')", [last]).unwrap();
    let refused = |store: &Store| {
        let error = store.write_blocking(|tx| tag(tx, None)).unwrap_err();
        assert_eq!(error.kind, Kind::Unprocessable, "{error}");
        assert!(error.message.contains("tag: no id is left after 9223372036854775807"), "{error}");
    };
    let (store, _) = open(Options::new(dir.path()));
    refused(&store);
    assert_eq!(store.write_blocking(|tx| tag(tx, Some(3))).unwrap().value, 3);
    gone(&store, last);
    refused(&store);
    drop(store);
    refused(&open(Options::new(dir.path())).0);
}

/// Makes the store in `dir` one of format 2, whose tables counted by themselves.
fn as_before(dir: &Path) {
    let file = file(dir);
    file.execute_batch(
        "CREATE TABLE counting (id INTEGER PRIMARY KEY AUTOINCREMENT); DROP TABLE counting;
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, 'PRIMARY KEY,', 'PRIMARY KEY AUTOINCREMENT,')
         WHERE type = 'table' AND name NOT LIKE '\\_rc\\_%' ESCAPE '\\';
         PRAGMA writable_schema = RESET;",
    )
    .unwrap();
    let counts = "SELECT count(*) FROM sqlite_schema WHERE sql LIKE '%AUTOINCREMENT%'";
    assert!(file.query_row(counts, (), |row| row.get::<_, i64>(0)).unwrap() >= 4);
    file.execute_batch("DROP TABLE _rc_given; PRAGMA user_version = 2").unwrap();
}

#[test]
fn tables_that_counted_by_themselves_go_on() {
    let dir = tempfile::tempdir().unwrap();
    drop(world(dir.path()));
    as_before(dir.path());
    // As it was left there: tags up to 7 were made and deleted.
    file(dir.path()).execute("INSERT INTO sqlite_sequence VALUES ('tags', 7)", ()).unwrap();
    let (store, _) = open(Options::new(dir.path()));
    assert!(dir.path().join("rowcast.db.format-2").exists());
    assert_eq!(next(&store), 8);
    gone(&store, 8);
    drop(store);
    assert_eq!(next(&open(Options::new(dir.path())).0), 9);

    let dir = tempfile::tempdir().unwrap();
    drop(open(Options::new(dir.path())));
    as_before(dir.path());
    walk(dir.path(), 7);
}
