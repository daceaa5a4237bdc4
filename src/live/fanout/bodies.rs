//! The records of a commit as one body shows them, each encoded once.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::live::message::Event;
use crate::model::change::{Change, Commit, Op};
use crate::nice;
use crate::query::Body;

use super::Fanout;
use super::failure::Fault;
use super::find::{self, Found};

/// Records of a commit that are many for a plan where they are too much for all: then for those
/// with fewer it is tried again, once for each of these.
const MANY: [usize; 2] = [1_000, 10];

#[derive(Default)]
pub(super) struct Bodies {
    pub(super) bytes: Vec<u8>,
    /// Where each stands in `bytes`, by index of the change; empty where not encoded (a record
    /// never is).
    whole: Vec<Range<usize>>,
    /// The same for records of which the key alone is told. Mostly there are none.
    keys: Vec<Range<usize>>,
    /// What an update changed, as an index into `sets`. Filled only where somebody asked.
    changed: Vec<Option<usize>>,
    /// The same for whom there was no such record before: all that is shown is new.
    appeared: Vec<Option<usize>>,
    /// Indexes of the body's fields; each set once.
    sets: Vec<Vec<usize>>,
}

impl Bodies {
    /// Begins with another body of a commit with so many changes.
    pub(super) fn start(&mut self, changes: usize) {
        self.bytes.clear();
        self.whole.clear();
        self.whole.resize(changes, 0..0);
        self.keys.clear();
        self.changed.clear();
        self.appeared.clear();
        self.sets.clear();
    }

    /// A large commit must not hold its memory until the next one.
    pub(super) fn end(&mut self, keep: usize) {
        self.start(0);
        self.bytes.shrink_to(keep);
    }

    /// Keeps room for so many records of some kilobytes together.
    pub(super) fn rest(&mut self, records: usize) {
        const KEPT: usize = 4 << 10;
        self.end(KEPT);
        self.whole.shrink_to(records);
        self.keys.shrink_to(records);
        self.changed.shrink_to(records);
        self.appeared.shrink_to(records);
    }

    /// Encodes what `event` tells of a change. Too much may become of it even where little was
    /// written: related records stand in it as often as they are related.
    pub(super) fn encode(
        &mut self,
        body: &Body,
        commit: &Commit,
        at: usize,
        event: Event,
        most: usize,
    ) -> Result<(), Fault> {
        let Some(change) = find::change(commit, at) else { return Ok(()) };
        if event == Event::Leave {
            return self.encode_key(body, change, at);
        }
        if !self.whole[at].is_empty() {
            return Ok(());
        }
        let (row, related) = match change.op {
            Op::Create | Op::Update => (&change.after, &commit.related.after),
            Op::Delete => (&change.before, &commit.related.before),
        };
        let Some(row) = row else { return Ok(()) };
        let start = self.bytes.len();
        let encode = || body.encode_within(row, related, &mut self.bytes, most);
        let encoded = catch_unwind(AssertUnwindSafe(encode));
        self.whole[at] = start..self.bytes.len();
        match encoded {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Fault::TooMuch),
            Err(_) => Err(Fault::Failed),
        }
    }

    fn encode_key(&mut self, body: &Body, change: &Change, at: usize) -> Result<(), Fault> {
        self.keys.resize(self.whole.len(), 0..0);
        let Some(row) = change.before.as_ref().filter(|_| self.keys[at].is_empty()) else {
            return Ok(());
        };
        let start = self.bytes.len();
        let encoded = catch_unwind(AssertUnwindSafe(|| body.encode_key(row, &mut self.bytes)));
        self.keys[at] = start..self.bytes.len();
        encoded.map_err(|_| Fault::Failed)
    }

    /// Looks what an update changed of what is shown, but for the column that every update sets.
    /// `hidden`: for whom there was no such record before. `false` if the body panicked.
    pub(super) fn compare(
        &mut self,
        body: &Body,
        commit: &Commit,
        at: usize,
        hidden: bool,
        automatic: Option<&str>,
    ) -> bool {
        let known = if hidden { &mut self.appeared } else { &mut self.changed };
        known.resize(self.whole.len(), None);
        if known[at].is_some() {
            return true;
        }
        let Some(change) = find::change(commit, at) else { return true };
        let look = || match (hidden, &change.after) {
            (true, Some(row)) => body.shown(row, &commit.related.after),
            _ => find::changed(commit, change, body),
        };
        let Ok(mut set) = catch_unwind(AssertUnwindSafe(look)) else { return false };
        set.retain(|field| Some(body.name(*field)) != automatic);
        let sets = &mut self.sets;
        known[at] = Some(sets.iter().position(|known| *known == set).unwrap_or_else(|| {
            sets.push(set);
            sets.len() - 1
        }));
        true
    }

    /// Where the record stands in `bytes` as `event` tells it.
    pub(super) fn range(&self, event: Event, at: usize) -> Range<usize> {
        let ranges = if event == Event::Leave { &self.keys } else { &self.whole };
        ranges.get(at).cloned().unwrap_or_default()
    }

    /// Equal numbers: the same fields changed.
    pub(super) fn set(&self, at: usize, hidden: bool) -> Option<usize> {
        let known = if hidden { &self.appeared } else { &self.changed };
        known.get(at).copied().flatten()
    }

    /// The names of the fields in a set.
    pub(super) fn names<'b>(&self, body: &'b Body, set: Option<usize>) -> Vec<&'b str> {
        let set = set.and_then(|set| self.sets.get(set));
        set.into_iter().flatten().map(|field| body.name(*field)).collect()
    }
}

impl Fanout {
    /// Encodes what the plans of a body are told. Where that is too much, without those that are
    /// concerned by many records: gives how many a plan may be concerned by.
    pub(super) fn encode(
        &mut self,
        body: &Body,
        commit: &Commit,
        run: &[Found],
    ) -> Result<usize, Fault> {
        let plans = || run.chunk_by(|a, b| a.plan == b.plan);
        let mut most = usize::MAX;
        loop {
            let few = plans().filter(|hits| hits.len() <= most).flatten();
            let mut all = few.map(|found| {
                let Found { change, event, .. } = *found;
                nice::pause();
                self.bodies.encode(body, commit, change, event, self.most_bytes)
            });
            match all.find(Result::is_err) {
                Some(Err(Fault::TooMuch)) => {}
                Some(Err(fault)) => return Err(fault),
                _ => return Ok(most),
            }
            let reach = |least: usize| {
                let mut few = plans().map(<[Found]>::len).filter(|hits| *hits <= most);
                few.any(|hits| hits > least) && plans().any(|hits| hits.len() <= least)
            };
            let fewer = MANY.into_iter().find(|least| *least < most && reach(*least));
            most = fewer.ok_or(Fault::TooMuch)?;
            self.bodies.start(find::changes(commit));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_keeps_little() {
        let mut bodies = Bodies::default();
        bodies.start(1_000);
        bodies.bytes.resize(1 << 20, 0);
        bodies.end(1 << 20);
        assert!(bodies.bytes.capacity() >= 1 << 20, "for the next commit");
        bodies.rest(16);
        assert!(bodies.bytes.capacity() <= 8 << 10 && bodies.whole.capacity() <= 32);
    }
}
