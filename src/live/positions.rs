//! Where the stream stands, told to those for whom nothing matched since their last cursor.
//!
//! There may be tens of thousands of them, each with a write of its own, so they are told some at
//! a time: commits, and whoever comes and goes, have their turn between.

use std::collections::HashMap;
use std::time::Instant;

use super::matcher::{Matcher, position};
use super::outbox::Frame;
use super::registry::{EncoderId, PlanId};
use super::subscription::SubId;

/// Seats that are looked at at a time: some 5 us each where it is told.
const SOME: usize = 256;

/// How far they have been told.
#[derive(Clone, Copy)]
pub(super) struct Place {
    plan: PlanId,
    group: usize,
    /// Seats of the group that are still to be told. It is the last that is told first: who leaves
    /// has its seat taken by the last, which so cannot be missed.
    left: usize,
}

const START: Place = Place { plan: 0, group: 0, left: usize::MAX };

impl Matcher {
    /// Tells some of them, if it is time to.
    pub(super) fn positions_by(&mut self, now: Instant) {
        if self.passing.is_none() {
            if now < self.positions {
                return;
            }
            self.positions = now + self.limits.ping_every;
        }
        self.positions();
    }

    /// Tells those who became active while something waited for them, if nothing does now: that
    /// this was all should not be told by the next ping. Some at a time; the others follow.
    pub(super) fn owed(&mut self) {
        self.owing_due = self.owing.len();
        self.owed_some();
    }

    pub(super) fn owed_some(&mut self) {
        let some = self.owing_due.min(SOME);
        self.owing_due -= some;
        let due: Vec<SubId> = self.owing.drain(..some).collect();
        for id in due {
            if self.still_owes(id) {
                self.owing.push_back(id);
            }
        }
    }

    fn still_owes(&self, id: SubId) -> bool {
        let Some((group, seat)) = self.registry.seat(id).filter(|(_, seat)| seat.owed.get()) else {
            return false;
        };
        let Some(grant) = group.mode.cursors else { return false };
        if seat.told.get() > self.mark.position {
            return true;
        }
        let told = seat.outbox.offer_idle(&position(&*group.encoder, self.mark, grant));
        if told {
            seat.told.set(self.mark.position);
            seat.owed.set(false);
        }
        !told
    }

    /// Gives some of them a fresh cursor, and the next ones when it is called again.
    pub(super) fn positions(&mut self) {
        let from = self.passing.take().unwrap_or(START);
        let mut looked = 0;
        // As many as there are grants: perhaps one for each user.
        let mut made: HashMap<(EncoderId, u64), Frame> = HashMap::new();
        for (plan, at, group) in self.registry.groups_with_cursors(from.plan, from.group) {
            let Some(grant) = group.mode.cursors else { continue };
            let all = group.seats.len();
            let left = if (plan, at) == (from.plan, from.group) { all.min(from.left) } else { all };
            for (before, seat) in group.seats[..left].iter().enumerate().rev() {
                if looked == SOME {
                    self.passing = Some(Place { plan, group: at, left: before + 1 });
                    return;
                }
                looked += 1;
                let told = seat.told.get();
                if told > self.mark.position || told == self.mark.position && !seat.owed.get() {
                    continue;
                }
                let frame = made
                    .entry((group.encoder_id, grant))
                    .or_insert_with(|| position(&*group.encoder, self.mark, grant));
                if seat.outbox.offer_idle(frame) {
                    seat.told.set(self.mark.position);
                    seat.owed.set(false);
                }
            }
        }
    }
}
