//! Lines, groups, snapshots: what happens when many come at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rowcast::error::{Error, Kind};
use rowcast::filter::{Hop, Predicate, Truth};
use rowcast::model::catalog::Catalog;
use rowcast::model::value::Value;
use rowcast::store::{Options, Query, Rows, Store};

use crate::support::*;

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn each_write_of_a_group_succeeds_or_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, sink) = open(Options::new(dir.path()));
    let first = sink.clone();
    runtime().block_on(async {
        let clients: Vec<_> = (0..64)
            .map(|client| {
                let (store, sink) = (store.clone(), sink.clone());
                tokio::spawn(async move {
                    for n in 0..20 {
                        let name = format!("{client} {n}");
                        let write = store.write(move |tx| {
                            let tag = tx.put("tag", &[("name", text(&name))])?;
                            match n % 4 {
                                // Undone by its own error.
                                1 => Err(Error::bad("on purpose")),
                                // Undone by the store's.
                                2 => tx.put("tag", &[("name", text(&name))]),
                                _ => Ok(tag),
                            }
                        });
                        match write.await {
                            Ok(written) => {
                                assert!(n % 4 == 0 || n % 4 == 3);
                                let position = written.commit.unwrap().position;
                                // Told before it is answered, and to be read at once.
                                let told = sink.all();
                                assert!(told.iter().any(|commit| commit.position == position));
                                let Value::Int(id) = written.value else { panic!() };
                                let row = store.read(move |reader| Ok(reader.find("tag", id)));
                                assert!(row.await.unwrap().is_some());
                            }
                            Err(error) => {
                                assert_eq!(error.kind, Kind::Bad, "{error}");
                                assert!(n % 4 == 1 || n % 4 == 2);
                            }
                        }
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.unwrap();
        }
        assert_eq!(store.barrier().await.unwrap(), 1 + 64 * 10);
    });
    let positions: Vec<_> = first.all().iter().map(|commit| commit.position).collect();
    assert_eq!(positions, (2..=1 + 64 * 10).collect::<Vec<_>>());
}

#[test]
fn a_migration_holds_from_its_own_write_on_and_a_failed_one_never() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(Options::new(dir.path()));
    let wide = TAG.replace(
        r#""unique":true}"#,
        r#""unique":true},{"name":"n","type":"int","optional":true}"#,
    );
    let hold = Hold::new(&store);
    let texts = wide.clone();
    runtime().block_on(async {
        // All in one group: they wait while the writer is held.
        let failed = store.write(move |tx| {
            migrate(tx, &[&texts, CATEGORY, BLOG])?;
            tx.put("tag", &[("name", text("in vain")), ("n", Value::Int(1))])?;
            Err::<(), _>(Error::bad("on purpose"))
        });
        let old = store.write(|tx| {
            assert!(tx.of("tag").column("n").is_none());
            tx.put("tag", &[("name", text("old"))])
        });
        let good = store.write(move |tx| {
            migrate(tx, &[&wide, CATEGORY, BLOG])?;
            tx.put("tag", &[("name", text("own")), ("n", Value::Int(2))])
        });
        let new = store.write(|tx| tx.put("tag", &[("name", text("new")), ("n", Value::Int(3))]));
        let release = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            hold.release();
        };
        let (failed, old, good, new, ()) = tokio::join!(failed, old, good, new, release);
        assert_eq!(failed.unwrap_err().message, "on purpose");
        let keys = [old, good, new].map(|written| written.unwrap().value);
        assert_eq!(keys, [Value::Int(1), Value::Int(2), Value::Int(3)]);
    });
    let cells = store.read_blocking(|reader| Ok([1, 2, 3].map(|key| reader.cell("tag", key, "n"))));
    assert_eq!(cells.unwrap(), [Value::Null, Value::Int(2), Value::Int(3)]);
}

#[test]
fn readers_never_see_rows_of_another_catalog() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(Options::new(dir.path()));
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (store, over) = (store.clone(), over.clone());
            std::thread::spawn(move || {
                let mut versions = 0;
                let mut last = 0;
                while !over.load(Ordering::Relaxed) {
                    let version = store.read_blocking(|reader| {
                        let tag = reader.of("tag");
                        for row in select_all(reader, "tag") {
                            assert_eq!(row.values.len(), tag.columns.len());
                        }
                        Ok(reader.catalog().version)
                    });
                    let version = version.unwrap();
                    assert!(version >= last);
                    versions += usize::from(version != last);
                    last = version;
                }
                versions
            })
        })
        .collect();
    for n in 0..30 {
        let columns: String = (0..=n)
            .map(|n| format!(r#"{{"name":"c{n}","type":"int","optional":true}},"#))
            .collect();
        let text_ = TAG.replace(r#""fields":["#, &format!(r#""fields":[{columns}"#));
        store
            .write_blocking(move |tx| {
                migrate(tx, &[&text_, CATEGORY, BLOG])?;
                tx.put("tag", &[("name", text(&n.to_string()))])
            })
            .unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    over.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().unwrap() > 3);
    }
}

fn select_all(rows: &impl Rows, name: &str) -> Vec<Arc<rowcast::model::change::Row>> {
    let schema = rows.catalog().named(name).unwrap().clone();
    let filter = Predicate::Const(Truth::True);
    rows.select(&Query { schema, filter, sort: Vec::new(), limit: None, offset: 0 }).unwrap()
}

/// Keeps the writer busy until it is released.
pub struct Hold(std::sync::mpsc::Sender<()>, std::thread::JoinHandle<()>);

impl Hold {
    pub fn new(store: &Store) -> Hold {
        let (release, released) = channel();
        let (begun, begins) = channel();
        let store = store.clone();
        let thread = std::thread::spawn(move || {
            let held = store.write_blocking(move |_| {
                begun.send(()).unwrap();
                released.recv_timeout(Duration::from_secs(20)).unwrap();
                Ok(())
            });
            held.unwrap();
        });
        begins.recv_timeout(Duration::from_secs(20)).unwrap();
        Hold(release, thread)
    }

    pub fn release(self) {
        self.0.send(()).unwrap();
        self.1.join().unwrap();
    }
}

#[test]
fn a_full_line_is_503_and_an_abandoned_write_is_not_begun() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::new(dir.path());
    options.limits.waiting_writes = 2;
    let (store, _) = open(options);
    let hold = Hold::new(&store);
    let runs = Arc::new(AtomicUsize::new(0));
    let count = || {
        let runs = runs.clone();
        store.write(move |_| {
            runs.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
    };
    runtime().block_on(async {
        let mut first = Box::pin(count());
        let mut second = Box::pin(count());
        let _ = futures_util::future::select(&mut first, std::future::ready(())).await;
        let _ = futures_util::future::select(&mut second, std::future::ready(())).await;
        let full = count().await.unwrap_err();
        assert_eq!(full.kind, Kind::Unavailable);
        assert!(full.message.contains("waiting"), "{full}");
        drop(first);
        // A barrier is no client's: it always gets in.
        let barrier = store.barrier();
        let release = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            hold.release();
        };
        let (barrier, second, ()) = tokio::join!(barrier, second, release);
        assert_eq!(barrier.unwrap(), 1);
        assert!(second.unwrap().commit.is_none());
    });
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

/// True for no tag, after a number of steps that grows with the cube of the number of blogs.
fn endless(catalog: &Catalog) -> Predicate {
    let hop = |from: &str, name: &str, inner| {
        let schema = catalog.named(from).unwrap();
        let relation = schema.relation(name).unwrap();
        Predicate::Any(Box::new(Hop {
            schema: schema.id,
            relation,
            visible: None,
            absent: Truth::False,
            inner,
        }))
    };
    let mut inner = Predicate::Const(Truth::False);
    for _ in 0..5 {
        inner = hop("blog", "tags", hop("tag", "blogs", inner));
    }
    inner
}

/// A store in which [`endless`] takes for ever.
fn tangled(change: impl FnOnce(&mut Options)) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options { readers: 1, ..Options::new(dir.path()) };
    change(&mut options);
    let (store, _) = open(options);
    store
        .write_blocking(|tx| {
            tx.user(1)?;
            for n in 1..=20 {
                tx.put("tag", &[("name", text(&n.to_string()))])?;
            }
            for n in 1..=20 {
                tx.put("blog", &[("title", text("x")), ("author_id", id(1))])?;
                for tag in 1..=20 {
                    tx.tie(("blog", "tags"), n, tag, true)?;
                }
            }
            Ok(())
        })
        .unwrap();
    (dir, store)
}

#[test]
fn a_read_that_takes_too_long_is_interrupted() {
    let (_dir, store) = tangled(|options| options.limits.read_time = Duration::from_millis(200));
    let begun = Instant::now();
    let count = store.read_blocking(|reader| {
        let filter = endless(reader.catalog());
        reader.count(&reader.of("blog"), &filter)
    });
    let error = count.unwrap_err();
    assert_eq!(error.kind, Kind::Timeout, "{error}");
    assert!(error.message.contains("filter"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    // The next read has a time of its own.
    assert!(store.read_blocking(|reader| Ok(reader.find("blog", 1))).unwrap().is_some());
}

#[test]
fn a_write_that_reads_too_long_fails_alone() {
    let (_dir, store) = tangled(|options| options.limits.read_time = Duration::from_millis(200));
    let error = store
        .write_blocking(|tx| {
            tx.put("tag", &[("name", text("in vain"))])?;
            let filter = endless(tx.catalog());
            tx.count(&tx.of("blog"), &filter)
        })
        .map(|written| written.value)
        .unwrap_err();
    assert_eq!(error.kind, Kind::Timeout, "{error}");
    let tag = store.write_blocking(|tx| tx.put("tag", &[("name", text("good"))])).unwrap();
    assert_eq!(tag.commit.unwrap().position, 3);
    let rows = store.read_blocking(|reader| Ok(select_all(reader, "tag").len())).unwrap();
    assert_eq!(rows, 21);
}

#[test]
fn a_read_whose_client_left_is_interrupted() {
    let (_dir, store) = tangled(|options| options.limits.read_time = Duration::from_secs(600));
    let begun = Instant::now();
    runtime().block_on(async {
        let endless = store.read(|reader| {
            let filter = endless(reader.catalog());
            reader.count(&reader.of("blog"), &filter)
        });
        assert!(tokio::time::timeout(Duration::from_millis(100), endless).await.is_err());
        // The only reader is free again.
        let row = store.read(|reader| Ok(reader.find("blog", 1)));
        assert!(row.await.unwrap().is_some());
    });
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn reads_wait_in_a_bounded_line_and_a_panic_is_its_own() {
    let (_dir, store) = tangled(|options| options.limits.waiting_reads = 1);
    let (release, released) = channel::<()>();
    let (begun, begins) = channel();
    let other = store.clone();
    let busy = std::thread::spawn(move || {
        other.read_blocking(move |_| {
            begun.send(()).unwrap();
            Ok(released.recv_timeout(Duration::from_secs(20)).is_ok())
        })
    });
    begins.recv().unwrap();
    runtime().block_on(async {
        let mut waits = Box::pin(store.read(|_| Ok(1)));
        let _ = futures_util::future::select(&mut waits, std::future::ready(())).await;
        assert_eq!(store.read(|_| Ok(2)).await.unwrap_err().kind, Kind::Unavailable);
        release.send(()).unwrap();
        assert_eq!(waits.await.unwrap(), 1);
        let panicked = store.read(|_| -> Result<(), Error> { panic!("on purpose") }).await;
        assert_eq!(panicked.unwrap_err().kind, Kind::Internal);
        assert_eq!(store.read(|_| Ok(3)).await.unwrap(), 3);
    });
    assert!(busy.join().unwrap().unwrap());
}

#[test]
fn a_read_has_one_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(Options::new(dir.path()));
    let other = store.clone();
    let counts = store.read_blocking(move |reader| {
        let before = select_all(reader, "tag").len();
        other.write_blocking(|tx| tx.put("tag", &[("name", text("new"))]))?;
        Ok((before, select_all(reader, "tag").len(), reader.newest()?.map(|mark| mark.position)))
    });
    assert_eq!(counts.unwrap(), (0, 0, Some(1)));
    assert_eq!(store.read_blocking(|reader| Ok(select_all(reader, "tag").len())).unwrap(), 1);
}

#[test]
fn one_store_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (store, sink) = open(Options::new(dir.path()));
    let second = Store::open(Options::new(dir.path()), Box::new(sink));
    let error = second.map(drop).unwrap_err();
    assert!(error.message.contains(&*dir.path().to_string_lossy()), "{error}");
    drop(store);
    open(Options::new(dir.path()));
}
