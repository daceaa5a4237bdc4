//! Bounds of one write, named with their numbers and remedies.

use rowcast::error::{Error, Kind};
use rowcast::limits::Limits;
use rowcast::model::value::Value;
use rowcast::store::{Options, Store};

use crate::support::*;

fn store(change: impl FnOnce(&mut Limits)) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(Options::new(dir.path()));
    store.write_blocking(|tx| tx.user(1)).unwrap();
    drop(store);
    let mut options = Options::new(dir.path());
    change(&mut options.limits);
    let (store, _) = open(options);
    (dir, store)
}

fn refused(error: Error, texts: &[&str]) {
    assert_eq!(error.kind, Kind::TooLarge, "{error}");
    for text in texts {
        assert!(error.message.contains(text), "{:?} lacks {text:?}", error.message);
    }
}

#[test]
fn records_of_a_write_are_counted_with_the_consequences() {
    let (_dir, store) = store(|limits| limits.write_records = 10);
    let fill = |number: i64| {
        store.write_blocking(move |tx| {
            let category = tx.put("category", &[("name", text("x"))])?;
            for _ in 1..number {
                let category = ("category_id", category.clone());
                tx.put("blog", &[("title", text("x")), ("author_id", id(1)), category])?;
            }
            Ok(category)
        })
    };
    refused(fill(11).unwrap_err(), &["more than 10 records", "smaller writes"]);
    let category = fill(10).unwrap().value;
    store
        .write_blocking({
            let category = ("category_id", category.clone());
            move |tx| tx.put("blog", &[("title", text("x")), ("author_id", id(1)), category])
        })
        .unwrap();
    // The category and ten blogs that refer to it.
    let gone = store.write_blocking(move |tx| tx.drop_it("category", category));
    refused(gone.unwrap_err(), &["10 records", "consequences included"]);
    // The same record many times is one record.
    store.write_blocking(|tx| (0..20).try_for_each(|_| tx.set("blog", 10, &[]))).unwrap();
}

#[test]
fn states_of_a_write_are_counted_before_and_after() {
    let (_dir, store) = store(|limits| limits.write_bytes = 10_000);
    let title = |length: usize| ("title", text(&"x".repeat(length)));
    store.write_blocking(move |tx| tx.put("blog", &[title(6_000), ("author_id", id(1))])).unwrap();
    let update = store.write_blocking(move |tx| tx.set("blog", 1, &[title(5_000)]));
    refused(update.unwrap_err(), &["more than the 10000", "smaller writes"]);
    // What a write takes back does not count.
    store
        .write_blocking(move |tx| {
            let mark = tx.mark()?;
            tx.set("blog", 1, &[title(3_500)])?;
            tx.undo(mark)?;
            tx.set("blog", 1, &[title(3_000)])?;
            tx.set("blog", 1, &[title(3_500)])
        })
        .unwrap();
}

#[test]
fn a_record_may_be_so_large_as_json() {
    let (_dir, store) = store(|limits| limits.record_bytes = 5_000);
    let put = |content: String| {
        let title = ("title", text(&content));
        store.write_blocking(move |tx| tx.put("blog", &[title, ("author_id", id(1))]))
    };
    put("x".repeat(4_500)).unwrap();
    refused(put("x".repeat(5_000)).unwrap_err(), &["5000", "title with 5002"]);
    // Six bytes each as JSON.
    refused(put("\u{1}".repeat(1_000)).unwrap_err(), &["5000", "title with 6002"]);
    put("\"".repeat(2_200)).unwrap();
    let long = Value::Text("x".repeat(5_000).into());
    let update = store.write_blocking(move |tx| tx.set("blog", 1, &[("title", long)]));
    refused(update.unwrap_err(), &["5000"]);
}
