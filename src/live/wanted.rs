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

use super::subscription::Source;

/// All paths that some subscription holds.
pub struct Wanted {
    source: Arc<dyn Source>,
    held: Mutex<HashMap<SchemaId, Vec<Held>>>,
}

struct Held {
    paths: Paths,
    count: usize,
    settled: bool,
}

/// Keeps paths wanted while it lives.
pub struct Hold {
    wanted: Arc<Wanted>,
    schema: SchemaId,
    paths: Paths,
}

impl Wanted {
    pub fn new(source: Arc<dyn Source>) -> Arc<Self> {
        Arc::new(Wanted { source, held: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SchemaId, Vec<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds `paths` of `schema`; whether they are settled. `None` where there is nothing to hold.
    pub fn hold(self: &Arc<Self>, schema: SchemaId, paths: &Paths) -> Option<(Hold, bool)> {
        if paths.is_empty() {
            return None;
        }
        let hold = Hold { wanted: self.clone(), schema, paths: paths.clone() };
        let mut held = self.lock();
        let known = held.entry(schema).or_default();
        let mut settled = Paths::default();
        let mut all = Paths::default();
        for entry in known.iter() {
            all.merge(&entry.paths);
            if entry.settled {
                settled.merge(&entry.paths);
            }
        }
        let ready = settled.covers(paths);
        match known.iter_mut().find(|entry| entry.paths == *paths) {
            Some(entry) => {
                entry.count += 1;
                entry.settled |= ready;
            }
            None => known.push(Held { paths: paths.clone(), count: 1, settled: ready }),
        }
        if !all.covers(paths) {
            self.tell(&held);
        }
        Some((hold, ready))
    }

    /// As [`Wanted::hold`], and waits until the paths are settled.
    pub async fn settle(self: &Arc<Self>, schema: SchemaId, paths: &Paths) -> Result<Option<Hold>> {
        let Some((hold, settled)) = self.hold(schema, paths) else { return Ok(None) };
        if !settled {
            self.source.barrier().await?;
            let mut held = self.lock();
            let known = held.entry(schema).or_default();
            // Ours is among them: the hold keeps it there.
            if let Some(entry) = known.iter_mut().find(|entry| entry.paths == *paths) {
                entry.settled = true;
            }
        }
        Ok(Some(hold))
    }

    fn tell(&self, held: &HashMap<SchemaId, Vec<Held>>) {
        let union = held.iter().map(|(schema, entries)| {
            let mut paths = Paths::default();
            entries.iter().for_each(|entry| paths.merge(&entry.paths));
            (*schema, paths)
        });
        // Called under the lock, so that the store hears of the sets in the order they were made.
        self.source.want(Want { paths: union.collect(), dependants: HashMap::new() });
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.wanted.lock();
        let Some(known) = held.get_mut(&self.schema) else { return };
        let Some(at) = known.iter().position(|entry| entry.paths == self.paths) else { return };
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
