//! What was sent to a server and what came from it, all its subscribers together.

use super::check::{Faults, Seen};
use super::record;
use super::stats::Histogram;
use super::subscriber::Listener;

/// Which server a connection leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Server,
    Floor,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Side::Server => "the server",
            Side::Floor => "the floor",
        })
    }
}

/// One server's.
#[derive(Default)]
pub struct Ledger {
    /// By class of subscribers. Empty where nobody can say who should get what: the floor's
    /// deliveries are only counted.
    pub classes: Vec<Class>,
    /// Deliveries that should come, and those that did, each once.
    pub due: u64,
    pub had: u64,
    /// Deliveries that cannot come any more, since their connection has ended.
    pub lost: u64,
    /// Everything counted but what is missing.
    pub faults: Faults,
    /// From the sending of the write to the reading of the frame.
    pub delivery: Histogram,
    /// From the sending of the write to its answer.
    pub written: Histogram,
    /// From the sending of a read to its answer.
    pub read: Histogram,
    /// Where it is asked for: when each write was answered, by when it was sent, ascending. For a
    /// writer alone.
    pub answers: Option<Vec<(u64, u64)>>,
    /// Then: from the reading of a write's answer to that of its frame; 0 where the frame came first.
    pub told: Histogram,
    /// Frames about records, and their bytes.
    pub frames: u64,
    pub bytes: u64,
    /// The first message about a record.
    pub sample: Vec<u8>,
    /// Why the first connection that ended did.
    pub ended: Option<String>,
}

/// Subscribers that should get the same.
#[derive(Default)]
pub struct Class {
    /// Sequence numbers, ascending.
    pub expected: Vec<u64>,
    pub members: u64,
}

impl Ledger {
    /// Forgets the counts, but not what everybody has had, nor faults that nobody has taken: they
    /// came while another server was written to.
    pub fn begin(&mut self) {
        let (classes, faults) = (std::mem::take(&mut self.classes), self.faults);
        let (sample, ended) = (std::mem::take(&mut self.sample), self.ended.take());
        *self = Ledger { classes, sample, ended, faults, ..Ledger::default() };
    }

    /// Whether all that should come has come, or cannot come any more.
    pub fn is_even(&self) -> bool {
        self.had + self.lost >= self.due
    }

    /// Notes that the write sent then was answered now.
    pub fn answer(&mut self, sent: u64, now: u64) {
        self.written.add(now.saturating_sub(sent));
        if let Some(answers) = &mut self.answers {
            answers.push((sent, now));
        }
    }

    /// Notes a frame of text that came to a subscriber at this time.
    pub fn frame(&mut self, listener: &mut Listener, message: &[u8], length: usize, now: u64) {
        let Some(told) = record::told(message) else { return };
        self.frames += 1;
        self.bytes += length as u64;
        let seen = match self.classes.get(listener.class as usize) {
            Some(class) => listener.order.take(&class.expected, told.sequence, told.id),
            None => listener.order.in_order(told.id),
        };
        self.faults.note(seen);
        if matches!(seen, Seen::Good | Seen::Late) {
            self.had += 1;
            self.delivery.add(now.saturating_sub(told.sent));
            if let Some(answers) = &self.answers {
                let answered = answers.binary_search_by_key(&told.sent, |(sent, _)| *sent);
                let answered = answered.ok().and_then(|place| answers.get(place));
                self.told.add(answered.map_or(0, |(_, answered)| now.saturating_sub(*answered)));
            }
        }
        if self.sample.is_empty() {
            self.sample = message.to_vec();
        }
    }

    /// Notes that a subscriber's connection has ended.
    pub fn end(&mut self, listener: &Listener, why: String) {
        self.faults.closed += 1;
        if let Some(class) = self.classes.get_mut(listener.class as usize) {
            self.lost += (class.expected.len() - listener.order.had()) as u64;
            class.members -= 1;
        }
        self.ended.get_or_insert(why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_between_two_stretches_is_not_forgotten() {
        let mut ledger = Ledger { due: 3, had: 3, ..Ledger::default() };
        ledger.faults.closed = 1;
        ledger.begin();
        assert_eq!((ledger.due, ledger.had, ledger.faults.closed), (0, 0, 1));
    }
}
