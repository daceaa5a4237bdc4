//! How far back the log goes, and through which schemas it can be read.

use std::sync::Arc;

use rowcast::model::related::{Related as _, Want};
use rowcast::model::value::Value;
use rowcast::store::migrate::{How, Rename, plan};
use rowcast::store::{LogSize, Options, Store};

use crate::naive::paths;
use crate::support::*;

fn store(options: Options) -> Store {
    let (store, _) = open(options);
    store.write_blocking(|tx| tx.user(1)).unwrap();
    store
}

fn title(store: &Store, number: usize) {
    for n in 0..number {
        let title = ("title", text(&format!("{n} {}", "x".repeat(100))));
        store.write_blocking(|tx| tx.put("blog", &[title, ("author_id", id(1))])).unwrap();
    }
}

fn size(store: &Store) -> LogSize {
    store.read_blocking(|reader| reader.log_size()).unwrap()
}

#[test]
fn a_trimmed_log_gives_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { log_bytes: 20_000, lookups_waiting: 20, ..Options::new(dir.path()) };
    let store = store(options);
    let blog = store.catalog().named("blog").unwrap().id;
    let mut want = Want::default();
    want.paths.insert(blog, paths(&["author.blogs"]));
    let want = Arc::new(want);
    title(&store, 300);
    let read = {
        let want = want.clone();
        move |after| {
            let want = want.clone();
            let read = move |reader: &rowcast::store::Reader<'_>| reader.replay(after, 10, &want);
            let positions = |page: Vec<Arc<_>>| -> Vec<u64> {
                page.iter()
                    .map(|commit: &Arc<rowcast::model::change::Commit>| commit.position)
                    .collect()
            };
            positions(store.read_blocking(read).unwrap())
        }
    };
    let first = read(0);
    assert!(first[0] > 100 && first.len() == 10, "{first:?}");
    assert_eq!(read(5), first);
    assert_eq!(read(first[0] - 1), first);
    assert_eq!(read(301), [302]);
    assert!(read(302).is_empty() && read(u64::MAX >> 1).is_empty());
}

#[test]
fn the_logs_size_is_that_of_its_entries() {
    let dir = tempfile::tempdir().unwrap();
    let empty = Store::open(Options::new(dir.path()), Box::new(Told::default())).unwrap();
    assert_eq!(size(&empty), LogSize::default());
    drop(empty);
    let options = Options { log_bytes: 20_000, ..Options::new(dir.path()) };
    let store = store(options);
    let before = size(&store);
    assert_eq!((before.entries, before.newest.unwrap().position), (2, 2));
    title(&store, 10);
    let after = size(&store);
    assert_eq!(after.entries, 12);
    assert!((1_500..4_000).contains(&(after.bytes - before.bytes)), "{after:?}");
    assert_eq!(after.oldest, before.oldest);
    title(&store, 200);
    let trimmed = size(&store);
    let (oldest, newest) = (trimmed.oldest.unwrap(), trimmed.newest.unwrap());
    assert_eq!(trimmed.entries, newest.position - oldest.position + 1);
    assert!((10_000..=20_000).contains(&trimmed.bytes), "{trimmed:?}");
    let ends = store.read_blocking(|reader| Ok((reader.oldest()?, reader.newest()?))).unwrap();
    assert_eq!(ends, (Some(oldest), Some(newest)));
}

/// Migrates and gives from where on `blog`, `tag` and `category` can be read.
fn readable(store: &Store, texts: &[&str], how: &How) -> [u64; 3] {
    let defs = defs(texts);
    let (how, names) = (how.clone(), ["blog", "tag", "category"]);
    let written = store.write_blocking(move |tx| {
        let plan = plan(&tx.stored()?, &defs, &how).unwrap_or_else(|faults| panic!("{faults:?}"));
        tx.migrate(&plan)
    });
    written.unwrap();
    now_readable(store, names)
}

fn now_readable(store: &Store, names: [&str; 3]) -> [u64; 3] {
    let catalog = store.catalog();
    let ids = names.map(|name| catalog.named(name).map(|schema| schema.id));
    let read = store.read_blocking(move |reader| {
        Ok(ids.map(|id| id.map_or(u64::MAX, |id| reader.readable_from(id).unwrap())))
    });
    read.unwrap()
}

#[test]
fn additions_and_new_names_leave_the_log_readable() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(Options::new(dir.path()));
    let how = How::default();
    let tag = TAG.replacen(
        "\"fields\":[",
        "\"fields\":[{\"name\":\"a\",\"type\":\"int\",\"default\":1},",
        1,
    );
    assert_eq!(readable(&store, &[&tag, CATEGORY, BLOG], &how), [0, 0, 0]);
    // A field, a relation's both ends, a table.
    let renamed = |text: &str| {
        text.replace("\"tags\"", "\"labels\"")
            .replace("\"slug\"", "\"path\"")
            .replace("\"blogs\",\"l", "\"posts\",\"l")
    };
    let rename =
        |from: &str, to: &str| Rename { schema: "blog".into(), from: from.into(), to: to.into() };
    let new_names =
        How { fields: vec![rename("tags", "labels"), rename("slug", "path")], ..how.clone() };
    let tag = tag.replace("\"field\":\"tags\"", "\"field\":\"labels\"");
    let blog = renamed(BLOG);
    assert_eq!(readable(&store, &[&tag, CATEGORY, &blog], &new_names), [0, 0, 0]);
    // A schema's.
    let category = CATEGORY
        .replace("\"name\":\"category\"", "\"name\":\"topic\"")
        .replace("\"schema\":\"category\"", "\"schema\":\"topic\"");
    let blog = blog.replace("\"schema\":\"category\"", "\"schema\":\"topic\"");
    let mut new_name = how.clone();
    new_name.schemas.insert("topic".into(), "category".into());
    readable(&store, &[&tag, &category, &blog], &new_name);
    assert_eq!(now_readable(&store, ["blog", "tag", "topic"]), [0, 0, 0]);
    assert_eq!(size(&store).entries, 5);
    // A field goes: nothing else is concerned.
    let without =
        blog.replace(r#"{"name":"path","type":"string","unique":true,"optional":true},"#, "");
    let lossy = How { accept_all: true, ..how.clone() };
    readable(&store, &[&tag, &category, &without], &lossy);
    assert_eq!(now_readable(&store, ["blog", "tag", "topic"]), [6, 0, 0]);
    // A type changes.
    let wider = tag.replace("\"type\":\"int\",", "\"type\":\"float64\",");
    readable(&store, &[&wider, &category, &without], &lossy);
    assert_eq!(now_readable(&store, ["blog", "tag", "topic"]), [6, 7, 0]);
    // Kept through a restart; and a schema that was out of service is read from its return on.
    drop(store);
    let (store, _) = open(Options::new(dir.path()));
    assert_eq!(now_readable(&store, ["blog", "tag", "topic"]), [6, 7, 0]);
    readable(&store, &[], &lossy);
    readable(&store, &[&wider, &category, &without], &how);
    assert_eq!(now_readable(&store, ["blog", "tag", "topic"]), [9, 9, 9]);
}

#[test]
fn a_store_from_before_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let made = store(Options::new(dir.path()));
    title(&made, 3);
    drop(made);
    // Format 1 had no note of what can be read, or of ids given.
    let file = rusqlite::Connection::open(dir.path().join("rowcast.db")).unwrap();
    file.execute_batch(
        "DROP TABLE _rc_readable; DROP TABLE _rc_filled; DROP TABLE _rc_given;
         PRAGMA user_version = 1",
    )
    .unwrap();
    drop(file);
    let (store, _) = open(Options::new(dir.path()));
    assert!(dir.path().join("rowcast.db.format-1").exists());
    // Nobody holds a cursor from before.
    assert_eq!(now_readable(&store, ["blog", "tag", "category"]), [5, 5, 5]);
    title(&store, 2);
    let page = store.read_blocking(|reader| reader.replay(0, 100, &Arc::default())).unwrap();
    assert_eq!(page.len(), 7);
    let tag = TAG.replacen(
        "\"fields\":[",
        "\"fields\":[{\"name\":\"a\",\"type\":\"int\",\"default\":1},",
        1,
    );
    let how = How::default();
    assert_eq!(readable(&store, &[&tag, CATEGORY, BLOG], &how), [5, 5, 5]);
    drop(store);
    drop(open(Options::new(dir.path())));
}

#[test]
fn columns_that_came_later_hold_what_the_rows_got() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(Options::new(dir.path()));
    store
        .write_blocking(|tx| {
            tx.put("blog", &[("title", text("x")), ("author_id", id(1))])?;
            for n in 1..=2 {
                tx.put("tag", &[("name", text(&n.to_string()))])?;
                tx.tie(("blog", "tags"), 1, n, true)?;
            }
            Ok(())
        })
        .unwrap();
    let later = TAG.replace("\"disable_timestamp\":true,", "").replacen(
        "\"fields\":[",
        "\"fields\":[{\"name\":\"seen\",\"type\":\"time\",\"optional\":true,\"default\":\"NOW()\"},\
         {\"name\":\"n\",\"type\":\"int\",\"default\":4},",
        1,
    );
    assert_eq!(readable(&store, &[&later, CATEGORY, BLOG], &How::default()), [0, 0, 0]);
    let five = ("n", Value::Int(5));
    store.write_blocking(|tx| tx.set("tag", 1, &[five, ("seen", Value::Null)])).unwrap();
    let mut want = Want::default();
    let (blog, tag) = (store.catalog().named("blog").unwrap().clone(), "tag");
    let tag = store.catalog().named(tag).unwrap().clone();
    want.paths.insert(blog.id, paths(&["tags"]));
    let read = store.read_blocking(move |reader| {
        Ok((reader.replay(2, 100, &Arc::new(want))?, reader.find("tag", 2).unwrap()))
    });
    let (page, untouched) = read.unwrap();
    assert!(matches!(untouched.get(tag.column("seen").unwrap()), Value::Time(time) if *time > 1));
    let tags = &blog.relations[blog.relation("tags").unwrap()];
    let row = page[0].changes[0].after.as_ref().unwrap();
    let related = page[0].related.after.related(&blog, tags, row);
    for (column, slot) in ["n", "seen", "created_at", "updated_at"].map(|c| (c, tag.column(c))) {
        let right = untouched.get(slot.unwrap());
        assert_eq!(related[0].get(slot.unwrap()), right, "{column} of one touched since");
        assert_eq!(related[1].get(slot.unwrap()), right, "{column} of one not touched since");
        let own = page[0].changes.iter().filter(|change| change.schema == tag.id);
        for change in own {
            assert_eq!(change.after.as_ref().unwrap().get(slot.unwrap()), right, "{column}");
        }
    }
}
