//! A commit's messages: matched, encoded once, shared, offered.
//!
//! Everything here is per plan, per projection or per encoder; per subscriber there is one offer
//! of frames that exist already.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Kind};
use crate::limits::Limits;
use crate::model::change::{Change, Commit, Op, Row};
use crate::model::related::{Key, Related};
use crate::query::Body;

use super::message::{Event, Message, Records};
use super::outbox::{Frame, Offer};
use super::registry::{BodyId, EncoderId, Entry, Group, Mode, PlanId, Registry};

const EVENTS: [Event; 3] = [Event::Create, Event::Update, Event::Delete];

/// Working memory, kept from commit to commit.
pub struct Fanout {
    message_records: usize,
    frame_bytes: usize,
    /// Of a commit's records as one body shows them.
    body_bytes: usize,
    found: Vec<Found>,
    bodies: Bodies,
    frames: Frames,
    failed: Vec<Failure>,
    upto: Option<Key>,
}

/// Subscribers of a plan who cannot be told of a commit: they end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    pub plan: PlanId,
    /// Only those that are told transitions.
    pub transitions: bool,
    pub fault: Fault,
}

/// Why subscribers cannot be told of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A fault of ours.
    Failed,
    /// The plan reads relations that the writer was not asked for when it worked on the commit.
    Ungathered,
    /// The related records that the plan reads are too many to be gathered for one commit.
    TooMany,
    /// The commit concerns too many records through a relation that the plan reads.
    Dependants,
}

impl Failure {
    /// Whether listeners of the plan who are told so are concerned.
    pub fn concerns(&self, mode: Mode) -> bool {
        mode.transitions || !self.transitions
    }

    /// How they are told; `schema` is the plan's.
    pub fn error(&self, schema: &str) -> Error {
        let gone = |message| Error::new(Kind::Gone, message);
        match self.fault {
            Fault::Failed => {
                Error::internal(format!("a plan on {schema} failed: its subscriptions end"))
            }
            // Between a change of access that made it need them and the writer's next job.
            Fault::Ungathered => gone("access has changed meanwhile: subscribe again".to_owned()),
            Fault::TooMany => gone(format!(
                "a write concerned too many records related to {schema}: take a snapshot"
            )),
            Fault::Dependants => gone(format!(
                "a write concerned too many records of {schema} through a relation: take a \
                 snapshot"
            )),
        }
    }
}

/// A plan matches a change. Ordered so that plans of one body, and changes of one plan, follow
/// each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    body: BodyId,
    plan: PlanId,
    /// Index in the commit.
    change: usize,
}

/// The records of a commit as one body shows them.
#[derive(Default)]
struct Bodies {
    bytes: Vec<u8>,
    /// By index of the change; empty where not encoded (a record never is).
    ranges: Vec<Range<usize>>,
}

/// Frames already made of those records.
#[derive(Default)]
struct Frames {
    made: Vec<Frame>,
    known: Vec<Known>,
}

/// `made[frames]` is what `encoder` makes of `changes` under `event`.
struct Known {
    encoder: EncoderId,
    event: Event,
    single: bool,
    changes: Vec<usize>,
    frames: Range<usize>,
}

impl Fanout {
    pub fn new(limits: &Limits) -> Self {
        Fanout {
            message_records: limits.message_records.max(1),
            frame_bytes: limits.frame_bytes,
            body_bytes: limits.tail_bytes,
            found: Vec::new(),
            bodies: Bodies::default(),
            frames: Frames::default(),
            failed: Vec::new(),
            upto: None,
        }
    }

    /// From now on only records are told whose primary key is at most this one.
    pub fn up_to(&mut self, key: Option<Key>) {
        self.upto = key;
    }

    fn fail(&mut self, plan: PlanId, transitions: bool, fault: Fault) {
        self.failed.push(Failure { plan, transitions, fault });
    }

    /// Tells every subscriber its messages of this commit. Gives the plans that panicked or whose
    /// related records are too many: what their subscribers should have heard is unknown.
    pub fn tell(&mut self, registry: &Registry, commit: &Commit) -> Vec<Failure> {
        self.find(registry, commit);
        self.found.sort_unstable();
        let found = std::mem::take(&mut self.found);
        for run in found.chunk_by(|a, b| a.body == b.body) {
            self.tell_body(registry, commit, run);
        }
        self.found = found;
        self.found.clear();
        // A large commit must not hold its memory until the next one.
        self.frames.start();
        self.bodies.start(0);
        self.bodies.bytes.shrink_to(self.frame_bytes);
        std::mem::take(&mut self.failed)
    }

    fn find(&mut self, registry: &Registry, commit: &Commit) {
        for (at, change) in commit.changes.iter().enumerate() {
            let Some((row, related)) = told_state(commit, change) else { continue };
            let event = Event::of(change.op);
            for &id in registry.candidates(change) {
                let Some(entry) = registry.plan(id) else { continue };
                if !entry.events.has(event) || !concerns(entry, change) {
                    continue;
                }
                // A row of another layout must never be read through this plan.
                if entry.plan.schema.version != change.schema_version {
                    self.fail(id, false, Fault::Failed);
                    continue;
                }
                if commit.related.incomplete.contains(&entry.plan.schema.id)
                    && !entry.plan.paths.is_empty()
                {
                    self.fail(id, false, Fault::TooMany);
                    continue;
                }
                if !commit.related.gathers(entry.plan.schema.id, &entry.plan.paths, false) {
                    self.fail(id, false, Fault::Ungathered);
                    continue;
                }
                let matches = AssertUnwindSafe(|| entry.plan.matches(row, related));
                match catch_unwind(matches) {
                    Ok(true) => self.found.push(Found { body: entry.body, plan: id, change: at }),
                    Ok(false) => {}
                    Err(_) => self.fail(id, false, Fault::Failed),
                }
            }
        }
    }

    /// Tells the plans that show the same of a record.
    fn tell_body(&mut self, registry: &Registry, commit: &Commit, run: &[Found]) {
        let Some(body) = registry.body(run[0].body) else { return };
        self.bodies.start(commit.changes.len());
        self.frames.start();
        for found in run {
            if !self.bodies.encode(body, commit, found.change, self.body_bytes) {
                run.iter().for_each(|found| self.fail(found.plan, false, Fault::Failed));
                return;
            }
        }
        for hits in run.chunk_by(|a, b| a.plan == b.plan) {
            if let Some(entry) = registry.plan(hits[0].plan)
                && !self.failed.iter().any(|failure| failure.plan == hits[0].plan)
            {
                self.tell_plan(entry, commit, hits);
            }
        }
    }

    fn tell_plan(&mut self, entry: &Entry, commit: &Commit, hits: &[Found]) {
        let mut changes: [Vec<usize>; 3] = Default::default();
        for hit in hits {
            changes[Event::of(commit.changes[hit.change].op) as usize].push(hit.change);
        }
        for group in entry.open() {
            self.tell_group(group, commit.position, &changes);
        }
        if !entry.has_keyed() {
            return;
        }
        for hit in hits {
            let change = &commit.changes[hit.change];
            let mut one: [Vec<usize>; 3] = Default::default();
            one[Event::of(change.op) as usize].push(hit.change);
            let Some(key) = Key::of(&change.key) else { continue };
            for group in entry.keyed(&key) {
                self.tell_group(group, commit.position, &one);
            }
        }
    }

    fn tell_group(&mut self, group: &Group, position: u64, changes: &[Vec<usize>; 3]) {
        let mut parts = EVENTS
            .into_iter()
            .filter(|event| group.events.has(*event) && !changes[*event as usize].is_empty());
        let Some(first) = parts.next() else { return };
        let range = self.frames(group, first, &changes[first as usize]);
        match parts.next() {
            None => offer(group, position, &self.frames.made[range]),
            Some(second) => {
                let mut all = self.frames.made[range].to_vec();
                for event in std::iter::once(second).chain(parts) {
                    let range = self.frames(group, event, &changes[event as usize]);
                    all.extend_from_slice(&self.frames.made[range]);
                }
                offer(group, position, &all);
            }
        }
    }

    /// The frames of one event for a group, made once per body, encoder and set of changes.
    fn frames(&mut self, group: &Group, event: Event, changes: &[usize]) -> Range<usize> {
        let single = group.key.is_some();
        let known = self.frames.known.iter().find(|known| {
            known.encoder == group.encoder_id
                && known.event == event
                && known.single == single
                && known.changes == changes
        });
        if let Some(known) = known {
            return known.frames.clone();
        }
        let start = self.frames.made.len();
        let ranges: Vec<_> = changes.iter().map(|at| self.bodies.ranges[*at].clone()).collect();
        let mut rest = ranges.as_slice();
        while !rest.is_empty() {
            let (records, after) = rest.split_at(match event {
                Event::Create => 1,
                _ => self.message_length(rest),
            });
            rest = after;
            let records = Records { bytes: &self.bodies.bytes, ranges: records };
            let message = Message { event, single, records, changed: None, cursor: None };
            self.frames.made.push(group.encoder.frame(&message).into());
        }
        let frames = start..self.frames.made.len();
        self.frames.known.push(Known {
            encoder: group.encoder_id,
            event,
            single,
            changes: changes.to_vec(),
            frames: frames.clone(),
        });
        frames
    }

    /// How many of the records one message may carry; at least one.
    fn message_length(&self, ranges: &[Range<usize>]) -> usize {
        let mut bytes = 0;
        let fits = |range: &&Range<usize>| {
            bytes += range.len() + 1;
            bytes <= self.frame_bytes
        };
        ranges.iter().take(self.message_records).take_while(fits).count().max(1)
    }
}

impl Bodies {
    fn start(&mut self, changes: usize) {
        self.bytes.clear();
        self.ranges.clear();
        self.ranges.resize(changes, 0..0);
    }

    /// `false` if the body panicked, or became too large: related records stand in it as often as
    /// they are related.
    fn encode(&mut self, body: &Body, commit: &Commit, at: usize, most: usize) -> bool {
        if !self.ranges[at].is_empty() {
            return true;
        }
        let Some((row, related)) = told_state(commit, &commit.changes[at]) else { return true };
        let start = self.bytes.len();
        let encode = || body.encode_within(row, related, &mut self.bytes, most);
        let encoded = catch_unwind(AssertUnwindSafe(encode));
        self.ranges[at] = start..self.bytes.len();
        matches!(encoded, Ok(Ok(())))
    }
}

impl Frames {
    fn start(&mut self) {
        self.made.clear();
        self.known.clear();
    }
}

/// The state that is told of a change: the last one for a delete, else the new one.
fn told_state<'a>(commit: &'a Commit, change: &'a Change) -> Option<(&'a Row, &'a dyn Related)> {
    Some(match change.op {
        Op::Create | Op::Update => (change.after.as_deref()?, &commit.related.after),
        Op::Delete => (change.before.as_deref()?, &commit.related.before),
    })
}

/// Whether someone listens to this plan for more than single records, or for this very one.
fn concerns(entry: &Entry, change: &Change) -> bool {
    !entry.only_keyed()
        || Key::of(&change.key).is_some_and(|key| entry.keyed(&key).next().is_some())
}

fn offer(group: &Group, position: u64, frames: &[Frame]) {
    for seat in &group.seats {
        if seat.outbox.offer(position, frames) == Offer::Overflowed {
            tracing::info!(subscription = seat.subscriber, "a reader is too slow: closed");
        }
    }
}
