//! Tables read by primary key, page by page.

use std::sync::Arc;
use std::time::Duration;

use rowcast::filter::{Predicate, Test, TestOp};
use rowcast::model::change::Row;
use rowcast::model::value::Value;
use rowcast::store::{Options, Query, Rows, Scan, Scanned, Store};

use crate::support::*;

/// 5,000 tags, of which every tenth is called something with x.
fn world() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(Options::new(dir.path()));
    for part in 0..5 {
        store
            .write_blocking(move |tx| {
                for n in 0..1_000 {
                    let name = format!("{} {part} {n}", if n % 10 == 0 { "x" } else { "a" });
                    tx.put("tag", &[("name", text(&name))])?;
                }
                Ok(())
            })
            .unwrap();
    }
    (dir, store)
}

fn x(store: &Store) -> Predicate {
    let slot = store.catalog().named("tag").unwrap().column("name").unwrap();
    Predicate::Test(Test { slot, op: TestOp::Gt(text("x")) })
}

/// All pages of a table of the catalog: what each gave.
fn pages(
    store: &Store,
    schema: &'static str,
    filter: Predicate,
    limit: usize,
    bytes: usize,
    time: Duration,
) -> Vec<Scanned> {
    let mut pages: Vec<Scanned> = Vec::new();
    loop {
        let after = pages.last().and_then(|page| page.upto.clone());
        let filter = filter.clone();
        let page = store.read_blocking(move |reader| {
            let schema = reader.of(schema);
            let after = after.as_ref();
            let scan = Scan { schema: &schema, filter: &filter, after, limit, bytes, time };
            reader.scan(&scan)
        });
        let page = page.unwrap();
        let ended = page.upto.is_none();
        pages.push(page);
        if ended {
            return pages;
        }
    }
}

fn all(store: &Store, schema: &'static str, filter: Predicate) -> Vec<Arc<Row>> {
    let read = store.read_blocking(move |reader| {
        let schema = reader.of(schema);
        reader.select(&Query { schema, filter, sort: vec![], limit: None, offset: 0 })
    });
    read.unwrap()
}

fn rows(pages: &[Scanned]) -> Vec<Arc<Row>> {
    pages.iter().flat_map(|page| page.rows.clone()).collect()
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn pages_together_are_what_matches() {
    let (_dir, store) = world();
    let whole = all(&store, "tag", Predicate::ALL);
    assert_eq!(whole.len(), 5_000);
    for limit in [1_000, 999, 1_001, 5_000, 7_000] {
        let pages = pages(&store, "tag", Predicate::ALL, limit, usize::MAX, LONG);
        assert_eq!(rows(&pages), whole, "{limit}");
        assert!(pages.iter().all(|page| page.rows.len() <= limit));
        assert_eq!(pages.len(), 5_000 / limit + 1, "{limit}");
    }
    let some = all(&store, "tag", x(&store));
    assert_eq!(some.len(), 500);
    let found = pages(&store, "tag", x(&store), 100, usize::MAX, LONG);
    assert_eq!(rows(&found), some);
    assert_eq!(found.len(), 6);
}

#[test]
fn bytes_bound_a_page_but_one_row_always_fits() {
    let (_dir, store) = world();
    let whole = all(&store, "tag", x(&store));
    let single = pages(&store, "tag", x(&store), 100, 1, LONG);
    assert_eq!(rows(&single), whole);
    assert!(single.iter().all(|page| page.rows.len() <= 1));
    let some = pages(&store, "tag", x(&store), 1_000, 10_000, LONG);
    assert_eq!(rows(&some), whole);
    assert!(some.len() > 3 && some.len() < 50, "{}", some.len());
}

#[test]
fn a_page_of_a_table_where_nothing_matches_ends_with_its_time() {
    let (_dir, store) = world();
    let none = Predicate::Const(rowcast::filter::Truth::Unknown);
    let pages = pages(&store, "tag", none, 1_000, usize::MAX, Duration::ZERO);
    assert!(rows(&pages).is_empty());
    // 2,000 rows, 2,000, and the rest.
    assert_eq!(pages.len(), 3);
    assert_eq!(pages[0].upto, Some(Value::Int(2_000)));
}

#[test]
fn keys_of_every_kind_and_empty_tables() {
    let (_dir, store) = world();
    let empty = pages(&store, "blog", Predicate::ALL, 10, usize::MAX, LONG);
    assert_eq!(empty, [Scanned { rows: vec![], upto: None }]);
    store
        .write_blocking(|tx| {
            // In no order.
            for n in 1..=100_u128 {
                tx.user(n * 7_919 % 101)?;
            }
            Ok(())
        })
        .unwrap();
    let whole = all(&store, "user", Predicate::ALL);
    assert_eq!(whole.len(), 100);
    let found = pages(&store, "user", Predicate::ALL, 9, usize::MAX, LONG);
    assert_eq!(rows(&found), whole);
}
