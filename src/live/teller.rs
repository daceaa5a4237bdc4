//! Commits told to one listener alone, away from the live stream: what a replay and a snapshot
//! are made of. The matching and the encoding are the live stream's own.

use std::sync::Arc;

use crate::error::Error;
use crate::limits::Limits;
use crate::model::change::Commit;
use crate::model::related::Key;
use crate::query::Plan;

use super::fanout::{Failure, Fanout};
use super::outbox::{Frame, Outbox};
use super::registry::{Listener, Mode, Registry};
use super::subscription::Request;

/// A registry of one, whose outbox collects.
pub struct Teller {
    registry: Registry,
    fanout: Fanout,
    outbox: Arc<Outbox>,
    schema: Arc<str>,
}

impl Teller {
    /// What `plan` shows of commits, as `request` wants it told. `key`: of this record alone.
    /// `mode` is mostly [`Mode::of`] the two; without cursors between the pages of a snapshot.
    pub fn new(
        limits: &Limits,
        request: &Request,
        plan: Arc<Plan>,
        key: Option<Key>,
        mode: Mode,
    ) -> Teller {
        let mut registry = Registry::default();
        let outbox = Outbox::collector();
        let schema = plan.schema.name.clone();
        let request = Request { ask: Default::default(), ..request.clone() };
        registry.attach(
            0,
            Listener { request, plan, key, mode, hold: None, outbox: outbox.clone(), told: 0 },
        );
        Teller { registry, fanout: Fanout::new(limits), outbox, schema }
    }

    /// Forgets what it told: any commit may be told next, of any record.
    pub fn start_over(&mut self) {
        self.fanout.up_to(None);
        self.outbox.take_all();
        for (_, _, group) in self.registry.groups_with_cursors(0, 0) {
            group.seats.iter().for_each(|seat| seat.told.set(0));
        }
    }

    /// From now on only records are told whose primary key is at most this one.
    pub fn up_to(&mut self, key: Option<Key>) {
        self.fanout.up_to(key);
    }

    /// Lets go of working memory: whoever waits may be many.
    pub fn rest(&mut self) {
        self.fanout.rest();
    }

    /// The frames of a commit; none where it tells the listener nothing. With cursors the last
    /// one has it.
    ///
    /// # Errors
    /// How a live subscription of this plan ends at such a commit; with what went wrong, as the
    /// matcher would have told it.
    pub fn tell(&mut self, commit: &Commit) -> Result<Vec<Frame>, (Failure, Error)> {
        let failed = self.fanout.tell(&self.registry, commit);
        let frames = self.outbox.take_all();
        match failed.into_iter().next() {
            None => Ok(frames),
            Some(failure) => {
                let error = failure.error(&self.schema);
                Err((failure, error))
            }
        }
    }
}
