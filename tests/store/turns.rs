//! Whose turn it is at the writer: what takes long, and everybody else.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use rowcast::error::Result;
use rowcast::model::value::Value;
use rowcast::store::{Options, Store, Written};
use uuid::Uuid;

use crate::support::*;
use crate::writes::{Hold, runtime};

type Answer = Pin<Box<dyn Future<Output = Result<Written<()>>> + Send>>;

/// What ran, and the answers still to come.
#[derive(Clone, Default)]
struct Notes {
    ran: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<Vec<Answer>>>,
}

impl Notes {
    fn ran(&self, name: &str) {
        self.ran.lock().unwrap().push(name.to_owned());
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
                tx.put("tag", &[("name", Value::Text(name.into()))]).map(drop)
            };
            store.write_long(Some(Uuid::from_u128(whose)), job).await
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
    let order = "x y z a1 a1+ b1 b1+ c1 c1+ a2 a2+ a3 a3+";
    assert_eq!(ran.join(" "), order);
    assert_eq!(sink.all().len() - before, ran.len(), "each is a commit of its own");
}
