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
    made: Vec<Made>,
    /// Where records stand, message by message.
    ranges: Vec<Range<usize>>,
}

/// One message.
struct Made {
    event: Event,
    single: bool,
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
    pub(super) fn start(&mut self) {
        self.known.clear();
        self.made.clear();
        self.ranges.clear();
    }

    /// The messages that tell `changes` so, as indexes for the calls below.
    pub(super) fn messages(
        &mut self,
        form: Form,
        changes: &[usize],
        bodies: &Bodies,
        most: Most,
    ) -> Range<usize> {
        let forms = self.known.get(changes).map_or(&[][..], Vec::as_slice);
        if let Some((_, messages)) = forms.iter().find(|(known, _)| *known == form) {
            return messages.clone();
        }
        let start = self.made.len();
        let mut rest = changes;
        while !rest.is_empty() {
            let (some, after) = rest.split_at(length(form, rest, bodies, most));
            rest = after;
            let first = self.ranges.len();
            self.ranges.extend(some.iter().map(|at| bodies.range(form.event, *at)));
            self.made.push(Made {
                event: form.event,
                single: form.single,
                records: first..self.ranges.len(),
                changed: form.named.then(|| bodies.set(some[0], form.hidden)),
                plain: None,
                last: BTreeMap::new(),
            });
        }
        let messages = start..self.made.len();
        let told = (form, messages.clone());
        match self.known.get_mut(changes) {
            Some(forms) => forms.push(told),
            None => drop(self.known.insert(changes.to_vec(), vec![told])),
        }
        messages
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
            event: self.event,
            single: self.single,
            records: Records::new(&bodies.bytes, &ranges[self.records.clone()]),
            changed: names.as_deref(),
            cursor,
        })
    }
}

/// How many of the records one message may carry; at least one.
fn length(form: Form, changes: &[usize], bodies: &Bodies, most: Most) -> usize {
    if form.event == Event::Create {
        return 1;
    }
    let mut bytes = 0;
    let fits = |at: &&usize| {
        bytes += bodies.range(form.event, **at).len() + 1;
        let set = |at| bodies.set(at, form.hidden);
        bytes <= most.bytes && (!form.named || set(**at) == set(changes[0]))
    };
    changes.iter().take(most.records).take_while(fits).count().max(1)
}
