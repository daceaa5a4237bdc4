//! Plans, shared by all who may see the same, and who listens to them.

mod bodies;
mod entry;
pub mod payers;
mod readings;
mod siblings;
mod slab;
mod standing;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, BuildHasherDefault, RandomState};
use std::sync::Arc;

use uuid::Uuid;

use crate::model::change::{Change, Op};
use crate::model::map::IdMap;
use crate::model::related::Key;
use crate::model::schema::SchemaId;
use crate::query::{Body, Plan};

use super::index::{Index, Plain, Records};
use super::outbox::Outbox;
use super::subscription::{Request, Start, SubId, Told};
use super::table::Table;
use super::wanted::Hold;

use bodies::Bodies;
pub use bodies::BodyId;
pub use entry::{Entry, Group, Seat};
use payers::Payers;
pub use readings::{Reading, ReadingId, Readings, What};
use slab::Slab;
use standing::Standing;

/// Index of a plan in the registry; reused after the plan's end.
pub type PlanId = usize;
/// Index of an encoder, by name.
pub type EncoderId = usize;

/// How a subscription is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mode {
    /// Updates are told by what they did to the match, and changes of related records too.
    pub transitions: bool,
    /// Updates name the fields they changed.
    pub changes: bool,
    /// The last message of a commit carries its cursor, under this fingerprint of the grant.
    pub cursors: Option<u64>,
}

impl Mode {
    /// As `request` asks, under `plan`.
    pub fn of(request: &Request, plan: &Plan) -> Mode {
        let Told { transitions, changes } = request.told;
        let cursors = (request.start != Start::Live).then_some(plan.grant);
        Mode { transitions, changes, cursors }
    }
}

/// A subscription to be added.
pub struct Listener {
    pub request: Request,
    pub plan: Arc<Plan>,
    /// The one record it wants.
    pub key: Option<Key>,
    pub mode: Mode,
    /// Keeps the plan's relation paths wanted.
    pub hold: Option<Arc<Hold>>,
    pub outbox: Arc<Outbox>,
    /// Commits up to this position it has heard already.
    pub told: u64,
}

/// One subscription.
pub struct Subscriber {
    pub(in crate::live) request: Request,
    pub(in crate::live) key: Option<Key>,
    pub(in crate::live) mode: Mode,
    pub(in crate::live) outbox: Arc<Outbox>,
    /// What it had heard when it was attached; when it is detached, what it has heard by then.
    pub(in crate::live) told: u64,
    /// When it is detached, whether that is still to be told to it; see [`Registry::owe`].
    pub(in crate::live) owed: bool,
    _hold: Option<Arc<Hold>>,
    plan: PlanId,
    group: usize,
    seat: usize,
}

impl Subscriber {
    /// The plan it listens to.
    pub fn plan(&self) -> PlanId {
        self.plan
    }
}

/// How many listen to a schema.
pub struct Tally<'r> {
    pub name: &'r Arc<str>,
    pub listeners: usize,
    /// Plans that every change, or nearly every, is checked against: [`Index::scanned`].
    pub scanned: usize,
}

/// Counts of a schema's plans and of their listeners.
struct Counts {
    name: Arc<str>,
    plans: usize,
    listeners: usize,
    /// Of them, those that are told transitions.
    transitions: usize,
    /// Plans by the records that listeners want alone.
    records: Records,
}

/// Removals between two sweeps: what they free is some hundred pieces.
const SWEEP: usize = 16;

/// Has the C library put together the small pieces that were freed. It does so when it is next
/// asked for a large one, and all at once: after half a million removals without one, that took
/// 1.3 s. It has several heaps, each for a few threads, and this reaches that of the thread which
/// calls: the one that removes. What other threads had made lies in theirs, and is put together
/// when they ask for something large.
fn sweep() {
    const LARGE: usize = 4_096;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE)));
}

/// All plans and subscribers. Owned by whoever is at the helm.
#[derive(Default)]
pub struct Registry {
    plans: Slab<Entry>,
    /// By a hash of the key: a table that grows must not read a million keys again while commits
    /// wait. Two keys of one hash do not meet here; the later plan is shared by nobody then.
    by_plan_key: Table<u64, PlanId, BuildHasherDefault<Plain>>,
    hash: RandomState,
    by_schema: IdMap<SchemaId, Counts>,
    index: Index,
    bodies: Bodies,
    readings: Readings,
    payers: Payers,
    /// Plans with listeners that are sent cursors.
    with_cursors: BTreeSet<PlanId>,
    encoders: Vec<&'static str>,
    subscribers: Table<SubId, Box<Subscriber>>,
    /// Removals since the last sweep.
    removed: usize,
    /// Ends of tokens, seconds since 1970.
    expiries: BTreeSet<(i64, SubId)>,
    standing: Standing,
    /// How often anybody came or left.
    version: u64,
}

impl Registry {
    /// Adds a subscription. Its plan must be compiled under the matcher's present catalog: an equal
    /// key then means an equal plan.
    pub fn attach(&mut self, id: SubId, listener: Listener) {
        let Listener { request, plan, key, mode, hold, outbox, told } = listener;
        let plan = self.intern(plan);
        let encoder_id = self.encoder(request.encoder.name());
        let Some(entry) = self.plans.get_mut(plan) else { unreachable!("a plan just interned") };
        let seat = Seat {
            subscriber: id,
            outbox: outbox.clone(),
            told: Cell::new(told),
            owed: Cell::default(),
        };
        let known = key.as_ref().is_some_and(|key| entry.keyed(key).next().is_some());
        let (group, seat) = entry.seat(encoder_id, &request, mode, &key, seat);
        if entry.filed.is_none() && !entry.only_keyed() {
            let asked = &entry.plan;
            let filed = self.index.add(plan, &asked.catalog, &asked.schema, &asked.filter);
            entry.filed = Some(filed);
        }
        entry.audience.add(self.payers.enter(request.payer));
        if mode.transitions && entry.reading.is_none() && !entry.plan.paths.is_empty() {
            entry.reading = Some(self.readings.add(plan, &entry.plan));
        }
        if mode.cursors.is_some() && entry.cursors == 1 {
            self.with_cursors.insert(plan);
        }
        if let Some(counts) = self.by_schema.get_mut(&entry.plan.schema.id) {
            counts.listeners += 1;
            counts.transitions += usize::from(mode.transitions);
            if let (Some(key), false) = (&key, known) {
                counts.records.add(key, plan);
            }
        }
        if let Some(expires) = request.principal.expires {
            self.expiries.insert((expires, id));
        }
        self.standing.add(&request.principal, id);
        let subscriber = Subscriber {
            request,
            key,
            mode,
            outbox,
            told,
            owed: false,
            _hold: hold,
            plan,
            group,
            seat,
        };
        self.subscribers.insert(id, Box::new(subscriber));
        self.version += 1;
    }

    /// The position at which it became active is still to be told to it.
    pub(in crate::live) fn owe(&self, id: SubId) {
        if let Some((_, seat)) = self.seat(id) {
            seat.owed.set(true);
        }
    }

    /// Where a subscription sits.
    pub(in crate::live) fn seat(&self, id: SubId) -> Option<(&Group, &Seat)> {
        let subscriber = self.subscribers.get(&id)?;
        let group = self.plans.get(subscriber.plan)?.groups.get(subscriber.group)?;
        Some((group, group.seats.get(subscriber.seat)?))
    }

    /// Takes a subscription out; its plan goes with the last listener.
    pub fn detach(&mut self, id: SubId) -> Option<Subscriber> {
        let mut subscriber = *self.subscribers.remove(&id)?;
        if let Some(expires) = subscriber.request.principal.expires {
            self.expiries.remove(&(expires, id));
        }
        self.standing.remove(&subscriber.request.principal, id);
        if let Some(entry) = self.plans.get_mut(subscriber.plan) {
            let (left, moved) = entry.unseat(subscriber.group, subscriber.seat);
            if let Some(seat) = left {
                (subscriber.told, subscriber.owed) = (seat.told.get(), seat.owed.get());
            }
            if let Some(payer) = self.payers.leave(subscriber.request.payer) {
                entry.audience.remove(payer);
            }
            if let Some(moved) = moved
                && let Some(moved) = self.subscribers.get_mut(&moved)
            {
                moved.seat = subscriber.seat;
            }
            if let Some(counts) = self.by_schema.get_mut(&entry.plan.schema.id) {
                counts.listeners -= 1;
                counts.transitions -= usize::from(subscriber.mode.transitions);
                if let Some(key) = &subscriber.key
                    && entry.keyed(key).next().is_none()
                {
                    counts.records.remove(key, subscriber.plan);
                }
            }
            if let Some(filed) = entry.filed.take_if(|_| entry.open.is_empty()) {
                self.index.remove(subscriber.plan, &filed);
            }
            if let Some(reading) = entry.reading.take_if(|_| entry.transitions == 0) {
                self.readings.remove(subscriber.plan, reading);
            }
            if subscriber.mode.cursors.is_some() && entry.cursors == 0 {
                self.with_cursors.remove(&subscriber.plan);
            }
            if entry.listeners == 0 {
                self.remove_plan(subscriber.plan);
            }
        }
        self.version += 1;
        self.removed += 1;
        if self.removed >= SWEEP {
            self.removed = 0;
            sweep();
        }
        Some(subscriber)
    }

    fn intern(&mut self, mut plan: Arc<Plan>) -> PlanId {
        let hash = self.hash.hash_one(&plan.key);
        if let Some(&id) = self.by_plan_key.get(&hash)
            && self.plan(id).is_some_and(|known| known.plan.key == plan.key)
        {
            return id;
        }
        let body = self.bodies.share(&mut plan);
        let id = self.plans.next();
        self.by_plan_key.get_or_insert_with(hash, || id);
        let counts = self.by_schema.entry(plan.schema.id).or_insert_with(|| Counts {
            name: plan.schema.name.clone(),
            plans: 0,
            listeners: 0,
            transitions: 0,
            records: Records::default(),
        });
        counts.plans += 1;
        self.plans.add(Entry::new(plan, body))
    }

    fn remove_plan(&mut self, id: PlanId) {
        let Some(entry) = self.plans.remove(id) else { return };
        let hash = self.hash.hash_one(&entry.plan.key);
        if self.by_plan_key.get(&hash) == Some(&id) {
            self.by_plan_key.remove(&hash);
        }
        let schema = entry.plan.schema.id;
        if let Some(counts) = self.by_schema.get_mut(&schema) {
            counts.plans -= 1;
            if counts.plans == 0 {
                debug_assert!(counts.records.is_empty(), "what was filed is taken out again");
                self.by_schema.remove(&schema);
            }
        }
        self.bodies.release(entry.body);
    }

    fn encoder(&mut self, name: &'static str) -> EncoderId {
        match self.encoders.iter().position(|known| *known == name) {
            Some(id) => id,
            None => {
                self.encoders.push(name);
                self.encoders.len() - 1
            }
        }
    }

    /// Fills `out` with the plans that a change may concern, each once: all that it does, perhaps
    /// more. Each is then checked exactly. What a record was before an update concerns those that
    /// are told transitions.
    pub fn candidates(&self, change: &Change, out: &mut Vec<PlanId>) {
        self.candidates_within(usize::MAX, change, out);
        if self.has_others(change) {
            // What they ask for cannot be held against this row; they end when it is tried. Those
            // that want one record alone are there already if it is this one.
            let others = self.plans.iter().filter(|(_, entry)| {
                let schema = &entry.plan.schema;
                schema.id == change.schema
                    && schema.version != change.schema_version
                    && !entry.only_keyed()
            });
            out.extend(others.map(|(id, _)| id));
        }
    }

    /// As [`Registry::candidates`], but for [others](Registry::has_others). `false`: there are more
    /// than `most` ways to come by one, and `out` is empty.
    pub fn candidates_within(&self, most: usize, change: &Change, out: &mut Vec<PlanId>) -> bool {
        out.clear();
        let Some(counts) = self.by_schema.get(&change.schema) else { return true };
        let after = change.after.as_deref();
        let before = match (change.op, &change.before) {
            (Op::Update, _) if counts.transitions == 0 => None,
            // A dependant: its own columns are as they were.
            (_, Some(before))
                if change.after.as_ref().is_some_and(|row| Arc::ptr_eq(row, before)) =>
            {
                None
            }
            (_, before) => before.as_deref(),
        };
        let (schema, version) = (change.schema, change.schema_version);
        let Some(most) = most.checked_sub(counts.records.len(&change.key)) else { return false };
        let rows = after.into_iter().chain(before);
        if !self.index.look_up_within(most, (schema, version), rows, out) {
            return false;
        }
        // Plans that others listen to for every record came by their predicates, if at all.
        let alone = |id: &PlanId| self.plan(*id).is_some_and(Entry::only_keyed);
        out.extend(counts.records.plans(&change.key).filter(alone));
        true
    }

    /// Whether there are plans for another version of the schema than the change's, but for those
    /// that want single records. All plans have to be looked at to find them.
    pub fn has_others(&self, change: &Change) -> bool {
        self.index.has_others(change.schema, change.schema_version)
    }

    /// Plans of a schema that the index cannot file: candidates for each of its changes.
    pub fn scanned(&self, schema: SchemaId) -> usize {
        self.index.scanned(schema)
    }

    /// The plans whose listeners want to hear of records that read what a commit changed.
    pub fn readings(&self) -> &Readings {
        &self.readings
    }

    /// Who is worked for.
    pub fn payers(&self) -> &Payers {
        &self.payers
    }

    pub fn plan(&self, id: PlanId) -> Option<&Entry> {
        self.plans.get(id)
    }

    /// The body of its plans; they were compiled alike, any of them encodes for all.
    pub fn body(&self, id: BodyId) -> Option<&Arc<Body>> {
        self.bodies.get(id)
    }

    pub fn plan_count(&self) -> usize {
        self.plans.len()
    }

    /// Of each schema that somebody listens to.
    pub fn tallies(&self) -> impl Iterator<Item = Tally<'_>> {
        self.by_schema.iter().map(|(schema, counts)| Tally {
            name: &counts.name,
            listeners: counts.listeners,
            scanned: self.index.scanned(*schema),
        })
    }

    pub fn plans(&self) -> impl Iterator<Item = &Entry> {
        self.plans.iter().map(|(_, entry)| entry)
    }

    /// The groups of all plans that are sent cursors, in the order of their plans and their
    /// numbers there, from this one on.
    pub(in crate::live) fn groups_with_cursors(
        &self,
        plan: PlanId,
        group: usize,
    ) -> impl Iterator<Item = (PlanId, usize, &Group)> {
        let plans = self.with_cursors.range(plan..).filter_map(|id| Some((*id, self.plan(*id)?)));
        let groups = plans.flat_map(move |(id, entry)| {
            let from = if id == plan { group } else { 0 };
            entry.groups.iter_from(from).map(move |(at, group)| (id, at, group))
        });
        groups.filter(|(_, _, group)| group.mode.cursors.is_some())
    }

    pub fn subscribers(&self) -> impl Iterator<Item = (SubId, &Subscriber)> {
        self.subscribers.iter().map(|(id, subscriber)| (*id, &**subscriber))
    }

    pub fn subscriber(&self, id: SubId) -> Option<&Subscriber> {
        self.subscribers.get(&id).map(|subscriber| &**subscriber)
    }

    /// A user's own.
    pub fn of_user(&self, user: Uuid) -> impl Iterator<Item = SubId> {
        self.standing.of_user(user)
    }

    /// Whose outside issuer's token names this subject; perhaps some others too.
    pub fn of_subject(&self, subject: &str) -> impl Iterator<Item = SubId> {
        self.standing.of_subject(subject)
    }

    /// Whose token has ended at `now` (seconds since 1970).
    pub fn expired(&self, now: i64) -> Vec<SubId> {
        self.expiries.range(..=(now, SubId::MAX)).map(|(_, id)| *id).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.subscribers.is_empty()
    }

    /// As long as this is the same, so is whom a commit concerns.
    pub fn version(&self) -> u64 {
        self.version
    }
}
