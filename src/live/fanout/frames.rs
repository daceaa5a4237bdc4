//! Messages made of a commit's records, and the frames of those: each once per encoder.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::live::message::{Encode, Event, Message, Records};
use crate::live::outbox::Frame;
use crate::live::registry::EncoderId;
use crate::model::change::Commit;
use crate::model::cursor::Cursor;
use crate::query::Body;

use super::bodies::Bodies;

/// How the messages of one list of records are told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) encoder: EncoderId,
    pub(super) event: Event,
    /// For subscriptions to one record.
    pub(super) single: bool,
    /// Whether they name the fields that changed.
    pub(super) named: bool,
    /// Of records that were not there before for those who are told.
    pub(super) hidden: bool,
}

/// Entries of working memory that are kept from commit to commit.
pub(super) const KEPT: usize = 1_024;

/// Frames that are looked at for little within one commit.
const LOOKS: usize = 1 << 20;

/// Plans that are refused before somebody looks again although no frames were made since: sockets
/// are ready again and take some meanwhile.
const REFUSED: usize = 64;

/// How long a message may become.
#[derive(Clone, Copy)]
pub(super) struct Most {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

/// The messages and frames already made of the records of one body.
#[derive(Default)]
pub(super) struct Frames {
    /// Which of `made` tell these changes, in each form: looked up, as a bulk write may meet a plan
    /// for each of its records.
    known: BTreeMap<Vec<usize>, Vec<(Form, Range<usize>)>>,
    /// The first of `made` that tells of a change alone; [`Made::next`] has the others.
    alone: Vec<Option<usize>>,
    made: Vec<Made>,
    /// Where records stand, message by message.
    ranges: Vec<Range<usize>>,
    /// Frames of the commit's other bodies that somebody else held.
    kept: Vec<Frame>,
    /// Bytes of the commit's frames that somebody may still hold.
    held: usize,
    /// Of them, those made since somebody last looked.
    fresh: usize,
    /// Plans that were refused since then.
    refused: usize,
    /// Frames of the commit that were looked at for that.
    looked: usize,
}

/// One message.
struct Made {
    form: Form,
    /// The next that tells of the same change alone.
    next: Option<usize>,
    /// Of `ranges`.
    records: Range<usize>,
    /// The set of fields that changed in them.
    changed: Option<Option<usize>>,
    /// The frame without a cursor.
    plain: Option<Frame>,
    /// The frame with the commit's cursor, by the grant in it.
    last: BTreeMap<u64, Frame>,
}

/// A commit's cursors as text, by the grant in them; there may be one for each user.
#[derive(Default)]
pub(super) struct Cursors(BTreeMap<u64, (Cursor, String)>);

impl Cursors {
    pub(super) fn start(&mut self) {
        self.0.clear();
    }

    fn of(&mut self, commit: &Commit, grant: u64) -> (Cursor, &str) {
        let (cursor, text) = self.0.entry(grant).or_insert_with(|| {
            let (position, stamp) = (commit.position, commit.stamp);
            let cursor = Cursor { position, stamp, grant };
            (cursor, cursor.to_string())
        });
        (*cursor, text)
    }
}

impl Frames {
    /// Begins with another body of the same commit.
    pub(super) fn start(&mut self) {
        for made in self.made.drain(..) {
            for frame in made.plain.into_iter().chain(made.last.into_values()) {
                match frame.is_alone() {
                    true => self.held -= frame.bytes.len(),
                    false => self.kept.push(frame),
                }
            }
        }
        self.known.clear();
        self.alone.clear();
        self.ranges.clear();
    }

    /// The commit is told. A large one must not hold its memory until the next.
    pub(super) fn end(&mut self) {
        self.start();
        self.kept.clear();
        (self.held, self.fresh, self.refused, self.looked) = (0, 0, 0, 0);
        self.rest(KEPT);
    }

    /// Keeps room for so many messages.
    pub(super) fn rest(&mut self, messages: usize) {
        self.kept.shrink_to(messages);
        self.alone.shrink_to(messages);
        self.made.shrink_to(messages);
        self.ranges.shrink_to(messages);
    }

    /// Whether more than so many bytes of the commit's frames may be held.
    pub(super) fn over(&self, bytes: usize) -> bool {
        self.held > bytes
    }

    /// How much more than so many bytes is held.
    pub(super) fn excess(&self, bytes: usize) -> Option<usize> {
        self.held.checked_sub(bytes).filter(|excess| *excess > 0)
    }

    /// A plan's frames are not made.
    pub(super) fn refuse(&mut self) {
        self.refused += 1;
    }

    /// Whether looking again who holds them is worth its while: some were made since, or several
    /// plans refused, and unless the former are an eighth of so many bytes it has not been done
    /// often.
    pub(super) fn may_recount(&self, bytes: usize) -> bool {
        let due = self.fresh > 0 || self.refused >= REFUSED;
        self.fresh > bytes / 8 || due && self.looked < LOOKS
    }

    /// Lets go of the frames that nobody else holds any more, and counts the others.
    pub(super) fn recount(&mut self) {
        self.looked += self.made.len();
        let mut held = 0;
        let mut keep = |frame: &Frame| {
            self.looked += 1;
            let keep = !frame.is_alone();
            held += if keep { frame.bytes.len() } else { 0 };
            keep
        };
        self.kept.retain(&mut keep);
        for made in &mut self.made {
            made.plain.take_if(|frame| !keep(frame));
            made.last.retain(|_, frame| keep(frame));
        }
        (self.held, self.fresh, self.refused) = (held, 0, 0);
    }

    /// Adds the messages that tell `changes` so, as indexes for the calls below.
    pub(super) fn messages(
        &mut self,
        form: Form,
        changes: &[usize],
        bodies: &Bodies,
        most: Most,
        messages: &mut Vec<usize>,
    ) {
        // One for each record: whoever else is told of the record gets the same.
        if form.event == Event::Create {
            messages.extend(changes.iter().map(|at| self.alone(form, *at, bodies)));
            return;
        }
        let forms = self.known.get(changes).map_or(&[][..], Vec::as_slice);
        if let Some((_, known)) = forms.iter().find(|(known, _)| *known == form) {
            messages.extend(known.clone());
            return;
        }
        let start = self.made.len();
        let mut rest = changes;
        while !rest.is_empty() {
            let (some, after) = rest.split_at(length(form, rest, bodies, most));
            rest = after;
            self.make(form, some, None, bodies);
        }
        let made = start..self.made.len();
        messages.extend(made.clone());
        let told = (form, made);
        match self.known.get_mut(changes) {
            Some(forms) => forms.push(told),
            None => drop(self.known.insert(changes.to_vec(), vec![told])),
        }
    }

    fn alone(&mut self, form: Form, at: usize, bodies: &Bodies) -> usize {
        if self.alone.len() <= at {
            self.alone.resize(at + 1, None);
        }
        let first = self.alone[at];
        let mut known = first;
        while let Some(message) = known {
            let made = &self.made[message];
            if made.form == form {
                return message;
            }
            known = made.next;
        }
        let message = self.made.len();
        self.make(form, &[at], first, bodies);
        self.alone[at] = Some(message);
        message
    }

    fn make(&mut self, form: Form, changes: &[usize], next: Option<usize>, bodies: &Bodies) {
        let first = self.ranges.len();
        self.ranges.extend(changes.iter().map(|at| bodies.range(form.event, *at)));
        self.made.push(Made {
            form,
            next,
            records: first..self.ranges.len(),
            changed: form.named.then(|| bodies.set(changes[0], form.hidden)),
            plain: None,
            last: BTreeMap::new(),
        });
    }

    /// Whether the frames of these messages are there, the last with the cursor for `grant`.
    pub(super) fn has(&self, messages: &[usize], grant: Option<u64>) -> bool {
        let Some((last, others)) = messages.split_last() else { return true };
        let plain = |message: &usize| self.made[*message].plain.is_some();
        others.iter().all(plain)
            && match grant {
                None => plain(last),
                Some(grant) => self.made[*last].last.contains_key(&grant),
            }
    }

    /// A message's frame, one that others follow or that needs no cursor.
    pub(super) fn plain(
        &mut self,
        message: usize,
        encoder: &dyn Encode,
        bodies: &Bodies,
        body: &Body,
    ) -> Frame {
        let made = &mut self.made[message];
        if let Some(frame) = &made.plain {
            return frame.clone();
        }
        let frame = Frame::from(made.encode(&self.ranges, encoder, bodies, body, None));
        self.held += frame.bytes.len();
        self.fresh += frame.bytes.len();
        made.plain = Some(frame.clone());
        frame
    }

    /// The frame of a commit's last message, with the cursor for `grant`.
    pub(super) fn last(
        &mut self,
        message: usize,
        encoder: &dyn Encode,
        bodies: &Bodies,
        body: &Body,
        (cursors, commit, grant): (&mut Cursors, &Commit, u64),
    ) -> Frame {
        let made = &mut self.made[message];
        if let Some(frame) = made.last.get(&grant) {
            return frame.clone();
        }
        let (cursor, text) = cursors.of(commit, grant);
        let bytes = made.encode(&self.ranges, encoder, bodies, body, Some(text));
        self.held += bytes.len();
        self.fresh += bytes.len();
        let frame = Frame::new(bytes, Some(cursor));
        made.last.insert(grant, frame.clone());
        frame
    }
}

impl Made {
    fn encode(
        &self,
        ranges: &[Range<usize>],
        encoder: &dyn Encode,
        bodies: &Bodies,
        body: &Body,
        cursor: Option<&str>,
    ) -> bytes::Bytes {
        let names = self.changed.map(|set| bodies.names(body, set));
        encoder.frame(&Message {
            event: self.form.event,
            single: self.form.single,
            records: Records::new(&bodies.bytes, &ranges[self.records.clone()]),
            changed: names.as_deref(),
            cursor,
        })
    }
}

/// How many of the records one message may carry; at least one.
fn length(form: Form, changes: &[usize], bodies: &Bodies, most: Most) -> usize {
    let mut bytes = 0;
    let fits = |at: &&usize| {
        bytes += bodies.range(form.event, **at).len() + 1;
        let set = |at| bodies.set(at, form.hidden);
        bytes <= most.bytes && (!form.named || set(**at) == set(changes[0]))
    };
    changes.iter().take(most.records).take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_has_it_looked_at_again_now_and_then() {
        const BYTES: usize = 1_000;
        let held = Frame::from(bytes::Bytes::from(vec![b'a'; 2 * BYTES]));
        let mut frames = Frames::default();
        frames.kept.push(held.clone());
        (frames.held, frames.fresh) = (held.bytes.len(), held.bytes.len());
        for _ in 0..3 {
            assert!(frames.over(BYTES) && frames.may_recount(BYTES));
            frames.recount();
            assert!(frames.over(BYTES), "somebody holds it");
            for _ in 0..REFUSED {
                assert!(!frames.may_recount(BYTES));
                frames.refuse();
            }
        }
        drop(held);
        assert!(frames.over(BYTES) && frames.may_recount(BYTES));
        frames.recount();
        assert!(!frames.over(BYTES));
        // And not for ever.
        (frames.refused, frames.looked) = (REFUSED, LOOKS);
        assert!(!frames.may_recount(BYTES));
        frames.end();
        assert_eq!((frames.refused, frames.looked), (0, 0));
    }
}
