//! What a plan's listeners are told, put into their outboxes.

use crate::live::outbox::{self, Batch, Offer};
use crate::live::registry::Group;

use super::{Fanout, Late, Lists, Told, find};

impl Fanout {
    /// Tells each group what concerns it.
    pub(super) fn tell_groups(&mut self, told: &Told<'_>, lists: &mut [Lists; 2]) {
        // The writes of all groups together: there may be one for each user. But of one plan alone,
        // as what is staged is locked, and the next plan may have to flush.
        let together = self.at_once && !self.light && is_for_many(told);
        let mut carrier = self.carrier.take_if(|_| together);
        let mut batch = carrier.as_deref_mut().map(|carrier| Batch::new(Some(carrier)));
        self.each_group(told, lists, |fanout, group, lists| {
            fanout.tell_group(group, told, lists, batch.as_mut());
            true
        });
        drop(batch);
        if together {
            self.carrier = carrier;
        }
    }

    fn tell_group<'a>(
        &mut self,
        group: &'a Group,
        told: &Told<'_>,
        lists: &Lists,
        batch: Option<&mut Batch<'a>>,
    ) {
        let Told { body, commit, .. } = *told;
        self.list(group, lists);
        let Some((last, others)) = self.messages.split_last() else { return };
        let encoder = &*group.encoder;
        for message in others {
            self.offered.push(self.frames.plain(*message, encoder, &self.bodies, body));
        }
        let frame = match group.mode.cursors {
            None => self.frames.plain(*last, encoder, &self.bodies, body),
            Some(grant) => {
                let cursor = (&mut self.cursors, commit, grant);
                self.frames.last(*last, encoder, &self.bodies, body, cursor)
            }
        };
        self.offered.push(frame);
        self.offer(group, commit.position, batch);
        self.offered.clear();
    }

    fn offer<'a>(&mut self, group: &'a Group, position: u64, mut batch: Option<&mut Batch<'a>>) {
        self.spoke = true;
        let frames = &self.offered[..];
        let bytes = outbox::size(frames);
        if let Some(batch) = &mut batch {
            batch.tell(position, frames);
        }
        for seat in &group.seats {
            if position <= seat.told.get() {
                continue;
            }
            if group.mode.cursors.is_some() {
                seat.told.set(position);
                seat.owed.set(false);
            }
            let offer = match (self.light, self.at_once, &mut batch) {
                (true, ..) => seat.outbox.send_now(position, frames, bytes),
                (false, true, Some(batch)) => Some(batch.send(&seat.outbox)),
                (false, true, None) => Some(seat.outbox.send(position, frames, bytes)),
                (false, false, _) => Some(seat.outbox.offer_sized(position, frames, bytes)),
            };
            let Some(offer) = offer else {
                self.late.push(Late::new(&seat.outbox, position, frames));
                continue;
            };
            match offer {
                Offer::Due => self.due.push(seat.outbox.clone()),
                Offer::Overflowed => {
                    tracing::info!(subscription = seat.subscriber, "a reader is too slow: closed");
                    self.gone.push(seat.subscriber);
                }
                Offer::Ended => self.gone.push(seat.subscriber),
                Offer::Taken => {}
            }
        }
    }
}

/// Whether so many hear of it that their writes are made together.
fn is_for_many(told: &Told<'_>) -> bool {
    let Told { entry, commit, hits, .. } = *told;
    let mut seats = 0;
    let mut many = |group: &Group| {
        seats += group.seats.len();
        seats > outbox::FEW
    };
    let keys = hits.iter().filter(|_| entry.has_keyed());
    let mut keys = keys.filter_map(|hit| find::key(commit, hit));
    entry.open().any(&mut many) || keys.any(|key| entry.keyed(&key).any(&mut many))
}
