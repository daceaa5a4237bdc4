//! Plans, shared by all who may see the same, and who listens to them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::change::Change;
use crate::model::related::Key;
use crate::model::schema::SchemaId;
use crate::query::{Body, Plan};

use super::message::{Encode, Events};
use super::outbox::Outbox;
use super::subscription::{Request, SubId};
use super::wanted::Hold;

/// Index of a plan in the registry; reused after the plan's end.
pub type PlanId = usize;
/// Index of a body; plans of the same projection and grant share one.
pub type BodyId = usize;
/// Index of an encoder, by name.
pub type EncoderId = usize;

/// One subscription.
pub struct Subscriber {
    pub(super) request: Request,
    pub(super) key: Option<Key>,
    pub(super) outbox: Arc<Outbox>,
    /// Keeps the plan's relation paths wanted.
    _hold: Option<Hold>,
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

/// Listeners of a plan who get the same bytes.
pub struct Group {
    pub(super) encoder: Arc<dyn Encode>,
    pub(super) encoder_id: EncoderId,
    pub(super) events: Events,
    /// The one record they want.
    pub(super) key: Option<Key>,
    pub(super) seats: Vec<Seat>,
}

pub struct Seat {
    pub(super) subscriber: SubId,
    pub(super) outbox: Arc<Outbox>,
}

/// A plan and its listeners.
pub struct Entry {
    pub(super) plan: Arc<Plan>,
    pub(super) body: BodyId,
    /// All events that some listener asked for (and perhaps some that none asks for any more).
    pub(super) events: Events,
    /// Some may be empty.
    pub(super) groups: Vec<Group>,
    /// Groups with a `key`, by it; the others in `open`.
    pub(super) by_key: HashMap<Key, Vec<usize>>,
    pub(super) open: Vec<usize>,
    listeners: usize,
}

struct SharedBody {
    body: Arc<Body>,
    plans: usize,
}

/// All plans and subscribers. Owned by the matcher's thread alone.
#[derive(Default)]
pub struct Registry {
    plans: Vec<Option<Entry>>,
    free_plans: Vec<PlanId>,
    by_plan_key: HashMap<Arc<[u8]>, PlanId>,
    by_schema: HashMap<SchemaId, Vec<PlanId>>,
    bodies: Vec<Option<SharedBody>>,
    free_bodies: Vec<BodyId>,
    by_body_key: HashMap<Arc<[u8]>, BodyId>,
    encoders: Vec<&'static str>,
    subscribers: HashMap<SubId, Subscriber>,
    /// Ends of tokens, seconds since 1970.
    expiries: BTreeSet<(i64, SubId)>,
}

impl Registry {
    /// Adds a subscription. `plan` must be compiled under the matcher's present catalog: an equal
    /// key then means an equal plan.
    pub fn attach(
        &mut self,
        id: SubId,
        request: Request,
        plan: Arc<Plan>,
        key: Option<Key>,
        hold: Option<Hold>,
        outbox: Arc<Outbox>,
    ) {
        let plan = self.intern(plan);
        let encoder_id = self.encoder(request.encoder.name());
        let Some(entry) = &mut self.plans[plan] else { unreachable!("a plan just interned") };
        let group = entry.group(encoder_id, &request, &key);
        let seats = &mut entry.groups[group].seats;
        seats.push(Seat { subscriber: id, outbox: outbox.clone() });
        let seat = seats.len() - 1;
        entry.listeners += 1;
        if let Some(expires) = request.principal.expires {
            self.expiries.insert((expires, id));
        }
        self.subscribers
            .insert(id, Subscriber { request, key, outbox, _hold: hold, plan, group, seat });
    }

    /// Takes a subscription out; its plan goes with the last listener.
    pub fn detach(&mut self, id: SubId) -> Option<Subscriber> {
        let subscriber = self.subscribers.remove(&id)?;
        if let Some(expires) = subscriber.request.principal.expires {
            self.expiries.remove(&(expires, id));
        }
        if let Some(entry) = &mut self.plans[subscriber.plan] {
            let seats = &mut entry.groups[subscriber.group].seats;
            seats.swap_remove(subscriber.seat);
            if let Some(moved) = seats.get(subscriber.seat)
                && let Some(moved) = self.subscribers.get_mut(&moved.subscriber)
            {
                moved.seat = subscriber.seat;
            }
            entry.listeners -= 1;
            if entry.listeners == 0 {
                self.remove_plan(subscriber.plan);
            }
        }
        Some(subscriber)
    }

    fn intern(&mut self, plan: Arc<Plan>) -> PlanId {
        if let Some(&id) = self.by_plan_key.get(&plan.key) {
            return id;
        }
        let body = match self.by_body_key.get(&plan.body.key) {
            Some(&body) => body,
            None => {
                let shared = SharedBody { body: plan.body.clone(), plans: 0 };
                let body = place(&mut self.bodies, &mut self.free_bodies, shared);
                self.by_body_key.insert(plan.body.key.clone(), body);
                body
            }
        };
        if let Some(shared) = &mut self.bodies[body] {
            shared.plans += 1;
        }
        let (key, schema) = (plan.key.clone(), plan.schema.id);
        let entry = Entry {
            plan,
            body,
            events: Events::NONE,
            groups: Vec::new(),
            by_key: HashMap::new(),
            open: Vec::new(),
            listeners: 0,
        };
        let id = place(&mut self.plans, &mut self.free_plans, entry);
        self.by_plan_key.insert(key, id);
        self.by_schema.entry(schema).or_default().push(id);
        id
    }

    fn remove_plan(&mut self, id: PlanId) {
        let Some(entry) = self.plans[id].take() else { return };
        self.free_plans.push(id);
        self.by_plan_key.remove(&entry.plan.key);
        let schema = entry.plan.schema.id;
        if let Some(plans) = self.by_schema.get_mut(&schema) {
            plans.retain(|plan| *plan != id);
            if plans.is_empty() {
                self.by_schema.remove(&schema);
            }
        }
        if let Some(shared) = &mut self.bodies[entry.body] {
            shared.plans -= 1;
            if shared.plans == 0 {
                self.by_body_key.remove(&shared.body.key);
                self.bodies[entry.body] = None;
                self.free_bodies.push(entry.body);
            }
        }
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

    /// The plans that a change may concern: all that it does, perhaps more. Each is then checked
    /// exactly.
    pub fn candidates(&self, change: &Change) -> &[PlanId] {
        self.by_schema.get(&change.schema).map_or(&[], Vec::as_slice)
    }

    pub fn plan(&self, id: PlanId) -> Option<&Entry> {
        self.plans.get(id)?.as_ref()
    }

    /// The body of its plans; they were compiled alike, any of them encodes for all.
    pub fn body(&self, id: BodyId) -> Option<&Arc<Body>> {
        Some(&self.bodies.get(id)?.as_ref()?.body)
    }

    pub fn plans(&self) -> impl Iterator<Item = &Entry> {
        self.plans.iter().flatten()
    }

    pub fn subscribers(&self) -> impl Iterator<Item = (SubId, &Subscriber)> {
        self.subscribers.iter().map(|(id, subscriber)| (*id, subscriber))
    }

    pub fn subscriber(&self, id: SubId) -> Option<&Subscriber> {
        self.subscribers.get(&id)
    }

    /// Whose token has ended at `now` (seconds since 1970).
    pub fn expired(&self, now: i64) -> Vec<SubId> {
        self.expiries.range(..=(now, SubId::MAX)).map(|(_, id)| *id).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.subscribers.is_empty()
    }
}

impl Entry {
    fn group(&mut self, encoder_id: EncoderId, request: &Request, key: &Option<Key>) -> usize {
        self.events = self.events.with(request.events);
        let same = |groups: &[Group], at: &usize| {
            groups[*at].encoder_id == encoder_id && groups[*at].events == request.events
        };
        let siblings = match key {
            Some(key) => self.by_key.entry(key.clone()).or_default(),
            None => &mut self.open,
        };
        if let Some(at) = siblings.iter().find(|at| same(&self.groups, at)) {
            return *at;
        }
        self.groups.push(Group {
            encoder: request.encoder.clone(),
            encoder_id,
            events: request.events,
            key: key.clone(),
            seats: Vec::new(),
        });
        siblings.push(self.groups.len() - 1);
        self.groups.len() - 1
    }

    pub fn listeners(&self) -> usize {
        self.listeners
    }

    /// Everyone who listens.
    pub(super) fn subscribers(&self) -> Vec<SubId> {
        self.groups.iter().flat_map(|group| &group.seats).map(|seat| seat.subscriber).collect()
    }
}

fn place<T>(slots: &mut Vec<Option<T>>, free: &mut Vec<usize>, value: T) -> usize {
    match free.pop() {
        Some(at) => {
            slots[at] = Some(value);
            at
        }
        None => {
            slots.push(Some(value));
            slots.len() - 1
        }
    }
}
