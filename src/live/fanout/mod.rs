//! A commit's messages: matched, encoded once, shared, offered.
//!
//! Everything here is per plan, per projection or per encoder; per subscriber there is one offer
//! of frames that exist already.

mod bodies;
mod failure;
mod find;
mod frames;
mod light;
mod offer;
mod relief;

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use crate::limits::Limits;
use crate::model::change::Commit;
use crate::model::related::Key;
use crate::model::schema::SchemaId;
use crate::query::Body;

use super::message::Event;
use super::outbox::{self, Carrier, Frame, Outbox};
use super::registry::{Entry, Group, PlanId, Registry};
use super::subscription::SubId;

use bodies::Bodies;
pub use failure::{Failure, Fault};
use find::Found;
use frames::{Cursors, Form, Frames, KEPT, Most};
use light::Tried;
pub use light::{Late, is_little};
use relief::Room;

/// Working memory, kept from commit to commit.
pub struct Fanout {
    most: Most,
    /// Of a commit's records as one body shows them; and of all its frames that may be held at
    /// once, but for those of one plan.
    most_bytes: usize,
    room: Room,
    upto: Option<Key>,
    /// Whether it is told whom the time goes to that plans take.
    metered: bool,
    at_once: bool,
    candidates: Vec<PlanId>,
    /// The plans whose turn it is: all, unless a commit concerns so many in so many ways that what
    /// is found would take too much memory.
    turn: Range<PlanId>,
    found: Vec<Found>,
    /// How much may be found.
    most_found: usize,
    bodies: Bodies,
    frames: Frames,
    cursors: Cursors,
    /// What one group is told, and offered.
    messages: Vec<usize>,
    offered: Vec<Frame>,
    /// What a plan is concerned by, and one record of it.
    lists: [Lists; 2],
    /// By plan: a commit may fail every plan that reads through some relation.
    failed: BTreeSet<Failure>,
    /// Whose outbox has ended: nothing is told to them any more, though their connections may last.
    gone: Vec<SubId>,
    /// Outboxes that have something to write, each once.
    due: Vec<Arc<Outbox>>,
    /// See [`Fanout::tell_light`].
    light: bool,
    late: Vec<Late>,
    /// What [`Fanout::tell_light`] left to [`Fanout::tell`], which goes on from there.
    tried: Option<Tried>,
    /// How often it was looked whom a commit concerns.
    #[cfg(test)]
    pub(super) finds: usize,
    /// Schemas whose commits are not told so for a while, and how many of them.
    spared: HashMap<SchemaId, u32>,
    /// Makes the writes to many sockets at once.
    carrier: Option<Box<dyn Carrier>>,
    /// Whether the commit that is being told had anything to tell so far.
    spoke: bool,
    /// Those of this round that had.
    commits: usize,
}

const ALL: Range<PlanId> = 0..PlanId::MAX;

/// Indexes of changes, by how they are told.
#[derive(Default)]
struct Lists([Vec<usize>; 8]);

/// A list, and the event that tells it.
type Part = (Event, usize);

/// The list of records that were not there before.
const HIDDEN: usize = 7;

const PLAIN: [Part; 3] = [(Event::Create, 0), (Event::Update, 1), (Event::Delete, 2)];
/// Where updates name what they changed.
const NAMED: [Part; 4] =
    [(Event::Create, 0), (Event::Update, 6), (Event::Update, HIDDEN), (Event::Delete, 2)];
const TRANSITIONS: [Part; 5] = [
    (Event::Create, 0),
    (Event::Leave, 3),
    (Event::Update, 4),
    (Event::Enter, 5),
    (Event::Delete, 2),
];

/// A plan, and what of a commit concerns it.
#[derive(Clone, Copy)]
struct Told<'a> {
    entry: &'a Entry,
    body: &'a Body,
    commit: &'a Commit,
    hits: &'a [Found],
    /// Who of its listeners has failed.
    failed: &'a [Failure],
}

impl Lists {
    fn clear(&mut self) {
        self.0.iter_mut().for_each(Vec::clear);
    }

    fn add(&mut self, found: &Found) {
        let Lists([creates, updates, deletes, leaves, stays, enters, known, hidden]) = self;
        if found.plain && matches!(found.event, Event::Update | Event::Enter) {
            updates.push(found.change);
            if found.hidden { hidden } else { known }.push(found.change);
        }
        match found.event {
            Event::Create => creates,
            Event::Update => stays,
            Event::Delete => deletes,
            Event::Leave => leaves,
            Event::Enter => enters,
        }
        .push(found.change);
    }
}

impl Fanout {
    pub fn new(limits: &Limits) -> Self {
        Fanout {
            most: Most { records: limits.message_records.max(1), bytes: limits.frame_bytes },
            most_bytes: limits.tail_bytes,
            room: Room::new(limits),
            upto: None,
            metered: false,
            at_once: false,
            candidates: Vec::new(),
            turn: ALL,
            found: Vec::new(),
            most_found: 0,
            bodies: Bodies::default(),
            frames: Frames::default(),
            cursors: Cursors::default(),
            messages: Vec::new(),
            offered: Vec::new(),
            lists: Default::default(),
            failed: BTreeSet::new(),
            gone: Vec::new(),
            due: Vec::new(),
            light: false,
            late: Vec::new(),
            tried: None,
            #[cfg(test)]
            finds: 0,
            spared: HashMap::new(),
            spoke: false,
            commits: 0,
            carrier: None,
        }
    }

    /// The same, which counts what it does for whom (see [`Registry::payers`]).
    pub fn metered(self) -> Self {
        Fanout { metered: true, ..self }
    }

    /// From now on the writes to many sockets are made by this one, together.
    pub fn carry_with(&mut self, carrier: Box<dyn Carrier>) {
        self.carrier = Some(carrier);
    }

    /// From now on only records are told whose primary key is at most this one.
    pub fn up_to(&mut self, key: Option<Key>) {
        self.upto = key;
    }

    /// Whether what is told is written as it is told: of a commit that no other waits behind.
    pub fn at_once(&mut self, at_once: bool) {
        self.at_once = at_once;
    }

    /// Writes what was told, each socket's frames together.
    ///
    /// Of several commits without the carrier: who has fallen behind shall put more of them into
    /// each write, and not be held in the kernel for many sockets while the writer waits for a
    /// core. On two of them an overloaded broadcast reached half the rate with it.
    pub fn flush(&mut self) {
        self.write();
        self.commits = 0;
    }

    fn write(&mut self) {
        // The one that is being told is not counted yet.
        let commits = self.commits + usize::from(self.spoke);
        let carrier = self.carrier.as_deref_mut().filter(|_| commits <= 1);
        outbox::flush(&mut self.due, carrier);
    }

    /// Tells every subscriber its messages of this commit: they are in its outbox then, and are
    /// written with the next [`Fanout::flush`]. Gives those that cannot be told: what they should
    /// have heard is unknown.
    pub fn tell(&mut self, registry: &Registry, commit: &Commit) -> Vec<Failure> {
        self.turn = ALL;
        self.spoke = false;
        let mut found = self.has_found(registry, commit);
        if self.room.is_over() {
            self.make_room(registry);
        }
        loop {
            if !std::mem::take(&mut found) {
                self.find(registry, commit);
            }
            self.tell_found(registry, commit);
            if self.turn.end == ALL.end {
                break;
            }
            self.turn = self.turn.end..ALL.end;
        }
        self.commits += usize::from(std::mem::take(&mut self.spoke));
        self.told()
    }

    fn tell_found(&mut self, registry: &Registry, commit: &Commit) {
        let found = std::mem::take(&mut self.found);
        for run in found.chunk_by(|a, b| a.body == b.body) {
            self.tell_body(registry, commit, run);
        }
        self.found = found;
        self.found.clear();
    }

    /// A commit's end.
    fn told(&mut self) -> Vec<Failure> {
        self.found.shrink_to(KEPT);
        self.frames.end();
        self.cursors.start();
        self.bodies.end(self.most.bytes);
        std::mem::take(&mut self.failed).into_iter().collect()
    }

    /// Subscriptions that ended by themselves, as was found while telling.
    pub fn take_gone(&mut self) -> Vec<SubId> {
        std::mem::take(&mut self.gone)
    }

    /// Lets go of working memory but for a little. Between two commits.
    pub fn rest(&mut self) {
        const LITTLE: usize = 16;
        self.found.shrink_to(LITTLE);
        self.candidates.shrink_to(LITTLE);
        self.messages.shrink_to(LITTLE);
        self.offered.shrink_to(LITTLE);
        self.lists.iter_mut().flat_map(|lists| &mut lists.0).for_each(|list| {
            list.clear();
            list.shrink_to(LITTLE);
        });
        self.frames.rest(LITTLE);
        self.bodies.rest(LITTLE);
    }

    /// Tells the plans that show the same of a record.
    fn tell_body(&mut self, registry: &Registry, commit: &Commit, run: &[Found]) {
        let Some(body) = registry.body(run[0].body) else { return };
        self.bodies.start(find::changes(commit));
        self.frames.start();
        let most = match self.encode(body, commit, run) {
            Ok(most) => most,
            Err(fault) => return run.iter().for_each(|found| self.fail_all(found.plan, fault)),
        };
        for hits in run.chunk_by(|a, b| a.plan == b.plan) {
            if hits.len() > most {
                self.fail_all(hits[0].plan, Fault::TooMuch);
            } else if let Some(entry) = registry.plan(hits[0].plan) {
                self.tell_plan(registry, entry, body, commit, hits);
            }
        }
    }

    fn tell_plan(
        &mut self,
        registry: &Registry,
        entry: &Entry,
        body: &Body,
        commit: &Commit,
        hits: &[Found],
    ) {
        let plan = hits[0].plan;
        if entry.names_changes() {
            let schema = &entry.plan.schema;
            let automatic = schema.updated_at.map(|slot| &*schema.columns[slot].name);
            let updates =
                hits.iter().filter(|hit| matches!(hit.event, Event::Update | Event::Enter));
            for Found { change, hidden, .. } in updates {
                if !self.bodies.compare(body, commit, *change, *hidden, automatic) {
                    return self.fail_all(plan, Fault::Failed);
                }
            }
        }
        // All of a group hear of the commit, or none.
        let failed = self.failures(plan);
        let mut lists = std::mem::take(&mut self.lists);
        let told = Told { entry, body, commit, hits, failed: &failed };
        // All of a plan are told, or none. Looking who holds the frames lets go of some: whom there
        // are frames for does not need it.
        let over = self.frames.over(self.most_bytes)
            && !self.each_group(&told, &mut lists, Fanout::has_frames)
            && self.is_over(registry, commit.position);
        if over {
            self.fail_all(plan, Fault::TooMuch);
        } else {
            self.tell_groups(&told, &mut lists);
        }
        self.lists = lists;
    }

    /// Does `each` with each group that is told something, and what that is, until one gives
    /// `false`.
    fn each_group<'a>(
        &mut self,
        told: &Told<'a>,
        [all, one]: &mut [Lists; 2],
        mut each: impl FnMut(&mut Fanout, &'a Group, &Lists) -> bool,
    ) -> bool {
        let Told { entry, commit, hits, failed, .. } = *told;
        let spared = |group: &Group| failed.iter().any(|failure| failure.concerns(group));
        all.clear();
        hits.iter().for_each(|hit| all.add(hit));
        for group in entry.open() {
            if !spared(group) && !each(self, group, all) {
                return false;
            }
        }
        if entry.has_keyed() {
            for hit in hits {
                let Some(key) = find::key(commit, hit) else { continue };
                one.clear();
                one.add(hit);
                for group in entry.keyed(&key) {
                    if !spared(group) && !each(self, group, one) {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Fills `messages` with what a group is told.
    fn list(&mut self, group: &Group, lists: &Lists) {
        let parts: &[Part] = match (group.mode.transitions, group.mode.changes) {
            (true, _) => &TRANSITIONS,
            (false, false) => &PLAIN,
            (false, true) => &NAMED,
        };
        self.messages.clear();
        for &(event, list) in parts {
            let changes = &lists.0[list];
            if changes.is_empty() || !group.events.has(event) {
                continue;
            }
            let form = Form {
                encoder: group.encoder_id,
                event,
                single: group.key.is_some(),
                named: group.mode.changes && event == Event::Update,
                hidden: list == HIDDEN,
            };
            self.frames.messages(form, changes, &self.bodies, self.most, &mut self.messages);
        }
    }

    /// Whether all that a group is told is encoded already.
    fn has_frames(&mut self, group: &Group, lists: &Lists) -> bool {
        self.list(group, lists);
        self.frames.has(&self.messages, group.mode.cursors)
    }
}
