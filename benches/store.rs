//! Durable creates a second through the writer, with 64 clients that each wait for the answer.
//!
//! The aim is 15,000 on one core: run it as `taskset -c 0 cargo bench --bench store`. The store
//! lies under the target directory, on a real disk, since an fsync on tmpfs costs nothing.

#[path = "../tests/support/blog.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rowcast::model::schema::Schema;
use rowcast::model::value::Value;
use rowcast::store::{CommitSink, Options, Store};
use support::{BLOG, CATEGORY, Put, TAG, id, text};

const CLIENTS: u64 = 64;

struct Nobody;

impl CommitSink for Nobody {
    fn committed(&mut self, _: &[Arc<rowcast::model::change::Commit>]) {}
}

/// `number` creates by 64 clients; the values are those of `row(n)`, n counting on for ever.
fn create(
    store: &Store,
    schema: &Arc<Schema>,
    number: u64,
    next: &Arc<AtomicU64>,
    row: fn(&Schema, u64) -> Vec<Value>,
) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let until = next.load(Ordering::Relaxed) + number;
    let begun = Instant::now();
    runtime.block_on(async {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (store, schema, next) = (store.clone(), schema.clone(), next.clone());
                tokio::spawn(async move {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= until {
                            break;
                        }
                        let schema = schema.clone();
                        store.write(move |tx| tx.insert(&schema, row(&schema, n))).await.unwrap();
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.unwrap();
        }
    });
    next.store(until, Ordering::Relaxed);
    begun.elapsed()
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = Store::open(Options::new(dir.path()), Box::new(Nobody)).unwrap();
    store
        .write_blocking(|tx| {
            support::migrate(tx, &[TAG, CATEGORY, BLOG])?;
            for n in 0..100 {
                tx.user(n)?;
                tx.put("category", &[("name", text(&format!("category {n}")))])?;
            }
            Ok(())
        })
        .unwrap();
    (dir, store)
}

fn creates(c: &mut Criterion) {
    let mut group = c.benchmark_group("durable creates, 64 clients");
    group.throughput(Throughput::Elements(1));

    let mut run = |name: &str, schema: &str, row: fn(&Schema, u64) -> Vec<Value>| {
        let (_dir, store) = store();
        let schema = store.catalog().named(schema).unwrap().clone();
        let next = Arc::new(AtomicU64::new(0));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|number| create(&store, &schema, number, &next, row));
        });
    };
    run("a name under a unique index", "tag", |schema, n| {
        support::row(schema, &[("name", text(&format!("name {n}")))])
    });
    run("seven columns, two references, three indexes", "blog", |schema, n| {
        let given = [
            ("title", text("A title of a length that titles have")),
            ("slug", text(&format!("a-title-{n}"))),
            ("category_id", Value::Int((n % 100 + 1) as i64)),
            ("author_id", id(u128::from(n % 100))),
        ];
        support::row(schema, &given)
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(8));
    targets = creates
}
criterion_main!(benches);
