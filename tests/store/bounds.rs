//! Bounds of one write, named with their numbers and remedies.

use std::collections::HashMap;

use rowcast::error::{Error, Kind};
use rowcast::limits::Limits;
use rowcast::model::related::{Paths, Want};
use rowcast::model::value::Value;
use rowcast::store::{Options, Rows, Store};

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

#[test]
fn related_records_are_bounded_for_reads_and_left_out_of_commits() {
    let (_dir, store) = store(|limits| limits.related_records = 10);
    let blog = store.catalog().named("blog").unwrap().clone();
    let mut paths = Paths::default();
    paths.0.entry("author".into()).or_default().0.entry("blogs".into()).or_default();
    store.want(Want { paths: HashMap::from([(blog.id, paths.clone())]), ..Want::default() });
    let commit = || {
        let write = store
            .write_blocking(|tx| tx.put("blog", &[("title", text("x")), ("author_id", id(1))]));
        write.unwrap().commit.unwrap()
    };
    // The author and nine blogs.
    for _ in 0..9 {
        let commit = commit();
        assert!(commit.related.incomplete.is_empty() && !commit.related.after.is_empty());
    }
    let gather = |store: &Store| {
        let paths = paths.clone();
        store.read_blocking(move |reader| {
            let row = reader.find("blog", 1).unwrap();
            reader.gather(&reader.of("blog"), &[row], &paths)
        })
    };
    assert!(!gather(&store).unwrap().is_empty());
    let commit = commit();
    assert!(commit.related.incomplete.contains(&blog.id) && commit.related.after.is_empty());
    refused(gather(&store).unwrap_err(), &["more than 10", "fewer"]);
}

#[test]
fn ids_leave_room_to_count_on() {
    let (_dir, store) = store(|_| ());
    let put = |id: i64| {
        store.write_blocking(move |tx| {
            tx.put("tag", &[("id", Value::Int(id)), ("name", text(&id.to_string()))])
        })
    };
    let error = put(i64::MAX).unwrap_err();
    assert_eq!(error.kind, Kind::Bad);
    assert!(error.message.contains("id: 9223372036854775807 is too large"), "{error}");
    put(1 << 62).unwrap();
    let next = store.write_blocking(|tx| tx.put("tag", &[("name", text("next"))])).unwrap();
    assert_eq!(next.value, Value::Int((1 << 62) + 1));
}

#[cfg(unix)]
#[test]
fn files_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (_store, _) = open(Options::new(dir.path()));
    for entry in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert!(mode & 0o077 == 0 || name == "lock", "{name}: {mode:o}");
    }
}
