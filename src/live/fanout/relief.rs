//! Who makes room where too much of one commit waits: those for whom most of it does.

use std::sync::Arc;

use crate::live::outbox::Outbox;
use crate::live::registry::Registry;

use super::Fanout;

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

    /// Ends outboxes, those first in which most of the commit waits, until an eighth of what may be
    /// held is free: all of them are looked at, so that must not be for every plan. Of equals those
    /// that came first.
    fn relieve(&mut self, registry: &Registry, position: u64) {
        let waits = |outbox: &Arc<Outbox>| outbox.waiting_of(position);
        let mut slow: Vec<_> = registry
            .subscribers()
            .map(|(id, subscriber)| (waits(&subscriber.outbox), id, &subscriber.outbox))
            .filter(|(bytes, ..)| *bytes > 0)
            .collect();
        slow.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let most = self.most_bytes - self.most_bytes / 8;
        let mut slow = slow.into_iter();
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
