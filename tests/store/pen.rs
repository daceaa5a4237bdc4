//! Who writes: an event loop by itself, or the writer's thread.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{ThreadId, current};
use std::time::Duration;

use futures_util::FutureExt;
use rowcast::error::{Error, Kind, Result};
use rowcast::model::related::Want;
use rowcast::model::value::Value;
use rowcast::store::fair::Payer;
use rowcast::store::{Lane, Options, Rows, Store, Tx, Written, here};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use uuid::Uuid;

use crate::naive::paths;
use crate::rng::Rng;
use crate::support::*;
use crate::writes::{Hold, runtime};

/// Nothing takes as long, but what never ends.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whatever the disk takes.
fn patient(dir: &Path) -> Options {
    Options { quick: PATIENCE, ..Options::new(dir) }
}

fn event_loop() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Makes a tag and gives the thread that did it.
fn tag(name: String) -> impl FnOnce(&mut Tx<'_>) -> Result<(ThreadId, bool)> + Send + 'static {
    move |tx| {
        tx.put("tag", &[("name", text(&name))])?;
        Ok((current().id(), tx.is_brief()))
    }
}

/// Runs on a thread that does short work itself.
fn on_a_loop<T: Send>(work: impl AsyncFnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let run = || {
            here::settle();
            event_loop().block_on(work())
        };
        scope.spawn(run).join().unwrap()
    })
}

/// Lets the writer's thread fall asleep, as far as it has nothing to do.
async fn calm(store: &Store) {
    store.barrier().await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// Whether a brief write is done by its own thread, of some tries: a thread that was just awake,
/// or another test's load on the disk, may come between.
async fn is_done_here(store: &Store) -> bool {
    for _ in 0..20 {
        calm(store).await;
        let (by, brief) = store.write_brief(tag(Uuid::new_v4().to_string())).await.unwrap().value;
        assert_eq!(by == current().id(), brief);
        if brief {
            return true;
        }
    }
    false
}

#[test]
fn a_lone_brief_write_is_done_by_the_event_loop_that_asks() {
    let dir = tempfile::tempdir().unwrap();
    let (store, told) = open(patient(dir.path()));
    on_a_loop(async || {
        assert!(is_done_here(&store).await);
        let other = store.write(tag("other".into())).await.unwrap().value;
        assert!(other.0 != current().id() && !other.1);
        // What fails is undone, and said.
        calm(&store).await;
        let before = told.all().len();
        let clash = store.write_brief(tag("other".into())).await.unwrap_err();
        assert_eq!(clash.kind, Kind::Bad, "{clash}");
        let wrong = store.write_brief(|tx| {
            tx.put("tag", &[("name", text("wrong"))])?;
            Err::<(), _>(Error::bad("on purpose"))
        });
        assert_eq!(wrong.await.unwrap_err().message, "on purpose");
        assert_eq!(told.all().len(), before);
        assert!(store.write_brief(tag("wrong".into())).await.is_ok());
    });
    // Nowhere else.
    runtime().block_on(async {
        let (by, brief) = store.write_brief(tag("elsewhere".into())).await.unwrap().value;
        assert!(by != current().id() && !brief);
    });
}

#[test]
fn who_is_not_alone_is_done_by_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(patient(dir.path()));
    on_a_loop(async || {
        // Asked for at the same time.
        calm(&store).await;
        let both = tokio::join!(
            store.write_brief(tag("one".into())),
            store.write_brief(tag("two".into())),
        );
        for by in [both.0, both.1] {
            assert!(!by.unwrap().value.1);
        }
        // One that takes long waits too.
        calm(&store).await;
        let long = store.write_long(Lane::Schemas, tag("long".into()));
        let both = tokio::join!(store.write_brief(tag("three".into())), long);
        assert!(!both.0.unwrap().value.1 && !both.1.unwrap().value.1);
        // Somebody is at it.
        let hold = Hold::new(&store);
        let mut waits = Box::pin(store.write_brief(tag("four".into())));
        assert!((&mut waits).now_or_never().is_none());
        hold.release();
        assert!(!waits.await.unwrap().value.1);
    });
}

#[test]
fn what_would_hold_an_event_loop_is_left_to_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(Options::new(dir.path()));
    on_a_loop(async || {
        // Related records may be many.
        let blog = store.catalog().named("blog").unwrap().id;
        store.want(Want { paths: [(blog, paths(&["author"]))].into(), ..Want::default() });
        calm(&store).await;
        assert!(!store.write_brief(tag("wanted".into())).await.unwrap().value.1);
        store.want(Want::default());
        // Wanted while it waits for its turn.
        calm(&store).await;
        let mut waits = Box::pin(store.write_brief(tag("wanted late".into())));
        assert!((&mut waits).now_or_never().is_none());
        store.want(Want { paths: [(blog, paths(&["author"]))].into(), ..Want::default() });
        assert!(!waits.await.unwrap().value.1);
        store.want(Want::default());
        // What was slow lately is slow.
        for n in 0..8 {
            calm(&store).await;
            let slow = store.write_brief(move |tx| {
                std::thread::sleep(Duration::from_millis(5));
                tx.put("tag", &[("name", text(&format!("slow {n}")))])?;
                Ok(tx.is_brief())
            });
            let brief = slow.await.unwrap().value;
            assert!(!brief || n < 3);
        }
    });
}

#[test]
fn what_is_given_back_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let (store, told) = open(patient(dir.path()));
    let give_back = |tx: &mut Tx<'_>| {
        let key = tx.put("tag", &[("name", text("given back"))])?;
        tx.give_back();
        Ok((key, tx.is_brief()))
    };
    on_a_loop(async || {
        let mut brief = false;
        for n in 0..20 {
            calm(&store).await;
            let before = told.all().len();
            let written = store.write_brief(give_back).await.unwrap();
            brief |= written.value.1;
            assert!(written.commit.is_none() && told.all().len() == before);
            // Its id is nobody's yet.
            let name = format!("next {n}");
            let next = store.write_brief(move |tx| tx.put("tag", &[("name", text(&name))]));
            assert_eq!(next.await.unwrap().value, written.value.0);
        }
        assert!(brief);
        // Among others.
        let hold = Hold::new(&store);
        let mut all = Box::pin(async {
            tokio::join!(
                store.write(tag("before".into())),
                store.write(give_back),
                store.write(tag("after".into())),
            )
        });
        assert!((&mut all).now_or_never().is_none());
        hold.release();
        let (before, back, after) = all.await;
        let position = before.unwrap().commit.unwrap().position;
        assert!(back.unwrap().commit.is_none());
        assert_eq!(after.unwrap().commit.unwrap().position, position + 1);
    });
}

#[test]
fn a_brief_write_has_a_budget_of_bytes() {
    const BYTES: usize = 200 << 10;
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(patient(dir.path()));
    let put = |tx: &mut Tx<'_>| tx.put("tag", &[("name", text(&"x".repeat(BYTES)))]);
    let heavy = store.write_blocking(put).unwrap().value;
    on_a_loop(async || {
        let mut brief = false;
        for turn in 0..20 {
            calm(&store).await;
            let key = heavy.clone();
            let write = store.write_brief(move |tx| {
                let tags = tx.catalog().named("tag").unwrap().clone();
                let done = match turn % 2 {
                    0 => tx.get(&tags, &key).map(drop),
                    _ => tx.put("tag", &[("name", text(&"y".repeat(BYTES)))]).map(drop),
                };
                assert_eq!((done.is_err(), tx.is_over()), (tx.is_brief(), tx.is_brief()));
                tx.give_back();
                Ok(tx.is_brief())
            });
            brief |= write.await.unwrap().value;
        }
        assert!(brief);
    });
}

/// Here it is the loop itself that ends what it would wait for.
#[test]
fn an_event_loop_does_not_wait_for_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(patient(dir.path()));
    let other = rusqlite::Connection::open(dir.path().join("rowcast.db")).unwrap();
    let store = &store;
    on_a_loop(async move || {
        for n in 0..5 {
            calm(store).await;
            other.execute_batch("BEGIN IMMEDIATE").unwrap();
            let written = store.write_brief(tag(format!("late {n}")));
            let over = async {
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
                other.execute_batch("ROLLBACK").unwrap();
            };
            let (written, ()) = tokio::join!(written, over);
            let written = written.expect("another waits");
            assert!(!written.value.1 && written.commit.is_some());
        }
        assert!(is_done_here(store).await);
    });
}

#[test]
fn who_leaves_wakes_the_writer_for_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(patient(dir.path()));
    on_a_loop(async || {
        for n in 0..50 {
            calm(&store).await;
            let mut left = Box::pin(store.write_brief(tag(format!("left {n}"))));
            assert!((&mut left).now_or_never().is_none());
            let (stays, name) = (store.clone(), tag(format!("stays {n}")));
            let stays = tokio::spawn(async move { stays.write_brief(name).await.map(drop) });
            if n % 2 == 0 {
                tokio::task::yield_now().await;
            }
            drop(left);
            timeout(PATIENCE, stays).await.expect("woken").unwrap().unwrap();
        }
    });
}

/// Everybody at once, in all ways, some leaving before their turn.
#[test]
fn nobody_waits_for_ever_and_the_log_is_what_was_told() {
    for seed in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let (store, told) = open(patient(dir.path()));
        let (answered, tasks) = (Arc::new(AtomicUsize::new(0)), [1, 2, 8][seed % 3]);
        std::thread::scope(|scope| {
            for turn in 0..3 {
                let (store, answered) = (&store, &answered);
                scope.spawn(move || {
                    here::settle();
                    event_loop().block_on(async {
                        let clients: Vec<_> = (0..tasks)
                            .map(|n| {
                                let rng = Rng(seed as u64 * 1_000 + turn * 100 + n);
                                let client = client(store.clone(), rng, answered.clone());
                                tokio::spawn(timeout(PATIENCE, client))
                            })
                            .collect();
                        for client in clients {
                            client.await.unwrap().expect("every answer comes");
                        }
                    });
                });
            }
            for n in 0..40 {
                let name = format!("blocking {n}");
                store.write_blocking(tag(name)).unwrap();
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
        // What was left may still be at work.
        let newest = runtime().block_on(store.barrier()).unwrap();
        let told: Vec<_> = told.all().iter().map(|commit| commit.position).collect();
        let last = 1 + told.len() as u64;
        assert_eq!(told, (2..=last).collect::<Vec<_>>(), "log order, no holes, each once");
        assert_eq!(newest, last);
        let rows = store.read_blocking(move |reader| {
            Ok((1..last as i64 + 200).filter(|n| reader.find("tag", *n).is_some()).count())
        });
        assert_eq!(rows.unwrap(), told.len());
        assert!(answered.load(Ordering::Relaxed) <= told.len());
    }
}

type Writing<'s> = Pin<Box<dyn Future<Output = Result<Written<(ThreadId, bool)>>> + Send + 's>>;

async fn client(store: Store, mut rng: Rng, answered: Arc<AtomicUsize>) {
    for n in 0..60 {
        let name = format!("{} {n}", Uuid::new_v4());
        let user = Payer::User(Uuid::from_u128(u128::from(rng.next() % 3)));
        let how = rng.below(10);
        let write: Writing<'_> = match how {
            0 => Box::pin(store.write(tag(name))),
            1 => Box::pin(store.write_long(Lane::Of(user), tag(name))),
            _ => Box::pin(store.write_brief(tag(name))),
        };
        match rng.below(12) {
            // Leaves: at once, when others have had their turn, or while it is being written.
            0..3 => {
                let mut write = write;
                for _ in 0..rng.below(3) {
                    if (&mut write).now_or_never().is_some() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
            3 if how != 1 => {
                let (written, position) = tokio::join!(write, store.barrier());
                let written = written.unwrap().commit.unwrap().position;
                assert!(position.unwrap() >= written, "it was handed in before");
                answered.fetch_add(1, Ordering::Relaxed);
            }
            _ => {
                let position = write.await.unwrap().commit.unwrap().position;
                assert!(position > 0);
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }
        // Alone, at times.
        if rng.chance(30) {
            tokio::time::sleep(Duration::from_micros(rng.next() % 800)).await;
        }
    }
}

#[test]
fn the_last_handle_may_go_on_an_event_loop() {
    let dir = tempfile::tempdir().unwrap();
    let (store, told) = open(patient(dir.path()));
    on_a_loop(async move || {
        calm(&store).await;
        let mut left = Box::pin(async move {
            let name = Value::Text("gone".into());
            store.write_brief(move |tx| tx.put("tag", &[("name", name)])).await
        });
        assert!((&mut left).now_or_never().is_none());
    });
    assert!(told.all().is_empty());
    let (store, _) = open(patient(dir.path()));
    assert!(store.read_blocking(|reader| Ok(reader.find("tag", 1))).unwrap().is_none());
}
