//! What takes little to tell, so that whoever has other things to do may tell it.

use std::sync::Arc;

use crate::live::outbox::{Frame, Offer, Outbox};
use crate::live::registry::{Group, Registry};
use crate::model::change::{Change, Commit};

use super::failure::Failure;
use super::{ALL, Fanout, find};

/// Changes of the commit. Those of most writes: the record, and what points at it.
const CHANGES: usize = 4;
/// Memory of the commit: each plan may read all of it, and each body show it.
const BYTES: usize = 16 << 10;
/// Plans that the index cannot file, of a changed schema.
const SCANNED: usize = 64;
/// Comparisons, all plans together and for each kilobyte of the commit: some 10 us.
const COST: u32 = 1_024;
/// Candidates of a change that are too many to be looked at one by one, or to be gathered.
const MANY: usize = 4_096;
/// Commits of a schema that are not tried after such a one: the next is likely to be the same.
const SPARED: u32 = 256;
/// Who hears of it. Each is a system call: some 40 us together.
const SEATS: usize = 8;

/// Frames of a commit for an outbox that somebody was at, or whose reader is too slow.
pub struct Late {
    outbox: Arc<Outbox>,
    position: u64,
    frames: Vec<Frame>,
}

impl Late {
    pub(super) fn new(outbox: &Arc<Outbox>, position: u64, frames: &[Frame]) -> Late {
        Late { outbox: outbox.clone(), position, frames: frames.to_vec() }
    }
}

/// A commit that was not told so.
pub(super) struct Tried {
    /// Held, so that no other can be at its address.
    commit: Arc<Commit>,
    /// See [`Registry::version`].
    as_of: u64,
    /// Whether all that it concerns was found, and that is just too many.
    found: bool,
}

/// Whether so little was written that it may take little to tell.
pub fn is_little(commit: &Commit) -> bool {
    commit.changes.len() <= CHANGES && commit.bytes() <= BYTES
}

impl Tried {
    fn is_of(&self, registry: &Registry, commit: &Commit) -> bool {
        std::ptr::eq(&*self.commit, commit) && self.as_of == registry.version()
    }
}

impl Fanout {
    /// Whether `found` is what this commit concerns already.
    pub(super) fn has_found(&mut self, registry: &Registry, commit: &Commit) -> bool {
        let Some(tried) = self.tried.take() else { return false };
        let has = tried.found && tried.is_of(registry, commit);
        if !has {
            self.found.clear();
        }
        has
    }

    /// Offers and writes what was late.
    pub fn catch_up(&mut self, late: Vec<Late>) {
        for Late { outbox, position, frames } in late {
            match outbox.offer(position, &frames) {
                Offer::Due => self.due.push(outbox),
                Offer::Overflowed => tracing::info!("a reader is too slow: closed"),
                Offer::Taken | Offer::Ended => {}
            }
        }
        self.flush();
    }

    /// As [`Fanout::tell`], and writes, where that takes some microseconds and waits for nobody;
    /// also gives what is to be offered before anything else is told. `None`: nobody was told
    /// anything.
    pub fn tell_light(
        &mut self,
        registry: &Registry,
        commit: &Arc<Commit>,
    ) -> Option<(Vec<Failure>, Vec<Late>)> {
        if let Some(tried) = self.tried.take() {
            if tried.is_of(registry, commit) {
                self.tried = Some(tried);
                return None;
            }
            self.found.clear();
        }
        let (soon, mut found) = (self.is_found_soon(registry, commit), false);
        if soon {
            self.turn = ALL;
            self.find(registry, commit);
            found = self.turn.end == ALL.end && self.failed.is_empty();
        }
        if !found || self.hear_of_it(registry, commit) > SEATS {
            if !found {
                self.found.clear();
                self.failed.clear();
            }
            self.tried = Some(Tried { commit: commit.clone(), as_of: registry.version(), found });
            return None;
        }
        self.light = true;
        self.tell_found(registry, commit);
        // All of it is written, or late.
        (self.light, self.spoke) = (false, false);
        Some((self.told(), std::mem::take(&mut self.late)))
    }

    /// Whether it takes little to find out whom it concerns. What takes most is a look-up that gives
    /// many plans: it ends when there are too many, and is not tried again soon.
    fn is_found_soon(&mut self, registry: &Registry, commit: &Commit) -> bool {
        let changes = &commit.changes[..];
        if !is_little(commit) {
            return false;
        }
        for change in changes {
            if let Some(left) = self.spared.get_mut(&change.schema) {
                *left -= 1;
                if *left == 0 {
                    self.spared.remove(&change.schema);
                }
                return false;
            }
        }
        let read = |change: &Change| registry.readings().is_reached(&[change.schema]);
        if changes.iter().any(read) {
            return false;
        }
        let mut candidates = std::mem::take(&mut self.candidates);
        let kilobytes = u32::try_from(commit.bytes() >> 10).unwrap_or(u32::MAX).max(1);
        let mut cost = 0_u32;
        let soon = changes.iter().all(|change| {
            if registry.scanned(change.schema) > SCANNED || registry.has_others(change) {
                return false;
            }
            if !registry.candidates_within(MANY, change, &mut candidates) {
                self.spared.insert(change.schema, SPARED);
                return false;
            }
            candidates.iter().filter_map(|id| registry.plan(*id)).all(|entry| {
                // A text is searched whole, whatever it is said to cost.
                let whole = entry.plan.cost.saturating_mul(kilobytes);
                cost = cost.saturating_add(1).saturating_add(whole);
                cost <= COST
            })
        });
        self.candidates = candidates;
        soon
    }

    /// How many listen to what was found, or a few more.
    fn hear_of_it(&self, registry: &Registry, commit: &Commit) -> usize {
        let count = |group: &Group| group.seats.len();
        let mut seats = 0;
        for hits in self.found.chunk_by(|a, b| a.plan == b.plan) {
            let Some(entry) = registry.plan(hits[0].plan) else { continue };
            seats += entry.open().map(count).sum::<usize>();
            if entry.has_keyed() {
                for key in hits.iter().filter_map(|hit| find::key(commit, hit)) {
                    seats += entry.keyed(&key).map(count).sum::<usize>();
                }
            }
        }
        seats
    }
}
