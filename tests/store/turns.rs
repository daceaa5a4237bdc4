//! Whose turn it is at the writer: what takes long, and everybody else.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rowcast::error::Result;
use rowcast::model::value::Value;
use rowcast::store::fair::Payer;
use rowcast::store::{Lane, Options, Store, Written};
use uuid::Uuid;

use crate::support::*;
use crate::writes::{Hold, runtime};

type Answer = Pin<Box<dyn Future<Output = Result<Written<()>>> + Send>>;

/// A write that ran: when it began, and for one that takes long, when it had done its part.
#[derive(Clone)]
struct Ran {
    name: String,
    began: Instant,
    ended: Option<Instant>,
}

/// What ran, and the answers still to come.
#[derive(Clone, Default)]
struct Notes {
    ran: Arc<Mutex<Vec<Ran>>>,
    answers: Arc<Mutex<Vec<Answer>>>,
}

impl Notes {
    fn ran(&self, name: &str) {
        let (began, ended) = (Instant::now(), None);
        self.ran.lock().unwrap().push(Ran { name: name.to_owned(), began, ended });
    }

    /// Hands a write in and goes on.
    fn hand_in(&self, write: impl Future<Output = Result<Written<()>>> + Send + 'static) {
        let mut answer: Answer = Box::pin(write);
        assert!((&mut answer).now_or_never().is_none());
        self.answers.lock().unwrap().push(answer);
    }

    fn short(&self, store: &Store, name: String) {
        let (store, notes) = (store.clone(), self.clone());
        self.hand_in(async move {
            store
                .write(move |tx| {
                    notes.ran(&name);
                    tx.put("tag", &[("name", Value::Text(name.into()))]).map(drop)
                })
                .await
        });
    }

    /// One that outlasts a group, and during which somebody else comes.
    fn long(&self, store: &Store, whose: u128, name: &'static str) {
        let (store, notes) = (store.clone(), self.clone());
        self.hand_in(async move {
            let (during, after) = (store.clone(), notes.clone());
            let job = move |tx: &mut rowcast::store::Tx<'_>| {
                notes.ran(name);
                after.short(&during, format!("{name}+"));
                std::thread::sleep(Duration::from_millis(15));
                notes.ran.lock().unwrap().last_mut().unwrap().ended = Some(Instant::now());
                tx.put("tag", &[("name", Value::Text(name.into()))]).map(drop)
            };
            let whose = Payer::User(Uuid::from_u128(whose));
            store.write_long(Lane::Of(whose), job).await
        });
    }
}

#[test]
fn nobody_waits_for_more_than_one_long_write() {
    let dir = tempfile::tempdir().unwrap();
    let (store, sink) = open(Options::new(dir.path()));
    let hold = Hold::new(&store);
    let notes = Notes::default();
    for name in ["a1", "a2", "a3"] {
        notes.long(&store, 1, name);
    }
    notes.long(&store, 2, "b1");
    notes.long(&store, 3, "c1");
    for name in ["x", "y", "z"] {
        notes.short(&store, name.to_owned());
    }
    let before = sink.all().len();
    hold.release();
    runtime().block_on(async {
        // Those that come meanwhile are among them.
        while let Some(answer) = { notes.answers.lock().unwrap().pop() } {
            answer.await.unwrap();
        }
    });
    let ran = notes.ran.lock().unwrap().clone();
    let names = |of: &[Ran]| of.iter().map(|ran| ran.name.clone()).collect::<Vec<_>>();
    let long: Vec<usize> = (0..ran.len()).filter(|at| ran[*at].ended.is_some()).collect();
    let each = long.iter().map(|at| ran[*at].name.as_str()).collect::<Vec<_>>();
    assert_eq!(each, ["a1", "b1", "c1", "a2", "a3"], "each user in turn");
    // Who was there before the first one ended comes before the second, and so on: unless the
    // short ones between them took as long as the one before (on a machine that has other work).
    let mut there = vec!["x".to_owned(), "y".to_owned(), "z".to_owned()];
    for pair in long.windows(2) {
        let (one, next) = (&ran[pair[0]], &ran[pair[1]]);
        there.push(format!("{}+", one.name));
        let ended = one.ended.unwrap();
        let before = names(&ran[..pair[1]]);
        if next.began - ended < ended - one.began {
            assert!(there.iter().all(|name| before.contains(name)), "{:?}", names(&ran));
        }
    }
    let mut short = names(&ran);
    short.retain(|name| !each.contains(&name.as_str()));
    let order = ["x", "y", "z", "a1+", "b1+", "c1+", "a2+", "a3+"];
    assert_eq!(short, order, "first come, first served");
    assert_eq!(sink.all().len() - before, ran.len(), "each is a commit of its own");
}
