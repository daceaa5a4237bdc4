//! The write-ahead log under a load that never pauses.

use std::io::Read;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use rowcast::error::Result;
use rowcast::store::{Options, Store, Written};

use crate::support::*;

/// More than two groups of the writer's: whatever it takes, some are left.
const WAITING: usize = 600;

/// Bytes in a record; it stands in the row and in the log.
const RECORD: usize = 32 * 1024;

/// Writes after which it must have started over: sixteen times the log at which it is moved.
const MOST: usize = 8_000;

type Answer = Pin<Box<dyn Future<Output = Result<Written<()>>> + Send>>;

/// Writes of which each hands in another at its turn, so that the line never runs dry.
#[derive(Clone)]
struct Load {
    store: Store,
    wal: PathBuf,
    /// How often the log had started over at the beginning.
    began: u32,
    state: Arc<Mutex<State>>,
    tell: Sender<bool>,
}

#[derive(Default)]
struct State {
    answers: Vec<Answer>,
    written: usize,
    ended: bool,
}

impl Load {
    fn hand_in(&self) {
        let (load, name) = (self.clone(), "x".repeat(RECORD));
        let store = self.store.clone();
        let mut answer: Answer = Box::pin(async move {
            let job = move |tx: &mut rowcast::store::Tx<'_>| {
                load.turn();
                tx.put("category", &[("name", text(&name))]).map(drop)
            };
            store.write(job).await
        });
        assert!((&mut answer).now_or_never().is_none());
        self.state.lock().unwrap().answers.push(answer);
    }

    fn turn(&self) {
        let over = started_over(&self.wal) != self.began;
        let mut state = self.state.lock().unwrap();
        state.written += 1;
        if state.ended {
            return;
        }
        if over || state.written >= MOST {
            state.ended = true;
            self.tell.send(over).unwrap();
            return;
        }
        drop(state);
        self.hand_in();
    }
}

/// How often a write-ahead log has started over, as its head tells.
fn started_over(wal: &PathBuf) -> u32 {
    let mut head = [0; 16];
    std::fs::File::open(wal).unwrap().read_exact(&mut head).unwrap();
    u32::from_be_bytes(head[12..].try_into().unwrap())
}

#[test]
fn it_starts_over_though_writes_never_run_dry() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _sink) = open(Options::new(dir.path()));
    store.write_blocking(|tx| migrate(tx, &[TAG, CATEGORY, BLOG])).unwrap();
    let wal = dir.path().join("rowcast.db-wal");
    let (tell, told) = channel();
    let began = started_over(&wal);
    let load = Load { store: store.clone(), wal, began, state: Arc::default(), tell };
    (0..WAITING).for_each(|_| load.hand_in());
    let over = told.recv_timeout(Duration::from_secs(120)).expect("writes go on");
    let written = load.state.lock().unwrap().written;
    let answers = std::mem::take(&mut load.state.lock().unwrap().answers);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(futures_util::future::join_all(answers));
    assert!(over, "{written} writes, and none is out of the write-ahead log");
}
