//! Which relations the writer must gather for the stream.
//!
//! A plan that reads through relations is evaluated on rows that the writer gathered with the
//! commit. Before it may become active the writer must know, and everything that the writer
//! began before it knew must have passed: a path is *settled* from then on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::model::related::{Paths, Want};
use crate::model::schema::SchemaId;

use super::source::Source;

/// All paths that some subscription holds.
pub struct Wanted {
    source: Arc<dyn Source>,
    held: Mutex<HashMap<SchemaId, Held>>,
}

/// What is held of one schema. Subscriptions come and go by the thousand, each with needs of its
/// own: what they need together is counted, so that one costs no more than its own paths.
#[derive(Default)]
struct Held {
    needs: HashMap<Need, Holds>,
    all: Counts,
    /// Of the needs that are settled.
    settled: Counts,
}

#[derive(Default)]
struct Holds {
    count: usize,
    settled: bool,
}

/// What a plan needs of its schema.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Need {
    paths: Paths,
    /// Whether the records that read through the paths are needed too.
    back: bool,
}

/// What several need together, and how many need each part.
#[derive(Default)]
struct Counts(BTreeMap<Arc<str>, Count>);

#[derive(Default)]
struct Count {
    needs: usize,
    /// Of them, those with `back`.
    back: usize,
    deeper: Counts,
}

impl Counts {
    /// Whether that adds something.
    fn add(&mut self, paths: &Paths, back: bool) -> bool {
        let mut new = false;
        for (name, deeper) in &paths.0 {
            let count = self.0.entry(name.clone()).or_default();
            count.needs += 1;
            count.back += usize::from(back);
            new |= count.needs == 1 || back && count.back == 1;
            new |= count.deeper.add(deeper, back);
        }
        new
    }

    /// Takes away what was added; whether something is gone.
    fn remove(&mut self, paths: &Paths, back: bool) -> bool {
        let mut gone = false;
        for (name, deeper) in &paths.0 {
            let Some(count) = self.0.get_mut(name) else { continue };
            count.needs -= 1;
            count.back -= usize::from(back);
            gone |= count.needs == 0 || back && count.back == 0;
            gone |= count.deeper.remove(deeper, back);
            if count.needs == 0 {
                self.0.remove(name);
            }
        }
        gone
    }

    fn covers(&self, paths: &Paths, back: bool) -> bool {
        paths.0.iter().all(|(name, deeper)| {
            let known = self.0.get(name).filter(|count| !back || count.back > 0);
            known.is_some_and(|count| count.deeper.covers(deeper, back))
        })
    }

    /// What is needed, all of it or with `back` alone.
    fn paths(&self, back: bool) -> Paths {
        let some = self.0.iter().filter(|(_, count)| !back || count.back > 0);
        Paths(some.map(|(name, count)| (name.clone(), count.deeper.paths(back))).collect())
    }
}

impl Held {
    fn settle(&mut self, need: &Need) {
        let Some(holds) = self.needs.get_mut(need) else { return };
        if !std::mem::replace(&mut holds.settled, true) {
            self.settled.add(&need.paths, need.back);
        }
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

    fn lock(&self) -> MutexGuard<'_, HashMap<SchemaId, Held>> {
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
        let settled = known.settled.covers(paths, back);
        let holds = known.needs.entry(need).or_default();
        holds.count += 1;
        let new = holds.count == 1 && known.all.add(paths, back);
        if settled {
            known.settle(&hold.need);
        }
        if new {
            self.tell(&held);
        }
        Some((hold, settled))
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
            // Ours is among them: the hold keeps it there.
            if let Some(known) = self.lock().get_mut(&schema) {
                known.settle(&hold.need);
            }
        }
        Ok(Some(hold))
    }

    /// What is wanted now.
    pub fn want(&self) -> Want {
        union(&self.lock())
    }

    fn tell(&self, held: &HashMap<SchemaId, Held>) {
        // Called under the lock, so that the store hears of the sets in the order they were made.
        self.source.want(union(held));
    }
}

fn union(held: &HashMap<SchemaId, Held>) -> Want {
    let mut want = Want::default();
    for (schema, known) in held {
        want.paths.insert(*schema, known.all.paths(false));
        let dependants = known.all.paths(true);
        if !dependants.is_empty() {
            want.dependants.insert(*schema, dependants);
        }
    }
    want
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Need { paths, back } = &self.need;
        let mut held = self.wanted.lock();
        let Some(known) = held.get_mut(&self.schema) else { return };
        let Some(holds) = known.needs.get_mut(&self.need) else { return };
        holds.count -= 1;
        if holds.count > 0 {
            return;
        }
        if holds.settled {
            known.settled.remove(paths, *back);
        }
        known.needs.remove(&self.need);
        let gone = known.all.remove(paths, *back);
        if known.needs.is_empty() {
            held.remove(&self.schema);
        }
        if gone {
            self.wanted.tell(&held);
        }
    }
}
