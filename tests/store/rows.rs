//! Rows, their consequences, and how a write is told.

use rowcast::error::{Kind, Result};
use rowcast::filter::{Predicate, Truth};
use rowcast::model::change::Commit;
use rowcast::model::value::Value;
use rowcast::store::{Options, Query, Rows, Store, Tx};

use crate::support::*;

/// A user 1, categories 1 ← 2, tags 1 and 2, blog 1 in category 2 with both tags.
fn world() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(Options::new(dir.path()));
    done(&store, |tx| {
        let author = tx.user(1)?;
        tx.put("category", &[("name", text("all"))])?;
        tx.put("category", &[("name", text("rust")), ("parent_id", Value::Int(1))])?;
        tx.put("tag", &[("name", text("a"))])?;
        tx.put("tag", &[("name", text("b"))])?;
        let category = ("category_id", Value::Int(2));
        tx.put("blog", &[("title", text("one")), category, ("author_id", author)])?;
        tx.tie(("blog", "tags"), 1, 1, true)?;
        tx.tie(("blog", "tags"), 1, 2, true).map(drop)
    });
    (dir, store)
}

/// What a write that must succeed is told as.
fn done(
    store: &Store,
    job: impl FnOnce(&mut Tx<'_>) -> Result<()> + Send + 'static,
) -> Vec<String> {
    let written = store.write_blocking(job).unwrap_or_else(|error| panic!("{error}"));
    written.commit.map(|commit| told(store, &commit)).unwrap_or_default()
}

fn commit_of(
    store: &Store,
    job: impl FnOnce(&mut Tx<'_>) -> Result<()> + Send + 'static,
) -> std::sync::Arc<Commit> {
    store.write_blocking(job).unwrap_or_else(|error| panic!("{error}")).commit.unwrap()
}

/// Kind and message of a write that must fail.
fn refused(
    store: &Store,
    job: impl FnOnce(&mut Tx<'_>) -> Result<()> + Send + 'static,
) -> (Kind, String) {
    let error = store.write_blocking(job).map(|written| written.commit).unwrap_err();
    (error.kind, error.message)
}

#[test]
fn a_row_written_is_a_row_read_and_an_entry() {
    let dir = tempfile::tempdir().unwrap();
    let (store, sink) = open(Options::new(dir.path()));
    let written = store.write_blocking(|tx| tx.put("tag", &[("name", text("rust"))])).unwrap();
    assert_eq!(written.value, Value::Int(1));
    let commit = written.commit.unwrap();
    assert_eq!(commit.position, 2);
    assert_eq!(sink.all().len(), 1);
    assert!(std::sync::Arc::ptr_eq(&sink.all()[0], &commit));
    let (row, entries) =
        store.read_blocking(|reader| Ok((reader.find("tag", 1), reader.entries(0, 10)?))).unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1].mark.stamp, commit.stamp);
    assert_eq!(entries[1].mark.time, commit.time);
    assert_eq!(entries[1].changes[0].after, row);
    assert_eq!(*row.unwrap().values, [Value::Int(1), text("rust")]);
}

#[test]
fn named_records_come_first_then_the_links() {
    let (_dir, store) = world();
    let lines = done(&store, |tx| {
        tx.tie(("blog", "tags"), 1, 1, false)?;
        tx.set("blog", 1, &[])
    });
    assert_eq!(lines, ["update blog 1", "delete blog.tags 1"]);
}

#[test]
fn a_record_stands_in_a_commit_once() {
    let (_dir, store) = world();
    let commit = commit_of(&store, |tx| {
        tx.set("blog", 1, &[("title", text("two"))])?;
        tx.set("blog", 1, &[("title", text("three"))])?;
        assert_eq!(tx.cell("blog", 1, "title"), text("three"));
        let before = tx.before(&tx.of("blog"), &Value::Int(1)).unwrap().unwrap();
        assert_eq!(*before.get(tx.of("blog").column("title").unwrap()), text("one"));
        assert!(tx.before(&tx.of("blog"), &Value::Int(2)).is_none());
        Ok(())
    });
    assert_eq!(told(&store, &commit), ["update blog 1"]);
    let title = store.catalog().named("blog").unwrap().column("title").unwrap();
    let change = &commit.changes[0];
    assert_eq!(*change.before.as_ref().unwrap().get(title), text("one"));
    assert_eq!(*change.after.as_ref().unwrap().get(title), text("three"));
}

#[test]
fn what_comes_and_goes_leaves_nothing_but_an_update_always_counts() {
    let (_dir, store) = world();
    assert!(
        done(&store, |tx| {
            tx.put("tag", &[("name", text("gone"))])?;
            tx.drop_it("tag", 3).map(drop)
        })
        .is_empty()
    );
    assert_eq!(done(&store, |tx| tx.set("tag", 1, &[])), ["update tag 1"]);
    assert!(done(&store, |tx| tx.drop_it("tag", 77).map(|was| assert!(!was))).is_empty());
    // Deleted and made again within one write: changed.
    let again = done(&store, |tx| {
        tx.tie(("blog", "tags"), 1, 1, false)?;
        tx.drop_it("tag", 1)?;
        tx.put("tag", &[("id", Value::Int(1)), ("name", text("a"))]).map(drop)
    });
    assert_eq!(again, ["update tag 1", "delete blog.tags 1"]);
    // A link taken and put back is the link it was.
    assert!(
        done(&store, |tx| {
            tx.tie(("blog", "tags"), 1, 2, false)?;
            assert!(tx.tie(("tag", "blogs"), 2, 1, true)?);
            Ok(())
        })
        .is_empty()
    );
    assert!(
        done(&store, |tx| {
            tx.tie(("blog", "tags"), 1, 2, true).map(|new| assert!(!new))?;
            tx.tie(("blog", "tags"), 1, 1, false).map(|was| assert!(!was))
        })
        .is_empty()
    );
}

#[test]
fn optional_references_become_null_and_links_go() {
    let (_dir, store) = world();
    let commit = commit_of(&store, |tx| tx.drop_it("category", 2).map(drop));
    assert_eq!(told(&store, &commit), ["delete category 2", "update blog 1"]);
    store
        .read_blocking(move |reader| {
            assert!(reader.cell("blog", 1, "category_id").is_null());
            assert_eq!(reader.cell("blog", 1, "updated_at"), Value::Time(commit.time));
            assert_eq!(reader.cell("blog", 1, "created_at"), Value::Time(1));
            Ok(())
        })
        .unwrap();
    assert_eq!(
        done(&store, |tx| tx.drop_it("blog", 1).map(drop)),
        ["delete blog 1", "delete blog.tags 1", "delete blog.tags 2"]
    );
}

#[test]
fn a_tree_goes_branch_by_branch() {
    let (_dir, store) = world();
    assert_eq!(
        done(&store, |tx| tx.drop_it("category", 1).map(drop)),
        ["delete category 1", "update category 2"]
    );
    // Set null as a consequence, then deleted itself: one delete, with the image it began with.
    let (_dir, store) = world();
    let commit = commit_of(&store, |tx| {
        tx.drop_it("category", 1)?;
        tx.drop_it("category", 2).map(drop)
    });
    assert_eq!(told(&store, &commit), ["delete category 1", "delete category 2", "update blog 1"]);
    let parent = store.catalog().named("category").unwrap().column("parent_id").unwrap();
    assert_eq!(*commit.changes[1].before.as_ref().unwrap().get(parent), Value::Int(1));
    // A record that refers to itself does not stand in its own way.
    let (_dir, store) = world();
    let lines = done(&store, |tx| {
        tx.set("category", 1, &[("parent_id", Value::Int(1))])?;
        tx.drop_it("category", 1).map(drop)
    });
    assert_eq!(lines, ["delete category 1", "update category 2"]);
}

#[test]
fn a_required_reference_stands_in_the_way() {
    let (_dir, store) = world();
    let (kind, message) = refused(&store, |tx| tx.drop_it("user", id(1)).map(drop));
    assert_eq!(kind, Kind::Conflict);
    assert!(message.contains("blog.author"), "{message}");
    let lines = done(&store, |tx| {
        tx.drop_it("blog", 1)?;
        tx.drop_it("user", id(1)).map(drop)
    });
    assert_eq!(lines[..2], ["delete blog 1", "delete user 1"]);
}

#[test]
fn friends_are_linked_both_ways() {
    let (_dir, store) = world();
    const SEE_ALSO: (&str, &str) = ("blog", "see_also");
    done(&store, |tx| {
        tx.put("blog", &[("title", text("two")), ("author_id", id(1))])?;
        assert!(tx.tie(SEE_ALSO, 1, 2, true)?);
        assert!(!tx.tie(SEE_ALSO, 2, 1, true)?);
        Ok(())
    });
    let lines = done(&store, |tx| tx.tie(SEE_ALSO, 2, 1, false).map(|was| assert!(was)));
    assert_eq!(lines.len(), 2, "{lines:?}");
    done(&store, |tx| {
        tx.tie(SEE_ALSO, 1, 2, true)?;
        tx.tie(SEE_ALSO, 1, 1, true).map(drop)
    });
    let lines = done(&store, |tx| tx.drop_it("blog", 1).map(drop));
    assert_eq!(lines.iter().filter(|line| line.contains("see_also")).count(), 3, "{lines:?}");
}

#[test]
fn refusals_name_the_field_and_the_value() {
    let (_dir, store) = world();
    let author = ("author_id", id(1));
    let cases: Vec<(&str, Kind, (Kind, String))> = vec![
        (
            "name: the value \"a\" is taken",
            Kind::Bad,
            refused(&store, |tx| tx.put("tag", &[("name", text("a"))]).map(drop)),
        ),
        (
            "name: the value \"a\" is taken",
            Kind::Bad,
            refused(&store, |tx| tx.set("tag", 2, &[("name", text("a"))])),
        ),
        (
            "id: the value 1 is taken",
            Kind::Bad,
            refused(&store, |tx| {
                tx.put("tag", &[("id", Value::Int(1)), ("name", text("c"))]).map(drop)
            }),
        ),
        (
            "category: category: no record with id 99",
            Kind::Bad,
            refused(&store, |tx| tx.set("blog", 1, &[("category_id", Value::Int(99))])),
        ),
        (
            "author: user: no record with id \"00000000-0000-0000-0000-000000000009\"",
            Kind::Bad,
            refused(&store, |tx| {
                tx.put("blog", &[("title", text("x")), ("author_id", id(9))]).map(drop)
            }),
        ),
        (
            "tags: tag: no record with id 9",
            Kind::Bad,
            refused(&store, |tx| tx.tie(("blog", "tags"), 1, 9, true).map(drop)),
        ),
        (
            "title: a value is required",
            Kind::Bad,
            refused(&store, move |tx| tx.put("blog", &[author]).map(drop)),
        ),
        (
            "tag: no record with id 9",
            Kind::NotFound,
            refused(&store, |tx| {
                let tag = tx.of("tag");
                tx.update(&tag, vec![Value::Int(9), text("x")]).map(drop)
            }),
        ),
    ];
    for (text, kind, (was, message)) in cases {
        assert_eq!(was, kind, "{message}");
        assert!(message.contains(text), "{message:?} lacks {text:?}");
    }
}

#[test]
fn an_old_schema_is_refused_not_misread() {
    let (_dir, store) = world();
    let old = store.catalog().named("tag").unwrap().clone();
    done(&store, |tx| {
        let changed = TAG.replace(
            r#""unique":true}"#,
            r#""unique":true},{"name":"n","type":"int","optional":true}"#,
        );
        migrate(tx, &[&changed, CATEGORY, BLOG])?;
        tx.put("tag", &[("name", text("new")), ("n", Value::Int(5))]).map(drop)
    });
    let (kind, message) =
        refused(&store, move |tx| tx.insert(&old, vec![Value::Null, text("x")]).map(drop));
    assert_eq!(kind, Kind::Conflict);
    assert!(message.contains("tag"), "{message}");
    assert_eq!(
        store.read_blocking(|reader| Ok(reader.cell("tag", 3, "n"))).unwrap(),
        Value::Int(5)
    );
}

#[test]
fn ids_are_never_given_twice() {
    let (_dir, store) = world();
    done(&store, |tx| tx.put("tag", &[("name", text("c"))]).map(drop));
    done(&store, |tx| tx.drop_it("tag", 3).map(drop));
    let again = store.write_blocking(|tx| tx.put("tag", &[("name", text("c"))])).unwrap();
    assert_eq!(again.value, Value::Int(4));
    let user = store
        .write_blocking(|tx| {
            tx.put("user", &[("username", text("x")), ("active", Value::Bool(true))])
        })
        .unwrap();
    let Value::Uuid(id) = user.value else { panic!("{:?}", user.value) };
    assert_eq!(id.get_version_num(), 7);
}

#[test]
fn rows_are_sorted_paged_and_counted() {
    let (_dir, store) = world();
    done(&store, |tx| {
        for (title, slug) in [("c", None), ("b", Some("y")), ("a", Some("x")), ("b", None)] {
            let slug = slug.map_or(Value::Null, text);
            tx.put("blog", &[("title", text(title)), ("slug", slug), ("author_id", id(1))])?;
        }
        Ok(())
    });
    let ids = |sort: Vec<(&'static str, bool)>, limit, offset| {
        store
            .read_blocking(move |reader| {
                let schema = reader.of("blog");
                let sort = sort
                    .iter()
                    .map(|(name, descending)| (schema.column(name).unwrap(), *descending))
                    .collect();
                let filter = Predicate::Const(Truth::True);
                let rows = reader.select(&Query { schema, filter, sort, limit, offset })?;
                Ok(rows.iter().map(|row| row.get(0).clone()).collect::<Vec<_>>())
            })
            .unwrap()
    };
    let ints = |ids: &[i64]| ids.iter().map(|n| Value::Int(*n)).collect::<Vec<_>>();
    assert_eq!(ids(vec![], None, 0), ints(&[1, 2, 3, 4, 5]));
    assert_eq!(ids(vec![("id", true)], Some(2), 1), ints(&[4, 3]));
    assert_eq!(ids(vec![("slug", false)], None, 0), ints(&[1, 2, 5, 4, 3]));
    assert_eq!(ids(vec![("slug", true)], None, 0), ints(&[3, 4, 1, 2, 5]));
    assert_eq!(ids(vec![("title", false), ("id", true)], None, 0), ints(&[4, 5, 3, 2, 1]));
    assert_eq!(ids(vec![("title", true)], Some(10), 3), ints(&[3, 5, 4]).split_off(1));
    let count = store
        .read_blocking(|reader| reader.count(&reader.of("blog"), &Predicate::Const(Truth::True)));
    assert_eq!(count.unwrap(), 5);
}

#[test]
fn a_mark_takes_back_rows_and_entries() {
    let (_dir, store) = world();
    let commit = commit_of(&store, |tx| {
        tx.put("tag", &[("name", text("kept"))])?;
        let outer = tx.mark()?;
        tx.put("tag", &[("name", text("lost"))])?;
        let inner = tx.mark()?;
        tx.set("tag", 3, &[("name", text("lost too"))])?;
        tx.keep(inner)?;
        tx.undo(outer)?;
        assert_eq!(tx.cell("tag", 3, "name"), text("kept"));
        let last = tx.mark()?;
        tx.put("tag", &[("name", text("lost"))])?;
        tx.keep(last)
    });
    let names: Vec<_> =
        commit.changes.iter().map(|c| c.after.as_ref().unwrap().get(1).clone()).collect();
    assert_eq!(names, [text("kept"), text("lost")]);
    assert_eq!(store.read_blocking(|r| Ok(r.cell("tag", 3, "name"))).unwrap(), text("kept"));
}
