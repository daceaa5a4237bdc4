//! Durable creates a second through the writer, with 64 clients that each wait for the answer.
//!
//! The aim is 15,000 on one core: run it as `taskset -c 0 cargo bench --bench store`. The store
//! lies under the target directory, on a real disk, since an fsync on tmpfs costs nothing.

#[path = "../tests/support/blog.rs"]
mod blog;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use blog::{BLOG, CATEGORY, PERSON, TAG, text};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rowcast::model::schema::{Schema, SchemaId};
use rowcast::model::value::Value;
use rowcast::store::{CommitSink, Options, Rows, Store};

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
    row: fn(u64) -> Vec<Value>,
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
                        store.write(move |tx| tx.insert(&schema, row(n))).await.unwrap();
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
            tx.lay_out(blog::TABLES, Arc::new(blog::catalog(1)))?;
            let catalog = tx.catalog().clone();
            let schema = |id: SchemaId| catalog.get(id).unwrap().clone();
            for n in 0..100 {
                let name = text(&format!("category {n}"));
                let row = vec![Value::Null, name, Value::Null, Value::Time(0)];
                tx.insert(&schema(CATEGORY), row)?;
                let id = Value::Uuid(uuid::Uuid::from_u128(n));
                tx.insert(&schema(PERSON), vec![id, text("somebody")])?;
            }
            Ok(())
        })
        .unwrap();
    (dir, store)
}

fn creates(c: &mut Criterion) {
    let mut group = c.benchmark_group("durable creates, 64 clients");
    group.throughput(Throughput::Elements(1));
    group.sample_size(10).measurement_time(Duration::from_secs(8));

    let mut run = |name: &str, id: SchemaId, row: fn(u64) -> Vec<Value>| {
        let (_dir, store) = store();
        let schema = store.catalog().get(id).unwrap().clone();
        let next = Arc::new(AtomicU64::new(0));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|number| create(&store, &schema, number, &next, row));
        });
    };
    run("a name under a unique index", TAG, |n| vec![Value::Null, text(&format!("name {n}"))]);
    run("six columns, two references, three indexes", BLOG, |n| {
        vec![
            Value::Null,
            text("A title of a length that titles have"),
            text(&format!("a-title-{n}")),
            Value::Int((n % 100 + 1) as i64),
            Value::Uuid(uuid::Uuid::from_u128(u128::from(n % 100))),
            Value::Time(n as i64),
        ]
    });
    group.finish();
}

criterion_group!(benches, creates);
criterion_main!(benches);
