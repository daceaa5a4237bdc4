//! Which relations the writer must gather for the stream.
//!
//! A plan that reads through relations is evaluated on rows that the writer gathered with the
//! commit. Before it may become active the writer must know, and everything that the writer
//! began before it knew must have passed: a path is *settled* from then on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::model::related::{Paths, Want};
use crate::model::schema::SchemaId;

use super::source::Source;

/// All paths that some subscription holds.
pub struct Wanted {
    source: Arc<dyn Source>,
    held: Mutex<HashMap<SchemaId, Vec<Held>>>,
}

struct Held {
    need: Need,
    count: usize,
    settled: bool,
}

/// What a plan needs of its schema.
#[derive(Clone, PartialEq, Eq)]
struct Need {
    paths: Paths,
    /// Whether the records that read through the paths are needed too.
    back: bool,
}

/// What several need together.
#[derive(Default)]
struct Union {
    paths: Paths,
    dependants: Paths,
}

impl Union {
    fn add(&mut self, need: &Need) {
        self.paths.merge(&need.paths);
        if need.back {
            self.dependants.merge(&need.paths);
        }
    }

    fn covers(&self, need: &Need) -> bool {
        self.paths.covers(&need.paths) && (!need.back || self.dependants.covers(&need.paths))
    }
}

/// Keeps paths wanted while it lives.
pub struct Hold {
    wanted: Arc<Wanted>,
    schema: SchemaId,
    need: Need,
}

impl Wanted {
    pub fn new(source: Arc<dyn Source>) -> Arc<Self> {
        Arc::new(Wanted { source, held: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SchemaId, Vec<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds `paths` of `schema`, and with `back` the records that read through them; whether
    /// they are settled. `None` where there is nothing to hold.
    pub fn hold(
        self: &Arc<Self>,
        schema: SchemaId,
        paths: &Paths,
        back: bool,
    ) -> Option<(Arc<Hold>, bool)> {
        if paths.is_empty() {
            return None;
        }
        let need = Need { paths: paths.clone(), back };
        let hold = Arc::new(Hold { wanted: self.clone(), schema, need: need.clone() });
        let mut held = self.lock();
        let known = held.entry(schema).or_default();
        let mut settled = Union::default();
        let mut all = Union::default();
        for entry in known.iter() {
            all.add(&entry.need);
            if entry.settled {
                settled.add(&entry.need);
            }
        }
        let ready = settled.covers(&need);
        let told = all.covers(&need);
        match known.iter_mut().find(|entry| entry.need == need) {
            Some(entry) => {
                entry.count += 1;
                entry.settled |= ready;
            }
            None => known.push(Held { need, count: 1, settled: ready }),
        }
        if !told {
            self.tell(&held);
        }
        Some((hold, ready))
    }

    /// As [`Wanted::hold`], and waits until the paths are settled.
    pub async fn settle(
        self: &Arc<Self>,
        schema: SchemaId,
        paths: &Paths,
        back: bool,
    ) -> Result<Option<Arc<Hold>>> {
        let Some((hold, settled)) = self.hold(schema, paths, back) else { return Ok(None) };
        if !settled {
            self.source.barrier().await?;
            let mut held = self.lock();
            let known = held.entry(schema).or_default();
            // Ours is among them: the hold keeps it there.
            if let Some(entry) = known.iter_mut().find(|entry| entry.need == hold.need) {
                entry.settled = true;
            }
        }
        Ok(Some(hold))
    }

    /// What is wanted now.
    pub fn want(&self) -> Want {
        union(&self.lock())
    }

    fn tell(&self, held: &HashMap<SchemaId, Vec<Held>>) {
        // Called under the lock, so that the store hears of the sets in the order they were made.
        self.source.want(union(held));
    }
}

fn union(held: &HashMap<SchemaId, Vec<Held>>) -> Want {
    let mut want = Want::default();
    for (schema, entries) in held {
        let mut union = Union::default();
        entries.iter().for_each(|entry| union.add(&entry.need));
        want.paths.insert(*schema, union.paths);
        if !union.dependants.is_empty() {
            want.dependants.insert(*schema, union.dependants);
        }
    }
    want
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.wanted.lock();
        let Some(known) = held.get_mut(&self.schema) else { return };
        let Some(at) = known.iter().position(|entry| entry.need == self.need) else { return };
        known[at].count -= 1;
        if known[at].count == 0 {
            known.swap_remove(at);
            if known.is_empty() {
                held.remove(&self.schema);
            }
            self.wanted.tell(&held);
        }
    }
}
