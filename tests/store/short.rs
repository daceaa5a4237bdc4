//! Short reads, done by the thread of an event loop that asks for them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use rowcast::error::{Kind, Result};
use rowcast::filter::{Predicate, Truth};
use rowcast::model::value::Value;
use rowcast::store::{Options, Query, Reader, Rows, Store, here};
use tokio::runtime::{Builder, Runtime};

use crate::support::*;

/// A store with so many tags, the name of each padded to `bytes`.
fn tags(number: usize, bytes: usize) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(Options::new(dir.path()));
    let put = move |tx: &mut rowcast::store::Tx<'_>| {
        for n in 1..=number {
            tx.put("tag", &[("name", text(&format!("{n:0>bytes$}")))])?;
        }
        Ok(())
    };
    store.write_blocking(put).unwrap();
    (dir, store)
}

/// Runs `work` in a thread that serves as an event loop's.
fn on_a_loop<T: Send>(work: impl FnOnce(&Runtime) -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            here::settle();
            work(&Builder::new_current_thread().build().unwrap())
        });
        thread.join().unwrap()
    })
}

/// The threads that a read was tried by.
#[derive(Clone, Default)]
struct By(Arc<Mutex<Vec<ThreadId>>>);

impl By {
    fn note(&self) {
        self.0.lock().unwrap().push(thread::current().id());
    }

    fn take(&self) -> Vec<ThreadId> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn all_tags(reader: &Reader<'_>) -> Query {
    let filter = Predicate::Const(Truth::True);
    Query { schema: reader.of("tag"), filter, sort: Vec::new(), limit: None, offset: 0 }
}

/// How many tags there are: each is looked at.
fn count(reader: &Reader<'_>) -> Result<u64> {
    let ask = all_tags(reader);
    reader.count(&ask.schema, &ask.filter)
}

#[test]
fn a_loop_does_short_reads_itself_and_others_have_them_done() {
    let (_dir, store) = tags(3, 1);
    let by = By::default();
    let job = {
        let by = by.clone();
        move |reader: &Reader<'_>| {
            by.note();
            count(reader)
        }
    };
    on_a_loop(|runtime| {
        let here = thread::current().id();
        assert_eq!(runtime.block_on(store.read_short(1, job.clone())).unwrap(), 3);
        assert_eq!(by.take(), [here]);
        assert_eq!(runtime.block_on(store.read(job.clone())).unwrap(), 3);
        assert_ne!(by.take(), [here]);
    });
    let runtime = Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(store.read_short(1, job)).unwrap(), 3);
    assert_ne!(by.take(), [thread::current().id()]);
}

#[test]
fn what_is_not_short_is_done_whole_elsewhere_and_its_kind_is_spared() {
    const TAGS: u64 = 9_000;
    let (_dir, store) = tags(TAGS as usize, 1);
    let by = By::default();
    on_a_loop(|runtime| {
        let here = thread::current().id();
        let read = |kind: u64, long: bool| {
            let by_whom = by.clone();
            let job = move |reader: &Reader<'_>| {
                by_whom.note();
                match long {
                    // Two steps each, at least.
                    true => Ok(count(reader)? + count(reader)?),
                    false => Ok(u64::from(reader.find("tag", 7).is_some())),
                }
            };
            let answer = runtime.block_on(store.read_short(kind, job)).unwrap();
            assert_eq!(answer, if long { 2 * TAGS } else { 1 });
            by.take()
        };
        let tries = |kind: u64, number: usize| {
            (0..number).filter(|_| read(kind, true).contains(&here)).count()
        };
        let first = read(1, true);
        assert!(first.len() == 2 && first[0] == here && first[1] != here, "{first:?}");
        // Then it is tried less and less often, but again and again.
        assert_eq!(tries(1, 16), 0);
        assert_eq!(tries(1, 33), 1);
        let many = tries(1, 2_500);
        assert!((5..10).contains(&many), "{many} tries");
        // Another kind is none of it; and one whose reads became short again is tried again.
        assert_eq!(read(2, false), [here]);
        assert!((0..2_000).any(|_| read(1, false) == [here]));
        assert_eq!(read(1, false), [here]);
    });
}

/// It read large cells, say: nothing looks at the clock meanwhile.
#[test]
fn a_read_that_took_long_unseen_is_answered_and_its_kind_is_spared() {
    let (_dir, store) = tags(3, 1);
    on_a_loop(|runtime| {
        let here = thread::current().id();
        let by = By::default();
        let read = |time: Duration| {
            let by_whom = by.clone();
            let job = move |reader: &Reader<'_>| {
                by_whom.note();
                thread::sleep(time);
                count(reader)
            };
            assert_eq!(runtime.block_on(store.read_short(1, job)).unwrap(), 3);
            by.take()
        };
        assert_eq!(read(Duration::from_millis(30)), [here], "once");
        for _ in 0..16 {
            assert!(!read(Duration::ZERO).contains(&here));
        }
    });
}

#[test]
fn many_small_statements_are_bounded_together() {
    let (_dir, store) = tags(10, 1);
    let made = Arc::new(Mutex::new(Vec::new()));
    let noted = made.clone();
    const MANY: usize = 200_000;
    let job = move |reader: &Reader<'_>| {
        let mut done = 0;
        let schema = reader.of("tag");
        let ended = (0..MANY).try_for_each(|n| {
            reader.get(&schema, &Value::Int(n as i64 % 10 + 1))?;
            done += 1;
            Ok(())
        });
        noted.lock().unwrap().push(done);
        ended
    };
    on_a_loop(|runtime| runtime.block_on(store.read_short(1, job))).unwrap();
    let made = made.lock().unwrap();
    // Each takes some ten steps of the 20,000.
    assert!(made.len() == 2 && made[0] <= 5_000 && made[1] == MANY, "{made:?}");
}

#[test]
fn records_of_many_bytes_are_read_whole_elsewhere() {
    let (_dir, store) = tags(50, 4_000);
    on_a_loop(|runtime| {
        let here = thread::current().id();
        let by = By::default();
        for limit in [10, 50] {
            let noted = by.clone();
            let job = move |reader: &Reader<'_>| {
                noted.note();
                let query = Query { limit: Some(limit), ..all_tags(reader) };
                let rows = reader.select_within(&query, 1 << 30)?;
                let bytes = reader.most(1 << 30);
                Ok((rows.len() as u64, bytes))
            };
            let (rows, most) = runtime.block_on(store.read_short(limit, job)).unwrap();
            assert_eq!(rows, limit);
            let by = by.take();
            match limit {
                10 => assert!(by == [here] && most < 1 << 20),
                _ => assert!(by.len() == 2 && by[1] != here && most == 1 << 30),
            }
        }
    });
}

#[test]
fn errors_of_the_question_are_answered_and_a_panic_is_its_own_reads() {
    let (_dir, store) = tags(3, 1);
    on_a_loop(|runtime| {
        let tries = Arc::new(AtomicUsize::new(0));
        // And faults: they are in the log under the id that the client is told.
        for kind in [Kind::NotFound, Kind::Bad, Kind::Forbidden, Kind::Internal, Kind::Unavailable]
        {
            let (tried, error) = (tries.clone(), rowcast::error::Error::new(kind, "no"));
            let job = move |_: &Reader<'_>| -> Result<()> {
                tried.fetch_add(1, Ordering::Relaxed);
                Err(error.clone())
            };
            let answer = runtime.block_on(store.read_short(1, job));
            assert_eq!(answer.unwrap_err().kind, kind);
        }
        assert_eq!(tries.load(Ordering::Relaxed), 5, "each once");
        let tried = tries.clone();
        let job = move |_: &Reader<'_>| -> Result<()> {
            tried.fetch_add(1, Ordering::Relaxed);
            panic!("on purpose");
        };
        assert_eq!(runtime.block_on(store.read_short(1, job)).unwrap_err().kind, Kind::Internal);
        assert_eq!(tries.load(Ordering::Relaxed), 6, "not again elsewhere");
        assert_eq!(runtime.block_on(store.read_short(1, count)).unwrap(), 3);
    });
}

#[test]
fn after_a_read_that_took_a_while_others_of_the_loop_have_their_turn() {
    let (_dir, store) = tags(3, 1);
    on_a_loop(|runtime| {
        runtime.block_on(async {
            let turns = Arc::new(AtomicUsize::new(0));
            let noted = turns.clone();
            tokio::spawn(async move {
                loop {
                    noted.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            });
            let (by, here) = (By::default(), thread::current().id());
            for n in 1..=3 {
                let noted = by.clone();
                let job = move |reader: &Reader<'_>| {
                    noted.note();
                    let begun = Instant::now();
                    while begun.elapsed() < Duration::from_micros(200) {
                        count(reader)?;
                    }
                    Ok(())
                };
                store.read_short(1, job).await.unwrap();
                assert!(turns.load(Ordering::Relaxed) >= n);
            }
            assert!(by.take().contains(&here));
        });
    });
}

#[test]
fn what_was_acknowledged_is_read() {
    let (_dir, store) = tags(1, 1);
    thread::scope(|scope| {
        for lot in 0..3 {
            let store = &store;
            scope.spawn(move || {
                on_a_loop(|runtime| {
                    for n in 0..60 {
                        let name = text(&format!("{lot} {n}"));
                        let write = store.write(move |tx| tx.put("tag", &[("name", name)]));
                        let key = runtime.block_on(write).unwrap().value;
                        let job = move |reader: &Reader<'_>| {
                            reader.get(&reader.of("tag"), &key).map(|row| row.is_some())
                        };
                        assert!(runtime.block_on(store.read_short(1, job)).unwrap());
                    }
                });
            });
        }
    });
}

#[test]
fn rows_and_catalog_belong_together_while_schemas_change() {
    let (_dir, store) = tags(3, 1);
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let reads = scope.spawn(|| {
            on_a_loop(|runtime| {
                let mut versions = HashSet::new();
                while !ended.load(Ordering::Relaxed) {
                    let job = |reader: &Reader<'_>| {
                        let rows = reader.select_within(&all_tags(reader), 1 << 20)?;
                        let columns = reader.of("tag").columns.len();
                        assert!(rows.iter().all(|row| row.values.len() == columns));
                        assert_eq!(rows.len(), 3);
                        Ok(reader.catalog().version)
                    };
                    versions.insert(runtime.block_on(store.read_short(1, job)).unwrap());
                }
                versions
            })
        });
        let mut more = String::new();
        for n in 0..20 {
            more.push_str(&format!(r#"{{"name":"more{n}","type":"int","optional":true}},"#));
            let blogs = r#"{"name":"blogs""#;
            let tag = TAG.replacen(blogs, &format!("{more}{blogs}"), 1);
            store.write_blocking(move |tx| migrate(tx, &[&tag, CATEGORY, BLOG])).unwrap();
        }
        ended.store(true, Ordering::Relaxed);
        assert!(!reads.join().unwrap().is_empty());
    });
}

#[test]
fn a_store_that_loops_read_closes_whole() {
    let (dir, mut store) = tags(3, 1);
    for _ in 0..3 {
        // The last handle goes on a loop, whose reads' connections are open.
        on_a_loop(|runtime| {
            let other = store.clone();
            let read = on_a_loop(|runtime| runtime.block_on(other.read_short(1, count)));
            assert_eq!(read.unwrap(), 3);
            assert_eq!(runtime.block_on(store.read_short(1, count)).unwrap(), 3);
            drop((other, store));
        });
        // The writer's connection was the last: it has moved the log into the file.
        assert!(!dir.path().join("rowcast.db-wal").exists());
        store = open(Options::new(dir.path())).0;
    }
}
