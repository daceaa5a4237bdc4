//! Bounds of what a commit carries beside its changes: the same live and from the log, and nobody
//! else's loss.

use std::sync::Arc;
use std::time::Duration;

use rowcast::limits::Limits;
use rowcast::model::change::Commit;
use rowcast::model::related::{Paths, Want};
use rowcast::model::value::Value;
use rowcast::store::{Options, Store};

use crate::naive::paths;
use crate::support::*;

/// A store with one category, one user, and `blogs` blogs that point to both.
fn filled(blogs: i64, change: impl FnOnce(&mut Limits)) -> (tempfile::TempDir, Store, Told) {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(Options::new(dir.path()));
    store
        .write_blocking(move |tx| {
            tx.user(1)?;
            let category = tx.put("category", &[("name", text("one"))])?;
            tx.put("tag", &[("name", text("one"))])?;
            (0..blogs).try_for_each(|_| {
                let category = ("category_id", category.clone());
                tx.put("blog", &[("title", text("x")), ("author_id", id(1)), category]).map(drop)
            })
        })
        .unwrap();
    drop(store);
    let mut options = Options::new(dir.path());
    change(&mut options.limits);
    let (store, told) = open(options);
    (dir, store, told)
}

fn wanted(store: &Store, all: &[(&str, Paths)]) -> Arc<Want> {
    let mut want = Want::default();
    for (name, paths) in all {
        let schema = store.catalog().named(name).unwrap().id;
        want.paths.insert(schema, paths.clone());
        want.dependants.insert(schema, paths.clone());
    }
    store.want(want.clone());
    Arc::new(want)
}

/// How many dependants of `name` by `relation` a commit carries.
fn number(store: &Store, commit: &Commit, name: &str, relation: &str) -> Option<usize> {
    let schema = store.catalog().named(name).unwrap().id;
    let by = &commit.related.dependants.by;
    by.get(&(schema, relation.into())).map_or(Some(0), |found| found.as_ref().map(Vec::len))
}

/// The newest commit, as told and as the log gives it.
fn newest(store: &Store, told: &Told, want: &Arc<Want>) -> [Arc<Commit>; 2] {
    let live = told.all().pop().unwrap();
    let (after, want) = (live.position - 1, want.clone());
    let page = store.read_blocking(move |reader| reader.replay(after, 5, &want)).unwrap();
    assert_eq!(page.len(), 1);
    [live, page[0].clone()]
}

#[test]
fn too_many_dependants_are_none_and_spoil_nothing_else() {
    let (_dir, store, told) = filled(8, |limits| limits.dependants = 7);
    let want = wanted(
        &store,
        &[("blog", paths(&["category", "tags"])), ("user", paths(&["blogs.category"]))],
    );
    store.write_blocking(|tx| tx.set("category", 1, &[("name", text("two"))])).unwrap();
    for commit in newest(&store, &told, &want) {
        assert_eq!(number(&store, &commit, "blog", "category"), None);
        assert_eq!(number(&store, &commit, "blog", "tags"), Some(0));
        // Too many on the way are too many.
        assert_eq!(number(&store, &commit, "user", "blogs"), None);
        assert!(commit.related.dependants.changes.is_empty());
        assert!(commit.related.incomplete.is_empty());
    }
    // One of them is touched itself: the others are few enough.
    store
        .write_blocking(|tx| {
            tx.set("category", 1, &[("name", text("three"))])?;
            tx.tie(("tag", "blogs"), 1, 2, true)?;
            tx.set("blog", 8, &[("title", text("y"))])
        })
        .unwrap();
    for commit in newest(&store, &told, &want) {
        assert_eq!(number(&store, &commit, "blog", "category"), Some(7));
        assert_eq!(number(&store, &commit, "blog", "tags"), Some(1));
        assert_eq!(number(&store, &commit, "user", "blogs"), Some(1));
        assert_eq!(commit.related.dependants.changes.len(), 8);
    }
}

#[test]
fn what_is_too_much_for_dependants_costs_plain_subscriptions_nothing() {
    let (_dir, store, told) = filled(20, |limits| limits.related_records = 30);
    // Each of the blogs reads all of them.
    let want =
        wanted(&store, &[("blog", paths(&["category.blogs"])), ("category", paths(&["parent"]))]);
    store.write_blocking(|tx| tx.set("category", 1, &[("name", text("two"))])).unwrap();
    for commit in newest(&store, &told, &want) {
        assert_eq!(number(&store, &commit, "blog", "category"), Some(20));
        assert!(commit.related.incomplete.is_empty());
    }
    let (_dir, store, told) = filled(40, |limits| limits.related_records = 30);
    let want =
        wanted(&store, &[("blog", paths(&["category.blogs"])), ("category", paths(&["parent"]))]);
    store.write_blocking(|tx| tx.set("category", 1, &[("parent_id", Value::Int(1))])).unwrap();
    let category = store.catalog().named("category").unwrap().clone();
    for commit in newest(&store, &told, &want) {
        assert_eq!(number(&store, &commit, "blog", "category"), None);
        assert!(commit.related.incomplete.is_empty());
        let row = commit.changes[0].after.as_ref().unwrap();
        let parent = &category.relations[category.relation("parent").unwrap()];
        use rowcast::model::related::Related as _;
        assert_eq!(commit.related.after.related(&category, parent, row).len(), 1);
    }
    // A blog's own related rows are too many: that is the blogs' loss alone.
    store
        .write_blocking(|tx| {
            tx.set("blog", 1, &[])?;
            tx.set("category", 1, &[("name", text("two"))])
        })
        .unwrap();
    let blog = store.catalog().named("blog").unwrap().id;
    for commit in newest(&store, &told, &want) {
        assert_eq!(commit.related.incomplete.iter().collect::<Vec<_>>(), [&blog]);
        assert_eq!(number(&store, &commit, "category", "parent"), Some(0));
    }
}

#[test]
fn a_page_that_takes_too_long_is_shorter_and_never_empty() {
    let (_dir, store, told) = filled(3_000, |limits| {
        limits.read_time = Duration::from_millis(10);
        limits.related_records = 1_000_000;
    });
    // Not for the writer: it would have no time either.
    let mut want = Want::default();
    want.paths.insert(store.catalog().named("blog").unwrap().id, paths(&["category.blogs.tags"]));
    want.dependants = want.paths.clone();
    let want = Arc::new(want);
    for n in 0..5 {
        let name = ("name", text(&n.to_string()));
        store.write_blocking(|tx| tx.set("category", 1, &[name])).unwrap();
    }
    let first = told.all()[0].position;
    let mut after = first - 1;
    for _ in 0..5 {
        let want = want.clone();
        let page = store.read_blocking(move |reader| reader.replay(after, 100, &want)).unwrap();
        let last = page.last().expect("never empty").position;
        for commit in &page {
            assert_eq!(number(&store, commit, "blog", "category"), Some(3_000));
        }
        assert!(page.len() < 5, "{}", page.len());
        after = last;
        if last == first + 4 {
            return;
        }
    }
    panic!("five pages are enough: {after}");
}
