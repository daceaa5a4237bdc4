//! Which plans a commit concerns, and how.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::filter::cost::TEXT;
use crate::live::message::{Event, Events};
use crate::live::registry::{BodyId, Entry, PlanId, ReadingId, Registry, What};
use crate::model::change::{Change, Commit, Op, Row};
use crate::model::related::Key;
use crate::model::schema::SchemaId;
use crate::nice;
use crate::query::{Body, Plan};

use super::Fanout;
use super::failure::Fault;

/// From this cost on the time of a plan is taken exactly: it is many times that of two looks at
/// the clock.
const DEAR: u32 = 256;

/// Cheap plans whose time is taken together. Plans that came together are held against a change
/// together, so that most of what is misjudged stays with whoever asked for them.
const RUN: usize = 32;

/// What one that is found takes at most, here and as part of a message.
const FOUND_BYTES: usize = 128;

/// What dependants are told as.
const UPDATES: Events = Events::only(Event::Update);

/// A plan is concerned by a change.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) body: BodyId,
    pub(super) plan: PlanId,
    /// See [`change`].
    pub(super) change: usize,
    /// With transitions, where the plan has listeners that are told so.
    pub(super) event: Event,
    /// Whether it is told without transitions too, where `Enter` is an update.
    pub(super) plain: bool,
    /// An update of a record that was not there before for the plan's principals. Looked at only
    /// where some listener is told which fields changed.
    pub(super) hidden: bool,
}

/// What is told of a commit by index: its changes, behind them its dependants.
pub(super) fn change(commit: &Commit, at: usize) -> Option<&Change> {
    match at.checked_sub(commit.changes.len()) {
        None => commit.changes.get(at),
        Some(at) => commit.related.dependants.changes.get(at),
    }
}

/// The record that it is about.
pub(super) fn key(commit: &Commit, found: &Found) -> Option<Key> {
    Key::of(&change(commit, found.change)?.key)
}

/// How many indexes there are.
pub(super) fn changes(commit: &Commit) -> usize {
    commit.changes.len() + commit.related.dependants.changes.len()
}

impl Fanout {
    /// Fills `found`, ordered so that plans of one body, and changes of one plan, follow each
    /// other.
    pub(super) fn find(&mut self, registry: &Registry, commit: &Commit) {
        #[cfg(test)]
        {
            self.finds += 1;
        }
        self.most_found = self.most_bytes / FOUND_BYTES;
        let mut candidates = std::mem::take(&mut self.candidates);
        for (at, change) in commit.changes.iter().enumerate() {
            nice::pause();
            self.candidates(registry, change, &mut candidates);
            if candidates.is_empty() || self.is_beyond(change) {
                continue;
            }
            let weigh = |fanout: &mut Fanout, id, entry: &Entry| {
                fanout.weigh(commit, change, at, id, entry);
            };
            self.each(registry, &candidates, &Reach::of(commit, change), weigh);
        }
        self.candidates = candidates;
        self.find_dependants(registry, commit);
        self.found.sort_unstable_by_key(|found| (found.body, found.plan, found.change));
    }

    /// See [`Registry::candidates`]: of those whose turn it is.
    fn candidates(&self, registry: &Registry, change: &Change, out: &mut Vec<PlanId>) {
        registry.candidates(change, out);
        if self.turn != super::ALL {
            out.retain(|plan| self.turn.contains(plan));
        }
    }

    fn push(&mut self, found: Found) {
        if found.plan >= self.turn.end {
            return;
        }
        if self.found.len() >= self.most_found {
            self.shorten_turn();
            if found.plan >= self.turn.end {
                return;
            }
        }
        self.found.push(found);
    }

    /// Leaves about half of what was found to the next turn, but what concerns the first plan.
    fn shorten_turn(&mut self) {
        let half = self.found.len() / 2;
        let Some(first) = self.found.iter().map(|found| found.plan).min() else { return };
        let (_, middle, _) = self.found.select_nth_unstable_by_key(half, |found| found.plan);
        let end = middle.plan.max(first + 1);
        self.turn.end = end;
        self.found.retain(|found| found.plan < end);
        self.most_found = self.most_found.max(2 * self.found.len());
    }

    /// Does `weigh` for each of `plans`, and counts the time for whom it is done: exactly where it
    /// is dear, by their shares in what the others of a run take together. So a cheap plan costs no
    /// look at the clock of its own (some 25 ns, as much as a few comparisons). What it takes to
    /// find the plans is nobody's: it goes with the row and with what all ask for.
    fn each(
        &mut self,
        registry: &Registry,
        plans: &[PlanId],
        reach: &Reach,
        mut weigh: impl FnMut(&mut Fanout, PlanId, &Entry),
    ) {
        if !self.metered || plans.is_empty() {
            for &id in plans {
                if let Some(entry) = registry.plan(id) {
                    weigh(self, id, entry);
                }
            }
            return;
        }
        let payers = registry.payers();
        for run in plans.chunks(RUN) {
            let (mut exact, mut shares) = (Duration::ZERO, 0_u32);
            let began = Instant::now();
            for &id in run {
                let Some(entry) = registry.plan(id) else { continue };
                match reach.share(&entry.plan) {
                    None => {
                        // What others do meanwhile is nobody's.
                        exact += nice::pause();
                        let began = Instant::now();
                        weigh(self, id, entry);
                        let took = began.elapsed();
                        payers.charge(&entry.audience, took);
                        exact += took;
                    }
                    Some(share) => {
                        weigh(self, id, entry);
                        shares += share;
                    }
                }
            }
            if shares == 0 {
                continue;
            }
            let rest = began.elapsed().saturating_sub(exact).as_nanos() as u64;
            for entry in run.iter().filter_map(|id| registry.plan(*id)) {
                if let Some(share) = reach.share(&entry.plan) {
                    let part = rest * u64::from(share) / u64::from(shares);
                    payers.charge(&entry.audience, Duration::from_nanos(part));
                }
            }
        }
    }

    fn weigh(&mut self, commit: &Commit, change: &Change, at: usize, id: PlanId, entry: &Entry) {
        let event = Event::of(change.op);
        if !entry.events.has(event) || !concerns(entry, change) {
            return;
        }
        let only = Events::only(event);
        if let Some(fault) = unreadable(commit, change, entry, false) {
            return self.fail(id, false, only, fault);
        }
        match catch_unwind(AssertUnwindSafe(|| judge(commit, change, entry))) {
            Ok(Some((event, plain))) => {
                let hidden = plain && entry.names_changes() && appears(commit, change, &entry.plan);
                let (body, plan, change) = (entry.body, id, at);
                self.push(Found { body, plan, change, event, plain, hidden });
            }
            Ok(None) => {}
            Err(_) => self.fail(id, false, only, Fault::Failed),
        }
    }

    /// Records that were not touched themselves, but read others that were. Paid for only where
    /// plans with transitions read through relations.
    fn find_dependants(&mut self, registry: &Registry, commit: &Commit) {
        if registry.readings().is_empty() || commit.changes.is_empty() {
            return;
        }
        let mut touched: Vec<SchemaId> =
            commit.changes.iter().map(|change| change.schema).collect();
        touched.sort_unstable();
        touched.dedup();
        let readings = registry.readings();
        if !readings.is_reached(&touched) {
            return;
        }
        let unread = self.fail_readings(registry, commit, &touched);
        // Whom a dependant may concern depends on the first relation alone that it is one by.
        // There may be thousands of readings: they are no part of this.
        let relations = commit.related.dependants.by.iter();
        let relations: Vec<(&Arc<str>, &Vec<usize>)> = relations
            .filter_map(|((_, relation), some)| Some((relation, some.as_ref()?)))
            .collect();
        let mut due: Vec<(usize, usize)> = Vec::new();
        for (relation, (_, some)) in relations.iter().enumerate() {
            due.extend(some.iter().map(|index| (*index, relation)));
        }
        due.sort_unstable();
        let mut candidates = std::mem::take(&mut self.candidates);
        for by in due.chunk_by(|a, b| a.0 == b.0) {
            let at = commit.changes.len() + by[0].0;
            let Some(change) = change(commit, at).filter(|change| !self.is_beyond(change)) else {
                continue;
            };
            self.candidates(registry, change, &mut candidates);
            let weigh = |fanout: &mut Fanout, id, entry: &Entry| {
                let paths = &entry.plan.paths.0;
                let reads = |reading: ReadingId| {
                    by.iter().any(|(_, relation)| paths.contains_key(relations[*relation].0))
                        && !unread.contains(&reading)
                        && readings.get(reading).is_some_and(|reading| reading.reaches(&touched))
                };
                if entry.reading.is_some_and(reads) {
                    fanout.weigh_dependant(commit, change, at, id, entry);
                }
            };
            self.each(registry, &candidates, &Reach::of(commit, change), weigh);
        }
        self.candidates = candidates;
    }

    /// Fails those who read so that it is not known which dependants may concern them, and gives
    /// how. They are looked at one by one only where there may be some.
    fn fail_readings(
        &mut self,
        registry: &Registry,
        commit: &Commit,
        touched: &[SchemaId],
    ) -> BTreeSet<ReadingId> {
        let (readings, related) = (registry.readings(), &commit.related);
        let mut unread = BTreeSet::new();
        let all = related.incomplete.is_empty()
            && related.dependants.by.values().all(Option::is_some)
            && readings.are_gathered(related);
        if !all {
            for (id, reading) in readings.reaching(touched) {
                if let Some(fault) = unknown(commit, reading.what()) {
                    reading.plans().for_each(|plan| self.fail(plan, true, UPDATES, fault));
                    unread.insert(id);
                }
            }
        }
        unread
    }

    fn weigh_dependant(
        &mut self,
        commit: &Commit,
        change: &Change,
        at: usize,
        id: PlanId,
        entry: &Entry,
    ) {
        if !concerns(entry, change) {
            return;
        }
        if let Some(fault) = unreadable(commit, change, entry, true) {
            return self.fail(id, true, UPDATES, fault);
        }
        match catch_unwind(AssertUnwindSafe(|| judge_dependant(commit, change, &entry.plan))) {
            Ok(Some(event)) => {
                let (body, plan, plain, hidden) = (entry.body, id, false, false);
                self.push(Found { body, plan, change: at, event, plain, hidden });
            }
            Ok(None) => {}
            Err(_) => self.fail(id, true, UPDATES, Fault::Failed),
        }
    }

    fn is_beyond(&self, change: &Change) -> bool {
        let key = self.upto.as_ref().and_then(|upto| Some((upto, Key::of(&change.key)?)));
        key.is_some_and(|(upto, key)| key > *upto)
    }
}

/// How much there is to read, in kilobytes and one at least: a plan's cost knows neither how long
/// a text is nor how many records are related.
struct Reach {
    /// Of the changed record, before and after.
    row: u32,
    /// Of the commit, what is related included.
    all: u32,
}

impl Reach {
    fn of(commit: &Commit, change: &Change) -> Reach {
        let kilobytes = |bytes: usize| u32::try_from(bytes >> 10).unwrap_or(u32::MAX).max(1);
        let row = change.before.iter().chain(&change.after).map(|row| row.bytes()).sum();
        Reach { row: kilobytes(row), all: kilobytes(commit.bytes()) }
    }

    /// What a cheap plan counts for among others; `None` for one that is dear.
    fn share(&self, plan: &Plan) -> Option<u32> {
        // Finding it and calling its filter costs about as much as a few comparisons.
        const CALL: u32 = 4;
        let read = if plan.paths.is_empty() { self.row } else { self.all };
        // One that reads neither a text nor relations takes as long whatever there is.
        let whole = if u64::from(plan.cost) < TEXT { 1 } else { read };
        let cost = plan.cost.saturating_mul(whole);
        (cost < DEAR).then_some(cost + CALL)
    }
}

/// Why what the commit brought cannot be read through the plan.
fn unreadable(commit: &Commit, change: &Change, entry: &Entry, back: bool) -> Option<Fault> {
    let plan = &entry.plan;
    // A row of another layout must never be read through this plan.
    if plan.schema.version != change.schema_version {
        return Some(Fault::Failed);
    }
    if plan.paths.is_empty() {
        return None;
    }
    if commit.related.incomplete.contains(&plan.schema.id) {
        return Some(Fault::TooMuch);
    }
    (!commit.related.gathers(plan.schema.id, &plan.paths, back)).then_some(Fault::Ungathered)
}

/// Why it is not known which dependants may concern who reads so.
fn unknown(commit: &Commit, what: &What) -> Option<Fault> {
    let related = &commit.related;
    if related.incomplete.contains(&what.schema) {
        return Some(Fault::TooMuch);
    }
    if !related.gathers(what.schema, &what.paths, true) {
        return Some(Fault::Ungathered);
    }
    let by = &related.dependants.by;
    let too_many =
        |relation: &Arc<str>| matches!(by.get(&(what.schema, relation.clone())), Some(None));
    what.paths.0.keys().any(too_many).then_some(Fault::Dependants)
}

/// What a change is to the plan: its event, and whether it is one without transitions too. The
/// state before an update is looked at only where somebody wants to know of it.
fn judge(commit: &Commit, change: &Change, entry: &Entry) -> Option<(Event, bool)> {
    let (plan, related) = (&entry.plan, &commit.related);
    let was = || matches!(&change.before, Some(row) if plan.matches(row, &related.before));
    let is = || matches!(&change.after, Some(row) if plan.matches(row, &related.after));
    match change.op {
        Op::Create => is().then_some((Event::Create, true)),
        Op::Delete => was().then_some((Event::Delete, true)),
        Op::Update if !entry.tells_transitions() => {
            (is() && watched(commit, change, plan)).then_some((Event::Update, true))
        }
        Op::Update => match (was(), is()) {
            (false, false) => None,
            (true, false) => Some((Event::Leave, false)),
            (false, true) => Some((Event::Enter, watched(commit, change, plan))),
            (true, true) => watched(commit, change, plan).then_some((Event::Update, true)),
        },
    }
}

fn judge_dependant(commit: &Commit, change: &Change, plan: &Plan) -> Option<Event> {
    let (before, after) = (change.before.as_deref()?, change.after.as_deref()?);
    let related = &commit.related;
    match (plan.matches(before, &related.before), plan.matches(after, &related.after)) {
        (false, false) => None,
        (true, false) => Some(Event::Leave),
        (false, true) => Some(Event::Enter),
        (true, true) => {
            let seen = plan.reads.as_ref().is_some_and(|reads| differs(commit, change, reads));
            (seen && watched(commit, change, plan)).then_some(Event::Update)
        }
    }
}

/// Whether an update changed what the client watches; all of it where it named nothing, or where
/// the record was not there before for it.
fn watched(commit: &Commit, change: &Change, plan: &Plan) -> bool {
    let differs = |watch| differs(commit, change, watch) || appears(commit, change, plan);
    plan.watch.as_deref().is_none_or(differs)
}

/// Whether an update is the first that the plan's principals may see of the record. What it was
/// before must not show, not even in that it was the same.
fn appears(commit: &Commit, change: &Change, plan: &Plan) -> bool {
    let hidden = |row: &Arc<Row>| !plan.shows(row, &commit.related.before);
    change.op == Op::Update && change.before.as_ref().is_some_and(hidden)
}

fn differs(commit: &Commit, change: &Change, body: &Body) -> bool {
    !changed(commit, change, body).is_empty()
}

/// What an update changed of what the body shows; see [`Body::changed`].
pub(super) fn changed(commit: &Commit, change: &Change, body: &Body) -> Vec<usize> {
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => {
            body.changed((before, &commit.related.before), (after, &commit.related.after))
        }
        _ => Vec::new(),
    }
}

/// Whether someone listens to this plan for more than single records, or for this very one.
fn concerns(entry: &Entry, change: &Change) -> bool {
    !entry.only_keyed()
        || Key::of(&change.key).is_some_and(|key| entry.keyed(&key).next().is_some())
}
