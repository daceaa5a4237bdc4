//! A plan and those who listen to it, in groups that get the same bytes.

use std::cell::Cell;
use std::sync::Arc;

use crate::live::index::Filed;
use crate::live::message::{Encode, Event, Events};
use crate::live::outbox::Outbox;
use crate::live::subscription::{Request, SubId};
use crate::live::table::Table;
use crate::model::related::Key;
use crate::query::Plan;

use super::payers::Audience;
use super::siblings::{Like, Siblings};
use super::slab::Slab;
use super::{BodyId, EncoderId, Mode, ReadingId};

/// Listeners of a plan who get the same bytes.
pub struct Group {
    pub(in crate::live) encoder: Arc<dyn Encode>,
    pub(in crate::live) encoder_id: EncoderId,
    pub(in crate::live) events: Events,
    pub(in crate::live) mode: Mode,
    /// The one record they want.
    pub(in crate::live) key: Option<Key>,
    pub(in crate::live) seats: Vec<Seat>,
    /// Its place among its siblings.
    place: usize,
}

pub struct Seat {
    pub(in crate::live) subscriber: SubId,
    pub(in crate::live) outbox: Arc<Outbox>,
    /// It hears no commit up to this position. With cursors: the position of its last one.
    pub(in crate::live) told: Cell<u64>,
    /// That position is still to be told: it came without a cursor.
    pub(in crate::live) owed: Cell<bool>,
}

/// A plan and its listeners.
pub struct Entry {
    pub(in crate::live) plan: Arc<Plan>,
    pub(in crate::live) body: BodyId,
    /// All events that some listener asked for.
    pub(in crate::live) events: Events,
    /// Groups that want each of them.
    wanted: [u32; 3],
    pub(super) groups: Slab<Group>,
    /// Groups with a `key`, by it; the others in `open`.
    pub(super) by_key: Table<Key, Siblings>,
    pub(super) open: Siblings,
    pub(super) listeners: usize,
    /// Of them, who is told transitions, and who is told which fields changed.
    pub(super) transitions: usize,
    pub(super) changes: usize,
    /// And who is sent cursors.
    pub(super) cursors: usize,
    /// Where the index has it: `None` while [`Entry::only_keyed`] holds.
    pub(super) filed: Option<Filed>,
    /// Where it reads through relations and has listeners who are told transitions.
    pub(in crate::live) reading: Option<ReadingId>,
    /// Who it is held against changes for.
    pub(in crate::live) audience: Audience,
}

impl Group {
    pub(super) fn like(&self) -> Like {
        (self.encoder_id, self.events, self.mode)
    }
}

impl Entry {
    /// A plan that nobody listens to yet.
    pub(super) fn new(plan: Arc<Plan>, body: BodyId) -> Self {
        Entry {
            plan,
            body,
            events: Events::NONE,
            wanted: [0; 3],
            groups: Slab::default(),
            by_key: Table::default(),
            open: Siblings::default(),
            listeners: 0,
            transitions: 0,
            changes: 0,
            cursors: 0,
            filed: None,
            reading: None,
            audience: Audience::default(),
        }
    }

    /// Gives a seat in the group of its like: (group, place in it).
    pub(super) fn seat(
        &mut self,
        encoder_id: EncoderId,
        request: &Request,
        mode: Mode,
        key: &Option<Key>,
        seat: Seat,
    ) -> (usize, usize) {
        self.listeners += 1;
        self.transitions += usize::from(mode.transitions);
        self.changes += usize::from(mode.changes);
        self.cursors += usize::from(mode.cursors.is_some());
        let siblings = match key {
            Some(key) => self.by_key.get_or_insert_with(key.clone(), Siblings::default),
            None => &mut self.open,
        };
        let like = (encoder_id, request.events, mode);
        if let Some(at) = siblings.find(&self.groups, &like)
            && let Some(group) = self.groups.get_mut(at)
        {
            group.seats.push(seat);
            return (at, group.seats.len() - 1);
        }
        let group = Group {
            encoder: request.encoder.clone(),
            encoder_id,
            events: request.events,
            mode,
            key: key.clone(),
            seats: vec![seat],
            place: siblings.next(),
        };
        let at = self.groups.add(group);
        siblings.add(&self.groups, at);
        self.want(request.events, |groups| groups + 1);
        (at, 0)
    }

    /// Counts anew who wants `events`.
    fn want(&mut self, events: Events, count: impl Fn(u32) -> u32) {
        self.events = Events::NONE;
        let all = [Event::Create, Event::Update, Event::Delete];
        for (event, groups) in all.into_iter().zip(&mut self.wanted) {
            if events.has(event) {
                *groups = count(*groups);
            }
            if *groups > 0 {
                self.events = self.events.with(Events::only(event));
            }
        }
    }

    /// Empties a seat; what was told there, and who sits there now instead, if anybody. A group
    /// ends with its last seat: records come and go while a plan stays.
    pub(super) fn unseat(&mut self, at: usize, seat: usize) -> (Option<Seat>, Option<SubId>) {
        let Some(group) = self.groups.get_mut(at) else { return (None, None) };
        let left = Some(group.seats.swap_remove(seat));
        self.listeners -= 1;
        self.transitions -= usize::from(group.mode.transitions);
        self.changes -= usize::from(group.mode.changes);
        self.cursors -= usize::from(group.mode.cursors.is_some());
        if !group.seats.is_empty() {
            return (left, group.seats.get(seat).map(|moved| moved.subscriber));
        }
        let Some(group) = self.groups.remove(at) else { return (left, None) };
        self.want(group.events, |groups| groups - 1);
        let (place, like) = (group.place, group.like());
        let mut moved = None;
        match &group.key {
            None => moved = self.open.remove(place, &like),
            Some(key) => {
                self.by_key.remove_if(key, |siblings| {
                    moved = siblings.remove(place, &like);
                    siblings.is_empty()
                });
            }
        }
        if let Some(moved) = moved.and_then(|moved| self.groups.get_mut(moved)) {
            moved.place = place;
        }
        (left, None)
    }

    /// The groups that want every record of the plan.
    pub(in crate::live) fn open(&self) -> impl Iterator<Item = &Group> {
        self.open.groups(&self.groups)
    }

    /// The groups that want this record alone.
    pub(in crate::live) fn keyed(&self, key: &Key) -> impl Iterator<Item = &Group> {
        let siblings = self.by_key.get(key).into_iter();
        siblings.flat_map(|siblings| siblings.groups(&self.groups))
    }

    /// Whether every group wants one record alone.
    pub(in crate::live) fn only_keyed(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether some group wants one record alone.
    pub(in crate::live) fn has_keyed(&self) -> bool {
        !self.by_key.is_empty()
    }

    /// Whether some listener is told transitions.
    pub(in crate::live) fn tells_transitions(&self) -> bool {
        self.transitions > 0
    }

    /// Whether some listener is told which fields changed.
    pub(in crate::live) fn names_changes(&self) -> bool {
        self.changes > 0
    }

    pub fn listeners(&self) -> usize {
        self.listeners
    }

    /// What they listen to.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Everyone in such groups.
    pub(in crate::live) fn subscribers(&self, such: impl Fn(&Group) -> bool) -> Vec<SubId> {
        let groups = self.groups.iter().filter(|(_, group)| such(group));
        groups.flat_map(|(_, group)| &group.seats).map(|seat| seat.subscriber).collect()
    }
}
