//! All commits, one after the other, in log order; see `live::helm` for who does it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::change::{Commit, Notice};
use crate::model::cursor::Cursor;
use crate::model::schema::SchemaId;
use crate::nice;
use crate::query::Plans;
use crate::store::Mark;

use super::fanout::{self, Failure, Fanout, Late};
use super::gap::Gaps;
use super::message::Encode;
use super::outbox::{Close, Frame, Outbox};
use super::positions::Place;
use super::recent::Recent;
use super::registry::{Listener, Mode, Registry, Tally};
use super::regrant;
use super::round::Round;
use super::source::Source;
use super::subscription::{Attach, Command, Joined, Principals, Stats, SubId};
use super::tail::{Item, Queue};
use super::wanted::Wanted;

/// Tokens are compared with the clock this often.
const TICK: Duration = Duration::from_millis(500);

/// How many principals the statistics name.
const SPENDERS: usize = 10;

pub(super) struct Matcher {
    pub(super) queue: Arc<Queue>,
    pub(super) source: Arc<dyn Source>,
    pub(super) registry: Registry,
    /// The catalog at the present place in the log.
    pub(super) catalog: Arc<Catalog>,
    pub(super) principals: Arc<dyn Principals>,
    pub(super) plans: Arc<Plans>,
    pub(super) wanted: Arc<Wanted>,
    pub(super) limits: Arc<Limits>,
    /// The last entry that was told.
    pub(super) mark: Mark,
    pub(super) recent: Arc<Recent>,
    pub(super) gaps: Gaps,
    /// Compiled under a catalog that the matcher has yet to reach.
    parked: Vec<Attach>,
    pub(super) fanout: Fanout,
    /// When tokens are looked at next, and who is owed a position; and when all positions are told.
    tick: Instant,
    pub(super) positions: Instant,
    /// How far they have been told, where some have and some have not.
    pub(super) passing: Option<Place>,
    /// Who is active, and is to be told so once nothing waits for it.
    pub(super) owing: VecDeque<SubId>,
    /// How many of them are looked at this time.
    pub(super) owing_due: usize,
}

impl Matcher {
    /// Begins behind the newest entry. Blocks while the source is asked.
    pub(super) fn new(
        queue: Arc<Queue>,
        source: Arc<dyn Source>,
        principals: Arc<dyn Principals>,
        plans: Arc<Plans>,
        wanted: Arc<Wanted>,
        limits: Arc<Limits>,
    ) -> Result<Self> {
        let mark = source.newest()?;
        // Asked for after the entry: it may know later ones, but none that it knows is missed.
        let catalog = source.catalog();
        Ok(Matcher {
            fanout: Fanout::new(&limits).metered(),
            queue,
            registry: Registry::default(),
            recent: Recent::new(limits.recent_bytes, mark.position, catalog.version),
            catalog,
            source,
            principals,
            plans,
            wanted,
            mark,
            gaps: Gaps::default(),
            tick: Instant::now() + TICK,
            positions: Instant::now() + limits.ping_every,
            passing: None,
            owing: VecDeque::new(),
            owing_due: 0,
            limits,
            parked: Vec::new(),
        })
    }

    /// Does what waits first, if anything does, and what the clock asks for; `false` when told to
    /// stop.
    pub(super) fn step(&mut self) -> bool {
        match self.queue.pop() {
            Some(Item::Commit(commit)) => self.round(commit),
            Some(Item::Missed(missed)) => self.refill(missed),
            Some(Item::Late(late)) => self.catch_up(late),
            Some(Item::Command(Command::Stop)) => return false,
            Some(Item::Command(command)) => self.command(command),
            None => {}
        }
        self.clockwork();
        true
    }

    /// Tells this commit, and those that wait behind it, and writes them.
    fn round(&mut self, first: Arc<Commit>) {
        let mut round = Round::new();
        round.takes(&first);
        // Whether another waits is looked at once: who keeps up is alone here, and written at once.
        let alone = !self.queue.has_commit();
        let light = if alone { self.lone(&first) } else { None };
        if fanout::is_little(&first) {
            self.queue.set_light(light.is_some());
        }
        if let Some(late) = light {
            return self.catch_up(late);
        }
        self.fanout.at_once(alone);
        let mut next = Some(first);
        while let Some(commit) = next {
            nice::by_turns(|| self.commit(&commit));
            self.fanout.at_once(false);
            next = self.queue.pop_commit(|commit| round.takes(commit));
        }
        self.flush();
    }

    /// Tells and writes this commit, which no other waits behind, if it concerns few and does
    /// nothing but tell: that takes some microseconds, waits for nobody, and leaves what would for
    /// [`Matcher::catch_up`], which comes next then. `None`: nothing was done.
    pub(super) fn lone(&mut self, commit: &Arc<Commit>) -> Option<Vec<Late>> {
        if commit.position <= self.mark.position || regrant::concerned(self, commit) {
            return None;
        }
        let mut late = Vec::new();
        if !self.registry.is_empty() {
            let failures;
            (failures, late) = self.fanout.tell_light(&self.registry, commit)?;
            for failure in failures {
                self.fail(failure);
            }
        }
        self.told(commit);
        self.recent.push(commit);
        Some(late)
    }

    /// Offers and writes what was left of a lone commit.
    fn catch_up(&mut self, late: Vec<Late>) {
        if !late.is_empty() {
            self.fanout.catch_up(late);
        }
    }

    /// Writes what was told; see [`Matcher::commit`].
    pub(super) fn flush(&mut self) {
        self.fanout.flush();
    }

    /// When the clock asks for something next.
    pub(super) fn due(&self) -> Instant {
        match self.passing.is_some() || self.owing_due > 0 {
            true => Instant::now(),
            false => self.tick.min(self.positions),
        }
    }

    /// What is done by the clock.
    pub(super) fn clockwork(&mut self) {
        let now = Instant::now();
        if now >= self.tick {
            self.expire();
            self.gaps.tidy();
            self.owed();
            self.tick = now + TICK;
        } else if self.owing_due > 0 {
            self.owed_some();
        }
        self.positions_by(now);
    }

    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Attach(attach) => self.attach(*attach),
            Command::Detach(id, _) => {
                self.registry.detach(id);
                self.parked.retain(|attach| attach.id != id);
            }
            Command::CloseAll(close) => {
                self.close_all(&close);
                // Nor does anybody come in behind it: whoever waits hears that nobody answers.
                self.parked.clear();
            }
            Command::Stats(answer) => {
                let _ = answer.send(self.stats());
            }
            Command::Stop => {}
        }
    }

    /// Makes a subscription active at this place, with the principal and the plan that hold here.
    pub(super) fn attach(&mut self, mut attach: Attach) {
        let compiled_under = attach.plan.catalog.version;
        if compiled_under > self.catalog.version {
            self.parked.push(attach);
            return;
        }
        let Some(principal) = regrant::present(&*self.principals, &attach.request.principal) else {
            let _ = attach.answer.send(Err(regrant::ended()));
            return;
        };
        if principal != attach.request.principal || compiled_under < self.catalog.version {
            match regrant::compile(self, &attach.request, &principal) {
                // What a replay told was told under the other grant.
                Ok((plan, _)) if attach.told.is_some() && plan.grant != attach.plan.grant => {
                    let _ = attach.answer.send(Err(regrant::regranted()));
                    return;
                }
                Ok((plan, hold)) => (attach.plan, attach.hold) = (plan, hold),
                Err(error) => {
                    let _ = attach.answer.send(Err(error));
                    return;
                }
            }
            attach.request.principal = principal;
        }
        if !self.join(&attach) {
            let _ = attach.answer.send(Ok(Joined::Behind));
            return;
        }
        let active = attach.told.filter(|told| told.position > self.mark.position);
        let active = active.unwrap_or(self.mark);
        let Attach { id, request, plan, key, hold, outbox, answer, .. } = attach;
        let mode = Mode::of(&request, &plan);
        let mut owed = false;
        if let Some(grant) = mode.cursors {
            // Behind what else waits it comes at a tick, or with a round of positions.
            owed = !outbox.offer_idle(&position(&*request.encoder, active, grant));
            outbox.set_active(Cursor { position: active.position, stamp: active.stamp, grant });
        }
        let told = active.position;
        self.registry.attach(id, Listener { request, plan, key, mode, hold, outbox, told });
        if owed {
            self.registry.owe(id);
            self.owing.push_back(id);
        }
        // If nobody waits any more the detach is on its way.
        let _ = answer.send(Ok(Joined::Active(active)));
    }

    /// Tells a replayed subscription what came between its replay and this place; `false` where
    /// that is too much, no longer known here, or cannot be told.
    fn join(&mut self, attach: &Attach) -> bool {
        let Some(told) = attach.told.filter(|told| told.position < self.mark.position) else {
            return true;
        };
        let upto = self.mark.position;
        let gap = self.gaps.between(&self.limits, &self.recent, attach, told.position, upto);
        let Some(gap) = gap else { return false };
        let (mut frames, mut bytes) = attach.outbox.waiting();
        for (_, told) in gap {
            frames += told.len();
            bytes += told.iter().map(|frame| frame.bytes.len()).sum::<usize>();
        }
        // The live stream's next messages need room too.
        if frames > self.limits.outbox_frames / 2 || bytes > self.limits.outbox_bytes / 2 {
            return false;
        }
        for (position, told) in gap {
            attach.outbox.offer(*position, told);
        }
        attach.outbox.flush();
        true
    }

    /// One entry: first what it does to the subscriptions, then what it tells them, unless it was
    /// told before. Without notices (as the log gives them back) it is whoever reads it that has
    /// seen to the catalog and the principals. Sockets are written with [`Matcher::flush`].
    pub(super) fn commit(&mut self, commit: &Arc<Commit>) {
        let mut catalog = false;
        for notice in &commit.notices {
            match notice {
                Notice::Catalog { catalog: new, broken } => {
                    catalog = true;
                    self.new_catalog(new, broken);
                }
                Notice::Session { user, .. } => regrant::user(self, *user),
            }
        }
        regrant::changes(self, commit);
        if commit.position <= self.mark.position {
            return;
        }
        if !self.registry.is_empty() {
            for failure in self.fanout.tell(&self.registry, commit) {
                self.fail(failure);
            }
        }
        self.told(commit);
        if catalog {
            self.forget();
            self.unpark();
        } else {
            self.recent.push(commit);
        }
    }

    fn told(&mut self, commit: &Commit) {
        for id in self.fanout.take_gone() {
            self.registry.detach(id);
        }
        let Commit { position, stamp, time, .. } = *commit;
        self.mark = Mark { position, stamp, time };
    }

    /// What is kept of the commits up to here is of no use any more.
    pub(super) fn forget(&mut self) {
        self.recent.clear(self.mark.position, self.catalog.version);
        self.gaps.clear();
    }

    /// Those that waited for a catalog: it may be there.
    pub(super) fn unpark(&mut self) {
        for attach in std::mem::take(&mut self.parked) {
            self.attach(attach);
        }
    }

    fn fail(&mut self, failure: Failure) {
        let Some(entry) = self.registry.plan(failure.plan) else { return };
        let error = failure.error(&entry.plan.schema.name);
        for subscriber in entry.subscribers(|group| failure.concerns(group)) {
            self.end(subscriber, &error);
        }
    }

    pub(super) fn new_catalog(&mut self, catalog: &Arc<Catalog>, broken: &[SchemaId]) {
        // At start the queue may hold entries that the first catalog already knows.
        if catalog.version <= self.catalog.version {
            return;
        }
        let old = std::mem::replace(&mut self.catalog, catalog.clone());
        regrant::catalog(self, &old, broken);
    }

    fn expire(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        for id in self.registry.expired(i64::try_from(now).unwrap_or(i64::MAX)) {
            self.end(id, &Error::unauthorized("the token has expired"));
        }
    }

    /// Ends one subscription after what waits for it.
    pub(super) fn end(&mut self, id: SubId, error: &Error) {
        if let Some(subscriber) = self.registry.detach(id) {
            subscriber.outbox.close(subscriber.request.encoder.close(error));
        }
    }

    pub(super) fn close_all(&mut self, close: &Close) {
        let all: Vec<SubId> = self.registry.subscribers().map(|(id, _)| id).collect();
        for id in all {
            if let Some(subscriber) = self.registry.detach(id) {
                subscriber.outbox.close(close.clone());
            }
        }
    }

    /// And whom to ask for what waits: that is not done here, where everybody would wait.
    fn stats(&self) -> (Stats, Vec<Arc<Outbox>>) {
        let mut stats = Stats { plans: self.registry.plan_count(), ..Stats::default() };
        for Tally { name, listeners, scanned } in self.registry.tallies() {
            stats.by_schema.push((name.clone(), listeners));
            if scanned > 0 {
                stats.scanned.push((name.clone(), scanned));
            }
        }
        stats.by_schema.sort();
        stats.scanned.sort();
        let all = self.registry.subscribers();
        let outboxes: Vec<_> = all.map(|(_, subscriber)| subscriber.outbox.clone()).collect();
        stats.subscriptions = outboxes.len();
        let payers = self.registry.payers();
        (stats.spenders, stats.shared) = (payers.top(SPENDERS), payers.shared());
        (stats.behind_commits, stats.behind_bytes) = self.queue.waiting();
        (stats, outboxes)
    }
}

/// A message that says where the stream stands.
pub(super) fn position(encoder: &dyn Encode, mark: Mark, grant: u64) -> Frame {
    let cursor = Cursor { position: mark.position, stamp: mark.stamp, grant };
    Frame::new(encoder.position(&cursor.to_string()), Some(cursor))
}
