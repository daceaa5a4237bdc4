//! One thread, all commits, in log order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::error::{Error, Kind};
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::change::{Commit, Notice};
use crate::model::schema::SchemaId;

use super::fanout::{Fanout, Fault};
use super::outbox::Close;
use super::registry::Registry;
use super::regrant;
use super::subscription::{Attach, Command, Principals, Stats, SubId};
use super::tail::{Item, Queue};
use super::wanted::Wanted;

/// Tokens are compared with the clock this often.
const TICK: Duration = Duration::from_millis(500);

pub(super) struct Matcher {
    queue: Arc<Queue>,
    pub(super) registry: Registry,
    /// The catalog at the present place in the log.
    pub(super) catalog: Arc<Catalog>,
    pub(super) principals: Arc<dyn Principals>,
    pub(super) wanted: Arc<Wanted>,
    pub(super) limits: Arc<Limits>,
    /// Compiled under a catalog that the matcher has yet to reach.
    parked: Vec<Attach>,
    fanout: Fanout,
}

impl Matcher {
    pub(super) fn new(
        queue: Arc<Queue>,
        catalog: Arc<Catalog>,
        principals: Arc<dyn Principals>,
        wanted: Arc<Wanted>,
        limits: Arc<Limits>,
    ) -> Self {
        Matcher {
            fanout: Fanout::new(&limits),
            queue,
            registry: Registry::default(),
            catalog,
            principals,
            wanted,
            limits,
            parked: Vec::new(),
        }
    }

    /// Runs until stopped. A panic here leaves nobody who could be told the truth: the process
    /// ends, non-zero, at once.
    pub(super) fn run_or_abort(self) {
        if catch_unwind(AssertUnwindSafe(|| self.run())).is_err() {
            tracing::error!("the matcher panicked: ending the process");
            std::process::abort();
        }
    }

    fn run(mut self) {
        let mut tick = Instant::now() + TICK;
        loop {
            match self.queue.next(tick) {
                Some(Item::Commit(commit)) => self.commit(&commit),
                Some(Item::Overrun(catalog)) => self.overrun(catalog),
                Some(Item::Command(Command::Stop)) => return,
                Some(Item::Command(command)) => self.command(command),
                None => {}
            }
            if Instant::now() >= tick {
                self.expire();
                tick = Instant::now() + TICK;
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Attach(attach) => self.attach(*attach),
            Command::Detach(id) => {
                self.registry.detach(id);
                self.parked.retain(|attach| attach.id != id);
            }
            Command::CloseAll(close) => self.close_all(&close),
            Command::Stats(answer) => {
                let _ = answer.send(self.stats());
            }
            Command::Stop => {}
        }
    }

    /// Makes a subscription active at this place, with the principal and the plan that hold here.
    fn attach(&mut self, mut attach: Attach) {
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
            attach.request.principal = principal;
            let request = &attach.request;
            match regrant::compile(self, &request.ask, &request.principal) {
                Ok((plan, hold)) => (attach.plan, attach.hold) = (plan, hold),
                Err(error) => {
                    let _ = attach.answer.send(Err(error));
                    return;
                }
            }
        }
        self.registry.attach(
            attach.id,
            attach.request,
            attach.plan,
            attach.key,
            attach.hold,
            attach.outbox,
        );
        // If nobody waits any more the detach is on its way.
        let _ = attach.answer.send(Ok(()));
    }

    /// One entry: first what it does to the subscriptions, then what it tells them.
    pub(super) fn commit(&mut self, commit: &Commit) {
        for notice in &commit.notices {
            match notice {
                Notice::Catalog { catalog, broken } => self.new_catalog(catalog, broken),
                Notice::Session { user, .. } => regrant::user(self, *user),
            }
        }
        regrant::changes(self, commit);
        if self.registry.is_empty() {
            return;
        }
        for (id, fault) in self.fanout.tell(&self.registry, commit) {
            let Some(plan) = self.registry.plan(id) else { continue };
            let listeners = plan.subscribers();
            let name = &plan.plan.schema.name;
            let error = match fault {
                Fault::Failed => {
                    Error::internal(format!("a plan on {name} failed: its subscriptions end"))
                }
                // Between a change of access that made it need them and the writer's next job.
                Fault::Ungathered => {
                    Error::new(Kind::Gone, "access has changed meanwhile: subscribe again")
                }
            };
            listeners.into_iter().for_each(|subscriber| self.end(subscriber, &error));
        }
    }

    fn new_catalog(&mut self, catalog: &Arc<Catalog>, broken: &[SchemaId]) {
        // At start the queue may hold entries that the first catalog already knows.
        if catalog.version <= self.catalog.version {
            return;
        }
        let old = std::mem::replace(&mut self.catalog, catalog.clone());
        regrant::catalog(self, &old, broken);
        for attach in std::mem::take(&mut self.parked) {
            self.attach(attach);
        }
    }

    fn overrun(&mut self, catalog: Option<Arc<Catalog>>) {
        tracing::error!(
            "matching is more than {} bytes of commits behind: all subscriptions end",
            self.limits.tail_bytes
        );
        self.close_all(&Close::new(4408, "the server fell behind: subscribe again"));
        if let Some(catalog) = catalog {
            self.new_catalog(&catalog, &[]);
        }
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

    fn close_all(&mut self, close: &Close) {
        let all: Vec<SubId> = self.registry.subscribers().map(|(id, _)| id).collect();
        for id in all {
            if let Some(subscriber) = self.registry.detach(id) {
                subscriber.outbox.close(close.clone());
            }
        }
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats { plans: self.registry.plans().count(), ..Stats::default() };
        let mut by_schema = std::collections::BTreeMap::new();
        for plan in self.registry.plans() {
            *by_schema.entry(plan.plan.schema.name.clone()).or_default() += plan.listeners();
        }
        stats.by_schema = by_schema.into_iter().collect();
        for (_, subscriber) in self.registry.subscribers() {
            stats.subscriptions += 1;
            let (frames, bytes) = subscriber.outbox.waiting();
            stats.slowest_frames = stats.slowest_frames.max(frames);
            stats.slowest_bytes = stats.slowest_bytes.max(bytes);
        }
        (stats.behind_commits, stats.behind_bytes) = self.queue.waiting();
        stats
    }
}
