//! Who makes room where too much waits: those for whom most of it does.

use std::sync::Arc;

use crate::limits::Limits;
use crate::live::outbox::{self, Outbox};
use crate::live::registry::Registry;
use crate::live::subscription::SubId;

use super::Fanout;

/// How much may be left of all commits when the next one comes. Outboxes are bounded but for the
/// commit that each found nothing waiting before: with many commits that may be many.
pub(super) struct Room {
    most: usize,
    /// What an outbox may hold that has bounds.
    outbox: usize,
    /// Beyond this it is looked who holds what.
    look: usize,
}

impl Room {
    /// More than those who come back may take together, as nobody who is told now makes up for
    /// them.
    pub(super) fn new(limits: &Limits) -> Room {
        let most = limits.held_bytes().saturating_add(limits.tail_bytes);
        Room { most, outbox: limits.outbox_bytes, look: most }
    }

    pub(super) fn is_over(&mut self) -> bool {
        let held = outbox::held();
        if held <= self.most {
            self.look = self.most;
        }
        held > self.look
    }
}

impl Fanout {
    /// Whether so much of the commit's frames waits in outboxes that no more may be made. What
    /// sockets take at once does not count; where that is not enough, the slowest readers end, so
    /// that whoever reads is told.
    pub(super) fn is_over(&mut self, registry: &Registry, position: u64) -> bool {
        if self.frames.may_recount(self.most_bytes) {
            self.write();
            self.frames.recount();
            if self.frames.over(self.most_bytes) {
                self.relieve(registry, position);
            }
        }
        let over = self.frames.over(self.most_bytes);
        if over {
            self.frames.refuse();
        }
        over
    }

    /// Ends outboxes beyond their bounds, those first in which most waits, until an eighth of what
    /// may be held is free.
    pub(super) fn make_room(&mut self, registry: &Registry) {
        self.write();
        let Room { most, outbox: bound, .. } = self.room;
        let waits = |outbox: &Arc<Outbox>| outbox.waiting().1;
        for (_, subscription, outbox) in slowest(registry, bound, waits) {
            if outbox::held() <= most - most / 8 {
                break;
            }
            if outbox.overflow() {
                tracing::info!(subscription, "too much waits for slow readers: closed");
            }
        }
        // Where others hold it, looking is of no use before it has become more.
        self.room.look = most.max(outbox::held().saturating_add(most / 8));
    }

    /// Ends outboxes, those first in which most of the commit waits, until an eighth of what may be
    /// held is free: all of them are looked at, so that must not be for every plan.
    fn relieve(&mut self, registry: &Registry, position: u64) {
        let waits = |outbox: &Arc<Outbox>| outbox.waiting_of(position);
        let mut slow = slowest(registry, 0, waits).into_iter();
        let most = self.most_bytes - self.most_bytes / 8;
        let mut least = 1;
        while let Some(excess) = self.frames.excess(most) {
            let (mut ended, mut bytes) = (0, 0);
            for (_, subscription, outbox) in &mut slow {
                // Two subscriptions may have one outbox.
                let waited = waits(outbox);
                if outbox.overflow() {
                    tracing::info!(subscription, "too much waits for a slow reader: closed");
                    (ended, bytes) = (ended + 1, bytes + waited);
                    if ended >= least && bytes >= excess {
                        break;
                    }
                }
            }
            if ended == 0 {
                return;
            }
            self.frames.recount();
            // Where many hold the same, nothing is free before the last of them has gone.
            if self.frames.excess(most).is_some_and(|left| left > excess / 2) {
                least *= 2;
            }
        }
    }
}

/// Those for whom more than so many bytes wait, most first; of equals those that came first.
fn slowest(
    registry: &Registry,
    bytes: usize,
    waits: impl Fn(&Arc<Outbox>) -> usize,
) -> Vec<(usize, SubId, &Arc<Outbox>)> {
    let mut slow: Vec<_> = registry
        .subscribers()
        .map(|(id, subscriber)| (waits(&subscriber.outbox), id, &subscriber.outbox))
        .filter(|(waits, ..)| *waits > bytes)
        .collect();
    slow.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    slow
}
