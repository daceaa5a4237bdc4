//! A long replay while others write. `ROWCAST_REPLAY_ENTRIES` makes it as long as one likes and
//! says what it took.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rowcast::model::change::Commit;
use rowcast::model::related::Want;
use rowcast::model::value::Value;
use rowcast::store::{CommitSink, Options, Store};

use crate::naive::paths;
use crate::support::*;

const CATEGORIES: u64 = 100;
const BLOGS: u64 = 2_000;

/// Memory is measured: no commit may be kept.
struct Nobody;

impl CommitSink for Nobody {
    fn committed(&mut self, _: &[Arc<Commit>]) {}
}

/// One write: mostly a blog gets another title or category; now and then a category is renamed.
async fn one(store: &Store, n: u64) {
    let written = store.write(move |tx| {
        let lot = n.wrapping_mul(6_364_136_223_846_793_005) >> 20;
        let category = (lot % CATEGORIES + 1) as i64;
        let name = text(&format!("number {n}"));
        if n.is_multiple_of(500) {
            return tx.set("category", category, &[("name", name)]);
        }
        let blog = (lot / CATEGORIES % BLOGS + 1) as i64;
        let category = ("category_id", Value::Int(category));
        tx.set("blog", blog, &[("title", name), category])
    });
    written.await.unwrap();
}

/// Writes `number` entries, many at a time; gives the longest any of them waited.
fn write(store: &Store, number: u64, clients: u64, next: &AtomicU64) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let until = next.load(Ordering::Relaxed) + number;
    runtime.block_on(async {
        let mut longest = Duration::ZERO;
        let mut at = next.load(Ordering::Relaxed);
        while at < until {
            let some = clients.min(until - at);
            let began = Instant::now();
            let writes: Vec<_> = (at..at + some).map(|n| one(store, n)).collect();
            futures_util::future::join_all(writes).await;
            longest = longest.max(began.elapsed());
            at += some;
        }
        next.store(at, Ordering::Relaxed);
        longest
    })
}

/// Resident memory in MiB; 0 where it is not told.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// Processor time that the store's readers have taken, where it is told.
fn readers_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let time = tasks.filter_map(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let times = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        name.starts_with("reader").then(|| times.split(' ').next()?.parse::<u64>().ok())?
    });
    Duration::from_nanos(time.sum())
}

#[test]
fn a_long_replay_goes_beside_the_writer() {
    let asked = std::env::var("ROWCAST_REPLAY_ENTRIES").ok();
    let entries: u64 = asked.as_ref().map_or(3_000, |number| number.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let options = Options { log_bytes: 1 << 40, ..Options::new(dir.path()) };
    let store = Store::open(options, Box::new(Nobody)).unwrap();
    store
        .write_blocking(|tx| {
            migrate(tx, &[TAG, CATEGORY, BLOG])?;
            tx.user(1)?;
            for n in 1..=CATEGORIES {
                tx.put("category", &[("name", text(&n.to_string()))])?;
            }
            for n in 1..=BLOGS {
                let category = ("category_id", Value::Int((n % CATEGORIES + 1) as i64));
                tx.put("blog", &[("title", text("x")), ("author_id", id(1)), category])?;
            }
            Ok(())
        })
        .unwrap();
    let next = AtomicU64::new(1);
    write(&store, entries, 256, &next);
    let alone = write(&store, 1_000, 16, &next);

    let blog = store.catalog().named("blog").unwrap().id;
    let plain = Want { paths: [(blog, paths(&["category"]))].into(), ..Want::default() };
    let back = Want { dependants: plain.paths.clone(), ..plain.clone() };
    for (what, want) in [("nothing", Want::default()), ("a to-one", plain), ("dependants", back)] {
        let want = Arc::new(want);
        let (ended, before) = (AtomicBool::new(false), memory());
        let worked = readers_time();
        std::thread::scope(|scope| {
            // Writers go on all the while, and are told of.
            let writer = scope.spawn(|| {
                let (mut longest, mut number) = (Duration::ZERO, 0);
                while !ended.load(Ordering::Relaxed) {
                    longest = longest.max(write(&store, 64, 16, &next));
                    number += 64;
                }
                (longest, number)
            });
            let (mut after, mut pages, mut slowest, mut most) = (0, 0, Duration::ZERO, 0);
            let (began, end) = (Instant::now(), 1 + entries);
            while after < end {
                let (want, began) = (want.clone(), Instant::now());
                let page = store.read_blocking(move |reader| reader.replay(after, 256, &want));
                let page = page.unwrap();
                slowest = slowest.max(began.elapsed());
                assert!(page.len() <= 256 && page.first().unwrap().position == after + 1);
                after = page.last().unwrap().position;
                pages += 1;
                most = most.max(memory());
            }
            let took = began.elapsed();
            ended.store(true, Ordering::Relaxed);
            let (longest, written) = writer.join().unwrap();
            assert!(written > 0);
            assert!(most < before + 256, "{most} MiB after {before}");
            if asked.is_some() {
                println!(
                    "{what}: {after} entries in {took:.1?} ({:.1?} of a processor), {pages} pages, the \
                     slowest {slowest:.1?}; memory {before} to {most} MiB; {written} writes meanwhile, 16 together in \
                     {longest:.1?} at most ({alone:.1?} before)",
                    readers_time() - worked
                );
            }
        });
    }
}

#[test]
fn many_that_point_at_one_are_read_once_a_page() {
    let asked = std::env::var("ROWCAST_REPLAY_POINTING").ok();
    let blogs: i64 = asked.as_ref().map_or(1_000, |number| number.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Options::new(dir.path()), Box::new(Nobody)).unwrap();
    store
        .write_blocking(move |tx| {
            migrate(tx, &[TAG, CATEGORY, BLOG])?;
            tx.user(1)?;
            tx.put("category", &[("name", text("one"))]).map(drop)
        })
        .unwrap();
    for first in (0..blogs).step_by(1_000) {
        let some = (blogs - first).min(1_000);
        let written = store.write_blocking(move |tx| {
            let author = ("author_id", id(1));
            let given = [("title", text("x")), author, ("category_id", Value::Int(1))];
            (0..some).try_for_each(|_| tx.put("blog", &given).map(drop))
        });
        written.unwrap();
    }
    let blog = store.catalog().named("blog").unwrap().id;
    let mut want = Want { paths: [(blog, paths(&["category"]))].into(), ..Want::default() };
    want.dependants = want.paths.clone();
    let began = store.read_blocking(|reader| reader.newest()).unwrap().unwrap().position;
    // Half of them are touched in between, and again after all pages.
    let touch = |wanted: &Want, step: i64| {
        store.want(wanted.clone());
        let began = Instant::now();
        for n in 0..40 {
            let name = text(&format!("{step} {n}"));
            let written = store.write_blocking(move |tx| {
                tx.set("category", 1, &[("name", name.clone())])?;
                (1..=blogs / 80).try_for_each(|blog| {
                    tx.set("blog", n * (blogs / 80) + blog, &[("title", name.clone())])
                })
            });
            written.unwrap();
        }
        began.elapsed()
    };
    let (unwatched, live) = (touch(&Want::default(), 1), touch(&want, 2));
    touch(&Want::default(), 3);
    let (want, worked) = (Arc::new(want), readers_time());
    let (mut after, mut pages, end) = (began, 0, began + 80);
    let time = Instant::now();
    while after < end {
        let want = want.clone();
        let page = store.read_blocking(move |reader| reader.replay(after, 256, &want)).unwrap();
        for commit in page.iter().filter(|commit| commit.position <= end) {
            let by = &commit.related.dependants.by[&(blog, "category".into())];
            let number = by.as_ref().map_or(0, Vec::len) as i64;
            assert_eq!(number, blogs - blogs / 80, "{}", commit.position);
        }
        after = page.last().unwrap().position;
        pages += 1;
    }
    if asked.is_some() {
        println!(
            "{blogs} pointing at one: 40 commits live in {live:.1?} ({unwatched:.1?} where nothing \
             is wanted); {} replayed in {:.1?}, {pages} pages, {:.1?} of a processor",
            after - began,
            time.elapsed(),
            readers_time() - worked
        );
    }
}
